//! The end that gets the snapshot.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use consensus::codec::Descriptor;
use kernel::{GroupId, Micros, NodeId};

use super::wire::{Message, Run};
use super::{
    Effect, End, GIVE_UP_MICROS, LOT_BYTES_MAX, Progress, RECEIVE_MAX, REFUSALS_MAX, SILENCE_MICROS, Staged,
    Task, Transfers, WINDOW_BYTES,
};

/// One snapshot that is fetched.
#[derive(Debug)]
pub(super) struct Receiving {
    at: usize,
    from: NodeId,
    generation: u64,
    bytes: u64,
    checksum: u64,
    name: Vec<u8>,
    phase: Phase,
    /// Bytes that are durable.
    staged: u64,
    /// When that became more, or something else went on.
    moved: Micros,
    refused: u32,
}

#[derive(Debug)]
enum Phase {
    /// Others are under way.
    Waiting,
    /// The host says how far it is.
    Beginning { ticket: u64 },
    /// Lots come.
    Pulling(Pulling),
    /// The host checks it.
    Checking { ticket: u64 },
}

#[derive(Debug)]
struct Pulling {
    run: u64,
    /// Behind what is durable.
    cursor: Vec<u8>,
    /// The next lot's number in this run.
    expected: u32,
    /// Lots of this run that are durable.
    taken: u32,
    /// Lots that wait to be staged.
    waiting: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
    /// One is being staged.
    staging: Option<u64>,
    /// When something was heard, or asked, last.
    heard: Micros,
    /// It pulls anew as soon as nothing is being staged: only then it knows from where.
    anew: bool,
}

impl Pulling {
    fn new(now: Micros, run: u64, cursor: Vec<u8>) -> Pulling {
        let waiting = VecDeque::new();
        Pulling { run, cursor, expected: 0, taken: 0, waiting, staging: None, heard: now, anew: false }
    }

    fn held(&self) -> usize {
        self.waiting.iter().map(|(content, _)| content.len()).sum()
    }
}

impl Receiving {
    pub fn new(now: Micros, at: usize, from: NodeId, descriptor: &Descriptor) -> Receiving {
        let &Descriptor { generation, size: bytes, checksum, .. } = descriptor;
        let (mut name, index) = (from.0.to_vec(), descriptor.mark.index.0);
        for number in [generation, bytes, checksum, index, descriptor.mark.term.0] {
            name.extend_from_slice(&number.to_le_bytes());
        }
        let phase = Phase::Waiting;
        Receiving { at, from, generation, bytes, checksum, name, phase, staged: 0, moved: now, refused: 0 }
    }

    pub fn deadline(&self) -> Option<Micros> {
        match &self.phase {
            // The host answers each task, however long that takes.
            Phase::Waiting | Phase::Beginning { .. } | Phase::Checking { .. } => None,
            Phase::Pulling(pulling) if pulling.staging.is_some() => None,
            Phase::Pulling(pulling) => {
                Some((pulling.heard + SILENCE_MICROS).min(self.moved + GIVE_UP_MICROS))
            }
        }
    }

    pub fn progress(&self, group: GroupId) -> Progress {
        Progress { group, peer: self.from, end: End::Receiver, bytes: self.staged, of: self.bytes }
    }

    fn run(&self, group: GroupId) -> Option<Run> {
        match &self.phase {
            Phase::Pulling(pulling) => Some(Run { group, generation: self.generation, run: pulling.run }),
            Phase::Waiting | Phase::Beginning { .. } | Phase::Checking { .. } => None,
        }
    }
}

impl Transfers {
    /// Has as many transfers under way as may be.
    pub(super) fn start_receiving(&mut self, now: Micros) {
        let under_way = |it: &&Receiving| !matches!(it.phase, Phase::Waiting);
        let free = RECEIVE_MAX.saturating_sub(self.receiving.values().filter(under_way).count());
        let mut waiting: Vec<(Micros, GroupId)> = self
            .receiving
            .iter()
            .filter(|(_, it)| matches!(it.phase, Phase::Waiting))
            .map(|(group, it)| (it.moved, *group))
            .collect();
        waiting.sort_unstable();
        for (_, group) in waiting.into_iter().take(free) {
            let ticket = self.ticket();
            let Some(receiving) = self.receiving.get_mut(&group) else { continue };
            (receiving.phase, receiving.moved) = (Phase::Beginning { ticket }, now);
            let name = receiving.name.clone();
            self.effects.push(Effect::Do(Task::Begin { group, name, ticket }));
        }
    }

    /// Ends a transfer without a word to the group.
    pub(super) fn cancel(&mut self, group: GroupId) {
        let Some(receiving) = self.receiving.remove(&group) else { return };
        if let Some(run) = receiving.run(group) {
            self.send(receiving.from, run, &Message::Stop);
        }
    }

    /// Ends a transfer.
    fn end(&mut self, now: Micros, group: GroupId, here: bool) {
        let Some(&Receiving { at, generation, .. }) = self.receiving.get(&group) else { return };
        self.cancel(group);
        self.effects.push(Effect::Fetched { at, group, generation, here });
        self.start_receiving(now);
    }

    pub(super) fn lot(
        &mut self,
        now: Micros,
        from: NodeId,
        run: Run,
        number: u32,
        next: Option<&[u8]>,
        content: &[u8],
    ) {
        let group = run.group;
        let Some(receiving) = self.receiving.get_mut(&group).filter(|it| it.from == from) else { return };
        if receiving.run(group) != Some(run) {
            return;
        }
        let Phase::Pulling(pulling) = &mut receiving.phase else { return };
        // One that came twice, or one before it was lost: then silence has it pulled again. A sender that sends more than
        // it was asked for is not listened to.
        if number != pulling.expected || pulling.held() > WINDOW_BYTES + LOT_BYTES_MAX {
            return;
        }
        pulling.expected += 1;
        pulling.heard = now;
        pulling.waiting.push_back((content.to_vec(), next.map(<[u8]>::to_vec)));
        self.stage_next(group);
    }

