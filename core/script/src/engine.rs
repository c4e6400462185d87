//! The engine: one Lua state that is used again, and a new one for scripts that need too much of it.
//!
//! How much garbage an old state holds differs between replicas, so an old state may not decide that a
//! script needs too much memory or time. It runs a script within a small allowance; a script that
//! exceeds it is started anew in a new state, which decides. The commands it had called are not run
//! again: their answers are given again from the transcript, and the script, being deterministic, asks
//! for the same ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kernel::codec::Reader;
use mlua::{Function, Lua, MultiValue, Value, chunk::ChunkMode};
use storage::store::scripts::ScriptId;
use storage::{Access, Exec, Fault, Script, Scripting};

use crate::answer::{Recorder, Resp, from_lua, play};
use crate::meter::{Allowance, FIRST, FULL, INSTRUCTIONS_MAX, Meter, Stop};
use crate::sandbox::{Environment, LogSink};
use crate::session::{Session, Transcript};

/// Compiled scripts an engine keeps at hand; at the limit all are dropped and compiled again when used.
const CHUNKS_MAX: usize = 1024;
/// Bytes of bodies whose chunks an engine keeps at hand.
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Garbage that is left in peace between scripts.
const IDLE_GARBAGE_BYTES: usize = 1024 * 1024;

/// The level of `redis.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `redis.LOG_DEBUG`.
    Debug,
    /// `redis.LOG_VERBOSE`.
    Verbose,
    /// `redis.LOG_NOTICE`.
    Notice,
    /// `redis.LOG_WARNING`.
    Warning,
}

/// Runs scripts. One for each worker.
pub struct LuaEngine {
    used: Option<State>,
    transcript: Transcript,
    log: LogSink,
    instructions: u64,
}

impl Default for LuaEngine {
    fn default() -> LuaEngine {
        LuaEngine::new()
    }
}

impl LuaEngine {
    /// An engine that throws away what scripts log.
    #[must_use]
    pub fn new() -> LuaEngine {
        LuaEngine::with_log(|_, _| {})
    }

    /// An engine that hands what scripts log to `sink`. A script that runs again is logged again.
    #[must_use]
    pub fn with_log(sink: impl FnMut(Level, &[u8]) + 'static) -> LuaEngine {
        LuaEngine {
            used: None,
            transcript: Transcript::default(),
            log: Rc::new(RefCell::new(sink)),
            instructions: INSTRUCTIONS_MAX,
        }
    }

    /// The same with a smaller budget of instructions. All replicas must have the same.
    #[must_use]
    pub const fn with_instructions(mut self, most: u64) -> LuaEngine {
        self.instructions = most;
        self
    }

    fn state(&mut self) -> Result<&mut State, Fault> {
        if self.used.is_none() {
            self.used = Some(State::new(&self.log).map_err(|error| broken(&error))?);
        }
        Ok(self.used.as_mut().expect("it was just made"))
    }
}

impl Scripting for LuaEngine {
    fn has(&self, id: ScriptId) -> bool {
        self.used.as_ref().is_some_and(|state| state.chunks.contains_key(&id))
    }

    fn load(&mut self, script: &Script<'_>) -> Result<(), Fault> {
        if self.has(script.id) {
            return Ok(());
        }
        self.state()?.compile(script)
    }

    fn eval(
        &mut self,
        exec: &mut Exec<'_>,
        script: &Script<'_>,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<(), Fault> {
        self.state()?;
        let state = self.used.as_mut().expect("the state was just made");
        let transcript = &mut self.transcript;
        transcript.clear();
        let run = Run { script, keys, args };
        let mut outcome =
            state.run(exec, transcript, &run, Allowance { instructions: self.instructions / 2, ..FIRST });
        state.tidy();
        if matches!(outcome, Outcome::Stopped(_)) {
            // The old state is not to be trusted after it ran out of memory, either.
            let chunk_source = state.chunks.get(&script.id).map(|chunk| chunk.source.clone());
            self.used = None;
            transcript.rewind();
            let mut fresh = State::new(&self.log).map_err(|error| broken(&error))?;
            let body = chunk_source.unwrap_or_else(|| script.body.into());
            fresh.compile(&Script { body: &body, ..*script })?;
            outcome =
                fresh.run(exec, transcript, &run, Allowance { instructions: self.instructions, ..FULL });
        }
        self.transcript.clear();
        match outcome {
            Outcome::Answered(answer) => {
                play(&mut Reader::new(&answer), exec.reply).expect("an answer is read as it was written");
                Ok(())
            }
            Outcome::Failed(fault) => Err(fault),
            Outcome::Stopped(stop) => Err(stopped(stop, script.id, self.instructions)),
        }
    }
}

