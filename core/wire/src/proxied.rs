//! The PROXY protocol, versions 1 and 2 (HAProxy's `doc/proxy-protocol.txt`): what a proxy says of a connection before the
//! connection's own bytes, namely whose it is.
//!
//! A receiver never guesses whether there is a header: it expects one from whom it trusts, and then there must be one. What
//! follows the addresses in version 2 (TLVs) is skipped, but for the checksum, which is looked at if it is there.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str;

use kernel::planted::{Bug, is};
use thiserror::Error;

/// A whole header, in bytes. Version 2 allows for more, which nobody needs: a certificate's TLVs are below 2 KiB.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;
/// A header of version 1 with its line end, in bytes (2.1).
pub const LINE_BYTES_MAX: usize = 107;

const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before what its length counts.
const FIXED_BYTES: usize = 16;
const CRC32C: u8 = 0x03;
const TLV_HEAD_BYTES: usize = 3;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Who opened it.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// Why bytes are no header. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// They begin otherwise.
    #[error("no header of the PROXY protocol")]
    Missing,
    /// It breaks the grammar of its version.
    #[error("a malformed header of the PROXY protocol")]
    Malformed,
    /// Another version, or a command that nobody knows.
    #[error("a version or command of the PROXY protocol that is not known")]
    Unknown,
    /// It is longer than it may be.
    #[error("a header of the PROXY protocol of more than {HEADER_BYTES_MAX} bytes")]
    TooLarge,
    /// Its checksum is another.
    #[error("the checksum of a header of the PROXY protocol is wrong")]
    Checksum,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is; `None`: the sender's own (`LOCAL`), or it does not know (`UNKNOWN`, sockets that are not
    /// TCP over IP).
    pub path: Option<Path>,
    /// How long the header is; at most [`HEADER_BYTES_MAX`].
    pub bytes: usize,
}

impl Header {
    /// The header at the start of `bytes`; `None` if it is not whole yet. Ask again with all bytes that there are.
    ///
    /// # Errors
    /// [`ProxyError`], as soon as no bytes that could follow make it one. What comes behind is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
        let begins =
            |with: &[u8]| bytes[..bytes.len().min(with.len())] == with[..bytes.len().min(with.len())];
        if begins(LINE) {
            line(bytes)
        } else if begins(SIGNATURE) {
            binary(bytes)
        } else {
            Err(ProxyError::Missing)
        }
    }

    /// Writes a header to the end of `out`, at most [`LINE_BYTES_MAX`] bytes. Without a path the connection is said to be
    /// our own, as health checks are; and so where one end is of IPv4 and the other of IPv6.
    pub fn write(version: ProxyVersion, path: Option<&Path>, out: &mut Vec<u8>) {
        let ends = path.map(|path| (canonical(path.source), canonical(path.destination)));
        match version {
            ProxyVersion::V1 => write_line(ends, out),
            ProxyVersion::V2 => write_binary(ends, out),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn line(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\r' || byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(ProxyError::TooLarge) };
    };
    match seen.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if seen[end] == b'\r' && bytes.len() < LINE_BYTES_MAX => return Ok(None),
        None if seen[end] == b'\r' => return Err(ProxyError::TooLarge),
        Some(_) | None => return Err(ProxyError::Malformed),
    }
    let text = str::from_utf8(&seen[LINE.len()..end]).map_err(|_| ProxyError::Malformed)?;
    Ok(Some(Header { path: told(text)?, bytes: end + 2 }))
}

/// What a line says behind `PROXY `.
fn told(text: &str) -> Result<Option<Path>, ProxyError> {
    let mut words = text.split(' ');
    let four = match words.next() {
        // What else stands there is not to be looked at (2.1).
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => true,
        Some("TCP6") => false,
        Some(_) | None => return Err(ProxyError::Malformed),
    };
    let mut next = || words.next().ok_or(ProxyError::Malformed);
    let (source, destination) = (ip(next()?, four)?, ip(next()?, four)?);
    let (from, to) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed);
    }
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    Ok(Some(Path { source, destination }))
}

fn ip(word: &str, four: bool) -> Result<IpAddr, ProxyError> {
    let address = if four {
        word.parse::<Ipv4Addr>().map(IpAddr::V4)
    } else {
        word.parse::<Ipv6Addr>().map(IpAddr::V6)
    };
    address.map_err(|_| ProxyError::Malformed)
}

/// A number without leading zeros and signs.
fn port(word: &str) -> Result<u16, ProxyError> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(ProxyError::Malformed)
}

