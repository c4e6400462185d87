//! Clusters of three on this machine, on free ports: of nodes, or of etcd.

use crate::server::{Server, free_offset};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take until every partition has its copies.
const READY_SECONDS_MAX: u64 = 60;

/// Three servers that are one. Dropped, they are killed.
pub struct Trio {
    servers: Vec<Member>,
    /// Where clients reach them.
    pub addresses: Vec<String>,
}

/// One of them.
enum Member {
    Node(Server),
    Etcd(Etcd),
}

struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself, and then its clients have said so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Trio {
    /// Three nodes whose data is in `dir`, with these lines in each one's configuration.
    pub fn node(binary: &Path, dir: &Path, config: &str) -> Result<Trio> {
        let mut trio = Trio { servers: Vec::new(), addresses: Vec::new() };
        let mut first = None;
        for number in 0..3 {
            let home = dir.join(number.to_string());
            std::fs::create_dir_all(&home)?;
            let offset = free_offset()?;
            let words = match first {
                None => vec!["--cluster".to_owned()],
                Some(first) => {
                    vec!["--join".to_owned(), cluster(binary, first, &["token"])?.trim().to_owned()]
                }
            };
            let mut server = Server::spawn_member(binary, &home, offset, &words, config)?;
            server.wait_ready()?;
            first = first.or(Some(offset));
            trio.addresses.push(format!("127.0.0.1:{}", server.port));
            trio.servers.push(Member::Node(server));
        }
        let first = first.context("there are three")?;
        let end = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        loop {
            let status = cluster(binary, first, &["status", "--json"]).unwrap_or_default();
            if serde_json::from_str(&status).is_ok_and(|status| is_whole(&status)) {
                return Ok(trio);
            }
            if Instant::now() > end {
                bail!("the cluster did not have all copies within {READY_SECONDS_MAX} s; it told {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Three etcd servers whose data is in `dir`.
    pub fn etcd(dir: &Path) -> Result<Trio> {
        let mut trio = Trio { servers: Vec::new(), addresses: Vec::new() };
        let ports = free_ports(6)?;
        let url = |at: usize| format!("http://127.0.0.1:{}", ports[at]);
        let all: Vec<String> = (0..3).map(|at| format!("n{at}={}", url(at + 3))).collect();
        for at in 0..3 {
            let log = File::create(dir.join(format!("n{at}.log")))?;
            let mut etcd = Command::new("etcd");
            etcd.args(["--name", &format!("n{at}"), "--initial-cluster-state", "new"]);
            etcd.arg("--data-dir").arg(dir.join(format!("n{at}")));
            etcd.args(["--listen-client-urls", &url(at), "--advertise-client-urls", &url(at)]);
            etcd.args(["--listen-peer-urls", &url(at + 3), "--initial-advertise-peer-urls", &url(at + 3)]);
            etcd.args(["--initial-cluster", &all.join(","), "--logger", "zap", "--log-level", "error"]);
            etcd.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            trio.servers.push(Member::Etcd(Etcd(etcd.spawn().context("etcd did not start")?)));
            trio.addresses.push(url(at)["http://".len()..].to_owned());
        }
        let end = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        for address in &trio.addresses {
            while !is_healthy(address) {
                if Instant::now() > end {
                    bail!("etcd at {address} was not healthy within {READY_SECONDS_MAX} s");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(trio)
    }

    /// Their process ids.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.servers.iter().map(|member| match member {
            Member::Node(server) => server.pid(),
            Member::Etcd(etcd) => etcd.0.id(),
        })
    }

    /// Asks nodes to end, one after the other, and expects exit code 0 of each. etcd is killed.
    pub fn stop(self) -> Result<()> {
        for member in self.servers {
            if let Member::Node(server) = member {
                server.stop()?;
            }
        }
        Ok(())
    }
}

/// What a verb of `archipel cluster` prints.
fn cluster(binary: &Path, offset: u16, words: &[&str]) -> Result<String> {
    let output = Command::new(binary)
        .arg("cluster")
        .args(words)
        .args(["--port-offset", &offset.to_string()])
        .stdin(Stdio::null())
        .output()
        .with_context(|| binary.display().to_string())?;
    if output.status.code() == Some(2) || output.stdout.is_empty() {
        bail!("archipel cluster {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether all three answer, each partition is led, and nothing is to be moved any more.
fn is_whole(status: &Value) -> bool {
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let (members, keyspaces) = (list("members"), list("keyspaces"));
    let sum = |name: &str| keyspaces.iter().filter_map(|one| one[name].as_u64()).sum::<u64>();
    let copies = members.iter().all(|one| one["copies"].as_u64() == Some(sum("partitions")));
    members.len() == 3
        && members.iter().all(|one| one["health"] == "alive" && one["standing"] == "active")
        && copies
        && sum("led") == sum("partitions")
        && list("moves").is_empty()
}

fn is_healthy(address: &str) -> bool {
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let ask = || -> Result<bool> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect((host, port.parse::<u16>()?))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /health HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.contains("\"health\":\"true\""))
    };
    ask().unwrap_or(false)
}

/// Ports that nobody has now.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let sockets: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    Ok(sockets
        .iter()
        .map(TcpListener::local_addr)
        .collect::<std::io::Result<Vec<_>>>()?
        .iter()
        .map(|at| at.port())
        .collect())
}
