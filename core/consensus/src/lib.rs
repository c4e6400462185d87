//! Agreement in groups, behind one trait: who may propose, and what is committed.
//!
//! A group of one commits what its own disk has; the replicated group comes with the cluster and
//! changes neither the log's format nor the worker's path.

use kernel::planted::{Bug, is};
use kernel::{Index, Lsn, Term};

/// When an entry counts as committed on this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is synced to disk: an acknowledged write survives power loss.
    Always,
    /// When the operating system has it; synced within a second. Redis's `everysec`.
    EverySec,
}

/// One replica's view of a group.
pub trait Group {
    /// The term and index of the next entry, if this replica may propose.
    fn propose(&mut self) -> Option<(Term, Index)>;
    /// The entry just proposed was refused by the disk and is nowhere; its index is free again.
    fn withdraw(&mut self, index: Index);
    /// Entries up to `index` are in the operating system and end at `end` in the node's log.
    fn written(&mut self, index: Index, end: Lsn);
    /// The node's log is synced up to `lsn`.
    fn synced(&mut self, lsn: Lsn);
    /// The last index that is as durable as promised.
    fn committed(&self) -> Index;
    /// The durability it promises.
    fn durability(&self) -> Durability;
}

/// A group with one replica: it leads, and its disk is the majority.
#[derive(Clone, Debug)]
pub struct Solo {
    term: Term,
    last: Index,
    committed: Index,
    durability: Durability,
    unsynced: std::collections::VecDeque<(Index, Lsn)>,
}

impl Solo {
    /// A group that recovered up to `last` in `term`.
    #[must_use]
    pub fn new(term: Term, last: Index, durability: Durability) -> Solo {
        Solo { term, last, committed: last, durability, unsynced: std::collections::VecDeque::new() }
    }

    /// The last proposed index.
    #[must_use]
    pub const fn last(&self) -> Index {
        self.last
    }

    /// Promises another durability from now on. To be called when nothing is on its way: an entry written
    /// under the old promise could be overtaken.
    pub fn set_durability(&mut self, durability: Durability) {
        assert!(self.unsynced.is_empty(), "a group changes its promise when nothing is on its way");
        self.durability = durability;
    }

    /// The term it leads in.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }
}

impl Group for Solo {
    fn propose(&mut self) -> Option<(Term, Index)> {
        self.last = self.last.next();
        Some((self.term, self.last))
    }

    fn withdraw(&mut self, index: Index) {
        assert_eq!(index, self.last, "only the last proposal can be withdrawn");
        self.last = if is(Bug::WithdrawnIndexKept) { index } else { Index(index.0 - 1) };
    }

    fn written(&mut self, index: Index, end: Lsn) {
        match self.durability {
            Durability::Always if is(Bug::AckBeforeSync) => self.committed = index,
            Durability::Always => self.unsynced.push_back((index, end)),
            Durability::EverySec => self.committed = index,
        }
    }

    fn synced(&mut self, lsn: Lsn) {
        while let Some(&(index, end)) = self.unsynced.front() {
            if end > lsn {
                return;
            }
            self.committed = index;
            self.unsynced.pop_front();
        }
    }

    fn committed(&self) -> Index {
        self.committed
    }

    fn durability(&self) -> Durability {
        self.durability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_commits_on_sync_and_everysec_on_write() {
        for (durability, after_write) in [(Durability::Always, Index(0)), (Durability::EverySec, Index(1))] {
            let mut group = Solo::new(Term(1), Index(0), durability);
            assert_eq!(group.propose(), Some((Term(1), Index(1))));
            assert_eq!(group.committed(), Index(0));
            group.written(Index(1), Lsn(100));
            assert_eq!(group.committed(), after_write);
            group.synced(Lsn(99));
            assert_eq!(group.committed(), after_write);
            group.synced(Lsn(100));
            assert_eq!(group.committed(), Index(1));
        }
    }

    #[test]
    fn a_withdrawn_index_is_proposed_again() {
        let mut group = Solo::new(Term(1), Index(4), Durability::Always);
        group.propose();
        group.withdraw(Index(5));
        assert_eq!(group.propose(), Some((Term(1), Index(5))));
    }
}
