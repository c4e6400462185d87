//! Reads of clients that said READONLY, from a copy here that does not lead: what it has applied, at once.
//!
//! They see a state that was, at the group's time, and never one that is not complete. How old it is nobody promises.

use gateway::resp::{Io, Submitted};
use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Kind};

use crate::fetching::{Readiness, refuse_unreadable};
use crate::partition::{Queued, What};
use crate::worker::Worker;

impl Worker {
    /// The copy of a partition that may answer `command` for a client that takes what is applied here, if there is one.
    pub(crate) fn copy_for(
        &self,
        io: &Io,
        db: KeyspaceId,
        partition: u16,
        command: &Command,
    ) -> Option<usize> {
        if !io.readonly || command.kind != Kind::Read {
            return None;
        }
        let at = self.local(db, partition)?;
        let partition = &self.partitions[at];
        let complete = partition.store.applied().0 > 0 && partition.cut().is_some();
        (complete && partition.store.damaged().is_none()).then_some(at)
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
}
