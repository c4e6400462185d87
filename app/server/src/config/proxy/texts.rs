//! Settings of the proxy that are one text of a grammar of their own.

use std::net::SocketAddr;

use kernel::NodeId;
use mesh::route::{HostRule, PathRule};
use mesh::source::Network;
use mesh::spiffe::{NodeName, node_id};
use proxy::KeyOf;
use rustls::pki_types::ServerName;

use super::super::items::Item;
use super::super::section::Value;
use super::super::value::Name;

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

/// `members`, a node's name or its id: who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowItem {
    /// All members of the cluster.
    Members,
    /// The one of this name.
    Name(NodeName),
    /// The one with this id, in whichever cluster this node is.
    Node(NodeId),
}

impl Item for AllowItem {
    const ALLOWED: &'static str =
        "a member's name (\"spiffe://CLUSTER/node/NODE\", as ids are written), a node's id, or \"members\"";
    const MAX: usize = 1_000;

    fn read(text: &str) -> Option<AllowItem> {
        match text {
            "members" => Some(AllowItem::Members),
            _ => {
                NodeName::parse(text).map(AllowItem::Name).ok().or_else(|| node_id(text).map(AllowItem::Node))
            }
        }
    }

    fn show(&self) -> String {
        match self {
            AllowItem::Members => "members".to_owned(),
            AllowItem::Name(name) => name.to_string(),
            AllowItem::Node(node) => node.to_string(),
        }
    }
}

/// `10.0.0.0/8`: where proxies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkItem(pub Network);

impl Item for NetworkItem {
    const ALLOWED: &'static str = "a network or an address, such as \"10.0.0.0/8\" or \"::1\"";
    const MAX: usize = 256;

    fn read(text: &str) -> Option<NetworkItem> {
        Network::read(text).ok().map(NetworkItem)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// `shadow` or `shadow 10`: a service and of how many requests it gets a copy, in per cent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorItem {
    /// The service's name.
    pub service: String,
    /// Per cent of requests.
    pub percent: u8,
}

impl Default for MirrorItem {
    fn default() -> MirrorItem {
        MirrorItem { service: "shadow".to_owned(), percent: 100 }
    }
}

impl Item for MirrorItem {
    const ALLOWED: &'static str = "a service and perhaps a part of the requests from 1 to 100 per cent, such as \"shadow\" or \"shadow 10\"";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<MirrorItem> {
        let (service, percent) = match text.split_once(' ') {
            Some(_) => numbered(text, 100)?,
            None => (text, 100),
        };
        let mut name = Name::default();
        let percent = u8::try_from(percent).ok()?;
        name.parse(service).then(|| MirrorItem { service: service.to_owned(), percent })
    }

    fn show(&self) -> String {
        if self.percent == 100 { self.service.clone() } else { format!("{} {}", self.service, self.percent) }
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

/// The name of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(pub String);

impl Default for CookieName {
    fn default() -> CookieName {
        CookieName("archipel".to_owned())
    }
}

impl Item for CookieName {
    const ALLOWED: &'static str = "a cookie's name such as \"shop\"";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<CookieName> {
        is_token(text).then(|| CookieName(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
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
