//! Frames of agents, and how new agents join.
//!
//! The first frame on a link is `Register`. Without an id the agent is new: it is written into the
//! registry first. A process that registers twice, because the answer was lost, is told from another by its
//! `instance`; another process at the same address takes the place of the agent that was there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tepui_api::link::agent_frame::Body as AgentFrame;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::link::{KnownTask, Refused, Register, Registered, Shutdown, TotalResources};
use tepui_api::resources::Resources;
use tepui_api::v1::agent_info::capability::Type as Capability;
use tepui_api::v1::machine_info::Mode;
use tepui_api::v1::{AgentId, AgentInfo};

use super::drain::Deactivation;
use super::io::RegistryChange;
use super::maintenance::machine;
use super::registry::Pending;
use super::validate::agent as rules;
use super::{Agent, Core, LinkId, Output, events};
use crate::allocator::AgentTraits;

/// An agent that registers, and over what.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) link: LinkId,
    pub(super) register: Register,
}

/// Agents on their way in.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Links over which an agent has registered, and that have not closed.
    pub(super) open: HashSet<LinkId>,
    /// Registrations that came while the registry was writing something else of the agent.
    pub(super) waiting: HashMap<AgentId, Arrival>,
    /// New agents at these addresses that the registry is writing.
    admitting: HashMap<String, Admitting>,
    /// Processes that another has replaced while they were connected: if they come again there are
    /// two on one work directory.
    pub(super) displaced: HashMap<AgentId, Vec<String>>,
}

#[derive(Debug)]
struct Admitting {
    instance: String,
    /// The newest link of that process.
    link: LinkId,
    /// Another process that came to the address meanwhile.
    next: Option<Arrival>,
}

impl Core {
    pub(super) fn agent_frame(&mut self, link: LinkId, frame: AgentFrame) {
        if let AgentFrame::Register(register) = frame {
            return self.register(link, register);
        }
        let Some(agent) = self.links.get(&link).cloned() else {
            tracing::debug!(?link, "ignored a frame of an agent that is not registered");
            return;
        };
        match frame {
            AgentFrame::Register(_) => {}
            AgentFrame::Update(update) => self.status_update(&agent, update),
            AgentFrame::Message(message) => self.executor_message(&agent, message),
            AgentFrame::ExecutorExited(exited) => self.executor_exited(&agent, exited),
            AgentFrame::Pong(number) => self.pong(&agent, number),
            AgentFrame::Unregister(_) => self.unregister(&agent),
            AgentFrame::TotalResources(total) => self.total_resources(&agent, &total),
        }
    }

    fn register(&mut self, link: LinkId, register: Register) {
        if self.links.contains_key(&link) || !self.joining.open.insert(link) {
            tracing::warn!(?link, "ignored an agent's second registration on one link");
            return;
        }
        let arrival = Arrival { link, register };
        if let Err(error) = rules::validate(&arrival.register) {
            return self.turn_away(link, error.to_string(), false);
        }
        if self.turn_away_down(link, &arrival.register) {
            return;
        }
        match &arrival.register.agent.id {
            Some(id) if self.turn_away_gone(link, id) => {}
            Some(_) => {
                self.state.counters.messages_reregister_slave += 1;
                self.rejoin(arrival);
            }
            None => {
                self.state.counters.messages_register_slave += 1;
                self.join(arrival);
            }
        }
    }

    fn join(&mut self, arrival: Arrival) {
        let address = arrival.register.address.clone();
        if let Some(admitting) = self.joining.admitting.get_mut(&address) {
            if admitting.instance != arrival.register.instance {
                admitting.next = Some(arrival);
                return;
            }
            let old = std::mem::replace(&mut admitting.link, arrival.link);
            return self.close_link(old);
        }
        let known = self.addresses.get(&address).and_then(|id| self.agent(id));
        if let Some(agent) = known {
            let id = agent.id.clone();
            if agent.instance == arrival.register.instance {
                return self.answer_again(&id, arrival);
            }
            self.state.counters.slave_removals_reason_registered += 1;
            self.remove_agent(&id, "a new agent registered at the same address");
        }
        let id = self.new_agent_id();
        let Arrival { link, mut register } = arrival;
        register.agent.id = Some(id.clone());
        let admitting = Admitting { instance: register.instance.clone(), link, next: None };
        self.joining.admitting.insert(address, admitting);
        let change = RegistryChange::Admit(register.agent.clone());
        self.persist(Some(&id), change, Pending::Admit(Box::new(Arrival { link, register })));
    }

    /// A process that did not hear that it was admitted. Whatever was launched on it meanwhile went the way of that answer,
    /// and so the agent is asked about it.
    fn answer_again(&mut self, id: &AgentId, arrival: Arrival) {
        let Arrival { link, register } = arrival;
        if self.agent(id).and_then(|agent| agent.link).is_some_and(|held| held > link) {
            tracing::info!(agent = %id, ?link, "ignored a registration that a newer one has overtaken");
            return self.close_link(link);
        }
        let lacking = self.tasks_lacking(id, &register);
        self.drop_executors_lacking(id, &register);
        self.settle(id, link, lacking);
    }

    /// The registry has a new agent.
    pub(super) fn admitted(&mut self, arrival: Arrival) {
        let Arrival { link, register } = arrival;
        let Some(id) = register.agent.id.clone() else { return };
        self.in_registry.remove(&id);
        let admitting = self.joining.admitting.remove(&register.address);
        let (link, next) = admitting.map_or((link, None), |admitting| (admitting.link, admitting.next));
        tracing::info!(agent = %id, hostname = register.agent.hostname, "an agent joined");
        self.state.counters.slave_registrations += 1;
        self.add_agent(&id, &register, false);
        self.notify(|core| core.agent(&id).map(events::agent_added));
        self.settle(&id, link, Vec::new());
        if let Some(next) = next
            && self.joining.open.contains(&next.link)
        {
            self.join(next);
        }
    }

