//! Random events with atomic reads, and Zave's invariant after each of them.
//!
//! The invariant (Zave 2017): each member has a living successor in its list, and there are more principals than a
//! list is long. A principal is a member that no member skips: none lies between two neighbours of another's
//! list, the member itself put first. From it follow one ordered ring with everybody on it or hanging on to it,
//! which is checked too. Her assumptions are kept: a request and its answer are one event, and a failure happens only
//! where it leaves the invariant true.

use kernel::{Micros, Rng};
use p2p::chord::{Chord, Command, Message, Outcome, Settings, distance};
use p2p::{Effect, EffectOf, Input, Key, Keys, Protocol};

use super::original::Original;
use crate::claim::Run;

/// Nodes that may be members of one ring.
const NODES: usize = 64;
/// Events of one ring.
const EPOCH: u64 = 10_000;
/// Virtual time between two events: longer than any period, so that who is woken acts.
const STEP_MICROS: u64 = 10_000_000;
/// Rounds in which a ring that is left alone must become ideal: each node learns of one more neighbour in each.
const HEALING_ROUNDS: usize = 4 * NODES;
/// Requests and messages on their way at once; the oldest is carried out before there are more.
const POOL_MAX: usize = 256;

/// A machine that can be judged.
pub trait Member:
    Protocol<Contact = u32, Message = Message<u32>, Command = Command<u32>, Outcome = Outcome<u32>>
{
    /// One outside of the ring.
    fn outside(own: u32, key: Key, successors: u8, rng: Rng) -> Self;
    /// The same as a member with these neighbours.
    fn settled(self, now: Micros, predecessor: u32, successors: &[u32]) -> Self;
    /// Is it a member?
    fn member(&self) -> bool;
    /// Who is before it?
    fn before(&self) -> Option<u32>;
    /// Who is after it?
    fn after(&self) -> &[u32];
}

impl Member for Chord<u32> {
    fn outside(own: u32, key: Key, successors: u8, rng: Rng) -> Self {
        let settings = Settings {
            successors,
            stabilize_micros: STEP_MICROS / 2,
            finger_micros: 0,
            repair_micros: 0,
            ..Settings::default()
        };
        Chord::new(own, key, settings, rng)
    }

    fn settled(self, now: Micros, predecessor: u32, successors: &[u32]) -> Self {
        Chord::settled(self, now, predecessor, successors, &[])
    }

    fn member(&self) -> bool {
        self.is_member()
    }

    fn before(&self) -> Option<u32> {
        self.predecessor()
    }

    fn after(&self) -> &[u32] {
        self.successors()
    }
}

impl Member for Original {
    fn outside(own: u32, key: Key, successors: u8, rng: Rng) -> Self {
        Original::new(own, key.point(), successors, rng)
    }

    fn settled(self, _: Micros, predecessor: u32, successors: &[u32]) -> Self {
        Original::settled(self, predecessor, successors)
    }

    fn member(&self) -> bool {
        self.is_member()
    }

    fn before(&self) -> Option<u32> {
        self.predecessor()
    }

    fn after(&self) -> &[u32] {
        self.successors()
    }
}

/// What random events came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Events.
    pub events: u64,
    /// Events after which the invariant did not hold; a ring ends with its first.
    pub broken: u64,
    /// Rings that did not become ideal when they were left alone.
    pub unhealed: u64,
    /// Over every event.
    pub hash: u64,
}

/// Runs at least so many events over many rings.
pub fn run<M: Member>(run: &Run<'_>, events: u64) -> Found {
    let mut found = Found::default();
    let mut epoch = 0;
    while found.events < events {
        run.progress("random events", found.events, events);
        World::<M>::new(run.seed, epoch).epoch(&mut found);
        epoch += 1;
    }
    found
}

struct Points([u64; NODES]);

impl Keys<u32> for Points {
    fn key(&self, contact: u32) -> Key {
        Key::from_words([self.0[contact as usize], 0, 0, 0])
    }
}

struct World<M: Member> {
    rng: Rng,
    now: Micros,
    successors: u8,
    points: Points,
    /// In the order of the ring; `None` is dead, or was never born.
    nodes: Vec<Option<M>>,
    lives: u64,
    pool: Vec<(u32, EffectOf<M>)>,
    out: Vec<EffectOf<M>>,
    hash: u64,
}

