//! A packed run of list elements with room at both ends.
//!
//! An element lies between two copies of its length, so that a reader can walk both ways. Elements at
//! the front are added into a gap before them, at the back behind them; neither moves the others.

use alloc::vec::Vec;

/// Bytes that the elements of a chunk may take together (`list-max-listpack-size -2` of Redis). An
/// element that takes more is alone in its chunk.
pub(crate) const CHUNK_BYTES_MAX: usize = 8192;
/// Smallest buffer, in bytes.
const BUFFER_BYTES_MIN: usize = 48;

/// Lengths up to here take one byte.
const SHORT_MAX: usize = 253;
/// Lengths from here on take more.
const LONG_MIN: usize = SHORT_MAX + 1;
/// A length of two bytes follows (or, read backwards, precedes).
const MARK_U16: u8 = 254;
/// A length of four bytes follows.
const MARK_U32: u8 = 255;

/// Bytes that an element of `n` bytes takes.
#[inline]
pub(crate) fn packed_bytes(n: usize) -> usize {
    n + 2 * match n {
        ..=SHORT_MAX => 1,
        LONG_MIN..=0xFFFF => 3,
        _ => 5,
    }
}

/// A length as it lies before an element; reversed, as it lies behind it.
#[derive(Clone, Copy)]
struct Frame {
    bytes: [u8; 5],
    len: u8,
}

impl Frame {
    #[inline]
    fn new(n: usize) -> Frame {
        let mut bytes = [0; 5];
        let len = match n {
            ..=SHORT_MAX => {
                bytes[0] = n as u8;
                1
            }
            LONG_MIN..=0xFFFF => {
                bytes[0] = MARK_U16;
                bytes[1..3].copy_from_slice(&(n as u16).to_le_bytes());
                3
            }
            _ => {
                let n = u32::try_from(n).expect("a value is far below 4 GiB");
                bytes[0] = MARK_U32;
                bytes[1..5].copy_from_slice(&n.to_le_bytes());
                5
            }
        };
        Frame { bytes, len }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Writes an element to exactly the bytes it takes.
#[inline]
fn write(place: &mut [u8], element: &[u8]) {
    let frame = Frame::new(element.len());
    let (n, head) = (place.len(), usize::from(frame.len));
    place[..head].copy_from_slice(frame.as_slice());
    place[head..n - head].copy_from_slice(element);
    for (to, from) in place[n - head..].iter_mut().rev().zip(frame.as_slice()) {
        *to = *from;
    }
}

/// Elements in a buffer.
///
/// Invariant: `buf[start..]` is `count` elements, each as [`write`] leaves it. Positions below are byte
/// offsets into `buf` at which an element begins, or the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    buf: Vec<u8>,
    start: u32,
    count: u32,
}

impl Chunk {
    /// How many elements there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes that the elements take.
    #[inline]
    pub(crate) fn used_bytes(&self) -> usize {
        self.buf.len() - self.front()
    }

    /// Bytes of memory outside the value itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// The position of the first element.
    #[inline]
    pub(crate) fn front(&self) -> usize {
        self.start as usize
    }

    /// The position behind the last element.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.buf.len()
    }

    /// The element at `position`, and the position behind it.
    #[inline]
    pub(crate) fn at(&self, position: usize) -> (&[u8], usize) {
        let rest = &self.buf[position..];
        let (head, n) = match *rest {
            [MARK_U16, a, b, ..] => (3, usize::from(u16::from_le_bytes([a, b]))),
            [MARK_U32, a, b, c, d, ..] => (5, u32::from_le_bytes([a, b, c, d]) as usize),
            [n, ..] => (1, usize::from(n)),
            [] => unreachable!("a position before the end has an element"),
        };
        (&rest[head..head + n], position + head + n + head)
    }

    /// The element that ends at position `end`, and its position.
    #[inline]
    pub(crate) fn before(&self, end: usize) -> (&[u8], usize) {
        let rest = &self.buf[..end];
        let (head, n) = match *rest {
            [.., b, a, MARK_U16] => (3, usize::from(u16::from_le_bytes([a, b]))),
            [.., d, c, b, a, MARK_U32] => (5, u32::from_le_bytes([a, b, c, d]) as usize),
            [.., n] => (1, usize::from(n)),
            [] => unreachable!("a position behind the front has an element before it"),
        };
        let from = end - head - n;
        (&rest[from..end - head], from - head)
    }

