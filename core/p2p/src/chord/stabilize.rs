//! Keeping the ring: join, stabilize, rectify, as Zave (2017) has them. Each step reads one other node.
//!
//! A ring of one, and one so small that lists wrap around, are ours: her proof begins with more members than a
//! list is long. There a list ends before the node itself.

use alloc::vec::Vec;

use kernel::Micros;
use smallvec::SmallVec;

use super::lookup::Aim;
use super::message::{Message, Outcome};
use super::ring::between;
use super::{Chord, Purpose, State};
use crate::protocol::{Contact, Effect, EffectOf, Keys};

/// How often a node tries to join before it gives up.
pub const JOIN_TRIES_MAX: u8 = 10;
/// How long it waits between two tries, in microseconds: the ring may be mending.
pub const JOIN_RETRY_MICROS: u64 = 3_000_000;
/// How many nodes it passes from the one that should stand before it to the one that does.
const WALK_MAX: u8 = 16;

/// A node on its way in.
#[derive(Clone, Debug)]
pub struct Joining<C> {
    seed: C,
    tries: u8,
    walked: u8,
    /// When it tries again, if it waits.
    pub retry_at: Option<Micros>,
}

impl<C: Copy> Joining<C> {
    /// Through whom.
    pub const fn seed(&self) -> C {
        self.seed
    }
}

impl<C: Contact> Chord<C> {
    pub(super) fn join(&mut self, now: Micros, keys: &impl Keys<C>, seed: C, out: &mut Vec<EffectOf<Self>>) {
        if self.is_member() || seed == self.own {
            return;
        }
        self.state = State::Joining(Joining { seed, tries: 1, walked: 0, retry_at: None });
        self.begin_from(now, keys, (seed, self.point), Aim::Join, out);
    }

    pub(super) fn join_again(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let State::Joining(joining) = &mut self.state else { return };
        joining.retry_at = None;
        joining.tries += 1;
        joining.walked = 0;
        let seed = joining.seed;
        self.begin_from(now, keys, (seed, self.point), Aim::Join, out);
    }

    pub(super) fn join_failed(&mut self, now: Micros, out: &mut Vec<EffectOf<Self>>) {
        let State::Joining(joining) = &mut self.state else { return };
        if joining.tries >= JOIN_TRIES_MAX {
            self.state = State::Outside;
            return out.push(Effect::Report(Outcome::JoinFailed));
        }
        joining.retry_at = Some(now + JOIN_RETRY_MICROS);
    }

    /// The owner of our point is known: we are to stand right before it.
    pub(super) fn found_place(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        owner: C,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        if keys.point(owner) == self.point {
            self.state = State::Outside;
            return out.push(Effect::Report(Outcome::PointTaken));
        }
        if !self.ask(owner, Purpose::JoinOwner, Message::Neighbours, out) {
            self.join_failed(now, out);
        }
    }

    pub(super) fn heard_join_owner(
        &mut self,
        now: Micros,
        owner: C,
        predecessor: Option<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        match predecessor {
            None => self.adopt(now, owner, &[], out),
            // What is left of an earlier life of ours; it is forgotten when we do not answer as a member.
            Some(own) if own == self.own => self.join_failed(now, out),
            Some(previous) => {
                if !self.ask(previous, Purpose::JoinPrevious, Message::Neighbours, out) {
                    self.join_failed(now, out);
                }
            }
        }
    }

    pub(super) fn heard_join_previous(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        previous: C,
        successors: &[C],
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let State::Joining(joining) = &mut self.state else { return };
        let Some(&head) = successors.first() else { return self.adopt(now, previous, &[], out) };
        let (before, after) = (keys.point(previous), keys.point(head));
        if between(before, self.point, after) && !successors.contains(&self.own) {
            return self.adopt(now, previous, successors, out);
        }
        joining.walked += 1;
        let onward = head != self.own && between(before, after, self.point) && joining.walked < WALK_MAX;
        if !onward || !self.ask(head, Purpose::JoinPrevious, Message::Neighbours, out) {
            self.join_failed(now, out);
        }
    }

    /// Zave's join: the node's predecessor is the one right before it, its list that one's list.
    fn adopt(&mut self, now: Micros, previous: C, successors: &[C], out: &mut Vec<EffectOf<Self>>) {
        let State::Joining(joining) = &self.state else { return };
        // If all that it is told of now die, it knows nobody else.
        let seed = joining.seed();
        self.met(now, seed);
        self.predecessor = Some(previous);
        self.successors.clear();
        if successors.is_empty() {
            self.successors.push(previous);
        }
        self.successors.extend(successors.iter().take(usize::from(self.settings.successors)));
        self.enter(now);
        self.hurry(now);
        if self.settings.finger_micros > 0 {
            self.finger_at = Some(now);
        }
        // What it kept alone, or in another ring, belongs to others here.
        self.rehome();
        out.push(Effect::Report(Outcome::Joined));
    }

    /// Stabilizes at once: something has changed nearby.
    pub(super) fn hurry(&mut self, now: Micros) {
        if self.is_member() && self.settings.stabilize_micros > 0 {
            self.stabilize_at = Some(now);
        }
    }

