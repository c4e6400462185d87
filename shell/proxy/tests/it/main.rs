//! The proxy on real sockets.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod descriptors;
mod ends;
mod http;
mod http2;
mod introduce;
mod malformed;
mod mirror;
mod mutual;
mod queue;
mod spans;
mod sticky;
mod telling;
mod tls;
mod trunks;
mod websocket;
mod world;
