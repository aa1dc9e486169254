//! The agent and its coordinator: how it makes itself known, and how both notice that the other is gone.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::{Refused, Register, Registered, Unregister, agent_frame};
use tepui_api::v1::agent_info::{Capability, capability};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentInfo, FrameworkId, FrameworkInfo};

use super::frameworks::Frameworks;
use super::input::{End, FrameworkFate, Now, Output, Write};
use super::kill::Timer;
use super::status::{Verdict, dropped};
use super::task::TaskKey;
use super::updates::Streams;
use super::{Core, WindUp};

/// Used when the coordinator names none: 5 pings, 15 seconds each, as in Mesos.
const PING_TIMEOUT: Duration = Duration::from_secs(75);

/// What this agent can do. Mesos' agent can also resize volumes, give feedback on operations and take resource
/// providers; here those are not implemented yet.
const CAPABILITIES: [capability::Type; 5] = [
    capability::Type::AgentDraining,
    capability::Type::HierarchicalRole,
    capability::Type::MultiRole,
    capability::Type::ReservationRefinement,
    capability::Type::TaskResourceLimits,
];

/// The state of the link to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Link {
    /// There is none.
    Down,
    /// `register` was sent.
    Registering,
    /// The coordinator took the agent in.
    Up {
        /// When it is taken for dead unless it says something.
        silent_at: Duration,
        /// How long it may be silent.
        timeout: Duration,
    },
}

