//! One data directory, one process: a locked file, which the system releases however the process ends.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

/// How often it is looked whether a directory is given back.
const LOOK: Duration = Duration::from_millis(5);

/// Why the directory cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by process {holder}; stop that one, or choose another directory with --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote: its process id.
        holder: String,
    },
    /// It cannot be used at all.
    #[error("cannot use the data directory {}: {source}; choose another with --data-dir or mend its permissions", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// The right to use a data directory. Dropped, it is given back.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// The same from a process that is giving it back: it is waited for.
    ///
    /// # Errors
    /// [`LockError`], also if it is still in use after `limit`.
    pub fn wait(dir: &Path, limit: Duration) -> Result<DirectoryLock, LockError> {
        let end = Instant::now() + limit;
        loop {
            match DirectoryLock::take(dir) {
                Err(LockError::InUse { .. }) if Instant::now() < end => std::thread::sleep(LOOK),
                done => return done,
            }
        }
    }

    /// Makes `dir` if it is not there and takes it.
    ///
    /// # Errors
    /// [`LockError`]
    pub fn take(dir: &Path) -> Result<DirectoryLock, LockError> {
        let unusable = |source| LockError::Unusable { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        let path = dir.join("lock");
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder's number is a courtesy; without it the message still says what to do.
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
                return Err(LockError::InUse { dir: dir.to_owned(), holder: holder.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(DirectoryLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once_and_its_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(dir.path()).unwrap();
        let refused = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert!(DirectoryLock::wait(dir.path(), LOOK).is_err());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| DirectoryLock::wait(dir.path(), Duration::from_secs(60)));
            drop(held);
            waits.join().unwrap().unwrap();
        });
    }
}
