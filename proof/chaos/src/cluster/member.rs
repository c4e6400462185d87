//! A node of a cluster: a process of the real binary on a host of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::net::Host;
use crate::campaign::Failure;
use crate::process::how;

/// Where Redis clients reach a node, on its host.
pub const REDIS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6379);
/// Where its admin port is, on its host.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7400);
/// A page of the admin port that has not come after so long is not counted on.
const PAGE: Duration = Duration::from_secs(2);
/// Lines of a node's log that a report shows.
const LINES: usize = 6;
/// The keyspace that has several partitions, and how many.
pub const WIDE: (u16, u16) = (1, 8);

/// A member, running or not. Dropped, it is killed.
pub struct Member {
    number: usize,
    folder: PathBuf,
    child: Option<Child>,
}

/// How it begins.
pub enum Begins<'a> {
    /// It makes the cluster.
    First,
    /// It joins with this token.
    Joins(&'a str),
    /// It is a member already, and its clock differs by so many milliseconds.
    Again(i64),
}

impl Member {
    /// A member that does not run yet, with its folder below `home`; `more` is what its configuration says besides.
    ///
    /// # Errors
    /// Its folder cannot be written.
    pub fn new(number: usize, host: &Host, home: &Path, more: &str) -> Result<Member, Failure> {
        let folder = home.join(format!("node-{number}"));
        std::fs::create_dir_all(&folder).map_err(Failure::world("make a node's folder"))?;
        let text = format!(
            "data_dir = \"{}\"\n[log]\nlevel = \"info\"\nformat = \"json\"\n\
             [cluster]\nbind = \"{}\"\nzone = \"zone-{number}\"\n\
             [storage]\nsegment_bytes = \"256KiB\"\nreserve_bytes = 0\ncheckpoint_bytes = \"1MiB\"\n\
             [[keyspace]]\nid = {}\npartitions = {}\n{more}",
            folder.join("data").display(),
            host.address,
            WIDE.0,
            WIDE.1,
        );
        std::fs::write(folder.join("archipel.toml"), text)
            .map_err(Failure::world("write a node's configuration"))?;
        Ok(Member { number, folder, child: None })
    }

