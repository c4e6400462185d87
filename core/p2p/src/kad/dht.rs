//! The machine: one node's routing table, store and queries.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem;

use kernel::{Micros, Rng};
use smallvec::SmallVec;

use super::Config;
use super::lookup::{Lookup, Manner};
use super::message::{Message, Nodes, Target};
use super::query::{Goal, Phase, Purpose, Query, REGION_CONTACTS_MAX, Votes};
use super::record::{Record, Refusal, Validator};
use super::size::Size;
use super::store::{Store, TTL_MS_DEFAULT};
use super::table::{Near, Seen, Table};
use crate::{Contact, Effect, Input, Key, Keys, Pending, Protocol, RequestId};

/// Most queries that go on at once; a further one is refused.
pub const QUERIES_MAX: usize = 64;
/// Most values and keys that one node publishes itself.
pub const PUBLISHED_MAX: usize = 1024;
/// A bucket whose range had no lookup for this long is refreshed by one; each node draws its own time from half of this
/// up to it, or all that began together would refresh together, hour after hour.
pub const REFRESH_MS: u32 = 3600 * 1000;
/// What a node publishes it sends again this often: well within its life elsewhere.
pub const PUBLISH_MS: u64 = TTL_MS_DEFAULT / 2;
/// The owner's name for a command, told with its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What an owner can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<C> {
    /// Join by this contact: look ourselves up, then fill the buckets.
    Join(C),
    /// Find the nodes nearest to a place.
    FindNode(Token, Target),
    /// Find the value of a name.
    Get(Token, Vec<u8>),
    /// Store a value under a name, and keep it stored.
    Put(Token, Record),
    /// Be found as a provider of a name, and stay so.
    Provide(Token, Vec<u8>),
    /// Find the providers of a name.
    FindProviders(Token, Vec<u8>),
    /// Publish a name no more; others forget it when its life ends.
    Withdraw(Vec<u8>),
}

/// What a query has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Hops to the nearest node found, by the shortest chain of those that told of it: 1 for a contact of our own table.
    pub hops: u8,
    /// Hops to it by the chain of those that told of it first.
    pub first_hops: u8,
    /// Questions asked.
    pub asked: u16,
    /// Whether the region was gone through.
    pub swept: bool,
}

/// What an owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<C> {
    /// We have been looked up: our neighbours know us.
    Joined {
        /// How many answered.
        neighbours: usize,
    },
    /// The nodes nearest to the place that answered, nearest first.
    Found(Token, Vec<C>, Cost),
    /// The value, if one was found that is valid.
    Value(Token, Option<Record>, Cost),
    /// How many nodes keep the value, or have been told of the provider.
    Stored(Token, usize, Cost),
    /// The providers found.
    Providers(Token, Vec<C>, Cost),
    /// The command was not begun.
    Refused(Token, Refusal),
}

/// What a question is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    Query {
        id: u32,
        path: u8,
    },
    /// A sign of life from the oldest of a full bucket.
    Check,
    /// A value left on the path, of which nothing is awaited.
    Aside,
}

#[derive(Clone, Debug)]
pub(super) struct Published {
    /// `None`: we provide the key.
    pub record: Option<Record>,
    pub target: Target,
    pub again: Micros,
}

impl Published {
    /// Whether it is worth being sent again.
    pub(super) fn is_valid(&self, now: Micros, valid: &impl Validator) -> bool {
        let holds = |record: &Record| valid.check(now, &record.name, &record.value).is_ok();
        self.record.as_ref().is_none_or(holds)
    }
}

/// What a node asks of its host.
pub type Out<C> = Vec<Effect<C, Message<C>, Outcome<C>>>;

/// One node of the hash table.
///
/// The host calls it through [`Protocol`]; [`Dht::admit`] is for contacts it knows from before.
///
/// What every message needs comes first, on as few lines of memory as it takes: of a million nodes none is in a cache.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Dht<C, V> {
    pub(super) due: Option<Micros>,
    pub(super) table: Table<C>,
    pub(super) pending: Pending<C, Why>,
    /// Boxed, because one moves out and in again with each answer; most have one at most.
    pub(super) queries: SmallVec<[Box<Query<C>>; 1]>,
    pub(super) config: Config,
    pub(super) store: Store<C>,
    pub(super) me: C,
    /// After how long without a lookup a bucket is refreshed here.
    pub(super) refresh_ms: u32,
    pub(super) next_query: u32,
    /// The bucket to be filled next while joining, and one more; 0 when joined.
    pub(super) filling: u8,
    pub(super) rng: Rng,
    pub(super) own: Target,
    pub(super) published: BTreeMap<Key, Published>,
    pub(super) size: Size,
    pub(super) valid: V,
}

