//! Keeping to a memory budget: bodies the engine has leave memory, and caches lose keys.
//!
//! Sampling approximates LRU and LFU as Redis does: the best of a few random entries goes. Which entries
//! are in memory is this node's own affair and never part of the state.

use alloc::vec::Vec;

use kernel::Rng;

use super::Store;
use crate::object::table::{Entry, Key, Slot};

/// What a keyspace does at its memory budget, besides leaving bodies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Keeps every key; refuses writes when even the keys alone are over the budget.
    #[default]
    NoEviction,
    /// Deletes the keys least recently used.
    AllKeysLru,
    /// Deletes the keys least often used.
    AllKeysLfu,
    /// Deletes any keys.
    AllKeysRandom,
    /// As `AllKeysLru`, of those with an expiry.
    VolatileLru,
    /// As `AllKeysLfu`, of those with an expiry.
    VolatileLfu,
    /// Deletes any keys with an expiry.
    VolatileRandom,
    /// Deletes the keys that expire first.
    VolatileTtl,
}

impl Policy {
    /// The policy called `name` in Redis's `maxmemory-policy`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// All of them.
    pub const ALL: [Policy; 8] = [
        Policy::NoEviction,
        Policy::AllKeysLru,
        Policy::AllKeysLfu,
        Policy::AllKeysRandom,
        Policy::VolatileLru,
        Policy::VolatileLfu,
        Policy::VolatileRandom,
        Policy::VolatileTtl,
    ];

    /// Its name in Redis's `maxmemory-policy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::NoEviction => "noeviction",
            Policy::AllKeysLru => "allkeys-lru",
            Policy::AllKeysLfu => "allkeys-lfu",
            Policy::AllKeysRandom => "allkeys-random",
            Policy::VolatileLru => "volatile-lru",
            Policy::VolatileLfu => "volatile-lfu",
            Policy::VolatileRandom => "volatile-random",
            Policy::VolatileTtl => "volatile-ttl",
        }
    }

    /// Whether it counts uses instead of noting when the last one was.
    #[must_use]
    pub const fn is_lfu(self) -> bool {
        matches!(self, Policy::AllKeysLfu | Policy::VolatileLfu)
    }

    const fn is_volatile(self) -> bool {
        matches!(
            self,
            Policy::VolatileLru | Policy::VolatileLfu | Policy::VolatileRandom | Policy::VolatileTtl
        )
    }
}

/// Entries looked at for each that goes.
const SAMPLES: usize = 5;
/// Most entries that are passed by in search of them.
const WALK_MAX: usize = 4096;
/// How often that many are passed by in vain before the next turn goes on.
const EMPTY_WALKS_MAX: usize = 4;
/// Milliseconds that the LRU clock counts as one: a second would make all bodies of a busy node look as old
/// as each other. It goes round in two years.
const TICK_MILLIS: u64 = 16;
/// The longest time without use that is told apart from longer ones, in ticks.
const IDLE_TICKS_MAX: u64 = (u32::MAX / 2) as u64;
/// A new key's LFU counter, so that it has a chance to be used.
const LFU_NEW: u32 = 5;
/// How much slower the LFU counter grows as it gets larger (Redis's `lfu-log-factor`).
const LFU_FACTOR: u64 = 10;

/// Which bodies stay after they were read back. A key's last use is known although its body is gone: one
/// that was last used longer ago than the bodies that are leaving would soon leave again, and push out one
/// that is used more often (as in LRU-K, O'Neil et al. 1993, with K = 2).
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// Ticks without use after which bodies have left lately; 0 while there is room for all.
    leaving: u32,
    /// Read back for the command that runs, and to leave after it.
    passing: Vec<Slot>,
}

impl Store {
    /// A body was read back for a command; its entry's clock still tells the use before.
    pub(crate) fn admit(&mut self, slot: Slot) {
        if !self.is_admitted(slot) {
            self.admission.passing.push(slot);
        }
    }

    /// Whether the body at `slot`, which was just read back, stays.
    pub(crate) fn is_admitted(&self, slot: Slot) -> bool {
        let leaving = self.admission.leaving;
        leaving == 0 || self.policy.is_lfu() || self.age(self.entry(slot)) <= leaving
    }

