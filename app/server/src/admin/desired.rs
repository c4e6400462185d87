//! The proxies' settings as the cluster has them (`archipel mesh settings`, `apply`, `rollback`): at any member, which asks the
//! control group's leader.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use control::mesh::{MeshSettings, Source};
use control::{Name, Operation, Outcome, Refused, Revision};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use kernel::{NodeId, PeerId};
use p2p::swim::Liveness;
use serde_json::{Value, json};

use super::answer::{JSON, OWN_HEADER, Page, not_allowed, page};
use super::cluster::{Attempt, Clerk, Query, health, no};
use super::{OPERATOR, Subject};
use crate::cluster::board::Standing;
use crate::proxy::desired::{Change, Desired, changes, read, shown, text};
use crate::proxy::follow::Steering;

/// Longest text that is read, in bytes; with its comments it may be longer than what is kept of it.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// What it is called in messages about its places.
const CALLED: &str = "the settings";

/// The pages at and below `/proxy/settings`.
pub(super) async fn answer(subject: &Subject, request: Request<Incoming>) -> Page {
    let path = request.uri().path().to_owned();
    let answered = match (path.as_str(), request.method()) {
        ("/proxy/settings", &Method::GET | &Method::HEAD) => settings(subject).await,
        ("/proxy/settings", _) => return not_allowed("GET, HEAD"),
        (_, &Method::POST) if !request.headers().contains_key(OWN_HEADER) => no(
            StatusCode::FORBIDDEN,
            format!(
                "what changes the settings is asked with the header {OWN_HEADER}, as `archipel mesh` does"
            ),
        ),
        ("/proxy/settings/apply", &Method::POST) => apply(subject, request).await,
        ("/proxy/settings/rollback", &Method::POST) => rollback(subject, &request).await,
        ("/proxy/settings/apply" | "/proxy/settings/rollback", _) => return not_allowed("POST"),
        _ => no(
            StatusCode::NOT_FOUND,
            "there are GET /proxy/settings, and POST /proxy/settings/apply and /proxy/settings/rollback",
        ),
    };
    answered.map_or_else(|page| *page, |told| page(StatusCode::OK, JSON, told.to_string()))
}

/// What the cluster says, as far as this node's state has it.
#[derive(Default)]
struct Seen {
    /// The last revisions, the one in force last.
    revisions: Vec<Arc<Revision>>,
    /// Members that were not removed, with their zones, and what this node thinks of them.
    members: Vec<(NodeId, String, Option<Liveness>)>,
}

impl Seen {
    fn in_force(&self) -> Option<&Revision> {
        self.revisions.last().map(Arc::as_ref)
    }

    fn number(&self) -> u64 {
        self.in_force().map_or(0, |revision| revision.number)
    }

    /// What is in force; what the node's `file` says if that counts.
    fn settings(&self, file: impl FnOnce() -> MeshSettings) -> MeshSettings {
        self.in_force().and_then(|revision| revision.settings.clone()).unwrap_or_else(file)
    }

    /// Refuses unless `after`, if it is said, is in force.
    fn must_follow(&self, after: Option<u64>) -> Attempt<()> {
        let is = self.number();
        match after.filter(|after| *after != is) {
            Some(after) => no(StatusCode::CONFLICT, Refused::OtherRevision { after, is }.to_string()),
            None => Ok(()),
        }
    }
}

/// Who asks the cluster of this node.
fn clerk(subject: &Subject) -> Option<Clerk<'_>> {
    let (desk, remote) = subject.desk.as_ref().zip(subject.remotes.first())?;
    Some(Clerk { remote, desk })
}

/// The same; who is in no cluster is told what to do.
fn member(subject: &Subject) -> Attempt<Clerk<'_>> {
    clerk(subject).map_or_else(
        || {
            no(
                StatusCode::CONFLICT,
                "this node is in no cluster, so its proxy does what its own file says: change `[proxy]` there and send \
                 the node SIGHUP; or start it once with `archipel node start --cluster`, which makes it the first member \
                 of a cluster with the data that it has, and ask again",
            )
        },
        Ok,
    )
}

