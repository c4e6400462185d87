//! Rings that meet become one: a node compares its successor with the one that another ring would give it.
//!
//! Whoever is met, or was lost, may be of another ring: one that began on its own, or the other side of a partition. The
//! node looks the place right behind its own up *from there*. What is found is a living member, and one of two holds:
//!
//! - It is nearer than our successor: it becomes our successor, as a successor's predecessor would (Zave's stabilize).
//! - It is farther: it is told that we may be its predecessor (Zave's rectify). The node before it there finds us by its
//!   next stabilization.
//!
//! Either way one ring now leads into the other, so there is one ring with the rest of the other hanging on
//! to it, and stabilization alone makes that ideal, one node after another. For speed, who finds a difference
//! tells its neighbours and fingers whom to compare with, and the node found whom of ours: so it spreads like
//! gossip, and ends where nobody finds a difference any more. It would not end where one lies, or where some
//! reach others that the rest do not: so a node waits twice as long after each time that it told others,
//! until it has told nobody for long.
//!
//! Nobody leaves a ring and nothing is to be agreed on, so a wrong suspicion costs a lookup: in one ring, in whatever state
//! churn has it, a nearer living successor is always right. Known since Shafaat, Ghodsi & Haridi 2009, "Dealing with
//! network partitions in structured overlay networks", who walk the rings instead; the way by lookups is ours.
//!
//! A node that is alone comes into a ring in this way too: it needs no other.

use alloc::vec::Vec;

use kernel::{Micros, Rng};
use smallvec::SmallVec;

use super::lookup::Aim;
use super::message::{Message, Outcome};
use super::ring::distance;
use super::{Chord, LOOKUPS_MAX, Purpose};
use crate::protocol::{Contact, Effect, EffectOf, Keys};

/// Most nodes that are remembered to be compared with.
pub const CONTACTS_MAX: usize = 64;
/// Most of them that others told of: these are compared with once, and of more the first stay.
pub const TOLD_MAX: usize = 8;
/// Most of them that were met; of more, drawn ones stay.
const MET_MAX: usize = 32;
/// Most of them that were lost; of more, drawn ones stay.
const LOST_MAX: usize = CONTACTS_MAX - TOLD_MAX - MET_MAX;
/// How long after a node was met it is compared with, at most, in microseconds; drawn, so that not all ask at once.
const SOON_MICROS: u64 = 1_000_000;
/// The least time between two comparisons, in microseconds.
const PACE_MICROS: u64 = 250_000;
/// The least time between the first two rounds of telling others whom to compare with, in microseconds. After
/// each further one it is twice as long.
const SPREAD_MICROS: u64 = 20_000_000;
/// So often it is doubled: to an hour and a half.
const SPREADS_MAX: u8 = 8;
/// Who has told nobody for so long begins with the shortest pause again, in microseconds.
const QUIET_MICROS: u64 = SPREAD_MICROS << (SPREADS_MAX + 1);
/// A node that did not answer so often in a row, each time after twice the time, is forgotten.
const MISSES_MAX: u8 = 8;

/// Why a node is remembered. Each has its own room, so that none drives out another; a later reason is worth
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// Others told of it: it is compared with once.
    Told,
    /// It speaks the protocol with us.
    Met,
    /// It was a neighbour or a finger: without it, a ring that was parted stays parted.
    Lost,
}

impl Source {
    const fn most(self) -> usize {
        match self {
            Source::Told => TOLD_MAX,
            Source::Met => MET_MAX,
            Source::Lost => LOST_MAX,
        }
    }
}

/// A node that may be of another ring.
#[derive(Clone, Copy, Debug)]
struct Known<C> {
    peer: C,
    due: Micros,
    misses: u8,
    source: Source,
}

