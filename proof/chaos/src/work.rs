//! The commands that a connection sends: seeded, of every type, each value unique.

use kernel::Rng;

use crate::model::{Op, Side};

/// Keys of each type that a connection has.
const KEYS_PER_TYPE: u64 = 16;
/// Fields and members that a collection may have.
const MEMBERS: u64 = 24;
/// Longest list that is left to grow, near enough.
const LIST_KEEP: usize = 20;
/// One that never comes within a run.
const TTL_FAR_MS: u64 = 100_000_000;
/// Longest of those that do.
const TTL_NEAR_MS: u64 = 2_500;

/// What a connection may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    /// It has its database for itself, so it may flush it.
    pub flushes: bool,
    /// Longest value, in bytes.
    pub value_bytes_max: u64,
}

/// One connection's future.
pub struct Work {
    connection: usize,
    rng: Rng,
    sequence: u64,
    mix: Mix,
}

impl Work {
    /// The commands of `connection`, decided by `seed`.
    #[must_use]
    pub fn new(connection: usize, seed: u64, mix: Mix) -> Work {
        Work { connection, rng: Rng::new(seed).fork(connection as u64), sequence: 0, mix }
    }

    /// How many commands are sent before their replies are read.
    pub fn depth(&mut self) -> usize {
        1 + self.rng.below([1, 4, 16, 48][self.rng.clone().below(4) as usize]) as usize
    }

    /// The next command.
    pub fn next_op(&mut self) -> Op {
        match self.rng.below(1000) {
            0..30 => {
                let n = 1 + self.rng.below(4);
                Op::Transaction { ops: (0..n).map(|_| self.write()).collect() }
            }
            30 if self.mix.flushes => Op::Flush,
            31..131 => {
                let kind = b"snhltzx"[self.rng.below(7) as usize];
                Op::Read { key: self.key(kind) }
            }
            _ => self.write(),
        }
    }

    fn write(&mut self) -> Op {
        match self.rng.below(100) {
            0..24 => self.string(),
            24..34 => Op::Add { key: self.key(b'n'), by: self.number() },
            34..42 => Op::HashSet { key: self.key(b'h'), field: self.member(), value: self.value() },
            42..45 => Op::HashDelete { key: self.key(b'h'), field: self.member() },
            45..52 => Op::Push { key: self.key(b'l'), side: self.side(), value: self.value() },
            52..56 => Op::Pop { key: self.key(b'l'), side: self.side() },
            56..59 => Op::Trim { key: self.key(b'l'), keep: LIST_KEEP },
            59..64 => Op::SetAdd { key: self.key(b't'), member: self.member() },
            64..67 => Op::SetRemove { key: self.key(b't'), member: self.member() },
            67..72 => Op::SortedAdd { key: self.key(b'z'), member: self.member(), score: self.number() },
            72..75 => Op::SortedIncr { key: self.key(b'z'), member: self.member(), by: self.number() },
            75..78 => Op::SortedRemove { key: self.key(b'z'), member: self.member() },
            78..83 => self.delete(),
            83..86 => self.two(|from, to| Op::Rename { from, to }),
            86..88 => self.two(|from, to| Op::Copy { from, to }),
            88..90 => Op::Expire { key: self.any(), ttl: TTL_FAR_MS },
            90..92 => Op::Persist { key: self.any() },
            92..97 => {
                let ttl = self.rng.chance(0.8).then(|| 20 + self.rng.below(TTL_NEAR_MS));
                Op::Set { key: self.key(b'x'), value: self.value(), ttl }
            }
            _ => Op::Script {
                counter: self.key(b'n'),
                list: self.key(b'l'),
                by: self.number(),
                value: self.value(),
            },
        }
    }

    fn string(&mut self) -> Op {
        match self.rng.below(10) {
            0 => Op::Append { key: self.key(b's'), value: self.short() },
            1 => Op::Take { key: self.key(b's') },
            2 => {
                let n = 1 + self.rng.below(3);
                Op::SetMany { pairs: (0..n).map(|_| (self.key(b's'), self.value())).collect() }
            }
            _ => Op::Set { key: self.key(b's'), value: self.value(), ttl: None },
        }
    }

    fn delete(&mut self) -> Op {
        let mut keys: Vec<Vec<u8>> = (0..1 + self.rng.below(3)).map(|_| self.any()).collect();
        if self.rng.chance(0.2) {
            keys.push(self.key(b'x'));
        }
        keys.sort();
        keys.dedup();
        Op::Delete { keys }
    }

    /// Two different keys of one type.
    fn two(&mut self, make: impl FnOnce(Vec<u8>, Vec<u8>) -> Op) -> Op {
        let kind = b"shltz"[self.rng.below(5) as usize];
        let from = self.rng.below(KEYS_PER_TYPE);
        let to = (from + 1 + self.rng.below(KEYS_PER_TYPE - 1)) % KEYS_PER_TYPE;
        make(self.named(kind, from), self.named(kind, to))
    }

    /// A key that does not expire within a run.
    fn any(&mut self) -> Vec<u8> {
        let kind = b"snhltz"[self.rng.below(6) as usize];
        self.key(kind)
    }

    fn key(&mut self, kind: u8) -> Vec<u8> {
        let at = self.rng.below(KEYS_PER_TYPE);
        self.named(kind, at)
    }

    fn named(&self, kind: u8, at: u64) -> Vec<u8> {
        format!("c{}:{}:{at}", self.connection, char::from(kind)).into_bytes()
    }

    fn member(&mut self) -> Vec<u8> {
        format!("m{}", self.rng.below(MEMBERS)).into_bytes()
    }

    fn number(&mut self) -> i64 {
        self.rng.below(2_000) as i64 - 1_000
    }

    fn side(&mut self) -> Side {
        if self.rng.chance(0.5) { Side::Left } else { Side::Right }
    }

    fn short(&mut self) -> Vec<u8> {
        self.sequence += 1;
        format!("v{}-{};", self.connection, self.sequence).into_bytes()
    }

    /// A unique value: mostly short, sometimes up to the mix's bound.
    fn value(&mut self) -> Vec<u8> {
        let bound = [64, 64, 600, self.mix.value_bytes_max][self.rng.below(4) as usize];
        let pad = self.rng.below(bound.max(1)) as usize;
        let mut value = self.short();
        let mut rng = self.rng.fork(self.sequence);
        value.extend((0..pad).map(|_| b' ' + (rng.next_u64() % 90) as u8));
        value
    }
}
