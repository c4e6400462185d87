//! The checkpoint's side of the store: what changed since the last cut, and cuts at one applied index.
//!
//! A cut is the state at exactly one applied index, although the store goes on changing while it is
//! written out: an entry that is still to be written is encoded before its first later change. Changed
//! entries carry one of two dirty bits in turn, so that making a cut is the flip of a bit and not a walk.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::planted::{Bug, is};
use kernel::{Index, Micros};

use super::fetching::{OTHER_TYPE, unreadable};
use super::{Store, entry_bytes};
use crate::Fault;
use crate::object::table::{Entry, Key, Slot, Table};
use crate::object::{Type, Value};

/// The engine has, or will have, some version of this key.
const STORED: u8 = 1 << 4;

/// The body is only in the engine and was asked for; whatever changes the entry takes this away.
pub(super) const ASKED: u8 = 1 << 5;

/// A write on its way to be applied needs the body: it stays.
pub(super) const NEEDED: u8 = 1 << 6;

/// Changed in an epoch of this parity and not written out since.
const fn dirty(parity: u8) -> u8 {
    1 << parity
}

/// Written into a cut of this parity, which counts while that cut is not durable.
const fn flying(parity: u8) -> u8 {
    1 << (2 + parity)
}

/// Most memory taken for a cut's images before they are written.
const IMAGES_BYTES_AHEAD: usize = 64 << 20;

/// Entries and removals since the last cut, and the cut being written.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    parity: u8,
    changed: Vec<Slot>,
    removed: BTreeSet<Key>,
    bytes: usize,
    cut: Option<Cut>,
    /// A finished cut is on its way to the disk.
    underway: bool,
}

#[derive(Debug)]
struct Cut {
    frame: Frame,
    slots: Vec<Slot>,
    next: usize,
    images: Images,
}

/// What a checkpoint says of the partition itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The applied index of the cut.
    pub index: Index,
    /// The generation of its objects.
    pub generation: u32,
    /// How many objects there are.
    pub objects: u64,
    /// The partition's own state: time, scripts, names, sessions; see [`Store::restore`].
    pub state: Vec<u8>,
}

/// The changes of a cut, encoded one after another.
#[derive(Debug, Default)]
pub struct Images {
    bytes: Vec<u8>,
    count: usize,
}

/// One change of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image<'a> {
    /// The object is now this.
    Put {
        /// Its key.
        key: &'a [u8],
        /// Type and expiry.
        head: &'a [u8],
        /// The value.
        body: &'a [u8],
    },
    /// The object is gone.
    Delete {
        /// Its key.
        key: &'a [u8],
    },
}

impl Images {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True without changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their bytes in memory.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The changes, each key once.
    pub fn iter(&self) -> impl Iterator<Item = Image<'_>> {
        let mut reader = Reader::new(&self.bytes);
        core::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let next = Images::read(&mut reader);
            Some(next.expect("images are read as they were written"))
        })
    }

    fn read<'a>(reader: &mut Reader<'a>) -> Result<Image<'a>, DecodeError> {
        let put = reader.u8()? == 1;
        let key = reader.bytes()?;
        if !put {
            return Ok(Image::Delete { key });
        }
        let head = reader.bytes()?;
        let length = reader.u32()? as usize;
        Ok(Image::Put { key, head, body: reader.take(length)? })
    }

    fn put(&mut self, entry: &Entry) {
        self.bytes.push(1);
        put_bytes(&mut self.bytes, &entry.key);
        let mut head = [0u8; 9];
        head[0] = entry.value.kind().code();
        head[1..].copy_from_slice(&entry.expire_at.to_le_bytes());
        put_bytes(&mut self.bytes, if entry.expire_at == 0 { &head[..1] } else { &head });
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        entry.value.encode(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - at - 4).expect("a value is smaller than 4 GiB");
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
    }

    fn delete(&mut self, key: &[u8]) {
        self.bytes.push(0);
        put_bytes(&mut self.bytes, key);
        self.count += 1;
    }
}

