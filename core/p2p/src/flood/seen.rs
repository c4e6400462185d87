//! What was seen lately, within a bound: the oldest is forgotten first.

use alloc::collections::{BTreeSet, VecDeque};

use super::MessageId;

/// The last so many message ids.
#[derive(Clone, Debug)]
pub struct Seen {
    most: usize,
    order: VecDeque<MessageId>,
    ids: BTreeSet<MessageId>,
}

impl Seen {
    /// Room for `most` ids; memory is taken as they come.
    #[must_use]
    pub const fn new(most: usize) -> Seen {
        Seen { most, order: VecDeque::new(), ids: BTreeSet::new() }
    }

    /// Remembers `id`; false if it is remembered already.
    pub fn insert(&mut self, id: MessageId) -> bool {
        if self.most == 0 {
            return true;
        }
        if !self.ids.insert(id) {
            return false;
        }
        if self.order.len() == self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
        true
    }

    /// Is `id` remembered?
    #[must_use]
    pub fn contains(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_the_bound_is_kept() {
        let mut seen = Seen::new(3);
        for id in 0..10 {
            assert!(seen.insert(MessageId(id)));
            assert!(!seen.insert(MessageId(id)));
        }
        assert_eq!((seen.order.len(), seen.ids.len()), (3, 3));
        for (id, there) in [(6, false), (7, true), (9, true)] {
            assert_eq!(seen.contains(MessageId(id)), there, "{id}");
        }
    }
}
