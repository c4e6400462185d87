//! A node as machines: workers that join sessions, partitions and their groups.
//!
//! A worker is driven in turns: the host hands in what arrived, then calls
//! [`Worker::end_turn`], which logs everything the turn decided in one append.
#![no_std]
extern crate alloc;

mod abroad;
pub mod agreement;
mod apply;
mod budget;
mod clients;
pub mod cluster;
mod connection;
pub mod division;
mod errand;
pub mod fetching;
mod host;
mod keyspaces;
pub mod moment;
mod observer;
pub mod parcel;
pub mod partition;
mod pubsub;
pub mod recover;
mod replica;
pub mod route;
mod scatter;
mod slices;
pub mod standstill;
mod submit;
mod swap;
mod time;
pub mod worker;

pub use agreement::Agreement;
pub use clients::OUTPUT_STALL_MILLIS_MAX;
pub use division::{DivisionError, Divisions};
pub use fetching::{Fetch, Fetched};
pub use observer::Observer;
pub use parcel::Parcel;
pub use partition::Partition;
pub use recover::{RecoverError, Recovery, Replays};
pub use route::{Elsewhere, PARTITIONS_MAX, owner};
pub use slices::SliceSteps;
pub use worker::{AppendError, LogSink, Settings, Worker};
