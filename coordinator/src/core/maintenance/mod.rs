//! Maintenance: machines that are to be down for a while, and those that are.
//!
//! An operator's schedule puts machines into windows: from then on they are `DRAINING`, offers of their agents
//! name the window, and frameworks that use them are asked for their resources by `inverse` offers. Taken
//! down, a machine loses its agents, and none is admitted from it until it is put up again. `validate` says
//! what may be asked for; [`Plan`] is what stands, and is written into the registry as a whole. One change
//! is written at a time: calls that come meanwhile wait.

mod inverse;
pub(super) mod machine;
mod validate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use imbl::OrdMap;
use tepui_api::link::Shutdown;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::allocator::InverseOfferStatus;
use tepui_api::v1::machine_info::Mode;
use tepui_api::v1::maintenance::{ClusterStatus, Schedule, cluster_status};
use tepui_api::v1::{AgentId, MachineId, MachineInfo, Unavailability};

use super::io::{Maintenance, RegistryChange};
use super::registry::Pending;
use super::{Agent, Core, OperatorCall, Reply, RequestId, Snapshot};

pub(super) use inverse::Answers;
pub use machine::Machine;

/// What is planned, and what is under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// As operators gave it, without the machines that have been put up again.
    pub schedule: Arc<Schedule>,
    /// The machines that are `DRAINING` or `DOWN`.
    pub machines: OrdMap<Machine, MachineInfo>,
}

/// Changes of the plan that are on their way.
#[derive(Debug, Default)]
pub(super) struct Planning {
    writing: bool,
    waiting: VecDeque<(RequestId, OperatorCall)>,
}

// === impl Plan ===

impl Plan {
    pub(super) fn recovered(from: Maintenance) -> Self {
        let machines = from.machines.into_iter();
        Self {
            schedule: Arc::new(from.schedule),
            machines: machines.map(|info| (Machine::new(&info.id), info)).collect(),
        }
    }

    fn entry(&self) -> Maintenance {
        Maintenance {
            schedule: (*self.schedule).clone(),
            machines: self.machines.values().cloned().collect(),
        }
    }

    /// How a machine is.
    #[must_use]
    pub fn mode(&self, machine: &Machine) -> Mode {
        self.machines.get(machine).map_or(Mode::Up, MachineInfo::mode)
    }

    /// When a machine is to be away.
    #[must_use]
    pub fn unavailability(&self, machine: &Machine) -> Option<&Unavailability> {
        self.machines.get(machine)?.unavailability.as_ref()
    }

    /// With another schedule: new machines start `DRAINING`, those that are left out are `UP`.
    fn with_schedule(&self, schedule: Schedule) -> Self {
        let mut machines = OrdMap::new();
        for window in &schedule.windows {
            for id in &window.machine_ids {
                let machine = Machine::new(id);
                let mode = self.machines.get(&machine).map_or(Mode::Draining, MachineInfo::mode);
                let info = MachineInfo {
                    id: id.clone(),
                    mode: Some(mode.into()),
                    unavailability: Some(window.unavailability),
                };
                machines.insert(machine, info);
            }
        }
        Self { schedule: Arc::new(schedule), machines }
    }

    fn with_down(&self, machines: &[Machine]) -> Self {
        let mut plan = self.clone();
        for machine in machines {
            if let Some(info) = plan.machines.get_mut(machine) {
                info.set_mode(Mode::Down);
            }
        }
        plan
    }

    fn without(&self, machines: &[Machine]) -> Self {
        let mut plan = self.clone();
        let mut schedule = (*self.schedule).clone();
        for window in &mut schedule.windows {
            window.machine_ids.retain(|id| !machines.contains(&Machine::new(id)));
        }
        schedule.windows.retain(|window| !window.machine_ids.is_empty());
        for machine in machines {
            plan.machines.remove(machine);
        }
        Self { schedule: Arc::new(schedule), ..plan }
    }
}

impl Snapshot {
    /// Answers `GET_MAINTENANCE_STATUS`.
    #[must_use]
    pub fn maintenance_status(&self) -> ClusterStatus {
        let mut status = ClusterStatus::default();
        let mut answers: BTreeMap<&Machine, Vec<InverseOfferStatus>> = BTreeMap::new();
        for (agent, statuses) in &self.inverse_offer_statuses {
            if let Some(agent) = self.agents.get(agent) {
                answers.entry(&*agent.machine).or_default().extend(statuses.values().cloned());
            }
        }
        for (machine, info) in &self.maintenance.machines {
            match info.mode() {
                Mode::Draining => {
                    let statuses = answers.remove(machine).unwrap_or_default();
                    let id = info.id.clone();
                    status.draining_machines.push(cluster_status::DrainingMachine { id, statuses });
                }
                Mode::Down => status.down_machines.push(info.id.clone()),
                Mode::Up => {}
            }
        }
        status
    }
}

