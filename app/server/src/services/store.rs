//! Keys and sessions of Consul's clients: scripts that the node's own Redis port runs, and who waits for a key.
//!
//! The port is asked as any client asks it, so what is promised for keys of the store holds for these. In a cluster that
//! is any member's word for all of it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gateway::consul::kv::{self, Reply, Task};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};

use super::Handle;

/// Requests at once; others wait.
const REQUESTS_MAX: usize = 32;
/// How long the store may take, in seconds.
const SECONDS_MAX: u64 = 20;
/// Longest text of a reply, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Largest value of a reply, in bytes.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Parts of a reply, at most.
const PARTS_MAX: usize = 4_000_000;
/// So many bytes of a value count as one part more, which bounds a reply to 64 MiB of values.
const PART_BYTES: usize = 16;
/// How often it is looked for changes while somebody waits for one, in milliseconds.
const LOOK_MILLIS: u64 = 200;
/// How often it is looked whether sessions have ended, while there is nobody, in milliseconds.
const IDLE_MILLIS: u64 = 1_000;

/// How the node's Redis port is entered.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    /// Where it is.
    pub address: SocketAddr,
    /// Name and password.
    pub user: (String, String),
    /// The keyspace of the keys.
    pub keyspace: u64,
}

type Connection = BufReader<TcpStream>;

/// See the module's text.
pub(super) struct Store {
    entrance: Entrance,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// The index of the last change that was seen.
    index: watch::Sender<u64>,
    waiting: AtomicUsize,
    changed: Notify,
}

