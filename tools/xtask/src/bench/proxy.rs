//! The proxy beside Debian's HAProxy and nginx: bar 1 of the mesh.
//!
//! All three stand in front of the same nginx, which answers from memory, and each has a core of its own in its turn; the
//! load and the upstream share the other. The CPU time is that of the proxy's process while the load runs. The node's has
//! its timeouts, retries, balancing, breaker, outlier ejection, rate limit, traces and metrics on.

use super::process;
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting};
use crate::packages::ensure;
use anyhow::{Context, Result, bail};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds of load.
const SECONDS: u32 = 6;
/// How long a server may take to listen.
const START_SECONDS_MAX: u64 = 30;
/// The core of the proxy under test; the load and the upstream have the other.
const PROXY_CORE: &str = "1";
const OTHER_CORE: &str = "0";

struct Work {
    name: &'static str,
    connections: u32,
    path: &'static str,
    /// Our CPU for a request beside HAProxy's and nginx's.
    cpu: (f64, f64),
}

#[rustfmt::skip] // columns
const WORKS: &[Work] = &[
    Work { name: "64 connections",  connections: 64,  path: "/",     cpu: (0.95, 1.0) },
    Work { name: "256 connections", connections: 256, path: "/",     cpu: (0.95, 1.0) },
    Work { name: "64 KiB bodies",   connections: 64,  path: "/64k",  cpu: (1.0, 1.0) },
];

/// What one run gave.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rate: f64,
    p99_ms: f64,
    cpu_micros: f64,
}

/// A server that is killed when it is dropped.
struct Running {
    child: Child,
    port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(core: &str, words: &[&str], dir: &Path, name: &str, port: u16) -> Result<Running> {
        let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
        let mut command = Command::new("taskset");
        command.args(["-c", core]).args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| name.to_owned())?;
        let running = Running { child, port };
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                let text = std::fs::read_to_string(dir.join(format!("{name}.log")))?;
                bail!("{name} does not listen on port {port}; it printed:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }
}

/// Measures all three in every round.
pub fn run(setting: &Setting) -> Result<Report> {
    for (program, package) in
        [("nginx", "nginx-light"), ("haproxy", "haproxy"), ("wrk", "wrk"), ("taskset", "util-linux")]
    {
        if let Err(error) = ensure(program, package) {
            bail!(NotJudged(format!("there is no {program}: {error:#}")));
        }
    }
    if std::thread::available_parallelism()?.get() < 2 {
        bail!(NotJudged("the proxy needs a core of its own, and there is one in all".into()));
    }
    let dir = setting.scratch()?;
    let upstream = upstream(dir.path())?;
    let servers = [
        haproxy(dir.path(), upstream.port)?,
        nginx(dir.path(), upstream.port)?,
        node(setting, dir.path(), upstream.port)?,
    ];
    let mut report = Report::new("proxy", setting.rounds);
    let mut found: Vec<Vec<[Figures; 3]>> = WORKS.iter().map(|_| Vec::new()).collect();
    let chosen = |work: &Work| setting.work.as_ref().is_none_or(|text| work.name.contains(text));
    for round in 1..=setting.rounds {
        for (work, found) in WORKS.iter().zip(&mut found).filter(|(work, _)| chosen(work)) {
            let mut figures = Vec::new();
            for (name, server) in ["haproxy", "nginx", "archipel"].into_iter().zip(&servers) {
                let one = measure(work, server, setting.quick).with_context(|| name.to_owned())?;
                eprintln!(
                    "round {round} {:<16} {name:<9} {:>7.0}/s p99 {:>7.2} ms {:>6.2} µs/request",
                    work.name, one.rate, one.p99_ms, one.cpu_micros
                );
                figures.push(one);
            }
            found.push([figures[0], figures[1], figures[2]]);
        }
    }
    for (work, found) in WORKS.iter().zip(&found).filter(|(_, found)| !found.is_empty()) {
        let beside = |peer: usize, figure: fn(&Figures) -> f64| -> Vec<Pair> {
            found.iter().map(|all| Pair { us: figure(&all[2]), peer: Some(figure(&all[peer])) }).collect()
        };
        let (haproxy, nginx) = work.cpu;
        let cpu = |one: &Figures| one.cpu_micros;
        report.row(work.name, ("CPU/HAProxy", "µs"), beside(0, cpu), Some(Bar::RatioAtMost(haproxy)));
        report.row(work.name, ("CPU/nginx", "µs"), beside(1, cpu), Some(Bar::RatioAtMost(nginx)));
        report.row(
            work.name,
            ("p99/HAProxy", "ms"),
            beside(0, |one| one.p99_ms),
            Some(Bar::RatioAtMost(1.0)),
        );
        report.row(work.name, ("speed/HAProxy", "/s"), beside(0, |one| one.rate), None);
        report.row(work.name, ("speed/nginx", "/s"), beside(1, |one| one.rate), None);
    }
    if report.rows.is_empty() {
        bail!(NotJudged("no work has such a name; see the names in the report without --work".into()));
    }
    Ok(report)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// What each nginx has in common.
fn nginx_config(dir: &Path, name: &str, http: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.err;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}/{name}-b;\n\
         proxy_temp_path {dir}/{name}-p; fastcgi_temp_path {dir}/{name}-f; uwsgi_temp_path {dir}/{name}-u;\n\
         scgi_temp_path {dir}/{name}-s;\n{http}\n}}\n"
    )
}

