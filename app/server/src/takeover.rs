//! A process takes over from the one that runs on its data directory, and no connection of the proxy is lost: it gets the
//! sockets that the other listens on, so that the kernel keeps who connects meanwhile.
//!
//! Both speak over a local socket of sequenced packets, whose abstract name (`unix(7)`) is made of the data directory's device and
//! inode: no file is left behind, and none is in the way of who copies the directory. Neither speaks with who is not the same
//! user, or the superuser. Each message is JSON; `->` is from the heir to the holder of the directory.
//!
//! | | message |
//! |---|---|
//! | -> | `{"archipel": 1}` |
//! | <- | `{"listener": NAME, "address": ADDRESS}`, with the descriptor, for each socket |
//! | <- | `{"service": NAME}`, for each service that the registry has endpoints of |
//! | <- | `{"end": true}` |
//! | -> | `{"waits": true}`: the holder stops its node and gives the directory back. Its proxy still serves |
//! | -> | `{"serving": true}`: the heir does now, and the holder's proxy ends with the requests that it has |

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use proxy::{Passed, Proxy};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};
use serde_json::{Value, json};
use thiserror::Error;

use crate::proxy::Proxied;

/// The version of the messages.
const VERSION: u64 = 1;
/// The longest message.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Messages of one takeover.
const MESSAGES_MAX: usize = 10_000;
/// How long either waits for a message that the other sends at once.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the heir may take until it serves: it reads the data first.
const SERVING: Duration = Duration::from_secs(600);
/// How long nobody is waited for when there is no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no takeover.
#[derive(Debug, Error)]
pub enum TakeoverError {
    /// The process that has the directory does not answer as it should.
    #[error(
        "the process that runs on {} does not hand over: {source}; stop it, and start without --take-over", dir.display()
    )]
    Holder {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The process that was to take over is gone.
    #[error("the process that was to take over did not serve: {source}; start a node on the data directory")]
    Heir {
        /// The reason.
        source: io::Error,
    },
    /// The socket for those who take over cannot be made.
    #[error("cannot listen for processes that take over from the one on {}: {source}", dir.display())]
    Listen {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// What a process was handed by the one before it.
pub(crate) struct Handed {
    line: Line,
    pub sockets: Vec<Passed>,
    /// Services of which the other knows endpoints from the registry.
    pub found: BTreeSet<String>,
}

impl Handed {
    /// Asks who runs on `dir`; none if nobody does. The other stops its node when this returns.
    pub fn ask(dir: &Path) -> Result<Option<Handed>, TakeoverError> {
        let failed = |source| TakeoverError::Holder { dir: dir.to_owned(), source };
        let Some(line) = Line::open(dir).map_err(failed)? else { return Ok(None) };
        let mut handed = Handed { line, sockets: Vec::new(), found: BTreeSet::new() };
        handed.take().map_err(failed)?;
        Ok(Some(handed))
    }

    fn take(&mut self) -> io::Result<()> {
        self.line.patience(ANSWER)?;
        self.line.send(&json!({"archipel": VERSION}), None)?;
        for _ in 0..MESSAGES_MAX {
            let (message, socket) = self.line.receive()?;
            if message["end"] == true {
                return self.line.send(&json!({"waits": true}), None);
            }
            if let (Some(name), Some(socket)) = (message["listener"].as_str(), socket) {
                let address = message["address"].as_str().and_then(|text| text.parse().ok());
                let address = address.ok_or_else(|| strange(&message))?;
                self.sockets.push(Passed {
                    name: name.to_owned(),
                    address,
                    socket: TcpListener::from(socket),
                });
            } else if let Some(name) = message["service"].as_str() {
                self.found.insert(name.to_owned());
            } else {
                return Err(strange(&message));
            }
        }
        Err(io::Error::other("it does not come to an end"))
    }

    /// Whether `proxy` knows an endpoint of each of its services of which the other did.
    pub fn is_found(&self, proxy: &Proxy) -> bool {
        proxy.found().all(|(name, is_found)| is_found || !self.found.contains(name))
    }

    /// Says that requests are answered here now.
    pub fn serving(&self) -> io::Result<()> {
        self.line.send(&json!({"serving": true}), None)
    }
}

/// Where those who take over ask. Dropped, nobody can any more.
pub(crate) struct Place {
    socket: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    seat: Arc<Mutex<Seat>>,
}

/// Whether somebody takes over.
#[derive(Default)]
enum Seat {
    #[default]
    Free,
    Taken(Heir),
    /// The node stops: who comes now finds nobody there, and waits for the directory.
    Closed,
}

impl Place {
    /// Listens for the process on `dir`, and hands over what `proxied` has. `on_heir` is called when the node is to stop for somebody.
    pub fn open(
        dir: &Path,
        proxied: Proxied,
        on_heir: impl Fn() + Send + 'static,
    ) -> Result<Place, TakeoverError> {
        let failed = |source| TakeoverError::Listen { dir: dir.to_owned(), source };
        let socket = Arc::new(listening(dir).map_err(failed)?);
        let seat = Arc::<Mutex<Seat>>::default();
        let (listens, taken) = (Arc::clone(&socket), Arc::clone(&seat));
        let run = move || await_heir(&listens, &proxied, &taken, &on_heir);
        let thread = std::thread::Builder::new().name("takeover".into()).spawn(run).map_err(failed)?;
        Ok(Place { socket, thread: Some(thread), seat })
    }

    /// Who takes over, if somebody does. Nobody else will.
    pub fn close(&self) -> Option<Heir> {
        match std::mem::replace(&mut *self.seat.lock().unwrap_or_else(PoisonError::into_inner), Seat::Closed)
        {
            Seat::Taken(heir) => Some(heir),
            Seat::Free | Seat::Closed => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = shutdown(&*self.socket, Shutdown::Both) {
            tracing::error!(%error, "the socket for takeovers cannot be closed");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread for takeovers ended badly");
        }
    }
}

/// A process that takes over.
pub(crate) struct Heir(Line);

impl Heir {
    /// Waits until it serves.
    pub fn wait_serving(&self) -> Result<(), TakeoverError> {
        let wait = || {
            self.0.patience(SERVING)?;
            let (message, _) = self.0.receive()?;
            if message["serving"] == true { Ok(()) } else { Err(strange(&message)) }
        };
        wait().map_err(|source| TakeoverError::Heir { source })
    }
}

/// Until one was handed everything, or the socket is closed.
fn await_heir(socket: &OwnedFd, proxied: &Proxied, seat: &Mutex<Seat>, on_heir: &(impl Fn() + Send)) {
    loop {
        let line = match accept_with(socket, SocketFlags::CLOEXEC) {
            Ok(line) => Line(line),
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            // It was shut down.
            Err(_) => return,
        };
        match hand_over(&line, proxied) {
            Ok(()) => {
                let mut seat = seat.lock().unwrap_or_else(PoisonError::into_inner);
                if matches!(*seat, Seat::Closed) {
                    return;
                }
                tracing::info!("another process takes over");
                *seat = Seat::Taken(Heir(line));
                drop(seat);
                return on_heir();
            }
            Err(error) => tracing::warn!(%error, "a process that asked to take over did not; this one stays"),
        }
    }
}

fn hand_over(line: &Line, proxied: &Proxied) -> io::Result<()> {
    line.check_user()?;
    line.patience(ANSWER)?;
    let (hello, _) = line.receive()?;
    if hello["archipel"] != VERSION {
        return Err(strange(&hello));
    }
    let (sockets, found) = match proxied.lock().as_ref() {
        Some(proxy) => {
            let found = proxy.found().filter(|(_, is_found)| *is_found).map(|(name, _)| name.to_owned());
            (proxy.passed()?, found.collect())
        }
        None => (Vec::new(), Vec::new()),
    };
    for Passed { name, address, socket } in sockets {
        line.send(&json!({"listener": name, "address": address}), Some(OwnedFd::from(socket)))?;
    }
    for name in found {
        line.send(&json!({"service": name}), None)?;
    }
    line.send(&json!({"end": true}), None)?;
    let (answer, _) = line.receive()?;
    if answer["waits"] == true { Ok(()) } else { Err(strange(&answer)) }
}

fn strange(message: &Value) -> io::Error {
    io::Error::other(format!("it says {message}, which this version does not know"))
}

/// Under which name the process on `dir` is asked: no two directories of a machine have the same.
fn name(dir: &Path) -> io::Result<SocketAddrUnix> {
    let found = std::fs::metadata(dir)?;
    let name = format!("archipel-takeover-{:x}-{:x}", found.dev(), found.ino());
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

fn packets() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn listening(dir: &Path) -> io::Result<OwnedFd> {
    let socket = packets()?;
    bind(&socket, &name(dir)?)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// A connection between the two.
struct Line(OwnedFd);

impl Line {
    /// To whoever runs on `dir`; none if nobody does.
    fn open(dir: &Path) -> io::Result<Option<Line>> {
        let name = match name(dir) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let socket = packets()?;
        match connect(&socket, &name) {
            Ok(()) => {
                let line = Line(socket);
                line.check_user()?;
                Ok(Some(line))
            }
            Err(Errno::CONNREFUSED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Anybody may take an abstract name, or ask for one.
    fn check_user(&self) -> io::Result<()> {
        let peer = socket_peercred(&self.0)?.uid;
        if peer != rustix::process::geteuid() && !peer.is_root() {
            return Err(io::Error::other("it runs as another user"));
        }
        Ok(())
    }

    fn patience(&self, limit: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(limit))?;
        Ok(set_socket_timeout(&self.0, Timeout::Send, Some(ANSWER))?)
    }

    fn send(&self, message: &Value, socket: Option<OwnedFd>) -> io::Result<()> {
        let text = message.to_string();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("a descriptor does not fit"));
        }
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<(Value, Option<OwnedFd>)> {
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut text)];
        let length = loop {
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rights = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        Ok((serde_json::from_slice(&text[..length])?, rights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_taken_over_from_who_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Handed::ask(&dir.path().join("none")).unwrap().is_none());
        assert!(Handed::ask(dir.path()).unwrap().is_none());
        drop(listening(dir.path()).unwrap());
        assert!(Handed::ask(dir.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn who_says_something_else_takes_nothing_over_and_the_next_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let (stops, stopped) = std::sync::mpsc::channel();
        let place = Place::open(&deep, Proxied::default(), move || stops.send(()).unwrap()).unwrap();
        for message in [json!({"archipel": 2}), json!([]), json!({"waits": true})] {
            let line = Line::open(&deep).unwrap().unwrap();
            line.send(&message, None).unwrap();
            assert!(line.receive().is_err(), "{message} was answered");
        }
        // One that ends when it has everything but its own word.
        let line = Line::open(&deep).unwrap().unwrap();
        line.send(&json!({"archipel": VERSION}), None).unwrap();
        assert_eq!(line.receive().unwrap().0, json!({"end": true}));
        drop(line);
        let handed = Handed::ask(&deep).unwrap().unwrap();
        stopped.recv_timeout(Duration::from_secs(60)).unwrap();
        let heir = place.close().unwrap();
        assert!(place.close().is_none());
        handed.serving().unwrap();
        heir.wait_serving().unwrap();
    }

    #[test]
    fn an_heir_that_ends_is_told_from_one_that_serves() {
        let dir = tempfile::tempdir().unwrap();
        let (stops, stopped) = std::sync::mpsc::channel();
        let place = Place::open(dir.path(), Proxied::default(), move || stops.send(()).unwrap()).unwrap();
        drop(Handed::ask(dir.path()).unwrap().unwrap());
        stopped.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(matches!(place.close().unwrap().wait_serving(), Err(TakeoverError::Heir { .. })));
    }
}
