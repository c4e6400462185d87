//! Why a request is refused: the thing, the reason, and the next step.

use alloc::string::String;
use core::fmt;

use kernel::{GroupId, KeyspaceId, NodeId, Version};
use placement::solve::COPIES_MAX;
use thiserror::Error;

use crate::mesh::Unsound;
use crate::state::{Name, Standing};
use crate::{ADDRESSES_MAX, MOVES_MAX, RIGHTS_KEYSPACES_MAX, VOTERS_MAX};

/// A table with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// [`crate::MEMBERS_MAX`].
    Members,
    /// [`crate::TOMBSTONES_MAX`].
    Tombstones,
    /// [`crate::SECRETS_MAX`].
    Secrets,
    /// [`crate::KEYSPACES_MAX`].
    Keyspaces,
    /// [`crate::PARTITIONS_MAX`].
    Partitions,
    /// [`crate::USERS_MAX`].
    Users,
    /// The numbers of replicas.
    Replicas,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::Members => "members, removed ones not counted",
            Table::Tombstones => "removed members",
            Table::Secrets => "join tokens that have not expired",
            Table::Keyspaces => "keyspaces",
            Table::Partitions => "partitions of all keyspaces",
            Table::Users => "users",
            Table::Replicas => "replica numbers",
        })
    }
}

/// A partition as people name it.
struct At(GroupId);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of keyspace {}", self.0.partition(), self.0.keyspace())
    }
}

