//! Assembles a node: recovers its partitions, starts its threads, and stops them in order.

pub mod admin;
mod ask;
pub mod checkpoint;
pub mod cluster;
pub mod config;
mod divisions;
mod dns;
pub mod doctor;
mod durable;
pub mod fetch;
mod held;
mod housekeep;
mod identity;
mod keeping;
pub mod load;
pub mod lock;
pub mod log;
pub mod node;
mod otlp;
pub mod p2p;
mod persist;
pub mod proxy;
mod relay;
mod rendezvous;
pub mod restore;
pub mod serve;
pub mod services;
mod snapshot;
pub mod takeover;
pub mod tls;

pub use ::node::{PARTITIONS_MAX, moment, standstill};
pub use config::Config;
pub use disk::backup;
pub use kernel;
pub use node::{Node, NodeError, NodeOptions};
pub use serve::{Beginning, Joining, ServeError, Server, engine_options, password};
