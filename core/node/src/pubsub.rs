//! Who listens to what on this node, and handing messages to them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use gateway::resp::{Io, PUBSUB_OUTPUT_BYTES_MAX, Topic, put_message};
use kernel::ConnId;
use storage::object::glob::{Case, matches};

use crate::keyspaces::{Answer, Waits};
use crate::worker::Worker;

type Listeners = BTreeMap<Box<[u8]>, BTreeSet<ConnId>>;

/// The subscriptions of all connections. A name without listeners is not kept.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    channels: Listeners,
    patterns: Listeners,
}

impl PubSub {
    fn of(&mut self, topic: Topic) -> &mut Listeners {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
        }
    }

    pub fn subscribe(&mut self, topic: Topic, name: &[u8], id: ConnId) {
        self.of(topic).entry(name.into()).or_default().insert(id);
    }

    pub fn unsubscribe(&mut self, topic: Topic, name: &[u8], id: ConnId) {
        let listeners = self.of(topic);
        if let Some(ids) = listeners.get_mut(name) {
            ids.remove(&id);
            if ids.is_empty() {
                listeners.remove(name);
            }
        }
    }

    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    pub fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    /// Channels and patterns with the numbers of their subscribers.
    pub fn counts(&self) -> [BTreeMap<Box<[u8]>, usize>; 2] {
        let count =
            |listeners: &Listeners| listeners.iter().map(|(name, ids)| (name.clone(), ids.len())).collect();
        [count(&self.channels), count(&self.patterns)]
    }

    /// Everyone who gets a message on `channel`, and the pattern it comes by: first those who named it.
    fn receivers<'a>(&'a self, channel: &'a [u8]) -> impl Iterator<Item = (ConnId, Option<&'a [u8]>)> {
        let named = self.channels.get(channel).into_iter().flatten().map(|&id| (id, None));
        let matching = self.patterns.iter().filter(|(pattern, _)| matches(pattern, channel, Case::Exact));
        named.chain(matching.flat_map(|(pattern, ids)| ids.iter().map(|&id| (id, Some(&**pattern)))))
    }
}

impl Worker {
    /// Hands a message to its subscribers at this worker; how many they are. `own` is the connection that is taken out
    /// of the table at the moment, if any.
    ///
    /// A subscriber that has more than [`PUBSUB_OUTPUT_BYTES_MAX`] unread is cut.
    pub(crate) fn deliver(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        mut own: Option<(ConnId, &mut Io)>,
    ) -> usize {
        let mut count = 0;
        let mut cut = Vec::new();
        for (id, pattern) in self.front.pubsub.receivers(channel) {
            count += 1;
            if let Some((own, io)) = &mut own
                && *own == id
            {
                put_message(&mut io.push(), pattern, channel, payload);
                continue;
            }
            let Some(connection) = self.connections.get_mut(id) else { continue };
            put_message(&mut connection.io.push(), pattern, channel, payload);
            if !connection.io.listed {
                connection.io.listed = true;
                self.flush.push(id);
            }
            if connection.io.out.len() > PUBSUB_OUTPUT_BYTES_MAX {
                cut.push(id);
            }
        }
        for id in cut {
            self.kill(id);
        }
        count
    }

    /// Hands a message to all its subscribers. With others, `conn` is answered when they have told how many
    /// they have.
    pub(crate) fn publish(
        &mut self,
        (conn, io): (ConnId, &mut Io),
        channel: &[u8],
        payload: &[u8],
    ) -> Option<usize> {
        let count = self.deliver(channel, payload, Some((conn, io)));
        if self.others.is_alone() {
            self.broadcast(channel, payload);
            return Some(count);
        }
        let joint = self.begin_joint(Waits::Client(conn, io.begin()), Answer::Count(count as i64));
        self.send_message(Some(joint), channel, payload);
        None
    }

    /// Hands on what commands published while they were applied.
    pub(crate) fn publish_effects(&mut self, mut own: Option<(ConnId, &mut Io)>) {
        for (channel, payload) in core::mem::take(&mut self.effects.published) {
            self.deliver(&channel, &payload, own.as_mut().map(|(id, io)| (*id, &mut **io)));
            self.send_message(None, &channel, &payload);
            self.broadcast(&channel, &payload);
        }
    }
}
