//! The file of what is registered at the node: replaced whole, with a checksum, and synced before anybody is answered.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kernel::codec::DecodeError;
use mesh::health::Saved;
use thiserror::Error;

/// Its name in the data directory.
pub(super) const NAME: &str = "services";

/// Why it cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The disk.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Not what was written.
    #[error("{} is damaged; remove it to start without the services that were registered here", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be read by this version.
    #[error("{} cannot be read ({source}); was it written by a newer version?", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The reason.
        source: DecodeError,
    },
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// The file of `dir`, and what it says; nothing if there is none.
    pub fn open(dir: &Path) -> Result<(Kept, Saved), FileError> {
        let (kept, path) = (Kept { dir: dir.to_path_buf() }, dir.join(NAME));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((kept, Saved::default())),
            Err(source) => return Err(FileError::Io { path, source }),
        };
        let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
            return Err(FileError::Damaged { path });
        };
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(FileError::Damaged { path });
        }
        let saved = Saved::decode(body).map_err(|source| FileError::Unreadable { path, source })?;
        Ok((kept, saved))
    }

    /// Replaces it; it is durable when this returns.
    pub fn write(&self, body: &[u8]) -> Result<(), FileError> {
        let (path, fresh) = (self.dir.join(NAME), self.dir.join("services.new"));
        let failed = |source| FileError::Io { path: path.clone(), source };
        let mut file = File::create(&fresh).map_err(failed)?;
        file.write_all(body).map_err(failed)?;
        file.write_all(&crc32fast::hash(body).to_le_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&fresh, &path).map_err(failed)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, saved) = Kept::open(dir.path()).unwrap();
        assert_eq!(saved, Saved::default());
        let told = Saved { incarnation: 7, index: 9, ..Saved::default() };
        kept.write(&told.encode()).unwrap();
        assert_eq!(Kept::open(dir.path()).unwrap().1, told);
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Kept::open(dir.path()), Err(FileError::Damaged { .. })));
        std::fs::write(&path, [1, 2]).unwrap();
        assert!(matches!(Kept::open(dir.path()), Err(FileError::Damaged { .. })));
    }
}
