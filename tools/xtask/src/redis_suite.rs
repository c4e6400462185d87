//! `cargo xtask redis-suite`: the Tcl tests of Redis 7 in external mode, each unit against a fresh node.
//!
//! The suite's code is not ours and is not in this repository: it comes with Debian's source package and is
//! kept below `target/`. `acceptance/redis-suite.md` names every test that is skipped, with the reason; a
//! skip that is not named there is a failure, so that the list cannot fall behind.

use crate::packages::{self, run};
use crate::server::Server;
use crate::suite::{build, target_dir};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The files that a node must pass.
const UNITS: &[&str] = &[
    "unit/type/string",
    "unit/type/incr",
    "unit/type/hash",
    "unit/type/list",
    "unit/type/list-2",
    "unit/type/list-3",
    "unit/type/set",
    "unit/type/zset",
    "unit/expire",
    "unit/scan",
    "unit/multi",
];

/// Tests with these tags ask for what a node does not have.
const DENIED_TAGS: &str = "-needs:debug -needs:repl -needs:save";

/// Where Debian keeps the source; the version is that of the stable release with redis-server 7.0.
const SOURCE: &str = "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n";

/// What to run.
#[derive(Args)]
pub struct SuiteArgs {
    /// Run against a server that runs already; its data is deleted.
    #[arg(long, value_name = "HOST:PORT")]
    against: Option<String>,
    /// Run only this unit, such as unit/type/set; any unit of the suite will do.
    #[arg(long, value_name = "UNIT")]
    unit: Vec<String>,
    /// The node's binary; built in release mode if not given.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// What one unit gave.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    failed: Vec<String>,
    /// Names of skipped tests, without the suite's reason.
    skipped: BTreeSet<String>,
    /// The unit came to its end.
    ended: bool,
}

/// Runs the units; an error if a test fails or is skipped without being listed.
pub fn suite(root: &Path, args: &SuiteArgs) -> Result<()> {
    let home = source(&target_dir(root).join("redis-suite"))?;
    let listed = listed(&std::fs::read_to_string(root.join("acceptance/redis-suite.md"))?);
    let binary = match (&args.against, &args.binary) {
        (Some(_), _) => None,
        (None, Some(path)) => Some(path.clone()),
        (None, None) => Some(build(root)?),
    };
    let chosen: Vec<&str> = match args.unit.is_empty() {
        true => UNITS.to_vec(),
        false => args.unit.iter().map(String::as_str).collect(),
    };
    let (mut passed, mut failed, mut unlisted) = (0, 0, Vec::new());
    for unit in chosen {
        let outcome = match (&args.against, &binary) {
            (Some(address), _) => {
                let (host, port) = address.rsplit_once(':').context("--against wants HOST:PORT")?;
                one(&home, unit, host, port, &listed)?
            }
            (None, Some(binary)) => on_node(&home, unit, binary, &listed)?,
            (None, None) => unreachable!("without --against there is a binary"),
        };
        println!(
            "{unit}: {} passed, {} failed, {} skipped",
            outcome.passed,
            outcome.failed.len(),
            outcome.skipped.len()
        );
        outcome.failed.iter().for_each(|line| println!("    {line}"));
        let early = usize::from(!outcome.ended && outcome.failed.is_empty());
        if !outcome.ended {
            println!("    {unit} did not come to its end");
        }
        passed += outcome.passed;
        failed += outcome.failed.len() + early;
        unlisted.extend(outcome.skipped.difference(&listed).map(|name| format!("{unit}: {name}")));
    }
    unlisted.iter().for_each(|skip| println!("SKIPPED and not listed in acceptance/redis-suite.md: {skip}"));
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 || !unlisted.is_empty() {
        bail!("{failed} tests failed, {} skips are not listed", unlisted.len());
    }
    Ok(())
}

fn on_node(home: &Path, unit: &str, binary: &Path, listed: &BTreeSet<String>) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let mut server = Server::spawn_node(binary, dir.path(), None)?;
    server.wait_ready()?;
    let mut outcome = one(home, unit, "127.0.0.1", &server.port.to_string(), listed)?;
    let log = server.tail();
    if let Err(error) = server.stop() {
        outcome.failed.push(format!("{error:#}; the node printed:\n{log}"));
    }
    Ok(outcome)
}

