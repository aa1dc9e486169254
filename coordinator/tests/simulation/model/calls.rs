//! Calls of schedulers, as messages.

use tepui_api::v1::scheduler::Call;
use tepui_api::v1::scheduler::call::{
    Accept, AcceptInverseOffers, Acknowledge, Decline, DeclineInverseOffers, Kill, Message, Reconcile,
    Revive, Shutdown, Subscribe, Suppress, Type, UpdateFramework, reconcile,
};
use tepui_api::v1::{AgentId, ExecutorId, Filters, FrameworkId, FrameworkInfo, OfferId, TaskId, offer};

fn of(framework: Option<&FrameworkId>, r#type: Type) -> Call {
    Call { framework_id: framework.cloned(), r#type: Some(r#type.into()), ..Call::default() }
}

pub fn subscribe(info: &FrameworkInfo, suppressed: Vec<String>) -> Call {
    let subscribe =
        Subscribe { framework_info: info.clone(), suppressed_roles: suppressed, offer_constraints: None };
    Call { subscribe: Some(subscribe), ..of(info.id.as_ref(), Type::Subscribe) }
}

pub fn update_framework(id: &FrameworkId, info: &FrameworkInfo, suppressed: Vec<String>) -> Call {
    let update = UpdateFramework {
        framework_info: info.clone(),
        suppressed_roles: suppressed,
        offer_constraints: None,
    };
    Call { update_framework: Some(update), ..of(Some(id), Type::UpdateFramework) }
}

pub fn accept(
    id: &FrameworkId,
    offer_ids: Vec<OfferId>,
    operations: Vec<offer::Operation>,
    filters: Option<Filters>,
) -> Call {
    Call { accept: Some(Accept { offer_ids, operations, filters }), ..of(Some(id), Type::Accept) }
}

pub fn decline(id: &FrameworkId, offer_ids: Vec<OfferId>, filters: Option<Filters>) -> Call {
    Call { decline: Some(Decline { offer_ids, filters }), ..of(Some(id), Type::Decline) }
}

pub fn revive(id: &FrameworkId, roles: Vec<String>) -> Call {
    Call { revive: Some(Revive { roles }), ..of(Some(id), Type::Revive) }
}

pub fn suppress(id: &FrameworkId, roles: Vec<String>) -> Call {
    Call { suppress: Some(Suppress { roles }), ..of(Some(id), Type::Suppress) }
}

pub fn kill(id: &FrameworkId, task_id: TaskId, agent_id: Option<AgentId>) -> Call {
    Call { kill: Some(Kill { task_id, agent_id, kill_policy: None }), ..of(Some(id), Type::Kill) }
}

pub fn shutdown(id: &FrameworkId, executor_id: ExecutorId, agent_id: AgentId) -> Call {
    Call { shutdown: Some(Shutdown { executor_id, agent_id }), ..of(Some(id), Type::Shutdown) }
}

pub fn acknowledge(id: &FrameworkId, agent_id: AgentId, task_id: TaskId, uuid: Vec<u8>) -> Call {
    Call { acknowledge: Some(Acknowledge { agent_id, task_id, uuid }), ..of(Some(id), Type::Acknowledge) }
}

/// Implicit when no task is named.
pub fn reconcile(id: &FrameworkId, tasks: Vec<(TaskId, Option<AgentId>)>) -> Call {
    let tasks = tasks.into_iter().map(|(task_id, agent_id)| reconcile::Task { task_id, agent_id }).collect();
    Call { reconcile: Some(Reconcile { tasks }), ..of(Some(id), Type::Reconcile) }
}

pub fn message(id: &FrameworkId, agent_id: AgentId, executor_id: ExecutorId) -> Call {
    let message = Message { agent_id, executor_id, data: b"hello".to_vec() };
    Call { message: Some(message), ..of(Some(id), Type::Message) }
}

pub fn teardown(id: &FrameworkId) -> Call {
    of(Some(id), Type::Teardown)
}

/// Calls that lack what they should have, or that do nothing.
pub fn odd(id: &FrameworkId, which: usize) -> Call {
    match which {
        0 => of(None, Type::Revive),
        1 => of(Some(id), Type::Accept),
        2 => of(Some(id), Type::Kill),
        3 => of(Some(id), Type::Unknown),
        4 => of(Some(id), Type::Request),
        5 => of(Some(&FrameworkId::new("nobody")), Type::Teardown),
        6 => of(Some(id), Type::AcknowledgeOperationStatus),
        _ => of(Some(id), Type::UpdateFramework),
    }
}

/// To an inverse offer: not to be asked again for a while.
pub fn answer_inverse(id: &FrameworkId, offer: &OfferId, accept: bool) -> Call {
    let inverse_offer_ids = vec![offer.clone()];
    let filters = Some(Filters { refuse_seconds: Some(20.0) });
    if accept {
        let accept_inverse_offers = Some(AcceptInverseOffers { inverse_offer_ids, filters });
        Call { accept_inverse_offers, ..of(Some(id), Type::AcceptInverseOffers) }
    } else {
        let decline_inverse_offers = Some(DeclineInverseOffers { inverse_offer_ids, filters });
        Call { decline_inverse_offers, ..of(Some(id), Type::DeclineInverseOffers) }
    }
}
