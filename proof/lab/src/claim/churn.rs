//! Kademlia under churn: lookups find the nearest node that lives, while all nodes come and go.
//!
//! A node comes back under its key with an empty table and joins by one that lives. A lookup is right if it finds the
//! nearest of those that had joined before it and lived until its end.

use kernel::{Micros, Rng};
use p2p::Keys;
use p2p::kad::{Command, Config, Outcome, Region, Target, Token};
use sim::kad::network::{BEGIN, Node, Ranks, manner, newborn};
use sim::swarm::lifetime::Lifetime;
use sim::swarm::{Churn, Places, Swarm, Terms, Watcher};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "churn",
    statement: "While nodes stay for an hour and are away for ten minutes on average, both exponentially distributed, and \
                come back knowing nobody but one that lives, at least 99.9 % of lookups find the nearest node that lives.",
    reference: "Maymounkov & Mazières 2002, Kademlia, §2.3 and §2.4; Stutzbach & Rejaie 2006, Understanding churn in \
                peer-to-peer networks",
    parameters: &[
        Parameter {
            name: "nodes",
            help: "Nodes that live at one time, about",
            kind: Kind::Count { default: 10_000, min: 200, max: 1_000_000 },
        },
        Parameter {
            name: "k",
            help: "Contacts in a bucket and an answer",
            kind: Kind::Count { default: 20, min: 1, max: 32 },
        },
        Parameter {
            name: "alpha",
            help: "Questions of a lookup at once",
            kind: Kind::Count { default: 3, min: 1, max: 16 },
        },
        Parameter {
            name: "session",
            help: "Minutes that a node stays, on average",
            kind: Kind::Count { default: 60, min: 2, max: 10_000 },
        },
        Parameter {
            name: "warm",
            help: "Minutes of churn before the first lookup",
            kind: Kind::Count { default: 60, min: 1, max: 10_000 },
        },
        Parameter {
            name: "lookups",
            help: "Lookups, in 20 rounds of half a minute",
            kind: Kind::Count { default: 10_000, min: 200, max: 1_000_000 },
        },
    ],
    small: &[("nodes", "300"), ("warm", "30"), ("lookups", "400")],
    run: |run| {
        let (k, alpha) = (run.count("k"), run.count("alpha"));
        let found =
            Found::run(run, Size { nodes: run.count("nodes"), lookups: run.count("lookups"), k, alpha });
        let figures = found.figures();
        Findings { figures, plot: Some(plot(&found)), trace_hash: found.hash }
    },
    control: Control {
        statement: "Buckets and answers of one contact, one question at once: the nearest are lost from sight.",
        run: |run| {
            let (nodes, lookups) = (run.count("nodes").min(2000), run.count("lookups").min(2000));
            let found = Found::run(run, Size { nodes, lookups, k: 1, alpha: 1 });
            Findings { figures: found.figures(), plot: None, trace_hash: found.hash }
        },
    },
};

/// Rounds of lookups.
const ROUNDS: u64 = 20;
/// How long each of them lasts.
const ROUND_MS: u64 = 30_000;
/// A node is away for a sixth of its session, on average.
const ABSENCE: u64 = 6;
/// Candidates for the nearest that lives to the end of a round.
const CANDIDATES: usize = 16;

struct Size {
    nodes: u64,
    lookups: u64,
    k: u64,
    alpha: u64,
}

struct Found {
    right: u64,
    judged: u64,
    begun: u64,
    ended: u64,
    asked: u64,
    hops: u64,
    births: u64,
    deaths: u64,
    delivered: u64,
    lost: u64,
    living: f64,
    /// The share that was right in each round, in percent, over minutes of churn.
    rounds: Vec<(f64, f64)>,
    hash: u64,
}

impl Found {
    fn figures(&self) -> Vec<Figure> {
        let mean = |sum: u64| sum as f64 / self.ended as f64;
        let right = self.right as f64 * 100.0 / self.judged as f64;
        // Those whose asker died meanwhile do not end.
        let ended = self.ended as f64 * 100.0 / self.begun as f64;
        vec![
            Figure::new("nearest alive found", right, "%", Bound::AtLeast(99.9)),
            Figure::new("lookups that ended", ended, "%", Bound::AtLeast(98.0)),
            Figure::new("lookups judged", self.judged as f64, "lookups", Bound::Told),
            Figure::new("mean questions", mean(self.asked), "RPCs", Bound::Told),
            Figure::new("mean hops", mean(self.hops), "hops", Bound::Told),
            Figure::new("nodes alive at the end", self.living, "nodes", Bound::Told),
            Figure::new("nodes that died", self.deaths as f64, "nodes", Bound::Told),
            Figure::new("nodes that came back", self.births as f64, "nodes", Bound::Told),
            Figure::new("messages delivered", self.delivered as f64, "messages", Bound::Told),
            Figure::new("messages lost at the dead", self.lost as f64, "messages", Bound::Told),
        ]
    }

