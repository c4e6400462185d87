//! A keyspace that is larger than its memory: everything is answered, and bodies are read off the worker's
//! thread.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::process::{Node, PATIENCE};

const KEYS: usize = 3_000;
/// Commands on their way at once.
const DEPTH: usize = 50;

struct Client(BufReader<TcpStream>);

impl Client {
    fn of(node: &Node) -> Client {
        let stream = TcpStream::connect(node.redis).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    /// Sends `DEPTH` commands at a time and compares each answer.
    fn pipeline(&mut self, commands: impl Iterator<Item = (Vec<String>, String)>) {
        let all: Vec<_> = commands.collect();
        for some in all.chunks(DEPTH) {
            let mut bytes = String::new();
            for (words, _) in some {
                bytes.push_str(&format!("*{}\r\n", words.len()));
                words.iter().for_each(|word| bytes.push_str(&bulk(word)));
            }
            self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
            for (words, expected) in some {
                let mut answer = vec![0; expected.len()];
                self.0.read_exact(&mut answer).unwrap();
                assert_eq!(String::from_utf8_lossy(&answer), *expected, "{} {}", words[0], words[1]);
            }
        }
    }

    fn number(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

fn value(n: usize) -> String {
    format!("{n}:").repeat(400)
}

fn write(n: usize) -> (Vec<String>, String) {
    (words(&["SET", &format!("s{n}"), &value(n)]), "+OK\r\n".into())
}

fn read(n: usize) -> (Vec<String>, String) {
    (words(&["GET", &format!("s{n}")]), bulk(&value(n)))
}

/// One command on each of as many hashes.
fn hashes(command: impl Fn(usize) -> (Vec<String>, String)) -> impl Iterator<Item = (Vec<String>, String)> {
    (0..KEYS / 4).map(command)
}

#[test]
fn data_larger_than_its_budget_is_answered_without_the_worker_waiting() {
    for workers in ["1", "2"] {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("archipel.toml");
        std::fs::write(&config, "[[keyspace]]\nid = 0\nmemory = \"1MiB\"\n").unwrap();
        let workers = format!("storage.workers={workers}");
        let flags = ["--config", config.to_str().unwrap(), "--set", &workers];
        let node = Node::start(&dir.path().join("data"), &flags);
        // Two clients, so that with two workers one is another worker's than the keyspace.
        let (mut first, mut second) = (Client::of(&node), Client::of(&node));
        first.pipeline((0..KEYS).map(write));
        let field = |n: usize| (words(&["HSET", &format!("h{n}"), "f", &value(n)]), ":1\r\n".into());
        second.pipeline(hashes(field));
        node.until("bodies leave", |node| {
            node.metric("archipel_evicted_bytes_total").is_some_and(|bytes| bytes > 2e6)
        });
        for client in [&mut first, &mut second] {
            client.pipeline((0..KEYS).rev().map(read));
            client.pipeline(hashes(|n| (words(&["HGET", &format!("h{n}"), "f"]), bulk(&value(n)))));
        }
        let more = |n| (words(&["HSET", &format!("h{n}"), "g", "1"]), ":1\r\n".into());
        first.pipeline(hashes(more));
        second.pipeline(hashes(|n| (words(&["HLEN", &format!("h{n}")]), ":2\r\n".into())));
        assert_eq!(second.number("DBSIZE"), format!(":{}\r\n", KEYS + KEYS / 4));
        let count = |name: &str| node.metric(name).unwrap_or(f64::NAN);
        let (all, waited) = (count("archipel_misses_total"), count("archipel_blocking_misses_total"));
        assert!(all > KEYS as f64, "{all} bodies were read back");
        // A body may leave between its arrival and a write that is synced later.
        assert!(waited * 20.0 < all, "for {waited} of {all} bodies the worker waited");
        node.stop();
    }
}
