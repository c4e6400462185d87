//! The proxy beside Debian's HAProxy and nginx: bar 1 of the mesh.
//!
//! All three stand in front of the same nginx, which answers from memory, and each has a core of its own in its turn; the
//! load and the upstream share the other. The CPU time is that of the proxy's process while the load runs. The node's has
//! its timeouts, retries, balancing, breaker, outlier ejection, rate limit, traces and metrics on.

use super::process;
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting};
use crate::packages::ensure;
use crate::server::signal;
use anyhow::{Context, Result, bail};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds of load.
const SECONDS: u32 = 6;
/// How long a server may take to listen.
const START_SECONDS_MAX: u64 = 30;
/// How long it may take to stop.
const STOP_SECONDS_MAX: u64 = 5;
/// The core of the proxy under test; the load and the upstream have the other.
const PROXY_CORE: &str = "1";
const OTHER_CORE: &str = "0";
/// What is not measured by core.
const BOTH_CORES: &str = "0,1";

struct Work {
    name: &'static str,
    spoken: Spoken,
    connections: u32,
    path: &'static str,
    /// Our CPU for a request beside HAProxy's and nginx's, at most.
    cpu: (f64, Option<f64>),
}

/// What the load speaks with the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    /// HTTP/1.1, by wrk.
    Plain,
    /// The same in TLS, on kept connections.
    Tls,
    /// HTTP/2 from the first byte, 10 streams on each connection, by h2load.
    Http2,
}

/// Where a server is for each way to speak to it.
#[derive(Clone, Copy, Debug)]
struct Ports {
    plain: u16,
    tls: u16,
    http2: u16,
}

impl Ports {
    fn free() -> Result<Ports> {
        Ok(Ports { plain: free_port()?, tls: free_port()?, http2: free_port()? })
    }
}

#[rustfmt::skip] // columns
const WORKS: &[Work] = &[
    Work { name: "64 connections",  spoken: Spoken::Plain, connections: 64,  path: "/",     cpu: (0.95, Some(1.0)) },
    Work { name: "256 connections", spoken: Spoken::Plain, connections: 256, path: "/",     cpu: (0.95, Some(1.0)) },
    Work { name: "64 KiB bodies",   spoken: Spoken::Plain, connections: 64,  path: "/64k",  cpu: (1.0,  Some(1.0)) },
    Work { name: "TLS",             spoken: Spoken::Tls,   connections: 64,  path: "/",     cpu: (1.05, None) },
    Work { name: "TLS 64 KiB",      spoken: Spoken::Tls,   connections: 64,  path: "/64k",  cpu: (1.05, None) },
    Work { name: "HTTP/2",          spoken: Spoken::Http2, connections: 16,  path: "/",     cpu: (1.5,  None) },
];

/// What one run gave.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rate: f64,
    /// h2load does not say it.
    p99_ms: Option<f64>,
    cpu_micros: f64,
}

/// A server that is killed when it is dropped.
pub struct Running {
    child: Child,
    ports: Ports,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked to, a master ends its workers too, which would outlive it otherwise.
        let end = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        let mut waits = signal(self.child.id(), "TERM").is_ok();
        while waits && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
            waits = Instant::now() < end;
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Where it is asked over HTTP/1.1.
    pub const fn port(&self) -> u16 {
        self.ports.plain
    }

