//! A new data directory out of a backup: that of a node in no cluster, which can be started, alone or as a cluster's first
//! member. Each partition's checkpoint is staged, and entries behind it are replayed ([`replay`]) up to where the partitions are
//! consistent, or to a moment.
//!
//! It is made beside its place and gets its name when all of it is checked and durable, so an interrupted restore leaves
//! nothing that could be started. Who makes it has the unfinished directory locked: a second one is refused.

mod rehearse;
mod replay;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::backup::{Archive, BackupError, Group, Reach};
use disk::engine::{Engine, EngineError, EngineOptions, Mark};
use kernel::codec::DecodeError;
use kernel::{GroupId, Index, KeyspaceId};
use node::{Divisions, PARTITIONS_MAX};
use placement::Partitions;
use thiserror::Error;

pub use self::rehearse::{Rehearsed, rehearse};
use self::replay::Player;
pub use self::replay::Reached;
use crate::divisions;
use crate::identity::identity;
use crate::load::LoadError;
use crate::node::NodeError;

/// What a staged partition is called.
const STAGED: &[u8] = b"restore";
/// What follows a lot that is not the last.
const MORE: &[u8] = b"more";

/// Why nothing is restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// There is something already.
    #[error("{} is not empty: give a --data-dir that is empty or not there", .0.display())]
    NotEmpty(PathBuf),
    /// Another one is making it.
    #[error("another restore is making {}: wait for it, or give another --data-dir", .0.display())]
    InUse(PathBuf),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The new engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A checkpoint that is to be replayed on.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The new directory.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// An entry does not follow the one before.
    #[error("group {group}: entry {found} follows entry {after} in the backup: entries are missing")]
    Hole {
        /// The group.
        group: GroupId,
        /// The last one.
        after: Index,
        /// The next one found.
        found: Index,
    },
    /// A checkpoint is not what an earlier one and the entries behind it make.
    #[error(
        "group {group}: the checkpoint of backup {number} at entry {index} is not what an earlier one and the entries up to \
         there make: one of them is wrong, though each is as it was written"
    )]
    Apart {
        /// The group.
        group: GroupId,
        /// The checkpoint's entry.
        index: Index,
        /// The backup that has it.
        number: u64,
    },
    /// An entry says that it is meant for another version.
    #[error(
        "group {group}, entry {index}: it is of version {semantics} of commands, which this program does not know; use the one that wrote it"
    )]
    Semantics {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// Its version.
        semantics: u16,
    },
    /// An entry that this version cannot read.
    #[error("group {group}, entry {index}: {what}; was it written by a newer version?")]
    Unreadable {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// What is wrong with it.
        what: DecodeError,
    },
    /// An entry needs an object that the new engine does not give.
    #[error("group {group}, entry {index}: {why}")]
    Damaged {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// What the engine said.
        why: String,
    },
    /// The new directory itself.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The manifest names what no keyspace of a node can have.
    #[error(
        "keyspace {keyspace} of the backup has {partitions} partitions, and a node serves at most {PARTITIONS_MAX}: it can only be read out where it was"
    )]
    Partitions {
        /// Which.
        keyspace: KeyspaceId,
        /// How many.
        partitions: u16,
    },
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The partitions, and where they are.
    pub groups: Vec<Reached>,
    /// Bytes of the streams of their checkpoints.
    pub bytes: u64,
}

impl Restored {
    /// Objects of all partitions.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.groups.iter().map(|group| group.objects).sum()
    }
}

/// Makes `dir`, which must be empty or not there, what the backups say. `progress` hears of bytes that were restored.
///
/// # Errors
/// [`RestoreError`]; then `dir` is as it was, and nothing is beside it.
pub fn restore(
    archive: &mut Archive,
    reach: &Reach,
    dir: &Path,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let divisions = divided(reach)?;
    let site = Site::take(dir)?;
    let made = fill(&site.part, (archive, reach), &divisions, options, progress);
    let named = made.and_then(|restored| site.name().map(|()| restored));
    if named.is_err() {
        site.clear();
    }
    named
}

/// Makes everything in `part`.
fn fill(
    part: &Path,
    (archive, reach): (&mut Archive, &Reach),
    divisions: &Divisions,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let home = part.join("engine");
    fs::create_dir_all(&home).map_err(failed("create", &home))?;
    // The order of keys, and what random commands draw, are this directory's own from now on.
    identity(part)?;
    divisions::record(part, divisions)?;
    with_engine(&home, options, |engine| take(engine, (archive, reach), divisions, progress))
}

