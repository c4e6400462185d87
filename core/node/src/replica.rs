//! The turns of a clustered node: records of all its replicas in one append, then what they say, commit and want.
//!
//! An entry of this node is answered when its own term and index come back committed; entries of others are applied
//! without a word. Reads of a turn without writes are confirmed by a majority, or by a later entry of this leader that is
//! committed: it was proposed after they came, so what is before it in the log is what they may see.

pub(crate) mod copies;
mod mail;
mod moving;
mod placing;
mod serving;
mod undone;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU64;

use consensus::group::{Committed, Event, Write};
use consensus::{Body, Durability, Group, Proposed, Replica, ReplicaId};
use journal::record::{Entry, HardState, Record};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn, Micros, Term};
use storage::apply::{Machinery, apply_entry};
use storage::command::generic::TICK;
use storage::entry::put_command;

use self::undone::Undone;
use crate::cluster::seat::Seat;
use crate::cluster::{Holding, Job};
use crate::partition::{Batch, Partition, Queued, What};
use crate::worker::{AppendError, LogSink, ROUNDS_MAX, SEMANTICS, Worker};

/// An entry with more bytes has one command only: followers get small appends, and one after the other.
const ENTRY_BYTES: usize = 1 << 20;
/// Most bytes of one command: with what is around it, it must fit a frame of the bulk link.
pub(crate) const COMMAND_BYTES_MAX: usize = 15 << 20;

/// After the log refused what a replica must write, it is asked again after so many milliseconds.
const APPEND_RETRY_MS: u64 = 100;

/// What one replica has for the turn's append.
struct Share {
    at: usize,
    /// Its entry's term; the rest is in the open batch.
    entry: Option<Term>,
    /// The group took nothing just now.
    parked: bool,
}

impl Worker {
    pub(crate) fn take_replica_rounds(&mut self, log: &mut dyn LogSink) -> bool {
        for _ in 0..ROUNDS_MAX {
            if self.take_replica_round(log) {
                self.retry_transfers();
            }
            self.retry_journeys();
            self.take_home();
            if !self.resume_waiting() && self.opened.is_empty() && !self.has_busy() {
                self.let_guests_go();
                return false;
            }
        }
        self.let_guests_go();
        true
    }

