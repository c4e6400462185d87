//! A partition on the worker that owns it: its state, its group, and the commands on their way.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use consensus::group::ReadId;
use consensus::{Group, Replica, Solo};
use gateway::resp::Sequence;
use kernel::codec::Reader;
use kernel::{ConnId, GroupId, Index, KeyspaceId, Micros, Term};
use storage::Store;
use storage::entry::{Args, next_command};

use crate::agreement::Agreement;
use crate::cluster::Holding;
use crate::cluster::seat::Seat;
use crate::parcel::Guest;
use crate::standstill::Stand;

/// A queued command and who waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub conn: ConnId,
    pub sequence: Sequence,
    pub what: What,
}

/// Where a queued command's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The next in the batch's logged body.
    Write,
    /// The next among its reads: it follows a write of its own connection.
    Read,
    /// The next in the logged body; nobody is answered (the node's own).
    Own,
    /// The next in the logged body: the node's own deletion of a key that weighs so many bytes.
    Evict(u64),
    /// The next in the logged body: two keyspaces are exchanged.
    Swap,
    /// The next in the logged body: a part of a command on several keyspaces.
    Part(u64),
    /// The next in the logged body: a waiting client's blocking command is tried again.
    Retry(u64),
    /// As [`What::Write`], answered by way of [`Others`](crate::abroad::Others).
    GuestWrite(Guest),
    /// As [`What::Read`], answered likewise.
    GuestRead(Guest),
}

impl What {
    /// Whether its bytes are among the batch's reads.
    pub const fn is_read(self) -> bool {
        matches!(self, What::Read | What::GuestRead(_))
    }
}

/// The commands of one turn, in order; the writes among them become one log entry.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub body: Vec<u8>,
    pub reads: Vec<u8>,
    pub queued: Vec<Queued>,
    pub index: Index,
    /// The term in which it was proposed, or asked for.
    pub term: Term,
    pub time: Micros,
    /// Of a replicated group, and without a body: the round that confirms its reads,
    pub read: Option<ReadId>,
    /// and what must be applied before them, once that is confirmed.
    pub confirmed: Option<Index>,
    /// Its reads see expiries up to here, if that is later than `time`: they were queued behind it when the
    /// log refused their own batch.
    pub reads_at: Micros,
}

impl Batch {
    pub fn clear(&mut self) {
        self.body.clear();
        self.reads.clear();
        self.queued.clear();
        self.reads_at = Micros(0);
        (self.read, self.confirmed) = (None, None);
    }

    /// Cuts it behind the first commands whose writes take about `bytes`, at least one; gives back the rest, which is
    /// empty if all fit. O(what stays).
    pub fn split(&mut self, bytes: usize) -> Batch {
        let mut writes = Reader::new(&self.body);
        let mut reads = Reader::new(&self.reads);
        let mut args = Args::new();
        let mut count = 0;
        for item in &self.queued {
            let (before, left) = (writes.rest().len(), self.body.len());
            let reader = if item.what.is_read() { &mut reads } else { &mut writes };
            next_command(reader, &mut args).expect("a batch holds the commands it queued");
            let taken = left - writes.rest().len();
            if !item.what.is_read() && taken > bytes && before < left {
                break;
            }
            count += 1;
        }
        drop(args);
        if count == self.queued.len() {
            return Batch::default();
        }
        // What stays is read once more: the command that did not fit was read too.
        let (mut writes, mut reads) = (Reader::new(&self.body), Reader::new(&self.reads));
        let mut args = Args::new();
        for item in &self.queued[..count] {
            let reader = if item.what.is_read() { &mut reads } else { &mut writes };
            next_command(reader, &mut args).expect("it was just read");
        }
        let rest = Batch {
            body: writes.rest().to_vec(),
            reads: reads.rest().to_vec(),
            queued: self.queued.split_off(count),
            ..Batch::default()
        };
        drop(args);
        self.body.truncate(self.body.len() - rest.body.len());
        self.reads.truncate(self.reads.len() - rest.reads.len());
        rest
    }
}

/// A client that waits in a blocking command.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub conn: ConnId,
    pub sequence: Sequence,
    /// What it speaks, if it is another worker's client.
    pub guest: Option<Guest>,
    /// The whole command as in an entry's body, to be proposed again.
    pub encoded: Vec<u8>,
    pub keys: Vec<Box<[u8]>>,
    pub deadline: Option<Micros>,
    pub null_bulk: bool,
    /// It is proposed and not yet applied.
    pub trying: bool,
    /// Its time ran out while it was being tried.
    pub expired: bool,
}

