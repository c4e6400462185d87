//! A store with a clock one can turn: command lines in, RESP2 as one line of text out.
//!
//! Replies read as: `OK` a status, `-ERR …` an error, `:1` an integer, `"a\r\n"` a byte string, `nil` a
//! null byte string, `nil*` a null array, `[:1 "a"]` an array.
//!
//! With `REDIS_ORACLE=host:port` in the environment each table also runs against that redis-server
//! (whose database 15 it flushes), so that what the tables expect is what Redis does.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernel::{Index, Micros};
use storage::apply::NoScripts;
use storage::apply::{Machinery, apply_command, apply_entry};
use storage::command::Kind;
use storage::command::dump::payload;
use storage::entry::put_command;
use storage::object::number::parse_float;
use storage::object::zset::Score;
use storage::object::{Hash, List, Set, Zset};
use storage::store::{LongId, Typed};
use storage::{Effects, Registry, Reply, Store};

/// A store that logs what it applies.
pub struct Db {
    /// The state.
    pub store: Store,
    /// What the last commands asked of their host.
    pub effects: Effects,
    registry: Registry,
    index: u64,
    now: Micros,
    log: Vec<(Index, Micros, Vec<u8>)>,
}

impl Default for Db {
    fn default() -> Db {
        Db::new()
    }
}

impl Db {
    /// An empty store at a fixed moment.
    pub fn new() -> Db {
        Db {
            store: Store::new(7),
            effects: Effects::default(),
            registry: Registry::new(),
            index: 0,
            now: Micros(1_700_000_000_000_000),
            log: Vec::new(),
        }
    }

    /// Lets `millis` pass.
    pub fn advance(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
    }

    /// The clock of the entries that follow is behind: they were stamped before.
    pub fn retreat(&mut self, millis: u64) {
        self.now = Micros(self.now.0 - 1000 * millis);
    }

    /// Begins a read in slices of `slice` steps: it is answered at once, or goes on.
    pub fn begin(&mut self, line: &str, slice: usize) -> Result<String, Long> {
        self.effects.slice = Some(slice);
        let answered = self.run(line);
        self.effects.slice = None;
        match self.effects.long.take() {
            None => Ok(answered),
            Some(id) => Err(Long { id, reply: Resp2::default() }),
        }
    }

    /// Goes on with a read for a slice; its reply when it is whole, and the steps that were left.
    pub fn go_on(&mut self, long: &mut Long, steps: usize) -> (Option<String>, usize) {
        let went = self.store.go_on(long.id, steps, &mut long.reply);
        (went.done.then(|| render(&mut long.reply.0.as_slice())), went.left)
    }

