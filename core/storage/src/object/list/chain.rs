//! The chunks of a list that needs more than one.

use alloc::collections::VecDeque;

use super::chunk::{CHUNK_BYTES_MAX, Chunk, packed_bytes};

/// Chunks that take no more than this together become one.
const MERGED_BYTES_MAX: usize = CHUNK_BYTES_MAX / 2;

/// Chunks, front to back.
///
/// Invariant: there is a chunk, and none is empty between two calls; `len` elements are in them, which
/// take `used_bytes`.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    chunks: VecDeque<Chunk>,
    len: usize,
    used_bytes: usize,
}

/// Where an element is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Number of the chunk.
    pub(super) chunk: usize,
    /// Number of the element in it.
    pub(super) index: usize,
}

impl Chain {
    /// The elements of one chunk.
    pub(super) fn of(chunk: Chunk) -> Chain {
        let (len, used_bytes) = (chunk.len(), chunk.used_bytes());
        Chain { chunks: VecDeque::from([chunk]), len, used_bytes }
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many chunks there are.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The chunks, front to back.
    pub(super) fn into_chunks(self) -> impl Iterator<Item = Chunk> + Send {
        self.chunks.into_iter()
    }

    /// The chunk with a number.
    pub(super) fn chunk(&self, number: usize) -> &Chunk {
        &self.chunks[number]
    }

    /// Overwrites the element at `place` if `element` is as long; false if not.
    pub(super) fn overwrite(&mut self, place: Place, element: &[u8]) -> bool {
        let chunk = &mut self.chunks[place.chunk];
        chunk.overwrite(chunk.position(place.index), element)
    }

    /// The only chunk, taken out, if there is one only and it is half empty.
    pub(super) fn take_single(&mut self) -> Option<Chunk> {
        if self.chunks.len() == 1 && self.used_bytes <= MERGED_BYTES_MAX {
            self.chunks.pop_front()
        } else {
            None
        }
    }

    /// Bytes of memory outside the value itself, estimated: the chunks between the ends are full.
    pub(super) fn heap_bytes(&self) -> usize {
        let slack = |chunk: &Chunk| chunk.heap_bytes() - chunk.used_bytes();
        let last = (self.chunks.len() > 1).then(|| self.chunks.back()).flatten();
        self.used_bytes
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.chunks.front().map_or(0, slack)
            + last.map_or(0, slack)
    }

    /// Appends `element`.
    #[inline]
    pub(super) fn push_back(&mut self, element: &[u8]) {
        let room = self.chunks.back_mut().is_some_and(|chunk| chunk.push_back(element));
        if !room {
            if let Some(full) = self.chunks.back_mut() {
                full.seal();
            }
            let mut chunk = Chunk::default();
            chunk.push_back(element);
            self.chunks.push_back(chunk);
        }
        self.len += 1;
        self.used_bytes += packed_bytes(element.len());
    }

    /// Puts `element` first.
    #[inline]
    pub(super) fn push_front(&mut self, element: &[u8]) {
        let room = self.chunks.front_mut().is_some_and(|chunk| chunk.push_front(element));
        if !room {
            if let Some(full) = self.chunks.front_mut() {
                full.seal();
            }
            let mut chunk = Chunk::default();
            chunk.push_front(element);
            self.chunks.push_front(chunk);
        }
        self.len += 1;
        self.used_bytes += packed_bytes(element.len());
    }

    /// Takes out the first element and gives it to `read`.
    #[inline]
    pub(super) fn pop_front<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let chunk = self.chunks.front_mut()?;
        let element = chunk.at(chunk.front()).0;
        let size = packed_bytes(element.len());
        let result = read(element);
        chunk.pop_front();
        if chunk.len() == 0 && self.chunks.len() > 1 {
            self.chunks.pop_front();
        }
        self.len -= 1;
        self.used_bytes -= size;
        Some(result)
    }

