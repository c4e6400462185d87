//! A million nodes of one overlay in one thread: nodes in slabs, messages as values, time on a wheel.
//!
//! Nothing is serialised. Everything that happens is decided by the seed; [`Swarm::hash`] is its witness, the
//! same in every process. What a message meets (latency by geography, loss, the death of its receiver) is in
//! [`Terms`]; how long nodes live is in [`Churn`].

pub mod geography;
pub mod lifetime;
mod wheel;

use kernel::{Micros, Rng};
use p2p::{Effect, EffectOf, Input, InputOf, Key, Keys, Protocol, RequestId};

use geography::{Region, latency};
use lifetime::Lifetime;
use wheel::Wheel;

/// What messages meet on their way.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Decides everything.
    pub seed: u64,
    /// The share of messages that are lost, each way.
    pub loss: f64,
    /// How long a request waits for its answer, in microseconds.
    pub patience: u64,
    /// Latency between any two nodes in microseconds, without jitter; by geography if `None`.
    pub flat: Option<u64>,
}

impl Default for Terms {
    /// No loss, two seconds of patience, latency by geography.
    fn default() -> Terms {
        Terms { seed: 0, loss: 0.0, patience: 2_000_000, flat: None }
    }
}

/// How nodes come and go.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// How long a node stays.
    pub session: Lifetime,
    /// How long it is away.
    pub absence: Lifetime,
}

/// Where each node is: its key, and where on earth.
#[derive(Clone, Debug, Default)]
pub struct Places {
    keys: Vec<Key>,
    points: Vec<u64>,
    regions: Vec<Region>,
    alive: Vec<bool>,
    living: usize,
}

impl Places {
    /// How many nodes there are, dead ones too.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without nodes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many live.
    #[must_use]
    pub const fn living(&self) -> usize {
        self.living
    }

    /// Does `node` live?
    #[must_use]
    pub fn alive(&self, node: u32) -> bool {
        self.alive[node as usize]
    }

    /// Where `node` is.
    #[must_use]
    pub fn region(&self, node: u32) -> Region {
        self.regions[node as usize]
    }

    /// A node that lives, drawn evenly; `None` if none does. Takes `len / living` draws on average.
    pub fn any_living(&self, rng: &mut Rng) -> Option<u32> {
        if self.living == 0 {
            return None;
        }
        loop {
            let node = rng.below(self.keys.len() as u64) as u32;
            if self.alive(node) {
                return Some(node);
            }
        }
    }
}

impl Keys<u32> for Places {
    fn key(&self, contact: u32) -> Key {
        self.keys[contact as usize]
    }

    #[inline]
    fn point(&self, contact: u32) -> u64 {
        self.points[contact as usize]
    }
}

/// Whoever runs the swarm: hears what nodes report, and gives those that come back their machine.
pub trait Watcher<P: Protocol<Contact = u32>> {
    /// `node` reported `outcome`.
    fn reported(&mut self, now: Micros, node: u32, outcome: P::Outcome);

    /// `node` comes back after its absence: its new machine, and what it does first.
    ///
    /// The default is for swarms whose nodes do not come back.
    fn reborn(&mut self, _now: Micros, _node: u32, _places: &Places) -> Option<(P, P::Command)> {
        None
    }
}

/// Counts of what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that reached a living node.
    pub delivered: u64,
    /// Messages lost on their way, too late, or sent to a dead node.
    pub lost: u64,
    /// Requests that ended without an answer.
    pub failed: u64,
    /// Timers that rang.
    pub wakes: u64,
    /// Nodes that died.
    pub deaths: u64,
    /// Nodes that came back.
    pub births: u64,
}

struct Event<P: Protocol<Contact = u32>> {
    node: u32,
    what: What<P>,
}

// A hundred thousand are on their way, each for so long that nothing of it is in a cache when it arrives: two lines of memory.
const _: () = assert!(size_of::<Option<Event<crate::kad::network::Node>>>() <= 128);

enum What<P: Protocol<Contact = u32>> {
    Told { from: u32, body: P::Message },
    Asked { from: u32, id: RequestId, until: Micros, body: P::Message },
    Answered { from: u32, id: RequestId, body: P::Message },
    Failed { to: u32, id: RequestId },
    Parted { peer: u32 },
    Commanded(P::Command),
    Wake,
    Death { comes_back: bool },
    Birth,
}

