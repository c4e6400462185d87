//! Commands of this node's clients on their way to who leads their partitions.
//!
//! Only the origin tries again: who does not lead says so, and hands nothing on. What is sent again may have been done by
//! the first try, so writes are numbered for their partition, which does each number once (see
//! [`storage::store::sessions`]). What may be done once only and carries no number, because it waits or depends on watches
//! of the node it was sent to, is not sent again when its fate is not known.
//!
//! A connection's commands for one partition are done in their order: what is sent again goes before what came later,
//! and not before the node that refused a command has refused those that followed it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use gateway::resp::Sequence;
use kernel::planted::{Bug, is};
use kernel::{ConnId, GroupId, KeyspaceId, Micros, WorkerId};
use storage::command::generic::{EXEC, EXEC_READ};
use storage::store::sessions::WINDOW_MAX;
use storage::{Flags, Kind};

use crate::parcel::{Asker, Request};

/// How long a command is sent again before its client is told that it could not be done, in milliseconds.
pub const FORWARD_MS_MAX: u64 = 5_000;
/// How long a read that may take long is waited for, in milliseconds from when its client asked; one that blocks waits for
/// as long as its client said.
pub const READ_MS_MAX: u64 = 60_000;
/// What waits is looked after so often, in milliseconds.
pub const SWEEP_MS: u64 = 50;

/// A command of this node, as it is answered.
pub(crate) type Key = (ConnId, Sequence, Option<u16>);

/// What is sent.
#[derive(Debug)]
pub(crate) enum Errand {
    /// A command.
    Run(Box<Request>),
    /// Keys to watch, which are all in the partition.
    Watch { asker: Asker, db: KeyspaceId, keys: Vec<Box<[u8]>> },
}

impl Errand {
    pub const fn asker(&self) -> Asker {
        match self {
            Errand::Run(request) => request.asker,
            Errand::Watch { asker, .. } => *asker,
        }
    }

    fn key(&self) -> Key {
        let Asker { conn, sequence, guest } = self.asker();
        (conn, sequence, guest.part)
    }

    fn is_write(&self) -> bool {
        matches!(self, Errand::Run(request) if request.command.kind == Kind::Write)
    }

    /// It may be done once, and no number says that it was.
    fn is_once(&self) -> bool {
        let Errand::Run(request) = self else { return false };
        let exec = [EXEC, EXEC_READ].contains(&request.command.id);
        request.command.flags.has(Flags::BLOCKING) || exec && request.watching
    }

    /// For how long it is waited for once it is sent, in milliseconds; `None`: for as long as its client does.
    fn patience_ms(&self) -> Option<u64> {
        let Errand::Run(request) = self else { return Some(FORWARD_MS_MAX) };
        if request.command.flags.has(Flags::BLOCKING) {
            return None;
        }
        // It may take long and say nothing meanwhile.
        let slow = !self.is_write() && !request.command.flags.has(Flags::FAST);
        Some(if slow { READ_MS_MAX } else { FORWARD_MS_MAX })
    }
}

/// A command on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    pub errand: Errand,
    /// Its number among the writes for the partition.
    pub number: Option<u64>,
    /// Neither it nor what comes behind it has a lower number.
    floor: u64,
    /// Until when it is sent again.
    deadline: Micros,
    state: State,
    pub attempt: u8,
    /// An earlier try of it may have been done.
    pub uncertain: bool,
    /// The whole that it is a part of, instead of a client's answer.
    pub joint: Option<u64>,
}

impl Entry {
    /// Who has it.
    pub const fn to(&self) -> Option<WorkerId> {
        match self.state {
            State::Sent { to, .. } => Some(to),
            State::Unsent => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsent,
    Sent { to: WorkerId, round: u64 },
}

/// Why a command is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was not done, and will not be.
    Undone,
    /// Nobody knows.
    Unknown,
    /// Its watches are lost.
    Broken,
    /// It was not done, because its keyspace is no more.
    Dropped,
}

/// The commands for one partition, in the order in which they came.
#[derive(Debug, Default)]
struct Lane {
    /// By their tickets, from `first` on. `None`: answered. The first is not.
    queue: VecDeque<Option<Entry>>,
    first: u64,
    /// All tickets below are sent or answered.
    unsent: u64,
    /// The number of the last write.
    numbers: u64,
    round: u64,
    /// Those sent in earlier rounds that hold back the others until they are answered or refused.
    old: usize,
    /// Nothing is sent before.
    pause: Option<Micros>,
    /// Who is said to lead, for the next send.
    hint: Option<WorkerId>,
}

impl Lane {
    fn get(&mut self, ticket: u64) -> Option<&mut Entry> {
        let at = usize::try_from(ticket.checked_sub(self.first)?).ok()?;
        self.queue.get_mut(at)?.as_mut()
    }