    /// The position of element `index`, or the end; from the nearer side.
    pub(crate) fn position(&self, index: usize) -> usize {
        if index <= self.len() / 2 {
            (0..index).fold(self.front(), |at, _| self.at(at).1)
        } else {
            (index..self.len()).fold(self.end(), |at, _| self.before(at).1)
        }
    }

    /// Appends `element`; false if there is no room and another chunk must take it.
    #[inline]
    pub(crate) fn push_back(&mut self, element: &[u8]) -> bool {
        let size = packed_bytes(element.len());
        if self.buf.capacity() - self.buf.len() < size && !self.make_room_back(size) {
            return false;
        }
        let frame = Frame::new(element.len());
        self.buf.extend_from_slice(frame.as_slice());
        self.buf.extend_from_slice(element);
        match frame.len {
            1 => self.buf.push(frame.bytes[0]),
            _ => self.buf.extend(frame.as_slice().iter().rev()),
        }
        self.count += 1;
        true
    }

    /// Puts `element` first; false if there is no room and another chunk must take it.
    #[inline]
    pub(crate) fn push_front(&mut self, element: &[u8]) -> bool {
        let size = packed_bytes(element.len());
        if self.front() < size && !self.make_room_front(size) {
            return false;
        }
        let from = self.front() - size;
        write(&mut self.buf[from..from + size], element);
        self.start = from as u32;
        self.count += 1;
        true
    }

    /// Forgets the first element, which exists.
    #[inline]
    pub(crate) fn pop_front(&mut self) {
        self.start = self.at(self.front()).1 as u32;
        self.count -= 1;
    }

    /// Forgets the last element, which exists.
    #[inline]
    pub(crate) fn pop_back(&mut self) {
        let position = self.before(self.end()).1;
        self.buf.truncate(position);
        self.count -= 1;
    }

    /// Puts `element` at `position`; false if there is no room and the chunk must be split.
    pub(crate) fn insert(&mut self, position: usize, element: &[u8]) -> bool {
        let size = packed_bytes(element.len());
        if self.count > 0 && self.used_bytes() + size > CHUNK_BYTES_MAX {
            return false;
        }
        let position = position - self.reserve(size);
        let old = self.buf.len();
        self.buf.resize(old + size, 0);
        self.buf.copy_within(position..old, position + size);
        write(&mut self.buf[position..position + size], element);
        self.count += 1;
        true
    }

    /// Takes out the element at `position`.
    pub(crate) fn erase(&mut self, position: usize) {
        let next = self.at(position).1;
        self.buf.drain(position..next);
        self.count -= 1;
    }

    /// Overwrites the element at `position` if `element` is as long; false if not.
    pub(crate) fn overwrite(&mut self, position: usize, element: &[u8]) -> bool {
        let (old, next) = self.at(position);
        if old.len() != element.len() {
            return false;
        }
        write(&mut self.buf[position..next], element);
        true
    }

    /// Moves the elements from number `index` on to a new chunk.
    pub(crate) fn split_off(&mut self, index: usize) -> Chunk {
        let position = self.position(index);
        let buf = self.buf[position..].to_vec();
        let count = self.count - index as u32;
        self.buf.truncate(position);
        self.count = index as u32;
        Chunk { buf, start: 0, count }
    }

    /// Appends the elements of `other`.
    pub(crate) fn append(&mut self, other: &Chunk) {
        self.reserve(other.used_bytes());
        self.buf.extend_from_slice(&other.buf[other.front()..]);
        self.count += other.count;
    }

    /// How many elements are `value`.
    pub(crate) fn count_of(&self, value: &[u8]) -> usize {
        let (mut at, mut found) = (self.front(), 0);
        while at < self.end() {
            let (element, next) = self.at(at);
            found += usize::from(element == value);
            at = next;
        }
        found
    }

