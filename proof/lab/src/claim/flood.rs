//! Flooding costs exactly `2·E − V + 1` messages; gossip along a healing tree costs a payload a node.

use std::sync::Arc;

use kernel::{Micros, Rng};
use p2p::flood::gossip::{self, Gossip};
use p2p::flood::{self, Flood, SEEN_MAX, TTL_MAX};
use p2p::{Key, Protocol};
use sim::swarm::{Swarm, Terms, Watcher};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::graph::{Graph, shuffled};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "flood",
    statement: "On a connected graph of V nodes and E edges, flooding with duplicate suppression sends exactly \
                2·E − V + 1 messages. Within a TTL of T, and with equal latencies, it sends the origin's degree plus \
                the degree less one of every node nearer than T. Gossip along a tree that heals itself sends at most \
                1.5 payloads a node and takes at most 1.5 times as long as flooding, with a fifth of the nodes dead.",
    reference: "Dalal & Metcalfe 1978, Reverse path forwarding of broadcast packets; Leitão, Pereira & Rodrigues \
                2007, Epidemic broadcast trees",
    parameters: &[
        Parameter {
            name: "nodes",
            help: "Nodes of the overlay; at least two more than twice the degree",
            kind: Kind::Count { default: 20_000, min: 16, max: 1_000_000 },
        },
        Parameter {
            name: "degree",
            help: "Neighbours of each node",
            kind: Kind::Count { default: 8, min: 3, max: 64 },
        },
        Parameter {
            name: "ttl",
            help: "The TTL whose formula is checked",
            kind: Kind::Count { default: 4, min: 1, max: TTL_MAX as u64 },
        },
        Parameter {
            name: "graphs",
            help: "Small random graphs on which both formulas are checked",
            kind: Kind::Count { default: 1000, min: 1, max: 100_000 },
        },
        Parameter {
            name: "dead",
            help: "The share of nodes that dies before gossip is judged",
            kind: Kind::Share { default: 0.2, max: 0.5 },
        },
    ],
    small: &[("nodes", "2000"), ("graphs", "100")],
    run: |run| measure(run, SEEN_MAX),
    control: Control {
        statement: "Flooding that forgets at once what it has seen, on small graphs with a TTL of 5: the formula is \
                    far from what is sent.",
        run: |run| {
            let mut hash = 0;
            let failures = small_graphs(run, 5, 0, &mut hash);
            Findings { figures: vec![off_formula(failures)], plot: None, trace_hash: hash }
        },
    },
};

const MINUTE: u64 = 60_000_000;
/// Broadcasts that shape the tree, and over which gossip is judged.
const WARM_UP: u64 = 4;
const JUDGED: u64 = 8;
/// How long after a death its neighbours know: what a keep-alive of a second finds.
const DETECTION_MICROS: u64 = 2_000_000;

fn off_formula(failures: u64) -> Figure {
    Figure::new("small graphs off the formulas", failures as f64, "graphs", Bound::Exactly(0.0))
}

