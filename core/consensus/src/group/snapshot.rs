//! Snapshots and old entries: what the host makes, moves and reads, by name.
//!
//! A snapshot is one cut of a state machine at one applied index. The leader's host makes it, the follower's host fetches
//! its bytes on the bulk link, keeps them aside, checks them, and only then does the engine hear of it. So a transfer
//! that breaks changes nothing and resumes, and a snapshot that was overtaken meanwhile is thrown away.

use kernel::planted::{Bug, is};
use kernel::{Index, Term};
use raft::eraftpb::Snapshot;
use raft::{ProgressState, SnapshotStatus, StateRole};

use super::receive::Refusal;
use super::{Event, Replica, translate};
use crate::codec::{Descriptor, Message, Said};
use crate::entry::Logged;
use crate::members::{Mark, ReplicaId};

/// A snapshot that the host is fetching.
pub(super) struct Incoming {
    message: Message,
    descriptor: Descriptor,
}

impl Replica {
    /// What a checkpoint or snapshot taken at this moment must say of the group; `None` while a snapshot is being
    /// installed, when the state machine is at no index, and as long as a replica that was added has got nothing.
    #[must_use]
    pub fn cut(&self) -> Option<Mark> {
        let index = self.last_applied();
        if self.desk.installs() || index == Index(0) {
            return None;
        }
        let members =
            if is(Bug::SnapshotWithoutMembers) { self.first_members.clone() } else { self.members.clone() };
        let term = if is(Bug::SnapshotWithoutTerm) { Some(Term(1)) } else { self.term_at(index) };
        Some(Mark { index, term: term?, members })
    }

    /// A checkpoint has everything up to `index`, and the node's log may give it away. Followers that need older
    /// entries will get a snapshot.
    pub fn compact(&mut self, index: Index) {
        if index <= self.last_applied() {
            self.raw.mut_store().compact(index.0);
        }
    }

    /// Offers a cut to followers that are behind the log. False if it is older than the log's beginning, or than the
    /// last offer: then it is of no use.
    pub fn offer_snapshot(&mut self, descriptor: &Descriptor) -> bool {
        self.raw.mut_store().offer(translate::snapshot(descriptor))
    }

    /// The index of the snapshot that a member is being sent, if one is: the entries behind it are what that member needs
    /// next.
    #[must_use]
    pub fn sent_snapshot(&self) -> Option<Index> {
        if !self.leads() {
            return None;
        }
        let sent = self.raw.raft.prs().iter().filter(|(_, one)| one.state == ProgressState::Snapshot);
        sent.map(|(_, one)| Index(one.pending_snapshot)).filter(|index| index.0 > 0).min()
    }

    /// The host does not hold the cut of this generation any more: whoever needs one gets another.
    pub fn retract_snapshot(&mut self, generation: u64) {
        self.raw.mut_store().retract(|offer| translate::descriptor(offer).generation == generation);
    }

    /// The host could not send a snapshot to `peer`; it is tried again after the next answer of the peer.
    pub fn snapshot_failed(&mut self, peer: ReplicaId) {
        self.sending.remove(&peer);
        self.raw.report_snapshot(peer.get(), SnapshotStatus::Failure);
        self.collect();
    }

