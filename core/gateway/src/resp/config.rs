//! CONFIG and the live settings, under the names that Redis's clients and tools read.
//!
//! Settings of the node itself live in its configuration file; what stands here as fixed is told, not
//! changed. Thresholds of Redis's own encodings are accepted and have no effect: this store chooses its
//! encodings itself.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use storage::object::glob::{Case, matches};
use storage::object::parse_canonical;
use storage::{Fault, Reply};

use super::call::{Call, Done, is, shown};
use super::table::{Row, Traits, help};
use super::whole::{Order, Then};

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Text,
    YesNo,
    Number(i64, i64),
    /// Bytes, with the units `k`, `mb`, ….
    Bytes,
    /// One of these.
    Word(&'static [&'static str]),
    /// Seconds and changes in pairs.
    Save,
    /// Nothing else; why.
    Empty(&'static str),
}

/// Whether a client may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Fixed,
    Live,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    shape: Shape,
    change: Change,
}

const fn fixed(name: &'static str, default: &'static str) -> Setting {
    Setting { name, default, shape: Shape::Text, change: Change::Fixed }
}

const fn live(name: &'static str, default: &'static str, shape: Shape) -> Setting {
    Setting { name, default, shape, change: Change::Live }
}

const INT: Shape = Shape::Number(0, i32::MAX as i64);
const LONG: Shape = Shape::Number(0, i64::MAX);
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

/// In the order of their names.
const SETTINGS: &[Setting] = &[
    live("active-expire-effort", "1", Shape::Number(1, 10)),
    live("activedefrag", "no", Shape::YesNo),
    live("activerehashing", "yes", Shape::YesNo),
    fixed("aof-use-rdb-preamble", "no"),
    fixed("appendfsync", "always"),
    live("appendonly", "yes", Shape::Word(&["yes"])),
    live("auto-aof-rewrite-min-size", "67108864", Shape::Bytes),
    live("auto-aof-rewrite-percentage", "100", INT),
    fixed("bind", "127.0.0.1"),
    live("busy-reply-threshold", "5000", LONG),
    live("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 33554432 33554432 0", Shape::Text),
    live("client-query-buffer-limit", "1073741824", Shape::Bytes),
    fixed("cluster-enabled", "no"),
    fixed("daemonize", "no"),
    fixed("databases", "16"),
    fixed("dbfilename", ""),
    fixed("dir", ""),
    live("dynamic-hz", "yes", Shape::YesNo),
    fixed("enable-debug-command", "yes"),
    fixed("enable-module-command", "no"),
    live("hash-max-listpack-entries", "512", LONG),
    live("hash-max-listpack-value", "64", LONG),
    live("hash-max-ziplist-entries", "512", LONG),
    live("hash-max-ziplist-value", "64", LONG),
    live("hll-sparse-max-bytes", "3000", LONG),
    live("hz", "10", INT),
    fixed("io-threads", "1"),
    live("latency-monitor-threshold", "0", LONG),
    live("latency-tracking", "no", Shape::YesNo),
    live("lazyfree-lazy-eviction", "no", Shape::YesNo),
    live("lazyfree-lazy-expire", "no", Shape::YesNo),
    live("lazyfree-lazy-server-del", "no", Shape::YesNo),
    live("lazyfree-lazy-user-del", "no", Shape::YesNo),
    live("lazyfree-lazy-user-flush", "no", Shape::YesNo),
    live("lfu-decay-time", "1", INT),
    live("lfu-log-factor", "10", INT),
    live("list-compress-depth", "0", INT),
    live("list-max-listpack-size", "-2", Shape::Number(i32::MIN as i64, i32::MAX as i64)),
    live("list-max-ziplist-size", "-2", Shape::Number(i32::MIN as i64, i32::MAX as i64)),
    fixed("logfile", ""),
    live("loglevel", "notice", Shape::Word(&["debug", "verbose", "notice", "warning"])),
    live("lua-time-limit", "5000", LONG),
    live("maxclients", "10000", Shape::Number(1, u32::MAX as i64)),
    live("maxmemory", "0", Shape::Bytes),
    live("maxmemory-policy", "noeviction", Shape::Word(POLICIES)),
    live("maxmemory-samples", "5", Shape::Number(1, i32::MAX as i64)),
    live("min-replicas-to-write", "0", Shape::Number(0, 0)),
    live("min-slaves-to-write", "0", Shape::Number(0, 0)),
    live("no-appendfsync-on-rewrite", "no", Shape::YesNo),
    live("notify-keyspace-events", "", Shape::Empty("keyspace notifications are not offered by this server")),
    fixed("pidfile", ""),
    fixed("port", "6379"),
    fixed("protected-mode", "yes"),
    live("proto-max-bulk-len", "536870912", Shape::Number(1024 * 1024, 536_870_912)),
    live("rdbcompression", "yes", Shape::YesNo),
    fixed("repl-backlog-size", "0"),
    fixed("replica-read-only", "yes"),
    fixed("replicaof", ""),
    fixed("requirepass", ""),
    live("save", "", Shape::Save),
    live("set-max-intset-entries", "512", LONG),
    live("set-max-listpack-entries", "128", LONG),
    fixed("slaveof", ""),
    live("slowlog-log-slower-than", "10000", Shape::Number(-1, i64::MAX)),
    live("slowlog-max-len", "128", Shape::Number(0, 1 << 20)),
    live("stop-writes-on-bgsave-error", "yes", Shape::YesNo),
    live("stream-node-max-bytes", "4096", Shape::Bytes),
    live("stream-node-max-entries", "100", LONG),
    live("tcp-keepalive", "300", INT),
    live("timeout", "0", INT),
    fixed("tls-port", "0"),
    fixed("unixsocket", ""),
    live("zset-max-listpack-entries", "128", LONG),
    live("zset-max-listpack-value", "64", LONG),
    live("zset-max-ziplist-entries", "128", LONG),
    live("zset-max-ziplist-value", "64", LONG),
];

