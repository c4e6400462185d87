//! Walking a sorted set between two ranks, from both ends.

use super::large::Large;
use super::packed::Packed;
use super::tree::Item;
use super::{Repr, Score, Zset};

/// Members with scores between two ranks, ascending; descending by `rev()`. From [`Zset::range`].
#[derive(Clone, Debug)]
pub struct Range<'a>(Walk<'a>);

#[derive(Clone, Debug)]
enum Walk<'a> {
    Packed { packed: &'a Packed, front: usize, back: usize, left: usize },
    Large { set: &'a Large, low: usize, high: usize, front: &'a [Item], back: &'a [Item] },
}

impl<'a> Range<'a> {
    /// Ranks `low..high`, cut to those that exist.
    pub(super) fn new(set: &'a Zset, low: usize, high: usize) -> Range<'a> {
        let high = high.min(set.len());
        let low = low.min(high);
        Range(match &set.repr {
            Repr::Packed(packed) => {
                let front = packed.offset_of(low);
                let back = if high == low { front } else { packed.offset_of(high) };
                Walk::Packed { packed, front, back, left: high - low }
            }
            Repr::Large(set) => Walk::Large { set, low, high, front: &[], back: &[] },
        })
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a [u8], Score);

    fn next(&mut self) -> Option<(&'a [u8], Score)> {
        match &mut self.0 {
            Walk::Packed { packed, front, left, .. } => {
                *left = left.checked_sub(1)?;
                let entry = packed.at(*front);
                *front = entry.next;
                Some((entry.member, entry.score))
            }
            Walk::Large { set, low, high, front, .. } => {
                if low >= high {
                    return None;
                }
                if front.is_empty() {
                    let (items, index) = set.order().leaf(*low);
                    *front = &items[index..];
                }
                let (&item, rest) = front.split_first().expect("a leaf with the rank has an item there");
                *front = rest;
                *low += 1;
                Some(set.resolve(item))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Walk::Packed { left, .. } => *left,
            Walk::Large { low, high, .. } => high - low,
        };
        (left, Some(left))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Walk::Packed { packed, back, left, .. } => {
                *left = left.checked_sub(1)?;
                *back = packed.before(*back);
                let entry = packed.at(*back);
                Some((entry.member, entry.score))
            }
            Walk::Large { set, low, high, back, .. } => {
                if low >= high {
                    return None;
                }
                if back.is_empty() {
                    let (items, index) = set.order().leaf(*high - 1);
                    *back = &items[..=index];
                }
                let (&item, rest) = back.split_last().expect("a leaf with the rank has an item there");
                *back = rest;
                *high -= 1;
                Some(set.resolve(item))
            }
        }
    }
}

impl ExactSizeIterator for Range<'_> {}
