//! The node's log as the worker sees it.

use std::sync::Arc;

use consensus::Durability;
use disk::log::{Log, LogError};
use journal::Record;
use kernel::Lsn;
use node::{AppendError, LogSink};
use telemetry::StorageMeters;

/// Appends to the shared log and tells the operator, once, why it does not.
pub struct SharedLog {
    log: Arc<Log>,
    refusing: bool,
    meters: Arc<StorageMeters>,
}

impl SharedLog {
    /// The end of `log` that one worker holds.
    #[must_use]
    pub const fn new(log: Arc<Log>, meters: Arc<StorageMeters>) -> SharedLog {
        SharedLog { log, refusing: false, meters }
    }
}

impl SharedLog {
    fn note(&mut self, result: &Result<Lsn, LogError>) {
        let before = std::mem::replace(&mut self.refusing, result.is_err());
        self.meters.log_refusing.shift(before.into(), self.refusing.into());
        match result {
            Ok(_) | Err(LogError::TooLarge { .. } | LogError::Full | LogError::Unprepared(_)) => {}
            Err(
                LogError::Poisoned
                | LogError::File { .. }
                | LogError::Refused { .. }
                | LogError::SegmentBytes { .. },
            ) => self.meters.log_failed.set(1),
        }
        if self.refusing {
            self.meters.log_refusals.add_among_others(1);
        }
    }
}

impl LogSink for SharedLog {
    fn append(&mut self, records: &[Record<'_>], durability: Durability) -> Result<Lsn, AppendError> {
        if self.meters.quota_exceeded.get() > 0 {
            self.meters.log_refusals.add_among_others(1);
            return Err(AppendError::Full);
        }
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
        if result.is_err() || self.refusing {
            self.note(&result);
        }
        result.map_err(|error| match error {
            LogError::Poisoned | LogError::File { .. } | LogError::Refused { .. } => AppendError::Failed,
            LogError::Full | LogError::Unprepared(_) => AppendError::Full,
            LogError::TooLarge { .. } | LogError::SegmentBytes { .. } => AppendError::TooLarge,
        })
    }
}