    /// Runs one command line and renders its reply; an empty text if it blocked.
    pub fn run(&mut self, line: &str) -> String {
        let words = split(line);
        if words.first().is_some_and(|word| word == b"%advance") {
            self.advance(String::from_utf8_lossy(&words[1]).parse().expect("%advance takes milliseconds"));
            return String::from("OK");
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.run_words(&words)
    }

    /// Runs one command and renders its reply.
    pub fn run_words(&mut self, words: &[&[u8]]) -> String {
        let (name, args) = words.split_first().expect("a command has a name");
        let Some(command) = self.registry.find(name) else {
            if let Some(reply) = self.make_container(name, args) {
                return reply;
            }
            return format!("-ERR unknown command '{}'", String::from_utf8_lossy(name));
        };
        self.run_command(command, args)
    }

    /// Runs the reading command with this number, which no client may send, and renders its reply.
    pub fn run_id(&mut self, id: u16, args: &[&[u8]]) -> String {
        let command = self.registry.by_id(id).expect("there is such a command");
        self.run_command(command, args)
    }

    fn run_command(&mut self, command: &'static storage::Command, args: &[&[u8]]) -> String {
        let mut resp = Resp2::default();
        let index = Index(self.index + 1);
        if command.kind == Kind::Write {
            let mut body = Vec::new();
            put_command(&mut body, command.id, args);
            self.log.push((index, self.now, body));
            self.index += 1;
            self.store.begin_entry(index, self.now);
        } else {
            self.store.begin_reads(self.now);
        }
        let mut machinery =
            Machinery { registry: &self.registry, scripting: &mut NoScripts, effects: &mut self.effects };
        apply_command(&mut self.store, &mut machinery, (index, 0), command, args, &mut resp);
        if command.kind == Kind::Write {
            self.store.end_entry();
        }
        if resp.0.is_empty() {
            return String::new();
        }
        let mut reader = resp.0.as_slice();
        let text = render(&mut reader);
        assert!(reader.is_empty(), "{command:?} answered more than once: {text}, then {reader:?}");
        text
    }

    /// Makes a whole new list, set, hash or sorted set, where the table of commands does not know how.
    fn make_container(&mut self, name: &[u8], args: &[&[u8]]) -> Option<String> {
        let hasher = self.store.hasher();
        let (key, rest) = args.split_first()?;
        let (value, count) = match name {
            b"lpush" | b"rpush" => {
                let mut list = List::new();
                rest.iter().for_each(|element| match name {
                    b"lpush" => list.push_front(element),
                    _ => list.push_back(element),
                });
                (list.into_value(), rest.len())
            }
            b"sadd" => {
                let mut set = Set::new();
                for member in rest {
                    set.insert(member, &hasher);
                }
                let count = set.len();
                (set.into_value(), count)
            }
            b"hset" => {
                let mut hash = Hash::new();
                for pair in rest.chunks_exact(2) {
                    hash.set(pair[0], pair[1], &hasher);
                }
                let count = hash.len();
                (hash.into_value(), count)
            }
            b"zadd" => {
                let mut zset = Zset::new();
                for pair in rest.chunks_exact(2) {
                    let score = parse_float(pair[0]).and_then(Score::new).expect("a score");
                    zset.insert(pair[1], score, &hasher);
                }
                let count = zset.len();
                (zset.into_value(), count)
            }
            _ => return None,
        };
        assert_eq!(self.run_words(&[b"restore", key, b"0", &payload(&value)]), "OK");
        Some(format!(":{count}"))
    }

    /// A new store made from this one's log alone.
    pub fn replayed(&self) -> Db {
        let mut db = Db::new();
        for (index, time, body) in &self.log {
            let mut machinery =
                Machinery { registry: &db.registry, scripting: &mut NoScripts, effects: &mut db.effects };
            apply_entry(&mut db.store, &mut machinery, *index, *time, body).expect("our own log is readable");
        }
        db.index = self.index;
        db.now = self.now;
        db
    }

    /// Every key with its type and expiry, and what its `DUMP` says, in the order of `SCAN`.
    pub fn contents(&mut self) -> Vec<String> {
        self.store.begin_reads(self.now);
        let (mut keys, mut cursor) = (Vec::new(), 0);
        loop {
            cursor = self.store.scan(cursor, 100, &mut |key, kind| keys.push((key.to_vec(), kind)));
            if cursor == 0 {
                break;
            }
        }
        let line = |(key, kind): (Vec<u8>, storage::object::Type)| {
            let expiry = self.store.expiry(&key);
            let dump = self.run_words(&[b"dump", &key]);
            format!("{} {} {expiry:?} {dump}", key.escape_ascii(), kind.name())
        };
        keys.into_iter().map(line).collect()
    }
}

/// Runs each table row (a command line and its expected reply) in order on one new store; then
/// replays its log and compares the states. With an oracle, runs the rows against Redis too.
pub fn check(table: &[(&str, &str)]) {
    let mut oracle = Oracle::from_environment();
    let mut db = Db::new();
    for (row, (line, expected)) in table.iter().enumerate() {
        if let Some(oracle) = &mut oracle {
            assert_eq!(oracle.run(line), *expected, "Redis, row {row}: {line}");
        }
        assert_eq!(db.run(line), *expected, "row {row}: {line}");
    }
    assert_eq!(db.replayed().contents(), db.contents(), "replay gives another state");
}

/// As [`check`], for rows where Archipel differs from Redis on purpose.
pub fn check_ours(table: &[(&str, &str)]) {
    let mut db = Db::new();
    for (row, (line, expected)) in table.iter().enumerate() {
        assert_eq!(db.run(line), *expected, "row {row}: {line}");
    }
    assert_eq!(db.replayed().contents(), db.contents(), "replay gives another state");
}

/// A redis-server to compare with.
pub struct Oracle {
    replies: BufReader<TcpStream>,
    _turn: MutexGuard<'static, ()>,
}

/// Tests run side by side; the oracle serves one at a time.
static TURN: Mutex<()> = Mutex::new(());

impl Oracle {
    /// The server named by `REDIS_ORACLE`, its database 15 emptied.
    #[expect(clippy::disallowed_methods, reason = "only by hand, to learn what Redis answers")]
    pub fn from_environment() -> Option<Oracle> {
        let address = std::env::var("REDIS_ORACLE").ok()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = TcpStream::connect(&address).expect("REDIS_ORACLE names a running server");
        let mut oracle = Oracle { replies: BufReader::new(stream), _turn: turn };
        oracle.run("select 15");
        oracle.run("flushdb");
        Some(oracle)
    }

