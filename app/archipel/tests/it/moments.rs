//! Moments between backups of real nodes, and holes in which there are none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::SystemTime;

use serde_json::Value;
use server::kernel::Rng;

use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

fn restore(backups: &Path, target: &Path, flags: &[&str]) -> Output {
    let (backups, target) = (backups.display().to_string(), target.display().to_string());
    run(&[&["cluster", "restore", &backups, "--data-dir", &target], flags].concat())
}

fn millis() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// As the command takes a moment.
fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// A command that backs up again and again, and what it says of each round.
pub struct Rounds {
    child: Child,
    lines: Receiver<Value>,
}

impl Rounds {
    fn of(node: &Node, backups: &Path) -> Rounds {
        let words = ["cluster", "backup", &backups.display().to_string(), "--every", "1s", "--json"];
        Rounds::by(node.command(&words))
    }

    /// The rounds of this command, which tells of them as JSON.
    pub fn by(mut command: Command) -> Rounds {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test may have ended.
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Rounds { child, lines: told }
    }

    /// The next round that came to something.
    pub fn next(&self) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap();
            if line["failed"].is_null() {
                return line;
            }
        }
    }

    /// The same, if it has ended already.
    fn try_next(&self) -> Option<Value> {
        self.lines.try_iter().find(|line| line["failed"].is_null())
    }

    pub fn end(mut self) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// A client that counts up, and knows when.
struct Counter {
    stream: TcpStream,
    /// When each number was sent, and when it was acknowledged, in milliseconds; the first is 1.
    times: Vec<(u64, u64)>,
}

impl Counter {
    fn connect(&mut self, node: &Node) {
        self.stream = TcpStream::connect(node.redis).unwrap();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream.set_nodelay(true).unwrap();
    }

    fn new(node: &Node) -> Counter {
        let stream = TcpStream::connect(node.redis).unwrap();
        let mut counter = Counter { stream, times: Vec::new() };
        counter.connect(node);
        counter
    }

    /// Writes the next number, with something that depends on chance and something that expires.
    fn step(&mut self) {
        let n = self.times.len() + 1;
        let sent = millis();
        let request = format!(
            "MULTI\r\nSET k {n}\r\nSADD drawn {n} a b c\r\nSPOP drawn 2\r\nSET soon {n} PX 700\r\nEXEC\r\n"
        );
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"+OK\r\n") || !answer.windows(2).any(|two| two == b"*4") {
            let mut piece = [0; 4096];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        self.times.push((sent, millis()));
    }

    /// The least and the most that there can be at `moment`.
    fn bounds(&self, moment: u64) -> (usize, usize) {
        let least = self.times.iter().rposition(|(_, acknowledged)| *acknowledged < moment);
        let most = self.times.iter().rposition(|(sent, _)| *sent <= moment);
        (least.map_or(0, |at| at + 1), most.map_or(0, |at| at + 1))
    }
}

