//! One flipped bit in a stopped node's files: it refuses and names the place, or it serves exactly what was
//! acknowledged.
//!
//! Before a node is killed its load has ended for longer than an idle log needs to state that it is synced. A
//! flip in the last batch before a crash looks like a torn write on one node alone, whatever it does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::Rng;

use crate::campaign::{Failure, Figure, Report, Scratch, Setting, judge_ends, must_start};
use crate::judge::{Cut, Fault, verify};
use crate::load::{Clock, Ledger, run_while};
use crate::process::{Program, Shape, StartError};

/// Flips in copies of one directory.
const FLIPS_PER_LOAD: u64 = 25;
/// Load before them, at least.
const LOAD: Duration = Duration::from_millis(1_200);
/// The first load goes on until the engine has this much in tables, in bytes: its write buffer is larger.
const TABLE_BYTES_MIN: u64 = 1 << 20;
/// And fails if that takes longer.
const TABLES_SECONDS_MAX: u64 = 60;
/// After this an idle log has stated that it is synced.
const IDLE: Duration = Duration::from_millis(2_500);
/// Longest value, in bytes.
const VALUE_BYTES_MAX: u64 = 24 * 1024;
/// Where a bit is flipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Log,
    Journal,
    Tables,
    Lists,
    Identity,
}

impl Target {
    const ALL: [Target; 5] = [Target::Log, Target::Journal, Target::Tables, Target::Lists, Target::Identity];

    fn name(self) -> &'static str {
        match self {
            Target::Log => "log segments",
            Target::Journal => "the engine's journal",
            Target::Tables => "the engine's tables",
            Target::Lists => "the engine's lists of tables",
            Target::Identity => "the identity",
        }
    }

    /// Words of which a refusal must have one, to tell where the damage is: in the log the segment and the
    /// byte, or the entry that is missing; the engine tells no more than its directory.
    fn places(self) -> &'static [&'static str] {
        match self {
            Target::Log => &["segment", "entry"],
            Target::Journal | Target::Tables | Target::Lists => &["flipped/engine", "group"],
            Target::Identity => &["flipped/identity"],
        }
    }

    /// Whether the file at `path`, within the data directory, is one of these.
    fn takes(self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let table = path.parent().is_some_and(|dir| dir.ends_with("tables"));
        match self {
            Target::Log => path.starts_with("log") && name.ends_with(".log"),
            Target::Journal => name.ends_with(".jnl"),
            Target::Tables => table,
            Target::Lists => !table && (name.starts_with('v') || name == "current"),
            Target::Identity => path == Path::new("identity"),
        }
    }
}

/// What became of flips.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    refused: u64,
    aborted: u64,
    read_refused: u64,
    served: u64,
}

/// Runs the campaign; `progress` hears a line for each flip.
pub fn run(setting: &Setting, progress: &mut dyn FnMut(&str)) -> Report {
    let result = Scratch::new().and_then(|scratch| {
        let result = rounds(setting, &scratch, progress);
        scratch.end(result)
    });
    Report { name: "bit-flip", setting: setting.clone(), result }
}

fn rounds(
    setting: &Setting,
    scratch: &Scratch,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    let mut rng = Rng::new(setting.seed).fork(u64::MAX);
    let mut run = Run {
        program: scratch.program(setting),
        shape: Shape::small(setting.durability),
        good: scratch.path().join("good"),
        flipped: scratch.path().join("flipped"),
        clock: Clock::start(),
        ledgers: Ledger::all(setting.seed, VALUE_BYTES_MAX, false),
    };
    let mut tallies = [Tally::default(); Target::ALL.len()];
    for round in 0..setting.rounds {
        if round % FLIPS_PER_LOAD == 0 {
            let graceful = round / FLIPS_PER_LOAD % 2 == 1;
            run.prepare(round, graceful)?;
            progress(&format!("flip {round}: {}", if graceful { "stopped" } else { "killed" }));
        }
        let target = (round % Target::ALL.len() as u64) as usize;
        let (outcome, place) = run.flip(round, Target::ALL[target], &mut rng)?;
        progress(&format!("flip {}/{}: {place}: {outcome:?}", round + 1, setting.rounds));
        let tally = &mut tallies[target];
        match outcome {
            Outcome::Refused(_) => tally.refused += 1,
            Outcome::Aborted(_) => tally.aborted += 1,
            Outcome::ReadRefused(_) => tally.read_refused += 1,
            Outcome::Served => tally.served += 1,
        }
    }
    for (target, tally) in Target::ALL.iter().zip(tallies) {
        progress(&format!("{}: {tally:?}", target.name()));
    }
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum();
    Ok(vec![
        ("flips", setting.rounds, "flips"),
        ("flips in log segments", share(setting.rounds, 0), "flips"),
        ("refused to start, place named", sum(|tally| tally.refused), "flips"),
        ("of these in log segments", tallies[0].refused, "flips"),
        ("ended inside the engine at start", sum(|tally| tally.aborted), "flips"),
        ("refused a read, key named", sum(|tally| tally.read_refused), "flips"),
        ("served exactly what was acknowledged", sum(|tally| tally.served), "flips"),
        ("served something else", 0, "flips"),
    ])
}

fn share(rounds: u64, at: u64) -> u64 {
    let targets = Target::ALL.len() as u64;
    (rounds + targets - 1 - at) / targets
}

