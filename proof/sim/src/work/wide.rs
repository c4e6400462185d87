//! What the wider half of the seeds draws besides: commands on several keyspaces, scripts, and keys that are
//! named in unusual places.

use check::{Call, Join, Part, Transfer};
use kernel::{GroupId, KeyspaceId, Rng};
use node::owner;
use placement::Slot;
use storage::object::table::CURSOR_BITS;
use storage::store::scripts::ScriptId;

use super::{KEYS, Sent, Shape, Words, Work, text, wire, words};

/// What clients draw from. What is added goes to a scope of its own, so that a seed of the others stays what
/// it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Commands of one keyspace.
    Narrow,
    /// Besides, commands of several keyspaces and scripts.
    Wide,
    /// Besides, commands on all keys of keyspaces of several partitions.
    Whole,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 3] = [Scope::Narrow, Scope::Wide, Scope::Whole];

    /// The scope that a seed has unless told otherwise.
    #[must_use]
    pub const fn of(seed: u64) -> Scope {
        match seed % 4 {
            0 | 2 => Scope::Narrow,
            1 => Scope::Wide,
            _ => Scope::Whole,
        }
    }

    /// Its name on the command line and in regressions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Narrow => "narrow",
            Scope::Wide => "wide",
            Scope::Whole => "whole",
        }
    }

    /// The scope of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// How often something is drawn again, so that most of it stays in one partition.
const TRIES: usize = 12;
/// What is told whose keys are in partitions of different workers.
const APART: &[u8] = b"-ERR these databases belong to different workers of this node, which log for \
themselves: keys cannot go from one to the other. Choose numbers that differ by a multiple of \
`storage.workers`; of databases of several partitions, keys whose partitions belong to one worker\r\n";

/// A script, its keys and its arguments; `TAG` is replaced by a text and `NUM` by a number that no other
/// command has.
type Script = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Scripts that write. Each declares its keys, as Redis demands.
#[rustfmt::skip] // columns
const WRITES: &[Script] = &[
    ("local old = redis.call('get', KEYS[1]) redis.call('set', KEYS[1], ARGV[1]) return old", &["s"], &["TAG"]),
    ("redis.call('incrby', KEYS[1], ARGV[1]) redis.call('rpush', KEYS[2], ARGV[2]) \
      return {redis.call('get', KEYS[1]), redis.call('llen', KEYS[2])}", &["n", "l"], &["NUM", "TAG"]),
    // Chance and time, which a replay must draw again.
    ("local m = redis.call('spop', KEYS[1]) or 'none' redis.call('rpush', KEYS[2], m, ARGV[1], math.random(1000)) \
      return {m, redis.call('srandmember', KEYS[1]), redis.call('time')[1], math.random(1000)}", &["t", "l"], &["TAG"]),
    ("redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) return redis.call('pttl', KEYS[1])", &["s"], &["TAG", "50"]),
    // What was written before an error stays written.
    ("redis.call('set', KEYS[1], ARGV[1]) return redis.call('lpush', KEYS[1], 'x')", &["s"], &["TAG"]),
    ("redis.call('set', KEYS[1], ARGV[1]) local r = redis.pcall('lpush', KEYS[1], 'x') return r.err", &["s"], &["TAG"]),
    ("redis.call('rpush', KEYS[1], ARGV[1]) for i = 1, #KEYS - 1 do \
      redis.call('lmove', KEYS[i], KEYS[i + 1], 'LEFT', 'RIGHT') end return redis.call('lrange', KEYS[#KEYS], 0, -1)",
      &["l", "l", "l"], &["TAG"]),
    // A lock that expires, taken and given back.
    ("if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', 30) then return 1 end \
      if redis.call('get', KEYS[1]) == ARGV[2] then return redis.call('del', KEYS[1]) end return 0", &["s"], &["TAG", "x"]),
    ("local all = redis.call('hgetall', KEYS[1]) for i = 2, #all, 2 do redis.call('zadd', KEYS[2], i, all[i]) end \
      redis.call('hset', KEYS[1], 'f0', ARGV[1]) return #all", &["h", "z"], &["TAG"]),
];

/// Scripts that only read.
const READS: &[Script] = &[
    ("return {redis.call('get', KEYS[1]), redis.call('lrange', KEYS[2], 0, -1)}", &["s", "l"], &[]),
    ("return redis.call('exists', KEYS[1], KEYS[2])", &["s", "t"], &[]),
];

