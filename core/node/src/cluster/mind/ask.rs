//! Requests: they go to who leads the control group, again and again under one id, until they are applied here or their
//! time is over.
//!
//! Who asks learns what came of it from the group's log, which it has itself. So no answer can be lost, and asking twice
//! does nothing twice: the state remembers the ids. What a leader declines surely did not happen; a request that was sent
//! and not declined may yet happen, and is "unknown" when its time is over.

use control::{REQUEST_BYTES_MAX, Request};

use super::*;
use crate::cluster::formation::draw_id;
use crate::cluster::frames::Declined;

/// A request that nothing was heard of is sent again after this, in milliseconds.
const AGAIN_MS: u64 = 500;
/// A request that was right for an older state is asked for anew so often.
const REVISIONS_MAX: u32 = 3;
/// A request that was declined is sent again after this, in milliseconds.
const DECLINED_MS: u64 = 100;

/// Requests of this node that are not answered.
#[derive(Default)]
pub(super) struct Asks(BTreeMap<Ticket, Asking>);

struct Asking {
    request: Request,
    /// The answer is a welcome to this node.
    newcomer: Option<NodeId>,
    deadline: Micros,
    again: Micros,
    /// How often it was handed on and not declined.
    open: u32,
    /// Its id is this node's own, so another may take its place.
    own: bool,
    /// How often it was asked for anew, as of a newer state.
    revised: u32,
}

impl Asks {
    pub fn deadline(&self) -> Option<Micros> {
        self.0.values().map(|asking| asking.again.min(asking.deadline)).min()
    }

    /// The requests' ids.
    pub fn ids(&self) -> Vec<OperationId> {
        self.0.values().map(|asking| asking.request.id).collect()
    }

    /// Another leader is known, or the way to it is new.
    pub fn leader_changed(&mut self, now: Micros) {
        self.0.values_mut().for_each(|asking| asking.again = now);
    }

    pub fn declined(&mut self, now: Micros, id: OperationId, because: Declined) {
        let hint = matches!(because, Declined::NotLeading(Some(_)));
        for asking in self.0.values_mut().filter(|asking| asking.request.id == id) {
            asking.open = asking.open.saturating_sub(1);
            // Who knows another leader knows it from the group, as this node will.
            let pause = if hint { DECLINED_MS } else { AGAIN_MS };
            asking.again = asking.again.min(now.plus_millis(pause));
        }
    }
}

impl Mind {
    /// Asks for an operation. Its [`Effect::Answer`] comes within [`ASK_MS_MAX`].
    pub fn ask(&mut self, now: Micros, ask: Ask) {
        let Ask { ticket, id: given, by, operation } = ask;
        let id = given.unwrap_or_else(|| draw_id(&mut self.rng));
        self.begin(now, ticket, Request { id, by, at: now.millis(), operation }, None);
        if let Some(asking) = self.asks.0.get_mut(&ticket) {
            asking.own = given.is_none();
        }
    }

    pub(super) fn begin(&mut self, now: Micros, ticket: Ticket, request: Request, newcomer: Option<NodeId>) {
        self.now = now;
        let reply = |answer| Effect::Answer { ticket, answer };
        if request.encode().len() > REQUEST_BYTES_MAX {
            let text = alloc::format!("a request has at most {REQUEST_BYTES_MAX} bytes");
            return self.out.push(reply(Answer::Refused(text)));
        }
        if let Some(text) = self.too_early(&request.operation) {
            return self.out.push(reply(Answer::Refused(text)));
        }
        if self.asks.0.len() >= ASKS_MAX || self.asks.0.contains_key(&ticket) {
            return self.out.push(reply(Answer::Busy));
        }
        let id = request.id;
        let deadline = now.plus_millis(ASK_MS_MAX);
        let (again, open, own, revised) = (now, 0, false, 0);
        self.asks.0.insert(ticket, Asking { request, newcomer, deadline, again, open, own, revised });
        // It was asked in an earlier life, or through another member.
        let line = self.state.audit().iter().find(|line| line.id == id);
        if let Some(result) = line.map(|line| line.result.clone()) {
            self.answer(id, result);
        }
    }

    /// This is what came of a request.
    pub(super) fn answer(&mut self, id: OperationId, result: Result<Outcome, String>) {
        let asked: Vec<Ticket> = (self.asks.0.iter())
            .filter(|(_, asking)| asking.request.id == id)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in asked {
            if result.is_err() && self.revise(ticket) {
                continue;
            }
            let newcomer = self.asks.0.remove(&ticket).and_then(|asking| asking.newcomer);
            let answer = match (result.clone(), newcomer) {
                (Ok(_), Some(node)) => self.welcome(node),
                (Ok(outcome), None) => Answer::Done(outcome),
                (Err(text), _) => Answer::Refused(text),
            };
            self.out.push(Effect::Answer { ticket, answer });
        }
    }

    /// A member that was away asks for what was right when it left. By the refusal it knows better, so it asks for what is
    /// right now. False if that is the same, or was done often enough.
    fn revise(&mut self, ticket: Ticket) -> bool {
        let Some(asking) = self.asks.0.get_mut(&ticket) else { return false };
        if !asking.own || asking.revised >= REVISIONS_MAX {
            return false;
        }
        let Operation::MoveLeader { group, epoch, .. } = &mut asking.request.operation else { return false };
        let Some(is) = self.state.partition(*group).map(|partition| partition.epoch) else { return false };
        if is == *epoch {
            return false;
        }
        *epoch = is;
        asking.request.id = draw_id(&mut self.rng);
        (asking.revised, asking.open, asking.again) = (asking.revised + 1, 0, self.now);
        true
    }

    /// Hands on what is due, and gives up what is over.
    pub(super) fn pursue(&mut self) {
        let now = self.now;
        let due: Vec<Ticket> = (self.asks.0.iter())
            .filter(|(_, asking)| asking.again.min(asking.deadline) <= now)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in due {
            let Some(asking) = self.asks.0.get_mut(&ticket) else { continue };
            if asking.deadline <= now {
                let answer = if asking.open == 0 { Answer::NoLeader } else { Answer::Unknown };
                self.asks.0.remove(&ticket);
                self.out.push(Effect::Answer { ticket, answer });
                continue;
            }
            asking.again = now.plus_millis(AGAIN_MS);
            if asking.open > 0 && is(Bug::RetryIsAnother) {
                asking.request.id = draw_id(&mut self.rng);
            }
            let request = asking.request.clone();
            if self.hand_on(request)
                && let Some(asking) = self.asks.0.get_mut(&ticket)
            {
                asking.open += 1;
            }
        }
    }

    /// Whether it may have gone on its way.
    fn hand_on(&mut self, request: Request) -> bool {
        match self.leader() {
            Some(leader) if leader == self.me => self.lead.enqueue(request).is_ok(),
            Some(leader) if self.up.contains(&leader) => {
                self.say(leader, &Said::Ask(request));
                true
            }
            Some(_) | None => false,
        }
    }

    /// A member asks for a request to be proposed.
    pub(super) fn take_ask(&mut self, from: NodeId, request: Request) {
        let id = request.id;
        let leader = self.leader();
        let because = if leader == Some(self.me) && request.operation.needs() > self.state.speaks() {
            // Who asks has seen the cluster raised, as this node will.
            Declined::Busy
        } else if leader == Some(self.me) {
            match self.lead.enqueue(request) {
                Ok(()) => return,
                Err(lead::Full) => Declined::Busy,
            }
        } else {
            Declined::NotLeading(leader)
        };
        self.say(from, &Said::Declined { id, because });
    }
}