/// Old and new names of one setting: changing one changes the other.
const ALIASES: &[(&str, &str)] = &[
    ("busy-reply-threshold", "lua-time-limit"),
    ("hash-max-listpack-entries", "hash-max-ziplist-entries"),
    ("hash-max-listpack-value", "hash-max-ziplist-value"),
    ("list-max-listpack-size", "list-max-ziplist-size"),
    ("min-replicas-to-write", "min-slaves-to-write"),
    ("zset-max-listpack-entries", "zset-max-ziplist-entries"),
    ("zset-max-listpack-value", "zset-max-ziplist-value"),
];

fn alias(name: &str) -> Option<&'static str> {
    ALIASES.iter().find_map(|&(a, b)| match name {
        name if name == a => Some(b),
        name if name == b => Some(a),
        _ => None,
    })
}

/// The live settings of a node.
#[derive(Clone, Debug)]
pub struct Config {
    values: Vec<String>,
    slower_than: i64,
    idle_secs: u64,
    version: u64,
    /// What clients set, by its place.
    changed: BTreeSet<usize>,
}

impl Default for Config {
    fn default() -> Config {
        Config::new(&[])
    }
}

impl Config {
    /// The defaults, with what the node's own configuration says instead. Unknown names are passed over.
    #[must_use]
    pub fn new(overrides: &[(&str, String)]) -> Config {
        let value = |setting: &Setting| {
            let found = overrides.iter().rev().find(|(name, _)| *name == setting.name);
            found.map_or_else(|| setting.default.to_string(), |(_, value)| value.clone())
        };
        let values = SETTINGS.iter().map(value).collect();
        let mut config =
            Config { values, slower_than: 0, idle_secs: 0, version: 0, changed: BTreeSet::new() };
        config.settle();
        config
    }

