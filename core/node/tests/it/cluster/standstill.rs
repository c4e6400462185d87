//! What a backup marks at one moment belongs together, whatever breaks meanwhile.
//!
//! Writers count: each adds one to a key of one partition, and when that is acknowledged one to a key of another. So the
//! second is never above the first in what belongs together. The marks are made as the command makes them, by
//! [`node::moment`] over ways that take their time, and judged by the log when all is well again.

use std::collections::{BTreeMap, BTreeSet};

use consensus::ReplicaId;
use gateway::resp::RespReply;
use kernel::planted::Bug;
use kernel::{GroupId, Index, KeyspaceId, Micros, Millis, Rng, Term};
use node::cluster::store_seed;
use node::moment::{Act, Attempt, Heard, Wanted};
use node::standstill::{Moved, Still};
use node::worker::SEMANTICS;
use placement::{Partitions, Slot};
use storage::apply::{Effects, Exec, Machinery, NoScripts, Origin, apply_entry};
use storage::reach::Scope;
use storage::{Registry, Store};
use wire::resp::Encoder;

use super::world::{Client, SEED, World, group, replica};
use super::{guarded, with_rules};

const PARTITIONS: u16 = 4;
/// Seeds of a test run; `NODE_SEEDS=n` runs as many.
const SEEDS: u64 = 24;
/// Seeds within which a broken rule must show.
const BUDGET: u64 = 300;
/// Steps in which things go wrong, and half as many in which they must become well.
const STEPS: u64 = 20_000;
/// What a group begins behind.
const FIRST: Index = Index(1);
/// How long a node may take to confirm, in milliseconds.
const CONFIRM_MS: u64 = 3000;

/// A key of this partition.
fn key(name: &str, partition: u16) -> String {
    let partitions = Partitions::new(PARTITIONS).expect("some");
    let keys = (0..).map(|n| format!("{name}{n}"));
    let mut keys = keys.filter(|key| partitions.of(Slot::of(key.as_bytes())) == partition);
    keys.next().expect("each partition has some")
}

/// Another replica is to lead.
fn hand_over(world: &mut World, leader: usize, group: GroupId, to: ReplicaId) {
    let now = world.now;
    if let Some(replica) = world.worker(leader).replica_mut(group) {
        // Refused if that is itself, or it leads no more.
        let _ = replica.hand_over(now, to);
    }
    world.turn(leader);
}

/// A writer: one key, and when that is acknowledged the other.
struct Writer {
    keys: [(GroupId, String); 2],
    /// Which of them is next, or on its way.
    stage: usize,
    waits: Option<Client>,
    acknowledged: u64,
    /// Answers that are none.
    errors: Vec<String>,
}

/// What is on its way between who asks and a node.
enum Way {
    Hold(usize),
    Confirm(usize),
    /// It is looked whether it is settled, until then.
    Look(usize, Micros),
    Leave(usize),
    Said(Heard),
}

/// An attempt that is under way.
struct Asking {
    attempt: Attempt,
    began: Micros,
    ticket: u64,
    hold_ms: u64,
    /// The most steps of 500 us that a way takes.
    delay: u64,
    ways: BTreeMap<(Micros, u64), Way>,
    sequence: u64,
    /// What had been applied anywhere when the last node was heard to hold.
    floor: BTreeMap<GroupId, Index>,
}

impl Asking {
    fn send(&mut self, at: Micros, way: Way) {
        self.sequence += 1;
        self.ways.insert((at, self.sequence), way);
    }
}

type Mark = BTreeMap<GroupId, (Index, Term)>;

struct Run {
    world: World,
    rng: Rng,
    writers: Vec<Writer>,
    asking: Option<Asking>,
    next_ask: Micros,
    tickets: u64,
    marks: Vec<Mark>,
    /// Attempts that came to nothing, by their reason.
    failed: BTreeMap<String, u64>,
    calm: bool,
}

