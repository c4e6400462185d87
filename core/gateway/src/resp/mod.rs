//! Redis clients: RESP2 and RESP3 sessions.
//!
//! `session` reads commands and routes them; `host` is what a session needs of its node; `io` keeps
//! replies in the order of their commands; `table` lists the commands that sessions answer themselves, one
//! file for each family of them; `transaction` is MULTI.

mod acl;
mod call;
mod client;
pub mod cluster;
pub mod config;
mod debug;
mod function;
mod hello;
mod histogram;
mod host;
pub mod info;
mod introspect;
mod io;
mod keyspaces;
pub mod latency;
mod pubsub;
mod server;
mod session;
pub mod slowlog;
mod table;
mod transaction;
mod unoffered;
pub mod users;
mod whole;

pub use client::Client;
pub use cluster::{Address, ClusterNode, ClusterView, Copies};
pub use config::Config;
pub use hello::REDIS_VERSION;
pub use histogram::{Counts, Histograms};
pub use host::{
    Host, OUT_OF_MEMORY, Pause, Release, Request, Submitted, Swappable, Topic, Transfer, Transferred,
    Unblocked,
};
pub use info::{Behind, Facts, Keyspace, Process};
pub use io::{Io, RespReply, Sequence};
pub use latency::Latency;
pub use pubsub::{PUBSUB_OUTPUT_BYTES_MAX, put_message};
pub use session::{Fed, OUTPUT_BYTES_HIGH, Origin, Session, State};
pub use slowlog::{Slow, Slowlog};
pub use users::{DEFAULT_USER, Secret, Users};
pub use whole::{Order, Progress, Setting, Survey, Then};
