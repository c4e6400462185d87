//! HTTP/1.1 as a proxy reads it: heads in place, and how long bodies are (RFC 9112).
//!
//! Strict where recipients disagree, because that is where requests are smuggled: line ends are CRLF, nothing is folded, a
//! message has at most one length, and what is not understood is refused instead of guessed. A head that is refused has not
//! been forwarded, and its connection is closed.

mod chunked;
mod cookie;
mod forward;
mod forwarded;
mod head;
mod relay;

pub use chunked::{ChunkError, Chunks, Part};
pub use cookie::cookie;
pub use forward::{Connection, Frame, Onward, Trace, frame, request, response};
pub use forwarded::{ForwardedBy, hops};
pub use head::{HeadError, Headers, Request, Response, Target, Version, is_token};
pub use relay::Relay;

/// A head, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The first line of a request, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Header fields of one head.
pub const HEADERS_MAX: usize = 100;
/// Fields that `Connection` names besides `close`, `keep-alive` and `upgrade`.
pub const CONNECTION_FIELDS_MAX: usize = 16;
/// A chunk's first line, extensions included, in bytes.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// All trailer fields of a body, in bytes.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes; at least 1.
    Length(u64),
    /// In chunks that say how long they are.
    Chunked,
    /// As long as the connection; only of a response.
    UntilClose,
}

#[cfg(test)]
mod onward_tests;
#[cfg(test)]
mod tests;
