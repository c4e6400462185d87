//! The verbs of the overlay between nodes: messages, broadcasts, walks, and the ring.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::p2p::{contacts, id, json, p2p, start};
use crate::process::{Node, code, stderr, stdout};

/// `archipel p2p listen --json`, running.
struct Listener {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Listener {
    /// It listens when this returns.
    fn start(node: &Node, words: &[&str]) -> Listener {
        let mut command = node.command(&[&["p2p", "listen", "--json"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.starts_with("listening as "), "{said}");
        let lines = BufReader::new(child.stdout.take().unwrap());
        Listener { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

/// So many nodes, each connected to the first.
fn network(count: usize) -> (Vec<tempfile::TempDir>, Vec<Node>) {
    let dirs: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes: Vec<Node> = dirs.iter().map(|dir| start(dir.path())).collect();
    let (_, address) = id(&nodes[0]);
    for node in &nodes[1..] {
        let output = p2p(node, &["connect", &address]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        contacts(node, 1);
    }
    contacts(&nodes[0], count as u64 - 1);
    (dirs, nodes)
}

#[test]
fn what_asks_the_overlay_and_is_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path());
    for verb in ["connect", "send", "broadcast", "put", "provide", "listen", "walk"] {
        let (code, text) = node.ask("POST", &format!("/p2p/{verb}"), "");
        assert_eq!(code, 403, "{verb}: {text}");
        assert!(text.contains("x-archipel"), "{text}");
        // Control: with the header it is heard, and is no JSON.
        let (code, text) = node.ask("POST", &format!("/p2p/{verb}"), "X-Archipel: 1\r\n");
        assert_eq!(code, 400, "{verb}: {text}");
    }
    // What only looks is answered to all.
    assert!(node.http("GET", "/p2p").1.contains(&id(&node).0));
}

#[test]
fn messages_reach_who_listens_and_the_sender_is_told() {
    let (_dirs, nodes) = network(3);
    let ids: Vec<String> = nodes.iter().map(|node| id(node).0).collect();
    // Nobody listens there yet. The two have never met: the receiver is looked up.
    let unheard = p2p(&nodes[1], &["send", &ids[2], "hello"]);
    assert_eq!(code(&unheard), 1);
    assert!(stderr(&unheard).contains("nobody listens there"), "{}", stderr(&unheard));
    let mut listener = Listener::start(&nodes[2], &["--count", "3"]);
    let sent = p2p(&nodes[1], &["send", &ids[2], "hello"]);
    assert_eq!(stdout(&sent), format!("1 listener at {} has it\n", ids[2]), "{}", stderr(&sent));
    let heard = listener.next();
    assert_eq!(
        (&heard["from"], &heard["via"], &heard["text"]),
        (&ids[1].clone().into(), &"direct".into(), &"hello".into())
    );
    assert_eq!(json(&nodes[0], &["send", &ids[2], "again"])["listeners"], 1);
    assert_eq!(listener.next()["from"], ids[0].as_str());
    // A broadcast reaches all.
    assert!(json(&nodes[1], &["broadcast", "to all"])["neighbours"].as_u64() >= Some(1));
    let heard = listener.next();
    assert_eq!((&heard["via"], &heard["text"]), (&"flood".into(), &"to all".into()));
    // After so many it ends.
    assert_eq!(listener.code(), 0);
    nodes.into_iter().for_each(Node::stop);
}

#[test]
fn the_ring_keeps_values_beside_the_default_overlay() {
    let (_dirs, nodes) = network(3);
    for node in &nodes {
        node.until("the ring is whole", |node| json(node, &["peers"])["ring"]["successors"] == 2);
    }
    let put = json(&nodes[1], &["put", "--overlay", "chord", "menu", "soup"]);
    let name = put["result"]["name"].as_str().unwrap();
    let got = p2p(&nodes[2], &["get", "--overlay", "chord", name]);
    assert_eq!((code(&got), stdout(&got)), (0, "soup".to_owned()), "{}", stderr(&got));
    // Control: it is on the ring alone.
    assert_eq!(code(&p2p(&nodes[2], &["get", name])), 1);
    let (third, _) = id(&nodes[2]);
    let found = p2p(&nodes[0], &["find", "--overlay", "chord", &third]);
    assert_eq!(code(&found), 0, "{}", stderr(&found));
    assert!(stdout(&found).starts_with(&third));
    // Whoever does not own the key asks who does.
    let ends = nodes.iter().map(|node| stdout(&p2p(node, &["trace", "--overlay", "chord", name, "--json"])));
    assert_eq!(ends.filter(|trace| trace.contains("\"found\"")).count(), 2);
    let refused = p2p(&nodes[0], &["trace", "--overlay", "chord", "--what", "providers", "x"]);
    assert!(stderr(&refused).contains("--overlay kad"), "{}", stderr(&refused));
    nodes.into_iter().for_each(Node::stop);
}

#[test]
fn walkers_draw_nodes_and_find_content() {
    let (_dirs, nodes) = network(3);
    let ids: Vec<String> = nodes.iter().map(|node| id(node).0).collect();
    nodes[1].until("walkers come back", |node| {
        let walked = p2p(node, &["walk", "--walkers", "16"]);
        let drawn = stdout(&walked);
        assert!(drawn.lines().all(|line| ids.iter().any(|id| line.starts_with(id))), "{drawn}");
        code(&walked) == 0 && !drawn.is_empty()
    });
    json(&nodes[2], &["provide", "a file"]);
    nodes[1].until("the provider is found", |node| {
        let walked = json(node, &["walk", "--content", "a file"]);
        walked["nodes"][0]["peer"] == ids[2].as_str()
    });
    assert_eq!(code(&p2p(&nodes[1], &["walk", "--content", "no such file"])), 1);
    nodes.into_iter().for_each(Node::stop);
}

#[test]
fn who_is_alone_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path());
    let (own, _) = id(&node);
    for (words, code_of, reason) in [
        (&["broadcast", "x"][..], 1, "archipel p2p connect"),
        (&["walk"], 1, "archipel p2p connect"),
        (&["send", "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", "x"], 1, "archipel p2p connect"),
        (&["send", "nobody", "x"], 1, "not the id of a peer"),
        (&["send", &own, "x"], 1, "this node itself"),
        (&["walk", "--walkers", "65"], 2, "1..=64"),
        (&["get", "--overlay", "pastry", "x"], 2, "possible values: kad, chord"),
    ] {
        let output = p2p(&node, words);
        assert_eq!(code(&output), code_of, "{words:?}");
        assert!(stderr(&output).contains(reason), "{words:?}: {}", stderr(&output));
    }
    node.stop();
    let node = Node::start(
        dir.path(),
        &["--set", "p2p.enabled=true", "--set", "p2p.port=0", "--set", "p2p.chord=false"],
    );
    let refused = p2p(&node, &["put", "--overlay", "chord", "menu", "soup"]);
    assert!(stderr(&refused).contains("p2p.chord=true"), "{}", stderr(&refused));
    node.stop();
}
