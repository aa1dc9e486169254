//! Which nodes hold an entry, and which operations write one.
//!
//! [`Held`] mirrors what is in ZooKeeper, without the values: whether to make a node or to change it is
//! known without asking, since nobody else writes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::batch::Op;
use crate::registry::Table;
use crate::registry::entries::Write;

/// The largest value that an entry's node holds itself, and the largest part of a larger one.
pub(super) const PART: usize = 128 * 1024;
/// Longer keys are no names of nodes, so that a bucket's list of names stays short.
const NAME: usize = 128;

/// What an entry's node holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    /// Empty when it is in parts.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub(super) parts: Option<Parts>,
}

/// The nodes beside an entry's that hold its value, `<name>~<generation>.<0..count>`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Parts {
    /// Counts the changes of the value, so that old parts and new ones have their own nodes.
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(uint64, tag = "2")]
    count: u64,
}

/// The operations of a change.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// What changes nothing yet: directories, and parts of new values.
    pub(super) before: Vec<Op>,
    /// What makes the change.
    pub(super) together: Vec<Op>,
    /// What is of no use any more.
    pub(super) after: Vec<Op>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Held {
    /// The path of the registry's node.
    root: String,
    tables: HashSet<Table>,
    buckets: HashSet<(Table, u8)>,
    entries: HashMap<(Table, String), Entry>,
    /// All keys and values.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    parts: Option<Parts>,
}

/// Whether the node of this name holds a part of a value.
pub(super) fn is_part(name: &str) -> bool {
    name.contains('~')
}

