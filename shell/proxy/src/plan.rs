//! What a proxy is to do: listeners, routes and services, as one immutable value that is replaced whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kernel::NodeId;
use mesh::limit::{Priority, Rate};
use mesh::retry::RetryOptions;
use mesh::route::{HostRule, Routes, Split};
use mesh::source::Network;
use mesh::sticky::Names;
use mesh::upstream::UpstreamOptions;
use wire::http1::ForwardedBy;
use wire::proxied::ProxyVersion;

use crate::mutual::{Allowed, NodeTls};
use crate::tls::{ClientTls, ServerTls};

/// Everything that a proxy does. Services are named by their place in `services`, routes by their place in `routes`.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Where clients connect.
    pub listeners: Vec<ListenerPlan>,
    /// Where requests go.
    pub services: Vec<ServicePlan>,
    /// Which requests go where.
    pub routes: Vec<RoutePlan>,
    /// The rules of `routes`, in their order.
    pub index: Routes,
    /// How long things may take, and how many there may be.
    pub limits: Limits,
    /// What is told of requests.
    pub telling: Telling,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPlan {
    /// What it is called.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What its clients speak.
    pub kind: ListenerKind,
    /// Its clients begin with TLS.
    pub tls: Option<Arc<TlsPlan>>,
    /// Which of its clients are proxies that are trusted; `None`: nobody is.
    pub sources: Option<Arc<Sources>>,
}

/// Clients that are proxies, and what they say of theirs. A client that is connected is what it was when it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Where they are. `X-Forwarded-For` and its like are believed if they come from there.
    pub trusted: Vec<Network>,
    /// Each connection begins with a header of the PROXY protocol; who is not trusted is refused.
    pub accept_proxy: bool,
    /// The field by which they say whose a request is.
    pub by: ForwardedBy,
}

/// What a port does with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// How it is opened; `None`: what is not passed on is refused.
    pub terminate: Option<ServerTls>,
    /// Names whose connections go to a service unopened, by its place. The first that takes a name counts.
    pub passthrough: Vec<(HostRule, u32)>,
}

impl Plan {
    /// The node that proves to others who it is, if this plan has it do so.
    pub(crate) fn node(&self) -> Option<&Arc<NodeTls>> {
        let listeners = self.listeners.iter().filter_map(|one| one.tls.as_ref()?.terminate.as_ref()?.node());
        let services = self.services.iter().filter_map(|one| one.tls.as_ref()?.node());
        listeners.chain(services).next()
    }
}

impl TlsPlan {
    /// The service that connections for this name go to unopened; names are in lower case.
    pub(crate) fn passes(&self, name: Option<&str>) -> Option<u32> {
        let takes = |rule: &HostRule| match (rule, name) {
            (HostRule::Any, _) => true,
            (HostRule::Exact(exact), Some(name)) => **exact == *name,
            (HostRule::Under(suffix), Some(name)) => name.len() > suffix.len() && name.ends_with(&**suffix),
            (HostRule::Exact(_) | HostRule::Under(_), None) => false,
        };
        self.passthrough.iter().find(|(rule, _)| takes(rule)).map(|(_, service)| *service)
    }
}

/// What the clients of a port speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTP/1.1, and HTTP/2 where a client begins with it or agrees on it in TLS: each request takes its route.
    Http,
    /// Anything: each connection goes to this service.
    Tcp {
        /// The service's place.
        service: u32,
    },
}

impl ListenerPlan {
    /// Whether both are one socket: where any free port is asked for, the name tells them apart.
    pub(crate) fn is_same_socket(&self, other: &ListenerPlan) -> bool {
        self.is_at(&other.name, other.address)
    }

