//! The admin port's pages of the overlay: what `archipel p2p` asks for.
//!
//! A request is a small JSON object. What waits for a lookup is answered line by line: a line `{"hop": …}` for each of its
//! questions as it is answered, then one `{"result": …}` or `{"error": …}`. Other pages are one such object.

mod messages;

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use fabric::overlay::{
    Connected, ContentName, Dht, HOPS_MAX, Hop, HopEnd, Located, P2pNode, Peer, Place, ReachError, Reachable,
    Table, Value as Found, ValueName,
};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Answerer, JSON, OWN_HEADER, Page, TEXT, hex, not_allowed, page, unhex};

/// Longest request, in bytes: the largest value as hexadecimal digits, and its name.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Lines that wait for the client.
const LINES_MAX: usize = 64;
/// How long a value lives unless its request says otherwise, in seconds.
const LIFETIME_SECONDS: u64 = 7 * 24 * 3600;
const LINES: &str = "application/x-ndjson";

/// A page, or lines that come one by one.
pub(super) type Answer = Response<Either<Full<Bytes>, Lines>>;

/// Lines of an answer as they come.
pub(super) struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// The answer to `request`, which may be one of these pages or another. `lasting` is set for one that goes on until the
/// client leaves.
pub(super) async fn answer(answerer: &Answerer, request: Request<Incoming>, lasting: &AtomicBool) -> Answer {
    let Some(verb) = request.uri().path().strip_prefix("/p2p") else {
        return answerer.answer(request).await.map(Either::Left);
    };
    let verb = verb.trim_start_matches('/').to_owned();
    let Some((node, dht)) = answerer.subject.overlay.clone() else {
        let text = "this node takes no part in the overlay; start it with --set p2p.enabled=true\n";
        return page(StatusCode::NOT_FOUND, TEXT, text).map(Either::Left);
    };
    match (verb.as_str(), request.method()) {
        ("", &Method::GET | &Method::HEAD) => status(&node).await.map(Either::Left),
        ("", _) => not_allowed("GET, HEAD").map(Either::Left),
        // A page of a browser must not send and dial in the node's name: see `Answerer::cluster`.
        (_, &Method::POST) if !request.headers().contains_key(OWN_HEADER) => {
            let text = format!("the overlay is asked with the header {OWN_HEADER}, as `archipel p2p` does\n");
            page(StatusCode::FORBIDDEN, TEXT, text).map(Either::Left)
        }
        (_, &Method::POST) => {
            let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
            let wanted = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
            let Some(wanted) = wanted else {
                return refused(format!("the request is no JSON of at most {REQUEST_BYTES_MAX} bytes"))
                    .map(Either::Left);
            };
            // Messages come when they come, and a walk ends by its own deadline.
            if matches!(verb.as_str(), "listen" | "walk") {
                lasting.store(true, Ordering::Relaxed);
            }
            if verb == "listen" {
                return messages::listen(&node).await;
            }
            act(&verb, &wanted, node, dht).await
        }
        _ => not_allowed("POST").map(Either::Left),
    }
}

async fn act(verb: &str, wanted: &Value, node: P2pNode, dht: Dht) -> Answer {
    let text = |name: &str| wanted[name].as_str().unwrap_or_default();
    let dht = match text("overlay") {
        "" | "kad" => dht,
        "chord" => dht.over(Table::Chord),
        other => return refused_by(format!("there is no overlay {other:?}; there are kad and chord")),
    };
    match verb {
        "send" | "broadcast" | "walk" => messages::act(verb, wanted, &node, &dht).await.map(Either::Left),
        "connect" | "disconnect" | "ping" => reach(verb, text("to"), &node).await.map(Either::Left),
        "find" => {
            text("peer").parse().map(|peer: Peer| seek(Quest::Node(peer), dht)).unwrap_or_else(refused_by)
        }
        "get" => named(text("name"), &dht).map(|name| seek(Quest::Get(name), dht)).unwrap_or_else(refused_by),
        "put" => match (named(text("name"), &dht), unhex(text("value_hex"))) {
            (Ok(name), Some(value)) => {
                let seconds = wanted["lifetime_seconds"].as_u64().unwrap_or(LIFETIME_SECONDS);
                seek(Quest::Put(name, value, Duration::from_secs(seconds)), dht)
            }
            (Err(error), _) => refused_by(error),
            (Ok(_), None) => refused_by("`value_hex` has other than hexadecimal digits"),
        },
        "provide" | "providers" if text("name").is_empty() => refused_by("nothing has the empty name"),
        "provide" => seek(Quest::Provide(ContentName::parse(text("name"))), dht),
        "providers" => seek(Quest::Providers(ContentName::parse(text("name"))), dht),
        _ => {
            let text = "there are connect, disconnect, ping, send, broadcast, listen, walk, find, get, put, provide and providers\n";
            page(StatusCode::NOT_FOUND, TEXT, text).map(Either::Left)
        }
    }
}

fn refused(error: impl Display) -> Page {
    page(StatusCode::BAD_REQUEST, JSON, json!({"error": error.to_string()}).to_string())
}

fn refused_by(error: impl Display) -> Answer {
    refused(error).map(Either::Left)
}

fn named(text: &str, dht: &Dht) -> Result<ValueName, fabric::overlay::NameError> {
    ValueName::parse(text, dht.node_id())
}

