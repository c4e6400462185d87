//! MULTI: commands queued on the connection and run as one log entry by EXEC.
//!
//! The session's own commands run when EXEC is handed to the store, just before the entry's; their
//! answers travel in it as literals. PUBLISH and FLUSHALL run in their place within the entry.

use alloc::boxed::Box;
use alloc::vec::Vec;

use storage::command::generic::{EXEC, EXEC_READ};
use storage::entry::put_command;
use storage::reach::CROSS_SLOT;
use storage::{Command, Fault, Flags, Kind, Reply};
use wire::resp::Encoder;

use super::RespReply;
use super::call::{Call, Done, Place, literal};
use super::host::{Host, OUT_OF_MEMORY, Submitted};
use super::session::Session;
use super::table::{Row, Traits};
use super::whole::Progress;

/// Bytes that one transaction may queue.
pub const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A queued command.
#[derive(Debug)]
enum Step {
    /// The store's, as in an entry's body.
    Store(Vec<u8>),
    /// The session's own.
    Own(&'static Row, Vec<Box<[u8]>>),
}

/// The commands queued since MULTI.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    steps: Vec<Step>,
    bytes: usize,
    writes: bool,
    publishes: bool,
    grows: bool,
    has_own: bool,
    spoilt: bool,
    /// Where it runs, once a command has named a key of a keyspace of several partitions.
    partition: Option<u16>,
}

impl Transaction {
    /// Queues a store command.
    pub fn push(&mut self, command: &Command, args: &[&[u8]]) {
        let mut body = Vec::new();
        put_command(&mut body, command.id, args);
        self.writes |= command.kind == Kind::Write;
        self.grows |= command.flags.has(Flags::DENY_OOM);
        self.weigh(body.len(), Step::Store(body));
    }

    /// Queues a command of the session's own.
    pub fn push_own(&mut self, row: &'static Row, args: &[&[u8]]) {
        self.has_own = true;
        self.publishes |= row.traits.has(Traits::CHANGES);
        self.writes |= row.name == "flushall";
        let bytes = args.iter().map(|arg| arg.len()).sum();
        self.weigh(bytes, Step::Own(row, args.iter().map(|&arg| arg.into()).collect()));
    }

    fn weigh(&mut self, bytes: usize, step: Step) {
        self.bytes += bytes + size_of::<Step>();
        if self.bytes > TRANSACTION_BYTES_MAX {
            self.spoilt = true;
            self.steps = Vec::new();
            return;
        }
        self.steps.push(step);
    }

    /// Notes the partition of a command, and gives that of the transaction. `watched` is where watched keys are.
    ///
    /// # Errors
    /// They are not the same.
    pub fn bind(&mut self, place: Option<u16>, watched: Option<u16>) -> Result<u16, Fault> {
        let Some(place) = place else { return Ok(self.partition()) };
        if *self.partition.get_or_insert(place) != place || watched.is_some_and(|other| other != place) {
            return Err(CROSS_SLOT);
        }
        Ok(place)
    }

    /// Where it runs: in the first partition if no command says.
    pub fn partition(&self) -> u16 {
        self.partition.unwrap_or(0)
    }

    /// A command was refused while queuing: EXEC will discard all.
    pub const fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// Whether it writes or publishes.
    pub const fn changes(&self) -> bool {
        self.writes || self.publishes
    }

    /// Commands queued.
    pub const fn len(&self) -> usize {
        self.steps.len()
    }
}

pub(super) fn multi(call: &mut Call<'_>) -> Result<Done, Fault> {
    if call.session.transaction.is_some() {
        return Err(Fault::Text("ERR MULTI calls can not be nested"));
    }
    call.session.transaction = Some(Transaction::default());
    call.ok()
}

pub(super) fn discard(call: &mut Call<'_>) -> Result<Done, Fault> {
    if call.session.transaction.take().is_none() {
        return Err(Fault::Text("ERR DISCARD without MULTI"));
    }
    unwatch_all(call.session, call.host);
    call.ok()
}

pub(super) fn watch(call: &mut Call<'_>) -> Result<Done, Fault> {
    if call.session.transaction.is_some() {
        return Err(Fault::Text("ERR WATCH inside MULTI is not allowed"));
    }
    // The watch begins after this connection's own earlier writes.
    if call.host.io().pending() > 0 {
        return Ok(Done::Later);
    }
    let (db, earlier) = (call.session.db, call.session.watched);
    if call.host.io().cluster {
        let partition = call.host.partition_of_keys(db, call.args)?;
        call.host.steer_to(db, partition.unwrap_or(0), true)?;
    }
    if let Some(partition) = call.host.partition_of_keys(db, call.args)? {
        if earlier.is_some_and(|(other, place)| other == db && place != partition) {
            return Err(CROSS_SLOT);
        }
        call.session.watched = Some((db, partition));
    }
    call.session.watching = true;
    match call.host.watch(call.session.db, call.args) {
        Progress::Done => call.ok(),
        Progress::Underway => Ok(Done::Silent),
    }
}

