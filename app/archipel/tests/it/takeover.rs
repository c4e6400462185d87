//! A node takes the place of another on the same data directory, and no request to the proxy is lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::process::{Node, PATIENCE};

/// An endpoint that answers every request, for as long as the test runs.
pub fn endpoint() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                // Requests without a body: an empty line ends each.
                while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
                    if line == "\r\n" {
                        stream
                            .get_mut()
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .unwrap();
                    }
                    line.clear();
                }
            });
        }
    });
    port
}

/// Clients that ask without a pause, until they are stopped.
pub struct Clients {
    ended: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Clients {
    /// Some keep their connection until an answer ends it, and some have a new one for each request.
    pub fn start(port: u16) -> Clients {
        let (ended, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = [true, true, true, false].map(|keeps| {
            let (ended, answers) = (Arc::clone(&ended), Arc::clone(&answers));
            std::thread::spawn(move || {
                let mut kept = None;
                while !ended.load(Ordering::SeqCst) {
                    let stream = kept.take();
                    let mut stream = stream
                        .unwrap_or_else(|| BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()));
                    let closes = ask(&mut stream);
                    kept = (keeps && !closes).then_some(stream);
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Clients { ended, answers, threads: threads.into() }
    }

    /// Waits until so many more were answered.
    pub fn await_more(&self, count: u64) {
        let (end, before) = (Instant::now() + PATIENCE, self.answers.load(Ordering::SeqCst));
        while self.answers.load(Ordering::SeqCst) < before + count {
            assert!(Instant::now() < end, "clients are not answered");
            std::thread::yield_now();
        }
    }

    /// Fails if one of them saw anything but answers.
    pub fn end(self) {
        self.ended.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// One request; whether its answer ends the connection.
fn ask(stream: &mut BufReader<TcpStream>) -> bool {
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut line, mut closes) = (String::new(), false);
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    while line != "\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the head is cut off");
        closes |= line.eq_ignore_ascii_case("connection: close\r\n");
    }
    let mut body = [0; 2];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"ok");
    closes
}

/// A configuration of the proxy on a port that is free now, and that port.
fn config(dir: &Path, workers: u16, port: u16, endpoint: u16) -> PathBuf {
    let path = dir.join(format!("{workers}.toml"));
    let text = format!(
        "[proxy]\nworkers = {workers}\n[[proxy.listener]]\nname = \"web\"\nport = {port}\n\
         [[proxy.service]]\nname = \"one\"\nendpoints = [\"127.0.0.1:{endpoint}\"]\n[[proxy.route]]\nservice = \"one\"\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn no_request_is_lost_when_a_node_takes_the_place_of_another() {
    let home = tempfile::tempdir().unwrap();
    let (port, endpoint, data) = (free_port(), endpoint(), home.path().join("data"));
    // From one thread to two, and back.
    let paths = [1, 2].map(|workers| config(home.path(), workers, port, endpoint));
    let flags = [0, 1].map(|at: usize| ["--config", paths[at].to_str().unwrap()]);
    let mut node = Node::start(&data, &flags[0]);
    assert_eq!(node.redis("SET here kept\r\n"), "+OK");
    let clients = Clients::start(port);
    for turn in 1..=4_usize {
        clients.await_more(100);
        let next = Node::start_as(&data, &["--take-over"], &flags[turn % 2]);
        let (code, said) = std::mem::replace(&mut node, next).wait();
        assert_eq!(code, 0, "{said}");
        clients.await_more(100);
    }
    clients.end();
    assert_eq!(node.redis("EXISTS here\r\n"), ":1");
    node.stop();
}

#[test]
fn whoever_is_handed_the_place_and_fails_is_told_of_and_the_directory_is_free() {
    let home = tempfile::tempdir().unwrap();
    let (port, endpoint, data) = (free_port(), endpoint(), home.path().join("data"));
    let path = config(home.path(), 1, port, endpoint);
    let flags = ["--config", path.to_str().unwrap()];
    let node = Node::start(&data, &flags);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let setting = format!("admin.port={}", taken.local_addr().unwrap().port());
    let words = ["--data-dir", data.to_str().unwrap(), "--set", &setting, "--set", "redis.port=0"];
    let failed =
        crate::process::archipel(&words).args(flags).args(["node", "start", "--take-over"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let (code, said) = node.wait();
    assert!(code == 1 && said.contains("did not serve"), "{code} {said}");
    // Nobody is there any more: it starts as always.
    Node::start_as(&data, &["--take-over"], &flags).stop();
}

#[test]
fn nobody_stops_for_a_configuration_that_cannot_be_used() {
    let home = tempfile::tempdir().unwrap();
    let (port, endpoint, data) = (free_port(), endpoint(), home.path().join("data"));
    let path = config(home.path(), 1, port, endpoint);
    let flags = ["--config", path.to_str().unwrap()];
    let node = Node::start(&data, &flags);
    let wrong = home.path().join("wrong.toml");
    let tls = "[[proxy.listener]]\nname = \"tls\"\nport = 0\ntls = true\n\
               [[proxy.certificate]]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"\n";
    std::fs::write(&wrong, std::fs::read_to_string(&path).unwrap() + tls).unwrap();
    let words = ["--data-dir", data.to_str().unwrap(), "--config", wrong.to_str().unwrap()];
    let failed = crate::process::archipel(&words).args(["node", "start", "--take-over"]).output().unwrap();
    assert_ne!(failed.status.code(), Some(0), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("/nowhere/cert.pem"), "{failed:?}");
    assert!(!ask(&mut BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap())));
    node.stop();
}

/// The cookie that an answer to a request with this one sets, if it does.
fn cookie(port: u16, has: &str) -> Option<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {has}\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    set.map(|set| set.split(';').next().unwrap().to_owned())
}

#[test]
fn clients_stay_at_their_endpoints_whichever_process_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (port, endpoint, data) = (free_port(), endpoint(), home.path().join("data"));
    let path = config(home.path(), 1, port, endpoint);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("name = \"one\"", "name = \"one\"\nsticky_cookie = \"where\""))
        .unwrap();
    let flags = ["--config", path.to_str().unwrap()];
    // Looking at a configuration makes nothing.
    let checked = crate::process::archipel(&["--data-dir", data.to_str().unwrap()])
        .args(["config", "check"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(checked.status.success() && !data.exists(), "{checked:?}");
    let node = Node::start(&data, &flags);
    let first = cookie(port, "none").expect("a first one is set");
    assert_eq!(cookie(port, &first), None);
    let heir = Node::start_as(&data, &["--take-over"], &flags);
    assert_eq!(node.wait().0, 0);
    assert_eq!(cookie(port, &first), None, "the heir knows it");
    heir.stop();
    let again = Node::start(&data, &flags);
    assert_eq!(cookie(port, &first), None, "after a restart too");
    again.stop();
}