    /// Reads the successor.
    pub(super) fn stabilize(&mut self, out: &mut Vec<EffectOf<Self>>) {
        let Some(&head) = self.successors.first() else { return };
        if !self.stabilizing {
            self.stabilizing = self.ask(head, Purpose::Successor, Message::Neighbours, out);
        }
    }

    pub(super) fn heard_successor(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        (predecessor, successors): (Option<C>, &[C]),
        out: &mut Vec<EffectOf<Self>>,
    ) {
        if self.successors.first() != Some(&from) {
            self.stabilizing = false;
            return;
        }
        // Who is alone has lost all that are behind it, and has them from us again.
        if !successors.is_empty() {
            self.follow(now, from, successors);
        }
        let nearer = |node: &C| *node != self.own && between(self.point, keys.point(*node), keys.point(from));
        // It is our predecessor as well, if we know no other: then those behind us in its list are nearer.
        let behind = successors.iter().skip_while(|node| **node != self.own).nth(1).copied();
        let nearer = predecessor.filter(nearer).or(behind.filter(nearer));
        let asked = nearer.is_some_and(|node| self.ask(node, Purpose::Candidate, Message::Neighbours, out));
        if !asked {
            self.stabilized(keys, out);
        }
    }

    pub(super) fn heard_candidate(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        successors: &[C],
        out: &mut Vec<EffectOf<Self>>,
    ) {
        // The list may have changed since the question; what was true then is checked again.
        if let Some(&head) = self.successors.first()
            && between(self.point, keys.point(from), keys.point(head))
        {
            self.follow(now, from, successors);
        }
        self.stabilized(keys, out);
    }

    /// The list becomes `head` and what follows it, as far as the list is long and before it comes around.
    pub(super) fn follow(&mut self, now: Micros, head: C, rest: &[C]) {
        let before: SmallVec<[C; 8]> = self.successors.as_slice().into();
        self.successors.clear();
        self.successors.push(head);
        let rest = rest.iter().copied().take_while(|node| *node != self.own && *node != head);
        self.successors.extend(rest.take(usize::from(self.settings.successors) - 1));
        // Who is in no list any more is known to nobody, if it went wrongly.
        for node in before {
            if !self.successors.contains(&node) {
                self.lost(now, node);
            }
        }
    }

    pub(super) fn successor_failed(&mut self, keys: &impl Keys<C>, to: C, out: &mut Vec<EffectOf<Self>>) {
        self.stabilizing = false;
        if self.successors.first() == Some(&to) {
            self.successors.remove(0);
        }
        if !self.successors.is_empty() {
            return self.stabilize(out);
        }
        // Beyond Zave's assumptions. The predecessor is the last thread; without it this is a ring of one.
        match self.predecessor.filter(|node| *node != to) {
            Some(predecessor) => {
                self.successors.push(predecessor);
                self.stabilize(out);
            }
            None => {
                self.predecessor = None;
                out.push(Effect::Report(Outcome::CutOff));
                self.stabilized(keys, out);
            }
        }
    }

    pub(super) fn stabilized(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        self.stabilizing = false;
        if let Some(&to) = self.successors.first() {
            out.push(Effect::Tell { to, body: Message::Notify });
        }
        self.copy_to_new(keys, out);
    }

    /// Rectify: somebody may be our predecessor.
    pub(super) fn notified(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        if !self.is_member() || from == self.own || keys.point(from) == self.point {
            return;
        }
        if self.successors.is_empty() {
            // A ring of one becomes a ring of two.
            self.successors.push(from);
            self.hurry(now);
            out.push(Effect::Report(Outcome::Joined));
        }
        let Some(old) = self.predecessor else {
            self.predecessor = Some(from);
            // Only now is it known what is ours.
            self.forget_copied();
            if self.successors == [from] {
                return self.hand_over(keys, self.point, from, out);
            }
            // It came into a larger ring: what it kept alone is not all the predecessor's.
            return self.rehome();
        };
        if between(keys.point(old), keys.point(from), self.point) {
            self.predecessor = Some(from);
            self.hand_over(keys, keys.point(old), from, out);
        } else if old != from && !self.pending.iter().any(|(_, what)| matches!(what, Purpose::Probe { .. })) {
            self.ask(old, Purpose::Probe { newcomer: from }, Message::Alive, out);
        }
    }

    pub(super) fn predecessor_failed(&mut self, to: C, newcomer: C) {
        if self.predecessor == Some(to) {
            self.predecessor = Some(newcomer);
            // What was its is ours now, and our successors are to have it too.
            self.forget_copied();
        }
    }

    /// Hands the values to the successor and is gone. The ring mends as after a death, only at once.
    pub(super) fn leave(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        if self.is_member() {
            self.bequeath(keys, out);
            for to in self.predecessor.into_iter().chain(self.successors.first().copied()) {
                out.push(Effect::Tell { to, body: Message::Leaving });
            }
        }
        self.state = State::Outside;
        self.predecessor = None;
        self.successors.clear();
        self.stabilizing = false;
        self.forget_puts(out);
        self.forget_sending();
        (self.stabilize_at, self.finger_at, self.repair_at) = (None, None, None);
        out.push(Effect::Report(Outcome::Left));
    }
}
