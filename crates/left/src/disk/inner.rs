//! [`Inner`]: one of LEFT's own folders in `.left`, held open, and made anew when somebody removes it
//! while LEFT runs (to free space, say).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Mode, mkdirat, openat};
use rustix::io::Errno;

use super::root::Root;
use super::sys::{self, DIR_HANDLE};

/// A folder in `.left` of mode 0700.
#[derive(Debug)]
pub(crate) struct Inner {
    /// `.left`. Where that itself is removed nothing can be made in this any more: no share comes into
    /// being again by itself, and [`Root::check`] says what happened.
    above: OwnedFd,
    name: &'static str,
    /// For people.
    shown: String,
    dir: RwLock<Arc<OwnedFd>>,
}

impl Inner {
    /// Opens the folder of this name, making it when missing. Never follows a link.
    pub(crate) fn open(root: &Root, name: &'static str) -> io::Result<Inner> {
        let above = root.inner()?;
        let dir = open_or_make(&above, name)?;
        Ok(Inner {
            above,
            name,
            shown: root.shown_inner(name),
            dir: RwLock::new(Arc::new(dir)),
        })
    }

    /// The handle. What it stands for may have been removed: only for what does no harm then.
    pub(crate) fn handle(&self) -> Arc<OwnedFd> {
        let dir = self.dir.read().unwrap_or_else(PoisonError::into_inner);
        dir.clone()
    }

    /// The handle of the folder that has the name now, made anew when nothing has. What is to stay in
    /// the share must not follow a folder that was moved elsewhere.
    ///
    /// # Errors
    /// One that names the folder and what to do, unless it is for lack of room.
    pub(crate) fn current(&self) -> io::Result<Arc<OwnedFd>> {
        let held = self.handle();
        Ok(self.renewed(&held)?.unwrap_or(held))
    }

