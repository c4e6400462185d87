//! The ring, driven: `p2p::chord` over `/archipel/chord/1`, with the signed records that it keeps.
//!
//! A value of the ring is a record's name behind its length, and then the record's value, so that everyone who keeps or is
//! told one can judge it. What is not signed is not kept: nobody could say whose it is. Values that have expired are
//! forgotten; what this node published is put again when it enters a ring, and each hour.
//!
//! Limits: who owns a key is believed of whoever answers (`p2p::chord`), so a liar can hide a value and cannot forge one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kernel::codec::{Reader, put_bytes};
use kernel::{Micros, Rng};
use p2p::chord::{self, Chord, Item, Outcome, Settings, Tag};
use p2p::codec::Head;
use p2p::kad::{Cost, Envelope, Record, Refusal, SIGNED_PREFIX, Validator as _};
use p2p::{Effect, EffectOf, Input, InputOf, Key, Keys as _, Protocol as _, RequestId};
use tokio::sync::{mpsc, oneshot};

use super::directory::{Contact, Directory, OWN};
use super::drive::Asked;
use super::exchange::Ended;
use super::facade::{DhtError, Hop, HopEnd, Quest, RingStatus, Sought};
use super::host::Host;
use super::name::Peer;
use super::ours::{self, SUCCESSORS};
use super::records::VALID;
use super::serve::{Question, Reply};
use super::streams::Spoken;

/// Most values that one publisher has on a node of the ring.
const PUBLISHER_VALUES_MAX: u32 = 128;
/// Most bytes of them.
const PUBLISHER_BYTES_MAX: usize = 512 * 1024;
/// Most values that this node publishes on the ring.
const PUBLISHED_MAX: usize = 128;
/// Nodes that are to keep a value.
const COPIES: u8 = 3;
/// Values are looked through for what has expired this often.
const SWEEP_MS: u64 = 60 * 1000;
/// What this node published is put again this often.
const REPUBLISH_MS: u64 = 3600 * 1000;
/// A ring is kept in order no more and no less often than this.
const PERIOD_MICROS_MIN: u64 = 100_000;
const PERIOD_MICROS_MAX: u64 = 3600 * 1_000_000;
/// The name of what nobody waits for.
const NOBODY: Tag = Tag(0);

type Message = chord::Message<Contact>;

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    values: u32,
    bytes: usize,
}

/// Who waits for a lookup.
#[derive(Debug)]
struct Seeker {
    tag: Tag,
    point: u64,
    began: Micros,
    cost: Cost,
    hops: Option<mpsc::Sender<Hop>>,
    reply: oneshot::Sender<Result<Sought, DhtError>>,
}

/// This node's place on the ring.
pub(super) struct Ring {
    pub chord: Chord<Contact>,
    out: Vec<EffectOf<Chord<Contact>>>,
    seekers: Vec<Seeker>,
    shares: HashMap<[u8; 32], Share>,
    published: BTreeMap<Key, Item>,
    sweep: Micros,
    republish: Micros,
}

impl Ring {
    /// A ring of one.
    pub fn new(now: Micros, directory: &Directory, period: Duration, rng: &Rng) -> Ring {
        let key = directory.key(OWN);
        // Several at once, so that a dead node on the way costs no lookup its whole patience.
        let settings =
            Settings { successors: SUCCESSORS, copies: COPIES, parallel: 3, ..Settings::default() };
        let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        let settings = settings.paced(micros.clamp(PERIOD_MICROS_MIN, PERIOD_MICROS_MAX));
        let mut ring = Ring {
            chord: Chord::new(OWN, key, settings, rng.fork(5)),
            out: Vec::new(),
            seekers: Vec::new(),
            shares: HashMap::new(),
            published: BTreeMap::new(),
            sweep: now.plus_millis(SWEEP_MS),
            republish: now.plus_millis(REPUBLISH_MS),
        };
        ring.step(now, directory, Input::Commanded(chord::Command::Create));
        ring
    }

    fn step(&mut self, now: Micros, directory: &Directory, input: InputOf<Chord<Contact>>) {
        self.chord.step(now, directory, input, &mut self.out);
    }

    /// When something is due.
    pub fn deadline(&self) -> Micros {
        let own = self.sweep.min(self.republish);
        self.chord.deadline().map_or(own, |due| due.min(own))
    }

