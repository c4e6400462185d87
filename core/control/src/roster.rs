//! Who is a member and where it listens, without the rest of the state: what a node needs before it has the state.
//!
//! A newcomer gets it with its welcome. A member that was away for long gets it from the first peer that it meets: the
//! control group's leader may have become a member meanwhile, and who knows nothing of it would not talk to it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::{Members, ReplicaId, Role};
use kernel::codec::DecodeError;
use kernel::{ClusterId, NodeId};

use crate::state::{Member, Name, State};

/// The members of a cluster at one version of its state, those that were removed not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The version of the state that says so.
    pub version: u64,
    /// The members; at most [`crate::MEMBERS_MAX`].
    pub members: BTreeMap<NodeId, Member>,
}

/// What a newcomer says of itself. It fits what `fabric::join` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// What burns down with it.
    pub zone: Name,
    /// Where it listens for links; 1 to [`crate::ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

/// The answer to a newcomer that was let in: what it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its replica of the control group.
    pub replica: ReplicaId,
    /// Whom it will talk to, itself among them.
    pub roster: Roster,
}

impl State {
    /// The members, without the rest; `None` before there is a cluster.
    #[must_use]
    pub fn roster(&self) -> Option<Roster> {
        let present = self.members().iter().filter(|(_, member)| member.is_present());
        let members = present.map(|(&node, member)| (node, member.clone())).collect();
        self.cluster().map(|cluster| Roster { cluster, version: self.version(), members })
    }
}

impl Roster {
    /// The members that the control group has in its log sooner or later, as far as this says; `None` if nobody votes.
    #[must_use]
    pub fn control_members(&self) -> Option<Members> {
        let of = |role: Role| {
            self.members.values().filter(move |member| member.role == role).map(|member| member.replica)
        };
        Members::new(of(Role::Voter), of(Role::Learner)).ok()
    }
}

impl Welcome {
    /// What lets `node` begin; `None` if it is no member, or nobody votes.
    #[must_use]
    pub fn new(roster: Roster, node: NodeId) -> Option<Welcome> {
        let replica = roster.members.get(&node)?.replica;
        roster.control_members()?;
        Some(Welcome { replica, roster })
    }

    /// Reads what [`Welcome::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is of another version, no welcome, or one that names nobody who votes or not the newcomer.
    pub fn decode(bytes: &[u8]) -> Result<Welcome, DecodeError> {
        let welcome = Welcome::read(bytes)?;
        let named = welcome.roster.members.values().any(|member| member.replica == welcome.replica);
        match welcome.roster.control_members() {
            Some(_) if named => Ok(welcome),
            Some(_) | None => Err(DecodeError::Invalid),
        }
    }
}
