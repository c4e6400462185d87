//! Overlays on loopback: nodes that find each other, and what they keep for each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fabric::Identity;
use fabric::overlay::{
    ContentName, DhtError, HOPS_MAX, HopEnd, Options, Overlay, OverlayError, Peer, Place, ReachError,
    ValueName, Via,
};
use kernel::NodeId;

const LIFE: Duration = Duration::from_secs(3600);
/// How long what must come to pass may take.
const PATIENCE: Duration = Duration::from_secs(180);

pub fn options(peers: Vec<Place>) -> Options {
    Options { peers, ..Options::default() }
}

pub fn start(seed: u8, options: Options) -> Overlay {
    let identity = Identity::from_seed(&[seed; 32]);
    Overlay::start(&identity, SocketAddr::from(([127, 0, 0, 1], 0)), options).unwrap()
}

pub fn place(overlay: &Overlay) -> Place {
    let peer = Peer::from(overlay.node_id());
    format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", overlay.address.port()).parse().unwrap()
}

/// Looks again and again until there is something, and gives it. `what` says what was waited for if that is in vain.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            // Others are to run meanwhile: the nodes looked at, on two cores.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(found) => found,
        Err(_) => panic!("not within {} s: {what}", PATIENCE.as_secs()),
    }
}

/// Waits until `overlay` has so many contacts; each look is an answer of its thread.
pub async fn contacts(overlay: &Overlay, wanted: usize) {
    let enough = async || (overlay.node().status().await.unwrap().contacts >= wanted).then_some(());
    until(&format!("{wanted} contacts"), enough).await;
}

/// Nodes that all were told of the first one.
pub async fn network(count: u8) -> Vec<Overlay> {
    let first = start(1, options(Vec::new()));
    let at = place(&first);
    let mut all = vec![first];
    all.extend((2..=count).map(|seed| start(seed, options(vec![at.clone()]))));
    contacts(&all[0], usize::from(count) - 1).await;
    for overlay in &all {
        contacts(overlay, 1).await;
    }
    all
}

pub fn stop(overlays: Vec<Overlay>) {
    overlays.into_iter().for_each(Overlay::stop);
}

fn name(text: &str, own: NodeId) -> ValueName {
    ValueName::parse(text, own).unwrap()
}

#[tokio::test]
async fn a_value_is_found_by_all_and_is_its_publishers_alone() {
    let all = network(6).await;
    let publisher = all[2].node_id();
    let menu = name("menu", publisher);
    let (kept, _) = all[2].dht().put(&menu, b"soup", LIFE).await.unwrap();
    assert_eq!(kept, 5);
    for overlay in &all {
        let (value, _) = overlay.dht().get(&menu).await.unwrap();
        assert_eq!(value.unwrap().payload, b"soup");
    }
    // A newer version replaces it.
    all[2].dht().put(&menu, b"stew", LIFE).await.unwrap();
    let (value, cost) = all[5].dht().get(&menu).await.unwrap();
    assert_eq!(value.unwrap().payload, b"stew");
    assert!(cost.asked >= 1 && cost.hops >= 1);
    // Control: nobody else can put it, and what was not put is not found.
    let theirs = all[3].dht().put(&menu, b"poison", LIFE).await;
    assert_eq!(theirs, Err(DhtError::NotOurs { name: menu.to_string() }));
    let (nothing, _) = all[3].dht().get(&name("no such label", publisher)).await.unwrap();
    assert_eq!(nothing, None);
    stop(all);
}

#[tokio::test]
async fn a_public_key_is_kept_under_its_hash_and_nothing_else_is() {
    let all = network(3).await;
    // Base58 of 0x00 0x03 "abc": the identity multihash.
    let mut text = "/pk/".to_owned();
    kernel::base58::encode(b"\x00\x03abc", &mut text);
    let key = name(&text, all[0].node_id());
    let (kept, _) = all[0].dht().put(&key, b"abc", LIFE).await.unwrap();
    assert_eq!(kept, 2);
    let (value, _) = all[2].dht().get(&key).await.unwrap();
    assert_eq!(value.unwrap().payload, b"abc");
    let forged = all[0].dht().put(&key, b"abd", LIFE).await.unwrap_err();
    assert_eq!(forged.to_string(), "the signature does not hold");
    stop(all);
}

#[tokio::test]
async fn providers_and_nodes_are_found_with_their_addresses() {
    let all = network(5).await;
    let content = ContentName::parse("a file");
    for overlay in &all[3..] {
        assert_eq!(overlay.dht().provide(&content).await.unwrap().0, 4);
    }
    let mut wanted: Vec<Peer> = all[3..].iter().map(|overlay| Peer::from(overlay.node_id())).collect();
    wanted.sort();
    // What is told waits for no answer, so it may be on its way still.
    let found = until("the providers", async || {
        let (found, _) = all[1].dht().find_providers(&content).await.unwrap();
        (found.len() == wanted.len()).then_some(found)
    })
    .await;
    let mut peers: Vec<Peer> = found.iter().map(|located| located.peer).collect();
    peers.sort();
    assert_eq!(peers, wanted);
    let (nobody, _) = all[1].dht().find_providers(&ContentName::parse("another file")).await.unwrap();
    assert_eq!(nobody, []);
    let (nodes, _) = all[4].dht().find_node(wanted[0]).await.unwrap();
    let nearest = &nodes[0];
    assert!(nearest.peer == wanted[0] || Peer::from(all[4].node_id()) == wanted[0]);
    assert!(
        nearest.addresses.iter().any(|address| address.starts_with("/ip4/127.0.0.1/tcp/")),
        "{nearest:?}"
    );
    stop(all);
}

