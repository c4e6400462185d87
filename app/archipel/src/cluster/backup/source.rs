//! A node that is asked for what it has: its partitions, one held and read after the other.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use server::backup::{Group, History, Incoming, Keyspace, Origin, Point, TIME_UNKNOWN, Writer};
use server::kernel::{GroupId, Index, KeyspaceId, Micros, Millis, Term};

use super::party::Absent;
use super::told::name;
use crate::admin::ask_raw;
use crate::moment::now;

/// How long a node may take for a step: it may have to write a large checkpoint.
const STEP_SECONDS_MAX: u64 = 300;
/// How long it may take to say what it has; it gives up on a worker that is busy for two thirds of that.
const BEGIN_SECONDS_MAX: u64 = 30;
/// Why a round that was ended has come to nothing.
pub(super) const ENDED: &str = "the backup was ended: there is none of this round";
/// The header that says where the next lot begins.
pub(super) const NEXT_HEADER: &str = "x-archipel-next";
/// What a node answers to a request that it has done.
const OK: u16 = 200;
/// What a node answers to a request that it does not know.
pub(super) const NOT_FOUND: u16 = 404;

/// What it answers if others stand against it.
pub(super) const CONFLICT: u16 = 409;

/// What it answers when it is about to end, or when its disk does not give what it has.
const UNAVAILABLE: u16 = 503;

/// What a node answers, and where the next part of it begins.
type Page = (Vec<u8>, Option<String>);

/// A node that gives what it has.
#[derive(Clone)]
pub(super) struct Source {
    pub address: SocketAddr,
    pub password: Option<String>,
}

/// What a node says that it has.
pub(super) struct Told {
    pub origin: Origin,
    pub keyspaces: Vec<Keyspace>,
    pub copies: Vec<Copy>,
}

/// A node's copy of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub group: GroupId,
    pub applied: u64,
    pub leads: bool,
}

impl Source {
    /// Asks for a page: its status code, and what it has if it is a good one. Without a whole answer, or if it says that
    /// it has none now, the node is [`Absent`].
    fn said(&self, path: &str, seconds: u64) -> Result<(u16, Result<Page>)> {
        let headers: Vec<(&str, &str)> =
            self.password.iter().map(|password| ("X-Archipel-Password", password.as_str())).collect();
        let said = ask_raw(self.address, path, seconds, &headers).map_err(|error| Absent::new(&error))?;
        let code = said.code();
        let good = said.good(NEXT_HEADER);
        // It was well and ended on the way, or it is about to end or cannot read what it has: another may.
        let breaks_off = |error: anyhow::Error| -> anyhow::Error {
            if matches!(code, OK | UNAVAILABLE) { Absent::new(&error).into() } else { error }
        };
        Ok((code, good.map_err(breaks_off)))
    }

    fn ask(&self, path: &str) -> Result<Page> {
        self.said(path, STEP_SECONDS_MAX)?.1
    }

    fn ask_json(&self, path: &str) -> Result<Value> {
        json(&self.ask(path)?.0)
    }

    /// What it has.
    ///
    /// # Errors
    /// [`Absent`] if it does not answer, or stops; or its own words.
    pub fn begin(&self) -> Result<Told> {
        let (body, _) = self.said("/backup/begin", BEGIN_SECONDS_MAX)?.1?;
        let told = json(&body)?;
        understood(&told).with_context(|| format!("what {} says of itself is not understood", self.address))
    }

    /// Has one partition held, once its checkpoint is at `after`, and keeps it: when it was held.
    pub fn keep(
        &self,
        (copy, after): (Copy, Index),
        writer: &mut Writer,
        ended: &dyn Fn() -> bool,
    ) -> Result<Millis> {
        let group = copy.group;
        let cut = self.ask_json(&format!("/backup/cut?group={}&after={}", group.0, after.0))?;
        let at = now();
        let number = |name: &str| cut[name].as_u64().with_context(|| format!("`{name}` is missing"));
        // A node of the version before gives no ticket.
        let ticket = cut["ticket"].as_u64().unwrap_or_default();
        let held = format!("group={}&generation={}&ticket={ticket}", group.0, number("generation")?);
        let (index, term) = (Index(number("index")?), Term(number("term")?));
        ensure!(index >= after, "the checkpoint is at entry {}, before {}", index.0, after.0);
        let (point, time) = (Point { index, term }, cut["time_us"].as_u64().map_or(TIME_UNKNOWN, Micros));
        let announced = Group {
            group,
            index,
            term,
            leads: copy.leads,
            bytes: number("bytes")?,
            checksum: number("checksum")?,
            chunks: Vec::new(),
            history: Some(History::at((point, time), point)),
        };
        let taken =
            if writer.unchanged(&announced) { Ok(()) } else { self.take(announced, &held, writer, ended) };
        // The node lets it go by itself when it needs the place.
        let _ = self.ask(&format!("/backup/release?{held}"));
        taken.with_context(|| format!("partition {} at {}", name(group), self.address)).map(|()| at)
    }

