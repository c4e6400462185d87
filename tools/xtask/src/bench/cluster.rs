//! A cluster of three beside our own single node: what replication costs, what it costs idle, and how long it takes to go on
//! without a node. Bars 2, 3 and 4 of the cluster.
//!
//! All three nodes and the clients share this machine. CPU is that of the processes, from `/proc/PID/stat`, while the client
//! runs. Nodes are told nothing but what `archipel cluster dev` tells them: timeouts and durability are the defaults.

mod failover;
mod idle;
mod set;
mod writers;

use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting};
use crate::trio::Trio;
use anyhow::{Result, bail};
use std::path::Path;

/// The keyspace of 64 partitions, besides the sixteen databases that always exist.
const SHARDED: u64 = 1;
const PARTITIONS: u16 = 64;
const CONFIG: &str = "[[keyspace]]\nid = 1\nname = \"sharded\"\npartitions = 64\n";

/// How long nobody asks anything before something is measured: leaders go where they should be, groups fall asleep, and
/// what was copied is tidied up.
const REST_SECONDS: u64 = 15;

/// The parts, by the names that `--work` knows.
const PARTS: [&str; 4] = ["set", "idle", "kill", "stop"];

/// Measures all parts, or those that `--work` names; the leader is killed `kills` times, and stopped a quarter as often.
pub fn run(setting: &Setting, kills: u32) -> Result<Report> {
    let mut report = Report::new("cluster", setting.rounds);
    let wanted = |part: &str| setting.work.as_ref().is_none_or(|text| part.contains(text.as_str()));
    if !PARTS.into_iter().any(wanted) {
        bail!(NotJudged(format!("no part has such a name; there are {}", PARTS.join(", "))));
    }
    if wanted("set") {
        set::run(setting, &mut report)?;
    }
    if wanted("idle") {
        idle::run(setting, &mut report)?;
    }
    let (kills, stops) = if setting.quick { (1, 1) } else { (kills, kills.div_ceil(4)) };
    let (kills, stops) = (if wanted("kill") { kills } else { 0 }, if wanted("stop") { stops } else { 0 });
    if kills + stops > 0 {
        failover::run(setting, &mut report, kills, stops)?;
    }
    Ok(report)
}

/// Three nodes with the keyspace of 64 partitions.
fn sharded(setting: &Setting, dir: &Path) -> Result<Trio> {
    Trio::node(&setting.binary, dir, CONFIG)
}

/// A row without a peer: one figure for each round.
fn own(
    report: &mut Report,
    work: &str,
    metric: (&'static str, &'static str),
    figures: &[f64],
    bar: Option<Bar>,
) {
    report.row(work, metric, figures.iter().map(|&us| Pair { us, peer: None }).collect(), bar);
}
