//! `/v1/event/…`: events that users fire, and the last of them.
//!
//! They are kept beside the keys, so all members tell the same ones in the same order, under an index that queries wait for.
//! Consul spreads them by gossip, without an order, and each agent tells those that reached it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::json::{Json, object};
use super::kv::{Reply, Task, base64, digits, text_of};
use super::{Method, Query, Refused, Request, Response, decoded, show};

/// Events that are kept; the oldest goes first.
pub const EVENTS_MAX: usize = 256;
/// Largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 512;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    id: String,
    name: String,
    payload: Vec<u8>,
    /// When it came, as an index; 0 if that is not known yet.
    index: u64,
}

impl Event {
    pub fn shown(&self) -> Json {
        let payload = if self.payload.is_empty() { Json::Null } else { base64(&self.payload).into() };
        object([
            ("ID", (&self.id).into()),
            ("Name", (&self.name).into()),
            ("Payload", payload),
            ("NodeFilter", "".into()),
            ("ServiceFilter", "".into()),
            ("TagFilter", "".into()),
            ("Version", 1_u16.into()),
            ("LTime", self.index.into()),
        ])
    }
}

/// What the store is to do for a request below `event/`.
pub(super) fn plan(
    request: &Request<'_>,
    query: &Query,
    path: &str,
    random: [u8; 16],
) -> Result<Task, Refused> {
    let parts: Option<Vec<String>> = path.split('/').skip(1).map(|part| decoded(part, false)).collect();
    let parts = parts.ok_or_else(|| Refused::bad("the path is no text"))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let only = |method: Method, name: &str| {
        if request.method == method {
            Ok(())
        } else {
            Err(Refused { code: 405, why: format!("allowed here: {name}") })
        }
    };
    // Consul's are regular expressions, which each agent holds against itself.
    if ["node", "service", "tag"].iter().any(|key| query.get(key).is_some_and(|it| !it.is_empty())) {
        return Err(Refused::not_offered("events for some nodes only".to_string()));
    }
    match parts[..] {
        ["fire", name] => {
            only(Method::Put, "PUT")?;
            if name.is_empty() {
                return Err(Refused::bad("Missing name"));
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(Refused::bad(format!("the name of an event has at most {NAME_BYTES_MAX} bytes")));
            }
            if request.body.len() > PAYLOAD_BYTES_MAX {
                let why = format!("user event exceeds configured limit of {PAYLOAD_BYTES_MAX} bytes");
                return Err(Refused { code: 413, why });
            }
            let (id, payload) = (show::uuid_of(random), request.body.to_vec());
            Ok(Task::of_event(Event { id, name: name.to_string(), payload, index: 0 }))
        }
        ["list"] => {
            only(Method::Get, "GET")?;
            Ok(Task::of_events(query.get("name").unwrap_or_default()))
        }
        _ => Err(Refused::not_found(format!("there is no /v1/{path}"))),
    }
}

impl Event {
    /// The arguments of the script that fires it.
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let most = EVENTS_MAX.to_string();
        [b"event.fire".as_slice(), self.id.as_bytes(), self.name.as_bytes(), &self.payload, most.as_bytes()]
            .map(<[u8]>::to_vec)
            .into()
    }
}

/// The answer to a list; none if the store replied something else.
pub(super) fn told(items: &[Reply]) -> Option<Response> {
    let one = |item: &Reply| {
        let Reply::List(parts) = item else { return None };
        let [index, id, name, Reply::Bytes(payload)] = &parts[..] else { return None };
        let (id, name) = (text_of(id)?.to_string(), text_of(name)?.to_string());
        Some(Event { id, name, payload: payload.clone(), index: digits(index)? }.shown())
    };
    Some(Response::json(200, &Json::List(items.iter().map(one).collect::<Option<_>>()?)))
}
