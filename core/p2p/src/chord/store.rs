//! The values that a node keeps: those it owns, and copies of its predecessors'.
//!
//! A value is at its owner and the owner's successors. It moves when a node joins (to its new owner), when one
//! leaves (to its successor) and when one dies (the successor has a copy, and copies it on). Limits: what was copied
//! here once stays here; when the store is full, new values are refused.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::message::{Item, Message};
use super::ring::owns;
use super::{Chord, Purpose};
use crate::key::Key;
use crate::protocol::{Contact, EffectOf, Keys};

/// Longest value, in bytes: with its header it fits a message of 16 KiB.
pub const VALUE_BYTES_MAX: usize = 15 * 1024;
/// Most values of one node.
pub const STORE_VALUES_MAX: usize = 65_536;
/// Most bytes of one node's values.
pub const STORE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of items in one message; one value alone may be as long as it may.
pub const BATCH_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// Bytes of an item beside its value, at most: its key, its version and the value's length.
pub(super) const ITEM_BYTES_OVER: usize = 32 + 10 + 3;

/// Values by their place.
#[derive(Clone, Debug, Default)]
pub struct Store {
    values: BTreeMap<Key, (u64, Arc<[u8]>)>,
    bytes: usize,
}

impl Store {
    /// What is kept at `key`.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Item> {
        let (version, value) = self.values.get(&key)?;
        Some(Item { key, version: *version, value: Arc::clone(value) })
    }

    /// How many values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// How many bytes they have.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True without values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Keeps `item` unless there is no room or it is too large; false then. An older version changes nothing.
    pub fn keep(&mut self, item: Item) -> bool {
        let Item { key, version, value } = item;
        if value.len() > VALUE_BYTES_MAX {
            return false;
        }
        let old = self.values.get(&key).map(|(version, value)| (*version, value.len()));
        if old.is_some_and(|(old, _)| old >= version) {
            return true;
        }
        let bytes = self.bytes - old.map_or(0, |(_, len)| len) + value.len();
        if bytes > STORE_BYTES_MAX || old.is_none() && self.values.len() >= STORE_VALUES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.values.insert(key, (version, value));
        true
    }

    /// Forgets the values for which `keep` is false. O(values).
    pub fn retain(&mut self, mut keep: impl FnMut(&Item) -> bool) {
        let Store { values, bytes } = self;
        values.retain(|key, (version, value)| {
            let stays = keep(&Item { key: *key, version: *version, value: Arc::clone(value) });
            *bytes -= if stays { 0 } else { value.len() };
            stays
        });
    }

    /// All values.
    pub fn iter(&self) -> impl Iterator<Item = Item> {
        self.items(|_| true)
    }

    fn items(&self, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = Item> {
        let values = self.values.iter().filter(move |(key, _)| wanted(key.point()));
        values.map(|(key, (version, value))| Item { key: *key, version: *version, value: Arc::clone(value) })
    }
}

impl<C: Contact> Chord<C> {
    fn first_successors(&self) -> SmallVec<[C; 4]> {
        self.successors.iter().take(usize::from(self.settings.copies) - 1).copied().collect()
    }

    /// Keeps a value as its owner, and copies it.
    pub(super) fn put_here(&mut self, item: Item, out: &mut Vec<EffectOf<Self>>) -> Message<C> {
        let kept = self.store.get_or_insert_default().keep(item.clone());
        if kept {
            for to in self.first_successors() {
                self.ask(to, Purpose::Copy, Message::Copies(Vec::from([item.clone()])), out);
            }
        }
        Message::Stored(u32::from(kept))
    }

    pub(super) fn take_copies(&mut self, items: Vec<Item>) -> Message<C> {
        let store = self.store.get_or_insert_default();
        Message::Stored(items.into_iter().map(|item| u32::from(store.keep(item))).sum())
    }

    fn send(&mut self, to: C, items: Vec<Item>, out: &mut Vec<EffectOf<Self>>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for item in items {
            let size = item.value.len() + ITEM_BYTES_OVER;
            if bytes + size > BATCH_BYTES_MAX && !batch.is_empty() {
                let full = core::mem::take(&mut batch);
                self.ask(to, Purpose::Copy, Message::Copies(full), out);
                bytes = 0;
            }
            bytes += size;
            batch.push(item);
        }
        if !batch.is_empty() {
            self.ask(to, Purpose::Copy, Message::Copies(batch), out);
        }
    }

    /// A node joined before us: what lies in `(old, newcomer]` is its own.
    pub(super) fn hand_over(&mut self, keys: &impl Keys<C>, old: u64, to: C, out: &mut Vec<EffectOf<Self>>) {
        let Some(store) = &self.store else { return };
        let point = keys.point(to);
        let items: Vec<Item> = store.items(|at| owns(old, point, at)).collect();
        self.send(to, items, out);
    }

    /// Sends everything that this node owns.
    pub(super) fn send_owned(&mut self, keys: &impl Keys<C>, to: C, out: &mut Vec<EffectOf<Self>>) {
        let Some(store) = &self.store else { return };
        let items: Vec<Item> = store.items(|at| self.is_owner(keys, at)).collect();
        self.send(to, items, out);
    }

    /// Copies what this node owns to those that became its first successors since the last time.
    pub(super) fn copy_to_new(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        if self.store.as_ref().is_none_or(|store| store.is_empty()) {
            return;
        }
        let now = self.first_successors();
        for &to in &now {
            if !self.copied.contains(&to) {
                self.send_owned(keys, to, out);
            }
        }
        self.copied = now;
    }

    pub(super) fn forget_copied(&mut self) {
        self.copied.clear();
    }

    /// Copies everything that this node owns again: what was lost on its way comes back.
    pub(super) fn repair(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        self.forget_copied();
        self.copy_to_new(keys, out);
    }
}