/// The body of an object that comes back from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Here.
    Whole(&'a [u8]),
    /// Left in the engine.
    Left,
}

impl Store {
    /// Bytes of entries changed since the last cut, about.
    #[must_use]
    pub const fn dirty_bytes(&self) -> usize {
        self.checkpoint.bytes
    }

    /// True if anything changed since the last cut, time and index included.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.checkpoint.changed.is_empty()
            || !self.checkpoint.removed.is_empty()
            || self.checkpoint.flushed()
    }

    /// True while a cut is being written out or is not durable yet.
    #[must_use]
    pub const fn is_cutting(&self) -> bool {
        self.checkpoint.cut.is_some() || self.checkpoint.underway
    }

    /// Makes a cut at the applied index. Call between entries; continue with [`Store::write_cut`].
    pub fn begin_cut(&mut self) {
        assert!(!self.is_cutting(), "one cut at a time");
        let frame = Frame {
            index: self.applied,
            generation: self.generation,
            objects: self.table.len() as u64,
            state: self.encode_state(),
        };
        let checkpoint = &mut self.checkpoint;
        // Grown by doubling it would take twice its size, and three times that while it grows.
        let mut images =
            Images { bytes: Vec::with_capacity(checkpoint.bytes.min(IMAGES_BYTES_AHEAD)), count: 0 };
        for key in core::mem::take(&mut checkpoint.removed) {
            if !is(Bug::TombstoneForgotten) {
                images.delete(&key);
            }
        }
        let slots = core::mem::take(&mut checkpoint.changed);
        checkpoint.parity ^= 1;
        checkpoint.bytes = 0;
        checkpoint.cut = Some(Cut { frame, slots, next: 0, images });
    }

    /// Writes out about `bytes` of the cut. Returns it when it is whole; it is then to be made durable
    /// and [`Store::cut_is_durable`] to be called. `None` also if a flush has undone the cut.
    pub fn write_cut(&mut self, bytes: usize) -> Option<(Frame, Images)> {
        let parity = self.checkpoint.parity ^ 1;
        let cut = self.checkpoint.cut.as_mut()?;
        let until = cut.images.bytes().saturating_add(bytes);
        while cut.next < cut.slots.len() {
            if cut.images.bytes() >= until {
                return None;
            }
            let slot = cut.slots[cut.next];
            cut.next += 1;
            if let Some(entry) = self.table.get_mut(slot)
                && entry.marks & dirty(parity) != 0
            {
                write(entry, parity, &mut cut.images);
            }
        }
        let cut = self.checkpoint.cut.take()?;
        self.checkpoint.underway = true;
        Some((cut.frame, cut.images))
    }

    /// The cut that [`Store::write_cut`] gave is on the disk.
    pub const fn cut_is_durable(&mut self) {
        self.checkpoint.underway = false;
    }

    /// Called before the entry at `slot` changes or goes.
    #[inline]
    pub(crate) fn before_change(&mut self, slot: Slot) {
        let checkpoint = &mut self.checkpoint;
        let now = dirty(checkpoint.parity);
        let entry = self.table.get_mut(slot).expect("a changed slot holds an entry");
        if entry.marks & dirty(checkpoint.parity ^ 1) != 0
            && !is(Bug::CheckpointNotACut)
            && let Some(cut) = &mut checkpoint.cut
        {
            write(entry, checkpoint.parity ^ 1, &mut cut.images);
        }
        if !is(Bug::FetchedOverNewer) {
            entry.marks &= !ASKED;
        }
        if entry.marks & now == 0 {
            entry.marks |= now;
            checkpoint.changed.push(slot);
            checkpoint.bytes += entry.key.len() + entry.value.memory_bytes() + 32;
        }
    }

    /// Called after an entry was added at `slot`.
    pub(crate) fn created(&mut self, slot: Slot) {
        if !self.checkpoint.removed.is_empty() {
            let entry = self.table.get_mut(slot).expect("an added slot holds an entry");
            if self.checkpoint.removed.remove(&entry.key) {
                entry.marks |= STORED;
            }
        }
        self.before_change(slot);
    }

    /// Called before the entry at `slot` is removed.
    pub(crate) fn before_removal(&mut self, slot: Slot) {
        let checkpoint = &mut self.checkpoint;
        let parity = checkpoint.parity ^ 1;
        let entry = self.table.get_mut(slot).expect("a removed slot holds an entry");
        if entry.marks & dirty(parity) != 0
            && let Some(cut) = &mut checkpoint.cut
        {
            write(entry, parity, &mut cut.images);
        }
        if entry.marks & STORED != 0 {
            checkpoint.removed.insert(entry.key.clone());
            checkpoint.bytes += entry.key.len() + 64;
        }
    }

    #[inline]
    pub(crate) const fn grew(&mut self, bytes: usize) {
        self.checkpoint.bytes += bytes;
    }

    // --- coming back ---------------------------------------------------------------------------

    /// The partition's own state, as [`Frame::state`] has it.
    #[must_use]
    pub fn encode_state(&self) -> Vec<u8> {
        let mut state = Vec::new();
        put_varint(&mut state, 1);
        put_varint(&mut state, self.time.0);
        self.scripts.encode(&mut state);
        self.naming.encode(&mut state);
        if self.sessions.origins() > 0 && !is(Bug::SnapshotWithoutSessions) {
            self.sessions.encode(&mut state);
        }
        state
    }

    /// The time that [`Frame::state`] has.
    ///
    /// # Errors
    /// As [`Store::restore`].
    pub fn time_of(state: &[u8]) -> Result<Micros, DecodeError> {
        let mut reader = Reader::new(state);
        if reader.varint()? != 1 {
            return Err(DecodeError::Invalid);
        }
        reader.varint().map(Micros)
    }

    /// A store as a checkpoint's frame says; its objects follow by [`Store::restore_object`].
    ///
    /// # Errors
    /// The state was not written by a version that this one knows.
    pub fn restore(seed: u64, frame: &Frame) -> Result<Store, DecodeError> {
        let mut store = Store::new(seed);
        store.table =
            Table::with_capacity(store.hasher(), usize::try_from(frame.objects).unwrap_or(usize::MAX));
        let mut reader = Reader::new(&frame.state);
        if reader.varint()? != 1 {
            return Err(DecodeError::Invalid);
        }
        store.time = Micros(reader.varint()?);
        store.scripts = super::scripts::Scripts::decode(&mut reader)?;
        if !reader.is_empty() {
            store.naming = super::Naming::decode(&mut reader)?;
        }
        // Checkpoints of earlier versions end before this.
        if !reader.is_empty() {
            store.sessions = super::sessions::Sessions::decode(&mut reader)?;
        }
        store.now = store.time.millis();
        store.applied = frame.index;
        store.generation = frame.generation;
        Ok(store)
    }

    /// Adds one object of the checkpoint.
    ///
    /// # Errors
    /// It is not what [`Images`] holds, or the key came before.
    pub fn restore_object(&mut self, key: &[u8], head: &[u8], body: Body<'_>) -> Result<(), DecodeError> {
        let mut reader = Reader::new(head);
        let kind = Type::from_code(reader.u8()?).ok_or(DecodeError::Invalid)?;
        let expire_at = if reader.is_empty() { 0 } else { reader.u64()? };
        let value = match body {
            Body::Whole(bytes) => Value::decode(bytes, &self.hasher())?,
            Body::Left => {
                self.fetching.evicts = true;
                Value::Evicted(kind)
            }
        };
        let hash = self.table.hash(key);
        if value.kind() != kind || self.table.find(hash, key).is_some() {
            return Err(DecodeError::Invalid);
        }
        self.memory += entry_bytes(key, &value);
        let entry =
            Entry { key: Key::from_slice(key), value, expire_at, clock: self.access_clock(), marks: STORED };
        let slot = self.table.insert(hash, entry);
        if expire_at != 0 {
            self.expiry.insert((expire_at, hash, slot));
        }
        Ok(())
    }

    // --- eviction and read-back ----------------------------------------------------------------

    /// Brings an evicted body back into memory.
    #[inline]
    pub(crate) fn load(&mut self, slot: Slot) -> Result<(), Fault> {
        match self.entry(slot).value {
            Value::Evicted(_) => self.read_back(slot),
            _ => Ok(()),
        }
    }

    #[cold]
    fn read_back(&mut self, slot: Slot) -> Result<(), Fault> {
        let entry = self.table.get(slot).expect("a located slot holds an entry");
        let known = self.fetching.failures.iter().find(|(key, _)| *key == entry.key);
        let fetched = match (known, &self.fetch) {
            (Some((_, reason)), _) => Err(reason.clone()),
            (None, None) => Err("there is no engine".into()),
            (None, Some(fetch)) => fetch.fetch(self.generation, &entry.key),
        };
        let hasher = self.hasher();
        let value =
            fetched.and_then(|body| Value::decode(&body, &hasher).map_err(|error| format!("{error}")));
        match value {
            Ok(value) if value.kind() == entry.value.kind() => {
                self.put_body(slot, value);
                self.misses += 1;
                self.admit(slot);
                Ok(())
            }
            Ok(_) => Err(self.unreadable(slot, OTHER_TYPE)),
            Err(reason) => Err(self.unreadable(slot, &reason)),
        }
    }

    pub(super) fn put_body(&mut self, slot: Slot, value: Value) {
        let added = value.memory_bytes();
        let entry = self.entry_mut(slot);
        entry.marks &= !ASKED;
        let removed = entry.value.memory_bytes();
        entry.value = value;
        self.memory = self.memory + added - removed;
    }

    /// A body that cannot be read back leaves the partition without a state it may go on from.
    fn unreadable(&mut self, slot: Slot, reason: &str) -> Fault {
        let text = unreadable(&self.entry(slot).key, reason);
        if self.mode == super::Mode::Write {
            self.damaged = Some(text.clone());
        }
        Fault::Said(text)
    }

    /// True if the engine has exactly the body of the entry at `slot`, and it is worth evicting.
    pub(crate) fn is_evictable(&self, slot: Slot) -> bool {
        let active = self.checkpoint.parity ^ 1;
        let changing = dirty(0) | dirty(1) | if self.is_cutting() { flying(active) } else { 0 };
        let entry = self.entry(slot);
        !matches!(entry.value, Value::Evicted(_))
            && entry.marks & STORED != 0
            && entry.marks & (changing | NEEDED) == 0
            && entry.value.memory_bytes() >= EVICT_BYTES_MIN
    }

    /// Evicts the body of the entry at `slot`, which is evictable. Returns the bytes freed.
    pub(crate) fn evict_slot(&mut self, slot: Slot) -> usize {
        debug_assert!(self.is_evictable(slot), "only what the engine has is evicted");
        let entry = self.table.get_mut(slot).expect("an evictable slot holds an entry");
        let bytes = entry.value.memory_bytes();
        let gone = Value::Evicted(entry.value.kind());
        let value = core::mem::replace(&mut entry.value, gone);
        self.fetching.evicts = true;
        self.memory -= bytes;
        self.bury(value);
        bytes
    }
}

/// Bodies smaller than this stay: what they take is not worth a read from the engine.
pub const EVICT_BYTES_MIN: usize = 64;

fn write(entry: &mut Entry, parity: u8, images: &mut Images) {
    images.put(entry);
    entry.marks &= !(dirty(parity) | flying(parity ^ 1));
    entry.marks |= STORED | flying(parity);
}

impl Dirty {
    /// Everything is gone: a flush. A cut not yet whole is undone; one on its way stays. Gives back the keys
    /// that it needs no more, to be freed.
    pub(crate) fn forget_all(&mut self) -> BTreeSet<Key> {
        let (parity, underway) = (self.parity, self.underway);
        let forgotten = core::mem::replace(self, Dirty { parity, underway, bytes: 1, ..Dirty::default() });
        forgotten.removed
    }

    const fn flushed(&self) -> bool {
        self.bytes > 0
    }
}