    /// Takes out the last element and gives it to `read`.
    #[inline]
    pub(super) fn pop_back<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let chunk = self.chunks.back_mut()?;
        let element = chunk.before(chunk.end()).0;
        let size = packed_bytes(element.len());
        let result = read(element);
        chunk.pop_back();
        if chunk.len() == 0 && self.chunks.len() > 1 {
            self.chunks.pop_back();
        }
        self.len -= 1;
        self.used_bytes -= size;
        Some(result)
    }

    /// Where element `index`, which exists, is; from the nearer end.
    pub(super) fn place(&self, index: usize) -> Place {
        assert!(index < self.len);
        if index < self.len / 2 {
            let mut before = 0;
            for (number, chunk) in self.chunks.iter().enumerate() {
                if index < before + chunk.len() {
                    return Place { chunk: number, index: index - before };
                }
                before += chunk.len();
            }
        } else {
            let mut before = self.len;
            for (number, chunk) in self.chunks.iter().enumerate().rev() {
                before -= chunk.len();
                if index >= before {
                    return Place { chunk: number, index: index - before };
                }
            }
        }
        unreachable!("the lengths of the chunks add up to the length")
    }

    /// Puts `element` before the one at `place`.
    pub(super) fn insert(&mut self, place: Place, element: &[u8]) {
        self.len += 1;
        self.used_bytes += packed_bytes(element.len());
        let left = &mut self.chunks[place.chunk];
        if left.insert(left.position(place.index), element) {
            return;
        }
        let mut right = left.split_off(place.index);
        left.seal();
        let fits = left.insert(left.end(), element) || right.insert(right.front(), element);
        self.chunks.insert(place.chunk + 1, right);
        if !fits {
            let mut middle = Chunk::default();
            middle.push_back(element);
            self.chunks.insert(place.chunk + 1, middle);
        }
    }

    /// Takes out the element at `place`.
    pub(super) fn erase(&mut self, place: Place) {
        let chunk = &mut self.chunks[place.chunk];
        let before = chunk.used_bytes();
        chunk.erase(chunk.position(place.index));
        self.len -= 1;
        self.used_bytes -= before - chunk.used_bytes();
        chunk.give_back();
        if chunk.len() == 0 && self.chunks.len() > 1 {
            self.chunks.remove(place.chunk);
        }
    }

    /// Takes out up to `most` elements that are `value`, the last ones if `from_back`; how many.
    pub(super) fn erase_values(&mut self, value: &[u8], most: usize, from_back: bool) -> usize {
        let (mut left, last) = (most, self.chunks.len() - 1);
        for i in 0..=last {
            let chunk = &mut self.chunks[if from_back { last - i } else { i }];
            let found = chunk.count_of(value);
            let take = found.min(left);
            if take > 0 {
                chunk.erase_values(value, if from_back { found - take } else { 0 }, take);
                left -= take;
            }
            if left == 0 {
                break;
            }
        }
        if left < most {
            self.tidy();
        }
        most - left
    }

    /// Takes out the first `n` elements; there are more.
    pub(super) fn drop_first(&mut self, n: usize) {
        let mut left = n;
        while let Some(whole) = self.chunks.front().map(Chunk::len).filter(|&len| len <= left) {
            self.chunks.pop_front();
            left -= whole;
        }
        let chunk = self.chunks.front_mut().expect("there are more elements than are dropped");
        (0..left).for_each(|_| chunk.pop_front());
        self.tidy();
    }

    /// Takes out the last `n` elements; there are more.
    pub(super) fn drop_last(&mut self, n: usize) {
        let mut left = n;
        while let Some(whole) = self.chunks.back().map(Chunk::len).filter(|&len| len <= left) {
            self.chunks.pop_back();
            left -= whole;
        }
        let chunk = self.chunks.back_mut().expect("there are more elements than are dropped");
        (0..left).for_each(|_| chunk.pop_back());
        self.tidy();
    }

    /// Drops empty chunks, merges small neighbours, and counts again.
    fn tidy(&mut self) {
        let mut chunks: VecDeque<Chunk> = VecDeque::with_capacity(self.chunks.len());
        for mut chunk in self.chunks.drain(..) {
            chunk.give_back();
            match chunks.back_mut() {
                _ if chunk.len() == 0 => {}
                Some(last) if last.used_bytes() + chunk.used_bytes() <= MERGED_BYTES_MAX => {
                    last.append(&chunk)
                }
                _ => chunks.push_back(chunk),
            }
        }
        if chunks.is_empty() {
            chunks.push_back(Chunk::default());
        }
        self.len = chunks.iter().map(Chunk::len).sum();
        self.used_bytes = chunks.iter().map(Chunk::used_bytes).sum();
        self.chunks = chunks;
    }
}
