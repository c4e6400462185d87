//! Figure 8 of the Raft paper (Ongaro & Ousterhout 2014, 5.4.2), message by message: "a log entry is stored on a majority
//! of servers, yet can still be overwritten by a future leader", so it is not committed by counting.

use std::collections::{BTreeMap, BTreeSet};

use consensus::codec::{self, Message, Said};
use consensus::replay::Restored;
use consensus::{Config, Group, Incarnation, Mark, Replica, ReplicaId};
use kernel::planted::Bug;
use kernel::{GroupId, Index, Lsn, Micros, Term};

use crate::disk::first_members;
use crate::with_rules;

const TICK: u64 = 50_000;
/// Ticks after which an election that does not succeed is given up.
const ROUNDS_MAX: usize = 500;

/// One server: a replica on a disk that is always quick.
struct Server {
    replica: Replica,
    end: u64,
    applied: BTreeMap<Index, Term>,
}

struct Stage {
    servers: BTreeMap<u64, Server>,
    stopped: BTreeSet<u64>,
    now: Micros,
    sent: Vec<Message>,
}

impl Server {
    fn settle(&mut self, now: Micros, sent: &mut Vec<Message>) {
        self.end += self.replica.writes().len() as u64;
        self.replica.wrote(Lsn(self.end));
        self.replica.synced(Lsn(self.end));
        self.replica.turn(now);
        while self.replica.next_event().is_some() {}
        while let Some(committed) = self.replica.next_committed() {
            self.applied.insert(committed.index, committed.term);
            self.replica.applied(committed.index);
        }
        self.replica.take_messages(sent);
    }
}

impl Stage {
    fn new() -> Stage {
        let server = |number: u64| {
            let id = ReplicaId::new(number).expect("counted from 1");
            let mut config = Config::new(GroupId(7), id, Incarnation(1), 8);
            (config.quiet_ticks, config.append_bytes) = (None, 0);
            let replica = Replica::new(config, Micros(0), Restored::first(Mark::first(first_members(5))));
            (number, Server { replica, end: 0, applied: BTreeMap::new() })
        };
        let servers = (1..=5).map(server).collect();
        Stage { servers, stopped: BTreeSet::new(), now: Micros(0), sent: Vec::new() }
    }

    fn replica(&self, number: u64) -> &Replica {
        &self.servers[&number].replica
    }

    /// A tick on every server that runs, then the messages that `passes` lets through; the others are lost.
    fn round(&mut self, passes: &dyn Fn(&Stage, &Message) -> bool) {
        self.now = self.now + TICK;
        for (number, server) in &mut self.servers {
            if !self.stopped.contains(number) {
                server.replica.wake(self.now);
                server.settle(self.now, &mut self.sent);
            }
        }
        while !self.sent.is_empty() {
            for message in std::mem::take(&mut self.sent) {
                let (from, to) = (message.from.get(), message.to.get());
                let cut = self.stopped.contains(&from) || self.stopped.contains(&to);
                if cut || !passes(self, &message) {
                    continue;
                }
                let mut bytes = Vec::new();
                codec::encode(&message, &mut bytes);
                let server = self.servers.get_mut(&to).expect("there are five");
                // A refused message is as good as a lost one.
                let _ = server.replica.receive(self.now, &bytes);
                server.settle(self.now, &mut self.sent);
            }
        }
    }

    /// `leader` is elected by `voters`, and nobody gets an entry of it.
    fn elect(&mut self, leader: u64, voters: &[u64]) {
        let before = self.replica(leader).term();
        for _ in 0..ROUNDS_MAX {
            if self.replica(leader).leads() && self.replica(leader).term() > before {
                return;
            }
            self.round(&|_, message| {
                let (from, to) = (message.from.get(), message.to.get());
                let between =
                    from == leader && voters.contains(&to) || to == leader && voters.contains(&from);
                between && !matches!(message.body, Said::Append { .. })
            });
        }
        panic!("server {leader} is not elected");
    }
}

/// Plays it. `Err` says which entry was applied and then overwritten.
pub fn play() -> Result<(), String> {
    let mut stage = Stage::new();
    // (a) S1 leads and replicates its entry to S2 alone.
    stage.elect(1, &[2, 3]);
    for _ in 0..20 {
        stage.round(&|_, message| [message.from.get(), message.to.get()].iter().all(|&one| one < 3));
    }
    let entry = stage.replica(1).term_at(Index(2));
    assert_eq!(stage.replica(2).term_at(Index(2)), entry, "S2 has it");
    // (b) S1 crashes; S5 is elected by S3 and S4, and accepts another entry.
    stage.stopped.insert(1);
    stage.elect(5, &[3, 4]);
    let rival = stage.replica(5).term_at(Index(2));
    assert!(rival > entry, "S5 has another one");
    // (c) S5 crashes; S1 is elected again and goes on: S3 gets the old entry and nothing of S1's new term, S2 has both.
    stage.stopped = BTreeSet::from([5]);
    stage.elect(1, &[2, 3, 4]);
    for _ in 0..20 {
        stage.round(&|stage, message| match &message.body {
            Said::Append { prev, entries, .. } => {
                let old = entries.iter().all(|entry| entry.index() <= Index(2));
                match message.to.get() {
                    2 => true,
                    3 => old || *prev > stage.replica(3).last(),
                    _ => false,
                }
            }
            _ => message.from.get() == 1 || message.to.get() == 1,
        });
    }
    assert_eq!(stage.replica(3).term_at(Index(2)), entry, "a majority has the old entry");
    assert_eq!(stage.replica(3).last(), Index(2), "and nothing behind it");
    // (d) S1 crashes; S5 is elected by those whose logs end in an older term, and overwrites it.
    stage.stopped = BTreeSet::from([1]);
    stage.elect(5, &[3, 4]);
    for (number, server) in &stage.servers {
        for (&index, &term) in &server.applied {
            let own = stage.replica(5).term_at(index);
            if own != Some(term) {
                return Err(format!(
                    "S{number} applied term {term} at {index}, where the later leader S5 has {own:?}"
                ));
            }
        }
    }
    for _ in 0..20 {
        stage.round(&|_, _| true);
    }
    let agreed: BTreeSet<_> = (2..=5).map(|number| stage.servers[&number].applied.clone()).collect();
    let agreed = agreed.first().filter(|_| agreed.len() == 1).expect("all that run applied the same");
    assert_eq!(agreed.get(&Index(2)).copied(), rival, "S5's entry is committed with one of its new term");
    Ok(())
}

#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let _rules = with_rules(Bug::None);
    play().unwrap_or_else(|what| panic!("{what}"));
}
