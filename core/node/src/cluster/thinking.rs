//! The mind in the worker: what the cluster should be becomes replicas, routes and jobs of this node, and what this node's
//! replicas are becomes reports.
//!
//! The mind is driven in the worker's turns, first of all: what it decides about this node is done in the same turn. Who
//! leads a group here gives it the members that the state names, hands it over to whom the placement prefers, and tells
//! the control group's leader how far that has come.

pub(super) mod pledge;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use consensus::group::{ChangeError, Standing};
use consensus::{Durability, Replica, ReplicaId, Role};
use control::{CONTROL, Duty, Name, Rights, Settings, State};
use gateway::resp::Address;
use journal::record::Record;
use kernel::planted::{Bug, is};
use kernel::{GroupId, KeyspaceId, Micros, NodeId, Spoken, Version};
use p2p::swim::Liveness;

use super::frames::{DONE, Learner, Report, is_of_mind};
use super::mind::{Admission, Answer, Ask, Effect, Mind, Ticket, roles};
use super::{Job, Outgoing, Seating};
use crate::replica::record;
use crate::worker::{LogSink, ROUNDS_MAX, Worker};
use pledge::Pledges;

/// Groups that are not as they should be are looked at again after this, in milliseconds.
const SURVEY_MS: u64 = 50;
/// All are looked at again after this, in milliseconds: to hand leadership back, for instance.
const REST_MS: u64 = 1_000;
/// Leadership that was handed over and not taken is handed over again after this, in milliseconds.
const HAND_OVER_MS: u64 = 2_000;
/// A group is handed to whom the placement prefers after it was led here for so long, in milliseconds: who has just
/// handed it over may be about to stop.
const HAND_BACK_MS: u64 = 5_000;
/// After the log refused the control group's records, it is asked again after so many milliseconds.
const REFUSED_MS: u64 = 100;
/// A learner that lacks so few entries has caught up.
const BEHIND_MAX: u64 = 64;

/// The mind, and what the worker keeps for it.
pub(crate) struct Thinking {
    mind: Mind,
    pledges: Pledges,
    /// What each group of this node should be.
    duties: BTreeMap<GroupId, Duty>,
    /// When leadership of a group may be handed over again.
    hand_over_at: BTreeMap<GroupId, Micros>,
    /// Since when groups are led here.
    led_since: BTreeMap<GroupId, Micros>,
    /// Something happened that a survey should see.
    pub look: bool,
    survey_at: Micros,
    /// The log refused records: not before this moment again.
    think_at: Micros,
    /// The version of the state that the places of copies are of.
    routed: u64,
    answers: Vec<(Ticket, Answer)>,
    expelled: bool,
}

impl Thinking {
    /// When it has something to do without anything happening first.
    fn deadline(&self) -> Option<Micros> {
        let due = self.mind.deadline().map(|due| due.max(self.think_at));
        let survey = if self.look { Micros(0) } else { self.survey_at };
        due.into_iter().chain([survey]).min()
    }
}

impl Worker {
    /// The same, in a cluster whose control group `mind` has a part in.
    ///
    /// # Panics
    /// If it is in no cluster.
    #[must_use]
    pub fn with_mind(mut self, mind: Mind) -> Worker {
        // Before the first client comes: where there are users nobody enters without being one.
        for name in mind.state().users().keys() {
            self.share_user(name.as_str().as_bytes(), password(mind.state(), name));
        }
        let cluster = self.cluster.as_mut().expect("a mind is for a node in a cluster");
        cluster.thinking = Some(Box::new(Thinking {
            pledges: Pledges::new(mind.state()),
            mind,
            duties: BTreeMap::new(),
            hand_over_at: BTreeMap::new(),
            led_since: BTreeMap::new(),
            look: true,
            survey_at: Micros(0),
            think_at: Micros(0),
            routed: 0,
            answers: Vec::new(),
            expelled: false,
        }));
        self
    }

    /// The same, that cluster clients and other nodes reach there.
    #[must_use]
    pub fn reached_at(mut self, clients: Address, link_port: u16) -> Worker {
        self.set_addresses(Some(clients), link_port);
        self
    }

    fn thinking(&self) -> Option<&Thinking> {
        self.cluster.as_ref()?.thinking.as_deref()
    }

