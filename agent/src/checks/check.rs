//! One check of one task: when to ask, and what the answers mean, as Mesos' checker library has it. Pure: the time and the answers
//! are passed in.
//!
//! A check's first probe comes `delay_seconds` after the task began to run, each next one `interval_seconds` after the last one's answer.
//! A check is told of when its result changes. A health check is told of at each failure, at the first success, and at the
//! first success after failures; failures before the first success do not count within `grace_period_seconds` of the task's start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tepui_api::v1::check_status_info::{Command, Http, Tcp};
use tepui_api::v1::environment::variable::Type as VariableType;
use tepui_api::v1::{
    CheckInfo, CheckStatusInfo, CommandInfo, HealthCheck, check_info, health_check, network_info::Protocol,
};

/// Waits are not longer than this, a hundred years: clocks end somewhere.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// Waits between probes are not shorter than this: an interval of nought would have the agent do nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Which of a task's two checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `TaskInfo.check`.
    Check,
    /// `TaskInfo.health_check`.
    HealthCheck,
}

/// What a task is asked, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// For which check.
    pub kind: Kind,
    /// What to do.
    pub target: Target,
    /// How long that may take.
    pub timeout: Option<Duration>,
    /// The first process of the container, as the host sees it: whose network to ask in.
    pub pid: Option<u32>,
}

/// What is done to find out.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Run this in the container.
    Command(Box<CommandInfo>),
    /// Send GET to this URL.
    Http(String),
    /// Connect.
    Tcp {
        /// The container's loopback.
        address: IpAddr,
        /// As the framework named it; not every number is one.
        port: u32,
    },
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The command exited with this code.
    Exited(i32),
    /// An HTTP response had this status.
    Answered(u16),
    /// Whether there was a connection.
    Connected(bool),
    /// There is no result, because of this; it took too long, for example.
    Failed(String),
}

/// What an outcome means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Finding {
    /// The check has a new result.
    Status(CheckStatusInfo),
    /// The health check says so.
    Health {
        /// Whether it passed.
        healthy: bool,
        /// Whether it has failed too often.
        kill: bool,
    },
}

/// What must be known of a health check to go on with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// It has passed before.
    pub passed: bool,
    /// Failures in a row.
    pub failures: u32,
}

/// A check of a task that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    target: Target,
    interval: Duration,
    timeout: Option<Duration>,
    /// When to ask next, on the monotonic clock; `None` while an answer is awaited.
    next: Option<Duration>,
    judge: Judge,
}

/// What is remembered of earlier answers.
#[derive(Debug, Clone, PartialEq)]
enum Judge {
    Check {
        /// The last result.
        last: CheckStatusInfo,
    },
    HealthCheck {
        health: Health,
        /// Until when failures do not count before the first success; `None` when they always do.
        grace_until: Option<Duration>,
        /// How many of them are too many.
        allowed: u32,
    },
}

// === impl Check ===

