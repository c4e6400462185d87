//! SET with 16 under way on each of 50 connections: a single node, the cluster through who leads, and through who does not.

use super::super::redis::csv;
use super::super::report::{Bar, Pair, Report};
use super::super::{Setting, load, process};
use super::REST_SECONDS;
use crate::server::Server;
use crate::trio::Trio;
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::time::Duration;

const REQUESTS: u32 = 400_000;
/// Values of 64 bytes under 100,000 names, in database 0: one partition, each write on two disks before it is answered.
const WORDS: &[&str] = &["-c", "50", "-d", "64", "-r", "100000", "-P", "16", "-t", "set", "--csv"];
const SINGLE: &str = "[[keyspace]]\nid = 0\ndurability = \"always\"\n";

/// What one run gave.
#[derive(Clone, Copy)]
struct Figures {
    ops: f64,
    p99: f64,
    /// Microseconds for each operation: of who leads, or of the single node.
    leader: f64,
    /// Of all servers together.
    all: f64,
}

/// One round.
struct Round {
    single: Figures,
    right: Figures,
    wrong: Figures,
}

/// Measures the three in turn in every round, each on new servers with empty directories.
pub fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=setting.rounds {
        let round = round(setting)?;
        for (name, one) in [("single", round.single), ("leader", round.right), ("another", round.wrong)] {
            eprintln!(
                "round {number} SET P=16 always, {name:<8} {:>8.0} ops/s p99 {:>6.2} ms, CPU {:>6.2} µs/op of {:>6.2}",
                one.ops, one.p99, one.leader, one.all
            );
        }
        rounds.push(round);
    }
    let pairs = |us: fn(&Round) -> f64, peer: fn(&Round) -> f64| -> Vec<Pair> {
        rounds.iter().map(|round| Pair { us: us(round), peer: Some(peer(round)) }).collect()
    };
    let name = "SET P=16, 3 nodes to 1";
    let speed = pairs(|one| one.right.ops, |one| one.single.ops);
    report.row(name, ("speed", "ops/s"), speed, Some(Bar::RatioAtLeast(0.3)));
    let leader = pairs(|one| one.right.leader, |one| one.single.leader);
    report.row(name, ("leader's CPU", "µs/op"), leader, Some(Bar::RatioAtMost(2.0)));
    let all = pairs(|one| one.right.all, |one| one.single.all);
    report.row(name, ("CPU of all", "µs/op"), all, Some(Bar::RatioAtMost(4.0)));
    report.row(name, ("p99", "ms"), pairs(|one| one.right.p99, |one| one.single.p99), None);
    let name = "SET P=16, forwarded to not";
    report.row(name, ("speed", "ops/s"), pairs(|one| one.wrong.ops, |one| one.right.ops), None);
    let all = pairs(|one| one.wrong.all, |one| one.right.all);
    report.row(name, ("CPU of all", "µs/op"), all, Some(Bar::RatioAtMost(2.0)));
    report.row(name, ("p99", "ms"), pairs(|one| one.wrong.p99, |one| one.right.p99), None);
    Ok(())
}

fn round(setting: &Setting) -> Result<Round> {
    let single = {
        let dir = setting.scratch()?;
        let mut server = Server::spawn_node(&setting.binary, dir.path(), Some(SINGLE))?;
        server.wait_ready()?;
        let figures = measure(server.port, &[server.pid()], 0, setting.quick);
        server.stop()?;
        figures?
    };
    // A new cluster for each, so that both find the same.
    let through = |right: bool| -> Result<Figures> {
        let dir = setting.scratch()?;
        let trio = Trio::node(&setting.binary, dir.path(), "")?;
        std::thread::sleep(Duration::from_secs(REST_SECONDS));
        let leads = trio.leads(0, 0)?;
        let leader = leads.iter().position(|&leads| leads == 1).context("nobody leads database 0")?;
        let asked = if right { leader } else { (leader + 1) % leads.len() };
        let pids: Vec<u32> = trio.pids().collect();
        let figures = measure(trio.port(asked)?, &pids, leader, setting.quick)?;
        if trio.leads(0, 0)? != leads {
            bail!("who leads database 0 has changed while SET ran: the figures are not about one leader");
        }
        trio.stop()?;
        Ok(figures)
    };
    Ok(Round { single, right: through(true)?, wrong: through(false)? })
}

/// Runs redis-benchmark against `port`; CPU is that of `pids`, of which the one at `leader` leads.
fn measure(port: u16, pids: &[u32], leader: usize, quick: bool) -> Result<Figures> {
    let requests = if quick { REQUESTS / 10 } else { REQUESTS };
    let cpu = || pids.iter().map(|&pid| process::cpu_micros(pid)).collect::<Result<Vec<u64>>>();
    let before = cpu()?;
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-n", &requests.to_string()])
        .args(WORDS)
        .stdin(Stdio::null())
        .output()
        .context("redis-benchmark did not start; `cargo xtask setup` installs it")?;
    let spent: Vec<u64> = cpu()?.iter().zip(&before).map(|(after, before)| after - before).collect();
    let text = String::from_utf8_lossy(&output.stdout);
    let Some([ops, _, p99]) = csv(&text).filter(|_| output.status.success()) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("redis-benchmark ended with {}: {text}{errors}", output.status);
    };
    // redis-benchmark counts error replies as operations: n draws of 100,000 names leave at least half of them.
    let least = requests.min(100_000) / 2;
    match load::Connection::open(port)?.call(&["DBSIZE"])? {
        load::Reply::Line(line) if line.strip_prefix(':').and_then(|n| n.parse().ok()) >= Some(least) => {}
        other => bail!("after {requests} SETs DBSIZE gave {other:?}: the work was not done"),
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run fit 52 bits")]
    let each = |micros: u64| micros as f64 / f64::from(requests);
    Ok(Figures { ops, p99, leader: each(spent[leader]), all: each(spent.iter().sum()) })
}