/// What a step may answer: the request it was given, if it was given one.
#[derive(Clone, Copy)]
struct Asked {
    from: u32,
    id: RequestId,
    until: Micros,
}

/// The nodes of one overlay and everything between them.
pub struct Swarm<P: Protocol<Contact = u32>> {
    terms: Terms,
    churn: Option<Churn>,
    rng: Rng,
    now: Micros,
    wheel: Wheel<Event<P>>,
    nodes: Vec<P>,
    places: Places,
    /// When each node's timer rings next on the wheel, so that it has only one there.
    wakes: Vec<Micros>,
    counts: Counts,
    hash: u64,
    out: Vec<EffectOf<P>>,
    /// Places of events that were read ahead.
    coming: Vec<u32>,
}

/// Events whose memory is read ahead together: what they need fits a second-level cache.
const WARM_EVENTS: usize = 64;

/// No timer is on the wheel.
const NEVER: Micros = Micros(u64::MAX);

impl<P: Protocol<Contact = u32>> Swarm<P> {
    /// No node yet.
    #[must_use]
    pub fn new(terms: Terms) -> Swarm<P> {
        Swarm {
            terms,
            churn: None,
            rng: Rng::new(terms.seed).fork(0x5741_524D),
            now: Micros(0),
            wheel: Wheel::new(),
            nodes: Vec::new(),
            places: Places::default(),
            wakes: Vec::new(),
            counts: Counts::default(),
            hash: 0,
            out: Vec::new(),
            coming: Vec::new(),
        }
    }

    /// Adds a living node with this key; its handle is the number of nodes before it.
    pub fn add(&mut self, key: Key, node: P) -> u32 {
        let handle = u32::try_from(self.nodes.len()).expect("a swarm has at most 2^32 nodes");
        self.places.keys.push(key);
        self.places.points.push(key.point());
        self.places.regions.push(Region::draw(&mut self.rng));
        self.places.alive.push(true);
        self.places.living += 1;
        self.nodes.push(node);
        self.wakes.push(NEVER);
        self.rearm(handle);
        handle
    }

    /// From now on nodes die and come back; each lives for the rest of a session that began before.
    pub fn start_churn(&mut self, churn: Churn) {
        self.churn = Some(churn);
        for node in 0..self.nodes.len() as u32 {
            if self.places.alive(node) {
                let rest = churn.session.residual(&mut self.rng);
                self.push(self.now + rest, node, What::Death { comes_back: true });
            }
        }
    }

    /// From now on nobody dies of churn and nothing is lost; who is away comes back when its absence ends.
    pub const fn calm(&mut self) {
        self.churn = None;
        self.terms.loss = 0.0;
    }

    /// `node` gets `command` at `at`, if it lives then.
    pub fn command(&mut self, at: Micros, node: u32, command: P::Command) {
        self.push(at, node, What::Commanded(command));
    }

    /// `node` dies at `at` for good; several at once are a correlated failure.
    pub fn kill(&mut self, at: Micros, node: u32) {
        self.push(at, node, What::Death { comes_back: false });
    }

    /// `node` dies now, without an event.
    pub fn fell(&mut self, node: u32) {
        if std::mem::replace(&mut self.places.alive[node as usize], false) {
            self.places.living -= 1;
            self.counts.deaths += 1;
        }
    }

    /// `node` hears at `at` that its link to `peer` is gone.
    pub fn part(&mut self, at: Micros, node: u32, peer: u32) {
        self.push(at, node, What::Parted { peer });
    }