async fn seen(clerk: &Clerk<'_>) -> Attempt<Seen> {
    let look = clerk.ask_worker(|worker| {
        let mind = worker.mind()?;
        let members = mind.directory().members();
        let members = members.map(|(node, it)| (node, it.zone.to_string(), mind.liveness(node)));
        Some(Seen {
            revisions: mind.state().revisions().iter().cloned().collect(),
            members: members.collect(),
        })
    });
    look.await?.map_or_else(|| no(StatusCode::SERVICE_UNAVAILABLE, "the worker is in no cluster"), Ok)
}

async fn settings(subject: &Subject) -> Attempt<Value> {
    let seen = match clerk(subject) {
        Some(clerk) => seen(&clerk).await?,
        None => Seen::default(),
    };
    let in_force = seen.in_force();
    let is_file = in_force.is_none_or(|revision| revision.settings.is_none());
    let settings = seen.settings(|| shown(&subject.steering.file()));
    let [listeners, services, routes] = settings
        .lists()
        .map(|(_, parts)| parts.iter().map(|part| Value::from(part.name.as_str())).collect::<Vec<Value>>());
    let history: Vec<Value> = seen.revisions.iter().map(|one| revision(one)).collect();
    Ok(json!({
        "schema": 1,
        "clustered": subject.desk.is_some(),
        "revision": seen.number(),
        "by": in_force.map(|one| one.by.as_str()),
        "at": in_force.map(|one| one.at.0),
        "from_files": is_file,
        "bytes": settings.bytes(),
        "listeners": listeners,
        "services": services,
        "routes": routes,
        "text": text(&settings),
        "nodes": nodes(subject, &seen),
        "history": history,
    }))
}

/// A revision without what it says.
fn revision(one: &Revision) -> Value {
    json!({
        "revision": one.number,
        "by": one.by.as_str(),
        "at": one.at.0,
        "version": one.version,
        "restores": match one.source {
            Source::Given => None,
            Source::Revision(number) => Some(number),
        },
        "says": one.settings.as_ref().map_or_else(|| "what each node's file says".to_owned(), ToString::to_string),
    })
}

/// How far each member is.
fn nodes(subject: &Subject, seen: &Seen) -> Vec<Value> {
    let Some(desk) = &subject.desk else { return Vec::new() };
    let is_member = |node: NodeId| seen.members.iter().any(|(member, ..)| *member == node);
    let mut standings: BTreeMap<NodeId, Standing> = desk.board.others(is_member);
    standings.insert(desk.node, subject.steering.standing());
    let number = seen.number();
    let one = |(node, zone, liveness): &(NodeId, String, Option<Liveness>)| {
        let standing = standings.get(node).filter(|_| number > 0);
        let (state, why) = standing.map_or(("unknown", None), |standing| state(standing, number));
        json!({
            "node": PeerId(*node).to_string(),
            "zone": zone,
            "here": *node == desk.node,
            "health": liveness.map_or("alive", health),
            "follows": standing.map(|it| it.follows),
            "state": if number == 0 { "file" } else { state },
            "why": why,
        })
    };
    seen.members.iter().map(one).collect()
}

/// A word for a member's standing, and why it does not follow `number`.
fn state(standing: &Standing, number: u64) -> (&'static str, Option<&str>) {
    let why = standing.why.as_deref();
    if standing.wanted < number {
        ("behind", why)
    } else if why.is_some() {
        ("refuses", why)
    } else {
        ("follows", None)
    }
}

impl Query<'_> {
    fn optional<T: std::str::FromStr>(&self, name: &str) -> Attempt<Option<T>> {
        if self.text(name).is_err() { Ok(None) } else { self.number(name).map(Some) }
    }
}

