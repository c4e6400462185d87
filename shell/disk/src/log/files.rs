//! What the log asks of the file system, and the names of its files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::SegmentId;
use rustix::fs::FallocateFlags;

use super::LogError;

/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 1 << 20;
/// And synced after this many bytes, so that a sync of the active segment never queues behind a whole
/// new one.
const ZERO_SYNC_BYTES: u64 = 4 << 20;

/// The calls that can fail for reasons of the disk; tests make them fail.
pub(super) trait Files: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's bytes durable, and its size.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Reserves the file's first `bytes` bytes and sets its size.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;
    /// The bytes that are free for us on the directory's file system.
    fn free(&self, dir: &File) -> io::Result<u64>;
}

/// The operating system.
pub(super) struct Os;

impl Files for Os {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            // Then the zeros that are written next find out.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
            result => result.map_err(io::Error::from),
        }
    }

    fn free(&self, dir: &File) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// True for the errors that end when space is back.
pub(super) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes zeros to `from..to`, durably.
pub(super) fn zero(files: &dyn Files, file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES.min(usize::try_from(to.saturating_sub(from)).unwrap_or(ZERO_BYTES))];
    let (mut at, mut unsynced) = (from, 0);
    while at < to {
        let piece = (zeros.len() as u64).min(to - at);
        files.write(file, &zeros[..piece as usize], at)?;
        at += piece;
        unsynced += piece;
        if unsynced >= ZERO_SYNC_BYTES {
            files.sync(file)?;
            unsynced = 0;
        }
    }
    files.sync(file)
}

/// The log's directory, kept open to be synced.
pub(super) struct Directory {
    path: PathBuf,
    file: File,
}

/// What a file of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// A segment of the log, or the next one, prepared.
    Segment(SegmentId),
    /// A retired segment that will be used again under another id.
    Spare(SegmentId),
    /// A segment that is being made.
    Unfinished,
}

impl Name {
    fn parse(name: &str) -> Option<Name> {
        if name == "unfinished" {
            return Some(Name::Unfinished);
        }
        let (digits, kind) = name.split_once('.')?;
        let id = SegmentId(u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)?);
        match kind {
            "log" => Some(Name::Segment(id)),
            "spare" => Some(Name::Spare(id)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Segment(id) => write!(f, "{:016x}.log", id.0),
            Name::Spare(id) => write!(f, "{:016x}.spare", id.0),
            Name::Unfinished => f.write_str("unfinished"),
        }
    }
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Directory, LogError> {
        let failed = |action| move |source| LogError::File { action, path: path.to_path_buf(), source };
        fs::create_dir_all(path).map_err(failed("create"))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync the parent of"))?;
        }
        let file = File::open(path).map_err(failed("open"))?;
        Ok(Directory { path: path.to_path_buf(), file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn join(&self, name: Name) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// The log's files, segments first, oldest first. Other files are left alone.
    pub(super) fn names(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().to_str().and_then(Name::parse));
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn open_file(&self, name: Name) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.join(name))
    }

    /// A new, empty file.
    pub(super) fn create(&self, name: Name) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.join(name))
    }

    /// Renames durably, over what has the new name.
    pub(super) fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        fs::rename(self.join(from), self.join(to))?;
        self.file.sync_all()
    }

    /// Removes durably. A file that is not there is fine.
    pub(super) fn remove(&self, name: Name) -> io::Result<()> {
        match fs::remove_file(self.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.file.sync_all(),
        }
    }
}
