//! Updates, acknowledgements, kills and messages.

use std::time::Duration;

use tepui_api::link::agent_frame::Body as AgentFrame;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::link::{Acknowledge, ExecutorMessage};
use tepui_api::resources::Resources;
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{AgentId, FrameworkId, TaskState};

use super::super::*;
use super::world::*;

/// A framework with the tasks `t` and `u` on an agent.
struct Setup {
    world: World,
    link: LinkId,
    agent: AgentId,
    stream: StreamId,
    id: FrameworkId,
}

fn setup() -> Setup {
    let mut world = World::new();
    let (link, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = world.offers(stream).remove(0);
    let tasks = ["t", "u"].map(|name| task(name, &agent, "cpus:1;mem:32"));
    world.call(stream, &id, accept(&[&offer.id], vec![launch(tasks.to_vec())]));
    world.frames(link);
    Setup { world, link, agent, stream, id }
}

impl Setup {
    fn update(&mut self, state: TaskState) -> Vec<u8> {
        self.world.update(self.link, &self.id.clone(), "t", state)
    }

    fn acknowledge(&mut self, uuid: &[u8]) {
        let call = acknowledge(&self.agent, "t", uuid);
        assert_eq!(self.world.call(self.stream, &self.id, call), Reply::Accepted);
    }

    fn used(&self) -> Resources {
        self.world.core.snapshot().agents[&self.agent].allocated().unallocated()
    }

    fn known(&self) -> bool {
        self.world.core.task(&self.id, &"t".into()).is_some()
    }
}

fn cpus(n: u32) -> Resources {
    Resources::parse(&format!("cpus:{n};mem:{}", 32 * n), "*").unwrap()
}

#[test]
fn updates_are_forwarded_and_acknowledged() {
    let mut s = setup();
    let uuid = s.update(TaskState::TaskRunning);
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!(status.state(), TaskState::TaskRunning);
    assert_eq!(status.uuid.unwrap(), uuid);
    assert_eq!(status.agent_id, Some(s.agent.clone()));
    assert!(status.data.is_some());
    s.acknowledge(&uuid);
    let frame = Acknowledge { framework_id: s.id.clone(), task_id: "t".into(), uuid: uuid.clone() };
    assert_eq!(s.world.frames(s.link), [Frame::Acknowledge(frame)]);
    let known = s.world.core.task(&s.id, &"t".into()).unwrap().clone();
    assert_eq!(
        (known.state(), known.status_update_state()),
        (TaskState::TaskRunning, TaskState::TaskRunning)
    );
    assert_eq!(known.statuses.len(), 1);
    assert_eq!(known.statuses[0].data, None, "it may be large");
}

#[test]
fn resources_come_back_with_the_end_and_the_task_goes_with_its_acknowledgement() {
    let mut s = setup();
    let uuid = s.update(TaskState::TaskFinished);
    assert_eq!(s.used(), cpus(1));
    assert!(s.known());
    s.world.soon();
    assert_eq!(s.world.offers(s.stream).len(), 1, "offered again at once");
    // The agent repeats itself.
    s.update(TaskState::TaskFinished);
    assert_eq!(s.used(), cpus(1));
    // Only the last update's acknowledgement counts.
    s.acknowledge(&uuid);
    assert!(s.known());
    let last = s.update(TaskState::TaskFinished);
    s.acknowledge(&last);
    assert!(!s.known());
    let snapshot = s.world.core.snapshot();
    assert_eq!(snapshot.frameworks[&s.id].completed_tasks[0].state(), TaskState::TaskFinished);
    assert_eq!(snapshot.counters.tasks_finished, 1);
    // An acknowledgement of what is forgotten still reaches the agent.
    s.world.frames(s.link);
    s.acknowledge(&last);
    assert_eq!(s.world.frames(s.link).len(), 1);
}

#[test]
fn the_latest_state_frees_resources_before_its_update_comes() {
    let mut s = setup();
    let running =
        s.world.update_late(s.link, &s.id.clone(), "t", TaskState::TaskRunning, TaskState::TaskFailed);
    assert_eq!(s.used(), cpus(1));
    assert_eq!(s.world.statuses(s.stream)[0].state(), TaskState::TaskRunning);
    s.acknowledge(&running);
    assert!(s.known(), "its end has not been told yet");
    let failed = s.update(TaskState::TaskFailed);
    s.acknowledge(&failed);
    assert!(!s.known());
}

#[test]
fn a_task_that_ended_stays_so() {
    let mut s = setup();
    s.update(TaskState::TaskFailed);
    s.update(TaskState::TaskRunning);
    s.world.update_late(s.link, &s.id.clone(), "t", TaskState::TaskFinished, TaskState::TaskRunning);
    assert_eq!(s.used(), cpus(1));
    assert_eq!(s.world.core.task(&s.id, &"t".into()).unwrap().state(), TaskState::TaskFailed);
}

#[test]
fn an_agent_cannot_say_that_it_is_unreachable() {
    let mut s = setup();
    s.update(TaskState::TaskUnreachable);
    s.world.update_late(s.link, &s.id.clone(), "t", TaskState::TaskRunning, TaskState::TaskUnknown);
    assert!(s.world.statuses(s.stream).is_empty());
    assert_eq!(s.used(), cpus(2));
}

#[test]
fn updates_of_unknown_tasks_are_forwarded() {
    let mut s = setup();
    s.world.update(s.link, &s.id.clone(), "stranger", TaskState::TaskLost);
    assert_eq!(s.world.statuses(s.stream)[0].task_id, "stranger".into());
    assert_eq!(s.world.core.snapshot().counters.invalid_status_updates, 1);
}

#[test]
fn an_update_for_an_absent_framework_is_taken_note_of() {
    let mut s = setup();
    s.world.step(Input::StreamClosed { stream: s.stream });
    s.update(TaskState::TaskFinished);
    assert_eq!(s.used(), cpus(1));
    assert!(s.known());
    s.stream = s.world.subscribe(info(|i| i.id = Some(s.id.clone())));
    // The agent sends it again, and only then it can be acknowledged.
    let uuid = s.update(TaskState::TaskFinished);
    assert_eq!(s.world.statuses(s.stream).len(), 1);
    s.acknowledge(&uuid);
    assert!(!s.known());
}

#[test]
fn updates_keep_one_status_for_each_change() {
    let mut s = setup();
    for state in
        [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskRunning, TaskState::TaskKilling]
    {
        s.update(state);
    }
    assert_eq!(s.world.statuses(s.stream).len(), 4);
    assert_eq!(s.world.core.task(&s.id, &"t".into()).unwrap().statuses.len(), 3);
}

#[test]
fn acknowledgements_need_the_agent() {
    let mut s = setup();
    let uuid = s.update(TaskState::TaskFinished);
    s.world.step(Input::LinkClosed { link: s.link });
    s.acknowledge(&uuid);
    assert!(s.known(), "the agent has not heard of it");
    let elsewhere = acknowledge(&"nowhere".into(), "t", &uuid);
    s.world.call(s.stream, &s.id.clone(), elsewhere);
    assert!(s.known());
    assert_eq!(s.world.core.snapshot().counters.invalid_status_update_acknowledgements, 2);
}

#[test]
fn kills_are_forwarded() {
    let mut s = setup();
    let policy = tepui_api::v1::KillPolicy { grace_period: None };
    let call = Call {
        kill: Some(call::Kill {
            task_id: "t".into(),
            agent_id: Some(s.agent.clone()),
            kill_policy: Some(policy),
        }),
        ..of_type(Type::Kill)
    };
    s.world.call(s.stream, &s.id.clone(), call.clone());
    let frames = s.world.frames(s.link);
    let [Frame::KillTask(frame)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((frame.task_id.clone(), frame.kill_policy), ("t".into(), Some(policy)));
    let elsewhere = Call {
        kill: Some(call::Kill { agent_id: Some("elsewhere".into()), ..call.kill.unwrap() }),
        ..of_type(Type::Kill)
    };
    s.world.call(s.stream, &s.id.clone(), elsewhere);
    assert!(s.world.frames(s.link).is_empty());
    // One that is not known is answered as reconciliation would.
    s.world.call(s.stream, &s.id.clone(), kill("stranger"));
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskLost, Reason::Reconciliation));
    assert_eq!(status.source(), Source::Master);
}

