//! The values that a node keeps: those it owns, and copies of its predecessors'.
//!
//! A value is at its owner and the owner's successors. It moves when a node joins (to its new owner), when
//! one leaves (to its successor), when one dies (the successor has a copy, and copies it on) and when rings
//! become one: what then lies where it does not belong is put at its owner, found by a lookup. What is known
//! to be astray waits in a queue; all values are looked through only when that is full, when the node has
//! come to a ring, and when it could not hand over.
//!
//! An owner and its first successors compare what they keep (`check`), so that what one of them missed comes back.
//!
//! Few messages with values are under way at once ([`COPIES_UNDER_WAY_MAX`]), so that those which keep the
//! ring do not wait behind them; the next goes when one is answered. Limits: what was copied here once stays
//! here; when the store is full, new values are refused; a value that its owner refuses counts as arrived
//! there, and is not put there again.

mod check;
mod put;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use kernel::Micros;
use smallvec::SmallVec;

use super::lookup::Aim;
use super::message::{Item, Message};
use super::ring::{distance, owns};
use super::{Chord, Purpose};
use crate::key::Key;
use crate::pending::PENDING_MAX;
use crate::protocol::{Contact, EffectOf, Keys};
pub(super) use check::Checked;
use check::{Answered, Copied, Offers, Sent};
use put::Put;
pub(super) use put::Putter;

/// Longest value, in bytes: with its header it fits a message of 16 KiB.
pub const VALUE_BYTES_MAX: usize = 15 * 1024;
/// Most values of one node.
pub const STORE_VALUES_MAX: usize = 65_536;
/// Most bytes of one node's values.
pub const STORE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of items in one message; one value alone may be as long as it may.
pub const BATCH_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// Most messages with copies and with what is handed over that are on their way at once.
pub const COPIES_UNDER_WAY_MAX: usize = 32;
/// With so many requests of all kinds on their way no more values are sent: the others are for keeping the ring.
const SENDING_MAX: usize = PENDING_MAX / 2;
/// Most nodes that are handed something at once; beyond it what the first one lacks is put at its owner.
const HANDINGS_MAX: usize = 8;
/// Most owners that what they may have missed is on its way to at once; further ones ask again with their next repair.
const RETURNING_MAX: usize = 8;
/// Most values that wait to be copied for the first time, beyond it all are copied again; and most that wait
/// to be put at their owner, beyond it all are looked through.
pub const FRESH_MAX: usize = 1024;
/// Most values that are on their way to their owner at once, and that are begun between two stabilizations.
pub const REHOMED_MAX: u8 = 32;

/// Bytes of an item beside its value, at most: its key, its version and the value's length.
pub(super) const ITEM_BYTES_OVER: usize = 32 + 10 + 3;

/// Values that become another node's: those in `(from, through]`.
#[derive(Clone, Copy, Debug)]
struct Handing<C> {
    to: C,
    from: u64,
    through: u64,
    /// What is not behind this is on its way.
    sent: Bound<Key>,
}

/// Who takes what a node keeps that leaves the ring.
#[derive(Clone, Debug)]
struct Legacy<C> {
    /// What is behind this point was its own.
    after: u64,
    heir: C,
    /// Who takes it if the heir does not, the first of them first.
    others: Vec<C>,
}

/// Looking through all values for those that another node owns.
#[derive(Clone, Copy, Debug)]
struct Rehome {
    looked: Bound<Key>,
    /// Something has changed since it began: it begins anew at the end.
    again: bool,
}

impl Rehome {
    const BEGIN: Rehome = Rehome { looked: Bound::Unbounded, again: false };
}

/// The values of a node, and which of them are to go where.
#[derive(Clone, Debug)]
pub(super) struct Values<C> {
    pub store: Store,
    copied: Vec<Copied<C>>,
    /// The oldest first.
    handing: Vec<Handing<C>>,
    /// What owners may have missed of their own, on its way to them; at most [`RETURNING_MAX`].
    returning: Vec<Handing<C>>,
    /// Once it has left.
    legacy: Option<Legacy<C>>,
    answered: Answered,
    offers: Offers,
    /// Own values that are not copied yet, at most [`FRESH_MAX`], and those whose first copies are on their way.
    fresh: VecDeque<Put<C>>,
    copying: Vec<Put<C>>,
    next_put: u32,
    /// Values that are to be put at their owner, at most [`FRESH_MAX`], each once.
    strays: VecDeque<Key>,
    rehome: Option<Rehome>,
    /// How many are on their way to their owner, at most [`REHOMED_MAX`].
    rehoming: u8,
    /// No more are begun before.
    rehome_at: Micros,
}

