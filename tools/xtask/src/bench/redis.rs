//! Bar 1: speed and CPU per operation beside Debian's redis-server, driven by redis-benchmark.
//!
//! Each group of works begins with empty servers, redis-server first, then the node, in every round. The
//! CPU time is that of the server process with all its threads and ended children, while the client runs.

use super::load::{Connection, Reply};
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting, process};
use crate::server::{Promise, Server};
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Works that share the data of one fresh server: GET reads what SET wrote, RPOP what LPUSH pushed.
struct Group {
    promise: Promise,
    pipeline: u32,
    works: &'static [Work],
}

/// One run of redis-benchmark.
struct Work {
    /// The name that `redis-benchmark -t` knows.
    test: &'static str,
    requests: u32,
    ops: Bar,
    cpu: Option<Bar>,
}

const fn work(test: &'static str, requests: u32, ops: f64, cpu: f64) -> Work {
    Work { test, requests, ops: Bar::RatioAtLeast(ops), cpu: Some(Bar::RatioAtMost(cpu)) }
}

const fn synced(requests: u32, ops: f64) -> Work {
    Work { test: "set", requests, ops: Bar::RatioAtLeast(ops), cpu: None }
}

#[rustfmt::skip] // columns
const GROUPS: &[Group] = &[
    Group { promise: Promise::Everysec, pipeline: 16, works: &[work("set", 2_000_000, 1.5, 0.67), work("get", 2_000_000, 1.2, 0.67)] },
    Group { promise: Promise::Everysec, pipeline: 1,  works: &[work("set",   300_000, 1.0, 1.05), work("get",   300_000, 1.0, 1.05)] },
    Group { promise: Promise::Everysec, pipeline: 16, works: &[work("lpush", 1_000_000, 1.0, 1.0), work("rpop", 1_000_000, 1.0, 1.0)] },
    Group { promise: Promise::Everysec, pipeline: 16, works: &[work("sadd", 1_000_000, 1.0, 1.0)] },
    Group { promise: Promise::Everysec, pipeline: 16, works: &[work("hset", 1_000_000, 1.0, 1.0)] },
    Group { promise: Promise::Everysec, pipeline: 16, works: &[work("zadd", 1_000_000, 1.0, 1.0)] },
    Group { promise: Promise::Everysec, pipeline: 16, works: &[work("mset",   200_000, 1.0, 1.0)] },
    Group { promise: Promise::Always,   pipeline: 1,  works: &[synced( 40_000, 1.5)] },
    Group { promise: Promise::Always,   pipeline: 16, works: &[synced(400_000, 1.0)] },
];

impl Group {
    fn name(&self, work: &Work) -> String {
        format!("{} P={} {}", work.test.to_uppercase(), self.pipeline, self.promise.word())
    }
}

/// What one run gave.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    ops: f64,
    p50: f64,
    p99: f64,
    /// Server CPU microseconds for each operation.
    cpu: f64,
}

/// Measures every work in every round.
pub fn run(setting: &Setting) -> Result<Report> {
    let chosen = |group: &Group| {
        let wanted = setting
            .work
            .as_ref()
            .is_none_or(|text| group.works.iter().any(|work| group.name(work).contains(text)));
        wanted.then_some(())
    };
    let mut report = Report::new("redis", setting.rounds);
    let mut found: Vec<Vec<Vec<(Figures, Figures)>>> =
        GROUPS.iter().map(|group| group.works.iter().map(|_| Vec::new()).collect()).collect();
    for round in 1..=setting.rounds {
        for (group, found) in GROUPS.iter().zip(&mut found).filter(|(group, _)| chosen(group).is_some()) {
            let peer = measure(group, setting, |dir| Server::spawn_redis(dir, group.promise))?;
            let config = format!("[[keyspace]]\nid = 0\ndurability = \"{}\"\n", group.promise.word());
            let us = measure(group, setting, |dir| Server::spawn_node(&setting.binary, dir, Some(&config)))?;
            for ((work, found), pair) in group.works.iter().zip(found).zip(us.into_iter().zip(peer)) {
                let (us, peer) = pair;
                eprintln!(
                    "round {round} {:<22} us {:>8.0} ops/s {:>6.2} µs/op   peer {:>8.0} ops/s {:>6.2} µs/op",
                    group.name(work),
                    us.ops,
                    us.cpu,
                    peer.ops,
                    peer.cpu
                );
                found.push(pair);
            }
        }
    }
    for (group, found) in GROUPS.iter().zip(&found) {
        for (work, pairs) in group.works.iter().zip(found).filter(|(_, pairs)| !pairs.is_empty()) {
            let name = group.name(work);
            let column = |figure: fn(&Figures) -> f64| {
                pairs
                    .iter()
                    .map(|(us, peer)| Pair { us: figure(us), peer: Some(figure(peer)) })
                    .collect::<Vec<_>>()
            };
            report.row(&name, ("speed", "ops/s"), column(|figures| figures.ops), Some(work.ops));
            report.row(&name, ("server CPU", "µs/op"), column(|figures| figures.cpu), work.cpu);
            report.row(&name, ("p50", "ms"), column(|figures| figures.p50), None);
            report.row(&name, ("p99", "ms"), column(|figures| figures.p99), None);
        }
    }
    if report.rows.is_empty() {
        bail!(NotJudged("no work has such a name; see the names in the report without --work".into()));
    }
    Ok(report)
}

