//! The rules of checks, one by one, and what holds for any answers.

use super::*;
use proptest::prelude::*;
use tepui_api::v1::{Environment, Secret, environment};

const SECOND: Duration = Duration::from_secs(1);

fn health_check(grace: f64, consecutive_failures: u32) -> HealthCheck {
    HealthCheck {
        r#type: Some(health_check::Type::Tcp as i32),
        tcp: Some(health_check::TcpCheckInfo { port: 80, protocol: None }),
        delay_seconds: Some(2.0),
        interval_seconds: Some(3.0),
        timeout_seconds: Some(1.0),
        grace_period_seconds: Some(grace),
        consecutive_failures: Some(consecutive_failures),
        ..HealthCheck::default()
    }
}

fn http_check() -> CheckInfo {
    CheckInfo {
        r#type: Some(check_info::Type::Http as i32),
        http: Some(check_info::Http { port: 80, path: None }),
        ..CheckInfo::default()
    }
}

/// The findings of probes that begin when they are due, and are answered at once; the time after them.
fn run(check: &mut Check, answers: &[Outcome]) -> Vec<Option<Finding>> {
    let mut findings = Vec::new();
    for answer in answers {
        let now = check.due().unwrap();
        check.begin(Some(1));
        assert_eq!(check.due(), None, "one at a time");
        findings.push(check.answered(now, answer));
    }
    findings
}

const UP: Outcome = Outcome::Connected(true);
const DOWN: Outcome = Outcome::Connected(false);
const HEALTHY: Option<Finding> = Some(Finding::Health { healthy: true, kill: false });
const SICK: Option<Finding> = Some(Finding::Health { healthy: false, kill: false });
const DOOMED: Option<Finding> = Some(Finding::Health { healthy: false, kill: true });

#[test]
fn the_first_probe_waits_for_the_delay_and_each_next_for_the_interval_after_the_answer() {
    let mut check = Check::of_health_check(&health_check(0.0, 3), 10 * SECOND).unwrap();
    assert_eq!(check.due(), Some(12 * SECOND));
    let probe = check.begin(Some(7));
    assert_eq!((probe.pid, probe.timeout, probe.kind), (Some(7), Some(SECOND), Kind::HealthCheck));
    check.answered(20 * SECOND, &UP);
    assert_eq!(check.due(), Some(23 * SECOND));
}

#[test]
fn the_defaults_are_those_of_mesos() {
    let info = HealthCheck {
        delay_seconds: None,
        interval_seconds: None,
        timeout_seconds: None,
        grace_period_seconds: None,
        consecutive_failures: None,
        ..health_check(0.0, 0)
    };
    let mut check = Check::of_health_check(&info, Duration::ZERO).unwrap();
    assert_eq!(check.due(), Some(15 * SECOND));
    assert_eq!(check.begin(None).timeout, Some(20 * SECOND));
    check.answered(15 * SECOND, &UP);
    assert_eq!(check.due(), Some(25 * SECOND));
    assert_eq!(run(&mut check, &[DOWN, DOWN, DOWN]), [SICK, SICK, DOOMED]);
}

#[test]
fn a_health_check_tells_each_failure_and_the_first_success_after() {
    let mut check = Check::of_health_check(&health_check(0.0, 2), SECOND).unwrap();
    let findings = run(&mut check, &[UP, UP, DOWN, UP, UP, DOWN, DOWN]);
    assert_eq!(findings, [HEALTHY, None, SICK, HEALTHY, None, SICK, DOOMED]);
    assert!(check.has_failed());
}

#[test]
fn failures_do_not_count_in_the_grace_period_until_the_first_success() {
    // Due at 2, 5, 8 and 11 seconds after the start; the grace period ends at 8, which it includes.
    let mut check = Check::of_health_check(&health_check(8.0, 1), Duration::ZERO).unwrap();
    assert_eq!(run(&mut check, &[DOWN, DOWN, DOWN, DOWN]), [None, None, None, DOOMED]);
    let mut check = Check::of_health_check(&health_check(100.0, 1), Duration::ZERO).unwrap();
    assert_eq!(run(&mut check, &[DOWN, UP, DOWN]), [None, HEALTHY, DOOMED]);
}

