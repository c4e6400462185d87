//! What a replica's disk says after a restart: a checkpoint, and the group's records in the node's log behind it.
//!
//! The log is append-only, so a record may void earlier ones: an entry replaces what stood from its index on, and a reset
//! voids all entries before it once its snapshot is installed. A reset whose snapshot the checkpoint does not have was
//! not installed: everything behind it was never acknowledged, and is void instead. The next life then says so with one
//! record, or what it appends would be void too; likewise it says that the log begins at the checkpoint, if that has
//! outrun the log.

use kernel::planted::{Bug, is};
use kernel::{Index, Term};
use thiserror::Error;

use crate::entry::Logged;
use crate::group::Write;
use crate::members::{Mark, ReplicaId};

/// Most bytes of entries that the checkpoint has already, of one group; there may be none. A follower that is a little behind
/// needs them, and a log that is kept for backups has many more. Idle groups keep them in memory.
const BEFORE_BYTES_MAX: usize = 256 << 10;

/// Whether the end of the log is known to be the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Everything that was ever acknowledged is there.
    Certain,
    /// Acknowledged entries may be missing: `everysec`, or a disk that lost its end.
    Ambiguous,
}

/// What a replica takes up.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The highest term, and the vote in it.
    pub hard: (Term, Option<ReplicaId>),
    /// The checkpoint of the state machine.
    pub mark: Mark,
    /// The index and term right before the first entry.
    pub base: (Index, Term),
    /// The entries, without a hole, at least up to the checkpoint or none.
    pub entries: Vec<Logged>,
    /// At least this is committed: the checkpoint, and changes of the members that were applied.
    pub committed: Index,
    /// Whether that is all.
    pub tail: Tail,
    /// What the log must be told before anything else, so that it is understood again after the next restart.
    pub repair: Option<Write>,
}

impl Restored {
    /// A new group's first members begin with this, each the same.
    #[must_use]
    pub fn first(mark: Mark) -> Restored {
        let (base, committed) = ((mark.index, mark.term), mark.index);
        let (hard, entries) = ((mark.term, None), Vec::new());
        Restored { hard, mark, base, entries, committed, tail: Tail::Certain, repair: None }
    }
}

/// Why a group's records are not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// Two neighbouring entries are not.
    #[error("entry {found} follows entry {last} in the log: entries are missing")]
    Hole {
        /// The last entry before it.
        last: Index,
        /// The entry.
        found: Index,
    },
    /// The log begins behind the checkpoint's end.
    #[error("the checkpoint ends at {mark}, but the log begins with {first}: entries are missing")]
    Gap {
        /// The checkpoint's index.
        mark: Index,
        /// The first entry.
        first: Index,
    },
    /// The log has another entry than the checkpoint at its index.
    #[error("at {index} the checkpoint was made in term {mark}, and the log has term {log}")]
    Differs {
        /// The checkpoint's index.
        index: Index,
        /// Its term.
        mark: Term,
        /// The log's.
        log: Term,
    },
}

/// Collects one group's records, in the order of the log.
#[derive(Debug)]
pub struct Replay {
    mark: Mark,
    hard: (Term, Option<ReplicaId>),
    log: Entries,
    /// The last reset that was not abandoned, and what it voids.
    reset: Option<(Index, Entries)>,
}

/// Entries behind a base.
#[derive(Debug, Default)]
struct Entries {
    base: Option<(Index, Term)>,
    entries: Vec<Logged>,
    /// Bytes of those up to the checkpoint, or more.
    before: usize,
    committed: Index,
    error: Option<ReplayError>,
}

impl Replay {
    /// Begins with the checkpoint.
    #[must_use]
    pub fn new(mark: Mark) -> Replay {
        Replay { mark, hard: (Term(0), None), log: Entries::default(), reset: None }
    }

    /// An entry.
    pub fn entry(&mut self, entry: Logged) {
        self.log.push(&self.mark, entry);
    }

    /// A term and vote; the last one counts, wherever it stands.
    pub fn hard_state(&mut self, term: Term, vote: Option<ReplicaId>) {
        if term >= self.hard.0 {
            self.hard = (term, vote);
        }
    }

    /// The log begins anew behind a snapshot.
    pub fn reset(&mut self, index: Index, term: Term) {
        if is(Bug::StaleTailKept) {
            return;
        }
        let fresh = Entries { base: Some((index, term)), ..Entries::default() };
        self.reset = Some((index, std::mem::replace(&mut self.log, fresh)));
    }

    /// What stands up to here in the log is committed.
    pub fn committed(&mut self, index: Index) {
        self.log.committed = self.log.committed.max(index);
    }

