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

fn exchange(address: SocketAddr, method: &str, path: &str, seconds: u64) -> Result<Answer> {
    let limit = Duration::from_secs(seconds);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    // The last line is what no page of a browser can send to another site's port without asking first.
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\nX-Archipel: 1\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(BYTES_MAX).read_to_string(&mut answer)?;
    read(&answer).context("the answer breaks off, or is not HTTP")
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
}
