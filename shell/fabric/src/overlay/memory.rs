//! Peers that a node knew when it ended, for its next start: a line for each, as `/ip4/…/tcp/…/p2p/…`.
//!
//! Losing the file costs a dial of those in the configuration, so it is replaced and never synced.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use super::name::Place;

/// Most peers that are written down and read.
const PLACES_MAX: usize = 256;
/// No more of the file is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Writes the first of `places` down, unless there is none: who knows nobody now keeps whom it knew.
pub(super) fn write(path: &Path, places: impl Iterator<Item = Place>) -> io::Result<()> {
    let text: String = places.take(PLACES_MAX).map(|place| format!("{place}\n")).collect();
    if text.is_empty() {
        return Ok(());
    }
    let part = path.with_extension("new");
    File::create(&part)?.write_all(text.as_bytes())?;
    std::fs::rename(part, path)
}

/// Reads what was written; lines that are no places are left out, and so is a file that cannot be read.
pub(super) fn read(path: &Path) -> Vec<Place> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let lines = BufReader::new(file.take(FILE_BYTES_MAX)).lines();
    lines.map_while(Result::ok).filter_map(|line| line.parse().ok()).take(PLACES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_and_what_is_none_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("overlay.peers");
        assert_eq!(read(&path), []);
        let place = |port: usize| -> Place { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        write(&path, (1..=300).map(place)).unwrap();
        assert_eq!(read(&path), (1..=PLACES_MAX).map(place).collect::<Vec<_>>());
        // Nobody is no news.
        write(&path, std::iter::empty()).unwrap();
        assert_eq!(read(&path).len(), PLACES_MAX);
        std::fs::write(&path, "nonsense\n/ip4/10.0.0.1/tcp/7\n\n\u{0}").unwrap();
        assert_eq!(read(&path), [place(7)]);
    }
}