/// What is asked besides the settings.
struct Terms {
    by: Name,
    after: Option<u64>,
    /// Nothing is to be changed.
    is_trial: bool,
}

impl Terms {
    fn of(query: &Query<'_>) -> Attempt<Terms> {
        let by = query.text("by").unwrap_or(OPERATOR);
        let Some(by) = Name::new(by) else {
            return no(StatusCode::BAD_REQUEST, format!("`by` is {by:?}, which is no name"));
        };
        let is_trial = query.optional::<bool>("dry_run")?.unwrap_or(false);
        Ok(Terms { by, after: query.optional("if_revision")?, is_trial })
    }
}

async fn apply(subject: &Subject, request: Request<Incoming>) -> Attempt<Value> {
    let clerk = member(subject)?;
    let Terms { by, after, is_trial } = Terms::of(&Query::of(request.uri().query()))?;
    let Ok(body) = Limited::new(request.into_body(), TEXT_BYTES_MAX).collect().await else {
        let text = format!("the settings have more than {TEXT_BYTES_MAX} bytes, or were cut off");
        return no(StatusCode::PAYLOAD_TOO_LARGE, text);
    };
    let Ok(said) = String::from_utf8(body.to_bytes().into()) else {
        return no(StatusCode::BAD_REQUEST, "the settings are not UTF-8");
    };
    let steering = subject.steering.clone();
    let judged = aside(move || match read(Path::new(CALLED), &said) {
        Ok(desired) => possible(&steering, &desired.settings).map(|()| desired),
        Err(error) => no(StatusCode::BAD_REQUEST, error.to_string()),
    });
    let Desired { settings, left_alone } = judged.await?;
    let (number, before) = if is_trial {
        let seen = seen(&clerk).await?;
        seen.must_follow(after)?;
        (seen.number(), seen)
    } else {
        let operation = Operation::SetMesh { after, settings: settings.clone() };
        made(&clerk, clerk.change_as(by, move |_| Ok(operation)).await?).await?
    };
    let mut told = difference(subject, number, is_trial, before, Some(settings)).await?;
    told["left_alone"] = left_alone.into();
    Ok(told)
}

async fn rollback(subject: &Subject, request: &Request<Incoming>) -> Attempt<Value> {
    let clerk = member(subject)?;
    let query = Query::of(request.uri().query());
    let Terms { by, after, is_trial } = Terms::of(&query)?;
    let to: u64 = query.number("to")?;
    let seen = seen(&clerk).await?;
    if is_trial {
        seen.must_follow(after)?;
    }
    let settings = match seen.revisions.iter().find(|one| one.number == to) {
        Some(revision) => revision.settings.clone(),
        // The cluster may remember more than this node has heard of.
        None if to == 0 || !is_trial => None,
        None => {
            let oldest = seen.revisions.first().map_or(0, |one| one.number);
            let refused = Refused::RevisionUnknown { to, oldest, newest: seen.number() };
            return no(StatusCode::CONFLICT, refused.to_string());
        }
    };
    if let Some(settings) = settings.clone() {
        let steering = subject.steering.clone();
        aside(move || possible(&steering, &settings)).await?;
    }
    let (number, before) = if is_trial {
        (seen.number(), seen)
    } else {
        let operation = Operation::RestoreMesh { after, to };
        made(&clerk, clerk.change_as(by, move |_| Ok(operation)).await?).await?
    };
    difference(subject, number, is_trial, before, settings).await
}

/// What `work` comes to, in another thread: settings have thousands of services, and whoever asks for the health of this node
/// meanwhile is answered at once.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Attempt<T> + Send + 'static) -> Attempt<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The port is being closed, or the work has panicked, which is in the log.
        Err(_) => no(StatusCode::SERVICE_UNAVAILABLE, "the settings could not be judged; try again"),
    }
}

