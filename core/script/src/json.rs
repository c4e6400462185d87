//! `cjson`: JSON as lua-cjson 2.1 reads and writes it.

use std::rc::Rc;

use mlua::{Lua, Table, Value};

use crate::meter::Meter;
use crate::native::{Args, Failure, add, one, text};
use crate::number::put_g;

/// Values within values, both ways; lua-cjson's default.
const DEPTH_MAX: usize = 1000;
/// Significant digits of a number; lua-cjson's default.
const PRECISION: usize = 14;
/// An array whose largest index is above this, and above twice its elements, is excessively sparse.
const SPARSE_SAFE: usize = 10;

/// Puts the library into `libraries`.
pub fn install(lua: &Lua, libraries: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    let library = lua.create_table()?;
    library.set("null", Value::NULL)?;
    library.set("_NAME", "cjson")?;
    library.set("_VERSION", "2.1.0")?;
    add(lua, &library, meter, "encode", |args| {
        if args.len() != 1 {
            return Err(args.bad(0, "expected 1 argument"));
        }
        let mut out = Vec::new();
        encode(&args.value(0), &mut out, 0)?;
        text(args, &out)
    })?;
    add(lua, &library, meter, "decode", |args| {
        if args.len() != 1 {
            return Err(args.bad(0, "expected 1 argument"));
        }
        let source = args.string(0)?;
        let source = source.as_bytes();
        args.meter.charge_bytes(4 * source.len())?;
        let mut decoder = Decoder { args, source: &source, at: 0 };
        let value = decoder.value(0)?;
        decoder.blank();
        if decoder.at < decoder.source.len() {
            return Err(decoder.unexpected("the end"));
        }
        one(value)
    })?;
    libraries.set("cjson", library)
}

fn encode(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), Failure> {
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::Integer(value) => encode_number(*value as f64, out)?,
        Value::Number(value) => encode_number(*value, out)?,
        Value::String(text) => encode_text(&text.as_bytes(), out),
        Value::Table(table) => return encode_table(table, out, depth + 1),
        other => {
            let kind = other.type_name();
            return Err(Failure::Said(format!("Cannot serialise {kind}: type not supported")));
        }
    }
    Ok(())
}

fn encode_number(value: f64, out: &mut Vec<u8>) -> Result<(), Failure> {
    if !value.is_finite() {
        return Err(Failure::Said("Cannot serialise number: must not be NaN or Inf".into()));
    }
    put_g(out, value, PRECISION);
    Ok(())
}

fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// The length of a table that is an array; `None` if it is an object (or empty).
fn array_len(table: &Table) -> Result<Option<usize>, Failure> {
    let (mut largest, mut count) = (0usize, 0usize);
    for pair in table.pairs::<Value, Value>() {
        let index = match pair?.0 {
            Value::Integer(index) if index > 0 => index as usize,
            _ => return Ok(None),
        };
        largest = largest.max(index);
        count += 1;
    }
    if largest > SPARSE_SAFE && largest > 2 * count {
        return Err(Failure::Said("Cannot serialise table: excessively sparse array".into()));
    }
    Ok((largest > 0).then_some(largest))
}

fn encode_table(table: &Table, out: &mut Vec<u8>, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(Failure::Said(format!("Cannot serialise, excessive depth ({depth})")));
    }
    if let Some(len) = array_len(table)? {
        out.push(b'[');
        for at in 1..=len {
            if at > 1 {
                out.push(b',');
            }
            encode(&table.raw_get(at)?, out, depth)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    let mut first = true;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        match key {
            Value::String(key) => encode_text(&key.as_bytes(), out),
            Value::Integer(_) | Value::Number(_) => {
                out.push(b'"');
                encode(&key, out, depth)?;
                out.push(b'"');
            }
            _ => {
                let why = "Cannot serialise table: table key must be a number or string";
                return Err(Failure::Said(why.into()));
            }
        }
        out.push(b':');
        encode(&value, out, depth)?;
    }
    out.push(b'}');
    Ok(())
}

struct Decoder<'a> {
    args: &'a Args<'a>,
    source: &'a [u8],
    at: usize,
}

