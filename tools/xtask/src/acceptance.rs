//! The acceptance scenarios: each file below `acceptance/scenarios` is one, run by a real client against a
//! fresh node.
//!
//! A scenario prints `ok - sentence`, `not ok - sentence: reason` or `skip - sentence: reason` for each
//! check and exits with 0 if it came to its end. It learns where the server is from `REDIS_HOST` and
//! `REDIS_PORT`; one that starts servers itself finds the binary in `ARCHIPEL_BIN`, unset when the
//! scenarios run against another server.

use crate::packages::Clients;
use crate::server::{self, Server};
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long one scenario may run.
const SCENARIO_SECONDS_MAX: u64 = 180;
/// The same for those that take long, which run only when they are asked for.
const LONG_SECONDS_MAX: u64 = 900;
/// The folder of those, and what a filter that asks for them begins with.
const LONG: &str = "long/";

/// What the scenarios run against.
pub enum Target {
    /// A fresh node for each scenario.
    Node {
        binary: PathBuf,
        /// Programs that scenarios which may run are played with, by the variable that names each.
        programs: Vec<(&'static str, PathBuf)>,
    },
    /// A server that runs already and is emptied before each scenario.
    Running { host: String, port: u16 },
}

/// What all scenarios gave together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
    /// What was not checked, each with its reason.
    pub skipped: Vec<String>,
}

/// Runs the scenarios whose path contains `filter`, in the order of their names; those below `long` only if it begins so.
pub fn run(root: &Path, target: &Target, clients: &Clients, filter: Option<&str>) -> Result<Outcome> {
    let home = root.join("acceptance");
    let mut total = Outcome::default();
    let long = filter.is_some_and(|filter| filter.starts_with(LONG));
    let short = home.join("scenarios");
    let (base, folder) = if long { (home.clone(), home.join(LONG)) } else { (short.clone(), short) };
    let seconds_max = if long { LONG_SECONDS_MAX } else { SCENARIO_SECONDS_MAX };
    for path in scenarios(&folder)? {
        let name = path.strip_prefix(&base)?.display().to_string();
        if !is_wanted(&name, filter) {
            continue;
        }
        let Some(command) = interpreter(&home, &path, clients)? else {
            println!("SKIP: {name}: its client could not be installed");
            total.skipped.push(format!("{name}: its client could not be installed"));
            continue;
        };
        let began = Instant::now();
        let (outcome, output) = match one(command, target, seconds_max) {
            Ok((ended, output)) => (count(&output, ended.as_deref()), output),
            Err(error) => (Outcome { failed: 1, ..Outcome::default() }, format!("{error:#}\n")),
        };
        let took = began.elapsed().as_secs_f32();
        println!("{name}: {} passed, {} failed, {took:.1} s", outcome.passed, outcome.failed);
        if outcome.failed > 0 {
            output.lines().for_each(|line| println!("    {line}"));
        }
        total.passed += outcome.passed;
        total.failed += outcome.failed;
        total.skipped.extend(outcome.skipped.iter().map(|skip| format!("{name}: {skip}")));
    }
    Ok(total)
}

/// Is the scenario of this name run with this filter? Those below [`LONG`] are only if it begins so.
pub fn is_wanted(name: &str, filter: Option<&str>) -> bool {
    let long = filter.is_some_and(|filter| filter.starts_with(LONG));
    name.starts_with(LONG) == long && filter.is_none_or(|filter| name.contains(filter))
}

fn scenarios(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(scenarios(&path)?);
        } else if path.extension().is_some_and(|end| end == "py" || end == "cjs" || end == "sh") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// How to run a scenario; `None` if its client is missing.
