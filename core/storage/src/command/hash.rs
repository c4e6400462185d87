//! Hashes: fields with values, counters in them, and random fields.

use alloc::vec::Vec;

use crate::command::argument::{ScanOptions, integer, signed_count};
use crate::command::generic::cursor;
use crate::command::{Command, Flags, ONE, sample};
use crate::object::extended::Extended;
use crate::object::{Hash, parse_canonical};
use crate::{Exec, Fault};

const GROWS: Flags = Flags::DENY_OOM.and(Flags::FAST);
const FAST: Flags = Flags::FAST;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x500, "hset", -4, ONE, hset).with(GROWS),
    Command::write(0x501, "hmset", -4, ONE, hmset).with(GROWS),
    Command::write(0x502, "hsetnx", 4, ONE, hsetnx).with(GROWS),
    Command::read(0x503, "hget", 3, ONE, hget).with(FAST),
    Command::read(0x504, "hmget", -3, ONE, hmget).with(FAST),
    Command::read(0x505, "hgetall", 2, ONE, hgetall),
    Command::read(0x506, "hkeys", 2, ONE, hkeys),
    Command::read(0x507, "hvals", 2, ONE, hvals),
    Command::read(0x508, "hlen", 2, ONE, hlen).with(FAST),
    Command::read(0x509, "hexists", 3, ONE, hexists).with(FAST),
    Command::write(0x50A, "hdel", -3, ONE, hdel).with(FAST),
    Command::write(0x50B, "hincrby", 4, ONE, hincrby).with(GROWS),
    Command::write(0x50C, "hincrbyfloat", 4, ONE, hincrbyfloat).with(GROWS),
    Command::read(0x50D, "hstrlen", 3, ONE, hstrlen).with(FAST),
    Command::read(0x50E, "hrandfield", -2, ONE, hrandfield),
    Command::read(0x50F, "hscan", -3, ONE, hscan),
];

fn hset(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let added = set_pairs(exec, args, "hset")?;
    exec.reply.int(added as i64);
    Ok(())
}

fn hmset(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    set_pairs(exec, args, "hmset")?;
    exec.reply.ok();
    Ok(())
}

/// Sets `key field value [field value …]` and returns how many fields are new.
#[inline]
fn set_pairs(exec: &mut Exec<'_>, args: &[&[u8]], name: &'static str) -> Result<usize, Fault> {
    let (pairs, []) = args[1..].as_chunks::<2>() else { return Err(Fault::Arity(name)) };
    let hasher = exec.store.hasher();
    let mut guard = exec.store.edit_or_new(args[0], Hash::new)?;
    let hash = &mut *guard;
    Ok(pairs.iter().filter(|[field, value]| hash.set(field, value, &hasher)).count())
}

fn hsetnx(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let mut hash = exec.store.edit_or_new(args[0], Hash::new)?;
    let is_new = !hash.contains(args[1]);
    if is_new {
        hash.set(args[1], args[2], &hasher);
    }
    drop(hash);
    exec.reply.int(i64::from(is_new));
    Ok(())
}

