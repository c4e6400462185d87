//! Consul's HTTP API over the registry: a request in, an answer out, or what has to change before there is one.
//!
//! Agent, catalog, health and status are answered from what this node knows, so every node answers, whichever others it
//! can reach (`stale`, `consistent` and `cached` are taken and make no difference). Keys and sessions are the store's ([`kv`]). Blocking queries wait for an index,
//! which is this node's own. What is not offered is answered 501 and says why. Who may ask is judged before ([`access`]).

pub mod access;
mod agent;
mod catalog;
mod event;
mod filter;
mod json;
pub mod kv;
mod read;
mod sd;
mod show;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tests;
mod txn;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::Micros;
use mesh::health::{Agent, CheckError};
use mesh::registry::{RegisterError, Topic};

use self::access::Grant;
pub use self::filter::FILTER_BYTES_MAX;
use self::filter::Filter;
pub use self::json::{DEPTH_MAX, NotJson, VALUES_MAX};
use self::json::{Json, object};
pub use self::txn::{KEYS_MAX, OPERATIONS_MAX};

/// Largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 512 * 1024;
/// How long a blocking query waits unless it says otherwise, in milliseconds.
pub const WAIT_MS: u64 = 300_000;
/// How long it may wait, in milliseconds.
pub const WAIT_MS_MAX: u64 = 600_000;

/// Where Prometheus finds services.
const TARGETS: &str = "prometheus/targets";

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Writes.
    Put,
    /// Removes.
    Delete,
    /// Any other.
    Other,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it does.
    pub method: Method,
    /// Its path, as it came.
    pub path: &'a str,
    /// What is behind the question mark, as it came.
    pub query: &'a str,
    /// Its body, at most [`BODY_BYTES_MAX`].
    pub body: &'a [u8],
}

/// What is said of this node besides what is registered.
#[derive(Clone, Debug)]
pub struct About {
    /// What the cluster calls itself for Consul's clients.
    pub datacenter: String,
    /// The program's version.
    pub version: String,
    /// Whom status names as leader and as peers: `address:port`. Empty if there is no leader.
    pub leader: String,
    /// See `leader`.
    pub peers: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub code: u16,
    /// The index that it is of, for the header `X-Consul-Index`.
    pub index: Option<u64>,
    /// It is JSON; otherwise plain text.
    pub is_json: bool,
    /// What it says.
    pub body: Vec<u8>,
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is answered.
    Now(Response),
    /// It is asked again when `topic` has changed or the time is up.
    Wait {
        /// What has to change.
        topic: Topic,
        /// For how long it waits, in milliseconds.
        wait_ms: u64,
    },
}

/// A request that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: u16,
    pub why: String,
}

impl Refused {
    fn bad(why: impl Into<String>) -> Refused {
        Refused { code: 400, why: why.into() }
    }

    fn not_found(why: impl Into<String>) -> Refused {
        Refused { code: 404, why: why.into() }
    }

    fn not_offered(what: String) -> Refused {
        Refused { code: 501, why: format!("not offered here: {what}") }
    }
}

impl From<RegisterError> for Refused {
    fn from(error: RegisterError) -> Refused {
        match error {
            RegisterError::Unknown { .. } => Refused::not_found(error.to_string()),
            RegisterError::Record(_) => Refused::bad(error.to_string()),
            RegisterError::Full => Refused { code: 429, why: error.to_string() },
        }
    }
}

impl From<CheckError> for Refused {
    fn from(error: CheckError) -> Refused {
        match error {
            CheckError::Register(error) => error.into(),
            CheckError::Unknown { .. } => Refused::not_found(error.to_string()),
            CheckError::Full => Refused { code: 429, why: error.to_string() },
            CheckError::Time { .. }
            | CheckError::Runs { .. }
            | CheckError::Target { .. }
            | CheckError::Taken { .. }
            | CheckError::NoTtl { .. } => Refused::bad(error.to_string()),
        }
    }
}

/// What is read, and what changes it.
struct Page {
    topic: Topic,
    body: Json,
    filtered: Filtered,
}

