//! COMMAND: what commands there are, told from the store's table and the sessions' own.

use alloc::vec::Vec;

use storage::command::summary::summary;
use storage::object::glob::{Case, matches};
use storage::{Command, Fault, Flags, Keys, Kind, Registry, Reply};

use super::RespReply;
use super::call::{Call, Done, is};
use super::table::{self, Found, Row, Traits, help};

/// The categories of `ACL CAT`.
pub(super) const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// One command, whoever runs it.
#[derive(Clone, Copy)]
enum Entry {
    Stored(&'static Command),
    Own(&'static Row),
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Entry::Stored(command) => command.name,
            Entry::Own(row) => row.name,
        }
    }

    const fn arity(self) -> i8 {
        match self {
            Entry::Stored(command) => command.arity,
            Entry::Own(row) => row.arity,
        }
    }

    fn subs(self) -> &'static [Row] {
        match self {
            Entry::Stored(_) => &[],
            Entry::Own(row) => row.subs,
        }
    }

    /// The group of its documentation. The store's families have each a range of ids.
    fn group(self) -> &'static str {
        match self {
            Entry::Own(row) => row.group,
            Entry::Stored(command) => match command.id {
                0x180..0x200 => "bitmap",
                0x100..0x200 => "string",
                0x300..0x400 => "list",
                0x400..0x500 => "set",
                0x500..0x600 => "hash",
                0x600..0x700 => "sorted-set",
                0x700..0x800 => "scripting",
                _ => "generic",
            },
        }
    }

    fn flags(self) -> Vec<&'static str> {
        let table: [(&'static str, bool); 10] = match self {
            Entry::Stored(command) => {
                let has = |flag| command.flags.has(flag);
                [
                    ("write", command.kind == Kind::Write),
                    ("readonly", command.kind == Kind::Read),
                    ("denyoom", has(Flags::DENY_OOM)),
                    ("noscript", has(Flags::NO_SCRIPT)),
                    ("blocking", has(Flags::BLOCKING)),
                    ("fast", has(Flags::FAST)),
                    (
                        "movablekeys",
                        matches!(
                            command.keys,
                            Keys::Counted(_) | Keys::OneAndCounted(..) | Keys::OneAndStored
                        ),
                    ),
                    ("", false),
                    ("", false),
                    ("", false),
                ]
            }
            Entry::Own(row) => {
                let has = |traits| row.traits.has(traits);
                [
                    ("write", has(Traits::WRITE)),
                    ("admin", has(Traits::ADMIN)),
                    ("pubsub", has(Traits::PUBSUB)),
                    ("noscript", has(Traits::NO_SCRIPT)),
                    ("loading", !has(Traits::WRITE)),
                    ("stale", !has(Traits::WRITE)),
                    ("fast", has(Traits::FAST)),
                    ("no_auth", has(Traits::NO_AUTH)),
                    ("no_multi", has(Traits::NO_MULTI)),
                    ("", false),
                ]
            }
        };
        table.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect()
    }

    /// Its ACL categories, without the `@`.
    fn categories(self) -> Vec<&'static str> {
        let flags = self.flags();
        let has = |flag| flags.contains(&flag);
        let group = match self.group() {
            "generic" => "keyspace",
            "sorted-set" => "sortedset",
            "transactions" => "transaction",
            other => other,
        };
        let mut categories = Vec::new();
        for (name, set) in [
            (group, CATEGORIES.contains(&group)),
            ("write", has("write")),
            ("read", has("readonly")),
            ("admin", has("admin")),
            ("fast", has("fast")),
            ("slow", !has("fast")),
            ("blocking", has("blocking")),
            ("dangerous", has("admin")),
        ] {
            if set && !categories.contains(&name) {
                categories.push(name);
            }
        }
        categories.sort_by_key(|name| CATEGORIES.iter().position(|other| other == name));
        categories
    }

    /// First key, last key, step, as `COMMAND` tells them.
    fn key_range(self) -> (i8, i8, i8) {
        match self {
            Entry::Stored(command) => match command.keys {
                Keys::Range { first, last, step } => (first, last, step),
                Keys::OneAndCounted(one, _) => (one as i8, one as i8, 1),
                Keys::OneAndStored => (1, 1, 1),
                Keys::None | Keys::Counted(_) => (0, 0, 0),
            },
            Entry::Own(row) => match row.name {
                "move" => (1, 1, 1),
                "copy" => (1, 2, 1),
                "watch" => (1, -1, 1),
                _ => (0, 0, 0),
            },
        }
    }

    /// The keys among `args`, if it has any.
    fn keys<'a>(self, args: &[&'a [u8]]) -> Vec<&'a [u8]> {
        match self {
            Entry::Stored(command) => command.key_positions(args).iter().map(|&at| args[at]).collect(),
            Entry::Own(_) => match self.key_range() {
                (0, ..) => Vec::new(),
                (_, -1, _) => args.to_vec(),
                (_, last, _) => args.iter().take(last as usize).copied().collect(),
            },
        }
    }

    const fn takes(self, words: usize) -> bool {
        let arity = self.arity();
        if arity >= 0 { words == arity as usize } else { words >= arity.unsigned_abs() as usize }
    }
}

