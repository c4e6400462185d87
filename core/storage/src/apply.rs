//! Running commands: one at a time against a [`Store`], or an entry's whole body.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader};
use kernel::planted::{Bug, is};
use kernel::{Index, Micros, Millis, Rng};
use smallvec::SmallVec;

use crate::Fault;
use crate::command::generic::{EXEC, EXEC_READ};
use crate::command::list_blocking::RETRY;
use crate::command::tagged::TAGGED;
use crate::command::{Command, Keys, Registry};
use crate::entry::{Args, next_command};
use crate::reply::Reply;
use crate::store::scripts::ScriptId;
use crate::store::sessions::Tag;
use crate::store::{LongId, Store};

/// Who runs a command; decides whether it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's own command.
    Direct,
    /// Inside MULTI/EXEC: blocking commands answer at once.
    Transaction,
    /// Inside a script: likewise.
    Script,
    /// A client's own command that already waits, tried again.
    Retry,
}

/// A blocking command found nothing and wants to wait for one of `keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The keys whose change may satisfy it.
    pub keys: Vec<Box<[u8]>>,
    /// Milliseconds to wait; `None` for ever. When it passes, the null array or `null` is answered.
    pub timeout_ms: Option<u64>,
    /// Answer a timeout with a null bulk string (`BLMOVE`) instead of a null array.
    pub null_bulk: bool,
}

/// A message that a script published: its channel and payload.
pub type Published = (Box<[u8]>, Box<[u8]>);

/// What running a command asks of its host besides the state change. Only the leader acts on it.
#[derive(Debug, Default)]
pub struct Effects {
    /// The command answered nothing and waits.
    pub block: Option<Block>,
    /// Messages a script published: channel and payload.
    pub published: Vec<Published>,
    /// A read that takes more than so many steps may go on later. `None`: all of them end at once. For the host to
    /// say beforehand.
    pub slice: Option<usize>,
    /// The command answered nothing yet: this read does, a slice at a time.
    pub long: Option<LongId>,
}

/// Reads back the body of an object that was evicted from memory.
pub trait Fetch: Send {
    /// The encoded body of `key` in generation `generation`, as the last checkpoint wrote it.
    ///
    /// # Errors
    /// A sentence for the log, when the engine cannot give it.
    fn fetch(&self, generation: u32, key: &[u8]) -> Result<Vec<u8>, alloc::string::String>;
}

/// Whether a script may change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// `EVAL_RO`: writing commands are refused.
    ReadOnly,
}

/// A script to run.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// Its name.
    pub id: ScriptId,
    /// Its text; may be empty if the engine [has](Scripting::has) it.
    pub body: &'a [u8],
    /// What it may do.
    pub access: Access,
}

/// A script engine, handed in by the node.
pub trait Scripting {
    /// Whether `id` is at hand compiled, so that its body need not be given. Must not decide results.
    fn has(&self, id: ScriptId) -> bool;

