//! The pages about the node's cluster: how it is, and what is asked of it.

mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use consensus::Role;
use consensus::group::Standing;
use control::{Move, Name, Operation, Outcome, Standing as Membership, State};
use fabric::join::Token;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use kernel::{GroupId, KeyspaceId, NodeId, PeerId};
use node::Worker;
use node::cluster::mind::{Answer, Ask, Mind, MoveStatus};
use p2p::swim::Liveness;
use runtime::{Clock, Remote};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::OPERATOR;
use super::answer::{JSON, TEXT, page};
use crate::ask::ask;
use crate::cluster::desk::Desk;

/// How long a worker may be busy, or the cluster may take, before that is an answer.
const SECONDS_MAX: u64 = 20;
/// A token's life unless another is asked for, in seconds.
const TOKEN_SECONDS: u64 = 600;

type Page = Response<Full<Bytes>>;
/// What came of it, or the page that says why nothing did.
pub(super) type Attempt<T> = Result<T, Box<Page>>;

/// A page that is not what was asked for.
pub(super) fn no<T>(status: StatusCode, text: impl Into<String>) -> Attempt<T> {
    let mut text = text.into();
    text.push('\n');
    Err(Box::new(page(status, TEXT, text)))
}

/// The values behind the `?`.
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub fn of(query: Option<&'a str>) -> Query<'a> {
        // A name alone has an empty value, which is refused where it means nothing, and not passed over.
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Query(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    pub fn text(&self, name: &str) -> Attempt<&'a str> {
        let found = self.0.iter().find(|(key, _)| *key == name);
        match found {
            Some((_, value)) => Ok(value),
            None => no(StatusCode::BAD_REQUEST, format!("`{name}` is missing")),
        }
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Attempt<T> {
        let text = self.text(name)?;
        let wrong =
            || no(StatusCode::BAD_REQUEST, format!("`{name}` is {text:?}, which is no number for it"));
        text.parse().map_or_else(|_| wrong(), Ok)
    }

    fn node(&self) -> Attempt<NodeId> {
        let text = self.text("node")?;
        let wrong = || no(StatusCode::BAD_REQUEST, format!("`node` is {text:?}, which is no node's id"));
        text.parse::<PeerId>().map_or_else(|_| wrong(), |peer| Ok(peer.0))
    }
}

/// Asks about the cluster, and for changes of it.
pub(super) struct Clerk<'a> {
    /// The worker that is a member.
    pub remote: &'a Remote,
    /// Where answers come.
    pub desk: &'a Arc<Desk>,
}

impl Clerk<'_> {
    /// How the cluster is, as this node sees it.
    pub async fn status(&self) -> Page {
        let told = self.ask_worker(|worker| worker.mind().map(|mind| status(worker, mind))).await;
        match told {
            Ok(Some(status)) => page(StatusCode::OK, JSON, status.to_string()),
            Ok(None) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the worker is in no cluster\n"),
            Err(page) => *page,
        }
    }

    /// Makes a token that lets one node in.
    pub async fn token(&self, query: &Query<'_>) -> Page {
        let seconds = match query.text("seconds") {
            Ok(_) => query.number("seconds"),
            Err(_) => Ok(TOKEN_SECONDS),
        };
        let made = match seconds {
            Ok(seconds) => self.make_token(Duration::from_secs(seconds)).await,
            Err(page) => Err(page),
        };
        made.map_or_else(|page| *page, |token| page(StatusCode::OK, TEXT, format!("{token}\n")))
    }

    async fn make_token(&self, life: Duration) -> Attempt<Token> {
        let issued = self.desk.introducer.issue(Clock::new().now().millis(), life);
        let (token, operation) = issued.or_else(|error| no(StatusCode::BAD_REQUEST, error.to_string()))?;
        self.change(move |_| Ok(operation)).await.map(|()| token)
    }

    /// This node's data is to move away.
    pub async fn leave(&self) -> Page {
        let node = self.desk.node;
        let left = self.change(move |_| Ok(Operation::Leave { node })).await;
        told(left, || {
            "this node's data moves to the other members, and then it is removed; `archipel cluster status` shows how far \
             it has come"
                .to_owned()
        })
    }

    /// A member is to be one no more.
    pub async fn remove(&self, query: &Query<'_>) -> Page {
        let node = match query.node() {
            Ok(node) => node,
            Err(page) => return *page,
        };
        let is_gone = move |worker: &mut Worker| {
            let member = worker.mind().and_then(|mind| mind.state().members().get(&node));
            member.is_some_and(|member| !member.is_present())
        };
        let removed = self
            .change(move |state| match state.members().get(&node).map(|member| member.standing) {
                // What it keeps is made elsewhere first.
                Some(Membership::Active) => Ok(Operation::Leave { node }),
                Some(_) => Ok(Operation::Remove { node }),
                None => Err(format!("{} is no member", PeerId(node))),
            })
            .await;
        // Who leaves is removed without being asked again, as soon as it keeps nothing: that may just have been.
        let gone = self.ask_worker(is_gone).await.unwrap_or(false);
        let removed = if gone { Ok(()) } else { removed };
        told(removed, || {
            let peer = PeerId(node);
            if gone {
                format!("{peer} is removed; its key is never accepted again")
            } else {
                format!(
                    "{peer} is not removed yet: its data moves to the other members first; ask again when `archipel \
                     cluster status` shows no copies of it"
                )
            }
        })
    }

    /// Another copy is to lead a partition.
    pub async fn move_leader(&self, query: &Query<'_>) -> Page {
        let parsed = query.number("keyspace").and_then(|keyspace| {
            let partition = query.number("partition")?;
            Ok((GroupId::new(KeyspaceId(keyspace), partition), query.node()?))
        });
        let (group, node) = match parsed {
            Ok(parsed) => parsed,
            Err(page) => return *page,
        };
        let (db, number) = (group.keyspace(), group.partition());
        let moved = self
            .change(move |state| match state.partition(group) {
                Some(partition) => Ok(Operation::MoveLeader { group, epoch: partition.epoch, node }),
                None => Err(format!("keyspace {db} has no partition {number}")),
            })
            .await;
        told(moved, || format!("{} is to lead partition {number} of keyspace {db}", PeerId(node)))
    }

    /// Asks for what `make` says of the state, and waits for the answer.
    async fn change(
        &self,
        make: impl FnOnce(&State) -> Result<Operation, String> + Send + 'static,
    ) -> Attempt<()> {
        let by = Name::new(OPERATOR).expect("it is a name");
        self.change_as(by, make).await.map(drop)
    }

    /// The same as somebody; what it did, which this node's state has then.
    pub async fn change_as(
        &self,
        by: Name,
        make: impl FnOnce(&State) -> Result<Operation, String> + Send + 'static,
    ) -> Attempt<Option<Outcome>> {
        let Some((ticket, answer)) = self.desk.register() else {
            return no(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for the cluster");
        };
        let asked = self
            .ask_worker(move |worker| {
                let Some(mind) = worker.mind() else { return Err("the worker is in no cluster".to_owned()) };
                let operation = make(mind.state())?;
                worker.ask_cluster(Ask { ticket, id: None, by, operation });
                Ok(())
            })
            .await?;
        if let Err(text) = asked {
            return no(StatusCode::CONFLICT, text);
        }
        match in_time(answer).await? {
            Answer::Done(outcome) => Ok(Some(outcome)),
            Answer::Welcome(_) => Ok(None),
            Answer::Refused(text) => no(StatusCode::CONFLICT, text),
            Answer::NoLeader => no(
                StatusCode::SERVICE_UNAVAILABLE,
                "the cluster has no leader now: nothing was changed; it has one again when a majority of its voters is up",
            ),
            Answer::Busy => {
                no(StatusCode::SERVICE_UNAVAILABLE, "the cluster is busy: nothing was changed; try again")
            }
            Answer::Unknown => no(
                StatusCode::GATEWAY_TIMEOUT,
                "the cluster did not answer in time: whether it was changed is unknown; look with `archipel cluster status`",
            ),
        }
    }

    /// Asks the worker between two turns.
    pub async fn ask_worker<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Attempt<T> {
        ask_in_time(self.remote, what).await
    }
}

/// What a worker says between two turns.
pub(super) async fn ask_in_time<T: Send + 'static>(
    remote: &Remote,
    what: impl FnOnce(&mut Worker) -> T + Send + 'static,
) -> Attempt<T> {
    match tokio::time::timeout(Duration::from_secs(SECONDS_MAX), ask(remote, what)).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => no(StatusCode::SERVICE_UNAVAILABLE, "the node stops"),
        Err(_) => no(StatusCode::GATEWAY_TIMEOUT, "the worker does not answer"),
    }
}

