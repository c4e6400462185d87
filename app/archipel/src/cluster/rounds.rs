//! One backup after another, until somebody ends it or nothing comes of it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Exit, Failure};

/// Rounds that may fail in a row.
const FAILURES_MAX: u32 = 10;
/// The wait after the first of them; it doubles with each.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The exit code after a second signal, as a shell tells it for SIGINT.
const SECOND_SIGNAL: i32 = 130;

/// When rounds begin, and how many of them may fail.
struct Pace {
    every: Duration,
    failures: u32,
    /// One has succeeded.
    proven: bool,
}

/// What follows a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another one, after this.
    Wait(Duration),
    /// Nothing.
    GiveUp,
}

impl Pace {
    /// A round took this long, and failed or not.
    fn after(&mut self, took: Duration, failed: bool) -> Next {
        if !failed {
            (self.failures, self.proven) = (0, true);
            return Next::Wait(self.every.saturating_sub(took));
        }
        self.failures += 1;
        // What has never worked is asked for wrongly.
        if !self.proven || self.failures >= FAILURES_MAX {
            return Next::GiveUp;
        }
        Next::Wait(RETRY_MIN.saturating_mul(1 << (self.failures - 1).min(16)).min(RETRY_MAX))
    }
}

/// Runs rounds, each told how to see that it should end, until SIGINT or SIGTERM.
///
/// # Errors
/// The first round's, or that of the last of too many that failed in a row.
pub fn run(
    every: Duration,
    as_json: bool,
    round: &mut dyn FnMut(&dyn Fn() -> bool) -> Result<()>,
) -> Result<Exit, Failure> {
    let end = End::listen()?;
    let mut pace = Pace { every, failures: 0, proven: false };
    loop {
        let begun = Instant::now();
        let done = round(&|| end.has_come());
        if end.has_come() {
            return Ok(Exit::Holds);
        }
        let took = begun.elapsed();
        let next = pace.after(took, done.is_err());
        let wait = match (done, next) {
            (Err(error), Next::GiveUp) => return Err(error.into()),
            (Err(error), Next::Wait(wait)) => {
                let (failures, seconds) = (pace.failures, wait.as_secs());
                let reason = Failure::from(error).text();
                if as_json {
                    println!(
                        "{}",
                        json!({"schema": 1, "failed": reason, "in_a_row": failures, "again_in": seconds})
                    );
                }
                eprintln!(
                    "this round failed, {failures} in a row of at most {FAILURES_MAX}, and is tried again in \
                     {seconds} s: {reason}"
                );
                wait
            }
            (Ok(()), Next::Wait(wait)) => {
                if wait.is_zero() {
                    eprintln!(
                        "it took {} s, longer than the {} s from one to the next",
                        took.as_secs(),
                        every.as_secs()
                    );
                }
                wait
            }
            (Ok(()), Next::GiveUp) => unreachable!("what succeeds is not given up"),
        };
        if end.comes_within(wait) {
            return Ok(Exit::Holds);
        }
    }
}

/// Whether it is to end.
struct End {
    flag: Arc<AtomicBool>,
    told: Receiver<()>,
}

impl End {
    fn listen() -> Result<End> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be caught")?;
        let flag = Arc::<AtomicBool>::default();
        let (tell, told) = channel();
        let seen = Arc::clone(&flag);
        let listen = move || {
            for _ in signals.forever() {
                if seen.swap(true, Ordering::AcqRel) {
                    std::process::exit(SECOND_SIGNAL);
                }
                // Who waits has perhaps just ended.
                let _ = tell.send(());
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
        thread.context("a thread for signals cannot be started")?;
        Ok(End { flag, told })
    }

    fn has_come(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    fn comes_within(&self, wait: Duration) -> bool {
        match self.told.recv_timeout(wait) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => self.has_come(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_keep_their_pace_and_fail_so_often_in_a_row() {
        let wait = |seconds| Next::Wait(Duration::from_secs(seconds));
        let many = |count: usize| vec![(1, true); count];
        #[rustfmt::skip] // columns
        let table = [
            // each round's seconds, and whether it failed           what follows the last
            (vec![(0, false)],                                       wait(10)),
            (vec![(3, false)],                                       wait(7)),
            (vec![(30, false)],                                      wait(0)),
            (vec![(1, true)],                                        Next::GiveUp), // it has never worked
            (vec![(1, false), (1, true)],                            wait(1)),
            (vec![(1, false), (1, true), (1, true), (1, true)],      wait(4)),
            (vec![(1, false), (1, true), (1, false), (9, true)],     wait(1)),
            ([vec![(1, false)], many(9)].concat(),                   wait(60)),
            ([vec![(1, false)], many(10)].concat(),                  Next::GiveUp),
            ([vec![(1, false)], many(9), vec![(1, false)]].concat(), wait(9)),
        ];
        for (row, (rounds, expected)) in table.into_iter().enumerate() {
            let mut pace = Pace { every: Duration::from_secs(10), failures: 0, proven: false };
            let next =
                rounds.iter().map(|&(took, failed)| pace.after(Duration::from_secs(took), failed)).last();
            assert_eq!(next, Some(expected), "row {row}");
        }
    }
}
