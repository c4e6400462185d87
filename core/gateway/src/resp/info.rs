//! INFO: what the node knows of itself, in the sections and fields that clients parse.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::{KeyspaceId, Micros};
use storage::{Fault, Reply};

use super::call::{Call, Done, is};
use super::config::Config;
use super::hello::REDIS_VERSION;
use super::table::{Row, Traits};

/// What the process around the node knows; the host refreshes it about once a second.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The version of this program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Where Redis's clients reach it: `ip:port`.
    pub address: String,
    /// The port of that.
    pub port: u16,
    /// The program's file.
    pub executable: String,
    /// The configuration file, if any.
    pub config_file: String,
    /// The operating system, release and machine.
    pub os: String,
    /// Forty hexadecimal digits, drawn at the start.
    pub run_id: String,
    /// Bytes the allocator gave out.
    pub used_bytes: u64,
    /// The most that ever was.
    pub peak_bytes: u64,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Bytes of memory in the machine.
    pub machine_bytes: u64,
    /// Processor time in the program, in microseconds.
    pub cpu_user_micros: u64,
    /// Processor time in the kernel, in microseconds.
    pub cpu_system_micros: u64,
    /// When the last checkpoint was finished.
    pub checkpoint_at: Micros,
    /// Checkpoints finished since the start.
    pub checkpoints: u64,
    /// One is being written.
    pub checkpoint_running: bool,
    /// The last one could not be written.
    pub checkpoint_failed: bool,
    /// The log refuses writes.
    pub log_failed: bool,
    /// Bytes read from clients.
    pub net_input_bytes: u64,
    /// Bytes written to clients.
    pub net_output_bytes: u64,
}

/// A keyspace in figures.
#[derive(Clone, Copy, Debug)]
pub struct Keyspace {
    /// Which.
    pub id: KeyspaceId,
    /// Its keys.
    pub keys: usize,
    /// Those of them that expire.
    pub expires: usize,
}

impl Keyspace {
    /// Makes the figures of each keyspace's partitions one, in the order of the keyspaces.
    pub fn join(all: &mut Vec<Keyspace>) {
        all.sort_unstable_by_key(|keyspace| keyspace.id);
        all.dedup_by(|next, sum| {
            let same = next.id == sum.id;
            if same {
                sum.keys += next.keys;
                sum.expires += next.expires;
            }
            same
        });
    }
}

/// What `INFO` tells, besides the settings.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Of the process.
    pub process: Process,
    /// Now.
    pub now: Micros,
    /// When the worker was started.
    pub started: Micros,
    /// Connections.
    pub clients: usize,
    /// Those that wait in a blocking command.
    pub blocked: usize,
    /// Connections accepted since the start.
    pub connections: u64,
    /// Connections refused since the start.
    pub rejected: u64,
    /// Commands since the start.
    pub commands: u64,
    /// Keys that reads found.
    pub hits: u64,
    /// Keys that reads did not find.
    pub misses: u64,
    /// Keys whose time was over.
    pub expired: u64,
    /// Keys deleted by a policy at the memory budget.
    pub evicted: u64,
    /// Channels with subscribers.
    pub channels: usize,
    /// Patterns with subscribers.
    pub patterns: usize,
    /// Estimated bytes of all objects in memory.
    pub object_bytes: usize,
    /// Keyspaces that have keys.
    pub keyspaces: Vec<Keyspace>,
    /// It is told to a client that came by the port of cluster clients.
    pub cluster: bool,
    /// Behind of partitions that others lead.
    pub copies: Behind,
}

/// How far behind the copies are that do not lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many they are.
    pub count: usize,
    /// Of how many it is known how far they are behind at most: those that were read in the last 10 s.
    pub known: usize,
    /// The most that one of those may be behind, in milliseconds.
    pub behind_ms_max: u64,
}

impl Facts {
    /// Takes in another worker's. Channels and patterns have names: whoever knows them counts them.
    pub fn add(&mut self, other: &Facts) {
        self.started = self.started.min(other.started);
        self.clients += other.clients;
        self.blocked += other.blocked;
        self.connections += other.connections;
        self.rejected += other.rejected;
        self.commands += other.commands;
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.object_bytes += other.object_bytes;
        self.copies.count += other.copies.count;
        self.copies.known += other.copies.known;
        self.copies.behind_ms_max = self.copies.behind_ms_max.max(other.copies.behind_ms_max);
        self.keyspaces.extend_from_slice(&other.keyspaces);
        Keyspace::join(&mut self.keyspaces);
    }
}

/// This family's rows.
pub(super) const ROWS: &[Row] =
    &[Row::new("info", -1, "server", info).with(Traits::NODE).about("Tells about the node, by sections.")];

