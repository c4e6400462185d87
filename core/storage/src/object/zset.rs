//! A sorted set: members with scores, ordered by (score, member), each with its rank.
//!
//! One packed buffer while small, then a table and a counting tree. Every question about a range is
//! answered in ranks: ask [`Zset::ranks_by_score`], [`Zset::ranks_by_lex`] or take ranks directly, then
//! count them, walk them ([`Zset::range`]) or remove them ([`Zset::remove_ranks`]).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::hash::KeyHasher;

mod large;
mod packed;
mod range;
mod score;
#[cfg(test)]
mod tests;
mod tree;

use large::Large;
use packed::Packed;
pub use range::Range;
pub use score::{LexBound, Score, ScoreBound};

use super::set::packed::{PACKED_ENTRIES_MAX, PACKED_VALUE_BYTES_MAX, all_different};
use super::set::table::Table;
use crate::store::Pieces;

/// What [`Zset::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The member is new.
    Added,
    /// The member has another score now.
    Updated,
    /// The member had this score.
    Unchanged,
}

/// Members with scores.
///
/// [`Zset::insert`] and [`Zset::decode`] are given the hasher; a set that needs one keeps its own copy.
#[derive(Clone, Debug, Default)]
pub struct Zset {
    repr: Repr,
}

// A keyspace holds millions of these.
const _: () = assert!(size_of::<Zset>() <= 32);

#[derive(Clone, Debug)]
enum Repr {
    Packed(Packed),
    Large(Box<Large>),
}

impl Default for Repr {
    fn default() -> Repr {
        Repr::Packed(Packed::default())
    }
}

impl Zset {
    /// An empty set. Does not allocate.
    #[must_use]
    pub fn new() -> Zset {
        Zset::default()
    }

