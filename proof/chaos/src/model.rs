//! What a connection's keys must hold: its commands, applied by the few rules that they need.
//!
//! Each key belongs to one connection, and a connection's commands run in order. So after a crash its keys
//! must be as after some prefix of what it sent. Deadlines are windows, because only the node knows when in
//! between sending and answering a command ran.

use std::collections::{BTreeMap, BTreeSet};

use crate::resp::{Reply, brief};

/// Milliseconds since the run began.
pub type Millis = u64;

/// Client and node read different clocks, and the node counts whole milliseconds.
const CLOCK_SLACK_MS: Millis = 5;

/// The script of [`Op::Script`]: two keys change together.
const SCRIPT: &str = "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) \
                      redis.call('RPUSH', KEYS[2], ARGV[2]) return n";

/// A span in which something happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Not before.
    pub from: Millis,
    /// Not after.
    pub to: Millis,
}

impl Window {
    fn later(self, by: Millis) -> Window {
        Window { from: self.from + by, to: self.to + by }
    }
}

/// A key's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A string, or a number in digits.
    Str(Vec<u8>),
    /// A hash.
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// A list.
    List(Vec<Vec<u8>>),
    /// A set.
    Set(BTreeSet<Vec<u8>>),
    /// A sorted set; scores are whole.
    Sorted(BTreeMap<Vec<u8>, i64>),
}

impl Value {
    fn is_empty(&self) -> bool {
        match self {
            Value::Str(_) => false,
            Value::Hash(map) => map.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::Sorted(map) => map.is_empty(),
        }
    }

    /// The value in a message.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Value::Str(bytes) => brief(bytes),
            Value::Hash(map) => format!("hash of {}, first {}", map.len(), first(map.keys())),
            Value::List(list) => format!("list of {}, last {}", list.len(), first(list.last())),
            Value::Set(set) => format!("set of {}, first {}", set.len(), first(set)),
            Value::Sorted(map) => format!("sorted set of {}, first {}", map.len(), first(map.keys())),
        }
    }
}

fn first<'a>(items: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    items.into_iter().next().map_or_else(|| "none".into(), |item| brief(item))
}

/// A value and when it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// What the key holds.
    pub value: Value,
    /// When it expires.
    pub expiry: Option<Window>,
}

impl Object {
    fn may_be_gone(&self, ran: Window) -> bool {
        self.expiry.is_some_and(|at| at.from <= ran.to + CLOCK_SLACK_MS)
    }
}

/// A key as it was read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// What it holds; `None` if it is not there.
    pub value: Option<Value>,
    /// PTTL's reply.
    pub pttl: i64,
    /// When it was read.
    pub read: Window,
}

/// Which end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// A command, or some that run as one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Op {
    /// SET, with PX if `ttl` is there.
    Set { key: Vec<u8>, value: Vec<u8>, ttl: Option<Millis> },
    /// MSET
    SetMany { pairs: Vec<(Vec<u8>, Vec<u8>)> },
    /// APPEND
    Append { key: Vec<u8>, value: Vec<u8> },
    /// INCRBY
    Add { key: Vec<u8>, by: i64 },
    /// DEL
    Delete { keys: Vec<Vec<u8>> },
    /// GETDEL
    Take { key: Vec<u8> },
    /// HSET
    HashSet { key: Vec<u8>, field: Vec<u8>, value: Vec<u8> },
    /// HDEL
    HashDelete { key: Vec<u8>, field: Vec<u8> },
    /// LPUSH or RPUSH
    Push { key: Vec<u8>, side: Side, value: Vec<u8> },
    /// LPOP or RPOP
    Pop { key: Vec<u8>, side: Side },
    /// LTRIM to the last `keep`
    Trim { key: Vec<u8>, keep: usize },
    /// SADD
    SetAdd { key: Vec<u8>, member: Vec<u8> },
    /// SREM
    SetRemove { key: Vec<u8>, member: Vec<u8> },
    /// ZADD
    SortedAdd { key: Vec<u8>, member: Vec<u8>, score: i64 },
    /// ZINCRBY
    SortedIncr { key: Vec<u8>, member: Vec<u8>, by: i64 },
    /// ZREM
    SortedRemove { key: Vec<u8>, member: Vec<u8> },
    /// RENAME; the generator knows no state, so a missing source is an error that changes nothing.
    Rename { from: Vec<u8>, to: Vec<u8> },
    /// COPY with REPLACE
    Copy { from: Vec<u8>, to: Vec<u8> },
    /// PEXPIRE
    Expire { key: Vec<u8>, ttl: Millis },
    /// PERSIST
    Persist { key: Vec<u8> },
    /// EVAL of a script that adds to a counter and appends to a list
    Script { counter: Vec<u8>, list: Vec<u8>, by: i64, value: Vec<u8> },
    /// MULTI … EXEC
    Transaction { ops: Vec<Op> },
    /// FLUSHDB, by a connection that has the database for itself
    Flush,
    /// The command that reads the whole key
    Read { key: Vec<u8> },
}

