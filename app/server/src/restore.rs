//! A new data directory out of a backup: that of a node in no cluster, which can be started, alone or as a cluster's first
//! member.
//!
//! It is made beside its place and gets its name when all of it is checked and durable, so an interrupted restore leaves
//! nothing that could be started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::backup::{Archive, BackupError, Group, Manifest};
use disk::engine::{Engine, EngineError, EngineOptions};
use node::Divisions;
use placement::Partitions;
use thiserror::Error;

use crate::divisions;
use crate::identity::identity;
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
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The new engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The new directory.
    #[error(transparent)]
    Node(#[from] NodeError),
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
    /// The manifest names what no keyspace can have.
    #[error("the backup names a keyspace of {0} partitions, which this version does not have")]
    Partitions(u16),
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Partitions.
    pub groups: u64,
    /// Their objects.
    pub objects: u64,
    /// Bytes of their streams.
    pub bytes: u64,
}

/// Makes `dir`, which must be empty or not there, what the backup says. `progress` hears of bytes that were restored.
///
/// # Errors
/// [`RestoreError`]; then `dir` is as it was.
pub fn restore(
    archive: &mut Archive,
    manifest: &Manifest,
    dir: &Path,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| RestoreError::File { action, path, source }
    };
    let is_free = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed("look into", dir)(error)),
    };
    if !is_free {
        return Err(RestoreError::NotEmpty(dir.to_path_buf()));
    }
    let part = beside(dir);
    match fs::remove_dir_all(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear", &part)(error)),
        Ok(()) | Err(_) => {}
    }
    let home = part.join("engine");
    fs::create_dir_all(&home).map_err(failed("create", &home))?;
    // The order of keys, and what random commands draw, are this directory's own from now on.
    identity(&part)?;
    let mut divisions = Divisions::default();
    for keyspace in &manifest.keyspaces {
        let count = keyspace.partitions;
        let partitions = Partitions::new(count).map_err(|_| RestoreError::Partitions(count))?;
        divisions.set(keyspace.id, partitions);
    }
    divisions::record(&part, &divisions)?;
    let engine = Arc::new(Engine::open(&home, options)?);
    let mut restored = Restored::default();
    for group in &manifest.groups {
        stage(&engine, archive, group, progress)?;
        restored.groups += 1;
        restored.objects += group.objects();
        restored.bytes += group.bytes;
    }
    if let Some(engine) = Arc::into_inner(engine) {
        engine.close()?;
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::rename(&part, dir).map_err(failed("name", dir))?;
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync", parent))?;
    Ok(restored)
}

/// One partition, checked as a snapshot from another node is.
fn stage(
    engine: &Engine,
    archive: &mut Archive,
    group: &Group,
    progress: &mut dyn FnMut(u64),
) -> Result<(), RestoreError> {
    engine.begin_stage(group.group, STAGED)?;
    let last = group.chunks.len().saturating_sub(1);
    for (at, chunk) in group.chunks.iter().enumerate() {
        let bytes = archive.chunk(chunk)?;
        engine.stage(group.group, &bytes, (at < last).then_some(MORE))?;
        progress(bytes.len() as u64);
    }
    engine.check_stage(group.group, group.bytes, group.checksum)?;
    engine.install(group.group, group.index, b"")?;
    Ok(())
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
    use disk::backup::{Incoming, Keyspace, Origin, Writer};
    use disk::engine::CutInfo;
    use kernel::{GroupId, Index, KeyspaceId, Micros, Millis};
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
        commit(&engine, GROUP, (&mut store, kernel::Term(4)), Vec::new()).unwrap();
        (engine, store)
    }

    fn back_up(engine: &Engine, dir: &Path) -> (Manifest, u64, u64) {
        let mut writer = Writer::begin(dir).unwrap();
        let CutInfo { generation, bytes, checksum, mark } = engine.make_cut(GROUP).unwrap();
        let (index, term) = (mark.index, mark.term);
        let group = Group { group: GROUP, index, term, leads: true, bytes, checksum, chunks: Vec::new() };
        if !writer.unchanged(&group) {
            let mut incoming = Incoming::new(group);
            let mut cursor = Some(Vec::new());
            while let Some(at) = cursor {
                let lot = engine.read_cut(GROUP, generation, &at, 100_000).unwrap();
                writer.push(&mut incoming, &lot.bytes).unwrap();
                cursor = lot.next;
            }
            writer.end(incoming).unwrap();
        }
        let (written, reused) = (writer.written, writer.reused);
        let keyspaces = vec![Keyspace { id: KeyspaceId(3), partitions: 2 }];
        let origin = Origin { id: [1; 16], is_cluster: false };
        (writer.finish(Millis(5), origin, keyspaces).unwrap(), written, reused)
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
        commit(&engine, GROUP, (&mut store, kernel::Term(4)), Vec::new()).unwrap();
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
            let done = restore(&mut archive, &manifest, &target, options.clone(), &mut |bytes| told += bytes);
            let expected = Restored { groups: 1, objects: manifest.groups[0].objects(), bytes: told };
            assert_eq!(done.unwrap(), expected);
            let engine = Arc::new(Engine::open(&target.join("engine"), options).unwrap());
            let marks = engine.groups().unwrap();
            let back = load_group(&engine, (marks[0].0, &marks[0].1), 1, None).unwrap();
            assert_eq!(back.digest().unwrap(), digest);
            assert_eq!(back.len() as u64, expected.objects);
            assert_eq!(divisions::recorded(&target).unwrap().of(KeyspaceId(3)).count(), 2);
            let again = restore(&mut archive, &manifest, &target, EngineOptions::default(), &mut |_| ());
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
                    restore(&mut archive, &found, &target, EngineOptions::default(), &mut |_| ())
                });
                let error = read.unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("byte"), "round {round} at {at}: {error}");
                assert!(!target.exists());
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
        let held = Writer::begin(&dir).unwrap();
        assert!(matches!(Writer::begin(&dir), Err(BackupError::InUse(_))));
        drop(held);
    }
}