/// Refuses what this node itself could not follow.
fn possible(steering: &Steering, settings: &MeshSettings) -> Attempt<()> {
    match steering.judge(settings) {
        Ok(()) => Ok(()),
        Err(error) => no(StatusCode::CONFLICT, format!("this node could not follow it: {error}")),
    }
}

/// What is different in `after`, or in what this node's file says.
async fn difference(
    subject: &Subject,
    number: u64,
    is_trial: bool,
    before: Seen,
    after: Option<MeshSettings>,
) -> Attempt<Value> {
    let steering = subject.steering.clone();
    aside(move || {
        let file = || shown(&steering.file());
        let after = after.unwrap_or_else(file);
        Ok(told(number, is_trial, &changes(&before.settings(file), &after)))
    })
    .await
}

/// The revision in force behind a request, and what was seen before it: the same, if the request changed nothing.
async fn made(clerk: &Clerk<'_>, outcome: Option<Outcome>) -> Attempt<(u64, Seen)> {
    let version = outcome.map_or(0, |outcome| outcome.version);
    let number = clerk.ask_worker(move |worker| {
        let revisions = worker.mind()?.state().revisions();
        let at = revisions.iter().rposition(|one| one.version <= version)?;
        let before = if revisions[at].version == version { at } else { at + 1 };
        let before = revisions.iter().take(before).cloned().collect();
        Some((revisions[at].number, Seen { revisions: before, ..Seen::default() }))
    });
    // Others may have made so many since that it is forgotten.
    number.await?.map_or_else(
        || no(StatusCode::GATEWAY_TIMEOUT, "it was a revision for a while; see `archipel mesh settings`"),
        Ok,
    )
}

fn told(number: u64, is_trial: bool, differences: &[Change]) -> Value {
    let change = |one: &Change| json!({"kind": one.kind.to_string(), "name": one.name, "change": one.what.word(), "lines": one.lines});
    json!({
        "schema": 1,
        "revision": number,
        "dry_run": is_trial,
        "changes": differences.iter().map(change).collect::<Vec<Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_behind_or_refuses_or_follows() {
        let standing =
            |follows, wanted, why: Option<&str>| Standing { follows, wanted, why: why.map(str::to_owned) };
        #[rustfmt::skip] // columns
        let table = [
            (standing(3, 3, None),             ("follows", None)),
            (standing(2, 3, Some("no port")),  ("refuses", Some("no port"))),
            (standing(2, 2, None),             ("behind", None)),
            (standing(1, 2, Some("no port")),  ("behind", Some("no port"))),
            // It has heard of the next one already.
            (standing(4, 4, None),             ("follows", None)),
        ];
        for (standing, expected) in table {
            assert_eq!(state(&standing, 3), expected, "{standing:?}");
        }
    }

    #[tokio::test]
    async fn others_are_answered_while_settings_are_judged() {
        let (go, may_go) = std::sync::mpsc::channel();
        // On the thread of the others it would wait for them in vain.
        let judged = aside(move || Ok(may_go.recv_timeout(std::time::Duration::from_secs(60)).is_ok()));
        let (judged, told) = tokio::join!(judged, async { go.send(()) });
        assert!(told.is_ok());
        assert_eq!(judged.ok(), Some(true));
    }

    #[test]
    fn terms_are_read_or_named() {
        let of = |text| Terms::of(&Query::of(Some(text)));
        let terms = of("by=ann&if_revision=3&dry_run=true").unwrap();
        assert_eq!((terms.by.as_str(), terms.after, terms.is_trial), ("ann", Some(3), true));
        let terms = of("").unwrap();
        assert_eq!((terms.by.as_str(), terms.after, terms.is_trial), (OPERATOR, None, false));
        for text in ["by=", "if_revision=x", "if_revision=-1", "dry_run=maybe"] {
            assert_eq!(of(text).err().map(|page| page.status()), Some(StatusCode::BAD_REQUEST), "{text}");
        }
    }
}
