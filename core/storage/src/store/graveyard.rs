//! Freeing what is gone in small pieces: a large value or a flushed table leaves at once and its memory later.
//!
//! Only values of many pieces come here; freeing a small one is cheaper than keeping it. What is left to free
//! is this node's own affair and no part of the state: replay and checkpoints never see it. It is still memory,
//! and is counted as such.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use kernel::hash::KeyHasher;
use kernel::planted::{Bug, is};

use super::Store;
use crate::object::Value;
use crate::object::table::Table;

/// Frees one piece with each call and tells about how many bytes that were.
pub(crate) type Pieces = Box<dyn Iterator<Item = usize> + Send>;

/// Values of fewer pieces are freed at once.
pub(crate) const PIECES_AT_ONCE_MAX: usize = 256;

/// How far used memory may grow while dead values wait, in bytes, before whoever adds to them frees some too.
const GROWTH_BYTES_MAX: usize = 64 << 20;

/// What is gone and not freed yet.
pub(crate) struct Graveyard {
    /// Pieces of a value that is freed at once.
    pub at_once: usize,
    queue: VecDeque<Dead>,
    /// Estimated bytes of all in the queue.
    bytes: usize,
    /// Memory that was used when the first of them came.
    used_at_first: usize,
}

struct Dead {
    pieces: Pieces,
    bytes: usize,
}

impl Default for Graveyard {
    fn default() -> Graveyard {
        Graveyard { at_once: PIECES_AT_ONCE_MAX, queue: VecDeque::new(), bytes: 0, used_at_first: 0 }
    }
}

impl Graveyard {
    /// Bytes that are still to be freed, about.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes `bytes` in `pieces`; `live` bytes are in use besides.
    pub fn bury(&mut self, pieces: Pieces, bytes: usize, live: usize) {
        self.queue.push_back(Dead { pieces, bytes });
        self.bytes += bytes;
        let used = live + self.bytes;
        if self.queue.len() == 1 {
            self.used_at_first = used;
        }
        // Values that are made and replaced faster than turns free them pay for it themselves, twice what they
        // add, or they would take all memory. What grew for other reasons is not theirs to pay.
        if used > self.used_at_first.saturating_add(GROWTH_BYTES_MAX) {
            let until = self.bytes.saturating_sub(2 * bytes);
            while self.bytes > until && !self.is_empty() {
                self.free(PIECES_AT_ONCE_MAX);
            }
        }
    }

    /// Frees up to `steps` pieces. Returns how many.
    pub fn free(&mut self, steps: usize) -> usize {
        let mut done = 0;
        while done < steps {
            let Some(dead) = self.queue.front_mut() else { break };
            done += 1;
            match dead.pieces.next() {
                Some(bytes) => {
                    let freed = bytes.min(dead.bytes);
                    dead.bytes -= freed;
                    self.bytes -= freed;
                }
                None => {
                    self.bytes -= dead.bytes;
                    self.queue.pop_front();
                }
            }
        }
        done
    }
}

impl core::fmt::Debug for Graveyard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} values of {} bytes", self.queue.len(), self.bytes)
    }
}

impl Store {
    /// Removes all keys: a new generation.
    pub fn flush(&mut self) {
        let table = core::mem::replace(&mut self.table, Table::new(KeyHasher::new(self.seed)));
        let expiry = core::mem::take(&mut self.expiry);
        let bytes = core::mem::take(&mut self.memory);
        if let Some(table) = self.longs.keep(self.generation, table, bytes) {
            self.graveyard.bury(table.into_pieces(), bytes, 0);
        }
        self.graveyard.bury(Box::new(expiry.into_iter().map(|_| 0)), 0, 0);
        self.generation += u32::from(!is(Bug::GenerationIgnored));
        let removed = self.checkpoint.forget_all();
        self.graveyard.bury(Box::new(removed.into_iter().map(|_| 0)), 0, 0);
        // A few keys are not worth waiting.
        self.free_dead(self.graveyard.at_once);
        self.flushed = true;
    }

    /// Values of up to `pieces` pieces are freed at once; no more than usual, which is 256.
    pub const fn set_pieces_at_once(&mut self, pieces: usize) {
        self.graveyard.at_once = if pieces < PIECES_AT_ONCE_MAX { pieces } else { PIECES_AT_ONCE_MAX };
    }

    /// Frees `value`, which is no entry's any more: at once if it is small, else piece by piece.
    #[inline]
    pub(crate) fn bury(&mut self, value: Value) {
        if !matches!(value, Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) | Value::Evicted(_))
            && value.pieces() > self.graveyard.at_once
        {
            let bytes = value.memory_bytes();
            self.graveyard.bury(value.into_pieces(), bytes, self.memory);
        }
    }

    /// Frees up to `steps` pieces of what is gone: an element, a chunk of a list, a flushed key. Returns how
    /// many there were to free; fewer than `steps` when nothing is left.
    #[inline]
    pub fn free_dead(&mut self, steps: usize) -> usize {
        if self.graveyard.is_empty() { 0 } else { self.graveyard.free(steps) }
    }

    /// Bytes of removed values that are not freed yet, about, those that are still read among them.
    /// [`Store::memory_bytes`] counts them.
    #[must_use]
    pub fn dead_bytes(&self) -> usize {
        self.graveyard.bytes() + self.longs.bytes()
    }
}
