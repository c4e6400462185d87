//! SLOWLOG: the commands of turns that took long.
//!
//! A machine has no clock, so the host tells how long a turn took. The command named is the heaviest one
//! of the turn by its kind; others of the same turn may have had their part in it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use kernel::Micros;
use storage::{Fault, Reply};

use super::call::{Call, Done, integer};
use super::table::{Row, Traits, help};
use super::whole::{Order, Then};

/// Arguments kept of one command.
const ARGUMENTS_MAX: usize = 32;
/// Bytes kept of one argument.
const ARGUMENT_BYTES_MAX: usize = 128;

/// One slow command.
#[derive(Clone, Debug)]
pub struct Slow {
    /// When its turn ended.
    pub at: Micros,
    /// How long the turn took.
    pub micros: u64,
    /// The command with its arguments, cut as Redis cuts them.
    pub words: Vec<Box<[u8]>>,
    /// Who sent it.
    pub peer: Option<SocketAddr>,
    /// What it calls itself.
    pub name: Box<[u8]>,
}

/// The slow log, newest first.
#[derive(Clone, Debug)]
pub struct Slowlog {
    entries: VecDeque<(u64, Slow)>,
    next: u64,
    step: u64,
}

impl Default for Slowlog {
    fn default() -> Slowlog {
        Slowlog::new(0, 1)
    }
}

impl Slowlog {
    /// An empty log whose entries have the numbers `first`, `first + step` and so on: those of different
    /// workers differ.
    #[must_use]
    pub const fn new(first: u64, step: u64) -> Slowlog {
        Slowlog { entries: VecDeque::new(), next: first, step }
    }

    /// Takes in another worker's entries.
    pub fn add(&mut self, other: Slowlog) {
        self.entries.extend(other.entries);
        self.entries.make_contiguous().sort_by_key(|(_, slow)| core::cmp::Reverse(slow.at));
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds an entry; beyond `most` the oldest are dropped.
    pub fn push(&mut self, slow: Slow, most: usize) {
        self.entries.push_front((self.next, slow));
        self.next += self.step;
        self.entries.truncate(most);
    }

    /// Entries kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A command as the slow log keeps it: at most 32 words of at most 128 bytes.
#[must_use]
pub fn cut(name: &str, args: &[&[u8]]) -> Vec<Box<[u8]>> {
    let words = 1 + args.len();
    let kept = if words > ARGUMENTS_MAX { ARGUMENTS_MAX - 2 } else { args.len() };
    let mut cut: Vec<Box<[u8]>> = alloc::vec![name.as_bytes().into()];
    cut.extend(args[..kept].iter().map(|arg| match arg.get(ARGUMENT_BYTES_MAX..) {
        Some(rest) if !rest.is_empty() => {
            let note = alloc::format!("... ({} more bytes)", rest.len());
            [&arg[..ARGUMENT_BYTES_MAX], note.as_bytes()].concat().into()
        }
        _ => (*arg).into(),
    }));
    if words > ARGUMENTS_MAX {
        let note = alloc::format!("... ({} more arguments)", words - ARGUMENTS_MAX + 1);
        cut.push(note.into_bytes().into());
    }
    cut
}

const ADMIN: Traits = Traits::ADMIN;
const TELLS: Traits = ADMIN.and(Traits::NODE);

/// This family's rows.
pub(super) const ROWS: &[Row] =
    &[Row::container("slowlog", "server", SLOWLOG).since("2.2.12").about("Tells about slow commands.")];

const SLOWLOG: &[Row] = &[
    Row::new("slowlog|get", -2, "server", get)
        .with(TELLS)
        .since("2.2.12")
        .syntax("[<count>]")
        .about("The newest entries: 10, or as many as asked for; -1 for all."),
    Row::new("slowlog|len", 2, "server", len).with(TELLS).since("2.2.12").about("Entries kept."),
    Row::new("slowlog|reset", 2, "server", reset).with(ADMIN).since("2.2.12").about("Forgets all entries."),
    Row::new("slowlog|help", 2, "server", help).since("6.2.0"),
];

fn get(call: &mut Call<'_>) -> Result<Done, Fault> {
    const RANGE: Fault = Fault::Text("ERR count should be greater than or equal to -1");
    let count = match call.args {
        [] => 10,
        [count] => integer(count).map_err(|_| RANGE)?,
        _ => return Err(call.misplaced()),
    };
    if count < -1 {
        return Err(RANGE);
    }
    let slowlog = call.host.survey().slowlog;
    let most = slowlog.len().min(call.host.config().slowlog_len());
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(most);
    call.reply.array(count);
    for (id, slow) in slowlog.entries.iter().take(count) {
        call.reply.array(6);
        call.reply.int(*id as i64);
        call.reply.int((slow.at.0 / 1_000_000) as i64);
        call.reply.int(slow.micros as i64);
        call.reply.array(slow.words.len());
        slow.words.iter().for_each(|word| call.reply.bulk(word));
        let peer = slow.peer.map(|peer| alloc::format!("{peer}")).unwrap_or_default();
        call.reply.bulk(peer.as_bytes());
        call.reply.bulk(&slow.name);
    }
    Ok(Done::Answered)
}

fn len(call: &mut Call<'_>) -> Result<Done, Fault> {
    let len = call.host.survey().slowlog.len().min(call.host.config().slowlog_len());
    call.int(len as i64)
}

fn reset(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.order(Order::ResetSlowlog, Then::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_cut() {
        let long = [b'x'; 200];
        let words = cut("set", &[b"k", &long]);
        assert_eq!(&*words[1], b"k");
        assert!(words[2].ends_with(b"... (72 more bytes)"));
        let many = alloc::vec![b"a".as_slice(); 40];
        let words = cut("del", &many);
        assert_eq!(words.len(), 32);
        assert_eq!(&*words[31], b"... (10 more arguments)");
    }

    #[test]
    fn the_oldest_entries_are_dropped() {
        let mut slowlog = Slowlog::default();
        for micros in 0..5 {
            let slow = Slow { at: Micros(0), micros, words: Vec::new(), peer: None, name: Box::default() };
            slowlog.push(slow, 3);
        }
        let kept: Vec<u64> = slowlog.entries.iter().map(|(id, _)| *id).collect();
        assert_eq!(kept, [4, 3, 2]);
    }
}
