//! Heads and bodies, good ones and those that servers disagree about.

use alloc::format;
use alloc::string::String;

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

type Told = (String, Body, bool, bool);

/// Host, body, whether the connection stays, whether it waits for a 100.
fn request(text: &str) -> Result<Option<Told>, HeadError> {
    let mut room = Headers::new();
    let parsed = Request::parse(text.as_bytes(), &mut room)?;
    Ok(parsed.map(|head| (head.host.into(), head.body, head.keep_alive, head.expects_continue)))
}

#[test]
fn requests_say_how_long_they_are_and_what_follows() {
    let told = |host: &str, body, keep_alive, expects| Ok(Some((host.into(), body, keep_alive, expects)));
    #[rustfmt::skip] // columns
    let table = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n",                                          told("a", Body::None, true, false)),
        ("\r\nGET / HTTP/1.1\r\nHost: a:80\r\n\r\n",                                   told("a:80", Body::None, true, false)),
        ("GET / HTTP/1.1\r\nhOsT:a\r\nConnection: x, CLOSE\r\n\r\n",                   told("a", Body::None, false, false)),
        ("GET / HTTP/1.0\r\n\r\n",                                                     told("", Body::None, false, false)),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",                told("a", Body::None, true, false)),
        ("POST /?q HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n",                  told("a", Body::Length(4), true, false)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",                    told("a", Body::None, true, false)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",           told("a", Body::Chunked, true, false)),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", told("a", Body::Length(4), true, true)),
        ("GET http://b:8/x HTTP/1.1\r\nHost: a\r\n\r\n",                               told("b:8", Body::None, true, false)),
        ("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",                              told("b:443", Body::None, true, false)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",                                      told("a", Body::None, true, false)),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",                                   told("[::1]:80", Body::None, true, false)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r",                                            Ok(None)),
        ("GET",                                                                        Ok(None)),
        ("",                                                                           Ok(None)),
    ];
    for (text, expected) in table {
        assert_eq!(request(text), expected, "{text:?}");
    }
}

#[test]
fn what_servers_could_read_in_two_ways_is_refused() {
    use HeadError::{Coding, Expectation, Host, Length, Malformed, Version};
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    #[rustfmt::skip] // columns
    let table = [
        (post("Content-Length: 4\r\nTransfer-Encoding: chunked"),       Length),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 4"),       Length),
        (post("Content-Length: 4\r\nContent-Length: 5"),                Length),
        (post("Content-Length: 4\r\nContent-Length: 4"),                Length),
        (post("Content-Length: 4, 4"),                                  Length),
        (post("Content-Length: +4"),                                    Length),
        (post("Content-Length: -4"),                                    Length),
        (post("Content-Length: 4 4"),                                   Length),
        (post("Content-Length: 0x4"),                                   Length),
        (post("Content-Length:"),                                       Length),
        (post("Content-Length: 18446744073709551616"),                  Length),
        (post("Transfer-Encoding: xchunked"),                           Coding),
        (post("Transfer-Encoding: chunked, identity"),                  Coding),
        (post("Transfer-Encoding: identity"),                           Coding),
        (post("Transfer-Encoding: gzip, chunked"),                      Coding),
        (post("Transfer-Encoding: \"chunked\""),                        Coding),
        (post("Transfer-Encoding:\x0bchunked"),                         Malformed),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Length),
        (post("Transfer-Encoding : chunked"),                           Malformed),
        (post("Transfer_Encoding\t: chunked"),                          Malformed),
        (post(" Content-Length: 4"),                                    Malformed),
        (post("X: a\r\n folded"),                                       Malformed),
        (post("X: a\r\n\tfolded"),                                      Malformed),
        (post("X: a\0b"),                                               Malformed),
        (post("X: a\x7fb"),                                             Malformed),
        (post("X\0: a"),                                                Malformed),
        (post("X: a\rb: c"),                                            Malformed),
        (post("X: a\nContent-Length: 4"),                               Malformed),
        (post(": a"),                                                   Malformed),
        (post("no colon"),                                              Malformed),
        (post("Host: b"),                                               Host),
        (post("Expect: 200-maybe"),                                     Expectation),
        ("GET / HTTP/1.1\r\n\r\n".into(),                               Host),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(),                      Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(),                  Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(),                  Host),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(),                  Host),
        ("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),          Host),
        ("GET / HTTP/1.1\nHost: a\n\n".into(),                          Malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(),                      Malformed),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),            Malformed),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),                  Malformed),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(),                   Malformed),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into(),                 Version), // what follows the second blank is none
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n".into(),                  Malformed),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".into(),              Malformed),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(),                    Malformed),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),             Malformed),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(),                    Malformed),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n".into(),                Malformed),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(),                    Version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(),                    Version),
        ("GET /\r\n\r\n".into(),                                        Malformed),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n".into(),                   Malformed),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Length),
    ];
    for (text, expected) in table {
        let found = request(&text);
        assert!(found.is_err(), "{text:?} was taken");
        // Which of the two refusals a broken first line gets is the parser's affair.
        if expected != Version {
            assert_eq!(found, Err(expected), "{text:?}");
        }
    }
}

