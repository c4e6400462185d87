//! Static networks: the nearest node is found exactly, in O(log n) hops (Maymounkov & Mazières 2002; Cai & Devroye 2013).
//!
//! Control: the same network whose nodes know nothing of their own half's deeper parts, so that lookups go astray.

use kernel::{Micros, Rng};
use p2p::Keys;
use p2p::kad::{Command, Outcome, Region, Target, Token};

use super::network::{BEGIN, Node, Ranks, manner, newborn};
use super::{Bound, Claim, Figure};
use crate::swarm::{Swarm, Terms, Watcher};

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Nodes.
    pub nodes: usize,
    /// Contacts in a bucket.
    pub k: u8,
    /// Questions at once.
    pub alpha: u8,
    /// Lookups of drawn places from drawn nodes.
    pub lookups: usize,
    /// Decides everything.
    pub seed: u64,
}

/// Lookups that begin within one second of virtual time.
const LOOKUPS_A_SECOND: usize = 1000;
/// Bits that the control's tables know.
const CONTROL_BITS: u32 = 6;

#[derive(Default)]
struct Ends {
    wanted: Vec<u32>,
    done: u64,
    hops: u64,
    asked: u64,
    exact: u64,
}

impl Watcher<Node> for Ends {
    fn reported(&mut self, _: Micros, _: u32, outcome: Outcome<u32>) {
        if let Outcome::Found(Token(n), found, cost) = outcome {
            self.done += 1;
            self.hops += u64::from(cost.hops);
            self.asked += u64::from(cost.asked);
            self.exact += u64::from(found.first() == Some(&self.wanted[n as usize]));
        }
    }
}

/// Runs the claim and its control.
#[must_use]
pub fn run(params: &Params) -> Claim {
    let (figures, hash, delivered) = measure(params, u64::BITS);
    let small = Params { nodes: params.nodes.min(10_000), lookups: params.lookups.min(1000), ..*params };
    let (control, _, _) = measure(&small, CONTROL_BITS);
    Claim { name: "kademlia", figures, control, hash, delivered }
}

fn measure(params: &Params, depth: u32) -> (Vec<Figure>, u64, u64) {
    let mut rng = Rng::new(params.seed);
    let ranks = Ranks::drawn(params.nodes, &mut rng);
    let nodes = ranks.0.len() as u64;
    let config = manner(params.k, params.alpha, 1, Region::Nearest);
    let mut swarm = Swarm::new(Terms { seed: params.seed, ..Terms::default() });
    for me in 0..nodes as u32 {
        let mut node = newborn(me, ranks.key(me), config, rng.fork(u64::from(me)));
        ranks.fill(&mut node, me, config.k(), depth, &mut rng);
        swarm.add(ranks.key(me), node);
    }
    let (mut ends, mut at) = (Ends::default(), BEGIN);
    while ends.wanted.len() < params.lookups {
        for _ in 0..LOOKUPS_A_SECOND.min(params.lookups - ends.wanted.len()) {
            let (from, target) = (rng.below(nodes) as u32, rng.next_u64());
            let wanted = ranks.nearest(target, 1, |contact| contact != from);
            let token = Token(ends.wanted.len() as u64);
            ends.wanted.extend(wanted);
            let command = Command::FindNode(token, Target::at(target));
            swarm.command(at + rng.below(1_000_000), from, command);
        }
        at = at.plus_millis(1000);
        swarm.run(at, &mut ends);
    }
    swarm.run(at.plus_millis(60_000), &mut ends);
    let mean = |sum: u64| sum as f64 / ends.done as f64;
    let exact = ends.exact as f64 * 100.0 / params.lookups as f64;
    let figures = vec![
        Figure { name: "mean hops", value: mean(ends.hops), unit: "hops", bound: Bound::AtMost(3.6) },
        Figure { name: "mean questions", value: mean(ends.asked), unit: "RPCs", bound: Bound::AtMost(27.0) },
        Figure { name: "nearest found", value: exact, unit: "%", bound: Bound::AtLeast(100.0) },
    ];
    (figures, swarm.hash(), swarm.counts().delivered)
}
