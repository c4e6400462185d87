//! The real binary, as operators use it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod absent;
mod answers;
mod backups;
mod cluster;
mod consistent;
mod desired;
mod embedded;
mod finding;
mod kept;
mod keys;
mod lab;
mod larger;
mod moments;
mod p2p;
mod p2p_messages;
mod p2p_nat;
mod partitions;
mod process;
mod recovering;
mod running;
mod settings;
mod standing;
mod starting;
mod takeover;
mod unheard;
mod versions;
mod workers;
