//! A node's part in what the cluster should be: the control group, who is alive, and what follows for this node.
//!
//! The desired state ([`control::State`]) is replicated by the control group, in which every member has a replica: up to
//! five vote, the others learn. Whoever leads it asks for what [`control::plan`] says, from what it sees itself and what
//! leaders of partitions report. Every node is told, by [`Effect`]s, what changed for it. Liveness is SWIM's. Requests go
//! to the leader, by way of other members, and are answered when they are applied *here*.
//!
//! A turn: inputs ([`Mind::receive`], [`Mind::wake`], [`Mind::ask`], …); [`Mind::records`] into the node's log, then
//! [`Mind::wrote`] or [`Mind::refused`]; [`Mind::finish`], whose effects the host performs in their order. When the log is
//! durable, [`Mind::synced`] and `finish` again.

mod admission;
mod apply;
mod ask;
mod confirm;
mod lead;
mod report;
mod snapshot;
mod start;
mod status;
mod version;
mod watch;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::group::{Event, Standing, Write};
use consensus::replay::Restored;
use consensus::{Config, Durability, Group, Incarnation, Logged, Mark, Proposed, Replica, ReplicaId};
use control::{CONTROL, Duty, Name, Operation, OperationId, Outcome, Roster, State, Welcome};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, KeyspaceId, Lsn, Machine, Micros, NodeId, Rng, Spoken, Term, Version};
use p2p::swim::{Liveness, Swim, SwimOptions};
use thiserror::Error;

use super::frames::{self, Said};
use super::{Lane, kind};

use version::readable;

pub use admission::Admission;
pub use lead::roles;
pub use start::{Begin, Options, Start, StartError};
pub use status::{MemberStatus, MoveStatus, Status};

/// A member that is dead for so long counts as down, and its copies are made elsewhere; in milliseconds, by default.
pub const DOWN_MS: u64 = 30_000;
/// A request is answered within this, in milliseconds.
pub const ASK_MS_MAX: u64 = 5_000;
/// Requests that wait for their answer at one node.
pub const ASKS_MAX: usize = 256;
/// Requests that wait at the control group's leader to be proposed.
pub const QUEUE_MAX: usize = 256;
/// Bytes of one encoded state that are fetched as a snapshot.
pub const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the log or the group refused is offered again after this, in milliseconds.
const HOLD_MS: u64 = 10;
/// The version of `apply` of the control group's entries.
const SEMANTICS: u16 = 1;

/// What the host calls a question of its own, to know the answer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A request of the host's.
#[derive(Clone, Debug)]
pub struct Ask {
    /// For the answer.
    pub ticket: Ticket,
    /// Which request, if who asks has drawn an id, to ask again under it.
    pub id: Option<OperationId>,
    /// Who asks.
    pub by: Name,
    /// What.
    pub operation: Operation,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was accepted, and this node's state has it.
    Done(Outcome),
    /// It was refused, for this reason.
    Refused(String),
    /// A newcomer was let in: what it is to be answered, for [`Welcome::decode`].
    Welcome(Vec<u8>),
    /// Nobody leads the control group, as far as this node can reach; it did not happen, and will not.
    NoLeader,
    /// Too many requests wait; it did not happen, and will not.
    Busy,
    /// It was sent and nothing was heard of it: it may have happened, or still happen.
    Unknown,
}

