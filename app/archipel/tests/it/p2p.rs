//! The overlay as operators use it: nodes as processes, and the verbs of `archipel p2p`.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::process::{Node, code, stderr, stdout};

const FLAGS: [&str; 4] = ["--set", "p2p.enabled=true", "--set", "p2p.port=0"];

pub fn start(dir: &Path) -> Node {
    Node::start(dir, &FLAGS)
}

pub fn p2p(node: &Node, words: &[&str]) -> Output {
    node.run(&[&["p2p"], words].concat())
}

pub fn json(node: &Node, words: &[&str]) -> Value {
    let output = p2p(node, &[words, &["--json"]].concat());
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{words:?}: {}", stderr(&output)))
}

/// A peer's id and its address.
pub fn id(node: &Node) -> (String, String) {
    let told = stdout(&p2p(node, &["id"]));
    let mut lines = told.lines().map(str::to_owned);
    (lines.next().unwrap(), lines.next().unwrap())
}

pub fn contacts(node: &Node, wanted: u64) {
    node.until("the others are contacts", |node| json(node, &["peers"])["contacts"].as_u64() >= Some(wanted));
}

#[test]
fn nodes_find_values_providers_and_each_other() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes: Vec<Node> = dirs.iter().map(|dir| start(dir.path())).collect();
    let (first, address) = id(&nodes[0]);
    for node in &nodes[1..] {
        let output = p2p(node, &["connect", &address]);
        assert_eq!(stdout(&output), format!("connected to {first}\n"), "{}", stderr(&output));
        contacts(node, 1);
    }
    contacts(&nodes[0], 2);

    let put = json(&nodes[1], &["put", "menu", "soup"]);
    assert_eq!(put["result"]["stored"], 2);
    let name = put["result"]["name"].as_str().unwrap();
    let got = p2p(&nodes[2], &["get", name]);
    assert_eq!((code(&got), stdout(&got)), (0, "soup".to_owned()));
    let nothing = p2p(&nodes[2], &["get", "menu"]);
    assert_eq!(code(&nothing), 1);
    assert!(stderr(&nothing).contains("no valid value"));
    let theirs = p2p(&nodes[2], &["put", name, "poison"]);
    assert_eq!(code(&theirs), 1);
    assert!(stderr(&theirs).contains("only its publisher"), "{}", stderr(&theirs));

    assert_eq!(json(&nodes[2], &["provide", "a file"])["result"]["told"], 2);
    let (third, _) = id(&nodes[2]);
    nodes[1]
        .until("the provider is found", |node| stdout(&p2p(node, &["providers", "a file"])).contains(&third));
    assert_eq!(code(&p2p(&nodes[1], &["providers", "another file"])), 1);
    assert_eq!(code(&p2p(&nodes[1], &["find", &third])), 0);

    let trace = stdout(&p2p(&nodes[2], &["trace", name, "--json"]));
    let lines: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, hops) = lines.split_last().unwrap();
    assert!(hops.iter().any(|line| line["hop"]["end"] == "found"), "{trace}");
    assert!(last["cost"]["asked"].as_u64() >= Some(1), "{trace}");

    let ping = p2p(&nodes[1], &["ping", &first]);
    assert!(stdout(&ping).starts_with(&format!("{first} answered in ")), "{}", stderr(&ping));
    assert_eq!(code(&p2p(&nodes[1], &["disconnect", &first])), 0);
    nodes.into_iter().for_each(Node::stop);
}

#[test]
fn what_cannot_be_done_is_said_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path());
    for (words, reason) in [
        (&["connect", "127.0.0.1:7402"][..], "write it as /ip4/"),
        (&["connect", "/ip4/127.0.0.1/tcp/1"], "cannot connect"),
        (&["ping", "nobody"], "not the id of a peer"),
        (&["ping", "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"], "no connection to 12D3KooW"),
        (&["get", "/elsewhere/x"], "not the name of a value"),
        (&["put", "menu", "soup"], "no other node keeps it"),
    ] {
        let output = p2p(&node, words);
        assert_eq!(code(&output), 1, "{words:?}");
        assert!(stderr(&output).contains(reason), "{words:?}: {}", stderr(&output));
    }
    node.stop();
    // Control: without the setting there is no overlay.
    let node = Node::start(dir.path(), &[]);
    let output = p2p(&node, &["peers"]);
    assert!(stderr(&output).contains("p2p.enabled=true"), "{}", stderr(&output));
    node.stop();
}

#[test]
fn a_node_that_starts_again_finds_its_peers() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (stays, leaves) = (start(dirs[0].path()), start(dirs[1].path()));
    let (own, _) = id(&leaves);
    assert_eq!(code(&p2p(&leaves, &["connect", &id(&stays).1])), 0);
    contacts(&leaves, 1);
    leaves.stop();
    let again = start(dirs[1].path());
    assert_eq!(id(&again).0, own);
    contacts(&again, 1);
    again.stop();
    stays.stop();
}
