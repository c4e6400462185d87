//! The worker as one session sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{
    ClusterView, Config, Host, Io, Order, Pause, Process, Progress, Release, Request, Submitted, Survey,
    Swappable, Then, Topic, Transfer, Transferred, Unblocked, Users,
};
use kernel::{ConnId, KeyspaceId, Micros};
use storage::reach::{CROSS_SLOT, place_in_transaction};
use storage::{Command, Fault, Kind, Registry, Reply};
use wire::resp::Ahead;

use crate::cluster::DROPPED;
use crate::errand::Abroad;
use crate::fetching::{Readiness, refuse_unreadable};
use crate::keyspaces::{Answer, Waits};
use crate::parcel::Parcel;
use crate::replica::copies::Answers;
use crate::route::{Place, Route};
use crate::worker::Worker;

/// A worker with one of its connections taken out.
pub(crate) struct View<'a> {
    pub worker: &'a mut Worker,
    pub connection: &'a mut Io,
    pub watched: &'a mut Vec<(KeyspaceId, Box<[u8]>)>,
    pub abroad: &'a mut Abroad,
    pub id: ConnId,
}

impl View<'_> {
    /// Hands a command to another worker's keyspace, or to one of several partitions.
    #[inline(never)]
    fn submit_beyond(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted {
        if self.worker.routes.is_dropped(db) {
            return self.refuse_dropped();
        }
        if self.worker.routes.spread(db).is_none() && self.watched.is_empty() {
            match self.worker.who_answers(self.connection, db, 0, command) {
                Answers::Leader => {}
                Answers::Copy(at) => {
                    return self.worker.read_copy((self.id, self.connection), at, command, args);
                }
                Answers::Nobody(text) => return Worker::refuse_stale(self.connection, &text),
            }
        }
        let connection = (self.id, &mut *self.connection, &mut *self.abroad);
        match self.worker.routes.spread(db) {
            None => self.worker.send_request(connection, self.watched, (db, 0), command, args),
            Some(_) => self.worker.submit_spread(connection, self.watched, db, command, args),
        }
    }
}

impl View<'_> {
    /// The session's keyspace is no more.
    #[cold]
    fn refuse_dropped(&mut self) -> Submitted {
        let sequence = self.connection.begin();
        self.connection.answer(sequence, |reply| reply.error(DROPPED));
        Submitted::Accepted
    }
}

