//! What can be asked of the cluster.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use kernel::{ClusterId, GroupId, KeyspaceId, Millis, NodeId, TokenId, Version};

use crate::mesh::MeshSettings;
use crate::state::{Name, Settings, User};

/// One request, for ever: drawn by who asks, and kept in retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(pub [u8; 16]);

/// An operation, and who asks for it. This is an entry of the control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which request. One that is asked again gets the same answer and changes nothing, as long as it is among the
    /// last [`crate::AUDIT_MAX`].
    pub id: OperationId,
    /// Who asks.
    pub by: Name,
    /// When, by the clock of who proposes.
    pub at: Millis,
    /// What.
    pub operation: Operation,
}

/// A change of the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes the cluster, with its first member, which votes.
    CreateCluster {
        /// The cluster's identity.
        cluster: ClusterId,
        /// The first member.
        node: NodeId,
        /// Its zone.
        zone: Name,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// Lets one node in until `expires`.
    IssueToken {
        /// Which token.
        token: TokenId,
        /// SHA-256 of its secret.
        hash: [u8; 32],
        /// Until when.
        expires: Millis,
    },
    /// Takes a token back.
    RevokeToken {
        /// Which token.
        token: TokenId,
    },
    /// Consumes a token whose secret a newcomer has proven to the asking member.
    Admit {
        /// Which token.
        token: TokenId,
        /// SHA-256 of the secret that was proven.
        hash: [u8; 32],
        /// The newcomer.
        node: NodeId,
        /// Its zone.
        zone: Name,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// A joining member is up to date; or one that leaves stays.
    Activate {
        /// Who.
        node: NodeId,
    },
    /// Its partitions are to move away.
    Leave {
        /// Who.
        node: NodeId,
    },
    /// It is a member no more, for ever. It must have no copy and no vote left.
    Remove {
        /// Who.
        node: NodeId,
    },
    /// A member is elsewhere.
    SetMember {
        /// Who.
        node: NodeId,
        /// Its zone.
        zone: Name,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// Who votes in the control group: at most one voter comes and one goes at a time.
    SetVoters {
        /// All of them.
        voters: BTreeSet<NodeId>,
    },
    /// Makes a keyspace, without anybody who keeps it.
    CreateKeyspace {
        /// Its number.
        keyspace: KeyspaceId,
        /// What it is.
        settings: Settings,
    },
    /// Changes a keyspace. Mode and partitions stay.
    AlterKeyspace {
        /// Its number.
        keyspace: KeyspaceId,
        /// What it should be.
        settings: Settings,
    },
    /// Deletes a keyspace and its data.
    DropKeyspace {
        /// Its number.
        keyspace: KeyspaceId,
        /// Its name, to be sure.
        name: Name,
    },
    /// Who should keep each partition: what [`placement::solve`] said of the state at `version`.
    Place {
        /// Which keyspace.
        keyspace: KeyspaceId,
        /// The version that was planned for.
        version: u64,
        /// Wanted nodes of each partition, the leader first.
        wanted: Vec<Vec<NodeId>>,
    },
    /// A step of a partition's move.
    Step {
        /// Which partition.
        group: GroupId,
        /// Its epoch when that was planned.
        epoch: u64,
        /// Which step.
        step: Step,
    },
    /// Another copy should lead.
    MoveLeader {
        /// Which partition.
        group: GroupId,
        /// Its epoch when that was asked.
        epoch: u64,
        /// Who should lead.
        node: NodeId,
    },
    /// Makes or replaces a user.
    SetUser {
        /// Who.
        name: Name,
        /// What they may do.
        user: User,
    },
    /// Removes a user.
    RemoveUser {
        /// Who.
        name: Name,
    },
    /// All members speak this version, so the cluster is at it from now on.
    Raise {
        /// Which.
        to: Version,
    },
    /// All members' proxies should do this.
    SetMesh {
        /// The revision that this is to follow, if who asks insists; 0 if there is to be none yet.
        after: Option<u64>,
        /// What they should do.
        settings: MeshSettings,
    },
    /// They should do again what an earlier revision said.
    RestoreMesh {
        /// As above.
        after: Option<u64>,
        /// Which revision; 0 for what each node's own file says.
        to: u64,
    },
}

impl Operation {
    /// The version that says this: nobody who speaks only older ones can read it. It is written in that version's format,
    /// the oldest that has words for it, whatever the cluster is at.
    #[must_use]
    pub fn needs(&self) -> Version {
        match self {
            Operation::Raise { to } => *to,
            Operation::SetMesh { .. } | Operation::RestoreMesh { .. } => Version(4),
            Operation::CreateKeyspace { settings, .. } | Operation::AlterKeyspace { settings, .. } => {
                settings.needs()
            }
            Operation::CreateCluster { .. }
            | Operation::IssueToken { .. }
            | Operation::RevokeToken { .. }
            | Operation::Admit { .. }
            | Operation::Activate { .. }
            | Operation::Leave { .. }
            | Operation::Remove { .. }
            | Operation::SetMember { .. }
            | Operation::SetVoters { .. }
            | Operation::DropKeyspace { .. }
            | Operation::Place { .. }
            | Operation::Step { .. }
            | Operation::MoveLeader { .. }
            | Operation::SetUser { .. }
            | Operation::RemoveUser { .. } => Version(2),
        }
    }
}

/// A step of a move: add as learner, promote, and only then remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begins: `new` learns, for `old` or because there are too few.
    Add {
        /// Who gets a copy.
        new: NodeId,
        /// Whose copy goes afterwards.
        old: Option<NodeId>,
    },
    /// Begins: there are too many, `old` goes.
    Drop {
        /// Whose copy goes.
        old: NodeId,
    },
    /// The learner has caught up and counts from now on.
    Promote,
    /// The new copy votes: the old one counts no more.
    Finish,
    /// The group has let the old copy go: it is no more.
    Forget,
    /// The move is given up: the learner is no more, or the old copy stays.
    Abort,
}

impl fmt::Display for Operation {
    /// One line for the audit trail, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::CreateCluster { node, .. } => write!(f, "create the cluster with {node:?}"),
            Operation::IssueToken { token, expires, .. } => {
                write!(f, "issue the token {token} until {expires}")
            }
            Operation::RevokeToken { token } => write!(f, "revoke the token {token}"),
            Operation::Admit { node, zone, .. } => write!(f, "admit {node:?} in zone {zone}"),
            Operation::Activate { node } => write!(f, "activate {node:?}"),
            Operation::Leave { node } => write!(f, "let {node:?} leave"),
            Operation::Remove { node } => write!(f, "remove {node:?}"),
            Operation::SetMember { node, zone, .. } => write!(f, "set zone {zone} and addresses of {node:?}"),
            Operation::SetVoters { voters } => write!(f, "set {} voters", voters.len()),
            Operation::CreateKeyspace { keyspace, settings } => {
                write!(f, "create keyspace {keyspace} {}", settings.name)
            }
            Operation::AlterKeyspace { keyspace, .. } => write!(f, "alter keyspace {keyspace}"),
            Operation::DropKeyspace { keyspace, name } => write!(f, "drop keyspace {keyspace} {name}"),
            Operation::Place { keyspace, version, .. } => {
                write!(f, "place keyspace {keyspace} at version {version}")
            }
            Operation::Step { group, step, .. } => {
                write!(f, "move {}/{}: {step:?}", group.keyspace(), group.partition())
            }
            Operation::MoveLeader { group, node, .. } => {
                write!(f, "lead {}/{} by {node:?}", group.keyspace(), group.partition())
            }
            Operation::SetUser { name, .. } => write!(f, "set user {name}"),
            Operation::RemoveUser { name } => write!(f, "remove user {name}"),
            Operation::Raise { to } => write!(f, "raise the cluster to version {to}"),
            Operation::SetMesh { settings, .. } => write!(f, "set the proxies: {settings}"),
            Operation::RestoreMesh { to, .. } => write!(f, "set the proxies as revision {to} did"),
        }
    }
}
