//! Backups of real nodes, made while they serve, and what is restored from them.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use server::kernel::{GroupId, KeyspaceId};

use crate::cluster::{first, joined, status};
use crate::process::{Node, code, run, stderr, stdout};

fn restore(backups: &Path, target: &Path, flags: &[&str]) -> Output {
    let (backups, target) = (backups.display().to_string(), target.display().to_string());
    run(&[&["cluster", "restore", &backups, "--data-dir", &target], flags].concat())
}

fn back_up(node: &Node, backups: &Path) -> Value {
    let output = node.run(&["cluster", "backup", &backups.display().to_string(), "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Values of every type, and one with an expiry; in database 1, which has 8 partitions, many keys.
fn fill(node: &Node) {
    let many: String = (0..500).map(|n| format!("SET many:{n} {n}\r\n")).collect();
    let big = "x".repeat(200_000);
    let said = node.redis_all(&format!(
        "SET text hello\r\nSET soon gone PX 100000000\r\n*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$200000\r\n{big}\r\nRPUSH list a b c\r\nSADD set a b\r\n\
         HSET hash f 1 g 2\r\nZADD zset 1.5 a 2 b\r\nSELECT 1\r\n{many}SELECT 3\r\nSET third 3\r\n"
    ));
    assert!(!said.contains("-ERR"), "{said}");
}

/// What [`fill`] has written, as a node tells it.
fn told(node: &Node) -> String {
    let most = node.redis_all(
        "GET text\r\nSTRLEN big\r\nLRANGE list 0 -1\r\nSCARD set\r\nHGETALL hash\r\nZRANGE zset 0 -1 WITHSCORES\r\n\
         TYPE set\r\nDBSIZE\r\nSELECT 1\r\nDBSIZE\r\nMGET many:0 many:250 many:499\r\nSELECT 3\r\nGET third\r\n",
    );
    let left: u64 = node.redis("PTTL soon\r\n").trim_start_matches(':').parse().unwrap();
    assert!((1..=100_000_000).contains(&left), "{left}");
    most
}

fn config(dir: &Path) -> String {
    let path = dir.join("archipel.toml");
    std::fs::write(&path, "[[keyspace]]\nid = 1\npartitions = 8\n").unwrap();
    path.display().to_string()
}

/// Damage is found and named, and nothing comes of it.
fn what_is_damaged_is_named(dir: &Path, backups: &Path, config: &str) {
    let data = backups.join("data-000001");
    let mut bytes = std::fs::read(&data).unwrap();
    std::fs::remove_file(&data).unwrap();
    let node = Node::start(&dir.join("node"), &["--config", config]);
    let gone = node.run(&["cluster", "backup", &backups.display().to_string()]);
    assert_eq!(code(&gone), 1, "it would take over what is not there");
    assert!(stderr(&gone).contains("data-000001"), "{}", stderr(&gone));
    node.stop();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    for flags in [vec!["--verify"], vec![]] {
        let target = dir.join("damaged");
        let refused = restore(backups, &target, &flags);
        assert_eq!(code(&refused), 1);
        let said = stderr(&refused);
        assert!(said.contains("data-000001 is damaged at byte"), "{said}");
        assert!(!target.exists());
    }
}

#[test]
fn a_node_is_backed_up_while_it_serves_and_each_backup_restores_to_its_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (backups, config) = (dir.path().join("backups"), config(dir.path()));
    let flags = ["--config", &config, "--set", "redis.requirepass=secret"];
    let node = Node::start(&dir.path().join("node"), &["--config", &config]);
    fill(&node);
    let before = told(&node);
    let first = back_up(&node, &backups);
    // The frames of partitions that nothing was written to are the same.
    assert!(first["number"] == 1 && first["reused_bytes"].as_u64() < Some(10_000), "{first}");
    assert_eq!(first["partitions"].as_array().unwrap().len(), 10, "two databases of one and one of eight");
    node.redis("SET text changed\r\n");
    let second = back_up(&node, &backups);
    let (written, reused) = (&second["written_bytes"], &second["reused_bytes"]);
    assert!(
        written.as_u64() < first["written_bytes"].as_u64() && reused.as_u64() > Some(200_000),
        "{second}"
    );
    let third = back_up(&node, &backups);
    assert_eq!(third["written_bytes"], 0, "nothing has changed");
    let after = told(&node);
    assert_ne!(before, after);
    node.stop();

    let sound = restore(&backups, Path::new("unused"), &["--verify", "--json"]);
    assert_eq!(code(&sound), 0, "{}", stderr(&sound));
    assert_eq!(stdout(&restore(&backups, Path::new("unused"), &["--list"])).lines().count(), 3);
    for line in stdout(&restore(&backups, Path::new("unused"), &["--list", "--json"])).lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["schema"], 1, "{line}");
    }
    let nothing = restore(&dir.path().join("nothing"), Path::new("unused"), &["--list"]);
    assert!(code(&nothing) == 1 && stderr(&nothing).contains("has no backup"), "{}", stderr(&nothing));
    let first_moment = moments(&backups, [&first, &second]);
    for (number, expected) in [("1", &before), ("2", &after), ("3", &after)] {
        let target = dir.path().join(format!("restored{number}"));
        let flags = if number == "1" { ["--to", &first_moment] } else { ["--number", number] };
        let done = restore(&backups, &target, &flags);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        let again = restore(&backups, &target, &[]);
        assert_eq!(code(&again), 1);
        assert!(stderr(&again).contains("not empty"), "{}", stderr(&again));
        let node = Node::start(&target, &["--config", &config]);
        assert_eq!(told(&node), *expected, "backup {number}");
        node.redis("SET text on\r\n");
        node.signal("KILL");
        node.wait();
        let node = Node::start(&target, &["--config", &config]);
        assert_eq!(node.redis_all("GET text\r\n").lines().nth(1), Some("on"));
        node.stop();
    }

    // Whoever may not read the data gets no backup of it.
    let guarded = Node::start(&dir.path().join("restored1"), &flags);
    let port = format!("admin.port={}", guarded.admin.port());
    let stranger = run(&["cluster", "backup", &backups.display().to_string(), "--set", &port]);
    assert_eq!(code(&stranger), 1);
    assert!(stderr(&stranger).contains("needs a password"), "{}", stderr(&stranger));
    let other = guarded.run(&["cluster", "backup", &backups.display().to_string()]);
    assert_eq!(code(&other), 1);
    assert!(stderr(&other).contains("has backups of another node"), "{}", stderr(&other));
    back_up(&guarded, &dir.path().join("others"));
    let (refused, _) = guarded.http("POST", "/backup/begin");
    assert_eq!(refused, 403, "it is no request of ours");
    let lines = "X-Archipel: 1\r\nX-Archipel-Password: secret\r\n";
    let strange = GroupId::new(KeyspaceId(900), 0);
    let (gone, text) = guarded.ask("POST", &format!("/backup/cut?group={}&after=1", strange.0), lines);
    assert!(gone == 410 && text.contains("no copy of group"), "{gone} {text}");
    guarded.stop();

    what_is_damaged_is_named(dir.path(), &backups, &config);
}

