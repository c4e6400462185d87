//! A store with an engine, and answers as short text.

use kernel::{Index, Micros};
use script::LuaEngine;
use storage::apply::{Effects, Machinery, apply_command};
use storage::{Registry, Reply, Store};

/// Writes answers like `redis-cli --no-raw` would, on one line.
#[derive(Default)]
pub struct Collector {
    pub text: String,
    pub resp3: bool,
}

impl Collector {
    fn word(&mut self, word: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(word);
    }
}

impl Reply for Collector {
    fn raw(&mut self, encoded: &[u8]) {
        self.bulk(encoded);
    }

    fn simple(&mut self, text: &str) {
        self.word(&format!("+{text}"));
    }
    fn error(&mut self, text: &str) {
        self.word(&format!("-{text}"));
    }
    fn int(&mut self, value: i64) {
        self.word(&format!(":{value}"));
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.word(&format!("\"{}\"", bytes.escape_ascii()));
    }
    fn null(&mut self) {
        self.word("nil");
    }
    fn null_array(&mut self) {
        self.word("nil*");
    }
    fn array(&mut self, len: usize) {
        self.word(&format!("*{len}"));
    }
    fn map(&mut self, len: usize) {
        self.word(&format!("%{len}"));
    }
    fn set(&mut self, len: usize) {
        self.word(&format!("~{len}"));
    }
    fn double(&mut self, value: f64) {
        self.word(&format!(",{value}"));
    }
    fn boolean(&mut self, value: bool) {
        self.word(if value { "#t" } else { "#f" });
    }
    fn resp3(&self) -> bool {
        self.resp3
    }
}

/// One partition.
pub struct Node {
    pub store: Store,
    pub engine: LuaEngine,
    pub effects: Effects,
    registry: Registry,
    index: u64,
}

impl Node {
    pub fn new() -> Node {
        Node {
            store: Store::new(7),
            engine: LuaEngine::new().with_instructions(20_000_000),
            effects: Effects::default(),
            registry: Registry::new(),
            index: 0,
        }
    }

    /// Applies one command as an entry of its own.
    pub fn run(&mut self, words: &[&[u8]]) -> String {
        self.index += 1;
        let index = Index(self.index);
        self.store.begin_entry(index, Micros(1_700_000_000_123_456 + self.index * 1000));
        let (command, args) = self.registry.resolve(words[0], &words[1..]).expect("the command exists");
        let mut reply = Collector::default();
        let mut machinery =
            Machinery { registry: &self.registry, scripting: &mut self.engine, effects: &mut self.effects };
        apply_command(&mut self.store, &mut machinery, (index, 0), command, args, &mut reply);
        self.store.end_entry();
        reply.text
    }

    /// `EVAL body 1 key a b`.
    pub fn eval(&mut self, body: &str) -> String {
        self.run(&[b"eval", body.as_bytes(), b"1", b"key", b"a", b"b"])
    }
}
