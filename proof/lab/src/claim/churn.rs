//! Kademlia under churn: lookups find the nearest node that lives, while all nodes come and go.
//!
//! A node comes back under its key with an empty table and joins by one that lives. A lookup is right if it finds the
//! nearest of those that had joined before it and lived until its end.
//!
//! Then all nodes of one part of the world are gone at one moment and do not come back, as when its cables are cut, and the
//! lookups after that are judged by themselves.

use kernel::{Micros, Rng};
use p2p::Keys;
use p2p::kad::{Command, Config, Outcome, Region, Target, Token};
use sim::kad::network::{BEGIN, Node, Ranks, manner, newborn};
use sim::swarm::lifetime::Lifetime;
use sim::swarm::{Churn, Places, Swarm, Terms, Watcher, geography};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "churn",
    statement: "While nodes stay for an hour and are away for ten minutes on average, both exponentially distributed, and \
                come back knowing nobody but one that lives, at least 99.9 % of lookups find the nearest node that lives; \
                and so they do once all nodes of one part of the world are gone at one moment.",
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
        Parameter {
            name: "dark",
            help: "The part of the world that is gone at one moment, before as many lookups again",
            kind: Kind::Choice(&DARK),
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

/// Parts of the world that can be gone, the largest first.
const DARK: [&str; 7] =
    ["europe", "north-america", "east-asia", "south-asia", "south-america", "oceania", "none"];
/// Where each of them, but the last, stands in [`geography::NAMES`].
const PLACES: [usize; geography::REGIONS] = [1, 0, 2, 3, 4, 5];
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

/// Lookups, and what came of them.
#[derive(Default)]
struct Tally {
    right: u64,
    judged: u64,
    begun: u64,
    ended: u64,
}

impl Tally {
    fn right(&self) -> f64 {
        self.right as f64 * 100.0 / self.judged as f64
    }

    /// Those whose asker died meanwhile do not end.
    fn ended(&self) -> f64 {
        self.ended as f64 * 100.0 / self.begun as f64
    }
}

struct Found {
    /// While all parts of the world are there.
    whole: Tally,
    /// Once one is gone, and with how many nodes.
    torn: Option<(Tally, u64)>,
    /// Lookups that ended, in their round or later, and what they cost.
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
        let mut figures = vec![
            Figure::new("nearest alive found", self.whole.right(), "%", Bound::AtLeast(99.9)),
            Figure::new("lookups that ended", self.whole.ended(), "%", Bound::AtLeast(98.0)),
            Figure::new("lookups judged", self.whole.judged as f64, "lookups", Bound::Told),
        ];
        if let Some((torn, dead)) = &self.torn {
            figures.extend([
                Figure::new("nodes gone at one moment", *dead as f64, "nodes", Bound::Told),
                Figure::new("nearest alive found then", torn.right(), "%", Bound::AtLeast(99.9)),
                Figure::new("lookups that ended then", torn.ended(), "%", Bound::AtLeast(98.0)),
                Figure::new("lookups judged then", torn.judged as f64, "lookups", Bound::Told),
            ]);
        }
        figures.extend([
            Figure::new("mean questions", mean(self.asked), "RPCs", Bound::Told),
            Figure::new("mean hops", mean(self.hops), "hops", Bound::Told),
            Figure::new("nodes alive at the end", self.living, "nodes", Bound::Told),
            Figure::new("nodes that died", self.deaths as f64, "nodes", Bound::Told),
            Figure::new("nodes that came back", self.births as f64, "nodes", Bound::Told),
            Figure::new("messages delivered", self.delivered as f64, "messages", Bound::Told),
            Figure::new("messages lost at the dead", self.lost as f64, "messages", Bound::Told),
        ]);
        figures
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
            dark: None,
            begun: 0,
            found: Vec::new(),
            ended: 0,
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
        let (mut whole, mut torn, mut rounds) = (Tally::default(), None, Vec::new());
        let mut look = |doing, tally: &mut Tally, swarm: &mut Swarm<Node>, watch: &mut Watch| {
            for round in 0..ROUNDS {
                run.swarm(doing, round, ROUNDS, swarm.counts());
                rounds.push(tally.round(&ranks, swarm, watch, size.lookups / ROUNDS, &mut rng));
            }
        };
        look("looking up", &mut whole, &mut swarm, &mut watch);
        let dark = DARK.iter().position(|word| *word == run.choice("dark"));
        if let Some(&place) = dark.and_then(|dark| PLACES.get(dark)) {
            let dead = watch.darken(place, &mut swarm);
            let (tally, _) = torn.insert((Tally::default(), dead));
            look("a part of the world is gone", tally, &mut swarm, &mut watch);
        }
        let counts = swarm.counts();
        run.swarm("looked up", ROUNDS, ROUNDS, counts);
        Found {
            whole,
            torn,
            ended: watch.ended,
            asked: watch.asked,
            hops: watch.hops,
            births: counts.births,
            deaths: counts.deaths,
            delivered: counts.delivered,
            lost: counts.lost,
            living: swarm.places().living() as f64,
            rounds,
            hash: swarm.hash(),
        }
    }
}

