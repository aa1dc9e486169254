//! Whether a scheduler's call is whole: the member that its type names is there, and its ids agree.
//!
//! These are the checks that Mesos makes before it looks at anything else
//! (`validation::scheduler::call::validate`); what a whole call asks for is the core's to judge.

use tepui_api::v1::scheduler::Call;
use tepui_api::v1::scheduler::call::Type;

/// Why a call is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// A member is missing.
    #[error("Expecting '{0}' to be present")]
    Missing(&'static str),
    /// The framework's id stands in the call twice, and differs.
    #[error("'framework_id' differs from '{0}.framework_info.id'")]
    DifferentIds(&'static str),
    /// The id of a status is no UUID.
    #[error("the 'uuid' of an acknowledgement has {0} bytes, but a UUID has 16")]
    Uuid(usize),
}

/// Checks one call.
///
/// # Errors
/// With the first thing that is wrong, in Mesos' order.
pub(crate) fn check(call: &Call) -> Result<(), CallError> {
    if call.r#type.is_none() {
        return Err(CallError::Missing("type"));
    }
    if call.r#type() == Type::Subscribe {
        let subscribe = call.subscribe.as_ref().ok_or(CallError::Missing("subscribe"))?;
        let same = id(subscribe.framework_info.id.as_ref()) == id(call.framework_id.as_ref());
        return if same { Ok(()) } else { Err(CallError::DifferentIds("subscribe")) };
    }
    if call.framework_id.is_none() {
        return Err(CallError::Missing("framework_id"));
    }
    match call.r#type() {
        Type::Unknown | Type::Subscribe | Type::Teardown | Type::Revive | Type::Suppress => Ok(()),
        Type::Accept => present(call.accept.as_ref(), "accept").map(drop),
        Type::Decline => present(call.decline.as_ref(), "decline").map(drop),
        Type::AcceptInverseOffers => {
            present(call.accept_inverse_offers.as_ref(), "accept_inverse_offers").map(drop)
        }
        Type::DeclineInverseOffers => {
            present(call.decline_inverse_offers.as_ref(), "decline_inverse_offers").map(drop)
        }
        Type::Kill => present(call.kill.as_ref(), "kill").map(drop),
        Type::Shutdown => present(call.shutdown.as_ref(), "shutdown").map(drop),
        Type::Acknowledge => uuid(&present(call.acknowledge.as_ref(), "acknowledge")?.uuid),
        Type::AcknowledgeOperationStatus => {
            let status = call.acknowledge_operation_status.as_ref();
            let status = present(status, "acknowledge_operation_status")?;
            uuid(&status.uuid)?;
            present(status.agent_id.as_ref(), "agent_id").map(drop)
        }
        Type::Reconcile => present(call.reconcile.as_ref(), "reconcile").map(drop),
        Type::ReconcileOperations => {
            present(call.reconcile_operations.as_ref(), "reconcile_operations").map(drop)
        }
        Type::Message => present(call.message.as_ref(), "message").map(drop),
        Type::Request => present(call.request.as_ref(), "request").map(drop),
        Type::UpdateFramework => {
            let update = present(call.update_framework.as_ref(), "update_framework")?;
            let same = id(update.framework_info.id.as_ref()) == id(call.framework_id.as_ref());
            if same { Ok(()) } else { Err(CallError::DifferentIds("update_framework")) }
        }
    }
}

fn present<'a, T>(member: Option<&'a T>, name: &'static str) -> Result<&'a T, CallError> {
    member.ok_or(CallError::Missing(name))
}

fn uuid(bytes: &[u8]) -> Result<(), CallError> {
    if bytes.len() == 16 { Ok(()) } else { Err(CallError::Uuid(bytes.len())) }
}

/// An id that is not there is an empty one, as protobuf's accessors have it.
fn id(id: Option<&tepui_api::v1::FrameworkId>) -> &str {
    id.map_or("", |id| id.as_str())
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::{FrameworkId, FrameworkInfo, scheduler::call};

    use super::*;

    fn call(kind: Type) -> Call {
        Call { framework_id: Some(FrameworkId::new("f")), r#type: Some(kind.into()), ..Call::default() }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(check(&Call::default()), Err(CallError::Missing("type")));
        let bare = Call { r#type: Some(Type::Revive.into()), ..Call::default() };
        assert_eq!(check(&bare), Err(CallError::Missing("framework_id")));
        assert_eq!(
            check(&Call { r#type: Some(Type::Subscribe.into()), ..Call::default() }),
            Err(CallError::Missing("subscribe"))
        );
        for (kind, name) in [
            (Type::Accept, "accept"),
            (Type::Decline, "decline"),
            (Type::Kill, "kill"),
            (Type::Shutdown, "shutdown"),
            (Type::Acknowledge, "acknowledge"),
            (Type::Reconcile, "reconcile"),
            (Type::ReconcileOperations, "reconcile_operations"),
            (Type::Message, "message"),
            (Type::Request, "request"),
            (Type::UpdateFramework, "update_framework"),
            (Type::AcknowledgeOperationStatus, "acknowledge_operation_status"),
            (Type::AcceptInverseOffers, "accept_inverse_offers"),
            (Type::DeclineInverseOffers, "decline_inverse_offers"),
        ] {
            assert_eq!(check(&call(kind)), Err(CallError::Missing(name)));
        }
        for kind in [Type::Teardown, Type::Revive, Type::Suppress] {
            assert_eq!(check(&call(kind)), Ok(()));
        }
    }

    #[test]
    fn ids_must_agree() {
        let subscribe =
            call::Subscribe { framework_info: FrameworkInfo::default(), ..call::Subscribe::default() };
        let mut call = Call { subscribe: Some(subscribe), ..call(Type::Subscribe) };
        assert_eq!(check(&call), Err(CallError::DifferentIds("subscribe")));
        call.framework_id = None;
        assert_eq!(check(&call), Ok(()));
    }

    #[test]
    fn an_acknowledgement_has_a_uuid() {
        let acknowledge = |uuid: Vec<u8>| Call {
            acknowledge: Some(call::Acknowledge { uuid, ..call::Acknowledge::default() }),
            ..call(Type::Acknowledge)
        };
        assert_eq!(check(&acknowledge(vec![0; 15])), Err(CallError::Uuid(15)));
        assert_eq!(check(&acknowledge(vec![0; 16])), Ok(()));
    }
}
