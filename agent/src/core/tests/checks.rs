//! What checks find, and what follows for their tasks.

use super::*;
use crate::checks::check::{Kind, Outcome, Probe};
use TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskKilling, TaskRunning, TaskStarting};
use tepui_api::v1::check_status_info::Http;
use tepui_api::v1::{CheckStatusInfo, check_info, health_check};

/// A check by HTTP after one second and then each second.
fn check() -> CheckInfo {
    CheckInfo {
        r#type: Some(check_info::Type::Http as i32),
        http: Some(check_info::Http { port: 80, path: None }),
        delay_seconds: Some(1.0),
        interval_seconds: Some(1.0),
        ..CheckInfo::default()
    }
}

/// A health check by TCP after one second and then each second, that may fail once.
fn health_check() -> HealthCheck {
    HealthCheck {
        r#type: Some(health_check::Type::Tcp as i32),
        tcp: Some(health_check::TcpCheckInfo { port: 80, protocol: None }),
        delay_seconds: Some(1.0),
        interval_seconds: Some(1.0),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        ..HealthCheck::default()
    }
}

fn checked() -> TaskInfo {
    TaskInfo { check: Some(check()), health_check: Some(health_check()), ..task("t") }
}

fn healthy_if() -> TaskInfo {
    TaskInfo { health_check: Some(health_check()), ..task("t") }
}

const UP: Outcome = Outcome::Connected(true);
const DOWN: Outcome = Outcome::Connected(false);

impl World {
    /// The probes that are wanted.
    fn probes(&mut self) -> Vec<Probe> {
        let (probes, others) = std::mem::take(&mut self.commands)
            .into_iter()
            .partition(|(_, command)| matches!(command, ContainerCommand::Probe(_)));
        self.commands = others;
        let probe = |(_, command)| match command {
            ContainerCommand::Probe(probe) => *probe,
            _ => panic!(),
        };
        Vec::into_iter(probes).map(probe).collect()
    }

    /// A second passes, after which a check is asked, and answered.
    fn answer(&mut self, container: &ContainerId, kind: Kind, outcome: Outcome) {
        self.wait(SECOND);
        assert!(self.probes().iter().any(|probe| probe.kind == kind), "nobody asks");
        self.container(container, ContainerEvent::Probed(kind, outcome));
        self.stored();
    }

    fn last(&self) -> &TaskStatus {
        self.updates.last().unwrap()
    }
}

fn http(code: Option<u32>) -> Option<CheckStatusInfo> {
    Some(CheckStatusInfo {
        r#type: Some(check_info::Type::Http as i32),
        http: Some(Http { status_code: code }),
        ..CheckStatusInfo::default()
    })
}

#[test]
fn every_status_has_the_check_s_and_running_ones_its_result_and_the_last_health() {
    let mut w = World::new();
    let container = w.run_with(framework(&[capability::Type::TaskKillingState]), checked());
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    w.acknowledge();
    w.container(&container, ContainerEvent::Started { pid: 42, networks: vec![] });
    w.stored();
    w.acknowledge();
    for status in &w.updates {
        assert_eq!((status.check_status, status.healthy, status.reason), (http(None), None, None));
    }
    w.wait(SECOND);
    let probes = w.probes();
    assert_eq!(
        probes.iter().map(|p| (p.kind, p.pid)).collect::<Vec<_>>(),
        [(Kind::Check, Some(42)), (Kind::HealthCheck, Some(42))]
    );
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Answered(200)));
    w.stored();
    assert_eq!(w.last().reason(), Reason::TaskCheckStatusUpdated);
    assert_eq!(
        (w.last().source(), w.last().check_status, w.last().healthy),
        (Source::Executor, http(Some(200)), None)
    );
    assert!(w.last().container_status.is_some());
    w.acknowledge();
    w.container(&container, ContainerEvent::Probed(Kind::HealthCheck, UP));
    w.stored();
    assert_eq!(w.last().reason(), Reason::TaskHealthCheckStatusUpdated);
    assert_eq!((w.last().check_status, w.last().healthy), (http(Some(200)), Some(true)));
    w.acknowledge();
    let shown = w.core.snapshot().frameworks.tasks().next().unwrap().shown.clone();
    let last = shown.statuses.last().unwrap();
    assert_eq!((shown.statuses.len(), last.healthy, last.check_status), (2, Some(true), http(Some(200))));
    w.answer(&container, Kind::Check, Outcome::Failed("slow".into()));
    assert_eq!((w.last().check_status, w.last().healthy), (http(None), Some(true)));
    w.acknowledge();
    w.kill("t");
    w.stored();
    w.acknowledge();
    w.exited(&container, 15);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(
        w.states(),
        [TaskStarting, TaskRunning, TaskRunning, TaskRunning, TaskRunning, TaskKilling, TaskKilled]
    );
    for status in &w.updates[5..] {
        assert_eq!((status.check_status, status.healthy, status.reason), (http(None), None, None));
    }
}

