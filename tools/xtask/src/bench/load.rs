//! A small pipelined load client: threads, plain sockets, keys and values that are functions of a number.
//!
//! It checks every byte it reads back, so a fast wrong answer is counted as wrong, not as fast.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Connections, each with a thread of its own.
const CONNECTIONS: u64 = 8;

/// Commands in flight on each connection.
const DEPTH: u64 = 16;

/// How long a reply may take before the server counts as hung.
const REPLY_SECONDS_MAX: u64 = 60;

/// Seeded chance (splitmix64).
#[derive(Clone, Copy)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..1`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Which keys are asked for.
#[derive(Clone, Copy)]
pub enum Spread {
    Uniform,
    /// Rank r with weight 1 / r^0.99, ranks scattered over the keys.
    Zipf(Zipf),
}

impl Spread {
    fn pick(&self, keys: u64, chance: &mut Chance) -> u64 {
        match self {
            Spread::Uniform => chance.next() % keys,
            Spread::Zipf(zipf) => zipf.pick(chance),
        }
    }
}

/// Zipf's distribution with exponent 0.99, drawn as in Gray et al., "Quickly generating billion-record
/// synthetic databases" (1994), which YCSB uses too.
#[derive(Clone, Copy)]
pub struct Zipf {
    keys: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    const THETA: f64 = 0.99;

    /// Over `keys` keys. O(keys) once.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 keys")]
    pub fn new(keys: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-Self::THETA)).sum::<f64>();
        let all = zeta(keys);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - Self::THETA)) / (1.0 - zeta(2) / all);
        Zipf { keys, zeta: all, alpha: 1.0 / (1.0 - Self::THETA), eta }
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 keys")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is in 0..keys")]
    fn pick(&self, chance: &mut Chance) -> u64 {
        let u = chance.unit();
        let scaled = u * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(Self::THETA) {
            1
        } else {
            (self.keys as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64
        };
        // Neighbours in rank are not neighbours in key: the factor is prime, so this permutes.
        rank.min(self.keys - 1) * 1_000_003 % self.keys
    }
}

/// The keys `0..keys`, 16 bytes each, with values of `value` bytes.
#[derive(Clone, Copy)]
pub struct Data {
    pub keys: u64,
    pub value: usize,
}

impl Data {
    /// Writes every key once and waits for every OK.
    pub fn store(&self, port: u16) -> Result<()> {
        self.each_part(|keys| {
            let mut connection = Connection::open(port)?;
            let mut value = Vec::new();
            for batch in batches(keys) {
                for key in batch.clone() {
                    fill(key, self.value, &mut value);
                    connection.put(&[b"SET", name(key).as_bytes(), &value]);
                }
                connection.send()?;
                for _ in batch {
                    connection.expect("+OK")?;
                }
            }
            Ok(0)
        })
        .map(drop)
    }

    /// Reads every key once; how many answers were missing or wrong.
    pub fn wrong(&self, port: u16) -> Result<u64> {
        self.each_part(|keys| {
            let mut connection = Connection::open(port)?;
            batches(keys).map(|batch| connection.get_batch(&batch.collect::<Vec<_>>(), self.value)).sum()
        })
    }

