//! The machine of the hash table, driven: what it asks for goes to the exchange and to whom it owes answers, and what
//! comes back goes into it. And what all machines share: what is on its way, and what is owed.

use std::time::Duration;

use kernel::Micros;
use p2p::codec::{Head, Wire};
use p2p::kad::{Cost, Outcome, Refusal, Token};
use p2p::{Effect, Input, Key, Keys, Protocol as _, RequestId};
use tokio::sync::{mpsc, oneshot};
use wire::kad::{Kind, Message};

use super::directory::Contact;
use super::exchange::{Ended, Errand, Net, Way};
use super::facade::{DhtError, Hop, HopEnd, ReachError, Sought};
use super::host::Host;
use super::name::Peer;
use super::ours;
use super::serve::{Question, Reply};
use super::streams::Spoken;
use super::words::{self, Heard, Said};

/// What is on its way, and who waits for what comes back.
#[derive(Debug)]
pub(super) enum Asked {
    /// The hash table, or nobody if it only tells.
    Table(Quoted),
    /// The ring: its name for the question, and which point that is about.
    Ring { id: RequestId, point: Option<u64>, at: Micros },
    /// The walks.
    Walk(RequestId),
    /// Who sends a message to this peer.
    Message(Peer, oneshot::Sender<Result<usize, ReachError>>),
    /// Nobody: it is only told.
    Told,
}

/// A question of the hash table on its way, or something that it tells.
#[derive(Debug)]
pub(super) struct Quoted {
    /// The machine's name for it, and the kind of the answer; `None` for what is only told.
    awaits: Option<(RequestId, Kind)>,
    key: Key,
    at: Micros,
}

impl Asked {
    const fn wants_answer(&self) -> bool {
        match self {
            Asked::Table(quoted) => quoted.awaits.is_some(),
            Asked::Ring { .. } | Asked::Walk(_) | Asked::Message(..) => true,
            Asked::Told => false,
        }
    }
}

/// Who waits for a lookup.
#[derive(Debug)]
pub(super) struct Seeker {
    pub reply: oneshot::Sender<Result<Sought, DhtError>>,
}

/// Who watches the questions for one key, until the lookup with `token` ends.
#[derive(Debug)]
pub(super) struct Watcher {
    pub token: Token,
    pub key: Key,
    pub began: Micros,
    pub hops: mpsc::Sender<Hop>,
}

impl Host {
    /// Performs what the machine wants and lets happen what is due, until there is neither.
    pub(super) fn drive(&mut self, now: Micros) {
        loop {
            if self.dht.deadline().is_some_and(|due| due <= now) {
                self.dht.wake(now, &self.directory, &mut self.out);
            }
            if self.exchange.deadline().is_some_and(|due| due <= now) {
                let Host { swarm, directory, exchange, .. } = self;
                exchange.wake(now, &mut Net { swarm, directory });
            }
            let moved = self.drive_ring(now) | self.drive_walks(now);
            let effects = std::mem::take(&mut self.out);
            effects.into_iter().for_each(|effect| self.act(now, effect));
            let ended = self.exchange.take_ended();
            if ended.is_empty() && self.out.is_empty() && !moved {
                return;
            }
            ended.into_iter().for_each(|(from, errand, ended)| self.on_ended(now, from, errand, ended));
        }
    }

    fn act(&mut self, now: Micros, effect: Effect<Contact, Said, Outcome<Contact>>) {
        match effect {
            Effect::Tell { to, body } => self.send(now, to, None, &body),
            Effect::Ask { to, id, body } => self.send(now, to, Some(id), &body),
            Effect::Answer { id, body, .. } => {
                let Some((question, reply)) = self.owed.remove(&id) else { return };
                if let Said::Stored(Err(why)) = &body {
                    // The protocol has no word for it; whoever runs this node can know.
                    tracing::debug!(%why, "a peer's record is refused");
                }
                if let Some(bytes) = words::answer(&self.directory, now, &question, &body) {
                    // A stream that has ended waits for nothing; a reply that is dropped resets it.
                    let _ = reply.send(Reply::Answer(bytes));
                }
            }
            Effect::Report(outcome) => self.report(outcome),
        }
    }