#[test]
fn what_is_no_news_is_not_told() {
    let mut w = World::new();
    let container = w.running(framework(&[]), checked());
    w.answer(&container, Kind::HealthCheck, UP);
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Failed("slow".into())));
    assert_eq!(w.updates.len(), 1);
    w.acknowledge();
    w.answer(&container, Kind::HealthCheck, UP);
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Failed("slow".into())));
    // An answer nobody waits for.
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Answered(200)));
    w.stored();
    assert_eq!(w.updates.len(), 1);
}

#[test]
fn a_task_that_fails_its_health_check_too_often_is_killed_and_its_end_says_so() {
    for (capabilities, between) in
        [(&[][..], vec![]), (&[capability::Type::TaskKillingState][..], vec![TaskKilling])]
    {
        let mut w = World::new();
        let policy = KillPolicy { grace_period: Some(DurationInfo { nanoseconds: 1_000_000_000 }) };
        let info = TaskInfo { kill_policy: Some(policy), ..healthy_if() };
        let container = w.running(framework(capabilities), info);
        w.answer(&container, Kind::HealthCheck, DOWN);
        assert_eq!((w.last().healthy, w.signals()), (Some(false), vec![]));
        w.acknowledge();
        w.answer(&container, Kind::HealthCheck, DOWN);
        w.acknowledge();
        assert_eq!(w.signals(), [15]);
        w.wait(SECOND);
        assert_eq!(w.signals(), [15, 9], "with the task's own grace period");
        assert_eq!(w.probes(), [], "nobody asks a task that is being killed");
        if !between.is_empty() {
            w.acknowledge();
        }
        w.exited(&container, 9);
        w.container(&container, ContainerEvent::Destroyed);
        w.stored();
        let all = [vec![TaskRunning, TaskRunning], between, vec![TaskKilled]].concat();
        assert_eq!(w.states(), all);
        assert_eq!(w.updates[..2].iter().map(|u| u.healthy()).collect::<Vec<_>>(), [false, false]);
        let last = w.last();
        assert_eq!((last.healthy, last.reason, last.source()), (Some(false), None, Source::Executor));
        assert_eq!(last.message.as_deref(), Some("Command terminated with signal Killed"));
    }
}

#[test]
fn a_task_that_ends_by_itself_says_nothing_of_its_health() {
    let mut w = World::new();
    let container = w.running(framework(&[]), healthy_if());
    w.answer(&container, Kind::HealthCheck, DOWN);
    w.acknowledge();
    w.exited(&container, 0);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!((w.last().state(), w.last().healthy), (TaskFinished, None));
    w.wait(10 * SECOND);
    assert_eq!(w.probes(), []);
}

