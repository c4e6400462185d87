//! Fingers, and the cache of nodes heard of lately (EpiChord: Leong, Liskov & Demaine 2004).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use kernel::Micros;

use super::Chord;
use super::lookup::Aim;
use super::ring::distance;
use crate::protocol::{Contact, EffectOf, Keys};

/// Fingers of a ring of 2^64 points.
const FINGERS_MAX: u8 = 64;

impl<C: Contact> Chord<C> {
    /// Looks the next finger up. After the last that the successor list does not know better, it begins anew.
    pub(super) fn mend_finger(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Vec<EffectOf<Self>>) {
        let Some(&last) = self.successors.last() else { return };
        if self.next_finger >= FINGERS_MAX {
            self.next_finger = 0;
        }
        let index = self.next_finger;
        let ahead = 1u64 << (FINGERS_MAX - 1 - index);
        if ahead <= distance(self.point, keys.point(last)) {
            self.fingers.truncate(usize::from(index));
            self.next_finger = 0;
            return;
        }
        self.next_finger = index + 1;
        self.begin(now, keys, self.point.wrapping_add(ahead), Aim::Finger { index }, out);
    }

    pub(super) fn set_finger(&mut self, now: Micros, keys: &impl Keys<C>, index: u8, node: C) {
        let index = index.min(FINGERS_MAX - 1);
        let (at, index) = (self.point.wrapping_add(1 << (FINGERS_MAX - 1 - index)), usize::from(index));
        if self.fingers.len() <= index {
            self.fingers.resize(index + 1, None);
        }
        let before = self.fingers[index];
        self.fingers[index] = Some(node).filter(|node| *node != self.own);
        // One that was passed over is dead, or on a ring that is not this one any more.
        if let Some(before) = before
            && distance(at, keys.point(before)) < distance(at, keys.point(node))
        {
            self.lost(now, before);
        }
    }

    /// Nobody is left before and behind the node: its fingers are the way back.
    pub(super) fn lose_fingers(&mut self, now: Micros) {
        for finger in core::mem::take(&mut self.fingers).into_iter().flatten() {
            self.lost(now, finger);
        }
    }
}

/// Nodes heard of lately, the latest last.
#[derive(Clone, Debug)]
pub struct Cache<C> {
    most: usize,
    nodes: VecDeque<C>,
}

impl<C: Copy + Eq> Cache<C> {
    /// Room for `most`.
    pub fn new(most: u16) -> Cache<C> {
        Cache { most: usize::from(most), nodes: VecDeque::new() }
    }

    /// This node lives.
    pub fn heard(&mut self, node: C) {
        self.forget(node);
        if self.nodes.len() >= self.most {
            self.nodes.pop_front();
        }
        self.nodes.push_back(node);
    }

    /// This node does not answer.
    pub fn forget(&mut self, node: C) {
        self.nodes.retain(|known| *known != node);
    }

    /// All of them.
    pub fn nodes(&self) -> impl Iterator<Item = C> + '_ {
        self.nodes.iter().copied()
    }
}