/// What is run with what.
struct Run<'a> {
    script: &'a Script<'a>,
    keys: &'a [&'a [u8]],
    args: &'a [&'a [u8]],
}

/// How a run ended.
enum Outcome {
    /// With an answer, recorded.
    Answered(Vec<u8>),
    /// With an error that the script raised or did not catch.
    Failed(Fault),
    /// It needed more than its allowance.
    Stopped(Stop),
}

/// A compiled script.
struct Chunk {
    function: Function,
    source: Rc<[u8]>,
    access: Access,
    /// 1 if it has one line, so that an error without a frame still has its line.
    only_line: Option<u32>,
}

/// A Lua state with its environment.
struct State {
    lua: Lua,
    meter: Rc<Meter>,
    environment: Environment,
    chunks: BTreeMap<ScriptId, Chunk>,
    chunk_bytes: usize,
    idle_bytes: usize,
}

impl State {
    fn new(log: &LogSink) -> mlua::Result<State> {
        let lua = crate::sandbox::new_lua()?;
        let meter = Rc::new(Meter::default());
        let environment = Environment::install(&lua, &meter, log)?;
        lua.gc_collect()?;
        // Collections run when the meter says so, and between scripts.
        lua.gc_stop();
        let idle_bytes = lua.used_memory();
        Ok(State { lua, meter, environment, chunks: BTreeMap::new(), chunk_bytes: 0, idle_bytes })
    }

    fn compile(&mut self, script: &Script<'_>) -> Result<(), Fault> {
        let (text, access) = shebang(script.body)?;
        if self.chunks.len() >= CHUNKS_MAX || self.chunk_bytes > CHUNK_BYTES_MAX {
            self.chunks.clear();
            self.chunk_bytes = 0;
        }
        let limit = self.lua.used_memory() + FULL.memory_bytes;
        self.lua.set_memory_limit(limit).map_err(|error| broken(&error))?;
        let chunk = self.lua.load(text).set_name("@user_script").set_mode(ChunkMode::Text);
        let function = chunk.into_function().map_err(|error| {
            let text = match &error {
                mlua::Error::SyntaxError { message, .. } => message.clone(),
                other => other.to_string(),
            };
            Fault::Said(format!("ERR Error compiling script (new function): {text}"))
        })?;
        let only_line = (!script.body.contains(&b'\n')).then_some(1);
        self.chunk_bytes += script.body.len();
        self.chunks.insert(script.id, Chunk { function, source: script.body.into(), access, only_line });
        Ok(())
    }

    fn run(
        &self,
        exec: &mut Exec<'_>,
        transcript: &mut Transcript,
        run: &Run<'_>,
        allowance: Allowance,
    ) -> Outcome {
        let chunk = self.chunks.get(&run.script.id).expect("a script is loaded before it runs");
        let access = match run.script.access {
            Access::ReadOnly => Access::ReadOnly,
            Access::ReadWrite => chunk.access,
        };
        let session = Session { exec, access, meter: self.meter.clone(), transcript, resp: Resp::Two };
        let result = self.enter(session, chunk, run, allowance);
        self.environment.leave();
        if let Some(stop) = self.meter.stopped() {
            return Outcome::Stopped(stop);
        }
        match result {
            Ok(Ok(answer)) => Outcome::Answered(answer),
            Ok(Err(text)) => Outcome::Failed(Fault::Said(text)),
            // Errors that Lua code did not raise come from the engine: in practice, from memory.
            Err(_) => Outcome::Stopped(Stop::Memory),
        }
    }

