//! The node's files: the segmented log and the storage engine.

pub mod engine;
pub mod log;
