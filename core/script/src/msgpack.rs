//! `cmsgpack`: MessagePack as lua-cmsgpack 0.4 reads and writes it.

use std::rc::Rc;

use kernel::codec::Reader;
use mlua::{Lua, MultiValue, Table, Value};

use crate::meter::Meter;
use crate::native::{Args, Failure, Given, add, text};

/// Tables within tables that are written; deeper ones become nil, as in lua-cmsgpack.
const PACK_DEPTH_MAX: usize = 16;
/// Values within values that are read.
const UNPACK_DEPTH_MAX: usize = 200;

/// Puts the library into `libraries`.
pub fn install(lua: &Lua, libraries: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    let library = lua.create_table()?;
    library.set("_NAME", "cmsgpack")?;
    library.set("_VERSION", "lua-cmsgpack 0.4.0")?;
    add(lua, &library, meter, "pack", |args| {
        if args.len() == 0 {
            return Err(args.bad(0, "MessagePack pack needs input."));
        }
        let mut out = Vec::new();
        for at in 0..args.len() {
            put(&args.value(at), &mut out, 0)?;
        }
        text(args, &out)
    })?;
    add(lua, &library, meter, "unpack", |args| unpack(args, None, 0.0))?;
    add(lua, &library, meter, "unpack_one", |args| {
        let offset = args.number_or(1, 0.0)?;
        unpack(args, Some(1), offset)
    })?;
    add(lua, &library, meter, "unpack_limit", |args| {
        let (limit, offset) = (args.number(1)?, args.number_or(2, 0.0)?);
        unpack(args, Some(limit.max(0.0) as usize), offset)
    })?;
    libraries.set("cmsgpack", library)
}

