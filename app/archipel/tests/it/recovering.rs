//! A quorum that is lost for good: one survivor is made a cluster of its own, and the cluster grows again.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::cluster::{first, joined, status};
use crate::process::{Node, code, run, stderr, stdout};

fn recover(dir: &Path, flags: &[&str]) -> Output {
    let data = dir.display().to_string();
    run(&[&["cluster", "recover", "--data-dir", &data], flags].concat())
}

/// Whether so many members are there and have all copies; removed ones are not counted.
fn is_whole(of: &Node, members: usize) -> bool {
    let status = status(of);
    let list = |name: &str| status[name].as_array().unwrap().clone();
    let all: Vec<Value> = list("members").into_iter().filter(|one| one["standing"] != "removed").collect();
    all.len() == members
        && all
            .iter()
            .all(|one| one["standing"] == "active" && one["health"] == "alive" && one["copies"] == 16)
        && list("moves").is_empty()
        && status["waiting"] == 0
        && list("keyspaces").iter().all(|keyspace| keyspace["led"] == keyspace["partitions"])
}

fn set(node: &Node, numbers: std::ops::Range<u32>) {
    for number in numbers {
        node.until("a write is acknowledged", |node| {
            node.redis(&format!("SET k:{number} {number}\r\n")) == "+OK"
        });
    }
}

/// How many of the keys the node has.
fn count(node: &Node, numbers: std::ops::Range<u32>) -> String {
    let keys: Vec<String> = numbers.map(|number| format!("k:{number}")).collect();
    node.redis(&format!("EXISTS {}\r\n", keys.join(" ")))
}

#[test]
fn a_survivor_of_a_lost_majority_serves_all_that_it_had_and_the_cluster_grows_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name);
    let one = first(&data("1"));
    let two = joined(&data("2"), &one, "b");
    let three = joined(&data("3"), &one, "c");
    one.until("three members have all copies", |node| is_whole(node, 3));
    set(&one, 0..50);
    assert!(one.redis("HSET table field value\r\n").starts_with(':'));
    three.signal("KILL");
    three.wait();
    // A majority is the first two now: whatever is acknowledged, the survivor has.
    set(&one, 50..100);
    two.signal("KILL");
    two.wait();
    one.until("nothing is taken without a majority", |node| {
        node.redis("SET lost 1\r\n").starts_with("-CLUSTERDOWN")
            || node.redis("GET k:1\r\n").starts_with("-CLUSTERDOWN")
    });
    let before = status(&one)["cluster"].as_str().unwrap().to_owned();
    let busy = recover(&data("1"), &["--confirm", &before]);
    assert_eq!(code(&busy), 1);
    assert!(stderr(&busy).contains("in use by process"), "{}", stderr(&busy));
    one.signal("KILL");
    one.wait();

    let shown = recover(&data("1"), &["--dry-run", "--json"]);
    assert_eq!(code(&shown), 0, "{}", stderr(&shown));
    let found: Value = serde_json::from_str(&stdout(&shown)).unwrap();
    assert_eq!(found["cluster"], *before);
    assert_eq!(found["others"].as_array().unwrap().len(), 2);
    assert!(found["others"].as_array().unwrap().iter().all(|other| other["answers"] == false));
    let db0 = &found["partitions"][0];
    assert!(db0["copy"]["last"].as_u64().unwrap() > 100, "{db0}");
    assert_eq!(db0["copy"]["may_lack"], "what the others acknowledged without this node");
    for (flags, says) in [(vec![], before.as_str()), (vec!["--confirm", "00ff"], "and not of 00ff")] {
        let refused = recover(&data("1"), &flags);
        assert_eq!(code(&refused), 2, "{flags:?}");
        assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
    }

    let done = recover(&data("1"), &["--confirm", &before]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert!(stdout(&done).contains("alone, with 16 partitions; 0 begin empty"), "{}", stdout(&done));
    let one = Node::start_as(&data("1"), &["--zone", "a"], &[]);
    one.until("all that it had is there", |node| count(node, 0..100) == ":100");
    assert_eq!(one.redis("HLEN table\r\n"), ":1");
    assert_ne!(status(&one)["cluster"], *before);
    set(&one, 100..110);

    // Who comes back is in a cluster that is no more, and nobody listens to it.
    let two = Node::start_as(&data("2"), &["--zone", "b"], &[]);
    assert_eq!(status(&two)["cluster"], *before);
    let four = joined(&data("4"), &one, "b");
    let five = joined(&data("5"), &one, "c");
    one.until("three members have all copies", |node| is_whole(node, 3));
    assert!(two.redis("SET k:0 stale\r\n").starts_with("-CLUSTERDOWN"));
    two.stop();
    let removed = |one: &&Value| one["standing"] == "removed";
    assert_eq!(status(&one)["members"].as_array().unwrap().iter().filter(removed).count(), 2);
    one.signal("KILL");
    one.wait();
    four.until("the new members have everything", |node| count(node, 0..110) == ":110");
    assert_eq!(four.redis("GET k:0\r\n"), "$1");
    four.stop();
    five.stop();
}

#[test]
fn what_is_no_stopped_member_is_not_recovered_and_a_cluster_that_lives_is_not_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name);
    let empty = recover(&data("nothing"), &["--dry-run"]);
    assert_eq!(code(&empty), 1);
    assert!(stderr(&empty).contains("not the data directory of a cluster's member"), "{}", stderr(&empty));
    assert!(!data("nothing").exists(), "nothing is made by looking");
    let alone = Node::start(&data("alone"), &[]);
    alone.redis("SET k v\r\n");
    alone.stop();
    let refused = recover(&data("alone"), &["--dry-run"]);
    assert_eq!(code(&refused), 1);
    assert!(
        stderr(&refused).contains("not the data directory of a cluster's member"),
        "{}",
        stderr(&refused)
    );

    let one = first(&data("1"));
    let two = joined(&data("2"), &one, "b");
    let three = joined(&data("3"), &one, "c");
    one.until("three members have all copies", |node| is_whole(node, 3));
    let cluster = status(&one)["cluster"].as_str().unwrap().to_owned();
    three.stop();
    let refused = recover(&data("3"), &["--confirm", &cluster]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("2 of the 3 members that vote still answer"), "{}", stderr(&refused));
    // Looking and being refused changed nothing: it is a member as before.
    let three = Node::start_as(&data("3"), &["--zone", "c"], &[]);
    one.until("it is back", |node| is_whole(node, 3));
    for node in [three, two, one] {
        node.stop();
    }
}
