//! The client's side of RESP2 over a blocking socket: commands out, replies in.
//!
//! It checks nothing about a reply besides its frame; what a reply should have been is the model's word.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply that has not come after this is taken for an ended connection.
const REPLY_SECONDS_MAX: u64 = 60;
/// Longest bulk string that is believed.
const BULK_BYTES_MAX: usize = 1 << 28;

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:number`
    Int(i64),
    /// `$bytes`
    Bulk(Vec<u8>),
    /// Null, as a string or an array.
    Null,
    /// `*replies`
    Array(Vec<Reply>),
}

impl Reply {
    /// `+OK`
    #[must_use]
    pub fn ok() -> Reply {
        Reply::Simple("OK".into())
    }

    /// The reply in a message: long strings are cut.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Reply::Simple(text) => format!("+{text}"),
            Reply::Error(text) => format!("-{text}"),
            Reply::Int(number) => format!(":{number}"),
            Reply::Bulk(bytes) => brief(bytes),
            Reply::Null => "null".into(),
            Reply::Array(items) => {
                let shown: Vec<String> = items.iter().take(12).map(Reply::brief).collect();
                format!("{} items [{}]", items.len(), shown.join(", "))
            }
        }
    }
}

/// Bytes in a message: escaped, and cut when they are long.
#[must_use]
pub fn brief(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(40)].escape_ascii();
    if bytes.len() > 40 { format!("\"{shown}…\" ({} bytes)", bytes.len()) } else { format!("\"{shown}\"") }
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(REPLY_SECONDS_MAX)))?;
        stream.set_write_timeout(Some(Duration::from_secs(REPLY_SECONDS_MAX)))?;
        Ok(Client { reader: BufReader::with_capacity(1 << 16, stream), out: Vec::new() })
    }

    /// Adds a command to what [`Client::flush`] sends.
    pub fn queue<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
        for arg in args {
            let arg = arg.as_ref();
            self.out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            self.out.extend_from_slice(arg);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what was queued.
    ///
    /// # Errors
    /// The connection has ended; how much has arrived is unknown.
    pub fn flush(&mut self) -> io::Result<()> {
        let sent = self.reader.get_mut().write_all(&self.out);
        self.out.clear();
        sent
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection has ended, or what came is not RESP2.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            if byte[0] == b'\n' {
                break;
            }
            line.push(byte[0]);
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("not RESP2: {}", brief(&line)));
        let text = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix('\r'));
        let text = text.filter(|text| text.is_char_boundary(1) && !text.is_empty()).ok_or_else(wrong)?;
        let (kind, rest) = text.split_at(1);
        let number = || rest.parse::<i64>().map_err(|_| wrong());
        match kind {
            "+" => Ok(Reply::Simple(rest.into())),
            "-" => Ok(Reply::Error(rest.into())),
            ":" => Ok(Reply::Int(number()?)),
            "$" | "*" if number()? == -1 => Ok(Reply::Null),
            "$" => {
                let len = usize::try_from(number()?).ok().filter(|&len| len <= BULK_BYTES_MAX);
                let mut bytes = vec![0; len.ok_or_else(wrong)? + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Bulk(bytes))
            }
            "*" => (0..number()?).map(|_| self.reply()).collect::<io::Result<_>>().map(Reply::Array),
            _ => Err(wrong()),
        }
    }

    /// One command and its reply.
    ///
    /// # Errors
    /// As for [`Client::reply`].
    pub fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.queue(args);
        self.flush()?;
        self.reply()
    }
}
