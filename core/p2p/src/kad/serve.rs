//! What a node answers to others.

use alloc::boxed::Box;

use kernel::Micros;

use super::dht::{Dht, Out};
use super::message::{Message, Nodes};
use super::record::Validator;
use crate::{Contact, Effect, Keys, RequestId};

impl<C: Contact, V: Validator> Dht<C, V> {
    /// The nearest to `point` that we know, without the one who asks.
    fn closer(&self, keys: &impl Keys<C>, point: u64, from: C) -> Nodes<C> {
        let mut near = Nodes::new();
        self.table.rank(keys, point, self.config.k(), Some(from), &mut near);
        near
    }

    pub(super) fn asked(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        id: RequestId,
        body: Message<C>,
        out: &mut Out<C>,
    ) {
        let body = match body {
            Message::FindNode(target) => Message::Nodes(self.closer(keys, target.key.point(), from)),
            Message::GetValue(target) => {
                let record = self.store.get(now, &target.key).map(Box::new);
                Message::Value { record, closer: self.closer(keys, target.key.point(), from) }
            }
            Message::GetProviders(target) => {
                let providers = self.store.providers(now, &target.key).collect();
                let closer = self.closer(keys, target.key.point(), from).into_vec();
                Message::Providers { providers, closer }
            }
            Message::Put(record) => Message::Stored(self.store.put(now, from, record, &self.valid)),
            // No questions: an answer to nothing, or what is told without one. The asker's patience ends.
            Message::AddProvider(_)
            | Message::Nodes(_)
            | Message::Value { .. }
            | Message::Stored(_)
            | Message::Providers { .. } => return,
        };
        out.push(Effect::Answer { to: from, id, body });
        self.meet(now, keys, from, out);
    }

    pub(super) fn told(
        &mut self,
        now: Micros,
        keys: &impl Keys<C>,
        from: C,
        body: Message<C>,
        out: &mut Out<C>,
    ) {
        if let Message::AddProvider(target) = body {
            // Refused or not, nobody waits to hear of it.
            let _refused = self.store.provide(now, target.key, from).is_err();
            self.meet(now, keys, from, out);
        }
    }
}