fn one(home: &Path, unit: &str, host: &str, port: &str, listed: &BTreeSet<String>) -> Result<Outcome> {
    let mut command = Command::new("tclsh");
    command.args([
        "tests/test_helper.tcl",
        "--host",
        host,
        "--port",
        port,
        "--single",
        unit,
        "--clients",
        "1",
    ]);
    command.args([
        "--ignore-encoding",
        "--ignore-digest",
        "--durable",
        "--timeout",
        "600",
        "--tags",
        DENIED_TAGS,
    ]);
    for name in listed {
        command.args(["--skiptest", name]);
    }
    let output = command.current_dir(home).stdin(Stdio::null()).output().context("tclsh did not start")?;
    Ok(read(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads what the suite printed.
fn read(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output.lines().map(plain) {
        let Some((mark, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) else {
            outcome.ended |= line.contains("The End");
            continue;
        };
        match mark {
            "ok" => outcome.passed += 1,
            "err" | "exception" | "timeout" => outcome.failed.push(format!("{mark}: {rest}")),
            "skip" => _ = outcome.skipped.insert(rest.trim().to_owned()),
            "ignore" => {
                // "name: reason"; of a whole block the suite prints the reason alone.
                let block = rest.starts_with("Tag: ");
                let cut = rest.rsplit_once(": Tag: ").or_else(|| rest.rsplit_once(": "));
                let name = cut.filter(|_| !block).map_or(rest, |(name, _)| name);
                outcome.skipped.insert(name.trim().to_owned());
            }
            _ => {}
        }
    }
    outcome
}

/// A line without the escape sequences that colour it.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}

/// The names in a list of skips: each line "- `name`: reason".
fn listed(text: &str) -> BTreeSet<String> {
    let entries = text.lines().filter_map(|line| line.strip_prefix("- `")?.rsplit_once("`: "));
    entries.filter(|(_, reason)| !reason.trim().is_empty()).map(|(name, _)| name.to_owned()).collect()
}

/// The suite's folder, fetched with apt if it is not there.
fn source(home: &Path) -> Result<PathBuf> {
    let unpacked = |home: &Path| -> Option<PathBuf> {
        let mut folders = std::fs::read_dir(home).ok()?.flatten().map(|entry| entry.path());
        folders.find(|path| path.join("tests/test_helper.tcl").exists())
    };
    if let Some(found) = unpacked(home) {
        return Ok(found);
    }
    packages::ensure("tclsh", "tcl")?;
    std::fs::create_dir_all(home.join("lists/partial"))?;
    std::fs::write(home.join("sources.list"), SOURCE)?;
    let options = [
        format!("Dir::Etc::SourceList={}", home.join("sources.list").display()),
        "Dir::Etc::SourceParts=-".to_owned(),
        format!("Dir::State::Lists={}", home.join("lists").display()),
    ];
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        options.iter().for_each(|option| _ = command.args(["-o", option]));
        run(command.arg("-q").args(words).current_dir(home))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", "redis"])?;
    let archive = std::fs::read_dir(home)?.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.to_string_lossy().ends_with(".orig.tar.gz"));
    run(Command::new("tar")
        .arg("-xf")
        .arg(archive.context("apt-get brought no source archive")?)
        .current_dir(home))?;
    unpacked(home).context("the source package holds no tests/test_helper.tcl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_the_suite_is_counted_by_its_marks() {
        let output = "Testing unit/multi\n\
            [\u{1b}[0;32;49mok\u{1b}[0m]: MULTI / EXEC basics (0 ms)\n\
            [\u{1b}[0;31;49merr\u{1b}[0m]: WATCH: it broke in tests/unit/multi.tcl\n\
            [exception]: Executing test client: ERR unknown command.\n\
            [\u{1b}[0;36;49mignore\u{1b}[0m]: MULTI with REPLICAOF: Tag: needs:repl denied\n\
            [ignore]: Not supported on external server\n\
            [ignore]: Tag: needs:repl denied\n\
            [ignore]: SADD - large data: large memory flag not provided\n\
            [skip]: SWAPDB is able to touch\n\
            [1/1 done]: unit/multi (3 seconds)\n\
            \u{20}                  The End\n";
        let found = read(output);
        assert_eq!((found.passed, found.ended), (1, true));
        assert_eq!(
            found.failed,
            [
                "err: WATCH: it broke in tests/unit/multi.tcl",
                "exception: Executing test client: ERR unknown command."
            ]
        );
        let skipped: Vec<&str> = found.skipped.iter().map(String::as_str).collect();
        assert_eq!(
            skipped,
            [
                "MULTI with REPLICAOF",
                "Not supported on external server",
                "SADD - large data",
                "SWAPDB is able to touch",
                "Tag: needs:repl denied",
            ]
        );
        assert!(!read("[ok]: a (0 ms)\n").ended);
    }

    #[test]
    fn a_skip_counts_as_listed_only_with_a_reason() {
        let text = "# Skips\n\n- `SET: with colons`: needs DEBUG\n- `no reason`: \n- no name: here\n";
        assert_eq!(listed(text).into_iter().collect::<Vec<_>>(), ["SET: with colons"]);
    }
}
