//! What the kernel knows of a process: CPU time, memory; and of the machine: load.

use anyhow::{Context, Result};

/// Microseconds in one tick of `/proc/PID/stat`; Linux shows USER_HZ, which is 100 everywhere.
const TICK_MICROS: u64 = 10_000;

/// CPU time of all threads and of ended children since the process began, in microseconds.
///
/// Counted in ticks of 10 ms, so an interval should hold a second of work.
pub fn cpu_micros(pid: u32) -> Result<u64> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    cpu_of(&text).with_context(|| format!("/proc/{pid}/stat reads unlike proc(5)"))
}

fn cpu_of(stat: &str) -> Option<u64> {
    // The second field is a name in parentheses that may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: Option<Vec<u64>> = fields.get(11..15)?.iter().map(|field| field.parse().ok()).collect();
    Some(ticks?.iter().sum::<u64>() * TICK_MICROS)
}

/// Memory in use now and at most so far, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    pub now: u64,
    pub peak: u64,
}

/// The resident memory of a process.
pub fn resident(pid: u32) -> Result<Resident> {
    let text = read(&format!("/proc/{pid}/status"))?;
    resident_of(&text).with_context(|| format!("/proc/{pid}/status reads unlike proc(5)"))
}

fn resident_of(status: &str) -> Option<Resident> {
    Some(Resident { now: kib(status, "VmRSS:")?, peak: kib(status, "VmHWM:")? })
}

/// What a line of KiB says, in bytes.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The resident memory that is the process's own: no file is behind it, in bytes.
pub fn anonymous(pid: u32) -> Result<u64> {
    let text = read(&format!("/proc/{pid}/status"))?;
    kib(&text, "RssAnon:").with_context(|| format!("/proc/{pid}/status reads unlike proc(5)"))
}

/// The load average over the last minute.
pub fn load_average() -> Result<f64> {
    let text = read("/proc/loadavg")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("/proc/loadavg reads unlike proc(5)")
}

/// Memory that programs could still take, in bytes.
pub fn available_memory() -> Result<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    let kib: u64 =
        line.trim().trim_end_matches("kB").trim().parse().context("/proc/meminfo reads unlike proc(5)")?;
    Ok(kib * 1024)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_counts_user_system_and_ended_children() {
        let stat = "71 (a (b) c) S 1 71 71 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 5 0 5212 1 2";
        assert_eq!(cpu_of(stat), Some(127 * TICK_MICROS));
        assert_eq!(cpu_of("71 (short) S 1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(resident_of(status), Some(Resident { now: 1 << 20, peak: 2 << 20 }));
        assert_eq!(resident_of("Name:\tzombie\n"), None);
    }
}
