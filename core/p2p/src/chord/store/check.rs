//! An owner and its first successors compare what they keep of the owner's, and each gets what it lacks.
//!
//! Copies alone go one way, from owner to successors. That is not enough when the owner changes: one that has just come
//! owns what it never kept as soon as the node before it goes, and what its successor handed to it was what they both took
//! for its own then. So an owner asks: its digest of all that it owns goes to each first successor that is new, to all of them
//! when what it owns has grown, and again with each repair. Where the digests are the same nothing is sent. Where they differ, the
//! owner copies all to the successor and the successor all to the owner; each keeps the newer of two versions. That is not done
//! again while both keep what they kept then: what one of them refuses it would refuse again.
//!
//! And a node that keeps what is another's goes through that, owner after owner: it looks up who owns the next value and tells it, and
//! that one asks by its digest as it asks its successors. So what came to lie far from its place, as when several nodes
//! come at once between an owner and those that had its copies, gets home as well.
//!
//! What an asker claims is believed as far as this node knows nobody else there: it is given nothing of what lies before a
//! node between, nor of what is before the value that it was told of, if it asks because it was told.
//!
//! Limits. A digest finds that something differs, not what. One successor is asked for all in one question, so a store that is
//! written all the time is sent whole now and then, at most once in a repair's period.

use alloc::vec::Vec;
use core::ops::Bound;

use kernel::Micros;
use smallvec::SmallVec;

use super::super::lookup::Aim;
use super::super::message::{Digest, Message};
use super::super::ring::{between, distance, owns};
use super::super::{Chord, Purpose, SUCCESSORS_MAX};
use super::{Handing, RETURNING_MAX, Store, Values};
use crate::key::Key;
use crate::protocol::{Contact, Effect, EffectOf, Keys};

/// Who leaves so many checks in a row unanswered is sent everything unasked: it may not know the question.
pub const CHECKS_MAX: u8 = 3;
/// Most checks of one peer that are answered within the period of stabilizations. Each walks over the whole store; who asks
/// beyond it hears that something differs, and sends copies.
const ANSWERED_MAX: u8 = 16;
/// Most peers whose checks are answered within that period, beside those that are known on the ring.
const CHECKERS_MAX: usize = 32;
/// Most peers whose checks are answered within that period.
const CHECKED_MAX: usize = CHECKERS_MAX + 2 * SUCCESSORS_MAX as usize;

/// Most owners of which a node remembers what it gave them when it offered.
const GIVEN_MAX: usize = 16;

/// How far a successor has copies of all own values.
#[derive(Clone, Copy, Debug)]
pub struct Copied<C> {
    pub to: C,
    pub sent: Sent,
    /// How many checks it left unanswered in a row, at most [`CHECKS_MAX`].
    pub missed: u8,
    /// What both kept when all was sent last, of what is this node's own. As long as they keep that, neither takes what it lacks.
    pub told: Option<Both>,
    /// Some of it did not arrive.
    pub lost: bool,
}

/// What two nodes keep of what one of them owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    own: Digest,
    theirs: Digest,
}

impl<C> Copied<C> {
    /// To be asked.
    pub const fn new(to: C) -> Copied<C> {
        Copied { to, sent: Sent::Nothing, missed: 0, told: None, lost: false }
    }
}

/// How much of what is to be copied is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing: it is to be asked whether it has all.
    Nothing,
    /// The question whether it has all, of which this is here.
    Check { own: Digest },
    /// All.
    Whole,
    /// What is not behind this.
    Through(Bound<Key>),
}

/// How far a node has come with offering what is others'.
#[derive(Clone, Debug)]
pub struct Offers {
    /// All up to this was offered.
    cursor: Bound<Key>,
    /// Whom was told last, until it asks.
    told: Option<Told>,
    /// What was given to the owner at a point, and what it kept then.
    given: Vec<(u64, Both)>,
}

/// An owner that was told that something of its own is kept here.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Where it stands.
    at: u64,
    /// The first point of its own at which something is kept: a lookup found that all from here on is its.
    first: u64,
}

impl Default for Offers {
    fn default() -> Offers {
        Offers { cursor: Bound::Unbounded, told: None, given: Vec::new() }
    }
}

impl Offers {
    /// From which point on all is the own of the owner at `through`, if it asks because it was told that. What is its own was
    /// offered then.
    fn is_asked_by(&mut self, through: u64) -> Option<u64> {
        let told = self.told.take_if(|told| told.at == through)?;
        self.cursor = Bound::Excluded(Key::from_words([through, u64::MAX, u64::MAX, u64::MAX]));
        Some(told.first)
    }

