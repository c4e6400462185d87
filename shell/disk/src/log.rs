//! The node's one log on files: `journal` decides, this module moves the bytes.
//!
//! Workers append (one `pwrite` each, under a short lock); a flusher thread syncs, and while it does the
//! next batches are written; a preparer thread allocates segments ahead of need and recycles retired ones.
//! A sync on a zero-filled segment changes no file size, which spares the file system's journal.
//!
//! Appends overwrite zeros that were allocated before, so they find no full disk; preparing a segment
//! does, and that is refused and tried again. Only a copy-on-write file system may run out of space in an
//! append that passed the reserve; then the log is poisoned as for any failed write.
//!
//! The directory belongs to one process: whoever opens the log holds the lock file.

mod archive;
mod entries;
mod files;
mod flush;
mod open;
mod prepare;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use journal::commit::{Commit, Need, Written};
use journal::{Refusal, Refused};
use kernel::{GroupId, Index, Lsn, Micros};
use thiserror::Error;

pub use self::archive::{LogBytes, Part, PassageError};
pub use self::entries::OldEntry;
pub use journal::ledger;
pub use journal::passage::Broken;
pub use journal::recover::Torn;
pub use journal::reserve::TooMany;
pub use journal::{Cursor, Durability, Entry, HardState, Keeper, Positions, Record, SegmentId};

use self::files::{Directory, Files};

/// Free space is looked at this often while records are appended.
const SPACE_MICROS: u64 = 500_000;
/// And this often while they are refused.
const SPACE_MICROS_FULL: u64 = 20_000;
/// A segment that could not be prepared is tried again after this.
const PREPARE_RETRY_MICROS: u64 = 50_000;
/// A batch buffer that grew beyond this is given back.
const BUFFER_BYTES_KEPT: usize = 4 << 20;
/// Never: the sleep of a flusher that waits for nothing.
const NEVER: Micros = Micros(u64::MAX);
/// The wake-up of a flusher that does not sleep.
const AWAKE: Micros = Micros(0);

/// How the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The size of a segment: whole pages of 4096 bytes, from 16 KiB to 1 GiB. A larger batch gets a
    /// larger segment. Two to four segments are on the disk even when the log is short.
    pub segment_bytes: u64,
    /// Free space that is left on the file system: below it appends are refused, so that checkpoints,
    /// which shorten the log, still have room.
    pub reserve_bytes: u64,
    /// Most bytes of segments that are kept for backups only. Beyond that the oldest ones go.
    pub archived_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: journal::commit::SEGMENT_BYTES,
            reserve_bytes: 64 << 20,
            archived_bytes: 1 << 30,
        }
    }
}

/// What the flusher tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncEvent {
    /// Everything before this position is durable.
    Synced(Lsn),
    /// A write or sync failed: nothing more will become durable. Told once.
    Failed,
}

/// What was found at the opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where the log goes on. All before it is synced.
    pub end: Lsn,
    /// All before this the log itself states to have been synced; what is between this and `end` was read
    /// back and is synced now, but something behind it may have been lost.
    pub marked: Lsn,
    /// Where a torn tail was cut. Only what was never synced is cut.
    pub torn: Option<Torn>,
    /// True if the log itself states that its end was synced, so that nothing can have been lost behind
    /// it. False after most crashes.
    pub complete: bool,
    /// For each group whose older entries were truncated, the last index that is gone. The group's
    /// state must hold at least that, or the state was damaged.
    pub floors: BTreeMap<GroupId, Index>,
    /// Segments read.
    pub segments: usize,
}

