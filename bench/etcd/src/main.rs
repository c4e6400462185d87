//! The same closed-loop clients for two key-value clusters: `etcd-bench KIND WORK CLIENTS OPERATIONS KEYS VALUE ADDRESS…`.
//!
//! KIND is `etcd` (gRPC, `etcdserverpb.KV`) or `resp` (Redis protocol), WORK is `fill` (every key once, nothing printed), `put` or `get`. Each client has a
//! connection of its own, to the addresses in turn, and one request under way. Keys are drawn uniformly; a
//! get expects its key's value, so that a fast wrong answer is an error. A tenth more requests come first and are not
//! counted. Prints one line: seconds, requests counted, p50 and p99 in microseconds.

mod etcd;
mod resp;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What all clients do.
#[derive(Clone, Copy)]
pub enum Work {
    Put,
    Get,
}

/// Keys and values that are functions of a number.
#[derive(Clone, Copy)]
pub struct Data {
    pub keys: u64,
    pub value: usize,
}

impl Data {
    /// 16 bytes.
    pub fn key(self, number: u64) -> String {
        format!("k{number:015}")
    }

    /// Bytes that depend on the key.
    pub fn value(self, number: u64) -> Vec<u8> {
        let letter = |at: usize| b'a' + ((number as usize + at * 7) % 26) as u8;
        (0..self.value).map(letter).collect()
    }
}

/// Seeded chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }
}

/// One connection.
enum Client {
    Etcd(etcd::Client),
    Resp(resp::Client),
}

impl Client {
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        match self {
            Client::Etcd(client) => client.put(key, value).await,
            Client::Resp(client) => client.put(key, value).await,
        }
    }

    async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Client::Etcd(client) => client.get(key).await,
            Client::Resp(client) => client.get(key).await,
        }
    }
}

/// What the clients share.
struct Shared {
    left: u64,
    counted: Vec<u32>,
    started: Option<Instant>,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, work, clients, operations, keys, value, addresses @ ..] = &args[..] else {
        bail!("usage: etcd-bench etcd|resp fill|put|get CLIENTS OPERATIONS KEYS VALUE ADDRESS...");
    };
    if addresses.is_empty() {
        bail!("at least one ADDRESS is needed");
    }
    let data = Data { keys: keys.parse().context("KEYS")?, value: value.parse().context("VALUE")? };
    let (clients, operations) = (clients.parse().context("CLIENTS")?, operations.parse().context("OPERATIONS")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match work.as_str() {
            "fill" => fill(kind, data, clients, addresses).await,
            "put" => drive(kind, Work::Put, data, clients, operations, addresses).await,
            "get" => drive(kind, Work::Get, data, clients, operations, addresses).await,
            _ => bail!("no such work: {work}"),
        }
    })
}

async fn connect(kind: &str, address: &str) -> Result<Client> {
    Ok(match kind {
        "etcd" => Client::Etcd(etcd::Client::connect(address).await?),
        "resp" => Client::Resp(resp::Client::connect(address).await?),
        _ => bail!("no such kind: {kind}"),
    })
}

/// Writes every key once.
async fn fill(kind: &str, data: Data, clients: u64, addresses: &[String]) -> Result<()> {
    let mut tasks = Vec::new();
    for number in 0..clients {
        let mut client = connect(kind, &addresses[number as usize % addresses.len()]).await?;
        tasks.push(tokio::task::spawn_local(async move {
            for key in (number..data.keys).step_by(clients as usize) {
                client.put(&data.key(key), &data.value(key)).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn drive(
    kind: &str,
    work: Work,
    data: Data,
    clients: u64,
    operations: u64,
    addresses: &[String],
) -> Result<()> {
    let warm = operations / 10;
    let shared = Rc::new(RefCell::new(Shared { left: operations + warm, counted: Vec::new(), started: None }));
    let mut tasks = Vec::new();
    for number in 0..clients {
        let mut client = connect(kind, &addresses[number as usize % addresses.len()]).await?;
        let shared = Rc::clone(&shared);
        tasks.push(tokio::task::spawn_local(async move {
            let mut chance = Chance(number + 1);
            loop {
                let begun = Instant::now();
                {
                    let mut shared = shared.borrow_mut();
                    if shared.left == 0 {
                        return anyhow::Ok(());
                    }
                    shared.left -= 1;
                    if shared.left < operations && shared.started.is_none() {
                        shared.started = Some(begun);
                    }
                }
                let key = chance.below(data.keys);
                match work {
                    Work::Put => client.put(&data.key(key), &data.value(key)).await?,
                    Work::Get => {
                        let value = client.get(&data.key(key)).await?;
                        if value.as_deref() != Some(&data.value(key)[..]) {
                            bail!("{} was answered with another value or none", data.key(key));
                        }
                    }
                }
                let micros = begun.elapsed().as_micros() as u32;
                let mut shared = shared.borrow_mut();
                if shared.started.is_some_and(|started| begun >= started) {
                    shared.counted.push(micros);
                }
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    let mut shared = shared.borrow_mut();
    let seconds = shared.started.context("nothing was counted")?.elapsed().as_secs_f64();
    shared.counted.sort_unstable();
    let at = |share: f64| shared.counted[((shared.counted.len() - 1) as f64 * share) as usize];
    println!("{seconds} {} {} {}", shared.counted.len(), at(0.5), at(0.99));
    Ok(())
}
