//! Commands on more than one keyspace: a part for each, logged in the same append, and one answer.

use alloc::vec::Vec;

use gateway::resp::{RespReply, Sequence, Transfer, Transferred};
use kernel::ConnId;
use kernel::planted::{Bug, is};
use storage::apply::{Exec, Origin};
use storage::command::generic::TICK;
use storage::entry::put_command;
use storage::{Command, Reply};

use crate::parcel::{Asker, Parcel, Part};
use crate::partition::{Queued, What};
use crate::worker::Worker;

/// A command of several parts: answered when the last is applied.
#[derive(Debug)]
pub(crate) struct Joint {
    pub waits: Waits,
    /// Parts under way.
    pub left: usize,
    /// What to answer.
    pub answer: Answer,
}

/// Who waits for a [`Joint`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waits {
    /// A client's command.
    Client(ConnId, Sequence),
    /// A command of another worker's client.
    Guest(Asker),
    /// Another worker, for whose own joint this is a part.
    Worker(Part),
    /// A session that has asked for it before its command.
    Asking(ConnId),
    /// It is not known yet.
    Nobody,
}

/// The answer of a [`Joint`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Ok,
    One,
    /// What the parts add up to.
    Count(i64),
    /// The log refused.
    Error(&'static str),
}

impl Worker {
    /// Begins a command of several parts, which `waits` waits for.
    pub(crate) fn begin_joint(&mut self, waits: Waits, answer: Answer) -> u64 {
        self.front.last_joint += 1;
        self.front.joints.insert(self.front.last_joint, Joint { waits, left: 0, answer });
        self.front.last_joint
    }

    fn joint(&mut self, number: u64) -> &mut Joint {
        self.front.joints.get_mut(&number).expect("a joint lives until its last part")
    }

    pub(crate) fn await_joint(&mut self, number: u64, waits: Waits) {
        self.joint(number).waits = waits;
    }

    pub(crate) fn expect_parts(&mut self, number: u64, parts: usize) {
        self.joint(number).left += parts;
    }

    pub(crate) fn count_part(&mut self, number: u64, more: i64) {
        if let Answer::Count(count) = &mut self.joint(number).answer {
            *count += more;
        }
    }

    /// All its parts are begun: one without any is done.
    pub(crate) fn close_joint(&mut self, number: u64) {
        if self.joint(number).left == 0 {
            self.end_joint(number);
        }
    }

    /// Queues a part of it on partition `at`; without a joint nobody is answered.
    pub(crate) fn submit_part(&mut self, joint: Option<u64>, at: usize, command: &Command, args: &[&[u8]]) {
        self.open(at);
        let open = &mut self.partitions[at].open;
        put_command(&mut open.body, command.id, args);
        let mut item = Queued { conn: ConnId(0), sequence: Sequence(0), what: What::Own };
        if let Some(number) = joint {
            item.what = What::Part(number);
            self.expect_parts(number, 1);
        }
        self.partitions[at].open.queued.push(item);
    }

    /// A part is applied, or refused by the log with `error`.
    pub(crate) fn part_done(&mut self, number: u64, error: Option<&'static str>) {
        let Some(joint) = self.front.joints.get_mut(&number) else { return };
        joint.left -= 1;
        if let Some(error) = error {
            joint.answer = Answer::Error(error);
        }
        if joint.left == 0 {
            self.end_joint(number);
        }
    }

