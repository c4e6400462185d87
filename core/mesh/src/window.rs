//! Successes and failures over the last while, in slices that age out one by one.

use kernel::Micros;

use crate::Outcome;

/// Slices of a window: what leaves it leaves in tenths.
const SLICES: usize = 10;

/// Counts over the last `span`, of which the oldest tenth leaves at once.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    slice_micros: u64,
    slices: [Counts; SLICES],
    /// The slice that is counted in, as a number since the epoch.
    current: u64,
}

/// How requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub requests: u32,
    pub failures: u32,
}

impl Window {
    /// An empty window of `span_ms`, at least 10.
    pub fn new(span_ms: u64) -> Window {
        let slice_micros = (span_ms * 1000 / SLICES as u64).max(1000);
        Window { slice_micros, slices: [Counts::default(); SLICES], current: 0 }
    }

    /// Counts one request. What the client abandoned does not count.
    pub fn count(&mut self, now: Micros, outcome: Outcome) {
        self.age(now);
        if outcome == Outcome::Abandoned {
            return;
        }
        let slice = &mut self.slices[(self.current % SLICES as u64) as usize];
        slice.requests = slice.requests.saturating_add(1);
        slice.failures = slice.failures.saturating_add(u32::from(outcome.is_failure()));
    }

    /// What is in the window.
    pub fn counts(&mut self, now: Micros) -> Counts {
        self.age(now);
        self.slices.iter().fold(Counts::default(), |sum, slice| Counts {
            requests: sum.requests.saturating_add(slice.requests),
            failures: sum.failures.saturating_add(slice.failures),
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slices = [Counts::default(); SLICES];
    }

    fn age(&mut self, now: Micros) {
        let at = now.0 / self.slice_micros;
        // A clock that went back does not bring old slices back.
        let passed = at.saturating_sub(self.current).min(SLICES as u64);
        self.current = self.current.max(at);
        for back in 0..passed {
            self.slices[((self.current - back) % SLICES as u64) as usize] = Counts::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let at = |ms: u64| Micros(1_000_000_000).plus_millis(ms);
        let mut window = Window::new(1000);
        window.count(at(0), Outcome::Failure);
        window.count(at(500), Outcome::Success);
        window.count(at(500), Outcome::Abandoned);
        #[rustfmt::skip] // columns
        let table = [
            // at     requests  failures
            (500,     2,        1),
            (950,     2,        1),
            (1000,    1,        0),
            (1499,    1,        0),
            (1500,    0,        0),
        ];
        for (ms, requests, failures) in table {
            assert_eq!(window.counts(at(ms)), Counts { requests, failures }, "{ms}");
        }
        window.count(at(90_000), Outcome::Timeout);
        assert_eq!(window.counts(at(90_000)), Counts { requests: 1, failures: 1 });
    }
}
