//! A directory of backups: each has a manifest, `manifest-<number>`, what was new in it, `data-<number>`, and the entries since
//! the one before, `log-<number>`.
//!
//! A backup names chunks by their SHA-256. One that an earlier backup of the directory has is not written again, so a
//! backup of what has hardly changed is small, and each is whole together with the data files that it names. The data is
//! durable before the manifest is, which is renamed to its name last: an interrupted backup is none, and the next one
//! takes its number. Who keeps only the last backups ([`Keep::Last`]) has older manifests removed, and data files that no
//! manifest names any more; of a data file that is mostly unused, what is in use is written again, so that it can go too.
//!
//! It does not know where chunks come from, and restores nothing.

mod course;
mod data;
mod gather;
mod history;
mod manifest;
mod reach;
mod records;
mod split;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use kernel::codec::DecodeError;
use kernel::{GroupId, Millis};
use thiserror::Error;

use self::data::{DataReader, DataWriter, FRAME_BYTES};
pub use self::gather::{Gather, Point, Wanted};
pub use self::history::{Block, History, Read as ReadOn, TIME_UNKNOWN};
pub use self::manifest::{
    Chunk, Digest, Group, Keyspace, MANIFEST_BYTES_MAX, Manifest, Origin, Unreadable, VERSION,
};
pub use self::reach::Reach;
pub use self::split::{CHUNK_BYTES_MAX, Splitter};

/// Why a backup is not made or not used.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How.
        what: &'static str,
    },
    /// It is of another version.
    #[error("{} is of version {version} of the format, and this program reads versions up to {VERSION}: use the one that made it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// There is no such backup.
    #[error("{} has no backup{}", dir.display(), number.map(|n| format!(" with the number {n}")).unwrap_or_default())]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The number that was asked for.
        number: Option<u64>,
    },
    /// None is old enough.
    #[error("{} has no backup that was complete by then{}", dir.display(), first.map(|number| format!("; the first that says when it was is number {number}")).unwrap_or_default())]
    TooEarly {
        /// The directory.
        dir: PathBuf,
        /// The first that says when it was complete.
        first: Option<u64>,
    },
    /// The entries between two backups are not there.
    #[error("of partition {}/{} {} lacks the entries between backup {before} and backup {after}: those have it as it was then (--number)", group.keyspace(), group.partition(), dir.display())]
    Gap {
        /// The directory.
        dir: PathBuf,
        /// Of which partition.
        group: GroupId,
        /// The backup before.
        before: u64,
        /// The backup after.
        after: u64,
    },
    /// Another process writes there.
    #[error("another backup is being made in {}: wait for it, or give another directory", .0.display())]
    InUse(PathBuf),
    /// What came is not a partition's stream, or another one than was announced.
    #[error("what the node sent of group {0} is not what it announced: try again")]
    Unlike(GroupId),
    /// What came cannot be read at all.
    #[error("what the node sent cannot be read ({0})")]
    Stream(#[from] DecodeError),
}

