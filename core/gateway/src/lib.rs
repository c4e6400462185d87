//! Sessions of foreign clients: their bytes in, commands out, replies back in order.
//!
//! A session decides what a client's bytes mean and in what order it is answered. It reaches the node
//! only through its [`resp::Host`]. [`consul`] and [`dns`] need no session: a request is answered, or waits.
#![no_std]
extern crate alloc;

pub mod consul;
pub mod dns;
pub mod resp;
