//! An owned byte string of 24 bytes that keeps up to 22 bytes in place.

use alloc::boxed::Box;

/// Longest string that needs no allocation.
const INLINE_BYTES_MAX: usize = 22;

/// A byte string, in place when short: most members and fields of real data are.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// Length, then the bytes.
    Inline(u8, [u8; INLINE_BYTES_MAX]),
    /// Longer ones, in memory of exactly their length.
    Heap(Box<[u8]>),
}

const _: () = assert!(size_of::<Bytes>() == 24);

impl Bytes {
    /// A copy of `bytes`; allocates above 22.
    #[inline]
    pub(crate) fn new(bytes: &[u8]) -> Bytes {
        if bytes.len() <= INLINE_BYTES_MAX {
            let mut place = [0; INLINE_BYTES_MAX];
            place[..bytes.len()].copy_from_slice(bytes);
            Bytes::Inline(bytes.len() as u8, place)
        } else {
            Bytes::Heap(bytes.into())
        }
    }

    /// The bytes.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Inline(n, place) => &place[..usize::from(*n)],
            Bytes::Heap(bytes) => bytes,
        }
    }

    /// Becomes a copy of `bytes`, in the memory it has if the length is the same.
    #[inline]
    pub(crate) fn assign(&mut self, bytes: &[u8]) {
        match self {
            Bytes::Heap(place) if place.len() == bytes.len() => place.copy_from_slice(bytes),
            _ => *self = Bytes::new(bytes),
        }
    }

    /// Bytes of memory outside the 24, as an allocator rounds them.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Bytes::Inline(..) => 0,
            Bytes::Heap(bytes) => bytes.len().next_multiple_of(16),
        }
    }
}
