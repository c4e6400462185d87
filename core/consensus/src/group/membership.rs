//! Committed entries, and among them changes of the members: always through a joint configuration.

use kernel::planted::{Bug, is};
use kernel::{Index, Micros, Term};
use raft::eraftpb::ConfChangeV2;
use raft::{Changer, ProgressState, StateRole};
use thiserror::Error;

use super::{Committed, Event, Replica};
use crate::entry::{Body, Logged};
use crate::members::{CHANGES_MAX, Change, ReplicaId, Role, single};

/// Why a change of the members was not proposed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// Another replica leads, or none.
    #[error("this replica does not lead")]
    NotLeading,
    /// One change at a time, and none before the leader has committed an entry of its term.
    #[error("another change is on its way, or leadership is new or being handed over")]
    NotYet,
    /// Numbers only grow: this one is not above the highest that was given.
    #[error("replica {0} was a member before; a new one needs a new number")]
    Used(ReplicaId),
    /// It would change too much or nothing, name a replica twice, or leave nobody who votes.
    #[error("not a change of this group")]
    Unsound,
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its log is synced up to here, and the leader's.
    pub matched: Index,
    /// It gets entries as they come: it needs no snapshot, and is not being looked for.
    pub follows: bool,
}

impl Replica {
    /// Proposes to give replicas these roles, all at once. The group becomes joint when the change is applied and leaves by
    /// itself; [`Event::Members`] tells of both.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was proposed.
    pub fn change(&mut self, now: Micros, roles: &[(ReplicaId, Role)]) -> Result<(), ChangeError> {
        self.now = now;
        if !self.leads() {
            return Err(ChangeError::NotLeading);
        }
        if self.members.is_joint() || !self.may_change() {
            return Err(ChangeError::NotYet);
        }
        self.check_change(roles)?;
        self.awaken();
        self.propose_change(&Change::Enter(roles.to_vec()));
        Ok(())
    }

    fn may_change(&self) -> bool {
        let raft = &self.raw.raft;
        // An entry of this term must be committed: see Ongaro's correction of 2015 to single-server changes.
        self.may_propose() && !raft.has_pending_conf() && raft.commit_to_current_term()
    }

    fn check_change(&self, roles: &[(ReplicaId, Role)]) -> Result<(), ChangeError> {
        if roles.is_empty() || roles.len() > CHANGES_MAX {
            return Err(ChangeError::Unsound);
        }
        for (at, &(id, role)) in roles.iter().enumerate() {
            let twice = roles[..at].iter().any(|&(other, _)| other == id);
            if twice || role == Role::Gone && !self.members.contains(id) {
                return Err(ChangeError::Unsound);
            }
            if !self.members.contains(id) && id <= self.members.highest() {
                return Err(ChangeError::Used(id));
            }
        }
        let singles: Vec<_> = roles.iter().map(|&(id, role)| single(id, role)).collect();
        let tried = Changer::new(self.raw.raft.prs()).enter_joint(false, &singles);
        tried.map(|_| ()).map_err(|_| ChangeError::Unsound)
    }

    /// A leader ends a joint configuration as soon as it may.
    pub(super) fn leave_joint(&mut self) {
        if self.leads() && self.members.is_joint() && self.may_change() {
            self.propose_change(&Change::Leave);
        }
    }

    fn propose_change(&mut self, change: &Change) {
        let mut bytes = Vec::new();
        change.encode(&mut bytes);
        let proposed = self.raw.propose_conf_change(bytes, change.to_engine());
        proposed.expect("a leader that may propose does");
        self.collect();
    }

    /// Hands leadership to a voter; within an election timeout it has it, or this replica goes on. Meanwhile nothing is
    /// proposed. Asked again for the same voter, it tells it again, which may have missed it or have been busy.
    ///
    /// # Errors
    /// [`ChangeError::NotLeading`], or [`ChangeError::Unsound`] if `to` does not vote.
    pub fn hand_over(&mut self, now: Micros, to: ReplicaId) -> Result<(), ChangeError> {
        self.now = now;
        if !self.leads() {
            return Err(ChangeError::NotLeading);
        }
        if !self.members.voters().contains(&to) || to == self.config.id {
            return Err(ChangeError::Unsound);
        }
        self.awaken();
        self.spoil_lease();
        if self.raw.raft.lead_transferee == Some(to.get()) {
            // The engine would wait for the first attempt's end.
            self.raw.raft.abort_leader_transfer();
        }
        self.raw.transfer_leader(to.get());
        self.collect();
        Ok(())
    }

    /// Whom leadership is being handed to, if it is.
    #[must_use]
    pub fn handing_to(&self) -> Option<ReplicaId> {
        self.raw.raft.lead_transferee.and_then(ReplicaId::new)
    }

    /// How far a member has come, as this leader knows: `None` if it does not lead, or `peer` is no member.
    #[must_use]
    pub fn progress(&self, peer: ReplicaId) -> Option<Progress> {
        let progress = self.raw.raft.prs().get(peer.get()).filter(|_| self.leads())?;
        // After a snapshot the engine probes until the next entry, although nothing is missing.
        let level = progress.matched == self.last().0;
        let follows = peer == self.config.id || level || progress.state == ProgressState::Replicate;
        Some(Progress { matched: Index(progress.matched), follows })
    }

    /// The next entry to apply. The host applies it and says so with [`Replica::applied`] before it asks for the next.
    pub fn next_committed(&mut self) -> Option<Committed> {
        if self.desk.installs() {
            // What comes now is applied on top of the snapshot.
            return None;
        }
        let entry = self.committed.pop_front()?;
        let (term, index) = (Term(entry.term), Index(entry.index));
        let body = match Logged::settled(entry).into_body() {
            Ok(Body::Change(change)) if self.follow(&change) => {
                self.write_committed(index);
                Body::Change(change)
            }
            Ok(Body::Commands(entry)) => Body::Commands(entry),
            // No version writes what cannot be read, and every replica refuses the same change.
            Ok(Body::Nothing | Body::Change(_)) | Err(_) => Body::Nothing,
        };
        Some(Committed { term, index, body })
    }

    /// Everything up to `index`, the last that [`Replica::next_committed`] gave, is applied.
    pub fn applied(&mut self, index: Index) {
        self.raw.raft.commit_apply(index.0);
        self.check_fresh(index);
        self.raw.mut_store().evict(index.0, self.config.held_bytes);
        self.leave_joint();
        self.collect();
    }

    /// Follows a committed change. False if it cannot be followed, here and everywhere.
    fn follow(&mut self, change: &Change) -> bool {
        if let Change::Enter(roles) = change
            && (self.members.is_joint() || self.check_change(roles).is_err())
        {
            return false;
        }
        let state = match change {
            Change::Enter(roles) if is(Bug::UnjointChange) => {
                let mut state = self.raw.raft.prs().conf().to_conf_state();
                for &(id, role) in roles {
                    let mut one = ConfChangeV2::default();
                    one.set_changes(vec![single(id, role)].into());
                    state = self.raw.apply_conf_change(&one).unwrap_or(state);
                }
                state
            }
            Change::Enter(_) | Change::Leave => match self.raw.apply_conf_change(&change.to_engine()) {
                Ok(state) => state,
                Err(_) => return false,
            },
        };
        self.members = self.members.follow(&state);
        self.forget_removed();
        self.end_lease();
        self.events.push_back(Event::Members(self.members.clone()));
        if self.raw.raft.state == StateRole::Leader && !self.members.votes(self.config.id) {
            // The engine would go on leading a group it is no member of, and fail on its own progress.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        self.collect();
        true
    }
}
