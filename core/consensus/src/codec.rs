//! What replicas say to each other, in our own bytes.
//!
//! A message is a head and a body, little-endian as in [`kernel::codec`]:
//!
//! ```text
//! head = version u8 (1) | group u32 | from, incarnation, to, term: varint | kind u8
//! ```
//!
//! Peers' bytes are never given to the engine's own codec: it has a known stack overflow (RUSTSEC-2024-0437). Decoding
//! takes memory only for bytes that are there, believes no number above [`NUMBER_MAX`], and cannot express what a peer
//! has no right to ask: proposals and read requests have tags, so that they are refused by name, and no variant.

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::{GroupId, Index, Micros, Term};

use crate::entry::Logged;
use crate::members::{Incarnation, Mark, ReplicaId, read_id, read_number};

/// The version that is written. Members one version apart work together: an unknown version is refused whole.
pub const VERSION: u8 = 1;
/// Most entries of one append.
pub const ENTRIES_MAX: usize = 1 << 16;
/// The least that an entry takes: term, semantics, time and an empty body.
const ENTRY_BYTES_MIN: usize = 11;

/// A message from one replica to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The group of both.
    pub group: GroupId,
    /// Who says it.
    pub from: ReplicaId,
    /// In which life.
    pub incarnation: Incarnation,
    /// To whom.
    pub to: ReplicaId,
    /// The term that it belongs to, at least 1.
    pub term: Term,
    /// What it says.
    pub body: Said,
}

/// What a message says. Names are those of the Raft paper, shortened.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Would you vote for me in this term?
    PreVote(Candidacy),
    /// Answer to it.
    PreVoted(Ballot),
    /// Vote for me in this term.
    Vote(Candidacy),
    /// Answer to it, durable if granted.
    Voted(Ballot),
    /// Entries that follow `prev`.
    Append {
        /// The index before the first entry.
        prev: Index,
        /// Its term.
        prev_term: Term,
        /// What the leader has committed.
        commit: Index,
        /// The entries: `prev + 1`, `prev + 2`, and so on.
        entries: Vec<Logged>,
    },
    /// The log is the leader's, and synced, up to `index`.
    Appended {
        /// The last index that matches.
        index: Index,
        /// What the follower has committed.
        commit: Index,
    },
    /// The log is not the leader's at `index`.
    Rejected {
        /// The `prev` of the append.
        index: Index,
        /// Try here next.
        hint: Index,
        /// The term at the hint.
        hint_term: Term,
        /// What the follower has committed.
        commit: Index,
    },
    /// I lead.
    Heartbeat {
        /// What the follower may commit.
        commit: Index,
        /// A read that waits for the answers of a majority.
        read: Option<ReadContext>,
    },
    /// Answer to it.
    Heard {
        /// What the follower has committed.
        commit: Index,
        /// The read of the heartbeat.
        read: Option<ReadContext>,
    },
    /// You are far behind: take this snapshot, its bytes come on another way.
    Snapshot(Descriptor),
    /// The snapshot at `index` could not be taken.
    SnapshotRefused {
        /// Its index.
        index: Index,
    },
    /// Begin an election now: leadership is handed to you.
    TimeoutNow,
    /// All have everything up to `commit` and nothing is on its way: let the group sleep.
    Quiesce {
        /// The last index.
        commit: Index,
    },
    /// I lost what I may have acknowledged in an earlier life: forget it, and say how far I must come.
    Recover,
    /// Answer to it, confirmed by a majority without the asker.
    RecoverTo {
        /// The life that asked.
        life: Incarnation,
        /// It has recovered when it has everything up to here.
        index: Index,
    },
    /// How far must I come to have all that is committed now? Since version 3.
    HowFar {
        /// The life that asks.
        life: Incarnation,
        /// Its question.
        number: u64,
    },
    /// Answer to it, confirmed by a majority after it was asked. Since version 3.
    ThisFar {
        /// The life that asked.
        life: Incarnation,
        /// Its question.
        number: u64,
        /// This far.
        index: Index,
    },
}

