//! The log of real nodes, kept for backups and read by them.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use server::kernel::codec::{Reader, put_varint};

use crate::cluster::{first, is_whole, joined};
use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

/// Database 0: one partition.
const GROUP: u32 = 0;
const SMALL_LOG: [&str; 2] = ["--set", "storage.checkpoint_bytes=1MiB"];

/// An answer of the admin port.
struct Answer {
    code: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        assert_eq!(self.code, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn ask(node: &Node, path: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(node.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Archipel: 1\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head, body: answer[end + 4..].to_vec() }
}

fn positions(all: &[(u32, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, all.len() as u64);
    for (group, after) in all {
        out.extend(group.to_le_bytes());
        put_varint(&mut out, *after);
    }
    out
}

/// Has the log kept behind `after`, and says of which groups something had to go.
fn keep(node: &Node, after: u64) -> Value {
    ask(node, "/backup/keep?name=5&seconds=3600", &positions(&[(GROUP, after)])).json()["broken"].clone()
}

/// Term and index of each entry behind `after`, and how many answers they came in.
fn entries(node: &Node, after: u64) -> (Vec<(u64, u64)>, usize) {
    let (mut cursor, mut bytes, mut answers) = (String::new(), Vec::new(), 0);
    loop {
        let path = format!("/backup/entries?cursor={cursor}");
        let answer = ask(node, &path, &positions(&[(GROUP, after)]));
        assert_eq!(answer.code, 200, "{}", answer.text());
        bytes.extend_from_slice(&answer.body);
        answers += 1;
        let next = answer.head.lines().find_map(|line| line.strip_prefix("x-archipel-next: "));
        match next {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let (mut reader, mut found) = (Reader::new(&bytes), Vec::new());
    while !reader.is_empty() {
        let (kind, group) = (reader.u8().unwrap(), reader.u32().unwrap());
        assert_eq!(group, GROUP);
        // That the group begins says nothing of entries.
        if kind == 1 {
            found.push((reader.varint().unwrap(), reader.varint().unwrap()));
            let _ = (reader.u16().unwrap(), reader.varint().unwrap(), reader.bytes().unwrap());
        } else {
            assert_eq!(kind, 2, "nothing here is uncertain");
        }
    }
    (found, answers)
}

/// The entries from one behind `after` to the last that the node has applied, each once and in order.
fn is_all(node: &Node, after: u64) -> bool {
    let applied = applied(node);
    let indexes: Vec<u64> = entries(node, after).0.into_iter().map(|it| it.1).collect();
    indexes == (after + 1..=applied).collect::<Vec<_>>()
}

fn applied(node: &Node) -> u64 {
    let status: Value = serde_json::from_str(&node.http("GET", "/status").1).unwrap();
    status["keyspaces"][0]["applied"].as_u64().unwrap()
}

/// So many times a value of 100 kB, each in the place of the one before: the log grows and the engine hardly does.
fn write(node: &Node, count: usize) {
    let value = "x".repeat(100_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{value}\r\n");
    for _ in 0..count {
        assert_eq!(node.redis(&set), "+OK");
    }
}

fn reserved(node: &Node) -> f64 {
    node.metric("archipel_log_reserved_bytes").unwrap()
}

#[test]
fn what_was_promised_to_a_backup_is_there_after_checkpoints_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &SMALL_LOG);
    assert_eq!(keep(&node, 0), Value::from(Vec::<u32>::new()));
    write(&node, 90);
    node.until("checkpoints shorten the log, but for the backup", |node| reserved(node) > 5e6);
    assert!(is_all(&node, 0));
    assert!(entries(&node, 0).1 > 2, "9 MB come in parts");
    node.signal("KILL");
    node.wait();
    let node = Node::start(dir.path(), &SMALL_LOG);
    write(&node, 30);
    node.http("POST", "/checkpoint");
    node.until("a checkpoint is made", |node| reserved(node) > 8e6);
    assert!(is_all(&node, 0), "the kill left a gap");
    let last = applied(&node);
    assert!(is_all(&node, last - 5));
    // The control: what was not asked for is not kept.
    assert_eq!(keep(&node, last), Value::from(Vec::<u32>::new()));
    write(&node, 30);
    assert!(is_all(&node, last));
    node.until("what is behind it goes", |node| !is_all(node, 0));
    node.stop();
}

#[test]
fn what_is_kept_for_a_backup_goes_before_the_quota_refuses_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let quota = ["--set", "storage.disk_quota=100MiB"];
    let node = Node::start(dir.path(), &[&SMALL_LOG[..], &quota].concat());
    let nothing = Value::from(Vec::<u32>::new());
    assert_eq!(keep(&node, 0), nothing);
    // Each write is answered; before so many are, the quota is used up and something has to go.
    let lost = (0..60).map(|_| write(&node, 90)).map(|()| keep(&node, 0)).find(|lost| *lost != nothing);
    assert_eq!(lost, Some(Value::from(vec![GROUP])));
    assert_eq!(node.metric("archipel_quota_exceeded"), Some(0.0));
    node.stop();
}

#[test]
fn what_is_no_sound_request_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let sound = positions(&[(GROUP, 0)]);
    let bad_cursor = format!("/backup/entries?cursor={}", "00".repeat(32));
    let long = vec![0; 2 << 20];
    let table: [(&str, &[u8], u16, &str); 8] = [
        ("/backup/keep?name=1", &sound, 400, "`seconds` is missing"),
        ("/backup/keep?name=x&seconds=1", &sound, 400, "`name`"),
        ("/backup/keep?name=1&seconds=1", &[], 400, "no positions"),
        ("/backup/keep?name=1&seconds=1", &[0, 0], 400, "goes on"),
        ("/backup/entries?cursor=", &[200, 1], 400, "no positions"),
        ("/backup/entries?cursor=", &long, 400, "more than"),
        ("/backup/entries?cursor=abc", &sound, 400, "`cursor`"),
        (&bad_cursor, &sound, 400, "`cursor`"),
    ];
    for (path, body, code, said) in table {
        let answer = ask(&node, path, body);
        assert!(answer.code == code && answer.text().contains(said), "{path}: {}", answer.text());
    }
    assert_eq!(node.http("POST", "/backup/entries").0, 403, "it is not for pages of browsers");
    assert_eq!(node.ask("GET", "/backup/keep", "X-Archipel: 1\r\n").0, 405);
    for name in 0..4 {
        ask(&node, &format!("/backup/keep?name={name}&seconds=3600"), &sound).json();
    }
    assert_eq!(ask(&node, "/backup/keep?name=4&seconds=3600", &sound).code, 409, "there are four others");
    node.stop();
}

#[test]
fn who_is_one_too_many_is_promised_nothing_and_makes_backups_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups").display().to_string();
    let node = Node::start(&dir.path().join("node"), &[]);
    for name in 0..4 {
        ask(&node, &format!("/backup/keep?name={name}&seconds=3600"), &positions(&[(GROUP, 0)])).json();
    }
    for number in 1..=2 {
        assert_eq!(node.redis(&format!("SET k {number}\r\n")), "+OK");
        let output = node.run(&["cluster", "backup", &backups, "--json"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        // What is there can be read, though nobody has promised it: the log was not shortened meanwhile.
        assert_eq!((&told["number"], &told["gaps"]), (&number.into(), &Value::Array(Vec::new())), "{told}");
        assert_eq!((&told["absent"], &told["given_up"]), (&told["gaps"], &told["gaps"]), "{told}");
    }
    let verified = run(&["cluster", "restore", &backups, "--verify", "--json"]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));
    let told: Value = serde_json::from_str(&stdout(&verified)).unwrap();
    assert_eq!((&told["replayed"]["met"], &told["replayed"]["alone"]), (&1.into(), &0.into()), "{told}");
    node.stop();
}

#[test]
fn each_member_has_the_same_entries() {
    let dir = tempfile::tempdir().unwrap();
    let one = first(&dir.path().join("1"));
    let two = joined(&dir.path().join("2"), &one, "b");
    one.until("both have all copies", |node| is_whole(node, 2));
    let last = applied(&one);
    for node in [&one, &two] {
        keep(node, last);
    }
    write(&one, 30);
    let told = entries(&one, last).0;
    assert!(told.len() >= 30);
    two.until("the other has them", |node| entries(node, last).0 == told);
    one.stop();
    two.stop();
}
