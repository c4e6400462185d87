//! Requests that wait for room at their service: bounded, by class, and in each class the first one first.
//!
//! Who waits is told once, when there is room, and the room is its own from then on (a grant): a request that comes later
//! does not take it. A grant is spent by entering, or given back. A class waits for those above it without a bound; who
//! waits has a deadline, which its owner keeps. Who would not be granted room before it is told so at once, from how fast its
//! class is granted any: an answer that comes too late helps nobody, and the client can ask elsewhere meanwhile. Where all
//! places are taken the last of the lowest class gives its own to a request of a higher one.

use alloc::collections::BTreeMap;

use kernel::Micros;
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

/// Why a request does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoPlace {
    /// All places are taken, by requests that are as important.
    #[error("{places} requests wait, which is the limit")]
    Full {
        /// How many there are.
        places: u32,
    },
    /// It would wait for longer than it may.
    #[error("room is expected in {micros} microseconds, which is too late")]
    Late {
        /// For how long, as it looks.
        micros: u64,
    },
}

/// A request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Where.
    pub place: Place,
    /// Who waits no more, because the place was its own.
    pub displaced: Option<u64>,
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
    /// By rank.
    lines: [Line; 3],
    /// So many have room and have not entered yet.
    granted: u32,
    /// The next one's.
    number: u64,
}

/// Those of one class.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    waiting: u32,
    /// When one was granted room, or began to wait where nobody did.
    since: Micros,
    /// How long it is from one grant to the next while somebody waits, in microseconds, smoothed; 0: nothing is known.
    every: u64,
}

