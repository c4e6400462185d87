//! A backup's entries lead from its checkpoint to the state that its members had, at each entry.

use std::collections::BTreeMap;
use std::path::Path;

use disk::backup::{Gather, Group, Incoming, Keep, Keyspace, Point, Reach, Span, Wanted, Writer};
use disk::engine::{CutInfo, EngineOptions, Reader};
use kernel::codec::put_varint;
use kernel::{KeyspaceId, Rng};
use storage::command::generic::EXEC;
use storage::command::list_blocking::RETRY;
use storage::command::tagged::TAGGED;
use storage::entry::put_command;
use storage::store::sessions::{OriginId, Tag};

use super::super::{rehearse, restore};
use super::*;

const GROUP: GroupId = GroupId::new(KeyspaceId(3), 0);
/// Those whose data it is, for each of which entries were applied under another seed.
const ORIGINS: [Origin; 2] =
    [Origin { id: [9; 16], is_cluster: false }, Origin { id: [7; 16], is_cluster: true }];

/// What was written, as a log has it one behind the other.
struct World {
    rng: Rng,
    origin: Origin,
    player: Player,
    store: Store,
    engine: Arc<Engine>,
    term: Term,
    /// As a node sends it, each with its index.
    sent: Vec<(Index, Vec<u8>)>,
    /// At each entry from 0: time, digest, term.
    states: Vec<(Micros, u64, Term)>,
    sequence: u64,
}

/// A command as an entry has it.
fn put(out: &mut Vec<u8>, registry: &Registry, words: &[&[u8]]) {
    let id = registry.find(words[0]).expect("it exists").id;
    put_command(out, id, &words[1..]);
}

impl World {
    fn new(seed: u64, home: &Path) -> World {
        let origin = ORIGINS[(seed % 2) as usize];
        let engine = Arc::new(Engine::open(&home.join("engine"), EngineOptions::default()).unwrap());
        World {
            rng: Rng::new(seed),
            origin,
            player: Player::new(origin, None),
            store: Store::new(seed_of(origin, GROUP)),
            engine,
            term: Term(1),
            sent: Vec::new(),
            states: vec![(Micros(0), 0, Term(0))],
            sequence: 0,
        }
    }

    fn key(&mut self, family: &str) -> Vec<u8> {
        format!("{family}{}", self.rng.below(4)).into_bytes()
    }

    /// A command of which the outcome depends on everything before it.
    fn command(&mut self, out: &mut Vec<u8>) {
        let registry = Registry::new();
        let number = self.rng.below(40).to_string().into_bytes();
        let (set, list, hash, zset, text) =
            (self.key("s"), self.key("l"), self.key("h"), self.key("z"), self.key("t"));
        let draw: &[u8] = b"local x = redis.call('SPOP', KEYS[1]) return redis.call('SET', KEYS[2], \
                            tostring(x) .. math.random(1, 1000000))";
        let words: &[&[u8]] = match self.rng.below(26) {
            0 | 1 => &[b"set", &text, &number],
            2 => &[b"set", &text, &number, b"px", b"300"],
            3 => &[b"append", &text, &number],
            4 => &[b"incrby", &text, &number],
            5..8 => &[b"sadd", &set, &number, b"a", b"b", b"c", b"d"],
            8 | 9 => &[b"spop", &set],
            10 => &[b"spop", &set, b"3"],
            11 | 12 => &[b"hset", &hash, &number, b"v", b"f", &number],
            13 => &[b"hdel", &hash, &number],
            14 | 15 => &[b"rpush", &list, &number, b"x"],
            16 => &[b"lpop", &list],
            17 => &[b"zadd", &zset, &number, b"m", b"3", &number],
            18 => &[b"zpopmin", &zset],
            19 => &[b"pexpire", &set, b"400"],
            20 => &[b"eval", draw, b"2", &set, &text],
            21 => &[b"del", &hash],
            22 if self.rng.chance(0.2) => &[b"flushdb"],
            23 => &[b"rename", &text, b"t0"],
            24 => &[b"smove", &set, b"s0", &number],
            _ => &[b"sunionstore", b"s1", &set, b"s2"],
        };
        put(out, &registry, words);
    }

