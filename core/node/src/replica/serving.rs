//! Who serves clients, and what becomes of what is on its way when that changes.
//!
//! A leader serves once the first entry of its term is applied: until then entries of earlier leaders may come, and
//! what it would show could be older than what they acknowledged. When it serves no more, its watches are broken and
//! who waits in a blocking command is told; commands on their way are kept until it is known whether they count.

use alloc::vec::Vec;

use consensus::group::{ReadId, Standing};
use kernel::planted::{Bug, is};
use kernel::{Index, Micros, WorkerId};
use storage::Reply;

use super::undone::Undone;
use crate::cluster::{NOBODY, UNBLOCKED, UNDECIDED_MS_MAX};
use crate::partition::{Batch, Partition};
use crate::route::Place;
use crate::worker::Worker;

impl Worker {
    /// The replica may have another standing than clients were told.
    pub(super) fn settle_standing(&mut self, at: usize) {
        let partition = &mut self.partitions[at];
        let (Some(replica), Some(seat)) = (partition.group.replica(), &mut partition.seat) else { return };
        let term = replica.term();
        if seat.serving.is_some_and(|serving| !replica.leads() || serving != term) {
            seat.serving = None;
            self.stand_down(at);
        }
        let partition = &mut self.partitions[at];
        let (Some(replica), Some(seat)) = (partition.group.replica(), &mut partition.seat) else { return };
        let complete = seat.applied_term == term;
        if seat.serving.is_none() && replica.leads() && complete && partition.store.damaged().is_none() {
            (seat.serving, seat.undecided) = (Some(term), None);
            partition.leads = true;
        }
        self.settle_route(at);
    }

    /// Says where commands for the partition go.
    pub(super) fn settle_route(&mut self, at: usize) {
        let Some(cluster) = &mut self.cluster else { return };
        let Partition { group, seat, leads, group_id, .. } = &mut self.partitions[at];
        let Some(seat) = seat else { return };
        let leader = match group.replica().map(consensus::Replica::standing) {
            Some(Standing::Follower(Some(leader))) => seat.nodes.get(&leader).copied(),
            Some(Standing::Follower(None) | Standing::Leader | Standing::Candidate) | None => None,
        };
        let place = match leader {
            _ if *leads => Place::Own(at),
            Some(node) if node != cluster.node => Place::Other(cluster.peers.worker(node)),
            Some(_) | None => Place::Other(NOBODY),
        };
        if seat.place != Some(place) {
            seat.place = Some(place);
            let group = *group_id;
            self.reroute(group, place);
        }
    }

    /// It serves no more.
    pub(super) fn stand_down(&mut self, at: usize) {
        self.partitions[at].leads = false;
        self.settle_route(at);
        let waiting = self.partitions[at].waiters.iter();
        let idle = waiting
            .filter(|(_, waiter)| !waiter.trying || is(Bug::TriedWaiterReleased))
            .map(|(&id, _)| id)
            .collect::<Vec<_>>();
        for id in idle {
            self.release(at, id, |reply, _| reply.error(UNBLOCKED));
        }
        let watchers = core::mem::take(&mut self.partitions[at].watchers);
        if !is(Bug::WatchOutlivesLeader) {
            for watcher in watchers.values().flatten() {
                match self.connections.get_mut(watcher.conn) {
                    Some(connection) => connection.io.watch_broken = true,
                    None => self.others.break_watch(watcher.conn),
                }
            }
        }
        let now = self.now;
        let partition = &mut self.partitions[at];
        partition.break_stands(now);
        partition.settle_interest();
        partition.untried = false;
        if is(Bug::UndecidedForgotten) {
            partition.flying.clear();
        }
        if let Some(seat) = partition.seat_mut() {
            seat.undecided = Some(self.now.plus_millis(UNDECIDED_MS_MAX));
        }
        if !self.partitions[at].open.queued.is_empty() {
            self.opened.push(at);
        }
        self.let_writers_on(at);
    }

    /// What the group did not take may be tried again.
    pub(crate) fn unpark(&mut self, at: usize) {
        let now = self.now;
        // What stands still is asked again when it goes on: until then there is no use in collecting more.
        if !self.partitions[at].parked || self.partitions[at].is_still(now) {
            return;
        }
        self.partitions[at].parked = false;
        if !self.partitions[at].open.queued.is_empty() {
            self.opened.push(at);
        }
        self.let_writers_on(at);
    }

    fn let_writers_on(&mut self, at: usize) {
        self.partitions[at].parked = false;
        if !self.partitions[at].stalled {
            for id in core::mem::take(&mut self.partitions[at].stalled_writers) {
                self.drained(id);
            }
        }
    }

