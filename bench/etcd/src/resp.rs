//! A client of the Redis protocol with one request under way.

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    got: Vec<u8>,
}

impl Client {
    pub async fn connect(address: &str) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, out: Vec::new(), got: Vec::new() })
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.send(&[b"SET", key.as_bytes(), value]).await?;
        let line = self.line().await?;
        if line != "+OK" {
            bail!("SET was answered with {line}");
        }
        self.got.clear();
        Ok(())
    }

    pub async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        self.send(&[b"GET", key.as_bytes()]).await?;
        let line = self.line().await?;
        if line == "$-1" {
            self.got.clear();
            return Ok(None);
        }
        let Some(length) = line.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()) else {
            bail!("GET was answered with {line}");
        };
        let start = line.len() + 2;
        while self.got.len() < start + length + 2 {
            self.more().await?;
        }
        let value = self.got[start..start + length].to_vec();
        self.got.clear();
        Ok(Some(value))
    }

    async fn send(&mut self, words: &[&[u8]]) -> Result<()> {
        self.out.clear();
        self.out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&self.out).await?;
        Ok(())
    }

    /// The first line of the answer, which stays in `got`.
    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.got.windows(2).position(|pair| pair == b"\r\n") {
                return Ok(String::from_utf8_lossy(&self.got[..end]).into_owned());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.got).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}