    /// How it is.
    pub fn status(&self, directory: &Directory) -> RingStatus {
        let predecessor = self.chord.predecessor().and_then(|contact| directory.get(contact));
        let values = self.chord.store().map(|store| (store.len(), store.bytes()));
        RingStatus {
            predecessor: predecessor.map(|peer| Peer(peer.id)),
            successors: self.chord.successors().len(),
            values: values.unwrap_or_default(),
            copied: self.chord.is_copied(),
        }
    }

    /// Whether everything that was to be done has been told to the host.
    pub const fn is_quiet(&self) -> bool {
        self.out.is_empty()
    }

    fn wake(&mut self, now: Micros, directory: &Directory) {
        if self.chord.deadline().is_some_and(|due| due <= now) {
            self.chord.wake(now, directory, &mut self.out);
        }
        if self.sweep <= now {
            self.sweep = now.plus_millis(SWEEP_MS);
            self.sweep_values(now);
        }
        if self.republish <= now {
            self.publish_again(now, directory);
        }
    }

    fn publish_again(&mut self, now: Micros, directory: &Directory) {
        self.republish = now.plus_millis(REPUBLISH_MS);
        self.published.retain(|_, item| judge(now, item).is_ok());
        let items: Vec<Item> = self.published.values().cloned().collect();
        for item in items {
            self.step(now, directory, Input::Commanded(chord::Command::Put { tag: NOBODY, item }));
        }
    }

    /// From now on `record` is put again and again, as what is returned.
    ///
    /// # Errors
    /// Why it is not: it could not be kept anywhere, or this node publishes as much as it may.
    fn publish(&mut self, now: Micros, record: &Record) -> Result<Item, Refusal> {
        let item = item(record).ok_or(Refusal::Name)?;
        record.fits()?;
        judge(now, &item)?;
        if self.published.len() >= PUBLISHED_MAX && !self.published.contains_key(&item.key) {
            self.published.retain(|_, item| living(now, item).is_some());
            if self.published.len() >= PUBLISHED_MAX {
                return Err(Refusal::Share);
            }
        }
        self.published.insert(item.key, item.clone());
        Ok(item)
    }

    /// Forgets what has expired, and counts what is left. What is here was judged when it came: that its date passes is all
    /// that can change.
    fn sweep_values(&mut self, now: Micros) {
        let shares = &mut self.shares;
        shares.clear();
        self.chord.retain_values(|item| {
            let Some(publisher) = living(now, item) else { return false };
            let share = shares.entry(publisher).or_default();
            share.values += 1;
            share.bytes += item.value.len();
            true
        });
    }

    /// What is kept at a place.
    fn held(&self, key: Key) -> Option<Item> {
        self.chord.store().and_then(|store| store.get(key))
    }

    /// Whether `item` may be kept here, beside what `wanted` has of the same message; it is `wanted` then.
    fn admit(&self, now: Micros, item: &Item, wanted: &mut Vec<Wanted>) -> Result<(), Refusal> {
        let publisher = judge(now, item)?;
        let held = self.held(item.key);
        let twice = wanted.iter().any(|other| other.key == item.key);
        if twice || held.as_ref().is_some_and(|held| held.version > item.version) {
            return Err(Refusal::Older);
        }
        let before = held.map(|held| held.value.len());
        let Share { mut values, mut bytes } = self.shares.get(&publisher).copied().unwrap_or_default();
        let one = Wanted { key: item.key, publisher, before, bytes: item.value.len() };
        for wanted in wanted.iter().filter(|wanted| wanted.publisher == publisher).chain([&one]) {
            values += u32::from(wanted.before.is_none());
            bytes = bytes.saturating_sub(wanted.before.unwrap_or_default()) + wanted.bytes;
        }
        if values > PUBLISHER_VALUES_MAX || bytes > PUBLISHER_BYTES_MAX {
            return Err(Refusal::Share);
        }
        wanted.push(one);
        Ok(())
    }

