//! A moving average of an endpoint's latency that rises at once and falls slowly.
//!
//! Finagle's peak EWMA, with a hyperbola in place of the exponential: it needs a division and no more, and a pick looks at up
//! to sixteen of them. Without samples it falls towards nothing, so that a slow endpoint is tried again in the end.

use kernel::Micros;

/// After so long without a sample half of the average is left, in microseconds.
const HALF_MICROS: f64 = 10_000_000.0;
/// What an endpoint without samples is thought to take, in microseconds: it is tried before all that are known.
const UNKNOWN_MICROS: f64 = 1.0;
/// A failure counts as so many times the average, if it did not take longer itself.
const FAILURE_FACTOR: f64 = 2.0;
/// And as at least so long, in microseconds.
const FAILURE_MICROS_MIN: f64 = 100_000.0;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ewma {
    micros: f64,
    at: Micros,
}

impl Ewma {
    /// What a request is thought to take now.
    pub fn micros(&self, now: Micros) -> f64 {
        let left = HALF_MICROS / (HALF_MICROS + now.since(self.at) as f64);
        (self.micros * left).max(UNKNOWN_MICROS)
    }

    /// A request took so long.
    pub fn sample(&mut self, now: Micros, micros: u64) {
        let micros = micros as f64;
        if micros >= self.micros || self.micros == 0.0 {
            self.micros = micros;
        } else {
            // The longer since the last sample, the more this one says; one of many says a twentieth.
            let passed = now.since(self.at) as f64;
            let share = (passed / (HALF_MICROS / 20.0 + passed)).max(0.05);
            self.micros += (micros - self.micros) * share;
        }
        self.at = now;
    }

    /// A request failed after so long.
    pub fn penalize(&mut self, now: Micros, micros: u64) {
        let least = (self.micros(now) * FAILURE_FACTOR).max(FAILURE_MICROS_MIN);
        // It does not grow without end while failures go on.
        self.micros = self.micros.max(micros as f64).max(least.min(FAILURE_MICROS_MIN * 100.0));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_falls_slowly_and_forgets() {
        let at = |ms: u64| Micros(1_000_000_000).plus_millis(ms);
        let mut ewma = Ewma::default();
        assert!(ewma.micros(at(0)) <= 1.0);
        ewma.sample(at(0), 10_000);
        ewma.sample(at(1), 80_000);
        assert!((79_900.0..=80_000.0).contains(&ewma.micros(at(1))));
        ewma.sample(at(2), 10_000);
        assert!(ewma.micros(at(2)) > 70_000.0, "one good answer is not enough");
        (3..200).for_each(|ms| ewma.sample(at(ms), 10_000));
        assert!(ewma.micros(at(200)) < 11_000.0);
        assert!(ewma.micros(at(200_000)) < 600.0, "nothing was heard for long");
        ewma.penalize(at(200_000), 1_000);
        assert!(ewma.micros(at(200_000)) >= 100_000.0, "a quick failure is slow");
        (0..1000).for_each(|_| ewma.penalize(at(200_000), 1_000));
        assert!(ewma.micros(at(200_000)) <= 10_000_000.0);
    }
}