    fn remove(&mut self, ticket: u64) -> Option<Entry> {
        let at = usize::try_from(ticket.checked_sub(self.first)?).ok()?;
        let entry = self.queue.get_mut(at)?.take()?;
        self.settled(&entry);
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
        Some(entry)
    }

    /// An entry that was sent is so no more.
    fn settled(&mut self, entry: &Entry) {
        if matches!(entry.state, State::Sent { round, .. } if round < self.round) && !entry.errand.is_once() {
            self.old -= 1;
        }
    }

    /// Begins a round: what is sent from now on waits for what is on its way.
    fn turn(&mut self) {
        self.round += 1;
        let old = |entry: &&Entry| matches!(entry.state, State::Sent { .. }) && !entry.errand.is_once();
        self.old = self.queue.iter().flatten().filter(old).count();
    }

    /// The lowest number that is still waited for.
    fn oldest(&self) -> u64 {
        self.queue.front().and_then(Option::as_ref).map_or(self.numbers + 1, |entry| entry.floor)
    }

    fn has_unsent(&self) -> bool {
        self.unsent < self.next_ticket()
    }

    fn next_ticket(&self) -> u64 {
        self.first + self.queue.len() as u64
    }
}

/// A command to send.
pub(crate) struct Sending<'a> {
    pub to: WorkerId,
    pub group: GroupId,
    pub entry: &'a Entry,
    pub round: u64,
    /// The lowest number that is still waited for.
    pub oldest: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Forward {
    lanes: BTreeMap<GroupId, Lane>,
    index: BTreeMap<Key, (GroupId, u64)>,
    /// Partitions that may have something to send.
    ready: BTreeSet<GroupId>,
    sweep: Option<Micros>,
}

impl Forward {
    /// Commands on their way.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// When [`Forward::sweep`] has something to do.
    pub const fn deadline(&self) -> Option<Micros> {
        self.sweep
    }

    /// The partition of a command on its way.
    pub fn group(&self, key: Key) -> Option<GroupId> {
        self.index.get(&key).map(|&(group, _)| group)
    }

    /// Whether something may be sent now.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a command for a partition.
    pub fn accept(&mut self, now: Micros, group: GroupId, errand: Errand, joint: Option<u64>) {
        let lane = self.lanes.entry(group).or_default();
        let numbered = errand.is_write() && !errand.is_once();
        lane.numbers += u64::from(numbered);
        let (key, ticket) = (errand.key(), lane.next_ticket());
        lane.queue.push_back(Some(Entry {
            number: numbered.then_some(lane.numbers),
            floor: if numbered { lane.numbers } else { lane.numbers + 1 },
            errand,
            deadline: now.plus_millis(FORWARD_MS_MAX),
            state: State::Unsent,
            attempt: 0,
            uncertain: false,
            joint,
        }));
        self.index.insert(key, (group, ticket));
        self.ready.insert(group);
        self.sweep.get_or_insert(now.plus_millis(SWEEP_MS));
    }

