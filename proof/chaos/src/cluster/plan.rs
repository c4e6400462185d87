//! What a seed decides before a round: how the network is, what goes wrong, when, and for how long.

use kernel::Rng;

use super::router::Way;

/// Loss in lossy weather.
const LOSS: f64 = 0.05;
/// Delay in slow and lossy weather, each way, in microseconds.
const DELAY_MICROS: u64 = 20_000;
/// How likely a packet comes twice when they do, and how much later than others at most, in microseconds.
const TWICE: f64 = 0.1;
const JITTER_MICROS: u64 = 3_000;
/// How likely a fault outlasts every deadline of links and elections.
const LONG: f64 = 0.1;
/// A clock differs from the others' by so much at most, in milliseconds.
const SKEW_MS_MAX: u64 = 30_000;

/// How long rounds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Several faults, some of them long.
    Full,
    /// One fault that is soon over.
    Short,
}

/// How the network is in a round, between all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing is in the way.
    Fair,
    /// All packets take 20 ms.
    Slow,
    /// 5 % are lost, and the others take 20 ms.
    Lossy,
    /// Some come twice, and they overtake each other.
    Doubling,
}

impl Weather {
    /// What it does to packets.
    #[must_use]
    pub fn way(self) -> Way {
        let fair = Way::default();
        match self {
            Weather::Fair => fair,
            Weather::Slow => Way { delay: DELAY_MICROS, ..fair },
            Weather::Lossy => Way { delay: DELAY_MICROS, loss: LOSS, ..fair },
            Weather::Doubling => Way { twice: TWICE, jitter: JITTER_MICROS, ..fair },
        }
    }
}

/// What goes wrong, and is put right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a node. Started again, its clock differs by so many milliseconds.
    Kill(usize, i64),
    /// kill -9 of all nodes at once.
    KillAll,
    /// SIGSTOP, then SIGCONT.
    Pause(usize),
    /// No packets to the node and none from it.
    CutOff(usize),
    /// None from the node; what the others send arrives.
    Mute(usize),
    /// None to the node; what it sends arrives.
    Deaf(usize),
    /// None between these two, either way.
    Apart(usize, usize),
    /// None from the first to the second; the other way is open.
    OneWay(usize, usize),
}

impl Fault {
    fn draw(rng: &mut Rng, nodes: usize) -> Fault {
        let node = rng.below(nodes as u64) as usize;
        let other = (node + 1 + rng.below(nodes as u64 - 1) as usize) % nodes;
        match rng.below(14) {
            0..=3 => {
                let skew =
                    if rng.chance(0.5) { rng.below(2 * SKEW_MS_MAX) as i64 } else { SKEW_MS_MAX as i64 };
                Fault::Kill(node, skew - SKEW_MS_MAX as i64)
            }
            4 => Fault::KillAll,
            5..=7 => Fault::Pause(node),
            8 | 9 => Fault::CutOff(node),
            10 => Fault::Mute(node),
            11 => Fault::Deaf(node),
            12 => Fault::Apart(node, other),
            _ => Fault::OneWay(node, other),
        }
    }

    /// The ways that it blocks, from and to.
    #[must_use]
    pub fn blocks(self, nodes: usize) -> Vec<(usize, usize)> {
        let out = |node| (0..nodes).filter(move |&to| to != node).map(move |to| (node, to));
        let back = |(from, to): (usize, usize)| (to, from);
        match self {
            Fault::Kill(..) | Fault::KillAll | Fault::Pause(_) => Vec::new(),
            Fault::CutOff(node) => out(node).chain(out(node).map(back)).collect(),
            Fault::Mute(node) => out(node).collect(),
            Fault::Deaf(node) => out(node).map(back).collect(),
            Fault::Apart(one, other) => vec![(one, other), (other, one)],
            Fault::OneWay(from, to) => vec![(from, to)],
        }
    }
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stroke {
    /// What.
    pub fault: Fault,
    /// Load before it, in milliseconds.
    pub calm_ms: u64,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
}

/// A round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The network.
    pub weather: Weather,
    /// What goes wrong, one after the other.
    pub strokes: Vec<Stroke>,
}

impl Plan {
    /// The plan that `rng` decides, for so many nodes (at least two).
    #[must_use]
    pub fn draw(rng: &mut Rng, nodes: usize, length: Length) -> Plan {
        let weather = match rng.below(8) {
            0..=2 => Weather::Fair,
            3 => Weather::Slow,
            4..=6 => Weather::Lossy,
            _ => Weather::Doubling,
        };
        let strokes = match length {
            Length::Full => 1 + rng.below(3),
            Length::Short => 1,
        };
        let stroke = |_| {
            let fault = Fault::draw(rng, nodes);
            let (calm_ms, lasts_ms) = match length {
                Length::Full if rng.chance(LONG) => (500, 5_000 + rng.below(5_000)),
                Length::Full => (200 + rng.below(600), 300 + rng.below(3_200)),
                Length::Short => (300, 200 + rng.below(1_000)),
            };
            Stroke { fault, calm_ms, lasts_ms }
        };
        Plan { weather, strokes: (0..strokes).map(stroke).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_block_the_ways_that_they_name() {
        let table = [
            (Fault::Kill(0, 0), vec![]),
            (Fault::CutOff(1), vec![(1, 0), (1, 2), (0, 1), (2, 1)]),
            (Fault::Mute(1), vec![(1, 0), (1, 2)]),
            (Fault::Deaf(1), vec![(0, 1), (2, 1)]),
            (Fault::Apart(0, 2), vec![(0, 2), (2, 0)]),
            (Fault::OneWay(2, 0), vec![(2, 0)]),
        ];
        for (fault, expected) in table {
            assert_eq!(fault.blocks(3), expected, "{fault:?}");
        }
    }

    #[test]
    fn a_seed_is_a_plan_and_all_faults_and_weathers_are_drawn() {
        let mut seen: Vec<String> = Vec::new();
        for seed in 0..300 {
            let draw = || Plan::draw(&mut Rng::new(seed), 3, Length::Full);
            let plan = draw();
            assert_eq!(plan, draw());
            let faults = plan.strokes.iter().map(|stroke| format!("{:?}", stroke.fault));
            let names = faults.map(|text| text.split('(').next().unwrap_or_default().to_owned());
            seen.extend(names.chain([format!("{:?}", plan.weather)]));
            for stroke in &plan.strokes {
                for (from, to) in stroke.fault.blocks(3) {
                    assert_ne!(from, to, "{stroke:?}");
                }
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 12, "{seen:?}");
    }
}
