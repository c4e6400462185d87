//! Reads from a copy here that does not lead: of clients that said READONLY, and of keyspaces that any copy answers for.
//!
//! They see a state that was, at the group's time, and never one that is not complete. A copy that is read asks its leader
//! now and then how far it must come to have everything (`consensus`), so it knows how far behind it is at most. One that
//! knows of nothing recent enough has the leader answer; and says so if the leader does not.

use alloc::collections::BTreeMap;
use alloc::string::String;

use control::{ReadFrom, Reading};
use gateway::resp::{Behind, Io, Submitted};
use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Kind, Reply as _};

use crate::fetching::{Readiness, refuse_unreadable};
use crate::partition::{Queued, What};
use crate::worker::Worker;

/// A copy that may be at any age asks so often when it is read, in milliseconds, so that its age is known.
const ASK_MS: u64 = 1_000;
/// A copy that nobody has asked about for so long is not read, in milliseconds: its age grows and says nothing.
const READ_MS: u64 = 10_000;

/// Who answers a read of a partition that is led elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Its leader.
    Leader,
    /// The copy at this place here.
    Copy(usize),
    /// Nobody, and why: the copy is too old, or nobody knows how old, and the leader is silent.
    Nobody(String),
}

impl Worker {
    /// How copies of a keyspace are read, in a cluster whose members can tell how old their copies are, and whose voters
    /// honour leases.
    pub fn set_reading(&mut self, db: KeyspaceId, reading: Reading) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.reading.insert(db, reading);
        self.settle_leases();
    }

    /// The same for all keyspaces: what is not named is read as it is without a word.
    pub(crate) fn set_readings(&mut self, readings: BTreeMap<KeyspaceId, Reading>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.reading = readings;
        self.settle_leases();
    }

    /// Leaders use their leases, or not, as their keyspaces are read from now on.
    fn settle_leases(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        for (group, &at) in &cluster.groups {
            if let Some(replica) = self.partitions[at].group.replica_mut() {
                replica.set_leases(cluster.uses_leases(group.keyspace()));
            }
        }
    }

    /// How far behind a copy here is at most, in microseconds; `None` if it leads, or nobody has said it yet.
    #[must_use]
    pub fn behind(&self, at: usize) -> Option<u64> {
        let fresh = self.partitions[at].replica().filter(|replica| !replica.leads())?.fresh_of()?;
        Some(self.now.since(fresh))
    }

    /// How far behind the copies here are, of one keyspace or of all; known only of those that were read lately.
    #[must_use]
    pub fn copies_of(&self, db: Option<KeyspaceId>) -> Behind {
        let mut copies = Behind::default();
        for at in 0..self.partitions.len() {
            let other = db.is_some_and(|db| self.partitions[at].keyspace() != db);
            if other || self.partitions[at].replica().is_none_or(consensus::Replica::leads) {
                continue;
            }
            copies.count += 1;
            let asked = self.partitions[at].replica().and_then(consensus::Replica::fresh_asked);
            let is_read = asked.is_some_and(|asked| self.now.since(asked) < READ_MS * 1000);
            if let Some(behind) = self.behind(at).filter(|_| is_read) {
                copies.known += 1;
                copies.behind_ms_max = copies.behind_ms_max.max(behind / 1000);
            }
        }
        copies
    }

    /// Whether copies of a keyspace answer the reads of this client.
    pub(crate) fn reads_copies(&self, io: &Io, db: KeyspaceId) -> bool {
        io.readonly || self.reading(db).is_some_and(|reading| reading.from == ReadFrom::Any)
    }

    fn reading(&self, db: KeyspaceId) -> Option<Reading> {
        self.cluster.as_ref()?.reading.get(&db).copied()
    }

    /// Who answers `command`, which is for a partition that is led elsewhere.
    pub(crate) fn who_answers(
        &mut self,
        io: &Io,
        db: KeyspaceId,
        partition: u16,
        command: &Command,
    ) -> Answers {
        if command.kind != Kind::Read || !self.reads_copies(io, db) {
            return Answers::Leader;
        }
        let Some(at) = self.local(db, partition) else { return Answers::Leader };
        let one = &self.partitions[at];
        let complete = one.store.applied().0 > 0 && one.cut().is_some();
        if !complete || one.store.damaged().is_some() {
            return Answers::Leader;
        }
        // Members of an older version do not tell, and nothing is promised then.
        let Some(reading) = self.reading(db) else { return Answers::Copy(at) };
        self.judge_age(at, u64::from(reading.stale_ms_max))
    }

    fn judge_age(&mut self, at: usize, max_ms: u64) -> Answers {
        let now = self.now;
        let behind = self.behind(at).map(|micros| micros / 1000);
        // Early enough that a copy which is read all the time always knows.
        let ask_at = if max_ms == 0 { ASK_MS } else { (max_ms / 2).min(ASK_MS) };
        let asks = behind.is_none_or(|ms| ms >= ask_at);
        let Some(replica) = self.partitions[at].group.replica_mut() else { return Answers::Leader };
        if asks {
            replica.ask_fresh(now);
        }
        let silent = replica.is_leader_silent();
        if asks {
            self.make_busy(at);
        }
        match behind {
            _ if max_ms == 0 => Answers::Copy(at),
            Some(ms) if ms <= max_ms => Answers::Copy(at),
            Some(ms) if silent => Answers::Nobody(alloc::format!(
                "MASTERDOWN this copy may be {ms} ms behind, its keyspace allows {max_ms}, and its leader does not answer"
            )),
            None if silent => Answers::Nobody(alloc::format!(
                "MASTERDOWN it is not known how far behind this copy is, its keyspace allows {max_ms} ms, and its leader \
                 does not answer"
            )),
            Some(_) | None => Answers::Leader,
        }
    }

    /// Runs a read on the copy at `at`.
    pub(crate) fn read_copy(
        &mut self,
        (id, io): (ConnId, &mut Io),
        at: usize,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted {
        match self.fetch_for(id, at, command, args) {
            Readiness::Ready => {}
            Readiness::Waits => return Submitted::Later,
            Readiness::Unreadable(text) => {
                let sequence = io.begin();
                io.answer(sequence, |reply| refuse_unreadable(reply, &text));
                return Submitted::Accepted;
            }
        }
        self.count_call(command.id);
        let item = Queued { conn: id, sequence: io.begin(), what: What::Read };
        // What has expired by the clock is the leader's to say: at the logged time no read waits for that.
        let now = core::mem::replace(&mut self.now, Micros(0));
        let answered = self.read_now(io, item, at, command, args);
        self.now = now;
        debug_assert!(answered, "at the logged time nothing has expired unlogged");
        self.partitions[at].store.forget_failures();
        Submitted::Accepted
    }

    /// Tells a client that nobody answers its read.
    pub(crate) fn refuse_stale(io: &mut Io, text: &str) -> Submitted {
        let sequence = io.begin();
        io.answer(sequence, |reply| reply.error(text));
        Submitted::Accepted
    }
}
