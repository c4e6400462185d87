//! `/v1/kv/…`, `/v1/session/…` and `/v1/event/…`: keys, sessions, locks and events; and transactions of keys.
//!
//! They are in one keyspace of the store, replicated and durable as that is. A request becomes one run of [`SCRIPT`], which
//! is one entry of the log: what it compares and what it writes are of one moment. Here requests become its arguments, and
//! its replies answers; the host asks the store.
//!
//! A session ends when its time is up by the group's clock, or when its node is declared dead. Its locks are given back then, and
//! nobody has them before the delay is over.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::access::{Access, Reach, Rules};
use super::event::{self, Event};
use super::json::{Json, object};
use super::{Method, NotJson, Query, Refused, Request, Response, decoded, read, txn};

/// What the store runs: `EVAL SCRIPT 1 {consul} ARGUMENTS…`.
pub const SCRIPT: &str = include_str!("kv.lua");
/// The key that says where it runs.
pub const PLACE: &str = "{consul}";
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Shortest and longest life of a session without a sign, in milliseconds.
pub const TTL_MS: (u64, u64) = (1_000, 86_400_000);
/// How long a lock rests after its session ended, unless the session says otherwise, in milliseconds.
pub const LOCK_DELAY_MS: u64 = 15_000;
/// How long it may rest, in milliseconds.
pub const LOCK_DELAY_MS_MAX: u64 = 60_000;

/// What the store replied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Reply>),
    /// A refusal.
    Error(String),
}

/// What a reply is shown as.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Whether it was done.
    Flag,
    /// Keys with their values; 404 if there is none.
    Pairs,
    /// The value alone.
    Raw,
    /// Names; 404 if there is none.
    Names,
    /// Sessions.
    Sessions,
    /// Sessions; 404 if there is none, and without an index.
    Renewed,
    /// The id that was drawn.
    Id(String),
    /// What a transaction came to.
    Transaction,
    /// An event that was fired: as it is told, without its index.
    Fired(Event),
    /// Events.
    Events,
}

/// What the store is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// It changes something: `EVAL`, otherwise `EVAL_RO`.
    pub writes: bool,
    /// The script's arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Answered when the index is another than this, or after so many milliseconds.
    pub wait: Option<(u64, u64)>,
    form: Form,
}

/// Whether a request is for the store.
#[must_use]
pub fn is_for_store(path: &str, body: &[u8]) -> bool {
    ["/v1/kv/", "/v1/session/", "/v1/event/"].iter().any(|start| path.starts_with(start))
        || path == "/v1/kv"
        || (path == TRANSACTION && txn::is_for_store(body))
}

impl Task {
    pub(super) fn of_transaction(writes: bool, arguments: Vec<Vec<u8>>) -> Task {
        Task { writes, arguments, wait: None, form: Form::Transaction }
    }

    pub(super) fn of_event(event: Event) -> Task {
        Task { writes: true, arguments: event.arguments(), wait: None, form: Form::Fired(event) }
    }

    pub(super) fn of_events(name: &str) -> Task {
        task(false, Form::Events, [b"event.list", name.as_bytes()])
    }
}

/// The path of transactions.
pub(super) const TRANSACTION: &str = "/v1/txn";

/// What a request below `/v1/kv` does with which key; none if it has no key.
pub(super) fn touched(request: &Request<'_>) -> Option<(Reach, String)> {
    let rest = request.path.strip_prefix("/v1/kv")?;
    let key = decoded(rest.strip_prefix('/').unwrap_or(rest), false)?;
    let query = Query::parse(request.query)?;
    let reach = match request.method {
        Method::Get if query.is_there("keys") || query.is_there("recurse") => Reach::List,
        Method::Get => Reach::Read,
        Method::Delete if query.is_there("recurse") => Reach::WriteTree,
        Method::Put | Method::Delete | Method::Other => Reach::Write,
    };
    Some((reach, key))
}

fn task<const N: usize>(writes: bool, form: Form, words: [&[u8]; N]) -> Task {
    Task { writes, arguments: words.iter().map(|word| word.to_vec()).collect(), wait: None, form }
}

