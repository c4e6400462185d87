//! The proxy on real sockets.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod ends;
mod http;
mod malformed;
mod tls;
mod world;
