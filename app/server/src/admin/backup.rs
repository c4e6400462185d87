//! The pages that a backup is made of: what this node has, a partition held as its checkpoint has it, and its bytes; and what
//! the log has behind it.
//!
//! They give away all data, so they are answered only with the header of our own commands, which no page of a browser can
//! send, and with a password of Redis clients, if they need one. They change nothing that clients can see; only writers of a
//! keyspace that is backed up at one moment may wait for some milliseconds, see [`hold`].

mod entries;
mod hold;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use disk::backup::Origin;
use disk::engine::{Engine, EngineError, Reader};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use kernel::{GroupId, Index};
use node::Worker;
use serde_json::{Value, json};
use storage::Store;

use super::Subject;
use super::answer::{JSON, OWN_HEADER, Page, TEXT, hex, not_allowed, page, unhex};
use super::cluster::{Attempt, Query, ask_in_time, no};

/// The header with the password.
const PASSWORD_HEADER: &str = "x-archipel-password";
/// The header of a lot's answer that says where the next one begins; without it there is none.
const NEXT_HEADER: &str = "x-archipel-next";
/// Bytes of a lot, about.
const LOT_BYTES: usize = 1024 * 1024;
/// How long a checkpoint may take, in seconds.
const CHECKPOINT_SECONDS_MAX: u64 = 120;
/// How often it is looked for, in milliseconds.
const LOOK_MILLIS: u64 = 5;
/// After so many looks, and before the first, the workers are asked whether there is anything to wait for.
const LOOKS_A_QUESTION: u64 = 200;
const BYTES: &str = "application/octet-stream";
/// The next number of who reads a cut. A command of the version before names none, and reads as number 0.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// What the pages need of the node.
pub(super) struct Vault<'a> {
    pub subject: &'a Subject,
    pub engine: Arc<Engine>,
}

/// What a worker has of a partition.
#[derive(Clone, Copy, Debug)]
struct Copy {
    group: GroupId,
    applied: Index,
    leads: bool,
}

/// A keyspace's number and how many partitions it has.
type Division = (u16, u16);

/// The answer to `request`, whose path begins with `/backup`.
pub(super) async fn answer(subject: &Subject, request: Request<Incoming>) -> Page {
    if !request.headers().contains_key(OWN_HEADER) {
        let text = format!(
            "a backup is asked for with the header {OWN_HEADER}, as `archipel cluster backup` does\n"
        );
        return page(StatusCode::FORBIDDEN, TEXT, text);
    }
    let given =
        request.headers().get(PASSWORD_HEADER).map(HeaderValue::as_bytes).unwrap_or_default().to_vec();
    // All workers have the same users.
    let Some(first) = subject.remotes.first() else {
        return page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the node has no workers\n");
    };
    match ask_in_time(first, move |worker| worker.users().admit_by(&given)).await {
        Ok(true) => {}
        Ok(false) => {
            let text = "a backup of this node needs a password of its Redis clients: run the command with the node's \
                        configuration, or with the password in the variable ARCHIPEL_REDIS__REQUIREPASS\n";
            return page(StatusCode::FORBIDDEN, TEXT, text);
        }
        Err(page) => return *page,
    }
    let Some(engine) = subject.engine.upgrade() else {
        return page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the node stops\n");
    };
    let vault = Vault { subject, engine };
    let (head, body) = request.into_parts();
    let query = Query::of(head.uri.query());
    let done = match (head.uri.path(), &head.method) {
        ("/backup/begin", &Method::POST) => vault.begin().await,
        ("/backup/cut", &Method::POST) => vault.cut(&query).await,
        ("/backup/lot", &Method::POST) => vault.lot(&query).await,
        ("/backup/release", &Method::POST) => vault.release(&query),
        ("/backup/keep", &Method::POST) => vault.keep(&query, body).await,
        ("/backup/entries", &Method::POST) => vault.entries(&query, body).await,
        (path @ ("/backup/hold" | "/backup/confirm" | "/backup/leave"), &Method::POST) => {
            hold::answer(&vault, path, &query).await
        }
        ("/backup/begin" | "/backup/cut" | "/backup/lot" | "/backup/release", _)
        | ("/backup/keep" | "/backup/entries" | "/backup/hold" | "/backup/confirm" | "/backup/leave", _) => {
            return not_allowed("POST");
        }
        _ => no(
            StatusCode::NOT_FOUND,
            "there are POST /backup/begin, /cut, /lot, /release, /keep, /entries, /hold, /confirm and /leave",
        ),
    };
    done.unwrap_or_else(|page| *page)
}

