//! TLS towards clients and services, and connections that are passed on unopened.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mesh::route::HostRule;
use proxy::{ClientTls, Inside, Keys, ListenerKind, ListenerPlan, PairFiles, Plan, ServerTls, TlsPlan};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::world::{Backend, PATIENCE, World, listener, plan, service};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An authority and what it has signed, in files.
pub struct Authority {
    dir: tempfile::TempDir,
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Authority { dir, certificate, key }
    }

    /// How a service of HTTP/2 is asked whose certificate this has signed.
    pub fn http2_service(&self) -> ClientTls {
        ClientTls::new(&self.ca(), None, None, Inside::Http2).unwrap()
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for these names, in files of this name.
    fn signed(&self, file: &str, names: &[&str]) -> PairFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(names).unwrap().signed_by(&key, &self.certificate, &self.key).unwrap();
        let pair = PairFiles {
            cert: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        std::fs::write(&pair.cert, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    fn client(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(self.roots()).with_no_client_auth())
    }

    fn client_with(&self, pair: &PairFiles) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (chain, key) = read(pair);
        Arc::new(builder.with_root_certificates(self.roots()).with_client_auth_cert(chain, key).unwrap())
    }

    /// A server that shows this certificate and answers each request with `reply`.
    fn server(&self, pair: &PairFiles, reply: &'static str) -> Backend {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = read(pair);
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
        Backend::start(move |stream, _| {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream.try_clone().unwrap());
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while matches!(stream.read(&mut byte), Ok(1)) {
                seen.push(byte[0]);
                if seen.ends_with(b"\r\n\r\n") {
                    seen.clear();
                    if stream.write_all(reply.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        })
    }
}

fn read(pair: &PairFiles) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap().map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap())
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn address(world: &World, name: &str) -> SocketAddr {
    world.proxy.addresses().into_iter().find(|(other, _)| other == name).unwrap().1
}

fn connect(world: &World, config: &Arc<ClientConfig>, name: &str) -> Secure {
    let stream = TcpStream::connect(address(world, "web")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// Sends a request and returns what is answered to it, up to the end of its body, or why not.
fn ask(stream: &mut Secure, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\nok") {
        if stream.read(&mut byte)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.push(byte[0]);
    }
    Ok(String::from_utf8(answer).unwrap())
}

fn secured(kind: ListenerKind, tls: TlsPlan) -> Vec<ListenerPlan> {
    vec![ListenerPlan { tls: Some(Arc::new(tls)), ..listener("web", kind) }]
}

fn terminating(keys: &Arc<Keys>, client_ca: Option<&Path>) -> TlsPlan {
    let terminate = ServerTls::new(Arc::clone(keys), client_ca, Inside::Http1).unwrap();
    TlsPlan { terminate: Some(terminate), passthrough: Vec::new() }
}

fn keys(pairs: &[&PairFiles]) -> Arc<Keys> {
    Arc::new(Keys::load(pairs.iter().map(|&pair| pair.clone()).collect()).unwrap())
}

/// A proxy that opens TLS in front of one server.
fn opening(keys: &Arc<Keys>, client_ca: Option<&Path>, backend: &Backend) -> World {
    let plan = plan(&[backend.address]);
    World::new(Plan { listeners: secured(ListenerKind::Http, terminating(keys, client_ca)), ..plan })
}

#[test]
fn requests_in_tls_go_through_and_their_service_is_told() {
    let (authority, backend) = (Authority::new(), Backend::answering(OK));
    let keys = keys(&[&authority.signed("a", &["a.example"])]);
    let world = opening(&keys, None, &backend);
    let mut stream = connect(&world, &authority.client(), "a.example");
    for _ in 0..3 {
        assert!(ask(&mut stream, GET).unwrap().starts_with("HTTP/1.1 200 OK"));
    }
    assert!(backend.seen().contains("x-forwarded-proto: https\r\n"), "{}", backend.seen());
    assert_eq!((world.meters.sum(|m| m.handshakes.get()), backend.connections()), (1, 1));
}

#[test]
fn large_bodies_go_through_tls_on_both_sides_both_ways() {
    let authority = Authority::new();
    let pair = authority.signed("a", &["a.example", "b.example"]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = read(&pair);
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    // Sends back what it gets.
    const BYTES: usize = 3_000_000;
    let echo = Backend::start(move |stream, _| {
        let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(tls, stream.try_clone().unwrap());
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut body = vec![0; BYTES];
        stream.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let mut plan = plan(&[echo.address]);
    let name = ServerName::try_from("b.example").unwrap();
    plan.services[0].tls = Some(ClientTls::new(&authority.ca(), Some(name), None, Inside::Http1).unwrap());
    plan.listeners = secured(ListenerKind::Http, terminating(&keys(&[&pair]), None));
    let world = World::new(plan);
    let mut stream = connect(&world, &authority.client(), "a.example");
    let body: Vec<u8> = (0..BYTES).map(|at| (at * 7 % 251) as u8).collect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
    stream.write_all(&body).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back).unwrap();
    assert!(back == body, "the body comes back as it was");
}

#[test]
fn each_name_gets_its_certificate_and_a_strange_one_gets_none() {
    let (authority, backend) = (Authority::new(), Backend::answering(OK));
    let first = authority.signed("a", &["a.example"]);
    let second = authority.signed("b", &["b.example", "*.b.example"]);
    let world = opening(&keys(&[&first, &second]), None, &backend);
    #[rustfmt::skip] // columns
    let table = [
        ("a.example",     Some(&first)),
        ("A.Example",     Some(&first)),
        ("b.example",     Some(&second)),
        ("x.b.example",   Some(&second)),
        ("x.y.b.example", None),
        ("c.example",     None),
    ];
    for (name, expected) in table {
        let mut stream = connect(&world, &authority.client(), name);
        let answer = ask(&mut stream, GET);
        assert_eq!(answer.is_ok(), expected.is_some(), "{name}: {answer:?}");
        if let Some(pair) = expected {
            assert_eq!(stream.conn.peer_certificates().unwrap(), read(pair).0, "{name}");
        }
    }
    // The client has its alert before that is counted.
    world.until("two were refused", |meters| meters.sum(|m| m.handshake_failures.get()) == 2);
}

#[test]
fn certificates_are_read_again_when_their_files_change_and_bad_ones_are_not_taken() {
    let (authority, backend) = (Authority::new(), Backend::answering(OK));
    let pair = authority.signed("a", &["a.example"]);
    let keys = keys(&[&pair]);
    let world = opening(&keys, None, &backend);
    let shown = || {
        let mut stream = connect(&world, &authority.client(), "a.example");
        ask(&mut stream, GET).unwrap();
        stream.conn.peer_certificates().unwrap().to_vec()
    };
    let mut kept = connect(&world, &authority.client(), "a.example");
    ask(&mut kept, GET).unwrap();
    let before = shown();
    // The proxy may be faster than this and have read it already.
    authority.signed("a", &["a.example"]);
    let _ = keys.refresh();
    let after = shown();
    assert_eq!(after, read(&pair).0);
    assert_ne!(before, after);
    assert!(ask(&mut kept, GET).is_ok(), "connections that there are stay");
    std::fs::write(&pair.cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let _ = keys.refresh();
    assert_eq!(shown(), after);
    let other = authority.signed("other", &["a.example"]);
    std::fs::copy(&other.cert, &pair.cert).unwrap();
    let _ = keys.refresh();
    assert_eq!(shown(), after, "a certificate without its key is not shown");
}

#[test]
fn a_second_connection_resumes_the_session_of_the_first() {
    let (authority, backend) = (Authority::new(), Backend::answering(OK));
    let pair = authority.signed("a", &["a.example"]);
    let world = opening(&keys(&[&pair]), None, &backend);
    let client = authority.client();
    let kind = |client: &Arc<ClientConfig>| {
        let mut stream = connect(&world, client, "a.example");
        ask(&mut stream, GET).unwrap();
        stream.conn.handshake_kind().unwrap()
    };
    assert_eq!(kind(&client), rustls::HandshakeKind::Full);
    assert_eq!(kind(&client), rustls::HandshakeKind::Resumed);
    // Another plan, as a reload makes one, knows the tickets of the one before.
    let mut world = world;
    let plan = plan(&[backend.address]);
    let again = terminating(&keys(&[&pair]), None);
    world.proxy.follow(Plan { listeners: secured(ListenerKind::Http, again), ..plan }).unwrap();
    let mut stream = connect(&world, &client, "a.example");
    ask(&mut stream, GET).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[test]
fn clients_show_certificates_where_an_authority_is_named() {
    let (authority, strangers, backend) = (Authority::new(), Authority::new(), Backend::answering(OK));
    let keys = keys(&[&authority.signed("a", &["a.example"])]);
    let world = opening(&keys, Some(&authority.ca()), &backend);
    let known = authority.client_with(&authority.signed("client", &["client"]));
    let strange = authority.client_with(&strangers.signed("client", &["client"]));
    for (config, is_let_in) in [(&known, true), (&strange, false), (&authority.client(), false)] {
        let answer = ask(&mut connect(&world, config, "a.example"), GET);
        assert_eq!(answer.is_ok(), is_let_in, "{answer:?}");
    }
    // A session that is resumed would not be looked at again.
    let mut stream = connect(&world, &known, "a.example");
    ask(&mut stream, GET).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
}

#[test]
fn services_are_asked_in_tls_and_only_those_that_prove_their_name() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let named = |name: &str| ServerName::try_from(name.to_owned()).unwrap();
    let backend = authority.server(&authority.signed("b", &["b.example", "127.0.0.1"]), OK);
    let stranger = strangers.server(&strangers.signed("b", &["b.example"]), OK);
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let here = Arc::clone(&seen);
    let plain = Backend::start(move |stream, _| {
        let mut bytes = [0; 1000];
        let n = stream.read(&mut bytes).unwrap_or(0);
        here.lock().unwrap().extend_from_slice(&bytes[..n]);
        let _ = stream.write_all(OK.as_bytes());
    });
    #[rustfmt::skip] // columns
    let table = [
        (&backend,  Some("b.example"), 200, ""),
        // By the address, which is in the certificate too.
        (&backend,  None,              200, ""),
        (&backend,  Some("c.example"), 502, "tls-failed"),
        (&stranger, Some("b.example"), 502, "tls-failed"),
        (&plain,    Some("b.example"), 502, "tls-failed"),
    ];
    for (backend, name, status, reason) in table {
        let mut plan = plan(&[backend.address]);
        let tls = ClientTls::new(&authority.ca(), name.map(named), None, Inside::Http1).unwrap();
        plan.services[0].tls = Some(tls);
        plan.routes[0].retry.tries_max = 1;
        let world = World::new(plan);
        let mut client = world.connect();
        for _ in 0..2 {
            client.send(GET);
            let reply = client.reply("GET");
            assert_eq!((reply.status, reply.reason()), (status, reason), "{name:?}");
        }
    }
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty());
    assert!(!seen.windows(3).any(|bytes| bytes == b"GET"), "who proves no name sees nothing of a request");
}

#[test]
fn a_service_of_http2_in_tls_may_change_the_protocol_of_http1() {
    let authority = Authority::new();
    let pair = authority.signed("a", &["a.example"]);
    // Speaks what is agreed on, of these; `h2` only to who begins with it.
    let server = |offers: &'static [&'static [u8]]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = read(&pair);
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = offers.iter().map(|one| one.to_vec()).collect();
        let config = Arc::new(config);
        Backend::start(move |stream, _| {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream.try_clone().unwrap());
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    Ok(_) | Err(_) => return,
                }
            }
            if stream.conn.alpn_protocol() != Some(b"http/1.1") {
                return;
            }
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
            );
            while matches!(stream.read(&mut byte), Ok(1)) {
                let _ = stream.write_all(&byte);
            }
        })
    };
    let table: [(&'static [&'static [u8]], _); 2] =
        [(&[b"h2", b"http/1.1"], (101, "")), (&[b"h2"], (502, "tls-failed"))];
    for (offers, expected) in table {
        let backend = server(offers);
        let mut plan = plan(&[backend.address]);
        let name = Some(ServerName::try_from("a.example").unwrap());
        plan.services[0].tls = Some(ClientTls::new(&authority.ca(), name, None, Inside::Http2).unwrap());
        (plan.services[0].http2, plan.routes[0].upgrade, plan.routes[0].retry.tries_max) = (true, true, 1);
        let world = World::new(plan);
        let mut client = world.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        let reply = client.reply("GET");
        assert_eq!((reply.status, reply.reason()), expected);
        if reply.status == 101 {
            client.send(b"hello");
            let mut back = [0; 5];
            client.stream.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"hello");
        }
    }
}

