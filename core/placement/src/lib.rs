//! Where things are: keys to slots, slots to partitions, partitions to nodes; keys to members of a ring.
#![no_std]
extern crate alloc;

pub mod maglev;
pub mod ring;
pub mod slot;
pub mod solve;

pub use maglev::Maglev;
pub use ring::{Point, Ring};
pub use slot::{Partitions, Slot};
