//! What a loop needs of the links to other nodes. It knows no transport: whoever assembles a node gives it one.

use std::io;

use kernel::Micros;
use mio::Registry;
use mio::event::Event;
use node::Worker;

/// The links between this node and others, in the loop of the one worker that they belong to.
pub trait Peers {
    /// Handles the readiness of a token at or above the first that it was given. What arrived is the worker's input.
    fn ready(&mut self, now: Micros, event: &Event, worker: &mut Worker);

    /// Ends the turn, after the worker has ended its own: queues what the worker has for other nodes, does what is due,
    /// and writes each connection once. True if there is more to do at once.
    fn end_turn(&mut self, now: Micros, worker: &mut Worker) -> bool;

    /// When [`Peers::end_turn`] must be called again, although nothing is ready.
    fn deadline(&self) -> Option<Micros>;
}

/// Makes the links of a loop, which has its sockets watched under tokens from the given one on.
pub type Begin<'a> = &'a mut dyn FnMut(Registry, usize) -> io::Result<Box<dyn Peers>>;
