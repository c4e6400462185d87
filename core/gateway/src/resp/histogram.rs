//! LATENCY HISTOGRAM: how long each command took, in buckets of powers of two.
//!
//! The bounds are those that Redis prints: its histograms have two significant digits, so the bucket up to
//! 2ᵏ·1024 ns takes what cannot be told from that, 2ᵏ·1032 ns excluded.

use alloc::collections::BTreeMap;

use storage::{Fault, Reply};

use super::call::{Call, Done};

/// Buckets: the last holds what took a second or longer.
const LEVELS: usize = 21;
/// What the first bucket's values are below, in nanoseconds; each further bucket doubles it.
const FIRST_NANOS: u64 = 1032;

/// How often one command was run, by how long it took.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Counts([u64; LEVELS]);

impl Counts {
    /// Notes a run of `nanos`.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        let level = (u64::BITS - (nanos / FIRST_NANOS).leading_zeros()) as usize;
        self.0[level.min(LEVELS - 1)] += 1;
    }

    /// Takes in what was counted elsewhere.
    pub fn add(&mut self, other: &Counts) {
        self.0.iter_mut().zip(other.0).for_each(|(own, others)| *own += others);
    }

    /// Runs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The bounds in microseconds of the buckets that hold something, and how many runs are in them and in
    /// all below.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        self.0.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(level, count)| {
            below += count;
            (((FIRST_NANOS << level) - 1) / 1000, below)
        })
    }
}

/// The same of every command that was run, by its full name (`config|get`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histograms(pub BTreeMap<&'static str, Counts>);

impl Histograms {
    /// Takes in what another worker counted.
    pub fn add(&mut self, other: Histograms) {
        for (name, counts) in other.0 {
            self.0.entry(name).or_default().add(&counts);
        }
    }

    /// The command that is called `word` in any case, and the subcommands of a container of that name.
    fn named<'a>(&'a self, word: &'a [u8]) -> impl Iterator<Item = (&'static str, &'a Counts)> + 'a {
        let is_named = |name: &str| {
            let container = name.split_once('|').map_or(name, |(container, _)| container);
            word.eq_ignore_ascii_case(name.as_bytes()) || word.eq_ignore_ascii_case(container.as_bytes())
        };
        self.0.iter().filter(move |(name, _)| is_named(name)).map(|(name, counts)| (*name, counts))
    }
}

/// `LATENCY HISTOGRAM [command …]`: a command that was never run is left out.
pub(super) fn histogram(call: &mut Call<'_>) -> Result<Done, Fault> {
    let all = call.host.survey().histograms;
    let chosen: alloc::vec::Vec<(&str, &Counts)> = match call.args {
        [] => all.0.iter().map(|(name, counts)| (*name, counts)).collect(),
        words => words.iter().flat_map(|word| all.named(word)).collect(),
    };
    call.reply.map(chosen.len());
    for (name, counts) in chosen {
        call.reply.bulk(name.as_bytes());
        call.reply.map(2);
        call.reply.bulk(b"calls");
        call.reply.int(counts.total() as i64);
        call.reply.bulk(b"histogram_usec");
        call.reply.map(counts.cumulative().count());
        for (micros, count) in counts.cumulative() {
            call.reply.int(micros as i64);
            call.reply.int(count as i64);
        }
    }
    Ok(Done::Answered)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_buckets_are_those_that_redis_prints() {
        // As printed by redis-server for commands of every duration.
        let printed = [
            1, 2, 4, 8, 16, 33, 66, 132, 264, 528, 1056, 2113, 4227, 8454, 16908, 33816, 67633, 135266,
            270532, 541065, 1082130,
        ];
        let mut counts = Counts::default();
        for level in 0..21 {
            counts.record(1024 << level);
        }
        let bounds: Vec<u64> = counts.cumulative().map(|(micros, _)| micros).collect();
        assert_eq!(bounds, printed);
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        #[rustfmt::skip] // columns
        let table = [
            // nanos        bucket's bound
            (0,             1),
            (1031,          1),
            (1032,          2),
            (2063,          2),
            (2064,          4),
            (33_023,        33),
            (33_024,        66),
            (1_000_000_000, 1_082_130),
            (u64::MAX,      1_082_130),
        ];
        for (nanos, bound) in table {
            let mut counts = Counts::default();
            counts.record(nanos);
            assert_eq!(counts.cumulative().collect::<Vec<_>>(), [(bound, 1)], "{nanos}");
        }
    }

    #[test]
    fn counts_are_cumulative_and_add_up() {
        let (mut one, mut two) = (Counts::default(), Counts::default());
        [10, 20, 5_000].iter().for_each(|&nanos| one.record(nanos));
        [5_000, 900_000].iter().for_each(|&nanos| two.record(nanos));
        one.add(&two);
        assert_eq!(one.total(), 5);
        assert_eq!(one.cumulative().collect::<Vec<_>>(), [(1, 2), (8, 4), (1056, 5)]);
    }

    #[test]
    fn a_container_stands_for_its_subcommands() {
        let mut all = Histograms::default();
        for name in ["config|get", "config|set", "get", "set"] {
            all.0.entry(name).or_default().record(1);
        }
        let named = |word: &str| all.named(word.as_bytes()).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(named("CONFIG"), ["config|get", "config|set"]);
        assert_eq!(named("Config|Get"), ["config|get"]);
        assert_eq!(named("get"), ["get"]);
        assert_eq!(named("nosuch"), [] as [&str; 0]);
    }
}
