//! Who may use whom: arrows between folders, the order inside `core/`, and foreign dependencies.

use super::policy::{CORE_DEPENDENCIES, CORE_EXTRA, CORE_ORDER, OWNERS, PLANES, SCRIPT_SEES};
use super::{Finding, Rule};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What `cargo metadata` says of the workspace, as far as the rules ask.
#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
}

/// A dependency as it stands in the manifest, active or not.
#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` is a normal dependency; otherwise `dev` or `build`.
    pub kind: Option<String>,
    /// Where it lives, if it is ours.
    pub path: Option<PathBuf>,
}

/// A member's place: the folder is its rule.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: &'a str,
    name: &'a str,
}

impl<'a> Place<'a> {
    fn of(root: &Path, dir: &'a Path) -> Option<Self> {
        let mut parts = dir.strip_prefix(root).ok()?.iter().map(|part| part.to_str().unwrap_or_default());
        let place = Place { folder: parts.next()?, name: parts.next()? };
        parts.next().is_none().then_some(place)
    }

    fn matches(self, pattern: &str) -> bool {
        match pattern.split_once('/') {
            Some((folder, name)) => (folder, name) == (self.folder, self.name),
            None => pattern == self.folder,
        }
    }
}

/// Checks every dependency of every member. `manifest` reads a manifest's text, to name the line.
pub fn check(root: &Path, metadata: &Metadata, manifest: impl Fn(&Path) -> String) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let path = package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path);
        let text = manifest(&package.manifest_path);
        let mut report = |line: usize, rule: Rule, what: String| {
            findings.push(Finding { path: path.to_owned(), line, rule, what });
        };
        let dir = package.manifest_path.parent().unwrap_or(root);
        let Some(place) = Place::of(root, dir) else {
            report(
                1,
                Rule::Members,
                "a member lives in core, shell, app, proof or tools, one folder deep; move it there".into(),
            );
            continue;
        };
        if place.name != package.name {
            let what =
                format!("package `{}` lives in folder `{}`; give both one name", package.name, place.name);
            report(line_of(&text, &package.name), Rule::Members, what);
        }
        if place.folder == "core" && rank(place.name).is_none() {
            let what = format!(
                "`{}` has no rank; add it to CORE_ORDER in tools/xtask/src/tidy/policy.rs",
                place.name
            );
            report(1, Rule::Order, what);
        }
        for dependency in &package.dependencies {
            let line = line_of(&text, &dependency.name);
            let verdict = match &dependency.path {
                Some(dir) => match Place::of(root, dir) {
                    Some(target) => arrow(place, target, dependency.kind.as_deref()),
                    None => Err((Rule::Arrow, "depend on members of the workspace only".into())),
                },
                None => foreign(place, dependency),
            };
            if let Err((rule, advice)) = verdict {
                let kind = dependency.kind.as_deref().map(|kind| format!("{kind}-")).unwrap_or_default();
                let what = format!(
                    "{}/{} has a {kind}dependency on `{}`: {advice}",
                    place.folder, place.name, dependency.name
                );
                report(line, rule, what);
            }
        }
    }
    findings
}

type Verdict = Result<(), (Rule, String)>;

fn refuse(rule: Rule, advice: &str) -> Verdict {
    Err((rule, advice.to_owned()))
}

/// May a member at `from` use the member at `to`?
fn arrow(from: Place<'_>, to: Place<'_>, kind: Option<&str>) -> Verdict {
    match (from.folder, to.folder) {
        ("core", "core") => core_order(from.name, to.name),
        ("core", _) => {
            refuse(Rule::Arrow, "core uses only core, in tests too; move the code or the test outward")
        }
        ("shell", "core" | "shell") | ("app", "core" | "shell" | "app") | ("proof", "core" | "proof") => {
            Ok(())
        }
        ("shell", _) => refuse(Rule::Arrow, "shell uses core and shell; move the code inward"),
        ("app", "proof") if to.name == "lab" => Ok(()),
        ("app", _) => refuse(Rule::Arrow, "of proof, app uses only proof/lab"),
        ("proof", "shell") if kind == Some("dev") => Ok(()),
        ("proof", _) => refuse(Rule::Arrow, "proof sees only core; start the binary instead of linking it"),
        _ => refuse(Rule::Arrow, "tools build alone, so that they stay quick; run the binary instead"),
    }
}

