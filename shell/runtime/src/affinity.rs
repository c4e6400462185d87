//! A core of its own for each worker.
//!
//! A worker that the kernel moves to the core of the client that woke it, or away from a thread that syncs
//! the log, loses its caches and shares its core with them: `always` at 50 clients gave 45 to 71 thousand
//! SET/s without a core of its own and 75 to 96 thousand with one, on two cores. Nodes on one machine must
//! not take the same core, so a core is claimed by name for as long as its worker runs. The name is a Unix
//! socket's in the abstract namespace (unix(7)): nodes in different network namespaces do not see each other.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A claimed core. The claim ends with this value; the thread stays where it is.
#[derive(Debug)]
pub struct Core {
    /// The number that the kernel gives it.
    pub number: usize,
    _claim: UnixListener,
}

impl Core {
    /// Moves the calling thread to a core that no other worker on this machine has claimed and keeps it there.
    ///
    /// `None` if there is none, or the kernel does not allow it: then the thread runs wherever there is room.
    /// The first core of several is never taken, for most interrupts are handled there; the last comes first.
    #[must_use]
    pub fn claim() -> Option<Core> {
        let allowed = sched_getaffinity(None).ok()?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number)).collect();
        let core = cores.into_iter().skip(1).rev().find_map(Core::reserve)?;
        let mut only = CpuSet::new();
        only.set(core.number);
        sched_setaffinity(None, &only).ok()?;
        Some(core)
    }

    fn reserve(number: usize) -> Option<Core> {
        let name = SocketAddr::from_abstract_name(format!("archipel-core-{number}")).ok()?;
        // Nobody connects: the kernel lets go of the name when the process ends, however it ends.
        Some(Core { number, _claim: UnixListener::bind_addr(&name).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_never_share_a_core() {
        let claims: Vec<Option<Core>> = std::thread::scope(|scope| {
            (0..4).map(|_| scope.spawn(Core::claim)).map(|one| one.join().expect("it ends")).collect()
        });
        let mut taken: Vec<usize> = claims.iter().flatten().map(|core| core.number).collect();
        let count = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), count, "{claims:?}");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert!(count < cores, "one core at least is left to everything else");
    }

    #[test]
    fn a_core_is_free_again_when_its_claim_ends() {
        let name = CpuSet::MAX_CPU + 1; // No machine has it, so no node has either.
        let claim = Core::reserve(name).expect("nobody has it");
        assert!(Core::reserve(name).is_none());
        drop(claim);
        assert!(Core::reserve(name).is_some());
    }
}
