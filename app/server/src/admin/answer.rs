//! The pages of the admin port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use telemetry::Exposition;

use super::cluster::{Clerk, Query};
use super::snapshot::Snapshot;
use super::{Subject, backup, desired, mesh, metrics};
use crate::housekeep::{Memory, processor_micros};

/// Answers requests.
pub(super) struct Answerer {
    pub subject: Subject,
    stopping: Arc<AtomicBool>,
    started: Instant,
}

pub(super) type Page = Response<Full<Bytes>>;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const JSON: &str = "application/json";
/// What requests carry that change something, as no page of a browser may.
pub(super) const OWN_HEADER: &str = "x-archipel";

impl Answerer {
    pub fn new(subject: Subject, stopping: Arc<AtomicBool>) -> Answerer {
        Answerer { subject, stopping, started: Instant::now() }
    }

    /// The answer to `request`. Only some pages of backups, and one of the proxies' settings, read its body.
    pub async fn answer(&self, request: Request<Incoming>) -> Page {
        match (request.uri().path(), request.method()) {
            ("/health", &Method::GET | &Method::HEAD) => self.health().await,
            ("/metrics", &Method::GET | &Method::HEAD) => self.metrics().await,
            ("/status", &Method::GET | &Method::HEAD) => self.status().await,
            ("/checkpoint", &Method::POST) => self.checkpoint(),
            (path, _) if path == "/proxy/settings" || path.starts_with("/proxy/settings/") => {
                desired::answer(&self.subject, request).await
            }
            (path, _) if path == "/proxy" || path.starts_with("/proxy/") => {
                mesh::answer(&self.subject, &request)
            }
            (path, _) if path.starts_with("/backup/") => backup::answer(&self.subject, request).await,
            (path, _) if path == "/cluster" || path.starts_with("/cluster/") => self.cluster(&request).await,
            ("/health" | "/metrics" | "/status", _) => not_allowed("GET, HEAD"),
            ("/checkpoint", _) => not_allowed("POST"),
            _ => page(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are GET /health, /metrics, /status, /cluster, /proxy and /p2p, and POST /checkpoint and below /cluster/, /backup/ and /p2p/\n",
            ),
        }
    }

    /// The pages of a member's cluster. What changes it is taken only with the header that our own commands send: a page
    /// of a browser cannot send it to another site's port without asking first, and that is not answered.
    async fn cluster(&self, request: &Request<Incoming>) -> Page {
        let (Some(desk), Some(remote)) = (&self.subject.desk, self.subject.remotes.first()) else {
            return page(
                StatusCode::CONFLICT,
                TEXT,
                "this node is in no cluster; `archipel node start --cluster` or --join with an empty data directory \
                 makes it a member\n",
            );
        };
        let clerk = Clerk { remote, desk };
        let query = Query::of(request.uri().query());
        let is_own = request.headers().contains_key(OWN_HEADER);
        match (request.uri().path(), request.method()) {
            ("/cluster", &Method::GET | &Method::HEAD) => clerk.status().await,
            ("/cluster/audit", &Method::GET | &Method::HEAD) => clerk.audit().await,
            ("/cluster" | "/cluster/audit", _) => not_allowed("GET, HEAD"),
            (_, &Method::POST) if !is_own => page(
                StatusCode::FORBIDDEN,
                TEXT,
                format!(
                    "what changes the cluster is asked with the header {OWN_HEADER}, as `archipel cluster` does\n"
                ),
            ),
            ("/cluster/token", &Method::POST) => clerk.token(&query).await,
            ("/cluster/leave", &Method::POST) => clerk.leave().await,
            ("/cluster/remove", &Method::POST) => clerk.remove(&query).await,
            ("/cluster/move-leader", &Method::POST) => clerk.move_leader(&query).await,
            ("/cluster/keyspace/create", &Method::POST) => clerk.create_keyspace(&query).await,
            ("/cluster/keyspace/alter", &Method::POST) => clerk.alter_keyspace(&query).await,
            ("/cluster/keyspace/drop", &Method::POST) => clerk.drop_keyspace(&query).await,
            ("/cluster/user/set", &Method::POST) => clerk.set_user(&query).await,
            ("/cluster/user/remove", &Method::POST) => clerk.remove_user(&query).await,
            ("/cluster/token" | "/cluster/leave" | "/cluster/remove" | "/cluster/move-leader", _)
            | ("/cluster/keyspace/create" | "/cluster/keyspace/alter" | "/cluster/keyspace/drop", _)
            | ("/cluster/user/set" | "/cluster/user/remove", _) => not_allowed("POST"),
            _ => page(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are GET /cluster and /cluster/audit, and POST /cluster/token, /leave, /remove, /move-leader, \
                 /keyspace/create, /keyspace/alter, /keyspace/drop, /user/set and /user/remove\n",
            ),
        }
    }

