//! Kademlia: a distributed hash table by XOR distance (Maymounkov & Mazières 2002), hardened.
//!
//! Disjoint lookup paths as in S/Kademlia (Baumgart & Mies 2007); IP diversity in the routing table; records that their
//! publisher signed; and, where a key's neighbourhood is more crowded than the network's size explains, storing and
//! looking in its whole region (after Sridhar et al., "Content Censorship in the InterPlanetary File System", 2023).
//!
//! What it does not do: bytes, streams and their limits, patience (the host tells when a request has failed), and
//! cryptography (a [`Validator`] is handed in).

mod dht;
mod held;
mod lookup;
mod message;
mod query;
mod record;
mod region;
mod serve;
mod size;
mod store;
mod table;
mod upkeep;
mod valid;

pub use dht::{Command, Cost, Dht, Out, Outcome, PUBLISHED_MAX, QUERIES_MAX, REFRESH_MS, Token};
pub use lookup::{ASKED_MAX, Lookup, PATHS_MAX};
pub use message::{DRAWN_BITS_MAX, Message, Nodes, Target};
pub use query::{HOLDERS_MAX, REGION_CONTACTS_MAX};
pub use record::{
    Envelope, NAME_BYTES_MAX, Record, Refusal, SIGNED_PREFIX, Signed, VALUE_BYTES_MAX, Validator,
};
pub use size::{Size, judge, region_bits};
pub use store::{
    PROVIDED_KEYS_MAX, PROVIDERS_MAX, RECORD_BYTES_MAX, RECORDS_MAX, REPUBLISH_MS, SENDER_BYTES_MAX,
    SENDER_PROVIDED_MAX, SENDER_RECORDS_MAX, Store, TTL_MS_DEFAULT, TTL_MS_MAX,
};
pub use table::{
    BUCKET_CONTACTS_MAX, BUCKET_NEIGHBOURS_MAX, BUCKETS, CHECK_MS_MIN, Near, SPARE_CONTACTS_MAX, Seen,
    TABLE_NEIGHBOURS_MAX, Table,
};
pub use valid::{Namespaces, PUBLIC_KEY_PREFIX};

use lookup::Manner;
use thiserror::Error;

/// The owner's numbers make no Kademlia.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Contacts in a bucket and an answer.
    #[error("k is {k}, where 1 to {BUCKET_CONTACTS_MAX} are allowed")]
    K {
        /// What was wanted.
        k: u8,
    },
    /// Questions on their way at once.
    #[error("alpha is {alpha}, where 1 to 16 are allowed")]
    Alpha {
        /// What was wanted.
        alpha: u8,
    },
    /// Disjoint paths.
    #[error("{paths} disjoint paths, where 1 to {PATHS_MAX} are allowed")]
    Paths {
        /// What was wanted.
        paths: u8,
    },
}

/// Whether a crowded neighbourhood is answered by going to its whole region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// The `k` nearest, whoever they are: the plain protocol.
    Nearest,
    /// Where the `k` nearest are three times nearer than the network's size explains, all nodes of the region in which
    /// `k` to `2k` honest ones are expected.
    Whole,
}

/// What the questions of links look like, so which targets can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Links carry keys: any place can be asked for.
    Keys,
    /// Links carry names and the peer hashes them, as libp2p does: places are drawn ([`Target::drawn`]).
    Names,
}

/// How a node takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    manner: Manner,
    /// What it does against crowding.
    pub region: Region,
    /// What its links carry.
    pub links: Links,
    /// How many equal answers to a value's lookup are enough; 0 asks all of the nearest.
    pub quorum: u8,
}

impl Config {
    /// `k` contacts in a bucket, `alpha` questions at once, on so many disjoint `paths`; the region against crowding,
    /// links that carry names, and a quorum of one.
    ///
    /// # Errors
    /// [`ConfigError`] names the number that is out of its range.
    pub const fn new(k: u8, alpha: u8, paths: u8) -> Result<Config, ConfigError> {
        if k < 1 || k as usize > BUCKET_CONTACTS_MAX {
            return Err(ConfigError::K { k });
        }
        if alpha < 1 || alpha > 16 {
            return Err(ConfigError::Alpha { alpha });
        }
        if paths < 1 || paths as usize > PATHS_MAX {
            return Err(ConfigError::Paths { paths });
        }
        let manner = Manner { k, alpha, paths };
        Ok(Config { manner, region: Region::Whole, links: Links::Names, quorum: 1 })
    }

    /// Contacts in a bucket and an answer.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.manner.k as usize
    }
}