    fn send(&mut self, now: Micros, to: Contact, id: Option<RequestId>, body: &Said) {
        let Some(bytes) = words::question(&self.directory, now, body) else {
            if let Some(id) = id {
                self.dht.step(now, &self.directory, Input::Failed { to, id }, &mut self.out);
            }
            return;
        };
        let awaits = id.zip(words::awaited(body));
        let asked = Asked::Table(Quoted { awaits, key: words::place(body), at: now });
        self.dispatch(now, (to, Spoken::Kad), bytes, asked);
    }

    /// Sends `bytes` on their way. What is only told is left out when too much of it waits.
    pub(super) fn dispatch(&mut self, now: Micros, way: Way, bytes: Vec<u8>, asked: Asked) {
        let wants_answer = asked.wants_answer();
        if !wants_answer && self.exchange.is_full() {
            return tracing::debug!("what was to be told to a peer was left out");
        }
        let errand = Errand(self.number());
        self.asked.insert(errand, asked);
        let Host { swarm, directory, exchange, .. } = self;
        exchange.begin(now, &mut Net { swarm, directory }, (errand, way), bytes, wants_answer);
    }

    /// A peer asked in one of our own protocols, and called it `theirs`: our name for it.
    pub(super) fn owe(&mut self, theirs: RequestId, reply: oneshot::Sender<Reply>) -> RequestId {
        let id = RequestId(self.number() as u32);
        self.owed_ours.insert(id, (theirs, reply));
        id
    }

    /// Answers in one of our own protocols.
    pub(super) fn answer_ours<M: Wire<Contact>>(&mut self, id: RequestId, body: &M) {
        let Some((theirs, reply)) = self.owed_ours.remove(&id) else { return };
        if let Some(bytes) = ours::encode(&self.directory, Head::Answer(theirs), body) {
            // A stream that has ended waits for nothing; a reply that is dropped resets it.
            let _ = reply.send(Reply::Answer(bytes));
        }
    }

    fn on_ended(&mut self, now: Micros, from: Contact, errand: Errand, ended: Ended) {
        match self.asked.remove(&errand) {
            Some(Asked::Table(quoted)) => self.on_table_ended(now, from, &quoted, ended),
            Some(Asked::Ring { id, point, at }) => self.on_ring_ended(now, from, (id, point, at), ended),
            Some(Asked::Walk(id)) => self.on_walk_ended(now, from, id, ended),
            Some(Asked::Message(peer, reply)) => Host::on_sent(peer, ended, reply),
            Some(Asked::Told) | None => {}
        }
    }

    fn on_table_ended(&mut self, now: Micros, from: Contact, asked: &Quoted, ended: Ended) {
        let Some((id, kind)) = asked.awaits else {
            let end = if matches!(ended, Ended::Answered(_)) { HopEnd::Stored } else { HopEnd::Failed };
            return self.watch(now, from, asked, end);
        };
        let said = match ended {
            Ended::Answered(bytes) => Message::decode(&bytes)
                .inspect_err(|error| tracing::debug!(%error, "a peer answered what is no message"))
                .ok()
                .and_then(|message| words::answered(&mut self.directory, kind, &message)),
            // Links have no word for a refusal but a reset.
            Ended::Refused if kind == Kind::PutValue => Some(Said::Stored(Err(Refusal::Unsaid))),
            Ended::Refused | Ended::Failed => None,
        };
        self.watch(now, from, asked, self.end_of(said.as_ref(), asked.key));
        let input = match said {
            Some(body) => {
                // Whoever answers serves, whether or not it has said so.
                if let Some(peer) = self.directory.get_mut(from) {
                    peer.serves.get_or_insert(true);
                }
                Input::Answered { from, id, body }
            }
            None => Input::Failed { to: from, id },
        };
        self.dht.step(now, &self.directory, input, &mut self.out);
    }

