//! What a host does with its replica.

use consensus::codec::{self, Descriptor, Message, Said};
use consensus::group::{Committed, Event, Standing};
use consensus::{Body, Durability, Group, Logged, Members, Proposed};
use kernel::{Index, Lsn, Micros};

use super::{Clocks, Happening, World};
use crate::node::{Request, State, Waiting, writes};

impl World {
    /// Something reached a process that runs.
    pub(super) fn act(&mut self, node: usize, happening: Happening) -> Result<(), String> {
        let clock = self.nodes[node].clock(self.now);
        let one = &mut self.nodes[node];
        let Some(live) = &mut one.live else { return Ok(()) };
        match happening {
            Happening::Deliver { bytes, .. } => {
                self.outcome.hash = bytes
                    .iter()
                    .fold(self.outcome.hash ^ self.now, |hash, &byte| hash.rotate_left(5) ^ u64::from(byte));
                // What is refused is counted by the replica; here it is as if it were lost.
                let _ = live.replica.receive(clock, &bytes);
            }
            Happening::Wake { .. } => {
                live.wake_at = None;
                live.replica.wake(clock);
            }
            Happening::Turn { .. } => {
                live.turn_due = false;
                return self.turn(node);
            }
            Happening::Synced { upto, .. } => {
                live.syncing = false;
                one.disk.synced = one.disk.synced.max(upto);
                live.replica.synced(Lsn(one.disk.synced));
            }
            Happening::Fetched { from, descriptor, .. } => self.stage(node, from, &descriptor),
            Happening::Installed { index, .. } => return self.install(node, index),
            Happening::Entries { first, last, .. } => {
                let entries: Vec<Logged> = one.disk.entries(first, last);
                self.outcome.fetches += u64::from(!entries.is_empty());
                live.replica.fetched(entries);
            }
            Happening::Rouse { .. } => live.replica.rouse(clock),
            Happening::Topple { .. } => {
                if live.replica.leads() && !self.healing {
                    self.outcome.toppled += 1;
                    self.crash(node);
                }
                return Ok(());
            }
            Happening::Restart { .. }
            | Happening::Retire { .. }
            | Happening::Client
            | Happening::Fault
            | Happening::Mend => unreachable!("these are no process's"),
        }
        self.turn_soon(node);
        Ok(())
    }

    pub(super) fn turn_soon(&mut self, node: usize) {
        let delay = self.rng.below(200);
        let epoch = self.nodes[node].epoch;
        if let Some(live) = &mut self.nodes[node].live
            && !live.turn_due
        {
            live.turn_due = true;
            self.after(delay, Happening::Turn { node, epoch });
        }
    }

    fn turn(&mut self, node: usize) -> Result<(), String> {
        let clock = self.nodes[node].clock(self.now);
        let batch = self.requests(node, clock);
        self.append(node, clock, &batch);
        self.settle(node, clock)
    }

    /// Reads are asked; writes are collected for one entry.
    fn requests(&mut self, node: usize, clock: Micros) -> Vec<(u8, u64)> {
        let Some(live) = &mut self.nodes[node].live else { return Vec::new() };
        let mut batch = Vec::new();
        for request in std::mem::take(&mut live.queued) {
            match request {
                Request::Write { register, value } => batch.push((register, value)),
                Request::Read { register, floor, lease } => {
                    let by_lease = if lease { live.replica.read_by_lease(clock) } else { None };
                    if let Some(index) = by_lease {
                        self.judge.lease_reads += 1;
                        live.confirmed.push(Waiting { register, floor, index: Some(index.0) });
                        continue;
                    }
                    let asked = match self.clocks {
                        Clocks::Near | Clocks::Beyond => live.replica.read(clock),
                        Clocks::Mistrusted => live.replica.confirm(clock),
                    };
                    if let Some(id) = asked {
                        let waiting = Waiting { register, floor, index: None };
                        live.reads.entry(id).or_default().push(waiting);
                    }
                }
            }
        }
        batch
    }

    fn append(&mut self, node: usize, clock: Micros, batch: &[(u8, u64)]) {
        let full = self.nodes[node].full_until > self.now;
        let one = &mut self.nodes[node];
        let Some(live) = &mut one.live else { return };
        let place = if batch.is_empty() { None } else { live.replica.propose() };
        let mut body = Vec::new();
        for (register, value) in batch {
            body.push(*register);
            body.extend_from_slice(&value.to_le_bytes());
        }
        if full {
            if let Some((_, index)) = place {
                live.replica.withdraw(index);
            }
            return;
        }
        let mut records: Vec<_> = live.replica.writes().cloned().collect();
        if let Some((term, index)) = place {
            records.push(consensus::group::Write::Entry(Logged::new(term, index, 1, clock, &body)));
        }
        if records.is_empty() {
            return;
        }
        let end = one.disk.append(records.into_iter());
        match place {
            None => live.replica.wrote(end),
            Some((term, index)) => {
                live.flying.insert((term, index), batch.to_vec());
                live.replica.written(&Proposed { index, semantics: 1, time: clock, body: &body }, end);
            }
        }
    }