/// What became of one flip.
#[derive(Debug)]
#[expect(dead_code, reason = "the reasons are told by `Debug`")]
enum Outcome {
    Refused(String),
    Aborted(String),
    ReadRefused(String),
    Served,
}

struct Run {
    program: Program,
    shape: Shape,
    good: PathBuf,
    flipped: PathBuf,
    clock: Clock,
    ledgers: Vec<Ledger>,
}

impl Run {
    /// Loads the good directory further and stops its node.
    fn prepare(&mut self, round: u64, graceful: bool) -> Result<(), Failure> {
        let node = self.program.start(&self.shape, &self.good).map_err(must_start(round))?;
        let good = &self.good;
        let (tables, ends) = run_while(&mut self.ledgers, node.redis, self.clock, || {
            let began = Instant::now();
            loop {
                std::thread::sleep(Duration::from_millis(50));
                let (bytes, took) = (table_bytes(good), began.elapsed());
                if (bytes >= TABLE_BYTES_MIN && took >= LOAD) || took.as_secs() >= TABLES_SECONDS_MAX {
                    return bytes;
                }
            }
        });
        judge_ends(&ends, false)?;
        if tables < TABLE_BYTES_MIN {
            return Err(Failure::NotJudged(format!(
                "the engine has only {tables} bytes in tables after {TABLES_SECONDS_MAX} s of load"
            )));
        }
        if graceful {
            return node.stop().map_err(Failure::broken(format!("round {round}")));
        }
        std::thread::sleep(IDLE);
        node.kill().map_err(Failure::world("kill the node"))
    }

    /// One flip in a copy of the good directory.
    fn flip(&mut self, round: u64, target: Target, rng: &mut Rng) -> Result<(Outcome, String), Failure> {
        self.copy()?;
        let place = flip_one(&self.flipped, target, rng).map_err(Failure::world("flip a bit"))?;
        let broken = |what: String| Failure::Broken(format!("flip {round}, {place}: {what}"));
        let node = match self.program.start(&self.shape, &self.flipped) {
            Ok(node) => node,
            Err(StartError::Ended { status, message }) => {
                if status.code().is_none() {
                    return Ok((Outcome::Aborted(message), place));
                }
                if !target.places().iter().any(|word| message.contains(word)) {
                    return Err(broken(format!("it refuses, but names no place: {message}")));
                }
                return Ok((Outcome::Refused(message), place));
            }
            Err(error @ StartError::Silent { .. }) => return Err(broken(error.to_string())),
            Err(error @ StartError::Unusable { .. }) => return Err(Failure::NotJudged(error.to_string())),
        };
        let cut = Cut { at: self.clock.now(), may_lose_ms: 0 };
        let outcome = match verify(&mut self.ledgers, node.redis, self.clock, cut) {
            Ok(_) => Outcome::Served,
            Err(Fault::Refused(text)) => Outcome::ReadRefused(text),
            Err(Fault::Wrong(what)) => return Err(broken(what)),
            Err(fault @ Fault::Ended(_)) => {
                let said = node.said();
                return Err(broken(format!("it started, then {fault}; it said: {said}")));
            }
        };
        node.kill().map_err(Failure::world("kill the node"))?;
        Ok((outcome, place))
    }

    fn copy(&self) -> Result<(), Failure> {
        if self.flipped.exists() {
            fs::remove_dir_all(&self.flipped).map_err(Failure::world("remove a copy"))?;
        }
        // The engine's journal is mostly a hole, which `cp` keeps.
        let mut command = Command::new("cp");
        command.arg("-a").arg("--sparse=always").arg(&self.good).arg(&self.flipped);
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::NotJudged(format!("cp: {status}"))),
            Err(source) => Err(Failure::world("run cp")(source)),
        }
    }
}

/// Flips a bit of a file that `target` takes, among its bytes up to the zeros at the end; where that was.
fn flip_one(dir: &Path, target: Target, rng: &mut Rng) -> io::Result<String> {
    let mut files = Vec::new();
    list(dir, dir, &mut files)?;
    files.retain(|path| target.takes(path));
    files.sort();
    let mut spans = Vec::new();
    for path in files {
        let bytes = fs::read(dir.join(&path))?;
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        spans.push((path, used as u64));
    }
    let mut at = rng.below(spans.iter().map(|(_, used)| used).sum());
    for (path, used) in spans {
        if at >= used {
            at -= used;
            continue;
        }
        let (file, bit) = (File::options().read(true).write(true).open(dir.join(&path))?, rng.below(8));
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
        return Ok(format!("{} byte {at} bit {bit}", path.display()));
    }
    Err(io::Error::other(format!("there is nothing yet in {}", target.name())))
}

/// What the engine has in tables. A file that goes while it is looked at does not count.
fn table_bytes(dir: &Path) -> u64 {
    let mut files = Vec::new();
    if list(dir, dir, &mut files).is_err() {
        return 0;
    }
    files.retain(|path| Target::Tables.takes(path));
    files.iter().filter_map(|path| fs::metadata(dir.join(path)).ok()).map(|file| file.len()).sum()
}

fn list(dir: &Path, root: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, root, files)?;
        } else {
            files.extend(path.strip_prefix(root).map(Path::to_path_buf));
        }
    }
    Ok(())
}
