//! The end that has the snapshot.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Bound;

use kernel::{GroupId, Micros, NodeId};

use super::wire::{Message, Run};
use super::{Effect, End, GIVE_UP_MICROS, LOT_BYTES_MAX, Progress, SEND_MAX, Task, Transfers, WINDOW_BYTES};

/// One receiver's run.
#[derive(Debug)]
pub(super) struct Sending {
    run: Run,
    /// Where the next lot begins; `None` once the last is on its way.
    cursor: Option<Vec<u8>>,
    /// Lots that were sent.
    sent: u32,
    /// The lengths of those that are not said to be durable.
    flying: VecDeque<usize>,
    /// Bytes that are.
    taken: u64,
    /// The read for it that is under way.
    reading: Option<u64>,
    heard: Micros,
}

impl Sending {
    pub fn deadline(&self) -> Micros {
        self.heard + GIVE_UP_MICROS
    }

    pub fn progress(&self, peer: NodeId, group: GroupId) -> Progress {
        Progress { group, peer, end: End::Sender, bytes: self.taken, of: 0 }
    }

    fn wants(&self) -> bool {
        self.cursor.is_some() && self.reading.is_none() && self.flying.iter().sum::<usize>() < WINDOW_BYTES
    }
}

impl Transfers {
    pub(super) fn pulled(&mut self, now: Micros, from: NodeId, run: Run, cursor: &[u8]) {
        let key = (from, run.group);
        let held = self.offers.get_mut(&run.group);
        let Some(offer) = held.filter(|offer| offer.generations.contains(&Some(run.generation))) else {
            self.sending.remove(&key);
            self.effects.push(Effect::Retract { group: run.group, generation: run.generation });
            return self.send(from, run, &Message::Gone);
        };
        offer.last = now;
        // The same pull twice, by the network.
        if self.sending.get(&key).is_some_and(|sending| sending.run == run) {
            return;
        }
        if self.sending.len() >= SEND_MAX && !self.sending.contains_key(&key) {
            return;
        }
        let (cursor, flying) = (Some(cursor.to_vec()), VecDeque::new());
        let sending = Sending { run, cursor, sent: 0, flying, taken: 0, reading: None, heard: now };
        self.sending.insert(key, sending);
        self.read_next(now);
    }

    pub(super) fn taken(&mut self, now: Micros, from: NodeId, run: Run, lots: u32) {
        let key = (from, run.group);
        let Some(sending) = self.sending.get_mut(&key).filter(|sending| sending.run == run) else { return };
        let left = sending.sent.saturating_sub(lots) as usize;
        while sending.flying.len() > left {
            sending.taken += sending.flying.pop_front().map_or(0, |bytes| bytes as u64);
        }
        sending.heard = now;
        self.effects.push(Effect::Progressed { to: from, group: run.group });
        let done = sending.cursor.is_none() && sending.flying.is_empty();
        if let Some(offer) = self.offers.get_mut(&run.group) {
            offer.last = now;
        }
        if done {
            self.sending.remove(&key);
        }
        self.read_next(now);
    }

    pub(super) fn stopped(&mut self, from: NodeId, run: Run) {
        let key = (from, run.group);
        if self.sending.get(&key).is_some_and(|sending| sending.run == run) {
            self.sending.remove(&key);
        }
    }

    pub(super) fn read(&mut self, now: Micros, ticket: u64, lot: Option<(Vec<u8>, Option<Vec<u8>>)>) {
        let Some((key, _)) = self.reading.take_if(|reading| reading.1 == ticket) else { return };
        // Read in vain costs as much.
        let bytes = lot.as_ref().map_or(0, |lot| lot.0.len() as u64);
        let cost = bytes.saturating_mul(1_000_000) / self.options.bytes_per_second;
        self.free_at = self.free_at.max(now) + cost;
        // Another run of it may have begun meanwhile, which asks for a place of its own.
        if let Some(sending) = self.sending.get_mut(&key).filter(|sending| sending.reading == Some(ticket)) {
            let run = sending.run;
            sending.reading = None;
            if let Some((content, next)) = lot.filter(|(content, _)| content.len() <= LOT_BYTES_MAX) {
                let number = sending.sent;
                sending.sent += 1;
                sending.flying.push_back(content.len());
                sending.cursor.clone_from(&next);
                self.send(key.0, run, &Message::Lot { number, next: next.as_deref(), content: &content });
            } else {
                self.sending.remove(&key);
                if let Some(offer) = self.offers.get_mut(&run.group) {
                    offer.generations.iter_mut().for_each(|it| *it = it.filter(|it| *it != run.generation));
                }
                self.effects.push(Effect::Retract { group: run.group, generation: run.generation });
                self.send(key.0, run, &Message::Gone);
            }
        }
        self.read_next(now);
    }

    pub(super) fn senders_wake(&mut self, now: Micros) {
        self.sending.retain(|_, sending| sending.deadline() > now);
        self.read_next(now);
    }

    /// Whose turn it is to be read for.
    pub(super) fn next_reader(&self) -> Option<(NodeId, GroupId)> {
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.sending.range((after, Bound::Unbounded));
        later.chain(&self.sending).find(|(_, sending)| sending.wants()).map(|(key, _)| *key)
    }

    /// Has the host read the next lot, if it may be.
    fn read_next(&mut self, now: Micros) {
        if self.reading.is_some() || now < self.free_at {
            return;
        }
        let Some(key) = self.next_reader() else { return };
        let ticket = self.ticket();
        let Some(sending) = self.sending.get_mut(&key) else { return };
        let (group, generation) = (sending.run.group, sending.run.generation);
        let Some(cursor) = sending.cursor.clone() else { return };
        sending.reading = Some(ticket);
        self.reading = Some((key, ticket));
        self.served = Some(key);
        self.effects.push(Effect::Do(Task::Read { group, generation, cursor, ticket }));
    }
}
