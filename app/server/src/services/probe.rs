//! One probe of a check: a connection, a request, or a call of gRPC's health service.

use std::io;

use mesh::health::{How, Probe};
use mesh::registry::Health;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How much of a body is told, in bytes.
const SHOWN_BYTES_MAX: usize = 1024;
/// Largest frame of HTTP/2 that is taken, its default.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Frames of HTTP/2 that are read for one answer.
const FRAMES_MAX: usize = 64;

/// How what is probed is, and what it said.
pub(super) async fn make(probe: &Probe) -> (Health, String) {
    let made = async {
        match &probe.how {
            How::Http { url, method, headers, body } => http(url, method, headers, body).await,
            How::Tcp { address } => TcpStream::connect(address)
                .await
                .map(|_| (Health::Passing, format!("TCP connect {address}: Success"))),
            How::Grpc { address } => grpc(address).await,
            // Nobody asks for probes of these.
            How::Ttl { .. } | How::Alias { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    match tokio::time::timeout(probe.timeout, made).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => (Health::Critical, error.to_string()),
        Err(_) => (Health::Critical, format!("no answer within {} ms", probe.timeout.as_millis())),
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// The authority and path of `http://…`.
fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let rest = rest.split('#').next()?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if authority.is_empty() || authority.contains('@') { None } else { Some((authority, path)) }
}

async fn http(
    url: &str,
    method: &str,
    headers: &[(String, String)],
    body: &str,
) -> io::Result<(Health, String)> {
    let (authority, path) = parts(url).ok_or_else(|| broken("the URL cannot be asked"))?;
    let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let place = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut stream = TcpStream::connect(place).await?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = format!("{method} {slash}{path} HTTP/1.1\r\n");
    let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    if !is_given("host") {
        request.push_str(&format!("Host: {authority}\r\n"));
    }
    request
        .push_str("User-Agent: archipel-health\r\nAccept: text/plain, text/*, */*\r\nConnection: close\r\n");
    // How long the body is and how the connection ends are not others' to say.
    let is_ours = |name: &str| {
        ["content-length", "transfer-encoding", "connection"].iter().any(|own| name.eq_ignore_ascii_case(own))
    };
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name)) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let head = loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(broken("the head of the answer is too long"));
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(broken("the answer breaks off"));
        }
    };
    let line =
        String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let code = code.ok_or_else(|| broken("the answer is not HTTP"))?;
    let status = match code {
        200..300 => Health::Passing,
        429 => Health::Warning,
        _ => Health::Critical,
    };
    let said = &answer[head + 4..];
    let said = String::from_utf8_lossy(&said[..said.len().min(SHOWN_BYTES_MAX)]).into_owned();
    Ok((status, format!("HTTP {method} {url}: {} Output: {said}", line.get(9..).unwrap_or_default())))
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).expect("a frame of ours is short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// A call of `grpc.health.v1.Health/Check`: one request of HTTP/2 (RFC 9113) with its header fields as literals (RFC 7541), and of
/// the answer only its message, so that nothing need be decompressed.
async fn grpc(address: &str) -> io::Result<(Health, String)> {
    let (place, service) = address.split_once('/').unwrap_or((address, ""));
    let mut stream = TcpStream::connect(place).await?;
    let mut out = Vec::from(*b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(SETTINGS, 0, 0, &[], &mut out);
    // :method POST and :scheme http stand in the static table.
    let mut fields = vec![0x83, 0x86];
    let literal = |name: &[u8], value: &str, fields: &mut Vec<u8>| {
        fields.extend_from_slice(name);
        fields.push(u8::try_from(value.len()).unwrap_or(0x7E).min(0x7E));
        fields.extend_from_slice(&value.as_bytes()[..value.len().min(0x7E)]);
    };
    literal(&[0x04], "/grpc.health.v1.Health/Check", &mut fields);
    literal(&[0x01], place, &mut fields);
    literal(&[0x0F, 0x10], "application/grpc", &mut fields);
    literal(&[0x00, 0x02, b't', b'e'], "trailers", &mut fields);
    frame(HEADERS, END_HEADERS, 1, &fields, &mut out);
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend_from_slice(&[
            0x0A,
            u8::try_from(service.len()).map_err(|_| broken("the name is too long"))?,
        ]);
        message.extend_from_slice(service.as_bytes());
    }
    if message.len() > 0x7F {
        return Err(broken("the name of the service is too long"));
    }
    let mut data = vec![0, 0, 0, 0, message.len() as u8];
    data.extend_from_slice(&message);
    frame(DATA, END_STREAM, 1, &data, &mut out);
    stream.write_all(&out).await?;
    let answer = grpc_answer(&mut stream).await?;
    Ok(match answer.as_slice() {
        [0, 0, 0, 0, 2, 0x08, 1, ..] => (Health::Passing, format!("gRPC check {address}: SERVING")),
        [] => (Health::Critical, format!("gRPC check {address}: the call failed")),
        _ => (Health::Critical, format!("gRPC check {address}: not serving")),
    })
}

async fn grpc_answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    for _ in 0..FRAMES_MAX {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > FRAME_BYTES_MAX {
            return Err(broken("a frame of HTTP/2 is too large"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let mut reply = Vec::new();
        match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut reply),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &body, &mut reply),
            DATA if flags & PADDED != 0 => return Err(broken("padding is not expected here")),
            DATA => message.extend_from_slice(&body),
            RESET | GO_AWAY => return Err(broken("the connection was refused")),
            _ => {}
        }
        stream.write_all(&reply).await?;
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            break;
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        #[rustfmt::skip] // columns
        let table = [
            ("http://a:1/x?y#z", Some(("a:1", "/x?y"))), ("http://a", Some(("a", ""))), ("http://a?b", Some(("a", "?b"))),
            ("http:///x", None), ("http://u@a/", None), ("ftp://a/", None),
        ];
        for (url, expected) in table {
            assert_eq!(parts(url), expected, "{url}");
        }
    }
}
