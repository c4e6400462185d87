//! TLS of the proxy, from the configuration: what is said together, and then the files.

use std::path::PathBuf;
use std::sync::Arc;

use proxy::{
    Allowed, CERTIFICATES_MAX, ClientTls, Inside, Keys, NodeTls, PairFiles, ServerTls, TlsError, TlsPlan,
};

use super::{Files, service};
use crate::config::items::{Item, Several};
use crate::config::proxy::{AllowItem, Asked, Protocol, ProxyListener, ProxyService};
use crate::config::{ConfigError, Loaded};

/// Who this node is to other nodes of its cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own<'a> {
    /// That is not known yet: what is planned is to be judged, and not to be followed.
    Unknown,
    /// It is in no cluster.
    Nobody,
    /// A member, which can prove it.
    Member(&'a Arc<NodeTls>),
}

impl<'a> Own<'a> {
    /// Who proves its key where that `is_wanted` by the setting `key`, and TLS in which nobody does is not.
    fn node(
        self,
        loaded: &Loaded,
        key: String,
        is_wanted: bool,
        is_otherwise: bool,
    ) -> Result<Option<&'a Arc<NodeTls>>, ConfigError> {
        let origin = loaded.origin(&key);
        match self {
            _ if !is_wanted => Ok(None),
            _ if is_otherwise => Err(ConfigError::NotAllowed {
                origin,
                key,
                found: "true".into(),
                allowed: "false where `tls` is true: one proves nodes' keys, the other names of certificates"
                    .into(),
            }),
            Own::Unknown => Ok(None),
            Own::Nobody => Err(ConfigError::NoCluster { origin, key }),
            Own::Member(node) => Ok(Some(node)),
        }
    }
}

/// Who may ask, of those in this list.
///
/// # Errors
/// [`ConfigError`]: somebody in it is of another cluster.
pub(super) fn allowed(
    loaded: &Loaded,
    key: &str,
    list: &Several<AllowItem>,
    own: Own<'_>,
) -> Result<Allowed, ConfigError> {
    let mut nodes = std::collections::BTreeSet::new();
    for item in &list.0 {
        match *item {
            AllowItem::Members => return Ok(Allowed::Members),
            AllowItem::Node(node) => nodes.insert(node),
            AllowItem::Name(name) => {
                if let Own::Member(own) = own
                    && own.name().cluster != name.cluster
                {
                    return Err(ConfigError::NotAllowed {
                        origin: loaded.origin(key),
                        key: key.to_owned(),
                        found: format!("\"{}\"", item.show()),
                        allowed: format!(
                            "a member of this node's cluster, whose names begin with spiffe://{}/node/",
                            own.name().cluster
                        ),
                    });
                }
                nodes.insert(name.node)
            }
        };
    }
    Ok(if nodes.is_empty() { Allowed::Anybody } else { Allowed::These(nodes) })
}

/// The certificates of all listeners; `None`: there is no listener with TLS, or files are not read.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn keys(loaded: &Loaded, files: Files) -> Result<Option<Arc<Keys>>, ConfigError> {
    let config = &loaded.config.proxy;
    if config.certificate.len() > CERTIFICATES_MAX {
        return Err(ConfigError::NotAllowed {
            origin: loaded.origin("proxy.certificate[0].cert"),
            key: "proxy.certificate".into(),
            found: format!("{} certificates", config.certificate.len()),
            allowed: format!("at most {CERTIFICATES_MAX}"),
        });
    }
    let Some(at) = config.listener.iter().position(|listener| listener.tls) else { return Ok(None) };
    if config.certificate.is_empty() {
        let origin = loaded.origin(&format!("proxy.listener[{at}].tls"));
        return Err(ConfigError::Missing { origin, key: "proxy.certificate".into() });
    }
    if files == Files::None {
        return Ok(None);
    }
    let pairs =
        config.certificate.iter().map(|one| PairFiles { cert: one.cert.clone(), key: one.key.clone() });
    let keys = Keys::load(pairs.collect());
    keys.map(|keys| Some(Arc::new(keys)))
        .map_err(|source| bad(loaded, "proxy.certificate[0].cert".into(), "proxy.certificate".into(), source))
}

