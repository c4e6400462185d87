//! Once a second: what the process knows of itself goes to the worker, what clients asked of the process
//! comes back, and the data directory is measured against its quota.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use disk::log::LogBytes;
use gateway::resp::{Process, Request};
use kernel::{Micros, Millis};
use runtime::{Control, Remote};
use telemetry::{StorageMeters, WorkerMeters};

use crate::checkpoint::Asked;
use crate::keeping::Keeping;

/// How often it looks.
const PERIOD_SECONDS: u64 = 1;
/// How often the directory is measured when there is no quota, in periods.
const MEASURE_PERIODS: u64 = 15;
/// Ticks of a second in `/proc/self/stat`: fixed in Linux's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// What it works with.
pub(crate) struct Housekeeping {
    /// The workers.
    pub remotes: Vec<Remote>,
    /// Where disk figures come from and go to.
    pub meters: Arc<StorageMeters>,
    /// Asks for a checkpoint of everything.
    pub checkpoint: Arc<Asked>,
    /// The data directory.
    pub dir: PathBuf,
    /// Most bytes it may take; 0 for no limit.
    pub quota: u64,
    /// What is kept of the log for backups.
    pub keeping: Arc<Keeping>,
    /// What does not change while the process lives.
    pub process: Process,
    /// Called when a client asks for the node's end.
    pub on_stop: Box<dyn Fn() + Send>,
}

/// The thread that does it. Ended by [`Housekeeper::stop`].
pub(crate) struct Housekeeper {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Housekeeper {
    /// Starts the thread.
    pub fn start(keeping: Housekeeping) -> std::io::Result<Housekeeper> {
        let (end, ended) = channel();
        let thread =
            std::thread::Builder::new().name("housekeeping".into()).spawn(move || run(&keeping, &ended))?;
        Ok(Housekeeper { end, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the housekeeping thread ended badly");
        }
    }
}

fn run(keeping: &Housekeeping, ended: &Receiver<()>) {
    let (tell, told) = channel();
    for period in 0.. {
        refresh(keeping, &tell);
        keeping.keeping.expire(Millis(unix_millis()));
        if keeping.quota > 0 || period % MEASURE_PERIODS == 0 {
            measure(keeping);
        }
        match ended.recv_timeout(Duration::from_secs(PERIOD_SECONDS)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        for request in told.try_iter() {
            match request {
                Request::Checkpoint => keeping.checkpoint.ask(),
                Request::Stop { .. } => (keeping.on_stop)(),
            }
        }
    }
}

/// Hands the process's figures to the workers and asks for their clients' requests. They are told between two
/// turns, so they are read in the next period.
fn refresh(keeping: &Housekeeping, tell: &Sender<Request>) {
    let process = figures(keeping);
    for remote in &keeping.remotes {
        let (process, tell) = (process.clone(), tell.clone());
        remote.send(Control::Call(Box::new(move |worker| {
            *worker.process_mut() = process;
            let mut requests = Vec::new();
            worker.take_requests(&mut requests);
            for request in requests {
                // The receiver lives as long as the thread that asked.
                let _ = tell.send(request);
            }
        })));
    }
}

fn figures(keeping: &Housekeeping) -> Process {
    let meters = &keeping.meters;
    let sum =
        |figure: fn(&WorkerMeters) -> u64| keeping.remotes.iter().map(|remote| figure(remote.meters())).sum();
    let memory = Memory::read();
    let (user, system) = processor_micros().unwrap_or_default();
    Process {
        used_bytes: memory.resident,
        peak_bytes: memory.peak,
        rss_bytes: memory.resident,
        cpu_user_micros: user,
        cpu_system_micros: system,
        checkpoint_at: Micros(meters.checkpoint_millis.get() * 1000),
        checkpoints: meters.checkpoint_micros.distribution().count(),
        checkpoint_running: meters.checkpoint_running.get() > 0,
        checkpoint_failed: meters.checkpoint_failed.get() > 0,
        log_failed: meters.log_refusing.get() > 0,
        net_input_bytes: sum(|loops| loops.input_bytes.get()),
        net_output_bytes: sum(|loops| loops.output_bytes.get()),
        ..keeping.process.clone()
    }
}

/// What is known of the process at its start.
pub(crate) fn process(address: std::net::SocketAddr, config_file: Option<&Path>) -> Process {
    let text = |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let uname = rustix::system::uname();
    let parts = [uname.sysname(), uname.release(), uname.machine()];
    let mut random = [0; 20];
    let drawn = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random));
    if let Err(error) = drawn {
        // It tells one start from another, nothing more.
        tracing::warn!(%error, "the run id could not be drawn");
    }
    Process {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        address: address.to_string(),
        port: address.port(),
        executable: text(std::env::current_exe().ok()),
        config_file: text(config_file.and_then(|path| std::fs::canonicalize(path).ok())),
        os: parts.map(|part| part.to_string_lossy().into_owned()).join(" "),
        run_id: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        machine_bytes: proc_kib("/proc/meminfo", "MemTotal:").unwrap_or_default(),
        ..Process::default()
    }
}

/// What the process takes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
}

