//! A cluster of three beside etcd: bar 1 of the cluster.
//!
//! Three nodes of each on this machine, every write on two disks' logs before it is answered. The clients are those of
//! `bench/etcd`: the same loop for both, in turn. Both clusters are alive for the whole round, and one idles while the other works.

use super::process;
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting};
use crate::packages::{ensure, run as command};
use crate::trio::Trio;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const KEYS: u32 = 10_000;
const VALUE_BYTES: u32 = 64;

/// So many clients do so many operations of this kind.
struct Work {
    name: &'static str,
    word: &'static str,
    clients: u32,
    operations: u32,
}

#[rustfmt::skip] // columns
const WORKS: &[Work] = &[
    Work { name: "put, 50 clients",  word: "put", clients: 50,  operations: 60_000 },
    Work { name: "get, 50 clients",  word: "get", clients: 50,  operations: 120_000 },
    Work { name: "put, 200 clients", word: "put", clients: 200, operations: 120_000 },
    Work { name: "get, 200 clients", word: "get", clients: 200, operations: 240_000 },
];

/// What one run gave.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of all three servers together, for each operation.
    cpu_micros: f64,
}

/// Builds the clients.
fn build(root: &Path) -> Result<PathBuf> {
    let target = crate::suite::target_dir(root).join("bench-etcd");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--quiet"]).arg("--target-dir").arg(&target);
    command(cargo.current_dir(root.join("bench/etcd")))?;
    Ok(target.join("release/etcd-bench"))
}

/// Measures both in every round.
pub fn run(root: &Path, setting: &Setting) -> Result<Report> {
    if let Err(error) = ensure("etcd", "etcd-server") {
        bail!(NotJudged(format!("there is no etcd to compare with: {error:#}")));
    }
    let clients = build(root)?;
    let mut report = Report::new("etcd", setting.rounds);
    let mut found: Vec<Vec<(Figures, Figures)>> = WORKS.iter().map(|_| Vec::new()).collect();
    for round in 1..=setting.rounds {
        let (here, there) = (setting.scratch()?, setting.scratch()?);
        let peer = Trio::etcd(there.path())?;
        let us = Trio::node(&setting.binary, here.path(), "")?;
        for (kind, trio) in [("etcd", &peer), ("resp", &us)] {
            drive(&clients, kind, "fill", 50, 0, trio)?;
        }
        for (work, found) in WORKS.iter().zip(&mut found) {
            if setting.work.as_ref().is_some_and(|text| !work.name.contains(text)) {
                continue;
            }
            let peer = measure(&clients, "etcd", work, &peer, setting.quick)?;
            let us = measure(&clients, "resp", work, &us, setting.quick)?;
            eprintln!(
                "round {round} {:<17} us {:>7.0}/s p99 {:>6.2} ms {:>6.1} µs/op   etcd {:>7.0}/s p99 {:>6.2} ms {:>6.1} µs/op",
                work.name, us.rate, us.p99_ms, us.cpu_micros, peer.rate, peer.p99_ms, peer.cpu_micros
            );
            found.push((us, peer));
        }
        us.stop()?;
        drop(peer);
    }
    for (work, pairs) in WORKS.iter().zip(&found).filter(|(_, pairs)| !pairs.is_empty()) {
        let column = |figure: fn(&Figures) -> f64| -> Vec<Pair> {
            pairs.iter().map(|(us, peer)| Pair { us: figure(us), peer: Some(figure(peer)) }).collect()
        };
        report.row(work.name, ("speed", "ops/s"), column(|one| one.rate), Some(Bar::RatioAtLeast(2.0)));
        report.row(work.name, ("p99", "ms"), column(|one| one.p99_ms), Some(Bar::RatioAtMost(1.0)));
        report.row(work.name, ("p50", "ms"), column(|one| one.p50_ms), None);
        report.row(work.name, ("CPU of all three", "µs/op"), column(|one| one.cpu_micros), None);
    }
    if report.rows.is_empty() {
        bail!(NotJudged("no work has such a name; see the names in the report without --work".into()));
    }
    Ok(report)
}

fn measure(clients: &Path, kind: &str, work: &Work, trio: &Trio, quick: bool) -> Result<Figures> {
    let operations = if quick { work.operations / 10 } else { work.operations };
    let cpu = |trio: &Trio| trio.pids().map(process::cpu_micros).sum::<Result<u64>>();
    let before = cpu(trio)?;
    let text = drive(clients, kind, work.word, work.clients, operations, trio)?;
    let spent = cpu(trio)? - before;
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[seconds, counted, p50, p99] = &figures[..] else { bail!("the clients of {kind} printed {text:?}") };
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run fit 52 bits")]
    // The clients warm up with a tenth more, which the servers' CPU is over.
    let cpu_micros = spent as f64 / (f64::from(operations) * 1.1);
    Ok(Figures { rate: counted / seconds, p50_ms: p50 / 1000.0, p99_ms: p99 / 1000.0, cpu_micros })
}

fn drive(clients: &Path, kind: &str, word: &str, count: u32, operations: u32, trio: &Trio) -> Result<String> {
    let output = Command::new(clients)
        .args([kind, word, &count.to_string(), &operations.to_string()])
        .args([KEYS.to_string(), VALUE_BYTES.to_string()])
        .args(&trio.addresses)
        .stdin(Stdio::null())
        .output()
        .with_context(|| clients.display().to_string())?;
    if !output.status.success() {
        bail!(
            "{word} by clients of {kind} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