    /// Where its data is.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command.arg("--config").arg(self.folder.join("archipel.toml")).stdin(Stdio::null());
        command
    }

    /// Starts its process, and does not wait until it serves.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(&mut self, binary: &Path, host: &Host, begins: &Begins<'_>) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(self.folder.join("log.json"));
        let log = log.map_err(Failure::world("open a node's log"))?;
        let mut command = self.command(binary);
        command.args(["node", "start"]);
        match begins {
            Begins::First => _ = command.arg("--cluster"),
            Begins::Joins(token) => _ = command.args(["--join", token]),
            Begins::Again(skew) => shift_clock(&mut command, *skew),
        }
        command.stdout(Stdio::null()).stderr(log);
        let child = host.inside(|| command.spawn())?;
        self.child = Some(child.map_err(Failure::world("start a node"))?);
        Ok(())
    }

    /// A token that lets one node in; `None` if it gives none yet.
    ///
    /// # Errors
    /// The system refuses.
    pub fn token(&self, binary: &Path, host: &Host) -> Result<Option<String>, Failure> {
        let mut command = self.command(binary);
        command.args(["cluster", "token"]).stderr(Stdio::null());
        let output = host.inside(|| command.output())?.map_err(Failure::world("ask for a token"))?;
        let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status.success() && !token.is_empty()).then_some(token))
    }

    /// Has leaders of the keyspace of several partitions answer reads by lease; `None` if it was not taken yet.
    ///
    /// # Errors
    /// The system refuses.
    pub fn use_leases(&self, binary: &Path, host: &Host) -> Result<Option<()>, Failure> {
        let mut command = self.command(binary);
        command.args(["cluster", "keyspace", "alter", &WIDE.0.to_string(), "--reads", "lease"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = host.inside(|| command.status())?.map_err(Failure::world("alter a keyspace"))?;
        Ok(status.success().then_some(()))
    }

    /// How it sees the cluster; `None` if it does not say.
    ///
    /// # Errors
    /// The system lets nobody ask.
    pub fn status(&self, host: &Host) -> Result<Option<Value>, Failure> {
        Ok(self.page(host, "cluster")?.ok().and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn page(&self, host: &Host, name: &str) -> Result<io::Result<String>, Failure> {
        let stream = host.inside(|| TcpStream::connect_timeout(&ADMIN, PAGE))?;
        Ok(stream.and_then(|stream| read_page(stream, name)))
    }

    /// Writes what it says of itself into its folder, for whoever looks into a failure.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_pages(&self, host: &Host) -> Result<(), Failure> {
        for (name, file) in [("cluster", "status.json"), ("metrics", "metrics.txt")] {
            let text = self.page(host, name)?.unwrap_or_else(|error| format!("{name}: {error}\n"));
            let written = std::fs::write(self.folder.join(file), text);
            written.map_err(Failure::world("keep what a node says"))?;
        }
        Ok(())
    }

    /// An error if it has ended by itself.
    ///
    /// # Errors
    /// How it ended.
    pub fn must_run(&mut self) -> Result<(), Failure> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(Failure::Broken(format!("{}: {}", self.name(), self.end_of(&status)))),
        }
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        format!("node {}", self.number)
    }

    /// How it ended, and what it said last.
    #[must_use]
    pub fn end_of(&self, status: &ExitStatus) -> String {
        let log = std::fs::read_to_string(self.folder.join("log.json")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}\n  {}", how(status), lines[lines.len().saturating_sub(LINES)..].join("\n  "))
    }

    /// How its process ended, if it has.
    ///
    /// # Errors
    /// The system refuses.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let status = self.child.as_mut().map(Child::try_wait).transpose();
        status.map(Option::flatten).map_err(Failure::world("look after a node"))
    }

    /// Sends its process a signal.
    ///
    /// # Errors
    /// The system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { return Ok(()) };
        kill_process(pid, signal).map_err(io::Error::from).map_err(Failure::world("signal a node"))
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Errors
    /// It had ended by itself before, or the system refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.must_run()?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended = child.kill().and_then(|()| child.wait());
        ended.map(drop).map_err(Failure::world("kill a node"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads a page of the admin port.
fn read_page(mut stream: TcpStream, name: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PAGE))?;
    stream.set_write_timeout(Some(PAGE))?;
    stream.write_all(format!("GET /{name} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| io::Error::other("no page"))
}

/// The library that shifts a process's clock, if it is installed.
#[must_use]
pub fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut all = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    all.find(|path| path.is_file())
}

/// Shifts the wall clock that the process sees; monotonic time goes on as it is.
fn shift_clock(command: &mut Command, millis: i64) {
    if millis == 0 {
        return;
    }
    if let Some(library) = faketime() {
        let sign = if millis < 0 { '-' } else { '+' };
        let size = millis.unsigned_abs();
        command.env("LD_PRELOAD", library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME", format!("{sign}{}.{:03}", size / 1000, size % 1000));
        // Else it leaves shared memory behind when its process is killed.
        command.env("FAKETIME_DISABLE_SHM", "1");
    }
}

/// Whether `status` is that of a cluster of `nodes` in which all are up, have all copies, and everything is led.
#[must_use]
pub fn is_whole(status: &Value, nodes: usize) -> bool {
    let list = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let (members, keyspaces) = (list("members"), list("keyspaces"));
    let copies =
        |one: &Value| one["partitions"].as_u64().zip(one["copies"].as_u64()).map_or(0, |(p, c)| p * c);
    let there: u64 = members.iter().filter_map(|one| one["copies"].as_u64()).sum();
    members.len() == nodes
        && members.iter().all(|one| one["health"] == "alive" && one["standing"] == "active")
        && there == keyspaces.iter().map(copies).sum::<u64>()
        && keyspaces.iter().all(|one| one["led"].is_u64() && one["led"] == one["partitions"])
        && list("moves").is_empty()
        && status["waiting"] == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_whole_when_nothing_is_missing() {
        let member = || serde_json::json!({"health": "alive", "standing": "active", "copies": 9});
        let whole = || {
            serde_json::json!({
                "members": [member(), member(), member()], "moves": [], "waiting": 0,
                "keyspaces": [{"partitions": 1, "copies": 3, "led": 1}, {"partitions": 8, "copies": 3, "led": 8}],
            })
        };
        type Change = fn(&mut Value);
        let table: [(Change, bool); 7] = [
            (|_| (), true),
            (|status| status["members"][2]["health"] = "suspect".into(), false),
            (|status| status["members"][2]["copies"] = 8.into(), false),
            (|status| _ = status["members"].as_array_mut().map(Vec::pop), false),
            (|status| status["keyspaces"][1]["led"] = 7.into(), false),
            (|status| status["waiting"] = 1.into(), false),
            (|status| *status = Value::Null, false),
        ];
        for (row, (change, expected)) in table.into_iter().enumerate() {
            let mut status = whole();
            change(&mut status);
            assert_eq!(is_whole(&status, 3), expected, "row {row}");
        }
    }
}
