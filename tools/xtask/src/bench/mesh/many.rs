//! Ten thousand services: what they add to a request and to memory, and how fast a change reaches all who watch.

use super::super::report::{Bar, Report};
use super::super::{Setting, process, proxy};
use super::changes::put;
use super::clients::Clients;
use super::http::Http;
use super::{node, own, port};
use crate::trio::Trio;
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SERVICES: usize = 10_000;
const WATCHERS: usize = 1000;
/// Changes that all watchers are to see.
const CHANGES: u64 = 20;
/// How long a change may take until it counts as lost.
const CHANGE_SECONDS_MAX: u64 = 60;
const SECONDS: u64 = 5;

/// The proxy's part of the median with one service and with ten thousand, and the memory of these.
pub fn services(setting: &Setting, report: &mut Report) -> Result<()> {
    proxy::ensure_programs(&[("nginx", "nginx-light")])?;
    let (mut shares, mut memory) = (Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let endpoint = proxy::lone_nginx(dir.path(), "endpoint", "here")?;
        let config = "[services]\nenabled = true\n[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
                      [[proxy.service]]\nname = \"web-0\"\n[[proxy.route]]\nservice = \"web-0\"\n";
        let server = node(setting, dir.path(), config)?;
        let (ours, consul) = (port(&server, 8080), port(&server, 8500));
        let median = |port| -> Result<f64> {
            let seconds = if setting.quick { 1 } else { SECONDS };
            let clients = Clients {
                port,
                method: "GET",
                target: "/",
                count: 1,
                thinks: Duration::ZERO,
                seconds,
                seed: 1,
            };
            let seen = clients.run()?;
            ensure!(seen.failed == 0, "a request failed: {:?}", seen.failure);
            Ok(seen.millis(500) * 1000.0)
        };
        register(consul, 0..1, endpoint.port())?;
        // Until the proxy has it.
        let end = Instant::now() + Duration::from_secs(CHANGE_SECONDS_MAX);
        while super::http::once(ours, "GET", "/", "")?.status != 200 {
            ensure!(Instant::now() < end, "the proxy does not find the service");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (direct, one) = (median(endpoint.port())?, median(ours)?);
        let before = process::anonymous(server.pid())?;
        register(consul, 1..SERVICES, endpoint.port())?;
        let bytes = process::anonymous(server.pid())?.saturating_sub(before);
        let (direct_then, many) = (median(endpoint.port())?, median(ours)?);
        ensure!(
            one > direct && many > direct_then,
            "the proxy's part is smaller than what is measured beside it"
        );
        let share = (many - direct_then) / (one - direct);
        #[expect(clippy::cast_precision_loss, reason = "memory fits 52 bits")]
        let mib = bytes as f64 / 1_048_576.0;
        eprintln!(
            "round {round} services: the proxy adds {:.0} µs with 1, {:.0} µs with {SERVICES}, which take {mib:.1} MiB",
            one - direct,
            many - direct_then
        );
        shares.push(share);
        memory.push(mib);
        server.stop()?;
    }
    let name = "10,000 services beside 1";
    own(report, name, ("added p50", "× of 1"), &shares, Some(Bar::AtMost(1.1)));
    own(report, name, ("memory", "MiB"), &memory, Some(Bar::AtMost(30.0)));
    Ok(())
}

/// From a change at one of three members until a thousand watchers at all of them have it, with ten thousand services.
pub fn watchers(setting: &Setting, report: &mut Report) -> Result<()> {
    let mut slowest = Vec::new();
    for round in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let trio = Trio::node(&setting.binary, dir.path(), "[services]\nenabled = true\n")?;
        let consul = (0..3).map(|at| Ok(trio.port(at)? - 6379 + 8500)).collect::<Result<Vec<u16>>>()?;
        for (at, &port) in consul.iter().enumerate() {
            register(port, SERVICES * at / 3 + 1..SERVICES * (at + 1) / 3, 9)?;
        }
        let watch = Watch { consul, ..Watch::default() };
        let changes = if setting.quick { 2 } else { CHANGES };
        let mut micros = std::thread::scope(|scope| -> Result<Vec<u64>> {
            let start = |at: usize| {
                let watch = &watch;
                std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, move || watch.watch(at))
            };
            let threads = (0..WATCHERS).map(start).collect::<std::io::Result<Vec<_>>>()?;
            let changed = watch.change(changes);
            watch.ended.store(true, Ordering::SeqCst);
            // So that those who wait look.
            put(watch.consul[0], "/v1/agent/service/register", "{\"Name\":\"watched\",\"ID\":\"end\"}")?;
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().unwrap_or_else(|_| bail!("a watcher panicked"))?);
            }
            changed.map(|()| all)
        })?;
        micros.sort_unstable();
        ensure!(!micros.is_empty(), "no watcher saw anything");
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one change fit 52 bits")]
        let p99 = micros[micros.len() * 99 / 100] as f64 / 1000.0;
        eprintln!("round {round} watchers: {} sights of {changes} changes, p99 {p99:.0} ms", micros.len());
        slowest.push(p99);
        trio.stop()?;
    }
    let name = "1,000 watchers on 3 nodes";
    own(report, name, ("change, p99", "ms"), &slowest, Some(Bar::AtMost(1000.0)));
    Ok(())
}