impl<C: Copy> Values<C> {
    fn none() -> Values<C> {
        Values {
            store: Store::default(),
            copied: Vec::new(),
            handing: Vec::new(),
            returning: Vec::new(),
            legacy: None,
            answered: Answered::default(),
            offers: Offers::default(),
            fresh: VecDeque::new(),
            copying: Vec::new(),
            next_put: 0,
            strays: VecDeque::new(),
            rehome: None,
            rehoming: 0,
            rehome_at: Micros(0),
        }
    }

    /// Everyone that something is sent to.
    pub fn nodes(&self) -> impl Iterator<Item = C> {
        let handed = self.handing.iter().chain(&self.returning).map(|handing| handing.to);
        let heirs = self.legacy.iter().flat_map(|legacy| legacy.others.iter().chain([&legacy.heir]).copied());
        let putters = self.fresh.iter().chain(&self.copying).filter_map(Put::peer);
        self.copied.iter().map(|copied| copied.to).chain(handed).chain(heirs).chain(putters)
    }

    /// All may lie elsewhere than here.
    fn rehome(&mut self) {
        let rehome = self.rehome.get_or_insert(Rehome::BEGIN);
        rehome.again |= rehome.looked != Bound::Unbounded;
    }

    /// The value at `key` is to be put at its owner. O(strays).
    fn stray(&mut self, key: Key) {
        if self.strays.contains(&key) {
            return;
        }
        if self.strays.len() < FRESH_MAX {
            self.strays.push_back(key);
        } else {
            self.rehome();
        }
    }

    /// The next values that are `anothers`, as many as there is room for; they count as on their way.
    fn next_strays(&mut self, anothers: impl Fn(u64) -> bool) -> Vec<Item> {
        let room = usize::from(REHOMED_MAX.saturating_sub(self.rehoming));
        // Those that never arrive do not keep the others from being looked through.
        let queued = if self.rehome.is_some() { room / 2 } else { room };
        let mut items = Vec::new();
        while items.len() < queued
            && let Some(key) = self.strays.pop_front()
        {
            items.extend(self.store.get(key).filter(|item| anothers(item.key.point())));
        }
        if items.len() < room
            && let Some(rehome) = &mut self.rehome
        {
            let left = room - items.len();
            items.extend(self.store.items(rehome.looked, &anothers).take(left));
            match items.last() {
                Some(last) if items.len() == room => rehome.looked = Bound::Excluded(last.key),
                _ => self.rehome = rehome.again.then_some(Rehome::BEGIN),
            }
        }
        self.rehoming += items.len() as u8;
        items
    }
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

    /// Whether `item` is not kept here yet, in this version or a newer one.
    fn lacks(&self, item: &Item) -> bool {
        self.values.get(&item.key).is_none_or(|(version, _)| *version < item.version)
    }

    /// The next message of wanted values behind `sent`, which is its last key then; empty if there is none.
    fn batch(&self, sent: &mut Bound<Key>, wanted: impl Fn(u64) -> bool) -> Vec<Item> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for item in self.items(*sent, wanted) {
            bytes += item.value.len() + ITEM_BYTES_OVER;
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            *sent = Bound::Excluded(item.key);
            batch.push(item);
        }
        batch
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

    pub(super) fn values(&mut self) -> &mut Values<C> {
        self.values.get_or_insert_with(|| Box::new(Values::none()))
    }

    /// Keeps what `from` sends, as a successor or as its new owner.
    pub(super) fn take_copies(&mut self, keys: &impl Keys<C>, from: C, items: Vec<Item>) -> Message<C> {
        let sender = keys.point(from);
        // Who owns a value is reached before its copies are. So this comes from one that takes us for its owner, and we are
        // not: it handed over all that was behind its old predecessor, and there are others between that one and us.
        let is_stray =
            |point: u64| distance(point, self.point) < distance(point, sender) && !self.is_owner(keys, point);
        let strays: Vec<bool> = items.iter().map(|item| is_stray(item.key.point())).collect();
        let values = self.values();
        let mut stored = 0;
        for (item, stray) in items.into_iter().zip(strays) {
            let (key, news) = (item.key, values.store.lacks(&item));
            let kept = values.store.keep(item);
            stored += u32::from(kept);
            // What was here before was brought to its owner before.
            if stray && kept && news {
                values.stray(key);
            }
        }
        Message::Stored(stored)
    }

