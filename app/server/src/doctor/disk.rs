//! The data directory's disk: space, file system, and how fast it syncs.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FsWord, statfs};

use super::{Finding, Verdict};
use crate::config::Config;

/// Syncs that are timed, at most.
const SYNCS: usize = 200;
/// And for at most so long.
const SECONDS_MAX: u64 = 3;
/// What is written before each sync.
const BLOCK_BYTES: usize = 4096;
/// The file they are written to, allocated beforehand as the log's segments are.
const FILE_BYTES: usize = 1 << 20;
/// A median sync slower than this makes `always` slow.
const SLOW_MICROS: u64 = 5_000;
/// A median sync faster than this is no disk, or one that does not keep its word.
const UNBELIEVABLE_MICROS: u64 = 15;
/// The log's segments that exist at the same time.
const SEGMENTS: u64 = 4;

const TMPFS: FsWord = 0x0102_1994;
const RAMFS: FsWord = 0x8584_58f6;
const NFS: FsWord = 0x6969;

/// Checks the directory, or the nearest one that exists above it.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let Some(dir) = existing(&config.data_dir) else {
        let found = format!("{} and what is above it cannot be read", config.data_dir.display());
        return vec![Finding::new("data dir", Verdict::Bad, found).advise("choose another with --data-dir")];
    };
    vec![space(&dir, config), syncs(&dir)]
}

fn existing(dir: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(dir).ok()?;
    whole.ancestors().find(|dir| dir.is_dir()).map(Path::to_owned)
}

fn space(dir: &Path, config: &Config) -> Finding {
    let stat = match statfs(dir) {
        Ok(stat) => stat,
        Err(error) => {
            let found = format!("{} cannot be examined: {error}", dir.display());
            return Finding::new("disk space", Verdict::NotJudged, found);
        }
    };
    let free = stat.f_bavail.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or_default());
    let needed = config.storage.reserve_bytes.get() + SEGMENTS * config.storage.segment_bytes.get();
    let found =
        format!("{} MiB are free in {}; an empty node needs {} MiB", free >> 20, dir.display(), needed >> 20);
    let memory = matches!(stat.f_type, TMPFS | RAMFS);
    let verdict = match (free >= needed, memory || stat.f_type == NFS) {
        (false, _) => Verdict::Bad,
        (true, true) => Verdict::Better,
        (true, false) => Verdict::Good,
    };
    let finding = Finding::new("disk space", verdict, found).figure("free", free, "bytes");
    if free < needed {
        finding.advise("free some, or lower storage.segment_bytes and storage.reserve_bytes")
    } else if memory {
        finding
            .advise("this file system is memory: nothing survives the machine; choose a disk with --data-dir")
    } else if stat.f_type == NFS {
        finding.advise("this file system is on another machine, which may not keep its word on syncs; choose a local disk")
    } else {
        finding
    }
}

fn syncs(dir: &Path) -> Finding {
    let times = match measure(dir) {
        Ok(times) => times,
        Err(error) => {
            let found = format!("{} cannot be written: {error}", dir.display());
            return Finding::new("disk syncs", Verdict::Bad, found)
                .advise("choose another directory with --data-dir, or mend its permissions");
        }
    };
    judge(&times)
}

/// The sorted times of syncs of one block, in microseconds.
fn measure(dir: &Path) -> io::Result<Vec<u64>> {
    let path = dir.join(format!(".archipel-doctor-{}", std::process::id()));
    let result = timed(&path);
    // What could not be created cannot be removed either; the first error counts.
    let removed = std::fs::remove_file(&path);
    let mut times = result?;
    removed?;
    times.sort_unstable();
    Ok(times)
}

fn timed(path: &Path) -> io::Result<Vec<u64>> {
    let mut file = File::create_new(path)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let block = [7; BLOCK_BYTES];
    let began = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    while times.len() < SYNCS && began.elapsed() < Duration::from_secs(SECONDS_MAX) {
        let offset = times.len() * BLOCK_BYTES % FILE_BYTES;
        let one = Instant::now();
        file.write_all_at(&block, offset as u64)?;
        file.sync_data()?;
        times.push((one.elapsed().as_micros() as u64).max(1));
    }
    Ok(times)
}

/// What sorted times of syncs mean. There is at least one.
fn judge(times: &[u64]) -> Finding {
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let (p50, p99, most) = (at(50), at(99), at(100));
    let found = format!("a write of 4 KiB is durable in {p50} µs (p50), {p99} µs (p99), {most} µs (longest)");
    let verdict =
        if (UNBELIEVABLE_MICROS..=SLOW_MICROS).contains(&p50) { Verdict::Good } else { Verdict::Better };
    let finding = Finding::new("disk syncs", verdict, found)
        .figure("p50", p50, "us")
        .figure("p99", p99, "us")
        .figure("max", most, "us");
    if p50 > SLOW_MICROS {
        finding.advise(format!(
            "a lone client gets at most {} writes a second with `durability = \"always\"`; use a faster disk, or \"everysec\" where a second may be lost",
            1_000_000 / p50
        ))
    } else if p50 < UNBELIEVABLE_MICROS {
        finding.advise("no disk is that fast: it is memory, or something on the way does not sync; test a power cut before you trust it")
    } else {
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_disks_and_unbelievable_ones_get_advice() {
        #[rustfmt::skip] // columns
        let table = [
            (vec![100, 200, 300],    Verdict::Good,   ""),
            (vec![8_000; 10],        Verdict::Better, "125 writes a second"),
            (vec![2; 10],            Verdict::Better, "no disk is that fast"),
        ];
        for (times, verdict, advice) in table {
            let finding = judge(&times);
            assert_eq!(finding.verdict, verdict, "{times:?}");
            assert!(finding.advice.unwrap_or_default().contains(advice), "{times:?}");
        }
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b/c")).unwrap(), dir.path());
    }
}
