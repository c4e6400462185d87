//! Group commit: where the next batch goes, when a sync is due, and what is durable.
//!
//! All workers append to one [`Commit`]; one `fdatasync` makes everything written so far durable, and
//! while it runs the next batches are written (DeWitt et al. 1984, pipelined). The host performs each
//! [`Write`] before the next call, and syncs what [`Commit::begin_sync`] names, one sync at a time.
//!
//! A batch begins with a mark of what is synced, so that recovery can tell damage from a torn tail. A
//! batch is never split: it goes into the active segment or opens the next one, which is made larger if
//! need be. A new segment begins with a copy of every group's term, vote and last index, so that older
//! segments never have to be kept for them.
//!
//! A refusal changes nothing. A failed write or sync is final: the page cache may have dropped the bytes
//! and would report a later sync as a success (Rebello et al. 2020).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;
use core::num::NonZeroU64;
use core::ops::Range;

use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn, Micros, Term};
use thiserror::Error;

use crate::record::{
    BODY_BYTES_MAX, Frame, HEADER_BYTES, HardState, Header, MARK_BYTES, Record, SEAL_BYTES, Salt, Seed,
    SegmentId,
};
use crate::reserve::{Keeper, Positions, TooMany};
use crate::truncate::Truncate;

/// Segments are multiples of this.
pub const PAGE_BYTES: u64 = 4096;
/// The usual segment.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The smallest segment that may be configured.
pub const SEGMENT_BYTES_MIN: u64 = 4 * PAGE_BYTES;
/// The largest segment that may be configured.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Most bytes that one append may take in the log.
pub const BATCH_BYTES_MAX: usize = 2 << 30;
/// How long a record may wait for its sync in [`Durability::EverySec`]: under a second by enough for the
/// sync itself.
pub const EVERYSEC_MICROS: u64 = 900_000;
/// Zeros written behind each batch, so that a clean end is blank even in a recycled segment.
const END_BYTES: usize = SEAL_BYTES;

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(SEGMENT_BYTES >= SEGMENT_BYTES_MIN && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () = assert!(HEADER_BYTES + MARK_BYTES + SEAL_BYTES < SEGMENT_BYTES_MIN as usize);
const _: () = assert!(BODY_BYTES_MAX < BATCH_BYTES_MAX);

/// When a batch must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As soon as the disk can.
    Always,
    /// Within about a second.
    EverySec,
}

/// Why a batch was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The caller's: too much at once.
    #[error("{bytes} bytes in one record or append, the limit is {limit}")]
    TooLarge {
        /// What was asked for.
        bytes: usize,
        /// [`BODY_BYTES_MAX`] or [`BATCH_BYTES_MAX`].
        limit: usize,
    },
    /// The world's: the disk is nearly full. Ends when space is back.
    #[error("the disk is full")]
    Full,
    /// The host must prepare this segment first, then ask again.
    #[error("segment {} of {} bytes is not prepared", .0.id, .0.bytes)]
    Unprepared(Need),
    /// The world's: a write or sync failed earlier. Final.
    #[error("an earlier write or sync of the log failed")]
    Poisoned,
}

/// A segment that the host should prepare: allocated, durable in its directory, not holding bytes that
/// were ever written under the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The next segment.
    pub id: SegmentId,
    /// Its size.
    pub bytes: u64,
}

/// One contiguous write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Into this segment.
    pub segment: SegmentId,
    /// At this byte of it.
    pub offset: u64,
    /// This part of the buffer.
    pub bytes: Range<usize>,
}

/// What one append asks of the host, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The end of the active segment, when the batch opens the next one.
    pub seal: Option<Write>,
    /// The batch.
    pub batch: Write,
    /// The log's end after it: durable once the synced position reaches this.
    pub end: Lsn,
}

/// What one sync covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Everything before this is durable after it.
    pub end: Lsn,
    /// To be synced, in this order.
    pub segments: Vec<SegmentId>,
}

