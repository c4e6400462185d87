//! Our messages and the engine's, into each other.

use kernel::{Index, Term};
use raft::eraftpb::{Message as Raw, MessageType, Snapshot, SnapshotMetadata};

use super::Replica;
use crate::codec::{Ballot, Candidacy, Descriptor, Message, ReadContext, Said};
use crate::entry::Logged;
use crate::members::ReplicaId;

/// What the engine puts into a candidacy that a leader asked for.
const HANDED_OVER: &[u8] = b"CampaignTransfer";

impl Replica {
    /// Sends what the engine wants to say.
    pub(super) fn send(&mut self, raw: Raw) {
        let Some(to) = ReplicaId::new(raw.to) else { return };
        let term = Term(raw.term);
        let read = if self.recovering.is_some() { None } else { ReadContext::from_bytes(&raw.context) };
        if let Some(body) = from_engine(raw, read) {
            self.say(to, term, body);
        }
    }

    pub(super) fn say(&mut self, to: ReplicaId, term: Term, body: Said) {
        let (group, from, incarnation) = (self.config.group, self.config.id, self.config.incarnation);
        self.outbox.push(Message { group, from, incarnation, to, term, body });
    }
}

fn from_engine(mut raw: Raw, read: Option<ReadContext>) -> Option<Said> {
    let candidacy = |raw: &Raw| Candidacy {
        last: Index(raw.index),
        last_term: Term(raw.log_term),
        commit: Index(raw.commit),
        commit_term: Term(raw.commit_term),
        handed_over: &raw.context[..] == HANDED_OVER,
    };
    let ballot = |raw: &Raw| Ballot {
        granted: !raw.reject,
        commit: Index(raw.commit),
        commit_term: Term(raw.commit_term),
    };
    let commit = Index(raw.commit);
    Some(match raw.get_msg_type() {
        MessageType::MsgRequestPreVote => Said::PreVote(candidacy(&raw)),
        MessageType::MsgRequestVote => Said::Vote(candidacy(&raw)),
        MessageType::MsgRequestPreVoteResponse => Said::PreVoted(ballot(&raw)),
        MessageType::MsgRequestVoteResponse => Said::Voted(ballot(&raw)),
        MessageType::MsgAppend => {
            let entries: Vec<_> = raw.take_entries().into();
            let entries = entries.into_iter().map(Logged::settled).collect();
            Said::Append { prev: Index(raw.index), prev_term: Term(raw.log_term), commit, entries }
        }
        MessageType::MsgAppendResponse if raw.reject => Said::Rejected {
            index: Index(raw.index),
            hint: Index(raw.reject_hint),
            hint_term: Term(raw.log_term),
            commit,
        },
        MessageType::MsgAppendResponse => Said::Appended { index: Index(raw.index), commit },
        MessageType::MsgHeartbeat => Said::Heartbeat { commit, read },
        MessageType::MsgHeartbeatResponse => Said::Heard { commit, read },
        MessageType::MsgSnapshot => Said::Snapshot(descriptor(raw.get_snapshot())),
        MessageType::MsgTimeoutNow => Said::TimeoutNow,
        // What the engine tells itself or would forward: no peer is asked for it.
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => return None,
    })
}

/// The engine's word for a message; `None` for what the engine does not know.
pub(super) fn to_engine(message: Message) -> Option<Raw> {
    let mut raw = Raw::default();
    (raw.from, raw.to, raw.term) = (message.from.get(), message.to.get(), message.term.0);
    match message.body {
        Said::PreVote(candidacy) => put_candidacy(&mut raw, MessageType::MsgRequestPreVote, candidacy),
        Said::Vote(candidacy) => put_candidacy(&mut raw, MessageType::MsgRequestVote, candidacy),
        Said::PreVoted(ballot) => put_ballot(&mut raw, MessageType::MsgRequestPreVoteResponse, ballot),
        Said::Voted(ballot) => put_ballot(&mut raw, MessageType::MsgRequestVoteResponse, ballot),
        Said::Append { prev, prev_term, commit, entries } => {
            raw.set_msg_type(MessageType::MsgAppend);
            (raw.index, raw.log_term, raw.commit) = (prev.0, prev_term.0, commit.0);
            raw.set_entries(entries.into_iter().map(|entry| entry.0).collect::<Vec<_>>().into());
        }
        Said::Appended { index, commit } => {
            raw.set_msg_type(MessageType::MsgAppendResponse);
            (raw.index, raw.commit) = (index.0, commit.0);
        }
        Said::Rejected { index, hint, hint_term, commit } => {
            raw.set_msg_type(MessageType::MsgAppendResponse);
            (raw.index, raw.commit, raw.reject) = (index.0, commit.0, true);
            (raw.reject_hint, raw.log_term) = (hint.0, hint_term.0);
        }
        Said::Heartbeat { commit, read } => put_beat(&mut raw, MessageType::MsgHeartbeat, commit, read),
        Said::Heard { commit, read } => put_beat(&mut raw, MessageType::MsgHeartbeatResponse, commit, read),
        Said::Snapshot(descriptor) => {
            raw.set_msg_type(MessageType::MsgSnapshot);
            raw.set_snapshot(snapshot(&descriptor));
        }
        Said::TimeoutNow => raw.set_msg_type(MessageType::MsgTimeoutNow),
        Said::SnapshotRefused { .. }
        | Said::Quiesce { .. }
        | Said::Recover
        | Said::RecoverTo { .. }
        | Said::HowFar { .. }
        | Said::ThisFar { .. } => {
            return None;
        }
    }
    Some(raw)
}

fn put_candidacy(raw: &mut Raw, kind: MessageType, candidacy: Candidacy) {
    raw.set_msg_type(kind);
    (raw.index, raw.log_term) = (candidacy.last.0, candidacy.last_term.0);
    (raw.commit, raw.commit_term) = (candidacy.commit.0, candidacy.commit_term.0);
    if candidacy.handed_over {
        raw.context = HANDED_OVER.to_vec().into();
    }
}

fn put_ballot(raw: &mut Raw, kind: MessageType, ballot: Ballot) {
    raw.set_msg_type(kind);
    (raw.reject, raw.commit, raw.commit_term) = (!ballot.granted, ballot.commit.0, ballot.commit_term.0);
}

fn put_beat(raw: &mut Raw, kind: MessageType, commit: Index, read: Option<ReadContext>) {
    raw.set_msg_type(kind);
    raw.commit = commit.0;
    raw.context = read.map_or_else(Vec::new, ReadContext::to_bytes).into();
}

/// The engine's word for a snapshot; its bytes are our descriptor.
pub(super) fn snapshot(descriptor: &Descriptor) -> Snapshot {
    let mut metadata = SnapshotMetadata::default();
    (metadata.index, metadata.term) = (descriptor.mark.index.0, descriptor.mark.term.0);
    metadata.set_conf_state(descriptor.mark.members.to_engine());
    let mut bytes = Vec::new();
    descriptor.encode(&mut bytes);
    let mut snapshot = Snapshot::default();
    snapshot.set_metadata(metadata);
    snapshot.data = bytes.into();
    snapshot
}

/// The inverse of [`snapshot`].
pub(super) fn descriptor(snapshot: &Snapshot) -> Descriptor {
    let mut reader = kernel::codec::Reader::new(&snapshot.data);
    Descriptor::decode(&mut reader).expect("the engine's snapshots were made of descriptors")
}