fn start_nginx(core: &str, dir: &Path, name: &str, port: u16, http: &str) -> Result<Running> {
    let path = dir.join(format!("{name}.conf"));
    std::fs::write(&path, nginx_config(dir, name, http))?;
    let path = path.display().to_string();
    // Beside the service that the package may run.
    Running::start(core, &["nginx", "-p", &dir.display().to_string(), "-c", &path], dir, name, port)
}

fn upstream(dir: &Path) -> Result<Running> {
    let port = free_port()?;
    let files = dir.join("files");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("64k"), "a".repeat(64 * 1024))?;
    let http = format!(
        "sendfile on; tcp_nopush on; open_file_cache max=10;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location = / {{ return 200 \"hello, world\"; }}\n\
         location = /64k {{ root {}; }} }}",
        files.display()
    );
    start_nginx(OTHER_CORE, dir, "upstream", port, &http)
}

fn nginx(dir: &Path, upstream: u16) -> Result<Running> {
    let port = free_port()?;
    let http = format!(
        "upstream one {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://one; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_connect_timeout 1s; proxy_read_timeout 5s; }} }}"
    );
    start_nginx(PROXY_CORE, dir, "nginx", port, &http)
}

fn haproxy(dir: &Path, upstream: u16) -> Result<Running> {
    let port = free_port()?;
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8192\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 5s\n  timeout http-request 10s\n  \
         retries 3\n  option redispatch\n  option forwardfor\n  http-reuse always\n\
         frontend web\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend one\n\
         backend one\n  balance leastconn\n  server a 127.0.0.1:{upstream} pool-max-conn 512\n"
    );
    let path = dir.join("haproxy.cfg");
    std::fs::write(&path, text)?;
    Running::start(PROXY_CORE, &["haproxy", "-db", "-f", &path.display().to_string()], dir, "haproxy", port)
}

fn node(setting: &Setting, dir: &Path, upstream: u16) -> Result<Running> {
    let port = free_port()?;
    let text = format!(
        "[redis]\nport = 0\n[admin]\nport = 0\n\
         [[proxy.listener]]\nname = \"web\"\nport = {port}\n\
         [[proxy.service]]\nname = \"one\"\nendpoints = [\"127.0.0.1:{upstream}\"]\nkeep_max = 512\n\
         [[proxy.route]]\nservice = \"one\"\nrate = 1000000\nrate_burst = 1000000\nrate_key = \"client\"\n"
    );
    let path = dir.join("archipel.toml");
    std::fs::write(&path, text)?;
    let (binary, data) = (setting.binary.display().to_string(), dir.join("data").display().to_string());
    let words = [&binary, "--data-dir", &data, "--config", &path.display().to_string()];
    Running::start(PROXY_CORE, &words, dir, "archipel", port)
}

fn measure(work: &Work, server: &Running, quick: bool) -> Result<Figures> {
    let url = format!("http://127.0.0.1:{}{}", server.port, work.path);
    let load = |seconds: u32| -> Result<String> {
        let output = Command::new("taskset")
            .args(["-c", OTHER_CORE, "wrk", "--latency", "-t1", &format!("-c{}", work.connections)])
            .args([&format!("-d{seconds}s"), &url])
            .stdin(Stdio::null())
            .output()
            .context("wrk")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("wrk saw failures or did not run:\n{text}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    };
    load(1)?;
    let cpu = || cpu_of_all(server.child.id());
    let before = cpu()?;
    let text = load(if quick { 1 } else { SECONDS })?;
    let spent = cpu()? - before;
    figures(&text, spent).with_context(|| format!("wrk printed\n{text}"))
}

/// Of a process and its children: nginx works in one.
fn cpu_of_all(pid: u32) -> Result<u64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    std::iter::once(pid).chain(children).map(process::cpu_micros).sum()
}

fn figures(text: &str, cpu: u64) -> Option<Figures> {
    let of = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let requests: f64 =
        text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run fit 52 bits")]
    let cpu_micros = cpu as f64 / requests;
    Some(Figures {
        rate: of("Requests/sec:")?.trim().parse().ok()?,
        p99_ms: millis(of("99%")?.trim())?,
        cpu_micros,
    })
}

/// `1.50ms`, `900.00us` or `1.20s` in milliseconds.
fn millis(text: &str) -> Option<f64> {
    let units = [("ms", 1.0), ("us", 0.001), ("s", 1000.0)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "  Latency Distribution\n     50%    1.00ms\n     99%  900.00us\n  200 requests in 1.00s, 1MB read\n\
                    Requests/sec:    199.50\nTransfer/sec:  1MB\n";
        let found = figures(text, 4000).unwrap();
        assert_eq!((found.rate, found.p99_ms, found.cpu_micros), (199.5, 0.9, 20.0));
        assert_eq!(millis("1.5s"), Some(1500.0));
        assert!(figures("wrk: no", 1).is_none());
    }
}
