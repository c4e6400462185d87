//! Requests that wait for room at their service: bounded, by class, and in each class the first one first.
//!
//! Who waits is told once, when there is room, and the room is its own from then on (a grant): a request that comes later
//! does not take it. A grant is spent by entering, or given back. A class waits for those above it without a bound; who
//! waits has a deadline, which its owner keeps.

use alloc::collections::BTreeMap;

use kernel::planted::{Bug, is};
use thiserror::Error;

use crate::limit::Priority;

/// How many may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Requests that wait at once; 0: none does.
    pub places: u32,
    /// How long each may, in milliseconds.
    pub wait_ms: u64,
}

impl Default for QueueOptions {
    /// Nobody waits; if somebody did, a second.
    fn default() -> QueueOptions {
        QueueOptions { places: 0, wait_ms: 1_000 }
    }
}

/// All places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{places} requests wait, which is the limit")]
pub struct Full {
    /// How many there are.
    pub places: u32,
}

/// Where a request waits; its own until it is granted room or gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Higher classes have lower ranks.
    rank: u8,
    number: u64,
}

/// Those who wait for one service. Each is known by a number of its owner's.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    options: QueueOptions,
    waiting: BTreeMap<Place, u64>,
    /// So many have room and have not entered yet.
    granted: u32,
    /// The next one's.
    number: u64,
}

impl Queue {
    /// Nobody waits.
    #[must_use]
    pub fn new(options: QueueOptions) -> Queue {
        Queue { options, ..Queue::default() }
    }

    /// The same with other options; who waits still does.
    #[must_use]
    pub fn with(self, options: QueueOptions) -> Queue {
        Queue { options, ..self }
    }

    /// How many may wait, and how long.
    #[must_use]
    pub const fn options(&self) -> QueueOptions {
        self.options
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a request that has just come must not go past those who wait or have been granted room, with so many under
    /// way of at most so many.
    #[must_use]
    #[inline]
    pub fn comes_first(&self, requests: u32, most: u32) -> bool {
        !self.waiting.is_empty() || (self.granted > 0 && requests.saturating_add(self.granted) >= most)
    }

    /// A request waits. O(log waiting).
    ///
    /// # Errors
    /// [`Full`]; it does not.
    pub fn wait(&mut self, class: Priority, who: u64) -> Result<Place, Full> {
        let places = self.options.places;
        if self.waiting.len() >= places as usize {
            return Err(Full { places });
        }
        let rank = match class {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        let place = Place { rank, number: self.number };
        self.number += 1;
        self.waiting.insert(place, who);
        Ok(place)
    }

    /// A request waits no more. False: it was granted room before, which it must give back.
    pub fn leave(&mut self, place: Place) -> bool {
        self.waiting.remove(&place).is_some()
    }

    /// Who has room next, if there is room: with so many under way of at most so many.
    #[inline]
    pub fn grant(&mut self, requests: u32, most: u32) -> Option<u64> {
        if self.waiting.is_empty() || requests.saturating_add(self.granted) >= most {
            return None;
        }
        let next = if is(Bug::QueueServesLast) { self.waiting.pop_last() } else { self.waiting.pop_first() };
        self.granted += u32::from(next.is_some());
        next.map(|(_, who)| who)
    }

    /// A grant is spent, or is not wanted any more.
    pub fn spend(&mut self) {
        assert!(self.granted > 0, "who enters by a grant has one");
        self.granted -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const CLASSES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    fn queue(places: u32) -> Queue {
        Queue::new(QueueOptions { places, wait_ms: 1 })
    }

    #[test]
    fn the_most_important_goes_first_and_in_a_class_the_first() {
        use Priority::{High, Low, Normal};
        let mut one = queue(6);
        for (who, class) in (0..).zip([Normal, Low, High, Normal, High, Low]) {
            one.wait(class, who).unwrap();
        }
        assert_eq!(one.wait(High, 6), Err(Full { places: 6 }), "nobody is sent away for another");
        let order: Vec<u64> = (0..6).filter_map(|_| one.grant(0, 100)).collect();
        assert_eq!(order, [2, 4, 0, 3, 1, 5]);
    }

    #[test]
    fn room_is_granted_once_and_kept() {
        let mut one = queue(3);
        let places: Vec<Place> = (0..3).map(|who| one.wait(Priority::Normal, who).unwrap()).collect();
        assert_eq!(one.grant(4, 4), None, "there is none");
        assert_eq!((one.grant(3, 4), one.grant(3, 4)), (Some(0), None), "it is the first one's");
        assert!(one.comes_first(3, 4), "and nobody else's");
        assert!(one.leave(places[1]) && !one.leave(places[0]) && !one.leave(places[1]));
        one.spend();
        assert_eq!(one.grant(3, 4), Some(2), "who gave up is not granted any");
        assert!(one.comes_first(3, 4) && !one.comes_first(2, 4));
        one.spend();
        assert!(!one.comes_first(3, 4) && one.is_empty());
    }

    #[test]
    fn other_options_send_nobody_away() {
        let mut one = queue(2);
        one.wait(Priority::Low, 7).unwrap();
        let mut one = one.with(QueueOptions::default());
        assert_eq!(one.wait(Priority::High, 8), Err(Full { places: 0 }));
        assert_eq!((one.len(), one.grant(0, 1)), (1, Some(7)));
    }

    proptest! {
        /// Of what came, each is granted room, has given up, or still waits; nobody is granted room beyond the limit, or
        /// before one of its own class that came earlier and waits.
        #[test]
        fn nobody_is_lost_and_each_class_keeps_its_order(
            steps in prop::collection::vec((0u8..5, any::<u8>()), 1..200),
            places in 0u32..6,
            most in 1u32..4,
        ) {
            let mut one = queue(places);
            let (mut waiting, mut granted, mut under_way) = (vec![], vec![], 0u32);
            let (mut came, mut done) = (0u64, 0u64);
            for (step, value) in steps {
                match step {
                    0 if one.comes_first(under_way, most) || under_way >= most => {
                        let class = CLASSES[usize::from(value) % 3];
                        match one.wait(class, came) {
                            Ok(place) => waiting.push((class, came, place)),
                            Err(full) => {
                                prop_assert_eq!((full.places as usize, places), (waiting.len(), places));
                                done += 1;
                            }
                        }
                        came += 1;
                    }
                    0 => (came, under_way) = (came + 1, under_way + 1),
                    1 if under_way > 0 => (under_way, done) = (under_way - 1, done + 1),
                    2 if !waiting.is_empty() => {
                        let (_, _, place) = waiting.remove(usize::from(value) % waiting.len());
                        prop_assert!(one.leave(place));
                        done += 1;
                    }
                    3 if !granted.is_empty() => {
                        granted.swap_remove(usize::from(value) % granted.len());
                        one.spend();
                        // It enters, or its client is gone.
                        if value & 64 == 0 { under_way += 1 } else { done += 1 }
                    }
                    _ => {}
                }
                while let Some(who) = one.grant(under_way, most) {
                    let at = waiting.iter().position(|(_, other, _)| *other == who).expect("it waited");
                    let (class, _, _) = waiting.remove(at);
                    prop_assert!(waiting.iter().all(|&(other, number, _)| other < class || other == class && number > who));
                    granted.push(who);
                }
                prop_assert!(under_way + granted.len() as u32 <= most);
                prop_assert!(waiting.is_empty() || under_way + granted.len() as u32 == most, "nobody waits beside room");
                let all = done + u64::from(under_way) + (waiting.len() + granted.len()) as u64;
                prop_assert_eq!(all, came, "nobody is lost");
            }
        }
    }
}
