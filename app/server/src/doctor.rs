//! Is this machine fit for a node? Each check says what it found, with figures, and what to do about it.
//!
//! Nothing is changed but a file in the data directory, which is removed again.

mod disk;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use crate::config::Config;
use crate::housekeep::proc_kib;

/// How a check ended; the worst is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works; it could work better.
    Better,
    /// It cannot be told from here.
    NotJudged,
    /// It must be mended.
    Bad,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Better => "advice",
            Verdict::NotJudged => "not judged",
            Verdict::Bad => "bad",
        }
    }
}

/// One check's result.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, in a sentence.
    pub found: String,
    /// What to do, if anything.
    pub advice: Option<String>,
    /// What was measured: name, value, unit.
    pub figures: Vec<(&'static str, u64, &'static str)>,
}

impl Finding {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
        Finding { name, verdict, found: found.into(), advice: None, figures: Vec::new() }
    }

    fn advise(mut self, advice: impl Into<String>) -> Finding {
        self.advice = Some(advice.into());
        self
    }

    fn figure(mut self, name: &'static str, value: u64, unit: &'static str) -> Finding {
        self.figures.push((name, value, unit));
        self
    }
}

/// Descriptors that a node needs besides one for each client: log, engine, listeners.
const DESCRIPTORS_OWN: u64 = 512;
/// A clock before 2024-01-01 is not set.
const CLOCK_SECONDS_MIN: u64 = 1_704_067_200;
/// Steps of the clock that tell one that stands still.
const CLOCK_MILLIS: u64 = 20;
/// Memory below which a node with defaults is cramped.
const MEMORY_BYTES_MIN: u64 = 512 << 20;

/// Looks at everything that `config` depends on. Takes a few seconds on a slow disk.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![descriptors(config), memory(), overcommit(), huge_pages(), backlog(), clock()];
    findings.push(port("redis port", config.redis_address(), "redis.port"));
    findings.push(port("admin port", config.admin_address(), "admin.port"));
    findings.extend(disk::examine(config));
    findings
}

fn descriptors(config: &Config) -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let (soft, needed) =
        (limit.current.unwrap_or(u64::MAX), config.redis.clients_max.get() + DESCRIPTORS_OWN);
    let found = format!("{soft} open files allowed; {needed} are needed for redis.clients_max");
    let verdict = if soft >= needed { Verdict::Good } else { Verdict::Better };
    let finding = Finding::new("open files", verdict, found).figure("nofile", soft, "files");
    if soft >= needed {
        return finding;
    }
    finding.advise(format!(
        "raise it with `ulimit -n {needed}` or LimitNOFILE={needed} in the unit, or lower redis.clients_max"
    ))
}

fn memory() -> Finding {
    let kib = |name| proc_kib("/proc/meminfo", name);
    let (Some(total), Some(free)) = (kib("MemTotal:"), kib("MemAvailable:")) else {
        return Finding::new("memory", Verdict::NotJudged, "/proc/meminfo cannot be read");
    };
    let found = format!("{} MiB in the machine, {} MiB available", total >> 20, free >> 20);
    let verdict = if free >= MEMORY_BYTES_MIN { Verdict::Good } else { Verdict::Better };
    let finding = Finding::new("memory", verdict, found).figure("available", free, "bytes");
    if free >= MEMORY_BYTES_MIN {
        return finding;
    }
    finding
        .advise("give the keyspaces a `memory` budget, so that entries leave memory before the machine swaps")
}

fn overcommit() -> Finding {
    match setting("/proc/sys/vm/overcommit_memory").as_deref() {
        None => Finding::new("overcommit", Verdict::NotJudged, "vm.overcommit_memory cannot be read"),
        Some("2") => Finding::new(
            "overcommit",
            Verdict::Better,
            "vm.overcommit_memory is 2: memory is strictly limited",
        )
        .advise(
            "a large allocation may fail, which ends the node; 0 and 1 are both well, nothing here forks",
        ),
        Some(value) => Finding::new("overcommit", Verdict::Good, format!("vm.overcommit_memory is {value}")),
    }
}

