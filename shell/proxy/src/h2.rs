//! HTTP/2 at both edges of the proxy, and HTTP/1.1 between them.
//!
//! A stream becomes a client, or a connection to an endpoint, whose socket is a pair of bounded queues (`ends`) with
//! HTTP/1.1 in them. So there is one place for routes, tries, limits and deadlines, and what a stream says goes through the
//! same strict reading as what a socket says. Frames, HPACK and flow control are the `h2` crate's; it sees no socket and no
//! executor, but queues too (`pipe`), and is asked to go on when something has changed.

mod body;
mod ends;
mod message;
mod pipe;
mod session;
mod trunk;
mod websocket;

pub(crate) use ends::{Bells, StreamSocket};
pub(crate) use session::Session;
pub(crate) use trunk::Trunk;

/// Streams of one connection at once.
pub(crate) const STREAMS_MAX: u32 = 128;
/// All fields of a head, in bytes as HTTP/2 counts them.
const HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;
/// Bytes of one stream's body that may come before they were taken.
const WINDOW_BYTES: u32 = 256 * 1024;
/// The same of all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of one stream's body that wait in frames to be sent.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client may have reset above those that it let end, before it is sent away: opening and resetting costs
/// it nothing, and us a request each (CVE-2023-44487).
const RESETS_MAX: u32 = 100;
