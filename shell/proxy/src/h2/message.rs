//! Heads: out of HTTP/2 into HTTP/1.1 and back (RFC 9113, 8). What comes of them is read again by `wire::http1`, strictly.

use std::io::Write;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version, request, response};
use wire::http1::{self, Body};

/// Whether a field of HTTP/1.1 has no place in HTTP/2 (RFC 9113, 8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER]
        .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Writes fields as lines.
pub(super) fn fields(map: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in map {
        if !is_of_connection(name) && *name != header::HOST && *name != header::CONTENT_LENGTH {
            line(name.as_str(), value.as_bytes(), out);
        }
    }
}

fn line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// Whether a message is one of gRPC.
pub(super) fn is_grpc(map: &HeaderMap) -> bool {
    map.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Writes a request's head. Whether its body is to be in chunks; `None`: it cannot be written.
pub(super) fn request_in(parts: &request::Parts, has_body: bool, out: &mut Vec<u8>) -> Option<bool> {
    beginning(parts, parts.method.as_str(), out)?;
    let length = parts.headers.get(header::CONTENT_LENGTH).filter(|_| has_body);
    match length {
        Some(length) => line("content-length", length.as_bytes(), out),
        None if has_body => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
    Some(has_body && length.is_none())
}

/// Writes the head of a request for a connection of WebSocket with this key; `None`: it cannot be written.
pub(super) fn websocket_in(parts: &request::Parts, key: &str, out: &mut Vec<u8>) -> Option<()> {
    beginning(parts, "GET", out)?;
    line("connection", b"upgrade", out);
    line("upgrade", b"websocket", out);
    line(header::SEC_WEBSOCKET_KEY.as_str(), key.as_bytes(), out);
    out.extend_from_slice(b"\r\n");
    Some(())
}

/// Writes the first line of a request and those of its fields that are its own.
fn beginning(parts: &request::Parts, method: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let named = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        // Who gets them might take another one than we did.
        return None;
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = match (authority, named) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return None,
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return None,
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    for piece in [method.as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\nhost: ", host, b"\r\n"] {
        out.extend_from_slice(piece);
    }
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        if *name == header::COOKIE {
            // They may come in pieces (RFC 9113, 8.2.3).
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
        } else if !is_of_connection(name) && *name != header::HOST && *name != header::CONTENT_LENGTH {
            line(name.as_str(), value.as_bytes(), out);
        }
    }
    if !cookies.is_empty() {
        line("cookie", &cookies, out);
    }
    Some(())
}

/// A request as it goes to a service. `None`: it cannot be said in HTTP/2.
pub(super) fn request_out(head: &http1::Request<'_, '_>, scheme: &str) -> Option<Request<()>> {
    let path = match head.target {
        http1::Target::Path(path) => path,
        http1::Target::Asterisk => "*",
        http1::Target::Absolute { .. } | http1::Target::Authority(_) => return None,
    };
    let uri = Uri::builder().scheme(scheme).authority(head.host).path_and_query(path).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if !is_of_connection(&name) && name != header::HOST {
            request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
    }
    if is_grpc(request.headers()) {
        // Some servers refuse calls without it, and an intermediary says it for itself.
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Some(request)
}

/// Writes a response's head. Whether its body is to be in chunks.
pub(super) fn response_in(
    parts: &response::Parts,
    is_head: bool,
    has_ended: bool,
    out: &mut Vec<u8>,
) -> bool {
    let status = parts.status.as_u16();
    // A vector takes what is written to it.
    let _ = write!(out, "HTTP/1.1 {status} \r\n");
    fields(&parts.headers, out);
    let bodiless = is_head || status < 200 || status == 204 || status == 304;
    // A body of a length has no trailers, and a call of gRPC is told how it ended in them.
    let length = parts.headers.get(header::CONTENT_LENGTH).filter(|_| bodiless || !is_grpc(&parts.headers));
    let chunked = match length {
        _ if status < 200 || status == 204 => false,
        Some(length) if !has_ended || bodiless => {
            line("content-length", length.as_bytes(), out);
            false
        }
        _ if bodiless => false,
        _ if has_ended => {
            out.extend_from_slice(b"content-length: 0\r\n");
            false
        }
        _ => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            true
        }
    };
    out.extend_from_slice(b"\r\n");
    chunked
}

/// A response as it goes to a client of HTTP/2; what the proxy says itself is said to a call of gRPC in its own way.
pub(super) fn response_out(head: &http1::Response<'_, '_>, grpc: bool) -> Option<(Response<()>, bool)> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    let ours = head.headers.iter().find(|field| field.name == "x-archipel-reason").filter(|_| grpc);
    if let Some(reason) = ours {
        *response.status_mut() = StatusCode::OK;
        let map = response.headers_mut();
        map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        map.insert("grpc-status", HeaderValue::from(grpc_status(head.status)));
        map.insert("grpc-message", HeaderValue::from_bytes(reason.value).ok()?);
        return Some((response, true));
    }
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let empty = grpc && head.body == Body::None && name == header::CONTENT_LENGTH;
        if !is_of_connection(&name) && !empty {
            response.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
    }
    Some((response, head.body == Body::None))
}

/// How a client is told that its connection of WebSocket is there (RFC 8441, 5): the proof was for the proxy.
pub(super) fn opened_out(head: &http1::Response<'_, '_>) -> Option<Response<()>> {
    let mut response = Response::new(());
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if !is_of_connection(&name) && name != header::SEC_WEBSOCKET_ACCEPT {
            response.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
    }
    Some(response)
}

/// What a status of ours is to a call (gRPC, "HTTP to gRPC Status Code Mapping"; a time that is over is its own deadline's).
const fn grpc_status(status: u16) -> u16 {
    match status {
        400 => 13,
        403 => 7,
        404 | 405 => 12,
        504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

/// Trailer fields out of their lines; `None`: there are none.
pub(super) fn trailers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value)
            && !is_of_connection(&name)
        {
            map.append(name, value);
        }
    }
    (!map.is_empty()).then_some(map)
}
