//! The measure of the world: each rule of minds, when it is broken, is seen to be broken.

use kernel::planted::Bug;

use super::{life, scenes, with_rules};

/// Lives within which a broken rule must show: fewer than a test run has. `MIND_BUG=name` plants only one.
const BUDGET: u64 = 60;

#[test]
fn every_planted_bug_of_minds_is_caught() {
    // What breaks says so by failing; its text is not news.
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("MIND_BUG").ok();
    let mut missed = Vec::new();
    for &bug in Bug::MIND.iter().filter(|bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"))) {
        let _rules = with_rules(bug);
        let paused = std::panic::catch_unwind(|| scenes::pause(4));
        let paused = paused.unwrap_or_else(|_| Err("nothing comes to rest".into()));
        let caught = paused.err().or_else(|| (0..BUDGET).find_map(|seed| life::run(seed).err()));
        match caught {
            Some(what) => println!("{bug:?}: caught: {what:.200}"),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
