//! The table of a partition: a dense slab of entries and an extendible index of their hashes.
//!
//! Extendible hashing (Fagin et al. 1979) over small segments: a full segment splits alone, so no
//! insertion ever pays for a rehash of the whole table, and the segments in order of their prefix are
//! the keys in order of their hash, which is what `SCAN` walks. The slab keeps entries dense (no empty
//! buckets of 64 bytes) and gives each a stable number for the lists of dirty and expiring entries.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashTable;
use kernel::Rng;
use kernel::hash::KeyHasher;
use smallvec::SmallVec;

use super::Value;
use crate::store::{PIECES_AT_ONCE_MAX, Pieces};

/// A key. Up to 16 bytes need no allocation of their own.
pub type Key = SmallVec<[u8; 16]>;

/// Where an entry is in the slab; stable until the entry is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A key with its value and what is known of it.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value, or the fact that it was evicted.
    pub value: Value,
    /// When it expires, in milliseconds since the epoch; 0 for never.
    pub expire_at: u64,
    /// Last access (LRU) or access counter (LFU), as the store's eviction policy reads it.
    pub clock: u32,
    /// See `store::checkpoint`.
    pub marks: u8,
}

const CHUNK: usize = 512;
/// Entries of a segment when it splits: what 64 hashbrown buckets hold.
const SEGMENT_MAX: usize = 56;
/// Most entries that [`Table::with_capacity`] makes places for; more split their way.
pub const PRESIZE_ENTRIES_MAX: usize = 1 << 24;
/// Entries of a segment on average when it is made ahead, at least: few then split at random, and a table
/// that grew would have made as many.
const SEGMENT_MEAN: usize = 40;
/// Empty places that a random draw meets before it looks for entries in another way.
const DRAWS_MAX: usize = 128;
/// The directory never has more than `2^DEPTH_MAX` places; then segments grow.
const DEPTH_MAX: u32 = 26;

struct Segment {
    slots: HashTable<Slot>,
    depth: u32,
}

/// Keys to entries.
pub struct Table {
    hasher: KeyHasher,
    chunks: Vec<Vec<Option<Entry>>>,
    free: Vec<Slot>,
    len: usize,
    depth: u32,
    directory: Vec<u32>,
    segments: Vec<Segment>,
}

/// The position of `hash` among a segment's buckets: the directory uses the upper bits, hashbrown the
/// lowest and the seven highest, so the halves are swapped.
#[inline]
const fn inner(hash: u64) -> u64 {
    hash.rotate_left(32)
}

impl Table {
    /// An empty table whose order is decided by `hasher`.
    #[must_use]
    pub fn new(hasher: KeyHasher) -> Table {
        let segment = Segment { slots: HashTable::new(), depth: 0 };
        Table {
            hasher,
            chunks: Vec::new(),
            free: Vec::new(),
            len: 0,
            depth: 0,
            directory: alloc::vec![0],
            segments: alloc::vec![segment],
        }
    }

    /// An empty table whose index has places for about `entries`, so that filling it splits little.
    ///
    /// Takes about a byte for each of them at once, for [`PRESIZE_ENTRIES_MAX`] at most; the segments
    /// themselves come with their first entry.
    #[must_use]
    pub fn with_capacity(hasher: KeyHasher, entries: usize) -> Table {
        let segments = entries.min(PRESIZE_ENTRIES_MAX) / SEGMENT_MEAN;
        let depth = segments.max(1).ilog2();
        let empty = |_| Segment { slots: HashTable::new(), depth };
        Table {
            depth,
            directory: (0..1 << depth).collect(),
            segments: (0..1u32 << depth).map(empty).collect(),
            ..Table::new(hasher)
        }
    }

    /// The hasher that decides its order.
    #[inline]
    #[must_use]
    pub const fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True without entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hash that orders `key`.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    #[inline]
    fn segment_of(&self, hash: u64) -> usize {
        let place = if self.depth == 0 { 0 } else { (hash >> (64 - self.depth)) as usize };
        self.directory[place] as usize
    }

