//! A proxy on free ports, servers behind it that do as each test says, and clients that speak bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh::limit::Priority;
use mesh::retry::RetryOptions;
use mesh::route::{HostRule, PathRule, Routes, Rule, Split};
use mesh::upstream::UpstreamOptions;
use proxy::{
    Allowed, EndpointPlan, KeyOf, ListenerKind, ListenerPlan, Meters, Plan, Proxy, RoutePlan, ServicePlan,
    Telling,
};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

type Behaviour = dyn Fn(&mut TcpStream, usize) + Send + Sync;

/// A server: what it does with a connection is the test's affair.
pub struct Backend {
    pub address: SocketAddr,
    /// Connections taken.
    pub connections: Arc<AtomicUsize>,
    /// All bytes that came.
    pub seen: Arc<Mutex<Vec<u8>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// `behave` is called in a thread of its own with each connection and its number.
    pub fn start(behave: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        Backend::on(listener, Arc::new(behave))
    }

    fn on(listener: TcpListener, behave: Arc<Behaviour>) -> Backend {
        let address = listener.local_addr().unwrap();
        let (connections, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&connections), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let (number, behave) = (count.fetch_add(1, Ordering::SeqCst), Arc::clone(&behave));
                std::thread::spawn(move || behave(&mut stream, number));
            }
        });
        Backend { address, connections, seen: Arc::default(), ending, thread: Some(thread) }
    }

    /// Answers each request on a kept connection with `reply`, and remembers all that came.
    pub fn answering(reply: &'static str) -> Backend {
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let here = Arc::clone(&seen);
        let mut backend = Backend::start(move |stream, _| {
            while let Some(head) = read_head(stream) {
                here.lock().unwrap().extend_from_slice(head.as_bytes());
                if stream.write_all(reply.as_bytes()).is_err() {
                    return;
                }
            }
        });
        backend.seen = seen;
        backend
    }

    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// A head, up to its empty line; `None` at the end of the connection.
pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

pub fn service(name: &str, endpoints: &[SocketAddr]) -> ServicePlan {
    ServicePlan {
        name: name.into(),
        endpoints: endpoints.iter().map(|&address| EndpointPlan { address, weight: 1, node: None }).collect(),
        discovered: false,
        options: UpstreamOptions { policy: mesh::balance::Policy::RoundRobin, ..UpstreamOptions::default() },
        connect_ms: 2_000,
        idle_ms: 60_000,
        idle_max: 16,
        tls: None,
        send_proxy: None,
        sticky: None,
        http2: false,
        retry: RetryOptions { backoff_ms: 0, ..RetryOptions::default() },
    }
}

pub fn route(name: &str, service: u32) -> RoutePlan {
    RoutePlan {
        name: name.into(),
        split: Split::new(&[(service, 1)]).unwrap(),
        rewrite: None,
        retry: RetryOptions { backoff_ms: 0, ..RetryOptions::default() },
        retry_statuses: vec![502, 503, 504],
        mirror: None,
        rate: None,
        priority: Priority::Normal,
        key: KeyOf::Client,
        allow: Allowed::Anybody,
        upgrade: false,
        connect: false,
    }
}

pub fn rule(host: &str, path: &str) -> Rule {
    let (host, path) = (HostRule::read(host).unwrap(), PathRule::prefix(path).unwrap());
    Rule { host, path, methods: Vec::new(), fields: Vec::new() }
}

/// One HTTP listener, one service with these endpoints, and a route for all requests.
pub fn plan(endpoints: &[SocketAddr]) -> Plan {
    Plan {
        listeners: vec![listener("web", ListenerKind::Http)],
        services: vec![service("one", endpoints)],
        routes: vec![route("all", 0)],
        index: Routes::new(&[rule("*", "/")]).unwrap(),
        telling: Telling { access_sample: 1, ..Telling::default() },
        ..Plan::default()
    }
}

pub fn listener(name: &str, kind: ListenerKind) -> ListenerPlan {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    ListenerPlan { name: name.into(), address, kind, tls: None, sources: None }
}

/// A running proxy.
pub struct World {
    pub proxy: Proxy,
    pub meters: Arc<Meters>,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let meters = Arc::<Meters>::default();
        World { proxy: Proxy::start(plan, 1, Arc::clone(&meters)).unwrap(), meters }
    }

    pub fn connect(&self) -> Client {
        self.connect_to("web")
    }

    pub fn connect_to(&self, name: &str) -> Client {
        let addresses = self.proxy.addresses();
        let (_, address) = addresses.iter().find(|(other, _)| other == name).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// Waits until that is so.
    pub fn until(&self, what: &str, so: impl Fn(&Meters) -> bool) {
        let end = std::time::Instant::now() + PATIENCE;
        while !so(&self.meters) {
            assert!(std::time::Instant::now() < end, "it is never so: {what}");
            std::thread::yield_now();
        }
    }

    /// What one connection is answered to these bytes.
    pub fn ask(&self, bytes: &str) -> Reply {
        let mut client = self.connect();
        client.send(bytes.as_bytes());
        client.reply("GET")
    }
}

pub struct Client {
    pub stream: TcpStream,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn reason(&self) -> &str {
        self.field("x-archipel-reason").unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Leaves without a farewell.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// The next response to a request of this method.
    pub fn reply(&mut self, method: &str) -> Reply {
        let head = read_head(&mut self.stream).expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return reply;
        }
        if reply.field("transfer-encoding") == Some("chunked") {
            reply.body = self.chunked_body();
        } else if let Some(length) = reply.field("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut reply.body).unwrap();
        } else {
            self.stream.read_to_end(&mut reply.body).unwrap();
        }
        reply
    }

    pub fn chunked_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(self.line().trim_end(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            if length == 0 {
                return body;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    fn line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") {
            self.stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// All that comes until the end; whether the response was whole: chunks that say where they end, or an end that is clean.
    pub fn whole_rest(&mut self) -> (Vec<u8>, bool) {
        let (bytes, clean) = self.rest();
        let whole = clean && bytes.ends_with(b"0\r\n\r\n");
        (bytes, whole)
    }

    /// All that comes until the end; whether that was a clean one.
    pub fn rest(&mut self) -> (Vec<u8>, bool) {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return (bytes, true),
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing comes, not even the end")
                }
                Err(_) => return (bytes, false),
            }
        }
    }
}
