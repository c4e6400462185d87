//! The pages of the admin port.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use runtime::Remote;
use serde_json::json;

use super::snapshot::Snapshot;

/// Answers requests.
pub(super) struct Answerer {
    remote: Remote,
    labels: Vec<String>,
    stopping: Arc<AtomicBool>,
    started: Instant,
}

type Page = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

impl Answerer {
    pub fn new(remote: Remote, labels: Vec<String>, stopping: Arc<AtomicBool>) -> Answerer {
        Answerer { remote, labels, stopping, started: Instant::now() }
    }

    /// The answer to `request`. Its body is not read: no page takes one.
    pub async fn answer(&self, request: &Request<Incoming>) -> Page {
        match (request.uri().path(), request.method()) {
            ("/health", &Method::GET | &Method::HEAD) => self.health().await,
            ("/metrics", &Method::GET | &Method::HEAD) => self.metrics().await,
            ("/status", &Method::GET | &Method::HEAD) => self.status().await,
            ("/health" | "/metrics" | "/status", _) => not_allowed("GET, HEAD"),
            _ => page(StatusCode::NOT_FOUND, TEXT, "there are /health, /metrics and /status\n"),
        }
    }

    async fn health(&self) -> Page {
        match self.trouble().await {
            None => page(StatusCode::OK, TEXT, "serving\n"),
            Some(trouble) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{trouble}\n")),
        }
    }

    /// Why no client should be sent here, if so.
    async fn trouble(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Acquire) {
            return Some("stopping");
        }
        if Snapshot::take(&self.remote).await.is_none() {
            return Some("the worker does not answer");
        }
        None
    }

    async fn metrics(&self) -> Page {
        let mut out = String::new();
        if let Some(snapshot) = Snapshot::take(&self.remote).await {
            let _ = writeln!(out, "# TYPE archipel_commands_total counter");
            let _ = writeln!(out, "archipel_commands_total {}", snapshot.commands);
        }
        page(StatusCode::OK, METRICS, out)
    }

    async fn status(&self) -> Page {
        let Some(snapshot) = Snapshot::take(&self.remote).await else {
            return page(StatusCode::SERVICE_UNAVAILABLE, JSON, json!({"state": "busy"}).to_string());
        };
        let keyspaces: Vec<_> = snapshot
            .keyspaces
            .iter()
            .zip(&self.labels)
            .map(|(figures, label)| {
                json!({
                    "id": figures.id,
                    "name": label,
                    "keys": figures.keys,
                    "expiring": figures.expiring,
                    "memory_bytes": figures.memory_bytes,
                    "dirty_bytes": figures.dirty_bytes,
                    "applied": figures.applied,
                })
            })
            .collect();
        let state = if self.stopping.load(Ordering::Acquire) { "stopping" } else { "serving" };
        let status = json!({
            "state": state,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "connections": snapshot.connections,
            "commands": snapshot.commands,
            "keyspaces": keyspaces,
        });
        page(StatusCode::OK, JSON, status.to_string())
    }
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}

fn not_allowed(allowed: &'static str) -> Page {
    let mut page = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("allowed here: {allowed}\n"));
    page.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    page
}