impl Run {
    fn new(seed: u64, calm: bool) -> Run {
        let mut world = World::seeded(3, PARTITIONS, seed);
        let mut rng = Rng::new(seed).fork(2);
        world.delay = [1, 4, 40][rng.below(3) as usize];
        if !calm {
            world.loss = [0.0, 0.0, 0.01][rng.below(3) as usize];
        }
        let writer = |number: u64, rng: &mut Rng| {
            let one = rng.below(u64::from(PARTITIONS)) as u16;
            let other = (one + 1 + rng.below(u64::from(PARTITIONS) - 1) as u16) % PARTITIONS;
            let named = |name: &str, at| (group(at), key(&format!("{name}{number}-"), at));
            let keys = [named("x", one), named("y", other)];
            Writer { keys, stage: 0, waits: None, acknowledged: 0, errors: Vec::new() }
        };
        let writers = (0..4).map(|number| writer(number, &mut rng)).collect();
        Run {
            world,
            rng,
            writers,
            asking: None,
            next_ask: Micros(0),
            tickets: 0,
            marks: Vec::new(),
            failed: BTreeMap::new(),
            calm,
        }
    }

    fn go(mut self) -> Result<Run, String> {
        for step in 0..STEPS + STEPS / 2 {
            if step < STEPS && !self.calm {
                self.fault();
            } else if step == STEPS {
                self.mend();
            }
            self.world.step();
            self.write(step < STEPS + STEPS / 4);
            self.ask(step < STEPS + STEPS / 4)?;
        }
        if self.asking.is_some() {
            return Err("an attempt does not end".into());
        }
        self.judge()?;
        Ok(self)
    }

    fn fault(&mut self) {
        if self.rng.chance(0.004) {
            self.move_leader();
        }
        if !self.rng.chance(0.0015) {
            return;
        }
        let node = self.rng.below(3) as usize;
        let up = self.world.machines.iter().filter(|machine| machine.worker.is_some()).count();
        match self.rng.below(8) {
            0 if up == 3 => {
                let lose = self.rng.chance(0.5);
                self.world.crash(node, lose);
                for writer in &mut self.writers {
                    // Nobody knows what became of it.
                    if writer.waits.take_if(|client| client.node == node).is_some() {
                        writer.stage = 0;
                    }
                }
            }
            1 => self.world.machines[node].paused = self.world.now + self.rng.below(1_500_000),
            2 => self.world.isolate(node),
            3 => {
                let held = &mut self.world.machines[node].sync_held;
                *held = !*held;
                self.world.turn(node);
            }
            4 | 5 => self.start_all(),
            _ => self.world.heal(),
        }
    }

    /// Some partition gets another leader.
    fn move_leader(&mut self) {
        let group = group(self.rng.below(u64::from(PARTITIONS)) as u16);
        let to = replica(self.rng.below(3) as usize);
        if let Some(leader) = self.world.serving(group).filter(|&node| !self.world.is_paused(node)) {
            hand_over(&mut self.world, leader, group, to);
        }
    }

    fn mend(&mut self) {
        self.world.heal();
        self.world.loss = 0.0;
        let now = self.world.now;
        for node in 0..3 {
            let machine = &mut self.world.machines[node];
            (machine.sync_held, machine.paused) = (false, now);
            self.world.turn(node);
        }
        self.start_all();
    }

    fn start_all(&mut self) {
        for node in 0..3 {
            if self.world.machines[node].worker.is_none() {
                self.world.start(node);
            }
        }
    }

    fn write(&mut self, more: bool) {
        for at in 0..self.writers.len() {
            let Some(client) = self.writers[at].waits else {
                if more && self.rng.chance(0.3) {
                    self.begin(at);
                }
                continue;
            };
            let answer = self.world.read(client);
            if answer.is_empty() {
                continue;
            }
            let writer = &mut self.writers[at];
            writer.waits = None;
            if answer.starts_with(':') {
                (writer.stage, writer.acknowledged) = (1 - writer.stage, writer.acknowledged + 1);
            } else {
                // Whether it was done may not be known; the next pair begins with the first key in any case.
                writer.stage = 0;
                writer.errors.push(answer);
            }
        }
    }

    fn begin(&mut self, at: usize) {
        let node = self.rng.below(3) as usize;
        if self.world.machines[node].worker.is_none() || self.world.is_paused(node) {
            return;
        }
        let client = self.world.client(node);
        let writer = &mut self.writers[at];
        writer.waits = Some(client);
        let command = format!("INCR {}", writer.keys[writer.stage].1);
        self.world.feed(client, &command);
    }