    /// The commands of an entry: some by forwarders, in transactions, or of who waits.
    fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        for _ in 0..self.rng.below(5) {
            let mut inner = Vec::new();
            self.command(&mut inner);
            match self.rng.below(8) {
                0 => put_command(&mut body, EXEC, &[&inner, &inner]),
                1 => {
                    self.sequence += 1;
                    let (sequence, oldest) = (self.sequence, self.sequence.saturating_sub(3).max(1));
                    let tag =
                        Tag { origin: OriginId([5; 8]), incarnation: 1, sequence, oldest, resp3: false };
                    let mut bytes = Vec::new();
                    tag.encode(&mut bytes);
                    put_command(&mut body, TAGGED, &[&bytes, &inner]);
                }
                2 => {
                    let mut waits = Vec::new();
                    put(&mut waits, &Registry::new(), &[b"blpop", b"l1", b"0"]);
                    put_command(&mut body, RETRY, &[&waits]);
                }
                _ => body.extend(inner),
            }
        }
        body
    }

    fn send(&mut self, index: Index, term: Term, semantics: u16, time: Micros, body: &[u8]) {
        let mut bytes = vec![1];
        bytes.extend(GROUP.0.to_le_bytes());
        put_varint(&mut bytes, term.0);
        put_varint(&mut bytes, index.0);
        bytes.extend(semantics.to_le_bytes());
        put_varint(&mut bytes, time.0);
        put_varint(&mut bytes, body.len() as u64);
        bytes.extend_from_slice(body);
        self.sent.push((index, bytes));
    }

    /// One more entry is agreed on; sometimes after others that were not.
    fn step(&mut self) {
        let next = self.store.applied().next();
        let now = self.states.last().unwrap().0.0 + 20_000 * self.rng.below(9);
        if self.rng.chance(0.15) {
            for at in 0..1 + self.rng.below(3) {
                let body = self.body();
                self.send(Index(next.0 + at), self.term, SEMANTICS, Micros(now), &body);
            }
            self.term = Term(self.term.0 + 1);
            self.send(next, self.term, 0, Micros(0), b"");
            self.apply(next, 0, Micros(0), Vec::new());
            return;
        }
        // A clock that is behind stamps an earlier time.
        let time = Micros(now.saturating_sub(50_000 * u64::from(self.rng.chance(0.2))));
        let body = self.body();
        self.send(next, self.term, SEMANTICS, time, &body);
        self.apply(next, SEMANTICS, time, body);
    }

    fn apply(&mut self, index: Index, semantics: u16, time: Micros, body: Vec<u8>) {
        let entry = OldEntry { term: self.term, index, semantics, time, body };
        self.player.apply((GROUP, &mut self.store), &entry).unwrap();
        self.states.push((self.store.time(), self.store.digest().unwrap(), self.term));
    }

    fn point(&self, index: Index) -> (Point, Micros) {
        let (time, _, term) = self.states[index.0 as usize];
        (Point { index, term }, time)
    }

    /// A checkpoint as it is now, and its stream's checksum.
    fn cut(&mut self) -> CutInfo {
        commit(&self.engine, GROUP, (&mut self.store, self.term), Vec::new()).unwrap();
        self.engine.make_cut(GROUP, Reader::Backup(1)).unwrap()
    }

    fn release(&self, generation: u64) {
        self.engine.release_cut(GROUP, generation, Reader::Backup(1));
    }

    /// A backup: the checkpoint is cut now, and the entries end somewhat later.
    fn back_up(&mut self, dir: &Path) -> (Index, u64) {
        let CutInfo { generation, bytes, checksum, mark } = self.cut();
        let (index, term) = (mark.index, mark.term);
        let (chunks, history) = (Vec::new(), None);
        let group = Group { group: GROUP, index, term, leads: true, bytes, checksum, chunks, history };
        let mut writer = Writer::begin(dir, Keep::All).unwrap();
        let mut incoming = Incoming::new(group);
        let mut cursor = Some(Vec::new());
        while let Some(at) = cursor {
            let lot = self.engine.read_cut(GROUP, generation, &at, 100_000, Reader::Backup(1)).unwrap();
            writer.push(&mut incoming, &lot.bytes).unwrap();
            cursor = lot.next;
        }
        writer.end(incoming).unwrap();
        self.release(generation);
        (0..1 + self.rng.below(12)).for_each(|_| self.step());
        let to = self.store.applied();
        let before = writer.before().map(|before| before.groups[0].history.as_ref().unwrap().end());
        let wanted = Wanted { before, base: self.point(index), to: self.point(to).0 };
        let mut gather = Gather::new([(GROUP, wanted)].into());
        let after = gather.lacks()[&GROUP];
        let bytes: Vec<u8> = self
            .sent
            .iter()
            .filter(|(index, _)| *index > after)
            .flat_map(|(_, bytes)| bytes.clone())
            .collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, more) = rest.split_at((1 + self.rng.below(999) as usize).min(rest.len()));
            writer.gather(&mut gather, now).unwrap();
            rest = more;
        }
        assert!(gather.missing().is_empty(), "it is whole");
        writer.gathered(gather).unwrap();
        let (at, until) = (self.point(index).1.millis(), self.store.time().millis());
        let keyspaces = vec![Keyspace { id: KeyspaceId(3), partitions: 1, mark: Some(until) }];
        writer.finish(Span { at, until, skew_ms: 0 }, self.origin, keyspaces).unwrap();
        let next = self.cut();
        self.release(next.generation);
        (to, next.checksum)
    }

    /// What a directory that was restored has, under the seed of those whose data it was: where it is, its digest, and the
    /// checksum of its checkpoint.
    fn restored(&self, target: &Path, backups: &Path, reach: &Reach) -> (Reached, u64, u64) {
        let options = EngineOptions::default();
        let done = restore(&mut Archive::new(backups), reach, target, options.clone(), &mut |_| ()).unwrap();
        let engine = Arc::new(Engine::open(&target.join("engine"), options).unwrap());
        let mark = engine.groups().unwrap().remove(0).1;
        let store = load_group(&engine, (GROUP, &mark), seed_of(self.origin, GROUP), None).unwrap();
        let checksum = engine.make_cut(GROUP, Reader::Backup(1)).unwrap().checksum;
        (done.groups[0], store.digest().unwrap(), checksum)
    }
}

