//! What a session has done at other workers: commands for their keyspaces, watches there, questions to
//! all of them, orders to the node.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use gateway::resp::{
    Io, Order, Progress, Release, Sequence, Submitted, Survey, Then, Transfer, Transferred, Unblocked,
};
use kernel::{ConnId, KeyspaceId, WorkerId};
use storage::command::generic::{EXEC, EXEC_READ};
use storage::entry::put_command;
use storage::{Command, Flags, Kind};

use crate::keyspaces::{Answer, Waits};
use crate::parcel::{Asker, Guest, Journey, Parcel, Protocol, Question, Request};
use crate::route::Place;
use crate::scatter::{Gather, Own};
use crate::worker::Worker;

/// The worker that brings orders to the whole node into one order.
const FIRST: WorkerId = WorkerId(0);

/// Commands of one connection on their way; what they answer is held for a client that may not read it.
pub(crate) const PENDING_MAX: u64 = 256;

/// What a connection has on its way at other workers.
#[derive(Debug, Default)]
pub(crate) struct Abroad {
    /// Workers that have not told yet what they were asked; the session is held until then.
    pub asking: usize,
    /// Where its command waits that holds it.
    pub waits_at: Option<WorkerId>,
    /// What the asked workers said of its watches: one is broken.
    pub verdict: Option<bool>,
    /// What the asked workers told.
    pub survey: Option<Box<Survey>>,
    /// The others have run what was spread.
    pub spread: bool,
    /// Its commands on several partitions, by their places.
    pub gathers: BTreeMap<Sequence, Gather>,
}

impl Abroad {
    /// Whether that is so; to be asked once.
    pub const fn has_spread(&mut self) -> bool {
        core::mem::replace(&mut self.spread, false)
    }

    pub fn told_survey(&self) -> Option<&Survey> {
        self.survey.as_deref()
    }

    pub fn forget_survey(&mut self) {
        self.survey = None;
    }
}

pub(crate) const fn protocol(io: &Io) -> Protocol {
    if io.resp3 { Protocol::Resp3 } else { Protocol::Resp2 }
}

fn asker(conn: ConnId, io: &mut Io) -> Asker {
    let guest = Guest::of(protocol(io), None);
    Asker { conn, sequence: io.begin(), guest }
}

impl Worker {
    pub(crate) const fn owner(&self, place: Place) -> WorkerId {
        match place {
            Place::Own(_) => self.others.own,
            Place::Other(worker) => worker,
        }
    }

    pub(crate) fn owner_of_key(&self, db: KeyspaceId, key: &[u8]) -> WorkerId {
        self.owner(self.routes.of_key(db, key))
    }

