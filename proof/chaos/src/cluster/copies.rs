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

fn reads<'a>(names: impl Iterator<Item = &'a Name>) -> io::Result<BTreeMap<Name, Reply>> {
    let mut client = Client::connect(REDIS)?;
    let expect_ok = |reply: Reply| match reply {
        ok if ok == Reply::ok() => Ok(()),
        other => Err(io::Error::other(format!("it answers {}", other.brief()))),
    };
    expect_ok(client.ask(&["READONLY"])?)?;
    let mut found = BTreeMap::new();
    let mut db = 0;
    for name in names {
        if name.0 != db {
            db = name.0;
            expect_ok(client.ask(&["SELECT", &db.to_string()])?)?;
        }
        let reply = match name.1.starts_with('l') {
            true => client.ask(&["LRANGE", &name.1, "0", "-1"])?,
            false => client.ask(&["GET", &name.1])?,
        };
        found.insert(name.clone(), reply);
    }
    Ok(found)
}

/// The first key of which two nodes have different copies.
#[must_use]
pub fn difference(all: &[BTreeMap<Name, Reply>]) -> Option<String> {
    let (first, others) = all.split_first()?;
    for (at, other) in (1..).zip(others) {
        for (name, reply) in first {
            let theirs = other.get(name);
            if theirs != Some(reply) {
                let theirs = theirs.map_or_else(|| "nothing".into(), Reply::brief);
                return Some(format!(
                    "keyspace {}, key {}: node 0 has {}, and node {at} {theirs}",
                    name.0,
                    name.1,
                    reply.brief()
                ));
            }
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
    }
}
