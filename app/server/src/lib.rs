//! Assembles a node: recovers its partitions, starts its threads, and stops them in order.

pub mod checkpoint;
pub mod load;
pub mod config;
pub mod log;
pub mod node;

pub use config::Config;
pub use node::{Node, NodeError, NodeOptions};
