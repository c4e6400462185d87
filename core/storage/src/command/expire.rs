//! When keys expire.

use alloc::format;
use alloc::string::String;

use kernel::Millis;

use crate::command::string::Unit;
use crate::command::{Command, Flags, ONE};
use crate::object::parse_canonical;
use crate::store::Ttl;
use crate::{Exec, Fault};

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x210, "expire", -3, ONE, expire).with(Flags::FAST),
    Command::write(0x211, "pexpire", -3, ONE, pexpire).with(Flags::FAST),
    Command::write(0x212, "expireat", -3, ONE, expireat).with(Flags::FAST),
    Command::write(0x213, "pexpireat", -3, ONE, pexpireat).with(Flags::FAST),
    Command::read(0x214, "ttl", 2, ONE, ttl).with(Flags::FAST.and(Flags::BLIND)),
    Command::read(0x215, "pttl", 2, ONE, pttl).with(Flags::FAST.and(Flags::BLIND)),
    Command::read(0x216, "expiretime", 2, ONE, expiretime).with(Flags::FAST.and(Flags::BLIND)),
    Command::read(0x217, "pexpiretime", 2, ONE, pexpiretime).with(Flags::FAST.and(Flags::BLIND)),
    Command::write(0x218, "persist", 2, ONE, persist).with(Flags::FAST),
];

fn expire(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    expire_in(exec, args, Unit { millis: 1000, relative: true }, "expire")
}

fn pexpire(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    expire_in(exec, args, Unit { millis: 1, relative: true }, "pexpire")
}

fn expireat(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    expire_in(exec, args, Unit { millis: 1000, relative: false }, "expireat")
}

fn pexpireat(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    expire_in(exec, args, Unit { millis: 1, relative: false }, "pexpireat")
}

/// When an expiry is to be changed at all.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Conditions, Fault> {
        let mut conditions = Conditions::default();
        for option in options {
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            let flag = match () {
                () if is(b"nx") => &mut conditions.nx,
                () if is(b"xx") => &mut conditions.xx,
                () if is(b"gt") => &mut conditions.gt,
                () if is(b"lt") => &mut conditions.lt,
                () => {
                    let option = String::from_utf8_lossy(option);
                    return Err(Fault::Said(format!("ERR Unsupported option {option}")));
                }
            };
            *flag = true;
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Fault::Text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if gt && lt {
            return Err(Fault::Text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether `old` may become `new`; no expiry counts as the end of time.
    fn allow(&self, old: Option<Millis>, new: i64) -> bool {
        let old = old.map(|old| i64::try_from(old.0).unwrap_or(i64::MAX));
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

fn expire_in(exec: &mut Exec<'_>, args: &[&[u8]], unit: Unit, name: &'static str) -> Result<(), Fault> {
    let conditions = Conditions::parse(&args[2..])?;
    let amount = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    let base = if unit.relative { exec.now().0 as i64 } else { 0 };
    let at = amount.checked_mul(unit.millis).and_then(|millis| millis.checked_add(base));
    let at = at.ok_or(Fault::Expire(name))?;
    let allowed = exec.store.expiry(args[0]).is_some_and(|old| conditions.allow(old, at));
    if allowed {
        // A moment before the epoch has passed as surely as the epoch itself.
        exec.store.expire(args[0], Ttl::At(Millis(u64::try_from(at).unwrap_or(0))));
    }
    exec.reply.int(i64::from(allowed));
    Ok(())
}

/// Answers -2 for no key, -1 for no expiry, or what `shown` makes of it.
fn answer(exec: &mut Exec<'_>, key: &[u8], shown: impl FnOnce(Millis, Millis) -> u64) -> Result<(), Fault> {
    let answer = match exec.store.expiry(key) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => shown(at, exec.now()) as i64,
    };
    exec.reply.int(answer);
    Ok(())
}

/// Whole seconds, to the nearest.
const fn seconds(millis: u64) -> u64 {
    millis.saturating_add(500) / 1000
}

fn ttl(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    answer(exec, args[0], |at, now| seconds(at.0.saturating_sub(now.0)))
}

fn pttl(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    answer(exec, args[0], |at, now| at.0.saturating_sub(now.0))
}

fn expiretime(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    answer(exec, args[0], |at, _| seconds(at.0))
}

fn pexpiretime(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    answer(exec, args[0], |at, _| at.0)
}

fn persist(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let expires = exec.store.expiry(args[0]).flatten().is_some();
    if expires {
        exec.store.expire(args[0], Ttl::Clear);
    }
    exec.reply.int(i64::from(expires));
    Ok(())
}