    /// There is a new link to `peer`: it may have been told of a snapshot over the old one, or have said there that it could
    /// not get it, or have begun anew. It is told again; if it is still fetching that snapshot, that changes nothing.
    pub fn peer_returned(&mut self, peer: ReplicaId) {
        let progress = self.raw.raft.prs().get(peer.get());
        if self.leads() && progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
            self.snapshot_failed(peer);
        }
    }

    /// Takes the name of a snapshot; the engine hears of it only when its bytes are here, or are not needed.
    pub(super) fn take_descriptor(
        &mut self,
        message: Message,
        descriptor: Descriptor,
    ) -> Result<(), Refusal> {
        let mark = &descriptor.mark;
        if mark.term > message.term || !mark.members.contains(self.config.id) {
            return Err(Refusal::Inconsistent);
        }
        let committed = self.raw.raft.raft_log.committed;
        let own = self.term_at(mark.index);
        if mark.index.0 == committed && own.is_some_and(|own| own != mark.term) {
            return Err(Refusal::Diverged);
        }
        if self.desk.installs() {
            // Said and not only dropped: the leader would wait for this snapshot until it gives it up.
            let term = self.term().max(message.term);
            self.say(message.from, term, Said::SnapshotRefused { index: mark.index });
            return Err(Refusal::Busy);
        }
        self.awaken();
        if mark.index.0 <= committed || own == Some(mark.term) {
            return self.step(message);
        }
        let from = message.from;
        let known = self
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.message.from == from && incoming.descriptor == descriptor);
        if !known {
            self.events.push_back(Event::FetchSnapshot { from, descriptor: descriptor.clone() });
        }
        self.incoming = Some(Incoming { message, descriptor });
        Ok(())
    }

    /// The bytes of the snapshot that [`Event::FetchSnapshot`] named are here, durable and checked. False if it is not
    /// wanted any more; then it is never installed and may be thrown away, or kept in case it is offered again.
    pub fn snapshot_staged(&mut self, generation: u64) -> bool {
        let staged = self.incoming.take_if(|incoming| incoming.descriptor.generation == generation);
        let Some(Incoming { message, descriptor }) = staged else { return false };
        let raft = &self.raw.raft;
        let overtaken = descriptor.mark.index.0 <= raft.raft_log.committed
            || message.term.0 < raft.term
            || raft.state == StateRole::Leader
            || self.term_at(descriptor.mark.index) == Some(descriptor.mark.term)
            || self.desk.installs();
        if overtaken {
            return false;
        }
        self.step(message).is_ok()
    }

    /// The snapshot of this generation could not be had. Its sender is told and begins anew.
    pub fn snapshot_refused(&mut self, generation: u64) {
        let refused = self.incoming.take_if(|incoming| incoming.descriptor.generation == generation);
        if let Some(Incoming { message, descriptor }) = refused {
            let term = self.term();
            self.say(message.from, term, Said::SnapshotRefused { index: descriptor.mark.index });
        }
    }

    pub(super) fn take_snapshot_refused(&mut self, from: ReplicaId, index: Index) -> Result<(), Refusal> {
        let Some(progress) = self.raw.raft.prs().get(from.get()) else { return Err(Refusal::NoMember) };
        let sent = progress.state == ProgressState::Snapshot && progress.pending_snapshot == index.0;
        if !self.leads() || !sent {
            return Err(Refusal::Unasked);
        }
        self.snapshot_failed(from);
        Ok(())
    }

    /// The engine takes a snapshot: the log begins anew, and what waits to be applied is in the snapshot.
    pub(super) fn reset_to(&mut self, snapshot: &Snapshot) -> Descriptor {
        let descriptor = translate::descriptor(snapshot);
        let Mark { index, term, members } = descriptor.mark.clone();
        self.raw.mut_store().reset(index.0, term.0);
        self.committed.clear();
        self.fetching = false;
        self.members = members;
        self.forget_removed();
        self.events.push_back(Event::Members(self.members.clone()));
        descriptor
    }

    /// Old entries that [`Event::FetchEntries`] asked for: any part of them, without holes, or none if they cannot be had.
    pub fn fetched(&mut self, entries: Vec<Logged>) {
        self.fetching = false;
        let entries = entries.into_iter().map(|entry| entry.0).collect();
        for context in self.raw.mut_store().take_waiting(entries) {
            self.raw.on_entries_fetched(context);
        }
        self.collect();
    }

    /// Tells the host what followers wait for.
    pub(super) fn tell_wants(&mut self) {
        if self.raw.mut_store().take_snapshot_asked() {
            self.events.push_back(Event::MakeSnapshot);
        }
        if !self.fetching
            && let Some((first, last)) = self.raw.store().entries_asked()
        {
            self.fetching = true;
            self.events.push_back(Event::FetchEntries { first, last });
        }
    }
}
