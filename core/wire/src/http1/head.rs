//! Heads: a request or status line and header fields, where they lie.

use core::str;

use httparse::{EMPTY_HEADER, Header, Status};
use thiserror::Error;

use super::{Body, CONNECTION_FIELDS_MAX, HEAD_BYTES_MAX, HEADERS_MAX, LINE_BYTES_MAX};

/// Room for the fields of one head; may be used again.
pub struct Headers<'a>([Header<'a>; HEADERS_MAX]);

impl Headers<'_> {
    /// Empty room.
    #[must_use]
    pub const fn new() -> Self {
        Headers([EMPTY_HEADER; HEADERS_MAX])
    }
}

impl Default for Headers<'_> {
    fn default() -> Self {
        Headers::new()
    }
}

/// Why a head is refused. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// It breaks the grammar: a name, value or line that may not be, a fold, a bare line end.
    #[error("the head is malformed")]
    Malformed,
    /// The first line is too long.
    #[error("a request line of more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// All of it is, or it has too many fields.
    #[error("a head of more than {HEAD_BYTES_MAX} bytes or {HEADERS_MAX} fields")]
    TooLarge,
    /// No `Host`, more than one, or one that is no host.
    #[error("a request needs exactly one valid Host")]
    Host,
    /// More than one length, one that is no number, or a length beside chunks.
    #[error("the length of the body is ambiguous")]
    Length,
    /// A transfer coding that is not `chunked` alone.
    #[error("the transfer coding is not offered")]
    Coding,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is not offered")]
    Version,
    /// An expectation other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
}

impl HeadError {
    /// The status that a client is answered.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            HeadError::Malformed | HeadError::Host | HeadError::Length => 400,
            HeadError::LineTooLong => 414,
            HeadError::TooLarge => 431,
            HeadError::Coding => 501,
            HeadError::Version => 505,
            HeadError::Expectation => 417,
        }
    }
}

/// A version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: a connection ends with its request unless both sides say otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path with its query, from the slash on.
    Path(&'a str),
    /// A whole URI: its authority counts and not `Host` (RFC 9112, 3.2.2). The path may be empty.
    Absolute {
        /// The authority.
        authority: &'a str,
        /// From the slash on.
        path: &'a str,
    },
    /// Where a tunnel leads: CONNECT.
    Authority(&'a str),
    /// The server itself: OPTIONS.
    Asterisk,
}

/// A request's head.
#[derive(Debug)]
pub struct Request<'h, 'a> {
    /// The method, in its own case.
    pub method: &'a str,
    /// What it is about.
    pub target: Target<'a>,
    /// The version.
    pub version: Version,
    /// The fields, in their order.
    pub headers: &'h [Header<'a>],
    /// The host that counts, with its port if it has one; empty only in HTTP/1.0.
    pub host: &'a str,
    /// How long the body is.
    pub body: Body,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// The protocol that it would rather speak, if the connection is to be upgraded.
    pub upgrade: Option<&'a [u8]>,
    /// `Connection` names further fields that are of this connection only.
    pub lists: bool,
    /// Bytes of the head.
    pub bytes: usize,
}

impl<'h, 'a> Request<'h, 'a> {
    /// The head at the start of `bytes`; `None` if it is not whole yet.
    ///
    /// Ask again with more bytes; each time O(bytes), so a client that sends a byte at a time is cut by the time that a
    /// head may take, not by this.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(bytes: &'a [u8], room: &'h mut Headers<'a>) -> Result<Option<Request<'h, 'a>>, HeadError> {
        // An empty line before the request is left by old clients behind a body (RFC 9112, 2.2); one is allowed.
        let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        let bytes = &bytes[skipped..];
        if bytes.starts_with(b"\r\n") || bytes.starts_with(b"\n") {
            return Err(HeadError::Malformed);
        }
        let mut head = httparse::Request::new(&mut room.0);
        let parsed = head.parse(bytes);
        let length = length(parsed, bytes)?;
        let Some(length) = length else { return Ok(None) };
        check_lines(&bytes[..length])?;
        let httparse::Request { method: Some(method), path: Some(path), version: Some(minor), headers } =
            head
        else {
            return Err(HeadError::Malformed);
        };
        let version = version(minor)?;
        let target = target(method, path)?;
        let fields = Fields::read(headers, true)?;
        let host = host(&fields, target, version)?;
        let body = match (fields.length, fields.chunked) {
            (_, true) if version == Version::Http10 => return Err(HeadError::Length),
            (Some(_), true) => return Err(HeadError::Length),
            (_, true) => Body::Chunked,
            (None | Some(0), false) => Body::None,
            (Some(length), false) => Body::Length(length),
        };
        let upgrade = fields.upgrade.filter(|_| fields.connection.upgrade && version == Version::Http11);
        Ok(Some(Request {
            method,
            target,
            version,
            headers,
            host,
            body,
            keep_alive: fields.connection.keeps(version),
            expects_continue: fields.expects && version == Version::Http11 && body != Body::None,
            upgrade,
            lists: fields.connection.others > 0,
            bytes: skipped + length,
        }))
    }
}