    /// Runs `act` on the keys in parts, at once; the sum of what the parts gave.
    pub fn each_part(&self, act: impl Fn(Range<u64>) -> Result<u64> + Sync) -> Result<u64> {
        let part = self.keys.div_ceil(CONNECTIONS);
        std::thread::scope(|scope| {
            let parts = (0..CONNECTIONS).map(|n| (n * part).min(self.keys)..((n + 1) * part).min(self.keys));
            let threads: Vec<_> = parts.map(|keys| scope.spawn(|| act(keys))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a load thread does not panic")).sum()
        })
    }

    /// GETs until `end`, counted in windows of `window` since `start`.
    pub fn get_until(
        &self,
        port: u16,
        spread: Spread,
        start: Instant,
        end: Instant,
        window: Duration,
    ) -> Result<Gets> {
        std::thread::scope(|scope| {
            let one = |seed: u64| {
                let mut connection = Connection::open(port)?;
                let mut chance = Chance::new(seed);
                let mut gets = Gets::default();
                while Instant::now() < end {
                    let keys: Vec<u64> = (0..DEPTH).map(|_| spread.pick(self.keys, &mut chance)).collect();
                    gets.wrong += connection.get_batch(&keys, self.value)?;
                    gets.count(start.elapsed(), window, DEPTH);
                }
                Ok(gets)
            };
            let threads: Vec<_> = (0..CONNECTIONS).map(|n| scope.spawn(move || one(n))).collect();
            let mut total = Gets::default();
            for thread in threads {
                let gets: Result<Gets> = thread.join().expect("a load thread does not panic");
                total.add(&gets?);
            }
            Ok(total)
        })
    }

    /// GETs each second over `seconds`; an error if an answer is wrong.
    pub fn get_rate(&self, port: u16, spread: Spread, seconds: u64) -> Result<f64> {
        let (start, length) = (Instant::now(), Duration::from_secs(seconds));
        let gets = self.get_until(port, spread, start, start + length, length)?;
        ensure!(gets.wrong == 0, "{} answers under load were wrong", gets.wrong);
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds")]
        Ok(gets.windows.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
    }
}

/// Answers counted by window of time.
#[derive(Default)]
pub struct Gets {
    pub windows: Vec<u64>,
    pub wrong: u64,
}

impl Gets {
    fn count(&mut self, at: Duration, window: Duration, answers: u64) {
        let index = usize::try_from(at.as_nanos() / window.as_nanos()).expect("a bench has few windows");
        self.windows.resize(self.windows.len().max(index + 1), 0);
        self.windows[index] += answers;
    }

    fn add(&mut self, other: &Gets) {
        self.windows.resize(self.windows.len().max(other.windows.len()), 0);
        self.windows.iter_mut().zip(&other.windows).for_each(|(own, more)| *own += more);
        self.wrong += other.wrong;
    }
}

fn batches(keys: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = keys.end;
    keys.step_by(usize::try_from(DEPTH).expect("a depth is small"))
        .map(move |start| start..(start + DEPTH).min(end))
}

/// The key of a number: 16 bytes.
pub fn name(key: u64) -> String {
    format!("k{key:015}")
}

/// The value of a number: bytes that do not compress.
fn fill(key: u64, bytes: usize, out: &mut Vec<u8>) {
    let mut chance = Chance::new(key);
    out.clear();
    while out.len() < bytes {
        out.extend_from_slice(&chance.next().to_le_bytes());
    }
    out.truncate(bytes);
}

/// A client connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    line: Vec<u8>,
}

/// A reply, as far as the benches ask.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple string, an error or an integer, with its first byte.
    Line(String),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

impl Connection {
    /// Connects to a server on this machine.
    pub fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(REPLY_SECONDS_MAX)))?;
        Ok(Connection {
            stream: BufReader::with_capacity(1 << 16, stream),
            out: Vec::new(),
            line: Vec::new(),
        })
    }

    /// Adds a command to what `send` will send.
    pub fn put(&mut self, words: &[&[u8]]) {
        self.out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what was put.
    pub fn send(&mut self) -> Result<()> {
        self.stream.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Sends one command and reads its reply.
    pub fn call(&mut self, words: &[&str]) -> Result<Reply> {
        self.put(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        self.send()?;
        self.reply()
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Result<Reply> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        let length =
            |text: &str| text.parse::<usize>().with_context(|| format!("a reply began with {line:?}"));
        match line.split_at_checked(1) {
            Some(("+" | "-" | ":", _)) => Ok(Reply::Line(line)),
            Some(("$" | "*", "-1")) => Ok(Reply::Nil),
            Some(("$", text)) => {
                let mut bytes = vec![0; length(text)? + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Bulk(bytes))
            }
            Some(("*", text)) => {
                (0..length(text)?).map(|_| self.reply()).collect::<Result<_>>().map(Reply::Array)
            }
            _ => bail!("the server closed the connection or answered {line:?}"),
        }
    }

    fn expect(&mut self, line: &str) -> Result<()> {
        match self.reply()? {
            Reply::Line(own) if own == line => Ok(()),
            other => bail!("{line} was expected, not {other:?}"),
        }
    }

    /// GETs `keys` in one batch; how many answers were not the value of their key.
    pub fn get_batch(&mut self, keys: &[u64], value: usize) -> Result<u64> {
        for &key in keys {
            self.put(&[b"GET", name(key).as_bytes()]);
        }
        self.send()?;
        let (mut wrong, mut expected) = (0, Vec::new());
        for &key in keys {
            fill(key, value, &mut expected);
            let right = matches!(self.reply()?, Reply::Bulk(bytes) if bytes == expected);
            wrong += u64::from(!right);
        }
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn keys_have_16_bytes_and_values_the_length_asked_for() {
        let mut value = Vec::new();
        fill(7, 1001, &mut value);
        assert_eq!((name(1_999_999).len(), value.len()), (16, 1001));
        let first = value.clone();
        fill(8, 1001, &mut value);
        assert_ne!(first, value);
    }

    #[test]
    fn zipf_favours_few_keys_as_its_exponent_says() {
        let (keys, draws) = (1000, 100_000_u32);
        let (zipf, mut chance) = (Zipf::new(keys), Chance::new(1));
        let mut counts = vec![0_u32; 1000];
        (0..draws).for_each(|_| counts[usize::try_from(zipf.pick(&mut chance)).unwrap()] += 1);
        let share = |rank: u64| {
            f64::from(counts[usize::try_from(rank * 1_000_003 % keys).unwrap()]) / f64::from(draws)
        };
        assert!((share(0) - 1.0 / zipf.zeta).abs() < 0.01, "{}", share(0));
        assert!((share(0) / share(1) - 2.0_f64.powf(0.99)).abs() < 0.15, "{} {}", share(0), share(1));
        assert!(counts.iter().filter(|&&count| count > 0).count() > 900);
    }

    #[test]
    fn batches_cover_a_range_once() {
        let all: Vec<u64> = batches(5..40).flatten().collect();
        assert_eq!(all, (5..40).collect::<Vec<_>>());
        assert_eq!(batches(3..3).count(), 0);
    }

    #[test]
    fn replies_are_read_and_wrong_values_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut right = Vec::new();
            fill(1, 8, &mut right);
            let mut script = b"$8\r\n".to_vec();
            script.extend_from_slice(&right);
            script.extend_from_slice(b"\r\n$-1\r\n-LOADING\r\n$1\r\nx\r\n*2\r\n:1\r\n*0\r\n");
            stream.write_all(&script).unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        });
        let mut connection = Connection::open(port).unwrap();
        assert_eq!(connection.get_batch(&[1, 2, 3, 4], 8).unwrap(), 3);
        let array = Reply::Array(vec![Reply::Line(":1".into()), Reply::Array(vec![])]);
        assert_eq!(connection.reply().unwrap(), array);
        drop(connection);
        server.join().unwrap();
    }
}
