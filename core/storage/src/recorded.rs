//! An answer as a list of what was said, to be said again later in whatever way a client speaks.
//!
//! `answer := step*`, `step := u8 code, payload`. It is part of the state (see
//! [`sessions`](crate::store::sessions)), so the codes never change meaning.

use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

use crate::reply::Reply;

const SIMPLE: u8 = 0;
const ERROR: u8 = 1;
const INT: u8 = 2;
const BULK: u8 = 3;
const NULL: u8 = 4;
const NULL_ARRAY: u8 = 5;
const ARRAY: u8 = 6;
const MAP: u8 = 7;
const SET: u8 = 8;
const DOUBLE: u8 = 9;
const BOOLEAN: u8 = 10;
const VERBATIM: u8 = 11;
const RAW: u8 = 12;

/// Hands an answer on and keeps what was said, up to `limit` bytes.
pub(crate) struct Recorder<'a> {
    to: &'a mut dyn Reply,
    /// Whether the answer is shaped for RESP3. Not what `to` says: where nobody is answered, the same must be
    /// kept as where somebody is.
    resp3: bool,
    limit: usize,
    /// `None` once there was more than fits.
    kept: Option<Vec<u8>>,
}

impl<'a> Recorder<'a> {
    /// Records at most `limit` bytes of what goes to `to`.
    pub fn new(to: &'a mut dyn Reply, resp3: bool, limit: usize) -> Recorder<'a> {
        Recorder { to, resp3, limit, kept: Some(Vec::new()) }
    }

    /// The whole answer, or `None` if it was longer than the limit.
    pub fn finish(self) -> Option<Vec<u8>> {
        self.kept
    }

    fn keep(&mut self, code: u8, bytes: usize, put: impl FnOnce(&mut Vec<u8>)) {
        let Some(kept) = &mut self.kept else { return };
        // A code and a number at most besides the bytes.
        if kept.len() + bytes + 11 > self.limit {
            self.kept = None;
            return;
        }
        kept.push(code);
        put(kept);
    }

    fn keep_bytes(&mut self, code: u8, bytes: &[u8]) {
        self.keep(code, bytes.len(), |out| put_bytes(out, bytes));
    }

    fn keep_length(&mut self, code: u8, length: usize) {
        self.keep(code, 0, |out| put_varint(out, length as u64));
    }
}

impl Reply for Recorder<'_> {
    fn simple(&mut self, text: &str) {
        self.keep_bytes(SIMPLE, text.as_bytes());
        self.to.simple(text);
    }

    fn error(&mut self, text: &str) {
        self.keep_bytes(ERROR, text.as_bytes());
        self.to.error(text);
    }

    fn int(&mut self, value: i64) {
        self.keep(INT, 8, |out| out.extend_from_slice(&value.to_le_bytes()));
        self.to.int(value);
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.keep_bytes(BULK, bytes);
        self.to.bulk(bytes);
    }

    fn null(&mut self) {
        self.keep(NULL, 0, |_| ());
        self.to.null();
    }

    fn null_array(&mut self) {
        self.keep(NULL_ARRAY, 0, |_| ());
        self.to.null_array();
    }

    fn array(&mut self, len: usize) {
        self.keep_length(ARRAY, len);
        self.to.array(len);
    }

    fn map(&mut self, len: usize) {
        self.keep_length(MAP, len);
        self.to.map(len);
    }

    fn set(&mut self, len: usize) {
        self.keep_length(SET, len);
        self.to.set(len);
    }

    fn double(&mut self, value: f64) {
        self.keep(DOUBLE, 8, |out| out.extend_from_slice(&value.to_bits().to_le_bytes()));
        self.to.double(value);
    }

    fn boolean(&mut self, value: bool) {
        self.keep(BOOLEAN, 1, |out| out.push(u8::from(value)));
        self.to.boolean(value);
    }

    fn verbatim(&mut self, text: &str) {
        self.keep_bytes(VERBATIM, text.as_bytes());
        self.to.verbatim(text);
    }

    fn raw(&mut self, encoded: &[u8]) {
        self.keep_bytes(RAW, encoded);
        self.to.raw(encoded);
    }

    fn resp3(&self) -> bool {
        self.resp3
    }
}

/// Says a recorded answer again.
///
/// # Errors
/// It is not one whole answer; part of it may have been said. One that was [recorded](Recorder), or read with
/// [`check`], always is.
pub(crate) fn play(answer: &[u8], reply: &mut dyn Reply) -> Result<(), DecodeError> {
    let mut reader = Reader::new(answer);
    // Values that are still to come.
    let mut left = 1u64;
    while left > 0 {
        left = left - 1 + step(&mut reader, reply)?;
    }
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Invalid) }
}

/// Refuses what is not one whole answer.
pub(crate) fn check(answer: &[u8]) -> Result<(), DecodeError> {
    play(answer, &mut crate::Silence)
}

