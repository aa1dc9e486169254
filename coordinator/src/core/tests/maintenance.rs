//! Maintenance: schedules, inverse offers, machines that go down and up.

use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::allocator::inverse_offer_status::Status;
use tepui_api::v1::machine_info::Mode;
use tepui_api::v1::maintenance::{Schedule, Window};
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    DurationInfo, Filters, InverseOffer, MachineId, OfferId, TaskState, TimeInfo, Unavailability,
};

use super::super::*;
use super::running::*;
use super::world::*;

fn machine() -> MachineId {
    MachineId { hostname: Some("A".into()), ip: Some("10.0.0.1".into()) }
}

fn elsewhere() -> MachineId {
    MachineId { hostname: Some("elsewhere".into()), ip: None }
}

fn unavailability(start: i64) -> Unavailability {
    Unavailability {
        start: TimeInfo { nanoseconds: start },
        duration: Some(DurationInfo { nanoseconds: 3600 }),
    }
}

fn schedule(windows: &[(&[MachineId], i64)]) -> OperatorCall {
    let window = |(machines, start): &(&[MachineId], i64)| Window {
        machine_ids: machines.to_vec(),
        unavailability: unavailability(*start),
    };
    OperatorCall::UpdateSchedule(Schedule { windows: windows.iter().map(window).collect() })
}

fn refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused { status: 400, .. })
}

impl World {
    fn inverse_offers(&mut self, stream: StreamId) -> Vec<InverseOffer> {
        let events = self.take(stream, event::Type::InverseOffers);
        events.iter().flat_map(|event| event.inverse_offers.clone().unwrap().inverse_offers).collect()
    }

    fn rescinded(&mut self, stream: StreamId) -> Vec<OfferId> {
        let events = self.take(stream, event::Type::RescindInverseOffer);
        events.iter().map(|event| event.rescind_inverse_offer.clone().unwrap().inverse_offer_id).collect()
    }
}

fn answer(accept: bool, offer: &OfferId, refuse_seconds: f64) -> Call {
    let filters = Some(Filters { refuse_seconds: Some(refuse_seconds) });
    let inverse_offer_ids = vec![offer.clone()];
    if accept {
        let accept_inverse_offers = Some(call::AcceptInverseOffers { inverse_offer_ids, filters });
        Call { accept_inverse_offers, ..of_type(Type::AcceptInverseOffers) }
    } else {
        let decline_inverse_offers = Some(call::DeclineInverseOffers { inverse_offer_ids, filters });
        Call { decline_inverse_offers, ..of_type(Type::DeclineInverseOffers) }
    }
}

#[test]
fn a_schedule_is_told_in_offers_and_asks_for_resources_back() {
    let mut s = running(|_| {});
    s.world.wait(Duration::from_secs(6));
    assert_eq!(s.world.offers(s.stream)[0].unavailability, None);
    assert_eq!(s.world.operator(schedule(&[(&[machine()], 5), (&[elsewhere()], 6)])), Reply::Ok);
    assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Maintenance { .. })));
    assert_eq!(s.world.take(s.stream, event::Type::Rescind).len(), 1);
    s.world.wait(Duration::from_secs(1));
    assert_eq!(s.world.offers(s.stream)[0].unavailability, Some(unavailability(5)));
    let inverse = s.world.inverse_offers(s.stream);
    assert_eq!(inverse.len(), 1);
    assert_eq!(inverse[0].agent_id, Some(s.agent.clone()));
    assert_eq!(
        (inverse[0].framework_id.clone(), inverse[0].unavailability),
        (s.id.clone(), unavailability(5))
    );
    assert!(inverse[0].resources.is_empty() && inverse[0].url.is_some());
    let status = s.world.core.snapshot().maintenance_status();
    assert_eq!(status.draining_machines.len(), 2);
    // It is asked once until it answers.
    s.world.wait(Duration::from_secs(30));
    assert!(s.world.inverse_offers(s.stream).is_empty());
    let wire = s.world.core.snapshot().get_frameworks();
    assert_eq!(wire.frameworks[0].inverse_offers, inverse);
    // A framework that uses nothing of it is not asked.
    let (other, _) = s.world.framework(info(|_| {}));
    s.world.wait(Duration::from_secs(5));
    assert!(s.world.inverse_offers(other).is_empty());
}

