//! One round: what is free and has to be looked at again goes to whose turn it is.
//!
//! Guarantees and limits of roles have their place in [`Allocator::offer`], where it is decided how much
//! of what is free a framework may have.

use std::collections::BTreeSet;
use std::time::Duration;

use tepui_api::resources::{Resource, ResourceQuantities, Resources};

use super::sorter::ClientKey;
use super::{AgentKey, Allocator, Dirty, Framework, Grant};

/// Up to so many frameworks are looked at by themselves; beyond, going through all in order is cheaper.
const FEW: usize = 4;

impl Allocator {
    /// Grants what can be granted by now.
    pub fn run(&mut self, now: Duration) -> Vec<Grant> {
        let interval = now.as_nanos() / self.options.interval.as_nanos().max(1);
        let interval = u64::try_from(interval).unwrap_or(u64::MAX);
        let mut ready = self.due.is_some_and(|due| due <= now);
        if interval > self.last_interval {
            self.last_interval = interval;
            for (agent, client) in self.filters.expire(now) {
                self.soon.pairs.entry(agent).or_default().insert(client);
            }
            let later = std::mem::take(&mut self.later);
            self.soon.merge(later);
            ready |= !self.soon.is_empty();
        }
        if !ready {
            return Vec::new();
        }
        self.due = None;
        self.runs += 1;
        self.sorter.refresh();
        let dirty = std::mem::take(&mut self.soon);
        let mut grants = Vec::new();
        for agent in self.candidates(&dirty) {
            self.share_out(agent, &dirty, now, &mut grants);
        }
        grants
    }

    /// The agents that have to be looked at and have something free, in random order.
    fn candidates(&mut self, dirty: &Dirty) -> Vec<AgentKey> {
        let mut agents: Vec<AgentKey> = if dirty.clients.is_empty() {
            let marked: BTreeSet<AgentKey> = dirty.agents.iter().chain(dirty.pairs.keys()).copied().collect();
            marked.into_iter().filter(|agent| self.roomy.contains(*agent)).collect()
        } else {
            self.roomy.iter().collect()
        };
        for last in (1..agents.len()).rev() {
            let other = self.next_random() % (last as u64 + 1);
            agents.swap(last, usize::try_from(other).unwrap_or(0));
        }
        agents
    }

    fn share_out(&mut self, agent: AgentKey, dirty: &Dirty, now: Duration, grants: &mut Vec<Grant>) {
        let pairs = dirty.pairs.get(&agent);
        let few = dirty.clients.len() + pairs.map_or(0, BTreeSet::len) <= FEW;
        if few && !dirty.agents.contains(&agent) {
            let clients: BTreeSet<ClientKey> =
                dirty.clients.iter().chain(pairs.into_iter().flatten()).copied().collect();
            let mut clients: Vec<ClientKey> =
                clients.into_iter().filter(|client| self.sorter.is_active(*client)).collect();
            self.sorter.sort(&mut clients);
            for client in clients {
                let _ = self.offer(agent, client, now, grants);
            }
            return;
        }
        let mut walk = self.sorter.walk();
        let mut granted: Vec<ClientKey> = Vec::new();
        while let Some(client) = walk.next(&self.sorter) {
            if granted.contains(&client) {
                continue;
            }
            match self.offer(agent, client, now, grants) {
                Outcome::Granted => granted.push(client),
                Outcome::NotThis => {}
                Outcome::NothingForRole => walk.skip_role(),
                Outcome::NothingLeft => break,
            }
        }
    }

    fn offer(&mut self, key: AgentKey, client: ClientKey, now: Duration, grants: &mut Vec<Grant>) -> Outcome {
        let Some(Some(agent)) = self.agents.get(key.0 as usize) else { return Outcome::NothingLeft };
        if agent.free.is_empty() {
            return Outcome::NothingLeft;
        }
        let owner = self.sorter.framework(client);
        let Some(Some(framework)) = self.frameworks.get(owner.0 as usize) else { return Outcome::NotThis };
        let role = self.sorter.role(client);
        if (framework.terms.knows.multi_role && !agent.traits.multi_role)
            || (!agent.traits.hierarchical_role && role.contains('/'))
            || (agent.gpus && self.options.filter_gpus && !framework.terms.knows.gpus)
        {
            return Outcome::NotThis;
        }
        let part = match agent.plain {
            true => None,
            false => match offerable(&agent.free, framework, role) {
                Ok(part) => Some(part),
                Err(outcome) => return outcome,
            },
        };
        let resources = part.as_ref().unwrap_or(&agent.free);
        let minimum = framework.terms.minimum.get(&**role).unwrap_or(&self.options.minimum);
        if !enough(resources, minimum) || self.filters.blocks(key, client, resources, now) {
            return Outcome::NotThis;
        }
        let role = role.clone();
        let resources = match (part, self.agents.get_mut(key.0 as usize)) {
            (Some(part), _) => part,
            (None, Some(Some(agent))) => std::mem::take(&mut agent.free),
            (None, _) => return Outcome::NothingLeft,
        };
        self.charge_client(key, client, &resources);
        grants.push(Grant { framework: owner, role, agent: key, resources });
        Outcome::Granted
    }

    /// The next number of a SplitMix64 sequence.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What came of looking at one framework on one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Granted,
    NotThis,
    NothingForRole,
    NothingLeft,
}

/// Whether there is enough for an offer: all amounts of at least one of `minimum`.
fn enough(resources: &Resources, minimum: &[ResourceQuantities]) -> bool {
    if resources.is_empty() || minimum.is_empty() {
        return !resources.is_empty();
    }
    // Ranges and sets seldom decide, and cost more to count.
    let amounts = resources.scalar_quantities();
    minimum.iter().any(|least| amounts.contains(least))
        || minimum.iter().any(|least| resources.contains_quantities(least))
}

/// What of an agent's free resources a framework may have in a role, when not all of them are plain.
fn offerable(free: &Resources, framework: &Framework, role: &str) -> Result<Resources, Outcome> {
    let for_role = free.filter(|resource| resource.is_allocatable_to(role));
    if for_role.is_empty() {
        return Err(Outcome::NothingForRole);
    }
    let knows = framework.terms.knows;
    Ok(for_role.filter(|resource: &Resource| {
        (knows.shared || !resource.is_shared())
            && (knows.revocable || !resource.is_revocable())
            && (knows.refined || !resource.has_refined_reservations())
    }))
}
