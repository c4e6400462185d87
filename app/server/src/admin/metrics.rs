//! The page that Prometheus scrapes.

use std::time::Duration;

use telemetry::{Exposition, Unit};

use super::Subject;
use super::snapshot::{KeyspaceFigures, Snapshot};
use crate::housekeep::{Memory, processor_micros};

/// All metrics. Those of keyspaces are left out while the worker does not answer.
pub(super) fn page(subject: &Subject, snapshot: Option<&Snapshot>, uptime: Duration, up: bool) -> String {
    let mut page = Exposition::default();
    page.gauge("archipel_up", "1 while the node serves.", u8::from(up));
    process(&mut page, uptime);
    clients(&mut page, subject);
    disk(&mut page, subject);
    if let Some(snapshot) = snapshot {
        by_kind(&mut page, snapshot);
        keyspaces(&mut page, subject, snapshot);
    }
    page.finish()
}

fn process(page: &mut Exposition, uptime: Duration) {
    let memory = Memory::read();
    let (user, system) = processor_micros().unwrap_or_default();
    page.gauge("archipel_uptime_seconds", "Time since the node was started.", uptime.as_secs());
    page.gauge("process_resident_memory_bytes", "Memory of the process.", memory.resident);
    let seconds = (user + system) as f64 / 1e6;
    page.counter("process_cpu_seconds_total", "Processor time of the process.", seconds);
}

fn clients(page: &mut Exposition, subject: &Subject) {
    page.gauge(
        "archipel_clients",
        "Redis clients connected.",
        subject.sum(|meters| meters.connections.get()),
    );
    page.counter(
        "archipel_clients_accepted_total",
        "Redis clients taken.",
        subject.sum(|meters| meters.accepted.get()),
    );
    page.counter(
        "archipel_clients_rejected_total",
        "Redis clients turned away: too many.",
        subject.sum(|meters| meters.rejected.get()),
    );
    page.counter(
        "archipel_input_bytes_total",
        "Bytes read from Redis clients.",
        subject.sum(|meters| meters.input_bytes.get()),
    );
    page.counter(
        "archipel_output_bytes_total",
        "Bytes sent to Redis clients.",
        subject.sum(|meters| meters.output_bytes.get()),
    );
    page.counter("archipel_commands_total", "Commands run.", subject.sum(|meters| meters.commands.get()));
    page.histogram(
        "archipel_turn_seconds",
        "Time of a turn: read, run, log, answer.",
        Unit::Micros,
        &subject.merged(|meters| &meters.turn_micros),
    );
    page.histogram(
        "archipel_turn_commands",
        "Commands of a turn that had any.",
        Unit::Count,
        &subject.merged(|meters| &meters.batch),
    );
    page.histogram(
        "archipel_sync_seconds",
        "Time from an append to the log until it is durable.",
        Unit::Micros,
        &subject.merged(|meters| &meters.sync_micros),
    );
}

fn disk(page: &mut Exposition, subject: &Subject) {
    let meters = &subject.meters;
    page.gauge("archipel_log_bytes", "Bytes of the log on disk.", meters.log_bytes.get());
    page.gauge(
        "archipel_log_refusing",
        "1 while the log refuses writes.",
        u64::from(meters.log_refusing.get() > 0),
    );
    page.gauge("archipel_log_failed", "1 once the log has failed for good.", meters.log_failed.get());
    page.counter("archipel_log_refusals_total", "Appends that were refused.", meters.log_refusals.get());
    page.gauge("archipel_directory_bytes", "Bytes of the data directory.", meters.directory_bytes.get());
    page.gauge(
        "archipel_quota_exceeded",
        "1 while storage.disk_quota is exceeded.",
        meters.quota_exceeded.get(),
    );
    page.histogram(
        "archipel_checkpoint_seconds",
        "Time of a checkpoint in the engine.",
        Unit::Micros,
        &meters.checkpoint_micros.distribution(),
    );
    page.gauge("archipel_checkpoints_running", "Checkpoints underway.", meters.checkpoint_running.get());
    page.gauge(
        "archipel_checkpoint_failed",
        "1 if the last checkpoint failed.",
        u64::from(meters.checkpoint_failed.get() > 0),
    );
    let at = meters.checkpoint_millis.get() as f64 / 1e3;
    page.gauge("archipel_checkpoint_timestamp_seconds", "When the last checkpoint was durable.", at);
    page.counter("archipel_evicted_keys_total", "Keys deleted by eviction.", meters.evicted_keys.get());
    page.counter("archipel_evicted_bytes_total", "Bytes moved out of memory.", meters.evicted_bytes.get());
    page.counter("archipel_misses_total", "Values read back from disk.", meters.misses.get());
    let blocking = meters.blocking_misses.get();
    page.counter("archipel_blocking_misses_total", "Values read back while the worker waited.", blocking);
}

fn by_kind(page: &mut Exposition, snapshot: &Snapshot) {
    let name = "archipel_command_calls_total";
    page.family(name, "counter", "Commands run, by name.");
    for (command, calls) in &snapshot.calls {
        page.sample(name, &[("command", command)], calls);
    }
}

type Figure = fn(&KeyspaceFigures) -> u64;

/// Name, help and figure of each metric of a keyspace.
const KEYSPACE: [(&str, &str, Figure); 5] = [
    ("archipel_keyspace_partitions", "Partitions.", |figures| figures.partitions as u64),
    ("archipel_keyspace_keys", "Keys.", |figures| figures.keys as u64),
    ("archipel_keyspace_expiring_keys", "Keys that expire.", |figures| figures.expiring as u64),
    ("archipel_keyspace_memory_bytes", "Memory of entries.", |figures| figures.memory_bytes as u64),
    ("archipel_keyspace_dirty_bytes", "Changed since the last checkpoint.", |figures| {
        figures.dirty_bytes as u64
    }),
];

fn keyspaces(page: &mut Exposition, subject: &Subject, snapshot: &Snapshot) {
    for (name, help, figure) in KEYSPACE {
        page.family(name, "gauge", help);
        for (figures, label) in snapshot.keyspaces.iter().zip(&subject.labels) {
            let id = figures.id.to_string();
            page.sample(name, &[("keyspace", label), ("id", &id)], figure(figures));
        }
    }
}
