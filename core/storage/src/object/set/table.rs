//! A hash table whose entries lie dense, in an order that the history of operations alone decides.
//!
//! A vector keeps the entries, an index of (32 bits of hash, position) finds them: growing never reads
//! a key, and a miss rarely does. Removal moves the last entry into the gap. No operation ever moves an
//! entry to a higher position, which is what makes [`Table::scan`] keep its promise.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as IndexEntry;
use kernel::hash::KeyHasher;

use super::bytes::Bytes;
use crate::store::Pieces;

/// Most entries of one table; the index keeps positions in 32 bits.
pub(crate) const ENTRIES_MAX: usize = u32::MAX as usize;
/// Below this many entries memory is not given back.
const SHRINK_ENTRIES_MIN: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    at: u32,
}

/// The index wants 64 bits: the low ones choose the bucket, the top seven tell its entries apart.
#[inline]
fn spread(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<V> {
    /// The key.
    pub(crate) key: Bytes,
    /// What the table's owner keeps for it.
    pub(crate) value: V,
}

/// Keys with values, in order of arrival but for removals.
///
/// Invariant: `index` holds exactly one slot for each entry, with its position and the tag of its key.
#[derive(Clone, Debug)]
pub(crate) struct Table<V> {
    hasher: KeyHasher,
    index: HashTable<Slot>,
    entries: Vec<Entry<V>>,
    key_heap_bytes: usize,
}

impl<V> Table<V> {
    /// An empty table with room for `n` entries.
    pub(crate) fn with_capacity(n: usize, hasher: &KeyHasher) -> Table<V> {
        Table {
            hasher: *hasher,
            index: HashTable::with_capacity(n),
            entries: Vec::with_capacity(n),
            key_heap_bytes: 0,
        }
    }

    /// An empty table for `n` entries that are said to follow in `bytes` encoded bytes.
    ///
    /// The number was not checked yet. Different keys take four bytes each on average, or more, but for
    /// the few shortest, so a false number takes memory in proportion to the bytes at most.
    pub(crate) fn for_decoding(n: usize, bytes: usize, hasher: &KeyHasher) -> Table<V> {
        Table::with_capacity(n.min(bytes / 4 + 256), hasher)
    }

    /// How many entries there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Frees it entry by entry; `extra` are the bytes that its values keep outside the entries.
    pub(crate) fn into_pieces(self, extra: usize) -> Pieces
    where
        V: Send + 'static,
    {
        let share = (self.memory_bytes() + extra) / self.len().max(1);
        Box::new(self.entries.into_iter().map(move |_| share))
    }

    /// All entries by position.
    #[inline]
    pub(crate) fn entries(&self) -> &[Entry<V>] {
        &self.entries
    }

    /// The key at a position that exists.
    #[inline]
    pub(crate) fn key(&self, at: usize) -> &[u8] {
        self.entries[at].key.as_slice()
    }

    /// The value at a position that exists.
    #[inline]
    pub(crate) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.entries[at].value
    }

    /// The position of `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let tag = self.tag(key);
        let same = |slot: &Slot| slot.tag == tag && self.key(slot.at as usize) == key;
        self.index.find(spread(tag), same).map(|slot| slot.at as usize)
    }

    /// The position of `key`, which is new (`true`) with the value of `make` if it was not there.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, key: &[u8], make: impl FnOnce() -> V) -> (usize, bool) {
        let tag = self.tag(key);
        let entries = &mut self.entries;
        let same = |slot: &Slot| slot.tag == tag && entries[slot.at as usize].key.as_slice() == key;
        match self.index.entry(spread(tag), same, |slot| spread(slot.tag)) {
            IndexEntry::Occupied(slot) => (slot.get().at as usize, false),
            IndexEntry::Vacant(place) => {
                let at = entries.len();
                assert!(at < ENTRIES_MAX, "positions fit 32 bits");
                if at == entries.capacity() {
                    // Half as much again, not twice: the slack of large tables is what memory budgets feel.
                    entries.reserve_exact((at / 2).max(16));
                }
                let key = Bytes::new(key);
                self.key_heap_bytes += key.heap_bytes();
                entries.push(Entry { key, value: make() });
                place.insert(Slot { tag, at: at as u32 });
                (at, true)
            }
        }
    }

    /// Takes out the entry at a position that exists; the last entry takes its place.
    pub(crate) fn swap_remove(&mut self, at: usize) -> Entry<V> {
        let tag = self.tag(self.key(at));
        self.index
            .find_entry(spread(tag), |slot| slot.at as usize == at)
            .expect("each entry has a slot with its position")
            .remove();
        let last = self.entries.len() - 1;
        if at != last {
            let tag = self.tag(self.key(last));
            self.index
                .find_mut(spread(tag), |slot| slot.at as usize == last)
                .expect("each entry has a slot with its position")
                .at = at as u32;
        }
        let entry = self.entries.swap_remove(at);
        self.key_heap_bytes -= entry.key.heap_bytes();
        self.give_back();
        entry
    }

    /// Visits up to `count` entries downwards from `cursor` and returns the next cursor, 0 at the end.
    ///
    /// 0 begins. Downwards, because entries only ever move down: what was not visited yet cannot get
    /// behind the cursor, so an entry present from the first call to the last is visited at least once.
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Entry<V>)) -> u64 {
        let len = self.entries.len();
        let end = match usize::try_from(cursor) {
            Ok(0) | Err(_) => len,
            Ok(cursor) => cursor.min(len),
        };
        let start = end.saturating_sub(count.max(1));
        self.entries[start..end].iter().rev().for_each(&mut visit);
        start as u64
    }

    /// Bytes of memory, without what the values keep outside the entries.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Table<V>>()
            + self.index.allocation_size()
            + self.entries.capacity() * size_of::<Entry<V>>()
            + self.key_heap_bytes
    }

    #[inline]
    fn tag(&self, key: &[u8]) -> u32 {
        (self.hasher.hash(key) >> 32) as u32
    }

    fn give_back(&mut self) {
        let len = self.entries.len();
        if self.entries.capacity() > SHRINK_ENTRIES_MIN && len < self.entries.capacity() / 8 {
            self.entries.shrink_to(len * 2);
            self.index.shrink_to(len * 2, |slot| spread(slot.tag));
        }
    }
}
