//! Commands on keys of any type, and the node's own entries.

use alloc::vec::Vec;

use crate::command::argument::SCAN_COUNT_MAX;
use crate::command::{ALL, Command, Flags, Keys, ONE, TWO};
use crate::object::glob::{Case, matches};
use crate::object::parse_canonical;
use crate::object::table::Key;
use crate::store::Ttl;
use crate::{Exec, Fault};

/// The id of the node's own tick: it carries nothing but its entry's time.
pub const TICK: u16 = 1;
/// The id of a whole transaction: its arguments are the encoded commands, each as an entry's body.
pub const EXEC: u16 = 2;
/// The id of an answer given by the front-end: its argument is a whole encoded value.
pub const LITERAL: u16 = 3;
/// The id of `DEL`.
pub const DEL: u16 = 0x200;
/// The id of `DBSIZE`.
pub const DBSIZE: u16 = 0x203;
/// The id of `SCAN`.
pub const SCAN: u16 = 0x20B;
/// The id of `RANDOMKEY`.
pub const RANDOMKEY: u16 = 0x20C;
/// The id of a transaction that only reads.
pub const EXEC_READ: u16 = 4;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(TICK, "archipel.tick", 1, Keys::None, tick).with(Flags::INTERNAL),
    Command::write(EXEC, "archipel.exec", -1, Keys::None, exec).with(Flags::INTERNAL),
    Command::read(LITERAL, "archipel.literal", 2, Keys::None, literal).with(Flags::INTERNAL),
    Command::read(EXEC_READ, "archipel.exec-read", -1, Keys::None, exec).with(Flags::INTERNAL),
    Command::write(DEL, "del", -2, ALL, del).with(Flags::BLIND.and(Flags::DIVISIBLE)),
    Command::read(0x201, "exists", -2, ALL, exists).with(Flags::FAST.and(Flags::BLIND.and(Flags::DIVISIBLE))),
    Command::read(0x202, "type", 2, ONE, kind).with(Flags::FAST.and(Flags::BLIND)),
    Command::read(DBSIZE, "dbsize", 1, Keys::None, dbsize).with(Flags::FAST.and(Flags::KEYSPACE)),
    Command::write(0x204, "flushdb", -1, Keys::None, flushdb).with(Flags::KEYSPACE),
    Command::write(0x205, "unlink", -2, ALL, del).with(Flags::FAST.and(Flags::BLIND.and(Flags::DIVISIBLE))),
    Command::read(0x206, "touch", -2, ALL, touch).with(Flags::FAST.and(Flags::BLIND.and(Flags::DIVISIBLE))),
    Command::write(0x207, "rename", 3, TWO, rename),
    Command::write(0x208, "renamenx", 3, TWO, renamenx).with(Flags::FAST),
    Command::write(0x209, "copy", -3, TWO, copy).with(Flags::DENY_OOM.and(Flags::SESSION)),
    Command::read(0x20A, "keys", 2, Keys::None, super::keys::keys).with(Flags::KEYSPACE),
    Command::read(SCAN, "scan", -2, Keys::None, scan).with(Flags::KEYSPACE),
    Command::read(RANDOMKEY, "randomkey", 1, Keys::None, randomkey).with(Flags::KEYSPACE),
];

fn tick(exec: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.ok();
    Ok(())
}

/// Runs the commands of a transaction one after another and answers an array of their answers.
fn exec(exec: &mut Exec<'_>, bodies: &[&[u8]]) -> Result<(), Fault> {
    exec.origin = crate::Origin::Transaction;
    exec.reply.array(bodies.len());
    for body in bodies {
        let mut args = crate::entry::Args::new();
        let mut reader = kernel::codec::Reader::new(body);
        let command = crate::entry::next_command(&mut reader, &mut args)
            .ok()
            .and_then(|id| exec.registry.by_id(id))
            .expect("a logged transaction holds commands that this version wrote");
        exec.run(command, &args);
    }
    Ok(())
}

fn literal(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.raw(args[0]);
    Ok(())
}

fn del(exec: &mut Exec<'_>, keys: &[&[u8]]) -> Result<(), Fault> {
    let removed = keys.iter().filter(|key| exec.store.remove(key)).count();
    exec.reply.int(removed as i64);
    Ok(())
}

fn exists(exec: &mut Exec<'_>, keys: &[&[u8]]) -> Result<(), Fault> {
    let found = keys.iter().filter(|key| exec.store.kind(key).is_some()).count();
    exec.reply.int(found as i64);
    Ok(())
}

/// As EXISTS, and the keys count as used.
fn touch(exec: &mut Exec<'_>, keys: &[&[u8]]) -> Result<(), Fault> {
    let found = keys.iter().filter(|key| exec.store.use_key(key)).count();
    exec.reply.int(found as i64);
    Ok(())
}