/// The last moment of the first of these backups.
fn moments(backups: &Path, [first, second]: [&Value; 2]) -> String {
    let moment = |backup: &Value, name: &str| backup[name].as_u64().unwrap();
    assert!(moment(first, "at_ms") <= moment(first, "until_ms"));
    assert!(moment(first, "until_ms") <= moment(second, "at_ms"));
    let marks = first["marks"].as_array().unwrap();
    assert_eq!(marks.len(), 3, "each keyspace that has anything was held at one moment: {first}");
    let seconds = |millis: u64| format!("{}.{:03}", millis / 1000, millis % 1000);
    let none = restore(backups, Path::new("none"), &["--to", "1000"]);
    assert!(code(&none) == 1 && stderr(&none).contains("complete by then"), "{}", stderr(&none));
    assert_eq!(code(&restore(backups, Path::new("none"), &["--to", "noon"])), 2);
    assert_eq!(code(&restore(backups, Path::new("none"), &["--consistent"])), 2);
    let before_second = seconds(moment(second, "until_ms") - 1);
    let flags = ["--verify", "--to", &before_second, "--consistent"];
    let to = restore(backups, Path::new("unused"), &[&flags[..], &["--json"]].concat());
    let to: Value = serde_json::from_str(&stdout(&to)).unwrap();
    let gap = moment(second, "until_ms") - 1 - moment(first, "until_ms");
    assert_eq!((to["number"].as_u64(), to["before_ms"].as_u64()), (Some(1), Some(gap)));
    let said = stdout(&restore(backups, Path::new("unused"), &flags));
    assert!(said.contains("before the moment that was asked for"), "{said}");
    seconds(moment(first, "until_ms"))
}