/// Whom a node compares with, and when.
///
/// Invariant: each once, and of each source at most as many as it has room.
#[derive(Clone, Debug)]
pub(super) struct Unite<C> {
    known: Vec<Known<C>>,
    /// With whom a comparison is under way.
    under_way: Option<C>,
    /// No comparison begins before.
    rest: Micros,
    /// When others were told last.
    spread: Option<Micros>,
    /// How often the pause after that was doubled, at most [`SPREADS_MAX`].
    spreads: u8,
    /// Microseconds between two comparisons, on average.
    period: u64,
    rng: Rng,
}

impl<C: Contact> Unite<C> {
    const fn new(period: u64, rng: Rng) -> Unite<C> {
        Unite { known: Vec::new(), under_way: None, rest: Micros(0), spread: None, spreads: 0, period, rng }
    }

    /// Everyone that it remembers.
    pub fn nodes(&self) -> impl Iterator<Item = C> {
        self.known.iter().map(|known| known.peer).chain(self.under_way)
    }

    pub fn deadline(&self) -> Option<Micros> {
        let due = self.known.iter().map(|known| known.due).min().filter(|_| self.under_way.is_none());
        due.map(|due| due.max(self.rest))
    }

    /// Remembers `peer`, to be compared with at `due`.
    fn remember(&mut self, peer: C, due: Micros, source: Source) {
        let mut new = Known { peer, due, misses: 0, source };
        if let Some(at) = self.known.iter().position(|known| known.peer == peer) {
            let known = &mut self.known[at];
            known.due = known.due.min(due);
            // That others tell of it does not say that it lives.
            if source > Source::Told {
                known.misses = 0;
            }
            if known.source >= source {
                return;
            }
            new.due = known.due;
            self.known.swap_remove(at);
        }
        let count = self.known.iter().filter(|known| known.source == source).count();
        if count < source.most() {
            return self.known.push(new);
        }
        if source > Source::Told {
            let drawn = self.rng.below(count as u64) as usize;
            let mut alike = self.known.iter_mut().filter(|known| known.source == source);
            if let Some(known) = alike.nth(drawn) {
                *known = new;
            }
        }
    }

    /// May others be told whom to compare with? They count as told then.
    fn may_spread(&mut self, now: Micros) -> bool {
        if let Some(last) = self.spread {
            let passed = now.since(last);
            if passed < SPREAD_MICROS << self.spreads {
                return false;
            }
            self.spreads = if passed < QUIET_MICROS { SPREADS_MAX.min(self.spreads + 1) } else { 0 };
        }
        self.spread = Some(now);
        true
    }

    fn soon(&mut self, now: Micros) -> Micros {
        now + self.rng.below(SOON_MICROS)
    }

    /// When a node is compared with again: all of them take turns.
    fn again(&mut self, now: Micros) -> Micros {
        let turns = self.known.len().max(1) as u64;
        let period = self.period / 5 * 4 + self.rng.below(self.period / 5 * 2 + 1);
        now + period.saturating_mul(turns)
    }

    /// The one to be compared with now; it counts as under way.
    fn begin(&mut self, now: Micros) -> Option<C> {
        if self.under_way.is_some() || self.rest > now {
            return None;
        }
        let first = self.known.iter().filter(|known| known.due <= now).min_by_key(|known| known.due)?;
        self.under_way = Some(first.peer);
        self.under_way
    }

    /// The comparison with `peer` has ended; `answered` if it came to its end.
    fn end(&mut self, now: Micros, peer: C, answered: bool) {
        if self.under_way != Some(peer) {
            return;
        }
        self.under_way = None;
        self.rest = now + PACE_MICROS;
        let again = self.again(now);
        let Some(at) = self.known.iter().position(|known| known.peer == peer) else { return };
        let known = &mut self.known[at];
        known.misses = if answered { 0 } else { known.misses + 1 };
        known.due = now + (again.since(now) << known.misses);
        if known.source == Source::Told || known.misses > MISSES_MAX {
            self.known.swap_remove(at);
        }
    }