/// What of a page `filter=` chooses from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filtered {
    /// The items of the list, or of the object of things by name.
    Items,
    /// Those of `Services` in it.
    Services,
}

/// What a handler comes to.
enum Done {
    /// It was read; it can be waited for.
    Read(Page),
    /// It was read or done, and nobody waits for it.
    Plain(Response),
}

type Attempt = Result<Done, Refused>;

impl Response {
    fn json(code: u16, body: &Json) -> Response {
        let mut text = String::new();
        body.write(&mut text);
        Response { code, index: None, is_json: true, body: text.into_bytes() }
    }

    fn text(code: u16, body: String) -> Response {
        Response { code, index: None, is_json: false, body: body.into_bytes() }
    }
}

fn done(body: &Json) -> Attempt {
    Ok(Done::Plain(Response::json(200, body)))
}

fn read(topic: Topic, body: Json) -> Attempt {
    Ok(Done::Read(Page { topic, body, filtered: Filtered::Items }))
}

/// A node and its services, of which it is chosen.
fn read_services(topic: Topic, node: Json, services: Json) -> Attempt {
    let body = object([("Node", node), ("Services", services)]);
    Ok(Done::Read(Page { topic, body, filtered: Filtered::Services }))
}

/// It was done, and there is nothing to say.
fn nothing() -> Attempt {
    Ok(Done::Plain(Response { code: 200, index: None, is_json: false, body: Vec::new() }))
}

/// Text as it stands in a path or query; none if it is no text.
fn decoded(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The words of a query.
#[derive(Debug)]
struct Query(Vec<(String, String)>);

/// Words of a query, at most.
const WORDS_MAX: usize = 64;

impl Query {
    fn parse(text: &str) -> Option<Query> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(WORDS_MAX).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(key, true)?, decoded(value, true)?))
        });
        pairs.collect::<Option<_>>().map(Query)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// It is there, whatever it says.
    fn is_there(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// It is there and not taken back.
    fn is_set(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value != "0" && value != "false")
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The index that is waited behind, and for how long.
    fn wait(&self) -> Result<Option<(u64, u64)>, Refused> {
        let Some(index) = self.get("index").filter(|index| !index.is_empty()) else { return Ok(None) };
        let index = index.parse().map_err(|_| Refused::bad("Invalid index"))?;
        let wait = match self.get("wait").filter(|wait| !wait.is_empty()) {
            None => WAIT_MS,
            Some(text) => read::millis(text).ok_or_else(|| Refused::bad("Invalid wait time"))?,
        };
        let wait = if wait == 0 { WAIT_MS } else { wait.min(WAIT_MS_MAX) };
        Ok(Some((index, wait)).filter(|_| index > 0))
    }
}

/// A request on its way to its page.
struct Asked<'a> {
    now: Micros,
    about: &'a About,
    grant: &'a Grant,
    method: Method,
    query: Query,
    body: &'a [u8],
}

impl Asked<'_> {
    fn json(&self) -> Result<Json, Refused> {
        Json::parse(self.body)
            .map_err(|NotJson { at }| Refused::bad(format!("Request decode failed: no JSON at byte {at}")))
    }

    /// Only this way.
    fn only(&self, method: Method) -> Result<(), Refused> {
        if self.method == method {
            return Ok(());
        }
        let name = match method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Other => "another method",
        };
        Err(Refused { code: 405, why: format!("allowed here: {name}") })
    }
}

/// What comes of `request`, of whoever has this `grant`. With `waited`, the time of its wait is up and it is answered in any case.
pub fn answer(
    agent: &mut Agent,
    about: &About,
    now: Micros,
    request: &Request<'_>,
    grant: &Grant,
    waited: bool,
) -> Answer {
    match attempt(agent, about, now, request, grant, waited) {
        Ok(answer) => answer,
        Err(Refused { code, why }) => Answer::Now(Response::text(code, why)),
    }
}

