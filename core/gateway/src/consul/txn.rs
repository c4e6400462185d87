//! `/v1/txn`: several operations of which all are done or none.
//!
//! Operations on keys are one run of the script, which is one entry of the log ([`keys`]); those on services and checks
//! are changes of this node's own records under one lock ([`registry`]). No transaction has both: the records of a node are
//! its own, keys are the cluster's, and nothing could do both at one moment.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use mesh::health::{Agent, CheckError};
use mesh::registry::{Entry, Health, Host};

use super::access::{Access, Reach};
use super::json::{Json, object};
use super::kv::{self, Reply};
use super::{Asked, Attempt, Done, Method, NotJson, Refused, Request, Response, agent, read, show};

/// Operations of one transaction, at most. Consul's own bound.
pub const OPERATIONS_MAX: usize = 128;
/// Keys that one transaction changes, at most, those of trees among them.
pub const KEYS_MAX: usize = 65_536;
/// Arguments of the script for each operation, and those before the first.
const ARGUMENTS: (usize, usize) = (6, 2);

/// What an operation is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Key,
    Node,
    Service,
    Check,
}

/// An operation as it was written.
struct Operation<'a> {
    kind: Kind,
    of: &'a Json,
    verb: &'a str,
}

/// Whether a transaction with this body is for the store: one with a key in it.
pub(super) fn is_for_store(body: &[u8]) -> bool {
    let has_key = |list: &Vec<Json>| list.iter().any(|it| it.get("KV").is_some());
    matches!(Json::parse(body), Ok(Json::List(list)) if has_key(&list))
}

/// What a transaction with this body does with which keys. Of what is none nothing is done, whoever asks.
pub(super) fn touched(body: &[u8]) -> Vec<(Reach, String)> {
    let Ok(Json::List(list)) = Json::parse(body) else { return Vec::new() };
    let keys = list.iter().filter_map(|it| it.get("KV"));
    let one = |of: &Json| {
        let reach = match text(of, "Verb") {
            "get" | "get-or-empty" | "check-index" | "check-session" | "check-not-exists" => Reach::Read,
            "get-tree" => Reach::List,
            "delete-tree" => Reach::WriteTree,
            _ => Reach::Write,
        };
        (reach, text(of, "Key").to_string())
    };
    keys.map(one).collect()
}

fn decode(body: &[u8]) -> Result<Vec<Json>, Refused> {
    let wrong = |at: usize| Refused::bad(format!("Failed to parse body: no list of operations at byte {at}"));
    let Json::List(list) = Json::parse(body).map_err(|NotJson { at }| wrong(at))? else {
        return Err(wrong(0));
    };
    if list.len() > OPERATIONS_MAX {
        let why = format!("Transaction contains too many operations ({} > {OPERATIONS_MAX})", list.len());
        return Err(Refused { code: 413, why });
    }
    Ok(list)
}

fn operations(list: &[Json]) -> Result<Vec<Operation<'_>>, Refused> {
    let kinds = [("KV", Kind::Key), ("Node", Kind::Node), ("Service", Kind::Service), ("Check", Kind::Check)];
    let read = |it| {
        let named = |(name, kind): &(&str, Kind)| Json::get(it, name).map(|of| (*kind, of));
        let mut found = kinds.iter().filter_map(named);
        let (Some((kind, of)), None) = (found.next(), found.next()) else {
            if it.get("Session").is_some() {
                return Err(Refused::not_offered("sessions within a transaction".to_string()));
            }
            return Err(Refused::bad("an operation is one of KV, Node, Service and Check"));
        };
        Ok(Operation { kind, of, verb: of.get("Verb").and_then(Json::text).unwrap_or_default() })
    };
    let all: Vec<Operation<'_>> = list.iter().map(read).collect::<Result<_, Refused>>()?;
    let keys = all.iter().filter(|it| it.kind == Kind::Key).count();
    if keys > 0 && keys < all.len() {
        let why = "a transaction of keys and services: keys are the cluster's, the records of a node its own";
        return Err(Refused::not_offered(why.to_string()));
    }
    Ok(all)
}

