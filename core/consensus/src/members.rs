//! Who belongs to a group: replicas by numbers that are never used twice, and how they are exchanged.
//!
//! Numbers only grow: whoever is added has a number above every earlier one. So a number at or below the highest
//! that is no member *was* one, and a disk that lost its data comes back under a new number, never under its old.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;

use kernel::codec::{DecodeError, Reader, put_varint};
use kernel::{Index, Term};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use thiserror::Error;

/// Most members of one group, in any role.
pub const MEMBERS_MAX: usize = 1024;
/// Most replicas that one change exchanges.
pub const CHANGES_MAX: usize = 64;
/// The highest number, index and term that is believed: beyond it arithmetic could overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// One replica of one group, for ever: a wiped disk comes back with another number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(NonZeroU64);

impl ReplicaId {
    /// The replica with this number; 0 and numbers above [`NUMBER_MAX`] are none.
    #[must_use]
    pub const fn new(number: u64) -> Option<ReplicaId> {
        if number > NUMBER_MAX {
            return None;
        }
        match NonZeroU64::new(number) {
            Some(number) => Some(ReplicaId(number)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A life of a node: durable, one more at each start. What an earlier life sent does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It votes and its copies count.
    Voter,
    /// It gets the log and does not count.
    Learner,
    /// It is to be no member.
    Gone,
}

/// A change of the members, as the log carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Give these replicas these roles: the group is joint until it leaves (dissertation, 4.3).
    Enter(Vec<(ReplicaId, Role)>),
    /// The joint configuration ends; the old voters count no more.
    Leave,
}

/// Why members are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MembersError {
    /// Nobody votes.
    #[error("a group needs a voter")]
    NoVoter,
    /// A replica would have two roles.
    #[error("replica {0} has two roles")]
    TwoRoles(ReplicaId),
    /// A learner-to-be that is no voter of the old configuration.
    #[error("replica {0} is to become a learner and is no voter that leaves")]
    NotLeaving(ReplicaId),
    /// More members than [`MEMBERS_MAX`].
    #[error("{0} members of at most {MEMBERS_MAX}")]
    TooMany(usize),
    /// A member above the highest number ever given.
    #[error("replica {0} is above the highest number that was given")]
    AboveHighest(ReplicaId),
}

/// The members of a group at one index.
///
/// Invariant: at least one voter, one role each, numbers at most `highest`, and `staged` within `outgoing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    voters: BTreeSet<ReplicaId>,
    learners: BTreeSet<ReplicaId>,
    outgoing: BTreeSet<ReplicaId>,
    staged: BTreeSet<ReplicaId>,
    highest: ReplicaId,
}

impl Members {
    /// A configuration that is not joint.
    ///
    /// # Errors
    /// [`MembersError`] if there is no voter, a replica with two roles, or too many.
    pub fn new(
        voters: impl IntoIterator<Item = ReplicaId>,
        learners: impl IntoIterator<Item = ReplicaId>,
    ) -> Result<Members, MembersError> {
        let voters: BTreeSet<_> = voters.into_iter().collect();
        let learners: BTreeSet<_> = learners.into_iter().collect();
        let highest = voters.last().max(learners.last()).copied().ok_or(MembersError::NoVoter)?;
        Members { voters, learners, outgoing: BTreeSet::new(), staged: BTreeSet::new(), highest }.checked()
    }

    fn checked(self) -> Result<Members, MembersError> {
        let count = self.voters.len() + self.learners.len() + self.outgoing.len() + self.staged.len();
        if count > MEMBERS_MAX {
            return Err(MembersError::TooMany(count));
        }
        if self.voters.is_empty() {
            return Err(MembersError::NoVoter);
        }
        for &id in &self.learners {
            if self.voters.contains(&id) || self.outgoing.contains(&id) {
                return Err(MembersError::TwoRoles(id));
            }
        }
        for &id in &self.staged {
            if self.voters.contains(&id) {
                return Err(MembersError::TwoRoles(id));
            }
            if !self.outgoing.contains(&id) {
                return Err(MembersError::NotLeaving(id));
            }
        }
        match self.iter().max() {
            Some(id) if id > self.highest => Err(MembersError::AboveHighest(id)),
            _ => Ok(self),
        }
    }

