//! Services by name: what a question of DNS is answered from the registry.
//!
//! | name, below the domain | what it is |
//! |---|---|
//! | `NAME.service` | the usable instances of a service: A, AAAA, SRV, TXT (metadata) |
//! | `TAG.NAME.service` | those with a tag |
//! | `_NAME._tcp.service`, `_NAME._TAG.service` | the same in the form of RFC 2782; `_tcp` and `_udp` are no tags |
//! | `NODE.node` | a node: A or AAAA, TXT (metadata) |
//! | `HEX.addr` | the address that stands in the name: what an SRV record points to |
//!
//! The datacenter may stand behind `service`, `node` and `addr`. A name that nobody has, or whose instances are all critical, is
//! NXDOMAIN; one that has nothing of the wanted type is NODATA; both carry the SOA record. What is outside the domain is
//! refused, except addresses that are known here (PTR), or asked of others ([`forward`]).

pub mod forward;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use kernel::Rng;
use mesh::registry::{Entry, Host, View};
use wire::dns::{Data, Kind, Name, NameError, Query, QueryError, Rcode, Response, Section, TCP_BYTES_MAX};

/// Records of one answer, at most.
pub const RECORDS_MAX: usize = 256;

/// Where names are answered, and for how long that may be kept.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: Name,
    datacenter: String,
    /// For how long an answer may be kept, in seconds.
    pub ttl: u32,
    /// For how long it may be kept that there is none, in seconds.
    pub negative_ttl: u32,
    /// What is outside is asked of others by the host.
    pub forwards: bool,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: what does not fit is asked again over TCP.
    Udp,
    /// Over a connection.
    Tcp,
}

/// What there is under a name.
enum Found {
    /// No such name.
    Nothing,
    /// The name is there, and has nothing of its own.
    Bare,
    /// The domain itself.
    Apex,
    Service(Vec<Arc<Entry>>),
    Node(Arc<Host>),
    Address(IpAddr),
    /// The names of an address.
    Pointer(Vec<Name>),
    /// None of ours.
    Foreign,
}

impl Zone {
    /// The zone of `domain`, such as `consul`.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn new(domain: &str, datacenter: &str, ttl: u32, negative_ttl: u32) -> Result<Zone, NameError> {
        let (domain, datacenter) = (Name::from_text(domain)?, datacenter.to_string());
        Ok(Zone { domain, datacenter, ttl, negative_ttl, forwards: false })
    }

    /// A name of `labels` in the zone.
    fn name(&self, labels: &[&str]) -> Option<Name> {
        let own = labels.iter().map(|label| label.as_bytes());
        Name::new(own.chain(self.domain.labels())).ok()
    }

    /// Answers `message` behind what `out` has; false if nothing is to be sent. `chance` decides the order of equal records.
    pub fn answer(
        &self,
        view: &View,
        message: &[u8],
        transport: Transport,
        chance: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let query = match Query::decode(message) {
            Ok(query) => query,
            Err(error) => return refuse(error, out),
        };
        let bytes_max = match transport {
            Transport::Udp => query.datagram_bytes_max(),
            Transport::Tcp => TCP_BYTES_MAX,
        };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            Response::new(&query, Rcode::BadVers, bytes_max, out).finish();
            return true;
        }
        // The Internet, or any.
        if query.class != 1 && query.class != 255 {
            Response::new(&query, Rcode::Refused, bytes_max, out).finish();
            return true;
        }
        let found = self.find(view, &query.name);
        let rcode = match &found {
            Found::Nothing => Rcode::NxDomain,
            Found::Foreign => Rcode::Refused,
            Found::Bare
            | Found::Apex
            | Found::Service(_)
            | Found::Node(_)
            | Found::Address(_)
            | Found::Pointer(_) => Rcode::NoError,
        };
        let mut answer = Answer {
            zone: self,
            view,
            query: &query,
            response: Response::new(&query, rcode, bytes_max, out),
            answered: 0,
            extra: Vec::new(),
        };
        answer.fill(&found, chance);
        answer.finish(matches!(found, Found::Foreign));
        true
    }

    fn find(&self, view: &View, name: &Name) -> Found {
        let Some(labels) = name.below(&self.domain) else { return pointer(self, view, name) };
        let labels: Option<Vec<&str>> =
            labels.into_iter().map(|label| core::str::from_utf8(label).ok()).collect();
        let Some(mut labels) = labels else { return Found::Nothing };
        let is = |label: Option<&&str>, word: &str| label.is_some_and(|it| it.eq_ignore_ascii_case(word));
        let is_kind = |label: Option<&&str>| ["service", "node", "addr"].iter().any(|word| is(label, word));
        if labels.is_empty() {
            return Found::Apex;
        }
        if !is_kind(labels.last()) && is(labels.last(), &self.datacenter) {
            labels.pop();
            if labels.is_empty() {
                return Found::Bare;
            }
        }
        match labels.pop() {
            Some(kind) if kind.eq_ignore_ascii_case("service") => services(view, &labels),
            Some(kind) if kind.eq_ignore_ascii_case("node") => match labels[..] {
                [] => Found::Bare,
                [node] => view.host_named(node).map_or(Found::Nothing, |host| Found::Node(Arc::clone(host))),
                _ => Found::Nothing,
            },
            Some(kind) if kind.eq_ignore_ascii_case("addr") => match labels[..] {
                [] => Found::Bare,
                [digits] => unhex(digits).map_or(Found::Nothing, Found::Address),
                _ => Found::Nothing,
            },
            Some(kind) if labels.is_empty() && kind.eq_ignore_ascii_case("ns") => {
                view.hosts().next().map_or(Found::Bare, |host| Found::Node(Arc::clone(host)))
            }
            Some(_) | None => Found::Nothing,
        }
    }
}

