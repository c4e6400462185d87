//! Links between simulated nodes: in order and once while they hold, and what was under way is lost when they break.
//!
//! A link has two directions, and each can be blocked for itself. What is sent into a blocked direction waits, as in a
//! socket's buffers; if it stays blocked, the link breaks, both ends are told, each at its own time, and it comes back some
//! time after nothing blocks it any more. Frames of different links and of the two lanes overtake each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kernel::Rng;
use node::cluster::Lane;

/// At most this long until a broken link is dialled again, in microseconds.
const REDIAL_MICROS: u64 = 300_000;
/// Frames that wait in one direction; beyond it the link breaks, as a full queue's would.
const FRAMES_MAX: usize = 20_000;

/// What reaches a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame(Vec<u8>),
    /// The link is there, perhaps again.
    Up,
    /// The link is gone.
    Down,
}

/// How quick and how patient the net is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// At most this long for a frame, in microseconds.
    pub delay: u64,
    /// A direction that stays blocked breaks its link after so many microseconds.
    pub stall: u64,
}

#[derive(Default)]
struct Link {
    /// From the lower to the higher number, and back.
    ways: [VecDeque<(u64, Arrival)>; 2],
    up: bool,
    /// While it is down: when it is dialled.
    dial: u64,
    /// Since when a direction is blocked with something in it.
    stalled: Option<u64>,
}

/// The lower number, the higher one, and whether it is the bulk lane.
type Pair = (usize, usize, bool);

/// All links.
pub struct Net {
    links: BTreeMap<Pair, Link>,
    /// Directions that let nothing through.
    blocked: BTreeSet<(usize, usize)>,
    running: BTreeSet<usize>,
    pace: Pace,
    rng: Rng,
}

fn pair(one: usize, other: usize, lane: Lane) -> Pair {
    (one.min(other), one.max(other), lane == Lane::Bulk)
}

impl Net {
    /// A net in which nobody runs yet.
    #[must_use]
    pub fn new(pace: Pace, rng: Rng) -> Net {
        let (links, blocked, running) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Net { links, blocked, running, pace, rng }
    }

    /// The two have links from now on.
    pub fn link(&mut self, now: u64, one: usize, other: usize) {
        for lane in [Lane::Control, Lane::Bulk] {
            let dial = now + self.rng.below(REDIAL_MICROS);
            self.links.entry(pair(one, other, lane)).or_insert_with(|| Link { dial, ..Link::default() });
        }
    }

    /// A process begins.
    pub fn started(&mut self, node: usize) {
        self.running.insert(node);
    }

    /// A process is gone, and with it its ends of all links.
    pub fn stopped(&mut self, now: u64, node: usize) {
        self.running.remove(&node);
        let theirs: Vec<Pair> =
            self.links.keys().filter(|key| key.0 == node || key.1 == node).copied().collect();
        for key in theirs {
            self.break_link(now, key);
            let link = self.links.get_mut(&key).expect("it was just listed");
            link.ways[usize::from(key.1 != node)].clear();
        }
    }

    /// Takes a frame; one for a link that is down is lost.
    pub fn send(&mut self, now: u64, from: usize, to: usize, lane: Lane, bytes: Vec<u8>) {
        let key = pair(from, to, lane);
        let delay = self.delay(lane);
        let Some(link) = self.links.get_mut(&key).filter(|link| link.up) else { return };
        let way = &mut link.ways[usize::from(from > to)];
        if way.len() >= FRAMES_MAX {
            return self.break_link(now, key);
        }
        let before = way.back().map_or(0, |(due, _)| *due);
        way.push_back(((now + delay).max(before), Arrival::Frame(bytes)));
    }

    fn delay(&mut self, lane: Lane) -> u64 {
        let slow = self.rng.chance(0.005);
        let most = if slow { self.pace.delay * 20 } else { self.pace.delay };
        let bulk = if lane == Lane::Bulk { 4 } else { 1 };
        100 + self.rng.below(most * bulk)
    }

    /// Lets nothing through from `from` to `to`.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    /// Everything gets through again.
    pub fn mend(&mut self) {
        self.blocked.clear();
    }

