//! Services: which endpoint a request goes to, and when it does not go at all.
//!
//! Everything here is per worker and in memory: no lock, no clock, no socket. A request asks, in this order, the
//! [`limit`] of its key, the [`breaker`] of its service, the [`balance`] over the endpoints that [`outlier`] left in, and if
//! it failed, [`retry`]. Each of them is told how the request ended.
#![no_std]
extern crate alloc;

pub mod balance;
pub mod breaker;
pub mod health;
pub mod limit;
pub mod outlier;
pub mod queue;
pub mod registry;
pub mod retry;
pub mod route;
pub mod source;
pub mod spiffe;
pub mod sticky;
pub mod upstream;
mod window;

/// How a request at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, and not with a failure of the endpoint's.
    Success,
    /// The endpoint failed: it could not be reached, reset the connection, or answered with a 5xx.
    Failure,
    /// It took longer than it may. Whether it was done is unknown.
    Timeout,
    /// The client went away first: it says nothing about the endpoint.
    Abandoned,
}

impl Outcome {
    /// Whether it counts against the endpoint.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Outcome::Failure | Outcome::Timeout)
    }
}