    /// The slot of `key`, whose hash is `hash`.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let chunks = &self.chunks;
        self.segments[self.segment_of(hash)]
            .slots
            .find(inner(hash), |&slot| {
                entry_in(chunks, slot).is_some_and(|entry| entry.key.as_slice() == key)
            })
            .copied()
    }

    /// The entry at `slot`, if there is one.
    #[inline]
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        entry_in(&self.chunks, slot)
    }

    /// The entry at `slot`, if there is one, to change all but its key.
    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.chunks.get_mut(slot.0 as usize / CHUNK)?.get_mut(slot.0 as usize % CHUNK)?.as_mut()
    }

    /// Adds `entry`, whose key hashes to `hash` and is not in the table.
    pub fn insert(&mut self, hash: u64, entry: Entry) -> Slot {
        let slot = self.place(entry);
        let mut at = self.segment_of(hash);
        while self.segments[at].slots.len() >= SEGMENT_MAX && self.segments[at].depth < DEPTH_MAX {
            self.split(at);
            at = self.segment_of(hash);
        }
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let segment = &mut self.segments[at];
        if segment.slots.capacity() == 0 && segment.depth > 0 {
            // It will fill like its neighbours.
            segment.slots.reserve(SEGMENT_MAX, |&slot| rehash(chunks, hasher, slot));
        }
        segment.slots.insert_unique(inner(hash), slot, |&slot| rehash(chunks, hasher, slot));
        self.len += 1;
        slot
    }

    /// Takes the entry at `slot` out; `hash` is its key's.
    pub fn remove(&mut self, hash: u64, slot: Slot) -> Option<Entry> {
        let at = self.segment_of(hash);
        self.segments[at].slots.find_entry(inner(hash), |&found| found == slot).ok()?.remove();
        let entry = self.chunks[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK].take()?;
        self.free.push(slot);
        self.len -= 1;
        Some(entry)
    }

    fn place(&mut self, entry: Entry) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.chunks[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK] = Some(entry);
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(Some(entry));
        Slot((chunk * CHUNK + self.chunks[chunk].len() - 1) as u32)
    }

    fn split(&mut self, at: usize) {
        let depth = self.segments[at].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|&segment| [segment, segment]).collect();
            self.depth += 1;
        }
        let slots = core::mem::take(&mut self.segments[at].slots);
        let mut halves = [HashTable::with_capacity(SEGMENT_MAX), HashTable::with_capacity(SEGMENT_MAX)];
        let mut prefix = 0;
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        for slot in slots {
            let hash = rehash(chunks, hasher, slot).rotate_right(32);
            let half = (hash >> (64 - depth)) as usize & 1;
            prefix = hash >> (64 - depth) >> 1;
            halves[half].insert_unique(inner(hash), slot, |&slot| rehash(chunks, hasher, slot));
        }
        let [low, high] = halves;
        self.segments[at] = Segment { slots: low, depth };
        self.segments.push(Segment { slots: high, depth });
        let added = (self.segments.len() - 1) as u32;
        // The upper half of the directory places that shared the segment now point to the new one.
        let width = 1usize << (self.depth - depth);
        let first = ((prefix << 1 | 1) as usize) << (self.depth - depth);
        self.directory[first..first + width].fill(added);
    }

    /// Visits entries in hash order from `cursor` (0 at first), about `count` of them, and returns the
    /// next cursor, 0 at the end. An entry that stays for a whole scan is visited at least once. It stops, too,
    /// after `count` segments without entries: a table that lost most of them has many.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(Slot, &Entry)) -> u64 {
        let mut from = cursor << CURSOR_SHIFT;
        let mut left = count.max(1);
        let mut barren = left;
        loop {
            let segment = &self.segments[self.segment_of(from)];
            let mut found: Vec<(u64, Slot)> = segment
                .slots
                .iter()
                .map(|&slot| (rehash(&self.chunks, &self.hasher, slot).rotate_right(32), slot))
                .filter(|&(hash, _)| hash >= from)
                .collect();
            found.sort_unstable();
            barren -= usize::from(found.is_empty());
            let mut last = None;
            for (hash, slot) in found {
                let position = hash >> CURSOR_SHIFT;
                if left == 0 && last != Some(position) {
                    return position;
                }
                if let Some(entry) = self.get(slot) {
                    visit(slot, entry);
                }
                last = Some(position);
                left = left.saturating_sub(1);
            }
            // The first hash of the next segment; wraps to 0 after the last.
            if segment.depth == 0 {
                return 0;
            }
            let shift = 64 - segment.depth;
            from = ((from >> shift) + 1).checked_shl(shift).unwrap_or(0);
            if segment.depth < 64 && from >> shift == 0 {
                return 0;
            }
            if left == 0 || barren == 0 {
                return from >> CURSOR_SHIFT;
            }
        }
    }

    /// Any entry, each about as likely as another. Not for decisions that replicas must share: the
    /// slab's layout depends on more than the state.
    #[must_use]
    pub fn random(&self, rng: &mut Rng) -> Option<Slot> {
        if self.len == 0 {
            return None;
        }
        let places = self.places();
        for _ in 0..DRAWS_MAX {
            let slot = Slot(rng.below(places as u64) as u32);
            if self.get(slot).is_some() {
                return Some(slot);
            }
        }
        // Few entries are left of many: the next one behind a random hash, or else the first.
        let (mut found, mut cursor) = (None, rng.next_u64() >> CURSOR_SHIFT);
        while found.is_none() {
            cursor = self.scan(cursor, 1, &mut |slot, _| found = Some(slot));
        }
        found
    }

    /// Frees it entry by entry, large values piece by piece, then the index.
    pub(crate) fn into_pieces(self) -> Pieces {
        let entries = self.chunks.into_iter().flatten().flatten();
        let index = self.segments.into_iter().map(|_| 0);
        Box::new(entries.flat_map(into_pieces).chain(index))
    }

    /// How many slots there are, the empty ones among them.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.len + self.free.len()
    }

    /// All entries, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.chunks.iter().enumerate().flat_map(|(chunk, entries)| {
            entries.iter().enumerate().filter_map(move |(at, entry)| {
                entry.as_ref().map(|entry| (Slot((chunk * CHUNK + at) as u32), entry))
            })
        })
    }

    /// Bytes of the table's own structures for each entry, on average.
    pub const ENTRY_BYTES: usize = size_of::<Option<Entry>>() + 12;
}

