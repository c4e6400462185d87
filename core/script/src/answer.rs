//! Answers as bytes between Lua and the store: what a command answered a script, and a script a client.
//!
//! Both ways go through one flat form. A command's answers can then be kept and given again, and a
//! script's answer is known to be whole before its first byte is sent.

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use mlua::{Lua, LuaString, Table, Value};
use storage::Reply;

use crate::number::put_g;

/// Tables within tables that a script may answer.
const DEPTH_MAX: usize = 500;

const SIMPLE: u8 = b'+';
const ERROR: u8 = b'-';
const INT: u8 = b':';
const BULK: u8 = b'$';
const NULL: u8 = b'_';
const ARRAY: u8 = b'*';
const MAP: u8 = b'%';
const SET: u8 = b'~';
const DOUBLE: u8 = b',';
const BOOLEAN: u8 = b'#';
const VERBATIM: u8 = b'=';

/// The protocol a script talks: `redis.setresp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resp {
    /// RESP2: no maps, sets, doubles or booleans.
    Two,
    /// RESP3.
    Three,
}

/// Writes down what a command answers.
pub struct Recorder<'a> {
    /// Where to.
    pub out: &'a mut Vec<u8>,
    /// In which protocol.
    pub resp: Resp,
}

impl Recorder<'_> {
    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.out.push(tag);
        put_bytes(self.out, bytes);
    }

    fn counted(&mut self, tag: u8, len: usize) {
        self.out.push(tag);
        put_varint(self.out, len as u64);
    }
}