    /// Who votes; in a joint configuration, in the new one.
    #[must_use]
    pub const fn voters(&self) -> &BTreeSet<ReplicaId> {
        &self.voters
    }

    /// Who learns.
    #[must_use]
    pub const fn learners(&self) -> &BTreeSet<ReplicaId> {
        &self.learners
    }

    /// Who votes in the old configuration, while two count; else empty.
    #[must_use]
    pub const fn outgoing(&self) -> &BTreeSet<ReplicaId> {
        &self.outgoing
    }

    /// Whether two configurations count.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The highest number that was ever given in this group: the next one is above it.
    #[must_use]
    pub const fn highest(&self) -> ReplicaId {
        self.highest
    }

    /// Whether `id` is a member in any role.
    #[must_use]
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` counts in elections.
    #[must_use]
    pub fn votes(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` was a member and is none any more.
    #[must_use]
    pub fn is_gone(&self, id: ReplicaId) -> bool {
        id <= self.highest && !self.contains(id)
    }

    /// All members, each once, in order.
    pub fn iter(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        let mut all: BTreeSet<ReplicaId> = self.voters.clone();
        all.extend(&self.learners);
        all.extend(&self.outgoing);
        all.into_iter()
    }

    /// Appends it in at most `10 * (members + 5)` bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.highest.get());
        for set in [&self.voters, &self.learners, &self.outgoing, &self.staged] {
            put_varint(out, set.len() as u64);
            for id in set {
                put_varint(out, id.get());
            }
        }
    }

    /// Reads what [`Members::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes end early or are no members; nothing is taken for more than [`MEMBERS_MAX`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Members, DecodeError> {
        let highest = read_id(reader)?;
        let mut set = || {
            let count = reader.len()?;
            if count > MEMBERS_MAX {
                return Err(DecodeError::Overflow);
            }
            let mut ids = BTreeSet::new();
            for _ in 0..count {
                if !ids.insert(read_id(reader)?) {
                    return Err(DecodeError::Invalid);
                }
            }
            Ok(ids)
        };
        let (voters, learners, outgoing, staged) = (set()?, set()?, set()?, set()?);
        let members = Members { voters, learners, outgoing, staged, highest };
        members.checked().map_err(|_| DecodeError::Invalid)
    }

    /// These members after the engine switched to `state`; whoever is new raises the highest number.
    pub(crate) fn follow(&self, state: &ConfState) -> Members {
        let set = |ids: &[u64]| ids.iter().filter_map(|&id| ReplicaId::new(id)).collect::<BTreeSet<_>>();
        let mut members = Members {
            voters: set(&state.voters),
            learners: set(&state.learners),
            outgoing: set(&state.voters_outgoing),
            staged: set(&state.learners_next),
            highest: self.highest,
        };
        members.highest = members.iter().max().map_or(self.highest, |id| id.max(self.highest));
        members
    }

    pub(crate) fn to_engine(&self) -> ConfState {
        let list = |set: &BTreeSet<ReplicaId>| set.iter().map(|id| id.get()).collect::<Vec<_>>();
        let mut state = ConfState::default();
        state.set_voters(list(&self.voters));
        state.set_learners(list(&self.learners));
        state.set_voters_outgoing(list(&self.outgoing));
        state.set_learners_next(list(&self.staged));
        state
    }
}

