//! The registry of a replicated set of coordinators: nodes of ZooKeeper below `<path>/log_replicas`.
//!
//! ```text
//! log_replicas                      {"format":1}
//! log_replicas/term                 {"term":"<id of the leader's term>","batch":<number of its last write>}
//! log_replicas/<table>              one for each Table, made when it is first needed
//! log_replicas/<table>/<00..ff>     a bucket: the first byte of the key's SHA-256, as hex
//! log_replicas/<table>/<00..ff>/<key> an entry: a protobuf message with its key and its value
//! ```
//!
//! **Name**. Beside the nodes by which coordinators are elected, Mesos has one of this name, for its registry. Detectors that
//! are not so careful with other nodes, pymesos among them, pass it over.
//!
//! **Fence** (`fence`). Opening writes the term's id to `term`, on condition of the version it had; from
//! then on every write is one transaction of ZooKeeper's whose first part writes `term` on condition of the
//! version that this term's last write left. Whoever opened earlier has an older version, so nothing it
//! writes can land, however late it comes; it is told [`RegistryError::Deposed`]. When the connection breaks
//! in the middle of a transaction, its number in `term` tells whether it had landed, so it is written
//! exactly once.
//!
//! **Sizes** (`layout`). ZooKeeper refuses nodes, lists of children, and requests beyond 1 MiB. 256 buckets keep a
//! list of 50,000 agents at 200 names; transactions are cut to [`batch::BYTES`]; a value of more than
//! [`layout::PART`] bytes is laid down in parts beside its entry, which names them: parts are written before
//! the entry and removed after it, and those that a crash left over are removed by the next term.
//!
//! A batch that is larger than one transaction is written in order, each change whole. Only a change that is itself
//! larger than [`batch::WHOLE`] (thousands of entries) may be written to a part when the process is killed in it.
//!
//! A session of its own, with the same credentials as the election. When it has ended, so has the term.

mod batch;
mod fence;
mod layout;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use tepui_zookeeper::Url;
use tokio::runtime::Handle;

use self::batch::{Batch, Op};
use self::fence::Fence;
use self::layout::{Held, Node, Steps};
use super::entries::{Table, writes};
use super::{EntryError, Registry, RegistryError};
use crate::core::{Recovered, RegistryChange};

/// The node of the registry.
const ROOT: &str = "log_replicas";
/// Requests that wait for their answers at once when the registry is read.
const READS: usize = 512;

/// Whose registry it is from now on.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// Names this term and no other, such as the leader's id.
    pub id: &'a str,
    /// The node by which it was elected. Without that node the term does not begin, so that who was
    /// elected and then held up cannot depose who was elected since.
    pub elected_by: Option<&'a str>,
}

/// See the module. Its methods block, and are not to be called where async code runs.
pub struct ZooKeeperRegistry {
    runtime: Handle,
    fence: Fence,
    /// What is there; not known before the first read, nor after a failure.
    held: Option<Held>,
}

type Entries = BTreeMap<(Table, String), Vec<u8>>;

// === impl ZooKeeperRegistry ===

impl ZooKeeperRegistry {
    /// Begins a term: from now on, whoever had the registry before can write nothing.
    ///
    /// # Errors
    /// When ZooKeeper cannot be reached within the session's time-out, a newer Tepui wrote the registry, or
    /// another term began meanwhile.
    pub fn open(
        url: &Url,
        session_timeout: Duration,
        term: Term<'_>,
        runtime: Handle,
    ) -> Result<Self, RegistryError> {
        let fence = runtime.block_on(Fence::open(url, session_timeout, term))?;
        Ok(Self { runtime, fence, held: None })
    }

    async fn write_all(&mut self, mut held: Held, changes: &[RegistryChange]) -> Result<Held, RegistryError> {
        let mut batch = Batch::default();
        for change in changes {
            let mut steps = Steps::default();
            for write in writes(change) {
                held.plan(write, &mut steps);
            }
            for op in steps.before {
                self.add(&mut batch, vec![op]).await?;
            }
            self.add(&mut batch, steps.together).await?;
            for op in steps.after {
                self.add(&mut batch, vec![op]).await?;
            }
        }
        self.fence.commit(&batch.take()).await?;
        Ok(held)
    }

