//! Churn with messages delayed and lost, and the ring after it.
//!
//! Here reads are not atomic and nobody keeps Zave's assumptions, so the invariant may break for a while. What is
//! judged is that the ring is ideal again when churn has ended. Nodes that lost everyone join again, as an owner
//! of such a node would have them.

use kernel::{Micros, Rng};
use p2p::Key;
use p2p::chord::{Chord, Command, Outcome, Settings};
use sim::swarm::lifetime::Lifetime;
use sim::swarm::{Churn, Places, Swarm, Terms, Watcher};

use crate::claim::Run;

/// What churn came to.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Sessions that ended.
    pub deaths: u64,
    /// Living nodes whose predecessor or list is not as in the ideal ring.
    pub off: u64,
    /// Over every event.
    pub hash: u64,
}

const MINUTE: u64 = 60_000_000;
/// The mean session, short, so that every node goes a few times; and how long churn lasts.
const SESSION_MICROS: u64 = 15 * MINUTE;
const CHURN_MICROS: u64 = 60 * MINUTE;
/// Rounds of healing: a node without a ring joins again at the beginning of each.
const HEALING_ROUNDS: u64 = 10;
/// The share of messages that are lost until churn ends: then who does not answer is dead.
const LOSS: f64 = 0.01;

/// Builds a ring by joins, lets it churn and heal, and looks at it.
pub fn run(run: &Run<'_>) -> Found {
    let nodes = run.count("churned") as u32;
    let mut rng = Rng::new(run.seed).fork(0x4348_5552);
    let mut swarm = Swarm::new(Terms { seed: rng.next_u64(), loss: LOSS, ..Terms::default() });
    let mut watch = Watch { rng: rng.fork(1), lives: 0, cut: vec![false; nodes as usize] };
    for node in 0..nodes {
        let key = Key::from_words([rng.next_u64(), rng.next_u64(), 0, u64::from(node)]);
        let machine = watch.fresh(node, key);
        swarm.add(key, machine);
        let first = if node == 0 { Command::Create } else { Command::Join { seed: 0 } };
        swarm.command(Micros(u64::from(node) * 200_000), node, first);
    }
    let mut until = Micros(u64::from(nodes) * 200_000 + 5 * MINUTE);
    swarm.run(until, &mut watch);
    mend(&mut swarm, &mut watch);
    swarm.start_churn(Churn {
        session: Lifetime::Pareto { mean: SESSION_MICROS, shape: 2.0 },
        absence: Lifetime::Exponential { mean: MINUTE },
    });
    let steps = CHURN_MICROS / MINUTE;
    for step in 0..steps {
        run.progress("churn", step, steps);
        until = until + MINUTE;
        swarm.run(until, &mut watch);
        mend(&mut swarm, &mut watch);
    }
    swarm.calm();
    for _ in 0..HEALING_ROUNDS {
        until = until + 3 * MINUTE;
        swarm.run(until, &mut watch);
        mend(&mut swarm, &mut watch);
    }
    swarm.run(until + 3 * MINUTE, &mut watch);
    Found { deaths: swarm.counts().deaths, off: off_ideal(&swarm), hash: swarm.hash() }
}

/// Whoever is outside, or was cut off, joins through a living member.
fn mend(swarm: &mut Swarm<Chord<u32>>, watch: &mut Watch) {
    for node in 0..swarm.places().len() as u32 {
        let cut = std::mem::take(&mut watch.cut[node as usize]);
        if !swarm.places().alive(node) || swarm.node(node).is_member() && !cut {
            continue;
        }
        let Some(seed) = watch.seed(swarm.places(), node) else { continue };
        if cut {
            swarm.command(swarm.now(), node, Command::Leave);
        }
        swarm.command(swarm.now(), node, Command::Join { seed });
    }
}

/// Living nodes whose predecessor or list is not as in the ideal ring.
pub(super) fn off_ideal(swarm: &Swarm<Chord<u32>>) -> u64 {
    let mut ring: Vec<u32> =
        (0..swarm.places().len() as u32).filter(|&node| swarm.places().alive(node)).collect();
    ring.sort_unstable_by_key(|&node| p2p::Keys::point(swarm.places(), node));
    let kept = usize::from(Settings::default().successors).min(ring.len() - 1);
    let off = ring.iter().enumerate().filter(|&(n, &node)| {
        let at = |ahead: usize| ring[(n + ahead) % ring.len()];
        let node = swarm.node(node);
        let list = node.successors().iter().copied().eq((1..=kept).map(at));
        !list || !node.is_member() || node.predecessor() != Some(at(ring.len() - 1))
    });
    off.count() as u64
}

struct Watch {
    rng: Rng,
    lives: u64,
    cut: Vec<bool>,
}

impl Watch {
    fn fresh(&mut self, node: u32, key: Key) -> Chord<u32> {
        self.lives += 1;
        Chord::new(node, key, Settings::default(), self.rng.fork(self.lives))
    }

    fn seed(&mut self, places: &Places, node: u32) -> Option<u32> {
        (0..64).filter_map(|_| places.any_living(&mut self.rng)).find(|&seed| seed != node)
    }
}

impl Watcher<Chord<u32>> for Watch {
    fn reported(&mut self, _: Micros, node: u32, outcome: Outcome<u32>) {
        if matches!(outcome, Outcome::CutOff) {
            self.cut[node as usize] = true;
        }
    }

    fn reborn(&mut self, _: Micros, node: u32, places: &Places) -> Option<(Chord<u32>, Command<u32>)> {
        let machine = self.fresh(node, p2p::Keys::key(places, node));
        let seed = self.seed(places, node)?;
        self.cut[node as usize] = false;
        Some((machine, Command::Join { seed }))
    }
}
