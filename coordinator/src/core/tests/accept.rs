//! What becomes of accepted offers.

use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::offer::{Operation, operation};
use tepui_api::v1::scheduler::call::Type;
use tepui_api::v1::scheduler::event;
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{
    AgentId, CommandInfo, ExecutorInfo, FrameworkId, Offer, OfferId, OperationState, TaskId, TaskState,
};

use super::super::*;
use super::world::*;

struct Setup {
    world: World,
    link: LinkId,
    agent: AgentId,
    stream: StreamId,
    id: FrameworkId,
    offer: Offer,
}

fn setup(capabilities: &[Capability]) -> Setup {
    let mut world = World::new();
    let (link, agent) = world.agent("a", "cpus:4;mem:1000;ports:[1-9]");
    let (stream, id) = world.framework(info(|i| with_capabilities(i, capabilities)));
    world.soon();
    world.frames(link);
    let offer = world.offers(stream).remove(0);
    Setup { world, link, agent, stream, id, offer }
}

impl Setup {
    fn accept(&mut self, operations: Vec<Operation>) -> Reply {
        let offer = self.offer.id.clone();
        self.world.call(self.stream, &self.id, accept(&[&offer], operations))
    }

    fn used(&self) -> Resources {
        self.world.core.snapshot().agents[&self.agent].allocated().unallocated()
    }
}

fn resources(text: &str) -> Resources {
    Resources::parse(text, "*").unwrap()
}

#[test]
fn tasks_are_launched_and_the_rest_comes_back() {
    let mut s = setup(&[]);
    let tasks =
        vec![task("t1", &s.agent, "cpus:1;mem:100;ports:[2-3]"), task("t2", &s.agent, "cpus:0.5;mem:32")];
    assert_eq!(s.accept(vec![launch(tasks)]), Reply::Accepted);
    let frames = s.world.frames(s.link);
    assert_eq!(frames.len(), 2);
    let Frame::RunTask(run) = &frames[0] else { panic!("{frames:?}") };
    assert_eq!(run.task.task_id, "t1".into());
    assert_eq!(run.framework.id, Some(s.id.clone()));
    assert_eq!(run.task.resources[0].allocation_info.clone().unwrap().role.as_deref(), Some("*"));
    assert_eq!(s.used(), resources("cpus:1.5;mem:132;ports:[2-3]"));
    let snapshot = s.world.core.snapshot();
    let known = &snapshot.frameworks[&s.id].tasks[&TaskId::new("t1")];
    assert_eq!((known.state(), known.agent_id.clone()), (TaskState::TaskStaging, s.agent.clone()));
    assert!(s.world.statuses(s.stream).is_empty());
    // The rest is filtered for 5 s.
    s.world.wait(Duration::from_secs(4));
    assert!(s.world.offers(s.stream).is_empty());
    s.world.wait(Duration::from_secs(2));
    let rest = s.world.offers(s.stream).remove(0);
    assert_eq!(Resources::from_wire(&rest.resources).unwrap(), resources("cpus:2.5;mem:868;ports:[1-1,4-9]"));
}

#[test]
fn an_offer_can_be_used_once() {
    for (capabilities, state) in
        [(&[][..], TaskState::TaskLost), (&[Capability::PartitionAware], TaskState::TaskDropped)]
    {
        let mut s = setup(capabilities);
        s.accept(vec![]);
        s.accept(vec![launch(vec![task("t", &s.agent.clone(), "cpus:1;mem:32")])]);
        let status = s.world.statuses(s.stream).remove(0);
        assert_eq!(status.state(), state);
        assert_eq!((status.source(), status.reason()), (Source::Master, Reason::InvalidOffers));
        assert_eq!((status.uuid, status.agent_id), (None, Some(s.agent.clone())));
        assert_eq!(s.used(), Resources::new());
    }
}