type Section = (&'static str, fn(&Facts, &Config, &mut String));

macro_rules! fields {
    ($out:expr, $($name:literal: $value:expr,)*) => {
        $($out.push_str(&format!(concat!($name, ":{}\r\n"), $value));)*
    };
}

/// In the order they are told.
const SECTIONS: &[Section] = &[
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("modules", |_, _, _| {}),
    ("errorstats", |_, _, _| {}),
    ("cluster", |facts, _, out| {
        fields! { out, "cluster_enabled": u8::from(facts.cluster), }
    }),
    ("keyspace", keyspace),
];

fn info(call: &mut Call<'_>) -> Result<Done, Fault> {
    let all = |name: &[u8]| is(name, "all") || is(name, "everything") || is(name, "default");
    let everything = call.args.is_empty() || call.args.iter().any(|name| all(name));
    let mut facts = call.host.survey().facts;
    facts.cluster = call.host.io().cluster;
    let mut text = String::new();
    for (name, write) in SECTIONS {
        if !everything && !call.args.iter().any(|arg| is(arg, name)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let (first, rest) = name.split_at(1);
        let title = if *name == "cpu" { "CPU".into() } else { first.to_ascii_uppercase() + rest };
        text.push_str(&format!("# {title}\r\n"));
        write(&facts, call.host.config(), &mut text);
    }
    call.reply.verbatim(&text);
    Ok(Done::Answered)
}

fn server(facts: &Facts, config: &Config, out: &mut String) {
    let process = &facts.process;
    let uptime = facts.now.since(facts.started) / 1_000_000;
    fields! { out,
        "redis_version": REDIS_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_mode": if facts.cluster { "cluster" } else { "standalone" },
        "archipel_version": process.version,
        "os": process.os,
        "arch_bits": usize::BITS,
        "multiplexing_api": "epoll",
        "process_id": process.pid,
        "run_id": process.run_id,
        "tcp_port": process.port,
        "server_time_usec": facts.now.0,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime / 86_400,
        "hz": config.get("hz").unwrap_or_default(),
        "configured_hz": config.get("hz").unwrap_or_default(),
        "lru_clock": (facts.now.0 / 1_000_000) & 0xFF_FFFF,
        "executable": process.executable,
        "config_file": process.config_file,
        "io_threads_active": 0,
    }
}

fn clients(facts: &Facts, config: &Config, out: &mut String) {
    fields! { out,
        "connected_clients": facts.clients,
        "cluster_connections": 0,
        "maxclients": config.maxclients(),
        "blocked_clients": facts.blocked,
        "tracking_clients": 0,
    }
}

/// Bytes as people read them.
fn human(bytes: u64) -> String {
    let units = [(1 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

fn memory(facts: &Facts, config: &Config, out: &mut String) {
    let process = &facts.process;
    let maxmemory = config.maxmemory();
    fields! { out,
        "used_memory": process.used_bytes,
        "used_memory_human": human(process.used_bytes),
        "used_memory_rss": process.rss_bytes,
        "used_memory_rss_human": human(process.rss_bytes),
        "used_memory_peak": process.peak_bytes,
        "used_memory_peak_human": human(process.peak_bytes),
        "used_memory_dataset": facts.object_bytes,
        "total_system_memory": process.machine_bytes,
        "total_system_memory_human": human(process.machine_bytes),
        "maxmemory": maxmemory,
        "maxmemory_human": human(maxmemory),
        "maxmemory_policy": config.get("maxmemory-policy").unwrap_or_default(),
        "mem_fragmentation_ratio": format!("{:.2}", process.rss_bytes as f64 / process.used_bytes.max(1) as f64),
        "mem_allocator": "jemalloc",
        "active_defrag_running": 0,
        "lazyfree_pending_objects": 0,
    }
}

fn persistence(facts: &Facts, _: &Config, out: &mut String) {
    let process = &facts.process;
    let status = |failed: bool| if failed { "err" } else { "ok" };
    fields! { out,
        "loading": 0,
        "async_loading": 0,
        "rdb_bgsave_in_progress": u8::from(process.checkpoint_running),
        "rdb_last_save_time": process.checkpoint_at.0 / 1_000_000,
        "rdb_last_bgsave_status": status(process.checkpoint_failed),
        "rdb_saves": process.checkpoints,
        "aof_enabled": 1,
        "aof_rewrite_in_progress": u8::from(process.checkpoint_running),
        "aof_rewrite_scheduled": 0,
        "aof_last_bgrewrite_status": status(process.checkpoint_failed),
        "aof_last_write_status": status(process.log_failed),
    }
}

fn stats(facts: &Facts, _: &Config, out: &mut String) {
    fields! { out,
        "total_connections_received": facts.connections,
        "total_commands_processed": facts.commands,
        "total_net_input_bytes": facts.process.net_input_bytes,
        "total_net_output_bytes": facts.process.net_output_bytes,
        "rejected_connections": facts.rejected,
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": facts.expired,
        "evicted_keys": facts.evicted,
        "keyspace_hits": facts.hits,
        "keyspace_misses": facts.misses,
        "pubsub_channels": facts.channels,
        "pubsub_patterns": facts.patterns,
        "latest_fork_usec": 0,
    }
}

fn replication(facts: &Facts, _: &Config, out: &mut String) {
    fields! { out,
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": facts.process.run_id,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": 0,
        "copies": facts.copies.count,
        "copies_of_known_age": facts.copies.known,
        "copies_behind_ms_max": facts.copies.behind_ms_max,
    }
}

fn cpu(facts: &Facts, _: &Config, out: &mut String) {
    let seconds = |micros: u64| format!("{:.6}", micros as f64 / 1e6);
    fields! { out,
        "used_cpu_sys": seconds(facts.process.cpu_system_micros),
        "used_cpu_user": seconds(facts.process.cpu_user_micros),
    }
}

fn keyspace(facts: &Facts, _: &Config, out: &mut String) {
    for Keyspace { id, keys, expires } in &facts.keyspaces {
        out.push_str(&format!("db{id}:keys={keys},expires={expires},avg_ttl=0\r\n"));
    }
}
