//! Limits: how many requests a key may make ([`gcra`]), and how many a service takes at once ([`adaptive`]).

pub mod adaptive;
pub mod gcra;

pub use adaptive::{Adaptive, AdaptiveOptions, Priority};
pub use gcra::{Gcra, Keyed, Rate};
