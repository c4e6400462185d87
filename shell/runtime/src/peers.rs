//! What a loop needs of the links to other nodes. It knows no transport: whoever assembles a node gives it one.

use std::io;

use kernel::Micros;
use mio::Registry;
use mio::event::Event;
use node::Worker;
use telemetry::Clock;

/// The links between this node and others, in the loop of the one worker that they belong to.
pub trait Peers {
    /// Handles the readiness of a token at or above the first that it was given. What arrived is the worker's input, with the
    /// time that `clock` shows after that: leases are looked at with it.
    fn ready(&mut self, clock: &mut Clock, event: &Event, worker: &mut Worker);

    /// Ends the turn, after the worker has ended its own: queues what the worker has for other nodes, does what is due,
    /// and writes each connection once. What arrives meanwhile is as in [`Peers::ready`]. True if there is more to do at
    /// once.
    fn end_turn(&mut self, clock: &mut Clock, worker: &mut Worker) -> bool;

    /// When [`Peers::end_turn`] must be called again, although nothing is ready.
    fn deadline(&self) -> Option<Micros>;
}

/// Makes the links of a loop, which has its sockets watched under tokens from the given one on.
pub type Begin<'a> = &'a mut dyn FnMut(Registry, usize) -> io::Result<Box<dyn Peers>>;
