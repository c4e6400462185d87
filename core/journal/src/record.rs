//! The on-disk format: segment headers and record frames.
//!
//! A segment is a [`Header`] and then frames, each aligned to [`ALIGN_BYTES`], until a seal (the next
//! segment follows) or the end of the log. All integers are little-endian:
//!
//! ```text
//! frame  = crc u32 | length u32 | kind u8 | 0 u8 | semantics u16 | group u32 | payload | zeros to 8
//! entry      (kind 1): term u64 | index u64 | time u64 | body
//! hard state (kind 2): term u64 | vote u64 (0 = none)
//! mark       (kind 3): synced lsn u64
//! floor      (kind 4): index u64
//! seal       (kind 5): nothing
//! reset      (kind 6): index u64 | term u64
//! abandon    (kind 7): nothing
//! committed  (kind 8): index u64
//! ```
//!
//! `length` is the frame without its padding. The CRC-32 runs over the log's salt, the segment's id, the
//! frame's offset, and every byte after itself, padding included: what was written elsewhere, or in an
//! earlier life of a recycled file, or by another log, does not read back. The salt is drawn by the
//! host, so that a client cannot put frames into its values.

use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;

use kernel::codec::{DecodeError, Reader};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn, Micros, Term};

/// Frames begin at multiples of this.
pub const ALIGN_BYTES: usize = 8;
/// The part that every frame has.
pub const HEAD_BYTES: usize = 16;
/// A frame with an empty body: what an entry costs besides its body and up to 7 bytes of padding.
pub const ENTRY_BYTES: usize = HEAD_BYTES + 24;
/// A mark's frame.
pub const MARK_BYTES: usize = HEAD_BYTES + 8;
/// A seal's frame, for which every segment keeps room.
pub const SEAL_BYTES: usize = HEAD_BYTES;
/// A segment's header.
pub const HEADER_BYTES: usize = 64;
/// Longest body of one entry, in bytes.
pub const BODY_BYTES_MAX: usize = (1 << 30) - 4096;
/// The format written by this version, found in each segment's header.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"ARCHPLOG";
const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_MARK: u8 = 3;
const KIND_FLOOR: u8 = 4;
const KIND_SEAL: u8 = 5;
const KIND_RESET: u8 = 6;
const KIND_ABANDON: u8 = 7;
const KIND_COMMITTED: u8 = 8;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN_BYTES));
const _: () = assert!(HEAD_BYTES.is_multiple_of(ALIGN_BYTES));
const _: () = assert!(BODY_BYTES_MAX + ENTRY_BYTES + ALIGN_BYTES < u32::MAX as usize);

/// A segment's number: the first is 1, each next one is one more, none is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The first segment of a new log.
    pub const FIRST: SegmentId = SegmentId(1);

    /// The segment after this one.
    #[must_use]
    pub const fn next(self) -> SegmentId {
        SegmentId(self.0 + 1)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Drawn once for each log and kept in its headers; part of every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub u64);

/// What a group of replicas agreed on, or will, at one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The group whose log it is in.
    pub group: GroupId,
    /// The leader's term when it was proposed.
    pub term: Term,
    /// Its position in the group's log.
    pub index: Index,
    /// The version of `apply` that it is meant for.
    pub semantics: u16,
    /// The group's time when it was proposed.
    pub time: Micros,
    /// At most [`BODY_BYTES_MAX`] bytes, opaque here.
    pub body: &'a [u8],
}

/// What a group's member must remember before it answers: the last one written counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardState {
    /// The group.
    pub group: GroupId,
    /// The highest term this member has seen.
    pub term: Term,
    /// The member it voted for in that term, by its number in the group.
    pub vote: Option<NonZeroU64>,
}

/// What a user of the log appends and reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// One log entry of a group.
    Entry(Entry<'a>),
    /// A group's term and vote. Always synced at once, whatever durability is asked for.
    HardState(HardState),
    /// A group's entries begin anew behind a snapshot: those before this are void once the snapshot is installed, and
    /// those behind it if it never is. Always synced at once.
    Reset {
        /// The group.
        group: GroupId,
        /// The snapshot's index.
        index: Index,
        /// The term of the entry there.
        term: Term,
    },
    /// The group's last reset was not installed: what stood before it holds again, what stood behind it is void.
    Abandon {
        /// The group.
        group: GroupId,
    },
    /// The group's entries up to here, which stand before this, are committed.
    Committed {
        /// The group.
        group: GroupId,
        /// The last of them.
        index: Index,
    },
}

