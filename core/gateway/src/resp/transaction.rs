//! MULTI: commands queued on the connection and run as one log entry by EXEC.

use alloc::vec::Vec;

use storage::command::generic::{EXEC, EXEC_READ, LITERAL};
use storage::entry::put_command;
use storage::{Command, Fault, Kind, Reply};

use super::host::{Host, Submitted};
use super::session::Session;

/// Bytes that one transaction may queue.
pub const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The commands queued since MULTI.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    bodies: Vec<Vec<u8>>,
    bytes: usize,
    writes: bool,
    spoilt: bool,
}

impl Transaction {
    /// Queues a store command.
    pub fn push(&mut self, command: &Command, args: &[&[u8]]) {
        self.writes |= command.kind == Kind::Write;
        self.push_encoded(command.id, args);
    }

    /// Queues an answer that the session gives itself.
    pub fn push_literal(&mut self, encoded: &[u8]) {
        self.push_encoded(LITERAL, &[encoded]);
    }

    fn push_encoded(&mut self, id: u16, args: &[&[u8]]) {
        let mut body = Vec::new();
        put_command(&mut body, id, args);
        self.bytes += body.len();
        if self.bytes > TRANSACTION_BYTES_MAX {
            self.spoilt = true;
            return;
        }
        self.bodies.push(body);
    }

    /// A command was refused while queuing: EXEC will discard all.
    pub const fn spoil(&mut self) {
        self.spoilt = true;
    }
}

pub(super) fn multi<H: Host>(session: &mut Session, host: &mut H) -> Submitted {
    if session.transaction.is_some() {
        session.answer(host, |reply| reply.error("ERR MULTI calls can not be nested"));
    } else {
        session.transaction = Some(Transaction::default());
        session.answer(host, |reply| reply.ok());
    }
    Submitted::Accepted
}

pub(super) fn discard<H: Host>(session: &mut Session, host: &mut H) -> Submitted {
    if session.transaction.take().is_none() {
        session.answer(host, |reply| reply.error("ERR DISCARD without MULTI"));
        return Submitted::Accepted;
    }
    unwatch_all(session, host);
    session.answer(host, |reply| reply.ok());
    Submitted::Accepted
}

pub(super) fn watch<H: Host>(session: &mut Session, keys: &[&[u8]], host: &mut H) -> Submitted {
    if session.transaction.is_some() {
        session.answer(host, |reply| reply.error("ERR WATCH inside MULTI is not allowed"));
        return Submitted::Accepted;
    }
    // The watch begins after this connection's own earlier writes.
    if host.io().pending() > 0 {
        return Submitted::Later;
    }
    for key in keys {
        host.watch(session.db, key);
    }
    session.watching = true;
    session.answer(host, |reply| reply.ok());
    Submitted::Accepted
}

pub(super) fn unwatch<H: Host>(session: &mut Session, host: &mut H) -> Submitted {
    if host.io().pending() > 0 {
        return Submitted::Later;
    }
    unwatch_all(session, host);
    session.answer(host, |reply| reply.ok());
    Submitted::Accepted
}

pub(super) fn unwatch_all<H: Host>(session: &mut Session, host: &mut H) {
    if session.watching {
        host.unwatch();
        session.watching = false;
    }
    host.io().watch_broken = false;
}

pub(super) fn exec<H: Host>(session: &mut Session, host: &mut H) -> Submitted {
    let Some(transaction) = session.transaction.take() else {
        session.answer(host, |reply| reply.error("ERR EXEC without MULTI"));
        return Submitted::Accepted;
    };
    if session.watching && host.io().pending() > 0 {
        session.transaction = Some(transaction);
        return Submitted::Later;
    }
    if transaction.spoilt {
        unwatch_all(session, host);
        let text = "EXECABORT Transaction discarded because of previous errors.";
        session.answer(host, |reply| reply.fault(&Fault::Text(text)));
        return Submitted::Accepted;
    }
    if session.watching {
        let broken = host.watch_broken();
        unwatch_all(session, host);
        if broken {
            session.answer(host, |reply| reply.null_array());
            return Submitted::Accepted;
        }
    }
    if transaction.bodies.is_empty() {
        session.answer(host, |reply| reply.array(0));
        return Submitted::Accepted;
    }
    let id = if transaction.writes { EXEC } else { EXEC_READ };
    let command = host.registry().by_id(id).expect("the store knows its own commands");
    let bodies: Vec<&[u8]> = transaction.bodies.iter().map(Vec::as_slice).collect();
    host.submit(session.db, command, &bodies)
}
