//! A set of byte strings: sorted integers, then one packed buffer, then a dense hash table.
//!
//! Order and random access are decided by the history of operations alone, and survive
//! [`Set::encode`]. Representations only ever grow, as in Redis, so what two replicas hold after the
//! same operations is the same even if one of them was rebuilt from a checkpoint in between.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::hash::KeyHasher;

pub(crate) mod bytes;
pub(crate) mod ints;
pub(crate) mod packed;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use ints::{Ints, canonical_int};
use packed::{PACKED_ENTRIES_MAX, PACKED_VALUE_BYTES_MAX, Packed, Strings, all_different};
use table::{Entry, Table};

use crate::store::Pieces;

/// Most members of a set that is kept as integers, as Redis 7.0 has it.
const INTSET_ENTRIES_MAX: usize = 512;

/// A set of byte strings.
///
/// [`Set::insert`] and [`Set::decode`] are given the hasher; a set that needs one keeps its own copy.
#[derive(Clone, Debug)]
pub struct Set {
    repr: Repr,
}

// A keyspace holds millions of these.
const _: () = assert!(size_of::<Set>() <= 40);

#[derive(Clone, Debug)]
enum Repr {
    Ints(Ints),
    Packed(Packed),
    Table(Box<Table<()>>),
}

impl Default for Set {
    fn default() -> Set {
        Set::new()
    }
}

impl Set {
    /// An empty set. Does not allocate.
    #[must_use]
    pub const fn new() -> Set {
        Set { repr: Repr::Ints(Ints::new()) }
    }

