//! What commands answer, as tables; and that a log always gives the same state.

mod bits;
mod harness;
mod keys;
mod lists;
mod random;
mod sort;
mod strings;
