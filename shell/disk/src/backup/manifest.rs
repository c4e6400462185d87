//! What a backup consists of, as bytes: which partitions, at which entry, and where their chunks are.
//!
//! ```text
//! "ARCHMANI" | version u32 | number varint | begun at varint | cut until varint | origin 16 bytes | cluster u8
//! keyspaces: count varint, each: id u16 | partitions u16
//! groups: count varint, each: group u32 | index varint | term varint | leads u8 | bytes varint | checksum u64
//!         chunks: count varint, each: digest 32 bytes | data varint | offset varint | length varint
//! SHA-256 of all that is before it
//! ```
//!
//! Version 1 does not say until when it was cut, and is read too. Numbers are little-endian. Keyspaces and groups ascend.
//! Every count is checked against what can follow before memory is taken for it.

use kernel::codec::{DecodeError, Reader, put_varint};
use kernel::{GroupId, Index, KeyspaceId, Millis, Term};
use sha2::{Digest as _, Sha256};

use super::split::CHUNK_BYTES_MAX;

/// How a manifest begins.
pub const MAGIC: [u8; 8] = *b"ARCHMANI";
/// The version that is written.
pub const VERSION: u32 = 2;
/// The one before it, which is read too.
const BEFORE: u32 = 1;
/// A longer file is not read: about a hundred million chunks.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 30;
/// Bytes of the digest at the end.
const DIGEST_BYTES: usize = 32;
/// The fewest bytes that a chunk's line takes.
const CHUNK_LINE_BYTES_MIN: usize = DIGEST_BYTES + 3;
/// The same of a group.
const GROUP_BYTES_MIN: usize = 4 + 1 + 1 + 1 + 1 + 8 + 1;

/// SHA-256 of a chunk: the same digest is the same chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What it is.
    pub digest: Digest,
    /// The number of the data file.
    pub data: u64,
    /// The byte of that file at which its frame begins.
    pub offset: u64,
    /// Its bytes, the frame's head not counted; at most [`CHUNK_BYTES_MAX`].
    pub bytes: u32,
}

/// Whose data it is: a cluster's, or that of a node that is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Names it.
    pub id: [u8; 16],
    /// Whether that is a cluster.
    pub is_cluster: bool,
}

/// A keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// Its number.
    pub id: KeyspaceId,
    /// Into how many partitions it is divided.
    pub partitions: u16,
}

/// A partition at one entry: everything up to it and nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub group: GroupId,
    /// The entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Whether the copy was that of who led it: then it has all that was acknowledged when the backup began.
    pub leads: bool,
    /// Bytes of its stream.
    pub bytes: u64,
    /// The stream's checksum: the number of its objects, above its CRC-32.
    pub checksum: u64,
    /// The stream, in order.
    pub chunks: Vec<Chunk>,
}

impl Group {
    /// Objects in it.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.checksum >> 32
    }
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its number in its directory, from 1.
    pub number: u64,
    /// When it was begun, by the clock of who made it: what was acknowledged before that is in it, as far as it is from
    /// leaders.
    pub at: Millis,
    /// When the last of its partitions was cut, by the same clock: what was written after that is not in it. Version 1 does
    /// not say.
    pub until: Option<Millis>,
    /// Whose it is.
    pub origin: Origin,
    /// The keyspaces.
    pub keyspaces: Vec<Keyspace>,
    /// The partitions that have anything.
    pub groups: Vec<Group>,
}

/// Why bytes are no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They do not begin as one.
    Foreign,
    /// They are of this version.
    Version(u32),
    /// The digest is not that of what is before it.
    Damaged,
    /// They break off, or say what cannot be.
    Invalid,
}

impl From<DecodeError> for Unreadable {
    fn from(_: DecodeError) -> Unreadable {
        Unreadable::Invalid
    }
}

