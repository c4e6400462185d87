//! `DUMP` and `RESTORE`: a value as bytes that only Archipel reads.
//!
//! `payload := "ARCV", version: u8, body, crc32: u32le` over all before it; the body is
//! [`Value::encode`]'s. Redis's own payloads are refused, with the text that Redis has for foreign ones.

use alloc::vec::Vec;

use kernel::Millis;
use kernel::hash::KeyHasher;

use crate::command::{Command, Flags, ONE};
use crate::object::{Value, parse_canonical};
use crate::store::Ttl;
use crate::{Exec, Fault};

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(0x280, "dump", 2, ONE, dump),
    Command::write(0x281, "restore", -4, ONE, restore).with(Flags::DENY_OOM.and(Flags::BLIND)),
];

const MAGIC: [u8; 4] = *b"ARCV";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// The payload of `value`, which is not evicted.
#[must_use]
pub fn payload(value: &Value) -> Vec<u8> {
    let mut payload = Vec::from(MAGIC);
    payload.push(VERSION);
    value.encode(&mut payload);
    let checksum = crc32fast::hash(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// The value in a payload.
///
/// # Errors
/// The texts of Redis: another format or version, or damaged; or sound but not a value.
pub fn value(payload: &[u8], hasher: &KeyHasher) -> Result<Value, Fault> {
    let body = payload.split_last_chunk::<CHECKSUM_BYTES>().and_then(|(sealed, checksum)| {
        let sound = crc32fast::hash(sealed) == u32::from_le_bytes(*checksum);
        sealed.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION]).filter(|_| sound)
    });
    let body = body.ok_or(Fault::Text("ERR DUMP payload version or checksum are wrong"))?;
    Value::decode(body, hasher).map_err(|_| Fault::Text("ERR Bad data format"))
}

fn dump(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match exec.store.value(args[0])? {
        Some(value) => exec.reply.bulk(&payload(value)),
        None => exec.reply.null(),
    }
    Ok(())
}

struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

fn options(mut rest: &[&[u8]]) -> Result<Options, Fault> {
    let mut options = Options { replace: false, absolute: false, idle_seconds: None, frequency: None };
    while let [option, tail @ ..] = rest {
        rest = tail;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        let integer = |text: &[u8]| parse_canonical(text).ok_or(Fault::NotInteger);
        match tail {
            _ if is(b"replace") => options.replace = true,
            _ if is(b"absttl") => options.absolute = true,
            [seconds, tail @ ..] if is(b"idletime") && options.frequency.is_none() => {
                rest = tail;
                let seconds = u64::try_from(integer(seconds)?);
                let seconds = seconds.map_err(|_| Fault::Text("ERR Invalid IDLETIME value, must be >= 0"))?;
                options.idle_seconds = Some(seconds);
            }
            [counter, tail @ ..] if is(b"freq") && options.idle_seconds.is_none() => {
                rest = tail;
                let counter = u8::try_from(integer(counter)?);
                options.frequency = Some(
                    counter.map_err(|_| Fault::Text("ERR Invalid FREQ value, must be >= 0 and <= 255"))?,
                );
            }
            _ => return Err(Fault::Syntax),
        }
    }
    Ok(options)
}

fn restore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (key, now) = (args[0], exec.now());
    let options = options(&args[3..])?;
    if !options.replace && exec.store.exists(key) {
        return Err(Fault::Text("BUSYKEY Target key name already exists."));
    }
    let ttl = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    let ttl = u64::try_from(ttl).map_err(|_| Fault::Text("ERR Invalid TTL value, must be >= 0"))?;
    let value = value(args[2], &exec.store.hasher())?;
    exec.store.check_key(key)?;
    let ttl = match (ttl, options.absolute) {
        (0, _) => Ttl::Clear,
        (at, true) => Ttl::At(Millis(at)),
        (millis, false) => Ttl::At(Millis(now.0.saturating_add(millis))),
    };
    exec.store.remove(key);
    if !matches!(ttl, Ttl::At(at) if at <= now) {
        exec.store.set(key, value, ttl)?;
        if let Some(seconds) = options.idle_seconds {
            exec.store.set_idle_seconds(key, seconds);
        }
        if let Some(counter) = options.frequency {
            exec.store.set_use_count(key, counter);
        }
    }
    exec.reply.ok();
    Ok(())
}
