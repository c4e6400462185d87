//! Lua scripts against the store, as Redis 7 runs them: `EVAL` and its family.
//!
//! Scripts are logged and run at apply time on every replica and in replay, so the same state, the same
//! arguments and the same engine version give the same effects and the same answer. Whatever could
//! differ between two processes is replaced or hidden: chance, time, addresses, garbage collection, and
//! the memory that earlier scripts left behind (see [`engine`]). `^` alone still asks the C library.
//! What one instruction costs is not bounded below the memory limit: comparing two huge strings is one.

mod answer;
mod bits;
pub mod engine;
mod json;
pub mod meter;
mod msgpack;
mod native;
mod number;
mod packed;
mod pattern;
mod sandbox;
mod session;
mod text;

pub use engine::{Level, LuaEngine};
