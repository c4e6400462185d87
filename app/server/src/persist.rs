//! A worker's engine thread: makes cuts durable in order, and tries again for as long as the engine refuses one.
//!
//! Until a checkpoint succeeds the log keeps what is behind it, so nothing is lost; writers wait once there
//! are more changes than the worker holds for a checkpoint.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use consensus::codec::Descriptor;
use control::CONTROL;
use disk::engine::{Change, Engine, EngineError, Mark, Place};
use disk::log::{Log, OldEntry};
use kernel::{GroupId, Index, Lsn};
use node::cluster::transfer::{Report, Task};
use runtime::Remote;
use storage::Store;
use storage::store::checkpoint::{Image, Images};
use telemetry::StorageMeters;

use crate::checkpoint::{Asked, Disk};
use crate::durable::replace;
use crate::housekeep::unix_millis;
use crate::snapshot;

/// After a failure it is tried again after this, in milliseconds, then after twice as long each time,
const RETRY_MILLIS_MIN: u64 = 100;
/// up to this.
const RETRY_MILLIS_MAX: u64 = 10_000;
/// With no cut for so long, in milliseconds, the engine gives memory back.
const REST_MILLIS: u64 = 1_000;
/// Entries of older generations removed at a time.
const SWEEP_ENTRIES: usize = 10_000;
/// Bytes of old entries read at a time, a single larger one apart.
const READ_BYTES_MAX: usize = 8 << 20;

/// What the engine thread is given, one after another.
pub(crate) enum Job {
    /// Make a cut durable.
    Cut(Cut),
    /// Begin a group anew: a replica came.
    Begin {
        /// Which of the worker's partitions.
        partition: usize,
        /// Its group.
        group: GroupId,
        /// As it begins, without objects.
        mark: Mark,
    },
    /// A replica went: nothing of its group stays.
    End {
        /// Which of the worker's partitions.
        partition: usize,
        /// Its group.
        group: GroupId,
    },
    /// Make the control group's checkpoint durable.
    Control(Mark),
    /// Hold a group's checkpoint for followers.
    Hold {
        /// Which of the worker's partitions.
        partition: usize,
        /// Its group.
        group: GroupId,
    },
    /// A step of a snapshot on its way.
    Transfer(Task),
    /// Read old entries of a group for followers.
    Read {
        /// Which of the worker's partitions.
        partition: usize,
        /// Its group.
        group: GroupId,
        /// From here on
        first: Index,
        /// up to here, as many as fit a lot.
        last: Index,
    },
    /// Switch to the snapshot that is staged, and load it.
    Install(snapshot::Install),
    /// Make a file of the data directory durable.
    Keep {
        /// Where.
        dir: PathBuf,
        /// Its name.
        name: &'static str,
        /// What it says.
        bytes: Vec<u8>,
    },
}

/// A finished cut on its way to the engine.
pub(crate) struct Cut {
    /// Which of the worker's partitions.
    pub partition: usize,
    /// Its group.
    pub group: GroupId,
    /// What the cut says of the partition.
    pub mark: Mark,
    /// Its changes.
    pub images: Images,
    /// The log must be synced up to here first.
    pub after: Lsn,
}

/// What is durable now.
pub(crate) enum Done {
    /// A cut of this partition and group, at this index.
    Cut(usize, GroupId, Index),
    /// The group began.
    Begun(usize, GroupId),
    /// The group is gone.
    Ended(usize, GroupId),
    /// The control group's checkpoint.
    Control(Index),
    /// What is held of this partition's group, if it could be.
    Held(usize, GroupId, Option<Descriptor>),
    /// What a step of a transfer led to, if that was asked.
    Transferred(Option<Report>),
    /// Old entries of this partition's group up to there, as far as they were had.
    Read(usize, GroupId, Index, Vec<OldEntry>),
    /// The snapshot is the group's state now.
    Installed(usize, GroupId, Box<Store>),
    /// A file, which nobody waits for.
    Kept,
}

