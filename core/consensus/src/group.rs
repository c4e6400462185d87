//! A replica of a group of several: Raft, with its messages, records and commits as values.
//!
//! How a host drives it, in each of its turns:
//!
//! 1. [`Replica::receive`] for each message of a peer, [`Replica::wake`] when the deadline has come.
//! 2. [`Group::propose`] if the turn has an entry; then one append to the node's log of [`Replica::writes`], followed by
//!    that entry. If the log takes it, [`Group::written`] or, without an entry, [`Replica::wrote`]; if it is full,
//!    [`Group::withdraw`]: what was to be written is offered again in the next turn, and nothing that depends on it
//!    has left.
//! 3. [`Replica::turn`], then [`Replica::take_messages`] to the peers, [`Replica::next_event`] until there is none, and
//!    [`Replica::next_committed`] with [`Replica::applied`] until there is none.
//! 4. [`Group::synced`] when the log is durable; then 3 again.
//!
//! What needs a durable state (votes, acknowledged appends) waits for `synced`; appends to followers leave at once, and
//! the leader's own copy counts only when it is synced.

mod clock;
mod fresh;
mod membership;
mod persist;
mod read;
mod receive;
mod recovering;
mod snapshot;
mod translate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Lsn, Micros, Rng, Term};
use raft::eraftpb::{Entry, HardState};
use raft::{RawNode, StateRole};

use crate::codec::{Descriptor, Message};
use crate::entry::{Body, Logged};
use crate::log::Log;
use crate::members::{Incarnation, Mark, Members, ReplicaId};
use crate::replay::{Restored, Tail};
use crate::{Durability, Group, Proposed};

pub use membership::{ChangeError, Progress};
pub use persist::Write;
pub use read::{CLOCK_RATIO_MAX, ReadId};
pub use receive::{Refusal, Refusals};

/// Bytes of the entries of one append by default.
const APPEND_BYTES: u64 = 256 << 10;
/// Appends on their way to one follower: at the default of [`Config::append_bytes`] 16 MiB, or as many larger entries.
pub const APPENDS_MAX: usize = 64;
/// Bytes proposed and not yet committed; beyond it nothing is proposed. One entry is always taken.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;
/// Bytes that wait for the node's log; beyond it appends of the leader are dropped, which sends them again.
pub const UNWRITTEN_BYTES_MAX: usize = 32 << 20;

/// What a replica is told of itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its group.
    pub group: GroupId,
    /// Its number in the group.
    pub id: ReplicaId,
    /// Its life: durable, above every earlier one's.
    pub incarnation: Incarnation,
    /// What `committed` promises. Terms and votes are synced in any case.
    pub durability: Durability,
    /// Decides its election timeouts.
    pub seed: u64,
    /// Microseconds between ticks.
    pub tick: u64,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// A follower that hears nothing for between one and two times so many ticks campaigns, each in its turn; after the
    /// first time that this leads to nothing, half of it is waited for. At least 4.
    pub election_ticks: usize,
    /// Ticks without anything to do after which the group sleeps; `None`: never.
    pub quiet_ticks: Option<u32>,
    /// Bytes of the entries of one append, unless one entry is larger.
    pub append_bytes: u64,
    /// Bytes of applied entries that stay in memory for followers that are a little behind.
    pub held_bytes: usize,
    /// Whether it answers reads by lease while it leads, see [`Replica::set_leases`]. Nothing that it does as a voter
    /// depends on this.
    pub leases: bool,
}

impl Config {
    /// The defaults: 50 ms ticks, elections after 0.6 to 1.2 s of silence, sleep after 3 s, no leases.
    #[must_use]
    pub const fn new(group: GroupId, id: ReplicaId, incarnation: Incarnation, seed: u64) -> Config {
        Config {
            group,
            id,
            incarnation,
            durability: Durability::Always,
            seed,
            tick: 50_000,
            heartbeat_ticks: 2,
            election_ticks: 12,
            quiet_ticks: Some(60),
            append_bytes: APPEND_BYTES,
            held_bytes: 4 << 20,
            leases: false,
        }
    }
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It orders the group's entries.
    Leader,
    /// It follows this leader, if it knows one.
    Follower(Option<ReplicaId>),
    /// It asks to be elected.
    Candidate,
}

