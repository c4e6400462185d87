//! A cluster that is found through the overlay, by a newcomer whose token says where a member was.

use std::path::Path;

use crate::cluster::status;
use crate::p2p::{contacts, id, start};
use crate::process::{Node, archipel, code, run, stderr, stdout};

/// A member, or a newcomer, in the overlay of the peer at `at`.
fn member(dir: &Path, how: &[&str], at: &str) -> Node {
    let peers = format!("p2p.peers={at}");
    let settings = ["p2p.enabled=true", "p2p.port=0", "cluster.rendezvous=true", &peers];
    let flags: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    Node::start_as(dir, how, &flags)
}

#[test]
fn a_newcomer_finds_a_member_that_has_moved_since_its_token_was_made() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    // Somebody who is always there, and in no cluster.
    let peer = start(dirs[0].path());
    let (_, at) = id(&peer);
    let one = member(dirs[1].path(), &["--cluster"], &at);
    contacts(&one, 1);
    let made = one.run(&["cluster", "token"]);
    let (token, cluster) =
        (stdout(&made).trim().to_owned(), status(&one)["cluster"].as_str().unwrap().to_owned());
    // It stops, and listens at another port from now on: what the token says is old.
    one.stop();
    let newcomer = dirs[2].path();
    let settings = [
        "redis.port=0",
        "admin.port=0",
        "cluster.port=0",
        "cluster.redis_port=0",
        "storage.segment_bytes=1MiB",
    ];
    let failed = archipel(&["--data-dir", newcomer.to_str().unwrap()])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .args(["node", "start", "--join", &token])
        .output()
        .unwrap();
    assert_eq!(code(&failed), 1);
    assert!(stderr(&failed).contains("does not answer at"), "{}", stderr(&failed));
    let one = member(dirs[1].path(), &[], &at);
    contacts(&one, 1);
    let two = member(newcomer, &["--find", &cluster, "--join", &token], &at);
    one.until("two are members", |node| status(node)["members"].as_array().unwrap().len() == 2);
    assert_eq!(status(&two)["cluster"], cluster.as_str());
    two.stop();
    one.stop();
    peer.stop();
}

#[test]
fn finding_needs_a_token_of_that_very_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let wanted = "00112233445566778899aabbccddeeff";
    for (how, reason) in [
        (&["--find", wanted][..], "--join <TOKEN>"),
        (&["--find", "nonsense", "--join", "x"], "32 hexadecimal digits"),
        (&["--find", wanted, "--join", "nonsense"], "it is not a join token"),
    ] {
        let output = run(&[&["--data-dir", data, "node", "start"], how].concat());
        assert_eq!(code(&output), 2, "{how:?}");
        assert!(stderr(&output).contains(reason), "{how:?}: {}", stderr(&output));
    }
    let one = Node::start_as(&dir.path().join("1"), &["--cluster"], &[]);
    let token = stdout(&one.run(&["cluster", "token"])).trim().to_owned();
    let other = dir.path().join("2");
    let settings = ["redis.port=0", "admin.port=0", "cluster.port=0", "cluster.redis_port=0", "p2p.port=0"];
    let output = archipel(&["--data-dir", other.to_str().unwrap()])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .args(["node", "start", "--find", wanted, "--join", &token])
        .output()
        .unwrap();
    assert!(stderr(&output).contains(&format!("and not of {wanted}")), "{}", stderr(&output));
    one.stop();
}
