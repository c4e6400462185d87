//! Our own protocols between overlays on loopback: the ring, walks, and messages.

use std::time::Duration;

use fabric::Identity;
use fabric::overlay::{
    ContentName, DhtError, HOPS_MAX, HopEnd, Options, Overlay, OverlayError, Peer, Place, ReachError, Table,
    ValueName, Via, WalkError,
};
use kernel::NodeId;
use tokio::sync::mpsc;

use crate::overlay::{contacts, network, options, place, start, stop, until};

const LIFE: Duration = Duration::from_secs(3600);

/// Waits until these are one ring: each knows who is right before it, and all others behind it.
async fn ring(all: &[Overlay]) {
    let mut order: Vec<Peer> = all.iter().map(|overlay| Peer::from(overlay.node_id())).collect();
    order.sort_by_key(Peer::key);
    for overlay in all {
        let own = Peer::from(overlay.node_id());
        let at = order.iter().position(|peer| *peer == own).unwrap();
        let before = order[(at + order.len() - 1) % order.len()];
        until(&format!("{own} behind {before}"), async || {
            let ring = overlay.node().status().await.unwrap().ring.unwrap();
            (ring.predecessor == Some(before) && ring.successors == order.len() - 1).then_some(())
        })
        .await;
    }
}

/// Waits until it is on a ring with others.
async fn joined(overlay: &Overlay) {
    until("a ring", async || {
        (overlay.node().status().await.unwrap().ring.unwrap().successors > 0).then_some(())
    })
    .await;
}

/// Nodes on one ring, which began all at once, each a ring of its own.
async fn circle(count: u8) -> Vec<Overlay> {
    let all = network(count).await;
    ring(&all).await;
    all
}

/// Whom an overlay lists as connected.
async fn connected(overlay: &Overlay) -> Vec<Peer> {
    let status = overlay.node().status().await.unwrap();
    status.connected.iter().map(|peer| peer.located.peer).collect()
}

/// Waits until an overlay lists these as connected, and no others.
async fn lists_only(overlay: &Overlay, wanted: &[Peer]) {
    until(&format!("only {wanted:?} listed"), async || (connected(overlay).await == wanted).then_some(()))
        .await;
}

