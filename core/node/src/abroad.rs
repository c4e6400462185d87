//! A node of several workers: handing to others what is theirs, and doing what they ask.
//!
//! A command for a partition of another worker goes there in a parcel and takes its place among the
//! connection's replies when the answer comes back. The owner runs it as its own: writes join the turn's
//! entry, reads run at once or behind what is on its way. Watches and waits are kept by the owner of the
//! keys, under the connection's id. Orders to the whole node pass through worker 0, so that all workers
//! follow them in the same order.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use gateway::resp::{OUT_OF_MEMORY, OUTPUT_BYTES_HIGH, Order, Release, RespReply, Sequence, Transferred};
use kernel::codec::Reader;
use kernel::planted::{Bug, is};
use kernel::{ConnId, GroupId, KeyspaceId, Micros, WorkerId};
use storage::command::generic::EXEC;
use storage::command::tagged::put_tagged;
use storage::entry::{Args, next_command, put_command};
use storage::{Command, Flags, Kind, Reply};
use wire::resp::Encoder;

use crate::cluster::PEERS_FIRST;
use crate::fetching::{Readiness, refuse_unreadable};
use crate::keyspaces::{Answer, Waits};
use crate::parcel::{Asker, Guest, Journey, Parcel, Part, Protocol, Question, Request, Telling};
use crate::partition::{Queued, Watcher, What};
use crate::submit::Read;
use crate::worker::{Settings, Worker};

/// The other workers, and what their clients have here.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub own: WorkerId,
    pub workers: Vec<WorkerId>,
    /// Parcels of this turn.
    outbox: Vec<(WorkerId, Parcel)>,
    /// Their clients that watch keys here.
    watches: BTreeMap<ConnId, GuestWatches>,
    /// Their clients that wait in blocking commands here: the partition, and the waiter.
    waiters: BTreeMap<ConnId, (usize, u64)>,
    /// Their transfers, held back by writes to one of the keys.
    journeys: Vec<(Asker, Journey)>,
    /// Partitions of others whose writers wait, and who does.
    pub stalled: BTreeMap<(KeyspaceId, u16), Vec<ConnId>>,
    /// Answers for this worker's own clients: parts of commands on several partitions.
    home: Vec<Answered>,
}

#[derive(Debug, Default)]
struct GuestWatches {
    broken: bool,
    keys: Vec<(KeyspaceId, Box<[u8]>)>,
}

/// A client, the place of its command, what was said of it, and the answer.
type Answered = (ConnId, Sequence, Guest, Vec<u8>);

impl Others {
    pub fn new(settings: &Settings) -> Others {
        let all = (0..settings.workers).map(WorkerId);
        Others {
            own: settings.worker,
            workers: all.filter(|&other| other != settings.worker).collect(),
            ..Others::default()
        }
    }

    pub fn is_alone(&self) -> bool {
        self.workers.is_empty()
    }

    /// The workers of the node.
    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    pub fn push(&mut self, to: WorkerId, parcel: Parcel) {
        self.outbox.push((to, parcel));
    }

    /// What goes to other nodes.
    pub fn take_abroad(&mut self) -> Vec<(WorkerId, Parcel)> {
        self.outbox.extract_if(.., |(to, _)| to.0 >= PEERS_FIRST).collect()
    }

    pub fn tell_all(&mut self, parcel: &Parcel) {
        self.outbox.extend(self.workers.iter().map(|&to| (to, parcel.clone())));
    }

    fn done(&mut self, part: Option<Part>, count: i64, error: Option<&'static str>) {
        if let Some(Part { worker, joint }) = part {
            self.push(worker, Parcel::Done { joint, count, error });
        }
    }

    /// A key that a guest watches changed.
    pub fn break_watch(&mut self, conn: ConnId) {
        if let Some(watches) = self.watches.get_mut(&conn) {
            watches.broken = true;
        }
    }

    pub fn waits(&mut self, conn: ConnId, at: usize, waiter: u64) {
        self.waiters.insert(conn, (at, waiter));
    }

    pub fn waits_no_more(&mut self, conn: ConnId) {
        self.waiters.remove(&conn);
    }

