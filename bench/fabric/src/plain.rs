//! Plain TCP with the link's frames and batches: what the link would cost without TLS and without knowing anybody.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use fabric::link::frame::{Decoder, Kind, encode};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::pace::Pace;
use crate::{MESSAGE_BYTES, SCRATCH_BYTES, announce};

const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// A socket with what a batch needs.
struct Plain {
    stream: TcpStream,
    decoder: Decoder,
    scratch: Box<[u8]>,
    out: Vec<u8>,
}

impl Plain {
    fn new(stream: TcpStream) -> Result<Plain> {
        stream.set_nodelay(true)?;
        let scratch = vec![0; SCRATCH_BYTES].into_boxed_slice();
        Ok(Plain { stream, decoder: Decoder::new(FRAME_BYTES_MAX), scratch, out: Vec::new() })
    }

    /// Reads what there is. False at the end.
    fn read(&mut self, mut take: impl FnMut(&[u8], &mut Vec<u8>)) -> Result<bool> {
        loop {
            let n = match self.stream.read(&mut self.scratch) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            let mut input = &self.scratch[..n];
            while let Some(frame) = self.decoder.next(&mut input)? {
                take(frame.payload, &mut self.out);
            }
            if n < self.scratch.len() {
                return Ok(true);
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub fn serve() -> Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    announce(listener.local_addr()?.port());
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut client: Option<Plain> = None;
    loop {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            if event.token() == Token(0) {
                let Ok((mut stream, _)) = listener.accept() else { continue };
                poll.registry().register(&mut stream, Token(1), Interest::READABLE | Interest::WRITABLE)?;
                client = Some(Plain::new(stream)?);
            } else if let Some(own) = &mut client
                && !own.read(|payload, out| encode(Kind::Data, payload, out)).unwrap_or(false)
            {
                client = None;
            }
        }
        if let Some(own) = &mut client {
            own.flush()?;
        }
    }
}

pub fn drive(port: u16, mut pace: Pace) -> Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(1), Interest::READABLE | Interest::WRITABLE)?;
    let mut server = Plain::new(stream)?;
    let message = [7; MESSAGE_BYTES];
    while !pace.is_done() {
        for _ in 0..pace.take() {
            encode(Kind::Data, &message, &mut server.out);
        }
        server.flush()?;
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        let more = server.read(|payload, _| {
            assert_eq!(payload, message);
            pace.answered();
        })?;
        if !more {
            bail!("the server went away");
        }
    }
    pace.report();
    Ok(())
}
