//! `redis.call`: a script's commands against the store it runs on.

use std::rc::Rc;

use kernel::codec::Reader;
use mlua::{Lua, MultiValue, Value};
use storage::{Access, Command, Exec, Fault, Flags, Kind, Origin, Reply};

use crate::answer::{Recorder, Resp, to_lua};
use crate::meter::{Meter, REPLY_BYTES_MAX, Stop};
use crate::number::put_argument;

/// Instructions that a command counts as, besides the bytes of its answer.
const CALL_INSTRUCTIONS: u64 = 100;

const NOT_ALLOWED: &str = "ERR This Redis command is not allowed from script";

/// Commands of the session and the server that Redis refuses in scripts, too.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "acl", "auth", "bgrewriteaof", "bgsave", "client", "cluster", "config", "debug", "discard", "exec",
    "failover", "fcall", "fcall_ro", "function", "hello", "latency", "module", "monitor", "multi",
    "psubscribe", "psync", "punsubscribe", "quit", "replconf", "replicaof", "reset", "save", "shutdown",
    "slaveof", "ssubscribe", "subscribe", "sunsubscribe", "sync", "unsubscribe", "unwatch", "wait", "watch",
];

/// The answers a script got so far, each with its length, and how many bytes of them were given again.
#[derive(Debug, Default)]
pub struct Transcript {
    bytes: Vec<u8>,
    given: usize,
}

impl Transcript {
    /// Gives all answers again from the start before new commands run.
    pub const fn rewind(&mut self) {
        self.given = 0;
    }

    /// Forgets all answers, and a large buffer with them.
    pub fn clear(&mut self) {
        const KEPT_BYTES: usize = 64 * 1024;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.given = 0;
    }
}

/// One run of a script: what `redis.call` can reach.
pub struct Session<'s, 'e> {
    /// The command that runs the script.
    pub exec: &'s mut Exec<'e>,
    /// What the script may do.
    pub access: Access,
    /// What it may spend.
    pub meter: Rc<Meter>,
    /// The answers it got.
    pub transcript: &'s mut Transcript,
    /// The protocol it asked for.
    pub resp: Resp,
}

/// One argument: text borrowed from Lua, or a number that was spelled out.
enum Argument {
    Text(mlua::BorrowedBytes),
    Number(Vec<u8>),
}

impl Argument {
    fn bytes(&self) -> &[u8] {
        match self {
            Argument::Text(text) => text,
            Argument::Number(digits) => digits,
        }
    }
}

impl Session<'_, '_> {
    /// Runs the command in `args`. Answers whether it failed, and its answer or `{err = …}`.
    ///
    /// # Errors
    /// Only what ends the script: its budget, or memory.
    pub fn call(&mut self, lua: &Lua, args: MultiValue) -> mlua::Result<(bool, Value)> {
        self.meter.charge(CALL_INSTRUCTIONS)?;
        let (resp, start) = (self.resp, self.transcript.given);
        if start == self.transcript.bytes.len() {
            self.perform(args)?;
        }
        let mut reader = Reader::new(&self.transcript.bytes[start..]);
        let before = reader.rest().len();
        let len = reader.u64().map_err(|_| mlua::Error::runtime("a recorded answer is cut"))? as usize;
        self.transcript.given = start + (before - reader.rest().len()) + len;
        self.meter.charge_bytes(len)?;
        to_lua(lua, &mut reader, resp)
    }

    /// Runs the command and appends its answer to the transcript.
    fn perform(&mut self, args: MultiValue) -> mlua::Result<()> {
        let mut answer = std::mem::take(&mut self.transcript.bytes);
        let start = answer.len();
        answer.extend_from_slice(&0u64.to_le_bytes());
        let mut recorder = Recorder { out: &mut answer, resp: self.resp };
        if let Err(fault) = self.checked(args, &mut recorder) {
            recorder.fault(&fault);
        }
        let len = answer.len() - start - size_of::<u64>();
        answer[start..start + size_of::<u64>()].copy_from_slice(&(len as u64).to_le_bytes());
        self.transcript.bytes = answer;
        if self.transcript.bytes.len() > REPLY_BYTES_MAX {
            return Err(self.meter.end(Stop::Replies));
        }
        Ok(())
    }

