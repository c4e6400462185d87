//! What is changed about a cluster while it runs: keyspaces, users, and the trail of that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::process::{Node, PATIENCE, code, stderr, stdout};

fn asked(node: &Node, args: &[&str]) -> String {
    let output = node.run(args);
    assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
    stdout(&output)
}

fn refused(node: &Node, args: &[&str], text: &str) {
    let output = node.run(args);
    assert_ne!(code(&output), 0, "{args:?}");
    assert!(stderr(&output).contains(text), "{args:?}: {}", stderr(&output));
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.http("GET", "/cluster").1).unwrap()
}

fn keyspace(node: &Node, id: u64) -> Value {
    let status = status(node);
    let found = status["keyspaces"].as_array().unwrap().iter().find(|one| one["id"] == id);
    found.cloned().unwrap_or_default()
}

/// Runs a verb that reads a password.
fn with_password(node: &Node, args: &[&str], password: &str) -> Output {
    let mut command = node.command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn keyspaces_are_made_and_changed_while_the_cluster_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("1");
    let node = Node::start_as(&data, &["--cluster"], &[]);
    asked(&node, &["cluster", "keyspace", "create", "20", "--name", "orders", "--partitions", "4"]);
    node.until("its partitions are led", |node| keyspace(node, 20)["led"] == 4);
    assert_eq!(node.redis_all("SELECT 20\r\nSET a 1\r\n"), "+OK\r\n+OK\r\n+OK\r\n");
    asked(&node, &["cluster", "keyspace", "alter", "20", "--durability", "everysec", "--copies", "5"]);
    let altered = keyspace(&node, 20);
    assert_eq!((&altered["durability"], &altered["copies"]), (&"everysec".into(), &5.into()));
    assert_eq!(node.redis_all("SELECT 20\r\nSET b 2\r\n"), "+OK\r\n+OK\r\n+OK\r\n");
    asked(
        &node,
        &["cluster", "keyspace", "alter", "20", "--durability", "always", "--eviction", "allkeys-lru"],
    );
    // What was answered while it promises to be on disk is there after a kill.
    assert_eq!(node.redis_all("SELECT 20\r\nSET c 3\r\n"), "+OK\r\n+OK\r\n+OK\r\n");
    refused(&node, &["cluster", "keyspace", "create", "20"], "exists");
    refused(&node, &["cluster", "keyspace", "alter", "21", "--copies", "2"], "there is no keyspace 21");
    refused(&node, &["cluster", "keyspace", "alter", "20"], "say what is to change");
    refused(&node, &["cluster", "keyspace", "alter", "20", "--copies", "0"], "copies");
    refused(&node, &["cluster", "keyspace", "alter", "20", "--name", "a b"], "is no name");
    node.signal("KILL");
    node.wait();
    let node = Node::start_as(&data, &[], &[]);
    node.until("its partitions are led", |node| keyspace(node, 20)["led"] == 4);
    let altered = keyspace(&node, 20);
    assert_eq!((&altered["durability"], &altered["eviction"]), (&"always".into(), &"allkeys-lru".into()));
    assert_eq!(node.redis_all("SELECT 20\r\nGET c\r\n"), "+OK\r\n$1\r\n3\r\n+OK\r\n");
    // What was refused last is in the log, and told again once the node leads the control group.
    let holds = |node: &Node, text| asked(node, &["cluster", "audit"]).contains(text);
    for text in ["create keyspace 20 orders", "alter keyspace 20", "refused: "] {
        node.until(text, |node| holds(node, text));
    }
    node.stop();
}

/// How many copies of partitions the one member has.
fn copies(node: &Node) -> u64 {
    status(node)["members"][0]["copies"].as_u64().unwrap()
}