/// Whether so many members are active and alive and have so many copies each.
fn is_whole(of: &Node, members: usize, copies: u64) -> bool {
    let status = status(of);
    let list = |name: &str| status[name].as_array().unwrap().clone();
    let well =
        |one: &Value| one["standing"] == "active" && one["health"] == "alive" && one["copies"] == copies;
    list("members").len() == members
        && list("members").iter().all(well)
        && list("moves").is_empty()
        && status["waiting"] == 0
        && list("keyspaces").iter().all(|keyspace| keyspace["led"] == keyspace["partitions"])
}

#[test]
fn a_cluster_is_backed_up_under_load_and_restores_to_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (backups, data) = (dir.path().join("backups"), |name: &str| dir.path().join(name));
    let one = first(&data("1"));
    let two = joined(&data("2"), &one, "b");
    let three = joined(&data("3"), &one, "c");
    one.until("three members have all copies", |node| is_whole(node, 3, 16));
    let set = |n: u32| one.until("it is taken", |node| node.redis(&format!("SET k:{n} {n}\r\n")) == "+OK");
    (0..50).for_each(set);
    let also: Vec<String> = [&two, &three].map(|node| node.admin.to_string()).to_vec();
    let words = [
        "cluster",
        "backup",
        &backups.display().to_string(),
        "--also",
        &also[0],
        "--also",
        &also[1],
        "--json",
    ];
    let mut command = one.command(&words);
    let running = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let running = running.spawn().unwrap();
    (50..100).for_each(set);
    let output = running.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&told["from_followers"], told["partitions"].as_array().unwrap().len()), (&0.into(), 16));
    for node in [one, two, three] {
        node.stop();
    }
    let done = restore(&backups, &data("new"), &[]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let one = Node::start_as(&data("new"), &["--cluster", "--zone", "a"], &[]);
    let all: Vec<String> = (0..100).map(|n| format!("k:{n}")).collect();
    let count = |node: &Node, keys: &[String]| node.redis(&format!("EXISTS {}\r\n", keys.join(" ")));
    one.until("what was acknowledged before it is there", |node| count(node, &all[..50]) == ":50");
    // Of what was written meanwhile it has the beginning: one partition is one moment.
    let has = |n: usize| count(&one, &all[n..=n]) == ":1";
    let some = (50..100).take_while(|&n| has(n)).count();
    assert!((50 + some..100).all(|n| !has(n)), "a key is there without those before it");
    let two = joined(&data("new2"), &one, "b");
    one.until("both have all copies", |node| is_whole(node, 2, 16));
    two.until("it is there", |node| count(node, &all[..50]) == ":50");
    two.stop();
    one.stop();
}

#[test]
fn a_node_of_its_own_becomes_the_first_member_of_a_cluster_with_all_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (config(dir.path()), |name: &str| dir.path().join(name));
    let node = Node::start(&data("1"), &["--config", &config]);
    fill(&node);
    node.redis_all("SADD drawn a b c d e f g h\r\nSPOP drawn 3\r\n");
    let (before, drawn) = (told(&node), node.redis_all("SMEMBERS drawn\r\n"));
    // What is only in its log must come too.
    node.signal("KILL");
    node.wait();
    let other = dir.path().join("other.toml");
    std::fs::write(&other, "[[keyspace]]\nid = 1\npartitions = 4\n").unwrap();
    let refused = run(&[
        "node",
        "start",
        "--cluster",
        "--config",
        &other.display().to_string(),
        "--data-dir",
        &data("1").display().to_string(),
        "--set",
        "redis.port=0",
        "--set",
        "admin.port=0",
        "--set",
        "cluster.port=0",
        "--set",
        "cluster.redis_port=0",
    ]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("partitions"), "another division is refused: {}", stderr(&refused));
    // Who says nothing of it gets it as it is.
    let one = Node::start_as(&data("1"), &["--cluster", "--zone", "a"], &[]);
    one.until("all partitions are led", |node| is_whole(node, 1, 23));
    assert_eq!(told(&one), before);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&one.redis_all("SMEMBERS drawn\r\n")), sorted(&drawn), "what was drawn stays drawn");
    one.signal("KILL");
    one.wait();
    let one = Node::start_as(&data("1"), &["--zone", "a"], &["--config", &config]);
    one.until("all partitions are led", |node| is_whole(node, 1, 23));
    assert_eq!(told(&one), before);
    let token = stdout(&one.run(&["cluster", "token"]));
    let two = Node::start_as(&data("2"), &["--join", token.trim(), "--zone", "b"], &["--config", &config]);
    one.until("both have all copies", |node| is_whole(node, 2, 23));
    assert_eq!(told(&two), before);
    two.stop();
    one.stop();
}

