//! How many commits per second three replicas make on one thread, and what a tick of idle groups costs.
//!
//! `cargo run --release -p consensus --example group_rate`. Messages pass through the codec; the disk is a vector that syncs at
//! once, so this is the cost of agreement alone.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock; the machine does not")]

use std::time::Instant;

use consensus::codec::{Message, encode};
use consensus::replay::Restored;
use consensus::{Config, Group, Incarnation, Mark, Members, Proposed, Replica, ReplicaId};
use kernel::{GroupId, Lsn, Micros};

/// Three replicas and what is between them.
struct Trio {
    replicas: Vec<Replica>,
    ends: Vec<u64>,
    now: Micros,
    messages: Vec<Message>,
    bytes: Vec<u8>,
    committed: u64,
}

impl Trio {
    fn new(group: u32, quiet: Option<u32>) -> Trio {
        let members = Members::new((1..=3).filter_map(ReplicaId::new), []).expect("three voters");
        let replica = |id: ReplicaId| {
            let mut config = Config::new(GroupId(group), id, Incarnation(1), u64::from(group));
            config.quiet_ticks = quiet;
            Replica::new(config, Micros(0), Restored::first(Mark::first(members.clone())))
        };
        let replicas = members.iter().map(replica).collect();
        let (messages, bytes) = (Vec::new(), Vec::new());
        Trio { replicas, ends: vec![0; 3], now: Micros(0), messages, bytes, committed: 0 }
    }

    /// Everyone writes, syncs, sends and applies until nothing is left to do.
    fn settle(&mut self) {
        loop {
            for (replica, end) in self.replicas.iter_mut().zip(&mut self.ends) {
                *end += replica.writes().len() as u64;
                replica.wrote(Lsn(*end));
                replica.synced(Lsn(*end));
                replica.turn(self.now);
                while let Some(committed) = replica.next_committed() {
                    replica.applied(committed.index);
                    self.committed += 1;
                }
                while replica.next_event().is_some() {}
                replica.take_messages(&mut self.messages);
            }
            if self.messages.is_empty() {
                return;
            }
            for message in self.messages.drain(..) {
                self.bytes.clear();
                encode(&message, &mut self.bytes);
                let to = &mut self.replicas[message.to.get() as usize - 1];
                // The second vote of an election that is over is refused, and counted there.
                let _ = to.receive(self.now, &self.bytes);
            }
        }
    }

    fn tick(&mut self, micros: u64) {
        self.now = self.now + micros;
        self.replicas.iter_mut().for_each(|replica| replica.wake(self.now));
        self.settle();
    }

    fn leader(&self) -> Option<usize> {
        self.replicas.iter().position(Replica::leads)
    }

    fn elect(&mut self) -> usize {
        loop {
            self.tick(50_000);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
    }

    fn propose(&mut self, leader: usize, body: &[u8]) {
        let replica = &mut self.replicas[leader];
        let (_, index) = replica.propose().expect("the leader proposes");
        self.ends[leader] += 1;
        let proposed = Proposed { index, semantics: 1, time: self.now, body };
        replica.written(&proposed, Lsn(self.ends[leader]));
    }
}

fn commits(window: u32, body: &[u8]) {
    let mut trio = Trio::new(1, None);
    let leader = trio.elect();
    let (rounds, before) = (400_000 / window, trio.committed);
    let start = Instant::now();
    for round in 0..rounds {
        for _ in 0..window {
            trio.propose(leader, body);
        }
        trio.settle();
        if round % 16 == 0 {
            let applied = trio.replicas[leader].last_applied();
            trio.replicas.iter_mut().for_each(|replica| replica.compact(applied));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let entries = u64::from(rounds * window);
    assert_eq!(trio.committed - before, 3 * entries, "every replica applied every entry");
    println!(
        "{window:>4} entries of {} bytes in a turn: {:>9.0} commits/s, {:.2} us each on all three replicas",
        body.len(),
        entries as f64 / seconds,
        seconds * 1e6 / entries as f64
    );
}

fn ticks(groups: u32, quiet: Option<u32>) {
    let mut trios: Vec<Trio> = (1..=groups).map(|group| Trio::new(group, quiet)).collect();
    trios.iter_mut().for_each(|trio| _ = trio.elect());
    trios.iter_mut().for_each(|trio| (0..100).for_each(|_| trio.tick(50_000)));
    let asleep = trios.iter().filter(|trio| trio.replicas.iter().all(Replica::is_asleep)).count();
    let rounds = 2000;
    let start = Instant::now();
    for _ in 0..rounds {
        trios.iter_mut().for_each(|trio| trio.tick(50_000));
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
    println!("{groups} idle groups of 3, {asleep} asleep: {micros:.1} us a tick of all, heartbeats included");
}

fn main() {
    let body = [7; 64];
    for window in [1, 16, 256] {
        commits(window, &body);
    }
    ticks(64, None);
    ticks(64, Some(60));
}
