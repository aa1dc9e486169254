//! What a framework launches on its offers: mostly what it may, sometimes what it may not.

use std::collections::BTreeMap;

use tepui_api::v1::offer::Operation;
use tepui_api::v1::offer::operation::{Launch, LaunchGroup, Type};
use tepui_api::v1::scheduler::Call;
use tepui_api::v1::value::{Range, Ranges};
use tepui_api::v1::{
    AgentId, CommandInfo, ExecutorId, ExecutorInfo, Filters, Offer, OfferId, OperationId, Resource,
    TaskGroupInfo, TaskId, TaskInfo, TaskState, executor_info,
};

use super::calls;
use super::framework::{Framework, Seen};
use crate::rng::Rng;

/// What is left of the offers while tasks are made.
struct Basket {
    agent: AgentId,
    left: Vec<Resource>,
}

// === impl Framework ===

impl Framework {
    /// Uses some of its offers. `foreign` are ids that are another's or nobody's.
    pub(super) fn accept(&mut self, foreign: &[OfferId], rng: &mut Rng) -> Option<Call> {
        let id = self.id()?.clone();
        let chosen = self.choose_offers(rng);
        let first = chosen.first()?;
        let mut basket = Basket {
            agent: first.agent_id.clone(),
            left: chosen.iter().flat_map(|offer| offer.resources.iter().cloned()).collect(),
        };
        let mut offers: Vec<OfferId> = chosen.iter().map(|offer| offer.id.clone()).collect();
        if rng.chance(30) {
            offers.extend(rng.pick(foreign).cloned());
        }
        if rng.chance(20) {
            offers.extend(rng.pick(&self.stale).cloned());
        }
        if rng.chance(10) {
            offers.push(offers[0].clone());
        }
        for offer in &offers {
            self.offers.remove(offer);
            self.remember_stale(offer);
        }
        let count = rng.weighted(&[10, 70, 15, 5]);
        let operations = (0..count).map(|_| self.operation(&mut basket, rng)).collect();
        Some(calls::accept(&id, offers, operations, filters(rng)))
    }

    /// One offer and others that go with it; now and then some that do not.
    fn choose_offers(&mut self, rng: &mut Rng) -> Vec<Offer> {
        let all: Vec<&Offer> = self.offers.values().collect();
        let Some(first) = rng.pick(&all).copied() else { return Vec::new() };
        let careless = rng.chance(30);
        let goes_with = |offer: &Offer| {
            offer.agent_id == first.agent_id && offer.allocation_info == first.allocation_info
        };
        let mut chosen = vec![first.clone()];
        chosen.extend(
            (all.iter()).filter(|o| o.id != first.id && (goes_with(o) || careless)).map(|o| (*o).clone()),
        );
        chosen
    }

    fn operation(&mut self, basket: &mut Basket, rng: &mut Rng) -> Operation {
        let odd = rng.chance(20);
        if rng.chance(120) {
            return self.group(basket, rng);
        }
        if odd && rng.chance(500) {
            return Operation {
                r#type: Some(Type::Reserve.into()),
                id: rng.chance(500).then(|| OperationId::new("reserve")),
                ..Operation::default()
            };
        }
        let count = rng.weighted(&[3, 50, 25, 15, 7]);
        let tasks: Vec<TaskInfo> = (0..count).map(|_| self.task(basket, rng)).collect();
        Operation {
            r#type: Some(Type::Launch.into()),
            id: odd.then(|| OperationId::new("launch")),
            launch: Some(Launch { task_infos: tasks }),
            ..Operation::default()
        }
    }

    fn task(&mut self, basket: &mut Basket, rng: &mut Rng) -> TaskInfo {
        let mut task = TaskInfo {
            name: "task".to_owned(),
            task_id: self.new_task_id(&basket.agent),
            agent_id: basket.agent.clone(),
            resources: basket.take(rng),
            command: Some(command()),
            ..TaskInfo::default()
        };
        if rng.chance(150) {
            let executor = self.executor(basket, rng);
            task.executor = Some(executor);
            task.command = None;
        }
        if rng.chance(60) {
            self.spoil(&mut task, basket, rng);
        }
        task
    }

    fn group(&mut self, basket: &mut Basket, rng: &mut Rng) -> Operation {
        let count = rng.within(1..=3);
        let mut executor = self.executor(basket, rng);
        executor.set_type(executor_info::Type::Default);
        executor.command = None;
        executor.framework_id = self.id().cloned();
        let mut tasks: Vec<TaskInfo> = (0..count)
            .map(|_| TaskInfo {
                name: "member".to_owned(),
                task_id: self.new_task_id(&basket.agent),
                agent_id: basket.agent.clone(),
                resources: basket.take(rng),
                command: Some(command()),
                ..TaskInfo::default()
            })
            .collect();
        if rng.chance(80)
            && let Some(task) = tasks.first_mut()
        {
            self.spoil(task, basket, rng);
        }
        let group = LaunchGroup { executor, task_group: TaskGroupInfo { tasks } };
        Operation {
            r#type: Some(Type::LaunchGroup.into()),
            launch_group: Some(group),
            ..Operation::default()
        }
    }