fn huge_pages() -> Finding {
    match setting("/sys/kernel/mm/transparent_hugepage/enabled").as_deref() {
        None => Finding::new("huge pages", Verdict::NotJudged, "transparent huge pages are not known here"),
        Some(value) if value.contains("[always]") => {
            Finding::new("huge pages", Verdict::Better, "transparent huge pages are always on").advise(
                "they make memory use and latency uneven: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            )
        }
        Some(value) => Finding::new("huge pages", Verdict::Good, format!("transparent huge pages: {value}")),
    }
}

fn backlog() -> Finding {
    let Some(value) = setting("/proc/sys/net/core/somaxconn").and_then(|text| text.parse::<u64>().ok())
    else {
        return Finding::new("backlog", Verdict::NotJudged, "net.core.somaxconn cannot be read");
    };
    let found = format!("net.core.somaxconn is {value}");
    if value >= 512 {
        return Finding::new("backlog", Verdict::Good, found);
    }
    Finding::new("backlog", Verdict::Better, found)
        .advise("many clients that connect at once may wait: sysctl -w net.core.somaxconn=4096")
}

fn setting(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Expiry follows the wall clock: it must be set, and it must move as time does.
fn clock() -> Finding {
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (began, steady) = (wall(), Instant::now());
    if began.as_secs() < CLOCK_SECONDS_MIN {
        return Finding::new("clock", Verdict::Bad, "the system clock is not set: it is before 2024")
            .advise("keys would expire wrongly; set it, and keep it with chrony or systemd-timesyncd");
    }
    std::thread::sleep(Duration::from_millis(CLOCK_MILLIS));
    let (moved, passed) = (wall().saturating_sub(began), steady.elapsed());
    let off = moved.abs_diff(passed);
    let finding = Finding::new("clock", Verdict::Good, "the system clock is set and moves as time does");
    let finding = finding.figure("difference", off.as_micros() as u64, "us");
    if off <= Duration::from_millis(CLOCK_MILLIS / 2) {
        return synchronised(finding);
    }
    Finding {
        verdict: Verdict::Better,
        found: format!("the system clock jumped by {off:?} while it was watched"),
        ..finding
    }
    .advise("something sets the clock in steps; keep it with chrony or systemd-timesyncd, which slew it")
}

/// What systemd-timesyncd or chrony leave behind tells that someone keeps the clock.
fn synchronised(finding: Finding) -> Finding {
    let kept = ["/run/systemd/timesync/synchronized", "/run/chrony", "/run/ntpd.pid"];
    if kept.iter().any(|path| std::path::Path::new(path).exists()) {
        return finding;
    }
    Finding { verdict: Verdict::Better, ..finding }
        .advise("nothing was found that keeps the clock right (chrony, systemd-timesyncd); in a container the host may")
}

fn port(name: &'static str, address: SocketAddr, setting: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::new(name, Verdict::Good, format!("{address} is free")),
        Err(error) => Finding::new(name, Verdict::Bad, format!("{address} cannot be had: {error}"))
            .advise(format!("stop what holds it (a running node is fine), or choose another with --port-offset 10 or `{setting}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Number;

    #[test]
    fn a_taken_port_is_bad_and_a_free_one_good() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = port("redis port", address, "redis.port");
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.advice.unwrap().contains("redis.port"));
        drop(taken);
        assert_eq!(port("redis port", address, "redis.port").verdict, Verdict::Good);
    }

    #[test]
    fn more_clients_than_open_files_get_advice() {
        let mut config = Config::default();
        config.redis.clients_max = Number::of(1);
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        config.redis.clients_max = Number::of(1_000_000);
        let expected = if limit >= 1_000_000 + DESCRIPTORS_OWN { Verdict::Good } else { Verdict::Better };
        assert_eq!(descriptors(&config).verdict, expected);
    }

    #[test]
    fn an_examination_measures_the_disk_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let findings = examine(&config);
        let disk = findings.iter().find(|finding| finding.name == "disk syncs").unwrap();
        assert!(disk.figures.iter().any(|(name, value, _)| *name == "p50" && *value > 0), "{disk:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
