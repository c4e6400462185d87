//! Walking a list between two indices, from both ends.

use core::ops;

use super::List;
use super::chunk::Chunk;

/// Elements of a [`List`] in order; in reverse order by `rev()`. From [`List::iter`] and [`List::range`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    list: &'a List,
    /// Indices that are still to come.
    left: ops::Range<usize>,
    // Found when first needed: most walks go one way.
    front: Option<Cursor<'a>>,
    back: Option<Cursor<'a>>,
}

/// A position between two elements.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    number: usize,
    chunk: &'a Chunk,
    position: usize,
}

impl<'a> Iter<'a> {
    /// The elements with indices in `range`, which exist.
    pub(super) fn new(list: &'a List, range: ops::Range<usize>) -> Iter<'a> {
        Iter { list, left: range, front: None, back: None }
    }

    /// The cursor before element `index`, which exists, or with `after` = 1 behind it.
    fn cursor(list: &'a List, index: usize, after: usize) -> Cursor<'a> {
        let place = list.place(index);
        let chunk = list.chunk(place.chunk);
        Cursor { number: place.chunk, chunk, position: chunk.position(place.index + after) }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let index = self.left.next()?;
        let list = self.list;
        let cursor = self.front.get_or_insert_with(|| Iter::cursor(list, index, 0));
        if cursor.position == cursor.chunk.end() {
            cursor.number += 1;
            cursor.chunk = list.chunk(cursor.number);
            cursor.position = cursor.chunk.front();
        }
        let (element, next) = cursor.chunk.at(cursor.position);
        cursor.position = next;
        Some(element)
    }

    fn nth(&mut self, n: usize) -> Option<&'a [u8]> {
        if n > 0 {
            self.left.start = self.left.start.saturating_add(n).min(self.left.end);
            self.front = None;
        }
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.left.next_back()?;
        let list = self.list;
        let cursor = self.back.get_or_insert_with(|| Iter::cursor(list, index, 1));
        if cursor.position == cursor.chunk.front() {
            cursor.number -= 1;
            cursor.chunk = list.chunk(cursor.number);
            cursor.position = cursor.chunk.end();
        }
        let (element, position) = cursor.chunk.before(cursor.position);
        cursor.position = position;
        Some(element)
    }
}

impl ExactSizeIterator for Iter<'_> {}
