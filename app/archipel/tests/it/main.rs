//! The real binary, as operators use it.
#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

mod answers;
mod keys;
mod process;
mod running;
mod starting;
