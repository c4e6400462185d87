//! What the checkpoint must know of each change: which entries differ from the engine's.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Store;
use crate::Fault;
use crate::object::table::{Key, Slot};

/// The entry is in the list of entries changed since the last cut.
const DIRTY: u8 = 1;
/// The engine has (an older version of) this key.
const STORED: u8 = 2;

/// Entries and removals since the last cut.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    changed: Vec<Slot>,
    removed: BTreeSet<Key>,
}

impl Dirty {
    pub(crate) fn forget_all(&mut self) {
        *self = Dirty::default();
    }
}

impl Store {
    /// Called before the entry at `slot` changes.
    #[inline]
    pub(crate) fn before_change(&mut self, slot: Slot) {
        let clock = self.access_clock();
        let entry = self.entry_mut(slot);
        entry.clock = clock;
        if entry.marks & DIRTY == 0 {
            entry.marks |= DIRTY;
            self.checkpoint.changed.push(slot);
        }
    }

    /// Called after an entry was added at `slot`.
    pub(crate) fn created(&mut self, slot: Slot) {
        if !self.checkpoint.removed.is_empty() {
            let key = self.entry(slot).key.clone();
            if self.checkpoint.removed.remove(&key) {
                self.entry_mut(slot).marks |= STORED;
            }
        }
        self.before_change(slot);
    }

    /// Called before the entry at `slot` is removed.
    pub(crate) fn before_removal(&mut self, slot: Slot) {
        let entry = self.entry(slot);
        if entry.marks & STORED != 0 {
            let key = entry.key.clone();
            self.checkpoint.removed.insert(key);
        }
    }

    /// Brings an evicted body back into memory.
    #[inline]
    pub(crate) fn load(&mut self, _slot: Slot) -> Result<(), Fault> {
        Ok(())
    }
}