impl Record<'_> {
    /// The group it belongs to.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        match *self {
            Record::Entry(Entry { group, .. })
            | Record::HardState(HardState { group, .. })
            | Record::Reset { group, .. }
            | Record::Abandon { group }
            | Record::Committed { group, .. } => group,
        }
    }
}

/// A record, or one of the log's own notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A user's record.
    Record(Record<'a>),
    /// Everything before this position had been synced when it was written.
    Mark(Lsn),
    /// When a segment was opened: the group's entries up to `index` are in segments before it.
    Floor {
        /// The group.
        group: GroupId,
        /// Its last index before the segment.
        index: Index,
    },
    /// The segment ends here, the next one follows.
    Seal,
}

/// Why bytes are not a frame or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// All zeros: nothing was written here.
    Blank,
    /// The length is less than its kind needs, or more than is left of the segment.
    Length {
        /// The length that is written there.
        length: u32,
    },
    /// The checksum is another one: torn, damaged, or of another place or life.
    Checksum,
    /// A kind or field with a value that no version wrote.
    Unknown,
    /// A mark for bytes behind itself.
    Ahead {
        /// What it claims is synced.
        synced: Lsn,
    },
    /// Not a header of this segment of this log.
    Header,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Blank => f.write_str("nothing is written there"),
            Invalid::Length { length } => write!(f, "a length of {length} is impossible there"),
            Invalid::Checksum => f.write_str("the checksum does not match"),
            Invalid::Unknown => f.write_str("no version writes such a record"),
            Invalid::Ahead { synced } => write!(f, "a mark claims {synced}, which is behind it"),
            Invalid::Header => f.write_str("it is not this segment's header"),
        }
    }
}

impl From<DecodeError> for Invalid {
    fn from(_: DecodeError) -> Invalid {
        Invalid::Unknown
    }
}

/// The part of a checksum that all frames of one segment share.
#[derive(Clone, Copy, Debug)]
pub struct Seed(u32);

