//! What a backup reads of the log: the entries of some groups, in the order of the log, as a stream of bytes that is cut
//! anywhere.
//!
//! ```text
//! stream = { kind u8 | group u32 | .. }
//! entry         (kind 1): term varint | index varint | semantics u16 | time varint (us) | length varint | body
//! begun anew    (kind 2): nothing: what came before was another group's
//! not certain   (kind 3): index varint: behind this the group's entries here say nothing; 0 for all of them
//! ```
//!
//! Integers are little-endian. An entry takes the place of what came before at its index, and voids what was behind that:
//! the log has what was never committed, too. Who reads knows the term of the last entry that it wants, and believes what
//! leads there without a hole, by log matching (Raft, §5.3). A snapshot that takes the place of entries breaks that rule if it
//! is of a later index than the reader has, and one that was abandoned in any case: kind 3 says so, and another
//! replica's log is asked.
//!
//! Only what is synced is told: what a power cut takes may be written anew, differently, under the same term and index by a
//! node of its own.

use alloc::vec::Vec;

use kernel::codec::{Reader, put_varint};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn};
use thiserror::Error;

use crate::record::{
    ALIGN_BYTES, Entry, Frame, HEAD_BYTES, HEADER_BYTES, Header, Invalid, Record, Seed, SegmentId,
};
use crate::reserve::Positions;

/// An entry of a group.
pub const KIND_ENTRY: u8 = 1;
/// The group begins anew.
pub const KIND_BEGUN: u8 = 2;
/// What the log has of the group says nothing.
pub const KIND_UNCERTAIN: u8 = 3;

/// Most of the log that one passage looks at, in bytes, about: whoever reads it is answered in time.
pub const SCAN_BYTES_MAX: u64 = 128 << 20;
/// The usual part of a segment that is read at once.
pub const WINDOW_BYTES: usize = 4 << 20;

/// Where the next passage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// In this segment.
    pub segment: SegmentId,
    /// At this frame of it.
    pub offset: u64,
    /// So many bytes of what the stream says of that frame were told already.
    pub within: u64,
    /// The stream ends with this segment: the one that was written when it began.
    pub last: SegmentId,
}

impl Cursor {
    /// Its bytes.
    pub const BYTES: usize = 32;

    /// At the beginning of a segment.
    #[must_use]
    pub const fn begin(segment: SegmentId, last: SegmentId) -> Cursor {
        Cursor { segment, offset: HEADER_BYTES as u64, within: 0, last }
    }

    /// As a reader keeps it.
    #[must_use]
    pub fn encode(self) -> [u8; Cursor::BYTES] {
        let mut bytes = [0; Cursor::BYTES];
        let fields = [self.segment.0, self.offset, self.within, self.last.0];
        for (slot, field) in bytes.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// What a reader gave back; `None` if it is none of ours.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Cursor> {
        let mut reader = Reader::new(bytes);
        let segment = SegmentId(reader.u64().ok()?);
        let (offset, within) = (reader.u64().ok()?, reader.u64().ok()?);
        let last = SegmentId(reader.u64().ok()?);
        let in_bounds = segment <= last && last.0 < u64::MAX && offset >= HEADER_BYTES as u64;
        let sound = in_bounds && offset.is_multiple_of(ALIGN_BYTES as u64) && reader.is_empty();
        sound.then_some(Cursor { segment, offset, within, last })
    }
}

/// What the host does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hand in the cursor's segment from the cursor's offset on, at least so many bytes of it.
    Read {
        /// A whole frame, or the head of one.
        bytes: usize,
    },
    /// Go on with the cursor's segment, which is the next one now.
    Next,
    /// There is enough for now.
    Full,
    /// There is no more.
    End,
}

/// Why a passage breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// The reader's: there is nothing at its cursor.
    #[error("the cursor points into nothing")]
    Cursor,
    /// The world's: what was synced cannot be read.
    #[error("segment {segment} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// The byte of it.
        offset: u64,
        /// How.
        reason: Invalid,
    },
}

/// A part of the stream that is being made.
#[derive(Debug)]
pub struct Passage<'a> {
    wanted: &'a Positions,
    cursor: Cursor,
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Bytes of the log that were looked at.
    scanned: u64,
    /// What the stream says of a frame before its body.
    head: Vec<u8>,
}

