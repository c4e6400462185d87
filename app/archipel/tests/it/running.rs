//! A node from its start to its end.

use crate::process::{Node, code, stderr, stdout};

#[test]
fn a_node_starts_answers_and_stops_with_its_data_kept() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("SET greeting hello\r\n"), "+OK");
    assert_eq!(node.http("GET", "/health"), (200, "serving\n".to_owned()));
    node.stop();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("STRLEN greeting\r\n"), ":5");
    node.stop();
}

#[test]
fn a_client_may_ask_for_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("SET k v\r\n"), "+OK");
    node.redis("SHUTDOWN\r\n");
    let (code, said) = node.wait();
    assert_eq!(code, 0, "{said}");
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("EXISTS k\r\n"), ":1");
    node.stop();
}

#[test]
fn pages_that_are_not_there_and_verbs_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    #[rustfmt::skip] // columns
    let table = [
        ("GET",  "/health",     200),
        ("HEAD", "/health",     200),
        ("GET",  "/status",     200),
        ("GET",  "/metrics",    200),
        ("POST", "/health",     405),
        ("GET",  "/checkpoint", 405),
        ("POST", "/checkpoint", 202),
        ("GET",  "/",           404),
        ("GET",  "/healthy",    404),
    ];
    for (method, path, expected) in table {
        assert_eq!(node.http(method, path).0, expected, "{method} {path}");
    }
    node.stop();
}

/// The answer must arrive although the node takes only the beginning of such a head.
#[test]
fn a_head_that_is_too_long_is_answered_and_the_connection_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    #[rustfmt::skip] // columns
    let table = [
        // path    header  status
        (64,       64,       404),
        (15_000,   64,       404),
        (40_000,   64,       431),
        (700_000,  64,       431),
        (64,       15_000,   404),
        (64,       40_000,   431),
        (64,       700_000,  431),
    ];
    for (path, header, expected) in table {
        let path = format!("/{}", "x".repeat(path));
        let (status, _) = node.ask("GET", &path, &format!("X-Long: {}\r\n", "y".repeat(header)));
        assert_eq!(status, expected, "{} and {header} bytes", path.len());
    }
    assert_eq!(node.http("GET", "/health").0, 200);
    node.stop();
}

#[test]
fn metrics_count_what_clients_do() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &["--set", "redis.clients_max=1"]);
    let counted = |name: &str| node.metric(name).unwrap_or_default();
    let before = counted("archipel_commands_total");
    for n in 0..10 {
        node.until("one client at a time is taken", |node| node.metric("archipel_clients") == Some(0.0));
        assert_eq!(node.redis(&format!("SET k{n} v\r\n")), "+OK");
    }
    assert_eq!(counted("archipel_commands_total") - before, 10.0);
    assert_eq!(counted("archipel_command_calls_total{command=\"set\"}"), 10.0);
    assert_eq!(counted("archipel_keyspace_keys{keyspace=\"db0\",id=\"0\"}"), 10.0);
    assert!(counted("archipel_sync_seconds_count") >= 1.0);
    assert!(counted("archipel_input_bytes_total") > 0.0);
    let held = std::net::TcpStream::connect(node.redis).unwrap();
    node.until("the client is taken", |node| node.metric("archipel_clients") == Some(1.0));
    assert_eq!(node.redis("PING\r\n"), "-ERR max number of clients reached");
    assert_eq!(counted("archipel_clients_rejected_total"), 1.0);
    drop(held);
    node.stop();
}

#[test]
fn a_checkpoint_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("SET k v\r\n"), "+OK");
    assert_eq!(node.metric("archipel_checkpoint_seconds_count"), Some(0.0));
    assert_eq!(node.http("POST", "/checkpoint").0, 202);
    node.until("a checkpoint is made", |node| node.metric("archipel_checkpoint_seconds_count") == Some(1.0));
    node.stop();
}

#[test]
fn above_the_disk_quota_writes_are_refused_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("SET k v\r\n"), "+OK");
    node.stop();
    let node = Node::start(dir.path(), &["--set", "storage.disk_quota=1"]);
    node.until("the quota is seen", |node| node.metric("archipel_quota_exceeded") == Some(1.0));
    assert!(node.redis("SET k w\r\n").starts_with("-MISCONF"));
    assert_eq!(node.redis("EXISTS k\r\n"), ":1");
    node.stop();
}

#[test]
fn status_tells_of_a_running_node_and_fails_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.redis("SET k v\r\n"), "+OK");
    let text = node.run(&["node", "status"]);
    assert_eq!(code(&text), 0, "{}", stderr(&text));
    assert!(stdout(&text).contains("serving"));
    assert!(stdout(&text).contains("db0"));
    assert!(!stdout(&text).contains('\x1b'), "no colour outside a terminal");
    let json = node.run(&["node", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(status["keyspaces"][0]["keys"], 1);
    let mut late = node.command(&["node", "status"]);
    node.stop();
    let late = late.output().unwrap();
    assert_eq!(code(&late), 1);
    assert!(stderr(&late).contains("--port-offset"), "{}", stderr(&late));
}
