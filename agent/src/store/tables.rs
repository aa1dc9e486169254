//! The tables of the file, opening it, and how one write changes it.

use std::path::Path;

use prost::Message as _;
use redb::{Database, DatabaseError, ReadableTable as _, TableDefinition, WriteTransaction};

use tepui_api::v1::TaskStatus;
use tepui_api::v1::task_status::Reason;

use super::records::{ExecutorRecord, FrameworkRecord, TaskRecord};
use super::{StoreError, database_error, open_database, upgrade};
use crate::core::{TaskKey, Write};

/// Single values: `format`, a 32-bit number in little-endian; `agent`, an `AgentInfo`; since format 2 `drain`, a
/// `DrainConfig`, and `boot_id`, a text.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// By framework id.
pub(super) const FRAMEWORKS: TableDefinition<&str, &[u8]> = TableDefinition::new("frameworks");
/// By framework id and task id.
pub(super) const TASKS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("tasks");
/// By framework id and executor id. Since format 3.
pub(super) const EXECUTORS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("executors");
/// `TaskStatus` by framework id, task id and number.
pub(super) const UPDATES: TableDefinition<(&str, &str, u64), &[u8]> = TableDefinition::new("updates");
/// By framework id and task id, how many of the task's updates were acknowledged.
pub(super) const ACKNOWLEDGED: TableDefinition<(&str, &str), u64> = TableDefinition::new("acknowledged");

/// Opens the file, with all tables in it and in the present format.
pub fn open(path: &Path) -> Result<Database, StoreError> {
    let database = open_database(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        other => database_error(path, other),
    })?;
    upgrade::to_present(path, &database)?;
    Ok(database)
}

/// Makes one write in a transaction.
pub fn apply(to: &WriteTransaction, write: &Write) -> Result<(), redb::Error> {
    match write {
        Write::Agent(agent) => {
            to.open_table(META)?.insert("agent", agent.encode_to_vec().as_slice())?;
        }
        Write::Drain(Some(config)) => {
            to.open_table(META)?.insert("drain", config.encode_to_vec().as_slice())?;
        }
        Write::Drain(None) => {
            to.open_table(META)?.remove("drain")?;
        }
        Write::BootId(id) => {
            to.open_table(META)?.insert("boot_id", id.as_bytes())?;
        }
        Write::Clear => {
            let mut meta = to.open_table(META)?;
            meta.remove("agent")?;
            meta.remove("drain")?;
            to.open_table(FRAMEWORKS)?.retain(|_, _| false)?;
            to.open_table(TASKS)?.retain(|_, _| false)?;
            to.open_table(EXECUTORS)?.retain(|_, _| false)?;
            to.open_table(UPDATES)?.retain(|_, _| false)?;
            to.open_table(ACKNOWLEDGED)?.retain(|_, _| false)?;
        }
        Write::Framework(info, fate) => {
            let Some(id) = &info.id else { return Ok(()) };
            let record = FrameworkRecord::new(info, *fate).encode_to_vec();
            to.open_table(FRAMEWORKS)?.insert(id.value.as_str(), record.as_slice())?;
        }
        Write::RemoveFramework(id) => {
            to.open_table(FRAMEWORKS)?.remove(id.value.as_str())?;
        }
        Write::Task(task) => {
            let record = TaskRecord::new(task).encode_to_vec();
            to.open_table(TASKS)?.insert(names(&task.key), record.as_slice())?;
        }
        Write::Executor(executor) => {
            let record = ExecutorRecord::new(executor).encode_to_vec();
            let key = (executor.key.framework.value.as_str(), executor.key.executor.value.as_str());
            to.open_table(EXECUTORS)?.insert(key, record.as_slice())?;
        }
        Write::RemoveExecutor(key) => {
            let key = (key.framework.value.as_str(), key.executor.value.as_str());
            to.open_table(EXECUTORS)?.remove(key)?;
        }
        Write::Update(key, sequence, status) => {
            let (framework, task) = names(key);
            let record = status.encode_to_vec();
            to.open_table(UPDATES)?.insert((framework, task, *sequence), record.as_slice())?;
        }
        Write::Acknowledged(key, sequence) => {
            to.open_table(ACKNOWLEDGED)?.insert(names(key), sequence + 1)?;
            forget_older_findings(to, key, *sequence)?;
        }
        Write::RemoveTask(key) => {
            let (framework, task) = names(key);
            to.open_table(TASKS)?.remove((framework, task))?;
            to.open_table(ACKNOWLEDGED)?.remove((framework, task))?;
            let all = (framework, task, 0)..=(framework, task, u64::MAX);
            to.open_table(UPDATES)?.retain_in(all, |_, _| false)?;
        }
    }
    Ok(())
}

/// Of what a task's checks found, only what was acknowledged last is needed by an agent that starts anew: a task that is asked each
/// second for a year would fill the disk otherwise.
fn forget_older_findings(to: &WriteTransaction, key: &TaskKey, sequence: u64) -> Result<(), redb::Error> {
    let (framework, task) = names(key);
    let mut updates = to.open_table(UPDATES)?;
    let is_new = updates.get((framework, task, sequence))?.is_some_and(|row| is_finding(row.value()));
    if is_new {
        let older = (framework, task, 0)..(framework, task, sequence);
        updates.retain_in(older, |_, row| !is_finding(row))?;
    }
    Ok(())
}

/// Whether this is an update that tells what a check found.
fn is_finding(row: &[u8]) -> bool {
    TaskStatus::decode(row).is_ok_and(|status| {
        matches!(status.reason(), Reason::TaskCheckStatusUpdated | Reason::TaskHealthCheckStatusUpdated)
    })
}

fn names(key: &TaskKey) -> (&str, &str) {
    (&key.framework.value, &key.task.value)
}
