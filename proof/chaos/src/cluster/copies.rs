//! What the copies of a cluster hold once nothing changes: all the same.

use std::collections::BTreeMap;
use std::io;

use check::client::Name;

use super::Hosts;
use super::member::REDIS;
use crate::campaign::Failure;
use crate::resp::{Client, Reply};

/// What one node's copies say of each key, at once and without asking who leads.
///
/// # Errors
/// The node does not answer.
pub fn read<'a>(
    hosts: &Hosts,
    node: usize,
    names: impl Iterator<Item = &'a Name>,
) -> Result<BTreeMap<Name, Reply>, Failure> {
    hosts.host(node).inside(|| reads(names))?.map_err(Failure::broken(format!("node {node}")))
}

/// All in one pipeline: a node without a copy asks another one, which takes its time.
fn reads<'a>(names: impl Iterator<Item = &'a Name>) -> io::Result<BTreeMap<Name, Reply>> {
    let mut client = Client::connect(REDIS)?;
    client.queue(&["READONLY"]);
    let (mut asked, mut db) = (Vec::new(), 0);
    for name in names {
        if name.0 != db {
            db = name.0;
            client.queue(&["SELECT", &db.to_string()]);
            asked.push(None);
        }
        match name.1.starts_with('l') {
            true => client.queue(&["LRANGE", &name.1, "0", "-1"]),
            false => client.queue(&["GET", &name.1]),
        }
        asked.push(Some(name));
    }
    client.flush()?;
    expect_ok(&client.reply()?)?;
    let mut found = BTreeMap::new();
    for name in asked {
        let reply = client.reply()?;
        match name {
            Some(name) => _ = found.insert(name.clone(), reply),
            None => expect_ok(&reply)?,
        }
    }
    Ok(found)
}

fn expect_ok(reply: &Reply) -> io::Result<()> {
    if *reply == Reply::ok() {
        return Ok(());
    }
    Err(io::Error::other(format!("it answers {}", reply.brief())))
}

/// The first key of which two nodes have different copies, or of which one answers no content.
#[must_use]
pub fn difference(all: &[BTreeMap<Name, Reply>]) -> Option<String> {
    let (first, _) = all.split_first()?;
    for (name, reply) in first {
        for (at, node) in all.iter().enumerate() {
            let theirs = node.get(name);
            if theirs == Some(reply) && !matches!(reply, Reply::Error(_)) {
                continue;
            }
            let theirs = theirs.map_or_else(|| "nothing".into(), Reply::brief);
            let (db, key, reply) = (name.0, &name.1, reply.brief());
            return Some(format!("keyspace {db}, key {key}: node 0 has {reply}, and node {at} {theirs}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_differ_are_named() {
        let of = |value: i64| BTreeMap::from([((0, "n1-0".to_owned()), Reply::Int(value))]);
        assert_eq!(difference(&[of(1), of(1), of(1)]), None);
        let found = difference(&[of(1), of(1), of(2)]).unwrap();
        assert!(found.contains("n1-0") && found.contains("node 2"), "{found}");
        assert!(difference(&[of(1), BTreeMap::new()]).is_some());
        let down = || BTreeMap::from([((0, "n1-0".to_owned()), Reply::Error("CLUSTERDOWN".into()))]);
        assert!(difference(&[down(), down()]).is_some(), "two that say nothing do not agree");
    }
}
