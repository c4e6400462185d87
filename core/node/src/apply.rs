//! Applying committed batches and acting on what their commands ask for.

use alloc::boxed::Box;
use alloc::vec::Vec;

use consensus::Group;
use gateway::resp::RespReply;
use kernel::ConnId;
use kernel::codec::Reader;
use kernel::planted::{Bug, is};
use storage::apply::{Block, Machinery, apply_command};
use storage::command::generic::{EXEC, EXEC_READ};
use storage::command::list_blocking::RETRY;
use storage::command::tagged::TAGGED;
use storage::entry::{Args, next_command, put_command};
use storage::object::table::Key;
use storage::{Command, Reply, Silence};
use wire::resp::Encoder;

use crate::cluster::UNBLOCKED;
use crate::parcel::{Guest, Protocol};
use crate::partition::{Batch, Queued, Waiter, Watcher, What};
use crate::worker::Worker;

impl Worker {
    /// Applies every batch that its group has committed. True if there was one.
    pub(crate) fn apply_committed(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.partitions.len() {
            loop {
                let partition = &mut self.partitions[at];
                let committed = partition.group.committed();
                if partition
                    .flying
                    .front()
                    .is_none_or(|batch| batch.index > committed && !is(Bug::ApplyBeforeCommit))
                {
                    break;
                }
                let Some(batch) = partition.flying.pop_front() else { break };
                self.apply_batch(at, batch);
                any = true;
            }
        }
        any
    }

    pub(crate) fn apply_batch(&mut self, at: usize, mut batch: Batch) {
        let queued = core::mem::take(&mut batch.queued);
        let mut writes = Reader::new(&batch.body);
        let mut reads = Reader::new(&batch.reads);
        let mut args = Args::new();
        let mut place = 0;
        let time = if is(Bug::ExpiryByLocalClock) { self.now } else { batch.time };
        self.partitions[at].store.begin_entry(batch.index, time);
        let mut reading = false;
        self.observer.begin();
        for &item in &queued {
            if item.what.is_read() {
                let id = next_command(&mut reads, &mut args).expect("a batch holds the reads it queued");
                reading = true;
                // Not at the clock: it would see expiries that no entry says, and a crash could undo.
                self.run_read(at, item, (id, &args), batch.time.max(batch.reads_at));
                self.publish_effects(None);
                self.observe(self.command(id), &[]);
                continue;
            }
            if reading {
                self.partitions[at].store.resume_entry();
                reading = false;
            }
            let before = writes.rest();
            let id = next_command(&mut writes, &mut args).expect("a batch holds the writes it queued");
            let encoded = &before[..before.len() - writes.rest().len()];
            self.apply_write(at, item, (batch.index, place), id, &args);
            let blocks = self.effects.block.take();
            let waits = blocks.is_some();
            if let Some(block) = blocks {
                self.block(at, item, encoded, block);
            }
            if !self.effects.published.is_empty() {
                self.publish_effects(None);
            }
            place += 1;
            self.notice_changes(at);
            // A command that waits is told when it is served; what is the node's own is nobody's.
            let clients = matches!(item.what, What::Write | What::GuestWrite(_) | What::Retry(_));
            if clients && !waits {
                self.observe(self.command(id), &args);
            } else {
                self.observer.begin();
            }
        }
        self.reading = false;
        self.partitions[at].store.end_entry();
        self.partitions[at].written += batch.body.len() as u64;
        drop(args);
        batch.queued = queued;
        batch.clear();
        self.partitions[at].spare.push(batch);
    }

    /// Answers the reads of a round that was confirmed.
    pub(crate) fn apply_reads(&mut self, at: usize, mut batch: Batch) {
        let queued = core::mem::take(&mut batch.queued);
        let mut reads = Reader::new(&batch.reads);
        let mut args = Args::new();
        // When the round began nothing had expired unlogged. If an entry that came before it since has brought a key
        // whose time is over by now, the logged time is younger than the round's beginning.
        let store = &self.partitions[at].store;
        let due = store.next_expiry().is_some_and(|expiry| expiry <= batch.time.millis());
        let time = if due { store.time() } else { batch.time };
        self.observer.begin();
        for &item in &queued {
            let id = next_command(&mut reads, &mut args).expect("a batch holds the reads it queued");
            self.run_read(at, item, (id, &args), time);
            self.publish_effects(None);
            self.observe(self.command(id), &[]);
        }
        self.reading = false;
        drop(args);
        batch.queued = queued;
        batch.clear();
        self.partitions[at].spare.push(batch);
    }

