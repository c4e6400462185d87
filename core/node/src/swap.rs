//! SWAPDB: two keyspaces exchange their groups.
//!
//! No data moves: a logged entry says which group serves which keyspace from then on. All clients are held
//! while it is on its way, so nobody sees one keyspace exchanged and the other not, nor the exchange before
//! it is as durable as promised. A crash leaves the entry in the log or not: both are exchanged, or neither.

use alloc::boxed::Box;
use alloc::vec::Vec;

use consensus::{Durability, Group};
use gateway::resp::{Io, Sequence};
use kernel::{ConnId, KeyspaceId, Micros};
use storage::command::session::RENAME_KEYSPACES;
use storage::entry::put_command;
use storage::store::Naming;

use crate::keyspaces::{Answer, Waits};
use crate::partition::{Queued, What};
use crate::worker::Worker;

/// An exchange under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    joint: u64,
    first: KeyspaceId,
    second: KeyspaceId,
    stage: Stage,
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for what is on its way in both groups.
    Begun,
    /// It is in the log, or on its way there.
    Logged,
    /// It is as durable as promised, and takes effect when nothing is on its way.
    Applied,
    /// The log refused it.
    Refused,
}

impl Worker {
    /// Begins to exchange two keyspaces for `conn`. From here on all clients are held.
    pub(crate) fn begin_swap(&mut self, conn: ConnId, io: &mut Io, first: KeyspaceId, second: KeyspaceId) {
        let joint = self.begin_joint(Waits::Client(conn, io.begin()), Answer::Ok);
        self.front.swap = Some(Swap { joint, first, second, stage: Stage::Begun });
        self.front.settle_gate();
        // One part for the entry, and one for its effect, so that the answer comes after both.
        self.expect_parts(joint, 1);
    }

    /// The exchange's entry is applied, or refused.
    pub(crate) fn swap_done(&mut self, error: Option<&'static str>) {
        let Some(swap) = &mut self.front.swap else { return };
        swap.stage = if error.is_some() { Stage::Refused } else { Stage::Applied };
        let joint = self.front.joints.get_mut(&swap.joint).expect("a joint lives until its last part");
        if let Some(error) = error {
            joint.answer = Answer::Error(error);
        }
    }

    /// Goes on with an exchange when both groups are quiet.
    pub(crate) fn advance_swap(&mut self) {
        let Some(Swap { joint, first, second, stage }) = self.front.swap else { return };
        let own = |db| self.routes.own(db, 0).expect("keyspaces are exchanged on a node with one worker");
        let (a, b) = (own(first), own(second));
        if !self.partitions[a].is_quiet() || !self.partitions[b].is_quiet() {
            return;
        }
        match stage {
            Stage::Logged => return,
            Stage::Begun => {
                self.log_swap((first, a), (second, b));
                return;
            }
            Stage::Applied => self.exchange((first, a), (second, b)),
            Stage::Refused => {}
        }
        self.front.swap = None;
        self.front.settle_gate();
        self.part_done(joint, None);
        self.resume_paused();
    }

    /// Logs the new names in the group with the stronger promise of the two.
    fn log_swap(&mut self, (first, a): (KeyspaceId, usize), (second, b): (KeyspaceId, usize)) {
        let stronger = self.partitions[b].group.durability() == Durability::Always;
        let at = if stronger { b } else { a };
        let newest = self.partitions.iter().map(|one| one.store.naming()).max_by_key(|one| one.swaps());
        let mut names = Vec::new();
        newest.unwrap_or(&Naming::default()).swapped(first, second).encode(&mut names);
        self.open(at);
        let open = &mut self.partitions[at].open;
        put_command(&mut open.body, RENAME_KEYSPACES, &[&names]);
        open.queued.push(Queued { conn: ConnId(0), sequence: Sequence(0), what: What::Swap });
        self.front.swap.as_mut().expect("it is under way").stage = Stage::Logged;
    }

    /// What belongs to the keyspaces changes place: their names, settings, watches and waiting clients.
    fn exchange(&mut self, (first, a): (KeyspaceId, usize), (second, b): (KeyspaceId, usize)) {
        self.routes.swap(first, second);
        let (low, high) = self.partitions.split_at_mut(a.max(b));
        let (one, other) = (&mut low[a.min(b)], &mut high[0]);
        core::mem::swap(&mut one.keyspace, &mut other.keyspace);
        core::mem::swap(&mut one.memory, &mut other.memory);
        core::mem::swap(&mut one.watchers, &mut other.watchers);
        core::mem::swap(&mut one.waiters, &mut other.waiters);
        core::mem::swap(&mut one.waiting_keys, &mut other.waiting_keys);
        core::mem::swap(&mut one.untried, &mut other.untried);
        let (durability, policy) = (one.group.durability(), one.store.policy());
        one.group.set_durability(other.group.durability());
        other.group.set_durability(durability);
        if policy != other.store.policy() {
            one.store.set_policy(other.store.policy());
            other.store.set_policy(policy);
        }
        for at in [a, b] {
            let partition = &mut self.partitions[at];
            partition.settle_interest();
            for (&number, waiter) in &partition.waiters {
                if let Some(connection) = self.connections.get_mut(waiter.conn) {
                    connection.waiter = Some((at, number));
                }
            }
        }
        for at in [a, b] {
            self.notice_exchange(at);
        }
    }

    /// Partition `at` serves another keyspace: its keys are new to who watches or waits there.
    fn notice_exchange(&mut self, at: usize) {
        let partition = &mut self.partitions[at];
        partition.store.begin_reads(Micros(0));
        let watched: Vec<Box<[u8]>> = partition.watchers.keys().cloned().collect();
        for key in watched {
            let store = &mut self.partitions[at].store;
            let there = store.exists(&key) && !store.is_due(&key, self.now);
            self.break_watches(at, &key, |watcher| watcher.existed || there);
        }
        let partition = &mut self.partitions[at];
        partition.store.begin_reads(self.now);
        let waiting: Vec<u64> = partition.waiters.keys().copied().collect();
        for id in waiting {
            let partition = &mut self.partitions[at];
            let (store, waiter) = (&mut partition.store, &partition.waiters[&id]);
            if waiter.keys.iter().any(|key| store.exists(key)) {
                self.try_waiter(at, id);
            }
        }
    }
}