/// What did not hold: the number of the operation, and why.
type Wrong = (usize, String);

/// The answer to a transaction of which nothing was done.
fn conflict(wrong: Vec<Wrong>) -> Response {
    let one = |(at, why): Wrong| object([("OpIndex", Json::from(at as u64)), ("What", why.into())]);
    let errors = Json::List(wrong.into_iter().map(one).collect());
    Response::json(409, &object([("Results", Json::Null), ("Errors", errors)]))
}

fn agreed(results: Vec<Json>) -> Response {
    Response::json(200, &object([("Results", results.into()), ("Errors", Json::Null)]))
}

/// What the store is to do for a transaction of keys.
///
/// # Errors
/// The answer, if there is nothing to do.
pub(super) fn keys(request: &Request<'_>) -> Result<kv::Task, Response> {
    let refused = |Refused { code, why }| Response::text(code, why);
    if request.method != Method::Put {
        return Err(Response::text(405, "allowed here: PUT".to_string()));
    }
    let list = decode(request.body).map_err(refused)?;
    let (mut words, mut writes, mut wrong) = (Vec::new(), false, Vec::new());
    for (at, operation) in operations(&list).map_err(refused)?.iter().enumerate() {
        match key(operation) {
            Ok((is_write, arguments)) => {
                writes |= is_write;
                words.extend(arguments);
            }
            Err(Unfit::Body(it)) => return Err(refused(it)),
            Err(Unfit::Operation(why)) => wrong.push((at, why)),
        }
    }
    if !wrong.is_empty() {
        return Err(conflict(wrong));
    }
    let first: &[u8] = if writes { b"txn" } else { b"txn.read" };
    let mut arguments = vec![first.to_vec(), KEYS_MAX.to_string().into_bytes()];
    arguments.append(&mut words);
    Ok(kv::Task::of_transaction(writes, arguments))
}

/// Why an operation cannot be tried.
enum Unfit {
    /// The request is none.
    Body(Refused),
    /// What is said of the operation.
    Operation(String),
}

