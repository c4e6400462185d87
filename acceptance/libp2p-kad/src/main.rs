//! Peers of rust-libp2p that serve Kademlia and do what lines on stdin say: `libp2p-kad-peer [PEERS]`.
//!
//! A line is `REQUEST PEER VERB …`; the answer to it is one JSON object on stdout with `"request": REQUEST`, in whatever order
//! they come. Before any of them there is a line for each peer, with its number, id and address. All ends with stdin.

mod peer;
mod strangers;

use std::future::Future;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use crate::peer::Order;

/// Most peers of one process.
const PEERS_MAX: usize = 256;
/// Orders of one peer that wait; further lines wait with them.
const ORDERS_MAX: usize = 256;

fn main() -> Result<()> {
    let peers = std::env::args().nth(1).map_or(Ok(1), |count| count.parse())?;
    if !(1..=PEERS_MAX).contains(&peers) {
        bail!("{peers} peers, where 1 to {PEERS_MAX} can be");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(peers))
}

async fn run(peers: usize) -> Result<()> {
    let mut orders = Vec::new();
    for number in 0..peers {
        let (sender, taken) = mpsc::channel(ORDERS_MAX);
        orders.push(sender);
        drop(tokio::spawn(aloud(peer::run(number, taken))));
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let mut words = line.split(' ').map(str::to_owned);
        let request = words.next().context("a line begins with its request")?;
        let peer = words.next().and_then(|number| orders.get(number.parse::<usize>().ok()?));
        let Some(peer) = peer else {
            say(&json!({"request": request, "error": "there is no such peer"}));
            continue;
        };
        peer.send(Order { request, words: words.collect() }).await.ok().context("the peer has ended")?;
    }
    Ok(())
}

/// A peer ends with the process; one that cannot go on ends it.
async fn aloud(peer: impl Future<Output = Result<()>>) {
    if let Err(error) = peer.await {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

fn say(line: &Value) {
    println!("{line}");
}
