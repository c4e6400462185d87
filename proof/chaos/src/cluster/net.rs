//! Hosts: a network namespace each, whose only way to the others is a TUN device that this process routes.
//!
//! A namespace lives as long as somebody holds it, so nothing is left when this process ends, however it ends. A namespace's
//! loopback is its own too: all hosts use the same ports there, and this process reaches them by going in for a moment.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::campaign::Failure;

/// Most hosts of a network.
pub const HOSTS_MAX: usize = 9;
/// Makes the device in the namespace where it runs, and hands it and the namespace over as open files. The call that
/// makes it (`TUNSETIFF`, with `IFF_TUN | IFF_NO_PI`) needs an ioctl with a raw pointer, which safe Rust does not have.
const MAKER: &str = "import fcntl, os, socket, struct, subprocess, sys\n\
    tun = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)\n\
    fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'tun0', 0x1001))\n\
    for words in ('link set lo up', f'addr add {sys.argv[1]}/24 dev tun0', 'link set tun0 up'):\n\
    \x20   subprocess.run(['ip', *words.split()], check=True)\n\
    own = os.open('/proc/self/ns/net', os.O_RDONLY)\n\
    socket.send_fds(socket.socket(fileno=0), [b'+'], [tun, own])\n";

/// A host.
pub struct Host {
    space: OwnedFd,
    home: OwnedFd,
    /// Its address for other hosts.
    pub address: Ipv4Addr,
}

/// The address of a host for the others; all networks use the same ones, since nobody else sees them.
#[must_use]
pub fn address(number: usize) -> Ipv4Addr {
    assert!(number < HOSTS_MAX, "a network has at most {HOSTS_MAX} hosts");
    Ipv4Addr::new(10, 77, 0, number as u8 + 1)
}

/// Which host has this address.
#[must_use]
pub fn number(address: [u8; 4]) -> Option<usize> {
    let [10, 77, 0, last] = address else { return None };
    let number = usize::from(last).checked_sub(1)?;
    (number < HOSTS_MAX).then_some(number)
}

/// Makes a host, and the device that its packets for others come from and go to.
///
/// # Errors
/// This user or machine cannot have it.
pub fn make(number: usize) -> Result<(Host, OwnedFd), Failure> {
    let address = address(number);
    let (ours, theirs) = UnixStream::pair().map_err(Failure::world("make a pair of sockets"))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "python3", "-c", MAKER, &address.to_string()]);
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_judged("run unshare"))?;
    // What it was given as its end of the pair must not stay open here, or its end would not be heard of.
    drop(command);
    let files = receive(&ours);
    let mut said = String::new();
    let heard = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said));
    heard.transpose().map_err(Failure::world("hear from unshare"))?;
    child.wait().map_err(Failure::world("wait for unshare"))?;
    let Some((tun, space)) = files? else {
        return Err(Failure::NotJudged(format!(
            "a network namespace with a TUN device cannot be had here (it needs root, unshare, ip and python3): {}",
            said.trim().lines().last().unwrap_or("nothing is said about it")
        )));
    };
    let home = File::open("/proc/thread-self/ns/net").map_err(Failure::world("open the own namespace"))?;
    Ok((Host { space, home: home.into(), address }, tun))
}

fn not_judged(action: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::NotJudged(format!("cannot {action}: {error}"))
}

/// The two files that the maker hands over; `None` if it ended without.
fn receive(socket: &UnixStream) -> Result<Option<(OwnedFd, OwnedFd)>, Failure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
    received.map_err(std::io::Error::from).map_err(Failure::world("receive a device"))?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            files.extend(some);
        }
    }
    let own = files.pop();
    Ok(files.pop().zip(own))
}

impl Host {
    /// Does something in the host's namespace: a socket that is opened there stays there, and so does a process.
    ///
    /// # Errors
    /// The system lets this thread not in.
    pub fn inside<T>(&self, act: impl FnOnce() -> T) -> Result<T, Failure> {
        /// Brings the thread home, whatever `act` does.
        struct Home<'a>(&'a OwnedFd);
        impl Drop for Home<'_> {
            fn drop(&mut self) {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("who may leave a namespace may come back");
            }
        }
        let moved = move_into_link_name_space(self.space.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map_err(std::io::Error::from).map_err(Failure::world("enter a network namespace"))?;
        let _home = Home(&self.home);
        Ok(act())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_of_hosts_and_back() {
        for at in 0..HOSTS_MAX {
            assert_eq!(number(address(at).octets()), Some(at));
        }
        for other in [[10, 77, 0, 0], [10, 77, 0, 10], [10, 77, 1, 1], [127, 0, 0, 1], [10, 77, 0, 255]] {
            assert_eq!(number(other), None, "{other:?}");
        }
    }
}
