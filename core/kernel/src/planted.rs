//! Rules that can be broken on purpose, so that the simulator can show that it would notice.
//!
//! Only with the feature `planted`, which the simulator's tests turn on and no release build may have:
//! without it [`is`] is the constant `false`, and what it guards is not compiled in.

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Bug {
    /// An `always` group commits what was only written.
    AckBeforeSync = 1,
    /// A batch is applied, and answered, although its group has not committed it.
    ApplyBeforeCommit,
    /// Frames are believed without their checksum.
    SkipCrc,
    /// Recovery takes damage below the synced mark for a torn tail.
    IgnoreSyncedMark,
    /// The checksum does not cover segment and offset: recycled frames read back.
    NoPositionInCrc,
    /// The part of a segment behind a torn tail is not found to need wiping.
    StaleTailKept,
    /// Entries are applied at the host's clock instead of their logged time.
    ExpiryByLocalClock,
    /// A read answers from an expiry that is not logged.
    UnloggedExpiryRead,
    /// Replay applies an entry twice.
    ReplayDuplicates,
    /// Replay leaves out an entry.
    ReplaySkips,
    /// Replay draws other chance than the first application did.
    UnseededChance,
    /// The index of a refused proposal is not given back.
    WithdrawnIndexKept,
    /// A refused batch stays and is logged with the next one.
    WithdrawnBatchKept,
    /// A failed sync is retried and its success believed.
    FailedSyncRetried,
    /// A write that the full disk refused is acknowledged.
    FullAcknowledged,
    /// Replies are sent in the order in which they are ready.
    RepliesOutOfOrder,
    /// EXEC looks at applied changes of watched keys only.
    WatchIgnoresInFlight,
    /// One push serves a waiting client twice.
    WaiterServedTwice,
    /// A transaction's commands are logged as separate entries.
    ExecSplit,
    /// The log is truncated as if all that was applied were checkpointed.
    TruncateBeforeCheckpoint,
    /// A checkpoint takes entries changed after its cut.
    CheckpointNotACut,
    /// A checkpoint forgets which keys were removed.
    TombstoneForgotten,
    /// A checkpoint after FLUSH keeps the objects of the generation before.
    GenerationIgnored,
    /// A sync is reported to cover what was written while it ran.
    SyncCoversLater,
    /// A batch that opens a segment does not seal the one before.
    GroupTimeGoesBack,
}

/// Every bug, in the order of its number.
pub const ALL: &[Bug] = &[];

#[cfg(feature = "planted")]
mod chosen {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Breaks this rule from now on, in the whole process; none with `None`.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
    }

    /// True if this rule is to be broken.
    #[inline]
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        CHOSEN.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(feature = "planted")]
pub use chosen::{choose, is};

/// True if this rule is to be broken: never in this build.
#[cfg(not(feature = "planted"))]
#[inline]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}
