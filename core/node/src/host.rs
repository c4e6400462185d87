//! The worker as one session sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{Host, Io, Submitted};
use kernel::{ConnId, KeyspaceId};
use storage::{Command, Registry};

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

    #[inline]
    fn registry(&self) -> &Registry {
        &self.worker.registry
    }

    fn has_keyspace(&self, db: KeyspaceId) -> bool {
        self.worker.keyspaces.contains_key(&db)
    }

    #[inline]
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted {
        let at = self.worker.keyspaces[&db];
        self.worker.submit(self.id, self.connection, at, command, args)
    }

    fn watch(&mut self, db: KeyspaceId, key: &[u8]) {
        let at = self.worker.keyspaces[&db];
        if self.watched.iter().any(|(other, watched)| *other == db && &**watched == key) {
            return;
        }
        let partition = &mut self.worker.partitions[at];
        partition.watchers.entry(key.into()).or_default().push(self.id);
        partition.settle_interest();
        self.watched.push((db, key.into()));
    }

    fn unwatch(&mut self) {
        for (db, key) in self.watched.drain(..) {
            let partition = &mut self.worker.partitions[self.worker.keyspaces[&db]];
            if let Some(watchers) = partition.watchers.get_mut(&key) {
                watchers.retain(|other| *other != self.id);
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
        self.watched.iter().any(|(db, key)| self.worker.in_flight(self.worker.keyspaces[db], key))
    }
}
