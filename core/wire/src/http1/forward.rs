//! Heads as a proxy sends them on (RFC 9110, 7.6): what belongs to one connection is left out, the framing is written anew
//! from what was understood, and what the next one should know of the client is added.
//!
//! The bytes of a field that goes on are those that came. Trailer fields go on only where [`super::Relay::with_trailers`] is
//! asked for, which an intermediary may decide.

use alloc::vec::Vec;

use httparse::Header;
use kernel::planted::{Bug, is};

use super::{Body, ForwardedBy, Request, Response, Version};

/// What a request is sent on with.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// The path and query to ask for, in two pieces.
    pub path: (&'a str, &'a str),
    /// The client's address.
    pub client: &'a str,
    /// How it came: `http` or `https`.
    pub scheme: &'a str,
    /// The client is another proxy, which says by this field whose a request is: what it says of that is kept. What stands in the
    /// other field its own client may have made up.
    pub trusted: Option<ForwardedBy>,
    /// What its certificate has proven, as `X-Forwarded-Client-Cert` says it. What clients say there never goes on.
    pub certificate: Option<&'a str>,
    /// What this proxy calls itself.
    pub via: &'a str,
    /// The trace that it belongs to.
    pub trace: Trace<'a>,
    /// The protocol is to be changed if the server agrees.
    pub upgrade: bool,
}

/// What a request is sent on with of a trace (W3C Trace Context). Texts are values of a `traceparent` field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace<'a> {
    /// What the client says.
    #[default]
    Kept,
    /// The same; this one, if it says nothing.
    Begun(&'a str),
    /// This one in the place of the client's, whose `tracestate` goes on.
    Joined(&'a str),
    /// This one and nothing of what the client says, whose trace ends here or was none.
    Anew(&'a str),
}

/// How a response's body is framed towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// As long as it says, or there is none: as it came.
    Plain,
    /// In chunks.
    Chunked,
    /// As long as the connection.
    UntilClose,
}

/// What a client is told about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: its version's default holds.
    Default,
    /// It stays open, which is not its version's default.
    KeepAlive,
    /// It ends behind this response.
    Close,
    /// It becomes one of another protocol.
    Upgrade,
}

/// How a body that is `body` at the server goes to a client of this version.
#[must_use]
pub const fn frame(body: Body, client: Version) -> Frame {
    match (body, client) {
        (Body::None | Body::Length(_), _) => Frame::Plain,
        (Body::Chunked | Body::UntilClose, Version::Http11) => Frame::Chunked,
        (Body::Chunked | Body::UntilClose, Version::Http10) => Frame::UntilClose,
    }
}