impl Change {
    /// Appends it; never empty, so that a change is never taken for an empty entry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Change::Leave => out.push(0),
            Change::Enter(roles) => {
                out.push(1);
                put_varint(out, roles.len() as u64);
                for (id, role) in roles {
                    put_varint(out, id.get());
                    out.push(match role {
                        Role::Voter => 0,
                        Role::Learner => 1,
                        Role::Gone => 2,
                    });
                }
            }
        }
    }

    /// Reads what [`Change::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no change, or one of more than [`CHANGES_MAX`] replicas.
    pub fn decode(bytes: &[u8]) -> Result<Change, DecodeError> {
        let mut reader = Reader::new(bytes);
        let change = match reader.u8()? {
            0 => Change::Leave,
            1 => {
                let count = reader.len()?;
                if count == 0 || count > CHANGES_MAX {
                    return Err(DecodeError::Overflow);
                }
                let mut roles = Vec::with_capacity(count);
                for _ in 0..count {
                    let id = read_id(&mut reader)?;
                    let role = match reader.u8()? {
                        0 => Role::Voter,
                        1 => Role::Learner,
                        2 => Role::Gone,
                        _ => return Err(DecodeError::Invalid),
                    };
                    roles.push((id, role));
                }
                Change::Enter(roles)
            }
            _ => return Err(DecodeError::Invalid),
        };
        if reader.is_empty() { Ok(change) } else { Err(DecodeError::Invalid) }
    }

    /// The engine's word for it. Always joint and left by a change of our own, never by the engine.
    pub(crate) fn to_engine(&self) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        if let Change::Enter(roles) = self {
            change.set_transition(ConfChangeTransition::Explicit);
            let singles: Vec<ConfChangeSingle> = roles.iter().map(|&(id, role)| single(id, role)).collect();
            change.set_changes(singles.into());
        }
        change
    }
}

pub(crate) fn single(id: ReplicaId, role: Role) -> ConfChangeSingle {
    let mut single = ConfChangeSingle { node_id: id.get(), ..ConfChangeSingle::default() };
    single.set_change_type(match role {
        Role::Voter => ConfChangeType::AddNode,
        Role::Learner => ConfChangeType::AddLearnerNode,
        Role::Gone => ConfChangeType::RemoveNode,
    });
    single
}

/// What a checkpoint of a group's state must say of the group, in the same atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last applied index.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The members after it.
    pub members: Members,
}

impl Mark {
    /// The beginning of a new group, the same on all its first members. It stands in for a first entry, so that a
    /// replica that was not there is behind it and gets a snapshot that tells it the members.
    #[must_use]
    pub const fn first(members: Members) -> Mark {
        Mark { index: Index(1), term: Term(1), members }
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.index.0);
        put_varint(out, self.term.0);
        self.members.encode(out);
    }

    /// Reads what [`Mark::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is none, or its index or term is 0.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Mark, DecodeError> {
        let (index, term) = (read_number(reader)?, read_number(reader)?);
        if index == 0 || term == 0 {
            return Err(DecodeError::Invalid);
        }
        Ok(Mark { index: Index(index), term: Term(term), members: Members::decode(reader)? })
    }
}

/// A number of at most [`NUMBER_MAX`].
pub(crate) fn read_number(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match reader.varint()? {
        number if number <= NUMBER_MAX => Ok(number),
        _ => Err(DecodeError::Overflow),
    }
}

pub(crate) fn read_id(reader: &mut Reader<'_>) -> Result<ReplicaId, DecodeError> {
    ReplicaId::new(reader.varint()?).ok_or(DecodeError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<ReplicaId> {
        numbers.iter().filter_map(|&number| ReplicaId::new(number)).collect()
    }

    #[test]
    fn members_without_voters_or_with_two_roles_cannot_be_had() {
        assert_eq!(Members::new(ids(&[]), ids(&[1])), Err(MembersError::NoVoter));
        assert_eq!(Members::new(ids(&[1, 2]), ids(&[2])), Err(MembersError::TwoRoles(ids(&[2])[0])));
    }

    #[test]
    fn a_number_below_the_highest_that_is_no_member_is_gone() {
        let members = Members::new(ids(&[1, 4]), ids(&[6])).expect("sound");
        let gone: Vec<u64> = (1..9).filter(|&n| members.is_gone(ids(&[n])[0])).collect();
        assert_eq!(gone, [2, 3, 5]);
    }

    #[test]
    fn a_mark_and_a_change_read_back() {
        let mark = Mark::first(Members::new(ids(&[1, 2, 3]), ids(&[9])).expect("sound"));
        let mut bytes = Vec::new();
        mark.encode(&mut bytes);
        assert_eq!(Mark::decode(&mut Reader::new(&bytes)), Ok(mark));
        let enter = Change::Enter(vec![(ids(&[3])[0], Role::Gone), (ids(&[4])[0], Role::Voter)]);
        for change in [Change::Leave, enter] {
            let mut bytes = Vec::new();
            change.encode(&mut bytes);
            assert_eq!(Change::decode(&bytes), Ok(change));
        }
    }
}