    /// Whether this was given to the owner at `through` before. One that was told of it may have a newer version of everything:
    /// what it kept then does not matter.
    fn has_given(&self, through: u64, both: Both, told: Option<u64>) -> bool {
        let alike = |given: &Both| given.own == both.own && (told.is_some() || given.theirs == both.theirs);
        self.given.iter().any(|(at, given)| *at == through && alike(given))
    }

    /// Exactly this is given to the owner at `through`.
    fn note(&mut self, through: u64, both: Both) {
        self.given.retain(|(at, _)| *at != through);
        if self.given.len() >= GIVEN_MAX {
            self.given.remove(0);
        }
        self.given.push((through, both));
    }
}

/// How many checks of each peer were answered in the period that goes on.
///
/// Invariant: each once, none beyond [`ANSWERED_MAX`], and at most [`CHECKED_MAX`] of them.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    peers: Vec<(u64, u8)>,
    /// When a period begins next.
    again: Micros,
}

/// Whether this node knows a peer on the ring, or asked it to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Known,
    Stranger,
}

impl Answered {
    /// Whether one more check of the peer at this point is answered; it counts then.
    fn take(&mut self, at: u64, asker: Asker) -> bool {
        if let Some((_, count)) = self.peers.iter_mut().find(|(peer, _)| *peer == at) {
            let has = *count < ANSWERED_MAX;
            *count += u8::from(has);
            return has;
        }
        let most = match asker {
            Asker::Known => CHECKED_MAX,
            Asker::Stranger => CHECKERS_MAX,
        };
        let has_room = self.peers.len() < most;
        if has_room {
            self.peers.push((at, 1));
        }
        has_room
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Same,
    /// The other keeps this, if it has looked.
    Differs(Option<Digest>),
    Unanswered,
}

/// The finalizer of SplitMix64 (Steele, Lea & Flood 2014): each bit of `word` changes half of the result's.
const fn mixed(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

impl Store {
    /// The digest of what is kept at the wanted points, whatever came first. O(values).
    fn digest(&self, wanted: impl Fn(u64) -> bool) -> Digest {
        let mut digest = Digest::default();
        for (key, (version, _)) in self.values.iter().filter(|(key, _)| wanted(key.point())) {
            digest.count += 1;
            digest.mix = digest.mix.wrapping_add(mixed(key.point() ^ mixed(*version)));
        }
        digest
    }
}

impl<C: Copy + Eq> Values<C> {
    /// What `to` owns, up to its point `through`, is sent to it, unless that is on its way. False if too many others wait.
    fn give_back(&mut self, to: C, after: u64, through: u64) -> bool {
        let covers = |one: &Handing<C>| {
            one.to == to && one.through == through && distance(one.from, through) >= distance(after, through)
        };
        if self.handing.iter().chain(&self.returning).any(covers) {
            return true;
        }
        // One place for each: what it owns is wider now than when it asked before.
        self.returning.retain(|one| one.to != to);
        let has_room = self.returning.len() < RETURNING_MAX;
        if has_room {
            self.returning.push(Handing { to, from: after, through, sent: Bound::Unbounded });
        }
        has_room
    }

    /// Whether `first` have all copies, and nothing is left to be sent.
    fn is_copied(&self, first: &[C]) -> bool {
        let whole = |to: &C| {
            let copied = self.copied.iter().find(|copied| copied.to == *to);
            copied.is_some_and(|copied| copied.sent == Sent::Whole && !copied.lost)
        };
        let handing = !self.handing.is_empty() || !self.returning.is_empty();
        let sending = handing || !self.fresh.is_empty() || !self.copying.is_empty();
        let astray = !self.strays.is_empty() || self.rehome.is_some() || self.rehoming > 0;
        first.iter().all(whole) && !sending && !astray
    }

    fn copied_to(&mut self, to: C) -> Option<&mut Copied<C>> {
        self.copied.iter_mut().find(|copied| copied.to == to)
    }
}

impl<C: Contact> Chord<C> {
    /// Is all that it owns at those that are to have copies, and nothing here that is on its way elsewhere, as far as it knows?
    /// A member that knows no other has nobody to ask.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        let on_its_way = |what: &Purpose<C>| {
            matches!(what, Purpose::Copy | Purpose::Fresh { .. } | Purpose::Hand | Purpose::Check { .. })
        };
        let first = self.first_successors();
        let copied = self.values.as_ref().map_or(first.is_empty(), |values| values.is_copied(&first));
        self.is_member() && copied && !self.pending.iter().any(|(_, what)| on_its_way(what))
    }

