//! SWIM: who of the members answers. A failure detector with suspicion, and Lifeguard's remedies.
//!
//! Das, Gupta & Motivala 2002, "SWIM: Scalable weakly-consistent infection-style process group membership
//! protocol"; Dadgar, Phillips & Currey 2018, "Lifeguard: Local health awareness for more accurate failure
//! detection". Who is a member is decided elsewhere, by consensus: this only says who is alive. A member found
//! dead stays one, and is asked now and then whether it is back. Messages come over links that know their
//! peer, so `from` is not forged.

mod gossip;
pub mod message;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::{Machine, Micros, NodeId, Rng};

pub use message::{Claim, Kind, Liveness, Message, Update};

use gossip::Gossip;

/// Pings on behalf of others at once; more are not answered, and count against nobody.
pub const RELAYS_MAX: usize = 64;
/// What local health can sink to: periods and timeouts are so many times longer, plus one (Lifeguard's S).
pub const HEALTH_MAX: u32 = 8;
/// Members that must have confirmed a suspicion for it to take the shortest time (Lifeguard's K).
pub const CONFIRMATIONS: usize = 3;
/// One round of so many asks a dead member whether it is back.
const RECHECK_ROUNDS: u64 = 4;

/// Times and counts. All members should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwimOptions {
    /// Each period one member is pinged.
    pub period_ms: u64,
    /// A ping that is not answered within this is repeated through others. Below half a period.
    pub timeout_ms: u64,
    /// How many others.
    pub helpers: usize,
    /// The shortest suspicion lasts so many periods, times the logarithm (base 10) of the number of members.
    pub suspicion_periods: u64,
    /// The longest, which one accuser alone has, is so many times the shortest.
    pub suspicion_stretch: u64,
}

impl Default for SwimOptions {
    fn default() -> SwimOptions {
        let (period_ms, timeout_ms) = (500, 200);
        SwimOptions { period_ms, timeout_ms, helpers: 3, suspicion_periods: 4, suspicion_stretch: 6 }
    }
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// These are the members now, this one among them or not.
    Members(Vec<NodeId>),
    /// A message came.
    Received {
        /// From whom.
        from: NodeId,
        /// It.
        message: Message,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this, as a datagram: it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// This is what is thought of a member from now on.
    Changed {
        /// Which.
        node: NodeId,
        /// What.
        liveness: Liveness,
    },
    /// This node had to object: it is to keep this incarnation and begin its next life above it.
    Incarnation(u64),
}

#[derive(Clone, Debug)]
struct Member {
    incarnation: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Alive,
    Suspect { since: Micros, until: Micros, accusers: Vec<NodeId> },
    Dead,
}

impl State {
    const fn liveness(&self) -> Liveness {
        match self {
            State::Alive => Liveness::Alive,
            State::Suspect { .. } => Liveness::Suspect,
            State::Dead => Liveness::Dead,
        }
    }
}

/// The ping of this round.
#[derive(Clone, Copy, Debug)]
struct Probe {
    target: NodeId,
    number: u64,
    /// When others are asked; `None` when they were.
    ask_at: Option<Micros>,
    /// Others that were asked and have not said yet that they are there.
    silent: u32,
    asked: u32,
}

/// A ping for another member.
#[derive(Clone, Copy, Debug)]
struct Relay {
    target: NodeId,
    number: u64,
    origin: NodeId,
    origin_number: u64,
    nack_at: Option<Micros>,
    until: Micros,
}

/// One member's view of all. See the module's text.
#[derive(Clone, Debug)]
pub struct Swim {
    options: SwimOptions,
    me: NodeId,
    incarnation: u64,
    members: BTreeMap<NodeId, Member>,
    gossip: Gossip,
    /// Those still to be pinged before the order is shuffled again.
    order: Vec<NodeId>,
    rounds: u64,
    next_round: Micros,
    probe: Option<Probe>,
    relays: Vec<Relay>,
    numbers: u64,
    health: u32,
    rng: Rng,
}

impl Swim {
    /// A member with nobody else yet, whose earlier lives had incarnations below `incarnation`.
    #[must_use]
    pub fn new(options: SwimOptions, me: NodeId, incarnation: u64, now: Micros, seed: u64) -> Swim {
        let mut rng = Rng::new(seed);
        // Not all members ping in the same moment, even if they start together.
        let next_round = now.plus_millis(rng.below(options.period_ms + 1));
        Swim {
            options,
            me,
            incarnation,
            members: BTreeMap::new(),
            gossip: Gossip::default(),
            order: Vec::new(),
            rounds: 0,
            next_round,
            probe: None,
            relays: Vec::new(),
            // Numbers of an earlier life fit no ping of this one.
            numbers: rng.next_u64() >> 16,
            health: 0,
            rng,
        }
    }

