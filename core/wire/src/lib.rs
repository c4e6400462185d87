//! Other people's formats. Bytes become values without copying, and limits hold before memory is taken.
#![no_std]
extern crate alloc;

pub mod dns;
pub mod http1;
pub mod kad;
pub mod proxied;
pub mod resp;
pub mod tls;