#[tokio::test]
async fn each_question_of_a_watched_lookup_is_told() {
    let all = network(4).await;
    let menu = name("menu", all[1].node_id());
    all[1].dht().put(&menu, b"soup", LIFE).await.unwrap();
    let (hops, mut told) = tokio::sync::mpsc::channel(HOPS_MAX);
    // Quorum is one: the first that has it ends the lookup.
    all[3].dht().watched(hops).get(&menu).await.unwrap();
    let mut ends = Vec::new();
    while let Some(hop) = told.recv().await {
        assert_eq!(hop.distance, hop.peer.key().distance(menu.key()));
        ends.push(hop.end);
    }
    assert!(ends.contains(&HopEnd::Found), "{ends:?}");
    stop(all);
}

#[tokio::test]
async fn peers_are_reached_measured_and_left() {
    let (one, two) = (start(1, options(Vec::new())), start(2, options(Vec::new())));
    let peer = Peer::from(two.node_id());
    assert_eq!(one.node().ping(peer).await, Err(ReachError::NotConnected { peer }));
    assert_eq!(one.node().connect(place(&two)).await, Ok(peer));
    assert!(one.node().ping(peer).await.unwrap() > Duration::ZERO);
    contacts(&one, 1).await;
    contacts(&two, 1).await;
    assert_eq!(one.node().disconnect(peer).await, Ok(()));
    // Another one than is expected there is not connected to.
    let wrong = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", two.address.port(), Peer::from(one.node_id()));
    let refused = one.node().connect(wrong.parse().unwrap()).await;
    assert!(matches!(refused, Err(ReachError::Unreachable { .. })), "{refused:?}");
    let port = two.address.port();
    two.stop();
    let gone = one.node().connect(format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()).await;
    assert!(matches!(gone, Err(ReachError::Unreachable { .. })), "{gone:?}");
    let node = one.node();
    one.stop();
    assert_eq!(node.status().await.unwrap_err(), ReachError::Ended);
}

#[tokio::test]
async fn a_broadcast_reaches_all_over_others_and_a_message_only_its_neighbour() {
    // A line of four: each knows the one before.
    let mut all = vec![start(1, options(Vec::new()))];
    for seed in 2..=4 {
        let before = place(&all[all.len() - 1]);
        let next = start(seed, options(Vec::new()));
        next.node().connect(before).await.unwrap();
        all.push(next);
    }
    let mut heard = Vec::new();
    for overlay in &all {
        let (listener, messages) = tokio::sync::mpsc::channel(4096);
        overlay.node().listen(listener).await.unwrap();
        heard.push(messages);
    }
    // Each end of an edge must have heard that the other takes messages, so the first ones may come too early.
    let far = until("a message that passed a node", async || {
        all[0].node().broadcast(b"hello").await.unwrap();
        for overlay in &all {
            overlay.node().status().await.unwrap();
        }
        heard.iter_mut().rev().find_map(|messages| {
            std::iter::from_fn(|| messages.try_recv().ok())
                .find(|message| message.from != Peer::from(all[0].node_id()))
        })
    })
    .await;
    assert!(&far.payload[..] == b"hello" && matches!(far.via, Via::Flood { hops: 2.. }), "{far:?}");
    let ends = all[3].node();
    let neighbour = Peer::from(all[2].node_id());
    assert_eq!(ends.send(neighbour, b"for you").await, Ok(1));
    let got = loop {
        let message = heard[2].recv().await.unwrap();
        if &message.payload[..] == b"for you" {
            break message;
        }
    };
    assert_eq!((got.via, got.from), (Via::Direct, Peer::from(all[3].node_id())));
    // Control: it went no further, and who is no neighbour cannot be sent to.
    ends.broadcast(b"end").await.unwrap();
    loop {
        let message = heard[1].recv().await.unwrap();
        assert_ne!(&message.payload[..], b"for you");
        if &message.payload[..] == b"end" {
            break;
        }
    }
    let peer = Peer::from(NodeId([9; 32]));
    assert_eq!(ends.send(peer, b"x").await, Err(ReachError::NotConnected { peer }));
    let long = vec![0; 20_000];
    assert_eq!(ends.broadcast(&long).await, Err(ReachError::TooLarge { bytes: 20_000 }));
    stop(all);
}

#[tokio::test]
async fn a_node_that_starts_again_dials_whom_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let memory = |path: &str| Options { memory: Some(PathBuf::from(path)), ..options(Vec::new()) };
    let file = dir.path().join("overlay.peers");
    let file = file.to_str().unwrap();
    let other = start(1, options(Vec::new()));
    let first = start(2, memory(file));
    first.node().connect(place(&other)).await.unwrap();
    contacts(&first, 1).await;
    first.stop();
    let again = start(2, memory(file));
    contacts(&again, 1).await;
    again.stop();
    other.stop();
}

#[tokio::test]
async fn a_node_alone_says_that_nobody_keeps_its_value() {
    let alone = start(1, options(Vec::new()));
    let put = alone.dht().put(&name("x", alone.node_id()), b"y", LIFE).await;
    assert_eq!(put, Err(DhtError::Nowhere { asked: 0 }));
    let (nodes, _) = alone.dht().find_node(Peer::from(NodeId([9; 32]))).await.unwrap();
    assert_eq!(nodes, []);
    let taken = Overlay::start(&Identity::from_seed(&[2; 32]), alone.address, options(Vec::new()));
    assert!(matches!(taken, Err(OverlayError::Listen { .. })));
    alone.stop();
}
