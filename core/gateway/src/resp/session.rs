//! A Redis client's session: reads commands from its bytes and routes each to where it is answered.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::SocketAddr;

use kernel::{ConnId, KeyspaceId, Micros};
use storage::command::script;
use storage::{Command, Fault, Flags, Kind, Reply};
use wire::resp::{Encoder, Parser, keys_ahead};

use super::RespReply;
use super::call::{Call, Done, Place, shown};
use super::host::{Host, OUT_OF_MEMORY, Pause, Submitted};
use super::table::{self, Found, Row, Traits};
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
    /// The end of `CLIENT PAUSE`, or of a stall of the store.
    Paused,
    /// Its client to read: too much output is held.
    Full,
    /// Nothing any more: send what there is and close.
    Closing,
}

/// Output held for a client before its further commands wait.
pub const OUTPUT_BYTES_HIGH: usize = 1024 * 1024;

/// How a connection came to be, as the node knows it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its place in the node.
    pub id: ConnId,
    /// What `CLIENT ID` tells: counts the node's connections.
    pub number: u64,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// When.
    pub at: Micros,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    pub(super) origin: Origin,
    pub(super) db: KeyspaceId,
    pub(super) name: Box<[u8]>,
    pub(super) library: (Box<[u8]>, Box<[u8]>),
    pub(super) user: Option<Box<[u8]>>,
    pub(super) transaction: Option<Transaction>,
    pub(super) watching: bool,
    /// Where its watched keys of a keyspace of several partitions are.
    pub(super) watched: Option<(KeyspaceId, u16)>,
    pub(super) closing: bool,
    pub(super) no_evict: bool,
    pub(super) channels: BTreeSet<Box<[u8]>>,
    pub(super) topics: BTreeSet<Box<[u8]>>,
    pub(super) active: Micros,
    pub(super) last_command: &'static str,
    /// RESP2 with subscriptions: few commands are allowed.
    pub(super) subscribed: bool,
    parser: Parser,
}

impl Session {
    /// A fresh connection in keyspace 0. `trusted`: the node asks for no password.
    #[must_use]
    pub fn new(origin: Origin, trusted: bool) -> Session {
        Session {
            origin,
            db: KeyspaceId(0),
            name: Box::default(),
            library: (Box::default(), Box::default()),
            user: trusted.then(|| super::users::DEFAULT_USER.into()),
            transaction: None,
            watching: false,
            watched: None,
            closing: false,
            no_evict: false,
            channels: BTreeSet::new(),
            topics: BTreeSet::new(),
            active: origin.at,
            last_command: "NULL",
            subscribed: false,
            parser: Parser::default(),
        }
    }

    /// It is in another keyspace from now on.
    pub const fn enter(&mut self, db: KeyspaceId) {
        self.db = db;
    }

    /// Where it comes from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// As whom it has entered, if it has.
    #[must_use]
    pub fn user(&self) -> Option<&[u8]> {
        self.user.as_deref()
    }

    /// When its client last sent something.
    #[must_use]
    pub const fn active(&self) -> Micros {
        self.active
    }

    /// Whether it subscribed to anything.
    #[must_use]
    pub fn is_subscriber(&self) -> bool {
        !self.channels.is_empty() || !self.topics.is_empty()
    }

    /// Reads and runs commands from `bytes` until they end or the session must wait.
    ///
    /// Bytes that were not consumed must be handed in again, followed by what came after them.
    pub fn feed<H: Host>(&mut self, now: Micros, bytes: &[u8], host: &mut H) -> Fed {
        self.active = now;
        let mut parser = core::mem::take(&mut self.parser);
        let mut consumed = 0;
        let mut expected = 0;
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
                    if !args.is_empty() {
                        match self.command(&args, host) {
                            Submitted::Accepted => {}
                            Submitted::Later => {
                                // It may wait for the disk: what is behind it can be fetched with it.
                                if consumed + taken > expected && self.user.is_some() {
                                    host.expect(self.db, &keys_ahead(&bytes[consumed + taken..]).0);
                                }
                                break State::Waiting;
                            }
                            Submitted::Paused => break State::Paused,
                        }
                    }
                    consumed += taken;
                    if consumed >= expected && consumed < bytes.len() && self.user.is_some() {
                        let (commands, length) = keys_ahead(&bytes[consumed..]);
                        host.expect(self.db, &commands);
                        expected = consumed + length.max(1);
                    }
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
        self.unsubscribe_all(host);
    }

    #[inline]
    fn command<H: Host>(&mut self, words: &[&[u8]], host: &mut H) -> Submitted {
        let (name, args) = (words[0], &words[1..]);
        match host.registry().find(name) {
            Some(command) if command.flags.0 & Flags::INTERNAL.and(Flags::SESSION).0 == 0 => {
                self.store_command(command, args, host)
            }
            found => self.own_command(name, args, found, host),
        }
    }