fn measure(run: &Run<'_>, seen: usize) -> Findings {
    let (nodes, degree) = (run.count("nodes") as u32, run.count("degree") as u32);
    let mut rng = Rng::new(run.seed).fork(1);
    // A regular graph needs an even number of ends, and room.
    let nodes = nodes.max(2 * degree + 2);
    let nodes = nodes + nodes * degree % 2;
    let graph = Graph::regular(nodes, degree, &mut rng);
    let mut hash = 0;
    let failures = small_graphs(run, run.count("ttl") as u8, seen, &mut hash);

    run.progress("flooding", 0, 2);
    let terms = Terms { seed: run.seed, ..Terms::default() };
    // Equal latencies: over unequal ones the first copy may have passed more edges than the TTL allows, in large
    // graphs, and then its receiver tells nobody.
    let flat = Terms { flat: Some(50_000), ..terms };
    let whole = flood_once(&graph, flat, TTL_MAX, seen);
    let exact = 2.0 * graph.edges() as f64 - f64::from(nodes) + 1.0;
    run.progress("flooding", 1, 2);
    let ttl = run.count("ttl") as u8;
    let near = flood_once(&graph, flat, ttl, seen);
    let foretold = within_ttl(&graph, ttl) as f64;

    let gossip = gossip_run(run, &graph, terms, &mut rng);
    for one in [whole.hash, near.hash, gossip.hash] {
        hash = hash.rotate_left(7) ^ one;
    }
    let figures = vec![
        Figure::new("messages of a flood", whole.messages as f64, "messages", Bound::Exactly(exact)),
        Figure::new("nodes reached", f64::from(whole.reached), "nodes", Bound::Exactly(f64::from(nodes))),
        Figure::new("messages within the TTL", near.messages as f64, "messages", Bound::Exactly(foretold)),
        off_formula(failures),
        Figure::new("gossip: payloads a living node", gossip.payloads, "payloads", Bound::AtMost(1.5)),
        Figure::new(
            "gossip: payloads, the dearest broadcast",
            gossip.payloads_first,
            "payloads",
            Bound::Told,
        ),
        Figure::new("gossip: living nodes reached", gossip.reach, "share", Bound::AtLeast(0.9999)),
        Figure::new("gossip: mean latency against flooding", gossip.slower, "times", Bound::AtMost(1.5)),
        Figure::new("gossip: time to 99 % against flooding", gossip.slower_late, "times", Bound::AtMost(1.5)),
        Figure::new("gossip: time to the last against flooding", gossip.slower_last, "times", Bound::Told),
        Figure::new(
            "gossip: reach before a death is noticed",
            gossip.unnoticed,
            "share",
            Bound::AtLeast(0.9999),
        ),
        Figure::new("gossip: latency before it is noticed", gossip.unnoticed_slower, "times", Bound::Told),
        Figure::new("flooding: payloads a living node", gossip.flooding_payloads, "payloads", Bound::Told),
        Figure::new("flooding: mean time to a node", gossip.flooding_ms, "ms", Bound::Told),
    ];
    Findings { figures, plot: Some(plot(&gossip)), trace_hash: hash }
}

/// How many of the run's small graphs send what no formula foretells, whole or within `ttl`.
fn small_graphs(run: &Run<'_>, ttl: u8, seen: usize, hash: &mut u64) -> u64 {
    let graphs = run.count("graphs");
    let mut failures = 0;
    for n in 0..graphs {
        if n % 64 == 0 {
            run.progress("small graphs", n, graphs);
        }
        let mut rng = Rng::new(run.seed).fork(1000 + n);
        let nodes = 8 + rng.below(57) as u32;
        let graph = Graph::connected(nodes, 2 + rng.below(5) as u32, &mut rng);
        let terms = Terms { seed: rng.next_u64(), flat: Some(20_000), ..Terms::default() };
        let near = flood_once(&graph, terms, ttl, seen);
        let mut wrong = near.messages != within_ttl(&graph, ttl);
        if seen > 0 && graph.distances(0).iter().flatten().all(|&distance| distance < u32::from(TTL_MAX)) {
            // Only here may latencies differ: nobody tells less far for having heard late.
            let whole = flood_once(&graph, Terms { flat: None, ..terms }, TTL_MAX, seen);
            let far = graph.distances(0).iter().flatten().max().copied().unwrap_or(0);
            wrong |= far < 8 && whole.messages != 2 * graph.edges() - u64::from(nodes) + 1;
        }
        failures += u64::from(wrong);
        *hash = hash.rotate_left(7) ^ near.hash;
    }
    failures
}

/// What flooding from node 0 sends within a TTL: everyone nearer than it tells all neighbours but one.
fn within_ttl(graph: &Graph, ttl: u8) -> u64 {
    let distances = graph.distances(0);
    let told =
        distances.iter().enumerate().filter(|(_, distance)| distance.is_some_and(|d| d < u32::from(ttl)));
    told.map(|(node, _)| graph.of(node as u32).len() as u64 - u64::from(node != 0)).sum()
}