impl<C: Contact, V: Validator> Dht<C, V> {
    /// A node that knows nobody. `me` is its own handle, `own` its place, with its name where links carry names.
    #[must_use]
    pub fn new(me: C, own: Target, config: Config, valid: V, mut rng: Rng) -> Dht<C, V> {
        Dht {
            me,
            config,
            table: Table::new(own.key.point(), config.manner.k),
            own,
            store: Store::default(),
            valid,
            queries: SmallVec::new(),
            pending: Pending::new(&mut rng),
            refresh_ms: REFRESH_MS / 2 + rng.below(u64::from(REFRESH_MS / 2)) as u32,
            published: BTreeMap::new(),
            size: Size::default(),
            rng,
            next_query: 0,
            filling: 0,
            due: None,
        }
    }

    /// `contact` is known to live: it enters the routing table, or waits for a place.
    pub fn admit(&mut self, now: Micros, keys: &impl Keys<C>, contact: C) -> Seen<C> {
        if self.due.is_none() {
            self.due = Some(now.plus_millis(u64::from(self.refresh_ms)));
        }
        self.table.seen(now, keys, contact)
    }

    /// The routing table.
    #[must_use]
    pub const fn table(&self) -> &Table<C> {
        &self.table
    }

    /// What it keeps for others.
    #[must_use]
    pub const fn store(&self) -> &Store<C> {
        &self.store
    }

    /// How many queries go on.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// How many nodes there seem to be; `None` with too few neighbours to tell.
    #[must_use]
    pub fn network_size(&self, now: Micros, keys: &impl Keys<C>) -> Option<f64> {
        self.size.estimate(now, self.neighbourhood_size(keys))
    }

    pub(super) fn begin(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        purpose: Purpose,
        goal: Goal<C>,
        target: Target,
        out: &mut Out<C>,
    ) {
        let point = target.key.point();
        let lookup = self.lookup(now, keys, point, self.config.manner);
        let id = self.next_query;
        self.next_query = self.next_query.wrapping_add(1);
        self.drive(now, keys, Box::new(Query::new(id, purpose, goal, target, lookup)), out);
    }

    pub(super) fn lookup(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        point: u64,
        manner: Manner,
    ) -> Lookup<C> {
        self.table.touch(now, point);
        let mut near = Near::new();
        self.table.closest(keys, point, self.config.k(), None, &mut near);
        Lookup::new(self.me, point, manner, &near)
    }

    /// Asks whom it may ask; at the end of a phase goes on to the next, or ends the query.
    fn drive(&mut self, now: Micros, keys: &impl Keys<C>, mut query: Box<Query<C>>, out: &mut Out<C>) {
        loop {
            if query.is_satisfied(usize::from(self.config.quorum)) {
                return self.finish(now, keys, *query, out);
            }
            if let Phase::Reach { .. } = query.phase {
                if self.reach(&mut query, out) {
                    return self.finish(now, keys, *query, out);
                }
                return self.queries.push(query);
            }
            let lookup = query.current().expect("a phase that is not reaching looks up");
            if let Some((path, to)) = lookup.ask() {
                let why = Why::Query { id: query.id, path };
                match self.pending.issue(to, why) {
                    Some(id) => out.push(Effect::Ask { to, id, body: query.question() }),
                    None => query.current().into_iter().for_each(|lookup| lookup.failed(keys, path, to)),
                }
            } else if !lookup.is_done() {
                return self.queries.push(query);
            } else if !self.advance(now, keys, &mut query) {
                return self.finish(now, keys, *query, out);
            }
        }
    }

