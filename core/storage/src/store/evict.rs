//! Keeping to a memory budget: bodies the engine has leave memory, and caches lose keys.
//!
//! Sampling approximates LRU and LFU as Redis does: the best of a few random entries goes. Which entries
//! are in memory is this node's own affair and never part of the state.

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
/// A new key's LFU counter, so that it has a chance to be used.
const LFU_NEW: u32 = 5;
/// How much slower the LFU counter grows as it gets larger (Redis's `lfu-log-factor`).
const LFU_FACTOR: u64 = 10;

impl Store {
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
        if self.policy.is_lfu() { (self.minutes() << 8) | LFU_NEW } else { self.seconds() }
    }

    #[inline]
    const fn seconds(&self) -> u32 {
        (self.now.0 / 1000) as u32
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
            let seconds = self.seconds();
            self.entry_mut(slot).clock = seconds;
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
        if self.policy.is_lfu() { 0 } else { self.seconds().saturating_sub(entry.clock) }
    }

    /// Evicts bodies that the engine has until `bytes` are freed or `tries` samples were taken. Returns
    /// the bytes freed.
    pub fn evict_bodies(&mut self, bytes: usize, tries: usize) -> usize {
        let mut freed = 0;
        for _ in 0..tries {
            if freed >= bytes {
                break;
            }
            let mut best: Option<(u32, Slot)> = None;
            for _ in 0..SAMPLES {
                let Some(slot) = self.table.random(&mut self.sampling) else { return freed };
                let entry = self.entry(slot);
                let age =
                    if self.policy.is_lfu() { 255 - self.frequency(entry) } else { self.idle_of(entry) };
                if self.is_evictable(slot) && best.is_none_or(|(oldest, _)| age > oldest) {
                    best = Some((age, slot));
                }
            }
            if let Some((_, slot)) = best {
                freed += self.evict_slot(slot);
            }
        }
        freed
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
                Policy::AllKeysLru | Policy::VolatileLru => u64::from(self.idle_of(entry)),
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
}
