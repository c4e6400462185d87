//! How fast what changes counts, and what it breaks: a service that is registered at one member of three and asked for
//! through another's proxy, a configuration that is changed a hundred times under load, and a node that is exchanged.

use super::super::report::{Bar, Report};
use super::super::{Setting, proxy};
use super::clients::{Clients, Seen};
use super::http::{Endpoint, Http, Manner, once};
use super::{node, own, port};
use crate::server::{Server, signal};
use crate::trio::Trio;
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Services that are registered, one after the other, in each round.
const REGISTERED: usize = 100;
/// Configurations, one after the other, in each round.
const SWAPS: u64 = 100;
/// How often a node is exchanged in each round, and how long each is reckoned to take.
const RESTARTS: u64 = 10;
const RESTART_SECONDS: u64 = 3;
/// How long a change may take until it counts as lost.
const CHANGE_SECONDS_MAX: u64 = 30;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
const CLIENTS: usize = 16;

/// From a registration to the first request that is answered through another member's proxy.
pub fn register(setting: &Setting, report: &mut Report) -> Result<()> {
    let mut slowest = Vec::new();
    for round in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let config = "[services]\nenabled = true\n[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
                      [[proxy.service]]\nname = \"job\"\n[[proxy.route]]\nservice = \"job\"\n";
        let trio = Trio::node(&setting.binary, dir.path(), config)?;
        let endpoint = Endpoint::start(Manner::Takes(Duration::ZERO), u64::from(round))?;
        let mut millis = Vec::new();
        for number in 0..if setting.quick { REGISTERED / 10 } else { REGISTERED } {
            let (at, other) = (number % 3, (number + 1) % 3);
            let consul = trio.port(at)? - 6379 + 8500;
            let body = format!(
                "{{\"Name\":\"job\",\"ID\":\"job\",\"Port\":{},\"Address\":\"127.0.0.1\"}}",
                endpoint.port
            );
            let began = Instant::now();
            put(consul, "/v1/agent/service/register", &body)?;
            wait_for(trio.port(other)? - 6379 + 8080, 200)?;
            millis.push(began.elapsed().as_secs_f64() * 1000.0);
            put(consul, "/v1/agent/service/deregister/job", "")?;
            for each in 0..3 {
                wait_for(trio.port(each)? - 6379 + 8080, 503)?;
            }
        }
        millis.sort_by(f64::total_cmp);
        let p99 = millis[millis.len() * 99 / 100];
        eprintln!("round {round} register: p50 {:.1} ms, p99 {p99:.1} ms", millis[millis.len() / 2]);
        slowest.push(p99);
        trio.stop()?;
    }
    own(report, "register to first request", ("p99", "ms"), &slowest, Some(Bar::AtMost(1000.0)));
    Ok(())
}

/// Requests that were dropped, or answered by what is not the service any more, while configurations are swapped.
pub fn swap(setting: &Setting, report: &mut Report) -> Result<()> {
    proxy::ensure_programs(&[("nginx", "nginx-light")])?;
    let (mut wrong, mut slowest) = (Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let two = [proxy::lone_nginx(dir.path(), "one", "0")?, proxy::lone_nginx(dir.path(), "two", "1")?];
        let ports = [two[0].port(), two[1].port()];
        let server = node(setting, dir.path(), &config(&ports, 0))?;
        let swaps = Swaps { port: port(&server, 8080), ..Swaps::default() };
        let (seen, millis) = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| swaps.ask())).collect();
            let change = || -> Result<f64> {
                let mut slowest = 0_f64;
                for number in 1..=if setting.quick { SWAPS / 10 } else { SWAPS } {
                    std::fs::write(dir.path().join("archipel.toml"), config(&ports, number))?;
                    swaps.begun.store(number, Ordering::SeqCst);
                    let began = Instant::now();
                    signal(server.pid(), "HUP")?;
                    swaps.wait(number)?;
                    slowest = slowest.max(began.elapsed().as_secs_f64() * 1000.0);
                }
                Ok(slowest)
            };
            let millis = change();
            swaps.ended.store(true, Ordering::SeqCst);
            let mut seen = (0, 0, None);
            for client in clients {
                let (asked, bad, why) = client.join().unwrap_or((0, 1, Some("a client panicked".into())));
                seen = (seen.0 + asked, seen.1 + bad, seen.2.or(why));
            }
            (seen, millis)
        });
        let ((asked, bad, why), millis) = (seen, millis?);
        let why = why.unwrap_or_default();
        eprintln!(
            "round {round} swap: {asked} requests, {bad} dropped or wrong {why}, slowest swap {millis:.1} ms"
        );
        ensure!(asked > 0, "nobody asked anything");
        #[expect(clippy::cast_precision_loss, reason = "requests of one run fit 52 bits")]
        wrong.push(bad as f64);
        slowest.push(millis);
        server.stop()?;
    }
    let name = "100 configurations";
    own(report, name, ("dropped or wrong", "requests"), &wrong, Some(Bar::AtMost(0.0)));
    own(report, name, ("slowest swap", "ms"), &slowest, None);
    Ok(())
}