/// What the store is to do for `request`. `node` is this node's name, and `random` bytes that were never used before.
///
/// # Errors
/// The answer, if there is nothing to do.
pub fn plan(request: &Request<'_>, node: &str, datacenter: &str, random: [u8; 16]) -> Result<Task, Response> {
    let refused = |Refused { code, why }| Response::text(code, why);
    attempt(request, node, datacenter, random).map_err(refused)?
}

type Planned = Result<Task, Response>;

fn attempt(
    request: &Request<'_>,
    node: &str,
    datacenter: &str,
    random: [u8; 16],
) -> Result<Planned, Refused> {
    let query = Query::parse(request.query).ok_or_else(|| Refused::bad("the query is no text"))?;
    if let Some(other) = query.get("dc").filter(|dc| !dc.is_empty() && *dc != datacenter) {
        return Err(Refused { code: 500, why: format!("No path to datacenter {other:?}") });
    }
    if request.path == TRANSACTION {
        return Ok(txn::keys(request));
    }
    let wait = query.wait()?;
    let path = request.path.strip_prefix("/v1/").unwrap_or_default();
    let rest = path.strip_prefix("kv").map(|rest| rest.strip_prefix('/').unwrap_or(rest));
    let planned = match rest {
        Some(key) => {
            let key = decoded(key, false).ok_or_else(|| Refused::bad("the key is no text"))?;
            keys(request, &query, &key)?
        }
        None if path.starts_with("event/") => event::plan(request, &query, path, random)?,
        None => sessions(request, &query, path, node, random)?,
    };
    Ok(Ok(Task { wait: wait.filter(|_| !planned.writes), ..planned }))
}

fn number(query: &Query, key: &str) -> Result<Option<u64>, Refused> {
    let wrong = |_| Refused::bad(format!("{key} must be a number"));
    query.get(key).map(|text| text.parse().map_err(wrong)).transpose()
}

fn keys(request: &Request<'_>, query: &Query, key: &str) -> Result<Task, Refused> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Refused { code: 414, why: format!("a key has at most {KEY_BYTES_MAX} bytes") });
    }
    let (name, recurse) = (key.as_bytes(), query.is_there("recurse"));
    let needs_name = || if key.is_empty() { Err(Refused::bad("Missing key name")) } else { Ok(()) };
    match request.method {
        Method::Get if query.is_there("keys") => {
            let separator = query.get("separator").unwrap_or_default();
            Ok(task(false, Form::Names, [b"keys", name, separator.as_bytes()]))
        }
        Method::Get if recurse => Ok(task(false, Form::Pairs, [b"list", name])),
        Method::Get => {
            needs_name()?;
            let form = if query.is_there("raw") { Form::Raw } else { Form::Pairs };
            Ok(task(false, form, [b"get", name]))
        }
        Method::Put => {
            needs_name()?;
            if request.body.len() > VALUE_BYTES_MAX {
                let why = format!("Request body too large: a value has at most {VALUE_BYTES_MAX} bytes");
                return Err(Refused { code: 413, why });
            }
            let flags = number(query, "flags")?.unwrap_or(0).to_string();
            let cas = number(query, "cas")?.map(|cas| cas.to_string()).unwrap_or_default();
            let word = |key| query.get(key).unwrap_or_default().as_bytes();
            let (acquire, release) = (word("acquire"), word("release"));
            if !acquire.is_empty() && !release.is_empty() {
                return Err(Refused::bad("Conflicting flags: acquire and release"));
            }
            let words = [b"put", name, request.body, flags.as_bytes(), cas.as_bytes(), acquire, release];
            Ok(task(true, Form::Flag, words))
        }
        Method::Delete if recurse => Ok(task(true, Form::Flag, [b"tree", name])),
        Method::Delete => {
            needs_name()?;
            let cas = number(query, "cas")?.map(|cas| cas.to_string()).unwrap_or_default();
            Ok(task(true, Form::Flag, [b"delete", name, cas.as_bytes()]))
        }
        Method::Other => Err(Refused { code: 405, why: "allowed here: GET, PUT, DELETE".to_string() }),
    }
}

