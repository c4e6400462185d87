//! Clients that count and queue, while links break and nodes die: a counter shows what was lost, done twice, or shown too
//! late, and a list what was taken from it and given to nobody.

use std::collections::{BTreeMap, BTreeSet};

use control::ReadFrom;
use kernel::planted::Bug;
use kernel::{Micros, Rng};

use super::world::{Client, World, group};
use super::{guarded, with_rules};

/// Seeds of a test run; `NODE_SEEDS=n` runs as many.
const SEEDS: u64 = 24;
/// Seeds within which a broken rule must show.
const BUDGET: u64 = 150;
/// Shown by a deposed leader alone, in `leadership.rs`: the clients here are handed to whoever leads.
const SHOWN_ALONE: &[Bug] = &[Bug::ReadUnconfirmed];
/// Steps in which things go wrong, and as many again in which they must become well.
const STEPS: u64 = 16_000;

/// What a client asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Adds one to a counter.
    Incr,
    /// Reads it; it must be at least this.
    Get { floor: u64 },
    /// Begins to watch it, and reads it.
    Watch,
    /// Puts this into a list.
    Push(u64),
    /// Takes the oldest from it, or waits for a while.
    Pop,
    /// Adds one in a transaction, if the counter is as it was under the watch.
    Exec { seen: u64 },
}

/// A counter, as its clients see it.
#[derive(Default)]
struct Ledger {
    /// Additions that clients asked for and that were not refused for sure.
    begun: u64,
    /// Answered ones.
    done: BTreeMap<u64, Client>,
    /// The highest value that anybody was told.
    highest: u64,
    unknown: u64,
    refused: u64,
    gets: u64,
    /// What is in the list or was, for sure, and who got it.
    pushed: BTreeSet<u64>,
    popped: BTreeSet<u64>,
    last_pushed: u64,
    /// Takings of which nobody knows whether they were.
    unknown_pops: u64,
}

impl Ledger {
    fn value(&mut self, value: u64) {
        self.highest = self.highest.max(value);
    }

    fn take(&mut self, client: Client, asked: Asked, answer: &str) -> Result<(), String> {
        let sure = answer.starts_with("-CLUSTERDOWN") || answer.starts_with("-MISCONF the disk is full");
        match asked {
            Asked::Watch => {}
            Asked::Push(_) | Asked::Pop => self.take_of_list(asked, answer)?,
            Asked::Incr | Asked::Exec { .. } if answer == "*-1\r\n" || sure => {
                self.begun -= 1;
                self.refused += 1;
            }
            Asked::Incr | Asked::Exec { .. } if answer.starts_with("-UNKNOWN") => self.unknown += 1,
            Asked::Incr | Asked::Exec { .. } => {
                let value = number(answer).ok_or(format!("an addition is answered {answer:?}"))?;
                if let Asked::Exec { seen } = asked
                    && value != seen + 1
                {
                    return Err(format!("watched at {seen}, a transaction made it {value}"));
                }
                if let Some(other) = self.done.insert(value, client) {
                    return Err(format!("both {other:?} and {client:?} made it {value}"));
                }
                self.value(value);
            }
            Asked::Get { floor } => {
                if answer.starts_with('-') {
                    return Ok(());
                }
                let value = if answer == "$-1\r\n" { 0 } else { number(answer).ok_or("no number")? };
                self.gets += 1;
                if value < floor {
                    return Err(format!("read {value} after {floor} was known"));
                }
                self.value(value);
            }
        }
        if self.highest > self.begun {
            return Err(format!("it is {}, but only {} additions began", self.highest, self.begun));
        }
        Ok(())
    }
}

impl Ledger {
    fn take_of_list(&mut self, asked: Asked, answer: &str) -> Result<(), String> {
        let error = answer.starts_with('-');
        match asked {
            Asked::Push(value) if !error => _ = self.pushed.insert(value),
            Asked::Pop if answer.starts_with("-UNKNOWN") => self.unknown_pops += 1,
            Asked::Pop if answer.starts_with("*2") => {
                let value = number(answer).ok_or(format!("taken: {answer:?}"))?;
                if !self.popped.insert(value) {
                    return Err(format!("{value} was taken twice"));
                }
            }
            Asked::Pop if answer != "*-1\r\n" && !error => return Err(format!("taken: {answer:?}")),
            _ => {}
        }
        Ok(())
    }