    /// A peer asks. What it wants kept is kept as far as it may be, and charged to its publisher if it was.
    ///
    /// # Errors
    /// Why the one value is not kept. Its sender is answered if it may be honest. Of many those are left out that may not be.
    fn asked(
        &mut self,
        now: Micros,
        directory: &Directory,
        from: Contact,
        (id, mut body): (RequestId, Message),
    ) -> Result<(), Refusal> {
        let mut wanted = Vec::new();
        match &mut body {
            Message::Put(item) => {
                if let Err(why) = self.admit(now, item, &mut wanted) {
                    // Silence would send an honest asker on to the next node, and the value beside its owner.
                    if let Some(kept) = told(why) {
                        self.out.push(Effect::Answer { to: from, id, body: Message::Stored(kept) });
                    }
                    return Err(why);
                }
            }
            Message::Copies(items) => items.retain(|item| self.admit(now, item, &mut wanted).is_ok()),
            _ => {}
        }
        self.step(now, directory, Input::Asked { from, id, body });
        for Wanted { key, publisher, before, .. } in wanted {
            let after = self.held(key).map(|held| held.value.len());
            let share = self.shares.entry(publisher).or_default();
            share.values += u32::from(after.is_some() && before.is_none());
            share.bytes = share.bytes.saturating_sub(before.unwrap_or_default()) + after.unwrap_or_default();
        }
        Ok(())
    }
}

/// How many values are kept here now, as an honest sender is told whose value is refused; `None` if it is not honest.
fn told(why: Refusal) -> Option<u32> {
    match why {
        Refusal::Older => Some(1),
        Refusal::Share | Refusal::Full => Some(0),
        Refusal::Name | Refusal::Forged | Refusal::Expired | Refusal::TooLarge { .. } | Refusal::Unsaid => {
            None
        }
    }
}

/// A value that may be kept, and what is there in its place.
#[derive(Debug)]
struct Wanted {
    key: Key,
    publisher: [u8; 32],
    /// Bytes of what is kept there.
    before: Option<usize>,
    bytes: usize,
}

/// The publisher of a value of the ring that was judged before, if its date has not passed.
fn living(now: Micros, item: &Item) -> Option<[u8; 32]> {
    let (_, value) = parts(item)?;
    Envelope::decode(value).filter(|envelope| envelope.expires > now).map(|envelope| envelope.publisher)
}

/// The publisher of a value of the ring, if it is signed, is valid now and lies where its name belongs.
fn judge(now: Micros, item: &Item) -> Result<[u8; 32], Refusal> {
    let (name, value) = parts(item).ok_or(Refusal::Name)?;
    if Key::of(name) != item.key || !name.starts_with(SIGNED_PREFIX) {
        return Err(Refusal::Name);
    }
    VALID.check(now, name, value)?;
    let envelope = Envelope::decode(value).ok_or(Refusal::Forged)?;
    if envelope.sequence != item.version { Err(Refusal::Forged) } else { Ok(envelope.publisher) }
}

/// The name and value of the record that a value of the ring is.
fn parts(item: &Item) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(&item.value);
    let name = reader.bytes().ok()?;
    Some((name, reader.rest()))
}

/// A record as a value of the ring; `None` if it is not signed.
fn item(record: &Record) -> Option<Item> {
    let envelope = Envelope::decode(&record.value).filter(|_| record.name.starts_with(SIGNED_PREFIX))?;
    let mut value = Vec::new();
    put_bytes(&mut value, &record.name);
    value.extend_from_slice(&record.value);
    Some(Item { key: record.key(), version: envelope.sequence, value: value.into() })
}

/// What a question is about; `None` for those that keep the ring.
const fn point(body: &Message) -> Option<u64> {
    match body {
        Message::Find { point, .. } | Message::Own { point } => Some(*point),
        Message::Get(key) => Some(key.point()),
        Message::Put(item) => Some(item.key.point()),
        Message::Neighbours
        | Message::Alive
        | Message::Copies(_)
        | Message::Check { .. }
        | Message::Differs { .. }
        | Message::Mine
        | Message::NotMine { .. }
        | Message::Near(_)
        | Message::Ring { .. }
        | Message::Yes
        | Message::Outside
        | Message::Stored(_)
        | Message::Value(_)
        | Message::Notify
        | Message::Leaving
        | Message::Offer
        | Message::Meet(_) => None,
    }
}

fn end_of(body: Option<&Message>) -> HopEnd {
    match body {
        Some(Message::Near(near)) => HopEnd::Closer(near.nodes.len()),
        Some(Message::NotMine { predecessor }) => HopEnd::Closer(usize::from(predecessor.is_some())),
        Some(Message::Mine) => HopEnd::Owns,
        Some(Message::Value(Some(_))) => HopEnd::Found,
        Some(Message::Value(None)) => HopEnd::Missing,
        Some(Message::Stored(0) | Message::Outside) => HopEnd::Refused,
        Some(Message::Stored(_)) => HopEnd::Stored,
        _ => HopEnd::Failed,
    }
}

