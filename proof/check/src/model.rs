//! The reference: one group's entries applied again, one command at a time, with their replies kept.

use gateway::resp::RespReply;
use kernel::codec::Reader;
use kernel::{Index, Micros, Rng};
use script::LuaEngine;
use storage::apply::{Machinery, Origin, apply_command};
use storage::command::list_blocking::RETRY;
use storage::entry::{Args, next_command, put_command};
use storage::{Effects, Exec, Store};
use wire::resp::Encoder;

/// One command that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The command as it stands in the entry.
    pub encoded: Vec<u8>,
    /// Its reply; `None` if it waits.
    pub reply: Option<Vec<u8>>,
    /// The keys it changed; a flush changes those that are there.
    pub touched: Vec<Vec<u8>>,
}

/// The state of one group by the log alone.
pub struct Model {
    store: Store,
    registry: storage::Registry,
    effects: Effects,
    scripting: LuaEngine,
    seed: u64,
}

impl Model {
    /// The state before the first entry of a group whose data has `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Model {
        let mut store = Store::new(seed);
        store.set_interest(true);
        Model {
            store,
            registry: storage::Registry::new(),
            effects: Effects::default(),
            scripting: LuaEngine::new(),
            seed,
        }
    }

    /// The same before the first entry again.
    pub fn reset(&mut self) {
        self.store = Store::new(self.seed);
        self.store.set_interest(true);
    }

    /// The last entry applied.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.store.applied()
    }

    /// The state as one number.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.store.digest().expect("a model evicts nothing")
    }

    /// Begins entry `index`; what its time makes expire is gone after this. Returns the keys that went.
    pub fn begin(&mut self, index: Index, time: Micros) -> Vec<Vec<u8>> {
        self.store.begin_entry(index, time);
        self.touched(Vec::new())
    }

    /// Applies the next command of the entry; `place` counts them from 0. `None` at the end, or if this
    /// version cannot read what follows.
    pub fn run(&mut self, index: Index, place: u32, body: &mut Reader<'_>) -> Option<Ran> {
        if body.is_empty() {
            return None;
        }
        let before = body.rest();
        let mut args = Args::new();
        let id = next_command(body, &mut args).ok()?;
        let command = self.registry.by_id(id)?;
        // Another try of a waiting client's command stands for that command.
        let whole = &before[..before.len() - body.rest().len()];
        let encoded = if id == RETRY { args[0].to_vec() } else { whole.to_vec() };
        self.store.resume_entry();
        let mut there = Vec::new();
        self.store.visit_all(&mut |key| there.push(key.to_vec()));
        let mut machinery = Machinery {
            registry: &self.registry,
            scripting: &mut self.scripting,
            effects: &mut self.effects,
        };
        let mut reply = Vec::new();
        let mut encoder = RespReply(Encoder::new(&mut reply, false));
        apply_command(&mut self.store, &mut machinery, (index, place), command, &args, &mut encoder);
        let waits = self.effects.block.take().is_some();
        let touched = self.touched(there);
        Some(Ran { encoded, reply: (!waits).then_some(reply), touched })
    }

    /// Ends the entry.
    pub fn end(&mut self) {
        self.store.end_entry();
    }

    fn touched(&mut self, there: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let flushed = self.store.take_touched(&mut keys);
        let keys = keys.into_iter().map(|key| key.to_vec());
        if flushed { keys.chain(there).collect() } else { keys.collect() }
    }

    /// What the encoded read answers now, at the clock `now`, and whether it depends on an expiry that
    /// no entry's time has reached.
    pub fn read(&mut self, now: Micros, encoded: &[u8]) -> (Vec<u8>, bool) {
        self.store.begin_reads(now);
        let mut args = Args::new();
        let id = next_command(&mut Reader::new(encoded), &mut args).expect("the judge encoded it");
        let command = self.registry.by_id(id).expect("the judge knows the command");
        let mut bytes = Vec::new();
        let mut reply = RespReply(Encoder::new(&mut bytes, false));
        let mut exec = Exec {
            store: &mut self.store,
            reply: &mut reply,
            effects: &mut self.effects,
            registry: &self.registry,
            scripting: Some(&mut self.scripting),
            rng: Rng::new(0),
            origin: Origin::Direct,
        };
        exec.run(command, &args);
        (bytes, self.store.observed_unlogged_expiry())
    }

    /// Whether the encoded blocking command on lists would find something to take.
    pub fn would_serve(&mut self, encoded: &[u8]) -> bool {
        let mut args = Args::new();
        let id = next_command(&mut Reader::new(encoded), &mut args).expect("the judge encoded it");
        let command = self.registry.by_id(id).expect("the judge knows the command");
        let length = self.registry.find(b"llen").expect("who knows blocking pops knows lengths");
        let sources = if command.name == "blmove" { 1 } else { usize::MAX };
        let keys: Vec<&[u8]> =
            command.key_positions(&args).iter().take(sources).map(|&at| args[at]).collect();
        keys.into_iter().any(|key| {
            let mut encoded = Vec::new();
            put_command(&mut encoded, length.id, &[key]);
            let (reply, _) = self.read(Micros(0), &encoded);
            reply.starts_with(b":") && reply != b":0\r\n"
        })
    }

    /// All commands.
    #[must_use]
    pub const fn registry(&self) -> &storage::Registry {
        &self.registry
    }
}