/// Counts who waits.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    pub fn new(entrance: Entrance) -> Store {
        Store {
            entrance,
            places: Semaphore::new(REQUESTS_MAX),
            idle: Mutex::default(),
            index: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// What the store says to `task`, after its wait.
    pub async fn ask(&self, task: &Task) -> io::Result<Reply> {
        // Before the first look, so that a change behind it is not missed.
        let mut changes = self.index.subscribe();
        changes.mark_unchanged();
        let reply = self.run(task).await?;
        if task.writes {
            self.changed.notify_one();
            return Ok(reply);
        }
        let Some((after, wait_ms)) = task.wait else { return Ok(reply) };
        let end = tokio::time::Instant::now() + Duration::from_millis(wait_ms);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        let mut reply = reply;
        while task.index(&reply) == Some(after) {
            self.changed.notify_one();
            match tokio::time::timeout_at(end, changes.changed()).await {
                Ok(Ok(())) => reply = self.run(task).await?,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        Ok(reply)
    }

    /// Runs the script. What changes something is sent once; what reads may be sent again on another connection.
    async fn run(&self, task: &Task) -> io::Result<Reply> {
        let _place = self.places.acquire().await.map_err(io::Error::other)?;
        let name: &[u8] = if task.writes { b"EVAL" } else { b"EVAL_RO" };
        let mut words: Vec<&[u8]> = vec![name, kv::SCRIPT.as_bytes(), b"1", kv::PLACE.as_bytes()];
        words.extend(task.arguments.iter().map(Vec::as_slice));
        let reused = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let is_reused = reused.is_some();
        let asked = async {
            let mut connection = match reused {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let reply = exchange(&mut connection, &words).await?;
            Ok::<_, io::Error>((connection, reply))
        };
        let limit = Duration::from_secs(SECONDS_MAX);
        let result = tokio::time::timeout(limit, asked).await;
        let (connection, reply) = match result {
            Ok(Ok(done)) => done,
            Ok(Err(_)) if is_reused && !task.writes => {
                let again = async {
                    let mut connection = self.connect().await?;
                    let reply = exchange(&mut connection, &words).await?;
                    Ok::<_, io::Error>((connection, reply))
                };
                tokio::time::timeout(limit, again).await.map_err(io::Error::other)??
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the store did not answer in time"));
            }
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(reply)
    }

    async fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.entrance.address).await?;
        stream.set_nodelay(true)?;
        let mut connection = BufReader::new(stream);
        let (name, password) = &self.entrance.user;
        good(exchange(&mut connection, &[b"AUTH", name.as_bytes(), password.as_bytes()]).await?)?;
        let keyspace = self.entrance.keyspace.to_string();
        good(exchange(&mut connection, &[b"SELECT", keyspace.as_bytes()]).await?)?;
        Ok(connection)
    }

    /// Looks for changes and for sessions that have ended, for ever.
    pub async fn follow(&self, handle: &Handle) {
        let mut ended = BTreeSet::new();
        loop {
            let is_awaited = self.waiting.load(Ordering::Relaxed) > 0;
            let pause = Duration::from_millis(if is_awaited { LOOK_MILLIS } else { IDLE_MILLIS });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
            }
            self.end_of_the_dead(handle, &mut ended).await;
            let Ok(reply) = self.run(&kv::poll()).await else { continue };
            let Some((mut index, is_due)) = kv::polled(&reply) else { continue };
            if is_due && self.run(&kv::sweep()).await.is_ok() {
                let again = self.run(&kv::poll()).await.ok();
                index = again.and_then(|reply| kv::polled(&reply)).map_or(index, |(index, _)| index);
            }
            self.index.send_if_modified(|old| std::mem::replace(old, index) != index);
        }
    }

    /// Ends the sessions of nodes that membership has declared dead, once for each death.
    async fn end_of_the_dead(&self, handle: &Handle, ended: &mut BTreeSet<String>) {
        let view = handle.view();
        let down: BTreeSet<String> =
            view.hosts().filter(|host| host.is_down).map(|host| host.node.name.clone()).collect();
        ended.retain(|name| down.contains(name));
        for name in down {
            // A refusal is no end: it is asked again.
            if !ended.contains(&name)
                && matches!(self.run(&kv::end_sessions_of(&name)).await, Ok(Reply::Int(_)))
            {
                ended.insert(name);
            }
        }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn good(reply: Reply) -> io::Result<()> {
    if let Reply::Error(why) = reply { Err(broken(&why)) } else { Ok(()) }
}

async fn exchange(connection: &mut Connection, words: &[&[u8]]) -> io::Result<Reply> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    connection.get_mut().write_all(&out).await?;
    let mut parts = 0;
    reply(connection, &mut parts).await
}

async fn line(connection: &mut Connection) -> io::Result<String> {
    let mut line = Vec::new();
    connection.take(TEXT_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None => Err(broken("the store's reply breaks off")),
    }
}

/// A reply of RESP2: a list is read with its parts, in lists of lists as deep as the script makes them.
async fn reply(connection: &mut Connection, parts: &mut usize) -> io::Result<Reply> {
    *parts += 1;
    if *parts > PARTS_MAX {
        return Err(broken("the store's reply has too many parts"));
    }
    let text = line(connection).await?;
    let (kind, rest) = text.split_at_checked(1).ok_or_else(|| broken("the store's reply is empty"))?;
    let number = || rest.parse::<i64>().map_err(|_| broken("the store's reply has no number"));
    Ok(match kind {
        "+" => Reply::Bytes(rest.as_bytes().to_vec()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Int(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) if length > VALUE_BYTES_MAX => return Err(broken("the store's value is too large")),
            Ok(length) => {
                *parts += length / PART_BYTES;
                if *parts > PARTS_MAX {
                    return Err(broken("the store's reply is too large"));
                }
                let mut value = vec![0; length + 2];
                connection.read_exact(&mut value).await?;
                value.truncate(length);
                Reply::Bytes(value)
            }
        },
        "*" => {
            let count = usize::try_from(number()?).unwrap_or(0);
            let mut list = Vec::new();
            for _ in 0..count {
                list.push(Box::pin(reply(connection, parts)).await?);
            }
            Reply::List(list)
        }
        _ => return Err(broken("the store's reply is not RESP2")),
    })
}