fn core_order(from: &str, to: &str) -> Verdict {
    if PLANES.contains(&from) && PLANES.contains(&to) {
        return refuse(
            Rule::Planes,
            "planes do not know each other; what two of them need is a word (kernel) or a joint (gateway, node)",
        );
    }
    if PLANES.contains(&from) && to == "wire" {
        return refuse(
            Rule::Planes,
            "a plane does not know the protocol it is reached by; translate in gateway",
        );
    }
    if from == "script" && !SCRIPT_SEES.contains(&to) {
        return refuse(Rule::Order, "script sees kernel and storage only");
    }
    match (rank(from), rank(to)) {
        (Some(own), Some(other)) if other < own => Ok(()),
        (None, _) | (_, None) => Ok(()), // reported once, as a crate without a rank
        _ => refuse(
            Rule::Order,
            "inside core, arrows point to a lower rank (CORE_ORDER in tools/xtask/src/tidy/policy.rs)",
        ),
    }
}

fn rank(name: &str) -> Option<u8> {
    CORE_ORDER.iter().find(|(known, _)| *known == name).map(|(_, rank)| *rank)
}

/// May a member at `from` use a dependency that is not ours?
fn foreign(from: Place<'_>, dependency: &Dependency) -> Verdict {
    let name = dependency.name.as_str();
    let named = |known: &str| match known.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => known == name,
    };
    let owned = OWNERS.iter().find(|(known, _)| named(known));
    if let Some((_, owners)) = owned
        && !owners.iter().any(|owner| from.matches(owner))
    {
        return Err((
            Rule::Owner,
            format!("only {} may name it; ask there for what you need", owners.join(" and ")),
        ));
    }
    if from.folder != "core" || dependency.kind.as_deref() == Some("dev") {
        return Ok(());
    }
    if dependency.kind.as_deref() == Some("build") {
        return refuse(
            Rule::AllowList,
            "core has no build scripts; generate the code with xtask and commit it",
        );
    }
    if CORE_DEPENDENCIES.contains(&name) || CORE_EXTRA.contains(&(from.name, name)) {
        return Ok(());
    }
    refuse(Rule::AllowList, "not on core's allow-list (CORE_DEPENDENCIES in tools/xtask/src/tidy/policy.rs)")
}