/// Version 2 (2.2).
fn binary(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let local = match bytes.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(ProxyError::Unknown),
    };
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(ProxyError::TooLarge);
    }
    let family = fixed[13];
    let address_bytes = match (local, family >> 4, family & 15) {
        // Whatever stands there is skipped.
        (true, _, _) => length,
        (false, 0, 0..=2) => 0,
        (false, 1, 0..=2) => 12,
        (false, 2, 0..=2) => 36,
        (false, 3, 0..=2) => 216,
        (false, _, _) => return Err(ProxyError::Malformed),
    };
    if address_bytes > length {
        return Err(ProxyError::Malformed);
    }
    let Some(whole) = bytes.get(..FIXED_BYTES + length) else { return Ok(None) };
    if !local {
        checked(whole, FIXED_BYTES + address_bytes)?;
    }
    let block = &whole[FIXED_BYTES..FIXED_BYTES + address_bytes];
    // Of other families and of datagrams there is nothing that a TCP connection could be from.
    let path = match (local, family) {
        (false, 0x11) => Some(ends::<4>(block)),
        (false, 0x21) => Some(ends::<16>(block)),
        (_, _) => None,
    };
    Ok(Some(Header { path, bytes: whole.len() }))
}

/// Two addresses of `N` bytes, then two ports.
fn ends<const N: usize>(block: &[u8]) -> Path
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| {
        let mut octets = [0; N];
        octets.copy_from_slice(&block[at..at + N]);
        IpAddr::from(octets)
    };
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    Path {
        source: SocketAddr::new(address(0), port(2 * N)),
        destination: SocketAddr::new(address(N), port(2 * N + 2)),
    }
}

