//! Broadcast along a tree that heals: eager push to few, lazy news to the rest
//! (Plumtree: Leitão, Pereira & Rodrigues 2007).
//!
//! Links are eager or lazy. A new message goes whole over eager links and by its name over lazy ones. A second
//! copy makes its link lazy at both ends, so after one flood the eager links are a tree of the fastest ways, and a
//! payload passes each node once. A node that hears of a message and does not get it grafts the link it heard from.
//!
//! Ours beside the paper: a node notes how late its neighbours' news are, and when a link is gone it grafts the
//! earliest others at once, so that the tree is mended when the failure is seen and not when a message is missed.
//! And it takes the way of the news if they came well before the message, so that the tree stays a fast one.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::{Micros, Rng};

use super::{MessageId, NEIGHBOURS_MAX, PAYLOAD_BYTES_MAX};
use crate::protocol::{Contact, Effect, EffectOf, Input, InputOf, Keys, Protocol};

/// Most messages whose payload a node keeps for those who graft.
pub const KEPT_MAX: usize = 64;
/// Most messages that a node knows by name only and waits for.
pub const MISSING_MAX: usize = 64;
/// How long a node waits for a message whose name it heard, in microseconds: longer than eager copies trail news.
pub const GRAFT_MICROS: u64 = 60_000;
/// How long it waits after a graft before it grafts the next one who has it, in microseconds.
pub const REGRAFT_MICROS: u64 = 400_000;

/// How much earlier the news must come than the message for its way to be taken, in microseconds.
pub const SWAP_MICROS: u64 = 20_000;

/// How many links are eager at least when one is gone, until the next message prunes all but the fastest.
pub const EAGER_MIN: usize = 5;

/// What neighbours tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A message whole.
    Payload {
        /// Which broadcast.
        id: MessageId,
        /// Edges it has passed, this one included.
        hops: u8,
        /// What is broadcast.
        payload: Arc<[u8]>,
    },
    /// The sender has this message.
    News(MessageId),
    /// Make the link eager, and send this message if you have it.
    Graft(Option<MessageId>),
    /// Make the link lazy.
    Prune,
}

/// What the owner of a node can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<C> {
    /// Tell everyone.
    Broadcast(Arc<[u8]>),
    /// Take a neighbour.
    Connect(C),
    /// Leave a neighbour.
    Disconnect(C),
}

/// What the owner of a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A broadcast arrived, for the first time.
    Heard {
        /// Which.
        id: MessageId,
        /// Over how many edges.
        hops: u8,
        /// What.
        payload: Arc<[u8]>,
    },
    /// A broadcast of ours is on its way.
    Sent(MessageId),
    /// A payload came again.
    Duplicate(MessageId),
    /// A command is beyond a limit.
    Refused,
}

#[derive(Clone, Debug)]
struct Link<C> {
    peer: C,
    eager: bool,
    /// How much later than the message itself the peer's last news of one came, in microseconds.
    late: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    id: MessageId,
    hops: u8,
    payload: Arc<[u8]>,
}

#[derive(Clone, Debug)]
struct Missing<C> {
    id: MessageId,
    since: Micros,
    due: Micros,
    /// Who has it, in the order of their news; each is grafted once.
    holders: Vec<C>,
}

/// One node that gossips.
#[derive(Clone, Debug)]
pub struct Gossip<C> {
    links: Vec<Link<C>>,
    seen: super::Seen,
    kept: Vec<Kept>,
    missing: Vec<Missing<C>>,
    /// Which message came last, and when.
    last: Option<(MessageId, Micros)>,
    rng: Rng,
}

/// The lateness of a peer that has told nothing.
const FAR: u64 = u64::MAX;

impl<C: Contact> Gossip<C> {
    /// A node with these neighbours, the first [`NEIGHBOURS_MAX`]; every link is eager at first.
    #[must_use]
    pub fn new(neighbours: &[C], rng: Rng) -> Gossip<C> {
        let links = neighbours.iter().take(NEIGHBOURS_MAX).map(|&peer| Link { peer, eager: true, late: FAR });
        Gossip {
            links: links.collect(),
            seen: super::Seen::new(super::SEEN_MAX),
            kept: Vec::new(),
            missing: Vec::new(),
            last: None,
            rng,
        }
    }

    /// How many of its links are eager.
    #[must_use]
    pub fn eager(&self) -> usize {
        self.links.iter().filter(|link| link.eager).count()
    }

    fn link(&mut self, peer: C) -> Option<&mut Link<C>> {
        self.links.iter_mut().find(|link| link.peer == peer)
    }

    fn set(&mut self, peer: C, eager: bool) {
        if let Some(link) = self.link(peer) {
            link.eager = eager;
        }
    }

