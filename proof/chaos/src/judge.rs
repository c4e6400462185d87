//! Reads everything back and compares: a connection's keys must be as after a prefix of its commands.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::load::{Clock, History, Ledger};
use crate::model::{Millis, Op, Seen, State, Window, decode, read_command};
use crate::resp::{Client, Reply, brief};

/// What `everysec` may lose, in milliseconds.
pub const EVERYSEC_LOSS_MS_MAX: Millis = 1_000;
/// Keys that a report names.
const KEYS_SHOWN: usize = 5;

/// When writing ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The moment.
    pub at: Millis,
    /// How old an acknowledged write may be and be lost all the same; 0 for none.
    pub may_lose_ms: Millis,
}

/// What was found in keeping with what was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Keys that were read.
    pub keys: u64,
    /// Commands of which it was unknown whether they ran.
    pub unknown: u64,
    /// Acknowledged commands that are gone, as they may be in `everysec`.
    pub lost: u64,
    /// The age of the oldest of those at the cut.
    pub lost_ms: Millis,
}

impl Held {
    fn add(&mut self, other: Held) {
        self.keys += other.keys;
        self.unknown += other.unknown;
        self.lost += other.lost;
        self.lost_ms = self.lost_ms.max(other.lost_ms);
    }
}

/// Why a node does not pass.
#[derive(Debug, Error)]
pub enum Fault {
    /// It cannot be asked.
    #[error("the node cannot be asked: {0}")]
    Ended(#[from] io::Error),
    /// It says itself that it cannot tell.
    #[error("a read is refused: {0}")]
    Refused(String),
    /// It serves something else than what was acknowledged.
    #[error("{0}")]
    Wrong(String),
}

/// Compares every connection's keys, and takes what was found as the state to go on from.
///
/// # Errors
/// The first [`Fault`].
pub fn verify(ledgers: &mut [Ledger], node: SocketAddr, clock: Clock, cut: Cut) -> Result<Held, Fault> {
    let mut client = Client::connect(node)?;
    let mut held = Held::default();
    for ledger in ledgers.iter_mut() {
        held.add(one(ledger, &mut client, clock, cut)?);
    }
    let known = |key: &[u8]| {
        ledgers.iter().any(|ledger| key.starts_with(format!("c{}:", ledger.connection).as_bytes()))
    };
    for database in ledgers.iter().map(|ledger| ledger.database).collect::<BTreeSet<_>>() {
        client.ask(&["SELECT".to_owned(), database.to_string()])?;
        if let Some(key) = keys(&mut client, "*")?.into_iter().find(|key| !known(key)) {
            return Err(Fault::Wrong(format!("database {database}: nobody wrote the key {}", brief(&key))));
        }
    }
    Ok(held)
}

fn one(ledger: &mut Ledger, client: &mut Client, clock: Clock, cut: Cut) -> Result<Held, Fault> {
    client.ask(&["SELECT".to_owned(), ledger.database.to_string()])?;
    let in_flight = |flight: &crate::load::Flight| {
        (flight.op.clone(), Window { from: flight.sent, to: cut.at.max(flight.sent) })
    };
    let unknown = ledger.flying.len();
    let History { base, mut ops } = match &ledger.history {
        Some(history) => history.clone(),
        None => History { base: ledger.state.clone(), ..History::default() },
    };
    let acked = ops.len();
    let certain = ops.iter().take_while(|(_, ran)| ran.to + cut.may_lose_ms < cut.at).count();
    let required = if cut.may_lose_ms == 0 { acked } else { certain };
    ops.extend(ledger.flying.iter().map(in_flight));
    let ops: Vec<(Op, Window)> = ops.into();

    let mut names: BTreeSet<Vec<u8>> = keys(client, &format!("c{}:*", ledger.connection))?;
    names.extend(base.0.keys().cloned());
    names.extend(ops.iter().flat_map(|(op, _)| op.keys().unwrap_or_default()).map(<[u8]>::to_vec));
    let seen = read(client, clock, &names)?;
    let (state, at) = prefix(base, &ops, required, &seen).map_err(|what| {
        Fault::Wrong(format!("connection {} (database {}): {what}", ledger.connection, ledger.database))
    })?;
    let lost = acked.saturating_sub(at);
    let lost_ms = if lost == 0 { 0 } else { cut.at.saturating_sub(ops[at].1.to) };
    ledger.history = ledger.history.is_some().then(|| History { base: state.clone(), ..History::default() });
    ledger.state = state;
    ledger.flying.clear();
    Ok(Held { keys: names.len() as u64, unknown: unknown as u64, lost: lost as u64, lost_ms })
}

fn keys(client: &mut Client, pattern: &str) -> Result<BTreeSet<Vec<u8>>, Fault> {
    match client.ask(&["KEYS", pattern])? {
        Reply::Array(items) => Ok(items
            .into_iter()
            .filter_map(|item| if let Reply::Bulk(key) = item { Some(key) } else { None })
            .collect()),
        other => Err(Fault::Refused(other.brief())),
    }
}

fn read(
    client: &mut Client,
    clock: Clock,
    names: &BTreeSet<Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, Seen>, Fault> {
    let from = clock.now();
    for key in names {
        client.queue(&read_command(key));
        client.queue(&[b"PTTL".as_slice(), key]);
    }
    client.flush()?;
    let mut replies = Vec::new();
    for key in names {
        replies.push((key, client.reply()?, client.reply()?));
    }
    let read = Window { from, to: clock.now() };
    let mut all = BTreeMap::new();
    for (key, reply, pttl) in replies {
        if let Reply::Error(text) = &reply
            && text.starts_with("MISCONF")
        {
            return Err(Fault::Refused(text.clone()));
        }
        let (Ok(value), Reply::Int(pttl)) = (decode(key, &reply), &pttl) else {
            let (key, reply, pttl) = (brief(key), reply.brief(), pttl.brief());
            return Err(Fault::Wrong(format!("{key} cannot be read: {reply}, PTTL {pttl}")));
        };
        all.insert(key.clone(), Seen { value, pttl: *pttl, read });
    }
    Ok(all)
}

/// The longest prefix of `ops`, not shorter than `required`, after which everything is as `seen`: the state
/// after it and its length.
fn prefix(
    base: State,
    ops: &[(Op, Window)],
    required: usize,
    seen: &BTreeMap<Vec<u8>, Seen>,
) -> Result<(State, usize), String> {
    let mut state = base;
    let mut wrong: BTreeSet<&[u8]> = BTreeSet::new();
    let check = |state: &State, key: &[u8]| seen.get(key).is_none_or(|seen| state.admits(key, seen));
    let all = |state: &State| seen.keys().filter(|key| !check(state, key)).map(Vec::as_slice).collect();
    wrong.extend::<BTreeSet<&[u8]>>(all(&state));
    let (mut found, mut nearest) = (None, None::<(usize, String)>);
    for at in 0..=ops.len() {
        if at >= required {
            if wrong.is_empty() {
                found = Some((state.clone(), at));
            }
            if nearest.as_ref().is_none_or(|(least, _)| wrong.len() < *least) {
                nearest = Some((wrong.len(), differences(&state, seen, &wrong, at)));
            }
        }
        let Some((op, ran)) = ops.get(at) else { break };
        state.apply(op, *ran);
        match op.keys() {
            None => wrong = all(&state),
            Some(touched) => {
                for (key, _) in touched.iter().filter_map(|key| seen.get_key_value(*key)) {
                    if check(&state, key) {
                        wrong.remove(key.as_slice())
                    } else {
                        wrong.insert(key)
                    };
                }
            }
        }
    }
    found.ok_or_else(|| {
        let (count, text) = nearest.unwrap_or_default();
        format!("{count} keys are wrong after every possible prefix of {} commands, {required} of them acknowledged: {text}", ops.len())
    })
}

fn differences(state: &State, seen: &BTreeMap<Vec<u8>, Seen>, wrong: &BTreeSet<&[u8]>, at: usize) -> String {
    let mut text = format!("nearest after {at}");
    for key in wrong.iter().take(KEYS_SHOWN) {
        let must = state.0.get(*key).map_or_else(
            || "gone".into(),
            |object| format!("{} expiring {:?}", object.value.brief(), object.expiry),
        );
        let is = seen.get(*key).map_or_else(String::new, |seen| {
            let value = seen.value.as_ref().map_or_else(|| "gone".into(), crate::model::Value::brief);
            format!("{value} with PTTL {} read at {:?}", seen.pttl, seen.read)
        });
        text.push_str(&format!("; {} must be {must}, is {is}", brief(key)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    const RAN: Window = Window { from: 10, to: 20 };

    fn set(key: &str, value: &str) -> (Op, Window) {
        (Op::Set { key: key.into(), value: value.into(), ttl: None }, RAN)
    }

    fn delete(key: &str) -> (Op, Window) {
        (Op::Delete { keys: vec![key.into()] }, RAN)
    }

    fn seen(pairs: &[(&str, Option<&str>)]) -> BTreeMap<Vec<u8>, Seen> {
        let read = Window { from: 30, to: 40 };
        let one = |value: Option<&str>| Seen {
            value: value.map(|text| Value::Str(text.into())),
            pttl: if value.is_some() { -1 } else { -2 },
            read,
        };
        pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), one(*value))).collect()
    }

    #[test]
    fn only_a_prefix_with_everything_acknowledged_passes() {
        let ops = [set("s:a", "1"), set("s:b", "2"), delete("s:a"), set("s:b", "3")];
        #[rustfmt::skip] // columns
        let table = [
            // required  a          b          length of the prefix
            (0,          None,      None,      Some(0)),
            (1,          Some("1"), None,      Some(1)),
            (2,          Some("1"), Some("2"), Some(2)),
            (2,          None,      Some("2"), Some(3)),
            (4,          None,      Some("3"), Some(4)),
            (1,          None,      None,      None), // an acknowledged write is lost
            (3,          Some("1"), Some("2"), None), // an acknowledged delete has come back
            (2,          Some("1"), Some("3"), None), // a later write without an earlier one
            (4,          None,      Some("2"), None), // an old value
            (0,          Some("9"), None,      None), // a value nobody wrote
        ];
        for (required, a, b, expected) in table {
            let found = prefix(State::default(), &ops, required, &seen(&[("s:a", a), ("s:b", b)]));
            assert_eq!(found.ok().map(|(_, at)| at), expected, "required={required} a={a:?} b={b:?}");
        }
    }

    #[test]
    fn an_expired_key_neither_goes_early_nor_comes_back() {
        let op = |ttl| [(Op::Set { key: "x".into(), value: "1".into(), ttl: Some(ttl) }, RAN)];
        let is = |value: Option<&str>, pttl| {
            let mut all = seen(&[("x", value)]);
            all.get_mut(b"x".as_slice()).unwrap().pttl = pttl;
            all
        };
        #[rustfmt::skip] // columns
        let table = [
            // ttl   value       pttl  admitted
            (1_000,  Some("1"),  985,  true),
            (1_000,  Some("1"),  -1,   false), // it lost its deadline
            (1_000,  Some("1"),  2000, false),
            (1_000,  None,       -2,   false), // too early
            (1,      None,       -2,   true),
            (1,      Some("1"),  0,    false), // too late
            (20,     None,       -2,   true),  // about then
            (20,     Some("1"),  5,    true),
        ];
        for (ttl, value, pttl, admitted) in table {
            let found = prefix(State::default(), &op(ttl), 1, &is(value, pttl));
            assert_eq!(found.is_ok(), admitted, "ttl={ttl} value={value:?} pttl={pttl}");
        }
    }
}
