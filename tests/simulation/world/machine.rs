//! An agent's machine: the agent's process with its real core, and the shell around it that finds a coordinator.
//!
//! The process may die and be started again; the disk and the containers stay ([`super::machine_parts`]). When the machine
//! itself dies, so do the containers; when it is replaced, so is the disk.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tepui_agent::core::{Config, Core, End, Found, Input, Now, Output};
use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::resources::parse_list;
use tepui_api::v1::{AgentInfo, ContainerId};

use super::machine_parts::{Container, Disk, Truth};
use super::network::{Down, Up, WireId};
use super::{Checked, Event, Host, Power, Process, World};
use crate::rng::Rng;

/// How many redirects an agent follows without a pause.
const MAX_REDIRECTS: u32 = 3;

/// See the module.
pub struct Machine {
    pub process: Process,
    pub hostname: String,
    info: AgentInfo,
    address: SocketAddr,
    pub core: Option<Core>,
    pub disk: Disk,
    pub containers: BTreeMap<ContainerId, Container>,
    pub wire: Option<WireId>,
    retry_at: Duration,
    redirects: u32,
    /// Told by ZooKeeper, if it watches; else by redirects only.
    leader: Option<usize>,
    watches: bool,
    /// CPUs of this machine, in thousandths.
    cpus: u64,
    /// Counts disks: one that replaces another is told from it.
    pub life: u64,
    /// Counts its starts.
    pub boots: u64,
    /// Since when its agent is to be started with an empty disk only.
    pub wiped: bool,
}

// === impl Machine ===

impl Machine {
    pub fn new(index: usize, rng: &mut Rng) -> Self {
        let cpus = rng.within(1..=4);
        let resources = parse_list(&format!("cpus:{cpus};mem:{}", cpus * 512), "*").unwrap();
        let hostname = format!("m{index}");
        let info = AgentInfo {
            hostname: hostname.clone(),
            port: Some(5051),
            resources,
            checkpoint: Some(true),
            ..AgentInfo::default()
        };
        Self {
            process: Process::new(rng),
            hostname,
            info,
            address: SocketAddr::from(([10, 0, 0, index as u8 + 1], 5051)),
            core: None,
            disk: Disk::default(),
            containers: BTreeMap::new(),
            wire: None,
            retry_at: Duration::ZERO,
            redirects: 0,
            leader: None,
            watches: rng.chance(700),
            cpus: cpus * 1000,
            life: index as u64 + 1,
            boots: 0,
            wiped: false,
        }
    }

    fn config(&self, instance: String) -> Config {
        Config {
            agent: self.info.clone(),
            version: "1.11.0".to_owned(),
            instance,
            address: self.address,
            work_dir: PathBuf::from("/w"),
            switch_user: false,
            shutdown_grace_period: Duration::from_secs(2),
            sandbox_directory: "/mnt/mesos/sandbox".to_owned(),
            recovery_timeout: Duration::from_secs(900),
            // No executor here subscribes: those that do not end by themselves are ended for it.
            executor_registration_timeout: Duration::from_secs(30),
            executor_reregistration_timeout: Duration::from_secs(2),
            environment: Vec::new(),
            max_completed: 4,
        }
    }
}

