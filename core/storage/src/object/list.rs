//! A list: a deque of packed chunks of up to 8 KiB, like Redis's quicklist.
//!
//! A list of one chunk is that chunk. Indices count from the front; negative ones are the caller's.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

mod chain;
mod chunk;
mod iter;
#[cfg(test)]
mod tests;

use chain::{Chain, Place};
use chunk::Chunk;
pub use iter::Iter;

use crate::store::Pieces;

/// A sequence of byte strings, fast at both ends.
#[derive(Clone, Debug, Default)]
pub struct List {
    repr: Repr,
}

/// On which side of another element to insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nearer the front.
    Before,
    /// Nearer the back.
    After,
}

// A keyspace holds millions of these.
const _: () = assert!(size_of::<List>() <= 32);

#[derive(Clone, Debug)]
enum Repr {
    One(Chunk),
    Many(Box<Chain>),
}

impl Default for Repr {
    fn default() -> Repr {
        Repr::One(Chunk::default())
    }
}

impl List {
    /// An empty list. Does not allocate.
    #[must_use]
    pub fn new() -> List {
        List::default()
    }

    /// How many elements there are. O(1).
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::One(chunk) => chunk.len(),
            Repr::Many(chain) => chain.len(),
        }
    }

    /// True without elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In how many pieces it is in memory.
    pub(crate) fn pieces(&self) -> usize {
        match &self.repr {
            Repr::One(_) => 1,
            Repr::Many(chain) => chain.chunks(),
        }
    }

    /// Frees it chunk by chunk.
    pub(crate) fn into_pieces(self) -> Pieces {
        match self.repr {
            Repr::One(chunk) => Box::new(core::iter::once(chunk).map(|chunk| chunk.heap_bytes())),
            Repr::Many(chain) => Box::new(chain.into_chunks().map(|chunk| chunk.heap_bytes())),
        }
    }

    /// Appends `element`. O(1).
    #[inline]
    pub fn push_back(&mut self, element: &[u8]) {
        match &mut self.repr {
            Repr::One(chunk) => {
                if !chunk.push_back(element) {
                    self.chain().push_back(element);
                }
            }
            Repr::Many(chain) => chain.push_back(element),
        }
    }

    /// Puts `element` first. O(1).
    #[inline]
    pub fn push_front(&mut self, element: &[u8]) {
        match &mut self.repr {
            Repr::One(chunk) => {
                if !chunk.push_front(element) {
                    self.chain().push_front(element);
                }
            }
            Repr::Many(chain) => chain.push_front(element),
        }
    }

    /// The first element.
    #[must_use]
    pub fn front(&self) -> Option<&[u8]> {
        self.iter().next()
    }

    /// The last element.
    #[must_use]
    pub fn back(&self) -> Option<&[u8]> {
        self.iter().next_back()
    }

    /// Takes out the first element and gives it to `read`; `None` if there is none. O(1).
    #[inline]
    pub fn pop_front<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match &mut self.repr {
            Repr::One(chunk) => (chunk.len() > 0).then(|| {
                let result = read(chunk.at(chunk.front()).0);
                chunk.pop_front();
                chunk.give_back();
                result
            }),
            Repr::Many(chain) => {
                let result = chain.pop_front(read);
                self.settle();
                result
            }
        }
    }

    /// Takes out the last element and gives it to `read`; `None` if there is none. O(1).
    #[inline]
    pub fn pop_back<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match &mut self.repr {
            Repr::One(chunk) => (chunk.len() > 0).then(|| {
                let result = read(chunk.before(chunk.end()).0);
                chunk.pop_back();
                chunk.give_back();
                result
            }),
            Repr::Many(chain) => {
                let result = chain.pop_back(read);
                self.settle();
                result
            }
        }
    }

    /// The element at `index`. O(chunks), from the nearer end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.range(index..index.saturating_add(1)).next()
    }

    /// Replaces the element at `index`; false past the end.
    pub fn set(&mut self, index: usize, element: &[u8]) -> bool {
        if index >= self.len() {
            return false;
        }
        if let Repr::One(chunk) = &mut self.repr
            && chunk.overwrite(chunk.position(index), element)
        {
            return true;
        }
        self.edit(|chain| {
            let place = chain.place(index);
            if !chain.overwrite(place, element) {
                chain.insert(place, element);
                chain.erase(chain.place(index + 1));
            }
        });
        true
    }

    /// Inserts `element` beside the first one that is `pivot`; false if there is none. O(n).
    pub fn insert(&mut self, side: Side, pivot: &[u8], element: &[u8]) -> bool {
        let Some(index) = self.iter().position(|other| other == pivot) else { return false };
        let index = match side {
            Side::Before => index,
            Side::After => index + 1,
        };
        if index == self.len() {
            self.push_back(element);
        } else if index == 0 {
            self.push_front(element);
        } else {
            self.edit(|chain| chain.insert(chain.place(index), element));
        }
        true
    }

    /// Takes out elements that are `value` and returns how many: the first `count` of them, the last
    /// `-count` of them if `count` is negative, all if it is 0. O(n).
    pub fn remove(&mut self, count: i64, value: &[u8]) -> usize {
        let most = match usize::try_from(count.unsigned_abs()) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(most) => most,
        };
        self.edit(|chain| chain.erase_values(value, most, count < 0))
    }

    /// Keeps only the elements with indices in `keep`, as far as they exist.
    pub fn trim(&mut self, keep: ops::Range<usize>) {
        let len = self.len();
        let end = keep.end.min(len);
        let start = keep.start.min(end);
        if start == end {
            *self = List::new();
        } else if start + (len - end) <= POPS_MAX {
            // A capped list: one push, one trim.
            (0..start).for_each(|_| self.pop_front(|_| ()).unwrap_or_default());
            (end..len).for_each(|_| self.pop_back(|_| ()).unwrap_or_default());
        } else {
            self.edit(|chain| {
                chain.drop_last(len - end);
                chain.drop_first(start);
            });
        }
    }

    /// All elements, from the front; `rev()` from the back.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// The elements with indices in `range`, as far as they exist; `rev()` for the other direction.
    #[must_use]
    pub fn range(&self, range: ops::Range<usize>) -> Iter<'_> {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        Iter::new(self, start..end)
    }

    /// The indices in `range` of elements that are `value`, ascending; `rev()` for the other direction.
    pub fn positions(
        &self,
        range: ops::Range<usize>,
        value: &[u8],
    ) -> impl DoubleEndedIterator<Item = usize> {
        let start = range.start.min(self.len());
        self.range(range)
            .enumerate()
            .filter_map(move |(offset, element)| (element == value).then_some(start + offset))
    }

    /// What `OBJECT ENCODING` of Redis 7.0 says.
    #[must_use]
    pub const fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// Bytes of memory, estimated. O(1).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<List>()
            + match &self.repr {
                Repr::One(chunk) => chunk.heap_bytes(),
                Repr::Many(chain) => size_of::<Chain>() + chain.heap_bytes(),
            }
    }

    /// Appends the list in our own format.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        self.iter().for_each(|element| put_bytes(out, element));
    }

    /// Reads what [`List::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are cut. Memory is taken for elements that are there, never for a
    /// number that the bytes contain.
    pub fn decode(reader: &mut Reader<'_>) -> Result<List, DecodeError> {
        let mut list = List::new();
        for _ in 0..reader.len()? {
            list.push_back(reader.bytes()?);
        }
        Ok(list)
    }

    fn chunk(&self, number: usize) -> &Chunk {
        match &self.repr {
            Repr::One(chunk) => chunk,
            Repr::Many(chain) => chain.chunk(number),
        }
    }

    fn place(&self, index: usize) -> Place {
        match &self.repr {
            Repr::One(_) => Place { chunk: 0, index },
            Repr::Many(chain) => chain.place(index),
        }
    }

    /// The chain of chunks, made of the one chunk if that is all there is.
    #[cold]
    fn chain(&mut self) -> &mut Chain {
        if let Repr::One(chunk) = &mut self.repr {
            self.repr = Repr::Many(Box::new(Chain::of(core::mem::take(chunk))));
        }
        match &mut self.repr {
            Repr::Many(chain) => chain,
            Repr::One(_) => unreachable!("the lines above made a chain"),
        }
    }

    fn edit<R>(&mut self, change: impl FnOnce(&mut Chain) -> R) -> R {
        let result = change(self.chain());
        self.settle();
        result
    }

    /// A chain that shrank to one half empty chunk becomes that chunk.
    #[inline]
    fn settle(&mut self) {
        if let Repr::Many(chain) = &mut self.repr
            && let Some(mut chunk) = chain.take_single()
        {
            chunk.give_back();
            self.repr = Repr::One(chunk);
        }
    }
}

/// Up to here elements are popped one by one when a list is trimmed.
const POPS_MAX: usize = 16;

impl<'a> IntoIterator for &'a List {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
