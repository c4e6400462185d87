//! Short strings one behind the other in one buffer, each behind its length in one byte.
//!
//! The idea is Redis's listpack, without the backward links that sets and hashes never follow.

use alloc::vec::Vec;

use smallvec::SmallVec;

/// Most members of a packed set or sorted set, as Redis has it for sorted sets.
pub(crate) const PACKED_ENTRIES_MAX: usize = 128;
/// Longest string of a packed object, in bytes, as Redis 7.0 has it.
pub(crate) const PACKED_VALUE_BYTES_MAX: usize = 64;

/// Makes room for `more` bytes with less slack than doubling: small objects are many.
pub(crate) fn reserve(buf: &mut Vec<u8>, more: usize) {
    if buf.capacity() - buf.len() < more {
        let step = more.max(buf.len() / 4);
        buf.reserve_exact((buf.len() + step).next_multiple_of(16) - buf.len());
    }
}

/// True if no string comes twice. O(n log n).
pub(crate) fn all_different<'a>(strings: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut sorted: SmallVec<[&[u8]; PACKED_ENTRIES_MAX]> = strings.collect();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

/// The strings, in order of arrival. Each is at most [`PACKED_VALUE_BYTES_MAX`] long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    buf: Vec<u8>,
    strings: usize,
}

impl Packed {
    /// How many strings there are.
    pub(crate) fn len(&self) -> usize {
        self.strings
    }

    /// Bytes of memory outside the value itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// Appends a string.
    pub(crate) fn push(&mut self, string: &[u8]) {
        assert!(string.len() <= PACKED_VALUE_BYTES_MAX);
        reserve(&mut self.buf, string.len() + 1);
        self.buf.push(string.len() as u8);
        self.buf.extend_from_slice(string);
        self.strings += 1;
    }

    /// The string at byte `offset`, and the offset of the next one.
    #[inline]
    pub(crate) fn at(&self, offset: usize) -> (&[u8], usize) {
        let from = offset + 1;
        let to = from + usize::from(self.buf[offset]);
        (&self.buf[from..to], to)
    }

    /// The byte offset of `string` among every `STRIDE`th string, beginning with the first.
    #[inline]
    pub(crate) fn find<const STRIDE: usize>(&self, string: &[u8]) -> Option<usize> {
        let buf = &self.buf[..];
        let last = string.last().copied();
        let mut offset = 0;
        while offset < buf.len() {
            let n = usize::from(buf[offset]);
            let to = offset + 1 + n;
            // Names of one kind share their first bytes, so the last one tells them apart sooner.
            if n == string.len() && (n == 0 || Some(buf[to - 1]) == last) && &buf[offset + 1..to] == string {
                return Some(offset);
            }
            offset = to;
            for _ in 1..STRIDE {
                offset += 1 + usize::from(buf[offset]);
            }
        }
        None
    }

    /// The byte offset of string number `index`, which exists.
    pub(crate) fn offset_of(&self, index: usize) -> usize {
        assert!(index < self.strings);
        (0..index).fold(0, |offset, _| self.at(offset).1)
    }

    /// Takes out `n` strings from byte `offset` on; later ones move down and keep their order.
    pub(crate) fn remove(&mut self, offset: usize, n: usize) {
        let end = (0..n).fold(offset, |at, _| self.at(at).1);
        self.buf.drain(offset..end);
        self.strings -= n;
        if self.buf.capacity() > 64 && self.buf.len() < self.buf.capacity() / 2 {
            self.buf.shrink_to(self.buf.len() + self.buf.len() / 4);
        }
    }

    /// Puts `string` in the place of the one at byte `offset`.
    pub(crate) fn replace(&mut self, offset: usize, string: &[u8]) {
        assert!(string.len() <= PACKED_VALUE_BYTES_MAX);
        let (old, end) = self.at(offset);
        if old.len() == string.len() {
            self.buf[offset + 1..end].copy_from_slice(string);
        } else {
            let from = offset + 1;
            reserve(&mut self.buf, string.len());
            self.buf[offset] = string.len() as u8;
            self.buf.splice(from..end, string.iter().copied());
        }
    }

    /// All strings in order.
    pub(crate) fn iter(&self) -> Strings<'_> {
        Strings { rest: &self.buf, left: self.strings }
    }
}

/// The strings of a [`Packed`], in order.
#[derive(Clone, Debug)]
pub(crate) struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (&n, rest) = self.rest.split_first()?;
        let (string, rest) = rest.split_at(usize::from(n));
        self.rest = rest;
        self.left -= 1;
        Some(string)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}
