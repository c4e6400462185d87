//! What the workers of one node hand each other.

use node::{LogSink, Parcel};

use super::{Control, Reactor, Tasks};

impl<L: LogSink, T: Tasks> Reactor<L, T> {
    /// Sends each other worker what this one has for it.
    #[inline]
    pub(super) fn post(&mut self) {
        if self.worker.has_parcels() && !self.peers.is_empty() {
            self.post_all();
        }
    }

    #[cold]
    fn post_all(&mut self) {
        let mut parcels = Vec::new();
        self.worker.take_parcels(&mut parcels);
        let mut batches: Vec<Vec<Parcel>> = Vec::new();
        batches.resize_with(self.peers.len(), Vec::new);
        for (to, parcel) in parcels {
            batches[usize::from(to.0)].push(parcel);
        }
        for (peer, batch) in self.peers.iter().zip(batches) {
            if !batch.is_empty() {
                // A loop that has ended is one of a node that ends.
                let _ = peer.send(Control::Parcels(self.worker.id(), batch));
            }
        }
    }
}
