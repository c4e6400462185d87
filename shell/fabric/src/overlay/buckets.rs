//! Token buckets: how often each of many may do something.

use std::collections::HashMap;
use std::hash::Hash;

use kernel::Micros;

/// Connections that one public network may make each second, as a lasting rate.
pub(super) const NETWORK_CONNECTIONS_PER_SECOND: u32 = 4;
/// Connections that one public network may make at once after it was quiet.
pub(super) const NETWORK_CONNECTIONS_BURST: u32 = 32;
/// Questions that one peer may ask each second, as a lasting rate.
pub(super) const PEER_QUESTIONS_PER_SECOND: u32 = 1000;
/// Questions that one peer may ask at once after it was quiet.
pub(super) const PEER_QUESTIONS_BURST: u32 = 2000;
/// Most buckets of one kind: further names are refused until some have filled up again.
pub(super) const BUCKETS_MAX: usize = 4096;

/// A bucket for each name.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    /// Microseconds in which one token comes.
    step: u64,
    /// Microseconds in which an empty bucket fills.
    whole: u64,
    /// When each bucket will be full again.
    full_at: HashMap<K, Micros>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Buckets of `burst` tokens that get `rate` a second.
    pub fn new(rate: u32, burst: u32) -> Buckets<K> {
        let step = 1_000_000 / u64::from(rate.max(1));
        Buckets { step, whole: step * u64::from(burst), full_at: HashMap::new() }
    }

    /// Takes a token of `name`; false if it has none, or if there are too many names.
    pub fn take(&mut self, now: Micros, name: K) -> bool {
        if self.full_at.len() >= BUCKETS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= BUCKETS_MAX && !self.full_at.contains_key(&name) {
                return false;
            }
        }
        let full_at = self.full_at.entry(name).or_insert(now);
        let next = (*full_at).max(now) + self.step;
        let has = next.since(now) <= self.whole;
        if has {
            *full_at = next;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut buckets = Buckets::new(4, 8);
        let mut passed = |at: u64, name: u8| (0..20).filter(|_| buckets.take(Micros(at), name)).count();
        assert_eq!(passed(0, 1), 8);
        assert_eq!(passed(0, 1), 0);
        // Another one has its own.
        assert_eq!(passed(0, 2), 8);
        assert_eq!(passed(1_000_000, 1), 4);
        // It holds no more than the burst, however long it was quiet.
        assert_eq!(passed(100_000_000, 1), 8);
    }

    #[test]
    fn there_are_so_many_buckets_and_full_ones_make_room() {
        let mut buckets = Buckets::new(1, 1);
        let taken = (0..BUCKETS_MAX as u64 + 10).filter(|name| buckets.take(Micros(0), *name)).count();
        assert_eq!(taken, BUCKETS_MAX);
        assert!(!buckets.take(Micros(999_999), 1 << 40));
        assert!(buckets.take(Micros(1_000_000), 1 << 40));
        assert_eq!(buckets.full_at.len(), 1);
    }
}