    /// Lets the bodies go that were read back for one command only.
    #[inline]
    pub(crate) fn let_pass(&mut self) {
        while let Some(slot) = self.admission.passing.pop() {
            if self.table.get(slot).is_some() && self.is_evictable(slot) {
                self.evict_slot(slot);
            }
        }
    }

    /// There is room again: bodies that are read back stay.
    pub const fn make_room(&mut self) {
        self.admission.leaving = 0;
    }

    /// Sets what happens at the memory budget; the meaning of the access clocks starts afresh.
    pub const fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What happens at the memory budget.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The clock of an entry made now.
    #[inline]
    pub(crate) const fn access_clock(&self) -> u32 {
        if self.policy.is_lfu() { (self.minutes() << 8) | LFU_NEW } else { self.ticks() }
    }

    /// The LRU clock, which goes round.
    #[inline]
    const fn ticks(&self) -> u32 {
        (self.now.0 / TICK_MILLIS) as u32
    }

    /// Ticks since `entry` was last used.
    const fn age(&self, entry: &Entry) -> u32 {
        let age = self.ticks().wrapping_sub(entry.clock);
        // A little after now: the clock of reads may be behind the stamp of the last write.
        if age > u32::MAX / 2 { 0 } else { age }
    }

    /// The clock of an entry last used `seconds` ago.
    pub(crate) const fn clock_before(&self, seconds: u64) -> u32 {
        let ticks = seconds.saturating_mul(1000) / TICK_MILLIS;
        self.ticks().wrapping_sub(if ticks > IDLE_TICKS_MAX { IDLE_TICKS_MAX as u32 } else { ticks as u32 })
    }

    const fn minutes(&self) -> u32 {
        (self.now.0 / 60_000) as u32 & 0x00FF_FFFF
    }

    /// Notes an access to the entry at `slot`.
    #[inline]
    pub(crate) fn accessed(&mut self, slot: Slot) {
        if self.policy.is_lfu() {
            self.counted(slot);
        } else {
            let ticks = self.ticks();
            self.entry_mut(slot).clock = ticks;
        }
    }

    fn counted(&mut self, slot: Slot) {
        let minutes = self.minutes();
        let counter = self.frequency(self.entry(slot));
        let above = u64::from(counter.saturating_sub(LFU_NEW));
        let grows = counter < 255 && self.sampling.below(above * LFU_FACTOR + 1) == 0;
        self.entry_mut(slot).clock = minutes << 8 | (counter + u32::from(grows));
    }

    /// The LFU counter of `entry`, one less for each minute without access.
    pub(crate) const fn frequency(&self, entry: &Entry) -> u32 {
        let idle = self.minutes().wrapping_sub(entry.clock >> 8) & 0x00FF_FFFF;
        (entry.clock & 0xFF).saturating_sub(idle)
    }

    /// Seconds since `entry` was last used; 0 under LFU, which does not know.
    pub(crate) const fn idle_of(&self, entry: &Entry) -> u32 {
        if self.policy.is_lfu() {
            return 0;
        }
        // The use may have been at the beginning of its tick.
        ((self.age(entry) as u64 * TICK_MILLIS + TICK_MILLIS - 1) / 1000) as u32
    }

    /// Evicts bodies that the engine has until `bytes` are freed or `tries` went. Returns the bytes freed.
    pub fn evict_bodies(&mut self, bytes: usize, tries: usize) -> usize {
        let (mut freed, mut walks_left) = (0, EMPTY_WALKS_MAX);
        for _ in 0..tries {
            if freed >= bytes {
                break;
            }
            match self.oldest_body() {
                Some(slot) => {
                    let age = self.age(self.entry(slot)).max(1);
                    let leaving = &mut self.admission.leaving;
                    // A mean of the last few: single ones vary.
                    *leaving = if *leaving == 0 { age } else { *leaving - *leaving / 16 + age / 16 };
                    freed += self.evict_slot(slot);
                }
                None if walks_left == 0 || self.is_barren() => break,
                None => walks_left -= 1,
            }
        }
        freed
    }

