//! The parts of a node joined as the server joins them, on sockets.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod joining;
mod loops;
mod mutual;
