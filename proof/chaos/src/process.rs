//! The real binary as a child process: started with a configuration, killed, stopped, listened to.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

/// A node that does not serve after this has failed to start.
const START_SECONDS_MAX: u64 = 60;
/// A node that does not end after this when it is asked to has failed to stop.
const STOP_SECONDS_MAX: u64 = 60;
/// Address space of a node, in KiB: damage that makes it ask for all memory must not take the machine's.
const ADDRESS_SPACE_KIB_MAX: u64 = 8 * 1024 * 1024;
/// Messages that are kept for a report.
const MESSAGES_KEPT: usize = 40;

/// Why there is no node.
#[derive(Debug, Error)]
pub enum StartError {
    /// It ended by itself before it served.
    #[error("{}: {message}", how(status))]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last of what it said.
        message: String,
    },
    /// It said nothing for too long, and was killed.
    #[error("it did not serve within {START_SECONDS_MAX} s; the last it said: {message}")]
    Silent {
        /// The last of what it said.
        message: String,
    },
    /// The binary or the configuration cannot be used.
    #[error("cannot start {}: {source}", binary.display())]
    Unusable {
        /// The binary.
        binary: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// How a process ended, for people.
#[must_use]
pub fn how(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}

/// How a node is set for a campaign. Small files, so that recycling, checkpoints and tables happen all the time.
#[derive(Clone, Debug)]
pub struct Shape {
    /// `always` or `everysec`, for every keyspace.
    pub durability: &'static str,
    /// The size of a segment.
    pub segment_bytes: u64,
    /// The log's length that asks for a checkpoint.
    pub checkpoint_bytes: u64,
    /// Free space that is left alone.
    pub reserve_bytes: u64,
}

impl Shape {
    /// The smallest files that may be asked for, near enough.
    #[must_use]
    pub fn small(durability: &'static str) -> Shape {
        Shape { durability, segment_bytes: 64 << 10, checkpoint_bytes: 1 << 20, reserve_bytes: 0 }
    }

    fn toml(&self, data: &Path) -> String {
        let Shape { durability, segment_bytes, checkpoint_bytes, reserve_bytes } = self;
        let mut text = format!(
            "data_dir = \"{}\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[redis]\nport = 0\n[admin]\nport = 0\n\
             [storage]\nsegment_bytes = {segment_bytes}\nreserve_bytes = {reserve_bytes}\n\
             checkpoint_bytes = {checkpoint_bytes}\ncache_bytes = \"1MiB\"\n",
            data.display()
        );
        for id in 0..crate::load::DATABASES {
            text.push_str(&format!("[[keyspace]]\nid = {id}\ndurability = \"{durability}\"\n"));
            if id == crate::load::SQUEEZED {
                // Less than its connections write, so that bodies leave memory and are read back.
                text.push_str("memory = \"1MiB\"\n");
            }
        }
        text
    }
}

/// The binary under test, and where its configuration is.
#[derive(Clone, Debug)]
pub struct Program {
    /// The `archipel` binary.
    pub binary: PathBuf,
    /// The configuration file, which is written at each start.
    pub config: PathBuf,
}

#[derive(Default)]
struct Heard {
    messages: Mutex<VecDeque<String>>,
    checkpoints: AtomicU64,
}

impl Heard {
    fn last(&self) -> String {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let worth =
            |line: &&String| !line.contains("\"level\":\"DEBUG\"") && !line.contains("\"level\":\"INFO\"");
        let told: Vec<&str> = messages.iter().filter(worth).map(String::as_str).collect();
        told[told.len().saturating_sub(6)..].join(" | ")
    }
}

/// A node that serves.
pub struct Node {
    child: Child,
    heard: Arc<Heard>,
    listener: Option<JoinHandle<()>>,
    /// Where Redis clients connect.
    pub redis: SocketAddr,
    /// Where the admin port is.
    pub admin: SocketAddr,
    /// How long the start took.
    pub started_in: Duration,
}

/// A child that has not said yet that it serves.
struct Starting {
    child: Child,
    heard: Arc<Heard>,
    listener: JoinHandle<()>,
    serving: Receiver<(SocketAddr, SocketAddr)>,
}

impl Program {
    /// Starts a node on `data` and waits until it serves.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(&self, shape: &Shape, data: &Path) -> Result<Node, StartError> {
        let began = Instant::now();
        let Starting { mut child, heard, listener, serving } = self.spawn(shape, data)?;
        match serving.recv_timeout(Duration::from_secs(START_SECONDS_MAX)) {
            Ok((redis, admin)) => {
                let started_in = began.elapsed();
                Ok(Node { child, heard, listener: Some(listener), redis, admin, started_in })
            }
            Err(why) => {
                // It has ended already, or has to.
                let _ = child.kill();
                let status = child.wait().map_err(|source| self.unusable(source))?;
                // All it said is there once its end of the pipe is closed.
                let _ = listener.join();
                let message = heard.last();
                match why {
                    RecvTimeoutError::Disconnected => Err(StartError::Ended { status, message }),
                    RecvTimeoutError::Timeout => Err(StartError::Silent { message }),
                }
            }
        }
    }

    /// Starts a node and kills it after `wait`, most likely while it recovers.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn start_and_kill(&self, shape: &Shape, data: &Path, wait: Duration) -> Result<(), StartError> {
        let mut starting = self.spawn(shape, data)?;
        // Either it serves before that or it is cut short; both are the point.
        let _ = starting.serving.recv_timeout(wait);
        let ended = starting.child.kill().and_then(|()| starting.child.wait());
        let _ = starting.listener.join();
        ended.map(drop).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: io::Error) -> StartError {
        StartError::Unusable { binary: self.binary.clone(), source }
    }

    fn spawn(&self, shape: &Shape, data: &Path) -> Result<Starting, StartError> {
        std::fs::write(&self.config, shape.toml(data)).map_err(|source| self.unusable(source))?;
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB_MAX}; ulimit -c 0; exec \"$@\""), "sh"])
            .arg(&self.binary)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| self.unusable(source))?;
        let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        let heard = Arc::new(Heard::default());
        let (told, serving) = channel();
        let into = Arc::clone(&heard);
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let field = |name: &str| message.get(name).and_then(serde_json::Value::as_str);
                let address = |name: &str| field(name).and_then(|text| text.parse::<SocketAddr>().ok());
                match field("message") {
                    Some("serving") => {
                        if let (Some(redis), Some(admin)) = (address("redis"), address("admin")) {
                            // Nobody listens if it was killed in between.
                            let _ = told.send((redis, admin));
                        }
                    }
                    Some("checkpoint") => _ = into.checkpoints.fetch_add(1, Ordering::Relaxed),
                    Some(_) | None => {}
                }
                let mut messages = into.messages.lock().unwrap_or_else(PoisonError::into_inner);
                if messages.len() == MESSAGES_KEPT {
                    messages.pop_front();
                }
                messages.push_back(line);
            }
        });
        Ok(Starting { child, heard, listener, serving })
    }
}

impl Node {
    /// Checkpoints that it has told of.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.heard.checkpoints.load(Ordering::Relaxed)
    }

    /// Warnings and errors that it said last.
    #[must_use]
    pub fn said(&self) -> String {
        self.heard.last()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| format!("{}: {}", how(&status), self.said()))
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.quiet();
        Ok(())
    }

    /// Asks it to stop and waits for it.
    ///
    /// # Errors
    /// It did not end, or not with exit code 0.
    pub fn stop(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a process id"), Signal::TERM)?;
        let until = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > until => {
                    return Err(io::Error::other(format!("it did not stop within {STOP_SECONDS_MAX} s")));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        self.quiet();
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} when asked to stop: {}", how(&status), self.said())))
    }

    fn quiet(&mut self) {
        if let Some(listener) = self.listener.take() {
            // It ends with the pipe; a panic there was printed by itself.
            let _ = listener.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After `kill` and `stop` there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.quiet();
    }
}