    /// Goes on with the attempt, or begins one.
    fn ask(&mut self, more: bool) -> Result<(), String> {
        let now = self.world.now;
        let Some(mut asking) = self.asking.take() else {
            if more && now >= self.next_ask {
                self.begin_to_ask();
            }
            return Ok(());
        };
        while let Some(first) = asking.ways.first_entry().filter(|first| first.key().0 <= now) {
            let way = first.remove();
            self.arrive(&mut asking, way)?;
        }
        if asking.ways.is_empty() {
            // Writers are left the time that they must have.
            self.next_ask = now + 3 * now.since(asking.began) + self.rng.below(20_000);
        } else {
            self.asking = Some(asking);
        }
        Ok(())
    }

    fn begin_to_ask(&mut self) {
        self.tickets += 1;
        let keyspace = KeyspaceId(0);
        let wanted = Wanted { keyspace, partitions: PARTITIONS, at_least: BTreeMap::new() };
        let delay = [10, 40, 200][self.rng.below(3) as usize];
        let hold_ms = [400, 400, 2000][self.rng.below(3) as usize];
        let (attempt, ways) = (Attempt::new(wanted, 3), BTreeMap::new());
        let mut asking = Asking {
            attempt,
            began: self.world.now,
            ticket: self.tickets,
            hold_ms,
            delay,
            ways,
            sequence: 0,
            floor: BTreeMap::new(),
        };
        for node in 0..3 {
            let at = self.later(delay);
            asking.send(at, Way::Hold(node));
        }
        self.asking = Some(asking);
    }

    fn later(&mut self, delay: u64) -> Micros {
        self.world.now + (1 + self.rng.below(delay)) * 500
    }

    fn arrive(&mut self, asking: &mut Asking, way: Way) -> Result<(), String> {
        let now = self.world.now;
        let (node, later) = match way {
            Way::Said(heard) => return self.hear(asking, heard),
            Way::Hold(node) | Way::Confirm(node) | Way::Look(node, _) | Way::Leave(node) => {
                (node, self.later(asking.delay))
            }
        };
        if self.world.is_paused(node) {
            // It waits there.
            let at = self.world.machines[node].paused;
            asking.send(at, way);
            return Ok(());
        }
        let Some(worker) = &mut self.world.machines[node].worker else {
            let said = Err("it does not run".to_owned());
            let heard = match way {
                Way::Hold(source) => Heard::Held { source, said },
                Way::Confirm(source) | Way::Look(source, _) => Heard::Confirmed { source, said },
                Way::Leave(_) | Way::Said(_) => return Ok(()),
            };
            asking.send(later, Way::Said(heard));
            return Ok(());
        };
        let refused = |(_, moved): (GroupId, Moved)| moved.to_string();
        match way {
            Way::Hold(source) => {
                let until = Some(now.plus_millis(asking.hold_ms));
                let said = worker.still(now, asking.ticket, KeyspaceId(0), until).map_err(refused);
                asking.send(later, Way::Said(Heard::Held { source, said }));
            }
            Way::Confirm(source) => match worker.go_on(now, asking.ticket) {
                Ok(()) => asking.send(now + 1, Way::Look(source, now.plus_millis(CONFIRM_MS))),
                Err(moved) => {
                    let said = Err(refused(moved));
                    asking.send(later, Way::Said(Heard::Confirmed { source, said }));
                }
            },
            Way::Look(source, until) => {
                let said = match worker.settled(asking.ticket) {
                    Ok(None) if now < until => {
                        asking.send(now.plus_millis(2), way);
                        return Ok(());
                    }
                    Ok(None) => Err("it took too long".to_owned()),
                    Ok(Some(stills)) => Ok(stills),
                    Err(moved) => Err(refused(moved)),
                };
                worker.forget_still(asking.ticket);
                asking.send(later, Way::Said(Heard::Confirmed { source, said }));
            }
            Way::Leave(_) => worker.forget_still(asking.ticket),
            Way::Said(_) => unreachable!("it was heard"),
        }
        self.world.turn(node);
        Ok(())
    }

    /// Up to where anybody has applied each group.
    fn applied(&self) -> BTreeMap<GroupId, Index> {
        let of =
            |group| (0..3).filter_map(|node| self.world.state(node, group)).map(|(applied, _)| applied).max();
        (0..PARTITIONS).map(group).map(|group| (group, Index(of(group).unwrap_or(0)))).collect()
    }