#[test]
fn an_answer_that_is_cut_in_tls_is_no_whole_one() {
    let authority = Authority::new();
    let pair = authority.signed("b", &["b.example"]);
    // As long as the connection, which ends without TLS being told.
    let cut = "HTTP/1.1 200 OK\r\n\r\npart";
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = read(&pair);
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    for is_told in [true, false] {
        let config = Arc::clone(&config);
        let backend = Backend::start(move |stream, _| {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream.try_clone().unwrap());
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while !seen.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                seen.push(byte[0]);
            }
            let _ = stream.write_all(cut.as_bytes());
            if is_told {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut byte);
        });
        let mut plan = plan(&[backend.address]);
        let name = ServerName::try_from("b.example").unwrap();
        plan.services[0].tls =
            Some(ClientTls::new(&authority.ca(), Some(name), None, Inside::Http1).unwrap());
        let world = World::new(plan);
        let mut client = world.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (bytes, is_clean) = client.whole_rest();
        assert_eq!(is_clean, is_told, "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn connections_for_a_name_are_passed_on_unopened_and_others_are_opened() {
    let authority = Authority::new();
    let inner = authority.signed("inner", &["inner.example", "x.under.example"]);
    let outer = authority.signed("outer", &["outer.example"]);
    let (opened, unopened) = (Backend::answering(OK), authority.server(&inner, OK));
    let mut plan = plan(&[opened.address]);
    plan.services.push(service("inner", &[unopened.address]));
    let passthrough =
        vec![(HostRule::read("inner.example").unwrap(), 1), (HostRule::read("*.under.example").unwrap(), 1)];
    plan.listeners = secured(
        ListenerKind::Http,
        TlsPlan { passthrough: passthrough.clone(), ..terminating(&keys(&[&outer]), None) },
    );
    let world = World::new(plan.clone());
    for (name, pair) in [("inner.example", &inner), ("outer.example", &outer), ("x.under.example", &inner)] {
        let mut stream = connect(&world, &authority.client(), name);
        for _ in 0..2 {
            assert!(ask(&mut stream, GET).is_ok(), "{name}");
        }
        assert_eq!(stream.conn.peer_certificates().unwrap(), read(pair).0, "{name}");
    }
    assert_eq!((opened.connections(), unopened.connections()), (1, 2));
    // Nothing is opened here: who is not passed on is refused.
    plan.listeners = secured(ListenerKind::Http, TlsPlan { passthrough, terminate: None });
    let world = World::new(plan);
    assert!(ask(&mut connect(&world, &authority.client(), "inner.example"), GET).is_ok());
    assert!(ask(&mut connect(&world, &authority.client(), "outer.example"), GET).is_err());
}