    fn end_joint(&mut self, number: u64) {
        let Some(Joint { waits, answer, .. }) = self.front.joints.remove(&number) else { return };
        let write = |reply: &mut RespReply<'_>| match answer {
            Answer::Ok => reply.ok(),
            Answer::One => reply.int(1),
            Answer::Count(count) => reply.int(count),
            Answer::Error(text) => reply.error(text),
        };
        match waits {
            Waits::Client(conn, sequence) => {
                if let Some(connection) = self.connections.get_mut(conn) {
                    connection.io.answer(sequence, write);
                }
                self.answered(conn);
            }
            Waits::Guest(Asker { conn, sequence, guest }) => self.others.reply(conn, sequence, guest, write),
            Waits::Worker(part) => {
                let error = if let Answer::Error(text) = answer { Some(text) } else { None };
                self.others.push(part.worker, Parcel::Done { joint: part.joint, count: 0, error });
            }
            Waits::Asking(conn) => self.told(conn),
            Waits::Nobody => {}
        }
    }

    /// Writes that were under way are so no more: transfers that wait for them are tried again.
    #[inline]
    pub(crate) fn retry_transfers(&mut self) {
        if !self.front.transfers.is_empty() {
            for conn in core::mem::take(&mut self.front.transfers) {
                self.told(conn);
            }
        }
    }

    /// Copies or moves a key: what it holds now is logged as a RESTORE there and, for a move, a DEL here.
    ///
    /// The joint of its parts is given back, for the caller to say who waits for it.
    ///
    /// Both partitions belong to this worker, and no write to either key may be under way, so nothing can
    /// come between. The RESTORE stands before the DEL in the log: when the append is torn, the key is in
    /// both keyspaces or only here, but never nowhere.
    pub(crate) fn transfer(&mut self, transfer: &Transfer<'_>) -> Result<u64, Transferred> {
        let (Some(dump), Some(restore), Some(del)) =
            (self.registry.find(b"dump"), self.registry.find(b"restore"), self.registry.find(b"del"))
        else {
            return Err(Transferred::Unsupported);
        };
        let from = self.routes.own_of_key(transfer.from, transfer.key);
        let to = self.routes.own_of_key(transfer.to, transfer.new_key);
        let (Some(from), Some(to)) = (from, to) else { return Err(Transferred::Apart) };
        // Entries of two groups are committed each for itself: the key could be gone from one and not be in the other.
        if transfer.remove && from != to && self.cluster.is_some() {
            return Err(Transferred::Apart);
        }
        if self.in_flight(from, transfer.key) || self.in_flight(to, transfer.new_key) {
            return Err(Transferred::Later);
        }
        if transfer.remove && self.is_logged_before(from, to) {
            return Err(Transferred::Later);
        }
        for at in [from, to] {
            self.partitions[at].store.begin_reads(self.now);
        }
        let target = &mut self.partitions[to].store;
        if target.exists(transfer.new_key) && !transfer.replace {
            return Err(Transferred::Refused);
        }
        let mut held = Held::default();
        self.read_own(from, dump, &[transfer.key], &mut held);
        let Some(value) = held.0 else {
            let unlogged = self.partitions[from].store.observed_unlogged_expiry();
            if unlogged && !is(Bug::UnloggedExpiryRead) {
                return Ok(self.refuse_expired(from));
            }
            return Err(Transferred::Refused);
        };
        let expiry = self.partitions[from].store.expiry(transfer.key).flatten();
        let mut digits = itoa::Buffer::new();
        let ttl = digits.format(expiry.map_or(0, |at| at.0)).as_bytes();
        let joint = self.begin_joint(Waits::Nobody, Answer::One);
        let args: [&[u8]; 5] = [transfer.new_key, ttl, &value, b"REPLACE", b"ABSTTL"];
        self.submit_part(Some(joint), to, restore, &args);
        if transfer.remove {
            self.submit_part(Some(joint), from, del, &[transfer.key]);
        }
        Ok(joint)
    }

    /// The key that was asked for is expired by the clock alone. That there was nothing to transfer is answered
    /// when the time is logged, or else a crash could bring the key back; a log that refuses it is told.
    fn refuse_expired(&mut self, at: usize) -> u64 {
        let joint = self.begin_joint(Waits::Nobody, Answer::Count(0));
        let tick = self.registry.by_id(TICK).expect("the store knows its own commands");
        self.submit_part(Some(joint), at, tick, &[]);
        joint
    }

    /// Whether this turn's entry of partition `first` will stand before that of `second`, which may not have
    /// one yet.
    fn is_logged_before(&self, first: usize, second: usize) -> bool {
        let place = |at| self.opened.iter().position(|&opened| opened == at);
        match (place(first), place(second)) {
            (Some(first), Some(second)) => first < second,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Runs a read for the node itself.
    fn read_own(&mut self, at: usize, command: &Command, args: &[&[u8]], reply: &mut dyn Reply) {
        let mut exec = Exec {
            store: &mut self.partitions[at].store,
            reply,
            effects: &mut self.effects,
            registry: &self.registry,
            scripting: None,
            rng: self.rng.clone(),
            origin: Origin::Direct,
        };
        exec.run(command, args);
    }
}

/// Keeps a byte string that was answered.
#[derive(Default)]
struct Held(Option<Vec<u8>>);

impl Reply for Held {
    fn simple(&mut self, _: &str) {}
    fn error(&mut self, _: &str) {}
    fn int(&mut self, _: i64) {}
    fn bulk(&mut self, bytes: &[u8]) {
        self.0 = Some(bytes.to_vec());
    }
    fn null(&mut self) {}
    fn null_array(&mut self) {}
    fn array(&mut self, _: usize) {}
    fn map(&mut self, _: usize) {}
    fn set(&mut self, _: usize) {}
    fn double(&mut self, _: f64) {}
    fn boolean(&mut self, _: bool) {}
    fn raw(&mut self, _: &[u8]) {}
    fn resp3(&self) -> bool {
        false
    }
}
