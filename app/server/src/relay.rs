//! Carries the log's syncs to the worker's loop, which is there only after the log.

use std::sync::{Mutex, PoisonError};

use disk::log::SyncEvent;
use kernel::Lsn;

/// Where syncs are told to.
enum State {
    /// Nobody yet; what the log told last, and whether it failed.
    Waiting(Lsn, bool),
    /// The loop.
    Attached(Box<dyn Fn(SyncEvent) + Send>),
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
        SyncRelay { state: Mutex::new(State::Waiting(Lsn(0), false)) }
    }

    /// The log tells something.
    pub fn tell(&self, event: SyncEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *state, event) {
            (State::Waiting(last, _), SyncEvent::Synced(lsn)) => *last = lsn.max(*last),
            (State::Waiting(_, failed), SyncEvent::Failed) => *failed = true,
            (State::Attached(tell), event) => tell(event),
        }
    }

    /// From now on events are told to `tell`, which must not block; those before it at once.
    pub fn attach(&self, tell: Box<dyn Fn(SyncEvent) + Send>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(last, failed) = *state {
            tell(SyncEvent::Synced(last));
            if failed {
                tell(SyncEvent::Failed);
            }
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
        relay.tell(SyncEvent::Synced(Lsn(7)));
        relay.tell(SyncEvent::Synced(Lsn(9)));
        relay.tell(SyncEvent::Failed);
        relay.attach(Box::new(move |event| told.send(event).unwrap()));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [SyncEvent::Synced(Lsn(9)), SyncEvent::Failed]);
        relay.tell(SyncEvent::Synced(Lsn(12)));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [SyncEvent::Synced(Lsn(12))]);
    }
}