/// What a reply must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// This.
    Exactly(Reply),
    /// One of these: a deadline passed about then.
    OneOf(Vec<Reply>),
    /// An error that begins so.
    Refusal(&'static str),
    /// This value of `key`, or perhaps none.
    Value {
        /// The key: its name says which type it has.
        key: Vec<u8>,
        /// The value.
        value: Option<Value>,
        /// Whether it may just as well be gone.
        or_gone: bool,
    },
    /// One for each command of a transaction.
    All(Vec<Expected>),
}

impl Expected {
    /// Whether `reply` is as expected.
    #[must_use]
    pub fn admits(&self, reply: &Reply) -> bool {
        match self {
            Expected::Exactly(expected) => expected == reply,
            Expected::OneOf(several) => several.contains(reply),
            Expected::Refusal(begin) => matches!(reply, Reply::Error(text) if text.starts_with(begin)),
            Expected::Value { key, value, or_gone } => match decode(key, reply) {
                Ok(seen) => seen == *value || (*or_gone && seen.is_none()),
                Err(()) => false,
            },
            Expected::All(all) => {
                let Reply::Array(replies) = reply else { return false };
                all.len() == replies.len() && all.iter().zip(replies).all(|(one, reply)| one.admits(reply))
            }
        }
    }

    /// The expectation in a message.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Expected::Exactly(reply) => reply.brief(),
            Expected::Value { value, .. } => value.as_ref().map_or_else(|| "null".into(), Value::brief),
            other => format!("{other:.200?}"),
        }
    }
}

/// The type that a key's name says: the letter after the first colon.
fn kind(key: &[u8]) -> u8 {
    let colon = key.iter().position(|&byte| byte == b':');
    colon.and_then(|at| key.get(at + 1)).copied().unwrap_or(b's')
}

/// The command that reads all of `key`.
#[must_use]
pub fn read_command(key: &[u8]) -> Vec<Vec<u8>> {
    let words: (&str, &[&str]) = match kind(key) {
        b'h' => ("HGETALL", &[]),
        b'l' => ("LRANGE", &["0", "-1"]),
        b't' => ("SMEMBERS", &[]),
        b'z' => ("ZRANGE", &["0", "-1", "WITHSCORES"]),
        _ => ("GET", &[]),
    };
    let mut args = vec![words.0.as_bytes().to_vec(), key.to_vec()];
    args.extend(words.1.iter().map(|word| word.as_bytes().to_vec()));
    args
}

/// The value in the reply to [`read_command`]; an error if it is not one.
#[expect(clippy::result_unit_err, reason = "the caller shows the reply itself")]
pub fn decode(key: &[u8], reply: &Reply) -> Result<Option<Value>, ()> {
    let items = match reply {
        Reply::Bulk(bytes) if matches!(kind(key), b's' | b'n' | b'x') => {
            return Ok(Some(Value::Str(bytes.clone())));
        }
        Reply::Null => return Ok(None),
        Reply::Array(items) => items,
        Reply::Bulk(_) | Reply::Simple(_) | Reply::Error(_) | Reply::Int(_) => return Err(()),
    };
    let bulk = |item: &Reply| if let Reply::Bulk(bytes) = item { Ok(bytes.clone()) } else { Err(()) };
    let flat = items.iter().map(bulk).collect::<Result<Vec<_>, ()>>()?;
    if flat.is_empty() {
        return Ok(None);
    }
    let pairs = || flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    let whole = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or(());
    let value = match kind(key) {
        b'h' => Value::Hash(pairs().collect()),
        b'l' => Value::List(flat),
        b't' => Value::Set(flat.into_iter().collect()),
        b'z' => Value::Sorted(pairs().map(|(m, s)| Ok((m, whole(&s)?))).collect::<Result<_, ()>>()?),
        _ => return Err(()),
    };
    // A member that comes twice is not a reply of a set, a hash or a sorted set.
    let len = match &value {
        Value::Hash(map) => map.len() * 2,
        Value::Sorted(map) => map.len() * 2,
        Value::Set(set) => set.len(),
        Value::List(_) | Value::Str(_) => items.len(),
    };
    if len == items.len() { Ok(Some(value)) } else { Err(()) }
}

