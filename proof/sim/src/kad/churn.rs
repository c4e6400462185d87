//! Churn: lookups find the nearest node that lives, while all nodes come and go.
//!
//! A node comes back under its key with an empty table and joins by one that lives. A lookup is right if it finds the
//! nearest of those that had joined before it and lived until its end. Control: buckets and answers of one contact.

use kernel::{Micros, Rng};
use p2p::Keys;
use p2p::kad::{Command, Config, Outcome, Region, Target, Token};

use super::network::{BEGIN, Node, Ranks, manner, newborn};
use super::{Bound, Claim, Figure};
use crate::swarm::lifetime::Lifetime;
use crate::swarm::{Churn, Places, Swarm, Terms, Watcher};

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Nodes that live at one time, about.
    pub nodes: usize,
    /// Contacts in a bucket.
    pub k: u8,
    /// Questions at once.
    pub alpha: u8,
    /// Mean session, in minutes; times are exponential.
    pub session: u64,
    /// Minutes before the first lookup.
    pub warm: u64,
    /// Lookups, in [`ROUNDS`] rounds.
    pub lookups: usize,
    /// Decides everything.
    pub seed: u64,
}

/// Rounds of lookups, each of half a minute.
pub const ROUNDS: usize = 20;
/// A node is away for a sixth of its session, on average.
const ABSENCE: u64 = 6;
/// Candidates for the nearest that lives to the end of a round.
const CANDIDATES: usize = 16;

struct Ends {
    rng: Rng,
    config: Config,
    joined: Vec<bool>,
    births: u64,
    found: Vec<(u64, Option<u32>)>,
    asked: u64,
}

impl Watcher<Node> for Ends {
    fn reported(&mut self, _: Micros, node: u32, outcome: Outcome<u32>) {
        match outcome {
            Outcome::Joined { .. } => self.joined[node as usize] = true,
            Outcome::Found(Token(n), found, cost) => {
                self.asked += u64::from(cost.asked);
                self.found.push((n, found.first().copied()));
            }
            Outcome::Value(..) | Outcome::Stored(..) | Outcome::Providers(..) | Outcome::Refused(..) => {}
        }
    }

    fn reborn(&mut self, _: Micros, node: u32, places: &Places) -> Option<(Node, Command<u32>)> {
        self.joined[node as usize] = false;
        self.births += 1;
        let rng = self.rng.fork(self.births);
        let by = (0..1000).find_map(|_| {
            places.any_living(&mut self.rng).filter(|other| *other != node && self.joined[*other as usize])
        })?;
        Some((newborn(node, places.key(node), self.config, rng), Command::Join(by)))
    }
}

/// Runs the claim and its control.
#[must_use]
pub fn run(params: &Params) -> Claim {
    let (figures, hash, delivered) = measure(params);
    let nodes = params.nodes.min(2000);
    let (control, _, _) =
        measure(&Params { nodes, k: 1, alpha: 1, lookups: params.lookups.min(2000), ..*params });
    Claim { name: "churn", figures, control, hash, delivered }
}

fn measure(params: &Params) -> (Vec<Figure>, u64, u64) {
    let mut rng = Rng::new(params.seed);
    let ranks = Ranks::drawn(params.nodes + params.nodes / ABSENCE as usize, &mut rng);
    let count = ranks.0.len() as u32;
    let config = manner(params.k, params.alpha, 1, Region::Nearest);
    let mut swarm = Swarm::new(Terms { seed: params.seed, ..Terms::default() });
    for me in 0..count {
        let mut node = newborn(me, ranks.key(me), config, rng.fork(u64::from(me)));
        ranks.fill(&mut node, me, config.k(), u64::BITS, &mut rng);
        swarm.add(ranks.key(me), node);
    }
    let (joined, found) = (vec![true; count as usize], Vec::new());
    let mut ends = Ends { rng: rng.fork(u64::MAX), config, joined, births: 0, found, asked: 0 };
    swarm.run(BEGIN, &mut ends);
    let minutes = |n: u64| n * 60_000_000;
    let mean = minutes(params.session);
    let (session, absence) = (Lifetime::Exponential { mean }, Lifetime::Exponential { mean: mean / ABSENCE });
    swarm.start_churn(Churn { session, absence });
    let mut at = BEGIN + minutes(params.warm);
    swarm.run(at, &mut ends);
    let (mut right, mut judged, mut ended) = (0u64, 0u64, 0u64);
    for _ in 0..ROUNDS {
        ends.found.clear();
        let ready = |contact: u32, swarm: &Swarm<Node>, ends: &Ends| {
            swarm.places().alive(contact) && ends.joined[contact as usize]
        };
        let mut wanted = Vec::new();
        while wanted.len() < params.lookups / ROUNDS {
            let (from, target) = (rng.below(u64::from(count)) as u32, rng.next_u64());
            if ready(from, &swarm, &ends) {
                let counts = |contact| contact != from && ready(contact, &swarm, &ends);
                let near = ranks.nearest(target, CANDIDATES, counts);
                let token = Token(wanted.len() as u64);
                swarm.command(at + 1, from, Command::FindNode(token, Target::at(target)));
                wanted.push((target, near));
            }
        }
        at = at.plus_millis(30_000);
        swarm.run(at, &mut ends);
        ended += ends.found.len() as u64;
        for (n, first) in &ends.found {
            let (target, near) = &wanted[*n as usize];
            // Who died and came back meanwhile is not ready, or was found as well.
            let Some(nearest) = near.iter().find(|contact| ready(**contact, &swarm, &ends)) else { continue };
            judged += 1;
            let distance = |contact: u32| ranks.point(contact) ^ target;
            right += u64::from(first.is_some_and(|first| distance(first) <= distance(*nearest)));
        }
    }
    let counts = swarm.counts();
    let figures = vec![
        Figure {
            name: "nearest alive found",
            value: right as f64 * 100.0 / judged as f64,
            unit: "%",
            bound: Bound::AtLeast(99.9),
        },
        Figure {
            name: "mean questions",
            value: ends.asked as f64 / ended as f64,
            unit: "RPCs",
            bound: Bound::None,
        },
        Figure { name: "nodes that came back", value: counts.births as f64, unit: "", bound: Bound::None },
    ];
    (figures, swarm.hash(), counts.delivered)
}
