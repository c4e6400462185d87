//! The node's files: the segmented log, the storage engine, and backups of it.

pub mod backup;
pub mod engine;
pub mod log;