    /// How many members there are. O(1).
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.len(),
            Repr::Large(large) => large.table().len(),
        }
    }

    /// In how many pieces it is in memory, about.
    pub(crate) fn pieces(&self) -> usize {
        match &self.repr {
            Repr::Packed(_) => 1,
            Repr::Large(large) => large.table().len(),
        }
    }

    /// Frees it member by member, then the order's nodes.
    pub(crate) fn into_pieces(self) -> Pieces {
        match self.repr {
            small @ Repr::Packed(_) => Box::new(core::iter::once(small).map(|_| 0)),
            Repr::Large(large) => large.into_pieces(),
        }
    }

    /// True without members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives `member` a score. O(log n), O(1) if it has that score.
    #[inline]
    pub fn insert(&mut self, member: &[u8], score: Score, hasher: &KeyHasher) -> Change {
        match &mut self.repr {
            Repr::Large(large) => large.insert(member, score),
            Repr::Packed(packed) => match packed.find(member) {
                Some(place) => {
                    if packed.at(place.offset).score == score {
                        return Change::Unchanged;
                    }
                    packed.remove(place.offset, 1);
                    packed.insert(member, score);
                    Change::Updated
                }
                None if packed.len() < PACKED_ENTRIES_MAX && member.len() <= PACKED_VALUE_BYTES_MAX => {
                    packed.insert(member, score);
                    Change::Added
                }
                None => self.upgrade(hasher).insert(member, score),
            },
        }
    }

    /// Takes out `member`; its score if it was there. O(log n).
    pub fn remove(&mut self, member: &[u8]) -> Option<Score> {
        match &mut self.repr {
            Repr::Packed(packed) => packed.find(member).map(|place| {
                let score = packed.at(place.offset).score;
                packed.remove(place.offset, 1);
                score
            }),
            Repr::Large(large) => large.table().find(member).map(|at| large.remove_at(at)),
        }
    }

    /// The score of `member`. O(1) when large.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<Score> {
        match &self.repr {
            Repr::Packed(packed) => packed.find(member).map(|place| packed.at(place.offset).score),
            Repr::Large(large) => large.score(member),
        }
    }

    /// True if `member` has a score. O(1) when large.
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        self.score(member).is_some()
    }

    /// How many members are before `member`. O(log n).
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.repr {
            Repr::Packed(packed) => packed.find(member).map(|place| place.rank),
            Repr::Large(large) => large.score(member).map(|score| large.rank(score, member)),
        }
    }

    /// How many members are after `member`. O(log n).
    #[must_use]
    pub fn rev_rank(&self, member: &[u8]) -> Option<usize> {
        self.rank(member).map(|rank| self.len() - 1 - rank)
    }

    /// The member with `rank`, and its score. O(log n).
    #[must_use]
    pub fn get_rank(&self, rank: usize) -> Option<(&[u8], Score)> {
        self.range(rank..rank.saturating_add(1)).next()
    }

    /// Members with their ranks in `ranks`, ascending; `rev()` for descending. O(log n) to begin.
    #[must_use]
    pub fn range(&self, ranks: ops::Range<usize>) -> Range<'_> {
        Range::new(self, ranks.start, ranks.end)
    }

    /// All members, ascending.
    #[must_use]
    pub fn iter(&self) -> Range<'_> {
        self.range(0..self.len())
    }

    /// The ranks of the members with scores between two bounds; its length is their number. O(log n).
    #[must_use]
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> ops::Range<usize> {
        let low = self.partition(|score, _| min.is_above(score));
        low..self.partition(|score, _| max.reaches(score)).max(low)
    }

    /// The ranks of the members between two bounds, when all scores are the same. O(log n).
    ///
    /// With different scores the answer is some range of ranks, as in Redis.
    #[must_use]
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> ops::Range<usize> {
        let low = self.partition_members(|member| min.is_above(member));
        low..self.partition_members(|member| max.reaches(member)).max(low)
    }

    /// Takes out the members with ranks in `ranks`, as far as they exist; how many. O(log n) each.
    pub fn remove_ranks(&mut self, ranks: ops::Range<usize>) -> usize {
        let end = ranks.end.min(self.len());
        let start = ranks.start.min(end);
        match &mut self.repr {
            Repr::Packed(packed) => packed.remove(packed.offset_of(start), end - start),
            Repr::Large(large) => (start..end).rev().for_each(|rank| large.remove_rank(rank)),
        }
        end - start
    }

    /// Takes out the member with the lowest score and gives it to `read`; `None` if there is none.
    pub fn pop_min<R>(&mut self, read: impl FnOnce(&[u8], Score) -> R) -> Option<R> {
        self.pop_rank(0, read)
    }

    /// Takes out the member with the highest score and gives it to `read`; `None` if there is none.
    pub fn pop_max<R>(&mut self, read: impl FnOnce(&[u8], Score) -> R) -> Option<R> {
        self.pop_rank(self.len().checked_sub(1)?, read)
    }

    /// Visits some members and returns the cursor for the next call, 0 at the end; 0 also begins.
    ///
    /// A small set is visited whole, a large one about `count` members a call. A member that is present
    /// from the first call to the last is visited at least once, whatever happens to others meanwhile.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], Score)) -> u64 {
        match &self.repr {
            Repr::Packed(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
            Repr::Large(large) => {
                large.table().scan(cursor, count, |entry| visit(entry.key.as_slice(), entry.value))
            }
        }
    }

    /// What `OBJECT ENCODING` of Redis 7.0 says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.repr {
            Repr::Packed(_) => "listpack",
            Repr::Large(_) => "skiplist",
        }
    }

    /// Bytes of memory, estimated. O(1).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Zset>()
            + match &self.repr {
                Repr::Packed(packed) => packed.heap_bytes(),
                Repr::Large(large) => large.memory_bytes(),
            }
    }

    /// Appends the set in our own format, which keeps the order of [`Zset::scan`] too.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.repr {
            Repr::Packed(packed) => {
                head(out, TAG_PACKED, packed.len());
                self.iter().for_each(|(member, score)| entry(out, member, score));
            }
            Repr::Large(large) => {
                head(out, TAG_LARGE, large.table().len());
                for each in large.table().entries() {
                    entry(out, each.key.as_slice(), each.value);
                }
            }
        }
    }

    /// Reads what [`Zset::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are cut, a member comes twice, a score is NaN, or no set is encoded
    /// so. Memory is taken in proportion to the bytes that are there, never to a number they contain.
    pub fn decode(reader: &mut Reader<'_>, hasher: &KeyHasher) -> Result<Zset, DecodeError> {
        let tag = reader.u8()?;
        let len = reader.len()?;
        if len > reader.rest().len() / 9 {
            return Err(DecodeError::Short);
        }
        let repr = match tag {
            TAG_PACKED if len <= PACKED_ENTRIES_MAX => Repr::Packed(decode_packed(reader, len)?),
            TAG_LARGE => {
                let mut table = Table::for_decoding(len, reader.rest().len(), hasher);
                for _ in 0..len {
                    let (score, member) = (decode_score(reader)?, reader.bytes()?);
                    if !table.find_or_insert(member, || score).1 {
                        return Err(DecodeError::Invalid);
                    }
                }
                Repr::Large(Box::new(Large::from_table(table)))
            }
            _ => return Err(DecodeError::Invalid),
        };
        Ok(Zset { repr })
    }

    fn pop_rank<R>(&mut self, rank: usize, read: impl FnOnce(&[u8], Score) -> R) -> Option<R> {
        let (member, score) = self.get_rank(rank)?;
        let result = read(member, score);
        self.remove_ranks(rank..rank + 1);
        Some(result)
    }

    fn partition(&self, below: impl Fn(Score, &[u8]) -> bool) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.partition(below).rank,
            Repr::Large(large) => large.order().partition(|item| {
                let (member, score) = large.resolve(item);
                below(score, member)
            }),
        }
    }

    fn partition_members(&self, below: impl Fn(&[u8]) -> bool) -> usize {
        self.partition(|_, member| below(member))
    }

    #[cold]
    fn upgrade(&mut self, hasher: &KeyHasher) -> &mut Large {
        let mut table = Table::with_capacity(self.len() + 1, hasher);
        for (member, score) in self.iter() {
            table.find_or_insert(member, || score);
        }
        self.repr = Repr::Large(Box::new(Large::from_table(table)));
        match &mut self.repr {
            Repr::Large(large) => large,
            Repr::Packed(_) => unreachable!("the line above made it large"),
        }
    }
}

