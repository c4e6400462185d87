//! Nodes behind network address translation: whether they can be reached, through a relay, and directly by dialling at once.
//!
//! Each test makes networks of its own out of namespaces: `wide`, in which a relay stands, and two homes behind routers
//! that masquerade (nftables) and let nothing in that was not asked for. It needs root, `ip` and `nft`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::process::{PATIENCE, archipel, stderr, stdout};

const RULES: &str = "table ip home {
  chain out { type nat hook postrouting priority 100; oifname \"wan\" masquerade; }
  chain here { type filter hook input priority 0; iifname \"wan\" ct state new drop; }
  chain through { type filter hook forward priority 0; iifname \"wan\" ct state new drop; }
}";

/// Namespaces that are gone when this is dropped.
struct Networks {
    tag: String,
    made: Vec<String>,
}

impl Networks {
    /// A wide network, and so many homes behind routers; or why they cannot be had here.
    fn make(tag: &str, homes: u8) -> Result<Networks, String> {
        let mut networks = Networks { tag: format!("{tag}{}", std::process::id()), made: Vec::new() };
        networks.add("wide")?;
        networks.inside("wide", &["ip", "link", "add", "name", "hub", "type", "bridge"])?;
        networks.inside("wide", &["ip", "addr", "add", "198.51.100.1/24", "dev", "hub"])?;
        networks.inside("wide", &["ip", "link", "set", "hub", "up"])?;
        for home in 1..=homes {
            networks.home(home)?;
        }
        Ok(networks)
    }

    /// A host `hostN` at 10.N.0.2 behind a router whose outer address is 198.51.100.1N.
    fn home(&mut self, n: u8) -> Result<(), String> {
        let (router, host, port) = (format!("router{n}"), format!("host{n}"), format!("p{n}"));
        self.add(&router)?;
        self.add(&host)?;
        let (outer, inner, gateway) =
            (format!("198.51.100.1{n}/24"), format!("10.{n}.0.2/24"), format!("10.{n}.0.1"));
        self.inside(
            "wide",
            &[
                "ip",
                "link",
                "add",
                &port,
                "type",
                "veth",
                "peer",
                "name",
                "wan",
                "netns",
                &self.name(&router),
            ],
        )?;
        self.inside("wide", &["ip", "link", "set", &port, "master", "hub", "up"])?;
        self.inside(&router, &["ip", "addr", "add", &outer, "dev", "wan"])?;
        self.inside(&router, &["ip", "link", "set", "wan", "up"])?;
        self.inside(
            &router,
            &["ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", &self.name(&host)],
        )?;
        self.inside(&router, &["ip", "addr", "add", &format!("{gateway}/24"), "dev", "lan"])?;
        self.inside(&router, &["ip", "link", "set", "lan", "up"])?;
        self.inside(&router, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        self.inside(&router, &["nft", RULES])?;
        self.inside(&host, &["ip", "addr", "add", &inner, "dev", "eth0"])?;
        self.inside(&host, &["ip", "link", "set", "eth0", "up"])?;
        self.inside(&host, &["ip", "route", "add", "default", "via", &gateway])
    }

    fn name(&self, of: &str) -> String {
        format!("{}{of}", self.tag)
    }

    fn add(&mut self, of: &str) -> Result<(), String> {
        let name = self.name(of);
        ran(Command::new("ip").args(["netns", "add", &name]))?;
        self.made.push(name);
        self.inside(of, &["ip", "link", "set", "lo", "up"])
    }

    fn inside(&self, of: &str, words: &[&str]) -> Result<(), String> {
        ran(Command::new("ip").args(["netns", "exec", &self.name(of)]).args(words))
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for name in &self.made {
            // What is left of it is an empty name.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ran(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", stderr(&output))) }
}

/// The networks, unless this machine cannot have them: that is loud, and an error in CI.
fn networks(tag: &str, homes: u8) -> Option<Networks> {
    match Networks::make(tag, homes) {
        Ok(networks) => Some(networks),
        Err(why) => {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "no namespaces can be had here: {why}"
            );
            eprintln!(
                "\n*** SKIPPED: no namespaces can be had here (root, ip and nft are needed): {why} ***\n"
            );
            None
        }
    }
}

/// A node in a namespace, on its usual ports.
struct Housed {
    namespace: String,
    child: Child,
    /// Held, so that the node can go on telling its log.
    log: BufReader<ChildStderr>,
}

impl Housed {
    fn start(networks: &Networks, at: &str, dir: &Path, settings: &[&str]) -> Housed {
        let namespace = networks.name(at);
        let mut command =
            within(&namespace, &["--data-dir", dir.to_str().unwrap(), "--set", "log.format=json"]);
        command.args(["--set", "p2p.enabled=true", "--set", "storage.segment_bytes=1MiB"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.args(["node", "start"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut housed = Housed { namespace, child, log };
        let mut said = String::new();
        while !said.contains("\"serving\"") {
            let read = housed.log.read_line(&mut said).unwrap();
            assert!(read > 0, "the node ended; it said:\n{said}");
        }
        housed
    }

    fn p2p(&self, words: &[&str]) -> Output {
        within(&self.namespace, &["p2p"]).args(words).output().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.p2p(&[words, &["--json"]].concat());
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{words:?}: {}", stderr(&output)))
    }

    fn id(&self) -> String {
        self.json(&["id"])["peer"].as_str().unwrap().to_owned()
    }

    fn reachable(&self) -> String {
        self.json(&["id"])["reachable"].as_str().unwrap().to_owned()
    }

    /// How it is connected to a peer: `Some(true)` through a relay.
    fn relayed(&self, peer: &str) -> Option<bool> {
        let status = self.json(&["peers"]);
        let connected = status["connected"].as_array().unwrap();
        connected.iter().find(|other| other["peer"] == peer).map(|other| other["relayed"] == true)
    }
}

impl Drop for Housed {
    fn drop(&mut self) {
        // `ip netns exec` becomes the node itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn within(namespace: &str, args: &[&str]) -> Command {
    let inner = archipel(args);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if value.is_none() {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it did not come to pass that {what}");
        std::thread::yield_now();
    }
}

/// Two nodes at home reach each other by a relay in the wide network, and then without it.
fn homes_meet(tag: &str, extra: &[&str]) {
    let Some(networks) = networks(tag, 2) else { return };
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let open = ["p2p.bind=198.51.100.1", "p2p.relay=true"];
    let relay = Housed::start(&networks, "wide", dirs[0].path(), &[&open, extra].concat());
    let relay_id = relay.id();
    let at = format!("/ip4/198.51.100.1/tcp/7402/p2p/{relay_id}");
    let behind = |n: usize| {
        let (bind, relays, peers) =
            (format!("p2p.bind=10.{n}.0.2"), format!("p2p.relays={at}"), format!("p2p.peers={at}"));
        let settings = [&[&bind, &relays, &peers, "p2p.nat=true"][..], extra].concat();
        Housed::start(&networks, &format!("host{n}"), dirs[n].path(), &settings)
    };
    let (one, two) = (behind(1), behind(2));
    let (first, second) = (one.id(), two.id());
    // AutoNAT: the relay cannot dial them, and takes connections for them.
    for home in [&one, &two] {
        until("a home knows that it is reached by a relay", || home.reachable() == "by relay");
        let addresses = home.json(&["id"])["addresses"].to_string();
        assert!(addresses.contains("p2p-circuit"), "{addresses}");
    }
    // Control: nothing comes in that was not asked for.
    let refused = relay.p2p(&["connect", &format!("/ip4/198.51.100.12/tcp/7402/p2p/{second}")]);
    // A connection that the home itself has made is kept; a new one could not be made.
    assert!(relay.relayed(&second) == Some(false) || !refused.status.success());
    let circuit = format!("{at}/p2p-circuit/p2p/{second}");
    let connected = one.p2p(&["connect", &circuit]);
    assert!(connected.status.success(), "{}", stderr(&connected));
    // DCUtR: both dial at once, and the circuit is given up.
    until("the homes are connected directly", || one.relayed(&second) == Some(false));
    until("both know", || two.relayed(&first) == Some(false));
    // Without the relay they still talk.
    drop(relay);
    until("an echo comes", || one.p2p(&["ping", &second]).status.success());
    assert_eq!(one.relayed(&second), Some(false));
}

#[test]
fn two_homes_punch_through_their_routers_over_tcp() {
    homes_meet("at", &[]);
}

#[test]
fn two_homes_punch_through_their_routers_with_quic_beside_tcp() {
    homes_meet("aq", &["p2p.quic=true"]);
}

/// Two nodes in the wide network: one that relays, and one that asks whether it can be reached; with more settings for both.
fn in_the_wide(networks: &Networks, dirs: [&Path; 2], extra: &[&str]) -> (Housed, Housed) {
    let relays = [&["p2p.bind=198.51.100.1", "p2p.relay=true"], extra].concat();
    let relay = Housed::start(networks, "wide", dirs[0], &relays);
    // The router itself stands in the wide network, where its rules let nothing in; they are taken away for it.
    networks.inside("router1", &["nft", "flush", "ruleset"]).unwrap();
    let asks = [&["p2p.bind=198.51.100.11", "p2p.nat=true"], extra].concat();
    (relay, Housed::start(networks, "router1", dirs[1], &asks))
}

#[test]
fn a_node_that_others_can_dial_is_told_so() {
    let Some(networks) = networks("ao", 1) else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (relay, open) = in_the_wide(&networks, [dirs[0].path(), dirs[1].path()], &[]);
    assert_eq!(open.reachable(), "unknown", "nobody was asked yet");
    let dialled = open.p2p(&["connect", "/ip4/198.51.100.1/tcp/7402"]);
    assert!(dialled.status.success(), "{}", stderr(&dialled));
    until("it knows that it can be reached", || open.reachable() == "directly");
    // Control: who asks nobody knows nothing.
    assert_eq!(relay.reachable(), "unknown");
}

#[test]
fn neighbours_in_one_network_find_each_other() {
    let Some(networks) = networks("am", 1) else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, other) = in_the_wide(&networks, [dirs[0].path(), dirs[1].path()], &["p2p.mdns=true"]);
    // Nobody was told of the other: mDNS finds them.
    let id = one.id();
    until("they have found each other", || other.relayed(&id) == Some(false));
}
