//! Reading the file whole.
//!
//! What cannot be decoded is damage. With `--strict` the first stops the agent with words; without, all of it is left
//! out together with what makes no sense without it, and removed from the file, so that it is told and counted once. A task that is left out
//! is one that the agent does not have: its container is ended as unknown, and the next registration does not name it, so that
//! the coordinator has it answered for as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use tepui_api::v1::{AgentInfo, DrainConfig, TaskStatus};

use super::records::{ExecutorRecord, FrameworkRecord, TaskRecord};
use super::tables::{self, ACKNOWLEDGED, EXECUTORS, FRAMEWORKS, META, TASKS, UPDATES};
use super::{StoreError, database_error};
use crate::core::{ExecutorKey, StoredState, StoredTask, StoredUpdate, TaskKey, Write, is_terminal};

/// All that is in the file.
///
/// # Errors
/// When the file cannot be read, or has damage and recovery is strict.
pub fn read(path: &Path, database: &Database, strict: bool) -> Result<StoredState, StoreError> {
    let failed = |error: redb::Error| database_error(path, error);
    let mut reading = Reading::default();
    reading.decode(read_raw(database).map_err(failed)?);
    let Reading { mut state, damage } = reading;
    state.errors = damage.len() as u64;
    for Damage { what, why, .. } in &damage {
        if strict {
            return Err(StoreError::Record { path: path.to_owned(), what: what.clone(), why: why.clone() });
        }
        tracing::error!(path = %path.display(), what, why, "going on without what cannot be read");
    }
    if !damage.is_empty() {
        remove(database, damage).map_err(failed)?;
    }
    Ok(state)
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    state: StoredState,
    damage: Vec<Damage>,
}

/// A record that is not what it should be.
struct Damage {
    what: String,
    why: String,
    cure: Cure,
}

/// How the file becomes whole without the record.
enum Cure {
    /// A change that the core could have made.
    Write(Write),
    /// A value of `meta` goes.
    Meta(&'static str),
    /// A task goes, but its updates stay; its framework and id.
    Task(String, String),
    /// One update goes; its framework, task and number.
    Update(String, String, u64),
}

type Streams = BTreeMap<TaskKey, Vec<StoredUpdate>>;

// === impl Reading ===

impl Reading {
    fn decode(&mut self, raw: Raw) {
        self.state.boot_id = raw.boot_id.and_then(|bytes| String::from_utf8(bytes).ok());
        let readable = match raw.agent.map(|bytes| AgentInfo::decode(bytes.as_slice())) {
            None => true,
            Some(Ok(agent)) => {
                self.state.agent = Some(agent);
                true
            }
            Some(Err(error)) => {
                self.damaged("what the agent is registered as", error, Cure::Write(Write::Clear));
                false
            }
        };
        if !readable {
            // Without an id, nothing of the rest is anybody's.
            return;
        }
        match raw.drain.map(|bytes| DrainConfig::decode(bytes.as_slice())) {
            None => {}
            Some(Ok(drain)) => self.state.drain = Some(drain),
            Some(Err(error)) => self.damaged("the drain", error, Cure::Meta("drain")),
        }
        let lost = self.frameworks(raw.frameworks);
        for ((framework, executor), bytes) in raw.executors {
            self.executor(&framework, &executor, &bytes, &lost);
        }
        let mut streams = self.updates(raw.updates, &raw.acknowledged);
        for ((framework, task), bytes) in raw.tasks {
            self.task(framework, task, &bytes, &lost, &mut streams);
        }
        self.state.orphans = streams.into_iter().collect();
    }

    /// Gives those that cannot be read.
    fn frameworks(&mut self, raw: Vec<(String, Vec<u8>)>) -> BTreeSet<String> {
        let mut lost = BTreeSet::new();
        for (id, bytes) in raw {
            match FrameworkRecord::decode(bytes.as_slice()) {
                Ok(record) => self.state.frameworks.push(record.into_framework()),
                Err(error) => {
                    let cure = Cure::Write(Write::RemoveFramework(id.as_str().into()));
                    self.damaged(format!("framework {id}"), error, cure);
                    lost.insert(id);
                }
            }
        }
        lost
    }

