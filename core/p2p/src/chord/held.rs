//! Which handles a node of the ring holds, for a host whose directory is bounded.

use super::Chord;
use super::lookup::Lookup;
use super::{Purpose, State};
use crate::Contact;

impl<C: Contact> Chord<C> {
    /// Calls `hold` with every handle that the node may still name or ask the place of, some of them several times. A
    /// host may give any other one to another peer. O(all contacts).
    pub fn held(&self, hold: &mut impl FnMut(C)) {
        hold(self.own);
        if let State::Joining(joining) = &self.state {
            hold(joining.seed());
        }
        let cached = self.cache.iter().flat_map(|cache| cache.nodes());
        let ring = self.predecessor.into_iter().chain(self.successors.iter().copied());
        let known = self.fingers.iter().flatten().copied().chain(cached);
        ring.chain(known).for_each(&mut *hold);
        for (to, purpose) in self.pending.iter() {
            hold(to);
            match purpose {
                Purpose::Probe { newcomer: named } | Purpose::Unite { contact: named } => hold(*named),
                Purpose::Find { .. }
                | Purpose::Own { .. }
                | Purpose::Successor
                | Purpose::Candidate
                | Purpose::JoinOwner
                | Purpose::JoinPrevious
                | Purpose::Value { .. }
                | Purpose::Copy
                | Purpose::Fresh { .. }
                | Purpose::Check { .. }
                | Purpose::Hand => {}
            }
        }
        self.values.iter().flat_map(|values| values.nodes()).for_each(&mut *hold);
        self.unite.iter().flat_map(|unite| unite.nodes()).for_each(&mut *hold);
        self.lookups.iter().flat_map(Lookup::nodes).for_each(hold);
    }
}
