//! Who may have a link: the members of the cluster, one set that is replaced whole and read by all loops.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kernel::NodeId;
use mio::Waker;

/// The members, shared. It is read when a handshake ends and when it has changed, not for each frame.
#[derive(Default)]
pub struct Members {
    state: RwLock<State>,
    version: AtomicU64,
}

#[derive(Default)]
struct State {
    set: Arc<BTreeSet<NodeId>>,
    /// The loops that must hear of a change at once.
    wakers: Vec<Arc<Waker>>,
}

impl Members {
    /// These nodes.
    #[must_use]
    pub fn new(set: BTreeSet<NodeId>) -> Members {
        let members = Members::default();
        members.replace(set);
        members
    }

    /// From now on these are the members: links of others are closed in the next turn of their loop, which is woken,
    /// and no frame that arrives in it is handed on.
    pub fn replace(&self, set: BTreeSet<NodeId>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.set = Arc::new(set);
        self.version.fetch_add(1, Ordering::Release);
        for waker in &state.wakers {
            // A loop that has ended has no links.
            let _ = waker.wake();
        }
    }

    /// The members now. Does not copy the set.
    #[must_use]
    pub fn get(&self) -> Arc<BTreeSet<NodeId>> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).set)
    }

    /// Is this node one?
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.get().contains(&node)
    }

    /// Grows with each [`Members::replace`]. A relaxed-cost load.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Has `waker` woken at each change.
    pub fn watch(&self, waker: Arc<Waker>) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).wakers.push(waker);
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.get().iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_replaced_whole_and_its_version_tells() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let members = Members::new(BTreeSet::from([a]));
        let (before, version) = (members.get(), members.version());
        members.replace(BTreeSet::from([b]));
        assert!(members.contains(b) && !members.contains(a));
        assert!(before.contains(&a), "who reads sees one version");
        assert!(members.version() > version);
    }
}
