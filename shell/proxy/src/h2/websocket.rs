//! WebSocket on a stream of HTTP/2 (RFC 8441), for which a service is asked in HTTP/1.1 (RFC 6455, 4).
//!
//! On a stream the client needs no proof that the other end knows WebSocket: the setting and the pseudo-field say so. The
//! service gives that proof to the proxy, by a key that the proxy draws. What the client sends before the service has agreed
//! is not read: a service that refuses keeps its connection, and would take it for requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::Extensions;
use kernel::Rng;
use sha1::{Digest, Sha1};
use wire::http1::Response;

/// What a service puts behind the key before it digests both (RFC 6455, 1.3).
const SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The protocol, in both versions of HTTP.
const NAME: &str = "websocket";

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request.
    Request,
    /// A connection of WebSocket.
    WebSocket,
    /// A connection of another protocol.
    Unknown,
    /// A tunnel to a host.
    Tunnel,
}

impl Purpose {
    pub fn of(method: &http::Method, extensions: &Extensions) -> Purpose {
        if method != http::Method::CONNECT {
            return Purpose::Request;
        }
        match extensions.get::<Protocol>() {
            Some(protocol) if protocol.as_str().eq_ignore_ascii_case(NAME) => Purpose::WebSocket,
            Some(_) => Purpose::Unknown,
            None => Purpose::Tunnel,
        }
    }
}

/// How far a stream is that asked for WebSocket.
pub(super) enum Tunnel {
    /// It did not.
    None,
    /// The service has not answered. Nothing of what the client sends is read.
    Asked(Asked),
    /// Bytes go both ways.
    Open,
    /// The service did not agree, and nothing of what the client sends is ever read.
    Refused,
}

impl Tunnel {
    /// Whether what the client sends is for the service.
    pub const fn reads(&self) -> bool {
        matches!(self, Tunnel::None | Tunnel::Open)
    }

    pub const fn is_open(&self) -> bool {
        matches!(self, Tunnel::Open)
    }
}

/// What a service is asked with.
pub(super) struct Asked {
    /// Sixteen bytes by chance, in base64.
    pub key: String,
}

impl Asked {
    pub fn draw(rng: &mut Rng) -> Asked {
        let bytes = [rng.next_u64().to_le_bytes(), rng.next_u64().to_le_bytes()].concat();
        Asked { key: STANDARD.encode(bytes) }
    }

    /// Whether a service that answers so has agreed: 101, to this protocol, with the proof for this key.
    pub fn is_agreed(&self, head: &Response<'_, '_>) -> bool {
        let one = |name: &str| {
            let mut found = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            found.next().filter(|_| found.next().is_none()).map(|field| field.value.trim_ascii())
        };
        head.status == 101
            && one("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(NAME.as_bytes()))
            && one("sec-websocket-accept") == Some(self.proof().as_bytes())
    }

    fn proof(&self) -> String {
        STANDARD.encode(Sha1::new().chain_update(&self.key).chain_update(SALT).finalize())
    }
}

#[cfg(test)]
mod tests {
    use wire::http1::Headers;

    use super::*;

    #[test]
    fn a_service_agrees_with_the_proof_for_the_key_and_not_otherwise() {
        // The example of RFC 6455, 1.3.
        let asked = Asked { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let proof = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let (ok, upgrade) = ("HTTP/1.1 101 x\r\n", "Connection: upgrade\r\nUpgrade: WebSocket\r\n");
        #[rustfmt::skip] // columns
        let table = [
            (format!("{ok}{upgrade}{proof}\r\n"),                                          true),
            (format!("HTTP/1.1 200 x\r\n{upgrade}{proof}\r\n"),                            false),
            (format!("{ok}{upgrade}\r\n"),                                                 false),
            (format!("{ok}{proof}\r\n"),                                                   false),
            (format!("{ok}{upgrade}{proof}{proof}\r\n"),                                   false),
            (format!("{ok}Connection: upgrade\r\nUpgrade: echo\r\n{proof}\r\n"),           false),
            (format!("{ok}{upgrade}Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), false),
            (format!("{ok}{upgrade}Sec-WebSocket-Accept: {}\r\n\r\n", asked.key),          false),
        ];
        for (text, expected) in table {
            let mut room = Headers::new();
            let head = Response::parse("GET", text.as_bytes(), &mut room).unwrap().unwrap();
            assert_eq!(asked.is_agreed(&head), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_sixteen_bytes_and_differ() {
        let mut rng = Rng::new(7);
        let keys = [Asked::draw(&mut rng).key, Asked::draw(&mut rng).key];
        assert_ne!(keys[0], keys[1]);
        assert!(keys.iter().all(|key| STANDARD.decode(key).unwrap().len() == 16));
    }
}
