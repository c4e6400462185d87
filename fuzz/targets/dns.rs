//! Questions of DNS, and frames of other registries before them: whatever comes, nothing breaks, and no answer is too long.
#![no_main]

use std::collections::BTreeSet;

use fuzz::Bytes;
use gateway::dns::{Transport, Zone};
use kernel::{Micros, NodeId, Rng};
use libfuzzer_sys::fuzz_target;
use mesh::registry::{Instance, Node, Registry};

const NOW: Micros = Micros(1_700_000_000_000_000);

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    let node = Node { name: "n".into(), address: "10.0.0.1".into(), ..Node::default() };
    let mut registry = Registry::new(NOW, NodeId([1; 32]), 1, 0, node, Rng::new(1)).expect("it is a node");
    let peer = NodeId([2; 32]);
    registry.set_members(NOW, BTreeSet::from([peer]), BTreeSet::new());
    let address = String::from_utf8_lossy(input.piece()).into_owned();
    // What is beyond its bounds is refused.
    let _ = registry.register(NOW, Instance { id: "a".into(), service: "a".into(), address, ..Instance::default() });
    // So is what is no frame.
    let _ = registry.receive(NOW, peer, input.piece());
    let zone = Zone::new("consul", "dc1", 0, 0).expect("it is a domain");
    while !input.is_empty() {
        let message = input.piece();
        let mut out = Vec::new();
        zone.answer(registry.view(), message, Transport::Udp, 1, &mut out);
        assert!(out.len() <= 1232, "an answer is too long for a datagram");
        out.clear();
        zone.answer(registry.view(), message, Transport::Tcp, 1, &mut out);
        assert!(out.len() <= 65_535);
    }
});
