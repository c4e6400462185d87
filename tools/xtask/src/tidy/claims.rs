//! Rules on the lab's claims: each has a negative control, and a test that runs it.

use super::source::Source;
use super::{Finding, Rule};
use std::path::Path;

/// Where claims live, one a file.
const CLAIMS: &str = "proof/lab/src/claim";
/// Where the test lives that runs every claim with its control.
const TESTS: &str = "proof/lab/tests";

/// Checks the files of the lab; a tree without claims breaks nothing.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |path: &Path, what: &str| {
        findings.push(Finding { path: path.to_owned(), line: 1, rule: Rule::Control, what: what.into() });
    };
    let claims: Vec<_> = sources.iter().filter(|one| one.path.parent() == Some(Path::new(CLAIMS))).collect();
    for claim in &claims {
        let says = |word: &str| claim.lines.iter().any(|line| !line.test && line.code.contains(word));
        if !says("static CLAIM: Claim") {
            report(
                &claim.path,
                "a file here is one claim, `pub static CLAIM: Claim`; give other code its own place",
            );
        } else if !says("control: Control {") {
            report(
                &claim.path,
                "write the claim's negative control, `control: Control { .. }`, in its own file",
            );
        }
    }
    let tests = sources.iter().filter(|one| one.path.starts_with(TESTS));
    let mut lines = tests.flat_map(|one| &one.lines);
    if let Some(claim) = claims.first()
        && !lines.any(|line| line.code.contains("!judgement.control.hold()"))
    {
        report(&claim.path, "no test of the lab asserts that each control is caught");
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &str = "//! A.\npub static CLAIM: Claim = Claim {\n    control: Control { run },\n};\n";
    const TEST: &str = "//! T.\nfn f() { assert!(!judgement.control.hold()); }\n";

    fn found(claim: &str, test: &str) -> usize {
        let sources = [
            Source::new("proof/lab/src/claim/cap.rs", claim),
            Source::new("proof/lab/tests/it/main.rs", test),
        ];
        check(&sources).iter().filter(|finding| finding.rule == Rule::Control).count()
    }

    #[test]
    fn a_claim_without_a_control_is_found() {
        #[rustfmt::skip] // columns
        let table = [
            (CLAIM.to_owned(),                                  TEST,       0),
            (CLAIM.replace("control: Control", "other: Other"), TEST,       1),
            (CLAIM.replace("    control", "    // control"),    TEST,       1),
            (CLAIM.replace("CLAIM: Claim", "X: u8"),            TEST,       1),
            (CLAIM.to_owned(),                                  "//! T.\n", 1),
        ];
        for (claim, test, findings) in table {
            assert_eq!(found(&claim, test), findings, "{claim}");
        }
        assert!(check(&[Source::new("core/kernel/src/lib.rs", "//! K.\n")]).is_empty());
    }
}