    /// Its reply to one command line.
    pub fn run(&mut self, line: &str) -> String {
        let words = split(line);
        if words[0] == b"%advance" {
            let millis = String::from_utf8_lossy(&words[1]).parse().expect("%advance takes milliseconds");
            std::thread::sleep(std::time::Duration::from_millis(millis));
            return String::from("OK");
        }
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.replies.get_mut().write_all(&request).expect("the oracle reads");
        render(&mut self.replies)
    }
}

/// The words of a line as redis-cli splits them: `"…"` with escapes, `'…'` without.
pub fn split(line: &str) -> Vec<Vec<u8>> {
    let (mut words, mut bytes) = (Vec::new(), line.bytes().peekable());
    loop {
        while bytes.next_if_eq(&b' ').is_some() {}
        let Some(first) = bytes.next() else { return words };
        let mut word = Vec::new();
        match first {
            b'"' => loop {
                match bytes.next().expect("a quote is closed") {
                    b'"' => break,
                    b'\\' => word.push(escaped(&mut bytes)),
                    byte => word.push(byte),
                }
            },
            b'\'' => word.extend(bytes.by_ref().take_while(|&byte| byte != b'\'')),
            byte => {
                word.push(byte);
                while let Some(byte) = bytes.next_if(|&byte| byte != b' ') {
                    word.push(byte);
                }
            }
        }
        words.push(word);
    }
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next().expect("an escape names a byte") {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
            let digits = std::str::from_utf8(&digits).expect("hexadecimal digits");
            u8::from_str_radix(digits, 16).expect("hexadecimal digits")
        }
        byte => byte,
    }
}

/// Reads one RESP2 value and writes it as one line.
pub fn render(input: &mut impl BufRead) -> String {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).expect("a reply");
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r\n").expect("a line")).into_owned();
    let length = text[1..].parse::<i64>();
    match text.as_bytes()[0] {
        b'+' => text[1..].to_owned(),
        b'-' | b':' => text,
        b'$' => match usize::try_from(length.expect("a length")) {
            Err(_) => String::from("nil"),
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                input.read_exact(&mut bytes).expect("a whole byte string");
                format!("\"{}\"", bytes[..length].escape_ascii().to_string().replace("\\'", "'"))
            }
        },
        b'*' => match usize::try_from(length.expect("a length")) {
            Err(_) => String::from("nil*"),
            Ok(length) => {
                let items: Vec<String> = (0..length).map(|_| render(input)).collect();
                format!("[{}]", items.join(" "))
            }
        },
        other => panic!("RESP2 has no type {other}"),
    }
}

/// A read that goes on in slices, and what it has answered so far.
pub struct Long {
    /// Its name.
    pub id: LongId,
    reply: Resp2,
}

/// Encodes replies as RESP2 does.
#[derive(Default)]
pub struct Resp2(pub Vec<u8>);

impl Resp2 {
    fn line(&mut self, sign: char, text: &str) {
        self.0.extend_from_slice(format!("{sign}{text}\r\n").as_bytes());
    }
}

impl Reply for Resp2 {
    fn simple(&mut self, text: &str) {
        self.line('+', text);
    }
    fn error(&mut self, text: &str) {
        self.line('-', &text.replace(['\r', '\n'], " "));
    }
    fn int(&mut self, value: i64) {
        self.line(':', &value.to_string());
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.line('$', &bytes.len().to_string());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
    }
    fn raw(&mut self, resp: &[u8]) {
        self.0.extend_from_slice(resp);
    }
    fn null(&mut self) {
        self.line('$', "-1");
    }
    fn null_array(&mut self) {
        self.line('*', "-1");
    }
    fn array(&mut self, len: usize) {
        self.line('*', &len.to_string());
    }
    fn map(&mut self, len: usize) {
        self.array(2 * len);
    }
    fn set(&mut self, len: usize) {
        self.array(len);
    }
    fn double(&mut self, value: f64) {
        let mut text = storage::object::number::Text::new();
        self.bulk(text.double(value));
    }
    fn boolean(&mut self, value: bool) {
        self.int(i64::from(value));
    }
    fn resp3(&self) -> bool {
        false
    }
}
