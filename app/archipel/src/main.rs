//! The `archipel` command.

use std::path::PathBuf;

use consensus::Durability;
use kernel::KeyspaceId;
use server::node::Keyspace;
use server::{Node, NodeOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let args: Vec<String> = std::env::args().collect();
    let port: u16 = args[1].parse()?;
    let durability = if args[2] == "always" { Durability::Always } else { Durability::EverySec };
    let keyspaces = (0..16)
        .map(|id| Keyspace {
            id: KeyspaceId(id),
            durability,
            memory: args.get(4).and_then(|mib| mib.parse::<usize>().ok()).map(|mib| mib << 20),
            eviction: Default::default(),
        })
        .collect();
    let node = Node::start(NodeOptions {
        data_dir: PathBuf::from(&args[3]),
        redis: ([127, 0, 0, 1], port).into(),
        keyspaces,
        clients_max: 20_000,
        log: Default::default(),
        engine: Default::default(),
        checkpoint: Default::default(),
    })?;
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])?;
    signals.forever().next();
    node.stop()?;
    Ok(())
}
