//! Bytes to queries.

use alloc::vec::Vec;

use thiserror::Error;

use super::{HEADER_BYTES, Kind, Name, NameError, Rcode, UDP_BYTES_MAX, UDP_BYTES_MIN};

const RESPONSE: u16 = 1 << 15;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const CHECKING_DISABLED: u16 = 1 << 4;
/// Records behind the question that are looked at for OPT; honest clients send one.
const EXTRA_MAX: u16 = 8;

/// Why a query is not answered, or answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// Not even a header, or a response: nothing is sent, or two servers could answer each other for ever.
    #[error("no query")]
    Silent,
    /// The header is known, what follows is not a question.
    #[error("a query that cannot be read")]
    Malformed {
        /// Whose.
        id: u16,
    },
    /// Another operation than a query.
    #[error("operation {opcode} is not offered")]
    Opcode {
        /// Whose.
        id: u16,
        /// Which.
        opcode: u8,
    },
}

impl QueryError {
    /// The query's id and what it is answered, if anything.
    #[must_use]
    pub const fn answer(self) -> Option<(u16, Rcode)> {
        match self {
            QueryError::Silent => None,
            QueryError::Malformed { id } => Some((id, Rcode::FormErr)),
            QueryError::Opcode { id, .. } => Some((id, Rcode::NotImp)),
        }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Given back in the response.
    pub id: u16,
    /// The client wants what others know, too.
    pub recursion: bool,
    /// The client checks signatures itself.
    pub unchecked: bool,
    /// Whose records.
    pub name: Name,
    /// Which.
    pub kind: Kind,
    /// Of which class: 1 is the Internet, 255 any.
    pub class: u16,
    /// What the client says of itself by EDNS.
    pub edns: Option<Edns>,
}

/// What a client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest datagram that it takes, in bytes.
    pub payload: u16,
    /// The version; 0 is known.
    pub version: u8,
    /// It wants signatures.
    pub signatures: bool,
}

impl Query {
    /// The query in `message`.
    ///
    /// # Errors
    /// [`QueryError`], which says what to answer.
    pub fn decode(message: &[u8]) -> Result<Query, QueryError> {
        let field = |at: usize| message.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let header = [field(0), field(2), field(4), field(6), field(8), field(10)];
        let [Some(id), Some(flags), Some(questions), Some(answers), Some(authorities), Some(extra)] = header
        else {
            return Err(QueryError::Silent);
        };
        if flags & RESPONSE != 0 {
            return Err(QueryError::Silent);
        }
        let opcode = (flags >> 11 & 0xF) as u8;
        if opcode != 0 {
            return Err(QueryError::Opcode { id, opcode });
        }
        let malformed = QueryError::Malformed { id };
        if questions != 1 || answers != 0 || authorities != 0 || extra > EXTRA_MAX {
            return Err(malformed);
        }
        let (name, at) = Name::read(message, HEADER_BYTES).map_err(|_| malformed)?;
        let (Some(kind), Some(class)) = (field(at), field(at + 2)) else { return Err(malformed) };
        let edns = read_edns(message, at + 4, extra).map_err(|_| malformed)?;
        let (recursion, unchecked) = (flags & RECURSION_DESIRED != 0, flags & CHECKING_DISABLED != 0);
        Ok(Query { id, recursion, unchecked, name, kind: Kind(kind), class, edns })
    }

    /// The largest datagram that may answer it, in bytes.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        self.edns.map_or(UDP_BYTES_MIN, |edns| usize::from(edns.payload).clamp(UDP_BYTES_MIN, UDP_BYTES_MAX))
    }
}

/// Why a message is not taken as the answer to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no answer to this query")]
pub struct NoAnswer;

/// What the header of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// It does not have all that there is: it is asked again over TCP.
    pub cut: bool,
    /// How it ended, without the bits that EDNS adds.
    pub rcode: u8,
}

impl Query {
    /// The message that asks this of another server.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        let bit = |is: bool, bit: u16| if is { bit } else { 0 };
        let flags = bit(self.recursion, RECURSION_DESIRED) | bit(self.unchecked, CHECKING_DISABLED);
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend_from_slice(self.name.bytes());
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.class.to_be_bytes());
        if let Some(Edns { payload, version, signatures }) = self.edns {
            let [high, low] = payload.to_be_bytes();
            let signatures = if signatures { 0x80 } else { 0 };
            out.extend_from_slice(&[0, 0, 41, high, low, 0, version, signatures, 0, 0, 0]);
        }
    }

    /// What `message` says, if it is an answer to this: the same id, the same question, a response. Records are not looked at.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub fn answered(&self, message: &[u8]) -> Result<Answered, NoAnswer> {
        let field = |at: usize| message.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let (Some(id), Some(flags), Some(1)) = (field(0), field(2), field(4)) else { return Err(NoAnswer) };
        if id != self.id || flags & RESPONSE == 0 || flags >> 11 & 0xF != 0 {
            return Err(NoAnswer);
        }
        let (name, at) = Name::read(message, HEADER_BYTES).map_err(|_| NoAnswer)?;
        if name != self.name || field(at) != Some(self.kind.0) || field(at + 2) != Some(self.class) {
            return Err(NoAnswer);
        }
        Ok(Answered { cut: flags & TRUNCATED != 0, rcode: (flags & 0xF) as u8 })
    }
}

fn read_edns(message: &[u8], mut at: usize, extra: u16) -> Result<Option<Edns>, NameError> {
    let mut edns = None;
    for _ in 0..extra {
        let (name, head) = Name::read(message, at)?;
        let fields = message.get(head..head + 10).ok_or(NameError::Malformed)?;
        let two = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
        at = head + 10 + usize::from(two(8));
        if at > message.len() {
            return Err(NameError::Malformed);
        }
        if Kind(two(0)) == Kind::OPT {
            // More than one, or one with a name, is a format error (RFC 6891, 6.1.1).
            if edns.is_some() || name != Name::root() {
                return Err(NameError::Malformed);
            }
            edns = Some(Edns { payload: two(2), version: fields[5], signatures: fields[6] & 0x80 != 0 });
        }
    }
    Ok(edns)
}