    fn executor(&mut self, framework: &str, executor: &str, bytes: &[u8], lost: &BTreeSet<String>) {
        let key = ExecutorKey::new(framework, executor);
        let why = match ExecutorRecord::decode(bytes) {
            Ok(record) if !lost.contains(framework) => {
                self.state.executors.push(record.into_executor(key));
                return;
            }
            Ok(_) => "its framework cannot be".to_owned(),
            Err(error) => error.to_string(),
        };
        // Its tasks are answered for as those of an executor that is not here.
        self.damaged(format!("executor {key}"), why, Cure::Write(Write::RemoveExecutor(key)));
    }

    fn updates(
        &mut self,
        raw: Vec<((String, String, u64), Vec<u8>)>,
        acknowledged: &BTreeMap<(String, String), u64>,
    ) -> Streams {
        let mut streams = Streams::new();
        for ((framework, task, sequence), bytes) in raw {
            let key = TaskKey::new(framework.as_str(), task.as_str());
            match TaskStatus::decode(bytes.as_slice()) {
                Ok(status) => {
                    let done = acknowledged.get(&(framework, task)).copied().unwrap_or(0);
                    let update =
                        StoredUpdate { sequence, status: Arc::new(status), acknowledged: sequence < done };
                    streams.entry(key).or_default().push(update);
                }
                Err(error) => {
                    let what = format!("update {sequence} of task {key}");
                    self.damaged(what, error, Cure::Update(framework, task, sequence));
                }
            }
        }
        streams
    }

    fn task(
        &mut self,
        framework: String,
        task: String,
        bytes: &[u8],
        lost: &BTreeSet<String>,
        streams: &mut Streams,
    ) {
        let key = TaskKey::new(framework.as_str(), task.as_str());
        let why = match TaskRecord::decode(bytes) {
            Ok(record) if !lost.contains(&framework) => {
                let updates = streams.remove(&key).unwrap_or_default();
                self.state.tasks.push(StoredTask { record: record.into_task(key), updates });
                return;
            }
            Ok(_) => "its framework cannot be".to_owned(),
            Err(error) => error.to_string(),
        };
        let what = format!("task {key}");
        // Updates that lead to no end would make a framework believe in a task that is not here.
        let last = streams.get(&key).and_then(|updates| updates.last());
        let cure = if last.is_some_and(|last| is_terminal(last.status.state())) {
            Cure::Task(framework, task)
        } else {
            streams.remove(&key);
            Cure::Write(Write::RemoveTask(key))
        };
        self.damaged(what, why, cure);
    }

    fn damaged(&mut self, what: impl Into<String>, why: impl ToString, cure: Cure) {
        self.damage.push(Damage { what: what.into(), why: why.to_string(), cure });
    }
}

fn remove(database: &Database, damage: Vec<Damage>) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    for Damage { cure, .. } in damage {
        match cure {
            Cure::Write(write) => tables::apply(&writing, &write)?,
            Cure::Meta(name) => {
                writing.open_table(META)?.remove(name)?;
            }
            Cure::Task(framework, task) => {
                writing.open_table(TASKS)?.remove((framework.as_str(), task.as_str()))?;
            }
            Cure::Update(framework, task, sequence) => {
                let key = (framework.as_str(), task.as_str(), sequence);
                writing.open_table(UPDATES)?.remove(key)?;
            }
        }
    }
    Ok(writing.commit()?)
}

/// The file's rows.
#[derive(Default)]
struct Raw {
    agent: Option<Vec<u8>>,
    drain: Option<Vec<u8>>,
    boot_id: Option<Vec<u8>>,
    frameworks: Vec<(String, Vec<u8>)>,
    executors: Vec<((String, String), Vec<u8>)>,
    tasks: Vec<((String, String), Vec<u8>)>,
    updates: Vec<((String, String, u64), Vec<u8>)>,
    acknowledged: BTreeMap<(String, String), u64>,
}

fn read_raw(database: &Database) -> Result<Raw, redb::Error> {
    let reading = database.begin_read()?;
    let meta = reading.open_table(META)?;
    let value = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value().to_vec()));
    let mut raw =
        Raw { agent: value("agent")?, drain: value("drain")?, boot_id: value("boot_id")?, ..Raw::default() };
    for row in reading.open_table(FRAMEWORKS)?.iter()? {
        let (key, value) = row?;
        raw.frameworks.push((key.value().to_owned(), value.value().to_vec()));
    }
    for row in reading.open_table(EXECUTORS)?.iter()? {
        let (key, value) = row?;
        raw.executors.push((owned(key.value()), value.value().to_vec()));
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
