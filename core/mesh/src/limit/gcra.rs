//! Rates: the generic cell rate algorithm (ITU-T I.371, annex A), one moment of memory for each key.
//!
//! A key's memory is when its bucket will be empty again. A key that is not in the table has an empty bucket, so
//! forgetting an idle key changes nothing, and the table is bounded without any timer.

use alloc::vec::Vec;

use kernel::Micros;
use thiserror::Error;

/// So many requests in so long, and so many at once.
///
/// Invariant: none of them is 0, and the interval is at least a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds of the bucket that one request takes.
    interval_nanos: u64,
    /// Nanoseconds that the bucket holds besides one request.
    tolerance_nanos: u64,
}

/// Why there is no such rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// It would let nothing through.
    #[error("a rate needs at least one request, one millisecond and a burst of one")]
    Zero,
    /// It is finer than a microsecond.
    #[error("{requests} requests in {per_ms} ms are more than a million a second")]
    TooFast {
        /// Requests.
        requests: u32,
        /// Milliseconds.
        per_ms: u64,
    },
    /// It is coarser than can be counted.
    #[error("a burst of {burst} at one request in {interval_ms} ms is longer than a year")]
    TooSlow {
        /// The burst.
        burst: u32,
        /// Milliseconds.
        interval_ms: u64,
    },
}

/// Longest bucket, in milliseconds: a year.
const BUCKET_MS_MAX: u64 = 365 * 24 * 3600 * 1000;

impl Rate {
    /// `requests` in each `per_ms` milliseconds on average, up to `burst` at one moment.
    ///
    /// # Errors
    /// [`RateError`].
    pub const fn new(requests: u32, per_ms: u64, burst: u32) -> Result<Rate, RateError> {
        if requests == 0 || per_ms == 0 || burst == 0 {
            return Err(RateError::Zero);
        }
        let interval_ms = per_ms / requests as u64;
        if per_ms > BUCKET_MS_MAX || interval_ms.saturating_mul(burst as u64) > BUCKET_MS_MAX {
            return Err(RateError::TooSlow { burst, interval_ms });
        }
        let interval_nanos = per_ms * 1_000_000 / requests as u64;
        if interval_nanos < 1000 {
            return Err(RateError::TooFast { requests, per_ms });
        }
        Ok(Rate { interval_nanos, tolerance_nanos: interval_nanos * (burst as u64 - 1) })
    }
}

/// It is too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the rate is used up; try again in {wait_micros} µs")]
pub struct TooEarly {
    /// Until the same request would be let through, in microseconds, rounded up.
    pub wait_micros: u64,
}

/// One bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    /// When the bucket is empty ("theoretical arrival time"), in nanoseconds since the epoch.
    empty_nanos: u64,
}

impl Gcra {
    /// Lets `cost` requests through, all or none. Costs above the burst are never let through.
    ///
    /// # Errors
    /// [`TooEarly`]; nothing was taken.
    pub const fn take(&mut self, rate: Rate, now: Micros, cost: u32) -> Result<(), TooEarly> {
        if cost == 0 {
            return Ok(());
        }
        let now = now.0.saturating_mul(1000);
        let from = if self.empty_nanos > now { self.empty_nanos } else { now };
        let before_last = rate.interval_nanos.saturating_mul(cost as u64 - 1);
        let earliest = from.saturating_add(before_last).saturating_sub(rate.tolerance_nanos);
        if earliest > now {
            return Err(TooEarly { wait_micros: (earliest - now).div_ceil(1000) });
        }
        self.empty_nanos = from.saturating_add(rate.interval_nanos.saturating_mul(cost as u64));
        Ok(())
    }

    const fn is_empty(self, now: Micros) -> bool {
        self.empty_nanos <= now.0.saturating_mul(1000)
    }
}

/// Ways of a set: keys that may be at one place of the table.
const WAYS: usize = 8;

/// Buckets by key: of a client, a route, a header, as their hash. Bounded, without allocation after the start.
///
/// A key's place is one of [`WAYS`] that its hash gives. If all are in use, the one that is empty soonest makes room; that
/// forgets the least: what its key could be let through too much is what its bucket held.
#[derive(Clone, Debug)]
pub struct Keyed {
    rate: Rate,
    places: Vec<(u64, Gcra)>,
    crowded: u64,
}

impl Keyed {
    /// Buckets for at least `keys` keys at a time, in 16 bytes each.
    #[must_use]
    pub fn new(rate: Rate, keys: usize) -> Keyed {
        let places = keys.max(WAYS).next_power_of_two();
        Keyed { rate, places: alloc::vec![(0, Gcra::default()); places], crowded: 0 }
    }

