//! Collects the entries of groups out of what nodes send, until each group has all up to the one that is wanted.
//!
//! A log has entries that were never agreed on, and were replaced later. An entry that is told by index *and* term is final,
//! and so is then, by log matching, all that the log had before it at that point: there a group is whole, and nothing of it is
//! taken any more, unless all that was another group's of the same number, as the log says later. So a log is read
//! to its end. What was replaced is in the bytes and is left out by who reads them ([`super::course`]).
//!
//! Of a group that is whole without what was since the backup before, another node may have more: it is asked too,
//! and what was whole is kept as a spare.
//!
//! Memory: at most [`BLOCK_BYTES`] of a group and [`BUFFERED_BYTES_MAX`] of all, however long entries are.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{GroupId, Index, Micros, Term};

use super::course::Course;
use super::history::{Block, History};
use super::records::{Framing, Head, Piece, Records, Rest};
use super::{BackupError, Writer};

/// A block of a group's entries has about so many bytes, and the last one fewer.
pub const BLOCK_BYTES: usize = 1 << 20;
/// The most that a block has: the head of an entry is not cut.
pub const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + 64;
/// Bytes that wait for their block to be full, of all groups.
pub const BUFFERED_BYTES_MAX: usize = 64 << 20;

/// An entry, told from every other one of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Its position; 0 is before all entries.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

impl Point {
    /// Before the first entry of a group of a node of its own.
    pub const BEGINNING: Point = Point { index: Index(0), term: Term(0) };
    /// Before the first entry of a cluster's group: all its first members begin with this, which is in no log.
    pub const FOUNDING: Point = Point { index: Index(1), term: Term(1) };

    /// Whether there is nothing up to here.
    #[must_use]
    pub fn is_first(self) -> bool {
        [Point::BEGINNING, Point::FOUNDING].contains(&self)
    }
}

/// What is wanted of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where the entries of the backup before end, and the group's time there; [`Point::BEGINNING`] or [`Point::FOUNDING`] of
    /// a group that it does not have. Entries go on from there if the log has that very one. Nothing if there is no backup
    /// before.
    pub before: Option<(Point, Micros)>,
    /// The checkpoint of this backup, and its time: everything behind it is needed.
    pub base: (Point, Micros),
    /// The last one that is wanted; not before the checkpoint.
    pub to: Point,
}

/// Where bytes of entries are put.
pub type Put<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Block, BackupError>;

/// Entries on their way into a backup.
#[derive(Debug)]
pub struct Gather {
    records: Records,
    groups: BTreeMap<GroupId, Gathering>,
    /// Whose body comes, if that is wanted.
    running: Option<GroupId>,
}

#[derive(Debug)]
struct Gathering {
    wanted: Wanted,
    course: Course,
    /// The last entry at the index at which the backup before ends; it is not taken, unless it is the last that is wanted.
    joint: Option<(Term, Micros)>,
    buffer: Vec<u8>,
    blocks: Vec<Block>,
    bytes: u64,
    crc: crc32fast::Hasher,
    /// Everything that is wanted is here as soon as the running body is.
    ends: bool,
    whole: bool,
    /// What another reading had: whole, but it does not follow the backup before.
    spare: Option<History>,
}

impl Gather {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(wanted: BTreeMap<GroupId, Wanted>) -> Gather {
        let groups = wanted.into_iter().map(|(group, wanted)| (group, Gathering::new(wanted))).collect();
        Gather { records: Records::new(Framing::Node), groups, running: None }
    }

    /// Behind which entry each group needs all that is not whole, or does not follow the backup before.
    #[must_use]
    pub fn lacks(&self) -> BTreeMap<GroupId, Index> {
        let lacking = self.groups.iter().filter(|(_, it)| !(it.whole && it.follows()));
        lacking.map(|(group, it)| (*group, Index(it.wanted.first().0 - 1))).collect()
    }