/// Change number n gives the service the tag `n-N`.
#[derive(Default)]
struct Watch {
    consul: Vec<u16>,
    /// The last change, and when it was sent, in microseconds since the first watcher began.
    change: AtomicU64,
    sent: AtomicU64,
    /// Sights of the present change.
    sights: AtomicU64,
    ended: AtomicBool,
}

impl Watch {
    /// Makes one change after the other, each when all have seen the one before.
    fn change(&self, changes: u64) -> Result<()> {
        for number in 1..=changes {
            self.sights.store(0, Ordering::SeqCst);
            self.sent.store(monotonic(), Ordering::SeqCst);
            self.change.store(number, Ordering::SeqCst);
            let at = usize::try_from(number)? % 3;
            let id = if at == 0 { "watched" } else { "watched-too" };
            let body =
                format!("{{\"Name\":\"watched\",\"ID\":\"{id}\",\"Port\":9,\"Tags\":[\"n-{number}\"]}}");
            put(self.consul[at], "/v1/agent/service/register", &body)?;
            let end = Instant::now() + Duration::from_secs(CHANGE_SECONDS_MAX);
            while self.sights.load(Ordering::SeqCst) < WATCHERS as u64 {
                let sights = self.sights.load(Ordering::SeqCst);
                ensure!(Instant::now() < end, "{sights} of {WATCHERS} watchers saw change {number}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// How long each change took until it was seen here, in microseconds.
    fn watch(&self, at: usize) -> Result<Vec<u64>> {
        let mut http = Http::open(self.consul[at % self.consul.len()])?;
        let (mut index, mut seen, mut micros) = (0, 0, Vec::new());
        while !self.ended.load(Ordering::SeqCst) {
            let target = format!("/v1/health/service/watched?index={index}&wait=30s");
            let answer = http.ask("GET", &target, "")?;
            ensure!(answer.status == 200, "status {}", answer.status);
            index = answer.index.context("a watched page has an index")?;
            let (number, sent) = (self.change.load(Ordering::SeqCst), self.sent.load(Ordering::SeqCst));
            let text = String::from_utf8(answer.body)?;
            if number > seen && text.contains(&format!("\"n-{number}\"")) {
                seen = number;
                micros.push(monotonic().saturating_sub(sent));
                self.sights.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(micros)
    }
}

/// Microseconds since some moment.
fn monotonic() -> u64 {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn register(consul: u16, numbers: std::ops::Range<usize>, endpoint: u16) -> Result<()> {
    let mut http = Http::open(consul)?;
    for number in numbers {
        let body = format!(
            "{{\"Name\":\"web-{number}\",\"ID\":\"web-{number}\",\"Port\":{endpoint},\"Address\":\"127.0.0.1\"}}"
        );
        let answer = http.ask("PUT", "/v1/agent/service/register", &body)?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}