    fn run(run: &Run<'_>, size: Size) -> Found {
        let mut rng = Rng::new(run.seed);
        let (ranks, mut swarm, config) = network(run, &size, &mut rng);
        let count = ranks.0.len() as u64;
        let mut watch = Watch {
            rng: rng.fork(u64::MAX),
            config,
            joined: vec![true; count as usize],
            births: 0,
            found: Vec::new(),
            asked: 0,
            hops: 0,
        };
        swarm.run(BEGIN, &mut watch);
        let mean = minutes(run.count("session"));
        let (session, absence) =
            (Lifetime::Exponential { mean }, Lifetime::Exponential { mean: mean / ABSENCE });
        swarm.start_churn(Churn { session, absence });
        let warm = run.count("warm");
        for minute in 1..=warm {
            run.swarm("churning", minute - 1, warm, swarm.counts());
            swarm.run(BEGIN + minutes(minute), &mut watch);
        }
        let mut found = Found {
            right: 0,
            judged: 0,
            begun: 0,
            ended: 0,
            asked: 0,
            hops: 0,
            births: 0,
            deaths: 0,
            delivered: 0,
            lost: 0,
            living: 0.0,
            rounds: Vec::new(),
            hash: 0,
        };
        for round in 0..ROUNDS {
            run.swarm("looking up", round, ROUNDS, swarm.counts());
            found.round(&ranks, &mut swarm, &mut watch, size.lookups / ROUNDS, &mut rng);
        }
        let counts = swarm.counts();
        run.swarm("looking up", ROUNDS, ROUNDS, counts);
        Found {
            asked: watch.asked,
            hops: watch.hops,
            births: counts.births,
            deaths: counts.deaths,
            delivered: counts.delivered,
            lost: counts.lost,
            living: swarm.places().living() as f64,
            hash: swarm.hash(),
            ..found
        }
    }

    /// Lookups that begin together, judged when their time is over.
    fn round(
        &mut self,
        ranks: &Ranks,
        swarm: &mut Swarm<Node>,
        watch: &mut Watch,
        lookups: u64,
        rng: &mut Rng,
    ) {
        let at = swarm.now();
        let mut wanted = Vec::new();
        while (wanted.len() as u64) < lookups {
            let (from, target) = (rng.below(ranks.0.len() as u64) as u32, rng.next_u64());
            if watch.is_ready(from, swarm) {
                let counts = |contact| contact != from && watch.is_ready(contact, swarm);
                let near = ranks.nearest(target, CANDIDATES, counts);
                let token = Token(wanted.len() as u64);
                swarm.command(at + 1, from, Command::FindNode(token, Target::at(target)));
                wanted.push((target, near));
            }
        }
        swarm.run(at.plus_millis(ROUND_MS), watch);
        let (mut right, mut judged) = (0, 0);
        let found = std::mem::take(&mut watch.found);
        for (n, first) in &found {
            let (target, near) = &wanted[*n as usize];
            // Who died and came back meanwhile is not ready, or was found as well.
            let Some(nearest) = near.iter().find(|contact| watch.is_ready(**contact, swarm)) else {
                continue;
            };
            judged += 1;
            let distance = |contact: u32| ranks.point(contact) ^ target;
            right += u64::from(first.is_some_and(|first| distance(first) <= distance(*nearest)));
        }
        self.begun += wanted.len() as u64;
        self.ended += found.len() as u64;
        self.right += right;
        self.judged += judged;
        let minute = swarm.now().since(BEGIN) as f64 / minutes(1) as f64;
        self.rounds.push((minute, right as f64 * 100.0 / judged as f64));
    }
}

const fn minutes(n: u64) -> u64 {
    n * 60_000_000
}

/// So many nodes that about as many live as are wanted, all of them alive and settled.
fn network(run: &Run<'_>, size: &Size, rng: &mut Rng) -> (Ranks, Swarm<Node>, Config) {
    let ranks = Ranks::drawn((size.nodes + size.nodes / ABSENCE) as usize, rng);
    let count = ranks.0.len() as u32;
    let config = manner(size.k as u8, size.alpha as u8, 1, Region::Nearest);
    let mut swarm = Swarm::new(Terms { seed: run.seed, ..Terms::default() });
    for me in 0..count {
        if me % 1024 == 0 {
            run.progress("building the network", u64::from(me), u64::from(count));
        }
        let mut node = newborn(me, ranks.key(me), config, rng.fork(u64::from(me)));
        ranks.fill(&mut node, me, config.k(), u64::BITS, rng);
        swarm.add(ranks.key(me), node);
    }
    (ranks, swarm, config)
}

struct Watch {
    rng: Rng,
    config: Config,
    joined: Vec<bool>,
    births: u64,
    /// Lookups that ended in this round, each with the nearest it found.
    found: Vec<(u64, Option<u32>)>,
    asked: u64,
    hops: u64,
}

impl Watch {
    fn is_ready(&self, contact: u32, swarm: &Swarm<Node>) -> bool {
        swarm.places().alive(contact) && self.joined[contact as usize]
    }
}

impl Watcher<Node> for Watch {
    fn reported(&mut self, _: Micros, node: u32, outcome: Outcome<u32>) {
        match outcome {
            Outcome::Joined { .. } => self.joined[node as usize] = true,
            Outcome::Found(Token(n), found, cost) => {
                self.asked += u64::from(cost.asked);
                self.hops += u64::from(cost.hops);
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

fn plot(found: &Found) -> Plot {
    let ends = [found.rounds.first(), found.rounds.last()].into_iter().flatten();
    Plot {
        title: "Lookups that found the nearest node alive".into(),
        x: Axis::linear("minutes of churn"),
        y: Axis::linear("right, percent"),
        series: vec![
            Series { name: "measured, each round".into(), mark: Mark::Points, points: found.rounds.clone() },
            Series {
                name: "99.9 %".into(),
                mark: Mark::Dashes,
                points: ends.map(|(at, _)| (*at, 99.9)).collect(),
            },
        ],
    }
}
