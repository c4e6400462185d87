//! The proxy's settings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mesh::balance::Policy;
use mesh::route::{HostRule, PathRule};
use proxy::KeyOf;
use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::items::{Item, One, Several};
use super::section::{Kind, Setting, Value, section};
use super::value::{Name, Number, quoted, setting, words};

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
        /// How long a request's head may take from its first byte, in milliseconds.
        head_ms: Number<1, MS_MAX> = Number::of(10_000),
        /// How long a client may be connected between two requests, in milliseconds.
        idle_ms: Number<1, MS_MAX> = Number::of(60_000),
        /// How long nothing may come or go of a body, in milliseconds.
        body_ms: Number<1, MS_MAX> = Number::of(30_000),
        /// How long nothing may come through a tunnel (TCP, WebSocket, CONNECT), in milliseconds.
        tunnel_ms: Number<1, MS_MAX> = Number::of(3_600_000),
        /// How long requests under way have when the node stops, in milliseconds.
        drain_ms: Number<0, MS_MAX> = Number::of(5_000),
        /// Whether clients are proxies whose `X-Forwarded-For` is believed; otherwise it is replaced.
        trusted: bool = false,
        /// Whether requests without a `traceparent` (W3C Trace Context) get one.
        trace: bool = true,
        /// A file that gets a line of JSON for requests.
        access_log: Option<PathBuf> = None,
        /// One of so many requests has such a line.
        access_sample: Number<1, 1_000_000_000> = Number::of(1),
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
        /// Authorities, one of which must have signed the certificate that a client shows (a file in PEM). Without it
        /// clients show none.
        client_ca: Option<PathBuf> = None,
        /// Names of TLS whose connections go to a service as they are, unopened.
        passthrough: Several<Passed> = Several::default(),
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
        /// Requests under way at once; more are answered 503.
        requests_max: Number<1, 1_000_000> = Number::of(1_024),
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
        /// Authorities, one of which must have signed an endpoint's certificate (a file in PEM).
        tls_ca: PathBuf = PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
        /// The name that an endpoint's certificate must be made out to, and that it is asked for. Without one it is the
        /// endpoint's address.
        tls_name: Option<One<TlsName>> = None,
        /// A certificate that endpoints are shown, in PEM.
        tls_cert: Option<PathBuf> = None,
        /// Its private key.
        tls_key: Option<PathBuf> = None,
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
        /// How long all tries together may take, in milliseconds.
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
        /// What keeps requests at one endpoint, if the service's policy is `maglev` or `ring`.
        hash: One<KeyItem> = One(KeyItem(KeyOf::Client)),
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

/// `this 2` as what it is and its number from 1 to `most`, which is 1 if it is not said.
fn numbered(text: &str, most: u32) -> Option<(&str, u32)> {
    let (what, number) = text.split_once(' ').unwrap_or((text, "1"));
    let number = number.trim().parse().ok().filter(|number| (1..=most).contains(number))?;
    Some((what, number))
}

/// `127.0.0.1:9000` or `127.0.0.1:9000 2`: an address and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointItem {
    /// The address.
    pub address: SocketAddr,
    /// The weight, at least 1.
    pub weight: u16,
}

impl Item for EndpointItem {
    const ALLOWED: &'static str =
        "an address and perhaps a weight from 1 to 1000, such as \"127.0.0.1:9000\" or \"127.0.0.1:9000 2\"";
    const MAX: usize = 1_000;

    fn read(text: &str) -> Option<EndpointItem> {
        let (address, weight) = numbered(text, 1_000)?;
        let address: SocketAddr = address.parse().ok()?;
        let somewhere = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
        somewhere.then_some(EndpointItem { address, weight: u16::try_from(weight).ok()? })
    }

    fn show(&self) -> String {
        if self.weight == 1 { self.address.to_string() } else { format!("{} {}", self.address, self.weight) }
    }
}

/// `shop` or `shop 90`: a service and its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The service's name.
    pub service: String,
    /// Its part beside the others'.
    pub part: u32,
}

impl Item for Share {
    const ALLOWED: &'static str =
        "a service and perhaps its part up to 1000000, such as \"shop\" or \"shop 90\"";
    const MAX: usize = 64;

    fn read(text: &str) -> Option<Share> {
        let (service, part) = numbered(text, 1_000_000)?;
        let mut name = Name::default();
        name.parse(service).then(|| Share { service: service.to_owned(), part })
    }

    fn show(&self) -> String {
        if self.part == 1 { self.service.clone() } else { format!("{} {}", self.service, self.part) }
    }
}