    /// What is thought of `node`; `None` if it is no member. A member thinks itself alive.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Option<Liveness> {
        if node == self.me {
            return Some(Liveness::Alive);
        }
        self.members.get(&node).map(|member| member.state.liveness())
    }

    /// The other members and what is thought of them.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Liveness)> + '_ {
        self.members.iter().map(|(&node, member)| (node, member.state.liveness()))
    }

    /// How badly this node itself is doing, 0 to [`HEALTH_MAX`]: it waits so much longer for others.
    #[must_use]
    pub const fn health(&self) -> u32 {
        self.health
    }

    /// Its incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn set_members(&mut self, nodes: Vec<NodeId>) {
        let mut members = BTreeMap::new();
        for node in nodes.into_iter().filter(|&node| node != self.me) {
            let fresh = Member { incarnation: 0, state: State::Alive };
            members.insert(node, self.members.remove(&node).unwrap_or(fresh));
        }
        for gone in core::mem::replace(&mut self.members, members).into_keys() {
            self.gossip.forget(gone);
        }
        let known = &self.members;
        self.order.retain(|node| known.contains_key(node));
        self.relays.retain(|relay| known.contains_key(&relay.target) && known.contains_key(&relay.origin));
        self.probe = self.probe.filter(|probe| known.contains_key(&probe.target));
        self.tell_of_me();
    }

    fn receive(&mut self, now: Micros, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        if !self.members.contains_key(&from) {
            return;
        }
        // First the news, so that an objection goes with the answer.
        for update in message.updates {
            self.hear(now, update, out);
        }
        let number = message.number;
        match message.kind {
            Kind::Ping => self.send(from, Kind::Ack, number, out),
            Kind::PingFor(target) => self.relay(now, from, target, number, out),
            Kind::Ack => self.take_ack(from, number, out),
            Kind::Nack => {
                if let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number) {
                    probe.silent = probe.silent.saturating_sub(1);
                }
            }
        }
    }

    fn take_ack(&mut self, from: NodeId, number: u64, out: &mut Vec<Effect>) {
        if self.probe.is_some_and(|probe| probe.number == number) {
            self.probe = None;
            self.health = self.health.saturating_sub(1);
        }
        if let Some(at) = self.relays.iter().position(|relay| relay.number == number && relay.target == from)
        {
            let relay = self.relays.swap_remove(at);
            self.send(relay.origin, Kind::Ack, relay.origin_number, out);
        }
    }

    fn relay(
        &mut self,
        now: Micros,
        origin: NodeId,
        target: NodeId,
        origin_number: u64,
        out: &mut Vec<Effect>,
    ) {
        if !self.members.contains_key(&target) || self.relays.len() >= RELAYS_MAX {
            return;
        }
        let SwimOptions { period_ms, timeout_ms, .. } = self.options;
        self.numbers += 1;
        let number = self.numbers;
        self.relays.push(Relay {
            target,
            number,
            origin,
            origin_number,
            // Early enough to be there within the origin's round.
            nack_at: Some(now.plus_millis(timeout_ms * 4 / 5)),
            until: now.plus_millis(period_ms * u64::from(HEALTH_MAX + 1)),
        });
        self.send(target, Kind::Ping, number, out);
    }

    /// Sends a message with what news fits. One to a member that is not thought alive says so first, for it to
    /// object (Lifeguard's buddy system).
    fn send(&mut self, to: NodeId, kind: Kind, number: u64, out: &mut Vec<Effect>) {
        let about = self.members.get(&to).and_then(|member| {
            let claim = match &member.state {
                State::Alive => return None,
                State::Suspect { accusers, .. } => {
                    Claim::Suspect(accusers.first().copied().unwrap_or(self.me))
                }
                State::Dead => Claim::Dead,
            };
            Some(Update { node: to, incarnation: member.incarnation, claim })
        });
        let updates = self.gossip.take(self.members.len() + 1, about);
        out.push(Effect::Send { to, message: Message { kind, number, updates } });
    }

    fn hear(&mut self, now: Micros, update: Update, out: &mut Vec<Effect>) {
        let Update { node, incarnation, claim } = update;
        if node == self.me {
            return self.hear_of_me(incarnation, claim, out);
        }
        let Some(member) = self.members.get(&node) else { return };
        let newer = (incarnation, claim.liveness()) > (member.incarnation, member.state.liveness());
        if newer {
            return self.believe(now, update, out);
        }
        let count = self.members.len() + 1;
        let Some(Member { incarnation: known, state: State::Suspect { since, until, accusers } }) =
            self.members.get_mut(&node)
        else {
            return;
        };
        // Another accuser makes it shorter, and is told on so that it does so everywhere.
        if let Claim::Suspect(by) = claim
            && incarnation == *known
            && accusers.len() <= CONFIRMATIONS
            && !accusers.contains(&by)
        {
            accusers.push(by);
            *until = *since + suspicion_micros(&self.options, count, accusers.len() - 1);
            self.gossip.add(update);
        }
    }

    fn hear_of_me(&mut self, incarnation: u64, claim: Claim, out: &mut Vec<Effect>) {
        if claim == Claim::Alive {
            // An earlier life was further than this one remembers.
            if incarnation > self.incarnation {
                self.object(incarnation, out);
            }
        } else if incarnation >= self.incarnation {
            self.object(incarnation, out);
            self.health = (self.health + 1).min(HEALTH_MAX);
        } else {
            // Whoever still says so has missed the objection, and nobody tells it any more: without this, a member
            // whose objection was lost on every way would be dead for good.
            self.tell_of_me();
        }
    }

    fn object(&mut self, against: u64, out: &mut Vec<Effect>) {
        self.incarnation = against + 1;
        out.push(Effect::Incarnation(self.incarnation));
        self.tell_of_me();
    }

    /// Has it told that this node is alive.
    fn tell_of_me(&mut self) {
        self.gossip.add(Update { node: self.me, incarnation: self.incarnation, claim: Claim::Alive });
    }

    /// Takes `update`, which is newer than what was known of its member, and tells it on.
    fn believe(&mut self, now: Micros, update: Update, out: &mut Vec<Effect>) {
        let Update { node, incarnation, claim } = update;
        let count = self.members.len() + 1;
        let Some(member) = self.members.get_mut(&node) else { return };
        let before = member.state.liveness();
        member.incarnation = incarnation;
        member.state = match claim {
            Claim::Alive => State::Alive,
            Claim::Dead => State::Dead,
            Claim::Suspect(by) => {
                let until = now + suspicion_micros(&self.options, count, 0);
                State::Suspect { since: now, until, accusers: alloc::vec![by] }
            }
        };
        self.gossip.add(update);
        if before != claim.liveness() {
            out.push(Effect::Changed { node, liveness: claim.liveness() });
        }
    }

    /// The round has ended: a ping that nobody answered makes a suspect.
    fn end_round(&mut self, now: Micros, out: &mut Vec<Effect>) {
        let Some(Probe { target, silent, asked, .. }) = self.probe.take() else { return };
        let Some(member) = self.members.get(&target) else { return };
        let incarnation = member.incarnation;
        match member.state {
            State::Dead => return,
            State::Alive | State::Suspect { .. } => {}
        }
        // If helpers were silent too, it may be this node that hears nothing.
        self.health = (self.health + if asked == 0 { 1 } else { silent }).min(HEALTH_MAX);
        self.hear(now, Update { node: target, incarnation, claim: Claim::Suspect(self.me) }, out);
    }

    fn begin_round(&mut self, now: Micros, out: &mut Vec<Effect>) {
        self.rounds += 1;
        let SwimOptions { period_ms, timeout_ms, .. } = self.options;
        let slower = u64::from(self.health) + 1;
        self.next_round = now.plus_millis(period_ms * slower);
        let Some(target) = self.next_target() else { return };
        self.numbers += 1;
        let ask_at = Some(now.plus_millis(timeout_ms * slower));
        self.probe = Some(Probe { target, number: self.numbers, ask_at, silent: 0, asked: 0 });
        self.send(target, Kind::Ping, self.numbers, out);
    }

    /// Round robin in a shuffled order (SWIM, section 4.3), so that every member is pinged within two passes.
    fn next_target(&mut self) -> Option<NodeId> {
        if self.rounds.is_multiple_of(RECHECK_ROUNDS) {
            let dead: Vec<NodeId> = self
                .members
                .iter()
                .filter(|(_, member)| matches!(member.state, State::Dead))
                .map(|(&node, _)| node)
                .collect();
            if !dead.is_empty() {
                return Some(dead[self.rng.below(dead.len() as u64) as usize]);
            }
        }
        for _ in 0..2 {
            while let Some(node) = self.order.pop() {
                if self.members.get(&node).is_some_and(|member| !matches!(member.state, State::Dead)) {
                    return Some(node);
                }
            }
            self.order = self.members.keys().copied().collect();
            for left in (1..self.order.len()).rev() {
                self.order.swap(left, self.rng.below(left as u64 + 1) as usize);
            }
        }
        None
    }

    /// The target has not answered: others are asked to ping it.
    fn ask_helpers(&mut self, out: &mut Vec<Effect>) {
        let Some(probe) = &mut self.probe else { return };
        probe.ask_at = None;
        let (target, number) = (probe.target, probe.number);
        let mut helpers: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(node, member)| **node != target && matches!(member.state, State::Alive))
            .map(|(&node, _)| node)
            .collect();
        while helpers.len() > self.options.helpers {
            helpers.swap_remove(self.rng.below(helpers.len() as u64) as usize);
        }
        if let Some(probe) = &mut self.probe {
            (probe.asked, probe.silent) = (helpers.len() as u32, helpers.len() as u32);
        }
        for helper in helpers {
            self.send(helper, Kind::PingFor(target), number, out);
        }
    }

    fn end_suspicions(&mut self, now: Micros, out: &mut Vec<Effect>) {
        let over = |member: &Member| matches!(member.state, State::Suspect { until, .. } if until <= now);
        let over: Vec<(NodeId, u64)> = self
            .members
            .iter()
            .filter(|(_, member)| over(member))
            .map(|(&node, member)| (node, member.incarnation))
            .collect();
        for (node, incarnation) in over {
            self.believe(now, Update { node, incarnation, claim: Claim::Dead }, out);
        }
    }

    fn end_relays(&mut self, now: Micros, out: &mut Vec<Effect>) {
        self.relays.retain(|relay| relay.until > now);
        let mut owed = Vec::new();
        for relay in &mut self.relays {
            if relay.nack_at.is_some_and(|at| at <= now) {
                relay.nack_at = None;
                owed.push((relay.origin, relay.origin_number));
            }
        }
        for (origin, number) in owed {
            self.send(origin, Kind::Nack, number, out);
        }
    }

    /// This node itself stood still for `micros`: nobody had a chance to answer it, and it accuses nobody.
    fn stood_still(&mut self, now: Micros, micros: u64) {
        self.health = HEALTH_MAX;
        self.probe = None;
        self.relays.clear();
        self.next_round = now;
        for member in self.members.values_mut() {
            if let State::Suspect { since, until, .. } = &mut member.state {
                (*since, *until) = (*since + micros, *until + micros);
            }
        }
    }
}

