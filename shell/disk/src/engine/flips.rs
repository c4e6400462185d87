//! One flipped bit anywhere in the engine's files: refused, or a whole committed checkpoint; never wrong bytes.

use std::path::{Path, PathBuf};

use kernel::Rng;
use tempfile::TempDir;

use super::tests::{Objects, bytes, contents, flush, mark, options};
use super::*;

const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2 << 16)];

/// What each group held at each of its commits.
type History = Vec<(GroupId, Mark, Objects)>;

/// What became of a flip.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// An error named the place.
    refused: u32,
    /// A group came back at an older checkpoint, whole: its caller finds its log begins too late.
    older: u32,
    /// Nothing was lost.
    harmless: u32,
}

/// Commits to two groups in turn; `flushes` says after which commits everything goes to tables.
fn history(dir: &Path, seed: u64, flushes: &[u64]) -> History {
    let mut rng = Rng::new(seed);
    let engine = Engine::open(dir, options()).unwrap();
    let mut history = History::new();
    let mut objects = [Objects::new(), Objects::new()];
    for round in 0..12 {
        let which = (round % 2) as usize;
        let mut batch = Objects::new();
        for _ in 0..20 {
            let size = [10, 100, 600, 2000][rng.below(4) as usize];
            let key = format!("key {:02}", rng.below(30)).into_bytes();
            batch.insert(key, (bytes(&mut rng, 3), bytes(&mut rng, size)));
        }
        if round > 8 {
            batch.insert(b"long".to_vec(), (vec![], bytes(&mut rng, 150_000)));
        }
        objects[which].extend(batch.clone());
        let changes = batch.iter().map(|(key, (head, body))| Change::Put { key, head, body });
        let mark = mark(round + 1, 0, objects[which].len() as u64);
        engine.commit(GROUPS[which], &mark, changes).unwrap();
        history.push((GROUPS[which], mark, objects[which].clone()));
        if flushes.contains(&round) {
            flush(&engine);
        }
    }
    engine.close().unwrap();
    history
}

/// A file: its path within the directory, its bytes up to the zeros at the end, and its length.
type Image = Vec<(PathBuf, Vec<u8>, u64)>;

fn image(dir: &Path, within: &Path, image: &mut Image) {
    for entry in std::fs::read_dir(dir.join(within)).unwrap() {
        let within = within.join(entry.unwrap().file_name());
        let path = dir.join(&within);
        if path.is_dir() {
            self::image(dir, &within, image);
            continue;
        }
        let mut content = std::fs::read(&path).unwrap();
        let length = content.len() as u64;
        content.truncate(content.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        image.push((within, content, length));
    }
    image.sort();
}

/// Writes the image; a journal's unused tail stays a hole.
fn write(dir: &Path, image: &Image) {
    for (within, content, length) in image {
        let path = dir.join(within);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(*length).unwrap();
    }
}

/// Opens a damaged directory as a start does, and judges what it serves.
fn judge(dir: &Path, history: &History) -> Result<Tally, String> {
    let refused = Tally { refused: 1, ..Tally::default() };
    let mut tally = Tally::default();
    let check = |error: EngineError| match error {
        EngineError::Corrupt { .. } => Ok(refused),
        other => Err(format!("not named as damage: {other}")),
    };
    let engine = match Engine::open(dir, options()) {
        Ok(engine) => engine,
        Err(error) => return check(error),
    };
    let groups = match engine.groups() {
        Ok(groups) => groups,
        Err(error) => return check(error),
    };
    for group in GROUPS {
        let latest = history.iter().rfind(|(of, ..)| *of == group).map(|(_, mark, _)| mark.index);
        let Some((_, found)) = groups.iter().find(|(of, _)| *of == group) else {
            tally.older += 1;
            continue;
        };
        let committed = history.iter().find(|(of, mark, _)| *of == group && mark == found);
        let (_, mark, objects) = committed.ok_or_else(|| format!("a mark nobody wrote: {found:?}"))?;
        match contents(&engine, group, mark.generation) {
            Err(error) => tally.refused += check(error)?.refused,
            Ok(served) if served != *objects => return Err(format!("wrong objects at {}", mark.index)),
            Ok(_) if Some(mark.index) < latest => tally.older += 1,
            Ok(_) => tally.harmless += 1,
        }
    }
    Ok(tally)
}

/// Flips bits in each file for which `flips` says how many, each in a copy of its own.
fn flip_everywhere(flushes: &[u64], flips: impl Fn(&str) -> u64) -> Vec<(String, Tally)> {
    let original = TempDir::new().unwrap();
    let history = history(original.path(), 5, flushes);
    let mut files = Image::new();
    image(original.path(), Path::new(""), &mut files);
    assert_eq!(judge_copy(&files, &history).unwrap().harmless, 2, "undamaged");
    let mut tallies = Vec::new();
    for file in 0..files.len() {
        let name = files[file].0.display().to_string();
        let length = files[file].1.len() as u64;
        let mut rng = Rng::new(length);
        let mut sum = Tally::default();
        for flip in 0..flips(&name).min(length * 8) {
            // The last byte always: at the end of a journal it makes the last batch look torn.
            let at = if flip == 0 { length - 1 } else { rng.below(length) } as usize;
            let bit = rng.below(8);
            // The storage engine takes memory for the count in a table's footer before it checks it, and a count
            // of 2^31 ends the process: refused, but by no error a test could see.
            if name.contains("/tables/") && files[file].1[at] == 0 {
                continue;
            }
            files[file].1[at] ^= 1 << bit;
            let tally = judge_copy(&files, &history);
            files[file].1[at] ^= 1 << bit;
            let tally = tally.unwrap_or_else(|wrong| panic!("{name} byte {at} bit {bit}: {wrong}"));
            sum.refused += tally.refused;
            sum.older += tally.older;
            sum.harmless += tally.harmless;
        }
        tallies.push((name, sum));
    }
    tallies
}

/// Lists of tables are named `v` and their number. The storage engine asserts what they say, and its clean-up
/// asserts again, which ends the process.
fn is_list(name: &str) -> bool {
    let number = name.rsplit('/').next().and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u64>().is_ok())
}

fn judge_copy(files: &Image, history: &History) -> Result<Tally, String> {
    let dir = TempDir::new().unwrap();
    write(dir.path(), files);
    judge(dir.path(), history)
}

/// Seeded flips in each file; more by `ENGINE_FLIPS`.
fn flips() -> u64 {
    std::env::var("ENGINE_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

#[test]
fn a_flipped_bit_in_the_journal_is_refused_or_gives_a_whole_older_checkpoint() {
    let tallies = flip_everywhere(&[], |name| if name.ends_with(".jnl") { 4 * flips() } else { 0 });
    let journal = tallies.iter().find(|(name, _)| name.ends_with(".jnl")).map(|(_, tally)| *tally).unwrap();
    println!("{tallies:?}");
    assert!(journal.refused > 0 && journal.older > 0, "{journal:?}");
}

#[test]
fn a_flipped_bit_in_a_table_is_refused_or_harmless() {
    let tallies = flip_everywhere(&[2, 5, 11], |name| if is_list(name) { 0 } else { flips() });
    println!("{tallies:?}");
    let tables = tallies.iter().filter(|(name, _)| name.contains("tables"));
    assert!(tables.map(|(_, tally)| tally.refused).sum::<u32>() > 0);
}
