//! A hash: fields with values, one packed buffer while small, then a dense hash table.
//!
//! Order and random access are decided by the history of operations alone, and survive
//! [`Hash::encode`]. A packed hash that grew does not shrink back, as in Redis.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::hash::KeyHasher;

#[cfg(test)]
mod tests;

use super::set::bytes::Bytes;
use super::set::packed::{PACKED_VALUE_BYTES_MAX, Packed, Strings, all_different};
use super::set::table::{Entry, Table};
use crate::store::Pieces;

/// Most fields of a packed hash: `hash-max-listpack-entries` of Redis 7.0.15.
const PACKED_FIELDS_MAX: usize = 512;

/// Fields with values, both byte strings.
///
/// [`Hash::set`] and [`Hash::decode`] are given the hasher; a hash that needs one keeps its own copy.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    repr: Repr,
}

// A keyspace holds millions of these.
const _: () = assert!(size_of::<Hash>() <= 32);

#[derive(Clone, Debug)]
enum Repr {
    /// Field, value, field, value …
    Packed(Packed),
    Large(Box<Large>),
}

#[derive(Clone, Debug)]
struct Large {
    table: Table<Bytes>,
    value_heap_bytes: usize,
}

impl Default for Repr {
    fn default() -> Repr {
        Repr::Packed(Packed::default())
    }
}

impl Hash {
    /// An empty hash. Does not allocate.
    #[must_use]
    pub fn new() -> Hash {
        Hash::default()
    }

