//! A small Redis client: RESP2 over one blocking connection, pipelined.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a server may take to accept.
const CONNECT_SECONDS_MAX: u64 = 10;
/// How long a server may be silent. A script or a blocked disk may hold it up for a while.
const SILENCE_SECONDS_MAX: u64 = 120;
/// Longest byte string that is taken.
const BULK_BYTES_MAX: usize = 512 << 20;
/// Most elements of one array that are taken.
const ELEMENTS_MAX: usize = 16 << 20;
/// Deepest nesting that is taken.
const DEPTH_MAX: usize = 8;
/// Longest line of the protocol.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A word such as OK.
    Simple(String),
    /// A refusal, with its code word.
    Error(String),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing.
    Nil,
    /// Several.
    Array(Vec<Reply>),
}

/// Who the client says it is.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// The user, if not `default`.
    pub user: Option<String>,
    /// The password, if one is asked for.
    pub password: Option<String>,
}

/// Anything that bytes go through both ways.
pub trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    out: Vec<u8>,
    address: String,
}

impl Client {
    /// Connects to `address` (`host:port`) and logs in. `wrap` puts TLS around the connection, or nothing.
    pub fn connect(
        address: &str,
        login: &Login,
        wrap: impl FnOnce(TcpStream) -> Result<Box<dyn Stream>>,
    ) -> Result<Client> {
        let stream = dial(address)?;
        let mut client =
            Client { stream: BufReader::new(wrap(stream)?), out: Vec::new(), address: address.to_owned() };
        if let Some(password) = &login.password {
            let user = login.user.as_deref();
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(user.map(str::as_bytes));
            words.push(password.as_bytes());
            client.call(&words).with_context(|| format!("{address} does not let us in"))?;
        }
        Ok(client)
    }

    /// Sends one command and waits for its answer; an error reply is an error.
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Reply> {
        self.push(words);
        self.next()
    }

    /// Puts a command into the pipeline.
    pub fn push(&mut self, words: &[&[u8]]) {
        // Writing to memory does not fail.
        let _ = write!(self.out, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(self.out, "${}\r\n", word.len());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Bytes that wait in the pipeline.
    pub fn pending_bytes(&self) -> usize {
        self.out.len()
    }

    /// The next answer; an error reply is an error.
    pub fn next(&mut self) -> Result<Reply> {
        match self.next_reply()? {
            Reply::Error(text) => bail!("{} answered: {text}", self.address),
            reply => Ok(reply),
        }
    }

    /// The next answer as it is. Sends what waits first.
    pub fn next_reply(&mut self) -> Result<Reply> {
        let address = self.address.clone();
        self.exchange().with_context(|| format!("the connection to {address} failed"))
    }

    fn exchange(&mut self) -> Result<Reply> {
        if !self.out.is_empty() {
            let stream = self.stream.get_mut();
            stream.write_all(&self.out)?;
            stream.flush()?;
            self.out.clear();
        }
        read(&mut self.stream, 0)
    }
}

fn dial(address: &str) -> Result<TcpStream> {
    let missing = || format!("{address} is not a host and a port");
    let mut last = None;
    for resolved in address.to_socket_addrs().with_context(missing)? {
        match TcpStream::connect_timeout(&resolved, Duration::from_secs(CONNECT_SECONDS_MAX)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))?;
                stream.set_write_timeout(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| {
            format!("nothing answers at {address}; is the node started, and with which --port-offset?")
        }),
        None => bail!(missing()),
    }
}

/// The address to connect to for a socket bound to `bound`.
pub fn reachable(bound: SocketAddr) -> String {
    let host = match bound {
        SocketAddr::V4(address) if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    format!("{host}:{}", bound.port())
}

fn line(stream: &mut impl Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > LINE_BYTES_MAX {
            bail!("a line of the answer is longer than {LINE_BYTES_MAX} bytes");
        }
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn read(stream: &mut impl Read, depth: usize) -> Result<Reply> {
    let head = line(stream)?;
    let Some(kind) = head.chars().next() else { bail!("the answer has an empty line") };
    let rest = &head[kind.len_utf8()..];
    Ok(match kind {
        '+' => Reply::Simple(rest.to_owned()),
        '-' => Reply::Error(rest.to_owned()),
        ':' => Reply::Int(rest.parse().with_context(|| format!("{rest:?} is not a number"))?),
        '$' => match length(rest, BULK_BYTES_MAX)? {
            None => Reply::Nil,
            Some(len) => Reply::Bulk(bulk(stream, len)?),
        },
        '*' => match length(rest, ELEMENTS_MAX)? {
            None => Reply::Nil,
            Some(_) if depth == DEPTH_MAX => bail!("the answer is nested deeper than {DEPTH_MAX}"),
            Some(len) => {
                let mut items = Vec::with_capacity(len.min(4096));
                for _ in 0..len {
                    items.push(read(stream, depth + 1)?);
                }
                Reply::Array(items)
            }
        },
        _ => bail!("the answer begins with {kind:?}: is this a Redis port?"),
    })
}

fn length(text: &str, limit: usize) -> Result<Option<usize>> {
    let n: i64 = text.parse().with_context(|| format!("{text:?} is not a length"))?;
    match usize::try_from(n) {
        Err(_) if n == -1 => Ok(None),
        Ok(n) if n <= limit => Ok(Some(n)),
        Ok(_) | Err(_) => bail!("a length of {n} in the answer; the limit is {limit}"),
    }
}

fn bulk(stream: &mut impl Read, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Grows as bytes arrive: a length alone takes no memory.
    let taken = stream.by_ref().take(len as u64).read_to_end(&mut bytes)?;
    let mut end = [0; 2];
    stream.read_exact(&mut end)?;
    if taken != len || end != *b"\r\n" {
        bail!("a byte string of the answer does not end where it should");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Reply> {
        read(&mut text.as_bytes(), 0).ok()
    }

    #[test]
    fn answers_are_read_and_wrong_ones_refused() {
        let bulk = |text: &str| Reply::Bulk(text.into());
        #[rustfmt::skip] // columns
        let table = [
            ("+OK\r\n",                       Some(Reply::Simple("OK".into()))),
            ("-ERR no\r\n",                   Some(Reply::Error("ERR no".into()))),
            (":-7\r\n",                       Some(Reply::Int(-7))),
            ("$0\r\n\r\n",                    Some(bulk(""))),
            ("$4\r\na\r\nb\r\n",              Some(bulk("a\r\nb"))),
            ("$-1\r\n",                       Some(Reply::Nil)),
            ("*-1\r\n",                       Some(Reply::Nil)),
            ("*2\r\n$1\r\na\r\n:1\r\n",       Some(Reply::Array(vec![bulk("a"), Reply::Int(1)]))),
            ("$3\r\nabcd\r\n",                None),
            ("$99999999999\r\n",              None),
            ("*-2\r\n",                       None),
            ("$5\r\nab",                      None),
            ("\r\n",                          None),
            ("HTTP/1.1 400 Bad Request\r\n",  None),
        ];
        for (text, expected) in table {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
        assert_eq!(parsed(&"*1\r\n".repeat(DEPTH_MAX + 2)), None);
    }
}