/// What the host must do or may want to know, besides messages and records.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The standing changed. Whoever waits at a former leader is answered "unknown".
    Stands(Standing),
    /// A read may be answered from any state at `index` or later; `None`: it cannot be, nothing is known.
    Read {
        /// Which.
        id: ReadId,
        /// At least this must be applied first.
        index: Option<Index>,
    },
    /// Fetch the bytes of this snapshot from `from` on the bulk link, keep them aside, check them, then call
    /// [`Replica::snapshot_staged`] or [`Replica::snapshot_refused`].
    FetchSnapshot {
        /// Who has it.
        from: ReplicaId,
        /// What it is.
        descriptor: Descriptor,
    },
    /// Switch to this staged snapshot in one durable step, then call [`Replica::snapshot_installed`].
    InstallSnapshot(Descriptor),
    /// A follower is behind the log: make a [`Replica::cut`] and offer it with [`Replica::offer_snapshot`].
    MakeSnapshot,
    /// Read these old entries from the node's log and hand them to [`Replica::fetched`].
    FetchEntries {
        /// The first.
        first: Index,
        /// The last that is wanted; fewer will do.
        last: Index,
    },
    /// The members changed.
    Members(Members),
    /// It has everything that it may have acknowledged before its tail became ambiguous, and takes part again.
    Recovered,
}

/// A committed entry, to be applied in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its term: with the index it tells a leader's own proposal from a later leader's.
    pub term: Term,
    /// Its index.
    pub index: Index,
    /// What it says.
    pub body: Body,
}

/// One replica of a replicated group. See the module's text.
pub struct Replica {
    config: Config,
    raw: RawNode<Log>,
    members: Members,
    first_members: Members,
    /// Peers that the host vouches for although the log does not name them yet.
    introduced: BTreeSet<ReplicaId>,
    incarnations: BTreeMap<ReplicaId, Incarnation>,
    now: Micros,
    rng: Rng,
    timing: clock::Timing,
    desk: persist::Desk,
    reads: read::Reads,
    incoming: Option<snapshot::Incoming>,
    sending: BTreeMap<ReplicaId, Micros>,
    recovering: Option<recovering::Recovering>,
    recovered_peers: BTreeMap<ReplicaId, (Term, Incarnation)>,
    fresh: fresh::Fresh,
    /// Entries that wait to be applied.
    committed: VecDeque<Entry>,
    /// Whether the host was asked for old entries and has not answered.
    fetching: bool,
    standing: Standing,
    outbox: Vec<Message>,
    events: VecDeque<Event>,
    refusals: Refusals,
}

impl Replica {
    /// A replica that takes up what its disk has; see [`crate::replay`].
    #[must_use]
    pub fn new(config: Config, now: Micros, restored: Restored) -> Replica {
        let Restored { hard, mark, base, entries, committed, tail, repair } = restored;
        let vote = if is(Bug::VoteForgotten) { None } else { hard.1 };
        let mut state = HardState::default();
        (state.term, state.vote) = (hard.0.0.max(mark.term.0), vote.map_or(0, ReplicaId::get));
        let last_term = entries.last().map_or(mark.term, Logged::term);
        if state.term < last_term.0 {
            (state.term, state.vote) = (last_term.0, 0);
        }
        state.commit = Self::known_committed(&mark, &entries).max(committed).0;
        let log = Log::new(state.clone(), &mark, base, entries);
        let alone = mark.members.voters().len() == 1 && mark.members.votes(config.id);
        let ambiguous = tail == Tail::Ambiguous && !alone && !is(Bug::TornTailBelieved);
        let mut replica = Self::build(config, now, log, mark.members, mark.index.0);
        replica.desk.hard = (state.term, state.vote);
        if let Some(repair) = repair {
            replica.write(repair);
        }
        replica.recovering = ambiguous.then(recovering::Recovering::default);
        replica
    }

    /// What must have been committed, as the log itself shows: the commit index is not on disk.
    ///
    /// A leader proposes a change of the members only when it has applied the one before. So of two changes in a log the
    /// first is committed, and whoever has both must follow the first before it campaigns or counts: with the members
    /// before it, it could elect a leader, or commit, beside those who follow the second.
    fn known_committed(mark: &Mark, entries: &[Logged]) -> Index {
        let changes = entries.iter().filter(|entry| entry.is_change() && entry.index() > mark.index);
        let before_last = changes.rev().nth(1).map(Logged::index);
        let before_last = before_last.filter(|_| !is(Bug::ChangeForgotten));
        before_last.unwrap_or(mark.index)
    }

    /// A replica that has nothing yet and was added, or will be, by the members `known`; a leader will send it a snapshot.
    #[must_use]
    pub fn joining(config: Config, now: Micros, known: Members, hard: (Term, Option<ReplicaId>)) -> Replica {
        let mut state = HardState::default();
        (state.term, state.vote) = (hard.0.0, hard.1.map_or(0, ReplicaId::get));
        let log = Log::empty(state);
        let introduced: BTreeSet<ReplicaId> = known.iter().collect();
        let mut replica = Self::build(config, now, log, known, 0);
        replica.desk.hard = (hard.0.0, hard.1.map_or(0, ReplicaId::get));
        replica.introduced = introduced;
        replica
    }