    /// The lookup has ended: what comes next? False if nothing does.
    fn advance(&mut self, now: Micros, keys: &impl Keys<C>, query: &mut Query<C>) -> bool {
        let k = self.config.k();
        match mem::replace(&mut query.phase, Phase::Search) {
            Phase::Search => {
                let nearest = query.lookup.nearest(k);
                query.note_cost();
                query.region = nearest;
                if matches!(query.purpose, Purpose::Refresh) {
                    self.size.sample(now, query.region.iter().map(|(distance, _)| *distance));
                }
                if self.is_crowded(now, keys, query) {
                    query.cost.swept = true;
                    return self.sweep(now, keys, query);
                }
                self.concern(query)
            }
            Phase::Measure { lookup, .. } => {
                query.cost.asked = query.cost.asked.saturating_add(lookup.asked());
                self.size.sample(now, lookup.nearest(k).into_iter().map(|(distance, _)| distance));
                self.sweep(now, keys, query)
            }
            Phase::Sweep { mut rest, lookup, .. } => {
                query.cost.asked = query.cost.asked.saturating_add(lookup.asked());
                let target = query.target.key.point();
                for (_, contact) in lookup.nearest(REGION_CONTACTS_MAX) {
                    query.region.push((keys.point(contact) ^ target, contact));
                }
                if let Some(probe) = rest.pop() {
                    let lookup = self.careful(now, keys, &probe);
                    query.phase = Phase::Sweep { rest, lookup, probe };
                    return true;
                }
                query.region.sort_unstable();
                query.region.dedup();
                self.concern(query)
            }
            Phase::Reach { .. } => false,
        }
    }

    /// The query has ended: its owner is told, and what follows from it begins.
    fn finish(&mut self, now: Micros, keys: &impl Keys<C>, mut query: Query<C>, out: &mut Out<C>) {
        self.forget_questions(query.id);
        if let (Phase::Search, true) = (&query.phase, query.cost.asked == 0) {
            query.note_cost();
        }
        match query.purpose {
            Purpose::Join => {
                // Our own lookup went through all of our neighbourhood.
                let end = self.neighbourhood(keys).unwrap_or(usize::MAX);
                self.filling = self.table.depth().min(end).min(usize::from(u8::MAX)) as u8;
                out.push(Effect::Report(Outcome::Joined { neighbours: query.region.len() }));
                self.fill(now, keys, out);
            }
            Purpose::Refresh if self.filling > 0 => self.fill(now, keys, out),
            Purpose::Refresh | Purpose::Around | Purpose::Republish => {}
            Purpose::Owner(token) => self.report(now, token, query, out),
        }
        self.schedule(now);
    }

    /// Only several paths or an early end leave questions behind.
    fn forget_questions(&mut self, query: u32) {
        if !self.pending.is_empty() {
            self.pending.retain(|_, why| !matches!(why, Why::Query { id, .. } if *id == query));
        }
    }

    fn report(&mut self, now: Micros, token: Token, query: Query<C>, out: &mut Out<C>) {
        let cost = query.cost;
        let kept = if let Phase::Reach { kept, .. } = query.phase { kept } else { 0 };
        // What nobody took has failed for its owner: nobody expects it to be sent again.
        let publishes = kept > 0 && !query.withdrawn;
        let outcome = match query.goal {
            Goal::Node => {
                let found = query.region.iter().map(|(_, contact)| *contact).collect();
                Outcome::Found(token, found, cost)
            }
            Goal::Value(votes) => {
                self.leave_on_path(now, &query.lookup, &votes, out);
                Outcome::Value(token, votes.best, cost)
            }
            Goal::Put(record) => {
                if publishes {
                    self.publish(now, Some(record), query.target);
                }
                Outcome::Stored(token, kept, cost)
            }
            Goal::Provide => {
                if publishes {
                    self.publish(now, None, query.target);
                }
                Outcome::Stored(token, kept, cost)
            }
            Goal::Providers(found) => Outcome::Providers(token, found.into_iter().collect(), cost),
        };
        out.push(Effect::Report(outcome));
    }

    /// Keeps something stored from now on; its place was there when the query began. Of two versions that were on their
    /// way together the older one may arrive last: it takes nothing's place.
    fn publish(&mut self, now: Micros, record: Option<Record>, target: Target) {
        let held = self.published.get(&target.key).and_then(|published| published.record.as_ref());
        if let (Some(held), Some(new)) = (held, &record)
            && self.valid.order(&new.name, &held.value, &new.value).is_gt()
        {
            return;
        }
        self.published.insert(target.key, Published { record, target, again: now.plus_millis(PUBLISH_MS) });
    }

