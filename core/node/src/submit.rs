//! Handing commands to partitions: reads run at once where they may, writes join the turn's entry.

use alloc::vec::Vec;

use gateway::resp::{Io, RespReply, Sequence, Submitted};
use kernel::codec::Reader;
use kernel::planted::{Bug, is};
use kernel::{ConnId, KeyspaceId, Micros, Rng};
use storage::apply::{Exec, Origin};
use storage::command::generic::{EXEC, TICK};
use storage::command::list_blocking::RETRY;
use storage::command::tagged::TAGGED;
use storage::entry::{Args, next_command, put_command};
use storage::store::LongId;
use storage::{Command, Kind, Reply, Silence};
use wire::resp::Encoder;

use crate::fetching::{Readiness, refuse_unreadable};
use crate::parcel::Protocol;
use crate::partition::{Batch, Queued, What};
use crate::worker::{AppendError, Worker};

/// How long after a refused entry an expiry is logged again, in milliseconds.
const TICK_RETRY_MS: u64 = 100;

/// What became of a read on the applied state.
pub(crate) enum Read {
    /// It is answered.
    Answered,
    /// Not: it saw an expiry that is not logged yet.
    Unlogged,
    /// It goes on in slices.
    Long(LongId),
}

impl Worker {
    /// Runs or queues a client's command on this worker's partition `at`, and hands on what it publishes.
    #[inline]
    pub(crate) fn submit_own_client(
        &mut self,
        (id, io): (ConnId, &mut Io),
        at: usize,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted {
        if self.partitions[at].store.evicts() {
            match self.fetch_for(id, at, command, args) {
                Readiness::Ready => {}
                Readiness::Waits => return Submitted::Later,
                Readiness::Unreadable(text) => {
                    let sequence = io.begin();
                    io.answer(sequence, |reply| refuse_unreadable(reply, &text));
                    return Submitted::Accepted;
                }
            }
        }
        self.front.suspect(id, command, args);
        let submitted = self.submit(id, io, at, command, args);
        self.partitions[at].store.forget_failures();
        if !self.effects.published.is_empty() {
            self.publish_effects(Some((id, io)));
        }
        submitted
    }

    /// Runs or queues `command` of connection `id`, whose output is `io`, on partition `at`.
    #[inline]
    pub(crate) fn submit(
        &mut self,
        id: ConnId,
        io: &mut Io,
        at: usize,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted {
        let partition = &self.partitions[at];
        let held = partition.stalled || partition.parked || partition.full || partition.limited;
        if (held || partition.store.damaged().is_some())
            && let Some(refused) = self.hold_back(id, io, at, command)
        {
            return refused;
        }
        self.count_call(command.id);
        // A read need only follow its own connection's writes to this partition. Leases are for reads: only they renew one.
        let idle = command.kind == Kind::Read
            && (io.pending() == 0 || self.partitions[at].is_quiet())
            && self.reads_at_once(at);
        let sequence = io.begin();
        match command.kind {
            Kind::Write => {
                self.reading = false;
                self.open(at);
                let open = &mut self.partitions[at].open;
                put_command(&mut open.body, command.id, args);
                open.queued.push(Queued { conn: id, sequence, what: What::Write });
                if !self.partitions[at].waiting_keys.is_empty() {
                    self.try_waiters_behind(at, command, args);
                }
            }
            Kind::Read => {
                let item = Queued { conn: id, sequence, what: What::Read };
                if !(idle && self.read_now(io, item, at, command, args)) {
                    self.queue_read(item, at, command, args);
                }
            }
        }
        Submitted::Accepted
    }

    /// What becomes of a command while its partition is not well; `None`: it runs all the same.
    #[cold]
    fn hold_back(&mut self, id: ConnId, io: &mut Io, at: usize, command: &Command) -> Option<Submitted> {
        let partition = &mut self.partitions[at];
        let stalled = partition.stalled && command.kind == Kind::Write;
        if (stalled || partition.parked) && partition.store.damaged().is_none() {
            partition.stalled_writers.push(id);
            return Some(Submitted::Paused);
        }
        let text = self.refuses(at, command)?;
        let sequence = io.begin();
        io.answer(sequence, |reply| reply.error(&text));
        Some(Submitted::Accepted)
    }

    /// Makes sure that partition `at` has a batch that will be logged.
    #[inline]
    pub(crate) fn open(&mut self, at: usize) {
        if self.partitions[at].open.body.is_empty() {
            self.opened.push(at);
        }
    }

    /// Makes sure that what is in partition `at`'s batch is not forgotten, if it has only reads.
    pub(crate) fn open_any(&mut self, at: usize) {
        let partition = &self.partitions[at];
        if partition.open.queued.is_empty() && !partition.parked {
            self.opened.push(at);
        }
    }

    /// Whether a read of partition `at` may run on what is applied here, without asking the group.
    #[inline]
    pub(crate) fn reads_at_once(&mut self, at: usize) -> bool {
        !self.partitions[at].replicated || self.holds_lease(at)
    }

    /// Whether this node leads partition `at` by a lease, by the time that was read since the command arrived.
    fn holds_lease(&mut self, at: usize) -> bool {
        let now = self.now;
        let partition = &mut self.partitions[at];
        let leads = partition.leads;
        let applied = partition.store.applied();
        let Some(replica) = partition.group.replica_mut().filter(|_| leads) else { return false };
        is(Bug::ReadUnconfirmed) || replica.read_by_lease(now).is_some_and(|index| index <= applied)
    }

    /// Logs the time, so that what expired is seen to have expired after a crash too.
    pub(crate) fn tick(&mut self, at: usize) {
        self.open(at);
        let open = &mut self.partitions[at].open;
        put_command(&mut open.body, TICK, &[]);
        open.queued.push(Queued { conn: ConnId(0), sequence: Sequence(0), what: What::Own });
    }

    /// Runs a read on the applied state. False if it saw an expiry that is not logged yet; then nothing
    /// was answered.
    #[inline]
    pub(crate) fn read_now(
        &mut self,
        io: &mut Io,
        item: Queued,
        at: usize,
        command: &'static Command,
        args: &[&[u8]],
    ) -> bool {
        let mut read = Read::Unlogged;
        io.try_answer(item.sequence, |reply: &mut RespReply<'_>| {
            read = self.read_into(at, command, args, reply);
            matches!(read, Read::Answered)
        });
        if let Read::Long(long) = read {
            io.blocked = true;
            let protocol = if io.resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
            self.begin_task(at, item, protocol, long);
        }
        !matches!(read, Read::Unlogged)
    }

    /// As [`Worker::read_now`], for an answer that goes wherever `reply` does.
    #[inline]
    pub(crate) fn read_into(
        &mut self,
        at: usize,
        command: &'static Command,
        args: &[&[u8]],
        reply: &mut RespReply<'_>,
    ) -> Read {
        if !self.reading {
            self.observer.begin();
            self.reading = true;
        }
        let partition = &mut self.partitions[at];
        partition.store.begin_reads(self.now);
        self.effects.slice = Some(self.slice_steps.0);
        let rng = Rng::new(self.rng.next_u64());
        let mut exec = Exec {
            store: &mut partition.store,
            reply,
            effects: &mut self.effects,
            registry: &self.registry,
            scripting: Some(&mut *self.scripting),
            rng,
            origin: Origin::Direct,
        };
        exec.run(command, args);
        let unlogged = exec.store.observed_unlogged_expiry() && !is(Bug::UnloggedExpiryRead);
        self.effects.slice = None;
        if !unlogged {
            self.observe(command, &[]);
        }
        match self.effects.long.take() {
            Some(long) if unlogged => {
                self.partitions[at].store.end_long(long);
                Read::Unlogged
            }
            Some(long) => Read::Long(long),
            None if unlogged => Read::Unlogged,
            None => Read::Answered,
        }
    }

    pub(crate) fn queue_read(&mut self, item: Queued, at: usize, command: &Command, args: &[&[u8]]) {
        if self.partitions[at].replicated {
            self.open_any(at);
            return Self::push_read(&mut self.partitions[at].open, item, command, args);
        }
        let partition = &mut self.partitions[at];
        // Behind the connection's own writes: in the last batch on its way, unless its time is before this
        // read's, which may see an expiry in between; else in this turn's batch.
        let now = self.now.millis();
        let last = partition.flying.back_mut().filter(|batch| batch.time.millis() >= now);
        if let (Some(batch), true) = (last, partition.open.queued.is_empty()) {
            return Self::push_read(batch, item, command, args);
        }
        if partition.open.body.is_empty() {
            self.tick(at);
        }
        let open = &mut self.partitions[at].open;
        Self::push_read(open, item, command, args);
    }

    fn push_read(batch: &mut Batch, item: Queued, command: &Command, args: &[&[u8]]) {
        put_command(&mut batch.reads, command.id, args);
        batch.queued.push(item);
    }

    /// The log refused a batch: its writers are told so. Its reads run behind what is on its way, which may
    /// hold earlier writes of their connections, or else on the state as it is. No tick can be logged: what
    /// has expired by the clock is not shown, even if a crash may bring it back.
    pub(crate) fn refuse(&mut self, at: usize, mut batch: Batch, error: AppendError) {
        let text = match error {
            AppendError::Full => {
                "MISCONF the disk is full or below its reserve; writes are refused until space returns. Free space or raise the quota."
            }
            AppendError::Failed => {
                "MISCONF the disk failed: whether this write survives is unknown, further ones are refused. Replace the disk and restart."
            }
            AppendError::TooLarge => {
                "ERR the commands of one turn are larger than one log entry may be; send less at once"
            }
        };
        self.partitions[at].tick_after = self.now.plus_millis(TICK_RETRY_MS);
        let queued = core::mem::take(&mut batch.queued);
        let mut reads = Reader::new(&batch.reads);
        let mut args = Args::new();
        for item in queued {
            match item.what {
                What::Own => {}
                What::Part(joint) => self.part_done(joint, Some(text)),
                What::Evict(bytes) => self.evicted(at, bytes, 0),
                What::Swap => self.swap_done(Some(text)),
                What::Retry(waiter) => {
                    self.partitions[at].untried = true;
                    self.tried(at, waiter);
                }
                What::Write | What::GuestWrite(_) if is(Bug::FullAcknowledged) => {
                    self.answer(item, |reply| reply.ok())
                }
                What::Write | What::GuestWrite(_) => self.answer(item, |reply| reply.error(text)),
                What::Read | What::GuestRead(_) => {
                    let id = next_command(&mut reads, &mut args).expect("a batch holds the reads it queued");
                    if self.partitions[at].replicated {
                        self.open_any(at);
                        let open = &mut self.partitions[at].open;
                        put_command(&mut open.reads, id, &args);
                        open.queued.push(item);
                        continue;
                    }
                    if let Some(last) = self.partitions[at].flying.back_mut() {
                        put_command(&mut last.reads, id, &args);
                        last.queued.push(item);
                        last.reads_at = self.now;
                        continue;
                    }
                    self.run_read(at, item, (id, &args), self.now);
                    self.publish_effects(None);
                }
            }
        }
        drop(args);
        if !is(Bug::WithdrawnBatchKept) {
            batch.clear();
        }
        self.partitions[at].spare.push(batch);
    }

    /// Answers a queued command.
    pub(crate) fn answer(&mut self, item: Queued, write: impl FnOnce(&mut RespReply<'_>)) {
        if let What::GuestWrite(guest) | What::GuestRead(guest) = item.what {
            self.others.reply(item.conn, item.sequence, guest, write);
        } else if let Some(connection) = self.connections.get_mut(item.conn) {
            connection.io.answer(item.sequence, write);
            self.answered(item.conn);
        }
    }

    /// Whether a watched key may not be what it was: a write to it is under way, or it has expired. As in
    /// Redis, a key that expires under its watch breaks it, reaped or not.
    pub(crate) fn may_have_changed(&self, db: KeyspaceId, key: &[u8]) -> bool {
        let Some(at) = self.routes.own_of_key(db, key) else { return true };
        self.in_flight(at, key) && !is(Bug::WatchIgnoresInFlight)
            || self.partitions[at].store.is_due(key, self.now)
    }

    /// Whether an entry that is not applied yet names `key` in a write.
    pub(crate) fn in_flight(&self, at: usize, key: &[u8]) -> bool {
        let partition = &self.partitions[at];
        partition.flying.iter().chain([&partition.open]).any(|batch| self.names(&batch.body, key))
    }

    fn names(&self, body: &[u8], key: &[u8]) -> bool {
        let mut reader = Reader::new(body);
        let mut args = Args::new();
        while !reader.is_empty() {
            let Ok(id) = next_command(&mut reader, &mut args) else { return true };
            let Some(command) = self.registry.by_id(id) else { return true };
            let nested = id == EXEC || id == RETRY || id == TAGGED;
            // What a tag says reads as no command that names a key.
            let inner = if id == TAGGED { args.get(1..).unwrap_or_default() } else { &args[..] };
            let nested = nested && inner.iter().any(|body| self.names(body, key));
            let whole = command.flags.has(storage::Flags::KEYSPACE) && command.kind == Kind::Write;
            if nested || whole || command.key_positions(&args).iter().any(|&at| args[at] == key) {
                return true;
            }
        }
        false
    }

    /// Runs a queued read now, at the later of `time` and the logged time.
    pub(crate) fn run_read(&mut self, at: usize, item: Queued, (id, args): (u16, &[&[u8]]), time: Micros) {
        let command = self.registry.by_id(id).expect("a batch holds commands of this version");
        self.partitions[at].store.begin_reads(time);
        let store = &mut self.partitions[at].store;
        let rng = Rng::new(self.rng.next_u64());
        let effects = &mut self.effects;
        effects.slice = Some(self.slice_steps.0);
        let run = |reply: &mut dyn Reply| {
            let mut exec = Exec {
                store,
                reply,
                effects,
                registry: &self.registry,
                scripting: Some(&mut *self.scripting),
                rng,
                origin: Origin::Direct,
            };
            exec.run(command, args);
            exec.effects.long.is_none()
        };
        let protocol = if let What::GuestRead(guest) = item.what {
            let mut bytes = Vec::new();
            if run(&mut RespReply(Encoder::new(&mut bytes, guest.protocol == Protocol::Resp3))) {
                self.others.send_reply(item.conn, item.sequence, guest, bytes);
            }
            Some(guest.protocol)
        } else if let Some(connection) = self.connections.get_mut(item.conn) {
            connection.io.blocked |= !connection.io.try_answer(item.sequence, |reply| run(reply));
            Some(if connection.io.resp3 { Protocol::Resp3 } else { Protocol::Resp2 })
        } else {
            run(&mut Silence);
            None
        };
        self.effects.slice = None;
        match (self.effects.long.take(), protocol) {
            (Some(long), Some(protocol)) => self.begin_task(at, item, protocol, long),
            (Some(long), None) => self.partitions[at].store.end_long(long),
            (None, _) => self.answered(item.conn),
        }
    }
}