/// A candidate's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// The last index.
    pub last: Index,
    /// Its term.
    pub last_term: Term,
    /// What it has committed.
    pub commit: Index,
    /// That entry's term.
    pub commit_term: Term,
    /// It was told to by the leader, whose lease does not count against it.
    pub handed_over: bool,
}

/// An answer to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Yes.
    pub granted: bool,
    /// With a no: what the voter has committed, else 0.
    pub commit: Index,
    /// That entry's term, else 0.
    pub commit_term: Term,
}

/// A snapshot without its bytes, which the host streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Which cut of the sender's it is: the same bytes for the same sender and generation, so that a transfer resumes.
    pub generation: u64,
    /// Bytes of it.
    pub size: u64,
    /// Of all its bytes, in the host's way.
    pub checksum: u64,
    /// Index, term and members of the cut.
    pub mark: Mark,
}

/// A read of one turn, unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadContext {
    /// The leader that reads.
    pub replica: ReplicaId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Counts its reads in this life.
    pub sequence: u64,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not a message of this version.
    Malformed(DecodeError),
    /// A version that we do not know.
    Version(u8),
    /// Something a peer has no right to ask for: a proposal or a read request.
    Forbidden,
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Unreadable {
        Unreadable::Malformed(error)
    }
}

const PRE_VOTE: u8 = 1;
const PRE_VOTED: u8 = 2;
const VOTE: u8 = 3;
const VOTED: u8 = 4;
const APPEND: u8 = 5;
const APPENDED: u8 = 6;
const REJECTED: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARD: u8 = 9;
const SNAPSHOT: u8 = 10;
const SNAPSHOT_REFUSED: u8 = 11;
const TIMEOUT_NOW: u8 = 12;
const QUIESCE: u8 = 13;
const RECOVER: u8 = 14;
const RECOVER_TO: u8 = 15;
const HOW_FAR: u8 = 16;
const THIS_FAR: u8 = 17;
/// What the engine would call `MsgPropose`.
pub const PROPOSE_FORBIDDEN: u8 = 64;
/// What the engine would call `MsgReadIndex`.
pub const READ_INDEX_FORBIDDEN: u8 = 65;

/// Appends `message`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&message.group.0.to_le_bytes());
    for number in [message.from.get(), message.incarnation.0, message.to.get(), message.term.0] {
        put_varint(out, number);
    }
    let numbers = |out: &mut Vec<u8>, kind: u8, numbers: &[u64]| {
        out.push(kind);
        numbers.iter().for_each(|&number| put_varint(out, number));
    };
    match &message.body {
        Said::PreVote(candidacy) => put_candidacy(out, PRE_VOTE, candidacy),
        Said::Vote(candidacy) => put_candidacy(out, VOTE, candidacy),
        Said::PreVoted(ballot) => put_ballot(out, PRE_VOTED, ballot),
        Said::Voted(ballot) => put_ballot(out, VOTED, ballot),
        Said::Append { prev, prev_term, commit, entries } => {
            numbers(out, APPEND, &[prev.0, prev_term.0, commit.0, entries.len() as u64]);
            entries.iter().for_each(|entry| put_entry(out, entry));
        }
        Said::Appended { index, commit } => numbers(out, APPENDED, &[index.0, commit.0]),
        Said::Rejected { index, hint, hint_term, commit } => {
            numbers(out, REJECTED, &[index.0, hint.0, hint_term.0, commit.0]);
        }
        Said::Heartbeat { commit, read } => {
            numbers(out, HEARTBEAT, &[commit.0]);
            put_read(out, *read);
        }
        Said::Heard { commit, read } => {
            numbers(out, HEARD, &[commit.0]);
            put_read(out, *read);
        }
        Said::Snapshot(descriptor) => {
            out.push(SNAPSHOT);
            descriptor.encode(out);
        }
        Said::SnapshotRefused { index } => numbers(out, SNAPSHOT_REFUSED, &[index.0]),
        Said::TimeoutNow => out.push(TIMEOUT_NOW),
        Said::Quiesce { commit } => numbers(out, QUIESCE, &[commit.0]),
        Said::Recover => out.push(RECOVER),
        Said::RecoverTo { life, index } => numbers(out, RECOVER_TO, &[life.0, index.0]),
        Said::HowFar { life, number } => numbers(out, HOW_FAR, &[life.0, *number]),
        Said::ThisFar { life, number, index } => numbers(out, THIS_FAR, &[life.0, *number, index.0]),
    }
}

