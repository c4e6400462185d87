//! Requests to the admin port whose answers come line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long the node may be silent: longer than a lookup has patience with one peer.
pub const SILENT: Duration = Duration::from_secs(60);
/// Longest answer that is taken, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// Where the node's admin port is.
pub struct Client {
    pub address: SocketAddr,
}

/// The lines of an answer.
pub struct Lines(BufReader<std::io::Take<TcpStream>>);

impl Client {
    /// One object.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address), SILENT)?.next_line()
    }

    /// What `verb` of the overlay answers to `wanted`.
    pub fn post(&self, verb: &str, wanted: &Value) -> Result<Lines> {
        self.patient(verb, wanted, SILENT)
    }

    /// Lines that come when something happens, however long that takes.
    pub fn listen(&self, verb: &str, wanted: &Value) -> Result<Lines> {
        let mut lines = self.post(verb, wanted)?;
        lines.0.get_mut().set_limit(u64::MAX);
        lines.0.get_ref().get_ref().set_read_timeout(None)?;
        Ok(lines)
    }

    /// One answer that may take so long.
    pub fn patient(&self, verb: &str, wanted: &Value, limit: Duration) -> Result<Lines> {
        let body = wanted.to_string();
        self.ask(&request(verb, self.address, &body), limit)
    }

    /// HTTP/1.0, so that the answer is not cut into chunks and ends with the connection.
    fn ask(&self, request: &str, limit: Duration) -> Result<Lines> {
        let address = self.address;
        let mut stream = TcpStream::connect_timeout(&address, SILENT).with_context(|| {
            format!("no node answers at http://{address}/p2p; is it started, and with which --port-offset?")
        })?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(request.as_bytes())?;
        let mut lines = Lines(BufReader::new(stream.take(BYTES_MAX)));
        let status = lines.text()?;
        while !lines.text()?.trim().is_empty() {}
        match status.split(' ').nth(1) {
            Some("200") => Ok(lines),
            _ => {
                let mut body = String::new();
                lines.0.read_to_string(&mut body)?;
                let told: Option<Value> = serde_json::from_str(&body).ok();
                match told.as_ref().and_then(|told| told["error"].as_str()) {
                    Some(error) => bail!("{error}"),
                    None => bail!("{}", if body.trim().is_empty() { status.trim() } else { body.trim() }),
                }
            }
        }
    }
}

/// A request for `verb`, which a page of a browser could not send: it has a field of our own.
fn request(verb: &str, address: SocketAddr, body: &str) -> String {
    format!(
        "POST /p2p/{verb} HTTP/1.0\r\nHost: {address}\r\nX-Archipel: p2p\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len(),
    )
}

impl Lines {
    fn text(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the node's answer breaks off");
        }
        Ok(line)
    }

    /// The next object.
    pub fn next_line(&mut self) -> Result<Value> {
        serde_json::from_str(&self.text()?).context("the node's answer is not JSON")
    }

    /// The one object that there is.
    pub fn last(mut self) -> Result<Value> {
        checked(self.next_line()?)
    }
}

/// The answer, unless it is an error.
pub fn checked(answer: Value) -> Result<Value> {
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}