impl Manifest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(if self.until.is_some() { VERSION } else { BEFORE }.to_le_bytes());
        put_varint(&mut out, self.number);
        put_varint(&mut out, self.at.0);
        self.until.iter().for_each(|until| put_varint(&mut out, until.0));
        out.extend(self.origin.id);
        out.push(u8::from(self.origin.is_cluster));
        put_varint(&mut out, self.keyspaces.len() as u64);
        for keyspace in &self.keyspaces {
            out.extend(keyspace.id.0.to_le_bytes());
            out.extend(keyspace.partitions.to_le_bytes());
        }
        put_varint(&mut out, self.groups.len() as u64);
        for group in &self.groups {
            out.extend(group.group.0.to_le_bytes());
            put_varint(&mut out, group.index.0);
            put_varint(&mut out, group.term.0);
            out.push(u8::from(group.leads));
            put_varint(&mut out, group.bytes);
            out.extend(group.checksum.to_le_bytes());
            put_varint(&mut out, group.chunks.len() as u64);
            for chunk in &group.chunks {
                out.extend(chunk.digest.0);
                put_varint(&mut out, chunk.data);
                put_varint(&mut out, chunk.offset);
                put_varint(&mut out, u64::from(chunk.bytes));
            }
        }
        let digest = Digest::of(&out);
        out.extend(digest.0);
        out
    }

    /// Reads what [`Manifest::encode`] wrote.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn decode(bytes: &[u8]) -> Result<Manifest, Unreadable> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Unreadable::Foreign)?;
        let (version, _) = rest.split_first_chunk().ok_or(Unreadable::Invalid)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION && version != BEFORE {
            return Err(Unreadable::Version(version));
        }
        let (content, digest) = bytes.split_last_chunk().ok_or(Unreadable::Invalid)?;
        if Digest::of(content) != Digest(*digest) {
            return Err(Unreadable::Damaged);
        }
        let mut reader = Reader::new(content.get(MAGIC.len() + 4..).ok_or(Unreadable::Invalid)?);
        let (number, at) = (reader.varint()?, Millis(reader.varint()?));
        let until = if version == VERSION { Some(Millis(reader.varint()?)) } else { None };
        let origin = Origin { id: reader.array()?, is_cluster: flag(&mut reader)? };
        let mut keyspaces: Vec<Keyspace> = Vec::with_capacity(count(&mut reader, 4)?);
        for _ in 0..keyspaces.capacity() {
            let keyspace = Keyspace { id: KeyspaceId(reader.u16()?), partitions: reader.u16()? };
            let ascends = keyspaces.last().is_none_or(|last| last.id < keyspace.id);
            if !ascends || keyspace.partitions == 0 {
                return Err(Unreadable::Invalid);
            }
            keyspaces.push(keyspace);
        }
        let groups = count(&mut reader, GROUP_BYTES_MIN)?;
        let groups = (0..groups).map(|_| Group::decode(&mut reader)).collect::<Result<Vec<Group>, _>>()?;
        let ascend = groups.windows(2).all(|pair| pair[0].group < pair[1].group);
        let known = |group: &Group| {
            let mut all = keyspaces.iter();
            all.any(|it| it.id == group.group.keyspace() && group.group.partition() < it.partitions)
        };
        let backwards = until.is_some_and(|until| until < at);
        if !reader.is_empty() || !ascend || !groups.iter().all(known) || number == 0 || backwards {
            return Err(Unreadable::Invalid);
        }
        Ok(Manifest { number, at, until, origin, keyspaces, groups })
    }
}

impl Group {
    fn decode(reader: &mut Reader<'_>) -> Result<Group, Unreadable> {
        let group = GroupId(reader.u32()?);
        let (index, term) = (Index(reader.varint()?), Term(reader.varint()?));
        let (leads, bytes, checksum) = (flag(reader)?, reader.varint()?, reader.u64()?);
        let mut chunks = Vec::with_capacity(count(reader, CHUNK_LINE_BYTES_MIN)?);
        for _ in 0..chunks.capacity() {
            let digest = Digest(reader.array()?);
            let (data, offset, bytes) = (reader.varint()?, reader.varint()?, reader.len()?);
            if bytes == 0 || bytes > CHUNK_BYTES_MAX {
                return Err(Unreadable::Invalid);
            }
            chunks.push(Chunk { digest, data, offset, bytes: bytes as u32 });
        }
        let whole: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        if whole == bytes {
            Ok(Group { group, index, term, leads, bytes, checksum, chunks })
        } else {
            Err(Unreadable::Invalid)
        }
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Unreadable> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Unreadable::Invalid),
    }
}

