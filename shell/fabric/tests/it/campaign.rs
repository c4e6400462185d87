//! Hostile attempts by the thousand, each by a source of its own: what they cost, and what stays of them.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use fabric::join::{ClusterId, Secret, Token};
use fabric::link::Cause;
use fabric::link::stall::HANDSHAKE_MS_MAX;
use kernel::{Millis, Spoken};
use rustix::net::{AddressFamily, SocketType};

use crate::harness::World;
use crate::raw::{Raw, config};

/// One way to be hostile; they are taken in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Connects and goes away.
    Leave,
    /// Sends what is no TLS.
    Garbage,
    /// Sends the beginning of a handshake, and holds the connection.
    Stall,
    /// Proves a key that is no member's.
    Stranger,
    /// Is a member, and sends a frame of 4 GiB.
    Frame,
    /// Asks to join with a token that does not exist.
    Join,
}

const ATTEMPTS: [Attempt; 6] =
    [Attempt::Leave, Attempt::Garbage, Attempt::Stall, Attempt::Stranger, Attempt::Frame, Attempt::Join];

/// What came of a campaign.
#[derive(Debug)]
pub struct Outcome {
    pub attempts: u64,
    pub endings: Vec<(&'static str, u64)>,
    pub told: u64,
    /// Connections that are left, and handshakes.
    pub left: (u64, u64),
    /// Resident bytes at a tenth of the attempts, when everything has been used once, and at the end.
    pub resident: (u64, u64),
}

/// Runs so many attempts against one node.
pub fn run(attempts: u64) -> Outcome {
    let mut world = World::new(2);
    world.nodes.pop();
    let mut held: Vec<(u64, TcpStream)> = Vec::new();
    let mut resident = 0;
    for n in 0..attempts {
        attempt(&mut world, n, &mut held);
        // A connection that is held is cut by then.
        held.retain(|(since, _)| n - since < 200);
        if n == attempts / 10 {
            resident = resident_bytes();
        }
    }
    world.pass(HANDSHAKE_MS_MAX);
    drop(held);
    world.until("nothing is left", |nodes| nodes[0].meters().connections.get() == 0);
    let meters = world.nodes[0].meters();
    Outcome {
        attempts: meters.accepted.get(),
        endings: meters.endings().collect(),
        told: meters.told.get(),
        left: (meters.connections.get(), meters.handshakes.get()),
        resident: (resident, resident_bytes()),
    }
}

fn attempt(world: &mut World, n: u64, held: &mut Vec<(u64, TcpStream)>) {
    let kind = ATTEMPTS[n as usize % ATTEMPTS.len()];
    let address = world.nodes[0].address;
    let mut stream = connect_from(n, address);
    let accepted = world.nodes[0].meters().accepted.get();
    match kind {
        Attempt::Leave => drop(stream),
        Attempt::Garbage => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap(),
        Attempt::Stall => {
            stream.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196]).unwrap();
            held.push((n, stream));
        }
        Attempt::Stranger => {
            Raw::over(stream, config(9, b"archipel/1")).until_closed(world);
            assert!(world.nodes[0].ended(Cause::Stranger) > 0);
        }
        Attempt::Frame => {
            let mut raw = Raw::over(stream, config(2, b"archipel/1"));
            let mut bytes = vec![11, 0, 0, 0, 1, kernel::Version::NEWEST.0, 0];
            bytes.extend(n.to_le_bytes());
            bytes.extend([1, 0xFF, 0xFF, 0xFF, 0xFF, 2]);
            raw.say(&bytes);
            raw.until_closed(world);
        }
        Attempt::Join => {
            let mut raw = Raw::over(stream, config(9, b"archipel-join/1"));
            raw.say(&request(n));
            world.nodes[0].events.clear();
            for _ in 0..1000 {
                raw.pump();
                world.round();
                if let Some(fabric::link::Event::Joining { id, .. }) = world.nodes[0].events.pop() {
                    assert!(world.nodes[0].loops.links.answer(id, b"refused"));
                    break;
                }
            }
            raw.until_closed(world);
        }
    }
    world.until("it came", |nodes| nodes[0].meters().accepted.get() > accepted || n == 0);
    // Time in which a stalled handshake ends while later ones come.
    world.pass(60);
    world.nodes[0].events.clear();
}

fn request(n: u64) -> Vec<u8> {
    let token = Token {
        cluster: ClusterId([0; 16]),
        introducer: crate::harness::identity(1).id(),
        addresses: Vec::new(),
        secret: Secret(std::array::from_fn(|at| (n >> (at % 8)) as u8)),
        expires: Millis(0),
    };
    let mut payload = Vec::new();
    fabric::join::JoinRequest::new(&token, (token.introducer, Spoken::ALL), &[0; 32], Vec::new())
        .encode(&mut payload);
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.push(4);
    frame.extend(payload);
    frame
}

/// A connection from one of many addresses of loopback.
fn connect_from(n: u64, to: SocketAddr) -> TcpStream {
    let [.., a, b, c] = (n / 4 + 2).to_be_bytes();
    let from = SocketAddrV4::new(Ipv4Addr::new(127, a.max(1), b, c), 0);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::V4(from)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
