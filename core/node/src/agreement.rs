//! How a partition agrees: alone, or with replicas on other nodes; or not at all, once its replica is gone.

use alloc::boxed::Box;

use consensus::{Durability, Group, Proposed, Replica, Solo};
use kernel::{Index, Lsn, Term};

/// A partition's group, as this node sees it.
pub enum Agreement {
    /// A node without a cluster: its disk is the majority.
    Solo(Solo),
    /// One of several replicas.
    Replica(Box<Replica>),
    /// None: the place is empty, and waits for the next replica.
    Gone,
}

impl Agreement {
    /// The replica, if it is one of several.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        match self {
            Agreement::Replica(replica) => Some(replica),
            Agreement::Solo(_) | Agreement::Gone => None,
        }
    }

    /// The same, to be driven.
    pub fn replica_mut(&mut self) -> Option<&mut Replica> {
        match self {
            Agreement::Replica(replica) => Some(replica),
            Agreement::Solo(_) | Agreement::Gone => None,
        }
    }

    /// The highest term that is known; 0 for none.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Agreement::Solo(solo) => solo.term(),
            Agreement::Replica(replica) => replica.term(),
            Agreement::Gone => Term(0),
        }
    }

    /// The last index that was proposed or taken from a leader, committed or not.
    #[must_use]
    pub fn last(&self) -> Index {
        match self {
            Agreement::Solo(solo) => solo.last(),
            Agreement::Replica(replica) => replica.last(),
            Agreement::Gone => Index(0),
        }
    }

    /// Promises another durability from now on; only a group of one does, when nothing is on its way.
    pub(crate) fn set_durability(&mut self, durability: Durability) {
        match self {
            Agreement::Solo(solo) => solo.set_durability(durability),
            Agreement::Replica(_) | Agreement::Gone => {
                unreachable!("keyspaces of replicated groups are not exchanged")
            }
        }
    }
}

impl Group for Agreement {
    #[inline]
    fn propose(&mut self) -> Option<(Term, Index)> {
        match self {
            Agreement::Solo(solo) => solo.propose(),
            Agreement::Replica(replica) => replica.propose(),
            Agreement::Gone => None,
        }
    }

    fn withdraw(&mut self, index: Index) {
        match self {
            Agreement::Solo(solo) => solo.withdraw(index),
            Agreement::Replica(replica) => replica.withdraw(index),
            Agreement::Gone => {}
        }
    }

    #[inline]
    fn written(&mut self, proposed: &Proposed<'_>, end: Lsn) {
        match self {
            Agreement::Solo(solo) => solo.written(proposed, end),
            Agreement::Replica(replica) => replica.written(proposed, end),
            Agreement::Gone => {}
        }
    }

    #[inline]
    fn synced(&mut self, lsn: Lsn) {
        match self {
            Agreement::Solo(solo) => solo.synced(lsn),
            Agreement::Replica(replica) => replica.synced(lsn),
            Agreement::Gone => {}
        }
    }

    #[inline]
    fn committed(&self) -> Index {
        match self {
            Agreement::Solo(solo) => solo.committed(),
            Agreement::Replica(replica) => replica.committed(),
            Agreement::Gone => Index(0),
        }
    }

    fn durability(&self) -> Durability {
        match self {
            Agreement::Solo(solo) => solo.durability(),
            Agreement::Replica(replica) => replica.durability(),
            Agreement::Gone => Durability::EverySec,
        }
    }
}
