//! What three nodes cost that nobody asks anything: CPU, memory, bytes between each two.

use super::super::report::{Bar, Report};
use super::super::{Setting, process};
use super::{REST_SECONDS, own, sharded};
use crate::trio::Trio;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long it is measured.
const SECONDS: u64 = 30;
/// Links of each of three nodes.
const PEERS: f64 = 2.0;

/// What one node has used so far.
struct Used {
    cpu_micros: u64,
    bytes: u64,
}

/// Measures in every round, on a new cluster.
pub fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    let (mut cpu, mut memory, mut wire) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let trio = sharded(setting, dir.path())?;
        let factor = if setting.quick { 10 } else { 1 };
        std::thread::sleep(Duration::from_secs(REST_SECONDS) / factor);
        let (began, before) = (Instant::now(), used(&trio)?);
        std::thread::sleep(Duration::from_secs(SECONDS) / factor);
        let (seconds, after) = (began.elapsed().as_secs_f64(), used(&trio)?);
        let rate = |figure: fn(&Used) -> u64| -> Vec<f64> {
            let each = after.iter().zip(&before);
            #[expect(clippy::cast_precision_loss, reason = "what half a minute uses fits 52 bits")]
            each.map(|(after, before)| (figure(after) - figure(before)) as f64 / seconds).collect()
        };
        let resident =
            trio.pids().map(|pid| Ok(process::resident(pid)?.now)).collect::<Result<Vec<u64>>>()?;
        #[expect(clippy::cast_precision_loss, reason = "memory fits 52 bits")]
        let resident: Vec<f64> = resident.iter().map(|&bytes| bytes as f64 / 1_048_576.0).collect();
        let percent: Vec<f64> = rate(|one| one.cpu_micros).iter().map(|micros| micros / 10_000.0).collect();
        let link: Vec<f64> = rate(|one| one.bytes).iter().map(|bytes| bytes / PEERS / 1000.0).collect();
        eprintln!(
            "round {number} idle, each node: CPU {percent:.2?} %, memory {resident:.1?} MiB, a link {link:.2?} kB/s"
        );
        let most = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
        cpu.push(most(&percent));
        memory.push(most(&resident));
        wire.push(most(&link));
        trio.stop()?;
    }
    let name = "idle, the busiest of 3";
    own(report, name, ("CPU", "% of a core"), &cpu, Some(Bar::AtMost(2.0)));
    own(report, name, ("memory", "MiB"), &memory, Some(Bar::AtMost(60.0)));
    own(report, name, ("wire of a link", "kB/s"), &wire, Some(Bar::AtMost(5.0)));
    Ok(())
}

fn used(trio: &Trio) -> Result<Vec<Used>> {
    let one = |(at, pid): (usize, u32)| {
        let page = metrics(trio.admin(at)?)?;
        // What is on the wire: with TLS and framing, in both directions.
        let bytes = |name| figure(&page, name).with_context(|| format!("the metrics have no {name}"));
        let (sent, received) =
            (bytes("archipel_link_sent_bytes_total")?, bytes("archipel_link_received_bytes_total")?);
        Ok(Used { cpu_micros: process::cpu_micros(pid)?, bytes: sent + received })
    };
    trio.pids().enumerate().map(one).collect()
}

/// The page of metrics on this admin port.
fn metrics(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// A metric without labels.
fn figure(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# HELP a_total Bytes.\na_total_more 7\na_total 12\n";
        assert_eq!(figure(page, "a_total"), Some(12));
        assert_eq!(figure(page, "a"), None);
    }
}