    fn take(
        &self,
        announced: Group,
        held: &str,
        writer: &mut Writer,
        ended: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut left = announced.bytes;
        let mut incoming = Incoming::new(announced);
        let mut cursor = Some(String::new());
        while let Some(at) = cursor {
            ensure!(!ended(), ENDED);
            let path = format!("/backup/lot?{held}&cursor={at}");
            let (bytes, next) = self.ask(&path)?;
            ensure!(bytes.len() as u64 <= left && !bytes.is_empty(), "the node sends more than it announced");
            left -= bytes.len() as u64;
            writer.push(&mut incoming, &bytes)?;
            cursor = next;
        }
        Ok(writer.end(incoming)?)
    }
}

fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).context("the node's answer is not JSON")
}

/// What a node says of itself.
fn understood(told: &Value) -> Option<Told> {
    let hex = told["origin"].as_str().filter(|hex| hex.len() == 32 && hex.is_ascii())?;
    let id = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
    let origin = Origin { id, is_cluster: told["is_cluster"].as_bool()? };
    let small = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let keyspace = |it: &Value| {
        Some(Keyspace {
            id: KeyspaceId(small(&it[0])?),
            partitions: small(&it[1]).filter(|count| *count > 0)?,
            mark: None,
        })
    };
    let copy = |it: &Value| {
        let group = GroupId(u32::try_from(it[0].as_u64()?).ok()?);
        Some(Copy { group, applied: it[1].as_u64()?, leads: it[2].as_bool()? })
    };
    Some(Told {
        origin,
        keyspaces: told["keyspaces"].as_array()?.iter().map(keyspace).collect::<Option<_>>()?,
        copies: told["copies"].as_array()?.iter().map(copy).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_stops_in_the_middle_of_a_round_is_absent_and_one_that_refuses_is_not() {
        #[rustfmt::skip] // columns
        let table = [
            // what it answers                                                      is it absent
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 14\r\n\r\nthe node stops", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{",                          true),
            ("",                                                                     true),
            ("HTTP/1.1 409 Conflict\r\ncontent-length: 10\r\n\r\nit is busy",            false),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",                      false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{",                           false),
        ];
        for (row, (answer, is_absent)) in table.into_iter().enumerate() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let source = Source { address: listener.local_addr().unwrap(), password: None };
            let node = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                assert!(lines.any(|line| line.is_empty()));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let error = source.ask_json("/backup/cut?group=1&after=0").unwrap_err();
            assert_eq!(error.is::<Absent>(), is_absent, "row {row}: {error:#}");
            node.join().unwrap();
        }
    }

    #[test]
    fn what_a_node_says_is_understood_or_refused() {
        let good = json!({
            "origin": "000102030405060708090a0b0c0d0e0f", "is_cluster": true,
            "keyspaces": [[0, 1], [9, 64]], "copies": [[65536, 7, true]],
        });
        let told = understood(&good).unwrap();
        assert_eq!((told.origin.id[15], told.keyspaces[1].partitions), (15, 64));
        assert_eq!(told.copies[0].group, GroupId::new(KeyspaceId(1), 0));
        type Change = fn(&mut Value);
        let changes: [Change; 5] = [
            |it| it["origin"] = "00".into(),
            |it| it["is_cluster"] = 1.into(),
            |it| it["keyspaces"][0] = json!([70_000, 1]),
            |it| it["keyspaces"][0] = json!([0, 0]),
            |it| it["copies"][0] = json!([-1, 7, true]),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut it = good.clone();
            change(&mut it);
            assert!(understood(&it).is_none(), "row {row}");
        }
    }
}
