//! `cargo run --release -p fabric --example kad`: one peer of the overlay and nothing else, for `cargo xtask bench kad`.
//!
//! It does what lines on stdin say and answers each with one JSON object, as the program of `acceptance/libp2p-kad` does: `REQUEST 0
//! VERB …` with `dial ADDRESS`, `contacts`, and `lookups FIRST COUNT AT_ONCE`, which looks for the nodes nearest to made-up ids.

use std::io::BufRead;
use std::time::Instant;

use fabric::Identity;
use fabric::overlay::{Dht, Options, Overlay, P2pNode, Peer, Place};
use futures::StreamExt;
use futures::executor::block_on;
use kernel::NodeId;

/// The id that lookup `n` of a campaign looks for: of a key that nobody has.
fn made_up(n: u64) -> Peer {
    let mut key = [0; 32];
    key[24..].copy_from_slice(&n.to_be_bytes());
    NodeId(key).into()
}

fn main() {
    let dir = tempfile::tempdir().expect("a folder for the key");
    let identity = Identity::open(dir.path()).expect("a new key");
    // What the peer does not do either.
    let options = Options { chord: false, gossip: false, ..Options::default() };
    let any = ([127, 0, 0, 1], 0).into();
    let overlay = Overlay::start(&identity, any, options).expect("a free port of loopback");
    let (node, dht) = (overlay.node(), overlay.dht());
    let id = block_on(node.status()).expect("the overlay lives").peer;
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", overlay.address.port());
    println!("{{\"number\": 0, \"peer\": \"{id}\", \"address\": \"{address}\"}}");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let [request, "0", ref verb @ ..] = words[..] else { panic!("{line:?} is no request") };
        let answer = block_on(obey(&node, &dht, verb));
        println!("{{\"request\": \"{request}\", {answer}}}");
    }
    overlay.stop();
}

/// What is answered to a verb, as fields of an object.
async fn obey(node: &P2pNode, dht: &Dht, verb: &[&str]) -> String {
    let number = |text: &str| -> u64 { text.parse().expect("a number") };
    match *verb {
        ["contacts"] => {
            let status = node.status().await.expect("the overlay lives");
            format!("\"contacts\": {}", status.contacts)
        }
        ["dial", address] => {
            let place: Place = address.parse().expect("a place of the overlay");
            match node.connect(place).await {
                Ok(_) => "\"dialling\": true".to_owned(),
                Err(error) => format!("\"error\": \"{error}\""),
            }
        }
        ["lookups", first, count, at_once] => {
            let (first, count, at_once) = (number(first), number(count), number(at_once));
            let began = Instant::now();
            let lookups = futures::stream::iter(first..first + count);
            let (found, asked) = lookups
                .map(|n| dht.find_node(made_up(n)))
                .buffer_unordered(usize::try_from(at_once).expect("a few at once"))
                .map(|result| result.map_or((0, 0), |(nodes, cost)| (nodes.len(), u64::from(cost.asked))))
                .fold((0, 0), async |(found, asked), one| (found + one.0, asked + one.1))
                .await;
            let micros = began.elapsed().as_micros();
            format!("\"lookups\": {count}, \"found\": {found}, \"asked\": {asked}, \"micros\": {micros}")
        }
        _ => panic!("{verb:?} is no verb"),
    }
}