    /// Whether a replica has something to do at once.
    pub(crate) fn has_busy(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| !cluster.busy.is_empty())
    }

    /// Logs what is open and what replicas must write, in one append, and lets them go on. True if there was something.
    fn take_replica_round(&mut self, log: &mut dyn LogSink) -> bool {
        self.open_groups(log);
        let shares = self.shares();
        let any = !shares.is_empty();
        let written = !any || self.append_shares(&shares, log);
        for share in shares {
            self.drive(share.at);
            if !share.parked {
                // Something has happened, so it may take what waits. Else it is asked again when something has.
                self.unpark(share.at);
            }
            if !written {
                self.retry_append(share.at);
            } else if self.partitions[share.at].replica().is_some_and(|one| one.writes().len() > 0) {
                self.make_busy(share.at);
            }
        }
        // Last, because a replica that was driven has its timer set anew.
        self.retry_openings();
        any
    }

    /// The replicas that have something to do, with their entries in the order in which these were opened.
    fn shares(&mut self) -> Vec<Share> {
        let mut shares = Vec::new();
        for at in core::mem::take(&mut self.opened) {
            if self.partitions[at].open.queued.is_empty() || shares.iter().any(|share: &Share| share.at == at)
            {
                continue;
            }
            let entry = self.close_open(at);
            shares.push(Share { at, entry, parked: self.partitions[at].parked });
        }
        let Some(cluster) = &mut self.cluster else { return shares };
        for at in core::mem::take(&mut cluster.busy) {
            if let Some(seat) = &mut self.partitions[at].seat {
                seat.busy = false;
            }
            if !shares.iter().any(|share| share.at == at) {
                shares.push(Share { at, entry: None, parked: false });
            }
        }
        shares
    }

    /// Decides what becomes of what is open in partition `at`: an entry, whose term is given back; a round of reads,
    /// which is on its way then; or neither now.
    fn close_open(&mut self, at: usize) -> Option<Term> {
        let now = self.now;
        self.wake_still(at);
        let partition = &mut self.partitions[at];
        if !partition.leads {
            let open = partition.take_open();
            self.undo(at, open, Undone::TriedAgain);
            return None;
        }
        let (tick_after, still) = (partition.tick_after, partition.stands_still(now));
        let Partition { store, group, open, flying, parked, spare, .. } = partition;
        let replica = group.replica_mut()?;
        open.time = store.time().max(now);
        let due = store.next_expiry().is_some_and(|expiry| expiry <= now.millis());
        let ticks = open.body.is_empty() && due && now >= tick_after;
        // What is only read is no proposal.
        if still && (ticks || !open.body.is_empty()) {
            *parked = true;
            return None;
        }
        if ticks {
            put_command(&mut open.body, TICK, &[]);
            open.queued.push(Queued::own());
        }
        if open.body.is_empty() {
            *parked = match replica.read(now) {
                Some(id) => {
                    (open.read, open.term, open.index) = (Some(id), replica.term(), Index(0));
                    flying.push_back(core::mem::replace(open, spare.pop().unwrap_or_default()));
                    false
                }
                None => true,
            };
            return None;
        }
        let place = replica.propose();
        *parked = place.is_none();
        let (term, index) = place?;
        (open.term, open.index) = (term, index);
        if open.body.len() > ENTRY_BYTES { self.cut_open(at, term) } else { Some(term) }
    }

    /// More is open than one entry should have: it gets what fits, at least one command, and the rest follows. None if
    /// that one command is too large for an entry.
    #[cold]
    fn cut_open(&mut self, at: usize, term: Term) -> Option<Term> {
        let partition = &mut self.partitions[at];
        let rest = partition.open.split(ENTRY_BYTES);
        partition.rest = (!rest.queued.is_empty()).then(|| Box::new(rest));
        if partition.open.body.len() <= COMMAND_BYTES_MAX {
            return Some(term);
        }
        partition.group.withdraw(partition.open.index);
        let batch = partition.take_open();
        self.refuse(at, batch, AppendError::TooLarge);
        self.open_rest(at);
        None
    }

    /// What did not fit the last entry is open now, behind what has been opened since.
    fn open_rest(&mut self, at: usize) {
        let Some(mut rest) = self.partitions[at].rest.take() else { return };
        self.open_any(at);
        let open = &mut self.partitions[at].open;
        open.body.append(&mut rest.body);
        open.reads.append(&mut rest.reads);
        open.queued.append(&mut rest.queued);
    }

    /// Appends the turn's records. False if the log refused them.
    fn append_shares(&mut self, shares: &[Share], log: &mut dyn LogSink) -> bool {
        let mut records = Vec::new();
        let mut durability = Durability::EverySec;
        for share in shares {
            let partition = &self.partitions[share.at];
            let Some(replica) = partition.replica() else { continue };
            let before = records.len();
            for write in replica.writes() {
                if matches!(write, Write::HardState { .. } | Write::Reset { .. }) {
                    durability = Durability::Always;
                }
                records.push(record(partition.group_id, write));
            }
            if share.entry.is_some() {
                records.push(partition.proposal());
            }
            if records.len() > before && replica.durability() == Durability::Always {
                durability = Durability::Always;
            }
        }
        if records.is_empty() {
            return true;
        }
        let appended = log.append(&records, durability);
        drop(records);
        for share in shares {
            match appended {
                Ok(end) => self.note_written(share, end),
                Err(error) => self.note_refused(share, error),
            }
        }
        if let Ok(end) = appended {
            self.note_appended(end);
        }
        appended.is_ok()
    }

    fn note_written(&mut self, share: &Share, end: Lsn) {
        let Partition { group, seat, open, flying, spare, .. } = &mut self.partitions[share.at];
        let (Some(replica), Some(seat)) = (group.replica_mut(), seat) else { return };
        if replica.writes().len() == 0 && share.entry.is_none() {
            return;
        }
        if share.entry.is_some() {
            let batch = core::mem::replace(open, spare.pop().unwrap_or_default());
            let Batch { index, time, body, .. } = &batch;
            replica.written(&Proposed { index: *index, semantics: SEMANTICS, time: *time, body }, end);
            flying.push_back(batch);
        } else {
            replica.wrote(end);
        }
        seat.written = end;
        if !core::mem::replace(&mut seat.unsynced, true)
            && let Some(cluster) = &mut self.cluster
        {
            cluster.unsynced.push(share.at);
        }
        if share.entry.is_some() {
            self.open_rest(share.at);
            if self.partitions[share.at].untried {
                self.try_all(share.at);
            }
        }
    }

    fn note_refused(&mut self, share: &Share, error: AppendError) {
        if share.entry.is_none() {
            return;
        }
        let partition = &mut self.partitions[share.at];
        let batch = partition.take_open();
        partition.group.withdraw(batch.index);
        self.refuse(share.at, batch, error);
        self.open_rest(share.at);
    }

    /// The log is synced up to `lsn`.
    pub(crate) fn synced_replicas(&mut self, lsn: Lsn) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut news = Vec::new();
        cluster.unsynced.retain(|&at| {
            let Partition { group, seat, .. } = &mut self.partitions[at];
            group.synced(lsn);
            news.push(at);
            let Some(seat) = seat else { return false };
            seat.unsynced = seat.written > lsn;
            seat.unsynced
        });
        news.into_iter().for_each(|at| self.make_busy(at));
        self.opened_groups(lsn);
        self.mind_synced(lsn);
    }

    /// Lets a replica send, tell and apply what it has.
    fn drive(&mut self, at: usize) {
        let now = self.now;
        match self.partitions[at].group.replica_mut() {
            Some(replica) => replica.turn(now),
            None => return,
        }
        loop {
            self.send_messages(at);
            let Some(replica) = self.partitions[at].group.replica_mut() else { return };
            if let Some(event) = replica.next_event() {
                self.take_event(at, event);
                continue;
            }
            let Some(committed) = replica.next_committed() else { break };
            let index = committed.index;
            self.take_committed(at, committed);
            if let Some(replica) = self.partitions[at].group.replica_mut() {
                replica.applied(index);
            }
        }
        self.settle_standing(at);
        self.settle_flying(at);
        self.settle_timer(at);
    }

    fn take_event(&mut self, at: usize, event: Event) {
        let group = self.partitions[at].group_id;
        let replica = self.partitions[at].seat.as_ref().map(|seat| seat.replica);
        match event {
            // What it is now is asked when all it says is heard.
            Event::Stands(_) | Event::Members(_) | Event::Recovered => {
                if let Some(thinking) = self.thinking_mut() {
                    thinking.look = true;
                }
            }
            Event::Read { id, index } => self.read_confirmed(at, id, index),
            Event::MakeSnapshot => self.ask_host(Job::MakeSnapshot { at }),
            Event::FetchEntries { first, last } => {
                self.ask_host(Job::ReadEntries { at, group, first, last });
            }
            Event::FetchSnapshot { from, descriptor } => match self.node_of(at, from) {
                Some(from) => self.fetch_snapshot(at, group, from, descriptor),
                None => self.refuse_snapshot(at, descriptor.generation),
            },
            Event::InstallSnapshot(descriptor) => {
                self.overtaken(at, descriptor.mark.index);
                if let Some(replica) = replica {
                    let holding = Holding { replica, mark: Some(descriptor.mark.clone()) };
                    self.ask_host(Job::Install { at, group, descriptor, holding });
                }
            }
        }
    }

    /// Applies a committed entry: with answers if it is one of this node's.
    fn take_committed(&mut self, at: usize, committed: Committed) {
        let Committed { term, index, body } = committed;
        if is(Bug::AnsweredBeforeCommit) && index <= self.partitions[at].store.applied() {
            return;
        }
        let partition = &mut self.partitions[at];
        if let Some(seat) = &mut partition.seat {
            seat.applied_term = term;
        }
        let is_it = |batch: &Batch| {
            batch.read.is_none() && batch.index == index && (batch.term == term || is(Bug::OtherTermAnswered))
        };
        if let Some(before) = partition.flying.iter().position(is_it) {
            for _ in 0..before {
                let batch = self.partitions[at].flying.pop_front();
                self.settle_before(at, batch.expect("it is before one that is there"));
            }
            let batch = self.partitions[at].flying.pop_front().expect("it was just found");
            return self.apply_batch(at, batch);
        }
        let time = partition.store.time();
        let (time, commands) = match &body {
            Body::Commands(entry) => (entry.time(), entry.body()),
            // The store counts the group's own entries too, so that its index is the group's.
            Body::Nothing | Body::Change(_) => (time, &[][..]),
        };
        let mut machinery = Machinery {
            registry: &self.registry,
            scripting: &mut *self.scripting,
            effects: &mut self.effects,
        };
        let applied = apply_entry(&mut partition.store, &mut machinery, index, time, commands);
        partition.written += commands.len() as u64;
        if let Err(error) = applied {
            self.distrust(at, index, &error);
        }
        self.notice_changes(at);
        self.reading = false;
    }

    fn node_of(&self, at: usize, replica: ReplicaId) -> Option<kernel::NodeId> {
        self.partitions[at].seat.as_ref()?.nodes.get(&replica).copied()
    }

    pub(crate) fn ask_host(&mut self, job: Job) {
        if let Some(cluster) = &mut self.cluster {
            cluster.jobs.push(job);
        }
    }

    pub(crate) fn make_busy(&mut self, at: usize) {
        let (Some(cluster), Some(seat)) = (&mut self.cluster, &mut self.partitions[at].seat) else { return };
        if !core::mem::replace(&mut seat.busy, true) {
            cluster.busy.push(at);
        }
    }

    /// What could not be logged is tried again later.
    fn retry_append(&mut self, at: usize) {
        let at_least = self.now.plus_millis(APPEND_RETRY_MS);
        let due = self.partitions[at].replica().and_then(Replica::deadline);
        self.set_timer(at, Some(due.map_or(at_least, |due| due.min(at_least))));
    }

    fn settle_timer(&mut self, at: usize) {
        let partition = &self.partitions[at];
        let replica = partition.replica().and_then(Replica::deadline);
        let undecided = partition.seat.as_ref().and_then(|seat| seat.undecided);
        self.set_timer(at, replica.into_iter().chain(undecided).min());
    }

    fn set_timer(&mut self, at: usize, timer: Option<Micros>) {
        let (Some(cluster), Some(seat)) = (&mut self.cluster, &mut self.partitions[at].seat) else { return };
        if seat.timer == timer {
            return;
        }
        if let Some(before) = core::mem::replace(&mut seat.timer, timer) {
            cluster.timers.remove(&(before, at));
        }
        cluster.timers.extend(timer.map(|timer| (timer, at)));
    }

    /// When a replica must be woken next.
    pub(crate) fn replicas_deadline(&self) -> Option<Micros> {
        let cluster = self.cluster.as_ref()?;
        let replica = cluster.timers.first().map(|&(at, _)| at);
        replica.into_iter().chain(self.transfers_deadline()).chain(self.mind_deadline()).min()
    }

    /// Lets time pass for the replicas whose time has come.
    pub(crate) fn wake_replicas(&mut self) {
        let now = self.now;
        self.wake_transfers();
        while let Some(cluster) = &mut self.cluster {
            let Some(&(due, at)) = cluster.timers.first() else { return };
            if due > now {
                return;
            }
            self.set_timer(at, None);
            self.make_busy(at);
            if let Some(replica) = self.partitions[at].group.replica_mut() {
                replica.wake(now);
            }
            self.give_up_undecided(at);
        }
    }
}

