//! Bar 2: memory for a million keys beside redis-server, and how soon a restarted node is itself again.
//!
//! Both servers promise `everysec` here: the data and its memory are the same, the load is quicker.

use super::Setting;
use super::load::{Connection, Data, Spread, name};
use super::process::{self, Resident};
use super::report::{Bar, Pair, Report};
use crate::server::{Promise, Server};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys that are asked for first after a restart.
const SAMPLES: u64 = 1000;

/// When the speed after a restart is taken: the last whole window before this.
const BACK_SECONDS: u64 = 5;

/// The window in which that speed is counted.
const WINDOW: Duration = Duration::from_millis(500);

/// How long a restarted server may take before the bench gives up.
const GIVE_UP: Duration = Duration::from_secs(120);

const MIB: f64 = 1024.0 * 1024.0;

/// What one server gave in one round.
struct Round {
    resident: Resident,
    full_speed: f64,
    /// After SIGTERM, then after SIGKILL.
    restarts: [Restart; 2],
}

/// What one restart gave. Times are in seconds since the process was spawned.
#[derive(Clone, Copy)]
struct Restart {
    first: f64,
    last: f64,
    /// GETs each second in the last window before five seconds.
    speed: f64,
    wrong: u64,
}

/// Measures both servers in every round.
pub fn run(setting: &Setting) -> Result<Report> {
    let data = Data { keys: if setting.quick { 100_000 } else { 1_000_000 }, value: 128 };
    let config = "[[keyspace]]\nid = 0\ndurability = \"everysec\"\n";
    let mut rounds = Vec::new();
    for round in 1..=setting.rounds {
        let peer = measure(setting, data, |dir| Server::spawn_redis(dir, Promise::Everysec))?;
        let us = measure(setting, data, |dir| Server::spawn_node(&setting.binary, dir, Some(config)))?;
        eprintln!(
            "round {round}: RSS us {:.0} MiB, peer {:.0} MiB",
            mib(us.resident.now),
            mib(peer.resident.now)
        );
        rounds.push((us, peer));
    }
    let mut report = Report::new("memory", setting.rounds);
    let column = |figure: &dyn Fn(&Round) -> f64| -> Vec<Pair> {
        rounds.iter().map(|(us, peer)| Pair { us: figure(us), peer: Some(figure(peer)) }).collect()
    };
    report.row(
        "loaded",
        ("RSS", "MiB"),
        column(&|round| mib(round.resident.now)),
        Some(Bar::RatioAtMost(1.2)),
    );
    report.row("loaded", ("peak RSS", "MiB"), column(&|round| mib(round.resident.peak)), None);
    report.row("loaded", ("GET", "ops/s"), column(&|round| round.full_speed), None);
    for (n, name) in ["after SIGTERM", "after SIGKILL"].into_iter().enumerate() {
        report.row(name, ("first key", "s"), column(&|round| round.restarts[n].first), None);
        report.row(
            name,
            ("last of sampled", "s"),
            column(&|round| round.restarts[n].last),
            Some(Bar::AtMost(2.0)),
        );
        let share = column(&|round| round.restarts[n].speed / round.full_speed);
        report.row(name, ("share of speed", "at 5 s"), share, Some(Bar::AtLeast(0.8)));
        report.row(
            name,
            ("wrong", "keys"),
            column(&|round| count(round.restarts[n].wrong)),
            Some(Bar::AtMost(0.0)),
        );
    }
    Ok(report)
}

fn measure(setting: &Setting, data: Data, spawn: impl Fn(&Path) -> Result<Server>) -> Result<Round> {
    let dir = setting.scratch()?;
    let mut server = spawn(dir.path())?;
    server.wait_ready()?;
    data.store(server.port)?;
    ensure!(data.wrong(server.port)? == 0, "keys were wrong before any restart");
    let full_speed = data.get_rate(server.port, Spread::Uniform, 3)?;
    let resident = process::resident(server.pid())?;
    server.stop()?;
    let (graceful, server) = restart(data, || spawn(dir.path()))?;
    // A crash must find something to recover that no checkpoint holds yet.
    data.store(server.port)?;
    server.kill()?;
    let (crashed, server) = restart(data, || spawn(dir.path()))?;
    server.stop()?;
    Ok(Round { resident, full_speed, restarts: [graceful, crashed] })
}

fn restart(data: Data, spawn: impl Fn() -> Result<Server>) -> Result<(Restart, Server)> {
    let start = Instant::now();
    let server = spawn()?;
    let (first, last) = sampled(data, server.port, start)?;
    let end = start + Duration::from_secs(BACK_SECONDS);
    let gets = data.get_until(server.port, Spread::Uniform, start, end, WINDOW)?;
    let index = usize::try_from(u128::from(BACK_SECONDS) * 1000 / WINDOW.as_millis())? - 1;
    let speed = count(gets.windows.get(index).copied().unwrap_or(0)) / WINDOW.as_secs_f64();
    let wrong = gets.wrong + data.wrong(server.port)?;
    Ok((Restart { first, last, speed, wrong }, server))
}

/// When the first and the last of the sampled keys were answered correctly, in seconds since `start`.
fn sampled(data: Data, port: u16, start: Instant) -> Result<(f64, f64)> {
    let step = data.keys / SAMPLES;
    let (mut first, mut next) = (None, 0);
    let mut connection = None;
    while next < SAMPLES {
        ensure!(
            start.elapsed() < GIVE_UP,
            "{} was not answered within {} s",
            name(next * step),
            GIVE_UP.as_secs()
        );
        let answered = match &mut connection {
            Some(open) => Connection::get_batch(open, &[next * step], data.value).map(|wrong| wrong == 0),
            None => Connection::open(port).map(|open| connection.insert(open)).map(|_| false),
        };
        match answered {
            Ok(true) => {
                first.get_or_insert(start.elapsed().as_secs_f64());
                next += 1;
            }
            // Not yet: the port is closed, or the answer is an error while data is read.
            Ok(false) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => {
                connection = None;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    Ok((first.unwrap_or(f64::NAN), start.elapsed().as_secs_f64()))
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}

fn mib(bytes: u64) -> f64 {
    count(bytes) / MIB
}