    /// Enters an agent, without tasks and without a link.
    pub(super) fn add_agent(&mut self, id: &AgentId, register: &Register, again: bool) {
        let now = events::time_info(self.now.wall);
        let total = Resources::from_wire_lossy(&register.agent.resources);
        let key = self.allocator.add_agent(traits(register), total.clone());
        let machine = Arc::new(machine::of(&register.agent.hostname, &register.address));
        self.on_machines.entry(machine.clone()).or_default().insert(id.clone());
        let agent = Agent {
            id: id.clone(),
            info: Arc::new(AgentInfo { id: Some(id.clone()), ..register.agent.clone() }),
            link: None,
            instance: register.instance.clone(),
            attempt: register.attempt(),
            version: register.version.clone(),
            address: register.address.clone(),
            machine,
            deactivation: self.deactivations.agents.get(id).map(|held| Deactivation::new(held.drain)),
            capabilities: register.capabilities.clone().into(),
            registered: now,
            reregistered: again.then_some(now),
            tasks: Default::default(),
            executors: Default::default(),
            total,
            used: Default::default(),
            offered: Resources::new(),
            offers: Default::default(),
            key,
        };
        self.agents_by_key.insert(key, id.clone());
        self.addresses.insert(register.address.clone(), id.clone());
        self.state.agents.insert(id.clone(), Arc::new(agent));
    }

    /// Ties an agent in the books to its link, and answers its registration. An agent whose link has
    /// closed meanwhile is treated as one that has just lost it.
    pub(super) fn settle(&mut self, id: &AgentId, link: LinkId, unknown_tasks: Vec<KnownTask>) {
        let uptime = self.now.uptime;
        if !self.joining.open.contains(&link) {
            self.observe_agent(id);
            if self.agent(id).is_some_and(|agent| !agent.connected()) {
                self.disconnect_agent(id);
            }
            return;
        }
        let Some(agent) = self.agent_mut(id) else { return };
        let old = agent.link.replace(link);
        let key = agent.key;
        if let Some(old) = old.filter(|old| *old != link) {
            self.close_link(old);
        }
        self.links.insert(link, id.clone());
        let timeout = self.settings.agent_ping_timeout * self.settings.max_agent_ping_timeouts;
        let registered =
            Registered { agent_id: id.clone(), ping_timeout_seconds: timeout.as_secs_f64(), unknown_tasks };
        self.frame(id, Frame::Registered(registered));
        self.observe_agent(id);
        self.cancel_removal(id);
        if self.agent(id).is_some_and(Agent::active) {
            self.allocator.activate_agent(key, uptime);
        }
        self.repeat_drain(id);
        // The machine may have been taken down while the registry was writing the agent.
        let machine = self.agent(id).map(|agent| agent.machine.clone()).unwrap_or_default();
        if self.state.maintenance.mode(&machine) == Mode::Down {
            self.take_machine_down(id);
        }
    }

    /// Tells whatever is at the other end of a link, which is no agent of this coordinator, to shut down.
    pub(super) fn shut_down_link(&mut self, link: LinkId, message: &str) {
        let frame = Frame::Shutdown(Shutdown { message: message.to_owned() });
        self.out.push(Output::Frame { link, frame });
        self.close_link(link);
    }

    /// Refuses a registration.
    pub(super) fn turn_away(&mut self, link: LinkId, message: String, register_anew: bool) {
        tracing::warn!(?link, message, "turned an agent away");
        self.out.push(Output::Frame { link, frame: Frame::Refused(Refused { message, register_anew }) });
        self.close_link(link);
    }

    /// Closes a link that is no agent's any more.
    pub(super) fn close_link(&mut self, link: LinkId) {
        self.links.remove(&link);
        if self.joining.open.remove(&link) {
            self.out.push(Output::CloseLink { link });
        }
    }

    fn total_resources(&mut self, id: &AgentId, total: &TotalResources) {
        let uptime = self.now.uptime;
        let Ok(total) = Resources::from_wire(&total.resources) else {
            tracing::warn!(agent = %id, "ignored invalid resources of an agent");
            return;
        };
        let Some(agent) = self.agent_mut(id) else { return };
        if agent.total == total {
            return;
        }
        agent.total = total.clone();
        let (key, traits) = (agent.key, agent.traits());
        let offers: Vec<_> = agent.offers.iter().copied().collect();
        for offer in offers {
            self.rescind_offer(offer);
        }
        self.allocator.update_agent(key, traits, total, uptime);
    }

    fn new_agent_id(&mut self) -> AgentId {
        let id = AgentId::new(format!("{}-S{}", self.settings.master.id, self.next.agent));
        self.next.agent += 1;
        id
    }
}

impl Agent {
    /// What the allocator must know of it.
    pub(super) fn traits(&self) -> AgentTraits {
        AgentTraits {
            multi_role: self.has(Capability::MultiRole),
            hierarchical_role: self.has(Capability::HierarchicalRole),
        }
    }
}

fn traits(register: &Register) -> AgentTraits {
    let has =
        |capability: Capability| register.capabilities.iter().any(|c| c.r#type == Some(capability.into()));
    AgentTraits {
        multi_role: has(Capability::MultiRole),
        hierarchical_role: has(Capability::HierarchicalRole),
    }
}
