//! What simulated clients send: commands over a few keys, most of them recognisable by their arguments.

mod wide;

use std::collections::BTreeMap;

use check::{Call, Join, Part};
use kernel::{GroupId, KeyspaceId, Rng};
use node::Divisions;
use placement::{Partitions, Slot};
use storage::command::generic::{EXEC, EXEC_READ};
use storage::entry::put_command;
use storage::reach::place;
use storage::{Command, Flags, Registry};

pub use wide::Scope;

/// Keys of each type in a keyspace.
const KEYS: u64 = 5;

/// One command on the wire, with what may be answered.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The request's bytes.
    pub bytes: Vec<u8>,
    /// For the judge.
    pub call: Call,
    /// For people.
    pub text: String,
}

/// Draws commands.
pub struct Work {
    registry: Registry,
    divisions: Divisions,
    /// Makes commands recognisable.
    tag: u64,
}

/// How a drawn command looks to others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Read,
    /// A write that no other command equals.
    Unique,
    /// A write that another may equal.
    Plain,
    /// A write that may wait this long (milliseconds, 0 for ever).
    Waits(u64),
}

type Words = Vec<Vec<u8>>;

fn slices(words: &[Vec<u8>]) -> Vec<&[u8]> {
    words.iter().map(Vec::as_slice).collect()
}

/// A read of a watched key.
fn watched(key: &str) -> Words {
    words(&["GET", key])
}

fn words(parts: &[&str]) -> Words {
    parts.iter().map(|part| part.as_bytes().to_vec()).collect()
}

fn wire(words: &Words) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn text(words: &Words) -> String {
    let words: Vec<String> = words.iter().map(|word| check::reply::shown(word)).collect();
    words.join(" ")
}

fn local(parts: &[&str], answer: &'static [u8]) -> Sent {
    let words = words(parts);
    Sent { bytes: wire(&words), text: text(&words), call: Call::Local(answer) }
}

/// What is told whose keys are in several partitions.
const CROSS: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";
/// What is told to a transaction that concerns all of them.
const WHOLE: &[u8] =
    b"-ERR this command concerns all partitions of the database; scripts and transactions run in one\r\n";
const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

impl Work {
    /// Draws for keyspaces that are divided in this way.
    #[must_use]
    pub fn new(divisions: Divisions) -> Work {
        Work { registry: Registry::new(), divisions, tag: 0 }
    }

