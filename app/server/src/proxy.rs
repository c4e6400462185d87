//! The proxy of a server, from its configuration.

pub mod desired;
pub mod follow;
mod secret;
pub(crate) mod tls;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh::breaker::BreakerOptions;
use mesh::limit::{AdaptiveOptions, Priority, Rate};
use mesh::outlier::{OutlierOptions, Panic};
use mesh::queue::QueueOptions;
use mesh::registry::{Entry, View};
use mesh::retry::RetryOptions;
use mesh::route::{FieldRule, PathRule, Routes, Rule, RuleError, Split};
use mesh::source::Network;
use mesh::sticky::Names;
use mesh::upstream::UpstreamOptions;
use proxy::{
    ClientTls, EndpointPlan, Keys, Limits, ListenerKind, ListenerPlan, MirrorPlan, Plan, Proxy, RatePlan,
    RoutePlan, ServicePlan, Sources, SpanPlan, StickyPlan, Telling,
};
use wire::http1::ForwardedBy;
use wire::proxied::ProxyVersion;

use self::tls::Own;
use crate::config::items::{Item, One};
use crate::config::proxy::{
    Asked, Class, ClientField, Protocol, ProxyListener, ProxyRoute, ProxyService, SendProxy,
};
use crate::config::{Config, ConfigError, Loaded};
use crate::services::Handle;

/// Clients whose rates are remembered at once, in a route.
const RATE_KEYS_MAX: usize = 64 * 1024;
/// How often the registry is looked at for a change, which is one atomic load, in milliseconds.
const LOOK_MS: u64 = 50;
/// Most retries that a service may have saved up.
const BUDGET_MAX: u16 = 10;

/// Which files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// Those that are named, and what is kept in the data directory, which is this process's.
    Own,
    /// Those that are named.
    Named,
    None,
}

/// A plan of a node of which it is not known who it is.
#[cfg(test)]
pub(crate) fn plan(loaded: &Loaded, workers: u64) -> Result<Plan, ConfigError> {
    planned(loaded, workers, Files::Own, Own::Unknown)
}

/// The plan that the configuration comes to for so many threads, of a node that is this and has the data directory: what was
/// drawn for the proxy is kept there. A configuration that was loaded has one, if [`check_files`] finds nothing.
///
/// # Errors
/// [`ConfigError`], which names the place.
pub(crate) fn plan_of(loaded: &Loaded, workers: u64, own: Own<'_>) -> Result<Plan, ConfigError> {
    planned(loaded, workers, Files::Own, own)
}

/// Whether there is a plan: whether the files that are named, such as certificates, can be used.
///
/// # Errors
/// [`ConfigError`], which names the place.
pub fn check_files(loaded: &Loaded) -> Result<(), ConfigError> {
    check_files_of(loaded, Own::Unknown)
}

/// The same, of a node that is this.
pub(crate) fn check_files_of(loaded: &Loaded, own: Own<'_>) -> Result<(), ConfigError> {
    planned(loaded, loaded.config.proxy.workers.get(), Files::Named, own).map(drop)
}

/// Whether there is a plan, as far as that does not depend on files.
///
/// # Errors
/// [`ConfigError`], which names the place.
pub fn check(loaded: &Loaded) -> Result<(), ConfigError> {
    planned(loaded, loaded.config.proxy.workers.get(), Files::None, Own::Unknown).map(drop)
}