    /// Compiles `script`, unless it is at hand.
    ///
    /// # Errors
    /// It does not compile; the error to answer.
    fn load(&mut self, script: &Script<'_>) -> Result<(), Fault>;

    /// Runs a loaded script with `keys` and `args`, and answers through `exec.reply`.
    ///
    /// # Errors
    /// The error to answer. What the script did before it stays done.
    fn eval(
        &mut self,
        exec: &mut Exec<'_>,
        script: &Script<'_>,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<(), Fault>;
}

/// A script engine that runs none, for models and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoScripts;

impl Scripting for NoScripts {
    fn has(&self, _: ScriptId) -> bool {
        false
    }

    fn load(&mut self, _: &Script<'_>) -> Result<(), Fault> {
        Err(Fault::Text("ERR scripts are not offered here"))
    }

    fn eval(&mut self, _: &mut Exec<'_>, _: &Script<'_>, _: &[&[u8]], _: &[&[u8]]) -> Result<(), Fault> {
        Err(Fault::Text("ERR scripts are not offered here"))
    }
}

/// Everything a handler can reach.
pub struct Exec<'a> {
    /// The partition's state.
    pub store: &'a mut Store,
    /// Where the answer goes.
    pub reply: &'a mut dyn Reply,
    /// What else the host must do.
    pub effects: &'a mut Effects,
    /// All commands, for scripts and transactions.
    pub registry: &'a Registry,
    /// The script engine; absent while a script runs.
    pub scripting: Option<&'a mut dyn Scripting>,
    /// Chance, seeded by the entry's index and the command's place in it.
    pub rng: Rng,
    /// Who runs it.
    pub origin: Origin,
}

impl Exec<'_> {
    /// The group's time for this command, in milliseconds since the epoch.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.store.now()
    }

    /// Checks the arity and runs `command`; a fault becomes the answer.
    #[inline]
    pub fn run(&mut self, command: &Command, args: &[&[u8]]) {
        let result = if command.takes(args.len()) {
            (command.handler)(self, args)
        } else {
            Err(Fault::Arity(command.name))
        };
        if let Err(fault) = result {
            self.reply.fault(&fault);
        }
    }
}

/// What stays the same for all commands of a worker.
pub struct Machinery<'a> {
    /// All commands.
    pub registry: &'a Registry,
    /// The script engine.
    pub scripting: &'a mut dyn Scripting,
    /// Filled by the command.
    pub effects: &'a mut Effects,
}

/// Applies one logged command. `place` counts the commands of the entry from 0.
#[inline]
pub fn apply_command(
    store: &mut Store,
    machinery: &mut Machinery<'_>,
    place: (Index, u32),
    command: &Command,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) {
    let rng = Rng::new(place.0.0 ^ store.seed()).fork(u64::from(place.1));
    let mut exec = Exec {
        store,
        reply,
        effects: machinery.effects,
        registry: machinery.registry,
        scripting: Some(machinery.scripting),
        rng,
        origin: Origin::Direct,
    };
    exec.run(command, args);
}

/// Applies a whole entry's body, answering nobody: replay and followers.
///
/// # Errors
/// The body is not one that this version can read; the state is then not to be trusted.
pub fn apply_entry(
    store: &mut Store,
    machinery: &mut Machinery<'_>,
    index: Index,
    time: Micros,
    body: &[u8],
) -> Result<(), DecodeError> {
    store.begin_entry(index, time);
    let mut reader = Reader::new(body);
    let mut args = Args::new();
    let mut count: u32 = 0;
    while !reader.is_empty() {
        if count.is_multiple_of(NEAR) {
            bring_near(store, machinery.registry, reader);
        }
        let id = next_command(&mut reader, &mut args)?;
        let command = readable(machinery.registry, id, &args)?;
        let mut silence = crate::reply::Silence;
        let drawn = if is(Bug::UnseededChance) { index.next() } else { index };
        apply_command(store, machinery, (drawn, count), command, &args, &mut silence);
        machinery.effects.block = None;
        machinery.effects.published.clear();
        count += 1;
    }
    store.end_entry();
    store.free_dead(REPLAY_FREED_MAX);
    Ok(())
}

/// Commands of an entry whose keys are brought near together.
const NEAR: u32 = 16;

/// Brings the first keys of the next [`NEAR`] commands near, if there is more than one. What cannot be read is told when it is
/// its turn.
fn bring_near(store: &Store, registry: &Registry, mut reader: Reader<'_>) {
    let mut args = Args::new();
    let mut keys: SmallVec<[&[u8]; NEAR as usize]> = SmallVec::new();
    for _ in 0..NEAR {
        let Ok(mut id) = next_command(&mut reader, &mut args) else { break };
        if let (TAGGED, &[_, body]) = (id, &args[..]) {
            let Ok(inner) = next_command(&mut Reader::new(body), &mut args) else { break };
            id = inner;
        }
        let named =
            registry.by_id(id).is_some_and(|command| matches!(command.keys, Keys::Range { first: 1, .. }));
        keys.extend(args.first().copied().filter(|_| named));
    }
    if keys.len() > 1 {
        store.bring_near(keys.into_iter());
    }
}

