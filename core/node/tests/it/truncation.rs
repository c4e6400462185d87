//! The log of replicated groups under truncation and power cuts: what is left of it restores what all of it would.
//!
//! Each group lives as a replica may: it appends, votes, has its suffix replaced by new leaders, commits, is checkpointed,
//! and is reset behind snapshots, which a power cut may leave uninstalled. The bytes are the log's real ones. Half of the logs
//! are kept for backups, too.

mod backed;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use consensus::replay::{Replay, Restored, Tail};
use consensus::{Logged, Mark, Members, ReplicaId, group};
use journal::commit::{Need, SEGMENT_BYTES_MIN, State};
use journal::record::{Frame, Salt};
use journal::{Commit, Durability, Entry, HardState, Record, Recover, Refused, SegmentId};
use kernel::planted::Bug;
use kernel::{GroupId, Index, Lsn, Micros, Rng, Term};

use self::backed::Backups;
use crate::cluster::with_rules;

const SEEDS: u64 = 1000;
const LIVES: u64 = 5;
const STEPS: u64 = 120;

/// A record without its body, which is as long as the index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Entry { index: u64, term: u64 },
    Hard { term: u64, vote: u64 },
    Reset { index: u64, term: u64 },
    Abandon,
    Committed { index: u64 },
}

impl Kept {
    fn record(self, group: u32, body: &[u8]) -> Record<'_> {
        let group = GroupId(group);
        match self {
            Kept::Entry { index, term } => {
                let body = &body[..(index as usize * 131) % 2000];
                let (term, index, time) = (Term(term), Index(index), Micros(index));
                Record::Entry(Entry { group, term, index, semantics: 1, time, body })
            }
            Kept::Hard { term, vote } => {
                Record::HardState(HardState { group, term: Term(term), vote: vote.try_into().ok() })
            }
            Kept::Reset { index, term } => Record::Reset { group, index: Index(index), term: Term(term) },
            Kept::Abandon => Record::Abandon { group },
            Kept::Committed { index } => Record::Committed { group, index: Index(index) },
        }
    }

    fn of(record: &Record<'_>) -> Kept {
        match *record {
            Record::Entry(entry) => Kept::Entry { index: entry.index.0, term: entry.term.0 },
            Record::HardState(hard) => {
                Kept::Hard { term: hard.term.0, vote: hard.vote.map_or(0, std::num::NonZeroU64::get) }
            }
            Record::Reset { index, term, .. } => Kept::Reset { index: index.0, term: term.0 },
            Record::Abandon { .. } => Kept::Abandon,
            Record::Committed { index, .. } => Kept::Committed { index: index.0 },
        }
    }
}

/// One group's replica, as far as its log is concerned.
#[derive(Clone)]
struct Replica {
    hard: (u64, u64),
    /// The terms of the entries from index 1 on.
    log: Vec<u64>,
    committed: u64,
    /// The checkpoint.
    mark: (u64, u64),
    /// The reset's snapshot and the log before it, while it is not installed.
    reset: Option<(u64, u64, Vec<u64>)>,
    /// Its last record ends here.
    written: Lsn,
    /// All its records that a crash has left, truncated or not, with their ends.
    all: Vec<(Lsn, Kept)>,
}

impl Replica {
    fn new() -> Replica {
        let (hard, log, all) = ((0, 0), vec![1], Vec::new());
        Replica { hard, log, committed: 1, mark: (1, 1), reset: None, written: Lsn(0), all }
    }

    fn last(&self) -> u64 {
        self.log.len() as u64
    }
}

/// What happened, to show that it does.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    truncated: u64,
    replaced: u64,
    installed: u64,
    abandoned: u64,
    cut: u64,
    backed: u64,
}