    fn start(core: &str, words: &[&str], dir: &Path, name: &str, ports: Ports) -> Result<Running> {
        let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
        let mut command = Command::new("taskset");
        command.args(["-c", core]).args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| name.to_owned())?;
        let (running, port) = (Running { child, ports }, ports.plain);
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

/// Programs and the packages that bring them.
pub fn ensure_programs(programs: &[(&str, &str)]) -> Result<()> {
    for (program, package) in programs {
        if let Err(error) = ensure(program, package) {
            bail!(NotJudged(format!("there is no {program}: {error:#}")));
        }
    }
    Ok(())
}

/// Measures all three in every round.
pub fn run(setting: &Setting) -> Result<Report> {
    ensure_programs(&[
        ("nginx", "nginx-light"),
        ("haproxy", "haproxy"),
        ("wrk", "wrk"),
        ("h2load", "nghttp2-client"),
        ("openssl", "openssl"),
        ("taskset", "util-linux"),
    ])?;
    if std::thread::available_parallelism()?.get() < 2 {
        bail!(NotJudged("the proxy needs a core of its own, and there is one in all".into()));
    }
    let dir = setting.scratch()?;
    certificate(dir.path())?;
    let upstream = upstream(dir.path())?;
    let port = upstream.ports.plain;
    let servers = [haproxy(dir.path(), port)?, nginx(dir.path(), port)?, node(setting, dir.path(), port)?];
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
                    work.name,
                    one.rate,
                    one.p99_ms.unwrap_or(f64::NAN),
                    one.cpu_micros
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
        report.row(work.name, ("CPU/nginx", "µs"), beside(1, cpu), nginx.map(Bar::RatioAtMost));
        if found.iter().flatten().all(|one| one.p99_ms.is_some()) {
            let p99 = |one: &Figures| one.p99_ms.unwrap_or_default();
            report.row(work.name, ("p99/HAProxy", "ms"), beside(0, p99), Some(Bar::RatioAtMost(1.0)));
        }
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

/// A certificate and its key, apart and in one file.
fn certificate(dir: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .stdin(Stdio::null())
        .output()
        .context("openssl")?;
    if !made.status.success() {
        bail!("openssl made no certificate:\n{}", String::from_utf8_lossy(&made.stderr));
    }
    let both = [std::fs::read(dir.join("cert.pem"))?, std::fs::read(dir.join("key.pem"))?].concat();
    Ok(std::fs::write(dir.join("both.pem"), both)?)
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

fn start_nginx(core: &str, dir: &Path, name: &str, ports: Ports, http: &str) -> Result<Running> {
    let path = dir.join(format!("{name}.conf"));
    std::fs::write(&path, nginx_config(dir, name, http))?;
    let path = path.display().to_string();
    // Beside the service that the package may run.
    Running::start(core, &["nginx", "-p", &dir.display().to_string(), "-c", &path], dir, name, ports)
}

/// An nginx of one process, which answers with `body` from memory.
pub fn lone_nginx(dir: &Path, name: &str, body: &str) -> Result<Running> {
    let ports = Ports::free()?;
    let http = format!(
        "server {{ listen 127.0.0.1:{} backlog=4096; location / {{ return 200 \"{body}\"; }} }}",
        ports.plain
    );
    let path = dir.join(format!("{name}.conf"));
    std::fs::write(&path, format!("master_process off; {}", nginx_config(dir, name, &http)))?;
    let words = ["nginx", "-p", &dir.display().to_string(), "-c", &path.display().to_string()];
    Running::start(BOTH_CORES, &words, dir, name, ports)
}

/// A HAProxy that sends to whichever of `endpoints` has the fewest requests under way.
pub fn leastconn(dir: &Path, endpoints: &[u16]) -> Result<Running> {
    let ports = Ports::free()?;
    let servers: String = endpoints
        .iter()
        .map(|port| format!("  server s{port} 127.0.0.1:{port} pool-max-conn 512\n"))
        .collect();
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8192\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 5s\n  retries 3\n  \
         option redispatch\n  http-reuse always\n\
         frontend web\n  bind 127.0.0.1:{} backlog 4096\n  default_backend all\n\
         backend all\n  balance leastconn\n{servers}",
        ports.plain
    );
    let path = dir.join("leastconn.cfg");
    std::fs::write(&path, text)?;
    let words = ["haproxy", "-db", "-f", &path.display().to_string()];
    Running::start(BOTH_CORES, &words, dir, "leastconn", ports)
}

/// CPU of process `pid` for a request of 64 clients at `port`, in microseconds.
pub fn cpu_by_wrk(pid: u32, port: u16, quick: bool) -> Result<f64> {
    let url = format!("http://127.0.0.1:{port}/");
    let load = |seconds: u32| -> Result<String> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--latency", "-t1", "-c64", &format!("-d{seconds}s"), &url]).stdin(Stdio::null());
        let text = String::from_utf8(wrk.output().context("wrk")?.stdout)?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("the load saw failures:\n{text}");
        }
        Ok(text)
    };
    load(1)?;
    let before = process::cpu_micros(pid)?;
    let text = load(if quick { 1 } else { SECONDS })?;
    let spent = process::cpu_micros(pid)? - before;
    Ok(figures(&text, spent).with_context(|| format!("wrk printed\n{text}"))?.cpu_micros)
}

fn upstream(dir: &Path) -> Result<Running> {
    let ports = Ports::free()?;
    let port = ports.plain;
    let files = dir.join("files");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("64k"), "a".repeat(64 * 1024))?;
    let http = format!(
        "sendfile on; tcp_nopush on; open_file_cache max=10;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location = / {{ return 200 \"hello, world\"; }}\n\
         location = /64k {{ root {}; }} }}",
        files.display()
    );
    start_nginx(OTHER_CORE, dir, "upstream", ports, &http)
}

fn nginx(dir: &Path, upstream: u16) -> Result<Running> {
    let ports = Ports::free()?;
    let (port, here) = (ports.plain, dir.display());
    let http = format!(
        "ssl_certificate {here}/cert.pem; ssl_certificate_key {here}/key.pem;\n\
         upstream one {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{} ssl; listen 127.0.0.1:{} http2;\n\
         location / {{ proxy_pass http://one; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_connect_timeout 1s; proxy_read_timeout 5s; }} }}",
        ports.tls, ports.http2
    );
    start_nginx(PROXY_CORE, dir, "nginx", ports, &http)
}

