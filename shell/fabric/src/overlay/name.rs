//! Names as people write them: of peers, of values, and of what is provided.

use std::fmt;
use std::str::FromStr;

use kernel::{NodeId, base58};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use p2p::Key;
use p2p::kad::{Envelope, NAME_BYTES_MAX, PUBLIC_KEY_PREFIX, SIGNED_PREFIX};
use thiserror::Error;

/// Longest multihash that is read, in bytes.
const MULTIHASH_BYTES_MAX: usize = 80;
/// Multihash of SHA-256: its code and the digest's length.
const SHA2_256: [u8; 2] = [0x12, 0x20];
/// Version 1 of a CID, and the letters of its base 32.
const CID_V1: u8 = 1;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why text is no name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is no peer's.
    #[error("{text:?} is not the id of a peer; one looks like 12D3KooW…")]
    Peer {
        /// What was given.
        text: String,
    },
    /// It is no address.
    #[error("{text:?} is no address of a peer; write it as /ip4/127.0.0.1/tcp/7402/p2p/12D3KooW…")]
    Address {
        /// What was given.
        text: String,
    },
    /// It is no value's.
    #[error("{text:?} is not the name of a value: it is a label, /archipel/PEER/LABEL, or /pk/HASH")]
    Value {
        /// What was given.
        text: String,
    },
    /// It is too long.
    #[error("a name of {bytes} bytes, where {NAME_BYTES_MAX} are the most")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// A peer of the overlay, with any kind of key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub(super) PeerId);

impl From<NodeId> for Peer {
    fn from(node: NodeId) -> Peer {
        let bytes = kernel::PeerId(node).multihash();
        Peer(PeerId::from_bytes(&bytes).expect("a node's multihash is a peer's id"))
    }
}

impl FromStr for Peer {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Peer, NameError> {
        text.parse().map(Peer).map_err(|_| NameError::Peer { text: text.to_owned() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Peer {
    /// Its place in the key space.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(&self.0.to_bytes())
    }
}

/// Where a peer is: an address, and whom to expect there, if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) peer: Option<PeerId>,
    pub(super) address: Multiaddr,
}

impl FromStr for Place {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Place, NameError> {
        let refused = || NameError::Address { text: text.to_owned() };
        let mut address: Multiaddr = text.parse().map_err(|_| refused())?;
        if !super::tcp::is_dialable(&address) {
            return Err(refused());
        }
        let peer = match address.iter().last() {
            Some(Protocol::P2p(peer)) => {
                address.pop();
                Some(peer)
            }
            _ => None,
        };
        Ok(Place { peer, address })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.peer.map_or(Ok(()), |peer| write!(f, "/p2p/{peer}"))
    }
}

/// The name of a value.
///
/// `/archipel/PEER/LABEL` is a signed record of that peer, `/pk/HASH` a public key under its Base58 multihash, and any text
/// without a slash in front a label of the node that is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct ValueName(Vec<u8>);

impl ValueName {
    /// Reads a name; `own` is the node whose labels are meant.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str, own: NodeId) -> Result<ValueName, NameError> {
        let refused = || NameError::Value { text: text.to_owned() };
        let bytes = if let Some(rest) = text.strip_prefix("/archipel/") {
            let (peer, label) =
                rest.split_once('/').filter(|(_, label)| !label.is_empty()).ok_or_else(refused)?;
            let peer: kernel::PeerId = peer.parse().map_err(|_| refused())?;
            Envelope::name(&peer.0.0, label.as_bytes())
        } else if let Some(hash) = text.strip_prefix("/pk/") {
            let hash = base58::decode(hash, MULTIHASH_BYTES_MAX).map_err(|_| refused())?;
            [PUBLIC_KEY_PREFIX, &hash].concat()
        } else if text.is_empty() || text.starts_with('/') {
            return Err(refused());
        } else {
            Envelope::name(&own.0, text.as_bytes())
        };
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: bytes.len() });
        }
        Ok(ValueName(bytes))
    }

    /// The bytes whose SHA-256 is its place.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its place in the key space.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(&self.0)
    }

    /// Whose signed record it is; `None` for other kinds of values.
    #[must_use]
    pub fn publisher(&self) -> Option<NodeId> {
        let (publisher, _) = self.0.strip_prefix(SIGNED_PREFIX)?.split_first_chunk::<32>()?;
        Some(NodeId(*publisher))
    }
}

