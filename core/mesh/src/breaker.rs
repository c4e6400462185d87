//! A circuit breaker: bounds on what is under way, and a stop while most of it fails.
//!
//! Nygard, "Release It!" (2007); the bounds are Envoy's circuit breakers. It opens by the share of failures in a sliding
//! window, stays open for a time that doubles while its probes fail, and then lets a few probes through. A probe that is
//! never reported on (its worker lost it) is given up after the same time, so it cannot stay half-open for ever.

use kernel::Micros;
use kernel::planted::{Bug, is};
use thiserror::Error;

use crate::Outcome;
use crate::window::Window;

/// Bounds and thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Requests under way at once.
    pub requests_max: u32,
    /// Requests that wait for a connection at once.
    pub pending_max: u32,
    /// It opens when more than so many per cent of the window's requests failed;
    pub failure_percent: u8,
    /// but not before the window has so many.
    pub requests_min: u32,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// How long it stays open the first time, in milliseconds.
    pub open_ms: u64,
    /// How long at most.
    pub open_ms_max: u64,
    /// Probes of a half-open breaker, all of which must succeed for it to close.
    pub probes: u32,
}

impl Default for BreakerOptions {
    /// 1024 under way, 1024 waiting; opens at over 50 % of at least 20 in 10 s, for 1 s to 60 s; 3 probes.
    fn default() -> BreakerOptions {
        BreakerOptions {
            requests_max: 1024,
            pending_max: 1024,
            failure_percent: 50,
            requests_min: 20,
            window_ms: 10_000,
            open_ms: 1_000,
            open_ms_max: 60_000,
            probes: 3,
        }
    }
}

/// Why a request does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The breaker is open.
    #[error("the circuit breaker is open: most requests failed; the next is let through at {}", until.millis())]
    Open {
        /// When a probe may go.
        until: Micros,
    },
    /// The breaker is half-open and its probes are on their way.
    #[error("the circuit breaker is half-open and waits for its probes")]
    Probing,
    /// Too many are under way.
    #[error("{limit} requests are under way, which is the limit")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// Too many wait.
    #[error("{limit} requests wait for a connection, which is the limit")]
    TooManyPending {
        /// The limit.
        limit: u32,
    },
}

/// What a request was let through as. It must be given back with [`Breaker::leave`], exactly once.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    /// The opening that it probes, if it is a probe.
    probe: Option<u64>,
}

/// What a breaker is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All requests go, within the bounds.
    Closed,
    /// None goes before this moment.
    Open(Micros),
    /// Probes go.
    HalfOpen,
}

