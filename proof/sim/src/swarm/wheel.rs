//! Events in the order of their time, for millions of them: two levels of buckets instead of one heap.
//!
//! The near level is the current *era* of 2^16 ticks of 128 µs; later eras wait whole in an ordered map. Both keep
//! the order of insertion among events of one moment, so that the order is the same in every run. Events themselves stay
//! in one place from their push to their pop; buckets have their times and places.

use std::collections::BTreeMap;

use kernel::Micros;

/// Microseconds of a tick, as a shift. No event is put into the tick that runs: it is moved to the next one.
const TICK_SHIFT: u32 = 7;
/// Ticks of an era, as a shift.
const ERA_SHIFT: u32 = 16;
const ERA_TICKS: usize = 1 << ERA_SHIFT;
/// Ticks behind the one that runs in which [`Wheel::coming`] looks.
const COMING_TICKS: usize = 16;
/// Emptied buckets that are kept for reuse.
const SPARE_MAX: usize = 256;

/// When, and the event's place in the slab.
type Bucket = Vec<(Micros, u32)>;

/// Events that wait. An event for the past or for the tick that runs happens in the next tick.
pub struct Wheel<T> {
    /// The tick whose events are in `running`; ticks are counted from the beginning of time.
    tick: u64,
    /// In falling order, so that the next one is the last.
    running: Bucket,
    near: Vec<Bucket>,
    near_count: usize,
    later: BTreeMap<u64, Bucket>,
    spare: Vec<Bucket>,
    /// Every event that waits, and the places that are free.
    slab: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Wheel<T> {
    /// Nothing waits; it is the beginning of time.
    pub fn new() -> Wheel<T> {
        Wheel {
            tick: 0,
            running: Vec::new(),
            near: (0..ERA_TICKS).map(|_| Vec::new()).collect(),
            near_count: 0,
            later: BTreeMap::new(),
            spare: Vec::new(),
            slab: Vec::new(),
            free: Vec::new(),
        }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.near_count == 0 && self.later.is_empty()
    }

    /// Puts an event at `at`, or at the next tick's beginning if that is later.
    pub fn push(&mut self, at: Micros, event: T) {
        let at = at.max(Micros((self.tick + 1) << TICK_SHIFT));
        let event = self.keep(event);
        let tick = at.0 >> TICK_SHIFT;
        if tick >> ERA_SHIFT == self.tick >> ERA_SHIFT {
            let bucket = &mut self.near[tick as usize & (ERA_TICKS - 1)];
            if bucket.capacity() == 0 {
                *bucket = self.spare.pop().unwrap_or_default();
            }
            bucket.push((at, event));
            self.near_count += 1;
        } else {
            self.later.entry(tick >> ERA_SHIFT).or_default().push((at, event));
        }
    }

    fn keep(&mut self, event: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.slab[place as usize] = Some(event);
            return place;
        }
        let place = u32::try_from(self.slab.len()).expect("fewer than 2^32 events wait");
        self.slab.push(Some(event));
        place
    }

    /// The next event, if it is not after `until`.
    pub fn pop(&mut self, until: Micros) -> Option<(Micros, T)> {
        while self.running.is_empty() {
            if !self.advance(until.0 >> TICK_SHIFT) {
                return None;
            }
        }
        let (at, place) = self.running.pop_if(|(at, _)| *at <= until)?;
        self.free.push(place);
        let event = self.slab[place as usize].take();
        Some((at, event.expect("a bucket's place holds an event")))
    }

    /// Where up to `most` events are that will be the next to happen unless others come between: those of the tick that
    /// runs, then of the ticks behind it.
    pub fn coming(&self, most: usize, out: &mut Vec<u32>) {
        let behind = (self.tick as usize & (ERA_TICKS - 1)) + 1;
        let behind = self.near[behind..].iter().take(COMING_TICKS).flatten();
        out.extend(self.running.iter().rev().chain(behind).take(most).map(|(_, place)| *place));
    }

    /// The event at a place that [`Wheel::coming`] told.
    pub fn at(&self, place: u32) -> Option<&T> {
        self.slab[place as usize].as_ref()
    }

    /// Makes the next tick that has events the running one; false if that is after `last`.
    fn advance(&mut self, last: u64) -> bool {
        if self.near_count == 0 {
            // Nothing is left of this era: straight to the next one that has anything.
            let Some((&era, _)) = self.later.first_key_value() else { return false };
            if era << ERA_SHIFT > last {
                return false;
            }
            self.begin(era);
        } else if self.tick < last {
            self.tick += 1;
        } else {
            return false;
        }
        let bucket = &mut self.near[self.tick as usize & (ERA_TICKS - 1)];
        if bucket.is_empty() {
            return true;
        }
        let empty = std::mem::replace(&mut self.running, std::mem::take(bucket));
        if empty.capacity() > 0 && self.spare.len() < SPARE_MAX {
            self.spare.push(empty);
        }
        self.near_count -= self.running.len();
        // Reversed and stable, so that equal moments keep the order of insertion when popped from the end.
        self.running.reverse();
        self.running.sort_by_key(|event| std::cmp::Reverse(event.0));
        true
    }

    fn begin(&mut self, era: u64) {
        self.tick = era << ERA_SHIFT;
        for (at, event) in self.later.remove(&era).unwrap_or_default() {
            self.near[(at.0 >> TICK_SHIFT) as usize & (ERA_TICKS - 1)].push((at, event));
            self.near_count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Rng;

    #[test]
    fn events_come_in_order_and_equal_moments_in_order_of_insertion() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut wheel = Wheel::new();
            let (mut pushed, mut popped) = (0u64, Vec::new());
            let spread = 1 << (8 + rng.below(24));
            for round in 0..40 {
                for _ in 0..rng.below(50) {
                    let at = Micros(round * spread / 4 + rng.below(spread) / 64 * 64);
                    wheel.push(at, pushed);
                    pushed += 1;
                }
                let until = Micros(round * spread / 4);
                while let Some((at, event)) = wheel.pop(until) {
                    assert!(at <= until, "seed {seed}");
                    popped.push((at, event));
                }
            }
            while let Some(event) = wheel.pop(Micros(u64::MAX >> 1)) {
                popped.push(event);
            }
            assert!(wheel.is_empty());
            assert_eq!(popped.len() as u64, pushed, "seed {seed}");
            for pair in popped.windows(2) {
                assert!(pair[0].0 <= pair[1].0, "seed {seed}: time went back");
                assert!(pair[0].0 < pair[1].0 || pair[0].1 < pair[1].1, "seed {seed}: {pair:?}");
            }
        }
    }

    #[test]
    fn an_event_for_the_past_happens_next() {
        let mut wheel = Wheel::new();
        wheel.push(Micros(1_000_000), 'a');
        assert_eq!(wheel.pop(Micros(2_000_000)), Some((Micros(1_000_000), 'a')));
        wheel.push(Micros(5), 'b');
        let (at, event) = wheel.pop(Micros(2_000_000)).unwrap();
        assert!(at > Micros(1_000_000) && event == 'b');
        assert!(wheel.is_empty());
    }
}