    /// The last reset was not installed, and is not any more. If the log begins behind it, nothing up to here counts.
    pub fn abandon(&mut self) {
        self.log = self.reset.take().map(|(_, voided)| voided).unwrap_or_default();
    }

    /// What the replica takes up.
    ///
    /// # Errors
    /// [`ReplayError`]: the disk contradicts itself, and nothing of it is believed.
    pub fn finish(mut self, tail: Tail) -> Result<Restored, ReplayError> {
        let mut repair = None;
        if self.reset.as_ref().is_some_and(|(index, _)| *index > self.mark.index) {
            self.abandon();
            repair = Some(Write::Abandon);
        }
        let Replay { mark, hard, log, .. } = self;
        if let Some(error) = log.error {
            return Err(error);
        }
        let mut entries = log.entries;
        let mut base = log.base.unwrap_or((mark.index, mark.term));
        if mark.index < base.0 {
            return Err(ReplayError::Gap { mark: mark.index, first: base.0.next() });
        }
        let at = mark.index.0.checked_sub(base.0.0 + 1);
        let found = at.map_or(Some(base.1), |at| entries.get(at as usize).map(Logged::term));
        match found {
            Some(found) if found == mark.term => {}
            Some(found) if tail == Tail::Certain => {
                return Err(ReplayError::Differs { index: mark.index, mark: mark.term, log: found });
            }
            // The checkpoint outran the log's end; or that end is lost, and an older one that it had replaced shows.
            Some(_) | None => {
                entries.clear();
                base = (mark.index, mark.term);
                repair = Some(Write::Reset { index: base.0, term: base.1 });
            }
        }
        let last = Index(base.0.0 + entries.len() as u64);
        let committed = log.committed.min(last).max(mark.index);
        Ok(Restored { hard, mark, base, entries, committed, tail, repair })
    }
}

impl Entries {
    fn push(&mut self, mark: &Mark, entry: Logged) {
        let found = entry.index();
        if self.error.is_some() {
            // What was replaced may have lost its beginning to truncation; what replaces it goes on from what is known.
            let known = self.base.map_or(mark.index, |base| Index(base.0.0 + self.entries.len() as u64));
            if found > known.next() {
                return;
            }
            self.error = None;
        }
        let Some(base) = self.base else {
            // What is before the log's first entry is not known, unless the checkpoint is exactly there.
            if found == mark.index.next() {
                self.base = Some((mark.index, mark.term));
                self.entries.push(entry);
            } else if found <= mark.index {
                self.base = Some((found, entry.term()));
            } else {
                self.error = Some(ReplayError::Gap { mark: mark.index, first: found });
            }
            return;
        };
        if found <= base.0 {
            // The log's beginning was replaced, and with it all that stood behind it.
            return self.begin(&entry);
        }
        let last = Index(base.0.0 + self.entries.len() as u64);
        if found > last.next() {
            self.error = Some(ReplayError::Hole { last, found });
            return;
        }
        if found <= mark.index {
            self.before += entry.bytes();
            if self.before > BEFORE_BYTES_MAX {
                return self.begin(&entry);
            }
        }
        self.entries.truncate((found.0 - base.0.0 - 1) as usize);
        self.entries.push(entry);
    }

    /// What is before this entry, and itself, is not needed.
    fn begin(&mut self, entry: &Logged) {
        self.entries.clear();
        self.before = 0;
        self.base = Some((entry.index(), entry.term()));
    }
}

#[cfg(test)]
mod tests {
    use kernel::Micros;

    use super::*;
    use crate::members::Members;

    fn entry(index: u64, term: u64) -> Logged {
        Logged::new(Term(term), Index(index), 1, Micros(0), b"x")
    }

    fn mark(index: u64, term: u64) -> Mark {
        let members = Members::new(ReplicaId::new(1), []).expect("sound");
        Mark { index: Index(index), term: Term(term), members }
    }

    fn restored(replay: Replay) -> (u64, Vec<(u64, u64)>) {
        let restored = replay.finish(Tail::Certain).expect("sound");
        let entries = restored.entries.iter().map(|entry| (entry.index().0, entry.term().0)).collect();
        (restored.base.0.0, entries)
    }

    #[test]
    fn an_entry_replaces_what_stood_there_and_behind() {
        let mut replay = Replay::new(mark(1, 1));
        [entry(2, 1), entry(3, 1), entry(4, 1), entry(3, 2)]
            .into_iter()
            .for_each(|entry| replay.entry(entry));
        assert_eq!(restored(replay), (1, vec![(2, 1), (3, 2)]));
    }