/// A number of 64 bits, which may be written where none is.
fn number(of: &Json, key: &str) -> Result<String, Unfit> {
    let found = match of.get(key) {
        None => Some(0),
        Some(Json::Int(number)) => u64::try_from(*number).ok(),
        Some(Json::Float(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let wrong = || Unfit::Body(Refused::bad(format!("Failed to parse body: {key} is a number")));
    found.map(|number: u64| number.to_string()).ok_or_else(wrong)
}

/// Whether an operation on a key changes something, and its arguments for the script.
fn key(operation: &Operation<'_>) -> Result<(bool, [Vec<u8>; ARGUMENTS.0]), Unfit> {
    let (of, verb) = (operation.of, operation.verb);
    let text = |key: &str| of.get(key).and_then(Json::text).unwrap_or_default();
    let (key, session) = (text("Key"), text("Session"));
    let value = from_base64(text("Value"))
        .ok_or_else(|| Unfit::Body(Refused::bad("Failed to parse body: Value is base64".to_string())))?;
    if value.len() > kv::VALUE_BYTES_MAX {
        let (bytes, most) = (value.len(), kv::VALUE_BYTES_MAX);
        let why = format!("Value for key {key:?} is too large ({bytes} > {most} bytes)");
        return Err(Unfit::Body(Refused { code: 413, why }));
    }
    if key.len() > kv::KEY_BYTES_MAX {
        return Err(Unfit::Operation(format!("a key has at most {} bytes", kv::KEY_BYTES_MAX)));
    }
    let writes = match verb {
        "set" | "cas" | "lock" | "unlock" | "delete" | "delete-cas" | "delete-tree" => true,
        "get" | "get-or-empty" | "get-tree" | "check-index" | "check-session" | "check-not-exists" => false,
        _ => return Err(Unfit::Operation(format!("unknown KV verb {verb:?}"))),
    };
    if key.is_empty() && !matches!(verb, "delete-tree" | "get-tree") {
        return Err(Unfit::Operation("Must provide key".to_string()));
    }
    if session.is_empty() && matches!(verb, "lock" | "unlock") {
        return Err(Unfit::Operation("missing session".to_string()));
    }
    let (flags, index) = (number(of, "Flags")?, number(of, "Index")?);
    let words =
        [verb.as_bytes(), key.as_bytes(), &value, flags.as_bytes(), index.as_bytes(), session.as_bytes()];
    Ok((writes, words.map(<[u8]>::to_vec)))
}

/// The answer to a transaction of keys; none if the store replied something else.
pub(super) fn told(arguments: &[Vec<u8>], reply: &Reply) -> Option<Response> {
    let Reply::List(parts) = reply else { return None };
    let [_, Reply::List(keys), Reply::List(wrong)] = &parts[..] else { return None };
    if wrong.is_empty() {
        let one = |it: &Reply| kv::pair(it).map(|pair| object([("KV", pair)]));
        return Some(agreed(keys.iter().map(one).collect::<Option<_>>()?));
    }
    let one = |it: &Reply| {
        let Reply::List(parts) = it else { return None };
        let [at, code, is] = &parts[..] else { return None };
        let at = usize::try_from(kv::digits(at)?).ok()?;
        let operation = arguments.get(ARGUMENTS.1..)?.chunks(ARGUMENTS.0).nth(at)?;
        Some((at, reason(operation, kv::text_of(code)?, kv::text_of(is)?)))
    };
    Some(conflict(wrong.iter().map(one).collect::<Option<_>>()?))
}

/// Why an operation on a key does not hold, in Consul's words.
fn reason(operation: &[Vec<u8>], code: &str, is: &str) -> String {
    let word = |at: usize| operation.get(at).map(|it| String::from_utf8_lossy(it)).unwrap_or_default();
    let (verb, key, index, session) = (word(0), word(1), word(4), word(5));
    match (code, verb.as_ref()) {
        ("absent", "check-index") => format!("failed to check index, key {key:?} doesn't exist"),
        ("absent", "check-session") => format!("failed to check session, key {key:?} doesn't exist"),
        ("absent", _) => format!("key {key:?} doesn't exist"),
        ("exists", _) => format!("key {key:?} exists"),
        ("other", "check-index") => {
            format!("failed index check for key {key:?}, current modify index {is} != {index}")
        }
        ("other", _) => {
            format!("failed session check for key {key:?}, current session {is:?} != {session:?}")
        }
        ("session", _) => format!("invalid session {session:?}"),
        ("delay", _) => format!("failed to lock key {key:?} due to lock delay"),
        ("many", _) => {
            format!("a transaction changes at most {KEYS_MAX} keys, and keeps at most 64 MiB of values")
        }
        (_, "lock") => format!("failed to lock key {key:?}, lock is already held"),
        (_, "unlock") => {
            format!("failed to unlock key {key:?}, lock isn't held, or is held by another session")
        }
        (_, "delete-cas") => format!("failed to delete key {key:?}, index is stale"),
        _ => format!("failed to set key {key:?}, index is stale"),
    }
}

/// RFC 4648, with padding; none if it is not that.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    for (at, group) in bytes.chunks(4).enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && (at + 1) * 4 != bytes.len()) {
            return None;
        }
        let bits = group[..4 - padding].iter().try_fold(0_u32, |bits, byte| {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            Some(bits << 6 | u32::from(digit))
        })?;
        let bits = bits << (6 * padding);
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    Some(out)
}

/// A transaction of services, checks and nodes. What was changed before one that does not hold is as it was.
pub(super) fn registry(it: &mut Agent, asked: &Asked<'_>) -> Attempt {
    asked.only(Method::Put)?;
    let list = decode(asked.body)?;
    let all = operations(&list)?;
    let is_read = |operation: &Operation<'_>| operation.verb == "get";
    let before = if all.iter().all(is_read) { None } else { Some(it.clone()) };
    let (mut results, mut wrong, mut refused) = (Vec::new(), Vec::new(), None);
    for (at, operation) in all.iter().enumerate() {
        match one(it, asked, operation) {
            Ok(result) => results.extend(result),
            Err(Unfit::Operation(why)) => wrong.push((at, why)),
            Err(Unfit::Body(why)) => {
                refused = Some(why);
                break;
            }
        }
    }
    if wrong.is_empty() && refused.is_none() {
        return Ok(Done::Plain(agreed(results)));
    }
    if let Some(before) = before {
        *it = before;
    }
    refused.map_or_else(|| Ok(Done::Plain(conflict(wrong))), Err)
}

impl From<Refused> for Unfit {
    fn from(refused: Refused) -> Unfit {
        Unfit::Body(refused)
    }
}

/// What is wrong with a record is said of its operation.
fn unfit(error: impl Into<Refused>) -> Unfit {
    Unfit::Operation(error.into().why)
}

fn one(it: &mut Agent, asked: &Asked<'_>, operation: &Operation<'_>) -> Result<Option<Json>, Unfit> {
    let Operation { kind, of, verb } = *operation;
    let part = |name: &str| of.get(name).ok_or_else(|| Refused::bad(format!("the operation has no {name}")));
    match kind {
        Kind::Node => node(it, asked, part("Node")?, verb),
        Kind::Service => {
            let name = of.get("Node").and_then(Json::text).unwrap_or_default();
            service(it, asked, name, part("Service")?, verb)
        }
        Kind::Check => check(it, asked, part("Check")?, verb),
        Kind::Key => Err(Refused::bad("keys are the store's").into()),
    }
}

fn text<'a>(of: &'a Json, key: &str) -> &'a str {
    of.get(key).and_then(Json::text).unwrap_or_default()
}