impl<M: Member> World<M> {
    fn new(seed: u64, epoch: u64) -> World<M> {
        let mut rng = Rng::new(seed).fork(0x5A41_5645).fork(epoch);
        let mut points = [0; NODES];
        points.iter_mut().for_each(|point| *point = rng.next_u64());
        points.sort_unstable();
        let mut world: World<M> = World {
            successors: 2 + rng.below(3) as u8,
            now: Micros(STEP_MICROS),
            points: Points(points),
            nodes: (0..NODES).map(|_| None).collect(),
            lives: 0,
            pool: Vec::new(),
            out: Vec::new(),
            hash: epoch,
            rng,
        };
        let wanted = usize::from(world.successors) + 1 + world.rng.below(20) as usize;
        let first = crate::graph::shuffled(NODES as u32, &mut world.rng);
        let mut ring = first[..wanted].to_vec();
        ring.sort_unstable();
        for (n, &node) in ring.iter().enumerate() {
            let at = |ahead: usize| ring[(n + ahead) % wanted];
            let after: Vec<u32> = (1..=usize::from(world.successors)).map(at).collect();
            let machine = world.born(node).settled(world.now, at(wanted - 1), &after);
            world.nodes[node as usize] = Some(machine);
        }
        world
    }

    fn born(&mut self, node: u32) -> M {
        self.lives += 1;
        M::outside(node, self.points.key(node), self.successors, self.rng.fork(self.lives))
    }

    fn epoch(mut self, found: &mut Found) {
        for _ in 0..EPOCH {
            self.event();
            found.events += 1;
            if !self.invariant() {
                found.broken += 1;
                found.hash = found.hash.rotate_left(7) ^ self.hash;
                return;
            }
        }
        found.unhealed += u64::from(!self.heals());
        found.hash = found.hash.rotate_left(7) ^ self.hash;
    }

    fn event(&mut self) {
        self.now = self.now + STEP_MICROS;
        if self.pool.len() >= POOL_MAX {
            return self.carry_out(0);
        }
        let node = self.rng.below(NODES as u64) as u32;
        match self.rng.below(100) {
            0..40 => self.wake(node),
            40..90 if !self.pool.is_empty() => {
                let at = self.rng.below(self.pool.len() as u64) as usize;
                self.carry_out(at);
            }
            90..95 => self.join(node),
            95..98 => self.fail(node),
            _ => self.meet(node),
        }
    }

    /// It compares its successor with what another one's ring has there, as rings that meet do.
    fn meet(&mut self, node: u32) {
        let peer = self.rng.below(NODES as u64) as u32;
        if self.member(node) && peer != node {
            self.note(6, node, peer);
            self.step(node, Input::Commanded(Command::Meet { peer }));
        }
    }

