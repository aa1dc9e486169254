//! Operations on nodes, gathered for one transaction.

/// Bytes of a transaction of several changes.
pub(super) const BYTES: usize = 512 * 1024;
/// Operations of a transaction of several changes. ZooKeeper holds up everybody while it works one off.
const OPS: usize = 1024;
/// Bytes of a transaction of one change, which should be whole. Below ZooKeeper's limit of 1 MiB, since what its
/// servers tell each other of a transaction is a little larger than what they were told.
pub(super) const WHOLE: usize = 900 * 1024;
/// What an operation takes beside its path and its data: headers, and the list of who may.
const OVERHEAD: usize = 100;

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Create { path: String, data: Vec<u8> },
    Set { path: String, data: Vec<u8> },
    Delete { path: String },
}

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

// === impl Op ===

impl Op {
    pub(super) fn delete(path: String) -> Self {
        Self::Delete { path }
    }

    fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Create { path, data } | Self::Set { path, data } => path.len() + data.len(),
                Self::Delete { path } => path.len(),
            }
    }
}

// === impl Batch ===

impl Batch {
    /// Whether these, which belong together, can be added. An empty batch has room for any one operation.
    pub(super) fn has_room_for(&self, ops: &[Op]) -> bool {
        let bytes: usize = ops.iter().map(Op::bytes).sum();
        if self.ops.is_empty() {
            return ops.len() <= 1 || bytes <= WHOLE;
        }
        self.bytes + bytes <= BYTES && self.ops.len() + ops.len() <= OPS
    }

    pub(super) fn push(&mut self, op: Op) {
        self.bytes += op.bytes();
        self.ops.push(op);
    }

    pub(super) fn take(&mut self) -> Vec<Op> {
        std::mem::take(self).ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_its_limits() {
        let small = || Op::delete("/a".to_owned());
        let large = || Op::Set { path: "/a".to_owned(), data: vec![0; BYTES / 2] };
        let mut batch = Batch::default();
        batch.push(large());
        assert!(!batch.has_room_for(&[large()]));
        assert!(batch.has_room_for(&[small()]));
        for _ in 1..OPS {
            batch.push(small());
        }
        assert!(!batch.has_room_for(&[small()]));
        assert_eq!(batch.take().len(), OPS);
        let many: Vec<Op> = (0..2 * OPS).map(|_| small()).collect();
        assert!(batch.has_room_for(&many), "one change is whole");
        assert!(
            !batch.has_room_for(&[large(), large(), large(), large()]),
            "unless ZooKeeper would refuse it"
        );
    }
}
