//! Rules on the text of Rust files: length, header, unfinished work, `unwrap`, `unsafe`, lifted limits.

use super::policy::{FILE_LINES_MAX, FILE_LINES_WITH_TESTS_MAX, ROOMS, STD_IN_CORE, UNSAFE};
use super::source::Source;
use super::{Finding, Rule};
use std::path::{Path, PathBuf};

/// Marks the files that exist only for tests: those in `tests/` or `benches/`, and modules that another
/// file declares as `#[cfg(test)] mod name;`, with everything below them.
pub fn mark_test_files(sources: &mut [Source]) {
    let mut stems: Vec<PathBuf> = Vec::new();
    for source in sources.iter() {
        let name = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let home = match name {
            "lib" | "main" | "mod" => source.path.parent().unwrap_or(Path::new("")).to_owned(),
            _ => source.path.with_extension(""),
        };
        stems.extend(source.test_modules.iter().map(|module| home.join(module)));
    }
    for source in sources {
        let declared = stems
            .iter()
            .any(|stem| source.path.starts_with(stem) || source.path == stem.with_extension("rs"));
        if declared || source.path.iter().any(|part| part == "tests" || part == "benches") {
            source.all_tests();
        }
    }
}

/// Checks one file. Functions' length and documentation are for clippy and rustc, which parse.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |row: usize, rule: Rule, what: String| {
        findings.push(Finding { path: source.path.clone(), line: row + 1, rule, what });
    };
    length(source, &mut report);
    if !source.lines.first().is_some_and(|line| line.comment.starts_with("//!")) {
        report(0, Rule::Header, "begin with `//!` and say in one sentence what this file is".into());
    }
    let may_unsafe = UNSAFE.iter().any(|(name, _)| Some(*name) == crate_of(&source.path));
    for (row, line) in source.lines.iter().enumerate() {
        if has_word(&line.code, "unsafe") && !may_unsafe {
            report(
                row,
                Rule::Unsafe,
                "write it safely, or list the crate with a reason in UNSAFE (tools/xtask/src/tidy/policy.rs)"
                    .into(),
            );
        }
        if line.test {
            continue;
        }
        for room in strayed(&source.path, &line.code) {
            report(row, Rule::Owner, format!("only {room} may name it; ask there for what you need"));
        }
        for mark in ["TODO", "FIXME"] {
            if has_word(&line.code, mark) || has_word(&line.comment, mark) {
                report(
                    row,
                    Rule::Unfinished,
                    format!("`{mark}`: do it now, or open an issue and delete the line"),
                );
            }
        }
        for call in ["todo!", "unimplemented!", "dbg!"] {
            if has_word(&line.code, call) {
                report(row, Rule::Unfinished, format!("`{call}` stays on your machine"));
            }
        }
        if line.code.contains(".unwrap()") || line.code.contains("::unwrap)") {
            report(
                row,
                Rule::Unwrap,
                "return an error, or `expect(\"the invariant, as a sentence\")`".into(),
            );
        }
        if line.code.contains("extern crate std") && in_no_std_core(&source.path) {
            report(
                row,
                Rule::NoStd,
                "core has no std outside its tests; take time, chance and bytes as arguments".into(),
            );
        }
        if line.code.contains("allow(missing_docs") {
            report(row, Rule::Lints, "write the documentation instead of silencing the lint".into());
        }
    }
    for lifted in lifted_limits(source) {
        if !lifted.with_reason {
            report(
                lifted.row,
                Rule::Lifted,
                "lift it with `#[expect(clippy::too_many_lines, reason = \"…\")]`, or split the function"
                    .into(),
            );
        }
    }
    findings
}

/// The rooms whose words `code` uses although its file is elsewhere.
fn strayed(path: &Path, code: &str) -> impl Iterator<Item = &'static str> {
    let elsewhere =
        |tree: &str, room: &str| path.starts_with(tree) && !path.with_extension("").starts_with(room);
    ROOMS
        .iter()
        .filter(move |(word, tree, room)| elsewhere(tree, room) && names(code, word))
        .map(|(.., room)| *room)
}

