//! What the fuzz targets share: a cursor that turns arbitrary bytes into choices, and never runs dry.
#![forbid(unsafe_code)]

pub mod reply;

/// A cursor over the fuzzer's bytes; behind their end everything is 0 or empty.
#[derive(Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// Reads `bytes` from the start.
    pub const fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes { rest: bytes }
    }

    /// True when all were read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// A number: small, at the edge of a type, or any.
    pub fn u64(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=239 => u64::from(small),
            240 => u64::MAX,
            241 => i64::MAX as u64,
            242 => u64::from(u32::MAX),
            243 => 1 << 32,
            _ => (0..8).fold(0, |value, _| value << 8 | u64::from(self.byte())),
        }
    }

    /// The next bytes, at most 255 or, less often, 64 KiB, as a length before them says.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            255 => usize::from(self.byte()) << 8 | usize::from(self.byte()),
            length => usize::from(length),
        };
        let (piece, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        piece
    }
}

/// An argument: mostly one of few keys, numbers and options, so that commands meet each other's work.
pub fn word<'a>(input: &mut Bytes<'a>) -> &'a [u8] {
    const WORDS: &[&[u8]] = &[
        b"a",
        b"b",
        b"c",
        b"d",
        b"0",
        b"1",
        b"2",
        b"-1",
        b"3",
        b"10",
        b"100",
        b"-100",
        b"1.5",
        b"inf",
        b"-inf",
        b"nan",
        b"9223372036854775807",
        b"-9223372036854775808",
        b"(1",
        b"[a",
        b"-",
        b"+",
        b"*",
        b"",
        b"NX",
        b"XX",
        b"GT",
        b"LT",
        b"CH",
        b"INCR",
        b"EX",
        b"PX",
        b"KEEPTTL",
        b"GET",
        b"LEFT",
        b"RIGHT",
        b"BEFORE",
        b"AFTER",
        b"WEIGHTS",
        b"AGGREGATE",
        b"MAX",
        b"MIN",
        b"SUM",
        b"WITHSCORES",
        b"WITHVALUES",
        b"LIMIT",
        b"BYSCORE",
        b"BYLEX",
        b"REV",
        b"COUNT",
        b"MATCH",
        b"STORE",
        b"BY",
        b"ALPHA",
        b"DESC",
        b"ASC",
        b"AND",
        b"OR",
        b"XOR",
        b"NOT",
        b"BIT",
        b"BYTE",
        b"u8",
        b"i64",
        b"u63",
        b"#1",
        b"OVERFLOW",
        b"SAT",
        b"FAIL",
        b"WRAP",
        b"SET",
        b"INCRBY",
        b"REPLACE",
        b"RANK",
        b"MAXLEN",
        b"IDX",
        b"LEN",
        b"MINMATCHLEN",
        b"WITHMATCHLEN",
        b"ABSTTL",
        b"IDLETIME",
        b"FREQ",
        b"PERSIST",
        b"EXAT",
        b"h*",
        b"a->*",
        b"#",
    ];
    match input.byte() {
        255 => input.piece(),
        n => WORDS[usize::from(n) % WORDS.len()],
    }
}
