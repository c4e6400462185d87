//! The node's log as the worker sees it.

use std::sync::Arc;

use consensus::Durability;
use disk::log::{Log, LogError};
use journal::Record;
use kernel::Lsn;
use node::{AppendError, LogSink};

/// Appends to the shared log and tells the operator, once, why it does not.
pub struct SharedLog {
    log: Arc<Log>,
    refusing: bool,
}

impl SharedLog {
    /// The end of `log` that one worker holds.
    #[must_use]
    pub const fn new(log: Arc<Log>) -> SharedLog {
        SharedLog { log, refusing: false }
    }
}

impl LogSink for SharedLog {
    fn append(&mut self, records: &[Record<'_>], durability: Durability) -> Result<Lsn, AppendError> {
        let durability = match durability {
            Durability::Always => disk::log::Durability::Always,
            Durability::EverySec => disk::log::Durability::EverySec,
        };
        let result = self.log.append(records, durability);
        match &result {
            Ok(_) if self.refusing => tracing::info!("the log takes writes again"),
            Err(error) if !self.refusing => tracing::error!(%error, "the log refuses writes"),
            _ => {}
        }
        self.refusing = result.is_err();
        result.map_err(|error| match error {
            LogError::Poisoned | LogError::File { .. } | LogError::Refused { .. } => AppendError::Failed,
            LogError::Full | LogError::Unprepared(_) => AppendError::Full,
            LogError::TooLarge { .. } | LogError::SegmentBytes { .. } => AppendError::TooLarge,
        })
    }
}
