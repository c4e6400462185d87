//! Where nodes are, and how long a message takes between two places.

use kernel::Rng;

/// One of [`REGIONS`] parts of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region(u8);

/// How many regions there are.
pub const REGIONS: usize = 6;

/// Names, in the order of the tables.
pub const NAMES: [&str; REGIONS] =
    ["North America", "Europe", "East Asia", "South Asia", "South America", "Oceania"];

/// The share of nodes in each region, in percent: about where public peer-to-peer nodes are.
const SHARES: [u64; REGIONS] = [33, 35, 18, 6, 5, 3];

/// One-way latency between regions in milliseconds: half of round-trip times that are usual between cloud regions.
#[rustfmt::skip] // columns
const ONE_WAY_MS: [[u64; REGIONS]; REGIONS] = [
    [ 20,  45,  75, 110,  65,  80],
    [ 45,  12, 110,  65, 100, 135],
    [ 75, 110,  25,  50, 140,  60],
    [110,  65,  50,  20, 155,  75],
    [ 65, 100, 140, 155,  20, 150],
    [ 80, 135,  60,  75, 150,  15],
];

/// Jitter adds up to this share of the latency, in percent.
const JITTER_PERCENT: u64 = 25;

impl Region {
    /// A region, drawn by its share of nodes.
    pub fn draw(rng: &mut Rng) -> Region {
        let mut at = rng.below(100);
        for (region, share) in SHARES.iter().enumerate() {
            if at < *share {
                return Region(region as u8);
            }
            at -= share;
        }
        Region(0)
    }

    /// Its place in [`NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How long a message takes, in microseconds.
#[inline]
pub fn latency(from: Region, to: Region, rng: &mut Rng) -> u64 {
    let base = ONE_WAY_MS[from.index()][to.index()] * 1000;
    base + rng.below(base * JITTER_PERCENT / 100)
}

const _: () = {
    let (mut sum, mut at) = (0, 0);
    while at < REGIONS {
        sum += SHARES[at];
        at += 1;
    }
    assert!(sum == 100);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_symmetric_and_within_its_jitter() {
        let mut rng = Rng::new(3);
        for (a, row) in ONE_WAY_MS.iter().enumerate() {
            for (b, &ms) in row.iter().enumerate() {
                assert_eq!(ms, ONE_WAY_MS[b][a], "{} to {}", NAMES[a], NAMES[b]);
                let took = latency(Region(a as u8), Region(b as u8), &mut rng);
                assert!(took >= ms * 1000);
                assert!(took <= ms * 1250);
            }
        }
    }
}