/// The segment that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its id.
    pub id: SegmentId,
    /// The log position of its first byte.
    pub start: Lsn,
    /// Where in it the next frame goes.
    pub offset: u64,
    /// Its size.
    pub capacity: u64,
}

/// What new segments repeat for each group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carry(BTreeMap<GroupId, Kept>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    last: Index,
    /// The last index before a reset that may still be abandoned.
    voided: Option<Index>,
    hard: Option<(Term, Option<NonZeroU64>)>,
}

impl Carry {
    /// Remembers what `frame` says about its group. True if it is an entry where the group already had one, which it
    /// replaces together with those behind it.
    pub fn note(&mut self, frame: &Frame<'_>) -> bool {
        match *frame {
            Frame::Record(Record::Entry(entry)) => {
                let kept = self.0.entry(entry.group).or_default();
                return mem::replace(&mut kept.last, entry.index) >= entry.index;
            }
            Frame::Floor { group, index } => self.0.entry(group).or_default().last = index,
            Frame::Record(Record::HardState(state)) => {
                self.0.entry(state.group).or_default().hard = Some((state.term, state.vote));
            }
            Frame::Record(Record::Reset { group, index, .. }) => {
                let kept = self.0.entry(group).or_default();
                kept.voided = Some(mem::replace(&mut kept.last, index));
            }
            Frame::Record(Record::Abandon { group }) => {
                let kept = self.0.entry(group).or_default();
                // If the log begins behind the reset, it says nothing of what was before.
                kept.last = kept.voided.take().unwrap_or_default();
            }
            Frame::Record(Record::Committed { .. }) | Frame::Mark(_) | Frame::Seal => {}
        }
        false
    }

    /// True if `frame` is a copy, or is not to be told from one, of what is remembered anyway.
    pub fn repeats(&self, frame: &Frame<'_>) -> bool {
        match *frame {
            Frame::Floor { group, index } => self.0.get(&group).is_some_and(|kept| kept.last == index),
            Frame::Record(Record::HardState(HardState { group, term, vote })) => {
                self.0.get(&group).is_some_and(|kept| kept.hard == Some((term, vote)))
            }
            Frame::Record(_) | Frame::Mark(_) | Frame::Seal => false,
        }
    }

    /// Forgets a group.
    fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'static>> + '_ {
        self.0.iter().flat_map(|(&group, kept)| {
            let floor = Frame::Floor { group, index: kept.last };
            let hard = |(term, vote)| Frame::Record(Record::HardState(HardState { group, term, vote }));
            let hard = kept.hard.filter(|_| !is(Bug::HardStateForgotten)).map(hard);
            [(kept.last > Index(0)).then_some(floor), hard].into_iter().flatten()
        })
    }

    fn bytes(&self) -> usize {
        self.frames().map(|frame| frame.bytes()).sum()
    }
}

/// Where the log stands. What [`crate::recover`] finds, or [`State::fresh`].
#[derive(Clone, Debug)]
pub struct State {
    /// The log's salt.
    pub salt: Salt,
    /// The segment to go on in; `None` if the next batch opens `next`.
    pub active: Option<Active>,
    /// The segment after the active one.
    pub next: SegmentId,
    /// The end of what was written; the host has synced all of it.
    pub end: Lsn,
    /// The highest synced position that the log itself states.
    pub marked: Lsn,
    /// The end of the last user's record.
    pub content: Lsn,
    /// What the next new segment repeats.
    pub carry: Carry,
    /// The segments that are kept.
    pub truncate: Truncate,
}

impl State {
    /// A log without segments.
    #[must_use]
    pub fn fresh(salt: Salt) -> State {
        State {
            salt,
            active: None,
            next: SegmentId::FIRST,
            end: Lsn(0),
            marked: Lsn(0),
            content: Lsn(0),
            carry: Carry::default(),
            truncate: Truncate::default(),
        }
    }
}

