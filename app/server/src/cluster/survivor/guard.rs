//! The file that says that a recovery was begun: `recovery <the new cluster> of <the old> crc <8 hex digits>`.
//!
//! As long as it is there the node does not start.

use std::io;
use std::path::Path;

use kernel::ClusterId;

use super::SurvivorError;

/// Its name.
pub(super) const NAME: &str = "recovery";

/// Whether a recovery of the directory was begun and not finished.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn is_unfinished(dir: &Path) -> io::Result<bool> {
    dir.join(NAME).try_exists()
}

/// Of these clusters.
pub(super) fn line(cluster: ClusterId, before: ClusterId) -> String {
    let text = format!("recovery {cluster} of {before}");
    format!("{text} crc {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// The new and the old cluster of a recovery that was begun.
pub(super) fn read(dir: &Path) -> Result<Option<(ClusterId, ClusterId)>, SurvivorError> {
    let path = dir.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SurvivorError::File { path, source }),
    };
    let damaged = || {
        let source =
            io::Error::new(io::ErrorKind::InvalidData, "it is damaged: it does not have its checksum");
        SurvivorError::File { path: path.clone(), source }
    };
    parse(&bytes).map(Some).ok_or_else(damaged)
}

/// The clusters of a line, if it is exactly what [`line`] makes of them.
fn parse(bytes: &[u8]) -> Option<(ClusterId, ClusterId)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_prefix("recovery ")?;
    let (cluster, rest) = text.split_once(" of ")?;
    let both = (cluster_id(cluster)?, cluster_id(rest.split(' ').next()?)?);
    (line(both.0, both.1).as_bytes() == bytes).then_some(both)
}

/// What [`ClusterId`] shows, read back.
fn cluster_id(text: &str) -> Option<ClusterId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(ClusterId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::damaged;

    #[test]
    fn the_guard_names_both_clusters_and_no_damage_passes_for_it() {
        let both = (ClusterId([0xab; 16]), ClusterId([7; 16]));
        let good = line(both.0, both.1);
        assert_eq!(parse(good.as_bytes()), Some(both));
        for bytes in damaged(good.as_bytes()) {
            assert_eq!(parse(&bytes), None, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
