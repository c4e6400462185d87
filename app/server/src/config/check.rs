//! What the values must mean together.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kernel::Version;

use super::section::Value;
use super::{Access, Bytes, Config, ConfigError, Loaded, Mode};

/// The log's page: a segment is whole pages.
const PAGE_BYTES: u64 = 4096;

/// The first rule that `loaded` breaks.
pub(super) fn check(loaded: &Loaded) -> Result<(), ConfigError> {
    ports(loaded)?;
    access(loaded)?;
    tls(loaded)?;
    storage(loaded)?;
    cluster(loaded)?;
    names(loaded)?;
    users(loaded)?;
    tokens(loaded)?;
    keyspaces(loaded)?;
    crate::proxy::check(loaded)
}

/// No port leads out of the range.
pub(crate) fn ports(loaded: &Loaded) -> Result<(), ConfigError> {
    let Config { redis, admin, p2p, consul, dns, cluster, proxy, port_offset, .. } = &loaded.config;
    let ports = [
        ("redis.port", redis.port.get()),
        ("admin.port", admin.port.get()),
        ("p2p.port", p2p.port.get()),
        ("consul.port", consul.port.get()),
        ("dns.port", dns.port.get()),
        ("cluster.port", cluster.port.get()),
        ("cluster.redis_port", cluster.redis_port.get()),
    ];
    let ports = ports.map(|(key, port)| (key.to_owned(), port));
    let listeners = (0..)
        .zip(&proxy.listener)
        .map(|(at, one): (usize, _)| (format!("proxy.listener[{at}].port"), one.port.get()));
    for (key, port) in ports.into_iter().chain(listeners) {
        let (offset, sum) = (port_offset.get(), port + port_offset.get());
        if port != 0 && sum > u64::from(u16::MAX) {
            let origin = loaded.origin("port_offset");
            return Err(ConfigError::PortTooHigh { origin, key, offset, port: sum });
        }
    }
    Ok(())
}

/// Ports that others can reach ask for a password.
fn access(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let bind = config.redis.bind;
    if !bind.is_loopback() && !config.needs_password() {
        return Err(ConfigError::Open { origin: loaded.origin("redis.bind"), bind });
    }
    let bind = config.admin.bind;
    if !bind.is_loopback() {
        let port = config.admin_address().port();
        return Err(ConfigError::OpenAdmin { origin: loaded.origin("admin.bind"), bind, port });
    }
    let consul = &config.consul;
    let bind = consul.bind;
    if !bind.is_loopback() && (consul.tokens.is_empty() || consul.anonymous != Access::None) {
        let port = config.consul_address().port();
        return Err(ConfigError::OpenConsul { origin: loaded.origin("consul.bind"), bind, port });
    }
    Ok(())
}

fn tls(loaded: &Loaded) -> Result<(), ConfigError> {
    let (cert, key) = ("redis.tls_cert", "redis.tls_key");
    let half = |key: &str, other: &str| {
        Err(ConfigError::Half { origin: loaded.origin(key), key: key.to_owned(), other: other.to_owned() })
    };
    match (&loaded.config.redis.tls_cert, &loaded.config.redis.tls_key) {
        (Some(_), None) => half(cert, key),
        (None, Some(_)) => half(key, cert),
        (Some(_), Some(_)) | (None, None) => Ok(()),
    }
}

fn storage(loaded: &Loaded) -> Result<(), ConfigError> {
    let storage = &loaded.config.storage;
    let segment = storage.segment_bytes;
    if !segment.get().is_multiple_of(PAGE_BYTES) {
        return Err(ConfigError::NotAllowed {
            origin: loaded.origin("storage.segment_bytes"),
            key: "storage.segment_bytes".into(),
            found: shown(&segment),
            allowed: format!("{}, a multiple of {PAGE_BYTES} bytes", Bytes::allowed(&segment)),
        });
    }
    Ok(())
}

/// A member can be reached, and is of one worker.
fn cluster(loaded: &Loaded) -> Result<(), ConfigError> {
    let Config { cluster, storage, .. } = &loaded.config;
    if cluster.spoken().is_none() {
        return Err(ConfigError::NotAllowed {
            origin: loaded.origin("cluster.version"),
            key: "cluster.version".into(),
            found: shown(&cluster.version),
            allowed: format!("0 for the newest, or {} to {}", Version::OLDEST, Version::NEWEST),
        });
    }
    if !cluster.enabled {
        return Ok(());
    }
    let workers = storage.workers.get();
    if workers != 1 {
        return Err(ConfigError::Workers { origin: loaded.origin("storage.workers"), workers });
    }
    if cluster.bind.is_unspecified() && cluster.advertise.is_none() {
        return Err(ConfigError::Nowhere { origin: loaded.origin("cluster.bind"), bind: cluster.bind });
    }
    Ok(())
}

