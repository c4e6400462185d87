//! The deterministic simulator: the node's own machines in virtual time, on a disk that lies within its
//! rights, watched by the judges.
//!
//! A seed decides everything. The same seed gives the same trace, event by event, on every machine; its
//! hash is the witness. What a seed found is kept in `regressions/`.

pub mod checkpoint;
pub mod cluster;
pub mod disk;
pub mod engine;
pub mod fetch;
pub mod kad;
pub mod log;
pub mod plan;
pub mod post;
pub mod scenario;
pub mod swarm;
pub mod trace;
pub mod work;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use trace::Trace;
pub use work::Scope;
pub use world::Outcome;

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What its clients drew from.
    pub scope: Scope,
    /// What broke.
    pub what: String,
    /// The trace's hash at that point.
    pub hash: u64,
    /// Every event up to there.
    pub events: Vec<String>,
}

impl Failure {
    /// The command that runs the seed again, events and all.
    #[must_use]
    pub fn command(&self) -> String {
        let scope = match self.scope {
            own if own == Scope::of(self.seed) => String::new(),
            other => format!(" --scope {}", other.name()),
        };
        format!("cargo run --release -p sim -- --seeds 1 --from {} --events{scope}", self.seed)
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
            text.push_str("  ");
            text.push_str(event);
            text.push('\n');
        }
        text
    }
}

/// Events of a failure that are told without being asked for.
const EVENTS_TOLD: usize = 40;

/// Every event of one seed's run, up to its failure if it fails.
#[must_use]
pub fn events(seed: u64, scope: Scope) -> Vec<String> {
    let mut trace = Trace::new(true);
    // Only the events are asked for here.
    let _ = catch_unwind(AssertUnwindSafe(|| world::run(seed, scope, &mut trace).is_ok()));
    trace.into_text()
}

/// Runs one seed in its own scope; on a failure once more with its events kept.
///
/// # Errors
/// The promise that broke, or the assertion.
pub fn run(seed: u64) -> Result<Outcome, Box<Failure>> {
    run_in(seed, Scope::of(seed))
}

/// The same in a given scope.
///
/// # Errors
/// As [`run`].
pub fn run_in(seed: u64, scope: Scope) -> Result<Outcome, Box<Failure>> {
    attempt(seed, scope, false).or_else(|_| attempt(seed, scope, true))
}

fn attempt(seed: u64, scope: Scope, keep: bool) -> Result<Outcome, Box<Failure>> {
    let mut trace = Trace::new(keep);
    let result = catch_unwind(AssertUnwindSafe(|| world::run(seed, scope, &mut trace)));
    let what = match result {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(violation)) => violation.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("an assertion failed: {}", text.unwrap_or("without a text"))
        }
    };
    Err(Box::new(Failure { seed, scope, what, hash: trace.hash(), events: trace.into_text() }))
}
