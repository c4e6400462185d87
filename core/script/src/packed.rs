//! `struct`: Roberto Ierusalimschy's library of packed binary values, as far as Redis offers it.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use crate::meter::Meter;
use crate::native::{Args, Failure, Given, add, one, text};

/// Bytes of the widest integer.
const INTEGER_BYTES_MAX: usize = 32;
/// Largest alignment that `!` sets by itself.
const ALIGNMENT: usize = 8;

/// Puts the library into `libraries`.
pub fn install(lua: &Lua, libraries: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    let library = lua.create_table()?;
    add(lua, &library, meter, "pack", pack)?;
    add(lua, &library, meter, "unpack", unpack)?;
    add(lua, &library, meter, "size", |args| {
        let format = args.string(0)?;
        let format = format.as_bytes();
        let (mut layout, mut total) = (Layout::new(&format), 0usize);
        while let Some((option, size)) = layout.next()? {
            if option == b's' || (option == b'c' && size == 0) {
                return Err(Failure::Said("variable-size format in 'size'".into()));
            }
            total = total.saturating_add(layout.padding(total, option, size)).saturating_add(size);
        }
        one(Value::Number(total as f64))
    })?;
    libraries.set("struct", library)
}

/// A format being read: the byte order and alignment so far.
struct Layout<'a> {
    rest: &'a [u8],
    little: bool,
    align: usize,
}

impl<'a> Layout<'a> {
    const fn new(format: &'a [u8]) -> Layout<'a> {
        Layout { rest: format, little: true, align: 1 }
    }

    /// The number at the front, or `default`.
    fn digits(&mut self, default: usize) -> Result<usize, Failure> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        if count == 0 {
            return Ok(default);
        }
        let parsed = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i32>().ok());
        parsed.map(|n| n as usize).ok_or_else(|| Failure::Said("integral size overflow".into()))
    }

    /// The next option that stands for a value or padding, and its bytes.
    fn next(&mut self) -> Result<Option<(u8, usize)>, Failure> {
        while let Some((&option, rest)) = self.rest.split_first() {
            self.rest = rest;
            match option {
                b' ' => {}
                b'<' => self.little = true,
                b'>' => self.little = false,
                b'!' => {
                    self.align = self.digits(ALIGNMENT)?;
                    if !self.align.is_power_of_two() {
                        return Err(Failure::Said("alignment is not a power of 2".into()));
                    }
                }
                b'b' | b'B' | b'x' => return Ok(Some((option, 1))),
                b'h' | b'H' => return Ok(Some((option, 2))),
                b'l' | b'L' | b'T' | b'd' => return Ok(Some((option, 8))),
                b'f' => return Ok(Some((option, 4))),
                b's' => return Ok(Some((option, 0))),
                b'c' => return Ok(Some((option, self.digits(1)?))),
                b'i' | b'I' => {
                    let size = self.digits(4)?;
                    if size == 0 || size > INTEGER_BYTES_MAX {
                        let why = format!("integral size {size} is larger than limit of {INTEGER_BYTES_MAX}");
                        return Err(Failure::Said(why));
                    }
                    return Ok(Some((option, size)));
                }
                other => {
                    let why = format!("invalid format option '{}'", char::from(other));
                    return Err(Failure::Said(why));
                }
            }
        }
        Ok(None)
    }

    /// Bytes to skip at `at` so that a value of `size` bytes is aligned.
    fn padding(&self, at: usize, option: u8, size: usize) -> usize {
        let align = size.min(self.align);
        if align <= 1 || matches!(option, b'c' | b's' | b'x') || !align.is_power_of_two() {
            return 0;
        }
        (align - (at & (align - 1))) & (align - 1)
    }

    fn ordered(&self, bytes: &mut [u8]) {
        if !self.little {
            bytes.reverse();
        }
    }
}