impl Tally {
    /// Lookups that begin together, judged when their time is over: the minute, and the share that was right in percent.
    fn round(
        &mut self,
        ranks: &Ranks,
        swarm: &mut Swarm<Node>,
        watch: &mut Watch,
        lookups: u64,
        rng: &mut Rng,
    ) -> (f64, f64) {
        let at = swarm.now();
        let first = watch.begun;
        let mut wanted = Vec::new();
        while (wanted.len() as u64) < lookups {
            let (from, target) = (rng.below(ranks.0.len() as u64) as u32, rng.next_u64());
            if watch.is_ready(from, swarm) {
                let counts = |contact| contact != from && watch.is_ready(contact, swarm);
                let near = ranks.nearest(target, CANDIDATES, counts);
                let token = Token(watch.begun);
                watch.begun += 1;
                swarm.command(at + 1, from, Command::FindNode(token, Target::at(target)));
                wanted.push((target, near));
            }
        }
        swarm.run(at.plus_millis(ROUND_MS), watch);
        let (mut right, mut judged) = (0, 0);
        let found = std::mem::take(&mut watch.found);
        // One that began in an earlier round has not ended in time.
        let in_time = |n: &u64| n.checked_sub(first).map(|n| &wanted[n as usize]);
        let found: Vec<_> = found.iter().filter_map(|(n, nearest)| Some((in_time(n)?, *nearest))).collect();
        for ((target, near), first) in &found {
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
        (minute, right as f64 * 100.0 / judged as f64)
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
    /// Nobody comes back there.
    dark: Option<usize>,
    /// How many lookups began; each is named by those before it.
    begun: u64,
    /// Lookups that ended in this round, each with the nearest it found.
    found: Vec<(u64, Option<u32>)>,
    ended: u64,
    asked: u64,
    hops: u64,
}

impl Watch {
    /// All nodes of this part of the world die now, and none comes back; how many did.
    fn darken(&mut self, place: usize, swarm: &mut Swarm<Node>) -> u64 {
        self.dark = Some(place);
        let before = swarm.places().living();
        for node in 0..self.joined.len() as u32 {
            if swarm.places().region(node).index() == place {
                swarm.fell(node);
            }
        }
        (before - swarm.places().living()) as u64
    }

    fn is_ready(&self, contact: u32, swarm: &Swarm<Node>) -> bool {
        swarm.places().alive(contact) && self.joined[contact as usize]
    }
}

impl Watcher<Node> for Watch {
    fn reported(&mut self, _: Micros, node: u32, outcome: Outcome<u32>) {
        match outcome {
            Outcome::Joined { .. } => self.joined[node as usize] = true,
            Outcome::Found(Token(n), found, cost) => {
                self.ended += 1;
                self.asked += u64::from(cost.asked);
                self.hops += u64::from(cost.hops);
                self.found.push((n, found.first().copied()));
            }
            Outcome::Value(..) | Outcome::Stored(..) | Outcome::Providers(..) | Outcome::Refused(..) => {}
        }
    }

    fn reborn(&mut self, _: Micros, node: u32, places: &Places) -> Option<(Node, Command<u32>)> {
        if self.dark == Some(places.region(node).index()) {
            return None;
        }
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
