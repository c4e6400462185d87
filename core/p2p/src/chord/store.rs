//! The values that a node keeps: those it owns, and copies of its predecessors'.
//!
//! A value is at its owner and the owner's successors. It moves when a node joins (to its new owner), when one
//! leaves (to its successor) and when one dies (the successor has a copy, and copies it on). Limits: what was copied
//! here once stays here; when the store is full, new values are refused; what a newcomer or an heir is handed at once ends
//! where requests run out (copies go on with the next stabilization).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use smallvec::SmallVec;

use super::message::{Item, Message};
use super::ring::owns;
use super::{Chord, Purpose};
use crate::key::Key;
use crate::pending::PENDING_MAX;
use crate::protocol::{Contact, EffectOf, Keys};

/// Longest value, in bytes: with its header it fits a message of 16 KiB.
pub const VALUE_BYTES_MAX: usize = 15 * 1024;
/// Most values of one node.
pub const STORE_VALUES_MAX: usize = 65_536;
/// Most bytes of one node's values.
pub const STORE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of items in one message; one value alone may be as long as it may.
pub const BATCH_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// With so many requests on their way no more values are sent: the others are for lookups and for keeping the ring.
const SENDING_MAX: usize = PENDING_MAX / 2;

/// Bytes of an item beside its value, at most: its key, its version and the value's length.
pub(super) const ITEM_BYTES_OVER: usize = 32 + 10 + 3;

/// How far a successor has copies of all own values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied<C> {
    pub to: C,
    sent: Sent,
}

/// How much of what was to be sent is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// All.
    Whole,
    /// Up to here; the requests were too few for the rest.
    Through(Bound<Key>),
}

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
        self.items(Bound::Unbounded, |_| true)
    }

    /// Those of the wanted points whose keys are behind `after`, in the keys' order.
    fn items(&self, after: Bound<Key>, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = Item> {
        let values = self.values.range((after, Bound::Unbounded));
        let values = values.filter(move |(key, _)| wanted(key.point()));
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

    fn send(&mut self, to: C, items: Vec<Item>, after: Bound<Key>, out: &mut Vec<EffectOf<Self>>) -> Sent {
        let (mut batch, mut bytes, mut sent) = (Vec::new(), 0, after);
        for item in items {
            let size = item.value.len() + ITEM_BYTES_OVER;
            if bytes + size > BATCH_BYTES_MAX && !batch.is_empty() {
                let full = core::mem::take(&mut batch);
                if !self.send_batch(to, full, &mut sent, out) {
                    return Sent::Through(sent);
                }
                bytes = 0;
            }
            bytes += size;
            batch.push(item);
        }
        let whole = batch.is_empty() || self.send_batch(to, batch, &mut sent, out);
        if whole { Sent::Whole } else { Sent::Through(sent) }
    }

    /// Sends one message; `sent` is its last key then. False if there are requests enough on their way.
    fn send_batch(
        &mut self,
        to: C,
        batch: Vec<Item>,
        sent: &mut Bound<Key>,
        out: &mut Vec<EffectOf<Self>>,
    ) -> bool {
        let last = batch.last().map(|item| item.key);
        let goes =
            self.pending.len() < SENDING_MAX && self.ask(to, Purpose::Copy, Message::Copies(batch), out);
        if goes {
            *sent = last.map_or(*sent, Bound::Excluded);
        }
        goes
    }

    /// A node joined before us: what lies in `(old, newcomer]` is its own.
    pub(super) fn hand_over(&mut self, keys: &impl Keys<C>, old: u64, to: C, out: &mut Vec<EffectOf<Self>>) {
        let Some(store) = &self.store else { return };
        let point = keys.point(to);
        let items: Vec<Item> = store.items(Bound::Unbounded, |at| owns(old, point, at)).collect();
        self.send(to, items, Bound::Unbounded, out);
    }

    /// Sends everything that this node owns to who takes its place.
    pub(super) fn bequeath(&mut self, keys: &impl Keys<C>, to: C, out: &mut Vec<EffectOf<Self>>) {
        self.send_owned(keys, to, Bound::Unbounded, out);
    }

    fn send_owned(
        &mut self,
        keys: &impl Keys<C>,
        to: C,
        after: Bound<Key>,
        out: &mut Vec<EffectOf<Self>>,
    ) -> Sent {
        let Some(store) = &self.store else { return Sent::Whole };
        let items: Vec<Item> = store.items(after, |at| self.is_owner(keys, at)).collect();
        self.send(to, items, after, out)
    }

    /// Copies what this node owns to those that became its first successors since the last time, and goes on where requests
    /// ran out then.
    pub(super) fn copy_to_new(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        if self.store.as_ref().is_none_or(|store| store.is_empty()) {
            return;
        }
        let before = core::mem::take(&mut self.copied);
        for to in self.first_successors() {
            let known = before.iter().find(|copied| copied.to == to).map(|copied| copied.sent);
            let sent = match known.unwrap_or(Sent::Through(Bound::Unbounded)) {
                Sent::Whole => Sent::Whole,
                Sent::Through(after) => self.send_owned(keys, to, after, out),
            };
            self.copied.push(Copied { to, sent });
        }
    }

    pub(super) fn forget_copied(&mut self) {
        self.copied.clear();
    }

    /// Copies everything that this node owns again: what was lost on its way comes back. A copy that is still under way goes
    /// on instead, or a large store would never be copied to its end.
    pub(super) fn repair(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        self.copied.retain(|copied| copied.sent != Sent::Whole);
        self.copy_to_new(keys, out);
    }
}