/// Works with a new engine in `home`, which is closed also if nothing comes of it: its threads write no more then.
fn with_engine<T>(
    home: &Path,
    options: EngineOptions,
    work: impl FnOnce(&Arc<Engine>) -> Result<T, RestoreError>,
) -> Result<T, RestoreError> {
    let engine = Arc::new(Engine::open(home, options)?);
    let worked = work(&engine);
    let closed = Arc::into_inner(engine).expect("each partition's store is gone").close();
    let done = worked?;
    closed?;
    Ok(done)
}

/// All partitions, into a new engine.
fn take(
    engine: &Arc<Engine>,
    (archive, reach): (&mut Archive, &Reach),
    divisions: &Divisions,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    let base: BTreeMap<GroupId, &Group> = reach.base().groups.iter().map(|it| (it.group, it)).collect();
    let mut player = Player::new(reach.base().origin, reach.moment);
    for (group, histories) in reach.histories() {
        let mark = match base.get(&group) {
            Some(group) => {
                restored.bytes += group.bytes;
                Some(stage(engine, archive, group, progress)?)
            }
            None => None,
        };
        let scope = divisions.scope(group);
        let reached = player.play((engine, archive), (group, scope), mark.as_ref(), &histories)?;
        // What began after the moment is not there then.
        let is_there = mark.is_some() || reached.index > reached.base;
        restored.groups.extend(is_there.then_some(reached));
    }
    Ok(restored)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_path_buf();
    move |source| RestoreError::File { action, path, source }
}

/// How the keyspaces are divided: as the oldest backup that has them says.
fn divided(reach: &Reach) -> Result<Divisions, RestoreError> {
    let mut divisions = Divisions::default();
    // The oldest comes last, and so holds: a later one may have another keyspace of that number.
    for keyspace in reach.chain.iter().rev().flat_map(|manifest| &manifest.keyspaces) {
        let (keyspace, partitions) = (keyspace.id, keyspace.partitions);
        let sound = Partitions::new(partitions).ok().filter(|_| partitions <= PARTITIONS_MAX);
        divisions.set(keyspace, sound.ok_or(RestoreError::Partitions { keyspace, partitions })?);
    }
    Ok(divisions)
}

/// Where a directory is made: beside its place, held against others, and empty.
struct Site {
    dir: PathBuf,
    part: PathBuf,
    _lock: File,
}

impl Site {
    /// The site of `dir`, which is empty or not there.
    fn take(dir: &Path) -> Result<Site, RestoreError> {
        let part = beside(dir);
        fs::create_dir_all(&part).map_err(failed("create", &part))?;
        let lock = File::open(&part).map_err(failed("open", &part))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RestoreError::InUse(dir.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &part)(source)),
        }
        let is_free = match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("look into", dir)(error)),
        };
        // Who held it may have finished it meanwhile: then it has its name now, and is no site.
        let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let held = lock.metadata().map(place).map_err(failed("look at", &part))?;
        let is_site = fs::metadata(&part).is_ok_and(|meta| place(meta) == held);
        if !is_free || !is_site {
            if is_site {
                // Nobody is here, so what lies here is an earlier attempt's; if it cannot go it harms nobody.
                let _ = fs::remove_dir_all(&part);
            }
            return Err(RestoreError::NotEmpty(dir.to_path_buf()));
        }
        for entry in fs::read_dir(&part).map_err(failed("look into", &part))? {
            let path = entry.map_err(failed("look into", &part))?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed("clear", &path))?;
        }
        Ok(Site { dir: dir.to_path_buf(), part, _lock: lock })
    }

    /// Nothing comes of it.
    fn clear(&self) {
        // What cannot be removed now is by the next attempt.
        let _ = fs::remove_dir_all(&self.part);
    }

    /// What was made is whole: it gets its place.
    fn name(&self) -> Result<(), RestoreError> {
        let parent =
            self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::rename(&self.part, &self.dir).map_err(failed("name", &self.dir))?;
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync", parent))
    }
}

/// One partition, checked as a snapshot from another node is.
fn stage(
    engine: &Engine,
    archive: &mut Archive,
    group: &Group,
    progress: &mut dyn FnMut(u64),
) -> Result<Mark, RestoreError> {
    engine.begin_stage(group.group, STAGED)?;
    let last = group.chunks.len().saturating_sub(1);
    for (at, chunk) in group.chunks.iter().enumerate() {
        let bytes = archive.chunk(chunk)?;
        engine.stage(group.group, &bytes, (at < last).then_some(MORE))?;
        progress(bytes.len() as u64);
    }
    engine.check_stage(group.group, group.bytes, group.checksum)?;
    Ok(engine.install(group.group, group.index, b"")?)
}

