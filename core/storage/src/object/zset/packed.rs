//! A small sorted set in one buffer, in order: score, length, member, length again.
//!
//! The second length lets a reader walk backwards, and pop the maximum without a search.

use alloc::vec::Vec;

use super::Score;
use crate::object::set::packed::{PACKED_VALUE_BYTES_MAX, reserve};

/// Bytes of an entry besides its member.
const FRAME_BYTES: usize = 10;

/// Members with scores, ascending by (score, member).
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    buf: Vec<u8>,
    len: usize,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Byte offset.
    pub(crate) offset: usize,
    /// How many entries are before it.
    pub(crate) rank: usize,
}

/// An entry, and the byte offset where the next one begins.
pub(crate) struct Read<'a> {
    pub(crate) member: &'a [u8],
    pub(crate) score: Score,
    pub(crate) next: usize,
}

impl Packed {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Byte offset of the end.
    pub(crate) fn end(&self) -> usize {
        self.buf.len()
    }

    /// Bytes of memory outside the value itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// The entry at a byte offset where one begins.
    #[inline]
    pub(crate) fn at(&self, offset: usize) -> Read<'_> {
        let (score, rest) = self.buf[offset..].split_first_chunk().expect("an entry begins here");
        let score = Score::new(f64::from_le_bytes(*score)).expect("only scores are stored");
        let n = usize::from(rest[0]);
        Read { member: &rest[1..=n], score, next: offset + n + FRAME_BYTES }
    }

    /// The byte offset of the entry that ends at byte offset `end`.
    #[inline]
    pub(crate) fn before(&self, end: usize) -> usize {
        end - FRAME_BYTES - usize::from(self.buf[end - 1])
    }

    /// The byte offset of entry `rank`, or the end.
    pub(crate) fn offset_of(&self, rank: usize) -> usize {
        if rank <= self.len / 2 {
            (0..rank).fold(0, |offset, _| self.at(offset).next)
        } else {
            (rank..self.len).fold(self.end(), |end, _| self.before(end))
        }
    }

    /// Where `member` is.
    pub(crate) fn find(&self, member: &[u8]) -> Option<Place> {
        let last = member.last().copied();
        let (mut offset, mut rank) = (0, 0);
        while offset < self.buf.len() {
            let from = offset + 9;
            let n = usize::from(self.buf[from - 1]);
            // Names of one kind share their first bytes, so the last one tells them apart sooner.
            if n == member.len()
                && (n == 0 || Some(self.buf[from + n - 1]) == last)
                && &self.buf[from..from + n] == member
            {
                return Some(Place { offset, rank });
            }
            offset = from + n + 1;
            rank += 1;
        }
        None
    }

    /// How many entries satisfy `below`, which holds for a first part of them.
    pub(crate) fn partition(&self, below: impl Fn(Score, &[u8]) -> bool) -> Place {
        let mut place = Place { offset: 0, rank: 0 };
        while place.rank < self.len {
            let entry = self.at(place.offset);
            if !below(entry.score, entry.member) {
                break;
            }
            place = Place { offset: entry.next, rank: place.rank + 1 };
        }
        place
    }

    /// The members, in order.
    pub(crate) fn members(&self) -> impl Iterator<Item = &[u8]> {
        let mut offset = 0;
        (0..self.len).map(move |_| {
            let entry = self.at(offset);
            offset = entry.next;
            entry.member
        })
    }

    /// Adds a member that is not there yet, in its place.
    pub(crate) fn insert(&mut self, member: &[u8], score: Score) {
        let place = self.partition(|s, m| (s, m) < (score, member));
        self.insert_at(place.offset, member, score);
    }

    /// Adds a member that comes after all others.
    pub(crate) fn push(&mut self, member: &[u8], score: Score) {
        self.insert_at(self.end(), member, score);
    }

    fn insert_at(&mut self, at: usize, member: &[u8], score: Score) {
        assert!(member.len() <= PACKED_VALUE_BYTES_MAX);
        let (old, size) = (self.buf.len(), member.len() + FRAME_BYTES);
        reserve(&mut self.buf, size);
        self.buf.resize(old + size, 0);
        self.buf.copy_within(at..old, at + size);
        let place = &mut self.buf[at..at + size];
        place[..8].copy_from_slice(&score.get().to_le_bytes());
        place[8] = member.len() as u8;
        place[9..size - 1].copy_from_slice(member);
        place[size - 1] = member.len() as u8;
        self.len += 1;
    }

    /// Takes out `n` entries from byte `offset` on.
    pub(crate) fn remove(&mut self, offset: usize, n: usize) {
        let end = (0..n).fold(offset, |at, _| self.at(at).next);
        self.buf.drain(offset..end);
        self.len -= n;
        if self.buf.capacity() > 64 && self.buf.len() < self.buf.capacity() / 2 {
            self.buf.shrink_to(self.buf.len() + self.buf.len() / 4);
        }
    }
}