    pub(crate) fn thinking_mut(&mut self) -> Option<&mut Thinking> {
        self.cluster.as_mut()?.thinking.as_deref_mut()
    }

    /// The node's part in what the cluster should be, to look at.
    #[must_use]
    pub fn mind(&self) -> Option<&Mind> {
        self.thinking().map(|thinking| &thinking.mind)
    }

    /// Asks the cluster for something; the answer comes by [`Worker::take_answers`].
    pub fn ask_cluster(&mut self, ask: Ask) {
        let now = self.now;
        if let Some(thinking) = self.thinking_mut() {
            thinking.mind.ask(now, ask);
        }
    }

    /// Lets a newcomer in whose proof was checked; the answer comes by [`Worker::take_answers`].
    pub fn admit_newcomer(&mut self, now: Micros, ticket: Ticket, admission: Admission) {
        self.now = now;
        if let Some(thinking) = self.thinking_mut() {
            thinking.mind.admit(now, ticket, admission);
        }
    }

    /// Appends the answers that have come.
    pub fn take_answers(&mut self, out: &mut Vec<(Ticket, Answer)>) {
        if let Some(thinking) = self.thinking_mut() {
            out.append(&mut thinking.answers);
        }
    }

    /// Whether the cluster has removed this node.
    #[must_use]
    pub fn is_expelled(&self) -> bool {
        self.thinking().is_some_and(|thinking| thinking.expelled)
    }

    /// This node is about to stop: others are to lead what it leads. It may be asked again until [`Worker::leads_any`]
    /// is false.
    pub fn resign(&mut self, now: Micros) {
        self.now = now;
        let Some(mut thinking) = self.take_thinking() else { return };
        thinking.mind.resign(now);
        let groups = self.groups();
        for (group, at) in groups {
            let Some(replica) = self.partitions[at].group.replica_mut().filter(|one| one.leads()) else {
                continue;
            };
            let Some(duty) = thinking.duties.get(&group) else { continue };
            if let Some(next) = successor(replica, duty, &thinking.mind) {
                // It leads, and the next one votes, or it has just stopped to: then there is nothing to hand over.
                let _ = replica.hand_over(now, next);
                self.make_busy(at);
            }
        }
        self.put_thinking(thinking);
    }

    /// Whether this node leads a group that others could lead.
    #[must_use]
    pub fn leads_any(&self) -> bool {
        let Some(thinking) = self.thinking() else { return false };
        let others = |replica: &Replica| replica.leads() && replica.members().voters().len() > 1;
        others(thinking.mind.replica())
            || self.partitions.iter().filter_map(|partition| partition.replica()).any(others)
    }

    fn take_thinking(&mut self) -> Option<Box<Thinking>> {
        self.cluster.as_mut()?.thinking.take()
    }