#[test]
fn answers_are_kept_for_operators_and_filters_last() {
    for accept in [true, false] {
        let mut s = running(|_| {});
        s.world.operator(schedule(&[(&[machine()], 5)]));
        s.world.wait(Duration::from_secs(1));
        let offer = s.world.inverse_offers(s.stream).remove(0);
        let reply = s.world.call(s.stream, &s.id.clone(), answer(accept, &offer.id, 30.0));
        assert_eq!(reply, Reply::Accepted);
        let status = s.world.core.snapshot().maintenance_status();
        let [answered] = &status.draining_machines[0].statuses[..] else { panic!("{status:?}") };
        let expected = if accept { Status::Accept } else { Status::Decline };
        assert_eq!((answered.status(), &answered.framework_id), (expected, &s.id));
        s.world.wait(Duration::from_secs(28));
        assert!(s.world.inverse_offers(s.stream).is_empty());
        s.world.wait(Duration::from_secs(3));
        let again = s.world.inverse_offers(s.stream).remove(0);
        assert_ne!(again.id, offer.id);
        // One that is no longer open is nothing.
        s.world.call(s.stream, &s.id.clone(), answer(!accept, &offer.id, 0.0));
        let status = s.world.core.snapshot().maintenance_status();
        assert_eq!(status.draining_machines[0].statuses[0].status(), expected);
        // REVIVE lifts the filter.
        s.world.call(s.stream, &s.id.clone(), answer(accept, &again.id, 1000.0));
        s.world.call(s.stream, &s.id.clone(), of_type(Type::Revive));
        s.world.wait(Duration::from_secs(2));
        assert_eq!(s.world.inverse_offers(s.stream).len(), 1);
    }
}

#[test]
fn inverse_offers_are_taken_back_when_they_mean_nothing_any_more() {
    let ways: [fn(&mut Running); 4] = [
        |s| s.world.step(Input::LinkClosed { link: s.link }),
        |s| assert_eq!(s.world.operator(OperatorCall::Deactivate(s.agent.clone())), Reply::Ok),
        |s| assert_eq!(s.world.operator(schedule(&[(&[machine()], 6)])), Reply::Ok),
        |s| assert_eq!(s.world.operator(schedule(&[])), Reply::Ok),
    ];
    for way in ways {
        let mut s = running(|_| {});
        s.world.operator(schedule(&[(&[machine()], 5)]));
        s.world.wait(Duration::from_secs(1));
        let offer = s.world.inverse_offers(s.stream).remove(0);
        way(&mut s);
        assert_eq!(s.world.rescinded(s.stream), [offer.id]);
        assert!(s.world.core.snapshot().frameworks[&s.id].inverse_offers.is_empty());
    }
    let mut s = running_with(Settings { offer_timeout: Some(Duration::from_secs(10)), ..settings() }, |_| {});
    s.world.operator(schedule(&[(&[machine()], 5)]));
    s.world.wait(Duration::from_secs(1));
    let offer = s.world.inverse_offers(s.stream).remove(0);
    s.world.wait(Duration::from_secs(11));
    assert_eq!(s.world.rescinded(s.stream), [offer.id], "not answered in time");
    assert_eq!(s.world.inverse_offers(s.stream).len(), 1, "and asked anew");
    // A framework that is away is asked when it is back.
    s.world.step(Input::StreamClosed { stream: s.stream });
    assert!(s.world.core.snapshot().frameworks[&s.id].inverse_offers.is_empty());
    let id = s.id.clone();
    let stream = s.world.subscribe(info(|i| i.id = Some(id)));
    s.world.wait(Duration::from_secs(2));
    assert_eq!(s.world.inverse_offers(stream).len(), 1);
}