    /// Asks each first successor that nothing was sent to whether it has all that this node owns.
    pub(super) fn check(&mut self, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        // Who does not know its predecessor does not know what is its own.
        let (Some(predecessor), Some(values)) = (self.predecessor, self.values.as_deref()) else { return };
        let unasked = values.copied.iter().filter(|copied| copied.sent == Sent::Nothing);
        let unasked: SmallVec<[C; 4]> = unasked.map(|copied| copied.to).collect();
        if unasked.is_empty() {
            return;
        }
        let after = keys.point(predecessor);
        let digest = values.store.digest(|at| owns(after, self.point, at));
        for to in unasked {
            let asked = self.ask(to, Purpose::Check { after }, Message::Check { after, digest }, out);
            if let Some(copied) = self.values().copied_to(to).filter(|_| asked) {
                copied.sent = Sent::Check { own: digest };
            }
        }
    }

    /// The check of `to`, for what was owned behind `after`, has ended.
    pub(in super::super) fn checked(
        &mut self,
        keys: &impl Keys<C>,
        (to, after): (C, u64),
        checked: Checked,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let owned = self.predecessor.map(|predecessor| keys.point(predecessor)) == Some(after);
        let Some(values) = self.values.as_deref_mut() else { return };
        let Some(copied) = values.copied_to(to) else { return };
        let Sent::Check { own } = copied.sent else { return };
        let both = match checked {
            Checked::Differs(Some(theirs)) if owned => Some(Both { own, theirs }),
            Checked::Same | Checked::Differs(_) | Checked::Unanswered => None,
        };
        let is_told = both.is_some() && both == copied.told;
        copied.told = both;
        copied.missed = if checked == Checked::Unanswered { CHECKS_MAX.min(copied.missed + 1) } else { 0 };
        copied.sent = match checked {
            // What is owned has changed since.
            _ if !owned => Sent::Nothing,
            Checked::Same => Sent::Whole,
            Checked::Differs(_) if is_told => Sent::Whole,
            Checked::Unanswered if copied.missed < CHECKS_MAX => Sent::Nothing,
            Checked::Differs(_) | Checked::Unanswered => Sent::Through(Bound::Unbounded),
        };
        self.send_on(keys, out);
    }

    /// A copy for `to` may not have arrived. The next repair asks whether it has: what would be sent is all, and who does not take
    /// it in time would be sent all again and again, if it were asked sooner.
    pub(in super::super) fn copy_missed(&mut self, keys: &impl Keys<C>, to: C) {
        let Some(values) = self.values.as_deref_mut() else { return };
        values.offers.given.retain(|(through, _)| *through != keys.point(to));
        values.returning.retain(|returning| returning.to != to);
        if let Some(copied) = values.copied_to(to) {
            (copied.told, copied.lost) = (None, true);
        }
    }

    /// The answer to `Check` of `from`, which keeps this of its own behind `after`. What it may lack is sent to it.
    pub(in super::super) fn check_here(
        &mut self,
        keys: &impl Keys<C>,
        from: C,
        (after, digest): (u64, Digest),
        out: &mut Vec<EffectOf<Self>>,
    ) -> Message<C> {
        let (through, point) = (keys.point(from), self.point);
        let mut asker = self.knows(from);
        let values = self.values();
        let first = values.offers.is_asked_by(through);
        if first.is_some() {
            asker = Asker::Known;
        }
        if !values.answered.take(through, asker) {
            return Message::Differs { digest: None };
        }
        let own = values.store.digest(|at| owns(after, through, at));
        if own == digest {
            return Message::Yes;
        }
        let after = self.believed(keys, (after, through), first);
        let values = self.values();
        let part = values.store.digest(|at| owns(after, through, at));
        let both = Both { own: part, theirs: digest };
        let given = values.offers.has_given(through, both, first);
        // Two nodes of one point cannot both own it.
        if part.count > 0 && !given && through != point && values.give_back(from, after, through) {
            values.offers.note(through, both);
            self.send_on(keys, out);
        }
        Message::Differs { digest: Some(own) }
    }