impl Work {
    /// As [`Work::draw`] in a narrow scope, and with more in wider ones. There are so many keyspaces, which so
    /// many workers share.
    pub fn draw_in(
        &mut self,
        scope: Scope,
        rng: &mut Rng,
        db: u16,
        (keyspaces, workers): (u16, u16),
    ) -> Vec<Vec<Sent>> {
        match scope {
            Scope::Narrow => self.draw(rng, db),
            Scope::Whole if rng.chance(0.06) => vec![vec![self.scan(rng, db)]],
            Scope::Whole if rng.chance(0.06) => {
                let pattern = ["*", "s*", "?[1-3]", "s[2-7]*"][rng.below(4) as usize];
                vec![vec![self.sent(db, &words(&["KEYS", pattern]), Shape::Read)]]
            }
            Scope::Wide | Scope::Whole => self.draw_wide(rng, db, keyspaces, workers),
        }
    }

    /// As [`Work::draw`], with what is drawn here among it. `dbs` is how many keyspaces there are, and
    /// `workers` how many workers share them.
    fn draw_wide(&mut self, rng: &mut Rng, db: u16, dbs: u16, workers: u16) -> Vec<Vec<Sent>> {
        match rng.below(16) {
            0..=3 => vec![vec![self.script(rng, db)]],
            4 | 5 => self.transfer(rng, db, dbs, workers),
            6 => vec![self.elsewhere(rng, db, dbs)],
            7 => self.watched_elsewhere(rng, db, dbs),
            8 => vec![vec![self.chain(rng, db)]],
            9 => self.watched_list(rng, db),
            10 if rng.chance(0.15) => {
                let flush = words(&["FLUSHDB"]);
                let call = Call::Everywhere { encoded: self.encode(&flush) };
                vec![vec![Sent { bytes: wire(&words(&["FLUSHALL"])), text: "FLUSHALL".into(), call }]]
            }
            _ => self.draw(rng, db),
        }
    }

    /// One step of SCAN from anywhere: what a step finds depends on nothing but its cursor and the keys.
    fn scan(&self, rng: &mut Rng, db: u16) -> Sent {
        let count = self.partitions(db).count();
        let place = rng.below(count.into()) as u16;
        let inner = if rng.chance(0.4) { 0 } else { rng.below(1 << CURSOR_BITS) };
        let number = (1 + rng.below(8)).to_string();
        let step = |cursor: u64| words(&["SCAN", &cursor.to_string(), "MATCH", "s*", "COUNT", &number]);
        let begin = |place: u16| u64::from(place) << CURSOR_BITS;
        let (asked, encoded) = (step(begin(place) | inner), self.encode(&step(inner)));
        let parts = vec![Part { group: Self::group(db, Some(place)), encoded, unique: false }];
        let next = if place + 1 < count { begin(place + 1) } else { 0 };
        let join = Join::Scan { base: begin(place), next };
        let call = Call::Parts { parts, writes: false, join };
        Sent { bytes: wire(&asked), text: text(&asked), call }
    }

    fn key_of(rng: &mut Rng, kind: &str) -> String {
        format!("{kind}{}", rng.below(if matches!(kind, "s" | "l") { KEYS } else { 2 }))
    }

    fn script(&mut self, rng: &mut Rng, db: u16) -> Sent {
        let reads = rng.chance(0.2);
        let all = if reads { READS } else { WRITES };
        let (body, keys, args) = all[rng.below(all.len() as u64) as usize];
        let name = ScriptId::of(body.as_bytes()).to_string();
        let token = self.token();
        let (verb, first) = match (reads, rng.chance(0.3)) {
            (true, _) => ("EVAL_RO", body),
            (false, true) => ("EVALSHA", name.as_str()),
            (false, false) => ("EVAL", body),
        };
        let all = self.mostly_near(rng, db, |rng, tag| {
            let mut all = words(&[verb, first, &keys.len().to_string()]);
            all.extend(keys.iter().map(|kind| Self::key_of(rng, kind).into_bytes()));
            all.extend(args.iter().map(|arg| match *arg {
                "TAG" => token.clone().into_bytes(),
                "NUM" => tag.to_string().into_bytes(),
                other => other.as_bytes().to_vec(),
            }));
            all
        });
        self.sent(db, &all, if reads { Shape::Read } else { Shape::Unique })
    }

    /// Draws until it has keys of one partition, or for long enough.
    fn mostly_near(&self, rng: &mut Rng, db: u16, mut draw: impl FnMut(&mut Rng, u64) -> Words) -> Words {
        let mut all = draw(rng, self.tag);
        for _ in 0..TRIES {
            if self.place(db, &all).is_ok() || rng.chance(0.02) {
                break;
            }
            all = draw(rng, self.tag);
        }
        all
    }

    /// The group that has a key.
    fn home(&self, db: u16, key: &str) -> GroupId {
        GroupId::new(KeyspaceId(db), self.partitions(db).of(Slot::of(key.as_bytes())))
    }

