//! Rules on manifests and lint settings: members exist, lints are on, `core/` is `no_std` or fenced.

use super::arrows::Metadata;
use super::policy::{CORE_BANS, STD_IN_CORE, UNSAFE};
use super::source::Source;
use super::{Finding, Rule};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// What the root manifest must say, because tidy leaves the matter to rustc and clippy.
const ROOT_LINTS: &[&str] = &[
    "unsafe_code = \"forbid\"",
    "missing_docs = \"warn\"",
    "too_many_lines = \"warn\"",
    "unwrap_used = \"warn\"",
];

/// What each `clippy.toml` must say; the nearest file hides the others.
const THRESHOLD: &str = "too-many-lines-threshold = 70";

/// Checks what is not an arrow and not Rust.
pub fn check(root: &Path, metadata: &Metadata) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut report =
        |path: PathBuf, rule: Rule, what: String| findings.push(Finding { path, line: 1, rule, what });
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    for (path, needed) in
        [("Cargo.toml", ROOT_LINTS), ("clippy.toml", &[THRESHOLD]), ("core/clippy.toml", &[THRESHOLD])]
    {
        let text = read(Path::new(path));
        for line in needed.iter().filter(|line| !text.lines().any(|own| own.trim() == **line)) {
            report(path.into(), Rule::Lints, format!("the line `{line}` is missing; put it back"));
        }
    }
    let bans = read(Path::new("core/clippy.toml"));
    for ban in CORE_BANS.iter().filter(|ban| !bans.contains(&format!("\"{ban}\""))) {
        report(
            "core/clippy.toml".into(),
            Rule::Lints,
            format!("`{ban}` is not banned; crates of core with std need the fence"),
        );
    }
    for path in folders(root)? {
        if !metadata.packages.iter().any(|package| package.manifest_path.parent() == Some(&root.join(&path)))
        {
            report(
                path.join("Cargo.toml"),
                Rule::Members,
                "this folder is no member of the workspace; name it in the root manifest or delete it".into(),
            );
        }
    }
    for package in &metadata.packages {
        let manifest = package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path);
        let home = manifest.parent().unwrap_or(Path::new(""));
        let inherits = read(manifest)
            .split("[lints]")
            .nth(1)
            .is_some_and(|rest| rest.trim_start().starts_with("workspace = true"));
        if !inherits && !UNSAFE.iter().any(|(name, _)| *name == package.name) {
            report(manifest.to_owned(), Rule::Lints, "add `[lints]` with `workspace = true`".into());
        }
        if !home.starts_with("core") {
            continue;
        }
        let lib = home.join("src/lib.rs");
        let no_std = Source::new(&lib, &read(&lib)).lines.iter().any(|line| line.code.trim() == "#![no_std]");
        if !no_std && !STD_IN_CORE.contains(&package.name.as_str()) {
            report(lib, Rule::NoStd, "a crate of core declares `#![no_std]`, without conditions".into());
        }
        let own = home.join("clippy.toml");
        if root.join(&own).exists() {
            report(own, Rule::Lints, "it hides core/clippy.toml and its bans; delete it".into());
        }
    }
    Ok(findings)
}

/// Each folder one below `core`, `shell`, `app`, `proof` and `tools` that holds a file or folder.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["core", "shell", "app", "proof", "tools"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && std::fs::read_dir(&path)?.next().is_some() {
                found.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
