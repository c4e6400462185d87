//! One request to the collector, on a connection of its own. The answer is read by the grammar that the proxy reads by.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::http1::{Frame, Headers, Relay, Response};

use crate::config::otlp::Endpoint;

/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 8 * 1024;

/// Where requests go, and what they all say.
pub(super) struct Collector {
    endpoint: Endpoint,
    /// Fields of the configuration, as lines. They are shown nowhere.
    fields: String,
}

/// What is looked at of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

impl Collector {
    pub fn new(endpoint: &Endpoint, fields: &[(String, String)]) -> Collector {
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Collector { endpoint: endpoint.clone(), fields }
    }

    fn head(&self, path: &str, length: usize) -> String {
        let Endpoint { host, port, prefix } = &self.endpoint;
        format!(
            "POST {prefix}{path} HTTP/1.1\r\nhost: {host}:{port}\r\nuser-agent: archipel/{}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{}\r\n",
            env!("CARGO_PKG_VERSION"),
            self.fields
        )
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { host, port, prefix } = &self.endpoint;
        write!(f, "http://{host}:{port}{prefix}")
    }
}

/// Asks once. Who calls bounds the time that it takes.
pub(super) async fn post(collector: &Collector, path: &str, body: &[u8]) -> io::Result<Answer> {
    let Endpoint { host, port, .. } = &collector.endpoint;
    let mut stream = TcpStream::connect(format!("{host}:{port}")).await?;
    stream.set_nodelay(true)?;
    let sent = async {
        stream.write_all(collector.head(path, body.len()).as_bytes()).await?;
        stream.write_all(body).await
    };
    let sent = sent.await;
    // A collector that refuses may answer before it has read all, and close.
    match (answer(&mut stream).await, sent) {
        (Ok(answer), _) => Ok(answer),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

async fn answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let (mut answer, mut relay) = loop {
        match head(&bytes)? {
            // Those before the last one say nothing.
            Some((answer, _, taken)) if answer.status < 200 => drop(bytes.drain(..taken)),
            Some((answer, relay, taken)) => {
                bytes.drain(..taken);
                break (answer, relay);
            }
            None if stream.read_buf(&mut bytes).await? == 0 => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer breaks off"));
            }
            None => {}
        }
    };
    // The status counts, also if the rest does not come or cannot be read.
    while relay.pass(&bytes, &mut answer.body).is_ok()
        && !relay.has_ended()
        && answer.body.len() < ANSWER_BYTES_MAX
    {
        bytes.clear();
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            break;
        }
    }
    answer.body.truncate(ANSWER_BYTES_MAX);
    Ok(answer)
}

/// What the head of an answer says, how its body is read, and the head's bytes; `None` if it is not whole.
fn head(bytes: &[u8]) -> io::Result<Option<(Answer, Relay, usize)>> {
    let mut room = Headers::new();
    let head = Response::parse("POST", bytes, &mut room);
    let head = head.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(head.map(|head| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("retry-after"));
        let retry_after = found.and_then(|field| seconds(field.value));
        let answer = Answer { status: head.status, retry_after, body: Vec::new() };
        (answer, Relay::new(head.body, Frame::Plain), head.bytes)
    }))
}

/// A wait in seconds. A date, which it may be too, is not looked at: it is judged by a clock that may be another's.
fn seconds(value: &[u8]) -> Option<Duration> {
    std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_secs)
}