    /// A new executor, or one that runs there already as far as is known.
    fn executor(&mut self, basket: &mut Basket, rng: &mut Rng) -> ExecutorInfo {
        let known: Vec<&ExecutorInfo> =
            self.executors.iter().filter(|(agent, _)| *agent == basket.agent).map(|(_, info)| info).collect();
        if rng.chance(400)
            && let Some(known) = rng.pick(&known)
        {
            return (*known).clone();
        }
        self.next_executor += 1;
        let info = ExecutorInfo {
            executor_id: ExecutorId::new(format!("{}-e{}", self.info.name, self.next_executor)),
            framework_id: self.id().cloned(),
            command: Some(command()),
            resources: basket.take(rng),
            ..ExecutorInfo::default()
        };
        self.executors.push((basket.agent.clone(), info.clone()));
        if self.executors.len() > 12 {
            self.executors.remove(0);
        }
        info
    }

    fn new_task_id(&mut self, agent: &AgentId) -> TaskId {
        self.next_task += 1;
        let id = TaskId::new(format!("{}-t{}", self.info.name, self.next_task));
        self.view.insert(id.clone(), Seen { agent: agent.clone(), state: TaskState::TaskStaging, number: 0 });
        id
    }

    /// Makes a task invalid.
    fn spoil(&mut self, task: &mut TaskInfo, basket: &Basket, rng: &mut Rng) {
        let own = task.task_id.clone();
        match rng.below(8) {
            0 => task.task_id = TaskId::new(""),
            1 => task.task_id = TaskId::new("a/b"),
            2 => task.agent_id = AgentId::new("nowhere"),
            3 => task.resources.clear(),
            4 => task.command = if task.command.is_some() { None } else { Some(command()) },
            5 => {
                // More than there is.
                for resource in &mut task.resources {
                    if let Some(scalar) = &mut resource.scalar {
                        scalar.value += 100_000.0;
                    }
                }
            }
            6 => {
                // An id that is in use.
                let live =
                    self.view.iter().filter(|(id, seen)| **id != own && seen.state == TaskState::TaskRunning);
                let live: Vec<TaskId> = live.map(|(id, _)| id.clone()).collect();
                if let Some(id) = rng.pick(&live) {
                    task.task_id = id.clone();
                }
            }
            _ => {
                if let Some(scalar) = task.resources.first_mut().and_then(|r| r.scalar.as_mut()) {
                    scalar.value = -1.0;
                }
            }
        }
        let _ = basket;
        if task.task_id != own {
            self.view.remove(&own);
        }
    }
}

impl Basket {
    /// A part of everything, in the form in which it was offered.
    fn take(&mut self, rng: &mut Rng) -> Vec<Resource> {
        let mut taken = Vec::new();
        for resource in &mut self.left {
            if let Some(scalar) = &mut resource.scalar {
                if scalar.value <= 0.0 || rng.chance(150) {
                    continue;
                }
                let whole = resource.name == "gpus" || rng.chance(100);
                let amount = if whole {
                    scalar.value
                } else {
                    // Sometimes finer than the three decimals that count.
                    let parts = if rng.chance(100) { 100_000.0 } else { 1000.0 };
                    (scalar.value * rng.within(30..=600) as f64 / 1000.0 * parts).floor() / parts
                };
                if amount > 0.0 {
                    scalar.value = ((scalar.value - amount) * 1000.0).round() / 1000.0;
                    let mut part = resource.clone();
                    if let Some(scalar) = &mut part.scalar {
                        scalar.value = amount;
                    }
                    taken.push(part);
                }
            } else if let Some(ranges) = &mut resource.ranges
                && rng.chance(300)
                && let Some(range) = ranges.range.first_mut()
                && range.begin < range.end
            {
                let one = Range { begin: range.begin, end: range.begin };
                range.begin += 1;
                taken.push(Resource { ranges: Some(Ranges { range: vec![one] }), ..resource.clone() });
            }
        }
        taken
    }
}

/// For how long it does not want to see again what it does not use.
pub(super) fn filters(rng: &mut Rng) -> Option<Filters> {
    let seconds = [0.0, 0.5, 1.0, 3.0, 10.0, 60.0, -1.0, 1e18, f64::NAN];
    (!rng.chance(200)).then(|| {
        let at = rng.weighted(&[20, 10, 20, 20, 15, 5, 1, 1, 1]);
        Filters { refuse_seconds: Some(seconds[at]) }
    })
}

fn command() -> CommandInfo {
    CommandInfo { value: Some("true".to_owned()), ..CommandInfo::default() }
}

/// Which tasks are believed to be where.
pub type View = BTreeMap<TaskId, Seen>;
