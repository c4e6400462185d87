//! The recovery scan: reads the log back after a crash and tells a torn tail from damage.
//!
//! The host feeds the segments' bytes, oldest first. Records are handed out in order up to the first
//! place that is not a frame. What follows that place is then searched for a mark: one that says "synced"
//! beyond it proves that durable bytes were damaged, and the log is refused with the place named; without
//! one they were never promised to anybody, and the log is cut there. Bytes of a newer version are never
//! cut.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn};
use thiserror::Error;

use crate::commit::{Active, Carry, State};
use crate::record::{
    ALIGN_BYTES, Frame, HEADER_BYTES, Header, Invalid, Record, SEAL_BYTES, Salt, Seed, SegmentId,
};
use crate::truncate::Truncate;

/// Why the log must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Durable bytes were damaged, or a newer version wrote them.
    #[error(
        "segment {segment} is corrupt at byte {offset} (log position {lsn}): {reason}, yet the log was synced \
         up to {synced}"
    )]
    Corruption {
        /// The segment.
        segment: SegmentId,
        /// The byte of the segment at which the damaged frame begins.
        offset: u64,
        /// The same place as log position.
        lsn: Lsn,
        /// What is wrong there.
        reason: Invalid,
        /// The highest synced position that the log states so far.
        synced: Lsn,
    },
    /// A segment is not there although a later one is, or although the one before it was sealed.
    #[error("segment {segment} is missing")]
    Missing {
        /// The segment.
        segment: SegmentId,
    },
}

/// Where the log was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub segment: SegmentId,
    /// The byte of the segment behind the last good frame. If there are only copies before it, the segment goes as a whole.
    pub offset: u64,
    /// What stood there.
    pub reason: Invalid,
}

/// What a scan found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where to go on, once the host has cleaned up and synced every segment.
    pub state: State,
    /// `None` if the log ends in zeros.
    pub torn: Option<Torn>,
    /// Must be zeroed in the active segment, durably, before the first append: a stale frame may
    /// otherwise line up behind a new one.
    pub wipe: Option<Range<u64>>,
    /// Segments behind the end, newest last. Must be removed, newest first, before the first append;
    /// but if there is no active segment the first of them is `state.next` and must be zeroed instead.
    pub discard: Vec<SegmentId>,
    /// For each group whose older entries are no longer in the log, the last index that is gone and was not replaced
    /// by what is left: its state must hold at least that.
    pub floors: BTreeMap<GroupId, Index>,
}

impl Recovered {
    /// True if the log itself says that everything in it was synced: nothing can be missing at its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.torn.is_none() && self.state.marked >= self.state.content
    }
}

/// The scan. Feed it with [`Recover::segment`], then [`Recover::finish`].
#[derive(Debug, Default)]
pub struct Recover {
    stage: Stage,
    salt: Option<Salt>,
    marked: Lsn,
    content: Lsn,
    carry: Carry,
    truncate: Truncate,
    floors: BTreeMap<GroupId, Index>,
    wipe: Option<Range<u64>>,
    discard: Vec<SegmentId>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// No segment has been seen.
    #[default]
    Start,
    /// This segment must follow and start there.
    Sealed(SegmentId, Lsn),
    /// The log ends here; what follows is only searched for marks.
    Stopped(Stop),
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    segment: SegmentId,
    start: Lsn,
    offset: u64,
    /// 0 if the segment has no valid header.
    capacity: u64,
    /// What is not a frame stands there, in the segment; not before `offset`.
    torn: u64,
    reason: Invalid,
}

impl Stop {
    fn lsn(&self) -> Lsn {
        Lsn(self.start.0 + self.offset)
    }
}

impl Recover {
    /// A scan that has seen nothing.
    #[must_use]
    pub fn new() -> Recover {
        Recover::default()
    }

