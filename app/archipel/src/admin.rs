//! Asks a node's admin port: small HTTP requests, each on a connection of its own, or one after the other on one that is kept.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// How long the node may take to answer, unless told otherwise.
pub const SECONDS_MAX: u64 = 10;
/// Longest answer that is taken.
const BYTES_MAX: u64 = 16 << 20;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// What it says.
    pub body: String,
}

impl Answer {
    /// The body of a 2xx answer; otherwise the node's own words as an error.
    pub fn good(self) -> Result<String> {
        if (200..300).contains(&self.code) {
            return Ok(self.body);
        }
        let said = self.body.trim_end();
        if said.is_empty() { bail!("the node answered {}", self.code) } else { bail!("{said}") }
    }
}

/// Asks the node at `address`, which has `seconds` to answer.
///
/// # Errors
/// Nobody listens there, or what answers is not an admin port. The text has the next step.
pub fn ask(address: SocketAddr, method: &str, path: &str, seconds: u64) -> Result<Answer> {
    exchange(address, method, path, seconds).with_context(|| {
        format!("no node answers at http://{address}{path}; is it started, and with which --port-offset?")
    })
}

/// The same with more headers, each with its value, and an answer of any bytes; at most [`RAW_BYTES_MAX`].
///
/// # Errors
/// As [`ask`].
pub fn ask_raw(address: SocketAddr, path: &str, seconds: u64, headers: &[(&str, &str)]) -> Result<Raw> {
    let said = exchange_raw(address, "POST", path, seconds, headers, RAW_BYTES_MAX);
    let said = said.and_then(|bytes| raw(&bytes).context("the answer breaks off, or is not HTTP"));
    said.with_context(|| {
        format!("no node answers at http://{address}{path}; is it started, and with which --port-offset?")
    })
}

/// The header with the number of bytes behind the head.
const LENGTH: &str = "content-length";
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest answer of any bytes that is taken.
const RAW_BYTES_MAX: u64 = 64 << 20;

/// An answer of any bytes.
#[derive(Debug)]
pub struct Raw {
    /// The status code.
    code: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    /// The status code.
    pub const fn code(&self) -> u16 {
        self.code
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body of a 2xx answer, and the value of the header `name`, which is in lower case; otherwise the node's own
    /// words as an error.
    ///
    /// # Errors
    /// It is no such answer, or the body is shorter than was said.
    pub fn good(self, name: &str) -> Result<(Vec<u8>, Option<String>)> {
        if !(200..300).contains(&self.code) {
            let said = String::from_utf8_lossy(&self.body).trim_end().to_owned();
            if said.is_empty() { bail!("the node answered {}", self.code) } else { bail!("{said}") }
        }
        if self.value(LENGTH).is_some_and(|length| length != self.body.len().to_string()) {
            bail!("the node's answer breaks off");
        }
        let found = self.value(name).map(str::to_owned);
        Ok((self.body, found))
    }
}

/// A connection to a node's admin port that is kept from one request to the next: so a request takes one way there and back.
pub struct Line {
    address: SocketAddr,
    password: Option<String>,
    stream: Option<TcpStream>,
}

impl Line {
    /// Connects to nobody yet. With `password` it may be asked for data.
    pub const fn new(address: SocketAddr, password: Option<String>) -> Line {
        Line { address, password, stream: None }
    }

    /// Whom it asks.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes sure that there is a connection, which the node may close when it is not used.
    ///
    /// # Errors
    /// Nobody listens there, or does not answer within `limit`.
    pub fn open(&mut self, limit: Duration) -> Result<()> {
        if let Some(stream) = &self.stream
            && is_open(stream)
        {
            return Ok(());
        }
        self.stream = None;
        let stream = TcpStream::connect_timeout(&self.address, limit)
            .with_context(|| format!("no node answers at {}", self.address))?;
        stream.set_nodelay(true)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Posts `body` to `path`. The node has until `limit` is over to answer, with at most [`RAW_BYTES_MAX`].
    ///
    /// # Errors
    /// There is no whole answer in time: whether the node did anything is not known. The next request takes another
    /// connection.
    pub fn ask(&mut self, path: &str, body: &[u8], limit: Duration) -> Result<Raw> {
        let end = Instant::now() + limit;
        self.open(limit)?;
        // It comes back when the answer was whole.
        let mut stream = self.stream.take().context("it was just opened")?;
        let password = self.password.iter().map(|password| format!("X-Archipel-Password: {password}\r\n"));
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{}X-Archipel: 1\r\n\r\n",
            self.address,
            body.len(),
            password.collect::<String>(),
        )
        .into_bytes();
        request.extend_from_slice(body);
        let said = stream.set_write_timeout(Some(limit)).and_then(|()| stream.write_all(&request));
        let said = said.map_err(Into::into).and_then(|()| answer_of(&mut stream, end));
        let said = said.with_context(|| format!("{} gave no answer to {path}", self.address))?;
        if said.value("connection").is_none_or(|what| !what.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        Ok(said)
    }
}

/// Whether the other end has not closed a connection on which nothing is to come.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let waits = matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    waits && stream.set_nonblocking(false).is_ok()
}

/// Reads one answer, which says how long it is.
fn answer_of(stream: &mut TcpStream, end: Instant) -> Result<Raw> {
    let mut answer = Vec::new();
    let mut more = |answer: &mut Vec<u8>| -> Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "it took too long");
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 << 10];
        let read = stream.read(&mut piece).map_err(late)?;
        ensure!(read > 0, "the connection was closed");
        answer.extend_from_slice(&piece[..read]);
        Ok(())
    };
    let mut said = loop {
        if let Some(said) = raw(&answer) {
            break said;
        }
        ensure!(answer.len() < HEAD_BYTES_MAX, "its answer is not HTTP");
        more(&mut answer)?;
    };
    let length = said.value(LENGTH).and_then(|length| length.parse().ok());
    let length: u64 = length.context("its answer does not say how long it is")?;
    ensure!(length <= RAW_BYTES_MAX, "its answer is too long: {length} bytes");
    while (said.body.len() as u64) < length {
        more(&mut said.body)?;
    }
    ensure!(said.body.len() as u64 == length, "its answer is longer than it says");
    Ok(said)
}

