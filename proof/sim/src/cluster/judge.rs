//! What must hold among the replicas, whatever clients see.
//!
//! One leader in each term of a group; at each index all apply the same entry; at equal applied indexes all states are
//! equal; logs that agree on an entry agree on all before it; an entry is synced by a majority before anybody applies it.

use std::collections::{BTreeMap, VecDeque};

use consensus::{Members, Replica, ReplicaId};
use kernel::{GroupId, Index, Term};

use crate::cluster::host::{Entries, Found};

/// What is known of the groups.
#[derive(Default)]
pub struct Judge {
    leaders: BTreeMap<(GroupId, u64), usize>,
    agreed: BTreeMap<(GroupId, u64), (Found, usize)>,
    digests: BTreeMap<(GroupId, u64), (u64, usize)>,
    /// How far each node has applied each group.
    applied: BTreeMap<(usize, GroupId), u64>,
    /// Up to which entry with commands anybody ever has.
    highest: BTreeMap<GroupId, u64>,
    /// Terms of entries that were said to be final.
    marked: BTreeMap<(GroupId, u64), u64>,
    synced: Synced,
    /// Which node has, or had, a replica.
    nodes: BTreeMap<(GroupId, ReplicaId), usize>,
    /// Who were members last, as whoever was first to apply it says.
    formations: BTreeMap<GroupId, Formations>,
}

/// The last configurations of a group, the newest last.
#[derive(Default)]
struct Formations {
    last: VecDeque<Members>,
    /// The entry after which the newest was seen.
    at: u64,
}

impl Formations {
    /// Those that can decide on one entry. A leader counts with the members that it has applied: its disk may be so slow
    /// that others apply a change of them before it does. It begins no change before it has applied the last, and one
    /// that is elected may have the two halves of a change, entered and left, in its log and not applied.
    const DECIDE: usize = 3;

    fn add(&mut self, applied: u64, members: &Members) {
        if applied < self.at || self.last.back() == Some(members) {
            return;
        }
        self.at = applied;
        self.last.push_back(members.clone());
        if self.last.len() > Self::DECIDE {
            self.last.pop_front();
        }
    }
}

/// What nodes have, or had, on disk for good.
#[derive(Default)]
struct Synced {
    /// For each entry by its term the nodes that have synced it, a bit each.
    entries: BTreeMap<(GroupId, u64, u64), u32>,
    /// Up to which entry a node's state, durable as a whole, has all.
    states: BTreeMap<(usize, GroupId), u64>,
}

impl Synced {
    fn has(&self, node: usize, group: GroupId, index: u64, term: u64) -> bool {
        let nodes = self.entries.get(&(group, index, term)).copied().unwrap_or_default();
        nodes >> node & 1 == 1 || self.states.get(&(node, group)).is_some_and(|&state| state >= index)
    }
}

impl Judge {
    /// A replica as it is between two turns of its node, with the entries of its log.
    ///
    /// # Errors
    /// Two lead in one term, another entry was applied than elsewhere, or one that no majority has synced.
    pub fn look(
        &mut self,
        node: usize,
        group: GroupId,
        replica: &Replica,
        entries: &Entries,
        applied: Index,
    ) -> Result<bool, String> {
        if replica.leads() {
            let term = replica.term().0;
            let first = *self.leaders.entry((group, term)).or_insert(node);
            if first != node {
                return Err(format!("nodes {first} and {node} both lead group {group} in term {term}"));
            }
        }
        self.nodes.insert((group, replica.id()), node);
        self.formations.entry(group).or_default().add(applied.0, replica.members());
        let before = self.applied.insert((node, group), applied.0);
        if before == Some(applied.0) {
            return Ok(false);
        }
        for index in before.map_or(applied.0, |before| before + 1)..=applied.0 {
            let Some(found) = entries.get(&index) else { continue };
            self.same_term(group, index, found.0)?;
            // What a group says to itself has no time, and is not held.
            if found.1 > 0 {
                let highest = self.highest.entry(group).or_default();
                *highest = index.max(*highest);
            }
            if !self.agreed.contains_key(&(group, index)) && !self.decided(group, index, found.0) {
                return Err(format!(
                    "node {node} applied {group}:{index} of term {}, which no majority has synced",
                    found.0
                ));
            }
            let (agreed, first) = self.agreed.entry((group, index)).or_insert_with(|| (found.clone(), node));
            if agreed != found {
                let (term, other) = (found.0, agreed.0);
                return Err(format!(
                    "node {node} applied an entry of term {term} at {group}:{index}, and node {first} one of {other}"
                ));
            }
        }
        Ok(true)
    }