fn planned(loaded: &Loaded, workers: u64, files: Files, own: Own<'_>) -> Result<Plan, ConfigError> {
    let (config, otlp) = (&loaded.config.proxy, &loaded.config.otlp);
    let keys = tls::keys(loaded, files)?;
    Ok(Plan {
        listeners: listeners(loaded, keys.as_ref(), own)?,
        services: services(loaded, files, own)?,
        routes: routes(loaded, workers, own)?,
        index: index(loaded)?,
        limits: Limits {
            clients_max: size(config.clients_max.get()),
            head_ms: config.head_ms.get(),
            idle_ms: config.idle_ms.get(),
            body_ms: config.body_ms.get(),
            tunnel_ms: config.tunnel_ms.get(),
            drain_ms: config.drain_ms.get(),
        },
        telling: Telling {
            trace: config.trace,
            spans: otlp.endpoint.as_ref().map(|_| SpanPlan { sample: small(otlp.sample.get()) }),
            access_log: config.access_log.clone(),
            access_sample: small(config.access_sample.get()),
        },
    })
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The place of a service by its name.
fn service(loaded: &Loaded, key: &str, name: &str) -> Result<u32, ConfigError> {
    let services = &loaded.config.proxy.service;
    let at = services.iter().position(|one| one.name.as_str() == name);
    at.map(|at| at as u32).ok_or_else(|| {
        let known: Vec<&str> = services.iter().map(|one| one.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ConfigError::NoService {
            origin: loaded.origin(key),
            key: key.to_owned(),
            found: name.to_owned(),
            known,
        }
    })
}

fn twice(loaded: &Loaded, key: String, found: &str) -> ConfigError {
    ConfigError::Twice { origin: loaded.origin(&key), key, found: format!("\"{found}\"") }
}

/// Where a listener is, with the node's offset.
fn address(config: &Config, at: usize) -> SocketAddr {
    let listener = &config.proxy.listener[at];
    SocketAddr::new(listener.bind, config.shifted(listener.port.get()))
}

fn listeners(
    loaded: &Loaded,
    keys: Option<&Arc<Keys>>,
    own: Own<'_>,
) -> Result<Vec<ListenerPlan>, ConfigError> {
    let listeners = &loaded.config.proxy.listener;
    let mut plans: Vec<ListenerPlan> = Vec::new();
    for (at, listener) in listeners.iter().enumerate() {
        let key = |name: &str| format!("proxy.listener[{at}].{name}");
        let address = address(&loaded.config, at);
        if plans.iter().any(|other| other.name == listener.name.as_str()) {
            return Err(twice(loaded, key("name"), listener.name.as_str()));
        }
        if address.port() != 0 && plans.iter().any(|other| other.address == address) {
            return Err(twice(loaded, key("port"), &address.to_string()));
        }
        let kind = match (listener.protocol, &listener.service) {
            (Protocol::Http, None) => ListenerKind::Http,
            (Protocol::Tcp, Some(name)) => {
                ListenerKind::Tcp { service: service(loaded, &key("service"), name.as_str())? }
            }
            (Protocol::Tcp, None) => {
                let origin = loaded.origin(&key("protocol"));
                return Err(ConfigError::Missing { origin, key: key("service") });
            }
            (Protocol::Http, Some(name)) => {
                return Err(ConfigError::NotAllowed {
                    origin: loaded.origin(&key("service")),
                    key: key("service"),
                    found: format!("\"{}\"", name.as_str()),
                    allowed: "a service where `protocol` is \"tcp\"; requests of HTTP take [[proxy.route]]"
                        .into(),
                });
            }
        };
        let tls = tls::of_listener(loaded, at, listener, keys, own)?;
        let sources = sources(loaded, at, listener)?;
        plans.push(ListenerPlan { name: listener.name.as_str().to_owned(), address, kind, tls, sources });
    }
    Ok(plans)
}

/// Which clients of a listener are trusted to say whose they are.
fn sources(
    loaded: &Loaded,
    at: usize,
    listener: &ProxyListener,
) -> Result<Option<Arc<Sources>>, ConfigError> {
    let key = |name: &str| format!("proxy.listener[{at}].{name}");
    let trusted: Vec<Network> = listener.trusted.0.iter().map(|item| item.0).collect();
    if trusted.is_empty() {
        // Without anybody who is believed the others mean nothing.
        let half = if listener.accept_proxy {
            key("accept_proxy")
        } else if listener.client_field != ClientField::XForwardedFor {
            key("client_field")
        } else {
            return Ok(None);
        };
        let (origin, other) = (loaded.origin(&half), key("trusted"));
        return Err(ConfigError::Half { origin, key: half, other });
    }
    let by = match listener.client_field {
        ClientField::XForwardedFor => ForwardedBy::XForwardedFor,
        ClientField::Forwarded => ForwardedBy::Forwarded,
    };
    Ok(Some(Arc::new(Sources { trusted, accept_proxy: listener.accept_proxy, by })))
}

fn services(loaded: &Loaded, files: Files, own: Own<'_>) -> Result<Vec<ServicePlan>, ConfigError> {
    let services = &loaded.config.proxy.service;
    let drawn = Drawn { files, names: OnceCell::new() };
    let mut plans = Vec::new();
    let mut names = BTreeSet::new();
    for (at, service) in services.iter().enumerate() {
        let key = |name: &str| format!("proxy.service[{at}].{name}");
        if !names.insert(service.name.as_str()) {
            return Err(twice(loaded, key("name"), service.name.as_str()));
        }
        let endpoints = &service.endpoints.0;
        if endpoints.is_empty() && !loaded.config.services.enabled {
            let origin = loaded.origin(&format!("proxy.service[{at}]"));
            return Err(ConfigError::Missing { origin, key: key("endpoints") });
        }
        for (at, endpoint) in endpoints.iter().enumerate() {
            if endpoints[..at].iter().any(|other| other.address == endpoint.address) {
                return Err(twice(loaded, key("endpoints"), &endpoint.show()));
            }
        }
        if service.send_proxy != SendProxy::No && service.protocol == Asked::Http2 {
            return Err(ConfigError::NotAllowed {
                origin: loaded.origin(&key("send_proxy")),
                key: key("send_proxy"),
                found: service.send_proxy.word().to_owned(),
                allowed:
                    "\"no\" where `protocol` is \"http2\": one connection carries requests of many clients"
                        .into(),
            });
        }
        bounds(loaded, at, service)?;
        let sticky = sticky(loaded, at, service, &drawn)?;
        let tls = tls::of_service(loaded, at, service, files, own)?;
        plans.push(ServicePlan { sticky, ..service_plan(service, tls) });
    }
    Ok(plans)
}

/// The bounds of what is learnt about a service are some.
fn bounds(loaded: &Loaded, at: usize, service: &ProxyService) -> Result<(), ConfigError> {
    let key = format!("proxy.service[{at}].requests_min");
    let (least, most) = (service.requests_min.get(), service.requests_max.get());
    if service.adaptive && least > most {
        let (found, allowed) = (least.to_string(), format!("at most `requests_max`, which is {most}"));
        return Err(ConfigError::NotAllowed { origin: loaded.origin(&key), key, found, allowed });
    }
    Ok(())
}

/// How clients of a service stay at an endpoint.
fn sticky(
    loaded: &Loaded,
    at: usize,
    service: &ProxyService,
    drawn: &Drawn,
) -> Result<Option<StickyPlan>, ConfigError> {
    let key = |name: &str| format!("proxy.service[{at}].{name}");
    let Some(One(cookie)) = &service.sticky_cookie else {
        if service.sticky_ttl_s.get() == 0 {
            return Ok(None);
        }
        let (key, other) = (key("sticky_ttl_s"), key("sticky_cookie"));
        return Err(ConfigError::Half { origin: loaded.origin(&key), key, other });
    };
    let names = match &loaded.config.proxy.secret {
        Some(secret) => Names::of(secret.expose().as_bytes()),
        None => drawn.names(loaded, key("sticky_cookie"))?,
    };
    Ok(Some(StickyPlan { cookie: cookie.0.clone(), ttl_seconds: service.sticky_ttl_s.get(), names }))
}

/// The names that a node gives without a secret in its configuration, once they are asked for.
struct Drawn {
    files: Files,
    names: OnceCell<Names>,
}

impl Drawn {
    fn names(&self, loaded: &Loaded, key: String) -> Result<Names, ConfigError> {
        if let Some(names) = self.names.get() {
            return Ok(*names);
        }
        let dir = &loaded.config.data_dir;
        let secret = match self.files {
            Files::Own => secret::own(dir).map_err(|source| ConfigError::OwnSecret {
                origin: loaded.origin(&key),
                key,
                path: dir.join(secret::NAME),
                source,
            })?,
            // Nobody follows such a plan.
            Files::Named | Files::None => [0; 32],
        };
        Ok(*self.names.get_or_init(|| Names::of(&secret)))
    }
}

fn service_plan(service: &ProxyService, tls: Option<ClientTls>) -> ServicePlan {
    let percent = |n: u64| u8::try_from(n).expect("a percentage is at most 100");
    let endpoints = service.endpoints.0.iter();
    let breaker = BreakerOptions {
        requests_max: small(service.requests_max.get()),
        pending_max: small(service.pending_max.get()),
        failure_percent: percent(service.breaker_percent.get()),
        requests_min: small(service.breaker_requests.get()),
        window_ms: service.breaker_window_ms.get(),
        open_ms: service.breaker_open_ms.get(),
        ..BreakerOptions::default()
    };
    let outliers = OutlierOptions {
        consecutive: small(service.outlier_failures.get()),
        eject_ms: service.outlier_ms.get(),
        out_percent_max: percent(service.outlier_percent.get()),
        panic: match percent(service.panic_percent.get()) {
            0 => Panic::Never,
            below => Panic::UseAllBelow(below),
        },
        ..OutlierOptions::default()
    };
    ServicePlan {
        name: service.name.as_str().to_owned(),
        endpoints: endpoints
            .map(|one| EndpointPlan { address: one.address, weight: one.weight, node: None })
            .collect(),
        discovered: service.endpoints.0.is_empty(),
        options: UpstreamOptions {
            policy: service.policy.policy(),
            slow_start_ms: service.slow_start_ms.get(),
            breaker,
            outliers,
            adaptive: service.adaptive.then(|| AdaptiveOptions {
                first: AdaptiveOptions::default().first,
                least: small(service.requests_min.get()),
                most: small(service.requests_max.get()),
            }),
            queue: QueueOptions { places: small(service.queue_max.get()), wait_ms: service.queue_ms.get() },
            budget_percent: percent(service.retry_percent.get()),
            budget_max: BUDGET_MAX,
        },
        connect_ms: service.connect_ms.get(),
        idle_ms: service.keep_ms.get(),
        idle_max: size(service.keep_max.get()),
        tls,
        send_proxy: match service.send_proxy {
            SendProxy::No => None,
            SendProxy::V1 => Some(ProxyVersion::V1),
            SendProxy::V2 => Some(ProxyVersion::V2),
        },
        sticky: None,
        http2: service.protocol == Asked::Http2,
        retry: RetryOptions {
            tries_max: u8::try_from(service.tries.get()).expect("there are at most 10 tries"),
            ..RetryOptions::default()
        },
    }
}

/// What a route is called.
fn route_name(route: &ProxyRoute) -> String {
    let made = || {
        let exact = if route.exact { "=" } else { "" };
        let mut name = format!("{}{exact}{}", route.host.0.show(), route.path.0.0);
        route.methods.0.iter().for_each(|method| name = format!("{name} {}", method.0));
        route.headers.0.iter().for_each(|field| name = format!("{name} {}", field.show()));
        name
    };
    route.name.as_ref().map_or_else(made, |name| name.as_str().to_owned())
}

fn routes(loaded: &Loaded, workers: u64, own: Own<'_>) -> Result<Vec<RoutePlan>, ConfigError> {
    let routes = &loaded.config.proxy.route;
    let mut plans: Vec<RoutePlan> = Vec::new();
    let mut names = BTreeSet::new();
    for (at, route) in routes.iter().enumerate() {
        let key = |name: &str| format!("proxy.route[{at}].{name}");
        let name = route_name(route);
        if !names.insert(name.clone()) {
            return Err(twice(loaded, key(if route.name.is_some() { "name" } else { "service" }), &name));
        }
        let mut parts = Vec::new();
        for share in &route.service.0 {
            parts.push((service(loaded, &key("service"), &share.service)?, share.part));
        }
        let missing = || ConfigError::Missing { origin: loaded.origin(&key("service")), key: key("service") };
        let split = Split::new(&parts).ok_or_else(missing)?;
        plans.push(RoutePlan {
            name,
            split,
            rewrite: route.rewrite.as_ref().map(|by| {
                let path = &route.path.0.0;
                (path.strip_suffix('/').unwrap_or(path).to_owned(), by.0.0.clone())
            }),
            retry: RetryOptions {
                tries_max: u8::try_from(route.tries.get()).expect("there are at most 10 tries"),
                try_ms: route.try_ms.get(),
                total_ms: route.total_ms.get(),
                backoff_ms: route.backoff_ms.get(),
            },
            retry_statuses: route.retry_on.0.iter().map(|status| status.0).collect(),
            mirror: mirror(loaded, &key("mirror"), route)?,
            rate: rate(route, workers),
            priority: match route.priority {
                Class::Low => Priority::Low,
                Class::Normal => Priority::Normal,
                Class::High => Priority::High,
            },
            key: route.hash.0.0.clone(),
            allow: tls::allowed(loaded, &key("allow"), &route.allow, own)?,
            upgrade: route.upgrade,
            connect: route.connect,
        });
    }
    Ok(plans)
}

/// Where copies of a route's requests go.
fn mirror(loaded: &Loaded, key: &str, route: &ProxyRoute) -> Result<Option<MirrorPlan>, ConfigError> {
    let Some(One(mirror)) = &route.mirror else { return Ok(None) };
    let service = service(loaded, key, &mirror.service)?;
    Ok(Some(MirrorPlan { service, percent: mirror.percent }))
}

/// Each thread lets its part through, so that all together keep to the rate.
fn rate(route: &ProxyRoute, workers: u64) -> Option<RatePlan> {
    let requests = small(route.rate.get());
    if requests == 0 {
        return None;
    }
    let burst = small(route.rate_burst.get().div_ceil(workers));
    let rate = Rate::new(requests, 1000 * workers, burst);
    let rate = rate.expect("a rate of 1 to 1000000 in at most 16 s, with a burst of at least 1, can be");
    Some(RatePlan { rate, key: route.rate_key.0.0.clone(), keys_max: RATE_KEYS_MAX })
}

fn index(loaded: &Loaded) -> Result<Routes, ConfigError> {
    let routes = &loaded.config.proxy.route;
    let rule = |route: &ProxyRoute| {
        let path = &route.path.0.0;
        let path = if route.exact { PathRule::exact(path) } else { PathRule::prefix(path) };
        Ok(Rule {
            host: route.host.0.0.clone(),
            path: path?,
            methods: route.methods.0.iter().map(|method| method.0.as_str().into()).collect(),
            fields: route
                .headers
                .0
                .iter()
                .map(|field| FieldRule {
                    name: field.name.as_str().into(),
                    value: field.value.as_deref().map(Into::into),
                })
                .collect(),
        })
    };
    let rules: Result<Vec<Rule>, RuleError> = routes.iter().map(rule).collect();
    rules.and_then(|rules| Routes::new(&rules)).map_err(|error| ConfigError::NotAllowed {
        origin: loaded.origin("proxy.route[0]"),
        key: "proxy.route".into(),
        found: format!("{} routes", routes.len()),
        allowed: error.to_string(),
    })
}

/// A server's proxy, if it has one by now.
#[derive(Clone, Default)]
pub struct Proxied(Arc<Mutex<Option<Proxy>>>);

impl Proxied {
    /// The proxy, for as long as this is held.
    pub fn lock(&self) -> MutexGuard<'_, Option<Proxy>> {
        // A proxy takes a plan whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that tells a proxy what the registry has of services without endpoints in the configuration.
pub(crate) struct Discovery {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Discovery {
    /// Starts it.
    pub fn start(handle: Handle, proxied: Proxied) -> io::Result<Discovery> {
        let (end, ended) = channel();
        let run = move || discover(&handle, &proxied, &ended);
        let thread = std::thread::Builder::new().name("discovery".into()).spawn(run)?;
        Ok(Discovery { end, thread })
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the discovery thread ended badly");
        }
    }
}

fn discover(handle: &Handle, proxied: &Proxied, ended: &Receiver<()>) {
    let mut known = None;
    loop {
        if let Some(proxy) = proxied.lock().as_mut() {
            // Another plan may have other services.
            let now = (handle.index(), proxy.generation());
            if known != Some(now) {
                let view = handle.view();
                if let Err(error) = proxy.discover(|name| found(&view, name)) {
                    tracing::error!(%error, "the proxy cannot follow the registry");
                }
                known = Some((now.0, proxy.generation()));
            }
        }
        match ended.recv_timeout(Duration::from_millis(LOOK_MS)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Where a service is: its instances that may get requests, each address once.
fn found(view: &View, name: &str) -> Vec<EndpointPlan> {
    let entries = view.service(name).into_iter().flat_map(|service| &service.entries);
    let found: BTreeMap<SocketAddr, EndpointPlan> =
        entries.filter_map(|entry| judged(entry).ok()).map(|one| (one.address, one)).collect();
    found.into_values().collect()
}

/// An instance as an endpoint, or why it is none.
pub(crate) fn judged(entry: &Entry) -> Result<EndpointPlan, &'static str> {
    if entry.host.is_down {
        return Err("its node is dead");
    }
    if !entry.is_usable() {
        return Err("a check of it or of its node is critical");
    }
    let Ok(ip) = entry.address().parse::<IpAddr>() else { return Err("its address is a name") };
    let weight = u16::try_from(entry.weight()).unwrap_or(u16::MAX);
    match (entry.port(), weight) {
        (0, _) => Err("it has no port"),
        (_, 0) => Err("its weight is 0"),
        (port, weight) => {
            Ok(EndpointPlan { address: SocketAddr::new(ip, port), weight, node: Some(entry.host.id) })
        }
    }
}
