//! The first message of a TLS connection, as a proxy reads it that passes the connection on unopened: arbitrary, and made of
//! arbitrary parts. Whoever opens it must see the name that was seen here.
#![no_main]

use fuzz::Bytes;
use wire::tls::{HELLO_BYTES_MAX, Hello, NAME_BYTES_MAX};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    if input.byte() % 2 == 0 { in_pieces(input.rest()) } else { made(&mut input) }
});

/// What is whole is so as soon as its last byte is there, and not refused before.
fn in_pieces(bytes: &[u8]) {
    let whole = Hello::parse(bytes);
    if let Ok(Some(Hello { name: Some(name) })) = &whole {
        assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_control()));
    }
    if bytes.len() > HELLO_BYTES_MAX {
        // Too much may have come before the end did.
        return;
    }
    let mut known = None;
    for end in 0..bytes.len().min(600) {
        let now = Hello::parse(&bytes[..end]);
        match (&known, &now) {
            (None, Ok(None)) => {}
            (None, Ok(Some(_)) | Err(_)) => known = Some(now),
            (Some(then), now) => assert_eq!(then, now, "what was understood does not change"),
        }
    }
    if let Some(known) = known {
        assert_eq!(known, whole);
    }
}

/// A hello of parts; where it is cut into records says nothing.
fn made(input: &mut Bytes<'_>) {
    let long = |content: &[u8]| {
        let mut out = (content.len() as u16).to_be_bytes().to_vec();
        out.extend_from_slice(content);
        out
    };
    let (mut extensions, mut name, mut names) = (Vec::new(), None, 0);
    for _ in 0..input.byte() % 6 {
        let content = input.piece();
        if input.byte() % 2 == 0 {
            let list = [&[0][..], &long(content)].concat();
            extensions.extend_from_slice(&[0, 0]);
            extensions.extend_from_slice(&long(&long(&list)));
            (name, names) = (Some(content.to_vec()), names + 1);
        } else {
            extensions.extend_from_slice(&[0x12, input.byte()]);
            extensions.extend_from_slice(&long(content));
        }
    }
    let mut message = vec![1, 0, 0, 0, 3, 3];
    message.extend_from_slice(&[7; 32]);
    message.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    message.extend_from_slice(&long(&extensions));
    let length = ((message.len() - 4) as u32).to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    let whole = records(&message, &mut Bytes::new(&[]));
    let cuts = input.rest().to_vec();
    let cut = records(&message, &mut Bytes::new(&cuts));
    let read = Hello::parse(&whole);
    assert_eq!(read, Hello::parse(&cut), "records are no part of what is said");
    in_pieces(&cut);
    let plain = |name: &[u8]| {
        !name.is_empty() && name.len() < 64 && name.iter().all(|byte| byte.is_ascii_alphabetic())
    };
    match name {
        None => assert_eq!(read, Ok(Some(Hello { name: None }))),
        Some(_) if names > 1 => assert!(read.is_err(), "which of them would be meant?"),
        Some(name) if plain(&name) => {
            let name = String::from_utf8(name).expect("letters").to_ascii_lowercase();
            assert_eq!(read, Ok(Some(Hello { name: Some(name) })));
        }
        Some(_) => {}
    }
}

/// The message in records of these lengths, and the rest in as few as can be.
fn records(message: &[u8], cuts: &mut Bytes<'_>) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < message.len() {
        let left = (message.len() - at).min(16 * 1024);
        let length = if cuts.is_empty() { left } else { usize::from(cuts.byte()).clamp(1, left) };
        out.extend_from_slice(&[22, 3, 1]);
        out.extend_from_slice(&(length as u16).to_be_bytes());
        out.extend_from_slice(&message[at..at + length]);
        at += length;
    }
    out
}