/// A client that watches a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watcher {
    pub conn: ConnId,
    /// The key existed when the watch began; else a flush does not change it.
    pub existed: bool,
}

/// One partition.
pub struct Partition {
    pub(crate) group_id: GroupId,
    /// The keyspace that it serves now: `SWAPDB` changes it.
    pub(crate) keyspace: KeyspaceId,
    /// Bytes of memory that its entries may take, as configured.
    pub(crate) memory: Option<usize>,
    pub(crate) store: Store,
    pub(crate) group: Agreement,
    /// Whether it is one of several replicas, or none at all any more.
    pub(crate) replicated: bool,
    /// Whether it serves clients: it leads, and has applied everything that earlier leaders may have acknowledged.
    pub(crate) leads: bool,
    /// Of a replicated group.
    pub(crate) seat: Option<Box<Seat>>,
    /// The group takes nothing at the moment: what is open waits, and clients with it.
    pub(crate) parked: bool,
    /// Tickets under which it stands still, or did a while ago.
    pub(crate) stands: Vec<Stand>,
    /// It proposes nothing since then, see [`crate::standstill`],
    pub(crate) still_since: Option<Micros>,
    /// and once that is over, not again before this.
    pub(crate) still_after: Micros,
    pub(crate) open: Batch,
    /// While a turn's entry is appended: what did not fit it.
    pub(crate) rest: Option<Box<Batch>>,
    pub(crate) flying: VecDeque<Batch>,
    pub(crate) spare: Vec<Batch>,
    pub(crate) watchers: BTreeMap<Box<[u8]>, Vec<Watcher>>,
    pub(crate) waiters: BTreeMap<u64, Waiter>,
    pub(crate) waiting_keys: BTreeMap<Box<[u8]>, Vec<u64>>,
    /// The log refused to try a waiting client again; to be done once it takes something, or by the clock.
    pub(crate) untried: bool,
    /// No tick and no such try before this: the log refused one entry and is not asked again at once.
    pub(crate) tick_after: Micros,
    pub(crate) stalled: bool,
    pub(crate) stalled_writers: Vec<ConnId>,
    pub(crate) full: bool,
    /// Bytes of all writes applied since the start.
    pub(crate) written: u64,
    /// A limit set by clients holds, and all keys stay: see [`crate::budget`].
    pub(crate) limited: bool,
    /// Bytes of keys whose deletion is on its way.
    pub(crate) leaving: u64,
}

impl Partition {
    /// A partition that recovered `store`, led by `group`.
    #[must_use]
    pub fn new(group_id: GroupId, store: Store, group: Solo) -> Partition {
        Partition {
            group_id,
            keyspace: group_id.keyspace(),
            memory: None,
            store,
            group: Agreement::Solo(group),
            replicated: false,
            leads: true,
            seat: None,
            parked: false,
            stands: Vec::new(),
            still_since: None,
            still_after: Micros(0),
            open: Batch::default(),
            rest: None,
            flying: VecDeque::new(),
            spare: Vec::new(),
            watchers: BTreeMap::new(),
            waiters: BTreeMap::new(),
            waiting_keys: BTreeMap::new(),
            untried: false,
            tick_after: Micros(0),
            stalled: false,
            stalled_writers: Vec::new(),
            full: false,
            written: 0,
            limited: false,
            leaving: 0,
        }
    }

    /// An empty place for a replica of `group_id`.
    pub(crate) fn seated(group_id: GroupId, store: Store, seat: Seat) -> Partition {
        let nobody = Solo::new(Term(0), Index(0), consensus::Durability::EverySec);
        Partition {
            group: Agreement::Gone,
            replicated: true,
            leads: false,
            seat: Some(Box::new(seat)),
            ..Partition::new(group_id, store, nobody)
        }
    }