impl Seed {
    /// The seed of segment `id` of the log with `salt`.
    #[must_use]
    pub fn new(salt: Salt, id: SegmentId) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt.0.to_le_bytes());
        hasher.update(&id.0.to_le_bytes());
        Seed(hasher.finalize())
    }

    fn checksum(self, offset: u64, bytes: &[u8]) -> u32 {
        // A CRC is a bijection of its start for equal input: another offset, or another id, within 2^32
        // gives another sum for sure, not just probably.
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

impl<'a> Frame<'a> {
    /// The bytes it takes in a segment, padding included.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        padded(self.length())
    }

    const fn length(&self) -> usize {
        HEAD_BYTES
            + match self {
                Frame::Record(Record::Entry(entry)) => 24 + entry.body.len(),
                Frame::Record(Record::HardState(_) | Record::Reset { .. }) => 16,
                Frame::Mark(_) | Frame::Floor { .. } | Frame::Record(Record::Committed { .. }) => 8,
                Frame::Seal | Frame::Record(Record::Abandon { .. }) => 0,
            }
    }

    /// Kind, semantics and group.
    const fn head(&self) -> (u8, u16, GroupId) {
        match self {
            Frame::Record(Record::Entry(entry)) => (KIND_ENTRY, entry.semantics, entry.group),
            Frame::Record(Record::HardState(state)) => (KIND_HARD_STATE, 0, state.group),
            Frame::Record(Record::Reset { group, .. }) => (KIND_RESET, 0, *group),
            Frame::Record(Record::Abandon { group }) => (KIND_ABANDON, 0, *group),
            Frame::Record(Record::Committed { group, .. }) => (KIND_COMMITTED, 0, *group),
            Frame::Mark(_) => (KIND_MARK, 0, GroupId(0)),
            Frame::Floor { group, .. } => (KIND_FLOOR, 0, *group),
            Frame::Seal => (KIND_SEAL, 0, GroupId(0)),
        }
    }

    /// Appends the frame, as it must stand at `offset` of the segment with `seed`.
    pub fn encode(&self, seed: Seed, offset: u64, out: &mut Vec<u8>) {
        assert!(offset.is_multiple_of(ALIGN_BYTES as u64), "a frame begins at a multiple of 8");
        let from = out.len();
        let (kind, semantics, group) = self.head();
        let mut head = [0; HEAD_BYTES];
        head[4..8].copy_from_slice(&(self.length() as u32).to_le_bytes());
        head[8] = kind;
        head[10..12].copy_from_slice(&semantics.to_le_bytes());
        head[12..16].copy_from_slice(&group.0.to_le_bytes());
        out.extend_from_slice(&head);
        match self {
            Frame::Record(Record::Entry(entry)) => {
                assert!(entry.body.len() <= BODY_BYTES_MAX, "the size was checked before encoding");
                out.extend_from_slice(&entry.term.0.to_le_bytes());
                out.extend_from_slice(&entry.index.0.to_le_bytes());
                out.extend_from_slice(&entry.time.0.to_le_bytes());
                out.extend_from_slice(entry.body);
            }
            Frame::Record(Record::HardState(state)) => {
                out.extend_from_slice(&state.term.0.to_le_bytes());
                out.extend_from_slice(&state.vote.map_or(0, NonZeroU64::get).to_le_bytes());
            }
            Frame::Record(Record::Reset { index, term, .. }) => {
                out.extend_from_slice(&index.0.to_le_bytes());
                out.extend_from_slice(&term.0.to_le_bytes());
            }
            Frame::Mark(synced) => out.extend_from_slice(&synced.0.to_le_bytes()),
            Frame::Floor { index, .. } | Frame::Record(Record::Committed { index, .. }) => {
                out.extend_from_slice(&index.0.to_le_bytes());
            }
            Frame::Seal | Frame::Record(Record::Abandon { .. }) => {}
        }
        out.resize(from + self.bytes(), 0);
        let sum = seed.checksum(offset, &out[from + 4..]);
        out[from..from + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// The frame at the start of `bytes`, which begin at `offset` of the segment with `seed` and end
    /// where the segment does. Allocates nothing.
    ///
    /// # Errors
    /// What is wrong with it; [`Invalid::Blank`] if its head is zeros.
    pub fn decode(seed: Seed, offset: u64, bytes: &'a [u8]) -> Result<Frame<'a>, Invalid> {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
            let length = bytes.len() as u32;
            return Err(if is_blank(bytes) { Invalid::Blank } else { Invalid::Length { length } });
        };
        if head == &[0; HEAD_BYTES] {
            return Err(Invalid::Blank);
        }
        let mut reader = Reader::new(head);
        let (sum, length) = (reader.u32()?, reader.u32()?);
        let (kind, zero, semantics, group) = (reader.u8()?, reader.u8()?, reader.u16()?, reader.u32()?);
        if (length as usize) < HEAD_BYTES || padded(length as usize) > bytes.len() {
            return Err(Invalid::Length { length });
        }
        if seed.checksum(offset, &bytes[4..padded(length as usize)]) != sum && !is(Bug::SkipCrc) {
            return Err(Invalid::Checksum);
        }
        let mut payload = Reader::new(&bytes[HEAD_BYTES..length as usize]);
        let group = GroupId(group);
        let frame = match kind {
            KIND_ENTRY => Frame::Record(Record::Entry(Entry {
                group,
                term: Term(payload.u64()?),
                index: Index(payload.u64()?),
                semantics,
                time: Micros(payload.u64()?),
                body: payload.take(payload.rest().len())?,
            })),
            KIND_HARD_STATE => Frame::Record(Record::HardState(HardState {
                group,
                term: Term(payload.u64()?),
                vote: NonZeroU64::new(payload.u64()?),
            })),
            KIND_MARK => Frame::Mark(Lsn(payload.u64()?)),
            KIND_FLOOR => Frame::Floor { group, index: Index(payload.u64()?) },
            KIND_SEAL => Frame::Seal,
            KIND_RESET => {
                let (index, term) = (Index(payload.u64()?), Term(payload.u64()?));
                Frame::Record(Record::Reset { group, index, term })
            }
            KIND_ABANDON => Frame::Record(Record::Abandon { group }),
            KIND_COMMITTED => Frame::Record(Record::Committed { group, index: Index(payload.u64()?) }),
            _ => return Err(Invalid::Unknown),
        };
        // Whatever a valid checksum covers was written by us, so this is a version we do not know.
        if zero != 0 || !payload.is_empty() || (kind != KIND_ENTRY && semantics != 0) {
            return Err(Invalid::Unknown);
        }
        Ok(frame)
    }

    /// The bytes that the frame at the start of `bytes` says it takes, padding included, before anything of it is checked;
    /// `None` if there are fewer than [`HEAD_BYTES`].
    #[must_use]
    pub fn stated_bytes(bytes: &[u8]) -> Option<usize> {
        let length = bytes.get(..HEAD_BYTES)?[4..].first_chunk()?;
        Some(padded(u32::from_le_bytes(*length) as usize))
    }

    /// The mark at the start of `bytes`, if there is a valid one. Cheap where there is none.
    #[must_use]
    pub fn decode_mark(seed: Seed, offset: u64, bytes: &[u8]) -> Option<Lsn> {
        let bytes = bytes.get(..MARK_BYTES)?;
        if bytes[8] != KIND_MARK || bytes[4..8] != (MARK_BYTES as u32).to_le_bytes() {
            return None;
        }
        match Frame::decode(seed, offset, bytes) {
            Ok(Frame::Mark(synced)) => Some(synced),
            Ok(_) | Err(_) => None,
        }
    }
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The log's salt.
    pub salt: Salt,
    /// This segment.
    pub id: SegmentId,
    /// The log position of this segment's first byte.
    pub start: Lsn,
    /// The bytes that this segment has room for, header and seal included.
    pub capacity: u64,
    /// What was synced when the segment was opened, as in a mark.
    pub synced: Lsn,
}

impl Header {
    /// Appends the header's [`HEADER_BYTES`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let fields = [self.salt.0, self.id.0, self.start.0, self.capacity, self.synced.0];
        for (slot, field) in bytes[16..].chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        let sum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&bytes);
    }

    /// The header of segment `id` at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it. A version we do not know is [`Invalid::Unknown`].
    pub fn decode(id: SegmentId, bytes: &[u8]) -> Result<Header, Invalid> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(if is_blank(bytes) { Invalid::Blank } else { Invalid::Header });
        };
        if is_blank(bytes) {
            return Err(Invalid::Blank);
        }
        let mut reader = Reader::new(bytes);
        let (magic, version, sum) = (reader.array::<8>()?, reader.u32()?, reader.u32()?);
        if magic != MAGIC {
            return Err(Invalid::Header);
        }
        if sum != header_checksum(bytes) {
            return Err(Invalid::Checksum);
        }
        if version != FORMAT_VERSION {
            return Err(Invalid::Unknown);
        }
        let header = Header {
            salt: Salt(reader.u64()?),
            id: SegmentId(reader.u64()?),
            start: Lsn(reader.u64()?),
            capacity: reader.u64()?,
            synced: Lsn(reader.u64()?),
        };
        let room = header.capacity >= (HEADER_BYTES + SEAL_BYTES) as u64;
        let ends = header.start.0.checked_add(header.capacity).is_some() && id.0 < u64::MAX;
        let honest = header.synced <= header.start;
        if header.id == id && room && ends && honest { Ok(header) } else { Err(Invalid::Header) }
    }
}