    /// MOVE or COPY to another keyspace, most often between partitions of one worker.
    fn transfer(&mut self, rng: &mut Rng, db: u16, dbs: u16, workers: u16) -> Vec<Vec<Sent>> {
        let others: Vec<u16> = (0..dbs).filter(|&to| to != db).collect();
        if others.is_empty() {
            return self.draw(rng, db);
        }
        let (remove, replace) = (rng.chance(0.5), rng.chance(0.5));
        let draw = |rng: &mut Rng| {
            let kind = ["s", "s", "l", "t", "h", "z"][rng.below(6) as usize];
            let key = Self::key_of(rng, kind);
            let new_key = if remove { key.clone() } else { Self::key_of(rng, kind) };
            (others[rng.below(others.len() as u64) as usize], key, new_key)
        };
        let owner_of = |group: GroupId| owner(group.keyspace(), group.partition(), workers);
        let (mut tries, mut drawn) = (0, draw(rng));
        let (number, key, new_key, together) = loop {
            let (to, key, new_key) = drawn;
            let together = owner_of(self.home(db, &key)) == owner_of(self.home(to, &new_key));
            if together || tries == TRIES {
                break (to, key, new_key, together);
            }
            (tries, drawn) = (tries + 1, draw(rng));
        };
        if !together && rng.chance(0.8) {
            return self.draw(rng, db);
        }
        let (from, to, number) = (self.home(db, &key), self.home(number, &new_key), number.to_string());
        let mut all = if remove {
            words(&["MOVE", &key, &number])
        } else {
            words(&["COPY", &key, &new_key, "DB", &number])
        };
        let replace = replace && !remove;
        all.extend(replace.then(|| b"REPLACE".to_vec()));
        let keys = [key.into_bytes(), new_key.into_bytes()];
        let transfer = || Call::Transfer(Transfer { from, to, keys, replace, remove });
        let call = if together { transfer() } else { Call::Local(APART) };
        vec![vec![Sent { bytes: wire(&all), text: text(&all), call }]]
    }

    /// A command in another keyspace.
    fn elsewhere(&mut self, rng: &mut Rng, db: u16, dbs: u16) -> Vec<Sent> {
        let other = rng.below(dbs.into()) as u16;
        let inner = if rng.chance(0.3) { self.script(rng, other) } else { self.single(rng, other, false) };
        vec![Work::select(other), inner, Work::select(db)]
    }

    /// A transaction here that watches a key there.
    fn watched_elsewhere(&mut self, rng: &mut Rng, db: u16, dbs: u16) -> Vec<Vec<Sent>> {
        let other = rng.below(dbs.into()) as u16;
        let key = Self::key_of(rng, "s");
        let watch = words(&["WATCH", &key]);
        let call = Call::Watch { group: self.home(other, &key), keys: vec![key.clone().into_bytes()] };
        let first = vec![
            Work::select(other),
            Sent { bytes: wire(&watch), text: text(&watch), call },
            self.sent(other, &words(&["GET", &key]), Shape::Read),
            Work::select(db),
        ];
        let tag = self.token();
        let inner = [(words(&["SET", &key, &tag]), Shape::Unique)];
        vec![first, self.multi(db, &inner, false)]
    }

    /// A command that stores under a name which does not stand where names usually do.
    fn chain(&mut self, rng: &mut Rng, db: u16) -> Sent {
        let wait = 10 + rng.below(300);
        let seconds = format!("{}.{:03}", wait / 1000, wait % 1000);
        let form = rng.below(5);
        let all = self.mostly_near(rng, db, |rng, _| {
            let (from, to) = (Self::key_of(rng, "l"), Self::key_of(rng, "l"));
            match form {
                0 => words(&["SORT", &from, "ALPHA", "STORE", &to]),
                1 => words(&["LMPOP", "2", &from, &to, "LEFT", "COUNT", "2"]),
                2 => words(&["BLMPOP", &seconds, "2", &from, &to, "RIGHT"]),
                3 => words(&["BRPOPLPUSH", &from, &to, &seconds]),
                _ => words(&["BLMOVE", &from, &to, "RIGHT", "LEFT", &seconds]),
            }
        });
        let shape = if form < 2 { Shape::Plain } else { Shape::Waits(wait) };
        self.sent(db, &all, shape)
    }

    /// A transaction over a watched list, which SORT … STORE and scripts write too.
    fn watched_list(&mut self, rng: &mut Rng, db: u16) -> Vec<Vec<Sent>> {
        let key = Self::key_of(rng, "l");
        let watch = words(&["WATCH", &key]);
        let call = Call::Watch { group: self.home(db, &key), keys: vec![key.clone().into_bytes()] };
        let first = vec![
            Sent { bytes: wire(&watch), text: text(&watch), call },
            self.sent(db, &words(&["LRANGE", &key, "0", "-1"]), Shape::Read),
        ];
        let tag = self.token();
        let inner = [(words(&["RPUSH", &key, &tag]), Shape::Unique)];
        vec![first, self.multi(db, &inner, false)]
    }
}