    /// The groups of which no reading was whole.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<GroupId> {
        let missing = self.groups.iter().filter(|(_, it)| !it.whole && it.spare.is_none());
        missing.map(|(group, _)| *group).collect()
    }

    /// What comes next is another reading, from the beginning, of these groups: what is not whole begins anew, and
    /// what is and is asked for is kept as a spare.
    ///
    /// # Errors
    /// What `put` says.
    pub fn again(&mut self, asked: &BTreeMap<GroupId, Index>, put: Put<'_>) -> Result<(), BackupError> {
        (self.records, self.running) = (Records::new(Framing::Node), None);
        for (group, it) in &mut self.groups {
            if it.whole && asked.contains_key(group) {
                it.spare = Some(it.finish(put)?);
                it.clear();
            } else if !it.whole {
                it.clear();
            }
        }
        Ok(())
    }

    /// The reading of these groups came to no end: what it had of them may be another group's, as the rest would
    /// say.
    pub fn breaks_off(&mut self, asked: &BTreeMap<GroupId, Index>) {
        let of_reading = self.groups.iter_mut().filter(|(group, _)| asked.contains_key(*group));
        of_reading.for_each(|(_, it)| it.clear());
    }

    /// Takes the next bytes that a node sent.
    ///
    /// # Errors
    /// They are no entries; or what `put` says.
    pub fn take(&mut self, bytes: &[u8], put: Put<'_>) -> Result<(), BackupError> {
        let Gather { records, groups, running } = self;
        records.take(bytes, &mut |piece| -> Result<(), BackupError> {
            match piece {
                Piece::Entry(group, head) => {
                    let of_group = groups.get_mut(&group).filter(|it| !it.whole);
                    let is_wanted = of_group.map_or(Ok(false), |it| it.entry(group, head))?;
                    *running = is_wanted.then_some(group);
                }
                // Also of what was whole: it was another group's of that number.
                Piece::Anew(group) => groups.get_mut(&group).into_iter().for_each(Gathering::clear),
                Piece::TakenBack(group) => {
                    let of_group = groups.get_mut(&group).filter(|it| !it.whole);
                    of_group.into_iter().for_each(Gathering::clear);
                }
                Piece::Body(bytes, rest) => {
                    let Some(group) = *running else { return Ok(()) };
                    let gathering = groups.get_mut(&group).expect("only known groups run");
                    gathering.body(bytes, put)?;
                    if rest == Rest::Done {
                        gathering.whole = gathering.ends;
                        *running = None;
                    }
                }
            }
            Ok(())
        })?;
        let buffered = |it: &Gathering| it.buffer.len();
        while self.groups.values().map(buffered).sum::<usize>() > BUFFERED_BYTES_MAX {
            let longest = self.groups.values_mut().max_by_key(|it| it.buffer.len());
            longest.expect("somebody has what is buffered").flush(put)?;
        }
        Ok(())
    }

    /// What each group has, of those that are not missing: what follows the backup before, if there is that.
    ///
    /// # Errors
    /// What `put` says.
    pub fn finish(self, put: Put<'_>) -> Result<BTreeMap<GroupId, History>, BackupError> {
        let mut histories = BTreeMap::new();
        for (group, mut it) in self.groups {
            let is_best = it.whole && it.follows();
            let history = match it.spare.take() {
                Some(spare) if !is_best => Some(spare),
                Some(_) | None if it.whole => Some(it.finish(put)?),
                Some(_) | None => None,
            };
            histories.extend(history.map(|history| (group, history)));
        }
        Ok(histories)
    }
}

impl Writer {
    /// Has `of` begin another reading, of these groups.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn again(&mut self, of: &mut Gather, asked: &BTreeMap<GroupId, Index>) -> Result<(), BackupError> {
        of.again(asked, &mut |block| self.append(block))
    }

    /// Has `gather` take the next bytes of what a node sends of its log.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn gather(&mut self, gather: &mut Gather, bytes: &[u8]) -> Result<(), BackupError> {
        gather.take(bytes, &mut |block| self.append(block))
    }

    /// Takes what was gathered: each group that is not missing has its history now.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn gathered(&mut self, gather: Gather) -> Result<(), BackupError> {
        let histories = gather.finish(&mut |block| self.append(block))?;
        for (group, history) in histories {
            let group = self.groups.get_mut(&group).expect("a group is gathered for when it is here");
            group.history = Some(history);
        }
        Ok(())
    }
}

impl Wanted {
    /// The first entry that is looked at: the last of the backup before, which must be the same, or the first that is needed.
    fn first(&self) -> Index {
        match self.before {
            Some((before, _)) => before.index.max(Index(1)),
            None => self.base.0.index.next(),
        }
    }
}