    /// A worker that is busy for a while is healthy; one whose node cannot keep writes is not.
    async fn health(&self) -> Page {
        let snapshot = Snapshot::take(&self.subject.remotes).await;
        match self.state(snapshot.as_ref()) {
            "serving" => page(StatusCode::OK, TEXT, "serving\n"),
            state => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{state}\n")),
        }
    }

    fn state(&self, snapshot: Option<&Snapshot>) -> &'static str {
        let outrun = |snapshot: &Snapshot| snapshot.cluster.as_ref().is_some_and(|cluster| cluster.outrun);
        if self.stopping.load(Ordering::Acquire) {
            "stopping"
        } else if self.subject.meters.log_failed.get() > 0 {
            "the log has failed"
        } else if snapshot.is_none() {
            "the worker does not answer"
        } else if snapshot.is_some_and(outrun) {
            "the cluster is at a version that this node does not speak"
        } else {
            "serving"
        }
    }

    async fn metrics(&self) -> Page {
        page(StatusCode::OK, METRICS, self.figures().await.finish())
    }

    /// All metrics as they are now.
    pub async fn figures(&self) -> Exposition {
        let snapshot = Snapshot::take(&self.subject.remotes).await;
        let up = self.state(snapshot.as_ref()) == "serving";
        let uptime = self.started.elapsed();
        metrics::page(&self.subject, snapshot.as_ref(), uptime, up)
    }

    async fn status(&self) -> Page {
        let snapshot = Snapshot::take(&self.subject.remotes).await;
        let (subject, disk) = (&self.subject, &self.subject.meters);
        let turns = subject.merged(|meters| &meters.turn_micros);
        let syncs = subject.merged(|meters| &meters.sync_micros);
        let checkpoints = disk.checkpoint_micros.distribution();
        let (user, system) = processor_micros().unwrap_or_default();
        let status = json!({
            "schema": 1,
            "state": self.state(snapshot.as_ref()),
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "memory_bytes": Memory::read().resident,
            "cpu_micros": user + system,
            "clients": subject.sum(|meters| meters.connections.get()),
            "clients_accepted": subject.sum(|meters| meters.accepted.get()),
            "clients_rejected": subject.sum(|meters| meters.rejected.get()),
            "commands": subject.sum(|meters| meters.commands.get()),
            "input_bytes": subject.sum(|meters| meters.input_bytes.get()),
            "output_bytes": subject.sum(|meters| meters.output_bytes.get()),
            "turn_micros": { "p50": turns.quantile(0.5), "p99": turns.quantile(0.99) },
            "sync_micros": { "p50": syncs.quantile(0.5), "p99": syncs.quantile(0.99) },
            "log_bytes": disk.log_bytes.get(),
            "log_refusing": disk.log_refusing.get() > 0 || disk.quota_exceeded.get() > 0,
            "directory_bytes": disk.directory_bytes.get(),
            "checkpoints": checkpoints.count(),
            "checkpoint_failed": disk.checkpoint_failed.get() > 0,
            "checkpoint_millis": disk.checkpoint_millis.get(),
            "evicted_keys": disk.evicted_keys.get(),
            "misses": disk.misses.get(),
            "keyspaces": self.keyspaces(snapshot.as_ref()),
        });
        page(StatusCode::OK, JSON, status.to_string())
    }

    fn keyspaces(&self, snapshot: Option<&Snapshot>) -> Value {
        let Some(snapshot) = snapshot else { return Value::Null };
        let one = |figures: &super::snapshot::KeyspaceFigures| {
            json!({
                "id": figures.id,
                "name": self.subject.label(figures.id),
                "partitions": figures.partitions,
                "keys": figures.keys,
                "expiring": figures.expiring,
                "memory_bytes": figures.memory_bytes,
                "dirty_bytes": figures.dirty_bytes,
                "applied": figures.applied,
            })
        };
        snapshot.keyspaces.iter().map(one).collect()
    }

    /// Asks for a checkpoint; `/metrics` and `/status` tell when there was one.
    fn checkpoint(&self) -> Page {
        self.subject.checkpoint.ask();
        page(StatusCode::ACCEPTED, TEXT, "a checkpoint is asked for\n")
    }
}

pub(super) fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}

pub(super) fn not_allowed(allowed: &'static str) -> Page {
    let mut page = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("allowed here: {allowed}\n"));
    page.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    page
}

/// Two digits for each byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`hex`] wrote, in large or small letters.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_digits_and_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for text in ["0", "0g", "é0"] {
            assert_eq!(unhex(text), None, "{text}");
        }
        assert_eq!(unhex(""), Some(Vec::new()));
    }
}
