//! A worker fed with clients' bytes, on a log in memory.

mod administration;
mod blocking;
mod cluster;
mod divided;
mod entry;
mod fetching;
mod harness;
mod introspection;
mod keyspaces;
mod latency;
mod memory;
mod mind;
mod publishing;
mod several;
mod slices;
mod stalls;
mod standstill;
mod swap;
mod transactions;
mod transfer;
mod truncation;
mod whole;
