//! Clients of the proxy that are connected and ask nothing: their memory, and what they cost those who ask.

use super::super::report::{Bar, Pair, Report};
use super::super::{Setting, process, proxy};
use super::http::Http;
use super::{node, own, port};
use anyhow::{Context, Result, ensure};

const IDLE: usize = 10_000;

/// Memory of an idle connection that was used once, and CPU of a request on 64 others with and without them.
pub fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    proxy::ensure_programs(&[("nginx", "nginx-light"), ("wrk", "wrk")])?;
    let (mut memory, mut cpu) = (Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        let dir = setting.scratch()?;
        let endpoint = proxy::lone_nginx(dir.path(), "endpoint", "here")?;
        let config = format!(
            "[proxy]\nclients_max = 20000\nidle_ms = 3600000\n[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
             [[proxy.service]]\nname = \"one\"\nendpoints = [\"127.0.0.1:{}\"]\n[[proxy.route]]\nservice = \"one\"\n",
            endpoint.port()
        );
        let server = node(setting, dir.path(), &config)?;
        let ours = port(&server, 8080);
        ensure!(Http::open(ours)?.ask("GET", "/", "")?.status == 200, "a client is refused");
        // Before the load: what that leaves free would be taken by the idle ones, and not be counted.
        let before = process::anonymous(server.pid())?;
        let alone = proxy::cpu_by_wrk(server.pid(), ours, setting.quick)?;
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..if setting.quick { IDLE / 10 } else { IDLE } {
            let mut http = Http::open(ours)?;
            ensure!(http.ask("GET", "/", "")?.status == 200, "a client is refused");
            idle.push(http);
        }
        let after = process::anonymous(server.pid())?;
        let beside = proxy::cpu_by_wrk(server.pid(), ours, setting.quick)?;
        for (number, http) in idle.iter_mut().enumerate().step_by(100) {
            ensure!(http.ask("GET", "/", "")?.status == 200, "idle client {number} was forgotten");
        }
        #[expect(clippy::cast_precision_loss, reason = "memory fits 52 bits")]
        let bytes = after.checked_sub(before).context("the node has less memory than before")? as f64
            / idle.len() as f64;
        eprintln!(
            "round {round} idle: {bytes:.0} bytes a connection; {alone:.2} µs/request without and {beside:.2} with {}",
            idle.len()
        );
        memory.push(bytes);
        cpu.push(Pair { us: beside, peer: Some(alone) });
        server.stop()?;
    }
    own(report, "10,000 idle clients", ("memory of each", "bytes"), &memory, Some(Bar::AtMost(2048.0)));
    report.row("64 clients beside them", ("CPU/without them", "µs"), cpu, Some(Bar::RatioAtMost(1.05)));
    Ok(())
}
