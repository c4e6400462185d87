//! Nodes and commands as processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The command, with nothing from the environment that sets it.
pub fn archipel(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_archipel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ARCHIPEL_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    archipel(args).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running node on ports of its own. Dropped, it is killed.
pub struct Node {
    child: Child,
    stderr: BufReader<ChildStderr>,
    pub redis: SocketAddr,
    pub admin: SocketAddr,
    flags: Vec<String>,
}

impl Node {
    /// Starts a node on free ports and waits until it says that it serves.
    pub fn start(dir: &Path, flags: &[&str]) -> Node {
        Node::start_as(dir, &[], flags)
    }

    /// The same with flags of `node start` besides those of all verbs.
    pub fn start_as(dir: &Path, how: &[&str], flags: &[&str]) -> Node {
        Node::begin(dir, how, flags, &[])
    }

    /// The same with settings that come after all others.
    pub fn start_last(dir: &Path, how: &[&str], last: &[&str]) -> Node {
        Node::begin(dir, how, &[], last)
    }

    fn begin(dir: &Path, how: &[&str], flags: &[&str], last: &[&str]) -> Node {
        let data = dir.to_str().unwrap();
        let mut args =
            vec!["--data-dir", data, "--set", "log.format=json", "--set", "storage.segment_bytes=1MiB"];
        args.extend(flags);
        let mut command = archipel(&args);
        for port in ["redis.port=0", "admin.port=0", "cluster.port=0", "cluster.redis_port=0"] {
            command.args(["--set", port]);
        }
        command.args(last).args(["node", "start"]).args(how);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let flags = args.iter().map(|arg| (*arg).to_owned()).collect();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut node = Node { child, stderr, redis: unknown, admin: unknown, flags };
        let serving = node.await_serving();
        let address = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        (node.redis, node.admin) = (address("redis"), address("admin"));
        node
    }

    /// The message that it serves.
    fn await_serving(&mut self) -> serde_json::Value {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "the node ended; it said:\n{said}");
            said.push_str(&line);
            let message: serde_json::Value = serde_json::from_str(&line).unwrap();
            if message["message"] == "serving" {
                return message;
            }
        }
    }

    /// A verb with the configuration of this node.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = archipel(args);
        command.args(&self.flags);
        command.args(["--set", &format!("redis.port={}", self.redis.port())]);
        command.args(["--set", &format!("admin.port={}", self.admin.port())]);
        command
    }

    /// Runs that to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Sends `request` to the Redis port and reads one line of the answer.
    pub fn redis(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.redis).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends `requests` to the Redis port and reads all answers: what they did is done when this returns.
    pub fn redis_all(&self, requests: &str) -> String {
        let mut stream = TcpStream::connect(self.redis).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{requests}QUIT\r\n").as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        answers
    }

    /// The admin port's answer: status and body.
    pub fn http(&self, method: &str, path: &str) -> (u16, String) {
        self.ask(method, path, "")
    }

    /// The same, with more lines in the request's head; fails unless the whole request is taken, answered, and
    /// the connection then closed.
    pub fn ask(&self, method: &str, path: &str, lines: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The metric `name`, labels included.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.http("GET", "/metrics");
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Asks until `holds`, or fails.
    pub fn until(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "it did not come to pass that {what}");
            std::thread::yield_now();
        }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for its end: the exit code and what it said since it served.
    pub fn wait(mut self) -> (i32, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, said)
    }

    /// Stops it as a supervisor does and expects a clean end.
    pub fn stop(self) {
        self.signal("TERM");
        let (code, said) = self.wait();
        assert_eq!(code, 0, "{said}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a wait both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