/// A count of things that take at least so many bytes each: no more than there can be.
fn count(reader: &mut Reader<'_>, bytes_each: usize) -> Result<usize, Unreadable> {
    let count = reader.len()?;
    if count > reader.rest().len() / bytes_each { Err(Unreadable::Invalid) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn manifest() -> Manifest {
        let chunk =
            |n: u8, bytes| Chunk { digest: Digest([n; 32]), data: 3, offset: u64::from(n) << 33, bytes };
        let group = |group, chunks: Vec<Chunk>| Group {
            group,
            index: Index(1 << 40),
            term: Term(7),
            leads: true,
            bytes: chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum(),
            checksum: u64::MAX - 1,
            chunks,
        };
        Manifest {
            number: 3,
            at: Millis(1_700_000_000_000),
            until: Some(Millis(1_700_000_000_001)),
            origin: Origin { id: [5; 16], is_cluster: true },
            keyspaces: vec![
                Keyspace { id: KeyspaceId(0), partitions: 1 },
                Keyspace { id: KeyspaceId(9), partitions: 64 },
            ],
            groups: vec![
                group(GroupId::new(KeyspaceId(0), 0), vec![chunk(1, 100), chunk(2, CHUNK_BYTES_MAX as u32)]),
                group(GroupId::new(KeyspaceId(9), 63), vec![]),
            ],
        }
    }

    /// The bytes with a digest that fits them.
    fn sealed(mut content: Vec<u8>) -> Vec<u8> {
        let digest = Digest::of(&content);
        content.extend(digest.0);
        content
    }

    #[test]
    fn a_manifest_of_this_version_or_the_one_before_reads_back_and_no_flipped_bit_or_cut_passes() {
        for (version, until) in [(VERSION, manifest().until), (BEFORE, None)] {
            let manifest = Manifest { until, ..manifest() };
            let good = manifest.encode();
            assert_eq!(good[8..12], version.to_le_bytes());
            assert_eq!(Manifest::decode(&good), Ok(manifest));
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
            }
            for end in 0..good.len() {
                assert!(Manifest::decode(&good[..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_although_its_digest_fits() {
        type Change = fn(&mut Manifest);
        let changes: [Change; 8] = [
            |it| it.number = 0,
            |it| it.until = Some(Millis(it.at.0 - 1)),
            |it| it.keyspaces.reverse(),
            |it| it.keyspaces[0].partitions = 0,
            |it| it.groups.reverse(),
            |it| it.keyspaces[1].partitions = 63,
            |it| it.groups[0].chunks[0].bytes = 0,
            |it| it.groups[0].bytes += 1,
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut it = manifest();
            change(&mut it);
            assert_eq!(Manifest::decode(&it.encode()), Err(Unreadable::Invalid), "row {row}");
        }
        let mut later = manifest().encode();
        later[8] = 3;
        assert_eq!(Manifest::decode(&later), Err(Unreadable::Version(3)));
        assert_eq!(Manifest::decode(b"PK\x03\x04 and so on"), Err(Unreadable::Foreign));
        // Counts that no bytes follow take no memory.
        let head = manifest().encode()[..12 + 1 + 6 + 6 + 17].to_vec();
        for huge in [vec![0xff; 9], [vec![0], vec![0xff; 8], vec![0x7f]].concat()] {
            assert!(Manifest::decode(&sealed([head.clone(), huge].concat())).is_err());
        }
    }
}
