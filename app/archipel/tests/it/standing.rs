//! A real node stands still for a moment, and goes on.

use serde_json::Value;

use crate::process::Node;

const OWN: &str = "X-Archipel: 1\r\n";

/// Holds database 1, sends it a write, and lets it go on: what the node named twice. `None` if it stood still just now, or the
/// machine was too slow.
fn stand(node: &Node, ticket: u64) -> Option<(Value, Value)> {
    let path = format!("/backup/hold?ticket={ticket}&keyspace=1&ms=2000");
    let (code, held) = node.ask("POST", &path, OWN);
    if code == 409 {
        assert!(held.contains("partition 1/") && held.contains("it stood still just now"), "{held}");
        return None;
    }
    assert_eq!(code, 200, "{held}");
    let ((code, confirmed), written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| node.redis_all(&format!("SELECT 1\r\nSET k {ticket}\r\n")));
        let path = format!("/backup/confirm?ticket={ticket}&ms=10000");
        (node.ask("POST", &path, OWN), writer.join().unwrap())
    });
    assert_eq!(written, "+OK\r\n+OK\r\n+OK\r\n", "it waits, and is not refused");
    if code == 409 {
        assert!(confirmed.contains("its leader was not told in time to go on"), "{confirmed}");
        return None;
    }
    assert_eq!(code, 200, "{confirmed}");
    let parsed = |text: &str| serde_json::from_str(text).unwrap();
    Some((parsed(&held), parsed(&confirmed)))
}

#[test]
fn a_node_stands_still_when_it_is_asked_to_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("archipel.toml");
    std::fs::write(&config, "[[keyspace]]\nid = 1\npartitions = 8\n").unwrap();
    let node = Node::start(&dir.path().join("node"), &["--config", &config.display().to_string()]);
    let many: String = (0..50).map(|n| format!("SET many:{n} {n}\r\n")).collect();
    node.redis_all(&format!("SELECT 1\r\n{many}"));
    let (held, confirmed) = (1..1000).find_map(|ticket| stand(&node, ticket)).expect("it stands once");
    assert!(held["clock_us"].as_u64().is_some_and(|clock| clock > 1_600_000_000_000_000), "{held}");
    assert_eq!(held["groups"], confirmed["groups"], "nothing was proposed meanwhile");
    let mut groups: Vec<u64> =
        held["groups"].as_array().unwrap().iter().map(|group| group[0].as_u64().unwrap()).collect();
    groups.sort_unstable();
    assert_eq!(groups, (0..8).map(|partition| (1 << 16) + partition).collect::<Vec<_>>());

    #[rustfmt::skip] // columns
    let table = [
        // method, path,                                      code, what is said
        ("POST", "/backup/hold?ticket=1&keyspace=1",          400, "`ms` is missing"),
        ("POST", "/backup/hold?ticket=1&keyspace=1&ms=2001",  400, "may be 2000 at most"),
        ("POST", "/backup/hold?ticket=x&keyspace=1&ms=1",     400, "`ticket` is \"x\""),
        ("POST", "/backup/confirm?ticket=1&ms=10001",         400, "may be 10000 at most"),
        ("POST", "/backup/hold?ticket=7001&keyspace=900&ms=1",200, "\"groups\":[]"),
        ("POST", "/backup/confirm?ticket=7002&ms=1000",       200, "\"groups\":[]"),
        ("POST", "/backup/leave?ticket=7003",                 200, "left"),
        ("GET",  "/backup/hold",                              405, ""),
        ("GET",  "/backup/confirm",                           405, ""),
    ];
    for (method, path, expected, text) in table {
        let (code, said) = node.ask(method, path, OWN);
        assert!(code == expected && said.contains(text), "{path}: {code} {said}");
    }
    let (code, said) = node.http("POST", "/backup/hold?ticket=1&keyspace=1&ms=1");
    assert!(code == 403 && said.contains("x-archipel"), "{code} {said}");

    // Nobody tells it to go on.
    let (code, _) = node.ask("POST", "/backup/hold?ticket=8001&keyspace=0&ms=1", OWN);
    assert_eq!(code, 200);
    assert_eq!(node.redis("SET k v\r\n"), "+OK");
    let (code, said) = node.ask("POST", "/backup/confirm?ticket=8001&ms=1000", OWN);
    assert!(code == 409 && said.contains("partition 0/0: its leader was not told in time"), "{code} {said}");
    node.stop();
}