impl BackupError {
    fn damaged(path: &Path, offset: u64, what: &'static str) -> BackupError {
        BackupError::Damaged { path: path.to_path_buf(), offset, what }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::File { action, path, source }
}

/// A directory of backups that is read.
pub struct Archive {
    dir: PathBuf,
    /// The data file that was read last: chunks mostly follow each other.
    open: Option<(u64, DataReader)>,
    /// The same of log files.
    open_log: Option<(u64, DataReader)>,
}

/// What was found of a sound partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Chunks read.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Archive {
    /// The directory `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Archive {
        Archive { dir: dir.to_path_buf(), open: None, open_log: None }
    }

    /// The numbers of its backups, ascending; none if there is no such directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn numbers(&self) -> Result<Vec<u64>, BackupError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.dir)(error)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("list", &self.dir))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("manifest-")?.parse().ok());
            numbers.extend(number.filter(|number| self.manifest_path(*number).ends_with(&name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The backup with this number, or the last one.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn manifest(&self, number: Option<u64>) -> Result<Manifest, BackupError> {
        let numbers = self.numbers()?;
        let missing = || BackupError::Missing { dir: self.dir.clone(), number };
        let wanted = number.or(numbers.last().copied()).filter(|number| numbers.contains(number));
        let wanted = wanted.ok_or_else(missing)?;
        let path = self.manifest_path(wanted);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(failed("open", &path))?;
        file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        let damaged = |what| BackupError::damaged(&path, 0, what);
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(damaged("it is longer than any manifest"));
        }
        let manifest = Manifest::decode(&bytes).map_err(|reason| match reason {
            Unreadable::Foreign => damaged("it does not begin as a manifest does"),
            Unreadable::Version(version) => BackupError::Version { path: path.clone(), version },
            Unreadable::Damaged => damaged("its checksum is not that of what is in it"),
            Unreadable::Invalid => damaged("it breaks off, or says what cannot be"),
        })?;
        if manifest.number == wanted { Ok(manifest) } else { Err(damaged("it is another backup's")) }
    }

    /// The newest backup that has nothing from after `moment`, by the clocks of who made them. One of version 1 of the
    /// format does not say how late it was cut, and is only had by its number.
    ///
    /// # Errors
    /// [`BackupError::TooEarly`] if there is none, and as [`Archive::manifest`] for any that is newer.
    pub fn at(&self, moment: Millis) -> Result<Manifest, BackupError> {
        let mut first = None;
        for number in self.numbers()?.into_iter().rev() {
            let manifest = self.manifest(Some(number))?;
            match manifest.until {
                Some(until) if until <= moment => return Ok(manifest),
                Some(_) => first = Some(number),
                None => {}
            }
        }
        Err(BackupError::TooEarly { dir: self.dir.clone(), first })
    }

    /// A chunk's bytes.
    ///
    /// # Errors
    /// [`BackupError`], with file and place.
    pub fn chunk(&mut self, chunk: &Chunk) -> Result<Vec<u8>, BackupError> {
        let path = self.data_path(chunk.data);
        if self.open.as_ref().is_none_or(|(number, _)| *number != chunk.data) {
            self.open = Some((chunk.data, DataReader::open(&path, data::CHUNKS, chunk.data)?));
        }
        let (_, reader) = self.open.as_mut().expect("it was just opened");
        reader.read(&path, chunk)
    }

    /// A block's bytes, which backup `number` has.
    fn block(&mut self, number: u64, block: &Block) -> Result<Vec<u8>, BackupError> {
        let path = self.log_path(number);
        if self.open_log.as_ref().is_none_or(|(open, _)| *open != number) {
            self.open_log = Some((number, DataReader::open(&path, data::ENTRIES, number)?));
        }
        let (_, reader) = self.open_log.as_mut().expect("it was just opened");
        let Block { digest, offset, bytes } = *block;
        reader.read(&path, &Chunk { digest, data: number, offset, bytes })
    }

    /// Reads all of a partition and compares it with what its manifest says.
    ///
    /// # Errors
    /// [`BackupError`], with file and place.
    pub fn verify(&mut self, number: u64, group: &Group) -> Result<Verified, BackupError> {
        let mut verified = Verified::default();
        let mut hasher = crc32fast::Hasher::new();
        let mut splitter = Splitter::default();
        let mut first = None;
        for chunk in &group.chunks {
            let bytes = self.chunk(chunk)?;
            let unfit = |_| {
                BackupError::damaged(&self.data_path(chunk.data), chunk.offset, "it is no stream of objects")
            };
            splitter.push(&bytes, &mut |_: &[u8]| Ok::<(), DecodeError>(())).map_err(unfit)?;
            first = first.or_else(|| crate::engine::announced(&bytes));
            hasher.update(&bytes);
            verified.chunks += 1;
            verified.bytes += bytes.len() as u64;
        }
        let sum = group.objects() << 32 | u64::from(hasher.finalize());
        let begins = first == Some((group.index, group.term, group.objects()));
        if begins && sum == group.checksum && verified.bytes == group.bytes {
            return Ok(verified);
        }
        Err(BackupError::damaged(&self.manifest_path(number), 0, "a partition's chunks are not its stream"))
    }

    /// Of the data files that these chunks are in, those that are used for less than a half by them.
    fn sparse<'a>(&self, chunks: impl Iterator<Item = &'a Chunk>) -> Result<BTreeSet<u64>, BackupError> {
        let mut used: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for chunk in chunks {
            used.entry(chunk.data).or_default().insert(chunk.offset, u64::from(chunk.bytes));
        }
        let mut sparse = BTreeSet::new();
        for (number, chunks) in used {
            let path = self.data_path(number);
            let bytes = fs::metadata(&path).map_err(failed("open", &path))?.len();
            if chunks.values().sum::<u64>() < bytes / 2 {
                sparse.insert(number);
            }
        }
        Ok(sparse)
    }

    /// Removes all backups but the last ones, and data that only they had. A crash on the way leaves what the next time
    /// removes.
    ///
    /// A backup takes over only what the one directly before it has, so those that need a data file follow each other,
    /// from the one of its number on. What any that is kept needs is then what the first of them needs, or was written
    /// behind that one, so the others are not read: there may be thousands, and damage in one is no reason to stop.
    fn prune(&self, count: NonZeroU32, newest: &Manifest) -> Result<(), BackupError> {
        let mut numbers = self.numbers()?;
        let kept = numbers.split_off(numbers.len().saturating_sub(count.get() as usize));
        let first = kept.first().copied().unwrap_or(newest.number);
        // If it cannot be read, nobody can say what it needs, so everything stays until it goes itself; newer ones go on.
        let oldest = self.manifest(Some(first)).ok();
        let of_ends = oldest.iter().chain([newest]).flat_map(|manifest| &manifest.groups);
        let of_ends: BTreeSet<u64> =
            of_ends.flat_map(|group| &group.chunks).map(|chunk| chunk.data).collect();
        let is_used = |data: u64| oldest.is_none() || of_ends.contains(&data) || data > first;
        for number in numbers {
            let path = self.manifest_path(number);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        // No manifest comes back that names what is removed now.
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", &self.dir))?;
        for entry in fs::read_dir(&self.dir).map_err(failed("list", &self.dir))? {
            let name = entry.map_err(failed("list", &self.dir))?.file_name();
            let number = |prefix: &str| -> Option<u64> { name.to_str()?.strip_prefix(prefix)?.parse().ok() };
            let data = number("data-").filter(|number| !is_used(*number));
            // The first that is kept needs its own, to be brought to where it is consistent.
            let log = number("log-").filter(|number| *number < first);
            let unused = [data.map(|it| self.data_path(it)), log.map(|it| self.log_path(it))];
            for path in unused.into_iter().flatten() {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    fn manifest_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("manifest-{number:06}"))
    }

    fn data_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("data-{number:06}"))
    }

    fn log_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("log-{number:06}"))
    }
}

