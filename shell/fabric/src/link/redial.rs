//! When a lost or refused link is dialled again: exponential back-off with jitter, as a machine.
//!
//! The wait doubles from [`WAIT_MS_MIN`] to [`WAIT_MS_MAX`] and is drawn from the upper half of that, so that nodes
//! that lost each other at one moment do not come back at one moment. A link that stayed up for [`STEADY_MS`]
//! was a good one: what follows its loss begins at the shortest wait.

use kernel::{Micros, Rng};

/// The shortest wait, in milliseconds, before jitter.
pub const WAIT_MS_MIN: u64 = 50;
/// The longest wait, in milliseconds.
pub const WAIT_MS_MAX: u64 = 10_000;
/// A link that was up for so long, in milliseconds, was not a failure.
pub const STEADY_MS: u64 = 5_000;

/// The dialling of one link.
#[derive(Debug)]
pub struct Redial {
    rng: Rng,
    /// Failures in a row.
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be tried at this moment.
    Waiting(Micros),
    /// An attempt is on its way.
    Trying,
    /// Up since this moment.
    Up(Micros),
}

impl Redial {
    /// Tries first at `at`. Its chance is decided by `rng`.
    #[must_use]
    pub const fn new(rng: Rng, at: Micros) -> Redial {
        Redial { rng, failures: 0, state: State::Waiting(at) }
    }

    /// When an attempt is due; none while one is on its way or the link is up.
    #[must_use]
    pub const fn deadline(&self) -> Option<Micros> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Trying | State::Up(_) => None,
        }
    }

    /// An attempt began.
    pub const fn begin(&mut self) {
        self.state = State::Trying;
    }

    /// The attempt failed, or the link that was up is lost.
    pub fn fail(&mut self, now: Micros) {
        if let State::Up(since) = self.state
            && now.since(since) >= STEADY_MS * 1000
        {
            self.failures = 0;
        }
        let full = (WAIT_MS_MIN << self.failures.min(16)).min(WAIT_MS_MAX) * 1000;
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        self.state = State::Waiting(now + half + self.rng.below(full - half + 1));
    }

    /// The link is up, whoever dialled it.
    pub const fn succeed(&mut self, now: Micros) {
        self.state = State::Up(now);
    }

    /// The addresses are new: a waiting attempt is made at `now`, and the failures of the old ones do not count.
    pub const fn hurry(&mut self, now: Micros) {
        if matches!(self.state, State::Waiting(_)) {
            self.failures = 0;
            self.state = State::Waiting(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn waits_double_from_the_shortest_to_the_longest_and_stay_in_their_upper_half() {
        let full_ms = [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000];
        for seed in 0..200 {
            let mut redial = Redial::new(Rng::new(seed), Micros(0));
            for (nth, full) in full_ms.into_iter().enumerate() {
                let now = Micros(nth as u64 * 100 * SECOND);
                redial.begin();
                redial.fail(now);
                let wait = redial.deadline().unwrap().since(now);
                assert!((full * 500..=full * 1000).contains(&wait), "seed {seed}, failure {nth}: {wait} µs");
            }
        }
    }

    #[test]
    fn the_same_seed_waits_the_same_and_another_does_not() {
        let waits = |seed| {
            let mut redial = Redial::new(Rng::new(seed), Micros(0));
            std::array::from_fn::<_, 8, _>(|_| {
                redial.fail(Micros(0));
                redial.deadline()
            })
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn only_a_link_that_lasted_ends_the_row_of_failures() {
        #[rustfmt::skip] // columns
        let table = [
            // up for, ms        the next wait's longest, ms
            (0,                  WAIT_MS_MIN * 8),
            (STEADY_MS - 1,      WAIT_MS_MIN * 8),
            (STEADY_MS,          WAIT_MS_MIN),
        ];
        for (up, longest) in table {
            let mut redial = Redial::new(Rng::new(3), Micros(0));
            for _ in 0..3 {
                redial.begin();
                redial.fail(Micros(0));
            }
            redial.begin();
            redial.succeed(Micros(SECOND));
            assert_eq!(redial.deadline(), None);
            let lost = Micros(SECOND).plus_millis(up);
            redial.fail(lost);
            let wait = redial.deadline().unwrap().since(lost);
            assert!((longest * 500..=longest * 1000).contains(&wait), "up {up} ms: {wait} µs");
        }
    }

    #[test]
    fn new_addresses_are_tried_at_once_unless_an_attempt_is_on_its_way() {
        let mut redial = Redial::new(Rng::new(3), Micros(9 * SECOND));
        redial.hurry(Micros(5));
        assert_eq!(redial.deadline(), Some(Micros(5)));
        redial.begin();
        redial.hurry(Micros(6));
        assert_eq!(redial.deadline(), None);
    }
}