#[test]
fn a_kill_outlives_the_link() {
    let mut s = setup();
    s.world.step(Input::LinkClosed { link: s.link });
    s.world.call(s.stream, &s.id.clone(), kill("t"));
    let snapshot = s.world.core.snapshot();
    let tasks = snapshot.tasks().map(|task| (**task).clone()).collect();
    let mut register = register("a", "cpus:4;mem:1000");
    register.agent.id = Some(s.agent.clone());
    register.tasks = tasks;
    register.frameworks = vec![(*snapshot.frameworks[&s.id].info).clone()];
    let link = s.world.register(register);
    let frames = s.world.frames(link);
    let kills = frames.iter().filter(|frame| matches!(frame, Frame::KillTask(_)));
    assert_eq!(kills.count(), 1, "{frames:?}");
}

#[test]
fn messages_go_both_ways() {
    let mut s = setup();
    let message = Call {
        message: Some(call::Message { agent_id: s.agent.clone(), executor_id: "e".into(), data: vec![1, 2] }),
        ..of_type(Type::Message)
    };
    s.world.call(s.stream, &s.id.clone(), message);
    let frames = s.world.frames(s.link);
    assert!(matches!(&frames[..], [Frame::Message(message)] if message.data[..] == [1, 2]), "{frames:?}");
    let message = ExecutorMessage { framework_id: s.id.clone(), executor_id: "e".into(), data: vec![3] };
    s.world.step(Input::Agent { link: s.link, frame: AgentFrame::Message(message) });
    let event = s.world.take(s.stream, event::Type::Message).remove(0);
    let message = event.message.clone().unwrap();
    assert_eq!((message.agent_id, message.data), (s.agent.clone(), vec![3]));
    let shutdown = Call {
        shutdown: Some(call::Shutdown { executor_id: "e".into(), agent_id: s.agent.clone() }),
        ..of_type(Type::Shutdown)
    };
    s.world.call(s.stream, &s.id.clone(), shutdown);
    assert!(matches!(s.world.frames(s.link)[..], [Frame::ShutdownExecutor(_)]));
}

#[test]
fn ended_tasks_are_forgotten_beyond_a_number() {
    let mut world =
        World::with(Settings { max_completed_tasks_per_framework: 2, ..settings() }, Recovered::default());
    let (link, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    for name in ["1", "2", "3"] {
        world.wait(Duration::from_secs(6));
        let offer = world.offers(stream).remove(0);
        world.call(
            stream,
            &id,
            accept(&[&offer.id], vec![launch(vec![task(name, &agent, "cpus:4;mem:1000")])]),
        );
        let uuid = world.update(link, &id, name, TaskState::TaskFinished);
        world.call(stream, &id, acknowledge(&agent, name, &uuid));
    }
    let snapshot = world.core.snapshot();
    let kept: Vec<_> = snapshot.completed_tasks().map(|task| task.task_id.value.clone()).collect();
    assert_eq!(kept, ["2", "3"]);
}