    /// Whether `from` can be heard by `to`, as far as the net goes.
    #[must_use]
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to)) && self.running.contains(&from) && self.running.contains(&to)
    }

    /// The links between two break at once.
    pub fn reset(&mut self, now: u64, one: usize, other: usize) {
        for lane in [Lane::Control, Lane::Bulk] {
            self.break_link(now, pair(one, other, lane));
        }
    }

    fn break_link(&mut self, now: u64, key: Pair) {
        let (redial, delay) = (self.rng.below(REDIAL_MICROS), self.pace.delay);
        let Some(link) = self.links.get_mut(&key).filter(|link| link.up) else { return };
        (link.up, link.dial, link.stalled) = (false, now + redial, None);
        for way in &mut link.ways {
            way.clear();
            way.push_back((now + 1 + self.rng.below(delay), Arrival::Down));
        }
    }

    /// When the net must be looked at next, for nodes that take what arrives.
    #[must_use]
    pub fn due(&self, takes: impl Fn(usize) -> bool) -> Option<u64> {
        let mut due: Option<u64> = None;
        let mut sooner = |at: u64| due = Some(due.map_or(at, |due| due.min(at)));
        for (&key, link) in &self.links {
            if !link.up && self.can_dial(key) {
                sooner(link.dial);
            }
            if let Some(since) = link.stalled {
                sooner(since + self.pace.stall);
            }
            for (way, (from, to)) in link.ways.iter().zip([(key.0, key.1), (key.1, key.0)]) {
                let Some((at, arrival)) = way.front() else { continue };
                let held = *arrival != Arrival::Down && self.blocked.contains(&(from, to));
                // What is held is looked at once, so that the link is seen to stall.
                if if held { link.stalled.is_none() } else { takes(to) } {
                    sooner(*at);
                }
            }
        }
        due
    }

    fn can_dial(&self, (one, other, _): Pair) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// Lets links break that are stalled, and come back that may.
    pub fn tend(&mut self, now: u64) {
        let keys: Vec<Pair> = self.links.keys().copied().collect();
        for key in keys {
            let dials = self.can_dial(key);
            let link = self.links.get_mut(&key).expect("it was just listed");
            if !link.up && dials && link.dial <= now {
                link.up = true;
                for way in &mut link.ways {
                    let before = way.back().map_or(0, |(due, _)| *due);
                    way.push_back((before.max(now + 1 + self.rng.below(self.pace.delay)), Arrival::Up));
                }
            }
            let ways = link.ways.iter().zip([(key.0, key.1), (key.1, key.0)]);
            let stuck = |(way, ends): (&VecDeque<(u64, Arrival)>, (usize, usize))| {
                self.blocked.contains(&ends) && way.front().is_some_and(|(at, _)| *at <= now)
            };
            let stalls = link.up && ways.into_iter().any(stuck);
            link.stalled = if stalls { link.stalled.or(Some(now)) } else { None };
            if link.stalled.is_some_and(|since| now >= since + self.pace.stall) {
                self.break_link(now, key);
            }
        }
    }

    /// What has arrived at `to` by `now`: from whom, on which lane, in order for each.
    pub fn arrived(&mut self, now: u64, to: usize) -> Vec<(usize, Lane, Arrival)> {
        let mut all = Vec::new();
        for (&key, link) in &mut self.links {
            let (from, way) = match key {
                (low, high, _) if high == to => (low, 0),
                (low, high, _) if low == to => (high, 1),
                _ => continue,
            };
            let lane = if key.2 { Lane::Bulk } else { Lane::Control };
            let blocked = self.blocked.contains(&(from, to));
            let way = &mut link.ways[way];
            while let Some((at, arrival)) = way.front()
                && *at <= now
                && (!blocked || *arrival == Arrival::Down)
            {
                let (at, arrival) = way.pop_front().expect("it was just looked at");
                all.push((at, from, lane, arrival));
            }
        }
        // Links overtake each other; each keeps its order, because the sort is stable.
        all.sort_by_key(|(at, ..)| *at);
        all.into_iter().map(|(_, from, lane, arrival)| (from, lane, arrival)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> Net {
        let mut net = Net::new(Pace { delay: 1000, stall: 50_000 }, Rng::new(7));
        net.started(0);
        net.started(1);
        net.link(0, 0, 1);
        net.tend(REDIAL_MICROS);
        net
    }

    fn kinds(net: &mut Net, now: u64, to: usize) -> Vec<Arrival> {
        net.tend(now);
        let control = |(_, lane, arrival)| (lane == Lane::Control).then_some(arrival);
        net.arrived(now, to).into_iter().filter_map(control).collect()
    }

    #[test]
    fn frames_arrive_in_order_while_the_link_holds_and_not_across_a_break() {
        let (mut net, start) = (net(), REDIAL_MICROS + 2000);
        assert_eq!(kinds(&mut net, start, 1), [Arrival::Up]);
        for byte in 0..50 {
            net.send(start, 0, 1, Lane::Control, vec![byte]);
        }
        let frames = (0..50).map(|byte| Arrival::Frame(vec![byte])).collect::<Vec<_>>();
        assert_eq!(kinds(&mut net, start + 30_000, 1), frames);
        net.send(start + 30_000, 0, 1, Lane::Control, vec![99]);
        net.reset(start + 30_000, 0, 1);
        assert_eq!(kinds(&mut net, start + REDIAL_MICROS * 2, 1)[0], Arrival::Down);
        let later = start + REDIAL_MICROS * 3;
        assert_eq!(kinds(&mut net, later, 1), [Arrival::Up]);
    }

    #[test]
    fn a_blocked_direction_holds_frames_and_breaks_the_link_if_it_stays_so() {
        for (stays, expected) in [(20_000, Arrival::Frame(vec![1])), (200_000, Arrival::Down)] {
            let (mut net, start) = (net(), REDIAL_MICROS + 2000);
            assert_eq!(kinds(&mut net, start, 1), [Arrival::Up]);
            net.block(0, 1);
            net.send(start, 0, 1, Lane::Control, vec![1]);
            assert_eq!(kinds(&mut net, start + 25_000, 1), []);
            net.tend(start + 25_000 + stays);
            net.mend();
            assert_eq!(kinds(&mut net, start + 40_000 + stays, 1)[0], expected, "blocked for {stays}");
        }
    }
}
