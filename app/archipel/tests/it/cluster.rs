//! Clusters of real processes: how nodes become members, what is refused, and what is left when one of them dies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

/// A member of a new cluster, in zone `zone`.
pub fn first(dir: &Path) -> Node {
    Node::start_as(dir, &["--cluster", "--zone", "a"], &[])
}

pub fn joined(dir: &Path, to: &Node, zone: &str) -> Node {
    let token = token(to);
    Node::start_as(dir, &["--join", &token, "--zone", zone], &[])
}

pub fn token(of: &Node) -> String {
    let output = of.run(&["cluster", "token"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

pub fn status(of: &Node) -> Value {
    let (code, body) = of.http("GET", "/cluster");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Whether so many members are active and alive, nothing moves, and every partition is led.
pub fn is_whole(of: &Node, members: usize) -> bool {
    let status = status(of);
    let all: Vec<&Value> = status["members"].as_array().unwrap().iter().collect();
    let led = |keyspace: &Value| keyspace["led"] == keyspace["partitions"];
    let copied = |member: &&Value| member["copies"] == 16;
    all.len() == members
        && all.iter().all(|one| one["standing"] == "active" && one["health"] == "alive")
        && all.iter().all(copied)
        && status["moves"].as_array().unwrap().is_empty()
        && status["waiting"] == 0
        && status["keyspaces"].as_array().unwrap().iter().all(led)
}

/// What the first node says that knows who leads; a write may have been done although nobody says so.
fn somewhere(nodes: &[&Node], request: &str) -> Option<String> {
    let answers = nodes.iter().map(|node| node.redis(request));
    answers.into_iter().find(|answer| !answer.starts_with("-CLUSTERDOWN") && !answer.starts_with("-UNKNOWN"))
}

#[test]
fn a_cluster_of_three_loses_no_acknowledged_write_when_its_leader_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name);
    let one = first(&data("1"));
    assert_eq!(one.redis("SET before 1\r\n"), "+OK");
    let two = joined(&data("2"), &one, "b");
    let three = joined(&data("3"), &one, "c");
    one.until("three members have all copies", |node| is_whole(node, 3));
    let mut acknowledged = Vec::new();
    for number in 0..200 {
        if somewhere(&[&one, &two, &three], &format!("SET key:{number} {number}\r\n")).as_deref()
            == Some("+OK")
        {
            acknowledged.push(number);
        }
    }
    assert!(!acknowledged.is_empty());
    // The first member leads what it has had alone.
    one.signal("KILL");
    one.wait();
    let rest = [&two, &three];
    two.until("others lead", |_| somewhere(&rest, "GET before\r\n").is_some());
    for number in &acknowledged {
        two.until("it can be read", |_| somewhere(&rest, &format!("EXISTS key:{number}\r\n")).is_some());
        let found = somewhere(&rest, &format!("EXISTS key:{number}\r\n"));
        assert_eq!(found.as_deref(), Some(":1"), "key:{number} was acknowledged and is lost");
    }
    two.until("writes are taken", |_| somewhere(&rest, "SET after 1\r\n").as_deref() == Some("+OK"));
    // It comes back with what it has, elsewhere, and catches up.
    let one = Node::start_as(&data("1"), &["--zone", "a"], &[]);
    one.until("it is a member again", |node| is_whole(node, 3));
    let all = [&one, &two, &three];
    one.until("all is there", |_| somewhere(&all, "EXISTS before after\r\n").as_deref() == Some(":2"));
    for node in [one, two, three] {
        node.stop();
    }
}

#[test]
fn a_token_lets_one_node_in_and_every_other_way_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name).display().to_string();
    let member = first(&dir.path().join("1"));
    let used = token(&member);
    let second = Node::start_as(&dir.path().join("2"), &["--join", &used], &[]);
    second.until("it is a member", |node| status(node)["members"].as_array().unwrap().len() == 2);
    let short = stdout(&member.run(&["cluster", "token", "--expires", "1s"]));
    let alone = Node::start(&dir.path().join("alone"), &[]);
    alone.redis("SET k v\r\n");
    let refused = alone.run(&["cluster", "status"]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("in no cluster"), "{}", stderr(&refused));
    alone.stop();
    // A node that came before would simply join.
    let late = SystemTime::now() + Duration::from_secs(2);
    member.until("the token has expired", |_| SystemTime::now() > late);
    let forged = used.replace(&used[60..64], if &used[60..64] == "AAAA" { "BBBB" } else { "AAAA" });
    #[rustfmt::skip] // columns
    let table: [(&str, Vec<&str>, i32, &str); 6] = [
        ("late",  vec!["--join", short.trim()],                2, "the token expired"),
        ("3",     vec!["--join", &used],                       1, "used by another node"),
        ("4",     vec!["--join", &forged],                     2, "checksum"),
        ("5",     vec!["--join", "hello"],                     2, "begins with `archipel1`"),
        ("alone", vec!["--join", &used],                       1, "has data of a node that is in no cluster"),
        ("6",     vec!["--cluster", "--set", "storage.workers=2"], 2, "one worker"),
    ];
    for (name, how, expected, text) in table {
        let output = start(&data(name), &how);
        assert_eq!(code(&output), expected, "{how:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{how:?}: {}", stderr(&output));
    }
    // A member joins nothing, and is refused before anybody is asked.
    let again = token(&member);
    // With it goes the majority of the two.
    second.stop();
    let output = start(&data("2"), &["--join", &again]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("that of a member of cluster"), "{}", stderr(&output));
    member.stop();
}

