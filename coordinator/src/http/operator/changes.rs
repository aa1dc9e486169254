//! Calls of operators that change something: whether they are whole, and what they ask of the core.

use tepui_api::http::Refusal;
use tepui_api::v1::DurationInfo;
use tepui_api::v1::master::Call;
use tepui_api::v1::master::call::{DrainAgent, Type};

use crate::core::OperatorCall;

/// Checks that the member is there which a call's type names, in the words of Mesos'
/// `validation::master::call::validate`.
///
/// # Errors
/// When it is not.
pub(super) fn check(call: &Call) -> Result<(), Refusal> {
    let (present, name) = match call.r#type() {
        Type::GetMetrics => (call.get_metrics.is_some(), "get_metrics"),
        Type::Teardown => (call.teardown.is_some(), "teardown"),
        Type::UpdateWeights => (call.update_weights.is_some(), "update_weights"),
        Type::UpdateMaintenanceSchedule => {
            (call.update_maintenance_schedule.is_some(), "update_maintenance_schedule")
        }
        Type::StartMaintenance => (call.start_maintenance.is_some(), "start_maintenance"),
        Type::StopMaintenance => (call.stop_maintenance.is_some(), "stop_maintenance"),
        Type::DrainAgent => (call.drain_agent.is_some(), "drain_agent"),
        Type::DeactivateAgent => (call.deactivate_agent.is_some(), "deactivate_agent"),
        Type::ReactivateAgent => (call.reactivate_agent.is_some(), "reactivate_agent"),
        Type::MarkAgentGone => (call.mark_agent_gone.is_some(), "mark_agent_gone"),
        _ => return Ok(()),
    };
    if present { Ok(()) } else { Err(missing(name)) }
}

/// The answer to a call without a member that it needs.
pub(super) fn missing(name: &str) -> Refusal {
    Refusal::bad_request(format!("Failed to validate master::Call: Expecting '{name}' to be present"))
}

/// What a whole call asks of the core; `None` when it changes nothing, or is not built.
pub(super) fn change(call: &Call) -> Option<OperatorCall> {
    Some(match call.r#type() {
        Type::Teardown => OperatorCall::Teardown(call.teardown.clone()?.framework_id),
        Type::UpdateWeights => OperatorCall::UpdateWeights(call.update_weights.clone()?.weight_infos),
        Type::UpdateMaintenanceSchedule => {
            OperatorCall::UpdateSchedule(call.update_maintenance_schedule.clone()?.schedule)
        }
        Type::StartMaintenance => OperatorCall::StartMaintenance(call.start_maintenance.clone()?.machines),
        Type::StopMaintenance => OperatorCall::StopMaintenance(call.stop_maintenance.clone()?.machines),
        Type::DrainAgent => drain(call.drain_agent.clone()?),
        Type::DeactivateAgent => OperatorCall::Deactivate(call.deactivate_agent.clone()?.agent_id),
        Type::ReactivateAgent => OperatorCall::Reactivate(call.reactivate_agent.clone()?.agent_id),
        Type::MarkAgentGone => OperatorCall::MarkGone(call.mark_agent_gone.clone()?.agent_id),
        _ => return None,
    })
}

fn drain(call: DrainAgent) -> OperatorCall {
    let mark_gone = call.mark_gone();
    let nanoseconds = |time: tepui_api::types::google::protobuf::Duration| {
        time.seconds().saturating_mul(1_000_000_000).saturating_add(time.nanos().into())
    };
    let max_grace_period = call.max_grace_period.map(|time| DurationInfo { nanoseconds: nanoseconds(time) });
    OperatorCall::Drain { agent: call.agent_id, max_grace_period, mark_gone }
}

#[cfg(test)]
mod tests {
    use tepui_api::codec::decode_json;

    use super::*;

    #[test]
    fn a_drain_is_read_as_it_is_written() {
        let text = br#"{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"S1"},
            "max_grace_period":{"seconds":600,"nanos":5},"mark_gone":true}}"#;
        let call: Call = decode_json(text).unwrap();
        assert!(check(&call).is_ok());
        let drain = OperatorCall::Drain {
            agent: "S1".into(),
            max_grace_period: Some(DurationInfo { nanoseconds: 600_000_000_005 }),
            mark_gone: true,
        };
        assert_eq!(change(&call), Some(drain));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (kind, name) in [
            (Type::MarkAgentGone, "mark_agent_gone"),
            (Type::DrainAgent, "drain_agent"),
            (Type::UpdateMaintenanceSchedule, "update_maintenance_schedule"),
            (Type::UpdateWeights, "update_weights"),
        ] {
            let call = Call { r#type: Some(kind.into()), ..Call::default() };
            let refusal = check(&call).unwrap_err();
            assert!(format!("{refusal:?}").contains(name), "{refusal:?}");
        }
        assert_eq!(change(&Call { r#type: Some(Type::GetHealth.into()), ..Call::default() }), None);
    }
}