    /// A node joined before us: what lies in `(old, newcomer]` is its own.
    pub(super) fn hand_over(&mut self, keys: &impl Keys<C>, old: u64, to: C, out: &mut Vec<EffectOf<Self>>) {
        self.hand(to, old, keys.point(to));
        self.send_on(keys, out);
    }

    /// Sends everything that this node keeps to who takes its place: what it owns first, and then the rest, which may have
    /// been handed to it by one that has just left too.
    pub(super) fn bequeath(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let Some((&heir, others)) = self.successors.split_first() else { return };
        let after = self.predecessor.map_or(self.point, |predecessor| keys.point(predecessor));
        let others = others.to_vec();
        if let Some(values) = &mut self.values {
            values.legacy = Some(Legacy { after, heir, others });
        }
        self.hand_all(after, heir);
        self.send_on(keys, out);
    }

    fn hand_all(&mut self, after: u64, to: C) {
        self.hand(to, after, self.point);
        if after != self.point {
            self.hand(to, self.point, after);
        }
    }

    /// Who leaves has handed all over, if nothing is on its way any more.
    fn settle_legacy(&mut self) {
        if !self.pending.iter().any(|(_, what)| matches!(what, Purpose::Hand)) {
            self.forget_legacy();
        }
    }

    pub(super) fn forget_legacy(&mut self) {
        if let Some(values) = &mut self.values {
            values.legacy = None;
        }
    }

    fn hand(&mut self, to: C, from: u64, through: u64) {
        let Some(values) = self.values.as_mut().filter(|values| !values.store.is_empty()) else { return };
        if values.handing.len() >= HANDINGS_MAX {
            values.handing.remove(0);
            values.rehome();
        }
        values.handing.push(Handing { to, from, through, sent: Bound::Unbounded });
    }

    /// Sends what is to be sent, as far as there is room on the way.
    pub(super) fn send_on(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let with_values =
            |what: &Purpose<C>| matches!(what, Purpose::Copy | Purpose::Fresh { .. } | Purpose::Hand);
        let under_way = self.pending.iter().filter(|(_, what)| with_values(what)).count();
        let mut room = COPIES_UNDER_WAY_MAX.saturating_sub(under_way);
        let first = self.first_successors();
        while room >= first.len().max(1) && self.pending.len() < SENDING_MAX {
            if let Some(sent) = self.copy_fresh(&first, out) {
                room -= sent;
                continue;
            }
            let Some((to, purpose, batch)) = self.next_batch(keys) else { return self.settle_legacy() };
            self.ask(to, purpose, Message::Copies(batch), out);
            room -= 1;
        }
    }

    /// What is sent next, beside fresh values: what is another's first, then copies.
    fn next_batch(&mut self, keys: &impl Keys<C>) -> Option<(C, Purpose<C>, Vec<Item>)> {
        let Values { store, copied, handing, returning, .. } = self.values.as_deref_mut()?;
        while let Some(Handing { to, from, through, sent }) = handing.first_mut() {
            let batch = store.batch(sent, |at| owns(*from, *through, at));
            if !batch.is_empty() {
                return Some((*to, Purpose::Hand, batch));
            }
            handing.remove(0);
        }
        while let Some(Handing { to, from, through, sent }) = returning.first_mut() {
            let batch = store.batch(sent, |at| owns(*from, *through, at));
            if !batch.is_empty() {
                return Some((*to, Purpose::Copy, batch));
            }
            returning.remove(0);
        }
        // Who does not know its predecessor does not know what is its own.
        let before = keys.point(self.predecessor?);
        for copied in copied {
            if let Sent::Through(sent) = &mut copied.sent {
                let batch = store.batch(sent, |at| owns(before, self.point, at));
                if !batch.is_empty() {
                    return Some((copied.to, Purpose::Copy, batch));
                }
                copied.sent = Sent::Whole;
            }
        }
        None
    }

