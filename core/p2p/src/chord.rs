//! Chord (Stoica et al. 2001) as corrected by Zave (2017, "Reasoning about identifier spaces: how to make Chord
//! correct"): no earlier published version keeps its ring.
//!
//! Nodes stand on a ring of 2^64 points; a node owns the keys in `(predecessor, self]`. Each keeps its predecessor,
//! a complete list of successors, and fingers half, a quarter, … of the ring away, so that a lookup halves what
//! is left with each hop. A step of maintenance reads one other node and then changes only its own state.
//!
//! Rings that began apart, or were parted, become one when a node of one meets one of the other (`unite`).
//!
//! Limits. The ring keeps Zave's invariant under her assumptions: it begins with more members than a successor
//! list is long, and nobody loses every member of its list at once. Two nodes of one point cannot both be members
//! (one in 10^7 with a million nodes): the second is refused. Answers are believed, so a liar can misroute; the
//! overlay for strangers is Kademlia. Lookups are iterative: the origin asks each hop itself.

mod codec;
mod fingers;
mod held;
mod lookup;
mod message;
mod ring;
mod stabilize;
mod store;
mod unite;

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::{Micros, Rng};

use crate::key::Key;
use crate::pending::{Pending, RequestId};
use crate::protocol::{Contact, Effect, EffectOf, Input, InputOf, Keys, Protocol};
pub use codec::PROTOCOL;
use fingers::Cache;
use lookup::{Aim, Hop, Lookup};
pub use message::{Command, Digest, Item, Message, NEAR_MAX, Near, Outcome, RING_MAX, Tag, Told};
pub use ring::{between, distance, owns};
use stabilize::Joining;
pub use store::{BATCH_BYTES_MAX, STORE_BYTES_MAX, STORE_VALUES_MAX, Store, VALUE_BYTES_MAX};
use store::{Checked, Putter, Values};
use unite::Unite;
pub use unite::{CONTACTS_MAX, TOLD_MAX};

/// Most successors that a node keeps.
pub const SUCCESSORS_MAX: u8 = 32;
/// Most lookups that a node has under way.
pub const LOOKUPS_MAX: usize = 256;

/// How a node keeps its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Members of the successor list, 1 to [`SUCCESSORS_MAX`]: Zave's `r`.
    pub successors: u8,
    /// Nodes that keep a value, its owner included; at most `successors + 1`.
    pub copies: u8,
    /// Requests of one lookup that are on their way at once: 1 as in the paper, 3 as in EpiChord.
    pub parallel: u8,
    /// Nodes heard of lately that are remembered beside the fingers (EpiChord's cache); 0 for none.
    pub cache: u16,
    /// Microseconds between two stabilizations; 0 for a ring that does not change.
    pub stabilize_micros: u64,
    /// Microseconds between two repairs of a finger; 0 for never.
    pub finger_micros: u64,
    /// Microseconds between two repairs of the copies of own values; 0 for never.
    pub repair_micros: u64,
    /// Microseconds between two comparisons with a node that may be of another ring, on average; 0 for never.
    pub unite_micros: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            successors: 8,
            copies: 3,
            parallel: 1,
            cache: 0,
            stabilize_micros: 5_000_000,
            finger_micros: 15_000_000,
            repair_micros: 60_000_000,
            unite_micros: 75_000_000,
        }
    }
}

impl Settings {
    /// The same ring with so many microseconds between two stabilizations, and all other periods longer or shorter with them.
    ///
    /// # Panics
    /// If the ring does not change: then it has no periods.
    #[must_use]
    pub const fn paced(self, stabilize_micros: u64) -> Settings {
        assert!(self.stabilize_micros > 0, "a ring that does not change has no pace");
        let (to, from) = (stabilize_micros as u128, self.stabilize_micros as u128);
        Settings {
            stabilize_micros,
            finger_micros: (self.finger_micros as u128 * to / from) as u64,
            repair_micros: (self.repair_micros as u128 * to / from) as u64,
            unite_micros: (self.unite_micros as u128 * to / from) as u64,
            ..self
        }
    }
}

/// What a request on its way is for.
#[derive(Clone, Debug)]
enum Purpose<C> {
    /// The next hop of a lookup: by number, and how deep the asked node is.
    Find { lookup: u32, depth: u8 },
    /// Is it the owner?
    Own { lookup: u32, depth: u8 },
    /// Stabilize from the successor.
    Successor,
    /// Stabilize from the successor's predecessor.
    Candidate,
    /// Is our predecessor alive, now that this one says it is nearer or the old one gone?
    Probe { newcomer: C },
    /// Joining: who stands before the owner of our point?
    JoinOwner,
    /// Joining: does this one stand right before us?
    JoinPrevious,
    /// A value is stored or fetched at its owner.
    Value { lookup: u32 },
    /// Values are copied.
    Copy,
    /// A value that was just put is copied; its putter waits.
    Fresh { put: u32 },
    /// Does this one keep all that we own, behind this point?
    Check { after: u64 },
    /// Values are handed over to who owns them now.
    Hand,
    /// Comparing with this one's ring: is the node found there right behind us?
    Unite { contact: C },
}

