//! What must survive the agent: one `redb` file, `<work_dir>/meta/agent.redb`.
//!
//! [`Store::open`] reads it whole into a [`StoredState`], for the core to recover from. After that the file is only
//! written: the core's writes come in groups, each with a ticket; a thread of its own takes all groups that
//! have come in while it was busy, commits them in one transaction, and confirms the last ticket when
//! the disk has them ([`writer`]). How records look on disk is said in [`records`], which table they are in, in
//! [`tables`].
//!
//! A commit that fails, as on a full disk, is tried again until it succeeds: nothing is confirmed meanwhile, so
//! nothing is sent that could be lost.

mod records;
mod tables;
mod writer;

use std::path::{Path, PathBuf};

use redb::Database;

use crate::core::{StoredState, Ticket, Write};
use writer::Writer;

/// The agent's state on disk.
#[derive(Debug)]
pub struct Store {
    writer: Writer,
}

/// Why the state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot make the directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent has it open.
    #[error("{0} is in use: another agent runs with this work directory")]
    InUse(PathBuf),
    /// `redb` cannot open or read it.
    #[error("cannot read the agent's state in {path}: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
    /// It was written by a later version.
    #[error(
        "{path} has format {found}, but this version of tepui knows formats up to {known}: start the version that wrote it, or use another work directory"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// A record in it is not what it should be.
    #[error("{path} is damaged: {what} cannot be read: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record.
        what: String,
        /// Why.
        source: prost::DecodeError,
    },
}

// === impl Store ===

impl Store {
    /// Opens the state in a work directory, making it if there is none. From then on each confirmed
    /// ticket is told to `confirm`, on the store's thread.
    ///
    /// # Errors
    /// When the file cannot be opened, is in use, damaged, or of a later version.
    pub fn open(
        work_dir: &Path,
        confirm: impl Fn(Ticket) + Send + 'static,
    ) -> Result<(Self, StoredState), StoreError> {
        let directory = work_dir.join("meta");
        std::fs::create_dir_all(&directory)
            .map_err(|source| StoreError::Directory { path: directory.clone(), source })?;
        let path = directory.join("agent.redb");
        let database = tables::open(&path)?;
        let state = tables::read(&path, &database)?;
        Ok((Self { writer: Writer::start(path, database, confirm) }, state))
    }

    /// Hands over a group of writes. Groups are committed in the order they come.
    pub fn submit(&self, ticket: Ticket, writes: Vec<Write>) {
        self.writer.submit(ticket, writes);
    }
}

fn database_error(path: &Path, source: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_owned(), source: source.into() }
}

fn open_database(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE).create(path)
}

