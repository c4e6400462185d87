//! `string.find`, `match`, `gmatch`, `gsub` and `rep`: those of the string library whose work the
//! instruction count does not see.

use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use crate::meter::Meter;
use crate::native::{Args, Failure, Given, add, text};
use crate::pattern::{Broken, Capture, Matcher};

/// Longest string that `string.rep` makes, in bytes.
const REPEATED_BYTES_MAX: f64 = 128.0 * 1024.0 * 1024.0;
/// Steps of a pattern that cost as much as one instruction.
const STEPS_PER_INSTRUCTION: u64 = 4;

/// Puts them into `natives`.
pub fn install(lua: &Lua, natives: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    add(lua, natives, meter, "rep", rep)?;
    add(lua, natives, meter, "find", |args| search(args, true))?;
    add(lua, natives, meter, "match", |args| search(args, false))?;
    add(lua, natives, meter, "step", step)?;
    add(lua, natives, meter, "replace", replace)?;
    natives.set("string_names", vec!["rep", "find", "match"])
}

fn rep(args: &Args<'_>) -> Given {
    let (part, count) = (args.string(0)?, args.number(1)?);
    let part = part.as_bytes();
    let count = if count >= 1.0 { count.floor() } else { 0.0 };
    if part.is_empty() || count == 0.0 {
        return text(args, b"");
    }
    if part.len() as f64 * count > REPEATED_BYTES_MAX {
        return Err(Failure::Said("resulting string too large".into()));
    }
    args.meter.charge_bytes(part.len() * count as usize)?;
    text(args, &part.repeat(count as usize))
}

/// A 1-based position, negative from the end, as an index into `len` bytes.
fn start_of(position: f64, len: usize) -> usize {
    let from_end = if position < 0.0 { position + len as f64 } else { position - 1.0 };
    // The conversion saturates, and what is beyond the end means the end.
    (from_end.max(0.0) as usize).min(len)
}

fn failed(broken: Broken, args: &Args<'_>) -> Failure {
    match broken {
        Broken::Pattern(text) => Failure::Said(text.into()),
        Broken::Steps => Failure::Engine(args.meter.end(crate::meter::Stop::Instructions)),
    }
}

fn search(args: &Args<'_>, find: bool) -> Given {
    let (subject, pattern) = (args.string(0)?, args.string(1)?);
    let start = start_of(args.number_or(2, 1.0)?, subject.as_bytes().len());
    let plain = find && !matches!(args.value(3), Value::Nil | Value::Boolean(false));
    let (bytes, pattern_bytes) = (subject.as_bytes(), pattern.as_bytes());
    let special = |byte: &u8| b"^$*+?.([%-".contains(byte);
    if find && (plain || !pattern_bytes.iter().any(special)) {
        args.meter.charge_bytes(bytes.len() - start)?;
        let Some(at) = position(&bytes[start..], &pattern_bytes, args)? else { return none() };
        let (from, to) = (start + at + 1, start + at + pattern_bytes.len());
        return Ok(MultiValue::from_vec(vec![Value::Number(from as f64), Value::Number(to as f64)]));
    }
    let Some((from, to, captures)) = seek(args, &subject, &pattern, start, Anchor::Obeyed)? else {
        return none();
    };
    let mut values = Vec::new();
    if find {
        values.extend([Value::Number((from + 1) as f64), Value::Number(to as f64)]);
        if captures == [Capture::Range(from, to)] && !pattern_bytes.contains(&b'(') {
            return Ok(MultiValue::from_vec(values));
        }
    }
    push_captures(args, &subject, &captures, &mut values)?;
    Ok(MultiValue::from_vec(values))
}

/// The first place of `needle`, charging for the work of looking for it.
fn position(hay: &[u8], needle: &[u8], args: &Args<'_>) -> Result<Option<usize>, Failure> {
    let Some(&first) = needle.first() else { return Ok(Some(0)) };
    let mut at = 0;
    while let Some(next) = hay[at..].iter().position(|&byte| byte == first) {
        at += next;
        args.meter.charge(1)?;
        let same = hay[at..].iter().zip(needle).take_while(|(a, b)| a == b).count();
        args.meter.charge_bytes(same)?;
        if same == needle.len() {
            return Ok(Some(at));
        }
        at += 1;
    }
    Ok(None)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Obeyed,
    Literal,
}

type Found = Option<(usize, usize, Vec<Capture>)>;

