//! The configuration: what can be set, what it is when nothing is said, and what each thing means.
//!
//! The structs below are the only list. The reference page, `archipel config reference`, the names of the
//! environment variables and the messages of errors come from them. Sources, later ones win: defaults, the
//! file, `ARCHIPEL_SECTION__KEY` variables, flags.

pub(crate) mod check;
pub(crate) mod items;
mod load;
pub(crate) mod otlp;
mod places;
mod prefixes;
pub mod proxy;
mod recursors;
mod reference;
pub(crate) mod section;
#[cfg(test)]
mod tests;
mod value;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use load::{ConfigError, Loaded, Origin, Sources};
pub use otlp::Otlp;
pub use places::{Peers, Places};
pub use prefixes::Prefixed;
pub use proxy::Proxy;
pub use recursors::Recursors;
pub use reference::reference;
pub use value::{
    Access, Address, Bytes, Durability, Eviction, Format, Level, Mode, Name, Number, PortOffset, Secret,
};

use kernel::{Spoken, Version};
use node::PARTITIONS_MAX;
use placement::solve::COPIES_MAX;
use section::section;

/// Redis's logical databases: they exist whether or not they are configured.
pub const KEYSPACES: u64 = 16;

section! {
    /// Everything that can be set.
    pub struct Config {
        /// Where the node keeps its files. One process at a time uses it.
        data_dir: PathBuf = PathBuf::from("./archipel-data"),
        /// Added to every port of the node, so that several nodes fit on one machine.
        port_offset: PortOffset = PortOffset::default(),
        /// What the node says about itself, on stderr.
        log: Log = Log::default(),
        /// The port for Redis clients.
        redis: Redis = Redis::default(),
        /// The port for health, metrics and `archipel node status`. It asks for no password, so it
        /// listens on a loopback address only.
        admin: Admin = Admin::default(),
        /// The overlay: peers of libp2p that find each other, and a hash table among them (`archipel p2p`).
        p2p: P2p = P2p::default(),
        /// The registry of services that run beside this node: who registers, where others find them, how they are.
        services: Services = Services::default(),
        /// The port for clients of Consul's HTTP API, which register services and find them.
        consul: Consul = Consul::default(),
        /// The port at which services are found by DNS, over UDP and TCP.
        dns: Dns = Dns::default(),
        /// The proxy: requests of HTTP, or connections of TCP, to services. SIGHUP has the node read its configuration again
        /// and follow what changed here; one that is refused changes nothing. In a cluster, services and routes here count
        /// as long as no member was told others (`archipel mesh apply`), and listeners as long as those have none.
        proxy: Proxy = Proxy::default(),
        /// What is sent to a collector of OpenTelemetry, by OTLP over HTTP in JSON: spans of requests to the proxy, and the
        /// node's metrics. A change needs a restart, but for `sample`.
        otlp: Otlp = Otlp::default(),
        /// What makes this node one of several.
        cluster: Cluster = Cluster::default(),
        /// The log and the engine on disk.
        storage: Storage = Storage::default(),
        /// A keyspace is a Redis database (`SELECT id`). Databases 0 to 15 exist from the start, with the
        /// values below; a table like this one changes one of them.
        keyspace: Vec<Keyspace> = Vec::new(),
    }
}

section! {
    /// See [`Config::log`].
    pub struct Log {
        /// The least important message that is written.
        level: Level = Level::Info,
        /// Lines for people, or one JSON object a line.
        format: Format = Format::Text,
    }
}

section! {
    /// See [`Config::redis`].
    pub struct Redis {
        /// The address to listen on. Another than a loopback address needs `requirepass` or users.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(6379),
        /// The certificate chain, a PEM file. With it the port speaks TLS and nothing else.
        tls_cert: Option<PathBuf> = None,
        /// The private key of that certificate, a PEM file.
        tls_key: Option<PathBuf> = None,
        /// Most clients at once; more are told so and disconnected.
        clients_max: Number<1, 1_000_000> = Number::of(10_000),
        /// The password of the user `default`.
        requirepass: Option<Secret> = None,
        /// Who may enter with which name (`AUTH name password`); each may do everything.
        users: Vec<User> = Vec::new(),
    }
}

section! {
    /// One user of the Redis port.
    pub struct User requires [name, password] {
        /// The name, as in `AUTH name password`.
        name: Name = Name::of("ann"),
        /// The password.
        password: Secret = Secret::of("change me"),
    }
}

section! {
    /// See [`Config::admin`].
    pub struct Admin {
        /// The address to listen on, a loopback address.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(7400),
    }
}