#[test]
fn an_answer_that_comes_after_a_kill_is_passed_over() {
    let mut w = World::new();
    let container = w.running(framework(&[]), checked());
    w.wait(SECOND);
    assert_eq!(w.probes().len(), 2);
    w.kill("t");
    w.container(&container, ContainerEvent::Probed(Kind::HealthCheck, DOWN));
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Answered(200)));
    w.stored();
    assert_eq!(w.states(), []);
}

#[test]
fn a_limit_that_is_exceeded_is_the_reason_even_of_a_sick_task_s_end() {
    let mut w = World::new();
    let container = w.running(framework(&[]), healthy_if());
    for _ in 0..2 {
        w.answer(&container, Kind::HealthCheck, DOWN);
        w.acknowledge();
    }
    let limitation = Limitation {
        reason: Reason::ContainerLimitationMemory,
        message: "too much".into(),
        resources: vec![],
    };
    w.container(&container, ContainerEvent::Exited { status: Some(9), limitation: Some(limitation) });
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!((w.last().state(), w.last().reason()), (TaskFailed, Reason::ContainerLimitationMemory));
}

#[test]
fn after_a_restart_checks_go_on_and_only_news_is_told() {
    let mut w = World::new();
    let container = w.running(framework(&[]), checked());
    w.answer(&container, Kind::HealthCheck, UP);
    w.acknowledge();
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Answered(200)));
    w.stored();
    w.acknowledge();
    w.answer(&container, Kind::HealthCheck, DOWN);
    w.acknowledge();
    let mut w = w.restart(&[(&container, Found::Running { pid: 43, networks: vec![] })]);
    w.register();
    let shown = w.core.snapshot().frameworks.tasks().next().unwrap().shown.clone();
    assert_eq!(shown.statuses.last().unwrap().healthy, Some(false));
    w.wait(SECOND);
    let probes = w.probes();
    assert_eq!(probes.len(), 2);
    assert!(probes.iter().all(|probe| probe.pid == Some(43)));
    w.container(&container, ContainerEvent::Probed(Kind::Check, Outcome::Answered(200)));
    assert_eq!(w.states(), [], "that was known");
    w.container(&container, ContainerEvent::Probed(Kind::HealthCheck, DOWN));
    w.stored();
    assert_eq!((w.last().healthy, w.last().check_status), (Some(false), http(Some(200))));
    assert_eq!(w.signals(), [15], "the second failure in a row");
}

#[test]
fn a_kill_for_bad_health_goes_on_after_a_restart() {
    let mut w = World::new();
    let container = w.running(framework(&[]), healthy_if());
    for _ in 0..2 {
        w.answer(&container, Kind::HealthCheck, DOWN);
        w.acknowledge();
    }
    let mut w = w.restart(&[(&container, Found::Running { pid: 42, networks: vec![] })]);
    assert_eq!(w.signals(), [15]);
    w.register();
    w.exited(&container, 15);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!((w.states(), w.last().healthy), (vec![TaskKilled], Some(false)));
}

#[test]
fn a_kill_that_was_not_written_down_is_made_up_for() {
    let mut w = World::new();
    let container = w.running(framework(&[]), healthy_if());
    for _ in 0..2 {
        w.answer(&container, Kind::HealthCheck, DOWN);
        w.acknowledge();
    }
    w.disk.retain(|write| !matches!(write, Write::Task(task) if task.kill.is_some()));
    let w = w.restart(&[(&container, Found::Running { pid: 42, networks: vec![] })]);
    assert_eq!(w.signals(), [15]);
}

#[test]
fn checks_that_cannot_be_made_are_refused_with_words() {
    let mut w = World::new();
    let bad = TaskInfo { check: Some(CheckInfo::default()), ..task("t") };
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: bad, launch_executor: None }));
    w.stored();
    assert_eq!((w.last().state(), w.last().reason()), (TaskState::TaskError, Reason::TaskInvalid));
    assert!(w.last().message.as_deref().unwrap().contains("no type"));
}