/// Why the log does not do what it was asked.
#[derive(Debug, Error)]
pub enum LogError {
    /// The caller's: too much at once; nothing was written.
    #[error("{bytes} bytes in one record or append, the limit is {limit}")]
    TooLarge {
        /// What was asked for.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The caller's: settings out of bounds.
    #[error("segments of {bytes} bytes: whole pages of 4096 bytes from {min} to {max} are needed")]
    SegmentBytes {
        /// What was asked for.
        bytes: u64,
        /// The lower bound.
        min: u64,
        /// The upper bound.
        max: u64,
    },
    /// The world's: no space; nothing was written. Ends by itself once space is back.
    #[error("the disk is full")]
    Full,
    /// The world's: the next segment cannot be prepared; nothing was written. Later appends try again.
    #[error("the log's next segment cannot be prepared: {0}")]
    Unprepared(io::ErrorKind),
    /// The world's: a write or sync failed. Final for this log; nothing is retried.
    #[error("an earlier write or sync of the log failed")]
    Poisoned,
    /// The world's: damage that must not be papered over.
    #[error("the log in {} is refused: {source}", dir.display())]
    Refused {
        /// The log's directory.
        dir: PathBuf,
        /// The place and the reason.
        source: Refusal,
    },
    /// The world's: a file could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

/// The node's log, open. Shared by the workers; dropped, it syncs and stops its threads.
pub struct Log {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    files: Arc<dyn Files>,
    dir: Directory,
    options: LogOptions,
    epoch: Instant,
    synced: AtomicU64,
    on_synced: Box<dyn Fn(SyncEvent) + Send + Sync>,
    inner: Mutex<Inner>,
    /// Wakes the flusher.
    flush: Condvar,
    /// Wakes the preparer.
    prepare: Condvar,
    /// Wakes appenders that wait for a segment.
    ready: Condvar,
}

struct Inner {
    commit: Commit,
    /// The active and the next segment, and those not yet synced.
    segments: BTreeMap<SegmentId, Arc<File>>,
    buffer: Vec<u8>,
    /// When the sleeping flusher wakes by itself.
    flusher_wakes: Micros,
    /// When free space is looked at again.
    space_check: Micros,
    /// The disk is short of space, and retired segments may help: they are removed.
    is_short: bool,
    /// An appender waits for this segment.
    wanted: Option<Need>,
    /// No segment is prepared before this, because it just failed.
    prepare_after: Micros,
    /// How often preparing has failed, and why last.
    prepare_failures: (u64, io::ErrorKind),
    /// Segments to recycle or remove, oldest first.
    retired: Vec<SegmentId>,
    /// One of them, or a spare one, is just being removed.
    is_removing: bool,
    /// Retired segments that are kept to be used again, and go when the disk is short.
    spares: usize,
    failure_told: bool,
    stop: bool,
}

impl Log {
    /// Opens the log in `dir`, or makes a new one.
    ///
    /// Hands each record to `visit`, in order, before it returns; on an error what was visited does not
    /// count. A [`HardState`] may come more than once, the last one of a group counts. `on_synced` is called by the flusher thread, outside all locks, and must not block. Reads
    /// every segment once; takes memory for one segment.
    ///
    /// # Errors
    /// [`LogError::Refused`] if synced bytes are damaged, with the place; nothing is changed then.
    pub fn open(
        dir: &Path,
        options: LogOptions,
        visit: &mut dyn FnMut(Lsn, Record<'_>),
        on_synced: Box<dyn Fn(SyncEvent) + Send + Sync>,
    ) -> Result<(Log, Recovered), LogError> {
        Log::open_on(Arc::new(files::Os), dir, options, visit, on_synced)
    }

    /// Reads the log in `dir` and changes nothing: not even a torn tail is cut, and who opens it afterwards finds what
    /// was to be found before. `None` if there is no log.
    ///
    /// Hands each record to `visit`, as [`Log::open`] does. No process may write the log meanwhile.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn read(dir: &Path, visit: &mut dyn FnMut(Lsn, Record<'_>)) -> Result<Option<Recovered>, LogError> {
        open::read(dir, visit)
    }

    fn open_on(
        files: Arc<dyn Files>,
        dir: &Path,
        options: LogOptions,
        visit: &mut dyn FnMut(Lsn, Record<'_>),
        on_synced: Box<dyn Fn(SyncEvent) + Send + Sync>,
    ) -> Result<(Log, Recovered), LogError> {
        let opened = open::open(files, dir, options, visit)?;
        let shared = Arc::new(Shared {
            synced: AtomicU64::new(opened.commit.durable().0),
            files: opened.files,
            dir: opened.dir,
            options,
            epoch: Instant::now(),
            on_synced,
            inner: Mutex::new(Inner::new(opened.commit, opened.segments)),
            flush: Condvar::new(),
            prepare: Condvar::new(),
            ready: Condvar::new(),
        });
        let mut log = Log { shared, threads: Vec::new() };
        let run_flush = Arc::clone(&log.shared);
        log.spawn("log-flush", move || flush::run(&run_flush))?;
        let run_prepare = Arc::clone(&log.shared);
        log.spawn("log-prepare", move || prepare::run(&run_prepare, opened.spares))?;
        Ok((log, opened.recovered))
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body);
        let failed = |source| LogError::File {
            action: "start a thread for",
            path: self.shared.dir.path().to_path_buf(),
            source,
        };
        self.threads.push(thread.map_err(failed)?);
        Ok(())
    }

    /// Writes a batch; its bytes are in the operating system when this returns, and durable once
    /// [`Log::synced`] reaches the position returned.
    ///
    /// One `pwrite`. Waits only if a segment is needed that is not prepared yet. A batch with a
    /// [`HardState`] or a [`Record::Reset`] is synced at once.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Unprepared`] and [`LogError::TooLarge`] change nothing;
    /// [`LogError::Poisoned`] is final, and then the batch may or may not be found at the next opening.
    pub fn append(&self, records: &[Record<'_>], durability: Durability) -> Result<Lsn, LogError> {
        let shared = &*self.shared;
        let mut inner = shared.lock();
        loop {
            let now = shared.now();
            shared.check_space(&mut inner, now);
            let Inner { commit, buffer, .. } = &mut *inner;
            match commit.append(now, records, durability, buffer) {
                Ok(written) => return shared.finish_append(inner, &written, now),
                Err(Refused::Unprepared(need)) => inner = shared.await_segment(inner, need, now)?,
                Err(Refused::Full) => return Err(LogError::Full),
                Err(Refused::Poisoned) => return Err(LogError::Poisoned),
                Err(Refused::TooLarge { bytes, limit }) => return Err(LogError::TooLarge { bytes, limit }),
            }
        }
    }

    /// Everything before this is durable. One atomic load.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        Lsn(self.shared.synced.load(Ordering::Acquire))
    }

    /// Has everything appended so far synced at once, whatever was promised to whom. Does not wait for it.
    pub fn hurry(&self) {
        let mut inner = self.shared.lock();
        let now = self.shared.now();
        inner.commit.hurry(now);
        inner.flusher_wakes = AWAKE;
        drop(inner);
        self.shared.flush.notify_one();
    }

    /// The state of `group` up to `index` is durable in the engine; segments that nobody needs any more
    /// are recycled in the background. The caller's word is trusted: a checkpoint that is not durable
    /// loses data.
    pub fn checkpointed(&self, group: GroupId, index: Index) {
        let mut inner = self.shared.lock();
        inner.commit.checkpoint(group, index);
        self.shared.retire(&mut inner);
    }

    /// This node has no part in `group` any more: its records hold no segment back. Until their segments are gone, the
    /// next opening reads them again, and must be told again.
    pub fn forget(&self, group: GroupId) {
        let mut inner = self.shared.lock();
        inner.commit.forget(group);
        self.shared.retire(&mut inner);
    }

    /// The group to checkpoint first in order to shorten the log, if one holds it back.
    #[must_use]
    pub fn lagging_group(&self) -> Option<GroupId> {
        self.shared.lock().commit.truncate().lagging()
    }

    /// Syncs what was appended, states in the log that it is complete, and stops the threads.
    ///
    /// # Errors
    /// [`LogError::Poisoned`] if a write or sync has failed.
    pub fn close(mut self) -> Result<(), LogError> {
        self.stop();
        if self.shared.lock().commit.is_poisoned() { Err(LogError::Poisoned) } else { Ok(()) }
    }

    fn stop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.flush.notify_all();
        self.shared.prepare.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().expect("the log's threads do not panic");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn new(commit: Commit, segments: BTreeMap<SegmentId, Arc<File>>) -> Inner {
        Inner {
            commit,
            segments,
            buffer: Vec::new(),
            flusher_wakes: AWAKE,
            space_check: Micros(0),
            is_short: false,
            wanted: None,
            prepare_after: Micros(0),
            prepare_failures: (0, io::ErrorKind::StorageFull),
            retired: Vec::new(),
            is_removing: false,
            spares: 0,
            failure_told: false,
            stop: false,
        }
    }
}

impl Inner {
    /// No preparing or removing has failed just now.
    fn is_calm(&self, now: Micros) -> bool {
        now >= self.prepare_after
    }

    /// Segments that nobody needs and that are about to give their space back.
    fn leaving(&self, now: Micros) -> u64 {
        if self.is_calm(now) { self.retired.len() as u64 + u64::from(self.is_removing) } else { 0 }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the log's lock")
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Writes what `written` says from the buffer. A failure poisons the log: a part may be in the file.
    fn write(&self, inner: &mut Inner, written: &Written) -> Result<(), LogError> {
        for write in written.seal.iter().chain([&written.batch]) {
            let file = inner.segments.get(&write.segment).expect("a segment is open while it is written");
            if self.files.write(file, &inner.buffer[write.bytes.clone()], write.offset).is_err() {
                inner.commit.fail();
                self.flush.notify_all();
                return Err(LogError::Poisoned);
            }
        }
        Ok(())
    }

    fn finish_append(
        &self,
        mut guard: MutexGuard<'_, Inner>,
        written: &Written,
        now: Micros,
    ) -> Result<Lsn, LogError> {
        let inner = &mut *guard;
        self.write(inner, written)?;
        if inner.buffer.capacity() > BUFFER_BYTES_KEPT {
            inner.buffer = Vec::new();
        }
        // A thread that is awake looks for itself before it sleeps.
        let flush = inner.commit.sync_due().is_some_and(|due| due < inner.flusher_wakes);
        if flush {
            inner.flusher_wakes = AWAKE;
        }
        let prepare = inner.commit.wants().is_some() && now >= inner.prepare_after;
        drop(guard);
        if flush {
            self.flush.notify_one();
        }
        if prepare {
            self.prepare.notify_one();
        }
        Ok(written.end)
    }

    /// Waits until the preparer has made `need` or failed to.
    fn await_segment<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        need: Need,
        now: Micros,
    ) -> Result<MutexGuard<'a, Inner>, LogError> {
        let failed = |inner: &Inner| match inner.prepare_failures.1 {
            kind if files::is_full(kind) => LogError::Full,
            kind => LogError::Unprepared(kind),
        };
        if now < inner.prepare_after {
            return Err(failed(&inner));
        }
        let failures = inner.prepare_failures.0;
        // Another appender may wait for a smaller one; it is served by the larger.
        if inner.wanted.is_none_or(|wanted| wanted.id < need.id || wanted.bytes < need.bytes) {
            inner.wanted = Some(need);
        }
        self.prepare.notify_one();
        while inner.wanted.is_some() && !inner.stop {
            inner = self.ready.wait(inner).expect("nobody panics while holding the log's lock");
        }
        if inner.prepare_failures.0 == failures { Ok(inner) } else { Err(failed(&inner)) }
    }

    /// Looks at the free space from time to time; while it is short, appends are refused, but not before what is kept for
    /// backups was given up, and is gone.
    fn check_space(&self, inner: &mut Inner, now: Micros) {
        if now < inner.space_check {
            return;
        }
        // A file system that cannot tell is taken to have space; then preparing a segment finds out.
        let short = self.files.free(self.dir.file()).is_ok_and(|free| free < self.options.reserve_bytes);
        inner.is_short = short;
        let helped = short && self.give_up(inner);
        // The preparer removes spares, too, while it is short.
        let comes_back = inner.leaving(now) > 0 || (inner.spares > 0 && inner.is_calm(now));
        inner.commit.set_full(short && !helped && !comes_back);
        inner.space_check = now + if short { SPACE_MICROS_FULL } else { SPACE_MICROS };
        if short {
            self.prepare.notify_one();
        }
    }

    /// Collects the segments that nobody needs for the preparer.
    fn retire(&self, inner: &mut Inner) {
        let before = inner.retired.len();
        inner.commit.give_up(self.options.archived_bytes);
        while let Some(id) = inner.commit.retire() {
            inner.retired.push(id);
        }
        if inner.retired.len() > before {
            self.prepare.notify_one();
        }
    }
}