    /// Answers a client that another worker has, or that waits for several parts.
    pub fn reply(
        &mut self,
        conn: ConnId,
        sequence: Sequence,
        guest: Guest,
        write: impl FnOnce(&mut RespReply<'_>),
    ) {
        let mut bytes = Vec::new();
        write(&mut RespReply(Encoder::new(&mut bytes, guest.protocol == Protocol::Resp3)));
        self.send_reply(conn, sequence, guest, bytes);
    }

    /// Whether parts that this worker has answered itself wait for its next turn.
    pub const fn has_answers(&self) -> bool {
        !self.home.is_empty()
    }

    /// The same, encoded.
    pub fn send_reply(&mut self, conn: ConnId, sequence: Sequence, guest: Guest, bytes: Vec<u8>) {
        if conn.worker() == self.own {
            self.home.push((conn, sequence, guest, bytes));
        } else {
            self.push(conn.worker(), Parcel::Reply { conn, sequence, guest, bytes });
        }
    }

    /// The clients of other workers that have something here, of one worker.
    pub fn guests_of(&self, worker: WorkerId) -> Vec<ConnId> {
        let own = |conn: &ConnId| conn.worker() == worker;
        let known = self.watches.keys().chain(self.waiters.keys()).copied();
        let mut guests: Vec<ConnId> =
            known.chain(self.journeys.iter().map(|(asker, _)| asker.conn)).filter(own).collect();
        guests.sort_unstable();
        guests.dedup();
        guests
    }

    pub fn answer(&mut self, asker: Asker, write: impl FnOnce(&mut RespReply<'_>)) {
        self.reply(asker.conn, asker.sequence, asker.guest, write);
    }
}

/// What arrives.
impl Worker {
    /// Takes the parcels of this turn, in the order in which each worker must get its own.
    pub fn take_parcels(&mut self, out: &mut Vec<(WorkerId, Parcel)>) {
        out.append(&mut self.others.outbox);
    }

    /// Whether there are parcels to take.
    #[inline]
    #[must_use]
    pub const fn has_parcels(&self) -> bool {
        !self.others.outbox.is_empty()
    }

    /// A parcel came from worker `from`. What it makes others do is sent with this turn's parcels.
    pub fn accept(&mut self, now: Micros, from: WorkerId, parcel: Parcel) {
        self.now = now;
        self.reading = false;
        match parcel {
            Parcel::Request(request) => self.take_request(request),
            Parcel::Reply { conn, sequence, guest, bytes } => {
                self.take_reply(conn, sequence, guest.part, bytes);
            }
            Parcel::Watch { asker, db, keys } => {
                keys.into_iter().for_each(|key| self.watch_for(asker.conn, db, key));
                self.others.answer(asker, |reply| reply.ok());
            }
            Parcel::Unwatch { conn } => self.take_unwatch(conn),
            Parcel::Gone { conn } => self.guest_gone(conn),
            Parcel::Unblock { conn, release, part } => self.unblock_for(conn, release, part),
            Parcel::Transfer { asker, journey } => self.travel(asker, journey),
            Parcel::Everywhere { part, command, encoded, except } => {
                self.run_everywhere(part, command, &encoded, except);
            }
            Parcel::Done { joint, count, error } => {
                self.count_part(joint, count);
                self.part_done(joint, error);
            }
            Parcel::Deliver { part, channel, payload } => {
                let count = self.deliver(&channel, &payload, None);
                self.others.done(part, count as i64, None);
            }
            Parcel::Propose { part, order } => self.lead(part, order),
            Parcel::Follow { part, order } => {
                self.follow(&order);
                self.others.done(part, 0, None);
            }
            Parcel::Ask { conn, question } => {
                let telling = match question {
                    Question::Survey => Telling::Survey(Box::new(self.survey())),
                    Question::Watches => Telling::Watches { broken: self.guest_watch_broken(conn) },
                };
                self.others.push(from, Parcel::Told { conn, telling });
            }
            Parcel::Told { conn, telling } => self.hear(conn, telling),
            Parcel::Kill { conn } => self.kill(conn),
            Parcel::Stalled { db, partition, stalled: true } => {
                self.others.stalled.entry((db, partition)).or_default();
            }
            Parcel::Stalled { db, partition, stalled: false } => self.let_writers_go((db, partition)),
        }
    }

    /// Writers of another's partition wait no more.
    pub(crate) fn let_writers_go(&mut self, partition: (KeyspaceId, u16)) {
        for conn in self.others.stalled.remove(&partition).unwrap_or_default() {
            self.drained(conn);
        }
    }

    /// Runs a request, unless it must wait for bodies: false then, and nothing was done.
    pub(crate) fn run_request(&mut self, request: &Request) -> bool {
        let &Request { asker, db, partition, command, ref encoded, .. } = request;
        let Some(at) = self.routes.own(db, partition) else {
            self.misdirected_from(asker, GroupId::new(db, partition));
            return true;
        };
        let mut args = Args::new();
        next_command(&mut Reader::new(encoded), &mut args).expect("a worker encodes what it sends");
        match self.fetch_for(asker.conn, at, command, &args) {
            Readiness::Ready => {
                self.run_ready(request, at, &args);
                self.partitions[at].store.forget_failures();
            }
            Readiness::Waits => return false,
            Readiness::Unreadable(text) => {
                self.others.answer(asker, |reply| refuse_unreadable(reply, &text));
            }
        }
        true
    }

    pub(crate) fn run_ready(&mut self, request: &Request, at: usize, args: &[&[u8]]) {
        let &Request { asker, command, ref encoded, alone, watching, ref tag, .. } = request;
        self.front.suspect(asker.conn, command, args);
        if command.id == EXEC && self.is_out_of_memory(at) && self.grows(args) {
            let text = format!("EXECABORT Transaction discarded because of: {OUT_OF_MEMORY}");
            return self.others.answer(asker, |reply| reply.error(&text));
        }
        if watching && !is(Bug::GuestWatchIgnored) && self.guest_watch_broken(asker.conn) {
            return self.others.answer(asker, |reply| reply.null_array());
        }
        if let Some(text) = self.refuses(at, command) {
            return self.others.answer(asker, |reply| reply.error(&text));
        }
        if asker.guest.part.unwrap_or(0) == 0 {
            self.count_call(command.id);
        }
        let Asker { conn, sequence, guest } = asker;
        match command.kind {
            Kind::Write => {
                self.open(at);
                let open = &mut self.partitions[at].open;
                match tag {
                    Some(tag) => put_tagged(&mut open.body, tag, encoded),
                    None => open.body.extend_from_slice(encoded),
                }
                open.queued.push(Queued { conn, sequence, what: What::GuestWrite(guest) });
                if !self.partitions[at].waiting_keys.is_empty() {
                    self.try_waiters_behind(at, command, args);
                }
            }
            Kind::Read => {
                let idle = alone || self.partitions[at].is_quiet() || is(Bug::GuestReadOvertakes);
                let idle = idle && self.reads_at_once(at);
                if !(idle && self.read_for(asker, at, command, args)) {
                    let item = Queued { conn, sequence, what: What::GuestRead(guest) };
                    self.queue_read(item, at, command, args);
                }
            }
        }
        if !self.effects.published.is_empty() {
            self.publish_effects(None);
        }
    }

    /// Runs a guest's read on the applied state. False if it saw an expiry that is not logged yet.
    fn read_for(&mut self, asker: Asker, at: usize, command: &'static Command, args: &[&[u8]]) -> bool {
        let mut bytes = Vec::new();
        let mut reply = RespReply(Encoder::new(&mut bytes, asker.guest.protocol == Protocol::Resp3));
        let read = self.read_into(at, command, args, &mut reply);
        let Asker { conn, sequence, guest } = asker;
        match read {
            Read::Answered => self.others.send_reply(conn, sequence, guest, bytes),
            Read::Unlogged => return false,
            Read::Long(long) => {
                let item = Queued { conn, sequence, what: What::GuestRead(guest) };
                self.begin_task(at, item, guest.protocol, long);
            }
        }
        true
    }

    /// What a command is answered that its partition cannot take: it is damaged, or out of memory.
    pub(crate) fn refuses(&self, at: usize, command: &Command) -> Option<String> {
        let partition = &self.partitions[at];
        let full = command.flags.has(Flags::DENY_OOM) && self.is_out_of_memory(at);
        partition.store.damaged().or_else(|| full.then_some(OUT_OF_MEMORY)).map(String::from)
    }

    /// Whether a transaction has a command that needs memory: its session does not know of this worker's.
    fn grows(&self, steps: &[&[u8]]) -> bool {
        let mut args = Args::new();
        steps.iter().any(|step| {
            let id =
                next_command(&mut Reader::new(step), &mut args).expect("a session encodes what it queues");
            self.registry.by_id(id).is_some_and(|command| command.flags.has(Flags::DENY_OOM))
        })
    }

    /// Parts that this worker has answered itself.
    #[inline]
    pub(crate) fn take_home(&mut self) {
        if !self.others.home.is_empty() {
            for (conn, sequence, guest, bytes) in core::mem::take(&mut self.others.home) {
                if guest.life == 0 || self.answer_errand((conn, sequence, guest.part), &bytes) {
                    self.take_reply(conn, sequence, guest.part, bytes);
                }
            }
        }
    }

    pub(crate) fn take_reply(&mut self, conn: ConnId, sequence: Sequence, part: Option<u16>, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if let Some(part) = part {
            let gathers = &mut connection.abroad.gathers;
            if gathers.get_mut(&sequence).is_some_and(|gather| gather.take(part, bytes))
                && let Some(gather) = gathers.remove(&sequence)
            {
                connection.io.answer(sequence, |reply| gather.answer(reply, &mut self.rng));
                connection.held |= connection.io.out.len() > OUTPUT_BYTES_HIGH;
                self.answered(conn);
            }
            return;
        }
        if connection.abroad.waits_at.take().is_some() {
            connection.io.blocked = false;
        }
        connection.io.answer_encoded(sequence, bytes);
        // The session is asked again, and finds that its client must read first.
        connection.held |= connection.io.out.len() > OUTPUT_BYTES_HIGH;
        self.answered(conn);
    }

    pub(crate) fn hear(&mut self, conn: ConnId, telling: Telling) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let abroad = &mut connection.abroad;
        match telling {
            Telling::Survey(told) => match &mut abroad.survey {
                Some(survey) => survey.add(*told),
                none => *none = Some(told),
            },
            Telling::Watches { broken } => {
                abroad.verdict = Some(broken || abroad.verdict == Some(true));
            }
        }
        self.told(conn);
    }

    /// One of the asked workers has told.
    pub(crate) fn told(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.abroad.asking -= 1;
            self.answered(conn);
        }
    }
}