    fn hear(&mut self, asking: &mut Asking, heard: Heard) -> Result<(), String> {
        if matches!(heard, Heard::Held { .. }) {
            asking.floor = self.applied();
        }
        for act in asking.attempt.next(Millis(0), heard) {
            let later = self.later(asking.delay);
            match act {
                Act::Confirm(node) => asking.send(later, Way::Confirm(node)),
                Act::Leave(node) => asking.send(later, Way::Leave(node)),
                Act::Done(marked) => {
                    let of = |(_, still): &(usize, Still)| (still.index, still.term);
                    let lacks = |(group, floor): &(&GroupId, &Index)| marked.groups[*group].1.index < **floor;
                    if let Some((group, floor)) = asking.floor.iter().find(lacks) {
                        return Err(format!("{group} was applied up to {floor:?} before {marked:?}"));
                    }
                    self.marks.push(marked.groups.iter().map(|(&group, it)| (group, of(it))).collect());
                }
                Act::Fail(failure) => *self.failed.entry(failure.to_string()).or_default() += 1,
            }
        }
        Ok(())
    }

    /// What the keys of each group are at each marked entry, and that these are the entries that were committed.
    fn judge(&mut self) -> Result<(), String> {
        let mut values: BTreeMap<(String, Index), u64> = BTreeMap::new();
        for number in 0..PARTITIONS {
            let group = group(number);
            let leader = self.world.leader(group);
            self.world.level(group);
            let marked: BTreeSet<(Index, Term)> = self.marks.iter().map(|mark| mark[&group]).collect();
            let its =
                |writer: &Writer| writer.keys.iter().find(|(of, _)| *of == group).map(|it| it.1.clone());
            let keys: Vec<String> = self.writers.iter().filter_map(its).collect();
            let mut replay = Replay::new(group);
            let (last, _) = self.world.state(leader, group).expect("it leads");
            let entries = self.world.machines[leader].disk.entries(group, FIRST.next(), Index(last));
            if entries.len() as u64 != last - FIRST.0 {
                return Err(format!("the log of {group} has {} entries of {last}", entries.len()));
            }
            for entry in entries {
                replay.apply(&entry);
                for &(index, term) in marked.iter().filter(|(index, _)| *index == entry.index()) {
                    if entry.term() != term {
                        return Err(format!(
                            "{group}: {index:?} of {term:?} was marked, and never committed"
                        ));
                    }
                    values.extend(keys.iter().map(|key| ((key.clone(), index), replay.value(key))));
                }
            }
        }
        for (number, mark) in self.marks.iter().enumerate() {
            for Writer { keys: [one, other], .. } in &self.writers {
                let value =
                    |(group, key): &(GroupId, String)| values.get(&(key.clone(), mark[group].0)).copied();
                let (Some(x), Some(y)) = (value(one), value(other)) else {
                    return Err(format!("mark {number} has an entry that was never committed: {mark:?}"));
                };
                if y > x {
                    return Err(format!("mark {number}: {} is {x} and {} is {y}", one.1, other.1));
                }
            }
        }
        Ok(())
    }
}

/// A partition's state, entry by entry.
struct Replay {
    store: Store,
    registry: Registry,
    effects: Effects,
}

impl Replay {
    fn new(group: GroupId) -> Replay {
        let partitions = Partitions::new(PARTITIONS).expect("some");
        let scope = Scope { partitions, own: group.partition() };
        let mut store = Store::new(store_seed(SEED, group)).within(scope);
        store.begin_entry(FIRST, Micros(0));
        store.end_entry();
        Replay { store, registry: Registry::new(), effects: Effects::default() }
    }

    fn apply(&mut self, entry: &consensus::Logged) {
        let is_ours = entry.semantics() == SEMANTICS;
        let time = if is_ours { entry.time() } else { self.store.time() };
        let body = if is_ours { entry.body() } else { &[] };
        let mut scripting = NoScripts;
        let mut machinery =
            Machinery { registry: &self.registry, scripting: &mut scripting, effects: &mut self.effects };
        apply_entry(&mut self.store, &mut machinery, entry.index(), time, body)
            .expect("it is of this version");
    }

