//! Lookups: the origin asks nodes ever nearer before a point until one names its owner, and then the owner itself.
//!
//! What was heard on the way is kept, so that a dead node costs its timeout and nothing else: the next best is
//! asked, and who answered is asked for more when none is left.

use alloc::vec::Vec;

use kernel::Micros;
use smallvec::SmallVec;

use super::message::{Item, Message, NEAR_MAX, Near, Outcome, Tag, Told};
use super::ring::distance;
use super::store::Putter;
use super::{Chord, LOOKUPS_MAX, Purpose};
use crate::key::Key;
use crate::protocol::{Contact, Effect, EffectOf, Keys};

/// Most nodes that one lookup remembers; the farthest is forgotten.
pub const CANDIDATES_MAX: usize = 64;
/// Most requests of one lookup.
pub const ASKS_MAX: u16 = 256;
/// Most requests of a comparison: it begins at a node that may lie, and lead it on and on.
const UNITE_ASKS_MAX: u16 = 48;
/// Most nodes at or after the point in one answer.
const OWNERS_TOLD: usize = 4;
/// Most possible owners that a lookup remembers; the farthest is forgotten. All of a successor list: a node that
/// looks up a key right after its own point has nobody to ask for those it forgot.
const OWNERS_MAX: usize = super::SUCCESSORS_MAX as usize;

/// What a lookup is for.
#[derive(Clone, Debug)]
pub enum Aim<C> {
    /// The owner of the node wants to know.
    Find { tag: Tag },
    /// A value is wanted.
    Get { tag: Tag, key: Key },
    /// A value is to be kept.
    Put { tag: Tag, item: Item },
    /// A finger is mended.
    Finger { index: u8 },
    /// The node's own place is looked for.
    Join,
    /// Who is right behind the node's own place, as the ring of this one has it?
    Unite { contact: C },
    /// A value that lies elsewhere than here is brought to its owner.
    Rehome { item: Item },
    /// Whoever owns the point is told that values of its own are here.
    Offer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Heard,
    Asked,
    Answered,
}

/// A node before the point.
#[derive(Clone, Debug)]
struct Candidate<C> {
    node: C,
    /// How far it is from the point.
    left: u64,
    depth: u8,
    progress: Progress,
    /// How many before and after the point it has told already, and whether it knows more.
    told: Told,
    more: bool,
}

/// A node that may own the point.
#[derive(Clone, Copy, Debug)]
struct Owner<C> {
    node: C,
    beyond: u64,
    depth: u8,
}

/// One lookup under way.
#[derive(Clone, Debug)]
pub struct Lookup<C> {
    number: u32,
    point: u64,
    aim: Aim<C>,
    candidates: Vec<Candidate<C>>,
    owners: SmallVec<[Owner<C>; 4]>,
    failed: SmallVec<[C; 4]>,
    in_flight: u8,
    owner_asked: bool,
    asks: u16,
    timeouts: u16,
}

impl<C: Contact> Lookup<C> {
    /// Everyone that it remembers.
    pub(super) fn nodes(&self) -> impl Iterator<Item = C> {
        let candidates = self.candidates.iter().map(|known| known.node);
        candidates.chain(self.owners.iter().map(|known| known.node)).chain(self.failed.iter().copied())
    }

    fn hear(&mut self, node: C, left: u64, depth: u8) {
        if self.failed.contains(&node) || self.candidates.iter().any(|known| known.node == node) {
            return;
        }
        let candidate =
            Candidate { node, left, depth, progress: Progress::Heard, told: Told::default(), more: false };
        if self.candidates.len() < CANDIDATES_MAX {
            return self.candidates.push(candidate);
        }
        let idle = self.candidates.iter_mut().filter(|known| known.progress != Progress::Asked);
        if let Some(farthest) = idle.max_by_key(|known| known.left)
            && farthest.left > left
        {
            *farthest = candidate;
        }
    }

    fn hear_owner(&mut self, node: C, beyond: u64, depth: u8) {
        if self.failed.contains(&node) || self.owners.iter().any(|known| known.node == node) {
            return;
        }
        let at = self.owners.partition_point(|known| known.beyond <= beyond);
        self.owners.insert(at, Owner { node, beyond, depth });
        self.owners.truncate(OWNERS_MAX);
    }

    fn fail(&mut self, node: C) {
        self.timeouts = self.timeouts.saturating_add(1);
        if self.failed.len() < usize::from(ASKS_MAX) {
            self.failed.push(node);
        }
        self.candidates.retain(|known| known.node != node);
        self.owners.retain(|known| known.node != node);
    }