async fn in_time<T>(told: oneshot::Receiver<T>) -> Attempt<T> {
    match tokio::time::timeout(Duration::from_secs(SECONDS_MAX), told).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => no(StatusCode::GATEWAY_TIMEOUT, "the worker does not answer"),
    }
}

fn told(done: Attempt<()>, text: impl FnOnce() -> String) -> Page {
    match done {
        Ok(()) => page(StatusCode::OK, TEXT, format!("{}\n", text())),
        Err(page) => *page,
    }
}

/// The cluster as JSON.
fn status(worker: &Worker, mind: &Mind) -> Value {
    let status = mind.status();
    let (keyspaces, leads) = keyspaces(worker, mind);
    let members: Vec<Value> = (status.members.iter())
        .map(|one| {
            let role = match one.member.role {
                Role::Voter => "voter",
                Role::Learner => "learner",
                Role::Gone => "gone",
            };
            json!({
                "node": peer(one.node),
                "zone": one.member.zone.as_str(),
                "addresses": one.member.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "standing": one.member.standing.to_string(),
                "health": one.liveness.map_or("removed", health),
                "down": one.down,
                "role": role,
                "copies": one.copies,
                "speaks": one.spoken.map(|spoken| spoken.newest().0),
                "leads": leads.get(&one.node).copied().unwrap_or_default(),
            })
        })
        .collect();
    json!({
        "schema": 1,
        "cluster": status.cluster.map(|cluster| cluster.to_string()),
        "node": peer(mind.node()),
        "version": status.version,
        "speaks": status.speaks.0,
        "term": status.term.0,
        "leader": status.leader.map(peer),
        "members": members,
        "keyspaces": keyspaces,
        "users": mind.state().users().keys().map(Name::as_str).collect::<Vec<_>>(),
        "moves": status.moves.iter().map(movement).collect::<Vec<_>>(),
        "waiting": (status.progress.missing + status.progress.surplus).saturating_sub(status.progress.moving),
        "trouble": status.trouble.map(|trouble| trouble.to_string()),
    })
}

