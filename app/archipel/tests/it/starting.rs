//! What a node refuses to start with, and what it says.

use std::path::Path;

use crate::process::{Node, code, run, stderr};

#[test]
fn a_taken_port_names_the_flag_and_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for setting in ["redis.port", "admin.port"] {
        let data = dir.path().join(setting);
        let set = format!("{setting}={port}");
        let other = if setting == "redis.port" { "admin.port=0" } else { "redis.port=0" };
        let output = run(&["--data-dir", data.to_str().unwrap(), "--set", other, "--set", &set]);
        assert_eq!(code(&output), 1);
        for part in ["--port-offset", setting, &port.to_string()] {
            assert!(stderr(&output).contains(part), "{} lacks {part}", stderr(&output));
        }
    }
}

#[test]
fn a_data_directory_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let data = dir.path().to_str().unwrap();
    let second = run(&["--data-dir", data, "--set", "redis.port=0", "--set", "admin.port=0"]);
    assert_eq!(code(&second), 1);
    assert!(stderr(&second).contains("is in use by process"), "{}", stderr(&second));
    assert_eq!(node.redis("SET k v\r\n"), "+OK");
    node.stop();
}

#[test]
fn wrong_settings_are_usage_errors_with_the_next_step() {
    #[rustfmt::skip] // columns
    let table: [(&[&str], &str); 7] = [
        (&["--set", "redis.bind=0.0.0.0"],               "ARCHIPEL_REDIS__REQUIREPASS"),
        (&["--set", "admin.bind=0.0.0.0"],               "ssh -L"),
        (&["--port-offset", "7"],                        "a multiple of 10"),
        (&["--set", "redis.prot=1"],                     "redis.port"),
        (&["--set", "redis.port"],                       "KEY=VALUE"),
        (&["--config", "/nonexistent/archipel.toml"],    "/nonexistent/archipel.toml"),
        (&["storage", "fetch"],                          "unrecognized subcommand"),
    ];
    for (args, expected) in table {
        let output = run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

/// The test's certificate or key called `name`.
fn pem(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name).display().to_string()
}

#[test]
fn a_tls_port_serves_tls_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) =
        (format!("redis.tls_cert={}", pem("cert.pem")), format!("redis.tls_key={}", pem("key.pem")));
    let node = Node::start(dir.path(), &["--set", &cert, "--set", &key]);
    let set = node.run(&["storage", "set", "k", &"v".repeat(100_000)]);
    assert_eq!(code(&set), 0, "{}", stderr(&set));
    let get = node.run(&["storage", "get", "k"]);
    assert_eq!(get.stdout.len(), 100_001);
    assert_ne!(node.redis("PING\r\n"), "+PONG", "without TLS nobody is served");
    node.stop();
}

#[test]
fn wrong_tls_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    #[rustfmt::skip] // columns
    let table = [
        ("absent.pem", "key.pem",       "absent.pem"),
        ("key.pem",    "key.pem",       "has no certificate"),
        ("cert.pem",   "cert.pem",      "`redis.tls_key`"),
        ("cert.pem",   "other-key.pem", "cannot be used together"),
    ];
    for (cert, key, expected) in table {
        let (cert, key) = (format!("redis.tls_cert={}", pem(cert)), format!("redis.tls_key={}", pem(key)));
        let data = dir.path().to_str().unwrap();
        let ports = ["--set", "redis.port=0", "--set", "admin.port=0"];
        let output = run(&[&["--data-dir", data, "--set", &cert, "--set", &key], &ports[..]].concat());
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(expected), "{cert} {key}: {}", stderr(&output));
    }
}

#[test]
fn a_password_is_asked_for_and_our_own_commands_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("archipel.toml");
    std::fs::write(&config, "[[redis.users]]\nname = \"ann\"\npassword = \"s3cret\"\n").unwrap();
    let node = Node::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    assert!(node.redis("GET k\r\n").starts_with("-NOAUTH"));
    assert!(node.redis("AUTH ann wrong\r\n").starts_with("-WRONGPASS"));
    assert_eq!(node.redis("AUTH ann s3cret\r\n"), "+OK");
    assert_eq!(code(&node.run(&["storage", "set", "k", "v"])), 0);
    node.stop();
}