    /// Messages leave, events are acted on, committed entries are applied, and the disk and the clock are asked.
    fn settle(&mut self, node: usize, clock: Micros) -> Result<(), String> {
        let mut messages = Vec::new();
        if let Some(live) = &mut self.nodes[node].live {
            live.replica.turn(clock);
        }
        loop {
            let Some(live) = &mut self.nodes[node].live else { return Ok(()) };
            live.replica.take_messages(&mut messages);
            if let Some(event) = live.replica.next_event() {
                self.event(node, event)?;
                continue;
            }
            let Some(committed) = live.replica.next_committed() else { break };
            self.apply(node, committed)?;
        }
        let voted = |message: &Message| matches!(&message.body, Said::Voted(ballot) if ballot.granted);
        let votes = messages.iter().any(voted);
        let asks = |message: &Message| matches!(&message.body, Said::PreVote(_));
        if messages.iter().any(asks) {
            self.forget(node);
        }
        messages.into_iter().for_each(|message| self.transmit(&message));
        if votes && !self.healing && self.rng.chance(if self.unstable { 0.4 } else { 0.1 }) {
            // The moment in which a vote that is not durable would be forgotten.
            self.crash(node);
            return Ok(());
        }
        self.answer_reads(node)?;
        self.schedule(node);
        Ok(())
    }

    fn apply(&mut self, node: usize, committed: Committed) -> Result<(), String> {
        let Some(live) = &mut self.nodes[node].live else { return Ok(()) };
        live.state.apply(&committed);
        self.judge.applied(&live.replica, &live.state, committed.term)?;
        let (term, index) = (committed.term, committed.index);
        if let Some(batch) = live.flying.remove(&(term, index)) {
            let Body::Commands(entry) = &committed.body else {
                return Err("an own entry became another".into());
            };
            if writes(entry.body()) != batch {
                return Err(format!("the entry at {index} was proposed with other writes"));
            }
            batch.iter().for_each(|&(register, _)| self.judge.acknowledge(register, index.0));
        }
        live.replica.applied(index);
        if self.rng.chance(0.05) {
            self.checkpoint(node);
        }
        Ok(())
    }

    /// A checkpoint is durable at once here: it only has what is synced. Then the log behind it may go.
    pub(super) fn checkpoint(&mut self, node: usize) {
        let (slack, compacts) = (self.rng.below(20), self.rng.chance(0.7));
        let one = &mut self.nodes[node];
        let Some(live) = &mut one.live else { return };
        let Some(mark) = live.replica.cut() else { return };
        if mark.index.0 != live.state.applied
            || self.durability == Durability::EverySec && one.disk.is_dirty()
        {
            return;
        }
        let index = mark.index;
        one.disk.engine = Some((mark, live.state.clone()));
        if compacts {
            let floor = Index(index.0.saturating_sub(slack));
            live.replica.compact(floor);
            one.disk.compact(floor);
        }
    }

    fn event(&mut self, node: usize, event: Event) -> Result<(), String> {
        let epoch = self.nodes[node].epoch;
        let Some(live) = &mut self.nodes[node].live else { return Ok(()) };
        match event {
            Event::Stands(Standing::Leader) => {
                // Told in the turn; a message that came since may have ended it.
                if live.replica.leads() {
                    self.judge.elected(&live.replica)?;
                }
                if self.unstable && !self.healing && self.rng.chance(0.7) {
                    let soon = self.rng.below(4 * self.delay);
                    self.after(soon, Happening::Topple { node, epoch });
                }
            }
            Event::Stands(_) => {}
            Event::Read { id, index } => {
                let waiting = live.reads.remove(&id).unwrap_or_default();
                if let Some(index) = index {
                    let confirmed = waiting.into_iter().map(|one| Waiting { index: Some(index.0), ..one });
                    live.confirmed.extend(confirmed);
                }
            }
            Event::FetchSnapshot { from, descriptor } => {
                let (delay, descriptor) = (5_000 + self.rng.below(150_000), Box::new(descriptor));
                self.after(delay, Happening::Fetched { node, epoch, from, descriptor });
            }
            Event::InstallSnapshot(descriptor) => {
                let (delay, index) = (500 + self.rng.below(40_000), descriptor.mark.index);
                self.after(delay, Happening::Installed { node, epoch, index });
            }
            Event::MakeSnapshot => self.offer(node),
            Event::FetchEntries { first, last } => {
                let delay = 100 + self.rng.below(20_000);
                self.after(delay, Happening::Entries { node, epoch, first, last });
            }
            Event::Members(members) => self.retire_removed(&members),
            Event::Recovered => {
                self.outcome.recoveries += 1;
                self.nodes[node].disk.ambiguous = false;
            }
        }
        Ok(())
    }

