//! What a machine has beside the agent's process: a disk, and containers that outlive it.
//!
//! The disk takes writes in groups, in order, and confirms them together, as the agent's store does. What was not confirmed when
//! the process dies is lost but for a part from the front. A container is what it really is, whatever the agent believes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tepui_agent::checks::Outcome;
use tepui_agent::core::{
    ContainerCommand, ContainerEvent, Input, StoredState, StoredTask, StoredUpdate, TaskKey, Ticket, Write,
};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{ContainerId, FrameworkId};

use super::{Checked, Event, World};

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    state: State,
    /// Given to the disk and not confirmed, oldest first; so many are being written.
    unconfirmed: VecDeque<(Ticket, Vec<Write>)>,
    writing: usize,
}

/// What is on it.
#[derive(Debug, Default)]
struct State {
    rest: StoredState,
    tasks: BTreeMap<TaskKey, StoredTask>,
    orphans: BTreeMap<TaskKey, Vec<StoredUpdate>>,
}

/// A container as it really is.
#[derive(Debug, Clone, Copy)]
pub struct Container {
    pub truth: Truth,
    /// Commands for it are carried out in order.
    last_command: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Truth {
    Prepared,
    Running,
    Exited(i32),
    Removed,
}

// === impl Disk ===

impl Disk {
    pub fn submit(&mut self, ticket: Ticket, writes: Vec<Write>) {
        self.unconfirmed.push_back((ticket, writes));
    }

    /// How many groups a crash may lose.
    pub fn unconfirmed(&self) -> usize {
        self.writing
    }

    /// The process dies; the first of what was being written is on disk.
    pub fn crash(&mut self, landed: usize) -> Vec<Write> {
        let landed: Vec<Write> = self.unconfirmed.drain(..landed).flat_map(|(_, writes)| writes).collect();
        landed.iter().for_each(|write| self.state.apply(write.clone()));
        self.unconfirmed.clear();
        self.writing = 0;
        landed
    }

    /// Begins to write all that waits; whether there is any, and nothing is being written.
    fn begin(&mut self) -> bool {
        if self.writing > 0 || self.unconfirmed.is_empty() {
            return false;
        }
        self.writing = self.unconfirmed.len();
        true
    }

    /// What was being written is on disk.
    fn finish(&mut self) -> Option<(Ticket, Vec<Write>)> {
        let groups: Vec<(Ticket, Vec<Write>)> = self.unconfirmed.drain(..self.writing).collect();
        self.writing = 0;
        let last = groups.last()?.0;
        let writes: Vec<Write> = groups.into_iter().flat_map(|(_, writes)| writes).collect();
        writes.iter().for_each(|write| self.state.apply(write.clone()));
        Some((last, writes))
    }

    /// All that is on it, as a process that starts reads it.
    pub fn read(&self) -> StoredState {
        StoredState {
            tasks: self.state.tasks.values().cloned().collect(),
            orphans: self.state.orphans.iter().map(|(key, updates)| (key.clone(), updates.clone())).collect(),
            ..self.state.rest.clone()
        }
    }

