//! `/prometheus/targets`: services as Prometheus finds them by `http_sd_configs`.
//!
//! Each instance with a port is a group of one target. Critical ones are among them: that they do not answer is what is to be
//! seen. With `service=NAME` only that one's, with `tag=TAG` only those that have it; both may be there several times.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use mesh::health::Agent;
use mesh::registry::{Entry, View};

use super::json::{Json, object};
use super::{Asked, Attempt, Method, done};

/// What a name of a label may have; other characters are `_`.
fn label(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn group(entry: &Entry) -> Json {
    let (it, host) = (&entry.instance, &entry.host.node);
    let address = entry.address();
    let target = if address.contains(':') {
        format!("[{address}]:{}", it.port)
    } else {
        format!("{address}:{}", it.port)
    };
    let mut labels: Vec<(String, Json)> = Vec::new();
    let mut put = |key: &str, value: Json| labels.push((format!("__meta_archipel_{key}"), value));
    put("service", (&it.service).into());
    put("service_id", (&it.id).into());
    put("node", (&host.name).into());
    put("zone", (&host.zone).into());
    put("health", entry.health().word().into());
    // Between commas on both sides, so that a regular expression finds a whole tag.
    put("tags", format!(",{},", it.tags.join(",")).into());
    for (key, value) in &it.meta {
        put(&format!("meta_{}", label(key)), value.into());
    }
    object([("targets", Json::List([Json::from(target)].into())), ("labels", Json::Object(labels))])
}

pub(super) fn answer(agent: &Agent, asked: &Asked<'_>) -> Attempt {
    asked.only(Method::Get)?;
    let view: &View = agent.registry().view();
    let is_asked = |name: &str| asked.grant.reads(name) && is_named(asked, name);
    let has_tags =
        |entry: &Entry| asked.query.all("tag").all(|tag| entry.instance.tags.iter().any(|it| it == tag));
    let entries =
        view.services().filter(|service| is_asked(&service.name)).flat_map(|service| &service.entries);
    let wanted = entries.filter(|entry| entry.port() != 0 && has_tags(entry));
    done(&Json::List(wanted.map(|entry| group(entry)).collect()))
}

/// Whether the service is among those that are asked for, or none is named.
fn is_named(asked: &Asked<'_>, name: &str) -> bool {
    let mut named = asked.query.all("service").peekable();
    named.peek().is_none() || named.any(|it| it == name)
}