#[test]
fn a_check_tells_when_its_result_changes() {
    let mut check = Check::of_check(&http_check(), Duration::ZERO).unwrap();
    let status = |code| Some(Finding::Status(result(code)));
    let slow = || Outcome::Failed("slow".into());
    let answers =
        [slow(), Outcome::Answered(200), Outcome::Answered(200), Outcome::Answered(202), slow(), slow()];
    let findings = run(&mut check, &answers);
    assert_eq!(findings, [None, status(Some(200)), None, status(Some(202)), status(None), None]);
}

#[test]
fn what_passes_a_health_check() {
    let table = [
        (Outcome::Exited(0), true),
        (Outcome::Exited(1), false),
        (Outcome::Answered(199), false),
        (Outcome::Answered(200), true),
        (Outcome::Answered(399), true),
        (Outcome::Answered(400), false),
        (UP, true),
        (DOWN, false),
        (Outcome::Failed("x".into()), false),
        (Outcome::of_wait_status(0), true),
        (Outcome::of_wait_status(9), false),
    ];
    for (outcome, passes) in table {
        assert_eq!(outcome.passes(), passes, "{outcome:?}");
    }
    assert_eq!(Outcome::of_wait_status(3 << 8), Outcome::Exited(3));
}

#[test]
fn urls_are_built_as_mesos_builds_them() {
    let url =
        |info: &HealthCheck| match Check::of_health_check(info, Duration::ZERO).unwrap().begin(None).target {
            Target::Http(url) => url,
            other => panic!("{other:?}"),
        };
    let http = health_check::HttpCheckInfo { port: 8080, ..Default::default() };
    let of = |http| HealthCheck {
        r#type: Some(health_check::Type::Http as i32),
        http: Some(http),
        ..HealthCheck::default()
    };
    assert_eq!(url(&of(http.clone())), "http://127.0.0.1:8080");
    let six = health_check::HttpCheckInfo {
        protocol: Some(Protocol::IPv6 as i32),
        scheme: Some("https".into()),
        path: Some("/a?b".into()),
        ..http
    };
    assert_eq!(url(&of(six)), "https://[::1]:8080/a?b");
}

#[test]
fn commands_run_as_their_task_and_without_secrets() {
    let command = CommandInfo {
        value: Some("true".into()),
        user: Some("nobody".into()),
        uris: vec![Default::default()],
        ..CommandInfo::default()
    };
    let of = |command| CheckInfo {
        r#type: Some(check_info::Type::Command as i32),
        command: Some(check_info::Command { command }),
        ..CheckInfo::default()
    };
    let mut check = Check::of_check(&of(command.clone()), Duration::ZERO).unwrap();
    let Target::Command(runs) = check.begin(None).target else { panic!() };
    assert_eq!((runs.value.as_deref(), runs.user.clone(), runs.uris.len()), (Some("true"), None, 0));
    let secret = environment::Variable {
        name: "TOKEN".into(),
        r#type: Some(VariableType::Secret as i32),
        secret: Some(Secret::default()),
        ..Default::default()
    };
    let command = CommandInfo { environment: Some(Environment { variables: vec![secret] }), ..command };
    assert!(Check::of_check(&of(command), Duration::ZERO).unwrap_err().contains("TOKEN"));
    assert!(Check::of_check(&CheckInfo::default(), Duration::ZERO).is_err());
    assert!(Check::of_health_check(&HealthCheck::default(), Duration::ZERO).is_err());
}

#[test]
fn odd_times_are_times() {
    for (given, time) in [
        (f64::NAN, Duration::ZERO),
        (-1.0, Duration::ZERO),
        (0.5, SECOND / 2),
        (f64::INFINITY, LONGEST),
        (1e300, LONGEST),
    ] {
        assert_eq!(seconds(given), time, "{given}");
    }
    assert_eq!(timeout(0.0), None);
    let info =
        HealthCheck { interval_seconds: Some(0.0), timeout_seconds: Some(0.0), ..health_check(0.0, 3) };
    let mut check = Check::of_health_check(&info, Duration::ZERO).unwrap();
    assert_eq!(check.begin(None).timeout, None);
    check.answered(SECOND, &UP);
    assert_eq!(check.due(), Some(SECOND + SHORTEST_INTERVAL));
}

fn result(code: Option<u32>) -> CheckStatusInfo {
    CheckStatusInfo {
        r#type: Some(check_info::Type::Http as i32),
        http: Some(Http { status_code: code }),
        ..CheckStatusInfo::default()
    }
}

