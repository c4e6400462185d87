//! Replicas come and go while the node runs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use consensus::replay::Restored;
use consensus::{Config, Durability, Logged, Mark, Members, Replica, ReplicaId};
use journal::Record;
use kernel::codec::DecodeError;
use kernel::{GroupId, Index, KeyspaceId, Lsn, Micros, NodeId, Rng, Term, WorkerId};
use placement::Partitions;
use storage::Store;
use storage::reach::Scope;

use super::undone::Undone;
use crate::agreement::Agreement;
use crate::cluster::seat::Seat;
use crate::cluster::{
    Cluster, Done, Dropped, Holding, Job, Kept, Opening, Outgoing, Past, Seating, Start, kind, store_seed,
};
use crate::partition::Partition;
use crate::worker::{LogSink, Worker};

impl Worker {
    /// The same as the one worker of a node in a cluster.
    ///
    /// # Panics
    /// If it has partitions already, or the node has other workers.
    #[must_use]
    pub fn with_cluster(mut self, start: Start) -> Worker {
        assert!(self.others.is_alone(), "a node in a cluster has one worker");
        assert!(self.partitions.is_empty(), "partitions of a cluster come by its plan");
        self.cluster = Some(Box::new(Cluster::new(start)));
        self
    }

    /// The keyspace exists, with so many partitions. Nobody is known to lead those that are new.
    pub fn lay(&mut self, db: KeyspaceId, partitions: Partitions) {
        self.routes.lay(db, partitions);
    }

    /// Has a replica from now on. If the disk has it already it begins at once; else when the host has made room.
    ///
    /// Nothing happens if the group has a replica here: that one must be stopped first.
    pub fn start_replica(&mut self, now: Micros, seating: &Seating) {
        self.now = now;
        let Some(cluster) = &mut self.cluster else { return };
        let group = seating.group;
        if cluster.groups.contains_key(&group) {
            return;
        }
        let scope = Scope { partitions: seating.partitions, own: group.partition() };
        let seed = store_seed(cluster.seed, group);
        let kept = cluster.kept.remove(&group).filter(|kept| kept.replica == seating.replica);
        let fresh = kept.is_none();
        let (store, past) = match kept {
            Some(Kept { store, past, .. }) => (store, past),
            None => beginning(seed, seating),
        };
        let mark = match &past {
            Past::Restored(restored) => Some(restored.mark.clone()),
            Past::Joining { .. } => None,
        };
        let replica = seating.replica;
        let mut store = store.within(scope);
        store.set_policy(seating.policy);
        store.set_pieces_at_once(self.slice_steps.0);
        let partition = Partition::seated(group, store, Seat::new(seating, Some(past)));
        let at = self.place(partition.with_memory(seating.memory));
        self.routes.lay(group.keyspace(), seating.partitions);
        match (mark, &mut self.cluster) {
            (Some(mark), Some(cluster)) if fresh => {
                cluster.openings.push(Opening { at, group, replica, mark });
                self.make_busy(at);
            }
            (mark, _) => {
                self.ask_host(Job::Added { at, group, holding: Holding { replica, mark }, fresh });
                if !fresh {
                    self.make_ready(at);
                }
            }
        }
    }