impl Op {
    /// How it goes over the wire: one command, or several for a transaction.
    #[must_use]
    pub fn commands(&self) -> Vec<Vec<Vec<u8>>> {
        if let Op::Transaction { ops } = self {
            let mut all = vec![vec![b"MULTI".to_vec()]];
            all.extend(ops.iter().flat_map(Op::commands));
            all.push(vec![b"EXEC".to_vec()]);
            return all;
        }
        vec![self.command()]
    }

    /// The keys that it may change; `None` for all.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<&[u8]>> {
        let keys: Vec<&[u8]> = match self {
            Op::Flush => return None,
            Op::Transaction { ops } => {
                return ops.iter().map(Op::keys).collect::<Option<Vec<_>>>().map(|keys| keys.concat());
            }
            Op::SetMany { pairs } => pairs.iter().map(|(key, _)| key.as_slice()).collect(),
            Op::Delete { keys } => keys.iter().map(Vec::as_slice).collect(),
            Op::Rename { from, to } | Op::Copy { from, to } => vec![from, to],
            Op::Script { counter, list, .. } => vec![counter, list],
            Op::Set { key, .. }
            | Op::Append { key, .. }
            | Op::Add { key, .. }
            | Op::Take { key }
            | Op::HashSet { key, .. }
            | Op::HashDelete { key, .. }
            | Op::Push { key, .. }
            | Op::Pop { key, .. }
            | Op::Trim { key, .. }
            | Op::SetAdd { key, .. }
            | Op::SetRemove { key, .. }
            | Op::SortedAdd { key, .. }
            | Op::SortedIncr { key, .. }
            | Op::SortedRemove { key, .. }
            | Op::Expire { key, .. }
            | Op::Persist { key }
            | Op::Read { key } => vec![key],
        };
        Some(keys)
    }

    fn command(&self) -> Vec<Vec<u8>> {
        let number = |n: i64| n.to_string().into_bytes();
        let millis = |n: Millis| n.to_string().into_bytes();
        let word = |name: &str, rest: &[&[u8]]| {
            let mut args = vec![name.as_bytes().to_vec()];
            args.extend(rest.iter().map(|arg| arg.to_vec()));
            args
        };
        match self {
            Op::Set { key, value, ttl: None } => word("SET", &[key, value]),
            Op::Set { key, value, ttl: Some(ttl) } => word("SET", &[key, value, b"PX", &millis(*ttl)]),
            Op::SetMany { pairs } => {
                let flat: Vec<&[u8]> = pairs.iter().flat_map(|(k, v)| [k.as_slice(), v.as_slice()]).collect();
                word("MSET", &flat)
            }
            Op::Append { key, value } => word("APPEND", &[key, value]),
            Op::Add { key, by } => word("INCRBY", &[key, &number(*by)]),
            Op::Delete { keys } => word("DEL", &keys.iter().map(Vec::as_slice).collect::<Vec<_>>()),
            Op::Take { key } => word("GETDEL", &[key]),
            Op::HashSet { key, field, value } => word("HSET", &[key, field, value]),
            Op::HashDelete { key, field } => word("HDEL", &[key, field]),
            Op::Push { key, side: Side::Left, value } => word("LPUSH", &[key, value]),
            Op::Push { key, side: Side::Right, value } => word("RPUSH", &[key, value]),
            Op::Pop { key, side: Side::Left } => word("LPOP", &[key]),
            Op::Pop { key, side: Side::Right } => word("RPOP", &[key]),
            Op::Trim { key, keep } => word("LTRIM", &[key, format!("-{keep}").as_bytes(), b"-1"]),
            Op::SetAdd { key, member } => word("SADD", &[key, member]),
            Op::SetRemove { key, member } => word("SREM", &[key, member]),
            Op::SortedAdd { key, member, score } => word("ZADD", &[key, &number(*score), member]),
            Op::SortedIncr { key, member, by } => word("ZINCRBY", &[key, &number(*by), member]),
            Op::SortedRemove { key, member } => word("ZREM", &[key, member]),
            Op::Rename { from, to } => word("RENAME", &[from, to]),
            Op::Copy { from, to } => word("COPY", &[from, to, b"REPLACE"]),
            Op::Expire { key, ttl } => word("PEXPIRE", &[key, &millis(*ttl)]),
            Op::Persist { key } => word("PERSIST", &[key]),
            Op::Script { counter, list, by, value } => {
                word("EVAL", &[SCRIPT.as_bytes(), b"2", counter, list, &number(*by), value])
            }
            Op::Flush => word("FLUSHDB", &[]),
            Op::Read { key } => read_command(key),
            Op::Transaction { .. } => unreachable!("a transaction is several commands, and is not nested"),
        }
    }
}

