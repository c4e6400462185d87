//! What the links of one loop count. Its thread is the only writer.

use telemetry::{Counter, Gauge};

use super::Cause;

/// The figures.
#[derive(Debug, Default)]
pub struct LinkMeters {
    /// Connections that came to the port.
    pub accepted: Counter,
    /// Connections that this node began.
    pub dialled: Counter,
    /// Links that came up, of both lanes.
    pub opened: Counter,
    /// Links that are up, of both lanes.
    pub up: Gauge,
    /// Connections of any kind.
    pub connections: Gauge,
    /// Handshakes of others under way.
    pub handshakes: Gauge,
    /// Frames of data received.
    pub frames_in: Counter,
    /// Frames of data queued.
    pub frames_out: Counter,
    /// Bytes read from sockets.
    pub bytes_in: Counter,
    /// Bytes that sockets took.
    pub bytes_out: Counter,
    /// Frames that were refused because too many bytes waited.
    pub refused: Counter,
    /// Lines of the log about misdeeds.
    pub told: Counter,
    ended: [Counter; Cause::LABELS.len()],
}

impl LinkMeters {
    /// Connections that ended for this cause, whatever its details.
    #[must_use]
    pub fn ended(&self, cause: Cause) -> u64 {
        self.ended[cause.index()].get()
    }

    /// Every cause's label with its count.
    pub fn endings(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Cause::LABELS.into_iter().zip(self.ended.iter().map(Counter::get))
    }

    pub(crate) fn end(&self, cause: Cause) {
        self.ended[cause.index()].increment();
    }
}
