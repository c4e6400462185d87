//! Two members whose proxies ask each other, each proving its node's key.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use server::config::{Loaded, Sources};
use server::{Beginning, Server};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of HTTP/1.1 that answers with what it was asked.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while !seen.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                seen.push(byte[0]);
            }
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", seen.len());
            let _ = stream.write_all(&[head.as_bytes(), &seen].concat());
        }
    });
    address
}

fn loaded(dir: &Path, is_member: bool, proxy: &str) -> Loaded {
    let text = format!(
        "data_dir = \"{}\"\n[redis]\nport = 0\n[admin]\nport = 0\n[storage]\nsegment_bytes = \"1MiB\"\n\
         [cluster]\nenabled = {is_member}\nport = 0\nredis_port = 0\n{proxy}",
        dir.display(),
    );
    Loaded::layered(Some((Path::new("node.toml"), &text)), &Sources::default()).unwrap()
}

fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn proxied(server: &Server, name: &str) -> SocketAddr {
    server.proxy().into_iter().find(|(one, _)| one == name).unwrap().1
}

#[test]
fn a_member_s_proxy_asks_a_member_s_and_its_service_is_told_who() {
    let home = tempfile::tempdir().unwrap();
    let shop = backend();
    let text = format!(
        "[[proxy.listener]]\nname = \"mesh\"\nport = 0\nmutual = true\n\
         [[proxy.service]]\nname = \"shop\"\nendpoints = \"{shop}\"\n\
         [[proxy.route]]\nservice = \"shop\"\nallow = \"members\"\n"
    );
    let server = Server::start(&loaded(home.path(), true, &text), Beginning::Usual, || ()).unwrap();
    let mesh = proxied(&server, "mesh");
    // It reaches itself as another member would.
    let over = format!(
        "{text}[[proxy.listener]]\nname = \"web\"\nport = 0\n\
         [[proxy.service]]\nname = \"there\"\nendpoints = \"{mesh}\"\nmutual = true\n\
         [[proxy.route]]\nhost = \"a\"\nservice = \"shop\"\nallow = \"members\"\n\
         [[proxy.route]]\npath = \"/x\"\nhost = \"a\"\nexact = true\nservice = \"there\"\nrewrite = \"/y\"\n"
    );
    let mut server = server;
    server.reload(&loaded(home.path(), true, &over)).unwrap();
    let web = proxied(&server, "web");
    let end = Instant::now() + PATIENCE;
    let answer = loop {
        let answer = ask(web);
        if answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        assert!(Instant::now() < end, "{answer}");
    };
    let told = answer.lines().find_map(|line| line.strip_prefix("x-forwarded-client-cert: ")).unwrap();
    let [by, hash, uri] = told.split(';').collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert!(by.starts_with("By=spiffe://") && by.contains("/node/"), "{told}");
    assert_eq!(
        (by.strip_prefix("By="), hash.len()),
        (uri.strip_prefix("URI="), "Hash=".len() + 64),
        "{told}"
    );
    server.stop().unwrap();
}

#[test]
fn a_node_of_no_cluster_has_nobody_to_prove_itself_to() {
    for text in [
        "[[proxy.listener]]\nname = \"mesh\"\nport = 0\nmutual = true\n".to_owned(),
        "[[proxy.listener]]\nname = \"web\"\nport = 0\n[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\nmutual = true\n".to_owned(),
    ] {
        let home = tempfile::tempdir().unwrap();
        let started = Server::start(&loaded(home.path(), false, &text), Beginning::Usual, || ());
        let Err(error) = started else { panic!("{text}") };
        let error = error.to_string();
        assert!(error.contains("node.toml:") && error.contains("no member of a cluster"), "{error}");
        assert!(error.contains("mutual") && error.contains("--cluster"), "{error}");
    }
}