/// What a history has shown.
struct Told {
    /// With the seed of somebody else another state came of it.
    strangers: bool,
    /// Entries in backups that others replaced.
    replaced: u64,
}

/// A history with backups: each restores to where it ends, with the checkpoint that the node itself makes there, and any
/// moment from the first to the last restores to the state at the last entry up to then.
fn holds(seed: u64) -> Told {
    let home = tempfile::tempdir().unwrap();
    let backups = home.path().join("backups");
    let mut world = World::new(seed, home.path());
    let mut ends = BTreeMap::new();
    for number in 1..=3 {
        (0..2 + world.rng.below(20)).for_each(|_| world.step());
        ends.insert(number, world.back_up(&backups));
    }
    let archive = Archive::new(&backups);
    for (&number, &(to, checksum)) in &ends {
        let reach = Reach::mark(archive.manifest(Some(number)).unwrap());
        let target = home.path().join(format!("mark{number}"));
        let (reached, digest, found) = world.restored(&target, &backups, &reach);
        let (time, expected, _) = world.states[to.0 as usize];
        assert_eq!((reached.index, reached.time), (to, time), "seed {seed}, backup {number}");
        assert_eq!(digest, expected, "seed {seed}, backup {number}");
        assert_eq!(found, checksum, "seed {seed}, backup {number}: the checkpoint of the next");
    }
    let first = archive.manifest(Some(1)).unwrap().groups[0].index;
    let last = ends[&3].0;
    for time in 0..3 {
        let index = Index(first.0 + world.rng.below(last.0 - first.0 + 1));
        let moment = world.states[index.0 as usize].0.millis();
        let reach = archive.reach(moment).unwrap();
        let target = home.path().join(format!("moment{time}"));
        let (reached, digest, _) = world.restored(&target, &backups, &reach);
        let until = world.states[..=last.0 as usize].iter().rposition(|state| state.0.millis() <= moment);
        let until = until.expect("time 0 is before");
        assert_eq!(reached.index.0, until as u64, "seed {seed}, moment {moment:?}");
        assert_eq!(digest, world.states[until].1, "seed {seed}, moment {moment:?}");
    }
    let (mut strangers, mut replaced) = (false, 0);
    for number in ends.keys() {
        let mut reach = Reach::mark(archive.manifest(Some(*number)).unwrap());
        let history = reach.base().groups[0].history.as_ref().unwrap();
        replaced += history.entries - (history.to.0 - history.from.0);
        let (to, _) = ends[number];
        reach.chain[0].origin.id[0] ^= 1;
        let target = home.path().join(format!("strange{number}"));
        strangers |= world.restored(&target, &backups, &reach).1 != world.states[to.0 as usize].1;
    }
    Told { strangers, replaced }
}