/// Waits until an overlay's peers take walkers.
async fn walkable(overlay: &Overlay) {
    until("peers that take walkers", async || {
        (overlay.node().sample(1, 1).await != Err(WalkError::Alone)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nodes_that_meet_make_one_ring_and_find_each_others_values() {
    let all = circle(6).await;
    let publisher = all[2].node_id();
    let menu = ValueName::parse("menu", publisher).unwrap();
    let on = |overlay: &Overlay| overlay.dht().over(Table::Chord);
    on(&all[2]).put(&menu, b"soup", LIFE).await.unwrap();
    for overlay in &all {
        let (value, _) = on(overlay).get(&menu).await.unwrap();
        assert_eq!(value.unwrap().payload, b"soup");
    }
    // A newer version replaces it.
    on(&all[2]).put(&menu, b"stew", LIFE).await.unwrap();
    assert_eq!(on(&all[5]).get(&menu).await.unwrap().0.unwrap().payload, b"stew");
    // Every node owns its own place, whoever asks.
    for overlay in &all {
        let peer = Peer::from(overlay.node_id());
        let (nodes, _) = on(&all[0]).find_node(peer).await.unwrap();
        assert_eq!(nodes.iter().map(|node| node.peer).collect::<Vec<_>>(), [peer]);
    }
    // Control: nobody else can put it, it is on no other overlay, and the ring keeps neither providers nor what is not signed.
    let theirs = on(&all[3]).put(&menu, b"poison", LIFE).await;
    assert_eq!(theirs, Err(DhtError::NotOurs { name: menu.to_string() }));
    assert_eq!(all[3].dht().get(&menu).await.unwrap().0, None);
    assert_eq!(on(&all[3]).provide(&ContentName::parse("x")).await, Err(DhtError::NoProviders));
    let mut key = "/pk/".to_owned();
    kernel::base58::encode(b"\x00\x03abc", &mut key);
    let key = ValueName::parse(&key, publisher).unwrap();
    assert!(matches!(on(&all[3]).put(&key, b"abc", LIFE).await, Err(DhtError::Refused(_))));
    stop(all);
}

#[tokio::test]
async fn the_ring_keeps_its_values_when_nodes_leave_and_come() {
    let mut all = circle(5).await;
    let names: Vec<ValueName> =
        (0..8).map(|n| ValueName::parse(&format!("label {n}"), all[0].node_id()).unwrap()).collect();
    for name in &names {
        all[0].dht().over(Table::Chord).put(name, b"kept", LIFE).await.unwrap();
    }
    // Two leave, one after another, and one comes.
    for _ in 0..2 {
        all.pop().unwrap().stop();
    }
    let newcomer = start(77, options(vec![place(&all[0])]));
    joined(&newcomer).await;
    for name in &names {
        // What the newcomer owns now may be on its way to it.
        let value = until("a value of the ring", async || {
            newcomer.dht().over(Table::Chord).get(name).await.ok().and_then(|(value, _)| value)
        });
        assert_eq!(value.await.payload, b"kept");
    }
    newcomer.stop();
    stop(all);
}

#[tokio::test]
async fn two_rings_that_meet_become_one_and_keep_what_each_had() {
    let one = circle(3).await;
    let first = start(11, options(Vec::new()));
    let two = vec![start(12, options(vec![place(&first)])), start(13, options(vec![place(&first)])), first];
    ring(&two).await;
    let on = |overlay: &Overlay| overlay.dht().over(Table::Chord);
    let names = |overlay: &Overlay| {
        (0..6)
            .map(|n| ValueName::parse(&format!("label {n}"), overlay.node_id()).unwrap())
            .collect::<Vec<_>>()
    };
    let (ours, theirs) = (names(&one[0]), names(&two[0]));
    for (overlay, names) in [(&one[0], &ours), (&two[0], &theirs)] {
        for name in names {
            on(overlay).put(name, b"kept", LIFE).await.unwrap();
        }
    }
    // Control: what one ring has the other has not.
    assert_eq!(on(&one[1]).get(&theirs[0]).await.unwrap().0, None);
    assert_eq!(on(&two[1]).get(&ours[0]).await.unwrap().0, None);
    one[1].node().connect(place(&two[1])).await.unwrap();
    let all: Vec<Overlay> = one.into_iter().chain(two).collect();
    ring(&all).await;
    for name in ours.iter().chain(&theirs) {
        for overlay in [&all[2], &all[4]] {
            // Some of it is on its way to its new owner.
            let value = until("a value of one of the rings", async || {
                on(overlay).get(name).await.ok().and_then(|(value, _)| value)
            });
            assert_eq!(value.await.payload, b"kept");
        }
    }
    stop(all);
}

#[tokio::test]
async fn a_lookup_on_the_ring_tells_its_questions() {
    let all = circle(5).await;
    let menu = ValueName::parse("menu", all[1].node_id()).unwrap();
    all[1].dht().over(Table::Chord).put(&menu, b"soup", LIFE).await.unwrap();
    let mut ends = Vec::new();
    for overlay in &all {
        let (hops, mut told) = mpsc::channel(HOPS_MAX);
        overlay.dht().over(Table::Chord).watched(hops).get(&menu).await.unwrap();
        while let Some(hop) = told.recv().await {
            ends.push(hop.end);
        }
    }
    // The owner itself asks nobody; each other one asks it.
    assert_eq!(ends.iter().filter(|end| **end == HopEnd::Found).count(), 4, "{ends:?}");
    stop(all);
}

#[tokio::test]
async fn who_wants_no_ring_stands_on_none() {
    let without = Options { chord: false, ..options(Vec::new()) };
    let (one, two) = (start(1, options(Vec::new())), start(2, without));
    two.node().connect(place(&one)).await.unwrap();
    contacts(&two, 1).await;
    let menu = ValueName::parse("menu", two.node_id()).unwrap();
    assert_eq!(two.dht().over(Table::Chord).put(&menu, b"x", LIFE).await, Err(DhtError::NoRing));
    assert_eq!(two.node().status().await.unwrap().ring, None);
    assert_eq!(one.node().status().await.unwrap().ring.unwrap().successors, 0);
    stop(vec![one, two]);
}

#[tokio::test]
async fn walkers_draw_nodes_and_find_who_provides() {
    // A line of four: each knows the one before, so a walker must pass others.
    let mut all = vec![start(1, options(Vec::new()))];
    assert_eq!(all[0].node().sample(4, 8).await, Err(WalkError::Alone));
    for seed in 2..=4 {
        let before = place(&all[all.len() - 1]);
        let next = start(seed, Options { chord: false, ..options(Vec::new()) });
        next.node().connect(before).await.unwrap();
        walkable(&next).await;
        all.push(next);
    }
    let known: Vec<Peer> = all.iter().map(|overlay| Peer::from(overlay.node_id())).collect();
    // A walker may be lost where an edge is not known at both ends yet.
    let drawn = until("a walker that comes home", async || {
        Some(all[3].node().sample(16, 24).await.unwrap()).filter(|drawn| !drawn.is_empty())
    })
    .await;
    assert!(drawn.len() <= 16 && drawn.iter().all(|node| known.contains(&node.peer)), "{drawn:?}");
    let content = ContentName::parse("a file");
    all[0].dht().provide(&content).await.unwrap();
    let found = until("a holder", async || all[3].node().search(&content, 8, 64).await.unwrap());
    let (holder, hops) = found.await;
    assert_eq!(holder.peer, known[0]);
    assert!(hops >= 1);
    // Control: what nobody provides is not found, and numbers have their bounds.
    assert_eq!(all[3].node().search(&ContentName::parse("another"), 4, 16).await, Ok(None));
    assert_eq!(all[3].node().sample(65, 1).await, Err(WalkError::Refused));
    assert_eq!(all[3].node().sample(1, 5000).await, Err(WalkError::Refused));
    stop(all);
}

#[tokio::test]
async fn a_message_tells_its_sender_how_many_have_it() {
    let (one, two) = (start(1, options(Vec::new())), start(2, options(Vec::new())));
    let (first, second) = (Peer::from(one.node_id()), Peer::from(two.node_id()));
    assert_eq!(one.node().send(second, b"x").await, Err(ReachError::NotConnected { peer: second }));
    one.node().connect(place(&two)).await.unwrap();
    assert_eq!(one.node().send(second, b"nobody hears").await, Ok(0));
    let (heard, mut messages) = mpsc::channel(16);
    two.node().listen(heard).await.unwrap();
    let largest = vec![7; p2p::flood::PAYLOAD_BYTES_MAX];
    for payload in [&b""[..], b"hello", &largest] {
        assert_eq!(one.node().send(second, payload).await, Ok(1));
        let message = messages.recv().await.unwrap();
        assert_eq!((message.from, message.via, &message.payload[..]), (first, Via::Direct, payload));
    }
    let bytes = largest.len() + 1;
    let long = one.node().send(second, &vec![0; bytes]).await;
    assert_eq!(long, Err(ReachError::TooLarge { bytes }));
    assert_eq!(one.node().send(first, b"x").await, Err(ReachError::Own));
    // One who has left hears nothing, and a full one misses what comes.
    drop(messages);
    assert_eq!(one.node().send(second, b"gone").await, Ok(0));
    let (heard, _messages) = mpsc::channel(1);
    two.node().listen(heard).await.unwrap();
    assert_eq!(one.node().send(second, b"first").await, Ok(1));
    assert_eq!(one.node().send(second, b"second").await, Ok(0));
    // A peer whose connection has gone is dialled again.
    one.node().disconnect(second).await.unwrap();
    assert_eq!(one.node().send(second, b"third").await, Ok(0));
    let nobody = Peer::from(NodeId([9; 32]));
    assert_eq!(one.node().send(nobody, b"x").await, Err(ReachError::NotConnected { peer: nobody }));
    stop(vec![one, two]);
}

#[tokio::test]
async fn there_are_so_many_listeners() {
    let one = start(1, options(Vec::new()));
    let mut kept = Vec::new();
    for _ in 0..16 {
        let (heard, messages) = mpsc::channel(1);
        one.node().listen(heard).await.unwrap();
        kept.push(messages);
    }
    let (heard, _messages) = mpsc::channel(1);
    assert_eq!(one.node().listen(heard.clone()).await, Err(ReachError::Busy));
    kept.pop();
    assert_eq!(one.node().listen(heard).await, Ok(()));
    one.stop();
}

/// The address of `overlay` in QUIC.
async fn quic_place(overlay: &Overlay) -> Place {
    let status = overlay.node().status().await.unwrap();
    let address = status.addresses.iter().find(|address| address.contains("/quic-v1")).unwrap();
    format!("{address}/p2p/{}", status.peer).parse().unwrap()
}

#[tokio::test]
async fn peers_meet_over_quic_where_both_speak_it() {
    let quic = || Options { quic: true, ..options(Vec::new()) };
    let (one, two) = (start(1, quic()), start(2, quic()));
    let at = quic_place(&two).await;
    let peer = Peer::from(two.node_id());
    assert_eq!(one.node().connect(at.clone()).await, Ok(peer));
    contacts(&one, 1).await;
    let menu = ValueName::parse("menu", one.node_id()).unwrap();
    assert_eq!(one.dht().put(&menu, b"soup", LIFE).await.unwrap().0, 1);
    assert_eq!(two.dht().get(&menu).await.unwrap().0.unwrap().payload, b"soup");
    // Control: who does not speak it cannot be told to.
    let three = start(3, options(Vec::new()));
    assert!(matches!(three.node().connect(at).await, Err(ReachError::Unreachable { .. })));
    assert_eq!(three.node().status().await.unwrap().addresses.len(), 1);
    stop(vec![one, two, three]);
}

#[tokio::test]
async fn a_port_of_udp_that_is_taken_stops_the_start() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let quic = || Options { quic: true, ..options(Vec::new()) };
    let refused = Overlay::start(&Identity::from_seed(&[1; 32]), at, quic());
    assert!(matches!(refused, Err(OverlayError::Listen { .. })));
    // Control: with any port another one is found.
    start(1, quic()).stop();
}

#[tokio::test]
async fn gossip_is_signed_by_its_origin_and_passes_others() {
    // A line of three.
    let mut all = vec![start(1, options(Vec::new()))];
    for seed in 2..=3 {
        let before = place(&all[all.len() - 1]);
        let next = start(seed, options(Vec::new()));
        next.node().connect(before).await.unwrap();
        all.push(next);
    }
    let (heard, mut messages) = mpsc::channel(4096);
    all[2].node().listen(heard).await.unwrap();
    // The mesh is made by heartbeats; what is said before reaches nobody.
    let message = until("a message by gossip", async || {
        all[0].node().gossip(b"hello").await.unwrap();
        messages.try_recv().ok()
    })
    .await;
    assert_eq!((message.via, message.from), (Via::Gossip, Peer::from(all[0].node_id())));
    assert_eq!(&message.payload[..], b"hello");
    let long = vec![0; 20_000];
    assert_eq!(all[0].node().gossip(&long).await, Err(ReachError::TooLarge { bytes: 20_000 }));
    let without = start(4, Options { gossip: false, ..options(Vec::new()) });
    assert_eq!(without.node().gossip(b"x").await, Err(ReachError::NoGossip));
    all.push(without);
    stop(all);
}

#[tokio::test]
async fn a_closed_overlay_connects_to_those_on_its_list_only() {
    let (one, stranger) = (start(1, options(Vec::new())), start(2, options(Vec::new())));
    let listed = Peer::from(one.node_id());
    let closed = start(3, Options { allow: Some(vec![listed]), ..options(Vec::new()) });
    assert_eq!(closed.node().connect(place(&one)).await, Ok(listed));
    // Neither way.
    let dialled = closed.node().connect(place(&stranger)).await;
    assert!(matches!(dialled, Err(ReachError::Unreachable { .. })), "{dialled:?}");
    // The stranger's handshake has ended when it is refused, so for a moment it may take itself for connected.
    let _ = stranger.node().connect(place(&closed)).await;
    assert_eq!(connected(&closed).await, [listed]);
    lists_only(&stranger, &[]).await;
    assert_eq!(connected(&closed).await, [listed]);
    stop(vec![one, stranger, closed]);
}

#[tokio::test]
async fn a_relay_without_an_id_stops_the_start() {
    let relay: Place = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let start = |relay| {
        let options = Options { relays: vec![relay], ..options(Vec::new()) };
        Overlay::start(&Identity::from_seed(&[1; 32]), any, options)
    };
    let Err(refused) = start(relay.clone()) else { panic!("it cannot be asked") };
    assert!(matches!(&refused, OverlayError::Nameless { relay: told } if *told == relay.to_string()));
    // Control.
    let named = format!("{relay}/p2p/{}", Peer::from(NodeId([9; 32])));
    start(named.parse().unwrap()).unwrap().stop();
}

#[tokio::test]
async fn whom_a_node_is_connected_to_already_it_connects_to_however_often_it_is_told() {
    for nat in [false, true] {
        let (one, two) = (start(1, Options { nat, ..options(Vec::new()) }), start(2, options(Vec::new())));
        let peer = Peer::from(two.node_id());
        let nameless: Place = format!("/ip4/127.0.0.1/tcp/{}", two.address.port()).parse().unwrap();
        for _ in 0..12 {
            assert_eq!(one.node().connect(nameless.clone()).await, Ok(peer), "nat={nat}");
        }
        assert_eq!(connected(&one).await, [peer]);
        stop(vec![one, two]);
    }
}

#[tokio::test]
async fn a_relay_lets_others_be_reached_over_it() {
    let relay = start(1, Options { relay: true, ..options(Vec::new()) });
    let behind = start(2, Options { relays: vec![place(&relay)], ..options(Vec::new()) });
    let circuit = until("an address by the relay", async || {
        let addresses = behind.node().status().await.unwrap().addresses;
        addresses.into_iter().find(|address| address.contains("p2p-circuit"))
    })
    .await;
    let peer = Peer::from(behind.node_id());
    let other = start(3, options(Vec::new()));
    // It may name the peer behind it or not.
    let whole = circuit.ends_with(&peer.to_string());
    let circuit: Place = if whole { circuit } else { format!("{circuit}/p2p/{peer}") }.parse().unwrap();
    assert_eq!(other.node().connect(circuit).await, Ok(peer));
    let connected = other.node().status().await.unwrap().connected;
    assert!(connected.iter().any(|one| one.located.peer == peer && one.relayed), "{connected:?}");
    assert_eq!(other.node().send(peer, b"by a relay").await, Ok(0));
    stop(vec![relay, behind, other]);
}
