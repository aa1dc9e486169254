//! What was promised to whom, kept from what goes in and out of all cores, across all terms and processes.
//!
//! Ids are new; updates are on disk before they are sent, come in order, are not repeated once the agent has their
//! acknowledgement, and are not forgotten before their scheduler has acknowledged them; nothing runs that is not on record; no
//! task is launched twice. A disk is named by a number that no other disk has: its life.

use std::collections::{HashMap, HashSet};

use tepui_agent::core::{FrameworkFate, TaskKey, Write};
use tepui_api::link::{RunTask, StatusUpdate};
use tepui_api::v1::scheduler::Call;
use tepui_api::v1::{AgentId, ContainerId, FrameworkId, OfferId, TaskId, TaskState, TaskStatus};
use tepui_coordinator::core::{Output, RegistryChange};

use crate::world::Checked;

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    offers: HashSet<OfferId>,
    agents: HashSet<AgentId>,
    frameworks: HashSet<FrameworkId>,
    launched: HashSet<(FrameworkId, TaskId)>,
    updates: HashMap<Vec<u8>, Update>,
    /// The updates of one task on one disk, by their numbers.
    streams: HashMap<(u64, TaskKey), Stream>,
    /// Frameworks of which a disk says that nobody waits for their updates.
    ending: HashSet<(u64, FrameworkId)>,
    /// Those of which an agent's disk says so.
    ending_on_disk: HashSet<(u64, FrameworkId)>,
    /// Disks that are to be cleared when nothing runs any more.
    winding_up: HashSet<u64>,
    /// Containers whose tasks are on record on a disk.
    recorded: HashSet<(u64, ContainerId)>,
}

#[derive(Debug, Clone)]
struct Update {
    life: u64,
    key: TaskKey,
    number: u64,
    state: TaskState,
    stored: bool,
    /// Its scheduler has acknowledged it.
    acknowledged: bool,
    /// The agent's present process has the acknowledgement.
    heard: bool,
    /// So has its disk.
    settled: bool,
}

#[derive(Debug, Default)]
struct Stream {
    uuids: Vec<Vec<u8>>,
    /// The highest number that reached a scheduler.
    delivered: Option<u64>,
}

// === impl Ledger ===

impl Ledger {
    /// A figure of all that is in it.
    pub fn digest(&self) -> u64 {
        let acknowledged = self.updates.values().filter(|update| update.acknowledged).count();
        (self.offers.len() * 1_000_003 + self.updates.len() * 1009 + acknowledged) as u64
    }

    // --- coordinators

