//! The log for backups: kept for them beyond what checkpoints need, and read while it goes on.
//!
//! What is kept for backups alone is bounded ([`LogOptions::archived_bytes`](super::LogOptions)) and gives way to writes: when
//! the disk is short of space, it goes first.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use journal::passage::{Broken, Step, WINDOW_BYTES};
use journal::record::{HEADER_BYTES, Header};
use journal::reserve::TooMany;
use journal::{Cursor, Keeper, Passage, Positions, SegmentId};
use kernel::{GroupId, Lsn};
use thiserror::Error;

use super::files::Name;
use super::{Inner, Log, Shared};

/// A part of what the log has of some groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The stream that `journal::passage` describes, cut anywhere.
    pub bytes: Vec<u8>,
    /// Where the next part begins; `None` if there is no more.
    pub next: Option<Cursor>,
}

/// Why there is no part.
#[derive(Debug, Error)]
pub enum PassageError {
    /// The reader's, or the world's: what was to be read was given away meanwhile, or the cursor was never ours.
    #[error("segment {segment} of the log is not there any more")]
    Gone {
        /// The segment.
        segment: SegmentId,
    },
    /// See [`Broken`].
    #[error("the log cannot be read: {0}")]
    Broken(#[from] Broken),
    /// The world's: a file cannot be read.
    #[error("segment {segment} of the log cannot be read: {source}")]
    File {
        /// The segment.
        segment: SegmentId,
        /// The reason.
        source: io::Error,
    },
}

/// The space that segments take, spare ones not counted, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBytes {
    /// Of those that checkpoints need, and the one that is written.
    pub needed: u64,
    /// Of those that are kept for backups only.
    pub reserved: u64,
    /// That others, which nobody needs, are about to give back; those longer than usual count as usual ones.
    pub leaving: u64,
}

impl LogBytes {
    /// Of all of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.needed + self.reserved
    }
}

impl Log {
    /// Keeps, besides what checkpoints need, what is behind `after` for `keeper`, in the place of what it asked for before;
    /// only what is still there. A restart knows nothing of it. Tells of which groups something went since then although it
    /// was kept.
    ///
    /// # Errors
    /// [`TooMany`]; nothing has changed then.
    pub fn reserve(&self, keeper: Keeper, after: Positions) -> Result<BTreeSet<GroupId>, TooMany> {
        let mut inner = self.shared.lock();
        let lost = inner.commit.reserve(keeper, after);
        self.shared.retire(&mut inner);
        lost
    }

    /// Keeps nothing for `keeper` any more.
    pub fn release(&self, keeper: Keeper) {
        let mut inner = self.shared.lock();
        inner.commit.release(keeper);
        self.shared.retire(&mut inner);
    }

    /// Gives up all that is kept for backups only: the space is needed otherwise.
    pub fn give_up_reserved(&self) {
        self.shared.give_up(&mut self.shared.lock());
    }

    /// The space that the log takes.
    #[must_use]
    pub fn bytes(&self) -> LogBytes {
        let inner = self.shared.lock();
        let truncate = inner.commit.truncate();
        let leaving = inner.leaving(self.shared.now()) * self.shared.options.segment_bytes;
        LogBytes { needed: truncate.bytes_needed(), reserved: truncate.bytes_reserved(), leaving }
    }

    /// What the log has, synced, of each group in `wanted` behind its position there: the next part of at most `bytes_max`
    /// bytes, from `cursor` or from the beginning. The last part ends with the segment that was written when the first one
    /// was read.
    ///
    /// Reads 4 MiB at a time, or a whole entry that is longer, and about 128 MiB at most; a part may be empty although
    /// others follow.
    ///
    /// # Errors
    /// [`PassageError`]
    pub fn passage(
        &self,
        wanted: &Positions,
        cursor: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<Part, PassageError> {
        let Some(cursor) = cursor.or_else(|| self.beginning(wanted)) else {
            return Ok(Part { bytes: Vec::new(), next: None });
        };
        let mut passage = Passage::new(wanted, cursor, bytes_max);
        let step = self.read_on(&mut passage, cursor.segment);
        let oldest = self.shared.lock().commit.truncate().oldest();
        match step {
            Ok(step) => {
                let next = (step != Step::End).then_some(passage.cursor());
                Ok(Part { bytes: passage.into_bytes(), next })
            }
            // Its file may have been used again while it was read.
            Err(PassageError::Broken(Broken::Damaged { segment, .. })) if oldest > Some(segment) => {
                Err(PassageError::Gone { segment })
            }
            Err(error) => Err(error),
        }
    }

    fn beginning(&self, wanted: &Positions) -> Option<Cursor> {
        let inner = self.shared.lock();
        let first = inner.commit.truncate().first_behind(wanted)?;
        Some(Cursor::begin(first, inner.commit.active()?.id))
    }

    fn read_on(&self, passage: &mut Passage<'_>, mut id: SegmentId) -> Result<Step, PassageError> {
        let mut window = Vec::new();
        loop {
            let (file, header) = self.open_segment(id)?;
            let mut least = 0;
            loop {
                let synced = self.synced();
                read_window(&file, &header, passage.cursor().offset, (synced, least), &mut window)
                    .map_err(|source| PassageError::File { segment: id, source })?;
                match passage.read(&header, &window, synced)? {
                    Step::Read { bytes } => least = bytes,
                    Step::Next => break,
                    step @ (Step::Full | Step::End) => return Ok(step),
                }
            }
            id = passage.cursor().segment;
        }
    }

    fn open_segment(&self, id: SegmentId) -> Result<(File, Header), PassageError> {
        let file = self.shared.dir.open_file(Name::Segment(id)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => PassageError::Gone { segment: id },
            _ => PassageError::File { segment: id, source },
        })?;
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).map_err(|source| PassageError::File { segment: id, source })?;
        match Header::decode(id, &head) {
            Ok(header) => Ok((file, header)),
            Err(reason) => Err(Broken::Damaged { segment: id, offset: 0, reason }.into()),
        }
    }
}

/// Reads the usual window at `offset`, or `least` bytes if that is more, but nothing that is not synced.
fn read_window(
    file: &File,
    header: &Header,
    offset: u64,
    (synced, least): (Lsn, usize),
    window: &mut Vec<u8>,
) -> io::Result<()> {
    let limit = synced.0.saturating_sub(header.start.0).min(header.capacity);
    let left = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
    window.resize(WINDOW_BYTES.max(least).min(left), 0);
    file.read_exact_at(window, offset)
}

impl Shared {
    /// Gives up all that is kept for backups only; true if that was anything.
    pub(super) fn give_up(&self, inner: &mut Inner) -> bool {
        let reserved = inner.commit.truncate().bytes_reserved() > 0;
        if reserved {
            inner.commit.give_up(0);
            self.retire(inner);
        }
        reserved
    }
}
