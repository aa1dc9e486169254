//! Reconciliation's answers, case by case.

use std::time::Duration;

use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{AgentId, AgentInfo, OperationState, TaskState, TimeInfo};

use super::super::*;
use super::world::*;

const AWAITED: &str = "old-S1";
const SILENT: &str = "old-S2";
const GONE: &str = "old-S3";

/// A coordinator that awaits one agent, knows another as unreachable, and has a third with a task.
fn world() -> (World, AgentId) {
    let awaited = AgentInfo { id: Some(AWAITED.into()), hostname: "h".into(), ..Default::default() };
    let recovered = Recovered {
        admitted: vec![awaited],
        unreachable: vec![(SILENT.into(), TimeInfo { nanoseconds: 5 })],
        gone: vec![(GONE.into(), TimeInfo { nanoseconds: 6 })],
        ..Recovered::default()
    };
    let mut world = World::with(settings(), recovered);
    let (_, agent) = world.agent("a", "cpus:4;mem:1000");
    (world, agent)
}

#[test]
fn explicit_answers() {
    use TaskState as S;
    for aware in [false, true] {
        let (mut world, agent) = world();
        let capabilities = if aware { &[Capability::PartitionAware][..] } else { &[] };
        let (stream, id) = world.framework(info(|i| with_capabilities(i, capabilities)));
        world.soon();
        let offer = world.offers(stream).remove(0);
        world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![task("t", &agent, "cpus:1;mem:32")])]));
        let (awaited, silent, nowhere) = (AWAITED.into(), SILENT.into(), "nowhere".into());
        let gone = GONE.into();
        let lost = |state| if aware { state } else { S::TaskLost };
        // (task, agent, answer)
        let table: [(&str, Option<&AgentId>, Option<TaskState>); 8] = [
            ("t", Some(&agent), Some(S::TaskStaging)),
            ("t", None, Some(S::TaskStaging)),
            ("x", Some(&awaited), None),
            // It may be on the agent that is awaited.
            ("x", None, None),
            ("x", Some(&agent), Some(lost(S::TaskGone))),
            ("x", Some(&silent), Some(lost(S::TaskUnreachable))),
            ("x", Some(&gone), Some(lost(S::TaskGoneByOperator))),
            ("x", Some(&nowhere), Some(lost(S::TaskUnknown))),
        ];
        for (task, agent, answer) in table {
            assert_eq!(world.call(stream, &id, reconcile(&[(task, agent)])), Reply::Accepted);
            let statuses = world.statuses(stream);
            assert_eq!(statuses.first().map(|status| status.state()), answer, "{task} {agent:?}");
            for status in statuses {
                assert_eq!((status.source(), status.reason()), (Source::Master, Reason::Reconciliation));
                assert_eq!(status.uuid, None);
                let since = status.unreachable_time.map(|time| time.nanoseconds);
                assert_eq!(since, (agent == Some(&silent)).then_some(5));
            }
        }
        // Once nobody is awaited, an unnamed agent is no excuse.
        world.wait(Duration::from_secs(600));
        world.statuses(stream);
        world.call(stream, &id, reconcile(&[("x", None)]));
        assert_eq!(world.statuses(stream)[0].state(), lost(S::TaskUnknown));
    }
}

#[test]
fn the_state_told_last_is_told_again() {
    let (mut world, agent) = world();
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = world.offers(stream).remove(0);
    world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![task("t", &agent, "cpus:1;mem:32")])]));
    let link = world.core.agent(&agent).unwrap().link.unwrap();
    world.update_late(link, &id, "t", TaskState::TaskRunning, TaskState::TaskFinished);
    world.statuses(stream);
    for asked in [&[][..], &[("t", None)]] {
        world.call(stream, &id, reconcile(asked));
        let statuses = world.statuses(stream);
        assert_eq!(statuses.len(), 1);
        assert_eq!(statuses[0].state(), TaskState::TaskRunning, "its end has not been told");
    }
}

#[test]
fn operations_are_unknown() {
    use OperationState as S;
    let (mut world, agent) = world();
    let (stream, id) = world.framework(info(|_| {}));
    for (agent, state) in [
        (None, S::OperationUnknown),
        (Some(AWAITED.into()), S::OperationRecovering),
        (Some(SILENT.into()), S::OperationUnreachable),
        (Some(GONE.into()), S::OperationGoneByOperator),
        (Some(agent), S::OperationUnknown),
        (Some("nowhere".into()), S::OperationUnknown),
    ] {
        let operation = call::reconcile_operations::Operation {
            operation_id: "op".into(),
            agent_id: agent,
            ..Default::default()
        };
        let call = Call {
            reconcile_operations: Some(call::ReconcileOperations { operations: vec![operation] }),
            ..of_type(Type::ReconcileOperations)
        };
        assert_eq!(world.call(stream, &id, call), Reply::Accepted);
        let event = world.take(stream, event::Type::UpdateOperationStatus).remove(0);
        assert_eq!(event.update_operation_status.clone().unwrap().status.state(), state);
    }
}
