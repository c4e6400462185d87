//! Runs workers on sockets: for each one thread, one `epoll`, and the turn.
//!
//! A turn reads every ready socket into the worker, ends the worker's turn (one append to the log), and
//! writes every socket that has output. Level of detail: only this crate names the event loop.

mod affinity;
mod crowd;
mod peers;
mod reactor;
mod socket;
mod stopwatch;

pub use affinity::Core;
pub use crowd::Crowd;
pub use peers::{Begin, Peers};
pub use reactor::{Clients, Control, Listener, Newcomer, Reactor, ReactorError, Remote, Tasks};
pub use stopwatch::Stopwatch;
pub use telemetry::Clock;
