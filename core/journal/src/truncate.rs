//! The truncation rule: a segment may go once every group's state holds what the segment holds.
//!
//! Segments go oldest first, so the log stays one piece. The active segment never goes. Terms and votes
//! do not hold a segment back: each new segment begins with a copy of them (see [`crate::commit`]).
//!
//! What is left must say of a replicated group what the whole log said, although its records may void earlier ones:
//! - An entry replaces what the group had from its index on, so older segments do not hold that any more, once the
//!   entry is synced. Otherwise a group that fell silent after such an exchange would keep the log for ever.
//! - A reset counts as an entry at its index. Until the group's state is there, what stands before it may come back, and
//!   nothing before it is taken for replaced. Once it is there, all of that is void.
//! - Once a reset is abandoned, what stands between the two is void. Who reads a log that begins in between takes all up to
//!   the abandonment for void.
//!
//! Keepers (see [`crate::reserve`]) hold segments beyond that, and nothing else follows from it: which group is to be
//! checkpointed, and how much of the log checkpoints still need, is as if there were none.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::ops::Range;

use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn};

use crate::record::{Record, SegmentId};
use crate::reserve::{Keeper, Positions, Reservations, TooMany};

/// Which segments are kept, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Truncate {
    /// Oldest first, ids without a gap.
    segments: VecDeque<Kept>,
    groups: BTreeMap<GroupId, Standing>,
    /// No checkpoint needs so many of the oldest segments any more, as far as was looked: what a sealed segment holds only
    /// becomes less. The active one is never among them.
    settled: usize,
    reservations: Reservations,
}

/// One segment of the log.
#[derive(Clone, Debug)]
struct Kept {
    id: SegmentId,
    capacity: u64,
    /// Once this is synced, the copies at the segment's start are, and what voids records of older segments.
    ready: Lsn,
    /// What each group has here.
    held: BTreeMap<GroupId, Held>,
}

/// The indexes that a group's state must reach before a segment may go.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Of records before a reset in this segment that may still be abandoned.
    before: Index,
    /// Of the records behind.
    last: Index,
}

impl Held {
    fn most(&self) -> Index {
        self.before.max(self.last)
    }
}

impl Kept {
    fn most(&self) -> impl Iterator<Item = (GroupId, Index)> {
        self.held.iter().map(|(group, held)| (*group, held.most()))
    }
}

/// What is known of a group whose state is durable somewhere, or whose log was reset.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    checkpointed: Index,
    /// The group's entries begin in this segment: those of older ones are not replaced by what comes.
    since: SegmentId,
    /// Its last reset, which is in segment `since`, while that is neither installed nor abandoned.
    reset: Option<Reset>,
}

#[derive(Clone, Copy, Debug)]
struct Reset {
    index: Index,
    /// Where the group's entries began before.
    since: SegmentId,
}

impl Truncate {
    /// A new last segment, whose opening copies end at `ready`.
    pub fn open(&mut self, id: SegmentId, capacity: u64, ready: Lsn) {
        if let Some(last) = self.segments.back() {
            assert!(last.id.next() == id, "segments are opened without a gap");
        }
        self.segments.push_back(Kept { id, capacity, ready, held: BTreeMap::new() });
    }

    /// The last segment, which has no records, was not opened after all.
    pub fn withdraw(&mut self) {
        let last = self.segments.pop_back().expect("a segment that is not opened after all was opened");
        assert!(last.held.is_empty(), "a segment with records stays");
        self.settled = self.settled.min(self.sealed());
    }

    /// A record that ends at `end` went into the last segment. `replaces` says that it is an entry where its group
    /// already had one.
    ///
    /// O(log groups), or O(segments) if it voids earlier records.
    pub fn note(&mut self, record: &Record<'_>, replaces: bool, end: Lsn) {
        match *record {
            Record::Entry(entry) => {
                if replaces {
                    self.replace(entry.group, entry.index, end);
                }
                self.hold(entry.group, entry.index);
            }
            Record::Committed { group, index } => self.hold(group, index),
            Record::Reset { group, index, .. } => self.reset(group, index, end),
            Record::Abandon { group } => self.abandon(group, end),
            Record::HardState(_) => {}
        }
    }

