//! One node of a throw-away cluster, as a process.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{question, tail};

/// A node. Dropped, it is killed if it did not stop before.
pub struct Child {
    /// From 1.
    pub number: u16,
    /// Of its ports.
    pub offset: u16,
    /// Its data directory.
    pub data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    process: process::Child,
    /// It stops when this ends.
    stdin: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts node `number` below `home`: the first member without a token, another with one.
    pub fn start(number: u16, offset: u16, home: &Path, config: &Path, token: Option<&str>) -> Result<Child> {
        let (data, log) = (home.join(format!("node-{number}")), home.join(format!("node-{number}.log")));
        let program = std::env::current_exe().context("this program's file is not known")?;
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            // They are meant for the node of this machine, not for these.
            if name.to_string_lossy().starts_with("ARCHIPEL_") {
                command.env_remove(name);
            }
        }
        command.args(["node", "start", "--until-stdin-ends", "--zone", &format!("zone-{number}")]);
        command.arg("--data-dir").arg(&data).arg("--config").arg(config);
        command.args(["--port-offset", &offset.to_string()]);
        match token {
            None => command.arg("--cluster"),
            Some(token) => command.args(["--join", token.trim_end()]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output);
        let mut process = command.spawn().context("this program cannot be started again")?;
        let stdin = process.stdin.take();
        let config = config.to_owned();
        Ok(Child { number, offset, data, config, log, process, stdin, ended: None })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where Redis clients reach it.
    pub const fn redis(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6379 + self.offset)
    }

    /// Its admin port.
    pub const fn admin(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7400 + self.offset)
    }

    /// Whether it answers that it serves.
    pub fn serves(&self) -> bool {
        self.ask("GET", "/health").is_ok()
    }

    /// Asks its admin port.
    pub fn ask(&self, method: &str, path: &str) -> Result<String> {
        question(self.admin(), method, path).with_context(|| format!("node {}", self.number))
    }

    /// How it ended; told once.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_some() { Ok(None) } else { self.has_ended_ever() }
    }

    /// How it ended.
    pub fn has_ended_ever(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().context("a node's process")?;
        }
        Ok(self.ended)
    }

    /// It stops as on SIGTERM.
    pub fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        tail(&self.log)
    }

    /// What starts it again by hand.
    pub fn again(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("archipel"));
        format!(
            "{} node start --data-dir {} --config {} --port-offset {} --zone zone-{}",
            program.display(),
            self.data.display(),
            self.config.display(),
            self.offset,
            self.number
        )
    }

    /// Where it is, for programs.
    pub fn json(&self) -> Value {
        json!({
            "number": self.number,
            "pid": self.pid(),
            "port_offset": self.offset,
            "redis": self.redis().to_string(),
            "admin": self.admin().to_string(),
            "data_dir": self.data.display().to_string(),
            "log": self.log.display().to_string(),
            "restart": self.again(),
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
