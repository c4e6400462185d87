//! What the swarm promises to protocols and to judges, on a protocol of a few lines.

use super::*;

/// Asks its neighbour `left` times, one after another, and reports how each ended.
struct Echo {
    left: u32,
    next: u32,
    rings: Option<Micros>,
}

impl Protocol for Echo {
    type Contact = u32;
    type Message = u32;
    type Command = u32;
    type Outcome = (bool, u32);

    fn step(
        &mut self,
        now: Micros,
        _: &impl Keys<u32>,
        input: Input<u32, u32, u32>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        match input {
            Input::Commanded(to) => {
                self.next = to;
                self.ask(out);
            }
            // A multiple of four is never answered.
            Input::Asked { from, id, body } if body % 4 != 0 => {
                out.push(Effect::Answer { to: from, id, body: body + 1 })
            }
            Input::Answered { body, .. } => {
                out.push(Effect::Report((true, body)));
                self.rings = Some(now + 1000);
            }
            Input::Failed { id, .. } => {
                out.push(Effect::Report((false, id.0)));
                self.rings = Some(now + 1000);
            }
            Input::Asked { .. } | Input::Told { .. } | Input::Parted { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Micros> {
        self.rings
    }

    fn wake(&mut self, _: Micros, _: &impl Keys<u32>, out: &mut Vec<EffectOf<Self>>) {
        self.rings = None;
        self.ask(out);
    }
}

impl Echo {
    fn ask(&mut self, out: &mut Vec<EffectOf<Self>>) {
        if self.left > 0 {
            self.left -= 1;
            out.push(Effect::Ask { to: self.next, id: RequestId(self.left), body: self.left });
        }
    }
}

#[derive(Default)]
struct Ends(Vec<(Micros, u32, (bool, u32))>);

impl Watcher<Echo> for Ends {
    fn reported(&mut self, now: Micros, node: u32, outcome: (bool, u32)) {
        self.0.push((now, node, outcome));
    }

    fn reborn(&mut self, _: Micros, node: u32, places: &Places) -> Option<(Echo, u32)> {
        Some((Echo { left: 3, next: 0, rings: None }, (node + 1) % places.len() as u32))
    }
}

fn swarm(seed: u64, nodes: u32, loss: f64) -> Swarm<Echo> {
    let mut swarm = Swarm::new(Terms { seed, loss, ..Terms::default() });
    for node in 0..nodes {
        let added = swarm.add(Key::of(&node.to_be_bytes()), Echo { left: 20, next: 0, rings: None });
        assert_eq!(added, node);
        swarm.command(Micros(u64::from(node) * 10), node, (node + 1) % nodes);
    }
    swarm
}

#[test]
fn each_request_ends_exactly_once() {
    for (loss, dead) in [(0.0, false), (0.3, false), (0.0, true)] {
        let mut swarm = swarm(5, 50, loss);
        if dead {
            (0..50).step_by(7).for_each(|node| swarm.kill(Micros(300_000), node));
        }
        let mut ends = Ends::default();
        assert!(!swarm.run(Micros(3_600_000_000), &mut ends));
        for node in (0..50).filter(|&node| swarm.places().alive(node)) {
            assert_eq!(ends.0.iter().filter(|end| end.1 == node).count(), 20, "loss {loss}, node {node}");
        }
        let failed = ends.0.iter().filter(|end| !end.2.0).count();
        assert!(if loss == 0.0 && !dead { failed == 50 * 5 } else { failed > 50 * 5 }, "{failed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| {
        let mut swarm = swarm(seed, 40, 0.1);
        let hour = 3_600_000_000;
        swarm.start_churn(Churn {
            session: Lifetime::Pareto { mean: hour, shape: 2.0 },
            absence: Lifetime::Exponential { mean: hour / 4 },
        });
        let mut ends = Ends::default();
        swarm.run(Micros(5 * hour), &mut ends);
        assert!(swarm.counts().births > 20);
        (swarm.hash(), swarm.counts(), ends.0)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn this_trace_never_changes_between_processes_and_machines() {
    let mut swarm = swarm(9, 40, 0.05);
    swarm.run(Micros(60_000_000), &mut Ends::default());
    assert_eq!(format!("{:016x}", swarm.hash()), "7c13a7bfc161125a");
}
