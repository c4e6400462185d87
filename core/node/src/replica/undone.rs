//! Commands that were on their way when leadership was lost: done again where it surely is safe, else given up.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::codec::Reader;
use storage::Reply;
use storage::command::generic::{EXEC, EXEC_READ};
use storage::command::list_blocking::RETRY;
use storage::entry::{Args, next_command, put_command};
use storage::{Command, Flags};

use crate::cluster::{DOWN, UNBLOCKED, UNKNOWN};
use crate::errand::protocol;
use crate::parcel::{Asker, Guest, Parcel, Request};
use crate::partition::{Batch, Queued, What};
use crate::worker::Worker;

/// What becomes of commands of this node's clients that surely have not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// They are proposed again, or go to who leads now.
    TriedAgain,
    /// They have waited their time, and are refused.
    Refused,
}

impl Worker {
    /// Nothing of this batch has run, and nothing will.
    pub(super) fn undo(&mut self, at: usize, batch: Batch, fate: Undone) {
        let mut writes = Reader::new(&batch.body);
        let mut reads = Reader::new(&batch.reads);
        let mut args = Args::new();
        for item in batch.queued {
            let reader = if item.what.is_read() { &mut reads } else { &mut writes };
            let before = reader.rest();
            let id = next_command(reader, &mut args).expect("a batch holds the commands it queued");
            let encoded = &before[..before.len() - reader.rest().len()];
            match item.what {
                What::Own => {}
                What::Evict(bytes) => self.evicted(at, bytes, 0),
                What::Swap => self.swap_done(Some(DOWN)),
                What::Part(joint) => self.part_done(joint, Some(DOWN)),
                // Even if this node leads again: others may have taken meanwhile what it waits for.
                What::Retry(waiter) => self.release(at, waiter, |reply, _| reply.error(UNBLOCKED)),
                What::Write | What::Read if fate == Undone::Refused => {
                    self.answer(item, |reply| reply.error(DOWN));
                }
                What::Write | What::Read => {
                    let command = self.registry.by_id(id).expect("a batch holds commands of this version");
                    self.redo(at, item, command, encoded);
                }
                What::GuestWrite(guest) | What::GuestRead(guest) => {
                    let Queued { conn, sequence, .. } = item;
                    let group = self.partitions[at].group_id;
                    self.misdirected_from(Asker { conn, sequence, guest }, group);
                }
            }
        }
    }

    /// A command of a client of this node that has not run.
    fn redo(&mut self, at: usize, item: Queued, command: &'static Command, encoded: &[u8]) {
        // A transaction was let through because what it watches had not changed here: elsewhere nobody knows.
        if matches!(command.id, EXEC | EXEC_READ | RETRY) {
            return self.answer(item, |reply| reply.error(DOWN));
        }
        if self.partitions[at].leads {
            self.open_any(at);
            let open = &mut self.partitions[at].open;
            let bytes = if item.what.is_read() { &mut open.reads } else { &mut open.body };
            bytes.extend_from_slice(encoded);
            open.queued.push(item);
            return;
        }
        let leader = self.leader_of(at);
        let group = self.partitions[at].group_id;
        let Some(connection) = self.connections.get_mut(item.conn) else { return };
        let guest = Guest::of(protocol(&connection.io), None);
        if command.flags.has(Flags::BLOCKING) {
            connection.io.blocked = true;
            connection.abroad.waits_at = Some(leader);
        }
        let request = Request {
            asker: Asker { conn: item.conn, sequence: item.sequence, guest },
            db: group.keyspace(),
            partition: group.partition(),
            command,
            encoded: encoded.to_vec(),
            alone: false,
            watching: false,
            tag: None,
        };
        self.others.push(leader, Parcel::Request(Box::new(request)));
    }

    /// Nobody knows whether this batch has run, or will; its reads have not.
    pub(super) fn give_up(&mut self, at: usize, batch: Batch, reads_fate: Undone) {
        if batch.read.is_some() {
            return self.undo(at, batch, reads_fate);
        }
        let mut reads = Vec::new();
        let mut reader = Reader::new(&batch.reads);
        let mut args = Args::new();
        let mut again = Batch::default();
        for item in batch.queued {
            match item.what {
                What::Own => {}
                What::Evict(bytes) => self.evicted(at, bytes, 0),
                What::Swap => self.swap_done(Some(UNKNOWN)),
                What::Part(joint) => self.part_done(joint, Some(UNKNOWN)),
                What::Retry(waiter) => self.release(at, waiter, |reply, _| reply.error(UNKNOWN)),
                What::Write | What::GuestWrite(_) => self.answer(item, |reply| reply.error(UNKNOWN)),
                What::Read | What::GuestRead(_) => {
                    let id = next_command(&mut reader, &mut args).expect("a batch holds the reads it queued");
                    put_command(&mut reads, id, &args);
                    again.queued.push(item);
                }
            }
        }
        again.reads = reads;
        self.undo(at, again, reads_fate);
    }
}