/// `db.example.org db`: a name, or a pattern of names, and the service that its connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The names.
    pub host: HostRule,
    /// The service's name.
    pub service: String,
}

impl Item for Passed {
    const ALLOWED: &'static str =
        "a host and a service, such as \"db.example.org db\", \"*.example.org db\" or \"* db\"";
    const MAX: usize = 1_000;

    fn read(text: &str) -> Option<Passed> {
        let (host, service) = text.split_once(' ')?;
        let host = HostRule::read(host).ok()?;
        let mut name = Name::default();
        name.parse(service.trim()).then(|| Passed { host, service: name.as_str().to_owned() })
    }

    fn show(&self) -> String {
        format!("{} {}", Host(self.host.clone()).show(), self.service)
    }
}

/// A name that a certificate is made out to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(pub ServerName<'static>);

impl Default for TlsName {
    fn default() -> TlsName {
        TlsName(ServerName::try_from("localhost").expect("localhost is a name"))
    }
}

impl Item for TlsName {
    const ALLOWED: &'static str = "a name or an address, such as \"shop.example.org\" or \"10.0.0.1\"";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<TlsName> {
        ServerName::try_from(text.to_owned()).ok().map(TlsName)
    }

    fn show(&self) -> String {
        self.0.to_str().into_owned()
    }
}

/// Hosts of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host(pub HostRule);

impl Item for Host {
    const ALLOWED: &'static str = "a host such as \"shop.example.org\", \"*.example.org\" or \"*\"";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<Host> {
        HostRule::read(text).ok().map(Host)
    }

    fn show(&self) -> String {
        match &self.0 {
            HostRule::Any => "*".to_owned(),
            HostRule::Exact(name) => name.to_string(),
            HostRule::Under(suffix) => format!("*{suffix}"),
        }
    }
}

/// A path of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath(pub String);

impl Default for RoutePath {
    fn default() -> RoutePath {
        RoutePath("/".to_owned())
    }
}

impl Item for RoutePath {
    const ALLOWED: &'static str = "a path such as \"/api\", of printable ASCII without ? and #";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<RoutePath> {
        PathRule::exact(text).ok().map(|_| RoutePath(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Longest method or name of a field, in bytes.
const TOKEN_BYTES_MAX: usize = 256;

fn is_token(text: &str) -> bool {
    text.len() <= TOKEN_BYTES_MAX && wire::http1::is_token(text)
}

/// A method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(pub String);

impl Item for Method {
    const ALLOWED: &'static str = "a method such as \"GET\"";
    const MAX: usize = 32;

    fn read(text: &str) -> Option<Method> {
        is_token(text).then(|| Method(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A header field that a request must have, perhaps with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldItem {
    /// Its name in lower case.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

impl Item for FieldItem {
    const ALLOWED: &'static str =
        "a field that is there, or one with its value, such as \"x-beta\" or \"x-beta: yes\"";
    const MAX: usize = 16;

    fn read(text: &str) -> Option<FieldItem> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim().to_owned())),
            None => (text, None),
        };
        is_token(name).then(|| FieldItem { name: name.to_ascii_lowercase(), value })
    }

    fn show(&self) -> String {
        self.value.as_ref().map_or_else(|| self.name.clone(), |value| format!("{}: {value}", self.name))
    }
}

/// A status of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusItem(pub u16);

impl Item for StatusItem {
    const ALLOWED: &'static str = "a status from 500 to 599, such as \"503\"";
    const MAX: usize = 32;

    fn read(text: &str) -> Option<StatusItem> {
        text.parse().ok().filter(|status| (500..600).contains(status)).map(StatusItem)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// What requests have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyItem(pub KeyOf);

impl Default for KeyItem {
    fn default() -> KeyItem {
        KeyItem(KeyOf::Route)
    }
}

impl Item for KeyItem {
    const ALLOWED: &'static str =
        "\"route\", \"client\" (its address), or a header field such as \"header x-user\"";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<KeyItem> {
        match text {
            "route" => Some(KeyItem(KeyOf::Route)),
            "client" => Some(KeyItem(KeyOf::Client)),
            _ => {
                let name = text.strip_prefix("header ")?;
                is_token(name).then(|| KeyItem(KeyOf::Field(name.to_ascii_lowercase())))
            }
        }
    }

    fn show(&self) -> String {
        match &self.0 {
            KeyOf::Route => "route".to_owned(),
            KeyOf::Client => "client".to_owned(),
            KeyOf::Field(name) => format!("header {name}"),
        }
    }
}
