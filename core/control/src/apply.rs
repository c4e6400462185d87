//! Requests change the state, or are refused and change nothing but the audit trail.
//!
//! Each operation first judges, then changes: a refusal leaves no half of it behind. No input panics.

mod member;
pub(crate) mod mesh;
mod place;
mod space;

use alloc::string::{String, ToString};

use consensus::ReplicaId;
use kernel::{NodeId, Version};

use crate::operation::{Operation, Request};
use crate::refused::{Refused, Table};
use crate::state::{Audit, Member, Name, Outcome, Standing, State, User};
use crate::{AUDIT_MAX, AUDIT_TEXT_BYTES_MAX, RIGHTS_KEYSPACES_MAX, USERS_MAX};

/// What a change made, if that has a number.
type Changed = Result<Option<ReplicaId>, Refused>;

impl State {
    /// Applies one entry of the control group.
    ///
    /// # Errors
    /// [`Refused`]: nothing changed but the audit trail and the group's time.
    pub fn apply(&mut self, request: &Request) -> Result<Outcome, Refused> {
        if let Some(line) = self.audit.iter().find(|line| line.id == request.id) {
            return line.result.clone().map_err(Refused::Before);
        }
        self.now = self.now.max(request.at);
        let result = self.change(&request.operation, &request.by).map(|replica| {
            self.version = self.version.saturating_add(1);
            Outcome { version: self.version, replica }
        });
        if self.audit.len() >= AUDIT_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(Audit {
            id: request.id,
            by: request.by.clone(),
            at: self.now,
            what: cut(request.operation.to_string()),
            result: result.clone().map_err(|refused| cut(refused.to_string())),
        });
        result
    }

    fn change(&mut self, operation: &Operation, by: &Name) -> Changed {
        if let Operation::CreateCluster { cluster, node, zone, addresses } = operation {
            return self.create(*cluster, *node, zone, addresses);
        }
        if self.cluster.is_none() {
            return Err(Refused::NoCluster);
        }
        // What raises it is the first that is said in the new version.
        if operation.needs() > self.speaks && !matches!(operation, Operation::Raise { .. }) {
            return Err(Refused::NeedsVersion { needs: operation.needs(), is: self.speaks });
        }
        match operation {
            Operation::CreateCluster { .. } => Err(Refused::ClusterExists),
            Operation::Raise { to } => self.raise(*to),
            Operation::IssueToken { token, hash, expires } => self.issue(*token, *hash, *expires),
            Operation::RevokeToken { token } => {
                self.secrets.remove(token).map(|_| None).ok_or(Refused::TokenUnknown)
            }
            Operation::Admit { token, hash, node, zone, addresses } => {
                self.admit((*token, hash), *node, zone, addresses)
            }
            Operation::Activate { node } => self.activate(*node),
            Operation::Leave { node } => self.leave(*node),
            Operation::Remove { node } => self.remove(*node),
            Operation::SetMember { node, zone, addresses } => self.set_member(*node, zone, addresses),
            Operation::SetVoters { voters } => self.set_voters(voters),
            Operation::CreateKeyspace { keyspace, settings } => self.create_keyspace(*keyspace, settings),
            Operation::AlterKeyspace { keyspace, settings } => self.alter_keyspace(*keyspace, settings),
            Operation::DropKeyspace { keyspace, name } => self.drop_keyspace(*keyspace, name),
            Operation::Place { keyspace, version, wanted } => self.place(*keyspace, *version, wanted),
            Operation::Step { group, epoch, step } => self.step(*group, *epoch, *step),
            Operation::MoveLeader { group, epoch, node } => self.move_leader(*group, *epoch, *node),
            Operation::SetUser { name, user } => self.set_user(name, user),
            Operation::RemoveUser { name } => self.remove_user(name),
            Operation::SetMesh { after, settings } => self.set_mesh(*after, settings, by),
            Operation::RestoreMesh { after, to } => self.restore_mesh(*after, *to, by),
        }
    }

    fn raise(&mut self, to: Version) -> Changed {
        if to <= self.speaks {
            return Err(Refused::AtVersion(self.speaks));
        }
        self.speaks = to;
        Ok(None)
    }

    /// Replica numbers for `count` new replicas: the first of them. They are never given again, in no group.
    pub(crate) fn allot(&mut self, count: u64) -> Result<u64, Refused> {
        let first = self.next_replica;
        let next = first.saturating_add(count);
        if next > consensus::members::NUMBER_MAX {
            return Err(Refused::Full { table: Table::Replicas, limit: consensus::members::NUMBER_MAX });
        }
        self.next_replica = next;
        Ok(first)
    }

    /// The member `node` that was not removed.
    fn present(&mut self, node: NodeId) -> Result<&mut Member, Refused> {
        match self.members.get_mut(&node) {
            None => Err(Refused::NotMember(node)),
            Some(Member { standing: Standing::Removed { .. }, .. }) => Err(Refused::RemovedBefore(node)),
            Some(member) => Ok(member),
        }
    }

    /// Refuses unless `node` is active.
    fn must_be_active(&mut self, node: NodeId) -> Result<(), Refused> {
        match self.present(node)?.standing {
            Standing::Active => Ok(()),
            standing => Err(Refused::Standing { node, standing, needed: "active" }),
        }
    }

    fn set_user(&mut self, name: &Name, user: &User) -> Changed {
        let count = user.rights.keyspaces.as_ref().map_or(0, |keyspaces| keyspaces.len());
        if count > RIGHTS_KEYSPACES_MAX {
            return Err(Refused::Rights { user: name.clone(), count });
        }
        if !self.users.contains_key(name) && self.users.len() >= USERS_MAX {
            return Err(Refused::Full { table: Table::Users, limit: USERS_MAX as u64 });
        }
        if !user.rights.admin {
            self.not_last_admin(name)?;
        }
        self.users.insert(name.clone(), user.clone());
        Ok(None)
    }

    fn remove_user(&mut self, name: &Name) -> Changed {
        if !self.users.contains_key(name) {
            return Err(Refused::UserUnknown(name.clone()));
        }
        if self.users.len() > 1 {
            self.not_last_admin(name)?;
        }
        self.users.remove(name);
        Ok(None)
    }

    fn not_last_admin(&self, name: &Name) -> Result<(), Refused> {
        let is_admin = self.users.get(name).is_some_and(|user| user.rights.admin);
        if is_admin && !self.users.iter().any(|(other, user)| other != name && user.rights.admin) {
            return Err(Refused::LastAdmin(name.clone()));
        }
        Ok(())
    }
}

/// `text` in at most [`AUDIT_TEXT_BYTES_MAX`] bytes.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > AUDIT_TEXT_BYTES_MAX {
        let end = (0..=AUDIT_TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
