//! Reading and replacing small files: bounded, atomic, durable, private.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// No file of ours is larger.
const MAX_SIZE: u64 = 16 << 20;
const LEFTOVER: &str = ".left-tmp";

/// Replaces `path` by `bytes` with this mode. After a crash it holds the whole old or the whole
/// new content; when this returns, the new content is durable.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = write_aside(path, bytes, mode)?;
    crash_point!("record-written");
    if let Err(e) = fs::rename(&aside, path) {
        let _ = fs::remove_file(&aside);
        return Err(e);
    }
    sync_parent(path)
}

/// Writes `bytes` durably to a new file beside `path` and returns its name.
pub(super) fn write_aside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or(ErrorKind::InvalidInput)?
        .to_string_lossy();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_file_name(format!(".{name}.{}.{count}{LEFTOVER}", std::process::id()));
    // A leftover of a killed process that had our id.
    remove(&aside)?;
    let written = write_new(&aside, bytes, mode);
    if let Err(e) = written {
        let _ = fs::remove_file(&aside);
        return Err(e);
    }
    Ok(aside)
}

/// Writes a file that must not exist yet, durably (its name becomes durable with the folder).
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a change of names in the folder of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
    File::open(parent)?.sync_all()
}

/// Reads a whole small file; `None` when there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            "the file is far too large",
        ));
    }
    Ok(Some(bytes))
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes what killed processes left half written in `dir`. Only for who holds the lock.
pub(super) fn remove_leftovers(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().ends_with(LEFTOVER) {
            // It costs only space when it cannot be removed.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn replacing_keeps_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replace_leaves_the_old_content_and_no_leftover() {
        let dir = tempfile::tempdir().unwrap();
        // A folder in the way makes the rename fail.
        let path = dir.path().join("x.toml");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"two", 0o600).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_killed_processes_go() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!(".a.1.2{LEFTOVER}")), b"half").unwrap();
        fs::write(dir.path().join("a"), b"whole").unwrap();
        remove_leftovers(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(read(&dir.path().join("none")).unwrap().is_none());
    }
}