section! {
    /// See [`Config::p2p`].
    pub struct P2p {
        /// Whether the node takes part.
        enabled: bool = false,
        /// The address to listen on. Both ends of a connection prove their keys; anybody may have one.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(7402),
        /// Where other peers are told to reach this one, if that is not `bind` and `port`: behind a translated
        /// address, or when `bind` is all addresses.
        announce: Places = Places::default(),
        /// Peers that are dialled at the start and as long as none is known, besides those that were known before.
        peers: Places = Places::default(),
        /// Whether the node stands on the ring of Archipel's nodes (`--overlay chord`). Its members believe each other about
        /// who owns a key, and values are signed; among strangers use the default overlay.
        chord: bool = true,
        /// Whether signed broadcasts are taken, passed on and made by gossipsub (`--via gossip`).
        gossip: bool = false,
        /// Whether connections are taken and made over QUIC too, at the same port of UDP. It costs some megabytes, and each peer
        /// with both is dialled by both ways.
        quic: bool = false,
        /// Whether peers are looked for in the local network, by mDNS. It tells everyone there that this node exists.
        mdns: bool = false,
        /// Whether others are asked to find out if this node can be reached (AutoNAT), and those behind a NAT are dialled
        /// at the same time as they dial.
        nat: bool = false,
        /// Whether this node, which others can reach, relays for those that cannot be, within small limits, and tests for
        /// others whether they can.
        relay: bool = false,
        /// Relays through which this node is to be reached if it is behind a NAT, each with its peer's id.
        relays: Places = Places::default(),
        /// The only peers that are connected to, in a closed overlay; all if there is none.
        allow: Peers = Peers::default(),
    }
}

section! {
    /// See [`Config::services`].
    pub struct Services {
        /// Whether the node has a registry, with the ports of the sections `consul` and `dns`. Members of a cluster tell
        /// each other what is registered.
        enabled: bool = false,
        /// What the node is called there. Without one it is `archipel-` and the first digits of its key.
        node_name: Option<Name> = None,
        /// Where the services of this node are reached, unless they say it themselves. Without one it is
        /// `cluster.advertise`, or else the address at which the node listens.
        address: Option<Address> = None,
        /// What the cluster is called as a datacenter, which Consul's clients ask for and names of DNS may have.
        datacenter: Name = Name::of("dc1"),
    }
}

section! {
    /// See [`Config::consul`].
    pub struct Consul {
        /// The address to listen on. Another than a loopback address needs `tokens`, and nothing for who gives none.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(8500),
        /// The keyspace in which keys, sessions and locks of Consul's clients are, under names that begin with `{consul}:`.
        /// They are as durable and have as many copies as that says.
        keyspace: Number<0, 15> = Number::of(15),
        /// What a request without a token may do of services and of keys, once there are `tokens`.
        anonymous: Access = Access::None,
        /// Who may ask. Without any, everybody who reaches the port may do everything; with some, a request gives one as Consul's
        /// clients do (`X-Consul-Token`, `Authorization: Bearer`, `?token=`). DNS asks for none.
        tokens: Vec<Token> = Vec::new(),
    }
}

section! {
    /// One token of the port for Consul's clients.
    pub struct Token requires [name, secret] {
        /// What it is called where it is refused.
        name: Name = Name::of("web"),
        /// The token.
        secret: Secret = Secret::of("change me"),
        /// What it allows of services: the agent, the catalog, health, events. Without it that is `write`, or `none` where
        /// `service_prefix` says of which services something is allowed.
        services: Option<Access> = None,
        /// What it allows of services whose names have a prefix; the longest prefix counts. Of what is listed it has the services
        /// that it may read; what concerns all services or the node itself needs the right to write all.
        service_prefix: items::Several<Prefixed> = items::Several::default(),
        /// What it allows of keys, and of sessions.
        keys: Access = Access::None,
        /// The same of keys with a prefix. Sessions may be used by whoever has some key to use.
        key_prefix: items::Several<Prefixed> = items::Several::default(),
    }
}

section! {
    /// See [`Config::dns`].
    pub struct Dns {
        /// The address to listen on. Names of the domain are answered to everybody who reaches it; for what is asked of others
        /// see `recursors`.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(8600),
        /// The domain below which names are: NAME.service.DOMAIN, NODE.node.DOMAIN.
        domain: Name = Name::of("consul"),
        /// For how long an answer may be kept, in seconds.
        ttl: Number<0, 86_400> = Number::of(0),
        /// For how long it may be kept that there is no such name, in seconds.
        negative_ttl: Number<0, 86_400> = Number::of(0),
        /// Servers that are asked for names outside of the domain, in this order, for clients at loopback and private addresses.
        /// Without any, such questions are refused.
        recursors: Recursors = Recursors::default(),
    }
}

