//! The thread that writes: it commits together what came in while the last commit was under way.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;

use super::{open_database, tables};
use crate::core::{Ticket, Write};

/// How many groups one commit takes at most, so that the first of them does not wait for too long.
const MAX_GROUPS: usize = 512;
/// How long to wait after a commit that failed.
const RETRY: Duration = Duration::from_secs(1);

/// A handle on the thread. Dropped, it waits until all that was submitted is committed.
#[derive(Debug)]
pub struct Writer {
    groups: Option<Sender<(Ticket, Vec<Write>)>>,
    thread: Option<JoinHandle<()>>,
}

// === impl Writer ===

impl Writer {
    /// Starts the thread.
    pub fn start(path: PathBuf, database: Database, confirm: impl Fn(Ticket) + Send + 'static) -> Self {
        let (groups, incoming) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("agent-store".to_owned())
            .spawn(move || run(&path, database, &incoming, confirm));
        let thread = thread
            .inspect_err(|error| tracing::error!(%error, "cannot start the thread of the agent's store"))
            .ok();
        Self { groups: Some(groups), thread }
    }

    /// Hands over a group of writes.
    pub fn submit(&self, ticket: Ticket, writes: Vec<Write>) {
        if let Some(groups) = &self.groups
            && groups.send((ticket, writes)).is_err()
        {
            tracing::error!("the agent's store has stopped: nothing is written any more");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.groups = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    path: &std::path::Path,
    database: Database,
    incoming: &Receiver<(Ticket, Vec<Write>)>,
    confirm: impl Fn(Ticket),
) {
    let mut database = Some(database);
    while let Ok((mut ticket, mut writes)) = incoming.recv() {
        for (later, more) in incoming.try_iter().take(MAX_GROUPS) {
            ticket = later;
            writes.extend(more);
        }
        // After an error redb wants the file opened anew.
        while let Err(error) = commit(path, &mut database, &writes) {
            tracing::error!(path = %path.display(), %error,
                "the agent's state cannot be written: status updates wait until it can");
            database = None;
            std::thread::sleep(RETRY);
        }
        confirm(ticket);
    }
}

fn commit(
    path: &std::path::Path,
    database: &mut Option<Database>,
    writes: &[Write],
) -> Result<(), redb::Error> {
    let database = match database {
        Some(database) => database,
        None => database.insert(open_database(path)?),
    };
    let transaction = database.begin_write()?;
    for write in writes {
        tables::apply(&transaction, write)?;
    }
    Ok(transaction.commit()?)
}
