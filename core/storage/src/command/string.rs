//! Strings and numbers in strings.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::Millis;
use kernel::limit::VALUE_BYTES_MAX;

use crate::command::{ALL, Command, Flags, ONE, PAIRS};
use crate::object::extended::Extended;
use crate::object::{Value, parse_canonical};
use crate::store::Ttl;
use crate::{Exec, Fault};

/// `SET`'s number, whose options decide whether it looks at the old value.
pub const SET: u16 = 0x101;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(0x100, "get", 2, ONE, get).with(Flags::FAST),
    Command::write(SET, "set", -3, ONE, set).with(Flags::DENY_OOM.and(Flags::BLIND)),
    Command::write(0x102, "setnx", 3, ONE, setnx).with(Flags::DENY_OOM.and(Flags::FAST).and(Flags::BLIND)),
    Command::write(0x103, "setex", 4, ONE, setex).with(Flags::DENY_OOM.and(Flags::BLIND)),
    Command::write(0x104, "psetex", 4, ONE, psetex).with(Flags::DENY_OOM.and(Flags::BLIND)),
    Command::write(0x105, "getset", 3, ONE, getset).with(Flags::DENY_OOM.and(Flags::FAST)),
    Command::write(0x106, "getdel", 2, ONE, getdel).with(Flags::FAST),
    Command::write(0x107, "getex", -2, ONE, getex).with(Flags::FAST),
    Command::read(0x108, "mget", -2, ALL, mget).with(Flags::FAST.and(Flags::DIVISIBLE)),
    Command::write(0x109, "mset", -3, PAIRS, mset)
        .with(Flags::DENY_OOM.and(Flags::BLIND).and(Flags::DIVISIBLE)),
    Command::write(0x10A, "msetnx", -3, PAIRS, msetnx).with(Flags::DENY_OOM.and(Flags::BLIND)),
    Command::write(0x10B, "append", 3, ONE, append).with(Flags::DENY_OOM.and(Flags::FAST)),
    Command::read(0x10C, "strlen", 2, ONE, strlen).with(Flags::FAST),
    Command::write(0x10D, "setrange", 4, ONE, setrange).with(Flags::DENY_OOM),
    Command::read(0x10E, "getrange", 4, ONE, getrange),
    Command::read(0x10F, "substr", 4, ONE, getrange),
    Command::write(0x110, "incr", 2, ONE, incr).with(Flags::DENY_OOM.and(Flags::FAST)),
    Command::write(0x111, "decr", 2, ONE, decr).with(Flags::DENY_OOM.and(Flags::FAST)),
    Command::write(0x112, "incrby", 3, ONE, incrby).with(Flags::DENY_OOM.and(Flags::FAST)),
    Command::write(0x113, "decrby", 3, ONE, decrby).with(Flags::DENY_OOM.and(Flags::FAST)),
    Command::write(0x114, "incrbyfloat", 3, ONE, incrbyfloat).with(Flags::DENY_OOM.and(Flags::FAST)),
];

fn get(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match exec.store.string(args[0], &mut itoa::Buffer::new())? {
        Some(bytes) => exec.reply.bulk(bytes),
        None => exec.reply.null(),
    }
    Ok(())
}

// --- setting -----------------------------------------------------------------------------------

fn set(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (key, value) = (args[0], args[1]);
    if let [_, _] = args {
        exec.store.set(key, Value::from_bytes(value), Ttl::Clear)?;
        exec.reply.ok();
        return Ok(());
    }
    let options = Options::parse(&args[2..], For::Set)?;
    let ttl = match options.expiry {
        Expiry::Unsaid | Expiry::Persist => Ttl::Clear,
        Expiry::Keep => Ttl::Keep,
        Expiry::In(unit, amount) => Ttl::At(deadline(amount, unit, exec.now(), "set")?),
    };
    exec.store.check_key(key)?;
    if options.get {
        get(exec, &[key])?;
    }
    if options.only_if.is_some_and(|exists| exists != exec.store.exists(key)) {
        if !options.get {
            exec.reply.null();
        }
        return Ok(());
    }
    exec.store.set(key, Value::from_bytes(value), ttl)?;
    if !options.get {
        exec.reply.ok();
    }
    Ok(())
}

/// Whose options are read: `SET` and `GETEX` know different ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Set,
    GetEx,
}

/// What is asked besides key and value.
struct Options<'a> {
    expiry: Expiry<'a>,
    only_if: Option<bool>,
    get: bool,
}

#[derive(Clone, Copy)]
enum Expiry<'a> {
    Unsaid,
    Keep,
    Persist,
    In(Unit, &'a [u8]),
}