impl Queued {
    /// The node's own command.
    pub(crate) const fn own() -> Queued {
        Queued { conn: kernel::ConnId(0), sequence: gateway::resp::Sequence(0), what: What::Own }
    }
}

impl Partition {
    /// The open batch as a record.
    fn proposal(&self) -> Record<'_> {
        let Batch { term, index, time, ref body, .. } = self.open;
        Record::Entry(Entry { group: self.group_id, term, index, semantics: SEMANTICS, time, body })
    }

    pub(crate) fn take_open(&mut self) -> Batch {
        core::mem::replace(&mut self.open, self.spare.pop().unwrap_or_default())
    }

    pub(crate) fn seat_mut(&mut self) -> Option<&mut Seat> {
        self.seat.as_deref_mut()
    }
}

/// What a replica wants written, as the log has it.
pub(crate) fn record(group: GroupId, write: &Write) -> Record<'_> {
    match write {
        Write::Entry(entry) => Record::Entry(Entry {
            group,
            term: entry.term(),
            index: entry.index(),
            semantics: entry.semantics(),
            time: entry.time(),
            body: entry.body(),
        }),
        Write::HardState { term, vote } => {
            let vote = vote.and_then(|vote| NonZeroU64::new(vote.get()));
            Record::HardState(HardState { group, term: *term, vote })
        }
        &Write::Reset { index, term } => Record::Reset { group, index, term },
        &Write::Committed(index) => Record::Committed { group, index },
        Write::Abandon => Record::Abandon { group },
    }
}
