//! Putting a value: the owner keeps it, and says so once most of those that are to have it do.
//!
//! An owner that died with its word alone would take the value with it. So it sends a copy to each of its first successors,
//! every value in a message of its own, and its answer waits for as many of them as make a majority of `copies` with it.
//!
//! Limits. A ring that has fewer nodes than that has all keep it. A put that nobody copies is told as one for which there is no
//! room, and may be found nevertheless; so may one that was never answered.

use alloc::vec;
use alloc::vec::Vec;

use super::super::message::{Item, Message, Outcome, Tag};
use super::super::{Chord, Purpose};
use super::{FRESH_MAX, Values};
use crate::key::Key;
use crate::pending::RequestId;
use crate::protocol::{Contact, Effect, EffectOf, Keys};

/// How often copies of a value are sent while no successor answers: each time the ring may have mended.
const TRIES_MAX: u8 = 3;

/// Who wants a value kept.
#[derive(Clone, Copy, Debug)]
pub enum Putter<C> {
    /// Another node asked.
    Peer { from: C, id: RequestId },
    /// The owner of this node did.
    Own(Tag),
}

/// A value that is kept here and copied, and whose putter waits.
#[derive(Clone, Copy, Debug)]
pub struct Put<C> {
    number: u32,
    pub key: Key,
    putter: Putter<C>,
    tries: u8,
    /// Copies that are on their way.
    under_way: u8,
    /// How many nodes have it beside this one, and how many are to before the putter is told.
    kept: u8,
    needs: u8,
    /// A successor has no room for it.
    refused: bool,
}

impl<C: Copy> Put<C> {
    /// The peer that waits, if one does.
    pub fn peer(&self) -> Option<C> {
        match self.putter {
            Putter::Peer { from, .. } => Some(from),
            Putter::Own(_) => None,
        }
    }
}

impl<C: Contact> Chord<C> {
    /// Keeps a value as its owner, and copies it. The putter is told when most of those that are to keep it do.
    pub(in super::super) fn put_here(
        &mut self,
        keys: &impl Keys<C>,
        item: Item,
        putter: Putter<C>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let key = item.key;
        let owned = self.is_owner(keys, key.point());
        let has_others = !self.first_successors().is_empty();
        let values = self.values();
        let news = values.store.lacks(&item);
        if !values.store.keep(item) {
            return tell(putter, 0, out);
        }
        if news && !owned {
            // It was when it was asked, or is the first that lives; or the ring has changed meanwhile.
            values.stray(key);
        }
        if !has_others {
            return tell(putter, 1, out);
        }
        if values.fresh.len() >= FRESH_MAX {
            // It comes to the others with all the rest.
            values.copied.clear();
            return tell(putter, 0, out);
        }
        values.next_put = values.next_put.wrapping_add(1);
        let number = values.next_put;
        // Also what was here before: its copies may be on their way only, or lost.
        values.fresh.push_back(Put {
            number,
            key,
            putter,
            tries: 0,
            under_way: 0,
            kept: 0,
            needs: 0,
            refused: false,
        });
        self.send_on(keys, out);
    }

    /// Sends the next fresh value to these; how many messages that took, or `None` if there is none.
    pub(super) fn copy_fresh(&mut self, first: &[C], out: &mut Vec<EffectOf<Self>>) -> Option<usize> {
        let values = self.values.as_deref_mut()?;
        let mut put = values.fresh.pop_front()?;
        let Some(item) = values.store.get(put.key) else {
            // It has expired meanwhile.
            tell(put.putter, 0, out);
            return Some(0);
        };
        for &to in first {
            let asked =
                self.ask(to, Purpose::Fresh { put: put.number }, Message::Copies(vec![item.clone()]), out);
            put.under_way += u8::from(asked);
        }
        if first.is_empty() {
            tell(put.putter, 1, out);
        } else {
            put.needs = (self.settings.copies / 2).min(first.len() as u8);
            put.tries += 1;
            self.values().copying.push(put);
            self.conclude(put.number, out);
        }
        Some(usize::from(put.under_way))
    }

    /// A successor has answered to a copy with how many values it keeps now, or has not answered.
    pub(in super::super) fn fresh_copied(
        &mut self,
        number: u32,
        stored: Option<u32>,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        let Some(values) = self.values.as_deref_mut() else { return };
        let Some(put) = values.copying.iter_mut().find(|put| put.number == number) else { return };
        put.under_way = put.under_way.saturating_sub(1);
        match stored {
            Some(0) => put.refused = true,
            Some(_) => put.kept += 1,
            None => {}
        }
        self.conclude(number, out);
    }

    /// Tells the putter if all is known, or begins anew if nobody has answered.
    fn conclude(&mut self, number: u32, out: &mut Vec<EffectOf<Self>>) {
        let Some(values) = self.values.as_deref_mut() else { return };
        let Some(at) = values.copying.iter().position(|put| put.number == number) else { return };
        let put = values.copying[at];
        if put.kept < put.needs && put.under_way > 0 {
            return;
        }
        values.copying.swap_remove(at);
        if put.kept >= put.needs {
            return tell(put.putter, 1 + u32::from(put.kept), out);
        }
        if put.refused || put.tries >= TRIES_MAX {
            return tell(put.putter, 0, out);
        }
        values.fresh.push_back(Put { kept: 0, ..put });
    }

    /// This node keeps nothing as an owner any more: whoever waits is to ask who does now.
    pub(in super::super) fn forget_puts(&mut self, out: &mut Vec<EffectOf<Self>>) {
        let Some(values) = self.values.as_deref_mut() else { return };
        let Values { fresh, copying, .. } = values;
        for put in fresh.drain(..).chain(copying.drain(..)) {
            out.push(match put.putter {
                Putter::Peer { from, id } => Effect::Answer { to: from, id, body: Message::Outside },
                Putter::Own(tag) => Effect::Report(Outcome::NotFound { tag }),
            });
        }
    }
}

/// Tells at how many nodes a value is kept.
fn tell<C: Contact>(putter: Putter<C>, kept: u32, out: &mut Vec<EffectOf<Chord<C>>>) {
    out.push(match putter {
        Putter::Peer { from, id } => Effect::Answer { to: from, id, body: Message::Stored(kept) },
        Putter::Own(tag) if kept > 0 => Effect::Report(Outcome::Stored { tag, nodes: kept }),
        Putter::Own(tag) => Effect::Report(Outcome::Full { tag }),
    });
}