/// All commands: the store's, and those of sessions that it does not have.
fn entries(registry: &Registry) -> Vec<Entry> {
    let stored = registry.iter().filter(|command| !command.name.contains('|')).map(Entry::Stored);
    let own = table::rows().filter(|row| registry.find(row.name.as_bytes()).is_none()).map(Entry::Own);
    stored.chain(own).collect()
}

/// The command or subcommand that `name` stands for.
fn entry(registry: &Registry, name: &[u8]) -> Option<Entry> {
    if let Some(command) = registry.find(name).filter(|command| !command.flags.has(Flags::INTERNAL)) {
        return Some(Entry::Stored(command));
    }
    let mut words = name.splitn(2, |&byte| byte == b'|');
    let (first, rest): (&[u8], Vec<&[u8]>) = (words.next()?, words.collect());
    match table::find(first, &rest) {
        Found::Row(row, []) if !row.traits.has(Traits::UNOFFERED) => Some(Entry::Own(row)),
        Found::Row(..) | Found::NoSub(_) | Found::None => None,
    }
}

/// The names of the commands in an ACL category.
pub(super) fn names_in(registry: &Registry, category: &str) -> Vec<&'static str> {
    let entries = entries(registry);
    entries.iter().filter(|entry| entry.categories().contains(&category)).map(|entry| entry.name()).collect()
}

fn strings(reply: &mut RespReply<'_>, words: &[&str], prefix: &str) {
    reply.set(words.len());
    for word in words {
        reply.simple(&alloc::format!("{prefix}{word}"));
    }
}

fn put_info(reply: &mut RespReply<'_>, entry: Entry) {
    reply.array(10);
    reply.bulk(entry.name().as_bytes());
    reply.int(i64::from(entry.arity()));
    strings(reply, &entry.flags(), "");
    let (first, last, step) = entry.key_range();
    [first, last, step].into_iter().for_each(|number| reply.int(i64::from(number)));
    strings(reply, &entry.categories(), "@");
    reply.array(0);
    put_key_specs(reply, entry);
    reply.array(entry.subs().len());
    for sub in entry.subs() {
        put_info(reply, Entry::Own(sub));
    }
}

