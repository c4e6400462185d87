//! Whole clusters in virtual time: several nodes, each the same worker as in a server with its journal on a simulated disk,
//! links that break, clocks that differ, and clients that write down what they are told.
//!
//! A run has a phase in which things go wrong and one in which everything is well again: then everybody must be
//! answered within a bound. Judged are: for each key, whether what clients were told is linearizable, where a lost
//! connection or an `UNKNOWN` is unknown and never failed; one leader for each term and group; the same entry applied at
//! each index, and the same state at equal indexes; logs that match; marks of a keyspace with all that was applied before; an answer to everybody within a bound, from
//! a minority too.

mod host;
mod judge;
mod net;
mod plan;
mod seats;
pub mod split;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::trace::Trace;

/// What a run was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The trace's hash.
    pub hash: u64,
    /// Events in it.
    pub events: u64,
    /// Virtual time, in microseconds.
    pub micros: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations of which nothing is known.
    pub unknown: u64,
    /// Operations that surely did not run.
    pub refused: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Snapshots that were switched to.
    pub snapshots: u64,
    /// Leaderships that were handed over.
    pub handovers: u64,
    /// Changes of members that were asked for.
    pub changes: u64,
    /// States that were compared with others.
    pub applied: u64,
    /// Moments at which all leaders of a keyspace stood still.
    pub marks: u64,
    /// Attempts at that which came to nothing.
    pub unmarked: u64,
    /// Keys whose history was too hard to judge.
    pub hard: u64,
}

impl Outcome {
    /// Both together.
    pub fn add(&mut self, other: &Outcome) {
        self.hash = self.hash.rotate_left(1) ^ other.hash;
        self.events += other.events;
        self.micros += other.micros;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.checkpoints += other.checkpoints;
        self.snapshots += other.snapshots;
        self.handovers += other.handovers;
        self.changes += other.changes;
        self.applied += other.applied;
        self.marks += other.marks;
        self.unmarked += other.unmarked;
        self.hard += other.hard;
    }
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What broke.
    pub what: String,
    /// The trace's hash at that point.
    pub hash: u64,
    /// Every event up to there.
    pub events: Vec<String>,
}

/// Events of a failure that are told without being asked for.
const EVENTS_TOLD: usize = 60;

impl Failure {
    /// The command that runs the seed again, events and all.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo run --release -p sim --bin cluster -- --seeds 1 --from {} --events", self.seed)
    }

    /// The failure as a person reads it, with all events or the last ones.
    #[must_use]
    pub fn told(&self, all: bool) -> String {
        let skipped = if all { 0 } else { self.events.len().saturating_sub(EVENTS_TOLD) };
        let mut text = format!("seed {}: {}\n  again: {}\n", self.seed, self.what, self.command());
        if skipped > 0 {
            text.push_str(&format!("  … {skipped} events before\n"));
        }
        for event in &self.events[skipped..] {
            text.push_str(&format!("  {event}\n"));
        }
        text
    }
}

/// Runs one seed; on a failure once more with its events kept.
///
/// # Errors
/// The promise that broke, or the assertion.
pub fn run(seed: u64) -> Result<Outcome, Box<Failure>> {
    attempt(seed, false).or_else(|_| attempt(seed, true))
}

/// Runs one seed and keeps nothing: whether it fails, and how.
///
/// # Errors
/// As [`run`].
pub fn attempt(seed: u64, keep: bool) -> Result<Outcome, Box<Failure>> {
    let mut trace = Trace::new(keep);
    let what = match caught(|| world::run(seed, &mut trace)) {
        Ok(outcome) => return Ok(outcome),
        Err(what) => what,
    };
    Err(Box::new(Failure { seed, what, hash: trace.hash(), events: trace.into_text() }))
}

/// What `play` gives, an assertion that fails as an error.
fn caught<T>(play: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("an assertion failed: {}", text.unwrap_or("without a text")))
    })
}
