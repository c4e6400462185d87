//! Clusters of three on this machine, on free ports: of nodes, or of etcd.

use crate::server::{Server, free_offset};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
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
    Node(Node),
    Etcd(Etcd),
}

/// A node that may be ended, and started again on its data.
struct Node {
    /// None while it is ended.
    server: Option<Server>,
    binary: PathBuf,
    home: PathBuf,
    offset: u16,
    config: String,
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
        for number in 0..3 {
            let home = dir.join(number.to_string());
            std::fs::create_dir_all(&home)?;
            let offset = free_offset()?;
            let words = match trio.servers.is_empty() {
                true => vec!["--cluster".to_owned()],
                false => vec!["--join".to_owned(), trio.node_at(0)?.tell(&["token"])?.trim().to_owned()],
            };
            let mut server = Server::spawn_member(binary, &home, offset, &words, config)?;
            server.wait_ready()?;
            trio.addresses.push(format!("127.0.0.1:{}", server.port));
            let (binary, config) = (binary.to_owned(), config.to_owned());
            trio.servers.push(Member::Node(Node { server: Some(server), binary, home, offset, config }));
        }
        trio.wait_whole(0)?;
        Ok(trio)
    }

    /// Waits until every node lives, every partition has all copies and a leader, and nothing moves, as node `at` sees it.
    pub fn wait_whole(&self, at: usize) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        loop {
            let status = self.node_at(at)?.tell(&["status", "--json"]).unwrap_or_default();
            if serde_json::from_str(&status).is_ok_and(|status| is_whole(&status)) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the cluster did not have all copies within {READY_SECONDS_MAX} s; it told {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many partitions of a keyspace each node leads, as node `at` sees it.
    pub fn leads(&self, at: usize, keyspace: u64) -> Result<[u64; 3]> {
        let status: Value = serde_json::from_str(&self.node_at(at)?.tell(&["status", "--json"])?)?;
        let ports = (0..3).map(|at| Ok(7401 + self.node_at(at)?.offset)).collect::<Result<Vec<u16>>>()?;
        leads(&status, keyspace, &ports)
    }

    /// The port of node `at` for Redis clients.
    pub fn port(&self, at: usize) -> Result<u16> {
        Ok(6379 + self.node_at(at)?.offset)
    }

    /// The port of node `at` for metrics.
    pub fn admin(&self, at: usize) -> Result<u16> {
        Ok(7400 + self.node_at(at)?.offset)
    }

    /// Ends node `at` without warning.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.node_mut(at)?.server.take().context("it is ended already")?.kill()
    }

    /// Asks node `at` to end, and expects exit code 0.
    pub fn stop_one(&mut self, at: usize) -> Result<()> {
        self.node_mut(at)?.server.take().context("it is ended already")?.stop()
    }

    /// Starts node `at` on its data again, and waits until it serves.
    pub fn start(&mut self, at: usize) -> Result<()> {
        let node = self.node_mut(at)?;
        let mut server = Server::spawn_member(&node.binary, &node.home, node.offset, &[], &node.config)?;
        server.wait_ready()?;
        node.server = Some(server);
        Ok(())
    }

    fn node_at(&self, at: usize) -> Result<&Node> {
        match self.servers.get(at) {
            Some(Member::Node(node)) => Ok(node),
            Some(Member::Etcd(_)) | None => bail!("number {at} is no node"),
        }
    }

    fn node_mut(&mut self, at: usize) -> Result<&mut Node> {
        match self.servers.get_mut(at) {
            Some(Member::Node(node)) => Ok(node),
            Some(Member::Etcd(_)) | None => bail!("number {at} is no node"),
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

    /// The process ids of those that run, in order.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.servers.iter().filter_map(|member| match member {
            Member::Node(node) => node.server.as_ref().map(Server::pid),
            Member::Etcd(etcd) => Some(etcd.0.id()),
        })
    }

    /// Asks nodes to end, one after the other, and expects exit code 0 of each. etcd is killed.
    pub fn stop(self) -> Result<()> {
        for member in self.servers {
            if let Member::Node(Node { server: Some(server), .. }) = member {
                server.stop()?;
            }
        }
        Ok(())
    }
}

impl Node {
    /// What a verb of `archipel cluster` prints.
    fn tell(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .arg("cluster")
            .args(words)
            .args(["--port-offset", &self.offset.to_string()])
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.binary.display().to_string())?;
        if output.status.code() == Some(2) || output.stdout.is_empty() {
            bail!("archipel cluster {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// How many partitions of a keyspace the members lead that listen for others on `ports`.
fn leads(status: &Value, keyspace: u64, ports: &[u16]) -> Result<[u64; 3]> {
    let list = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = list("keyspaces").iter().find(|one| one["id"].as_u64() == Some(keyspace));
    let leaders = &one.with_context(|| format!("there is no keyspace {keyspace}"))?["leaders"];
    let mut leads = [0; 3];
    for (lead, port) in leads.iter_mut().zip(ports) {
        let listens = |member: &&Value| {
            let addresses = member["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
            addresses.iter().filter_map(Value::as_str).any(|one| one.ends_with(&format!(":{port}")))
        };
        let member = list("members").iter().find(listens);
        let id = member.and_then(|member| member["node"].as_str());
        let id = id.with_context(|| format!("no member listens on port {port}"))?;
        *lead = leaders[id].as_u64().unwrap_or_default();
    }
    Ok(leads)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leaders_are_found_by_where_they_listen() {
        let status = json!({
            "members": [
                {"node": "c", "addresses": ["127.0.0.1:3"]},
                {"node": "a", "addresses": ["127.0.0.1:1"]},
                {"node": "b", "addresses": ["127.0.0.1:2"]},
            ],
            "keyspaces": [{"id": 1, "leaders": {"a": 22, "c": 42}}],
        });
        assert_eq!(leads(&status, 1, &[1, 2, 3]).unwrap(), [22, 0, 42]);
        assert!(leads(&status, 2, &[1, 2, 3]).is_err());
        assert!(leads(&status, 1, &[1, 2, 4]).is_err());
    }
}
