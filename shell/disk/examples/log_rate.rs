//! How fast the log takes batches: 50 records of 100 bytes an append, in both durabilities.
//!
//! `cargo run --release -p disk --example log_rate [-- DIRECTORY]`
//!
//! `always, waiting` waits for each batch to be durable before the next, as one worker with nothing else
//! to do would; `pipelined` keeps appending while the syncs run; `paced` appends 4,000 times a second,
//! which is 200,000 records.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use disk::log::{Durability, Entry, Log, LogOptions, Record, SyncEvent};
use kernel::{GroupId, Index, Micros, Term};

const RECORDS: u64 = 50;
const BODY: [u8; 100] = [7; 100];
const TIME: Duration = Duration::from_secs(3);
const PACE: Duration = Duration::from_micros(250);

/// When the next batch comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// At once.
    Pipelined,
    /// At its time.
    Paced,
    /// After the last one is durable.
    Waiting,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = env::args_os().nth(1).map_or_else(|| env::temp_dir().join("log_rate"), PathBuf::from);
    println!("{:<22} {:>10} {:>12} {:>10} {:>8}", "", "appends/s", "records/s", "µs/append", "syncs/s");
    for round in 1..=2 {
        measure(&dir, &format!("everysec, pipelined {round}"), Durability::EverySec, Load::Pipelined)?;
        measure(&dir, &format!("everysec, paced {round}"), Durability::EverySec, Load::Paced)?;
        measure(&dir, &format!("always, pipelined {round}"), Durability::Always, Load::Pipelined)?;
        measure(&dir, &format!("always, paced {round}"), Durability::Always, Load::Paced)?;
        measure(&dir, &format!("always, waiting {round}"), Durability::Always, Load::Waiting)?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(dir: &Path, name: &str, durability: Durability, load: Load) -> Result<(), Box<dyn Error>> {
    let dir = dir.join(name.replace([' ', ','], "-"));
    let (send, events) = channel();
    // The receiver is gone only once the measurement is over.
    let on_synced = Box::new(move |event| send.send(event).unwrap_or_default());
    let (log, _) = Log::open(&dir, LogOptions::default(), &mut |_, _| {}, on_synced)?;
    let (begin, mut appends, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    let (mut inside, mut syncs) = (Duration::ZERO, 0u32);
    while begin.elapsed() < TIME {
        if load == Load::Paced {
            let due = begin + PACE * appends as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let records: Vec<Record<'_>> = (1..=RECORDS).map(|i| record(appends * RECORDS + i)).collect();
        let before = Instant::now();
        let end = log.append(&records, durability)?;
        let took = before.elapsed();
        inside += took;
        slowest = slowest.max(took);
        appends += 1;
        // The engine's part: everything synced is checkpointed, so that segments are recycled.
        if appends.is_multiple_of(1000) {
            log.checkpointed(GroupId(1), Index(appends * RECORDS));
        }
        while load == Load::Waiting && log.synced() < end {
            syncs += u32::from(matches!(events.recv()?, SyncEvent::Synced(_)));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let end = log.append(&[record((appends + 1) * RECORDS)], Durability::Always)?;
    while log.synced() < end {
        syncs += u32::from(matches!(events.recv()?, SyncEvent::Synced(_)));
    }
    log.close()?;
    syncs += events.try_iter().count() as u32;
    let rate = appends as f64 / seconds;
    println!(
        "{name:<22} {rate:>10.0} {:>12.0} {:>10.2} {:>8.0}   slowest append {slowest:?}",
        rate * RECORDS as f64,
        inside.as_secs_f64() * 1e6 / appends as f64,
        f64::from(syncs) / seconds,
    );
    Ok(())
}

fn record(index: u64) -> Record<'static> {
    Record::Entry(Entry {
        group: GroupId(1),
        term: Term(1),
        index: Index(index),
        semantics: 1,
        time: Micros(index),
        body: &BODY,
    })
}