/// Why a request changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[rustfmt::skip] // one line for each text
pub enum Refused {
    /// The same request was refused before, for this reason.
    #[error("{0}")]
    Before(String),
    /// Nothing can be asked before [`crate::Operation::CreateCluster`].
    #[error("there is no cluster yet: create one, or join one with a token")]
    NoCluster,
    /// Some members could not read it.
    #[error("this needs a cluster at version {needs}, and it is at {is} until every member speaks {needs} (`archipel cluster members` tells)")]
    NeedsVersion {
        /// What it needs.
        needs: Version,
        /// What the cluster is at.
        is: Version,
    },
    /// It never falls.
    #[error("the cluster is at version {0} already, and does not go back")]
    AtVersion(Version),
    /// It exists.
    #[error("the cluster exists already: join it with a token of `archipel cluster token`")]
    ClusterExists,
    /// A table is full.
    #[error("there are {limit} {table} already, which is the limit: remove one that is not needed")]
    Full {
        /// Which.
        table: Table,
        /// Its limit.
        limit: u64,
    },
    /// A member says where it listens.
    #[error("node {node} names {count} addresses: give 1 to {ADDRESSES_MAX}")]
    Addresses {
        /// Whose.
        node: NodeId,
        /// How many.
        count: usize,
    },
    /// The node was never let in.
    #[error("node {0} is no member of this cluster: `archipel cluster members` names them")]
    NotMember(NodeId),
    /// It was removed, and its replicas' numbers with it.
    #[error("node {0} was removed and its identity is never used again: start it with an empty data directory and a new token")]
    RemovedBefore(NodeId),
    /// It is a member.
    #[error("node {0} is a member already: nothing is to be done")]
    IsMember(NodeId),
    /// It is elsewhere in its life.
    #[error("node {node} is {standing} and must be {needed}: see `archipel cluster members`")]
    Standing {
        /// Who.
        node: NodeId,
        /// What it is.
        standing: Standing,
        /// What it must be.
        needed: &'static str,
    },
    /// No token has this id.
    #[error("this cluster has no such token: make one with `archipel cluster token`")]
    TokenUnknown,
    /// There is one with this id.
    #[error("the token exists already: draw another secret")]
    TokenExists,
    /// It was made for a shorter time.
    #[error("the token has expired: make one with `archipel cluster token`")]
    TokenExpired,
    /// It let another node in.
    #[error("the token was used by node {0}: make one for each node with `archipel cluster token`")]
    TokenUsed(NodeId),
    /// The secret is another one.
    #[error("the token's secret is not the one that was issued: copy the whole token")]
    TokenSecret,
    /// Nobody could keep the data.
    #[error("node {0} is the last active member: let another node join and become active first")]
    LastActive(NodeId),
    /// Without it the control group is lost.
    #[error("node {0} is the last voter of the control group: let another node join and vote first")]
    LastVoter(NodeId),
    /// It counts in the control group.
    #[error("node {0} votes in the control group: let it leave, and wait until another votes for it")]
    Votes(NodeId),
    /// Its data would be lost.
    #[error("node {node} holds the only copy of {}: let it leave, and wait until the copy has moved", At(*.group))]
    OnlyCopy {
        /// Who.
        node: NodeId,
        /// Of what.
        group: GroupId,
    },
    /// There would be fewer copies than promised.
    #[error("node {node} still holds {copies} copies of partitions: let it leave, and wait until they have moved")]
    HoldsCopies {
        /// Who.
        node: NodeId,
        /// How many.
        copies: usize,
    },
    /// Too few or too many.
    #[error("{0} voters of the control group are asked for: choose 1 to {VOTERS_MAX}")]
    VoterCount(usize),
    /// A majority could be lost.
    #[error("{coming} voters would come and {going} go: exchange one at a time")]
    VotersAtOnce {
        /// New ones.
        coming: usize,
        /// Old ones.
        going: usize,
    },
    /// No keyspace has this number.
    #[error("there is no keyspace {0}: create it first")]
    KeyspaceUnknown(KeyspaceId),
    /// One has it.
    #[error("keyspace {0} exists already: alter it, or choose another number")]
    KeyspaceExists(KeyspaceId),
    /// Another keyspace is called so.
    #[error("keyspace {keyspace} is called {name} already: choose another name")]
    NameTaken {
        /// What is asked for.
        name: Name,
        /// Whose it is.
        keyspace: KeyspaceId,
    },
    /// The confirmation is wrong.
    #[error("keyspace {keyspace} is called {is}, not {name}: name what is to be deleted")]
    OtherName {
        /// Which.
        keyspace: KeyspaceId,
        /// What it was called.
        name: Name,
        /// What it is called.
        is: Name,
    },
    /// What data rests on.
    #[error("the {what} of keyspace {keyspace} cannot be changed: create another keyspace and copy the data")]
    Fixed {
        /// Which.
        keyspace: KeyspaceId,
        /// `mode` or `number of partitions`.
        what: &'static str,
    },
    /// Too few or too many copies.
    #[error("{0} copies are asked for: choose 1 to {COPIES_MAX}")]
    Copies(u8),
    /// Planned for what is no more.
    #[error("the placement was planned for version {planned} and the cluster is at {is}: plan again")]
    OtherVersion {
        /// For which.
        planned: u64,
        /// Which it is.
        is: u64,
    },
    /// It names others than the partitions.
    #[error("the placement is of {given} partitions and keyspace {keyspace} has {has}: plan again")]
    PlacementCount {
        /// Which.
        keyspace: KeyspaceId,
        /// Given.
        given: usize,
        /// There are.
        has: usize,
    },
    /// A partition would have too few or too many copies.
    #[error("{} would have {copies} copies and {promised} are promised: plan again", At(*.group))]
    PlacementCopies {
        /// Which.
        group: GroupId,
        /// On different nodes.
        copies: usize,
        /// As far as there are members.
        promised: usize,
    },
    /// It does not exist.
    #[error("there is no {}: see `archipel cluster status`", At(*.0))]
    PartitionUnknown(GroupId),
    /// Nobody keeps it yet.
    #[error("nobody keeps {} yet: place its keyspace first", At(*.0))]
    NotPlaced(GroupId),
    /// Planned for what is no more.
    #[error("{} is at epoch {is}, not {planned}: plan again", At(*.group))]
    OtherEpoch {
        /// Which.
        group: GroupId,
        /// For which.
        planned: u64,
        /// Which it is.
        is: u64,
    },
    /// One at a time.
    #[error("{} is being moved: wait until that is done", At(*.0))]
    MoveUnderWay(GroupId),
    /// The network and the disks are for clients too.
    #[error("{MOVES_MAX} partitions are being moved: wait until one of them is done")]
    MovesAtOnce,
    /// There is none, or it is not so far.
    #[error("no move of {} is at a step that {needs}: plan again", At(*.group))]
    NoSuchMove {
        /// Which.
        group: GroupId,
        /// What the step needs.
        needs: &'static str,
    },
    /// It has one.
    #[error("node {node} has a copy of {} already: choose another node", At(*.group))]
    HasCopy {
        /// Who.
        node: NodeId,
        /// Of what.
        group: GroupId,
    },
    /// It has none.
    #[error("node {node} has no copy of {} that counts: choose one that has", At(*.group))]
    HasNoCopy {
        /// Who.
        node: NodeId,
        /// Of what.
        group: GroupId,
    },
    /// Fewer than promised.
    #[error("{} would keep {left} copies and {promised} are promised: add one first", At(*.group))]
    TooFewCopies {
        /// Of what.
        group: GroupId,
        /// Without it.
        left: usize,
        /// As far as there are members.
        promised: usize,
    },
    /// More than there may be.
    #[error("{} has {COPIES_MAX} copies already: drop one first", At(*.0))]
    TooManyCopies(GroupId),
    /// Nobody has this name.
    #[error("there is no user {0}: see the list of users")]
    UserUnknown(Name),
    /// Nobody could change the cluster.
    #[error("user {0} is the last one who may change the cluster: give another user that right first")]
    LastAdmin(Name),
    /// Somebody else was first.
    #[error("the proxies' settings are at revision {is}, not {after}: see what it says with `archipel mesh settings`, and ask again")]
    OtherRevision {
        /// What it was to follow.
        after: u64,
        /// What is in force.
        is: u64,
    },
    /// There never was one, or it is forgotten.
    #[error("revision {to} of the proxies' settings is not remembered: revisions {oldest} to {newest} are, and 0 is what each node's own file says")]
    RevisionUnknown {
        /// Which.
        to: u64,
        /// The first that is remembered.
        oldest: u64,
        /// The last.
        newest: u64,
    },
    /// They are none.
    #[error("{0}")]
    Mesh(Unsound),
    /// Too many.
    #[error("the rights of user {user} name {count} keyspaces: name at most {RIGHTS_KEYSPACES_MAX}")]
    Rights {
        /// Whose.
        user: Name,
        /// How many.
        count: usize,
    },
}