    #[inline]
    fn store_command<H: Host + ?Sized>(
        &mut self,
        command: &'static Command,
        args: &[&[u8]],
        host: &mut H,
    ) -> Submitted {
        self.last_command = command.name;
        if !command.takes(args.len()) {
            self.refuse(host, &Fault::Arity(command.name));
            return Submitted::Accepted;
        }
        if self.user.is_none() || self.subscribed || host.paused() != Pause::Off {
            let changes = command.kind == Kind::Write;
            if let Some(submitted) = self.gate(command.name, changes, Traits::NONE, host) {
                return submitted;
            }
        }
        if host.io().cluster
            && let Err(fault) = host.steer(self.db, command, args)
        {
            self.refuse(host, &fault);
            return Submitted::Accepted;
        }
        if self.transaction.is_some() {
            self.queue(command, args, host);
            return Submitted::Accepted;
        }
        if command.flags.has(Flags::BLOCKING) && host.io().pending() > 0 {
            return Submitted::Later;
        }
        host.submit(self.db, command, args)
    }

    /// Queues a command of the store, unless it belongs to another partition than those before it.
    fn queue<H: Host + ?Sized>(&mut self, command: &Command, args: &[&[u8]], host: &mut H) {
        let watched = self.watched.filter(|(db, _)| *db == self.db).map(|(_, partition)| partition);
        let placed = host.partition_of(self.db, command, args);
        let Some(transaction) = &mut self.transaction else { return };
        let bound = placed.and_then(|place| transaction.bind(place, watched));
        match bound {
            Err(fault) => self.refuse(host, &fault),
            Ok(partition) if host.is_full(self.db, partition) => {
                self.refuse(host, &Fault::Text(OUT_OF_MEMORY));
            }
            Ok(_) => {
                transaction.push(command, args);
                self.answer(host, |reply| reply.simple("QUEUED"));
            }
        }
    }

