//! The record of how many partitions each keyspace's data has: a line `keyspace <id> partitions <count>` for each
//! that has several, and a last line `crc <8 hex digits>` over what comes before it.
//!
//! Without the file all have one. It is durable before the first entry that was written with its numbers.

use std::io;
use std::path::Path;

use kernel::KeyspaceId;
use node::{Divisions, PARTITIONS_MAX};
use placement::Partitions;

use crate::durable::replace;
use crate::node::NodeError;

const NAME: &str = "partitions";

/// What the data in `dir` says.
pub(crate) fn recorded(dir: &Path) -> Result<Divisions, NodeError> {
    let path = dir.join(NAME);
    let failed = |source| NodeError::File { path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => read(&bytes).ok_or_else(|| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged: it does not have its checksum; restore this file from a backup of the data \
                 directory, without it keys would be looked for in the wrong places",
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Divisions::default()),
        Err(error) => Err(failed(error)),
    }
}

/// Records `divisions` for the data in `dir`; they are on disk when this returns.
pub(crate) fn record(dir: &Path, divisions: &Divisions) -> Result<(), NodeError> {
    replace(dir, NAME, text(divisions).as_bytes())
        .map_err(|source| NodeError::File { path: dir.join(NAME), source })
}

fn text(divisions: &Divisions) -> String {
    let mut text = String::new();
    for (keyspace, partitions) in divisions.iter() {
        text.push_str(&format!("keyspace {keyspace} partitions {}\n", partitions.count()));
    }
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("crc {crc:08x}\n"));
    text
}

/// The numbers of a text, if it is exactly what [`text`] makes of them.
fn read(bytes: &[u8]) -> Option<Divisions> {
    let mut divisions = Divisions::default();
    let whole = std::str::from_utf8(bytes).ok()?;
    for line in whole.lines().filter(|line| !line.starts_with("crc ")) {
        let (keyspace, count) = line.strip_prefix("keyspace ")?.split_once(" partitions ")?;
        let count = count.parse().ok().filter(|count| *count <= PARTITIONS_MAX)?;
        divisions.set(KeyspaceId(keyspace.parse().ok()?), Partitions::new(count).ok()?);
    }
    (text(&divisions) == whole).then_some(divisions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::damaged;

    fn some() -> Divisions {
        let mut divisions = Divisions::default();
        divisions.set(KeyspaceId(3), Partitions::new(8).unwrap());
        divisions.set(KeyspaceId(15), Partitions::new(PARTITIONS_MAX).unwrap());
        divisions
    }

    #[test]
    fn numbers_are_recorded_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recorded(dir.path()).unwrap(), Divisions::default());
        for divisions in [some(), Divisions::default()] {
            record(dir.path(), &divisions).unwrap();
            assert_eq!(recorded(dir.path()).unwrap(), divisions);
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused_by_the_name_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), &some()).unwrap();
        let path = dir.path().join(NAME);
        let good = std::fs::read(&path).unwrap();
        for bytes in damaged(&good) {
            std::fs::write(&path, &bytes).unwrap();
            let error = recorded(dir.path()).unwrap_err().to_string();
            assert!(error.contains("partitions") && error.contains("backup"), "{error}");
        }
    }
}