impl<'a> Options<'a> {
    fn parse(mut rest: &[&'a [u8]], command: For) -> Result<Options<'a>, Fault> {
        let mut options = Options { expiry: Expiry::Unsaid, only_if: None, get: false };
        while let [option, tail @ ..] = rest {
            rest = tail;
            let is = |name: &[u8], owner: For| command == owner && option.eq_ignore_ascii_case(name);
            if is(b"nx", For::Set) && options.only_if != Some(true) {
                options.only_if = Some(false);
            } else if is(b"xx", For::Set) && options.only_if != Some(false) {
                options.only_if = Some(true);
            } else if is(b"get", For::Set) {
                options.get = true;
            } else if is(b"keepttl", For::Set) && matches!(options.expiry, Expiry::Unsaid | Expiry::Keep) {
                options.expiry = Expiry::Keep;
            } else if is(b"persist", For::GetEx) && matches!(options.expiry, Expiry::Unsaid | Expiry::Persist)
            {
                options.expiry = Expiry::Persist;
            } else if let (Some(unit), [amount, tail @ ..]) = (unit_of(option), tail) {
                // The same option may come again; the last one counts.
                match options.expiry {
                    Expiry::Unsaid => {}
                    Expiry::In(before, _) if before == unit => {}
                    _ => return Err(Fault::Syntax),
                }
                rest = tail;
                options.expiry = Expiry::In(unit, amount);
            } else {
                return Err(Fault::Syntax);
            }
        }
        Ok(options)
    }
}

/// How an expiry is given: in seconds or milliseconds, from now or from the epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Milliseconds of one.
    pub millis: i64,
    /// Counted from now.
    pub relative: bool,
}

fn unit_of(option: &[u8]) -> Option<Unit> {
    let table: [(&[u8], i64, bool); 4] =
        [(b"ex", 1000, true), (b"px", 1, true), (b"exat", 1000, false), (b"pxat", 1, false)];
    let row = table.iter().find(|row| option.eq_ignore_ascii_case(row.0))?;
    Some(Unit { millis: row.1, relative: row.2 })
}

/// The moment that `amount` in `unit` names; it must be positive and before the end of time.
pub(crate) fn deadline(amount: &[u8], unit: Unit, now: Millis, name: &'static str) -> Result<Millis, Fault> {
    let amount = parse_canonical(amount).ok_or(Fault::NotInteger)?;
    let base = if unit.relative { now.0 as i64 } else { 0 };
    let at = amount.checked_mul(unit.millis).and_then(|millis| millis.checked_add(base));
    match at {
        Some(at) if amount > 0 => Ok(Millis(at as u64)),
        _ => Err(Fault::Expire(name)),
    }
}

fn setnx(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let absent = !exec.store.exists(args[0]);
    if absent {
        exec.store.set(args[0], Value::from_bytes(args[1]), Ttl::Clear)?;
    }
    exec.reply.int(i64::from(absent));
    Ok(())
}

fn setex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let at = deadline(args[1], Unit { millis: 1000, relative: true }, exec.now(), "setex")?;
    exec.store.set(args[0], Value::from_bytes(args[2]), Ttl::At(at))?;
    exec.reply.ok();
    Ok(())
}

fn psetex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let at = deadline(args[1], Unit { millis: 1, relative: true }, exec.now(), "psetex")?;
    exec.store.set(args[0], Value::from_bytes(args[2]), Ttl::At(at))?;
    exec.reply.ok();
    Ok(())
}

fn getset(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.store.check_key(args[0])?;
    get(exec, &args[..1])?;
    exec.store.set(args[0], Value::from_bytes(args[1]), Ttl::Clear)
}

fn getdel(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    get(exec, args)?;
    exec.store.remove(args[0]);
    Ok(())
}

fn getex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let options = Options::parse(&args[1..], For::GetEx)?;
    // As in Redis, the amount is looked at only if there is something to expire.
    if exec.store.string(args[0], &mut itoa::Buffer::new())?.is_none() {
        exec.reply.null();
        return Ok(());
    }
    let ttl = match options.expiry {
        Expiry::Unsaid | Expiry::Keep => None,
        Expiry::Persist => Some(Ttl::Clear),
        Expiry::In(unit, amount) => Some(Ttl::At(deadline(amount, unit, exec.now(), "getex")?)),
    };
    get(exec, &args[..1])?;
    match ttl {
        Some(Ttl::Clear) if exec.store.expiry(args[0]) == Some(None) => {}
        Some(ttl) => {
            exec.store.expire(args[0], ttl);
        }
        None => {}
    }
    Ok(())
}

fn mget(exec: &mut Exec<'_>, keys: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.array(keys.len());
    for key in keys {
        match exec.store.string(key, &mut itoa::Buffer::new()) {
            Ok(Some(bytes)) => exec.reply.bulk(bytes),
            Ok(None) | Err(Fault::WrongType) => exec.reply.null(),
            // The array's length is announced, so the fault stands in the value's place.
            Err(fault) => exec.reply.fault(&fault),
        }
    }
    Ok(())
}

