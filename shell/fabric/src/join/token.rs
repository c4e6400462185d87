//! The token: everything a newcomer needs, as one word that survives copy and paste.
//!
//! `archipel1` (the digit is the version), then Base58 of the fields and their CRC-32. Letters and digits only, so that
//! a double click takes all of it; blanks and line ends that a terminal or a mail put in are ignored.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use kernel::base58::{self, Base58Error};
use kernel::codec::{DecodeError, Reader, put_address, put_varint};
use kernel::{ClusterId, Millis, NodeId, TokenId};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

/// Addresses of the introducer in a token.
pub const ADDRESSES_MAX: usize = 8;
const NAME: &str = "archipel";
const VERSION: u32 = 1;
const CRC_BYTES: usize = 4;
/// The longest token: all fields, with as many IPv6 addresses as may be.
const BYTES_MAX: usize = 16 + 32 + 16 + 10 + 1 + ADDRESSES_MAX * 19 + CRC_BYTES;
/// Characters that are looked at, blanks included.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// What lets a node in. It is in no log: its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// A new one, of the system's random bytes. None if it has none.
    #[must_use]
    pub fn draw() -> Option<Secret> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).ok().map(|()| Secret(bytes))
    }

    /// SHA-256 of it: what the whole cluster may know.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let hash = digest::digest(&digest::SHA256, &self.0);
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An invitation for one node. Its `Display` is the text, with the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The cluster that it is for.
    pub cluster: ClusterId,
    /// The member to ask, whose key must answer.
    pub introducer: NodeId,
    /// Where that member listens; at most [`ADDRESSES_MAX`] are written.
    pub addresses: Vec<SocketAddr>,
    /// What lets the newcomer in.
    pub secret: Secret,
    /// Until when.
    pub expires: Millis,
}

/// Why text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// There is nothing.
    #[error("the token is empty")]
    Empty,
    /// It is something else.
    #[error(
        "it is not a join token: one begins with `archipel1`, and is printed by `archipel cluster token`"
    )]
    NotAToken,
    /// It was made by another version.
    #[error(
        "it is a token of version {0}, and this node reads version 1: use the same version on both nodes"
    )]
    Version(u32),
    /// A character that no token has.
    #[error("{found:?} at character {} is in no token: it was changed on the way", at + 1)]
    Character {
        /// What it is.
        found: char,
        /// Where, from 0, blanks not counted.
        at: usize,
    },
    /// It is longer than any token.
    #[error("it is longer than any token: something was pasted with it")]
    TooLong,
    /// Its checksum does not hold.
    #[error("its checksum does not hold: characters are missing, changed or in excess; copy all of it")]
    Checksum,
    /// It is whole, and what it says cannot be read.
    #[error("it is whole, but was not made by any known version: {0}")]
    Content(DecodeError),
}