fn attempt(
    agent: &mut Agent,
    about: &About,
    now: Micros,
    request: &Request<'_>,
    grant: &Grant,
    waited: bool,
) -> Result<Answer, Refused> {
    let query = Query::parse(request.query).ok_or_else(|| Refused::bad("the query is no text"))?;
    let wait = query.wait()?;
    let filter = query.get("filter").filter(|text| !text.is_empty()).map(Filter::parse).transpose();
    let filter = filter.map_err(|why| Refused::bad(format!("Failed to create filter: {why}")))?;
    if let Some(other) = query.get("dc").filter(|dc| !dc.is_empty() && *dc != about.datacenter) {
        return Err(Refused { code: 500, why: format!("No path to datacenter {other:?}") });
    }
    let is_ours = |path: &&str| *path == TARGETS;
    let path = request.path.strip_prefix("/v1/").or_else(|| request.path.strip_prefix('/').filter(is_ours));
    let path = path.ok_or_else(|| Refused::not_found(format!("there are /v1/… and /{TARGETS}")))?;
    let parts: Option<Vec<String>> = path.split('/').map(|part| decoded(part, false)).collect();
    let parts = parts.ok_or_else(|| Refused::bad("the path is no text"))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let asked = Asked { now, about, grant, method: request.method, query, body: request.body };
    let mut page = match route(agent, &asked, &parts)? {
        Done::Plain(response) => return Ok(Answer::Now(response)),
        Done::Read(page) => page,
    };
    let index = agent.registry().view().index_of(&page.topic);
    if let Some((after, wait_ms)) = wait
        && index == after
        && !waited
    {
        return Ok(Answer::Wait { topic: page.topic, wait_ms });
    }
    if let Some(filter) = filter {
        page.body = match (page.filtered, page.body) {
            (Filtered::Services, Json::Object(pairs)) => {
                let one = |(name, body): (String, Json)| match name.as_str() {
                    "Services" => (name, filtered(body, &filter)),
                    _ => (name, body),
                };
                Json::Object(pairs.into_iter().map(one).collect())
            }
            (_, body) => filtered(body, &filter),
        };
    }
    Ok(Answer::Now(Response { index: Some(index), ..Response::json(200, &page.body) }))
}

/// Lists and objects of things by name keep those that are wanted.
fn filtered(body: Json, filter: &Filter) -> Json {
    match body {
        Json::List(list) => Json::List(list.into_iter().filter(|it| filter.wants(it)).collect()),
        Json::Object(pairs) => Json::Object(pairs.into_iter().filter(|(_, it)| filter.wants(it)).collect()),
        other => other,
    }
}

fn route(agent: &mut Agent, asked: &Asked<'_>, parts: &[&str]) -> Attempt {
    match parts {
        ["agent", rest @ ..] => agent::answer(agent, asked, rest),
        ["catalog", rest @ ..] => catalog::answer(agent, asked, rest),
        ["health", rest @ ..] => {
            asked.only(Method::Get)?;
            catalog::health(agent, asked, rest)
        }
        ["prometheus", "targets"] => sd::answer(agent, asked),
        ["txn"] => txn::registry(agent, asked),
        ["status", "leader"] => done(&(&asked.about.leader).into()),
        ["status", "peers"] => done(&asked.about.peers[..].into()),
        [first, ..] => {
            let why = match *first {
                "kv" | "session" | "event" => "keys, sessions and events at this place",
                "query" => "prepared queries; ask /v1/health/service/NAME?passing with a filter",
                "acl" => "making tokens and policies; `consul.tokens` of the configuration has the tokens",
                "connect" | "config" | "discovery-chain" | "exported-services" | "imported-services" => {
                    "the service mesh of sidecars"
                }
                "operator" | "snapshot" => {
                    "operations of Consul's servers; see `archipel cluster` and `archipel storage`"
                }
                "coordinate" => "network coordinates",
                "peering" | "peerings" => "peering with other clusters",
                "internal" => "pages of Consul's own console",
                _ => return Err(Refused::not_found(format!("there is no /v1/{first}"))),
            };
            Err(Refused::not_offered(why.to_string()))
        }
        [] => Err(Refused::not_found("the API is below /v1/")),
    }
}
