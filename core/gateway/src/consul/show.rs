//! Nodes, instances and checks as Consul's clients read them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::NodeId;
use mesh::health::{Definition, How};
use mesh::registry::{Check, Entry, Health, Host, Instance};

use super::About;
use super::json::{Json, object};

/// The check that membership makes of every node.
pub const MEMBER_CHECK: &str = "serfHealth";

/// A node's id in the form of a UUID: the first half of its key.
#[must_use]
pub fn uuid(id: NodeId) -> String {
    uuid_of(*id.0.first_chunk().expect("a key has 32 bytes"))
}

/// Sixteen bytes in the form of a UUID.
#[must_use]
pub fn uuid_of(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A node of the catalog.
pub fn node(about: &About, host: &Host) -> Json {
    object([
        ("ID", uuid(host.id).into()),
        ("Node", (&host.node.name).into()),
        ("Address", (&host.node.address).into()),
        ("Datacenter", (&about.datacenter).into()),
        ("TaggedAddresses", object([("lan", (&host.node.address).into())])),
        ("Meta", (&host.node.meta).into()),
        ("CreateIndex", host.create_index.into()),
        ("ModifyIndex", host.index.into()),
    ])
}

fn weights(instance: &Instance) -> Json {
    object([("Passing", instance.weights.passing.into()), ("Warning", instance.weights.warning.into())])
}

/// An instance within an answer about health or a node.
pub fn service(entry: &Entry) -> Json {
    let it = &entry.instance;
    object([
        ("ID", (&it.id).into()),
        ("Service", (&it.service).into()),
        ("Tags", it.tags[..].into()),
        ("Address", (&it.address).into()),
        ("Meta", (&it.meta).into()),
        ("Port", it.port.into()),
        ("Weights", weights(it)),
        ("EnableTagOverride", false.into()),
        ("CreateIndex", entry.create_index.into()),
        ("ModifyIndex", entry.index.into()),
    ])
}

/// An instance within an answer of the agent.
pub fn agent_service(about: &About, it: &Instance) -> Json {
    object([
        ("ID", (&it.id).into()),
        ("Service", (&it.service).into()),
        ("Tags", it.tags[..].into()),
        ("Meta", (&it.meta).into()),
        ("Port", it.port.into()),
        ("Address", (&it.address).into()),
        ("TaggedAddresses", object([])),
        ("Weights", weights(it)),
        ("EnableTagOverride", false.into()),
        ("Datacenter", (&about.datacenter).into()),
    ])
}

/// An instance of the catalog.
pub fn catalog_service(about: &About, entry: &Entry) -> Json {
    let (host, it) = (&entry.host, &entry.instance);
    object([
        ("ID", uuid(host.id).into()),
        ("Node", (&host.node.name).into()),
        ("Address", (&host.node.address).into()),
        ("Datacenter", (&about.datacenter).into()),
        ("TaggedAddresses", object([("lan", (&host.node.address).into())])),
        ("NodeMeta", (&host.node.meta).into()),
        ("ServiceKind", "".into()),
        ("ServiceID", (&it.id).into()),
        ("ServiceName", (&it.service).into()),
        ("ServiceTags", it.tags[..].into()),
        ("ServiceAddress", (&it.address).into()),
        ("ServiceWeights", weights(it)),
        ("ServiceMeta", (&it.meta).into()),
        ("ServicePort", it.port.into()),
        ("ServiceEnableTagOverride", false.into()),
        ("CreateIndex", entry.create_index.into()),
        ("ModifyIndex", entry.index.into()),
    ])
}

/// A check; of an instance, or of the node.
pub fn check(
    host: &Host,
    of: Option<&Instance>,
    it: &Check,
    index: u64,
    definition: Option<&Definition>,
) -> Json {
    let (service, name) = of.map_or(("", ""), |of| (of.id.as_str(), of.service.as_str()));
    object([
        ("Node", (&host.node.name).into()),
        ("CheckID", (&it.id).into()),
        ("Name", (&it.name).into()),
        ("Status", it.status.word().into()),
        ("Notes", (&it.notes).into()),
        ("Output", (&it.output).into()),
        ("ServiceID", service.into()),
        ("ServiceName", name.into()),
        ("ServiceTags", of.map_or_else(|| Json::List(Vec::new()), |of| of.tags[..].into())),
        ("Type", (&it.kind).into()),
        ("Definition", definition.map_or_else(|| object([]), shown)),
        ("CreateIndex", index.into()),
        ("ModifyIndex", index.into()),
    ])
}

fn shown(it: &Definition) -> Json {
    let millis = |ms: u64| Json::from(format!("{ms}ms"));
    let (key, target) = match &it.how {
        How::Http { url, .. } => ("HTTP", url.clone()),
        How::Tcp { address } => ("TCP", address.clone()),
        How::Grpc { address } => ("GRPC", address.clone()),
        How::Ttl { ttl_ms } => return object([("TTL", millis(*ttl_ms))]),
        How::Alias { service } => return object([("AliasService", service.into())]),
    };
    object([(key, target.into()), ("Interval", millis(it.interval_ms)), ("Timeout", millis(it.timeout_ms))])
}

/// The checks of a node: membership's, and its own.
pub fn node_checks(host: &Host) -> Vec<Json> {
    let (status, output) = if host.is_down {
        (Health::Critical, "Agent not live or unreachable")
    } else {
        (Health::Passing, "Agent alive and reachable")
    };
    let member = Check {
        id: MEMBER_CHECK.to_string(),
        name: "Serf Health Status".to_string(),
        kind: String::new(),
        status,
        notes: String::new(),
        output: output.to_string(),
    };
    let all = [&member].into_iter().chain(&host.node.checks);
    all.map(|it| check(host, None, it, host.index, None)).collect()
}

/// The checks of an instance.
pub fn service_checks(entry: &Entry) -> Vec<Json> {
    let it = &entry.instance;
    it.checks.iter().map(|one| check(&entry.host, Some(it), one, entry.index, None)).collect()
}

/// A check within an answer of the agent, which knows how it is made.
pub fn agent_check(host: &Host, of: Option<&Instance>, it: &Check, definition: Option<&Definition>) -> Json {
    check(host, of, it, 0, definition)
}

/// An instance with its node and all checks.
pub fn healthy(about: &About, entry: &Entry) -> Json {
    let mut checks = node_checks(&entry.host);
    checks.extend(service_checks(entry));
    object([("Node", node(about, &entry.host)), ("Service", service(entry)), ("Checks", checks.into())])
}
