//! What decides the values of sticky cookies where the configuration does not say it: drawn once, and kept with the data.
//!
//! So a client stays at its endpoint when another process takes the place of this one, and after a restart. The file is 32
//! bytes that only its owner may read: who has them could send a client to an endpoint of their choice.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The file's name in the data directory.
pub(super) const NAME: &str = "proxy.secret";
const BYTES: usize = 32;
/// Permissions that nobody but the owner has.
const MODE: u32 = 0o600;

/// The secret in `dir`, drawn when there is none; it is durable before it is returned. Only who has the directory asks.
pub(super) fn own(dir: &Path) -> io::Result<[u8; BYTES]> {
    match File::open(dir.join(NAME)) {
        Ok(file) => read(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => draw(dir),
        Err(error) => Err(error),
    }
}

fn read(file: &File) -> io::Result<[u8; BYTES]> {
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & !0o700 != 0 {
        return wrong(format!("it has mode {mode:04o}, so others can read it"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
    match <[u8; BYTES]>::try_from(&bytes[..]) {
        Ok(secret) => Ok(secret),
        Err(_) => wrong(format!("it does not have the {BYTES} bytes of a secret")),
    }
}

fn draw(dir: &Path) -> io::Result<[u8; BYTES]> {
    let mut secret = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let path = dir.join(NAME);
    let part = path.with_extension("secret.new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&part)?;
    // One that a crash left may have had other permissions.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(&secret)?;
    file.sync_all()?;
    std::fs::rename(&part, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_drawn_once_and_only_its_owner_can_read_it() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = dirs[0].path().join(NAME);
        std::fs::write(dirs[0].path().join("proxy.secret.new"), "half").unwrap();
        let secret = own(dirs[0].path()).unwrap();
        assert_eq!(own(dirs[0].path()).unwrap(), secret);
        assert_ne!(own(dirs[1].path()).unwrap(), secret);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(own(dirs[0].path()).unwrap_err().to_string().contains("0640"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for bytes in [&[][..], &[1; 31], &[1; 33]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(own(dirs[0].path()).unwrap_err().to_string().contains("32 bytes"), "{bytes:?}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "what is refused is never replaced");
        }
    }
}