impl Gathering {
    fn new(wanted: Wanted) -> Gathering {
        Gathering {
            wanted,
            course: Course::default(),
            joint: None,
            buffer: Vec::new(),
            blocks: Vec::new(),
            bytes: 0,
            crc: crc32fast::Hasher::new(),
            ends: false,
            whole: false,
            spare: None,
        }
    }

    /// Nothing has come in this reading.
    fn clear(&mut self) {
        *self = Gathering { spare: self.spare.take(), ..Gathering::new(self.wanted) };
    }

    /// Whether it goes on where the backup before ends; without one there is nothing to follow.
    fn follows(&self) -> bool {
        let Some((before, time)) = self.wanted.before else { return true };
        // From nothing at all, or from the very entry.
        let begins = before.is_first() && self.course.first() == Some(before.index.next());
        // One that was lost and written anew under the same term is stamped later than anything was by then.
        let is_same = |(term, stamp): (Term, Micros)| term == before.term && stamp <= time;
        begins || self.joint.is_some_and(is_same)
    }

    /// An entry begins; whether its body is wanted.
    fn entry(&mut self, group: GroupId, head: Head) -> Result<bool, BackupError> {
        let Wanted { before, base, to } = self.wanted;
        let (index, is_early) = (head.index, head.index < self.wanted.first());
        let is_joint = before.is_some_and(|(before, _)| index == before.index);
        let follows_joint = self.joint.is_some() && before.is_some_and(|(it, _)| index == it.index.next());
        // What it takes the place of, or does not follow, is of no use with all that is behind.
        if is_early || is_joint || (self.course.starts_anew(index) && !follows_joint) {
            self.clear();
        }
        if is_early {
            return Ok(false);
        }
        if is_joint && index < to.index {
            // The backup before has it, if it is the same: it may be large.
            self.joint = Some((head.term, head.time));
            return Ok(false);
        }
        self.course.take(index, head.time).map_err(|_| BackupError::Unlike(group))?;
        if is_joint {
            self.joint = Some((head.term, head.time));
        }
        head.encode(&mut self.buffer);
        let reaches = self.course.first().is_some_and(|first| first <= base.0.index.next());
        self.ends = reaches && (index, head.term) == (to.index, to.term);
        Ok(true)
    }