impl Core {
    /// The calls `UPDATE_MAINTENANCE_SCHEDULE`, `START_MAINTENANCE` and `STOP_MAINTENANCE`.
    pub(super) fn maintenance_call(&mut self, request: RequestId, call: OperatorCall) {
        if self.planning.writing {
            return self.planning.waiting.push_back((request, call));
        }
        match self.plan(&call) {
            Ok(plan) => {
                let (before, after) = (self.state.maintenance.entry(), plan.entry());
                let change = RegistryChange::Maintenance { before: Box::new(before), after: Box::new(after) };
                self.planning.writing = true;
                self.persist(None, change, Pending::Maintenance { plan: Box::new(plan), request });
            }
            Err(error) => self.refuse(request, 400, error.to_string()),
        }
    }

    /// What a call makes of the plan.
    fn plan(&self, call: &OperatorCall) -> Result<Plan, validate::Invalid> {
        let plan = &self.state.maintenance;
        Ok(match call {
            OperatorCall::UpdateSchedule(schedule) => {
                validate::schedule(schedule, plan)?;
                plan.with_schedule(schedule.clone())
            }
            OperatorCall::StartMaintenance(ids) => {
                let machines = self.machines_in(ids, Mode::Draining)?;
                plan.with_down(&machines)
            }
            OperatorCall::StopMaintenance(ids) => {
                let machines = self.machines_in(ids, Mode::Down)?;
                plan.without(&machines)
            }
            _ => plan.clone(),
        })
    }

    /// The machines of a call, all of which must be in this mode.
    fn machines_in(&self, ids: &[MachineId], mode: Mode) -> Result<Vec<Machine>, validate::Invalid> {
        let known = |machine: &Machine| {
            self.state.maintenance.machines.contains_key(machine) || self.on_machines.contains_key(machine)
        };
        validate::machines(ids)?;
        let mut machines = Vec::with_capacity(ids.len());
        for id in ids {
            let machine = Machine::new(id);
            if !known(&machine) {
                return Err(validate::Invalid::NotScheduled(validate::shown(id)));
            }
            if self.state.maintenance.mode(&machine) != mode {
                return Err(validate::Invalid::mode(id, mode));
            }
            machines.push(machine);
        }
        Ok(machines)
    }

    /// The registry has a new plan.
    pub(super) fn maintenance_written(&mut self, plan: Plan, request: RequestId) {
        let before = std::mem::replace(&mut self.state.maintenance, plan);
        let after = self.state.maintenance.clone();
        let both: BTreeSet<&Machine> = before.machines.keys().chain(after.machines.keys()).collect();
        let changed = both.iter().filter(|m| before.unavailability(m) != after.unavailability(m));
        let changed: BTreeSet<Machine> = changed.map(|machine| (*machine).clone()).collect();
        let went_down = both.iter().filter(|m| after.mode(m) == Mode::Down && before.mode(m) != Mode::Down);
        let went_down: BTreeSet<Machine> = went_down.map(|machine| (*machine).clone()).collect();
        for id in self.agents_on(&changed) {
            tracing::info!(agent = %id, "the time when an agent is to be away has changed");
            self.unavailability_changed(&id);
        }
        for id in self.agents_on(&went_down) {
            self.take_machine_down(&id);
        }
        self.schedule_inverse_offers();
        self.reply(request, Reply::Ok);
        self.planning.writing = false;
        while !self.planning.writing
            && let Some((request, call)) = self.planning.waiting.pop_front()
        {
            self.maintenance_call(request, call);
        }
    }

    fn agents_on(&self, machines: &BTreeSet<Machine>) -> Vec<AgentId> {
        machines.iter().filter_map(|machine| self.on_machines.get(machine)).flatten().cloned().collect()
    }

    /// The machine of a registered agent is down: it is told, and removed without waiting for its end.
    pub(super) fn take_machine_down(&mut self, id: &AgentId) {
        const MESSAGE: &str = "Operator initiated 'Machine DOWN'";
        self.frame(id, Frame::Shutdown(Shutdown { message: MESSAGE.to_owned() }));
        self.remove_agent(id, MESSAGE);
    }

    /// Tells what comes from a machine that is down to shut down; answers whether it was so.
    pub(super) fn turn_away_down(
        &mut self,
        link: super::LinkId,
        register: &tepui_api::link::Register,
    ) -> bool {
        if self.state.maintenance.machines.is_empty() {
            return false;
        }
        let machine = machine::of(&register.agent.hostname, &register.address);
        if self.state.maintenance.mode(&machine) != Mode::Down {
            return false;
        }
        tracing::warn!(%machine, "turned away an agent of a machine that is down");
        self.shut_down_link(link, "Machine is `DOWN`");
        true
    }

    /// The machine of an agent, if the schedule has it.
    pub(super) fn scheduled_machine<'a>(&self, agent: &'a Agent) -> Option<&'a Machine> {
        Some(&*agent.machine).filter(|machine| self.state.maintenance.machines.contains_key(*machine))
    }
}