    fn offer(&mut self, node: usize) {
        self.generation += 1;
        let generation = self.generation;
        let one = &mut self.nodes[node];
        let Some(live) = &mut one.live else { return };
        let Some(mark) = live.replica.cut() else { return };
        let descriptor = Descriptor { generation, size: 1, checksum: live.state.digest, mark };
        one.snapshots.insert(generation, live.state.clone());
        live.replica.offer_snapshot(&descriptor);
    }

    /// The bytes of a snapshot came, or not, or not as they were.
    fn stage(&mut self, node: usize, from: consensus::ReplicaId, descriptor: &Descriptor) {
        let id = self.nodes[node].id;
        let broken = self.blocked.contains(&(from, id)) || !self.healing && self.rng.chance(0.1);
        let sent = self.nodes.iter().find(|node| node.id == from);
        let sent = sent.and_then(|node| node.snapshots.get(&descriptor.generation)).cloned();
        let sent: Option<State> = sent.filter(|state| state.digest == descriptor.checksum && !broken);
        let one = &mut self.nodes[node];
        let Some(live) = &mut one.live else { return };
        match sent {
            Some(state) => {
                if live.replica.snapshot_staged(descriptor.generation) {
                    one.disk.staged = Some((descriptor.clone(), state));
                }
            }
            None => live.replica.snapshot_refused(descriptor.generation),
        }
    }

    fn install(&mut self, node: usize, index: Index) -> Result<(), String> {
        let one = &mut self.nodes[node];
        let Some((descriptor, state)) = one.disk.staged.take() else {
            return Err(format!("{:?} installs what was not staged", one.id));
        };
        if descriptor.mark.index != index {
            return Err(format!("{:?} installs another snapshot than was staged", one.id));
        }
        let term = descriptor.mark.term;
        one.disk.engine = Some((descriptor.mark, state.clone()));
        let Some(live) = &mut one.live else { return Ok(()) };
        live.state = state;
        live.replica.snapshot_installed(index);
        self.outcome.snapshots += 1;
        self.judge.applied(&live.replica, &live.state, term)?;
        self.turn_soon(node);
        Ok(())
    }

    fn answer_reads(&mut self, node: usize) -> Result<(), String> {
        let one = &mut self.nodes[node];
        let Some(live) = &mut one.live else { return Ok(()) };
        let state = &live.state;
        let ready = |waiting: &Waiting| waiting.index.is_some_and(|index| index <= state.applied);
        let (now, later): (Vec<_>, Vec<_>) = live.confirmed.drain(..).partition(ready);
        live.confirmed = later;
        for waiting in now {
            self.judge.answered(one.id, waiting.register, waiting.floor, &live.state)?;
        }
        Ok(())
    }

    fn transmit(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        let copies = if self.rng.chance(self.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if self.blocked.contains(&(message.from, message.to)) || self.rng.chance(self.loss) {
                continue;
            }
            let slow = !self.healing && self.rng.chance(0.01);
            let delay = if slow { self.rng.below(1_500_000) } else { 150 + self.rng.below(self.delay) };
            self.after(delay, Happening::Deliver { to: message.to, bytes: bytes.clone() });
        }
    }

    fn schedule(&mut self, node: usize) {
        let (now, slow) = (self.now, self.nodes[node].slow_until > self.now);
        let sync = if slow { 20_000 + self.rng.below(400_000) } else { 100 + self.rng.below(1_500) };
        let one = &mut self.nodes[node];
        let (epoch, dirty, upto) = (one.epoch, one.disk.is_dirty(), one.disk.written());
        let Some(live) = &mut one.live else { return };
        if dirty && !live.syncing {
            live.syncing = true;
            self.after(sync, Happening::Synced { node, epoch, upto });
        }
        let one = &mut self.nodes[node];
        let deadline = one.live.as_ref().and_then(|live| live.replica.deadline());
        let at = deadline.map(|at| one.when(at).max(now));
        if let (Some(live), Some(at)) = (&mut one.live, at)
            && live.wake_at.is_none_or(|known| at < known)
        {
            live.wake_at = Some(at);
            self.after(at - now, Happening::Wake { node, epoch });
        }
        if self.nodes[node].full_until > now {
            let until = self.nodes[node].full_until - now;
            self.after(until, Happening::Turn { node, epoch });
        }
    }

    /// Machines of removed members are switched off after a while.
    fn retire_removed(&mut self, members: &Members) {
        for node in 0..self.nodes.len() {
            if members.is_gone(self.nodes[node].id) && !self.nodes[node].retired {
                self.after(400_000, Happening::Retire { node });
            }
        }
    }
}