fn sessions(
    request: &Request<'_>,
    query: &Query,
    path: &str,
    node: &str,
    random: [u8; 16],
) -> Result<Task, Refused> {
    let parts: Option<Vec<String>> = path.split('/').skip(1).map(|part| decoded(part, false)).collect();
    let parts = parts.ok_or_else(|| Refused::bad("the path is no text"))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let only = |method: Method| {
        if request.method == method {
            Ok(())
        } else {
            Err(Refused { code: 405, why: "another method is allowed here".to_string() })
        }
    };
    match parts[..] {
        ["create"] => {
            only(Method::Put)?;
            create(request.body, node, random)
        }
        ["destroy", id] => {
            only(Method::Put)?;
            Ok(task(true, Form::Flag, [b"session.destroy", id.as_bytes()]))
        }
        ["renew", id] => {
            only(Method::Put)?;
            Ok(task(true, Form::Renewed, [b"session.renew", id.as_bytes()]))
        }
        ["info", id] => {
            only(Method::Get)?;
            Ok(task(false, Form::Sessions, [b"session.info", id.as_bytes()]))
        }
        ["node", name] => {
            only(Method::Get)?;
            Ok(task(false, Form::Sessions, [b"session.list", name.as_bytes()]))
        }
        ["list"] => {
            only(Method::Get)?;
            let _ = query;
            Ok(task(false, Form::Sessions, [b"session.list", b""]))
        }
        _ => Err(Refused::not_found(format!("there is no /v1/{path}"))),
    }
}

fn create(body: &[u8], node: &str, random: [u8; 16]) -> Result<Task, Refused> {
    let given = if body.is_empty() {
        object([])
    } else {
        Json::parse(body)
            .map_err(|NotJson { at }| Refused::bad(format!("Request decode failed: no JSON at byte {at}")))?
    };
    let text = |key: &str| given.get(key).and_then(Json::text).unwrap_or_default();
    if !text("Node").is_empty() && text("Node") != node {
        return Err(Refused::not_offered(format!(
            "sessions of another node ({:?}): ask the agent there",
            text("Node")
        )));
    }
    for key in ["Checks", "NodeChecks", "ServiceChecks"] {
        let Some(Json::List(list)) = given.get(key) else { continue };
        if list.iter().any(|check| check.text() != Some(super::show::MEMBER_CHECK)) {
            return Err(Refused::not_offered(
                "sessions that end with a check other than serfHealth".to_string(),
            ));
        }
    }
    let behavior = match text("Behavior") {
        "" | "release" => "release",
        "delete" => "delete",
        other => return Err(Refused::bad(format!("Invalid Behavior setting {other:?}"))),
    };
    let duration = |key: &str, usual: u64| match given.get(key) {
        None => Ok(usual),
        Some(Json::Text(text)) if text.is_empty() => Ok(usual),
        Some(Json::Text(text)) => read::millis(text).ok_or(()),
        Some(Json::Int(nanos)) => u64::try_from(*nanos).map(|nanos| nanos / 1_000_000).map_err(|_| ()),
        Some(_) => Err(()),
    };
    let ttl = duration("TTL", 0).map_err(|()| Refused::bad("Request TTL decode failed"))?;
    if ttl != 0 && !(TTL_MS.0..=TTL_MS.1).contains(&ttl) {
        return Err(Refused::bad(format!("Invalid Session TTL '{ttl}ms', must be between 1s and 24h")));
    }
    // A delay without a unit is of seconds below 1000, as in Consul.
    let delay = match given.get("LockDelay") {
        Some(Json::Int(small @ 0..1000)) => small.unsigned_abs() * 1000,
        _ => duration("LockDelay", LOCK_DELAY_MS)
            .map_err(|()| Refused::bad("Request LockDelay decode failed"))?,
    };
    if delay > LOCK_DELAY_MS_MAX {
        return Err(Refused::bad("Invalid LockDelay, must be between 0 and 60s"));
    }
    let id = super::show::uuid_of(random);
    let (ttl, delay) = (ttl.to_string(), delay.to_string());
    let words: [&[u8]; 7] = [
        b"session.create",
        id.as_bytes(),
        text("Name").as_bytes(),
        node.as_bytes(),
        behavior.as_bytes(),
        ttl.as_bytes(),
        delay.as_bytes(),
    ];
    Ok(task(true, Form::Id(id.clone()), words))
}

/// What ends the sessions of a dead node.
#[must_use]
pub fn end_sessions_of(node: &str) -> Task {
    task(true, Form::Flag, [b"session.node", node.as_bytes()])
}