    fn stage_next(&mut self, group: GroupId) {
        let ticket = self.tickets + 1;
        let Some(receiving) = self.receiving.get_mut(&group) else { return };
        let Phase::Pulling(pulling) = &mut receiving.phase else { return };
        if pulling.staging.is_some() {
            return;
        }
        let Some((content, next)) = pulling.waiting.pop_front() else { return };
        pulling.staging = Some(ticket);
        self.tickets = ticket;
        self.effects.push(Effect::Do(Task::Stage { group, content, next, ticket }));
    }

    pub(super) fn staged(&mut self, now: Micros, ticket: u64, staged: Option<Staged>) {
        let awaits = |it: &Receiving| match &it.phase {
            Phase::Beginning { ticket: own } => *own == ticket,
            Phase::Pulling(pulling) => pulling.staging == Some(ticket),
            Phase::Waiting | Phase::Checking { .. } => false,
        };
        let Some((&group, receiving)) = self.receiving.iter_mut().find(|(_, it)| awaits(it)) else { return };
        let Some(Staged { cursor, bytes }) = staged else { return self.refused(now, group) };
        (receiving.staged, receiving.moved) = (bytes, now);
        let (from, run) = (receiving.from, receiving.run(group));
        let mut anew = true;
        if let Phase::Pulling(pulling) = &mut receiving.phase {
            (pulling.staging, pulling.heard) = (None, now);
            pulling.taken += 1;
            (anew, pulling.cursor) = (pulling.anew, cursor.clone().unwrap_or_default());
            let taken = Message::Taken(pulling.taken);
            if let Some(run) = run.filter(|_| !anew) {
                self.send(from, run, &taken);
            }
        }
        match cursor {
            None => self.check(group),
            Some(_) if !anew => self.stage_next(group),
            Some(cursor) => {
                if let Some(receiving) = self.receiving.get_mut(&group) {
                    receiving.phase = Phase::Pulling(Pulling::new(now, 0, cursor));
                }
                self.pull(now, group);
            }
        }
    }

    /// All of it is there.
    fn check(&mut self, group: GroupId) {
        let ticket = self.ticket();
        let Some(receiving) = self.receiving.get_mut(&group) else { return };
        receiving.phase = Phase::Checking { ticket };
        let (bytes, checksum) = (receiving.bytes, receiving.checksum);
        self.effects.push(Effect::Do(Task::Check { group, bytes, checksum, ticket }));
    }

    /// Asks for lots from what is durable on, under a new run.
    fn pull(&mut self, now: Micros, group: GroupId) {
        let run = self.rng.next_u64();
        let Some(receiving) = self.receiving.get_mut(&group) else { return };
        let (from, generation) = (receiving.from, receiving.generation);
        let Phase::Pulling(pulling) = &mut receiving.phase else { return };
        if pulling.staging.is_some() {
            pulling.anew = true;
            return;
        }
        let cursor = core::mem::take(&mut pulling.cursor);
        *pulling = Pulling::new(now, run, cursor.clone());
        self.send(from, Run { group, generation, run }, &Message::Pull(&cursor));
    }

    /// The host does not take it: the lot, or the snapshot, is not what it should be.
    fn refused(&mut self, now: Micros, group: GroupId) {
        let Some(receiving) = self.receiving.get_mut(&group) else { return };
        receiving.refused += 1;
        let over = receiving.refused >= REFUSALS_MAX;
        match &mut receiving.phase {
            Phase::Pulling(pulling) if !over => {
                pulling.staging = None;
                self.pull(now, group);
            }
            Phase::Waiting | Phase::Beginning { .. } | Phase::Pulling(_) | Phase::Checking { .. } => {
                self.effects.push(Effect::Do(Task::Drop { group }));
                self.end(now, group, false);
            }
        }
    }

    pub(super) fn checked(&mut self, now: Micros, ticket: u64, sound: bool) {
        let awaits = |it: &Receiving| matches!(it.phase, Phase::Checking { ticket: own } if own == ticket);
        let Some((&group, _)) = self.receiving.iter().find(|(_, it)| awaits(it)) else { return };
        if !sound {
            self.effects.push(Effect::Do(Task::Drop { group }));
        }
        self.end(now, group, sound);
    }

    pub(super) fn gone(&mut self, now: Micros, from: NodeId, run: Run) {
        let group = run.group;
        let own = self.receiving.get(&group).filter(|it| it.from == from).and_then(|it| it.run(group));
        if own == Some(run) {
            self.end(now, group, false);
        }
    }

    pub(super) fn pull_anew(&mut self, now: Micros, peer: NodeId) {
        let groups: Vec<GroupId> =
            self.receiving.iter().filter(|(_, it)| it.from == peer).map(|(group, _)| *group).collect();
        groups.into_iter().for_each(|group| self.pull(now, group));
    }

    pub(super) fn receivers_wake(&mut self, now: Micros) {
        let due = |it: &Receiving| it.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<GroupId> =
            self.receiving.iter().filter(|(_, it)| due(it)).map(|(group, _)| *group).collect();
        for group in due {
            let Some(receiving) = self.receiving.get(&group) else { continue };
            if receiving.moved + GIVE_UP_MICROS <= now {
                self.end(now, group, false);
            } else {
                self.pull(now, group);
            }
        }
    }
}
