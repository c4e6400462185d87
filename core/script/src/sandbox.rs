//! The environment scripts see: Redis's libraries, read-only, and nothing that differs between replicas.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{Function, Lua, LuaOptions, StdLib, Table, Value, chunk::ChunkMode};

use crate::engine::Level;
use crate::meter::Meter;
use crate::native;

/// Where `redis.log` goes.
pub type LogSink = Rc<RefCell<dyn FnMut(Level, &[u8])>>;

const PRELUDE: &str = include_str!("prelude.lua");

/// A Lua state with the libraries that scripts may see.
pub fn new_lua() -> mlua::Result<Lua> {
    let libs = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
    Lua::new_with(libs, LuaOptions::default())
}

/// The entrance to a prepared state.
pub struct Environment {
    /// `run(chunk, dispatch, set_resp, keys, argv)`: success and result, or false and the error.
    pub run: Function,
    leave: Function,
}

impl Environment {
    /// Prepares `lua`.
    pub fn install(lua: &Lua, meter: &Rc<Meter>, log: &LogSink) -> mlua::Result<Environment> {
        let natives = lua.create_table()?;
        native::install(lua, &natives, meter)?;
        install_random(lua, &natives)?;
        install_frame(lua, &natives, meter)?;
        let log = log.clone();
        natives.set(
            "log",
            lua.create_function(move |_, (level, text): (u8, mlua::LuaString)| {
                let levels = [Level::Debug, Level::Verbose, Level::Notice, Level::Warning];
                if let Some(&level) = levels.get(usize::from(level)) {
                    (*log.borrow_mut())(level, &text.as_bytes());
                }
                Ok(())
            })?,
        )?;
        let metatables = lua.create_table()?;
        meter.watch_metatables(metatables.clone());
        let prelude = lua.load(PRELUDE).set_name("=prelude").set_mode(ChunkMode::Text);
        let (run, leave, globals): (Function, Function, Table) = prelude.call((natives, metatables))?;
        lua.set_globals(globals)?;
        Ok(Environment { run, leave })
    }

    /// Forgets what the last run left behind. Failing is harmless: the next run replaces it.
    pub fn leave(&self) {
        let _ = self.leave.call::<()>(());
    }
}

/// The generator behind `math.random`: POSIX's `drand48`, started anew for each run.
fn install_random(lua: &Lua, natives: &Table) -> mlua::Result<()> {
    const MASK: u64 = (1 << 48) - 1;
    const RANGE: u64 = i32::MAX as u64;
    const START: u64 = 0x1234_ABCD_330E;
    let state = Rc::new(Cell::new(START));
    let (seeded, reseeded) = (state.clone(), state.clone());
    natives.set(
        "reseed",
        lua.create_function(move |_, ()| {
            reseeded.set(START);
            Ok(())
        })?,
    )?;
    natives.set(
        "seed",
        lua.create_function(move |_, seed: f64| {
            let seed = u64::from(seed as i64 as u32);
            seeded.set(seed << 16 | 0x330E);
            Ok(())
        })?,
    )?;
    natives.set(
        "rand",
        lua.create_function(move |_, ()| {
            let next = state.get().wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & MASK;
            state.set(next);
            Ok(((next >> 17) % RANGE) as f64 / RANGE as f64)
        })?,
    )
}

/// What error handling needs: the line that failed, and whether an error ends the script.
fn install_frame(lua: &Lua, natives: &Table, meter: &Rc<Meter>) -> mlua::Result<()> {
    const LEVELS_MAX: usize = 64;
    natives.set(
        "where",
        lua.create_function(|lua, ()| {
            for level in 1..LEVELS_MAX {
                let line = lua.inspect_stack(level, |frame| {
                    let ours = frame.source().source.as_deref() == Some("@user_script");
                    ours.then(|| frame.current_line()).flatten()
                });
                match line {
                    None => break,
                    Some(None) => {}
                    Some(Some(line)) => return Ok(Some(line)),
                }
            }
            Ok(None)
        })?,
    )?;
    let judge = meter.clone();
    natives.set(
        "fatal",
        lua.create_function(move |_, error: Value| {
            Ok(match error {
                _ if judge.stopped().is_some() => true,
                Value::Error(_) => true,
                Value::String(text) => {
                    let text = text.as_bytes();
                    &*text == b"not enough memory" || &*text == b"error in error handling"
                }
                _ => false,
            })
        })?,
    )?;
    let clock = meter.clone();
    natives.set(
        "clock",
        // A hundred million instructions a second, by definition: the same on every replica.
        lua.create_function(move |_, ()| Ok(clock.spent() as f64 / 1e8))?,
    )
}
