//! Carries the log's syncs to the worker's loop, which is there only after the log.

use std::sync::{Mutex, PoisonError};

use kernel::Lsn;

/// Where syncs are told to.
enum State {
    /// Nobody yet; the log was synced up to here.
    Waiting(Lsn),
    /// The loop.
    Attached(Box<dyn Fn(Lsn) + Send>),
}

/// The place in between. A sync that comes before the loop is told to it when it comes: otherwise what the
/// worker does in its first turns, such as expiring keys, would wait for an acknowledgement that was lost,
/// and reads behind it with it.
pub struct SyncRelay {
    state: Mutex<State>,
}

impl SyncRelay {
    /// With nobody to tell.
    #[must_use]
    pub const fn new() -> SyncRelay {
        SyncRelay { state: Mutex::new(State::Waiting(Lsn(0))) }
    }

    /// The log is synced up to `lsn`.
    pub fn synced(&self, lsn: Lsn) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Waiting(last) => *last = lsn.max(*last),
            State::Attached(tell) => tell(lsn),
        }
    }

    /// From now on syncs are told to `tell`, which must not block; the last one at once.
    pub fn attach(&self, tell: Box<dyn Fn(Lsn) + Send>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(last) = *state {
            tell(last);
        }
        *state = State::Attached(tell);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_sync_before_the_worker_is_there_is_told_to_it_when_it_comes() {
        let (told, heard) = channel();
        let relay = SyncRelay::new();
        relay.synced(Lsn(7));
        relay.synced(Lsn(9));
        relay.attach(Box::new(move |lsn| told.send(lsn).unwrap()));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Lsn(9)]);
        relay.synced(Lsn(12));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Lsn(12)]);
    }
}