    /// Behind which point a node at `through` is believed to own all, if it claims what is behind `after`: there is no other
    /// that this node knows on the ring. Those may be dead; then the rest is offered to it.
    ///
    /// If a lookup found that all from `first` on is its own, it is that.
    fn believed(&self, keys: &impl Keys<C>, (after, through): (u64, u64), first: Option<u64>) -> u64 {
        let known = self.predecessor.iter().chain(&self.successors).map(|node| keys.point(*node));
        let known = known.filter(|_| first.is_none()).chain(first.map(|first| first.wrapping_sub(1)));
        let nearer = known.chain([self.point]).filter(|at| between(after, *at, through));
        nearer.min_by_key(|at| distance(*at, through)).unwrap_or(after)
    }

    /// Looks up who owns the next of the values that are not this node's own, to tell it.
    pub(in super::super) fn offer(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(predecessor) = self.predecessor else { return };
        let (before, own) = (keys.point(predecessor), self.point);
        let Some(values) = self.values.as_deref_mut() else { return };
        let next = |after| values.store.items(after, |at| !owns(before, own, at)).next().map(|item| item.key);
        // And around again.
        let Some(key) = next(values.offers.cursor).or_else(|| next(Bound::Unbounded)) else { return };
        values.offers.cursor = Bound::Excluded(key);
        self.begin(now, keys, key.point(), Aim::Offer, out);
    }

    pub(in super::super) fn offer_to(
        &mut self,
        keys: &impl Keys<C>,
        (first, owner): (u64, C),
        out: &mut Vec<EffectOf<Self>>,
    ) {
        self.values().offers.told = Some(Told { at: keys.point(owner), first });
        out.push(Effect::Tell { to: owner, body: Message::Offer });
    }

    /// `from` keeps something that is this node's own: it is asked whether all of it is here.
    pub(in super::super) fn offered(&mut self, keys: &impl Keys<C>, from: C, out: &mut Vec<EffectOf<Self>>) {
        let Some(predecessor) = self.predecessor else { return };
        let (after, own, asker) = (keys.point(predecessor), self.point, self.knows(from));
        let values = self.values();
        if values.answered.take(keys.point(from), asker) {
            let digest = values.store.digest(|at| owns(after, own, at));
            self.ask(from, Purpose::Check { after }, Message::Check { after, digest }, out);
        }
    }

    /// Lets others check again, if the period of stabilizations has passed.
    pub(in super::super) fn allow_checks(&mut self, now: Micros) {
        let period = self.settings.stabilize_micros;
        if let Some(values) = self.values.as_deref_mut().filter(|values| values.answered.again <= now) {
            values.answered.peers.clear();
            values.answered.again = now + period;
        }
    }

    fn knows(&self, peer: C) -> Asker {
        let known = self.predecessor == Some(peer) || self.successors.contains(&peer);
        if known { Asker::Known } else { Asker::Stranger }
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::super::Item;
    use super::*;
    use crate::key::Key;

    fn store(items: &[(u64, u64)]) -> Store {
        let mut store = Store::default();
        for (at, version) in items {
            let key = Key::from_words([*at, 0, 0, 0]);
            assert!(store.keep(Item { key, version: *version, value: Arc::from(&[1][..]) }));
        }
        store
    }

    proptest! {
        /// Alike in whichever order it came; and every lost value and every old version shows.
        #[test]
        fn a_digest_is_of_what_is_kept(
            mut items in vec((any::<u64>(), 1u64..9), 1..40),
            shuffled in any::<prop::sample::Index>(),
        ) {
            items.sort_unstable();
            items.dedup_by_key(|(at, _)| *at);
            let whole = store(&items).digest(|_| true);
            let count = items.len();
            prop_assert_eq!(whole.count as usize, count);
            items.rotate_left(shuffled.index(count));
            prop_assert_eq!(store(&items).digest(|_| true), whole);
            prop_assert_ne!(store(&items[1..]).digest(|_| true), whole);
            items[0].1 += 1;
            prop_assert_ne!(store(&items).digest(|_| true), whole);
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_in_it() {
        let all = store(&[(5, 1), (15, 1), (25, 1)]);
        assert_eq!(all.digest(|at| owns(10, 20, at)), store(&[(15, 1)]).digest(|_| true));
        // Around the end.
        assert_eq!(all.digest(|at| owns(20, 10, at)), store(&[(5, 1), (25, 1)]).digest(|_| true));
    }
}