    const fn asks_max(&self) -> u16 {
        match self.aim {
            Aim::Unite { .. } => UNITE_ASKS_MAX,
            Aim::Find { .. }
            | Aim::Get { .. }
            | Aim::Put { .. }
            | Aim::Finger { .. }
            | Aim::Join
            | Aim::Offer
            | Aim::Rehome { .. } => ASKS_MAX,
        }
    }

    /// Whom to ask next: the nearest that was not asked or knows more.
    fn next(&mut self) -> Option<&mut Candidate<C>> {
        let open = |known: &Candidate<C>| match known.progress {
            Progress::Heard => true,
            Progress::Asked => false,
            Progress::Answered => known.more,
        };
        self.candidates.iter_mut().filter(|known| open(known)).min_by_key(|known| known.left)
    }
}

impl<C: Contact> Chord<C> {
    /// The answer to `Find`: whom this node knows on the way to `point`.
    pub(super) fn find(&self, keys: &impl Keys<C>, point: u64, told: Told) -> Message<C> {
        if self.is_owner(keys, point) {
            return Message::Mine;
        }
        let (before, owners) = self.known(keys, point);
        let (skip, beyond) = (usize::from(told.before), usize::from(told.owners));
        let rest = owners.get(beyond..).unwrap_or_default();
        let owners = &rest[..rest.len().min(OWNERS_TOLD)];
        let room = NEAR_MAX - owners.len();
        let mut nodes: SmallVec<[C; NEAR_MAX]> =
            before.iter().skip(skip).take(room).map(|(_, node)| *node).collect();
        let more = before.len() > skip + nodes.len() || rest.len() > owners.len();
        nodes.extend(owners.iter().map(|(_, node)| *node));
        Message::Near(Near { nodes, owners: owners.len() as u8, more })
    }

    /// Every known node before `point`, nearest to it first, and the successors at or after it, nearest first;
    /// each with its distance from here.
    fn known(&self, keys: &impl Keys<C>, point: u64) -> (SmallVec<[(u64, C); 48]>, SmallVec<[(u64, C); 8]>) {
        let target = distance(self.point, point);
        let (mut before, mut owners) = (SmallVec::new(), SmallVec::new());
        for &node in &self.successors {
            let at = distance(self.point, keys.point(node));
            if at < target { before.push((at, node)) } else { owners.push((at, node)) }
        }
        let cached = self.cache.iter().flat_map(|cache| cache.nodes());
        for node in self.fingers.iter().flatten().copied().chain(cached) {
            let at = distance(self.point, keys.point(node));
            if at > 0 && at < target {
                before.push((at, node));
            }
        }
        before.sort_unstable_by(|a: &(u64, C), b| b.cmp(a));
        before.dedup_by_key(|(_, node)| *node);
        (before, owners)
    }

    pub(super) fn begin(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        point: u64,
        aim: Aim<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        if !self.is_member() || self.lookups.len() >= LOOKUPS_MAX {
            return self.give_up(now, aim, out);
        }
        if self.is_owner(keys, point) {
            return self.own_it(keys, aim, out);
        }
        let (before, owners) = self.known(keys, point);
        let mut lookup = self.lookup(point, aim);
        for (at, node) in before.into_iter().take(CANDIDATES_MAX) {
            lookup.hear(node, distance(self.point, point) - at, 1);
        }
        for (_, node) in owners {
            lookup.hear_owner(node, distance(point, keys.point(node)), 1);
        }
        self.lookups.push(lookup);
        self.advance(now, keys, self.lookups.len() - 1, out);
    }

    /// Looks for `point` from another node, as if we knew none but that one.
    pub(super) fn begin_from(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        (seed, point): (C, u64),
        aim: Aim<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let mut lookup = self.lookup(point, aim);
        lookup.hear(seed, distance(keys.point(seed), point), 1);
        self.lookups.push(lookup);
        self.advance(now, keys, self.lookups.len() - 1, out);
    }

    fn lookup(&mut self, point: u64, aim: Aim<C>) -> Lookup<C> {
        self.next_lookup = self.next_lookup.wrapping_add(1);
        Lookup {
            number: self.next_lookup,
            point,
            aim,
            candidates: Vec::new(),
            owners: SmallVec::new(),
            failed: SmallVec::new(),
            in_flight: 0,
            owner_asked: false,
            asks: 0,
            timeouts: 0,
        }
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.lookups.iter().position(|lookup| lookup.number == number)
    }

