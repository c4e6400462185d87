//! How many nodes there are, judged from how near the nearest are.
//!
//! The i-th nearest of N evenly spread nodes is at i/(N+1) of the key space on average, so the line through the k
//! nearest distances has the slope 1/(N+1). One sample of 20 is within a quarter; the median of several is better, and
//! a few crowded neighbourhoods do not move it.

use alloc::vec::Vec;

use kernel::Micros;

/// Samples that are remembered.
pub const SAMPLES: usize = 16;
/// Samples whose median is trusted.
pub const SAMPLES_TRUSTED: usize = 5;
/// Oldest sample that counts, in seconds: networks grow.
pub const SAMPLE_SECONDS_MAX: u32 = 2 * 3600;
/// Nearest nodes that a sample needs at least.
pub const SAMPLE_NODES_MIN: usize = 4;

const fn seconds(now: Micros) -> u32 {
    (now.0 / 1_000_000) as u32
}

/// An estimate that goes with the network.
#[derive(Clone, Debug, Default)]
pub struct Size {
    /// Each with its second.
    samples: Vec<(u32, f32)>,
    next: u8,
}

/// The part of the key space that `distance` is.
#[must_use]
pub fn part(distance: u64) -> f64 {
    distance as f64 / (u64::MAX as f64 + 1.0)
}

/// How many nodes `distances`, those of the nearest to a point nobody chose, nearest first, speak for; `None`
/// with less than [`SAMPLE_NODES_MIN`].
#[must_use]
pub fn judge(distances: impl Iterator<Item = u64>) -> Option<f64> {
    let (mut squares, mut products, mut count) = (0.0, 0.0, 0);
    for (at, distance) in distances.enumerate() {
        let rank = (at + 1) as f64;
        squares += rank * rank;
        products += rank * part(distance);
        count = at + 1;
    }
    (count >= SAMPLE_NODES_MIN && products > 0.0).then(|| (squares / products - 1.0).max(count as f64))
}

impl Size {
    /// Remembers the distances of the nearest nodes to a point that nobody chose.
    pub fn sample(&mut self, now: Micros, distances: impl Iterator<Item = u64>) {
        let Some(size) = judge(distances) else { return };
        if self.samples.len() < SAMPLES {
            self.samples.push((seconds(now), size as f32));
        } else {
            self.samples[usize::from(self.next)] = (seconds(now), size as f32);
            self.next = (self.next + 1) % SAMPLES as u8;
        }
    }

    fn fresh(&self, now: Micros) -> impl Iterator<Item = f32> {
        let young = move |at: u32| seconds(now).saturating_sub(at) <= SAMPLE_SECONDS_MAX;
        self.samples.iter().filter(move |(at, _)| young(*at)).map(|(_, size)| *size)
    }

    /// True if there are too few samples for a median that liars around one place cannot move.
    #[must_use]
    pub fn is_doubtful(&self, now: Micros) -> bool {
        self.fresh(now).count() < SAMPLES_TRUSTED
    }

    /// The median of what was sampled and of `own`, our own neighbourhood's sample.
    #[must_use]
    pub fn estimate(&self, now: Micros, own: Option<f64>) -> Option<f64> {
        let mut all: Vec<f32> = self.fresh(now).chain(own.map(|own| own as f32)).collect();
        all.sort_unstable_by(f32::total_cmp);
        all.get(all.len() / 2).map(|&median| f64::from(median))
    }
}

/// How many leading bits the region around a key has in which `k` to `2k` of `size` nodes are expected.
#[must_use]
pub fn region_bits(size: f64, k: usize) -> u32 {
    ((size / k as f64) as u64).checked_ilog2().unwrap_or(0)
}