    /// Whether one of the configurations that can decide on the entry has it on the disks of a majority.
    fn decided(&self, group: GroupId, index: u64, term: u64) -> bool {
        let mut last = self.formations.get(&group).into_iter().flat_map(|formations| &formations.last);
        last.any(|members| self.majority_has(members, group, index, term))
    }

    /// Whether a majority of the members, of both sets while they change, has an entry on disk.
    fn majority_has(&self, members: &Members, group: GroupId, index: u64, term: u64) -> bool {
        let has = |id: &&ReplicaId| {
            let node = self.nodes.get(&(group, **id));
            node.is_some_and(|&node| self.synced.has(node, group, index, term))
        };
        let sets = [members.voters(), members.outgoing()].into_iter().filter(|set| !set.is_empty());
        sets.into_iter().all(|set| set.iter().filter(has).count() * 2 > set.len())
    }

    /// A node has synced an entry.
    pub fn synced(&mut self, node: usize, group: GroupId, index: u64, term: u64) {
        *self.synced.entries.entry((group, index, term)).or_default() |= 1 << node;
    }

    /// The last entry with commands that anybody has ever applied of the group.
    pub fn highest(&self, group: GroupId) -> u64 {
        self.highest.get(&group).copied().unwrap_or_default()
    }

    /// An entry was said to be final.
    ///
    /// # Errors
    /// Another was applied there.
    pub fn marked(&mut self, group: GroupId, index: Index, term: Term) -> Result<(), String> {
        self.marked.insert((group, index.0), term.0);
        match self.agreed.get(&(group, index.0)) {
            Some(&((agreed, ..), _)) => self.same_term(group, index.0, agreed),
            None => Ok(()),
        }
    }

    fn same_term(&self, group: GroupId, index: u64, term: u64) -> Result<(), String> {
        match self.marked.get(&(group, index)) {
            Some(&marked) if marked != term => Err(format!(
                "{group}:{index} was marked with term {marked}, and the entry there is of term {term}"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// A node's state at an applied index.
    ///
    /// # Errors
    /// It differs from another's at the same.
    pub fn state(&mut self, node: usize, group: GroupId, applied: Index, digest: u64) -> Result<(), String> {
        let (first, other) = *self.digests.entry((group, applied.0)).or_insert((digest, node));
        if first == digest {
            return Ok(());
        }
        Err(format!("at {group}:{applied} the states of nodes {other} and {node} differ"))
    }

    /// A state was exchanged for a snapshot, or the node began anew: what its log has below is not what it applied.
    pub fn begins(&mut self, node: usize, group: GroupId, applied: Index) {
        self.applied.insert((node, group), applied.0);
        let state = self.synced.states.entry((node, group)).or_default();
        *state = applied.0.max(*state);
    }

    /// A node has no replica of a group any more.
    pub fn left(&mut self, node: usize, group: GroupId) {
        self.applied.remove(&(node, group));
        self.synced.states.remove(&(node, group));
    }

    /// A process is gone.
    pub fn gone(&mut self, node: usize) {
        self.applied.retain(|&(other, _), _| other != node);
    }
}

/// Compares the logs of a group's replicas with each other.
///
/// # Errors
/// Two of them agree on an entry, and not on one before it.
pub fn logs_match(group: GroupId, replicas: &[&Replica]) -> Result<(), String> {
    for (at, one) in replicas.iter().enumerate() {
        for other in &replicas[..at] {
            let mut matches = false;
            for index in (1..=one.last().min(other.last()).0).rev() {
                let terms = (one.term_at(Index(index)), other.term_at(Index(index)));
                let (Some(own), Some(theirs)) = terms else { break };
                if matches && own != theirs {
                    let (id, other) = (one.id(), other.id());
                    return Err(format!(
                        "the logs of {id:?} and {other:?} agree above {group}:{index} and have terms {own} and {theirs} there"
                    ));
                }
                matches |= own == theirs;
            }
        }
    }
    Ok(())
}
