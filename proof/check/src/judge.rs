//! The judge of one node: what clients were told, against the model of each group.
//!
//! A group's model stands exactly where the node's partition stands. A write's reply must be the one that
//! the model gave when it applied that command, after the client sent it; a read's must be one that the
//! model would give at some place between the sending and the answer. That is linearizability, with the
//! log as witness of the order.

mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kernel::codec::Reader;
use kernel::{GroupId, Index, Lsn, Micros};

use crate::join::{Join, Part};
use crate::ledger::{Crash, Found, Ledger, Written};
use crate::model::Model;
use crate::reply::{first, shown};
use crate::{Violation, violated};
use told::Told;

/// A client, for as long as it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// A command that a client sent, and what it may be told.
#[derive(Clone, Debug)]
pub enum Call {
    /// The connection itself answers, with exactly this.
    Local(&'static [u8]),
    /// A write, as it will stand in the group's entry.
    Write {
        /// The group.
        group: GroupId,
        /// Its encoding.
        encoded: Vec<u8>,
        /// No other command has the same encoding.
        unique: bool,
        /// Milliseconds after which it may be told that it waited in vain, 0 for never; if it may wait.
        timeout_ms: Option<u64>,
    },
    /// A read, encoded in the same way.
    Read {
        /// The group.
        group: GroupId,
        /// Its encoding.
        encoded: Vec<u8>,
    },
    /// A command on several partitions: each part is a write or a read of its own.
    Parts {
        /// The parts, in the order of their partitions.
        parts: Vec<Part>,
        /// They are writes.
        writes: bool,
        /// What their answers make.
        join: Join,
    },
    /// `WATCH`.
    Watch {
        /// The group.
        group: GroupId,
        /// The keys.
        keys: Vec<Vec<u8>>,
    },
    /// A command that is written to all groups, and answered when all have it.
    Everywhere {
        /// How it stands in the entry of each.
        encoded: Vec<u8>,
    },
    /// `MOVE`, or `COPY` to another keyspace.
    Transfer(Transfer),
    /// `EXEC` of a transaction with writes, which has a unique encoding.
    Exec {
        /// The group.
        group: GroupId,
        /// Its encoding.
        encoded: Vec<u8>,
    },
}

/// A key that goes to another group.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Where it is.
    pub from: GroupId,
    /// Where it goes.
    pub to: GroupId,
    /// Its name, and its name there.
    pub keys: [Vec<u8>; 2],
    /// A key of that name there is replaced.
    pub replace: bool,
    /// It is removed where it was.
    pub remove: bool,
}

/// How a group came back.
#[derive(Clone, Copy, Debug)]
pub struct Recovered<'a> {
    /// The index of its checkpoint, 0 without.
    pub engine: Index,
    /// The log's entries.
    pub found: &'a [Found],
    /// The log's end.
    pub end: Lsn,
    /// Where its state stands.
    pub applied: Index,
    /// The state as one number.
    pub digest: u64,
}

struct Pending {
    call: Call,
    text: String,
    sent: Micros,
    /// Each group's position when it was sent.
    from: BTreeMap<GroupId, u64>,
    /// What is to be read, and what that may answer: one for a read, one for each part of a divided one, three
    /// for a transfer.
    looks: Vec<Look>,
    /// When the log last refused something while it was on its way: the tick that it waits for may be among
    /// that, and then it sees the expiries of this clock unlogged.
    unlogged: Option<Micros>,
    /// How it may be told that a value could not be read back while it was on its way.
    unreadable: Vec<String>,
}

