//! Nodes side by side in one thread, with one clock that only the test moves.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use fabric::Identity;
use fabric::link::{Cause, Event, Lane, LinkMeters, Members, Settings, Standalone};
use kernel::{Micros, NodeId, Spoken};

/// Turns of all nodes that a condition may take. A turn in which nothing is ready waits a millisecond.
const ROUNDS_MAX: usize = 20_000;

pub struct Node {
    pub identity: Identity,
    pub members: Arc<Members>,
    pub address: SocketAddr,
    pub loops: Standalone,
    /// What arrived.
    pub frames: Vec<(NodeId, Lane, Vec<u8>)>,
    pub events: Vec<Event>,
    /// Takes no turns: as a process that is stopped.
    pub stopped: bool,
}

pub struct World {
    pub nodes: Vec<Node>,
    pub now: Micros,
}

pub fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

impl Node {
    /// A node at `address`, whose members are `members`.
    pub fn at(identity: Identity, address: &str, members: &[NodeId], incarnation: u64) -> Node {
        let members = Arc::new(Members::new(members.iter().copied().collect()));
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let settings = Settings { incarnation, seed: incarnation, spoken: Spoken::ALL };
        let loops = Standalone::new(&identity, &members, settings, 256, Some(listener)).unwrap();
        Node { identity, members, address, loops, frames: Vec::new(), events: Vec::new(), stopped: false }
    }

    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    pub fn meters(&self) -> &LinkMeters {
        self.loops.links.meters()
    }

    pub fn ended(&self, cause: Cause) -> u64 {
        self.meters().ended(cause)
    }

    pub fn send(&mut self, to: NodeId, lane: Lane, payload: &[u8]) {
        self.loops.links.send(to, lane, payload).unwrap();
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        Lane::ALL.into_iter().all(|lane| self.loops.links.is_up(node, lane))
    }

    pub fn has_event(&self, which: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(which)
    }

    fn turn(&mut self, wait: Duration, now: Micros) {
        let (frames, events) = (&mut self.frames, &self.events);
        let mut receive = |node: NodeId, lane: Lane, payload: &[u8]| {
            let last = events.iter().rev().find_map(|event| match event {
                Event::Up { node: of, lane: on, .. } if (*of, *on) == (node, lane) => Some(true),
                Event::Down { node: of, lane: on, .. } if (*of, *on) == (node, lane) => Some(false),
                _ => None,
            });
            assert_eq!(last, Some(true), "a frame arrived before the host was told of its link");
            frames.push((node, lane, payload.to_vec()));
        };
        self.loops.begin_turn(wait, || now, &mut receive).unwrap();
        self.loops.end_turn(now, &mut receive);
        self.loops.links.take_events(&mut self.events);
    }
}

impl World {
    /// So many nodes, all members, that know nobody's address yet.
    pub fn new(count: u8) -> World {
        let identities: Vec<Identity> = (1..=count).map(identity).collect();
        let ids: Vec<NodeId> = identities.iter().map(Identity::id).collect();
        let make = |(identity, n)| Node::at(identity, "127.0.0.1:0", &ids, n);
        World { nodes: identities.into_iter().zip(1..).map(make).collect(), now: Micros(1_000_000_000) }
    }

    /// Two nodes with both links up.
    pub fn linked() -> World {
        let mut world = World::new(2);
        world.introduce();
        world.until("both links are up", |nodes| {
            nodes[0].is_up(nodes[1].id()) && nodes[1].is_up(nodes[0].id())
        });
        world
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// Everybody learns everybody's address.
    pub fn introduce(&mut self) {
        let addresses: Vec<_> = self.nodes.iter().map(|node| (node.id(), node.address)).collect();
        for node in &mut self.nodes {
            for (id, address) in &addresses {
                node.loops.links.set_peer(self.now, *id, vec![*address]);
            }
        }
    }

    /// One turn of every node, and a millisecond.
    pub fn round(&mut self) {
        self.now = self.now.plus_millis(1);
        for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
            node.turn(Duration::from_millis(1), self.now);
        }
    }

    pub fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }

    /// Lets time pass in which nobody takes a turn, then one turn.
    pub fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_millis(ms);
        self.round();
    }

    /// Lets time pass, and then turns until `nodes` have received something: the kernel takes its own time.
    pub fn pass_and_hear(&mut self, ms: u64, nodes: &[usize]) {
        let before: Vec<u64> = self.nodes.iter().map(|node| node.meters().bytes_in.get()).collect();
        self.pass(ms);
        self.until("all have heard", |all| {
            nodes.iter().all(|&at| all[at].meters().bytes_in.get() > before[at])
        });
    }

    /// Turns until it is so.
    pub fn until(&mut self, what: &str, so: impl Fn(&[Node]) -> bool) {
        for _ in 0..ROUNDS_MAX {
            if so(&self.nodes) {
                return;
            }
            self.round();
        }
        let endings: Vec<BTreeSet<_>> =
            self.nodes.iter().map(|node| node.meters().endings().filter(|(_, n)| *n > 0).collect()).collect();
        panic!("not in {ROUNDS_MAX} rounds: {what}; connections ended: {endings:?}");
    }
}
