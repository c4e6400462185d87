//! Which services there are: each node writes what is registered with it, all nodes hear of it, and every read is local.
//!
//! Records belong to who wrote them (node, incarnation, sequence; `owner`), so there is nothing to merge. News go to
//! all members at once, and each second one of them, drawn by chance, is told how much is known here (anti-entropy), so that
//! what was lost on the way is made good, also through third nodes. A node that membership declares dead has its instances critical at once, and it
//! is believed again when membership does. Reads see a [`View`]; whoever waits for a change is woken with it.
//!
//! An index is local, by arrival: one above the last, and not below the clock, so that it does not fall when the node is
//! started again. What two nodes say of the same change has different indexes.
//!
//! Deliberately not here: how checks are made ([`crate::health`]), and settings or locks that need an agreement.

mod frame;
mod owner;
pub mod record;
#[cfg(test)]
mod tests;
pub mod view;
pub mod waiters;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::codec::{DecodeError, Reader};
use kernel::planted::{Bug, is};
use kernel::{Micros, NodeId, Rng};
use thiserror::Error;

use self::frame::{Body, Delta, Known, Said};
use self::owner::{Changed, Owner, Taken};
pub use self::record::{Check, Health, Instance, Node, RecordError, Weights};
pub use self::view::{Entry, Host, Service, Topic, View};
use self::waiters::Waiters;
pub use self::waiters::{WAITERS_MAX, WaiterId};

/// Instances of one node, at most.
pub const INSTANCES_MAX: usize = 16_384;
/// How long it is remembered that an instance was removed, in milliseconds. Who was away for longer gets a whole copy.
pub const TOMBSTONE_MS: u64 = 600_000;
/// How often a member is told what is known here, in milliseconds.
pub const DIGEST_MS: u64 = 1_000;
/// How often removals are looked through, in milliseconds.
const EXPIRE_MS: u64 = 10_000;

/// Why nothing was registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// What is registered is not within its bounds.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The node has its share.
    #[error("this node has {INSTANCES_MAX} instances already")]
    Full,
    /// There is no such instance at this node.
    #[error("there is no instance {id:?} at this node")]
    Unknown {
        /// Which.
        id: String,
    },
}

/// What a program does with services, in a node or through one.
pub trait ServiceRegistry {
    /// Makes `instance` one that others find, or replaces it.
    ///
    /// # Errors
    /// [`RegisterError`]
    fn register(&self, instance: Instance) -> Result<(), RegisterError>;

    /// The instances of `service` that may get requests, as they are known here now.
    fn discover(&self, service: &str) -> Vec<Arc<Entry>>;

    /// Takes an instance of this node back.
    ///
    /// # Errors
    /// [`RegisterError::Unknown`]
    fn deregister(&self, id: &str) -> Result<(), RegisterError>;

    /// Waits at most `wait` until `service` has changed after the index `after`; what it is then, and under which index.
    fn watch(&self, service: &str, after: u64, wait: Duration) -> (u64, Option<Arc<Service>>);
}

/// A frame for another registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Who gets it.
    pub to: NodeId,
    /// What [`Registry::receive`] takes there.
    pub bytes: Vec<u8>,
}

/// See the module's text. A copy of it is what it was, to go back to: O(all that is registered).
#[derive(Clone, Debug)]
pub struct Registry {
    me: NodeId,
    rng: Rng,
    owners: BTreeMap<NodeId, Owner>,
    /// The other members.
    members: BTreeSet<NodeId>,
    down: BTreeSet<NodeId>,
    view: View,
    waiters: Waiters,
    /// All members were told of own records up to this sequence.
    pushed: u64,
    digest_at: Micros,
    expire_at: Micros,
    outbox: Vec<Outgoing>,
}

