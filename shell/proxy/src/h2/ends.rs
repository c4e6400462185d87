//! A stream's two ends: the proxy has one, which it takes for a socket, and the connection that the stream is of the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use mesh::retry::Progress;

use crate::buffers::Buffer;
use crate::socket::Got;
use crate::timers::Whose;

/// Bytes that may wait in one direction; a frame of data and what stands around it may come above that.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Connections that are gone on with at the end of the turn.
pub(crate) type Bells = Rc<RefCell<Vec<Whose>>>;

/// What a connection of HTTP/2 is called by when one of its streams has something for it.
#[derive(Clone)]
pub(crate) struct Bell {
    whose: Whose,
    is_rung: Rc<Cell<bool>>,
    bells: Bells,
}

impl Bell {
    pub fn new(whose: Whose, bells: &Bells) -> Bell {
        Bell { whose, is_rung: Rc::default(), bells: Rc::clone(bells) }
    }

    pub fn ring(&self) {
        if !self.is_rung.replace(true) {
            self.bells.borrow_mut().push(self.whose);
        }
    }

    /// It is being gone on with.
    pub fn answer(&self) {
        self.is_rung.set(false);
    }
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    /// All was sent.
    Ended,
    /// It will never be whole.
    Cut,
}

/// What lies between both ends.
pub(super) struct Ends {
    /// For the proxy.
    pub inward: Buffer,
    pub inward_flow: Flow,
    /// From the proxy.
    pub outward: Buffer,
    pub outward_flow: Flow,
    /// The connection is there.
    pub is_up: bool,
    /// How far what the proxy sent had come, if this is cut before it is answered.
    pub progress: Progress,
    /// The proxy has waited too long for an answer.
    pub is_late: bool,
    /// The proxy has dropped its end.
    pub is_dropped: bool,
    bell: Bell,
}

impl Ends {
    pub fn new(bell: Bell) -> Rc<RefCell<Ends>> {
        let (inward, outward) = (Buffer::default(), Buffer::default());
        let (inward_flow, outward_flow) = (Flow::Open, Flow::Open);
        // Nobody has it before it is put into frames.
        let (progress, is_up, is_late, is_dropped) = (Progress::Unread, false, false, false);
        let ends =
            Ends { inward, inward_flow, outward, outward_flow, is_up, progress, is_late, is_dropped, bell };
        Rc::new(RefCell::new(ends))
    }

    /// Whether more may be put before the proxy.
    pub fn has_room(&self) -> bool {
        self.inward.waiting().len() < WAITING_BYTES_MAX
    }

    pub fn give(&mut self, bytes: &[u8]) {
        if self.inward.is_empty() {
            self.inward.bytes.clear();
            self.inward.sent = 0;
        }
        self.inward.bytes.extend_from_slice(bytes);
    }
}

/// The proxy's end.
pub(crate) struct StreamSocket(pub(super) Rc<RefCell<Ends>>);

impl StreamSocket {
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Got> {
        let mut ends = self.0.borrow_mut();
        let waiting = ends.inward.waiting();
        let n = waiting.len().min(into.len());
        if n == 0 {
            return match ends.inward_flow {
                Flow::Open => Ok(Got::Nothing),
                Flow::Ended => Ok(Got::End),
                Flow::Cut => Err(io::ErrorKind::ConnectionReset.into()),
            };
        }
        into[..n].copy_from_slice(&waiting[..n]);
        let was_full = !ends.has_room();
        ends.inward.advance(n);
        if was_full && ends.has_room() {
            ends.bell.ring();
        }
        Ok(Got::Bytes(n))
    }

    /// Takes what there is room for.
    pub fn write(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let mut ends = self.0.borrow_mut();
        if ends.inward_flow == Flow::Cut {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if ends.outward.is_empty() {
            ends.outward.bytes.clear();
            ends.outward.sent = 0;
        }
        let mut room = WAITING_BYTES_MAX.saturating_sub(ends.outward.waiting().len());
        let mut taken = 0;
        for piece in [first, second] {
            let n = piece.len().min(room);
            ends.outward.bytes.extend_from_slice(&piece[..n]);
            (room, taken) = (room - n, taken + n);
        }
        if taken > 0 {
            ends.bell.ring();
        }
        Ok(taken)
    }

    pub fn shut(&mut self) {
        self.end(Flow::Ended);
    }

    pub fn poison(&self) {
        self.end(Flow::Cut);
    }

    fn end(&self, flow: Flow) {
        let mut ends = self.0.borrow_mut();
        if ends.outward_flow == Flow::Open {
            ends.outward_flow = flow;
            ends.bell.ring();
        }
    }

    /// How far what was sent had come if it is never answered.
    pub fn progress(&self) -> Progress {
        self.0.borrow().progress
    }

    /// No answer came in time.
    pub fn note_late(&self) {
        self.0.borrow_mut().is_late = true;
    }

    /// Whether the connection is there.
    pub fn is_connected(&self) -> io::Result<bool> {
        let ends = self.0.borrow();
        if ends.inward_flow == Flow::Cut {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(ends.is_up)
        }
    }
}

impl Drop for StreamSocket {
    fn drop(&mut self) {
        let mut ends = self.0.borrow_mut();
        ends.is_dropped = true;
        ends.bell.ring();
    }
}
