//! The pages of messages and walks: what is sent, what arrives, and what walkers bring.

use std::sync::Arc;

use fabric::overlay::{ContentName, Dht, Heard, P2pNode, Peer, ReachError, Via, WalkError};
use http_body_util::Either;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Answer, LINES, LINES_MAX, Lines, failed, located, refused, say};
use crate::admin::answer::{JSON, Page, hex, page, unhex};

/// Messages that wait for one listener; it misses what comes on top.
const HEARD_MAX: usize = 256;

/// `send`, `broadcast` and `walk`.
pub(super) async fn act(verb: &str, wanted: &Value, node: &P2pNode, dht: &Dht) -> Page {
    if verb == "walk" {
        return walk(wanted, node).await;
    }
    let Some(message) = wanted["value_hex"].as_str().and_then(unhex) else {
        return refused("`value_hex` is to have the message in hexadecimal digits");
    };
    if verb == "broadcast" {
        let via = wanted["via"].as_str().unwrap_or("flood");
        let told = match via {
            "flood" => node.broadcast(&message).await,
            "gossip" => node.gossip(&message).await,
            other => {
                return refused(format!(
                    "there is no way {other:?} to broadcast; there are flood and gossip"
                ));
            }
        };
        return match told {
            Ok(neighbours) => result(&json!({"neighbours": neighbours, "via": via})),
            Err(error) => failed(&error),
        };
    }
    let to = match wanted["to"].as_str().unwrap_or_default().parse::<Peer>() {
        Ok(peer) => peer,
        Err(error) => return refused(error),
    };
    let mut sent = node.send(to, &message).await;
    if matches!(sent, Err(ReachError::NotConnected { .. })) && dht.find_node(to).await.is_ok() {
        // Its address may be known now.
        sent = node.send(to, &message).await;
    }
    match sent {
        Ok(listeners) => result(&json!({"peer": to.to_string(), "listeners": listeners})),
        Err(error) => failed(&error),
    }
}

async fn walk(wanted: &Value, node: &P2pNode) -> Page {
    let number = |name: &str, most: u64| wanted[name].as_u64().filter(|number| *number <= most);
    let (Some(walkers), Some(steps)) =
        (number("walkers", u64::from(u8::MAX)), number("steps", u64::from(u16::MAX)))
    else {
        return refused("`walkers` and `steps` are to be numbers");
    };
    let (walkers, steps) = (walkers as u8, steps as u16);
    let walked: Result<Value, WalkError> = match wanted["content"].as_str() {
        Some("") => return refused("nothing has the empty name"),
        Some(name) => node.search(&ContentName::parse(name), walkers, steps).await.map(|found| match found {
            Some((holder, hops)) => json!({"nodes": located(&[holder]), "hops": hops}),
            None => json!({"nodes": []}),
        }),
        None => node.sample(walkers, steps).await.map(|nodes| json!({"nodes": located(&nodes)})),
    };
    match walked {
        Ok(walked) => result(&walked),
        Err(error) => page(StatusCode::BAD_GATEWAY, JSON, json!({"error": error.to_string()}).to_string()),
    }
}

fn result(body: &Value) -> Page {
    page(StatusCode::OK, JSON, json!({"result": body}).to_string())
}

/// What arrives, line by line, until the client leaves or the overlay ends: first `{"listening": …}`, then a `{"heard": …}`
/// for each message.
pub(super) async fn listen(node: &P2pNode) -> Answer {
    let (heard, mut arriving) = mpsc::channel(HEARD_MAX);
    if let Err(error) = node.listen(heard).await {
        return failed(&error).map(Either::Left);
    }
    let (lines, rest) = mpsc::channel(LINES_MAX);
    let own = Peer::from(node.node_id()).to_string();
    tokio::spawn(async move {
        say(&lines, &json!({"listening": own})).await;
        loop {
            tokio::select! {
                heard = arriving.recv() => match heard {
                    Some(heard) => say(&lines, &json!({"heard": told(&heard)})).await,
                    None => return,
                },
                () = lines.closed() => return,
            }
        }
    });
    let mut answer = Response::new(Either::Right(Lines(rest)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
    answer
}

fn told(heard: &Heard) -> Value {
    let (via, hops) = match heard.via {
        Via::Direct => ("direct", None),
        Via::Flood { hops } => ("flood", Some(hops)),
        Via::Gossip => ("gossip", None),
    };
    let payload: Arc<[u8]> = Arc::clone(&heard.payload);
    json!({
        "from": heard.from.to_string(),
        "via": via,
        "hops": hops,
        "value_hex": hex(&payload),
        "text": std::str::from_utf8(&payload).ok(),
    })
}
