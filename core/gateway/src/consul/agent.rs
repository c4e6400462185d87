//! `/v1/agent/…`: what is registered at this node, and registering it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use mesh::health::Agent;
use mesh::registry::{Entry, Health, Host, Instance};

use super::access::Access;
use super::json::{Json, object};
use super::{Asked, Attempt, Done, Method, Refused, Response, done, nothing, read, show};

/// The port that members are shown with, as Consul's clients expect one.
const MEMBER_PORT: u16 = 8301;

pub(super) fn answer(agent: &mut Agent, asked: &Asked<'_>, parts: &[&str]) -> Attempt {
    match parts {
        ["self"] => myself(agent, asked),
        ["version"] => done(&object([("HumanVersion", (&asked.about.version).into())])),
        [
            "host" | "metrics" | "monitor" | "reload" | "leave" | "join" | "force-leave" | "token"
            | "connect",
            ..,
        ] => {
            let why =
                format!("/v1/agent/{}; see `archipel node status` and `archipel cluster`", parts.join("/"));
            Err(Refused::not_offered(why))
        }
        ["members"] => members(agent),
        ["services"] => listed(asked, services(agent, asked)),
        ["checks"] => listed(asked, checks(agent, asked)),
        ["service", "register"] => register(agent, asked),
        ["service", "deregister", id] => {
            asked.only(Method::Put)?;
            must_write_instance(agent, asked, id)?;
            agent.deregister(asked.now, id).map_err(|_| unknown_service(id))?;
            nothing()
        }
        ["service", "maintenance", id] => maintain(agent, asked, id),
        ["maintenance"] => maintain(agent, asked, ""),
        ["service", id] => {
            asked.only(Method::Get)?;
            let instance = agent.registry().instance(id).ok_or_else(|| unknown_service(id))?;
            asked.grant.must(Access::Read, &instance.service)?;
            done(&show::agent_service(asked.about, instance))
        }
        ["health", "service", "name", name] => {
            asked.grant.must(Access::Read, name)?;
            judged(agent, asked, |it| it.service == *name)
        }
        ["health", "service", "id", id] => judged(agent, asked, |it| it.id == *id),
        ["check", rest @ ..] => check(agent, asked, rest),
        _ => Err(Refused::not_found(format!("there is no /v1/agent/{}", parts.join("/")))),
    }
}

/// Refuses who may not change this instance, if it is there.
pub(super) fn must_write_instance(agent: &Agent, asked: &Asked<'_>, id: &str) -> Result<(), Refused> {
    agent.registry().instance(id).map_or(Ok(()), |it| asked.grant.must(Access::Write, &it.service))
}

/// Refuses who may not register an instance of this service, perhaps in the place of another's.
pub(super) fn must_write(agent: &Agent, asked: &Asked<'_>, id: &str, service: &str) -> Result<(), Refused> {
    asked.grant.must(Access::Write, service)?;
    must_write_instance(agent, asked, id)
}

/// Refuses who may not change this check: that of an instance, or of the node.
pub(super) fn must_write_check(agent: &Agent, asked: &Asked<'_>, id: &str) -> Result<(), Refused> {
    match agent.check(id) {
        Some(("", _)) => asked.grant.must_write_all("agent"),
        Some((service, _)) => must_write_instance(agent, asked, service),
        None => Ok(()),
    }
}

fn unknown_service(id: &str) -> Refused {
    Refused::not_found(format!(
        "Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name."
    ))
}

fn host(agent: &Agent) -> Result<Arc<Host>, Refused> {
    let host = agent.registry().view().host(agent.me()).cloned();
    host.ok_or_else(|| Refused { code: 500, why: "the node has not said who it is".to_string() })
}

/// An object of things by id, of which a filter may want some.
fn listed(asked: &Asked<'_>, pairs: Vec<(String, Json)>) -> Attempt {
    asked.only(Method::Get)?;
    read(mesh::registry::Topic::All, Json::Object(pairs))
}

fn myself(agent: &Agent, asked: &Asked<'_>) -> Attempt {
    asked.only(Method::Get)?;
    let (host, about) = (host(agent)?, asked.about);
    let config = object([
        ("Datacenter", (&about.datacenter).into()),
        ("PrimaryDatacenter", (&about.datacenter).into()),
        ("NodeName", (&host.node.name).into()),
        ("NodeID", show::uuid(host.id).into()),
        ("Revision", "".into()),
        ("Server", true.into()),
        ("Version", (&about.version).into()),
    ]);
    done(&object([
        ("Config", config),
        ("DebugConfig", object([])),
        ("Coord", Json::Null),
        ("Member", member(&host)),
        ("Meta", (&host.node.meta).into()),
        ("Stats", object([])),
    ]))
}