/// What a connection's keys hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State(pub BTreeMap<Vec<u8>, Object>);

impl State {
    /// Whether `seen` is what `key` must be.
    #[must_use]
    pub fn admits(&self, key: &[u8], seen: &Seen) -> bool {
        match (self.0.get(key), &seen.value) {
            (None, value) => value.is_none(),
            (Some(Object { value, expiry: None }), Some(found)) => value == found && seen.pttl == -1,
            (Some(Object { expiry: None, .. }), None) => false,
            (Some(Object { expiry: Some(at), .. }), None) => seen.read.to + CLOCK_SLACK_MS >= at.from,
            (Some(Object { value, expiry: Some(at) }), Some(found)) => {
                let left = i64::try_from(at.to + CLOCK_SLACK_MS).unwrap_or(i64::MAX)
                    - i64::try_from(seen.read.from).unwrap_or(i64::MAX);
                // -2: it went between the read and the PTTL behind it.
                let gone = seen.pttl == -2 && seen.read.to + CLOCK_SLACK_MS >= at.from;
                value == found && left >= 0 && (gone || (0..=left).contains(&seen.pttl))
            }
        }
    }

    /// Runs `op`, which ran at the node somewhere in `ran`; what its reply must be.
    pub fn apply(&mut self, op: &Op, ran: Window) -> Expected {
        self.forget_expired(ran);
        match op {
            Op::Set { key, value, ttl } => {
                let expiry = ttl.map(|ttl| ran.later(ttl));
                self.0.insert(key.clone(), Object { value: Value::Str(value.clone()), expiry });
                Expected::Exactly(Reply::ok())
            }
            Op::SetMany { pairs } => {
                for (key, value) in pairs {
                    let object = Object { value: Value::Str(value.clone()), expiry: None };
                    self.0.insert(key.clone(), object);
                }
                Expected::Exactly(Reply::ok())
            }
            Op::Append { key, value } => {
                let Value::Str(bytes) = self.entry(key, || Value::Str(Vec::new())) else { unreachable!() };
                bytes.extend_from_slice(value);
                int(bytes.len())
            }
            Op::Add { key, by } => Expected::Exactly(Reply::Int(self.add(key, *by))),
            Op::Delete { keys } => {
                let sure = keys.iter().filter(|key| self.0.get(*key).is_some_and(|o| !o.may_be_gone(ran)));
                let low = sure.count();
                let high = keys.iter().filter(|key| self.0.remove(*key).is_some()).count();
                Expected::OneOf((low..=high).map(|n| Reply::Int(n as i64)).collect())
            }
            Op::Take { key } => {
                let taken = self.0.remove(key);
                let or_gone = taken.as_ref().is_some_and(|object| object.may_be_gone(ran));
                let value = taken.map(|object| object.value);
                Expected::Value { key: key.clone(), value, or_gone }
            }
            Op::Rename { .. } | Op::Copy { .. } | Op::Expire { .. } | Op::Persist { .. } => {
                self.keys(op, ran)
            }
            Op::Script { counter, list, by, value } => {
                let sum = self.add(counter, *by);
                self.list(list).push(value.clone());
                Expected::Exactly(Reply::Int(sum))
            }
            Op::Transaction { ops } => Expected::All(ops.iter().map(|op| self.apply(op, ran)).collect()),
            Op::Flush => {
                self.0.clear();
                Expected::Exactly(Reply::ok())
            }
            Op::Read { key } => {
                let object = self.0.get(key);
                let or_gone = object.is_some_and(|object| object.may_be_gone(ran));
                Expected::Value { key: key.clone(), value: object.map(|o| o.value.clone()), or_gone }
            }
            Op::HashSet { .. }
            | Op::HashDelete { .. }
            | Op::Push { .. }
            | Op::Pop { .. }
            | Op::Trim { .. }
            | Op::SetAdd { .. }
            | Op::SetRemove { .. }
            | Op::SortedAdd { .. }
            | Op::SortedIncr { .. }
            | Op::SortedRemove { .. } => self.collect(op),
        }
    }