    /// The state of `group` up to `index` is durable elsewhere. Never goes back.
    pub fn checkpoint(&mut self, group: GroupId, index: Index) {
        let standing = self.groups.entry(group).or_default();
        standing.checkpointed = index.max(standing.checkpointed);
        if standing.reset.is_some_and(|reset| reset.index <= index) {
            self.install(group);
        }
    }

    /// Nobody needs what `group` has in the log. Keepers who do are told that it went.
    pub fn forget(&mut self, group: GroupId) {
        self.groups.remove(&group);
        let held = self.segments.iter_mut().filter_map(|kept| kept.held.remove(&group));
        let last = held.map(|held| held.most()).max().unwrap_or_default();
        self.reservations.forget(group, last);
    }

    /// Keeps, besides what checkpoints need, the segments with entries behind `after` for `keeper`, in the place of what
    /// it asked for before; only those that are still there. Tells the groups of which something went since then although
    /// it was reserved.
    ///
    /// # Errors
    /// [`TooMany`]; nothing has changed then.
    pub fn reserve(&mut self, keeper: Keeper, after: Positions) -> Result<BTreeSet<GroupId>, TooMany> {
        self.reservations.set(keeper, after)
    }

    /// `keeper` needs nothing any more.
    pub fn release(&mut self, keeper: Keeper) {
        self.reservations.remove(keeper);
    }

    /// Gives up what the oldest segments are kept for until those that only keepers need take at most `bytes_max` bytes.
    /// A group that is given up is not kept again before its keeper asks again.
    ///
    /// O(those segments), and O(groups in each that goes).
    pub fn give_up(&mut self, bytes_max: u64) {
        if self.reservations.is_empty() {
            return;
        }
        let needless = self.needless();
        let mut left = self.capacity(0..needless);
        for kept in self.segments.range(..needless) {
            if left <= bytes_max {
                return;
            }
            left -= kept.capacity;
            kept.most().for_each(|(group, last)| self.reservations.give_up(group, last));
        }
    }

    /// Forgets the oldest segment and names it, if nobody needs it any more.
    ///
    /// O(groups in that segment). Ask again until `None`. `synced` is the log's synced position: what
    /// replaces the segment must be durable first.
    pub fn retire(&mut self, synced: Lsn) -> Option<SegmentId> {
        self.settled = self.needless();
        let (oldest, successor) = (self.segments.front()?, self.segments.get(1)?);
        if synced < successor.ready || self.settled == 0 && !is(Bug::TruncateBeforeCheckpoint) {
            return None;
        }
        if self.reservations.need(oldest.most()).is_some() {
            return None;
        }
        self.settled = self.settled.saturating_sub(1);
        self.segments.pop_front().map(|kept| kept.id)
    }

    /// The first group whose checkpoint holds segments back: make one to shorten the log.
    ///
    /// `None` if no checkpoint is needed for anything but the active segment, or if the oldest may go. What only keepers need
    /// is passed over: no checkpoint would free it.
    #[must_use]
    pub fn lagging(&self) -> Option<GroupId> {
        let (at, oldest) = (self.needless(), self.segments.front()?);
        let reserved = self.reservations.need(oldest.most());
        if is(Bug::LaggingNamesReserved) && reserved.is_some() {
            return reserved;
        }
        let goes = at > 0 && reserved.is_none();
        if goes || at >= self.sealed() { None } else { self.behind(&self.segments[at]) }
    }