struct Spread {
    messages: u64,
    reached: u32,
    hash: u64,
}

fn flood_once(graph: &Graph, terms: Terms, ttl: u8, seen: usize) -> Spread {
    let mut swarm = flooders(graph, terms, seen);
    let mut heard = Heard::new(graph.nodes());
    swarm.command(Micros(0), 0, flood::Command::Broadcast { ttl, payload: Arc::from([]) });
    swarm.run(Micros(10 * MINUTE), &mut heard);
    let counts = swarm.counts();
    Spread { messages: counts.delivered + counts.lost, reached: heard.reached + 1, hash: swarm.hash() }
}

fn flooders(graph: &Graph, terms: Terms, seen: usize) -> Swarm<Flood<u32>> {
    swarm(graph, terms, |node, rng| Flood::new(graph.of(node).to_vec(), seen, rng))
}

fn swarm<P: Protocol<Contact = u32>>(
    graph: &Graph,
    terms: Terms,
    mut node: impl FnMut(u32, Rng) -> P,
) -> Swarm<P> {
    let mut swarm = Swarm::new(terms);
    let rng = Rng::new(terms.seed).fork(2);
    for n in 0..graph.nodes() {
        let mut own = rng.fork(u64::from(n));
        let key = Key::from_words([own.next_u64(), own.next_u64(), own.next_u64(), own.next_u64()]);
        swarm.add(key, node(n, own));
    }
    swarm
}

/// Who heard the broadcast that runs, and when.
struct Heard {
    since: Micros,
    at: Vec<Option<u64>>,
    reached: u32,
    duplicates: u64,
}

impl Heard {
    fn new(nodes: u32) -> Heard {
        Heard { since: Micros(0), at: vec![None; nodes as usize], reached: 0, duplicates: 0 }
    }

    fn begin(&mut self, now: Micros) {
        *self = Heard { since: now, ..Heard::new(self.at.len() as u32) };
    }

    fn hear(&mut self, now: Micros, node: u32) {
        self.reached += 1;
        self.at[node as usize] = Some(now.since(self.since));
    }

    /// Milliseconds until a node heard, on average over those that did.
    fn mean_ms(&self) -> f64 {
        let sum: u64 = self.at.iter().flatten().sum();
        sum as f64 / f64::from(self.reached.max(1)) / 1000.0
    }

    /// Milliseconds until `share` of those that heard had heard.
    fn quantile_ms(&self, share: f64) -> f64 {
        let mut times: Vec<u64> = self.at.iter().flatten().copied().collect();
        times.sort_unstable();
        let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(at).map_or(f64::NAN, |&time| time as f64 / 1000.0)
    }
}

impl Watcher<Flood<u32>> for Heard {
    fn reported(&mut self, now: Micros, node: u32, outcome: flood::Outcome) {
        if matches!(outcome, flood::Outcome::Heard { .. }) {
            self.hear(now, node);
        }
    }
}

impl Watcher<Gossip<u32>> for Heard {
    fn reported(&mut self, now: Micros, node: u32, outcome: gossip::Outcome) {
        match outcome {
            gossip::Outcome::Heard { .. } => self.hear(now, node),
            gossip::Outcome::Duplicate(_) => self.duplicates += 1,
            gossip::Outcome::Sent(_) | gossip::Outcome::Refused => {}
        }
    }
}

#[derive(Default)]
struct GossipFound {
    payloads: f64,
    payloads_first: f64,
    reach: f64,
    slower: f64,
    slower_late: f64,
    slower_last: f64,
    unnoticed: f64,
    unnoticed_slower: f64,
    flooding_payloads: f64,
    flooding_ms: f64,
    gossip_curve: Vec<(f64, f64)>,
    flood_curve: Vec<(f64, f64)>,
    hash: u64,
}