/// Watches and waits of guests.
impl Worker {
    pub(crate) fn watch_for(&mut self, conn: ConnId, db: KeyspaceId, key: Box<[u8]>) {
        let Some(at) = self.routes.own_of_key(db, &key) else {
            // Who leads now does not know of the watch: it counts as broken.
            self.others.watches.entry(conn).or_default().broken = true;
            return;
        };
        self.add_watcher(at, &key, conn);
        self.others.watches.entry(conn).or_default().keys.push((db, key));
    }

    /// Puts a watcher on a key of partition `at`.
    pub(crate) fn add_watcher(&mut self, at: usize, key: &[u8], conn: ConnId) {
        let partition = &mut self.partitions[at];
        // By the logged time: what has expired since then is still to be removed, and that breaks the watch.
        partition.store.begin_reads(Micros(0));
        let watcher = Watcher { conn, existed: partition.store.exists(key) };
        partition.watchers.entry(key.into()).or_default().push(watcher);
        partition.settle_interest();
    }

    /// Takes it away again.
    pub(crate) fn remove_watcher(&mut self, db: KeyspaceId, key: &[u8], conn: ConnId) {
        // One that does not lead any more has broken its watches and forgotten them.
        let Some(at) = self.routes.own_of_key(db, key) else { return };
        let partition = &mut self.partitions[at];
        if let Some(watchers) = partition.watchers.get_mut(key) {
            watchers.retain(|other| other.conn != conn);
            if watchers.is_empty() {
                partition.watchers.remove(key);
            }
        }
        partition.settle_interest();
    }