fn peer(node: NodeId) -> String {
    PeerId(node).to_string()
}

pub(super) const fn health(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "dead",
    }
}

/// The keyspaces, and how many partitions each node leads.
fn keyspaces(worker: &Worker, mind: &Mind) -> (Vec<Value>, BTreeMap<NodeId, u64>) {
    let mut leads: BTreeMap<NodeId, u64> = BTreeMap::new();
    let all = mind.directory().keyspaces().map(|(id, keyspace)| {
        let mut leaders: BTreeMap<NodeId, u64> = BTreeMap::new();
        for number in 0..keyspace.settings.partitions.count() {
            if let Some(node) = leader(worker, mind, id, number) {
                *leaders.entry(node).or_default() += 1;
                *leads.entry(node).or_default() += 1;
            }
        }
        let copies = worker.copies_of(Some(id));
        json!({
            "id": id.0,
            "name": keyspace.settings.name.as_str(),
            "partitions": keyspace.settings.partitions.count(),
            "copies": keyspace.settings.copies,
            "durability": settings::word(keyspace.settings.durability),
            "memory": keyspace.settings.memory,
            "eviction": keyspace.settings.eviction.name(),
            "reads": settings::reads(keyspace.settings.reading.from),
            "stale_ms_max": keyspace.settings.reading.stale_ms_max,
            "copies_here": copies.count,
            "copies_of_known_age": copies.known,
            "copies_behind_ms_max": copies.behind_ms_max,
            "led": leaders.values().sum::<u64>(),
            "leaders": leaders.into_iter().map(|(node, count)| (peer(node), count.into())).collect::<BTreeMap<String, Value>>(),
        })
    });
    let all = all.collect();
    (all, leads)
}

/// Who leads a partition, as far as this node knows; who is dead leads nothing.
pub(super) fn leader(worker: &Worker, mind: &Mind, db: KeyspaceId, number: u16) -> Option<NodeId> {
    let group = GroupId::new(db, number);
    let node = match worker.local(db, number) {
        Some(at) if worker.partitions()[at].leads() => return Some(mind.node()),
        Some(at) => match worker.partitions()[at].replica().map(consensus::Replica::standing) {
            Some(Standing::Follower(Some(leader))) => {
                let partition = mind.state().partition(group)?;
                partition.members().find(|(replica, _)| replica.id == leader)?.0.node
            }
            Some(Standing::Follower(None) | Standing::Candidate | Standing::Leader) | None => return None,
        },
        None => mind.directory().shard(group)?.leader?,
    };
    (mind.liveness(node) != Some(Liveness::Dead)).then_some(node)
}

fn movement(one: &MoveStatus) -> Value {
    let (from, to, progress) = match one.moving {
        // What is copied is most of it; then it votes, and the old copy goes.
        Move::Learning { new, old } => {
            (old, Some(new.node), 0.9 * f64::from(one.done.unwrap_or_default()) / 1000.0)
        }
        Move::Removing { old } => (Some(old), None, 0.95),
        Move::Releasing { old } => (Some(old.node), None, 0.97),
    };
    json!({
        "keyspace": one.group.keyspace().0,
        "partition": one.group.partition(),
        "from": from.map(peer),
        "to": to.map(peer),
        "progress": progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_or_named() {
        let id = peer(NodeId([7; 32]));
        let text = format!("keyspace=3&node={id}&partition=x&empty=");
        let query = Query::of(Some(&text));
        assert_eq!(query.number::<u16>("keyspace").unwrap(), 3);
        assert_eq!(query.node().unwrap(), NodeId([7; 32]));
        for name in ["partition", "empty", "absent"] {
            let page = query.number::<u16>(name).unwrap_err();
            assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{name}");
        }
        assert!(Query::of(Some("node=12D3KooW")).node().is_err());
        assert!(Query::of(None).node().is_err());
    }
}