    /// The first segment that has entries of `group` at `index` or behind that count, as far as is known here.
    #[must_use]
    pub fn first_with(&self, group: GroupId, index: Index) -> Option<SegmentId> {
        let has = |kept: &&Kept| kept.held.get(&group).is_some_and(|held| held.last >= index);
        self.segments.iter().find(has).map(|kept| kept.id)
    }

    /// The first segment that has, of a group named in `after`, entries behind its position there that count, as far as is
    /// known here.
    #[must_use]
    pub fn first_behind(&self, after: &Positions) -> Option<SegmentId> {
        let is_wanted =
            |(group, last): (GroupId, Index)| after.get(&group).is_some_and(|after| *after < last);
        self.segments.iter().find(|kept| kept.most().any(is_wanted)).map(|kept| kept.id)
    }

    /// The room that the kept segments take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.capacity(0..self.segments.len())
    }

    /// The room of the segments that are there for checkpoints, the active one included.
    #[must_use]
    pub fn bytes_needed(&self) -> u64 {
        self.capacity(self.needless()..self.segments.len())
    }

    /// The room of the segments that are there for keepers only.
    #[must_use]
    pub fn bytes_reserved(&self) -> u64 {
        let needless = self.needless();
        let first =
            self.segments.range(..needless).position(|kept| self.reservations.need(kept.most()).is_some());
        first.map_or(0, |first| self.capacity(first..needless))
    }

    /// The oldest segment that is kept.
    #[must_use]
    pub fn oldest(&self) -> Option<SegmentId> {
        self.segments.front().map(|kept| kept.id)
    }

    /// How many segments are not written any more.
    fn sealed(&self) -> usize {
        self.segments.len().saturating_sub(1)
    }

    /// How many of the oldest segments no checkpoint needs.
    fn needless(&self) -> usize {
        let sealed = self.sealed();
        (self.settled..sealed).find(|at| self.behind(&self.segments[*at]).is_some()).unwrap_or(sealed)
    }

    /// The first group whose checkpoint is behind what the segment has of it.
    fn behind(&self, kept: &Kept) -> Option<GroupId> {
        let durable = |group| self.groups.get(&group).map(|standing| standing.checkpointed);
        kept.most().find(|(group, last)| durable(*group).is_none_or(|durable| durable < *last)).map(|it| it.0)
    }

    fn capacity(&self, range: Range<usize>) -> u64 {
        self.segments.range(range).map(|kept| kept.capacity).sum()
    }

    fn active(&mut self) -> &mut Kept {
        self.segments.back_mut().expect("a record is in an opened segment")
    }

    fn hold(&mut self, group: GroupId, index: Index) {
        let held = self.active().held.entry(group).or_default();
        held.last = index.max(held.last);
    }

    /// What the group had from `index` on is void, as far back as nothing else voids it already.
    fn replace(&mut self, group: GroupId, index: Index, end: Lsn) {
        let since = self.groups.get(&group).map_or(SegmentId(0), |standing| standing.since);
        let below = Index(index.0.saturating_sub(1));
        for kept in self.segments.iter_mut().rev().take_while(|kept| kept.id >= since) {
            if let Some(held) = kept.held.get_mut(&group) {
                held.last = below.min(held.last);
            }
        }
        self.wait(end);
    }

    fn reset(&mut self, group: GroupId, index: Index, end: Lsn) {
        // There is a next one only after the last was installed, even if no checkpoint has said so yet.
        self.install(group);
        let active = self.active();
        let (id, held) = (active.id, active.held.entry(group).or_default());
        *held = Held { before: held.last, last: index };
        let standing = self.groups.entry(group).or_default();
        standing.reset = Some(Reset { index, since: standing.since });
        standing.since = id;
        // The state was there first: the log had to be told where it begins.
        if index <= standing.checkpointed {
            self.install(group);
            self.wait(end);
        }
    }

    fn abandon(&mut self, group: GroupId, end: Lsn) {
        let standing = self.groups.entry(group).or_default();
        let (void, reset) = (standing.since, standing.reset.take());
        standing.since = reset.map_or(SegmentId(0), |reset| reset.since);
        for kept in self.segments.iter_mut().rev().take_while(|kept| kept.id >= void) {
            let before = kept.held.remove(&group).map(|held| held.before).filter(|before| *before > Index(0));
            if let Some(last) = before {
                kept.held.insert(group, Held { last, ..Held::default() });
            }
        }
        self.wait(end);
    }

    /// The group's last reset counts, so nothing before it does.
    fn install(&mut self, group: GroupId) {
        let Some(standing) = self.groups.get_mut(&group) else { return };
        if standing.reset.take().is_none() {
            return;
        }
        for kept in self.segments.iter_mut().take_while(|kept| kept.id <= standing.since) {
            if kept.id < standing.since {
                kept.held.remove(&group);
            } else if let Some(held) = kept.held.get_mut(&group) {
                held.before = Index(0);
            }
        }
    }

    /// No older segment may go before `end` is synced.
    fn wait(&mut self, end: Lsn) {
        for kept in self.segments.iter_mut().skip(1) {
            kept.ready = end.max(kept.ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use kernel::{Micros, Term};

    use super::{GroupId, Index, Lsn, Record, SegmentId, Truncate};
    use crate::record::Entry;

    const A: GroupId = GroupId(1);
    const B: GroupId = GroupId(2);

    /// Three segments: A 1–4 and B 1 in the first, A 5 in the second, nothing in the active third.
    fn log() -> Truncate {
        let mut log = Truncate::default();
        log.open(SegmentId(1), 100, Lsn(10));
        (1..=4).for_each(|index| log.hold(A, Index(index)));
        log.hold(B, Index(1));
        log.open(SegmentId(2), 100, Lsn(110));
        log.hold(A, Index(5));
        log.open(SegmentId(3), 100, Lsn(210));
        log
    }

    #[test]
    fn a_segment_goes_once_all_its_groups_are_durable_elsewhere() {
        #[rustfmt::skip] // columns
        let table = [
            // checkpoints                                synced  retired        holds back
            (vec![],                                      300,    vec![],        Some(A)),
            (vec![(A, 3), (B, 1)],                        300,    vec![],        Some(A)),
            (vec![(A, 4)],                                300,    vec![],        Some(B)),
            (vec![(A, 4), (B, 1)],                        300,    vec![1],       Some(A)),
            (vec![(A, 4), (B, 1)],                        109,    vec![],        None), // copies not synced
            (vec![(A, 5), (A, 2), (B, 9)],                300,    vec![1, 2],    None), // never goes back
            (vec![(A, 5), (B, 1)],                        209,    vec![1],       None),
        ];
        for (checkpoints, synced, expected, lagging) in table {
            let mut log = log();
            checkpoints.iter().for_each(|&(group, index)| log.checkpoint(group, Index(index)));
            let retired: Vec<u64> =
                core::iter::from_fn(|| log.retire(Lsn(synced))).map(|segment| segment.0).collect();
            assert_eq!(retired, expected, "{checkpoints:?} {synced}");
            assert_eq!(log.lagging(), lagging, "{checkpoints:?} {synced}");
            assert_eq!(log.bytes(), 100 * (3 - retired.len() as u64));
        }
    }

    enum Step {
        /// An entry of A.
        E(u64),
        /// One where A already had one.
        Again(u64),
        Reset(u64),
        Abandon,
        Committed(u64),
        /// The next segment.
        Open,
        /// A's state is durable up to here.
        At(u64),
    }
    use Step::{Abandon, Again, At, Committed, E, Open, Reset};

    /// The segments that may go after these steps, each of which ends at its number times ten, up to `synced`.
    fn retired(steps: &[Step], synced: u64) -> Vec<u64> {
        let mut log = Truncate::default();
        log.open(SegmentId(1), 100, Lsn(0));
        let mut id = SegmentId(1);
        for (at, step) in steps.iter().enumerate() {
            let end = Lsn(10 * (at as u64 + 1));
            let entry = |index| {
                let (group, index, term) = (A, Index(index), Term(1));
                Record::Entry(Entry { group, term, index, semantics: 1, time: Micros(0), body: b"" })
            };
            match *step {
                E(index) => log.note(&entry(index), false, end),
                Again(index) => log.note(&entry(index), true, end),
                Reset(index) => {
                    log.note(&Record::Reset { group: A, index: Index(index), term: Term(1) }, false, end);
                }
                Abandon => log.note(&Record::Abandon { group: A }, false, end),
                Committed(index) => {
                    log.note(&Record::Committed { group: A, index: Index(index) }, false, end)
                }
                Open => {
                    id = id.next();
                    log.open(id, 100, end);
                }
                At(index) => log.checkpoint(A, Index(index)),
            }
        }
        core::iter::from_fn(|| log.retire(Lsn(synced))).map(|segment| segment.0).collect()
    }

    #[test]
    fn what_is_void_holds_no_segment_and_what_may_come_back_does() {
        #[rustfmt::skip] // columns
        let table: [(&[Step], u64, &[u64]); 18] = [
            // steps                                                                          synced retired
            (&[E(5), E(9), Open, E(10), At(8)],                                                  900, &[]),
            (&[E(5), E(9), Open, Again(7), E(8), At(8)],                                         900, &[1]), // replaced
            (&[E(5), E(9), Open, Again(7), E(8), At(8)],                                          39, &[]),  // not for sure
            (&[E(5), E(9), Again(7), Open, At(7)],                                               900, &[1]), // in one segment
            (&[E(5), E(9), Open, Again(7), E(8), At(6)],                                         900, &[1]),
            (&[E(5), E(9), Open, Reset(20), Open, At(9)],                                        900, &[1]), // not installed
            (&[E(5), E(30), Open, Reset(20), Open, E(21), At(9)],                                900, &[]),
            (&[E(5), E(30), Open, Reset(20), Open, E(21), At(20)],                               900, &[1, 2]), // installed
            (&[E(5), E(30), Reset(20), Open, E(21), At(20)],                                     900, &[1]),
            (&[At(9), E(5), E(30), Open, Reset(9), Open],                                        900, &[1, 2]), // outrun
            (&[E(30), Open, Reset(20), E(22), Open, Abandon, E(31), Open, At(29)],               900, &[]), // 30 is back
            (&[E(30), Open, Reset(20), E(22), Open, Abandon, E(31), Open, At(30)],               900, &[1, 2]),
            (&[E(30), Open, Reset(20), E(22), Open, Abandon, Again(10), Open, At(9)],            900, &[1, 2]), // replaced
            (&[E(9), Reset(20), E(22), Open, E(23), Open, E(24), Abandon, E(10), Open, At(8)],   900, &[]),
            (&[E(9), Reset(20), E(22), Open, E(23), Open, E(24), Abandon, E(10), Open, At(9)],   900, &[1, 2]),
            (&[E(9), Reset(20), E(22), Open, E(23), Open, E(24), Abandon, E(10), Open, At(9)],    79, &[]), // not for sure
            (&[E(9), Reset(20), E(22), Open, Abandon, E(10), Open, Reset(15), Open, At(15)],     900, &[1, 2, 3]), // installed later
            (&[E(12), Open, Committed(12), Open, E(13), At(11)],                                 900, &[]),
        ];
        for (at, (steps, synced, expected)) in table.iter().enumerate() {
            assert_eq!(retired(steps, *synced), *expected, "row {at}");
        }
    }

    #[test]
    fn a_forgotten_group_holds_nothing() {
        let mut log = log();
        log.forget(A);
        log.checkpoint(B, Index(1));
        assert_eq!([log.retire(Lsn(300)), log.retire(Lsn(300))], [Some(SegmentId(1)), Some(SegmentId(2))]);
    }
}