#[test]
fn any_moment_from_the_first_backup_to_the_last_comes_back_also_after_a_kill_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let (backups, data) = (dir.path().join("backups"), dir.path().join("node"));
    let mut node = Node::start(&data, &[]);
    let mut counter = Counter::new(&node);
    counter.step();
    let rounds = Rounds::of(&node, &backups);
    let first = rounds.next();
    let mut last = first.clone();
    for number in 2..=5 {
        // As fast as it goes, until another backup is there.
        last = loop {
            counter.step();
            if let Some(round) = rounds.try_next() {
                break round;
            }
        };
        assert_eq!(last["number"], number);
        assert_eq!(last["gaps"].as_array().unwrap().len(), 0, "{last}");
        if number == 3 {
            let ports =
                [format!("admin.port={}", node.admin.port()), format!("redis.port={}", node.redis.port())];
            node.signal("KILL");
            node.wait();
            node = Node::start_last(&data, &[], &["--set", &ports[0], "--set", &ports[1]]);
            counter.connect(&node);
        }
    }
    rounds.end();
    node.stop();
    let verified = restore(&backups, Path::new("unused"), &["--verify"]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));
    assert!(stdout(&verified).contains("entries were replayed"), "{}", stdout(&verified));
    // Over the kill too, replay comes to what the node had in its engine.
    for number in 1..=5 {
        let flags = ["--verify", "--json", "--number", &number.to_string()];
        let verified = restore(&backups, Path::new("unused"), &flags);
        assert_eq!(code(&verified), 0, "{}", stderr(&verified));
        let told: Value = serde_json::from_str(&stdout(&verified)).unwrap();
        assert_eq!(told["replayed"]["met"], u64::from(number > 1), "{told}");
        assert!(number == 1 || told["replayed"]["entries"].as_u64() > Some(0), "{told}");
    }

    let (from, to) = (first["until_ms"].as_u64().unwrap(), last["at_ms"].as_u64().unwrap());
    let (mut rng, mut seen) = (Rng::new(7), Vec::new());
    for round in 0..6 {
        let moment = from + rng.below(to - from);
        let target = dir.path().join(format!("moment{round}"));
        let done = restore(&backups, &target, &["--to", &seconds(moment), "--json"]);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        let told: Value = serde_json::from_str(&stdout(&done)).unwrap();
        assert_eq!((&told["moment_ms"], &told["ends_ms"]), (&moment.into(), &Value::Null), "{told}");
        let node = Node::start(&target, &[]);
        let found = node.redis_all("GET k\r\n");
        let n: usize = found.lines().nth(1).unwrap_or_else(|| panic!("{found}")).parse().unwrap();
        let (least, most) = counter.bounds(moment);
        assert!((least..=most).contains(&n), "{n} at {moment} is not from {least} to {most}");
        // It goes on from there.
        assert_eq!(node.redis("INCR k\r\n"), format!(":{}", n + 1));
        node.stop();
        seen.push(n);
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 3, "moments differ: {seen:?}");

    // Later than everything: as far as it goes, and it says so.
    let target = dir.path().join("later");
    let done = restore(&backups, &target, &["--to", &seconds(millis())]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert!(stdout(&done).contains("the backups end at"), "{}", stdout(&done));
    // As a backup was, and not at the moment itself.
    let target = dir.path().join("consistent");
    let done = restore(&backups, &target, &["--to", &seconds(to), "--consistent", "--json"]);
    let told: Value = serde_json::from_str(&stdout(&done)).unwrap();
    assert!(told["moment_ms"].is_null() && told["before_ms"].is_u64(), "{told}");
}

#[test]
fn a_moment_between_backups_that_lack_entries_is_refused_and_the_backups_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (backups, target) = (dir.path().join("backups"), dir.path().join("new"));
    let flags = ["--set", "storage.archived_log_bytes=0", "--set", "storage.checkpoint_bytes=1MiB"];
    let node = Node::start(&dir.path().join("node"), &flags);
    node.redis("SET k first\r\n");
    let rounds = Rounds::of(&node, &backups);
    let first = rounds.next();
    let moment = seconds(first["until_ms"].as_u64().unwrap() + 1);
    // More than the log keeps, until a backup has noticed.
    let value = "x".repeat(100_000);
    let many: String =
        (0..60).map(|n| format!("*3\r\n$3\r\nSET\r\n$2\r\nb{}\r\n$100000\r\n{value}\r\n", n % 8)).collect();
    let broken = loop {
        let said = node.redis_all(&format!("SET k second\r\n{many}"));
        assert!(!said.contains("-"), "{said}");
        if let Some(round) = rounds.try_next()
            && !round["gaps"].as_array().unwrap().is_empty()
        {
            break round;
        }
    };
    assert_eq!(broken["gaps"][0], "0/0", "{broken}");
    rounds.end();
    node.stop();
    let refused = restore(&backups, &target, &["--to", &moment]);
    assert_eq!(code(&refused), 1, "{}", stdout(&refused));
    assert!(stderr(&refused).contains("lacks the entries between backup"), "{}", stderr(&refused));
    assert!(!target.exists());
    for (number, expected) in [(&first["number"], "first"), (&broken["number"], "second")] {
        let target = dir.path().join(format!("restored{number}"));
        let done = restore(&backups, &target, &["--number", &number.to_string()]);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        let node = Node::start(&target, &[]);
        assert_eq!(node.redis_all("GET k\r\n").lines().nth(1), Some(expected));
        node.stop();
    }
}
