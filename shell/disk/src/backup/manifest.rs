//! What a backup consists of, as bytes: which partitions, at which entry, and where their chunks are.
//!
//! ```text
//! "ARCHMANI" | version u32 | number varint | begun at varint | cut until varint | skew ms varint | origin 16 bytes | cluster u8
//! keyspaces: count varint, each: id u16 | partitions u16 | mark u8 (0 or 1) | [moment ms varint]
//! groups: count varint, each: group u32 | index varint | term varint | leads u8 | bytes varint | checksum u64
//!         chunks: count varint, each: digest 32 bytes | data varint | offset varint | length varint
//!         history: time us varint | follows u8 | from varint | to varint | term varint | time us varint
//!                  | entries varint | bytes varint | CRC-32 u32
//!                  blocks: count varint, each: digest 32 bytes | offset varint | length varint
//! SHA-256 of all that is before it
//! ```
//!
//! Versions 1 and 2 are read too: both have no skew, marks and histories, and version 1 does not say until when it was cut.
//! Numbers are little-endian. Keyspaces and groups ascend. Every count is checked against what can follow before memory is
//! taken for it.

use kernel::codec::{DecodeError, Reader, put_varint};
use kernel::{GroupId, Index, KeyspaceId, Micros, Millis, Term};
use sha2::{Digest as _, Sha256};

use super::gather::BLOCK_BYTES_MAX;
use super::history::{Block, History};
use super::split::CHUNK_BYTES_MAX;

/// How a manifest begins.
pub const MAGIC: [u8; 8] = *b"ARCHMANI";
/// The version that is written.
pub const VERSION: u32 = 3;
/// The version before it, without histories, which is read too.
const WITHOUT_HISTORY: u32 = 2;
/// The first one, which is read too.
const FIRST: u32 = 1;
/// A longer file is not read: about a hundred million chunks.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 30;
/// Bytes of the digest at the end.
const DIGEST_BYTES: usize = 32;
/// The fewest bytes that a chunk's line takes.
const CHUNK_LINE_BYTES_MIN: usize = DIGEST_BYTES + 3;
/// The same of a block's.
const BLOCK_LINE_BYTES_MIN: usize = DIGEST_BYTES + 2;
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
    /// The moment, by the clock of who made the backup, at which all its partitions stood still together: the backup has what
    /// was acknowledged before, and nothing that was sent after. Nothing if each has its own moment.
    pub mark: Option<Millis>,
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
    /// What there is of its log; versions 1 and 2 have nothing of it.
    pub history: Option<History>,
}