/// A response's head.
#[derive(Debug)]
pub struct Response<'h, 'a> {
    /// The status, 100 to 999.
    pub status: u16,
    /// The reason, which means nothing.
    pub reason: &'a str,
    /// The version.
    pub version: Version,
    /// The fields, in their order.
    pub headers: &'h [Header<'a>],
    /// How long the body is.
    pub body: Body,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// `Connection` names further fields that are of this connection only.
    pub lists: bool,
    /// Bytes of the head.
    pub bytes: usize,
}

impl<'h, 'a> Response<'h, 'a> {
    /// The head at the start of `bytes` that answers a request of this `method`; `None` if it is not whole yet.
    ///
    /// # Errors
    /// [`HeadError`]: of the server's making, so the client gets a 502 and the connection to the server is closed.
    pub fn parse(
        method: &str,
        bytes: &'a [u8],
        room: &'h mut Headers<'a>,
    ) -> Result<Option<Response<'h, 'a>>, HeadError> {
        let mut head = httparse::Response::new(&mut room.0);
        let parsed = head.parse(bytes);
        let length = length(parsed, bytes)?;
        let Some(length) = length else { return Ok(None) };
        check_lines(&bytes[..length])?;
        let httparse::Response { version: Some(minor), code: Some(status), reason: Some(reason), headers } =
            head
        else {
            return Err(HeadError::Malformed);
        };
        if status < 100 {
            return Err(HeadError::Malformed);
        }
        let version = version(minor)?;
        let fields = Fields::read(headers, false)?;
        // RFC 9112, 6.3, in its order.
        let tunnel = method == "CONNECT" && (200..300).contains(&status);
        let empty = method == "HEAD" || status < 200 || status == 204 || status == 304 || tunnel;
        let body = match (fields.length, fields.chunked) {
            _ if empty => Body::None,
            (Some(_), true) => return Err(HeadError::Length),
            (None, true) if version == Version::Http10 => return Err(HeadError::Length),
            (None, true) => Body::Chunked,
            (Some(0), false) => Body::None,
            (Some(length), false) => Body::Length(length),
            (None, false) => Body::UntilClose,
        };
        let keep_alive = fields.connection.keeps(version) && body != Body::UntilClose;
        let lists = fields.connection.others > 0;
        Ok(Some(Response { status, reason, version, headers, body, keep_alive, lists, bytes: length }))
    }
}

/// Whether all of `text` may be in a token: a method, or a field's name (RFC 9110, 5.6.2). An empty one is none.
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The length of a head that was read, if it is whole.
fn length(parsed: Result<Status<usize>, httparse::Error>, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    match parsed {
        Ok(Status::Complete(length)) if length > HEAD_BYTES_MAX => Err(HeadError::TooLarge),
        Ok(Status::Complete(length)) => Ok(Some(length)),
        Ok(Status::Partial) => {
            let line = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_BYTES_MAX + 1)]);
            if line.is_none() && bytes.len() > LINE_BYTES_MAX {
                return Err(HeadError::LineTooLong);
            }
            if bytes.len() > HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(None) }
        }
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        Err(_) => Err(HeadError::Malformed),
    }
}

/// Lines end with CRLF, all of them, and the first one is not too long.
fn check_lines(head: &[u8]) -> Result<(), HeadError> {
    let mut first = true;
    for end in memchr::memchr_iter(b'\n', head) {
        if end == 0 || head[end - 1] != b'\r' {
            return Err(HeadError::Malformed);
        }
        if core::mem::take(&mut first) && end > LINE_BYTES_MAX {
            return Err(HeadError::LineTooLong);
        }
    }
    Ok(())
}

