//! Which ring a node enters: it begins as a ring of one, and joins that of a peer that it meets.
//!
//! Two rings of one must not both leave for the other: a node that is on its way in answers nobody. So the one with the
//! larger point goes at once and the other waits a while, after which it goes if the first did not come. Ours; the papers
//! begin with a ring.
//!
//! Limits: only a ring of one goes. Two larger rings that meet stay two: whoever is alone decides by whom it meets first.

use alloc::collections::BTreeMap;

use kernel::{Micros, Rng};

/// How long the one with the smaller point waits for the other, in microseconds.
pub const YIELD_MICROS: u64 = 3_000_000;
/// How long after a try the next one comes, in microseconds: longer than a node tries to join.
pub const AGAIN_MICROS: u64 = 40_000_000;
/// Most peers that are remembered as ways in.
pub const WAYS_MAX: usize = 64;

/// The ways into rings that a node knows.
#[derive(Clone, Debug)]
pub struct Entry<C> {
    point: u64,
    /// Peers that speak the protocol, with their points.
    ways: BTreeMap<C, u64>,
    /// Through whom it was tried last.
    tried: Option<C>,
    due: Option<Micros>,
    rng: Rng,
}

impl<C: Copy + Ord> Entry<C> {
    /// Of the node at `point`, which knows none.
    #[must_use]
    pub const fn new(point: u64, rng: Rng) -> Entry<C> {
        Entry { point, ways: BTreeMap::new(), tried: None, due: None, rng }
    }

    /// A peer at `point` speaks the protocol.
    pub fn met(&mut self, now: Micros, peer: C, point: u64) {
        if self.ways.len() >= WAYS_MAX {
            return;
        }
        self.ways.insert(peer, point);
        let wait = if self.point > point { 0 } else { YIELD_MICROS + self.rng.below(YIELD_MICROS) };
        self.due = Some(self.due.map_or(now + wait, |due| due.min(now + wait)));
    }

    /// It does so no more, or is gone.
    pub fn parted(&mut self, peer: C) {
        self.ways.remove(&peer);
        self.tried = self.tried.filter(|tried| *tried != peer);
        if self.ways.is_empty() {
            self.due = None;
        }
    }

    /// The node is alone again.
    pub fn cut_off(&mut self, now: Micros) {
        if !self.ways.is_empty() {
            self.due = Some(now + YIELD_MICROS + self.rng.below(YIELD_MICROS));
        }
    }

    /// When [`Entry::wake`] must next be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Micros> {
        self.due
    }

    /// Through whom to join now, if the node is alone and it is time. A larger point than ours is tried only if there is
    /// no smaller one, and who was tried the last time only if there is no other: it may be no member itself.
    pub fn wake(&mut self, now: Micros, alone: bool) -> Option<C> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = (!self.ways.is_empty()).then(|| now + AGAIN_MICROS + self.rng.below(YIELD_MICROS));
        if !alone {
            return None;
        }
        let tried = self.tried.filter(|_| self.ways.len() > 1);
        let others = || self.ways.iter().filter(|(peer, _)| tried != Some(**peer));
        let smaller = others().filter(|(_, point)| **point < self.point).count();
        let fit = |point: u64| smaller == 0 || point < self.point;
        let most = if smaller == 0 { others().count() } else { smaller };
        if most == 0 {
            return None;
        }
        let drawn = self.rng.below(most as u64) as usize;
        self.tried = others().filter(|(_, point)| fit(**point)).nth(drawn).map(|(peer, _)| *peer);
        self.tried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_are_alone_one_goes_at_once_and_the_other_waits() {
        let now = Micros(7);
        let (mut low, mut high) = (Entry::new(10, Rng::new(1)), Entry::new(20, Rng::new(2)));
        low.met(now, 'h', 20);
        high.met(now, 'l', 10);
        assert_eq!(high.wake(now, true), Some('l'));
        assert_eq!(low.wake(now, true), None);
        let due = low.deadline().unwrap();
        assert!(due >= now + YIELD_MICROS);
        // It came meanwhile, or it did not.
        assert_eq!(low.clone().wake(due, false), None);
        assert_eq!(low.wake(due, true), Some('h'));
        // Tried again, but later than a join may take.
        assert!(low.deadline().unwrap() >= due + AGAIN_MICROS);
    }

    #[test]
    fn who_knows_smaller_points_goes_to_one_of_them() {
        for seed in 0..50 {
            let mut entry = Entry::new(10, Rng::new(seed));
            for (peer, point) in [('a', 3), ('b', 30), ('c', 5), ('d', 11)] {
                entry.met(Micros(0), peer, point);
            }
            entry.parted('c');
            assert_eq!(entry.wake(Micros(0), true), Some('a'), "{seed}");
            entry.parted('a');
            let due = entry.deadline().unwrap();
            assert!(matches!(entry.wake(due, true), Some('b' | 'd')), "{seed}");
            entry.parted('b');
            entry.parted('d');
            assert_eq!(entry.deadline(), None);
        }
    }

    #[test]
    fn who_did_not_lead_in_is_not_asked_again_at_once() {
        for seed in 0..50 {
            let mut entry = Entry::new(10, Rng::new(seed));
            for (peer, point) in [('a', 3), ('b', 5), ('c', 30)] {
                entry.met(Micros(0), peer, point);
            }
            let (mut now, mut last) = (Micros(0), None);
            for _ in 0..10 {
                let next = entry.wake(now, true);
                assert!(matches!(next, Some('a' | 'b')) && next != last, "{seed}: {next:?} after {last:?}");
                (now, last) = (entry.deadline().unwrap(), next);
            }
            // A larger point leads in as well, and the only one that is left is asked again.
            entry.parted(if last == Some('a') { 'b' } else { 'a' });
            assert_eq!(entry.wake(now, true), Some('c'), "{seed}");
            entry.parted('c');
            for _ in 0..3 {
                assert_eq!(entry.wake(entry.deadline().unwrap(), true), last, "{seed}");
            }
        }
    }

    #[test]
    fn there_are_so_many_ways() {
        let mut entry = Entry::new(0, Rng::new(1));
        (0..1000u32).for_each(|peer| entry.met(Micros(0), peer, 1));
        assert_eq!(entry.ways.len(), WAYS_MAX);
    }
}
