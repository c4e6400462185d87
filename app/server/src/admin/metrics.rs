//! The page that Prometheus scrapes.

use std::time::Duration;

use fabric::link::LinkMeters;
use telemetry::trace::SpanQueue;
use telemetry::{Exposition, Unit};

use super::snapshot::{ClusterFigures, KeyspaceFigures, Snapshot};
use super::{Subject, proxied};
use crate::cluster::desk::Desk;
use crate::housekeep::{Memory, processor_micros};
use crate::otlp::OtlpMeters;

/// All metrics. Those of keyspaces are left out while the worker does not answer.
pub(super) fn page(subject: &Subject, snapshot: Option<&Snapshot>, uptime: Duration, up: bool) -> Exposition {
    let mut page = Exposition::default();
    page.gauge("archipel_up", "1 while the node serves.", u8::from(up));
    process(&mut page, uptime);
    clients(&mut page, subject);
    disk(&mut page, subject);
    if let Some(snapshot) = snapshot {
        by_kind(&mut page, snapshot);
        keyspaces(&mut page, subject, snapshot);
        if let Some(figures) = &snapshot.cluster {
            cluster(&mut page, figures);
        }
    }
    if let Some(meters) = subject.desk.as_deref().and_then(Desk::links) {
        links(&mut page, meters);
    }
    proxied::write(&mut page, &subject.proxy);
    proxied::write_standing(&mut page, &subject.steering.standing());
    if let Some(meters) = &subject.otlp {
        exported(&mut page, meters, &subject.proxy.spans);
    }
    page
}

/// What is sent to a collector, if anything is.
fn exported(page: &mut Exposition, meters: &OtlpMeters, queue: &SpanQueue) {
    let OtlpMeters { spans, points, failures } = meters;
    let lost = queue.dropped() + spans.dropped.get();
    let figures = [
        ("archipel_otlp_spans_exported_total", "Spans that the collector took.", spans.exported.get()),
        ("archipel_otlp_spans_rejected_total", "Spans that it rejected.", spans.rejected.get()),
        ("archipel_otlp_spans_dropped_total", "Spans that were not sent: too many, or refused.", lost),
        ("archipel_otlp_points_exported_total", "Points of metrics that it took.", points.exported.get()),
        ("archipel_otlp_points_rejected_total", "Points that it rejected.", points.rejected.get()),
        ("archipel_otlp_points_dropped_total", "Points that were given up.", points.dropped.get()),
        ("archipel_otlp_failures_total", "Requests to the collector that failed.", failures.get()),
    ];
    for (name, help, figure) in figures {
        page.counter(name, help, figure);
    }
    page.gauge("archipel_otlp_spans_waiting", "Spans that wait to be sent.", queue.len());
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
        "archipel_log_reserved_bytes",
        "Bytes of the log that are kept for backups only.",
        meters.log_reserved_bytes.get(),
    );
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
    page.counter(
        "archipel_log_entries_read_total",
        "Old entries read from the log for followers that lacked them.",
        meters.old_entries.get(),
    );
    page.counter(
        "archipel_snapshots_installed_total",
        "Snapshots taken over from leaders.",
        meters.installs.get(),
    );
}

/// What the node sees of its cluster.
fn cluster(page: &mut Exposition, figures: &ClusterFigures) {
    page.gauge("archipel_cluster_version", "Version of the cluster's state here.", figures.version);
    page.gauge("archipel_cluster_term", "Term of the control group.", figures.term);
    page.gauge(
        "archipel_cluster_leads_control",
        "1 while this node leads the control group.",
        u8::from(figures.leads_control),
    );
    let name = "archipel_cluster_members";
    page.family(name, "gauge", "Members by what this node thinks of them.");
    for (health, count) in &figures.members {
        page.sample(name, &[("health", health)], count);
    }
    page.gauge("archipel_cluster_partitions", "Partitions of the cluster.", figures.partitions);
    page.gauge(
        "archipel_cluster_partitions_led",
        "Partitions that have a leader, as far as this node knows.",
        figures.led,
    );
    page.gauge("archipel_cluster_replicas", "Replicas of this node.", figures.replicas);
    page.gauge("archipel_cluster_leads", "Partitions that this node leads.", figures.leads);
    page.gauge("archipel_cluster_moves", "Partitions whose copies are moving.", figures.moves);
    page.gauge(
        "archipel_cluster_copies",
        "Copies here of partitions that others lead.",
        figures.copies.count,
    );
    page.gauge(
        "archipel_cluster_copies_of_known_age",
        "Of how many of those it is known how far they are behind: those that were read in the last 10 s.",
        figures.copies.known,
    );
    page.gauge(
        "archipel_cluster_copies_behind_seconds",
        "The most that one of those may be behind its leader.",
        figures.copies.behind_ms_max as f64 / 1000.0,
    );
    let name = "archipel_cluster_dropped_total";
    page.family(name, "counter", "Frames of other nodes that came to nothing, by reason.");
    for (reason, count) in &figures.dropped {
        page.sample(name, &[("reason", reason)], count);
    }
}

type LinkFigure = fn(&LinkMeters) -> u64;

/// Name, kind, help and figure of each metric of the links.
const LINKS: [(&str, &str, &str, LinkFigure); 12] = [
    ("archipel_link_accepted_total", "counter", "Connections that came to the port.", |m| m.accepted.get()),
    ("archipel_link_dialled_total", "counter", "Connections that this node began.", |m| m.dialled.get()),
    ("archipel_link_opened_total", "counter", "Links that came up, two for each member.", |m| m.opened.get()),
    ("archipel_links", "gauge", "Links that are up, two for each member.", |m| m.up.get()),
    ("archipel_link_connections", "gauge", "Connections of any kind.", |m| m.connections.get()),
    ("archipel_link_handshakes", "gauge", "Handshakes of others under way.", |m| m.handshakes.get()),
    ("archipel_link_received_frames_total", "counter", "Frames received.", |m| m.frames_in.get()),
    ("archipel_link_sent_frames_total", "counter", "Frames queued.", |m| m.frames_out.get()),
    ("archipel_link_received_bytes_total", "counter", "Bytes read.", |m| m.bytes_in.get()),
    ("archipel_link_sent_bytes_total", "counter", "Bytes written.", |m| m.bytes_out.get()),
    ("archipel_link_refused_frames_total", "counter", "Frames not taken: too many wait.", |m| {
        m.refused.get()
    }),
    ("archipel_link_told_total", "counter", "Misdeeds that the log was told of.", |m| m.told.get()),
];

fn links(page: &mut Exposition, meters: &LinkMeters) {
    for (name, kind, help, figure) in LINKS {
        page.family(name, kind, help);
        page.sample(name, &[], figure(meters));
    }
    let name = "archipel_link_ended_total";
    page.family(name, "counter", "Connections between nodes that ended, by cause.");
    for (cause, count) in meters.endings() {
        page.sample(name, &[("cause", cause)], count);
    }
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
        for figures in &snapshot.keyspaces {
            let (id, label) = (figures.id.to_string(), subject.label(figures.id));
            page.sample(name, &[("keyspace", &label), ("id", &id)], figure(figures));
        }
    }
}
