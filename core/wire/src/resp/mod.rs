//! The Redis serialization protocol, versions 2 and 3, the server's side.
//!
//! Specification: <https://redis.io/docs/reference/protocol-spec>. Requests are multibulk arrays or
//! inline lines; replies are written straight into the connection's output.

mod ahead;
mod encode;
mod parse;

pub use ahead::{AHEAD, Ahead, keys_ahead};
pub use encode::{Encoder, format_double};
pub use parse::{Parser, ProtocolError};