    /// What is left in the list, at the end.
    fn left(&self, left: &BTreeSet<u64>) -> Result<(), String> {
        if let Some(value) = left.intersection(&self.popped).next() {
            return Err(format!("{value} was taken and is still there"));
        }
        let gone = self.pushed.iter().filter(|value| !self.popped.contains(value) && !left.contains(value));
        let gone: Vec<_> = gone.collect();
        if gone.len() as u64 > self.unknown_pops {
            let unknown = self.unknown_pops;
            return Err(format!("{gone:?} are gone, and only {unknown} takings are unknown"));
        }
        Ok(())
    }
}

/// The answer to what was asked, once it is whole.
fn whole(asked: Asked, text: &str) -> Option<&str> {
    let before = match asked {
        Asked::Incr | Asked::Get { .. } | Asked::Push(_) | Asked::Pop => "",
        Asked::Watch if text.starts_with('-') => return Some(text),
        Asked::Watch => "+OK\r\n",
        Asked::Exec { .. } => "+OK\r\n+QUEUED\r\n",
    };
    text.strip_prefix(before).filter(|answer| !answer.is_empty())
}

/// The last number in an answer.
fn number(answer: &str) -> Option<u64> {
    let digits = answer.trim_end().rsplit(['\n', ':']).next()?;
    digits.parse().ok()
}

struct Run {
    world: World,
    rng: Rng,
    ledger: Ledger,
    /// What was asked, and what came of the answer.
    waiting: BTreeMap<Client, (Asked, String)>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut world = World::seeded(3, 1, seed);
        let mut rng = Rng::new(seed).fork(1);
        world.delay = [1, 4, 40][rng.below(3) as usize];
        world.loss = [0.0, 0.0, 0.02][rng.below(3) as usize];
        world.leases = seed % 3 == 1;
        let from = if world.leases { ReadFrom::Lease } else { ReadFrom::Leader };
        (0..3).for_each(|node| world.read_from(node, from));
        Run { world, rng, ledger: Ledger::default(), waiting: BTreeMap::new() }
    }

    fn go(mut self) -> Result<Ledger, String> {
        for step in 0..2 * STEPS {
            if step < STEPS {
                self.fault();
            } else if step == STEPS {
                self.mend();
            }
            self.world.step();
            self.clients(step < STEPS + STEPS / 2)?;
        }
        if let Some((client, (asked, _))) = self.waiting.iter().next() {
            return Err(format!("{client:?} was never answered: {asked:?}"));
        }
        let done = self.ledger.done.len() as u64;
        let leader = self.world.leader(group(0));
        let client = self.world.client(leader);
        let last = number(&self.world.ask(client, "GET n")).unwrap_or(0);
        if last < done || last > self.ledger.begun {
            let begun = self.ledger.begun;
            return Err(format!("{done} additions were acknowledged, {begun} began, and it is {last}"));
        }
        let list = self.world.ask(client, "LRANGE q 0 -1");
        let values = list.split("\r\n").filter(|line| !line.starts_with(['$', '*']));
        self.ledger.left(&values.filter_map(|line| line.parse().ok()).collect())?;
        self.world.level(group(0));
        Ok(self.ledger)
    }

    fn fault(&mut self) {
        if !self.rng.chance(0.002) {
            return;
        }
        let node = self.rng.below(3) as usize;
        let other = (node + 1 + self.rng.below(2) as usize) % 3;
        let up = self.world.machines.iter().filter(|machine| machine.worker.is_some()).count();
        match self.rng.below(9) {
            8 => self.world.machines[node].paused = self.world.now + self.rng.below(4_000_000),
            0 if up == 3 => self.crash(node),
            1 => {
                if self.world.machines[node].worker.is_none() {
                    self.world.start(node);
                }
            }
            2 => self.world.isolate(node),
            3 => _ = self.world.cut.insert((node, other)),
            4 | 5 => self.world.heal(),
            6 => {
                let held = &mut self.world.machines[node].sync_held;
                *held = !*held;
                self.world.turn(node);
            }
            _ => {
                if self.world.machines[node].worker.is_some() {
                    self.world.checkpoint(node, 0);
                    self.world.machines[other].disk.full ^= self.rng.chance(0.3);
                }
            }
        }
    }

    fn crash(&mut self, node: usize) {
        self.world.crash(node, self.rng.chance(0.5));
        let gone: Vec<Client> = self.waiting.keys().copied().filter(|client| client.node == node).collect();
        for client in gone {
            // Nobody knows what became of it.
            if let Some((Asked::Pop, _)) = self.waiting.remove(&client) {
                self.ledger.unknown_pops += 1;
            }
        }
    }

    fn mend(&mut self) {
        self.world.heal();
        self.world.loss = 0.0;
        let now = self.world.now;
        for node in 0..3 {
            let machine = &mut self.world.machines[node];
            (machine.sync_held, machine.disk.full, machine.paused) = (false, false, now);
            if machine.worker.is_none() {
                self.world.start(node);
            }
            self.world.turn(node);
        }
    }

    fn clients(&mut self, more: bool) -> Result<(), String> {
        let waiting: Vec<Client> = self.waiting.keys().copied().collect();
        for client in waiting {
            let more = self.world.read(client);
            let Some((asked, text)) = self.waiting.get_mut(&client) else { continue };
            text.push_str(&more);
            let Some(answer) = whole(*asked, text) else { continue };
            let (asked, answer) = (*asked, answer.to_string());
            self.waiting.remove(&client);
            self.ledger.take(client, asked, &answer)?;
            let goes_on = !self.world.is_paused(client.node);
            if let (Asked::Watch, false, true) = (asked, answer.contains('-'), goes_on) {
                let seen = number(&answer).unwrap_or(0);
                self.ledger.begun += 1;
                self.waiting.insert(client, (Asked::Exec { seen }, String::new()));
                self.world.feed(client, "MULTI\r\nINCR n\r\nEXEC");
            }
        }
        if more && self.rng.chance(0.2) {
            self.ask();
        }
        Ok(())
    }

    fn ask(&mut self) {
        let now = self.world.now;
        let stood = |paused: Micros| paused <= now && paused.plus_millis(10) > now;
        let first = (0..3).find(|&node| stood(self.world.machines[node].paused));
        let node = first.unwrap_or(self.rng.below(3) as usize);
        if self.world.machines[node].worker.is_none() || self.world.is_paused(node) {
            return;
        }
        let client = self.world.client(node);
        let floor = self.ledger.highest;
        // Who could not ask while it stood still reads first.
        let push = self.ledger.last_pushed + 1;
        let (asked, text) = match self.rng.below(7) {
            _ if first.is_some() => (Asked::Get { floor }, "GET n".to_string()),
            0 | 1 => (Asked::Incr, "INCR n".to_string()),
            2 => (Asked::Watch, "WATCH n\r\nGET n".to_string()),
            3 => (Asked::Push(push), format!("RPUSH q {push}")),
            4 => (Asked::Pop, "BLPOP q 2".to_string()),
            _ => (Asked::Get { floor }, "GET n".to_string()),
        };
        match asked {
            Asked::Incr => self.ledger.begun += 1,
            Asked::Push(value) => self.ledger.last_pushed = value,
            Asked::Get { .. } | Asked::Watch | Asked::Pop | Asked::Exec { .. } => {}
        }
        self.waiting.insert(client, (asked, String::new()));
        self.world.feed(client, &text);
    }
}