impl World {
    /// The agent's process starts, with what is on disk and what it finds of containers.
    pub(super) fn start_agent(&mut self, index: usize) -> Checked {
        self.say(format!("agent {index} starts"));
        let instance = self.rng.uuid().to_string();
        let mut seed = [0; 32];
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.rng.number().to_le_bytes());
        }
        let now = self.agent_clocks(index);
        let machine = &mut self.machines[index];
        let mut core = Core::new(machine.config(instance), seed);
        let stored = machine.disk.read();
        let known: BTreeMap<ContainerId, _> = stored.launches().collect();
        machine.containers.retain(|id, _| known.contains_key(id));
        let mut found = HashMap::new();
        for (id, container) in &mut machine.containers {
            if container.truth == Truth::Running && !self.calm && self.rng.chance(10) {
                container.truth = Truth::Removed;
                found.insert(id.clone(), Found::Unanswered);
                continue;
            }
            let state = match container.truth {
                Truth::Prepared | Truth::Removed => Found::Nothing,
                Truth::Running => Found::Running { pid: 7, networks: Vec::new() },
                Truth::Exited(status) => Found::Exited { status: Some(status), limitation: None },
            };
            found.insert(id.clone(), state);
        }
        machine.wire = None;
        machine.leader = None;
        machine.redirects = 0;
        machine.retry_at = self.now;
        let mut outputs = Vec::new();
        core.recover(now, stored, &found, &mut outputs);
        core.note_boot(format!("boot {}", machine.boots), &mut outputs);
        machine.core = Some(core);
        self.ledger.agent_starts(self.machines[index].life);
        self.perform(index, outputs)?;
        if self.machines[index].watches {
            self.remind(Host::Machine(index));
        }
        Ok(())
    }

    /// The agent's process dies. Of what was not confirmed to be on disk, some is.
    pub(super) fn kill_agent(&mut self, index: usize, down: Duration) {
        if !self.machines[index].process.on() {
            return;
        }
        self.tally.crashes += 1;
        let until = self.now + down;
        let some = self.rng.below(self.machines[index].disk.unconfirmed() + 1);
        let landed = self.machines[index].disk.crash(some);
        self.ledger.landed(self.machines[index].life, &landed);
        let machine = &mut self.machines[index];
        machine.core = None;
        machine.process.dies(until);
        if let Some(wire) = machine.wire.take() {
            self.client_died(wire);
        }
        self.say(format!("agent {index} dies"));
        self.wake_at(Host::Machine(index), until);
    }

    pub(super) fn agent_clocks(&self, index: usize) -> Now {
        Now { monotonic: self.now, unix: self.now + self.machines[index].process.wall }
    }

    /// One step of an agent's core.
    pub(super) fn step_agent(&mut self, index: usize, input: Input) -> Checked {
        let now = self.agent_clocks(index);
        let Some(core) = &mut self.machines[index].core else { return Ok(()) };
        self.inputs += 1;
        let shown = (self.traced > 0).then(|| format!("agent {index} ← {input:?}"));
        let mut outputs = Vec::new();
        core.step(now, input, &mut outputs);
        if let Some(shown) = shown {
            self.say(shown);
            outputs.iter().for_each(|output| self.say(format!("    → {output:?}")));
        }
        self.perform(index, outputs)
    }

    fn perform(&mut self, index: usize, outputs: Vec<Output>) -> Checked {
        let life = self.machines[index].life;
        for output in outputs {
            match output {
                Output::Store(ticket, writes) => {
                    self.ledger.agent_stores(life, &writes)?;
                    self.machines[index].disk.submit(ticket, writes);
                    self.commit_next(index);
                }
                Output::Send(body) => {
                    if let Frame::Update(update) = &*body {
                        self.ledger.agent_sends(life, update)?;
                    }
                    if let Some(wire) = self.machines[index].wire {
                        self.send_up(wire, Up::Frame(body));
                    }
                }
                Output::Container(id, command) => self.command(index, id, command),
                Output::Answer(..) | Output::Event(..) | Output::CloseEvents(_) => {
                    return Err("an executor is answered that never called".to_owned());
                }
                Output::Reconnect => self.reconnect(index, Duration::from_millis(1)),
                Output::End(end) => self.agent_ends(index, &end)?,
            }
        }
        self.plan_machine(index);
        Ok(())
    }

    /// The agent ends itself; the operator begins anew on an empty disk.
    fn agent_ends(&mut self, index: usize, end: &End) -> Checked {
        if let End::Refused(why) = end {
            // Here no two processes ever share an id, so each has a right to its own.
            return Err(format!("{} was turned away: {why}", self.machines[index].hostname));
        }
        self.machines[index].wiped = true;
        let down = self.rng.millis(100..=3000);
        let until = self.now + down;
        self.wake_at(Host::Machine(index), until);
        Ok(())
    }

    /// Another machine, with an empty disk, takes this one's place and address.
    pub(super) fn replace_machine(&mut self, index: usize, at: Duration) {
        self.tally.wiped += 1;
        let machine = &mut self.machines[index];
        self.ledger.machine_lost(machine.life);
        machine.core = None;
        machine.disk = Disk::default();
        machine.containers.clear();
        machine.wiped = false;
        machine.life += 100;
        machine.process.dies(at);
        if let Some(wire) = machine.wire.take() {
            self.client_died(wire);
        }
        self.wake_at(Host::Machine(index), at);
    }

    // --- the link

    pub(super) fn wake_machine(&mut self, index: usize) -> Checked {
        if self.machines[index].wiped {
            self.replace_machine(index, self.now + Duration::from_millis(100));
            return Ok(());
        }
        let now = self.now;
        let due = self.machines[index].core.as_ref().and_then(Core::next_deadline);
        if due.is_some_and(|due| due <= now) {
            self.step_agent(index, Input::Tick)?;
        }
        if self.machines[index].wire.is_none() && self.machines[index].retry_at <= now {
            self.connect_agent(index, None)?;
        }
        self.plan_machine(index);
        Ok(())
    }

    pub(super) fn plan_machine(&mut self, index: usize) {
        let machine = &self.machines[index];
        if machine.process.power != Power::On {
            return;
        }
        let core = machine.core.as_ref().and_then(Core::next_deadline);
        let link = machine.wire.is_none().then_some(machine.retry_at);
        if let Some(at) = core.into_iter().chain(link).min() {
            self.wake_at(Host::Machine(index), at);
        }
    }

    fn connect_agent(&mut self, index: usize, there: Option<usize>) -> Checked {
        let any = self.rng.below(self.coordinators.len());
        let server = there.or(self.machines[index].leader).unwrap_or(any);
        if !self.reachable(Host::Machine(index), server) {
            self.machines[index].retry_at = self.now + self.rng.millis(100..=2000);
            return Ok(());
        }
        let wire = self.open_wire(Host::Machine(index), server);
        self.machines[index].wire = Some(wire);
        self.send_up(wire, Up::Open);
        self.step_agent(index, Input::LinkOpened)
    }

    /// Closes the link and opens another.
    fn reconnect(&mut self, index: usize, pause: Duration) {
        if let Some(wire) = self.machines[index].wire.take() {
            self.hang_up(wire);
        }
        self.machines[index].retry_at = self.now + pause;
    }

    pub(super) fn machine_hears(&mut self, index: usize, wire: WireId, what: Down) -> Checked {
        if self.machines[index].wire != Some(wire) || self.machines[index].core.is_none() {
            return Ok(());
        }
        match what {
            Down::Order(order) => {
                self.machines[index].redirects = 0;
                if let Order::RunTask(run) = &*order {
                    self.ledger.ordered(run)?;
                }
                self.heard_order(index, &order);
                let run = matches!(*order, Order::RunTask(_));
                self.step_agent(index, Input::Frame(order))?;
                if run { self.check_room(index) } else { Ok(()) }
            }
            Down::Redirect(there) => {
                self.machines[index].wire = None;
                self.hang_up(wire);
                self.step_agent(index, Input::LinkClosed)?;
                let machine = &mut self.machines[index];
                machine.redirects += 1;
                if there.is_some() && machine.redirects <= MAX_REDIRECTS {
                    self.connect_agent(index, there)?;
                } else {
                    machine.redirects = 0;
                    self.machines[index].retry_at = self.now + self.rng.millis(100..=2000);
                }
                self.plan_machine(index);
                Ok(())
            }
            Down::Closed => {
                self.machines[index].wire = None;
                self.machines[index].retry_at = self.now + self.rng.millis(20..=1500);
                self.step_agent(index, Input::LinkClosed)
            }
            Down::Event(_) => Ok(()),
        }
    }

    fn heard_order(&mut self, index: usize, order: &Order) {
        let life = self.machines[index].life;
        match order {
            Order::Acknowledge(acknowledge) => self.ledger.agent_hears(life, &acknowledge.uuid),
            Order::ShutdownFramework(id) => self.ledger.framework_ends(life, id),
            Order::Shutdown(_) | Order::Refused(_) => self.ledger.agent_ends(life),
            _ => {}
        }
    }

    /// Who leads now, as ZooKeeper told an agent that watches: it leaves whoever led before.
    pub(super) fn machine_detects(&mut self, index: usize, leader: Option<usize>) -> Checked {
        let machine = &mut self.machines[index];
        machine.leader = leader;
        let Some(wire) = machine.wire else { return Ok(()) };
        let server = self.wires.get(&wire).map(|wire| wire.server);
        if leader.is_some() && server != leader && self.machines[index].core.is_some() {
            self.reconnect(index, Duration::from_millis(1));
            self.step_agent(index, Input::LinkClosed)?;
        }
        Ok(())
    }

    /// All that runs on a machine fits on it, but for what nobody waits for any more.
    fn check_room(&self, index: usize) -> Checked {
        let machine = &self.machines[index];
        let Some(core) = &machine.core else { return Ok(()) };
        let mut used = 0;
        for framework in core.snapshot().frameworks.active.values() {
            if framework.fate == tepui_agent::core::FrameworkFate::ShuttingDown {
                continue;
            }
            for task in framework.tasks.values().filter(|task| task.has_container()) {
                let cpus = task.info.resources.iter().filter(|resource| resource.name == "cpus");
                let cpus: f64 = cpus.filter_map(|r| r.scalar.as_ref()).map(|scalar| scalar.value).sum();
                used += (cpus * 1000.0).round() as u64;
            }
        }
        if used > machine.cpus {
            let (hostname, cpus) = (&machine.hostname, machine.cpus);
            return Err(format!(
                "{hostname} has {cpus} thousandths of a CPU, but tasks were sent for {used}"
            ));
        }
        Ok(())
    }

    /// Whether somebody is to be started on it, or runs on it.
    pub(super) fn machine_lives(&self, index: usize) -> bool {
        self.machines[index].process.power != Power::Gone
    }

    pub(super) fn send_to_disk(&mut self, index: usize, at: Duration) {
        let incarnation = self.machines[index].process.incarnation;
        self.at(at, Event::Committed { machine: index, incarnation });
    }
}