    /// Reads the next segment, whole, and hands its records to `visit` with their positions.
    ///
    /// A segment's opening copies of terms and votes are handed out too, so a [`crate::HardState`] may
    /// come more than once; the last one of a group counts.
    ///
    /// O(bytes), one CRC over them; the records borrow from `bytes`.
    ///
    /// # Errors
    /// [`Refusal`]: the log must not be used, and the records seen so far neither.
    pub fn segment<'a>(
        &mut self,
        id: SegmentId,
        bytes: &'a [u8],
        visit: &mut dyn FnMut(Lsn, Record<'a>),
    ) -> Result<(), Refusal> {
        let header = Header::decode(id, bytes);
        match self.stage {
            Stage::Start => match header {
                Ok(header) => {
                    self.salt = Some(header.salt);
                    self.read(&header, bytes, visit)
                }
                // The first segment gets its name only when its header is durable.
                Err(reason) => Err(Refusal::Corruption {
                    segment: id,
                    offset: 0,
                    lsn: Lsn(0),
                    reason,
                    synced: self.marked,
                }),
            },
            Stage::Sealed(next, lsn) => {
                if id != next {
                    return Err(Refusal::Missing { segment: next });
                }
                let ours = |header: Header| Some(header.salt) == self.salt && header.start == lsn;
                let reason = match header {
                    Ok(header) if ours(header) => return self.read(&header, bytes, visit),
                    Ok(_) => Invalid::Header,
                    Err(reason) => reason,
                };
                self.discard.push(id);
                self.stop(Stop { segment: id, start: lsn, offset: 0, capacity: 0, torn: 0, reason }, bytes)
            }
            Stage::Stopped(stop) => {
                self.discard.push(id);
                match header {
                    Ok(header) if Some(header.salt) == self.salt => {
                        self.judge(&stop, header.synced)?;
                    }
                    Ok(_) | Err(_) => {}
                }
                self.search(&stop, id, bytes, 0)
            }
        }
    }

    /// Ends the scan. `None` if there was no segment at all.
    ///
    /// # Errors
    /// [`Refusal::Missing`] if the last segment was sealed: a segment is prepared before that.
    pub fn finish(self) -> Result<Option<Recovered>, Refusal> {
        let stop = match self.stage {
            Stage::Start => return Ok(None),
            Stage::Sealed(segment, _) => return Err(Refusal::Missing { segment }),
            Stage::Stopped(stop) => stop,
        };
        let Stop { segment: id, start, offset, capacity, torn, reason } = stop;
        let active = (offset > 0).then_some(Active { id, start, offset, capacity });
        let state = State {
            salt: self.salt.expect("a stopped scan has read a header"),
            active,
            next: if active.is_some() { id.next() } else { id },
            end: stop.lsn(),
            marked: self.marked,
            content: self.content,
            carry: self.carry,
            truncate: self.truncate,
        };
        let torn = (reason != Invalid::Blank).then_some(Torn { segment: id, offset: torn, reason });
        let (wipe, discard, floors) = (self.wipe, self.discard, self.floors);
        Ok(Some(Recovered { state, torn, wipe, discard, floors }))
    }