    /// Counts the changes, so that a host can see cheaply that there was one.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The value of a setting as `CONFIG GET` tells it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = SETTINGS.iter().position(|setting| setting.name == name)?;
        Some(&self.values[at])
    }

    /// The value that clients gave a setting; `None` if it is as configured.
    #[must_use]
    pub fn changed(&self, name: &str) -> Option<&str> {
        let at = SETTINGS.iter().position(|setting| setting.name == name)?;
        self.changed.contains(&at).then(|| &*self.values[at])
    }

    fn number(&self, name: &str) -> i64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn settle(&mut self) {
        self.slower_than = self.number("slowlog-log-slower-than");
        self.idle_secs = self.number("timeout").unsigned_abs();
    }

    /// Microseconds from which on a turn is logged as slow; `None` if never.
    #[must_use]
    pub fn slower_than(&self) -> Option<u64> {
        u64::try_from(self.slower_than).ok()
    }

    /// Entries of the slow log.
    #[must_use]
    pub fn slowlog_len(&self) -> usize {
        self.number("slowlog-max-len").unsigned_abs() as usize
    }

    /// Milliseconds from which on an event is a spike; 0 if none is.
    #[must_use]
    pub fn latency_threshold_ms(&self) -> u64 {
        self.number("latency-monitor-threshold").unsigned_abs()
    }

    /// Seconds after which an idle client is closed; 0 if never.
    #[must_use]
    pub const fn idle_secs(&self) -> u64 {
        self.idle_secs
    }

    /// Most clients at once.
    #[must_use]
    pub fn maxclients(&self) -> usize {
        self.number("maxclients").unsigned_abs() as usize
    }

    /// Bytes that objects may take in memory; 0 for no limit.
    #[must_use]
    pub fn maxmemory(&self) -> u64 {
        self.number("maxmemory").unsigned_abs()
    }

    /// Sets all of `pairs` or, if one is refused, none.
    ///
    /// # Errors
    /// What is answered then.
    pub fn set(&mut self, pairs: &[(&[u8], &[u8])]) -> Result<(), Fault> {
        let mut planned: Vec<(usize, String)> = Vec::new();
        for (name, value) in pairs {
            let at = SETTINGS.iter().position(|setting| is(name, setting.name)).ok_or_else(|| {
                let name = shown(name);
                Fault::Said(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"))
            })?;
            let setting = &SETTINGS[at];
            let refused = |why: &str| {
                let name = shown(name);
                Fault::Said(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
            };
            if planned.iter().any(|(other, _)| *other == at) {
                return Err(refused("duplicate parameter"));
            }
            if setting.change == Change::Fixed {
                return Err(refused("can't set immutable config"));
            }
            let value = core::str::from_utf8(value).map_err(|_| refused("argument must be text"))?;
            planned.push((at, setting.shape.read(value).map_err(|why| refused(&why))?));
        }
        for (at, value) in planned {
            if let Some(other) = alias(SETTINGS[at].name) {
                let other = SETTINGS.iter().position(|setting| setting.name == other);
                self.values[other.expect("an alias is a setting")] = value.clone();
            }
            self.values[at] = value;
            self.changed.insert(at);
        }
        self.version += 1;
        self.settle();
        Ok(())
    }
}

impl Shape {
    /// The canonical spelling of `value`, or why it is refused.
    fn read(self, value: &str) -> Result<String, String> {
        match self {
            Shape::Text => Ok(value.to_string()),
            Shape::YesNo => {
                let lower = value.to_ascii_lowercase();
                if lower == "yes" || lower == "no" {
                    Ok(lower)
                } else {
                    Err("argument must be 'yes' or 'no'".into())
                }
            }
            Shape::Number(from, to) => {
                let number = parse_canonical(value.as_bytes())
                    .ok_or_else(|| String::from("argument couldn't be parsed into an integer"))?;
                if (from..=to).contains(&number) {
                    return Ok(number.to_string());
                }
                Err(format!("argument must be between {from} and {to} inclusive"))
            }
            Shape::Bytes => {
                let bytes = bytes_of(value).ok_or_else(|| String::from("argument must be a memory value"))?;
                Ok(bytes.to_string())
            }
            Shape::Word(words) => {
                let found = words.iter().find(|word| word.eq_ignore_ascii_case(value));
                found
                    .map(ToString::to_string)
                    .ok_or_else(|| format!("argument(s) must be one of the following: {}", words.join(", ")))
            }
            Shape::Empty(why) => {
                if value.is_empty() {
                    Ok(String::new())
                } else {
                    Err(why.into())
                }
            }
            Shape::Save => {
                let words: Vec<&str> = value.split_ascii_whitespace().collect();
                let valid =
                    words.len().is_multiple_of(2) && words.iter().all(|word| word.parse::<u32>().is_ok());
                if valid { Ok(words.join(" ")) } else { Err("Invalid save parameters".into()) }
            }
        }
    }
}

/// `100`, `100b`, `1k` (1000), `1kb` (1024), and so on to `gb`.
fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1024,
        "m" => 1_000_000,
        "mb" => 1024 * 1024,
        "g" => 1_000_000_000,
        "gb" => 1024 * 1024 * 1024,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

const ADMIN: Traits = Traits::ADMIN.and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] =
    &[Row::container("config", "server", CONFIG).since("2.0.0").about("Reads and changes settings.")];

