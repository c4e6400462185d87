//! What commands answer, as tables; and that a log always gives the same state.

mod bits;
mod families;
mod graveyard;
mod harness;
mod hashes;
mod keys;
mod lists;
mod long;
mod random;
mod sessions;
mod sets;
mod shapes;
mod sort;
mod strings;
mod zset;
mod zset_random;
mod zset_range;
mod zset_store;