fn interpreter(home: &Path, path: &Path, clients: &Clients) -> Result<Option<Command>> {
    let support = home.join("support");
    let mut command = match path.extension().and_then(|end| end.to_str()) {
        Some("py") => {
            let Some(python) = &clients.python else { return Ok(None) };
            let mut command = Command::new(python);
            command.env("PYTHONPATH", &support).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
        Some("cjs") => {
            let Some(modules) = &clients.node_modules else { return Ok(None) };
            let mut command = Command::new("node");
            command.env("NODE_PATH", std::env::join_paths([modules, &support])?);
            command
        }
        _ if !clients.redis_cli => return Ok(None),
        _ => Command::new("bash"),
    };
    command.arg(path).env("SUPPORT", &support);
    Ok(Some(command))
}

/// Runs one scenario; gives why it did not come to its end, if so, and what it printed.
fn one(mut command: Command, target: &Target, seconds_max: u64) -> Result<(Option<String>, String)> {
    let dir = tempfile::tempdir()?;
    let mut node = None;
    let (host, port) = match target {
        Target::Node { binary, programs } => {
            let mut server = Server::spawn_node(binary, dir.path(), None)?;
            server.wait_ready()?;
            command
                .env("ARCHIPEL_BIN", binary)
                .env("ADMIN_PORT", server.admin.unwrap_or_default().to_string())
                .envs(programs.iter().map(|(variable, path)| (variable, path)));
            let port = server.port;
            node = Some(server);
            ("127.0.0.1".to_owned(), port)
        }
        Target::Running { host, port } => {
            let port_text = port.to_string();
            crate::packages::run(
                Command::new("redis-cli")
                    .args(["-e", "-h", host, "-p", &port_text, "FLUSHALL"])
                    .stdout(Stdio::null()),
            )?;
            command.env_remove("ARCHIPEL_BIN");
            (host.clone(), *port)
        }
    };
    let output = dir.path().join("scenario.log");
    let file = File::create(&output)?;
    command.env("REDIS_HOST", host).env("REDIS_PORT", port.to_string()).env("SCRATCH", dir.path());
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut child = command.spawn().context("the scenario's interpreter did not start")?;
    let mut ended = match server::wait(&mut child, Duration::from_secs(seconds_max))? {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("ended with {status}")),
        None => {
            server::end_group(child.id());
            child.wait()?;
            Some(format!("did not end within {seconds_max} s"))
        }
    };
    // What the scenario left running would stay subscribed, or keep a port.
    server::end_group(child.id());
    let mut text = String::from_utf8_lossy(&std::fs::read(&output)?).into_owned();
    if let Some(server) = node {
        let log = server.tail();
        if let Err(error) = server.stop() {
            ended.get_or_insert(format!("{error:#}"));
        }
        if let Some(why) = &ended {
            text.push_str(&format!("scenario {why}\nthe node printed:\n{log}"));
        }
    }
    Ok((ended, text))
}

/// Counts what a scenario printed. One that ended early, or checked nothing, failed once more.
fn count(output: &str, ended: Option<&str>) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output.lines() {
        if line.starts_with("ok - ") {
            outcome.passed += 1;
        } else if line.starts_with("not ok - ") {
            outcome.failed += 1;
        } else if let Some(what) = line.strip_prefix("skip - ") {
            outcome.skipped.push(what.to_owned());
        }
    }
    let silent = outcome == Outcome::default();
    if silent || (ended.is_some() && outcome.failed == 0) {
        outcome.failed += 1;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_scenarios_run_only_when_they_are_asked_for() {
        #[rustfmt::skip] // columns
        let table = [
            // name                filter             wanted
            ("libp2p/a.cjs",       None,              true),
            ("libp2p/a.cjs",       Some("libp2p/"),   true),
            ("libp2p/a.cjs",       Some("redis"),     false),
            ("long/libp2p/a.cjs",  None,              false),
            ("long/libp2p/a.cjs",  Some("libp2p/"),   false),
            ("long/libp2p/a.cjs",  Some("long/"),     true),
            ("long/libp2p/a.cjs",  Some("long/x"),    false),
            ("libp2p/a.cjs",       Some("long/"),     false),
        ];
        for (name, filter, wanted) in table {
            assert_eq!(is_wanted(name, filter), wanted, "{name} {filter:?}");
        }
    }

    #[test]
    fn a_scenario_counts_its_checks_and_a_silent_or_broken_one_fails() {
        let skipped = |text: &str| vec![text.to_owned()];
        #[rustfmt::skip] // columns
        let table = [
            // printed                        ended            passed failed skipped
            ("ok - a\nok - b\n",              None,            2, 0, vec![]),
            ("ok - a\nnot ok - b: 1\n",       Some("exit 1"),  1, 1, vec![]),
            ("ok - a\n",                      Some("exit 1"),  1, 1, vec![]),
            ("",                              None,            0, 1, vec![]),
            ("noise ok - a\n",                None,            0, 1, vec![]),
            ("skip - c: why\n",               None,            0, 0, skipped("c: why")),
        ];
        for (output, ended, passed, failed, skipped) in table {
            assert_eq!(count(output, ended), Outcome { passed, failed, skipped }, "{output:?} {ended:?}");
        }
    }
}