/// The bucket of a key, and the name of its node there: the key itself where it can be one.
fn place(key: &str) -> (u8, String) {
    let digest = Sha256::digest(key);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:@".contains(&byte);
    let plain = (1..=NAME).contains(&key.len())
        && key.bytes().all(|byte| good(byte) || byte == b'.')
        && key.bytes().any(good);
    let name = || digest.iter().fold("+".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    (digest[0], if plain { key.to_owned() } else { name() })
}

// === impl Parts ===

impl Parts {
    /// Their paths, in order, beside the entry at this path.
    pub(super) fn paths(&self, entry: &str) -> impl Iterator<Item = String> + use<> {
        let (start, numbers): (String, Range<u64>) = (format!("{entry}~{}", self.generation), 0..self.count);
        numbers.map(move |number| format!("{start}.{number}"))
    }
}

// === impl Held ===

impl Held {
    /// Nothing yet.
    pub(super) fn new(root: &str) -> Self {
        Self {
            root: root.to_owned(),
            tables: HashSet::new(),
            buckets: HashSet::new(),
            entries: HashMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn table_path(&self, table: Table) -> String {
        format!("{}/{}", self.root, table.name())
    }

    pub(super) fn bucket_path(&self, table: Table, bucket: u8) -> String {
        format!("{}/{bucket:02x}", self.table_path(table))
    }

    pub(super) fn add_table(&mut self, table: Table) -> bool {
        self.tables.insert(table)
    }

    pub(super) fn add_bucket(&mut self, table: Table, bucket: u8) -> bool {
        self.buckets.insert((table, bucket))
    }

    /// What there was at this key, if anything.
    pub(super) fn add_entry(
        &mut self,
        table: Table,
        key: &str,
        value: usize,
        parts: Option<Parts>,
    ) -> Option<Option<Parts>> {
        let bytes = (key.len() + value) as u64;
        self.bytes += bytes;
        let old = self.entries.insert((table, key.to_owned()), Entry { bytes, parts })?;
        self.bytes -= old.bytes;
        Some(old.parts)
    }

    fn remove_entry(&mut self, table: Table, key: &str) -> Option<Option<Parts>> {
        let old = self.entries.remove(&(table, key.to_owned()))?;
        self.bytes -= old.bytes;
        Some(old.parts)
    }

    /// What to do for a write, after what was planned before.
    pub(super) fn plan(&mut self, write: Write, steps: &mut Steps) {
        let Write { table, key, value } = write;
        let (bucket, name) = place(&key);
        let path = format!("{}/{name}", self.bucket_path(table, bucket));
        let old = match value {
            Some(value) => self.plan_value(table, bucket, (key, &path), value, steps),
            None => {
                let old = self.remove_entry(table, &key);
                steps.together.extend(old.map(|_| Op::delete(path.clone())));
                old
            }
        };
        let old_parts = old.flatten().into_iter().flat_map(|parts| parts.paths(&path));
        steps.after.extend(old_parts.map(Op::delete));
    }

    fn plan_value(
        &mut self,
        table: Table,
        bucket: u8,
        (key, path): (String, &str),
        value: Vec<u8>,
        steps: &mut Steps,
    ) -> Option<Option<Parts>> {
        let directory = |path| Op::Create { path, data: Vec::new() };
        if self.add_table(table) {
            steps.before.push(directory(self.table_path(table)));
        }
        if self.add_bucket(table, bucket) {
            steps.before.push(directory(self.bucket_path(table, bucket)));
        }
        let before = self.entries.get(&(table, key.clone())).and_then(|entry| entry.parts);
        let parts = (value.len() > PART).then(|| Parts {
            generation: before.map_or(0, |before| before.generation + 1),
            count: value.len().div_ceil(PART) as u64,
        });
        let old = self.add_entry(table, &key, value.len(), parts);
        let node = match &parts {
            None => Node { key, value, parts: None },
            Some(parts) => {
                let data = parts.paths(path).zip(value.chunks(PART));
                steps.before.extend(data.map(|(path, data)| Op::Create { path, data: data.to_vec() }));
                Node { key, value: Vec::new(), parts: Some(*parts) }
            }
        };
        let (path, data) = (path.to_owned(), node.encode_to_vec());
        steps.together.push(if old.is_some() { Op::Set { path, data } } else { Op::Create { path, data } });
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(held: &mut Held, key: &str, value: Option<usize>) -> Steps {
        let mut steps = Steps::default();
        let value = value.map(|length| vec![1; length]);
        held.plan(Write { table: Table::Admitted, key: key.to_owned(), value }, &mut steps);
        steps
    }

    #[test]
    fn names_of_nodes_are_short_and_plain() {
        assert_eq!(place("20-S7").1, "20-S7");
        for key in ["", ".", "..", "a/b", "a~b", "\u{e9}", &"x".repeat(NAME + 1)] {
            let (bucket, name) = place(key);
            assert_eq!(name.len(), 65);
            assert!(name.starts_with(&format!("+{bucket:02x}")), "{name}");
            assert!(!is_part(&name));
        }
    }

    #[test]
    fn a_node_is_made_changed_and_removed() {
        let mut held = Held::new("/r");
        let made = plan(&mut held, "a", Some(10));
        assert_eq!(made.before.len(), 2, "the table and the bucket: {made:?}");
        assert!(
            matches!(&made.together[..], [Op::Create { path, .. }] if path == "/r/admitted/ca/a"),
            "{made:?}"
        );
        assert_eq!(held.bytes(), 11);
        let changed = plan(&mut held, "a", Some(20));
        assert!(
            changed.before.is_empty() && matches!(&changed.together[..], [Op::Set { .. }]),
            "{changed:?}"
        );
        let removed = plan(&mut held, "a", None);
        assert!(matches!(&removed.together[..], [Op::Delete { .. }]), "{removed:?}");
        let nothing = plan(&mut held, "a", None);
        assert!(nothing.together.is_empty() && held.bytes() == 0, "{nothing:?}");
    }

    #[test]
    fn a_large_value_is_in_parts_that_are_replaced_whole() {
        let mut held = Held::new("/r");
        let made = plan(&mut held, "a", Some(2 * PART + 1));
        let parts = |ops: &[Op]| -> Vec<String> {
            let path = |op: &Op| match op {
                Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path } => path.clone(),
            };
            ops.iter().map(path).filter(|path| is_part(path)).collect()
        };
        let first = ["/r/admitted/ca/a~0.0", "/r/admitted/ca/a~0.1", "/r/admitted/ca/a~0.2"];
        assert_eq!(parts(&made.before), first);
        let changed = plan(&mut held, "a", Some(PART + 1));
        assert_eq!(parts(&changed.before), ["/r/admitted/ca/a~1.0", "/r/admitted/ca/a~1.1"]);
        assert_eq!(parts(&changed.after), first);
        let small = plan(&mut held, "a", Some(1));
        assert_eq!(parts(&small.after).len(), 2);
    }
}