    /// Has groups that begin here begin in the log too. Their founders begin when that is synced, and the disk has them:
    /// after a crash before that there is none; after one behind it, what the log has of an earlier group with the same
    /// number is void. Who joins a group needs none of that: until it has a snapshot, nothing in its log counts.
    pub(super) fn open_groups(&mut self, log: &mut dyn LogSink) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| !cluster.openings.is_empty()) else {
            return;
        };
        let openings = core::mem::take(&mut cluster.openings);
        let reset = |&Opening { group, ref mark, .. }: &Opening| Record::Reset {
            group,
            index: mark.index,
            term: mark.term,
        };
        let records: Vec<Record<'_>> = openings.iter().map(reset).collect();
        match log.append(&records, Durability::Always) {
            Ok(end) => {
                let job = |Opening { at, group, replica, mark }: Opening| {
                    let holding = Holding { replica, mark: Some(mark) };
                    (end, Job::Added { at, group, holding, fresh: true })
                };
                cluster.opened.extend(openings.into_iter().map(job));
                self.note_appended(end);
            }
            Err(_) => cluster.openings = openings,
        }
    }

    /// What the log did not take is tried again.
    pub(super) fn retry_openings(&mut self) {
        let openings = self.cluster.iter().flat_map(|cluster| &cluster.openings);
        let waits: Vec<usize> = openings.map(|opening| opening.at).collect();
        waits.into_iter().for_each(|at| self.retry_append(at));
    }

    /// The log is synced up to `lsn`: founders whose groups begin before that may begin.
    pub(super) fn opened_groups(&mut self, lsn: Lsn) {
        let Some(cluster) = &mut self.cluster else { return };
        while let Some((_, job)) = cluster.opened.pop_front_if(|(end, _)| *end <= lsn) {
            cluster.jobs.push(job);
        }
    }

    fn place(&mut self, partition: Partition) -> usize {
        let group = partition.group_id;
        let vacant = self.cluster.as_mut().and_then(|cluster| cluster.vacant.pop());
        let at = vacant.unwrap_or(self.partitions.len());
        if at == self.partitions.len() {
            self.partitions.push(partition);
        } else {
            self.partitions[at] = partition;
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.groups.insert(group, at);
        }
        at
    }

    /// The host has what it needs to begin.
    fn make_ready(&mut self, at: usize) {
        if let Some(seat) = self.partitions[at].seat_mut() {
            seat.ready = true;
        }
        self.begin_replica(at);
    }

    /// The replica takes part from now on.
    fn begin_replica(&mut self, at: usize) {
        let now = self.now;
        let Some(cluster) = &self.cluster else { return };
        let partition = &mut self.partitions[at];
        let group = partition.group_id;
        let Some(seat) = &mut partition.seat else { return };
        let others: Vec<ReplicaId> = seat.nodes.keys().copied().filter(|&id| id != seat.replica).collect();
        // Who was added gets everything from others; until one is known there is nobody.
        if others.is_empty() && matches!(seat.begins, Some(Past::Joining { .. })) {
            return;
        }
        let Some(past) = seat.begins.take() else { return };
        let chance = Rng::new(cluster.chance).fork(u64::from(group.0)).next_u64();
        let mut config = Config::new(group, seat.replica, cluster.incarnation, chance);
        (config.durability, config.leases) = (seat.durability, cluster.uses_leases(group.keyspace()));
        let mut replica = match past {
            Past::Restored(restored) => {
                seat.applied_term = restored.mark.term;
                Replica::new(config, now, *restored)
            }
            Past::Joining { hard } => {
                let known = Members::new(others.iter().copied(), [seat.replica]);
                Replica::joining(config, now, known.expect("others vote and it learns"), hard)
            }
        };
        others.into_iter().for_each(|id| replica.introduce(id));
        partition.group = Agreement::Replica(Box::new(replica));
        self.make_busy(at);
    }

    /// The placement has these members of a group at these nodes now.
    pub fn reseat(&mut self, now: Micros, group: GroupId, nodes: &[(NodeId, ReplicaId)], epoch: u64) {
        self.now = now;
        let Some(at) = self.seat_of(group) else { return };
        let Partition { group, seat, .. } = &mut self.partitions[at];
        let Some(seat) = seat else { return };
        seat.sit(nodes);
        seat.epoch = seat.epoch.max(epoch);
        if let Some(replica) = group.replica_mut() {
            let others = nodes.iter().map(|&(_, id)| id).filter(|&id| id != seat.replica);
            others.for_each(|id| replica.introduce(id));
        } else if seat.ready {
            self.begin_replica(at);
        }
        self.make_busy(at);
    }

    /// The node has no replica of this group any more. Its data is deleted.
    pub fn stop_replica(&mut self, now: Micros, group: GroupId) {
        self.now = now;
        let Some(at) = self.seat_of(group) else { return };
        self.vacate(at);
        self.stop_moving(group);
        let Some(cluster) = &mut self.cluster else { return };
        cluster.groups.remove(&group);
        // What has not begun does not begin any more.
        cluster.openings.retain(|opening| opening.group != group);
        cluster.opened.retain(|(_, job)| !matches!(job, Job::Added { group: other, .. } if *other == group));
        cluster.jobs.push(Job::Removed { at, group });
    }

    /// Its replica takes part in nothing any more; its clients are told so.
    fn vacate(&mut self, at: usize) {
        if self.partitions[at].leads {
            self.stand_down(at);
        }
        self.partitions[at].group = Agreement::Gone;
        if let Some(seat) = self.partitions[at].seat_mut() {
            (seat.serving, seat.begins) = (None, None);
        }
        self.settle_route(at);
        let flying = core::mem::take(&mut self.partitions[at].flying);
        for batch in flying {
            self.give_up(at, batch, Undone::TriedAgain);
        }
        let open = self.partitions[at].take_open();
        self.undo(at, open, Undone::TriedAgain);
        self.set_timer(at, None);
        let Some(cluster) = &mut self.cluster else { return };
        cluster.unsynced.retain(|&other| other != at);
        if let Some(seat) = self.partitions[at].seat_mut() {
            seat.unsynced = false;
        }
    }

    /// The log takes nothing any more, for good: others are to lead and to count. What the disk has stays.
    pub(crate) fn retire(&mut self) {
        for at in 0..self.partitions.len() {
            if self.partitions[at].replicated {
                self.vacate(at);
            }
        }
        self.post();
    }

    /// An entry that this version cannot read was committed: the state is behind for ever, so the replica stops, and what
    /// the disk has of it stays for a version that can.
    pub(super) fn distrust(&mut self, at: usize, _: Index, _: &DecodeError) {
        self.vacate(at);
        if let Some(cluster) = &mut self.cluster {
            cluster.dropped.unreadable += 1;
        }
    }

    fn seat_of(&self, group: GroupId) -> Option<usize> {
        self.cluster.as_ref()?.groups.get(&group).copied()
    }

    /// The place of a partition's replica on this node, leading or not.
    #[must_use]
    pub fn local(&self, db: KeyspaceId, partition: u16) -> Option<usize> {
        let at = self.seat_of(GroupId::new(db, partition))?;
        self.partitions[at].replica().map(|_| at)
    }

    /// The replica of a group on this node, to be asked for a change or a handover.
    pub fn replica_mut(&mut self, group: GroupId) -> Option<&mut Replica> {
        let at = self.seat_of(group)?;
        self.make_busy(at);
        self.partitions[at].group.replica_mut()
    }

    /// A checkpoint of partition `at` up to `index` is durable. Gives back up to where the node's log may give the
    /// group's entries away: not those that follow a snapshot which is on its way to a member.
    pub fn checkpointed(&mut self, at: usize, index: Index) -> Index {
        let Some(replica) = self.partitions[at].group.replica_mut() else { return index };
        let index = replica.sent_snapshot().map_or(index, |sent| sent.min(index));
        replica.compact(index);
        index
    }

    /// A node is suspected: groups that sleep under its leadership are woken.
    pub fn rouse(&mut self, now: Micros, node: NodeId) {
        self.now = now;
        for at in 0..self.partitions.len() {
            let Partition { group, seat, .. } = &mut self.partitions[at];
            let (Some(replica), Some(seat)) = (group.replica_mut(), seat) else { continue };
            let leader = match replica.standing() {
                consensus::group::Standing::Follower(leader) => leader,
                consensus::group::Standing::Leader | consensus::group::Standing::Candidate => None,
            };
            if replica.is_asleep() && leader.is_some_and(|leader| seat.nodes.get(&leader) == Some(&node)) {
                replica.rouse(now);
                self.make_busy(at);
            }
        }
    }
}

