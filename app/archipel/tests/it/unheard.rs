//! Whoever reads what a command says may leave before its end, and whoever hears its talk too.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::process::{Node, PATIENCE, archipel, code, run, stderr};

const SIGPIPE: i32 = 13;

/// What a pipe takes that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs it with nobody who reads its stdout: how it ended, and what it said on stderr.
fn unread(mut command: Command) -> (ExitStatus, String) {
    let output = command.stdout(closed()).stderr(Stdio::piped()).output().unwrap();
    (output.status, stderr(&output))
}

#[test]
fn a_command_whose_output_nobody_reads_ends_quietly_by_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups").display().to_string();
    let node = Node::start(&dir.path().join("node"), &[]);
    assert_eq!(node.redis("SET some value\r\n"), "+OK");
    assert_eq!(code(&node.run(&["cluster", "backup", &backups])), 0);
    let table: [&[&str]; 14] = [
        &["config", "reference"],
        &["config", "check"],
        &["lab", "list"],
        &["lab", "list", "--json"],
        &["cluster", "backup", &backups],
        &["cluster", "backup", &backups, "--json"],
        &["cluster", "restore", &backups, "--list"],
        &["cluster", "restore", &backups, "--list", "--json"],
        &["cluster", "restore", &backups, "--verify"],
        &["node", "status"],
        &["storage", "get", "some"],
        &["storage", "scan"],
        &["storage", "scan", "--json"],
        &["storage", "export", "-"],
    ];
    for words in table {
        let heard = node.run(words);
        assert!(code(&heard) == 0 && !heard.stdout.is_empty(), "{words:?}: {}", stderr(&heard));
        let (ended, said) = unread(node.command(words));
        assert_eq!(ended.signal(), Some(SIGPIPE), "{words:?} ended with {ended}: {said}");
        assert!(!said.contains("panicked") && !said.contains("archipel:"), "{words:?}: {said}");
    }
    node.stop();
}

#[test]
fn output_that_cannot_be_written_for_another_reason_is_a_failure_that_is_told() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = archipel(&["config", "reference"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("the output cannot be written"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn talk_that_nobody_hears_changes_nothing() {
    let mut command = archipel(&["lab", "list"]);
    let output = command.stderr(closed()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, run(&["lab", "list"]).stdout);
    let mut command = archipel(&["config", "check", "no-such-file"]);
    let ended = command.stderr(closed()).output().unwrap().status;
    assert!(matches!(ended.code(), Some(1 | 2)), "{ended}");
}

#[test]
fn a_node_whose_messages_nobody_reads_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = SocketAddr::from(([127, 0, 0, 1], free.port()));
    let port = format!("admin.port={}", admin.port());
    let data = dir.path().display().to_string();
    let words = ["--data-dir", &data, "--set", &port, "--set", "redis.port=0", "--set", "cluster.port=0"];
    let mut command = archipel(&words);
    command.args(["--set", "cluster.redis_port=0", "--set", "storage.segment_bytes=1MiB", "node", "start"]);
    let mut node = command.stdout(closed()).stderr(closed()).spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(admin).is_err() {
        assert!(node.try_wait().unwrap().is_none(), "it ended");
        assert!(Instant::now() < end, "it does not serve");
        std::thread::yield_now();
    }
    let pid = node.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(node.wait().unwrap().code(), Some(0));
}