    /// Whether `key` may be published: beside what is, and what is being stored for the first time.
    ///
    /// When all places are taken, what has expired gives its own back: that checks every record, and happens then only.
    fn has_place(&mut self, now: Micros, key: Key) -> bool {
        if self.published.contains_key(&key) {
            return true;
        }
        let stores = |goal: &Goal<C>| matches!(goal, Goal::Put(_) | Goal::Provide);
        let owners = self.queries.iter().filter(|query| matches!(query.purpose, Purpose::Owner(_)));
        let new =
            owners.filter(|query| stores(&query.goal) && !self.published.contains_key(&query.target.key));
        let most = PUBLISHED_MAX - new.count();
        if self.published.len() >= most {
            let Dht { published, valid, .. } = self;
            published.retain(|_, published| published.is_valid(now, valid));
        }
        self.published.len() < most
    }

    fn command(&mut self, now: Micros, keys: &impl Keys<C>, command: Command<C>, out: &mut Out<C>) {
        match self.goal(now, keys, command) {
            Ok((purpose, goal, target)) => self.begin(now, keys, purpose, goal, target, out),
            Err(None) => {}
            Err(Some((token, why))) => out.push(Effect::Report(Outcome::Refused(token, why))),
        }
    }

    /// What a command asks for; or why it is refused; or neither, when it is done at once.
    fn goal(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        command: Command<C>,
    ) -> Result<(Purpose, Goal<C>, Target), Option<(Token, Refusal)>> {
        let (token, goal, target) = match command {
            Command::Join(contact) => {
                self.admit(now, keys, contact);
                return Ok((Purpose::Join, Goal::Node, self.own.clone()));
            }
            Command::Withdraw(name) => {
                let key = Key::of(&name);
                self.published.remove(&key);
                let same = self.queries.iter_mut().filter(|query| query.target.key == key);
                same.for_each(|query| query.withdrawn = true);
                return Err(None);
            }
            Command::FindNode(token, target) => (token, Goal::Node, target),
            Command::Get(token, name) => {
                let target = Target::named(&name);
                let mut votes = Votes::new();
                if let Some(record) = self.store.get(now, &target.key) {
                    votes.hear(now, target.key, None, record, &self.valid);
                }
                (token, Goal::Value(votes), target)
            }
            Command::Put(token, record) => {
                let target = Target { key: record.key(), name: Some(record.name.clone()) };
                record.fits().map_err(|why| Some((token, why)))?;
                let valid = self.valid.check(now, &record.name, &record.value);
                valid.map_err(|why| Some((token, why)))?;
                (token, Goal::Put(record), target)
            }
            Command::Provide(token, name) => (token, Goal::Provide, Target::named(&name)),
            Command::FindProviders(token, name) => {
                let target = Target::named(&name);
                let own = self.store.providers(now, &target.key).collect::<BTreeSet<C>>();
                (token, Goal::Providers(own), target)
            }
        };
        let publishes = matches!(goal, Goal::Put(_) | Goal::Provide);
        if self.queries.len() >= QUERIES_MAX || publishes && !self.has_place(now, target.key) {
            return Err(Some((token, Refusal::Full)));
        }
        Ok((Purpose::Owner(token), goal, target))
    }

    fn answered(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        id: RequestId,
        body: Message<C>,
        out: &mut Out<C>,
    ) {
        let Some(why) = self.pending.settle(from, id) else {
            return;
        };
        self.meet(now, keys, from, out);
        let Why::Query { id, path } = why else { return };
        let Some(at) = self.queries.iter().position(|query| query.id == id) else {
            return;
        };
        let mut query = self.queries.swap_remove(at);
        let (target, k) = (query.target.key, self.config.k());
        let closer = match body {
            Message::Nodes(closer) => closer,
            Message::Value { record, closer } => {
                if let (Goal::Value(votes), Some(record)) = (&mut query.goal, record) {
                    votes.hear(now, target, Some(from), *record, &self.valid);
                }
                closer
            }
            Message::Providers { providers, closer } => {
                if let Goal::Providers(found) = &mut query.goal {
                    let room = super::PROVIDERS_MAX.saturating_sub(found.len());
                    found.extend(providers.into_iter().take(room));
                }
                Nodes::from_vec(closer)
            }
            Message::Stored(result) => {
                if let Phase::Reach { kept, refused, .. } = &mut query.phase {
                    *(if result.is_ok() { kept } else { refused }) += 1;
                }
                Default::default()
            }
            Message::FindNode(_)
            | Message::GetValue(_)
            | Message::Put(_)
            | Message::GetProviders(_)
            | Message::AddProvider(_) => Default::default(),
        };
        if let Phase::Reach { flight, .. } = &mut query.phase {
            *flight -= 1;
        } else if let Some(lookup) = query.current() {
            lookup.answered(keys, path, from, &closer[..closer.len().min(k)]);
        }
        self.drive(now, keys, query, out);
    }