/// Where keys are, as RESP3-style maps: an index to begin at, and a range or a count.
fn put_key_specs(reply: &mut RespReply<'_>, entry: Entry) {
    let counted = match entry {
        Entry::Stored(command) => match command.keys {
            Keys::Counted(at) | Keys::OneAndCounted(_, at) => Some(at),
            Keys::None | Keys::Range { .. } | Keys::OneAndStored => None,
        },
        Entry::Own(_) => None,
    };
    let (first, last, step) = entry.key_range();
    reply.array(usize::from(first != 0) + usize::from(counted.is_some()));
    let access = if entry.flags().contains(&"write") { "RW" } else { "RO" };
    let mut head = |begin: i8, kind: &str, fields: &[(&str, i8)]| {
        reply.map(3);
        reply.bulk(b"flags");
        strings(reply, &[access], "");
        for (part, kind, fields) in
            [("begin_search", "index", &[("index", begin)] as &[(&str, i8)]), ("find_keys", kind, fields)]
        {
            reply.bulk(part.as_bytes());
            reply.map(2);
            reply.bulk(b"type");
            reply.bulk(kind.as_bytes());
            reply.bulk(b"spec");
            reply.map(fields.len());
            for (name, value) in fields {
                reply.bulk(name.as_bytes());
                reply.int(i64::from(*value));
            }
        }
    };
    if first != 0 {
        let relative = if last < 0 { last } else { last - first };
        head(first, "range", &[("lastkey", relative), ("keystep", step), ("limit", 0)]);
    }
    if let Some(at) = counted {
        head(at as i8, "keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]);
    }
}

/// This family's rows.
pub(super) const ROWS: &[Row] = &[{
    let mut row = Row::container("command", "server", COMMAND).since("2.8.13").about("Tells about commands.");
    row.arity = -1;
    row.run = all;
    row
}];

const COMMAND: &[Row] = &[
    Row::new("command|count", 2, "server", count).since("2.8.13").about("How many commands there are."),
    Row::new("command|docs", -2, "server", docs)
        .since("7.0.0")
        .syntax("[<command> ...]")
        .about("What commands are for."),
    Row::new("command|getkeys", -4, "server", getkeys)
        .since("2.8.13")
        .syntax("<command> [<arg> ...]")
        .about("The keys of a whole command."),
    Row::new("command|getkeysandflags", -4, "server", getkeysandflags)
        .since("7.0.0")
        .syntax("<command> [<arg> ...]")
        .about("The keys of a whole command and what it does with them."),
    Row::new("command|info", -2, "server", infos)
        .since("2.8.13")
        .syntax("[<command> ...]")
        .about("Arity, flags and keys of commands."),
    Row::new("command|list", -2, "server", list)
        .since("7.0.0")
        .syntax("[FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]")
        .about("The names of commands."),
    Row::new("command|help", 2, "server", help).since("5.0.0"),
];

fn all(call: &mut Call<'_>) -> Result<Done, Fault> {
    let entries = entries(call.host.registry());
    call.reply.array(entries.len());
    entries.into_iter().for_each(|entry| put_info(&mut call.reply, entry));
    Ok(Done::Answered)
}

fn count(call: &mut Call<'_>) -> Result<Done, Fault> {
    let count = entries(call.host.registry()).len();
    call.int(count as i64)
}

fn infos(call: &mut Call<'_>) -> Result<Done, Fault> {
    if call.args.is_empty() {
        return all(call);
    }
    call.reply.array(call.args.len());
    for name in call.args {
        match entry(call.host.registry(), name) {
            Some(entry) => put_info(&mut call.reply, entry),
            None => call.reply.null(),
        }
    }
    Ok(Done::Answered)
}

fn docs(call: &mut Call<'_>) -> Result<Done, Fault> {
    let registry = call.host.registry();
    let chosen: Vec<Entry> = match call.args {
        [] => entries(registry),
        names => names.iter().filter_map(|name| entry(registry, name)).collect(),
    };
    call.reply.map(chosen.len());
    for entry in chosen {
        put_doc(&mut call.reply, entry);
    }
    Ok(Done::Answered)
}

fn put_doc(reply: &mut RespReply<'_>, entry: Entry) {
    reply.bulk(entry.name().as_bytes());
    let mut fields: Vec<(&str, &str)> = Vec::new();
    match entry {
        Entry::Own(row) => {
            fields.push(("summary", if row.summary.is_empty() { "Prints the help." } else { row.summary }));
            fields.push(("since", row.since));
        }
        Entry::Stored(command) => fields.extend(summary(command.name).map(|text| ("summary", text))),
    }
    fields.push(("group", entry.group()));
    let subs = entry.subs();
    reply.map(fields.len() + usize::from(!subs.is_empty()));
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if !subs.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subs.len());
        subs.iter().for_each(|sub| put_doc(reply, Entry::Own(sub)));
    }
}

/// The command in `args` and its keys.
fn keys_of<'a>(call: &Call<'a>) -> Result<(Entry, Vec<&'a [u8]>), Fault> {
    let (name, args) = (call.args[0], &call.args[1..]);
    let found = if name.contains(&b'|') { None } else { entry(call.host.registry(), name) };
    let entry = found.ok_or(Fault::Text("ERR Invalid command specified"))?;
    if entry.key_range().0 == 0 && !entry.flags().contains(&"movablekeys") {
        return Err(Fault::Text("ERR The command has no key arguments"));
    }
    if !entry.takes(call.args.len()) {
        return Err(Fault::Text("ERR Invalid number of arguments specified for command"));
    }
    let keys = entry.keys(args);
    if keys.is_empty() {
        return Err(Fault::Text("ERR Invalid arguments specified for command"));
    }
    Ok((entry, keys))
}

fn getkeys(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (_, keys) = keys_of(call)?;
    call.reply.array(keys.len());
    keys.iter().for_each(|key| call.reply.bulk(key));
    Ok(Done::Answered)
}

fn getkeysandflags(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (entry, keys) = keys_of(call)?;
    let access = if entry.flags().contains(&"write") { "RW" } else { "RO" };
    call.reply.array(keys.len());
    for key in keys {
        call.reply.array(2);
        call.reply.bulk(key);
        strings(&mut call.reply, &[access], "");
    }
    Ok(Done::Answered)
}

fn list(call: &mut Call<'_>) -> Result<Done, Fault> {
    let registry = call.host.registry();
    let mut chosen = entries(registry);
    match *call.args {
        [] => {}
        [filter, kind, value] if is(filter, "filterby") => match () {
            () if is(kind, "module") => chosen.clear(),
            () if is(kind, "aclcat") => {
                chosen.retain(|entry| entry.categories().iter().any(|category| is(value, category)));
            }
            () if is(kind, "pattern") => {
                let pattern = value.to_ascii_lowercase();
                chosen.retain(|entry| matches(&pattern, entry.name().as_bytes(), Case::Exact));
            }
            () => return Err(Fault::Syntax),
        },
        _ => return Err(Fault::Syntax),
    }
    call.reply.array(chosen.len());
    chosen.iter().for_each(|entry| call.reply.bulk(entry.name().as_bytes()));
    Ok(Done::Answered)
}
