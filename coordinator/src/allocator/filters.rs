//! What frameworks have declined, and until when they are not to be offered it again.
//!
//! A filter says: not this much, or less, of this agent to this framework in this role. It falls when
//! its time is up, when the framework revives the role, or when the agent changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use tepui_api::resources::Resources;

use super::AgentKey;
use super::sorter::ClientKey;

#[derive(Debug)]
struct Filter {
    declined: Resources,
    until: Duration,
}

/// All filters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    by_agent: HashMap<AgentKey, HashMap<ClientKey, Vec<Filter>>>,
    by_client: BTreeMap<ClientKey, BTreeSet<AgentKey>>,
    /// May name filters that fell before their time.
    ends: BinaryHeap<Reverse<(Duration, AgentKey, ClientKey)>>,
}

// === impl Filters ===

impl Filters {
    pub(crate) fn add(&mut self, agent: AgentKey, client: ClientKey, declined: Resources, until: Duration) {
        self.by_agent.entry(agent).or_default().entry(client).or_default().push(Filter { declined, until });
        self.by_client.entry(client).or_default().insert(agent);
        self.ends.push(Reverse((until, agent, client)));
    }

    /// Whether the framework declined these or more.
    pub(crate) fn blocks(
        &self,
        agent: AgentKey,
        client: ClientKey,
        offered: &Resources,
        now: Duration,
    ) -> bool {
        let filters = self.by_agent.get(&agent).and_then(|clients| clients.get(&client));
        filters.is_some_and(|filters| filters.iter().any(|f| f.until > now && f.declined.contains(offered)))
    }

    /// When the next one falls, at the earliest.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        self.ends.peek().map(|Reverse((until, ..))| *until)
    }

    /// Takes out those whose time is up.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(AgentKey, ClientKey)> {
        let mut fallen = Vec::new();
        while let Some(Reverse((until, agent, client))) = self.ends.peek().copied()
            && until <= now
        {
            self.ends.pop();
            let Some(clients) = self.by_agent.get_mut(&agent) else { continue };
            let Some(filters) = clients.get_mut(&client) else { continue };
            let before = filters.len();
            filters.retain(|filter| filter.until > now);
            if filters.len() < before {
                fallen.push((agent, client));
            }
            if filters.is_empty() {
                self.forget(agent, client);
            }
        }
        fallen
    }

    /// Takes out those of one framework in one role.
    pub(crate) fn clear_client(&mut self, client: ClientKey) {
        for agent in self.by_client.remove(&client).unwrap_or_default() {
            if let Some(clients) = self.by_agent.get_mut(&agent) {
                clients.remove(&client);
                if clients.is_empty() {
                    self.by_agent.remove(&agent);
                }
            }
        }
        self.tidy();
    }

    /// Takes out those on one agent.
    pub(crate) fn clear_agent(&mut self, agent: AgentKey) {
        for client in self.by_agent.remove(&agent).unwrap_or_default().into_keys() {
            if let Some(agents) = self.by_client.get_mut(&client) {
                agents.remove(&agent);
                if agents.is_empty() {
                    self.by_client.remove(&client);
                }
            }
        }
        self.tidy();
    }

    fn forget(&mut self, agent: AgentKey, client: ClientKey) {
        if let Some(clients) = self.by_agent.get_mut(&agent) {
            clients.remove(&client);
            if clients.is_empty() {
                self.by_agent.remove(&agent);
            }
        }
        if let Some(agents) = self.by_client.get_mut(&client) {
            agents.remove(&agent);
            if agents.is_empty() {
                self.by_client.remove(&client);
            }
        }
    }

    /// Without filters there is nothing to wake up for.
    fn tidy(&mut self) {
        if self.by_agent.is_empty() {
            self.ends.clear();
        }
    }
}