    fn note(&mut self, kind: u64, node: u32, peer: u32) {
        let what = kind << 32 | u64::from(node) << 16 | u64::from(peer);
        self.hash = (self.hash.rotate_left(5) ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn members(&self) -> impl Iterator<Item = u32> + '_ {
        (0..NODES as u32).filter(|&node| self.member(node))
    }

    fn member(&self, node: u32) -> bool {
        self.nodes[node as usize].as_ref().is_some_and(M::member)
    }

    fn keep(&mut self, node: u32) {
        self.pool.extend(self.out.drain(..).map(|effect| (node, effect)));
    }

    fn wake(&mut self, node: u32) {
        let Some(machine) = &mut self.nodes[node as usize] else { return };
        machine.wake(self.now, &self.points, &mut self.out);
        self.note(1, node, 0);
        self.keep(node);
    }

    fn step(&mut self, node: u32, input: Input<u32, Message<u32>, Command<u32>>) {
        let Some(machine) = &mut self.nodes[node as usize] else { return };
        machine.step(self.now, &self.points, input, &mut self.out);
        self.keep(node);
    }

    /// One request with its answer, or one message: nothing comes between.
    fn carry_out(&mut self, at: usize) {
        let (from, effect) = self.pool.swap_remove(at);
        match effect {
            Effect::Tell { to, body } => {
                self.note(2, from, to);
                self.step(to, Input::Told { from, body });
            }
            Effect::Ask { to, id, body } => {
                self.note(3, from, to);
                let before = self.pool.len();
                self.step(to, Input::Asked { from, id, body });
                let answer = self.pool[before..].iter().position(|(_, effect)| {
                    matches!(effect, Effect::Answer { to, id: own, .. } if *to == from && *own == id)
                });
                let answer = answer.map(|at| self.pool.swap_remove(before + at).1);
                self.step(
                    from,
                    match answer {
                        Some(Effect::Answer { body, .. }) => Input::Answered { from: to, id, body },
                        _ => Input::Failed { to, id },
                    },
                );
            }
            // An answer is taken with its request; outcomes are nobody's business here.
            Effect::Answer { .. } | Effect::Report(_) => {}
        }
    }

    fn join(&mut self, node: u32) {
        if self.nodes[node as usize].is_some() {
            return;
        }
        let members: Vec<u32> = self.members().collect();
        let seed = members[self.rng.below(members.len() as u64) as usize];
        let machine = self.born(node);
        self.nodes[node as usize] = Some(machine);
        self.note(4, node, seed);
        self.step(node, Input::Commanded(Command::Join { seed }));
    }

    fn fail(&mut self, node: u32) {
        let Some(machine) = self.nodes[node as usize].take() else { return };
        if !self.invariant() {
            // Not allowed by the assumptions: it lives on.
            self.nodes[node as usize] = Some(machine);
            return;
        }
        self.note(5, node, 0);
        self.pool.retain(|(from, _)| *from != node);
    }

    fn invariant(&self) -> bool {
        let mut skipped = [false; NODES];
        let mut count = 0;
        for node in self.members() {
            count += 1;
            let after = self.nodes[node as usize].as_ref().map_or(&[][..], M::after);
            if !after.iter().any(|&next| self.member(next)) {
                return false;
            }
            let mut from = node;
            for &next in after {
                let mut at = (from as usize + 1) % NODES;
                while at != next as usize {
                    skipped[at] = true;
                    // A whole round from a node to itself skips all others.
                    if at == from as usize {
                        break;
                    }
                    at = (at + 1) % NODES;
                }
                from = next;
            }
        }
        let principals = self.members().filter(|&node| !skipped[node as usize]).count();
        principals > usize::from(self.successors) && self.one_ring(count)
    }

    /// First living successors lead everybody onto one cycle that goes around once.
    fn one_ring(&self, count: usize) -> bool {
        let next = |node: u32| {
            let after = self.nodes[node as usize].as_ref().map_or(&[][..], M::after);
            after.iter().copied().find(|&next| self.member(next))
        };
        let Some(mut at) = self.members().next() else { return false };
        for _ in 0..count {
            let Some(then) = next(at) else { return false };
            at = then;
        }
        let (start, mut on_ring, mut around) = (at, [false; NODES], 0u128);
        loop {
            on_ring[at as usize] = true;
            let Some(then) = next(at) else { return false };
            let gap = distance(self.points.0[at as usize], self.points.0[then as usize]);
            around += if then == at { 1 << 64 } else { u128::from(gap) };
            at = then;
            if at == start {
                break;
            }
            if on_ring[at as usize] || around > 1 << 64 {
                return false;
            }
        }
        around == 1 << 64
            && self.members().all(|node| {
                let mut at = node;
                (0..count).any(|_| {
                    let there = on_ring[at as usize];
                    at = next(at).unwrap_or(at);
                    there
                })
            })
    }

    /// Nobody comes, nobody goes: does the ring become ideal?
    fn heals(&mut self) -> bool {
        for _ in 0..HEALING_ROUNDS {
            for node in 0..NODES as u32 {
                self.now = self.now + STEP_MICROS;
                self.wake(node);
                while !self.pool.is_empty() {
                    self.carry_out(0);
                }
            }
            if self.ideal() {
                return true;
            }
        }
        false
    }

    fn ideal(&self) -> bool {
        let ring: Vec<u32> = self.members().collect();
        let kept = usize::from(self.successors).min(ring.len() - 1);
        ring.iter().enumerate().all(|(n, &node)| {
            let at = |ahead: usize| ring[(n + ahead) % ring.len()];
            let Some(machine) = &self.nodes[node as usize] else { return false };
            let right = machine.after().len() == kept
                && machine.after().iter().enumerate().all(|(ahead, &next)| next == at(ahead + 1));
            right && machine.before() == Some(at(ring.len() - 1))
        })
    }
}
