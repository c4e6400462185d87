//! Servers under test: a node or a redis-server on free ports, with a data directory of its own.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer its first request.
const START_SECONDS_MAX: u64 = 60;

/// How long a server may take to drain and exit.
const STOP_SECONDS_MAX: u64 = 60;

/// The ports a node takes with offset 0; `--port-offset` shifts them all.
const NODE_PORTS: &[u16] = &[4222, 6379, 6380, 7400, 7401, 7402, 8080, 8500, 8600];

/// Offsets that keep every port between 20000 and the range the kernel hands out to clients.
const OFFSETS: std::ops::Range<u16> = 15_780..24_100;

/// A running server. Dropped without `stop`, it is killed.
pub struct Server {
    child: Child,
    /// Where Redis clients reach it, on 127.0.0.1.
    pub port: u16,
    /// The admin port, if it is a node.
    pub admin: Option<u16>,
    /// What it printed.
    pub log: PathBuf,
}

/// What a server promises before it answers a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Everysec,
    Always,
}

impl Promise {
    /// The word that both servers use.
    pub fn word(self) -> &'static str {
        match self {
            Promise::Everysec => "everysec",
            Promise::Always => "always",
        }
    }
}

impl Server {
    /// Starts a node whose data is in `dir`, and does not wait for it.
    pub fn spawn_node(binary: &Path, dir: &Path, config: Option<&str>) -> Result<Self> {
        let offset = free_offset()?;
        let mut command = Command::new(binary);
        command.arg("--data-dir").arg(dir.join("data")).arg("--port-offset").arg(offset.to_string());
        if let Some(text) = config {
            let path = dir.join("archipel.toml");
            std::fs::write(&path, text)?;
            command.arg("--config").arg(path);
        }
        spawn(command, dir, 6379 + offset, Some(7400 + offset))
    }

    /// Starts a node that forms or joins a cluster, as `words` say, and does not wait for it.
    pub fn spawn_member(
        binary: &Path,
        dir: &Path,
        offset: u16,
        words: &[String],
        config: &str,
    ) -> Result<Self> {
        let path = dir.join("archipel.toml");
        std::fs::write(&path, config)?;
        let mut command = Command::new(binary);
        command.args(["node", "start", "--data-dir"]).arg(dir.join("data"));
        command.args(["--port-offset", &offset.to_string(), "--config"]).arg(&path).args(words);
        spawn(command, dir, 6379 + offset, Some(7400 + offset))
    }

    /// Starts another node in the place of `before`, whose data is in `dir` too, and waits until that one has ended with exit code 0.
    pub fn take_over(before: Server, binary: &Path, dir: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["node", "start", "--take-over", "--data-dir"]).arg(dir.join("data"));
        command
            .args(["--port-offset", &(before.port - 6379).to_string(), "--config"])
            .arg(dir.join("archipel.toml"));
        let after = spawn(command, dir, before.port, before.admin)?;
        let mut before = before;
        let status = before.wait(Duration::from_secs(STOP_SECONDS_MAX))?;
        if !status.success() {
            bail!("the node that was taken over from ended with {status}; both printed:\n{}", after.tail());
        }
        Ok(after)
    }

    /// Starts Debian's redis-server with an append-only file in `dir`, and does not wait for it.
    pub fn spawn_redis(dir: &Path, promise: Promise) -> Result<Self> {
        let port = free_offset()? + 6379;
        let data = dir.join("redis");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", promise.word(), "--port", &port.to_string(), "--dir"]).arg(data);
        spawn(command, dir, port, None)
    }

    /// Waits until it answers PING, or `/health` on its admin port.
    pub fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            if ping(self.port) || self.admin.is_some_and(healthy) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it answered; it printed:\n{}", self.tail());
            }
            if Instant::now() > end {
                bail!("the server did not answer within {START_SECONDS_MAX} s; it printed:\n{}", self.tail());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end (SIGTERM) and expects exit code 0.
    pub fn stop(mut self) -> Result<()> {
        signal(self.pid(), "TERM")?;
        let status = self.wait(Duration::from_secs(STOP_SECONDS_MAX))?;
        if !status.success() {
            bail!("the server ended with {status} when asked to stop; it printed:\n{}", self.tail());
        }
        Ok(())
    }

    /// Ends it without warning (SIGKILL).
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait(&mut self.child, limit)?
            .with_context(|| format!("the server did not end within {} s", limit.as_secs()))
    }

    /// The end of what it printed.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` or `kill` the process is gone and both calls do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(mut command: Command, dir: &Path, port: u16, admin: Option<u16>) -> Result<Server> {
    let log = dir.join("server.log");
    let out = File::options().create(true).append(true).open(&log)?;
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = command.spawn().with_context(|| format!("{name} did not start"))?;
    Ok(Server { child, port, admin, log })
}

/// Waits for `child` at most `limit`; `None` if it still runs then.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    if !status.success() {
        bail!("process {pid} is gone; SIG{name} could not be sent");
    }
    Ok(())
}

/// Ends the process group that `leader` was started as the head of; nothing if it is gone already.
pub fn end_group(leader: u32) {
    let mut command = Command::new("kill");
    command.args(["-KILL", "--", &format!("-{leader}")]).stdin(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

/// An offset at which every port of a node is free now.
pub fn free_offset() -> Result<u16> {
    // Runs that share a machine begin at different places.
    let span = (OFFSETS.end - OFFSETS.start) / 10;
    let start = u16::try_from(std::process::id() % u32::from(span))?;
    let offsets = (0..span).map(|n| OFFSETS.start + (start + n) % span * 10);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for offset in offsets {
        if NODE_PORTS.iter().all(|port| free(port + offset)) {
            return Ok(offset);
        }
    }
    bail!("no port offset between {} and {} is free", OFFSETS.start, OFFSETS.end)
}

/// Does something on `port` answer PING?
pub fn ping(port: u16) -> bool {
    ask(port, b"PING\r\n", b"+PONG").unwrap_or(false)
}

fn healthy(port: u16) -> bool {
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    ask(port, request, b"HTTP/1.1 200").unwrap_or(false)
}

fn ask(port: u16, request: &[u8], expected: &[u8]) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(request)?;
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply)?;
    Ok(reply == expected)
}
