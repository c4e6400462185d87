//! Checks as their owners want them, and why one is not taken.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use thiserror::Error;

use super::NODE_CHECKS_MAX;
use crate::registry::record::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX};
use crate::registry::{Check, Health, RecordError, RegisterError};

/// Shortest time between two probes of a check, in milliseconds.
pub const INTERVAL_MS_MIN: u64 = 100;
/// Longest time of any kind, in milliseconds.
pub const TIME_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Longest time that a probe may take, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 60_000;
/// Longest target of a probe, in bytes.
pub const TARGET_BYTES_MAX: usize = 2048;
/// Header lines of a probe, at most.
pub const HEADERS_MAX: usize = 32;
/// Largest body of a probe, in bytes.
pub const BODY_BYTES_MAX: usize = 4096;
/// Most successes or failures in a row that may be asked for.
pub const RUN_MAX: u32 = 100;

/// How a check is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// A request; 2xx is passing, 429 warning, everything else critical.
    Http {
        /// `http://host:port/path`.
        url: String,
        /// Such as GET.
        method: String,
        /// Its header lines.
        headers: Vec<(String, String)>,
        /// Its body.
        body: String,
    },
    /// A connection that is accepted.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// gRPC's own health service (`grpc.health.v1`), in plain text.
    Grpc {
        /// `host:port`, perhaps with `/service` behind it.
        address: String,
    },
    /// Somebody says how it is, again before the time is up.
    Ttl {
        /// For how long it counts, in milliseconds.
        ttl_ms: u64,
    },
    /// As good as a service of this node is.
    Alias {
        /// The id of its instance; empty is the node itself.
        service: String,
    },
}

impl How {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            How::Http { .. } => "http",
            How::Tcp { .. } => "tcp",
            How::Grpc { .. } => "grpc",
            How::Ttl { .. } => "ttl",
            How::Alias { .. } => "alias",
        }
    }
}

/// A check as its owner wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its id, once on its node.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What its owner wrote about it.
    pub notes: String,
    /// How it is made.
    pub how: How,
    /// Time between two probes, in milliseconds.
    pub interval_ms: u64,
    /// How long a probe may take, in milliseconds.
    pub timeout_ms: u64,
    /// Successes in a row that make it passing.
    pub rise: u32,
    /// Failures in a row that make it critical.
    pub fall: u32,
    /// For how long it may be critical before its instance is taken back, in milliseconds; 0 is for ever.
    pub deregister_ms: u64,
    /// How it is before anything is known.
    pub status: Health,
}

impl Default for Definition {
    fn default() -> Definition {
        Definition {
            id: String::new(),
            name: String::new(),
            notes: String::new(),
            how: How::Ttl { ttl_ms: 10_000 },
            interval_ms: 10_000,
            timeout_ms: 10_000,
            rise: 1,
            fall: 1,
            deregister_ms: 0,
            status: Health::Critical,
        }
    }
}

/// Why a check is not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// What it is of, or itself.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A time that it cannot have.
    #[error("{what} of {ms} ms is not one of {least} to {most} ms")]
    Time {
        /// Which.
        what: &'static str,
        /// As it is.
        ms: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// A number of results that it cannot have.
    #[error("{runs} results in a row are not one of 1 to {RUN_MAX}")]
    Runs {
        /// As it is.
        runs: u32,
    },
    /// Where it looks, or what it sends, is too long or broken.
    #[error("the target of the check {id:?} is not one that can be asked")]
    Target {
        /// Which check.
        id: String,
    },
    /// Its id is that of another instance's check.
    #[error("the check {id:?} is one of another service already")]
    Taken {
        /// Which.
        id: String,
    },
    /// There is none.
    #[error("there is no check {id:?} at this node")]
    Unknown {
        /// Which.
        id: String,
    },
    /// Nobody renews it: it is made by probes.
    #[error("the check {id:?} has no TTL")]
    NoTtl {
        /// Which.
        id: String,
    },
    /// The node has its share.
    #[error("this node has {NODE_CHECKS_MAX} checks already")]
    Full,
}

impl From<RecordError> for CheckError {
    fn from(error: RecordError) -> CheckError {
        CheckError::Register(error.into())
    }
}

fn within(what: &'static str, ms: u64, least: u64, most: u64) -> Result<(), CheckError> {
    if (least..=most).contains(&ms) { Ok(()) } else { Err(CheckError::Time { what, ms, least, most }) }
}

impl Definition {
    /// Whether it is within its bounds.
    ///
    /// # Errors
    /// [`CheckError`]
    pub fn valid(&self) -> Result<(), CheckError> {
        self.check(self.status, String::new()).valid()?;
        for runs in [self.rise, self.fall] {
            if !(1..=RUN_MAX).contains(&runs) {
                return Err(CheckError::Runs { runs });
            }
        }
        within("the time to deregister", self.deregister_ms, 0, TIME_MS_MAX)?;
        let is_plain = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
        let can_be_asked = match &self.how {
            How::Http { url, method, headers, body } => {
                url.starts_with("http://")
                    && is_plain(url, TARGET_BYTES_MAX)
                    && !url.contains(' ')
                    && !method.is_empty()
                    && method.len() <= 16
                    && method.bytes().all(|byte| byte.is_ascii_alphabetic())
                    && headers.len() <= HEADERS_MAX
                    && headers.iter().all(|(name, value)| {
                        is_plain(name, NAME_BYTES_MAX)
                            && is_plain(value, TARGET_BYTES_MAX)
                            && !name.contains([':', ' '])
                    })
                    && body.len() <= BODY_BYTES_MAX
            }
            How::Tcp { address } | How::Grpc { address } => {
                is_plain(address, ADDRESS_BYTES_MAX) && address.contains(':')
            }
            How::Ttl { ttl_ms } => return within("the TTL", *ttl_ms, 1, TIME_MS_MAX),
            How::Alias { service } => is_plain(service, NAME_BYTES_MAX),
        };
        if !can_be_asked {
            return Err(CheckError::Target { id: self.id.clone() });
        }
        within("the interval", self.interval_ms, INTERVAL_MS_MIN, TIME_MS_MAX)?;
        within("the timeout", self.timeout_ms, 1, TIMEOUT_MS_MAX)
    }

    /// As the registry has it, with what is said now.
    pub(super) fn check(&self, status: Health, output: String) -> Check {
        let name = if self.name.is_empty() { self.id.clone() } else { self.name.clone() };
        let kind = self.how.word().to_string();
        let mut check = Check { id: self.id.clone(), name, kind, status, notes: self.notes.clone(), output };
        check.cut();
        check
    }
}