/// The weight of the latest time between two grants is one of so many.
const GRANTS: u64 = 16;

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

    /// How long a request that comes now would wait for room, in microseconds, as it looks: as many grants as there are
    /// of its class before it, at the pace at which that is granted room.
    fn expected(&self, now: Micros, rank: u8) -> u64 {
        let line = &self.lines[usize::from(rank)];
        // The first one finds out.
        if line.waiting == 0 {
            return 0;
        }
        let every = line.every.max(now.since(line.since));
        u64::from(line.waiting + 1).saturating_mul(every)
    }

    /// A request waits. O(log waiting).
    ///
    /// # Errors
    /// [`NoPlace`]; it does not.
    pub fn wait(&mut self, now: Micros, class: Priority, who: u64) -> Result<Waits, NoPlace> {
        let QueueOptions { places, wait_ms } = self.options;
        let rank = match class {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        let patience = wait_ms.saturating_mul(1_000);
        let micros = self.expected(now, rank);
        if micros > patience && !is(Bug::LateWaits) {
            return Err(NoPlace::Late { micros });
        }
        let displaced = if self.waiting.len() < places as usize {
            None
        } else {
            Some(self.displace(rank).ok_or(NoPlace::Full { places })?)
        };
        let line = &mut self.lines[usize::from(rank)];
        if line.waiting == 0 {
            // What was long ago says nothing.
            if now.since(line.since) > patience {
                line.every = 0;
            }
            line.since = now;
        }
        line.waiting += 1;
        let place = Place { rank, number: self.number };
        self.number += 1;
        self.waiting.insert(place, who);
        Ok(Waits { place, displaced })
    }

    /// Sends away the last one of the lowest class, if that is below `rank`.
    fn displace(&mut self, rank: u8) -> Option<u64> {
        let (&last, _) = self.waiting.last_key_value()?;
        if last.rank <= rank {
            return None;
        }
        let (place, who) =
            if is(Bug::DisplacesFirst) { self.waiting.pop_first() } else { self.waiting.pop_last() }?;
        if !is(Bug::DisplacedStillCounted) {
            self.lines[usize::from(place.rank)].waiting -= 1;
        }
        Some(who)
    }

    /// A request waits no more. False: it was granted room before, which it must give back.
    pub fn leave(&mut self, place: Place) -> bool {
        let waited = self.waiting.remove(&place).is_some();
        self.lines[usize::from(place.rank)].waiting -= u32::from(waited);
        waited
    }

    /// Who has room next, if there is room: with so many under way of at most so many.
    #[inline]
    pub fn grant(&mut self, now: Micros, requests: u32, most: u32) -> Option<u64> {
        if self.waiting.is_empty() || requests.saturating_add(self.granted) >= most {
            return None;
        }
        let next = if is(Bug::QueueServesLast) { self.waiting.pop_last() } else { self.waiting.pop_first() };
        let (place, who) = next?;
        self.granted += 1;
        let line = &mut self.lines[usize::from(place.rank)];
        line.waiting -= 1;
        let took = now.since(line.since);
        line.every = if line.every == 0 { took } else { (line.every * (GRANTS - 1) + took) / GRANTS };
        line.since = now;
        Some(who)
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

    const NOW: Micros = Micros(1_000_000_000);

    fn queue(places: u32) -> Queue {
        Queue::new(QueueOptions { places, wait_ms: 1 })
    }

    #[test]
    fn the_most_important_goes_first_and_in_a_class_the_first() {
        use Priority::{High, Low, Normal};
        let mut one = queue(6);
        for (who, class) in (0..).zip([Normal, Low, High, Normal, High, Low]) {
            assert_eq!(one.wait(NOW, class, who).unwrap().displaced, None);
        }
        let order: Vec<u64> = (0..6).filter_map(|_| one.grant(NOW, 0, 100)).collect();
        assert_eq!(order, [2, 4, 0, 3, 1, 5]);
    }

    #[test]
    fn where_all_places_are_taken_the_last_of_the_lowest_class_goes_for_a_higher_one() {
        use Priority::{High, Low, Normal};
        #[rustfmt::skip] // columns
        let table = [
            // waiting                        comes    instead of
            (vec![High, Low, Low, Normal],    High,    Some(2)),
            (vec![High, Low, Low, Normal],    Normal,  Some(2)),
            (vec![High, Low, Low, Normal],    Low,     None),
            (vec![Normal, High, Normal],      High,    Some(2)),
            (vec![Normal, High, Normal],      Normal,  None),
            (vec![High],                      High,    None),
            (vec![],                          High,    None),
        ];
        for (waiting, comes, displaced) in table {
            let mut one = queue(waiting.len() as u32);
            let places: Vec<Place> =
                (0..).zip(&waiting).map(|(who, class)| one.wait(NOW, *class, who).unwrap().place).collect();
            let found = one.wait(NOW, comes, 9);
            match displaced {
                None => assert_eq!(found, Err(NoPlace::Full { places: waiting.len() as u32 })),
                Some(who) => {
                    assert_eq!(found.unwrap().displaced, Some(who), "{waiting:?} {comes:?}");
                    assert!(!one.leave(places[who as usize]), "it waits no more");
                }
            }
            assert_eq!(one.len(), waiting.len());
            let counted: u32 = one.lines.iter().map(|line| line.waiting).sum();
            assert_eq!(counted as usize, one.len());
        }
    }

    #[test]
    fn who_would_have_room_too_late_is_told_at_once() {
        let mut one = Queue::new(QueueOptions { places: 1_000, wait_ms: 50 });
        let at = |ms: u64| NOW.plus_millis(ms);
        // One of low class is granted room every 10 ms.
        for who in 0..5 {
            one.wait(at(0), Priority::Low, who).unwrap();
        }
        for turn in 1..=4 {
            assert!(one.grant(at(turn * 10), 0, 9).is_some());
            one.spend();
        }
        let more =
            |one: &mut Queue, ms, class| (0..100).take_while(|_| one.wait(at(ms), class, 9).is_ok()).count();
        assert_eq!(more(&mut one, 40, Priority::Low), 4, "five wait 50 ms");
        assert_eq!(one.wait(at(40), Priority::Low, 9), Err(NoPlace::Late { micros: 60_000 }));
        assert_eq!(more(&mut one, 40, Priority::High), 100, "in its own line nobody has waited");
        // None was granted any for long: nobody of that class would be.
        assert_eq!(one.wait(at(95), Priority::Low, 9), Err(NoPlace::Late { micros: 330_000 }));
        // All have gone, and it is long ago.
        while one.grant(at(96), 0, 1_000).is_some() {}
        assert_eq!(more(&mut one, 300, Priority::Low), 100);
    }

    #[test]
    fn room_is_granted_once_and_kept() {
        let mut one = queue(3);
        let places: Vec<Place> =
            (0..3).map(|who| one.wait(NOW, Priority::Normal, who).unwrap().place).collect();
        assert_eq!(one.grant(NOW, 4, 4), None, "there is none");
        assert_eq!((one.grant(NOW, 3, 4), one.grant(NOW, 3, 4)), (Some(0), None), "it is the first one's");
        assert!(one.comes_first(3, 4), "and nobody else's");
        assert!(one.leave(places[1]) && !one.leave(places[0]) && !one.leave(places[1]));
        one.spend();
        assert_eq!(one.grant(NOW, 3, 4), Some(2), "who gave up is not granted any");
        assert!(one.comes_first(3, 4) && !one.comes_first(2, 4));
        one.spend();
        assert!(!one.comes_first(3, 4) && one.is_empty());
    }

    #[test]
    fn other_options_send_nobody_away() {
        let mut one = queue(2);
        one.wait(NOW, Priority::Low, 7).unwrap();
        let mut one = one.with(QueueOptions::default());
        assert_eq!(one.wait(NOW, Priority::Low, 8), Err(NoPlace::Full { places: 0 }));
        assert_eq!((one.len(), one.grant(NOW, 0, 1)), (1, Some(7)));
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
                        match one.wait(NOW, class, came) {
                            Ok(Waits { place, displaced }) => {
                                if let Some(who) = displaced {
                                    let at = waiting.iter().position(|(_, other, _)| *other == who);
                                    let (lower, ..) = waiting.remove(at.expect("it waited"));
                                    prop_assert!(lower < class);
                                    let is_last = waiting.iter().all(|&(other, number, _)| {
                                        other > lower || other == lower && number < who
                                    });
                                    prop_assert!(is_last, "the last of the lowest");
                                    done += 1;
                                }
                                waiting.push((class, came, place));
                            }
                            Err(no_place) => {
                                prop_assert_eq!(no_place, NoPlace::Full { places });
                                prop_assert_eq!(places as usize, waiting.len());
                                prop_assert!(waiting.iter().all(|&(other, ..)| other >= class));
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
                while let Some(who) = one.grant(NOW, under_way, most) {
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
