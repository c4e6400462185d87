//! The worker as one session sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{
    Config, Host, Io, Order, Pause, Process, Progress, Release, Request, Submitted, Survey, Then, Topic,
    Transfer, Transferred, Unblocked, Users,
};
use kernel::{ConnId, KeyspaceId, Micros};
use smallvec::SmallVec;
use storage::{Command, Registry};
use wire::resp::{AHEAD, Ahead};

use crate::errand::Abroad;
use crate::fetching::{Readiness, refuse_unreadable};
use crate::keyspaces::{Answer, Waits};
use crate::parcel::Parcel;
use crate::worker::Worker;

/// A worker with one of its connections taken out.
pub(crate) struct View<'a> {
    pub worker: &'a mut Worker,
    pub connection: &'a mut Io,
    pub watched: &'a mut Vec<(KeyspaceId, Box<[u8]>)>,
    pub abroad: &'a mut Abroad,
    pub id: ConnId,
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
        self.worker.keyspaces.contains_key(&db) || self.worker.others.owners.contains_key(&db)
    }

    fn expect(&mut self, db: KeyspaceId, commands: &[Ahead<'_>]) {
        if let Some(&at) = self.worker.keyspaces.get(&db) {
            let keys: SmallVec<[&[u8]; AHEAD]> = commands.iter().map(|&(_, key)| key).collect();
            self.worker.partitions[at].store.bring_near(&keys);
            if self.worker.partitions[at].store.evicts() {
                self.worker.look_ahead(self.id, at, commands);
            }
        }
    }

    #[inline]
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted {
        let Some(&at) = self.worker.keyspaces.get(&db) else {
            let connection = (self.id, &mut *self.connection, &mut *self.abroad);
            return self.worker.send_request(connection, self.watched, db, command, args);
        };
        if self.worker.partitions[at].store.evicts() {
            match self.worker.fetch_for(self.id, at, command, args) {
                Readiness::Ready => {}
                Readiness::Waits => return Submitted::Later,
                Readiness::Unreadable(text) => {
                    let sequence = self.connection.begin();
                    self.connection.answer(sequence, |reply| refuse_unreadable(reply, &text));
                    return Submitted::Accepted;
                }
            }
        }
        self.worker.front.suspect(self.id, command, args);
        let submitted = self.worker.submit(self.id, self.connection, at, command, args);
        self.worker.partitions[at].store.forget_failures();
        if !self.worker.effects.published.is_empty() {
            self.worker.publish_effects(Some((self.id, self.connection)));
        }
        submitted
    }

    fn submit_everywhere(&mut self, command: &'static Command, args: &[&[u8]], except: Option<KeyspaceId>) {
        let worker = &mut *self.worker;
        worker.front.suspect(self.id, command, args);
        let joint = except.is_none().then(|| {
            let waits = Waits::Client(self.id, self.connection.begin());
            worker.begin_joint(waits, Answer::Ok)
        });
        worker.submit_own_parts(joint, command, args, except);
        worker.send_parts(joint, command, args, except);
    }

    fn spread(&mut self, command: &'static Command, args: &[&[u8]], except: KeyspaceId) -> bool {
        self.worker.ask_spread(self.id, self.abroad, command, args, except)
    }

    fn can_swap(&self) -> bool {
        self.worker.others.is_alone()
    }

    fn swap(&mut self, first: KeyspaceId, second: KeyspaceId) {
        self.worker.begin_swap(self.id, self.connection, first, second);
    }

    fn is_full(&self, db: KeyspaceId) -> bool {
        // Of another worker's keyspace only that one knows: it refuses what comes there.
        self.worker.keyspaces.get(&db).is_some_and(|&at| self.worker.is_out_of_memory(at))
    }

    fn begin_command(&mut self) {
        self.worker.observer.begin();
    }

    fn count_command(&mut self, name: &'static str) {
        self.worker.count_command(name);
    }

    fn transfer(&mut self, transfer: &Transfer<'_>) -> Transferred {
        let is_own = |db| self.worker.keyspaces.contains_key(&db);
        if !is_own(transfer.from) || !is_own(transfer.to) {
            let connection = (self.id, &mut *self.connection, &mut *self.abroad);
            return self.worker.send_transfer(connection, transfer);
        }
        let from = self.worker.keyspaces[&transfer.from];
        match self.worker.fetch_keys(self.id, from, &[transfer.key]) {
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
            Err(other) => other,
        }
    }

    fn watch(&mut self, db: KeyspaceId, keys: &[&[u8]]) -> Progress {
        let at = self.worker.keyspaces.get(&db).copied();
        let mut abroad = Vec::new();
        for &key in keys {
            if self.watched.iter().any(|(other, watched)| *other == db && &**watched == key) {
                continue;
            }
            match at {
                Some(at) => self.worker.add_watcher(at, key, self.id),
                None => abroad.push(key.into()),
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
            match self.worker.others.owners.get(&db) {
                Some(&owner) => owners.push(owner),
                None => self.worker.remove_watcher(db, &key, self.id),
            }
        }
        self.worker.send_unwatch(self.id, self.abroad, &mut owners);
    }

    fn watch_broken(&mut self, db: KeyspaceId) -> Option<bool> {
        let worker = &mut *self.worker;
        let own = |db: &KeyspaceId| worker.keyspaces.contains_key(db);
        let mut watched = self.watched.iter().filter(|(db, _)| own(db));
        if self.connection.watch_broken || watched.any(|(db, key)| worker.may_have_changed(*db, key)) {
            return Some(true);
        }
        worker.ask_watches(self.id, self.abroad, self.watched, db)
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