impl Pending {
    /// Whether `reply` tells of a value that cannot be read, and there was one.
    fn allows(&self, reply: &[u8]) -> bool {
        self.unreadable.iter().any(|text| reply.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

/// A read, and everything that it might have answered since it was sent.
struct Look {
    group: GroupId,
    encoded: Vec<u8>,
    allowed: Vec<Vec<u8>>,
}

impl Look {
    fn may_be(&self, reply: &[u8]) -> bool {
        self.allowed.iter().any(|allowed| allowed == reply)
    }
}

#[derive(Default)]
struct Client {
    pending: VecDeque<Pending>,
    input: Vec<u8>,
    /// Group, key, and the position when the watch was confirmed.
    watched: Vec<(GroupId, Vec<u8>, u64)>,
    /// The position of its last uniquely known write in each group.
    last: BTreeMap<GroupId, u64>,
}

struct Group {
    model: Model,
    ledger: Ledger,
    always: bool,
    /// Commands applied so far.
    position: u64,
    /// Replies that the model gave and nobody has been told, by encoding.
    untold: BTreeMap<Vec<u8>, Vec<(u64, Vec<u8>)>>,
    /// How often the log refused a command, by encoding.
    refused: BTreeMap<Vec<u8>, u64>,
    /// Commands whose clients were told that they are nowhere.
    denied: BTreeSet<Vec<u8>>,
    /// Where each key changed.
    touches: BTreeMap<Vec<u8>, Vec<u64>>,
    /// The position at which each entry began: what its time made expire went there.
    begins: Vec<u64>,
}

/// The judge of one node's life, and of those after it.
pub struct Judge {
    groups: BTreeMap<GroupId, Group>,
    clients: BTreeMap<ClientId, Client>,
    /// Replies that were checked.
    pub replies: u64,
}

const REPLY: &str = "a reply is what the log says";

impl Judge {
    /// A judge of groups whose data has `seed`; `true` for those that promise `always`.
    #[must_use]
    pub fn new(groups: &[(GroupId, bool)], seed: u64) -> Judge {
        let group = |&(id, always): &(GroupId, bool)| {
            let group = Group {
                model: Model::new(seed),
                ledger: Ledger::default(),
                always,
                position: 0,
                untold: BTreeMap::new(),
                refused: BTreeMap::new(),
                denied: BTreeSet::new(),
                touches: BTreeMap::new(),
                begins: Vec::new(),
            };
            (id, group)
        };
        Judge { groups: groups.iter().map(group).collect(), clients: BTreeMap::new(), replies: 0 }
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("the judge was told of every group")
    }

    /// What was written to a group.
    #[must_use]
    pub fn ledger(&self, group: GroupId) -> &Ledger {
        &self.groups[&group].ledger
    }

    /// A client connected.
    pub fn connected(&mut self, id: ClientId) {
        self.clients.insert(id, Client::default());
    }

    /// A client is gone: what it sent may happen or not, and nobody is told.
    pub fn disconnected(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    /// A client sent `call` at the node's time `now`; `text` is for people.
    pub fn sent(&mut self, now: Micros, id: ClientId, call: Call, text: String) {
        let from = self.groups.iter().map(|(&id, group)| (id, group.position)).collect();
        let look = |group, encoded| Look { group, encoded, allowed: Vec::new() };
        let mut looks = match &call {
            Call::Read { group, encoded } => vec![look(*group, encoded.clone())],
            Call::Parts { parts, writes: false, .. } => {
                parts.iter().map(|part| look(part.group, part.encoded.clone())).collect()
            }
            Call::Transfer(transfer) => {
                let registry = self.groups[&transfer.from].model.registry();
                transfer.looks(registry).map(|(group, encoded)| look(group, encoded)).into()
            }
            Call::Write { .. } | Call::Exec { .. } | Call::Watch { .. } | Call::Everywhere { .. } => vec![],
            Call::Parts { .. } | Call::Local(_) => vec![],
        };
        for Look { group, encoded, allowed } in &mut looks {
            allow(&mut self.group(*group).model, now, encoded, allowed);
        }
        let client = self.clients.get_mut(&id).expect("a client connects before it sends");
        let unreadable = Vec::new();
        client.pending.push_back(Pending { call, text, sent: now, from, looks, unlogged: None, unreadable });
    }

    /// The log took an entry of `group`.
    ///
    /// # Errors
    /// It does not follow the one before.
    pub fn written(&mut self, group: GroupId, entry: Written) -> Result<(), Violation> {
        self.group(group).ledger.push(entry)
    }

    /// The log refused an entry with these commands.
    pub fn refused(&mut self, now: Micros, group: GroupId, body: &[u8]) {
        let group_state = self.groups.get_mut(&group).expect("the judge was told of every group");
        let mut reader = Reader::new(body);
        let mut args = storage::entry::Args::new();
        while !reader.is_empty() {
            let before = reader.rest();
            if storage::entry::next_command(&mut reader, &mut args).is_err() {
                break;
            }
            let encoded = before[..before.len() - reader.rest().len()].to_vec();
            *group_state.refused.entry(encoded).or_default() += 1;
        }
        for pending in self.clients.values_mut().flat_map(|client| &mut client.pending) {
            if pending.looks.iter().any(|look| look.group == group) {
                pending.unlogged = Some(now);
            }
        }
        reread(self.groups.get_mut(&group).expect("it was just found"), &mut self.clients, group);
    }

    /// The log failed for good: what it had not synced may be refused after all.
    pub fn log_failed(&mut self, now: Micros) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            let group = &self.groups[&id];
            let from = group.model.applied().0 as usize;
            let bodies: Vec<Vec<u8>> =
                group.ledger.entries()[from..].iter().map(|entry| entry.body.clone()).collect();
            bodies.iter().for_each(|body| self.refused(now, id, body));
        }
    }

    /// The node's partition has applied up to `index`: the model follows.
    ///
    /// # Errors
    /// It applied what was never written.
    pub fn applied(&mut self, id: GroupId, index: Index) -> Result<(), Violation> {
        let Judge { groups, clients, .. } = self;
        let group = groups.get_mut(&id).expect("the judge was told of every group");
        while group.model.applied() < index {
            let next = group.model.applied().next();
            let Some(entry) = group.ledger.get(next) else {
                return violated("only written entries are applied", format!("{id}: {next} was applied"));
            };
            let (time, body) = (entry.time, entry.body.clone());
            let gone = group.model.begin(next, time);
            group.position += 1;
            group.begins.push(group.position);
            group.touch(gone);
            reread(group, clients, id);
            let (mut reader, mut place) = (Reader::new(&body), 0);
            while let Some(ran) = group.model.run(next, place, &mut reader) {
                group.position += 1;
                place += 1;
                group.touch(ran.touched);
                if group.denied.contains(&ran.encoded) {
                    let what = format!("{id}: entry {next} holds {}", shown(&ran.encoded));
                    return violated("what a full disk refused is nowhere", what);
                }
                if let Some(reply) = ran.reply {
                    forget_before(clients, id, &ran.encoded);
                    group.untold.entry(ran.encoded).or_default().push((group.position, reply));
                }
                reread(group, clients, id);
            }
            if !reader.is_empty() {
                return violated("entries can be read", format!("{id}: entry {next}"));
            }
            group.model.end();
        }
        Ok(())
    }

    /// The model's digest of a group, and the index it is of.
    #[must_use]
    pub fn digest(&self, group: GroupId) -> (Index, u64) {
        let model = &self.groups[&group].model;
        (model.applied(), model.digest())
    }

    /// A client received `bytes` at the node's time `now`. The model has followed before.
    ///
    /// # Errors
    /// A reply that the promises exclude.
    pub fn received(&mut self, now: Micros, id: ClientId, bytes: &[u8]) -> Result<(), Violation> {
        let Judge { groups, clients, replies } = self;
        let Some(client) = clients.get_mut(&id) else { return Ok(()) };
        client.input.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &client.input[at..];
            let length = match first(rest) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(what) => return violated("replies are RESP", format!("{what}: {}", shown(rest))),
            };
            let reply = rest[..length].to_vec();
            at += length;
            *replies += 1;
            let Some(pending) = client.pending.pop_front() else {
                return violated("one reply per command", format!("nobody asked for {}", shown(&reply)));
            };
            let client = Told { now, watched: &mut client.watched, last: &mut client.last };
            client.judge(groups, &pending, &reply).map_err(|violation| Violation {
                what: format!("client {} sent {}: {}", id.0, pending.text, violation.what),
                ..violation
            })?;
        }
        client.input.drain(..at);
        Ok(())
    }

