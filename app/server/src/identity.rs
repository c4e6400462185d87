//! The seed of a data directory: one line, `seed <16 hex digits> crc <8 hex digits>`.
//!
//! It decides the order of keys and the outcome of random commands in replay. Another seed would give other
//! data without any error, so the line carries a CRC-32 of what comes before ` crc`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::durable::replace;
use crate::node::{NodeError, made};

const NAME: &str = "identity";

/// The seed of the data in `dir`, drawn when the directory is first used. It is durable before the first
/// entry is.
pub(crate) fn identity(dir: &Path) -> Result<u64, NodeError> {
    let path = made(dir.to_path_buf())?.join(NAME);
    let failed = |source| NodeError::File { path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => read(&bytes).ok_or_else(|| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged: it does not have its checksum; restore this file from a backup of the data \
                 directory, without it the data cannot be read",
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 8];
            File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(failed)?;
            let seed = u64::from_le_bytes(bytes);
            replace(dir, NAME, line(seed).as_bytes()).map_err(failed)?;
            Ok(seed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn line(seed: u64) -> String {
    let seed = format!("seed {seed:016x}");
    format!("{seed} crc {:08x}\n", crc32fast::hash(seed.as_bytes()))
}

/// The seed of a line, if it is exactly what [`line`] makes of it.
fn read(bytes: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(bytes.strip_prefix(b"seed ")?.get(..16)?).ok()?;
    let seed = u64::from_str_radix(digits, 16).ok()?;
    (line(seed).as_bytes() == bytes).then_some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::damaged;

    #[test]
    fn a_seed_is_drawn_once() {
        let dir = tempfile::tempdir().unwrap();
        let seed = identity(dir.path()).unwrap();
        assert_eq!(identity(dir.path()).unwrap(), seed);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused_by_the_name_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path()).unwrap();
        let path = dir.path().join("identity");
        let good = std::fs::read(&path).unwrap();
        for bytes in damaged(&good) {
            std::fs::write(&path, &bytes).unwrap();
            let error = identity(dir.path()).unwrap_err().to_string();
            assert!(error.contains("identity") && error.contains("backup"), "{error}");
        }
    }
}