fn refuse(error: QueryError, out: &mut Vec<u8>) -> bool {
    match error.answer() {
        Some((id, rcode)) => {
            Response::refusal(id, rcode, out);
            true
        }
        None => false,
    }
}

/// `NAME`, `TAG.NAME`, `_NAME._TAG`.
fn services(view: &View, labels: &[&str]) -> Found {
    let (name, tag) = match labels {
        [] => return Found::Bare,
        [name] => (*name, None),
        [service, tag] if service.starts_with('_') && tag.starts_with('_') => {
            let is_protocol = ["_tcp", "_udp"].iter().any(|it| tag.eq_ignore_ascii_case(it));
            (&service[1..], Some(&tag[1..]).filter(|_| !is_protocol))
        }
        [tag, name] => (*name, Some(*tag)),
        _ => return Found::Nothing,
    };
    // Names are equal whatever their case (RFC 4343), so those of several services may be.
    let named = view.services().filter(|service| service.name.eq_ignore_ascii_case(name));
    let has_tag = |entry: &Entry| {
        tag.is_none_or(|tag| entry.instance.tags.iter().any(|it| it.eq_ignore_ascii_case(tag)))
    };
    let usable = named.flat_map(|service| service.usable());
    let usable: Vec<Arc<Entry>> = usable.filter(|entry| has_tag(entry)).cloned().collect();
    // As in Consul: a client that is told of no such name drops the servers that it knew, one that is told of no data
    // (HAProxy among them) holds on to them.
    if usable.is_empty() { Found::Nothing } else { Found::Service(usable) }
}

/// The names of the address in `4.3.2.1.in-addr.arpa`.
fn pointer(zone: &Zone, view: &View, name: &Name) -> Found {
    let labels: Vec<&[u8]> = name.labels().collect();
    let [d, c, b, a, first, last] = labels[..] else { return Found::Foreign };
    if !first.eq_ignore_ascii_case(b"in-addr") || !last.eq_ignore_ascii_case(b"arpa") {
        return Found::Foreign;
    }
    let octet = |label: &[u8]| core::str::from_utf8(label).ok()?.parse::<u8>().ok();
    let (Some(a), Some(b), Some(c), Some(d)) = (octet(a), octet(b), octet(c), octet(d)) else {
        return Found::Foreign;
    };
    let address = Ipv4Addr::new(a, b, c, d).to_string();
    let nodes = view.hosts().filter(|host| host.node.address == address);
    let names = nodes.filter_map(|host| zone.name(&[&host.node.name, "node", &zone.datacenter]));
    let names: Vec<Name> = names.take(RECORDS_MAX).collect();
    if names.is_empty() { Found::Foreign } else { Found::Pointer(names) }
}

fn unhex(digits: &str) -> Option<IpAddr> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let bytes = bytes.filter(|_| rest.is_empty())?;
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|it| IpAddr::from(*it)),
        16 => bytes.first_chunk::<16>().map(|it| IpAddr::from(*it)),
        _ => None,
    }
}

fn hex(address: IpAddr) -> String {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match address {
        IpAddr::V4(it) => digits(&it.octets()),
        IpAddr::V6(it) => digits(&it.octets()),
    }
}

/// An answer that is being written.
struct Answer<'a, 'b> {
    zone: &'a Zone,
    view: &'a View,
    query: &'a Query,
    response: Response<'b>,
    answered: usize,
    /// What will be asked for next: where SRV records point to.
    extra: Vec<(Name, IpAddr)>,
}

impl Answer<'_, '_> {
    fn wants(&self, kind: Kind) -> bool {
        self.query.kind == kind || self.query.kind == Kind::ANY
    }

    /// Adds a record under the asked name. False if it did not fit.
    fn put(&mut self, data: &Data<'_>) -> bool {
        if self.answered >= RECORDS_MAX {
            return false;
        }
        let fits = self.response.record(Section::Answer, &self.query.name, self.zone.ttl, data);
        self.answered += usize::from(fits);
        fits
    }