fn header_checksum(bytes: &[u8; HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

/// True if every byte is zero.
#[must_use]
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGN_BYTES)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = (u8, u32, u64, u64, u64, u16, Vec<u8>)> {
        (1u8..=8, any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u16>(), any::<Vec<u8>>())
    }

    fn frame(parts: &(u8, u32, u64, u64, u64, u16, Vec<u8>)) -> Frame<'_> {
        let (kind, group, a, b, c, semantics, body) = parts;
        let group = GroupId(*group);
        match *kind {
            KIND_ENTRY => Frame::Record(Record::Entry(Entry {
                group,
                term: Term(*a),
                index: Index(*b),
                semantics: *semantics,
                time: Micros(*c),
                body,
            })),
            KIND_HARD_STATE => Frame::Record(Record::HardState(HardState {
                group,
                term: Term(*a),
                vote: NonZeroU64::new(*b),
            })),
            KIND_MARK => Frame::Mark(Lsn(*a)),
            KIND_FLOOR => Frame::Floor { group, index: Index(*a) },
            KIND_RESET => Frame::Record(Record::Reset { group, index: Index(*a), term: Term(*b) }),
            KIND_ABANDON => Frame::Record(Record::Abandon { group }),
            KIND_COMMITTED => Frame::Record(Record::Committed { group, index: Index(*a) }),
            _ => Frame::Seal,
        }
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_at_its_place_and_nowhere_else(
            parts in frames(), slot in 0u64..1 << 40, other in 1u64..1 << 20,
        ) {
            let (frame, offset) = (frame(&parts), slot * 8);
            let seed = Seed::new(Salt(9), SegmentId(3));
            let mut bytes = Vec::new();
            frame.encode(seed, offset, &mut bytes);
            prop_assert_eq!(bytes.len(), frame.bytes());
            prop_assert_eq!(Frame::decode(seed, offset, &bytes), Ok(frame));
            prop_assert_eq!(Frame::decode(seed, offset + 8 * other, &bytes), Err(Invalid::Checksum));
            let recycled = Seed::new(Salt(9), SegmentId(3 + other));
            prop_assert_eq!(Frame::decode(recycled, offset, &bytes), Err(Invalid::Checksum));
        }

        #[test]
        fn a_flipped_bit_is_seen(parts in frames(), at: prop::sample::Index, bit in 0u8..8) {
            let seed = Seed::new(Salt(9), SegmentId(3));
            let mut bytes = Vec::new();
            frame(&parts).encode(seed, 64, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Frame::decode(seed, 64, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>) {
            let seed = Seed::new(Salt(9), SegmentId(3));
            prop_assert!(Frame::decode(seed, 64, &bytes).is_err());
            prop_assert!(Header::decode(SegmentId(3), &bytes).is_err());
        }

        #[test]
        fn a_header_reads_back_and_a_flipped_bit_is_seen(at in 0usize..HEADER_BYTES, bit in 0u8..8) {
            let header = Header {
                salt: Salt(7), id: SegmentId(2), start: Lsn(4096), capacity: 1 << 26, synced: Lsn(4000),
            };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert_eq!(Header::decode(SegmentId(2), &bytes), Ok(header));
            prop_assert_eq!(Header::decode(SegmentId(3), &bytes), Err(Invalid::Header));
            bytes[at] ^= 1 << bit;
            prop_assert!(Header::decode(SegmentId(2), &bytes).is_err());
        }
    }

    #[test]
    fn an_impossible_header_is_refused_though_its_checksum_is_right() {
        let good =
            Header { salt: Salt(7), id: SegmentId(2), start: Lsn(64), capacity: 4096, synced: Lsn(64) };
        #[rustfmt::skip] // columns
        let table = [
            (good,                                                  Ok(good)),
            (Header { capacity: 79, ..good },                       Err(Invalid::Header)), // no room for a seal
            (Header { start: Lsn(u64::MAX - 4000), ..good },        Err(Invalid::Header)), // ends beyond all positions
            (Header { synced: Lsn(65), ..good },                    Err(Invalid::Header)), // synced what comes later
            (Header { id: SegmentId(1), ..good },                   Err(Invalid::Header)), // another segment's
        ];
        for (header, expected) in table {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            assert_eq!(Header::decode(SegmentId(2), &bytes), expected);
        }
    }

    #[test]
    fn a_kind_that_no_version_wrote_is_refused_though_its_checksum_is_right() {
        let seed = Seed::new(Salt(9), SegmentId(3));
        for kind in [0, KIND_COMMITTED + 1, u8::MAX] {
            let mut bytes = Vec::new();
            Frame::Record(Record::Abandon { group: GroupId(1) }).encode(seed, 64, &mut bytes);
            bytes[8] = kind;
            let sum = seed.checksum(64, &bytes[4..]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            assert_eq!(Frame::decode(seed, 64, &bytes), Err(Invalid::Unknown), "kind {kind}");
        }
    }

    #[test]
    fn zeros_are_blank_and_a_short_rest_is_judged() {
        let seed = Seed::new(Salt(9), SegmentId(3));
        #[rustfmt::skip] // columns
        let table = [
            (vec![0; 64], Invalid::Blank),
            (vec![0; 5],  Invalid::Blank),
            (vec![],      Invalid::Blank),
            (vec![1; 5],  Invalid::Length { length: 5 }),
            (vec![1; 64], Invalid::Length { length: 0x0101_0101 }),
        ];
        for (bytes, expected) in table {
            assert_eq!(Frame::decode(seed, 0, &bytes), Err(expected), "{bytes:?}");
        }
    }
}
