//! Measures a worker's commands with the monotonic clock, for LATENCY HISTOGRAM.
//!
//! The end of one command is the beginning of the next of its batch, so the clock is read about once for
//! each. Its buckets are the worker's own; nothing is shared.

use std::collections::BTreeMap;
use std::time::Instant;

use gateway::resp::{Counts, Histograms};
use node::Observer;

/// See the module's text.
pub struct Stopwatch {
    since: Instant,
    /// By the number of the store's command; without a name if it was never run.
    stored: Vec<(&'static str, Counts)>,
    own: BTreeMap<&'static str, Counts>,
}

impl Default for Stopwatch {
    fn default() -> Stopwatch {
        Stopwatch { since: Instant::now(), stored: Vec::new(), own: BTreeMap::new() }
    }
}

impl Stopwatch {
    /// Nanoseconds since the last call; the next one counts from here.
    #[inline]
    fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let nanos = now.duration_since(self.since).as_nanos();
        self.since = now;
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Observer for Stopwatch {
    #[inline]
    fn begin(&mut self) {
        self.since = Instant::now();
    }

    #[inline]
    fn ran(&mut self, id: u16, name: &'static str) {
        let (nanos, at) = (self.lap(), usize::from(id));
        if self.stored.len() <= at {
            self.stored.resize(at + 1, ("", Counts::default()));
        }
        let (named, counts) = &mut self.stored[at];
        *named = name;
        counts.record(nanos);
    }

    fn ran_own(&mut self, name: &'static str) {
        let nanos = self.lap();
        self.own.entry(name).or_default().record(nanos);
    }

    fn histograms(&self) -> Histograms {
        let mut all = Histograms(self.own.clone());
        for (name, counts) in self.stored.iter().filter(|(name, _)| !name.is_empty()) {
            all.0.entry(name).or_default().add(counts);
        }
        all
    }

    fn reset(&mut self) {
        (self.stored, self.own) = (Vec::new(), BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_name_until_they_are_forgotten() {
        let mut stopwatch = Stopwatch::default();
        stopwatch.begin();
        for (id, name) in [(7, "set"), (3, "get"), (7, "set")] {
            stopwatch.ran(id, name);
        }
        stopwatch.ran_own("ping");
        let totals = |all: &Histograms| -> Vec<(&str, u64)> {
            all.0.iter().map(|(name, counts)| (*name, counts.total())).collect()
        };
        assert_eq!(totals(&stopwatch.histograms()), [("get", 1), ("ping", 1), ("set", 2)]);
        stopwatch.reset();
        assert_eq!(totals(&stopwatch.histograms()), []);
    }
}