    /// How many fields there are. O(1).
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.len() / 2,
            Repr::Large(large) => large.table.len(),
        }
    }

    /// In how many pieces it is in memory, about.
    pub(crate) fn pieces(&self) -> usize {
        match &self.repr {
            Repr::Packed(_) => 1,
            Repr::Large(large) => large.table.len(),
        }
    }

    /// Frees it field by field.
    pub(crate) fn into_pieces(self) -> Pieces {
        match self.repr {
            small @ Repr::Packed(_) => Box::new(core::iter::once(small).map(|_| 0)),
            Repr::Large(large) => large.table.into_pieces(large.value_heap_bytes),
        }
    }

    /// True without fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `field`. O(1) when large.
    #[inline]
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.repr {
            Repr::Packed(packed) => packed.find::<2>(field).map(|offset| packed.at(packed.at(offset).1).0),
            Repr::Large(large) => {
                large.table.find(field).map(|at| large.table.entries()[at].value.as_slice())
            }
        }
    }

    /// True if `field` has a value.
    #[must_use]
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Bytes of the value of `field`, 0 without one.
    #[must_use]
    pub fn value_len(&self, field: &[u8]) -> usize {
        self.get(field).map_or(0, <[u8]>::len)
    }

    /// Gives `field` a value; true if the field is new. A field keeps its position. O(1) when large.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], hasher: &KeyHasher) -> bool {
        match &mut self.repr {
            Repr::Large(large) => large.set(field, value),
            Repr::Packed(packed) => {
                let short = value.len() <= PACKED_VALUE_BYTES_MAX;
                match packed.find::<2>(field) {
                    Some(offset) if short => {
                        let place = packed.at(offset).1;
                        packed.replace(place, value);
                        false
                    }
                    None if short
                        && field.len() <= PACKED_VALUE_BYTES_MAX
                        && packed.len() < 2 * PACKED_FIELDS_MAX =>
                    {
                        packed.push(field);
                        packed.push(value);
                        true
                    }
                    _ => self.upgrade(hasher).set(field, value),
                }
            }
        }
    }

    /// Takes out `field`; false if it was not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.repr {
            Repr::Packed(packed) => match packed.find::<2>(field) {
                Some(offset) => {
                    packed.remove(offset, 2);
                    true
                }
                None => false,
            },
            Repr::Large(large) => match large.table.find(field) {
                Some(at) => {
                    large.value_heap_bytes -= large.table.swap_remove(at).value.heap_bytes();
                    true
                }
                None => false,
            },
        }
    }

    /// The field at `index` in iteration order, with its value. O(1) when large.
    #[must_use]
    pub fn get_index(&self, index: usize) -> Option<(&[u8], &[u8])> {
        (index < self.len()).then(|| match &self.repr {
            Repr::Packed(packed) => {
                let (field, next) = packed.at(packed.offset_of(index * 2));
                (field, packed.at(next).0)
            }
            Repr::Large(large) => pair(&large.table.entries()[index]),
        })
    }

    /// Fields with values, in the order that [`Hash::get_index`] counts.
    #[must_use]
    pub fn iter(&self) -> Pairs<'_> {
        Pairs(match &self.repr {
            Repr::Packed(packed) => PairsRepr::Packed(packed.iter()),
            Repr::Large(large) => PairsRepr::Large(large.table.entries().iter()),
        })
    }

    /// The fields, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.iter().map(|(field, _)| field)
    }

    /// The values, in order of their fields.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.iter().map(|(_, value)| value)
    }

    /// Visits some fields and returns the cursor for the next call, 0 at the end; 0 also begins.
    ///
    /// A small hash is visited whole, a large one about `count` fields a call. A field that is present
    /// from the first call to the last is visited at least once, whatever happens to others meanwhile.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        match &self.repr {
            Repr::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Repr::Large(large) => large.table.scan(cursor, count, |entry| {
                let (field, value) = pair(entry);
                visit(field, value);
            }),
        }
    }

    /// What `OBJECT ENCODING` of Redis 7.0 says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.repr {
            Repr::Packed(_) => "listpack",
            Repr::Large(_) => "hashtable",
        }
    }

    /// Bytes of memory, estimated. O(1).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Hash>()
            + match &self.repr {
                Repr::Packed(packed) => packed.heap_bytes(),
                Repr::Large(large) => large.table.memory_bytes() + large.value_heap_bytes,
            }
    }

    /// Appends the hash in our own format, which keeps its order.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match &self.repr {
            Repr::Packed(_) => TAG_PACKED,
            Repr::Large(_) => TAG_LARGE,
        });
        put_varint(out, self.len() as u64);
        for (field, value) in self.iter() {
            put_bytes(out, field);
            put_bytes(out, value);
        }
    }

    /// Reads what [`Hash::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are cut, a field comes twice, or no hash is encoded so. Memory is
    /// taken in proportion to the bytes that are there, never to a number they contain.
    pub fn decode(reader: &mut Reader<'_>, hasher: &KeyHasher) -> Result<Hash, DecodeError> {
        let tag = reader.u8()?;
        let len = reader.len()?;
        if len > reader.rest().len() / 2 {
            return Err(DecodeError::Short);
        }
        let repr = match tag {
            TAG_PACKED if len <= PACKED_FIELDS_MAX => {
                let mut packed = Packed::default();
                for _ in 0..len {
                    let (field, value) = (reader.bytes()?, reader.bytes()?);
                    if field.len().max(value.len()) > PACKED_VALUE_BYTES_MAX {
                        return Err(DecodeError::Invalid);
                    }
                    packed.push(field);
                    packed.push(value);
                }
                if !all_different(packed.iter().step_by(2)) {
                    return Err(DecodeError::Invalid);
                }
                Repr::Packed(packed)
            }
            TAG_LARGE => {
                let table = Table::for_decoding(len, reader.rest().len(), hasher);
                let mut large = Large { table, value_heap_bytes: 0 };
                for _ in 0..len {
                    if !large.set(reader.bytes()?, reader.bytes()?) {
                        return Err(DecodeError::Invalid);
                    }
                }
                Repr::Large(Box::new(large))
            }
            _ => return Err(DecodeError::Invalid),
        };
        Ok(Hash { repr })
    }

    #[cold]
    fn upgrade(&mut self, hasher: &KeyHasher) -> &mut Large {
        let mut large =
            Box::new(Large { table: Table::with_capacity(self.len() + 1, hasher), value_heap_bytes: 0 });
        for (field, value) in self.iter() {
            large.set(field, value);
        }
        self.repr = Repr::Large(large);
        match &mut self.repr {
            Repr::Large(large) => large,
            Repr::Packed(_) => unreachable!("the line above made it large"),
        }
    }
}

impl Large {
    #[inline]
    fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let (at, new) = self.table.find_or_insert(field, || Bytes::new(value));
        if new {
            self.value_heap_bytes += self.table.value_mut(at).heap_bytes();
        } else {
            let place = self.table.value_mut(at);
            self.value_heap_bytes -= place.heap_bytes();
            place.assign(value);
            self.value_heap_bytes += place.heap_bytes();
        }
        new
    }
}

const TAG_PACKED: u8 = 1;
const TAG_LARGE: u8 = 2;

fn pair(entry: &Entry<Bytes>) -> (&[u8], &[u8]) {
    (entry.key.as_slice(), entry.value.as_slice())
}

/// The fields of a [`Hash`] with their values, from [`Hash::iter`].
#[derive(Clone, Debug)]
pub struct Pairs<'a>(PairsRepr<'a>);

#[derive(Clone, Debug)]
enum PairsRepr<'a> {
    Packed(Strings<'a>),
    Large(core::slice::Iter<'a, Entry<Bytes>>),
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        match &mut self.0 {
            PairsRepr::Packed(strings) => strings.next().zip(strings.next()),
            PairsRepr::Large(entries) => entries.next().map(pair),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            PairsRepr::Packed(strings) => strings.len() / 2,
            PairsRepr::Large(entries) => entries.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

impl<'a> IntoIterator for &'a Hash {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        self.iter()
    }
}
