//! What a script may spend: instructions, memory and bytes of replies.

use std::cell::{Cell, RefCell};

use mlua::{Lua, Table, VmState};

/// Lua instructions a script may run, about five seconds of work. Library functions and commands
/// count as instructions too, in proportion to what they do.
pub const INSTRUCTIONS_MAX: u64 = 500_000_000;
/// Bytes a script may have in memory.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of replies a script may receive from the commands it calls.
pub const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Instructions between two looks at the meter.
const TICK: u32 = 1000;
/// Bytes of library work that cost as much as one instruction.
const BYTES_PER_INSTRUCTION: u64 = 16;

/// Why a script was ended; it cannot catch this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ran for too long.
    Instructions,
    /// It needs too much memory.
    Memory,
    /// It was answered too much.
    Replies,
}

/// How much one run may spend.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Lua instructions.
    pub instructions: u64,
    /// Bytes above what the engine itself takes.
    pub memory_bytes: usize,
    /// Garbage and data that a run gathers before the first collection.
    pub collect_bytes: usize,
}

/// Everything a script may spend; decides alone whether it is stopped.
pub const FULL: Allowance = Allowance {
    instructions: INSTRUCTIONS_MAX,
    memory_bytes: MEMORY_BYTES_MAX,
    collect_bytes: MEMORY_BYTES_MAX / 4,
};

/// What a script may spend in a used engine, whose garbage makes measurements inexact. It is so much
/// less than [`FULL`] that whatever ends within it would end within [`FULL`] in a new engine.
pub const FIRST: Allowance = Allowance {
    instructions: INSTRUCTIONS_MAX / 2,
    memory_bytes: MEMORY_BYTES_MAX / 4,
    collect_bytes: MEMORY_BYTES_MAX / 8,
};

const _: () = assert!(FULL.collect_bytes * 3 / 2 + 2 * FIRST.memory_bytes < FULL.memory_bytes);

/// The meter of one engine.
#[derive(Debug)]
pub struct Meter {
    left: Cell<u64>,
    stop: Cell<Option<Stop>>,
    start_bytes: Cell<usize>,
    seen_bytes: Cell<usize>,
    collect_at: Cell<usize>,
    collect_bytes: Cell<usize>,
    instructions: Cell<u64>,
    /// The keys are all tables that the script made a metatable.
    metatables: RefCell<Option<Table>>,
}

impl Default for Meter {
    /// A meter that allows nothing yet.
    fn default() -> Meter {
        Meter {
            left: Cell::new(0),
            stop: Cell::new(None),
            start_bytes: Cell::new(0),
            seen_bytes: Cell::new(0),
            collect_at: Cell::new(0),
            collect_bytes: Cell::new(0),
            instructions: Cell::new(0),
            metatables: RefCell::new(None),
        }
    }
}

impl Meter {
    /// Hands in the table whose keys are the script's metatables.
    pub fn watch_metatables(&self, metatables: Table) {
        *self.metatables.borrow_mut() = Some(metatables);
    }

    /// Starts a run.
    pub fn begin(self: &std::rc::Rc<Self>, lua: &Lua, allowance: Allowance) -> mlua::Result<()> {
        let used = lua.used_memory();
        self.left.set(allowance.instructions);
        self.instructions.set(allowance.instructions);
        self.stop.set(None);
        self.start_bytes.set(used);
        self.seen_bytes.set(used);
        self.collect_bytes.set(allowance.collect_bytes);
        self.collect_at.set(used + allowance.collect_bytes);
        lua.set_memory_limit(used + allowance.memory_bytes)?;
        let meter = self.clone();
        // Setting the hook anew also starts its count anew, so that a run always stops at the same place.
        lua.set_global_hook(mlua::HookTriggers::new().every_nth_instruction(TICK), move |lua, _| {
            meter.tick(lua)?;
            Ok(VmState::Continue)
        })
    }

    /// Why the run must end, if it must.
    pub const fn stopped(&self) -> Option<Stop> {
        self.stop.get()
    }

    /// Instructions that are left.
    pub const fn left(&self) -> u64 {
        self.left.get()
    }

    /// Instructions spent so far, as of the last tick.
    pub const fn spent(&self) -> u64 {
        self.instructions.get() - self.left.get()
    }

    /// Ends the run.
    pub fn end(&self, why: Stop) -> mlua::Error {
        self.stop.set(Some(self.stop.get().unwrap_or(why)));
        mlua::Error::runtime("the script was ended")
    }

    /// Takes `instructions` from what is left.
    ///
    /// # Errors
    /// Nothing is left: the run must end.
    pub fn charge(&self, instructions: u64) -> mlua::Result<()> {
        if self.stop.get().is_some() || instructions > self.left.get() {
            self.left.set(0);
            return Err(self.end(Stop::Instructions));
        }
        self.left.set(self.left.get() - instructions);
        Ok(())
    }

    /// Takes the work on `bytes` bytes from what is left.
    ///
    /// # Errors
    /// As [`Meter::charge`].
    pub fn charge_bytes(&self, bytes: usize) -> mlua::Result<()> {
        self.charge(bytes as u64 / BYTES_PER_INSTRUCTION)
    }

    fn tick(&self, lua: &Lua) -> mlua::Result<()> {
        let used = lua.used_memory();
        let grown = used.saturating_sub(self.seen_bytes.replace(used));
        self.charge(u64::from(TICK) + grown as u64 / BYTES_PER_INSTRUCTION)?;
        if used > self.collect_at.get() {
            self.collect(lua)?;
            let used = lua.used_memory();
            let live = used.saturating_sub(self.start_bytes.get());
            let next = self.collect_bytes.get().max(live + live / 2);
            self.collect_at.set(self.start_bytes.get() + next);
            self.seen_bytes.set(used);
        }
        Ok(())
    }

    /// Collects garbage. Weak tables count as strong, or a script could see when this happens.
    fn collect(&self, lua: &Lua) -> mlua::Result<()> {
        let mut weak: Vec<(Table, mlua::Value)> = Vec::new();
        if let Some(metatables) = &*self.metatables.borrow() {
            for pair in metatables.pairs::<Table, bool>() {
                let (metatable, _) = pair?;
                let mode: mlua::Value = metatable.raw_get("__mode")?;
                if !mode.is_nil() {
                    metatable.raw_set("__mode", "")?;
                    weak.push((metatable, mode));
                }
            }
        }
        let collected = lua.gc_collect();
        // A full collection turns the automatic one on again.
        lua.gc_stop();
        for (metatable, mode) in weak {
            metatable.raw_set("__mode", mode)?;
        }
        collected
    }
}
