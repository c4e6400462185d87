//! The commands that sessions answer themselves: what each is called, what it is, what runs it.

use alloc::format;

use storage::{Fault, Reply};

use super::call::{Call, Done, Run, is};
use super::{
    acl, client, cluster, config, debug, function, hello, info, introspect, keyspaces, latency, pubsub,
    server, slowlog, transaction, unoffered,
};

/// What there is to know of a command besides its arity, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits(pub u32);

impl Traits {
    pub const NONE: Traits = Traits(0);
    /// Allowed before authentication.
    pub const NO_AUTH: Traits = Traits(1);
    /// Allowed with subscriptions in RESP2.
    pub const SUBSCRIBED: Traits = Traits(2);
    /// Held back by `CLIENT PAUSE … WRITE`.
    pub const CHANGES: Traits = Traits(4);
    /// Runs at once inside MULTI.
    pub const UNQUEUED: Traits = Traits(8);
    /// Refused inside MULTI.
    pub const NO_MULTI: Traits = Traits(16);
    /// Need not wait for the connection's earlier commands.
    pub const NOW: Traits = Traits(32);
    /// The store has a command of that name too.
    pub const PARTLY: Traits = Traits(64);
    /// Tells of the whole node: what the other workers tell is gathered first.
    pub const NODE: Traits = Traits(256);
    /// Not offered: hidden from `COMMAND`.
    pub const UNOFFERED: Traits = Traits(128);
    // What `COMMAND INFO` tells.
    pub const ADMIN: Traits = Traits(1 << 16);
    pub const FAST: Traits = Traits(1 << 17);
    pub const NO_SCRIPT: Traits = Traits(1 << 18);
    pub const PUBSUB: Traits = Traits(1 << 19);
    pub const WRITE: Traits = Traits(1 << 20);

    pub const fn and(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    pub const fn has(self, other: Traits) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One command, or one subcommand (`container|sub`).
#[derive(Debug)]
pub(super) struct Row {
    pub name: &'static str,
    /// As in Redis: words, negative for "at least".
    pub arity: i8,
    pub traits: Traits,
    pub group: &'static str,
    pub since: &'static str,
    /// Arguments, for HELP; only subcommands have it.
    pub syntax: &'static str,
    pub summary: &'static str,
    pub run: Run,
    pub subs: &'static [Row],
}

impl Row {
    pub const fn new(name: &'static str, arity: i8, group: &'static str, run: Run) -> Row {
        Row {
            name,
            arity,
            traits: Traits::NONE,
            group,
            since: "1.0.0",
            syntax: "",
            summary: "",
            run,
            subs: &[],
        }
    }

    /// A command that has only subcommands.
    pub const fn container(name: &'static str, group: &'static str, subs: &'static [Row]) -> Row {
        let mut row = Row::new(name, -2, group, lone);
        row.subs = subs;
        row
    }

    pub const fn with(mut self, traits: Traits) -> Row {
        self.traits = self.traits.and(traits);
        self
    }

    pub const fn since(mut self, since: &'static str) -> Row {
        self.since = since;
        self
    }

    pub const fn about(mut self, summary: &'static str) -> Row {
        self.summary = summary;
        self
    }

    pub const fn syntax(mut self, syntax: &'static str) -> Row {
        self.syntax = syntax;
        self
    }

    /// Words of its name.
    pub fn words(&self) -> usize {
        1 + usize::from(self.name.contains('|'))
    }

    /// The last word of its name.
    pub fn last_word(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, sub)| sub)
    }
}

/// Every family's rows. PING is first: it is the one that is sent often.
const FAMILIES: [&[Row]; 15] = [
    server::ROWS,
    hello::ROWS,
    keyspaces::ROWS,
    pubsub::ROWS,
    transaction::ROWS,
    client::ROWS,
    config::ROWS,
    introspect::ROWS,
    info::ROWS,
    slowlog::ROWS,
    latency::ROWS,
    acl::ROWS,
    debug::ROWS,
    cluster::ROWS,
    function::ROWS,
];

/// All commands that sessions answer.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().copied().flatten()
}

/// What a name stands for.
pub(super) enum Found<'a, 'b> {
    /// This command with these arguments.
    Row(&'static Row, &'a [&'b [u8]]),
    /// A container that has no such subcommand here.
    NoSub(&'static Row),
    /// Nothing that sessions know.
    None,
}

/// The command that `name` and the subcommand among `args` stand for.
pub(super) fn find<'a, 'b>(name: &[u8], args: &'a [&'b [u8]]) -> Found<'a, 'b> {
    let all = rows().chain(unoffered::ROWS);
    let Some(row) = all.into_iter().find(|row| is(name, row.name)) else { return Found::None };
    match args {
        [sub, rest @ ..] if !row.subs.is_empty() => {
            let found = row.subs.iter().find(|row| is(sub, row.last_word()));
            found.map_or(Found::NoSub(row), |sub| Found::Row(sub, rest))
        }
        args => Found::Row(row, args),
    }
}

/// A container without subcommand never gets past its arity.
fn lone(call: &mut Call<'_>) -> Result<Done, Fault> {
    Err(call.arity())
}

/// The HELP of the container that `call` is a subcommand of.
pub(super) fn help(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (container, _) = call.row.name.split_once('|').expect("HELP is a subcommand");
    let subs = rows().find(|row| row.name == container).map_or(&[] as &[Row], |row| row.subs);
    let lines = subs.iter().filter(|row| row.last_word() != "help");
    call.reply.array(3 + 2 * lines.clone().count());
    let upper = container.to_ascii_uppercase();
    call.reply.simple(&format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for row in lines {
        let space = if row.syntax.is_empty() { "" } else { " " };
        call.reply.simple(&format!("{}{space}{}", row.last_word().to_ascii_uppercase(), row.syntax));
        call.reply.simple(&format!("    {}", row.summary));
    }
    call.reply.simple("HELP");
    call.reply.simple("    Prints this help.");
    Ok(Done::Answered)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_has_one_row() {
        let mut seen = BTreeSet::new();
        for row in rows().chain(unoffered::ROWS) {
            assert!(seen.insert(row.name), "{} is there twice", row.name);
            for sub in row.subs {
                assert!(seen.insert(sub.name), "{} is there twice", sub.name);
                assert!(sub.name.starts_with(row.name), "{} is not {}'s", sub.name, row.name);
                assert_eq!(sub.words(), 2);
            }
        }
    }
}