impl Group {
    /// Objects in it.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.checksum >> 32
    }

    /// The entry at which it is restored: the last of its history, or that of the checkpoint.
    #[must_use]
    pub fn restores_to(&self) -> Index {
        self.history.as_ref().map_or(self.index, |history| history.to)
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
    /// How far clocks of nodes were found from that clock at most, in milliseconds. Versions 1 and 2 do not say.
    pub skew_ms: Option<u64>,
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
    /// The version of the format that says just this.
    fn version(&self) -> u32 {
        match (self.until, self.skew_ms) {
            (None, _) => FIRST,
            (Some(_), None) => WITHOUT_HISTORY,
            (Some(_), Some(_)) => VERSION,
        }
    }

    /// Its bytes, in the version that says just this.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let version = self.version();
        let mut out = MAGIC.to_vec();
        out.extend(version.to_le_bytes());
        put_varint(&mut out, self.number);
        put_varint(&mut out, self.at.0);
        let more = [self.until.map(|until| until.0), self.skew_ms.filter(|_| version == VERSION)];
        more.iter().flatten().for_each(|&number| put_varint(&mut out, number));
        out.extend(self.origin.id);
        out.push(u8::from(self.origin.is_cluster));
        put_varint(&mut out, self.keyspaces.len() as u64);
        for keyspace in &self.keyspaces {
            out.extend(keyspace.id.0.to_le_bytes());
            out.extend(keyspace.partitions.to_le_bytes());
            if version == VERSION {
                out.push(u8::from(keyspace.mark.is_some()));
                keyspace.mark.iter().for_each(|moment| put_varint(&mut out, moment.0));
            }
        }
        put_varint(&mut out, self.groups.len() as u64);
        self.groups.iter().for_each(|group| group.encode(version, &mut out));
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
        if !(FIRST..=VERSION).contains(&version) {
            return Err(Unreadable::Version(version));
        }
        let (content, digest) = bytes.split_last_chunk().ok_or(Unreadable::Invalid)?;
        if Digest::of(content) != Digest(*digest) {
            return Err(Unreadable::Damaged);
        }
        let mut reader = Reader::new(content.get(MAGIC.len() + 4..).ok_or(Unreadable::Invalid)?);
        let (number, at) = (reader.varint()?, Millis(reader.varint()?));
        let until = if version > FIRST { Some(Millis(reader.varint()?)) } else { None };
        let skew_ms = if version == VERSION { Some(reader.varint()?) } else { None };
        let origin = Origin { id: reader.array()?, is_cluster: flag(&mut reader)? };
        let mut keyspaces: Vec<Keyspace> = Vec::with_capacity(count(&mut reader, 4)?);
        for _ in 0..keyspaces.capacity() {
            let (id, partitions) = (KeyspaceId(reader.u16()?), reader.u16()?);
            let is_marked = version == VERSION && flag(&mut reader)?;
            let mark = if is_marked { Some(Millis(reader.varint()?)) } else { None };
            let keyspace = Keyspace { id, partitions, mark };
            let ascends = keyspaces.last().is_none_or(|last| last.id < keyspace.id);
            if !ascends || keyspace.partitions == 0 || mark.is_some_and(|mark| mark < at) {
                return Err(Unreadable::Invalid);
            }
            keyspaces.push(keyspace);
        }
        let groups = count(&mut reader, GROUP_BYTES_MIN)?;
        let groups =
            (0..groups).map(|_| Group::decode(version, &mut reader)).collect::<Result<Vec<Group>, _>>()?;
        let ascend = groups.windows(2).all(|pair| pair[0].group < pair[1].group);
        let known = |group: &Group| {
            let mut all = keyspaces.iter();
            all.any(|it| it.id == group.group.keyspace() && group.group.partition() < it.partitions)
        };
        let backwards = until.is_some_and(|until| until < at);
        if !reader.is_empty() || !ascend || !groups.iter().all(known) || number == 0 || backwards {
            return Err(Unreadable::Invalid);
        }
        Ok(Manifest { number, at, until, skew_ms, origin, keyspaces, groups })
    }
}

impl Group {
    fn encode(&self, version: u32, out: &mut Vec<u8>) {
        out.extend(self.group.0.to_le_bytes());
        put_varint(out, self.index.0);
        put_varint(out, self.term.0);
        out.push(u8::from(self.leads));
        put_varint(out, self.bytes);
        out.extend(self.checksum.to_le_bytes());
        put_varint(out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            out.extend(chunk.digest.0);
            put_varint(out, chunk.data);
            put_varint(out, chunk.offset);
            put_varint(out, u64::from(chunk.bytes));
        }
        assert_eq!(self.history.is_some(), version == VERSION, "this version has histories, and no other");
        self.history.iter().for_each(|history| history.encode(out));
    }

    fn decode(version: u32, reader: &mut Reader<'_>) -> Result<Group, Unreadable> {
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
        let history = if version == VERSION { Some(History::decode(reader)?) } else { None };
        if whole == bytes && history.iter().all(|history| history.is_sound(index)) {
            Ok(Group { group, index, term, leads, bytes, checksum, chunks, history })
        } else {
            Err(Unreadable::Invalid)
        }
    }
}