/// Where a node is in its life.
#[derive(Clone, Debug)]
enum State<C> {
    /// No member, and not on its way.
    Outside,
    /// On its way in.
    Joining(Joining<C>),
    /// A member of the ring.
    Member,
}

/// One node of the ring.
#[derive(Clone, Debug)]
pub struct Chord<C> {
    own: C,
    point: u64,
    settings: Settings,
    state: State<C>,
    predecessor: Option<C>,
    /// Nearest first, each once, never itself. Empty for a member that is alone, or cut off.
    successors: Vec<C>,
    /// `fingers[i]`: the first node at or after `point + 2^(63 - i)`, as far as known. Ends where the
    /// successor list takes over.
    fingers: Vec<Option<C>>,
    next_finger: u8,
    cache: Option<Box<Cache<C>>>,
    /// Boxed: most of a million nodes of a simulation keep none.
    values: Option<Box<Values<C>>>,
    unite: Option<Box<Unite<C>>>,
    lookups: Vec<Lookup<C>>,
    next_lookup: u32,
    pending: Pending<C, Purpose<C>>,
    stabilizing: bool,
    stabilize_at: Option<Micros>,
    finger_at: Option<Micros>,
    repair_at: Option<Micros>,
    rng: Rng,
}

impl<C: Contact> Chord<C> {
    /// A node that stands at `key`, outside of any ring.
    ///
    /// # Panics
    /// If `settings.successors` is 0 or above [`SUCCESSORS_MAX`], or `parallel` or `copies` is 0.
    #[must_use]
    pub fn new(own: C, key: Key, settings: Settings, mut rng: Rng) -> Chord<C> {
        assert!((1..=SUCCESSORS_MAX).contains(&settings.successors), "a ring needs successor lists");
        assert!(settings.parallel > 0 && settings.copies > 0, "somebody must be asked");
        Chord {
            own,
            point: key.point(),
            settings,
            state: State::Outside,
            predecessor: None,
            successors: Vec::new(),
            fingers: Vec::new(),
            next_finger: 0,
            cache: (settings.cache > 0).then(|| Box::new(Cache::new(settings.cache))),
            values: None,
            unite: None,
            lookups: Vec::new(),
            next_lookup: 0,
            pending: Pending::new(&mut rng),
            stabilizing: false,
            stabilize_at: None,
            finger_at: None,
            repair_at: None,
            rng,
        }
    }

    /// A member whose neighbours are known, as after a restart or in an experiment: `fingers` from the farthest
    /// on, as many as are needed beyond the successor list.
    #[must_use]
    pub fn settled(mut self, now: Micros, predecessor: C, successors: &[C], fingers: &[C]) -> Chord<C> {
        self.predecessor = Some(predecessor);
        self.successors = successors.iter().take(usize::from(self.settings.successors)).copied().collect();
        self.fingers = fingers.iter().take(64).map(|&finger| Some(finger)).collect();
        self.enter(now);
        self
    }

    /// Is it a member of a ring?
    #[must_use]
    pub const fn is_member(&self) -> bool {
        matches!(self.state, State::Member)
    }

    /// The node before it, as far as it knows.
    #[must_use]
    pub const fn predecessor(&self) -> Option<C> {
        self.predecessor
    }

    /// The nodes after it, nearest first.
    #[must_use]
    pub fn successors(&self) -> &[C] {
        &self.successors
    }

    /// Forgets the values for which `keep` is false: what has expired, as the host sees it.
    pub fn retain_values(&mut self, keep: impl FnMut(&Item) -> bool) {
        if let Some(values) = &mut self.values {
            values.store.retain(keep);
        }
    }

