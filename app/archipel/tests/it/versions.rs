//! Members one version apart: a cluster whose members are exchanged one by one under writes, and what is refused after.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::absent::{fill, has, restored};
use crate::cluster::{is_whole, start, status, token};
use crate::process::{Node, code, stderr, stdout};

/// The version before the newest.
const OLDER: u64 = NEWEST - 1;
const NEWEST: u64 = 4;
/// A node that behaves as the version before.
const PINNED: &str = "cluster.version=3";

/// A node's directory, and the port of its links: all nodes are exchanged, so each stays where the others look for it.
struct Home {
    dir: PathBuf,
    port: String,
}

impl Home {
    fn new(dir: PathBuf) -> Home {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Home { dir, port: format!("cluster.port={}", free.local_addr().unwrap().port()) }
    }

    fn start(&self, how: &[&str], pinned: bool) -> Node {
        let mut last = vec!["--set", &self.port];
        if pinned {
            last.extend(["--set", PINNED]);
        }
        Node::start_last(&self.dir, how, &last)
    }
}

/// Ends the writers, also when something fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn speaks(of: &Node) -> (u64, Vec<Option<u64>>) {
    let status = status(of);
    let members = status["members"].as_array().unwrap().iter().map(|one| one["speaks"].as_u64());
    (status["speaks"].as_u64().unwrap(), members.collect())
}

/// Writes through `node` until `done`; how many were acknowledged. Any other answer fails.
fn write(node: &Node, name: &str, done: &AtomicBool) -> u64 {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        assert_eq!(node.redis(&format!("SET {name}:{count} {count}\r\n")), "+OK", "{name}:{count}");
        count += 1;
    }
    count
}

/// Exchanges the node in `dir` while clients of `others` write: each gets only `+OK`.
fn exchange(node: Node, home: &Home, others: [&Node; 2], written: &mut Vec<(String, u64)>) -> Node {
    let done = AtomicBool::new(false);
    let round = written.len();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..)
            .zip(others)
            .map(|(at, other)| {
                let name = format!("w{round}-{at}");
                let done = &done;
                scope.spawn(move || (name.clone(), write(other, &name, done)))
            })
            .collect();
        let ends = Ends(&done);
        node.stop();
        let node = home.start(&[], false);
        node.until("it is a member again", |node| is_whole(node, 3));
        others.iter().for_each(|other| other.until("all see it", |node| is_whole(node, 3)));
        drop(ends);
        written.extend(writers.into_iter().map(|writer| writer.join().unwrap()));
        node
    })
}

/// Everything that was acknowledged, and each writer had something.
fn all_are_there(node: &Node, written: &[(String, u64)]) {
    assert!(written.iter().all(|(_, count)| *count > 0), "{written:?}");
    for (name, count) in written {
        let all: Vec<u64> = (0..*count).collect();
        for some in all.chunks(500) {
            let asked: String = some.iter().map(|at| format!("STRLEN {name}:{at}\r\n")).collect();
            let told: String = some.iter().map(|at| format!(":{}\r\n", at.to_string().len())).collect();
            assert_eq!(node.redis_all(&asked), told + "+OK\r\n", "{name}");
        }
    }
}