/// The line of a manifest that names `key`, from 1; 1 if none does.
fn line_of(text: &str, key: &str) -> usize {
    let named = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
            || line.contains(&format!("\"{key}\""))
            || line.contains(&format!("dependencies.{key}]"))
    };
    text.lines().position(named).map_or(1, |row| row + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> (String, String) {
        let (folder, name) = path.split_once('/').expect("a place has two parts");
        (folder.into(), name.into())
    }

    fn findings(from: &str, to: &str, kind: Option<&str>) -> Vec<(usize, Rule)> {
        let root = Path::new("/w");
        let (_, name) = place(from);
        let path = to.contains('/').then(|| root.join(to));
        let dependency =
            Dependency { name: to.rsplit('/').next().unwrap().into(), kind: kind.map(str::to_owned), path };
        let text =
            format!("[package]\nname = \"{name}\"\n\n[dependencies]\n{}.workspace = true\n", dependency.name);
        let package = Package {
            name,
            manifest_path: root.join(from).join("Cargo.toml"),
            dependencies: vec![dependency],
        };
        let found = check(root, &Metadata { packages: vec![package] }, |_| text.clone());
        found.into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    #[test]
    fn arrows_that_point_inward_are_allowed() {
        for (from, to, kind) in [
            ("core/wire", "core/kernel", None),
            ("core/storage", "core/placement", None),
            ("core/script", "core/storage", None),
            ("core/gateway", "core/script", None),
            ("core/gateway", "core/wire", None),
            ("core/node", "core/gateway", None),
            ("shell/disk", "core/journal", None),
            ("shell/disk", "shell/telemetry", None),
            ("app/server", "shell/disk", None),
            ("app/archipel", "app/server", None),
            ("app/archipel", "proof/lab", None),
            ("proof/sim", "core/node", None),
            ("proof/lab", "proof/sim", None),
            ("proof/sim", "shell/disk", Some("dev")),
            ("core/wire", "memchr", None),
            ("core/wire", "proptest", Some("dev")),
            ("core/script", "mlua", None),
            ("shell/disk", "fjall", None),
            ("shell/fabric", "libp2p-swarm", None),
            ("app/archipel", "anyhow", None),
            ("tools/xtask", "anyhow", None),
        ] {
            assert_eq!(findings(from, to, kind), [], "{from} -> {to} {kind:?}");
        }
    }

    #[test]
    fn arrows_that_point_outward_are_found_with_their_line() {
        for (from, to, kind, rule) in [
            ("core/kernel", "shell/disk", None, Rule::Arrow),
            ("core/storage", "proof/sim", Some("dev"), Rule::Arrow),
            ("core/node", "app/server", None, Rule::Arrow),
            ("shell/disk", "app/server", None, Rule::Arrow),
            ("shell/disk", "proof/sim", Some("dev"), Rule::Arrow),
            ("app/server", "proof/sim", None, Rule::Arrow),
            ("proof/sim", "shell/disk", None, Rule::Arrow),
            ("proof/chaos", "app/archipel", None, Rule::Arrow),
            ("proof/chaos", "app/archipel", Some("dev"), Rule::Arrow),
            ("app/server", "tools/xtask", None, Rule::Arrow),
            ("tools/xtask", "core/kernel", None, Rule::Arrow),
            ("core/storage", "core/events", None, Rule::Planes),
            ("core/mesh", "core/p2p", Some("dev"), Rule::Planes),
            ("core/storage", "core/wire", None, Rule::Planes),
            ("core/kernel", "core/wire", None, Rule::Order),
            ("core/journal", "core/wire", None, Rule::Order),
            ("core/storage", "core/gateway", Some("dev"), Rule::Order),
            ("core/gateway", "core/node", None, Rule::Order),
            ("core/script", "core/wire", None, Rule::Order),
            ("core/wire", "rand", None, Rule::AllowList),
            ("core/wire", "tokio", None, Rule::Owner),
            ("core/storage", "mlua", None, Rule::Owner),
            ("core/wire", "memchr", Some("build"), Rule::AllowList),
            ("shell/runtime", "fjall", None, Rule::Owner),
            ("app/server", "libp2p-swarm", None, Rule::Owner),
            ("shell/runtime", "tokio", None, Rule::Owner),
            ("shell/disk", "anyhow", None, Rule::Owner),
        ] {
            assert_eq!(findings(from, to, kind), [(5, rule)], "{from} -> {to} {kind:?}");
        }
    }

    #[test]
    fn members_that_are_not_where_a_reader_looks_are_found() {
        assert_eq!(findings("core/strange", "memchr", None), [(1, Rule::Order)]);
        let root = Path::new("/w");
        for (name, dir, rule) in [
            ("disk", "shell/engine", Rule::Members),
            ("disk", "disk", Rule::Members),
            ("disk", "shell/a/disk", Rule::Members),
        ] {
            let manifest_path = root.join(dir).join("Cargo.toml");
            let package = Package { name: name.into(), manifest_path, dependencies: vec![] };
            let found = check(root, &Metadata { packages: vec![package] }, |_| String::new());
            assert_eq!(found.iter().map(|finding| finding.rule).collect::<Vec<_>>(), [rule], "{dir}");
        }
    }
}
