//! The Redis port: the request parser, then a whole worker that two clients send arbitrary bytes in arbitrary
//! pieces. Split anywhere is the same as whole; nothing panics; every reply is RESP.
#![no_main]

use consensus::{Durability, Solo};
use fuzz::{Bytes, reply};
use journal::record::Record;
use kernel::{ConnId, GroupId, Index, KeyspaceId, Lsn, Micros, Term};
use node::{AppendError, LogSink, Partition, Settings, Worker};
use std::net::SocketAddr;
use std::sync::OnceLock;
use storage::apply::NoScripts;
use storage::{Registry, Store};
use wire::resp::Parser;

const START: Micros = Micros(1_700_000_000_000_000);
/// Commands that make a long string of a short offset; the fuzzer is not to find that again and again.
const GROWING: &[&[u8]] = &[b"setrange", b"setbit", b"bitfield"];
/// Replies that one input may cause; more says nothing new.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if grows(data) {
        return;
    }
    let mut input = Bytes::new(data);
    match input.byte() % 4 {
        0 => parser(&mut input),
        _ => worker(&mut input),
    }
});

/// A growing command and a number of more than six digits are somewhere in it.
fn grows(data: &[u8]) -> bool {
    let mut run = 0;
    let long = data.iter().any(|byte| {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        run > 6
    });
    let has = |name: &&[u8]| data.windows(name.len()).any(|word| word.eq_ignore_ascii_case(name));
    long && GROWING.iter().any(has)
}

fn parser(input: &mut Bytes<'_>) {
    let trusted = input.byte() % 4 != 0;
    let step = usize::from(input.byte()) % 16 + 1;
    let bytes = input.rest();
    let whole = commands(bytes, bytes.len().max(1), trusted);
    let split = commands(bytes, step, trusted);
    assert_eq!(whole, split, "split every {step} bytes");
}

/// All commands of `bytes`, arriving `step` at a time, and how the stream ends.
fn commands(bytes: &[u8], step: usize, trusted: bool) -> (Vec<Vec<Vec<u8>>>, Result<usize, String>) {
    let (mut parser, mut found, mut from, mut have) = (Parser::default(), Vec::new(), 0, 0);
    while have < bytes.len() {
        have = (have + step).min(bytes.len());
        loop {
            let rest = &bytes[from..have];
            match parser.parse(rest, trusted) {
                Ok(None) => break,
                Ok(Some(taken)) => {
                    assert!((1..=rest.len()).contains(&taken), "a command takes what is there");
                    found.push(parser.args(&rest[..taken]).iter().map(|arg| arg.to_vec()).collect());
                    from += taken;
                }
                Err(error) => return (found, Err(error.to_string())),
            }
        }
    }
    (found, Ok(from))
}

/// A log in memory: it only counts, and is full when told so.
#[derive(Default)]
struct Log {
    end: u64,
    full: bool,
}

impl LogSink for Log {
    fn append(&mut self, records: &[Record<'_>], _: Durability) -> Result<Lsn, AppendError> {
        if self.full {
            return Err(AppendError::Full);
        }
        self.end += records.len() as u64;
        Ok(Lsn(self.end))
    }
}

struct Client {
    id: ConnId,
    output: Vec<u8>,
}

struct Host {
    worker: Worker,
    log: Log,
    now: Micros,
    clients: Vec<Client>,
    written: usize,
}

impl Host {
    fn new() -> Host {
        let partitions = (0..4).map(|id| {
            let group = Solo::new(Term(1), Index(0), Durability::Always);
            Partition::new(GroupId::new(KeyspaceId(id), 0), Store::new(7), group)
        });
        let settings = Settings { started: START, ..Settings::default() };
        let worker = Worker::new(settings, partitions.collect(), Box::new(NoScripts), 7);
        let mut host = Host { worker, log: Log::default(), now: START, clients: Vec::new(), written: 0 };
        for _ in 0..2 {
            let client = host.connect();
            host.clients.push(client);
        }
        host
    }

    fn connect(&mut self) -> Client {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000));
        let id = self.worker.connect(self.now, peer).expect("two clients fit");
        Client { id, output: Vec::new() }
    }

    fn end_turn(&mut self) {
        self.worker.end_turn(self.now, &mut self.log);
        self.worker.turn_took(self.now, 10);
    }

    fn sync(&mut self) {
        self.worker.synced(Lsn(self.log.end));
    }

    /// Takes what a client is to be sent; a client that is to be closed is replaced by a new one.
    fn take(&mut self, at: usize) {
        let id = self.clients[at].id;
        let (out, closing) = self.worker.output(id).expect("only the host disconnects");
        self.written += out.len();
        self.clients[at].output.append(out);
        if closing {
            self.leave(at);
        } else {
            self.worker.drained(id);
        }
    }

    fn leave(&mut self, at: usize) {
        self.judge(at);
        self.worker.disconnect(self.clients[at].id);
        self.clients[at] = self.connect();
    }

    fn judge(&self, at: usize) {
        if let Err(what) = reply::check(&self.clients[at].output) {
            panic!("the replies are not RESP {what}");
        }
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        let id = self.clients[at].id;
        // As the event loop does: a client that must wait is not read.
        if self.worker.wants_input(id) {
            self.worker.receive(self.now, id, bytes);
        }
    }
}