fn haproxy(dir: &Path, upstream: u16) -> Result<Running> {
    let ports = Ports::free()?;
    let (port, here) = (ports.plain, dir.display());
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8192\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 5s\n  timeout http-request 10s\n  \
         retries 3\n  option redispatch\n  option forwardfor\n  http-reuse always\n\
         frontend web\n  bind 127.0.0.1:{port} backlog 4096\n  \
         bind 127.0.0.1:{} ssl crt {here}/both.pem\n  bind 127.0.0.1:{} proto h2\n  default_backend one\n\
         backend one\n  balance leastconn\n  server a 127.0.0.1:{upstream} pool-max-conn 512\n",
        ports.tls, ports.http2
    );
    let path = dir.join("haproxy.cfg");
    std::fs::write(&path, text)?;
    Running::start(PROXY_CORE, &["haproxy", "-db", "-f", &path.display().to_string()], dir, "haproxy", ports)
}

fn node(setting: &Setting, dir: &Path, upstream: u16) -> Result<Running> {
    let mut ports = Ports::free()?;
    ports.http2 = ports.plain;
    let (port, here) = (ports.plain, dir.display());
    let text = format!(
        "[redis]\nport = 0\n[admin]\nport = 0\n\
         [[proxy.listener]]\nname = \"web\"\nport = {port}\n\
         [[proxy.listener]]\nname = \"tls\"\nport = {}\ntls = true\n\
         [[proxy.certificate]]\ncert = \"{here}/cert.pem\"\nkey = \"{here}/key.pem\"\n\
         [[proxy.service]]\nname = \"one\"\nendpoints = [\"127.0.0.1:{upstream}\"]\nkeep_max = 512\n\
         [[proxy.route]]\nservice = \"one\"\nrate = 1000000\nrate_burst = 1000000\nrate_key = \"client\"\n",
        ports.tls
    );
    let path = dir.join("archipel.toml");
    std::fs::write(&path, text)?;
    let (binary, data) = (setting.binary.display().to_string(), dir.join("data").display().to_string());
    let words = [&binary, "--data-dir", &data, "--config", &path.display().to_string()];
    Running::start(PROXY_CORE, &words, dir, "archipel", ports)
}

fn measure(work: &Work, server: &Running, quick: bool) -> Result<Figures> {
    load(work, server, 1)?;
    let cpu = || cpu_of_all(server.child.id());
    let before = cpu()?;
    let text = load(work, server, if quick { 1 } else { SECONDS })?;
    let spent = cpu()? - before;
    let read = if work.spoken == Spoken::Http2 { streams(&text, spent) } else { figures(&text, spent) };
    read.with_context(|| format!("the load printed\n{text}"))
}

/// What the load prints.
fn load(work: &Work, server: &Running, seconds: u32) -> Result<String> {
    let (scheme, port) = match work.spoken {
        Spoken::Plain => ("http", server.ports.plain),
        Spoken::Tls => ("https", server.ports.tls),
        Spoken::Http2 => ("http", server.ports.http2),
    };
    let url = format!("{scheme}://127.0.0.1:{port}{}", work.path);
    let connections = format!("-c{}", work.connections);
    let mut command = Command::new("taskset");
    command.args(["-c", OTHER_CORE]);
    match work.spoken {
        Spoken::Plain | Spoken::Tls => {
            command.args(["wrk", "--latency", "-t1", &connections, &format!("-d{seconds}s"), &url]);
            // A certificate is asked for by a name.
            command.args(["-H", "Host: localhost"]);
        }
        Spoken::Http2 => {
            command.args(["h2load", "-t1", "-m10", &connections, "-D", &seconds.to_string(), &url]);
        }
    }
    let output = command.stdin(Stdio::null()).output().context("the load")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lost = text.contains("Non-2xx") || text.contains("Socket errors");
    let refused = work.spoken == Spoken::Http2 && !text.contains(" 0 failed, 0 errored, 0 timeout");
    if !output.status.success() || lost || refused {
        bail!("the load saw failures or did not run:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
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
        p99_ms: Some(millis(of("99%")?.trim())?),
        cpu_micros,
    })
}

/// The same out of h2load's words.
fn streams(text: &str, cpu: u64) -> Option<Figures> {
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("finished in "))?;
    let rate = rate.split(", ").find_map(|word| word.strip_suffix(" req/s"))?.parse().ok()?;
    let done = text.lines().find_map(|line| line.trim().strip_prefix("requests: "))?;
    let done: f64 = done.split(", ").find_map(|word| word.strip_suffix(" succeeded"))?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run fit 52 bits")]
    let cpu_micros = cpu as f64 / done;
    Some(Figures { rate, p99_ms: None, cpu_micros })
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
        assert_eq!((found.rate, found.p99_ms, found.cpu_micros), (199.5, Some(0.9), 20.0));
        assert_eq!(millis("1.5s"), Some(1500.0));
        assert!(figures("wrk: no", 1).is_none());
        let text = "finished in 6.01s, 99.50 req/s, 1.20MB/s\nrequests: 610 total, 610 started, 600 done, 600 succeeded, \
                    0 failed, 0 errored, 0 timeout\n";
        let found = streams(text, 6000).unwrap();
        assert_eq!((found.rate, found.p99_ms, found.cpu_micros), (99.5, None, 10.0));
    }
}
