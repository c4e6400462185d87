//! The proxy's settings.

mod texts;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use mesh::balance::Policy;
use proxy::KeyOf;
use toml::de::DeValue;

pub use self::texts::{
    AllowItem, CookieName, EndpointItem, FieldItem, Host, KeyItem, Method, MirrorItem, NetworkItem, Passed,
    RoutePath, Share, StatusItem, TlsName,
};
use super::items::{One, Several};
use super::section::{Kind, Setting, Value, section};
use super::value::{Name, Number, Secret, quoted, setting, words};

/// The longest time that can be set, in milliseconds: a day.
const MS_MAX: u64 = 24 * 3600 * 1000;

section! {
    /// See [`super::Config::proxy`].
    pub struct Proxy {
        /// Threads that serve the proxy's clients, each with connections, breakers and limits of its own. A change needs a
        /// restart.
        workers: Number<1, 16> = Number::of(1),
        /// Clients of the proxy at once; more wait until one leaves.
        clients_max: Number<1, 1_000_000> = Number::of(10_000),
        /// How long a request's head may take from its first byte, in milliseconds; a connection's first one, from when it is
        /// there.
        head_ms: Number<1, MS_MAX> = Number::of(10_000),
        /// How long a client may be connected between two requests, in milliseconds.
        idle_ms: Number<1, MS_MAX> = Number::of(60_000),
        /// How long nothing may come or go of a body, in milliseconds.
        body_ms: Number<1, MS_MAX> = Number::of(30_000),
        /// How long nothing may come through a tunnel (TCP, WebSocket, CONNECT), in milliseconds.
        tunnel_ms: Number<1, MS_MAX> = Number::of(3_600_000),
        /// How long requests under way have when the node stops, in milliseconds.
        drain_ms: Number<0, MS_MAX> = Number::of(5_000),
        /// Whether requests without a `traceparent` (W3C Trace Context) get one.
        trace: bool = true,
        /// A file that gets a line of JSON for requests.
        access_log: Option<PathBuf> = None,
        /// One of so many requests has such a line.
        access_sample: Number<1, 1_000_000_000> = Number::of(1),
        /// What decides the values of `sticky_cookie`. Nodes with the same one know each other's cookies. Without it a
        /// node draws its own when it first needs one and keeps it in the data directory, in the file `proxy.secret`: it knows
        /// its cookies after a restart, and so does who takes over from it.
        secret: Option<Secret> = None,
        /// A certificate for listeners with `tls`. They are read again when their files change.
        certificate: Vec<ProxyCertificate> = Vec::new(),
        /// A port of the proxy. Without any there is no proxy. Who can reach it can reach the services behind it.
        listener: Vec<ProxyListener> = Vec::new(),
        /// Where requests can go.
        service: Vec<ProxyService> = Vec::new(),
        /// Which requests go where. The most specific route takes a request, whatever the order: by host, then exact path, then
        /// longest prefix, then methods and headers.
        route: Vec<ProxyRoute> = Vec::new(),
    }
}

