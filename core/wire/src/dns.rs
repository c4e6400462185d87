//! DNS messages of a server: questions in, answers out (RFC 1035; EDNS0, RFC 6891; SRV, RFC 2782).
//!
//! One question in each query, as every client sends it. Names are compared without case (RFC 4343) and answered in the case
//! of the question, which some resolvers draw by chance and check. What does not fit is left out by whole records, with
//! the truncation bit, and the client asks again over TCP.

mod decode;
mod encode;
mod name;

pub use decode::{Answered, Edns, NoAnswer, Query, QueryError};
pub use encode::Response;
pub use name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, Name, NameError};

/// A message's header.
pub const HEADER_BYTES: usize = 12;
/// What every client can take in a datagram.
pub const UDP_BYTES_MIN: usize = 512;
/// What is sent in a datagram at most, whatever the client says that it takes: more would be cut into fragments, which
/// are lost and forged (DNS flag day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
/// A message over TCP.
pub const TCP_BYTES_MAX: usize = 65_535;

/// A type of records. Others than these are numbers that are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u16);

impl Kind {
    /// An IPv4 address.
    pub const A: Kind = Kind(1);
    /// A name server.
    pub const NS: Kind = Kind(2);
    /// Another name.
    pub const CNAME: Kind = Kind(5);
    /// The zone's authority.
    pub const SOA: Kind = Kind(6);
    /// An address's name.
    pub const PTR: Kind = Kind(12);
    /// Text.
    pub const TXT: Kind = Kind(16);
    /// An IPv6 address.
    pub const AAAA: Kind = Kind(28);
    /// A service's host and port.
    pub const SRV: Kind = Kind(33);
    /// The pseudo-record of EDNS.
    pub const OPT: Kind = Kind(41);
    /// All there are; answered with what there is (RFC 8482 allows less).
    pub const ANY: Kind = Kind(255);
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// It was answered; without records the name exists and has none of this type (NODATA).
    NoError,
    /// It could not be read.
    FormErr,
    /// It could not be answered now.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// Such queries are not answered here.
    NotImp,
    /// It is not answered for this client, or this zone is none of ours.
    Refused,
    /// An EDNS version that is not known.
    BadVers,
}

impl Rcode {
    const fn number(self) -> u16 {
        match self {
            Rcode::NoError => 0,
            Rcode::FormErr => 1,
            Rcode::ServFail => 2,
            Rcode::NxDomain => 3,
            Rcode::NotImp => 4,
            Rcode::Refused => 5,
            Rcode::BadVers => 16,
        }
    }
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// An IPv4 address.
    A([u8; 4]),
    /// An IPv6 address.
    Aaaa([u8; 16]),
    /// A service's host and port.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// Among equals, more often.
        weight: u16,
        /// Its port.
        port: u16,
        /// Its host.
        target: &'a Name,
    },
    /// Texts of at most 255 bytes each; what is longer is cut.
    Txt(&'a [&'a [u8]]),
    /// A name server.
    Ns(&'a Name),
    /// Another name.
    Cname(&'a Name),
    /// An address's name.
    Ptr(&'a Name),
    /// The zone's authority; times in seconds.
    Soa {
        /// The first name server.
        server: &'a Name,
        /// Who is responsible.
        mailbox: &'a Name,
        /// One more with each change.
        serial: u32,
        /// How long an answer that there is no such record may be kept.
        negative_ttl: u32,
    },
}

impl Data<'_> {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Data::A(_) => Kind::A,
            Data::Aaaa(_) => Kind::AAAA,
            Data::Srv { .. } => Kind::SRV,
            Data::Txt(_) => Kind::TXT,
            Data::Ns(_) => Kind::NS,
            Data::Cname(_) => Kind::CNAME,
            Data::Ptr(_) => Kind::PTR,
            Data::Soa { .. } => Kind::SOA,
        }
    }
}

/// A part of a response, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who is responsible; with an empty answer, how long that may be kept.
    Authority,
    /// What will be asked for next.
    Additional,
}

#[cfg(test)]
mod tests;