impl Machine for Swim {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Micros, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Members(nodes) => self.set_members(nodes),
            Input::Received { from, message } => self.receive(now, from, message, out),
        }
    }

    fn deadline(&self) -> Option<Micros> {
        let suspicions = self.members.values().filter_map(|member| match member.state {
            State::Suspect { until, .. } => Some(until),
            State::Alive | State::Dead => None,
        });
        let relays = self.relays.iter().map(|relay| relay.nack_at.unwrap_or(relay.until));
        let asking = self.probe.and_then(|probe| probe.ask_at);
        suspicions.chain(relays).chain(asking).chain([self.next_round]).min()
    }

    fn wake(&mut self, now: Micros, out: &mut Vec<Effect>) {
        let due = self.deadline().unwrap_or(now);
        let late = now.since(due);
        if late > self.options.period_ms * 1000 {
            self.stood_still(now, late);
        }
        self.end_relays(now, out);
        if self.probe.is_some_and(|probe| probe.ask_at.is_some_and(|at| at <= now)) {
            self.ask_helpers(out);
        }
        self.end_suspicions(now, out);
        if self.next_round <= now {
            self.end_round(now, out);
            self.begin_round(now, out);
        }
    }
}

/// How long a suspicion with so many confirmations lasts among `members` members: from the longest with none
/// down to the shortest with [`CONFIRMATIONS`], by the logarithm (Lifeguard, section IV-B).
fn suspicion_micros(options: &SwimOptions, members: usize, confirmations: usize) -> u64 {
    let scale = libm::log10(members as f64).max(1.0);
    let shortest = options.suspicion_periods as f64 * scale * (options.period_ms * 1000) as f64;
    let longest = shortest * options.suspicion_stretch as f64;
    // With few members there are not so many who could confirm.
    let wanted = CONFIRMATIONS.min(members.saturating_sub(3));
    if wanted == 0 {
        return shortest as u64;
    }
    let part = libm::log(confirmations as f64 + 1.0) / libm::log(wanted as f64 + 1.0);
    (longest - (longest - shortest) * part.min(1.0)) as u64
}

#[cfg(test)]
mod tests;
