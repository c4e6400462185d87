//! Links between nodes in one thread: real sockets on loopback, and time that the tests make pass.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod campaign;
mod harness;
mod hostile;
mod joining;
mod linked;
mod overlay;
mod overlay_own;
mod raw;