impl<'a> Passage<'a> {
    /// The part from `cursor` on, of at most `bytes_max` bytes: of each group that is `wanted`, what is behind its position.
    ///
    /// # Panics
    /// If `bytes_max` is 0: then there would be no end.
    #[must_use]
    pub fn new(wanted: &'a Positions, cursor: Cursor, bytes_max: usize) -> Passage<'a> {
        assert!(bytes_max > 0, "a part has room for something");
        Passage { wanted, cursor, bytes: Vec::new(), bytes_max, scanned: 0, head: Vec::new() }
    }

    /// What the host is to read, and where the next part begins.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The part.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes a window of the cursor's segment that begins at the cursor's offset. The log is synced up to `synced`.
    ///
    /// O(window), one CRC over it; copies the entries that are wanted.
    ///
    /// # Errors
    /// [`Broken`]; what was taken before is of no use either.
    pub fn read(&mut self, header: &Header, window: &[u8], synced: Lsn) -> Result<Step, Broken> {
        let (seed, begin) = (Seed::new(header.salt, header.id), self.cursor.offset);
        loop {
            if self.bytes.len() >= self.bytes_max || self.scanned >= SCAN_BYTES_MAX {
                return Ok(Step::Full);
            }
            let offset = self.cursor.offset;
            let durable = synced.0.saturating_sub(header.start.0).min(header.capacity);
            let limit = if is(Bug::UnsyncedArchived) { header.capacity } else { durable };
            if offset >= limit {
                return self.run_out(header, limit);
            }
            let damaged = |reason| Broken::Damaged { segment: header.id, offset, reason };
            let rest = window.get((offset - begin) as usize..).unwrap_or_default();
            let left = usize::try_from(limit - offset).unwrap_or(usize::MAX);
            let Some(bytes) = Frame::stated_bytes(rest) else {
                if left < HEAD_BYTES {
                    return Err(damaged(Invalid::Length { length: left as u32 }));
                }
                return Ok(Step::Read { bytes: HEAD_BYTES });
            };
            // What is synced ends with a frame.
            if bytes > left {
                return Err(damaged(Invalid::Length { length: bytes as u32 }));
            }
            if bytes > rest.len() {
                return Ok(Step::Read { bytes });
            }
            let frame = match Frame::decode(seed, offset, &rest[..bytes.max(HEAD_BYTES)]) {
                Ok(frame) => frame,
                Err(Invalid::Blank) if is(Bug::UnsyncedArchived) => return Ok(Step::End),
                Err(reason) => return Err(damaged(reason)),
            };
            if !self.take(&frame)? {
                return Ok(Step::Full);
            }
            if frame != Frame::Seal {
                self.cursor.offset += frame.bytes() as u64;
                self.scanned += frame.bytes() as u64;
                continue;
            }
            if header.id >= self.cursor.last {
                return Ok(Step::End);
            }
            self.cursor = Cursor::begin(header.id.next(), self.cursor.last);
            return Ok(Step::Next);
        }
    }

    /// What is synced ends at the cursor, or before it. It is where the log is written: another segment has a seal first.
    fn run_out(&self, header: &Header, limit: u64) -> Result<Step, Broken> {
        let Cursor { offset, within, .. } = self.cursor;
        if within > 0 || offset > limit.max(HEADER_BYTES as u64) {
            return Err(Broken::Cursor);
        }
        if limit >= header.capacity {
            return Err(Broken::Damaged { segment: header.id, offset, reason: Invalid::Blank });
        }
        Ok(Step::End)
    }

    /// Tells what a reader must know of `frame`; false if that does not fit as a whole.
    fn take(&mut self, frame: &Frame<'_>) -> Result<bool, Broken> {
        let (head, mut body): (_, &[u8]) = (&mut self.head, &[]);
        head.clear();
        if let Frame::Record(record) = frame
            && let Some(&after) = self.wanted.get(&record.group())
        {
            match *record {
                Record::Entry(entry) if entry.index > after => {
                    put_entry(head, &entry);
                    body = entry.body;
                }
                // The group begins here, and that is never taken back.
                Record::Reset { group, index: Index(0..=1), .. } => put_head(head, KIND_BEGUN, group),
                Record::Reset { group, index, .. } if index > after => put_uncertain(head, group, index),
                Record::Abandon { group } => put_uncertain(head, group, Index(0)),
                Record::Entry(_) | Record::Reset { .. } | Record::HardState(_) | Record::Committed { .. } => {
                }
            }
        }
        let length = head.len() + body.len();
        let from = usize::try_from(self.cursor.within).ok();
        let from = from.filter(|from| *from < length || *from == 0).ok_or(Broken::Cursor)?;
        let room = (length - from).min(self.bytes_max - self.bytes.len());
        let (told, to) = (head.len(), from + room);
        self.bytes.extend_from_slice(&head[from.min(told)..to.min(told)]);
        self.bytes.extend_from_slice(&body[from.saturating_sub(told)..to.saturating_sub(told)]);
        if to < length {
            self.cursor.within = to as u64;
            return Ok(false);
        }
        self.cursor.within = 0;
        Ok(true)
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, group: GroupId) {
    out.push(kind);
    out.extend_from_slice(&group.0.to_le_bytes());
}

fn put_uncertain(out: &mut Vec<u8>, group: GroupId, index: Index) {
    put_head(out, KIND_UNCERTAIN, group);
    put_varint(out, index.0);
}

/// All of it but the body.
fn put_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    put_head(out, KIND_ENTRY, entry.group);
    put_varint(out, entry.term.0);
    put_varint(out, entry.index.0);
    out.extend_from_slice(&entry.semantics.to_le_bytes());
    put_varint(out, entry.time.0);
    put_varint(out, entry.body.len() as u64);
}
