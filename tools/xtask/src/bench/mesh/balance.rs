//! Five endpoints of which one is four times slower, or answers errors at once, or dies.
//!
//! An endpoint works on four requests at once and takes 10 ms for each, evenly drawn between half and one and a half times
//! as long. Clients think for 30 ms, so that they ask for about half of what the endpoints can do.

use super::super::report::{Bar, Pair, Report};
use super::super::{Setting, proxy};
use super::clients::{Clients, Seen};
use super::http::{Endpoint, Manner};
use super::{listed, node, own, port};
use anyhow::{Result, ensure};
use std::time::Duration;

/// What an ordinary endpoint takes for a request.
const TIME: Duration = Duration::from_millis(10);
const ENDPOINTS: u64 = 5;
const CLIENTS: u64 = 32;
const THINKS: Duration = Duration::from_millis(30);
/// How long a proxy learns before it is measured: its clients are counted from then on.
const LEARN_SECONDS: u64 = 2;
const SECONDS: u64 = 8;

/// p99 with one endpoint four times slower, beside round robin and beside HAProxy's `leastconn`.
pub fn slow(setting: &Setting, report: &mut Report) -> Result<()> {
    proxy::ensure_programs(&[("haproxy", "haproxy")])?;
    let mut found = Vec::new();
    for seed in 1..=u64::from(setting.rounds) {
        let endpoints = endpoints(seed, Manner::Takes(TIME * 4))?;
        let ports: Vec<u16> = endpoints.iter().map(|endpoint| endpoint.port).collect();
        let dir = setting.scratch()?;
        let haproxy = proxy::leastconn(dir.path(), &ports)?;
        let server = node(setting, dir.path(), &config(&ports))?;
        let ours = port(&server, 8080);
        let peer = measure(setting, haproxy.port(), "/", "GET", seed)?;
        let robin = measure(setting, ours, "/robin", "GET", seed)?;
        let us = measure(setting, ours, "/", "GET", seed)?;
        for (name, seen) in [("haproxy", &peer), ("round robin", &robin), ("us", &us)] {
            say(seed, "slow", name, seen);
            let sound = seen.failed == 0 && !seen.micros.is_empty();
            ensure!(sound, "{name}: a request failed although no endpoint does: {:?}", seen.failure);
        }
        found.push([us.millis(990), robin.millis(990), peer.millis(990)]);
        server.stop()?;
    }
    let beside = |peer: usize| found.iter().map(|one| Pair { us: one[0], peer: Some(one[peer]) }).collect();
    let name = "one of five is 4x slower";
    report.row(name, ("p99/round robin", "ms"), beside(1), Some(Bar::RatioAtMost(0.5)));
    report.row(name, ("p99/leastconn", "ms"), beside(2), Some(Bar::RatioAtMost(0.8)));
    Ok(())
}

/// Requests that fail because one endpoint answers errors faster than the others work: of those that may be sent again, and
/// of those that may not.
pub fn hole(setting: &Setting, report: &mut Report) -> Result<()> {
    for method in ["GET", "POST"] {
        let mut failed = Vec::new();
        for seed in 1..=u64::from(setting.rounds) {
            let endpoints = endpoints(seed, Manner::Fails)?;
            let ports: Vec<u16> = endpoints.iter().map(|endpoint| endpoint.port).collect();
            let dir = setting.scratch()?;
            let server = node(setting, dir.path(), &config(&ports))?;
            // What is lost while it learns counts.
            let ours = port(&server, 8080);
            let seen = clients(ours, "/", method, seed, if setting.quick { 1 } else { SECONDS }).run()?;
            say(seed, "hole", method, &seen);
            failed.push(seen.failed_percent());
            server.stop()?;
        }
        let name = format!("one of five fails, {method}");
        own(report, &name, ("failed", "%"), &failed, Some(Bar::AtMost(2.0)));
    }
    Ok(())
}

/// Requests that fail because an endpoint is killed while it answers.
pub fn killed(setting: &Setting, report: &mut Report) -> Result<()> {
    proxy::ensure_programs(&[("nginx", "nginx-light")])?;
    let mut failed = Vec::new();
    for seed in 1..=u64::from(setting.rounds) {
        let dir = setting.scratch()?;
        let mut endpoints = (0..ENDPOINTS)
            .map(|at| proxy::lone_nginx(dir.path(), &format!("endpoint{at}"), "here"))
            .collect::<Result<Vec<_>>>()?;
        let ports: Vec<u16> = endpoints.iter().map(proxy::Running::port).collect();
        let server = node(setting, dir.path(), &config(&ports))?;
        let ours = port(&server, 8080);
        let seconds = if setting.quick { 2 } else { SECONDS };
        let seen = std::thread::scope(|scope| -> Result<Seen> {
            let load =
                Clients { thinks: Duration::from_millis(1), ..clients(ours, "/", "GET", seed, seconds) };
            let load = scope.spawn(move || load.run());
            std::thread::sleep(Duration::from_secs(seconds) / 2);
            // Dropped, it is killed.
            drop(endpoints.swap_remove(2));
            load.join().unwrap_or_else(|_| anyhow::bail!("the clients panicked"))
        })?;
        say(seed, "killed", "GET", &seen);
        #[expect(clippy::cast_precision_loss, reason = "requests of one run fit 52 bits")]
        failed.push(seen.failed as f64);
        server.stop()?;
    }
    own(report, "one of five is killed", ("failed", "requests"), &failed, Some(Bar::AtMost(0.0)));
    Ok(())
}

/// Five, the third of which is as told.
fn endpoints(seed: u64, third: Manner) -> Result<Vec<Endpoint>> {
    let manner = |at| if at == 2 { third } else { Manner::Takes(TIME) };
    (0..ENDPOINTS).map(|at| Endpoint::start(manner(at), seed * ENDPOINTS + at)).collect()
}

/// The service as it is by default, and by round robin below `/robin`.
fn config(ports: &[u16]) -> String {
    let ports = listed(ports);
    format!(
        "[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
         [[proxy.service]]\nname = \"usual\"\nendpoints = [{ports}]\n\
         [[proxy.service]]\nname = \"robin\"\nendpoints = [{ports}]\npolicy = \"round-robin\"\n\
         [[proxy.route]]\nservice = \"usual\"\n\
         [[proxy.route]]\nservice = \"robin\"\npath = \"/robin\"\n"
    )
}

fn clients(port: u16, target: &'static str, method: &'static str, seed: u64, seconds: u64) -> Clients {
    Clients { port, method, target, count: CLIENTS, thinks: THINKS, seconds, seed }
}

fn measure(
    setting: &Setting,
    port: u16,
    target: &'static str,
    method: &'static str,
    seed: u64,
) -> Result<Seen> {
    clients(port, target, method, seed + 1000, if setting.quick { 1 } else { LEARN_SECONDS }).run()?;
    clients(port, target, method, seed, if setting.quick { 1 } else { SECONDS }).run()
}

fn say(seed: u64, work: &str, name: &str, seen: &Seen) {
    let (p50, p99) = (seen.millis(500), seen.millis(990));
    let why = seen.failure.as_deref().unwrap_or_default();
    eprintln!(
        "seed {seed} {work:<7} {name:<12} {:>6} answers p50 {p50:>7.2} ms p99 {p99:>7.2} ms, {} failed {why}",
        seen.micros.len(),
        seen.failed
    );
}