impl History {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.time.0);
        out.push(u8::from(self.follows));
        let numbers = [self.from.0, self.to.0, self.term.0, self.to_time.0, self.entries, self.bytes];
        numbers.iter().for_each(|&number| put_varint(out, number));
        out.extend(self.crc.to_le_bytes());
        put_varint(out, self.blocks.len() as u64);
        for block in &self.blocks {
            out.extend(block.digest.0);
            put_varint(out, block.offset);
            put_varint(out, u64::from(block.bytes));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<History, Unreadable> {
        let (time, follows) = (Micros(reader.varint()?), flag(reader)?);
        let (from, to, term) = (Index(reader.varint()?), Index(reader.varint()?), Term(reader.varint()?));
        let (to_time, entries, bytes) = (Micros(reader.varint()?), reader.varint()?, reader.varint()?);
        let crc = reader.u32()?;
        let mut blocks = Vec::with_capacity(count(reader, BLOCK_LINE_BYTES_MIN)?);
        for _ in 0..blocks.capacity() {
            let digest = Digest(reader.array()?);
            let (offset, bytes) = (reader.varint()?, reader.len()?);
            if bytes == 0 || bytes > BLOCK_BYTES_MAX {
                return Err(Unreadable::Invalid);
            }
            blocks.push(Block { digest, offset, bytes: bytes as u32 });
        }
        Ok(History { time, follows, from, to, term, to_time, entries, bytes, crc, blocks })
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

    /// A history with so many blocks.
    fn history(blocks: u8) -> History {
        let block = |n: u8| Block { digest: Digest([n; 32]), offset: u64::from(n) << 40, bytes: 1 << 20 };
        History {
            time: Micros(1_699_999_999_000_000),
            follows: true,
            from: Index((1 << 40) - 7),
            to: Index((1 << 40) + 9),
            term: Term(8),
            to_time: Micros(1_700_000_000_000_001),
            entries: 17,
            bytes: u64::from(blocks) << 20,
            crc: u32::MAX - 1,
            blocks: (0..blocks).map(block).collect(),
        }
    }

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
            history: Some(history(2)),
        };
        Manifest {
            number: 3,
            at: Millis(1_700_000_000_000),
            until: Some(Millis(1_700_000_000_001)),
            skew_ms: Some(3),
            origin: Origin { id: [5; 16], is_cluster: true },
            keyspaces: vec![
                Keyspace { id: KeyspaceId(0), partitions: 1, mark: None },
                Keyspace { id: KeyspaceId(9), partitions: 64, mark: Some(Millis(1_700_000_000_001)) },
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

    /// The same as an earlier version has it.
    fn earlier(version: u32) -> Manifest {
        let mut it = manifest();
        (it.skew_ms, it.until) = (None, it.until.filter(|_| version > FIRST));
        it.keyspaces.iter_mut().for_each(|keyspace| keyspace.mark = None);
        it.groups.iter_mut().for_each(|group| group.history = None);
        it
    }

    #[test]
    fn a_manifest_of_any_version_so_far_reads_back_and_no_flipped_bit_or_cut_passes() {
        let all =
            [(VERSION, manifest()), (WITHOUT_HISTORY, earlier(WITHOUT_HISTORY)), (FIRST, earlier(FIRST))];
        for (version, manifest) in all {
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
        fn of(manifest: &mut Manifest) -> &mut History {
            manifest.groups[0].history.as_mut().expect("it has one")
        }
        let changes: [Change; 19] = [
            |it| it.number = 0,
            |it| it.until = Some(Millis(it.at.0 - 1)),
            |it| it.keyspaces.reverse(),
            |it| it.keyspaces[0].partitions = 0,
            |it| it.groups.reverse(),
            |it| it.keyspaces[1].partitions = 63,
            |it| it.groups[0].chunks[0].bytes = 0,
            |it| it.groups[0].bytes += 1,
            |it| it.keyspaces[1].mark = Some(Millis(it.at.0 - 1)),
            |it| of(it).from = Index(of(it).to.0 + 1),
            |it| of(it).to = Index((1 << 40) - 1),
            |it| of(it).follows = false,
            |it| of(it).to_time = Micros(0),
            |it| of(it).from = of(it).to,
            |it| of(it).from = Index((1 << 40) + 1),
            |it| of(it).entries = 0,
            |it| of(it).bytes += 1,
            |it| of(it).blocks[0].bytes = 0,
            |it| of(it).blocks.truncate(1),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut it = manifest();
            change(&mut it);
            assert_eq!(Manifest::decode(&it.encode()), Err(Unreadable::Invalid), "row {row}");
        }
        let mut later = manifest().encode();
        later[8] = 4;
        assert_eq!(Manifest::decode(&later), Err(Unreadable::Version(4)));
        assert_eq!(Manifest::decode(b"PK\x03\x04 and so on"), Err(Unreadable::Foreign));
        // Counts that no bytes follow take no memory.
        let head = manifest().encode()[..12 + 1 + 6 + 6 + 1 + 17].to_vec();
        for huge in [vec![0xff; 9], [vec![0], vec![0xff; 8], vec![0x7f]].concat()] {
            assert!(Manifest::decode(&sealed([head.clone(), huge].concat())).is_err());
        }
    }
}