    /// Does `work` in the folder; once more in a new one, where it found nothing and the folder was
    /// removed.
    ///
    /// # Errors
    /// Those of `work`, and of [`current`](Self::current).
    pub(crate) fn with<T>(&self, mut work: impl FnMut(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        let held = self.handle();
        match work(&held) {
            Err(e) if sys::errno(&e) == Some(Errno::NOENT) => match self.renewed(&held)? {
                Some(new) => work(&new),
                None => Err(e),
            },
            done => done,
        }
    }

    /// The folder that has the name now; `None` when it is the one that was `used`.
    fn renewed(&self, used: &Arc<OwnedFd>) -> io::Result<Option<Arc<OwnedFd>>> {
        if self.has_name(used)? {
            return Ok(None);
        }
        let mut held = self.dir.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been first.
        if !Arc::ptr_eq(&held, used) && self.has_name(&held)? {
            return Ok(Some(held.clone()));
        }
        let new = open_or_make(&self.above, self.name).map_err(|e| self.unusable(e))?;
        // As at the start it was found out where it lies; somebody may have mounted something there.
        if sys::stat_fd(&new)?.dev != sys::stat_fd(&*held)?.dev {
            return Err(self.unusable(Errno::XDEV.into()));
        }
        tracing::info!("{} was removed or moved away: made anew", self.shown);
        *held = Arc::new(new);
        Ok(Some(held.clone()))
    }

    /// Whether the name leads to this folder. Its inode is no other's while it is held.
    fn has_name(&self, dir: &OwnedFd) -> io::Result<bool> {
        let there = sys::stat_at(&self.above, self.name.as_bytes());
        let there = there.map_err(|e| self.unusable(e))?;
        let held = sys::stat_fd(dir)?;
        Ok(there.is_some_and(|t| t.file.ino == held.file.ino && t.dev == held.dev))
    }

    fn unusable(&self, e: io::Error) -> io::Error {
        let shown = &self.shown;
        let why = match sys::errno(&e) {
            // Known by their number to whoever asks.
            Some(Errno::NOSPC | Errno::DQUOT | Errno::ROFS) => return e,
            Some(Errno::NOTDIR | Errno::LOOP) => {
                "something else stands there; move it away".to_owned()
            }
            Some(Errno::XDEV) => "another file system is mounted there; unmount it".to_owned(),
            Some(Errno::ACCESS | Errno::PERM) => {
                "no permission; check the owner and mode of the folder above it".to_owned()
            }
            Some(Errno::NOENT) => "the folder above it was removed; put it back".to_owned(),
            _ => format!("{e}; look at what stands there"),
        };
        io::Error::other(format!(
            "{shown} was removed and cannot be made anew: {why}, and left goes on"
        ))
    }
}

/// Durable when made: what is renamed into it is to be found after a power cut.
fn open_or_make(above: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match mkdirat(above, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => sys::sync_dir(above)?,
        Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(openat(above, name, DIR_HANDLE, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use rustix::fs::readlinkat;

    use super::*;
    use crate::disk::init_share;

    struct Share {
        dir: tempfile::TempDir,
        inner: Inner,
    }

    impl Share {
        fn new() -> Share {
            let dir = tempfile::tempdir().unwrap();
            init_share(dir.path(), b"id = 1\n").unwrap();
            let inner = Inner::open(&Root::open(dir.path()).unwrap(), "history").unwrap();
            Share { dir, inner }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn make(&self, name: &str) -> io::Result<()> {
            self.inner
                .with(|dir| Ok(mkdirat(dir, name, Mode::from_raw_mode(0o700))?))
        }
    }

    #[test]
    fn a_folder_that_was_removed_is_made_anew() {
        let s = Share::new();
        let old = s.inner.handle();
        fs::remove_dir(s.at(".left/history")).unwrap();
        s.make("a").unwrap();
        assert!(s.at(".left/history/a").is_dir());
        let mode = fs::metadata(s.at(".left/history")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        // Who was about to do the same gets the new one, and nothing is made twice.
        let new = s.inner.renewed(&old).unwrap().unwrap();
        assert!(Arc::ptr_eq(&new, &s.inner.handle()));
        assert!(s.inner.renewed(&new).unwrap().is_none());
        // What is not found in a folder that is there stays not found.
        let read = s.inner.with(|dir| Ok(readlinkat(dir, "no", Vec::new())?));
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_that_was_moved_away_is_not_followed() {
        let s = Share::new();
        let away = s.at("away");
        fs::rename(s.at(".left/history"), &away).unwrap();
        let current = s.inner.current().unwrap();
        mkdirat(current, "a", Mode::from_raw_mode(0o700)).unwrap();
        assert!(s.at(".left/history/a").is_dir());
        assert_eq!(fs::read_dir(away).unwrap().count(), 0);
    }

    #[test]
    fn what_is_in_the_way_is_named_and_not_followed() {
        let s = Share::new();
        let (history, elsewhere) = (s.at(".left/history"), s.at("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::remove_dir(&history).unwrap();
        symlink(&elsewhere, &history).unwrap();
        for _ in 0..2 {
            let why = s.make("a").unwrap_err().to_string();
            let words = ".left/history was removed and cannot be made anew: something else stands there; move it away";
            assert!(why.starts_with(words), "{why}");
            fs::remove_file(&history).unwrap();
            fs::write(&history, "a file").unwrap();
        }
        assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
        fs::remove_file(&history).unwrap();
        s.make("a").unwrap();
    }

    #[test]
    fn without_the_folder_above_nothing_is_made() {
        let s = Share::new();
        fs::remove_dir_all(s.at(".left")).unwrap();
        let why = s.make("a").unwrap_err().to_string();
        assert!(why.contains("the folder above it was removed"), "{why}");
        assert!(!s.at(".left").exists());
        fs::create_dir(s.at(".left")).unwrap();
        s.make("a").unwrap_err();
        assert_eq!(fs::read_dir(s.at(".left")).unwrap().count(), 0);
    }
}