fn pack(args: &Args<'_>) -> Given {
    let format = args.string(0)?;
    let format = format.as_bytes();
    let (mut layout, mut out, mut at) = (Layout::new(&format), Vec::new(), 1);
    while let Some((option, size)) = layout.next()? {
        out.resize(out.len() + layout.padding(out.len(), option, size), 0);
        let start = out.len();
        match option {
            b'x' => out.push(0),
            b's' | b'c' => {
                let data = args.string(at)?;
                let data = data.as_bytes();
                let size = if option == b's' || size == 0 { data.len() } else { size };
                if data.len() < size {
                    return Err(args.bad(at, "string too short"));
                }
                out.extend_from_slice(&data[..size]);
                out.extend((option == b's').then_some(0));
            }
            b'f' => out.extend_from_slice(&(args.number(at)? as f32).to_le_bytes()),
            b'd' => out.extend_from_slice(&args.number(at)?.to_le_bytes()),
            _ => {
                let value = args.number(at)?;
                let whole = if value < 0.0 { value as i64 } else { value as u64 as i64 };
                let fill = if whole < 0 && value < 0.0 { 0xFF } else { 0 };
                out.extend((0..size).map(|byte| whole.to_le_bytes().get(byte).copied().unwrap_or(fill)));
            }
        }
        if !matches!(option, b'x' | b's' | b'c') {
            layout.ordered(&mut out[start..]);
        }
        at += usize::from(option != b'x');
        args.meter.charge_bytes(out.len() - start + 16)?;
    }
    text(args, &out)
}

fn unpack(args: &Args<'_>) -> Given {
    /// Results that fit Lua's stack.
    const RESULTS_MAX: usize = 7000;
    let (format, data) = (args.string(0)?, args.string(1)?);
    let (format, data) = (format.as_bytes(), data.as_bytes());
    let start = args.number_or(2, 1.0)?;
    if start.is_nan() || start < 1.0 {
        return Err(args.bad(2, "offset must be 1 or greater"));
    }
    let short = || Failure::Said("data string too short".into());
    let (mut layout, mut at, mut values) = (Layout::new(&format), start as usize - 1, Vec::new());
    while let Some((option, mut size)) = layout.next()? {
        args.meter.charge(1)?;
        at = at.saturating_add(layout.padding(at, option, size));
        let rest = data.get(at..).ok_or_else(short)?;
        let mut skipped = 0;
        if option == b's' {
            let end = rest.iter().position(|&byte| byte == 0);
            size = end.ok_or_else(|| Failure::Said("unfinished string in data".into()))?;
            skipped = 1;
        } else if option == b'c' && size == 0 {
            // The length is the value read before, which it replaces.
            let Some(Value::Number(len)) = values.pop() else {
                return Err(Failure::Said("format 'c0' needs a previous size".into()));
            };
            size = len.max(0.0) as usize;
        }
        let field = rest.get(..size).ok_or_else(short)?;
        args.meter.charge_bytes(size)?;
        at += size + skipped;
        if option == b'x' {
            continue;
        }
        values.push(field_value(args, &layout, option, field)?);
        if values.len() > RESULTS_MAX {
            return Err(Failure::Said("too many results to unpack".into()));
        }
    }
    values.push(Value::Number((at + 1) as f64));
    Ok(MultiValue::from_vec(values))
}

fn field_value(args: &Args<'_>, layout: &Layout<'_>, option: u8, field: &[u8]) -> Result<Value, Failure> {
    if matches!(option, b's' | b'c') {
        return Ok(Value::String(args.lua.create_string(field)?));
    }
    let mut bytes = field.to_vec();
    layout.ordered(&mut bytes);
    let negative = option.is_ascii_lowercase() && bytes.last().is_some_and(|&top| top >= 0x80);
    let size = bytes.len();
    bytes.resize(8, if negative { 0xFF } else { 0 });
    let raw = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes were made"));
    Ok(Value::Number(match option {
        b'f' => f64::from(f32::from_bits(raw as u32)),
        b'd' => f64::from_bits(raw),
        _ if negative && size > 0 => raw as i64 as f64,
        _ => raw as f64,
    }))
}