    /// The values that it keeps, its own and copies.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.values.as_ref().map(|values| &values.store)
    }

    /// Is it a member that knows no other?
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.is_member() && self.successors.is_empty()
    }

    /// Does it own `point`, as far as it knows? A member that knows no other owns all, and who is no member nothing.
    fn is_owner(&self, keys: &impl Keys<C>, point: u64) -> bool {
        match self.predecessor {
            Some(predecessor) => owns(keys.point(predecessor), self.point, point),
            None => self.is_alone(),
        }
    }

    fn enter(&mut self, now: Micros) {
        self.state = State::Member;
        self.forget_legacy();
        let drawn = |period: u64, rng: &mut Rng| (period > 0).then(|| now + rng.below(period));
        // Drawn, so that nodes that begin together do not all ask together.
        self.stabilize_at = drawn(self.settings.stabilize_micros, &mut self.rng);
        self.finger_at = drawn(self.settings.finger_micros, &mut self.rng);
        self.repair_at = drawn(self.settings.repair_micros, &mut self.rng);
    }

    fn ask(&mut self, to: C, purpose: Purpose<C>, body: Message<C>, out: &mut Vec<EffectOf<Self>>) -> bool {
        let id = self.pending.issue(to, purpose);
        if let Some(id) = id {
            out.push(Effect::Ask { to, id, body });
        }
        id.is_some()
    }

    fn asked(
        &mut self,
        keys: &impl Keys<C>,
        from: C,
        id: RequestId,
        body: Message<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let answer = match body {
            _ if !self.is_member() => Message::Outside,
            Message::Find { point, told } => self.find(keys, point, told),
            Message::Own { point } if self.is_owner(keys, point) => Message::Mine,
            Message::Own { .. } => Message::NotMine { predecessor: self.predecessor },
            Message::Neighbours => {
                Message::Ring { predecessor: self.predecessor, successors: self.successors.clone() }
            }
            Message::Alive => Message::Yes,
            Message::Put(item) => {
                self.put_here(keys, item, Putter::Peer { from, id }, out);
                return self.heard(from);
            }
            Message::Get(key) => Message::Value(self.store().and_then(|store| store.get(key))),
            Message::Copies(items) => self.take_copies(keys, from, items),
            Message::Check { after, digest } => self.check_here(keys, from, (after, digest), out),
            // Answers and tells are no requests: whoever sends one as such gets no answer.
            Message::Mine
            | Message::NotMine { .. }
            | Message::Near(_)
            | Message::Ring { .. }
            | Message::Yes
            | Message::Differs { .. }
            | Message::Outside
            | Message::Stored(_)
            | Message::Value(_)
            | Message::Notify
            | Message::Leaving
            | Message::Offer
            | Message::Meet(_) => return,
        };
        self.heard(from);
        out.push(Effect::Answer { to: from, id, body: answer });
    }

    fn heard(&mut self, from: C) {
        if let Some(cache) = &mut self.cache {
            cache.heard(from);
        }
    }

    fn answered(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        id: RequestId,
        body: Message<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        if matches!(body, Message::Outside) {
            // It lives but is no member: for the ring it is gone.
            return self.failed(now, keys, from, id, out);
        }
        let Some(purpose) = self.pending.settle(from, id) else { return };
        self.heard(from);
        match (purpose, body) {
            (Purpose::Find { lookup, depth }, Message::Near(near)) => {
                self.heard_near(now, keys, lookup, from, depth, &near, out);
            }
            (Purpose::Find { lookup, depth } | Purpose::Own { lookup, depth }, Message::Mine) => {
                self.found(now, keys, lookup, from, depth, out);
            }
            (Purpose::Own { lookup, depth }, Message::NotMine { predecessor }) => {
                self.not_owner(now, keys, lookup, from, depth, predecessor, out);
            }
            (Purpose::Successor, Message::Ring { predecessor, successors }) => {
                self.heard_successor(now, keys, from, (predecessor, &successors), out);
            }
            (Purpose::Candidate, Message::Ring { successors, .. }) => {
                self.heard_candidate(now, keys, from, &successors, out);
            }
            (Purpose::JoinOwner, Message::Ring { predecessor, .. }) => {
                self.heard_join_owner(now, from, predecessor, out);
            }
            (Purpose::JoinPrevious, Message::Ring { successors, .. }) => {
                self.heard_join_previous(now, keys, from, &successors, out);
            }
            (Purpose::Value { lookup }, Message::Stored(kept)) => self.stored(lookup, kept, out),
            (Purpose::Value { lookup }, Message::Value(value)) => {
                self.fetched(lookup, value, out);
            }
            (Purpose::Unite { contact }, Message::Ring { successors, .. }) => {
                self.heard_behind(now, keys, (contact, from), &successors, out);
            }
            (Purpose::Fresh { put }, Message::Stored(stored)) => {
                self.fresh_copied(put, Some(stored), out);
                self.send_on(keys, out);
            }
            (Purpose::Copy | Purpose::Hand, _) => self.send_on(keys, out),
            (Purpose::Check { after }, Message::Yes) => self.checked(keys, (from, after), Checked::Same, out),
            (Purpose::Check { after }, Message::Differs { digest }) => {
                self.checked(keys, (from, after), Checked::Differs(digest), out);
            }
            (Purpose::Probe { .. }, _) => {}
            // An answer to another question is none: as if the peer had not answered.
            (purpose, _) => self.unanswered(now, keys, from, purpose, out),
        }
    }

    fn failed(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        to: C,
        id: RequestId,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(purpose) = self.pending.settle(to, id) else { return };
        let near = self.predecessor == Some(to) || self.successors.contains(&to);
        if near || self.fingers.contains(&Some(to)) {
            self.lost(now, to);
        }
        for finger in self.fingers.iter_mut().filter(|finger| **finger == Some(to)) {
            *finger = None;
        }
        if let Some(cache) = &mut self.cache {
            cache.forget(to);
        }
        self.unanswered(now, keys, to, purpose, out);
    }

    fn unanswered(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        to: C,
        purpose: Purpose<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        match purpose {
            Purpose::Find { lookup, .. } => self.hop_failed(now, keys, (lookup, to), Hop::Find, out),
            Purpose::Own { lookup, .. } | Purpose::Value { lookup } => {
                self.hop_failed(now, keys, (lookup, to), Hop::Owner, out);
            }
            Purpose::Successor => {
                self.successor_failed(keys, to, out);
                if self.is_alone() {
                    self.lose_fingers(now);
                    self.hasten(now);
                }
            }
            Purpose::Candidate => self.stabilized(keys, out),
            Purpose::Probe { newcomer } => self.predecessor_failed(to, newcomer),
            Purpose::JoinOwner | Purpose::JoinPrevious => self.join_failed(now, out),
            Purpose::Copy => {
                self.copy_missed(keys, to);
                self.send_on(keys, out);
            }
            Purpose::Fresh { put } => {
                self.copy_missed(keys, to);
                self.fresh_copied(put, None, out);
                self.send_on(keys, out);
            }
            Purpose::Check { after } => self.checked(keys, (to, after), Checked::Unanswered, out),
            Purpose::Hand => {
                self.handing_failed(to);
                self.send_on(keys, out);
            }
            Purpose::Unite { contact } => self.compared(now, contact, true),
        }
    }

    fn commanded(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        command: Command<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        match command {
            Command::Create => {
                self.enter(now);
                out.push(Effect::Report(Outcome::Joined));
            }
            Command::Join { seed } => self.join(now, keys, seed, out),
            Command::Meet { peer } => self.met(now, peer),
            Command::Leave => self.leave(keys, out),
            Command::Find { tag, key } => self.begin(now, keys, key.point(), Aim::Find { tag }, out),
            Command::Get { tag, key } => self.begin(now, keys, key.point(), Aim::Get { tag, key }, out),
            Command::Put { tag, item } if item.value.len() > VALUE_BYTES_MAX => {
                out.push(Effect::Report(Outcome::TooLarge { tag }));
            }
            Command::Put { tag, item } => {
                self.begin(now, keys, item.key.point(), Aim::Put { tag, item }, out);
            }
        }
    }
}

