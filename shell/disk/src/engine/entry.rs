//! The bytes of the engine's entries: keys, objects, chunks and marks.
//!
//! | entry | key | content |
//! |---|---|---|
//! | mark | `m` group | see [`Mark`] and [`Ledger`] |
//! | object | `o` group generation user-key | head, then the body or where its chunks are |
//! | chunk | `c` group generation body-number chunk-number | at most [`CHUNK_BYTES`] of a body |
//! | staging | `s` group | see [`super::stage::Staging`] |
//! | doomed | `x` group generation | the last of the generations, from that one on, that are to be swept |
//! | seal | `c` group generation number `FFFFFFFF` | nothing: it says that the chunks of a commit are there |
//!
//! Marks, objects, stagings and what is doomed are in one ordered space, chunks and seals in another. If damage leaves the two at
//! different commits, seal and mark tell.
//!
//! Numbers in keys are big-endian, so that they sort. Every value begins with a CRC-32 over its key and
//! its content, so an entry that turns up under another key is damage too.

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::limit::KEY_BYTES_MAX;
use kernel::{GroupId, Index, Term};

use super::{Ledger, Mark};

/// A body above the inline limit is cut into pieces of this size; the last may be shorter. Part of the format.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// The storage engine panics on keys of this length.
const ENGINE_KEY_BYTES_END: usize = 64 * 1024;
const PREFIX_BYTES: usize = 1 + 4 + 4;
const _: () = assert!(PREFIX_BYTES + KEY_BYTES_MAX < ENGINE_KEY_BYTES_END);

/// Bytes of the checksum before every content.
const CRC_BYTES: usize = 4;
/// A mark without a standing, which every version reads.
const MARK_VERSION: u8 = 1;
/// A mark with a standing before the state.
const MARK_VERSION_REPLICA: u8 = 2;
/// In the place of a chunk's number: above all chunks of the longest body.
const SEAL: u32 = u32::MAX;
const INLINE: u8 = 0;
const CHUNKED: u8 = 1;

/// The key of a group's mark.
pub fn mark_key(group: GroupId) -> [u8; 5] {
    let mut key = [b'm'; 5];
    key[1..].copy_from_slice(&group.0.to_be_bytes());
    key
}

/// The group of a mark's key, if it is one.
pub fn mark_group(key: &[u8]) -> Option<GroupId> {
    let number: [u8; 4] = key.strip_prefix(b"m")?.try_into().ok()?;
    Some(GroupId(u32::from_be_bytes(number)))
}

/// The key of a group's staged snapshot.
pub fn stage_key(group: GroupId) -> [u8; 5] {
    let mut key = mark_key(group);
    key[0] = b's';
    key
}

/// The group of a staged snapshot's key, if it is one.
pub fn stage_group(key: &[u8]) -> Option<GroupId> {
    let number: [u8; 4] = key.strip_prefix(b"s")?.try_into().ok()?;
    Some(GroupId(u32::from_be_bytes(number)))
}

/// The key of the note that the generations from `first` on are doomed.
pub fn doomed_key(group: GroupId, first: u32) -> [u8; PREFIX_BYTES] {
    prefix(b'x', group, first)
}

/// The group and first generation of a doomed key, if it is one.
pub fn doomed(key: &[u8]) -> Option<(GroupId, u32)> {
    let number: [u8; 8] = key.strip_prefix(b"x")?.try_into().ok()?;
    let number = u64::from_be_bytes(number);
    Some((GroupId((number >> 32) as u32), number as u32))
}

/// What is above every key that begins with [`prefix`] of the same.
pub fn beyond(kind: u8, group: GroupId, generation: u32) -> Vec<u8> {
    let number = u64::from(group.0) << 32 | u64::from(generation);
    match number.checked_add(1) {
        Some(next) => prefix(kind, GroupId((next >> 32) as u32), next as u32).to_vec(),
        None => vec![kind + 1],
    }
}

/// What every object (`b'o'`) or chunk (`b'c'`) of one generation begins with.
pub fn prefix(kind: u8, group: GroupId, generation: u32) -> [u8; PREFIX_BYTES] {
    let mut key = [kind; PREFIX_BYTES];
    key[1..5].copy_from_slice(&group.0.to_be_bytes());
    key[5..].copy_from_slice(&generation.to_be_bytes());
    key
}

/// Writes the key of an object into `out`, replacing what it held.
pub fn object_key(out: &mut Vec<u8>, group: GroupId, generation: u32, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&prefix(b'o', group, generation));
    out.extend_from_slice(key);
}

/// The user's key inside an object's key.
pub fn user_key(object_key: &[u8]) -> &[u8] {
    object_key.get(PREFIX_BYTES..).unwrap_or_default()
}

