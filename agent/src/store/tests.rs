//! The store, with files of its own and with those that earlier versions left.

use super::*;
use crate::checks::Health;
use crate::core::{
    ExecutorKey, ExecutorWrite, FrameworkFate, KillCause, KillOrder, StoredTask, StoredUpdate, TaskKey,
    TaskWrite,
};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tepui_api::v1::{AgentInfo, DrainConfig, ExecutorInfo, FrameworkInfo, TaskInfo, TaskState, TaskStatus};

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
        group: Some("g".into()),
        kill,
        health: None,
    }
}

fn executor() -> ExecutorWrite {
    ExecutorWrite {
        key: ExecutorKey::new("F", "e"),
        info: Arc::new(ExecutorInfo {
            executor_id: "e".into(),
            name: Some("n".into()),
            ..ExecutorInfo::default()
        }),
        container: tepui_api::v1::ContainerId::new("d"),
        directory: "/w/y".into(),
        user: None,
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
    let (store, _) = Store::open(dir, true, move |ticket| sender.send(ticket).unwrap()).unwrap();
    let count = groups.len() as u64;
    for (n, writes) in groups.into_iter().enumerate() {
        store.submit(Ticket(n as u64), writes);
    }
    while confirmed.recv_timeout(Duration::from_secs(60)).unwrap() != Ticket(count - 1) {}
}

fn read(dir: &Path) -> StoredState {
    Store::open(dir, true, |_| {}).unwrap().1
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
            vec![Write::Executor(Box::new(executor()))],
            vec![Write::Executor(Box::new(ExecutorWrite { key: ExecutorKey::new("F", "ee"), ..executor() }))],
            vec![Write::RemoveExecutor(ExecutorKey::new("F", "ee"))],
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
        boot_id: None,
        errors: 0,
        agent: Some(agent),
        drain: Some(drain),
        frameworks: vec![((*framework()).clone(), FrameworkFate::Active)],
        executors: vec![executor()],
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
    let (store, _) = Store::open(dir.path(), true, move |ticket| sender.send(ticket).unwrap()).unwrap();
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
    let _first = Store::open(dir.path(), true, |_| {}).unwrap();
    assert!(matches!(Store::open(dir.path(), true, |_| {}), Err(StoreError::InUse(_))));
}

#[test]
fn a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), true, |_| {}).unwrap());
    upgrade::write_format(&dir.path().join("meta/agent.redb"), 99);
    assert!(matches!(Store::open(dir.path(), true, |_| {}), Err(StoreError::Format { found: 99, .. })));
}

/// The file as it was at some instant, as after kill -9: opened, it has all that was confirmed by then.
#[test]
fn a_copy_of_the_file_in_use_has_all_that_was_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, confirmed) = mpsc::channel();
    let (store, _) = Store::open(dir.path(), true, move |ticket| sender.send(ticket).unwrap()).unwrap();
    for n in 0..200u64 {
        store.submit(Ticket(n), vec![Write::Task(Box::new(record(&format!("t{n}"), None)))]);
        if n % 50 != 49 {
            continue;
        }
        while confirmed.recv_timeout(Duration::from_secs(60)).unwrap() != Ticket(n) {}
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("meta")).unwrap();
        std::fs::copy(dir.path().join("meta/agent.redb"), copy.path().join("meta/agent.redb")).unwrap();
        assert_eq!(read(copy.path()).tasks.len() as u64, n + 1);
    }
}

/// The file that a version with format 1 left when it was killed: one task runs, one is being killed, one has ended and nobody has
/// acknowledged it.
fn format_1(dir: &Path) {
    unpack(include_bytes!("fixtures/format-1.redb.gz"), dir);
}

/// The file that a version with format 2 left when it was killed: the agent drains, one task is being killed for it, and one has ended.
fn format_2(dir: &Path) {
    unpack(include_bytes!("fixtures/format-2.redb.gz"), dir);
}

fn unpack(packed: &[u8], dir: &Path) {
    use std::io::Read as _;
    let mut file = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut file).unwrap();
    std::fs::create_dir(dir.join("meta")).unwrap();
    std::fs::write(dir.join("meta/agent.redb"), file).unwrap();
}

