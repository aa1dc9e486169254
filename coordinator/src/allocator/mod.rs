//! Shares the cluster's free resources out among the frameworks.
//!
//! The core tells the [`Allocator`] of agents, frameworks and every charge and return of resources;
//! [`Allocator::run`] answers with [`Grant`]s, already charged, that become offers. Whose turn it is
//! says the `sorter`: dominant-resource fairness over the tree of roles, then over the frameworks
//! in a role. `filters` remembers what was declined.
//!
//! Work is only done where something changed. An agent whose free resources grew, a framework that
//! came or revived, a filter that fell: each marks what has to be looked at again, and all pairs of agent and
//! framework that are not marked are known to have nothing for each other. What a task's end or a
//! new agent or framework gave rise to is looked at within milliseconds; what came back unused
//! waits for the next interval, so that declining is no hot loop.

mod filters;
mod roomy;
mod round;
mod sorter;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::resources::{Resource, ResourceName, ResourceQuantities, Resources};

use filters::Filters;
use roomy::Agents;
use sorter::{ClientKey, Sorter};

/// One framework, for as long as the allocator knows it. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameworkKey(u32);

/// One agent, for as long as the allocator knows it. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey(u32);

/// How an allocator works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Between two looks at what came back unused.
    pub interval: Duration,
    /// From a change that is worth a look at once to that look, so that many make one.
    pub delay: Duration,
    /// A grant holds all amounts of at least one of these; anything will do, without.
    pub minimum: Vec<ResourceQuantities>,
    /// Agents with GPUs are only offered to frameworks that know of GPUs.
    pub filter_gpus: bool,
    /// What the order of agents in a round comes from.
    pub seed: u64,
    /// Weights of roles, 1 where none is set. All are above 0.
    pub weights: Vec<(String, f64)>,
}

/// What the allocator must know of a framework.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// The roles it is in.
    pub roles: BTreeSet<String>,
    /// Those of them in which it wants no offers.
    pub suppressed: BTreeSet<String>,
    /// Which resources it understands.
    pub knows: Knows,
    /// By role, what a grant must hold instead of [`Options::minimum`].
    pub minimum: BTreeMap<String, Vec<ResourceQuantities>>,
}

/// The kinds of resources that only frameworks with the capability are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Knows {
    /// Agents with GPUs.
    pub gpus: bool,
    /// Resources that can be taken back.
    pub revocable: bool,
    /// Resources that others use too.
    pub shared: bool,
    /// Reservations that refine others.
    pub refined: bool,
    /// More than one role.
    pub multi_role: bool,
}

/// What the allocator must know of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentTraits {
    /// It takes frameworks with several roles.
    pub multi_role: bool,
    /// It takes roles below others.
    pub hierarchical_role: bool,
}

/// Why resources came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// What used them ended: others can have them at once.
    Ended,
    /// They were offered and not used. The framework is not to see them again for so long,
    /// and nobody before the next interval.
    Unused {
        /// Nothing when the framework said so, or was not asked.
        refuse: Duration,
    },
}

/// Resources of one agent for one framework in one role, already charged to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// To whom.
    pub framework: FrameworkKey,
    /// As what.
    pub role: Arc<str>,
    /// Where.
    pub agent: AgentKey,
    /// What, not marked with the role.
    pub resources: Resources,
}

/// See the module's page.
#[derive(Debug)]
pub struct Allocator {
    options: Options,
    sorter: Sorter,
    frameworks: Vec<Option<Framework>>,
    agents: Vec<Option<Agent>>,
    filters: Filters,
    /// Active agents with free resources.
    roomy: Agents,
    soon: Dirty,
    later: Dirty,
    /// When `soon` is to be looked at.
    due: Option<Duration>,
    /// The last multiple of the interval at which `later` was looked at.
    last_interval: u64,
    random: u64,
    runs: u64,
}

#[derive(Debug)]
struct Framework {
    terms: Terms,
    active: bool,
    /// For each role it is in, or still holds something in.
    clients: BTreeMap<Arc<str>, ClientKey>,
}

#[derive(Debug)]
struct Agent {
    traits: AgentTraits,
    total: Resources,
    /// All that is charged, to whomever.
    taken: Resources,
    free: Resources,
    active: bool,
    /// Nothing of it is reserved, revocable or shared.
    plain: bool,
    gpus: bool,
}

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    /// For all frameworks.
    agents: BTreeSet<AgentKey>,
    /// On all agents.
    clients: BTreeSet<ClientKey>,
    /// On one agent.
    pairs: BTreeMap<AgentKey, BTreeSet<ClientKey>>,
}

