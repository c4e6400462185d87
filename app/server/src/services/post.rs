//! Between the registry's thread and the links of a member: frames of registries, each way in a bounded line. What does not
//! fit is dropped: the next digest asks for it again.

use std::sync::{Mutex, OnceLock, PoisonError};

use kernel::NodeId;
use mesh::registry::Outgoing;
use runtime::{Control, Remote};
use tokio::sync::mpsc;

/// Frames that wait in one direction, at most.
const FRAMES_MAX: usize = 4096;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Post {
    out: Mutex<Vec<Outgoing>>,
    arrived: OnceLock<mpsc::Sender<(NodeId, Vec<u8>)>>,
}

impl Post {
    /// From now on what arrives is handed over; it is asked for once.
    pub fn open(&self) -> Option<mpsc::Receiver<(NodeId, Vec<u8>)>> {
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        self.arrived.set(sender).ok().map(|()| receiver)
    }

    /// Has the links send `frames`, and wakes their loop.
    pub fn send(&self, frames: Vec<Outgoing>, remote: &Remote) {
        if frames.is_empty() {
            return;
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = out.is_empty();
        let room = FRAMES_MAX.saturating_sub(out.len());
        out.extend(frames.into_iter().take(room));
        drop(out);
        if was_empty {
            // A loop that has ended sends nothing.
            let _ = remote.send(Control::Call(Box::new(|_| ())));
        }
    }

    /// What is to be sent.
    pub fn take(&self) -> Vec<Outgoing> {
        // Every turn of a member asks: without services it must cost no lock.
        if self.arrived.get().is_none() {
            return Vec::new();
        }
        std::mem::take(&mut *self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A frame has come. Without services here it is nobody's.
    pub fn arrived(&self, from: NodeId, bytes: &[u8]) {
        if let Some(sender) = self.arrived.get() {
            let _ = sender.try_send((from, bytes.to_vec()));
        }
    }
}
