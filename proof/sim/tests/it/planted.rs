//! The measure of the simulator: each rule, when it is broken, is seen to be broken.

use kernel::planted::Bug;

use crate::with_rules;

/// Seeds within which a broken rule must show: fewer than a run in CI has.
const BUDGET: u64 = 1500;

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    // What breaks says so by failing; its text is not news.
    std::panic::set_hook(Box::new(|_| {}));
    for &bug in Bug::ALL {
        let _rules = with_rules(bug);
        match (0..BUDGET).find_map(|seed| sim::run(seed).err()) {
            Some(failure) => println!("{bug:?}: caught after {} seeds: {}", failure.seed + 1, failure.what),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(Bug::ALL.len() >= 15, "there are too few planted bugs to measure anything");
    assert!(missed.is_empty(), "not caught within {BUDGET} seeds: {missed:?}");
}

#[test]
fn no_release_of_the_product_has_planted_bugs() {
    let features = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges", "normal,build,features", "--invert", "kernel"])
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).contains("planted")
    };
    assert!(!features(&["--package", "archipel"]), "the product would be built with planted bugs");
    assert!(
        features(&["--package", "sim", "--features", "planted"]),
        "the question must be able to find them"
    );
}