    /// All are compared with soon.
    fn hasten(&mut self, now: Micros) {
        for at in 0..self.known.len() {
            let soon = self.soon(now);
            self.known[at].due = self.known[at].due.min(soon);
        }
    }
}

impl<C: Contact> Chord<C> {
    fn unite(&mut self) -> Option<&mut Unite<C>> {
        let period = self.settings.unite_micros;
        if period == 0 {
            return None;
        }
        let rng = &self.rng;
        Some(self.unite.get_or_insert_with(|| Unite::new(period, rng.fork(0x554E_4954)).into()))
    }

    /// A peer speaks the protocol: it may be of another ring.
    pub(super) fn met(&mut self, now: Micros, peer: C) {
        if peer != self.own
            && let Some(unite) = self.unite()
        {
            let soon = unite.soon(now);
            unite.remember(peer, soon, Source::Met);
        }
    }

    /// Another node tells of one to compare with.
    pub(super) fn told_of(&mut self, now: Micros, peer: C) {
        if peer != self.own
            && self.is_member()
            && let Some(unite) = self.unite()
        {
            let soon = unite.soon(now);
            unite.remember(peer, soon, Source::Told);
        }
    }

    /// A neighbour or finger does not answer, or is behind us no more: it is dead, or on the other side of a partition, or
    /// others are nearer.
    pub(super) fn lost(&mut self, now: Micros, peer: C) {
        if let Some(unite) = self.unite()
            && unite.known.iter().all(|known| known.peer != peer || known.source != Source::Lost)
        {
            let again = unite.again(now);
            unite.remember(peer, again, Source::Lost);
        }
    }

    /// Nobody is left: whoever is known may be a way into a ring.
    pub(super) fn hasten(&mut self, now: Micros) {
        if let Some(unite) = &mut self.unite {
            unite.hasten(now);
        }
    }

    /// Begins the comparison that is due.
    pub(super) fn compare(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let room = self.lookups.len() < LOOKUPS_MAX;
        let Some(unite) = &mut self.unite else { return };
        let Some(contact) = unite.begin(now) else { return };
        if room {
            self.begin_from(now, keys, (contact, self.point.wrapping_add(1)), Aim::Unite { contact }, out);
        } else {
            unite.end(now, contact, true);
        }
    }

    pub(super) fn compared(&mut self, now: Micros, contact: C, answered: bool) {
        if let Some(unite) = &mut self.unite {
            unite.end(now, contact, answered);
        }
    }

    /// Is `node` nearer behind us than our successor?
    fn is_nearer(&self, keys: &impl Keys<C>, node: C) -> bool {
        let at = distance(self.point, keys.point(node));
        at > 0 && self.successors.first().is_none_or(|head| at < distance(self.point, keys.point(*head)))
    }

    /// The ring of `contact` has `found` right behind our place.
    pub(super) fn found_behind(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        (contact, found): (C, C),
        out: &mut Vec<EffectOf<Self>>,
    ) {
        // Two nodes of one point cannot both be on a ring.
        let twin = keys.point(found) == self.point;
        if twin || self.successors.first() == Some(&found) || !self.is_member() {
            return self.compared(now, contact, true);
        }
        if self.is_nearer(keys, found) {
            if !self.ask(found, Purpose::Unite { contact }, Message::Neighbours, out) {
                self.compared(now, contact, true);
            }
            return;
        }
        out.push(Effect::Tell { to: found, body: Message::Notify });
        self.spread(now, (contact, found), out);
        self.compared(now, contact, true);
    }

    /// Who may be a nearer successor lives, and tells who is behind it.
    pub(super) fn heard_behind(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        (contact, from): (C, C),
        successors: &[C],
        out: &mut Vec<EffectOf<Self>>,
    ) {
        self.compared(now, contact, true);
        // What was true when it was asked is checked again.
        if !self.is_member() || !self.is_nearer(keys, from) {
            return;
        }
        self.spread(now, (contact, from), out);
        let alone = self.is_alone();
        self.follow(now, from, successors);
        out.push(Effect::Tell { to: from, body: Message::Notify });
        out.push(Effect::Report(if alone { Outcome::Joined } else { Outcome::United }));
        if alone {
            self.rehome();
        }
        self.hurry(now);
    }

