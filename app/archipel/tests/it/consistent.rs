//! A backup of a keyspace that is divided among several real nodes belongs together.
//!
//! A client adds one to x, and when that is acknowledged one to y, which is in another partition that another node leads: so y is
//! never above x, and must not be in a backup either.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::cluster::{first, joined, status};
use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

/// The keyspace, and how many partitions it has.
const DB: &str = "20";
const PARTITIONS: usize = 8;
/// Keys of its first partition and its last: partitions are taken in that order.
const KEYS: [&str; 2] = ["{aa}x", "{a}y"];
/// Backups until one without a common moment must have shown what is wrong with it.
const LOOSE_MAX: u64 = 60;

struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    fn new(dir: &Path) -> Cluster {
        let one = first(&dir.join("1"));
        let two = joined(&dir.join("2"), &one, "b");
        let three = joined(&dir.join("3"), &one, "c");
        let made = one.run(&["cluster", "keyspace", "create", DB, "--partitions", &PARTITIONS.to_string()]);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        one.until("all partitions have three copies and a leader", |node| {
            let status = status(node);
            let led = |keyspace: &Value| keyspace["led"] == keyspace["partitions"];
            status["members"].as_array().unwrap().iter().all(|member| member["copies"] == 16 + PARTITIONS)
                && status["moves"].as_array().unwrap().is_empty()
                && status["keyspaces"].as_array().unwrap().iter().all(led)
        });
        Cluster { nodes: vec![one, two, three] }
    }

    /// Who leads x is asked first, and who leads y last.
    fn move_leaders(&self, to: [usize; 2]) {
        for (partition, to) in [0, PARTITIONS - 1].into_iter().zip(to) {
            let id = status(&self.nodes[to])["node"].as_str().unwrap().to_owned();
            let moved = self.nodes[0].run(&["cluster", "move-leader", DB, &partition.to_string(), &id]);
            assert_eq!(code(&moved), 0, "{}", stderr(&moved));
        }
    }

    fn back_up(&self, backups: &Path, flags: &[&str]) -> Output {
        let backups = backups.display().to_string();
        let also: Vec<String> = self.nodes[1..].iter().map(|node| node.admin.to_string()).collect();
        let mut words = vec!["cluster", "backup", &backups, "--json"];
        also.iter().for_each(|also| words.extend(["--also", also]));
        words.extend(flags);
        self.nodes[0].run(&words)
    }
}

/// Counts until it is told to end: how often it was acknowledged, and what else it was told.
fn count(node: &Node, ends: &AtomicBool) -> (u64, Vec<String>) {
    let mut stream = TcpStream::connect(node.redis).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |command: String| {
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        answers.next().unwrap().unwrap()
    };
    assert_eq!(ask(format!("SELECT {DB}")), "+OK");
    let (mut done, mut others, mut at) = (0, Vec::new(), 0);
    while !ends.load(Ordering::Relaxed) {
        let answer = ask(format!("INCR {}", KEYS[at]));
        if answer.starts_with(':') {
            (done, at) = (done + 1, 1 - at);
        } else {
            // It may have been done: y only follows an x that was acknowledged.
            others.push(answer);
            at = 0;
        }
    }
    (done, others)
}

/// Ends the counting, also when the test fails: else its thread would be waited for for ever.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What x and y are in a backup.
fn restored(backups: &Path, number: u64, dir: &Path) -> (u64, u64) {
    std::fs::create_dir_all(dir).unwrap();
    let target = dir.join(format!("restored{number}"));
    let (from, to, number) =
        (backups.display().to_string(), target.display().to_string(), number.to_string());
    let done = run(&["cluster", "restore", &from, "--data-dir", &to, "--number", &number]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let node = Node::start(&target, &[]);
    let told = node.redis_all(&format!("SELECT {DB}\r\nMGET {} {}\r\n", KEYS[0], KEYS[1]));
    node.stop();
    let numbers: Vec<u64> = told.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers.len(), 2, "{told}");
    (numbers[0], numbers[1])
}

#[test]
fn what_was_sent_after_something_was_acknowledged_is_in_no_backup_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let (together, loose) = (dir.path().join("together"), dir.path().join("loose"));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ending = Ending(&ends);
        let writer = scope.spawn(|| count(&cluster.nodes[0], &ends));
        cluster.nodes[0].until("both keys are there", |node| {
            let asked = format!("SELECT {DB}\r\nEXISTS {} {}\r\n", KEYS[0], KEYS[1]);
            node.redis_all(&asked).contains(":2")
        });
        let mut made = Vec::new();
        for round in 0..8 {
            cluster.move_leaders([[0, 2], [1, 0], [2, 1]][round % 3]);
            let output = cluster.back_up(&together, &[]);
            // A leader that moves just then may be waited for in vain.
            if code(&output) == 0 {
                let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
                made.push(told["number"].as_u64().unwrap());
            } else {
                assert!(stderr(&output).contains("could not be held at one moment"), "{}", stderr(&output));
            }
        }
        assert!(made.len() > 3, "{made:?}");
        cluster.move_leaders([0, 2]);
        let shown = (1..=LOOSE_MAX).find(|&number| {
            let output = cluster.back_up(&loose, &["--loose"]);
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            let (x, y) = restored(&loose, number, &dir.path().join("of-loose"));
            y > x
        });
        drop(ending);
        let (done, others) = writer.join().unwrap();
        assert!(
            done > 100 && others.is_empty(),
            "{done} additions, and writers are told of nothing: {others:?}"
        );
        for number in made {
            let (x, y) = restored(&together, number, &dir.path().join("of-together"));
            assert!(y <= x && x > 0, "backup {number} has {x} and {y}");
        }
        assert!(
            shown.is_some(),
            "each at its own moment they must not belong together, or the test is blind"
        );
    });
    cluster.nodes.into_iter().for_each(Node::stop);
}
