//! The data files of backups: chunks one after another, each in a frame that proves it; and their log files, which have
//! blocks of entries in the same way.
//!
//! ```text
//! "ARCHDATA" or "ARCHLOGS" | version u32 | number u64 | CRC-32 of what is before u32
//! frames: length u32 | CRC-32 of number, offset and bytes u32 | bytes
//! ```

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::manifest::{Chunk, Digest};
use super::{BackupError, failed};

/// How a file of chunks begins.
pub(super) const CHUNKS: [u8; 8] = *b"ARCHDATA";
/// How a file of entries begins.
pub(super) const ENTRIES: [u8; 8] = *b"ARCHLOGS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
/// Bytes of a frame before its chunk.
pub const FRAME_BYTES: usize = 8;

fn header(magic: [u8; 8], number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Depends on the place, so that a frame that is moved is no frame.
fn crc(number: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A data file that is being written.
pub(super) struct DataWriter {
    number: u64,
    file: BufWriter<File>,
    /// Where the next frame begins; 0 before the header is written.
    end: u64,
}

impl DataWriter {
    /// Makes the file, over one that an interrupted backup left.
    pub fn create(path: &Path, magic: [u8; 8], number: u64) -> Result<DataWriter, BackupError> {
        let file = File::create(path).map_err(failed("create", path))?;
        let mut writer = DataWriter { number, file: BufWriter::new(file), end: HEADER_BYTES as u64 };
        writer.file.write_all(&header(magic, number)).map_err(failed("write", path))?;
        Ok(writer)
    }

    /// Appends a chunk, and says where it is.
    pub fn append(&mut self, path: &Path, digest: Digest, bytes: &[u8]) -> Result<Chunk, BackupError> {
        let offset = self.end;
        let length = u32::try_from(bytes.len()).expect("a chunk is short");
        let crc = crc(self.number, offset, bytes);
        for part in [&length.to_le_bytes()[..], &crc.to_le_bytes(), bytes] {
            self.file.write_all(part).map_err(failed("write", path))?;
        }
        self.end += (FRAME_BYTES + bytes.len()) as u64;
        Ok(Chunk { digest, data: self.number, offset, bytes: length })
    }

    /// Makes it durable; the bytes that it has.
    pub fn finish(self, path: &Path) -> Result<u64, BackupError> {
        let file = self.file.into_inner().map_err(|error| failed("write", path)(error.into_error()))?;
        file.sync_all().map_err(failed("sync", path))?;
        Ok(self.end)
    }
}

/// A data file that is read.
pub(super) struct DataReader {
    number: u64,
    file: File,
}

impl DataReader {
    /// Opens the file and looks at its header.
    pub fn open(path: &Path, magic: [u8; 8], number: u64) -> Result<DataReader, BackupError> {
        let mut file = File::open(path).map_err(failed("open", path))?;
        let mut found = [0; HEADER_BYTES];
        let damaged = |what| BackupError::damaged(path, 0, what);
        file.read_exact(&mut found).map_err(|_| damaged("its header breaks off"))?;
        if found != header(magic, number) {
            return Err(damaged("its header is not that of this file, or of a newer version"));
        }
        Ok(DataReader { number, file })
    }

    /// The bytes of a chunk, checked by its frame and its digest.
    pub fn read(&mut self, path: &Path, chunk: &Chunk) -> Result<Vec<u8>, BackupError> {
        let damaged = |what| BackupError::damaged(path, chunk.offset, what);
        self.file.seek(SeekFrom::Start(chunk.offset)).map_err(failed("read", path))?;
        // The manifest has checked the length against the limit.
        let mut frame = vec![0; FRAME_BYTES + chunk.bytes as usize];
        match self.file.read_exact(&mut frame) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(damaged("a chunk breaks off"));
            }
            done => done.map_err(failed("read", path))?,
        }
        let bytes = frame.split_off(FRAME_BYTES);
        let expected = crc(self.number, chunk.offset, &bytes);
        if frame[..4] != chunk.bytes.to_le_bytes() || frame[4..] != expected.to_le_bytes() {
            return Err(damaged("a chunk fails its checksum"));
        }
        if Digest::of(&bytes) != chunk.digest {
            return Err(damaged("a chunk is not the one that the backup names"));
        }
        Ok(bytes)
    }
}
