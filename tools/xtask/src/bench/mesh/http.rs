//! A small client of HTTP/1.1 on a kept connection, and servers that answer as they are told.

use super::super::load::Chance;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long an answer may take; what waits for a change is told sooner.
const ANSWER_SECONDS_MAX: u64 = 90;
/// The longest body that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Requests that an endpoint works on at once if it is not told otherwise; more wait.
const WORKERS: usize = 4;
/// How long an endpoint that fails takes for it.
const FAILURE: Duration = Duration::from_millis(1);

/// A connection that is kept.
pub struct Http {
    stream: BufReader<TcpStream>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    /// `X-Consul-Index`, if it is there.
    pub index: Option<u64>,
    /// It is the last one on its connection.
    pub closes: bool,
    pub body: Vec<u8>,
}

impl Http {
    pub fn open(port: u16) -> Result<Http> {
        let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(ANSWER_SECONDS_MAX)))?;
        Ok(Http { stream: BufReader::with_capacity(4096, stream) })
    }

    /// One request and its answer.
    pub fn ask(&mut self, method: &str, target: &str, body: &str) -> Result<Answer> {
        self.ask_with(method, target, "", body)
    }

    /// The same with more fields, each with its end of line.
    pub fn ask_with(&mut self, method: &str, target: &str, fields: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n"
        );
        self.stream.get_mut().write_all((head + body).as_bytes())?;
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("no status is in {line:?}"))?;
        let (mut index, mut length, mut closes) = (None, None, false);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse()?),
                "connection" => closes = value.eq_ignore_ascii_case("close"),
                "x-consul-index" => index = Some(value.parse()?),
                _ => {}
            }
        }
        let length: usize = length.context("the answer does not say how long it is")?;
        ensure!(length <= BODY_BYTES_MAX, "the answer has {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, index, closes, body })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

/// Asks once, on a connection of its own.
pub fn once(port: u16, method: &str, target: &str, body: &str) -> Result<Answer> {
    Http::open(port)?.ask(method, target, body)
}

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// 200 after half to one and a half times so long.
    Takes(Duration),
    /// 503 at once, nearly.
    Fails,
}

/// A server that answers as it is told, until it is dropped.
pub struct Endpoint {
    pub port: u16,
    ended: Arc<AtomicBool>,
}

impl Endpoint {
    pub fn start(manner: Manner, seed: u64) -> Result<Endpoint> {
        Endpoint::with_workers(manner, seed, WORKERS)
    }

    /// One that works on so many requests at once.
    pub fn with_workers(manner: Manner, seed: u64, workers: usize) -> Result<Endpoint> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let endpoint = Endpoint { port: listener.local_addr()?.port(), ended: Arc::default() };
        let ended = Arc::clone(&endpoint.ended);
        std::thread::spawn(move || {
            let free = Arc::new((Mutex::new(workers), Condvar::new()));
            for (number, stream) in listener.incoming().enumerate() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), free) = (stream, Arc::clone(&free)) else { continue };
                let chance = Chance::new(seed.wrapping_mul(1 << 20).wrapping_add(number as u64));
                // It ends when the connection does; whoever measures sees what was not answered.
                std::thread::spawn(move || serve(stream, manner, &free, chance));
            }
        });
        Ok(endpoint)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // So that the thread that accepts looks.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: TcpStream,
    manner: Manner,
    free: &(Mutex<usize>, Condvar),
    mut chance: Chance,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0_usize);
        while stream.read_line(&mut line)? > 2 {
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = text.trim().parse()?;
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        std::io::copy(&mut (&mut stream).take(length as u64), &mut std::io::sink())?;
        let (status, time) = match manner {
            Manner::Takes(mean) => ("200 OK", mean.mul_f64(0.5 + chance.unit())),
            Manner::Fails => ("503 Service Unavailable", FAILURE),
        };
        let (count, freed) = free;
        let mut left = count.lock().unwrap_or_else(PoisonError::into_inner);
        while *left == 0 {
            left = freed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        *left -= 1;
        drop(left);
        std::thread::sleep(time);
        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        freed.notify_one();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}