    fn advance(&mut self, now: Micros, keys: &impl Keys<C>, at: usize, out: &mut Vec<EffectOf<Self>>) {
        loop {
            let lookup = &mut self.lookups[at];
            let number = lookup.number;
            if lookup.owner_asked || lookup.asks >= lookup.asks_max() {
                break;
            }
            let (to, purpose, body) = if let Some(&Owner { node, depth, .. }) = lookup.owners.first() {
                if node == self.own {
                    return self.owns_after_all(now, keys, (at, depth), out);
                }
                lookup.owner_asked = true;
                (node, Purpose::Own { lookup: number, depth }, Message::Own { point: lookup.point })
            } else if lookup.in_flight < self.settings.parallel {
                let point = lookup.point;
                let Some(next) = lookup.next() else { break };
                next.progress = Progress::Asked;
                let (node, depth, told) = (next.node, next.depth, next.told);
                lookup.in_flight += 1;
                (node, Purpose::Find { lookup: number, depth }, Message::Find { point, told })
            } else {
                break;
            };
            lookup.asks += 1;
            if !self.ask(to, purpose, body, out) {
                // Nothing would come back to go on with.
                let aim = self.lookups.swap_remove(at).aim;
                return self.give_up(now, aim, out);
            }
        }
        let lookup = &self.lookups[at];
        if !lookup.owner_asked && lookup.in_flight == 0 {
            let aim = self.lookups.swap_remove(at).aim;
            self.give_up(now, aim, out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what an answer is made of")]
    pub(super) fn heard_near(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        number: u32,
        from: C,
        depth: u8,
        near: &Near<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(at) = self.place(number) else { return };
        let lookup = &mut self.lookups[at];
        lookup.in_flight = lookup.in_flight.saturating_sub(1);
        let before = near.nodes.len().saturating_sub(usize::from(near.owners));
        let mut left = u64::MAX;
        if let Some(known) = lookup.candidates.iter_mut().find(|known| known.node == from) {
            left = known.left;
            known.progress = Progress::Answered;
            known.told.before = known.told.before.saturating_add(before as u8);
            known.told.owners = known.told.owners.saturating_add(near.owners);
            // Whoever tells nothing has nothing more to tell.
            known.more = near.more && !near.nodes.is_empty();
        }
        let (point, depth) = (lookup.point, depth.saturating_add(1));
        for (n, &node) in near.nodes.iter().enumerate() {
            if n >= before {
                lookup.hear_owner(node, distance(point, keys.point(node)), depth);
                continue;
            }
            let closer = distance(keys.point(node), point);
            // Only onward: an answer that leads back could lead around for ever.
            if closer > 0 && closer < left && node != self.own {
                lookup.hear(node, closer, depth);
            }
        }
        self.advance(now, keys, at, out);
    }

    pub(super) fn found(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        number: u32,
        owner: C,
        depth: u8,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(at) = self.place(number) else { return };
        let lookup = &mut self.lookups[at];
        let purpose = Purpose::Value { lookup: number };
        let body = match &lookup.aim {
            Aim::Get { key, .. } => Message::Get(*key),
            Aim::Put { item, .. } | Aim::Rehome { item } => Message::Put(item.clone()),
            Aim::Find { .. } | Aim::Finger { .. } | Aim::Join | Aim::Unite { .. } | Aim::Offer => {
                let Lookup { aim, timeouts, point, .. } = self.lookups.swap_remove(at);
                return match aim {
                    Aim::Find { tag } => {
                        out.push(Effect::Report(Outcome::Found { tag, owner, hops: depth, timeouts }));
                    }
                    Aim::Finger { index } => self.set_finger(now, keys, index, owner),
                    Aim::Join => self.found_place(now, keys, owner, out),
                    Aim::Unite { contact } => self.found_behind(now, keys, (contact, owner), out),
                    Aim::Offer => self.offer_to(keys, (point, owner), out),
                    Aim::Get { .. } | Aim::Put { .. } | Aim::Rehome { .. } => {}
                };
            }
        };
        // The owner stays known until it has answered, so that its successor is asked if it does not.
        lookup.owner_asked = true;
        lookup.asks = lookup.asks.saturating_add(1);
        if !self.ask(owner, purpose, body, out) {
            let aim = self.lookups.swap_remove(at).aim;
            self.give_up(now, aim, out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what an answer is made of")]
    pub(super) fn not_owner(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        number: u32,
        from: C,
        depth: u8,
        predecessor: Option<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(at) = self.place(number) else { return };
        let lookup = &mut self.lookups[at];
        lookup.owner_asked = false;
        let Some(predecessor) = predecessor else { return self.found(now, keys, number, from, depth, out) };
        // Its predecessor is gone and nobody has told it yet: it is the first that lives.
        if lookup.failed.contains(&predecessor) {
            return self.found(now, keys, number, from, depth, out);
        }
        let beyond = distance(lookup.point, keys.point(predecessor));
        let nearer = beyond < distance(lookup.point, keys.point(from));
        if nearer && predecessor != from {
            lookup.hear_owner(predecessor, beyond, depth.saturating_add(1));
        } else {
            lookup.fail(from);
        }
        self.advance(now, keys, at, out);
    }

    pub(super) fn hop_failed(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        (number, to): (u32, C),
        hop: Hop,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(at) = self.place(number) else { return };
        let lookup = &mut self.lookups[at];
        match hop {
            Hop::Find => lookup.in_flight = lookup.in_flight.saturating_sub(1),
            Hop::Owner => lookup.owner_asked = false,
        }
        lookup.fail(to);
        self.advance(now, keys, at, out);
    }

    pub(super) fn stored(&mut self, number: u32, kept: u32, out: &mut Vec<EffectOf<Self>>) {
        let Some(at) = self.place(number) else { return };
        match self.lookups.swap_remove(at).aim {
            Aim::Put { tag, .. } if kept > 0 => {
                out.push(Effect::Report(Outcome::Stored { tag, nodes: kept }))
            }
            Aim::Put { tag, .. } => out.push(Effect::Report(Outcome::Full { tag })),
            Aim::Rehome { .. } => self.rehomed(None),
            // An answer to another question is none.
            Aim::Get { tag, .. } => out.push(Effect::Report(Outcome::NotFound { tag })),
            Aim::Find { .. } | Aim::Finger { .. } | Aim::Join | Aim::Unite { .. } | Aim::Offer => {}
        }
    }

    pub(super) fn fetched(&mut self, number: u32, item: Option<Item>, out: &mut Vec<EffectOf<Self>>) {
        let Some(at) = self.place(number) else { return };
        match self.lookups.swap_remove(at).aim {
            Aim::Get { tag, key } => {
                let item = item.filter(|item| item.key == key);
                out.push(Effect::Report(Outcome::Value { tag, item }));
            }
            // An answer to another question is none.
            Aim::Put { tag, .. } => out.push(Effect::Report(Outcome::NotFound { tag })),
            Aim::Rehome { item } => self.rehomed(Some(item.key)),
            Aim::Find { .. } | Aim::Finger { .. } | Aim::Join | Aim::Unite { .. } | Aim::Offer => {}
        }
    }

    /// Everyone between the point and us is gone: our predecessor too, and nobody has told us yet.
    fn owns_after_all(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        (at, depth): (usize, u8),
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Lookup { aim, timeouts, .. } = self.lookups.swap_remove(at);
        match aim {
            Aim::Find { tag } => {
                let hops = depth.saturating_sub(1);
                out.push(Effect::Report(Outcome::Found { tag, owner: self.own, hops, timeouts }));
            }
            // What is left of an earlier life of ours; it is forgotten when we do not answer as a member.
            Aim::Join => self.join_failed(now, out),
            // Nobody but us is known there.
            Aim::Unite { contact } => self.compared(now, contact, true),
            // Others take us for its owner still, and we know better: it is too early.
            Aim::Rehome { item } => self.rehomed(Some(item.key)),
            aim => self.own_it(keys, aim, out),
        }
    }

    fn own_it(&mut self, keys: &impl Keys<C>, aim: Aim<C>, out: &mut Vec<EffectOf<Self>>) {
        let outcome = match aim {
            Aim::Find { tag } => Outcome::Found { tag, owner: self.own, hops: 0, timeouts: 0 },
            Aim::Get { tag, key } => {
                Outcome::Value { tag, item: self.store().and_then(|store| store.get(key)) }
            }
            Aim::Put { tag, item } => return self.put_here(keys, item, Putter::Own(tag), out),
            // It lies here already.
            Aim::Rehome { .. } => return self.rehomed(None),
            Aim::Finger { .. } | Aim::Join | Aim::Unite { .. } | Aim::Offer => return,
        };
        out.push(Effect::Report(outcome));
    }

    fn give_up(&mut self, now: Micros, aim: Aim<C>, out: &mut Vec<EffectOf<Self>>) {
        match aim {
            Aim::Find { tag } | Aim::Get { tag, .. } | Aim::Put { tag, .. } => {
                out.push(Effect::Report(Outcome::NotFound { tag }));
            }
            Aim::Finger { .. } | Aim::Offer => {}
            Aim::Join => self.join_failed(now, out),
            Aim::Unite { contact } => self.compared(now, contact, false),
            Aim::Rehome { item } => self.rehomed(Some(item.key)),
        }
    }
}

/// Which kind of a lookup's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// On the way.
    Find,
    /// At its end.
    Owner,
}
