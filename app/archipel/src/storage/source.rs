//! Reading a whole server with ordinary commands: SCAN, TYPE, PTTL and reads by type. No DUMP, no snapshot:
//! what changes meanwhile is read as it was before or after, and a key that is there all the time is read.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use super::client::{Client, Reply};
use super::piece::{Kind, Piece};

/// Keys asked for in one step of SCAN.
const KEYS: &[u8] = b"256";
/// Elements of a collection in one piece, about.
const ELEMENTS: usize = 512;
/// A key whose type changes while it is read is begun anew this often.
const TRIES_MAX: usize = 5;

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Keys handed on.
    pub keys: u64,
    /// Keys of a type that is not offered.
    pub left_out: u64,
}

/// The keyspaces of a server that have keys, and how many.
pub fn keyspaces(client: &mut Client) -> Result<Vec<(u16, u64)>> {
    let Reply::Bulk(text) = client.call(&[b"INFO", b"keyspace"])? else {
        bail!("INFO is not answered in text")
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let one = |line: &str| {
        let (name, rest) = line.trim().strip_prefix("db")?.split_once(":keys=")?;
        Some((name.parse().ok()?, rest.split(',').next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(one).collect())
}

/// Hands every key of keyspace `db` that matches `pattern` to `take`, in pieces.
pub fn read(
    client: &mut Client,
    db: u16,
    pattern: Option<&[u8]>,
    take: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<Met> {
    client.call(&[b"SELECT", db.to_string().as_bytes()])?;
    let mut met = Met::default();
    let mut cursor = b"0".to_vec();
    loop {
        let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor, b"COUNT", KEYS];
        words.extend(pattern.iter().flat_map(|pattern| [b"MATCH".as_slice(), pattern]));
        let (next, keys) = page(client.call(&words)?)?;
        batch(client, db, keys, &mut met, take)?;
        cursor = next;
        if cursor == b"0" {
            return Ok(met);
        }
    }
}

/// Reads some keys: types and expiries of all in one round, strings in a second one.
fn batch(
    client: &mut Client,
    db: u16,
    keys: Vec<Vec<u8>>,
    met: &mut Met,
    take: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    for key in &keys {
        client.push(&[b"TYPE", key]);
        client.push(&[b"PTTL", key]);
    }
    let mut headers = Vec::with_capacity(keys.len());
    for key in keys {
        let header = header(client, db, key)?;
        headers.push(header);
    }
    let strings = |header: &&Header| matches!(header.kind, Found::Known(Kind::String));
    for header in headers.iter().filter(strings) {
        client.push(&[b"GET", &header.key]);
    }
    let mut again = Vec::new();
    for header in headers {
        match header.kind {
            Found::Gone => {}
            Found::Other => met.left_out += 1,
            Found::Known(Kind::String) => match client.next_reply()? {
                Reply::Bulk(value) => {
                    met.keys += 1;
                    take(header.piece(Kind::String, 0, vec![value]))?;
                }
                Reply::Error(text) if text.starts_with("WRONGTYPE") => again.push(header.key),
                Reply::Nil => {}
                other => bail!("GET was answered with {other:?}"),
            },
            Found::Known(_) => again.push(header.key),
        }
    }
    for key in again {
        whole(client, db, key, met, take)?;
    }
    Ok(())
}

enum Found {
    Gone,
    Other,
    Known(Kind),
}

struct Header {
    db: u16,
    key: Vec<u8>,
    kind: Found,
    expires_at_ms: Option<u64>,
}

impl Header {
    fn piece(&self, kind: Kind, part: u64, elements: Vec<Vec<u8>>) -> Piece {
        let (db, key, expires_at_ms) = (self.db, self.key.clone(), self.expires_at_ms);
        Piece { db, key, kind, part, expires_at_ms, elements }
    }
}

/// Takes the answers to TYPE and PTTL.
fn header(client: &mut Client, db: u16, key: Vec<u8>) -> Result<Header> {
    let kind = match client.next()? {
        Reply::Simple(word) if word == "none" => Found::Gone,
        Reply::Simple(word) => Kind::from_word(&word).map_or(Found::Other, Found::Known),
        other => bail!("TYPE was answered with {other:?}"),
    };
    let expires_at_ms = match client.next()? {
        Reply::Int(left) => u64::try_from(left).ok().map(|left| unix_millis().saturating_add(left)),
        other => bail!("PTTL was answered with {other:?}"),
    };
    Ok(Header { db, key, kind, expires_at_ms })
}

/// Hands one key to `take`, in pieces; false if it is not there or of a type that is not offered.
pub fn read_key(
    client: &mut Client,
    db: u16,
    key: &[u8],
    take: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<bool> {
    let mut met = Met::default();
    whole(client, db, key.to_vec(), &mut met, take)?;
    Ok(met.keys > 0)
}

/// Reads one key of any type.
fn whole(
    client: &mut Client,
    db: u16,
    key: Vec<u8>,
    met: &mut Met,
    take: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let mut key = key;
    for _ in 0..TRIES_MAX {
        client.push(&[b"TYPE", &key]);
        client.push(&[b"PTTL", &key]);
        let header = header(client, db, key)?;
        let Found::Known(kind) = header.kind else {
            met.left_out += u64::from(matches!(header.kind, Found::Other));
            return Ok(());
        };
        if collection(client, &header, kind, take)? {
            met.keys += 1;
            return Ok(());
        }
        key = header.key;
    }
    bail!("the key {:?} changes its type while it is read", String::from_utf8_lossy(&key))
}

/// Reads all elements of `header`'s key; false if it has another type meanwhile.
fn collection(
    client: &mut Client,
    header: &Header,
    kind: Kind,
    take: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<bool> {
    let key = header.key.as_slice();
    let count = ELEMENTS.to_string();
    let (mut cursor, mut part) = (b"0".to_vec(), 0);
    loop {
        let first = (part as usize * ELEMENTS).to_string();
        let last = (part as usize * ELEMENTS + ELEMENTS - 1).to_string();
        let scan = |word: &'static [u8]| vec![word, key, cursor.as_slice(), b"COUNT", count.as_bytes()];
        let words = match kind {
            Kind::String => vec![b"GET".as_slice(), key],
            Kind::List => vec![b"LRANGE", key, first.as_bytes(), last.as_bytes()],
            Kind::Set => scan(b"SSCAN"),
            Kind::Hash => scan(b"HSCAN"),
            Kind::Zset => scan(b"ZSCAN"),
        };
        client.push(&words);
        let (next, elements) = match client.next_reply()? {
            Reply::Error(text) if text.starts_with("WRONGTYPE") => return Ok(false),
            Reply::Error(text) => bail!("{} was answered: {text}", String::from_utf8_lossy(words[0])),
            Reply::Nil => (b"0".to_vec(), Vec::new()),
            Reply::Bulk(value) => (b"0".to_vec(), vec![value]),
            reply if kind == Kind::List => {
                let elements = bulks(reply)?;
                let next = if elements.len() < ELEMENTS { b"0".to_vec() } else { b"more".to_vec() };
                (next, elements)
            }
            reply => page(reply)?,
        };
        cursor = next;
        if !elements.is_empty() {
            take(header.piece(kind, part, elements))?;
            part += 1;
        }
        if cursor == b"0" {
            return Ok(true);
        }
    }
}

/// A cursor and what came with it.
pub fn page(reply: Reply) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let Reply::Array(halves) = reply else { bail!("a SCAN was not answered with an array") };
    match <[Reply; 2]>::try_from(halves) {
        Ok([Reply::Bulk(cursor), items]) => Ok((cursor, bulks(items)?)),
        Ok(_) | Err(_) => bail!("a SCAN was not answered with a cursor and elements"),
    }
}

fn bulks(reply: Reply) -> Result<Vec<Vec<u8>>> {
    let Reply::Array(items) = reply else { bail!("an array was expected") };
    items
        .into_iter()
        .map(|item| match item {
            Reply::Bulk(bytes) => Ok(bytes),
            other => bail!("byte strings were expected, not {other:?}"),
        })
        .collect()
}

/// Milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
