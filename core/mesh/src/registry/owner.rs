//! What one node has written, as it is known here: its records in the order in which it wrote them.
//!
//! Each write of an owner takes the next sequence of its life (incarnation). Who knows all up to a sequence needs only
//! what follows it. A removal is kept as a tombstone for a while; how far tombstones were forgotten is the `floor`, and
//! who knows less than that gets a whole copy, which tells by what it lacks. Because only the owner writes, nothing is
//! ever merged.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::Micros;
use kernel::planted::{Bug, is};

use super::frame::{Body, Delta, Item};
use super::{INSTANCES_MAX, TOMBSTONE_MS};

/// Bytes of records that one frame carries, about.
const DELTA_BYTES: usize = 128 * 1024;
/// How long an answer to a gap is waited for before it is asked again, in milliseconds.
const ASK_MS: u64 = 250;

/// The present of one key.
#[derive(Clone, Debug)]
struct Slot {
    sequence: u64,
    body: Option<Body>,
    /// When it was removed, as it is known here.
    removed_at: Micros,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Owner {
    /// Its life.
    pub incarnation: u64,
    /// All of its records up to this sequence are known.
    pub have: u64,
    /// Tombstones up to this sequence were forgotten.
    floor: u64,
    /// By id of the instance; the empty one is the node itself.
    slots: BTreeMap<String, Slot>,
    /// The key of each sequence.
    order: BTreeMap<u64, String>,
    /// A whole copy that is arriving: up to where it has come.
    filling: Option<u64>,
    /// What that copy has not confirmed.
    unconfirmed: BTreeSet<String>,
    /// When somebody was last asked for what is missing.
    asked_at: Micros,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub key: String,
    pub old: Option<Body>,
    pub new: Option<Body>,
}

/// What a delta did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was of an earlier life, or known already.
    Nothing,
    /// What is before it is not known here.
    Gap,
    /// These are new.
    Changes(Vec<Changed>),
}

impl Owner {
    /// One that has written nothing in this life.
    pub fn new(incarnation: u64) -> Owner {
        Owner { incarnation, ..Owner::default() }
    }

    /// What is at `key`.
    pub fn get(&self, key: &str) -> Option<&Body> {
        self.slots.get(key)?.body.as_ref()
    }