impl Token {
    /// Which token it is.
    #[must_use]
    pub fn id(&self) -> TokenId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"archipel token id 1");
        context.update(&self.secret.0);
        let hash = context.finish();
        TokenId(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES_MAX);
        out.extend(self.cluster.0);
        out.extend(self.introducer.0);
        out.extend(self.secret.0);
        put_varint(&mut out, self.expires.0);
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        out.push(addresses.len() as u8);
        for address in addresses {
            put_address(&mut out, *address);
        }
        out
    }

    fn of(bytes: &[u8]) -> Result<Token, DecodeError> {
        let mut reader = Reader::new(bytes);
        let cluster = ClusterId(reader.array()?);
        let introducer = NodeId(reader.array()?);
        let secret = Secret(reader.array()?);
        let expires = Millis(reader.varint()?);
        let count = usize::from(reader.u8()?);
        if count > ADDRESSES_MAX {
            return Err(DecodeError::Overflow);
        }
        let addresses = (0..count).map(|_| reader.address()).collect::<Result<Vec<_>, DecodeError>>()?;
        if !reader.is_empty() {
            return Err(DecodeError::Invalid);
        }
        Ok(Token { cluster, introducer, addresses, secret, expires })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes();
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        let mut text = format!("{NAME}{VERSION}");
        base58::encode(&bytes, &mut text);
        f.write_str(&text)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let rest = text.strip_prefix(NAME).ok_or(TokenError::NotAToken)?;
        let version =
            rest.chars().next().and_then(|digit| digit.to_digit(10)).ok_or(TokenError::NotAToken)?;
        if version != VERSION {
            return Err(TokenError::Version(version));
        }
        let before = NAME.len() + 1;
        let bytes = base58::decode(&rest[1..], BYTES_MAX).map_err(|error| match error {
            Base58Error::Character { found, at } => TokenError::Character { found, at: at + before },
            Base58Error::TooLong { .. } => TokenError::TooLong,
        })?;
        let (fields, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(TokenError::Checksum)?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*crc) {
            return Err(TokenError::Checksum);
        }
        Token::of(fields).map_err(TokenError::Content)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            cluster: ClusterId(std::array::from_fn(|at| at as u8)),
            introducer: NodeId(std::array::from_fn(|at| at as u8 + 100)),
            addresses: vec!["10.0.0.1:7401".parse().unwrap(), "[2001:db8::1]:17401".parse().unwrap()],
            secret: Secret([0xA5; 16]),
            expires: Millis(1_900_000_000_000),
        }
    }

    #[test]
    fn the_text_of_version_1_never_changes() {
        let text = token().to_string();
        assert_eq!(text, TEXT);
        assert_eq!(TEXT.parse(), Ok(token()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    /// Made by other means than this code.
    const TEXT: &str = "archipel113GmTVdd4sdiccpybbz3LRzECwKHfitFDCLdYTwRuceubQj3bcezd8ucZr1maThSNo\
                        YiLaRiCcxkofWpcHbbNHb3BF5FfcqrMGzoe8nKf19h3CXiBxuWdQWkKnVPg8EZwfi4q5DXu";

    #[test]
    fn what_paste_does_to_text_is_undone_and_what_it_breaks_is_named() {
        let text = token().to_string();
        let (head, tail) = text.split_at(60);
        let parse = |text: &str| text.parse::<Token>();
        assert_eq!(parse(&format!("  {head}\r\n\t{tail}\n")), Ok(token()));
        #[rustfmt::skip] // columns
        let table = [
            (String::new(),                         TokenError::Empty),
            (" \n".into(),                          TokenError::Empty),
            (text[1..].into(),                      TokenError::NotAToken),
            ("archipel".into(),                     TokenError::NotAToken),
            (text.replacen('1', "2", 1),            TokenError::Version(2)),
            (text[..text.len() - 1].into(),         TokenError::Checksum),
            ("archipel1".into(),                    TokenError::Checksum),
            (format!("{text}2"),                    TokenError::Checksum),
            (format!("{head}0{}", &tail[1..]),      TokenError::Character { found: '0', at: 60 }),
            (format!("{head}…{tail}"),              TokenError::Character { found: '…', at: 60 }),
            (text.repeat(9).replace("archipel", ""),TokenError::NotAToken),
            (format!("{text}{}", &text[9..].repeat(9)), TokenError::TooLong),
            (format!("archipel1{}", "1".repeat(5000)), TokenError::TooLong),
        ];
        for (text, expected) in table {
            assert_eq!(parse(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_token_shows_its_secret_in_its_text_only() {
        assert!(!format!("{:?}", token()).contains("165"), "{:?}", token());
    }

    proptest! {
        #[test]
        fn every_token_reads_back(
            cluster: [u8; 16], introducer: [u8; 32], secret: [u8; 16], expires: u64,
            addresses in proptest::collection::vec(any::<(IpAddr, u16)>(), 0..=ADDRESSES_MAX),
        ) {
            let token = Token {
                cluster: ClusterId(cluster),
                introducer: NodeId(introducer),
                addresses: addresses.into_iter().map(SocketAddr::from).collect(),
                secret: Secret(secret),
                expires: Millis(expires),
            };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn one_changed_character_is_always_seen(at in 9usize..150, with in "[1-9A-HJ-NP-Za-km-z]") {
            let text = token().to_string();
            prop_assume!(at < text.len() && text[at..=at] != with);
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed.parse::<Token>().is_err());
        }

        #[test]
        fn arbitrary_text_is_refused(text in ".{0,300}") {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }
}