/// The key of chunk `number` of a body.
pub fn chunk_key(group: GroupId, generation: u32, body: u64, number: u32) -> [u8; PREFIX_BYTES + 12] {
    let mut key = [0; PREFIX_BYTES + 12];
    key[..PREFIX_BYTES].copy_from_slice(&prefix(b'c', group, generation));
    key[PREFIX_BYTES..PREFIX_BYTES + 8].copy_from_slice(&body.to_be_bytes());
    key[PREFIX_BYTES + 8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The key of the seal with `number`. It lies beside the chunks of its commit, so that tables of chunks that
/// were only ever added do not overlap.
pub fn seal_key(group: GroupId, generation: u32, number: u64) -> [u8; PREFIX_BYTES + 12] {
    chunk_key(group, generation, number, SEAL)
}

/// Replaces `out` by a value whose content `write` appends, and returns its checksum.
pub fn seal(out: &mut Vec<u8>, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> u32 {
    out.clear();
    out.extend_from_slice(&[0; CRC_BYTES]);
    write(out);
    let crc = checksum(key, &out[CRC_BYTES..]);
    out[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The checksum and content of a value, if they belong together and to `key`.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<(u32, &'a [u8])> {
    let (crc, content) = value.split_first_chunk::<CRC_BYTES>()?;
    let crc = u32::from_le_bytes(*crc);
    (crc == checksum(key, content)).then_some((crc, content))
}

/// The content of a value whose checksum was compared.
pub fn content(value: &[u8]) -> &[u8] {
    value.get(CRC_BYTES..).unwrap_or_default()
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

/// An object's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// The small part that is always loaded.
    pub head: &'a [u8],
    /// The rest, or where it is.
    pub body: Body<'a>,
}

/// Where the body of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// In the object's own entry.
    Inline(&'a [u8]),
    /// In chunks of its own.
    Chunked(Chunks),
}

/// A body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// The body's number, unique in its group.
    pub body: u64,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 of the whole body.
    pub crc: u32,
}

impl Chunks {
    /// How many chunks there are. A body is limited to 4 GiB, so the count fits.
    pub fn count(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(CHUNK_BYTES as u64)).unwrap_or(u32::MAX)
    }
}

/// Appends an object's content.
pub fn put_object(out: &mut Vec<u8>, object: &Object<'_>) {
    put_bytes(out, object.head);
    match object.body {
        Body::Inline(body) => {
            out.push(INLINE);
            out.extend_from_slice(body);
        }
        Body::Chunked(chunks) => {
            out.push(CHUNKED);
            put_varint(out, chunks.body);
            put_varint(out, chunks.bytes);
            out.extend_from_slice(&chunks.crc.to_le_bytes());
        }
    }
}

/// Reads an object's content.
pub fn read_object(content: &[u8]) -> Result<Object<'_>, DecodeError> {
    let mut reader = Reader::new(content);
    let head = reader.bytes()?;
    let body = match reader.u8()? {
        INLINE => Body::Inline(reader.rest()),
        CHUNKED => {
            Body::Chunked(Chunks { body: reader.varint()?, bytes: reader.varint()?, crc: reader.u32()? })
        }
        _ => return Err(DecodeError::Invalid),
    };
    Ok(Object { head, body })
}

/// Appends a mark's content.
pub fn put_mark(out: &mut Vec<u8>, ledger: &Ledger, standing: &[u8], state: &[u8]) {
    if standing.is_empty() {
        out.push(MARK_VERSION);
    } else {
        out.push(MARK_VERSION_REPLICA);
        put_bytes(out, standing);
    }
    put_varint(out, ledger.index.0);
    put_varint(out, ledger.term.0);
    put_varint(out, u64::from(ledger.generation));
    put_varint(out, u64::from(ledger.oldest));
    put_varint(out, ledger.objects);
    out.extend_from_slice(&ledger.digest.to_le_bytes());
    put_varint(out, ledger.next_body);
    put_varint(out, ledger.seals.len() as u64);
    let mut last = 0;
    for &seal in &ledger.seals {
        put_varint(out, seal.wrapping_sub(last));
        last = seal;
    }
    out.extend_from_slice(state);
}

/// Reads a mark's content: the engine's part, the replica's and the partition's.
pub fn read_mark(content: &[u8]) -> Result<(Ledger, &[u8], &[u8]), DecodeError> {
    let mut reader = Reader::new(content);
    let standing = match reader.u8()? {
        MARK_VERSION => &[],
        MARK_VERSION_REPLICA => reader.bytes()?,
        _ => return Err(DecodeError::Invalid),
    };
    let generation = |n: u64| u32::try_from(n).map_err(|_| DecodeError::Overflow);
    let mut ledger = Ledger {
        index: Index(reader.varint()?),
        term: Term(reader.varint()?),
        generation: generation(reader.varint()?)?,
        oldest: generation(reader.varint()?)?,
        objects: reader.varint()?,
        digest: reader.u64()?,
        next_body: reader.varint()?,
        seals: Vec::new(),
        cursor: Vec::new(),
    };
    let mut last = 0u64;
    for _ in 0..reader.varint()? {
        last = last.wrapping_add(reader.varint()?);
        ledger.seals.push(last);
    }
    Ok((ledger, standing, reader.rest()))
}

/// The mark a caller sees.
pub fn mark(ledger: &Ledger, standing: &[u8], state: &[u8]) -> Mark {
    Mark {
        index: ledger.index,
        term: ledger.term,
        generation: ledger.generation,
        objects: ledger.objects,
        standing: standing.to_vec(),
        state: state.to_vec(),
    }
}