    /// The commands on keys of any type.
    fn keys(&mut self, op: &Op, ran: Window) -> Expected {
        match op {
            Op::Rename { from, to } => match self.0.remove(from) {
                Some(object) => {
                    self.0.insert(to.clone(), object);
                    Expected::Exactly(Reply::ok())
                }
                None => Expected::Refusal("ERR no such key"),
            },
            Op::Copy { from, to } => {
                let object = self.0.get(from).cloned();
                let copied = object.map(|object| self.0.insert(to.clone(), object)).is_some();
                int(copied.into())
            }
            Op::Expire { key, ttl } => {
                let object = self.0.get_mut(key);
                int(object.map(|object| object.expiry = Some(ran.later(*ttl))).is_some().into())
            }
            Op::Persist { key } => {
                let had = self.0.get_mut(key).and_then(|object| object.expiry.take());
                int(had.is_some().into())
            }
            other => unreachable!("not a command on keys: {other:?}"),
        }
    }

    /// The commands on collections.
    fn collect(&mut self, op: &Op) -> Expected {
        match op {
            Op::HashSet { key, field, value } => {
                let new = self.hash(key).insert(field.clone(), value.clone()).is_none();
                int(new.into())
            }
            Op::HashDelete { key, field } => {
                let had = self.hash(key).remove(field).is_some();
                self.drop_empty(key);
                int(had.into())
            }
            Op::Push { key, side, value } => {
                let list = self.list(key);
                let at = if *side == Side::Left { 0 } else { list.len() };
                list.insert(at, value.clone());
                int(list.len())
            }
            Op::Pop { key, side } => {
                let list = self.list(key);
                let value = match side {
                    Side::Left if !list.is_empty() => Some(list.remove(0)),
                    Side::Left => None,
                    Side::Right => list.pop(),
                };
                self.drop_empty(key);
                Expected::Exactly(value.map_or(Reply::Null, Reply::Bulk))
            }
            Op::Trim { key, keep } => {
                let list = self.list(key);
                let cut = list.len().saturating_sub(*keep);
                list.drain(..cut);
                self.drop_empty(key);
                Expected::Exactly(Reply::ok())
            }
            Op::SetAdd { key, member } => int(self.set(key).insert(member.clone()).into()),
            Op::SetRemove { key, member } => {
                let had = self.set(key).remove(member);
                self.drop_empty(key);
                int(had.into())
            }
            Op::SortedAdd { key, member, score } => {
                int(self.sorted(key).insert(member.clone(), *score).is_none().into())
            }
            Op::SortedIncr { key, member, by } => {
                let score = self.sorted(key).entry(member.clone()).or_default();
                *score += by;
                Expected::Exactly(Reply::Bulk(score.to_string().into_bytes()))
            }
            Op::SortedRemove { key, member } => {
                let had = self.sorted(key).remove(member).is_some();
                self.drop_empty(key);
                int(had.into())
            }
            other => unreachable!("not a command on collections: {other:?}"),
        }
    }

    /// What was gone for certain before `ran`.
    fn forget_expired(&mut self, ran: Window) {
        self.0.retain(|_, object| object.expiry.is_none_or(|at| at.to + CLOCK_SLACK_MS >= ran.from));
    }

    fn entry(&mut self, key: &[u8], empty: impl FnOnce() -> Value) -> &mut Value {
        let new = || Object { value: empty(), expiry: None };
        &mut self.0.entry(key.to_vec()).or_insert_with(new).value
    }

    fn add(&mut self, key: &[u8], by: i64) -> i64 {
        let Value::Str(digits) = self.entry(key, || Value::Str(b"0".to_vec())) else { unreachable!() };
        let text = std::str::from_utf8(digits).expect("a counter holds digits");
        let sum = text.parse::<i64>().expect("a counter holds a number") + by;
        *digits = sum.to_string().into_bytes();
        sum
    }

    fn hash(&mut self, key: &[u8]) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        let Value::Hash(map) = self.entry(key, || Value::Hash(BTreeMap::new())) else { unreachable!() };
        map
    }

    fn list(&mut self, key: &[u8]) -> &mut Vec<Vec<u8>> {
        let Value::List(list) = self.entry(key, || Value::List(Vec::new())) else { unreachable!() };
        list
    }

    fn set(&mut self, key: &[u8]) -> &mut BTreeSet<Vec<u8>> {
        let Value::Set(set) = self.entry(key, || Value::Set(BTreeSet::new())) else { unreachable!() };
        set
    }

    fn sorted(&mut self, key: &[u8]) -> &mut BTreeMap<Vec<u8>, i64> {
        let Value::Sorted(map) = self.entry(key, || Value::Sorted(BTreeMap::new())) else { unreachable!() };
        map
    }

    fn drop_empty(&mut self, key: &[u8]) {
        if self.0.get(key).is_some_and(|object| object.value.is_empty()) {
            self.0.remove(key);
        }
    }
}

fn int(n: usize) -> Expected {
    Expected::Exactly(Reply::Int(n as i64))
}