    /// Refuses what this client may not send now, and holds back what is paused.
    #[cold]
    fn gate<H: Host + ?Sized>(
        &mut self,
        name: &str,
        changes: bool,
        traits: Traits,
        host: &mut H,
    ) -> Option<Submitted> {
        if self.user.is_none() && !traits.has(Traits::NO_AUTH) {
            self.refuse(host, &Fault::Text("NOAUTH Authentication required."));
            return Some(Submitted::Accepted);
        }
        if self.subscribed && !traits.has(Traits::SUBSCRIBED) {
            let text = alloc::format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                 allowed in this context"
            );
            self.refuse(host, &Fault::Said(text));
            return Some(Submitted::Accepted);
        }
        let held = match host.paused() {
            Pause::Off => false,
            Pause::Writes => changes,
            Pause::All => true,
        };
        held.then_some(Submitted::Paused)
    }

    /// A subcommand of `SCRIPT`. Each partition remembers scripts for itself, clients expect one memory.
    fn script_command(
        &mut self,
        command: &'static Command,
        args: &[&[u8]],
        host: &mut dyn Host,
    ) -> Submitted {
        let at_once = self.transaction.is_none() && command.takes(args.len());
        let everywhere = at_once && command.kind == Kind::Write && self.user.is_some();
        if everywhere
            && !self.subscribed
            && host.paused() == Pause::Off
            && !host.spread(command, args, self.db)
        {
            return Submitted::Later;
        }
        self.store_command(command, args, host)
    }

    /// A command that the session answers itself, or that the store has only in part.
    fn own_command(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        stored: Option<&'static Command>,
        host: &mut dyn Host,
    ) -> Submitted {
        // A subcommand's row is reached through its container only.
        let plain = |command: &&Command| !command.flags.has(Flags::INTERNAL) && !command.name.contains('|');
        let stored = stored.filter(plain);
        if stored.is_some_and(|command| command.id == script::CONTAINER)
            && let Some((command, args)) = host.registry().resolve(name, args)
        {
            return self.script_command(command, args, host);
        }
        let fault = match (table::find(name, args), stored) {
            (Found::Row(row, own), stored) => return self.run_row(row, own, stored, args, host),
            (Found::NoSub(_) | Found::None, Some(command)) => return self.store_command(command, args, host),
            (Found::NoSub(row), None) => {
                let upper = row.name.to_ascii_uppercase();
                let sub = shown(args[0]);
                Fault::Said(alloc::format!("ERR unknown subcommand '{sub}'. Try {upper} HELP."))
            }
            (Found::None, None) => Fault::Said(unknown(name, args)),
        };
        self.refuse(host, &fault);
        Submitted::Accepted
    }

    fn run_row(
        &mut self,
        row: &'static Row,
        args: &[&[u8]],
        stored: Option<&'static Command>,
        all: &[&[u8]],
        host: &mut dyn Host,
    ) -> Submitted {
        self.last_command = row.name;
        let words = args.len() + row.words();
        let fits = if row.arity >= 0 {
            words == row.arity as usize
        } else {
            words >= row.arity.unsigned_abs().into()
        };
        if !fits {
            if row.name == "exec" {
                self.transaction = None;
                super::transaction::unwatch_all(self, host);
                let text = "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command";
                self.refuse(host, &Fault::Text(text));
            } else {
                self.refuse(host, &Fault::Arity(row.name));
            }
            return Submitted::Accepted;
        }
        if self.user.is_none() || self.subscribed || host.paused() != Pause::Off {
            let changes = row.traits.has(Traits::CHANGES)
                || row.name == "exec" && self.transaction.as_ref().is_some_and(Transaction::changes);
            if let Some(submitted) = self.gate(row.name, changes, row.traits, host) {
                return submitted;
            }
        }
        if let Some(transaction) = self.transaction.as_mut().filter(|_| !row.traits.has(Traits::UNQUEUED)) {
            if row.traits.has(Traits::NO_MULTI) {
                self.refuse(host, &Fault::Text("ERR Command not allowed inside a transaction"));
            } else if let Some(command) = stored.filter(|_| row.traits.has(Traits::PARTLY)) {
                return self.store_command(command, all, host);
            } else if let Err(fault) = super::keyspaces::check_queued(host, row, args, self.db) {
                self.refuse(host, &fault);
            } else if host.is_full(self.db, transaction.partition()) {
                self.refuse(host, &Fault::Text(OUT_OF_MEMORY));
            } else {
                transaction.push_own(row, args);
                self.answer(host, |reply| reply.simple("QUEUED"));
            }
            return Submitted::Accepted;
        }
        if host.io().pending() > 0 && !row.traits.has(Traits::NOW) {
            return Submitted::Later;
        }
        let tells = row.traits.has(Traits::NODE);
        if tells && !host.begin_survey() {
            return Submitted::Later;
        }
        let mut encoded = Vec::new();
        host.begin_command();
        let result = self.call(row, args, Place::Direct, &mut encoded, host).0;
        if tells {
            host.end_survey();
        }
        match result {
            Err(fault) => self.refuse_running(host, &fault),
            Ok(Done::Answered) => self.answer(host, |reply| reply.raw(&encoded)),
            Ok(Done::Silent) => {}
            Ok(Done::Stored(submitted)) => return submitted,
            Ok(Done::Later) => return Submitted::Later,
            Ok(Done::Store) => match stored {
                Some(command) => return self.store_command(command, all, host),
                None => self.refuse(host, &Fault::Said(unknown(row.name.as_bytes(), all))),
            },
        }
        host.count_command(row.name);
        Submitted::Accepted
    }

    /// Runs a handler; its answer goes to `encoded`. The second value is what it embeds in EXEC.
    pub(super) fn call(
        &mut self,
        row: &'static Row,
        args: &[&[u8]],
        place: Place,
        encoded: &mut Vec<u8>,
        host: &mut dyn Host,
    ) -> (Result<Done, Fault>, Option<Vec<u8>>) {
        let resp3 = host.io().resp3;
        let reply = RespReply(Encoder::new(encoded, resp3));
        let mut call = Call { session: self, host, row, args, reply, place, embedded: None };
        let result = (row.run)(&mut call);
        (result, call.embedded)
    }

    /// Answers this command with a fault; a transaction being queued is spoilt by it.
    pub(super) fn refuse<H: Host + ?Sized>(&mut self, host: &mut H, fault: &Fault) {
        if let Some(transaction) = &mut self.transaction {
            transaction.spoil();
        }
        self.refuse_running(host, fault);
    }

    fn refuse_running<H: Host + ?Sized>(&mut self, host: &mut H, fault: &Fault) {
        self.answer(host, |reply| reply.fault(fault));
    }

    /// Answers this command.
    pub(super) fn answer<H: Host + ?Sized, T>(
        &mut self,
        host: &mut H,
        write: impl FnOnce(&mut RespReply<'_>) -> T,
    ) -> T {
        let io = host.io();
        let sequence = io.begin();
        io.answer(sequence, write)
    }
}

fn unknown(name: &[u8], args: &[&[u8]]) -> alloc::string::String {
    let mut list = alloc::string::String::new();
    for arg in args {
        // Redis stops at the same length.
        let Some(room) = 128usize.checked_sub(list.len()).filter(|&room| room > 0) else { break };
        let arg = alloc::string::String::from_utf8_lossy(&arg[..arg.len().min(room)]);
        list.push_str(&alloc::format!("'{arg}' "));
    }
    alloc::format!("ERR unknown command '{}', with args beginning with: {list}", shown(name))
}
