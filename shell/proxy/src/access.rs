//! The access log: one line of JSON for a request, of some requests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use kernel::Micros;

/// Lines that wait to be written, in bytes; what comes when so much waits is dropped and counted.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What a line says.
pub(crate) struct Line<'a> {
    pub now: Micros,
    /// Whose the request was.
    pub client: IpAddr,
    /// The name of the member that has asked.
    pub member: Option<&'a str>,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub route: &'a str,
    pub service: &'a str,
    pub endpoint: Option<std::net::SocketAddr>,
    /// 0: the client went away.
    pub status: u16,
    pub micros: u64,
    pub tries: u8,
    pub reason: Option<&'static str>,
}

/// A file that lines are appended to, one write a turn.
#[derive(Debug)]
pub(crate) struct AccessLog {
    file: File,
    waiting: Vec<u8>,
    dropped: u64,
}

impl AccessLog {
    /// Appends to the file, which is made if it is not there.
    pub fn open(path: &Path) -> io::Result<AccessLog> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(AccessLog { file, waiting: Vec::new(), dropped: 0 })
    }

    pub fn note(&mut self, line: &Line<'_>) {
        if self.waiting.len() >= WAITING_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        let out = &mut self.waiting;
        // A vector takes what is written to it.
        let _ = write!(out, "{{\"time_ms\":{},\"client\":\"{}\"", line.now.millis().0, line.client);
        for (name, value) in [
            ("method", line.method),
            ("host", line.host),
            ("path", line.path),
            ("route", line.route),
            ("service", line.service),
        ] {
            let _ = write!(out, ",\"{name}\":\"");
            escape(value, out);
            out.push(b'"');
        }
        if let Some(member) = line.member {
            let _ = write!(out, ",\"member\":\"{member}\"");
        }
        if let Some(endpoint) = line.endpoint {
            let _ = write!(out, ",\"endpoint\":\"{endpoint}\"");
        }
        if let Some(reason) = line.reason {
            let _ = write!(out, ",\"reason\":\"{reason}\"");
        }
        let _ = writeln!(
            out,
            ",\"status\":{},\"micros\":{},\"tries\":{}}}",
            line.status, line.micros, line.tries
        );
    }

    /// Writes what waits.
    pub fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if let Err(error) = self.file.write_all(&self.waiting) {
            tracing::warn!(%error, bytes = self.waiting.len(), "lines of the access log are lost");
        }
        self.waiting.clear();
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            tracing::warn!(dropped, "lines of the access log were dropped: too many in one turn");
        }
    }
}

fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..=0x7E | 0x80.. => out.push(byte),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_clients_send() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = AccessLog::open(&path).unwrap();
        log.note(&Line {
            now: Micros(1_000_000),
            client: "::1".parse().unwrap(),
            member: Some("spiffe://a/node/b"),
            method: "GET",
            host: "a\"b",
            path: "/\\\u{1}",
            route: "r",
            service: "s",
            endpoint: Some("127.0.0.1:80".parse().unwrap()),
            status: 503,
            micros: 12,
            tries: 2,
            reason: Some("timeout"),
        });
        log.flush();
        let expected = "{\"time_ms\":1000,\"client\":\"::1\",\"method\":\"GET\",\"host\":\"a\\\"b\",\
                        \"path\":\"/\\\\\\u0001\",\"route\":\"r\",\"service\":\"s\",\
                        \"member\":\"spiffe://a/node/b\",\"endpoint\":\"127.0.0.1:80\",\"reason\":\"timeout\",\"status\":503,\"micros\":12,\"tries\":2}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