#[test]
fn offers_must_be_ones_own_and_of_one_agent() {
    let mut s = setup(&[]);
    let (_, other_agent) = s.world.agent("bb", "cpus:4;mem:1000");
    s.world.soon();
    let second = s.world.offers(s.stream).remove(0);
    assert_eq!(second.agent_id, other_agent);
    let (stranger, stranger_id) = s.world.framework(info(|_| {}));
    let attempts: [(StreamId, &FrameworkId, Vec<OfferId>); 4] = [
        (stranger, &stranger_id, vec![s.offer.id.clone()]),
        (s.stream, &s.id, vec![]),
        (s.stream, &s.id, vec![OfferId::new("nonsense")]),
        (s.stream, &s.id, vec![s.offer.id.clone(), s.offer.id.clone()]),
    ];
    for (n, (stream, id, offers)) in attempts.into_iter().enumerate() {
        let tasks = vec![task(&format!("t{n}"), &s.agent, "cpus:1;mem:32")];
        let offers: Vec<&OfferId> = offers.iter().collect();
        s.world.call(stream, id, accept(&offers, vec![launch(tasks)]));
        let statuses = s.world.statuses(stream);
        assert_eq!(statuses.len(), 1, "{n}");
        assert_eq!(statuses[0].reason(), Reason::InvalidOffers);
    }
    // The last attempt voided the framework's own offer.
    s.world.wait(Duration::from_secs(1));
    let mut offers = s.world.offers(s.stream);
    offers.extend(s.world.offers(stranger));
    assert_eq!(offers.len(), 1);
}

#[test]
fn offers_of_two_agents_are_void_together() {
    let mut s = setup(&[]);
    s.world.agent("bb", "cpus:4;mem:1000");
    s.world.soon();
    let second = s.world.offers(s.stream).remove(0);
    let call = accept(&[&s.offer.id, &second.id], vec![launch(vec![task("t", &s.agent, "cpus:1;mem:32")])]);
    s.world.call(s.stream, &s.id, call);
    assert_eq!(s.world.statuses(s.stream)[0].reason(), Reason::InvalidOffers);
    assert!(s.world.core.snapshot().frameworks[&s.id].offers.is_empty());
}

#[test]
fn several_offers_of_one_agent_add_up() {
    let mut s = setup(&[]);
    let tasks = vec![task("t1", &s.agent, "cpus:3;mem:900")];
    s.accept(vec![launch(tasks)]);
    s.world.wait(Duration::from_secs(6));
    let rest = s.world.offers(s.stream).remove(0);
    s.world.update(s.link, &s.id.clone(), "t1", TaskState::TaskFinished);
    s.world.soon();
    let freed = s.world.offers(s.stream).remove(0);
    s.world.frames(s.link);
    let call = accept(&[&rest.id, &freed.id], vec![launch(vec![task("t2", &s.agent, "cpus:4;mem:1000")])]);
    s.world.call(s.stream, &s.id, call);
    assert_eq!(s.world.statuses(s.stream).len(), 1, "only the update of t1");
    assert!(matches!(s.world.frames(s.link)[..], [Frame::RunTask(_)]));
}

#[test]
fn operations_take_from_what_is_left() {
    let mut s = setup(&[]);
    let agent = s.agent.clone();
    s.accept(vec![
        launch(vec![task("t1", &agent, "cpus:3;mem:32")]),
        launch(vec![task("t2", &agent, "cpus:3;mem:32"), task("t3", &agent, "cpus:1;mem:32")]),
    ]);
    let statuses = s.world.statuses(s.stream);
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].task_id, "t2".into());
    assert_eq!((statuses[0].state(), statuses[0].reason()), (TaskState::TaskError, Reason::TaskInvalid));
    assert_eq!(s.used(), resources("cpus:4;mem:64"));
}

#[test]
fn unreadable_resources_spoil_the_operation() {
    let mut s = setup(&[]);
    let mut bad = task("bad", &s.agent, "cpus:1;mem:32");
    bad.resources[0].scalar = None;
    let agent = s.agent.clone();
    s.accept(vec![
        launch(vec![task("with it", &agent, "cpus:1;mem:32"), bad]),
        launch(vec![task("apart", &agent, "cpus:1;mem:32")]),
    ]);
    let failed: Vec<_> = s.world.statuses(s.stream).into_iter().map(|status| status.task_id.value).collect();
    assert_eq!(failed, ["with it", "bad"]);
    assert_eq!(s.used(), resources("cpus:1;mem:32"));
}