    /// Runs every event up to `until`, which is then the present. True if any is left.
    pub fn run(&mut self, until: Micros, watcher: &mut impl Watcher<P>) -> bool {
        let mut warmed = 0;
        while let Some((at, event)) = self.wheel.pop(until) {
            if warmed == 0 {
                warmed = self.warm(&event);
            }
            warmed -= 1;
            self.now = at;
            self.happen(event, watcher);
        }
        self.now = self.now.max(until);
        !self.wheel.is_empty()
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Micros {
        self.now
    }

    /// The nodes' keys and places, and who lives.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// The machine of `node`.
    #[must_use]
    pub fn node(&self, node: u32) -> &P {
        &self.nodes[node as usize]
    }

    /// The machine of `node`, to be set up before the run.
    pub fn node_mut(&mut self, node: u32) -> &mut P {
        &mut self.nodes[node as usize]
    }

    /// What happened so far, counted.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The hash over every event so far: same seed, same hash, in any process.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Brings near what this event and the next of its tick will read; returns how many these are.
    ///
    /// Each event meets another of a million machines, none of which is in a cache: one after another they would wait for
    /// memory a dozen times each. Read ahead for many, the waits overlap.
    fn warm(&mut self, first: &Event<P>) -> usize {
        if P::WARM_STAGES == 0 {
            return usize::MAX;
        }
        let mut coming = std::mem::take(&mut self.coming);
        coming.clear();
        self.wheel.coming(WARM_EVENTS - 1, &mut coming);
        // The events first, without a look at what they are: a branch on memory that is still on its way would hold up all
        // that is read behind it.
        let nodes = coming.iter().filter_map(|place| self.wheel.at(*place)).map(|event| event.node);
        let mut read = nodes.fold(0, |read, node| read ^ u64::from(node));
        for stage in 0..P::WARM_STAGES {
            let events = coming.iter().filter_map(|place| self.wheel.at(*place));
            for event in std::iter::once(first).chain(events) {
                let node = event.node as usize;
                if stage == 0 {
                    read ^= self.wakes[node].0 ^ u64::from(self.places.alive[node]);
                }
                if let Some((from, body)) = event.what.message() {
                    read ^= self.nodes[node].warm(&self.places, from, body, stage);
                }
            }
        }
        std::hint::black_box(read);
        let count = coming.len() + 1;
        self.coming = coming;
        count
    }

    fn push(&mut self, at: Micros, node: u32, what: What<P>) {
        // The wheel knows the last event's time only, and `run` may have gone beyond it.
        self.wheel.push(at.max(self.now), Event { node, what });
    }

    fn happen(&mut self, event: Event<P>, watcher: &mut impl Watcher<P>) {
        let Event { node, what } = event;
        let (tag, peer) = what.witness();
        self.note(tag << 60 ^ u64::from(node) << 28 ^ u64::from(peer));
        if matches!(what, What::Birth) {
            return self.birth(node, watcher);
        }
        if !self.places.alive(node) {
            return self.bounce(node, what);
        }
        let mut asked = None;
        let input = match what {
            What::Told { from, body } => {
                self.counts.delivered += 1;
                Input::Told { from, body }
            }
            What::Asked { from, id, until, body } => {
                self.counts.delivered += 1;
                asked = Some(Asked { from, id, until });
                Input::Asked { from, id, body }
            }
            What::Answered { from, id, body } => {
                self.counts.delivered += 1;
                Input::Answered { from, id, body }
            }
            What::Failed { to, id } => {
                self.counts.failed += 1;
                Input::Failed { to, id }
            }
            What::Parted { peer } => Input::Parted { peer },
            What::Commanded(command) => Input::Commanded(command),
            What::Wake => return self.ring(node, watcher),
            What::Death { comes_back } => return self.death(node, comes_back),
            What::Birth => unreachable!("handled above"),
        };
        self.step(node, input, asked, watcher);
    }

    fn step(&mut self, node: u32, input: InputOf<P>, asked: Option<Asked>, watcher: &mut impl Watcher<P>) {
        let mut out = std::mem::take(&mut self.out);
        self.nodes[node as usize].step(self.now, &self.places, input, &mut out);
        self.act(node, asked, &mut out, watcher);
        self.out = out;
        self.rearm(node);
    }

    fn ring(&mut self, node: u32, watcher: &mut impl Watcher<P>) {
        let machine = &mut self.nodes[node as usize];
        self.wakes[node as usize] = NEVER;
        if machine.deadline().is_some_and(|at| at <= self.now) {
            self.counts.wakes += 1;
            let mut out = std::mem::take(&mut self.out);
            machine.wake(self.now, &self.places, &mut out);
            self.act(node, None, &mut out, watcher);
            self.out = out;
        }
        self.rearm(node);
    }

    /// Puts the node's timer on the wheel if none rings early enough. A timer that rings too early, because
    /// the deadline moved away, costs one look.
    fn rearm(&mut self, node: u32) {
        if let Some(at) = self.nodes[node as usize].deadline()
            && at < self.wakes[node as usize]
        {
            self.wakes[node as usize] = at;
            self.push(at, node, What::Wake);
        }
    }

    fn act(
        &mut self,
        node: u32,
        asked: Option<Asked>,
        out: &mut Vec<EffectOf<P>>,
        watcher: &mut impl Watcher<P>,
    ) {
        let mut owed = asked;
        for effect in out.drain(..) {
            match effect {
                Effect::Tell { to, body } => match self.flight(node, to) {
                    Some(at) => self.push(at, to, What::Told { from: node, body }),
                    None => self.counts.lost += 1,
                },
                Effect::Ask { to, id, body } => {
                    let until = self.now + self.terms.patience;
                    match self.flight(node, to) {
                        Some(at) if at < until => {
                            self.push(at, to, What::Asked { from: node, id, until, body });
                        }
                        _ => self.fail(node, to, id, until),
                    }
                }
                Effect::Answer { to, id, body } => {
                    let mine = owed.take_if(|asked| asked.from == to && asked.id == id);
                    let until = mine.map_or(self.now + self.terms.patience, |asked| asked.until);
                    match self.flight(node, to) {
                        Some(at) if at <= until => self.push(at, to, What::Answered { from: node, id, body }),
                        _ => self.fail(to, node, id, until),
                    }
                }
                Effect::Report(outcome) => watcher.reported(self.now, node, outcome),
            }
        }
        if let Some(asked) = owed {
            // It answers later or never. A late answer and this failure are both handed in; the first counts.
            self.push(asked.until, asked.from, What::Failed { to: node, id: asked.id });
        }
    }

    /// When a message that leaves now arrives; `None` if it is lost.
    fn flight(&mut self, from: u32, to: u32) -> Option<Micros> {
        if self.terms.loss > 0.0 && self.rng.chance(self.terms.loss) {
            return None;
        }
        let after = match self.terms.flat {
            Some(flat) => flat,
            None => latency(self.places.region(from), self.places.region(to), &mut self.rng),
        };
        Some(self.now + after)
    }

    fn fail(&mut self, asker: u32, asked: u32, id: RequestId, until: Micros) {
        self.counts.lost += 1;
        self.push(until, asker, What::Failed { to: asked, id });
    }

    /// An event finds its node dead.
    fn bounce(&mut self, node: u32, what: What<P>) {
        match what {
            What::Asked { from, id, until, .. } => self.fail(from, node, id, until),
            What::Told { .. } | What::Answered { .. } => self.counts.lost += 1,
            What::Wake => self.wakes[node as usize] = NEVER,
            What::Failed { .. }
            | What::Parted { .. }
            | What::Commanded(_)
            | What::Death { .. }
            | What::Birth => {}
        }
    }

    fn death(&mut self, node: u32, comes_back: bool) {
        if comes_back {
            // Churn has ended before this session did.
            let Some(churn) = self.churn else { return };
            let after = churn.absence.draw(&mut self.rng);
            self.push(self.now + after, node, What::Birth);
        }
        self.fell(node);
    }

    fn birth(&mut self, node: u32, watcher: &mut impl Watcher<P>) {
        let Some((machine, command)) = watcher.reborn(self.now, node, &self.places) else { return };
        self.counts.births += 1;
        if !std::mem::replace(&mut self.places.alive[node as usize], true) {
            self.places.living += 1;
        }
        self.nodes[node as usize] = machine;
        if let Some(churn) = self.churn {
            let session = churn.session.draw(&mut self.rng);
            self.push(self.now + session, node, What::Death { comes_back: true });
        }
        self.step(node, Input::Commanded(command), None, watcher);
    }

    fn note(&mut self, what: u64) {
        self.hash = (self.hash.rotate_left(5) ^ what ^ self.now.0 << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl<P: Protocol<Contact = u32>> What<P> {
    /// Who says what, if this is a message.
    const fn message(&self) -> Option<(u32, &P::Message)> {
        match self {
            What::Told { from, body }
            | What::Asked { from, body, .. }
            | What::Answered { from, body, .. } => Some((*from, body)),
            What::Failed { .. }
            | What::Parted { .. }
            | What::Commanded(_)
            | What::Wake
            | What::Death { .. }
            | What::Birth => None,
        }
    }

    /// What the trace hash keeps: the kind, and who else had a part.
    const fn witness(&self) -> (u64, u32) {
        match self {
            What::Told { from, .. } => (1, *from),
            What::Asked { from, .. } => (2, *from),
            What::Answered { from, .. } => (3, *from),
            What::Failed { to, .. } => (4, *to),
            What::Parted { peer } => (5, *peer),
            What::Commanded(_) => (6, 0),
            What::Wake => (7, 0),
            What::Death { .. } => (8, 0),
            What::Birth => (9, 0),
        }
    }
}

#[cfg(test)]
mod tests;
