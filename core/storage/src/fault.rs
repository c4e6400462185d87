//! Why a command is refused: the caller's faults, with the texts Redis's clients know.

use alloc::format;
use alloc::string::String;

use thiserror::Error;

/// A command's error reply. `Display` is the whole error line, prefix included.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// An option is unknown or options contradict each other.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument or a stored value is not a 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// An argument or a stored value is not a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A count or index is outside the allowed range.
    #[error("ERR value is out of range")]
    OutOfRange,
    /// A count must be positive.
    #[error("ERR value is out of range, must be positive")]
    NotPositive,
    /// The key must exist.
    #[error("ERR no such key")]
    NoSuchKey,
    /// An index outside a list.
    #[error("ERR index out of range")]
    IndexOutOfRange,
    /// An addition left the 64-bit range.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// A string would become larger than `VALUE_BYTES_MAX`.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// The key is longer than `KEY_BYTES_MAX`.
    #[error("ERR key of {size} bytes is longer than the limit of {limit} bytes; use a shorter key")]
    KeyTooLong {
        /// Bytes of the key.
        size: usize,
        /// The limit it broke.
        limit: usize,
    },
    /// The arity does not fit.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// An expiry that is not positive or beyond the end of time.
    #[error("ERR invalid expire time in '{0}' command")]
    Expire(&'static str),
    /// Any other fixed text, prefix included.
    #[error("{0}")]
    Text(&'static str),
    /// Any other text with data in it, prefix included.
    #[error("{0}")]
    Said(String),
}

impl Fault {
    /// Hands the error line to `sink`; the fixed texts without allocating.
    pub fn write_to(&self, sink: &mut dyn FnMut(&str)) {
        match self {
            Fault::Text(text) => sink(text),
            Fault::Said(text) => sink(text),
            other => sink(&format!("{other}")),
        }
    }
}