fn exchange(address: SocketAddr, method: &str, path: &str, seconds: u64) -> Result<Answer> {
    let answer = exchange_raw(address, method, path, seconds, &[], BYTES_MAX)?;
    let answer = String::from_utf8(answer).context("the answer is not text")?;
    read(&answer).context("the answer breaks off, or is not HTTP")
}

fn exchange_raw(
    address: SocketAddr,
    method: &str,
    path: &str,
    seconds: u64,
    headers: &[(&str, &str)],
    bytes_max: u64,
) -> Result<Vec<u8>> {
    let limit = Duration::from_secs(seconds);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // The last line is what no page of a browser can send to another site's port without asking first.
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n{more}X-Archipel: 1\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(bytes_max).read_to_end(&mut answer).map_err(late)?;
    Ok(answer)
}

/// Why nothing more was read, in words of ours if it is that a limit was over.
fn late(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => anyhow!("it took too long"),
        _ => error.into(),
    }
}

fn raw(answer: &[u8]) -> Option<Raw> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_owned();
    let code = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Raw { code, head, body: answer[end + 4..].to_vec() })
}

fn read(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer { code, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_body_or_an_error_in_the_nodes_words() {
        let good = read("HTTP/1.1 200 OK\r\na: b\r\n\r\nhello\n").unwrap();
        assert_eq!(good.good().unwrap(), "hello\n");
        let refused = read("HTTP/1.1 409 Conflict\r\n\r\nit is no member\n").unwrap();
        assert_eq!(refused.good().unwrap_err().to_string(), "it is no member");
        let silent = read("HTTP/1.1 500 Oh\r\n\r\n").unwrap();
        assert_eq!(silent.good().unwrap_err().to_string(), "the node answered 500");
        for text in ["", "HTTP/1.1 200 OK\r\n", "+PONG\r\n\r\n", "HTTP/1.1 2\r\n\r\n"] {
            assert!(read(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_of_any_bytes_has_its_header_and_must_be_whole() {
        let answer = |body: &[u8]| {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nX-Next: 02ff\r\n\r\n";
            raw(&[head, body].concat()).unwrap()
        };
        assert_eq!(
            answer(b"\r\n\xff").good("x-next").unwrap(),
            (b"\r\n\xff".to_vec(), Some("02ff".to_owned()))
        );
        assert_eq!(answer(b"abc").good("absent").unwrap().1, None);
        assert!(answer(b"ab").good("x-next").unwrap_err().to_string().contains("breaks off"));
        let refused = raw(b"HTTP/1.1 403 Forbidden\r\n\r\nno\n").unwrap();
        assert_eq!(refused.good("x").unwrap_err().to_string(), "no");
        assert!(raw(b"HTTP/1.1 200 OK\r\n").is_none());
    }

    /// Answers of one connection, in turn, each once so many bytes of requests have come.
    fn node(connections: Vec<Vec<(usize, &'static [u8])>>) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for (bytes, answer) in answers {
                    stream.read_exact(&mut vec![0; bytes]).unwrap();
                    stream.write_all(answer).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn a_line_asks_again_and_again_and_connects_anew_when_it_must() {
        let bytes =
            "POST /x HTTP/1.1\r\nHost: 127.0.0.1:12345\r\nContent-Length: 2\r\nX-Archipel: 1\r\n\r\nhi".len();
        // Ports may have fewer digits.
        let of = |address: SocketAddr| bytes - 5 + address.port().to_string().len();
        assert_eq!(of("127.0.0.1:80".parse().unwrap()), bytes - 3);
        let long = Duration::from_secs(60);
        let whole: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes";
        let last: &[u8] = b"HTTP/1.1 409 No\r\nConnection: close\r\ncontent-length: 2\r\n\r\nno";
        let address =
            node(vec![vec![(bytes, whole), (bytes, last)], vec![(bytes, b"HTTP/1.1 200 OK\r\ncontent-le")]]);
        let mut line = Line::new(address, None);
        let path = format!("/x{}", "y".repeat(bytes - of(address)));
        let said = line.ask(&path, b"hi", long).unwrap();
        assert_eq!((said.code(), said.good("x").unwrap().0), (200, b"yes".to_vec()));
        let said = line.ask(&path, b"hi", long).unwrap();
        assert_eq!((said.code(), said.good("x").unwrap_err().to_string()), (409, "no".to_owned()));
        let error = format!("{:#}", line.ask(&path, b"hi", long).unwrap_err());
        assert!(error.contains("the connection was closed"), "{error}");
        let error = line.ask(&path, b"hi", long).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("no node answers") || error.contains("gave no answer"), "{error}");
    }

    #[test]
    fn a_line_takes_no_answer_whose_end_is_not_known() {
        let request = "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\nX-Archipel: 1\r\n\r\n".len();
        for (answer, why) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nyes"[..], "does not say how long"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "too long"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nyes", "longer than it says"),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let bytes = request + address.to_string().len();
            let node = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut vec![0; bytes]).unwrap();
                stream.write_all(answer).unwrap();
            });
            let said = Line::new(address, None).ask("/", b"", Duration::from_secs(60));
            let error = format!("{:#}", said.map(|_| ()).unwrap_err());
            assert!(error.contains(why), "{why}: {error}");
            node.join().unwrap();
        }
    }
}