    /// Reads the frames of a segment with a good header.
    fn read<'a>(
        &mut self,
        header: &Header,
        bytes: &'a [u8],
        visit: &mut dyn FnMut(Lsn, Record<'a>),
    ) -> Result<(), Refusal> {
        let &Header { salt, id, start, capacity, synced } = header;
        let bytes = &bytes[..bytes.len().min(usize::try_from(capacity).unwrap_or(usize::MAX))];
        let seed = Seed::new(salt, id);
        let first = matches!(self.stage, Stage::Start);
        self.marked = self.marked.max(synced);
        // The host syncs all it recovered before it goes on, so the copies need no further wait.
        self.truncate.open(id, capacity, start);
        let (mut offset, mut repeats) = (HEADER_BYTES as u64, true);
        loop {
            let lsn = Lsn(start.0 + offset);
            let frame = match Frame::decode(seed, offset, &bytes[offset as usize..]) {
                Ok(Frame::Mark(synced)) if synced > lsn => Err(Invalid::Ahead { synced }),
                other => other,
            };
            match frame {
                Ok(Frame::Seal) => {
                    self.stage = Stage::Sealed(id.next(), Lsn(lsn.0 + SEAL_BYTES as u64));
                    return Ok(());
                }
                Ok(frame) => {
                    repeats = repeats && self.carry.repeats(&frame);
                    self.take(first, lsn, &frame);
                    offset += frame.bytes() as u64;
                    if let Frame::Record(record) = frame {
                        visit(lsn, record);
                    }
                }
                Err(reason) => {
                    let stop = Stop { segment: id, start, offset, capacity, torn: offset, reason };
                    self.stop(stop, bytes)?;
                    if repeats && !first {
                        self.undo(stop);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The last segment has nothing but copies, of which some may be missing: as if it had not been opened. To go on
    /// behind them would let the segments before it go, and what was to be copied with them.
    fn undo(&mut self, stop: Stop) {
        self.stage = Stage::Stopped(Stop { offset: 0, capacity: 0, ..stop });
        self.truncate.withdraw();
        self.discard.push(stop.segment);
        self.wipe = None;
    }

    fn take(&mut self, first: bool, lsn: Lsn, frame: &Frame<'_>) {
        let replaces = self.carry.note(frame);
        match *frame {
            Frame::Record(record) => {
                self.content = Lsn(lsn.0 + frame.bytes() as u64);
                // The host syncs all it recovered before it goes on, so nothing waits for this record's sync.
                self.truncate.note(&record, replaces, Lsn(0));
                self.lower(&record, replaces);
            }
            Frame::Mark(synced) => self.marked = self.marked.max(synced),
            Frame::Floor { group, index } => {
                if first {
                    self.floors.insert(group, index);
                }
            }
            Frame::Seal => {}
        }
    }

    /// What stands before a floor may have been replaced by less.
    fn lower(&mut self, record: &Record<'_>, replaces: bool) {
        let (group, last) = match *record {
            Record::Entry(entry) if replaces => (entry.group, Index(entry.index.0.saturating_sub(1))),
            Record::Reset { group, index, .. } => (group, index),
            // What a floor in the middle of a void part says is void too. Too low a floor checks less.
            Record::Abandon { group } => (group, Index(0)),
            Record::Entry(_) | Record::HardState(_) | Record::Committed { .. } => return,
        };
        if let Some(floor) = self.floors.get_mut(&group) {
            *floor = last.min(*floor);
        }
    }

    /// The frame at `stop` is invalid: the log ends there unless it was synced beyond.
    fn stop(&mut self, stop: Stop, bytes: &[u8]) -> Result<(), Refusal> {
        self.stage = Stage::Stopped(stop);
        if stop.reason == Invalid::Unknown {
            return Err(stop.corruption(self.marked));
        }
        self.judge(&stop, self.marked)?;
        self.search(&stop, stop.segment, bytes, stop.offset)?;
        if stop.offset > 0 {
            let rest = &bytes[stop.offset as usize..];
            let last = rest.iter().rposition(|&byte| byte != 0);
            self.wipe = last.map(|last| stop.offset..stop.offset + last as u64 + 1);
        }
        Ok(())
    }

    /// Looks for marks from `offset` on.
    fn search(&self, stop: &Stop, id: SegmentId, bytes: &[u8], offset: u64) -> Result<(), Refusal> {
        let seed = Seed::new(self.salt.expect("a stopped scan has read a header"), id);
        for at in (offset as usize..bytes.len()).step_by(ALIGN_BYTES) {
            if let Some(synced) = Frame::decode_mark(seed, at as u64, &bytes[at..]) {
                self.judge(stop, synced)?;
            }
        }
        Ok(())
    }

    fn judge(&self, stop: &Stop, synced: Lsn) -> Result<(), Refusal> {
        if synced > stop.place() && !is(Bug::IgnoreSyncedMark) {
            Err(stop.corruption(synced))
        } else {
            Ok(())
        }
    }
}

impl Stop {
    fn corruption(&self, synced: Lsn) -> Refusal {
        let (segment, offset, lsn, reason) = (self.segment, self.torn, self.place(), self.reason);
        Refusal::Corruption { segment, offset, lsn, reason, synced }
    }

    /// Where what is not a frame stands.
    fn place(&self) -> Lsn {
        Lsn(self.start.0 + self.torn)
    }
}