pub(super) fn unwatch(call: &mut Call<'_>) -> Result<Done, Fault> {
    unwatch_all(call.session, call.host);
    call.ok()
}

pub(super) fn unwatch_all(session: &mut Session, host: &mut dyn Host) {
    if session.watching {
        host.unwatch();
        session.watching = false;
        session.watched = None;
    }
    host.io().watch_broken = false;
}

pub(super) fn exec(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (session, host) = (&mut *call.session, &mut *call.host);
    let Some(mut transaction) = session.transaction.take() else {
        return Err(Fault::Text("ERR EXEC without MULTI"));
    };
    if (session.watching || transaction.has_own) && host.io().pending() > 0 {
        session.transaction = Some(transaction);
        return Ok(Done::Later);
    }
    if transaction.grows && host.is_full(session.db, transaction.partition()) {
        unwatch_all(session, host);
        let text = alloc::format!("EXECABORT Transaction discarded because of: {OUT_OF_MEMORY}");
        return Err(Fault::Said(text));
    }
    if transaction.spoilt {
        unwatch_all(session, host);
        return Err(Fault::Text("EXECABORT Transaction discarded because of previous errors."));
    }
    if host.io().cluster
        && !transaction.steps.is_empty()
        && let Err(fault) = host.steer_to(session.db, transaction.partition(), transaction.writes)
    {
        unwatch_all(session, host);
        return Err(fault);
    }
    // What the session's own commands tell of the node is gathered before they run.
    if transaction.has_own && !host.begin_survey() {
        session.transaction = Some(transaction);
        return Ok(Done::Later);
    }
    let broken =
        if session.watching { host.watch_broken(session.db, transaction.partition()) } else { Some(false) };
    match broken {
        None => {
            session.transaction = Some(transaction);
            return Ok(Done::Later);
        }
        Some(true) => {
            unwatch_all(session, host);
            host.end_survey();
            call.reply.null_array();
            return Ok(Done::Answered);
        }
        Some(false) => {}
    }
    if transaction.steps.is_empty() {
        unwatch_all(session, host);
        call.reply.array(0);
        return Ok(Done::Answered);
    }
    let id = if transaction.writes { EXEC } else { EXEC_READ };
    let command = host.registry().by_id(id).expect("the store knows its own commands");
    let steps = core::mem::take(&mut transaction.steps);
    let bodies: Vec<Vec<u8>> = steps.into_iter().map(|step| body(session, host, step)).collect();
    let slices: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    if transaction.has_own {
        host.end_survey();
    }
    let submitted = host.submit(session.db, command, &slices);
    if submitted == Submitted::Accepted {
        unwatch_all(session, host);
    } else {
        // Tried again later, still watching; the session's own commands are done and not done twice.
        transaction.steps = bodies.into_iter().map(Step::Store).collect();
        transaction.has_own = false;
        session.transaction = Some(transaction);
    }
    Ok(Done::Stored(submitted))
}

/// What the entry holds for a step; the session's own commands run here.
fn body(session: &mut Session, host: &mut dyn Host, step: Step) -> Vec<u8> {
    let (row, args) = match step {
        Step::Store(body) => return body,
        Step::Own(row, args) => (row, args),
    };
    let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
    let mut encoded = Vec::new();
    let (result, embedded) = session.call(row, &args, Place::Exec, &mut encoded, host);
    if let Some(body) = embedded {
        return body;
    }
    let fault = match result {
        Ok(Done::Answered) => return literal(&encoded),
        Ok(Done::Silent | Done::Stored(_) | Done::Later | Done::Store) => {
            Fault::Text("ERR Command not allowed inside a transaction")
        }
        Err(fault) => fault,
    };
    encoded.clear();
    let resp3 = host.io().resp3;
    RespReply(Encoder::new(&mut encoded, resp3)).fault(&fault);
    literal(&encoded)
}

const CONTROL: Traits = Traits::UNQUEUED.and(Traits::NO_SCRIPT).and(Traits::FAST);

/// This family's rows.
pub(super) const ROWS: &[Row] = &[
    Row::new("multi", 1, "transactions", multi)
        .with(CONTROL.and(Traits::NOW))
        .since("1.2.0")
        .about("Starts a transaction."),
    Row::new("exec", 1, "transactions", exec)
        .with(Traits::UNQUEUED.and(Traits::NO_SCRIPT).and(Traits::NOW))
        .since("1.2.0")
        .about("Runs the commands of a transaction."),
    Row::new("discard", 1, "transactions", discard)
        .with(CONTROL)
        .since("2.0.0")
        .about("Drops the commands of a transaction."),
    Row::new("watch", -2, "transactions", watch)
        .with(CONTROL.and(Traits::NOW))
        .since("2.2.0")
        .about("Makes the next transaction depend on keys staying as they are."),
    Row::new("unwatch", 1, "transactions", unwatch)
        .with(Traits::NO_SCRIPT.and(Traits::FAST))
        .since("2.2.0")
        .about("Forgets the watched keys."),
];
