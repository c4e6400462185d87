//! File systems of a run's own: a bounded one in memory, and one whose power can be cut. Both need root.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::campaign::Failure;

/// Waits for a line, then shuts the file system down without writing anything back (`EXT4_IOC_SHUTDOWN` with
/// `NOLOGFLUSH`). The call needs an ioctl with a raw pointer, which safe Rust does not have.
const CUTTER: &str = "import fcntl, os, struct, sys\n\
    fd = os.open(sys.argv[1], os.O_RDONLY)\n\
    print('ready', flush=True)\n\
    sys.stdin.readline()\n\
    fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))\n\
    print('cut', flush=True)\n";

/// A mounted file system. Dropped, it is unmounted.
pub struct Mount {
    path: PathBuf,
    mounted: bool,
}

/// Says loudly why a campaign cannot run here, unless it can.
///
/// # Errors
/// [`Failure::NotJudged`]
pub fn needs_root() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::NotJudged("mounting a file system needs root; run it as root".into()))
}

fn tool(program: &str, args: &[&str]) -> Result<(), Failure> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(Failure::world(format!("run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::NotJudged(format!("{program} {} failed: {}", args.join(" "), said.trim())))
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str()
        .ok_or_else(|| Failure::NotJudged("the folder for temporary files has no readable name".into()))
}

impl Mount {
    /// A file system in memory of `bytes`.
    ///
    /// # Errors
    /// It cannot be had here.
    pub fn tmpfs(path: &Path, bytes: u64) -> Result<Mount, Failure> {
        std::fs::create_dir_all(path).map_err(Failure::world("make a mount point"))?;
        tool("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(path)?])?;
        Ok(Mount { path: path.to_owned(), mounted: true })
    }

    /// An ext4 file system in the file `image`, which is made anew.
    ///
    /// # Errors
    /// It cannot be had here.
    pub fn ext4(path: &Path, image: &Path, bytes: u64) -> Result<Mount, Failure> {
        std::fs::create_dir_all(path).map_err(Failure::world("make a mount point"))?;
        let file = std::fs::File::create(image).and_then(|file| file.set_len(bytes));
        file.map_err(Failure::world("make the image of a disk"))?;
        tool("mkfs.ext4", &["-q", "-F", text(image)?])?;
        let mut mount = Mount { path: path.to_owned(), mounted: false };
        mount.mount(image)?;
        Ok(mount)
    }

    /// Mounts `image` (again).
    ///
    /// # Errors
    /// It cannot be had here.
    pub fn mount(&mut self, image: &Path) -> Result<(), Failure> {
        tool("mount", &["-o", "loop", text(image)?, text(&self.path)?])?;
        self.mounted = true;
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// Something still uses it.
    pub fn unmount(&mut self) -> Result<(), Failure> {
        tool("umount", &[text(&self.path)?])?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            // The run is over; if something holds it, the name of the folder says whose it was.
            let _ = self.unmount();
        }
    }
}

/// A hand on the switch of an ext4 file system.
pub struct Cutter {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Cutter {
    /// Gets ready; the cut itself is then one system call.
    ///
    /// # Errors
    /// There is no python3.
    pub fn ready(path: &Path) -> Result<Cutter, Failure> {
        let mut command = Command::new("python3");
        command.args(["-c", CUTTER]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Failure::world("run python3"))?;
        let stdin = child.stdin.take().expect("stdin was asked for as a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("stdout was asked for as a pipe"));
        let mut cutter = Cutter { child, stdin, stdout };
        cutter.heard("ready")?;
        Ok(cutter)
    }

    /// Cuts the power: nothing that was not synced is ever written.
    ///
    /// # Errors
    /// The file system knows no such call.
    pub fn cut(mut self) -> Result<(), Failure> {
        self.stdin.write_all(b"\n").map_err(Failure::world("cut the power"))?;
        self.heard("cut")?;
        self.child.wait().map(drop).map_err(Failure::world("wait for the cut"))
    }

    fn heard(&mut self, word: &str) -> Result<(), Failure> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(Failure::world("hear from python3"))?;
        if line.trim() == word {
            return Ok(());
        }
        Err(Failure::NotJudged("this file system's power cannot be cut (EXT4_IOC_SHUTDOWN)".into()))
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
