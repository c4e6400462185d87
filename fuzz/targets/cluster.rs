//! What members say to each other: frames of liveness and of the desired state, requests, states, rosters. Arbitrary bytes
//! read back as they are written or are refused, and no sequence of frames makes a node's mind panic.
#![no_main]

use std::collections::BTreeMap;

use consensus::replay::Restored;
use control::{CONTROL, Name, Newcomer, Operation, Request, Roster, State, Welcome};
use fuzz::Bytes;
use kernel::{ClusterId, Lsn, Micros, Millis, NodeId, TokenId};
use node::cluster::formation::Formation;
use node::cluster::frames::{Said, swim_frame};
use node::cluster::kind;
use node::cluster::mind::{Admission, Begin, Effect, Mind, Options, Start, Ticket};

const ME: NodeId = NodeId([1; 32]);
const PEER: NodeId = NodeId([2; 32]);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 8 {
        0 => said(input.rest()),
        1 => swim(input.rest()),
        2 => drop(Request::decode(input.rest()).map(|it| assert_eq!(Request::decode(&it.encode()), Ok(it)))),
        3 => drop(State::decode(input.rest()).map(|it| assert_eq!(State::decode(&it.encode()), Ok(it)))),
        4 => {
            let _ = Roster::decode(input.rest()).map(|it| assert_eq!(Roster::decode(&it.encode()), Ok(it)));
            let _ = Welcome::decode(input.rest()).map(|it| assert_eq!(Welcome::decode(&it.encode()), Ok(it)));
        }
        _ => mind(&mut input),
    }
});

fn said(bytes: &[u8]) {
    if let Ok(said) = Said::decode(bytes) {
        assert_eq!(Said::decode(&said.frame()[1..]), Ok(said));
    }
}

fn swim(bytes: &[u8]) {
    if let Ok(message) = p2p::swim::Message::decode(bytes) {
        let frame = swim_frame(&message);
        assert_eq!(p2p::swim::Message::decode(&frame[1..]), Ok(message));
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// The first member of a cluster, which leads, with a peer that was let in.
struct Host {
    mind: Mind,
    now: Micros,
    end: u64,
}

impl Host {
    fn new() -> Host {
        let addresses = vec!["127.0.0.1:7401".parse().expect("an address")];
        let formation = Formation {
            cluster: ClusterId([3; 16]),
            node: ME,
            zone: name("z"),
            addresses: addresses.clone(),
            keyspaces: BTreeMap::new(),
            at: Millis(0),
            seed: 1,
            version: kernel::Version::NEWEST,
        };
        let (mark, mut state) = formation.found().expect("sound");
        let (token, hash, expires) = (TokenId([5; 8]), [6; 32], Millis(u64::MAX));
        let admit = Operation::Admit { token, hash, node: PEER, zone: name("z"), addresses };
        for (id, operation) in [(7, Operation::IssueToken { token, hash, expires }), (8, admit)] {
            let id = control::OperationId([id; 16]);
            state.apply(&Request { id, by: name("x"), at: Millis(1), operation }).expect("sound");
        }
        let begin = Begin::Resume { restored: Box::new(Restored::first(mark)), state: Box::new(state) };
        let start = Start { node: ME, incarnation: 1, seed: 9, options: Options::default(), begin };
        let mut host = Host { mind: Mind::new(Micros(0), start).expect("a member"), now: Micros(0), end: 0 };
        (0..60).for_each(|_| host.turn(50, true));
        host.mind.peer_up(host.now, PEER);
        host
    }

    fn turn(&mut self, millis: u64, takes: bool) {
        self.now = self.now.plus_millis(millis);
        self.mind.wake(self.now);
        if !self.mind.records(self.now).is_empty() {
            if takes {
                self.end += 1;
                self.mind.wrote(self.now, Lsn(self.end));
                self.mind.synced(self.now, Lsn(self.end));
            } else {
                self.mind.refused(self.now);
            }
        }
        let mut effects = Vec::new();
        self.mind.finish(self.now, &mut effects);
        for effect in effects {
            if let Effect::Persist { mark, .. } = effect {
                self.mind.persisted(self.now, mark.index);
            }
        }
    }
}

fn mind(input: &mut Bytes<'_>) {
    let mut host = Host::new();
    let leader = host.mind.replica().id().get() as u8;
    while !input.is_empty() {
        let (does, kind_of) = (input.byte(), input.byte() % 4);
        let mut frame = Vec::new();
        match kind_of {
            // A sound head, so that bodies are reached: version, group, from, incarnation, to, term.
            0 => {
                frame.extend([kind::CONSENSUS, 1]);
                frame.extend(CONTROL.0.to_le_bytes());
                frame.extend([leader + 1, 1, leader, 1 + input.byte() % 8]);
            }
            1 => frame.push(kind::SWIM),
            2 => frame.push(kind::CONTROL),
            _ => {}
        }
        frame.extend_from_slice(input.piece());
        host.mind.receive(host.now, PEER, &frame);
        match does % 8 {
            0 => host.mind.peer_down(host.now, PEER),
            1 => host.mind.peer_up(host.now, PEER),
            2 => {
                let newcomer = Newcomer { zone: name("y"), addresses: vec!["[::1]:1".parse().expect("sound")] };
                let (token, hash, node) = (TokenId([does; 8]), [does; 32], NodeId([does; 32]));
                let admission = Admission { token, hash, node, newcomer };
                host.mind.admit(host.now, Ticket(u64::from(does)), admission);
            }
            3 => host.mind.checkpoint(),
            _ => {}
        }
        host.turn(u64::from(does), does % 5 != 0);
    }
    let _ = host.mind.status();
}
