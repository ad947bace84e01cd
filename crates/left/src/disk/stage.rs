//! [`Stage`]: `.left/stage/`, where incoming content lies until it is whole and verified.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use left_core::content::ContentId;
use left_core::plan::StageName;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::inner::Inner;
use super::root::Root;
use super::sys::{self, Naming};

/// Names that belong to work in progress of this process start so; never worth keeping.
const SCRATCH: &str = "tmp-";

/// Bytes of small contents that are held in memory until they are put in place.
const MAX_HELD: usize = 4 << 20;
/// Whoever waits for room goes on when no more than this is left: two threads that wake each other for
/// every content would cost more than the contents.
const LOW_HELD: usize = MAX_HELD / 2;
/// So long a content waits for room in memory before it becomes a file.
const WAIT: Duration = Duration::from_millis(100);

/// The stage of one share. Its files lie in a folder of 0700.
#[derive(Debug)]
pub struct Stage {
    dir: Inner,
    next: AtomicU64,
    held: Mutex<Held>,
    /// Something was taken out of it.
    taken: Condvar,
    /// How files that were made in it without a name get one; `None`: they can not here.
    naming: OnceLock<Option<Naming>>,
}

/// Small contents that are no files yet, by name.
#[derive(Debug, Default)]
struct Held {
    contents: HashMap<String, Vec<u8>>,
    bytes: usize,
    /// Nothing was taken out while somebody waited: nobody waits until something is.
    stuck: bool,
}

impl Stage {
    /// Opens the stage, making its folder when missing.
    pub fn open(root: &Root) -> io::Result<Stage> {
        let dir = Inner::open(root, "stage")?;
        // Names of an earlier run must not come again while its files may still lie here.
        let seed = sys::now();
        let first = (seed.secs as u64)
            .wrapping_mul(1_000_000)
            .wrapping_add(u64::from(seed.nanos / 1000));
        Ok(Stage {
            dir,
            next: AtomicU64::new(first << 8),
            held: Mutex::default(),
            taken: Condvar::new(),
            naming: OnceLock::new(),
        })
    }

    /// The name under which large content is staged: the same after a restart, so that a transfer can
    /// be resumed.
    pub fn name_for(content: &ContentId) -> StageName {
        StageName(content.to_string())
    }

    /// A name nobody uses, for content that is not worth resuming.
    pub fn unique_name(&self) -> StageName {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        StageName(format!("{SCRATCH}{n:x}"))
    }

