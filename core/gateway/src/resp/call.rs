//! One run of a session's own command.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use storage::command::generic::LITERAL;
use storage::entry::put_command;
use storage::object::parse_canonical;
use storage::{Fault, Reply};

use super::RespReply;
use super::host::{Host, Submitted};
use super::session::Session;
use super::table::Row;

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On its own.
    Direct,
    /// As a part of EXEC: it may not wait.
    Exec,
}

/// How a command ended that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// Its answer is written.
    Answered,
    /// Its answer comes from elsewhere, or there is none.
    Silent,
    /// The store was given it, and answers and counts it if it took it.
    Stored(Submitted),
    /// It cannot run yet; nothing was done.
    Later,
    /// It is the store's after all.
    Store,
}

/// A handler: it checks its arguments before it does anything.
pub(super) type Run = fn(&mut Call<'_>) -> Result<Done, Fault>;

/// What a handler works with.
pub(super) struct Call<'a> {
    pub session: &'a mut Session,
    pub host: &'a mut dyn Host,
    pub row: &'static Row,
    /// Without the names of command and subcommand.
    pub args: &'a [&'a [u8]],
    pub reply: RespReply<'a>,
    pub place: Place,
    /// In EXEC: what is run in this command's place, encoded as in an entry.
    pub embedded: Option<Vec<u8>>,
}

impl Call<'_> {
    /// In EXEC, lets the store run `id` where this command stood.
    pub fn embed(&mut self, id: u16, args: &[&[u8]]) {
        let mut body = Vec::new();
        put_command(&mut body, id, args);
        self.embedded = Some(body);
    }

    pub fn ok(&mut self) -> Result<Done, Fault> {
        self.reply.ok();
        Ok(Done::Answered)
    }

    pub fn int(&mut self, value: i64) -> Result<Done, Fault> {
        self.reply.int(value);
        Ok(Done::Answered)
    }

    pub fn arity(&self) -> Fault {
        Fault::Arity(self.row.name)
    }

    /// What Redis says when a subcommand cannot place its arguments.
    pub fn misplaced(&self) -> Fault {
        let upper = self.row.name.to_ascii_uppercase();
        let (container, sub) = upper.split_once('|').unwrap_or((&upper, ""));
        let text =
            format!("ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {container} HELP.");
        Fault::Said(text)
    }
}

/// An answer in the place of a command in EXEC.
pub(super) fn literal(encoded: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_command(&mut body, LITERAL, &[encoded]);
    body
}

/// Whether `word` is `expected` (lower case) in any case.
pub(super) fn is(word: &[u8], expected: &str) -> bool {
    word.eq_ignore_ascii_case(expected.as_bytes())
}

pub(super) fn integer(word: &[u8]) -> Result<i64, Fault> {
    parse_canonical(word).ok_or(Fault::NotInteger)
}

/// An index as Redis reads them: 32 bits.
pub(super) fn index(word: &[u8]) -> Result<i32, Fault> {
    const RANGE: Fault =
        Fault::Text("ERR value is out of range, value must between -2147483648 and 2147483647");
    i32::try_from(integer(word)?).map_err(|_| RANGE)
}

/// The beginning of what a client sent, to be shown in an error.
pub(super) fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(128)]).into_owned()
}