    #[test]
    fn a_reset_voids_what_is_before_it_or_if_not_installed_behind_it() {
        for (installed, expected) in [(8, (8, vec![(9, 4)])), (1, (1, vec![(2, 1), (3, 1)]))] {
            let mut replay = Replay::new(mark(installed, if installed == 8 { 3 } else { 1 }));
            replay.hard_state(Term(1), ReplicaId::new(1));
            [entry(2, 1), entry(3, 1)].into_iter().for_each(|entry| replay.entry(entry));
            replay.reset(Index(8), Term(3));
            replay.entry(entry(9, 4));
            replay.hard_state(Term(4), None);
            assert_eq!(replay.hard, (Term(4), None), "terms and votes always count");
            assert_eq!(restored(replay), expected);
        }
    }

    #[test]
    fn what_is_appended_after_an_abandoned_reset_counts() {
        let mut replay = Replay::new(mark(1, 1));
        replay.entry(entry(2, 1));
        replay.reset(Index(8), Term(3));
        replay.entry(entry(9, 4));
        replay.abandon();
        replay.entry(entry(3, 5));
        assert_eq!(restored(replay), (1, vec![(2, 1), (3, 5)]));
    }

    #[test]
    fn an_abandoned_reset_that_the_log_gave_away_still_voids_what_is_left_of_it() {
        let mut replay = Replay::new(mark(9, 3));
        [entry(22, 4), entry(23, 4)].into_iter().for_each(|entry| replay.entry(entry));
        replay.abandon();
        replay.entry(entry(10, 5));
        assert_eq!(restored(replay), (9, vec![(10, 5)]));
    }

    #[test]
    fn a_log_that_the_checkpoint_outran_begins_at_the_checkpoint() {
        let mut replay = Replay::new(mark(9, 3));
        replay.entry(entry(2, 1));
        let restored = replay.finish(Tail::Ambiguous).expect("sound");
        assert_eq!(restored.base, (Index(9), Term(3)));
        assert_eq!(restored.repair, Some(Write::Reset { index: Index(9), term: Term(3) }));
    }

    #[test]
    fn what_was_replaced_may_have_lost_its_beginning() {
        #[rustfmt::skip] // columns
        let table = [
            // the checkpoint, the log                                            base, entries
            (mark(7, 2), vec![entry(9, 1), entry(7, 2), entry(8, 2)],             (7, vec![(8, 2)])),
            (mark(7, 1), vec![entry(9, 1), entry(10, 1), entry(8, 2)],            (7, vec![(8, 2)])),
            (mark(8, 2), vec![entry(8, 1), entry(9, 1), entry(7, 2), entry(8, 2)], (7, vec![(8, 2)])),
            (mark(9, 2), vec![entry(8, 1), entry(9, 1), entry(8, 2), entry(9, 2)], (8, vec![(9, 2)])),
        ];
        for (mark, entries, expected) in table {
            let mut replay = Replay::new(mark);
            let shown: Vec<_> = entries.iter().map(|entry| (entry.index().0, entry.term().0)).collect();
            entries.into_iter().for_each(|entry| replay.entry(entry));
            assert_eq!(restored(replay), expected, "{shown:?}");
        }
    }

    #[test]
    fn what_a_checkpoint_has_takes_little_memory_however_long_the_log_is() {
        let mut replay = Replay::new(mark(9_000, 2));
        for index in 1..=10_000 {
            let term = if index < 5_000 { 1 } else { 2 };
            replay.entry(Logged::new(Term(term), Index(index), 1, Micros(0), &[7; 4096]));
        }
        let whole = replay.finish(Tail::Certain).expect("sound");
        let (base, last) = (whole.base.0.0, whole.entries.last().map(|entry| entry.index().0));
        assert!((9_000 - BEFORE_BYTES_MAX as u64 / 4096..=9_000).contains(&base), "{base}");
        assert_eq!((whole.base.1, last), (Term(2), Some(10_000)));
        assert_eq!(whole.entries.len() as u64, 10_000 - base);
    }

    #[test]
    fn holes_and_contradictions_are_refused() {
        let mut replay = Replay::new(mark(1, 1));
        replay.entry(entry(3, 1));
        assert!(matches!(replay.finish(Tail::Certain), Err(ReplayError::Gap { .. })));
        let mut replay = Replay::new(mark(1, 1));
        replay.entry(entry(2, 1));
        replay.entry(entry(4, 1));
        assert!(matches!(replay.finish(Tail::Certain), Err(ReplayError::Hole { .. })));
        let mut replay = Replay::new(mark(3, 2));
        [entry(2, 1), entry(3, 1)].into_iter().for_each(|entry| replay.entry(entry));
        assert!(matches!(replay.finish(Tail::Certain), Err(ReplayError::Differs { .. })));
    }
}
