//! What must be on disk before what: records for the node's log, and the messages that wait for them.

use std::collections::VecDeque;

use kernel::planted::{Bug, is};
use kernel::{Index, Lsn, Term};
use raft::Ready;
use raft::eraftpb::{Entry, MessageType};

use super::{Event, Replica, UNCOMMITTED_BYTES_MAX, UNWRITTEN_BYTES_MAX};
use crate::Durability;
use crate::codec::Descriptor;
use crate::entry::Logged;
use crate::members::ReplicaId;

/// A record for the node's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// An entry. It replaces what the log has from its index on.
    Entry(Logged),
    /// The term, and for whom it voted in it. Synced at once, whatever the durability.
    HardState {
        /// The term.
        term: Term,
        /// The vote.
        vote: Option<ReplicaId>,
    },
    /// The log begins anew behind a snapshot; entries before this record are void once it is installed.
    Reset {
        /// The snapshot's index.
        index: Index,
        /// That entry's term.
        term: Term,
    },
    /// A change of the members at this index was applied, so it is committed. Without this a group that restarts as a whole
    /// could wait for old voters that were switched off: switch them off only when all others have this synced.
    Committed(Index),
    /// The last reset was not installed before a restart: what stood before it holds again.
    Abandon,
}

/// What is on its way to the disk.
#[derive(Default)]
pub(super) struct Desk {
    /// The term and vote that were last handed out to be written.
    pub hard: (u64, u64),
    /// The node's log is synced up to here.
    pub synced: Lsn,
    /// The place of the proposal that is being written.
    pub reserved: Option<(Term, Index)>,
    unwritten: Vec<Write>,
    unwritten_bytes: usize,
    pending: VecDeque<Pending>,
    /// An entry that the log had before the engine did, and where it ends.
    logged: Option<(u64, Lsn)>,
}

/// A step of the engine that is not durable yet.
struct Pending {
    number: u64,
    place: Place,
    /// It has a term, a vote or a reset: `everysec` does not let it pass unsynced.
    vital: bool,
    held: Vec<raft::eraftpb::Message>,
    install: Option<Install>,
    /// The engine's state is at this snapshot once it is installed.
    snapshot: Option<u64>,
}

enum Place {
    Unwritten,
    Written(Lsn),
    /// Nothing of it is written.
    Nowhere,
}

enum Install {
    /// The host is told once the reset is synced.
    Due(Descriptor),
    /// The host was told.
    Told,
}

impl Desk {
    pub fn is_clear(&self) -> bool {
        self.unwritten.is_empty() && self.pending.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.unwritten_bytes > UNWRITTEN_BYTES_MAX
    }

    /// A snapshot is known to the engine and not yet installed.
    pub fn installs(&self) -> bool {
        self.pending.iter().any(|pending| pending.snapshot.is_some())
    }
}

impl Replica {
    /// The records that the next append to the node's log must have, in this order.
    pub fn writes(&self) -> impl ExactSizeIterator<Item = &Write> {
        self.desk.unwritten.iter()
    }

    /// [`Replica::writes`] were appended, and end at `end`.
    pub fn wrote(&mut self, end: Lsn) {
        if self.desk.unwritten.is_empty() {
            return;
        }
        self.desk.unwritten.clear();
        self.desk.unwritten_bytes = 0;
        for pending in &mut self.desk.pending {
            if matches!(pending.place, Place::Unwritten) {
                pending.place = Place::Written(end);
            }
        }
        if self.desk.reserved.is_none() {
            self.collect();
        }
    }

    pub(super) fn may_propose(&self) -> bool {
        self.leads()
            && self.raw.raft.lead_transferee.is_none()
            && self.members.contains(self.config.id)
            && self.desk.reserved.is_none()
            && self.raw.raft.uncommitted_size() < UNCOMMITTED_BYTES_MAX
    }

