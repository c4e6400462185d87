//! Small files that are replaced whole: after a crash there is the old one or the new one, never a part.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Makes `name` in `dir` hold `bytes`; they are on disk when this returns.
///
/// # Errors
/// What the operating system refused. The old content, if there was any, may have been replaced all the same.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = dir.join(name);
    let part = path.with_extension("new");
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, &path)?;
    File::open(dir)?.sync_all()
}

/// What damage can make of a file that was `good`: each bit flipped alone, and each beginning of it.
#[cfg(test)]
pub(crate) fn damaged(good: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let flips = (0..good.len() * 8).map(|bit| {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    flips.chain((0..good.len()).map(|length| good[..length].to_vec()))
}
