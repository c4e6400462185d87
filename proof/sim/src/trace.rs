//! What happened, event by event, and the one number that stands for it.

use std::fmt::{self, Write};

use kernel::hash::KeyHasher;

/// The events of one run. Their hash is kept always, their text on request.
pub struct Trace {
    hasher: KeyHasher,
    hash: u64,
    line: String,
    kept: Option<Vec<String>>,
    events: u64,
}

impl Trace {
    /// An empty trace that keeps its events' text if `keep`.
    #[must_use]
    pub fn new(keep: bool) -> Trace {
        let kept = keep.then(Vec::new);
        Trace { hasher: KeyHasher::new(0), hash: 0, line: String::new(), kept, events: 0 }
    }

    /// Adds an event that happened at `at` (microseconds of the simulation).
    pub fn event(&mut self, at: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = write!(self.line, "{:>6}.{:06} {what}", at / 1_000_000, at % 1_000_000);
        self.hash = self.hash.rotate_left(5) ^ self.hasher.hash(self.line.as_bytes());
        self.hash = self.hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.events += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(self.line.clone());
        }
    }

    /// The hash over all events so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The events' text, if it was kept.
    #[must_use]
    pub fn into_text(self) -> Vec<String> {
        self.kept.unwrap_or_default()
    }
}