/// What ends sessions whose time is up.
#[must_use]
pub fn sweep() -> Task {
    task(true, Form::Flag, [b"sweep"])
}

/// What tells the index of all, and whether there is something to [`sweep`].
#[must_use]
pub fn poll() -> Task {
    task(false, Form::Flag, [b"poll"])
}

/// What [`poll`] told.
#[must_use]
pub fn polled(reply: &Reply) -> Option<(u64, bool)> {
    let Reply::List(parts) = reply else { return None };
    let [index, Reply::Int(due)] = &parts[..] else { return None };
    Some((digits(index)?, *due > 0))
}

pub(super) fn text_of(reply: &Reply) -> Option<&str> {
    if let Reply::Bytes(bytes) = reply { core::str::from_utf8(bytes).ok() } else { None }
}

pub(super) fn digits(reply: &Reply) -> Option<u64> {
    text_of(reply)?.parse().ok()
}

/// RFC 4648, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

pub(super) fn pair(reply: &Reply) -> Option<Json> {
    let Reply::List(parts) = reply else { return None };
    let [key, Reply::Bytes(value), flags, created, modified, locked, session] = &parts[..] else {
        return None;
    };
    let value = if value.is_empty() { Json::Null } else { base64(value).into() };
    let mut pairs = vec![
        ("LockIndex".to_string(), digits(locked)?.into()),
        ("Key".to_string(), text_of(key)?.into()),
        ("Flags".to_string(), Json::Float(digits(flags)?.to_string())),
        ("Value".to_string(), value),
        ("CreateIndex".to_string(), digits(created)?.into()),
        ("ModifyIndex".to_string(), digits(modified)?.into()),
    ];
    let session = text_of(session)?;
    if !session.is_empty() {
        pairs.insert(1, ("Session".to_string(), session.into()));
    }
    Some(Json::Object(pairs))
}

fn session(reply: &Reply) -> Option<Json> {
    let Reply::List(parts) = reply else { return None };
    let [id, name, node, behavior, ttl, delay, index] = &parts[..] else { return None };
    let ttl = digits(ttl)?;
    Some(object([
        ("ID", text_of(id)?.into()),
        ("Name", text_of(name)?.into()),
        ("Node", text_of(node)?.into()),
        ("LockDelay", (digits(delay)? * 1_000_000).into()),
        ("Behavior", text_of(behavior)?.into()),
        ("TTL", if ttl == 0 { "".into() } else { format!("{ttl}ms").into() }),
        ("NodeChecks", Json::List(vec![super::show::MEMBER_CHECK.into()])),
        ("ServiceChecks", Json::Null),
        ("CreateIndex", digits(index)?.into()),
        ("ModifyIndex", digits(index)?.into()),
    ]))
}

impl Task {
    /// The index of what was read, which a wait compares; none if it changed something or was refused.
    #[must_use]
    pub fn index(&self, reply: &Reply) -> Option<u64> {
        match reply {
            Reply::List(parts) if !self.writes => parts.first().and_then(digits).map(|index| index.max(1)),
            Reply::List(_) | Reply::Nil | Reply::Int(_) | Reply::Bytes(_) | Reply::Error(_) => None,
        }
    }

    /// What of a reply may be seen by whoever has these rights to keys: of what was listed that which may be read.
    #[must_use]
    pub fn seen_by(&self, mut reply: Reply, keys: &Rules) -> Reply {
        let name = |item: &Reply| match (&self.form, item) {
            (Form::Names, name) => text_of(name).map(ToString::to_string),
            (_, Reply::List(parts)) => parts.first().and_then(text_of).map(ToString::to_string),
            (_, _) => None,
        };
        let is_seen = |item: &Reply| name(item).is_some_and(|key| keys.of(&key) >= Access::Read);
        let lists = matches!(self.form, Form::Pairs | Form::Raw | Form::Names | Form::Transaction);
        let chooses = lists && keys.of_all("") < Access::Read;
        if let (true, Reply::List(parts)) = (chooses, &mut reply)
            && let Some(Reply::List(items)) = parts.get_mut(1)
        {
            items.retain(is_seen);
        }
        reply
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self, reply: &Reply) -> Response {
        let response = match reply {
            Reply::Error(why) => Some(Response::text(500, why.trim_start_matches("ERR ").to_string())),
            _ => self.shown(reply),
        };
        let broken = || Response::text(500, "the store replied something else".to_string());
        Response { index: self.index(reply), ..response.unwrap_or_else(broken) }
    }

