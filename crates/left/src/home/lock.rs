//! One left a device, one left a share: advisory locks that a killed process cannot leave behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::error::UserError;
use super::folder::{MARKER_DIR, clean};

const HOME_LOCK: &str = "home.lock";
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Held until dropped. The file stays: removing it could part two processes onto two files.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Locks `<share>/.left/lock`, so that no second process (of this or another `LEFT_HOME`) works
/// on the same folder.
pub fn lock_share(dir: &Path) -> Result<Lock, UserError> {
    let what = "cannot synchronise";
    let path = dir.join(MARKER_DIR).join("lock");
    match lock(&path).map_err(|e| UserError::io(what, dir, &e))? {
        Ok(lock) => Ok(lock),
        Err(holder) => Err(UserError::new(
            format!("{what} {}", clean(dir)),
            format!("another left ({holder}) already works on this folder"),
            "stop that one, or let it go on",
        )),
    }
}

pub(super) fn lock_home(home: &Path) -> Result<Lock, UserError> {
    let path = home.join(HOME_LOCK);
    let mut tries = 0;
    let holder = loop {
        match lock(&path).map_err(|e| UserError::io("cannot lock the settings folder", home, &e))? {
            Ok(lock) => return Ok(lock),
            Err(holder) if tries >= TRIES => break holder,
            // Who only looks whether it is locked holds it for an instant.
            Err(_) => std::thread::sleep(PAUSE),
        }
        tries += 1;
    };
    Err(UserError::new(
        "cannot start",
        format!(
            "a left of this device already runs ({holder}) with {}",
            clean(home)
        ),
        "stop it, or set LEFT_HOME to another folder to be another device",
    ))
}

pub(super) fn is_home_locked(home: &Path) -> bool {
    match File::open(home.join(HOME_LOCK)) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// The lock, or who holds it.
fn lock(path: &Path) -> std::io::Result<Result<Lock, String>> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Ok(Lock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut text);
            Ok(Err(match text.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "a process that just starts".to_string(),
            }))
        }
        Err(TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_error_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_home(dir.path()).unwrap();
        let e = lock_home(dir.path()).unwrap_err().to_string();
        assert!(
            e.contains(&format!("process {}", std::process::id())),
            "{e}"
        );
        assert!(is_home_locked(dir.path()));
        drop(first);
        assert!(!is_home_locked(dir.path()));
        lock_home(dir.path()).unwrap();
    }

    #[test]
    fn a_share_is_locked_whatever_the_home() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(MARKER_DIR)).unwrap();
        let _first = lock_share(dir.path()).unwrap();
        let e = lock_share(dir.path()).unwrap_err().to_string();
        assert!(e.contains("another left"), "{e}");
    }
}