    /// True if the last search for bodies went past every entry and found none that may leave.
    #[must_use]
    pub const fn is_barren(&self) -> bool {
        self.barren >= self.table.places()
    }

    /// The oldest of the next few bodies that could be evicted, in the order of their slots.
    ///
    /// A walk and not a draw: when most bodies are gone, a random entry seldom has one, and looking at it
    /// costs a cache miss. Neighbours in the slab are no likelier to be used alike than any two entries.
    fn oldest_body(&mut self) -> Option<Slot> {
        let mut best: Option<(u32, Slot)> = None;
        let mut found = 0;
        for _ in 0..WALK_MAX.min(self.table.places()) {
            let slot = self.hand;
            self.hand = Slot(if slot.0 as usize + 1 < self.table.places() { slot.0 + 1 } else { 0 });
            let Some(entry) = self.table.get(slot).filter(|_| self.is_evictable(slot)) else {
                self.barren += 1;
                continue;
            };
            self.barren = 0;
            let age = if self.policy.is_lfu() { 255 - self.frequency(entry) } else { self.age(entry) };
            if best.is_none_or(|(oldest, _)| age > oldest) {
                best = Some((age, slot));
            }
            found += 1;
            if found == SAMPLES {
                break;
            }
        }
        best.map(|(_, slot)| slot)
    }

    /// The key that the policy would delete next; `None` if it may delete none.
    pub fn victim(&mut self) -> Option<Key> {
        let mut rng: Rng = self.sampling.clone();
        let mut best: Option<(u64, Slot)> = None;
        for _ in 0..SAMPLES {
            let slot = if self.policy.is_volatile() {
                self.random_expiring(&mut rng)
            } else {
                self.table.random(&mut rng)
            };
            let Some(slot) = slot else { break };
            let entry = self.entry(slot);
            let rank = match self.policy {
                Policy::NoEviction => return None,
                Policy::AllKeysLru | Policy::VolatileLru => u64::from(self.age(entry)),
                Policy::AllKeysLfu | Policy::VolatileLfu => u64::from(255 - self.frequency(entry)),
                Policy::AllKeysRandom | Policy::VolatileRandom => 0,
                Policy::VolatileTtl => u64::MAX - entry.expire_at,
            };
            if best.is_none_or(|(highest, _)| rank > highest) {
                best = Some((rank, slot));
            }
        }
        self.sampling = rng;
        best.map(|(_, slot)| self.entry(slot).key.clone())
    }