pub fn start(data: &str, how: &[&str]) -> std::process::Output {
    let ports = ["redis.port=0", "admin.port=0", "cluster.port=0", "cluster.redis_port=0"];
    let ports: Vec<&str> = ports.into_iter().flat_map(|port| ["--set", port]).collect();
    run(&[&["--data-dir", data], &ports[..], &["node", "start"], how].concat())
}

#[test]
fn a_token_lets_a_node_in_although_the_member_that_made_it_was_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    // The token names the port of the links, so it has to stay.
    let stays = format!("cluster.port={port}");
    let again = |how: &[&str]| Node::start_last(&dir.path().join("1"), how, &["--set", &stays]);
    let member = again(&["--cluster"]);
    let (kept, used) = (token(&member), token(&member));
    let second = Node::start_as(&dir.path().join("2"), &["--join", &used], &[]);
    second.until("it is a member", |node| status(node)["members"].as_array().unwrap().len() == 2);
    member.signal("KILL");
    member.wait();
    let member = again(&[]);
    let third = Node::start_as(&dir.path().join("3"), &["--join", &kept], &[]);
    third.until("it is a member", |node| status(node)["members"].as_array().unwrap().len() == 3);
    // One that was used lets in nobody else, whoever remembers that.
    let output = start(&dir.path().join("4").display().to_string(), &["--join", &used]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("used by another node"), "{}", stderr(&output));
    for node in [third, second, member] {
        node.stop();
    }
}

#[test]
fn changes_are_asked_for_properly_and_strangers_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let member = first(&dir.path().join("1"));
    let metric = |name: &str| member.metric(name).unwrap();
    // What a page of a browser could send.
    let (code_, text) = member.http("POST", "/cluster/leave");
    assert_eq!(code_, 403, "{text}");
    for (path, expected) in [
        ("/cluster/token?seconds=0", 400),
        ("/cluster/token?seconds=x", 400),
        ("/cluster/remove", 400),
        ("/cluster/remove?node=12D3KooW", 400),
        ("/cluster/move-leader?keyspace=0", 400),
        ("/cluster/nothing", 404),
    ] {
        let (code, text) = member.ask("POST", path, "X-Archipel: 1\r\n");
        assert_eq!(code, expected, "{path}: {text}");
    }
    let wrong = member.run(&["cluster", "move-leader", "0", "9", "nobody"]);
    assert_eq!(code(&wrong), 2);
    assert!(stderr(&wrong).contains("no member's id begins"), "{}", stderr(&wrong));
    let own = status(&member)["node"].as_str().unwrap().to_owned();
    let absent = member.run(&["cluster", "move-leader", "0", "9", &own]);
    assert_eq!(code(&absent), 1);
    assert!(stderr(&absent).contains("has no partition 9"), "{}", stderr(&absent));
    // Garbage on the port of the links.
    let address: SocketAddr =
        status(&member)["members"][0]["addresses"][0].as_str().unwrap().parse().unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"*1\r\n$4\r\nPING\r\n"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be cut before all is sent.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 100, "an alert and no more");
    }
    member.until("they are counted", |_| metric("archipel_link_ended_total{cause=\"garbage\"}") >= 3.0);
    assert_eq!(metric("archipel_links"), 0.0);
    member.until("all partitions are led", |_| metric("archipel_cluster_partitions_led") == 16.0);
    assert_eq!(member.redis("SET k v\r\n"), "+OK");
    member.stop();
}
