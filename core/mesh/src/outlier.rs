//! Which endpoints are left out because they misbehave, whatever their health checks say.
//!
//! Envoy's outlier detection: a run of failures, or a share of successes far below the others', ejects an endpoint for a time
//! that grows with each ejection. Never more than a part of all is out. When too few are left, what happens is the owner's
//! explicit choice ([`Panic`]), and is counted: there is no silent panic mode.

use alloc::vec::Vec;

use kernel::Micros;
use kernel::planted::{Bug, is};

use crate::Outcome;
use crate::window::{Counts, Window};

/// What is done when fewer endpoints are left than the owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panic {
    /// Requests go to those that are left, and are refused if there is none.
    Never,
    /// Requests go to all endpoints that are not known to be down, when fewer than so many per cent of them are left.
    UseAllBelow(u8),
}

/// When and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierOptions {
    /// So many failures in a row eject; 0: never.
    pub consecutive: u32,
    /// The window of the shares of successes, in milliseconds.
    pub window_ms: u64,
    /// An endpoint with fewer requests in it is not judged by its share.
    pub requests_min: u32,
    /// Fewer judged endpoints than this are not compared.
    pub endpoints_min: usize,
    /// An endpoint is out if its share is so many tenths of a standard deviation below the mean; 0: never.
    pub deviations_tenths: u32,
    /// The first ejection lasts so long, the second twice, and so on, in milliseconds,
    pub eject_ms: u64,
    /// up to this.
    pub eject_ms_max: u64,
    /// At most so many per cent are out at once; one always may be if there are two or more.
    pub out_percent_max: u8,
    /// What happens when too few are left.
    pub panic: Panic,
}

impl Default for OutlierOptions {
    /// 5 in a row; 10 s, 20 requests, 3 endpoints, 1.9 deviations; 5 s to 300 s; half of all; never panics.
    fn default() -> OutlierOptions {
        OutlierOptions {
            consecutive: 5,
            window_ms: 10_000,
            requests_min: 20,
            endpoints_min: 3,
            deviations_tenths: 19,
            eject_ms: 5_000,
            eject_ms_max: 300_000,
            out_percent_max: 50,
            panic: Panic::Never,
        }
    }
}

#[derive(Clone, Debug)]
struct Endpoint {
    window: Window,
    in_a_row: u32,
    ejections: u32,
    /// Out until then.
    until: Option<Micros>,
    /// Since then it has behaved, which is forgiven in the end.
    since: Micros,
}

/// The endpoints of one service, by the numbers that [`crate::balance`] knows them by.
#[derive(Clone, Debug)]
pub struct Outliers {
    options: OutlierOptions,
    endpoints: Vec<Endpoint>,
    /// When shares are compared next.
    compare_at: Micros,
    /// No endpoint that is out comes back before this moment.
    return_at: Option<Micros>,
    panics: u64,
    ejections: u64,
}

impl Outliers {
    /// All `endpoints` in.
    #[must_use]
    pub fn new(options: OutlierOptions, endpoints: usize, now: Micros) -> Outliers {
        let mut outliers = Outliers {
            options,
            endpoints: Vec::new(),
            compare_at: now.plus_millis(options.window_ms),
            return_at: None,
            panics: 0,
            ejections: 0,
        };
        (0..endpoints).for_each(|_| outliers.add(now));
        outliers
    }

    /// One more endpoint, behind the others.
    pub fn add(&mut self, now: Micros) {
        let window = Window::new(self.options.window_ms);
        self.endpoints.push(Endpoint { window, in_a_row: 0, ejections: 0, until: None, since: now });
    }

    /// The endpoint is none any more; the last one takes its number.
    pub fn swap_remove(&mut self, at: usize) {
        self.endpoints.swap_remove(at);
    }

    /// Whether requests may go to it.
    #[must_use]
    pub fn is_in(&self, at: usize) -> bool {
        self.endpoints[at].until.is_none()
    }