/// Says the next value; how many values it announces.
fn step(reader: &mut Reader<'_>, reply: &mut dyn Reply) -> Result<u64, DecodeError> {
    let text = |bytes| core::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid);
    match reader.u8()? {
        SIMPLE => reply.simple(text(reader.bytes()?)?),
        ERROR => reply.error(text(reader.bytes()?)?),
        INT => reply.int(reader.u64()?.cast_signed()),
        BULK => reply.bulk(reader.bytes()?),
        NULL => reply.null(),
        NULL_ARRAY => reply.null_array(),
        ARRAY => return announced(reader, 1, &mut |len| reply.array(len)),
        MAP => return announced(reader, 2, &mut |len| reply.map(len)),
        SET => return announced(reader, 1, &mut |len| reply.set(len)),
        DOUBLE => reply.double(f64::from_bits(reader.u64()?)),
        BOOLEAN => reply.boolean(reader.u8()? != 0),
        VERBATIM => reply.verbatim(text(reader.bytes()?)?),
        RAW => reply.raw(reader.bytes()?),
        _ => return Err(DecodeError::Invalid),
    }
    Ok(0)
}

fn announced(reader: &mut Reader<'_>, each: u64, say: &mut dyn FnMut(usize)) -> Result<u64, DecodeError> {
    let len = reader.len()?;
    // Each value takes a byte at least, so a longer promise cannot be kept.
    if len > reader.rest().len() {
        return Err(DecodeError::Short);
    }
    say(len);
    Ok(len as u64 * each)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::{format, vec};

    use proptest::prelude::*;

    use super::*;
    use crate::Silence;

    /// What it is told, as text.
    #[derive(Default)]
    struct Told(String);

    #[rustfmt::skip] // a line for each
    impl Reply for Told {
        fn simple(&mut self, text: &str) { self.0 += &format!("+{text} "); }
        fn error(&mut self, text: &str) { self.0 += &format!("-{text} "); }
        fn int(&mut self, value: i64) { self.0 += &format!(":{value} "); }
        fn bulk(&mut self, bytes: &[u8]) { self.0 += &format!("{bytes:?} "); }
        fn null(&mut self) { self.0 += "nil "; }
        fn null_array(&mut self) { self.0 += "nil* "; }
        fn array(&mut self, len: usize) { self.0 += &format!("*{len} "); }
        fn map(&mut self, len: usize) { self.0 += &format!("%{len} "); }
        fn set(&mut self, len: usize) { self.0 += &format!("~{len} "); }
        fn double(&mut self, value: f64) { self.0 += &format!(",{value:?} "); }
        fn boolean(&mut self, value: bool) { self.0 += &format!("#{value} "); }
        fn verbatim(&mut self, text: &str) { self.0 += &format!("={text} "); }
        fn raw(&mut self, encoded: &[u8]) { self.0 += &format!("raw{encoded:?} "); }
        fn resp3(&self) -> bool { false }
    }

    fn say(reply: &mut dyn Reply) {
        reply.array(4);
        reply.map(2);
        reply.bulk(b"\0x");
        reply.int(-7);
        reply.null();
        reply.double(0.1);
        reply.set(1);
        reply.boolean(true);
        reply.array(3);
        reply.verbatim("text");
        reply.raw(b":1\r\n");
        reply.error("ERR no");
        reply.array(2);
        reply.simple("OK");
        reply.null_array();
    }

    #[test]
    fn an_answer_is_said_again_as_it_was() {
        let (mut first, mut again) = (Told::default(), Told::default());
        let mut recorder = Recorder::new(&mut first, true, 1024);
        assert!(recorder.resp3());
        say(&mut recorder);
        let kept = recorder.finish().expect("it is short");
        play(&kept, &mut again).expect("it is whole");
        assert_eq!(again.0, first.0);
        let mut silence = Silence;
        let mut recorder = Recorder::new(&mut silence, true, 1024);
        say(&mut recorder);
        assert_eq!(recorder.finish(), Some(kept), "the same is kept where nobody is answered");
    }

    #[test]
    fn an_answer_over_the_limit_is_not_kept_and_still_given() {
        for (bytes, kept) in [(80, true), (200, false)] {
            let mut told = Told::default();
            let mut recorder = Recorder::new(&mut told, false, 100);
            recorder.bulk(&vec![1; bytes]);
            assert_eq!(recorder.finish().is_some(), kept, "{bytes}");
            assert!(!told.0.is_empty());
        }
    }

    #[test]
    fn what_is_no_whole_answer_is_refused() {
        #[rustfmt::skip] // columns
        let table: &[(&[u8], Result<(), DecodeError>)] = &[
            (&[NULL],                       Ok(())),
            (&[],                           Err(DecodeError::Short)),
            (&[NULL, NULL],                 Err(DecodeError::Invalid)),
            (&[ARRAY, 0],                   Ok(())),
            (&[ARRAY, 2, NULL],             Err(DecodeError::Short)),
            (&[ARRAY, 2, NULL, NULL],       Ok(())),
            (&[MAP, 1, NULL, NULL],         Ok(())),
            (&[MAP, 1, NULL],               Err(DecodeError::Short)),
            (&[ARRAY, 0xFF, 0x7F, NULL],    Err(DecodeError::Short)),
            (&[SIMPLE, 1, 0xFF],            Err(DecodeError::Invalid)),
            (&[99],                         Err(DecodeError::Invalid)),
        ];
        for (bytes, expected) in table {
            assert_eq!(check(bytes), *expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_refused(bytes: Vec<u8>) {
            let _ = check(&bytes);
        }
    }
}