impl Registry {
    /// The registry of `me` in this life, which is above every earlier one's. `index` is at least what was given out before.
    ///
    /// # Errors
    /// [`RecordError`] of `node`.
    pub fn new(
        now: Micros,
        me: NodeId,
        incarnation: u64,
        index: u64,
        node: Node,
        rng: Rng,
    ) -> Result<Registry, RecordError> {
        node.valid()?;
        let index = index.max(now.0);
        let mut registry = Registry {
            me,
            rng,
            owners: BTreeMap::from([(me, Owner::new(incarnation))]),
            members: BTreeSet::new(),
            down: BTreeSet::new(),
            view: View { index, catalog: index, gone: index, ..View::default() },
            waiters: Waiters::default(),
            pushed: 0,
            digest_at: now.plus_millis(DIGEST_MS),
            expire_at: now.plus_millis(EXPIRE_MS),
            outbox: Vec::new(),
        };
        registry.write(now, "", Some(Body::Node(Arc::new(node))));
        Ok(registry)
    }

    /// What is read. Cheap to clone, as long as there are few services; what is in it is shared.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// Makes an instance of this node one that others find, or replaces it. One that did not change is told to nobody.
    ///
    /// # Errors
    /// [`RegisterError`]
    pub fn register(&mut self, now: Micros, instance: Instance) -> Result<(), RegisterError> {
        instance.valid()?;
        let own = self.own();
        let is_new = match own.get(&instance.id) {
            Some(Body::Instance(old)) if **old == instance => return Ok(()),
            Some(_) => false,
            None => true,
        };
        if is_new && own.len() > INSTANCES_MAX {
            return Err(RegisterError::Full);
        }
        let key = instance.id.clone();
        self.write(now, &key, Some(Body::Instance(Arc::new(instance))));
        Ok(())
    }

    /// Takes an instance of this node back.
    ///
    /// # Errors
    /// [`RegisterError::Unknown`]
    pub fn deregister(&mut self, now: Micros, id: &str) -> Result<(), RegisterError> {
        if id.is_empty() || self.own().get(id).is_none() {
            return Err(RegisterError::Unknown { id: id.into() });
        }
        self.write(now, id, None);
        Ok(())
    }

