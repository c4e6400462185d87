//! What a link between nodes costs, beside libp2p-stream and plain TCP: bar 8 of the cluster.
//!
//! `bench/fabric` holds the three programs. Server and driver are one thread each, on a core each; the three run in
//! turn, twice in every round. A message is one frame of 64 bytes there and the same back.

use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting, process};
use crate::packages::run as command;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KINDS: [&str; 3] = ["link", "libp2p", "plain"];
/// Each kind runs so often in a round; the round's figure is the mean.
const TURNS: u32 = 2;
const SERVER_CORE: &str = "0";
const DRIVER_CORE: &str = "1";

/// One depth: how many messages are under way, and how many are sent in all.
struct Work {
    depth: u32,
    messages: u64,
}

const DEEP: Work = Work { depth: 64, messages: 2_000_000 };
const SINGLE: Work = Work { depth: 1, messages: 50_000 };

/// What one run gave.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// CPU microseconds of both ends for each message there and back.
    cpu: f64,
    /// Messages there and back each second.
    rate: f64,
    /// Median of the round trips, in microseconds; at depth 1.
    p50: f64,
}

/// Builds the programs of `bench/fabric`.
pub fn build(root: &Path) -> Result<PathBuf> {
    let target = crate::suite::target_dir(root).join("bench-fabric");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--quiet"]).arg("--target-dir").arg(&target);
    command(cargo.current_dir(root.join("bench/fabric")))?;
    Ok(target.join("release/fabric-bench"))
}

/// Measures all three in every round.
pub fn run(setting: &Setting) -> Result<Report> {
    if std::thread::available_parallelism()?.get() < 2 {
        bail!(NotJudged("server and driver need a core each".into()));
    }
    let mut report = Report::new("fabric", setting.rounds);
    let mut rounds: Vec<[[Figures; 2]; 3]> = Vec::new();
    for round in 1..=setting.rounds {
        let mut sums = [[Figures::default(); 2]; 3];
        for _ in 0..TURNS {
            for (kind, sums) in KINDS.iter().zip(&mut sums) {
                for (work, sum) in [DEEP, SINGLE].iter().zip(sums) {
                    let figures = measure(setting, kind, work)?;
                    sum.cpu += figures.cpu / f64::from(TURNS);
                    sum.rate += figures.rate / f64::from(TURNS);
                    sum.p50 += figures.p50 / f64::from(TURNS);
                }
            }
        }
        for (kind, [deep, single]) in KINDS.iter().zip(&sums) {
            eprintln!(
                "round {round} {kind:<8} depth 64: {:.3} µs CPU/message, {:>8.0} messages/s   depth 1: p50 {:.1} µs",
                deep.cpu, deep.rate, single.p50
            );
        }
        rounds.push(sums);
    }
    let column = |peer: usize, figure: fn(&[Figures; 2]) -> f64| -> Vec<Pair> {
        rounds.iter().map(|kinds| Pair { us: figure(&kinds[0]), peer: Some(figure(&kinds[peer])) }).collect()
    };
    let cpu = ("CPU", "µs/message");
    report.row(
        "depth 64 beside libp2p",
        cpu,
        column(1, |depths| depths[0].cpu),
        Some(Bar::RatioAtMost(0.67)),
    );
    report.row("depth 64 beside TCP", cpu, column(2, |depths| depths[0].cpu), Some(Bar::RatioAtMost(2.0)));
    let rate = ("speed", "messages/s");
    report.row("depth 64 beside libp2p", rate, column(1, |depths| depths[0].rate), None);
    report.row("depth 64 beside TCP", rate, column(2, |depths| depths[0].rate), None);
    let p50 = ("p50", "µs");
    report.row("depth 1 beside TCP", p50, column(2, |depths| depths[1].p50), Some(Bar::RatioAtMost(1.25)));
    report.row("depth 1 beside libp2p", p50, column(1, |depths| depths[1].p50), None);
    Ok(report)
}

/// A server that is ended with its driver.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and then the driver has said so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(setting: &Setting, kind: &str, work: &Work) -> Result<Figures> {
    let messages = if setting.quick { work.messages / 10 } else { work.messages };
    let mut server = Command::new(&setting.binary);
    server.args(["serve", kind, SERVER_CORE]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Server(server.spawn().with_context(|| setting.binary.display().to_string())?);
    let mut port = String::new();
    let said = server.0.stdout.take().context("its output is a pipe")?;
    BufReader::new(said).read_line(&mut port)?;
    // The driver warms up with a tenth more; the server's CPU is over all of it.
    let before = process::cpu_micros(server.0.id())?;
    let output = Command::new(&setting.binary)
        .args(["drive", kind, DRIVER_CORE, port.trim()])
        .args([work.depth.to_string(), messages.to_string()])
        .stdin(Stdio::null())
        .output()?;
    let server_micros = process::cpu_micros(server.0.id())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let (&[wall, cpu, median], true) = (&figures[..], output.status.success()) else {
        bail!(
            "driving {kind} ended with {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    };
    #[expect(clippy::cast_precision_loss, reason = "messages and microseconds of one run fit 52 bits")]
    let (messages, server_micros) = (messages as f64, server_micros as f64);
    Ok(Figures {
        cpu: server_micros / (messages * 1.1) + cpu / messages / 1000.0,
        rate: messages / wall * 1e9,
        p50: median / 1000.0,
    })
}
