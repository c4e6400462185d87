//! A sorted set of integers in 2, 4 or 8 bytes each, as wide as its widest member needs.

use alloc::vec::Vec;

use super::packed::reserve;

/// Integers, ascending, each once, little-endian in `width` bytes.
#[derive(Clone, Debug)]
pub(crate) struct Ints {
    buf: Vec<u8>,
    width: u8,
}

impl Ints {
    /// No integers.
    pub(crate) const fn new() -> Ints {
        Ints { buf: Vec::new(), width: 2 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.buf.len() / self.stride()
    }

    /// Bytes of memory outside the value itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// The integer at `index`, which exists.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> i64 {
        let bytes = &self.buf[index * self.stride()..][..self.stride()];
        match *bytes {
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => i64::from_le_bytes(bytes.try_into().expect("the width is 2, 4 or 8")),
        }
    }

    /// Where `value` is, or where it belongs.
    pub(crate) fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(&value) {
                core::cmp::Ordering::Equal => return Ok(middle),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Adds `value`; false if it was there.
    pub(crate) fn insert(&mut self, value: i64) -> bool {
        let Err(index) = self.search(value) else { return false };
        let width = width_of(value);
        if width > self.width {
            self.widen(width);
        }
        let stride = self.stride();
        reserve(&mut self.buf, stride);
        let (at, old) = (index * stride, self.buf.len());
        self.buf.resize(old + stride, 0);
        self.buf.copy_within(at..old, at + stride);
        self.buf[at..at + stride].copy_from_slice(&value.to_le_bytes()[..stride]);
        true
    }

    /// Takes out the integer at `index`, which exists.
    pub(crate) fn remove(&mut self, index: usize) {
        let at = index * self.stride();
        self.buf.drain(at..at + self.stride());
        if self.buf.capacity() > 64 && self.buf.len() < self.buf.capacity() / 2 {
            self.buf.shrink_to(self.buf.len() + self.buf.len() / 4);
        }
    }

    fn widen(&mut self, width: u8) {
        let mut wide = Vec::with_capacity((self.len() + 1) * usize::from(width));
        for index in 0..self.len() {
            wide.extend_from_slice(&self.get(index).to_le_bytes()[..usize::from(width)]);
        }
        self.buf = wide;
        self.width = width;
    }

    fn stride(&self) -> usize {
        usize::from(self.width)
    }
}

fn width_of(value: i64) -> u8 {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

/// The integer that `bytes` spell in the one way integers are printed: no sign but `-`, no leading zero.
pub(crate) fn canonical_int(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0', ..] => return (bytes == b"0").then_some(0),
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut value = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 19 digits are below 10^19, which fits 64 bits.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}