fn length(source: &Source, report: &mut impl FnMut(usize, Rule, String)) {
    let all = source.lines.len();
    let own = source.lines.iter().filter(|line| !line.test).count();
    if own > FILE_LINES_MAX {
        let what = format!(
            "{own} lines without tests, {FILE_LINES_MAX} allowed; there are two ideas here, give each a file"
        );
        report(FILE_LINES_MAX, Rule::Length, what);
    } else if all > FILE_LINES_WITH_TESTS_MAX {
        let what = format!(
            "{all} lines with tests, {FILE_LINES_WITH_TESTS_MAX} allowed; move the tests to a file of their own"
        );
        report(FILE_LINES_WITH_TESTS_MAX, Rule::Length, what);
    }
}

/// A place where the limit on a function's length is lifted.
pub struct Lifted {
    pub row: usize,
    /// It is an `expect` with a reason, so it is counted but not refused.
    pub with_reason: bool,
}

/// Every attribute that lifts the limit on a function's length.
pub fn lifted_limits(source: &Source) -> Vec<Lifted> {
    let names_it = |(_, line): &(usize, &super::source::Line)| line.code.contains("clippy::too_many_lines");
    let rows = source.lines.iter().enumerate().filter(names_it).map(|(row, _)| row);
    rows.map(|row| {
        let start = (0..=row)
            .rev()
            .find(|&n| source.lines[n].code.contains("#[") || source.lines[n].code.contains("#!["))
            .unwrap_or(row);
        let mut attribute = String::new();
        for line in &source.lines[start..] {
            attribute.push_str(&line.code);
            if line.code.contains(']') {
                break;
            }
        }
        Lifted { row, with_reason: attribute.contains("[expect(") && attribute.contains("reason") }
    })
    .collect()
}

/// The name of the crate a file belongs to: the second folder of its path.
fn crate_of(path: &Path) -> Option<&str> {
    path.iter().nth(1).and_then(|part| part.to_str())
}

fn in_no_std_core(path: &Path) -> bool {
    path.starts_with("core") && !crate_of(path).is_some_and(|name| STD_IN_CORE.contains(&name))
}

/// Is `word` in `text` with no letter, digit or underscore at either side?
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let after = &text[at + word.len()..];
        !text[..at].ends_with(part) && (word.ends_with('!') || !after.starts_with(part))
    })
}

