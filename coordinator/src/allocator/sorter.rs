//! Whose turn it is: the tree of roles with the frameworks in them, in order of dominant share.
//!
//! A level of the tree is sorted by (share ÷ weight, how often it was given something, who came first):
//! first among the top-level roles, then among the roles below one and the frameworks right in
//! it taken together, then among those frameworks. A charge moves one entry on each level, so the order
//! is always up to date; only a change of the cluster's total makes all shares be reckoned anew.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tepui_api::resources::ResourceQuantities;

use super::FrameworkKey;

/// A framework in one of its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientKey(pub(crate) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct NodeKey(u32);

/// Where an entry stands on its level. Shares are never negative, so their bits sort as they do.
type Rank<T> = (u64, u64, T);

/// Where a framework stands in the whole tree: the ranks of the entries above it, from the top, and its own.
type Place = (Vec<Rank<Child>>, Rank<ClientKey>);

/// What stands beside each other below one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Child {
    /// The frameworks right in the role.
    Own,
    /// A role below it.
    Role(NodeKey),
}

/// What was given to one entry.
#[derive(Debug, Default)]
struct Held {
    amounts: ResourceQuantities,
    /// How often something was given; breaks ties, so that equals take turns.
    times: u64,
    share: f64,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    parent: Option<NodeKey>,
    weight: f64,
    /// By all frameworks in the role and below.
    subtree: Held,
    /// By the frameworks right in the role.
    own: Held,
    children: BTreeSet<Rank<Child>>,
    clients: BTreeSet<Rank<ClientKey>>,
    /// Roles below that exist, and clients that do, active or not.
    references: usize,
}

#[derive(Debug)]
struct Client {
    framework: FrameworkKey,
    role: NodeKey,
    held: Held,
    active: bool,
}

/// All roles and the frameworks in them.
#[derive(Debug)]
pub(crate) struct Sorter {
    nodes: Vec<Option<Node>>,
    names: HashMap<Arc<str>, NodeKey>,
    clients: Vec<Option<Client>>,
    total: ResourceQuantities,
    weights: HashMap<Arc<str>, f64>,
    stale: bool,
}

const ROOT: NodeKey = NodeKey(0);

// === impl Held ===

impl Held {
    fn weigh(&mut self, total: &ResourceQuantities, weight: f64) {
        self.share = dominant_share(&self.amounts, total) / weight;
    }

    fn rank<T>(&self, entry: T) -> Rank<T> {
        (self.share.max(0.0).to_bits(), self.times, entry)
    }
}

// === impl Sorter ===

impl Sorter {
    pub(crate) fn new(weights: impl IntoIterator<Item = (String, f64)>) -> Self {
        let root = Node::new("".into(), None, 1.0);
        Self {
            nodes: vec![Some(root)],
            names: HashMap::new(),
            clients: Vec::new(),
            total: ResourceQuantities::default(),
            weights: weights.into_iter().map(|(role, weight)| (role.into(), weight)).collect(),
            stale: false,
        }
    }

    /// A role's share counts by this from the next [`Sorter::refresh`] on.
    pub(crate) fn set_weight(&mut self, role: &str, weight: f64) {
        self.weights.insert(role.into(), weight);
        if let Some(key) = self.names.get(role).copied() {
            self.node_mut(key).weight = weight;
            self.stale = true;
        }
    }

    /// All roles count the same.
    pub(crate) fn clear_weights(&mut self) {
        self.weights.clear();
        for node in self.nodes.iter_mut().flatten() {
            node.weight = 1.0;
        }
        self.stale = true;
    }

    /// Adds a framework to a role. It takes no part until it is activated.
    pub(crate) fn add(&mut self, role: &str, framework: FrameworkKey) -> ClientKey {
        let role = self.node_for(role);
        let key = ClientKey(u32::try_from(self.clients.len()).unwrap_or(u32::MAX));
        self.clients.push(Some(Client { framework, role, held: Held::default(), active: false }));
        self.node_mut(role).references += 1;
        key
    }

    /// Takes a framework, which holds nothing, out of a role.
    pub(crate) fn remove(&mut self, key: ClientKey) {
        self.deactivate(key);
        let Some(client) = self.clients.get_mut(key.0 as usize).and_then(Option::take) else { return };
        debug_assert!(client.held.amounts.is_empty(), "what a framework holds is returned before it leaves");
        self.release_node(client.role);
    }

    pub(crate) fn activate(&mut self, key: ClientKey) {
        if self.client(key).active {
            return;
        }
        let client = self.client_mut(key);
        client.active = true;
        let (rank, role) = (client.held.rank(key), client.role);
        self.node_mut(role).clients.insert(rank);
        if self.node(role).clients.len() == 1 {
            self.show(role, Child::Own);
        }
    }

