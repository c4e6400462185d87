//! The lab: theorems and promises as checks that can fail, run on the production code in virtual time.
//!
//! A [`Claim`] names what it says, who said it, its parameters, the figures it measures with their bounds, and a
//! negative control: the same judge on something broken, which it must catch. A seed decides every run.

pub mod claim;
pub mod graph;
pub mod judge;
pub mod plot;
pub mod report;
pub mod service;

pub use claim::{ALL, Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run, find};
pub use judge::{Judgement, Verdict, judge};