    /// Commands that a client sent and was not answered yet.
    #[must_use]
    pub fn pending(&self, id: ClientId) -> usize {
        self.clients.get(&id).map_or(0, |client| client.pending.len())
    }

    /// The clients that wait for an answer, with what they sent first.
    #[must_use]
    pub fn waiting(&self) -> Vec<(ClientId, String)> {
        let first = |(&id, client): (&ClientId, &Client)| {
            client.pending.front().map(|pending| (id, pending.text.clone()))
        };
        self.clients.iter().filter_map(first).collect()
    }

    /// A client that waits in a blocking command although one of its lists has an element. Only meaningful
    /// when nothing is on its way.
    pub fn starving(&mut self) -> Option<(ClientId, String)> {
        let Judge { groups, clients, .. } = self;
        for (&id, client) in clients.iter() {
            let Some(Pending { call: Call::Write { group, encoded, timeout_ms: Some(_), .. }, text, .. }) =
                client.pending.front()
            else {
                continue;
            };
            let group = groups.get_mut(group).expect("the judge was told of every group");
            if group.model.would_serve(encoded) {
                return Some((id, text.clone()));
            }
        }
        None
    }

    /// The value of `key` could not be read back: whoever waits for an answer may be told so.
    pub fn unreadable(&mut self, key: &[u8]) {
        let text = format!("-MISCONF the value of '{}' cannot be read back", String::from_utf8_lossy(key));
        for pending in self.clients.values_mut().flat_map(|client| &mut client.pending) {
            if !pending.unreadable.contains(&text) {
                pending.unreadable.push(text.clone());
            }
        }
    }

    /// The node crashed: all clients are gone.
    pub fn crashed(&mut self) {
        self.clients.clear();
    }

