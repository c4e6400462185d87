//! Measures the engine: checkpoints, loading, memory and random reads.
//!
//! `cargo run --release -p disk --example engine_rate [directory] [lz4]`; the directory is a fresh one under
//! the system's temporary directory if none is given, and is removed at the end.

use std::path::{Path, PathBuf};
use std::time::Instant;

use disk::engine::{Change, Compression, Engine, EngineError, EngineOptions, Mark};
use kernel::{GroupId, Index, Rng, Term};

const SMALL: GroupId = GroupId(0);
const LARGE: GroupId = GroupId(1 << 16);
const BATCH: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let base = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let compressed = arguments.iter().any(|argument| argument == "lz4");
    let compression = if compressed { Compression::Lz4 } else { Compression::None };
    let options = EngineOptions { compression, ..EngineOptions::default() };
    if arguments.iter().any(|argument| argument == "read") {
        return Ok(read(&base, &options)?);
    }
    println!("{options:?}");
    let dir = base.join(format!("engine-rate-{}", std::process::id()));
    let result = write(&dir, &options).map_err(Box::from).and_then(|()| {
        std::process::Command::new(std::env::current_exe()?).arg(&dir).arg("read").status()?;
        Ok(())
    });
    // What cannot be removed is left for the system to clean up.
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn write(dir: &Path, options: &EngineOptions) -> Result<(), EngineError> {
    let engine = Engine::open(dir, options.clone())?;
    let mut index = 0;
    for round in ["fresh", "again", "again"] {
        index += 1;
        timed(&format!("commit of 100k x 64 B, {round}"), BATCH, || {
            fill(&engine, SMALL, index, 0..BATCH, BATCH, &[index as u8; 64])
        })?;
    }
    let mut batch = 0;
    timed("10 commits of 100k x 128 B", 10 * BATCH, || {
        while batch < 10 {
            (batch, index) = (batch + 1, index + 1);
            fill(
                &engine,
                SMALL,
                index,
                (batch - 1) * BATCH..batch * BATCH,
                batch * BATCH,
                &[batch as u8; 128],
            )?;
        }
        Ok(())
    })?;
    let mut rng = Rng::new(1);
    timed("commit of 100k x 128 B at random among 1M", BATCH, || {
        let keys: std::collections::BTreeSet<u64> = (0..BATCH).map(|_| rng.below(10 * BATCH)).collect();
        fill(&engine, SMALL, index + 1, keys.into_iter(), 10 * BATCH, &[3; 128])
    })?;
    let body: Vec<u8> = (0..1024).map(|_| rng.next_u64() as u8).collect();
    timed("200 commits of 10k x 1 KiB", 20 * BATCH, || {
        for batch in 0..200 {
            let keys = batch * 10_000..(batch + 1) * 10_000;
            fill(&engine, LARGE, batch + 1, keys, (batch + 1) * 10_000, &body)?;
        }
        Ok(())
    })?;
    timed("20 commits of 10k x 1 KiB at random among 2M", 20 * 10_000, || {
        for batch in 0..20 {
            let keys: std::collections::BTreeSet<u64> = (0..10_000).map(|_| rng.below(20 * BATCH)).collect();
            fill(&engine, LARGE, batch + 201, keys.into_iter(), 20 * BATCH, &body)?;
        }
        Ok(())
    })?;
    println!("{:>10} KiB resident after writing, {} MiB on disk", resident_kib(), engine.disk_bytes() >> 20);
    engine.close()
}

/// Reads what [`write`] left, in a process of its own, so that its memory is that of reading alone.
fn read(dir: &Path, options: &EngineOptions) -> Result<(), EngineError> {
    let engine = timed("open", 1, || Engine::open(dir, options.clone()))?;
    println!("{:>10} KiB resident after open", resident_kib());
    for _ in 0..3 {
        timed("load of 1M x (16 + 128) B", 10 * BATCH, || {
            engine.load(SMALL, &mut |loaded| {
                std::hint::black_box(loaded);
            })
        })?;
    }
    println!("{:>10} KiB resident after load", resident_kib());
    timed("load of 2M stubs of 1 KiB", 20 * BATCH, || engine.load(LARGE, &mut |_| ()))?;
    let mut rng = Rng::new(2);
    for _ in 0..3 {
        timed("random get of 1 KiB from 2M", BATCH, || {
            for _ in 0..BATCH {
                let found = engine.get(LARGE, 0, &key(rng.below(20 * BATCH)))?;
                assert_eq!(found.map(|stored| stored.body.len()), Some(1024));
            }
            Ok(())
        })?;
    }
    println!("{:>10} KiB resident after gets, {} MiB on disk", resident_kib(), engine.disk_bytes() >> 20);
    engine.close()
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

fn fill(
    engine: &Engine,
    group: GroupId,
    index: u64,
    numbers: impl Iterator<Item = u64>,
    objects: u64,
    body: &[u8],
) -> Result<(), EngineError> {
    let keys: Vec<Vec<u8>> = numbers.map(key).collect();
    let changes = keys.iter().map(|key| Change::Put { key, head: &[1, 0, 0, 0], body });
    let mark = Mark {
        index: Index(index),
        term: Term(1),
        generation: 0,
        objects,
        standing: Vec::new(),
        state: Vec::new(),
    };
    engine.commit(group, &mark, changes)
}

fn timed<T>(
    what: &str,
    operations: u64,
    run: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let (started, cpu) = (Instant::now(), cpu_ticks());
    let result = run()?;
    let took = started.elapsed();
    println!(
        "{:>10.1} ms {:>9.0}/s {:>6} ms CPU  {what}",
        took.as_secs_f64() * 1e3,
        operations as f64 / took.as_secs_f64(),
        (cpu_ticks() - cpu) * 10,
    );
    Ok(result)
}

/// CPU time of all threads in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}