    fn put_thinking(&mut self, thinking: Box<Thinking>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.thinking = Some(thinking);
        }
    }

    fn groups(&self) -> Vec<(GroupId, usize)> {
        let cluster = self.cluster.as_ref();
        cluster.into_iter().flat_map(|one| &one.groups).map(|(&group, &at)| (group, at)).collect()
    }

    /// When the mind must have a turn.
    pub(crate) fn mind_deadline(&self) -> Option<Micros> {
        self.thinking().and_then(Thinking::deadline)
    }

    /// A frame that is the mind's. False if it is not.
    pub(crate) fn mind_frame(&mut self, from: NodeId, bytes: &[u8]) -> bool {
        let now = self.now;
        let Some(thinking) = self.thinking_mut() else { return false };
        let own = is_of_mind(bytes);
        if own {
            thinking.mind.receive(now, from, bytes);
        }
        own
    }

    /// A peer says what it speaks, before the link to it is told of.
    pub fn peer_speaks(&mut self, peer: NodeId, spoken: Spoken) {
        if let Some(thinking) = self.thinking_mut() {
            thinking.mind.peer_speaks(peer, spoken);
        }
    }

    pub(crate) fn mind_link(&mut self, peer: NodeId, up: bool) {
        let now = self.now;
        if let Some(thinking) = self.thinking_mut() {
            if up { thinking.mind.peer_up(now, peer) } else { thinking.mind.peer_down(now, peer) }
        }
    }

    pub(crate) fn mind_synced(&mut self, lsn: kernel::Lsn) {
        let now = self.now;
        let Some(thinking) = self.thinking_mut() else { return };
        thinking.mind.synced(now, lsn);
        let due = thinking.pledges.synced(lsn);
        due.into_iter().for_each(|job| self.ask_host(job));
    }

    pub(crate) fn mind_persisted(&mut self, index: kernel::Index) {
        let now = self.now;
        let Some(mut thinking) = self.take_thinking() else { return };
        thinking.mind.persisted(now, index);
        thinking.pledges.persisted(index);
        self.keep_pledges(&mut thinking);
        self.put_thinking(thinking);
    }

    /// Gives the mind its turn: it writes, and what it decides for this node is done.
    pub(crate) fn think(&mut self, log: &mut dyn LogSink) {
        for _ in 0..ROUNDS_MAX {
            let now = self.now;
            let Some(mut thinking) = self.take_thinking() else { return };
            if thinking.deadline().is_none_or(|due| due > now) {
                return self.put_thinking(thinking);
            }
            if thinking.mind.deadline().is_some_and(|due| due <= now) {
                thinking.mind.wake(now);
            }
            if thinking.think_at <= now {
                self.write_mind(&mut thinking, log);
            }
            let mut effects = Vec::new();
            thinking.mind.finish(now, &mut effects);
            thinking.look |= effects.iter().any(is_about_groups);
            for effect in effects {
                self.heed(&mut thinking, effect);
            }
            self.route_others(&mut thinking);
            self.look_around(&mut thinking);
            self.put_thinking(thinking);
        }
    }

    fn write_mind(&mut self, thinking: &mut Thinking, log: &mut dyn LogSink) {
        let now = self.now;
        let appended = {
            let records: Vec<Record<'_>> =
                thinking.mind.records(now).iter().map(|write| record(CONTROL, write)).collect();
            if records.is_empty() {
                return;
            }
            log.append(&records, Durability::Always)
        };
        match appended {
            Ok(end) => {
                thinking.mind.wrote(now, end);
                self.note_appended(end);
            }
            Err(_) => {
                thinking.mind.refused(now);
                thinking.think_at = now.plus_millis(REFUSED_MS);
            }
        }
    }

    /// Does what the mind decided.
    fn heed(&mut self, thinking: &mut Thinking, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, lane, frame } => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.frames.push(Outgoing { to, lane, bytes: frame });
                }
            }
            Effect::Stop { group, .. } => {
                thinking.duties.remove(&group);
                thinking.led_since.remove(&group);
                thinking.hand_over_at.remove(&group);
                thinking.mind.note(group, None);
                self.stop_replica(now, group);
            }
            Effect::Keyspace(db) => {
                match thinking.mind.state().keyspaces().get(&db) {
                    Some(keyspace) => self.lay(db, keyspace.settings.partitions),
                    None => self.drop_keyspace(db),
                }
                self.keep_pledges(thinking);
            }
            Effect::Link { node, addresses } => self.ask_host(Job::Link { node, addresses }),
            Effect::Unlink { node } => self.ask_host(Job::Unlink { node }),
            Effect::Start { group, duty } => {
                if let Some(seating) = seating(thinking, group, &duty) {
                    self.start_replica(now, &seating);
                }
                thinking.duties.insert(group, duty);
            }
            Effect::Change { group, duty } => {
                self.reseat(now, group, &nodes(&duty), duty.epoch);
                thinking.duties.insert(group, duty);
            }
            Effect::Liveness { node, liveness: Liveness::Suspect | Liveness::Dead } => self.rouse(now, node),
            Effect::Liveness { .. } => {}
            Effect::User(name) => {
                self.share_user(name.as_str().as_bytes(), password(thinking.mind.state(), &name));
                // A restart is to know them from its beginning.
                thinking.mind.checkpoint();
            }
            // A restart is to know them from its beginning.
            Effect::Mesh => thinking.mind.checkpoint(),
            Effect::Persist { mark, state, promised } => {
                self.persist_control(thinking, mark, state, promised);
            }
            Effect::Incarnation(number) => self.ask_host(Job::Incarnation(number)),
            Effect::Answer { ticket, answer } => thinking.answers.push((ticket, answer)),
            Effect::Expelled => thinking.expelled = true,
        }
    }

    /// Whoever looks for a partition's leader is told where its copies are.
    fn route_others(&mut self, thinking: &mut Thinking) {
        let version = thinking.mind.state().version();
        if core::mem::replace(&mut thinking.routed, version) == version {
            return;
        }
        let state = thinking.mind.state();
        if state.speaks() >= Version(3) {
            let all = state.keyspaces().iter().map(|(&db, space)| (db, space.settings.reading));
            self.set_readings(all.collect());
        }
        for (group, partition) in thinking.mind.state().partitions() {
            let nodes = partition.replicas.iter().map(|replica| replica.node).collect();
            self.place_copies(group, nodes, partition.epoch);
        }
    }

    /// Looks at all groups of this node: gives those that it leads their members and their leader, and reports on them.
    fn look_around(&mut self, thinking: &mut Thinking) {
        let now = self.now;
        if !core::mem::take(&mut thinking.look) && now < thinking.survey_at {
            return;
        }
        let mut unsettled = false;
        for (group, at) in self.groups() {
            let Some(duty) = thinking.duties.get(&group) else { continue };
            let Some(replica) = self.partitions[at].group.replica_mut() else { continue };
            if !replica.leads() {
                thinking.led_since.remove(&group);
                thinking.mind.note(group, None);
                if let Standing::Follower(Some(leader)) = replica.standing()
                    && let Some(node) = node_of(duty, leader)
                {
                    thinking.mind.heard_leader(group, replica.term(), node);
                }
                continue;
            }
            let report = report(replica, duty);
            unsettled |= !report.settled || report.learners.iter().any(|learner| learner.done < DONE);
            let led_since = *thinking.led_since.entry(group).or_insert(now);
            let handing = Handing {
                now: thinking.hand_over_at.get(&group).is_none_or(|at| *at <= now),
                back: led_since.plus_millis(HAND_BACK_MS) <= now,
            };
            let steered = steer(now, replica, (group, duty), &thinking.mind, handing);
            if steered == Steered::HandedOver {
                thinking.hand_over_at.insert(group, now.plus_millis(HAND_OVER_MS));
            }
            if steered != Steered::Nothing {
                self.make_busy(at);
            }
            thinking.mind.note(group, Some(report));
        }
        thinking.survey_at = now.plus_millis(if unsettled { SURVEY_MS } else { REST_MS });
    }
}