#[test]
fn heads_that_are_too_large_are_refused_before_they_end() {
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let text = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
    assert!(request(&text(HEADERS_MAX - 1)).is_ok());
    assert_eq!(request(&text(HEADERS_MAX)), Err(HeadError::TooLarge));
    assert_eq!(request(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(70_000))), Err(HeadError::TooLarge));
    assert_eq!(request(&format!("GET /{}", "a".repeat(LINE_BYTES_MAX))), Err(HeadError::LineTooLong));
    let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(LINE_BYTES_MAX));
    assert_eq!(request(&line), Err(HeadError::LineTooLong));
    assert_eq!(HeadError::LineTooLong.status(), 414);
}

#[test]
fn a_websocket_asks_for_an_upgrade() {
    let text = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut room = Headers::new();
    let head = Request::parse(text.as_bytes(), &mut room).unwrap().unwrap();
    assert_eq!((head.upgrade, head.bytes, head.headers.len()), (Some(&b"websocket"[..]), text.len(), 3));
    let mut room = Headers::new();
    let alone = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(Request::parse(alone.as_bytes(), &mut room).unwrap().unwrap().upgrade, None);
}

#[test]
fn responses_end_as_the_rfc_says() {
    #[rustfmt::skip] // columns
    let table = [
        // to       response                                                       body                    stays
        ("GET",     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",                Ok((Body::Length(3), true))),
        ("HEAD",    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",                Ok((Body::None, true))),
        ("GET",     "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",      Ok((Body::None, true))),
        ("GET",     "HTTP/1.1 204 \r\n\r\n",                                       Ok((Body::None, true))),
        ("GET",     "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",                Ok((Body::None, true))),
        ("CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",                Ok((Body::None, true))),
        ("GET",     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",       Ok((Body::Chunked, true))),
        ("GET",     "HTTP/1.1 200 OK\r\n\r\n",                                     Ok((Body::UntilClose, false))),
        ("GET",     "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",                Ok((Body::Length(3), false))),
        ("GET",     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", Ok((Body::Length(3), false))),
        ("GET",     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Err(HeadError::Length)),
        ("GET",     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Err(HeadError::Length)),
        ("GET",     "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",       Err(HeadError::Length)),
        ("GET",     "HTTP/1.1 099 Odd\r\n\r\n",                                    Err(HeadError::Malformed)),
        ("GET",     "HTTP/1.1 200 OK\nContent-Length: 3\n\n",                      Err(HeadError::Malformed)),
    ];
    for (method, text, expected) in table {
        let mut room = Headers::new();
        let found = Response::parse(method, text.as_bytes(), &mut room);
        let found = found.map(|head| head.map(|head| (head.body, head.keep_alive)).unwrap());
        assert_eq!(found, expected, "{method} {text:?}");
    }
}

/// The content, and what is left behind the end if there is one.
fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<Vec<u8>>), ChunkError> {
    let (mut chunks, mut content) = (Chunks::new(), Vec::new());
    for (number, piece) in pieces.iter().enumerate() {
        let mut at = 0;
        loop {
            match chunks.next(piece, at)? {
                Part::Content(range) => {
                    at = range.end;
                    content.extend_from_slice(&piece[range]);
                }
                Part::Trailer(range) => at = range.end,
                Part::More => break,
                Part::End(end) => {
                    let rest = [&piece[end..], &pieces[number + 1..].concat()].concat();
                    return Ok((content, Some(rest)));
                }
            }
        }
    }
    Ok((content, None))
}

#[test]
fn chunks_that_break_the_grammar_never_end_cleanly() {
    #[rustfmt::skip] // columns
    let table: [(&str, Result<&str, ChunkError>); 22] = [
        ("4\r\nwiki\r\n0\r\n\r\n",                       Ok("wiki")),
        ("4;a=b\r\nwiki\r\n0;x\r\n\r\n",                 Ok("wiki")),
        ("4 \r\nwiki\r\n00\r\n\r\n",                     Ok("wiki")),
        ("A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", Ok("0123456789")),
        ("\r\n",                                         Err(ChunkError::Length)),
        ("+4\r\nwiki",                                   Err(ChunkError::Length)),
        ("-4\r\nwiki",                                   Err(ChunkError::Length)),
        (" 4\r\nwiki",                                   Err(ChunkError::Length)),
        ("0x4\r\nwiki",                                  Err(ChunkError::Length)),
        ("4g\r\nwiki",                                   Err(ChunkError::Length)),
        ("1000000000000000\r\n",                         Err(ChunkError::Length)),
        ("4\nwiki\r\n",                                  Err(ChunkError::Length)),
        ("4\rwiki\r\n",                                  Err(ChunkError::End)),
        ("4\r\nwiki\n0\r\n\r\n",                         Err(ChunkError::End)),
        ("4\r\nwikis\r\n",                               Err(ChunkError::End)),
        ("3\r\nwiki\r\n",                                Err(ChunkError::End)),
        ("4;a\nwiki",                                    Err(ChunkError::Extension)),
        ("4;\x01\r\nwiki",                               Err(ChunkError::Extension)),
        ("0\r\n\n",                                      Err(ChunkError::Trailer)),
        ("0\r\nX : y\r\n\r\n",                           Err(ChunkError::Trailer)),
        ("0\r\nX: y\n\r\n",                              Err(ChunkError::Trailer)),
        ("0\r\n X: y\r\n\r\n",                           Err(ChunkError::Trailer)),
    ];
    for (text, expected) in table {
        let expected = expected.map(|content| (content.as_bytes().to_vec(), Some(Vec::new())));
        assert_eq!(read(&[text.as_bytes()]), expected, "{text:?}");
    }
    let long = format!("4;{}\r\n", "a".repeat(CHUNK_LINE_BYTES_MAX));
    assert_eq!(read(&[long.as_bytes()]), Err(ChunkError::Extension));
    let long = format!("0\r\n{}", "X: y\r\n".repeat(TRAILER_BYTES_MAX / 6 + 1));
    assert_eq!(read(&[long.as_bytes()]), Err(ChunkError::Trailer));
    assert_eq!(read(&[b"4\r\nwi"]), Ok((b"wi".to_vec(), None)), "it may go on");
}

proptest! {
    #[test]
    fn a_chunked_body_reads_the_same_in_any_pieces(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
        cuts in prop::collection::vec(0usize..500, 0..12),
        next in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes.extend_from_slice(&next);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
        prop_assert_eq!(read(&pieces), Ok((chunks.concat(), Some(next))));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..60, flip in 1u8..) {
        let _ = read(&[&bytes]);
        let mut text = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nX: y\r\n\r\n".to_vec();
        let length = text.len();
        text[at % length] ^= flip;
        for bytes in [&bytes[..], &text] {
            let mut room = Headers::new();
            if let Ok(Some(head)) = Request::parse(bytes, &mut room) {
                prop_assert!(head.bytes <= bytes.len());
            }
            let mut room = Headers::new();
            let _ = Response::parse("GET", bytes, &mut room);
        }
    }
}
