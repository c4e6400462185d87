//! Random walks, driven: `p2p::walk` over `/archipel/walk/1`; its neighbours are the connected peers that speak it.

use std::collections::HashMap;

use kernel::{Micros, Rng};
use p2p::codec::Head;
use p2p::walk::{self, Command, Drawn, Outcome, Tag, Turn, Walks};
use p2p::{Effect, EffectOf, Input, InputOf, Key, Protocol as _, RequestId};
use tokio::sync::oneshot;

use super::directory::{Contact, OWN};
use super::drive::Asked;
use super::exchange::Ended;
use super::facade::{Sampled, WalkError, WalkFor};
use super::host::Host;
use super::ours;
use super::serve::{Question, Reply};
use super::streams::Spoken;

/// Steps between two checks of a search.
const STRIDE: u8 = 8;

type Message = walk::Message<Contact>;

/// This node among those that walkers pass.
pub(super) struct Walking {
    pub walks: Walks<Contact>,
    out: Vec<EffectOf<Walks<Contact>>>,
    seekers: HashMap<Tag, oneshot::Sender<Result<Sampled, WalkError>>>,
}

impl Walking {
    /// Without neighbours.
    pub fn new(rng: &Rng) -> Walking {
        let walks = Walks::new(OWN, Vec::new(), rng.fork(4));
        Walking { walks, out: Vec::new(), seekers: HashMap::new() }
    }
}

impl Host {
    fn walk_step(&mut self, now: Micros, input: InputOf<Walks<Contact>>) {
        let Host { walking, directory, .. } = self;
        walking.walks.step(now, directory, input, &mut walking.out);
    }

    /// Does what is due for walkers and what follows; true if anything did.
    pub(super) fn drive_walks(&mut self, now: Micros) -> bool {
        let Host { walking, directory, .. } = self;
        if walking.walks.deadline().is_some_and(|due| due <= now) {
            walking.walks.wake(now, directory, &mut walking.out);
        }
        let effects = std::mem::take(&mut walking.out);
        let some = !effects.is_empty();
        effects.into_iter().for_each(|effect| self.act_walk(now, effect));
        some
    }

    /// A peer takes walkers from now on, or no more.
    pub(super) fn on_walk_peer(&mut self, now: Micros, contact: Contact, speaks: bool) {
        let command = if speaks { Command::Connect(contact) } else { Command::Disconnect(contact) };
        self.walk_step(now, Input::Commanded(command));
    }

    /// From now on walkers find what this node provides.
    pub(super) fn hold(&mut self, now: Micros, key: Key) {
        self.walk_step(now, Input::Commanded(Command::Hold(key)));
    }

    /// Sends walkers out.
    pub(super) fn walk(
        &mut self,
        now: Micros,
        wanted: WalkFor,
        reply: oneshot::Sender<Result<Sampled, WalkError>>,
    ) {
        if self.walking.walks.neighbours().is_empty() {
            let _ = reply.send(Err(WalkError::Alone));
            return;
        }
        let tag = Tag(self.number());
        self.walking.seekers.retain(|_, reply| !reply.is_closed());
        self.walking.seekers.insert(tag, reply);
        let command = match wanted {
            WalkFor::Sample { count, steps } => Command::Sample { tag, count, steps, drawn: Drawn::Evenly },
            WalkFor::Content { name, walkers, steps } => {
                let key = Key::of(name.bytes());
                Command::Search { tag, key, walkers, steps, stride: STRIDE, turn: Turn::Onward }
            }
        };
        self.walk_step(now, Input::Commanded(command));
    }

    fn act_walk(&mut self, now: Micros, effect: EffectOf<Walks<Contact>>) {
        match effect {
            Effect::Tell { to, body } => {
                if let Some(bytes) = ours::encode(&self.directory, Head::Tell, &body) {
                    self.dispatch(now, (to, Spoken::Walk), bytes, Asked::Told);
                }
            }
            Effect::Ask { to, id, body } => match ours::encode(&self.directory, Head::Ask(id), &body) {
                Some(bytes) => self.dispatch(now, (to, Spoken::Walk), bytes, Asked::Walk(id)),
                None => self.walk_step(now, Input::Failed { to, id }),
            },
            Effect::Answer { id, body, .. } => self.answer_ours(id, &body),
            Effect::Report(outcome) => self.report_walk(outcome),
        }
    }

    /// What was asked about a walk has ended.
    pub(super) fn on_walk_ended(&mut self, now: Micros, from: Contact, id: RequestId, ended: Ended) {
        let body = match ended {
            Ended::Answered(bytes) => ours::decode::<Message>(&mut self.directory, &bytes, 0)
                .filter(|(head, _)| *head == Head::Answer(id))
                .map(|(_, body)| body),
            Ended::Refused | Ended::Failed => None,
        };
        self.walk_step(
            now,
            match body {
                Some(body) => Input::Answered { from, id, body },
                None => Input::Failed { to: from, id },
            },
        );
    }

    /// A walker comes, or its origin is asked about it.
    pub(super) fn on_walk_said(&mut self, now: Micros, question: Question) {
        let Question { from, bytes, reply, .. } = question;
        let said = ours::decode::<Message>(&mut self.directory, &bytes, ours::TOLD_PEERS_MAX);
        // What is dropped here is a stream that is reset.
        let (Some((head, body)), Some(from)) = (said, self.directory.know(from)) else { return };
        match head {
            Head::Tell => {
                self.walk_step(now, Input::Told { from, body });
                let _ = reply.send(Reply::Nothing);
            }
            Head::Ask(theirs) => {
                let id = self.owe(theirs, reply);
                self.walk_step(now, Input::Asked { from, id, body });
                let answers = |effect: &EffectOf<Walks<Contact>>| matches!(effect, Effect::Answer { id: own, .. } if *own == id);
                if !self.walking.out.iter().any(answers) {
                    self.owed_ours.remove(&id);
                }
            }
            // Nobody may answer what was not asked.
            Head::Answer(_) => {}
        }
    }

    fn report_walk(&mut self, outcome: Outcome<Contact>) {
        let (tag, result) = match outcome {
            Outcome::Found { tag, holder, hops } => {
                (tag, Ok(Sampled { peers: vec![self.located(holder)], hops: Some(hops) }))
            }
            Outcome::NotFound { tag } => (tag, Ok(Sampled::default())),
            Outcome::Sampled { tag, nodes } => {
                let peers = nodes.into_iter().map(|contact| self.located(contact)).collect();
                (tag, Ok(Sampled { peers, hops: None }))
            }
            Outcome::Refused { tag } => (tag, Err(WalkError::Refused)),
        };
        if let Some(reply) = self.walking.seekers.remove(&tag) {
            // Who asked may have left.
            let _ = reply.send(result);
        }
    }
}
