//! Our own bytes: little-endian fixed integers, LEB128 varints, length-prefixed byte strings.
//!
//! Every format that Archipel itself defines (log records, checkpoints, dumps) is made of these.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the value does.
    Short,
    /// A varint of more than ten bytes, or one above the type's range.
    Overflow,
    /// A tag or field with a value that no version wrote.
    Invalid,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DecodeError::Short => "the bytes end too early",
            DecodeError::Overflow => "a number is out of range",
            DecodeError::Invalid => "a tag is unknown",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Appends `value` in 1 to 10 bytes.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes` as a varint, then `bytes`.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an address: 4 or 6, the octets of the IP address, the port. An IPv6 address's flow and scope are left out.
pub fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(address.port().to_le_bytes());
}

/// A cursor over bytes that were written with this module.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if there are fewer.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if self.rest.len() < n {
            return Err(DecodeError::Short);
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(first)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if there are fewer.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if there are fewer.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if there are fewer.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.rest
            .split_first_chunk::<N>()
            .map(|(head, tail)| {
                self.rest = tail;
                *head
            })
            .ok_or(DecodeError::Short)
    }

    /// A varint.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if it is cut, [`DecodeError::Overflow`] if it does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Overflow);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Overflow)
    }

    /// A varint that is a length or count in memory.
    ///
    /// # Errors
    /// As [`Reader::varint`]; [`DecodeError::Overflow`] above `usize`.
    #[inline]
    pub fn len(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.varint()?).map_err(|_| DecodeError::Overflow)
    }

    /// An address, as [`put_address`] writes it.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if it is cut, [`DecodeError::Invalid`] if it is of another version of IP.
    pub fn address(&mut self) -> Result<SocketAddr, DecodeError> {
        let ip = match self.u8()? {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return Err(DecodeError::Invalid),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    /// A length-prefixed byte string, borrowed.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if it is cut; nothing is allocated for it.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.len()?;
        self.take(n)
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_reads_back_and_a_cut_is_seen(ip: IpAddr, port: u16, cut in 1usize..7) {
            let address = SocketAddr::new(ip, port);
            let mut out = Vec::new();
            put_address(&mut out, address);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.address(), Ok(address));
            prop_assert!(reader.is_empty());
            prop_assert_eq!(Reader::new(&out[..out.len() - cut]).address(), Err(DecodeError::Short));
            out[0] = 5;
            prop_assert_eq!(Reader::new(&out).address(), Err(DecodeError::Invalid));
        }

        #[test]
        fn a_varint_reads_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn bytes_read_back_and_a_cut_is_seen(bytes: Vec<u8>, cut in 0usize..4) {
            let mut out = Vec::new();
            put_bytes(&mut out, &bytes);
            prop_assert_eq!(Reader::new(&out).bytes(), Ok(&bytes[..]));
            if cut > 0 && cut <= out.len() {
                prop_assert!(Reader::new(&out[..out.len() - cut]).bytes().is_err());
            }
        }
    }

    #[test]
    fn an_oversized_varint_is_refused() {
        assert_eq!(Reader::new(&[0xFF; 11]).varint(), Err(DecodeError::Overflow));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(DecodeError::Short));
    }
}