    /// What was handed over to `to` may not be there. Who has left hands it to the next instead.
    pub(super) fn handing_failed(&mut self, to: C) {
        let member = self.is_member();
        let Some(values) = &mut self.values else { return };
        values.handing.retain(|handing| handing.to != to);
        if member {
            return values.rehome();
        }
        let Some(mut legacy) = values.legacy.take_if(|legacy| legacy.heir == to) else { return };
        if legacy.others.is_empty() {
            return;
        }
        let (after, heir) = (legacy.after, legacy.others.remove(0));
        values.legacy = Some(Legacy { heir, ..legacy });
        self.hand_all(after, heir);
    }

    /// Asks those that became its first successors since the last time whether they have what this node owns, and goes on
    /// where it was with the others.
    pub(super) fn copy_to_new(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let first = self.first_successors();
        if first.is_empty() {
            // Nothing is made for it: who keeps no copies is most of a simulation.
            self.forget_copied();
            return self.send_on(keys, out);
        }
        let values = self.values();
        let before = core::mem::take(&mut values.copied);
        for to in first {
            let known = before.iter().find(|copied| copied.to == to).copied();
            values.copied.push(known.unwrap_or(Copied::new(to)));
        }
        self.check(keys, out);
        self.send_on(keys, out);
    }

    pub(super) fn forget_copied(&mut self) {
        if let Some(values) = &mut self.values {
            values.copied.clear();
        }
    }

    /// Nothing is this node's own any more: what is left to be sent is what it hands over.
    pub(super) fn forget_sending(&mut self) {
        if let Some(values) = &mut self.values {
            values.copied.clear();
            values.returning.clear();
            values.offers = Offers::default();
            values.strays.clear();
            values.rehome = None;
        }
    }

    /// Asks all first successors again whether they have everything that this node owns: what was lost on its way comes back.
    /// A copy that is still under way goes on instead, or a large store would never be copied to its end.
    pub(super) fn repair(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        if let Some(values) = &mut self.values {
            for copied in values.copied.iter_mut().filter(|copied| copied.sent == Sent::Whole) {
                *copied = Copied { told: copied.told, ..Copied::new(copied.to) };
            }
        }
        self.copy_to_new(keys, out);
    }

    /// Some values may lie elsewhere than here: all are looked through, and put at their owners.
    pub(super) fn rehome(&mut self) {
        if let Some(values) = &mut self.values {
            values.rehome();
        }
    }

    /// Brings some values to their owners, unless it was done less than the period of stabilizations ago: one
    /// that is brought forward comes as often as others like.
    pub(super) fn rehome_some(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let alone = self.is_alone();
        let Some(values) = self.values.as_deref_mut() else { return };
        if alone {
            // All is its own.
            values.strays.clear();
            values.rehome = None;
            return;
        }
        let Some(predecessor) = self.predecessor.filter(|_| values.rehome_at <= now) else { return };
        values.rehome_at = now + self.settings.stabilize_micros;
        let (before, own) = (keys.point(predecessor), self.point);
        for item in values.next_strays(|at| !owns(before, own, at)) {
            self.begin(now, keys, item.key.point(), Aim::Rehome { item }, out);
        }
    }

    /// A value has come to its owner; or this one has missed it, and is tried again behind the others.
    pub(super) fn rehomed(&mut self, missed: Option<Key>) {
        let member = self.is_member();
        let Some(values) = self.values.as_deref_mut() else { return };
        values.rehoming = values.rehoming.saturating_sub(1);
        // Who has left looks all through when it is back.
        if let Some(key) = missed.filter(|_| member) {
            values.stray(key);
        }
    }
}

#[cfg(test)]
impl<C: Contact> Chord<C> {
    pub(super) fn is_rehoming(&self) -> bool {
        let some = |values: &Values<C>| values.rehome.is_some() || !values.strays.is_empty();
        self.values.as_deref().is_some_and(|values| some(values) || values.rehoming > 0)
    }

    /// How many values wait to be put at their owner, and whether all are looked through for more.
    pub(super) fn strays(&self) -> (usize, bool) {
        self.values.as_deref().map_or((0, false), |values| (values.strays.len(), values.rehome.is_some()))
    }

    pub(super) fn has_to_send(&self) -> bool {
        let some = |values: &Values<C>| values.nodes().next().is_some() || !values.fresh.is_empty();
        self.is_rehoming() || self.values.as_deref().is_some_and(some)
    }
}
