//! What the index has committed and the disk may not have yet: what peers told, which they tell again to
//! whom a power cut takes it.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sqlite::with_suffix;

/// Brings such commits of one index to the disk, on any thread, without waiting for the index's writer.
#[derive(Clone)]
pub struct Unsynced(Arc<Inner>);

struct Inner {
    log: PathBuf,
    any: AtomicBool,
}

impl Unsynced {
    pub(super) fn new(index: &Path) -> Self {
        Self(Arc::new(Inner {
            log: with_suffix(index, "-wal"),
            any: AtomicBool::new(false),
        }))
    }

    /// A commit was done, with all before it on the disk or not. Only for the writer.
    pub(super) fn committed(&self, synced: bool) {
        self.0.any.store(!synced, Ordering::Release);
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// Waits until all that is committed now is on the disk.
    ///
    /// # Errors
    /// When the disk can not take it; it is tried again the next time.
    pub fn sync(&self) -> Result<(), Error> {
        if !self.0.any.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        match File::open(&self.0.log).and_then(|log| log.sync_data()) {
            // Somebody removed it, and with it all that could be synced.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => {
                self.0.any.store(true, Ordering::Release);
                let text = format!("{} can not be synced: {e}", self.0.log.display());
                Err(Error::new(e.kind(), text))
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Not forgotten where it fails.
    #[test]
    fn the_log_is_synced_and_nothing_else_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("index.db-wal");
        let unsynced = Unsynced::new(&dir.path().join("index.db"));
        // Nothing is opened when there is nothing.
        unsynced.sync().unwrap();
        // Can be read, and not synced.
        symlink("/proc/version", &log).unwrap();
        unsynced.committed(false);
        for _ in 0..2 {
            let error = unsynced.sync().unwrap_err().to_string();
            assert!(error.contains("index.db-wal can not be synced"), "{error}");
            assert!(unsynced.any());
        }
        fs::remove_file(&log).unwrap();
        fs::write(&log, "log").unwrap();
        unsynced.sync().unwrap();
        assert!(!unsynced.any());
        // Somebody removes it.
        unsynced.committed(false);
        fs::remove_file(&log).unwrap();
        unsynced.sync().unwrap();
        assert!(!unsynced.any());
    }
}