/// Shapes a tree, kills nodes, broadcasts before and after their neighbours notice, and floods the same nodes.
fn gossip_run(run: &Run<'_>, graph: &Graph, terms: Terms, rng: &mut Rng) -> GossipFound {
    let mut swarm: Swarm<Gossip<u32>> = swarm(graph, terms, |node, rng| Gossip::new(graph.of(node), rng));
    let mut heard = Heard::new(graph.nodes());
    let total = WARM_UP + 1 + JUDGED;
    let mut said = 0;
    let mut say = |swarm: &mut Swarm<Gossip<u32>>, heard: &mut Heard| {
        run.progress("gossip", said, total);
        said += 1;
        heard.begin(swarm.now());
        swarm.command(swarm.now(), 0, gossip::Command::Broadcast(Arc::from([])));
        swarm.run(swarm.now() + MINUTE, heard);
    };
    for _ in 0..WARM_UP {
        say(&mut swarm, &mut heard);
    }
    let dead = shuffled(graph.nodes() - 1, rng);
    let dead = &dead[..(run.share("dead") * f64::from(graph.nodes())) as usize];
    // Never the origin, which is node 0.
    dead.iter().for_each(|node| swarm.fell(node + 1));
    let living = swarm.places().living() as f64 - 1.0;

    let mut flooding = flooders(graph, terms, SEEN_MAX);
    dead.iter().for_each(|node| flooding.fell(node + 1));
    let mut flooded = Heard::new(graph.nodes());
    flooding.command(Micros(0), 0, flood::Command::Broadcast { ttl: TTL_MAX, payload: Arc::from([]) });
    flooding.run(Micros(MINUTE), &mut flooded);

    say(&mut swarm, &mut heard);
    let mut found = GossipFound {
        unnoticed: f64::from(heard.reached) / living,
        unnoticed_slower: heard.mean_ms() / flooded.mean_ms(),
        flooding_payloads: flooding.counts().delivered as f64 / living,
        flooding_ms: flooded.mean_ms(),
        flood_curve: curve(&flooded),
        reach: 1.0,
        ..GossipFound::default()
    };
    for node in dead.iter().map(|node| node + 1) {
        for &peer in graph.of(node) {
            swarm.part(swarm.now() + rng.below(DETECTION_MICROS), peer, node);
        }
    }
    swarm.run(swarm.now() + MINUTE, &mut heard);
    for _ in 0..JUDGED {
        say(&mut swarm, &mut heard);
        let payloads = (f64::from(heard.reached) + heard.duplicates as f64) / living;
        found.payloads += payloads / JUDGED as f64;
        found.payloads_first = found.payloads_first.max(payloads);
        found.reach = found.reach.min(f64::from(heard.reached) / living);
        let share = 1.0 / JUDGED as f64;
        found.slower += share * heard.mean_ms() / flooded.mean_ms();
        found.slower_late += share * heard.quantile_ms(0.99) / flooded.quantile_ms(0.99);
        found.slower_last += share * heard.quantile_ms(1.0) / flooded.quantile_ms(1.0);
    }
    found.gossip_curve = curve(&heard);
    found.hash = swarm.hash().rotate_left(7) ^ flooding.hash();
    found
}

/// The share of nodes that had heard, over milliseconds.
fn curve(heard: &Heard) -> Vec<(f64, f64)> {
    (0..=40).map(|n| f64::from(n) / 40.0).map(|share| (heard.quantile_ms(share), share * 100.0)).collect()
}

fn plot(found: &GossipFound) -> Plot {
    let series = |name: &str, mark, points: &Vec<(f64, f64)>| Series {
        name: name.into(),
        mark,
        points: points.clone(),
    };
    Plot {
        title: "Living nodes reached, a fifth of the nodes dead".into(),
        x: Axis::linear("milliseconds after the broadcast"),
        y: Axis::linear("nodes reached, percent"),
        series: vec![
            series("gossip", Mark::Points, &found.gossip_curve),
            series("flooding", Mark::Line, &found.flood_curve),
        ],
    }
}