#[test]
fn a_keyspace_is_dropped_with_its_data_and_its_number_begins_anew_through_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("1");
    let node = Node::start_as(&data, &["--cluster"], &[]);
    let create = ["cluster", "keyspace", "create", "20", "--name", "orders", "--partitions", "4"];
    asked(&node, &create);
    node.until("its partitions are led", |node| keyspace(node, 20)["led"] == 4);
    let keys: String = (0..40).map(|n| format!("SET k:{n} {n}\r\n")).collect();
    assert_eq!(node.redis_all(&format!("SELECT 20\r\n{keys}")).matches("+OK").count(), 42);
    assert_eq!(copies(&node), 20);
    let mut inside = TcpStream::connect(node.redis).unwrap();
    inside.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut told = |command: &str, starts: &str| {
        inside.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let (mut line, mut byte) = (String::new(), [0]);
        while !line.ends_with("\r\n") {
            inside.read_exact(&mut byte).unwrap();
            line.push(byte[0].into());
        }
        assert!(line.starts_with(starts), "{command}: {line}");
    };
    let mut waits = TcpStream::connect(node.redis).unwrap();
    waits.set_read_timeout(Some(PATIENCE)).unwrap();
    waits.write_all(b"SELECT 20\r\nBLPOP list 0\r\n").unwrap();
    node.until("it waits", |node| node.redis_all("INFO clients\r\n").contains("blocked_clients:1\r\n"));
    told("SELECT 20", "+OK");
    told("DBSIZE", ":40");
    told("MULTI", "+OK");
    told("SET k:1 other", "+QUEUED");

    refused(&node, &["cluster", "keyspace", "drop", "orders"], "--yes orders");
    refused(&node, &["cluster", "keyspace", "drop", "orders", "--yes", "order"], "nothing is dropped");
    refused(&node, &["cluster", "keyspace", "drop", "20", "--yes", "20"], "no keyspace called");
    refused(&node, &["cluster", "keyspace", "drop", "db0", "--yes", "db0"], "keyspace 0 stays");
    assert_eq!(keyspace(&node, 20)["led"], 4);
    asked(&node, &["cluster", "keyspace", "drop", "orders", "--yes", "orders"]);
    node.until("its copies are gone", |node| copies(node) == 16 && keyspace(node, 20).is_null());
    node.until("nobody enters it", |node| node.redis("SELECT 20\r\n").starts_with("-ERR DB index"));
    let mut unblocked = [0; 16];
    waits.read_exact(&mut unblocked).unwrap();
    assert_eq!(&unblocked, b"+OK\r\n-UNBLOCKED ");
    told("EXEC", "-ERR this keyspace was dropped");
    told("GET k:1", "-ERR this keyspace was dropped");
    told("DBSIZE", "-ERR this keyspace was dropped");
    told("SELECT 0", "+OK");
    told("SET still 1", "+OK");
    assert!(asked(&node, &["cluster", "audit"]).contains("drop keyspace 20 orders"));

    // Killed as soon as it is there again: nothing of the earlier one is in it, before or after.
    for (round, partitions) in [4, 1, 4].into_iter().enumerate() {
        let (name, count) = (format!("again{round}"), partitions.to_string());
        asked(&node, &["cluster", "keyspace", "create", "20", "--name", &name, "--partitions", &count]);
        node.until("its partitions are led", |node| keyspace(node, 20)["led"] == partitions);
        node.until("it is empty", |node| node.redis_all("SELECT 20\r\nDBSIZE\r\n").contains(":0"));
        let set = node.redis_all(&format!("SELECT 20\r\n{keys}"));
        assert_eq!(set.matches("+OK").count(), 42, "{set}");
        asked(&node, &["cluster", "keyspace", "drop", &name, "--yes", &name]);
        node.until("it is gone", |node| keyspace(node, 20).is_null());
    }
    asked(&node, &create);
    node.signal("KILL");
    node.wait();
    let node = Node::start_as(&data, &[], &[]);
    node.until("its partitions are led", |node| keyspace(node, 20)["led"] == 4);
    node.until("it is empty", |node| node.redis_all("SELECT 20\r\nDBSIZE\r\n").contains(":0"));
    assert_eq!(node.redis("GET still\r\n"), "$1");
    node.stop();
}

#[test]
fn users_of_a_cluster_enter_at_its_members_and_are_cut_when_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("1");
    let node = Node::start_as(&data, &["--cluster"], &[]);
    node.until("it serves", |node| node.redis("SET k v\r\n") == "+OK");
    let mut before = TcpStream::connect(node.redis).unwrap();
    before.set_read_timeout(Some(PATIENCE)).unwrap();
    before.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    before.read_exact(&mut pong).unwrap();
    let set = with_password(&node, &["cluster", "user", "set", "ann"], "secret");
    assert_eq!(code(&set), 0, "{}", stderr(&set));
    // Who entered without a password is cut.
    assert_eq!(before.read_to_end(&mut Vec::new()).unwrap(), 0);
    let enter = |node: &Node, password: &str| node.redis(&format!("AUTH ann {password}\r\n"));
    assert!(node.redis("GET k\r\n").starts_with("-NOAUTH"));
    assert!(enter(&node, "wrong").starts_with("-WRONGPASS"));
    assert_eq!(enter(&node, "secret"), "+OK");
    assert_eq!(asked(&node, &["cluster", "user", "list"]), "ann\n");
    // A backup has all data: who may not enter gets none.
    let backups = dir.path().join("backups").display().to_string();
    refused(&node, &["cluster", "backup", &backups], "needs a password");
    let back_up = |password: &str| {
        let mut command = node.command(&["cluster", "backup", &backups]);
        command.env("ARCHIPEL_REDIS__REQUIREPASS", password).output().unwrap()
    };
    assert_ne!(code(&back_up("wrong")), 0);
    let made = back_up("secret");
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    node.stop();
    let node = Node::start_as(&data, &[], &[]);
    node.until("it knows its users", |node| node.redis("GET k\r\n").starts_with("-NOAUTH"));
    assert_eq!(enter(&node, "secret"), "+OK");
    node.until("it can be changed", |node| {
        code(&with_password(node, &["cluster", "user", "set", "ann"], "other")) == 0
    });
    assert!(enter(&node, "secret").starts_with("-WRONGPASS"));
    assert_eq!(enter(&node, "other"), "+OK");
    refused(&node, &["cluster", "user", "remove", "bob"], "bob");
    asked(&node, &["cluster", "user", "remove", "ann"]);
    node.until("it is open again", |node| node.redis("SET k v\r\n") == "+OK");
    let trail: Value = serde_json::from_str(&asked(&node, &["cluster", "audit", "--json"])).unwrap();
    let told = trail.to_string();
    assert!(told.contains("set user ann") && !told.contains("secret"), "{told}");
    node.stop();
}
