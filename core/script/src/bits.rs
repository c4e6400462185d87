//! `bit`: LuaBitOp's operations on 32 bits.

use std::rc::Rc;

use mlua::{Lua, Table, Value};

use crate::meter::Meter;
use crate::native::{Args, Failure, add, one, text};

/// Puts the library into `libraries`.
pub fn install(lua: &Lua, libraries: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    let library = lua.create_table()?;
    let put = |name: &'static str, operation: fn(&Args<'_>) -> Result<i32, Failure>| {
        add(lua, &library, meter, name, move |args| one(Value::Number(f64::from(operation(args)?))))
    };
    put("tobit", |args| bits(args, 0))?;
    put("bnot", |args| Ok(!bits(args, 0)?))?;
    put("bswap", |args| Ok(bits(args, 0)?.swap_bytes()))?;
    put("band", |args| fold(args, |a, b| a & b))?;
    put("bor", |args| fold(args, |a, b| a | b))?;
    put("bxor", |args| fold(args, |a, b| a ^ b))?;
    put("lshift", |args| Ok(bits(args, 0)?.wrapping_shl(bits(args, 1)? as u32)))?;
    put("rshift", |args| Ok((bits(args, 0)? as u32).wrapping_shr(bits(args, 1)? as u32) as i32))?;
    put("arshift", |args| Ok(bits(args, 0)?.wrapping_shr(bits(args, 1)? as u32)))?;
    put("rol", |args| Ok(bits(args, 0)?.rotate_left(bits(args, 1)? as u32 & 31)))?;
    put("ror", |args| Ok(bits(args, 0)?.rotate_right(bits(args, 1)? as u32 & 31)))?;
    add(lua, &library, meter, "tohex", |args| {
        let digits = if args.len() > 1 { bits(args, 1)? } else { 8 };
        let count = digits.unsigned_abs().min(8) as usize;
        let hex = format!("{:08x}", bits(args, 0)?);
        let hex = &hex[8 - count..];
        if digits < 0 { text(args, hex.to_uppercase().as_bytes()) } else { text(args, hex.as_bytes()) }
    })?;
    libraries.set("bit", library)
}

/// The low 32 bits of the rounded number.
fn bits(args: &Args<'_>, at: usize) -> Result<i32, Failure> {
    Ok(args.number(at)?.round_ties_even() as i64 as i32)
}

fn fold(args: &Args<'_>, operation: fn(i32, i32) -> i32) -> Result<i32, Failure> {
    (1..args.len()).try_fold(bits(args, 0)?, |so_far, at| Ok(operation(so_far, bits(args, at)?)))
}
