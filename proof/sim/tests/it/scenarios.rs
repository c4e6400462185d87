//! The scenarios that are kept as text: they say what the node does, and would not if a rule were broken.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kernel::planted::Bug;
use sim::scenario;

use crate::with_rules;

#[test]
fn every_scenario_says_what_the_node_does() {
    let _rules = with_rules(Bug::None);
    let (count, differences) =
        scenario::compare(Path::new(scenario::FOLDER)).unwrap_or_else(|error| panic!("{error}"));
    for difference in &differences {
        println!("{}\n{}", difference.path.display(), difference.diff);
    }
    assert!(count >= 12, "only {count} scenarios are left");
    let differing = differences.len();
    assert!(differences.is_empty(), "{differing} differ; if that is how it should be: {}", scenario::COMMAND);
}

#[test]
fn a_broken_rule_is_another_text() {
    #[rustfmt::skip] // columns
    let table = [
        (Bug::AckBeforeSync,        "group-commit"),
        (Bug::SyncCoversLater,      "group-commit"),
        (Bug::RepliesOutOfOrder,    "own-writes"),
        (Bug::EverySecLate,         "everysec"),
        (Bug::IgnoreSyncedMark,     "damage"),
        (Bug::CheckpointNotACut,    "checkpoint-alone"),
        (Bug::WaiterServedTwice,    "blocking"),
        (Bug::WatchIgnoresInFlight, "watch"),
        (Bug::FullAcknowledged,     "disk-full"),
        (Bug::WithdrawnIndexKept,   "disk-full"),
        (Bug::FailedSyncRetried,    "failed-sync"),
        (Bug::UnloggedExpiryRead,   "expiry"),
    ];
    let mut missed = Vec::new();
    for (bug, name) in table {
        let path = Path::new(scenario::FOLDER).join(name).with_extension("txt");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let _rules = with_rules(bug);
        // A step that cannot be done any more shows it as well, and so does an assertion of the machines.
        if let Ok(Ok(told)) = catch_unwind(|| scenario::retell(&text))
            && told == text
        {
            missed.push((bug, name));
        }
    }
    assert!(missed.is_empty(), "these rules can be broken without a change of text: {missed:?}");
}

fn command(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(["scenarios", "--folder"]).arg(folder).args(more).output().expect("the simulator runs")
}

fn folder(name: &str, text: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join("one.txt"), text).expect("the file can be written");
    folder
}

#[test]
fn one_command_shows_the_difference_and_writes_it() {
    let folder = folder("scenarios", "# T\nstart always\nclient a: PING\nturn\n    client a  PANG\n");
    let shown = command(&folder, &[]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(1), "{text}");
    assert!(text.contains("@@ line 5 @@\n-    client a  PANG\n+    client a  PONG\n"), "{text}");
    assert_eq!(command(&folder, &["--write"]).status.code(), Some(0));
    assert_eq!(command(&folder, &[]).status.code(), Some(0));
}

#[test]
fn a_step_that_does_not_exist_is_named_with_file_and_line() {
    let folder = folder("unknown", "# T\nstart always\nclient a PING\n");
    let told = command(&folder, &["--write"]);
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(2), "{text}");
    assert!(text.contains("one.txt:3: no step is called `client a PING`"), "{text}");
}