    /// Adds what belongs together, after writing what it no longer has room beside.
    async fn add(&mut self, batch: &mut Batch, ops: Vec<Op>) -> Result<(), RegistryError> {
        if !batch.has_room_for(&ops) {
            self.fence.commit(&batch.take()).await?;
        }
        let whole = batch.has_room_for(&ops);
        for op in ops {
            if !whole && !batch.has_room_for(std::slice::from_ref(&op)) {
                self.fence.commit(&batch.take()).await?;
            }
            batch.push(op);
        }
        Ok(())
    }

    async fn load(&mut self) -> Result<(Held, Entries), RegistryError> {
        let fence = &self.fence;
        let mut held = Held::new(fence.root());
        let mut entries = Entries::new();
        let mut left_over = Vec::new();
        for table in fence.tables().await? {
            held.add_table(table);
            let buckets: Vec<u8> = fence
                .children(&held.table_path(table))
                .await?
                .iter()
                .filter_map(|name| u8::from_str_radix(name, 16).ok())
                .collect();
            let listed: Vec<(String, Vec<String>)> = stream::iter(buckets)
                .map(|bucket| {
                    held.add_bucket(table, bucket);
                    let path = held.bucket_path(table, bucket);
                    async move {
                        let names = fence.children(&path).await?;
                        Ok::<_, RegistryError>((path, names))
                    }
                })
                .buffered(READS)
                .try_collect()
                .await?;
            let mut whole = Vec::new();
            let mut parts = Vec::new();
            for (path, name) in
                listed.iter().flat_map(|(path, names)| names.iter().map(move |name| (path, name)))
            {
                let kind = if layout::is_part(name) { &mut parts } else { &mut whole };
                kind.push(format!("{path}/{name}"));
            }
            let mut nodes = stream::iter(whole)
                .map(|path| async move {
                    let data = fence.data(&path).await?;
                    Ok::<_, RegistryError>((path, data))
                })
                .buffered(READS);
            let mut named = std::collections::HashSet::new();
            while let Some((path, data)) = nodes.try_next().await? {
                let node = Node::decode(data.as_slice())
                    .map_err(|error| EntryError { table, key: path.clone(), error })
                    .map_err(|error| RegistryError::Damaged { registry: fence.name(), error })?;
                let mut value = node.value;
                for part in node.parts.iter().flat_map(|parts| parts.paths(&path)) {
                    value.extend(fence.data(&part).await?);
                    named.insert(part);
                }
                held.add_entry(table, &node.key, value.len(), node.parts);
                entries.insert((table, node.key), value);
            }
            left_over.extend(parts.into_iter().filter(|part| !named.contains(part)).map(Op::delete));
        }
        let mut batch = Batch::default();
        for op in left_over {
            self.add(&mut batch, vec![op]).await?;
        }
        self.fence.commit(&batch.take()).await?;
        Ok((held, entries))
    }
}

impl Registry for ZooKeeperRegistry {
    fn recover(&mut self) -> Result<Recovered, RegistryError> {
        self.held = None;
        let (held, entries) = self.runtime.clone().block_on(self.load())?;
        self.held = Some(held);
        let mut recovered = Recovered::default();
        for ((table, key), value) in entries {
            let damaged = |error| RegistryError::Damaged { registry: self.fence.name(), error };
            recovered.add(table, &key, &value).map_err(damaged)?;
        }
        Ok(recovered)
    }

    fn write(&mut self, changes: &[RegistryChange]) -> Result<(), RegistryError> {
        let runtime = self.runtime.clone();
        let held = match self.held.take() {
            Some(held) => held,
            None => runtime.block_on(self.load())?.0,
        };
        self.held = Some(runtime.block_on(self.write_all(held, changes))?);
        Ok(())
    }

    fn size(&self) -> Option<u64> {
        self.held.as_ref().map(Held::bytes)
    }
}

impl std::fmt::Debug for ZooKeeperRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("ZooKeeperRegistry").field("at", &self.fence.name()).finish_non_exhaustive()
    }
}