/// Alive is 1 in Consul, failed 4.
fn member(host: &Host) -> Json {
    object([
        ("Name", (&host.node.name).into()),
        ("Addr", (&host.node.address).into()),
        ("Port", MEMBER_PORT.into()),
        ("Tags", object([("role", "consul".into()), ("zone", (&host.node.zone).into())])),
        ("Status", u32::from(if host.is_down { 4_u16 } else { 1 }).into()),
        ("ProtocolMin", 1_u16.into()),
        ("ProtocolMax", 5_u16.into()),
        ("ProtocolCur", 2_u16.into()),
        ("DelegateMin", 2_u16.into()),
        ("DelegateMax", 5_u16.into()),
        ("DelegateCur", 4_u16.into()),
    ])
}

fn members(agent: &Agent) -> Attempt {
    done(&Json::List(agent.registry().view().hosts().map(|host| member(host)).collect()))
}

fn services(agent: &Agent, asked: &Asked<'_>) -> Vec<(String, Json)> {
    let seen = agent.registry().instances().filter(|it| asked.grant.reads(&it.service));
    seen.map(|it| (it.id.clone(), show::agent_service(asked.about, it))).collect()
}

fn checks(agent: &Agent, asked: &Asked<'_>) -> Vec<(String, Json)> {
    let Ok(host) = host(agent) else { return Vec::new() };
    let definition = |id: &str| agent.check(id).map(|(_, definition)| definition);
    let own = host
        .node
        .checks
        .iter()
        .map(|it| (it.id.clone(), show::agent_check(&host, None, it, definition(&it.id))));
    let seen = agent.registry().instances().filter(|it| asked.grant.reads(&it.service));
    let of_services = seen.flat_map(|instance| {
        let shown = |it: &mesh::registry::Check| {
            (it.id.clone(), show::agent_check(&host, Some(instance), it, definition(&it.id)))
        };
        instance.checks.iter().map(shown).collect::<Vec<_>>()
    });
    own.chain(of_services).collect()
}

fn register(agent: &mut Agent, asked: &Asked<'_>) -> Attempt {
    asked.only(Method::Put)?;
    let (instance, checks) = super::read::service(&asked.json()?)?;
    must_write(agent, asked, &instance.id, &instance.service)?;
    agent.register(asked.now, instance, checks, asked.query.is_set("replace-existing-checks"))?;
    nothing()
}

fn maintain(agent: &mut Agent, asked: &Asked<'_>, service: &str) -> Attempt {
    asked.only(Method::Put)?;
    match service {
        "" => asked.grant.must_write_all("agent")?,
        id => must_write_instance(agent, asked, id)?,
    }
    let reason = asked.query.get("reason").filter(|reason| !reason.is_empty());
    let on = match asked.query.get("enable") {
        Some("true" | "1") => {
            Some(reason.unwrap_or("Maintenance mode is enabled, but no reason was provided."))
        }
        Some("false" | "0") => None,
        Some(_) | None => return Err(Refused::bad("Missing value for enable")),
    };
    agent.maintain(asked.now, service, on).map_err(|error| match error {
        mesh::registry::RegisterError::Unknown { id } => unknown_service(&id),
        other => other.into(),
    })?;
    nothing()
}

/// How the instances of this node are, as a status: 200 passing, 429 warning, 503 critical, 404 none.
fn judged(agent: &Agent, asked: &Asked<'_>, wants: impl Fn(&Instance) -> bool) -> Attempt {
    asked.only(Method::Get)?;
    let host = host(agent)?;
    let (mut worst, mut list) = (None, Vec::new());
    for instance in agent.registry().instances().filter(|it| wants(it)) {
        asked.grant.must(Access::Read, &instance.service)?;
        let entry =
            Entry { host: Arc::clone(&host), instance: Arc::clone(instance), create_index: 0, index: 0 };
        let health = entry.health();
        worst = worst.max(Some(health));
        list.push(object([
            ("AggregatedStatus", health.word().into()),
            ("Service", show::agent_service(asked.about, instance)),
            ("Checks", show::service_checks(&entry).into()),
        ]));
    }
    let (code, word) = match worst {
        None => return Err(Refused::not_found("there is no such service at this node")),
        Some(Health::Passing) => (200, "passing"),
        Some(Health::Warning) => (429, "warning"),
        Some(Health::Critical) => (503, "critical"),
    };
    if asked.query.get("format") == Some("text") {
        return Ok(Done::Plain(Response::text(code, word.to_string())));
    }
    Ok(Done::Plain(Response::json(code, &list.into())))
}