impl Host {
    /// Steps the ring, if this node stands on one.
    fn ring_step(&mut self, now: Micros, input: InputOf<Chord<Contact>>) {
        if let Host { ring: Some(ring), directory, .. } = self {
            ring.step(now, directory, input);
        }
    }

    /// Does what is due on the ring and what follows; true if anything did.
    pub(super) fn drive_ring(&mut self, now: Micros) -> bool {
        let Host { ring: Some(ring), directory, .. } = self else { return false };
        if ring.deadline() <= now {
            ring.wake(now, directory);
        }
        let effects = std::mem::take(&mut ring.out);
        let some = !effects.is_empty();
        effects.into_iter().for_each(|effect| self.act_ring(now, effect));
        some
    }

    /// A peer speaks the ring's protocol, or does so no more.
    pub(super) fn on_ring_peer(&mut self, now: Micros, contact: Contact, speaks: bool) {
        // Whose connection has closed may be in a ring still, or in another one later: the machine remembers it.
        let met = Input::Commanded(chord::Command::Meet { peer: contact });
        self.ring_step(now, if speaks { met } else { Input::Parted { peer: contact } });
    }

    /// Hands the values over and leaves the ring.
    pub(super) fn leave_ring(&mut self, now: Micros) {
        self.ring_step(now, Input::Commanded(chord::Command::Leave));
    }

    /// Begins a lookup on the ring.
    pub(super) fn seek_on_ring(
        &mut self,
        now: Micros,
        quest: Quest,
        hops: Option<mpsc::Sender<Hop>>,
        reply: oneshot::Sender<Result<Sought, DhtError>>,
    ) {
        let tag = Tag(self.number());
        let Host { ring: Some(ring), directory, .. } = self else {
            let _ = reply.send(Err(DhtError::NoRing));
            return;
        };
        let (key, command) = match quest {
            Quest::Node(name) => (Key::of(&name), chord::Command::Find { tag, key: Key::of(&name) }),
            Quest::Get(name) => (Key::of(&name), chord::Command::Get { tag, key: Key::of(&name) }),
            Quest::Put(record) => match ring.publish(now, &record) {
                Ok(item) => (item.key, chord::Command::Put { tag, item }),
                Err(why) => {
                    let _ = reply.send(Err(DhtError::Refused(why)));
                    return;
                }
            },
            Quest::Provide(_) | Quest::Providers(_) => {
                let _ = reply.send(Err(DhtError::NoProviders));
                return;
            }
        };
        ring.seekers.push(Seeker { tag, point: key.point(), began: now, cost: Cost::default(), hops, reply });
        ring.step(now, directory, Input::Commanded(command));
    }

    fn act_ring(&mut self, now: Micros, effect: EffectOf<Chord<Contact>>) {
        match effect {
            Effect::Tell { to, body } => {
                if let Some(bytes) = ours::encode(&self.directory, Head::Tell, &body) {
                    self.dispatch(now, (to, Spoken::Chord), bytes, Asked::Told);
                }
            }
            Effect::Ask { to, id, body } => {
                let point = point(&body);
                if let (Some(point), Some(ring)) = (point, &mut self.ring) {
                    let same = ring.seekers.iter_mut().filter(|seeker| seeker.point == point);
                    same.for_each(|seeker| seeker.cost.asked = seeker.cost.asked.saturating_add(1));
                }
                match ours::encode(&self.directory, Head::Ask(id), &body) {
                    Some(bytes) => {
                        self.dispatch(now, (to, Spoken::Chord), bytes, Asked::Ring { id, point, at: now });
                    }
                    None => self.ring_step(now, Input::Failed { to, id }),
                }
            }
            Effect::Answer { id, body, .. } => self.answer_ours(id, &body),
            Effect::Report(outcome) => self.report_ring(now, outcome),
        }
    }

