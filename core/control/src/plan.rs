//! What should be asked next, so that the cluster becomes what its state and its members' health call for.
//!
//! Pure functions of a state and what the host sees. Whoever leads the control group asks for what [`next`] says, and
//! asks again when something changed: every operation is safe by itself, so nothing is lost when the leader is.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use consensus::{ReplicaId, Role};
use kernel::{GroupId, KeyspaceId, NodeId, Version};
use placement::solve::{Problem, Site, SolveError, Zone, solve};

use crate::operation::{Operation, Step};
use crate::state::{Keyspace, Move, Name, Partition, Standing, State};
use crate::{CONTROL, MOVES_MAX, VOTERS_MAX};

/// What the host sees. What is not said is not so: an empty view asks for nothing unsafe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Members that have not answered for so long that their copies are to be made elsewhere.
    pub down: BTreeSet<NodeId>,
    /// Learners that have what their group has, the control group's too.
    pub caught_up: BTreeSet<ReplicaId>,
    /// Groups whose members in effect are those that the state names.
    pub settled: BTreeSet<GroupId>,
    /// The newest version that all members were heard to speak.
    pub spoken: Version,
}

/// How much is left of a rebalancing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Moves under way.
    pub moving: usize,
    /// Copies that are to be made and do not count yet.
    pub missing: usize,
    /// Copies that are to go.
    pub surplus: usize,
}

impl Progress {
    /// Of one partition.
    #[must_use]
    pub fn of(partition: &Partition) -> Progress {
        Progress {
            moving: usize::from(partition.moving.is_some()),
            missing: missing(partition).count(),
            surplus: surplus(partition).count(),
        }
    }

    /// Of all partitions together.
    #[must_use]
    pub fn total(state: &State) -> Progress {
        state.partitions().map(|(_, partition)| Progress::of(partition)).fold(
            Progress::default(),
            |sum, one| Progress {
                moving: sum.moving + one.moving,
                missing: sum.missing + one.missing,
                surplus: sum.surplus + one.surplus,
            },
        )
    }

    /// Whether every partition is where it is wanted.
    #[must_use]
    pub fn is_done(self) -> bool {
        self == Progress::default()
    }
}

/// What to ask for now. Empty when all is as it should be, or nothing can be done before the view changes.
///
/// Placements count on the version, so at most one is asked for, and alone.
///
/// # Errors
/// [`SolveError`] if there are more members than can be placed on.
pub fn next(state: &State, view: &View) -> Result<Vec<Operation>, SolveError> {
    if state.cluster().is_none() {
        return Ok(Vec::new());
    }
    if view.spoken > state.speaks() {
        return Ok(Vec::from([Operation::Raise { to: view.spoken }]));
    }
    let members = members(state, view);
    if !members.is_empty() {
        return Ok(members);
    }
    match placement(state, view)? {
        Some(place) => Ok(Vec::from([place])),
        None => Ok(steps(state, view)),
    }
}

/// Which members should vote in the control group: an odd number up to [`VOTERS_MAX`] (both of two), spread over zones,
/// who answers before who does not, who votes before who does not.
#[must_use]
pub fn voters(state: &State, view: &View) -> BTreeSet<NodeId> {
    let mut rest: BTreeMap<NodeId, (&Name, bool)> =
        state.active().map(|(node, member)| (node, (&member.zone, member.role == Role::Voter))).collect();
    let count = match rest.len() {
        few @ 0..=2 => few,
        many => (many - (many + 1) % 2).min(VOTERS_MAX),
    };
    let (mut chosen, mut zones) = (BTreeSet::new(), BTreeMap::<&Name, usize>::new());
    for _ in 0..count {
        let rank = |(node, (zone, votes)): &(&NodeId, &(&Name, bool))| {
            (view.down.contains(*node), zones.get(*zone).copied().unwrap_or(0), !votes, **node)
        };
        let Some((&node, &(zone, _))) = rest.iter().min_by_key(rank) else { break };
        rest.remove(&node);
        chosen.insert(node);
        *zones.entry(zone).or_default() += 1;
    }
    chosen
}