fn check(agent: &mut Agent, asked: &Asked<'_>, parts: &[&str]) -> Attempt {
    asked.only(Method::Put)?;
    if let [_, id] = parts {
        must_write_check(agent, asked, id)?;
    }
    let note = || asked.query.get("note").unwrap_or_default().to_string();
    match parts {
        ["register"] => {
            let (service, definition) = super::read::check(&asked.json()?, "")?;
            match service.as_str() {
                "" => asked.grant.must_write_all("agent")?,
                id => must_write_instance(agent, asked, id)?,
            }
            agent.add_check(asked.now, &service, definition)?;
        }
        ["deregister", id] => agent.remove_check(asked.now, id)?,
        ["pass", id] => agent.renew(asked.now, id, Health::Passing, note())?,
        ["warn", id] => agent.renew(asked.now, id, Health::Warning, note())?,
        ["fail", id] => agent.renew(asked.now, id, Health::Critical, note())?,
        ["update", id] => {
            let given = asked.json()?;
            let word = given.get("Status").and_then(Json::text).unwrap_or_default();
            let status = Health::of_word(word)
                .ok_or_else(|| Refused::bad(format!("Invalid check status: {word:?}")))?;
            let output = given.get("Output").and_then(Json::text).unwrap_or_default();
            agent.renew(asked.now, id, status, output.to_string())?;
        }
        _ => return Err(Refused::not_found(format!("there is no /v1/agent/check/{}", parts.join("/")))),
    }
    nothing()
}

/// `/v1/catalog/register` and `deregister`, which are the agent's for what is at this node, and nobody's elsewhere.
pub(super) fn catalog(agent: &mut Agent, asked: &Asked<'_>, registers: bool) -> Attempt {
    asked.only(Method::Put)?;
    let given = asked.json()?;
    let name = given.get("Node").and_then(Json::text).unwrap_or_default();
    if !host(agent)?.node.name.eq_ignore_ascii_case(name) {
        let why = format!(
            "changing what another node has ({name:?}): ask the agent there; records have one writer, their node"
        );
        return Err(Refused::not_offered(why));
    }
    if !registers {
        if let Some(id) = given.get("CheckID").and_then(Json::text) {
            must_write_check(agent, asked, id)?;
            agent.remove_check(asked.now, id)?;
        } else {
            let id = given.get("ServiceID").and_then(Json::text).ok_or_else(|| {
                Refused::not_offered("taking a whole node out; see `archipel cluster remove`".to_string())
            })?;
            must_write_instance(agent, asked, id)?;
            agent.deregister(asked.now, id).map_err(|_| unknown_service(id))?;
        }
        return done(&true.into());
    }
    if given.get("Check").is_some() || given.get("Checks").is_some() {
        let why =
            "statuses of checks in the catalog: register a check with a TTL at the agent, and say how it is";
        return Err(Refused::not_offered(why.to_string()));
    }
    if let Some(service) = given.get("Service") {
        let (instance, checks) = super::read::service(service)?;
        must_write(agent, asked, &instance.id, &instance.service)?;
        agent.register(asked.now, instance, checks, false)?;
    }
    done(&true.into())
}

/// Where the pages of nodes look a node up: by name, or by id.
pub(super) fn find<'a>(agent: &'a Agent, name: &str) -> Option<&'a Arc<Host>> {
    let view = agent.registry().view();
    view.host_named(name).or_else(|| view.hosts().find(|host| show::uuid(host.id) == name))
}

/// All entries of a node that may be read, by their ids.
pub(super) fn entries(agent: &Agent, asked: &Asked<'_>, host: &Host) -> Vec<Arc<Entry>> {
    let seen = agent.registry().view().at(host.id).filter(|entry| asked.grant.reads(&entry.instance.service));
    let mut all: Vec<_> = seen.cloned().collect();
    all.sort_by(|left, right| left.instance.id.cmp(&right.instance.id));
    all
}
