//! Headers of the PROXY protocol, and what proxies say of their clients: arbitrary, damaged, and made of what is sound.
#![no_main]

use fuzz::Bytes;
use std::net::{IpAddr, SocketAddr};
use wire::http1::{ForwardedBy, Headers, Request, hops};
use wire::proxied::{HEADER_BYTES_MAX, Header, LINE_BYTES_MAX, Path, ProxyVersion};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 4 {
        0 => in_pieces(input.rest()),
        1 => damaged(&mut input),
        2 => made(&mut input),
        _ => forwarded(input.rest()),
    }
});

/// What is understood of the first bytes stays so, whatever comes behind.
fn in_pieces(bytes: &[u8]) {
    let whole = Header::parse(bytes);
    if let Ok(Some(header)) = whole {
        assert!(header.bytes <= bytes.len() && header.bytes <= HEADER_BYTES_MAX);
    }
    assert!(whole != Ok(None) || bytes.len() < HEADER_BYTES_MAX, "a header is bounded");
    let first = (0..=bytes.len().min(600)).map(|end| Header::parse(&bytes[..end])).find(|one| *one != Ok(None));
    if let Some(first) = first {
        assert_eq!(first, whole);
    }
}

fn path(input: &mut Bytes<'_>) -> Path {
    let four = input.byte() % 2 == 0;
    let mut end = || {
        let (low, high) = (input.u64(), input.u64());
        let six = u128::from(low) << 64 | u128::from(high);
        // Not one of IPv4 in IPv6.
        let ip = if four { IpAddr::V4((low as u32).into()) } else { IpAddr::V6((six | 1 << 127).into()) };
        SocketAddr::new(ip, (high >> 7) as u16)
    };
    let (source, destination) = (end(), end());
    // One family for both, or nobody could say so.
    Path { source, destination }
}

fn made(input: &mut Bytes<'_>) {
    let version = if input.byte() % 2 == 0 { ProxyVersion::V1 } else { ProxyVersion::V2 };
    let path = path(input);
    let mut bytes = Vec::new();
    Header::write(version, Some(&path), &mut bytes);
    assert!(bytes.len() <= LINE_BYTES_MAX);
    let length = bytes.len();
    bytes.extend_from_slice(input.rest());
    assert_eq!(Header::parse(&bytes), Ok(Some(Header { path: Some(path), bytes: length })));
    in_pieces(&bytes);
}

/// A sound header of version 2 with TLVs, some of whose bytes are others.
fn damaged(input: &mut Bytes<'_>) {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let families = [(0x11, 12), (0x21, 36), (0x31, 216), (0x00, 0), (0x12, 12)];
    let (family, length) = families[usize::from(input.byte()) % families.len()];
    bytes.extend_from_slice(&[0x20 | input.byte() & 3, family, 0, 0]);
    bytes.resize(16 + length, input.byte());
    for _ in 0..input.byte() % 4 {
        let content = input.piece();
        bytes.push(input.byte() % 8);
        bytes.extend_from_slice(&(content.len() as u16).to_be_bytes());
        bytes.extend_from_slice(content);
    }
    let behind = u16::try_from(bytes.len() - 16).unwrap_or(u16::MAX);
    bytes[14..16].copy_from_slice(&behind.to_be_bytes());
    for _ in 0..input.byte() % 4 {
        let at = usize::from(input.byte()) % bytes.len();
        bytes[at] = input.byte();
    }
    in_pieces(&bytes);
}

/// What a client writes to the left of an address changes nothing of it.
fn forwarded(written: &[u8]) {
    // It would not be to the left of it, but in another field or head.
    if written.iter().any(|byte| b"\r\n".contains(byte)) {
        return;
    }
    for (by, name, ours) in [
        (ForwardedBy::XForwardedFor, "X-Forwarded-For", "192.0.2.7"),
        (ForwardedBy::Forwarded, "Forwarded", "for=192.0.2.7"),
        (ForwardedBy::Forwarded, "Forwarded", "for=\"192.0.2.7:80\";proto=https"),
    ] {
        for between in [", ".to_owned(), format!("\r\n{name}: ")] {
            let head = [
                format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: ").as_bytes(),
                written,
                format!("{between}{ours}\r\n\r\n").as_bytes(),
            ]
            .concat();
            let mut room = Headers::new();
            let Ok(Some(head)) = Request::parse(&head, &mut room) else { continue };
            let last = hops(by, head.headers).last();
            let expected: Option<IpAddr> = "192.0.2.7".parse().ok();
            assert_eq!(last, Some(expected));
        }
    }
}
