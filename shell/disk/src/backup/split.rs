//! Cuts the stream of a checkpoint into chunks that stay the same where the objects do.
//!
//! A chunk ends behind an object whose key says so, by its CRC-32, and not after so many bytes: a key that comes or goes
//! changes the chunk it is in and perhaps the next, and all others are known from the backup before. What is before the
//! first object changes with every checkpoint and is a chunk of its own; so is a long object.

use kernel::codec::{DecodeError, Reader};

use crate::engine::stream::{self, Item};

/// A chunk has at least so many bytes, unless something ends it.
pub const CHUNK_BYTES_MIN: usize = 128 * 1024;
/// A chunk with so many bytes ends behind the item that it has last.
pub const CHUNK_BYTES_ENOUGH: usize = 1024 * 1024;
/// The most bytes of a chunk.
pub const CHUNK_BYTES_MAX: usize = CHUNK_BYTES_ENOUGH + stream::ITEM_BYTES_MAX;
/// One key in so many ends a chunk that is long enough.
const KEYS_A_CHUNK: u32 = 512;

const _: () = assert!(CHUNK_BYTES_MAX <= crate::engine::LOT_BYTES_MAX);

/// Where in a stream what came last was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    /// Its beginning and its state.
    #[default]
    Frame,
    /// Short objects.
    Objects,
    /// A long object of which so many bytes are to come.
    Long(u64),
}

/// Takes lots, hands out chunks.
#[derive(Debug, Default)]
pub struct Splitter {
    within: Within,
    chunk: Vec<u8>,
}

impl Splitter {
    /// Takes the next lot, which is whole items, and hands each chunk that is finished to `out`.
    ///
    /// # Errors
    /// It is no stream of items; or what `out` says.
    pub fn push<E: From<DecodeError>>(
        &mut self,
        lot: &[u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = Reader::new(lot);
        while !reader.is_empty() {
            let before = reader.rest();
            let item = stream::decode(&mut reader)?;
            let bytes = &before[..before.len() - reader.rest().len()];
            if bytes.len() > stream::ITEM_BYTES_MAX {
                return Err(DecodeError::Overflow.into());
            }
            self.take(item, bytes, out)?;
        }
        Ok(())
    }

    /// Hands out the last chunk.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish<E>(mut self, out: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.cut(out)
    }

    fn take<E: From<DecodeError>>(
        &mut self,
        item: Item<'_>,
        bytes: &[u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let begins = matches!(item, Item::Object { .. } | Item::Long { .. } | Item::End);
        if begins && self.within == Within::Frame || matches!(item, Item::Long { .. }) {
            self.cut(out)?;
        }
        self.chunk.extend_from_slice(bytes);
        let ends = match item {
            Item::Begin(_) | Item::State(_) => false,
            Item::Object { key, .. } => {
                self.within = Within::Objects;
                self.chunk.len() >= CHUNK_BYTES_MIN && crc32fast::hash(key).is_multiple_of(KEYS_A_CHUNK)
            }
            Item::Long { bytes, .. } => {
                self.within = Within::Long(bytes);
                false
            }
            Item::Piece(piece) => match self.within {
                Within::Long(left) if left > piece.len() as u64 => {
                    self.within = Within::Long(left - piece.len() as u64);
                    false
                }
                Within::Long(_) => {
                    self.within = Within::Objects;
                    true
                }
                Within::Frame | Within::Objects => return Err(DecodeError::Invalid.into()),
            },
            Item::End => false,
        };
        if ends || self.chunk.len() >= CHUNK_BYTES_ENOUGH { self.cut(out) } else { Ok(()) }
    }

    fn cut<E>(&mut self, out: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let done = out(&self.chunk);
        self.chunk.clear();
        done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kernel::Rng;

    use super::*;
    use crate::engine::stream::Begin;

    /// The stream of these objects, in lots that are cut anywhere between items.
    fn lots(objects: &BTreeMap<Vec<u8>, Vec<u8>>, index: u64, rng: &mut Rng) -> Vec<Vec<u8>> {
        let (mut lots, mut lot) = (Vec::new(), Vec::new());
        let mut put = |item: Item<'_>, rng: &mut Rng| {
            item.encode(&mut lot);
            if rng.chance(0.01) {
                lots.push(std::mem::take(&mut lot));
            }
        };
        let begin = Begin { index, term: 1, objects: objects.len() as u64, state_bytes: 9 };
        put(Item::Begin(begin), rng);
        put(Item::State(&index.to_le_bytes()), rng);
        for (key, body) in objects {
            if body.len() <= crate::engine::CHUNK_BYTES {
                put(Item::Object { key, head: b"h", body }, rng);
                continue;
            }
            put(Item::Long { key, head: b"h", bytes: body.len() as u64, crc: crc32fast::hash(body) }, rng);
            body.chunks(crate::engine::CHUNK_BYTES).for_each(|piece| put(Item::Piece(piece), rng));
        }
        put(Item::End, rng);
        lots.push(lot);
        lots
    }

    fn chunks(lots: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (mut splitter, mut chunks) = (Splitter::default(), Vec::new());
        let mut out = |chunk: &[u8]| -> Result<(), DecodeError> {
            chunks.push(chunk.to_vec());
            Ok(())
        };
        lots.iter().for_each(|lot| splitter.push(lot, &mut out).unwrap());
        splitter.finish(&mut out).unwrap();
        chunks
    }

    fn objects(rng: &mut Rng) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut objects: BTreeMap<Vec<u8>, Vec<u8>> = (0..40_000u32)
            .map(|_| (rng.next_u64().to_be_bytes().to_vec(), rng.next_u64().to_le_bytes().repeat(12)))
            .collect();
        objects.insert(b"\x80long".to_vec(), vec![7; 300_000]);
        objects
    }

    #[test]
    fn chunks_are_the_stream_however_its_lots_are_cut_and_none_is_too_long() {
        let mut rng = Rng::new(1);
        let objects = objects(&mut rng);
        let (one, other) = (lots(&objects, 5, &mut rng), lots(&objects, 5, &mut rng));
        assert_ne!(one, other);
        let all = chunks(&one);
        assert_eq!(all, chunks(&other));
        assert_eq!(all.concat(), one.concat());
        assert!(all.len() > 8, "{} chunks", all.len());
        assert!(all.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
    }

    #[test]
    fn a_key_that_comes_or_goes_changes_few_chunks() {
        let mut rng = Rng::new(2);
        let mut objects = objects(&mut rng);
        let before: std::collections::BTreeSet<Vec<u8>> =
            chunks(&lots(&objects, 5, &mut rng)).into_iter().collect();
        let gone = objects.keys().nth(20_000).unwrap().clone();
        objects.remove(&gone);
        objects.insert(b"\x01new".to_vec(), b"value".to_vec());
        let after = chunks(&lots(&objects, 6, &mut rng));
        let fresh = after.iter().filter(|chunk| !before.contains(*chunk)).count();
        // The frame, and around each of the two changes the chunk it is in and what follows until the cuts agree again.
        assert!((2..=9).contains(&fresh), "{fresh} of {} chunks are new", after.len());
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let mut none = |_: &[u8]| -> Result<(), DecodeError> { Ok(()) };
        assert!(Splitter::default().push(b"\x09", &mut none).is_err());
        assert!(Splitter::default().push(b"\x05\x01x", &mut none).is_err(), "a piece of nothing");
        let mut state = Vec::new();
        Item::State(&vec![0; stream::ITEM_BYTES_MAX]).encode(&mut state);
        assert_eq!(Splitter::default().push(&state, &mut none), Err(DecodeError::Overflow));
    }
}