    /// Whether it serves clients. A group of one always does; a replica when it leads and has applied everything that
    /// earlier leaders may have acknowledged.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.leads
    }

    /// Whether its replica is gone, or has not begun.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.group, Agreement::Gone)
    }

    /// The replica, if its group has several.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.group.replica()
    }

    /// What a checkpoint of the state as it is now must say of a replicated group. `None` for a group of one; and
    /// while a snapshot is being installed, when there must be no checkpoint: see [`Partition::may_be_cut`].
    #[must_use]
    pub fn cut(&self) -> Option<Holding> {
        let replica = self.group.replica()?;
        Some(Holding { replica: replica.id(), mark: Some(replica.cut()?) })
    }

    /// Whether a checkpoint may be made now.
    #[must_use]
    pub fn may_be_cut(&self) -> bool {
        !self.replicated || self.cut().is_some()
    }

    /// The same for `keyspace`, which has its data in this group since a `SWAPDB`.
    #[must_use]
    pub const fn serving(mut self, keyspace: KeyspaceId) -> Partition {
        self.keyspace = keyspace;
        self
    }

    /// The same with a budget of `memory` bytes.
    #[must_use]
    pub const fn with_memory(mut self, memory: Option<usize>) -> Partition {
        self.memory = memory;
        self
    }

    /// The keyspace that it serves now.
    #[must_use]
    pub const fn keyspace(&self) -> KeyspaceId {
        self.keyspace
    }

    /// Its state.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Bytes of all writes applied since the start.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Its state, for the checkpoint.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The term it leads in.
    #[must_use]
    pub fn term(&self) -> Term {
        self.group.term()
    }

    /// Its group.
    #[must_use]
    pub const fn group_id(&self) -> GroupId {
        self.group_id
    }

    /// Its number in its keyspace.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.group_id.partition()
    }

    /// The last entry that is as durable as promised.
    #[must_use]
    pub fn committed(&self) -> Index {
        self.group.committed()
    }

    /// The store must note changes exactly while someone watches or waits.
    pub(crate) fn settle_interest(&mut self) {
        self.store.set_interest(!self.watchers.is_empty() || !self.waiters.is_empty());
    }

    /// True if nothing is on its way to the log or waits for it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.open.queued.is_empty() && self.flying.is_empty()
    }

    pub(crate) fn forget_waiter(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        for key in &waiter.keys {
            if let Some(ids) = self.waiting_keys.get_mut(key) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    self.waiting_keys.remove(key);
                }
            }
        }
        self.settle_interest();
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use storage::entry::put_command;

    use super::*;

    fn batch(kinds: &[(bool, usize)]) -> Batch {
        let mut batch = Batch::default();
        for (number, &(write, bytes)) in kinds.iter().enumerate() {
            let what = if write { What::Write } else { What::Read };
            let to = if write { &mut batch.body } else { &mut batch.reads };
            put_command(to, number as u16, &[&alloc::vec![b'x'; bytes]]);
            let sequence = Sequence(number as u64);
            batch.queued.push(Queued { conn: ConnId(1), sequence, what });
        }
        batch
    }

    fn numbers(batch: &Batch) -> Vec<(u64, u16)> {
        let (mut writes, mut reads) = (Reader::new(&batch.body), Reader::new(&batch.reads));
        let mut args = Args::new();
        let all = batch.queued.iter().map(|item| {
            let reader = if item.what.is_read() { &mut reads } else { &mut writes };
            (item.sequence.0, next_command(reader, &mut args).expect("it holds what it queued"))
        });
        let all = all.collect();
        assert!(writes.is_empty() && reads.is_empty(), "nothing is left over");
        all
    }

    #[test]
    fn a_batch_is_cut_between_commands() {
        const R: bool = false;
        const W: bool = true;
        #[rustfmt::skip] // columns
        let table: [(&[(bool, usize)], usize); 6] = [
            // commands and their bytes,                stay for 100 bytes
            (&[(W, 10), (R, 10), (W, 10)],               3),
            (&[(W, 60), (R, 500), (W, 60), (R, 1)],      2),
            (&[(R, 500), (W, 200), (W, 1)],              2), // the first write always stays
            (&[(W, 200), (R, 1), (W, 1)],                2),
            (&[(W, 50), (W, 40), (W, 30), (W, 1)],       2),
            (&[],                                        0),
        ];
        for (kinds, stays) in table {
            let mut first = batch(kinds);
            let rest = first.split(100);
            let all: Vec<(u64, u16)> =
                (0..kinds.len()).map(|number| (number as u64, number as u16)).collect();
            assert_eq!(numbers(&first), all[..stays], "{kinds:?}");
            assert_eq!(numbers(&rest), all[stays..], "{kinds:?}");
        }
    }
}