    /// What was asked on the ring has ended.
    pub(super) fn on_ring_ended(
        &mut self,
        now: Micros,
        from: Contact,
        (id, point, at): (RequestId, Option<u64>, Micros),
        ended: Ended,
    ) {
        let body = match ended {
            Ended::Answered(bytes) => {
                ours::decode::<Message>(&mut self.directory, &bytes, ours::ANSWER_PEERS_MAX)
                    .filter(|(head, _)| *head == Head::Answer(id))
                    .map(|(_, body)| body)
            }
            Ended::Refused | Ended::Failed => None,
        };
        if let Some(point) = point {
            self.watch_ring(now, from, point, at, end_of(body.as_ref()));
        }
        self.ring_step(
            now,
            match body {
                Some(body) => Input::Answered { from, id, body },
                None => Input::Failed { to: from, id },
            },
        );
    }

    fn watch_ring(&mut self, now: Micros, from: Contact, point: u64, at: Micros, end: HopEnd) {
        let Host { ring: Some(ring), directory, .. } = self else { return };
        let Some(peer) = directory.get(from).map(|peer| Peer(peer.id)) else { return };
        let own = p2p::Keys::point(directory, from);
        // The shorter way around: nodes before the point draw nearer, its owner stands behind it.
        let around = chord::distance(own, point).min(chord::distance(point, own));
        let distance = Key::from_words([around, 0, 0, 0]);
        for seeker in ring.seekers.iter().filter(|seeker| seeker.point == point) {
            let Some(hops) = &seeker.hops else { continue };
            let after = Duration::from_micros(at.since(seeker.began));
            let took = Duration::from_micros(now.since(at));
            // One who does not read misses it: the lookup waits for nobody.
            let _ = hops.try_send(Hop { peer, distance, after, took, end });
        }
    }

    /// A peer asks or tells on the ring.
    pub(super) fn on_ring_said(&mut self, now: Micros, question: Question) {
        let Question { from, bytes, reply, .. } = question;
        let said = ours::decode::<Message>(&mut self.directory, &bytes, ours::TOLD_PEERS_MAX);
        // What is dropped here is a stream that is reset.
        let (Some((head, body)), Some(from)) = (said, self.directory.know(from)) else { return };
        if self.ring.is_none() {
            return;
        }
        match head {
            Head::Tell => {
                self.ring_step(now, Input::Told { from, body });
                let _ = reply.send(Reply::Nothing);
            }
            Head::Ask(theirs) => {
                let id = self.owe(theirs, reply);
                let Host { ring: Some(ring), directory, .. } = self else { return };
                let puts = matches!(body, Message::Put(_));
                let asked = ring.asked(now, directory, from, (id, body));
                if let Err(why) = asked {
                    tracing::debug!(%why, "a value of the ring was refused");
                }
                let answers = |effect: &EffectOf<Chord<Contact>>| matches!(effect, Effect::Answer { id: own, .. } if *own == id);
                // A value that is put is answered for once there are copies of it.
                let waits = puts && asked.is_ok();
                if !waits && !self.ring.as_ref().is_some_and(|ring| ring.out.iter().any(answers)) {
                    self.owed_ours.remove(&id);
                }
            }
            // Nobody may answer what was not asked.
            Head::Answer(_) => {}
        }
    }

