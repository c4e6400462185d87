//! Scripts: running them, and remembering their bodies.
//!
//! A script is logged as it was sent and runs at apply time on every replica. Bodies are remembered per
//! partition; the node sends `SCRIPT LOAD` and `SCRIPT FLUSH` to all of them. A read cannot change the
//! state, so `EVAL_RO` alone does not make its body known to `EVALSHA`.

use alloc::format;
use alloc::vec::Vec;

use crate::apply::{Access, Script};
use crate::command::{Command, Flags, Keys};
use crate::object::parse_canonical;
use crate::store::scripts::{Brought, ScriptId};
use crate::{Exec, Fault};

/// The id of `SCRIPT`, the container of the subcommands below.
pub const CONTAINER: u16 = 0x704;

/// The id of `SCRIPT EXISTS`.
pub const EXISTS: u16 = 0x709;

/// This family's rows. The names with a bar are subcommands: see
/// [`Registry::resolve`](crate::Registry::resolve).
pub const COMMANDS: &[Command] = &[
    Command::write(0x700, "eval", -3, Keys::Counted(2), eval).with(Flags::NO_SCRIPT),
    Command::read(0x701, "eval_ro", -3, Keys::Counted(2), eval_ro).with(Flags::NO_SCRIPT),
    Command::write(0x702, "evalsha", -3, Keys::Counted(2), evalsha).with(Flags::NO_SCRIPT),
    Command::read(0x703, "evalsha_ro", -3, Keys::Counted(2), evalsha_ro).with(Flags::NO_SCRIPT),
    Command::read(CONTAINER, "script", -2, Keys::None, unknown).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
    Command::write(0x708, "script|load", 2, Keys::None, load).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
    Command::read(EXISTS, "script|exists", -2, Keys::None, exists).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
    Command::write(0x70A, "script|flush", -1, Keys::None, flush).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
    Command::read(0x70B, "script|kill", 1, Keys::None, kill).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
    Command::read(0x70C, "script|debug", 2, Keys::None, debug).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
    Command::read(0x70D, "script|help", 1, Keys::None, help).with(Flags::NO_SCRIPT.and(Flags::SESSION)),
];

const NO_SCRIPT: Fault = Fault::Text("NOSCRIPT No matching script. Please use EVAL.");
const NO_ENGINE: Fault = Fault::Text("ERR This Redis command is not allowed from script");

const HELP: &[&str] = &[
    "SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXISTS <sha1> [<sha1> ...]",
    "    Return information about the existence of the scripts in the script cache.",
    "FLUSH [ASYNC|SYNC]",
    "    Flush the Lua scripts cache. Both modes do it at once.",
    "KILL",
    "    Kill the currently executing Lua script. Scripts end by their own budget here.",
    "LOAD <script>",
    "    Load a script into the scripts cache without executing it.",
    "HELP",
    "    Print this help.",
];

fn eval(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let id = ScriptId::of(args[0]);
    run(exec, Script { id, body: args[0], access: Access::ReadWrite }, &args[1..], Some(Brought::Evaluated))
}

fn eval_ro(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let id = ScriptId::of(args[0]);
    run(exec, Script { id, body: args[0], access: Access::ReadOnly }, &args[1..], None)
}

fn evalsha(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    run_known(exec, args, Access::ReadWrite)
}

fn evalsha_ro(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    run_known(exec, args, Access::ReadOnly)
}

fn run_known(exec: &mut Exec<'_>, args: &[&[u8]], access: Access) -> Result<(), Fault> {
    let id = ScriptId::parse(args[0]).ok_or(NO_SCRIPT)?;
    // The engine keeps compiled chunks by name, so most runs need no copy of the body.
    let known = exec.scripting.as_ref().is_some_and(|engine| engine.has(id));
    let body = match exec.store.scripts().get(id) {
        None => return Err(NO_SCRIPT),
        Some(_) if known => Vec::new(),
        Some(body) => body.to_vec(),
    };
    run(exec, Script { id, body: &body, access }, &args[1..], None)
}

/// Splits the keys from the arguments, remembers the body if it compiles, and runs it.
fn run(
    exec: &mut Exec<'_>,
    script: Script<'_>,
    args: &[&[u8]],
    brought: Option<Brought>,
) -> Result<(), Fault> {
    let count = parse_canonical(args[0]).ok_or(Fault::NotInteger)?;
    let rest = &args[1..];
    if count > rest.len() as i64 {
        return Err(Fault::Text("ERR Number of keys can't be greater than number of args"));
    }
    let Ok(count) = usize::try_from(count) else {
        return Err(Fault::Text("ERR Number of keys can't be negative"));
    };
    let (keys, args) = rest.split_at(count);
    let engine = exec.scripting.take().ok_or(NO_ENGINE)?;
    let result = engine.load(&script).and_then(|()| {
        if let Some(brought) = brought {
            exec.store.scripts_mut().insert(script.id, script.body, brought)?;
        }
        engine.eval(exec, &script, keys, args)
    });
    exec.scripting = Some(engine);
    result
}

fn load(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let script = Script { id: ScriptId::of(args[0]), body: args[0], access: Access::ReadWrite };
    exec.scripting.as_mut().ok_or(NO_ENGINE)?.load(&script)?;
    exec.store.scripts_mut().insert(script.id, script.body, Brought::Loaded)?;
    exec.reply.bulk(format!("{}", script.id).as_bytes());
    Ok(())
}

fn exists(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.array(args.len());
    for name in args {
        let known = ScriptId::parse(name).is_some_and(|id| exec.store.scripts().get(id).is_some());
        exec.reply.int(i64::from(known));
    }
    Ok(())
}

fn flush(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [] => {}
        [mode] if mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async") => {}
        _ => return Err(Fault::Text("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    exec.store.scripts_mut().clear();
    exec.reply.ok();
    Ok(())
}

fn kill(_: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    Err(Fault::Text("NOTBUSY No scripts in execution right now."))
}

fn debug(_: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    Err(Fault::Text("ERR SCRIPT DEBUG is not offered: scripts run on every replica and cannot be stepped"))
}

fn help(exec: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.array(HELP.len());
    HELP.iter().for_each(|line| exec.reply.simple(line));
    Ok(())
}

fn unknown(_: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let name = alloc::string::String::from_utf8_lossy(&args[0][..args[0].len().min(128)]);
    Err(Fault::Said(format!("ERR unknown subcommand '{name}'. Try SCRIPT HELP.")))
}