impl Memory {
    /// From `/proc`; zeros where there is none.
    pub fn read() -> Memory {
        let bytes = |name| proc_kib("/proc/self/status", name).unwrap_or_default();
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }
}

/// A figure that a file of `/proc` tells in KiB, in bytes.
pub(crate) fn proc_kib(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Processor time in the program and in the kernel.
pub(crate) fn processor_micros() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold spaces; user and system time are the 14th and 15th field.
    let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut micros = || Some(fields.next()?.parse::<u64>().ok()? * (1_000_000 / TICKS_PER_SECOND));
    Some((micros()?, micros()?))
}

fn measure(keeping: &Housekeeping) {
    let bytes = directory_bytes(&keeping.dir);
    let meters = &keeping.meters;
    meters.directory_bytes.set(bytes);
    let log = keeping.keeping.bytes();
    if keeping.quota > 0 && bytes > keeping.quota && log.reserved > 0 {
        // What is kept for backups goes before writes are refused.
        keeping.keeping.give_up();
    }
    let was = meters.quota_exceeded.get() > 0;
    let exceeded = exceeds(keeping.quota, bytes, log, was);
    if exceeded != was {
        meters.quota_exceeded.set(u64::from(exceeded));
        let quota = keeping.quota;
        if exceeded {
            tracing::error!(
                bytes,
                quota,
                "the data directory is above storage.disk_quota; writes are refused"
            );
        } else {
            tracing::info!(bytes, quota, "the data directory is below storage.disk_quota again");
        }
    }
    if exceeded {
        // A checkpoint gives the log behind it back.
        keeping.checkpoint.ask();
    }
}

/// The data directory's `bytes` are above a quota, also when the log has given back what it is about to. While writes are
/// refused, what leaves has to be gone before they are taken again.
const fn exceeds(quota: u64, bytes: u64, log: LogBytes, was: bool) -> bool {
    let soon = log.reserved + if was { 0 } else { log.leaving };
    quota > 0 && bytes.saturating_sub(soon) > quota
}

/// Bytes that the files below `dir` take on disk. Files that vanish meanwhile count nothing.
fn directory_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => directory_bytes(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_its_time() {
        let memory = Memory::read();
        assert!(memory.resident > 0);
        assert!(memory.peak >= memory.resident);
        assert!(processor_micros().is_some());
        assert!(proc_kib("/proc/meminfo", "MemTotal:").unwrap() > memory.resident);
    }

    #[test]
    fn what_the_log_gives_back_counts_against_a_quota_by_its_size() {
        #[rustfmt::skip] // columns
        let table = [
            // quota  bytes  reserved  leaving  was    exceeds
            (0,       900,   0,        0,       false, false), // no quota
            (100,     100,   0,        0,       false, false),
            (100,     101,   0,        0,       false, true),
            (100,     164,   64,       0,       false, false),
            (100,     165,   64,       0,       false, true),
            (100,     164,   0,        64,      false, false),
            // One segment on its way out helps by one segment, however far above the quota the rest is.
            (100,     165,   0,        64,      false, true),
            (100,     900,   0,        64,      false, true),
            (100,     164,   0,        64,      true,  true), // not yet gone
            (100,     228,   64,       64,      false, false),
            (100,     20,    64,       64,      false, false),
        ];
        for (row, (quota, bytes, reserved, leaving, was, expected)) in table.into_iter().enumerate() {
            let log = LogBytes { needed: 64, reserved, leaving };
            assert_eq!(exceeds(quota, bytes, log, was), expected, "row {row}");
        }
    }

    #[test]
    fn a_directory_is_measured_with_its_subdirectories() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("inner/file"), vec![1; 10_000]).unwrap();
        assert!(directory_bytes(dir.path()) >= 10_000);
        assert_eq!(directory_bytes(&dir.path().join("absent")), 0);
    }
}