    /// Takes out elements that are `value`: after the first `skip` of them, `take` of them.
    pub(crate) fn erase_values(&mut self, value: &[u8], mut skip: usize, mut take: usize) {
        let mut kept = Vec::with_capacity(self.used_bytes());
        let (mut at, end) = (self.front(), self.end());
        while at < end {
            let (element, next) = self.at(at);
            if take > 0 && element == value {
                if skip == 0 {
                    take -= 1;
                    self.count -= 1;
                    at = next;
                    continue;
                }
                skip -= 1;
            }
            kept.extend_from_slice(&self.buf[at..next]);
            at = next;
        }
        self.buf = kept;
        self.start = 0;
    }

    /// Gives back most of a buffer that is mostly empty.
    pub(crate) fn give_back(&mut self) {
        let used = self.used_bytes();
        if self.buf.capacity() > 512 && used < self.buf.capacity() / 8 {
            let mut buf = Vec::with_capacity(used * 2);
            buf.extend_from_slice(&self.buf[self.front()..]);
            self.buf = buf;
            self.start = 0;
        }
    }

    /// Gives back what is free in a chunk that nothing more will be added to, if it is worth a copy.
    pub(crate) fn seal(&mut self) {
        let used = self.used_bytes();
        if self.buf.capacity() - used > CHUNK_BYTES_MAX / 8 {
            self.buf = self.buf[self.front()..].to_vec();
            self.start = 0;
        }
    }

    /// Makes room for `size` bytes behind the last element, if need be by giving up the gap before the
    /// first one; how far that moved the elements. The buffer is at most [`CHUNK_BYTES_MAX`] unless the
    /// elements take more.
    fn reserve(&mut self, size: usize) -> usize {
        if self.buf.capacity() - self.buf.len() >= size {
            return 0;
        }
        let want = self.used_bytes() + size;
        let mut buf = Vec::with_capacity((want * 2).clamp(BUFFER_BYTES_MIN, CHUNK_BYTES_MAX.max(want)));
        buf.extend_from_slice(&self.buf[self.front()..]);
        self.buf = buf;
        core::mem::take(&mut self.start) as usize
    }

    /// Size of the next buffer for `want` bytes; `None` if the chunk would be too large.
    fn grown(&self, want: usize) -> Option<usize> {
        if self.count == 0 && want > CHUNK_BYTES_MAX {
            return Some(want);
        }
        (want <= CHUNK_BYTES_MAX).then(|| (want * 2).clamp(BUFFER_BYTES_MIN, CHUNK_BYTES_MAX))
    }

    /// Makes room for `size` bytes behind the last element, from half the gap before the first one if
    /// that is worth the move.
    fn make_room_back(&mut self, size: usize) -> bool {
        let (used, gap) = (self.used_bytes(), self.front());
        if self.count == 0 {
            self.buf.clear();
            self.start = 0;
            if self.buf.capacity() >= size {
                return true;
            }
        } else if gap / 2 >= size && gap >= used / 4 {
            let start = gap / 2;
            self.buf.copy_within(gap.., start);
            self.buf.truncate(start + used);
            self.start = start as u32;
            return true;
        }
        let gap = self.front();
        let Some(total) = self.grown(gap + used + size) else { return false };
        if self.buf.capacity() < total {
            self.buf.reserve_exact(total - self.buf.len());
        }
        true
    }

    /// Makes room for `size` bytes before the first element, from half of what is free behind the last
    /// one if that is worth the move.
    fn make_room_front(&mut self, size: usize) -> bool {
        let (used, front) = (self.used_bytes(), self.front());
        let free = self.buf.capacity() - used;
        let total = if free / 2 >= size && free >= used / 4 {
            used + free / 2 + free % 2
        } else {
            let Some(total) = self.grown(used + size) else { return false };
            total
        };
        if total <= self.buf.capacity() {
            let old = self.buf.len();
            self.buf.resize(total.max(old), 0);
            self.buf.copy_within(front..old, total - used);
            self.buf.truncate(total);
        } else {
            let mut fresh = alloc::vec![0; total];
            fresh[total - used..].copy_from_slice(&self.buf[front..]);
            self.buf = fresh;
        }
        self.start = (total - used) as u32;
        true
    }
}