/// Bits of a cursor: with the number of one of 1024 partitions they are 53, so that clients that keep numbers as
/// doubles read them exactly.
pub const CURSOR_BITS: u32 = 43;
pub(crate) const CURSOR_SHIFT: u32 = 64 - CURSOR_BITS;

#[inline]
fn entry_in(chunks: &[Vec<Option<Entry>>], slot: Slot) -> Option<&Entry> {
    chunks.get(slot.0 as usize / CHUNK)?.get(slot.0 as usize % CHUNK)?.as_ref()
}

fn into_pieces(entry: Entry) -> impl Iterator<Item = usize> + Send {
    let value = Table::ENTRY_BYTES + entry.key.len();
    let (small, large) = if entry.value.pieces() > PIECES_AT_ONCE_MAX {
        (value, Some(entry.value.into_pieces()))
    } else {
        (value + entry.value.memory_bytes(), None)
    };
    core::iter::once(small).chain(large.into_iter().flatten())
}

#[inline]
fn rehash(chunks: &[Vec<Option<Entry>>], hasher: &KeyHasher, slot: Slot) -> u64 {
    let entry = entry_in(chunks, slot).expect("an indexed slot holds an entry");
    inner(hasher.hash(&entry.key))
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn entry(key: &[u8]) -> Entry {
        Entry { key: Key::from_slice(key), value: Value::Int(1), expire_at: 0, clock: 0, marks: 0 }
    }

    fn add(table: &mut Table, key: &[u8]) {
        let hash = table.hash(key);
        if table.find(hash, key).is_none() {
            table.insert(hash, entry(key));
        }
    }

    fn drop_key(table: &mut Table, key: &[u8]) {
        let hash = table.hash(key);
        if let Some(slot) = table.find(hash, key) {
            assert_eq!(table.remove(hash, slot).expect("it was found").key.as_slice(), key);
        }
    }

    #[test]
    fn an_entry_fits_a_cache_line() {
        assert_eq!(size_of::<Option<Entry>>(), 64);
    }

    #[test]
    fn many_keys_are_found_and_scanned_once() {
        for expected in [0, 1, 300, 20_000, 50_000, 1_000_000] {
            let mut table = Table::with_capacity(KeyHasher::new(9), expected);
            for n in 0..50_000u32 {
                add(&mut table, &n.to_le_bytes());
            }
            assert_eq!(table.len(), 50_000);
            scan_all(&table);
        }
    }

    fn scan_all(table: &Table) {
        let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), 0, 0);
        loop {
            cursor = table.scan(cursor, 10, &mut |_, entry| assert!(seen.insert(entry.key.to_vec())));
            calls += 1;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 50_000);
        assert!(calls <= 5_001, "{calls}");
    }

    #[test]
    fn few_entries_left_of_many_are_found_in_short_steps() {
        let mut table = Table::new(KeyHasher::new(9));
        (0..50_000u32).for_each(|n| add(&mut table, &n.to_le_bytes()));
        (1..50_000u32).for_each(|n| drop_key(&mut table, &n.to_le_bytes()));
        let (mut seen, mut calls, mut cursor) = (0, 0, 0);
        loop {
            calls += 1;
            cursor = table.scan(cursor, 10, &mut |_, _| seen += 1);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, 1);
        assert!(calls >= table.segments.len() / 10, "{calls} calls for {} segments", table.segments.len());
        let mut rng = kernel::Rng::new(1);
        for _ in 0..10 {
            let slot = table.random(&mut rng).and_then(|slot| table.get(slot));
            assert_eq!(slot.map(|entry| entry.key.to_vec()), Some(0u32.to_le_bytes().to_vec()));
        }
    }

    #[test]
    fn a_table_made_for_its_entries_takes_as_many_segments_as_one_that_grew() {
        for entries in [1, 1_000, 60_000, 90_000] {
            let mut tables =
                [Table::new(KeyHasher::new(9)), Table::with_capacity(KeyHasher::new(9), entries)];
            for table in &mut tables {
                (0..entries).for_each(|n| add(table, &n.to_le_bytes()));
            }
            let [grown, made] = tables.map(|table| table.segments.len());
            assert!(made <= grown + grown / 50, "{entries} entries: {made} segments instead of {grown}");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(operations in prop::collection::vec((any::<bool>(), 0u16..600), 0..3000)) {
            let mut table = Table::new(KeyHasher::new(1));
            let mut model = BTreeMap::new();
            for (insert, key) in operations {
                let bytes = key.to_le_bytes();
                if insert { add(&mut table, &bytes); model.insert(key, ()); }
                else { drop_key(&mut table, &bytes); model.remove(&key); }
            }
            prop_assert_eq!(table.len(), model.len());
            for key in 0u16..600 {
                let bytes = key.to_le_bytes();
                prop_assert_eq!(table.find(table.hash(&bytes), &bytes).is_some(), model.contains_key(&key));
            }
            prop_assert_eq!(table.iter().count(), model.len());
        }

        #[test]
        fn what_stays_is_scanned(stay in prop::collection::btree_set(any::<u16>(), 1..500), churn: Vec<(bool, u32)>, count in 1usize..50) {
            let mut table = Table::new(KeyHasher::new(3));
            for key in &stay { add(&mut table, &key.to_le_bytes()); }
            let mut churn = churn.into_iter().cycle().take(5000);
            let (mut seen, mut cursor) = (BTreeSet::new(), 0);
            loop {
                cursor = table.scan(cursor, count, &mut |_, entry| { seen.insert(entry.key.to_vec()); });
                for (insert, key) in churn.by_ref().take(40) {
                    if insert { add(&mut table, &key.to_le_bytes()) } else { drop_key(&mut table, &key.to_le_bytes()) }
                }
                if cursor == 0 { break }
            }
            for key in stay { prop_assert!(seen.contains(key.to_le_bytes().as_slice())); }
        }
    }
}