/// Names of DNS are labels of at most 63 bytes, and others are asked for those of others.
fn names(loaded: &Loaded) -> Result<(), ConfigError> {
    let Config { services, dns, .. } = &loaded.config;
    let names = [
        ("dns.domain", Some(&dns.domain)),
        ("services.datacenter", Some(&services.datacenter)),
        ("services.node_name", services.node_name.as_ref()),
    ];
    for (key, name) in names {
        let labels =
            |name: &super::Name| name.as_str().split('.').all(|label| (1..=63).contains(&label.len()));
        if let Some(name) =
            name.filter(|name| !labels(name) || (key != "dns.domain" && name.as_str().contains('.')))
        {
            let dots = if key == "dns.domain" {
                ", with dots between parts of at most 63"
            } else {
                ", without dots"
            };
            return Err(ConfigError::NotAllowed {
                origin: loaded.origin(key),
                key: key.into(),
                found: shown(name),
                allowed: format!("{}{dots}", super::Name::allowed(name)),
            });
        }
    }
    // A node that asks itself would ask for ever.
    let own = loaded.config.dns_address();
    let is_own = |place: &SocketAddr| {
        place.port() == own.port()
            && (place.ip() == own.ip() || (own.ip().is_unspecified() && place.ip().is_loopback()))
    };
    if let Some(place) = dns.recursors.get().iter().map(|it| it.0).find(is_own) {
        return Err(ConfigError::NotAllowed {
            origin: loaded.origin("dns.recursors"),
            key: "dns.recursors".into(),
            found: place.to_string(),
            allowed: "servers other than this node".into(),
        });
    }
    Ok(())
}

fn users(loaded: &Loaded) -> Result<(), ConfigError> {
    let users = &loaded.config.redis.users;
    for (at, user) in users.iter().enumerate() {
        let named_default = user.name.as_str() == "default" && loaded.config.redis.requirepass.is_some();
        if named_default || users[..at].iter().any(|other| other.name == user.name) {
            let key = format!("redis.users[{at}].name");
            return Err(ConfigError::Twice { origin: loaded.origin(&key), found: shown(&user.name), key });
        }
    }
    Ok(())
}

/// A secret is one token's and fits a field of a head, and a name is one token's, too.
fn tokens(loaded: &Loaded) -> Result<(), ConfigError> {
    let tokens = &loaded.config.consul.tokens;
    for (at, token) in tokens.iter().enumerate() {
        let twice = |name: &str, found: String| {
            let key = format!("consul.tokens[{at}].{name}");
            Err(ConfigError::Twice { origin: loaded.origin(&key), key, found })
        };
        let key = format!("consul.tokens[{at}].secret");
        if !token.secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let (found, allowed) = ("not printed here", "letters, digits and signs of ASCII, without blanks");
            let origin = loaded.origin(&key);
            return Err(ConfigError::NotAllowed {
                origin,
                key,
                found: found.into(),
                allowed: allowed.into(),
            });
        }
        for (name, list) in [("service_prefix", &token.service_prefix.0), ("key_prefix", &token.key_prefix.0)]
        {
            let mut prefixes = BTreeSet::new();
            if let Some(again) = list.iter().find(|rule| !prefixes.insert(&rule.prefix)) {
                return twice(name, format!("{:?}", again.prefix));
            }
        }
        let others = &tokens[..at];
        if others.iter().any(|other| other.name == token.name) {
            return twice("name", shown(&token.name));
        }
        if let Some(other) = others.iter().find(|other| other.secret == token.secret) {
            return twice("secret", format!("that of {}", shown(&other.name)));
        }
    }
    Ok(())
}

fn keyspaces(loaded: &Loaded) -> Result<(), ConfigError> {
    let keyspaces = &loaded.config.keyspace;
    for (at, keyspace) in keyspaces.iter().enumerate() {
        let key = |name: &str| format!("keyspace[{at}].{name}");
        let twice = |name, found| {
            let key = key(name);
            Err(ConfigError::Twice { origin: loaded.origin(&key), key, found })
        };
        let others = &keyspaces[..at];
        if others.iter().any(|other| other.id == keyspace.id) {
            return twice("id", shown(&keyspace.id));
        }
        if others.iter().any(|other| other.label() == keyspace.label()) {
            return twice("name", keyspace.label());
        }
        if keyspace.mode != Mode::Primary {
            return not_offered(loaded, &key("mode"), &keyspace.mode, "\"primary\"");
        }
    }
    Ok(())
}

fn shown(value: &dyn Value) -> String {
    value.show().unwrap_or_default()
}

fn not_offered(loaded: &Loaded, key: &str, value: &dyn Value, instead: &str) -> Result<(), ConfigError> {
    Err(ConfigError::NotOffered {
        origin: loaded.origin(key),
        key: key.to_owned(),
        found: shown(value),
        instead: instead.to_owned(),
    })
}