const TAG_PACKED: u8 = 1;
const TAG_LARGE: u8 = 2;

fn head(out: &mut Vec<u8>, tag: u8, len: usize) {
    out.push(tag);
    put_varint(out, len as u64);
}

fn entry(out: &mut Vec<u8>, member: &[u8], score: Score) {
    out.extend_from_slice(&score.get().to_le_bytes());
    put_bytes(out, member);
}

fn decode_score(reader: &mut Reader<'_>) -> Result<Score, DecodeError> {
    Score::new(f64::from_le_bytes(reader.array()?)).ok_or(DecodeError::Invalid)
}

fn decode_packed(reader: &mut Reader<'_>, len: usize) -> Result<Packed, DecodeError> {
    let mut packed = Packed::default();
    let mut last: Option<(Score, &[u8])> = None;
    for _ in 0..len {
        let (score, member) = (decode_score(reader)?, reader.bytes()?);
        if member.len() > PACKED_VALUE_BYTES_MAX || last.is_some_and(|last| last >= (score, member)) {
            return Err(DecodeError::Invalid);
        }
        packed.push(member, score);
        last = Some((score, member));
    }
    if !all_different(packed.members()) {
        return Err(DecodeError::Invalid);
    }
    Ok(packed)
}

impl<'a> IntoIterator for &'a Zset {
    type Item = (&'a [u8], Score);
    type IntoIter = Range<'a>;

    fn into_iter(self) -> Range<'a> {
        self.iter()
    }
}