/// What the thread works with.
pub(crate) struct Persister {
    /// Where cuts go.
    pub engine: Arc<Engine>,
    /// Where old entries are read.
    pub log: Arc<Log>,
    /// Its other end is gone when the node stops.
    pub ended: Receiver<()>,
    /// What is told of it.
    pub meters: Arc<StorageMeters>,
    /// What it shares with the other workers' threads.
    pub asked: Arc<Asked>,
    /// Its part of the figure of failed checkpoints: 1 or 0.
    pub failed: Cell<u64>,
}

impl Persister {
    /// Works until `jobs` ends. `remotes` gives the worker that is woken by answers.
    pub fn run(self, jobs: &Receiver<Job>, answers: &Sender<Done>, remotes: &Receiver<Remote>) {
        let mut remote: Option<Remote> = None;
        loop {
            let job = match jobs.recv_timeout(Duration::from_millis(REST_MILLIS)) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.tidy(|engine| engine.sweep(SWEEP_ENTRIES).and_then(|_| engine.rest()));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let what = job.label();
            let mut done = Done::Kept;
            let kept = insist(
                &mut || {
                    done = self.keep(&job)?;
                    Ok(())
                },
                &mut |delay| match self.ended.recv_timeout(delay) {
                    Err(RecvTimeoutError::Timeout) => Wait::Over,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => Wait::Ended,
                },
                &mut |failure| {
                    let failed = u64::from(failure.is_some());
                    self.meters.checkpoint_failed.shift(self.failed.replace(failed), failed);
                    if let Some(error) = failure {
                        if matches!(error, EngineError::DiskFull(_)) {
                            // What is kept for backups goes before a checkpoint waits for space.
                            self.log.give_up_reserved();
                        }
                        tracing::error!(what, %error, "a checkpoint failed and is tried again; the log is kept");
                    }
                },
            );
            if !kept {
                return;
            }
            if answers.send(done).is_err() {
                return;
            }
            // What it held is not needed while the engine sweeps and this thread waits.
            drop(job);
            remote = remote.or_else(|| remotes.try_recv().ok());
            if let Some(remote) = &remote {
                remote.synced(Lsn(0));
            }
            self.tidy(|engine| engine.sweep(SWEEP_ENTRIES).map(drop));
        }
    }

    /// Does one job while no other worker's is in the engine, and measures cuts. After a sync of another worker's has
    /// failed, nothing is tried.
    fn keep(&self, job: &Job) -> Result<Done, EngineError> {
        if let &Job::Read { partition, group, first, last } = job {
            return Ok(Done::Read(partition, group, last, self.read(group, first, last)));
        }
        let mut disk = self.asked.engine();
        if *disk == Disk::Failed {
            let source = std::io::Error::other("it failed at another worker's checkpoint");
            return Err(EngineError::Io { place: Place::Directory("engine".into()), source });
        }
        let done = match job {
            Job::Cut(cut) => self.keep_cut(cut),
            Job::Begin { partition, group, mark } => {
                let begun = again(&self.engine, &mut |engine| {
                    engine.drop_group(*group)?;
                    engine.commit(*group, mark, std::iter::empty())
                });
                begun.map(|()| Done::Begun(*partition, *group))
            }
            Job::End { partition, group } => {
                let ended = again(&self.engine, &mut |engine| engine.drop_group(*group));
                ended.map(|()| Done::Ended(*partition, *group))
            }
            Job::Control(mark) => {
                let kept =
                    again(&self.engine, &mut |engine| engine.commit(CONTROL, mark, std::iter::empty()));
                kept.map(|()| Done::Control(mark.index))
            }
            Job::Hold { partition, group } => {
                let held = again(&self.engine, &mut |engine| snapshot::hold(engine, *group));
                held.map(|held| Done::Held(*partition, *group, held))
            }
            Job::Transfer(task) => {
                // A lot that is there already is refused, and pulled anew.
                let step = again(&self.engine, &mut |engine| snapshot::transfer(engine, task));
                step.map(Done::Transferred)
            }
            Job::Install(install) => {
                let store = again(&self.engine, &mut |_| snapshot::install(&self.engine, install));
                store.map(|store| {
                    self.meters.installs.add_among_others(1);
                    Done::Installed(install.partition, install.group, Box::new(store))
                })
            }
            Job::Read { .. } => unreachable!("it needs no engine"),
            Job::Keep { dir, name, bytes } => match replace(dir, name, bytes) {
                Ok(()) => Ok(Done::Kept),
                Err(source) => Err(EngineError::Io { place: Place::Directory(dir.join(name)), source }),
            },
        };
        if matches!(done, Err(EngineError::Io { .. })) {
            *disk = Disk::Failed;
        }
        done
    }

