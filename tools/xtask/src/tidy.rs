//! `cargo xtask tidy`: the rules of the project that neither rustc, clippy nor rustfmt knows.
//!
//! Fast, because it compiles nothing: `cargo metadata` for the arrows, a scanner for the text. Every rule
//! has a planted violation in the tests of the module that holds it.

mod arrows;
mod claims;
mod manifests;
mod policy;
mod prose;
mod source;

use anyhow::{Context, Result, bail};
use source::Source;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What was broken. The name is what the error line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Arrow,
    Order,
    Planes,
    AllowList,
    Owner,
    Members,
    Lints,
    NoStd,
    Header,
    Length,
    Lifted,
    Unfinished,
    Unwrap,
    Unsafe,
    Control,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Arrow => "arrow",
            Rule::Order => "core-order",
            Rule::Planes => "planes",
            Rule::AllowList => "allow-list",
            Rule::Owner => "owner",
            Rule::Members => "members",
            Rule::Lints => "lints",
            Rule::NoStd => "no-std",
            Rule::Header => "header",
            Rule::Length => "file-length",
            Rule::Lifted => "lifted-limit",
            Rule::Unfinished => "unfinished",
            Rule::Unwrap => "unwrap",
            Rule::Unsafe => "unsafe",
            Rule::Control => "control",
        })
    }
}

/// One broken rule, at one place.
#[derive(Debug)]
struct Finding {
    path: PathBuf,
    line: usize,
    rule: Rule,
    /// What is wrong and what to do about it.
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path.display(), self.line, self.rule, self.what)
    }
}

/// What one look at the tree gave.
struct Report {
    files: usize,
    members: usize,
    findings: Vec<Finding>,
    /// Where the limit on a function's length is lifted with a reason.
    lifted: Vec<(PathBuf, usize)>,
}

/// The folders whose Rust files are read.
const FOLDERS: &[&str] = &["core", "shell", "app", "proof", "tools", "fuzz"];

/// Checks the workspace at `root` and prints what is broken; an error if anything is.
pub fn run(root: &Path) -> Result<()> {
    let report = check(root)?;
    for finding in &report.findings {
        println!("{finding}");
    }
    for (path, line) in &report.lifted {
        println!("{}:{line}: a function is longer than its limit, with a reason", path.display());
    }
    let (files, members, lifted) = (report.files, report.members, report.lifted.len());
    println!(
        "tidy: {files} files in {members} members, {lifted} lifted limits, {} findings",
        report.findings.len()
    );
    if !report.findings.is_empty() {
        bail!("the tree is not tidy; each line above says what to do");
    }
    Ok(())
}

fn check(root: &Path) -> Result<Report> {
    let metadata = metadata(root)?;
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut findings = arrows::check(root, &metadata, read);
    findings.extend(manifests::check(root, &metadata)?);
    let mut sources = Vec::new();
    for folder in FOLDERS {
        collect(root, &root.join(folder), &mut sources)?;
    }
    prose::mark_test_files(&mut sources);
    findings.extend(claims::check(&sources));
    let mut lifted = Vec::new();
    for source in &sources {
        findings.extend(prose::check(source));
        let rows = prose::lifted_limits(source).into_iter().filter(|lifted| lifted.with_reason);
        lifted.extend(rows.map(|lifted| (source.path.clone(), lifted.row + 1)));
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(Report { files: sources.len(), members: metadata.packages.len(), findings, lifted })
}

fn metadata(root: &Path) -> Result<arrows::Metadata> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cargo metadata did not start")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed something unexpected")
}