    fn value(&mut self, key: &str) -> u64 {
        let mut out = Vec::new();
        self.store.begin_reads(self.store.time());
        let mut exec = Exec {
            store: &mut self.store,
            reply: &mut RespReply(Encoder::new(&mut out, false)),
            effects: &mut self.effects,
            registry: &self.registry,
            scripting: None,
            rng: Rng::new(1),
            origin: Origin::Direct,
        };
        let get = self.registry.find(b"get").expect("there is GET");
        exec.run(get, &[key.as_bytes()]);
        let text = String::from_utf8_lossy(&out);
        text.split("\r\n").nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

fn run(seed: u64) -> Result<Run, String> {
    guarded(seed, || Run::new(seed, false).go())
}

#[test]
fn what_is_marked_belongs_together_whatever_breaks() {
    let _rules = with_rules(Bug::None);
    let seeds = std::env::var("NODE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let from = std::env::var("NODE_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (mut marks, mut failed, mut acknowledged) = (0, BTreeMap::<String, u64>::new(), 0);
    let mut failures = Vec::new();
    for seed in from..from + seeds {
        match run(seed) {
            Ok(run) => {
                marks += run.marks.len() as u64;
                run.failed.into_iter().for_each(|(why, count)| *failed.entry(why).or_default() += count);
                acknowledged += run.writers.iter().map(|writer| writer.acknowledged).sum::<u64>();
            }
            Err(what) => failures.push(what),
        }
    }
    println!("{seeds} seeds: {marks} marks, {acknowledged} additions, not marked: {failed:?}");
    assert!(failures.is_empty(), "{failures:#?}");
    if seeds >= SEEDS {
        assert!(marks > seeds * 3 && failed.len() > 4 && acknowledged > seeds * 100, "too little is done");
    }
}

#[test]
fn writers_see_that_it_takes_longer_and_no_error() {
    let _rules = with_rules(Bug::None);
    for seed in 0..4 {
        let run = Run::new(seed, true).go().expect("it belongs together");
        let errors: Vec<&String> = run.writers.iter().flat_map(|writer| &writer.errors).collect();
        assert!(errors.is_empty(), "seed {seed}: {errors:?}");
        assert!(run.marks.len() > 5, "seed {seed}: {} marks {:?}", run.marks.len(), run.failed);
    }
}

#[test]
fn a_leader_that_was_another_s_follower_meanwhile_confirms_nothing() {
    let away_and_back = |bug| {
        let _rules = with_rules(bug);
        let mut world = World::seeded(3, 1, 5);
        let first = world.leader(group(0));
        let second = (first + 1) % 3;
        let now = world.now;
        let held = world.worker(first).still(now, 7, KeyspaceId(0), Some(now.plus_millis(2000)));
        let index = held.expect("it leads")[0].index;
        for (from, to) in [(first, second), (second, first)] {
            hand_over(&mut world, from, group(0), replica(to));
            world.until("the other leads", |world| world.leads(to, group(0)));
            let client = world.client(to);
            if to == second {
                assert_eq!(world.ask(client, "SET k v"), "+OK\r\n", "it never heard of the hold");
            }
        }
        let now = world.now;
        if world.worker(first).go_on(now, 7).is_err() {
            return None;
        }
        world.turn(first);
        world.until("it is known", |world| world.worker(first).settled(7) != Ok(None));
        let settled = world.worker(first).settled(7).ok().flatten()?;
        let (last, _) = world.state(first, group(0)).expect("it leads");
        Some((settled[0].index, index, last))
    };
    assert_eq!(away_and_back(Bug::None), None);
    let (marked, index, last) = away_and_back(Bug::StillOutlivesTerm).expect("the rule is broken");
    assert!(marked == index && last > index.0, "what was acknowledged meanwhile is not in it");
}

#[test]
fn every_planted_bug_of_standstills_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("NODE_BUG").ok();
    let mut missed = Vec::new();
    for &bug in Bug::STILL {
        if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let _rules = with_rules(bug);
        match (0..BUDGET).find_map(|seed| run(seed).err()) {
            Some(what) => println!("{bug:?}: caught: {what:.200}"),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught within {BUDGET} seeds: {missed:?}");
}
