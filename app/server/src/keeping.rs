//! The log kept for backups, beyond what checkpoints need: who was promised what, in the file `archive` of the data directory,
//! and what is read of it.
//!
//! The file is written before a promise is answered, and what it says is kept from the opening of the log on, before the
//! first checkpoint could give anything away. A file that cannot be read is told of, promises nothing, and goes with the
//! next promise.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use control::CONTROL;
use disk::log::ledger::Ledger;
use disk::log::{Cursor, Keeper, Log, LogBytes, Part, PassageError, Positions, TooMany};
use kernel::{GroupId, Index, Millis};
use thiserror::Error;

use crate::durable::replace;

const FILE: &str = "archive";

/// Why the log is not kept, or not read.
#[derive(Debug, Error)]
pub(crate) enum KeepError {
    /// The caller's: there are others.
    #[error(
        "{0}; one that does not ask again is forgotten at the end of its time: `archipel cluster backup --every` names three \
         rounds"
    )]
    TooMany(#[from] TooMany),
    /// The world's: the promise cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The log.
    #[error(transparent)]
    Passage(#[from] PassageError),
    /// There is no log any more.
    #[error("the node stops")]
    Stops,
}

/// The promises of a running node.
pub(crate) struct Keeping {
    dir: PathBuf,
    log: Weak<Log>,
    ledger: Mutex<Ledger>,
}

/// Has a log that was just opened keep what the file in `dir` promises. To be called before anything is checkpointed.
pub(crate) fn resume(dir: &Path, now: Millis, log: &Log) {
    for (keeper, promise) in read(dir, now).promises() {
        // The file has no more than the log takes.
        if let Err(error) = log.reserve(keeper, without_control(promise.after.clone())) {
            tracing::warn!(%error, "a promise to keep the log is not kept");
        }
    }
}

fn read(dir: &Path, now: Millis) -> Ledger {
    let path = dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ledger::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the log is not kept for backups: they will have a gap");
            return Ledger::default();
        }
    };
    Ledger::decode(now, &bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the log is not kept for backups: they will have a gap");
        Ledger::default()
    })
}

/// The control group is not backed up: what the log has of it is never kept for that.
fn without_control(mut after: Positions) -> Positions {
    after.insert(CONTROL, Index(u64::MAX));
    after
}

impl Keeping {
    /// The promises of a node whose log has resumed those in `dir`.
    pub fn new(dir: &Path, now: Millis, log: Weak<Log>) -> Keeping {
        Keeping { dir: dir.to_path_buf(), log, ledger: Mutex::new(read(dir, now)) }
    }

    /// Keeps what is behind `after` for `keeper` for so long, in the place of what it was promised before; for no time at all
    /// ends that. Tells of which groups something went since then although it was promised. Waits for the disk.
    ///
    /// # Errors
    /// [`KeepError`]; what was promised before still is.
    pub fn keep(
        &self,
        now: Millis,
        keeper: Keeper,
        life_ms: u64,
        after: Positions,
    ) -> Result<BTreeSet<GroupId>, KeepError> {
        let log = self.log.upgrade().ok_or(KeepError::Stops)?;
        let mut ledger = self.ledger();
        expire(&mut ledger, now, &log);
        let mut next = ledger.clone();
        next.promise(now, keeper, life_ms, after.clone())?;
        let ends = next.expire(now).contains(&keeper);
        let failed = |source| KeepError::File { path: self.dir.join(FILE), source };
        replace(&self.dir, FILE, &next.encode()).map_err(failed)?;
        *ledger = next;
        if ends {
            log.release(keeper);
            return Ok(BTreeSet::new());
        }
        let lost = log.reserve(keeper, without_control(after))?;
        if !lost.is_empty() {
            let groups = lost.len();
            tracing::warn!(groups, "entries that were kept for a backup had to go; it will have a gap");
        }
        Ok(lost)
    }