const fn version(minor: u8) -> Result<Version, HeadError> {
    match minor {
        0 => Ok(Version::Http10),
        1 => Ok(Version::Http11),
        _ => Err(HeadError::Version),
    }
}

fn target<'a>(method: &str, path: &'a str) -> Result<Target<'a>, HeadError> {
    // A fragment is never sent, and other bytes than these are to be escaped.
    if !path.bytes().all(|byte| (0x21..0x7F).contains(&byte) && byte != b'#') {
        return Err(HeadError::Malformed);
    }
    if method == "CONNECT" {
        let port = path.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        return if port.is_some() && is_host(path) {
            Ok(Target::Authority(path))
        } else {
            Err(HeadError::Malformed)
        };
    }
    if path.starts_with('/') {
        return Ok(Target::Path(path));
    }
    if path == "*" {
        return if method == "OPTIONS" { Ok(Target::Asterisk) } else { Err(HeadError::Malformed) };
    }
    let (scheme, rest) = path.split_once("://").ok_or(HeadError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(HeadError::Malformed);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(HeadError::Host);
    }
    Ok(Target::Absolute { authority, path })
}

/// Whether these are the bytes of a host with or without a port: no user, no path, no blank.
fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte);
    text.bytes().all(allowed)
}

fn host<'a>(fields: &Fields<'a>, target: Target<'a>, version: Version) -> Result<&'a str, HeadError> {
    let named = match fields.host {
        Some(value) => {
            let text = str::from_utf8(value).map_err(|_| HeadError::Host)?;
            if !is_host(text) {
                return Err(HeadError::Host);
            }
            text
        }
        None if version == Version::Http11 => return Err(HeadError::Host),
        None => "",
    };
    match target {
        Target::Absolute { authority, .. } | Target::Authority(authority) => Ok(authority),
        // An empty Host is allowed only where there is no authority at all, which no proxy can route.
        Target::Path(_) | Target::Asterisk if named.is_empty() && fields.host.is_some() => {
            Err(HeadError::Host)
        }
        Target::Path(_) | Target::Asterisk => Ok(named),
    }
}

/// What `Connection` says.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Names of fields among them.
    others: usize,
}

impl Options {
    const fn keeps(self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        }
    }
}

/// The fields that decide about the message itself.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    connection: Options,
    expects: bool,
    upgrade: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(headers: &[Header<'a>], request: bool) -> Result<Fields<'a>, HeadError> {
        let mut fields = Fields::default();
        for &Header { name, value } in headers {
            if value.iter().any(|&byte| byte < 0x20 && byte != b'\t' || byte == 0x7F) {
                return Err(HeadError::Malformed);
            }
            // The length tells most names apart without comparing them.
            match name.len() {
                4 if request && name.eq_ignore_ascii_case("host") => {
                    set_once(&mut fields.host, value, HeadError::Host)?;
                }
                6 if request && name.eq_ignore_ascii_case("expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(HeadError::Expectation);
                    }
                    fields.expects = true;
                }
                7 if name.eq_ignore_ascii_case("upgrade") => fields.upgrade = Some(value),
                10 if name.eq_ignore_ascii_case("connection") => fields.connection(value)?,
                14 if name.eq_ignore_ascii_case("content-length") => {
                    set_once(&mut fields.length, decimal(value)?, HeadError::Length)?;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if fields.chunked {
                        return Err(HeadError::Length);
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HeadError::Coding);
                    }
                    fields.chunked = true;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let is_one = |one: &[u8]| option.eq_ignore_ascii_case(one);
            match option.len() {
                0 => {}
                5 if is_one(b"close") => self.connection.close = true,
                7 if is_one(b"upgrade") => self.connection.upgrade = true,
                10 if is_one(b"keep-alive") => self.connection.keep_alive = true,
                _ => self.connection.others += 1,
            }
        }
        // Each is looked for among all fields.
        if self.connection.others > CONNECTION_FIELDS_MAX { Err(HeadError::TooLarge) } else { Ok(()) }
    }
}

/// A field that may come once.
fn set_once<T>(field: &mut Option<T>, value: T, twice: HeadError) -> Result<(), HeadError> {
    if field.replace(value).is_some() { Err(twice) } else { Ok(()) }
}

/// Digits and nothing else: no sign, no blank, no list.
fn decimal(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    let digits = str::from_utf8(value).map_err(|_| HeadError::Length)?;
    digits.parse().map_err(|_| HeadError::Length)
}
