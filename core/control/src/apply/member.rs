//! Members: they are let in with a token, become active, leave, and are removed for ever.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::{ReplicaId, Role};
use kernel::{ClusterId, Millis, NodeId, TokenId};

use super::Changed;
use crate::refused::{Refused, Table};
use crate::state::{JoinSecret, Member, Name, Partition, Standing, State};
use crate::{ADDRESSES_MAX, MEMBERS_MAX, SECRETS_MAX, TOMBSTONES_MAX, VOTERS_MAX};

impl State {
    pub(super) fn create(
        &mut self,
        cluster: ClusterId,
        node: NodeId,
        zone: &Name,
        addresses: &[SocketAddr],
    ) -> Changed {
        if self.cluster.is_some() {
            return Err(Refused::ClusterExists);
        }
        some_addresses(node, addresses)?;
        let replica = self.enter(node, zone, addresses)?;
        let member = self.present(node)?;
        (member.standing, member.role) = (Standing::Active, Role::Voter);
        self.cluster = Some(cluster);
        Ok(Some(replica))
    }

    /// Takes a node in as a joining learner.
    fn enter(&mut self, node: NodeId, zone: &Name, addresses: &[SocketAddr]) -> Result<ReplicaId, Refused> {
        let (standing, role) = (Standing::Joining, Role::Learner);
        let replica = ReplicaId::new(self.allot(1)?).expect("what is allotted is a number of a replica");
        let addresses = addresses.to_vec();
        self.members.insert(node, Member { replica, zone: zone.clone(), addresses, standing, role });
        Ok(replica)
    }

    pub(super) fn issue(&mut self, token: TokenId, hash: [u8; 32], expires: Millis) -> Changed {
        if self.secrets.contains_key(&token) {
            return Err(Refused::TokenExists);
        }
        if expires <= self.now {
            return Err(Refused::TokenExpired);
        }
        let now = self.now;
        let open = self.secrets.values().filter(|secret| secret.expires > now).count();
        if open >= SECRETS_MAX {
            return Err(Refused::Full { table: Table::Secrets, limit: SECRETS_MAX as u64 });
        }
        if self.secrets.len() >= SECRETS_MAX {
            self.secrets.retain(|_, secret| secret.expires > now);
        }
        self.secrets.insert(token, JoinSecret { hash, expires, used: None });
        Ok(None)
    }

    pub(super) fn admit(
        &mut self,
        (token, hash): (TokenId, &[u8; 32]),
        node: NodeId,
        zone: &Name,
        addresses: &[SocketAddr],
    ) -> Changed {
        some_addresses(node, addresses)?;
        let secret = self.secrets.get(&token).ok_or(Refused::TokenUnknown)?;
        if secret.hash != *hash {
            return Err(Refused::TokenSecret);
        }
        match (self.members.get(&node), secret.used) {
            (Some(member), _) if !member.is_present() => return Err(Refused::RemovedBefore(node)),
            // It did not hear the answer and asks again, perhaps through another member.
            (Some(member), Some(by)) if by == node => return Ok(Some(member.replica)),
            (_, Some(by)) => return Err(Refused::TokenUsed(by)),
            (Some(_), None) => return Err(Refused::IsMember(node)),
            (None, None) => {}
        }
        if secret.expires <= self.now {
            return Err(Refused::TokenExpired);
        }
        if self.members.values().filter(|member| member.is_present()).count() >= MEMBERS_MAX {
            return Err(Refused::Full { table: Table::Members, limit: MEMBERS_MAX as u64 });
        }
        let replica = self.enter(node, zone, addresses)?;
        if let Some(secret) = self.secrets.get_mut(&token) {
            secret.used = Some(node);
        }
        Ok(Some(replica))
    }

    pub(super) fn activate(&mut self, node: NodeId) -> Changed {
        let member = self.present(node)?;
        match member.standing {
            Standing::Joining | Standing::Leaving => member.standing = Standing::Active,
            standing => return Err(Refused::Standing { node, standing, needed: "joining or leaving" }),
        }
        Ok(None)
    }

    pub(super) fn leave(&mut self, node: NodeId) -> Changed {
        let member = self.present(node)?;
        match member.standing {
            Standing::Joining | Standing::Active => {}
            standing => return Err(Refused::Standing { node, standing, needed: "joining or active" }),
        }
        if !self.active().any(|(other, _)| other != node) {
            return Err(Refused::LastActive(node));
        }
        self.present(node)?.standing = Standing::Leaving;
        Ok(None)
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Changed {
        let role = self.present(node)?.role;
        if role == Role::Voter {
            let last = self.voters().len() == 1;
            return Err(if last { Refused::LastVoter(node) } else { Refused::Votes(node) });
        }
        if !self.active().any(|(other, _)| other != node) {
            return Err(Refused::LastActive(node));
        }
        let only = |(_, it): &(_, &Partition)| it.replicas.len() == 1 && it.replica(node).is_some();
        if let Some(group) = self.kept_by(node).find(only).map(|(group, _)| group) {
            return Err(Refused::OnlyCopy { node, group });
        }
        let copies = self.kept_by(node).count();
        if copies > 0 {
            return Err(Refused::HoldsCopies { node, copies });
        }
        if self.members.values().filter(|member| !member.is_present()).count() >= TOMBSTONES_MAX {
            return Err(Refused::Full { table: Table::Tombstones, limit: TOMBSTONES_MAX as u64 });
        }
        let at = self.now;
        let member = self.present(node)?;
        (member.standing, member.role) = (Standing::Removed { at }, Role::Gone);
        member.addresses = Vec::new();
        Ok(None)
    }

    pub(super) fn set_member(&mut self, node: NodeId, zone: &Name, addresses: &[SocketAddr]) -> Changed {
        some_addresses(node, addresses)?;
        let member = self.present(node)?;
        member.zone = zone.clone();
        member.addresses = addresses.to_vec();
        Ok(None)
    }

    pub(super) fn set_voters(&mut self, voters: &BTreeSet<NodeId>) -> Changed {
        if voters.is_empty() || voters.len() > VOTERS_MAX {
            return Err(Refused::VoterCount(voters.len()));
        }
        let now = self.voters();
        for &node in voters.difference(&now) {
            self.must_be_active(node)?;
        }
        let (coming, going) = (voters.difference(&now).count(), now.difference(voters).count());
        if coming > 1 || going > 1 {
            return Err(Refused::VotersAtOnce { coming, going });
        }
        for (node, member) in &mut self.members {
            if member.is_present() {
                member.role = if voters.contains(node) { Role::Voter } else { Role::Learner };
            }
        }
        Ok(None)
    }
}

fn some_addresses(node: NodeId, addresses: &[SocketAddr]) -> Result<(), Refused> {
    match addresses.len() {
        1..=ADDRESSES_MAX => Ok(()),
        count => Err(Refused::Addresses { node, count }),
    }
}