impl Decoder<'_> {
    fn blank(&mut self) {
        while self.source.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn unexpected(&self, expected: &str) -> Failure {
        let token = match self.source.get(self.at) {
            None => "T_END",
            Some(b'{') => "T_OBJ_BEGIN",
            Some(b'}') => "T_OBJ_END",
            Some(b'[') => "T_ARR_BEGIN",
            Some(b']') => "T_ARR_END",
            Some(b',') => "T_COMMA",
            Some(b':') => "T_COLON",
            Some(b'"') => "T_STRING",
            Some(b'0'..=b'9' | b'-') => "T_NUMBER",
            Some(_) => "invalid token",
        };
        Failure::Said(format!("Expected {expected} but found {token} at character {}", self.at + 1))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Failure> {
        if depth > DEPTH_MAX {
            return Err(Failure::Said(format!(
                "Found too many nested data structures ({depth}) at character {}",
                self.at
            )));
        }
        self.blank();
        match self.source.get(self.at) {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Value::String(self.args.lua.create_string(self.text()?)?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words: [(&[u8], Value); 3] = [
                    (b"true", Value::Boolean(true)),
                    (b"false", Value::Boolean(false)),
                    (b"null", Value::NULL),
                ];
                for (word, value) in words {
                    if self.source[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.unexpected("value"))
            }
        }
    }

    fn number(&mut self) -> Result<Value, Failure> {
        let rest = &self.source[self.at..];
        let len = rest.iter().take_while(|byte| b"+-.eE0123456789".contains(byte)).count();
        let parsed = std::str::from_utf8(&rest[..len]).ok().and_then(|text| text.parse::<f64>().ok());
        let Some(value) = parsed else { return Err(self.unexpected("value")) };
        self.at += len;
        Ok(Value::Number(value))
    }

    /// Whether the next token is `token`, which is then taken.
    fn takes(&mut self, token: u8) -> bool {
        self.blank();
        let found = self.source.get(self.at) == Some(&token);
        self.at += usize::from(found);
        found
    }

    fn array(&mut self, depth: usize) -> Result<Value, Failure> {
        self.at += 1;
        let table = self.args.lua.create_table()?;
        if self.takes(b']') {
            return Ok(Value::Table(table));
        }
        for index in 1.. {
            table.raw_seti(index, self.value(depth)?)?;
            if self.takes(b']') {
                break;
            }
            if !self.takes(b',') {
                return Err(self.unexpected("comma or array end"));
            }
        }
        Ok(Value::Table(table))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Failure> {
        self.at += 1;
        let table = self.args.lua.create_table()?;
        if self.takes(b'}') {
            return Ok(Value::Table(table));
        }
        loop {
            self.blank();
            if self.source.get(self.at) != Some(&b'"') {
                return Err(self.unexpected("object key string"));
            }
            let key = self.args.lua.create_string(self.text()?)?;
            if !self.takes(b':') {
                return Err(self.unexpected("colon"));
            }
            table.raw_set(key, self.value(depth)?)?;
            if self.takes(b'}') {
                return Ok(Value::Table(table));
            }
            if !self.takes(b',') {
                return Err(self.unexpected("comma or object end"));
            }
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, Failure> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let Some(&byte) = self.source.get(self.at) else { return Err(self.unexpected("string end")) };
            self.at += 1;
            match byte {
                b'"' => return Ok(out),
                b'\\' => self.escape(&mut out)?,
                0..=31 => {
                    self.at -= 1;
                    return Err(self.unexpected("value"));
                }
                other => out.push(other),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(&letter) = self.source.get(self.at) else { return Err(self.unexpected("escape code")) };
        self.at += 1;
        out.push(match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex4()?;
                if (0xD800..0xDC00).contains(&code) && self.source[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hex4()?;
                    code = 0x10000 + ((code - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF);
                }
                let letter = char::from_u32(code).ok_or_else(|| self.unexpected("unicode escape"))?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.unexpected("escape code")),
        });
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, Failure> {
        let digits = self.source.get(self.at..self.at + 4);
        let code = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        self.at += 4 * usize::from(code.is_some());
        code.ok_or_else(|| self.unexpected("unicode escape"))
    }
}