/// Whether an effect changes what a survey sees.
const fn is_about_groups(effect: &Effect) -> bool {
    matches!(effect, Effect::Start { .. } | Effect::Change { .. } | Effect::Stop { .. })
}

fn nodes(duty: &Duty) -> Vec<(NodeId, ReplicaId)> {
    duty.members.iter().map(|&(node, replica, _)| (node, replica)).collect()
}

fn node_of(duty: &Duty, replica: ReplicaId) -> Option<NodeId> {
    duty.members.iter().find(|(_, id, _)| *id == replica).map(|&(node, _, _)| node)
}

/// What the worker needs to know of a replica that it is to have; none if its keyspace is gone again.
fn seating(thinking: &Thinking, group: GroupId, duty: &Duty) -> Option<Seating> {
    let db: KeyspaceId = group.keyspace();
    let settings = &thinking.mind.state().keyspaces().get(&db)?.settings;
    Some(Seating {
        group,
        replica: duty.replica,
        nodes: nodes(duty),
        founders: duty.founders.clone(),
        epoch: duty.epoch,
        durability: thinking.pledges.may(db, settings.durability),
        partitions: settings.partitions,
        policy: settings.eviction,
        memory: share(settings),
    })
}

/// The SHA-256 of a user's password; none of somebody who is no user, or may not do everything: sessions know no rights, so
/// such a one is not let in at all.
fn password(state: &State, name: &Name) -> Option<[u8; 32]> {
    let user = state.users().get(name)?;
    let Rights { read, write, admin, keyspaces } = &user.rights;
    (*read && *write && *admin && keyspaces.is_none()).then_some(user.password)
}

/// A partition's budget: its part of its keyspace's.
fn share(settings: &Settings) -> Option<usize> {
    let share = settings.memory / u64::from(settings.partitions.count());
    (settings.memory > 0).then(|| usize::try_from(share.max(1)).unwrap_or(usize::MAX))
}

/// The members that a group should have.
fn wanted(duty: &Duty) -> BTreeMap<ReplicaId, Role> {
    duty.members.iter().map(|&(_, id, role)| (id, role)).collect()
}