    /// A group came back after `crash`.
    ///
    /// # Errors
    /// Something promised is lost, something came back, or the state is not what the entries make.
    pub fn recovered(&mut self, id: GroupId, crash: &Crash, from: &Recovered<'_>) -> Result<(), Violation> {
        let &Recovered { engine, found, end, applied, digest } = from;
        let group = self.group(id);
        let must = group.ledger.must_survive(crash, group.model.applied(), group.always);
        let name =
            |violation: Violation| Violation { what: format!("group {id}: {}", violation.what), ..violation };
        group.ledger.recovered(engine, found, end, must).map_err(name)?;
        if applied != group.ledger.last() {
            let what = format!("group {id} stands at {applied}, the log at {}", group.ledger.last());
            return violated("recovery applies the whole log", what);
        }
        group.model.reset();
        group.position = 0;
        group.untold.clear();
        group.touches.clear();
        group.begins.clear();
        self.applied(id, applied)?;
        let expected = self.groups[&id].model.digest();
        if digest != expected {
            let what = format!("group {id} at {applied}: digest {digest:016x}, replayed {expected:016x}");
            return violated("the same entries give the same state", what);
        }
        Ok(())
    }
}

impl Group {
    fn touch(&mut self, keys: Vec<Vec<u8>>) {
        for key in keys {
            self.touches.entry(key).or_default().push(self.position);
        }
    }

    /// Whether `key` changed behind `from` and before `to`. What expired with the entry of `to` itself did
    /// so after EXEC was taken in.
    fn changed(&self, key: &[u8], from: u64, to: u64) -> bool {
        let begin = self.begins.iter().rfind(|&&begin| begin <= to).copied();
        let between = |&at: &u64| from < at && at < to && Some(at) != begin;
        self.touches.get(key).is_some_and(|at| at.iter().any(between))
    }

    /// Takes the reply that the model gave to `encoded` behind `from`, if it is `reply`.
    fn tell(&mut self, encoded: &[u8], reply: &[u8], from: u64) -> Option<u64> {
        let replies = self.untold.get_mut(encoded)?;
        let at = replies.iter().position(|(position, given)| *position > from && given == reply)?;
        let (position, _) = replies.remove(at);
        if replies.is_empty() {
            self.untold.remove(encoded);
        }
        Some(position)
    }

    /// What the model answered to `encoded` behind `from` and nobody was told.
    fn given(&self, encoded: &[u8], from: u64) -> Vec<Vec<u8>> {
        let untold = self.untold.get(encoded).into_iter().flatten();
        untold.filter(|(position, _)| *position > from).map(|(_, reply)| reply.clone()).collect()
    }

    fn explain(&self, encoded: &[u8]) -> String {
        match self.untold.get(encoded) {
            None => "the command was not applied".into(),
            Some(replies) => {
                let all: Vec<String> =
                    replies.iter().map(|(at, reply)| format!("{} at {at}", shown(reply))).collect();
                format!("the log gives {}", all.join(" or "))
            }
        }
    }
}

/// A command was applied: what its client reads behind it must not be older.
fn forget_before(clients: &mut BTreeMap<ClientId, Client>, id: GroupId, applied: &[u8]) {
    for client in clients.values_mut() {
        let own = client.pending.iter().position(|pending| match &pending.call {
            Call::Write { group, encoded, unique, .. } => *unique && *group == id && encoded == applied,
            Call::Exec { group, encoded } => *group == id && encoded == applied,
            Call::Parts { parts, writes: true, .. } => {
                parts.iter().any(|part| part.unique && part.group == id && part.encoded == applied)
            }
            _ => false,
        });
        let behind = own.map_or(usize::MAX, |at| at + 1);
        for pending in client.pending.iter_mut().skip(behind) {
            pending.looks.iter_mut().filter(|look| look.group == id).for_each(|look| look.allowed.clear());
        }
    }
}

/// Lets every read of the group that is on its way see the model as it stands now.
fn reread(group: &mut Group, clients: &mut BTreeMap<ClientId, Client>, id: GroupId) {
    for pending in clients.values_mut().flat_map(|client| &mut client.pending) {
        for Look { encoded, allowed, .. } in pending.looks.iter_mut().filter(|look| look.group == id) {
            allow(&mut group.model, pending.sent, encoded, allowed);
            if let Some(clock) = pending.unlogged {
                let (reply, _) = group.model.read(clock, encoded);
                if !allowed.contains(&reply) {
                    allowed.push(reply);
                }
            }
        }
    }
}

/// A read may answer what the model does, unless that rests on an expiry that no entry has logged.
fn allow(model: &mut Model, now: Micros, encoded: &[u8], allowed: &mut Vec<Vec<u8>>) {
    let (reply, unlogged) = model.read(now, encoded);
    if !unlogged && !allowed.contains(&reply) {
        allowed.push(reply);
    }
}