    pub(crate) fn deactivate(&mut self, key: ClientKey) {
        let Some(Some(client)) = self.clients.get_mut(key.0 as usize) else { return };
        if !client.active {
            return;
        }
        client.active = false;
        let (rank, role) = (client.held.rank(key), client.role);
        let removed = self.node_mut(role).clients.remove(&rank);
        debug_assert!(removed, "an active framework stands in its role");
        if self.node(role).clients.is_empty() {
            self.hide(role, Child::Own);
        }
    }

    pub(crate) fn is_active(&self, key: ClientKey) -> bool {
        self.client(key).active
    }

    pub(crate) fn framework(&self, key: ClientKey) -> FrameworkKey {
        self.client(key).framework
    }

    pub(crate) fn role(&self, key: ClientKey) -> &Arc<str> {
        &self.node(self.client(key).role).name
    }

    /// Whether a framework holds nothing in this role.
    pub(crate) fn holds_nothing(&self, key: ClientKey) -> bool {
        self.client(key).held.amounts.is_empty()
    }

    pub(crate) fn charge(&mut self, key: ClientKey, amounts: &ResourceQuantities) {
        self.change(key, |held| {
            held.amounts += amounts;
            held.times += 1;
        });
    }

    pub(crate) fn release(&mut self, key: ClientKey, amounts: &ResourceQuantities) {
        self.change(key, |held| held.amounts -= amounts);
    }

    /// An agent came or grew.
    pub(crate) fn grow_total(&mut self, amounts: &ResourceQuantities) {
        self.total += amounts;
        self.stale = true;
    }

    /// An agent left or shrank.
    pub(crate) fn shrink_total(&mut self, amounts: &ResourceQuantities) {
        self.total -= amounts;
        self.stale = true;
    }

    /// Reckons all shares anew if the total has changed. To be called before a round.
    pub(crate) fn refresh(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let total = std::mem::take(&mut self.total);
        for client in self.clients.iter_mut().flatten() {
            client.held.weigh(&total, 1.0);
        }
        for node in self.nodes.iter_mut().flatten() {
            let weight = node.weight;
            node.subtree.weigh(&total, weight);
            node.own.weigh(&total, 1.0);
        }
        self.total = total;
        for at in 0..self.nodes.len() {
            let Some(node) = &self.nodes[at] else { continue };
            let children = node.children.iter().map(|entry| match entry.2 {
                Child::Own => node.own.rank(Child::Own),
                Child::Role(key) => self.node(key).subtree.rank(Child::Role(key)),
            });
            let children = children.collect();
            let clients = node.clients.iter().map(|entry| self.client(entry.2).held.rank(entry.2)).collect();
            if let Some(node) = &mut self.nodes[at] {
                node.children = children;
                node.clients = clients;
            }
        }
    }

    /// Begins to go through the active frameworks, those with the smallest share first.
    pub(crate) fn walk(&self) -> Walk {
        Walk { path: vec![(ROOT, None)], clients: None }
    }

    /// Sorts a few frameworks into the order in which [`Sorter::walk`] comes to them.
    pub(crate) fn sort(&self, keys: &mut [ClientKey]) {
        if keys.len() > 1 {
            keys.sort_by_cached_key(|key| self.place(*key));
        }
    }

    fn place(&self, key: ClientKey) -> Place {
        let client = self.client(key);
        let mut at = client.role;
        let own = self.node(at);
        let mut path = vec![own.own.rank(Child::Own)];
        while let Some(parent) = self.node(at).parent {
            let node = self.node(at);
            path.push(node.subtree.rank(Child::Role(at)));
            at = parent;
        }
        path.reverse();
        (path, client.held.rank(key))
    }

    fn change(&mut self, key: ClientKey, change: impl Fn(&mut Held)) {
        let total = std::mem::take(&mut self.total);
        let client = self.client_mut(key);
        let (role, active) = (client.role, client.active);
        let before = client.held.rank(key);
        change(&mut client.held);
        client.held.weigh(&total, 1.0);
        let after = client.held.rank(key);
        let node = self.node_mut(role);
        if active {
            node.clients.remove(&before);
            node.clients.insert(after);
        }
        let before = node.own.rank(Child::Own);
        change(&mut node.own);
        node.own.weigh(&total, 1.0);
        if node.children.remove(&before) {
            node.children.insert(node.own.rank(Child::Own));
        }
        let mut at = role;
        while let Some(parent) = self.node(at).parent {
            let node = self.node_mut(at);
            let before = node.subtree.rank(Child::Role(at));
            change(&mut node.subtree);
            let weight = node.weight;
            node.subtree.weigh(&total, weight);
            let after = node.subtree.rank(Child::Role(at));
            let siblings = &mut self.node_mut(parent).children;
            if siblings.remove(&before) {
                siblings.insert(after);
            }
            at = parent;
        }
        self.total = total;
    }

    /// Puts an entry into its level, and the role itself into the one above when it was empty.
    fn show(&mut self, at: NodeKey, child: Child) {
        let rank = self.rank_of(at, child);
        let node = self.node_mut(at);
        node.children.insert(rank);
        if node.children.len() == 1
            && let Some(parent) = node.parent
        {
            self.show(parent, Child::Role(at));
        }
    }