    /// Hands `command` to the owner of a partition of `db`.
    #[cold]
    pub(crate) fn send_request(
        &mut self,
        (conn, io, abroad): Own<'_>,
        watched: &[(KeyspaceId, Box<[u8]>)],
        (db, partition): (KeyspaceId, u16),
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted {
        let owner = self.owner(self.routes.place(db, partition));
        if command.kind == Kind::Write && self.holds_writers(db, partition, conn) {
            return Submitted::Paused;
        }
        if io.pending() >= PENDING_MAX {
            return Submitted::Later;
        }
        let alone = io.pending() == 0;
        let exec = command.id == EXEC || command.id == EXEC_READ;
        let watching = exec && watched.iter().any(|(db, key)| self.owner_of_key(*db, key) == owner);
        if command.flags.has(Flags::BLOCKING) {
            // It is held at once: whether it waits is known only there.
            io.blocked = true;
            abroad.waits_at = Some(owner);
        }
        let asker = asker(conn, io);
        let mut encoded = Vec::new();
        put_command(&mut encoded, command.id, args);
        let request = Request { asker, db, partition, command, encoded, alone, watching, tag: None };
        self.others.push(owner, Parcel::Request(Box::new(request)));
        Submitted::Accepted
    }

    /// Has the owner of `keys`, which are all in one partition, watch them.
    pub(crate) fn send_watch(
        &mut self,
        conn: ConnId,
        io: &mut Io,
        db: KeyspaceId,
        keys: Vec<Box<[u8]>>,
    ) -> Progress {
        let asker = asker(conn, io);
        let owner = self.owner_of_key(db, &keys[0]);
        self.others.push(owner, Parcel::Watch { asker, db, keys });
        Progress::Underway
    }

    /// What the other owners of watched keys say; that of EXEC's partition judges for itself when it comes to it.
    pub(crate) fn ask_watches(
        &mut self,
        conn: ConnId,
        abroad: &mut Abroad,
        watched: &[(KeyspaceId, Box<[u8]>)],
        (db, partition): (KeyspaceId, u16),
    ) -> Option<bool> {
        let judge = self.owner(self.routes.place(db, partition));
        let owners = watched.iter().map(|(db, key)| self.owner_of_key(*db, key));
        let mut owners: Vec<WorkerId> = owners.collect();
        owners.retain(|&owner| owner != self.others.own && owner != judge);
        owners.sort_unstable();
        owners.dedup();
        if owners.is_empty() {
            return Some(false);
        }
        if let Some(broken) = abroad.verdict.take() {
            return Some(broken);
        }
        abroad.asking += owners.len();
        for owner in owners {
            self.others.push(owner, Parcel::Ask { conn, question: Question::Watches });
        }
        None
    }

    /// Tells the other owners of watched keys that they are watched no more.
    pub(crate) fn send_unwatch(&mut self, conn: ConnId, abroad: &mut Abroad, owners: &mut Vec<WorkerId>) {
        abroad.verdict = None;
        owners.sort_unstable();
        owners.dedup();
        for &owner in &*owners {
            self.others.push(owner, Parcel::Unwatch { conn });
        }
    }

    pub(crate) fn ask_survey(&mut self, conn: ConnId, abroad: &mut Abroad) -> bool {
        if self.others.is_alone() || abroad.survey.is_some() {
            return true;
        }
        abroad.asking += self.others.workers.len();
        self.others.tell_all(&Parcel::Ask { conn, question: Question::Survey });
        false
    }

    /// Has the other workers run `command` in their keyspaces, and then says true.
    pub(crate) fn ask_spread(
        &mut self,
        conn: ConnId,
        abroad: &mut Abroad,
        command: &'static Command,
        args: &[&[u8]],
        except: KeyspaceId,
    ) -> bool {
        if self.others.is_alone() || core::mem::take(&mut abroad.spread) {
            self.submit_own_parts(None, command, args, Some(except));
            return true;
        }
        abroad.spread = true;
        abroad.asking += 1;
        let joint = self.begin_joint(Waits::Asking(conn), Answer::Ok);
        self.send_parts(Some(joint), command, args, Some(except));
        false
    }

    /// Another worker's waiting client, or one of this worker's that waits at another.
    pub(crate) fn send_unblock(
        &mut self,
        (asking, io): (ConnId, &mut Io),
        to: WorkerId,
        conn: ConnId,
        (release, answered): (Release, bool),
    ) -> Unblocked {
        let joint = answered.then(|| {
            let sequence = io.begin();
            self.begin_joint(Waits::Client(asking, sequence), Answer::Count(0))
        });
        let part = self.part_for_each(joint, 1);
        self.others.push(to, Parcel::Unblock { conn, release, part });
        Unblocked::Underway
    }

    /// Has all workers follow `order`.
    pub(crate) fn send_order(
        &mut self,
        conn: ConnId,
        io: &mut Io,
        order: Order,
        then: Option<Then>,
    ) -> Progress {
        if self.others.is_alone() {
            self.follow(&order);
            return Progress::Done;
        }
        let answer = then.map(|then| match then {
            Then::Ok => Answer::Ok,
            Then::Int(value) => Answer::Count(value),
        });
        let joint = answer.map(|answer| self.begin_joint(Waits::Client(conn, io.begin()), answer));
        if self.others.own == FIRST {
            let part = self.part_for_each(joint, self.others.workers.len());
            self.follow(&order);
            self.others.tell_all(&Parcel::Follow { part, order });
        } else {
            let part = self.part_for_each(joint, self.others.workers.len() + 1);
            self.others.push(FIRST, Parcel::Propose { part, order });
        }
        if joint.is_some() { Progress::Underway } else { Progress::Done }
    }

    /// Copies or moves a key between partitions of which at least one is another worker's.
    pub(crate) fn send_transfer(
        &mut self,
        (conn, io, abroad): Own<'_>,
        transfer: &Transfer<'_>,
    ) -> Transferred {
        let owner = self.owner_of_key(transfer.from, transfer.key);
        if owner != self.owner_of_key(transfer.to, transfer.new_key) {
            return Transferred::Apart;
        }
        let asker = asker(conn, io);
        // Later commands of the connection must not overtake it while it is held back there.
        io.blocked = true;
        abroad.waits_at = Some(owner);
        self.others.push(owner, Parcel::Transfer { asker, journey: Journey::of(transfer) });
        Transferred::Accepted
    }
}
