//! Work that does not fit a turn, a slice of it in each: long reads, and freeing what large removals left.
//!
//! A slice is counted in steps and not in time, so that a seed decides what happens in which turn. A step is about
//! one element: visited, copied, compared or freed. A connection whose read is under way runs no further command
//! before it is answered; all others go on.

use alloc::vec::Vec;

use gateway::resp::RespReply;
use kernel::{ConnId, WorkerId};
use storage::store::LongId;
use wire::resp::Encoder;

use crate::parcel::Protocol;
use crate::partition::{Queued, What};
use crate::worker::Worker;

/// How many steps a turn spends on work that may wait for the next one: with what else a turn does, clients wait
/// for less than a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSteps(pub usize);

impl Default for SliceSteps {
    fn default() -> SliceSteps {
        SliceSteps(4096)
    }
}

/// A long read, and who waits for it.
#[derive(Debug)]
pub(crate) struct Task {
    /// The partition.
    at: usize,
    read: LongId,
    item: Queued,
    protocol: Protocol,
    /// What it has answered so far.
    out: Vec<u8>,
}

impl Worker {
    /// A read of `item`, which is not answered yet, goes on in slices.
    #[cold]
    pub(crate) fn begin_task(&mut self, at: usize, item: Queued, protocol: Protocol, read: LongId) {
        self.tasks.push_back(Task { at, read, item, protocol, out: Vec::new() });
    }

    /// Goes on with what did not fit the turns before. Returns true if there is more.
    #[inline]
    pub(crate) fn work_off(&mut self) -> bool {
        let SliceSteps(steps) = self.slice_steps;
        // Reads and what is to be freed share a slice: neither waits for the end of the other.
        let mut left = if self.tasks.is_empty() { steps } else { steps.div_ceil(2) };
        let reads = steps - left;
        for partition in &mut self.partitions {
            left -= partition.store.free_dead(left);
        }
        let spent = left == 0;
        if !self.tasks.is_empty() {
            self.read_on((left + reads).max(1));
        }
        spent || !self.tasks.is_empty() || self.is_ready()
    }

    #[cold]
    fn read_on(&mut self, mut steps: usize) {
        while steps > 0
            && let Some(mut task) = self.tasks.pop_front()
        {
            let mut reply = RespReply(Encoder::new(&mut task.out, task.protocol == Protocol::Resp3));
            let went = self.partitions[task.at].store.go_on(task.read, steps, &mut reply);
            // One for the call, so that they end.
            steps = went.left.min(steps - 1);
            if went.done {
                self.end_task(task);
            } else {
                self.tasks.push_back(task);
            }
        }
        self.take_home();
    }

    fn end_task(&mut self, task: Task) {
        let Task { item: Queued { conn, sequence, what }, out, .. } = task;
        if let What::GuestRead(guest) = what {
            return self.others.send_reply(conn, sequence, guest, out);
        }
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.io.blocked = false;
            connection.io.answer_encoded(sequence, out);
        }
        self.answered(conn);
    }

    /// The clients of another worker that read on here.
    pub(crate) fn readers_of(&self, worker: WorkerId) -> Vec<ConnId> {
        self.tasks.iter().map(|task| task.item.conn).filter(|conn| conn.worker() == worker).collect()
    }

    /// A client is gone: nobody waits for its reads.
    pub(crate) fn drop_tasks(&mut self, conn: ConnId) {
        let partitions = &mut self.partitions;
        self.tasks.retain(|task| {
            let stays = task.item.conn != conn;
            if !stays {
                partitions[task.at].store.end_long(task.read);
            }
            stays
        });
    }
}
