//! Scenarios as text: what happens to a node, step by step, and under each step what the node did.
//!
//! A file of `scenarios/` begins with `# ` and its title. Lines that begin with `#` and empty lines are the
//! author's, unindented lines are [steps](step::Step), and indented lines are the trace. The trace is never
//! written by hand: [`retell`] drops it, lets the machines that run in production do the steps, and writes
//! down what they did. So a change of behaviour is a change of text, and reviewed as one.
//!
//! One worker with one keyspace of one partition; chance and disk faults are what the steps say, not drawn.

mod stage;
mod step;
mod told;

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use stage::Stage;
use step::Step;
pub use step::StepError;

/// Where the project's scenarios are.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
/// What writes all traces anew.
pub const COMMAND: &str = "cargo run -p sim -- scenarios --write";
/// Before each line of a trace.
const INDENT: &str = "    ";

/// Why a scenario cannot be told.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// A file or the folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it should be there.
    #[error("{}:{}: {}", path.display(), misstep.line, misstep.what)]
    Misstep {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        misstep: Misstep,
    },
    /// There are no scenarios.
    #[error("{}: no file ends with .txt", .0.display())]
    Empty(PathBuf),
}

/// A line of a scenario that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct Misstep {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: StepError,
}

/// A scenario whose trace is not what the node does.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The file.
    pub path: PathBuf,
    /// The whole text as it should be.
    pub text: String,
    /// The first and last lines that differ and all between them, as a diff.
    pub diff: String,
}

/// The scenario with the trace that the machines write now.
///
/// # Errors
/// The first line that is no step, or one that cannot be done at that point.
pub fn retell(text: &str) -> Result<String, Misstep> {
    let (mut stage, mut out, mut steps) = (Stage::default(), String::new(), 0);
    for (number, line) in (1..).zip(text.lines()) {
        let misstep = |what| Misstep { line: number, what };
        if number == 1 && !line.starts_with("# ") {
            return Err(misstep(StepError::Untitled));
        }
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let line = line.trim_end();
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        steps += 1;
        let step = Step::parse(line).map_err(misstep)?;
        for told in stage.perform(&step).map_err(misstep)? {
            out.push_str(INDENT);
            out.push_str(&told);
            out.push('\n');
        }
    }
    if steps == 0 {
        return Err(Misstep { line: text.lines().count().max(1), what: StepError::Nothing });
    }
    Ok(out)
}

/// Tells every scenario of `folder` again: how many there are, and which of them differ.
///
/// # Errors
/// See [`ScenarioError`]; the first one ends it.
pub fn compare(folder: &Path) -> Result<(usize, Vec<Difference>), ScenarioError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ScenarioError::File { path, source }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(ScenarioError::Empty(folder.to_path_buf()));
    }
    paths.sort();
    let mut differences = Vec::new();
    for path in &paths {
        let old = fs::read_to_string(path).map_err(unreadable(path))?;
        let text = retell(&old).map_err(|misstep| ScenarioError::Misstep { path: path.clone(), misstep })?;
        if text != old {
            differences.push(Difference { path: path.clone(), diff: diff(&old, &text), text });
        }
    }
    Ok((paths.len(), differences))
}

/// Writes the texts as they should be.
///
/// # Errors
/// A file cannot be written.
pub fn write(differences: &[Difference]) -> Result<(), ScenarioError> {
    for Difference { path, text, .. } in differences {
        fs::write(path, text).map_err(|source| ScenarioError::File { path: path.clone(), source })?;
    }
    Ok(())
}

/// What differs between two texts: everything between their common beginning and their common end.
fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let most = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count().min(most);
    let mut text = format!("@@ line {} @@\n", head + 1);
    for (sign, lines) in [('-', &old[head..old.len() - tail]), ('+', &new[head..new.len() - tail])] {
        for line in lines {
            text.push(sign);
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_what_is_between_the_common_ends() {
        #[rustfmt::skip] // columns
        let table = [
            ("a\nb\nc\n", "a\nx\nc\n",    "@@ line 2 @@\n-b\n+x\n"),
            ("a\nc\n",    "a\nb\nc\n",    "@@ line 2 @@\n+b\n"),
            ("a\na\n",    "a\n",          "@@ line 2 @@\n-a\n"),
            ("a\nb\nc\n", "b\nb\nd\n",    "@@ line 1 @@\n-a\n-b\n-c\n+b\n+b\n+d\n"),
        ];
        for (old, new, expected) in table {
            assert_eq!(diff(old, new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn what_is_told_again_stays_the_same() {
        let text = "# A title\n# and more.\n\nstart always\nclient a: SET k 1\n    a wrong trace\nturn\n";
        let told = retell(text).expect("it can be told");
        assert!(!told.contains("wrong"), "{told}");
        assert!(told.contains("SET k 1\nturn\n    log"), "{told}");
        assert_eq!(retell(&told), Ok(told));
    }

    #[test]
    fn what_cannot_be_done_is_said_with_its_line() {
        #[rustfmt::skip] // columns
        let table = [
            ("turn\n",                                   1, "title"),
            ("# T\n",                                    1, "no step"),
            ("# T\n\nstart always\njump\n",              4, "no step is called `jump`"),
            ("# T\nturn\n",                              2, "no node runs"),
            ("# T\nstart always\n    log\nsync ends\n",  4, "no sync is under way"),
            ("# T\nstart always\nstart always\n",        3, "started already"),
            ("# T\nstart always\ncheckpoint is durable", 3, "no checkpoint is written"),
            ("# T\nstart always\nrestart\n",             3, "it runs"),
            ("# T\nstart always\ntime +1 day\n",         3, "no step is called `time +1 day`"),
        ];
        for (text, line, part) in table {
            let misstep = retell(text).expect_err(text);
            assert_eq!(misstep.line, line, "{text:?}");
            assert!(misstep.to_string().contains(part), "{text:?}: {misstep}");
        }
    }
}
