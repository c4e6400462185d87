//! A group of one: it leads for ever, and its disk is the majority.

use std::collections::VecDeque;

use kernel::planted::{Bug, is};
use kernel::{Index, Lsn, Term};

use crate::{Durability, Group, Proposed};

/// A group with one replica: it leads, and its disk is the majority.
#[derive(Clone, Debug)]
pub struct Solo {
    term: Term,
    last: Index,
    committed: Index,
    durability: Durability,
    unsynced: VecDeque<(Index, Lsn)>,
}

impl Solo {
    /// A group that recovered up to `last` in `term`.
    #[must_use]
    pub fn new(term: Term, last: Index, durability: Durability) -> Solo {
        Solo { term, last, committed: last, durability, unsynced: VecDeque::new() }
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

    #[inline]
    fn written(&mut self, proposed: &Proposed<'_>, end: Lsn) {
        match self.durability {
            Durability::Always if is(Bug::AckBeforeSync) => self.committed = proposed.index,
            Durability::Always => self.unsynced.push_back((proposed.index, end)),
            Durability::EverySec => self.committed = proposed.index,
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
    use kernel::Micros;

    use super::*;

    #[test]
    fn always_commits_on_sync_and_everysec_on_write() {
        for (durability, after_write) in [(Durability::Always, Index(0)), (Durability::EverySec, Index(1))] {
            let mut group = Solo::new(Term(1), Index(0), durability);
            assert_eq!(group.propose(), Some((Term(1), Index(1))));
            assert_eq!(group.committed(), Index(0));
            let (index, semantics, time) = (Index(1), 1, Micros(0));
            group.written(&Proposed { index, semantics, time, body: b"x" }, Lsn(100));
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