fn kind(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let kind = exec.store.kind(args[0]);
    exec.reply.simple(kind.map_or("none", crate::object::Type::name));
    Ok(())
}

fn dbsize(exec: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.int(exec.store.len() as i64);
    Ok(())
}

fn flushdb(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [] => {}
        [mode] if mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async") => {}
        _ => return Err(Fault::Syntax),
    }
    exec.store.flush();
    exec.reply.ok();
    Ok(())
}

// --- moving ------------------------------------------------------------------------------------

fn rename(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    move_key(exec, args[0], args[1])?;
    exec.reply.ok();
    Ok(())
}

fn renamenx(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (from, to) = (args[0], args[1]);
    if !exec.store.exists(from) {
        return Err(Fault::NoSuchKey);
    }
    let free = !exec.store.exists(to);
    if free {
        move_key(exec, from, to)?;
    }
    exec.reply.int(i64::from(free));
    Ok(())
}

fn move_key(exec: &mut Exec<'_>, from: &[u8], to: &[u8]) -> Result<(), Fault> {
    exec.store.check_key(to)?;
    if from == to {
        return if exec.store.exists(from) { Ok(()) } else { Err(Fault::NoSuchKey) };
    }
    let (value, ttl) = exec.store.take(from)?.ok_or(Fault::NoSuchKey)?;
    exec.store.set(to, value, ttl)
}

/// `COPY`. What another keyspace holds is out of a partition's reach, so `DB` is the node's business
/// and refused here.
fn copy(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (from, to, mut rest) = (args[0], args[1], &args[2..]);
    let mut replace = false;
    while let [option, tail @ ..] = rest {
        rest = tail;
        match tail {
            _ if option.eq_ignore_ascii_case(b"replace") => replace = true,
            [db, ..] if option.eq_ignore_ascii_case(b"db") => {
                parse_canonical(db).ok_or(Fault::NotInteger)?;
                return Err(Fault::Text(
                    "ERR COPY to another DB is not supported; leave out the DB option to copy within this one",
                ));
            }
            _ => return Err(Fault::Syntax),
        }
    }
    if from == to {
        return Err(Fault::Text("ERR source and destination objects are the same"));
    }
    exec.store.check_key(to)?;
    let Some(value) = exec.store.value(from)?.cloned() else {
        exec.reply.int(0);
        return Ok(());
    };
    let free = replace || !exec.store.exists(to);
    if free {
        let ttl = exec.store.expiry(from).flatten().map_or(Ttl::Clear, Ttl::At);
        exec.store.set(to, value, ttl)?;
    }
    exec.reply.int(i64::from(free));
    Ok(())
}

// --- listing -----------------------------------------------------------------------------------

fn reply_keys(exec: &mut Exec<'_>, keys: &[Key]) {
    exec.reply.array(keys.len());
    keys.iter().for_each(|key| exec.reply.bulk(key));
}

/// Keys that one `SCAN` visits if it does not say.
const SCAN_KEYS: i64 = 10;

/// A cursor as C's `strtoul` reads it: one may be negative, and then it is a large one.
///
/// # Errors
/// It is no number.
pub fn cursor(text: &[u8]) -> Result<u64, Fault> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let add = |value: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    };
    let value = digits.iter().try_fold(0, add).ok_or(Fault::Text("ERR invalid cursor"))?;
    Ok(if negative { value.wrapping_neg() } else { value })
}

fn scan(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let from = cursor(args[0])?;
    let (mut count, mut pattern, mut kind) = (SCAN_KEYS, None, None);
    let mut rest = &args[1..];
    while let [option, value, tail @ ..] = rest {
        rest = tail;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        if is(b"count") {
            count = parse_canonical(value).ok_or(Fault::NotInteger)?;
            if count < 1 {
                return Err(Fault::Syntax);
            }
        } else if is(b"match") {
            pattern = Some(*value);
        } else if is(b"type") {
            kind = Some(*value);
        } else {
            return Err(Fault::Syntax);
        }
    }
    if !rest.is_empty() {
        return Err(Fault::Syntax);
    }
    let mut found = Vec::new();
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
    let next = exec.store.scan(from, count, &mut |key, of_kind| {
        let fits = pattern.is_none_or(|pattern| matches(pattern, key, Case::Exact));
        if fits && kind.is_none_or(|kind| of_kind.name().as_bytes().eq_ignore_ascii_case(kind)) {
            found.push(Key::from_slice(key));
        }
    });
    exec.reply.array(2);
    exec.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    reply_keys(exec, &found);
    Ok(())
}

fn randomkey(exec: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    match exec.store.random_key(&mut exec.rng) {
        Some(key) => exec.reply.bulk(&key),
        None => exec.reply.null(),
    }
    Ok(())
}