    pub(crate) fn unwatch_for(&mut self, conn: ConnId) {
        let Some(watches) = self.others.watches.remove(&conn) else { return };
        for (db, key) in watches.keys {
            self.remove_watcher(db, &key, conn);
        }
    }

    pub(crate) fn guest_watch_broken(&self, conn: ConnId) -> bool {
        // Whoever led when the watch began knew of it.
        let Some(watches) = self.others.watches.get(&conn) else { return true };
        watches.broken || watches.keys.iter().any(|(db, key)| self.may_have_changed(*db, key))
    }

    pub(crate) fn guest_gone(&mut self, conn: ConnId) {
        if let Some((at, waiter)) = self.others.waiters.remove(&conn) {
            self.partitions[at].forget_waiter(waiter);
        }
        self.others.journeys.retain(|(asker, _)| asker.conn != conn);
        self.forget_fetches(conn);
        self.drop_tasks(conn);
        // What is still on its way must not begin to wait.
        for partition in &mut self.partitions {
            let batches = partition.flying.iter_mut().chain([&mut partition.open]);
            for item in batches.flat_map(|batch| &mut batch.queued) {
                if item.conn == conn && matches!(item.what, What::GuestWrite(_)) {
                    item.what = What::Own;
                }
            }
        }
    }

    pub(crate) fn unblock_for(&mut self, conn: ConnId, release: Release, part: Option<Part>) {
        if conn.worker() == self.others.own
            && let Some(owner) =
                self.connections.get_mut(conn).and_then(|connection| connection.abroad.waits_at)
        {
            return self.others.push(owner, Parcel::Unblock { conn, release, part });
        }
        let waiter = self.others.waiters.get(&conn).copied();
        let waiter =
            waiter.or_else(|| self.connections.get_mut(conn).and_then(|connection| connection.waiter));
        let released = waiter.is_some_and(|waiter| self.let_go(waiter, release));
        self.others.done(part, i64::from(released), None);
    }
}

