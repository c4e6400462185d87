//! Bits of strings. Bit 0 is the highest bit of the first byte.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::limit::VALUE_BYTES_MAX;

use crate::command::{Command, Flags, Keys, ONE};
use crate::object::{Value, parse_canonical};
use crate::store::Ttl;
use crate::{Exec, Fault};

/// This family's rows; `BITFIELD` has its own.
pub const COMMANDS: &[Command] = &[
    Command::write(0x180, "setbit", 4, ONE, setbit).with(Flags::DENY_OOM),
    Command::read(0x181, "getbit", 3, ONE, getbit).with(Flags::FAST),
    Command::read(0x182, "bitcount", -2, ONE, bitcount),
    Command::read(0x183, "bitpos", -3, ONE, bitpos),
    Command::write(0x184, "bitop", -4, Keys::Range { first: 2, last: -1, step: 1 }, bitop)
        .with(Flags::DENY_OOM),
];

pub(super) const BAD_OFFSET: Fault = Fault::Text("ERR bit offset is not an integer or out of range");

/// The bit that `number` (in units of `scale` bits) names, within the longest string.
pub(super) fn offset(number: &[u8], scale: i64) -> Result<u64, Fault> {
    let bit = parse_canonical(number).and_then(|number| number.checked_mul(scale)).ok_or(BAD_OFFSET)?;
    u64::try_from(bit).ok().filter(|bit| bit >> 3 < VALUE_BYTES_MAX as u64).ok_or(BAD_OFFSET)
}

pub(super) fn bit_of(bytes: &[u8], at: u64) -> bool {
    bytes.get((at >> 3) as usize).is_some_and(|byte| byte >> (7 - (at & 7)) & 1 == 1)
}

pub(super) fn set_bit(bytes: &mut [u8], at: u64, bit: bool) {
    let byte = &mut bytes[(at >> 3) as usize];
    let mask = 0x80 >> (at & 7);
    *byte = if bit { *byte | mask } else { *byte & !mask };
}

fn setbit(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let at = offset(args[1], 1)?;
    let bit = match parse_canonical(args[2]) {
        Some(bit @ 0..=1) => bit == 1,
        _ => return Err(Fault::Text("ERR bit is not an integer or out of range")),
    };
    let old = exec.store.edit_string(args[0], |bytes| {
        let needed = (at >> 3) as usize + 1;
        if bytes.len() < needed {
            bytes.resize(needed, 0);
        }
        let old = bit_of(bytes, at);
        set_bit(bytes, at, bit);
        old
    })?;
    exec.reply.int(i64::from(old));
    Ok(())
}

fn getbit(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let at = offset(args[1], 1)?;
    let mut scratch = itoa::Buffer::new();
    let bytes = exec.store.string(args[0], &mut scratch)?.unwrap_or(b"");
    exec.reply.int(i64::from(bit_of(bytes, at)));
    Ok(())
}

/// Whether a range counts bytes or bits.
fn counts_bits(unit: &[u8]) -> Result<bool, Fault> {
    if unit.eq_ignore_ascii_case(b"bit") {
        Ok(true)
    } else if unit.eq_ignore_ascii_case(b"byte") {
        Ok(false)
    } else {
        Err(Fault::Syntax)
    }
}

/// First and last bit of the range `start..=end` in a string of `len` bytes; `None` if it is empty.
fn bit_range(start: i64, end: i64, len: usize, bits: bool) -> Option<(u64, u64)> {
    let units = if bits { len as i64 * 8 } else { len as i64 };
    let from_end = |at: i64| if at < 0 { at.saturating_add(units).max(0) } else { at };
    let (first, last) = (from_end(start), from_end(end).min(units - 1));
    if first > last {
        return None;
    }
    let (first, last) = (first as u64, last as u64);
    Some(if bits { (first, last) } else { (first * 8, last * 8 + 7) })
}

fn bitcount(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let mut scratch = itoa::Buffer::new();
    // As in Redis, a range is looked at only if there is something to count.
    let Some(bytes) = exec.store.string(args[0], &mut scratch)? else {
        exec.reply.int(0);
        return Ok(());
    };
    let (start, end, bits) = match args[1..] {
        [] => (0, -1, false),
        [start, end, ref unit @ ..] if unit.len() <= 1 => {
            let start = parse_canonical(start).ok_or(Fault::NotInteger)?;
            let end = parse_canonical(end).ok_or(Fault::NotInteger)?;
            (start, end, unit.first().map_or(Ok(false), |unit| counts_bits(unit))?)
        }
        _ => return Err(Fault::Syntax),
    };
    let range =
        if start < 0 && end < 0 && start > end { None } else { bit_range(start, end, bytes.len(), bits) };
    exec.reply.int(range.map_or(0, |(first, last)| ones(bytes, first, last)));
    Ok(())
}