    fn report_ring(&mut self, now: Micros, outcome: Outcome<Contact>) {
        let (tag, result) = match outcome {
            Outcome::Joined => {
                let Host { ring: Some(ring), directory, .. } = self else { return };
                if !ring.chord.is_alone() {
                    tracing::info!("joined the ring");
                    ring.publish_again(now, directory);
                }
                return;
            }
            Outcome::United => return tracing::info!("two rings met here and become one"),
            Outcome::CutOff => return tracing::info!("nobody else is left on the ring"),
            // This node never asks to be let in: it is a ring of one, until that is one with another.
            Outcome::JoinFailed | Outcome::PointTaken | Outcome::Left => return,
            Outcome::Found { tag, owner, hops, .. } => {
                let nodes = vec![self.located(owner)];
                (tag, Ok(Sought { nodes, cost: Cost { hops, ..Cost::default() }, ..Sought::default() }))
            }
            Outcome::NotFound { tag } => (tag, Err(DhtError::NoWay)),
            Outcome::Stored { tag, nodes } => {
                // Its owner says so; it asks no more than these.
                let stored = nodes.min(u32::from(COPIES)) as usize;
                (tag, Ok(Sought { stored, ..Sought::default() }))
            }
            Outcome::Full { tag } => (tag, Err(DhtError::Refused(Refusal::Full))),
            Outcome::TooLarge { tag } => {
                (tag, Err(DhtError::Refused(Refusal::TooLarge { bytes: chord::VALUE_BYTES_MAX + 1 })))
            }
            Outcome::Value { tag, item } => {
                let item = item.filter(|item| judge(now, item).is_ok());
                let record = item.as_ref().and_then(parts).map(|(name, value)| Record::new(name, value));
                (tag, Ok(Sought { record, ..Sought::default() }))
            }
        };
        let Some(ring) = &mut self.ring else { return };
        let Some(at) = ring.seekers.iter().position(|seeker| seeker.tag == tag) else { return };
        let seeker = ring.seekers.swap_remove(at);
        let result = result.map(|mut sought| {
            sought.cost.asked = seeker.cost.asked;
            sought
        });
        // Who asked may have left.
        let _ = seeker.reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Signer;
    use super::*;
    use crate::Identity;

    fn signed(seed: u8, label: &[u8], now: Micros, payload: &[u8]) -> Record {
        let identity = Identity::from_seed(&[seed; 32]);
        let signer = Signer::new(identity.id(), identity.seed());
        let name = Envelope::name(&identity.id().0, label);
        signer.sign(&name, now, now + 1000, payload)
    }

    fn ring() -> Ring {
        let id = libp2p_identity::Keypair::ed25519_from_bytes([9; 32]).unwrap().public().to_peer_id();
        let directory = Directory::new(id, true);
        Ring::new(Micros(0), &directory, Duration::from_secs(5), &Rng::new(1))
    }

    #[test]
    fn the_ring_keeps_what_is_signed_valid_and_in_its_place_and_says_why_not() {
        let good = item(&signed(1, b"menu", Micros(5), b"soup")).unwrap();
        let mut forged = good.clone();
        let mut bytes = forged.value.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        forged.value = bytes.into();
        let elsewhere = Item { key: Key::of(b"elsewhere"), ..good.clone() };
        let renumbered = Item { version: 6, ..good.clone() };
        let cut = Item { value: good.value[..3].into(), ..good.clone() };
        #[rustfmt::skip] // columns
        let table = [
            (10,   &good,       Ok(())),
            (1005, &good,       Err(Refusal::Expired)),
            (10,   &forged,     Err(Refusal::Forged)),
            (10,   &elsewhere,  Err(Refusal::Name)),
            (10,   &renumbered, Err(Refusal::Forged)),
            (10,   &cut,        Err(Refusal::Name)),
        ];
        for (now, item, expected) in table {
            assert_eq!(ring().admit(Micros(now), item, &mut Vec::new()), expected, "{now} {item:?}");
        }
        // An older version that is sent again.
        let mut ring = ring();
        let newer = item(&signed(1, b"menu", Micros(7), b"stew")).unwrap();
        let directory = Directory::new(libp2p_identity::PeerId::random(), true);
        ring.step(Micros(8), &directory, Input::Commanded(chord::Command::Put { tag: NOBODY, item: newer }));
        assert_eq!(ring.admit(Micros(10), &good, &mut Vec::new()), Err(Refusal::Older));
        // A public key has no publisher.
        assert_eq!(item(&Record::new(b"/pk/x", b"y")), None);
    }

    fn directory() -> Directory {
        Directory::new(libp2p_identity::PeerId::random(), true)
    }

    fn asked(ring: &mut Ring, body: Message) -> Result<(), Refusal> {
        let mut directory = directory();
        let from = directory.know(libp2p_identity::PeerId::random()).unwrap();
        ring.asked(Micros(6), &directory, from, (RequestId(1), body))
    }

    fn numbered(seed: u8, n: u32) -> Item {
        item(&signed(seed, &n.to_be_bytes(), Micros(5), b"x")).unwrap()
    }

    #[test]
    fn a_publisher_has_its_share_and_no_more() {
        let mut ring = ring();
        for n in 0..PUBLISHER_VALUES_MAX {
            assert_eq!(asked(&mut ring, Message::Put(numbered(1, n))), Ok(()));
        }
        let one_more = numbered(1, PUBLISHER_VALUES_MAX);
        assert_eq!(asked(&mut ring, Message::Put(one_more.clone())), Err(Refusal::Share));
        // The same again takes nothing more, and another publisher has its own.
        assert_eq!(asked(&mut ring, Message::Put(numbered(1, 0))), Ok(()));
        assert_eq!(asked(&mut ring, Message::Put(numbered(2, 0))), Ok(()));
        // Of copies those that go beyond it are left out.
        let copies = (0..PUBLISHER_VALUES_MAX + 9).map(|n| numbered(3, n)).collect();
        assert_eq!(asked(&mut ring, Message::Copies(copies)), Ok(()));
        let kept =
            ring.chord.store().unwrap().iter().filter(|item| judge(Micros(6), item).unwrap() == signer(3));
        assert_eq!(kept.count() as u32, PUBLISHER_VALUES_MAX);
        // What has expired is charged to nobody any more.
        ring.sweep_values(Micros(1005));
        assert_eq!((ring.shares.len(), ring.chord.store().unwrap().len()), (0, 0));
    }

    #[test]
    fn what_an_honest_sender_has_refused_is_answered_and_what_no_other_could_is_not() {
        let answers = |ring: &mut Ring, item: &Item| {
            ring.out.clear();
            let _ = asked(ring, Message::Put(item.clone()));
            let kept = |effect: &EffectOf<Chord<Contact>>| match effect {
                Effect::Answer { body: Message::Stored(kept), .. } => Some(*kept),
                _ => None,
            };
            ring.out.iter().filter_map(kept).collect::<Vec<_>>()
        };
        let mut ring = ring();
        let newer = item(&signed(1, &0u32.to_be_bytes(), Micros(6), b"x")).unwrap();
        assert_eq!(answers(&mut ring, &newer), [1]);
        // An older version: what is newer is kept.
        assert_eq!(answers(&mut ring, &numbered(1, 0)), [1]);
        (1..PUBLISHER_VALUES_MAX).for_each(|n| assert_eq!(answers(&mut ring, &numbered(1, n)), [1]));
        assert_eq!(answers(&mut ring, &numbered(1, PUBLISHER_VALUES_MAX)), [0]);
        let mut forged = numbered(2, 0);
        forged.version += 1;
        assert_eq!(answers(&mut ring, &forged), [0; 0]);
    }

    #[test]
    fn what_has_expired_gives_its_place_to_what_is_published() {
        let mut ring = ring();
        for n in 0..PUBLISHED_MAX as u32 {
            assert!(ring.publish(Micros(6), &signed(1, &n.to_be_bytes(), Micros(5), b"x")).is_ok());
        }
        let late = signed(1, b"late", Micros(500), b"x");
        assert_eq!(ring.publish(Micros(600), &late), Err(Refusal::Share));
        // What is published already has its place.
        assert!(ring.publish(Micros(600), &signed(1, &[0; 4], Micros(500), b"y")).is_ok());
        assert!(ring.publish(Micros(1005), &late).is_ok());
        assert_eq!(ring.published.len(), 2);
    }

    fn signer(seed: u8) -> [u8; 32] {
        Identity::from_seed(&[seed; 32]).id().0
    }

    #[test]
    fn what_is_not_kept_is_charged_to_nobody() {
        // The same value many times in one message is one.
        let mut ring = ring();
        let copies = vec![numbered(1, 0); PUBLISHER_VALUES_MAX as usize];
        assert_eq!(asked(&mut ring, Message::Copies(copies)), Ok(()));
        assert_eq!(ring.shares[&signer(1)].values, 1);
        assert_eq!(ring.shares[&signer(1)].bytes, numbered(1, 0).value.len());
        // Who is no member keeps nothing.
        ring.step(Micros(6), &directory(), Input::Commanded(chord::Command::Leave));
        assert_eq!(asked(&mut ring, Message::Put(numbered(2, 0))), Ok(()));
        assert_eq!(ring.shares[&signer(2)].values, 0);
    }

    #[test]
    fn a_sweep_looks_at_dates_and_at_no_signature() {
        let mut ring = ring();
        assert_eq!(asked(&mut ring, Message::Put(numbered(1, 0))), Ok(()));
        // Nothing of the kind gets in; it shows what is looked at.
        let mut forged = numbered(1, 1);
        let mut bytes = forged.value.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        forged.value = bytes.into();
        let put = chord::Command::Put { tag: NOBODY, item: forged };
        ring.step(Micros(6), &directory(), Input::Commanded(put));
        ring.sweep_values(Micros(1004));
        assert_eq!(ring.chord.store().unwrap().len(), 2);
        ring.sweep_values(Micros(1005));
        assert_eq!(ring.chord.store().unwrap().len(), 0);
    }
}