section! {
    /// See [`Config::cluster`].
    pub struct Cluster {
        /// Whether the node is a member of a cluster (the flag `--cluster`). A node that is in none makes one, with
        /// the data that it has, and is its first member; others join it with a token of `archipel cluster token`. Who
        /// is a member stays one. A member has one worker (`storage.workers = 1`).
        enabled: bool = false,
        /// What fails together with this node, such as a machine, a rack or a site (the flag `--zone`). Copies of data are
        /// spread over the zones.
        zone: Name = Name::of("default"),
        /// The address to listen on for other members. Both ends of a link prove their keys, so it may be one that
        /// others can reach without more.
        bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port for other members, before `port_offset` is added. 0 is any free one.
        port: Number<0, 65_535> = Number::of(7401),
        /// Where other members reach this port, if that is not `bind`. It must be given when `bind` is all addresses.
        advertise: Option<Address> = None,
        /// The port for clients that know Redis Cluster (`redis-cli -c`), before `port_offset` is added; at the address
        /// `redis.bind`. They use the first keyspace that has several partitions. 0 is any free one.
        redis_port: Number<0, 65_535> = Number::of(6380),
        /// Whether the overlay is told where the members are, so that newcomers find them (`archipel node start --find`). Everyone
        /// in the overlay can read it; joining needs a token all the same.
        rendezvous: bool = false,
        /// The newest version of the cluster's formats that this node speaks, as if it were older; 0 is all that it knows.
        /// A cluster is raised to a version once all members speak it, and does not go back: pin the older one on a
        /// member while you exchange them, until you are sure that none will be exchanged back. `archipel cluster members`
        /// says who speaks what.
        version: Number<0, { Version::NEWEST.0 as u64 }> = Number::of(0),
    }
}

impl Cluster {
    /// What this node speaks; `None` if it is pinned at a version that it does not know.
    #[must_use]
    pub fn spoken(&self) -> Option<Spoken> {
        match self.version.get() {
            0 => Some(Spoken::ALL),
            version => Spoken::pinned(Version(u8::try_from(version).ok()?)),
        }
    }
}

section! {
    /// See [`Config::storage`].
    pub struct Storage {
        /// Threads that serve clients. Clients are given to them in turn. Keyspace `n` belongs to thread `n`
        /// modulo their number, or its partitions are spread over them; keys cannot be moved or copied between
        /// different threads, and SWAPDB is offered with one thread only.
        workers: Number<1, 16> = Number::of(1),
        /// Gives each worker a core of its own, as long as there are cores that no other node has taken; one
        /// core is always left to everything else. Without, the kernel moves them about.
        pin_workers: bool = true,
        /// The size of one file of the log, whole pages of 4 KiB. Two to four such files are on the disk even when
        /// the node is empty.
        segment_bytes: Bytes<{ 16 << 10 }, { 1 << 30 }> = Bytes::of(64 << 20),
        /// Free disk space that is left alone: below it writes are refused until space returns.
        reserve_bytes: Bytes<0, { 1 << 50 }> = Bytes::of(64 << 20),
        /// How much log may be written before a checkpoint shortens it. More means fewer checkpoints and
        /// a longer restart.
        checkpoint_bytes: Bytes<{ 1 << 20 }, { 1 << 50 }> = Bytes::of(256 << 20),
        /// Most log that is kept for the next backup only (`archipel cluster backup`), so that it can restore every moment
        /// since the one before; it is read at the next start, too. Beyond that the oldest goes, and before a full disk or
        /// `disk_quota` refuses a write all of it; then the next backup has a gap there. 0 keeps none.
        archived_log_bytes: Bytes<0, { 1 << 50 }> = Bytes::of(1 << 30),
        /// Memory in which the engine keeps blocks of its files, besides the keyspaces' own.
        cache_bytes: Bytes<{ 1 << 20 }, { 1 << 50 }> = Bytes::of(32 << 20),
        /// Most disk space that the data directory may take: above it writes are refused. 0 is no limit.
        disk_quota: Bytes<0, { 1 << 60 }> = Bytes::of(0),
    }
}

