//! The lab on the command line: exit codes, JSON and files.

use crate::process::{code, run, stderr, stdout};

const SMALL: [&str; 8] = ["lab", "run", "flood", "--nodes", "500", "--graphs", "20", "--seed"];

#[test]
fn a_claim_that_holds_ends_with_0_and_says_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("flood.svg");
    let words = [&SMALL[..], &["7", "--json", "--svg", file.to_str().unwrap()]].concat();
    let output = run(&words);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&json["schema"], &json["name"], &json["seed"]), (&1.into(), &"flood".into(), &7.into()));
    assert_eq!((&json["verdict"], &json["control"]["verdict"]), (&"holds".into(), &"caught".into()));
    assert_eq!(json["params"]["nodes"], 500);
    let figure = &json["figures"][0];
    for field in ["name", "value", "unit", "bound", "holds"] {
        assert!(!figure[field].is_null(), "{field}: {figure}");
    }
    assert_eq!(json["trace_hash"].as_str().unwrap().len(), 16);
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("<svg"));
    assert_eq!(stdout(&run(&words)), stdout(&output));
}

#[test]
fn a_claim_that_fails_ends_with_1() {
    // Half of the nodes of a sparse overlay dead: no gossip reaches the rest.
    let output = run(&[&SMALL[..], &["7", "--degree", "3", "--dead", "0.5"]].concat());
    assert_eq!(code(&output), 1, "{}", stdout(&output));
    assert!(stdout(&output).contains("FAILS"));
}

#[test]
fn what_is_asked_wrongly_ends_with_2_and_the_next_step() {
    #[rustfmt::skip] // columns
    let table: [(&[&str], &str); 5] = [
        (&["lab", "run", "gravity"],                        "there are flood"),
        (&["lab", "run", "flood", "--nodes", "3"],          "a whole number from 16"),
        (&["lab", "run", "flood", "--speed", "3"],          "--speed"),
        (&["lab", "run", "flood", "--seed", "x"],           "--seed"),
        (&["lab", "run"],                                   "NAME"),
    ];
    for (words, told) in table {
        let output = run(words);
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(stderr(&output).contains(told), "{words:?}: {}", stderr(&output));
    }
}

#[test]
fn the_parameters_of_a_claim_are_in_its_help() {
    let output = run(&["lab", "run", "flood", "--help"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("--degree <N>"), "{}", stdout(&output));
    assert!(stdout(&run(&["lab", "list"])).contains("flood\n"));
}
