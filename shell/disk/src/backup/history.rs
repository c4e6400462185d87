//! What a backup has of a partition's log, and how it is read back.
//!
//! Each backup has the entries behind its checkpoint, so that it can be brought to a point that is consistent with other
//! partitions, and those since the backup before, so that any moment between the two can be had. The bytes are in the file
//! `log-<number>`, in blocks; with what was replaced meanwhile, which is left out when they are read: once for the heads, to
//! know what holds, and once for the bodies.

use kernel::codec::DecodeError;
use kernel::{GroupId, Index, Micros, Term};

use super::course::Course;
use super::gather::Point;
use super::manifest::Digest;
use super::records::{Framing, Head, Piece, Records, Rest};
use super::{Archive, BackupError};
use crate::log::OldEntry;

/// The time of a checkpoint whose node did not say it.
pub const TIME_UNKNOWN: Micros = Micros(u64::MAX);

/// A part of a group's entries, cut anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub digest: Digest,
    /// The byte of the log file at which its frame begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u32,
}

/// What a backup has of a partition's log.
///
/// Invariant: `from` is at most the checkpoint's index, and that at most `to`; `to_time` is at least `time`, if that
/// is known; without `follows`, `from` is the checkpoint's index; there are entries if `from` is less than `to`, and
/// else none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The group's time at the checkpoint: the highest stamp of any entry up to it. [`TIME_UNKNOWN`] if nobody said it.
    pub time: Micros,
    /// Whether the entries go on where those of the backup before end: then every moment between the two can be had.
    pub follows: bool,
    /// The entries behind this one are there,
    pub from: Index,
    /// up to this one: the partition's state at it is what the backup restores to.
    pub to: Index,
    /// Its term.
    pub term: Term,
    /// The group's time there, or where suffixes were replaced perhaps an earlier one, but not one before `time`.
    pub to_time: Micros,
    /// Entries in the bytes, with those that were replaced.
    pub entries: u64,
    /// Bytes of all blocks.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc: u32,
    /// The bytes, in order.
    pub blocks: Vec<Block>,
}

impl History {
    /// No entries: what is wanted is the checkpoint itself, or they are to come.
    #[must_use]
    pub const fn at((base, time): (Point, Micros), to: Point) -> History {
        History {
            time,
            follows: false,
            from: base.index,
            to: to.index,
            term: to.term,
            to_time: if time.0 == TIME_UNKNOWN.0 { Micros(0) } else { time },
            entries: 0,
            bytes: 0,
            crc: 0,
            blocks: Vec::new(),
        }
    }

    /// Where it ends, and the time there.
    #[must_use]
    pub const fn end(&self) -> (Point, Micros) {
        (Point { index: self.to, term: self.term }, self.to_time)
    }

    /// Whether it is what the type promises, of a checkpoint at `index`.
    pub(super) fn is_sound(&self, index: Index) -> bool {
        let whole: u64 = self.blocks.iter().map(|block| u64::from(block.bytes)).sum();
        let has_some = self.from < self.to;
        self.from <= index
            && index <= self.to
            && (self.follows || self.from == index)
            && (self.time <= self.to_time || self.time == TIME_UNKNOWN)
            && whole == self.bytes
            && (self.entries > 0) == has_some
            && (self.bytes > 0) == has_some
    }
}

/// Whether entries are read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next one.
    On,
    /// No more.
    Enough,
}

/// What ended a reading of blocks.
enum Stop<E> {
    Enough,
    Unreadable,
    Failed(E),
}

impl<E> From<DecodeError> for Stop<E> {
    fn from(_: DecodeError) -> Stop<E> {
        Stop::Unreadable
    }
}

