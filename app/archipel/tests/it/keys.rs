//! Keys by the command line: one by one, to a file and back, from a live server.

use std::io::Write;
use std::process::Stdio;

use crate::process::{Node, code, stderr, stdout};

/// One key of each type, with bytes that are not text, two expiries, two keyspaces and a large list.
fn fill(node: &Node) {
    let list: String = (0..1500).map(|n| format!(" e{n}")).collect();
    let soon = "4102444800000";
    let requests = [
        "SET plain text\r\n".to_owned(),
        "*3\r\n$3\r\nSET\r\n$3\r\nb\x01n\r\n$4\r\na\r\nb\r\n".to_owned(),
        "SETBIT bits 7 1\r\n".to_owned(),
        "SETBIT bits 0 1\r\n".to_owned(),
        format!("SET later v PXAT {soon}\r\n"),
        format!("RPUSH list{list}\r\n"),
        format!("PEXPIREAT list {soon}\r\n"),
        "SADD set a b 3\r\n".to_owned(),
        "HSET hash f v g w\r\n".to_owned(),
        "ZADD zset 1.5 m -inf low inf high 0.1 n\r\n".to_owned(),
        "SELECT 3\r\nSET elsewhere v\r\n".to_owned(),
    ];
    for request in requests {
        let answers = node.redis_all(&request);
        assert!(answers.lines().all(|line| !line.starts_with('-')), "{request}: {answers}");
    }
}

/// Everything in the node, in a form that can be compared.
fn contents(node: &Node) -> Vec<String> {
    let output = node.run(&["storage", "export"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let mut lines: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn what_is_exported_can_be_imported_by_file_and_live() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [one, two, three] = [0, 1, 2].map(|n| Node::start(&dirs[n].path().join("data"), &[]));
    fill(&one);
    let expected = contents(&one);
    assert!(expected.iter().any(|line| line.contains("base64")), "bits are not text");
    assert!(expected.iter().any(|line| line.contains("\"part\":2")), "the list takes several lines");
    assert!(expected.iter().any(|line| line.contains("\"db\":3")));

    let file = dirs[0].path().join("all.ndjson");
    let file = file.to_str().unwrap();
    let export = one.run(&["storage", "export", file, "--json"]);
    assert_eq!(stdout(&export).trim(), r#"{"keys":9,"left_out":0}"#, "{}", stderr(&export));
    // What was there before is replaced, not added to.
    assert_eq!(two.redis("RPUSH list old\r\n"), ":1");
    let import = two.run(&["storage", "import", file, "--json"]);
    assert_eq!(stdout(&import).trim(), r#"{"expired":0,"keys":9,"left_out":0}"#, "{}", stderr(&import));
    assert_same(&contents(&two), &expected);

    let url = format!("redis://{}", one.redis);
    let live = three.run(&["storage", "import", "--from", &url]);
    assert_eq!(code(&live), 0, "{}", stderr(&live));
    assert_same(&contents(&three), &expected);
    one.stop();
    two.stop();
    three.stop();
}

/// Expiries travel through time to live, which is told in whole milliseconds: they may differ by a few.
fn assert_same(found: &[String], expected: &[String]) {
    type Line = serde_json::Map<String, serde_json::Value>;
    let parsed = |lines: &[String]| -> Vec<(Option<u64>, Line)> {
        let mut all: Vec<(Option<u64>, Line)> = lines
            .iter()
            .map(|line| {
                let mut line: Line = serde_json::from_str(line).unwrap();
                let expiry = line.remove("expires_at_ms").map(|at| at.as_u64().unwrap());
                (expiry, line)
            })
            .collect();
        all.sort_by_key(|(_, line)| serde_json::to_string(line).unwrap());
        all
    };
    let (found, expected) = (parsed(found), parsed(expected));
    assert_eq!(found.len(), expected.len());
    for ((expiry, line), (expected_expiry, expected_line)) in found.iter().zip(&expected) {
        assert_eq!(line, expected_line);
        assert_eq!(expiry.is_some(), expected_expiry.is_some(), "{line:?}");
        let off = expiry.unwrap_or_default().abs_diff(expected_expiry.unwrap_or_default());
        assert!(off < 60_000, "the expiry of {line:?} is off by {off} ms");
    }
}

#[test]
fn keys_are_read_and_written_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    fill(&node);
    #[rustfmt::skip] // columns
    let table: &[(&[&str], i32, &str)] = &[
        (&["storage", "get", "plain"],                        0, "text\n"),
        (&["storage", "get", "hash"],                         0, "f\tv\ng\tw\n"),
        (&["storage", "get", "absent"],                       1, ""),
        (&["storage", "get", "absent", "--json"],             1, "{\"found\":false,\"key\":\"absent\"}\n"),
        (&["storage", "get", "elsewhere"],                    1, ""),
        (&["storage", "get", "--db", "3", "elsewhere"],       0, "v\n"),
        (&["storage", "set", "new", "-1"],                    0, "OK\n"),
        (&["storage", "get", "new", "--json"],                0, "{\"db\":0,\"key\":\"new\",\"type\":\"string\",\"value\":\"-1\"}\n"),
        (&["storage", "set", "brief", "v", "--ttl-ms", "0"],  2, ""),
        (&["storage", "scan", "--match", "ne*"],              0, "new\n"),
        (&["storage", "scan", "--match", "ne*", "--json"],    0, "{\"key\":\"new\"}\n"),
        (&["storage", "del", "new", "absent"],                0, "1\n"),
        (&["storage", "del", "new", "--json"],                0, "{\"deleted\":0}\n"),
        (&["storage", "import", "/nonexistent"],              1, ""),
        (&["storage", "import", "--from", "http://x"],        2, ""),
    ];
    for (args, expected_code, expected) in table {
        let output = node.run(args);
        assert_eq!(code(&output), *expected_code, "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), *expected, "{args:?}");
    }
    assert_eq!(stdout(&node.run(&["storage", "scan", "--limit", "2"])).lines().count(), 2);
    node.stop();
}

#[test]
fn a_wrong_line_of_a_file_is_named_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let mut command = node.command(&["storage", "import", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = "{\"key\":\"k\",\"type\":\"string\",\"value\":\"v\"}\n\n{\"key\":1}\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("-:3: "), "{}", stderr(&output));
    node.stop();
}
