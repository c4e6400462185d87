//! Asks a node's admin port: one small HTTP request, one small answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

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
    /// The body of a 2xx answer, and the value of the header `name`, which is in lower case; otherwise the node's own
    /// words as an error.
    ///
    /// # Errors
    /// It is no such answer, or the body is shorter than was said.
    pub fn good(self, name: &str) -> Result<(Vec<u8>, Option<String>)> {
        let value = |name: &str| {
            let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        if !(200..300).contains(&self.code) {
            let said = String::from_utf8_lossy(&self.body).trim_end().to_owned();
            if said.is_empty() { bail!("the node answered {}", self.code) } else { bail!("{said}") }
        }
        if value("content-length").is_some_and(|length| length != self.body.len().to_string()) {
            bail!("the node's answer breaks off");
        }
        let found = value(name);
        Ok((self.body, found))
    }
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
    stream.take(bytes_max).read_to_end(&mut answer)?;
    Ok(answer)
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
}
