//! The journal on a disk made of memory: what is read back after damage, cuts, crashes and reuse.

mod crash;
mod damage;
mod host;
mod keep;
mod order;
mod passage;