/// How many backups a directory keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// So many; the older ones go when one more is complete.
    Last(NonZeroU32),
}

/// When a backup was made, by the clock of who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it was begun.
    pub at: Millis,
    /// When the last partition was cut; not before that.
    pub until: Millis,
    /// How far clocks of nodes were found from that clock at most, in milliseconds.
    pub skew_ms: u64,
}

/// A backup that is being made.
pub struct Writer {
    archive: Archive,
    number: u64,
    data: Option<DataWriter>,
    log: Option<DataWriter>,
    /// Chunks of the backup before, and of this one.
    known: HashMap<Digest, Chunk>,
    before: Option<Manifest>,
    keep: Keep,
    /// Data files that are mostly unused, and are to go.
    sparse: BTreeSet<u64>,
    groups: BTreeMap<GroupId, Group>,
    /// Bytes of chunks that were written.
    pub written: u64,
    /// Bytes of chunks that were there.
    pub reused: u64,
    _lock: File,
}

/// A partition on its way into a backup.
pub struct Incoming {
    group: Group,
    splitter: Splitter,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl Incoming {
    /// A stream that is announced as this; its chunks are to come.
    #[must_use]
    pub fn new(announced: Group) -> Incoming {
        let group = Group { chunks: Vec::new(), ..announced };
        Incoming { group, splitter: Splitter::default(), crc: crc32fast::Hasher::new(), bytes: 0 }
    }
}

impl Writer {
    /// Begins the next backup in `dir`, which is made if it is not there, and of which so many are kept in the end.
    ///
    /// # Errors
    /// [`BackupError`]; the last backup there must be sound, because this one is made of its chunks.
    pub fn begin(dir: &Path, keep: Keep) -> Result<Writer, BackupError> {
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let path = dir.join("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::InUse(dir.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        let archive = Archive::new(dir);
        let before = match archive.numbers()?.last() {
            Some(last) => Some(archive.manifest(Some(*last))?),
            None => None,
        };
        let number = before.as_ref().map_or(1, |before| before.number + 1);
        let chunks = before.iter().flat_map(|before| &before.groups).flat_map(|group| &group.chunks);
        // What is taken over is not read again, so the files must be there.
        let files: BTreeSet<u64> = chunks.clone().map(|chunk| chunk.data).collect();
        files
            .iter()
            .try_for_each(|&file| DataReader::open(&archive.data_path(file), data::CHUNKS, file).map(drop))?;
        let sparse = match keep {
            Keep::All => BTreeSet::new(),
            Keep::Last(_) => archive.sparse(chunks.clone())?,
        };
        let known = chunks.filter(|chunk| !sparse.contains(&chunk.data));
        let known = known.map(|chunk| (chunk.digest, *chunk)).collect();
        Ok(Writer {
            archive,
            number,
            data: None,
            log: None,
            known,
            before,
            keep,
            sparse,
            groups: BTreeMap::new(),
            written: 0,
            reused: 0,
            _lock: lock,
        })
    }

    /// The backup before.
    #[must_use]
    pub const fn before(&self) -> Option<&Manifest> {
        self.before.as_ref()
    }

    /// Takes a partition over from the backup before, if it is there as announced; false if it must be sent, also because
    /// it is to be written again.
    pub fn unchanged(&mut self, announced: &Group) -> bool {
        let all = self.before.iter().flat_map(|before| &before.groups);
        let same = |it: &&Group| {
            (it.group, it.index, it.term, it.bytes, it.checksum)
                == (announced.group, announced.index, announced.term, announced.bytes, announced.checksum)
        };
        let Some(found) = { all }.find(same).cloned() else { return false };
        if found.chunks.iter().any(|chunk| self.sparse.contains(&chunk.data)) {
            return false;
        }
        self.reused += found.bytes;
        let (leads, history) = (announced.leads, announced.history.clone());
        self.groups.insert(found.group, Group { leads, history, ..found });
        true
    }

    /// Takes the next lot of a partition.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn push(&mut self, incoming: &mut Incoming, lot: &[u8]) -> Result<(), BackupError> {
        incoming.crc.update(lot);
        incoming.bytes += lot.len() as u64;
        let (splitter, chunks) = (&mut incoming.splitter, &mut incoming.group.chunks);
        splitter.push(lot, &mut |bytes| {
            chunks.push(self.keep(bytes)?);
            Ok(())
        })
    }