/// Requests and connections that are lost while a node takes the place of another, ten times in each round. Its service is
/// found in the registry.
pub fn restart(setting: &Setting, report: &mut Report) -> Result<()> {
    proxy::ensure_programs(&[("nginx", "nginx-light")])?;
    let mut lost = Vec::new();
    for round in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let endpoint = proxy::lone_nginx(dir.path(), "endpoint", "here")?;
        let config = "[services]\nenabled = true\n[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
                      [[proxy.service]]\nname = \"job\"\n[[proxy.route]]\nservice = \"job\"\n";
        let mut server = node(setting, dir.path(), config)?;
        let ours = port(&server, 8080);
        let body = format!("{{\"Name\":\"job\",\"Port\":{},\"Address\":\"127.0.0.1\"}}", endpoint.port());
        put(port(&server, 8500), "/v1/agent/service/register", &body)?;
        wait_for(ours, 200)?;
        let swaps = if setting.quick { 2 } else { RESTARTS };
        let seconds = swaps * RESTART_SECONDS;
        let clients = |count, seed| {
            let thinks = Duration::from_millis(1);
            Clients { port: ours, method: "GET", target: "/", count, thinks, seconds, seed }
        };
        let (load, began) = (clients(64, u64::from(round)), Instant::now());
        let load = std::thread::spawn(move || load.run());
        for _ in 0..swaps {
            server = Server::take_over(server, &setting.binary, dir.path())?;
            server.wait_ready()?;
        }
        ensure!(began.elapsed() < Duration::from_secs(seconds), "the load ended before the last exchange");
        let seen: Seen = load.join().unwrap_or_else(|_| bail!("the clients panicked"))?;
        let why = seen.failure.as_deref().unwrap_or_default();
        eprintln!("round {round} restart: {} answers, {} lost {why}", seen.micros.len(), seen.failed);
        #[expect(clippy::cast_precision_loss, reason = "requests of one run fit 52 bits")]
        lost.push(seen.failed as f64);
        server.stop()?;
    }
    own(report, "node exchanged 10 times", ("lost", "requests"), &lost, Some(Bar::AtMost(0.0)));
    Ok(())
}

/// Which configuration counts: number n sends to the service that answers n modulo 2.
#[derive(Default)]
struct Swaps {
    port: u16,
    begun: AtomicU64,
    done: AtomicU64,
    ended: AtomicBool,
}

impl Swaps {
    /// Waits until the node has configuration `number`.
    fn wait(&self, number: u64) -> Result<()> {
        let (end, mut http) =
            (Instant::now() + Duration::from_secs(CHANGE_SECONDS_MAX), Http::open(self.port)?);
        while http.ask("GET", "/", "")?.body != (number % 2).to_string().as_bytes() {
            if Instant::now() > end {
                bail!("configuration {number} did not count within {CHANGE_SECONDS_MAX} s");
            }
            std::thread::sleep(LOOK);
        }
        self.done.store(number, Ordering::SeqCst);
        Ok(())
    }

    /// Requests, those that were dropped or wrong, and why the first of them was.
    fn ask(&self) -> (u64, u64, Option<String>) {
        let (mut asked, mut bad, mut why, mut connection) = (0, 0, None, None);
        while !self.ended.load(Ordering::SeqCst) {
            asked += 1;
            if let Err(error) = self.one(&mut connection) {
                bad += 1;
                connection = None;
                why.get_or_insert(format!("{error:#}"));
            }
        }
        (asked, bad, why)
    }

    fn one(&self, connection: &mut Option<Http>) -> Result<()> {
        let http = match connection {
            Some(http) => http,
            None => connection.insert(Http::open(self.port)?),
        };
        let done = self.done.load(Ordering::SeqCst);
        let answer = http.ask("GET", "/", "")?;
        let begun = self.begun.load(Ordering::SeqCst);
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        let number: u64 = std::str::from_utf8(&answer.body)?.parse().context("not a service's answer")?;
        // While a swap is under way either may answer.
        let fits = number < 2 && (begun != done || number == done % 2);
        ensure!(fits, "service {number} answered under configuration {done}");
        Ok(())
    }
}

/// A configuration that sends to one of the two, with a route or two that others have not.
fn config(ports: &[u16; 2], number: u64) -> String {
    let to = number % 2;
    format!(
        "[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
         [[proxy.service]]\nname = \"s0\"\nendpoints = [\"127.0.0.1:{}\"]\n\
         [[proxy.service]]\nname = \"s1\"\nendpoints = [\"127.0.0.1:{}\"]\n\
         [[proxy.route]]\nservice = \"s{to}\"\n[[proxy.route]]\nservice = \"s0\"\npath = \"/only/{number}\"\n",
        ports[0], ports[1]
    )
}

/// Asks a port for Consul's clients to do something.
pub fn put(port: u16, target: &str, body: &str) -> Result<()> {
    let answer = once(port, "PUT", target, body)?;
    ensure!(answer.status == 200, "{target}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

fn wait_for(port: u16, status: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(CHANGE_SECONDS_MAX);
    loop {
        let answer = once(port, "GET", "/", "")?;
        if answer.status == status {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("port {port} answers {}, and not {status}", answer.status);
        }
        std::thread::sleep(LOOK);
    }
}