    /// Calls the chunk: its recorded answer, or the text of its error.
    fn enter(
        &self,
        session: Session<'_, '_>,
        chunk: &Chunk,
        run: &Run<'_>,
        allowance: Allowance,
    ) -> mlua::Result<Result<Vec<u8>, String>> {
        self.meter.begin(&self.lua, allowance)?;
        let keys = strings(&self.lua, run.keys)?;
        let args = strings(&self.lua, run.args)?;
        let session = RefCell::new(session);
        self.lua.scope(|scope| {
            let dispatch =
                scope.create_function(|lua, args: MultiValue| session.borrow_mut().call(lua, args))?;
            let set_resp = scope.create_function(|_, version: u8| {
                session.borrow_mut().resp = if version == 3 { Resp::Three } else { Resp::Two };
                Ok(())
            })?;
            let (fine, value) = self.environment.run.call::<(bool, Value)>((
                &chunk.function,
                dispatch,
                set_resp,
                keys,
                args,
                chunk.only_line,
            ))?;
            if fine {
                let mut answer = Vec::new();
                let resp = session.borrow().resp;
                from_lua(&value, &mut Recorder { out: &mut answer, resp })?;
                return Ok(Ok(answer));
            }
            error_text(&value, run.script.id).map(Err)
        })
    }

    /// Collects the garbage of earlier scripts once there is as much of it as of everything else.
    fn tidy(&mut self) {
        if self.lua.used_memory() > 2 * self.idle_bytes + IDLE_GARBAGE_BYTES {
            // A collection that fails leaves garbage, which the next one finds.
            let _ = self.lua.gc_collect();
            self.lua.gc_stop();
            self.idle_bytes = self.lua.used_memory();
        }
    }
}

fn strings(lua: &Lua, items: &[&[u8]]) -> mlua::Result<mlua::Table> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (at, item) in items.iter().enumerate() {
        table.raw_seti(at + 1, lua.create_string(item)?)?;
    }
    Ok(table)
}

/// The line that Redis answers for an error that reached the top: the handler made it a table.
fn error_text(value: &Value, id: ScriptId) -> mlua::Result<String> {
    let Value::Table(table) = value else {
        return Err(mlua::Error::runtime("the error handler failed"));
    };
    let text: Option<mlua::LuaString> = table.raw_get("err").unwrap_or(None);
    let mut line = text.map_or_else(|| "ERR unknown error".into(), |text| text.to_string_lossy());
    let (source, at): (Option<String>, Option<u64>) =
        (table.raw_get("source").unwrap_or(None), table.raw_get("line").unwrap_or(None));
    if let (Some(source), Some(at)) = (source, at) {
        line.push_str(&format!(" script: {id}, on {source}:{at}."));
    }
    Ok(line)
}

fn stopped(stop: Stop, id: ScriptId, instructions: u64) -> Fault {
    let too_long = format!("ran for more than {instructions} instructions");
    let (what, advice) = match stop {
        Stop::Instructions => (too_long.as_str(), "do less work in each call"),
        Stop::Memory => ("needs more than 256 MiB of memory", "handle fewer elements in each call"),
        Stop::Replies => ("was answered more than 256 MiB", "read fewer elements in each call"),
    };
    Fault::Said(format!("ERR script {id} {what} and was ended; what it wrote before stays written: {advice}"))
}

fn broken(error: &mlua::Error) -> Fault {
    Fault::Said(format!("ERR the script engine cannot start: {error}"))
}

/// Takes the `#!lua flags=…` line off a body; its line end stays, so that lines keep their numbers.
fn shebang(body: &[u8]) -> Result<(&[u8], Access), Fault> {
    if !body.starts_with(b"#!") {
        return Ok((body, Access::ReadWrite));
    }
    let end = body.iter().position(|&byte| byte == b'\n').unwrap_or(body.len());
    let line = String::from_utf8_lossy(&body[..end]);
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let engine = words.next().unwrap_or_default().trim_end();
    if engine != "#!lua" {
        return Err(Fault::Said(format!("ERR Unexpected engine in script shebang: {engine}")));
    }
    let mut access = Access::ReadWrite;
    for word in words {
        let Some(flags) = word.trim_end().strip_prefix("flags=") else {
            return Err(Fault::Said(format!("ERR Unknown lua shebang option: {word}")));
        };
        for flag in flags.split(',') {
            match flag {
                "no-writes" => access = Access::ReadOnly,
                "allow-oom" | "allow-stale" | "no-cluster" | "allow-cross-slot-keys" => {}
                _ => return Err(Fault::Said(format!("ERR Unexpected flag in script shebang: {flag}"))),
            }
        }
    }
    Ok((&body[end..], access))
}
