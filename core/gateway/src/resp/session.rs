//! A Redis client's session: reads commands from its bytes and routes each to where it is answered.

use alloc::vec::Vec;

use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Fault, Flags, Reply};
use wire::resp::Parser;

use super::connection;
use super::host::{Host, Submitted};
use super::transaction::Transaction;

/// How far a call to [`Session::feed`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that need not be handed in again.
    pub consumed: usize,
    /// Why it stopped.
    pub state: State,
}

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// More bytes.
    Hungry,
    /// The answers of its earlier commands; feed the rest when none is pending.
    Waiting,
    /// Its client to read: too much output is held.
    Full,
    /// Nothing any more: send what there is and close.
    Closing,
}

/// Output held for a client before its further commands wait.
pub const OUTPUT_BYTES_HIGH: usize = 1024 * 1024;

/// One client.
#[derive(Debug)]
pub struct Session {
    pub(super) id: ConnId,
    pub(super) db: KeyspaceId,
    pub(super) name: Vec<u8>,
    pub(super) user: Option<Vec<u8>>,
    pub(super) transaction: Option<Transaction>,
    pub(super) watching: bool,
    pub(super) closing: bool,
    pub(super) mute_next: bool,
    pub(super) created: Micros,
    pub(super) active: Micros,
    pub(super) last_command: &'static str,
    parser: Parser,
}

impl Session {
    /// A fresh connection in keyspace 0. `trusted`: the node asks for no password.
    #[must_use]
    pub fn new(id: ConnId, now: Micros, trusted: bool) -> Session {
        Session {
            id,
            db: KeyspaceId(0),
            name: Vec::new(),
            user: trusted.then(|| b"default".to_vec()),
            transaction: None,
            watching: false,
            closing: false,
            mute_next: false,
            created: now,
            active: now,
            last_command: "NULL",
            parser: Parser::default(),
        }
    }

    /// Reads and runs commands from `bytes` until they end or the session must wait.
    ///
    /// Bytes that were not consumed must be handed in again, followed by what came after them.
    pub fn feed<H: Host>(&mut self, now: Micros, bytes: &[u8], host: &mut H) -> Fed {
        self.active = now;
        let mut parser = core::mem::take(&mut self.parser);
        let mut consumed = 0;
        let state = loop {
            if self.closing {
                break State::Closing;
            }
            if host.io().blocked {
                break State::Waiting;
            }
            if host.io().out.len() > OUTPUT_BYTES_HIGH {
                break State::Full;
            }
            let rest = &bytes[consumed..];
            match parser.parse(rest, self.user.is_some()) {
                Ok(None) => break State::Hungry,
                Ok(Some(taken)) => {
                    let args = parser.args(rest);
                    if !args.is_empty() && self.command(&args, host) == Submitted::Later {
                        break State::Waiting;
                    }
                    consumed += taken;
                }
                Err(error) => {
                    let io = host.io();
                    let sequence = io.begin();
                    io.answer(sequence, |reply| reply.error(&alloc::format!("{error}")));
                    self.closing = true;
                }
            }
        };
        self.parser = parser;
        Fed { consumed, state }
    }

    /// Forgets everything that a closing connection leaves behind in the node.
    pub fn close<H: Host>(&mut self, host: &mut H) {
        if self.watching {
            host.unwatch();
        }
    }

    #[inline]
    fn command<H: Host>(&mut self, words: &[&[u8]], host: &mut H) -> Submitted {
        let (name, args) = (words[0], &words[1..]);
        if let Some(command) = host.registry().find(name)
            && !command.flags.has(Flags::INTERNAL)
        {
            self.last_command = command.name;
            return self.store_command(command, args, host);
        }
        connection::run(self, name, args, host)
    }

    #[inline]
    fn store_command<H: Host>(
        &mut self,
        command: &'static Command,
        args: &[&[u8]],
        host: &mut H,
    ) -> Submitted {
        if self.user.is_none() {
            self.refuse(host, &Fault::Text("NOAUTH Authentication required."));
            return Submitted::Accepted;
        }
        if !command.takes(args.len()) {
            self.refuse(host, &Fault::Arity(command.name));
            return Submitted::Accepted;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.push(command, args);
            self.answer(host, |reply| reply.simple("QUEUED"));
            return Submitted::Accepted;
        }
        if command.flags.has(Flags::BLOCKING) && host.io().pending() > 0 {
            return Submitted::Later;
        }
        let submitted = host.submit(self.db, command, args);
        if self.mute_next && submitted == Submitted::Accepted {
            self.mute_next = false;
        }
        submitted
    }

    /// Answers this command with a fault; a transaction being queued is spoilt by it.
    pub(super) fn refuse<H: Host>(&mut self, host: &mut H, fault: &Fault) {
        if let Some(transaction) = &mut self.transaction {
            transaction.spoil();
        }
        self.answer(host, |reply| reply.fault(fault));
    }

    /// Answers this command.
    pub(super) fn answer<H: Host, T>(
        &mut self,
        host: &mut H,
        write: impl FnOnce(&mut super::RespReply<'_>) -> T,
    ) -> T {
        let io = host.io();
        let sequence = io.begin();
        io.answer(sequence, write)
    }
}