    /// A peer asks.
    pub(super) fn on_question(&mut self, now: Micros, question: Question) {
        let Question { from: id, bytes, reply, .. } = question;
        // What is dropped here is a stream that is reset.
        let heard = match Message::decode(&bytes) {
            Ok(message) => words::heard(&mut self.directory, id, &message),
            Err(error) => return tracing::debug!(peer = %id, %error, "a peer asked what is no message"),
        };
        let (Some(heard), Some(from)) = (heard, self.directory.know(id)) else { return };
        match heard {
            Heard::Told(body) => {
                if !self.directory.is_crowded() {
                    self.dht.step(now, &self.directory, Input::Told { from, body }, &mut self.out);
                }
                let _ = reply.send(Reply::Nothing);
            }
            // The store would hold its handle: the rest of the directory is for those who are needed on the way.
            Heard::Asked(Said::Put(_), _) if self.directory.is_crowded() => {}
            Heard::Asked(body, question) => {
                let id = RequestId(self.number() as u32);
                self.owed.insert(id, (question, reply));
                self.dht.step(now, &self.directory, Input::Asked { from, id, body }, &mut self.out);
            }
        }
    }

    fn report(&mut self, outcome: Outcome<Contact>) {
        let (token, result) = match outcome {
            Outcome::Joined { neighbours } => {
                return tracing::info!(neighbours, contacts = self.dht.table().len(), "joined the overlay");
            }
            Outcome::Found(token, nodes, cost) => (token, Ok(self.sought(&nodes, cost))),
            Outcome::Providers(token, nodes, cost) => (token, Ok(self.sought(&nodes, cost))),
            Outcome::Value(token, record, cost) => (token, Ok(Sought { record, cost, ..Sought::default() })),
            Outcome::Stored(token, stored, cost) => (token, Ok(Sought { stored, cost, ..Sought::default() })),
            Outcome::Refused(token, why) => (token, Err(why)),
        };
        self.watchers.retain(|watcher| watcher.token != token);
        if let Some(seeker) = self.seekers.remove(&token) {
            // Who asked may have left.
            let _ = seeker.reply.send(result.map_err(DhtError::Refused));
        }
    }

    fn sought(&self, nodes: &[Contact], cost: Cost) -> Sought {
        let nodes = nodes.iter().map(|&contact| self.located(contact)).collect();
        Sought { nodes, cost, ..Sought::default() }
    }

    fn end_of(&self, said: Option<&Said>, wanted: Key) -> HopEnd {
        match said {
            None => HopEnd::Failed,
            Some(Said::Stored(Ok(()))) => HopEnd::Stored,
            Some(Said::Stored(Err(_))) => HopEnd::Refused,
            Some(Said::Value { record: Some(_), .. }) => HopEnd::Found,
            Some(Said::Providers { providers, .. }) if !providers.is_empty() => HopEnd::Found,
            Some(Said::Nodes(closer)) if closer.iter().any(|node| self.directory.key(*node) == wanted) => {
                HopEnd::Found
            }
            Some(Said::Nodes(closer) | Said::Value { closer, .. }) => HopEnd::Closer(closer.len()),
            Some(Said::Providers { closer, .. }) => HopEnd::Closer(closer.len()),
            Some(
                Said::FindNode(_)
                | Said::GetValue(_)
                | Said::Put(_)
                | Said::GetProviders(_)
                | Said::AddProvider(_),
            ) => HopEnd::Failed,
        }
    }

    fn watch(&mut self, now: Micros, from: Contact, asked: &Quoted, end: HopEnd) {
        let watched = self.watchers.iter().any(|watcher| watcher.key == asked.key);
        let Some(peer) = self.directory.get(from).filter(|_| watched) else { return };
        let (peer, distance) = (Peer(peer.id), self.directory.key(from).distance(asked.key));
        for watcher in self.watchers.iter().filter(|watcher| watcher.key == asked.key) {
            let after = Duration::from_micros(asked.at.since(watcher.began));
            let took = Duration::from_micros(now.since(asked.at));
            // One who does not read misses it: the lookup waits for nobody.
            let _ = watcher.hops.try_send(Hop { peer, distance, after, took, end });
        }
    }
}
