//! A node's name in libp2p: the `PeerId` of its Ed25519 key, as text `12D3KooW…`.
//!
//! libp2p peer-ids specification: Base58 of the identity multihash (code 0) of the protobuf of the public key
//! (type 1 = Ed25519, data). Other types of key have other prefixes; they are no nodes of ours.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::NodeId;
use crate::base58::{self, Base58Error};

/// Multihash: identity, 36 bytes; protobuf: field 1 = 1, field 2 = 32 bytes.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
const BYTES: usize = PREFIX.len() + 32;

/// The `PeerId` of a node: displays and parses as `12D3KooW…`, 52 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub NodeId);

/// Why text is not the `PeerId` of an Ed25519 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIdError {
    /// It is no Base58, or too long.
    Base58(Base58Error),
    /// It is the identifier of something else: another type of key, a hash, or cut short.
    NotEd25519,
}

impl PeerId {
    /// The bytes behind the text: a multihash of 38 bytes.
    #[must_use]
    pub fn multihash(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..PREFIX.len()].copy_from_slice(&PREFIX);
        bytes[PREFIX.len()..].copy_from_slice(&self.0.0);
        bytes
    }

    /// The node behind a multihash.
    ///
    /// # Errors
    /// [`PeerIdError::NotEd25519`].
    pub fn from_multihash(bytes: &[u8]) -> Result<PeerId, PeerIdError> {
        let key = bytes.strip_prefix(&PREFIX).and_then(|key| key.try_into().ok());
        key.map(|key| PeerId(NodeId(key))).ok_or(PeerIdError::NotEd25519)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        base58::encode(&self.multihash(), &mut text);
        f.pad(&text)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<PeerId, PeerIdError> {
        PeerId::from_multihash(&base58::decode(text, BYTES).map_err(PeerIdError::Base58)?)
    }
}

impl fmt::Display for PeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerIdError::Base58(error) => error.fmt(f),
            PeerIdError::NotEd25519 => f.write_str("it is not the peer id of an Ed25519 key (12D3KooW…)"),
        }
    }
}

impl core::error::Error for PeerIdError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    /// The example of the peer-ids specification; the key is that of the same identifier written as a CID there.
    const TEXT: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const KEY: [u8; 32] = [
        0x2f, 0xfa, 0x35, 0xa9, 0x9d, 0x3a, 0x3c, 0xfb, 0xb1, 0x7b, 0xb7, 0xc1, 0xdc, 0x55, 0x61, 0xb1, 0x8a,
        0x8d, 0xcc, 0xa4, 0xdf, 0x38, 0xdc, 0x61, 0x3e, 0xa8, 0x59, 0xc3, 0x7e, 0xb1, 0x33, 0x6b,
    ];

    #[test]
    fn the_vector_of_the_specification_holds() {
        assert_eq!(PeerId(NodeId(KEY)).to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(PeerId(NodeId(KEY))));
    }

    #[test]
    fn what_names_no_node_is_refused_with_the_reason() {
        let table = [
            // A hash of an RSA key, from the same specification.
            ("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "not the peer id of an Ed25519 key"),
            (&TEXT[..51], "not the peer id of an Ed25519 key"),
            ("", "not the peer id of an Ed25519 key"),
            ("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5S0", "'0' at position 52"),
            ("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SAAA", "more than 38 bytes"),
        ];
        for (text, reason) in table {
            let error = text.parse::<PeerId>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_node_has_a_name_that_reads_back(key: [u8; 32]) {
            let text = PeerId(NodeId(key)).to_string();
            prop_assert!(text.starts_with("12D3KooW") && text.len() == 52, "{}", text);
            prop_assert_eq!(text.parse(), Ok(PeerId(NodeId(key))));
        }
    }
}