/// Writes the head of a request for the next server to the end of `out`. Its body is to be framed as `head.body` says.
pub fn request(head: &Request<'_, '_>, onward: &Onward<'_>, out: &mut Vec<u8>) {
    let method = head.method.as_bytes();
    let (first, rest) = onward.path;
    for piece in
        [method, b" ", first.as_bytes(), rest.as_bytes(), b" HTTP/1.1\r\nhost: ", head.host.as_bytes()]
    {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
    let mut traced = false;
    for header in head.headers {
        match class(header.name) {
            Class::EndToEnd => {}
            Class::Host | Class::Hop | Class::Length => continue,
            Class::Forwarded if keeps(onward, header.name) || is(Bug::ForwardedForBelieved) => {}
            Class::Forwarded | Class::Certificate => continue,
            Class::Expect if head.expects_continue => {}
            Class::Expect => continue,
            Class::Trace if matches!(onward.trace, Trace::Joined(_) | Trace::Anew(_)) => continue,
            Class::Trace => traced = true,
            Class::TraceState if matches!(onward.trace, Trace::Anew(_)) => continue,
            Class::TraceState => {}
        }
        if head.lists && listed(head.headers, header.name) {
            continue;
        }
        field(header, out);
    }
    match head.body {
        // Servers that know of no such method wait for the length of a body that has none.
        Body::None if matches!(head.method, "POST" | "PUT" | "PATCH") => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        Body::None | Body::UntilClose => {}
        Body::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Body::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    added(head, onward, traced, out);
}

/// Whether a field about whose request it is goes on.
fn keeps(onward: &Onward<'_>, name: &str) -> bool {
    let other = match onward.trusted {
        None => return false,
        Some(ForwardedBy::XForwardedFor) => "forwarded",
        Some(ForwardedBy::Forwarded) => "x-forwarded-for",
    };
    !name.eq_ignore_ascii_case(other)
}

/// What the proxy says itself, and the end of the head.
fn added(head: &Request<'_, '_>, onward: &Onward<'_>, traced: bool, out: &mut Vec<u8>) {
    let line = |name: &[u8], value: &[u8], out: &mut Vec<u8>| {
        for piece in [name, value, b"\r\n"] {
            out.extend_from_slice(piece);
        }
    };
    line(b"x-forwarded-for: ", onward.client.as_bytes(), out);
    let told = |name: &str| head.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    // Not once for each field, but for clients that are proxies only.
    if onward.trusted.is_none() || !told("x-forwarded-proto") {
        line(b"x-forwarded-proto: ", onward.scheme.as_bytes(), out);
    }
    if onward.trusted == Some(ForwardedBy::Forwarded) && told("forwarded") {
        // Without an element of ours the last one would seem to have asked us.
        let (before, behind): (&[u8], &[u8]) =
            if onward.client.contains(':') { (b"\"[", b"]\"") } else { (b"", b"") };
        for piece in [b"forwarded: for=", before, onward.client.as_bytes(), behind] {
            out.extend_from_slice(piece);
        }
        line(b";proto=", onward.scheme.as_bytes(), out);
    }
    if let Some(certificate) = onward.certificate {
        line(b"x-forwarded-client-cert: ", certificate.as_bytes(), out);
    }
    let version: &[u8] = if head.version == Version::Http10 { b"via: 1.0 " } else { b"via: 1.1 " };
    line(version, onward.via.as_bytes(), out);
    match onward.trace {
        Trace::Begun(_) if traced => {}
        Trace::Begun(trace) | Trace::Joined(trace) | Trace::Anew(trace) => {
            line(b"traceparent: ", trace.as_bytes(), out);
        }
        Trace::Kept => {}
    }
    if let (Some(protocol), true) = (head.upgrade, onward.upgrade) {
        line(b"connection: upgrade\r\nupgrade: ", protocol, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response for the client to the end of `out`.
pub fn response(head: &Response<'_, '_>, frame: Frame, connection: Connection, out: &mut Vec<u8>) {
    // The client's version is at least 1.0, and a 1.0 client reads a 1.1 status line (RFC 9110, 2.5).
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    // Neither has a body, and a length would be taken for one by some.
    let lengthless = head.status < 200 || head.status == 204;
    for header in head.headers {
        match class(header.name) {
            Class::EndToEnd
            | Class::Forwarded
            | Class::Certificate
            | Class::Host
            | Class::Expect
            | Class::Trace
            | Class::TraceState => {}
            Class::Hop => continue,
            Class::Length if lengthless => continue,
            Class::Length => {}
        }
        if head.lists && listed(head.headers, header.name) && class(header.name) != Class::Length {
            continue;
        }
        field(header, out);
    }
    if frame == Frame::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    match connection {
        Connection::Default => {}
        Connection::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
        Connection::Upgrade => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            let told = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade"));
            told.for_each(|header| field(header, out));
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn field(header: &Header<'_>, out: &mut Vec<u8>) {
    for piece in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    EndToEnd,
    /// Of this connection.
    Hop,
    Host,
    Length,
    /// What a proxy says of its client.
    Forwarded,
    /// The same of what it has proven.
    Certificate,
    Expect,
    Trace,
    /// What vendors say of it.
    TraceState,
}

fn class(name: &str) -> Class {
    let is_one = |one: &str| name.eq_ignore_ascii_case(one);
    // The length tells most names apart without comparing them.
    match name.len() {
        2 if is_one("te") => Class::Hop,
        4 if is_one("host") => Class::Host,
        6 if is_one("expect") => Class::Expect,
        7 if is_one("upgrade") || is_one("trailer") => Class::Hop,
        9 if is_one("forwarded") || is_one("x-real-ip") => Class::Forwarded,
        10 if is_one("connection") || is_one("keep-alive") => {
            if is(Bug::HopByHopForwarded) {
                Class::EndToEnd
            } else {
                Class::Hop
            }
        }
        10 if is_one("tracestate") => Class::TraceState,
        11 if is_one("traceparent") => Class::Trace,
        14 if is_one("content-length") => Class::Length,
        15 if is_one("x-forwarded-for") => Class::Forwarded,
        16 if is_one("proxy-connection") => Class::Hop,
        16 if is_one("x-forwarded-host") || is_one("x-forwarded-port") => Class::Forwarded,
        17 if is_one("transfer-encoding") => Class::Hop,
        17 if is_one("x-forwarded-proto") => Class::Forwarded,
        23 if is_one("x-forwarded-client-cert") => Class::Certificate,
        _ => Class::EndToEnd,
    }
}

/// Whether a field of this name may go on behind a body.
pub(super) fn goes_behind(name: &str) -> bool {
    matches!(class(name), Class::EndToEnd | Class::Trace | Class::TraceState)
}

/// Whether `Connection` names this field, which makes it one of the connection.
fn listed(headers: &[Header<'_>], name: &str) -> bool {
    let of = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("connection"));
    of.flat_map(|header| header.value.split(|&byte| byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}