fn put(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), Failure> {
    match value {
        Value::Boolean(value) => out.push(0xC2 | u8::from(*value)),
        Value::Integer(value) => put_integer(*value, out),
        Value::Number(value) => {
            if f64::from(*value as f32) == *value {
                out.push(0xCA);
                out.extend_from_slice(&(*value as f32).to_be_bytes());
            } else {
                out.push(0xCB);
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
        Value::String(text) => {
            let text = text.as_bytes();
            match text.len() {
                0..=31 => out.push(0xA0 | text.len() as u8),
                32..=0xFF => out.extend_from_slice(&[0xD9, text.len() as u8]),
                len => put_len(len, 0xDA, out),
            }
            out.extend_from_slice(&text);
        }
        Value::Table(table) if depth < PACK_DEPTH_MAX => return put_table(table, out, depth),
        _ => out.push(0xC0),
    }
    Ok(())
}

/// A length of 16 bits behind `tag`, or of 32 bits behind the next tag.
fn put_len(len: usize, tag: u8, out: &mut Vec<u8>) {
    if let Ok(len) = u16::try_from(len) {
        out.push(tag);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(tag + 1);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }
}

fn put_integer(value: i64, out: &mut Vec<u8>) {
    match value {
        0..=0x7F => out.push(value as u8),
        -32..=-1 => out.push(value as i8 as u8),
        0x80..=0xFF => out.extend_from_slice(&[0xCC, value as u8]),
        -0x80..=-33 => out.extend_from_slice(&[0xD0, value as i8 as u8]),
        0x100..=0xFFFF => sized(0xCD, &(value as u16).to_be_bytes(), out),
        -0x8000..=-0x81 => sized(0xD1, &(value as i16).to_be_bytes(), out),
        0x1_0000..=0xFFFF_FFFF => sized(0xCE, &(value as u32).to_be_bytes(), out),
        -0x8000_0000..=-0x8001 => sized(0xD2, &(value as i32).to_be_bytes(), out),
        0x1_0000_0000.. => sized(0xCF, &value.to_be_bytes(), out),
        ..=-0x8000_0001 => sized(0xD3, &value.to_be_bytes(), out),
    }
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn put_table(table: &Table, out: &mut Vec<u8>, depth: usize) -> Result<(), Failure> {
    let (mut count, mut array) = (0usize, true);
    let mut largest = 0;
    for pair in table.pairs::<Value, Value>() {
        let key = pair?.0;
        match key {
            Value::Integer(index) if index > 0 => largest = largest.max(index as usize),
            Value::Integer(_) | Value::Number(_) | Value::String(_) | Value::Boolean(_) => array = false,
            _ => {
                let why = "a table with tables or functions as keys has no order to pack it in";
                return Err(Failure::Said(why.into()));
            }
        }
        count += 1;
    }
    if array && largest == count {
        match count {
            0..=15 => out.push(0x90 | count as u8),
            _ => put_len(count, 0xDC, out),
        }
        for at in 1..=count {
            put(&table.raw_get(at)?, out, depth + 1)?;
        }
        return Ok(());
    }
    match count {
        0..=15 => out.push(0x80 | count as u8),
        _ => put_len(count, 0xDE, out),
    }
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        put(&key, out, depth + 1)?;
        put(&value, out, depth + 1)?;
    }
    Ok(())
}

fn unpack(args: &Args<'_>, limit: Option<usize>, offset: f64) -> Given {
    let source = args.string(0)?;
    let source = source.as_bytes();
    args.meter.charge_bytes(4 * source.len())?;
    if offset < 0.0 || offset > source.len() as f64 {
        return Err(Failure::Said(format!(
            "Start offset {offset} greater than input length {}.",
            source.len()
        )));
    }
    let mut reader = Reader::new(&source[offset as usize..]);
    let mut values = Vec::new();
    while !reader.is_empty() && limit.is_none_or(|limit| values.len() < limit) {
        /// Results that fit Lua's stack.
        const RESULTS_MAX: usize = 7000;
        if values.len() >= RESULTS_MAX {
            return Err(Failure::Said("too many values to unpack".into()));
        }
        values.push(take(args, &mut reader, 0)?);
    }
    if limit.is_some() {
        let at = if reader.is_empty() { -1.0 } else { (source.len() - reader.rest().len()) as f64 };
        values.insert(0, Value::Number(at));
    }
    Ok(MultiValue::from_vec(values))
}

fn take(args: &Args<'_>, reader: &mut Reader<'_>, depth: usize) -> Result<Value, Failure> {
    let missing = |_| Failure::Said("Missing bytes in input.".into());
    if depth > UNPACK_DEPTH_MAX {
        return Err(Failure::Said("too many nested values".into()));
    }
    let tag = reader.u8().map_err(missing)?;
    let mut bytes = |count: usize| reader.take(count).map_err(missing);
    let mut unsigned = |count: usize| -> Result<u64, Failure> {
        Ok(bytes(count)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    let signed = |value: u64, count: usize| {
        let shift = 64 - 8 * count as u32;
        Value::Number(((value << shift) as i64 >> shift) as f64)
    };
    let (shape, len) = match tag {
        0..=0x7F => return Ok(Value::Number(f64::from(tag))),
        0xE0..=0xFF => return Ok(Value::Number(f64::from(tag as i8))),
        0xC0 => return Ok(Value::Nil),
        0xC2 | 0xC3 => return Ok(Value::Boolean(tag == 0xC3)),
        0xCA => return Ok(Value::Number(f64::from(f32::from_bits(unsigned(4)? as u32)))),
        0xCB => return Ok(Value::Number(f64::from_bits(unsigned(8)?))),
        0xCC..=0xCF => return Ok(Value::Number(unsigned(1 << (tag - 0xCC))? as f64)),
        0xD0..=0xD3 => {
            let count = 1 << (tag - 0xD0);
            return Ok(signed(unsigned(count)?, count));
        }
        0xA0..=0xBF => (Shape::Text, u64::from(tag & 0x1F)),
        0xD9..=0xDB => (Shape::Text, unsigned(1 << (tag - 0xD9))?),
        0xC4..=0xC6 => (Shape::Text, unsigned(1 << (tag - 0xC4))?),
        0x90..=0x9F => (Shape::Array, u64::from(tag & 0x0F)),
        0xDC | 0xDD => (Shape::Array, unsigned(2 << (tag - 0xDC))?),
        0x80..=0x8F => (Shape::Map, u64::from(tag & 0x0F)),
        0xDE | 0xDF => (Shape::Map, unsigned(2 << (tag - 0xDE))?),
        0xC1 | 0xC7..=0xC9 | 0xD4..=0xD8 => return Err(Failure::Said("Bad data format in input.".into())),
    };
    if matches!(shape, Shape::Text) {
        let text = reader.take(len as usize).map_err(missing)?;
        return Ok(Value::String(args.lua.create_string(text)?));
    }
    let table = args.lua.create_table()?;
    for index in 1..=len {
        let key = match shape {
            Shape::Map => take(args, reader, depth + 1)?,
            Shape::Array | Shape::Text => Value::Number(index as f64),
        };
        let value = take(args, reader, depth + 1)?;
        if matches!(key, Value::Nil) || matches!(key, Value::Number(number) if number.is_nan()) {
            return Err(Failure::Said("Bad data format in input.".into()));
        }
        table.raw_set(key, value)?;
    }
    Ok(Value::Table(table))
}

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Array,
    Map,
}
