//! What must hold among the replicas, whatever clients see.
//!
//! One leader in each term of a group; at each index all apply the same entry; at equal applied indexes all states are
//! equal; logs that agree on an entry agree on all before it.

use std::collections::BTreeMap;

use consensus::Replica;
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
}

impl Judge {
    /// A replica as it is between two turns of its node, with the entries of its log.
    ///
    /// # Errors
    /// Two lead in one term, or another entry was applied than elsewhere.
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
    }

    /// A node has no replica of a group any more.
    pub fn left(&mut self, node: usize, group: GroupId) {
        self.applied.remove(&(node, group));
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