impl Check {
    /// A check of a task that began to run now.
    ///
    /// # Errors
    /// When the check asks for what no agent can do, in words.
    pub fn of_check(info: &CheckInfo, now: Duration) -> Result<Self, String> {
        let target = match info.r#type() {
            check_info::Type::Command => {
                Target::command(info.command.as_ref().map(|command| &command.command))?
            }
            check_info::Type::Http => {
                let http = info.http.as_ref().ok_or("a check by HTTP has no 'http'")?;
                Target::http(None, None, http.port, http.path.as_deref())
            }
            check_info::Type::Tcp => {
                let tcp = info.tcp.as_ref().ok_or("a check by TCP has no 'tcp'")?;
                Target::Tcp { address: loopback(None), port: tcp.port }
            }
            check_info::Type::Unknown => return Err("a check has no type that is known".to_owned()),
        };
        Ok(Self {
            target,
            interval: seconds(info.interval_seconds()).max(SHORTEST_INTERVAL),
            timeout: timeout(info.timeout_seconds()),
            next: Some(now.saturating_add(seconds(info.delay_seconds()))),
            judge: Judge::Check { last: unchecked(info) },
        })
    }

    /// A health check of a task that began to run now.
    ///
    /// # Errors
    /// When it asks for what no agent can do, in words.
    pub fn of_health_check(info: &HealthCheck, now: Duration) -> Result<Self, String> {
        let target = match info.r#type() {
            health_check::Type::Command => Target::command(info.command.as_ref())?,
            health_check::Type::Http => {
                let http = info.http.as_ref().ok_or("a health check by HTTP has no 'http'")?;
                Target::http(http.scheme.as_deref(), Some(http.protocol()), http.port, http.path.as_deref())
            }
            health_check::Type::Tcp => {
                let tcp = info.tcp.as_ref().ok_or("a health check by TCP has no 'tcp'")?;
                Target::Tcp { address: loopback(Some(tcp.protocol())), port: tcp.port }
            }
            health_check::Type::Unknown => {
                return Err("a health check has no type that is known".to_owned());
            }
        };
        let grace = seconds(info.grace_period_seconds());
        Ok(Self {
            target,
            interval: seconds(info.interval_seconds()).max(SHORTEST_INTERVAL),
            timeout: timeout(info.timeout_seconds()),
            next: Some(now.saturating_add(seconds(info.delay_seconds()))),
            judge: Judge::HealthCheck {
                health: Health::default(),
                grace_until: (!grace.is_zero()).then(|| now.saturating_add(grace)),
                allowed: info.consecutive_failures(),
            },
        })
    }

    /// Takes up a check, made just now, of a task that has run for a while under an earlier process of the agent. What is left of
    /// its delay and grace period is waited for; after them, the first probe comes within an interval, at the given part of it, so
    /// that not all tasks of an agent are asked at once.
    pub fn resume(
        &mut self,
        now: Duration,
        ran: Duration,
        part: f64,
        told: Option<CheckStatusInfo>,
        known: Health,
    ) {
        if let Some(next) = &mut self.next {
            let left = (*next - now).saturating_sub(ran);
            *next = now + if left.is_zero() { self.interval.mul_f64(part.clamp(0.0, 1.0)) } else { left };
        }
        match &mut self.judge {
            Judge::Check { last } => *last = told.unwrap_or(*last),
            Judge::HealthCheck { health, grace_until, .. } => {
                *health = known;
                *grace_until =
                    grace_until.and_then(|until| until.checked_sub(ran)).filter(|until| *until >= now);
            }
        }
    }

    /// When to ask next; `None` while an answer is awaited.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.next
    }

    /// What to ask now. Nothing is due until the answer is given to [`Check::answered`].
    pub fn begin(&mut self, pid: Option<u32>) -> Probe {
        self.next = None;
        Probe { kind: self.kind(), target: self.target.clone(), timeout: self.timeout, pid }
    }

    /// What an answer means, if anybody is to be told of it.
    pub fn answered(&mut self, now: Duration, outcome: &Outcome) -> Option<Finding> {
        self.next = Some(now.saturating_add(self.interval));
        match &mut self.judge {
            Judge::Check { last } => {
                let result = outcome.result(*last);
                let changed = result != *last;
                *last = result;
                changed.then_some(Finding::Status(result))
            }
            Judge::HealthCheck { health, grace_until, allowed } => {
                if outcome.passes() {
                    let told = !health.passed || health.failures > 0;
                    *health = Health { passed: true, failures: 0 };
                    return told.then_some(Finding::Health { healthy: true, kill: false });
                }
                if !health.passed && grace_until.is_some_and(|until| now <= until) {
                    return None;
                }
                health.failures = health.failures.saturating_add(1);
                Some(Finding::Health { healthy: false, kill: health.failures >= *allowed })
            }
        }
    }

    /// What must be on disk together with what is told, for [`Check::resume`]; a default for what is no health check.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.judge {
            Judge::HealthCheck { health, .. } => health,
            Judge::Check { .. } => Health::default(),
        }
    }

    /// Whether it has failed too often already: an earlier process of the agent was killed between saying so and killing the task.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.judge, Judge::HealthCheck { health: Health { failures, .. }, allowed, .. } if failures > 0 && failures >= allowed)
    }

    fn kind(&self) -> Kind {
        match self.judge {
            Judge::Check { .. } => Kind::Check,
            Judge::HealthCheck { .. } => Kind::HealthCheck,
        }
    }
}

