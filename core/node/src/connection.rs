//! The worker's table of connections.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{Io, Session};
use kernel::{ConnId, KeyspaceId, WorkerId};

use crate::errand::Abroad;
use crate::worker::Worker;

/// One client: its session, its output, and the bytes that could not be run yet.
#[derive(Debug)]
pub(crate) struct Connection {
    pub session: Session,
    pub io: Io,
    pub input: Vec<u8>,
    pub consumed: usize,
    /// In the list of connections to be fed again.
    pub resumed: bool,
    /// The session wants no more bytes before it is resumed.
    pub held: bool,
    pub closing: bool,
    /// The client has sent all it will.
    pub ended: bool,
    /// It gets nothing any more and is to be closed at once.
    pub cut: bool,
    /// Held until a pause of all clients ends.
    pub paused: bool,
    /// Held until bodies are read back that its next command needs.
    pub fetching: bool,
    /// What it watches, and the waiter it is, if any.
    pub watched: Vec<(KeyspaceId, Box<[u8]>)>,
    pub waiter: Option<(usize, u64)>,
    /// What it has on its way at other workers.
    pub abroad: Abroad,
}

impl Connection {
    /// Whether the session, which is held, may go on: nothing of it is on its way.
    #[inline]
    pub const fn may_resume(&self) -> bool {
        self.may_be_fed() && self.io.pending() == 0
    }

    /// The same, but what is on its way to be logged does not matter.
    #[inline]
    pub const fn may_be_fed(&self) -> bool {
        self.held && !self.resumed && !self.io.blocked && !self.fetching && self.abroad.asking == 0
    }
}

/// Connections by id. The id's low bits are the slot, so looking one up is two loads and a comparison.
#[derive(Debug)]
pub(crate) struct Connections {
    worker: WorkerId,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u64,
    connection: Option<Box<Connection>>,
}

impl Connections {
    pub const fn new(worker: WorkerId) -> Connections {
        Connections { worker, slots: Vec::new(), free: Vec::new() }
    }

    /// The id the next connection will have; `None` at 2^20 connections.
    pub fn add(&mut self, make: impl FnOnce(ConnId) -> Box<Connection>) -> Option<ConnId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < 1 << ConnId::SLOT_BITS => {
                self.slots.push(Slot { generation: 0, connection: None });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let place = &mut self.slots[slot as usize];
        place.generation += 1;
        let id = ConnId::new(self.worker, place.generation, slot);
        place.connection = Some(make(id));
        Some(id)
    }

    fn slot(&self, id: ConnId) -> Option<usize> {
        let slot = id.slot();
        let place = self.slots.get(slot)?;
        (ConnId::new(self.worker, place.generation, slot as u32) == id).then_some(slot)
    }

    #[inline]
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slot(id)?;
        self.slots[slot].connection.as_deref_mut()
    }

    /// Takes a connection out for the time of a call that needs the worker too.
    #[inline]
    pub fn take(&mut self, id: ConnId) -> Option<Box<Connection>> {
        let slot = self.slot(id)?;
        self.slots[slot].connection.take()
    }

    #[inline]
    pub fn put_back(&mut self, id: ConnId, connection: Box<Connection>) {
        let slot = self.slot(id).expect("a connection that was taken out keeps its slot");
        self.slots[slot].connection = Some(connection);
    }

    pub fn remove(&mut self, id: ConnId) -> Option<Box<Connection>> {
        let slot = self.slot(id)?;
        let connection = self.slots[slot].connection.take();
        self.slots[slot].generation += 1;
        self.free.push(slot as u32);
        connection
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().filter_map(|slot| slot.connection.as_deref_mut())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().filter_map(|slot| slot.connection.as_deref())
    }
}

/// What clients are sent.
impl Worker {
    /// The clients that have output, once each; see [`Worker::output`].
    pub fn take_flush(&mut self, out: &mut Vec<ConnId>) {
        out.append(&mut self.flush);
    }

    /// The output of a client, and whether to close it once that is sent. The host takes out what it
    /// sent and calls [`Worker::drained`] when all of it is.
    pub fn output(&mut self, id: ConnId) -> Option<(&mut Vec<u8>, bool)> {
        let connection = self.connections.get_mut(id)?;
        connection.io.listed = false;
        let closing = connection.cut || connection.closing && connection.io.pending() == 0;
        Some((&mut connection.io.out, closing))
    }

    /// Whether a client gets nothing any more and is to be closed at once, whatever the host still holds.
    #[must_use]
    pub fn is_cut(&mut self, id: ConnId) -> bool {
        self.connections.get_mut(id).is_some_and(|connection| connection.cut)
    }

    /// Some output of a client was sent, and not all: it reads, if slowly.
    pub fn sent(&mut self, id: ConnId) {
        if let Some(since) = self.front.stalls.get_mut(&id) {
            *since = self.now;
        }
    }

    /// All output of a client was sent: it may go on if it was held for that.
    pub fn drained(&mut self, id: ConnId) {
        if !self.front.stalls.is_empty() {
            self.front.stalls.remove(&id);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.may_resume() {
            connection.resumed = true;
            self.resume.push(id);
        }
    }
}