impl fmt::Display for ValueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(publisher) = self.publisher() {
            let label = &self.0[SIGNED_PREFIX.len() + publisher.0.len()..];
            return write!(f, "/archipel/{}/{}", kernel::PeerId(publisher), String::from_utf8_lossy(label));
        }
        let mut text = "/pk/".to_owned();
        base58::encode(&self.0[PUBLIC_KEY_PREFIX.len()..], &mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for ValueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is provided: a multihash, as libp2p's peers know content by.
///
/// Read from a CID of either version, or from any other text, whose SHA-256 it then is.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentName(Vec<u8>);

impl ContentName {
    /// The content that `text` names.
    #[must_use]
    pub fn parse(text: &str) -> ContentName {
        let version_0 = || {
            let bytes = base58::decode(text, MULTIHASH_BYTES_MAX).ok()?;
            (text.len() == 46 && bytes.len() == 34 && bytes.starts_with(&SHA2_256)).then_some(bytes)
        };
        let hashed = || [&SHA2_256[..], &Key::of(text.as_bytes()).to_bytes()].concat();
        ContentName(version_0().or_else(|| cid_v1(text)).unwrap_or_else(hashed))
    }

    /// The bytes whose SHA-256 is its place.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its place in the key space.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(&self.0)
    }
}

impl fmt::Display for ContentName {
    /// The multihash in Base58.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        base58::encode(&self.0, &mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The multihash of a CID of version 1 in base 32: `b`, then version, codec and multihash.
fn cid_v1(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('b').filter(|digits| digits.len() <= MULTIHASH_BYTES_MAX * 2)?;
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for digit in digits.bytes() {
        held = held << 5 | BASE32.iter().position(|own| *own == digit)? as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // Its padding, which is zeros and less than a digit.
    if bits >= 5 || held != 0 {
        return None;
    }
    let mut reader = kernel::codec::Reader::new(&bytes);
    if reader.varint().ok()? != u64::from(CID_V1) {
        return None;
    }
    let _codec = reader.varint().ok()?;
    let multihash = bytes[bytes.len() - reader.rest().len()..].to_vec();
    let _code = reader.varint().ok()?;
    let length = reader.varint().ok()?;
    let whole = usize::try_from(length).is_ok_and(|length| length == reader.rest().len() && length > 0);
    (whole && multihash.len() <= MULTIHASH_BYTES_MAX).then_some(multihash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const OWN: NodeId = NodeId([7; 32]);

    #[test]
    fn values_are_named_by_label_by_publisher_or_by_hash() {
        let named = |text: &str| ValueName::parse(text, OWN).unwrap();
        assert_eq!(named("menu").bytes(), Envelope::name(&OWN.0, b"menu"));
        assert_eq!(named("a/b").publisher(), Some(OWN));
        let other = named(&format!("/archipel/{PEER}/a/b"));
        assert_eq!(other.to_string(), format!("/archipel/{PEER}/a/b"));
        assert_eq!(Peer::from(other.publisher().unwrap()).to_string(), PEER);
        let key = named("/pk/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N");
        assert_eq!((key.bytes().len(), key.publisher()), (4 + 34, None));
        assert_eq!(key.to_string(), "/pk/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N");
        for text in ["", "/", "/archipel/", "/archipel/x/y", &format!("/archipel/{PEER}/"), "/pk/0", "/v/x"] {
            assert!(matches!(ValueName::parse(text, OWN), Err(NameError::Value { .. })), "{text}");
        }
        assert_eq!(ValueName::parse(&"x".repeat(1100), OWN), Err(NameError::TooLong { bytes: 1142 }));
    }

    /// The example of the CID specification's README, in both versions, and the digest that they are of.
    #[test]
    fn content_is_named_by_its_multihash_whichever_version_its_cid_has() {
        let old = ContentName::parse("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n");
        let new = ContentName::parse("bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(old, new);
        assert_eq!(old.to_string(), "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n");
        // SHA-256 of "abc", FIPS 180-2.
        let text = ContentName::parse("abc");
        assert_eq!(text.bytes()[..6], [0x12, 0x20, 0xba, 0x78, 0x16, 0xbf]);
        // What only looks like a CID is text.
        for text in ["b", "banana", "Qmx", "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv"] {
            assert_eq!(ContentName::parse(text).bytes()[2..], Key::of(text.as_bytes()).to_bytes(), "{text}");
        }
    }

    #[test]
    fn places_name_an_address_and_perhaps_a_peer() {
        let with = format!("/ip4/127.0.0.1/tcp/7402/p2p/{PEER}");
        let place: Place = with.parse().unwrap();
        assert_eq!((place.to_string(), place.peer.unwrap().to_string()), (with, PEER.to_owned()));
        assert_eq!("/ip4/127.0.0.1/tcp/7402".parse::<Place>().unwrap().peer, None);
        for text in ["", "127.0.0.1:7402", "/ip4/127.0.0.1/udp/1", PEER] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert!("nobody".parse::<Peer>().is_err());
    }
}