/// Where the directory is made: in the same parent, so that it can be renamed.
fn beside(dir: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(".restoring");
    dir.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use disk::backup::{Chunk, Incoming, Keep, Keyspace, Manifest, Origin, Span, Writer};
    use disk::engine::{CutInfo, Reader};
    use kernel::{GroupId, Index, Micros, Millis, Term};
    use storage::Store;
    use storage::object::Value;
    use storage::store::Ttl;

    use super::*;
    use crate::cluster::settle::commit;
    use crate::load::load_group;

    const GROUP: GroupId = GroupId::new(KeyspaceId(3), 1);
    const KEYS: u64 = 20_000;

    /// An engine with a partition of `KEYS` strings, every tenth with an expiry, and one long one.
    fn filled(dir: &Path) -> (Arc<Engine>, Store) {
        let engine = Arc::new(Engine::open(dir, EngineOptions::default()).unwrap());
        let mut store = Store::new(1);
        store.begin_entry(Index(1), Micros(1_000));
        for n in 0..KEYS {
            let ttl = if n % 10 == 0 { Ttl::At(Millis(1 << 50)) } else { Ttl::Clear };
            store.set(&n.to_be_bytes(), Value::from_bytes(&n.to_le_bytes().repeat(9)), ttl).unwrap();
        }
        store.set(b"long", Value::from_bytes(&vec![7; 3_000_000]), Ttl::Clear).unwrap();
        store.end_entry();
        commit(&engine, GROUP, (&mut store, Term(4)), Vec::new()).unwrap();
        (engine, store)
    }

    fn back_up(engine: &Engine, dir: &Path) -> (Manifest, u64, u64) {
        back_up_at(engine, dir, 5, Keep::All)
    }

    /// A backup that is made in the millisecond `at`.
    fn back_up_at(engine: &Engine, dir: &Path, at: u64, keep: Keep) -> (Manifest, u64, u64) {
        let mut writer = Writer::begin(dir, keep).unwrap();
        let CutInfo { generation, bytes, checksum, mark } =
            engine.make_cut(GROUP, Reader::Backup(1)).unwrap();
        let (index, term) = (mark.index, mark.term);
        let (chunks, history) = (Vec::new(), None);
        let group = Group { group: GROUP, index, term, leads: true, bytes, checksum, chunks, history };
        if !writer.unchanged(&group) {
            let mut incoming = Incoming::new(group);
            let mut cursor = Some(Vec::new());
            while let Some(at) = cursor {
                let lot = engine.read_cut(GROUP, generation, &at, 100_000, Reader::Backup(1)).unwrap();
                writer.push(&mut incoming, &lot.bytes).unwrap();
                cursor = lot.next;
            }
            writer.end(incoming).unwrap();
        }
        let (written, reused) = (writer.written, writer.reused);
        let keyspaces = vec![Keyspace { id: KeyspaceId(3), partitions: 2, mark: None }];
        let origin = Origin { id: [1; 16], is_cluster: false };
        let span = Span { at: Millis(at), until: Millis(at + 1), skew_ms: 0 };
        (writer.finish(span, origin, keyspaces).unwrap(), written, reused)
    }

    fn to_mark(archive: &mut Archive, of: &Manifest, target: &Path) -> Result<Restored, RestoreError> {
        restore(archive, &Reach::mark(of.clone()), target, EngineOptions::default(), &mut |_| ())
    }

    #[test]
    fn a_backup_restores_to_the_same_state_and_a_second_one_adds_what_changed() {
        let home = tempfile::tempdir().unwrap();
        let (engine, mut store) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        let (first, written, reused) = back_up(&engine, &dir);
        assert_eq!((first.number, reused), (1, 0));
        assert!(written > 4_000_000);
        let (second, written, _) = back_up(&engine, &dir);
        assert_eq!((second.number, written), (2, 0), "nothing changed");
        assert_eq!(second.groups, first.groups);
        let before = store.digest().unwrap();
        store.begin_entry(Index(2), Micros(2_000));
        store.set(b"new", Value::from_bytes(b"value"), Ttl::Clear).unwrap();
        store.end_entry();
        commit(&engine, GROUP, (&mut store, Term(4)), Vec::new()).unwrap();
        let (third, written, reused) = back_up(&engine, &dir);
        assert!(written < 1_500_000 && reused > 3_000_000, "{written} written, {reused} reused");

        let states = [(first, before), (third, store.digest().unwrap())];
        for (manifest, digest) in states {
            let mut archive = Archive::new(&dir);
            assert_eq!(archive.manifest(Some(manifest.number)).unwrap(), manifest);
            for group in &manifest.groups {
                assert_eq!(archive.verify(manifest.number, group).unwrap().bytes, group.bytes);
            }
            let target = home.path().join(format!("restored{}", manifest.number));
            let mut told = 0;
            let options = EngineOptions::default();
            let done = restore(
                &mut archive,
                &Reach::mark(manifest.clone()),
                &target,
                options.clone(),
                &mut |bytes| told += bytes,
            );
            let done = done.unwrap();
            assert_eq!((done.groups.len(), done.bytes), (1, told));
            assert_eq!(done.objects(), manifest.groups[0].objects());
            let engine = Arc::new(Engine::open(&target.join("engine"), options).unwrap());
            let marks = engine.groups().unwrap();
            let back = load_group(&engine, (marks[0].0, &marks[0].1), 1, None).unwrap();
            assert_eq!(back.digest().unwrap(), digest);
            assert_eq!(back.len() as u64, done.objects());
            assert_eq!(divisions::recorded(&target).unwrap().of(KeyspaceId(3)).count(), 2);
            let again = to_mark(&mut archive, &manifest, &target);
            assert!(matches!(again, Err(RestoreError::NotEmpty(_))));
        }
    }

    #[test]
    fn damage_to_any_file_of_a_backup_is_named_and_nothing_is_restored() {
        let home = tempfile::tempdir().unwrap();
        let (engine, _) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        let (manifest, ..) = back_up(&engine, &dir);
        let target = home.path().join("restored");
        let mut rng = kernel::Rng::new(1);
        for name in ["data-000001", "manifest-000001"] {
            let path = dir.join(name);
            let good = fs::read(&path).unwrap();
            for round in 0..40 {
                let mut bytes = good.clone();
                let at = if round == 0 { 3 } else { rng.below(good.len() as u64) as usize };
                if round % 8 == 7 {
                    bytes.truncate(at)
                } else {
                    bytes[at] ^= 1 << rng.below(8)
                }
                fs::write(&path, &bytes).unwrap();
                let mut archive = Archive::new(&dir);
                let read = archive.manifest(None).map_err(RestoreError::from).and_then(|found| {
                    found.groups.iter().try_for_each(|group| archive.verify(1, group).map(drop))?;
                    to_mark(&mut archive, &found, &target)
                });
                let error = read.unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("byte"), "round {round} at {at}: {error}");
                // Also if nobody has verified it before.
                if let Ok(found) = archive.manifest(None) {
                    to_mark(&mut archive, &found, &target).unwrap_err();
                }
                assert!(!target.exists() && !beside(&target).exists());
            }
            fs::write(&path, &good).unwrap();
        }
        fs::remove_file(dir.join("data-000001")).unwrap();
        let gone = Archive::new(&dir).verify(1, &manifest.groups[0]).unwrap_err().to_string();
        assert!(gone.contains("data-000001"), "{gone}");
    }

    #[test]
    fn an_interrupted_backup_is_none_and_the_next_one_takes_its_number() {
        let home = tempfile::tempdir().unwrap();
        let (engine, _) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        back_up(&engine, &dir);
        fs::remove_file(dir.join("manifest-000001")).unwrap();
        fs::write(dir.join("manifest.new"), b"half of it").unwrap();
        assert!(matches!(Archive::new(&dir).manifest(None), Err(BackupError::Missing { .. })));
        let (again, ..) = back_up(&engine, &dir);
        assert_eq!(again.number, 1);
        Archive::new(&dir).verify(1, &again.groups[0]).unwrap();
        let held = Writer::begin(&dir, Keep::All).unwrap();
        assert!(matches!(Writer::begin(&dir, Keep::All), Err(BackupError::InUse(_))));
        drop(held);
    }

    /// Changes some values.
    fn change(engine: &Engine, store: &mut Store, index: u64, keys: &[u64]) {
        store.begin_entry(Index(index), Micros(index * 1_000));
        for key in keys {
            store.set(&key.to_be_bytes(), Value::from_bytes(&index.to_le_bytes()), Ttl::Clear).unwrap();
        }
        store.end_entry();
        commit(engine, GROUP, (store, Term(4)), Vec::new()).unwrap();
    }

    #[test]
    fn the_newest_backup_that_has_nothing_from_after_a_moment_is_found() {
        let home = tempfile::tempdir().unwrap();
        let (engine, mut store) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        for (index, at) in [(2, 100), (3, 200), (4, 300)] {
            change(&engine, &mut store, index, &[7]);
            back_up_at(&engine, &dir, at, Keep::All);
        }
        let archive = Archive::new(&dir);
        #[rustfmt::skip] // columns
        let table = [
            (u64::MAX, Some(3)),
            (301,      Some(3)),
            (300,      Some(2)), // it was begun by then, and cut later
            (201,      Some(2)),
            (199,      Some(1)),
            (101,      Some(1)),
            (100,      None),
        ];
        for (moment, expected) in table {
            let found = archive.at(Millis(moment));
            assert_eq!(found.as_ref().ok().map(|found| found.number), expected, "{moment}");
            if let Err(error) = found {
                assert!(error.to_string().contains("number 1"), "{error}");
            }
        }
    }

    #[test]
    fn only_the_last_backups_are_kept_whole_and_their_directory_does_not_grow() {
        let home = tempfile::tempdir().unwrap();
        let (engine, mut store) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        let keep = Keep::Last(std::num::NonZeroU32::new(3).unwrap());
        let bytes = || -> u64 {
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
        };
        let mut rng = kernel::Rng::new(9);
        let mut some = move || (0..10).map(|_| rng.below(KEYS)).collect::<Vec<u64>>();
        let mut most = 0;
        for index in 2..40 {
            change(&engine, &mut store, index, &some());
            let (manifest, ..) = back_up_at(&engine, &dir, index * 10, keep);
            assert_eq!(manifest.number, index - 1, "numbers go on");
            let kept: Vec<u64> = (index.saturating_sub(3).max(1)..index).collect();
            assert_eq!(Archive::new(&dir).numbers().unwrap(), kept);
            for number in kept {
                let mut archive = Archive::new(&dir);
                let manifest = archive.manifest(Some(number)).unwrap();
                archive.verify(number, &manifest.groups[0]).unwrap();
            }
            most = most.max(bytes());
        }
        let whole = Archive::new(&dir).manifest(None).unwrap().groups[0].bytes;
        assert!(most < 4 * whole, "{most} bytes for backups of {whole}");
        // Unlike all of them.
        let all = home.path().join("all");
        for index in 40..78 {
            change(&engine, &mut store, index, &some());
            back_up_at(&engine, &all, index * 10, Keep::All);
        }
        let grown: u64 = fs::read_dir(&all).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
        assert!(grown > 4 * whole, "{grown} bytes");
        // What a crash left behind is removed with the next.
        let unused = (1..40).map(|number| dir.join(format!("data-{number:06}"))).find(|path| !path.exists());
        let unused = unused.unwrap();
        fs::write(&unused, b"left").unwrap();
        back_up_at(&engine, &dir, 999, keep);
        assert!(!unused.exists());
    }

    #[test]
    fn a_backup_between_the_first_and_the_last_that_are_kept_stays_whole_and_is_not_read_for_it() {
        let home = tempfile::tempdir().unwrap();
        let (engine, mut store) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        let keep = Keep::Last(std::num::NonZeroU32::new(5).unwrap());
        let (path, file) =
            (|name: &str, n: u64| dir.join(format!("{name}-{n:06}")), |chunk: &Chunk| chunk.data);
        let files = |n: u64| -> BTreeSet<u64> {
            let manifest = Archive::new(&dir).manifest(Some(n)).unwrap();
            manifest.groups.iter().flat_map(|group| &group.chunks).map(file).collect()
        };
        let mut rng = kernel::Rng::new(11);
        let mut between = 0;
        // Each writes one key again that the one before wrote, so what that one had written is only its own.
        for index in 2..40 {
            let more = rng.below(KEYS);
            change(&engine, &mut store, index, &[7, more]);
            let (newest, ..) = back_up_at(&engine, &dir, index * 10, keep);
            let kept = Archive::new(&dir).numbers().unwrap();
            let mut used = BTreeSet::new();
            for &number in &kept {
                let mut archive = Archive::new(&dir);
                let manifest = archive.manifest(Some(number)).unwrap();
                archive.verify(number, &manifest.groups[0]).unwrap();
                used.extend(files(number));
            }
            let there: BTreeSet<u64> = (1..=newest.number).filter(|n| path("data", *n).exists()).collect();
            assert_eq!(there, used, "what no backup has is gone");
            let ends: BTreeSet<u64> = [kept[0], newest.number].into_iter().flat_map(files).collect();
            between += usize::from(!used.is_subset(&ends));
        }
        assert!(between > 20, "{between} times only one between needed a file");
        let middle = path("manifest", 36);
        let good = fs::read(&middle).unwrap();
        fs::write(&middle, b"no manifest").unwrap();
        change(&engine, &mut store, 40, &[7]);
        back_up_at(&engine, &dir, 400, keep);
        fs::write(&middle, good).unwrap();
        // Of the first of those that are kept nobody can say what it needs any more.
        let good = fs::read(&middle).unwrap();
        fs::write(&middle, b"no manifest").unwrap();
        change(&engine, &mut store, 41, &[7]);
        back_up_at(&engine, &dir, 410, keep);
        assert_eq!(Archive::new(&dir).numbers().unwrap()[0], 36);
        fs::write(&middle, good).unwrap();
        for number in Archive::new(&dir).numbers().unwrap() {
            let mut archive = Archive::new(&dir);
            let manifest = archive.manifest(Some(number)).unwrap();
            archive.verify(number, &manifest.groups[0]).unwrap();
        }
    }

    #[test]
    fn of_two_restores_to_one_place_the_second_is_refused_and_harms_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (engine, store) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        let (manifest, ..) = back_up(&engine, &dir);
        let target = home.path().join("restored");
        let one_more = || {
            let mut archive = Archive::new(&dir);
            to_mark(&mut archive, &manifest, &target)
        };
        let (mut archive, mut refused) = (Archive::new(&dir), 0);
        let during = &mut |_| {
            let error = one_more().unwrap_err();
            assert!(matches!(&error, RestoreError::InUse(dir) if *dir == target), "{error}");
            refused += 1;
        };
        restore(&mut archive, &Reach::mark(manifest.clone()), &target, EngineOptions::default(), during)
            .unwrap();
        assert!(refused > 1);
        assert!(matches!(one_more(), Err(RestoreError::NotEmpty(_))));
        assert!(!beside(&target).exists());
        let engine = Arc::new(Engine::open(&target.join("engine"), EngineOptions::default()).unwrap());
        let marks = engine.groups().unwrap();
        let back = load_group(&engine, (marks[0].0, &marks[0].1), 1, None).unwrap();
        assert_eq!(back.digest().unwrap(), store.digest().unwrap());
        // What an interrupted one left is no hindrance.
        let other = home.path().join("other");
        fs::create_dir_all(beside(&other).join("engine")).unwrap();
        fs::write(beside(&other).join("partitions"), b"half").unwrap();
        to_mark(&mut Archive::new(&dir), &manifest, &other).unwrap();
    }

    #[test]
    fn what_was_divided_otherwise_later_is_restored_as_it_was_divided_first() {
        let manifest = |number: u64, partitions: u16| Manifest {
            number,
            at: Millis(number),
            until: Some(Millis(number)),
            skew_ms: Some(0),
            origin: Origin { id: [1; 16], is_cluster: true },
            keyspaces: vec![
                Keyspace { id: KeyspaceId(3), partitions, mark: None },
                // One that was made meanwhile is as it was made.
                Keyspace { id: KeyspaceId(3 + number as u16), partitions: 5, mark: None },
            ],
            groups: Vec::new(),
        };
        let reach = Reach { chain: vec![manifest(1, 4), manifest(2, 2)], moment: None, ends: None };
        let divisions = divided(&reach).unwrap();
        let counts = [3, 4, 5].map(|id| divisions.of(KeyspaceId(id)).count());
        assert_eq!(counts, [4, 5, 5]);
    }

    #[test]
    fn a_keyspace_that_no_node_could_serve_is_refused_by_name_before_anything_is_written() {
        let home = tempfile::tempdir().unwrap();
        let (engine, _) = filled(&home.path().join("engine"));
        let dir = home.path().join("backups");
        let (good, ..) = back_up(&engine, &dir);
        let target = home.path().join("restored");
        let keyspace = Keyspace { id: KeyspaceId(40), partitions: PARTITIONS_MAX + 1, mark: None };
        let manifest = Manifest { keyspaces: [good.keyspaces.clone(), vec![keyspace]].concat(), ..good };
        let refused = to_mark(&mut Archive::new(&dir), &manifest, &target);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("keyspace 40") && error.contains("1025"), "{error}");
        assert!(!target.exists() && !beside(&target).exists());
    }
}