/// What a leader sees of its group.
fn report(replica: &Replica, duty: &Duty) -> Report {
    let last = replica.last().0;
    let learner = |&(_, id, role): &(NodeId, ReplicaId, Role)| {
        if role != Role::Learner {
            return None;
        }
        let done = replica.progress(id).map_or(0, |progress| {
            let matched = progress.matched.0;
            if progress.follows && matched + BEHIND_MAX >= last {
                DONE
            } else {
                let part = u128::from(matched) * u128::from(DONE) / u128::from(last.max(1));
                u16::try_from(part).unwrap_or(DONE).min(DONE - 1)
            }
        });
        Some(Learner { id, done })
    };
    let learners: Vec<Learner> = duty.members.iter().filter_map(learner).collect();
    let members = replica.members();
    let settled = !members.is_joint() && roles(members, &wanted(duty)).is_empty();
    Report { term: replica.term(), epoch: duty.epoch, settled, learners }
}

/// What was done about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steered {
    Nothing,
    Changed,
    HandedOver,
}

/// Whether leadership may be handed over.
#[derive(Clone, Copy, Debug)]
struct Handing {
    /// At all: not if it was just tried.
    now: bool,
    /// To whom the placement prefers.
    back: bool,
}

/// Gives a group that is led here the members that it should have, or the leader that it should have.
///
/// Members are changed only when it is known that the duty is no older than what an earlier leader may have followed: see
/// [`Mind::may_change`].
fn steer(
    now: Micros,
    replica: &mut Replica,
    (group, duty): (GroupId, &Duty),
    mind: &Mind,
    handing: Handing,
) -> Steered {
    if replica.members().is_joint() {
        return Steered::Nothing;
    }
    let wanted = wanted(duty);
    let change = roles(replica.members(), &wanted);
    let stays = wanted.get(&replica.id()) == Some(&Role::Voter);
    if !change.is_empty() && stays {
        if !mind.may_change(group, replica.term(), duty.epoch) && !is(Bug::ChangeUnconfirmed) {
            return Steered::Nothing;
        }
        return match replica.change(now, &change) {
            Ok(()) => Steered::Changed,
            // It is tried again with the next survey, or the state is about to name others.
            Err(
                ChangeError::NotYet | ChangeError::NotLeading | ChangeError::Used(_) | ChangeError::Unsound,
            ) => Steered::Nothing,
        };
    }
    let next = match stays {
        true if handing.back => preferred(replica, duty, mind),
        true => None,
        false => successor(replica, duty, mind),
    };
    // Two that are told to lead would divide the votes.
    let is_free = replica.handing_to().is_none_or(|to| Some(to) == next);
    match next {
        Some(next) if handing.now && is_free && replica.hand_over(now, next).is_ok() => Steered::HandedOver,
        Some(_) | None => Steered::Nothing,
    }
}

/// Whom the placement wants to lead, if that is another one that can.
fn preferred(replica: &Replica, duty: &Duty, mind: &Mind) -> Option<ReplicaId> {
    let &(node, id, role) = duty.members.first()?;
    (id != replica.id() && role == Role::Voter && can_lead(replica, node, id, mind)).then_some(id)
}

/// Whoever could lead instead of this replica: who has been told to, or else the nearest. Who of two is nearer changes with each
/// write, and both would ask for votes.
fn successor(replica: &Replica, duty: &Duty, mind: &Mind) -> Option<ReplicaId> {
    let able = duty.members.iter().filter(|&&(node, id, role)| {
        id != replica.id() && role == Role::Voter && can_lead(replica, node, id, mind)
    });
    let told = replica.handing_to();
    let matched = |id| replica.progress(id).map(|progress| progress.matched);
    able.map(|&(_, id, _)| id).max_by_key(|&id| (told == Some(id), matched(id)))
}

fn can_lead(replica: &Replica, node: NodeId, id: ReplicaId, mind: &Mind) -> bool {
    let near = |id| {
        let progress = replica.progress(id);
        progress.is_some_and(|it| it.follows && it.matched.0 + BEHIND_MAX >= replica.last().0)
    };
    mind.liveness(node) == Some(Liveness::Alive) && replica.members().voters().contains(&id) && near(id)
}
