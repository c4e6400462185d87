//! What a command costs in a worker's turns: on a node of its own, and on three nodes that agree.
//!
//! Pipelined commands into workers in memory; frames and syncs are handed on at once, so what is measured is what the
//! workers themselves do. `cargo run --release -p node --example turn_cost -- COMMANDS [set|get] [alone|cluster]`; two
//! runs under `perf stat -e instructions:u` give the instructions of a command.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::env;
use std::time::{Duration, Instant};

use consensus::{Durability, Incarnation, Members, ReplicaId, Solo};
use journal::record::Record;
use kernel::{ConnId, GroupId, Index, KeyspaceId, Lsn, Micros, NodeId, Term};
use node::cluster::{Done, Job, Seating, Start};
use node::{AppendError, LogSink, Partition, Settings, Worker};
use placement::Partitions;
use storage::Store;
use storage::apply::NoScripts;
use storage::store::Policy;

/// Commands that a client sends at once.
const PIPELINE: u64 = 16;
/// Different keys.
const KEYS: u64 = 1000;
const GROUP: GroupId = GroupId::new(KeyspaceId(0), 0);

/// A log that only counts.
struct Counting(u64);

impl LogSink for Counting {
    fn append(&mut self, records: &[Record<'_>], _: Durability) -> Result<Lsn, AppendError> {
        self.0 += records.len() as u64;
        Ok(Lsn(self.0))
    }
}

/// A node, and how long it has worked.
struct Machine {
    worker: Worker,
    log: Counting,
    synced: u64,
    busy: Duration,
}

impl Machine {
    fn new(worker: Worker) -> Machine {
        Machine { worker, log: Counting(0), synced: 0, busy: Duration::ZERO }
    }
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8; 32])
}

fn replica(node: usize) -> ReplicaId {
    ReplicaId::new(node as u64 + 1).expect("counted from 1")
}

fn alone() -> Vec<Machine> {
    let partition = Partition::new(GROUP, Store::new(7), Solo::new(Term(1), Index(0), Durability::Always));
    vec![Machine::new(Worker::new(Settings::default(), vec![partition], Box::new(NoScripts), 7))]
}

fn three(now: Micros) -> Vec<Machine> {
    let nodes: Vec<_> = (0..3).map(|node| (id(node), replica(node))).collect();
    let one = |node: usize| {
        let start = Start {
            node: id(node),
            incarnation: Incarnation(1),
            seed: 7,
            chance: node as u64,
            kept: Default::default(),
        };
        let worker = Worker::new(Settings::default(), Vec::new(), Box::new(NoScripts), 7);
        let mut worker = worker.with_cluster(start);
        let founders = Members::new((0..3).map(replica), []).expect("sound");
        let seating = Seating {
            group: GROUP,
            replica: replica(node),
            nodes: nodes.clone(),
            founders: Some(founders),
            epoch: 1,
            durability: Durability::Always,
            partitions: Partitions::ONE,
            policy: Policy::NoEviction,
            memory: None,
        };
        worker.start_replica(now, &seating);
        Machine::new(worker)
    };
    (0..3).map(one).collect()
}

/// Gives every node turns until none has anything to do.
fn settle(machines: &mut [Machine], now: Micros) {
    loop {
        let mut any = false;
        for node in 0..machines.len() {
            let machine = &mut machines[node];
            let began = Instant::now();
            let (mut frames, mut jobs) = (Vec::new(), Vec::new());
            any |= machine.worker.end_turn(now, &mut machine.log);
            machine.worker.take_frames(&mut frames);
            if machine.synced < machine.log.0 {
                machine.synced = machine.log.0;
                machine.worker.synced(Lsn(machine.synced));
                any = true;
            }
            machine.busy += began.elapsed();
            machine.worker.take_jobs(&mut jobs);
            for job in jobs {
                if let Job::Added { at, .. } = job {
                    machine.worker.job_done(now, Done::Added { at });
                    any = true;
                }
            }
            for frame in frames {
                let to = &mut machines[usize::from(frame.to.0[0])];
                let began = Instant::now();
                to.worker.peer_frame(now, id(node), &frame.bytes);
                to.busy += began.elapsed();
                any = true;
            }
        }
        if !any {
            return;
        }
    }
}

fn batch(first: u64, set: bool) -> Vec<u8> {
    let one = |n: u64| {
        let key = format!("key:{:06}", n % KEYS);
        if set {
            format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$64\r\n{:064}\r\n", key.len(), n)
        } else {
            format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())
        }
    };
    (first..first + PIPELINE).flat_map(|n| one(n).into_bytes()).collect()
}

fn ask(machines: &mut [Machine], leader: usize, client: ConnId, now: Micros, bytes: &[u8]) {
    let began = Instant::now();
    machines[leader].worker.receive(now, client, bytes);
    machines[leader].busy += began.elapsed();
    settle(machines, now);
    let (out, _) = machines[leader].worker.output(client).expect("it is connected");
    assert!(!out.is_empty(), "it is answered");
    out.clear();
    machines[leader].worker.drained(client);
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let commands: u64 = args.first().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let mut now = Micros(1_700_000_000_000_000);
    let mut machines = if has("cluster") { three(now) } else { alone() };
    settle(&mut machines, now);
    let leads = |machine: &Machine| machine.worker.partitions().iter().any(Partition::leads);
    while !machines.iter().any(leads) {
        now = now.plus_millis(10);
        for machine in &mut machines {
            if machine.worker.deadline().is_some_and(|due| due <= now) {
                machine.worker.wake(now);
            }
        }
        settle(&mut machines, now);
    }
    let leader = machines.iter().position(leads).expect("one leads");
    let client = machines[leader].worker.connect(now, ([127, 0, 0, 1], 1).into()).expect("there is room");
    let batches: Vec<Vec<u8>> = (0..KEYS / PIPELINE).map(|n| batch(n * PIPELINE, has("set"))).collect();
    machines.iter_mut().for_each(|machine| machine.busy = Duration::ZERO);
    let mut sent = 0;
    for bytes in batches.iter().cycle() {
        if sent >= commands {
            break;
        }
        now = now + 10;
        ask(&mut machines, leader, client, now, bytes);
        sent += PIPELINE;
    }
    let nanos = |machine: &Machine| machine.busy.as_nanos() as f64 / sent as f64;
    let others: f64 = machines.iter().map(nanos).sum::<f64>() - nanos(&machines[leader]);
    println!(
        "{sent} commands: {:.0} ns each at the leader, {others:.0} ns at the others",
        nanos(&machines[leader])
    );
}