#[test]
fn keyspaces_that_are_not_configured_come_back_alone_and_in_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (backups, data) = (dir.path().join("backups"), |name: &str| dir.path().join(name));
    let one = first(&data("1"));
    one.until("all partitions are led", |node| is_whole(node, 1, 16));
    for more in [&["20", "--name", "orders"][..], &["21", "--partitions", "4"], &["22"]] {
        let made = one.run(&[&["cluster", "keyspace", "create"], more].concat());
        assert_eq!(code(&made), 0, "{}", stderr(&made));
    }
    let many = one.run(&["cluster", "keyspace", "create", "23", "--partitions", "1025"]);
    assert!(code(&many) == 1 && stderr(&many).contains("1 to 1024"), "{}", stderr(&many));
    one.until("all partitions are led", |node| is_whole(node, 1, 22));
    let keys: String = (0..50).map(|n| format!("SET k:{n} {n}\r\n")).collect();
    let set = |node: &Node| node.redis_all(&format!("SELECT 20\r\nSET order 7\r\nSELECT 21\r\n{keys}"));
    one.until("they are taken", |node| set(node).matches("+OK").count() == 54);
    back_up(&one, &backups);
    one.stop();
    let done = restore(&backups, &data("new"), &[]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let asks =
        "SELECT 20\r\nGET order\r\nSELECT 21\r\nDBSIZE\r\nGET k:49\r\nSELECT 22\r\nDBSIZE\r\nSELECT 23\r\n";
    let expected = ["+OK", "$1", "7", "+OK", ":50", "$2", "49", "+OK", ":0"];
    let alone = Node::start(&data("new"), &[]);
    let told = alone.redis_all(asks);
    assert!(
        told.lines().take(9).eq(expected) && told.lines().nth(9).is_some_and(|it| it.starts_with("-ERR")),
        "{told}"
    );
    alone.redis_all("SELECT 22\r\nSET late 1\r\n");
    alone.signal("KILL");
    alone.wait();
    let alone = Node::start(&data("new"), &[]);
    assert_eq!(alone.redis_all("SELECT 22\r\nGET late\r\nDEL late\r\n").lines().nth(2), Some("1"));
    assert_eq!(alone.redis_all(asks), told);
    alone.stop();
    let one = Node::start_as(&data("new"), &["--cluster", "--zone", "a"], &[]);
    one.until("all partitions are led", |node| is_whole(node, 1, 22));
    assert_eq!(one.redis_all(asks), told);
    one.stop();
}

#[test]
fn backups_go_on_by_themselves_through_a_round_that_fails_until_they_are_ended() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups");
    let node = Node::start(&dir.path().join("node"), &[]);
    node.redis("SET n 0\r\n");
    let words =
        ["cluster", "backup", &backups.display().to_string(), "--every", "1s", "--keep", "2", "--json"];
    let mut command = node.command(&words);
    let mut running =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    for number in 1..=3 {
        assert_eq!(next()["number"], number);
        node.redis(&format!("SET n {number}\r\n"));
    }
    node.stop();
    let failed = std::iter::from_fn(|| Some(next())).find(|line| line["failed"].is_string()).unwrap();
    assert!(failed["in_a_row"] == 1 && failed["again_in"] == 1, "{failed}");
    let ended = run_signal(running.id(), "INT");
    assert!(ended);
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(stdout(&restore(&backups, Path::new("unused"), &["--list"])).lines().count(), 2);
    assert_eq!(code(&restore(&backups, Path::new("unused"), &["--verify"])), 0);
}

/// Sends a signal to a process of this test's.
fn run_signal(process: u32, signal: &str) -> bool {
    let sent =
        std::process::Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    sent.unwrap().success()
}