    fn shown(&self, reply: &Reply) -> Option<Response> {
        let found = |list: Vec<Json>| {
            if list.is_empty() {
                Response::text(404, String::new())
            } else {
                Response::json(200, &list.into())
            }
        };
        let items = || match reply {
            Reply::List(parts) if self.writes => Some(&parts[..]),
            Reply::List(parts) => match parts.get(1) {
                Some(Reply::List(items)) => Some(&items[..]),
                Some(_) | None => None,
            },
            Reply::Nil | Reply::Int(_) | Reply::Bytes(_) | Reply::Error(_) => None,
        };
        Some(match (&self.form, reply) {
            (Form::Flag, Reply::Int(done)) => Response::json(200, &(*done == 1).into()),
            (Form::Id(id), Reply::Int(1)) => Response::json(200, &object([("ID", id.into())])),
            (Form::Fired(event), Reply::Int(1)) => Response::json(200, &event.shown()),
            (Form::Flag | Form::Id(_) | Form::Fired(_), _) => return None,
            (Form::Transaction, _) => txn::told(&self.arguments, reply)?,
            (Form::Events, _) => event::told(items()?)?,
            (Form::Pairs, _) => found(items()?.iter().map(pair).collect::<Option<_>>()?),
            (Form::Names, _) => {
                found(items()?.iter().map(|name| text_of(name).map(Json::from)).collect::<Option<_>>()?)
            }
            (Form::Renewed, _) => found(items()?.iter().map(session).collect::<Option<_>>()?),
            (Form::Sessions, _) => {
                Response::json(200, &Json::List(items()?.iter().map(session).collect::<Option<_>>()?))
            }
            (Form::Raw, _) => match items()?.first() {
                None => Response::text(404, String::new()),
                Some(Reply::List(parts)) => match parts.get(1)? {
                    Reply::Bytes(value) => {
                        Response { code: 200, index: None, is_json: false, body: value.clone() }
                    }
                    _ => return None,
                },
                Some(_) => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(method: Method, target: &str, body: &str) -> Result<Task, Response> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        plan(&Request { method, path, query, body: body.as_bytes() }, "n1", "dc1", [7; 16])
    }

    /// The arguments, with bars between them.
    fn words(method: Method, target: &str, body: &str) -> String {
        let task = planned(method, target, body).unwrap();
        let words: Vec<String> =
            task.arguments.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect();
        format!("{}{}", if task.writes { "!" } else { "" }, words.join("|"))
    }

    #[test]
    fn requests_become_arguments_of_the_script() {
        let id = "07070707-0707-0707-0707-070707070707";
        #[rustfmt::skip] // columns
        let table = [
            (Method::Get,    "/v1/kv/a/b%20c",                   "",  "get|a/b c"),
            (Method::Get,    "/v1/kv/a?recurse",                 "",  "list|a"),
            (Method::Get,    "/v1/kv/?recurse",                  "",  "list|"),
            (Method::Get,    "/v1/kv/a/?keys&separator=/",       "",  "keys|a/|/"),
            (Method::Put,    "/v1/kv/a",                         "v", "!put|a|v|0|||"),
            (Method::Put,    "/v1/kv/a?cas=3&flags=7",           "v", "!put|a|v|7|3||"),
            (Method::Put,    "/v1/kv/a?acquire=s",               "v", "!put|a|v|0||s|"),
            (Method::Put,    "/v1/kv/a?release=s",               "v", "!put|a|v|0|||s"),
            (Method::Delete, "/v1/kv/a?cas=3",                   "",  "!delete|a|3"),
            (Method::Delete, "/v1/kv/a?recurse",                 "",  "!tree|a"),
            (Method::Put,    "/v1/session/destroy/x",            "",  "!session.destroy|x"),
            (Method::Put,    "/v1/session/renew/x",              "",  "!session.renew|x"),
            (Method::Get,    "/v1/session/list",                 "",  "session.list|"),
            (Method::Get,    "/v1/session/node/n2",              "",  "session.list|n2"),
            (Method::Put,    "/v1/session/create",               "",  &format!("!session.create|{id}||n1|release|0|15000")),
            (Method::Put,    "/v1/session/create", r#"{"Name":"a","TTL":"10s","Behavior":"delete","LockDelay":"0s","Checks":["serfHealth"]}"#,
                &format!("!session.create|{id}|a|n1|delete|10000|0")),
            (Method::Put,    "/v1/session/create",               r#"{"LockDelay":5}"#, &format!("!session.create|{id}||n1|release|0|5000")),
        ];
        for (method, target, body, expected) in table {
            assert_eq!(words(method, target, body), expected, "{target}");
        }
        let wait = planned(Method::Get, "/v1/kv/a?index=5&wait=2s", "").unwrap().wait;
        assert_eq!(wait, Some((5, 2000)));
        assert_eq!(planned(Method::Put, "/v1/kv/a?index=5", "").unwrap().wait, None);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let (long, large) = (format!("/v1/kv/{}", "k".repeat(4097)), "v".repeat(VALUE_BYTES_MAX + 1));
        #[rustfmt::skip] // columns
        let table = [
            (Method::Get,    "/v1/kv/",                          "", 400),
            (Method::Put,    "/v1/kv/",                          "", 400),
            (Method::Get,    &long,                              "", 414),
            (Method::Put,    "/v1/kv/a",                         &large, 413),
            (Method::Put,    "/v1/kv/a?cas=x",                   "", 400),
            (Method::Put,    "/v1/kv/a?acquire=s&release=s",     "", 400),
            (Method::Other,  "/v1/kv/a",                         "", 405),
            (Method::Get,    "/v1/kv/a?dc=other",                "", 500),
            (Method::Get,    "/v1/session/create",               "", 405),
            (Method::Get,    "/v1/session/what",                 "", 404),
            (Method::Put,    "/v1/session/create",               "{", 400),
            (Method::Put,    "/v1/session/create",               r#"{"TTL":"10ms"}"#, 400),
            (Method::Put,    "/v1/session/create",               r#"{"Behavior":"keep"}"#, 400),
            (Method::Put,    "/v1/session/create",               r#"{"LockDelay":"2m"}"#, 400),
            (Method::Put,    "/v1/session/create",               r#"{"Node":"n2"}"#, 501),
            (Method::Put,    "/v1/session/create",               r#"{"Checks":["mine"]}"#, 501),
        ];
        for (method, target, body, code) in table {
            assert_eq!(planned(method, target, body).unwrap_err().code, code, "{target} {body}");
        }
    }

    fn bytes(text: &str) -> Reply {
        Reply::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_become_answers() {
        let pair = Reply::List(["a", "hi", "18446744073709551615", "2", "5", "1", "s"].map(bytes).to_vec());
        let found = Reply::List(vec![bytes("5"), Reply::List(vec![pair])]);
        let nothing = Reply::List(vec![bytes("9"), Reply::List(Vec::new())]);
        let shown = |target: &str, reply: &Reply| {
            let response = planned(Method::Get, target, "").unwrap().answer(reply);
            (response.code, response.index, String::from_utf8(response.body).unwrap())
        };
        let text = r#"[{"LockIndex":1,"Session":"s","Key":"a","Flags":18446744073709551615,"Value":"aGk=","CreateIndex":2,"ModifyIndex":5}]"#;
        assert_eq!(shown("/v1/kv/a", &found), (200, Some(5), text.to_string()));
        assert_eq!(shown("/v1/kv/a?raw", &found), (200, Some(5), "hi".to_string()));
        assert_eq!(shown("/v1/kv/a", &nothing), (404, Some(9), String::new()));
        assert_eq!(shown("/v1/kv/a", &Reply::Nil).0, 500);
        let put = planned(Method::Put, "/v1/kv/a", "v").unwrap();
        assert_eq!(put.answer(&Reply::Int(0)).body, b"false");
        assert_eq!(put.answer(&Reply::Error("ERR invalid session".to_string())).code, 500);
        assert_eq!(polled(&Reply::List(vec![bytes("7"), Reply::Int(1)])), Some((7, true)));
    }

    #[test]
    fn bytes_are_written_as_the_standard_says() {
        for (plain, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), expected);
        }
    }
}