    /// How many are out.
    #[must_use]
    pub fn out(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.until.is_some()).count()
    }

    /// Ejections so far, and how often requests went to all because too few were left.
    #[must_use]
    pub const fn counted(&self) -> (u64, u64) {
        (self.ejections, self.panics)
    }

    /// Whether requests go to endpoints that are out too: too few are left, and the owner wants that. `usable` are those that
    /// are not known to be down, `left` those of them that are in. Counts it if so.
    pub fn panics(&mut self, usable: usize, left: usize) -> bool {
        let panics = self.would_panic(usable, left);
        self.panics += u64::from(panics);
        panics
    }

    /// The same without counting.
    #[must_use]
    pub const fn would_panic(&self, usable: usize, left: usize) -> bool {
        match self.options.panic {
            Panic::Never => false,
            Panic::UseAllBelow(percent) => left * 100 < usable * percent as usize,
        }
    }

    /// A request to it has ended.
    pub fn report(&mut self, now: Micros, at: usize, outcome: Outcome) {
        let endpoint = &mut self.endpoints[at];
        endpoint.window.count(now, outcome);
        match outcome {
            Outcome::Success => endpoint.in_a_row = 0,
            Outcome::Failure | Outcome::Timeout => endpoint.in_a_row = endpoint.in_a_row.saturating_add(1),
            Outcome::Abandoned => {}
        }
        let most = self.options.consecutive;
        if most > 0 && endpoint.in_a_row >= most && endpoint.until.is_none() && !is(Bug::BlackHoleKept) {
            self.eject(now, at);
        }
    }

    /// When [`Outliers::wake`] is due.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        self.return_at.map_or(self.compare_at, |at| at.min(self.compare_at))
    }

    /// Lets endpoints come back whose time is over, and compares shares.
    pub fn wake(&mut self, now: Micros) {
        for endpoint in &mut self.endpoints {
            if endpoint.until.is_some_and(|until| until <= now) {
                endpoint.until = None;
                endpoint.in_a_row = 0;
                endpoint.since = now;
                endpoint.window.clear();
            }
            let good_ms = now.since(endpoint.since) / 1000;
            if endpoint.until.is_none() && good_ms >= self.options.eject_ms_max {
                endpoint.ejections = endpoint.ejections.saturating_sub(1);
                endpoint.since = now;
            }
        }
        self.return_at = self.endpoints.iter().filter_map(|endpoint| endpoint.until).min();
        if now >= self.compare_at {
            self.compare_at = now.plus_millis(self.options.window_ms / 10);
            self.compare(now);
        }
    }

    fn compare(&mut self, now: Micros) {
        if self.options.deviations_tenths == 0 {
            return;
        }
        let least = self.options.requests_min;
        let judged = |(at, endpoint): (usize, &mut Endpoint)| {
            let Counts { requests, failures } = endpoint.window.counts(now);
            let counts = endpoint.until.is_none() && requests >= least.max(1);
            counts.then(|| (at, 1.0 - f64::from(failures) / f64::from(requests)))
        };
        let mut shares: Vec<(usize, f64)> =
            self.endpoints.iter_mut().enumerate().filter_map(judged).collect();
        if shares.len() < self.options.endpoints_min.max(2) {
            return;
        }
        let count = shares.len() as f64;
        let mean = shares.iter().map(|(_, share)| share).sum::<f64>() / count;
        let variance = shares.iter().map(|(_, share)| (share - mean) * (share - mean)).sum::<f64>() / count;
        let least = mean - f64::from(self.options.deviations_tenths) / 10.0 * libm::sqrt(variance);
        shares.retain(|(_, share)| *share < least);
        // The worst first, as not all may go.
        shares.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
        for (at, _) in shares {
            self.eject(now, at);
        }
    }

    fn eject(&mut self, now: Micros, at: usize) {
        let all = self.endpoints.len();
        let most = (all * usize::from(self.options.out_percent_max) / 100).max(usize::from(all > 1));
        if self.out() >= most {
            return;
        }
        let endpoint = &mut self.endpoints[at];
        endpoint.ejections = endpoint.ejections.saturating_add(1);
        let length_ms = self.options.eject_ms.saturating_mul(u64::from(endpoint.ejections));
        let until = now.plus_millis(length_ms.min(self.options.eject_ms_max));
        endpoint.until = Some(until);
        self.ejections += 1;
        self.return_at = Some(self.return_at.map_or(until, |at| at.min(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Abandoned, Failure, Success, Timeout};

    fn at(ms: u64) -> Micros {
        Micros(1_000_000_000).plus_millis(ms)
    }

    fn outliers(endpoints: usize) -> Outliers {
        Outliers::new(OutlierOptions::default(), endpoints, at(0))
    }

    fn out(outliers: &Outliers) -> Vec<usize> {
        (0..outliers.endpoints.len()).filter(|&at| !outliers.is_in(at)).collect()
    }

    #[test]
    fn a_run_of_failures_ejects_for_longer_each_time() {
        let mut outliers = outliers(3);
        [Failure, Failure, Failure, Failure, Success].iter().for_each(|&one| outliers.report(at(0), 1, one));
        assert_eq!(out(&outliers), []);
        let mut now = 0;
        for length in [5_000, 10_000, 15_000] {
            let run = [Failure, Timeout, Abandoned, Failure, Failure, Failure];
            run.iter().for_each(|&one| outliers.report(at(now), 1, one));
            assert_eq!(out(&outliers), [1]);
            outliers.wake(at(now + length - 1));
            assert_eq!(out(&outliers), [1], "{length}");
            assert_eq!(outliers.deadline(), at(now + length).min(outliers.compare_at));
            now += length;
            outliers.wake(at(now));
            assert_eq!(out(&outliers), []);
        }
        assert_eq!(outliers.counted(), (3, 0));
    }

    #[test]
    fn a_share_far_below_the_others_ejects_and_small_samples_do_not() {
        let share = |requests: u32, failing: u32| {
            let mut outliers = outliers(5);
            for endpoint in 0..5 {
                for number in 0..requests {
                    let fails = endpoint == 3 && number % 10 < failing;
                    outliers.report(at(9_000), endpoint, if fails { Failure } else { Success });
                }
            }
            outliers.wake(at(10_000));
            out(&outliers)
        };
        assert_eq!(share(50, 4), [3]);
        assert_eq!(share(10, 4), []);
        assert_eq!(share(50, 0), []);
    }

    #[test]
    fn never_more_than_half_are_out_and_of_one_none() {
        for (endpoints, most) in [(1, 0), (2, 1), (3, 1), (5, 2), (10, 5)] {
            let mut outliers = outliers(endpoints);
            for endpoint in 0..endpoints {
                (0..9).for_each(|_| outliers.report(at(0), endpoint, Failure));
            }
            assert_eq!(outliers.out(), most, "{endpoints} endpoints");
        }
    }

    #[test]
    fn what_happens_when_too_few_are_left_is_said_and_counted() {
        let mut never = outliers(4);
        assert!(!never.panics(4, 0));
        let panic = Panic::UseAllBelow(50);
        let mut all = Outliers::new(OutlierOptions { panic, ..OutlierOptions::default() }, 4, at(0));
        assert!(!all.panics(4, 2));
        assert!(all.panics(4, 1));
        assert_eq!((never.counted(), all.counted()), ((0, 0), (0, 1)));
    }
}