fn ones(bytes: &[u8], first: u64, last: u64) -> i64 {
    let whole = &bytes[(first >> 3) as usize..=(last >> 3) as usize];
    let (words, rest) = whole.as_chunks::<8>();
    let in_words: u32 = words.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum();
    let in_rest: u32 = rest.iter().map(|byte| byte.count_ones()).sum();
    let before = whole[0] & !(0xFF >> (first & 7));
    let after = whole[whole.len() - 1] & ((0x7Fu16 >> (last & 7)) as u8);
    i64::from(in_words) + i64::from(in_rest) - i64::from(before.count_ones()) - i64::from(after.count_ones())
}

fn bitpos(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let bit = match parse_canonical(args[1]).ok_or(Fault::NotInteger)? {
        bit @ 0..=1 => bit == 1,
        _ => return Err(Fault::Text("ERR The bit argument must be 1 or 0.")),
    };
    let mut scratch = itoa::Buffer::new();
    let Some(bytes) = exec.store.string(args[0], &mut scratch)? else {
        exec.reply.int(if bit { -1 } else { 0 });
        return Ok(());
    };
    let integer = |text: &[u8]| parse_canonical(text).ok_or(Fault::NotInteger);
    let (start, end, bits) = match args[2..] {
        [] => (0, None, false),
        [start] => (integer(start)?, None, false),
        [start, end] => (integer(start)?, Some(integer(end)?), false),
        [start, end, unit] => {
            let start = integer(start)?;
            let bits = counts_bits(unit)?;
            (start, Some(integer(end)?), bits)
        }
        _ => return Err(Fault::Syntax),
    };
    let found = bit_range(start, end.unwrap_or(-1), bytes.len(), bits).map(|(first, last)| {
        match (position(bytes, bit, first, last), end) {
            (Some(at), _) => at as i64,
            // Without an end the string is as if zeros followed it.
            (None, None) if !bit => last as i64 + 1,
            (None, _) => -1,
        }
    });
    exec.reply.int(found.unwrap_or(-1));
    Ok(())
}

fn position(bytes: &[u8], bit: bool, first: u64, last: u64) -> Option<u64> {
    let full = if bit { 0x00 } else { 0xFF };
    let mut at = first;
    while at <= last {
        if at & 7 == 0 && bytes[(at >> 3) as usize] == full {
            at += 8;
        } else if bit_of(bytes, at) == bit {
            return Some(at);
        } else {
            at += 1;
        }
    }
    None
}

#[derive(Clone, Copy)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

fn bitop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let is = |name: &[u8]| args[0].eq_ignore_ascii_case(name);
    let operation = match () {
        () if is(b"and") => Operation::And,
        () if is(b"or") => Operation::Or,
        () if is(b"xor") => Operation::Xor,
        () if is(b"not") => Operation::Not,
        () => return Err(Fault::Syntax),
    };
    let (target, sources) = (args[1], &args[2..]);
    if matches!(operation, Operation::Not) && sources.len() != 1 {
        return Err(Fault::Text("ERR BITOP NOT must be called with a single source key."));
    }
    exec.store.check_key(target)?;
    let mut longest = 0;
    for source in sources {
        let length = exec.store.string(source, &mut itoa::Buffer::new())?.map_or(0, <[u8]>::len);
        longest = longest.max(length);
    }
    let mut result: Vec<u8> = Vec::new();
    for (place, source) in sources.iter().enumerate() {
        let mut scratch = itoa::Buffer::new();
        let bytes = exec.store.string(source, &mut scratch)?.unwrap_or(b"");
        if place == 0 {
            result.reserve_exact(longest);
            result.extend_from_slice(bytes);
            result.resize(longest, 0);
            continue;
        }
        // A shorter string counts as followed by zeros.
        let (common, beyond) = result.split_at_mut(bytes.len());
        let pairs = common.iter_mut().zip(bytes);
        match operation {
            Operation::And => {
                pairs.for_each(|(into, byte)| *into &= byte);
                beyond.fill(0);
            }
            Operation::Or => pairs.for_each(|(into, byte)| *into |= byte),
            Operation::Xor => pairs.for_each(|(into, byte)| *into ^= byte),
            Operation::Not => unreachable!("NOT has one source"),
        }
    }
    if matches!(operation, Operation::Not) {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    if result.is_empty() {
        exec.store.remove(target);
    } else {
        let value = Value::Buffer(Box::new(result));
        exec.store.set(target, value, Ttl::Clear)?;
    }
    exec.reply.int(longest as i64);
    Ok(())
}