    /// Tells our neighbours and fingers of `contact`, and `found`, which is of its ring, of our successor.
    fn spread(&mut self, now: Micros, (contact, found): (C, C), out: &mut Vec<EffectOf<Self>>) {
        let Some(unite) = &mut self.unite else { return };
        if !unite.may_spread(now) {
            return;
        }
        if let Some(&head) = self.successors.first() {
            out.push(Effect::Tell { to: found, body: Message::Meet(head) });
        }
        let ring = self.predecessor.iter().chain(&self.successors).chain(self.fingers.iter().flatten());
        let mut circle: SmallVec<[C; 48]> =
            ring.copied().filter(|node| *node != contact && *node != found).collect();
        circle.sort_unstable();
        circle.dedup();
        out.extend(circle.into_iter().map(|to| Effect::Tell { to, body: Message::Meet(contact) }));
    }

    /// When the next comparison is due.
    pub(super) fn compare_at(&self) -> Option<Micros> {
        self.unite.as_ref().filter(|_| self.is_member()).and_then(|unite| unite.deadline())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unite() -> Unite<u32> {
        Unite::new(75_000_000, Rng::new(1))
    }

    #[test]
    fn who_is_met_is_compared_with_soon_and_then_in_turns() {
        let (mut unite, now) = (unite(), Micros(5));
        for peer in 0..4 {
            let soon = unite.soon(now);
            unite.remember(peer, soon, Source::Met);
        }
        let mut at = now;
        for turn in 0..12 {
            at = unite.deadline().unwrap();
            let peer = unite.begin(at).unwrap();
            assert_eq!(unite.begin(at), None, "one at a time");
            unite.end(at, peer, true);
            let known = unite.known.iter().find(|known| known.peer == peer).unwrap();
            assert!((240_000_000..=360_000_000).contains(&known.due.since(at)), "turn {turn}: {known:?}");
            assert!(turn > 3 || at.since(now) <= 2 * SOON_MICROS);
        }
        assert!(at.since(now) > 2 * 240_000_000);
    }

    #[test]
    fn who_does_not_answer_is_asked_ever_more_rarely_and_then_forgotten() {
        let mut unite = unite();
        unite.remember(7, Micros(0), Source::Met);
        let (mut at, mut last) = (unite.deadline().unwrap(), 0);
        loop {
            assert_eq!(unite.begin(at), Some(7));
            unite.end(at, 7, false);
            let Some(next) = unite.deadline() else { break };
            assert!(next.since(at) > last, "{last} and then {}", next.since(at));
            (at, last) = (next, next.since(at));
        }
        assert!(last > 60_000_000 << MISSES_MAX);
        // Control: one answer, and it counts anew.
        unite.remember(7, Micros(0), Source::Met);
        for n in 0..3 * MISSES_MAX {
            let at = unite.deadline().unwrap();
            unite.begin(at);
            unite.end(at, 7, n % 3 == 0);
        }
        assert!(unite.deadline().is_some());
    }

    fn count(unite: &Unite<u32>, source: Source) -> usize {
        unite.known.iter().filter(|known| known.source == source).count()
    }

    #[test]
    fn there_are_so_many_contacts_and_those_told_of_are_few_and_compared_with_once() {
        let mut unite = unite();
        (0..1000).for_each(|peer| unite.remember(peer, Micros(9), Source::Told));
        assert_eq!(unite.known.len(), TOLD_MAX);
        let first = unite.begin(Micros(9)).unwrap();
        unite.end(Micros(9), first, true);
        assert_eq!(unite.known.len(), TOLD_MAX - 1);
        unite.remember(3000, Micros(9), Source::Told);
        (4000..5000).for_each(|peer| unite.remember(peer, Micros(9), Source::Met));
        assert_eq!(unite.known.len(), TOLD_MAX + MET_MAX);
        // Who comes has a place, and drives out few of the others.
        let before: Vec<u32> = unite.known.iter().map(|known| known.peer).collect();
        (2000..2010).for_each(|peer| unite.remember(peer, Micros(9), Source::Met));
        let stay = before.iter().filter(|peer| unite.known.iter().any(|known| known.peer == **peer));
        assert!((TOLD_MAX + MET_MAX - 10..TOLD_MAX + MET_MAX).contains(&stay.count()));
        assert!(unite.known.iter().any(|known| known.peer == 2009));
    }

    #[test]
    fn who_was_lost_is_not_driven_out_by_those_who_are_met_or_told_of() {
        let mut unite = unite();
        (0..LOST_MAX as u32).for_each(|peer| unite.remember(peer, Micros(9), Source::Lost));
        for peer in 100..2000 {
            unite.remember(peer, Micros(9), if peer % 2 == 0 { Source::Met } else { Source::Told });
        }
        let lost = |unite: &Unite<u32>, peer: u32| {
            unite.known.iter().any(|known| known.peer == peer && known.source == Source::Lost)
        };
        assert!((0..LOST_MAX as u32).all(|peer| lost(&unite, peer)));
        assert_eq!(unite.known.len(), CONTACTS_MAX);
        // Control: others who are lost drive them out, be they met before or not.
        let met = unite.known.iter().find(|known| known.source == Source::Met).unwrap().peer;
        for peer in [met, 3000] {
            unite.remember(peer, Micros(9), Source::Lost);
            assert!(lost(&unite, peer));
            assert_eq!(count(&unite, Source::Lost), LOST_MAX);
        }
    }

    #[test]
    fn whoever_is_remembered_for_more_than_one_reason_is_for_the_best_in_whichever_order() {
        let sources = [Source::Told, Source::Met, Source::Lost];
        for (first, second) in sources.into_iter().flat_map(|one| sources.map(|two| (one, two))) {
            let mut unite = unite();
            unite.remember(1, Micros(9), first);
            unite.begin(Micros(9));
            unite.end(Micros(9), 1, false);
            unite.remember(1, Micros(5), second);
            let [known] = unite.known[..] else { panic!("{:?}", unite.known) };
            // Who was only told of is forgotten when it was compared with.
            assert_eq!(known.source, first.max(second));
            assert_eq!(known.due, Micros(5));
            let still = first > Source::Told && second == Source::Told;
            assert_eq!(known.misses, u8::from(still), "{first:?}, {second:?}");
        }
    }

    #[test]
    fn others_are_told_ever_more_rarely_until_it_was_quiet_for_long() {
        let (mut unite, start) = (unite(), Micros(7));
        assert!(unite.may_spread(start));
        let mut last = start;
        for doubled in [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8] {
            let next = last + (SPREAD_MICROS << doubled);
            assert!(!unite.may_spread(Micros(next.0 - 1)), "{doubled}");
            assert!(unite.may_spread(next), "{doubled}");
            last = next;
        }
        last = last + QUIET_MICROS;
        assert!(unite.may_spread(last));
        assert!(!unite.may_spread(Micros(last.0 + SPREAD_MICROS - 1)));
        assert!(unite.may_spread(last + SPREAD_MICROS));
    }

    #[test]
    fn who_is_cut_off_compares_with_all_it_knows_soon() {
        let mut unite = unite();
        (0..5).for_each(|peer| unite.remember(peer, Micros(u64::MAX / 2), Source::Met));
        unite.hasten(Micros(100));
        assert!(unite.known.iter().all(|known| known.due.0 < 100 + SOON_MICROS));
    }
}