// === impl Allocator ===

impl Allocator {
    /// An allocator for an empty cluster.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            sorter: Sorter::new(options.weights.iter().cloned()),
            random: options.seed,
            options,
            frameworks: Vec::new(),
            agents: Vec::new(),
            filters: Filters::default(),
            roomy: Agents::default(),
            soon: Dirty::default(),
            later: Dirty::default(),
            due: None,
            last_interval: 0,
            runs: 0,
        }
    }

    /// How many rounds there were.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// A new framework. It gets nothing until it is activated.
    pub fn add_framework(&mut self, terms: Terms) -> FrameworkKey {
        let key = FrameworkKey(u32::try_from(self.frameworks.len()).unwrap_or(u32::MAX));
        let framework = Framework { terms: Terms::default(), active: false, clients: BTreeMap::new() };
        self.frameworks.push(Some(framework));
        self.update_framework(key, terms, Duration::ZERO);
        key
    }

    /// The framework's roles or capabilities changed.
    pub fn update_framework(&mut self, key: FrameworkKey, terms: Terms, now: Duration) {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else { return };
        let active = framework.active;
        let old = std::mem::replace(&mut framework.terms, terms.clone());
        let changed = old.knows != terms.knows || old.minimum != terms.minimum;
        for role in &terms.roles {
            let client = self.client(key, role);
            let wanted = active && !terms.suppressed.contains(role);
            let revived = old.suppressed.contains(role) && !terms.suppressed.contains(role);
            if revived {
                self.filters.clear_client(client);
            }
            if !wanted {
                self.sorter.deactivate(client);
            } else if changed || revived || !self.sorter.is_active(client) {
                self.sorter.activate(client);
                self.mark_client(client, now);
            }
        }
        for role in old.roles.difference(&terms.roles) {
            let client = self.client(key, role);
            self.sorter.deactivate(client);
            self.filters.clear_client(client);
            self.drop_idle_client(key, role);
        }
    }

    /// The framework can be offered resources from now on.
    pub fn activate_framework(&mut self, key: FrameworkKey, now: Duration) {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else { return };
        framework.active = true;
        for client in framework.wanted() {
            self.sorter.activate(client);
            self.mark_client(client, now);
        }
    }

    /// The framework gets nothing from now on, and what it declined is forgotten.
    pub fn deactivate_framework(&mut self, key: FrameworkKey) {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else { return };
        framework.active = false;
        for client in framework.clients.values() {
            self.sorter.deactivate(*client);
            self.filters.clear_client(*client);
        }
    }

    /// Forgets a framework, to which nothing is charged any more.
    pub fn remove_framework(&mut self, key: FrameworkKey) {
        self.deactivate_framework(key);
        let Some(framework) = self.frameworks.get_mut(key.0 as usize).and_then(Option::take) else { return };
        for client in framework.clients.into_values() {
            self.remove_client(client);
        }
    }

    /// The framework wants no offers in these roles; in all, when none is named.
    pub fn suppress(&mut self, key: FrameworkKey, roles: &[String]) {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else { return };
        let roles: Vec<String> =
            if roles.is_empty() { framework.terms.roles.iter().cloned().collect() } else { roles.to_vec() };
        for role in roles {
            if let Some(client) = framework.clients.get(role.as_str()) {
                self.sorter.deactivate(*client);
            }
            framework.terms.suppressed.insert(role);
        }
    }

    /// The framework wants offers in these roles, those that it declined too; in all, when none is named.
    pub fn revive(&mut self, key: FrameworkKey, roles: &[String], now: Duration) {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else { return };
        let active = framework.active;
        let roles: Vec<String> =
            if roles.is_empty() { framework.terms.roles.iter().cloned().collect() } else { roles.to_vec() };
        let mut clients = Vec::with_capacity(roles.len());
        for role in roles {
            framework.terms.suppressed.remove(&role);
            clients.extend(framework.clients.get(role.as_str()));
        }
        for client in clients {
            self.filters.clear_client(client);
            if active {
                self.sorter.activate(client);
                self.mark_client(client, now);
            }
        }
    }

    /// The roles in which the framework wants no offers.
    #[must_use]
    pub fn suppressed(&self, key: FrameworkKey) -> Option<&BTreeSet<String>> {
        self.frameworks.get(key.0 as usize)?.as_ref().map(|framework| &framework.terms.suppressed)
    }

    /// These roles have other weights from now on. Who gets more by it is looked at with the next change.
    pub fn update_weights(&mut self, weights: Vec<(String, f64)>) {
        for (role, weight) in weights {
            self.sorter.set_weight(&role, weight);
        }
    }

    /// These roles have these weights, and all others 1.
    pub fn replace_weights(&mut self, weights: Vec<(String, f64)>) {
        self.sorter.clear_weights();
        self.update_weights(weights);
    }

    /// A new agent. Nothing of it is offered until it is activated.
    pub fn add_agent(&mut self, traits: AgentTraits, total: Resources) -> AgentKey {
        let key = AgentKey(u32::try_from(self.agents.len()).unwrap_or(u32::MAX));
        self.sorter.grow_total(&total.scalar_quantities());
        let mut agent = Agent {
            traits,
            total: Resources::default(),
            taken: Resources::default(),
            free: Resources::default(),
            active: false,
            plain: true,
            gpus: false,
        };
        agent.set_total(total);
        self.agents.push(Some(agent));
        key
    }

    /// The agent has other resources or traits.
    pub fn update_agent(&mut self, key: AgentKey, traits: AgentTraits, total: Resources, now: Duration) {
        let Some(Some(agent)) = self.agents.get_mut(key.0 as usize) else { return };
        if agent.total == total && agent.traits == traits {
            return;
        }
        self.sorter.shrink_total(&agent.total.scalar_quantities());
        self.sorter.grow_total(&total.scalar_quantities());
        agent.traits = traits;
        agent.set_total(total);
        self.filters.clear_agent(key);
        self.free_changed(key);
        self.mark_agent(key, now);
    }

    /// What is free on the agent can be offered from now on.
    pub fn activate_agent(&mut self, key: AgentKey, now: Duration) {
        let Some(Some(agent)) = self.agents.get_mut(key.0 as usize) else { return };
        if !agent.active {
            agent.active = true;
            self.free_changed(key);
            self.mark_agent(key, now);
        }
    }

    /// Nothing of the agent is offered from now on.
    pub fn deactivate_agent(&mut self, key: AgentKey) {
        let Some(Some(agent)) = self.agents.get_mut(key.0 as usize) else { return };
        agent.active = false;
        self.roomy.remove(key);
    }

    /// Forgets an agent, of which nothing is charged any more.
    pub fn remove_agent(&mut self, key: AgentKey) {
        let Some(agent) = self.agents.get_mut(key.0 as usize).and_then(Option::take) else { return };
        debug_assert!(agent.taken.is_empty(), "what was charged on an agent is returned before it leaves");
        self.sorter.shrink_total(&agent.total.scalar_quantities());
        self.roomy.remove(key);
        self.filters.clear_agent(key);
        for dirty in [&mut self.soon, &mut self.later] {
            dirty.agents.remove(&key);
            dirty.pairs.remove(&key);
        }
    }

    /// Charges what a framework uses without having been granted it: tasks that an agent came with.
    pub fn charge(&mut self, agent: AgentKey, framework: FrameworkKey, role: &str, resources: &Resources) {
        let client = self.client(framework, role);
        self.charge_client(agent, client, resources);
    }

    /// Takes back what was charged.
    pub fn release(
        &mut self,
        key: AgentKey,
        framework: FrameworkKey,
        role: &str,
        resources: &Resources,
        why: Return,
        now: Duration,
    ) {
        if resources.is_empty() {
            return;
        }
        let client = self.client(framework, role);
        self.sorter.release(client, &resources.scalar_quantities());
        if let Some(Some(agent)) = self.agents.get_mut(key.0 as usize) {
            debug_assert!(agent.taken.contains(resources), "{resources} was charged, of {}", agent.taken);
            agent.taken -= resources;
            agent.free = agent.total.clone();
            agent.free -= &agent.taken;
            self.free_changed(key);
            match why {
                Return::Ended => self.mark_agent(key, now),
                Return::Unused { refuse } => {
                    if !refuse.is_zero() {
                        // Never shorter than until the next look, or it would be no filter.
                        let until = now + refuse.max(self.options.interval);
                        self.filters.add(key, client, resources.clone(), until);
                    }
                    if self.roomy.contains(key) {
                        self.later.agents.insert(key);
                    }
                }
            }
        }
        self.drop_idle_client(framework, role);
    }

    /// When [`Allocator::run`] will have something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let unused = (!self.later.is_empty()).then(|| self.interval_at(self.last_interval + 1));
        let filter = self.filters.next_end().map(|end| {
            let intervals = end.as_nanos().div_ceil(self.options.interval.as_nanos().max(1));
            let interval = u64::try_from(intervals).unwrap_or(u64::MAX).max(self.last_interval + 1);
            self.interval_at(interval)
        });
        self.due.into_iter().chain(unused).chain(filter).min()
    }

    /// What is free on an agent.
    #[must_use]
    pub fn free(&self, key: AgentKey) -> Option<&Resources> {
        self.agents.get(key.0 as usize)?.as_ref().map(|agent| &agent.free)
    }

    /// What is charged on an agent, to whomever.
    #[must_use]
    pub fn taken(&self, key: AgentKey) -> Option<&Resources> {
        self.agents.get(key.0 as usize)?.as_ref().map(|agent| &agent.taken)
    }

    fn interval_at(&self, number: u64) -> Duration {
        let nanos = self.options.interval.as_nanos().saturating_mul(u128::from(number));
        Duration::from_nanos_u128(nanos.min(u128::from(u64::MAX)))
    }

    fn charge_client(&mut self, key: AgentKey, client: ClientKey, resources: &Resources) {
        self.sorter.charge(client, &resources.scalar_quantities());
        if let Some(Some(agent)) = self.agents.get_mut(key.0 as usize) {
            if agent.taken.is_empty() {
                agent.taken = resources.clone();
            } else {
                agent.taken += resources;
            }
            agent.free -= resources;
            self.free_changed(key);
        }
    }

    fn free_changed(&mut self, key: AgentKey) {
        let Some(Some(agent)) = self.agents.get(key.0 as usize) else { return };
        if agent.active && !agent.free.is_empty() {
            self.roomy.insert(key);
        } else {
            self.roomy.remove(key);
        }
    }

    fn mark_agent(&mut self, key: AgentKey, now: Duration) {
        if self.roomy.contains(key) {
            self.soon.agents.insert(key);
            self.due.get_or_insert(now + self.options.delay);
        }
    }

    fn mark_client(&mut self, client: ClientKey, now: Duration) {
        self.soon.clients.insert(client);
        self.due.get_or_insert(now + self.options.delay);
    }

    /// The framework's place in a role, made when it has none.
    fn client(&mut self, key: FrameworkKey, role: &str) -> ClientKey {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else {
            debug_assert!(false, "a framework is known for as long as anything is charged to it");
            return ClientKey(u32::MAX);
        };
        if let Some(client) = framework.clients.get(role) {
            return *client;
        }
        let client = self.sorter.add(role, key);
        framework.clients.insert(role.into(), client);
        client
    }

    /// A role that the framework has left is kept until it holds nothing there.
    fn drop_idle_client(&mut self, key: FrameworkKey, role: &str) {
        let Some(Some(framework)) = self.frameworks.get_mut(key.0 as usize) else { return };
        if framework.terms.roles.contains(role) {
            return;
        }
        if let Some(client) = framework.clients.get(role).copied()
            && self.sorter.holds_nothing(client)
        {
            framework.clients.remove(role);
            self.remove_client(client);
        }
    }

    fn remove_client(&mut self, client: ClientKey) {
        self.filters.clear_client(client);
        self.sorter.remove(client);
        for dirty in [&mut self.soon, &mut self.later] {
            dirty.forget_client(client);
        }
    }
}

impl Framework {
    /// Its places in the roles where it wants offers.
    fn wanted(&self) -> Vec<ClientKey> {
        let wanted = |role: &str| self.terms.roles.contains(role) && !self.terms.suppressed.contains(role);
        self.clients.iter().filter(|(role, _)| wanted(role)).map(|(_, client)| *client).collect()
    }
}

impl Agent {
    fn set_total(&mut self, total: Resources) {
        self.plain = total.iter().all(|r| r.is_unreserved() && !r.is_revocable() && !r.is_shared());
        self.gpus = total.iter().any(|r: &Resource| *r.name() == ResourceName::Gpus && !r.is_empty());
        self.free = total.clone();
        self.free -= &self.taken;
        self.total = total;
    }
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.clients.is_empty() && self.pairs.is_empty()
    }

    fn merge(&mut self, mut other: Dirty) {
        self.agents.append(&mut other.agents);
        self.clients.append(&mut other.clients);
        for (agent, mut clients) in other.pairs {
            self.pairs.entry(agent).or_default().append(&mut clients);
        }
    }

    fn forget_client(&mut self, client: ClientKey) {
        self.clients.remove(&client);
        self.pairs.retain(|_, clients| {
            clients.remove(&client);
            !clients.is_empty()
        });
    }
}
