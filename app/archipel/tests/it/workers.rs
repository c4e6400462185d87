//! A node of two workers is one node to its clients: even keyspaces are of one worker, odd ones of the
//! other, and clients are taken by both in turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::process::{Node, PATIENCE};

const TWO: [&str; 2] = ["--set", "storage.workers=2"];

struct Client(BufReader<TcpStream>);

impl Client {
    fn of(node: &Node) -> Client {
        let stream = TcpStream::connect(node.redis).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn send(&mut self, command: &str) {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    /// Reads as many bytes as are expected.
    fn gets(&mut self, expected: &str, of: &str) {
        let mut bytes = vec![0; expected.len()];
        self.0.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), expected, "{of}");
    }

    fn asks(&mut self, table: &[(&str, &str)]) {
        for (command, expected) in table {
            self.send(command);
            self.gets(expected, command);
        }
    }

    /// The text that a command answers.
    fn text(&mut self, command: &str) -> String {
        self.send(command);
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let length: usize = line.trim_end().strip_prefix('$').expect(&line).parse().unwrap();
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

#[test]
fn clients_of_both_workers_use_the_keyspaces_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &TWO);
    let (mut a, mut b) = (Client::of(&node), Client::of(&node));
    for (client, expected) in [(&mut a, ":1\r\n+OK\r\n:1\r\n"), (&mut b, ":2\r\n+OK\r\n:2\r\n")] {
        client.asks(&[("SELECT 0", "+OK\r\n"), ("INCR n", ""), ("SELECT 1", ""), ("INCR n", "")]);
        // The other begins only then: nothing orders what two workers do at the same time.
        client.gets(expected, "pipelined");
    }
    // A transaction, a script and watches, here and there.
    for db in ["SELECT 0", "SELECT 1"] {
        let (client, other) = (&mut a, &mut b);
        client.asks(&[
            (db, "+OK\r\n"),
            ("WATCH w", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET w 1", "+QUEUED\r\n"),
            ("GET w", "+QUEUED\r\n"),
            ("EXEC", "*2\r\n+OK\r\n$1\r\n1\r\n"),
            ("WATCH w", "+OK\r\n"),
        ]);
        other.asks(&[(db, "+OK\r\n"), ("SET w 2", "+OK\r\n")]);
        client.asks(&[("MULTI", "+OK\r\n"), ("GET w", "+QUEUED\r\n"), ("EXEC", "*-1\r\n")]);
        client.asks(&[("EVAL \"return redis.call('get', KEYS[1])\" 1 w", "$1\r\n2\r\n")]);
    }
    // A watch here decides an EXEC there.
    a.asks(&[("SELECT 0", "+OK\r\n"), ("WATCH w", "+OK\r\n"), ("SELECT 1", "+OK\r\n"), ("MULTI", "+OK\r\n")]);
    b.asks(&[("SELECT 0", "+OK\r\n"), ("SET w 3", "+OK\r\n")]);
    a.asks(&[("SET x 1", "+QUEUED\r\n"), ("EXEC", "*-1\r\n"), ("EXISTS x", ":0\r\n")]);
    a.asks(&[("MOVE w 3", ":1\r\n"), ("SELECT 3", "+OK\r\n"), ("GET w", "$1\r\n2\r\n")]);
    b.asks(&[("FLUSHALL", "+OK\r\n"), ("DBSIZE", ":0\r\n"), ("SELECT 1", "+OK\r\n"), ("DBSIZE", ":0\r\n")]);
    node.stop();
}

#[test]
fn waits_messages_and_clients_are_the_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &TWO);
    let (mut a, mut b, mut c) = (Client::of(&node), Client::of(&node), Client::of(&node));
    for (waiting, pushing) in [(0, 1), (1, 0)] {
        let clients = [&mut a, &mut b];
        clients[waiting].send("BLPOP list 0");
        node.until("it waits", |node| {
            node.redis("INFO clients\r\n").starts_with('$') && {
                let mut probe = Client::of(node);
                probe.text("INFO clients").contains("blocked_clients:1")
            }
        });
        clients[pushing].asks(&[("RPUSH list x", ":1\r\n")]);
        clients[waiting].gets("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n", "BLPOP");
        clients[waiting].asks(&[("BLPOP list 0.05", "*-1\r\n")]);
    }
    for client in [&mut a, &mut b] {
        client.asks(&[("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")]);
    }
    c.asks(&[("PUBLISH news hi", ":2\r\n"), ("PUBSUB NUMSUB news", "*2\r\n$4\r\nnews\r\n:2\r\n")]);
    for client in [&mut a, &mut b] {
        client.gets("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n", "a message");
    }
    assert_eq!(c.text("CLIENT LIST TYPE pubsub").matches("id=").count(), 2);
    c.asks(&[("CLIENT KILL TYPE pubsub", ":2\r\n"), ("CONFIG SET timeout 77", "+OK\r\n")]);
    for _ in 0..2 {
        let mut other = Client::of(&node);
        other.asks(&[("CONFIG GET timeout", "*2\r\n$7\r\ntimeout\r\n$2\r\n77\r\n")]);
    }
    node.stop();
}

#[test]
fn what_several_workers_wrote_is_there_with_any_number_of_them() {
    let dir = tempfile::tempdir().unwrap();
    for (round, workers) in ["storage.workers=2", "storage.workers=3", "storage.workers=1"].iter().enumerate()
    {
        let node = Node::start(dir.path(), &["--set", workers]);
        let mut client = Client::of(&node);
        for db in 0..16 {
            client.asks(&[(&format!("SELECT {db}"), "+OK\r\n"), ("INCR n", &format!(":{}\r\n", round + 1))]);
        }
        assert_eq!(node.metric("archipel_keyspace_keys{keyspace=\"db15\",id=\"15\"}"), Some(1.0));
        if round == 0 {
            // Killed: the log alone brings it back.
            node.signal("KILL");
            continue;
        }
        node.stop();
    }
}

#[test]
fn keyspaces_that_were_exchanged_stay_so_with_any_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let mut client = Client::of(&node);
    client.asks(&[
        ("SET n zero", "+OK\r\n"),
        ("SELECT 1", "+OK\r\n"),
        ("SET n one", "+OK\r\n"),
        ("SWAPDB 0 1", "+OK\r\n"),
        ("SWAPDB 1 2", "+OK\r\n"),
    ]);
    node.signal("KILL");
    node.wait();
    for (round, workers) in ["storage.workers=2", "storage.workers=3", "storage.workers=1"].iter().enumerate()
    {
        let node = Node::start(dir.path(), &["--set", workers]);
        let mut client = Client::of(&node);
        client.asks(&[
            ("GET n", "$3\r\none\r\n"),
            ("SELECT 1", "+OK\r\n"),
            ("GET n", "$-1\r\n"),
            ("SELECT 2", "+OK\r\n"),
            ("GET n", "$4\r\nzero\r\n"),
            ("INCR m", &format!(":{}\r\n", round + 1)),
        ]);
        if workers.ends_with('1') {
            client.asks(&[("SWAPDB 0 2", "+OK\r\n"), ("GET n", "$3\r\none\r\n")]);
        } else {
            client.asks(&[(
                "SWAPDB 0 2",
                "-ERR SWAPDB is offered with one worker only (storage.workers = 1)\r\n",
            )]);
        }
        node.stop();
    }
}