/// Reads every Rust file below `dir`, in a stable order. A folder that does not exist has no files.
fn collect(root: &Path, dir: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            collect(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            sources.push(Source::new(path.strip_prefix(root)?, &text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A small workspace that breaks nothing.
    fn clean_tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let lints = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"\n\
                     [workspace.lints.clippy]\nunwrap_used = \"warn\"\ntoo_many_lines = \"warn\"\n";
        write(
            root,
            "Cargo.toml",
            &format!("[workspace]\nresolver = \"3\"\nmembers = [\"core/*\", \"shell/*\"]\n{lints}"),
        );
        write(root, "clippy.toml", "too-many-lines-threshold = 70\n");
        let bans: String = policy::CORE_BANS.iter().map(|ban| format!("    \"{ban}\",\n")).collect();
        write(
            root,
            "core/clippy.toml",
            &format!("too-many-lines-threshold = 70\ndisallowed-methods = [\n{bans}]\n"),
        );
        let manifest = |name: &str, rest: &str| {
            format!(
                "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lints]\nworkspace = true\n{rest}"
            )
        };
        write(root, "core/kernel/Cargo.toml", &manifest("kernel", ""));
        write(root, "core/kernel/src/lib.rs", "//! Words.\n#![no_std]\n");
        write(
            root,
            "shell/disk/Cargo.toml",
            &manifest("disk", "[dependencies]\nkernel = { path = \"../../core/kernel\" }\n"),
        );
        write(root, "shell/disk/src/lib.rs", "//! Files.\n");
        dir
    }

    fn found(root: &Path) -> Vec<String> {
        check(root)
            .unwrap()
            .findings
            .iter()
            .map(|f| format!("{}:{}: {}", f.path.display(), f.line, f.rule))
            .collect()
    }

    #[test]
    fn a_clean_tree_has_no_findings() {
        let tree = clean_tree();
        assert_eq!(found(tree.path()), [""; 0]);
    }

    #[test]
    fn each_planted_violation_in_a_real_tree_is_found() {
        let append = |root: &Path, path: &str, text: &str| {
            let old = std::fs::read_to_string(root.join(path)).unwrap();
            write(root, path, &(old + text));
        };
        let replace = |root: &Path, path: &str, from: &str, to: &str| {
            let old = std::fs::read_to_string(root.join(path)).unwrap();
            assert!(old.contains(from), "{path} has no {from}");
            write(root, path, &old.replace(from, to));
        };
        type Plant<'a> = &'a dyn Fn(&Path);
        let table: &[(Plant<'_>, &str)] = &[
            (
                &|r| {
                    append(
                        r,
                        "core/kernel/Cargo.toml",
                        "[dependencies]\ndisk = { path = \"../../shell/disk\" }\n",
                    )
                },
                "core/kernel/Cargo.toml:8: arrow",
            ),
            (
                &|r| append(r, "core/kernel/Cargo.toml", "[dependencies]\nrand = \"0.9\"\n"),
                "core/kernel/Cargo.toml:8: allow-list",
            ),
            (&|r| append(r, "shell/disk/Cargo.toml", "anyhow = \"1\"\n"), "shell/disk/Cargo.toml:9: owner"),
            (&|r| replace(r, "core/kernel/src/lib.rs", "#![no_std]", ""), "core/kernel/src/lib.rs:1: no-std"),
            (
                &|r| replace(r, "shell/disk/Cargo.toml", "[lints]\nworkspace = true\n", ""),
                "shell/disk/Cargo.toml:1: lints",
            ),
            (&|r| replace(r, "Cargo.toml", "unsafe_code = \"forbid\"\n", ""), "Cargo.toml:1: lints"),
            (&|r| replace(r, "clippy.toml", "70", "700"), "clippy.toml:1: lints"),
            (
                &|r| replace(r, "core/clippy.toml", "\"std::thread::spawn\"", "\"std::thread::sleep\""),
                "core/clippy.toml:1: lints",
            ),
            (&|r| write(r, "core/kernel/clippy.toml", ""), "core/kernel/clippy.toml:1: lints"),
            (
                &|r| append(r, "shell/disk/src/lib.rs", "fn f() { g().unwrap() }\n"),
                "shell/disk/src/lib.rs:2: unwrap",
            ),
            (
                &|r| write(r, "shell/disk/src/deep/log.rs", "fn f() {}\n"),
                "shell/disk/src/deep/log.rs:1: header",
            ),
            (
                &|r| write(r, "fuzz/fuzz_targets/a.rs", "//! A.\nfn f() { dbg!(1) }\n"),
                "fuzz/fuzz_targets/a.rs:2: unfinished",
            ),
        ];
        for (plant, expected) in table {
            let tree = clean_tree();
            plant(tree.path());
            assert_eq!(found(tree.path()), [*expected]);
        }
    }

    #[test]
    fn a_folder_without_a_manifest_stops_the_build_or_is_found() {
        let tree = clean_tree();
        write(tree.path(), "app/server/src/lib.rs", "//! A crate that no member list names.\n");
        assert_eq!(found(tree.path()), ["app/server/Cargo.toml:1: members"]);
    }
}
