//! Calls of schedulers on their way: each is a request of its own, that may overtake others, be lost, or arrive twice.

use tepui_api::v1::scheduler::Call;
use tepui_api::v1::scheduler::call::{
    Accept, Acknowledge, Decline, Kill, Reconcile, Revive, Subscribe, Type, reconcile,
};
use tepui_api::v1::{
    AgentId, DurationInfo, Filters, FrameworkId, FrameworkInfo, KillPolicy, OfferId, TaskId, TaskStatus,
    offer,
};
use tepui_coordinator::core::{Input, OperatorCall, Output, Reply, StreamHeader, StreamId};

use super::network::WireId;
use super::{Checked, Event, World, is_yes};

/// A call on its way.
#[derive(Debug, Clone)]
pub struct Request {
    pub scheduler: usize,
    /// The process that made it.
    pub incarnation: u64,
    /// Of the subscription that it belongs to.
    pub wire: WireId,
    pub stream: Option<StreamId>,
    pub server: usize,
    pub call: Call,
}

/// What comes back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub scheduler: usize,
    pub incarnation: u64,
    pub wire: WireId,
    pub server: usize,
    /// `None`: it is no leader.
    pub reply: Option<Reply>,
}

impl World {
    /// Sends a call to where the scheduler's stream comes from.
    pub(super) fn send_call(&mut self, index: usize, call: Call) {
        let scheduler = &self.schedulers[index];
        let incarnation = scheduler.process.incarnation;
        let Some(id) = scheduler.wire() else { return };
        let Some(wire) = self.wires.get(&id) else { return };
        let (stream, server) = (wire.stream, wire.server);
        let copies = if self.calm { 1 } else { self.rng.weighted(&[15, 960, 25]) };
        let request = Request { scheduler: index, incarnation, wire: id, stream, server, call };
        for _ in 0..copies {
            let at = self.now + self.delay();
            self.at(at, Event::Call(Box::new(request.clone())));
        }
    }

    pub(super) fn call_arrives(&mut self, request: Request) -> Checked {
        let Request { scheduler, incarnation, wire, stream, server, call } = request;
        if !self.coordinators[server].process.on() {
            return Ok(());
        }
        let reply = if self.leads(server) {
            let request = self.request(server);
            let accepted = (call.r#type() == Type::Accept).then(|| call.clone());
            let stream = stream.map_or(StreamHeader::Absent, StreamHeader::Present);
            let outputs = self.step(server, Input::Scheduler { request, stream, call })?;
            self.plan_coordinator(server);
            let reply = outputs.iter().find_map(|output| match output {
                Output::Reply { reply, .. } => Some(reply.clone()),
                _ => None,
            });
            if let (Some(Reply::Accepted), Some(call)) = (&reply, accepted) {
                self.tally.accepted += self.ledger.accepted(&call);
            }
            reply
        } else {
            None
        };
        if reply.as_ref().is_some_and(is_yes) {
            return Ok(());
        }
        let at = self.now + self.delay();
        self.at(at, Event::Answer(Box::new(Answer { scheduler, incarnation, wire, server, reply })));
        Ok(())
    }

    /// An operator asks the leader for something.
    pub(super) fn operator(&mut self, call: OperatorCall) -> Checked {
        for index in 0..self.coordinators.len() {
            let coordinator = &self.coordinators[index].process;
            if coordinator.on() && coordinator.stopped(self.now).is_none() && self.leads(index) {
                let request = self.request(index);
                self.step(index, Input::Operator { request, call })?;
                self.plan_coordinator(index);
                return Ok(());
            }
        }
        Ok(())
    }
}

// === calls, as messages ===

fn of(framework: Option<&FrameworkId>, r#type: Type) -> Call {
    Call { framework_id: framework.cloned(), r#type: Some(r#type.into()), ..Call::default() }
}

pub fn subscribe(info: &FrameworkInfo) -> Call {
    let subscribe = Subscribe { framework_info: info.clone(), ..Subscribe::default() };
    Call { subscribe: Some(subscribe), ..of(info.id.as_ref(), Type::Subscribe) }
}

pub fn accept(id: &FrameworkId, offer_ids: Vec<OfferId>, operations: Vec<offer::Operation>) -> Call {
    let filters = Some(Filters { refuse_seconds: Some(1.0) });
    Call { accept: Some(Accept { offer_ids, operations, filters }), ..of(Some(id), Type::Accept) }
}

pub fn decline(id: &FrameworkId, offer_ids: Vec<OfferId>, seconds: f64) -> Call {
    let filters = Some(Filters { refuse_seconds: Some(seconds) });
    Call { decline: Some(Decline { offer_ids, filters }), ..of(Some(id), Type::Decline) }
}

pub fn revive(id: &FrameworkId) -> Call {
    Call { revive: Some(Revive::default()), ..of(Some(id), Type::Revive) }
}

pub fn kill(id: &FrameworkId, task_id: TaskId, agent_id: Option<AgentId>, grace: Option<i64>) -> Call {
    let kill_policy = grace.map(|seconds| KillPolicy {
        grace_period: Some(DurationInfo { nanoseconds: seconds * 1_000_000_000 }),
    });
    Call { kill: Some(Kill { task_id, agent_id, kill_policy }), ..of(Some(id), Type::Kill) }
}

/// Of an update that is to be acknowledged.
pub fn acknowledge(id: &FrameworkId, status: &TaskStatus) -> Option<Call> {
    let acknowledge = Acknowledge {
        agent_id: status.agent_id.clone()?,
        task_id: status.task_id.clone(),
        uuid: status.uuid.clone()?,
    };
    Some(Call { acknowledge: Some(acknowledge), ..of(Some(id), Type::Acknowledge) })
}

/// Implicit when no task is named.
pub fn reconcile(id: &FrameworkId, tasks: Vec<(TaskId, Option<AgentId>)>) -> Call {
    let tasks = tasks.into_iter().map(|(task_id, agent_id)| reconcile::Task { task_id, agent_id }).collect();
    Call { reconcile: Some(Reconcile { tasks }), ..of(Some(id), Type::Reconcile) }
}

pub fn teardown(id: &FrameworkId) -> Call {
    of(Some(id), Type::Teardown)
}