#[test]
fn a_health_check_goes_on_where_an_earlier_process_left_it() {
    let now = 1000 * SECOND;
    let resumed = |ran: Duration, passed, failures| {
        let mut check = Check::of_health_check(&health_check(10.0, 3), now).unwrap();
        check.resume(now, ran, 0.5, None, Health { passed, failures });
        check
    };
    let check = resumed(SECOND, false, 0);
    assert_eq!(check.due(), Some(now + SECOND), "what is left of its delay");
    let mut check = resumed(4 * SECOND, false, 0);
    assert_eq!(check.due(), Some(now + 3 * SECOND / 2), "half an interval, as it was told");
    assert_eq!(run(&mut check, &[DOWN, DOWN, DOWN]), [None, None, SICK], "what is left of its grace period");
    assert_eq!(run(&mut resumed(11 * SECOND, false, 0), &[DOWN]), [SICK], "nothing is left of it");
    assert_eq!(run(&mut resumed(4 * SECOND, true, 0), &[UP, DOWN]), [None, SICK], "it has passed before");
    let mut check = resumed(20 * SECOND, true, 2);
    assert!(!check.has_failed());
    assert_eq!(run(&mut check, &[DOWN]), [DOOMED], "two failures before, the third now");
    assert!(check.has_failed() && resumed(20 * SECOND, false, 3).has_failed());
}

#[test]
fn a_check_goes_on_where_an_earlier_process_left_it() {
    let mut check = Check::of_check(&http_check(), SECOND).unwrap();
    check.resume(SECOND, 100 * SECOND, 0.0, Some(result(Some(200))), Health::default());
    assert_eq!(check.due(), Some(SECOND));
    assert_eq!(run(&mut check, &[Outcome::Answered(200)]), [None], "nothing has changed");
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(UP),
        Just(DOWN),
        (0..3).prop_map(Outcome::Exited),
        (199..500_u16).prop_map(Outcome::Answered),
        Just(Outcome::Failed("x".into())),
    ]
}

proptest! {
    #[test]
    fn health_is_told_as_a_framework_would_reckon_it(
        answers in prop::collection::vec(outcome(), 1..40), allowed in 0..5_u32, grace in 0..60_u32,
    ) {
        let mut check = Check::of_health_check(&health_check(f64::from(grace), allowed), Duration::ZERO).unwrap();
        let (mut passed, mut row) = (false, 0);
        for answer in &answers {
            let now = check.due().unwrap();
            check.begin(None);
            let finding = check.answered(now, answer);
            prop_assert_eq!(check.due(), Some(now + 3 * SECOND));
            if answer.passes() {
                prop_assert_eq!(finding, if !passed || row > 0 { HEALTHY } else { None });
                (passed, row) = (true, 0);
            } else if !passed && grace > 0 && now <= SECOND * grace {
                prop_assert_eq!(finding, None);
            } else {
                row += 1;
                prop_assert_eq!(finding, Some(Finding::Health { healthy: false, kill: row >= allowed }));
            }
        }
    }

    #[test]
    fn a_result_is_told_exactly_when_it_is_another(answers in prop::collection::vec(outcome(), 1..40)) {
        let mut check = Check::of_check(&http_check(), Duration::ZERO).unwrap();
        let mut last = unchecked(&http_check());
        for answer in &answers {
            let finding = run(&mut check, std::slice::from_ref(answer))[0];
            let result = answer.result(last);
            prop_assert_eq!(finding, (result != last).then_some(Finding::Status(result)));
            last = result;
        }
    }

    /// Killed between any two answers, the next process of the agent goes on as if nothing had happened.
    #[test]
    fn what_is_written_down_is_all_that_must_survive(
        answers in prop::collection::vec(outcome(), 1..30), at in 0..30_usize, grace in 0..60_u32,
    ) {
        let info = health_check(f64::from(grace), u32::MAX);
        let mut whole = Check::of_health_check(&info, Duration::ZERO).unwrap();
        let mut parts = whole.clone();
        let mut disk = Health::default();
        for (number, answer) in answers.iter().enumerate() {
            let now = whole.due().unwrap();
            if number == at {
                parts = Check::of_health_check(&info, now).unwrap();
                parts.resume(now, now, 0.0, None, disk);
            }
            whole.begin(None);
            parts.begin(None);
            let (one, other) = (whole.answered(now, answer), parts.answered(now, answer));
            prop_assert_eq!(one, other);
            if one.is_some() {
                disk = whole.health();
            }
        }
    }
}