    fn receive(
        &mut self,
        now: Micros,
        from: C,
        hops: u8,
        id: MessageId,
        payload: Arc<[u8]>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return;
        }
        self.time(now, from, id);
        if !self.seen.insert(id) {
            out.push(Effect::Report(Outcome::Duplicate(id)));
            self.set(from, false);
            return out.push(Effect::Tell { to: from, body: Message::Prune });
        }
        out.push(Effect::Report(Outcome::Heard { id, hops, payload: Arc::clone(&payload) }));
        let parent = self.choose(now, from, id, out);
        self.set(parent, true);
        self.last = Some((id, now));
        self.spread(Some(from), hops, id, payload, out);
    }

    /// Who is to bring the next message: the bringer of this one, or whose news of it came well before. That
    /// one had it earlier than we, so it does not hang below us.
    fn choose(&mut self, now: Micros, from: C, id: MessageId, out: &mut Vec<EffectOf<Self>>) -> C {
        let Some(at) = self.missing.iter().position(|missing| missing.id == id) else { return from };
        let missing = self.missing.remove(at);
        match missing.holders.first() {
            Some(&first) if first != from && now.since(missing.since) >= SWAP_MICROS => {
                self.set(from, false);
                out.push(Effect::Tell { to: from, body: Message::Prune });
                out.push(Effect::Tell { to: first, body: Message::Graft(None) });
                first
            }
            _ => from,
        }
    }

    fn spread(
        &mut self,
        but: Option<C>,
        hops: u8,
        id: MessageId,
        payload: Arc<[u8]>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let next = hops.saturating_add(1);
        for link in self.links.iter().filter(|link| Some(link.peer) != but) {
            let body = if link.eager {
                Message::Payload { id, hops: next, payload: Arc::clone(&payload) }
            } else {
                Message::News(id)
            };
            out.push(Effect::Tell { to: link.peer, body });
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.remove(0);
        }
        self.kept.push(Kept { id, hops, payload });
    }

    /// Notes how late this peer would have been.
    fn time(&mut self, now: Micros, from: C, id: MessageId) {
        let late = match self.last {
            Some((last, at)) if last == id => now.since(at),
            _ if self.seen.contains(id) => return,
            _ => 0,
        };
        if let Some(link) = self.link(from) {
            link.late = late;
        }
    }

    fn news(&mut self, now: Micros, from: C, id: MessageId) {
        self.time(now, from, id);
        if self.seen.contains(id) {
            return;
        }
        if let Some(missing) = self.missing.iter_mut().find(|missing| missing.id == id) {
            if missing.holders.len() < NEIGHBOURS_MAX {
                missing.holders.push(from);
            }
        } else if self.missing.len() < MISSING_MAX {
            self.missing.push(Missing {
                id,
                since: now,
                due: now + GRAFT_MICROS,
                holders: Vec::from([from]),
            });
        }
    }

    fn graft(&mut self, from: C, id: Option<MessageId>, out: &mut Vec<EffectOf<Self>>) {
        self.set(from, true);
        let kept = id.and_then(|id| self.kept.iter().find(|kept| kept.id == id));
        if let Some(Kept { id, hops, payload }) = kept {
            let body =
                Message::Payload { id: *id, hops: hops.saturating_add(1), payload: Arc::clone(payload) };
            out.push(Effect::Tell { to: from, body });
        }
    }

    fn part(&mut self, peer: C, out: &mut Vec<EffectOf<Self>>) {
        self.links.retain(|link| link.peer != peer);
        for missing in &mut self.missing {
            missing.holders.retain(|holder| *holder != peer);
        }
        // Even if it was not our parent: what hung below it, or came over it, looks for new ways now. The next
        // message takes all of these, and all but the fastest are pruned by it.
        let wanted = EAGER_MIN.saturating_sub(self.eager());
        let mut lazy: Vec<&mut Link<C>> = self.links.iter_mut().filter(|link| !link.eager).collect();
        lazy.sort_by_key(|link| link.late);
        for link in lazy.into_iter().take(wanted) {
            link.eager = true;
            out.push(Effect::Tell { to: link.peer, body: Message::Graft(None) });
        }
    }

    fn command(&mut self, command: Command<C>, out: &mut Vec<EffectOf<Self>>) {
        match command {
            Command::Broadcast(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
                out.push(Effect::Report(Outcome::Refused));
            }
            Command::Broadcast(payload) => {
                let id = MessageId(self.rng.next_u64());
                self.seen.insert(id);
                out.push(Effect::Report(Outcome::Sent(id)));
                self.spread(None, 0, id, payload, out);
            }
            Command::Connect(peer) => {
                if self.links.iter().any(|link| link.peer == peer) {
                    return;
                }
                if self.links.len() >= NEIGHBOURS_MAX {
                    return out.push(Effect::Report(Outcome::Refused));
                }
                self.links.push(Link { peer, eager: true, late: FAR });
            }
            Command::Disconnect(peer) => self.part(peer, out),
        }
    }
}

impl<C: Contact> Protocol for Gossip<C> {
    type Contact = C;
    type Message = Message;
    type Command = Command<C>;
    type Outcome = Outcome;

    fn step(&mut self, now: Micros, _: &impl Keys<C>, input: InputOf<Self>, out: &mut Vec<EffectOf<Self>>) {
        match input {
            Input::Told { from, body } => match body {
                Message::Payload { id, hops, payload } => self.receive(now, from, hops, id, payload, out),
                Message::News(id) => self.news(now, from, id),
                Message::Graft(id) => self.graft(from, id, out),
                Message::Prune => self.set(from, false),
            },
            Input::Parted { peer } => self.part(peer, out),
            Input::Commanded(command) => self.command(command, out),
            // Nothing is ever asked here; who asks is told nothing.
            Input::Asked { .. } | Input::Answered { .. } | Input::Failed { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Micros> {
        self.missing.iter().map(|missing| missing.due).min()
    }

    fn wake(&mut self, now: Micros, _: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let mut at = 0;
        while at < self.missing.len() {
            let missing = &mut self.missing[at];
            if missing.due > now {
                at += 1;
                continue;
            }
            if missing.holders.is_empty() {
                // Everyone who told of it was asked or is gone. Later news begin anew.
                self.missing.remove(at);
                continue;
            }
            let holder = missing.holders.remove(0);
            missing.due = now + REGRAFT_MICROS;
            let body = Message::Graft(Some(missing.id));
            self.set(holder, true);
            out.push(Effect::Tell { to: holder, body });
            at += 1;
        }
    }
}