    fn command(&self, id: u16) -> &'static Command {
        self.registry.by_id(id).expect("a batch holds commands of this version")
    }

    /// Tells the observer that `command` was run, under the name that its client knows.
    #[inline]
    pub(crate) fn observe(&mut self, command: &'static Command, args: &[&[u8]]) {
        match command.id {
            EXEC | EXEC_READ => self.observer.ran(command.id, "exec"),
            TAGGED => {
                let mut inner = Args::new();
                let tagged =
                    args.get(1).and_then(|body| next_command(&mut Reader::new(body), &mut inner).ok());
                if let Some(id) = tagged.filter(|&id| id != TAGGED) {
                    self.observe(self.command(id), &inner);
                }
            }
            RETRY => {
                let mut inner = Args::new();
                let retried =
                    args.first().and_then(|body| next_command(&mut Reader::new(body), &mut inner).ok());
                if let Some(id) = retried {
                    let name = self.command(id).name;
                    self.observer.ran(id, name);
                }
            }
            id => self.observer.ran(id, command.name),
        }
    }

    #[inline]
    fn apply_write(&mut self, at: usize, item: Queued, place: (kernel::Index, u32), id: u16, args: &[&[u8]]) {
        let command = self.registry.by_id(id).expect("a batch holds commands of this version");
        let mut machinery = Machinery {
            registry: &self.registry,
            scripting: &mut *self.scripting,
            effects: &mut self.effects,
        };
        let partition = &mut self.partitions[at];
        let keys = partition.store.len();
        let connection = match item.what {
            What::Own | What::Part(_) | What::Evict(_) | What::Swap | What::Read | What::GuestRead(_) => None,
            What::Write | What::Retry(_) => self.connections.get_mut(item.conn),
            What::GuestWrite(guest) => {
                return self.apply_for_guest(at, item, guest, (place, command, args));
            }
        };
        let Some(connection) = connection else {
            if let What::Retry(waiter) = item.what
                && let Some(guest) = partition.waiters.get(&waiter).and_then(|waiter| waiter.guest)
            {
                return self.apply_for_guest(at, item, guest, (place, command, args));
            }
            apply_command(&mut partition.store, &mut machinery, place, command, args, &mut Silence);
            // Nobody is left to wait.
            machinery.effects.block = None;
            match item.what {
                What::Retry(waiter) => _ = self.partitions[at].forget_waiter(waiter),
                What::Part(joint) => self.part_done(joint, None),
                What::Evict(bytes) => {
                    let keys = keys - self.partitions[at].store.len();
                    self.evicted(at, bytes, keys as u64);
                }
                What::Swap => self.swap_done(None),
                What::Own | What::Write | What::Read | What::GuestWrite(_) | What::GuestRead(_) => {}
            }
            return;
        };
        let answered = connection.io.try_answer(item.sequence, |reply| {
            apply_command(&mut partition.store, &mut machinery, place, command, args, reply);
            machinery.effects.block.is_none()
        });
        if answered {
            if let What::Retry(waiter) = item.what {
                connection.io.blocked = false;
                connection.waiter = None;
                self.partitions[at].forget_waiter(waiter);
            }
            self.answered(item.conn);
        }
    }

    /// Applies a write of another worker's client and sends the answer.
    fn apply_for_guest(
        &mut self,
        at: usize,
        item: Queued,
        guest: Guest,
        (place, command, args): ((kernel::Index, u32), &Command, &[&[u8]]),
    ) {
        let mut bytes = Vec::new();
        let mut reply = RespReply(Encoder::new(&mut bytes, guest.protocol == Protocol::Resp3));
        let mut machinery = Machinery {
            registry: &self.registry,
            scripting: &mut *self.scripting,
            effects: &mut self.effects,
        };
        apply_command(&mut self.partitions[at].store, &mut machinery, place, command, args, &mut reply);
        if self.effects.block.is_some() {
            return;
        }
        if let What::Retry(waiter) = item.what {
            self.partitions[at].forget_waiter(waiter);
            self.others.waits_no_more(item.conn);
        }
        self.others.send_reply(item.conn, item.sequence, guest, bytes);
    }

    /// A connection was answered: it is to be flushed, and may go on if nothing else is pending.
    #[inline]
    pub(crate) fn answered(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.io.listed {
            connection.io.listed = true;
            self.flush.push(id);
        }
        if connection.may_resume() {
            connection.resumed = true;
            self.resume.push(id);
        }
    }

    /// The command found nothing: its client waits for one of the keys.
    fn block(&mut self, at: usize, item: Queued, encoded: &[u8], block: Block) {
        if let What::Retry(waiter) = item.what {
            self.tried(at, waiter);
            return;
        }
        if !self.partitions[at].leads {
            return self.answer(item, |reply| reply.error(UNBLOCKED));
        }
        self.waiters += 1;
        let number = self.waiters;
        let guest = if let What::GuestWrite(guest) = item.what {
            self.others.waits(item.conn, at, number);
            Some(guest)
        } else {
            let Some(connection) = self.connections.get_mut(item.conn) else { return };
            connection.io.blocked = true;
            connection.waiter = Some((at, number));
            None
        };
        let deadline = block.timeout_ms.map(|millis| self.now.plus_millis(millis));
        let partition = &mut self.partitions[at];
        for key in &block.keys {
            let ids = partition.waiting_keys.entry(key.clone()).or_default();
            if ids.last() != Some(&number) {
                ids.push(number);
            }
        }
        let waiter = Waiter {
            conn: item.conn,
            sequence: item.sequence,
            guest,
            encoded: encoded.to_vec(),
            keys: block.keys,
            deadline,
            null_bulk: block.null_bulk,
            trying: false,
            expired: false,
        };
        partition.waiters.insert(number, waiter);
        partition.settle_interest();
    }

    pub(crate) fn tried(&mut self, at: usize, id: u64) {
        let Some(waiter) = self.partitions[at].waiters.get_mut(&id) else { return };
        waiter.trying = false;
        let expired = waiter.expired;
        if !self.partitions[at].leads {
            self.release(at, id, |reply, _| reply.error(UNBLOCKED));
        } else if expired {
            self.time_out(at, id);
        }
    }

    /// Breaks watches on changed keys and tries the clients that wait for them, first come first served.
    #[inline]
    pub(crate) fn notice_changes(&mut self, at: usize) {
        if self.partitions[at].store.has_touched() {
            self.notice_touched(at);
        }
    }

    #[inline(never)]
    fn notice_touched(&mut self, at: usize) {
        let partition = &mut self.partitions[at];
        let mut touched: Vec<Key> = Vec::new();
        let flushed = partition.store.take_touched(&mut touched);
        if flushed {
            // A key that was not there when its watch began is not there now, or the watch is broken already.
            let existed = partition.watchers.iter().filter(|(_, all)| all.iter().any(|one| one.existed));
            let existed: Vec<Key> = existed.map(|(key, _)| Key::from_slice(key)).collect();
            for key in existed {
                self.break_watches(at, &key, |watcher| watcher.existed);
            }
        }
        for key in touched {
            self.key_changed(at, &key);
        }
    }

    fn key_changed(&mut self, at: usize, key: &[u8]) {
        self.break_watches(at, key, |_| true);
        let waiting: Vec<u64> = self.partitions[at].waiting_keys.get(key).cloned().unwrap_or_default();
        for id in waiting {
            self.try_waiter(at, id);
        }
    }

    pub(crate) fn break_watches(&mut self, at: usize, key: &[u8], of: impl Fn(&Watcher) -> bool) {
        for watcher in self.partitions[at].watchers.get(key).into_iter().flatten().filter(|one| of(one)) {
            match self.connections.get_mut(watcher.conn) {
                Some(connection) => connection.io.watch_broken = true,
                None => self.others.break_watch(watcher.conn),
            }
        }
    }

    /// Proposes the tries of clients that wait for a key which `command` names, right behind it: later
    /// commands must not take what they wait for. What a try moves on (BLMOVE) may serve the next one.
    pub(crate) fn try_waiters_behind(&mut self, at: usize, command: &Command, args: &[&[u8]]) {
        let mut keys = Vec::new();
        self.collect_keys(command, args, &mut keys);
        let mut next = 0;
        while next < keys.len() {
            let waiting = self.partitions[at].waiting_keys.get(&keys[next]).cloned().unwrap_or_default();
            next += 1;
            for id in waiting {
                let waiter = self.partitions[at].waiters.get(&id).filter(|waiter| !waiter.trying);
                let Some(encoded) = waiter.map(|waiter| waiter.encoded.clone()) else { continue };
                self.try_waiter(at, id);
                self.collect_encoded(&encoded, &mut keys);
            }
        }
    }

    fn collect_keys(&self, command: &Command, args: &[&[u8]], keys: &mut Vec<Box<[u8]>>) {
        if command.id == EXEC {
            args.iter().for_each(|body| self.collect_encoded(body, keys));
        }
        keys.extend(command.key_positions(args).iter().map(|&at| Box::from(args[at])));
    }

    fn collect_encoded(&self, body: &[u8], keys: &mut Vec<Box<[u8]>>) {
        let mut reader = Reader::new(body);
        let mut args = Args::new();
        while !reader.is_empty() {
            let Ok(id) = next_command(&mut reader, &mut args) else { return };
            if let Some(command) = self.registry.by_id(id) {
                self.collect_keys(command, &args, keys);
            }
        }
    }

    pub(crate) fn try_waiter(&mut self, at: usize, id: u64) {
        let Some(waiter) = self.partitions[at]
            .waiters
            .get(&id)
            .filter(|waiter| !waiter.trying || is(Bug::WaiterServedTwice))
        else {
            return;
        };
        let (conn, sequence) = (waiter.conn, waiter.sequence);
        self.open(at);
        let partition = &mut self.partitions[at];
        let waiter = partition.waiters.get_mut(&id).expect("it was just found");
        waiter.trying = true;
        put_command(&mut partition.open.body, RETRY, &[&waiter.encoded]);
        partition.open.queued.push(Queued { conn, sequence, what: What::Retry(id) });
    }

    /// The log takes entries again: whoever it did not let try has another go.
    pub(crate) fn try_all(&mut self, at: usize) {
        self.partitions[at].untried = false;
        let waiting: Vec<u64> = self.partitions[at].waiters.keys().copied().collect();
        for id in waiting {
            self.try_waiter(at, id);
        }
    }

    /// Clients whose waiting time has passed get the null answer.
    pub(crate) fn expire_waiters(&mut self, at: usize) {
        let due: Vec<u64> = self.partitions[at]
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.deadline.is_some_and(|deadline| deadline <= self.now))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let waiter = self.partitions[at].waiters.get_mut(&id).expect("it was just found");
            if waiter.trying {
                waiter.expired = true;
                waiter.deadline = None;
            } else {
                self.time_out(at, id);
            }
        }
    }

    fn time_out(&mut self, at: usize, id: u64) {
        self.release(at, id, |reply, null_bulk| if null_bulk { reply.null() } else { reply.null_array() });
    }

    /// Ends a wait with the answer that `write` gives.
    pub(crate) fn release(&mut self, at: usize, id: u64, write: impl FnOnce(&mut RespReply<'_>, bool)) {
        let Some(waiter) = self.partitions[at].forget_waiter(id) else { return };
        if let Some(guest) = waiter.guest {
            self.others.waits_no_more(waiter.conn);
            let write = |reply: &mut RespReply<'_>| write(reply, waiter.null_bulk);
            return self.others.reply(waiter.conn, waiter.sequence, guest, write);
        }
        if let Some(connection) = self.connections.get_mut(waiter.conn) {
            connection.io.blocked = false;
            connection.waiter = None;
            connection.io.answer(waiter.sequence, |reply| write(reply, waiter.null_bulk));
        }
        self.answered(waiter.conn);
    }

    /// Logs a command of the node's own (eviction, expiry); nobody is answered.
    pub(crate) fn submit_own(&mut self, at: usize, id: u16, args: &[&[u8]]) {
        self.open(at);
        let open = &mut self.partitions[at].open;
        put_command(&mut open.body, id, args);
        let what = What::Own;
        open.queued.push(Queued { conn: ConnId(0), sequence: gateway::resp::Sequence(0), what });
    }

    /// The keys of all partitions that are watched, for tests and `INFO`.
    #[must_use]
    pub fn watched_keys(&self) -> Vec<Box<[u8]>> {
        self.partitions.iter().flat_map(|partition| partition.watchers.keys().cloned()).collect()
    }
}