/// What host and worker exchange.
impl Worker {
    /// A frame of another node arrived.
    pub fn peer_frame(&mut self, now: Micros, from: NodeId, bytes: &[u8]) {
        self.now = now;
        if self.mind_frame(from, bytes) {
            return;
        }
        let Some((&kind, rest)) = bytes.split_first() else { return };
        match kind {
            kind::CONSENSUS => self.take_mail(from, rest),
            kind::SNAPSHOT => self.take_snapshot_frame(from, rest),
            kind::PARCELS => self.take_parcels_frame(from, rest),
            _ => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.dropped.unknown += 1;
                }
            }
        }
    }

    /// There is a (new) link to `peer`: what was sent before may be lost.
    pub fn peer_up(&mut self, now: Micros, peer: NodeId) {
        self.now = now;
        self.post_up(peer);
        self.move_over(peer, true);
        self.mind_link(peer, true);
        for at in 0..self.partitions.len() {
            let Partition { group, seat, .. } = &mut self.partitions[at];
            let (Some(replica), Some(seat)) = (group.replica_mut(), seat) else { continue };
            let ids = seat.nodes.iter().filter(|(_, node)| **node == peer).map(|(&id, _)| id);
            ids.for_each(|id| replica.peer_returned(id));
        }
    }

    /// There is no link to `peer` any more. Groups that sleep under its leadership look whether it is still there.
    pub fn peer_down(&mut self, now: Micros, peer: NodeId) {
        self.now = now;
        self.post_down(peer);
        self.move_over(peer, false);
        self.mind_link(peer, false);
        self.rouse(now, peer);
    }

    /// The node that a worker's number stands for, if it is that of another node.
    #[must_use]
    pub fn peer(&self, worker: WorkerId) -> Option<NodeId> {
        self.cluster.as_ref()?.peers.node(worker)
    }

    /// The frames of this turn. To be called when it has ended.
    pub fn take_frames(&mut self, out: &mut Vec<Outgoing>) {
        if let Some(cluster) = &mut self.cluster {
            out.append(&mut cluster.frames);
        }
    }

    /// What the host is to do.
    pub fn take_jobs(&mut self, out: &mut Vec<Job>) {
        if let Some(cluster) = &mut self.cluster {
            out.append(&mut cluster.jobs);
        }
    }

    /// Frames and messages that were not taken.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.cluster.as_ref().map(|cluster| cluster.dropped).unwrap_or_default()
    }

    /// The host did something; the turn goes on with it.
    pub fn job_done(&mut self, now: Micros, done: Done) {
        self.now = now;
        match done {
            Done::Added { at } => self.make_ready(at),
            Done::Removed { at } => {
                let gone = self.partitions[at].is_gone();
                if let Some(cluster) = self.cluster.as_mut().filter(|_| gone) {
                    cluster.vacant.push(at);
                }
            }
            Done::ControlPersisted { index } => self.mind_persisted(index),
            Done::Made { at, descriptor } => {
                let replica = self.partitions[at].group.replica_mut();
                if let (Some(replica), Some(descriptor)) = (replica, descriptor) {
                    replica.offer_snapshot(&descriptor);
                    self.make_busy(at);
                    self.hold_out(self.partitions[at].group_id, descriptor.generation);
                }
            }
            Done::Fetched { at, generation, here: true } => {
                if let Some(replica) = self.partitions[at].group.replica_mut() {
                    replica.snapshot_staged(generation);
                    self.make_busy(at);
                }
            }
            Done::Fetched { at, generation, here: false } => self.refuse_snapshot(at, generation),
            Done::Transferred(report) => self.transferred(report),
            Done::Installed { at, store } => self.install(at, *store),
            Done::Entries { at, last, entries } => self.take_entries(at, last, entries),
        }
    }

    pub(super) fn refuse_snapshot(&mut self, at: usize, generation: u64) {
        if let Some(replica) = self.partitions[at].group.replica_mut() {
            replica.snapshot_refused(generation);
            self.make_busy(at);
        }
    }

    fn install(&mut self, at: usize, store: Store) {
        let partition = &mut self.partitions[at];
        let Some(replica) = partition.group.replica_mut() else { return };
        let index = store.applied();
        let policy = partition.store.policy();
        partition.store = store;
        partition.store.set_policy(policy);
        partition.store.set_pieces_at_once(self.slice_steps.0);
        replica.snapshot_installed(index);
        let term = replica.term_at(index);
        if let (Some(seat), Some(term)) = (partition.seat_mut(), term) {
            seat.applied_term = term;
        }
        self.make_busy(at);
    }

    fn take_entries(&mut self, at: usize, last: Index, mut entries: Vec<Logged>) {
        let Some(replica) = self.partitions[at].group.replica_mut() else { return };
        // What the log has otherwise than the replica is nothing to send on.
        let sound = |entry: &&Logged| replica.term_at(entry.index()) == Some(entry.term());
        entries.truncate(entries.iter().take_while(sound).count());
        if entries.is_empty() {
            // They would be asked for again and again: whoever needs them gets a snapshot.
            replica.compact(last);
        }
        replica.fetched(entries);
        self.make_busy(at);
    }
}

/// A replica that the disk has not: a founder's state is that before the first entry, which the mark stands for.
fn beginning(seed: u64, seating: &Seating) -> (Store, Past) {
    let mut store = Store::new(seed);
    match &seating.founders {
        Some(founders) => {
            let mark = Mark::first(founders.clone());
            store.begin_entry(mark.index, Micros(0));
            store.end_entry();
            (store, Past::Restored(Box::new(Restored::first(mark))))
        }
        None => (store, Past::Joining { hard: (Term(0), None) }),
    }
}