    fn failed(&mut self, now: Micros, keys: &impl Keys<C>, to: C, id: RequestId, out: &mut Out<C>) {
        let Some(why) = self.pending.settle(to, id) else {
            return;
        };
        self.table.failed(keys, to);
        let Why::Query { id, path } = why else { return };
        let Some(at) = self.queries.iter().position(|query| query.id == id) else {
            return;
        };
        let mut query = self.queries.swap_remove(at);
        if let Phase::Reach { flight, refused, .. } = &mut query.phase {
            *flight -= 1;
            *refused += 1;
        } else if let Some(lookup) = query.current() {
            lookup.failed(keys, path, to);
        }
        self.drive(now, keys, query, out);
    }

    /// A peer showed life. If it waits for a place, the oldest of its bucket is asked whether it still lives.
    /// One that does not serve is not met.
    pub fn meet(&mut self, now: Micros, keys: &impl Keys<C>, peer: C, out: &mut Out<C>) {
        if !keys.serves(peer) {
            return;
        }
        if let Seen::Waits { check: Some(oldest) } = self.admit(now, keys, peer)
            && let Some(id) = self.pending.issue(oldest, Why::Check)
        {
            // Not PING, which libp2p's nodes do not answer.
            let target = self.own.clone();
            out.push(Effect::Ask { to: oldest, id, body: Message::FindNode(target) });
        }
    }
}

impl<C: Contact, V: Validator> Protocol for Dht<C, V> {
    type Contact = C;
    type Message = Message<C>;
    type Command = Command<C>;
    type Outcome = Outcome<C>;

    fn step(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        input: Input<C, Message<C>, Command<C>>,
        out: &mut Out<C>,
    ) {
        match input {
            Input::Told { from, body } => self.told(now, keys, from, body, out),
            Input::Asked { from, id, body } => self.asked(now, keys, from, id, body, out),
            Input::Answered { from, id, body } => self.answered(now, keys, from, id, body, out),
            Input::Failed { to, id } => self.failed(now, keys, to, id, out),
            // Connections come and go; who is gone will fail to answer.
            Input::Parted { .. } => {}
            Input::Commanded(command) => self.command(now, keys, command, out),
        }
        if let Some(sweep) = self.store.due() {
            self.due = Some(self.due.map_or(sweep, |due| due.min(sweep)));
        }
    }

    fn deadline(&self) -> Option<Micros> {
        self.due
    }

    fn wake(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Out<C>) {
        if self.due.is_some_and(|due| due <= now) {
            self.keep_up(now, keys, out);
        }
    }

    const WARM_STAGES: u8 = 3;

    fn warm(&self, keys: &impl Keys<C>, from: C, message: &Message<C>, stage: u8) -> u64 {
        let Some(stage) = stage.checked_sub(1) else {
            // The parts of the machine itself that every message needs; each is on a line of its own.
            let due = self.due.map_or(0, |due| due.0) ^ self.store.due().map_or(0, |due| due.0);
            return due
                ^ (self.pending.len() + self.queries.len() + self.table.depth()) as u64
                ^ keys.point(from);
        };
        let met = self.table.warm(keys.point(from), false, stage) as u64;
        met ^ match message {
            Message::FindNode(target) | Message::GetValue(target) | Message::GetProviders(target) => {
                self.table.warm(target.key.point(), true, stage) as u64
            }
            Message::Nodes(closer) | Message::Value { closer, .. } => {
                let query = self.queries.first();
                match stage {
                    0 => query.map_or(0, |query| query.warm()),
                    _ => {
                        let known = query.map_or(0, |query| query.lookup.warm());
                        closer.iter().fold(known, |read, contact| read ^ keys.point(*contact))
                    }
                }
            }
            Message::Put(_) | Message::AddProvider(_) | Message::Stored(_) | Message::Providers { .. } => 0,
        }
    }
}
