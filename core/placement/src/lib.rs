//! Where things are: keys to slots, slots to partitions, partitions to nodes.
#![no_std]
extern crate alloc;

pub mod slot;

pub use slot::{Partitions, Slot};