/// What the host must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame.
    Send {
        /// To whom.
        to: NodeId,
        /// How.
        lane: Lane,
        /// The whole frame, its kind first.
        frame: Vec<u8>,
    },
    /// A replica of a partition is no more: its data is deleted.
    Stop {
        /// Its group.
        group: GroupId,
        /// Its number.
        replica: ReplicaId,
    },
    /// A keyspace came, went, or has other settings: [`Mind::state`] says which.
    Keyspace(KeyspaceId),
    /// Have a link.
    Link {
        /// To whom.
        node: NodeId,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// This node has a replica of a partition: it begins, or goes on with what its disk has under this number.
    Start {
        /// Its group.
        group: GroupId,
        /// What it is to do.
        duty: Duty,
    },
    /// A partition's group should have other members, roles, or another leader.
    Change {
        /// Its group.
        group: GroupId,
        /// What is to be.
        duty: Duty,
    },
    /// Have no link any more.
    Unlink {
        /// To whom.
        node: NodeId,
    },
    /// A user came, went, or has other rights.
    User(Name),
    /// The proxies are to do something else: [`Mind::state`] says what.
    Mesh,
    /// This is what is thought of a member from now on. Groups that sleep under a leader that is suspected are to be
    /// roused.
    Liveness {
        /// Which.
        node: NodeId,
        /// What.
        liveness: Liveness,
    },
    /// Keep this durably, in one step, as the checkpoint of the control group; then [`Mind::persisted`].
    Persist {
        /// What consensus says.
        mark: Mark,
        /// The encoded state.
        state: Vec<u8>,
        /// What keyspaces promise in it.
        promised: BTreeMap<KeyspaceId, Durability>,
    },
    /// Keep this number durably: the next life's is above it.
    Incarnation(u64),
    /// An answer.
    Answer {
        /// To this question.
        ticket: Ticket,
        /// It.
        answer: Answer,
    },
    /// This node is a member no more, and never will be again.
    Expelled,
}

/// Bytes of others that came to nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Frames that could not be read.
    pub malformed: u64,
    /// Frames of nodes that this node has no link to.
    pub strange: u64,
    /// Messages that the control group's replica refused.
    pub refused: u64,
    /// Entries of the control group that this node cannot read.
    pub unreadable: u64,
}

/// The entry that is being written.
struct Proposal {
    id: OperationId,
    index: Index,
    time: Micros,
    body: Vec<u8>,
}

/// See the module's text.
pub struct Mind {
    me: NodeId,
    options: Options,
    now: Micros,
    rng: Rng,
    replica: Replica,
    swim: Swim,
    state: State,
    /// The state that the host was told of.
    shown: State,
    /// A state, and its index, that it is told of when a checkpoint has it.
    showing: Option<(Index, State)>,
    /// The term of the last applied entry.
    applied_term: Term,
    /// What is known of the members beyond the state: it is newer, or there is none yet.
    roster: Option<Roster>,
    links: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Links of those who were removed, and until when they last.
    parting: BTreeMap<NodeId, Micros>,
    /// Who has which replica of the control group.
    nodes: BTreeMap<ReplicaId, NodeId>,
    /// Links that are up.
    up: BTreeSet<NodeId>,
    /// What peers speak that a link is up to.
    spoken: BTreeMap<NodeId, Spoken>,
    /// Something was decided in a version that this node does not speak: it knows nothing of what came after.
    outrun: bool,
    /// Since when members are dead.
    dead: BTreeMap<NodeId, Micros>,
    expelled: Option<Micros>,
    asks: ask::Asks,
    lead: lead::Lead,
    reports: report::Reports,
    confirms: confirm::Confirms,
    keep: snapshot::Keep,
    /// Records that the log or the group refused are not offered again before this.
    hold: Micros,
    batch: Vec<Write>,
    proposal: Option<Proposal>,
    dropped: Dropped,
    out: Vec<Effect>,
}