fn hget(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    match store.get::<Hash>(args[0])?.and_then(|hash| hash.get(args[1])) {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

fn hmget(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let hash = store.get::<Hash>(args[0])?;
    reply.array(args.len() - 1);
    for field in &args[1..] {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
    }
    Ok(())
}

fn hgetall(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let hash = store.get::<Hash>(args[0])?;
    reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flat_map(Hash::iter) {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hkeys(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let hash = store.get::<Hash>(args[0])?;
    reply.array(hash.map_or(0, Hash::len));
    hash.into_iter().flat_map(Hash::keys).for_each(|field| reply.bulk(field));
    Ok(())
}

fn hvals(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let hash = store.get::<Hash>(args[0])?;
    reply.array(hash.map_or(0, Hash::len));
    hash.into_iter().flat_map(Hash::values).for_each(|value| reply.bulk(value));
    Ok(())
}

fn hlen(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let len = exec.store.get::<Hash>(args[0])?.map_or(0, Hash::len);
    exec.reply.int(len as i64);
    Ok(())
}

fn hexists(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let found = exec.store.get::<Hash>(args[0])?.is_some_and(|hash| hash.contains(args[1]));
    exec.reply.int(i64::from(found));
    Ok(())
}

fn hdel(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let removed = exec.store.edit::<Hash>(args[0])?.map_or(0, |mut guard| {
        let hash = &mut *guard;
        let removed = args[1..].iter().filter(|field| hash.remove(field)).count();
        if removed == 0 {
            guard.unchanged();
        }
        removed
    });
    exec.reply.int(removed as i64);
    Ok(())
}

fn hincrby(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let by = integer(args[2])?;
    let hasher = exec.store.hasher();
    let mut hash = exec.store.edit_or_new(args[0], Hash::new)?;
    let current = match hash.get(args[1]) {
        Some(value) => parse_canonical(value).ok_or(Fault::Text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = current.checked_add(by).ok_or(Fault::Overflow)?;
    hash.set(args[1], itoa::Buffer::new().format(sum).as_bytes(), &hasher);
    drop(hash);
    exec.reply.int(sum);
    Ok(())
}

fn hincrbyfloat(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let by = Extended::parse(args[2]).ok_or(Fault::NotFloat)?;
    if !by.is_finite() {
        return Err(Fault::Text("ERR value is NaN or Infinity"));
    }
    let hasher = exec.store.hasher();
    let mut hash = exec.store.edit_or_new(args[0], Hash::new)?;
    let current = match hash.get(args[1]) {
        Some(value) => Extended::parse(value).ok_or(Fault::Text("ERR hash value is not a float"))?,
        None => Extended::from_integer(0),
    };
    let sum = current.checked_add(by);
    let sum = sum.ok_or(Fault::Text("ERR increment would produce NaN or Infinity"))?;
    let mut text = Vec::new();
    sum.write(&mut text);
    hash.set(args[1], &text, &hasher);
    drop(hash);
    exec.reply.bulk(&text);
    Ok(())
}

fn hstrlen(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let len = exec.store.get::<Hash>(args[0])?.map_or(0, |hash| hash.value_len(args[1]));
    exec.reply.int(len as i64);
    Ok(())
}

fn hrandfield(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let [key, count, rest @ ..] = args else {
        let Exec { store, reply, rng, .. } = exec;
        match store.get::<Hash>(args[0])? {
            Some(hash) => {
                let pair = hash.get_index(sample::one(rng, hash.len()));
                reply.bulk(pair.expect("the index is below the length").0);
            }
            None => reply.null(),
        }
        return Ok(());
    };
    let count = signed_count(count)?;
    let with_values = match rest {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withvalues") => true,
        _ => return Err(Fault::Syntax),
    };
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Fault::OutOfRange);
    }
    let Exec { store, reply, rng, .. } = exec;
    let Some(hash) = store.get::<Hash>(key)? else {
        reply.array(0);
        return Ok(());
    };
    let chosen = sample::choose(rng, hash.len(), count)?;
    let nested = with_values && reply.resp3();
    reply.array(if with_values && !nested { 2 * chosen.len() } else { chosen.len() });
    for index in chosen {
        let (field, value) = hash.get_index(index).expect("the index is below the length");
        if nested {
            reply.array(2);
        }
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
    }
    Ok(())
}

fn hscan(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let from = cursor(args[1])?;
    let Exec { store, reply, .. } = exec;
    let Some(hash) = store.get::<Hash>(args[0])? else {
        reply.array(2);
        reply.bulk(b"0");
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[2..])?;
    // Once to count, once to answer: nothing is copied.
    let mut found = 0;
    let next = hash.scan(from, options.count, |field, _| found += usize::from(options.wants(field)));
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    reply.array(2 * found);
    hash.scan(from, options.count, |field, value| {
        if options.wants(field) {
            reply.bulk(field);
            reply.bulk(value);
        }
    });
    Ok(())
}