#[test]
fn a_machine_that_is_down_has_no_agents() {
    let mut s = running(capabilities(true));
    let register = s.register();
    s.world.operator(schedule(&[(&[machine()], 5)]));
    s.world.replies.clear();
    assert_eq!(s.world.operator(OperatorCall::StartMaintenance(vec![machine()])), Reply::Ok);
    assert!(s.world.frames(s.link).iter().any(|frame| matches!(frame, Frame::Shutdown(_))));
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskLost, Reason::AgentRemoved));
    let snapshot = s.world.core.snapshot();
    assert!(snapshot.agents.is_empty());
    assert_eq!(snapshot.maintenance_status().down_machines, [machine()]);
    // Neither the same agent nor a new one comes in.
    for register in [register.clone(), draining_agent("a")] {
        let link = s.world.register(register);
        assert!(matches!(s.world.frames(link)[..], [Frame::Shutdown(_)]));
        assert!(s.world.closed_links.contains(&link));
    }
    let link = s.world.register(draining_agent("bb"));
    s.world.registered(link);
    // Down, it cannot be left out of the schedule, nor be taken down again.
    assert!(refused(&s.world.operator(schedule(&[]))));
    assert!(refused(&s.world.operator(OperatorCall::StartMaintenance(vec![machine()]))));
    assert_eq!(s.world.operator(schedule(&[(&[machine()], 8), (&[elsewhere()], 9)])), Reply::Ok);
    assert_eq!(s.world.core.snapshot().maintenance.mode(&Machine::new(&machine())), Mode::Down);

    assert_eq!(s.world.operator(OperatorCall::StopMaintenance(vec![machine()])), Reply::Ok);
    let snapshot = s.world.core.snapshot();
    assert_eq!(snapshot.maintenance.schedule.windows.len(), 1);
    assert_eq!(snapshot.maintenance_status().down_machines, []);
    let link = s.world.register(draining_agent("a"));
    s.world.registered(link);
}

#[test]
fn what_machines_cannot_do() {
    let mut s = running(|_| {});
    let start = |id| OperatorCall::StartMaintenance(vec![id]);
    let stop = |id| OperatorCall::StopMaintenance(vec![id]);
    let message = |reply: Reply| match reply {
        Reply::Refused { status: 400, message } => message,
        other => panic!("{other:?}"),
    };
    assert!(message(s.world.operator(start(elsewhere()))).contains("not part of a maintenance schedule"));
    assert!(message(s.world.operator(start(machine()))).contains("not in DRAINING mode"));
    assert!(message(s.world.operator(stop(elsewhere()))).contains("not part of a maintenance schedule"));
    s.world.operator(schedule(&[(&[machine()], 5)]));
    assert!(message(s.world.operator(stop(machine()))).contains("not in DOWN mode"));
    assert!(refused(&s.world.operator(OperatorCall::StartMaintenance(vec![]))));
    assert!(refused(&s.world.operator(OperatorCall::StartMaintenance(vec![machine(), machine()]))));
}

#[test]
fn maintenance_outlives_the_coordinator() {
    let mut s = running(|_| {});
    s.world.operator(schedule(&[(&[machine()], 5), (&[elsewhere()], 6)]));
    s.world.operator(OperatorCall::StartMaintenance(vec![elsewhere()]));
    let Some(RegistryChange::Maintenance { after, .. }) = s.world.persisted.last() else {
        panic!("{:?}", s.world.persisted)
    };
    let recovered = Recovered { maintenance: (**after).clone(), ..Recovered::default() };
    let mut world = World::with(settings(), recovered);
    let snapshot = world.core.snapshot();
    assert_eq!(snapshot.maintenance_status(), s.world.core.snapshot().maintenance_status());
    assert_eq!(snapshot.maintenance.schedule, s.world.core.snapshot().maintenance.schedule);
    let link = world.register(draining_agent("a"));
    let agent = world.registered(link).agent_id;
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = world.offers(stream).remove(0);
    assert_eq!(offer.unavailability, Some(unavailability(5)));
    world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![task("t", &agent, "cpus:1;mem:32")])]));
    world.wait(Duration::from_secs(2));
    assert_eq!(world.inverse_offers(stream).len(), 1);
}

#[test]
fn plans_are_written_one_after_the_other() {
    let mut s = running(|_| {});
    s.world.slow_registry = true;
    s.world.replies.clear();
    for (n, call) in [
        schedule(&[(&[machine()], 5)]),
        OperatorCall::StartMaintenance(vec![machine()]),
        schedule(&[]),
        OperatorCall::StopMaintenance(vec![machine()]),
    ]
    .into_iter()
    .enumerate()
    {
        s.world.step(Input::Operator { request: RequestId(n as u64), call });
    }
    assert!(s.world.replies.is_empty());
    s.world.write_registry();
    let done: Vec<bool> = s.world.replies.iter().map(|reply| *reply == Reply::Ok).collect();
    assert_eq!(done, [true, true, false, true]);
}