impl Mind {
    /// A node's mind, at the beginning of a life. The first [`Mind::finish`] says all that it has to do.
    ///
    /// # Errors
    /// [`StartError`]: the node is no member.
    pub fn new(now: Micros, start: Start) -> Result<Mind, StartError> {
        let Start { node, incarnation, seed, options, begin } = start;
        let mut rng = Rng::new(seed).fork(incarnation);
        let life = Incarnation(incarnation);
        let config = |replica: ReplicaId, rng: &mut Rng| {
            let mut config = Config::new(CONTROL, replica, life, rng.next_u64());
            config.tick = options.tick_ms * 1000;
            // What is not compacted stays in memory: it is little, and no old entries are read from the log.
            config.held_bytes = usize::MAX;
            config
        };
        let (replica, state, roster) = match begin {
            Begin::Resume { restored, state } => {
                let member = state.members().get(&node).ok_or(StartError::NotMember(node))?;
                if !member.is_present() {
                    return Err(StartError::Removed(node));
                }
                readable(state.speaks(), options.spoken)?;
                (Replica::new(config(member.replica, &mut rng), now, *restored), *state, None)
            }
            Begin::Join { welcome: Welcome { replica, roster }, hard } => {
                let known = roster.control_members().ok_or(StartError::NotMember(node))?;
                (Replica::joining(config(replica, &mut rng), now, known, hard), State::new(), Some(roster))
            }
        };
        let keep = snapshot::Keep::new(replica.last_applied(), incarnation);
        let mut mind = Mind {
            me: node,
            options,
            now,
            swim: Swim::new(options.swim, node, incarnation, now, rng.next_u64()),
            rng,
            replica,
            state,
            shown: State::new(),
            showing: None,
            applied_term: Term(0),
            roster,
            links: BTreeMap::new(),
            parting: BTreeMap::new(),
            nodes: BTreeMap::new(),
            up: BTreeSet::new(),
            spoken: BTreeMap::new(),
            outrun: false,
            dead: BTreeMap::new(),
            expelled: None,
            asks: ask::Asks::default(),
            lead: lead::Lead::default(),
            reports: report::Reports::default(),
            confirms: confirm::Confirms::default(),
            keep,
            hold: now,
            batch: Vec::new(),
            proposal: None,
            dropped: Dropped::default(),
            out: Vec::new(),
        };
        // A joiner links to whom it was told of; who has a state tells it with the first turn.
        if mind.state.cluster().is_none() {
            mind.follow_members();
        }
        Ok(mind)
    }

    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.me
    }

    /// The desired state, as far as it is applied here.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The control group's replica, to look at.
    #[must_use]
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What came to nothing.
    #[must_use]
    pub const fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// Who leads the control group, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match self.replica.standing() {
            Standing::Leader => Some(self.me),
            Standing::Follower(leader) => self.nodes.get(&leader?).copied(),
            Standing::Candidate => None,
        }
    }

    /// Takes a frame of a peer: of consensus about [`CONTROL`], of liveness, or about the desired state. Others have no
    /// business here and are counted.
    pub fn receive(&mut self, now: Micros, from: NodeId, frame: &[u8]) {
        self.now = now;
        if !self.links.contains_key(&from) && !self.parting.contains_key(&from) {
            self.dropped.strange += 1;
            return;
        }
        let Some((&first, rest)) = frame.split_first() else {
            self.dropped.malformed += 1;
            return;
        };
        match first {
            kind::CONSENSUS => self.dropped.refused += u64::from(self.replica.receive(now, rest).is_err()),
            kind::SWIM => match p2p::swim::Message::decode(rest) {
                Ok(message) => self.hear(from, message),
                Err(_) => self.dropped.malformed += 1,
            },
            kind::CONTROL => match Said::decode(rest) {
                Ok(said) => self.take(from, said),
                Err(_) => self.dropped.malformed += 1,
            },
            _ => self.dropped.malformed += 1,
        }
    }

    fn take(&mut self, from: NodeId, said: Said) {
        match said {
            Said::Ask(request) => self.take_ask(from, request),
            Said::Declined { id, because } => self.asks.declined(self.now, id, because),
            Said::Reports(reports) => self.take_reports(from, reports),
            Said::Whether(groups) => self.take_whether(from, groups),
            Said::Confirmed(groups) => self.take_confirmed(groups),
            Said::Hello { version } => self.greet(from, version),
            Said::Roster(roster) => self.take_roster(roster),
            Said::Farewell { version } if version > self.known_version() => self.expel(),
            // It was let in again under this key in no version: this is of an earlier cluster, or a mistake.
            Said::Farewell { .. } => {}
            Said::Pull { generation, offset } => self.serve_part(from, generation, offset),
            Said::Part { generation, offset, bytes } => self.take_part(from, generation, offset, &bytes),
            Said::NoPart { generation } => self.lack_part(from, generation),
        }
    }

    /// When [`Mind::wake`] must be called next; a moment that has passed means: have a turn now.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        if !self.out.is_empty() {
            return Some(self.now);
        }
        let records = self.has_records().then(|| self.now.max(self.hold));
        let timers = [
            records,
            self.replica.deadline(),
            self.swim.deadline(),
            self.asks.deadline(),
            self.lead.deadline(),
            self.reports.deadline(),
            self.confirms.deadline(),
            self.keep.deadline(),
            self.parting.values().min().copied(),
            self.expelled.filter(|at| *at < Micros(u64::MAX)),
        ];
        timers.into_iter().flatten().min()
    }

    /// Lets everything due at `now` happen; then [`Mind::finish`].
    pub fn wake(&mut self, now: Micros) {
        self.now = now;
        if self.swim.deadline().is_some_and(|due| due <= now) {
            let mut effects = Vec::new();
            self.swim.wake(now, &mut effects);
            self.heed(effects);
        }
        self.replica.wake(now);
    }

    fn has_records(&self) -> bool {
        self.replica.writes().len() > 0 || self.lead.may_go_on()
    }

    /// What the node's log must have next, in this order, all or nothing; then [`Mind::wrote`] or [`Mind::refused`], with
    /// nothing in between. If it is empty, neither.
    pub fn records(&mut self, now: Micros) -> &[Write] {
        self.now = now;
        self.batch.clear();
        self.batch.extend(self.replica.writes().cloned());
        if let Some(request) = self.lead.first(now) {
            match self.replica.propose() {
                Some((term, index)) => {
                    let (id, body) = (request.id, request.encode());
                    self.batch.push(Write::Entry(Logged::new(term, index, SEMANTICS, now, &body)));
                    self.proposal = Some(Proposal { id, index, time: now, body });
                }
                None => self.hold = now.plus_millis(HOLD_MS),
            }
        }
        &self.batch
    }

    /// The records were appended and end at `end`.
    pub fn wrote(&mut self, now: Micros, end: Lsn) {
        self.now = now;
        let Some(Proposal { id, index, time, body }) = self.proposal.take() else {
            return self.replica.wrote(end);
        };
        self.lead.proposed(id);
        if is(Bug::AnswerBeforeApply) {
            self.answer(id, Ok(Outcome { version: 0, replica: None }));
        }
        self.replica.written(&Proposed { index, semantics: SEMANTICS, time, body: &body }, end);
    }

    /// The log is full; the records are offered again.
    pub fn refused(&mut self, now: Micros) {
        (self.now, self.hold) = (now, now.plus_millis(HOLD_MS));
        if let Some(Proposal { index, .. }) = self.proposal.take() {
            self.replica.withdraw(index);
        }
    }

    /// The node's log is synced up to `lsn`; then [`Mind::finish`].
    pub fn synced(&mut self, now: Micros, lsn: Lsn) {
        self.now = now;
        self.replica.synced(lsn);
    }

    /// Ends a turn: what was decided, in the order in which it is to be done.
    pub fn finish(&mut self, now: Micros, out: &mut Vec<Effect>) {
        self.now = now;
        self.replica.turn(now);
        while self.attend_all() | self.apply() {}
        self.show();
        self.steer();
        self.plan();
        self.pursue();
        self.send_reports();
        self.ask_whether();
        self.confirm();
        self.pull_on();
        self.keep_checkpoint();
        self.part();
        self.attend_all();
        let mut messages = Vec::new();
        self.replica.take_messages(&mut messages);
        for message in &messages {
            if let Some(&to) = self.nodes.get(&message.to) {
                self.out.push(Effect::Send {
                    to,
                    lane: Lane::Control,
                    frame: frames::consensus_frame(message),
                });
            }
        }
        out.append(&mut self.out);
    }

    /// True if something had happened.
    fn attend_all(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.replica.next_event() {
            self.attend(event);
            any = true;
        }
        any
    }

    fn attend(&mut self, event: Event) {
        match event {
            Event::Stands(standing) => {
                self.lead.stands(standing == Standing::Leader);
                self.asks.leader_changed(self.now);
                self.reports.leader_changed(self.now);
            }
            Event::FetchSnapshot { from, descriptor } => self.fetch(from, descriptor),
            Event::InstallSnapshot(descriptor) => self.install(&descriptor),
            Event::MakeSnapshot => self.make_snapshot(),
            Event::Members(_) => self.lead.look_again(),
            Event::FetchEntries { .. } => {
                unreachable!(
                    "what is not compacted is in memory, and of what is compacted a snapshot is made"
                )
            }
            Event::Read { id, index } => self.read_confirmed(id, index),
            Event::Recovered => {}
        }
    }

    fn say(&mut self, to: NodeId, said: &Said) {
        self.out.push(Effect::Send { to, lane: said.lane(), frame: said.frame() });
    }
}
