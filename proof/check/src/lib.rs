//! The judges: they watch what clients were told and what the log holds, and say when a promise broke.
//!
//! A judge believes nobody: the log's entries are applied again by a [`Model`] of its own, every reply is
//! compared with the model's, and what a crash leaves is compared with what was written before it.

pub mod cell;
pub mod client;
pub mod join;
pub mod judge;
pub mod ledger;
pub mod linear;
pub mod model;
pub mod reply;

pub use join::{Join, Part};
pub use judge::{Call, Judge, Transfer};
pub use ledger::{Crash, Found, Ledger, Written};
pub use model::Model;

use thiserror::Error;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// The promise, in a few words.
    pub rule: &'static str,
    /// What was seen instead.
    pub what: String,
}

/// `Err` with this violation.
pub(crate) fn violated<T>(rule: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { rule, what })
}