/// Bytes of the file kept in memory. The state of thousands of tasks fits.
const CACHE: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{FrameworkFate, KillCause, KillOrder, StoredTask, StoredUpdate, TaskKey, TaskWrite};
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;
    use tepui_api::v1::{AgentInfo, DrainConfig, FrameworkInfo, TaskInfo, TaskState, TaskStatus};

    fn key(task: &str) -> TaskKey {
        TaskKey::new("F", task)
    }

    fn record(task: &str, kill: Option<KillOrder>) -> TaskWrite {
        TaskWrite {
            key: key(task),
            info: Arc::new(TaskInfo { task_id: task.into(), name: "n".into(), ..TaskInfo::default() }),
            container: tepui_api::v1::ContainerId::new("c"),
            directory: "/w/x".into(),
            user: Some("nobody".into()),
            kill,
        }
    }

    fn status(state: TaskState) -> Arc<TaskStatus> {
        Arc::new(TaskStatus { task_id: "t".into(), state: state as i32, ..TaskStatus::default() })
    }

    fn framework() -> Arc<FrameworkInfo> {
        Arc::new(FrameworkInfo { id: Some("F".into()), name: "f".into(), ..FrameworkInfo::default() })
    }

    /// Commits groups of writes and closes the store.
    fn commit(dir: &Path, groups: Vec<Vec<Write>>) {
        let (sender, confirmed) = mpsc::channel();
        let (store, _) = Store::open(dir, move |ticket| sender.send(ticket).unwrap()).unwrap();
        let count = groups.len() as u64;
        for (n, writes) in groups.into_iter().enumerate() {
            store.submit(Ticket(n as u64), writes);
        }
        while confirmed.recv_timeout(Duration::from_secs(20)).unwrap() != Ticket(count - 1) {}
    }

    fn read(dir: &Path) -> StoredState {
        Store::open(dir, |_| {}).unwrap().1
    }

    #[test]
    fn what_was_confirmed_is_read_back_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let agent = AgentInfo { hostname: "h".into(), id: Some("A".into()), ..AgentInfo::default() };
        let drain = DrainConfig { max_grace_period: None, mark_gone: Some(true) };
        let kill = KillOrder { cause: KillCause::CompletionTime, grace: Duration::from_millis(1500) };
        let update = |sequence, state| Write::Update(key("t"), sequence, status(state));
        commit(
            dir.path(),
            vec![
                vec![Write::Agent(Arc::new(agent.clone()))],
                vec![Write::Drain(Some(drain))],
                vec![Write::Framework(framework(), FrameworkFate::Active)],
                vec![Write::Task(Box::new(record("t", None)))],
                vec![update(0, TaskState::TaskStarting), update(1, TaskState::TaskRunning)],
                vec![Write::Acknowledged(key("t"), 0)],
                vec![Write::Task(Box::new(record("t", Some(kill))))],
                // Its key begins like the other's: removing one must leave the other.
                vec![Write::Task(Box::new(record("tt", None)))],
                vec![Write::Update(key("tt"), 0, status(TaskState::TaskRunning))],
                vec![Write::RemoveTask(key("tt"))],
                vec![Write::Update(key("ghost"), 0, status(TaskState::TaskLost))],
            ],
        );
        let expected = StoredState {
            agent: Some(agent),
            drain: Some(drain),
            frameworks: vec![((*framework()).clone(), FrameworkFate::Active)],
            tasks: vec![StoredTask {
                record: record("t", Some(kill)),
                updates: vec![
                    StoredUpdate { sequence: 0, status: status(TaskState::TaskStarting), acknowledged: true },
                    StoredUpdate { sequence: 1, status: status(TaskState::TaskRunning), acknowledged: false },
                ],
            }],
            orphans: vec![(
                key("ghost"),
                vec![StoredUpdate { sequence: 0, status: status(TaskState::TaskLost), acknowledged: false }],
            )],
        };
        assert_eq!(read(dir.path()), expected);

        commit(
            dir.path(),
            vec![
                vec![Write::Framework(framework(), FrameworkFate::ShuttingDown)],
                vec![Write::RemoveTask(key("t")), Write::RemoveTask(key("ghost"))],
                vec![Write::Drain(None)],
            ],
        );
        let left = read(dir.path());
        assert_eq!((left.tasks.len(), left.orphans.len(), left.drain), (0, 0, None));
        assert_eq!(left.frameworks[0].1, FrameworkFate::ShuttingDown);

        commit(dir.path(), vec![vec![Write::RemoveFramework("F".into())]]);
        assert_eq!(read(dir.path()).frameworks, []);
        commit(dir.path(), vec![vec![Write::Clear]]);
        assert_eq!(read(dir.path()), StoredState::default());
    }

    #[test]
    fn many_groups_are_confirmed_in_order_and_together() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, confirmed) = mpsc::channel();
        let (store, _) = Store::open(dir.path(), move |ticket| sender.send(ticket).unwrap()).unwrap();
        for n in 0..1000 {
            store.submit(Ticket(n), vec![Write::Task(Box::new(record(&format!("t{n}"), None)))]);
        }
        drop(store);
        let tickets: Vec<Ticket> = confirmed.iter().collect();
        assert!(tickets.is_sorted());
        assert_eq!(tickets.last(), Some(&Ticket(999)));
        assert!(tickets.len() < 1000, "each group had a commit of its own");
        assert_eq!(read(dir.path()).tasks.len(), 1000);
    }

    #[test]
    fn two_agents_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Store::open(dir.path(), |_| {}).unwrap();
        assert!(matches!(Store::open(dir.path(), |_| {}), Err(StoreError::InUse(_))));
    }

    #[test]
    fn a_later_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), |_| {}).unwrap());
        tables::write_format(&dir.path().join("meta/agent.redb"), 99);
        assert!(matches!(Store::open(dir.path(), |_| {}), Err(StoreError::Format { found: 99, .. })));
    }

    /// The file as it was at some instant, as after kill -9: opened, it has all that was confirmed by then.
    #[test]
    fn a_copy_of_the_file_in_use_has_all_that_was_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, confirmed) = mpsc::channel();
        let (store, _) = Store::open(dir.path(), move |ticket| sender.send(ticket).unwrap()).unwrap();
        for n in 0..200u64 {
            store.submit(Ticket(n), vec![Write::Task(Box::new(record(&format!("t{n}"), None)))]);
            if n % 50 != 49 {
                continue;
            }
            while confirmed.recv_timeout(Duration::from_secs(20)).unwrap() != Ticket(n) {}
            let copy = tempfile::tempdir().unwrap();
            std::fs::create_dir(copy.path().join("meta")).unwrap();
            std::fs::copy(dir.path().join("meta/agent.redb"), copy.path().join("meta/agent.redb")).unwrap();
            assert_eq!(read(copy.path()).tasks.len() as u64, n + 1);
        }
    }
}