    /// Gives the engine an entry that the node's log already has.
    pub(super) fn propose_logged(&mut self, entry: Logged, end: Lsn) {
        self.desk.logged = Some((entry.0.index, end));
        let mut message = raft::eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![entry.0].into());
        self.raw.raft.step(message).expect("a reserved place is taken");
        self.collect();
    }

    /// Takes what the engine decided, until it has decided nothing more.
    pub(super) fn collect(&mut self) {
        loop {
            self.settle();
            self.count_wrongly();
            while self.raw.has_ready() {
                let ready = self.raw.ready();
                self.take(ready);
            }
            if !self.release() {
                break;
            }
        }
        self.tell_standing();
        self.tell_wants();
    }

    /// Two rules that only a planted bug breaks: what makes an entry committed is the engine's business.
    fn count_wrongly(&mut self) {
        let (old_term, alone) = (is(Bug::OldTermCounted), is(Bug::LeaderCountsAlone));
        if !(old_term || alone) || !self.leads() {
            return;
        }
        let raft = &mut self.raw.raft;
        let majority = raft.mut_prs().maximal_committed_index().0;
        let counted = if alone { raft.raft_log.persisted } else { majority };
        if counted > raft.raft_log.committed {
            raft.raft_log.commit_to(counted);
        }
    }

    fn take(&mut self, mut ready: Ready) {
        let mut pending = Pending {
            number: ready.number(),
            place: Place::Nowhere,
            vital: false,
            held: Vec::new(),
            install: None,
            snapshot: None,
        };
        if let Some(hard) = ready.hs()
            && (hard.term, hard.vote) != self.desk.hard
        {
            self.desk.hard = (hard.term, hard.vote);
            self.write(Write::HardState { term: Term(hard.term), vote: ReplicaId::new(hard.vote) });
            (pending.place, pending.vital) = (Place::Unwritten, true);
        }
        if !ready.snapshot().is_empty() {
            let descriptor = self.reset_to(ready.snapshot());
            let (index, term) = (descriptor.mark.index, descriptor.mark.term);
            self.write(Write::Reset { index, term });
            (pending.place, pending.vital) = (Place::Unwritten, true);
            pending.snapshot = Some(index.0);
            pending.install = Some(Install::Due(descriptor));
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            self.take_entries(&entries, &mut pending);
            self.raw.mut_store().append(entries);
        }
        for state in ready.take_read_states() {
            self.read_confirmed(&state.request_ctx, state.index);
        }
        for message in ready.take_messages() {
            self.send(message);
        }
        for message in ready.take_persisted_messages() {
            // Hearing a leader needs no durable state: a slow disk must not make a follower look dead.
            let votes = matches!(
                message.get_msg_type(),
                MessageType::MsgRequestVoteResponse | MessageType::MsgRequestVote
            );
            let acks = message.get_msg_type() == MessageType::MsgAppendResponse;
            let early = votes && is(Bug::VoteBeforeSync) || acks && is(Bug::AppendAckBeforeSync);
            if message.get_msg_type() == MessageType::MsgHeartbeatResponse || early {
                self.send(message);
            } else {
                pending.held.push(message);
            }
        }
        self.committed.extend(ready.take_committed_entries());
        self.raw.advance_append_async(ready);
        self.desk.pending.push_back(pending);
    }

    fn take_entries(&mut self, entries: &[Entry], pending: &mut Pending) {
        match self.desk.logged.take() {
            Some((index, end)) if entries.len() == 1 && entries[0].index == index => {
                if matches!(pending.place, Place::Nowhere) {
                    pending.place = Place::Written(end);
                }
            }
            _ => {
                for entry in entries {
                    self.write(Write::Entry(Logged::settled(entry.clone())));
                }
                pending.place = Place::Unwritten;
            }
        }
    }

    /// Says in the log that a change is committed. Nothing waits for it.
    pub(super) fn write_committed(&mut self, index: Index) {
        if !is(Bug::ChangeForgotten) {
            self.write(Write::Committed(index));
        }
    }

    pub(super) fn write(&mut self, write: Write) {
        if let Write::Entry(entry) = &write {
            self.desk.unwritten_bytes += entry.bytes();
        }
        self.desk.unwritten.push(write);
    }

    /// Lets go what has become durable, in order. True if the engine was told.
    fn release(&mut self) -> bool {
        let mut told = false;
        while let Some(front) = self.desk.pending.front_mut() {
            let durable = match front.place {
                Place::Nowhere => true,
                Place::Unwritten => false,
                Place::Written(end) => {
                    end <= self.desk.synced
                        || self.config.durability == Durability::EverySec && !front.vital
                        || is(Bug::LeaderCountsUnsynced) && self.raw.raft.state == raft::StateRole::Leader
                }
            };
            if !durable {
                break;
            }
            match front.install.take() {
                None => {}
                Some(Install::Told) => {
                    front.install = Some(Install::Told);
                    break;
                }
                Some(Install::Due(descriptor)) => {
                    self.events.push_back(Event::InstallSnapshot(descriptor));
                    if !is(Bug::SnapshotAckEarly) {
                        front.install = Some(Install::Told);
                        break;
                    }
                }
            }
            let Some(pending) = self.desk.pending.pop_front() else { break };
            self.raw.on_persist_ready(pending.number);
            if let Some(index) = pending.snapshot {
                self.raw.raft.commit_apply(index);
            }
            for message in pending.held {
                self.note_acknowledged(&message);
                self.send(message);
            }
            told = true;
        }
        told
    }

    /// The host has switched to the snapshot that [`Event::InstallSnapshot`] named.
    pub fn snapshot_installed(&mut self, index: Index) {
        let front = self.desk.pending.front_mut().filter(|front| front.snapshot == Some(index.0));
        if let Some(front) = front {
            front.install = None;
        }
        self.collect();
    }
}
