//! The Chord of 2001, as its papers have it, for the control: it loses its ring.
//!
//! What Zave mended is not here: a node joins with its successor alone, takes a newer successor without asking
//! whether it lives, keeps its old list behind it, and forgets a dead predecessor instead of taking the next.

use kernel::{Micros, Rng};
use p2p::chord::{Command, Message, Outcome, between};
use p2p::{Effect, EffectOf, Input, InputOf, Keys, Pending, Protocol};

/// One node of the ring of 2001.
pub struct Original {
    own: u32,
    point: u64,
    kept: usize,
    member: bool,
    predecessor: Option<u32>,
    successors: Vec<u32>,
    pending: Pending<u32, Purpose>,
}

enum Purpose {
    Stabilize,
    Check,
    Join,
}

impl Original {
    /// A node outside of any ring.
    pub fn new(own: u32, point: u64, successors: u8, mut rng: Rng) -> Original {
        Original {
            own,
            point,
            kept: usize::from(successors),
            member: false,
            predecessor: None,
            successors: Vec::new(),
            pending: Pending::new(&mut rng),
        }
    }

    /// The same as a member with these neighbours.
    pub fn settled(mut self, predecessor: u32, successors: &[u32]) -> Original {
        self.member = true;
        self.predecessor = Some(predecessor);
        self.successors = successors.to_vec();
        self
    }

    /// Is it a member?
    pub const fn is_member(&self) -> bool {
        self.member
    }

    /// Who is before it?
    pub const fn predecessor(&self) -> Option<u32> {
        self.predecessor
    }

    /// Who is after it?
    pub fn successors(&self) -> &[u32] {
        &self.successors
    }

    fn ask(&mut self, to: u32, purpose: Purpose, body: Message<u32>, out: &mut Vec<EffectOf<Self>>) {
        if let Some(id) = self.pending.issue(to, purpose) {
            out.push(Effect::Ask { to, id, body });
        }
    }

    fn stabilize(
        &mut self,
        keys: &impl Keys<u32>,
        from: u32,
        answer: Message<u32>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Message::Ring { predecessor, successors } = answer else { return };
        if self.successors.first() != Some(&from) {
            return;
        }
        let rest = successors.into_iter().filter(|node| *node != self.own);
        self.successors = std::iter::once(from).chain(rest).take(self.kept).collect();
        if let Some(node) =
            predecessor.filter(|&node| between(self.point, keys.point(node), keys.point(from)))
        {
            self.successors.insert(0, node);
            self.successors.truncate(self.kept);
        }
        out.push(Effect::Tell { to: self.successors[0], body: Message::Notify });
    }

    /// Goes around the ring by successors, which ends where `find_successor` would.
    fn join(
        &mut self,
        keys: &impl Keys<u32>,
        from: u32,
        answer: Message<u32>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Message::Ring { successors, .. } = answer else { return };
        let Some(&head) = successors.first() else { return };
        if between(keys.point(from), self.point, keys.point(head)) {
            self.member = true;
            self.successors = vec![head];
        } else {
            self.ask(head, Purpose::Join, Message::Neighbours, out);
        }
    }
}

impl Protocol for Original {
    type Contact = u32;
    type Message = Message<u32>;
    type Command = Command<u32>;
    type Outcome = Outcome<u32>;

    fn step(
        &mut self,
        _: Micros,
        keys: &impl Keys<u32>,
        input: InputOf<Self>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        match input {
            Input::Asked { from, id, body } if self.member => {
                let body = match body {
                    Message::Neighbours => {
                        Message::Ring { predecessor: self.predecessor, successors: self.successors.clone() }
                    }
                    _ => Message::Yes,
                };
                out.push(Effect::Answer { to: from, id, body });
            }
            Input::Answered { from, id, body } => match self.pending.settle(from, id) {
                Some(Purpose::Stabilize) => self.stabilize(keys, from, body, out),
                Some(Purpose::Join) => self.join(keys, from, body, out),
                Some(Purpose::Check) | None => {}
            },
            Input::Failed { to, id } => match self.pending.settle(to, id) {
                Some(Purpose::Stabilize) => self.successors.retain(|node| *node != to),
                Some(Purpose::Check) => self.predecessor = self.predecessor.filter(|node| *node != to),
                Some(Purpose::Join) | None => {}
            },
            Input::Told { from, body: Message::Notify } if self.member => {
                let nearer = |old: u32| between(keys.point(old), keys.point(from), self.point);
                if self.predecessor.is_none_or(nearer) {
                    self.predecessor = Some(from);
                }
            }
            Input::Commanded(Command::Join { seed }) => {
                self.ask(seed, Purpose::Join, Message::Neighbours, out)
            }
            Input::Asked { .. } | Input::Told { .. } | Input::Parted { .. } | Input::Commanded(_) => {}
        }
    }

    fn deadline(&self) -> Option<Micros> {
        None
    }

    fn wake(&mut self, _: Micros, _: &impl Keys<u32>, out: &mut Vec<EffectOf<Self>>) {
        if !self.member {
            return;
        }
        if let Some(&head) = self.successors.first() {
            self.ask(head, Purpose::Stabilize, Message::Neighbours, out);
        }
        if let Some(predecessor) = self.predecessor {
            self.ask(predecessor, Purpose::Check, Message::Alive, out);
        }
    }
}