// === impl Target ===

impl Target {
    /// Mesos passes over a check's `user` and `uris`: it runs as the task does, with what the task has.
    fn command(command: Option<&CommandInfo>) -> Result<Self, String> {
        let command = command.ok_or("a check by command has no command")?;
        let mut variables = command.environment.iter().flat_map(|environment| &environment.variables);
        if let Some(secret) = variables.find(|variable| variable.r#type() == VariableType::Secret) {
            return Err(format!(
                "the environment variable '{}' of a check is a secret, which is not implemented: put it into the task's environment, where its checks find it",
                secret.name
            ));
        }
        Ok(Self::Command(Box::new(CommandInfo { user: None, uris: Vec::new(), ..command.clone() })))
    }

    fn http(scheme: Option<&str>, protocol: Option<Protocol>, port: u32, path: Option<&str>) -> Self {
        let host = match loopback(protocol) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        Self::Http(format!("{}://{host}:{port}{}", scheme.unwrap_or("http"), path.unwrap_or_default()))
    }
}

/// Not "localhost": the hosts file of an image may not have it.
fn loopback(protocol: Option<Protocol>) -> IpAddr {
    match protocol {
        Some(Protocol::IPv6) => Ipv6Addr::LOCALHOST.into(),
        Some(Protocol::IPv4) | None => Ipv4Addr::LOCALHOST.into(),
    }
}

// === impl Outcome ===

impl Outcome {
    /// What became of a command, by its wait(2) status.
    #[must_use]
    pub fn of_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited((status >> 8) & 0xff),
            signal => Self::Failed(format!("the command was ended by signal {signal}")),
        }
    }

    /// Whether a health check passes with it.
    fn passes(&self) -> bool {
        match self {
            Self::Exited(code) => *code == 0,
            Self::Answered(status) => (200..400).contains(status),
            Self::Connected(connected) => *connected,
            Self::Failed(_) => false,
        }
    }

    /// What a framework is told of it; an empty result of the same kind when there is none.
    fn result(&self, last: CheckStatusInfo) -> CheckStatusInfo {
        let mut result = CheckStatusInfo {
            r#type: last.r#type,
            command: last.command.map(|_| Command::default()),
            http: last.http.map(|_| Http::default()),
            tcp: last.tcp.map(|_| Tcp::default()),
        };
        match self {
            Self::Exited(code) => result.command = Some(Command { exit_code: Some(*code) }),
            Self::Answered(status) => {
                result.http = Some(Http { status_code: Some(u32::from(*status)) });
            }
            Self::Connected(connected) => result.tcp = Some(Tcp { succeeded: Some(*connected) }),
            Self::Failed(_) => {}
        }
        result
    }
}

/// The result of a check that has none yet: it names its kind, so that each status of its task does.
#[must_use]
pub fn unchecked(check: &CheckInfo) -> CheckStatusInfo {
    let mut status = CheckStatusInfo { r#type: check.r#type, ..CheckStatusInfo::default() };
    match check.r#type() {
        check_info::Type::Command => status.command = Some(Command::default()),
        check_info::Type::Http => status.http = Some(Http::default()),
        check_info::Type::Tcp => status.tcp = Some(Tcp::default()),
        check_info::Type::Unknown => {}
    }
    status
}

/// A time that a framework gave. What is no time is none; what is too long for a clock is very long.
fn seconds(value: f64) -> Duration {
    match Duration::try_from_secs_f64(value) {
        Ok(time) => time.min(LONGEST),
        Err(_) if value > 0.0 => LONGEST,
        Err(_) => Duration::ZERO,
    }
}

/// None at all when it is 0.
fn timeout(value: f64) -> Option<Duration> {
    Some(seconds(value)).filter(|time| !time.is_zero())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