/// The index that a `cas` or `delete-cas` expects; none for other verbs.
fn expected(of: &Json, verb: &str) -> Result<Option<u64>, Unfit> {
    let index = number(of, "ModifyIndex")?.parse().expect("it was made of a number");
    Ok(Some(index).filter(|_| matches!(verb, "cas" | "delete-cas")))
}

/// Whether what is there, if anything, is what a writer expects: 0 is nothing.
fn is_expected(expected: Option<u64>, index: Option<u64>) -> bool {
    expected.is_none_or(|expected| index.unwrap_or(0) == expected)
}

fn node(it: &Agent, asked: &Asked<'_>, of: &Json, verb: &str) -> Result<Option<Json>, Unfit> {
    let name = text(of, "Node");
    match verb {
        "get" => {
            let absent = || Unfit::Operation(format!("node {name:?} doesn't exist"));
            let host = agent::find(it, name).ok_or_else(absent)?;
            Ok(Some(object([("Node", show::node(asked.about, host))])))
        }
        "set" | "cas" | "delete" | "delete-cas" => {
            let why = "changing what a node says of itself; it is in its configuration";
            Err(Refused::not_offered(why.to_string()).into())
        }
        _ => Err(Unfit::Operation(format!("unknown Node verb {verb:?}"))),
    }
}

/// The node of a name, if it may be changed here.
fn own(it: &Agent, name: &str) -> Result<Arc<Host>, Unfit> {
    let host = agent::find(it, name).cloned();
    let host = host.ok_or_else(|| Unfit::Operation("Missing node registration".to_string()))?;
    if host.id == it.me() {
        return Ok(host);
    }
    let why = format!(
        "changing what another node has ({name:?}): ask the agent there; records have one writer, their node"
    );
    Err(Refused::not_offered(why).into())
}

fn entry(it: &Agent, host: &Host, id: &str) -> Option<Arc<Entry>> {
    it.registry().view().at(host.id).find(|entry| entry.instance.id == id).cloned()
}

