//! Forwarded writes: each is done once however often it comes, on every replica, across snapshots.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::RwLock;

use kernel::planted::{self, Bug};
use kernel::{Index, Micros, Rng};
use storage::apply::{Machinery, NoScripts, apply_command, apply_entry};
use storage::command::tagged::{TAGGED, put_tagged};
use storage::entry::{Args, next_command, put_command};
use storage::store::checkpoint::{Body, Image};
use storage::store::sessions::{OriginId, Tag, WINDOW_MAX};
use storage::{Effects, Registry, Store};

use crate::harness::{Resp2, render};

/// Bugs are planted for the whole process: what must not meet one reads, what plants one writes.
static PLANTED: RwLock<()> = RwLock::new(());

const SEED: u64 = 7;

/// A leader that answers, and what it logged.
struct Leader {
    registry: Registry,
    store: Store,
    log: Vec<Vec<u8>>,
}

fn time(index: u64) -> Micros {
    Micros(1_700_000_000_000_000 + index * 1_000_000)
}

fn encoded(registry: &Registry, line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut body = Vec::new();
    put_command(&mut body, registry.find(words[0]).expect("it exists").id, &words[1..]);
    body
}

impl Leader {
    fn new() -> Leader {
        Leader { registry: Registry::new(), store: Store::new(SEED), log: Vec::new() }
    }

    /// Logs and applies one tagged command; its answer.
    fn forward(&mut self, tag: &Tag, line: &str) -> String {
        let mut body = Vec::new();
        put_tagged(&mut body, tag, &encoded(&self.registry, line));
        self.apply(body)
    }

    fn apply(&mut self, body: Vec<u8>) -> String {
        let index = Index(self.log.len() as u64 + 1);
        let (mut args, mut reply, mut effects) = (Args::new(), Resp2::default(), Effects::default());
        let id = next_command(&mut kernel::codec::Reader::new(&body), &mut args).expect("just written");
        let command = self.registry.by_id(id).expect("it exists");
        self.store.begin_entry(index, time(index.0));
        let mut machinery =
            Machinery { registry: &self.registry, scripting: &mut NoScripts, effects: &mut effects };
        apply_command(&mut self.store, &mut machinery, (index, 0), command, &args, &mut reply);
        self.store.end_entry();
        assert!(effects.block.is_none(), "a tagged command does not wait");
        drop(args);
        self.log.push(body);
        render(&mut reply.0.as_slice())
    }

    /// A store that replays the log from `store` on.
    fn replay(&self, mut store: Store) -> Store {
        let mut effects = Effects::default();
        for index in store.applied().0 + 1..=self.log.len() as u64 {
            let mut machinery =
                Machinery { registry: &self.registry, scripting: &mut NoScripts, effects: &mut effects };
            let body = &self.log[index as usize - 1];
            apply_entry(&mut store, &mut machinery, Index(index), time(index), body).expect("readable");
        }
        store
    }

    /// The leader's state by way of a snapshot.
    fn snapshot(&mut self) -> Store {
        // A cut has what changed since the last one, so it is made of a copy that was never cut.
        let mut whole = self.replay(Store::new(SEED));
        whole.begin_cut();
        let (frame, images) = whole.write_cut(usize::MAX).expect("it is written in one go");
        let mut store = Store::restore(SEED, &frame).expect("it reads back");
        for image in images.iter() {
            if let Image::Put { key, head, body } = image {
                store.restore_object(key, head, Body::Whole(body)).expect("it reads back");
            }
        }
        store
    }
}

fn tag(sequence: u64, oldest: u64) -> Tag {
    Tag { origin: OriginId([9; 8]), incarnation: 3, sequence, oldest, resp3: false }
}