    fn build(config: Config, now: Micros, log: Log, members: Members, applied: u64) -> Replica {
        let engine = raft::Config {
            id: config.id.get(),
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.append_bytes,
            max_inflight_msgs: APPENDS_MAX,
            // Counted, but the bound is ours: see `may_propose`.
            max_uncommitted_size: u64::MAX - 1,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&engine, log, &silent).expect("a checked configuration and log are taken");
        let mut rng = Rng::new(config.seed).fork(config.id.get()).fork(config.incarnation.0);
        let timing = clock::Timing::new(now, &config, &mut rng);
        let mut replica = Replica {
            raw,
            first_members: members.clone(),
            members,
            introduced: BTreeSet::new(),
            incarnations: BTreeMap::new(),
            now,
            rng,
            timing,
            desk: persist::Desk::default(),
            reads: read::Reads::default(),
            incoming: None,
            sending: BTreeMap::new(),
            recovering: None,
            recovered_peers: BTreeMap::new(),
            fresh: fresh::Fresh::default(),
            committed: VecDeque::new(),
            fetching: false,
            standing: Standing::Follower(None),
            outbox: Vec::new(),
            events: VecDeque::new(),
            refusals: Refusals::default(),
            config,
        };
        replica.settle();
        replica
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> ReplicaId {
        self.config.id
    }

    /// Promises another durability from now on. What has counted unsynced before has.
    ///
    /// A restart must not take such a log for one that lost nothing: who makes the promise stronger says so durably only
    /// when all that was written before is synced, and who makes it weaker has said so durably before.
    pub const fn set_durability(&mut self, durability: Durability) {
        self.config.durability = durability;
    }

    /// Its group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.config.group
    }

    /// What it is at the moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.raw.raft.state {
            StateRole::Leader => Standing::Leader,
            StateRole::Follower => Standing::Follower(ReplicaId::new(self.raw.raft.leader_id)),
            StateRole::Candidate | StateRole::PreCandidate => Standing::Candidate,
        }
    }

    /// Whether it leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The highest term that it knows.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// The last index of its log, committed or not.
    #[must_use]
    pub fn last(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    /// The last index that was applied.
    #[must_use]
    pub fn last_applied(&self) -> Index {
        Index(self.raw.raft.raft_log.applied)
    }

    /// The members, as far as it has applied them.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The term of the entry at `index`, if its log says.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.raw.store().term_of(index.0).map(Term)
    }

    /// Whether it takes no part in elections until it has caught up.
    #[must_use]
    pub const fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// Messages that were refused, by reason.
    #[must_use]
    pub const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The host vouches for a peer, as the placement knows it, before the log names it: a follower that is behind
    /// must hear a leader that was added after what it has.
    pub fn introduce(&mut self, peer: ReplicaId) {
        self.introduced.insert(peer);
    }

    /// The next thing to do or to know.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends the messages that may leave now.
    pub fn take_messages(&mut self, out: &mut Vec<Message>) {
        out.append(&mut self.outbox);
    }

    /// Whether nothing waits to be written, sent, told or applied.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.events.is_empty() && self.committed.is_empty() && self.desk.is_clear()
    }

    /// Ends the host's turn: the reads of the turn go out together.
    pub fn turn(&mut self, now: Micros) {
        self.now = now;
        self.issue_reads();
        self.collect();
        self.note_turn();
    }

    fn tell_standing(&mut self) {
        let standing = self.standing();
        if standing == self.standing {
            return;
        }
        if self.standing == Standing::Leader {
            self.lose_leadership();
        }
        self.standing = standing;
        self.events.push_back(Event::Stands(standing));
    }
}

impl Group for Replica {
    /// `None` unless it leads, is not handing over, and less than [`UNCOMMITTED_BYTES_MAX`] is on its way.
    fn propose(&mut self) -> Option<(Term, Index)> {
        if !self.may_propose() {
            return None;
        }
        self.awaken();
        let place = (self.term(), self.last().next());
        self.desk.reserved = Some(place);
        Some(place)
    }

    fn withdraw(&mut self, index: Index) {
        let reserved = self.desk.reserved.take();
        assert_eq!(reserved.map(|place| place.1), Some(index), "only the last proposal can be withdrawn");
    }

    fn written(&mut self, proposed: &Proposed<'_>, end: Lsn) {
        let (term, index) = self.desk.reserved.take().expect("what is written was proposed");
        assert_eq!(index, proposed.index, "what is written was proposed");
        assert_ne!(proposed.semantics, 0, "semantics 0 is the group's own");
        self.wrote(end);
        let entry = Logged::new(term, index, proposed.semantics, proposed.time, proposed.body);
        self.propose_logged(entry, end);
    }

    fn synced(&mut self, lsn: Lsn) {
        if lsn > self.desk.synced {
            self.desk.synced = lsn;
            self.collect();
        }
    }

    /// What may be applied: committed, and on this replica's disk as promised.
    fn committed(&self) -> Index {
        let log = &self.raw.raft.raft_log;
        Index(log.committed.min(log.persisted))
    }

    fn durability(&self) -> Durability {
        self.config.durability
    }
}