struct World {
    rng: Rng,
    now: Micros,
    commit: Commit,
    files: BTreeMap<SegmentId, Vec<u8>>,
    buffer: Vec<u8>,
    body: Vec<u8>,
    groups: Vec<Replica>,
    /// If there are any.
    backups: Option<Backups>,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            rng: Rng::new(seed),
            now: Micros(0),
            commit: Commit::new(SEGMENT_BYTES_MIN, State::fresh(Salt(seed))),
            files: BTreeMap::new(),
            buffer: Vec::new(),
            body: vec![7; 2000],
            groups: vec![Replica::new(); 3],
            backups: None,
            seen: Seen::default(),
        };
        world.append(0, &[]);
        world.sync();
        (0..world.groups.len()).for_each(|group| world.checkpoint(group, (1, 1)));
        if world.rng.chance(0.5) {
            world.backups = Some(Backups::new(world.groups.len()));
            world.back_up();
        }
        world
    }

    fn append(&mut self, group: usize, records: &[Kept]) {
        let encoded: Vec<Record<'_>> = records.iter().map(|it| it.record(group as u32, &self.body)).collect();
        let written = loop {
            match self.commit.append(self.now, &encoded, Durability::EverySec, &mut self.buffer) {
                Ok(written) => break written,
                Err(Refused::Unprepared(need)) => {
                    self.files.insert(need.id, vec![0; need.bytes as usize]);
                    self.commit.prepared(need);
                }
                Err(refused) => panic!("{refused}"),
            }
        };
        for write in written.seal.iter().chain([&written.batch]) {
            let bytes = &self.buffer[write.bytes.clone()];
            let file = self.files.get_mut(&write.segment).expect("written after it was prepared");
            file[write.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let mut end = written.end;
        let replica = &mut self.groups[group];
        let from = replica.all.len();
        for (kept, record) in records.iter().zip(&encoded).rev() {
            replica.all.insert(from, (end, *kept));
            end = Lsn(end.0 - Frame::Record(*record).bytes() as u64);
        }
        replica.written = written.end;
        // What is to be synced at once is synced before anything depends on it.
        if self.commit.sync_due().is_some_and(|due| due <= self.now) {
            self.sync();
        }
    }

    fn sync(&mut self) {
        if let Some(sync) = self.commit.begin_sync() {
            self.commit.synced(sync.end);
        }
        self.retire();
    }

    fn retire(&mut self) {
        while let Some(id) = self.commit.retire() {
            self.files.remove(&id).expect("a retired segment was kept until now");
            self.seen.truncated += 1;
        }
    }

    fn checkpoint(&mut self, group: usize, mark: (u64, u64)) {
        self.groups[group].mark = mark;
        self.commit.checkpoint(GroupId(group as u32), Index(mark.0));
        self.retire();
    }

    fn step(&mut self) {
        self.now = self.now + self.rng.below(100_000);
        let group = self.rng.below(self.groups.len() as u64) as usize;
        match self.rng.below(13) {
            0..=3 => self.entries(group, Vec::new()),
            4 => {
                let hard = self.vote(group);
                self.append(group, &[hard]);
            }
            5 => self.replace(group),
            6 => self.advance(group),
            7 if self.groups[group].reset.is_none() => {
                let replica = &self.groups[group];
                let committed = replica.committed;
                self.checkpoint(group, (committed, replica.log[committed as usize - 1]));
            }
            8 => self.reset(group),
            9 => self.install(group),
            10 => self.back_up(),
            _ if self.rng.chance(0.3) => self.sync(),
            _ => {}
        }
        self.names_who_is_behind();
    }

    /// A term of its own for what comes.
    fn vote(&mut self, group: usize) -> Kept {
        let hard = (self.groups[group].hard.0 + 1, self.rng.below(4));
        self.groups[group].hard = hard;
        Kept::Hard { term: hard.0, vote: hard.1 }
    }

    fn entries(&mut self, group: usize, mut records: Vec<Kept>) {
        if self.groups[group].hard.0 == 0 {
            records.push(self.vote(group));
        }
        let replica = &mut self.groups[group];
        for _ in 0..1 + self.rng.below(4) {
            let term = replica.hard.0;
            replica.log.push(term);
            records.push(Kept::Entry { index: replica.last(), term });
        }
        self.append(group, &records);
    }

    /// A new leader has other entries behind the committed ones.
    fn replace(&mut self, group: usize) {
        let hard = self.vote(group);
        let replica = &mut self.groups[group];
        let least = replica.reset.as_ref().map_or(replica.committed, |reset| reset.0);
        let kept = least + self.rng.below(replica.last() - least + 1);
        self.seen.replaced += u64::from(kept < replica.last());
        replica.log.truncate(kept as usize);
        self.entries(group, vec![hard]);
    }

    /// What is durable may be committed.
    fn advance(&mut self, group: usize) {
        let replica = &mut self.groups[group];
        if replica.reset.is_some() || replica.written > self.commit.durable() {
            return;
        }
        replica.committed += self.rng.below(replica.last() - replica.committed + 1);
        let index = replica.committed;
        if self.rng.chance(0.3) {
            self.append(group, &[Kept::Committed { index }]);
        }
    }

    fn reset(&mut self, group: usize) {
        if self.groups[group].reset.is_some() {
            return;
        }
        let fresh = self.groups[group].hard.0 == 0 || self.rng.chance(0.5);
        let mut records: Vec<Kept> = fresh.then(|| self.vote(group)).into_iter().collect();
        let replica = &mut self.groups[group];
        let (index, term) = (replica.committed + 1 + self.rng.below(9), replica.hard.0);
        let before = replica.log.clone();
        // What it has of that term its leader has too, and all before it: backups rely on that.
        let same = before.iter().rposition(|of_entry| *of_entry == term && self.backups.is_some());
        let same = same.map_or(0, |at| at as u64 + 1);
        replica.log.truncate(same.max(replica.committed).min(index) as usize);
        replica.log.resize(index as usize, term);
        let term = replica.log[index as usize - 1];
        replica.reset = Some((index, term, before));
        self.backups.iter_mut().for_each(|backups| backups.excuse(group));
        records.push(Kept::Reset { index, term });
        self.append(group, &records);
        self.lead_anew(group);
    }

    fn install(&mut self, group: usize) {
        if let Some((index, term, _)) = self.groups[group].reset.take() {
            self.groups[group].committed = index;
            self.checkpoint(group, (index, term));
            self.seen.installed += 1;
        }
    }

    /// A power cut, and the next life.
    fn crash(&mut self) {
        let (durable, end) = (self.commit.durable(), self.commit.end());
        let cut = Lsn(durable.0 + self.rng.below(end.0 - durable.0 + 1));
        self.seen.cut += u64::from(cut < end);
        let mut recover = Recover::new();
        let mut left: Vec<Vec<Kept>> = vec![Vec::new(); self.groups.len()];
        let mut start = None;
        for (id, bytes) in &mut self.files {
            let header = journal::record::Header::decode(*id, bytes).ok();
            let from = header.map(|header| header.start).or(start).unwrap_or(Lsn(0));
            let lost = cut.0.saturating_sub(from.0).min(bytes.len() as u64) as usize;
            bytes[lost..].fill(0);
            start = Some(Lsn(from.0 + bytes.len() as u64));
        }
        for (&id, bytes) in &self.files {
            recover
                .segment(id, bytes, &mut |_, record| {
                    left[record.group().0 as usize].push(Kept::of(&record));
                })
                .expect("a power cut damages nothing");
        }
        let found = recover.finish().expect("nothing is missing").expect("there is a log");
        let (end, next) = (found.state.end, found.state.next);
        for id in &found.discard {
            self.files.remove(id);
        }
        self.commit = Commit::new(SEGMENT_BYTES_MIN, found.state);
        if self.commit.active().is_none() {
            self.files.insert(next, vec![0; SEGMENT_BYTES_MIN as usize]);
            self.commit.prepared(Need { id: next, bytes: SEGMENT_BYTES_MIN });
        }
        self.keep();
        for (group, left) in left.iter().enumerate() {
            let mark = self.groups[group].mark;
            let floor = found.floors.get(&GroupId(group as u32)).map_or(0, |floor| floor.0);
            assert!(floor <= mark.0, "group {group}: entries up to {floor} are said to be gone");
            self.revive(group, end, left);
            self.checkpoint(group, mark);
        }
    }

    /// Compares what is left with what was written, and takes it up.
    fn revive(&mut self, group: usize, end: Lsn, left: &[Kept]) {
        let replica = &mut self.groups[group];
        replica.all.retain(|(at, _)| *at <= end);
        let whole: Vec<Kept> = replica.all.iter().map(|(_, kept)| *kept).collect();
        let expected = restore(replica.mark, &whole);
        let found = restore(replica.mark, left);
        let told = |restored: &Restored| {
            let abandon = restored.repair == Some(group::Write::Abandon);
            (restored.hard, restored.committed, behind(restored), abandon)
        };
        assert_eq!(told(&found), told(&expected), "group {group}: {left:?}, of {whole:?}");
        assert!(found.hard.0.0 >= replica.hard.0, "group {group}: term {} is forgotten", replica.hard.0);
        let (mark, entries) = (replica.mark.0, behind(&found));
        let before = replica.reset.take().map(|reset| reset.2).unwrap_or_else(|| replica.log.clone());
        for index in mark + 1..=replica.committed {
            let found = entries.get((index - mark - 1) as usize).map(|entry| entry.1);
            assert_eq!(found, Some(before[index as usize - 1]), "group {group}: {index} was committed");
        }
        replica.hard = (found.hard.0.0, found.hard.1.map_or(0, ReplicaId::get));
        replica.log = before;
        replica.log.truncate(mark as usize);
        replica.log.extend(entries.iter().map(|entry| entry.1));
        replica.committed = found.committed.0;
        if found.repair == Some(group::Write::Abandon) {
            self.seen.abandoned += 1;
            self.append(group, &[Kept::Abandon]);
            self.lead_anew(group);
        } else if self.rng.chance(0.1) {
            // The log begins at the checkpoint, as if that had outrun it.
            let (index, term) = self.groups[group].mark;
            self.groups[group].log.truncate(index as usize);
            self.groups[group].committed = index;
            self.backups.iter_mut().for_each(|backups| backups.excuse(group));
            self.append(group, &[Kept::Reset { index, term }]);
            self.lead_anew(group);
        }
    }

    /// What the group had and has not any more would come again as it was from the same leader: one index and term is one
    /// log, and backups rely on that. So another one leads.
    fn lead_anew(&mut self, group: usize) {
        if self.backups.is_some() {
            let hard = self.vote(group);
            self.append(group, &[hard]);
        }
    }
}

fn restore(mark: (u64, u64), records: &[Kept]) -> Restored {
    let members = Members::new(ReplicaId::new(1), []).expect("a group has a voter");
    let mut replay = Replay::new(Mark { index: Index(mark.0), term: Term(mark.1), members });
    for record in records {
        match *record {
            Kept::Entry { index, term } => {
                replay.entry(Logged::new(Term(term), Index(index), 1, Micros(index), b""));
            }
            Kept::Hard { term, vote } => replay.hard_state(Term(term), ReplicaId::new(vote)),
            Kept::Reset { index, term } => replay.reset(Index(index), Term(term)),
            Kept::Abandon => replay.abandon(),
            Kept::Committed { index } => replay.committed(Index(index)),
        }
    }
    replay.finish(Tail::Certain).unwrap_or_else(|error| panic!("{error}: {records:?}"))
}

/// The entries behind the checkpoint.
fn behind(restored: &Restored) -> Vec<(u64, u64)> {
    let news = restored.entries.iter().filter(|entry| entry.index() > restored.mark.index);
    news.map(|entry| (entry.index().0, entry.term().0)).collect()
}

/// One log, life after life; at the end everything is committed and checkpointed.
fn live(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..LIVES {
        (0..STEPS).for_each(|_| world.step());
        world.crash();
    }
    world.sync();
    for group in 0..world.groups.len() {
        let replica = &mut world.groups[group];
        replica.committed = replica.last();
        let mark = (replica.last(), replica.log[replica.log.len() - 1]);
        world.checkpoint(group, mark);
    }
    world.sync();
    assert_eq!(world.commit.truncate().lagging(), None, "it holds a log that nobody needs");
    world.crash();
    world.seen.backed = world.backups.map_or(0, |backups| backups.joined);
    world.seen
}

#[test]
fn what_truncation_leaves_restores_what_the_whole_log_would() {
    let _rules = with_rules(Bug::None);
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let seen = catch_unwind(|| live(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        all.truncated += seen.truncated;
        all.replaced += seen.replaced;
        all.installed += seen.installed;
        all.abandoned += seen.abandoned;
        all.cut += seen.cut;
        all.backed += seen.backed;
    }
    let least = all.truncated.min(all.replaced).min(all.installed).min(all.abandoned).min(all.cut);
    let least = least.min(all.backed);
    assert!(least > 2 * SEEDS / 3, "too little happens to show anything: {all:?}");
}

#[test]
fn each_broken_rule_is_seen() {
    let mut missed = Vec::new();
    std::panic::set_hook(Box::new(|_| {}));
    for &bug in Bug::LOG {
        let _rules = with_rules(bug);
        if (0..SEEDS).all(|seed| catch_unwind(AssertUnwindSafe(|| live(seed))).is_ok()) {
            missed.push(bug);
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not seen within {SEEDS} seeds: {missed:?}");
}