    /// How many members there are. O(1).
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Ints(ints) => ints.len(),
            Repr::Packed(packed) => packed.len(),
            Repr::Table(table) => table.len(),
        }
    }

    /// In how many pieces it is in memory, about.
    pub(crate) fn pieces(&self) -> usize {
        match &self.repr {
            Repr::Ints(_) | Repr::Packed(_) => 1,
            Repr::Table(table) => table.len(),
        }
    }

    /// Frees it member by member.
    pub(crate) fn into_pieces(self) -> Pieces {
        match self.repr {
            small @ (Repr::Ints(_) | Repr::Packed(_)) => Box::new(core::iter::once(small).map(|_| 0)),
            Repr::Table(table) => table.into_pieces(0),
        }
    }

    /// True without members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `member`; true if it is new. O(1) when large.
    #[inline]
    pub fn insert(&mut self, member: &[u8], hasher: &KeyHasher) -> bool {
        match &mut self.repr {
            Repr::Table(table) => table.find_or_insert(member, || ()).1,
            Repr::Packed(packed) => {
                if packed.find::<1>(member).is_some() {
                    return false;
                }
                if packed.len() < PACKED_ENTRIES_MAX && member.len() <= PACKED_VALUE_BYTES_MAX {
                    packed.push(member);
                    return true;
                }
                self.upgrade(member, hasher)
            }
            Repr::Ints(ints) => match canonical_int(member) {
                Some(value) if ints.len() < INTSET_ENTRIES_MAX => ints.insert(value),
                Some(value) if ints.search(value).is_ok() => false,
                _ => self.upgrade(member, hasher),
            },
        }
    }

    /// Takes out `member`; false if it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.repr {
            Repr::Ints(ints) => match canonical_int(member).map(|value| ints.search(value)) {
                Some(Ok(index)) => {
                    ints.remove(index);
                    true
                }
                _ => false,
            },
            Repr::Packed(packed) => match packed.find::<1>(member) {
                Some(offset) => {
                    packed.remove(offset, 1);
                    true
                }
                None => false,
            },
            Repr::Table(table) => match table.find(member) {
                Some(at) => {
                    table.swap_remove(at);
                    true
                }
                None => false,
            },
        }
    }

    /// True if `member` is in the set. O(1) when large.
    #[inline]
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.repr {
            Repr::Ints(ints) => canonical_int(member).is_some_and(|value| ints.search(value).is_ok()),
            Repr::Packed(packed) => packed.find::<1>(member).is_some(),
            Repr::Table(table) => table.find(member).is_some(),
        }
    }

    /// The member at `index` in iteration order. O(1) when large.
    #[must_use]
    pub fn get_index(&self, index: usize) -> Option<Member<'_>> {
        (index < self.len()).then(|| match &self.repr {
            Repr::Ints(ints) => Member::of_int(ints.get(index)),
            Repr::Packed(packed) => Member::of(packed.at(packed.offset_of(index)).0),
            Repr::Table(table) => Member::of(table.key(index)),
        })
    }

    /// Takes out the member at `index` and gives it to `read`; `None` past the end.
    pub fn take_index<R>(&mut self, index: usize, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if index >= self.len() {
            return None;
        }
        Some(match &mut self.repr {
            Repr::Ints(ints) => {
                let member = Member::of_int(ints.get(index));
                ints.remove(index);
                read(&member)
            }
            Repr::Packed(packed) => {
                let offset = packed.offset_of(index);
                let result = read(packed.at(offset).0);
                packed.remove(offset, 1);
                result
            }
            Repr::Table(table) => read(table.swap_remove(index).key.as_slice()),
        })
    }

    /// The members, in the order that [`Set::get_index`] counts.
    #[must_use]
    pub fn iter(&self) -> Members<'_> {
        Members(match &self.repr {
            Repr::Ints(ints) => MembersRepr::Ints(ints, 0),
            Repr::Packed(packed) => MembersRepr::Packed(packed.iter()),
            Repr::Table(table) => MembersRepr::Table(table.entries().iter()),
        })
    }

    /// Visits some members and returns the cursor for the next call, 0 at the end; 0 also begins.
    ///
    /// A small set is visited whole, a large one about `count` members a call. A member that is present
    /// from the first call to the last is visited at least once, whatever happens to others meanwhile.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8])) -> u64 {
        match &self.repr {
            Repr::Table(table) => table.scan(cursor, count, |entry| visit(entry.key.as_slice())),
            _ => {
                self.iter().for_each(|member| visit(&member));
                0
            }
        }
    }

    /// What `OBJECT ENCODING` of Redis 7.0 says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.repr {
            Repr::Ints(_) => "intset",
            Repr::Packed(_) | Repr::Table(_) => "hashtable",
        }
    }

    /// Bytes of memory, estimated. O(1).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Set>()
            + match &self.repr {
                Repr::Ints(ints) => ints.heap_bytes(),
                Repr::Packed(packed) => packed.heap_bytes(),
                Repr::Table(table) => table.memory_bytes(),
            }
    }

    /// Appends the set in our own format, which keeps its order.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match &self.repr {
            Repr::Ints(_) => TAG_INTS,
            Repr::Packed(_) => TAG_PACKED,
            Repr::Table(_) => TAG_TABLE,
        });
        put_varint(out, self.len() as u64);
        match &self.repr {
            Repr::Ints(ints) => (0..ints.len()).for_each(|i| put_varint(out, zigzag(ints.get(i)))),
            _ => self.iter().for_each(|member| put_bytes(out, &member)),
        }
    }

    /// Reads what [`Set::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are cut, a member comes twice, or no set is encoded so. Memory is
    /// taken in proportion to the bytes that are there, never to a number they contain.
    pub fn decode(reader: &mut Reader<'_>, hasher: &KeyHasher) -> Result<Set, DecodeError> {
        let tag = reader.u8()?;
        let len = reader.len()?;
        if len > reader.rest().len() {
            return Err(DecodeError::Short);
        }
        let repr = match tag {
            TAG_INTS if len <= INTSET_ENTRIES_MAX => Repr::Ints(decode_ints(reader, len)?),
            TAG_PACKED if len <= PACKED_ENTRIES_MAX => {
                let mut packed = Packed::default();
                for _ in 0..len {
                    let member = reader.bytes()?;
                    if member.len() > PACKED_VALUE_BYTES_MAX {
                        return Err(DecodeError::Invalid);
                    }
                    packed.push(member);
                }
                if !all_different(packed.iter()) {
                    return Err(DecodeError::Invalid);
                }
                Repr::Packed(packed)
            }
            TAG_TABLE => {
                let mut table = Table::for_decoding(len, reader.rest().len(), hasher);
                for _ in 0..len {
                    if !table.find_or_insert(reader.bytes()?, || ()).1 {
                        return Err(DecodeError::Invalid);
                    }
                }
                Repr::Table(Box::new(table))
            }
            _ => return Err(DecodeError::Invalid),
        };
        Ok(Set { repr })
    }

    /// Adds `member`, which is new and has no place here, to the next larger representation.
    #[cold]
    fn upgrade(&mut self, member: &[u8], hasher: &KeyHasher) -> bool {
        let small = member.len() <= PACKED_VALUE_BYTES_MAX && self.len() < PACKED_ENTRIES_MAX;
        self.repr = if small {
            let mut packed = Packed::default();
            self.iter().for_each(|member| packed.push(&member));
            Repr::Packed(packed)
        } else {
            let mut table = Table::with_capacity(self.len() + 1, hasher);
            self.iter().for_each(|member| {
                table.find_or_insert(&member, || ());
            });
            Repr::Table(Box::new(table))
        };
        self.insert(member, hasher)
    }
}