/// What is to be done about members: who has joined is activated, who has left is removed, who should vote votes.
fn members(state: &State, view: &View) -> Vec<Operation> {
    if !view.settled.contains(&CONTROL) {
        return Vec::new();
    }
    let up = |node: &NodeId, replica| !view.down.contains(node) && view.caught_up.contains(&replica);
    let mut asked: Vec<Operation> = Vec::new();
    for (&node, member) in state.members() {
        match member.standing {
            Standing::Joining if up(&node, member.replica) => asked.push(Operation::Activate { node }),
            Standing::Leaving if member.role == Role::Learner && state.kept_by(node).next().is_none() => {
                asked.push(Operation::Remove { node });
            }
            Standing::Joining | Standing::Active | Standing::Leaving | Standing::Removed { .. } => {}
        }
    }
    if !asked.is_empty() {
        return asked;
    }
    let (now, wanted) = (state.voters(), voters(state, view));
    let ready = |node: &&NodeId| state.members().get(*node).is_some_and(|member| up(node, member.replica));
    let (coming, going) = (wanted.difference(&now).find(ready), now.difference(&wanted).next());
    let mut next = now.clone();
    next.extend(coming);
    // Without somebody who comes, a voter goes only if those who stay are as many as are wanted.
    if let Some(node) = going.filter(|_| coming.is_some() || now.len() > wanted.len()) {
        next.remove(node);
    }
    if next == now { asked } else { Vec::from([Operation::SetVoters { voters: next }]) }
}

/// A placement that is to be asked for: of the first keyspace whose wanted nodes are not what the solver says.
///
/// Nodes that are down are not placed on, unless those that are up are too few for the promised copies: then nothing
/// is won by moving, and the copies stay where they are. Leaders alone are no reason: they stay where they were put.
///
/// # Errors
/// [`SolveError`].
pub fn placement(state: &State, view: &View) -> Result<Option<Operation>, SolveError> {
    let zones: BTreeSet<&Name> = state.active().map(|(_, member)| &member.zone).collect();
    let zones: BTreeMap<&Name, u16> = zones.into_iter().zip(0..).collect();
    let (all, all_led) = (sum(state, load_of), sum(state, led_of));
    for (&keyspace, space) in state.keyspaces() {
        let (own, own_led) = (load_of(space), led_of(space));
        let site = |(node, zone): (NodeId, &Name)| {
            let others = |all: &BTreeMap<NodeId, u32>, own: &BTreeMap<NodeId, u32>| {
                let count = |of: &BTreeMap<NodeId, u32>| of.get(&node).copied().unwrap_or(0);
                count(all).saturating_sub(count(own))
            };
            let zone = Zone(zones.get(zone).copied().unwrap_or(0));
            Site { node, zone, load: others(&all, &own), leads: others(&all_led, &own_led) }
        };
        let active = || state.active().map(|(node, member)| (node, &member.zone));
        let mut sites: Vec<Site<NodeId>> =
            active().filter(|(node, _)| !view.down.contains(node)).map(site).collect();
        if sites.len() < state.promised(space.settings.copies) {
            sites = active().map(site).collect();
        }
        if let Some(place) = place(state, keyspace, space, &sites)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn place(
    state: &State,
    keyspace: KeyspaceId,
    space: &Keyspace,
    sites: &[Site<NodeId>],
) -> Result<Option<Operation>, SolveError> {
    let can: BTreeSet<NodeId> = sites.iter().map(|site| site.node).collect();
    // What was wished for counts as done, so that a placement half-way is not planned anew.
    let current: Vec<Vec<NodeId>> = (space.partitions.iter())
        .map(|partition| match partition.wanted.iter().all(|node| can.contains(node)) {
            true => partition.wanted.clone(),
            false => partition.replicas.iter().map(|replica| replica.node).collect(),
        })
        .collect();
    let problem = Problem { sites, copies: usize::from(space.settings.copies), current: &current };
    let wanted = solve(&problem)?;
    let same = |(partition, nodes): (&Partition, &Vec<NodeId>)| {
        partition.wanted.len() == nodes.len() && nodes.iter().all(|node| partition.wanted.contains(node))
    };
    let done = space.partitions.iter().zip(&wanted).all(same);
    Ok((!done).then(|| Operation::Place { keyspace, version: state.version(), wanted }))
}

/// Copies of a keyspace's partitions that each node is to have.
fn load_of(space: &Keyspace) -> BTreeMap<NodeId, u32> {
    counts(space.partitions.iter().flat_map(|partition| &partition.wanted))
}

/// Partitions of a keyspace that each node is to lead.
fn led_of(space: &Keyspace) -> BTreeMap<NodeId, u32> {
    counts(space.partitions.iter().filter_map(|partition| partition.wanted.first()))
}

fn counts<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    nodes.for_each(|node| *counts.entry(*node).or_default() += 1);
    counts
}

/// What `of` counts, of all keyspaces together.
fn sum(state: &State, of: impl Fn(&Keyspace) -> BTreeMap<NodeId, u32>) -> BTreeMap<NodeId, u32> {
    let mut sum: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (node, more) in state.keyspaces().values().flat_map(of) {
        *sum.entry(node).or_default() += more;
    }
    sum
}

/// The steps that can be taken now, at most one for each partition and [`MOVES_MAX`] moves at once.
#[must_use]
pub fn steps(state: &State, view: &View) -> Vec<Operation> {
    let mut free = MOVES_MAX.saturating_sub(Progress::total(state).moving);
    let mut asked = Vec::new();
    for (group, partition) in state.partitions() {
        let step = match partition.moving {
            Some(moving) => go_on(state, view, group, partition, moving),
            None if free > 0 && view.settled.contains(&group) => {
                let step = begin(state, view, group, partition);
                free -= usize::from(step.is_some());
                step
            }
            None => None,
        };
        asked.extend(step.map(|step| Operation::Step { group, epoch: partition.epoch, step }));
    }
    asked
}

fn missing(partition: &Partition) -> impl Iterator<Item = NodeId> + '_ {
    partition.wanted.iter().copied().filter(|&node| partition.replica(node).is_none())
}