    /// What the log has of each group in `after` behind its position. Waits for the disk. See [`Log::passage`].
    ///
    /// # Errors
    /// [`KeepError`]
    pub fn read(
        &self,
        mut after: Positions,
        cursor: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<Part, KeepError> {
        let log = self.log.upgrade().ok_or(KeepError::Stops)?;
        after.remove(&CONTROL);
        Ok(log.passage(&after, cursor, bytes_max)?)
    }

    /// Promises whose time is over hold nothing any more.
    pub fn expire(&self, now: Millis) {
        if let Some(log) = self.log.upgrade() {
            expire(&mut self.ledger(), now, &log);
        }
    }

    /// What the log takes.
    pub fn bytes(&self) -> LogBytes {
        self.log.upgrade().map(|log| log.bytes()).unwrap_or_default()
    }

    /// The space is needed otherwise: all that is kept for backups only goes.
    pub fn give_up(&self) {
        if let Some(log) = self.log.upgrade() {
            log.give_up_reserved();
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expire(ledger: &mut Ledger, now: Millis, log: &Log) {
    ledger.expire(now).into_iter().for_each(|keeper| log.release(keeper));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use disk::log::{Durability, Entry, LogOptions, Record};
    use kernel::{Lsn, Micros, Term};

    use super::*;

    const GROUP: GroupId = GroupId(3);
    const KEEPER: Keeper = Keeper(9);
    const OPTIONS: LogOptions =
        LogOptions { segment_bytes: 16 << 10, reserve_bytes: 0, archived_bytes: 1 << 20 };
    const NOW: Millis = Millis(1_000_000);
    const LIFE: u64 = 60_000;

    /// A node's log, opened as a node does.
    fn open(dir: &Path, now: Millis) -> (Arc<Log>, Keeping) {
        let (log, _) =
            Log::open(&dir.join("log"), OPTIONS, &mut |_, _| {}, Box::new(|_| {})).expect("it opens");
        resume(dir, now, &log);
        let log = Arc::new(log);
        let keeping = Keeping::new(dir, now, Arc::downgrade(&log));
        (log, keeping)
    }

    /// Entries of the group, of which a checkpoint has all.
    fn write(log: &Log, range: std::ops::RangeInclusive<u64>) {
        let last = Index(*range.end());
        let mut end = Lsn(0);
        for index in range {
            let (term, time) = (Term(1), Micros(index));
            let entry =
                Entry { group: GROUP, term, index: Index(index), semantics: 1, time, body: &[7; 500] };
            end = log.append(&[Record::Entry(entry)], Durability::Always).expect("there is space");
        }
        while log.synced() < end {
            std::thread::yield_now();
        }
        log.checkpointed(GROUP, last);
    }

    fn behind(index: u64) -> Positions {
        Positions::from([(GROUP, Index(index))])
    }

    /// What a reader is told from the beginning on, in bytes.
    fn length(keeping: &Keeping) -> usize {
        let (mut cursor, mut bytes) = (None, 0);
        loop {
            let part = keeping.read(behind(0), cursor, 4096).expect("the log is sound");
            bytes += part.bytes.len();
            match part.next {
                Some(next) => cursor = Some(next),
                None => return bytes,
            }
        }
    }

    fn closed(log: Arc<Log>) {
        Arc::into_inner(log).expect("nobody else has it").close().expect("it syncs");
    }

    #[test]
    fn a_restart_gives_nothing_away_that_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        assert!(keeping.keep(NOW, KEEPER, LIFE, behind(0)).unwrap().is_empty());
        write(&log, 1..=200);
        closed(log);
        let (log, keeping) = open(dir.path(), NOW);
        // What the first life has checkpointed is known again by the next checkpoint only.
        write(&log, 201..=400);
        closed(log);
        let (log, again) = open(dir.path(), NOW);
        write(&log, 401..=401);
        assert!(length(&again) > 401 * 500, "all entries are there");
        closed(log);
        drop(keeping);
        // The control: without the file the same log is shortened, and so it is when the time is over.
        let (log, late) = open(dir.path(), Millis(NOW.0 + LIFE));
        late.expire(Millis(NOW.0 + LIFE));
        assert_eq!(late.bytes().reserved, 0);
        closed(log);
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        write(&log, 402..=402);
        assert!(length(&keeping) < 100 * 500, "the log was shortened");
    }

    #[test]
    fn a_promise_ends_and_its_place_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        for keeper in 0..4 {
            keeping.keep(NOW, Keeper(keeper), LIFE, behind(0)).unwrap();
        }
        let fifth = keeping.keep(NOW, Keeper(4), LIFE, behind(0));
        assert!(matches!(fifth, Err(KeepError::TooMany(_))), "{fifth:?}");
        write(&log, 1..=200);
        assert!(keeping.bytes().reserved > 0);
        keeping.expire(Millis(NOW.0 + LIFE - 1));
        assert!(keeping.bytes().reserved > 0);
        keeping.expire(Millis(NOW.0 + LIFE));
        assert_eq!(keeping.bytes().reserved, 0);
        keeping.keep(Millis(NOW.0 + LIFE), Keeper(4), LIFE, behind(0)).unwrap();
    }

    #[test]
    fn who_asks_for_no_time_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        keeping.keep(NOW, KEEPER, LIFE, behind(0)).unwrap();
        write(&log, 1..=200);
        assert!(keeping.bytes().reserved > 0);
        assert!(keeping.keep(NOW, KEEPER, 0, Positions::new()).unwrap().is_empty());
        assert_eq!(keeping.bytes().reserved, 0);
        assert_eq!(read(dir.path(), NOW).promises().count(), 0);
    }

    #[test]
    fn space_that_is_needed_is_given_up_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        keeping.keep(NOW, KEEPER, LIFE, behind(0)).unwrap();
        write(&log, 1..=200);
        keeping.give_up();
        assert_eq!(keeping.bytes().reserved, 0);
        assert_eq!(keeping.keep(NOW, KEEPER, LIFE, behind(200)).unwrap(), BTreeSet::from([GROUP]));
    }

    #[test]
    fn the_control_group_is_neither_kept_nor_read() {
        let dir = tempfile::tempdir().unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        keeping.keep(NOW, KEEPER, LIFE, Positions::new()).unwrap();
        for index in 1..=200 {
            let (term, time) = (Term(1), Micros(index));
            let entry =
                Entry { group: CONTROL, term, index: Index(index), semantics: 1, time, body: &[7; 500] };
            log.append(&[Record::Entry(entry)], Durability::Always).expect("there is space");
        }
        log.checkpointed(CONTROL, Index(200));
        assert_eq!(keeping.bytes().reserved, 0);
        let read = keeping.read(Positions::from([(CONTROL, Index(0))]), None, 4096).unwrap();
        assert_eq!(read, Part { bytes: Vec::new(), next: None });
    }

    #[test]
    fn a_file_that_cannot_be_read_promises_nothing_and_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"something else").unwrap();
        let (log, keeping) = open(dir.path(), NOW);
        write(&log, 1..=200);
        assert_eq!(keeping.bytes().reserved, 0);
        keeping.keep(NOW, KEEPER, LIFE, behind(200)).unwrap();
        assert_eq!(read(dir.path(), NOW).promises().count(), 1);
    }
}