    /// A round of reads is confirmed, or cannot be.
    pub(super) fn read_confirmed(&mut self, at: usize, id: ReadId, index: Option<Index>) {
        let now = self.now;
        self.still_confirmed(at, id, index);
        let Partition { group, flying, leads, .. } = &mut self.partitions[at];
        let mut rounds = flying.iter_mut().filter(|batch| batch.read == Some(id)).peekable();
        if rounds.peek().is_none() {
            return;
        }
        let again = match index {
            Some(_) => None,
            None if *leads => {
                group.replica_mut().and_then(|replica| Some((replica.read(now)?, replica.term())))
            }
            None => None,
        };
        for batch in rounds {
            if let Some((id, term)) = again {
                (batch.read, batch.term) = (Some(id), term);
            } else {
                batch.confirmed = index;
            }
        }
        if again.is_some() {
            // It goes out when the turn ends.
            self.make_busy(at);
        }
    }

    /// Takes from the front what is decided: reads that may be answered, and entries that others have overwritten.
    pub(super) fn settle_flying(&mut self, at: usize) {
        loop {
            let partition = &self.partitions[at];
            let Some(seat) = &partition.seat else { return };
            let (applied, applied_term) = (partition.store.applied(), seat.applied_term);
            let Some(front) = partition.flying.front() else { break };
            let fate = match front.read {
                Some(_) if front.confirmed.is_some_and(|index| index <= applied) => Fate::Readable,
                Some(_) if seat.serving != Some(front.term) => Fate::Undone,
                Some(_) => Fate::Open,
                // Terms only grow along the log, so an older one cannot follow.
                None if front.index <= applied || front.term < applied_term => Fate::Undone,
                None if is(Bug::AnsweredBeforeCommit) && front.index == applied.next() => Fate::Answered,
                None => Fate::Open,
            };
            if matches!(fate, Fate::Open) {
                break;
            }
            let Some(batch) = self.partitions[at].flying.pop_front() else { break };
            match fate {
                Fate::Readable => self.apply_reads(at, batch),
                Fate::Answered => self.apply_batch(at, batch),
                Fate::Undone | Fate::Open => self.undo(at, batch, Undone::TriedAgain),
            }
        }
        let partition = &mut self.partitions[at];
        if partition.flying.is_empty()
            && let Some(seat) = partition.seat_mut()
        {
            seat.undecided = None;
        }
    }

    /// A later entry of this node is committed: it leads since before that was proposed, so reads before it may be
    /// answered from what is applied.
    pub(super) fn settle_before(&mut self, at: usize, batch: Batch) {
        match batch.read {
            Some(_) => self.apply_reads(at, batch),
            None => self.undo(at, batch, Undone::TriedAgain),
        }
    }

    /// Nobody has led for too long: clients are told so, and of writes that nobody knows. Reads have waited as long and
    /// do not begin to look for a leader now.
    pub(super) fn give_up_undecided(&mut self, at: usize) {
        let now = self.now;
        let partition = &mut self.partitions[at];
        if partition.leads {
            return;
        }
        let due = |until: Micros| until <= now;
        let flying = match partition.seat_mut() {
            Some(seat) if seat.undecided.is_some_and(due) => {
                seat.undecided = None;
                core::mem::take(&mut partition.flying)
            }
            Some(_) | None => return,
        };
        for batch in flying {
            self.give_up(at, batch, Undone::Refused);
        }
    }

    /// A snapshot takes the place of entries up to `index`: whether this node's were among them is not known.
    pub(super) fn overtaken(&mut self, at: usize, index: Index) {
        let flying = core::mem::take(&mut self.partitions[at].flying);
        for batch in flying {
            if batch.read.is_some() || batch.index <= index {
                self.give_up(at, batch, Undone::TriedAgain);
            } else {
                self.partitions[at].flying.push_back(batch);
            }
        }
    }

    /// The worker that stands for who leads partition `at`, as far as is known.
    pub(super) fn leader_of(&self, at: usize) -> WorkerId {
        match self.partitions[at].seat.as_ref().and_then(|seat| seat.place) {
            Some(Place::Other(worker)) => worker,
            Some(Place::Own(_)) | None => NOBODY,
        }
    }
}

/// What becomes of the batch at the front.
enum Fate {
    /// Not decided.
    Open,
    /// Its reads may run.
    Readable,
    /// It is applied although it is not committed: see [`Bug::AnsweredBeforeCommit`].
    Answered,
    /// It surely has not run, and will not.
    Undone,
}
