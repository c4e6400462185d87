//! What the proxy answers itself: each with a status, a reason that programs can read, and a line for people.

use std::io::Write;

/// Why a request was not answered by its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its head cannot be read, or only in two ways.
    Malformed,
    /// Its body is broken.
    BadBody,
    /// Its head or body came too slowly.
    SlowRequest,
    /// No route takes it.
    NoRoute,
    /// CONNECT, which its route does not offer.
    NoConnect,
    /// Its route is not for its client.
    NotAllowed,
    /// Its rate is used up.
    RateLimited,
    /// The breaker of its service is open.
    BreakerOpen,
    /// Too many requests are under way.
    TooMany,
    /// As many wait for it as may wait, and none of them is less important.
    QueueFull,
    /// It would wait for longer than it may, as it looks.
    QueueLate,
    /// A more important one took its place.
    Displaced,
    /// It has waited for as long as it may.
    QueueTimeout,
    /// No endpoint may be used.
    NoEndpoint,
    /// There are no descriptors for a connection.
    NoDescriptors,
    /// No connection could be had.
    ConnectFailed,
    /// The endpoint's TLS could not be agreed on.
    TlsFailed,
    /// The endpoint ended the connection before it answered.
    EndpointReset,
    /// The endpoint's answer cannot be read.
    BadResponse,
    /// The endpoint took too long.
    Timeout,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 20] = [
        Reason::Malformed,
        Reason::BadBody,
        Reason::SlowRequest,
        Reason::NoRoute,
        Reason::NoConnect,
        Reason::NotAllowed,
        Reason::RateLimited,
        Reason::BreakerOpen,
        Reason::TooMany,
        Reason::QueueFull,
        Reason::QueueLate,
        Reason::Displaced,
        Reason::QueueTimeout,
        Reason::NoEndpoint,
        Reason::NoDescriptors,
        Reason::ConnectFailed,
        Reason::TlsFailed,
        Reason::EndpointReset,
        Reason::BadResponse,
        Reason::Timeout,
    ];

    /// As the field `x-archipel-reason` and the metrics name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::BadBody => "bad-body",
            Reason::SlowRequest => "slow-request",
            Reason::NoRoute => "no-route",
            Reason::NoConnect => "no-connect",
            Reason::NotAllowed => "not-allowed",
            Reason::RateLimited => "rate-limited",
            Reason::BreakerOpen => "breaker-open",
            Reason::TooMany => "too-many",
            Reason::QueueFull => "queue-full",
            Reason::QueueLate => "queue-late",
            Reason::Displaced => "displaced",
            Reason::QueueTimeout => "queue-timeout",
            Reason::NoEndpoint => "no-endpoint",
            Reason::NoDescriptors => "no-descriptors",
            Reason::ConnectFailed => "connect-failed",
            Reason::TlsFailed => "tls-failed",
            Reason::EndpointReset => "endpoint-reset",
            Reason::BadResponse => "bad-response",
            Reason::Timeout => "timeout",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Reason::Malformed => "the request cannot be read",
            Reason::BadBody => "the request's body is broken",
            Reason::SlowRequest => "the request came too slowly",
            Reason::NoRoute => "no route takes this request",
            Reason::NoConnect => "tunnels are not offered here",
            Reason::NotAllowed => "this is for some nodes of the cluster only, which prove who they are",
            Reason::RateLimited => "too many requests; try again later",
            Reason::BreakerOpen => "the service failed too often and is left alone for a while",
            Reason::TooMany => "the service has as many requests as it may have",
            Reason::QueueFull => {
                "the service has as many requests as it may have, and as many wait as may wait"
            }
            Reason::QueueLate => "the service would have no room in the time that a request may wait for it",
            Reason::Displaced => "the service is overloaded, and more important requests go first",
            Reason::QueueTimeout => "the service had no room in the time that a request may wait for it",
            Reason::NoEndpoint => "the service has no endpoint that may be used",
            Reason::NoDescriptors => "the proxy has no descriptor for another connection",
            Reason::ConnectFailed => "no connection to the service could be made",
            Reason::TlsFailed => "no secure connection to the service could be made",
            Reason::EndpointReset => "the service ended the connection before it answered",
            Reason::BadResponse => "the service's answer cannot be read",
            Reason::Timeout => "the service took too long",
        }
    }

    /// Whether the service was spared the request, because it has as many as it may have.
    #[must_use]
    pub const fn is_shed(self) -> bool {
        matches!(
            self,
            Reason::TooMany
                | Reason::QueueFull
                | Reason::QueueLate
                | Reason::Displaced
                | Reason::QueueTimeout
        )
    }

    /// The status that it is answered with; malformed ones have their own.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Reason::Malformed | Reason::BadBody => 400,
            Reason::SlowRequest => 408,
            Reason::NoRoute => 404,
            Reason::NoConnect => 405,
            Reason::NotAllowed => 403,
            Reason::RateLimited => 429,
            Reason::BreakerOpen
            | Reason::TooMany
            | Reason::QueueFull
            | Reason::QueueLate
            | Reason::Displaced
            | Reason::QueueTimeout
            | Reason::NoEndpoint
            | Reason::NoDescriptors => 503,
            Reason::ConnectFailed | Reason::TlsFailed | Reason::EndpointReset | Reason::BadResponse => 502,
            Reason::Timeout => 504,
        }
    }
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub reason: Reason,
    /// After so many seconds it may go better.
    pub retry_after: Option<u64>,
    /// The connection ends with it.
    pub close: bool,
    /// The body is left out: it answers HEAD.
    pub bare: bool,
}

const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

impl Answer {
    pub fn of(reason: Reason) -> Answer {
        Answer { status: reason.status(), reason, retry_after: None, close: false, bare: false }
    }

    /// Writes it to the end of `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (status, text) = (self.status, self.reason.text());
        let length = text.len() + 1;
        // A vector takes what is written to it.
        let _ = write!(
            out,
            "HTTP/1.1 {status} {}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nx-archipel-reason: {}\r\n",
            phrase(status),
            self.reason.word()
        );
        if let Some(seconds) = self.retry_after {
            let _ = write!(out, "retry-after: {seconds}\r\n");
        }
        if self.close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !self.bare {
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_and_a_status_of_its_kind() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!((400..600).contains(&reason.status()));
            assert!(Reason::ALL.iter().filter(|other| other.word() == reason.word()).count() == 1);
            assert_ne!(phrase(reason.status()), "Error");
        }
        let (mut out, answer) = (Vec::new(), Answer::of(Reason::RateLimited));
        Answer { retry_after: Some(2), close: true, bare: true, ..answer }.write(&mut out);
        let expected = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\ncontent-length: 35\r\n\
                        x-archipel-reason: rate-limited\r\nretry-after: 2\r\nconnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
