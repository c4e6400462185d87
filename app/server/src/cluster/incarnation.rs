//! The number of the node's life: one line, `incarnation <number> crc <8 hex digits>`.
//!
//! Peers believe what a later life says and not what an earlier one does, so a life begins above every number that an
//! earlier one has used, and that is durable before anybody hears of it.

use std::io;
use std::path::Path;

use crate::durable::replace;
use crate::node::NodeError;

/// The file's name.
pub(crate) const NAME: &str = "incarnation";

/// The number for a new life of the node whose data is in `dir`; it is on disk when this returns.
pub(crate) fn next(dir: &Path) -> Result<u64, NodeError> {
    let path = dir.join(NAME);
    let failed = |source| NodeError::File { path: path.clone(), source };
    let last = match std::fs::read(&path) {
        Ok(bytes) => read(&bytes).ok_or_else(|| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged: it does not have its checksum; restore this file from a backup of the data \
                 directory, or remove this node from its cluster and let it join with a new data directory",
            ))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    let number = last + 1;
    replace(dir, NAME, line(number).as_bytes()).map_err(failed)?;
    Ok(number)
}

pub(crate) fn line(number: u64) -> String {
    let text = format!("incarnation {number}");
    format!("{text} crc {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// The number of a line, if it is exactly what [`line`] makes of it.
fn read(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes.strip_prefix(b"incarnation ")?).ok()?;
    let number = text.split(' ').next()?.parse().ok().filter(|number| *number < u64::MAX)?;
    (line(number).as_bytes() == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::damaged;

    #[test]
    fn each_life_has_a_higher_number() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next(dir.path()).unwrap(), 1);
        assert_eq!(next(dir.path()).unwrap(), 2);
        // What a life has used up.
        replace(dir.path(), NAME, line(40).as_bytes()).unwrap();
        assert_eq!(next(dir.path()).unwrap(), 41);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused_by_the_name_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        next(dir.path()).unwrap();
        let path = dir.path().join(NAME);
        let good = std::fs::read(&path).unwrap();
        for bytes in damaged(&good) {
            std::fs::write(&path, &bytes).unwrap();
            let error = next(dir.path()).unwrap_err().to_string();
            assert!(error.contains("incarnation") && error.contains("backup"), "{error}");
        }
    }
}
