//! What nodes hand each other about commands: arbitrary letters, whole, in parts and to a worker whose clients wait for
//! answers. What was read writes and reads back the same; a worker takes all of it without a panic.
#![no_main]

use std::net::SocketAddr;

use fuzz::Bytes;
use journal::record::Record;
use kernel::codec::{Reader, put_varint};
use kernel::{GroupId, KeyspaceId, Lsn, Micros, NodeId};
use node::cluster::post::{Caller, Joiner, Letter};
use node::cluster::{Start, kind};
use node::{AppendError, LogSink, Settings, Worker};
use storage::Registry;
use storage::apply::NoScripts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 3 {
        0 => letters(input.rest()),
        1 => joined(&mut input),
        _ => worker(&mut input),
    }
});

fn letters(bytes: &[u8]) {
    let (registry, mut reader) = (Registry::new(), Reader::new(bytes));
    while let Ok(letter) = Letter::read(&mut reader, &registry) {
        let mut again = Vec::new();
        letter.put(&mut again);
        assert_eq!(Letter::read(&mut Reader::new(&again), &registry), Ok(letter));
    }
}

fn joined(input: &mut Bytes<'_>) {
    let mut joiner = Joiner::default();
    while !input.is_empty() {
        let _ = joiner.take(input.piece());
    }
}

struct Memory;

impl LogSink for Memory {
    fn append(&mut self, _: &[Record<'_>], _: consensus::Durability) -> Result<Lsn, AppendError> {
        Ok(Lsn(1))
    }
}

fn worker(input: &mut Bytes<'_>) {
    let start = Start {
        node: NodeId([1; 32]),
        incarnation: consensus::Incarnation(2),
        seed: 1,
        chance: 1,
        kept: Default::default(),
    };
    let mut now = Micros(1_000_000);
    let mut worker = Worker::new(Settings::default(), Vec::new(), Box::new(NoScripts), 7).with_cluster(start);
    let partitions = placement::Partitions::new(2).expect("two");
    worker.lay(KeyspaceId(0), partitions);
    let peers = [NodeId([2; 32]), NodeId([3; 32])];
    for (partition, peer) in (0..).zip(peers) {
        worker.place_copies(GroupId::new(KeyspaceId(0), partition), vec![peer], 1);
        worker.peer_up(now, peer);
    }
    let conn = worker.connect(now, SocketAddr::from(([127, 0, 0, 1], 1))).expect("there is room");
    let commands = b"SET a 1\r\nMGET a b\r\nDBSIZE\r\nKEYS *\r\nSCAN 0\r\nRANDOMKEY\r\nMSET a 1 b 2\r\nWATCH a\r\n";
    worker.receive(now, conn, commands);
    while !input.is_empty() {
        let (does, peer) = (input.byte(), peers[usize::from(input.byte()) % 2]);
        let mut frame = vec![kind::PARCELS, 0];
        put_varint(&mut frame, 1);
        match does % 6 {
            0 => frame.extend_from_slice(input.piece()),
            1 => {
                let caller = caller(conn, input);
                Letter::Reply { caller, life: 2, bytes: input.piece() }.put(&mut frame);
            }
            2 => {
                let (caller, attempt) = (caller(conn, input), input.byte() % 4);
                let leader = [None, Some(peers[0]), Some(peers[1]), Some(NodeId([1; 32]))];
                let leader = leader[usize::from(input.byte()) % 4];
                Letter::Misdirected { caller, life: 2, attempt, leader, epoch: 1 }.put(&mut frame);
            }
            3 => worker.peer_down(now, peer),
            4 => worker.peer_up(now, peer),
            _ => frame = [&[kind::PARCELS][..], input.piece()].concat(),
        }
        worker.peer_frame(now, peer, &frame);
        now = now.plus_millis(u64::from(input.byte()));
        worker.wake(now);
        worker.end_turn(now, &mut Memory);
        worker.take_frames(&mut Vec::new());
        if let Some((out, _)) = worker.output(conn) {
            out.clear();
            worker.drained(conn);
        }
    }
}

fn caller(conn: kernel::ConnId, input: &mut Bytes<'_>) -> Caller {
    let part = input.byte() % 4;
    let sequence = u64::from(input.byte() % 16);
    Caller { conn: conn.0 & 0xFFFF_FFFF_FFFF, sequence, part: part.checked_sub(1).map(u16::from) }
}