/// Runs a group's works on one fresh server.
fn measure(
    group: &Group,
    setting: &Setting,
    spawn: impl Fn(&std::path::Path) -> Result<Server>,
) -> Result<Vec<Figures>> {
    let dir = setting.scratch()?;
    let mut server = spawn(dir.path())?;
    server.wait_ready()?;
    let figures = group.works.iter().map(|work| benchmark(&server, group, work, setting.quick)).collect();
    server.stop()?;
    figures
}

fn benchmark(server: &Server, group: &Group, work: &Work, quick: bool) -> Result<Figures> {
    let requests = if quick { work.requests / 10 } else { work.requests };
    let before = process::cpu_micros(server.pid())?;
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-c", "50", "-d", "64", "-r", "100000"])
        .args(["-P", &group.pipeline.to_string(), "-n", &requests.to_string(), "-t", work.test, "--csv"])
        .stdin(Stdio::null())
        .output()
        .context("redis-benchmark did not start; `cargo xtask setup` installs it")?;
    let cpu = process::cpu_micros(server.pid())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some([ops, p50, p99]) = csv(&text).filter(|_| output.status.success()) else {
        let name = group.name(work);
        bail!(
            "redis-benchmark {name} ended with {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    };
    // redis-benchmark counts error replies as operations, so the data must show that the work was done.
    let (question, done) = evidence(work.test, requests);
    let words: Vec<&str> = question.split(' ').collect();
    match Connection::open(server.port)?.call(&words)? {
        Reply::Line(line)
            if line.strip_prefix(':').and_then(|n| n.parse().ok()).is_some_and(|n| done.contains(&n)) => {}
        other => bail!(
            "after {} {question} gave {other:?}, expected one of {done:?}: the work was not done",
            group.name(work)
        ),
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run fit 52 bits")]
    let cpu = cpu as f64 / f64::from(requests);
    Ok(Figures { ops, p50, p99, cpu })
}

/// A question about the data after a work, and the answers that show it was done.
fn evidence(test: &str, requests: u32) -> (&'static str, std::ops::RangeInclusive<u32>) {
    // n draws from 100,000 keys leave at least half of min(n, 100,000) different ones.
    let drawn = (requests.min(100_000) / 2)..=100_000;
    match test {
        "lpush" => ("LLEN mylist", requests..=requests + 10_000),
        "rpop" => ("LLEN mylist", 0..=10_000),
        "sadd" => ("SCARD myset", drawn),
        "hset" => ("HLEN myhash", drawn),
        "zadd" => ("ZCARD myzset", drawn),
        _ => ("DBSIZE", drawn),
    }
}

/// Operations per second, p50 and p99 in milliseconds, from the CSV of redis-benchmark 7.
pub(super) fn csv(text: &str) -> Option<[f64; 3]> {
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let cells =
        |line: &str| line.split("\",\"").map(|cell| cell.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let (names, values) = (cells(lines.next()?), cells(lines.next()?));
    let cell = |name: &str| values.get(names.iter().position(|own| own == name)?)?.parse().ok();
    Some([cell("rps")?, cell("p50_latency_ms")?, cell("p99_latency_ms")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csv_of_redis_benchmark_is_read_by_its_column_names() {
        let head = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n";
        let mset = "\"MSET (10 keys)\",\"1234.50\",\"1.0\",\"0.1\",\"0.7\",\"0.9\",\"1.5\",\"9.0\"\n";
        assert_eq!(csv(&format!("{head}{mset}")), Some([1234.5, 0.7, 1.5]));
        assert_eq!(csv(&format!("WARNING: no config\n{head}{mset}")), Some([1234.5, 0.7, 1.5]));
        assert_eq!(csv(head), None);
        assert_eq!(csv("ERR unknown command"), None);
    }
}