fn seek(
    args: &Args<'_>,
    subject: &LuaString,
    pattern: &LuaString,
    start: usize,
    anchor: Anchor,
) -> Result<Found, Failure> {
    let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
    let (anchored, pattern) = match &*pattern {
        [b'^', rest @ ..] if anchor == Anchor::Obeyed => (true, rest),
        all => (false, all),
    };
    let steps = args.meter.left().saturating_mul(STEPS_PER_INSTRUCTION);
    let mut matcher = Matcher::new(&subject, pattern, steps);
    let mut found = None;
    for at in start..=subject.len() {
        if let Some(end) = matcher.at(at).map_err(|broken| failed(broken, args))? {
            let captures = matcher.captures(at, end).map_err(|broken| failed(broken, args))?;
            found = Some((at, end, captures));
            break;
        }
        if anchored {
            break;
        }
    }
    args.meter.charge((steps - matcher.steps) / STEPS_PER_INSTRUCTION)?;
    Ok(found)
}

fn push_captures(
    args: &Args<'_>,
    subject: &LuaString,
    captures: &[Capture],
    values: &mut Vec<Value>,
) -> Result<(), Failure> {
    let subject = subject.as_bytes();
    for capture in captures {
        values.push(match *capture {
            Capture::Position(at) => Value::Number(at as f64),
            Capture::Range(from, to) => {
                args.meter.charge_bytes(to - from)?;
                Value::String(args.lua.create_string(&subject[from..to])?)
            }
        });
    }
    Ok(())
}

/// `step(s, p, at, anchor)`: the first match at or after `at`: start, end and captures, or nothing.
fn step(args: &Args<'_>) -> Given {
    let (subject, pattern) = (args.string(0)?, args.string(1)?);
    let start = args.number(2)? as usize - 1;
    let anchor = if args.value(3) == Value::Boolean(true) { Anchor::Obeyed } else { Anchor::Literal };
    if start > subject.as_bytes().len() {
        return Ok(MultiValue::new());
    }
    let Some((from, to, captures)) = seek(args, &subject, &pattern, start, anchor)? else {
        return Ok(MultiValue::new());
    };
    let mut values = vec![Value::Number((from + 1) as f64), Value::Number(to as f64)];
    push_captures(args, &subject, &captures, &mut values)?;
    Ok(MultiValue::from_vec(values))
}

/// `replace(s, p, repl, most)`: `gsub` with a string.
fn replace(args: &Args<'_>) -> Given {
    let (subject, pattern, with) = (args.string(0)?, args.string(1)?, args.string(2)?);
    let most = args.number_or(3, f64::MAX)?;
    let (bytes, with) = (subject.as_bytes(), with.as_bytes());
    let anchored = pattern.as_bytes().first() == Some(&b'^');
    let (mut out, mut at, mut count) = (Vec::new(), 0usize, 0.0);
    while count < most && at <= bytes.len() {
        let Some((from, to, captures)) = seek(args, &subject, &pattern, at, Anchor::Obeyed)? else { break };
        count += 1.0;
        out.extend_from_slice(&bytes[at..from]);
        expand(&mut out, &bytes, &with, &captures, from..to)?;
        args.meter.charge(4)?;
        args.meter.charge_bytes(to - at)?;
        if out.len() as f64 > REPEATED_BYTES_MAX {
            return Err(Failure::Said("resulting string too large".into()));
        }
        at = to;
        if to == from {
            out.extend(bytes.get(at));
            at += 1;
        }
        if anchored {
            break;
        }
    }
    out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    let mut given = text(args, &out)?;
    given.push_back(Value::Number(count));
    Ok(given)
}

fn expand(
    out: &mut Vec<u8>,
    subject: &[u8],
    with: &[u8],
    captures: &[Capture],
    whole: std::ops::Range<usize>,
) -> Result<(), Failure> {
    let mut rest = with.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'0') => out.extend_from_slice(&subject[whole.clone()]),
            Some(digit) if digit.is_ascii_digit() => match captures.get(usize::from(digit - b'1')) {
                Some(&Capture::Range(from, to)) => out.extend_from_slice(&subject[from..to]),
                Some(Capture::Position(at)) => out.extend_from_slice(at.to_string().as_bytes()),
                None => return Err(Failure::Said("invalid capture index".into())),
            },
            Some(&other) => out.push(other),
            None => {}
        }
    }
    Ok(())
}

fn none() -> Given {
    Ok(MultiValue::from_vec(vec![Value::Nil]))
}