/// What this agent can do, as the API says it.
#[must_use]
pub fn capabilities() -> Vec<Capability> {
    CAPABILITIES.iter().map(|c| Capability { r#type: Some(*c as i32) }).collect()
}

impl Core {
    pub(super) fn link_opened(&mut self, out: &mut Vec<Output>) {
        self.link = Link::Registering;
        self.exited.clear();
        self.streams.disconnect();
        let going_on = || self.frameworks.active.values().filter(|f| f.fate == FrameworkFate::Active);
        let register = Register {
            agent: (*self.agent).clone(),
            version: self.config.version.clone(),
            capabilities: capabilities(),
            instance: self.config.instance.clone(),
            address: self.config.address.to_string(),
            tasks: going_on().flat_map(|f| f.tasks.values()).map(|task| task.as_told()).collect(),
            executors: going_on()
                .flat_map(|framework| framework.executors.values())
                .map(|executor| (*executor.info).clone())
                .collect(),
            frameworks: going_on().map(|f| (*f.info).clone()).collect(),
            completed_tasks: (self.frameworks.active.values().chain(&self.frameworks.completed))
                .flat_map(|f| f.completed.iter().map(|task| (*task.shown).clone()))
                .collect(),
            checkpointed_resources: Vec::new(),
            attempt: Some(self.registrations),
        };
        self.registrations += 1;
        out.push(Output::Send(Box::new(agent_frame::Body::Register(register))));
    }

    pub(super) fn link_closed(&mut self) {
        if self.link != Link::Down {
            tracing::warn!("the link to the coordinator is closed");
        }
        self.link = Link::Down;
        self.streams.disconnect();
    }

    pub(super) fn registered(&mut self, now: Now, registered: Registered, out: &mut Vec<Output>) {
        match self.agent_id() {
            Some(known) if *known != registered.agent_id => {
                let message = format!(
                    "the coordinator registered this agent as {}, but it is {known}",
                    registered.agent_id
                );
                out.push(Output::End(End::Refused(message)));
                return;
            }
            Some(_) => {
                if std::mem::take(&mut self.reconfigured) {
                    self.store(vec![Write::Agent(self.agent.clone())], None, out);
                }
            }
            None => {
                let agent = AgentInfo { id: Some(registered.agent_id.clone()), ..(*self.agent).clone() };
                self.agent = Arc::new(agent);
                self.store(vec![Write::Agent(self.agent.clone())], None, out);
            }
        }
        tracing::info!(agent = %registered.agent_id, "registered with the coordinator");
        let timeout = Duration::try_from_secs_f64(registered.ping_timeout_seconds)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or(PING_TIMEOUT);
        let silent_at = now.monotonic + timeout;
        self.link = Link::Up { silent_at, timeout };
        self.timers.insert((silent_at, Timer::PingTimeout));
        for exited in std::mem::take(&mut self.exited) {
            out.push(Output::Send(Box::new(agent_frame::Body::ExecutorExited(exited))));
        }
        for sending in self.streams.connect(now.monotonic) {
            self.send(sending, out);
        }
        for unknown in registered.unknown_tasks {
            self.answer_unknown(now, &TaskKey::new(unknown.framework_id, unknown.task_id), out);
        }
    }

    /// The coordinator believes in a task that is not here.
    fn answer_unknown(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        if self.frameworks.task(key).is_some() {
            return;
        }
        let framework = self.find_framework(&key.framework);
        let state = dropped(&framework.unwrap_or_default());
        let message = "the agent was asked about a task that it does not have";
        self.update_unknown(now, key, Verdict::agent(state, Reason::Reconciliation, message), out);
    }

    fn find_framework(&self, id: &FrameworkId) -> Option<FrameworkInfo> {
        let active = self.frameworks.get(id).map(|f| (*f.info).clone());
        active.or_else(|| {
            let past = self.frameworks.completed.iter().find(|f| f.info.id.as_ref() == Some(id))?;
            Some((*past.info).clone())
        })
    }

    pub(super) fn refused(&mut self, now: Now, refused: Refused, out: &mut Vec<Output>) {
        if refused.register_anew {
            tracing::warn!(
                message = refused.message,
                "the coordinator does not know this agent: it begins anew"
            );
            self.wind_up(now, WindUp::RegisterAnew, out);
        } else {
            tracing::error!(message = refused.message, "the coordinator refuses this agent");
            out.push(Output::End(End::Refused(refused.message)));
        }
    }

    pub(super) fn ping(&mut self, now: Now, number: u64, out: &mut Vec<Output>) {
        if let Link::Up { silent_at, timeout } = &mut self.link {
            self.timers.remove(&(*silent_at, Timer::PingTimeout));
            *silent_at = now.monotonic + *timeout;
            self.timers.insert((*silent_at, Timer::PingTimeout));
        }
        out.push(Output::Send(Box::new(agent_frame::Body::Pong(number))));
    }

    pub(super) fn ping_timeout(&mut self, at: Duration, out: &mut Vec<Output>) {
        if let Link::Up { silent_at, timeout } = self.link
            && silent_at == at
        {
            tracing::warn!(?timeout, "the coordinator has been silent for too long: connecting anew");
            self.link_closed();
            out.push(Output::Reconnect);
        }
    }

    /// Ends all that runs; what follows happens when nothing is left.
    pub(super) fn wind_up(&mut self, now: Now, then: WindUp, out: &mut Vec<Output>) {
        if self.winding_up.is_none() || then != WindUp::RegisterAnew {
            self.winding_up = Some(then);
        }
        let ids: Vec<FrameworkId> = self.frameworks.active.keys().cloned().collect();
        for id in &ids {
            self.shutdown_framework(now, id, out);
        }
    }

    pub(super) fn finish_winding_up(&mut self, out: &mut Vec<Output>) {
        if self.winding_up.is_none() || !self.containers.is_empty() {
            return;
        }
        match self.winding_up.take() {
            Some(WindUp::End(end)) => {
                if matches!(self.link, Link::Up { .. }) {
                    out.push(Output::Send(Box::new(agent_frame::Body::Unregister(Unregister {}))));
                }
                self.store(vec![Write::Clear], None, out);
                out.push(Output::End(end));
            }
            Some(WindUp::CleanedUp) => out.push(Output::End(End::CleanedUp)),
            Some(WindUp::RegisterAnew) => {
                // Nothing of the agent that it was is the next one's, not even its history.
                self.agent = Arc::new(self.config.agent.clone());
                self.reconfigured = false;
                self.frameworks = Frameworks::default();
                self.streams = Streams::default();
                self.store(vec![Write::Clear], None, out);
                self.link_closed();
                out.push(Output::Reconnect);
            }
            None => {}
        }
    }
}