    fn hide(&mut self, at: NodeKey, child: Child) {
        let rank = self.rank_of(at, child);
        let node = self.node_mut(at);
        let removed = node.children.remove(&rank);
        debug_assert!(removed, "a role with active frameworks stands in its level");
        if node.children.is_empty()
            && let Some(parent) = node.parent
        {
            self.hide(parent, Child::Role(at));
        }
    }

    fn rank_of(&self, at: NodeKey, child: Child) -> Rank<Child> {
        match child {
            Child::Own => self.node(at).own.rank(child),
            Child::Role(key) => self.node(key).subtree.rank(child),
        }
    }

    fn node_for(&mut self, role: &str) -> NodeKey {
        if let Some(key) = self.names.get(role) {
            return *key;
        }
        let parent = match role.rsplit_once('/') {
            Some((parent, _)) => self.node_for(parent),
            None => ROOT,
        };
        self.node_mut(parent).references += 1;
        let name: Arc<str> = role.into();
        let weight = self.weights.get(role).copied().unwrap_or(1.0);
        let key = NodeKey(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Some(Node::new(name.clone(), Some(parent), weight)));
        self.names.insert(name, key);
        key
    }

    fn release_node(&mut self, key: NodeKey) {
        let node = self.node_mut(key);
        node.references -= 1;
        if node.references > 0 {
            return;
        }
        let Some(parent) = node.parent else { return };
        let name = node.name.clone();
        self.names.remove(&name);
        self.nodes[key.0 as usize] = None;
        self.release_node(parent);
    }

    #[expect(clippy::expect_used, reason = "keys are made here and given out while their node lives")]
    fn node(&self, key: NodeKey) -> &Node {
        self.nodes[key.0 as usize].as_ref().expect("the role lives")
    }

    #[expect(clippy::expect_used, reason = "keys are made here and given out while their node lives")]
    fn node_mut(&mut self, key: NodeKey) -> &mut Node {
        self.nodes[key.0 as usize].as_mut().expect("the role lives")
    }

    #[expect(clippy::expect_used, reason = "the allocator forgets a key when it removes the client")]
    fn client(&self, key: ClientKey) -> &Client {
        self.clients[key.0 as usize].as_ref().expect("the framework is in the role")
    }

    #[expect(clippy::expect_used, reason = "the allocator forgets a key when it removes the client")]
    fn client_mut(&mut self, key: ClientKey) -> &mut Client {
        self.clients[key.0 as usize].as_mut().expect("the framework is in the role")
    }
}

impl Node {
    fn new(name: Arc<str>, parent: Option<NodeKey>, weight: f64) -> Self {
        Self {
            name,
            parent,
            weight,
            subtree: Held::default(),
            own: Held::default(),
            children: BTreeSet::new(),
            clients: BTreeSet::new(),
            references: 0,
        }
    }
}

/// A place in the order of all active frameworks.
///
/// It holds no borrow, so that what it comes to can be charged on the way. What is charged moves
/// back and may be met again.
#[derive(Debug)]
pub(crate) struct Walk {
    path: Vec<(NodeKey, Option<Rank<Child>>)>,
    clients: Option<(NodeKey, Option<Rank<ClientKey>>)>,
}

// === impl Walk ===

impl Walk {
    /// The next framework.
    pub(crate) fn next(&mut self, sorter: &Sorter) -> Option<ClientKey> {
        loop {
            if let Some((role, last)) = &mut self.clients {
                if let Some(rank) = after(&sorter.node(*role).clients, last.as_ref()) {
                    *last = Some(*rank);
                    return Some(rank.2);
                }
                self.clients = None;
            }
            let (node, last) = self.path.last_mut()?;
            let Some(rank) = after(&sorter.node(*node).children, last.as_ref()) else {
                self.path.pop();
                continue;
            };
            let entry = rank.2;
            *last = Some(*rank);
            match entry {
                Child::Own => self.clients = Some((*node, None)),
                Child::Role(key) => self.path.push((key, None)),
            }
        }
    }

    /// Leaves out the other frameworks of the role in which the last one was.
    pub(crate) fn skip_role(&mut self) {
        self.clients = None;
    }
}

fn after<'a, T: Ord>(set: &'a BTreeSet<Rank<T>>, last: Option<&Rank<T>>) -> Option<&'a Rank<T>> {
    match last {
        None => set.first(),
        Some(last) => set.range::<Rank<T>, _>((Bound::Excluded(last), Bound::Unbounded)).next(),
    }
}

/// The largest part that `amounts` is of `total`, over all names.
#[expect(clippy::cast_precision_loss, reason = "a share is a ratio; its 53 bits are plenty")]
fn dominant_share(amounts: &ResourceQuantities, total: &ResourceQuantities) -> f64 {
    amounts.iter().fold(0.0, |share, (name, amount)| {
        let total = total.get(name).thousandths();
        if total > 0 { f64::max(share, amount.thousandths() as f64 / total as f64) } else { share }
    })
}