fn check_pairs(exec: &Exec<'_>, args: &[&[u8]], name: &'static str) -> Result<(), Fault> {
    if args.len() % 2 == 1 {
        return Err(Fault::Arity(name));
    }
    args.iter().step_by(2).try_for_each(|key| exec.store.check_key(key))
}

fn set_pairs(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    args.chunks_exact(2).try_for_each(|pair| exec.store.set(pair[0], Value::from_bytes(pair[1]), Ttl::Clear))
}

fn mset(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    check_pairs(exec, args, "mset")?;
    set_pairs(exec, args)?;
    exec.reply.ok();
    Ok(())
}

fn msetnx(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    check_pairs(exec, args, "msetnx")?;
    let free = args.iter().step_by(2).all(|key| !exec.store.exists(key));
    if free {
        set_pairs(exec, args)?;
    }
    exec.reply.int(i64::from(free));
    Ok(())
}

// --- parts of strings --------------------------------------------------------------------------

fn length(exec: &mut Exec<'_>, key: &[u8]) -> Result<Option<usize>, Fault> {
    Ok(exec.store.string(key, &mut itoa::Buffer::new())?.map(<[u8]>::len))
}

fn append(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (key, tail) = (args[0], args[1]);
    let total = match length(exec, key)? {
        None => {
            exec.store.set(key, Value::from_bytes(tail), Ttl::Clear)?;
            tail.len()
        }
        Some(before) if before + tail.len() > VALUE_BYTES_MAX => return Err(Fault::StringTooLong),
        Some(_) => exec.store.edit_string(key, |bytes| {
            bytes.extend_from_slice(tail);
            bytes.len()
        })?,
    };
    exec.reply.int(total as i64);
    Ok(())
}

fn strlen(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let length = length(exec, args[0])?.unwrap_or(0);
    exec.reply.int(length as i64);
    Ok(())
}

fn setrange(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (key, patch) = (args[0], args[2]);
    let offset = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    let offset = usize::try_from(offset).map_err(|_| Fault::Text("ERR offset is out of range"))?;
    let before = length(exec, key)?.unwrap_or(0);
    let total = match offset.checked_add(patch.len()) {
        _ if patch.is_empty() => before,
        Some(end) if end <= VALUE_BYTES_MAX => exec.store.edit_string(key, |bytes| {
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(patch);
            bytes.len()
        })?,
        _ => return Err(Fault::StringTooLong),
    };
    exec.reply.int(total as i64);
    Ok(())
}

fn getrange(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let start = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    let end = parse_canonical(args[2]).ok_or(Fault::NotInteger)?;
    let mut scratch = itoa::Buffer::new();
    let bytes = exec.store.string(args[0], &mut scratch)?.unwrap_or(b"");
    match clamp(start, end, bytes.len()) {
        Some((first, last)) => exec.reply.bulk(&bytes[first..=last]),
        None => exec.reply.bulk(b""),
    }
    Ok(())
}

/// The range from `start` to `end` (negative: from the end) within `len` places, as first and last;
/// `None` if it is empty. An end before the first place is taken for the first, as Redis does.
pub(super) fn clamp(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len = len as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (first, last) = (from_end(start), from_end(end).min(len - 1));
    (first <= last && len > 0).then_some((first as usize, last as usize))
}

// --- numbers -----------------------------------------------------------------------------------

fn add(exec: &mut Exec<'_>, key: &[u8], delta: i64) -> Result<(), Fault> {
    let sum = exec.store.edit_integer(key, |old| old.checked_add(delta).ok_or(Fault::Overflow))?;
    exec.reply.int(sum);
    Ok(())
}

fn incr(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    add(exec, args[0], 1)
}

fn decr(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    add(exec, args[0], -1)
}

fn incrby(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let delta = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    add(exec, args[0], delta)
}

fn decrby(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let delta = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    let delta = delta.checked_neg().ok_or(Fault::Text("ERR decrement would overflow"))?;
    add(exec, args[0], delta)
}

fn incrbyfloat(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let old = match exec.store.string(args[0], &mut itoa::Buffer::new())? {
        Some(bytes) => Extended::parse(bytes).ok_or(Fault::NotFloat)?,
        None => Extended::from_integer(0),
    };
    let delta = Extended::parse(args[1]).ok_or(Fault::NotFloat)?;
    let sum = old.checked_add(delta).ok_or(Fault::Text("ERR increment would produce NaN or Infinity"))?;
    let mut text = Vec::new();
    sum.write(&mut text);
    exec.store.set(args[0], Value::Bytes(Box::from(text.as_slice())), Ttl::Keep)?;
    exec.reply.bulk(&text);
    Ok(())
}