#[test]
fn a_second_try_is_answered_as_the_first() {
    let _calm = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut leader = Leader::new();
    #[rustfmt::skip] // columns
    let table = [
        (1, "incr n",                ":1"),
        (2, "incrby n 5",            ":6"),
        (1, "incr n",                ":1"),
        (3, "rpush l a b",           ":2"),
        (4, "lpop l 2",              "[\"a\" \"b\"]"),
        (4, "lpop l 2",              "[\"a\" \"b\"]"),
        (5, "set n x get",           "\"6\""),
        (5, "set n x get",           "\"6\""),
        (6, "lpush n y",             "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        (6, "lpush n y",             "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        (7, "set",                   "-ERR wrong number of arguments for 'set' command"),
        (8, "blpop none 0",          "nil*"), // never tagged; and if it were, nobody would wait
        (2, "incrby n 5",            ":6"),
    ];
    for (sequence, line, expected) in table {
        assert_eq!(leader.forward(&tag(sequence, 1), line), expected, "{sequence} {line}");
    }
    let large = format!("set big {}", "x".repeat(2000));
    assert_eq!(leader.forward(&tag(9, 9), &large), "OK");
    assert_eq!(leader.forward(&tag(10, 9), "set big y get").len(), 2002);
    assert!(leader.forward(&tag(10, 9), "set big y get").starts_with("-UNKNOWN this write was done"));
    assert!(leader.forward(&tag(8, 1), "incr m").starts_with("-UNKNOWN whether this write was done"));
    let late = Tag { incarnation: 2, ..tag(11, 11) };
    assert!(leader.forward(&late, "incr m").starts_with("-UNKNOWN"));
    assert_eq!(leader.forward(&Tag { incarnation: 4, ..tag(1, 1) }, "incr m"), ":1");
}

#[test]
fn a_transaction_is_done_once_as_a_whole() {
    let _calm = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut leader = Leader::new();
    let exec = |leader: &Leader| {
        let steps = [encoded(&leader.registry, "incr a"), encoded(&leader.registry, "rpush l x")];
        let mut body = Vec::new();
        put_command(&mut body, storage::command::generic::EXEC, &[&steps[0], &steps[1]]);
        let mut tagged = Vec::new();
        put_tagged(&mut tagged, &tag(1, 1), &body);
        tagged
    };
    let body = exec(&leader);
    assert_eq!(leader.apply(body.clone()), "[:1 :1]");
    assert_eq!(leader.apply(body), "[:1 :1]");
    let replayed = leader.replay(Store::new(SEED));
    assert_eq!(replayed.digest(), leader.store.digest());
}

#[test]
fn a_body_with_a_tag_before_nonsense_is_refused() {
    let registry = Registry::new();
    let set = encoded(&registry, "set a b");
    let mut ok = Vec::new();
    put_tagged(&mut ok, &tag(1, 1), &set);
    let with = |tag: &[u8], command: &[u8]| {
        let mut body = Vec::new();
        put_command(&mut body, TAGGED, &[tag, command]);
        body
    };
    let mut good = Vec::new();
    tag(1, 1).encode(&mut good);
    let mut exec = Vec::new();
    put_command(&mut exec, storage::command::generic::EXEC, &[&ok]);
    let mut short = Vec::new();
    put_command(&mut short, TAGGED, &[&good]);
    #[rustfmt::skip] // columns
    let table = [
        (ok.clone(),                                    true),
        (with(&good, &set),                             true),
        (with(&good[1..], &set),                        false),
        (with(&good, b""),                              false),
        (with(&good, &ok),                              false), // a tag in a tag
        (with(&good, &exec),                            false), // a tag in a transaction in a tag
        (with(&good, &[&set[..], &set[..]].concat()),   false),
        (exec,                                          false),
        (short,                                         false),
    ];
    for (body, accepted) in table {
        let mut effects = Effects::default();
        let mut machinery =
            Machinery { registry: &registry, scripting: &mut NoScripts, effects: &mut effects };
        let applied = apply_entry(&mut Store::new(1), &mut machinery, Index(1), Micros(1), &body);
        assert_eq!(applied.is_ok(), accepted, "{body:?}");
    }
}

/// A life of one origin: writes, some sent again, to a leader that changes by replay and by snapshot. Panics if a
/// write is done twice, or answered otherwise than at first, or replicas differ.
fn live(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut leader = Leader::new();
    let (mut answers, mut next, mut sum) = (BTreeMap::<u64, String>::new(), 1u64, 0i64);
    for _ in 0..60 {
        match rng.below(10) {
            0..=4 => {
                // The oldest that the origin waits for: some answers it has lost.
                let oldest =
                    answers.keys().next().copied().unwrap_or(next).max(next.saturating_sub(WINDOW_MAX - 1));
                sum += 1;
                let answer = leader.forward(&tag(next, oldest), "incr n");
                assert_eq!(answer, format!(":{sum}"), "seed {seed}: number {next}");
                answers.insert(next, answer);
                next += 1;
            }
            5..=6 => {
                let Some(&sequence) = answers.keys().nth(rng.below(answers.len() as u64 + 1) as usize) else {
                    continue;
                };
                let oldest = *answers.keys().next().expect("there is one");
                let again = leader.forward(&tag(sequence, oldest), "incr n");
                assert_eq!(again, answers[&sequence], "seed {seed}: number {sequence} again");
            }
            7 => {
                answers.pop_first();
            }
            8 => {
                let store = leader.replay(Store::new(SEED));
                assert_eq!(store.digest(), leader.store.digest(), "seed {seed}: replay");
                leader.store = store;
            }
            _ => {
                let store = leader.snapshot();
                assert_eq!(store.digest(), leader.store.digest(), "seed {seed}: snapshot");
                leader.store = store;
            }
        }
    }
}

/// Few, because every life replays its log many times.
const SEEDS: u64 = 60;

#[test]
fn a_write_is_done_once_whatever_leads() {
    let _calm = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    (0..SEEDS).for_each(live);
}

#[test]
fn every_planted_bug_is_noticed() {
    let _alone = PLANTED.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    for &bug in Bug::SESSION {
        planted::choose(bug);
        let noticed = (0..SEEDS).any(|seed| catch_unwind(AssertUnwindSafe(|| live(seed))).is_err());
        planted::choose(Bug::None);
        assert!(noticed, "{bug:?}");
    }
}
