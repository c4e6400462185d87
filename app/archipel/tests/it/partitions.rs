//! A keyspace of several partitions in the real binary: across restarts, workers and the command line.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

/// A configuration file in which keyspace 2 has so many partitions.
fn config(dir: &Path, partitions: u16) -> String {
    let path = dir.join(format!("{partitions}.toml"));
    std::fs::write(&path, format!("[[keyspace]]\nid = 2\npartitions = {partitions}\nmemory = \"64MiB\"\n"))
        .unwrap();
    path.to_str().unwrap().to_owned()
}

/// Everything that is answered to commands in keyspace 2.
fn told(node: &Node, commands: &str) -> String {
    let mut stream = TcpStream::connect(node.redis).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("SELECT 2\r\n{commands}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn keys(count: usize) -> String {
    (0..count).map(|n| format!(" key{n} v{n}")).collect()
}

#[test]
fn keys_are_found_again_whatever_the_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let (data, eight) = (dir.path().join("data"), config(dir.path(), 8));
    let start = |workers: &str| Node::start(&data, &["--config", &eight, "--set", workers]);
    let node = start("storage.workers=1");
    assert_eq!(told(&node, &format!("MSET{}", keys(100))), "+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(node.redis("SET k in-another\r\n"), "+OK");
    node.stop();
    for workers in ["storage.workers=2", "storage.workers=3", "storage.workers=1"] {
        let node = start(workers);
        for n in [0, 17, 99] {
            let output = node.run(&["storage", "get", "--db", "2", &format!("key{n}")]);
            assert_eq!(stdout(&output), format!("v{n}\n"), "{workers} {}", stderr(&output));
        }
        let output = node.run(&["storage", "scan", "--db", "2"]);
        assert_eq!(stdout(&output).lines().count(), 100, "{workers}");
        let label = "{keyspace=\"db2\",id=\"2\"}";
        assert_eq!(node.metric(&format!("archipel_keyspace_keys{label}")), Some(100.0));
        assert_eq!(node.metric(&format!("archipel_keyspace_partitions{label}")), Some(8.0));
        let status = stdout(&node.run(&["node", "status"]));
        let row =
            status.lines().find(|line| line.contains("db2")).map(|line| line.split_whitespace().collect());
        let row: Vec<&str> = row.expect(&status);
        assert_eq!(row[..4], ["2", "db2", "8", "100"], "{status}");
        // The next start finds this in the log and not in the engine.
        node.signal("KILL");
        drop(node);
    }
}

#[test]
fn another_number_of_partitions_than_the_datas_is_refused_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let [one, four, eight] = [1, 4, 8].map(|count| config(dir.path(), count));
    let refused = |file: &str, parts: &[&str]| {
        let free = ["--set", "redis.port=0", "--set", "admin.port=0"];
        let args = [&["--data-dir", data.to_str().unwrap(), "--config", file][..], &free].concat();
        let output = run(&args);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        for part in parts {
            assert!(stderr(&output).contains(part), "{} lacks {part:?}", stderr(&output));
        }
    };
    // Nothing is written yet: any number will do.
    for file in [&eight, &one, &four] {
        Node::start(&data, &["--config", file]).stop();
    }
    let node = Node::start(&data, &["--config", &four]);
    // All but one of the partitions stay empty.
    assert_eq!(told(&node, "SET k v"), "+OK\r\n+OK\r\n+OK\r\n");
    let exported = dir.path().join("all.ndjson");
    let exported = exported.to_str().unwrap();
    assert_eq!(code(&node.run(&["storage", "export", exported])), 0);
    node.stop();
    for (file, configured) in [(&one, "configured with 1"), (&eight, "configured with 8")] {
        refused(file, &["keyspace 2", "partitions = 4", configured, "storage export", "new data directory"]);
    }
    let record = data.join("partitions");
    let kept = std::fs::read(&record).unwrap();
    std::fs::write(&record, b"keyspace 2 partitions 8\ncrc 00000000\n").unwrap();
    refused(&eight, &["partitions", "backup"]);
    std::fs::write(&record, kept).unwrap();
    Node::start(&data, &["--config", &four]).stop();

    // The way that the error names.
    let other = Node::start(&dir.path().join("other"), &["--config", &eight]);
    let import = other.run(&["storage", "import", exported]);
    assert_eq!(code(&import), 0, "{}", stderr(&import));
    assert_eq!(stdout(&other.run(&["storage", "get", "--db", "2", "k"])), "v\n");
    other.stop();
}

#[test]
fn a_script_stays_in_its_partition_in_replay_too() {
    let dir = tempfile::tempdir().unwrap();
    let (data, eight) = (dir.path().join("data"), config(dir.path(), 8));
    let node = Node::start(&data, &["--config", &eight]);
    let script = |call: &str, keys: &str| format!("EVAL \"return redis.call({call})\" {keys}");
    assert!(told(&node, &script("'set', KEYS[1], 'x'", "1 a")).contains("+OK\r\n+OK\r\n+OK\r\n"));
    let refused = told(&node, &script("'set', 'b', 'x'", "1 a"));
    assert!(refused.contains("Script attempted to access a key of another partition"), "{refused}");
    let whole = told(&node, &script("'dbsize'", "0"));
    assert!(whole.contains("concerns all partitions of the database"), "{whole}");
    let cross = told(&node, &script("'get', 'a'", "2 a b"));
    assert!(cross.contains("-CROSSSLOT Keys in request don't hash to the same slot\r\n"), "{cross}");
    node.signal("KILL");
    drop(node);
    let node = Node::start(&data, &["--config", &eight]);
    assert_eq!(stdout(&node.run(&["storage", "scan", "--db", "2"])), "a\n");
    node.stop();
}