    /// Sends what can be sent, to whom `place` says; `None`: nobody is known to lead.
    pub fn send(
        &mut self,
        now: Micros,
        mut place: impl FnMut(GroupId, Option<WorkerId>) -> Option<WorkerId>,
        mut send: impl FnMut(Sending<'_>),
    ) {
        for group in core::mem::take(&mut self.ready) {
            let Some(lane) = self.lanes.get_mut(&group) else { continue };
            if lane.old > 0 || lane.pause.is_some_and(|until| now < until) {
                continue;
            }
            let Some(to) = place(group, lane.hint.take()) else { continue };
            lane.pause = None;
            while lane.has_unsent() {
                let (ticket, round, oldest) = (lane.unsent, lane.round, lane.oldest());
                if let Some(entry) = lane.get(ticket)
                    && entry.state == State::Unsent
                {
                    if entry.number.is_some_and(|number| number - oldest >= WINDOW_MAX) {
                        break;
                    }
                    entry.state = State::Sent { to, round };
                    entry.attempt = entry.attempt.wrapping_add(1);
                    send(Sending { to, group, entry, round, oldest });
                }
                lane.unsent += 1;
            }
        }
    }

    /// A command was answered. `None`: it is answered already, or was never sent.
    pub fn answered(&mut self, key: Key) -> Option<Entry> {
        let (group, ticket) = self.index.remove(&key)?;
        let lane = self.lanes.get_mut(&group)?;
        let entry = lane.remove(ticket);
        if lane.has_unsent() {
            self.ready.insert(group);
        }
        entry
    }

    /// Try `attempt` of a command was not done; the one who should have says that `leader` leads. Gives it back if
    /// it cannot be tried again.
    pub fn refused(
        &mut self,
        now: Micros,
        key: Key,
        attempt: u8,
        leader: Option<WorkerId>,
    ) -> Option<(Entry, Fate)> {
        let &(group, ticket) = self.index.get(&key)?;
        let lane = self.lanes.get_mut(&group)?;
        let entry = lane.get(ticket)?;
        let State::Sent { to, round } = entry.state else { return None };
        if entry.attempt != attempt {
            return None;
        }
        let watching = matches!(&entry.errand, Errand::Run(request) if request.watching);
        if watching {
            let entry = self.answered(key)?;
            return Some((entry, Fate::Broken));
        }
        entry.state = State::Unsent;
        let once = entry.errand.is_once();
        if round == lane.round {
            lane.turn();
        } else if !once {
            lane.old -= 1;
        }
        lane.unsent = lane.unsent.min(ticket);
        match leader {
            Some(leader) if leader != to => (lane.hint, lane.pause) = (Some(leader), None),
            Some(_) | None => lane.pause = Some(now.plus_millis(SWEEP_MS)),
        }
        self.ready.insert(group);
        None
    }

    /// What was sent to `peer` may be lost. Gives back what cannot be sent again.
    pub fn lost(&mut self, peer: WorkerId) -> Vec<(Entry, Fate)> {
        let mut given_up = Vec::new();
        for (&group, lane) in &mut self.lanes {
            let (mut turned, first) = (false, lane.first);
            for (ticket, place) in (first..).zip(&mut lane.queue) {
                let Some(entry) = place else { continue };
                if !matches!(entry.state, State::Sent { to, .. } if to == peer) {
                    continue;
                }
                if entry.errand.is_once() {
                    given_up.push(entry.errand.key());
                    continue;
                }
                entry.uncertain |= entry.errand.is_write();
                if is(Bug::RetryWithoutTag) {
                    entry.number = None;
                }
                entry.state = State::Unsent;
                lane.unsent = lane.unsent.min(ticket);
                turned = true;
            }
            if turned {
                lane.turn();
                self.ready.insert(group);
            }
        }
        let given_up = given_up.into_iter().filter_map(|key| self.answered(key));
        given_up.map(|entry| (entry, Fate::Unknown)).collect()
    }

    /// Who leads may have changed: what waits may go there.
    pub fn settled(&mut self, group: GroupId) {
        if let Some(lane) = self.lanes.get_mut(&group).filter(|lane| lane.has_unsent()) {
            lane.pause = None;
            self.ready.insert(group);
        }
    }

    /// A keyspace is no more: gives back all that is on its way there.
    pub fn dropped(&mut self, db: KeyspaceId) -> Vec<(Entry, Fate)> {
        let mut over = Vec::new();
        let lanes = self.lanes.range(GroupId::new(db, 0)..=GroupId::new(db, u16::MAX));
        for entry in lanes.flat_map(|(_, lane)| lane.queue.iter().flatten()) {
            let sent = matches!(entry.state, State::Sent { .. });
            let unknown = entry.uncertain || sent && entry.errand.is_write();
            over.push((entry.errand.key(), if unknown { Fate::Unknown } else { Fate::Dropped }));
        }
        over.into_iter().filter_map(|(key, fate)| Some((self.answered(key)?, fate))).collect()
    }

    /// Lets time pass: gives back what has been tried for too long.
    pub fn sweep(&mut self, now: Micros) -> Vec<(Entry, Fate)> {
        if self.sweep.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut over = Vec::new();
        for (&group, lane) in &self.lanes {
            for entry in lane.queue.iter().flatten().filter(|entry| entry.deadline <= now) {
                let sent = matches!(entry.state, State::Sent { .. });
                let patience = if sent { entry.errand.patience_ms() } else { Some(FORWARD_MS_MAX) };
                let more = patience.map(|ms| entry.deadline.plus_millis(ms - FORWARD_MS_MAX));
                if more.is_none_or(|until| now < until) {
                    continue;
                }
                let slow = patience > Some(FORWARD_MS_MAX);
                let unknown = entry.uncertain || sent && (entry.errand.is_write() || slow);
                over.push((entry.errand.key(), if unknown { Fate::Unknown } else { Fate::Undone }));
            }
            if lane.has_unsent() {
                self.ready.insert(group);
            }
        }
        let over = over.into_iter().filter_map(|(key, fate)| Some((self.answered(key)?, fate))).collect();
        // A lane counts for as long as this node lives: its numbers must not be given twice.
        self.sweep = (!self.index.is_empty()).then(|| now.plus_millis(SWEEP_MS));
        over
    }

    /// A connection is gone: nothing of it is sent any more. Tells who may have commands of it.
    pub fn forget(&mut self, conn: ConnId) -> Vec<WorkerId> {
        let first = (conn, Sequence(0), None);
        let keys: Vec<Key> =
            self.index.range(first..).map(|(&key, _)| key).take_while(|(other, ..)| *other == conn).collect();
        let mut peers = Vec::new();
        for key in keys {
            let Some(entry) = self.answered(key) else { continue };
            if let State::Sent { to, .. } = entry.state {
                peers.push(to);
            }
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use kernel::Rng;
    use storage::Registry;
    use storage::entry::put_command;

    use super::*;
    use crate::parcel::{Guest, Protocol};

    const GROUP: GroupId = GroupId(1 << 16);
    const A: WorkerId = WorkerId(0x4000);
    const B: WorkerId = WorkerId(0x4001);

    fn now(millis: u64) -> Micros {
        Micros(0).plus_millis(millis)
    }

    fn errand(sequence: u64, line: &str) -> Errand {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let command = Registry::new().find(words[0]).expect("it exists");
        let mut encoded = Vec::new();
        put_command(&mut encoded, command.id, &words[1..]);
        let guest = Guest::of(Protocol::Resp2, None);
        let asker = Asker { conn: ConnId(1), sequence: Sequence(sequence), guest };
        let (db, partition) = (GROUP.keyspace(), GROUP.partition());
        let request =
            Request { asker, db, partition, command, encoded, alone: false, watching: false, tag: None };
        Errand::Run(Box::new(request))
    }

    fn key(sequence: u64) -> Key {
        (ConnId(1), Sequence(sequence), None)
    }

    /// What is sent to `to` at `millis`: sequence, number, oldest, attempt, round.
    fn sent(
        forward: &mut Forward,
        millis: u64,
        to: Option<WorkerId>,
    ) -> Vec<(u64, Option<u64>, u64, u8, u64)> {
        let mut all = Vec::new();
        forward.send(
            now(millis),
            |_, hint| hint.or(to),
            |sending| {
                let Sending { entry, oldest, round, .. } = sending;
                all.push((entry.errand.asker().sequence.0, entry.number, oldest, entry.attempt, round));
            },
        );
        all
    }

    #[test]
    fn writes_are_numbered_and_say_what_is_waited_for() {
        let mut forward = Forward::default();
        for (sequence, line) in ["set a 1", "get a", "del a", "blpop l 0", "incr a"].into_iter().enumerate() {
            forward.accept(now(0), GROUP, errand(sequence as u64, line), None);
        }
        let first = sent(&mut forward, 0, Some(A));
        #[rustfmt::skip] // columns
        let expected = vec![
            (0, Some(1), 1, 1, 0), (1, None, 1, 1, 0), (2, Some(2), 1, 1, 0), (3, None, 1, 1, 0), (4, Some(3), 1, 1, 0),
        ];
        assert_eq!(first, expected);
        assert!(forward.answered(key(2)).is_some());
        assert!(forward.answered(key(0)).is_some());
        assert!(forward.answered(key(0)).is_none(), "an answer counts once");
        forward.accept(now(0), GROUP, errand(5, "incr a"), None);
        // The read in between is still waited for, and stands before the write behind it.
        assert_eq!(sent(&mut forward, 0, Some(A)), vec![(5, Some(4), 2, 1, 0)]);
        assert!(forward.answered(key(1)).is_some());
        forward.accept(now(0), GROUP, errand(6, "incr a"), None);
        assert_eq!(sent(&mut forward, 0, Some(A)), vec![(6, Some(5), 3, 1, 0)]);
    }

    #[test]
    fn what_was_refused_goes_again_before_what_came_later() {
        let mut forward = Forward::default();
        (0..3).for_each(|n| forward.accept(now(0), GROUP, errand(n, "incr a"), None));
        assert_eq!(sent(&mut forward, 0, Some(A)).len(), 3);
        assert!(forward.refused(now(1), key(0), 1, Some(B)).is_none());
        forward.accept(now(1), GROUP, errand(3, "incr a"), None);
        // The others are on their way to A still: who refused the first will refuse them.
        assert_eq!(sent(&mut forward, 1, Some(A)), vec![]);
        assert!(forward.refused(now(1), key(1), 1, Some(B)).is_none());
        assert!(forward.refused(now(1), key(1), 1, Some(B)).is_none(), "told twice");
        assert_eq!(sent(&mut forward, 1, Some(A)), vec![]);
        assert!(forward.refused(now(1), key(2), 1, Some(B)).is_none());
        let again = sent(&mut forward, 1, Some(A));
        assert_eq!(
            again.iter().map(|one| (one.0, one.1, one.3, one.4)).collect::<Vec<_>>(),
            vec![(0, Some(1), 2, 1), (1, Some(2), 2, 1), (2, Some(3), 2, 1), (3, Some(4), 1, 1),]
        );
        // A late refusal of the first try says nothing of the second.
        assert!(forward.refused(now(2), key(0), 1, None).is_none());
        assert_eq!(sent(&mut forward, 2, Some(A)), vec![]);
    }

    #[test]
    fn a_lost_peer_leaves_writes_that_may_be_done_and_waits_that_are_given_up() {
        let mut forward = Forward::default();
        for (sequence, line) in ["incr a", "get a", "blpop l 0"].into_iter().enumerate() {
            forward.accept(now(0), GROUP, errand(sequence as u64, line), None);
        }
        assert_eq!(sent(&mut forward, 0, Some(A)).len(), 3);
        let given_up = forward.lost(A);
        let fates: Vec<_> = given_up.iter().map(|(entry, fate)| (entry.errand.key().1.0, *fate)).collect();
        assert_eq!(fates, vec![(2, Fate::Unknown)]);
        assert_eq!(sent(&mut forward, 1, None), vec![]);
        assert_eq!(forward.sweep(now(FORWARD_MS_MAX - 1)).len(), 0);
        let over = forward.sweep(now(FORWARD_MS_MAX + SWEEP_MS));
        let fates: Vec<_> = over.iter().map(|(entry, fate)| (entry.errand.key().1.0, *fate)).collect();
        assert_eq!(fates, vec![(0, Fate::Unknown), (1, Fate::Undone)]);
        assert_eq!((forward.len(), forward.deadline()), (0, None));
    }

    #[test]
    fn what_is_sent_is_waited_for_as_long_as_it_may_take() {
        #[rustfmt::skip] // columns
        let table = [
            // command         given up after           as
            ("get a",          Some(FORWARD_MS_MAX),    Fate::Undone),
            ("incr a",         Some(FORWARD_MS_MAX),    Fate::Unknown),
            ("keys *",         Some(READ_MS_MAX),       Fate::Unknown),
            ("sort_ro l",      Some(READ_MS_MAX),       Fate::Unknown),
            ("blpop l 0",      None,                    Fate::Unknown),
        ];
        for (line, after, fate) in table {
            let mut forward = Forward::default();
            forward.accept(now(0), GROUP, errand(0, line), None);
            assert_eq!(sent(&mut forward, 0, Some(A)).len(), 1);
            let mut given_up = None;
            for at in (0..READ_MS_MAX + FORWARD_MS_MAX).step_by(SWEEP_MS as usize) {
                if let Some((_, as_what)) = forward.sweep(now(at)).pop() {
                    given_up = Some((at, as_what));
                    break;
                }
            }
            assert_eq!(given_up, after.map(|at| (at, fate)), "{line}");
            assert_eq!(forward.len(), usize::from(after.is_none()), "{line}");
        }
        // That its client has waited long counts, although it was sent just now.
        let mut forward = Forward::default();
        forward.accept(now(0), GROUP, errand(0, "keys *"), None);
        assert_eq!(sent(&mut forward, FORWARD_MS_MAX - 1, Some(A)).len(), 1);
        assert_eq!(forward.sweep(now(READ_MS_MAX - 1)).len(), 0);
        assert_eq!(forward.sweep(now(READ_MS_MAX + SWEEP_MS)).len(), 1);
    }

    #[test]
    fn what_was_never_sent_was_not_done() {
        let mut forward = Forward::default();
        forward.accept(now(0), GROUP, errand(0, "incr a"), None);
        assert_eq!(sent(&mut forward, 0, None), vec![]);
        let over = forward.sweep(now(FORWARD_MS_MAX));
        assert_eq!(over.iter().map(|(_, fate)| *fate).collect::<Vec<_>>(), vec![Fate::Undone]);
    }

    #[test]
    fn no_more_writes_are_under_way_than_a_window_has() {
        let mut forward = Forward::default();
        (0..WINDOW_MAX + 10).for_each(|n| forward.accept(now(0), GROUP, errand(n, "incr a"), None));
        assert_eq!(sent(&mut forward, 0, Some(A)).len() as u64, WINDOW_MAX);
        assert_eq!(sent(&mut forward, 0, Some(A)).len(), 0);
        assert!(forward.answered(key(1)).is_some());
        assert_eq!(sent(&mut forward, 0, Some(A)).len(), 0, "the first is still waited for");
        assert!(forward.answered(key(0)).is_some());
        let more: Vec<u64> = sent(&mut forward, 0, Some(A)).into_iter().map(|one| one.0).collect();
        assert_eq!(more, vec![WINDOW_MAX, WINDOW_MAX + 1]);
    }

    #[test]
    fn a_connection_that_is_gone_leaves_nothing() {
        let mut forward = Forward::default();
        (0..3).for_each(|n| forward.accept(now(0), GROUP, errand(n, "incr a"), None));
        assert_eq!(sent(&mut forward, 0, Some(A)).len(), 3);
        assert_eq!(forward.forget(ConnId(2)), vec![]);
        assert_eq!(forward.forget(ConnId(1)), vec![A]);
        assert_eq!((forward.len(), forward.forget(ConnId(1))), (0, vec![]));
        // Numbers go on: what was on its way may still be done.
        forward.accept(now(0), GROUP, errand(3, "incr a"), None);
        assert_eq!(sent(&mut forward, 0, Some(A)), vec![(3, Some(4), 4, 1, 0)]);
    }

    /// Peers that do, refuse and lose at random, each as a real one would: commands of one round arrive in order, and who
    /// refuses one refuses the rest of the round. Whatever happens, first tries that are done are done in order.
    #[test]
    fn commands_of_a_connection_are_done_in_their_order() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let (mut forward, mut done) = (Forward::default(), Vec::new());
            let mut flight: VecDeque<(u64, Option<u64>, u64, u8, u64)> = VecDeque::new();
            let (mut clock, mut next, mut refused) = (0, 0, None);
            while next < 40 || forward.len() > 0 {
                clock += 1;
                assert!(clock < 20_000, "seed {seed}: it ends");
                let late = forward.sweep(now(clock)).into_iter().all(|(_, fate)| fate == Fate::Unknown);
                assert!(late, "seed {seed}: what may be done is not said to be undone");
                if next < 40 && rng.chance(0.5) {
                    forward.accept(now(clock), GROUP, errand(next, "incr a"), None);
                    next += 1;
                }
                flight.extend(sent(&mut forward, clock, Some(A)));
                for _ in 0..rng.below(4) {
                    let Some((sequence, number, _, attempt, round)) = flight.pop_front() else { break };
                    if refused.is_some_and(|until| round <= until) || rng.chance(0.1) {
                        refused = refused.max(Some(round));
                        assert!(forward.refused(now(clock), key(sequence), attempt, None).is_none());
                        continue;
                    }
                    let number = number.expect("writes are numbered");
                    if !done.contains(&number) {
                        done.push(number);
                    }
                    if rng.chance(0.9) {
                        forward.answered(key(sequence));
                    }
                }
                if rng.chance(0.05) || flight.is_empty() {
                    flight.clear();
                    assert!(forward.lost(A).is_empty());
                }
            }
            assert!(done.is_sorted(), "seed {seed}: {done:?}");
            assert_eq!(done.len(), 40, "seed {seed}");
        }
    }
}