    /// An instance of this node.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        owner::instance(self.own().get(id))
    }

    /// The instances of this node.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.own().bodies().filter_map(|(_, body)| owner::instance(Some(body)))
    }

    /// What this node says of itself.
    #[must_use]
    pub fn node(&self) -> Arc<Node> {
        match self.own().get("") {
            Some(Body::Node(node)) => Arc::clone(node),
            Some(Body::Instance(_)) | None => Arc::default(),
        }
    }

    /// Changes what this node says of itself.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn set_node(&mut self, now: Micros, node: Node) -> Result<(), RecordError> {
        node.valid()?;
        if *self.node() != node {
            self.write(now, "", Some(Body::Node(Arc::new(node))));
        }
        Ok(())
    }

    /// What a check of the instance `id`, or with the empty id of the node, says now. Others are told of a new status, and
    /// of new words only with the next one.
    ///
    /// # Errors
    /// [`RegisterError::Unknown`]
    pub fn set_check(&mut self, now: Micros, id: &str, mut check: Check) -> Result<(), RegisterError> {
        check.cut();
        check.valid()?;
        let unknown = || RegisterError::Unknown { id: id.into() };
        let mut body = self.own().get(id).cloned().ok_or_else(unknown)?;
        let checks = match &mut body {
            Body::Node(node) => &mut Arc::make_mut(node).checks,
            Body::Instance(instance) => &mut Arc::make_mut(instance).checks,
        };
        let mut is_news = true;
        match checks.iter_mut().find(|old| old.id == check.id) {
            Some(old) if *old == check => return Ok(()),
            Some(old) => {
                is_news = Check { output: String::new(), ..old.clone() }
                    != Check { output: String::new(), ..check.clone() };
                *old = check;
            }
            None => {
                checks.push(check);
                match &body {
                    Body::Node(node) => node.valid()?,
                    Body::Instance(instance) => instance.valid()?,
                }
            }
        }
        if is_news {
            self.write(now, id, Some(body));
        } else {
            let owner = self.owners.get_mut(&self.me).expect("a registry has its own node");
            owner.amend(id, body);
            self.refresh(self.me, id, None);
        }
        Ok(())
    }

    /// Takes a check away. False if there is none.
    pub fn drop_check(&mut self, now: Micros, id: &str, check: &str) -> bool {
        let Some(mut body) = self.own().get(id).cloned() else { return false };
        let checks = match &mut body {
            Body::Node(node) => &mut Arc::make_mut(node).checks,
            Body::Instance(instance) => &mut Arc::make_mut(instance).checks,
        };
        let before = checks.len();
        checks.retain(|one| one.id != check);
        let dropped = checks.len() < before;
        if dropped {
            self.write(now, id, Some(body));
        }
        dropped
    }

    /// Who the other members are, and who of them is dead. Records of who is no member any more are forgotten.
    pub fn set_members(&mut self, now: Micros, members: BTreeSet<NodeId>, down: BTreeSet<NodeId>) {
        let fresh: Vec<NodeId> = members.difference(&self.members).copied().collect();
        let gone: Vec<NodeId> =
            self.owners.keys().filter(|id| **id != self.me && !members.contains(id)).copied().collect();
        let turned: Vec<NodeId> = self.down.symmetric_difference(&down).copied().collect();
        (self.members, self.down) = (members, down);
        for id in gone {
            let owner = self.owners.remove(&id).expect("it was among them");
            let changes = owner.bodies().map(|(key, body)| Changed {
                key: key.into(),
                old: Some(body.clone()),
                new: None,
            });
            let changes: Vec<Changed> = changes.collect();
            self.show(now, id, &changes);
        }
        for id in turned {
            self.show_node(now, id);
        }
        fresh.into_iter().for_each(|id| self.tell(id, true));
    }

    /// A link to a member is there: it is told what is known here.
    pub fn linked(&mut self, to: NodeId) {
        if self.members.contains(&to) {
            self.tell(to, true);
        }
    }

    /// A frame of another member.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none of ours.
    pub fn receive(&mut self, now: Micros, from: NodeId, bytes: &[u8]) -> Result<(), DecodeError> {
        match Said::decode(bytes)? {
            Said::Digest { asks, known } => self.compare(from, asks, &known),
            Said::Delta(owner, delta) => self.take(now, from, owner, delta),
        }
        Ok(())
    }

    /// Waits for a change of `topic` until `end`; none if too many wait.
    pub fn wait(&mut self, topic: Topic, end: Micros) -> Option<WaiterId> {
        self.waiters.wait(topic, end)
    }

    /// It waits no more.
    pub fn leave(&mut self, id: WaiterId) {
        self.waiters.leave(id);
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Those whose wait ended since this was asked last.
    pub fn take_woken(&mut self, out: &mut Vec<WaiterId>) {
        self.waiters.take_woken(out);
    }

    /// Frames to send, in their order. Own news that were written since are put into one frame for each member.
    pub fn take_frames(&mut self, out: &mut Vec<Outgoing>) {
        let own = self.own();
        if own.have > self.pushed && !self.members.is_empty() {
            let deltas = own.deltas(own.incarnation, self.pushed.max(1));
            for to in self.members.iter().copied() {
                for delta in &deltas {
                    let bytes = said(&Said::Delta(self.me, delta.clone()));
                    self.outbox.push(Outgoing { to, bytes });
                }
            }
        }
        self.pushed = self.own().have;
        out.append(&mut self.outbox);
    }

    /// When [`Registry::wake`] must next be called.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let gossip = if self.members.is_empty() { self.expire_at } else { self.digest_at };
        self.waiters.deadline().map_or(gossip, |end| end.min(gossip)).min(self.expire_at)
    }

    /// Lets everything due at `now` happen.
    pub fn wake(&mut self, now: Micros) {
        self.waiters.wake(now);
        if now >= self.expire_at {
            self.expire_at = now.plus_millis(EXPIRE_MS);
            self.owners.values_mut().for_each(|owner| owner.expire(now));
        }
        if now >= self.digest_at {
            self.digest_at = now.plus_millis(DIGEST_MS);
            let up: Vec<NodeId> = self.members.difference(&self.down).copied().collect();
            if !up.is_empty() {
                let to = up[self.rng.below(up.len() as u64) as usize];
                self.tell(to, true);
            }
        }
    }

    /// This node's instances as a file keeps them.
    #[must_use]
    pub fn encode_instance(instance: &Instance) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put_instance(&mut out, instance);
        out
    }

    /// The opposite of [`Registry::encode_instance`].
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode_instance(bytes: &[u8]) -> Result<Instance, DecodeError> {
        let mut reader = Reader::new(bytes);
        let instance = frame::get_instance(&mut reader)?;
        if reader.is_empty() { Ok(instance) } else { Err(DecodeError::Invalid) }
    }

    fn own(&self) -> &Owner {
        &self.owners[&self.me]
    }

    fn write(&mut self, now: Micros, key: &str, body: Option<Body>) {
        let owner = self.owners.get_mut(&self.me).expect("a registry has its own node");
        let change = owner.write(now, key, body);
        self.show(now, self.me, &[change]);
    }

    /// Says how much is known here.
    fn tell(&mut self, to: NodeId, asks: bool) {
        let known =
            |(&owner, it): (&NodeId, &Owner)| Known { owner, incarnation: it.incarnation, have: it.have };
        let known = self.owners.iter().map(known).take(frame::OWNERS_MAX).collect();
        self.outbox.push(Outgoing { to, bytes: said(&Said::Digest { asks, known }) });
    }

    /// Sends what the other does not know, and asks for what it knows and we do not.
    fn compare(&mut self, from: NodeId, asks: bool, theirs: &[Known]) {
        let theirs: BTreeMap<NodeId, (u64, u64)> =
            theirs.iter().map(|one| (one.owner, (one.incarnation, one.have))).collect();
        for (&id, owner) in &self.owners {
            let (incarnation, have) = theirs.get(&id).copied().unwrap_or_default();
            for delta in owner.deltas(incarnation, have) {
                self.outbox.push(Outgoing { to: from, bytes: said(&Said::Delta(id, delta)) });
            }
        }
        let ours = |id: &NodeId| self.owners.get(id).map_or((0, 0), |it| (it.incarnation, it.have));
        let is_behind = theirs.iter().any(|(id, known)| self.believes(*id) && ours(id) < *known);
        if asks && is_behind {
            self.tell(from, false);
        }
    }

    /// Only this node speaks for itself, and nobody for who is no member.
    fn believes(&self, owner: NodeId) -> bool {
        owner != self.me && self.members.contains(&owner)
    }

    fn take(&mut self, now: Micros, from: NodeId, id: NodeId, delta: Delta) {
        if !self.believes(id) {
            return;
        }
        let owner = self.owners.entry(id).or_default();
        match owner.take(now, delta) {
            Taken::Nothing => {}
            Taken::Gap if owner.asks(now) => self.tell(from, false),
            Taken::Gap => {}
            Taken::Changes(changes) => self.show(now, id, &changes),
        }
    }

    fn next_index(&mut self, now: Micros) -> u64 {
        self.view.index = if is(Bug::IndexFalls) { now.0 } else { now.0.max(self.view.index + 1) };
        self.view.index
    }

    /// Has the view tell of what changed at `id`, and wakes who waits for it.
    fn show(&mut self, now: Micros, id: NodeId, changes: &[Changed]) {
        let changes: Vec<&Changed> = changes.iter().filter(|change| change.old != change.new).collect();
        if changes.is_empty() {
            return;
        }
        if changes.iter().any(|change| change.key.is_empty()) {
            self.show_node(now, id);
        }
        for change in changes.into_iter().filter(|change| !change.key.is_empty()) {
            let index = self.next_index(now);
            self.refresh(id, &change.key, Some((index, change)));
        }
        self.wake_all();
    }

    fn wake_all(&mut self) {
        self.waiters.changed(&Topic::All);
    }

    /// Has the view tell how a node is, and with it all its instances.
    fn show_node(&mut self, now: Micros, id: NodeId) {
        let index = self.next_index(now);
        let node = match self.owners.get(&id).and_then(|owner| owner.get("")) {
            Some(Body::Node(node)) => Arc::clone(node),
            Some(Body::Instance(_)) | None => {
                self.view.hosts.remove(&id);
                self.wake_all();
                return;
            }
        };
        let is_down = self.down.contains(&id) && !is(Bug::DeadNodeServes);
        let create_index = self.view.hosts.get(&id).map_or(index, |host| host.create_index);
        self.view.hosts.insert(id, Arc::new(Host { id, node, is_down, create_index, index }));
        let keys: Vec<(String, Option<Body>)> = self.owners.get(&id).map_or_else(Vec::new, |owner| {
            owner
                .bodies()
                .filter(|(key, _)| !key.is_empty())
                .map(|(key, it)| (key.into(), Some(it.clone())))
                .collect()
        });
        for (key, body) in keys {
            let change = Changed { key, old: body.clone(), new: body };
            self.refresh(id, &change.key, Some((index, &change)));
        }
        self.wake_all();
    }

    /// Has the view tell of one instance; without a change, of new words only, which nobody is woken for.
    fn refresh(&mut self, id: NodeId, key: &str, change: Option<(u64, &Changed)>) {
        let Some(host) = self.view.hosts.get(&id).cloned() else {
            // It is shown when its node says who it is; what goes, goes.
            if let Some((index, Changed { old, .. })) = change
                && let Some(old) = owner::instance(old.as_ref())
            {
                let name: Arc<str> = old.service.as_str().into();
                self.replace(&name, (id, key), None, index);
            }
            return;
        };
        let now = owner::instance(self.owners.get(&id).and_then(|owner| owner.get(key))).cloned();
        let Some((index, change)) = change else {
            if let Some(instance) = now {
                self.reword(&host, instance);
            } else if key.is_empty() {
                let node = self.node();
                self.view.hosts.insert(id, Arc::new(Host { node, ..(*host).clone() }));
            }
            return;
        };
        let old_service =
            owner::instance(change.old.as_ref()).map(|it| Arc::<str>::from(it.service.as_str()));
        let new_service = now.as_ref().map(|it| Arc::<str>::from(it.service.as_str()));
        if let Some(old) = old_service.filter(|old| Some(old) != new_service.as_ref()) {
            self.replace(&old, (id, key), None, index);
        }
        if let (Some(name), Some(instance)) = (new_service, now) {
            let entry = Entry { host, instance, create_index: index, index };
            self.replace(&name, (id, key), Some(entry), index);
        }
    }

    fn reword(&mut self, host: &Host, instance: Arc<Instance>) {
        let Some(service) = self.view.services.get_mut(instance.service.as_str()) else { return };
        let service = Arc::make_mut(service);
        if let Ok(at) = service.entries.binary_search_by(|it| it.place().cmp(&(host.id, &instance.id))) {
            Arc::make_mut(&mut service.entries[at]).instance = instance;
        }
    }

    /// Puts an entry into its service, or takes it out.
    fn replace(&mut self, name: &Arc<str>, place: (NodeId, &str), entry: Option<Entry>, index: u64) {
        let fresh = || Arc::new(Service { name: Arc::clone(name), index, entries: Vec::new() });
        let service = self.view.services.entry(Arc::clone(name)).or_insert_with(fresh);
        let service = Arc::make_mut(service);
        service.index = index;
        let found = service.entries.binary_search_by(|it| it.place().cmp(&place));
        let mut is_listed_anew = true;
        match (found, entry) {
            (Ok(at), Some(entry)) => {
                let old = &service.entries[at];
                is_listed_anew = old.instance.tags != entry.instance.tags;
                let create_index = old.create_index;
                service.entries[at] = Arc::new(Entry { create_index, ..entry });
            }
            (Err(at), Some(entry)) => service.entries.insert(at, Arc::new(entry)),
            (Ok(at), None) => drop(service.entries.remove(at)),
            (Err(_), None) => is_listed_anew = false,
        }
        if service.entries.is_empty() {
            self.view.services.remove(name);
            self.view.gone = index;
        }
        self.waiters.changed(&Topic::Service(Arc::clone(name)));
        if is_listed_anew {
            self.view.catalog = index;
            self.waiters.changed(&Topic::Catalog);
        }
    }
}

fn said(what: &Said) -> Vec<u8> {
    let mut out = Vec::new();
    what.encode(&mut out);
    out
}
