//! What another node, or whoever reaches its port, can send: frames in any pieces, requests to join, and join
//! tokens as an operator may paste them.
#![no_main]

use fabric::join::{JoinRequest, Token};
use fabric::link::frame::{Decoder, FrameError, HEADER_BYTES, Kind, SMALL_BYTES_MAX, encode};
use fuzz::Bytes;
use kernel::PeerId;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 4 {
        0 => stream(&mut input),
        1 => written(&mut input),
        2 => request(input.rest()),
        _ => text(input.rest()),
    }
});

type Read = (Vec<(Kind, Vec<u8>)>, Option<FrameError>);

/// Everything in `bytes` up to the first error, cut as `cuts` say.
fn read(limit: usize, bytes: &[u8], cuts: &mut Bytes<'_>) -> Read {
    let mut decoder = Decoder::new(limit);
    let (mut frames, mut rest, mut seen) = (Vec::new(), bytes, 0);
    while !rest.is_empty() {
        let length = if cuts.is_empty() { rest.len() } else { usize::from(cuts.byte()).clamp(1, rest.len()) };
        let (mut piece, after) = rest.split_at(length);
        rest = after;
        seen += length;
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => frames.push((frame.kind, frame.payload.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(piece.is_empty(), "what is not an error is used up");
        assert!(decoder.memory() <= 2 * seen + 64, "memory follows what arrived");
    }
    (frames, None)
}

/// Arbitrary bytes, in two ways to cut them.
fn stream(input: &mut Bytes<'_>) {
    let limit = input.u64() as usize % (1 << 16);
    let cuts = input.piece();
    let bytes = input.rest();
    let whole = read(limit, bytes, &mut Bytes::new(&[]));
    assert_eq!(whole, read(limit, bytes, &mut Bytes::new(cuts)));
    assert_eq!(whole, read(limit, bytes, &mut Bytes::new(&vec![1; bytes.len()])));
    for (kind, payload) in &whole.0 {
        assert!(payload.len() <= if *kind == Kind::Data { limit } else { SMALL_BYTES_MAX });
    }
}

/// Sound frames.
fn written(input: &mut Bytes<'_>) {
    let cuts = input.piece();
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    while !input.is_empty() && frames.len() < 64 {
        let kind = Kind::ALL[usize::from(input.byte()) % Kind::ALL.len()];
        let payload = input.piece();
        let payload = &payload[..payload.len().min(SMALL_BYTES_MAX)];
        let before = bytes.len();
        encode(kind, payload, &mut bytes);
        assert_eq!(bytes.len() - before, HEADER_BYTES + payload.len());
        frames.push((kind, payload.to_vec()));
    }
    assert_eq!(read(SMALL_BYTES_MAX, &bytes, &mut Bytes::new(cuts)), (frames, None));
}

fn request(bytes: &[u8]) {
    if let Ok(request) = JoinRequest::decode(bytes) {
        let mut again = Vec::new();
        request.encode(&mut again);
        assert_eq!(JoinRequest::decode(&again), Ok(request));
    }
}

fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Token>() {
        Ok(token) => assert_eq!(token.to_string().parse(), Ok(token)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string(), text);
    }
}