fn run(seed: u64) -> Result<Ledger, String> {
    guarded(seed, || Run::new(seed).go())
}

#[test]
fn counters_count_whatever_breaks() {
    let _rules = with_rules(Bug::None);
    let seeds = std::env::var("NODE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let from = std::env::var("NODE_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (mut done, mut gets, mut unknown, mut refused) = (0, 0, 0, 0);
    let mut failures = Vec::new();
    for seed in from..from + seeds {
        match run(seed) {
            Ok(ledger) => {
                done += ledger.done.len() as u64;
                gets += ledger.gets;
                unknown += ledger.unknown;
                refused += ledger.refused;
            }
            Err(what) => failures.push(what),
        }
    }
    println!("{seeds} seeds: {done} additions, {gets} reads, {unknown} unknown, {refused} refused");
    assert!(failures.is_empty(), "{failures:#?}");
    if seeds >= SEEDS {
        assert!(done > seeds * 100 && gets > seeds * 100, "too little is done");
        assert!(unknown > 0 && refused > seeds, "something never happens");
    }
}

#[test]
fn every_planted_bug_of_replicas_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("NODE_BUG").ok();
    let mut missed = Vec::new();
    for &bug in Bug::REPLICA.iter().filter(|bug| !SHOWN_ALONE.contains(bug)) {
        if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let _rules = with_rules(bug);
        match (0..BUDGET).find_map(|seed| run(seed).err().map(|what| (seed, what))) {
            Some((seed, what)) => println!("{bug:?}: caught after {} seeds: {what:.160}", seed + 1),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught within {BUDGET} seeds: {missed:?}");
}
