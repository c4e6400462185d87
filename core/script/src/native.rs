//! Library functions written in Rust. They answer `true` and their results, or `false` and a message;
//! the prelude raises it, so that scripts see plain Lua errors.

use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use crate::meter::Meter;

/// Why a library function gives no result.
pub enum Failure {
    /// An error for the script.
    Said(String),
    /// The script must end.
    Engine(mlua::Error),
}

impl From<mlua::Error> for Failure {
    fn from(error: mlua::Error) -> Failure {
        Failure::Engine(error)
    }
}

/// What a library function gives.
pub type Given = Result<MultiValue, Failure>;

/// The arguments of one call.
pub struct Args<'a> {
    /// The state it runs in.
    pub lua: &'a Lua,
    /// What it may spend.
    pub meter: &'a Meter,
    name: &'static str,
    values: MultiValue,
}

impl Args<'_> {
    /// Argument `at`, counted from 0; nil if there is none.
    pub fn value(&self, at: usize) -> Value {
        self.values.get(at).cloned().unwrap_or(Value::Nil)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// A string, or a number spelled out.
    pub fn string(&self, at: usize) -> Result<LuaString, Failure> {
        let value = self.value(at);
        let kind = kind_of(&value);
        let coerced = match value {
            Value::String(_) | Value::Integer(_) | Value::Number(_) => self.lua.coerce_string(value)?,
            _ => None,
        };
        coerced.ok_or_else(|| self.bad(at, &format!("string expected, got {kind}")))
    }

    /// A number, or a string that is one.
    pub fn number(&self, at: usize) -> Result<f64, Failure> {
        let value = self.value(at);
        let kind = kind_of(&value);
        let coerced = match value {
            Value::String(_) | Value::Integer(_) | Value::Number(_) => self.lua.coerce_number(value)?,
            _ => None,
        };
        coerced.ok_or_else(|| self.bad(at, &format!("number expected, got {kind}")))
    }

    /// The same, with a default if it is absent or nil.
    pub fn number_or(&self, at: usize, default: f64) -> Result<f64, Failure> {
        if self.value(at).is_nil() { Ok(default) } else { self.number(at) }
    }

    /// The error about argument `at`.
    pub fn bad(&self, at: usize, why: &str) -> Failure {
        Failure::Said(format!("bad argument #{} to '{}' ({why})", at + 1, self.name))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "no value",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// Puts `function` into `natives`.
pub fn add(
    lua: &Lua,
    natives: &Table,
    meter: &Rc<Meter>,
    name: &'static str,
    function: impl Fn(&Args<'_>) -> Given + 'static,
) -> mlua::Result<()> {
    let meter = meter.clone();
    let function = lua.create_function(move |lua, values: MultiValue| {
        let args = Args { lua, meter: &meter, name, values };
        match function(&args) {
            Ok(mut results) => {
                results.push_front(Value::Boolean(true));
                Ok(results)
            }
            Err(Failure::Said(text)) => {
                let text = lua.create_string(text)?;
                Ok(MultiValue::from_vec(vec![Value::Boolean(false), Value::String(text)]))
            }
            Err(Failure::Engine(error)) => Err(error),
        }
    })?;
    natives.set(name, function)
}

/// One result.
pub fn one(value: Value) -> Given {
    Ok(MultiValue::from_vec(vec![value]))
}

/// One string.
pub fn text(args: &Args<'_>, bytes: &[u8]) -> Given {
    args.meter.charge_bytes(bytes.len())?;
    one(Value::String(args.lua.create_string(bytes)?))
}

/// All of them.
pub fn install(lua: &Lua, natives: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    crate::text::install(lua, natives, meter)?;
    natives.set("null", Value::NULL)?;
    let libraries = lua.create_table()?;
    crate::json::install(lua, &libraries, meter)?;
    crate::bits::install(lua, &libraries, meter)?;
    crate::msgpack::install(lua, &libraries, meter)?;
    crate::packed::install(lua, &libraries, meter)?;
    natives.set("libraries", libraries)?;
    let charged = meter.clone();
    natives.set("charge", lua.create_function(move |_, cost: u64| charged.charge(cost))?)?;
    add(lua, natives, meter, "sha1hex", |args| {
        use sha1::Digest as _;
        let data = args.string(0)?;
        args.meter.charge_bytes(16 * data.as_bytes().len())?;
        let digest = sha1::Sha1::digest(&*data.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        text(args, hex.as_bytes())
    })
}