/// The group-commit machine.
///
/// Invariants: `marked <= synced <= state.end`; the active segment keeps room for its seal; `state.end`
/// is `active.start + active.offset` when there is an active segment.
#[derive(Debug)]
pub struct Commit {
    segment_bytes: u64,
    state: State,
    seed: Seed,
    /// The prepared next segment's size.
    prepared: Option<u64>,
    synced: Lsn,
    /// Segments with bytes that no sync has been asked for, in order.
    dirty: Vec<SegmentId>,
    /// When the next sync is due.
    due: Option<Micros>,
    syncing: bool,
    poisoned: bool,
    full: bool,
}

impl Commit {
    /// A machine that goes on from `state`, all of which the host has synced.
    ///
    /// # Panics
    /// Unless `segment_bytes` is a multiple of [`PAGE_BYTES`] from [`SEGMENT_BYTES_MIN`] to
    /// [`SEGMENT_BYTES_MAX`]: the host has checked its settings.
    #[must_use]
    pub fn new(segment_bytes: u64, state: State) -> Commit {
        assert!(segment_bytes.is_multiple_of(PAGE_BYTES), "segments are whole pages");
        assert!((SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes), "segments are in bounds");
        let seed = Seed::new(state.salt, state.active.map_or(state.next, |active| active.id));
        let synced = state.end;
        Commit {
            segment_bytes,
            state,
            seed,
            prepared: None,
            synced,
            dirty: Vec::new(),
            due: None,
            syncing: false,
            poisoned: false,
            full: false,
        }
    }

    /// Takes a batch: encodes it into `buffer` (cleared first) and says where its bytes go.
    ///
    /// The host writes them before it calls anything else, or reports [`Commit::fail`]. A batch with a
    /// [`HardState`] or a [`Record::Reset`] is synced at once. O(bytes); allocates only when the buffer must grow.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn append(
        &mut self,
        now: Micros,
        records: &[Record<'_>],
        durability: Durability,
        buffer: &mut Vec<u8>,
    ) -> Result<Written, Refused> {
        if self.poisoned {
            return Err(Refused::Poisoned);
        }
        let (bytes, urgent) = measure(records)?;
        if self.full {
            return Err(Refused::Full);
        }
        let need = MARK_BYTES + bytes;
        let written = match self.state.active {
            Some(active) if fits(&active, need) => self.extend(active, records, buffer),
            _ => self.roll(need, records, buffer)?,
        };
        self.state.content = written.end;
        let due = match (durability, urgent) {
            (Durability::Always, _) | (Durability::EverySec, true) => now,
            (Durability::EverySec, false) if is(Bug::EverySecLate) => now + 3600 * EVERYSEC_MICROS,
            (Durability::EverySec, false) => now + EVERYSEC_MICROS,
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        Ok(written)
    }

    /// The idle mark: states in the log itself that all of it is synced, so that later damage to it is
    /// recognised. Due after a sync with nothing more to write; it is synced with whatever comes next.
    pub fn mark(&mut self, buffer: &mut Vec<u8>) -> Option<Written> {
        let news = self.synced >= self.state.content && self.state.marked < self.state.content;
        let active = self.state.active.filter(|active| fits(active, MARK_BYTES))?;
        (news && !self.poisoned).then(|| self.extend(active, &[], buffer))
    }

    /// When a sync is due; `None` while one runs or nothing waits.
    #[must_use]
    pub fn sync_due(&self) -> Option<Micros> {
        self.due.filter(|_| !self.syncing && !self.poisoned)
    }

    /// Makes a sync due at once if anything is not synced, marks included.
    pub fn hurry(&mut self, now: Micros) {
        if !self.dirty.is_empty() {
            self.due = Some(now);
        }
    }

    /// Starts a sync of everything written so far, due or not.
    ///
    /// `None` if there is nothing to sync, one runs, or the log is poisoned. What is appended from here
    /// on waits for the sync after it.
    pub fn begin_sync(&mut self) -> Option<Sync> {
        if self.syncing || self.poisoned || self.dirty.is_empty() {
            return None;
        }
        self.syncing = true;
        self.due = None;
        Some(Sync { end: self.state.end, segments: mem::take(&mut self.dirty) })
    }

    /// The sync ended well: everything before `end` is durable.
    pub fn synced(&mut self, end: Lsn) {
        assert!(self.syncing, "a sync ends after it began");
        assert!(end <= self.state.end, "only what was written is synced");
        self.syncing = false;
        // A write that failed while the sync ran makes its answer worthless.
        if !self.poisoned {
            let end = if is(Bug::SyncCoversLater) { self.state.end } else { end };
            self.synced = end.max(self.synced);
        }
    }

    /// A write or sync failed: nothing is taken and nothing becomes durable from here on.
    pub fn fail(&mut self) {
        if is(Bug::FailedSyncRetried) {
            return self.retry();
        }
        self.poisoned = true;
    }

    /// The segment to prepare ahead of need: once a quarter of the active one is used.
    #[must_use]
    pub fn wants(&self) -> Option<Need> {
        let soon = self.state.active.is_none_or(|active| active.offset >= active.capacity / 4);
        let need = Need { id: self.state.next, bytes: self.segment_bytes };
        (soon && self.prepared.is_none() && !self.poisoned).then_some(need)
    }

    /// The host has prepared segment `need.id` with `need.bytes`, in place of an earlier one of that id.
    pub fn prepared(&mut self, need: Need) {
        assert!(need.id == self.state.next, "only the next segment is prepared");
        self.prepared = Some(need.bytes);
    }

    /// Whether there is space on the disk; without it appends are refused as [`Refused::Full`].
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether appends are refused for want of space.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// True after a failed write or sync.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Everything before this is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.synced
    }

