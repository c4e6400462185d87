//! The other nodes as workers: each has a number beyond the node's own workers, so that what workers send each
//! other reaches them too.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::{NodeId, WorkerId};

use crate::cluster::{NOBODY, PEERS_FIRST};

/// Most nodes that are ever numbered in one life of this node.
const PEERS_MAX: usize = 0x8000;

const _: () = assert!(PEERS_FIRST as usize + PEERS_MAX < NOBODY.0 as usize);

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    nodes: Vec<NodeId>,
    numbers: BTreeMap<NodeId, WorkerId>,
}

impl Peers {
    /// The worker that stands for `node`, from its first mention on; [`NOBODY`] beyond [`PEERS_MAX`] nodes.
    pub fn worker(&mut self, node: NodeId) -> WorkerId {
        if let Some(&worker) = self.numbers.get(&node) {
            return worker;
        }
        if self.nodes.len() == PEERS_MAX {
            return NOBODY;
        }
        let worker = WorkerId(PEERS_FIRST + self.nodes.len() as u16);
        self.nodes.push(node);
        self.numbers.insert(node, worker);
        worker
    }

    /// The worker that stands for `node`, if it was ever mentioned.
    pub fn known(&self, node: NodeId) -> Option<WorkerId> {
        self.numbers.get(&node).copied()
    }

    /// The node that `worker` stands for.
    pub fn node(&self, worker: WorkerId) -> Option<NodeId> {
        self.nodes.get(usize::from(worker.0.checked_sub(PEERS_FIRST)?)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_number() {
        let mut peers = Peers::default();
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        let first = peers.worker(one);
        assert_eq!((first, peers.worker(two)), (WorkerId(PEERS_FIRST), WorkerId(PEERS_FIRST + 1)));
        assert_eq!(peers.worker(one), first);
        assert_eq!((peers.node(first), peers.node(NOBODY), peers.node(WorkerId(0))), (Some(one), None, None));
    }
}