    /// A task of these frameworks with an update on it that is not acknowledged.
    pub fn unacknowledged(&self, owned: impl Fn(&FrameworkId) -> bool) -> Option<TaskKey> {
        let waits = |updates: &Vec<StoredUpdate>| updates.iter().any(|update| !update.acknowledged);
        let tasks = self.state.tasks.iter().filter(|(_, task)| waits(&task.updates)).map(|(key, _)| key);
        let orphans = self.state.orphans.iter().filter(|(_, updates)| waits(updates)).map(|(key, _)| key);
        tasks.chain(orphans).find(|key| owned(&key.framework)).cloned()
    }
}

// === impl State ===

impl State {
    /// The agent's tables, in memory.
    fn apply(&mut self, write: Write) {
        match write {
            Write::Agent(agent) => self.rest.agent = Some((*agent).clone()),
            Write::Drain(drain) => self.rest.drain = drain,
            Write::BootId(id) => self.rest.boot_id = Some(id),
            Write::Clear => {
                let boot_id = self.rest.boot_id.take();
                *self = Self::default();
                self.rest.boot_id = boot_id;
            }
            Write::Framework(info, fate) => {
                self.rest.frameworks.retain(|(known, _)| known.id != info.id);
                self.rest.frameworks.push(((*info).clone(), fate));
            }
            Write::RemoveFramework(id) => {
                self.rest.frameworks.retain(|(known, _)| known.id.as_ref() != Some(&id));
            }
            Write::Task(record) => match self.tasks.get_mut(&record.key) {
                Some(known) => known.record = *record,
                None => {
                    let task = StoredTask { record: *record, updates: Vec::new() };
                    self.tasks.insert(task.record.key.clone(), task);
                }
            },
            Write::Executor(record) => {
                self.rest.executors.retain(|known| known.key != record.key);
                self.rest.executors.push(*record);
            }
            Write::RemoveExecutor(key) => self.rest.executors.retain(|known| known.key != key),
            Write::Update(key, sequence, status) => {
                let update = StoredUpdate { sequence, status, acknowledged: false };
                match self.tasks.get_mut(&key) {
                    Some(task) => task.updates.push(update),
                    None => self.orphans.entry(key).or_default().push(update),
                }
            }
            Write::Acknowledged(key, sequence) => {
                let task = self.tasks.get_mut(&key).map(|task| &mut task.updates);
                let updates = task.or_else(|| self.orphans.get_mut(&key)).into_iter().flatten();
                updates.filter(|update| update.sequence == sequence).for_each(|u| u.acknowledged = true);
            }
            Write::RemoveTask(key) => {
                self.tasks.remove(&key);
                self.orphans.remove(&key);
            }
        }
    }
}

impl World {
    // --- the disk

    pub(super) fn commit_next(&mut self, index: usize) {
        if !self.machines[index].disk.begin() {
            return;
        }
        // A full disk: the store tries again until there is room.
        let stalls = !self.calm && self.rng.chance(15);
        let time = if stalls { self.rng.millis(500..=8000) } else { self.rng.millis(1..=8) };
        self.send_to_disk(index, self.now + time);
    }

    pub(super) fn committed(&mut self, index: usize, incarnation: u64) -> Checked {
        let machine = &mut self.machines[index];
        if machine.process.incarnation != incarnation {
            return Ok(());
        }
        let Some((ticket, writes)) = machine.disk.finish() else { return Ok(()) };
        self.ledger.landed(machine.life, &writes);
        self.commit_next(index);
        self.step_agent(index, Input::Stored(ticket))
    }

    // --- containers

    pub(super) fn command(&mut self, index: usize, id: ContainerId, command: ContainerCommand) {
        let delay = match command {
            ContainerCommand::Prepare(_) => self.rng.millis(1..=60),
            ContainerCommand::Start | ContainerCommand::Destroy => self.rng.millis(1..=25),
            ContainerCommand::Signal(_) | ContainerCommand::Update(..) => self.rng.millis(1..=3),
            ContainerCommand::Probe(_) => self.rng.millis(1..=100),
        };
        let at = self.now + delay;
        let incarnation = self.machines[index].process.incarnation;
        let at = match self.machines[index].containers.get_mut(&id) {
            Some(container) => {
                container.last_command = container.last_command.max(at);
                container.last_command
            }
            None => at,
        };
        self.at(at, Event::Command { machine: index, incarnation, container: id, command });
    }

    pub(super) fn carry_out_command(
        &mut self,
        index: usize,
        incarnation: u64,
        id: &ContainerId,
        command: &ContainerCommand,
    ) -> Checked {
        let own = self.machines[index].process.incarnation == incarnation;
        // What a process that died was about to do may be done all the same, by its kernel.
        let happens = own || matches!(command, ContainerCommand::Start) && self.rng.chance(300);
        if !happens {
            return Ok(());
        }
        let event = self.effect(index, id, command)?;
        match event.filter(|_| own) {
            Some(event) => self.step_agent(index, Input::Container(id.clone(), event)),
            None => Ok(()),
        }
    }