    /// What a core wants done.
    pub fn coordinator_acts(&mut self, outputs: &[Output]) -> Checked {
        for output in outputs {
            match output {
                Output::Event { event, .. } => {
                    for offer in event.offers.iter().flat_map(|offers| &offers.offers) {
                        if !self.offers.insert(offer.id.clone()) {
                            return Err(format!("the offer id {} was used before", offer.id));
                        }
                    }
                }
                Output::Persist { change: RegistryChange::Admit(info), .. } => {
                    let id = info.id.clone().unwrap_or_default();
                    if !self.agents.insert(id.clone()) {
                        return Err(format!("the agent id {id} was used before"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A leader answered 202: how many tasks it took on.
    pub fn accepted(&mut self, call: &Call) -> u64 {
        let operations = call.accept.iter().flat_map(|accept| &accept.operations);
        let tasks = operations.filter_map(|operation| operation.launch.as_ref());
        tasks.map(|launch| launch.task_infos.len() as u64).sum()
    }

    /// A framework without an id was given one.
    pub fn framework_named(&mut self, id: &FrameworkId) -> Checked {
        if self.frameworks.insert(id.clone()) {
            return Ok(());
        }
        Err(format!("the framework id {id} was used before"))
    }

    // --- agents

    /// A process of an agent starts: it knows only what is on its disk.
    pub fn agent_starts(&mut self, life: u64) {
        self.ending.retain(|(of, _)| *of != life);
        self.ending.extend(self.ending_on_disk.iter().filter(|(of, _)| *of == life).cloned());
        let mut lost = HashSet::new();
        self.updates.retain(|uuid, update| {
            if update.life == life {
                update.heard = false;
                if !update.stored {
                    lost.insert(uuid.clone());
                    return false;
                }
            }
            true
        });
        if !lost.is_empty() {
            self.streams.values_mut().for_each(|stream| stream.uuids.retain(|uuid| !lost.contains(uuid)));
        }
    }

    /// A disk is gone.
    pub fn machine_lost(&mut self, life: u64) {
        self.streams.retain(|(of, _), _| *of != life);
        self.ending.retain(|(of, _)| *of != life);
        self.ending_on_disk.retain(|(of, _)| *of != life);
    }

    /// An agent is told that nobody waits for a framework's updates.
    pub fn framework_ends(&mut self, life: u64, id: &FrameworkId) {
        self.ending.insert((life, id.clone()));
    }

    /// An agent is told to end all that it has, and to forget it.
    pub fn agent_ends(&mut self, life: u64) {
        self.winding_up.insert(life);
    }

    /// What an agent gives to its disk.
    pub fn agent_stores(&mut self, life: u64, writes: &[Write]) -> Checked {
        for write in writes {
            match write {
                Write::Update(key, number, status) => self.update_made(life, key, *number, status)?,
                Write::Acknowledged(key, number) => {
                    let update = self.of(life, key).find(|update| update.number == *number);
                    if update.is_some_and(|update| !update.acknowledged) {
                        return Err(format!("update {number} of {key} counts as acknowledged, but is not"));
                    }
                }
                Write::RemoveTask(key) => self.task_forgotten(life, key)?,
                Write::Framework(info, FrameworkFate::ShuttingDown) => {
                    self.ending.insert((life, info.id.clone().unwrap_or_default()));
                }
                Write::Framework(info, FrameworkFate::Active) => {
                    self.ending.remove(&(life, info.id.clone().unwrap_or_default()));
                }
                Write::Clear => {
                    self.machine_lost(life);
                    self.winding_up.remove(&life);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn of(&self, life: u64, key: &TaskKey) -> impl Iterator<Item = &Update> {
        let uuids = self.streams.get(&(life, key.clone())).into_iter().flat_map(|stream| &stream.uuids);
        uuids.filter_map(|uuid| self.updates.get(uuid))
    }

    fn update_made(&mut self, life: u64, key: &TaskKey, number: u64, status: &TaskStatus) -> Checked {
        let state = status.state();
        if let Some(last) = self.of(life, key).last()
            && (last.number >= number || is_terminal(last.state))
        {
            return Err(format!(
                "after update {} ({:?}) of {key} comes {number} ({state:?})",
                last.number, last.state
            ));
        }
        let update = Update {
            life,
            key: key.clone(),
            number,
            state,
            stored: false,
            acknowledged: false,
            heard: false,
            settled: false,
        };
        self.streams.entry((life, key.clone())).or_default().uuids.push(status.uuid().to_vec());
        if self.updates.insert(status.uuid().to_vec(), update).is_some() {
            return Err(format!("two updates have one uuid: {status:?}"));
        }
        Ok(())
    }

    fn task_forgotten(&mut self, life: u64, key: &TaskKey) -> Checked {
        if self.winding_up.contains(&life) || self.ending.contains(&(life, key.framework.clone())) {
            return Ok(());
        }
        if let Some(update) = self.of(life, key).find(|update| !update.acknowledged) {
            return Err(format!("update {} ({:?}) of {key} was forgotten", update.number, update.state));
        }
        if !self.of(life, key).last().is_some_and(|last| is_terminal(last.state)) {
            return Err(format!("{key} was forgotten, and nobody told of its end"));
        }
        Ok(())
    }

    /// What is on a disk now.
    pub fn landed(&mut self, life: u64, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Update(_, _, status) => {
                    if let Some(update) = self.updates.get_mut(status.uuid()) {
                        update.stored = true;
                    }
                }
                Write::Acknowledged(key, number) => self.settle(life, key, Some(*number)),
                Write::RemoveTask(key) => {
                    self.settle(life, key, None);
                    self.streams.remove(&(life, key.clone()));
                }
                Write::Framework(info, fate) => {
                    let key = (life, info.id.clone().unwrap_or_default());
                    if *fate == FrameworkFate::ShuttingDown {
                        self.ending_on_disk.insert(key);
                    } else {
                        self.ending_on_disk.remove(&key);
                    }
                }
                Write::Task(record) => _ = self.recorded.insert((life, record.container.clone())),
                _ => {}
            }
        }
    }

    fn settle(&mut self, life: u64, key: &TaskKey, number: Option<u64>) {
        let Some(stream) = self.streams.get(&(life, key.clone())) else { return };
        for uuid in &stream.uuids {
            if let Some(update) = self.updates.get_mut(uuid)
                && number.is_none_or(|number| update.number == number)
            {
                update.settled = true;
            }
        }
    }

    /// An agent sends an update.
    pub fn agent_sends(&self, life: u64, sent: &StatusUpdate) -> Checked {
        let Some(update) = self.updates.get(sent.status.uuid()).filter(|update| update.life == life) else {
            return Err(format!("an update was sent that was never made: {:?}", sent.status));
        };
        if !update.stored {
            return Err(format!("update {} of {} was sent before it was on disk", update.number, update.key));
        }
        if update.heard || update.settled {
            return Err(format!(
                "update {} of {} was sent after its acknowledgement",
                update.number, update.key
            ));
        }
        let before = self.of(life, &update.key).take_while(|other| other.number < update.number);
        match before.filter(|other| !other.acknowledged).last() {
            Some(other) => Err(format!(
                "update {} of {} was sent before {} was acknowledged",
                update.number, update.key, other.number
            )),
            None => Ok(()),
        }
    }

    /// An agent is told that an update was acknowledged.
    pub fn agent_hears(&mut self, life: u64, uuid: &[u8]) {
        if let Some(update) = self.updates.get_mut(uuid).filter(|update| update.life == life) {
            update.heard = true;
        }
    }

    /// An agent is told to run a task.
    pub fn ordered(&mut self, run: &RunTask) -> Checked {
        let key = (run.framework.id.clone().unwrap_or_default(), run.task.task_id.clone());
        if self.launched.insert(key) {
            return Ok(());
        }
        Err(format!("task {} is launched a second time", run.task.task_id))
    }

    /// A container is started.
    pub fn container_starts(&self, life: u64, id: &ContainerId) -> Checked {
        if self.recorded.contains(&(life, id.clone())) {
            return Ok(());
        }
        Err(format!("container {id} is started, and is not on record"))
    }

    // --- schedulers

    /// A scheduler is told of a task.
    pub fn scheduler_hears(&mut self, framework: &FrameworkId, status: &TaskStatus) -> Checked {
        let Some(update) = self.updates.get(status.uuid()).filter(|_| status.uuid.is_some()) else {
            return Ok(());
        };
        if update.key.framework != *framework || update.key.task != status.task_id {
            return Err(format!("scheduler of {framework} hears of another's task: {status:?}"));
        }
        let Some(stream) = self.streams.get_mut(&(update.life, update.key.clone())) else { return Ok(()) };
        if stream.delivered.is_some_and(|last| last > update.number) {
            return Err(format!(
                "update {} of {} arrived after {:?}",
                update.number, update.key, stream.delivered
            ));
        }
        stream.delivered = Some(update.number);
        Ok(())
    }

    /// A scheduler acknowledges an update.
    pub fn acknowledged(&mut self, uuid: &[u8]) {
        if let Some(update) = self.updates.get_mut(uuid) {
            update.acknowledged = true;
        }
    }
}

/// Whether nothing follows this state.
pub fn is_terminal(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::TaskFinished
            | TaskState::TaskFailed
            | TaskState::TaskKilled
            | TaskState::TaskError
            | TaskState::TaskLost
            | TaskState::TaskDropped
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
    )
}
