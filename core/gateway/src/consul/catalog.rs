//! `/v1/catalog/…` and `/v1/health/…`: what all nodes have registered, and how it is.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use mesh::health::Agent;
use mesh::registry::{Entry, Health, Topic};

use super::access::Access;
use super::json::Json;
use super::{Asked, Attempt, Method, Refused, agent, done, read, read_services, show};

pub(super) fn answer(it: &mut Agent, asked: &Asked<'_>, parts: &[&str]) -> Attempt {
    match parts {
        ["register"] => return agent::catalog(it, asked, true),
        ["deregister"] => return agent::catalog(it, asked, false),
        _ => asked.only(Method::Get)?,
    }
    match parts {
        ["datacenters"] => done(&Json::List([Json::from(&asked.about.datacenter)].into())),
        ["services"] if asked.query.is_set("filter") => {
            Err(Refused::bad("filter is not offered here: what is listed are names with their tags"))
        }
        ["services"] => {
            let services = it.registry().view().services();
            let seen = services.filter(|service| asked.grant.reads(&service.name));
            let wanted = seen.filter(|service| service.entries.iter().any(|entry| is_at(asked, entry)));
            let one = |service: &Arc<mesh::registry::Service>| {
                let tags = service.tags().into_iter().map(Json::from).collect();
                (service.name.to_string(), Json::List(tags))
            };
            read(Topic::Catalog, Json::Object(wanted.map(one).collect()))
        }
        ["nodes"] => {
            let hosts = it.registry().view().hosts();
            read(Topic::All, Json::List(hosts.map(|host| show::node(asked.about, host)).collect()))
        }
        ["service", name] => {
            asked.grant.must(Access::Read, name)?;
            let found = entries(it, asked, name);
            let list = found.iter().map(|entry| show::catalog_service(asked.about, entry)).collect();
            read(Topic::Service((*name).into()), Json::List(list))
        }
        ["node", name] => {
            let Some(host) = agent::find(it, name) else { return read(Topic::All, Json::Null) };
            let all = agent::entries(it, asked, host);
            let services =
                all.iter().map(|entry| (entry.instance.id.clone(), show::service(entry))).collect();
            read_services(Topic::All, show::node(asked.about, host), Json::Object(services))
        }
        ["node-services", name] => {
            let Some(host) = agent::find(it, name) else { return read(Topic::All, Json::Null) };
            let services = agent::entries(it, asked, host).iter().map(|entry| show::service(entry)).collect();
            read_services(Topic::All, show::node(asked.about, host), Json::List(services))
        }
        ["connect" | "gateway-services", ..] => {
            Err(Refused::not_offered("the service mesh of sidecars".to_string()))
        }
        _ => Err(Refused::not_found(format!("there is no /v1/catalog/{}", parts.join("/")))),
    }
}

/// `node-meta=key:value`, each of them.
fn is_at(asked: &Asked<'_>, entry: &Entry) -> bool {
    asked.query.all("node-meta").all(|pair| {
        let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
        entry.host.node.meta.get(key).is_some_and(|it| it == value)
    })
}

/// The instances of a service that have all the tags that are asked for, those of the near node first.
fn entries(it: &Agent, asked: &Asked<'_>, name: &str) -> Vec<Arc<Entry>> {
    let service = it.registry().view().service(name);
    let has_tags =
        |entry: &Entry| asked.query.all("tag").all(|tag| entry.instance.tags.iter().any(|it| it == tag));
    let all = service.into_iter().flat_map(|service| &service.entries);
    let mut found: Vec<Arc<Entry>> =
        all.filter(|entry| has_tags(entry) && is_at(asked, entry)).cloned().collect();
    if let Some(near) = asked.query.get("near").filter(|near| !near.is_empty()) {
        let host = if near == "_agent" { it.registry().view().host(it.me()) } else { agent::find(it, near) };
        if let Some(host) = host {
            // There are no coordinates: the node itself, then its zone, then the others.
            found.sort_by_key(|entry| (entry.host.id != host.id, entry.host.node.zone != host.node.zone));
        }
    }
    found
}

pub(super) fn health(it: &mut Agent, asked: &Asked<'_>, parts: &[&str]) -> Attempt {
    let about = asked.about;
    match parts {
        ["service", name] => {
            asked.grant.must(Access::Read, name)?;
            let mut found = entries(it, asked, name);
            if asked.query.is_set("passing") {
                found.retain(|entry| entry.health() == Health::Passing);
            }
            let list = found.iter().map(|entry| show::healthy(about, entry)).collect();
            read(Topic::Service((*name).into()), Json::List(list))
        }
        ["checks", name] => {
            asked.grant.must(Access::Read, name)?;
            let found = entries(it, asked, name);
            let list = found.iter().flat_map(|entry| show::service_checks(entry)).collect();
            read(Topic::Service((*name).into()), Json::List(list))
        }
        ["node", name] => {
            let Some(host) = agent::find(it, name) else { return read(Topic::All, Json::List(Vec::new())) };
            let mut list = show::node_checks(host);
            list.extend(agent::entries(it, asked, host).iter().flat_map(|entry| show::service_checks(entry)));
            read(Topic::All, Json::List(list))
        }
        ["state", word] => {
            if *word != "any" && Health::of_word(word).is_none() {
                return Err(Refused::bad(format!("{word:?} is no state: any, passing, warning or critical")));
            }
            let view = it.registry().view();
            let of_nodes = view.hosts().flat_map(|host| show::node_checks(host));
            let seen = view.services().filter(|service| asked.grant.reads(&service.name));
            let entries = seen.flat_map(|service| &service.entries);
            let all = of_nodes.chain(entries.flat_map(|entry| show::service_checks(entry)));
            let is_wanted =
                |check: &Json| *word == "any" || check.exactly("Status").and_then(Json::text) == Some(*word);
            read(Topic::All, Json::List(all.filter(is_wanted).collect()))
        }
        ["connect" | "ingress", ..] => Err(Refused::not_offered("the service mesh of sidecars".to_string())),
        _ => Err(Refused::not_found(format!("there is no /v1/health/{}", parts.join("/")))),
    }
}