    /// Takes bytes of a body.
    fn body(&mut self, mut bytes: &[u8], put: Put<'_>) -> Result<(), BackupError> {
        while self.buffer.len() + bytes.len() >= BLOCK_BYTES {
            let room = BLOCK_BYTES.saturating_sub(self.buffer.len());
            let (now, after) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            self.flush(put)?;
            bytes = after;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes out what is buffered.
    fn flush(&mut self, put: Put<'_>) -> Result<(), BackupError> {
        if !self.buffer.is_empty() {
            self.crc.update(&self.buffer);
            self.bytes += self.buffer.len() as u64;
            self.blocks.push(put(&self.buffer)?);
            // Its memory goes with it: there may be thousands of groups.
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn finish(&mut self, put: Put<'_>) -> Result<History, BackupError> {
        let Wanted { before, base, to } = self.wanted;
        self.flush(put)?;
        let mut history = History::at(base, to);
        if let Some((before, _)) = before.filter(|_| self.follows()) {
            (history.follows, history.from) = (true, before.index);
        }
        history.to_time = history.to_time.max(self.course.time());
        if history.from < to.index {
            (history.entries, history.bytes) = (self.course.taken(), self.bytes);
            history.crc = std::mem::take(&mut self.crc).finalize();
            history.blocks = std::mem::take(&mut self.blocks);
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use kernel::Rng;

    use super::super::data::{DataWriter, ENTRIES};
    use super::super::records::tests::{anew, sent};
    use super::super::{Archive, Digest, ReadOn};
    use super::*;
    use crate::log::OldEntry;

    const GROUP: GroupId = GroupId(70_000);
    const OTHER: GroupId = GroupId(3);

    /// A log that is kept as a list, and what a node sends of it.
    #[derive(Default)]
    struct Naive {
        /// The entries that hold; the first has the index `gone + 1`.
        entries: Vec<OldEntry>,
        gone: u64,
        /// Entries up to here are never replaced.
        agreed: u64,
        sent: Vec<u8>,
    }

    impl Naive {
        fn last(&self) -> u64 {
            self.gone + self.entries.len() as u64
        }

        fn at(&self, index: u64) -> Option<&OldEntry> {
            self.entries.get(index.checked_sub(self.gone + 1)? as usize)
        }

        fn append(&mut self, term: u64, time: u64, rng: &mut Rng, long: bool) {
            let index = Index(self.last() + 1);
            let bytes = if long { rng.below(3 << 20) } else { rng.below(40) };
            let body: Vec<u8> = (0..bytes).map(|at| (at as u8).wrapping_mul(31) ^ term as u8).collect();
            let (term, time) = (Term(term), Micros(time));
            let head = Head { term, index, semantics: 1, time, bytes: 0 };
            sent(GROUP, head, &body, &mut self.sent);
            sent(OTHER, head, b"of another", &mut self.sent);
            self.entries.push(OldEntry { term, index, semantics: 1, time, body });
        }

        /// Something that happens to a log.
        fn step(&mut self, term: &mut u64, time: u64, rng: &mut Rng) {
            match rng.below(24) {
                // Another leader has less.
                0..4 if self.last() > self.agreed => {
                    *term += 1;
                    let keep = self.agreed + rng.below(self.last() - self.agreed);
                    self.entries.truncate((keep.max(self.gone) - self.gone) as usize);
                }
                4..10 => self.agreed += rng.below(self.last() - self.agreed + 1),
                // A snapshot.
                10 if rng.chance(0.2) => {
                    self.gone = self.last() + rng.below(5);
                    self.agreed = self.gone;
                    self.entries.clear();
                    anew(GROUP, Some(Index(self.gone)), &mut self.sent);
                }
                // The number belonged to a group that is gone.
                11 if rng.chance(0.1) => {
                    (self.gone, self.agreed) = (0, 0);
                    self.entries.clear();
                    anew(GROUP, None, &mut self.sent);
                }
                _ => {}
            }
            let long = rng.chance(0.01);
            self.append(*term, time, rng, long);
        }
    }

    fn log(seed: u64) -> Naive {
        let mut rng = Rng::new(seed);
        let (mut naive, mut term) = (Naive::default(), 1);
        for time in 1..40 + rng.below(120) {
            naive.step(&mut term, time * 10, &mut rng);
        }
        naive.agreed = naive.last();
        naive
    }

    fn point(entry: &OldEntry) -> (Point, Micros) {
        (Point { index: entry.index, term: entry.term }, entry.time)
    }

    /// Gathers what is wanted of lots that are cut anywhere, into the log file of backup 1 in `dir`.
    fn gathered(dir: &std::path::Path, sent: &[u8], wanted: Wanted, rng: &mut Rng) -> Option<History> {
        let path = dir.join("log-000001");
        let mut file = DataWriter::create(&path, ENTRIES, 1).unwrap();
        let mut gather = Gather::new([(GROUP, wanted)].into());
        let mut put = |bytes: &[u8]| {
            let chunk = file.append(&path, Digest::of(bytes), bytes)?;
            Ok(Block { digest: chunk.digest, offset: chunk.offset, bytes: chunk.bytes })
        };
        // A reading that broke off leaves nothing behind.
        let asked = gather.lacks();
        gather.take(&sent[..rng.below(sent.len() as u64) as usize], &mut put).unwrap();
        gather.breaks_off(&asked);
        gather.again(&asked, &mut put).unwrap();
        let mut rest = sent;
        while !rest.is_empty() {
            let now = (1 + rng.below(9_000) as usize).min(rest.len());
            gather.take(&rest[..now], &mut put).unwrap();
            rest = &rest[now..];
        }
        let history = gather.finish(&mut put).unwrap().remove(&GROUP);
        file.finish(&path).unwrap();
        history
    }

    #[test]
    fn what_is_gathered_reads_back_as_the_log_has_it_in_the_end() {
        let home = tempfile::tempdir().unwrap();
        let (mut followed, mut broken, mut void) = (0, 0, 0);
        for seed in 0..250 {
            let naive = log(seed);
            let mut rng = Rng::new(seed).fork(1);
            let base = naive.gone + 1 + rng.below(naive.entries.len() as u64);
            let to = base + rng.below(naive.last() - base + 1);
            let before = rng.below(base + 1);
            let of = |index: u64| naive.at(index).map(point);
            let before_point = match before {
                0 => Some((Point::BEGINNING, Micros(0))),
                // What is not there any more may be anything.
                _ => Some(
                    of(before).unwrap_or((Point { index: Index(before), term: Term(1 << 20) }, Micros(3))),
                ),
            };
            let before_point = before_point.filter(|_| rng.chance(0.8));
            let (to_point, _) = of(to).unwrap();
            if before_point.is_none() && to == base {
                // There is nothing to gather.
                continue;
            }
            let wanted = Wanted { before: before_point, base: of(base).unwrap(), to: to_point };
            let history = gathered(home.path(), &naive.sent, wanted, &mut rng).expect("it is whole");
            let has_before = if before == 0 { naive.gone == 0 } else { naive.at(before).is_some() };
            let follows = before_point.is_some() && has_before;
            assert_eq!(history.follows, follows, "seed {seed}: {wanted:?}");
            assert_eq!(history.from.0, if follows { before } else { base }, "seed {seed}");
            assert!(history.is_sound(Index(base)), "seed {seed}: {history:?}");
            let mut archive = Archive::new(home.path());
            let mut found = Vec::new();
            let mut each = |entry| {
                found.push(entry);
                Ok::<ReadOn, BackupError>(ReadOn::On)
            };
            archive.entries((1, GROUP), &history, history.from, &mut each).unwrap();
            let first = (history.from.0 - naive.gone) as usize;
            assert!(found == naive.entries[first..(to - naive.gone) as usize], "seed {seed}");
            (followed, broken) = (followed + usize::from(follows), broken + usize::from(!follows));
            void += history.entries - found.len() as u64;
        }
        assert!(followed > 50 && broken > 50, "{followed} {broken}");
        // What was replaced is in the bytes, so that reading all of it would be noticed.
        assert!(void > 500, "{void}");
    }

    #[test]
    fn what_is_not_there_is_not_whole_and_an_entry_of_another_term_is_not_the_wanted_one() {
        let home = tempfile::tempdir().unwrap();
        let mut rng = Rng::new(4);
        let mut naive = Naive::default();
        (0..20).for_each(|time| naive.append(5, time, &mut rng, false));
        let of = |index: u64| point(naive.at(index).unwrap());
        let good = Wanted { before: Some(of(4)), base: of(8), to: of(15).0 };
        let other_term = Point { term: Term(6), ..good.to };
        let beyond = Point { index: Index(21), term: Term(5) };
        for to in [other_term, beyond] {
            let wanted = Wanted { to, ..good };
            assert_eq!(gathered(home.path(), &naive.sent, wanted, &mut rng), None);
        }
        let found = gathered(home.path(), &naive.sent, good, &mut rng).unwrap();
        assert!(found.follows && found.from == Index(4));
        // The backup before was of another log, so these entries do not go on from it.
        let strange = [(Point { term: Term(4), ..of(4).0 }, of(4).1), (of(4).0, Micros(of(4).1.0 - 1))];
        for before in strange {
            let wanted = Wanted { before: Some(before), ..good };
            let found = gathered(home.path(), &naive.sent, wanted, &mut rng).unwrap();
            assert!(!found.follows && found.from == Index(8), "{found:?}");
        }
        assert_eq!(Gather::new([(GROUP, good)].into()).lacks()[&GROUP], Index(3));
    }

    /// What comes of reading these nodes one after the other while anything is lacking, and how many were read.
    fn read_of(dir: &std::path::Path, nodes: &[&Naive], wanted: Wanted) -> (History, usize) {
        let path = dir.join("log-000001");
        let mut file = DataWriter::create(&path, ENTRIES, 1).unwrap();
        let mut gather = Gather::new([(GROUP, wanted)].into());
        let mut put = |bytes: &[u8]| {
            let chunk = file.append(&path, Digest::of(bytes), bytes)?;
            Ok(Block { digest: chunk.digest, offset: chunk.offset, bytes: chunk.bytes })
        };
        let mut count = 0;
        for node in nodes {
            let asked = gather.lacks();
            if asked.is_empty() {
                break;
            }
            count += 1;
            gather.again(&asked, &mut put).unwrap();
            gather.take(&node.sent, &mut put).unwrap();
        }
        assert!(gather.missing().is_empty(), "one of them has all that is needed");
        let history = gather.finish(&mut put).unwrap().remove(&GROUP).unwrap();
        file.finish(&path).unwrap();
        (history, count)
    }

    #[test]
    fn another_node_is_asked_for_what_follows_and_a_spare_is_taken_where_none_has_it() {
        let home = tempfile::tempdir().unwrap();
        let mut rng = Rng::new(5);
        let (mut all, mut late) = (Naive::default(), Naive { gone: 5, ..Naive::default() });
        (0..20).for_each(|time| all.append(5, time, &mut rng, false));
        // The same entries, from the sixth on; and too few of them.
        (5..20).for_each(|time| late.append(5, time, &mut rng, false));
        let mut few = Naive { gone: 11, ..Naive::default() };
        (11..20).for_each(|time| few.append(5, time, &mut rng, false));
        let of = |index: u64| point(all.at(index).unwrap());
        let wanted = Wanted { before: Some(of(4)), base: of(8), to: of(15).0 };
        #[rustfmt::skip] // columns
        let table = [
            // nodes                    from  read
            (vec![&late, &all],         4,    2),
            (vec![&all, &late],         4,    1),
            (vec![&late, &few, &all],   4,    3),
            (vec![&late, &late],        8,    2),
            (vec![&late, &few],         8,    2),
            (vec![&few, &late],         8,    2),
        ];
        for (row, (nodes, from, read)) in table.into_iter().enumerate() {
            let (history, count) = read_of(home.path(), &nodes, wanted);
            assert_eq!((history.follows, history.from, count), (from == 4, Index(from), read), "row {row}");
            assert!(history.is_sound(Index(8)), "row {row}: {history:?}");
            let mut found = Vec::new();
            let mut each = |entry: OldEntry| {
                found.push(entry.index.0);
                Ok::<ReadOn, BackupError>(ReadOn::On)
            };
            Archive::new(home.path()).entries((1, GROUP), &history, history.from, &mut each).unwrap();
            assert_eq!(found, (from + 1..=15).collect::<Vec<u64>>(), "row {row}");
        }
        // Without a backup before there is nothing to follow.
        let alone = Wanted { before: None, ..wanted };
        assert_eq!(read_of(home.path(), &[&late, &all], alone).1, 1);
    }

    #[test]
    fn the_last_entry_of_the_backup_before_is_looked_at_and_not_stored_again() {
        let home = tempfile::tempdir().unwrap();
        let (mut rng, mut naive) = (Rng::new(7), Naive::default());
        (0..3).for_each(|time| naive.append(5, time, &mut rng, false));
        let head = Head { term: Term(5), index: Index(4), semantics: 1, time: Micros(3), bytes: 0 };
        let body = vec![7; 2 << 20];
        sent(GROUP, head, &body, &mut naive.sent);
        let Head { term, index, semantics, time, .. } = head;
        naive.entries.push(OldEntry { term, index, semantics, time, body });
        (4..20).for_each(|time| naive.append(5, time, &mut rng, false));
        let of = |index: u64| point(naive.at(index).unwrap());
        for (before, base, is_large) in [(4, 8, false), (3, 8, true), (4, 4, false)] {
            let wanted = Wanted { before: Some(of(before)), base: of(base), to: of(15).0 };
            let found = gathered(home.path(), &naive.sent, wanted, &mut rng).unwrap();
            assert!(found.follows && found.from == Index(before), "{before}: {found:?}");
            assert_eq!(found.entries, 15 - before);
            assert_eq!(found.bytes > 1 << 20, is_large, "{before}: {} bytes", found.bytes);
        }
    }

    #[test]
    fn a_reading_that_breaks_off_is_none_although_it_had_all() {
        let mut rng = Rng::new(6);
        let mut naive = Naive::default();
        (0..20).for_each(|time| naive.append(5, time, &mut rng, false));
        let of = |index: u64| point(naive.at(index).unwrap());
        let wanted = Wanted { before: Some(of(4)), base: of(8), to: of(15).0 };
        let mut gather = Gather::new([(GROUP, wanted)].into());
        let mut put =
            |bytes: &[u8]| Ok(Block { digest: Digest::of(bytes), offset: 24, bytes: bytes.len() as u32 });
        let asked = gather.lacks();
        gather.take(&naive.sent, &mut put).unwrap();
        assert!(gather.lacks().is_empty() && gather.missing().is_empty());
        gather.breaks_off(&asked);
        assert_eq!((gather.lacks(), gather.missing()), (asked, BTreeSet::from([GROUP])));
    }
}