/// The breaker of one service or endpoint.
#[derive(Clone, Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
    window: Window,
    requests: u32,
    pending: u32,
    /// Openings so far: reports of probes of an earlier one do not count.
    openings: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Micros, length_ms: u64 },
    HalfOpen { sent: u32, succeeded: u32, give_up: Micros, length_ms: u64 },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(options: BreakerOptions) -> Breaker {
        let window = Window::new(options.window_ms);
        Breaker { options, state: State::Closed, window, requests: 0, pending: 0, openings: 0 }
    }

    /// What it is at `now`.
    #[must_use]
    pub fn standing(&self, now: Micros) -> Standing {
        match self.state {
            State::Closed => Standing::Closed,
            State::Open { until, .. } if now < until || is(Bug::BreakerNeverHalfOpens) => {
                Standing::Open(until)
            }
            State::Open { .. } | State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    /// Requests under way.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// Lets a request through, or not.
    ///
    /// # Errors
    /// [`Refused`]; nothing is to be given back.
    pub fn enter(&mut self, now: Micros) -> Result<Pass, Refused> {
        if self.requests >= self.options.requests_max {
            return Err(Refused::TooMany { limit: self.options.requests_max });
        }
        let probe = match self.standing(now) {
            Standing::Closed => None,
            Standing::Open(until) => return Err(Refused::Open { until }),
            Standing::HalfOpen => {
                self.probe(now)?;
                Some(self.openings)
            }
        };
        self.requests += 1;
        Ok(Pass { probe })
    }

    fn probe(&mut self, now: Micros) -> Result<(), Refused> {
        let (sent, succeeded, length_ms) = match self.state {
            State::Open { length_ms, .. } => (0, 0, length_ms),
            State::HalfOpen { give_up, length_ms, .. } if now >= give_up => {
                // Nobody will report on those probes any more: others take their place.
                self.openings += 1;
                (0, 0, length_ms)
            }
            State::HalfOpen { sent, .. } if sent >= self.options.probes => return Err(Refused::Probing),
            State::HalfOpen { sent, succeeded, length_ms, .. } => (sent, succeeded, length_ms),
            State::Closed => unreachable!("only a breaker that is not closed probes"),
        };
        let give_up = match self.state {
            State::HalfOpen { give_up, .. } if sent > 0 => give_up,
            State::HalfOpen { .. } | State::Open { .. } | State::Closed => now.plus_millis(length_ms),
        };
        self.state = State::HalfOpen { sent: sent + 1, succeeded, give_up, length_ms };
        Ok(())
    }

    /// A request that was let through has ended.
    pub fn leave(&mut self, now: Micros, pass: Pass, outcome: Outcome) {
        assert!(self.requests > 0, "who leaves has entered");
        self.requests -= 1;
        match pass.probe {
            Some(opening) if opening == self.openings => self.probed(now, outcome),
            Some(_) => {}
            None => {
                self.window.count(now, outcome);
                if matches!(self.state, State::Closed) && self.fails(now) {
                    self.open(now, self.options.open_ms);
                }
            }
        }
    }

    /// A request begins to wait for a connection.
    ///
    /// # Errors
    /// [`Refused::TooManyPending`]; it does not wait.
    pub fn wait(&mut self) -> Result<(), Refused> {
        if self.pending >= self.options.pending_max {
            return Err(Refused::TooManyPending { limit: self.options.pending_max });
        }
        self.pending += 1;
        Ok(())
    }

    /// It waits no more, however that ended.
    pub fn waited(&mut self) {
        assert!(self.pending > 0, "who has waited began to");
        self.pending -= 1;
    }

    fn fails(&mut self, now: Micros) -> bool {
        let counts = self.window.counts(now);
        let most = u64::from(counts.requests) * u64::from(self.options.failure_percent);
        counts.requests >= self.options.requests_min && u64::from(counts.failures) * 100 > most
    }

    fn open(&mut self, now: Micros, length_ms: u64) {
        let length_ms = length_ms.min(self.options.open_ms_max);
        self.openings += 1;
        self.state = State::Open { until: now.plus_millis(length_ms), length_ms };
        self.window.clear();
    }

    fn probed(&mut self, now: Micros, outcome: Outcome) {
        let State::HalfOpen { sent, succeeded, give_up, length_ms } = self.state else { return };
        match outcome {
            Outcome::Failure | Outcome::Timeout => self.open(now, length_ms.saturating_mul(2)),
            // It said nothing: another may go in its place.
            Outcome::Abandoned => {
                self.state = State::HalfOpen { sent: sent.saturating_sub(1), succeeded, give_up, length_ms };
            }
            Outcome::Success if succeeded + 1 >= self.options.probes => {
                self.state = State::Closed;
                self.window.clear();
            }
            Outcome::Success => {
                self.state = State::HalfOpen { sent, succeeded: succeeded + 1, give_up, length_ms };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const OPTIONS: BreakerOptions = BreakerOptions {
        requests_max: 4,
        pending_max: 1,
        failure_percent: 50,
        requests_min: 4,
        window_ms: 1000,
        open_ms: 100,
        open_ms_max: 300,
        probes: 2,
    };

    fn at(ms: u64) -> Micros {
        Micros(1_000_000_000).plus_millis(ms)
    }

    /// One request after the other: its moment, and how it ends if it is let through.
    fn passed(steps: &[(u64, Outcome)]) -> Vec<bool> {
        let mut breaker = Breaker::new(OPTIONS);
        let one = |&(ms, outcome): &(u64, Outcome)| match breaker.enter(at(ms)) {
            Ok(pass) => {
                breaker.leave(at(ms), pass, outcome);
                true
            }
            Err(_) => false,
        };
        steps.iter().map(one).collect()
    }

    #[test]
    fn it_opens_on_failures_and_closes_on_probes() {
        use Outcome::{Abandoned, Failure, Success, Timeout};
        let bad = [(0, Success), (0, Failure), (0, Timeout), (0, Failure)];
        let after = |more: &[(u64, Outcome)]| passed(&[&bad[..], more].concat())[4..].to_vec();
        #[rustfmt::skip] // columns
        let table = [
            // requests after three failures of four                                   which of them go
            (vec![(0, Success), (99, Success)],                                        vec![false, false]),
            (vec![(100, Success), (100, Success), (100, Failure), (100, Failure)],     vec![true, true, true, true]), // closed again
            (vec![(100, Success), (101, Failure), (102, Success), (301, Success)],     vec![true, true, false, true]), // twice as long
            (vec![(100, Failure), (300, Failure), (599, Success), (600, Success)],     vec![true, true, false, true]), // at most 300
            (vec![(100, Abandoned), (100, Success), (100, Success), (100, Success)],   vec![true, true, true, true]),
        ];
        for (row, (more, expected)) in table.into_iter().enumerate() {
            assert_eq!(after(&more), expected, "row {row}");
        }
        assert_eq!(passed(&[(0, Failure); 3].map(|step| step)), [true; 3], "too few to judge");
        assert_eq!(
            passed(&[(0, Failure), (0, Failure), (0, Success), (0, Success), (0, Success)]),
            [true; 5]
        );
    }

    #[test]
    fn only_so_many_are_under_way_wait_or_probe() {
        let mut breaker = Breaker::new(OPTIONS);
        let all: Vec<Pass> = (0..4).map(|_| breaker.enter(at(0)).unwrap()).collect();
        assert_eq!(breaker.enter(at(0)), Err(Refused::TooMany { limit: 4 }));
        assert_eq!((breaker.wait(), breaker.wait()), (Ok(()), Err(Refused::TooManyPending { limit: 1 })));
        breaker.waited();
        assert_eq!(breaker.wait(), Ok(()));
        all.into_iter().for_each(|pass| breaker.leave(at(0), pass, Outcome::Failure));
        assert_eq!(breaker.requests(), 0);
        assert_eq!(breaker.enter(at(50)), Err(Refused::Open { until: at(100) }));
        let probes = [breaker.enter(at(100)), breaker.enter(at(100))].map(Result::unwrap);
        assert_eq!(breaker.enter(at(150)), Err(Refused::Probing));
        // Nobody reported on them: others go, and the late reports are no news.
        let other = breaker.enter(at(200)).unwrap();
        probes.into_iter().for_each(|pass| breaker.leave(at(201), pass, Outcome::Failure));
        assert_eq!(breaker.standing(at(201)), Standing::HalfOpen);
        breaker.leave(at(202), other, Outcome::Success);
        assert_eq!(breaker.standing(at(202)), Standing::HalfOpen);
    }
}
