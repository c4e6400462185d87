//! Whole groups in virtual time, with crashes, pauses, loss and cuts.

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec;
use core::cmp::Reverse;

use super::*;

const SECOND: u64 = 1_000_000;

fn node(number: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&(number as u16).to_be_bytes());
    NodeId(bytes)
}

fn number(node: NodeId) -> usize {
    usize::from(u16::from_be_bytes([node.0[0], node.0[1]]))
}

/// What one member said of another, and when.
type Said = (u64, usize, usize, Liveness);

struct World {
    rng: Rng,
    now: u64,
    swims: Vec<Swim>,
    options: SwimOptions,
    /// Messages under way: when, a tie-breaker, to, from.
    mail: BinaryHeap<Reverse<(u64, u64, usize, usize)>>,
    bodies: BTreeMap<u64, Message>,
    sent: u64,
    loss: f64,
    delay: (u64, u64),
    down: BTreeSet<usize>,
    /// Standing still until then; what comes waits.
    paused: BTreeMap<usize, u64>,
    cut: Option<usize>,
    /// Nobody hears it.
    mute: Option<usize>,
    said: Vec<Said>,
}

impl World {
    fn new(seed: u64, count: usize) -> World {
        let options = SwimOptions::default();
        let all: Vec<NodeId> = (0..count).map(node).collect();
        let mut swims = Vec::new();
        for at in 0..count {
            let mut swim = Swim::new(options, node(at), 1, Micros(0), seed ^ at as u64);
            swim.step(Micros(0), Input::Members(all.clone()), &mut Vec::new());
            swims.push(swim);
        }
        World {
            rng: Rng::new(seed),
            now: 0,
            swims,
            options,
            mail: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            sent: 0,
            loss: 0.0,
            delay: (100, 2_000),
            down: BTreeSet::new(),
            paused: BTreeMap::new(),
            cut: None,
            mute: None,
            said: Vec::new(),
        }
    }

    fn hears(&self, b: usize, a: usize) -> bool {
        self.mute != Some(a) && self.cut.is_none_or(|cut| (a < cut) == (b < cut))
    }

    fn act(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    // Every message fits its bytes and comes back from them.
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    let message = Message::decode(&bytes).unwrap();
                    self.sent += 1;
                    if self.rng.chance(self.loss) || !self.hears(number(to), at) {
                        continue;
                    }
                    let delay = self.delay.0 + self.rng.below(self.delay.1 - self.delay.0 + 1);
                    self.bodies.insert(self.sent, message);
                    self.mail.push(Reverse((self.now + delay, self.sent, number(to), at)));
                }
                Effect::Changed { node, liveness } => self.said.push((self.now, at, number(node), liveness)),
                Effect::Incarnation(incarnation) => assert_eq!(incarnation, self.swims[at].incarnation()),
            }
        }
    }

    fn next_wake(&self) -> Option<(u64, usize)> {
        let alive = (0..self.swims.len()).filter(|at| !self.down.contains(at));
        alive
            .map(|at| {
                let due = self.swims[at].deadline().unwrap().0;
                (due.max(self.paused.get(&at).copied().unwrap_or(0)), at)
            })
            .min()
    }

    fn run_until(&mut self, end: u64) {
        loop {
            let wake = self.next_wake().filter(|(at, _)| *at <= end);
            let mail = self.mail.peek().map(|Reverse(first)| *first).filter(|(at, ..)| *at <= end);
            let mut out = Vec::new();
            match (wake, mail) {
                (None, None) => break,
                (Some((due, _)), Some((arrives, number, to, from))) if arrives <= due => {
                    self.mail.pop();
                    self.take(arrives, number, to, from);
                }
                (None, Some((arrives, number, to, from))) => {
                    self.mail.pop();
                    self.take(arrives, number, to, from);
                }
                (Some((due, at)), _) => {
                    self.now = self.now.max(due);
                    self.swims[at].wake(Micros(self.now), &mut out);
                    self.act(at, out);
                }
            }
        }
        self.now = end;
    }

    fn take(&mut self, arrives: u64, number: u64, to: usize, from: usize) {
        self.now = self.now.max(arrives);
        if let Some(&until) = self.paused.get(&to).filter(|&&until| until > arrives) {
            // The kernel holds it; it is read behind what comes first.
            return self.mail.push(Reverse((until, number, to, from)));
        }
        let message = self.bodies.remove(&number).unwrap();
        if !self.down.contains(&to) {
            let mut out = Vec::new();
            self.swims[to].step(Micros(self.now), Input::Received { from: node(from), message }, &mut out);
            self.act(to, out);
        }
    }

    fn all_see(&self, who: usize, liveness: Liveness) -> bool {
        let others = (0..self.swims.len()).filter(|at| *at != who && !self.down.contains(at));
        others.into_iter().all(|at| self.swims[at].liveness(node(who)) == Some(liveness))
    }

    fn deaths(&self) -> usize {
        self.said.iter().filter(|(.., liveness)| *liveness == Liveness::Dead).count()
    }
}

