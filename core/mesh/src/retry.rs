//! Whether a request that failed is tried again: never so that retries make an outage worse.
//!
//! The budget is Finagle's: each request earns a fifth of a retry, so a service that fails altogether gets at most a fifth
//! more requests. What was read, or may have been, goes again only if it may be done twice; what surely was not may go
//! again whatever it asks for. Either way it is one of the tries, and spends from the budget. A first try that met a
//! connection which its other end had closed is nobody's failure: it goes again at once, on a connection made for it, and
//! spends nothing, if it may be done twice or the other end has said that it did not read it.

use kernel::planted::{Bug, is};
use kernel::{Micros, Rng};

use crate::Outcome;

/// Thousandths of a retry: what a budget is counted in.
const RETRY: u32 = 1000;

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Tries in all, the first one included; 1 is no retry.
    pub tries_max: u8,
    /// One try may take so long, in milliseconds.
    pub try_ms: u64,
    /// All tries together may.
    pub total_ms: u64,
    /// The first retry waits up to this, the next up to twice as long, and so on, in milliseconds.
    pub backoff_ms: u64,
}

impl Default for RetryOptions {
    /// 3 tries of 5 s within 15 s, after up to 25 ms and 50 ms.
    fn default() -> RetryOptions {
        RetryOptions { tries_max: 3, try_ms: 5_000, total_ms: 15_000, backoff_ms: 25 }
    }
}

/// What a service may spend on retries.
#[derive(Clone, Debug)]
pub struct Budget {
    earned: u32,
    per_request: u32,
    most: u32,
}

impl Budget {
    /// Each request earns `percent` hundredths of a retry; at most `retries_max` are kept. It begins full, so that the
    /// first failures of a quiet service are retried.
    #[must_use]
    pub const fn new(percent: u8, retries_max: u16) -> Budget {
        let most = retries_max as u32 * RETRY;
        Budget { earned: most, per_request: percent as u32 * RETRY / 100, most }
    }

    /// A request came, which is none of ours.
    pub const fn request(&mut self) {
        let earned = self.earned + self.per_request;
        self.earned = if earned < self.most { earned } else { self.most };
    }

    /// Spends one retry, if there is one.
    pub fn spend(&mut self) -> bool {
        if is(Bug::BudgetIgnored) {
            return true;
        }
        let there = self.earned >= RETRY;
        self.earned -= if there { RETRY } else { 0 };
        there
    }
}

impl Default for Budget {
    /// 20 %, at most 10.
    fn default() -> Budget {
        Budget::new(20, 10)
    }
}

/// What is known of a request when one of its tries has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Tries so far, this one included.
    pub number: u8,
    /// How it ended.
    pub outcome: Outcome,
    /// To do it twice is as good as once: by its method, or because its route says so.
    pub idempotent: bool,
    /// All of its body is still there to be sent again.
    pub replayable: bool,
    /// How far it had come.
    pub progress: Progress,
    /// When the request came.
    pub came: Micros,
}

/// How far a try had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No connection could be had.
    Unconnected,
    /// The other end of the connection closes, and has said that it read nothing of it.
    Unread,
    /// A pooled connection was closed before a byte of the answer came; it may have been stale.
    Stale,
    /// The request may have been read.
    Sent,
    /// The client has a part of the answer already.
    Answering,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again at this moment, at another endpoint if there is one.
    Again(Micros),
    /// Try again at once on a connection that is made for it.
    Fresh,
    /// The client gets what there is.
    Stop,
}