#[test]
fn members_are_exchanged_one_by_one_without_an_error_and_the_cluster_rises_with_the_last() {
    let home = tempfile::tempdir().unwrap();
    let homes: Vec<_> = (1..=4).map(|number| Home::new(home.path().join(number.to_string()))).collect();
    let mut one = homes[0].start(&["--cluster", "--zone", "a"], true);
    let joined = |at: usize, zone: &str| homes[at].start(&["--join", &token(&one), "--zone", zone], true);
    let (mut two, mut three) = (joined(1, "b"), joined(2, "c"));
    one.until("three members have all copies", |node| is_whole(node, 3));
    one.until("all say that they are older", |node| speaks(node) == (OLDER, vec![Some(OLDER); 3]));
    let mut written = Vec::new();
    one = exchange(one, &homes[0], [&two, &three], &mut written);
    two = exchange(two, &homes[1], [&one, &three], &mut written);
    let mixed = |node: &Node| {
        let (cluster, mut members) = speaks(node);
        members.sort();
        (cluster, members) == (OLDER, vec![Some(OLDER), Some(NEWEST), Some(NEWEST)])
    };
    for node in [&one, &two, &three] {
        node.until("it knows who is exchanged", mixed);
    }
    // What is new is refused, and it is said because of whom.
    let file = home.path().join("shop.toml");
    std::fs::write(&file, "[[proxy.service]]\nname = \"shop\"\nendpoints = \"127.0.0.1:1\"\n").unwrap();
    let apply = ["mesh", "apply", file.to_str().unwrap()];
    let refused = two.run(&apply);
    let last = status(&three)["node"].as_str().unwrap().to_owned();
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains(&format!("{last} speaks version 3")), "{}", stderr(&refused));
    three = exchange(three, &homes[2], [&one, &two], &mut written);
    for node in [&one, &two, &three] {
        node.until("the cluster rises", |node| speaks(node) == (NEWEST, vec![Some(NEWEST); 3]));
    }
    let applied = two.run(&apply);
    assert_eq!(code(&applied), 0, "{}", stderr(&applied));
    let alter = ["cluster", "keyspace", "alter", "3", "--reads", "any", "--stale-ms-max", "2000"];
    let altered = two.run(&alter);
    assert_eq!(code(&altered), 0, "{}", stderr(&altered));
    three.until("all know it", |node| status(node)["keyspaces"][3]["reads"] == "any");
    // Every copy answers, and says how old it may be once it was read.
    let ages = |node: &Node| {
        let space = &status(node)["keyspaces"][3];
        (space["copies_here"].as_u64().unwrap(), space["copies_of_known_age"].as_u64().unwrap())
    };
    for node in [&one, &two, &three] {
        node.until("its age is known", |node| {
            assert_eq!(node.redis_all("SELECT 3\r\nGET nothing\r\n"), "+OK\r\n$-1\r\n+OK\r\n");
            matches!(ages(node), (0, 0) | (1, 1))
        });
    }
    let trail: Value = serde_json::from_str(&one.http("GET", "/cluster/audit").1).unwrap();
    let raises = trail["operations"].as_array().unwrap().iter();
    assert_eq!(
        raises.filter(|line| line["what"] == format!("raise the cluster to version {NEWEST}")).count(),
        1
    );
    all_are_there(&three, &written);
    // There is no way back, for a member or for who would become one.
    let invited = token(&one);
    let refused = start(homes[3].dir.to_str().unwrap(), &["--join", &invited, "--set", PINNED]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("the cluster is at version 4"), "{}", stderr(&refused));
    two.stop();
    let refused = start(homes[1].dir.to_str().unwrap(), &["--set", PINNED]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("the cluster is at version 4"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("cluster.version"), "{}", stderr(&refused));
    two = homes[1].start(&[], false);
    two.until("it is a member again", |node| is_whole(node, 3));
    for node in [one, two, three] {
        node.stop();
    }
}

#[test]
fn members_of_two_versions_are_backed_up_together_whoever_is_asked_first() {
    let home = tempfile::tempdir().unwrap();
    let homes: Vec<_> = (1..=3).map(|number| Home::new(home.path().join(number.to_string()))).collect();
    let old = homes[0].start(&["--cluster", "--zone", "a"], true);
    let joined = |at: usize, zone: &str| homes[at].start(&["--join", &token(&old), "--zone", zone], false);
    let (two, three) = (joined(1, "b"), joined(2, "c"));
    let made = two.run(&["cluster", "keyspace", "create", "20", "--partitions", "8"]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let (cluster, versions) = (OLDER, vec![Some(OLDER), Some(NEWEST), Some(NEWEST)]);
    let is_whole = |node: &Node| {
        let status = status(node);
        let led = |keyspace: &Value| keyspace["led"] == keyspace["partitions"];
        status["members"].as_array().unwrap().iter().all(|member| member["copies"] == 24)
            && status["moves"].as_array().unwrap().is_empty()
            && status["keyspaces"].as_array().unwrap().iter().all(led)
    };
    for node in [&old, &two, &three] {
        node.until("it is whole, and knows who is older", |node| {
            let (speaks, mut members) = speaks(node);
            members.sort();
            is_whole(node) && (speaks, &members) == (cluster, &versions)
        });
    }
    for (number, all) in [(1, [&two, &old, &three]), (2, [&old, &two, &three])] {
        fill(all[0], number);
        let backups = home.path().join(format!("backups{number}"));
        let (place, also) = (backups.display().to_string(), [all[1], all[2]].map(|it| it.admin.to_string()));
        let words = ["cluster", "backup", &place, "--json", "--also", &also[0], "--also", &also[1]];
        let output = all[0].run(&words);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(told["absent"] == Value::Array(Vec::new()) && told["from_followers"] == 0, "{told}");
        let divided = |mark: &Value| mark["keyspace"] == 20;
        assert!(told["marks"].as_array().unwrap().iter().any(divided), "{told}");
        let node = restored(&backups, &home.path().join(format!("restored{number}")));
        assert!(has(&node, number));
        node.stop();
    }
    for node in [old, two, three] {
        node.stop();
    }
}