#[test]
fn a_crash_is_noticed_by_all_within_its_bound() {
    for seed in 0..40 {
        for count in [2, 3, 5, 20] {
            let mut world = World::new(seed, count);
            world.run_until(5 * SECOND);
            assert_eq!(world.said, vec![], "seed {seed}: nobody is suspected in a quiet network");
            world.down.insert(1);
            // Two passes over all to be pinged, the suspicion of a lone accuser, and a while for the news.
            let period = world.options.period_ms * 1000;
            let bound = period * 2 * count as u64 + suspicion_micros(&world.options, count, 0) + 10 * period;
            world.run_until(5 * SECOND + bound);
            assert!(world.all_see(1, Liveness::Dead), "seed {seed}, {count} members");
            let wrong = world.said.iter().filter(|(_, _, of, _)| *of != 1).count();
            assert_eq!(wrong, 0, "seed {seed}, {count} members: the living are left alone");
        }
    }
}

#[test]
fn lost_messages_kill_nobody_and_help_is_what_saves_them() {
    let run = |helpers: usize| {
        let mut suspicions = 0;
        for seed in 0..12 {
            let mut world = World::new(seed, 8);
            world.swims.iter_mut().for_each(|swim| swim.options.helpers = helpers);
            (world.loss, world.delay) = (0.05, (20_000, 30_000));
            world.run_until(120 * SECOND);
            assert!(helpers == 0 || world.deaths() == 0, "seed {seed}");
            suspicions += world.said.iter().filter(|(.., liveness)| *liveness == Liveness::Suspect).count();
        }
        suspicions
    };
    let (with, without) = (run(3), run(0));
    assert!(with * 10 < without, "{with} suspicions with helpers, {without} without");
}

#[test]
fn a_paused_member_is_suspected_and_comes_back_once() {
    for seed in 0..60 {
        let mut world = World::new(seed, 5);
        world.run_until(5 * SECOND);
        // Shorter than the longest suspicion, longer than all timeouts.
        world.paused.insert(2, 9 * SECOND);
        world.run_until(40 * SECOND);
        assert!((0..5).all(|who| world.all_see(who, Liveness::Alive)), "seed {seed}: {:?}", world.said);
        for observer in [0, 1, 3, 4] {
            let mine: Vec<Liveness> = world
                .said
                .iter()
                .filter(|(_, by, of, _)| *by == observer && *of == 2)
                .map(|(.., liveness)| *liveness)
                .collect();
            assert!(mine.len() <= 3, "seed {seed}: not flapped: {mine:?}");
        }
        // It blames nobody for what it slept through.
        assert!(world.said.iter().all(|(_, by, _, said)| *by != 2 || *said != Liveness::Dead), "seed {seed}");
        assert!(world.said.iter().all(|(_, _, of, _)| *of == 2), "seed {seed}: {:?}", world.said);
    }
}

#[test]
fn a_cut_group_thinks_the_other_dead_and_finds_it_again() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5);
        world.run_until(5 * SECOND);
        world.cut = Some(2);
        world.run_until(60 * SECOND);
        for (by, of) in [(0, 2), (0, 4), (1, 3), (2, 0), (3, 1), (4, 1)] {
            assert_eq!(world.swims[by].liveness(node(of)), Some(Liveness::Dead), "seed {seed} {by} {of}");
        }
        assert_eq!(world.swims[3].liveness(node(4)), Some(Liveness::Alive));
        world.cut = None;
        world.run_until(90 * SECOND);
        assert!((0..5).all(|who| world.all_see(who, Liveness::Alive)), "seed {seed}");
    }
}

/// It heard that it was suspected and objected, and nobody heard that: what others think of it is older than what it says.
#[test]
fn a_member_that_hears_and_is_not_heard_is_found_again() {
    for seed in 0..40 {
        for count in [2, 3, 5] {
            let mut world = World::new(seed, count);
            world.run_until(5 * SECOND);
            world.mute = Some(1);
            world.run_until(60 * SECOND);
            assert!(world.all_see(1, Liveness::Dead), "seed {seed}, {count} members");
            world.mute = None;
            world.run_until(120 * SECOND);
            assert!(world.all_see(1, Liveness::Alive), "seed {seed}, {count} members");
        }
    }
}