const TAG_INTS: u8 = 0;
const TAG_PACKED: u8 = 1;
const TAG_TABLE: u8 = 2;

fn decode_ints(reader: &mut Reader<'_>, len: usize) -> Result<Ints, DecodeError> {
    let mut ints = Ints::new();
    for index in 0..len {
        let value = unzigzag(reader.varint()?);
        if index > 0 && ints.get(index - 1) >= value {
            return Err(DecodeError::Invalid);
        }
        ints.insert(value);
    }
    Ok(ints)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A member as bytes: borrowed, or an integer printed in place.
#[derive(Clone, Debug)]
pub struct Member<'a>(MemberRepr<'a>);

#[derive(Clone, Debug)]
enum MemberRepr<'a> {
    Borrowed(&'a [u8]),
    Printed { len: u8, text: [u8; 20] },
}

impl<'a> Member<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Member<'a> {
        Member(MemberRepr::Borrowed(bytes))
    }

    fn of_int(value: i64) -> Member<'a> {
        let mut buffer = itoa::Buffer::new();
        let printed = buffer.format(value).as_bytes();
        let mut text = [0; 20];
        text[..printed.len()].copy_from_slice(printed);
        Member(MemberRepr::Printed { len: printed.len() as u8, text })
    }
}

impl Deref for Member<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            MemberRepr::Borrowed(bytes) => bytes,
            MemberRepr::Printed { len, text } => &text[..usize::from(*len)],
        }
    }
}

impl AsRef<[u8]> for Member<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The members of a [`Set`], from [`Set::iter`].
#[derive(Clone, Debug)]
pub struct Members<'a>(MembersRepr<'a>);

#[derive(Clone, Debug)]
enum MembersRepr<'a> {
    Ints(&'a Ints, usize),
    Packed(Strings<'a>),
    Table(core::slice::Iter<'a, Entry<()>>),
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    #[inline]
    fn next(&mut self) -> Option<Member<'a>> {
        match &mut self.0 {
            MembersRepr::Ints(ints, next) => (*next < ints.len()).then(|| {
                *next += 1;
                Member::of_int(ints.get(*next - 1))
            }),
            MembersRepr::Packed(strings) => strings.next().map(Member::of),
            MembersRepr::Table(entries) => entries.next().map(|entry| Member::of(entry.key.as_slice())),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            MembersRepr::Ints(ints, next) => ints.len() - next,
            MembersRepr::Packed(strings) => strings.len(),
            MembersRepr::Table(entries) => entries.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Members<'_> {}

impl<'a> IntoIterator for &'a Set {
    type Item = Member<'a>;
    type IntoIter = Members<'a>;

    fn into_iter(self) -> Members<'a> {
        self.iter()
    }
}