/// What to do after a try has ended. Spends from the budget what it decides.
pub fn verdict(
    now: Micros,
    options: &RetryOptions,
    budget: &mut Budget,
    rng: &mut Rng,
    last: &Try,
) -> Verdict {
    let left = options.total_ms.saturating_mul(1000).saturating_sub(now.since(last.came));
    if !last.outcome.is_failure() || last.progress == Progress::Answering || !last.replayable || left == 0 {
        return Verdict::Stop;
    }
    let closed = last.progress == Progress::Unread || last.progress == Progress::Stale && last.idempotent;
    if closed && last.number == 1 {
        return Verdict::Fresh;
    }
    let unread = matches!(last.progress, Progress::Unconnected | Progress::Unread);
    let allowed = unread || last.idempotent || is(Bug::PostRetried);
    if !allowed || last.number >= options.tries_max {
        return Verdict::Stop;
    }
    let most = options.backoff_ms.saturating_mul(1000) << u32::from(last.number - 1).min(16);
    let wait = rng.below(most + 1);
    // Spent last: a retry that would come too late is none, and others may need it.
    if wait < left && budget.spend() { Verdict::Again(now + wait) } else { Verdict::Stop }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAME: Micros = Micros(1_000_000_000);
    const FAILED: Try = Try {
        number: 1,
        outcome: Outcome::Failure,
        idempotent: true,
        replayable: true,
        progress: Progress::Sent,
        came: CAME,
    };

    fn told(now: Micros, last: &Try) -> &'static str {
        let options = RetryOptions { backoff_ms: 0, ..RetryOptions::default() };
        match verdict(now, &options, &mut Budget::default(), &mut Rng::new(1), last) {
            Verdict::Again(_) => "again",
            Verdict::Fresh => "fresh",
            Verdict::Stop => "stop",
        }
    }

    #[test]
    fn only_what_may_be_done_twice_is_done_twice() {
        use Progress::{Answering, Stale, Unconnected, Unread};
        let post = Try { idempotent: false, ..FAILED };
        #[rustfmt::skip] // columns
        let table = [
            // after                                            told
            (FAILED,                                            "again"),
            (Try { outcome: Outcome::Timeout, ..FAILED },       "again"),
            (Try { outcome: Outcome::Success, ..FAILED },       "stop"),
            (Try { outcome: Outcome::Abandoned, ..FAILED },     "stop"),
            (Try { number: 2, ..FAILED },                       "again"),
            (Try { number: 3, ..FAILED },                       "stop"),
            (Try { replayable: false, ..FAILED },               "stop"),
            (Try { progress: Answering, ..FAILED },             "stop"),
            (post,                                              "stop"),
            (Try { progress: Unconnected, ..post },             "again"), // no byte of it left
            (Try { progress: Stale, ..post },                   "stop"),  // it may have been read
            (Try { progress: Unread, ..post },                  "fresh"), // it was told so
            (Try { progress: Unread, number: 2, ..post },       "again"),
            (Try { progress: Unread, number: 3, ..post },       "stop"),
            (Try { progress: Stale, ..FAILED },                 "fresh"),
            (Try { progress: Stale, number: 2, ..FAILED },      "again"),
        ];
        for (row, (last, expected)) in table.into_iter().enumerate() {
            assert_eq!(told(CAME, &last), expected, "row {row}");
        }
        assert_eq!(told(CAME.plus_millis(15_000), &FAILED), "stop", "its time is over");
    }

    #[test]
    fn a_service_that_fails_altogether_gets_a_fifth_more_requests() {
        let (mut budget, options, mut rng) = (Budget::default(), RetryOptions::default(), Rng::new(7));
        let (mut sent, requests) = (0_u32, 10_000);
        for _ in 0..requests {
            budget.request();
            let mut last = FAILED;
            sent += 1;
            while let Verdict::Again(_) = verdict(CAME, &options, &mut budget, &mut rng, &last) {
                sent += 1;
                last.number += 1;
            }
        }
        assert!((12_000..=12_010).contains(&sent), "{sent}");
    }

    #[test]
    fn a_retry_that_would_come_too_late_spends_nothing() {
        let options = RetryOptions { total_ms: 1, backoff_ms: 1_000_000, ..RetryOptions::default() };
        let (mut budget, mut rng) = (Budget::new(0, 1), Rng::new(5));
        let late = (0..50).map(|_| verdict(CAME, &options, &mut budget, &mut rng, &FAILED));
        assert!(late.into_iter().all(|verdict| verdict == Verdict::Stop));
        let soon = RetryOptions { backoff_ms: 0, ..options };
        assert_eq!(verdict(CAME, &soon, &mut budget, &mut rng, &FAILED), Verdict::Again(CAME));
        assert_eq!(verdict(CAME, &soon, &mut budget, &mut rng, &FAILED), Verdict::Stop, "that one was spent");
    }

    #[test]
    fn retries_wait_longer_each_time_and_never_past_the_end() {
        let options =
            RetryOptions { tries_max: 9, total_ms: 1000, backoff_ms: 100, ..RetryOptions::default() };
        let mut rng = Rng::new(3);
        for number in 1..8 {
            for seed in 0..200 {
                let last = Try { number, ..FAILED };
                let now = CAME.plus_millis(seed * 5);
                if let Verdict::Again(at) = verdict(now, &options, &mut Budget::default(), &mut rng, &last) {
                    assert!(at.since(now) <= 100_000 << (number - 1));
                    assert!(at < CAME.plus_millis(1000));
                }
            }
        }
    }
}