#[test]
fn a_file_of_the_first_format_is_taken_over_whole() {
    let dir = tempfile::tempdir().unwrap();
    format_1(dir.path());
    let check = |state: &StoredState| {
        let agent = state.agent.as_ref().unwrap();
        assert!(agent.id.as_ref().unwrap().value.ends_with("-S0"));
        assert_eq!(agent.resources.len(), 4);
        assert_eq!(state.frameworks.len(), 1);
        assert_eq!(state.frameworks[0].1, FrameworkFate::Active);
        let of = |id: &str| state.tasks.iter().find(|t| t.record.key.task.value == id).unwrap();
        assert_eq!(state.tasks.len(), 3);
        assert_eq!(of("runs").updates.last().unwrap().status.state(), TaskState::TaskRunning);
        assert!(of("runs").updates.iter().all(|update| update.acknowledged));
        assert_eq!(of("killed").record.kill.unwrap().grace, Duration::from_secs(600));
        let last = of("unacknowledged").updates.last().unwrap();
        assert_eq!((last.status.state(), last.acknowledged), (TaskState::TaskFailed, false));
        assert_eq!((state.orphans.len(), state.drain, state.errors), (0, None, 0));
    };
    check(&read(dir.path()));
    // It has the present format now, and is what it was.
    let database = open_database(&dir.path().join("meta/agent.redb")).unwrap();
    assert_eq!(upgrade::format(&database).unwrap(), Some(upgrade::FORMAT));
    drop(database);
    check(&read(dir.path()));
}

#[test]
fn a_file_of_the_second_format_is_taken_over_whole() {
    let dir = tempfile::tempdir().unwrap();
    format_2(dir.path());
    let state = read(dir.path());
    assert!(state.agent.as_ref().unwrap().id.is_some());
    assert_eq!(state.boot_id.as_ref().unwrap().len(), 36, "{:?}", state.boot_id);
    let grace = state.drain.unwrap().max_grace_period.unwrap();
    assert_eq!(grace.nanoseconds, 600_000_000_000);
    assert_eq!((names(&state), state.errors), (vec!["drained", "unacknowledged"], 0));
    let drained = &state.tasks[0];
    assert_eq!(drained.record.kill.unwrap().grace, Duration::from_secs(600));
    assert_eq!(drained.updates.last().unwrap().status.state(), TaskState::TaskKilling);
}

/// Puts bytes that are no message where one of the file's records is.
fn damage(dir: &Path, put: impl FnOnce(&redb::WriteTransaction, &[u8])) {
    let database = open_database(&dir.join("meta/agent.redb")).unwrap();
    let writing = database.begin_write().unwrap();
    put(&writing, &[0xff; 9]);
    writing.commit().unwrap();
}

fn lenient(dir: &Path) -> StoredState {
    Store::open(dir, false, |_| {}).unwrap().1
}

fn framework_id(dir: &Path) -> String {
    read(dir).frameworks[0].0.id.as_ref().unwrap().value.clone()
}

fn names(state: &StoredState) -> Vec<&str> {
    state.tasks.iter().map(|task| task.record.key.task.value.as_str()).collect()
}

#[test]
fn damage_stops_a_strict_agent_with_words_and_another_goes_on_without_what_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    format_1(dir.path());
    let framework = framework_id(dir.path());
    damage(dir.path(), |to, bytes| {
        let mut tasks = to.open_table(tables::TASKS).unwrap();
        tasks.insert((framework.as_str(), "runs"), bytes).unwrap();
        tasks.insert((framework.as_str(), "unacknowledged"), bytes).unwrap();
        to.open_table(tables::UPDATES).unwrap().insert((framework.as_str(), "killed", 2), bytes).unwrap();
    });
    let error = Store::open(dir.path(), true, |_| {}).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("--strict=false"), "{error}");

    let state = lenient(dir.path());
    assert_eq!((names(&state), state.errors), (vec!["killed"], 3));
    assert_eq!(state.tasks[0].updates.len(), 2, "the third is left out");
    // The end of a task is told though its record is lost; what leads to no end is not.
    let orphans: Vec<&str> = state.orphans.iter().map(|(key, _)| key.task.value.as_str()).collect();
    assert_eq!(orphans, ["unacknowledged"]);
    // Told once: the file is whole again.
    let again = read(dir.path());
    assert_eq!(again, StoredState { errors: 0, ..state });
}

