//! `OBJECT` and `MEMORY USAGE`: how a key is kept.

use alloc::format;
use alloc::string::String;

use crate::command::{Command, Flags, Keys};
use crate::object::parse_canonical;
use crate::{Exec, Fault};

/// The key follows the subcommand.
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(0x220, "object", -2, SECOND, object).with(Flags::BLIND),
    Command::read(0x221, "memory", -2, SECOND, memory).with(Flags::SESSION.and(Flags::BLIND)),
];

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. The figure is exact, so",
    "    <count> changes nothing.",
    "HELP",
    "    Prints this help.",
];

fn help(exec: &mut Exec<'_>, lines: &[&str]) {
    exec.reply.array(lines.len());
    lines.iter().for_each(|line| exec.reply.simple(line));
}

fn unknown(command: &str, subcommand: &[u8]) -> Fault {
    let subcommand = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]);
    Fault::Said(format!("ERR unknown subcommand '{subcommand}'. Try {command} HELP."))
}

fn object(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let is = |name: &[u8]| args[0].eq_ignore_ascii_case(name);
    let one_key = |name: &'static str| if let [_, key] = args { Ok(*key) } else { Err(Fault::Arity(name)) };
    if is(b"encoding") {
        let key = one_key("object|encoding")?;
        match exec.store.peek(key)?.and_then(|value| value.encoding()) {
            Some(encoding) => exec.reply.bulk(encoding.as_bytes()),
            None => exec.reply.null(),
        }
    } else if is(b"refcount") {
        let key = one_key("object|refcount")?;
        if exec.store.exists(key) { exec.reply.int(1) } else { exec.reply.null() }
    } else if is(b"idletime") {
        let key = one_key("object|idletime")?;
        match exec.store.idle_seconds(key) {
            Some(_) if exec.store.policy().is_lfu() => {
                return Err(Fault::Text(
                    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                     between policies at runtime LRU and LFU data will take some time to adjust.",
                ));
            }
            Some(seconds) => exec.reply.int(seconds as i64),
            None => exec.reply.null(),
        }
    } else if is(b"freq") {
        let key = one_key("object|freq")?;
        match exec.store.use_count(key) {
            Some(count) if exec.store.policy().is_lfu() => exec.reply.int(count.into()),
            Some(_) => {
                return Err(Fault::Text(
                    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
                     when switching between policies at runtime LRU and LFU data will take some time to adjust.",
                ));
            }
            None => exec.reply.null(),
        }
    } else if is(b"help") {
        if args.len() != 1 {
            return Err(Fault::Arity("object|help"));
        }
        help(exec, OBJECT_HELP);
    } else {
        return Err(unknown("OBJECT", args[0]));
    }
    Ok(())
}

fn memory(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [name, key, options @ ..] if name.eq_ignore_ascii_case(b"usage") => {
            for option in options.chunks(2) {
                let [name, count] = option else { return Err(Fault::Syntax) };
                if !name.eq_ignore_ascii_case(b"samples") {
                    return Err(Fault::Syntax);
                }
                if parse_canonical(count).ok_or(Fault::NotInteger)? < 0 {
                    return Err(Fault::Syntax);
                }
            }
            match exec.store.usage(key) {
                Some(bytes) => exec.reply.int(bytes as i64),
                None => exec.reply.null(),
            }
        }
        [name] if name.eq_ignore_ascii_case(b"usage") => return Err(Fault::Arity("memory|usage")),
        [name] if name.eq_ignore_ascii_case(b"help") => help(exec, MEMORY_HELP),
        [name, ..] if name.eq_ignore_ascii_case(b"help") => return Err(Fault::Arity("memory|help")),
        _ => return Err(unknown("MEMORY", args[0])),
    }
    Ok(())
}