    /// The partition is whole.
    ///
    /// # Errors
    /// [`BackupError::Unlike`] if it is not what was announced.
    pub fn end(&mut self, incoming: Incoming) -> Result<(), BackupError> {
        let Incoming { mut group, splitter, crc, bytes } = incoming;
        let chunks = &mut group.chunks;
        splitter.finish(&mut |bytes: &[u8]| -> Result<(), BackupError> {
            chunks.push(self.keep(bytes)?);
            Ok(())
        })?;
        if bytes != group.bytes || group.objects() << 32 | u64::from(crc.finalize()) != group.checksum {
            return Err(BackupError::Unlike(group.group));
        }
        self.groups.insert(group.group, group);
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Chunk, BackupError> {
        let digest = Digest::of(bytes);
        if let Some(chunk) = self.known.get(&digest) {
            self.reused += bytes.len() as u64;
            return Ok(*chunk);
        }
        let path = self.archive.data_path(self.number);
        if self.data.is_none() {
            self.data = Some(DataWriter::create(&path, data::CHUNKS, self.number)?);
        }
        let data = self.data.as_mut().expect("it was just made");
        let chunk = data.append(&path, digest, bytes)?;
        self.known.insert(digest, chunk);
        self.written += (FRAME_BYTES + bytes.len()) as u64;
        Ok(chunk)
    }

    /// A group that is in it.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    /// Sets what there is of the log of a group that is in it, of which nothing need be gathered.
    pub fn set_history(&mut self, group: GroupId, history: History) {
        let found = self.groups.get_mut(&group).expect("a group has a history when it is here");
        found.history = Some(history);
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Block, BackupError> {
        let path = self.archive.log_path(self.number);
        if self.log.is_none() {
            self.log = Some(DataWriter::create(&path, data::ENTRIES, self.number)?);
        }
        let log = self.log.as_mut().expect("it was just made");
        let Chunk { digest, offset, bytes: length, .. } = log.append(&path, Digest::of(bytes), bytes)?;
        self.written += (FRAME_BYTES + bytes.len()) as u64;
        Ok(Block { digest, offset, bytes: length })
    }

    /// Makes the backup durable and gives it its name; then those that are kept no longer are removed.
    ///
    /// # Errors
    /// [`BackupError`]; there is no such backup then, unless it is of the removal.
    pub fn finish(
        self,
        span: Span,
        origin: Origin,
        keyspaces: Vec<Keyspace>,
    ) -> Result<Manifest, BackupError> {
        let Writer { archive, number, data, log, groups, keep, .. } = self;
        for (file, path) in [(data, archive.data_path(number)), (log, archive.log_path(number))] {
            file.map(|file| file.finish(&path)).transpose()?;
        }
        // Of whose log nothing was gathered is had as its checkpoint is.
        let at = |group: &Group| {
            let point = Point { index: group.index, term: group.term };
            History::at((point, TIME_UNKNOWN), point)
        };
        let with_history = |group: Group| {
            let history = group.history.clone().unwrap_or_else(|| at(&group));
            Group { history: Some(history), ..group }
        };
        let groups = groups.into_values().map(with_history).collect();
        // A clock that was set back meanwhile must not make it impossible.
        let sound = |it: Keyspace| Keyspace { mark: it.mark.map(|mark| mark.max(span.at)), ..it };
        let keyspaces = keyspaces.into_iter().map(sound).collect();
        let (until, skew_ms) = (Some(span.until.max(span.at)), Some(span.skew_ms));
        let manifest = Manifest { number, at: span.at, until, skew_ms, origin, keyspaces, groups };
        let (path, part) = (archive.manifest_path(number), archive.dir.join("manifest.new"));
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&manifest), "a manifest reads back");
        let mut file = File::create(&part).map_err(failed("create", &part))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", &part))?;
        // The data file's name is durable before the manifest's.
        let sync = || File::open(&archive.dir).and_then(|dir| dir.sync_all());
        sync().map_err(failed("sync", &archive.dir))?;
        fs::rename(&part, &path).map_err(failed("name", &path))?;
        sync().map_err(failed("sync", &archive.dir))?;
        if let Keep::Last(count) = keep {
            archive.prune(count, &manifest)?;
        }
        Ok(manifest)
    }
}