section! {
    /// See [`Proxy::listener`].
    pub struct ProxyListener requires [name] {
        /// The name.
        name: Name = Name::of("web"),
        /// The address to listen on.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(8080),
        /// What clients speak: `http` takes routes, `tcp` passes connections through to `service`.
        protocol: Protocol = Protocol::Http,
        /// The service of a `tcp` listener.
        service: Option<Name> = None,
        /// Whether clients begin with TLS (1.2 or 1.3), which ends here.
        tls: bool = false,
        /// Whether clients are nodes of this node's cluster, which prove it: TLS 1.3, in which both ends show the name
        /// `spiffe://CLUSTER/node/NODE` and prove the node's key. Who is no member, or not any more, is refused. Those behind
        /// the proxy are told who asks (`X-Forwarded-Client-Cert`). Not together with `tls`.
        mutual: bool = false,
        /// Which members may come, with `mutual`: their names or the ids of nodes. Without any, all.
        allow: Several<AllowItem> = Several::default(),
        /// Authorities, one of which must have signed the certificate that a client shows (a file in PEM). Without it
        /// clients show none.
        client_ca: Option<PathBuf> = None,
        /// Names of TLS whose connections go to a service as they are, unopened.
        passthrough: Several<Passed> = Several::default(),
        /// Networks of proxies before this one. What they say of their clients (`X-Forwarded-For` and its like) is
        /// believed and kept; what others say is replaced.
        trusted: Several<NetworkItem> = Several::default(),
        /// The field by which they say whose a request is: the last address in it that is not in `trusted`. That is the
        /// client, for limits, balancing and the log.
        client_field: ClientField = ClientField::XForwardedFor,
        /// Whether each connection begins with a header of the PROXY protocol (version 1 or 2) that says whose it is. Who
        /// is not in `trusted` is refused then.
        accept_proxy: bool = false,
    }
}

section! {
    /// See [`Proxy::certificate`].
    pub struct ProxyCertificate requires [cert, key] {
        /// The certificate and those that signed it, in PEM. It is shown for the DNS names in it; the first of all to
        /// clients that ask for no name.
        cert: PathBuf = PathBuf::from("shop.pem"),
        /// Its private key, in PEM.
        key: PathBuf = PathBuf::from("shop.key"),
    }
}

section! {
    /// See [`Proxy::service`].
    pub struct ProxyService requires [name] {
        /// The name.
        name: Name = Name::of("shop"),
        /// Its instances. Without any, those that are registered under its name (`services.enabled`).
        endpoints: Several<EndpointItem> = Several::default(),
        /// How one of them is chosen for a request.
        policy: Balance = Balance::PeakEwma,
        /// How long an endpoint that comes has less than its share, in milliseconds. 0: not.
        slow_start_ms: Number<0, MS_MAX> = Number::of(0),
        /// How long a connection to an endpoint may take to be made, in milliseconds.
        connect_ms: Number<1, MS_MAX> = Number::of(1_000),
        /// How long a connection is kept for the next request, in milliseconds. 0: not.
        keep_ms: Number<0, MS_MAX> = Number::of(55_000),
        /// Connections that each thread keeps for an endpoint.
        keep_max: Number<0, 100_000> = Number::of(256),
        /// Requests under way at once, of each thread; more wait if they may (`queue_max`), or are answered 503.
        requests_max: Number<1, 1_000_000> = Number::of(1_024),
        /// Whether the number of requests under way is learnt, from `requests_min` to `requests_max`: it follows what the
        /// service ends in a second and how long that takes, so that requests wait here, by their priority (`queue_max`),
        /// and not at the service. Not for services whose requests wait for something to happen (long polls).
        adaptive: bool = false,
        /// The fewest that may be learnt, of each thread. Only with `adaptive`.
        requests_min: Number<1, 1_000_000> = Number::of(1),
        /// Requests that may wait for that, of each thread; more are answered 503, the least important ones first. 0: none.
        queue_max: Number<0, 100_000> = Number::of(0),
        /// How long one may wait before it is answered 503, in milliseconds. Who would wait longer, as it looks, is
        /// answered so at once.
        queue_ms: Number<1, MS_MAX> = Number::of(1_000),
        /// Requests that wait for a connection to be made, at once; more are answered 503.
        pending_max: Number<1, 1_000_000> = Number::of(1_024),
        /// The circuit breaker opens when more than so many per cent of requests failed in `breaker_window_ms`. 100: never.
        breaker_percent: Number<1, 100> = Number::of(50),
        /// It does not judge fewer requests than this.
        breaker_requests: Number<1, 1_000_000> = Number::of(20),
        /// The time that it looks back to, in milliseconds.
        breaker_window_ms: Number<10, MS_MAX> = Number::of(10_000),
        /// How long it stays open the first time, in milliseconds.
        breaker_open_ms: Number<1, MS_MAX> = Number::of(1_000),
        /// An endpoint with so many failures in a row is left out for a while. 0: never.
        outlier_failures: Number<0, 1_000_000> = Number::of(5),
        /// How long it is left out the first time, in milliseconds.
        outlier_ms: Number<1, MS_MAX> = Number::of(5_000),
        /// Endpoints that may be left out at once, in per cent.
        outlier_percent: Number<0, 100> = Number::of(50),
        /// Requests go to all endpoints when fewer than so many per cent of them are left. 0: never.
        panic_percent: Number<0, 100> = Number::of(0),
        /// Retries that the service gets beside its requests, in per cent.
        retry_percent: Number<0, 100> = Number::of(20),
        /// What endpoints speak. Calls of gRPC need `http2`.
        protocol: Asked = Asked::Http1,
        /// Whether connections to endpoints are made with TLS (1.2 or 1.3).
        tls: bool = false,
        /// Whether its instances are reached at such listeners of their nodes (`mutual` of a listener), in TLS 1.3 in which
        /// both ends prove their nodes' keys. A registered instance must be at the node that has registered it; behind one of
        /// `endpoints` any member may be. Not together with `tls`.
        mutual: bool = false,
        /// Authorities, one of which must have signed an endpoint's certificate (a file in PEM).
        tls_ca: PathBuf = PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
        /// The name that an endpoint's certificate must be made out to, and that it is asked for. Without one it is the
        /// endpoint's address.
        tls_name: Option<One<TlsName>> = None,
        /// A certificate that endpoints are shown, in PEM.
        tls_cert: Option<PathBuf> = None,
        /// Its private key.
        tls_key: Option<PathBuf> = None,
        /// Whether each connection to an endpoint begins with a header of the PROXY protocol that says whose it is: `no`,
        /// `v1` or `v2`. A connection is kept for its client then. Not with HTTP/2.
        send_proxy: SendProxy = SendProxy::No,
        /// A cookie that keeps a client at the endpoint of its first request, for as long as that may be used; its name.
        /// It says nothing of where the endpoint is.
        sticky_cookie: Option<One<CookieName>> = None,
        /// How long a client keeps it, in seconds. 0: as long as it runs.
        sticky_ttl_s: Number<0, 31_536_000> = Number::of(0),
        /// Tries of a connection that is passed through (`tcp`).
        tries: Number<1, 10> = Number::of(3),
    }
}

