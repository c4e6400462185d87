//! Clean runs over many seeds, and the same seed the same run.

use std::path::Path;
use std::process::Command;

use kernel::Rng;
use kernel::planted::Bug;

use crate::with_rules;

/// Seeds of one run in CI: a quarter is a fixed corpus, the others derive from the commit.
const SEEDS: u64 = 2400;

/// A number that is another one for each commit; the fixed corpus alone without git.
pub fn commit() -> Option<u64> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    u64::from_str_radix(text.get(..15)?, 16).ok()
}

#[test]
fn every_promise_holds_whatever_the_seed() {
    let _rules = with_rules(Bug::None);
    let mut fresh = Rng::new(commit().unwrap_or(0));
    let mut total = sim::Outcome::default();
    for number in 0..SEEDS {
        // Small numbers are the corpus, large ones are fresh.
        let seed = if number < SEEDS / 4 { number } else { fresh.next_u64() >> 16 };
        match sim::run(seed) {
            Ok(outcome) => {
                total.replies += outcome.replies;
                total.crashes += outcome.crashes;
                total.checkpoints += outcome.checkpoints;
                total.misses += outcome.misses;
                total.refusals += outcome.refusals;
            }
            Err(failure) => panic!("{}", failure.told(true)),
        }
    }
    println!("{SEEDS} seeds: {total:?}");
    assert!(total.replies > 100 * SEEDS, "too few replies to show anything: {total:?}");
    assert!(total.crashes > 2 * SEEDS, "too few crashes to show anything: {total:?}");
    assert!(total.checkpoints > SEEDS, "too few checkpoints to show anything: {total:?}");
    assert!(total.misses > SEEDS / 4, "too few bodies read back to show anything: {total:?}");
    assert!(total.refusals > SEEDS / 20, "too few damaged logs to show anything: {total:?}");
}

/// Each file holds the seed in its first line, `seed N` or `seed N SCOPE` if that is not the narrow one, then what it found, with
/// the events of that time.
#[test]
fn seeds_that_found_something_stay_clean() {
    let _rules = with_rules(Bug::None);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut count = 0;
    for file in std::fs::read_dir(directory).expect("the folder is there") {
        let text = std::fs::read_to_string(file.expect("it can be listed").path()).expect("it can be read");
        let first = text.lines().next().and_then(|line| line.strip_prefix("seed ")).unwrap_or_default();
        let (seed, scope) = match first.split_once(' ') {
            Some((seed, name)) => (seed, sim::Scope::named(name).expect("the scope has a name")),
            None => (first, sim::Scope::Narrow),
        };
        let seed = seed.parse().expect("the first line is `seed N` or `seed N SCOPE`");
        sim::run_in(seed, scope).unwrap_or_else(|failure| panic!("{}", failure.told(true)));
        count += 1;
    }
    assert!(count > 0, "there are seeds to run");
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    let hash = || {
        let output = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--seeds", "20", "--from", "1000", "--json"])
            .output()
            .expect("the simulator runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it writes JSON");
        report["trace_hash"].as_str().expect("it has a hash").to_owned()
    };
    let (first, second) = (hash(), hash());
    assert_eq!(first, second);
    assert_ne!(first, "0000000000000000");
}

#[test]
fn another_seed_gives_another_trace() {
    let _rules = with_rules(Bug::None);
    let hash = |seed| sim::run(seed).unwrap_or_else(|failure| panic!("{}", failure.told(false))).hash;
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