impl Archive {
    /// The entries that backup `number` has of `group`, as `history` says, behind `after`, which must not be before the first
    /// of them, in order and without a hole, until `each` has enough.
    ///
    /// Reads the bytes twice, and holds one block and one entry at a time.
    ///
    /// # Errors
    /// [`BackupError`], with file and place; or what `each` says.
    pub fn entries<E: From<BackupError>>(
        &mut self,
        (number, group): (u64, GroupId),
        history: &History,
        after: Index,
        each: &mut dyn FnMut(OldEntry) -> Result<Read, E>,
    ) -> Result<(), E> {
        let course = self.course((number, group), history)?;
        let (mut ordinal, mut running): (u64, Option<OldEntry>) = (0, None);
        self.pieces((number, group), history, &mut |piece| {
            match piece {
                Piece::Entry(_, head) => {
                    let is_wanted = course.holds(ordinal) && head.index > after;
                    ordinal += 1;
                    running = is_wanted.then(|| begun(head));
                }
                Piece::Body(bytes, rest) => {
                    let Some(entry) = &mut running else { return Ok(Read::On) };
                    entry.body.extend_from_slice(bytes);
                    if rest == Rest::Done {
                        return each(running.take().expect("it was just there"));
                    }
                }
                Piece::Anew(_) | Piece::TakenBack(_) => {}
            }
            Ok(Read::On)
        })
    }

    /// Reads all that it has of a group's log, and compares it with what the manifest says.
    ///
    /// # Errors
    /// [`BackupError`], with file and place.
    pub fn verify_history(
        &mut self,
        (number, group): (u64, GroupId),
        history: &History,
    ) -> Result<(), BackupError> {
        self.course((number, group), history).map(drop)
    }

    /// Which entries hold.
    fn course(&mut self, (number, group): (u64, GroupId), history: &History) -> Result<Course, BackupError> {
        let (mut course, mut last, mut overrun) = (Course::default(), None, false);
        if history.from == history.to {
            return Ok(course);
        }
        self.pieces::<BackupError>((number, group), history, &mut |piece| {
            if let Piece::Entry(_, head) = piece {
                overrun |= course.take(head.index, head.time).is_err();
                last = Some((head.index, head.term));
            }
            Ok(if overrun { Read::Enough } else { Read::On })
        })?;
        let begins = course.first().is_some_and(|first| first <= history.from.next());
        let ends = last == Some((history.to, history.term)) && course.taken() == history.entries;
        if begins && ends && !overrun {
            return Ok(course);
        }
        let offset = history.blocks.first().map_or(0, |block| block.offset);
        let what = "a partition's entries are not those that the backup names";
        Err(BackupError::damaged(&self.log_path(number), offset, what))
    }

    /// Hands out what the blocks have.
    fn pieces<E: From<BackupError>>(
        &mut self,
        (number, group): (u64, GroupId),
        history: &History,
        each: &mut dyn FnMut(Piece<'_>) -> Result<Read, E>,
    ) -> Result<(), E> {
        let (mut records, mut crc) = (Records::new(Framing::Backup(group)), crc32fast::Hasher::new());
        let path = self.log_path(number);
        for block in &history.blocks {
            let bytes = self.block(number, block)?;
            crc.update(&bytes);
            let taken = records.take(&bytes, &mut |piece| match each(piece) {
                Ok(Read::On) => Ok(()),
                Ok(Read::Enough) => Err(Stop::Enough),
                Err(error) => Err(Stop::Failed(error)),
            });
            match taken {
                Ok(()) => {}
                Err(Stop::Enough) => return Ok(()),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Unreadable) => {
                    return Err(BackupError::damaged(&path, block.offset, "it has no entries there").into());
                }
            }
        }
        if records.is_between() && crc.finalize() == history.crc {
            return Ok(());
        }
        let offset = history.blocks.last().map_or(0, |block| block.offset);
        Err(BackupError::damaged(&path, offset, "a partition's entries break off, or are others").into())
    }
}

/// An entry without its body.
fn begun(Head { term, index, semantics, time, .. }: Head) -> OldEntry {
    OldEntry { term, index, semantics, time, body: Vec::new() }
}