section! {
    /// See [`Proxy::route`].
    pub struct ProxyRoute requires [service] {
        /// A name for metrics. Without one it is made of the host and the path.
        name: Option<Name> = None,
        /// Where its requests go: a service, or several with their parts.
        service: Several<Share> = Several::default(),
        /// A service that gets copies of its requests, perhaps of a part in per cent. What it answers nobody gets, and it
        /// neither delays nor fails a request. Bodies beyond 64 KiB are not copied.
        mirror: Option<One<MirrorItem>> = None,
        /// The host: a name, `*.example.org` for all below one, or `*`.
        host: One<Host> = One(Host::default()),
        /// The path and all below it.
        path: One<RoutePath> = One(RoutePath::default()),
        /// Only this path, and none below it.
        exact: bool = false,
        /// Methods; without any all.
        methods: Several<Method> = Several::default(),
        /// Header fields that a request must have.
        headers: Several<FieldItem> = Several::default(),
        /// What stands in the place of `path` when the request is sent on.
        rewrite: Option<One<RoutePath>> = None,
        /// Tries of a request that may be sent twice (GET, HEAD, OPTIONS, PUT, DELETE, TRACE), the first one included.
        tries: Number<1, 10> = Number::of(3),
        /// How long an endpoint may take to answer, in milliseconds.
        try_ms: Number<1, MS_MAX> = Number::of(5_000),
        /// How long all tries together may take, in milliseconds, without the time in the service's queue (`queue_max`).
        total_ms: Number<1, MS_MAX> = Number::of(15_000),
        /// The first retry waits up to this, the next up to twice as long, in milliseconds.
        backoff_ms: Number<0, MS_MAX> = Number::of(25),
        /// Answers after which such a request is sent again.
        retry_on: Several<StatusItem> = Several(vec![StatusItem(502), StatusItem(503), StatusItem(504)]),
        /// Requests in a second; more are answered 429. 0: no limit.
        rate: Number<0, 1_000_000> = Number::of(0),
        /// Requests that may come at one moment.
        rate_burst: Number<1, 1_000_000> = Number::of(100),
        /// Whose rate it is.
        rate_key: One<KeyItem> = One(KeyItem::default()),
        /// Who goes first of those that wait for a service (`queue_max`): `high`, then `normal`, then `low`. Where all
        /// places are taken the last of the lowest ones gives its own to a higher one.
        priority: Class = Class::Normal,
        /// What keeps requests at one endpoint, if the service's policy is `maglev` or `ring`.
        hash: One<KeyItem> = One(KeyItem(KeyOf::Client)),
        /// Whose requests it takes, of clients that come to a listener with `mutual`: names of members
        /// (`spiffe://CLUSTER/node/NODE`), ids of nodes, or `members` for all of them. Others are answered 403. Without any
        /// everybody's.
        allow: Several<AllowItem> = Several::default(),
        /// Whether connections may change their protocol, as WebSocket does.
        upgrade: bool = false,
        /// Whether CONNECT leads through to an endpoint of the service.
        connect: bool = false,
    }
}