section! {
    /// See [`Config::keyspace`].
    pub struct Keyspace requires [id] {
        /// The number of the database.
        id: Number<0, 15> = Number::of(0),
        /// A name for people and metrics. Without one it is `db` and the number.
        name: Option<Name> = None,
        /// Who may write where. This version has `primary`: one order of all writes, nothing lost.
        mode: Mode = Mode::Primary,
        /// When a write is answered: `always` waits until it is on disk, `everysec` syncs once a second,
        /// so that a power cut may take the last second.
        durability: Durability = Durability::Always,
        /// Parts into which its keys are divided by their Redis slot; part `p` of keyspace `n` belongs to worker
        /// `n + p` modulo their number. With several, commands on keys of different parts are refused with
        /// CROSSSLOT, unless the keys have one hash tag, or the command can be divided (MGET, MSET, DEL, UNLINK,
        /// EXISTS, TOUCH), and then it is not atomic. Data that was written cannot be given another number.
        partitions: Number<1, { PARTITIONS_MAX as u64 }> = Number::of(1),
        /// How many members of a cluster keep each part: with 3, one of them may fail at any time and nothing stops.
        /// All of them, if there are fewer. Without meaning outside a cluster.
        copies: Number<1, { COPIES_MAX as u64 }> = Number::of(3),
        /// Memory for its entries, in equal shares for its partitions; beyond it, entries that are on disk leave
        /// memory and are read back when they are asked for. 0 is no limit.
        memory: Bytes<0, { 1 << 50 }> = Bytes::of(0),
        /// Which keys are deleted, as in a cache, when `memory` is used up. `noeviction` deletes none.
        eviction: Eviction = Eviction::Noeviction,
    }
}

impl Config {
    /// Where Redis clients connect.
    #[must_use]
    pub fn redis_address(&self) -> SocketAddr {
        SocketAddr::new(self.redis.bind, self.shifted(self.redis.port.get()))
    }

    /// Where the admin port is.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.admin.bind, self.shifted(self.admin.port.get()))
    }

    /// Where peers of the overlay connect.
    #[must_use]
    pub fn p2p_address(&self) -> SocketAddr {
        SocketAddr::new(self.p2p.bind, self.shifted(self.p2p.port.get()))
    }

    /// Where Consul's clients connect.
    #[must_use]
    pub fn consul_address(&self) -> SocketAddr {
        SocketAddr::new(self.consul.bind, self.shifted(self.consul.port.get()))
    }

    /// Where questions of DNS are answered.
    #[must_use]
    pub fn dns_address(&self) -> SocketAddr {
        SocketAddr::new(self.dns.bind, self.shifted(self.dns.port.get()))
    }

    /// Where clients of Redis Cluster connect.
    #[must_use]
    pub fn cluster_clients_address(&self) -> SocketAddr {
        SocketAddr::new(self.redis.bind, self.shifted(self.cluster.redis_port.get()))
    }

    /// Where other members connect.
    #[must_use]
    pub fn cluster_address(&self) -> SocketAddr {
        SocketAddr::new(self.cluster.bind, self.shifted(self.cluster.port.get()))
    }

    /// A port with the offset; 0, any free one, stays 0.
    pub(crate) fn shifted(&self, port: u64) -> u16 {
        let port = if port == 0 { 0 } else { port + self.port_offset.get() };
        u16::try_from(port).expect("a checked configuration has no port above 65535")
    }

    /// All keyspaces, in the order of their numbers.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<Keyspace> {
        let configured = |id| self.keyspace.iter().find(|keyspace| keyspace.id.get() == id);
        (0..KEYSPACES)
            .map(|id| {
                let fresh = || Keyspace { id: Number::of(id), ..Keyspace::default() };
                configured(id).cloned().unwrap_or_else(fresh)
            })
            .collect()
    }

    /// Whether Redis clients must say who they are.
    #[must_use]
    pub fn needs_password(&self) -> bool {
        self.redis.requirepass.is_some() || !self.redis.users.is_empty()
    }
}

impl Token {
    /// What it allows of services that no prefix names.
    #[must_use]
    pub fn of_services(&self) -> Access {
        let usual = if self.service_prefix.0.is_empty() { Access::Write } else { Access::None };
        self.services.unwrap_or(usual)
    }
}

impl Consul {
    /// What commands of this machine give: the first token that may do most with services.
    #[must_use]
    pub fn own_token(&self) -> Option<&Secret> {
        let may = |access| self.tokens.iter().find(move |token| token.of_services() == access);
        may(Access::Write).or_else(|| may(Access::Read)).map(|token| &token.secret)
    }
}

impl Keyspace {
    /// Its name, or `db` and its number.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| format!("db{}", self.id.get()), |name| name.as_str().to_owned())
    }
}
