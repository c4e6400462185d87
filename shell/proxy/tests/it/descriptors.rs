//! When the process may open no more files: clients wait in the kernel, those who are there are served, and nothing spins.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::world::{Backend, Client, PATIENCE, World, plan};

/// Set in the process that has the limit: it is one of its own, for the limit is that of a process.
const LIMITED: &str = "ARCHIPEL_TEST_LIMITED";
const NAME: &str = "descriptors::clients_wait_while_there_are_no_descriptors_and_nothing_spins";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The pause that the proxy makes, in milliseconds.
const PAUSE_MS: u128 = 100;
const WAITING: usize = 20;

#[test]
fn clients_wait_while_there_are_no_descriptors_and_nothing_spins() {
    if std::env::var_os(LIMITED).is_some() {
        return limited();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(LIMITED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut tell, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = BufReader::new(said).lines().map_while(Result::ok);
    // What the harness says stands between.
    let mut hear = || said.find_map(|line| Some(line.split_once("told: ")?.1.to_owned())).expect("it ended");
    let address: SocketAddr = hear().parse().unwrap();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    };
    let ask = |client: &mut Client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.reply("GET").status
    };
    let mut kept = connect();
    assert_eq!(ask(&mut kept), 200);
    writeln!(tell, "limit").unwrap();
    assert_eq!(hear(), "limited");
    let mut waiting: Vec<Client> = (0..WAITING).map(|_| connect()).collect();
    waiting.iter_mut().for_each(|one| one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    // It has seen them, and more than once.
    writeln!(tell, "paused").unwrap();
    assert_eq!(hear(), "paused");
    assert_eq!(ask(&mut kept), 200, "who is there is served");
    writeln!(tell, "free").unwrap();
    for one in &mut waiting {
        assert_eq!(one.reply("GET").status, 200, "who has waited is served");
    }
    writeln!(tell, "spins").unwrap();
    assert_eq!(hear(), "rests");
    drop(tell);
    assert!(child.wait().unwrap().success());
}

/// A proxy that does as it is told.
fn limited() {
    let backend = Backend::answering(OK);
    let world = World::new(plan(&[backend.address]));
    println!("told: {}", world.proxy.addresses()[0].1);
    let limits = getrlimit(Resource::Nofile);
    let set = |files| {
        setrlimit(Resource::Nofile, Rlimit { current: files, maximum: limits.maximum }).unwrap();
    };
    let began = Instant::now();
    let pauses = || world.meters.sum(|meters| meters.pauses.get());
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "limit" => {
                // The next one that would be opened is the first that may not be.
                let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
                set(Some(u64::try_from(next).unwrap()));
                assert!(std::fs::File::open("/dev/null").is_err());
                println!("told: limited");
            }
            "paused" => {
                world.until("it pauses again and again", |_| pauses() >= 3);
                println!("told: paused");
            }
            "free" => set(limits.current),
            "spins" => {
                // Each pause lasts; however slow it is here, there are never more than have room in the time.
                let (count, most) = (u128::from(pauses()), began.elapsed().as_millis() / PAUSE_MS + 2);
                println!("told: {}", if count > most { "spins" } else { "rests" });
            }
            other => panic!("{other:?} is nothing to do"),
        }
    }
}