async fn status(node: &P2pNode) -> Page {
    match node.status().await {
        Err(error) => failed(&error),
        Ok(status) => {
            let peers: Vec<Value> = status.connected.iter().map(connected).collect();
            let body = json!({
                "peer": status.peer.to_string(),
                "addresses": status.addresses,
                "connected": peers,
                "contacts": status.contacts,
                "known": status.known,
                "values": status.values.0,
                "value_bytes": status.values.1,
                "network_size": status.network_size,
                "reachable": match status.reachable {
                    Reachable::Unknown => "unknown",
                    Reachable::Directly => "directly",
                    Reachable::ByRelay => "by relay",
                    Reachable::No => "no",
                },
                "ring": status.ring.as_ref().map(|ring| json!({
                    "successors": ring.successors,
                    "predecessor": ring.predecessor.map(|peer| peer.to_string()),
                    "values": ring.values.0,
                    "value_bytes": ring.values.1,
                    "copied": ring.copied,
                })),
            });
            page(StatusCode::OK, JSON, body.to_string())
        }
    }
}

fn connected(peer: &Connected) -> Value {
    json!({
        "peer": peer.located.peer.to_string(),
        "addresses": peer.located.addresses,
        "serves": peer.serves,
        "relayed": peer.relayed,
        "key": peer.key.to_string(),
    })
}

/// `to` is a peer, or for connecting a place.
async fn reach(verb: &str, to: &str, node: &P2pNode) -> Page {
    let done = |result: Result<Value, ReachError>| match result {
        Ok(body) => page(StatusCode::OK, JSON, json!({"result": body}).to_string()),
        Err(error) => failed(&error),
    };
    if verb == "connect" {
        return match to.parse::<Place>() {
            Ok(place) => done(node.connect(place).await.map(|peer| json!({"peer": peer.to_string()}))),
            Err(error) => refused(error),
        };
    }
    match to.parse::<Peer>() {
        Ok(peer) if verb == "ping" => {
            done(node.ping(peer).await.map(|took| json!({"peer": to, "micros": micros(took)})))
        }
        Ok(peer) => done(node.disconnect(peer).await.map(|()| json!({"peer": to}))),
        Err(error) => refused(error),
    }
}

fn failed(error: &ReachError) -> Page {
    page(StatusCode::BAD_GATEWAY, JSON, json!({"error": error.to_string()}).to_string())
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// What a lookup is for.
enum Quest {
    Node(Peer),
    Get(ValueName),
    Put(ValueName, Vec<u8>, Duration),
    Provide(ContentName),
    Providers(ContentName),
}

/// Begins a lookup and answers with its lines. It goes on if the client leaves.
fn seek(quest: Quest, dht: Dht) -> Answer {
    let (lines, rest) = mpsc::channel(LINES_MAX);
    tokio::spawn(async move {
        let (hops, mut told) = mpsc::channel(HOPS_MAX);
        let dht = dht.watched(hops);
        let ended = {
            let mut lookup = std::pin::pin!(run(quest, &dht));
            loop {
                tokio::select! {
                    ended = &mut lookup => break ended,
                    Some(told) = told.recv() => say(&lines, &json!({"hop": hop(&told)})).await,
                }
            }
        };
        while let Ok(told) = told.try_recv() {
            say(&lines, &json!({"hop": hop(&told)})).await;
        }
        say(&lines, &ended).await;
    });
    let mut answer = Response::new(Either::Right(Lines(rest)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
    answer
}

async fn say(lines: &mpsc::Sender<Bytes>, line: &Value) {
    // A client that has left reads nothing more.
    let _ = lines.send(format!("{line}\n").into()).await;
}

/// The last line.
async fn run(quest: Quest, dht: &Dht) -> Value {
    let result = match &quest {
        Quest::Node(peer) => dht.find_node(*peer).await.map(|(nodes, cost)| {
            let found = nodes.iter().any(|node| node.peer == *peer);
            (json!({"found": found, "nodes": located(&nodes), "key": peer.key().to_string()}), cost)
        }),
        Quest::Get(name) => dht.get(name).await.map(|(value, cost)| (json!(value.map(|value| valued(name, &value))), cost)),
        Quest::Put(name, value, life) => dht.put(name, value, *life).await.map(|(kept, cost)| {
            (json!({"name": name.to_string(), "stored": kept, "key": name.key().to_string()}), cost)
        }),
        Quest::Provide(name) => dht.provide(name).await.map(|(told, cost)| {
            (json!({"name": name.to_string(), "told": told, "key": name.key().to_string()}), cost)
        }),
        Quest::Providers(name) => dht.find_providers(name).await.map(|(nodes, cost)| {
            (json!({"name": name.to_string(), "providers": located(&nodes), "key": name.key().to_string()}), cost)
        }),
    };
    match result {
        Ok((result, cost)) => {
            let cost = json!({"hops": cost.hops, "asked": cost.asked, "swept": cost.swept});
            json!({"result": result, "cost": cost})
        }
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn valued(name: &ValueName, found: &Found) -> Value {
    let version = found.version.map(
        |(sequence, expires)| json!({"sequence": sequence, "expires_unix_seconds": expires.0 / 1_000_000}),
    );
    json!({"name": name.to_string(), "value_hex": hex(&found.payload), "version": version})
}

fn located(nodes: &[Located]) -> Vec<Value> {
    nodes.iter().map(|node| json!({"peer": node.peer.to_string(), "addresses": node.addresses})).collect()
}

fn hop(hop: &Hop) -> Value {
    let (end, closer) = match hop.end {
        HopEnd::Closer(closer) => ("closer", Some(closer)),
        HopEnd::Found => ("found", None),
        HopEnd::Owns => ("owns", None),
        HopEnd::Missing => ("missing", None),
        HopEnd::Stored => ("stored", None),
        HopEnd::Refused => ("refused", None),
        HopEnd::Failed => ("failed", None),
    };
    json!({
        "peer": hop.peer.to_string(),
        "distance": hop.distance.to_string(),
        "shared_bits": hop.distance.leading_zeros(),
        "after_micros": micros(hop.after),
        "took_micros": micros(hop.took),
        "end": end,
        "closer": closer,
    })
}