fn surplus(partition: &Partition) -> impl Iterator<Item = NodeId> + '_ {
    partition.replicas.iter().map(|replica| replica.node).filter(|node| !partition.wanted.contains(node))
}

/// Whether a copy may be made at `node` now.
fn can_learn(state: &State, view: &View, node: NodeId) -> bool {
    let active = state.members().get(&node).is_some_and(|member| member.standing == Standing::Active);
    active && !view.down.contains(&node)
}

fn begin(state: &State, view: &View, group: GroupId, partition: &Partition) -> Option<Step> {
    // Who does not answer goes first: its copy is worth least.
    let old = surplus(partition).min_by_key(|node| (!view.down.contains(node), *node));
    match (missing(partition).find(|&node| can_learn(state, view, node)), old) {
        (Some(new), old) => Some(Step::Add { new, old }),
        (None, Some(old)) if missing(partition).next().is_none() => {
            state.may_go(group, partition, old).is_ok().then_some(Step::Drop { old })
        }
        (None, _) => None,
    }
}

fn go_on(state: &State, view: &View, group: GroupId, partition: &Partition, moving: Move) -> Option<Step> {
    let settled = view.settled.contains(&group);
    match moving {
        Move::Learning { new, .. }
            if !partition.wanted.contains(&new.node) || !can_learn(state, view, new.node) =>
        {
            Some(Step::Abort)
        }
        Move::Learning { new, .. } => (settled && view.caught_up.contains(&new.id)).then_some(Step::Promote),
        Move::Removing { old }
            if partition.wanted.contains(&old) || state.may_go(group, partition, old).is_err() =>
        {
            Some(Step::Abort)
        }
        Move::Removing { .. } => settled.then_some(Step::Finish),
        Move::Releasing { .. } => settled.then_some(Step::Forget),
    }
}
