//! Strings and numbers in strings.

use kernel::Millis;

use crate::command::{Command, Flags, ONE};
use crate::object::{Value, parse_canonical};
use crate::store::Ttl;
use crate::{Exec, Fault};

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(0x100, "get", 2, ONE, get).with(Flags::FAST),
    Command::write(0x101, "set", -3, ONE, set).with(Flags::DENY_OOM),
];

fn get(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match exec.store.string(args[0], &mut itoa::Buffer::new())? {
        Some(bytes) => exec.reply.bulk(bytes),
        None => exec.reply.null(),
    }
    Ok(())
}

/// What `SET` was asked besides the value.
struct SetOptions {
    ttl: Ttl,
    only_if: Option<bool>,
    get: bool,
}

fn set(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (key, value) = (args[0], args[1]);
    let options = match &args[2..] {
        [] => SetOptions { ttl: Ttl::Clear, only_if: None, get: false },
        options => set_options(options, exec.now())?,
    };
    if options.get {
        match exec.store.string(key, &mut itoa::Buffer::new())? {
            Some(bytes) => exec.reply.bulk(bytes),
            None => exec.reply.null(),
        }
    }
    if options.only_if.is_some_and(|exists| exists != exec.store.exists(key)) {
        if !options.get {
            exec.reply.null();
        }
        return Ok(());
    }
    exec.store.set(key, Value::from_bytes(value), options.ttl)?;
    if !options.get {
        exec.reply.ok();
    }
    Ok(())
}

fn set_options(mut rest: &[&[u8]], now: Millis) -> Result<SetOptions, Fault> {
    let mut options = SetOptions { ttl: Ttl::Clear, only_if: None, get: false };
    while let [option, tail @ ..] = rest {
        rest = tail;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        if is(b"nx") && options.only_if != Some(true) {
            options.only_if = Some(false);
        } else if is(b"xx") && options.only_if != Some(false) {
            options.only_if = Some(true);
        } else if is(b"get") {
            options.get = true;
        } else if is(b"keepttl") && options.ttl == Ttl::Clear {
            options.ttl = Ttl::Keep;
        } else if let (Some(unit), Ttl::Clear, [amount, tail @ ..]) = (unit_of(option), options.ttl, tail) {
            rest = tail;
            options.ttl = Ttl::At(deadline(amount, unit, now, "set")?);
        } else {
            return Err(Fault::Syntax);
        }
    }
    Ok(options)
}

/// How an expiry is given: in seconds or milliseconds, from now or from the epoch.
#[derive(Clone, Copy)]
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