    fn put_address(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) if self.wants(Kind::A) => self.put(&Data::A(it.octets())),
            IpAddr::V6(it) if self.wants(Kind::AAAA) => self.put(&Data::Aaaa(it.octets())),
            IpAddr::V4(_) | IpAddr::V6(_) => true,
        }
    }

    /// `key=value` of each pair, one record for each.
    fn put_meta<'m>(&mut self, pairs: impl Iterator<Item = (&'m String, &'m String)>) {
        for (key, value) in pairs {
            let text = format!("{key}={value}");
            let parts: Vec<&[u8]> = text.as_bytes().chunks(255).collect();
            if !self.put(&Data::Txt(&parts)) {
                return;
            }
        }
    }

    fn fill(&mut self, found: &Found, chance: u64) {
        match found {
            Found::Nothing | Found::Bare | Found::Foreign => {}
            Found::Apex => self.apex(),
            Found::Address(address) => drop(self.put_address(*address)),
            Found::Pointer(names) => {
                if self.wants(Kind::PTR) {
                    names.iter().all(|name| self.put(&Data::Ptr(name)));
                }
            }
            Found::Node(host) => {
                self.put_place(&host.node.address);
                if self.wants(Kind::TXT) {
                    self.put_meta(host.node.meta.iter());
                }
            }
            Found::Service(entries) => {
                // Equal ones come in an order by chance, so that clients which take the first are spread.
                let mut entries = entries.clone();
                let mut rng = Rng::new(chance);
                for at in (1..entries.len()).rev() {
                    entries.swap(at, rng.below(at as u64 + 1) as usize);
                }
                self.services(&entries);
            }
        }
    }

    fn apex(&mut self) {
        if let Some(server) = self.zone.name(&["ns"]) {
            if self.wants(Kind::NS) {
                self.put(&Data::Ns(&server));
            }
            if self.wants(Kind::SOA) {
                self.soa(Section::Answer);
                self.answered += 1;
            }
        }
    }

    /// An address as a record, or a host's name as one that is looked up elsewhere.
    fn put_place(&mut self, place: &str) -> bool {
        match place.parse::<IpAddr>() {
            Ok(address) => self.put_address(address),
            Err(_) => match Name::from_text(place) {
                // A name with a CNAME has nothing else.
                Ok(name) if self.answered == 0 && (self.wants(Kind::A) || self.wants(Kind::AAAA)) => {
                    self.put(&Data::Cname(&name))
                }
                Ok(_) | Err(_) => true,
            },
        }
    }

    fn services(&mut self, entries: &[Arc<Entry>]) {
        if self.wants(Kind::SRV) {
            for entry in entries {
                let Some(target) = self.target(entry) else { continue };
                let weight = u16::try_from(entry.weight()).unwrap_or(u16::MAX);
                if !self.put(&Data::Srv { priority: 1, weight, port: entry.port(), target: &target }) {
                    return;
                }
                if let Ok(address) = entry.address().parse() {
                    self.extra.push((target, address));
                }
            }
        }
        if self.wants(Kind::A) || self.wants(Kind::AAAA) {
            let mut places: Vec<&str> = Vec::new();
            for entry in entries {
                // Several instances at one address are one record.
                if !places.contains(&entry.address()) {
                    places.push(entry.address());
                }
            }
            // Addresses first: only without any is a name of any use.
            places.sort_by_key(|place| place.parse::<IpAddr>().is_err());
            if !places.iter().take(RECORDS_MAX).all(|place| self.put_place(place)) {
                return;
            }
        }
        if self.wants(Kind::TXT) {
            for entry in entries {
                self.put_meta(entry.instance.meta.iter());
            }
        }
    }

    /// What an SRV record points to: the node, an address as a name, or a host's name.
    fn target(&self, entry: &Entry) -> Option<Name> {
        let datacenter = self.zone.datacenter.as_str();
        if entry.instance.address.is_empty()
            && let Some(name) = self.zone.name(&[&entry.host.node.name, "node", datacenter])
        {
            return Some(name);
        }
        match entry.address().parse::<IpAddr>() {
            Ok(address) => self.zone.name(&[&hex(address), "addr", datacenter]),
            Err(_) => Name::from_text(entry.address()).ok(),
        }
    }

    fn soa(&mut self, section: Section) {
        let names = (self.zone.name(&["ns"]), self.zone.name(&["hostmaster"]));
        let (Some(server), Some(mailbox)) = names else { return };
        // Grows with every change, and wraps as serial numbers do (RFC 1982): seconds of the index.
        let serial = (self.view.index() / 1_000_000) as u32;
        let negative_ttl = self.zone.negative_ttl;
        let data = Data::Soa { server: &server, mailbox: &mailbox, serial, negative_ttl };
        let ttl = if section == Section::Answer { self.zone.ttl } else { negative_ttl };
        self.response.record(section, &self.zone.domain, ttl, &data);
    }

    fn finish(mut self, is_foreign: bool) {
        if self.zone.forwards {
            self.response.recursion_available();
        }
        if !is_foreign {
            self.response.authoritative();
            if self.answered == 0 {
                self.soa(Section::Authority);
            }
        }
        let mut told: Vec<Name> = Vec::new();
        for (name, address) in core::mem::take(&mut self.extra) {
            if told.contains(&name) {
                continue;
            }
            let data = match address {
                IpAddr::V4(it) => Data::A(it.octets()),
                IpAddr::V6(it) => Data::Aaaa(it.octets()),
            };
            if !self.response.record(Section::Additional, &name, self.zone.ttl, &data) {
                break;
            }
            told.push(name);
        }
        self.response.finish();
    }
}