/// Each makes and restores half a dozen directories.
const SEEDS: u64 = 16;

#[test]
fn replay_ends_where_those_who_wrote_the_entries_were() {
    let (mut misled, mut void) = (0, 0);
    for seed in 0..SEEDS {
        let Told { strangers, replaced } = holds(seed);
        misled += usize::from(strangers);
        void += replaced;
    }
    // Another seed than theirs leads elsewhere, and what was replaced was in what was read: either would be noticed.
    assert!(misled > SEEDS as usize / 2, "{misled} of {SEEDS}");
    assert!(void > SEEDS, "{void}");
}

#[test]
fn what_entries_make_is_held_against_the_next_checkpoint_and_a_wrong_one_is_named() {
    let home = tempfile::tempdir().unwrap();
    let backups = home.path().join("backups");
    let (mut compared, mut misled) = (0, 0);
    for seed in 0..SEEDS / 2 {
        let _ = std::fs::remove_dir_all(&backups);
        let seat = home.path().join(seed.to_string());
        let mut world = World::new(seed, &seat);
        for _ in 0..3 {
            (0..5 + world.rng.below(20)).for_each(|_| world.step());
            world.back_up(&backups);
        }
        let archive = Archive::new(&backups);
        let rehearsed = |reach: &Reach| {
            let options = EngineOptions::default();
            let scratch = tempfile::tempdir().unwrap();
            rehearse(&mut Archive::new(&backups), reach, scratch.path(), options, &mut |_| ())
        };
        for number in 1..=3 {
            let reach = Reach::mark(archive.manifest(Some(number)).unwrap());
            let done = rehearsed(&reach).unwrap();
            let expected = if number == 1 { (0, 0, 1) } else { (1, 0, 0) };
            assert_eq!((done.met, done.unchanged, done.alone), expected, "seed {seed}, backup {number}");
            compared += done.entries;
        }
        // From the first to the last, over all checkpoints in between.
        let chain = (1..=3).map(|number| archive.manifest(Some(number)).unwrap()).collect();
        let all = Reach { chain, moment: None, ends: None };
        let done = rehearsed(&all).unwrap();
        assert_eq!((done.met, done.alone), (2, 1), "seed {seed}");
        // A checkpoint that is another one, though each byte is as it was written.
        let mut wrong = Reach::mark(archive.manifest(Some(2)).unwrap());
        wrong.chain[0].groups[0].checksum ^= 1;
        let error = rehearsed(&wrong).unwrap_err().to_string();
        assert!(error.contains("the checkpoint of backup 2"), "seed {seed}: {error}");
        let mut unjoined = Reach::mark(archive.manifest(Some(2)).unwrap());
        unjoined.chain[0].groups[0].history.as_mut().unwrap().follows = false;
        assert_eq!(rehearsed(&unjoined).unwrap().alone, 1, "behind a gap there is nothing to compare");
        misled += usize::from(misleads(&archive, &backups));
    }
    assert!(compared > 100, "{compared}");
    assert!(misled > SEEDS as usize / 4, "{misled}");
}

