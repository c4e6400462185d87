//! Who waits for a change: each until what it waits for is beyond an index, or until its time is up.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use kernel::Micros;
use kernel::planted::{Bug, is};

use super::view::Topic;

/// Who waits at once, at most.
pub const WAITERS_MAX: usize = 65_536;

/// One that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(u64);

/// Those that wait. O(log waiters) for each that comes or goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    next: u64,
    waiting: BTreeMap<WaiterId, (Topic, Micros)>,
    topics: BTreeSet<(Topic, WaiterId)>,
    ends: BTreeSet<(Micros, WaiterId)>,
    woken: Vec<WaiterId>,
}

impl Waiters {
    /// One more, unless there are too many.
    pub fn wait(&mut self, topic: Topic, end: Micros) -> Option<WaiterId> {
        if self.waiting.len() >= WAITERS_MAX {
            return None;
        }
        let id = WaiterId(self.next);
        self.next += 1;
        self.topics.insert((topic.clone(), id));
        self.ends.insert((end, id));
        self.waiting.insert(id, (topic, end));
        Some(id)
    }

    /// It waits no more.
    pub fn leave(&mut self, id: WaiterId) {
        if let Some((topic, end)) = self.waiting.remove(&id) {
            self.topics.remove(&(topic, id));
            self.ends.remove(&(end, id));
        }
    }

    /// `topic` has changed.
    pub fn changed(&mut self, topic: &Topic) {
        if is(Bug::WaiterForgotten) && *topic == Topic::Catalog {
            return;
        }
        let first = (topic.clone(), WaiterId(0));
        let those = self.topics.range(first..).take_while(|(of, _)| of == topic);
        let those: Vec<WaiterId> = those.map(|&(_, id)| id).collect();
        for id in those {
            self.leave(id);
            self.woken.push(id);
        }
    }

    /// Wakes those whose time is up.
    pub fn wake(&mut self, now: Micros) {
        while let Some(&(end, id)) = self.ends.first().filter(|(end, _)| *end <= now) {
            debug_assert!(end <= now, "the time of it is up");
            self.leave(id);
            self.woken.push(id);
        }
    }

    /// Those that were woken.
    pub fn take_woken(&mut self, out: &mut Vec<WaiterId>) {
        out.append(&mut self.woken);
    }

    /// When somebody's time is up.
    pub fn deadline(&self) -> Option<Micros> {
        self.ends.first().map(|&(end, _)| end)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}