/// Reads what [`encode`] wrote, all of it.
///
/// # Errors
/// [`Unreadable`]; no memory is taken for bytes that are not there.
pub fn decode(bytes: &[u8]) -> Result<Message, Unreadable> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => {}
        other => return Err(Unreadable::Version(other)),
    }
    let group = GroupId(reader.u32()?);
    let from = read_id(&mut reader)?;
    let incarnation = Incarnation(read_number(&mut reader)?);
    let to = read_id(&mut reader)?;
    let term = Term(read_number(&mut reader)?);
    if term.0 == 0 {
        // Without a term the engine takes a message for its own host's.
        return Err(Unreadable::Malformed(DecodeError::Invalid));
    }
    let body = decode_body(&mut reader)?;
    if !reader.is_empty() {
        return Err(Unreadable::Malformed(DecodeError::Invalid));
    }
    Ok(Message { group, from, incarnation, to, term, body })
}

fn decode_body(reader: &mut Reader<'_>) -> Result<Said, Unreadable> {
    let kind = reader.u8()?;
    let index = |reader: &mut Reader<'_>| read_number(reader).map(Index);
    let term = |reader: &mut Reader<'_>| read_number(reader).map(Term);
    Ok(match kind {
        PRE_VOTE => Said::PreVote(read_candidacy(reader)?),
        VOTE => Said::Vote(read_candidacy(reader)?),
        PRE_VOTED => Said::PreVoted(read_ballot(reader)?),
        VOTED => Said::Voted(read_ballot(reader)?),
        APPEND => read_append(reader)?,
        APPENDED => Said::Appended { index: index(reader)?, commit: index(reader)? },
        REJECTED => Said::Rejected {
            index: index(reader)?,
            hint: index(reader)?,
            hint_term: term(reader)?,
            commit: index(reader)?,
        },
        HEARTBEAT => Said::Heartbeat { commit: index(reader)?, read: read_read(reader)? },
        HEARD => Said::Heard { commit: index(reader)?, read: read_read(reader)? },
        SNAPSHOT => Said::Snapshot(Descriptor::decode(reader)?),
        SNAPSHOT_REFUSED => Said::SnapshotRefused { index: index(reader)? },
        TIMEOUT_NOW => Said::TimeoutNow,
        QUIESCE => Said::Quiesce { commit: index(reader)? },
        RECOVER => Said::Recover,
        RECOVER_TO => Said::RecoverTo { life: Incarnation(read_number(reader)?), index: index(reader)? },
        HOW_FAR => Said::HowFar { life: Incarnation(read_number(reader)?), number: reader.varint()? },
        THIS_FAR => Said::ThisFar {
            life: Incarnation(read_number(reader)?),
            number: reader.varint()?,
            index: index(reader)?,
        },
        PROPOSE_FORBIDDEN | READ_INDEX_FORBIDDEN => return Err(Unreadable::Forbidden),
        _ => return Err(Unreadable::Malformed(DecodeError::Invalid)),
    })
}

