//! How many requests a service takes at once, learned from how long they take.
//!
//! After Netflix's gradient limiter (concurrency-limits, `Gradient2Limit`): the limit follows the ratio of the long-term
//! to the present latency, plus room for a short queue. It never probes by stopping traffic. When the limit is reached the
//! less important requests are refused first: each priority has a share of the limit that it may fill.

use kernel::Micros;

use crate::Outcome;

/// Bounds and speeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveOptions {
    /// The limit at the start.
    pub first: f64,
    /// It never falls below.
    pub least: f64,
    /// It never rises above.
    pub most: f64,
    /// The latency may be so many times the long-term one before the limit falls.
    pub tolerance: f64,
    /// Part of the way that the limit goes at each sample.
    pub smoothing: f64,
    /// Samples over which the long-term latency is averaged.
    pub samples: f64,
}

impl Default for AdaptiveOptions {
    /// From 20, within 4 and 1000; 1.5 times the latency of the last 600 samples; a fifth of the way.
    fn default() -> AdaptiveOptions {
        AdaptiveOptions {
            first: 20.0,
            least: 4.0,
            most: 1000.0,
            tolerance: 1.5,
            smoothing: 0.2,
            samples: 600.0,
        }
    }
}

/// How important a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// May be dropped first: it fills up to half of the limit.
    Low,
    /// Up to nine tenths.
    Normal,
    /// All of it.
    High,
}

impl Priority {
    const fn share(self) -> f64 {
        match self {
            Priority::Low => 0.5,
            Priority::Normal => 0.9,
            Priority::High => 1.0,
        }
    }
}

/// The limit of one service.
#[derive(Clone, Debug)]
pub struct Adaptive {
    options: AdaptiveOptions,
    limit: f64,
    long_micros: f64,
    samples: f64,
    under_way: u32,
}

/// A request that was let in.
#[must_use]
#[derive(Debug)]
pub struct Entered {
    at: Micros,
    /// How many were under way with it.
    beside: u32,
}

impl Adaptive {
    /// With no experience yet.
    #[must_use]
    pub const fn new(options: AdaptiveOptions) -> Adaptive {
        let limit = options.first;
        Adaptive { options, limit, long_micros: 0.0, samples: 0.0, under_way: 0 }
    }

    /// How many may be under way now.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        self.limit
    }

    /// How many are.
    #[must_use]
    pub const fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Lets a request in if there is room for its priority. One is always let in when nothing is under way.
    pub fn enter(&mut self, now: Micros, priority: Priority) -> Option<Entered> {
        let room = (self.limit * priority.share()).max(1.0);
        if f64::from(self.under_way) >= libm::floor(room) {
            return None;
        }
        self.under_way += 1;
        Some(Entered { at: now, beside: self.under_way })
    }

    /// It has ended. Failures that come at once say nothing of the load, and what was given up is no sample; a timeout is
    /// one of the time that it took.
    pub fn leave(&mut self, now: Micros, entered: Entered, outcome: Outcome) {
        assert!(self.under_way > 0, "who leaves has entered");
        self.under_way -= 1;
        match outcome {
            Outcome::Success | Outcome::Timeout => {
                self.sample(now.since(entered.at).max(1) as f64, entered.beside)
            }
            Outcome::Failure | Outcome::Abandoned => {}
        }
    }

    fn sample(&mut self, micros: f64, beside: u32) {
        let AdaptiveOptions { least, most, tolerance, smoothing, samples, .. } = self.options;
        self.samples = (self.samples + 1.0).min(samples);
        self.long_micros += (micros - self.long_micros) / self.samples;
        // After an outage the average would take long to forget.
        if self.long_micros > micros * 2.0 {
            self.long_micros *= 0.95;
        }
        // Latency of a service that is not busy does not say what it could take.
        if f64::from(beside) < self.limit / 2.0 {
            return;
        }
        let gradient = (tolerance * self.long_micros / micros).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + libm::sqrt(self.limit);
        self.limit = (self.limit * (1.0 - smoothing) + wanted * smoothing).clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;

    /// A service that works on `servers` requests at once for `work` microseconds each; clients keep `clients` waiting.
    /// Returns the limit after `rounds` completions.
    fn limit_after(servers: usize, work: u64, clients: usize, rounds: usize) -> f64 {
        let mut adaptive = Adaptive::new(AdaptiveOptions::default());
        let (mut now, mut queue) = (Micros(1_000_000_000), VecDeque::new());
        for _ in 0..rounds {
            while queue.len() < clients {
                let Some(entered) = adaptive.enter(now, Priority::High) else { break };
                queue.push_back(entered);
            }
            // The servers end one request after the other, evenly.
            now = now + work / servers.min(queue.len().max(1)) as u64;
            let Some(entered) = queue.pop_front() else { continue };
            adaptive.leave(now, entered, Outcome::Success);
        }
        adaptive.limit()
    }

    #[test]
    fn the_limit_settles_near_what_the_service_works_on_at_once() {
        for servers in [8, 32, 100] {
            let limit = limit_after(servers, 20_000, 2_000, 60_000);
            let servers = servers as f64;
            assert!((servers * 0.5..servers * 4.0).contains(&limit), "{servers} servers: {limit}");
        }
    }

    #[test]
    fn a_service_that_is_not_busy_keeps_its_limit() {
        assert_eq!(limit_after(50, 20_000, 3, 5_000), AdaptiveOptions::default().first);
    }

    #[test]
    fn less_important_requests_are_refused_first() {
        let mut adaptive = Adaptive::new(AdaptiveOptions::default());
        let mut fill = |priority| {
            let mut count = 0;
            while adaptive.enter(Micros(0), priority).is_some() {
                count += 1;
            }
            count
        };
        let filled = [Priority::Low, Priority::Normal, Priority::High].map(&mut fill);
        assert_eq!(filled, [10, 8, 2]);
    }

    #[test]
    fn quick_failures_and_clients_that_left_are_no_samples() {
        let mut adaptive = Adaptive::new(AdaptiveOptions { first: 4.0, ..AdaptiveOptions::default() });
        for outcome in [Outcome::Failure, Outcome::Abandoned] {
            for ms in 0..1000 {
                let entered = adaptive.enter(Micros(ms), Priority::High).unwrap();
                adaptive.leave(Micros(ms + 1), entered, outcome);
            }
        }
        assert_eq!((adaptive.limit(), adaptive.samples, adaptive.under_way()), (4.0, 0.0, 0));
    }
}
