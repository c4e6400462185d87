//! What a node counts and measures, time among it, and how it is read.
//!
//! A worker's figure has one writer, so writing is a relaxed load and store: no lock, no bus-locked instruction.
//! Readers may come at any time and see each figure as it was a moment ago; figures of one scrape need not
//! belong to the same moment. What belongs to the state (keys, memory) is not kept here: it is asked for.

mod clock;
mod exposition;
mod histogram;
mod meter;
pub mod otlp;
pub mod trace;

pub use clock::Clock;
pub use exposition::{Exposition, Number, Unit};
pub use histogram::{Distribution, Histogram};
pub use meter::{Counter, Gauge};

/// What one worker's event loop measures. Its thread is the only writer.
#[derive(Debug, Default)]
pub struct WorkerMeters {
    /// Clients taken.
    pub accepted: Counter,
    /// Clients refused because there were too many.
    pub rejected: Counter,
    /// Clients now.
    pub connections: Gauge,
    /// Bytes read from clients.
    pub input_bytes: Counter,
    /// Bytes written to clients.
    pub output_bytes: Counter,
    /// Commands on keys.
    pub commands: Counter,
    /// Microseconds of turns that had something to do, the wait before them not counted.
    pub turn_micros: Histogram,
    /// Commands of a turn that had any.
    pub batch: Histogram,
    /// Microseconds from an append until it is durable. One append at a time is measured.
    pub sync_micros: Histogram,
}

/// What the node's log, engine and memory budget measure. Workers count in it together.
#[derive(Debug, Default)]
pub struct StorageMeters {
    /// Bytes of the log's segments on disk.
    pub log_bytes: Gauge,
    /// Those among them that are there for backups only.
    pub log_reserved_bytes: Gauge,
    /// Workers whose last append the log refused, and may take again.
    pub log_refusing: Gauge,
    /// 1 once the log has failed for good.
    pub log_failed: Gauge,
    /// Times that the log refused an append.
    pub log_refusals: Counter,
    /// Microseconds that checkpoints took in the engine.
    pub checkpoint_micros: Histogram,
    /// Workers whose last checkpoint failed.
    pub checkpoint_failed: Gauge,
    /// Checkpoints on their way to the engine.
    pub checkpoint_running: Gauge,
    /// When the last checkpoint became durable, in milliseconds since 1970; 0 if none has.
    pub checkpoint_millis: Gauge,
    /// Keys deleted to keep to a memory budget.
    pub evicted_keys: Counter,
    /// Bytes of bodies that left memory to keep to a budget; they are on disk.
    pub evicted_bytes: Counter,
    /// Bodies that were read back.
    pub misses: Counter,
    /// Those among them for which a worker had to wait.
    pub blocking_misses: Counter,
    /// Old entries that were read from the log for followers.
    pub old_entries: Counter,
    /// Snapshots from leaders that took the place of a copy's state.
    pub installs: Counter,
    /// Bytes of the data directory when it was last measured.
    pub directory_bytes: Gauge,
    /// 1 while the directory is above its quota and writes are refused.
    pub quota_exceeded: Gauge,
}
