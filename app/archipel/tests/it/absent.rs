//! Backups of a cluster of which a member is dead, and of which a node had to give up what it kept.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::consistent::Cluster;
use crate::moments::Rounds;
use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

/// Each of those keys is in a partition of its own, mostly.
const KEYS: usize = 40;

fn told(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// The addresses of those who gave no answer.
fn absent(told: &Value) -> Vec<String> {
    let all = told["absent"].as_array().unwrap().iter();
    all.map(|one| one["address"].as_str().unwrap().to_owned()).collect()
}

/// Sets all keys in database 20, which is divided, and one in database 0.
pub fn fill(node: &Node, value: u32) {
    let keys: String = (0..KEYS).map(|key| format!("SET key:{key} {value}\r\n")).collect();
    node.until("all are taken", |node| {
        let said = node.redis_all(&format!("SET alone {value}\r\nSELECT 20\r\n{keys}"));
        said.matches("+OK").count() == KEYS + 3
    });
}

/// Whether all that [`fill`] sets is this.
pub fn has(node: &Node, value: u32) -> bool {
    let keys: String = (0..KEYS).map(|key| format!("GET key:{key}\r\n")).collect();
    let found = node.redis_all(&format!("GET alone\r\nSELECT 20\r\n{keys}"));
    found.lines().filter(|line| *line == value.to_string()).count() == KEYS + 1
}

/// Kills it: nobody listens at its ports any more then.
fn kill(node: &Node) {
    node.signal("KILL");
    node.until("it is dead", |node| TcpStream::connect(node.admin).is_err());
}

/// A node of the last backup.
pub fn restored(backups: &Path, target: &Path) -> Node {
    let (from, to) = (backups.display().to_string(), target.display().to_string());
    let done = run(&["cluster", "restore", &from, "--data-dir", &to]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    Node::start(target, &[])
}

#[test]
fn a_backup_is_made_of_what_living_members_have_and_names_the_dead_one() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups");
    let place = backups.display().to_string();
    let cluster = Cluster::new(dir.path());
    fill(&cluster.nodes[0], 1);
    let whole = cluster.back_up(&backups, &[]);
    assert_eq!(code(&whole), 0, "{}", stderr(&whole));
    assert!(absent(&told(&stdout(&whole))).is_empty());
    // Its address stays among those that are asked.
    let dead = cluster.nodes[2].admin;
    kill(&cluster.nodes[2]);
    fill(&cluster.nodes[0], 2);
    let without = cluster.back_up(&backups, &[]);
    assert_eq!(code(&without), 0, "{}", stderr(&without));
    let line = told(&stdout(&without));
    assert_eq!(absent(&line), [dead.to_string()], "{line}");
    let marks = line["marks"].as_array().unwrap();
    assert!(marks.iter().any(|mark| mark["keyspace"] == 20), "all its partitions are together: {line}");
    let mut words = vec!["cluster", "backup", &place];
    let also = cluster.also();
    also.iter().for_each(|also| words.extend(["--also", also]));
    let said = stdout(&cluster.nodes[0].run(&words));
    assert!(said.contains(&format!("without the node at {dead}")), "{said}");
    let node = restored(&backups, &dir.path().join("restored"));
    assert!(has(&node, 2));
    node.stop();
    // Nobody is left who leads: then a keyspace has no moment, and it is said whom that is for.
    let second = cluster.nodes[1].admin;
    kill(&cluster.nodes[1]);
    let alone = cluster.back_up(&backups, &[]);
    assert_eq!(code(&alone), 1);
    let said = stderr(&alone);
    assert!([dead, second].iter().all(|it| said.contains(&it.to_string())), "{said}");
    // Each partition as the copy of the last one has it is still to be had.
    let loose = cluster.back_up(&backups, &["--loose"]);
    assert_eq!(code(&loose), 0, "{}", stderr(&loose));
    assert_eq!(absent(&told(&stdout(&loose))).len(), 2);
    kill(&cluster.nodes[0]);
    let none = cluster.back_up(&backups, &[]);
    assert_eq!(code(&none), 1);
    assert!(stderr(&none).contains("no node answers"), "{}", stderr(&none));
}

#[test]
fn backups_go_on_by_themselves_when_a_member_dies() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups");
    let mut cluster = Cluster::new(dir.path());
    fill(&cluster.nodes[0], 1);
    let rounds = Rounds::by(cluster.back_up_command(&backups, &["--every", "1s", "--keep", "3"]));
    assert!(absent(&rounds.next()).is_empty());
    let dead = cluster.nodes[2].admin;
    kill(&cluster.nodes[2]);
    // A round in which it dies may come to nothing: its partitions are led by nobody for a while.
    let until = |what: &str, holds: &dyn Fn(&Value) -> bool| {
        let end = Instant::now() + PATIENCE;
        loop {
            let line = rounds.next();
            if holds(&line) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {line}");
        }
    };
    until("it is named", &|line| absent(line) == [dead.to_string()]);
    until("it is named again", &|line| absent(line) == [dead.to_string()]);
    drop(cluster.nodes.pop());
    rounds.end();
    cluster.nodes.into_iter().for_each(Node::stop);
}

#[test]
fn a_node_that_had_to_give_up_what_it_kept_is_named_with_the_partition_and_since_when() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups").display().to_string();
    let small = ["storage.checkpoint_bytes=1MiB", "storage.archived_log_bytes=2MiB"];
    let node = Node::start(&dir.path().join("node"), &["--set", small[0], "--set", small[1]]);
    let value = "x".repeat(100_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{value}\r\n");
    assert_eq!(node.redis(&set), "+OK");
    let rounds = Rounds::by(node.command(&["cluster", "backup", &backups, "--json", "--every", "1s"]));
    let first = rounds.next();
    assert_eq!(first["given_up"], Value::Array(Vec::new()), "{first}");
    // Between two rounds much more is written than is kept.
    let mut seen = BTreeSet::new();
    let line = loop {
        for _ in 0..90 {
            assert_eq!(node.redis(&set), "+OK");
        }
        let line = rounds.next();
        assert!(seen.insert(line["number"].as_u64().unwrap()) && seen.len() < 60, "{line}");
        if line["given_up"] != Value::Array(Vec::new()) {
            break line;
        }
    };
    let given_up = &line["given_up"][0];
    assert_eq!(given_up["address"], node.admin.to_string());
    assert_eq!(given_up["partitions"], Value::from(vec!["0/0"]));
    assert_eq!(given_up["since"].as_u64(), line["number"].as_u64().map(|number| number - 1));
    assert!(given_up["since_ms"].as_u64() < line["at_ms"].as_u64(), "{line}");
    rounds.end();
    node.stop();
}
