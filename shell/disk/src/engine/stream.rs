//! A checkpoint as a stream of bytes, from one node's engine to another's.
//!
//! ```text
//! begin  (1): index varint | term varint | objects varint | bytes of the state varint
//! state  (2): a piece of the state
//! object (3): key | head | body
//! long   (4): key | head | length of the body varint | CRC-32 of the body u32; its pieces follow
//! piece  (5): a piece of the body of the last long object
//! end    (6)
//! ```
//!
//! Keys ascend. Pieces are [`CHUNK_BYTES`] long but for the last. A key, head, body or piece is its length as a varint and
//! its bytes. What was read at once is whole items, so that each lot can be checked and kept by itself; the stream does
//! not depend on how it was cut. Its checksum is the CRC-32 of all its bytes, with the number of objects above it.

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

use super::entry::CHUNK_BYTES;
use super::{HEAD_BYTES_MAX, KEY_BYTES_MAX};

/// Most bytes that one item takes.
pub const ITEM_BYTES_MAX: usize = KEY_BYTES_MAX + HEAD_BYTES_MAX + CHUNK_BYTES + 64;

/// One item of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Begin(Begin),
    State(&'a [u8]),
    Object { key: &'a [u8], head: &'a [u8], body: &'a [u8] },
    Long { key: &'a [u8], head: &'a [u8], bytes: u64, crc: u32 },
    Piece(&'a [u8]),
    End,
}

/// What comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    pub index: u64,
    pub term: u64,
    pub objects: u64,
    pub state_bytes: u64,
}

impl Item<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Item::Begin(begin) => {
                out.push(1);
                [begin.index, begin.term, begin.objects, begin.state_bytes]
                    .iter()
                    .for_each(|&number| put_varint(out, number));
            }
            Item::State(piece) => {
                out.push(2);
                put_bytes(out, piece);
            }
            Item::Object { key, head, body } => {
                out.push(3);
                [key, head, body].iter().for_each(|part| put_bytes(out, part));
            }
            Item::Long { key, head, bytes, crc } => {
                out.push(4);
                put_bytes(out, key);
                put_bytes(out, head);
                put_varint(out, bytes);
                out.extend_from_slice(&crc.to_le_bytes());
            }
            Item::Piece(piece) => {
                out.push(5);
                put_bytes(out, piece);
            }
            Item::End => out.push(6),
        }
    }
}

/// The next item; its lengths are not checked against any limit.
pub fn decode<'a>(reader: &mut Reader<'a>) -> Result<Item<'a>, DecodeError> {
    Ok(match reader.u8()? {
        1 => Item::Begin(Begin {
            index: reader.varint()?,
            term: reader.varint()?,
            objects: reader.varint()?,
            state_bytes: reader.varint()?,
        }),
        2 => Item::State(reader.bytes()?),
        3 => Item::Object { key: reader.bytes()?, head: reader.bytes()?, body: reader.bytes()? },
        4 => Item::Long {
            key: reader.bytes()?,
            head: reader.bytes()?,
            bytes: reader.varint()?,
            crc: reader.u32()?,
        },
        5 => Item::Piece(reader.bytes()?),
        6 => Item::End,
        _ => return Err(DecodeError::Invalid),
    })
}

/// Where in the stream of one checkpoint a reader stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Before its beginning.
    Begin,
    /// Before this byte of the state.
    State(u64),
    /// Behind the object with this key.
    After(Vec<u8>),
    /// Before this piece of the body of the object with this key.
    Within(Vec<u8>, u32),
}

impl Cursor {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Cursor::Begin => {}
            Cursor::State(at) => {
                out.push(1);
                put_varint(&mut out, *at);
            }
            Cursor::After(key) => {
                out.push(2);
                out.extend_from_slice(key);
            }
            Cursor::Within(key, piece) => {
                out.push(3);
                put_varint(&mut out, u64::from(*piece));
                out.extend_from_slice(key);
            }
        }
        out
    }

    /// A cursor that a peer has sent back; one without bytes is the beginning.
    pub fn decode(bytes: &[u8]) -> Result<Cursor, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return Ok(Cursor::Begin);
        }
        let cursor = match reader.u8()? {
            1 => Cursor::State(reader.varint()?),
            2 => Cursor::After(reader.take(reader.rest().len())?.to_vec()),
            3 => {
                let piece = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Overflow)?;
                Cursor::Within(reader.take(reader.rest().len())?.to_vec(), piece)
            }
            _ => return Err(DecodeError::Invalid),
        };
        let long =
            matches!(&cursor, Cursor::After(key) | Cursor::Within(key, _) if key.len() > KEY_BYTES_MAX);
        if !reader.is_empty() || long { Err(DecodeError::Invalid) } else { Ok(cursor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_cursors_read_back_and_everything_shorter_is_refused() {
        let begin = Begin { index: 1 << 40, term: 3, objects: 0, state_bytes: 9 };
        let items = [
            Item::Begin(begin),
            Item::State(b"state"),
            Item::Object { key: b"k", head: b"", body: b"body" },
            Item::Long { key: b"k", head: b"h", bytes: u64::MAX, crc: 7 },
            Item::Piece(b"piece"),
            Item::End,
        ];
        for item in items {
            let mut bytes = Vec::new();
            item.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!((decode(&mut reader), reader.is_empty()), (Ok(item), true));
            for cut in 0..bytes.len() {
                assert!(decode(&mut Reader::new(&bytes[..cut])).is_err(), "{item:?} cut at {cut}");
            }
        }
        let key = vec![1; KEY_BYTES_MAX];
        for cursor in [Cursor::Begin, Cursor::State(7), Cursor::After(key.clone()), Cursor::Within(key, 9)] {
            assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
        for bytes in
            [&[0][..], &[1], &[1, 2, 3], &[3], &[4, 1], &[&[2][..], &[1; KEY_BYTES_MAX + 1]].concat()]
        {
            assert!(Cursor::decode(bytes).is_err(), "{:?}", &bytes[..bytes.len().min(4)]);
        }
    }
}
