//! The worker as one session sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{
    Client, Config, Facts, Host, Io, Latency, Pause, Release, Request, Slowlog, Submitted, Topic, Transfer,
    Transferred, Users,
};
use kernel::planted::{Bug, is};
use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Registry};

use crate::keyspaces::Answer;
use crate::partition::Watcher;
use crate::worker::Worker;

/// A worker with one of its connections taken out.
pub(crate) struct View<'a> {
    pub worker: &'a mut Worker,
    pub connection: &'a mut Io,
    pub watched: &'a mut Vec<(KeyspaceId, Box<[u8]>)>,
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
        self.worker.keyspaces.contains_key(&db)
    }

    fn expect(&mut self, db: KeyspaceId, keys: &[&[u8]]) {
        if let Some(&at) = self.worker.keyspaces.get(&db) {
            self.worker.partitions[at].store.bring_near(keys);
        }
    }

    #[inline]
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted {
        let at = self.worker.keyspaces[&db];
        self.worker.front.suspect(self.id, command, args);
        let submitted = self.worker.submit(self.id, self.connection, at, command, args);
        if !self.worker.effects.published.is_empty() {
            self.worker.publish_effects(Some((self.id, self.connection)));
        }
        submitted
    }

    fn submit_everywhere(&mut self, command: &'static Command, args: &[&[u8]], except: Option<KeyspaceId>) {
        let worker = &mut *self.worker;
        worker.front.suspect(self.id, command, args);
        let joint = except.is_none().then(|| worker.begin_joint(self.id, self.connection, Answer::Ok));
        for at in 0..worker.partitions.len() {
            if Some(worker.partitions[at].keyspace()) != except {
                worker.submit_part(joint, at, command, args);
            }
        }
    }

    fn swap(&mut self, first: KeyspaceId, second: KeyspaceId) {
        self.worker.begin_swap(self.id, self.connection, first, second);
    }

    fn is_full(&self, db: KeyspaceId) -> bool {
        self.worker.is_out_of_memory(self.worker.keyspaces[&db])
    }

    fn count_command(&mut self) {
        self.worker.count_command();
    }

    fn transfer(&mut self, transfer: &Transfer<'_>) -> Transferred {
        self.worker.transfer(self.id, self.connection, transfer)
    }

    fn watch(&mut self, db: KeyspaceId, key: &[u8]) {
        let at = self.worker.keyspaces[&db];
        if self.watched.iter().any(|(other, watched)| *other == db && &**watched == key) {
            return;
        }
        let partition = &mut self.worker.partitions[at];
        // By the logged time: what has expired since then is still to be removed, and that breaks the watch.
        partition.store.begin_reads(Micros(0));
        let watcher = Watcher { conn: self.id, existed: partition.store.exists(key) };
        partition.watchers.entry(key.into()).or_default().push(watcher);
        partition.settle_interest();
        self.watched.push((db, key.into()));
    }

    fn unwatch(&mut self) {
        for (db, key) in self.watched.drain(..) {
            let partition = &mut self.worker.partitions[self.worker.keyspaces[&db]];
            if let Some(watchers) = partition.watchers.get_mut(&key) {
                watchers.retain(|other| other.conn != self.id);
                if watchers.is_empty() {
                    partition.watchers.remove(&key);
                }
            }
            partition.settle_interest();
        }
    }

    fn watch_broken(&mut self) -> bool {
        if self.connection.watch_broken {
            return true;
        }
        let worker = &*self.worker;
        self.watched.iter().any(|(db, key)| {
            let at = worker.keyspaces[db];
            // As in Redis, a key that expires under its watch breaks it, reaped or not.
            worker.in_flight(at, key) && !is(Bug::WatchIgnoresInFlight)
                || worker.partitions[at].store.is_due(key, worker.now)
        })
    }

    fn subscribe(&mut self, topic: Topic, name: &[u8]) {
        self.worker.front.pubsub.subscribe(topic, name, self.id);
    }

    fn unsubscribe(&mut self, topic: Topic, name: &[u8]) {
        self.worker.front.pubsub.unsubscribe(topic, name, self.id);
    }

    fn publish(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        self.worker.publish(channel, payload, Some((self.id, self.connection)))
    }

    fn receivers(&self, channel: &[u8]) -> usize {
        self.worker.front.pubsub.receiver_count(channel)
    }

    fn channels(&self, pattern: &[u8]) -> Vec<Box<[u8]>> {
        self.worker.front.pubsub.channels(pattern)
    }

    fn subscribers(&self, channel: &[u8]) -> usize {
        self.worker.front.pubsub.subscribers(channel)
    }

    fn patterns(&self) -> usize {
        self.worker.front.pubsub.pattern_count()
    }

    fn clients(&self) -> Vec<Client> {
        self.worker.clients()
    }

    fn kill(&mut self, id: ConnId) {
        self.worker.kill(id);
    }

    fn unblock(&mut self, id: ConnId, release: Release) -> bool {
        self.worker.unblock(id, release)
    }

    fn pause(&mut self, pause: Pause, until: Micros) {
        self.worker.pause(pause, until);
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

    fn config(&mut self) -> &mut Config {
        &mut self.worker.front.config
    }

    fn settings_changed(&mut self) {
        self.worker.take_settings();
    }

    fn users(&self) -> &Users {
        &self.worker.front.users
    }

    fn facts(&self) -> Facts {
        self.worker.facts()
    }

    fn reset_counters(&mut self) {
        self.worker.reset_counters();
    }

    fn slowlog(&mut self) -> &mut Slowlog {
        &mut self.worker.front.slowlog
    }

    fn latency(&mut self) -> &mut Latency {
        &mut self.worker.front.latency
    }

    fn request(&mut self, request: Request) {
        self.worker.front.request(request);
    }
}
