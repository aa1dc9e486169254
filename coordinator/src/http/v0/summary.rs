//! `/state-summary`: who is there, without the tasks themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tepui_api::v1::{AgentId, FrameworkId, TaskState};

use super::super::Context;
use super::state::{agent, all_tasks, framework_summary};
use super::write::List;
use crate::core::{Agent, Framework, Snapshot};

/// The states that are counted, in Mesos' order. It has no place for the others.
const STATES: [TaskState; 10] = [
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskKilling,
    TaskState::TaskFinished,
    TaskState::TaskKilled,
    TaskState::TaskFailed,
    TaskState::TaskLost,
    TaskState::TaskError,
    TaskState::TaskUnreachable,
];

/// See the module.
pub(super) struct Summary<'a>(pub(super) &'a Context, pub(super) &'a Snapshot);

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(context, state) = self;
        let tally = Tally::of(state);
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("hostname", context.info.hostname())?;
        if let Some(cluster) = &context.settings.cluster {
            map.serialize_entry("cluster", cluster)?;
        }
        map.serialize_entry("slaves", &List(|| state.agents.values().map(|each| AgentLine(each, &tally))))?;
        let frameworks = || state.frameworks.values().map(|each| FrameworkLine(each, &tally));
        map.serialize_entry("frameworks", &List(frameworks))?;
        map.end()
    }
}

/// Who has tasks where, and in which states.
#[derive(Default)]
struct Tally<'a> {
    agents: BTreeMap<&'a AgentId, Line<&'a FrameworkId>>,
    frameworks: BTreeMap<&'a FrameworkId, Line<&'a AgentId>>,
}

struct Line<T> {
    states: BTreeMap<TaskState, u64>,
    others: BTreeSet<T>,
}

impl<'a> Tally<'a> {
    fn of(state: &'a Snapshot) -> Self {
        let mut tally = Self::default();
        for framework in state.frameworks.values() {
            for task in all_tasks(framework) {
                tally.agents.entry(&task.agent_id).or_default().add(task.state(), &framework.id);
                tally.frameworks.entry(&framework.id).or_default().add(task.state(), &task.agent_id);
            }
        }
        tally
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { states: BTreeMap::new(), others: BTreeSet::new() }
    }
}

impl<T: Ord> Line<T> {
    fn add(&mut self, state: TaskState, other: T) {
        *self.states.entry(state).or_default() += 1;
        self.others.insert(other);
    }
}

fn states<M: SerializeMap>(map: &mut M, states: Option<&BTreeMap<TaskState, u64>>) -> Result<(), M::Error> {
    for state in STATES {
        let count = states.and_then(|states| states.get(&state)).copied().unwrap_or(0);
        map.serialize_entry(state.as_str_name(), &count)?;
    }
    Ok(())
}

struct AgentLine<'a>(&'a Agent, &'a Tally<'a>);

impl Serialize for AgentLine<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let line = self.1.agents.get(&self.0.id);
        let mut map = to.serialize_map(None)?;
        agent(&mut map, self.0)?;
        states(&mut map, line.map(|line| &line.states))?;
        let frameworks = || line.into_iter().flat_map(|line| &line.others).map(|id| id.as_str());
        map.serialize_entry("framework_ids", &List(frameworks))?;
        map.end()
    }
}

struct FrameworkLine<'a>(&'a Framework, &'a Tally<'a>);

impl Serialize for FrameworkLine<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let line = self.1.frameworks.get(&self.0.id);
        let mut map = to.serialize_map(None)?;
        framework_summary(&mut map, self.0)?;
        states(&mut map, line.map(|line| &line.states))?;
        let agents = || line.into_iter().flat_map(|line| &line.others).map(|id| id.as_str());
        map.serialize_entry("slave_ids", &List(agents))?;
        map.end()
    }
}
