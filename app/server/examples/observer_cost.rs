//! What measuring each command costs: pipelined commands into a worker in memory, with and without the
//! stopwatch that LATENCY HISTOGRAM tells from.
//!
//! `cargo run --release -p server --example observer_cost -- COMMANDS [set|get|mixed] [observed]`; under
//! `valgrind --tool=callgrind` or `perf stat -e instructions:u` two runs give the instructions of a command.

use std::env;
use std::time::Instant;

use consensus::{Durability, Solo};
use journal::record::Record;
use kernel::{GroupId, Index, KeyspaceId, Lsn, Micros, Term};
use node::{AppendError, LogSink, Partition, Settings, Worker};
use runtime::Stopwatch;
use storage::Store;
use storage::apply::NoScripts;

/// Commands that a client sends at once.
const PIPELINE: u64 = 16;
/// Different keys.
const KEYS: u64 = 1000;

/// A log that only counts.
struct Counting(u64);

impl LogSink for Counting {
    fn append(&mut self, records: &[Record<'_>], _: Durability) -> Result<Lsn, AppendError> {
        self.0 += records.len() as u64;
        Ok(Lsn(self.0))
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let commands: u64 = args.first().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let group = Solo::new(Term(1), Index(0), Durability::EverySec);
    let partition = Partition::new(GroupId::new(KeyspaceId(0), 0), Store::new(7), group);
    let mut worker = Worker::new(Settings::default(), vec![partition], Box::new(NoScripts), 7);
    if has("observed") {
        worker = worker.observed_by(Box::new(Stopwatch::default()));
    }
    let mut now = Micros(1_700_000_000_000_000);
    let client = worker.connect(now, ([127, 0, 0, 1], 1).into()).expect("there is room");
    let batch = |first: u64| -> Vec<u8> {
        let one = |n: u64| {
            let key = format!("key:{:06}", n % KEYS);
            if has("set") || has("mixed") && n.is_multiple_of(2) {
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$64\r\n{:064}\r\n", key.len(), n)
            } else {
                format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())
            }
        };
        (first..first + PIPELINE).flat_map(|n| one(n).into_bytes()).collect()
    };
    let batches: Vec<Vec<u8>> = (0..KEYS / PIPELINE).map(|n| batch(n * PIPELINE)).collect();
    let mut log = Counting(0);
    let (began, mut sent) = (Instant::now(), 0);
    for bytes in batches.iter().cycle() {
        if sent >= commands {
            break;
        }
        now = Micros(now.0 + 10);
        worker.receive(now, client, bytes);
        while worker.end_turn(now, &mut log) {}
        worker.turn_took(now, 10);
        if let Some((out, _)) = worker.output(client) {
            out.clear();
        }
        worker.drained(client);
        sent += PIPELINE;
    }
    let nanos = began.elapsed().as_nanos() as f64 / sent as f64;
    println!("{sent} commands, {nanos:.0} ns each");
}