    fn keep_cut(&self, cut: &Cut) -> Result<Done, EngineError> {
        let started = std::time::Instant::now();
        commit(&self.engine, cut)?;
        let micros = started.elapsed().as_micros() as u64;
        self.meters.checkpoint_micros.record(micros);
        self.meters.checkpoint_millis.set(unix_millis());
        let (group, changes, millis) = (cut.group.0, cut.images.len(), micros / 1000);
        tracing::debug!(group, changes, millis, "checkpoint");
        Ok(Done::Cut(cut.partition, cut.group, cut.mark.index))
    }

    /// What cannot be read a follower gets as a snapshot.
    fn read(&self, group: GroupId, first: Index, last: Index) -> Vec<OldEntry> {
        let read = self.log.entries(group, (first, last), READ_BYTES_MAX).unwrap_or_else(|error| {
            tracing::warn!(group = group.0, first = first.0, %error, "old entries cannot be read from the log");
            Vec::new()
        });
        self.meters.old_entries.add_among_others(read.len() as u64);
        read
    }

    /// Has the engine do what nobody waits for, unless its disk has failed.
    fn tidy(&self, work: impl FnOnce(&Engine) -> Result<(), EngineError>) {
        let disk = self.asked.engine();
        if *disk == Disk::Sound
            && let Err(error) = work(&self.engine)
        {
            tracing::warn!(%error, "the engine could not tidy up");
        }
    }
}

/// How a wait ended.
enum Wait {
    /// Its time is over.
    Over,
    /// The node stops.
    Ended,
}

/// Tries until it succeeds, once more when the node stops, and says whether it did. `report` hears each
/// failure, and `None` at success. A disk that failed is not tried again: a sync that succeeds after one that
/// failed proves nothing.
fn insist(
    attempt: &mut dyn FnMut() -> Result<(), EngineError>,
    wait: &mut dyn FnMut(Duration) -> Wait,
    report: &mut dyn FnMut(Option<&EngineError>),
) -> bool {
    let mut delay = RETRY_MILLIS_MIN;
    let mut ended = false;
    loop {
        let Err(error) = attempt() else {
            report(None);
            return true;
        };
        report(Some(&error));
        if ended || matches!(error, EngineError::Io { .. }) {
            return false;
        }
        ended = matches!(wait(Duration::from_millis(delay)), Wait::Ended);
        delay = (delay * 2).min(RETRY_MILLIS_MAX);
    }
}

impl Job {
    /// For the log.
    const fn label(&self) -> &'static str {
        match self {
            Job::Cut(_) => "the checkpoint of a partition",
            Job::Begin { .. } => "the beginning of a replica",
            Job::End { .. } => "the end of a replica",
            Job::Control(_) => "the checkpoint of the control group",
            Job::Hold { .. } => "a snapshot for followers",
            Job::Transfer(_) => "a step of a snapshot's transfer",
            Job::Read { .. } => "old entries for followers",
            Job::Install(_) => "the installation of a snapshot",
            Job::Keep { name, .. } => name,
        }
    }
}

/// Does what may be done twice. If an earlier attempt broke the engine it is opened anew.
fn again<T>(
    engine: &Engine,
    work: &mut dyn FnMut(&Engine) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    match work(engine) {
        // A failed sync is final.
        done @ (Ok(_) | Err(EngineError::Io { .. })) => done,
        Err(error) => {
            tracing::warn!(%error, "the engine refused a change; it is opened anew");
            engine.reopen()?;
            work(engine)
        }
    }
}

