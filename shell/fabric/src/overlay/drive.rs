//! The machine of the hash table, driven: what it asks for goes to the exchange and to whom it owes answers, and what
//! comes back goes into it.

use std::time::Duration;

use kernel::Micros;
use p2p::kad::{Cost, Outcome, Refusal, Token};
use p2p::{Effect, Input, Key, Keys, Protocol as _, RequestId};
use tokio::sync::{mpsc, oneshot};
use wire::kad::{Kind, Message};

use super::directory::Contact;
use super::exchange::{Ended, Errand, Net};
use super::facade::{Hop, HopEnd, Sought};
use super::host::Host;
use super::name::Peer;
use super::serve::{Question, Reply};
use super::words::{self, Heard, Said};

/// A question of the machine on its way, or something told.
#[derive(Debug)]
pub(super) struct Asked {
    /// The machine's name for it, and the kind of the answer; `None` for what is only told.
    awaits: Option<(RequestId, Kind)>,
    key: Key,
    at: Micros,
}

/// Who waits for a lookup.
#[derive(Debug)]
pub(super) struct Seeker {
    pub reply: oneshot::Sender<Result<Sought, Refusal>>,
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
            let effects = std::mem::take(&mut self.out);
            effects.into_iter().for_each(|effect| self.act(now, effect));
            let ended = self.exchange.take_ended();
            if ended.is_empty() && self.out.is_empty() {
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
        let errand = Errand(self.number());
        let awaits = id.zip(words::awaited(body));
        self.asked.insert(errand, Asked { awaits, key: words::place(body), at: now });
        let Host { swarm, directory, exchange, .. } = self;
        exchange.begin(now, &mut Net { swarm, directory }, (errand, to), bytes, awaits.is_some());
    }

    fn on_ended(&mut self, now: Micros, from: Contact, errand: Errand, ended: Ended) {
        let Some(asked) = self.asked.remove(&errand) else { return };
        let Some((id, kind)) = asked.awaits else {
            let end = if matches!(ended, Ended::Answered(_)) { HopEnd::Stored } else { HopEnd::Failed };
            return self.watch(now, from, &asked, end);
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
        self.watch(now, from, &asked, self.end_of(said.as_ref(), asked.key));
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
            let _ = seeker.reply.send(result);
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
            Some(Said::Nodes(closer) | Said::Value { closer, .. } | Said::Providers { closer, .. }) => {
                HopEnd::Closer(closer.len())
            }
            Some(
                Said::FindNode(_)
                | Said::GetValue(_)
                | Said::Put(_)
                | Said::GetProviders(_)
                | Said::AddProvider(_),
            ) => HopEnd::Failed,
        }
    }

    fn watch(&mut self, now: Micros, from: Contact, asked: &Asked, end: HopEnd) {
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