    fn effect(
        &mut self,
        index: usize,
        id: &ContainerId,
        command: &ContainerCommand,
    ) -> Result<Option<ContainerEvent>, String> {
        let fails = !self.calm && self.rng.chance(20);
        let failed = |message: &str| {
            Some(ContainerEvent::Failed {
                reason: Reason::ContainerLaunchFailed,
                message: message.to_owned(),
            })
        };
        let now = self.now;
        let containers = &mut self.machines[index].containers;
        let truth = containers.get(id).map(|container| container.truth);
        Ok(match command {
            ContainerCommand::Prepare(_) if truth == Some(Truth::Removed) => failed("it is removed"),
            ContainerCommand::Prepare(_) if fails => Some(ContainerEvent::NoSandbox("no room".to_owned())),
            ContainerCommand::Prepare(_) => {
                containers.insert(id.clone(), Container { truth: Truth::Prepared, last_command: now });
                Some(ContainerEvent::Prepared { networks: Vec::new() })
            }
            ContainerCommand::Start if truth != Some(Truth::Prepared) => failed("it is not prepared"),
            ContainerCommand::Start if fails => failed("it cannot start"),
            ContainerCommand::Start => {
                self.ledger.container_starts(self.machines[index].life, id)?;
                self.set_truth(index, id, Truth::Running);
                let runs = match self.rng.weighted(&[30, 40, 30]) {
                    0 => self.rng.millis(1..=2000),
                    1 => self.rng.millis(2000..=20_000),
                    _ => self.rng.millis(20_000..=200_000),
                };
                let status = if self.rng.chance(200) { 256 } else { 0 };
                self.at(now + runs, Event::Exits { machine: index, container: id.clone(), status });
                Some(ContainerEvent::Started { pid: 7, networks: Vec::new() })
            }
            ContainerCommand::Signal(number) => {
                let ignores = *number == 15 && self.rng.chance(300);
                if truth == Some(Truth::Running) && !ignores {
                    let at = now + self.rng.millis(1..=100);
                    self.at(at, Event::Exits { machine: index, container: id.clone(), status: *number });
                }
                None
            }
            ContainerCommand::Update(..) => Some(ContainerEvent::Updated),
            ContainerCommand::Probe(probe) => {
                let connects = truth == Some(Truth::Running) && !self.rng.chance(200);
                Some(ContainerEvent::Probed(probe.kind, Outcome::Connected(connects)))
            }
            ContainerCommand::Destroy => {
                let container = Container { truth: Truth::Removed, last_command: now };
                containers.insert(id.clone(), container);
                Some(if fails {
                    ContainerEvent::NotDestroyed("a mount is busy".to_owned())
                } else {
                    ContainerEvent::Destroyed
                })
            }
        })
    }

    fn set_truth(&mut self, index: usize, id: &ContainerId, truth: Truth) {
        if let Some(container) = self.machines[index].containers.get_mut(id) {
            container.truth = truth;
        }
    }

    /// A container's process ends; the agent sees it soon, if it runs.
    pub(super) fn exits(&mut self, index: usize, id: &ContainerId, status: i32) {
        let running = self.machines[index]
            .containers
            .get(id)
            .is_some_and(|container| container.truth == Truth::Running);
        if running {
            self.set_truth(index, id, Truth::Exited(status));
            let at = self.now + self.rng.millis(1..=10);
            let incarnation = self.machines[index].process.incarnation;
            self.at(at, Event::Noticed { machine: index, incarnation, container: id.clone() });
        }
    }

    pub(super) fn exit_noticed(&mut self, index: usize, incarnation: u64, id: &ContainerId) -> Checked {
        let machine = &self.machines[index];
        let truth = machine.containers.get(id).map(|container| container.truth);
        let (Some(Truth::Exited(status)), true) = (truth, machine.process.incarnation == incarnation) else {
            return Ok(());
        };
        let event = ContainerEvent::Exited { status: Some(status), limitation: None };
        self.step_agent(index, Input::Container(id.clone(), event))
    }
}
