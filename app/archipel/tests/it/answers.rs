//! Verbs that need no node.

use crate::process::{archipel, code, run, stderr, stdout};

#[test]
fn every_verb_has_examples() {
    let verbs: [&[&str]; 25] = [
        &[],
        &["node", "start"],
        &["node", "status"],
        &["storage", "get"],
        &["storage", "set"],
        &["storage", "del"],
        &["storage", "scan"],
        &["storage", "export"],
        &["storage", "import"],
        &["p2p", "id"],
        &["p2p", "peers"],
        &["p2p", "ping"],
        &["p2p", "connect"],
        &["p2p", "disconnect"],
        &["p2p", "find"],
        &["p2p", "get"],
        &["p2p", "put"],
        &["p2p", "provide"],
        &["p2p", "providers"],
        &["p2p", "trace"],
        &["config", "check"],
        &["doctor"],
        &["lab", "list"],
        &["lab", "run"],
        &["lab", "report"],
    ];
    for verb in verbs {
        let output = run(&[verb, &["--help"]].concat());
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("Examples:\n  "), "{verb:?}");
    }
}

#[test]
fn a_configuration_is_checked_and_what_it_changes_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archipel.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[redis]\nport = 7000\n").unwrap();
    let output = run(&["config", "check", path]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("redis.port"));
    assert!(stdout(&output).contains("archipel.toml:2"));
    std::fs::write(&file, "[redis]\nport = true\n").unwrap();
    let output = run(&["config", "check", path]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("archipel.toml:2: `redis.port` is true"), "{}", stderr(&output));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(&["config", "check", path, "--json"]))).unwrap();
    assert_eq!(json["holds"], false);
}

#[test]
fn the_reference_is_a_right_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archipel.toml");
    std::fs::write(&file, stdout(&run(&["config", "reference"]))).unwrap();
    assert_eq!(code(&run(&["config", "check", file.to_str().unwrap()])), 0);
}

#[test]
fn variables_and_the_file_named_by_one_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archipel.toml");
    std::fs::write(&file, "[redis]\nport = 7000\n").unwrap();
    let mut command = archipel(&["config", "check"]);
    command.env("ARCHIPEL_CONFIG", &file).env("ARCHIPEL_ADMIN__PORT", "7001");
    let output = command.output().unwrap();
    assert!(stdout(&output).contains("archipel.toml:2"));
    assert!(stdout(&output).contains("ARCHIPEL_ADMIN__PORT"));
}

#[test]
fn doctor_tells_figures_and_notices_a_taken_port() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("redis.port={}", taken.local_addr().unwrap().port());
    let data = dir.path().to_str().unwrap();
    let args = ["doctor", "--json", "--data-dir", data, "--set", &port, "--set", "admin.port=0"];
    let output = run(&args);
    assert_eq!(code(&output), 1, "a port that is taken must be mended");
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = |name: &str| findings.iter().find(|finding| finding["name"] == name).unwrap();
    assert_eq!(finding("redis port")["verdict"], "bad");
    assert!(finding("disk syncs")["figures"][0]["value"].as_u64().unwrap() > 0);
    assert_eq!(report["verdict"], "bad");
}