#[test]
fn resources_of_another_role_are_not_in_the_offer() {
    let mut s = setup(&[]);
    let mut other = task("t", &s.agent, "cpus:1;mem:32");
    let marked = Resources::from_wire(&other.resources).unwrap().allocated("other");
    other.resources = marked.to_wire();
    s.accept(vec![launch(vec![other])]);
    assert_eq!(s.world.statuses(s.stream)[0].state(), TaskState::TaskError);
}

#[test]
fn what_is_not_implemented_says_so() {
    use operation::Type as T;
    for r#type in [
        T::Reserve,
        T::Unreserve,
        T::Create,
        T::Destroy,
        T::GrowVolume,
        T::ShrinkVolume,
        T::CreateDisk,
        T::DestroyDisk,
    ] {
        let mut s = setup(&[]);
        let silent = Operation { r#type: Some(r#type.into()), ..Default::default() };
        let named = Operation { id: Some("op".into()), ..silent.clone() };
        s.accept(vec![silent, named]);
        let events = s.world.take(s.stream, event::Type::UpdateOperationStatus);
        assert_eq!(events.len(), 1);
        let status = events[0].update_operation_status.clone().unwrap().status;
        assert_eq!(
            (status.state(), status.operation_id),
            (OperationState::OperationError, Some("op".into()))
        );
        assert!(status.message.unwrap().contains("not implemented"));
        // The resources come back.
        s.world.wait(Duration::from_secs(6));
        assert_eq!(s.world.offers(s.stream).len(), 1);
    }
}

#[test]
fn launches_have_no_operation_id() {
    let mut s = setup(&[]);
    let operation = Operation { id: Some("op".into()), ..launch(vec![task("t", &s.agent, "cpus:1;mem:32")]) };
    s.accept(vec![operation]);
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskError, Reason::TaskInvalid));
    assert!(s.world.take(s.stream, event::Type::UpdateOperationStatus).is_empty());
}

#[test]
fn an_executor_is_charged_once() {
    let mut s = setup(&[]);
    let executor = ExecutorInfo {
        executor_id: "e".into(),
        command: Some(CommandInfo { value: Some("run".into()), ..Default::default() }),
        resources: resources("cpus:0.5;mem:64").to_wire(),
        ..Default::default()
    };
    let with_executor = |id: &str, agent: &AgentId| {
        let mut task = task(id, agent, "cpus:1;mem:32");
        task.command = None;
        task.executor = Some(executor.clone());
        task
    };
    let agent = s.agent.clone();
    s.accept(vec![launch(vec![with_executor("t1", &agent), with_executor("t2", &agent)])]);
    assert_eq!(s.used(), resources("cpus:2.5;mem:128"));
    // It outlives its tasks, and its end is told.
    for task in ["t1", "t2"] {
        s.world.update(s.link, &s.id.clone(), task, TaskState::TaskFinished);
    }
    assert_eq!(s.used(), resources("cpus:0.5;mem:64"));
    s.world.soon();
    assert_eq!(s.world.offers(s.stream)[0].executor_ids, ["e".into()]);
    let exited =
        tepui_api::link::ExecutorExited { framework_id: s.id.clone(), executor_id: "e".into(), status: 9 };
    let frame = tepui_api::link::agent_frame::Body::ExecutorExited(exited);
    s.world.step(Input::Agent { link: s.link, frame: frame.clone() });
    s.world.step(Input::Agent { link: s.link, frame });
    let failures = s.world.take(s.stream, event::Type::Failure);
    assert_eq!(failures.len(), 1);
    let failure = failures[0].failure.clone().unwrap();
    assert_eq!((failure.executor_id, failure.status), (Some("e".into()), Some(9)));
    assert_eq!(s.used(), Resources::new());
}

#[test]
fn an_unknown_type_is_left_out() {
    let mut s = setup(&[]);
    s.accept(vec![Operation::default()]);
    assert!(s.world.statuses(s.stream).is_empty());
    assert_eq!(s.world.call(s.stream, &s.id.clone(), of_type(Type::Revive)), Reply::Accepted);
}
