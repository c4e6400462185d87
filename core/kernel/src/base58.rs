//! Base58 as Bitcoin and libp2p write it: bytes as text without characters that look alike.
//!
//! Quadratic in the length, as the base is no power of two: for identifiers, not for data.

use alloc::string::String;
use alloc::vec::Vec;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Why text is not Base58 of so few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base58Error {
    /// A character that Base58 does not use: `0`, `O`, `I`, `l` or anything that is no letter or digit.
    Character {
        /// What it is.
        found: char,
        /// Where, counted in bytes from 0.
        at: usize,
    },
    /// The text stands for more bytes than the reader takes.
    TooLong {
        /// The reader's limit, in bytes.
        limit: usize,
    },
}

impl core::fmt::Display for Base58Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Base58Error::Character { found, at } => {
                write!(f, "{found:?} at position {} is not used in base58", at + 1)
            }
            Base58Error::TooLong { limit } => write!(f, "it stands for more than {limit} bytes"),
        }
    }
}

impl core::error::Error for Base58Error {}

/// Appends `bytes` as text: about 137 characters for 100 bytes.
pub fn encode(bytes: &[u8], out: &mut String) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    // The digits, lowest first.
    let mut digits: Vec<u8> = Vec::with_capacity(bytes.len() * 138 / 100 + 1);
    for &byte in &bytes[zeros..] {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    out.extend(core::iter::repeat_n('1', zeros));
    out.extend(digits.iter().rev().map(|digit| char::from(ALPHABET[usize::from(*digit)])));
}

/// The bytes that `text` stands for, if they are at most `limit`.
///
/// # Errors
/// [`Base58Error`]; no more than `limit` bytes and one are ever held.
pub fn decode(text: &str, limit: usize) -> Result<Vec<u8>, Base58Error> {
    let zeros = text.bytes().take_while(|byte| *byte == b'1').count();
    if zeros > limit {
        return Err(Base58Error::TooLong { limit });
    }
    // The bytes, lowest first.
    let mut bytes: Vec<u8> = Vec::new();
    for (at, found) in text.char_indices().skip(zeros) {
        let digit = ALPHABET.iter().position(|letter| char::from(*letter) == found);
        let mut carry = digit.ok_or(Base58Error::Character { found, at })? as u32;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            bytes.push(carry as u8);
        }
        if zeros + bytes.len() > limit {
            return Err(Base58Error::TooLong { limit });
        }
    }
    bytes.extend(core::iter::repeat_n(0, zeros));
    bytes.reverse();
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    /// Vectors of the IETF draft draft-msporny-base58.
    #[test]
    fn the_vectors_of_the_draft_hold() {
        let table: [(&[u8], &str); 4] = [
            (b"Hello World!", "2NEpo7TZRRrLZSi2U"),
            (
                b"The quick brown fox jumps over the lazy dog.",
                "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z",
            ),
            (&[0, 0, 0x28, 0x7F, 0xB4, 0xCD], "11233QC4"),
            (b"", ""),
        ];
        for (bytes, text) in table {
            let mut out = String::new();
            encode(bytes, &mut out);
            assert_eq!(out, text);
            assert_eq!(decode(text, bytes.len()), Ok(bytes.to_vec()));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_place() {
        let wrong = |found, at| Err(Base58Error::Character { found, at });
        assert_eq!(decode("12l", 9), wrong('l', 2));
        assert_eq!(decode("0", 9), wrong('0', 0));
        assert_eq!(decode("2é", 9), wrong('é', 1));
        assert_eq!(decode("111", 2), Err(Base58Error::TooLong { limit: 2 }));
        assert_eq!(decode("zzzz", 2), Err(Base58Error::TooLong { limit: 2 }));
        assert_eq!(decode("1z", 2), Ok(vec![0, 57]));
        assert_eq!(decode("l", 9).unwrap_err().to_string(), "'l' at position 1 is not used in base58");
    }

    proptest! {
        #[test]
        fn bytes_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..80), zeros in 0usize..4) {
            let bytes = [vec![0; zeros], bytes].concat();
            let mut out = String::new();
            encode(&bytes, &mut out);
            prop_assert_eq!(decode(&out, bytes.len()), Ok(bytes));
        }

        #[test]
        fn arbitrary_text_is_read_or_refused(text in ".{0,60}") {
            if let Ok(bytes) = decode(&text, 40) {
                let mut out = String::new();
                encode(&bytes, &mut out);
                prop_assert_eq!(out, text);
            }
        }
    }
}