#[test]
fn what_is_no_tls_or_never_becomes_any_is_closed() {
    let (authority, backend) = (Authority::new(), Backend::answering(OK));
    let outer = authority.signed("outer", &["outer.example"]);
    for passthrough in [vec![], vec![(HostRule::read("inner.example").unwrap(), 0)]] {
        let mut plan = plan(&[backend.address]);
        plan.limits.head_ms = 50;
        plan.listeners =
            secured(ListenerKind::Http, TlsPlan { passthrough, ..terminating(&keys(&[&outer]), None) });
        let world = World::new(plan);
        for bytes in [GET, &[22, 3, 1, 2, 0, 1, 0][..], &[], &[22, 3, 1, 0, 5, 1, 0xFF, 0xFF, 0xFF, 0]] {
            let mut stream = TcpStream::connect(address(&world, "web")).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(bytes).unwrap();
            // It ends, whichever way; an alert may come before.
            let mut sink = Vec::new();
            let ended = stream.read_to_end(&mut sink);
            assert!(!matches!(ended, Err(error) if error.kind() == ErrorKind::WouldBlock), "{bytes:?}");
        }
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn tcp_in_tls_is_opened_and_ends_each_way_by_itself() {
    let authority = Authority::new();
    let backend = Backend::start(|stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    let mut plan = plan(&[backend.address]);
    let pair = authority.signed("a", &["a.example"]);
    let terminate = Some(ServerTls::new(keys(&[&pair]), None, Inside::Any).unwrap());
    plan.listeners =
        secured(ListenerKind::Tcp { service: 0 }, TlsPlan { terminate, passthrough: Vec::new() });
    let world = World::new(plan);
    let mut stream = connect(&world, &authority.client(), "a.example");
    stream.write_all(b"abc").unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"cba");
}