#[test]
fn a_damaged_framework_takes_its_tasks_along_and_a_damaged_agent_everything() {
    let dir = tempfile::tempdir().unwrap();
    format_1(dir.path());
    let framework = framework_id(dir.path());
    damage(dir.path(), |to, bytes| {
        to.open_table(tables::FRAMEWORKS).unwrap().insert(framework.as_str(), bytes).unwrap();
        to.open_table(tables::META).unwrap().insert("drain", bytes).unwrap();
    });
    let state = lenient(dir.path());
    assert_eq!((state.frameworks.len(), names(&state).len(), state.errors), (0, 0, 5));
    assert!(state.agent.is_some());

    damage(dir.path(), |to, bytes| {
        to.open_table(tables::META).unwrap().insert("agent", bytes).unwrap();
    });
    assert!(Store::open(dir.path(), true, |_| {}).is_err());
    assert_eq!(lenient(dir.path()), StoredState { errors: 1, ..StoredState::default() });
    assert_eq!(read(dir.path()), StoredState::default());
}

#[test]
fn a_file_that_is_no_database_is_put_aside_unless_recovery_is_strict() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("meta")).unwrap();
    let path = dir.path().join("meta/agent.redb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(matches!(Store::open(dir.path(), true, |_| {}), Err(StoreError::Database { .. })));
    assert_eq!(lenient(dir.path()).errors, 1);
    assert_eq!(std::fs::read(path.with_extension("redb.damaged")).unwrap(), vec![b'x'; 10_000]);
    assert_eq!(read(dir.path()), StoredState::default());
}

#[test]
fn the_boot_id_outlives_the_agents_id() {
    let dir = tempfile::tempdir().unwrap();
    let agent = AgentInfo { id: Some("A".into()), ..AgentInfo::default() };
    commit(
        dir.path(),
        vec![
            vec![Write::Agent(Arc::new(agent)), Write::BootId("one".into())],
            vec![Write::BootId("two".into()), Write::Clear],
        ],
    );
    assert_eq!(read(dir.path()), StoredState { boot_id: Some("two".into()), ..StoredState::default() });
}

#[test]
fn of_what_checks_found_only_the_last_that_was_acknowledged_stays() {
    use tepui_api::v1::task_status::Reason;
    let dir = tempfile::tempdir().unwrap();
    let finding = |sequence, reason: Reason| {
        let status = TaskStatus { reason: Some(reason as i32), ..(*status(TaskState::TaskRunning)).clone() };
        Write::Update(key("t"), sequence, Arc::new(status))
    };
    let health = Health { passed: true, failures: 2 };
    let mut writes = vec![
        Write::Agent(Arc::default()),
        Write::Framework(framework(), FrameworkFate::Active),
        Write::Task(Box::new(TaskWrite { health: Some(health), ..record("t", None) })),
        Write::Update(key("t"), 0, status(TaskState::TaskStarting)),
        Write::Update(key("t"), 1, status(TaskState::TaskRunning)),
    ];
    for sequence in 2..6 {
        let reason = if sequence % 2 == 0 {
            Reason::TaskCheckStatusUpdated
        } else {
            Reason::TaskHealthCheckStatusUpdated
        };
        writes.push(finding(sequence, reason));
    }
    writes.extend((0..5).map(|sequence| Write::Acknowledged(key("t"), sequence)));
    commit(dir.path(), vec![writes]);
    let task = read(dir.path()).tasks.remove(0);
    let left: Vec<_> = task.updates.iter().map(|update| (update.sequence, update.acknowledged)).collect();
    assert_eq!(left, [(0, true), (1, true), (4, true), (5, false)]);
    assert_eq!(task.record.health, Some(health));
}