    /// Makes a new file, open for reading and writing.
    pub fn create(&self, name: &StageName) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_with(name, flags)
    }

    /// Makes a new file of this mode, as far as the umask lets it, open for writing.
    pub(crate) fn create_as(&self, name: &StageName, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_as(name, flags, mode)
    }

    /// How files that were made without a name get one, where they can.
    pub(crate) fn naming(&self) -> Option<Naming> {
        *self.naming.get_or_init(|| {
            let file = self.create_unnamed(0o600).ok()?;
            let name = self.unique_name();
            let name = name.0.as_bytes();
            let dir = self.dir();
            let can = |how: &Naming| sys::name_new(&file, *how, &dir, name).is_ok();
            let how = [Naming::Handle, Naming::Proc].into_iter().find(can)?;
            fs::unlinkat(&dir, name, AtFlags::empty()).ok()?;
            Some(how)
        })
    }

    /// Pretends that this is how, or that they can not.
    #[cfg(test)]
    pub(crate) fn force_naming(&self, how: Option<Naming>) {
        self.naming.set(how).unwrap_or_default();
    }

    /// Makes a new file of this mode, as far as the umask lets it, that has no name yet and is gone
    /// when it is closed without one; open for writing.
    pub(crate) fn create_unnamed(&self, mode: u32) -> io::Result<File> {
        self.with(|dir| Ok(File::from(sys::create_unnamed(dir, mode)?)))
    }

    /// Stages a small content as a whole: in memory while there is room for it, or soon will be, since
    /// whoever puts it in place knows more of the file that it will be.
    pub fn put(&self, name: &StageName, bytes: &[u8]) -> io::Result<()> {
        checked(name)?;
        let mut held = self.held();
        let is_full = |held: &mut Held| held.bytes + bytes.len() > MAX_HELD;
        if is_full(&mut held) && !held.stuck {
            let is_high = |held: &mut Held| held.bytes > LOW_HELD;
            let waited = self.taken.wait_timeout_while(held, WAIT, is_high);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            held = after;
            held.stuck = timeout.timed_out() && is_full(&mut held);
        }
        if !is_full(&mut held) {
            held.bytes += bytes.len();
            held.contents.insert(name.0.clone(), bytes.to_vec());
            return Ok(());
        }
        drop(held);
        self.create(name)?.write_all(bytes)
    }

    /// Takes out a content that is held in memory.
    pub(crate) fn take_held(&self, name: &StageName) -> Option<Vec<u8>> {
        let mut held = self.held();
        let bytes = held.contents.remove(&name.0)?;
        held.bytes -= bytes.len();
        held.stuck = false;
        if held.bytes <= LOW_HELD && held.bytes + bytes.len() > LOW_HELD {
            self.taken.notify_all();
        }
        Some(bytes)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file for reading and writing; `None` when there is none. Anything else of that name is
    /// moved out of the way.
    pub fn open_existing(&self, name: &StageName) -> io::Result<Option<File>> {
        let stat = sys::stat_at(self.dir(), checked(name)?)?;
        if stat.is_some_and(|s| s.kind != FileType::RegularFile) {
            let aside = self.unique_name();
            let dir = self.dir();
            fs::renameat(&dir, checked(name)?, &dir, checked(&aside)?)?;
            return Ok(None);
        }
        let opened = match self.open_with(name, OFlags::RDWR) {
            // It carries its final mode already, from an apply that could not be done.
            Err(e) if sys::errno(&e) == Some(Errno::ACCESS) => self
                .make_ours(name)
                .and_then(|()| self.open_with(name, OFlags::RDWR)),
            other => other,
        };
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(e) if sys::io_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn make_ours(&self, name: &StageName) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(self.dir(), checked(name)?, flags, Mode::empty())?;
        if sys::stat_fd(&fd)?.kind == FileType::RegularFile {
            sys::chmod(&fd, 0o600)?;
        }
        Ok(())
    }

    fn open_with(&self, name: &StageName, flags: OFlags) -> io::Result<File> {
        self.open_as(name, flags, 0o600)
    }

    fn open_as(&self, name: &StageName, flags: OFlags, mode: u32) -> io::Result<File> {
        let name = checked(name)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(mode & 0o777);
        self.with(|dir| Ok(File::from(fs::openat(dir, name, flags, mode)?)))
    }

    /// Whether something of this name is staged.
    pub fn exists(&self, name: &StageName) -> io::Result<bool> {
        Ok(sys::stat_at(self.dir(), checked(name)?)?.is_some())
    }

    /// Gives a file another name, in place of what has that name. Returns whether there was one.
    pub fn rename(&self, from: &StageName, to: &StageName) -> io::Result<bool> {
        let dir = self.dir();
        match fs::renameat(&dir, checked(from)?, &dir, checked(to)?) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a file; nothing to do when there is none.
    pub fn remove(&self, name: &StageName) -> io::Result<()> {
        self.take_held(name);
        match fs::unlinkat(self.dir(), checked(name)?, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The names of all that is staged.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let names = self.with(|dir| sys::list(dir))?;
        Ok(names
            .into_iter()
            .filter_map(|n| String::from_utf8(n.into()).ok())
            .collect())
    }

    /// Removes all that `keep` does not want; returns how many. Not to be called while files are being
    /// staged under names that `keep` does not know.
    pub fn clean(&self, keep: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut gone = 0;
        let names = self.with(|dir| sys::list(dir))?;
        let dir = self.dir();
        for name in names {
            if std::str::from_utf8(&name).is_ok_and(&keep) {
                continue;
            }
            match fs::unlinkat(&dir, &*name, AtFlags::empty()) {
                Ok(()) => gone += 1,
                Err(Errno::ISDIR | Errno::PERM) => {
                    // Only empty folders are ever made here.
                    gone += usize::from(fs::unlinkat(&dir, &*name, AtFlags::REMOVEDIR).is_ok());
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(gone)
    }

    /// Bytes that may still be written on this file system.
    pub fn free_space(&self) -> io::Result<u64> {
        let s = self.with(|dir| {
            let handle = fs::openat(dir, c".", sys::DIR_READ, Mode::empty())?;
            Ok(fs::fstatvfs(&handle)?)
        })?;
        Ok(s.f_bavail.saturating_mul(s.f_frsize))
    }

    /// The handle of its folder, to take things out of it, or to find that they are not there.
    pub(crate) fn dir(&self) -> Arc<OwnedFd> {
        self.dir.handle()
    }

    /// Makes something in its folder: see [`Inner::with`].
    pub(crate) fn with<T>(&self, work: impl FnMut(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        self.dir.with(work)
    }
}

/// A stage name as one file name; refuses whatever could lead elsewhere.
pub(crate) fn checked(name: &StageName) -> io::Result<&[u8]> {
    let bytes = name.0.as_bytes();
    let bad = bytes.is_empty()
        || bytes.len() > 255
        || bytes.contains(&b'/')
        || bytes.contains(&0)
        || bytes == b"."
        || bytes == b"..";
    if bad {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a name in the stage",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

    use super::*;
    use crate::disk::init_share;

    fn name(n: usize) -> StageName {
        StageName(format!("s{n}"))
    }

    /// Whoever finds the stage full goes on when half of it is free, and no content becomes a file for that.
    #[test]
    fn who_waits_for_room_goes_on_when_half_is_free() {
        const LEN: usize = MAX_HELD / 64;
        let dir = tempfile::tempdir().unwrap();
        init_share(dir.path(), b"id = 1\n").unwrap();
        let stage = Stage::open(&Root::open(dir.path()).unwrap()).unwrap();
        let bytes = vec![7; LEN];
        for n in 0..64 {
            stage.put(&name(n), &bytes).unwrap();
        }
        std::thread::scope(|scope| {
            let late = scope.spawn(|| stage.put(&name(64), &bytes));
            for n in 0..32 {
                assert_eq!(stage.take_held(&name(n)).unwrap(), bytes);
            }
            late.join().unwrap().unwrap();
        });
        assert_eq!(stage.held().bytes, 33 * LEN);
        assert!(!stage.held().stuck);
        assert_eq!(stage.names().unwrap(), Vec::<String>::new());
        // Nobody takes anything: what has no room becomes a file, and only the first waits for that.
        for n in 65..98 {
            stage.put(&name(n), &bytes).unwrap();
        }
        assert!(stage.held().stuck);
        assert_eq!(stage.names().unwrap().len(), 2);
    }
}