/// Pieces of removed values that are freed behind each replayed entry: as a worker does behind a turn, so that
/// replay takes no more memory.
const REPLAY_FREED_MAX: usize = 4096;

/// The command `id`, if this version knows it and the commands inside its arguments.
///
/// They are checked here, so that handlers may rely on them. Nesting ends after three levels (a tag, a
/// transaction, its commands), or a body could nest deeper than the stack.
fn readable(registry: &Registry, id: u16, args: &[&[u8]]) -> Result<&'static Command, DecodeError> {
    match (id, args) {
        (EXEC | EXEC_READ | RETRY, bodies) => bodies.iter().try_for_each(|body| plain(registry, body))?,
        (TAGGED, [tag, body]) => {
            Tag::decode(tag)?;
            tagged(registry, body)?;
        }
        (TAGGED, _) => return Err(DecodeError::Invalid),
        _ => {}
    }
    registry.by_id(id).ok_or(DecodeError::Invalid)
}

/// One command that holds no other.
fn plain(registry: &Registry, body: &[u8]) -> Result<(), DecodeError> {
    let (mut reader, mut args) = (Reader::new(body), Args::new());
    let id = next_command(&mut reader, &mut args)?;
    let known = registry.by_id(id).is_some() && ![EXEC, EXEC_READ, RETRY, TAGGED].contains(&id);
    if known && reader.is_empty() { Ok(()) } else { Err(DecodeError::Invalid) }
}

/// What a tag stands before: one command, or a transaction.
///
/// # Errors
/// It is something else, or of no version that is known.
pub fn tagged(registry: &Registry, body: &[u8]) -> Result<(), DecodeError> {
    let (mut reader, mut args) = (Reader::new(body), Args::new());
    if next_command(&mut reader, &mut args)? != EXEC {
        return plain(registry, body);
    }
    args.iter().try_for_each(|step| plain(registry, step))?;
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Invalid) }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::entry::put_command;

    fn apply(body: &[u8]) -> Result<(), DecodeError> {
        let (registry, mut effects) = (Registry::new(), Effects::default());
        let mut machinery =
            Machinery { registry: &registry, scripting: &mut NoScripts, effects: &mut effects };
        apply_entry(&mut Store::new(1), &mut machinery, Index(1), Micros(1), body)
    }

    fn encoded(id: u16, args: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        put_command(&mut body, id, args);
        body
    }

    #[test]
    fn a_body_with_commands_that_no_version_wrote_is_refused() {
        let set = encoded(Registry::new().find(b"del").expect("it exists").id, &[b"k"]);
        let twice = [&set[..], &set[..]].concat();
        #[rustfmt::skip] // columns
        let table = [
            (encoded(EXEC, &[&set, &set]),                      Ok(())),
            (encoded(RETRY, &[&set]),                           Ok(())),
            (encoded(EXEC, &[]),                                Ok(())),
            (encoded(EXEC, &[&twice]),                          Err(DecodeError::Invalid)),
            (encoded(EXEC, &[b""]),                             Err(DecodeError::Short)),
            (encoded(EXEC, &[&encoded(0xFFFF, &[])]),           Err(DecodeError::Invalid)),
            (encoded(RETRY, &[&set[..1]]),                      Err(DecodeError::Short)),
            (encoded(EXEC, &[&encoded(EXEC, &[&set])]),         Err(DecodeError::Invalid)),
            (encoded(RETRY, &[&encoded(EXEC_READ, &[&set])]),   Err(DecodeError::Invalid)),
            (encoded(EXEC_READ, &[&encoded(RETRY, &[&set])]),   Err(DecodeError::Invalid)),
            (vec![0xFF, 0xFF, 0xFF],                            Err(DecodeError::Short)),
        ];
        for (body, expected) in table {
            assert_eq!(apply(&body), expected, "{body:?}");
        }
    }
}