/// Commits one cut. If an earlier attempt broke the engine it is opened anew and the cut committed unless it
/// is there already.
fn commit(engine: &Engine, job: &Cut) -> Result<(), EngineError> {
    let changes = || {
        job.images.iter().map(|image| match image {
            Image::Put { key, head, body } => Change::Put { key, head, body },
            Image::Delete { key } => Change::Delete { key },
        })
    };
    let error = match engine.commit(job.group, &job.mark, changes()) {
        Ok(()) => return Ok(()),
        // A failed sync is final.
        Err(error @ EngineError::Io { .. }) => return Err(error),
        Err(error) => error,
    };
    tracing::warn!(%error, "the engine refused a checkpoint; it is opened anew");
    engine.reopen()?;
    let there =
        engine.groups()?.iter().any(|(group, mark)| *group == job.group && mark.index == job.mark.index);
    if there { Ok(()) } else { engine.commit(job.group, &job.mark, changes()) }
}

#[cfg(test)]
mod tests {
    use disk::engine::EngineOptions;
    use disk::log::LogOptions;
    use kernel::{KeyspaceId, Term};

    use super::*;

    fn full() -> EngineError {
        EngineError::DiskFull(Place::Directory("engine".into()))
    }

    fn broken() -> EngineError {
        let place = Place::Directory("engine".into());
        EngineError::Io { place, source: std::io::Error::other("input/output error") }
    }

    /// Whether it was kept, the waits in milliseconds, and the reports: true for a failure.
    fn insisted(mut results: Vec<Result<(), EngineError>>, waits: usize) -> (bool, Vec<u128>, Vec<bool>) {
        let (mut waited, mut reports) = (Vec::new(), Vec::new());
        let kept = insist(
            &mut || results.remove(0),
            &mut |delay| {
                waited.push(delay.as_millis());
                if waited.len() > waits { Wait::Ended } else { Wait::Over }
            },
            &mut |failure| reports.push(failure.is_some()),
        );
        assert!(results.is_empty(), "{} attempts were not made", results.len());
        (kept, waited, reports)
    }

    #[test]
    fn a_checkpoint_that_fails_is_tried_again_until_it_succeeds_or_the_node_stops() {
        #[rustfmt::skip] // columns
        let table = [
            // attempts                                      waits before the end   kept   waits          failures reported
            (vec![Ok(())],                                   9, (true,  vec![],         vec![false])),
            (vec![Err(full()), Err(full()), Ok(())],         9, (true,  vec![100, 200], vec![true, true, false])),
            (vec![Err(full()), Err(EngineError::Poisoned)],  0, (false, vec![100],      vec![true, true])),
            (vec![Err(full()), Ok(())],                      0, (true,  vec![100],      vec![true, false])),
            (vec![Err(broken())],                            9, (false, vec![],         vec![true])),
        ];
        for (attempts, waits, expected) in table {
            let shown = format!("{attempts:?}");
            assert_eq!(insisted(attempts, waits), expected, "{shown}");
        }
    }