/// Whether entries that are replayed under the seed of others lead elsewhere.
fn misleads(archive: &Archive, backups: &Path) -> bool {
    let chain: Vec<_> = (1..=3).map(|number| archive.manifest(Some(number)).unwrap()).collect();
    let mut reach = Reach { chain, moment: None, ends: None };
    reach.chain.iter_mut().for_each(|manifest| manifest.origin.id[0] ^= 1);
    let options = EngineOptions::default();
    let scratch = tempfile::tempdir().unwrap();
    let done = rehearse(&mut Archive::new(backups), &reach, scratch.path(), options, &mut |_| ());
    matches!(done, Err(RestoreError::Apart { .. }))
}

#[test]
fn damage_to_entries_is_named_and_nothing_is_restored() {
    let home = tempfile::tempdir().unwrap();
    let backups = home.path().join("backups");
    let mut world = World::new(3, home.path());
    for _ in 0..2 {
        (0..30).for_each(|_| world.step());
        world.back_up(&backups);
    }
    let archive = Archive::new(&backups);
    let reach = Reach::mark(archive.manifest(Some(2)).unwrap());
    let history = reach.base().groups[0].history.clone().unwrap();
    assert!(history.entries > 20, "{history:?}");
    let path = backups.join("log-000002");
    let good = std::fs::read(&path).unwrap();
    let target = home.path().join("restored");
    let mut rng = Rng::new(1);
    for round in 0..24 {
        let mut bytes = good.clone();
        let at = rng.below(good.len() as u64) as usize;
        if round % 8 == 7 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << rng.below(8);
        }
        std::fs::write(&path, &bytes).unwrap();
        let verified =
            Archive::new(&backups).verify_history((2, GROUP), &history).map_err(RestoreError::from);
        let restored =
            restore(&mut Archive::new(&backups), &reach, &target, EngineOptions::default(), &mut |_| ());
        for error in [verified.unwrap_err(), restored.unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("log-000002") && error.contains("byte"), "round {round} at {at}: {error}");
        }
        assert!(!target.exists());
    }
    std::fs::remove_file(&path).unwrap();
    let gone = Archive::new(&backups).verify_history((2, GROUP), &history).unwrap_err().to_string();
    assert!(gone.contains("log-000002"), "{gone}");
    // The one before does not need it.
    let first = Reach::mark(archive.manifest(Some(1)).unwrap());
    restore(&mut Archive::new(&backups), &first, &target, EngineOptions::default(), &mut |_| ()).unwrap();
}

#[test]
fn an_entry_that_cannot_be_replayed_is_named() {
    let mut player = Player::new(ORIGINS[0], None);
    let mut store = Store::new(1);
    let entry = |index, semantics, body: &[u8]| OldEntry {
        term: Term(1),
        index: Index(index),
        semantics,
        time: Micros(5),
        body: body.to_vec(),
    };
    #[rustfmt::skip] // columns
    let table = [
        (entry(2, 1, b""),     "entry 2 follows entry 0"),
        (entry(1, 2, b""),     "version 2 of commands"),
        (entry(1, 1, b"\xff"), "entry 1: the bytes end too early"),
    ];
    for (entry, expected) in table {
        let error = player.apply((GROUP, &mut store), &entry).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut fresh = Store::new(1);
    player.apply((GROUP, &mut fresh), &entry(1, 0, b"a change of members")).unwrap();
    assert_eq!((fresh.applied(), fresh.time()), (Index(1), Micros(0)));
}
