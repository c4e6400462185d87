//! How long nodes stay and stay away.

use kernel::Rng;

/// A distribution of times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lifetime {
    /// Memoryless: what is usual in analysis.
    Exponential {
        /// The mean.
        mean: u64,
    },
    /// Heavy-tailed, Lomax: what measurements of peer-to-peer networks find. Most nodes go soon, few stay long.
    Pareto {
        /// The mean.
        mean: u64,
        /// The tail's exponent, above 1; the mean is infinite at 1.
        shape: f64,
    },
    /// Always the same.
    Fixed(u64),
}

impl Lifetime {
    /// One time.
    ///
    /// # Panics
    /// If a Pareto shape is not above 1.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        match self {
            Lifetime::Exponential { mean } => exponential(mean as f64, rng),
            Lifetime::Pareto { mean, shape } => lomax(mean as f64 * (above_one(shape) - 1.0), shape, rng),
            Lifetime::Fixed(time) => time,
        }
    }

    /// What is left of a time that began long ago: long ones are met more often.
    ///
    /// # Panics
    /// If a Pareto shape is not above 1.
    pub fn residual(self, rng: &mut Rng) -> u64 {
        match self {
            Lifetime::Exponential { mean } => exponential(mean as f64, rng),
            // The residual of Lomax(scale, shape) is Lomax(scale, shape - 1).
            Lifetime::Pareto { mean, shape } => {
                lomax(mean as f64 * (above_one(shape) - 1.0), shape - 1.0, rng)
            }
            Lifetime::Fixed(time) => rng.below(time),
        }
    }
}

fn above_one(shape: f64) -> f64 {
    assert!(shape > 1.0, "a Pareto distribution with shape {shape} has no mean");
    shape
}

// `libm` and not the platform's: the same seed must give the same numbers on every machine.
fn exponential(mean: f64, rng: &mut Rng) -> u64 {
    (-libm::log(1.0 - rng.unit()) * mean) as u64
}

fn lomax(scale: f64, shape: f64, rng: &mut Rng) -> u64 {
    (scale * (libm::pow(1.0 - rng.unit(), -1.0 / shape) - 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_as_said() {
        for lifetime in [
            Lifetime::Exponential { mean: 3_600_000_000 },
            Lifetime::Pareto { mean: 3_600_000_000, shape: 3.0 },
            Lifetime::Fixed(3_600_000_000),
        ] {
            let mut rng = Rng::new(11);
            let n = 200_000;
            let sum: f64 = (0..n).map(|_| lifetime.draw(&mut rng) as f64).sum();
            let mean = sum / f64::from(n) / 3_600_000_000.0;
            assert!((mean - 1.0).abs() < 0.03, "{lifetime:?}: {mean}");
        }
    }
}