impl Host for View<'_> {
    #[inline]
    fn io(&mut self) -> &mut Io {
        self.connection
    }

    fn now(&self) -> Micros {
        self.worker.now
    }

    #[inline]
    fn registry(&self) -> &Registry {
        &self.worker.registry
    }

    fn has_keyspace(&self, db: KeyspaceId) -> bool {
        self.worker.routes.exists(db)
    }

    fn expect(&mut self, db: KeyspaceId, commands: &[Ahead<'_>]) {
        if let Some(&Route::Whole(Place::Own(at))) = self.worker.routes.get(db) {
            let keys = commands.iter().map(|&(_, key)| key);
            let absent = self.worker.partitions[at].store.bring_near(keys);
            if absent != 0 {
                self.worker.look_ahead(self.id, at, commands, absent);
            }
        }
    }

    #[inline]
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted {
        let command = self.worker.registry.unlogged(command, args);
        // The first is what most nodes do for all commands.
        if let Some(&Route::Whole(Place::Own(at))) = self.worker.routes.get(db) {
            return self.worker.submit_own_client((self.id, self.connection), at, command, args);
        }
        self.submit_beyond(db, command, args)
    }

    fn submit_in(
        &mut self,
        db: KeyspaceId,
        partition: u16,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted {
        match self.worker.routes.place(db, partition) {
            Place::Own(at) => self.worker.submit_own_client((self.id, self.connection), at, command, args),
            Place::Other(_) if self.worker.routes.is_dropped(db) => self.refuse_dropped(),
            Place::Other(_) => {
                let connection = (self.id, &mut *self.connection, &mut *self.abroad);
                self.worker.send_request(connection, self.watched, (db, partition), command, args)
            }
        }
    }

    fn cluster(&self, db: KeyspaceId) -> Option<ClusterView> {
        self.worker.cluster_view(db)
    }

    fn steer(&mut self, db: KeyspaceId, command: &Command, args: &[&[u8]]) -> Result<(), Fault> {
        self.worker.steer(self.connection, db, command, args)
    }

    fn steer_to(&mut self, db: KeyspaceId, partition: u16, writes: bool) -> Result<(), Fault> {
        self.worker.steer_to(self.connection, db, partition, writes)
    }

    fn submit_everywhere(&mut self, command: &'static Command, args: &[&[u8]], except: Option<KeyspaceId>) {
        let worker = &mut *self.worker;
        worker.front.suspect(self.id, command, args);
        let joint = except.is_none().then(|| {
            let waits = Waits::Client(self.id, self.connection.begin());
            worker.begin_joint(waits, Answer::Ok)
        });
        if worker.cluster.is_some() {
            return worker.submit_all_parts(joint, command, args, except);
        }
        worker.submit_own_parts(joint, command, args, except);
        worker.send_parts(joint, command, args, except);
    }

    fn spread(&mut self, command: &'static Command, args: &[&[u8]], except: KeyspaceId) -> bool {
        if self.worker.cluster.is_some() {
            // Cluster clients know one keyspace.
            let done = self.connection.cluster || self.abroad.has_spread();
            return done || self.worker.ask_all_parts(self.id, self.abroad, command, args, except);
        }
        self.worker.ask_spread(self.id, self.abroad, command, args, except)
    }

    fn swappable(&self, first: KeyspaceId, second: KeyspaceId) -> Swappable {
        let spread = |db| self.worker.routes.spread(db).is_some();
        if self.worker.cluster.is_some() {
            Swappable::Clustered
        } else if spread(first) || spread(second) {
            Swappable::Divided
        } else if self.worker.others.is_alone() {
            Swappable::Yes
        } else {
            Swappable::Apart
        }
    }

    fn is_divided(&self, db: KeyspaceId) -> bool {
        self.worker.routes.spread(db).is_some()
    }

    fn partition_of(&self, db: KeyspaceId, command: &Command, args: &[&[u8]]) -> Result<Option<u16>, Fault> {
        let spread = self.worker.routes.spread(db);
        spread.map_or(Ok(None), |spread| place_in_transaction(command, args, spread.partitions))
    }

    fn partition_of_keys(&self, db: KeyspaceId, keys: &[&[u8]]) -> Result<Option<u16>, Fault> {
        let Some(spread) = self.worker.routes.spread(db) else { return Ok(None) };
        let mut all = keys.iter().map(|key| spread.of(key));
        let first = all.next();
        if all.all(|other| Some(other) == first) { Ok(first) } else { Err(CROSS_SLOT) }
    }

    fn swap(&mut self, first: KeyspaceId, second: KeyspaceId) {
        self.worker.begin_swap(self.id, self.connection, first, second);
    }

    fn is_full(&self, db: KeyspaceId, partition: u16) -> bool {
        // Of another worker's partition only that one knows: it refuses what comes there.
        match self.worker.routes.place(db, partition) {
            Place::Own(at) => self.worker.is_out_of_memory(at),
            Place::Other(_) => false,
        }
    }

    fn begin_command(&mut self) {
        self.worker.observer.begin();
    }

    fn count_command(&mut self, name: &'static str) {
        self.worker.count_command(name);
    }

    fn transfer(&mut self, transfer: &Transfer<'_>) -> Transferred {
        if self.worker.cluster.is_some() {
            return Transferred::Clustered;
        }
        let routes = &self.worker.routes;
        let places =
            [routes.of_key(transfer.from, transfer.key), routes.of_key(transfer.to, transfer.new_key)];
        if places.iter().any(|place| matches!(place, Place::Other(_))) {
            let connection = (self.id, &mut *self.connection, &mut *self.abroad);
            return self.worker.send_transfer(connection, transfer);
        }
        let from = self.worker.routes.own_of_key(transfer.from, transfer.key);
        let from = from.expect("both places are this worker's");
        match self.worker.fetch_keys(self.id, from, Kind::Write, &[transfer.key]) {
            Readiness::Ready => {}
            Readiness::Waits => return Transferred::Later,
            Readiness::Unreadable(text) => {
                let sequence = self.connection.begin();
                self.connection.answer(sequence, |reply| refuse_unreadable(reply, &text));
                return Transferred::Accepted;
            }
        }
        match self.worker.transfer(transfer) {
            Ok(joint) => {
                self.worker.await_joint(joint, Waits::Client(self.id, self.connection.begin()));
                Transferred::Accepted
            }
            Err(other) => {
                if other == Transferred::Later {
                    // Until then it is not resumed: trying at every turn would keep the worker from sleeping.
                    self.abroad.asking += 1;
                    self.worker.front.transfers.push(self.id);
                }
                other
            }
        }
    }

    fn watch(&mut self, db: KeyspaceId, keys: &[&[u8]]) -> Progress {
        let mut abroad = Vec::new();
        for &key in keys {
            if self.watched.iter().any(|(other, watched)| *other == db && &**watched == key) {
                continue;
            }
            match self.worker.routes.of_key(db, key) {
                Place::Own(at) => self.worker.add_watcher(at, key, self.id),
                Place::Other(_) => abroad.push(key.into()),
            }
            self.watched.push((db, key.into()));
        }
        if abroad.is_empty() {
            return Progress::Done;
        }
        self.worker.send_watch(self.id, self.connection, db, abroad)
    }

    fn unwatch(&mut self) {
        let mut owners = Vec::new();
        for (db, key) in self.watched.drain(..) {
            match self.worker.routes.of_key(db, &key) {
                Place::Own(_) => self.worker.remove_watcher(db, &key, self.id),
                Place::Other(owner) => owners.push(owner),
            }
        }
        self.worker.send_unwatch(self.id, self.abroad, &mut owners);
    }

    fn watch_broken(&mut self, db: KeyspaceId, partition: u16) -> Option<bool> {
        let worker = &mut *self.worker;
        let own = |db, key: &[u8]| matches!(worker.routes.of_key(db, key), Place::Own(_));
        let mut watched = self.watched.iter().filter(|(db, key)| own(*db, key));
        if self.connection.watch_broken || watched.any(|(db, key)| worker.may_have_changed(*db, key)) {
            return Some(true);
        }
        worker.ask_watches(self.id, self.abroad, self.watched, (db, partition))
    }

    fn subscribe(&mut self, topic: Topic, name: &[u8]) {
        self.worker.front.pubsub.subscribe(topic, name, self.id);
    }

    fn unsubscribe(&mut self, topic: Topic, name: &[u8]) {
        self.worker.front.pubsub.unsubscribe(topic, name, self.id);
    }

    fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Option<usize> {
        self.worker.publish((self.id, self.connection), channel, payload)
    }

    fn begin_survey(&mut self) -> bool {
        self.worker.ask_survey(self.id, self.abroad)
    }

    fn survey(&self) -> Survey {
        let mut survey = self.worker.survey();
        if let Some(others) = self.abroad.told_survey() {
            survey.add(others.clone());
        }
        survey
    }

    fn end_survey(&mut self) {
        self.abroad.forget_survey();
    }

    fn kill(&mut self, id: ConnId) {
        if id.worker() == self.id.worker() {
            self.worker.kill(id);
        } else {
            self.worker.others.push(id.worker(), Parcel::Kill { conn: id });
        }
    }

    fn unblock(&mut self, id: ConnId, release: Release, answered: bool) -> Unblocked {
        let to = match id.worker() {
            own if own == self.id.worker() => {
                self.worker.connections.get_mut(id).and_then(|connection| connection.abroad.waits_at)
            }
            other => Some(other),
        };
        match to {
            Some(to) => self.worker.send_unblock((self.id, self.connection), to, id, (release, answered)),
            None if self.worker.unblock(id, release) => Unblocked::Released,
            None => Unblocked::Idle,
        }
    }

    fn order(&mut self, order: Order, then: Option<Then>) -> Progress {
        self.worker.send_order(self.id, self.connection, order, then)
    }

    #[inline]
    fn paused(&self) -> Pause {
        self.worker.front.gate
    }

    fn sleep(&mut self, until: Micros) {
        let sequence = self.connection.begin();
        self.connection.blocked = true;
        self.worker.front.sleep(until, self.id, sequence);
    }

    fn config(&self) -> &Config {
        &self.worker.front.config
    }

    fn process(&self) -> &Process {
        &self.worker.front.process
    }

    fn users(&self) -> &Users {
        &self.worker.front.users
    }

    fn request(&mut self, request: Request) {
        self.worker.front.request(request);
    }
}