#[test]
fn a_member_that_forgot_its_incarnation_is_believed_again() {
    let mut world = World::new(3, 3);
    world.run_until(2 * SECOND);
    world.down.insert(0);
    world.run_until(40 * SECOND);
    assert!(world.all_see(0, Liveness::Dead));
    let mut fresh = Swim::new(world.options, node(0), 1, Micros(world.now), 99);
    fresh.step(Micros(world.now), Input::Members((0..3).map(node).collect()), &mut Vec::new());
    world.swims[0] = fresh;
    world.down.remove(&0);
    world.run_until(60 * SECOND);
    assert!(world.all_see(0, Liveness::Alive));
    assert!(world.swims[0].incarnation() > 1);
}

#[test]
fn strangers_are_not_heard_and_leavers_are_forgotten() {
    let mut swim = Swim::new(SwimOptions::default(), node(0), 1, Micros(0), 1);
    swim.step(Micros(0), Input::Members(vec![node(0), node(1), node(2)]), &mut Vec::new());
    let dead = |of| Update { node: of, incarnation: 9, claim: Claim::Dead };
    let tell = |swim: &mut Swim, from, updates| {
        let mut out = Vec::new();
        let message = Message { kind: Kind::Ping, number: 7, updates };
        swim.step(Micros(1), Input::Received { from, message }, &mut out);
        out
    };
    assert_eq!(tell(&mut swim, node(5), vec![dead(node(1))]), vec![]);
    assert_eq!(swim.liveness(node(1)), Some(Liveness::Alive));
    let heard = tell(&mut swim, node(1), vec![dead(node(5)), dead(node(2))]);
    assert_eq!(heard[0], Effect::Changed { node: node(2), liveness: Liveness::Dead });
    assert_eq!(swim.liveness(node(5)), None);
    swim.step(Micros(2), Input::Members(vec![node(0), node(1)]), &mut Vec::new());
    assert_eq!(swim.liveness(node(2)), None);
    let kinds = tell(&mut swim, node(1), vec![]);
    let [Effect::Send { to, message }] = &kinds[..] else { panic!("{kinds:?}") };
    assert_eq!((*to, message.kind, message.number), (node(1), Kind::Ack, 7));
    assert!(message.updates.iter().all(|update| update.node != node(2)));
}

#[test]
fn an_objection_comes_with_the_answer() {
    let mut swim = Swim::new(SwimOptions::default(), node(0), 4, Micros(0), 1);
    swim.step(Micros(0), Input::Members(vec![node(0), node(1)]), &mut Vec::new());
    let mut out = Vec::new();
    let updates = vec![Update { node: node(0), incarnation: 4, claim: Claim::Suspect(node(1)) }];
    let message = Message { kind: Kind::Ping, number: 1, updates };
    swim.step(Micros(1), Input::Received { from: node(1), message }, &mut out);
    assert_eq!(out[0], Effect::Incarnation(5));
    let Effect::Send { message, .. } = &out[1] else { panic!("{out:?}") };
    assert_eq!(message.updates, vec![Update { node: node(0), incarnation: 5, claim: Claim::Alive }]);
    assert_eq!(swim.health(), 1);
}

#[test]
fn what_was_objected_to_before_is_answered_and_makes_nothing_new() {
    let mut swim = Swim::new(SwimOptions::default(), node(0), 4, Micros(0), 1);
    swim.step(Micros(0), Input::Members(vec![node(0), node(1)]), &mut Vec::new());
    let mut ask = |claim| {
        let mut out = Vec::new();
        let updates = vec![Update { node: node(0), incarnation: 3, claim }];
        let message = Message { kind: Kind::Ping, number: 1, updates };
        swim.step(Micros(1), Input::Received { from: node(1), message }, &mut out);
        assert_eq!((swim.incarnation(), swim.health()), (4, 0));
        let [Effect::Send { message, .. }] = &out[..] else { panic!("{out:?}") };
        message.updates.clone()
    };
    let mine = vec![Update { node: node(0), incarnation: 4, claim: Claim::Alive }];
    // Until nobody is told any more by itself.
    while !ask(Claim::Alive).is_empty() {}
    for claim in [Claim::Dead, Claim::Suspect(node(1))] {
        assert_eq!(ask(claim), mine, "{claim:?}");
    }
}

#[test]
fn suspicion_shortens_with_accusers_from_the_longest_to_the_shortest() {
    let options = SwimOptions::default();
    let lengths: Vec<u64> = (0..=CONFIRMATIONS).map(|n| suspicion_micros(&options, 10, n)).collect();
    assert!(lengths.windows(2).all(|pair| pair[0] > pair[1]), "{lengths:?}");
    assert_eq!(lengths[0], 6 * lengths[CONFIRMATIONS]);
    assert_eq!(lengths[CONFIRMATIONS], 4 * 500_000);
    assert_eq!(suspicion_micros(&options, 3, 0), 4 * 500_000, "nobody could confirm");
}