    fn checked(&mut self, args: MultiValue, reply: &mut Recorder<'_>) -> Result<(), Fault> {
        if args.is_empty() {
            return Err(Fault::Text("ERR Please specify at least one argument for this redis lib call"));
        }
        let args: Vec<Argument> = args
            .into_iter()
            .map(|arg| match arg {
                Value::String(text) => Ok(Argument::Text(text.as_bytes())),
                Value::Integer(value) => Ok(Argument::Number(spelled(value as f64))),
                Value::Number(value) => Ok(Argument::Number(spelled(value))),
                _ => Err(Fault::Text("ERR Lua redis lib command arguments must be strings or integers")),
            })
            .collect::<Result<_, _>>()?;
        let args: Vec<&[u8]> = args.iter().map(Argument::bytes).collect();
        let (name, args) = (args[0], &args[1..]);
        match self.exec.registry.resolve(name, args) {
            Some((command, args)) => self.run(command, args, reply),
            None => self.run_own(name, args, reply),
        }
    }

    fn run(&mut self, command: &Command, args: &[&[u8]], reply: &mut Recorder<'_>) -> Result<(), Fault> {
        if command.flags.has(Flags::INTERNAL) {
            return Err(Fault::Text("ERR Unknown Redis command called from script"));
        }
        if command.flags.has(Flags::NO_SCRIPT) {
            return Err(Fault::Text(NOT_ALLOWED));
        }
        if !command.takes(args.len()) {
            return Err(WRONG_COUNT);
        }
        if command.kind == Kind::Write {
            self.may_write()?;
        }
        let exec = &mut *self.exec;
        exec.store.check_reach(command, args)?;
        let mut inner = Exec {
            store: &mut *exec.store,
            reply,
            effects: &mut *exec.effects,
            registry: exec.registry,
            scripting: None,
            rng: exec.rng.clone(),
            origin: Origin::Script,
        };
        inner.run(command, args);
        exec.rng = inner.rng;
        Ok(())
    }

    /// Commands that belong to no store, as far as a script can use them.
    fn run_own(&mut self, name: &[u8], args: &[&[u8]], reply: &mut Recorder<'_>) -> Result<(), Fault> {
        let name = name.to_ascii_lowercase();
        match (name.as_slice(), args) {
            (b"ping", []) => reply.simple("PONG"),
            (b"ping" | b"echo", [text]) => reply.bulk(text),
            (b"time", []) => {
                let now = self.exec.now().0;
                reply.array(2);
                reply.bulk((now / 1000).to_string().as_bytes());
                reply.bulk((now % 1000 * 1000).to_string().as_bytes());
            }
            (b"publish", [channel, payload]) => {
                self.may_write()?;
                self.exec.effects.published.push(((*channel).into(), (*payload).into()));
                // Subscribers are known to the node that leads, after the script; not to the script.
                reply.int(0);
            }
            (b"select", [_]) => {
                return Err(Fault::Text(
                    "ERR SELECT is not allowed from script: a script stays in the database of its connection",
                ));
            }
            (b"ping" | b"echo" | b"time" | b"publish" | b"select", _) => return Err(WRONG_COUNT),
            (name, _) if REFUSED.iter().any(|refused| refused.as_bytes() == name) => {
                return Err(Fault::Text(NOT_ALLOWED));
            }
            _ => return Err(Fault::Text("ERR Unknown Redis command called from script")),
        }
        Ok(())
    }

    const fn may_write(&self) -> Result<(), Fault> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                Err(Fault::Text("ERR Write commands are not allowed from read-only scripts."))
            }
        }
    }
}

const WRONG_COUNT: Fault = Fault::Text("ERR Wrong number of args calling Redis command from script");

fn spelled(value: f64) -> Vec<u8> {
    let mut digits = Vec::with_capacity(24);
    put_argument(&mut digits, value);
    digits
}
