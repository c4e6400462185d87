//! The pages by which a keyspace's partitions are backed up at one moment: who asks has all leaders stand still, and when
//! all do it tells them to go on, see [`node::standstill`].
//!
//! | `POST` | answer |
//! |---|---|
//! | `/backup/hold?ticket=T&keyspace=K&ms=M` | `{"schema": 1, "clock_us": …, "groups": [[group, index, term, applied, time in us], …]}`: the partitions of K that are led from here. They propose nothing for M milliseconds, at most [`STILL_MS_MAX`]; with 0 they only say how far they are. |
//! | `/backup/confirm?ticket=T&ms=M` | `{"schema": 1, "groups": …}`, as above: writers go on at once, and the answer comes when it is certain, within M milliseconds, that these partitions were led from here until then, and all that was named is applied here and synced. |
//! | `/backup/leave?ticket=T` | Nothing is held under the ticket any more. |
//!
//! What cannot be is refused with 409, and the partition and the reason as text; nothing is held under the ticket then.

use std::time::Duration;

use hyper::StatusCode;
use kernel::{GroupId, KeyspaceId, Lsn, Micros};
use node::Worker;
use node::standstill::{Moved, STILL_MS_MAX, Still};
use runtime::Control;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Vault;
use crate::admin::answer::{JSON, Page, TEXT, page};
use crate::admin::cluster::{Attempt, Query, no};
use crate::ask::ask;

/// How much longer than a hold or a confirmation lasts all workers may take to answer, in milliseconds.
const LATE_MS_MAX: u64 = 1000;
/// The longest time for a confirmation, in milliseconds.
const CONFIRM_MS_MAX: u64 = 10_000;
/// How often it is looked whether it is there, in milliseconds.
const LOOK_MILLIS: u64 = 2;

/// The answer to a request of this family.
pub(super) async fn answer(vault: &Vault<'_>, path: &str, query: &Query<'_>) -> Attempt<Page> {
    let ticket = query.number("ticket")?;
    let done = match path {
        "/backup/hold" => vault.hold(ticket, query).await,
        "/backup/confirm" => vault.confirm(ticket, query).await,
        _ => Ok(page(StatusCode::OK, TEXT, "left\n")),
    };
    if done.is_err() || path != "/backup/hold" {
        vault.leave(ticket);
    }
    done
}

impl Vault<'_> {
    async fn hold(&self, ticket: u64, query: &Query<'_>) -> Attempt<Page> {
        let db = KeyspaceId(query.number("keyspace")?);
        let ms = within(query, STILL_MS_MAX)?;
        let hold = move |worker: &mut Worker| {
            let now = worker.now();
            let until = (ms > 0).then(|| now.plus_millis(ms));
            worker.still(now, ticket, db, until).map(|held| (now, held))
        };
        let mut clock = Micros(0);
        let mut all = Vec::new();
        for held in self.all(Duration::from_millis(ms + LATE_MS_MAX), hold).await? {
            let (now, held) = held.or_else(moved)?;
            clock = clock.max(now);
            all.extend(held);
        }
        let told = json!({"schema": 1, "clock_us": clock.0, "groups": described(&all)});
        Ok(page(StatusCode::OK, JSON, told.to_string()))
    }

    async fn confirm(&self, ticket: u64, query: &Query<'_>) -> Attempt<Page> {
        let limit = Duration::from_millis(within(query, CONFIRM_MS_MAX)?);
        let end = Instant::now() + limit;
        let go_on = move |worker: &mut Worker| {
            let went = worker.go_on(worker.now(), ticket);
            went.map(|()| worker.appended())
        };
        let mut appended = Lsn(0);
        for went in self.all(limit, go_on).await? {
            appended = appended.max(went.or_else(moved)?);
        }
        let still = self.settled(ticket, end).await?;
        self.synced(appended, end).await?;
        let told = json!({"schema": 1, "groups": described(&still)});
        Ok(page(StatusCode::OK, JSON, told.to_string()))
    }

    /// What stood under the ticket, once all workers know that it is final.
    async fn settled(&self, ticket: u64, end: Instant) -> Attempt<Vec<Still>> {
        // Else workers would be said to be busy when it is the others that do not answer in time.
        let late = end + Duration::from_millis(LATE_MS_MAX);
        loop {
            let settled = move |worker: &mut Worker| worker.settled(ticket);
            let left = late.saturating_duration_since(Instant::now());
            let mut all = Some(Vec::new());
            for settled in self.all(left, settled).await? {
                match (&mut all, settled.or_else(moved)?) {
                    (Some(all), Some(some)) => all.extend(some),
                    (_, None) | (None, Some(_)) => all = None,
                }
            }
            if let Some(all) = all {
                return Ok(all);
            }
            look_again(end, "what was named is not known to be final, and applied, in time").await?;
        }
    }

    /// Waits until the log is durable up to `appended`: what is not could come back as something else after a power cut.
    async fn synced(&self, appended: Lsn, end: Instant) -> Attempt<()> {
        let Some(log) = self.subject.log.upgrade() else {
            return no(StatusCode::SERVICE_UNAVAILABLE, "the node stops");
        };
        log.hurry();
        while log.synced() < appended {
            look_again(end, "the log was not synced in time").await?;
        }
        Ok(())
    }

    /// Asks all workers at once.
    async fn all<T: Send + 'static>(
        &self,
        limit: Duration,
        what: impl FnOnce(&mut Worker) -> T + Clone + Send + 'static,
    ) -> Attempt<Vec<T>> {
        let one = |remote: &runtime::Remote| {
            let (remote, what) = (remote.clone(), what.clone());
            tokio::spawn(async move { ask(&remote, what).await })
        };
        let asked: Vec<_> = self.subject.remotes.iter().map(one).collect();
        let end = Instant::now() + limit;
        let mut told = Vec::with_capacity(asked.len());
        for one in asked {
            match tokio::time::timeout_at(end, one).await {
                Ok(Ok(Some(answer))) => told.push(answer),
                Ok(Ok(None) | Err(_)) => return no(StatusCode::SERVICE_UNAVAILABLE, "the node stops"),
                Err(_) => return no(StatusCode::CONFLICT, "a worker was too busy to answer in time"),
            }
        }
        Ok(told)
    }

    /// Nobody waits for it: what was asked before is done before.
    fn leave(&self, ticket: u64) {
        for remote in &self.subject.remotes {
            // A worker that has ended holds nothing.
            let _ = remote.send(Control::Call(Box::new(move |worker| worker.forget_still(ticket))));
        }
    }
}

/// The milliseconds that are asked for.
fn within(query: &Query<'_>, limit: u64) -> Attempt<u64> {
    match query.number("ms")? {
        ms if ms <= limit => Ok(ms),
        ms => no(StatusCode::BAD_REQUEST, format!("`ms` is {ms}, and may be {limit} at most")),
    }
}

async fn look_again(end: Instant, late: &str) -> Attempt<()> {
    if Instant::now() >= end {
        return no(StatusCode::CONFLICT, late);
    }
    tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
    Ok(())
}

fn moved<T>((group, moved): (GroupId, Moved)) -> Attempt<T> {
    no(StatusCode::CONFLICT, format!("partition {}/{}: {moved}", group.keyspace(), group.partition()))
}

fn described(all: &[Still]) -> Vec<Value> {
    let one = |it: &Still| json!([it.group.0, it.index.0, it.term.0, it.applied.0, it.time.0]);
    all.iter().map(one).collect()
}
