//! What a stopped member's directory has, and what can be missing: for the operator who decides.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use consensus::replay::Restored;
use consensus::{Durability, Role};
use control::State;
use disk::engine::Mark;
use kernel::{ClusterId, GroupId, Millis, NodeId, PeerId};
use storage::Store;
use storage::store::checkpoint::Frame;

use super::{SurvivorError, unreadable};

/// How long another member may take to answer, in milliseconds.
const ANSWER_MILLIS: u64 = 1_000;

/// What a stopped member's directory has, before anything is changed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The cluster that it was in.
    pub cluster: ClusterId,
    /// Who it is.
    pub node: PeerId,
    /// The version of the cluster's state that it has.
    pub version: u64,
    /// The other members, as far as it knows.
    pub others: Vec<Other>,
    /// Every partition of the cluster, in order.
    pub partitions: Vec<FoundPartition>,
    /// An earlier recovery was interrupted, and this goes on with it.
    pub begun_before: bool,
}

/// Another member.
#[derive(Clone, Debug)]
pub struct Other {
    /// Who.
    pub node: PeerId,
    /// Whether it votes in the control group.
    pub votes: bool,
    /// Where it was.
    pub addresses: Vec<SocketAddr>,
    /// Whether somebody listens there now.
    pub answers: bool,
}

/// What there is of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    /// Its keyspace.
    pub keyspace: u16,
    /// Its number there.
    pub partition: u16,
    /// This node's copy.
    pub copy: Option<FoundCopy>,
}

/// A copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCopy {
    /// The entry up to which the last checkpoint has it.
    pub checkpoint: u64,
    /// The last entry, that of the log included.
    pub last: u64,
    /// The term of that.
    pub term: u64,
    /// When the last write was made, in milliseconds since 1970; 0 if there is none.
    pub at_ms: u64,
    /// What can be missing behind it.
    pub lacks: Lacks,
}

/// What a copy may lack of what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// Nothing: no majority could be without it, and its log is whole.
    Nothing,
    /// What a majority without this node acknowledged after the last entry here.
    Others,
    /// Besides, what this node itself acknowledged in the last second of its life and had not synced.
    OwnTail,
    /// It was being made, or had been let go: whatever came after that.
    Outside,
}

impl Lacks {
    /// For people and scripts.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Lacks::Nothing => "nothing",
            Lacks::Others => "what the others acknowledged without this node",
            Lacks::OwnTail => "what the others acknowledged without this node, and its own last second",
            Lacks::Outside => "the copy did not count: anything newer than its last entry",
        }
    }
}

pub(super) fn others(state: &State, own: NodeId) -> Vec<Other> {
    let present = state.members().iter().filter(|(node, member)| **node != own && member.is_present());
    let wait = Duration::from_millis(ANSWER_MILLIS);
    let answers = |address: &SocketAddr| TcpStream::connect_timeout(address, wait).is_ok();
    let other = |(&node, member): (&NodeId, &control::Member)| Other {
        node: PeerId(node),
        votes: member.role == Role::Voter,
        addresses: member.addresses.clone(),
        answers: member.addresses.iter().any(answers),
    };
    present.map(other).collect()
}

pub(super) fn partitions(
    state: &State,
    own: NodeId,
    copies: &BTreeMap<GroupId, (Mark, Restored)>,
    complete: bool,
) -> Result<Vec<FoundPartition>, SurvivorError> {
    let mut all = Vec::new();
    for (group, partition) in state.partitions() {
        let mut copy = None;
        if let Some((mark, past)) = copies.get(&group) {
            let everysec = state
                .keyspaces()
                .get(&group.keyspace())
                .is_some_and(|space| space.settings.durability == Durability::EverySec);
            let last = past.entries.last().filter(|last| last.index() > mark.index);
            copy = Some(FoundCopy {
                checkpoint: mark.index.0,
                last: last.map_or(mark.index, consensus::Logged::index).0,
                term: last.map_or(mark.term, consensus::Logged::term).0,
                at_ms: last_write(group, mark, past)?.0,
                lacks: lacks(
                    (partition.replicas.len(), partition.replica(own).is_some()),
                    everysec && !complete,
                ),
            });
        }
        all.push(FoundPartition { keyspace: group.keyspace().0, partition: group.partition(), copy });
    }
    Ok(all)
}

/// What can be missing of a partition with so many copies that count, among which this node's is or not, and whose log
/// may have lost its end.
const fn lacks((voters, counts): (usize, bool), torn: bool) -> Lacks {
    if !counts {
        return Lacks::Outside;
    }
    match (torn, voters - 1 > voters / 2) {
        (true, _) => Lacks::OwnTail,
        (false, true) => Lacks::Others,
        (false, false) => Lacks::Nothing,
    }
}

/// The group's time at its last command.
fn last_write(group: GroupId, mark: &Mark, past: &Restored) -> Result<Millis, SurvivorError> {
    if let Some(entry) = past.entries.iter().rev().find(|entry| entry.semantics() != 0) {
        return Ok(entry.time().millis());
    }
    let (index, generation, objects) = (mark.index, mark.generation, mark.objects);
    let frame = Frame { index, generation, objects, state: mark.state.clone() };
    let store = Store::restore(0, &frame).map_err(unreadable(format!("the checkpoint of group {group}")))?;
    Ok(store.time().millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_copy_may_lack_follows_from_who_could_agree_without_it() {
        #[rustfmt::skip] // columns
        let table = [
            // voters, counts  torn   lacks
            ((1, true),        false, Lacks::Nothing),
            ((2, true),        false, Lacks::Nothing), // none of two is a majority
            ((3, true),        false, Lacks::Others),
            ((4, true),        false, Lacks::Others),
            ((3, true),        true,  Lacks::OwnTail),
            ((1, true),        true,  Lacks::OwnTail),
            ((3, false),       false, Lacks::Outside),
            ((0, false),       false, Lacks::Outside),
        ];
        for (copies, torn, expected) in table {
            assert_eq!(lacks(copies, torn), expected, "{copies:?} {torn}");
        }
    }
}