    /// The end of what was written.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.state.end
    }

    /// The segment that is written, once there is one.
    #[must_use]
    pub fn active(&self) -> Option<Active> {
        self.state.active
    }

    /// The log's salt.
    #[must_use]
    pub fn salt(&self) -> Salt {
        self.state.salt
    }

    /// The truncation rule's view.
    #[must_use]
    pub fn truncate(&self) -> &Truncate {
        &self.state.truncate
    }

    /// The state of `group` up to `index` is durable elsewhere.
    pub fn checkpoint(&mut self, group: GroupId, index: Index) {
        self.state.truncate.checkpoint(group, index);
    }

    /// This node has no part in `group` any more: its records hold no segment back, and new segments do not repeat its
    /// term and vote. They may still come back at the next opening.
    pub fn forget(&mut self, group: GroupId) {
        self.state.carry.forget(group);
        self.state.truncate.forget(group);
    }

    /// Keeps the log for `keeper` too; see [`Truncate::reserve`].
    ///
    /// # Errors
    /// [`TooMany`]; nothing has changed then.
    pub fn reserve(&mut self, keeper: Keeper, after: Positions) -> Result<BTreeSet<GroupId>, TooMany> {
        self.state.truncate.reserve(keeper, after)
    }

    /// `keeper` needs nothing any more.
    pub fn release(&mut self, keeper: Keeper) {
        self.state.truncate.release(keeper);
    }

    /// Has the segments that only keepers need take at most `bytes_max` bytes; see [`Truncate::give_up`].
    pub fn give_up(&mut self, bytes_max: u64) {
        self.state.truncate.give_up(bytes_max);
    }

    /// The next segment that nobody needs; its file may be removed or reused under a later id.
    pub fn retire(&mut self) -> Option<SegmentId> {
        self.state.truncate.retire(self.synced)
    }

    /// Writes a batch behind what is in the active segment.
    fn extend(&mut self, active: Active, records: &[Record<'_>], buffer: &mut Vec<u8>) -> Written {
        buffer.clear();
        self.write_batch(active, records, buffer, 0)
    }

    /// Seals the active segment and opens the next one with the batch.
    fn roll(
        &mut self,
        need: usize,
        records: &[Record<'_>],
        buffer: &mut Vec<u8>,
    ) -> Result<Written, Refused> {
        let bytes = (HEADER_BYTES + self.state.carry.bytes() + need + END_BYTES) as u64;
        let Some(capacity) = self.prepared.filter(|&prepared| prepared >= bytes) else {
            let bytes = bytes.next_multiple_of(PAGE_BYTES).max(self.segment_bytes);
            return Err(Refused::Unprepared(Need { id: self.state.next, bytes }));
        };
        buffer.clear();
        let mut start = self.state.end;
        let seal = self.state.active.map(|active| {
            Frame::Seal.encode(self.seed, active.offset, buffer);
            self.touch(active.id);
            start = Lsn(start.0 + SEAL_BYTES as u64);
            Write { segment: active.id, offset: active.offset, bytes: 0..buffer.len() }
        });
        let id = self.state.next;
        let from = buffer.len();
        self.seed = Seed::new(self.state.salt, id);
        Header { salt: self.state.salt, id, start, capacity, synced: self.synced }.encode(buffer);
        for frame in self.state.carry.frames() {
            frame.encode(self.seed, (buffer.len() - from) as u64, buffer);
        }
        self.prepared = None;
        self.state.marked = self.synced;
        self.state.next = id.next();
        let ready = Lsn(start.0 + (buffer.len() - from) as u64);
        self.state.truncate.open(id, capacity, ready);
        let written = self.write_batch(Active { id, start, offset: 0, capacity }, records, buffer, from);
        Ok(Written { seal, ..written })
    }

    /// Encodes mark and records behind `buffer[from..]`, which stands at `active.offset`.
    fn write_batch(
        &mut self,
        mut active: Active,
        records: &[Record<'_>],
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> Written {
        let base = active.offset;
        let offset = |buffer: &Vec<u8>| base + (buffer.len() - from) as u64;
        if self.synced > self.state.marked {
            let synced = if is(Bug::MarkAhead) { self.state.end } else { self.synced };
            Frame::Mark(synced).encode(self.seed, offset(buffer), buffer);
            self.state.marked = self.synced;
        }
        for record in records {
            let frame = Frame::Record(*record);
            frame.encode(self.seed, offset(buffer), buffer);
            let replaces = self.state.carry.note(&frame);
            self.state.truncate.note(record, replaces, Lsn(active.start.0 + offset(buffer)));
        }
        active.offset = offset(buffer);
        self.state.active = Some(active);
        self.state.end = Lsn(active.start.0 + active.offset);
        buffer.resize(buffer.len() + END_BYTES, 0);
        assert!(active.offset + END_BYTES as u64 <= active.capacity, "a segment keeps room for its seal");
        self.touch(active.id);
        let batch = Write { segment: active.id, offset: base, bytes: from..buffer.len() };
        Written { seal: None, batch, end: self.state.end }
    }

    /// Only for the simulator to see what comes of it.
    fn retry(&mut self) {
        (self.syncing, self.due) = (false, Some(Micros(0)));
        self.dirty.extend(self.state.active.map(|active| active.id));
    }

    fn touch(&mut self, id: SegmentId) {
        if self.dirty.last() != Some(&id) {
            self.dirty.push(id);
        }
    }
}

/// True if `need` bytes and the seal fit behind what is in `active`.
fn fits(active: &Active, need: usize) -> bool {
    active.offset + (need + END_BYTES) as u64 <= active.capacity
}

/// The bytes of `records` in the log, and whether they must be synced at once.
fn measure(records: &[Record<'_>]) -> Result<(usize, bool), Refused> {
    let (mut bytes, mut urgent) = (0usize, false);
    for record in records {
        match record {
            Record::Entry(entry) if entry.body.len() > BODY_BYTES_MAX => {
                return Err(Refused::TooLarge { bytes: entry.body.len(), limit: BODY_BYTES_MAX });
            }
            Record::Entry(_) | Record::Abandon { .. } | Record::Committed { .. } => {}
            Record::Reset { .. } => urgent |= !is(Bug::ResetUnsynced),
            Record::HardState(_) => urgent = true,
        }
        bytes = bytes.saturating_add(Frame::Record(*record).bytes());
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(Refused::TooLarge { bytes, limit: BATCH_BYTES_MAX });
    }
    Ok((bytes, urgent))
}
