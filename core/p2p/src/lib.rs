//! Overlays: nodes that do not know each other find one another, route to keys and broadcast.
//!
//! Every protocol here is a [`Protocol`]: a machine over small contact handles. The same code runs on sockets
//! and, a million at a time, in the simulator.
#![no_std]
extern crate alloc;

pub mod chord;
pub mod codec;
pub mod flood;
pub mod kad;
pub mod key;
pub mod pending;
pub mod protocol;
pub mod swim;
pub mod walk;

pub use key::Key;
pub use pending::{Pending, RequestId};
pub use protocol::{Contact, Effect, EffectOf, Input, InputOf, Keys, Protocol};