    /// Lets `cost` requests of `key` through, all or none. `key` is a hash with a secret seed, or clients could choose
    /// whose bucket they push out.
    ///
    /// # Errors
    /// [`TooEarly`]; nothing was taken.
    pub fn take(&mut self, key: u64, now: Micros, cost: u32) -> Result<(), TooEarly> {
        let sets = self.places.len() / WAYS;
        let from = (key as usize & (sets - 1)) * WAYS;
        let set = &mut self.places[from..from + WAYS];
        let place = match set.iter().position(|(own, bucket)| *own == key && !bucket.is_empty(now)) {
            Some(place) => place,
            None => {
                let soonest = (0..WAYS).min_by_key(|&at| set[at].1.empty_nanos).expect("a set has ways");
                self.crowded += u64::from(!set[soonest].1.is_empty(now));
                set[soonest] = (key, Gcra::default());
                soonest
            }
        };
        set[place].1.take(self.rate, now, cost)
    }

    /// How often a key that was not idle made room for another: more than now and then, and the table is too small.
    #[must_use]
    pub const fn crowded(&self) -> u64 {
        self.crowded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use kernel::Rng;
    use proptest::prelude::*;

    fn at(ms: u64) -> Micros {
        Micros(1_700_000_000_000_000).plus_millis(ms)
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_each_interval() {
        let rate = Rate::new(10, 1000, 3).unwrap();
        let mut bucket = Gcra::default();
        #[rustfmt::skip] // columns
        let table = [
            // at   cost  wait in ms
            (0,     1,    Ok(())),
            (0,     1,    Ok(())),
            (0,     1,    Ok(())),
            (0,     1,    Err(100)),
            (99,    1,    Err(1)),
            (100,   1,    Ok(())),
            (100,   2,    Err(200)),
            (300,   2,    Ok(())),
            (300,   0,    Ok(())),
            (10_000, 4,   Err(100)), // more than the burst
            (10_000, 3,   Ok(())),
        ];
        for (row, (ms, cost, expected)) in table.into_iter().enumerate() {
            let found = bucket.take(rate, at(ms), cost).map_err(|early| early.wait_micros / 1000);
            assert_eq!(found, expected, "row {row}");
        }
    }

    #[test]
    fn rates_that_cannot_be_are_refused() {
        let table: Vec<(u32, u64, u32, Result<(), RateError>)> = vec![
            (0, 1, 1, Err(RateError::Zero)),
            (1, 0, 1, Err(RateError::Zero)),
            (1, 1, 0, Err(RateError::Zero)),
            (1000, 1, 1, Ok(())),
            (1001, 1, 1, Err(RateError::TooFast { requests: 1001, per_ms: 1 })),
            (1, BUCKET_MS_MAX, 1, Ok(())),
            (1, BUCKET_MS_MAX, 2, Err(RateError::TooSlow { burst: 2, interval_ms: BUCKET_MS_MAX })),
        ];
        for (requests, per_ms, burst, expected) in table {
            assert_eq!(Rate::new(requests, per_ms, burst).map(drop), expected);
        }
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own_and_a_full_table_only_forgets() {
        let mut keyed = Keyed::new(Rate::new(1, 1000, 1).unwrap(), 1024);
        let mut rng = Rng::new(5);
        let keys: Vec<u64> = (0..300).map(|_| rng.next_u64()).collect();
        assert!(keys.iter().all(|&key| keyed.take(key, at(0), 1).is_ok()));
        assert!(keys.iter().all(|&key| keyed.take(key, at(1), 1).is_err()));
        assert!(keys.iter().all(|&key| keyed.take(key, at(1000), 1).is_ok()));
        assert_eq!(keyed.crowded(), 0);
        assert!((0..100_000).all(|_| keyed.take(rng.next_u64(), at(1001), 1).is_ok()));
        assert!(keyed.crowded() > 90_000);
    }

    proptest! {
        /// In no window of any length more than the rate and the burst allow.
        #[test]
        fn never_more_than_the_rate_allows(
            requests in 1u32..50, per_ms in 1u64..2000, burst in 1u32..20,
            gaps in prop::collection::vec((0u64..300_000, 1u32..4), 1..200),
        ) {
            let Ok(rate) = Rate::new(requests, per_ms, burst) else { return Ok(()) };
            let (mut bucket, mut now, mut taken) = (Gcra::default(), at(0), Vec::new());
            for (gap, cost) in gaps {
                now = now + gap;
                if bucket.take(rate, now, cost).is_ok() {
                    taken.push((now, cost));
                }
            }
            for first in 0..taken.len() {
                let mut sum = 0;
                for &(last, cost) in &taken[first..] {
                    sum += u128::from(cost);
                    let span = u128::from(last.since(taken[first].0)) * 1000;
                    let over = sum.saturating_sub(u128::from(burst));
                    prop_assert!(over * u128::from(rate.interval_nanos) <= span);
                }
            }
        }
    }
}
