//! Distributions of whole numbers in log-linear buckets.
//!
//! Each power of two is cut into eight equal buckets, so a bucket's bounds are within 12.5 % of each other,
//! from 0 to 2⁴⁰ (as microseconds, twelve days). Recording is two relaxed loads and stores.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of one power of two: 2³.
const SPLIT_BITS: u32 = 3;
const SPLIT: usize = 1 << SPLIT_BITS;
/// Values of this many bits and more are counted as the largest below.
const VALUE_BITS_MAX: u32 = 40;
const BUCKETS: usize = (VALUE_BITS_MAX - SPLIT_BITS + 1) as usize * SPLIT;

/// A distribution that one thread records into.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64; BUCKETS]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]), sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Notes `value`. About two nanoseconds. Two writers would lose each other's counts.
    #[inline]
    pub fn record(&self, value: u64) {
        let value = value.min((1 << VALUE_BITS_MAX) - 1);
        let bucket = &self.buckets[bucket_of(value)];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }

    /// Adds what was recorded to `into`.
    pub fn read(&self, into: &mut Distribution) {
        for (total, bucket) in into.buckets.iter_mut().zip(self.buckets.iter()) {
            *total += bucket.load(Ordering::Relaxed);
        }
        into.sum = into.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
    }

    /// What was recorded until now.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let mut distribution = Distribution::default();
        self.read(&mut distribution);
        distribution
    }
}

/// What histograms recorded, merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    buckets: Vec<u64>,
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Distribution {
        Distribution { buckets: vec![0; BUCKETS], sum: 0 }
    }
}

impl Distribution {
    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All values together.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// How many values are below `2^bits`. Exact.
    #[must_use]
    pub fn below_power(&self, bits: u32) -> u64 {
        let end = if bits >= VALUE_BITS_MAX { BUCKETS } else { bucket_of(1 << bits) };
        self.buckets[..end].iter().sum()
    }

    /// A value that `share` (0 to 1) of all values do not exceed, at most 12.5 % too large; 0 without
    /// values.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let reached = |n: &u64| {
            seen += n;
            seen >= rank
        };
        let bucket = self.buckets.iter().position(reached).expect("the rank is at most the count");
        highest_of(bucket)
    }
}

#[inline]
const fn bucket_of(value: u64) -> usize {
    if value < SPLIT as u64 {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let within = (value >> (power - SPLIT_BITS)) as usize - SPLIT;
    (power - SPLIT_BITS + 1) as usize * SPLIT + within
}

/// The largest value in `bucket`.
const fn highest_of(bucket: usize) -> u64 {
    if bucket < SPLIT {
        return bucket as u64;
    }
    let shift = (bucket / SPLIT - 1) as u32;
    (((SPLIT + bucket % SPLIT + 1) as u64) << shift) - 1
}

const _: () = assert!(bucket_of((1 << VALUE_BITS_MAX) - 1) == BUCKETS - 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        histogram.distribution()
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(highest_of(bucket)), bucket);
            assert!(bucket + 1 == BUCKETS || bucket_of(highest_of(bucket) + 1) == bucket + 1, "{bucket}");
        }
    }

    #[test]
    fn quantiles_of_known_values_are_known() {
        #[rustfmt::skip] // columns
        let table = [
            // values         share  quantile
            (vec![],          0.5,   0),
            (vec![5],         0.5,   5),
            (vec![1, 2, 3],   0.5,   2),
            (vec![1, 2, 3],   1.0,   3),
            (vec![1, 2, 3],   0.0,   1),
            (vec![u64::MAX],  0.5,   (1 << VALUE_BITS_MAX) - 1),
        ];
        for (values, share, expected) in table {
            assert_eq!(of(&values).quantile(share), expected, "{values:?} {share}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_too_small_and_at_most_an_eighth_too_large(
            mut values in proptest::collection::vec(0u64..1 << VALUE_BITS_MAX, 1..200),
            share in 0.0f64..1.0,
        ) {
            let found = of(&values).quantile(share);
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            prop_assert!(found >= exact);
            prop_assert!(found <= exact + exact / 8 + 1);
        }

        #[test]
        fn counting_below_a_power_of_two_is_exact(
            values in proptest::collection::vec(0u64..1 << VALUE_BITS_MAX, 0..200),
            bits in 0u32..=VALUE_BITS_MAX,
        ) {
            let expected = values.iter().filter(|&&value| value < 1 << bits).count() as u64;
            prop_assert_eq!(of(&values).below_power(bits), expected);
        }

        #[test]
        fn merging_is_as_recording_into_one(
            a in proptest::collection::vec(0u64..1 << 20, 0..50),
            b in proptest::collection::vec(0u64..1 << 20, 0..50),
        ) {
            let (one, other) = (Histogram::default(), Histogram::default());
            a.iter().for_each(|&value| one.record(value));
            b.iter().for_each(|&value| other.record(value));
            let mut merged = one.distribution();
            other.read(&mut merged);
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