/// Transfers, and what goes to all keyspaces.
impl Worker {
    fn travel(&mut self, asker: Asker, journey: Journey) {
        match self.transfer(&journey.transfer()) {
            Ok(joint) => self.await_joint(joint, Waits::Guest(asker)),
            Err(Transferred::Later) => self.others.journeys.push((asker, journey)),
            Err(Transferred::Refused) => self.others.answer(asker, |reply| reply.int(0)),
            Err(
                Transferred::Accepted
                | Transferred::Unsupported
                | Transferred::Apart
                | Transferred::Clustered,
            ) => {
                self.others
                    .answer(asker, |reply| reply.error("ERR this server cannot move keys between databases"));
            }
        }
    }

    /// Transfers that were held back are tried again.
    #[inline]
    pub(crate) fn retry_journeys(&mut self) {
        if !self.others.journeys.is_empty() {
            for (asker, journey) in core::mem::take(&mut self.others.journeys) {
                self.travel(asker, journey);
            }
        }
    }

    fn run_everywhere(
        &mut self,
        part: Option<Part>,
        command: &'static Command,
        encoded: &[u8],
        except: Option<KeyspaceId>,
    ) {
        let mut args = Args::new();
        next_command(&mut Reader::new(encoded), &mut args).expect("a worker encodes what it sends");
        let joint = part.map(|part| self.begin_joint(Waits::Worker(part), Answer::Ok));
        self.submit_own_parts(joint, command, &args, except);
        if let Some(joint) = joint {
            self.close_joint(joint);
        }
    }

    /// Queues a command on every partition of this worker.
    pub(crate) fn submit_own_parts(
        &mut self,
        joint: Option<u64>,
        command: &Command,
        args: &[&[u8]],
        except: Option<KeyspaceId>,
    ) {
        for at in 0..self.partitions.len() {
            if self.partitions[at].leads && Some(self.partitions[at].keyspace()) != except {
                self.submit_part(joint, at, command, args);
            }
        }
    }

    /// Sends the parts of the other workers.
    pub(crate) fn send_parts(
        &mut self,
        joint: Option<u64>,
        command: &'static Command,
        args: &[&[u8]],
        except: Option<KeyspaceId>,
    ) {
        if self.others.is_alone() {
            return;
        }
        let part = self.part_for_each(joint, self.others.workers.len());
        let mut encoded = Vec::new();
        put_command(&mut encoded, command.id, args);
        self.others.tell_all(&Parcel::Everywhere { part, command, encoded, except });
    }

    /// What `workers` others name when they have done their parts of `joint`.
    pub(crate) fn part_for_each(&mut self, joint: Option<u64>, workers: usize) -> Option<Part> {
        let joint = joint?;
        self.expect_parts(joint, workers);
        Some(Part { worker: self.others.own, joint })
    }

    /// Sends a message to the subscribers of the other workers.
    pub(crate) fn send_message(&mut self, joint: Option<u64>, channel: &[u8], payload: &[u8]) {
        if !self.others.is_alone() {
            let part = self.part_for_each(joint, self.others.workers.len());
            self.others.tell_all(&Parcel::Deliver { part, channel: channel.into(), payload: payload.into() });
        }
    }

    /// Worker 0 follows an order and passes it on.
    fn lead(&mut self, part: Option<Part>, order: Order) {
        self.follow(&order);
        self.others.done(part, 0, None);
        self.others.tell_all(&Parcel::Follow { part, order });
    }

    pub(crate) fn follow(&mut self, order: &Order) {
        match order {
            Order::Configure(pairs) => {
                let pairs: Vec<(&[u8], &[u8])> =
                    pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
                // It was checked by the same rules where it was asked for.
                let _ = self.front.config.set(&pairs);
                self.take_settings();
            }
            &Order::Pause(pause, until) => self.pause(pause, until),
            Order::ResetCounters => self.reset_counters(),
            Order::ResetSlowlog => self.front.slowlog.clear(),
            Order::ResetLatency(names) => {
                self.front.latency.reset(names);
            }
        }
    }

    /// Writers of partition `at` wait, here and at the other workers, or go on.
    pub(crate) fn tell_stalled(&mut self, at: usize, stalled: bool) {
        let (db, partition) = (self.partitions[at].keyspace(), self.partitions[at].number());
        self.others.tell_all(&Parcel::Stalled { db, partition, stalled });
        self.broadcast_stall(db, partition, stalled);
    }
}
