//! The real binary, as operators use it.

mod answers;
mod keys;
mod process;
mod running;
mod starting;