    fn known(&self, words: &Words) -> &'static Command {
        self.registry.find(&words[0]).expect("only known commands are drawn")
    }

    fn partitions(&self, db: u16) -> Partitions {
        self.divisions.of(KeyspaceId(db))
    }

    /// Where a command runs as a whole; what is told if that is nowhere.
    fn place(&self, db: u16, words: &Words) -> Result<Option<u16>, &'static [u8]> {
        let (command, args) = (self.known(words), slices(&words[1..]));
        match self.partitions(db) {
            Partitions::ONE => Ok(None),
            _ if command.flags.has(Flags::KEYSPACE) => Err(WHOLE),
            partitions => place(command, &args, partitions).map_err(|_| CROSS),
        }
    }

    /// The command that chooses keyspace `db`.
    #[must_use]
    pub fn select(db: u16) -> Sent {
        local(&["SELECT", &db.to_string()], b"+OK\r\n")
    }

    /// A few commands that belong together, in groups that may be sent apart.
    pub fn draw(&mut self, rng: &mut Rng, db: u16) -> Vec<Vec<Sent>> {
        match rng.below(22) {
            0 | 1 => self.transaction(rng, db),
            2 => self.watched(rng, db),
            3 => vec![vec![local(&["PING"], b"+PONG\r\n")]],
            4 => vec![vec![self.sorted(rng, db)]],
            5 => vec![vec![self.large(rng, db)]],
            _ => vec![vec![self.single(rng, db, true)]],
        }
    }

    /// Pushes to every list, so that clients that wait are served.
    pub fn pushes(&mut self, db: u16) -> Vec<Sent> {
        if self.registry.find(b"rpush").is_none() {
            return Vec::new();
        }
        let mut all = Vec::new();
        for key in 0..KEYS {
            let del = words(&["DEL", &format!("l{key}"), &self.token()]);
            all.push(self.sent(db, &del, Shape::Unique));
            let mut push = words(&["RPUSH", &format!("l{key}")]);
            push.extend((0..12).map(|_| self.token().into_bytes()));
            all.push(self.sent(db, &push, Shape::Unique));
        }
        all
    }

    fn token(&mut self) -> String {
        self.tag += 1;
        format!("t{}", self.tag)
    }

    fn group(db: u16, place: Option<u16>) -> GroupId {
        GroupId::new(KeyspaceId(db), place.unwrap_or(0))
    }

    fn encode(&self, words: &Words) -> Vec<u8> {
        let mut encoded = Vec::new();
        put_command(&mut encoded, self.known(words).id, &slices(&words[1..]));
        encoded
    }

    /// A command on several partitions.
    fn divided(&self, db: u16, words: &Words, shape: Shape, answer: &'static [u8]) -> Sent {
        let (command, partitions) = (self.known(words), self.partitions(db));
        let call = if command.flags.has(Flags::KEYSPACE) {
            let (encoded, unique) = (self.encode(words), false);
            let part = |part| Part { group: Self::group(db, Some(part)), encoded: encoded.clone(), unique };
            let join = match (shape, command.name) {
                (Shape::Read, "keys") => Join::Follow,
                (Shape::Read, _) => Join::Sum,
                _ => Join::Same,
            };
            Call::Parts {
                parts: (0..partitions.count()).map(part).collect(),
                writes: shape != Shape::Read,
                join,
            }
        } else if command.flags.has(Flags::DIVISIBLE) {
            self.by_keys(db, words, shape)
        } else {
            Call::Local(answer)
        };
        Sent { bytes: wire(words), text: text(words), call }
    }

    fn by_keys(&self, db: u16, words: &Words, shape: Shape) -> Call {
        let (command, partitions) = (self.known(words), self.partitions(db));
        let step = if command.name == "mset" { 2 } else { 1 };
        let mut shares: BTreeMap<u16, (Vec<&[u8]>, bool)> = BTreeMap::new();
        for unit in words[1..].chunks(step) {
            let share = shares.entry(partitions.of(Slot::of(&unit[0]))).or_default();
            share.0.extend(unit.iter().map(Vec::as_slice));
            // A token makes a part recognisable.
            share.1 |= unit.iter().any(|word| word.starts_with(b"t") && word.len() > 2);
        }
        let numbers: Vec<u16> = shares.keys().copied().collect();
        let of = |unit: &[Vec<u8>]| {
            let place = partitions.of(Slot::of(&unit[0]));
            numbers.binary_search(&place).expect("it has a share")
        };
        let order = words[1..].chunks(step).map(of).collect();
        let parts = shares.into_iter().map(|(place, (args, token))| {
            let mut encoded = Vec::new();
            put_command(&mut encoded, command.id, &args);
            Part { group: Self::group(db, Some(place)), encoded, unique: token && shape == Shape::Unique }
        });
        let join = match command.name {
            "mset" => Join::Same,
            "mget" => Join::Keys(order),
            _ => Join::Sum,
        };
        Call::Parts { parts: parts.collect(), writes: shape != Shape::Read, join }
    }

    fn sent(&self, db: u16, words: &Words, shape: Shape) -> Sent {
        let place = match self.place(db, words) {
            Ok(place) => place,
            Err(answer) => return self.divided(db, words, shape, answer),
        };
        let (group, encoded) = (Self::group(db, place), self.encode(words));
        let write = |unique, timeout_ms| Call::Write { group, encoded: encoded.clone(), unique, timeout_ms };
        let call = match shape {
            Shape::Read => Call::Read { group, encoded },
            Shape::Unique => write(true, None),
            Shape::Plain => write(false, None),
            Shape::Waits(ms) => write(false, Some(ms)),
        };
        Sent { bytes: wire(words), text: text(words), call }
    }

    fn single(&mut self, rng: &mut Rng, db: u16, may_wait: bool) -> Sent {
        loop {
            let (words, shape) = self.command(rng);
            let waits = matches!(shape, Shape::Waits(_));
            // As it was before the judge could join the parts of a KEYS: a scope of its own draws them.
            let joined = words[0] == b"KEYS" && self.partitions(db) != Partitions::ONE;
            if self.registry.find(&words[0]).is_some() && (may_wait || !waits) && !joined {
                return self.sent(db, &words, shape);
            }
        }
    }

    /// A SORT, which reads: the judge knows it as SORT_RO.
    fn sorted(&self, rng: &mut Rng, db: u16) -> Sent {
        let key = format!("{}{}", ["l", "t", "z"][rng.below(3) as usize], rng.below(KEYS));
        let asked = words(&["SORT", &key, "ALPHA", if rng.chance(0.5) { "ASC" } else { "DESC" }]);
        let known = [words(&["SORT_RO"]), asked[1..].to_vec()].concat();
        Sent { bytes: wire(&asked), text: text(&asked), ..self.sent(db, &known, Shape::Read) }
    }

    /// A value of more pieces than small ones have, or many keys.
    fn large(&mut self, rng: &mut Rng, db: u16) -> Sent {
        let count = 20 + rng.below(60);
        let long = "m".repeat(80);
        let mut all = match rng.below(3) {
            0 => words(&["MSET"]),
            1 => words(&["SADD", &format!("t{}", rng.below(2))]),
            _ => words(&["RPUSH", &format!("l{}", rng.below(KEYS))]),
        };
        for n in 0..count {
            let token = self.token();
            if all[0] == b"MSET" {
                all.extend(words(&[&format!("s{n}"), &token]));
            } else {
                all.push(format!("{token}{long}").into_bytes());
            }
        }
        self.sent(db, &all, Shape::Unique)
    }

    fn transaction(&mut self, rng: &mut Rng, db: u16) -> Vec<Vec<Sent>> {
        let reads = rng.chance(0.2);
        let count = 1 + rng.below(4);
        let mut inner: Vec<(Words, Shape)> = Vec::new();
        while (inner.len() as u64) < count {
            let (words, shape) = self.command(rng);
            let fits = match shape {
                Shape::Read => true,
                Shape::Unique | Shape::Plain => !reads,
                Shape::Waits(_) => false,
            };
            if !fits || self.registry.find(&words[0]).is_none() {
                continue;
            }
            // Most stay where the first is, for the others refuse the whole.
            let place = self.place(db, &words);
            let strays = place.is_err() || place != inner.first().map_or(place, |one| self.place(db, &one.0));
            if !strays || rng.chance(0.05) {
                inner.push((words, shape));
            }
        }
        if !reads {
            let tag = self.token();
            let first = self.place(db, &inner[0].0);
            let set = |key| words(&["SET", &format!("s{key}"), &tag]);
            let near = (0..KEYS).find(|key| self.place(db, &set(*key)) == first);
            inner.push((set(near.unwrap_or(rng.below(KEYS))), Shape::Unique));
        }
        vec![self.multi(db, &inner, reads)]
    }

    fn multi(&self, db: u16, inner: &[(Words, Shape)], reads: bool) -> Vec<Sent> {
        let mut all = vec![local(&["MULTI"], b"+OK\r\n")];
        let bodies: Vec<Vec<u8>> = inner.iter().map(|(words, _)| self.encode(words)).collect();
        let (mut bound, mut aborted) = (None, false);
        for (words, _) in inner {
            let answer: &[u8] = match self.place(db, words) {
                Ok(place) if place == *bound.get_or_insert(place) => b"+QUEUED\r\n",
                Ok(_) => CROSS,
                Err(answer) => answer,
            };
            aborted |= answer.starts_with(b"-");
            all.push(Sent { bytes: wire(words), text: text(words), call: Call::Local(answer) });
        }
        let (group, mut encoded) = (Self::group(db, bound.flatten()), Vec::new());
        put_command(&mut encoded, if reads { EXEC_READ } else { EXEC }, &slices(&bodies));
        let call = match (aborted, reads) {
            (true, _) => Call::Local(ABORTED),
            (false, true) => Call::Read { group, encoded },
            (false, false) => Call::Exec { group, encoded },
        };
        all.push(Sent { bytes: wire(&words(&["EXEC"])), text: "EXEC".into(), call });
        all
    }

    fn watched(&mut self, rng: &mut Rng, db: u16) -> Vec<Vec<Sent>> {
        let key = format!("s{}", rng.below(KEYS));
        let watch = words(&["WATCH", &key]);
        let group = Self::group(db, self.place(db, &watched(&key)).unwrap_or_default());
        let call = Call::Watch { group, keys: vec![key.clone().into_bytes()] };
        let first = vec![
            Sent { bytes: wire(&watch), text: text(&watch), call },
            self.sent(db, &words(&["GET", &key]), Shape::Read),
        ];
        let tag = self.token();
        let inner = [(words(&["SET", &key, &tag]), Shape::Unique)];
        vec![first, self.multi(db, &inner, false)]
    }

    /// Any command, known or not.
    fn command(&mut self, rng: &mut Rng) -> (Words, Shape) {
        match rng.below(10) {
            0..=3 => self.string(rng),
            4 | 5 => self.list(rng),
            6 => self.set(rng),
            7 => self.map(rng),
            _ => self.key(rng),
        }
    }

    fn string(&mut self, rng: &mut Rng) -> (Words, Shape) {
        let key = format!("s{}", rng.below(KEYS));
        let count = format!("n{}", rng.below(2));
        let token = self.token();
        let number = self.tag.to_string();
        // Now and then a value that spans sectors, so that batches and segments end in many places.
        let long = if rng.chance(0.08) { rng.below(3000) as usize } else { rng.below(40) as usize };
        let value = format!("{token}{}", "x".repeat(long));
        let millis = (1 + rng.below(400)).to_string();
        let others = [0, 1].map(|_| format!("s{}", rng.below(KEYS)));
        match rng.below(16) {
            0 | 1 => (words(&["SET", &key, &value]), Shape::Unique),
            14 => (words(&["MSET", &key, &value, &others[0], &value, &others[1], &value]), Shape::Unique),
            15 => (words(&["MGET", &others[0], &key, &others[1], &key]), Shape::Read),
            2 => (words(&["SET", &key, &value, "PX", &millis]), Shape::Unique),
            3 => (words(&["SET", &key, &value, "NX"]), Shape::Unique),
            4 => (words(&["SET", &key, &value, "GET"]), Shape::Unique),
            5 | 6 => (words(&["INCRBY", &count, &number]), Shape::Unique),
            7 => (words(&["INCR", &count]), Shape::Plain),
            8 => (words(&["APPEND", &key, &token]), Shape::Unique),
            9 => (words(&["GETDEL", &key]), Shape::Plain),
            10 => (words(&["GET", &count]), Shape::Read),
            11 => (words(&["MGET", &key, &count, "s0"]), Shape::Read),
            12 => (words(&["STRLEN", &key]), Shape::Read),
            _ => (words(&["GET", &key]), Shape::Read),
        }
    }

    fn list(&mut self, rng: &mut Rng) -> (Words, Shape) {
        let key = format!("l{}", rng.below(KEYS));
        let other = format!("l{}", rng.below(KEYS));
        let token = self.token();
        let wait = if rng.chance(0.2) { 0 } else { 10 + rng.below(300) };
        let seconds = format!("{}.{:03}", wait / 1000, wait % 1000);
        match rng.below(9) {
            0 => (words(&["LPUSH", &key, &token]), Shape::Unique),
            1 => (words(&["RPUSH", &key, &token, "y"]), Shape::Unique),
            2 => (words(&["RPOP", &key]), Shape::Plain),
            3 => (words(&["LPOP", &key]), Shape::Plain),
            4 => (words(&["LRANGE", &key, "0", "-1"]), Shape::Read),
            5 => (words(&["LLEN", &key]), Shape::Read),
            6 => (words(&["BLPOP", &key, &other, &seconds]), Shape::Waits(wait)),
            7 => (words(&["BLMOVE", &key, &other, "LEFT", "RIGHT", &seconds]), Shape::Waits(wait)),
            _ => (words(&["LMOVE", &key, &other, "LEFT", "RIGHT"]), Shape::Plain),
        }
    }

    fn set(&mut self, rng: &mut Rng) -> (Words, Shape) {
        let key = format!("t{}", rng.below(2));
        let token = self.token();
        match rng.below(6) {
            0 => (words(&["SADD", &key, &token, "a", "b", "c", "d"]), Shape::Unique),
            1 => (words(&["SADD", &key, &self.tag.to_string(), "1", "2", "3"]), Shape::Unique),
            2 => (words(&["SPOP", &key]), Shape::Plain),
            3 => (words(&["SPOP", &key, "2"]), Shape::Plain),
            4 => (words(&["SREM", &key, &token, "a"]), Shape::Unique),
            _ => (words(&["SMEMBERS", &key]), Shape::Read),
        }
    }

    fn map(&mut self, rng: &mut Rng) -> (Words, Shape) {
        let (hash, zset) = (format!("h{}", rng.below(2)), format!("z{}", rng.below(2)));
        let (token, field) = (self.token(), format!("f{}", rng.below(6)));
        let number = self.tag.to_string();
        match rng.below(8) {
            0 => (words(&["HSET", &hash, &field, &token]), Shape::Unique),
            1 => (words(&["HINCRBY", &hash, "n", &number]), Shape::Unique),
            2 => (words(&["HDEL", &hash, &field, &token]), Shape::Unique),
            3 => (words(&["HGETALL", &hash]), Shape::Read),
            4 => (words(&["ZADD", &zset, &number, &field]), Shape::Unique),
            5 => (words(&["ZINCRBY", &zset, "1.5", &token]), Shape::Unique),
            6 => (words(&["ZPOPMIN", &zset]), Shape::Plain),
            _ => (words(&["ZRANGE", &zset, "0", "-1", "WITHSCORES"]), Shape::Read),
        }
    }

    fn key(&mut self, rng: &mut Rng) -> (Words, Shape) {
        let kind = ["s", "s", "l", "t", "h", "z", "n"][rng.below(7) as usize];
        let key = format!("{kind}{}", rng.below(KEYS));
        let token = self.token();
        let millis = 1 + rng.below(900);
        match rng.below(14) {
            12 | 13 => (words(&["KEYS", ["*", "s*", "?[1-3]"][rng.below(3) as usize]]), Shape::Read),
            0..=2 => (words(&["DEL", &key, &token]), Shape::Unique),
            3..=5 => (words(&["PEXPIRE", &key, &millis.to_string()]), Shape::Plain),
            6 => (words(&["PERSIST", &key]), Shape::Plain),
            7 => (words(&["EXISTS", &key, "s0", "l0"]), Shape::Read),
            8 => (words(&["TYPE", &key]), Shape::Read),
            9 => (words(&["DBSIZE"]), Shape::Read),
            10 if rng.chance(0.1) => (words(&["FLUSHDB"]), Shape::Plain),
            10 => (words(&["RENAME", &key, &format!("{kind}{}", rng.below(KEYS))]), Shape::Plain),
            _ => (words(&["EXPIRE", &key, "1"]), Shape::Plain),
        }
    }
}
