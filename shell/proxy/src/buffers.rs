//! Bytes that wait for a socket, and room for them that is used again.

/// Rooms that are kept for later.
const SPARE_MAX: usize = 256;
/// A larger room is given back to the allocator.
const ROOM_BYTES_MAX: usize = 256 * 1024;

/// Bytes of which the first have been sent.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub bytes: Vec<u8>,
    pub sent: usize,
}

impl Buffer {
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub fn advance(&mut self, by: usize) {
        self.sent += by;
    }

    /// Forgets what was sent.
    pub fn compact(&mut self) {
        self.bytes.drain(..self.sent);
        self.sent = 0;
    }
}

/// Rooms for [`Buffer`]s and others: an idle connection has none.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    pub fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut room: Vec<u8>) {
        let capacity = room.capacity();
        if capacity > 0 && capacity <= ROOM_BYTES_MAX && self.spare.len() < SPARE_MAX {
            room.clear();
            self.spare.push(room);
        }
    }

    /// Bytes to the end of a buffer that may have no room yet.
    pub fn extend(&mut self, buffer: &mut Buffer, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.room(&mut buffer.bytes);
        buffer.bytes.extend_from_slice(bytes);
    }

    pub fn room(&mut self, bytes: &mut Vec<u8>) {
        if bytes.capacity() == 0 {
            *bytes = self.take();
        }
    }

    /// Takes the room of a buffer whose bytes are sent.
    pub fn settle(&mut self, buffer: &mut Buffer) {
        if buffer.is_empty() && buffer.bytes.capacity() > 0 {
            self.give(std::mem::take(&mut buffer.bytes));
            buffer.sent = 0;
        }
    }

    pub fn give_buffer(&mut self, buffer: &mut Buffer) {
        self.give(std::mem::take(&mut buffer.bytes));
        buffer.sent = 0;
    }
}