    #[test]
    fn after_a_failed_sync_no_worker_commits_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let asked = Arc::new(Asked::default());
        let (_patience, ended) = std::sync::mpsc::channel();
        let persister = Persister { asked: Arc::clone(&asked), ..persister(dir.path(), ended) };
        let job = |index| {
            let group = GroupId::new(KeyspaceId(0), 0);
            let (index, term, state) = (Index(index), Term(1), Vec::new());
            let mark = Mark { index, term, generation: 0, objects: 0, standing: Vec::new(), state };
            Job::Cut(Cut { partition: 0, group, mark, images: Images::default(), after: Lsn(0) })
        };
        assert!(persister.keep(&job(1)).is_ok());
        *asked.engine() = Disk::Failed;
        assert!(matches!(persister.keep(&job(2)), Err(EngineError::Io { .. })));
        let marks = persister.engine.groups().unwrap();
        assert_eq!(marks.iter().map(|(_, mark)| mark.index).collect::<Vec<_>>(), [Index(1)]);
    }

    fn persister(dir: &std::path::Path, ended: Receiver<()>) -> Persister {
        let engine = Arc::new(Engine::open(&dir.join("engine"), EngineOptions::default()).unwrap());
        let options = LogOptions { segment_bytes: 16 << 10, reserve_bytes: 0, ..LogOptions::default() };
        let (log, _) = Log::open(&dir.join("log"), options, &mut |_, _| (), Box::new(|_| ())).unwrap();
        let (log, meters, asked) = (Arc::new(log), Arc::default(), Arc::default());
        Persister { engine, log, ended, meters, asked, failed: Cell::new(0) }
    }

    const GROUP: GroupId = GroupId::new(KeyspaceId(0), 1);

    fn mark(index: u64) -> Mark {
        let (index, term) = (Index(index), Term(1));
        Mark { index, term, generation: 0, objects: 0, standing: Vec::new(), state: Vec::new() }
    }

    /// A commit that ends in the middle, as after a write error: the engine takes none before it is opened anew.
    fn break_off(engine: &Engine) {
        let changes = std::iter::from_fn(|| -> Option<Change<'static>> { panic!("a planted failure") });
        assert!(engine.commit(GroupId::new(KeyspaceId(9), 0), &mark(1), changes).is_err());
        let refused = engine.drop_stage(GroupId::new(KeyspaceId(9), 1));
        assert!(matches!(refused, Err(EngineError::Poisoned)), "{refused:?}");
    }

    #[test]
    fn every_job_for_a_replica_is_done_although_the_engine_broke_before_it() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (_patience, ended) = std::sync::mpsc::channel();
        let persister = persister(dirs[0].path(), ended);
        let engine = &persister.engine;
        // A snapshot of another node, staged.
        let from = Engine::open(dirs[1].path(), EngineOptions::default()).unwrap();
        let state = Store::new(1).encode_state();
        from.commit(GROUP, &Mark { state, ..mark(7) }, std::iter::empty()).unwrap();
        let cut = from.make_cut(GROUP, disk::engine::Reader::Followers).unwrap();
        let content = from.read_cut(GROUP, 7, b"", 1 << 20, disk::engine::Reader::Followers).unwrap().bytes;
        let (bytes, checksum, name, group) = (cut.bytes, cut.checksum, b"snapshot".to_vec(), GROUP);
        let transfer = |task| Job::Transfer(task);
        let install = snapshot::Install {
            partition: 1,
            group,
            index: Index(7),
            standing: Vec::new(),
            seed: 1,
            budget: None,
            scope: storage::reach::Scope { partitions: placement::Partitions::ONE, own: 1 },
        };
        let jobs = [
            Job::Begin { partition: 1, group, mark: mark(1) },
            Job::Control(mark(3)),
            transfer(Task::Begin { group, name, ticket: 1 }),
            transfer(Task::Stage { group, content, next: None, ticket: 2 }),
            transfer(Task::Check { group, bytes, checksum, ticket: 3 }),
            Job::Hold { partition: 1, group },
            Job::Install(install),
            transfer(Task::Drop { group }),
            Job::End { partition: 1, group },
        ];
        for job in jobs {
            break_off(engine);
            let done = persister.keep(&job).unwrap_or_else(|error| panic!("{}: {error}", job.label()));
            let sound = match done {
                Done::Transferred(Some(Report::Staged { staged, .. })) => staged.is_some(),
                Done::Transferred(Some(Report::Checked { sound, .. })) => sound,
                Done::Installed(_, _, store) => store.applied() == Index(7),
                Done::Begun(..) | Done::Control(_) | Done::Held(..) | Done::Ended(..) => true,
                Done::Transferred(_) => matches!(job, Job::Transfer(Task::Drop { .. })),
                Done::Cut(..) | Done::Read(..) | Done::Kept => false,
            };
            assert!(sound, "{}", job.label());
            // What only reads leaves the engine as it is.
            if !matches!(job, Job::Hold { .. }) {
                engine.drop_stage(GroupId::new(KeyspaceId(9), 1)).unwrap();
            }
        }
        assert_eq!(engine.groups().unwrap().iter().map(|(group, _)| *group).collect::<Vec<_>>(), [CONTROL]);
    }

    #[test]
    fn the_wait_between_attempts_has_a_limit() {
        let results = (0..12).map(|_| Err(full())).chain([Ok(())]).collect();
        let (kept, waited, _) = insisted(results, 99);
        assert!(kept);
        assert_eq!(waited.last(), Some(&u128::from(RETRY_MILLIS_MAX)));
    }
}
