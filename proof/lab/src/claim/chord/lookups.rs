//! Lookups in a ring that was built whole, with or without nodes that died since.

use kernel::{Micros, Rng};
use p2p::Key;
use p2p::chord::{Chord, Command, Outcome, Settings, Tag, distance};
use sim::swarm::{Swarm, Terms, Watcher};

use crate::claim::Run;
use crate::graph::shuffled;

/// A ring in order: the handle of a node is its place.
pub struct Settled {
    points: Vec<u64>,
}

impl Settled {
    /// So many nodes at drawn points.
    pub fn draw(nodes: u64, run: &Run<'_>) -> Settled {
        let mut rng = Rng::new(run.seed).fork(nodes);
        let mut points: Vec<u64> = (0..nodes).map(|_| rng.next_u64()).collect();
        points.sort_unstable();
        points.dedup();
        Settled { points }
    }

    /// Every node with its whole neighbourhood, in one pass: targets of one finger grow with the node.
    fn fill(&self, swarm: &mut Swarm<Chord<u32>>, settings: Settings, rng: &Rng) {
        let count = self.points.len();
        let kept = usize::from(settings.successors).min(count - 1);
        let mut reached = [0usize; 64];
        let (mut successors, mut fingers) = (Vec::new(), Vec::new());
        for (n, &point) in self.points.iter().enumerate() {
            let at = |ahead: usize| ((n + ahead) % count) as u32;
            successors.clear();
            successors.extend((1..=kept).map(at));
            let covered = distance(point, self.points[at(kept) as usize]);
            fingers.clear();
            for (index, reached) in reached.iter_mut().enumerate() {
                let ahead = 1u64 << (63 - index);
                if ahead <= covered {
                    break;
                }
                // `reached` counts nodes from this one on; the next node begins where this one ended, less one.
                *reached = (*reached).saturating_sub(1).max(1);
                while *reached < count && distance(point, self.points[at(*reached) as usize]) < ahead {
                    *reached += 1;
                }
                fingers.push(at(*reached % count));
            }
            let mut own = rng.fork(n as u64);
            let key = Key::from_words([point, own.next_u64(), own.next_u64(), own.next_u64()]);
            let node = Chord::new(n as u32, key, settings, own);
            swarm.add(key, node.settled(Micros(0), at(count - 1), &successors, &fingers));
        }
    }

    /// Who owns `point`: the first living node at or after it.
    fn owner(&self, swarm: &Swarm<Chord<u32>>, point: u64) -> u32 {
        let first = self.points.partition_point(|&own| own < point);
        let count = self.points.len();
        let living =
            (0..count).map(|n| ((first + n) % count) as u32).find(|&node| swarm.places().alive(node));
        living.expect("the origin of a lookup lives")
    }
}

/// What lookups came to.
#[derive(Default)]
pub struct Lookups {
    /// Lookups by their hops.
    by_hops: Vec<u64>,
    /// Lookups that ended somewhere else than at the owner.
    pub wrong: u64,
    /// Lookups that ended nowhere.
    pub failed: u64,
    /// Requests without an answer.
    pub timeouts: u64,
    micros: u64,
    /// Over every event.
    pub hash: u64,
}

/// Microseconds between the beginnings of two lookups.
const SPACING_MICROS: u64 = 500;
/// How long the last lookup may take, in microseconds: many timeouts.
const PATIENCE_MICROS: u64 = 600_000_000;

impl Lookups {
    /// Looks drawn keys up from drawn living nodes, after the run's share of nodes died.
    pub fn run(run: &Run<'_>, ring: &Settled, stream: u64) -> Lookups {
        let count = ring.points.len() as u32;
        let settings = Settings {
            successors: run.count("successors") as u8,
            stabilize_micros: 0,
            finger_micros: 0,
            repair_micros: 0,
            unite_micros: 0,
            ..Settings::default()
        };
        let mut rng = Rng::new(run.seed).fork(100 + stream);
        let mut swarm = Swarm::new(Terms { seed: rng.next_u64(), ..Terms::default() });
        run.progress("building the ring", 0, 1);
        ring.fill(&mut swarm, settings, &rng.fork(1));
        let dead = (run.share("fail") * f64::from(count)) as usize;
        shuffled(count, &mut rng)[..dead].iter().for_each(|&node| swarm.fell(node));
        let lookups = run.count("lookups");
        let mut watch = Watch { found: Lookups::default(), expected: Vec::new(), begun: Vec::new() };
        for n in 0..lookups {
            let origin = swarm.places().any_living(&mut rng).expect("at most 60 % died");
            let key = Key::from_words([rng.next_u64(), 0, 0, n]);
            watch.expected.push(ring.owner(&swarm, key.point()));
            watch.begun.push(Micros(n * SPACING_MICROS));
            swarm.command(Micros(n * SPACING_MICROS), origin, Command::Find { tag: Tag(n), key });
        }
        let steps = 100;
        for step in 1..=steps {
            run.progress("lookups", step, steps);
            let part = lookups * SPACING_MICROS * step / steps;
            swarm.run(Micros(if step == steps { part + PATIENCE_MICROS } else { part }), &mut watch);
        }
        let mut found = watch.found;
        found.failed += lookups - found.ended();
        found.hash = swarm.hash();
        found
    }

    /// Lookups that ended, well or not.
    pub fn ended(&self) -> u64 {
        self.by_hops.iter().sum::<u64>() + self.failed
    }

    /// The mean of the hops.
    pub fn mean(&self) -> f64 {
        let sum: u64 = self.by_hops.iter().zip(0..).map(|(count, hops)| count * hops).sum();
        sum as f64 / self.by_hops.iter().sum::<u64>() as f64
    }

    /// The mean of the time, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.micros as f64 / self.by_hops.iter().sum::<u64>() as f64 / 1000.0
    }

    /// The hops that at least `share` of the lookups kept to.
    pub fn quantile(&self, share: f64) -> f64 {
        let all = self.by_hops.iter().sum::<u64>() as f64;
        let mut seen = 0;
        for (hops, count) in self.by_hops.iter().enumerate() {
            seen += count;
            if seen as f64 >= all * share {
                return hops as f64;
            }
        }
        f64::NAN
    }
}

struct Watch {
    found: Lookups,
    expected: Vec<u32>,
    begun: Vec<Micros>,
}

impl Watcher<Chord<u32>> for Watch {
    fn reported(&mut self, now: Micros, _: u32, outcome: Outcome<u32>) {
        match outcome {
            Outcome::Found { tag, owner, hops, timeouts } => {
                let hops = usize::from(hops);
                if self.found.by_hops.len() <= hops {
                    self.found.by_hops.resize(hops + 1, 0);
                }
                self.found.by_hops[hops] += 1;
                self.found.wrong += u64::from(owner != self.expected[tag.0 as usize]);
                self.found.timeouts += u64::from(timeouts);
                self.found.micros += now.since(self.begun[tag.0 as usize]);
            }
            Outcome::NotFound { .. } => self.found.failed += 1,
            // A settled ring does nothing else.
            _ => {}
        }
    }
}