    /// What there is, by its key.
    pub fn bodies(&self) -> impl Iterator<Item = (&str, &Body)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key.as_str(), slot.body.as_ref()?)))
    }

    /// Whether somebody is to be asked for what is missing: not again while an answer may be on its way.
    pub fn asks(&mut self, now: Micros) -> bool {
        let is_due = now >= self.asked_at.plus_millis(ASK_MS);
        if is_due {
            self.asked_at = now;
        }
        is_due
    }

    /// How many keys there are, removed ones not counted.
    pub fn len(&self) -> usize {
        self.slots.values().filter(|slot| slot.body.is_some()).count()
    }

    /// The owner itself writes. The old body comes back.
    pub fn write(&mut self, now: Micros, key: &str, body: Option<Body>) -> Changed {
        self.have += 1;
        let sequence = self.have;
        self.put(now, key, sequence, body)
    }

    /// The owner itself replaces what others need not be told of.
    pub fn amend(&mut self, key: &str, body: Body) {
        if let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.body.is_some()) {
            slot.body = Some(body);
        }
    }

    fn put(&mut self, now: Micros, key: &str, sequence: u64, body: Option<Body>) -> Changed {
        let fresh = Slot { sequence, body: body.clone(), removed_at: now };
        let old = self.slots.insert(key.into(), fresh);
        if let Some(old) = &old {
            self.order.remove(&old.sequence);
        }
        self.order.insert(sequence, key.into());
        Changed { key: key.into(), old: old.and_then(|slot| slot.body), new: body }
    }

    fn drop_key(&mut self, key: &str) -> Option<Body> {
        let slot = self.slots.remove(key)?;
        self.order.remove(&slot.sequence);
        slot.body
    }

    /// Forgets removals that are old enough.
    pub fn expire(&mut self, now: Micros) {
        let old = |slot: &Slot| slot.body.is_none() && now >= slot.removed_at.plus_millis(TOMBSTONE_MS);
        let gone: Vec<String> =
            self.slots.iter().filter(|(_, slot)| old(slot)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            let sequence = self.slots.get(&key).map_or(0, |slot| slot.sequence);
            if !is(Bug::RemovalForgotten) {
                self.floor = self.floor.max(sequence);
            }
            self.drop_key(&key);
        }
    }

    /// What somebody needs who knows this owner's life `incarnation` up to `known`, in frames' worth; nothing if that
    /// is as much as is known here.
    pub fn deltas(&self, incarnation: u64, known: u64) -> Vec<Delta> {
        let is_known =
            incarnation > self.incarnation || (incarnation == self.incarnation && known >= self.have);
        // Half of a whole copy is nothing to hand on.
        if is_known || self.have == 0 || self.filling.is_some() {
            return Vec::new();
        }
        let whole = incarnation != self.incarnation || known == 0 || known < self.floor;
        let start = if whole { 0 } else { known };
        let mut all: Vec<Delta> = Vec::new();
        let (mut items, mut bytes, mut base) = (Vec::new(), 0, start);
        let end = |items: Vec<Item>, base: u64, upto: u64, is_last: bool| Delta {
            incarnation: self.incarnation,
            base,
            upto,
            whole,
            is_last,
            items,
        };
        for (&sequence, key) in self.order.range(start + 1..=self.have) {
            let slot = &self.slots[key];
            if whole && slot.body.is_none() {
                continue;
            }
            let item = Item { sequence, key: key.clone(), body: slot.body.clone() };
            let size = item.size();
            if bytes + size > DELTA_BYTES && !items.is_empty() {
                all.push(end(core::mem::take(&mut items), base, sequence - 1, false));
                (base, bytes) = (sequence - 1, 0);
            }
            bytes += size;
            items.push(item);
        }
        all.push(end(items, base, self.have, true));
        all
    }

    /// Takes what was told of it.
    pub fn take(&mut self, now: Micros, delta: Delta) -> Taken {
        if delta.incarnation < self.incarnation && !is(Bug::OldLifeBelieved) {
            return Taken::Nothing;
        }
        let is_new_life = delta.incarnation != self.incarnation;
        if !is_new_life && delta.upto <= self.have {
            return Taken::Nothing;
        }
        if delta.whole {
            self.take_whole(now, delta, is_new_life)
        } else {
            self.take_news(now, delta, is_new_life)
        }
    }

    fn take_news(&mut self, now: Micros, delta: Delta, is_new_life: bool) -> Taken {
        let is_gap = delta.base > self.have && !is(Bug::GapIgnored);
        if is_new_life || is_gap {
            return Taken::Gap;
        }
        let mut changes = Vec::new();
        for Item { sequence, key, body } in delta.items {
            if sequence > self.have && self.has_room(&key, body.as_ref()) {
                changes.push(self.put(now, &key, sequence, body));
            }
        }
        self.have = delta.upto;
        self.filling = None;
        Taken::Changes(changes)
    }

    /// A whole copy may come in several frames. What it does not have goes when the last is there, so that nothing is
    /// away for a moment that is only further behind.
    fn take_whole(&mut self, now: Micros, delta: Delta, is_new_life: bool) -> Taken {
        if delta.base == 0 {
            self.unconfirmed = self.slots.keys().cloned().collect();
        } else if is_new_life || self.filling != Some(delta.base) {
            return Taken::Gap;
        }
        if is_new_life {
            // Sequences of another life mean nothing in this one.
            self.incarnation = delta.incarnation;
            (self.have, self.floor) = (0, 0);
            self.order.clear();
            self.slots.values_mut().for_each(|slot| slot.sequence = 0);
        }
        self.filling = Some(delta.upto);
        let mut changes = Vec::new();
        for Item { sequence, key, body } in delta.items {
            self.unconfirmed.remove(&key);
            if sequence > self.slots.get(&key).map_or(0, |slot| slot.sequence)
                && self.has_room(&key, body.as_ref())
            {
                changes.push(self.put(now, &key, sequence, body));
            }
        }
        if delta.is_last {
            self.filling = None;
            for key in core::mem::take(&mut self.unconfirmed) {
                if is(Bug::LeftoverKept) {
                    continue;
                }
                if let Some(old) = self.drop_key(&key) {
                    changes.push(Changed { key, old: Some(old), new: None });
                }
            }
            (self.have, self.floor) = (delta.upto, delta.upto);
        }
        Taken::Changes(changes)
    }

    /// Owners keep the limit themselves; one that does not is not believed.
    fn has_room(&self, key: &str, body: Option<&Body>) -> bool {
        body.is_none() || self.slots.contains_key(key) || self.slots.len() <= 2 * INSTANCES_MAX
    }
}

/// A record's body in the form in which it is kept.
pub(super) fn instance(body: Option<&Body>) -> Option<&Arc<super::Instance>> {
    match body {
        Some(Body::Instance(instance)) => Some(instance),
        Some(Body::Node(_)) | None => None,
    }
}
