//! What a command answers with, without saying how it is encoded.

use crate::Fault;

/// The place an answer is written to: a connection's RESP buffer, a Lua value, or nothing in replay.
///
/// Aggregates are announced with their length and followed by that many values. The methods follow
/// RESP3's types; a RESP2 encoder flattens them as Redis does.
pub trait Reply {
    /// A status such as `OK`.
    fn simple(&mut self, text: &str);
    /// An error line, prefix included (`ERR …`, `WRONGTYPE …`); control bytes are replaced by spaces.
    fn error(&mut self, text: &str);
    /// An integer.
    fn int(&mut self, value: i64);
    /// A byte string.
    fn bulk(&mut self, bytes: &[u8]);
    /// No value, where a byte string was expected.
    fn null(&mut self);
    /// No value, where an array was expected.
    fn null_array(&mut self);
    /// `len` values follow.
    fn array(&mut self, len: usize);
    /// `len` keys and values follow alternately; in RESP2 an array of `2 * len`.
    fn map(&mut self, len: usize);
    /// `len` distinct values follow; in RESP2 an array.
    fn set(&mut self, len: usize);
    /// A floating-point number; in RESP2 a byte string with 17 significant digits.
    fn double(&mut self, value: f64);
    /// A truth value; in RESP2 the integers 1 and 0.
    fn boolean(&mut self, value: bool);
    /// Text for people (`INFO`); in RESP2 a byte string.
    fn verbatim(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }
    /// A value that the front-end encoded for itself beforehand (its own commands in a transaction).
    fn raw(&mut self, encoded: &[u8]);
    /// True if the client speaks RESP3, for the few commands whose shape depends on it.
    fn resp3(&self) -> bool;

    /// The fault as an error line.
    fn fault(&mut self, fault: &Fault) {
        fault.write_to(&mut |text| self.error(text));
    }
    /// The status `OK`.
    fn ok(&mut self) {
        self.simple("OK");
    }
}

/// Swallows the answer: replay and followers have nobody to tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence;

impl Reply for Silence {
    fn simple(&mut self, _: &str) {}
    fn error(&mut self, _: &str) {}
    fn int(&mut self, _: i64) {}
    fn bulk(&mut self, _: &[u8]) {}
    fn null(&mut self) {}
    fn null_array(&mut self) {}
    fn array(&mut self, _: usize) {}
    fn map(&mut self, _: usize) {}
    fn set(&mut self, _: usize) {}
    fn double(&mut self, _: f64) {}
    fn boolean(&mut self, _: bool) {}
    fn raw(&mut self, _: &[u8]) {}
    fn resp3(&self) -> bool {
        false
    }
}