impl Vault<'_> {
    /// Has everything checkpointed, and tells what there is.
    async fn begin(&self) -> Attempt<Page> {
        let (mut copies, mut keyspaces) = (Vec::new(), None);
        for remote in &self.subject.remotes {
            let (some, of_cluster) = ask_in_time(remote, |worker| copies_of(worker)).await?;
            copies.extend(some);
            keyspaces = keyspaces.or(of_cluster);
        }
        self.subject.checkpoint.ask();
        // What nothing was ever written to needs no backup.
        copies.retain(|copy| copy.applied > Index(0));
        copies.sort_unstable_by_key(|copy| copy.group);
        let Origin { id, is_cluster } = self.subject.origin;
        let keyspaces = keyspaces.unwrap_or_else(|| self.divisions(&copies));
        let keyspaces: Vec<Value> = keyspaces.into_iter().map(|(id, count)| json!([id, count])).collect();
        let copies: Vec<Value> =
            copies.iter().map(|copy| json!([copy.group.0, copy.applied.0, copy.leads])).collect();
        let told = json!({
            "schema": 1, "origin": hex(&id), "is_cluster": is_cluster, "keyspaces": keyspaces, "copies": copies,
        });
        Ok(page(StatusCode::OK, JSON, told.to_string()))
    }

    /// The keyspaces of a node of its own: those of its groups, as their data is divided.
    fn divisions(&self, copies: &[Copy]) -> Vec<Division> {
        let mut all: Vec<Division> = Vec::new();
        for copy in copies {
            let keyspace = copy.group.keyspace();
            if all.last().is_none_or(|(last, _)| *last != keyspace.0) {
                all.push((keyspace.0, self.subject.divisions.of(keyspace).count()));
            }
        }
        all
    }

    /// Holds a group's checkpoint once it is at the wanted entry, until the one who asks releases it under the ticket that it is
    /// told, or has read nothing for two minutes.
    async fn cut(&self, query: &Query<'_>) -> Attempt<Page> {
        let (group, after) = (GroupId(query.number("group")?), Index(query.number("after")?));
        let end = tokio::time::Instant::now() + Duration::from_secs(CHECKPOINT_SECONDS_MAX);
        let mut looks = 0u64;
        while self.engine.index_of(group).or_else(refused)?.is_none_or(|index| index < after) {
            if tokio::time::Instant::now() >= end {
                return no(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!("group {group} was not checkpointed in time"),
                );
            }
            if looks.is_multiple_of(LOOKS_A_QUESTION) && !self.has(group).await? {
                let text = format!(
                    "there is no copy of group {group} here: its keyspace was dropped, or it was moved, since the backup \
                     began; begin anew"
                );
                return no(StatusCode::GONE, text);
            }
            looks += 1;
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        }
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        let info = self.blocking(move |engine| engine.make_cut(group, Reader::Backup(ticket))).await?;
        let time = Store::time_of(&info.mark.state).ok().map(|time| time.0);
        let told = json!({
            "schema": 1, "generation": info.generation, "index": info.mark.index.0, "term": info.mark.term.0,
            "bytes": info.bytes, "checksum": info.checksum, "ticket": ticket, "time_us": time,
        });
        Ok(page(StatusCode::OK, JSON, told.to_string()))
    }

    /// Whether a worker has a copy of the group.
    async fn has(&self, group: GroupId) -> Attempt<bool> {
        for remote in &self.subject.remotes {
            let of_group =
                move |worker: &mut Worker| copies_of(worker).0.iter().any(|copy| copy.group == group);
            if ask_in_time(remote, of_group).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A part of what is held.
    async fn lot(&self, query: &Query<'_>) -> Attempt<Page> {
        let (group, generation) = (GroupId(query.number("group")?), query.number("generation")?);
        let Some(cursor) = unhex(query.text("cursor")?) else {
            return no(StatusCode::BAD_REQUEST, "`cursor` is not hexadecimal");
        };
        let reader = Reader::Backup(query.ticket()?);
        let read = move |engine: &Engine| engine.read_cut(group, generation, &cursor, LOT_BYTES, reader);
        let lot = self.blocking(read).await?;
        let mut told = page(StatusCode::OK, BYTES, lot.bytes);
        if let Some(next) = lot.next {
            let next = HeaderValue::from_str(&hex(&next)).expect("digits are allowed in a header");
            told.headers_mut().insert(NEXT_HEADER, next);
        }
        Ok(told)
    }

    /// Holds it no more for who asks.
    fn release(&self, query: &Query<'_>) -> Attempt<Page> {
        let reader = Reader::Backup(query.ticket()?);
        self.engine.release_cut(GroupId(query.number("group")?), query.number("generation")?, reader);
        Ok(page(StatusCode::OK, TEXT, "released\n"))
    }

    /// Has the engine read on a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Attempt<T> {
        let engine = Arc::clone(&self.engine);
        match tokio::task::spawn_blocking(move || read(&engine)).await {
            Ok(done) => done.or_else(refused),
            Err(_) => no(StatusCode::INTERNAL_SERVER_ERROR, "the engine gave up"),
        }
    }
}

impl Query<'_> {
    /// Under which number a cut is read.
    fn ticket(&self) -> Attempt<u64> {
        self.text("ticket").map_or(Ok(0), |_| self.number("ticket"))
    }
}

fn refused<T>(error: EngineError) -> Attempt<T> {
    no(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// The partitions that a worker has, and the cluster's keyspaces if it is in one.
fn copies_of(worker: &Worker) -> (Vec<Copy>, Option<Vec<Division>>) {
    let copy = |at: usize| {
        let partition = &worker.partitions()[at];
        Copy { group: partition.group_id(), applied: partition.store().applied(), leads: partition.leads() }
    };
    let Some(mind) = worker.mind() else {
        // Who is alone leads.
        let all = (0..worker.partitions().len()).map(|at| Copy { leads: true, ..copy(at) });
        return (all.collect(), None);
    };
    let groups = mind.state().partitions();
    let local = groups.filter_map(|(group, _)| worker.local(group.keyspace(), group.partition()));
    let copies = local.map(copy).collect();
    let keyspaces = mind.state().keyspaces().iter();
    (copies, Some(keyspaces.map(|(id, it)| (id.0, it.settings.partitions.count())).collect()))
}