words! {
    /// What clients of a listener speak.
    pub enum Protocol {
        /// HTTP/1.1, and HTTP/2 of clients that begin with it or agree on it in TLS.
        Http = "http",
        /// Anything.
        Tcp = "tcp",
    }
}

words! {
    /// By which field the proxies before this one say whose a request is.
    pub enum ClientField {
        /// `X-Forwarded-For`.
        XForwardedFor = "x-forwarded-for",
        /// `Forwarded` (RFC 7239).
        Forwarded = "forwarded",
    }
}

words! {
    /// What an endpoint is told of whose a connection is.
    pub enum SendProxy {
        /// Nothing.
        No = "no",
        /// Version 1 of the PROXY protocol, a line.
        V1 = "v1",
        /// Version 2, which is binary.
        V2 = "v2",
    }
}

words! {
    /// How important a route's requests are.
    pub enum Class {
        /// Others go first.
        Low = "low",
        /// As most are.
        Normal = "normal",
        /// They go first.
        High = "high",
    }
}

words! {
    /// What endpoints of a service speak.
    pub enum Asked {
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2, without TLS too.
        Http2 = "http2",
    }
}

words! {
    /// How an endpoint is chosen.
    pub enum Balance {
        /// The least expected wait.
        PeakEwma = "peak-ewma",
        /// One after the other.
        RoundRobin = "round-robin",
        /// The same by weight.
        Weighted = "weighted",
        /// By chance and weight.
        Random = "random",
        /// The fewest requests under way.
        Least = "least",
        /// The less busy of two.
        TwoChoices = "two-choices",
        /// By a hash, the same as long as it is there.
        Maglev = "maglev",
        /// By a hash, unless it is overloaded.
        Ring = "ring",
    }
}

impl Balance {
    /// The policy of that name.
    #[must_use]
    pub const fn policy(self) -> Policy {
        match self {
            Balance::PeakEwma => Policy::PeakEwma,
            Balance::RoundRobin => Policy::RoundRobin,
            Balance::Weighted => Policy::WeightedRoundRobin,
            Balance::Random => Policy::Random,
            Balance::Least => Policy::LeastRequests,
            Balance::TwoChoices => Policy::TwoChoices,
            Balance::Maglev => Policy::Maglev,
            Balance::Ring => Policy::Ring,
        }
    }
}