impl Descriptor {
    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.generation);
        put_varint(out, self.size);
        out.extend_from_slice(&self.checksum.to_le_bytes());
        self.mark.encode(out);
    }

    /// Reads what [`Descriptor::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is none.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Descriptor, DecodeError> {
        let (generation, size, checksum) = (reader.varint()?, reader.varint()?, reader.u64()?);
        Ok(Descriptor { generation, size, checksum, mark: Mark::decode(reader)? })
    }
}

fn put_candidacy(out: &mut Vec<u8>, kind: u8, candidacy: &Candidacy) {
    let Candidacy { last, last_term, commit, commit_term, handed_over } = *candidacy;
    out.push(kind);
    for number in [last.0, last_term.0, commit.0, commit_term.0, u64::from(handed_over)] {
        put_varint(out, number);
    }
}

fn read_candidacy(reader: &mut Reader<'_>) -> Result<Candidacy, DecodeError> {
    Ok(Candidacy {
        last: Index(read_number(reader)?),
        last_term: Term(read_number(reader)?),
        commit: Index(read_number(reader)?),
        commit_term: Term(read_number(reader)?),
        handed_over: read_flag(reader)?,
    })
}

fn put_ballot(out: &mut Vec<u8>, kind: u8, ballot: &Ballot) {
    out.push(kind);
    for number in [u64::from(ballot.granted), ballot.commit.0, ballot.commit_term.0] {
        put_varint(out, number);
    }
}

fn read_ballot(reader: &mut Reader<'_>) -> Result<Ballot, DecodeError> {
    Ok(Ballot {
        granted: read_flag(reader)?,
        commit: Index(read_number(reader)?),
        commit_term: Term(read_number(reader)?),
    })
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid),
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Logged) {
    put_varint(out, entry.term().0);
    put_varint(out, u64::from(entry.semantics()));
    out.extend_from_slice(&entry.time().0.to_le_bytes());
    put_bytes(out, entry.body());
}

fn read_append(reader: &mut Reader<'_>) -> Result<Said, DecodeError> {
    let prev = Index(read_number(reader)?);
    let prev_term = Term(read_number(reader)?);
    let commit = Index(read_number(reader)?);
    let count = reader.len()?;
    if count > ENTRIES_MAX || count * ENTRY_BYTES_MIN > reader.rest().len() {
        return Err(DecodeError::Overflow);
    }
    let mut entries = Vec::with_capacity(count);
    for at in 0..count as u64 {
        let term = Term(read_number(reader)?);
        let semantics = u16::try_from(reader.varint()?).map_err(|_| DecodeError::Overflow)?;
        let time = Micros(reader.u64()?);
        let body = reader.bytes()?;
        if semantics == 0 && time != Micros(0) {
            return Err(DecodeError::Invalid);
        }
        entries.push(Logged::new(term, Index(prev.0 + 1 + at), semantics, time, body));
    }
    Ok(Said::Append { prev, prev_term, commit, entries })
}

fn put_read(out: &mut Vec<u8>, read: Option<ReadContext>) {
    match read {
        None => out.push(0),
        Some(ReadContext { replica, incarnation, sequence }) => {
            out.push(1);
            [replica.get(), incarnation.0, sequence].iter().for_each(|&number| put_varint(out, number));
        }
    }
}

fn read_read(reader: &mut Reader<'_>) -> Result<Option<ReadContext>, DecodeError> {
    if !read_flag(reader)? {
        return Ok(None);
    }
    let replica = read_id(reader)?;
    let incarnation = Incarnation(read_number(reader)?);
    Ok(Some(ReadContext { replica, incarnation, sequence: reader.varint()? }))
}

impl ReadContext {
    /// As the engine carries it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.replica.get(), self.incarnation.0, self.sequence].iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<ReadContext> {
        let mut reader = Reader::new(bytes);
        let replica = ReplicaId::new(reader.u64().ok()?)?;
        let incarnation = Incarnation(reader.u64().ok()?);
        Some(ReadContext { replica, incarnation, sequence: reader.u64().ok()? })
    }
}