    /// The same of a socket of which only these are known.
    pub(crate) fn is_at(&self, name: &str, address: SocketAddr) -> bool {
        self.address == address && (self.address.port() != 0 || self.name == name)
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub endpoints: Vec<EndpointPlan>,
    /// That is found elsewhere and told by [`crate::Proxy::discover`].
    pub discovered: bool,
    /// How requests are divided among them, and when they are not sent.
    pub options: UpstreamOptions,
    /// A connection must be there within this, in milliseconds.
    pub connect_ms: u64,
    /// A connection without a request is kept so long, in milliseconds; 0: not.
    pub idle_ms: u64,
    /// Such connections of one thread to one endpoint.
    pub idle_max: usize,
    /// How its connections are secured.
    pub tls: Option<ClientTls>,
    /// Its connections begin with a header of the PROXY protocol that says whose they are. Each is for requests of one
    /// client's connection then. Not with `http2`.
    pub send_proxy: Option<ProxyVersion>,
    /// A cookie keeps clients at their endpoint.
    pub sticky: Option<StickyPlan>,
    /// It is asked in HTTP/2, many requests on a connection. Those that may change the protocol are asked in HTTP/1.1, each
    /// on a connection of its own.
    pub http2: bool,
    /// Tries of a connection that is passed through.
    pub retry: RetryOptions,
}

/// How clients stay at an endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyPlan {
    /// The cookie's name, a token.
    pub cookie: String,
    /// How long clients keep it, in seconds; 0: as long as they run.
    pub ttl_seconds: u64,
    /// What endpoints are called in it.
    pub names: Names,
}

/// One instance of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// Where it listens.
    pub address: SocketAddr,
    /// How much it takes beside the others; at least 1.
    pub weight: u16,
    /// The node that it must be, where the service's TLS is mutual.
    pub node: Option<NodeId>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// What it is called.
    pub name: String,
    /// The services that its requests go to.
    pub split: Split,
    /// A prefix of the path, and what stands there instead.
    pub rewrite: Option<(String, String)>,
    /// Timeouts and tries.
    pub retry: RetryOptions,
    /// Statuses of a service after which a request that may be sent twice is sent again.
    pub retry_statuses: Vec<u16>,
    /// A service that gets copies of its requests.
    pub mirror: Option<MirrorPlan>,
    /// How many requests it takes.
    pub rate: Option<RatePlan>,
    /// Who goes first of those that wait for a service.
    pub priority: Priority,
    /// What keeps a client's requests at one endpoint, where the policy hashes.
    pub key: KeyOf,
    /// Whose requests it takes; others are answered 403.
    pub allow: Allowed,
    /// Connections may change their protocol (WebSocket).
    pub upgrade: bool,
    /// CONNECT leads to the service's endpoints.
    pub connect: bool,
}

/// Where copies of requests go. Who answers them, and how, nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorPlan {
    /// The service's place.
    pub service: u32,
    /// Of how many requests, in per cent; at most 100.
    pub percent: u8,
}

/// How many requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatePlan {
    /// How many of each key.
    pub rate: Rate,
    /// Whose.
    pub key: KeyOf,
    /// Keys that are remembered at once.
    pub keys_max: usize,
}

/// What requests have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// Their route.
    Route,
    /// Their client's address.
    Client,
    /// The value of this header field; those without have that in common.
    Field(String),
}

/// Bounds in time, each in milliseconds, and in number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once, of all threads; more wait to be accepted.
    pub clients_max: usize,
    /// From the first byte of a request's head to its last.
    pub head_ms: u64,
    /// Between two requests of a client.
    pub idle_ms: u64,
    /// Between two pieces of a body.
    pub body_ms: u64,
    /// Between two pieces through a tunnel.
    pub tunnel_ms: u64,
    /// For requests under way when the proxy stops.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clients_max: 10_000,
            head_ms: 10_000,
            idle_ms: 60_000,
            body_ms: 30_000,
            tunnel_ms: 3_600_000,
            drain_ms: 5_000,
        }
    }
}

/// Of which requests spans are made: of those whose client says that their trace is recorded, and of some that begin theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanPlan {
    /// One of so many that begin their own trace; at least 1.
    pub sample: u32,
}

/// What is told of requests, and what they tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Requests without a trace context begin one.
    pub trace: bool,
    /// Spans are made of requests; `None`: of none.
    pub spans: Option<SpanPlan>,
    /// A file that gets a line for one of `access_sample` requests.
    pub access_log: Option<PathBuf>,
    /// See `access_log`; at least 1.
    pub access_sample: u32,
}