fn worker(input: &mut Bytes<'_>) {
    let mut host = Host::new();
    while !input.is_empty() && host.written < OUTPUT_BYTES_MAX {
        let op = input.byte();
        let at = usize::from(op & 1);
        match op >> 1 & 15 {
            0..=3 => host.send(at, input.piece()),
            4..=9 => {
                let command = named(input);
                host.send(at, &command);
            }
            10 => host.take(at),
            11 => {
                host.now = host.now.plus_millis(input.u64() % 100_000);
                if host.worker.deadline().is_some_and(|deadline| deadline <= host.now) {
                    host.worker.wake(host.now);
                }
            }
            12 => match op >> 5 {
                0 => host.leave(at),
                1 => host.worker.end_of_input(host.clients[at].id),
                2 => host.log.full ^= true,
                3 => host.worker.set_stalled(usize::from(input.byte() % 4), op & 1 == 0),
                _ => host.sync(),
            },
            13 => host.end_turn(),
            _ => {
                host.end_turn();
                host.sync();
                host.end_turn();
                host.take(at);
            }
        }
        let (mut flush, mut requests) = (Vec::new(), Vec::new());
        host.worker.take_flush(&mut flush);
        host.worker.take_requests(&mut requests);
    }
    host.log.full = false;
    (0..4).for_each(|at| host.worker.set_stalled(at, false));
    for _ in 0..4 {
        host.end_turn();
        host.sync();
        (0..2).for_each(|at| host.take(at));
    }
    (0..2).for_each(|at| host.judge(at));
}

/// A command that exists, as RESP, with arguments that are often keys and options that others use too.
fn named(input: &mut Bytes<'_>) -> Vec<u8> {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let registry = Registry::new();
        let store = registry.iter().map(|command| command.name.replace('|', " "));
        store.chain(SESSION.iter().map(|&name| name.to_owned())).collect()
    });
    let name = &names[(usize::from(input.byte()) << 8 | usize::from(input.byte())) % names.len()];
    let mut words: Vec<&[u8]> = name.split(' ').map(str::as_bytes).collect();
    for _ in 0..input.byte() % 8 {
        words.push(fuzz::word(input));
    }
    let grows = GROWING.iter().any(|growing| words[0] == *growing);
    if grows && words.iter().any(|word| word.len() > 6 && word.iter().any(u8::is_ascii_digit)) {
        return Vec::new();
    }
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// What sessions answer themselves.
const SESSION: &[&str] = &[
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "select",
    "hello 3",
    "hello 2",
    "hello",
    "auth",
    "reset",
    "quit",
    "ping",
    "echo",
    "subscribe",
    "unsubscribe",
    "psubscribe",
    "punsubscribe",
    "publish",
    "pubsub channels",
    "pubsub numsub",
    "pubsub numpat",
    "client id",
    "client list",
    "client kill",
    "client pause",
    "client unpause",
    "client unblock",
    "client setname",
    "client getname",
    "client reply",
    "client info",
    "client no-evict",
    "client setinfo",
    "config get",
    "config set",
    "config resetstat",
    "config rewrite",
    "info",
    "command",
    "command docs",
    "command info",
    "command count",
    "command getkeys",
    "command list",
    "time",
    "move",
    "copy",
    "swapdb",
    "flushall",
    "flushdb",
    "dbsize",
    "memory usage",
    "memory doctor",
    "object encoding",
    "object freq",
    "object idletime",
    "object refcount",
    "debug sleep",
    "debug object",
    "slowlog get",
    "slowlog len",
    "slowlog reset",
    "latency latest",
    "latency history",
    "latency reset",
    "latency doctor",
    "wait",
    "role",
    "save",
    "bgsave",
    "lastsave",
    "acl whoami",
    "acl list",
    "acl cat",
    "acl users",
    "script load",
    "script exists",
    "script flush",
    "xadd",
    "geoadd",
    "pfadd",
    "cluster info",
    "shutdown",
    "failover",
    "replicaof",
    "monitor",
];
