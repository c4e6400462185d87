//! The truncation rule: a segment may go once every group's state holds what the segment holds.
//!
//! Segments go oldest first, so the log stays one piece. The active segment never goes. Terms and votes
//! do not hold a segment back: each new segment begins with a copy of them (see [`crate::commit`]).

use alloc::collections::{BTreeMap, VecDeque};

use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn};

use crate::record::SegmentId;

/// Which segments are kept, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Truncate {
    /// Oldest first, ids without a gap.
    segments: VecDeque<Kept>,
    checkpointed: BTreeMap<GroupId, Index>,
}

/// One segment of the log.
#[derive(Clone, Debug)]
struct Kept {
    id: SegmentId,
    capacity: u64,
    /// Once this is synced, the copies at the segment's start are.
    ready: Lsn,
    /// The highest index of each group that has entries here.
    last: BTreeMap<GroupId, Index>,
}

impl Truncate {
    /// A new last segment, whose opening copies end at `ready`.
    pub fn open(&mut self, id: SegmentId, capacity: u64, ready: Lsn) {
        if let Some(last) = self.segments.back() {
            assert!(last.id.next() == id, "segments are opened without a gap");
        }
        self.segments.push_back(Kept { id, capacity, ready, last: BTreeMap::new() });
    }

    /// An entry of `group` went into the last segment.
    pub fn note(&mut self, group: GroupId, index: Index) {
        let kept = self.segments.back_mut().expect("an entry is in an opened segment");
        let last = kept.last.entry(group).or_default();
        *last = index.max(*last);
    }

    /// The state of `group` up to `index` is durable elsewhere. Never goes back.
    pub fn checkpoint(&mut self, group: GroupId, index: Index) {
        let durable = self.checkpointed.entry(group).or_default();
        *durable = index.max(*durable);
    }

    /// Forgets the oldest segment and names it, if nobody needs it any more.
    ///
    /// O(groups in that segment). Ask again until `None`. `synced` is the log's synced position: the
    /// copies that replace the segment must be durable first.
    pub fn retire(&mut self, synced: Lsn) -> Option<SegmentId> {
        let successor = self.segments.get(1)?;
        if synced < successor.ready || self.lagging().is_some() && !is(Bug::TruncateBeforeCheckpoint) {
            return None;
        }
        self.segments.pop_front().map(|kept| kept.id)
    }

    /// The first group that holds the oldest segment back: checkpoint it to shorten the log.
    ///
    /// `None` if the log is only its active segment, or if the oldest may go.
    #[must_use]
    pub fn lagging(&self) -> Option<GroupId> {
        if self.segments.len() < 2 {
            return None;
        }
        let behind = |(group, last): &(&GroupId, &Index)| {
            self.checkpointed.get(group).is_none_or(|durable| durable < last)
        };
        self.segments.front()?.last.iter().find(behind).map(|(group, _)| *group)
    }

    /// The room that the kept segments take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|kept| kept.capacity).sum()
    }

    /// The oldest segment that is kept.
    #[must_use]
    pub fn oldest(&self) -> Option<SegmentId> {
        self.segments.front().map(|kept| kept.id)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    const A: GroupId = GroupId(1);
    const B: GroupId = GroupId(2);

    /// Three segments: A 1–4 and B 1 in the first, A 5 in the second, nothing in the active third.
    fn log() -> Truncate {
        let mut log = Truncate::default();
        log.open(SegmentId(1), 100, Lsn(10));
        (1..=4).for_each(|index| log.note(A, Index(index)));
        log.note(B, Index(1));
        log.open(SegmentId(2), 100, Lsn(110));
        log.note(A, Index(5));
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

    #[test]
    fn an_overwritten_suffix_still_holds_its_segment() {
        let mut log = Truncate::default();
        log.open(SegmentId(1), 100, Lsn(10));
        log.note(A, Index(9));
        log.note(A, Index(7)); // a new leader replaced 7..9
        log.open(SegmentId(2), 100, Lsn(110));
        log.checkpoint(A, Index(8));
        assert_eq!(log.retire(Lsn(300)), None);
        log.checkpoint(A, Index(9));
        assert_eq!(log.retire(Lsn(300)), Some(SegmentId(1)));
    }
}
