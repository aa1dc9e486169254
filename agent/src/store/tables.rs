//! The tables of the file, how it is read whole, and how one write changes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use tepui_api::v1::{AgentInfo, DrainConfig, TaskStatus};

use super::records::{FrameworkRecord, TaskRecord};
use super::{StoreError, database_error, open_database};
use crate::core::{StoredState, StoredTask, StoredUpdate, TaskKey, Write};

/// The format that this version writes. Earlier ones are brought up to it when they are opened.
const FORMAT: u32 = 1;

/// Single values: `format`, a 32-bit number in little-endian; `agent`, an `AgentInfo`;
/// `drain`, a `DrainConfig`.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// By framework id.
const FRAMEWORKS: TableDefinition<&str, &[u8]> = TableDefinition::new("frameworks");
/// By framework id and task id.
const TASKS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("tasks");
/// `TaskStatus` by framework id, task id and number.
const UPDATES: TableDefinition<(&str, &str, u64), &[u8]> = TableDefinition::new("updates");
/// By framework id and task id, how many of the task's updates were acknowledged.
const ACKNOWLEDGED: TableDefinition<(&str, &str), u64> = TableDefinition::new("acknowledged");

/// Opens the file, with all tables in it.
pub fn open(path: &Path) -> Result<Database, StoreError> {
    let database = open_database(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        other => database_error(path, other),
    })?;
    match format(&database).map_err(|error| database_error(path, error))? {
        None => prepare(&database).map_err(|error| database_error(path, error))?,
        Some(FORMAT) => {}
        Some(found) => return Err(StoreError::Format { path: path.to_owned(), found, known: FORMAT }),
    }
    Ok(database)
}

fn format(database: &Database) -> Result<Option<u32>, redb::Error> {
    let reading = database.begin_read()?;
    let meta = match reading.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = meta.get("format")?.and_then(|value| value.value().try_into().ok());
    Ok(bytes.map(u32::from_le_bytes))
}

fn prepare(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    writing.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    writing.open_table(FRAMEWORKS)?;
    writing.open_table(TASKS)?;
    writing.open_table(UPDATES)?;
    writing.open_table(ACKNOWLEDGED)?;
    Ok(writing.commit()?)
}

/// All that is in the file.
pub fn read(path: &Path, database: &Database) -> Result<StoredState, StoreError> {
    let raw = read_raw(database).map_err(|error| database_error(path, error))?;
    let damaged = |what: String| move |source| StoreError::Record { path: path.to_owned(), what, source };

    let mut streams: BTreeMap<TaskKey, Vec<StoredUpdate>> = BTreeMap::new();
    for ((framework, task, sequence), bytes) in raw.updates {
        let key = TaskKey::new(framework.as_str(), task.as_str());
        let status = TaskStatus::decode(bytes.as_slice())
            .map_err(damaged(format!("update {sequence} of task {key}")))?;
        let done = raw.acknowledged.get(&(framework, task)).copied().unwrap_or(0);
        let update = StoredUpdate { sequence, status: Arc::new(status), acknowledged: sequence < done };
        streams.entry(key).or_default().push(update);
    }
    let mut state = StoredState::default();
    if let Some(bytes) = raw.agent {
        state.agent = Some(AgentInfo::decode(bytes.as_slice()).map_err(damaged("the agent".to_owned()))?);
    }
    if let Some(bytes) = raw.drain {
        let drain = DrainConfig::decode(bytes.as_slice()).map_err(damaged("the drain".to_owned()))?;
        state.drain = Some(drain);
    }
    for (id, bytes) in raw.frameworks {
        let record = FrameworkRecord::decode(bytes.as_slice()).map_err(damaged(format!("framework {id}")))?;
        state.frameworks.push(record.into_framework());
    }
    for ((framework, task), bytes) in raw.tasks {
        let key = TaskKey::new(framework.as_str(), task.as_str());
        let record = TaskRecord::decode(bytes.as_slice()).map_err(damaged(format!("task {key}")))?;
        let updates = streams.remove(&key).unwrap_or_default();
        state.tasks.push(StoredTask { record: record.into_task(key), updates });
    }
    state.orphans = streams.into_iter().collect();
    Ok(state)
}

#[derive(Default)]
struct Raw {
    agent: Option<Vec<u8>>,
    drain: Option<Vec<u8>>,
    frameworks: Vec<(String, Vec<u8>)>,
    tasks: Vec<((String, String), Vec<u8>)>,
    updates: Vec<((String, String, u64), Vec<u8>)>,
    acknowledged: BTreeMap<(String, String), u64>,
}

fn read_raw(database: &Database) -> Result<Raw, redb::Error> {
    let reading = database.begin_read()?;
    let mut raw = Raw {
        agent: reading.open_table(META)?.get("agent")?.map(|value| value.value().to_vec()),
        drain: reading.open_table(META)?.get("drain")?.map(|value| value.value().to_vec()),
        ..Raw::default()
    };
    for row in reading.open_table(FRAMEWORKS)?.iter()? {
        let (key, value) = row?;
        raw.frameworks.push((key.value().to_owned(), value.value().to_vec()));
    }
    for row in reading.open_table(TASKS)?.iter()? {
        let (key, value) = row?;
        raw.tasks.push((owned(key.value()), value.value().to_vec()));
    }
    for row in reading.open_table(UPDATES)?.iter()? {
        let (key, value) = row?;
        let (framework, task, sequence) = key.value();
        raw.updates.push(((framework.to_owned(), task.to_owned(), sequence), value.value().to_vec()));
    }
    for row in reading.open_table(ACKNOWLEDGED)?.iter()? {
        let (key, value) = row?;
        raw.acknowledged.insert(owned(key.value()), value.value());
    }
    Ok(raw)
}

fn owned((framework, task): (&str, &str)) -> (String, String) {
    (framework.to_owned(), task.to_owned())
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
        Write::Clear => {
            to.open_table(META)?.remove("agent")?;
            to.open_table(META)?.remove("drain")?;
            to.open_table(FRAMEWORKS)?.retain(|_, _| false)?;
            to.open_table(TASKS)?.retain(|_, _| false)?;
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
        Write::Update(key, sequence, status) => {
            let (framework, task) = names(key);
            let record = status.encode_to_vec();
            to.open_table(UPDATES)?.insert((framework, task, *sequence), record.as_slice())?;
        }
        Write::Acknowledged(key, sequence) => {
            to.open_table(ACKNOWLEDGED)?.insert(names(key), sequence + 1)?;
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

fn names(key: &TaskKey) -> (&str, &str) {
    (&key.framework.value, &key.task.value)
}

/// Puts a format number into a file that is not open.
#[cfg(test)]
pub fn write_format(path: &Path, format: u32) {
    let database = open_database(path).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(META).unwrap().insert("format", format.to_le_bytes().as_slice()).unwrap();
    writing.commit().unwrap();
}
