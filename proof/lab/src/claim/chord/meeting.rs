//! Two rings, one contact: how long until they are one.

use kernel::{Micros, Rng};
use p2p::Key;
use p2p::chord::{Chord, Command, Outcome, Settings};
use sim::swarm::{Swarm, Terms, Watcher};

use super::churn::off_ideal;
use crate::claim::Run;

/// What the meeting came to.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Nodes off the one ring at the end.
    pub off: u64,
    /// Seconds from the contact until there was one ring; those that were waited, if it did not come.
    pub seconds: u64,
    /// Over every event.
    pub hash: u64,
}

const SECOND: u64 = 1_000_000;
/// How long both rings stand before they meet: so that they have their fingers.
const APART_MICROS: u64 = 15 * 60 * SECOND;
/// How long is waited for one ring.
const SECONDS_MAX: u64 = 1800;

/// Two settled rings of all these nodes together, a third of them in one; a node of each meets one of the other.
pub fn run(run: &Run<'_>) -> Found {
    let nodes = run.count("churned") as u32;
    let mut rng = Rng::new(run.seed).fork(0x4D45_4554);
    let mut swarm = Swarm::new(Terms { seed: rng.next_u64(), ..Terms::default() });
    let keys: Vec<Key> = (0..nodes).map(|n| Key::from_words([rng.next_u64(), 0, 0, u64::from(n)])).collect();
    for (n, &key) in keys.iter().enumerate() {
        let ring = |node: &u32| node.is_multiple_of(3);
        let mut members: Vec<u32> = (0..nodes).filter(|node| ring(node) == ring(&(n as u32))).collect();
        members.sort_by_key(|node| keys[*node as usize].point());
        let own = members.iter().position(|node| *node == n as u32).expect("a node is of its own ring");
        let at = |ahead: usize| members[(own + ahead) % members.len()];
        let kept = usize::from(Settings::default().successors).min(members.len() - 1);
        let after: Vec<u32> = (1..=kept).map(at).collect();
        let machine = Chord::new(n as u32, key, Settings::default(), rng.fork(n as u64));
        swarm.add(key, machine.settled(Micros(0), at(members.len() - 1), &after, &[]));
    }
    swarm.run(Micros(APART_MICROS), &mut Unheard);
    swarm.command(swarm.now(), 0, Command::Meet { peer: 1 });
    let mut found = Found { off: u64::MAX, seconds: 0, hash: 0 };
    while found.off > 0 && found.seconds < SECONDS_MAX {
        run.progress("rings that met", found.seconds, SECONDS_MAX);
        found.seconds += 1;
        swarm.run(Micros(APART_MICROS + found.seconds * SECOND), &mut Unheard);
        found.off = off_ideal(&swarm);
    }
    Found { hash: swarm.hash(), ..found }
}

/// Nobody is told anything.
struct Unheard;

impl Watcher<Chord<u32>> for Unheard {
    fn reported(&mut self, _: Micros, _: u32, _: Outcome<u32>) {}
}
