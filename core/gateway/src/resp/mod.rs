//! Redis clients: RESP2 and RESP3 sessions.
//!
//! `session` reads commands and routes them; `host` is what a session needs of its node; `io` keeps
//! replies in the order of their commands; `transaction` is MULTI; `connection` answers the commands that
//! concern the connection itself.

mod connection;
mod host;
mod io;
mod session;
mod transaction;

pub use host::{Host, Submitted};
pub use io::{Io, RespReply, Sequence};
pub use session::{Fed, Session, State};