impl Reply for Recorder<'_> {
    /// Front-ends encode for themselves, never for a script.
    fn raw(&mut self, _: &[u8]) {}

    fn simple(&mut self, text: &str) {
        self.tagged(SIMPLE, text.as_bytes());
    }
    fn error(&mut self, text: &str) {
        self.tagged(ERROR, text.as_bytes());
    }
    fn int(&mut self, value: i64) {
        self.out.push(INT);
        self.out.extend_from_slice(&value.to_le_bytes());
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.tagged(BULK, bytes);
    }
    fn null(&mut self) {
        self.out.push(NULL);
    }
    fn null_array(&mut self) {
        self.out.push(NULL);
    }
    fn array(&mut self, len: usize) {
        self.counted(ARRAY, len);
    }
    fn map(&mut self, len: usize) {
        match self.resp {
            Resp::Two => self.counted(ARRAY, 2 * len),
            Resp::Three => self.counted(MAP, len),
        }
    }
    fn set(&mut self, len: usize) {
        match self.resp {
            Resp::Two => self.counted(ARRAY, len),
            Resp::Three => self.counted(SET, len),
        }
    }
    fn double(&mut self, value: f64) {
        match self.resp {
            Resp::Two => {
                let mut text = Vec::with_capacity(24);
                put_g(&mut text, value, 17);
                self.tagged(BULK, &text);
            }
            Resp::Three => {
                self.out.push(DOUBLE);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
    fn boolean(&mut self, value: bool) {
        match self.resp {
            Resp::Two => self.int(i64::from(value)),
            Resp::Three => self.out.extend_from_slice(&[BOOLEAN, u8::from(value)]),
        }
    }
    fn verbatim(&mut self, text: &str) {
        match self.resp {
            Resp::Two => self.bulk(text.as_bytes()),
            Resp::Three => self.tagged(VERBATIM, text.as_bytes()),
        }
    }
    fn resp3(&self) -> bool {
        self.resp == Resp::Three
    }
}

/// Gives recorded answers to the client.
///
/// # Errors
/// The bytes were not written by this module.
pub fn play(reader: &mut Reader<'_>, reply: &mut dyn Reply) -> Result<(), DecodeError> {
    while !reader.is_empty() {
        match reader.u8()? {
            SIMPLE => reply.simple(&String::from_utf8_lossy(reader.bytes()?)),
            ERROR => reply.error(&String::from_utf8_lossy(reader.bytes()?)),
            INT => reply.int(reader.u64()? as i64),
            BULK => reply.bulk(reader.bytes()?),
            NULL => reply.null(),
            ARRAY => reply.array(reader.len()?),
            MAP => reply.map(reader.len()?),
            SET => reply.set(reader.len()?),
            DOUBLE => reply.double(f64::from_bits(reader.u64()?)),
            BOOLEAN => reply.boolean(reader.u8()? != 0),
            VERBATIM => reply.verbatim(&String::from_utf8_lossy(reader.bytes()?)),
            _ => return Err(DecodeError::Invalid),
        }
    }
    Ok(())
}

/// The next recorded answer as a Lua value, and whether it is an error.
pub fn to_lua(lua: &Lua, reader: &mut Reader<'_>, resp: Resp) -> mlua::Result<(bool, Value)> {
    let broken = |_| mlua::Error::runtime("a recorded answer is cut");
    let tag = reader.u8().map_err(broken)?;
    let field = |name: &str, value: Value| -> mlua::Result<Value> {
        let table = lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    };
    let value = match tag {
        SIMPLE => field("ok", string(lua, reader.bytes().map_err(broken)?)?)?,
        ERROR => return Ok((true, field("err", string(lua, reader.bytes().map_err(broken)?)?)?)),
        INT => Value::Number(reader.u64().map_err(broken)? as i64 as f64),
        BULK => string(lua, reader.bytes().map_err(broken)?)?,
        NULL if resp == Resp::Two => Value::Boolean(false),
        NULL => Value::Nil,
        ARRAY => {
            let len = reader.len().map_err(broken)?;
            let table = lua.create_table_with_capacity(len.min(reader.rest().len()), 0)?;
            for at in 1..=len {
                table.raw_seti(at, to_lua(lua, reader, resp)?.1)?;
            }
            Value::Table(table)
        }
        MAP => {
            let table = lua.create_table()?;
            for _ in 0..reader.len().map_err(broken)? {
                let key = to_lua(lua, reader, resp)?.1;
                table.raw_set(key, to_lua(lua, reader, resp)?.1)?;
            }
            field("map", Value::Table(table))?
        }
        SET => {
            let table = lua.create_table()?;
            for _ in 0..reader.len().map_err(broken)? {
                table.raw_set(to_lua(lua, reader, resp)?.1, true)?;
            }
            field("set", Value::Table(table))?
        }
        DOUBLE => field("double", Value::Number(f64::from_bits(reader.u64().map_err(broken)?)))?,
        BOOLEAN => Value::Boolean(reader.u8().map_err(broken)? != 0),
        VERBATIM => {
            let inner = lua.create_table_with_capacity(0, 2)?;
            inner.raw_set("string", string(lua, reader.bytes().map_err(broken)?)?)?;
            inner.raw_set("format", "txt")?;
            field("verbatim_string", Value::Table(inner))?
        }
        _ => return Err(mlua::Error::runtime("a recorded answer has an unknown tag")),
    };
    Ok((false, value))
}

fn string(lua: &Lua, bytes: &[u8]) -> mlua::Result<Value> {
    lua.create_string(bytes).map(Value::String)
}

/// Records a script's result as the client will be answered.
pub fn from_lua(value: &Value, out: &mut Recorder<'_>) -> mlua::Result<()> {
    let start = out.out.len();
    if put_value(value, out, 0)? == Depth::Exceeded {
        out.out.truncate(start);
        out.error("ERR reached lua stack limit");
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Depth {
    Fine,
    Exceeded,
}

fn put_value(value: &Value, out: &mut Recorder<'_>, depth: usize) -> mlua::Result<Depth> {
    if depth >= DEPTH_MAX {
        return Ok(Depth::Exceeded);
    }
    match value {
        Value::String(text) => out.bulk(&text.as_bytes()),
        Value::Integer(value) => out.int(*value),
        Value::Number(value) => out.int(*value as i64),
        Value::Boolean(value) if out.resp == Resp::Three => out.boolean(*value),
        Value::Boolean(true) => out.int(1),
        Value::Table(table) => return put_table(table, out, depth),
        _ => out.null(),
    }
    Ok(Depth::Fine)
}

fn put_table(table: &Table, out: &mut Recorder<'_>, depth: usize) -> mlua::Result<Depth> {
    if let Some(text) = text_field(table, "err")? {
        out.error(&text.to_string_lossy());
        return Ok(Depth::Fine);
    }
    if let Some(text) = text_field(table, "ok")? {
        out.simple(&text.to_string_lossy());
        return Ok(Depth::Fine);
    }
    if let Some(value) = number_of(&table.raw_get("double")?) {
        // The client's own protocol decides how it is spelled.
        out.out.push(DOUBLE);
        out.out.extend_from_slice(&value.to_le_bytes());
        return Ok(Depth::Fine);
    }
    if let Value::Table(map) = table.raw_get("map")? {
        let (at, mut len) = (out.out.len(), 0);
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair?;
            len += 1;
            for part in [key, value] {
                if put_value(&part, out, depth + 1)? == Depth::Exceeded {
                    return Ok(Depth::Exceeded);
                }
            }
        }
        insert_head(out.out, at, MAP, len);
        return Ok(Depth::Fine);
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let (at, mut len) = (out.out.len(), 0);
        for pair in set.pairs::<Value, Value>() {
            len += 1;
            if put_value(&pair?.0, out, depth + 1)? == Depth::Exceeded {
                return Ok(Depth::Exceeded);
            }
        }
        insert_head(out.out, at, SET, len);
        return Ok(Depth::Fine);
    }
    if let Some(text) = text_field(table, "big_number")? {
        out.bulk(&text.as_bytes());
        return Ok(Depth::Fine);
    }
    if let Value::Table(inner) = table.raw_get("verbatim_string")?
        && let Some(text) = text_field(&inner, "string")?
    {
        out.tagged(VERBATIM, &text.as_bytes());
        return Ok(Depth::Fine);
    }
    put_array(table, out, depth)
}

fn put_array(table: &Table, out: &mut Recorder<'_>, depth: usize) -> mlua::Result<Depth> {
    let mut len = 0;
    while !table.raw_get::<Value>(len + 1)?.is_nil() {
        len += 1;
    }
    out.array(len);
    for at in 1..=len {
        if put_value(&table.raw_get(at)?, out, depth + 1)? == Depth::Exceeded {
            return Ok(Depth::Exceeded);
        }
    }
    Ok(Depth::Fine)
}

/// Puts the head of an aggregate before its elements, which are counted only once they are written.
fn insert_head(out: &mut Vec<u8>, at: usize, tag: u8, len: u64) {
    let mut head = vec![tag];
    put_varint(&mut head, len);
    out.splice(at..at, head);
}

fn text_field(table: &Table, name: &str) -> mlua::Result<Option<LuaString>> {
    Ok(match table.raw_get(name)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

const fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Number(value) => Some(*value),
        _ => None,
    }
}