impl<C: Contact> Protocol for Chord<C> {
    type Contact = C;
    type Message = Message<C>;
    type Command = Command<C>;
    type Outcome = Outcome<C>;

    fn step(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        input: InputOf<Self>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        match input {
            Input::Asked { from, id, body } => self.asked(keys, from, id, body, out),
            Input::Answered { from, id, body } => self.answered(now, keys, from, id, body, out),
            Input::Failed { to, id } => self.failed(now, keys, to, id, out),
            Input::Told { from, body: Message::Notify } => self.notified(now, keys, from, out),
            Input::Told { body: Message::Meet(peer), .. } => self.told_of(now, peer),
            Input::Told { from, body: Message::Offer } => self.offered(keys, from, out),
            Input::Told { body: Message::Leaving, .. } => self.hurry(now),
            Input::Told { .. } => {}
            // Death is found by asking; a closed link alone says nothing.
            Input::Parted { .. } => self.hurry(now),
            Input::Commanded(command) => self.commanded(now, keys, command, out),
        }
    }

    fn deadline(&self) -> Option<Micros> {
        let joining = match &self.state {
            State::Joining(joining) => joining.retry_at,
            State::Outside | State::Member => None,
        };
        let times = [self.stabilize_at, self.finger_at, self.repair_at, joining, self.compare_at()];
        times.into_iter().flatten().min()
    }

    fn wake(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let due = |at: Option<Micros>| at.is_some_and(|at| at <= now);
        if let State::Joining(joining) = &self.state
            && due(joining.retry_at)
        {
            self.join_again(now, keys, out);
        }
        if due(self.stabilize_at) {
            self.stabilize_at = Some(now + self.settings.stabilize_micros.max(1));
            self.stabilize(out);
            self.allow_checks(now);
            self.rehome_some(now, keys, out);
        }
        if due(self.finger_at) {
            self.finger_at = Some(now + self.settings.finger_micros.max(1));
            self.mend_finger(now, keys, out);
            self.offer(now, keys, out);
        }
        if due(self.repair_at) {
            self.repair_at = Some(now + self.settings.repair_micros.max(1));
            self.repair(keys, out);
        }
        if due(self.compare_at()) {
            self.compare(now, keys, out);
        }
    }
}

#[cfg(test)]
mod tests;
