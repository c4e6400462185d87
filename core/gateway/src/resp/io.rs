//! A connection's replies, in the order of its commands whatever order they are ready in.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::planted::{Bug, is};
use storage::Reply;
use wire::resp::Encoder;

/// Replies of more bytes take the place of an empty output instead of being copied to it.
const MOVED_BYTES_MIN: usize = 64 * 1024;

/// The number of a command within its connection; its reply goes out after those of lower numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// The output of one connection.
///
/// Invariant: `out` holds whole replies only, so a push message may be appended at any time.
#[derive(Debug, Default)]
pub struct Io {
    /// What the socket is to be given.
    pub out: Vec<u8>,
    /// True once it is in the host's list of connections to be flushed.
    pub listed: bool,
    /// True while a blocking command waits.
    pub blocked: bool,
    /// A watched key changed: the next EXEC answers nil.
    pub watch_broken: bool,
    /// RESP3 was agreed.
    pub resp3: bool,
    /// It came by the port of cluster clients: what belongs elsewhere is answered `MOVED` and not handed on, and
    /// what concerns a keyspace concerns what is led here.
    pub cluster: bool,
    /// Reads may be answered by a copy that does not lead (`READONLY`).
    pub readonly: bool,
    /// Replies are thrown away (`CLIENT REPLY OFF` or `SKIP`).
    pub muted: bool,
    skipped: Option<Sequence>,
    head: u64,
    next: u64,
    early: BTreeMap<u64, Vec<u8>>,
}

impl Io {
    /// Takes the place of the next command.
    #[inline]
    pub const fn begin(&mut self) -> Sequence {
        self.next += 1;
        Sequence(self.next - 1)
    }

    /// Commands begun and not yet answered.
    #[inline]
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.next - self.head
    }

    /// The reply of the next command is thrown away (`CLIENT REPLY SKIP`).
    pub const fn skip_next(&mut self) {
        self.skipped = Some(Sequence(self.next));
    }

    #[inline]
    fn is_mute(&self, sequence: Sequence) -> bool {
        self.muted || self.skipped == Some(sequence)
    }

    /// An encoder for a message that is no reply; it goes out whatever replies are pending or muted.
    pub const fn push(&mut self) -> Encoder<'_> {
        Encoder::new(&mut self.out, self.resp3)
    }

    /// As [`Io::answer`], but `write` may decide after all (false) that there is no answer yet.
    #[inline]
    pub fn try_answer(&mut self, sequence: Sequence, write: impl FnOnce(&mut RespReply<'_>) -> bool) -> bool {
        debug_assert!(sequence.0 >= self.head, "a command is answered once");
        if sequence.0 == self.head || is(Bug::RepliesOutOfOrder) {
            let start = self.out.len();
            let answered = write(&mut RespReply(Encoder::new(&mut self.out, self.resp3)));
            if !answered || self.is_mute(sequence) {
                self.out.truncate(start);
            }
            if answered {
                self.head += 1;
                self.release();
            }
            return answered;
        }
        let mut early = Vec::new();
        let answered = write(&mut RespReply(Encoder::new(&mut early, self.resp3)));
        if self.is_mute(sequence) {
            early.clear();
        }
        if answered {
            self.early.insert(sequence.0, early);
        }
        answered
    }

    /// Writes the reply of `sequence` with `write` and lets out what it held back.
    #[inline]
    pub fn answer<T>(&mut self, sequence: Sequence, write: impl FnOnce(&mut RespReply<'_>) -> T) -> T {
        let mut result = None;
        self.try_answer(sequence, |reply| {
            result = Some(write(reply));
            true
        });
        result.expect("the closure was called")
    }

    /// As [`Io::answer`], with a reply that is encoded already, and large perhaps: it is moved where it can be.
    pub fn answer_encoded(&mut self, sequence: Sequence, reply: Vec<u8>) {
        debug_assert!(sequence.0 >= self.head, "a command is answered once");
        let reply = if self.is_mute(sequence) { Vec::new() } else { reply };
        if sequence.0 == self.head || is(Bug::RepliesOutOfOrder) {
            self.append(reply);
            self.head += 1;
            self.release();
        } else {
            self.early.insert(sequence.0, reply);
        }
    }

    fn append(&mut self, reply: Vec<u8>) {
        if self.out.is_empty() && reply.len() > MOVED_BYTES_MIN {
            self.out = reply;
        } else {
            self.out.extend_from_slice(&reply);
        }
    }

    fn release(&mut self) {
        while let Some(bytes) = (!self.early.is_empty()).then(|| self.early.remove(&self.head)).flatten() {
            self.append(bytes);
            self.head += 1;
        }
    }

    /// Bytes of replies that wait for earlier ones, and those for the socket.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.out.len() + self.early.values().map(Vec::len).sum::<usize>()
    }
}

/// The store's answers, encoded for one connection.
#[derive(Debug)]
pub struct RespReply<'a>(pub Encoder<'a>);

impl Reply for RespReply<'_> {
    #[inline]
    fn simple(&mut self, text: &str) {
        self.0.simple(text);
    }
    fn error(&mut self, text: &str) {
        self.0.error(text);
    }
    #[inline]
    fn int(&mut self, value: i64) {
        self.0.int(value);
    }
    #[inline]
    fn bulk(&mut self, bytes: &[u8]) {
        self.0.bulk(bytes);
    }
    fn null(&mut self) {
        self.0.null();
    }
    fn null_array(&mut self) {
        self.0.null_array();
    }
    fn array(&mut self, len: usize) {
        self.0.array(len);
    }
    fn map(&mut self, len: usize) {
        self.0.map(len);
    }
    fn set(&mut self, len: usize) {
        self.0.set(len);
    }
    fn double(&mut self, value: f64) {
        self.0.double(value);
    }
    fn boolean(&mut self, value: bool) {
        self.0.boolean(value);
    }
    fn verbatim(&mut self, text: &str) {
        self.0.verbatim(text);
    }
    fn raw(&mut self, encoded: &[u8]) {
        self.0.raw(encoded);
    }
    fn resp3(&self) -> bool {
        self.0.resp3()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_reply_is_moved_to_its_place_in_the_order() {
        let mut io = Io::default();
        let (a, b, c) = (io.begin(), io.begin(), io.begin());
        let large = alloc::vec![b'x'; 2 * MOVED_BYTES_MIN];
        io.answer_encoded(b, large.clone());
        io.answer_encoded(a, b":1\r\n".to_vec());
        io.answer(c, |reply| reply.int(3));
        assert_eq!(io.out, [b":1\r\n", &large[..], b":3\r\n"].concat());
        io.out.clear();
        let d = io.begin();
        io.answer_encoded(d, large.clone());
        assert_eq!((io.pending(), &io.out), (0, &large));
    }

    #[test]
    fn replies_leave_in_the_order_of_their_commands() {
        let mut io = Io::default();
        let (a, b, c) = (io.begin(), io.begin(), io.begin());
        io.answer(c, |reply| reply.int(3));
        io.answer(b, |reply| reply.int(2));
        assert_eq!(io.out, b"");
        assert_eq!(io.pending(), 3);
        io.answer(a, |reply| reply.int(1));
        assert_eq!(io.out, b":1\r\n:2\r\n:3\r\n");
        assert_eq!(io.pending(), 0);
    }
}