    /// A random entry with an expiry: the first one after a random moment between the first and the last.
    fn random_expiring(&self, rng: &mut Rng) -> Option<Slot> {
        let (first, last) = (self.expiry.first()?, self.expiry.last()?);
        let from = (first.0 + rng.below(last.0 - first.0 + 1), rng.next_u64(), Slot(0));
        self.expiry.range(from..).next().or(Some(first)).map(|&(_, _, slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Value;
    use crate::store::Ttl;
    use kernel::{Index, Micros, Millis};

    fn filled(policy: Policy) -> Store {
        let mut store = Store::new(1);
        store.set_policy(policy);
        for n in 0..100u64 {
            store.begin_entry(Index(n + 1), Micros(1_000_000 * (n + 1)));
            let ttl = if n % 2 == 0 { Ttl::At(Millis(10_000_000 + n)) } else { Ttl::Clear };
            store
                .set(alloc::format!("k{n}").as_bytes(), Value::from_bytes(&[b'x'; 200]), ttl)
                .expect("it is short");
        }
        store.end_entry();
        store
    }

    #[test]
    fn a_policy_picks_only_what_it_may() {
        for policy in Policy::ALL {
            assert_eq!(Policy::from_name(policy.name()), Some(policy));
            let mut store = filled(policy);
            for _ in 0..50 {
                let victim = store.victim();
                assert_eq!(victim.is_none(), policy == Policy::NoEviction);
                if let Some(key) = victim {
                    let even = (key[key.len() - 1] - b'0').is_multiple_of(2);
                    assert!(even || !policy.is_volatile(), "{policy:?} took {key:?}");
                }
            }
        }
    }

    #[test]
    fn a_body_leaves_memory_only_after_a_durable_cut() {
        let mut store = filled(Policy::NoEviction);
        assert_eq!(store.evict_bodies(usize::MAX, 1000), 0);
        store.begin_cut();
        assert!(
            store
                .write_cut(usize::MAX)
                .is_some_and(|(frame, images)| frame.objects == 100 && images.len() == 100)
        );
        assert_eq!(store.evict_bodies(usize::MAX, 1000), 0);
        store.cut_is_durable();
        let before = store.memory_bytes();
        let freed = store.evict_bodies(usize::MAX, 1000);
        assert!(freed > 10_000);
        assert_eq!(store.memory_bytes(), before - freed);
    }

    /// The engine of these tests: every body is 200 times the same byte.
    struct Same;

    impl crate::apply::Fetch for Same {
        fn fetch(&self, _: u32, _: &[u8]) -> Result<alloc::vec::Vec<u8>, alloc::string::String> {
            let mut body = alloc::vec::Vec::new();
            Value::from_bytes(&[b'x'; 200]).encode(&mut body);
            Ok(body)
        }
    }

    /// `keys` strings at second 1 000, all of them only in the engine.
    fn evicted(keys: u64) -> Store {
        let mut store = Store::new(1);
        store.begin_entry(Index(1), Micros(1_000_000_000));
        for n in 0..keys {
            store.set(&n.to_be_bytes(), Value::from_bytes(&[b'x'; 200]), Ttl::Clear).expect("it is short");
        }
        store.end_entry();
        store.begin_cut();
        assert!(store.write_cut(usize::MAX).is_some());
        store.cut_is_durable();
        while store.evict_bodies(usize::MAX, 1000) > 0 {}
        store.set_fetch(alloc::boxed::Box::new(Same));
        store
    }

    fn read(store: &mut Store, key: u64, millis: u64) {
        store.begin_reads(Micros(millis * 1000));
        assert!(store.value(&key.to_be_bytes()).expect("it is fetched").is_some());
    }

    #[test]
    fn the_few_bodies_in_memory_are_found_among_many_that_are_not() {
        let mut store = evicted(10_000);
        let empty = store.memory_bytes();
        for key in 0..8 {
            read(&mut store, key * 1_200, 1_000_000);
        }
        assert!(store.memory_bytes() > empty + 8 * 150);
        store.evict_bodies(usize::MAX, 16);
        assert_eq!(store.memory_bytes(), empty);
    }

    #[test]
    fn the_body_that_was_used_a_moment_earlier_leaves_first() {
        let mut store = evicted(SAMPLES as u64);
        store.make_room();
        for key in 0..SAMPLES as u64 {
            // Later keys were used earlier, all within a second.
            read(&mut store, key, 1_000_900 - 100 * key);
        }
        store.begin_reads(Micros(1_001_000_000));
        for key in (0..SAMPLES as u64).rev() {
            assert!(store.evict_bodies(1, 1) > 0);
            let hash = store.table.hash(&key.to_be_bytes());
            let slot = store.table.find(hash, &key.to_be_bytes()).expect("it is there");
            assert!(matches!(store.entry(slot).value, Value::Evicted(_)), "key {key} should have left");
        }
    }
    #[test]
    fn a_body_that_was_read_back_stays_only_if_its_key_was_used_lately() {
        // The bodies left within 16 ms of their last use.
        let mut store = evicted(2);
        let empty = store.memory_bytes();
        let stays = |store: &mut Store, key, millis| {
            read(store, key, millis);
            store.begin_reads(Micros(0));
            store.memory_bytes() > empty
        };
        assert!(!stays(&mut store, 0, 1_005_000), "it had not been used for five seconds");
        assert!(stays(&mut store, 0, 1_005_016), "it was used 16 ms before");
        store.evict_bodies(usize::MAX, 2);
        assert!(!stays(&mut store, 1, 1_020_000));
        store.make_room();
        assert!(stays(&mut store, 0, 1_040_000), "there is room for all");
    }
}
