//! The truncation rule with keepers, against a model that remembers every entry: a segment is kept if and only if a checkpoint
//! or a keeper needs it or one before it, and what is to be checkpointed is what would be without keepers.

use std::collections::BTreeMap;

use journal::{Entry, Keeper, Positions, Record, SegmentId, Truncate};
use kernel::{GroupId, Index, Lsn, Micros, Rng, Term};

const GROUPS: u64 = 3;
const CAPACITY: u64 = 100;
const SYNCED: Lsn = Lsn(u64::MAX);

/// One log twice: with keepers and without; and all that was written to it.
struct World {
    rng: Rng,
    kept: Truncate,
    plain: Truncate,
    next: SegmentId,
    /// The entries that count, with their segments, by group.
    entries: BTreeMap<GroupId, Vec<(u64, SegmentId)>>,
    checkpoints: BTreeMap<GroupId, u64>,
    /// What each keeper still gets; a group that was given up is at the end of time.
    keepers: BTreeMap<Keeper, BTreeMap<GroupId, u64>>,
    lost: BTreeMap<Keeper, Vec<GroupId>>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            rng: Rng::new(seed),
            kept: Truncate::default(),
            plain: Truncate::default(),
            next: SegmentId::FIRST,
            entries: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            keepers: BTreeMap::new(),
            lost: BTreeMap::new(),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        for log in [&mut self.kept, &mut self.plain] {
            log.open(self.next, CAPACITY, Lsn(0));
        }
        self.next = self.next.next();
    }

    fn active(&self) -> SegmentId {
        SegmentId(self.next.0 - 1)
    }

    fn group(&mut self) -> GroupId {
        GroupId(self.rng.below(GROUPS) as u32)
    }

    fn checkpointed(&self, group: GroupId) -> u64 {
        self.checkpoints.get(&group).copied().unwrap_or_default()
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=8 => self.write(),
            9..=12 => self.open(),
            13..=15 => {
                let group = self.group();
                let last = self.entries.get(&group).and_then(|it| it.last()).map_or(0, |it| it.0);
                let from = self.checkpointed(group);
                let index = from + self.rng.below(last.saturating_sub(from) + 1);
                self.checkpoints.insert(group, index);
                [&mut self.kept, &mut self.plain]
                    .into_iter()
                    .for_each(|log| log.checkpoint(group, Index(index)));
            }
            16 => self.forget(),
            17 | 18 => self.reserve(),
            _ => self.give_up(),
        }
        for log in [&mut self.kept, &mut self.plain] {
            while log.retire(SYNCED).is_some() {}
        }
    }

    /// A few entries, behind what the group has or in the place of what is not checkpointed.
    fn write(&mut self) {
        let group = self.group();
        let (active, from) = (self.active(), self.checkpointed(group));
        let entries = self.entries.entry(group).or_default();
        let last = entries.last().map_or(from, |it| it.0);
        let back = if self.rng.chance(0.3) { self.rng.below(last - from + 1) } else { 0 };
        for index in (last - back + 1..).take(1 + self.rng.below(4) as usize) {
            let replaces = entries.last().is_some_and(|it| it.0 >= index);
            entries.retain(|it| it.0 < index);
            entries.push((index, active));
            let (term, index, time) = (Term(1), Index(index), Micros(0));
            let record = Record::Entry(Entry { group, term, index, semantics: 1, time, body: b"" });
            [&mut self.kept, &mut self.plain].into_iter().for_each(|log| log.note(&record, replaces, Lsn(0)));
        }
    }

    /// The group is no more; it may begin again.
    fn forget(&mut self) {
        let group = self.group();
        [&mut self.kept, &mut self.plain].into_iter().for_each(|log| log.forget(group));
        let gone = self.entries.remove(&group).unwrap_or_default();
        self.checkpoints.remove(&group);
        let oldest = self.kept.oldest().expect("the active one is kept");
        for (keeper, after) in &mut self.keepers {
            let after = after.remove(&group).unwrap_or_default();
            // What is not in the log any more was not reserved.
            if gone.iter().any(|(index, segment)| *index > after && *segment >= oldest) {
                self.lost.entry(*keeper).or_default().push(group);
            }
        }
    }

    fn reserve(&mut self) {
        let keeper = Keeper(self.rng.below(2));
        if self.rng.chance(0.2) {
            self.kept.release(keeper);
            self.keepers.remove(&keeper);
            self.lost.remove(&keeper);
            return;
        }
        let mut after = BTreeMap::new();
        for group in (0..GROUPS as u32).map(GroupId) {
            let known = self.checkpointed(group);
            if known > 0 || self.rng.chance(0.5) {
                after.insert(group, known + self.rng.below(3));
            }
        }
        let positions: Positions = after.iter().map(|(group, index)| (*group, Index(*index))).collect();
        let told: Vec<GroupId> =
            self.kept.reserve(keeper, positions).expect("they are few").into_iter().collect();
        let mut expected = self.lost.remove(&keeper).unwrap_or_default();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(told, expected, "what was lost is told once");
        self.keepers.insert(keeper, after);
    }

    fn give_up(&mut self) {
        let bytes_max = CAPACITY * self.rng.below(4);
        let plain = self.plain.oldest().expect("the active one is kept");
        while let Some(first) = self.first_reserved().filter(|first| *first < plain) {
            if CAPACITY * (plain.0 - first.0) <= bytes_max {
                break;
            }
            for (keeper, after) in &mut self.keepers {
                for (group, entries) in &self.entries {
                    let limit = after.get(group).copied().unwrap_or_default();
                    if entries.iter().any(|(index, segment)| *index > limit && *segment == first) {
                        after.insert(*group, u64::MAX);
                        self.lost.entry(*keeper).or_default().push(*group);
                    }
                }
            }
        }
        self.kept.give_up(bytes_max);
        assert!(self.kept.bytes_reserved() <= bytes_max);
    }

    /// The first segment in the log that a keeper needs.
    fn first_reserved(&self) -> Option<SegmentId> {
        let oldest = self.kept.oldest()?;
        let needed = self.keepers.values().flat_map(|after| {
            self.entries.iter().flat_map(move |(group, entries)| {
                let limit = after.get(group).copied().unwrap_or_default();
                entries.iter().filter(move |it| it.0 > limit).map(|it| it.1)
            })
        });
        needed.filter(|segment| *segment >= oldest).min()
    }

    fn check(&self) {
        let plain = self.plain.oldest().expect("the active one is kept");
        let expected = self.first_reserved().map_or(plain, |first| first.min(plain));
        assert_eq!(self.kept.oldest(), Some(expected));
        assert_eq!(self.kept.lagging(), self.plain.lagging());
        assert_eq!(self.kept.bytes_needed(), self.plain.bytes());
        assert_eq!(self.kept.bytes_reserved(), CAPACITY * (plain.0 - expected.0));
        assert_eq!(self.kept.bytes(), self.kept.bytes_needed() + self.kept.bytes_reserved());
        assert_eq!(self.plain.bytes_reserved(), 0);
    }
}

#[test]
fn a_segment_is_kept_if_and_only_if_a_checkpoint_or_a_keeper_needs_it() {
    let (mut reserved, mut given_up) = (0, 0);
    for seed in 0..2_000 {
        let mut world = World::new(seed);
        for step in 0..120 {
            let before = world.lost.values().map(Vec::len).sum::<usize>();
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                world.step();
                world.check();
            }));
            assert!(checked.is_ok(), "seed {seed}, step {step}");
            reserved += u64::from(world.kept.bytes_reserved() > 0);
            given_up += u64::from(world.lost.values().map(Vec::len).sum::<usize>() > before);
        }
    }
    assert!(reserved > 10_000 && given_up > 1_000, "too little happens: {reserved} {given_up}");
}

#[test]
fn a_fifth_keeper_is_refused_and_one_that_is_there_may_ask_again() {
    let mut log = Truncate::default();
    for keeper in 0..4 {
        assert!(log.reserve(Keeper(keeper), Positions::new()).is_ok());
    }
    assert!(log.reserve(Keeper(4), Positions::new()).is_err());
    assert!(log.reserve(Keeper(3), Positions::new()).is_ok());
    log.release(Keeper(0));
    assert!(log.reserve(Keeper(4), Positions::new()).is_ok());
}
