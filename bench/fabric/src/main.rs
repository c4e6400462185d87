//! One stream of small messages there and back, over the node's link, over libp2p-stream and over plain TCP with the
//! link's framing: `fabric-bench serve KIND CORE` and `fabric-bench drive KIND CORE PORT DEPTH MESSAGES`.
//!
//! All three are one thread at each end, batch what is ready into one write, and copy as little as their
//! interface allows. A server echoes. The driver keeps DEPTH messages under way and prints one line of figures:
//! nanoseconds of wall time, nanoseconds of its own CPU, and the median of the round trips in nanoseconds
//! (measured at depth 1 only).

mod libp2p_stream;
mod link;
mod plain;
mod pace;

use anyhow::{Context, Result, bail};

/// Bytes of a message.
const MESSAGE_BYTES: usize = 64;
/// Sockets are read in pieces of so many bytes, by all three.
const SCRATCH_BYTES: usize = 64 * 1024;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", kind, core] => {
            pin(core.parse().context("CORE")?)?;
            match kind {
                "link" => link::serve(),
                "plain" => plain::serve(),
                "libp2p" => libp2p_stream::serve(),
                _ => bail!("no such kind: {kind}"),
            }
        }
        ["drive", kind, core, port, depth, messages] => {
            pin(core.parse().context("CORE")?)?;
            let port = port.parse().context("PORT")?;
            let pace = pace::Pace::new(depth.parse().context("DEPTH")?, messages.parse().context("MESSAGES")?);
            match kind {
                "link" => link::drive(port, pace),
                "plain" => plain::drive(port, pace),
                "libp2p" => libp2p_stream::drive(port, pace),
                _ => bail!("no such kind: {kind}"),
            }
        }
        _ => bail!("usage: fabric-bench serve KIND CORE | drive KIND CORE PORT DEPTH MESSAGES"),
    }
}

/// Keeps this process on one core.
fn pin(core: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).context("cannot stay on that core")
}

/// Tells the driver's starter where to come.
fn announce(port: u16) {
    println!("{port}");
}