/// What a listener does with TLS.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn of_listener(
    loaded: &Loaded,
    at: usize,
    listener: &ProxyListener,
    keys: Option<&Arc<Keys>>,
    own: Own<'_>,
) -> Result<Option<Arc<TlsPlan>>, ConfigError> {
    let key = |name: &str| format!("proxy.listener[{at}].{name}");
    let mut passthrough = Vec::new();
    for passed in &listener.passthrough.0 {
        passthrough.push((passed.host.clone(), service(loaded, &key("passthrough"), &passed.service)?));
    }
    if listener.client_ca.is_some() && !listener.tls {
        let (key, other) = (key("client_ca"), key("tls"));
        return Err(ConfigError::Half { origin: loaded.origin(&key), key, other });
    }
    let inside = match listener.protocol {
        Protocol::Http => Inside::Http,
        Protocol::Tcp => Inside::Any,
    };
    if !listener.allow.0.is_empty() && !listener.mutual {
        let (key, other) = (key("allow"), key("mutual"));
        return Err(ConfigError::Half { origin: loaded.origin(&key), key, other });
    }
    let allowed = allowed(loaded, &key("allow"), &listener.allow, own)?;
    let node = own.node(loaded, key("mutual"), listener.mutual, listener.tls)?;
    let terminate = match (node, keys.filter(|_| listener.tls)) {
        (Some(node), _) => {
            let tls = ServerTls::mutual(node, allowed, inside);
            Some(tls.map_err(|source| bad(loaded, key("mutual"), key("mutual"), source))?)
        }
        (None, None) => None,
        (None, Some(keys)) => {
            let tls = ServerTls::new(Arc::clone(keys), listener.client_ca.as_deref(), inside);
            let name = if listener.client_ca.is_some() { "client_ca" } else { "tls" };
            Some(tls.map_err(|source| bad(loaded, key(name), key(name), source))?)
        }
    };
    let begins = listener.tls || listener.mutual || !passthrough.is_empty();
    Ok(begins.then(|| Arc::new(TlsPlan { terminate, passthrough })))
}

/// How connections to a service's endpoints are secured.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn of_service(
    loaded: &Loaded,
    at: usize,
    service: &ProxyService,
    files: Files,
    own: Own<'_>,
) -> Result<Option<ClientTls>, ConfigError> {
    let key = |name: &str| format!("proxy.service[{at}].{name}");
    let half = |one: &str, other: &str| {
        let (key, other) = (key(one), key(other));
        ConfigError::Half { origin: loaded.origin(&key), key, other }
    };
    let pair = match (&service.tls_cert, &service.tls_key) {
        (None, None) => None,
        (Some(_), None) => return Err(half("tls_cert", "tls_key")),
        (None, Some(_)) => return Err(half("tls_key", "tls_cert")),
        (Some(cert), Some(key)) => Some(PairFiles { cert: cert.clone(), key: PathBuf::clone(key) }),
    };
    let inside = match service.protocol {
        Asked::Http1 => Inside::Http1,
        Asked::Http2 => Inside::Http2,
    };
    let node = own.node(loaded, key("mutual"), service.mutual, service.tls)?;
    if !service.tls {
        let without = |one| Err(half(one, "tls"));
        return if pair.is_some() {
            without("tls_cert")
        } else if service.tls_name.is_some() {
            without("tls_name")
        } else {
            Ok(node.map(|node| ClientTls::mutual(node, inside)))
        };
    }
    if files == Files::None {
        return Ok(None);
    }
    let name = service.tls_name.as_ref().map(|name| name.0.0.clone());
    let tls = ClientTls::new(&service.tls_ca, name, pair.as_ref(), inside);
    tls.map(Some).map_err(|source| bad(loaded, key("tls_ca"), key("tls"), source))
}

fn bad(loaded: &Loaded, place: String, key: String, source: TlsError) -> ConfigError {
    ConfigError::ProxyTls { origin: loaded.origin(&place), key, source }
}
