//! The node's link: the control lane of two members.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use fabric::Identity;
use fabric::link::{Lane, Members, Settings, Standalone};
use kernel::{Micros, NodeId, Spoken};

use crate::pace::Pace;
use crate::{MESSAGE_BYTES, announce};

const WAIT: Duration = Duration::from_millis(100);

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn links(seed: u8, listener: Option<TcpListener>) -> Result<Standalone> {
    let members = Arc::new(Members::new([1, 2].map(|seed| identity(seed).id()).into()));
    Ok(Standalone::new(&identity(seed), &members, Settings { incarnation: 1, seed: 1, spoken: Spoken::ALL }, 16, listener)?)
}

pub fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(listener.local_addr()?.port());
    let mut loops = links(1, Some(listener))?;
    let began = Instant::now();
    let mut replies: Vec<(NodeId, usize)> = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    let mut events = Vec::new();
    let mut busy = false;
    loop {
        let mut echo = |from: NodeId, _lane: Lane, payload: &[u8]| {
            replies.push((from, payload.len()));
            bytes.extend_from_slice(payload);
        };
        let wait = if busy { Duration::ZERO } else { WAIT };
        let now = loops.begin_turn(wait, || clock(began), &mut echo)?;
        let mut rest = &bytes[..];
        for (to, length) in replies.drain(..) {
            let (payload, after) = rest.split_at(length);
            loops.links.send(to, Lane::Control, payload)?;
            rest = after;
        }
        bytes.clear();
        busy = loops.end_turn(now, &mut |from, _lane, payload| {
            replies.push((from, payload.len()));
            bytes.extend_from_slice(payload);
        });
        // Frames wait until the events before them are taken.
        loops.links.take_events(&mut events);
        events.clear();
        busy |= !replies.is_empty();
    }
}

pub fn drive(port: u16, mut pace: Pace) -> Result<()> {
    let mut loops = links(2, None)?;
    let began = Instant::now();
    let server = identity(1).id();
    loops.links.set_peer(clock(began), server, vec![(Ipv4Addr::LOCALHOST, port).into()]);
    let message = [7; MESSAGE_BYTES];
    let mut events = Vec::new();
    let mut busy = false;
    while !pace.is_done() {
        let wait = if busy { Duration::ZERO } else { WAIT };
        let now = loops.begin_turn(wait, || clock(began), &mut |_, _, payload| {
            assert_eq!(payload, message);
            pace.answered();
        })?;
        if loops.links.is_up(server, Lane::Control) {
            for _ in 0..pace.take() {
                loops.links.send(server, Lane::Control, &message)?;
            }
        }
        busy = loops.end_turn(now, &mut |_, _, payload| {
            assert_eq!(payload, message);
            pace.answered();
        });
        loops.links.take_events(&mut events);
        events.clear();
    }
    pace.report();
    Ok(())
}

fn clock(began: Instant) -> Micros {
    Micros(1_000_000 + began.elapsed().as_micros() as u64)
}
