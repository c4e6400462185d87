//! How many clients a node has, over all its loops.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The clients of all workers of a node.
#[derive(Debug)]
pub struct Crowd {
    clients_max: usize,
    open: AtomicUsize,
    ever: AtomicU64,
}

impl Crowd {
    /// Nobody yet; at most `clients_max` at once.
    #[must_use]
    pub const fn new(clients_max: usize) -> Crowd {
        Crowd { clients_max, open: AtomicUsize::new(0), ever: AtomicU64::new(0) }
    }

    /// Makes room for one more, unless there are too many: how many were there, and had ever been.
    pub(crate) fn enter(&self) -> Option<(usize, u64)> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        if before >= self.clients_max {
            self.leave();
            return None;
        }
        Some((before, self.ever.fetch_add(1, Ordering::AcqRel)))
    }

    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }
}