fn service(
    it: &mut Agent,
    asked: &Asked<'_>,
    name: &str,
    of: &Json,
    verb: &str,
) -> Result<Option<Json>, Unfit> {
    let id = Some(text(of, "ID")).filter(|id| !id.is_empty()).unwrap_or_else(|| text(of, "Service"));
    let shown = |entry: &Entry| Some(object([("Service", show::service(entry))]));
    let wrong = |what: String| Err(Unfit::Operation(what));
    match verb {
        "get" => match agent::find(it, name).and_then(|host| entry(it, host, id)) {
            Some(found) => {
                asked.grant.must(Access::Read, &found.instance.service)?;
                Ok(shown(&found))
            }
            None => wrong(format!("service {id:?} on node {name:?} doesn't exist")),
        },
        "set" | "cas" => {
            let host = own(it, name)?;
            if !is_expected(expected(of, verb)?, entry(it, &host, id).map(|old| old.index)) {
                return wrong(format!("failed to set service {id:?} on node {name:?}, index is stale"));
            }
            let (instance, checks) = read::service(of)?;
            agent::must_write(it, asked, &instance.id, &instance.service)?;
            it.register(asked.now, instance, checks, false).map_err(unfit)?;
            Ok(entry(it, &host, id).as_deref().and_then(shown))
        }
        "delete" | "delete-cas" => {
            let host = own(it, name)?;
            agent::must_write_instance(it, asked, id)?;
            let old = entry(it, &host, id);
            if !is_expected(expected(of, verb)?, old.as_ref().map(|old| old.index)) {
                return wrong(format!("failed to delete service {id:?} on node {name:?}, index is stale"));
            }
            if old.is_some() {
                it.deregister(asked.now, id).map_err(unfit)?;
            }
            Ok(None)
        }
        _ => wrong(format!("unknown Service verb {verb:?}")),
    }
}

/// A check of a node or of one of its instances, as it is shown, and its index.
fn found(it: &Agent, host: &Host, id: &str) -> Option<(Json, u64)> {
    if let Some(check) = host.node.checks.iter().find(|check| check.id == id) {
        return Some((show::check(host, None, check, host.index, None), host.index));
    }
    it.registry().view().at(host.id).find_map(|entry| {
        let check = entry.instance.checks.iter().find(|check| check.id == id)?;
        Some((show::check(host, Some(&entry.instance), check, entry.index, None), entry.index))
    })
}

/// A check is said to be so: one that is there, and that lives by being told.
fn check(it: &mut Agent, asked: &Asked<'_>, of: &Json, verb: &str) -> Result<Option<Json>, Unfit> {
    let (name, id) = (text(of, "Node"), text(of, "CheckID"));
    let wrong = |what: String| Err(Unfit::Operation(what));
    let shown = |found: Option<(Json, u64)>| found.map(|(check, _)| object([("Check", check)]));
    match verb {
        "get" => match agent::find(it, name).and_then(|host| found(it, host, id)) {
            Some((check, index)) => {
                let service = text(&check, "ServiceName");
                if !service.is_empty() {
                    asked.grant.must(Access::Read, service)?;
                }
                Ok(shown(Some((check, index))))
            }
            None => wrong(format!("check {id:?} on node {name:?} doesn't exist")),
        },
        "set" | "cas" => {
            let host = own(it, name)?;
            agent::must_write_check(it, asked, id)?;
            if !is_expected(expected(of, verb)?, found(it, &host, id).map(|(_, index)| index)) {
                return wrong(format!("failed to set check {id:?} on node {name:?}, index is stale"));
            }
            let word = text(of, "Status");
            let status = match word {
                "" => Some(Health::Critical),
                word => Health::of_word(word),
            };
            let Some(status) = status else { return wrong(format!("Invalid check status: {word:?}")) };
            let renewed = it.renew(asked.now, id, status, text(of, "Output").to_string());
            renewed.map_err(|error| match error {
                CheckError::Unknown { .. } => Unfit::Operation(format!(
                    "check {id:?} is not registered: a check is registered with a TTL at the agent, and then told"
                )),
                other => unfit(other),
            })?;
            let host = own(it, name)?;
            Ok(shown(found(it, &host, id)))
        }
        "delete" | "delete-cas" => {
            let host = own(it, name)?;
            agent::must_write_check(it, asked, id)?;
            let old = found(it, &host, id);
            if !is_expected(expected(of, verb)?, old.as_ref().map(|(_, index)| *index)) {
                return wrong(format!("failed to delete check {id:?} on node {name:?}, index is stale"));
            }
            if old.is_some() {
                it.remove_check(asked.now, id).map_err(unfit)?;
            }
            Ok(None)
        }
        _ => wrong(format!("unknown Check verb {verb:?}")),
    }
}
