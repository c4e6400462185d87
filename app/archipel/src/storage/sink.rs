//! Writing pieces to a server, pipelined.

use anyhow::{Context, Result, bail};

use super::client::{Client, Reply};
use super::piece::{Kind, Piece};
use super::source::unix_millis;

/// Answers that may be waited for at once.
const ANSWERS_MAX: usize = 1024;
/// Bytes that are sent before answers are read.
const BYTES_MAX: usize = 1 << 20;

/// A server that takes pieces.
pub struct Sink {
    client: Client,
    db: Option<u16>,
    /// Keys of the answers that are waited for.
    waiting: Vec<Vec<u8>>,
    /// Keys begun.
    pub keys: u64,
    /// Keys left out because they had expired.
    pub expired: u64,
}

impl Sink {
    /// Writes through `client`.
    pub fn new(client: Client) -> Sink {
        Sink { client, db: None, waiting: Vec::new(), keys: 0, expired: 0 }
    }

    /// Writes a piece. A key that is there already is replaced. The answer may come later.
    pub fn put(&mut self, piece: &Piece) -> Result<()> {
        let begins = piece.part == 0;
        if piece.expires_at_ms.is_some_and(|at| at <= unix_millis()) {
            self.expired += u64::from(begins);
            return Ok(());
        }
        self.keys += u64::from(begins);
        if self.db != Some(piece.db) {
            self.db = Some(piece.db);
            self.push(b"", &[b"SELECT", piece.db.to_string().as_bytes()]);
        }
        let key = piece.key.as_slice();
        let expiry = piece.expires_at_ms.map(|at| at.to_string());
        if piece.kind == Kind::String {
            let value = piece.elements.first().context("a string has a value")?;
            let mut words: Vec<&[u8]> = vec![b"SET", key, value];
            words.extend(expiry.iter().flat_map(|at| [b"PXAT".as_slice(), at.as_bytes()]));
            self.push(key, &words);
        } else {
            if begins {
                self.push(key, &[b"DEL", key]);
            }
            self.collection(piece);
            if let Some(at) = &expiry {
                self.push(key, &[b"PEXPIREAT", key, at.as_bytes()]);
            }
        }
        if self.waiting.len() >= ANSWERS_MAX || self.client.pending_bytes() >= BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn collection(&mut self, piece: &Piece) {
        let verb: &[u8] = match piece.kind {
            Kind::String => b"SET",
            Kind::List => b"RPUSH",
            Kind::Set => b"SADD",
            Kind::Hash => b"HSET",
            Kind::Zset => b"ZADD",
        };
        let mut words: Vec<&[u8]> = vec![verb, &piece.key];
        match piece.kind {
            // The score goes first.
            Kind::Zset => {
                words.extend(piece.elements.chunks(2).flat_map(|pair| pair.iter().rev().map(Vec::as_slice)))
            }
            Kind::String | Kind::List | Kind::Set | Kind::Hash => {
                words.extend(piece.elements.iter().map(Vec::as_slice))
            }
        }
        self.push(&piece.key, &words);
    }

    fn push(&mut self, key: &[u8], words: &[&[u8]]) {
        self.client.push(words);
        self.waiting.push(key.to_vec());
    }

    /// Waits for all answers.
    pub fn flush(&mut self) -> Result<()> {
        for key in self.waiting.drain(..) {
            if let Reply::Error(text) = self.client.next_reply()? {
                bail!("the key {:?} could not be written: {text}", String::from_utf8_lossy(&key));
            }
        }
        Ok(())
    }
}
