//! Proxies of a cluster's nodes among each other: who proves to be a member is taken, for as long as it is one.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use kernel::{ClusterId, NodeId};
use mesh::route::Routes;
use proxy::{
    Allowed, ClientTls, EndpointPlan, Inside, ListenerKind, ListenerPlan, Meters, NodeTls, Plan, Reason,
    Roster, ServerTls, TlsPlan,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;

use crate::world::{Backend, World, listener, plan, read_head, route, rule};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const CLUSTER: ClusterId = ClusterId([0xC1; 16]);

/// Members as one node knows them.
#[derive(Debug, Default)]
struct Known {
    nodes: Mutex<BTreeSet<NodeId>>,
    version: AtomicU64,
}

impl Known {
    fn of(nodes: &[&Node]) -> Arc<Known> {
        let known = Known::default();
        known.nodes.lock().unwrap().extend(nodes.iter().map(|node| node.id));
        Arc::new(known)
    }

    fn remove(&self, node: &Node) {
        self.nodes.lock().unwrap().remove(&node.id);
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

impl Roster for Known {
    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    fn contains(&self, node: NodeId) -> bool {
        self.nodes.lock().unwrap().contains(&node)
    }
}

/// A node's key.
struct Node {
    id: NodeId,
    key: Arc<dyn SigningKey>,
}

impl Node {
    fn draw() -> Node {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let id = NodeId(pair.public_key_raw().try_into().unwrap());
        let der = PrivatePkcs8KeyDer::from(pair.serialize_der());
        Node { id, key: rustls::crypto::ring::sign::any_eddsa_type(&der).unwrap() }
    }

    fn name(&self) -> String {
        format!("spiffe://{CLUSTER}/node/{}", self.id)
    }

    fn tls(&self, cluster: ClusterId, known: &Arc<Known>) -> Arc<NodeTls> {
        let roster = Arc::clone(known) as Arc<dyn Roster>;
        Arc::new(NodeTls::new(cluster, self.id, Arc::clone(&self.key), roster).unwrap())
    }
}

/// The plan of a node that takes members at `mesh` and everybody at `web`, before this service.
fn receiving(tls: &Arc<NodeTls>, allowed: Allowed, backend: &Backend) -> Plan {
    let terminate = Some(ServerTls::mutual(tls, allowed, Inside::Http).unwrap());
    let mesh = ListenerPlan {
        tls: Some(Arc::new(TlsPlan { terminate, passthrough: Vec::new() })),
        ..listener("mesh", ListenerKind::Http)
    };
    let mut plan = plan(&[backend.address]);
    plan.listeners.push(mesh);
    plan
}

/// The plan of a node whose service is at another's port for members, which must be `node`'s.
fn sending(tls: &Arc<NodeTls>, to: &World, node: Option<&Node>, http2: bool) -> Plan {
    let addresses = to.proxy.addresses();
    let (_, address) = *addresses.iter().find(|(name, _)| name == "mesh").unwrap();
    let mut plan = plan(&[]);
    let service = &mut plan.services[0];
    service.endpoints = vec![EndpointPlan { address, weight: 1, node: node.map(|node| node.id) }];
    service.http2 = http2;
    service.tls = Some(ClientTls::mutual(tls, if http2 { Inside::Http2 } else { Inside::Http1 }));
    plan
}

fn answered(meters: &Meters, reason: Reason) -> u64 {
    meters.sum(|one| one.answered[reason as usize].get())
}

#[test]
fn a_request_goes_from_node_to_node_and_says_who_has_asked() {
    let log = tempfile::tempdir().unwrap();
    for http2 in [false, true] {
        let (a, b) = (Node::draw(), Node::draw());
        let known = Known::of(&[&a, &b]);
        let backend = Backend::answering(OK);
        let path = log.path().join(format!("{http2}.log"));
        let mut plan = receiving(&b.tls(CLUSTER, &known), Allowed::Anybody, &backend);
        plan.telling.access_log = Some(path.clone());
        plan.routes[0].allow = Allowed::These([a.id].into());
        let there = World::new(plan);
        let here = World::new(sending(&a.tls(CLUSTER, &known), &there, Some(&b), http2));
        for _ in 0..2 {
            let reply = here.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=made-up\r\n\r\n");
            assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{reply:?}");
        }
        let seen = backend.seen();
        let told = format!("x-forwarded-client-cert: By={};Hash=", b.name());
        assert_eq!((seen.matches(&told).count(), seen.contains("made-up")), (2, false), "{seen}");
        assert!(seen.contains(&format!(";URI={}\r\n", a.name())), "{seen}");
        assert!(seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
        // One connection carried both.
        assert_eq!(there.meters.sum(|one| one.handshakes.get()), 1);
        let member = format!("\"member\":\"{}\"", a.name());
        there.until("both are in the log", |_| {
            std::fs::read_to_string(&path).is_ok_and(|text| text.matches(&member).count() == 2)
        });
        // Who comes by another way has proven nothing.
        let reply = there.ask(GET);
        assert_eq!((reply.status, reply.reason()), (403, "not-allowed"));
        assert_eq!(answered(&there.meters, Reason::NotAllowed), 1);
    }
}

#[test]
fn who_is_no_member_is_refused_and_counted() {
    let (a, b, c) = (Node::draw(), Node::draw(), Node::draw());
    let all = Known::of(&[&a, &b, &c]);
    let backend = Backend::answering(OK);
    #[rustfmt::skip] // columns
    let table = [
        // who comes, as whom                     whom it wants   whom the other knows     is it taken
        (a.tls(CLUSTER, &all),                    Some(&b),       Known::of(&[&a, &b]),    true),
        (a.tls(CLUSTER, &all),                    None,           Known::of(&[&a, &b]),    true),
        (c.tls(CLUSTER, &all),                    Some(&b),       Known::of(&[&a, &b]),    false), // no member
        (a.tls(ClusterId([7; 16]), &all),         None,           Known::of(&[&a, &b]),    false), // of another cluster
        (a.tls(CLUSTER, &all),                    Some(&c),       Known::of(&[&a, &b]),    false), // not the instance's node
        (a.tls(CLUSTER, &Known::of(&[&a])),       Some(&b),       Known::of(&[&a, &b]),    false), // to no member
    ];
    for (at, (tls, wanted, known, taken)) in table.into_iter().enumerate() {
        let there = World::new(receiving(&b.tls(CLUSTER, &known), Allowed::Anybody, &backend));
        let here = World::new(sending(&tls, &there, wanted, false));
        let reply = here.ask(GET);
        assert_eq!(reply.status, if taken { 200 } else { 502 }, "row {at}: {reply:?}");
        if taken {
            assert_eq!(there.meters.sum(|one| one.strangers.get()), 0, "row {at}");
        } else {
            there.until("it is counted", |meters| meters.sum(|one| one.handshake_failures.get()) > 0);
            assert_eq!(there.meters.sum(|one| one.handshakes.get()), 0, "row {at}");
        }
        if (2..=3).contains(&at) && tls.name().cluster == CLUSTER {
            assert!(there.meters.sum(|one| one.strangers.get()) > 0, "row {at}");
        }
    }
}

#[test]
fn a_port_takes_those_members_that_may_come() {
    let (a, b, c) = (Node::draw(), Node::draw(), Node::draw());
    let known = Known::of(&[&a, &b, &c]);
    let backend = Backend::answering(OK);
    let there = World::new(receiving(&b.tls(CLUSTER, &known), Allowed::These([a.id].into()), &backend));
    for (node, status) in [(&a, 200), (&c, 502)] {
        let here = World::new(sending(&node.tls(CLUSTER, &known), &there, Some(&b), false));
        assert_eq!(here.ask(GET).status, status);
    }
    there.until("it is counted", |meters| meters.sum(|one| one.strangers.get()) > 0);
}

#[test]
fn bytes_without_tls_and_clients_without_a_key_get_nothing() {
    let b = Node::draw();
    let known = Known::of(&[&b]);
    let backend = Backend::answering(OK);
    let there = World::new(receiving(&b.tls(CLUSTER, &known), Allowed::Anybody, &backend));
    let mut client = there.connect_to("mesh");
    client.send(GET.as_bytes());
    let (bytes, _) = client.rest();
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP/1.1"), "{bytes:?}");
    there.until("it is counted", |meters| meters.sum(|one| one.handshake_failures.get()) == 1);
    // TLS, but as browsers speak it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let stream = there.connect_to("mesh").stream;
    let name = rustls::pki_types::ServerName::try_from("a").unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(tls, stream);
    assert!(stream.write_all(GET.as_bytes()).and_then(|()| stream.read(&mut [0])).is_err());
    there.until("it is counted", |meters| meters.sum(|one| one.handshake_failures.get()) == 2);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_member_that_is_removed_loses_what_it_has_and_gets_nothing_more() {
    for http2 in [false, true] {
        let (a, b) = (Node::draw(), Node::draw());
        let (of_a, of_b) = (Known::of(&[&a, &b]), Known::of(&[&a, &b]));
        let (begun, begins) = channel();
        let backend = Backend::start(move |stream, _| {
            // It never answers what asks for it.
            while let Some(head) = read_head(stream) {
                if head.contains(" /held ") {
                    begun.send(()).unwrap();
                } else if stream.write_all(OK.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let there = World::new(receiving(&b.tls(CLUSTER, &of_b), Allowed::Anybody, &backend));
        let here = World::new(sending(&a.tls(CLUSTER, &of_a), &there, Some(&b), http2));
        assert_eq!(here.ask(GET).status, 200);
        // Nobody asks: the connection that waits ends, and the next request cannot make another.
        let mut held = here.connect();
        held.send(b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        begins.recv_timeout(crate::world::PATIENCE).unwrap();
        of_b.remove(&a);
        assert_eq!(held.reply("POST").status, 502);
        there.until("it was ended", |meters| meters.sum(|one| one.expelled.get()) > 0);
        // In TLS 1.3 who asks is refused behind its own end of the handshake.
        assert_eq!(here.ask(GET).status, 502);
        there.until("it is counted", |meters| meters.sum(|one| one.strangers.get()) > 0);
    }
}

#[test]
fn nothing_more_is_asked_of_a_member_that_is_removed() {
    for http2 in [false, true] {
        let (a, b) = (Node::draw(), Node::draw());
        let (of_a, of_b) = (Known::of(&[&a, &b]), Known::of(&[&a, &b]));
        let (begun, begins) = channel();
        let backend = Backend::start(move |stream, _| {
            while let Some(head) = read_head(stream) {
                if head.contains(" /held ") {
                    begun.send(()).unwrap();
                } else if stream.write_all(OK.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let there = World::new(receiving(&b.tls(CLUSTER, &of_b), Allowed::Anybody, &backend));
        let here = World::new(sending(&a.tls(CLUSTER, &of_a), &there, Some(&b), http2));
        assert_eq!(here.ask(GET).status, 200);
        let mut held = here.connect();
        held.send(b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        begins.recv_timeout(crate::world::PATIENCE).unwrap();
        of_a.remove(&b);
        assert_eq!(held.reply("POST").status, 502);
        here.until("it was ended", |meters| meters.sum(|one| one.expelled.get()) > 0);
        let reply = here.ask(GET);
        // A call of HTTP/2 learns only that its connection was never made.
        let reason = if http2 { "connect-failed" } else { "tls-failed" };
        assert_eq!((reply.status, reply.reason()), (502, reason));
        assert_eq!(there.meters.sum(|one| one.expelled.get()), 0);
    }
}

#[test]
fn connections_that_are_passed_through_end_with_the_membership_too() {
    let (a, b) = (Node::draw(), Node::draw());
    let (of_a, of_b) = (Known::of(&[&a, &b]), Known::of(&[&a, &b]));
    let backend = Backend::start(|stream, _| {
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    });
    let mut plan = receiving(&b.tls(CLUSTER, &of_b), Allowed::Anybody, &backend);
    plan.listeners[1].kind = ListenerKind::Tcp { service: 0 };
    let terminate = Some(ServerTls::mutual(&b.tls(CLUSTER, &of_b), Allowed::Members, Inside::Any).unwrap());
    plan.listeners[1].tls = Some(Arc::new(TlsPlan { terminate, passthrough: Vec::new() }));
    let there = World::new(plan);
    let mut plan = sending(&a.tls(CLUSTER, &of_a), &there, Some(&b), false);
    plan.listeners[0].kind = ListenerKind::Tcp { service: 0 };
    let here = World::new(plan);
    let mut client = here.connect();
    client.send(b"ping");
    let mut answer = [0; 4];
    client.stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    of_b.remove(&a);
    let (rest, clean) = client.rest();
    assert_eq!((rest, clean), (Vec::new(), false), "it is no end, but a cut");
}

#[test]
fn endpoints_that_are_found_must_be_the_nodes_that_have_registered_them() {
    let (a, b, c) = (Node::draw(), Node::draw(), Node::draw());
    let known = Known::of(&[&a, &b, &c]);
    let backend = Backend::answering(OK);
    let there = World::new(receiving(&b.tls(CLUSTER, &known), Allowed::Anybody, &backend));
    let mut plan = sending(&a.tls(CLUSTER, &known), &there, None, false);
    let found = std::mem::take(&mut plan.services[0].endpoints);
    plan.services[0].discovered = true;
    plan.routes.push(route("more", 0));
    plan.index = Routes::new(&[rule("*", "/"), rule("*", "/more")]).unwrap();
    let mut here = World::new(plan);
    for (node, status) in [(&b, 200), (&c, 502), (&b, 200)] {
        let at = |_: &str| -> Vec<EndpointPlan> {
            found.iter().map(|one| EndpointPlan { node: Some(node.id), ..*one }).collect()
        };
        here.proxy.discover(at).unwrap();
        let generation = here.proxy.generation();
        here.until("it is known", |meters| meters.largest_generation() == generation);
        assert_eq!(here.ask(GET).status, status);
    }
}