const CONFIG: &[Row] = &[
    Row::new("config|get", -3, "server", get)
        .with(ADMIN)
        .since("2.0.0")
        .syntax("<pattern> [<pattern> ...]")
        .about("Settings whose names match any of the patterns."),
    Row::new("config|set", -4, "server", set)
        .with(ADMIN)
        .since("2.0.0")
        .syntax("<name> <value> [<name> <value> ...]")
        .about("Changes settings, all or none."),
    Row::new("config|resetstat", 2, "server", resetstat)
        .with(ADMIN)
        .since("2.0.0")
        .about("Sets the counters of INFO to 0."),
    Row::new("config|rewrite", 2, "server", rewrite)
        .with(ADMIN)
        .since("2.8.0")
        .about("Refused: the configuration file is not rewritten."),
    Row::new("config|help", 2, "server", help).since("5.0.0"),
];

fn get(call: &mut Call<'_>) -> Result<Done, Fault> {
    let patterns: Vec<Vec<u8>> = call.args.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let matching = |setting: &Setting| {
        patterns.iter().any(|pattern| matches(pattern, setting.name.as_bytes(), Case::Exact))
    };
    let config = call.host.config();
    let found = || SETTINGS.iter().zip(&config.values).filter(|(setting, _)| matching(setting));
    call.reply.map(found().count());
    for (setting, value) in found() {
        call.reply.bulk(setting.name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(Done::Answered)
}

fn set(call: &mut Call<'_>) -> Result<Done, Fault> {
    if !call.args.len().is_multiple_of(2) {
        return Err(Fault::Syntax);
    }
    let pairs: Vec<(&[u8], &[u8])> = call.args.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    // Checked here, so that all workers take it.
    call.host.config().clone().set(&pairs)?;
    let pairs = pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    call.order(Order::Configure(pairs), Then::Ok)
}

fn resetstat(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.order(Order::ResetCounters, Then::Ok)
}

fn rewrite(_: &mut Call<'_>) -> Result<Done, Fault> {
    Err(Fault::Text("ERR the configuration file is not rewritten; change it there to keep a setting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_sorted_and_their_defaults_valid() {
        assert!(SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for setting in SETTINGS {
            assert_eq!(
                setting.shape.read(setting.default).as_deref(),
                Ok(setting.default),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn one_refused_value_refuses_all() {
        let mut config = Config::default();
        let refused = config.set(&[(b"timeout", b"5"), (b"hz", b"x")]);
        assert!(refused.is_err());
        assert_eq!(config.get("timeout"), Some("0"));
        assert_eq!(config.version(), 0);
        config.set(&[(b"TIMEOUT", b"5"), (b"maxmemory", b"2mb")]).expect("both are valid");
        assert_eq!((config.idle_secs(), config.maxmemory(), config.version()), (5, 2 * 1024 * 1024, 1));
    }
}