/// True if `text` has `word`, or one that begins with it if it ends with `*`.
fn names(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    match word.strip_suffix('*') {
        Some(family) => text.match_indices(family).any(|(at, _)| !text[..at].ends_with(part)),
        None => has_word(text, word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, Rule)> {
        let mut sources = [Source::new(path, text)];
        mark_test_files(&mut sources);
        check(&sources[0]).into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    #[test]
    fn planted_violations_are_found_with_their_line() {
        for (body, rule) in [
            ("fn f() { g().unwrap() }", Rule::Unwrap),
            ("fn f() { g.map(Option::unwrap) }", Rule::Unwrap),
            ("fn f() { todo!() }", Rule::Unfinished),
            ("fn f() { unimplemented!(\"x\") }", Rule::Unfinished),
            ("fn f() { dbg!(x) }", Rule::Unfinished),
            ("// TODO later", Rule::Unfinished),
            ("/* FIXME: this */", Rule::Unfinished),
            ("unsafe fn f() {}", Rule::Unsafe),
            ("extern crate std;", Rule::NoStd),
            ("#[allow(clippy::too_many_lines)]", Rule::Lifted),
            ("#[expect(clippy::too_many_lines)]", Rule::Lifted),
            ("#![allow(missing_docs)]", Rule::Lints),
        ] {
            let text = format!("//! A file.\n{body}\n");
            assert_eq!(rules("core/wire/src/a.rs", &text), [(2, rule)], "{body}");
        }
        for (path, line, found) in [
            ("shell/fabric/src/link.rs", "use libp2p_swarm::Swarm;", true),
            ("shell/fabric/src/link.rs", "use tokio::net::TcpStream;", true),
            ("shell/fabric/src/overlay.rs", "use libp2p_swarm::Swarm;", false),
            ("shell/fabric/src/overlay/tcp.rs", "use tokio::net::TcpStream;", false),
            ("shell/fabric/src/overlay_too.rs", "use libp2p_swarm::Swarm;", true),
            ("app/server/src/admin.rs", "use tokio::net::TcpStream;", false),
            ("app/server/src/admin.rs", "use libp2p_swarm::Swarm;", true),
            ("shell/fabric/tests/it/overlay.rs", "use tokio::test;", false),
            ("shell/fabric/src/link.rs", "use mylibp2p::x; // libp2p", false),
        ] {
            let expected: &[(usize, Rule)] = if found { &[(2, Rule::Owner)] } else { &[] };
            assert_eq!(rules(path, &format!("//! A file.\n{line}\n")), expected, "{path}: {line}");
        }
        assert_eq!(rules("core/wire/src/a.rs", "fn f() {}\n"), [(1, Rule::Header)]);
        assert_eq!(rules("core/wire/src/a.rs", ""), [(1, Rule::Header)]);
    }

    #[test]
    fn what_only_looks_like_a_violation_is_allowed() {
        for body in [
            "fn f() { \"x.unwrap() todo!() unsafe\" }",
            "fn f() { x.unwrap_or_default() }",
            "// A list of todos, mastodon!, and a word: unsafe, x.unwrap().",
            "#[expect(clippy::too_many_lines, reason = \"a table\")]",
            "#[expect(\n    clippy::too_many_lines,\n    reason = \"a table\"\n)]",
            "#![forbid(unsafe_code)]",
            "#[cfg(test)]\nmod tests {\n    extern crate std;\n    fn f() { g().unwrap(); dbg!(1); }\n}",
        ] {
            let text = format!("//! A file.\n{body}\n");
            assert_eq!(rules("core/wire/src/a.rs", &text), [], "{body}");
        }
        let text = "//! A file.\nfn f() { g().unwrap() }\n";
        assert_eq!(rules("core/wire/tests/it/main.rs", text), []);
        assert_eq!(rules("core/consensus/src/a.rs", "//! A file.\nextern crate std;\n"), []);
    }

    #[test]
    fn files_that_are_too_long_are_found_and_tests_count_less() {
        let lines = |n: usize| "fn f() {}\n".repeat(n);
        let with_tests = |own: usize, tests: usize| {
            format!("//! A.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(own - 1), lines(tests - 3))
        };
        #[rustfmt::skip] // columns
        let table = [
            (format!("//! A.\n{}", lines(599)), vec![]),
            (format!("//! A.\n{}", lines(600)), vec![(601, Rule::Length)]),
            (with_tests(600, 300),              vec![]),
            (with_tests(600, 301),              vec![(901, Rule::Length)]),
            (with_tests(100, 801),              vec![(901, Rule::Length)]),
        ];
        for (text, expected) in table {
            assert_eq!(rules("core/wire/src/a.rs", &text), expected, "{} lines", text.lines().count());
        }
    }

    #[test]
    fn a_module_declared_for_tests_is_a_test_wherever_it_lives() {
        let bad = "//! A.\nfn f() { g().unwrap() }\n";
        for (parent, child) in [
            ("core/wire/src/lib.rs", "core/wire/src/samples.rs"),
            ("core/wire/src/resp.rs", "core/wire/src/resp/samples.rs"),
            ("core/wire/src/resp/mod.rs", "core/wire/src/resp/samples/deep.rs"),
        ] {
            let declared = Source::new(parent, "//! A.\n#[cfg(test)]\nmod samples;\n");
            let mut sources = [declared, Source::new(child, bad)];
            mark_test_files(&mut sources);
            assert!(check(&sources[1]).is_empty(), "{child}");
            let plain = Source::new(parent, "//! A.\nmod samples;\n");
            let mut sources = [plain, Source::new(child, bad)];
            mark_test_files(&mut sources);
            assert_eq!(check(&sources[1]).len(), 1, "{child}");
        }
    }
}
