//! The mesh under what befalls it: an endpoint that is slow, fails or dies, services that come, configurations that
//! change, thousands of instances, watchers, idle and slow clients, and too many requests. Bars 2 to 5 of the mesh, and parts of
//! bars 1 and 7.
//!
//! Endpoints, clients and nodes share this machine. Each part says in its own file what it promises.

mod balance;
mod changes;
mod clients;
mod http;
mod idle;
mod many;
mod overload;
mod slowloris;

use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting};
use crate::server::Server;
use anyhow::{Result, bail};
use std::path::Path;

/// One of the parts.
type Part = fn(&Setting, &mut Report) -> Result<()>;

/// The parts, by the names that `--work` knows.
const PARTS: [(&str, Part); 11] = [
    ("slow", balance::slow),
    ("hole", balance::hole),
    ("killed", balance::killed),
    ("register", changes::register),
    ("swap", changes::swap),
    ("restart", changes::restart),
    ("services", many::services),
    ("watchers", many::watchers),
    ("idle", idle::run),
    ("overload", overload::run),
    ("slowloris", slowloris::run),
];

/// Measures all parts, or those that `--work` names.
pub fn run(setting: &Setting) -> Result<Report> {
    let mut report = Report::new("mesh", setting.rounds);
    for (name, part) in PARTS {
        if setting.work.as_ref().is_none_or(|text| name.contains(text.as_str())) {
            part(setting, &mut report)?;
        }
    }
    if report.rows.is_empty() {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        bail!(NotJudged(format!("no part has such a name; there are {}", names.join(", "))));
    }
    Ok(report)
}

/// A node of its own that serves.
fn node(setting: &Setting, dir: &Path, config: &str) -> Result<Server> {
    let mut server = Server::spawn_node(&setting.binary, dir, Some(config))?;
    server.wait_ready()?;
    Ok(server)
}

/// A port of a node, which has the other one with the same offset for Redis clients.
const fn port(server: &Server, port: u16) -> u16 {
    server.port - 6379 + port
}

/// A list of a configuration: `"127.0.0.1:1", "127.0.0.1:2"`.
fn listed(ports: &[u16]) -> String {
    let each: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    each.join(", ")
}

/// A row without a peer: one figure for each round.
fn own(
    report: &mut Report,
    work: &str,
    metric: (&'static str, &'static str),
    figures: &[f64],
    bar: Option<Bar>,
) {
    report.row(work, metric, figures.iter().map(|&us| Pair { us, peer: None }).collect(), bar);
}
