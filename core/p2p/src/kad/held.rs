//! Which handles a node holds, for a host whose directory is bounded.

use super::dht::Dht;
use super::query::{Goal, Phase, Query};
use super::record::Validator;
use crate::Contact;

impl<C: Contact, V: Validator> Dht<C, V> {
    /// Calls `hold` with every handle that the node may still name or ask the place of, some of them several times. A
    /// host may give any other one to another peer. O(all contacts).
    pub fn held(&self, hold: &mut impl FnMut(C)) {
        hold(self.me);
        self.table.all().for_each(&mut *hold);
        self.store.senders().for_each(&mut *hold);
        self.pending.iter().for_each(|(contact, _)| hold(contact));
        self.queries.iter().for_each(|query| query.held(hold));
    }
}

impl<C: Contact> Query<C> {
    fn held(&self, hold: &mut impl FnMut(C)) {
        self.lookup.candidates().for_each(&mut *hold);
        self.region.iter().for_each(|(_, contact)| hold(*contact));
        match &self.phase {
            Phase::Search => {}
            Phase::Measure { lookup, .. } | Phase::Sweep { lookup, .. } => {
                lookup.candidates().for_each(&mut *hold);
            }
            Phase::Reach { queue, .. } => queue.iter().copied().for_each(&mut *hold),
        }
        match &self.goal {
            Goal::Node | Goal::Put(_) | Goal::Provide => {}
            Goal::Value(votes) => {
                votes.holders.iter().chain(&votes.behind).copied().for_each(&mut *hold);
            }
            Goal::Providers(found) => found.iter().copied().for_each(hold),
        }
    }
}