/// Walks the TLVs, which must fill the header, and compares the checksum if there is one.
fn checked(whole: &[u8], mut at: usize) -> Result<(), ProxyError> {
    while at < whole.len() {
        let Some(&[kind, high, low]) = whole.get(at..at + TLV_HEAD_BYTES) else {
            return Err(ProxyError::Malformed);
        };
        let value = at + TLV_HEAD_BYTES..at + TLV_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = whole.get(value.clone()) else { return Err(ProxyError::Malformed) };
        if kind == CRC32C {
            let &[a, b, c, d] = content else { return Err(ProxyError::Malformed) };
            let zeros = [&whole[..value.start], &[0; 4], &whole[value.end..]];
            if crc32c(&zeros) != u32::from_be_bytes([a, b, c, d]) && !is(Bug::ProxyChecksumIgnored) {
                return Err(ProxyError::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// Castagnoli's CRC (RFC 3720, B.4) of these bytes. Bit by bit: a header is short, and few have one.
fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in pieces.iter().copied().flatten() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn write_line(ends: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    use core::fmt::Write;
    struct Text<'a>(&'a mut Vec<u8>);
    impl Write for Text<'_> {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    let (mut text, both) = (Text(out), ends.filter(|(one, other)| one.is_ipv4() == other.is_ipv4()));
    let written = match both {
        None => write!(text, "PROXY UNKNOWN\r\n"),
        Some((from, to)) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            write!(text, "PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
    };
    written.expect("a vector takes what is written to it");
}

fn write_binary(ends: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    match ends {
        Some((SocketAddr::V4(from), SocketAddr::V4(to))) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
        }
        Some((SocketAddr::V6(from), SocketAddr::V6(to))) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
        }
        Some(_) | None => return out.extend_from_slice(&[0x20, 0, 0, 0]),
    }
    let (from, to) = ends.expect("both ends are of one family");
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use proptest::prelude::*;

    fn path(source: &str, destination: &str) -> Path {
        Path { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2 of these parts.
    fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, content].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0, 80, 1, 187];

    #[test]
    fn a_line_says_whose_a_connection_is() {
        use ProxyError::{Malformed, Missing, TooLarge};
        let four = Some(path("192.0.2.1:80", "198.51.100.1:443"));
        let six = Some(path("[2001:db8::1]:1", "[::1]:65535"));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        #[rustfmt::skip] // columns
        let table = [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 80 443\r\n",   Ok(four)),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",         Ok(six)),
            ("PROXY UNKNOWN\r\n",                              Ok(None)),
            ("PROXY UNKNOWN what ever  it is\r\n",             Ok(None)),
            (&long,                                            Ok(None)),
            (&longer,                                          Err(TooLarge)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 80 443\n",     Err(Malformed)), // bare line ends
            ("PROXY TCP4 192.0.2.1 198.51.100.1 80 443\r\r\n", Err(Malformed)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 80\r\n",       Err(Malformed)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 80 443 1\r\n", Err(Malformed)),
            ("PROXY TCP4 192.0.2.1  198.51.100.1 80 443\r\n",  Err(Malformed)), // two blanks
            ("PROXY TCP4 192.0.2.1 198.51.100.1 080 443\r\n",  Err(Malformed)), // leading zeros
            ("PROXY TCP4 192.0.2.1 198.51.100.1 +80 443\r\n",  Err(Malformed)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 80 65536\r\n", Err(Malformed)),
            ("PROXY TCP4 192.0.2.01 198.51.100.1 80 443\r\n",  Err(Malformed)),
            ("PROXY TCP4 ::1 ::1 80 443\r\n",                  Err(Malformed)), // the other family
            ("PROXY TCP6 192.0.2.1 198.51.100.1 80 443\r\n",   Err(Malformed)),
            ("PROXY UDP4 192.0.2.1 198.51.100.1 80 443\r\n",   Err(Malformed)),
            ("PROXY \r\n",                                     Err(Malformed)),
            ("GET / HTTP/1.1\r\n",                             Err(Missing)),
            ("proxy TCP4 192.0.2.1 198.51.100.1 80 443\r\n",   Err(Missing)),
        ];
        for (text, expected) in table {
            let bytes = text.len();
            let expected = expected.map(|path| Some(Header { path, bytes }));
            assert_eq!(Header::parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_binary_header_says_whose_a_connection_is() {
        use ProxyError::{Checksum, Malformed, TooLarge, Unknown};
        let four = Some(path("192.0.2.1:80", "198.51.100.1:443"));
        let with = |more: &[u8]| [&FOUR[..], more].concat();
        let mut summed = v2(0x21, 0x11, &with(&[0x04, 0, 1, 9, 3, 0, 4, 0, 0, 0, 0]));
        let at = summed.len() - 4;
        let sum = crc32c(&[&summed]).to_be_bytes();
        summed[at..].copy_from_slice(&sum);
        let mut damaged = summed.clone();
        damaged[17] ^= 1;
        #[rustfmt::skip] // columns
        let table = [
            (v2(0x21, 0x11, &FOUR),                                   Ok(four)),
            (v2(0x21, 0x11, &with(&[1, 0, 2, b'h', b'2'])),           Ok(four)), // a TLV is skipped
            (summed,                                                  Ok(four)),
            (damaged,                                                 Err(Checksum)),
            (v2(0x21, 0x11, &with(&[3, 0, 3, 0, 0, 0])),              Err(Malformed)), // no checksum is so short
            (v2(0x21, 0x11, &with(&[1, 0, 3, b'h', b'2'])),           Err(Malformed)), // a TLV beyond the end
            (v2(0x21, 0x11, &with(&[1, 0])),                          Err(Malformed)),
            (v2(0x20, 0x11, &FOUR),                                   Ok(None)), // LOCAL, whatever it says
            (v2(0x20, 0xFF, &[1, 2]),                                 Ok(None)),
            (v2(0x21, 0x00, &[]),                                     Ok(None)),
            (v2(0x21, 0x12, &FOUR),                                   Ok(None)), // a datagram's
            (v2(0x21, 0x31, &[0; 216]),                               Ok(None)), // of a socket in the file system
            (v2(0x21, 0x11, &FOUR[..11]),                             Err(Malformed)),
            (v2(0x21, 0x21, &FOUR),                                   Err(Malformed)),
            (v2(0x21, 0x41, &FOUR),                                   Err(Malformed)), // unassigned
            (v2(0x21, 0x13, &FOUR),                                   Err(Malformed)),
            (v2(0x22, 0x11, &FOUR),                                   Err(Unknown)),
            (v2(0x11, 0x11, &FOUR),                                   Err(Unknown)),
            (v2(0x20, 0x00, &[0; HEADER_BYTES_MAX - FIXED_BYTES]),    Ok(None)),
            (v2(0x20, 0x00, &[0; HEADER_BYTES_MAX - FIXED_BYTES + 1]), Err(TooLarge)),
        ];
        for (row, (bytes, expected)) in table.into_iter().enumerate() {
            let expected = expected.map(|path| Some(Header { path, bytes: bytes.len() }));
            assert_eq!(Header::parse(&bytes), expected, "row {row}");
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4: 32 bytes of zeros, of ones, and counting.
        let counting: Vec<u8> = (0..32).collect();
        let table: [(&[u8], u32); 3] =
            [(&[0; 32], 0x8A91_36AA), (&[0xFF; 32], 0x62A8_AB43), (&counting, 0x46DD_794E)];
        for (bytes, expected) in table {
            assert_eq!(crc32c(&[&bytes[..7], &bytes[7..]]), expected);
        }
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let ip =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from),];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_soon_as_it_is_whole(
            source in address(),
            destination in address(),
            known: bool,
            two: bool,
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let version = if two { ProxyVersion::V2 } else { ProxyVersion::V1 };
            let path = Some(Path { source, destination }).filter(|_| known);
            let mut bytes = vec![];
            Header::write(version, path.as_ref(), &mut bytes);
            prop_assert!(bytes.len() <= LINE_BYTES_MAX);
            for end in 0..bytes.len() {
                prop_assert_eq!(Header::parse(&bytes[..end]), Ok(None));
            }
            let path = path.filter(|_| source.is_ipv4() == destination.is_ipv4());
            let expected = Ok(Some(Header { path, bytes: bytes.len() }));
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(Header::parse(&bytes), expected);
        }

        #[test]
        fn what_was_understood_does_not_change(
            start in 0usize..3,
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let starts: [&[u8]; 3] = [b"", b"PROXY TCP4 1.2.3.4 ", SIGNATURE];
            let bytes = [starts[start], &rest].concat();
            let whole = Header::parse(&bytes);
            let first = (0..=bytes.len()).map(|end| Header::parse(&bytes[..end])).find(|one| *one != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        }
    }
}
