//! [`History`]: `.left/history/<time of the batch>/<path>`, where what was replaced or deleted goes.
//!
//! Things are only ever *renamed* into it. A program that still holds such a file open can write on to
//! it; [`History::look_again`] finds that after a grace time and brings the bytes back as a conflict
//! copy (DESIGN promise 4).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use left_core::entry::{FileStat, Mtime};
use left_core::path::RelPath;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::inner::Inner;
use super::rescue;
use super::root::Root;
use super::sys::{self, DIR_HANDLE, Stat};

mod kept;
mod thin;

pub use kept::{Kept, until_ms};
pub use thin::{Limits, THIN_EVERY, Thinned};

/// How long after a move into history a file is looked at once more.
pub const GRACE: Duration = Duration::from_secs(10);
/// What one batch remembers exactly; the rest is judged by its times.
const MAX_REMEMBERED: usize = 20_000;
/// Names the last batch that was looked at again.
const EXAMINED: &[u8] = b"examined";
/// How the names of batches end that are only looked at once more, and then deleted.
const DROPPED: &str = "-dropped";
const STAMP_LEN: usize = "20260101T000000.000Z".len();

/// A file that was written to after it had gone to history: its bytes are back in the share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// Where the file was.
    pub path: RelPath,
    /// The conflict copy with the late bytes: to be looked at.
    pub copy: RelPath,
}

/// The history of one share.
#[derive(Debug)]
pub struct History {
    dir: Inner,
    next: AtomicU64,
    grace: Duration,
    pending: Mutex<VecDeque<Pending>>,
}

#[derive(Debug)]
struct Pending {
    batch: String,
    due: Instant,
    items: Vec<(RelPath, FileStat)>,
    /// `items` is all there is; else the folder is walked and judged by times.
    complete: bool,
}

/// What one run of `apply` moves into history.
#[derive(Debug)]
pub(crate) struct Batch {
    name: String,
    dir: OwnedFd,
    items: Vec<(RelPath, FileStat)>,
    complete: bool,
}

impl History {
    /// Opens the history, making its folder when missing. What an earlier run had no time to look at
    /// again becomes due after the grace time.
    pub fn open(root: &Root) -> io::Result<History> {
        Self::open_with_grace(root, GRACE)
    }

    /// [`open`](Self::open) with another grace time.
    pub fn open_with_grace(root: &Root, grace: Duration) -> io::Result<History> {
        let dir = Inner::open(root, "history")?;
        let examined = read_examined(&dir.handle())?;
        let due = Instant::now() + grace;
        let pending = batches(&dir.handle())?
            .into_iter()
            .filter(|name| *name > examined || name.ends_with(DROPPED))
            .map(|batch| Pending {
                batch,
                due,
                items: Vec::new(),
                complete: false,
            })
            .collect();
        Ok(History {
            dir,
            next: AtomicU64::new(0),
            grace,
            pending: Mutex::new(pending),
        })
    }

    /// When [`look_again`](Self::look_again) has something to do; `None` for nothing pending.
    pub fn next_due(&self) -> Option<Instant> {
        self.lock().front().map(|p| p.due)
    }

    /// Looks at what came here more than the grace time ago: files that were written to since are
    /// copied back into the share as conflict copies.
    pub fn look_again(&self, root: &Root) -> Vec<Rescued> {
        let now = Instant::now();
        let mut rescued = Vec::new();
        loop {
            let pending = {
                let mut queue = self.lock();
                match queue.front() {
                    Some(p) if p.due <= now => queue.pop_front(),
                    _ => None,
                }
            };
            let Some(pending) = pending else { break };
            let safe = self.examine(root, &pending, &mut rescued);
            if safe && pending.batch.ends_with(DROPPED) {
                crash_point!("dropping");
                if let Err(error) = remove_tree(self.dir().as_fd(), pending.batch.as_bytes()) {
                    tracing::warn!(%error, "what was dropped still takes room in .left/history");
                }
            }
            let noted = self.dir.with(|dir| write_examined(dir, &pending.batch));
            if let Err(error) = noted {
                tracing::debug!(%error, "history: the mark of what was examined was not written");
            }
        }
        rescued
    }

    /// A new batch folder, named by the time.
    /// One that is `dropped` is deleted after the second look: other devices hold what is in it.
    pub(crate) fn batch(&self, dropped: bool) -> io::Result<Batch> {
        // What is kept must not go to a folder that was moved out of the share, such as to a trash.
        self.dir.current()?;
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let end = if dropped { DROPPED } else { "" };
            let name = format!("{}-{n:06}{end}", stamp(Timestamp::now()));
            let made = self.dir.with(|history| {
                fs::mkdirat(history, name.as_str(), Mode::from_raw_mode(0o700))?;
                Ok(rescue::open_sub(history, name.as_bytes())?)
            });
            let dir = match made {
                Err(e) if sys::errno(&e) == Some(Errno::EXIST) => continue,
                other => other?,
            };
            return Ok(Batch {
                name,
                dir,
                items: Vec::new(),
                complete: true,
            });
        }
    }

    /// Takes a batch over for the second look; one that got nothing is removed.
    pub(crate) fn seal(&self, batch: Batch) {
        if batch.items.is_empty() && batch.complete {
            // Fails when something (a crash's rest, a refused op's) lies there after all: it stays.
            let _ = remove_empty_dirs(self.dir().as_fd(), batch.name.as_bytes());
            return;
        }
        self.lock().push_back(Pending {
            batch: batch.name,
            due: Instant::now() + self.grace,
            items: batch.items,
            complete: batch.complete,
        });
    }

    /// The handle of its folder, as it is: for what is nothing where that was removed.
    pub(crate) fn dir(&self) -> Arc<OwnedFd> {
        self.dir.handle()
    }

    /// Every regular file that came here since a time: the handle of its folder, its name, its stat.
    pub(crate) fn each_since(
        &self,
        since: Mtime,
        each: &mut dyn FnMut(BorrowedFd<'_>, &[u8], &Stat),
    ) -> io::Result<()> {
        for batch in self.ids()? {
            if batch_time(&batch) >= since {
                let base = fs::openat(self.dir(), batch.as_str(), DIR_HANDLE, Mode::empty())?;
                walk(base.as_fd(), None, &mut |path, dir, stat| {
                    each(dir, path.name(), stat);
                });
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Pending>> {
        self.pending.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether all that was written late is safe.
    fn examine(&self, root: &Root, pending: &Pending, rescued: &mut Vec<Rescued>) -> bool {
        let Ok(base) = fs::openat(
            self.dir(),
            pending.batch.as_str(),
            DIR_HANDLE,
            Mode::empty(),
        ) else {
            return false;
        };
        let mut safe = true;
        let mut save = |path: &RelPath| match rescue::copy_back(root, base.as_fd(), path) {
            Ok(copy) => rescued.push(Rescued {
                path: path.clone(),
                copy,
            }),
            Err(error) => {
                safe = false;
                tracing::warn!(%path, %error, "late bytes stay in history: they could not be copied back");
            }
        };
        if pending.complete {
            for (path, old) in &pending.items {
                let now = root
                    .parent_beneath(base.as_fd(), path)
                    .ok()
                    .and_then(|dir| sys::stat_at(&dir, path.name()).ok().flatten());
                if now.is_some_and(|s| s.file.size != old.size || s.file.mtime != old.mtime) {
                    save(path);
                }
            }
        } else {
            let since = batch_time(&pending.batch);
            walk(base.as_fd(), None, &mut |path, _, stat| {
                // The rename set the ctime alone; a write sets both times, to the same instant.
                let stat = &stat.file;
                let written = stat.mtime == stat.ctime && stat.mtime >= since;
                if written {
                    save(path);
                }
            });
        }
        safe
    }
}

impl Batch {
    /// The handle of the folder for `path`'s name within the batch, made when missing. `None` when
    /// something of this batch is in the way there: a new batch is needed.
    pub(crate) fn slot(&self, root: &Root, path: &RelPath) -> io::Result<Option<OwnedFd>> {
        let dir = match root.parent_beneath(self.dir.as_fd(), path) {
            Ok(dir) => dir,
            Err(e) if sys::is_absent(e) => match self.make_parents(path) {
                Ok(dir) => dir,
                Err(e) if sys::is_absent(e) => return Ok(None),
                Err(e) => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        };
        match sys::stat_at(&dir, path.name())? {
            None => Ok(Some(dir)),
            Some(_) => Ok(None),
        }
    }

    /// Whether it is deleted after the second look.
    pub(crate) fn is_dropped(&self) -> bool {
        self.name.ends_with(DROPPED)
    }

    /// The name of its folder.
    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The batch folder's handle.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Remembers what lies here now, for the second look.
    pub(crate) fn keep(&mut self, path: RelPath, stat: FileStat) {
        if self.items.len() < MAX_REMEMBERED {
            self.items.push((path, stat));
        } else {
            self.complete = false;
        }
    }

    fn make_parents(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let mut at = fs::openat(&self.dir, c".", DIR_HANDLE, Mode::empty())?;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                break;
            }
            match fs::mkdirat(&at, part, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            at = fs::openat(&at, part, DIR_HANDLE, Mode::empty())?;
        }
        Ok(at)
    }
}

/// `20260131T235959.123Z`: sorts by time as text.
pub(crate) fn stamp(t: Timestamp) -> String {
    let t = t.to_zoned(TimeZone::UTC);
    format!("{}Z", t.strftime("%Y%m%dT%H%M%S.%3f"))
}

/// The instant a batch folder's name says; the beginning of time for a name that says none.
fn batch_time(name: &str) -> Mtime {
    let Some(ms) = until_ms(name) else {
        return Mtime::default();
    };
    Mtime {
        secs: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: (ms % 1000) as u32 * 1_000_000,
    }
}

/// The batch folders, oldest first.
fn batches(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let names = sys::list(dir)?;
    let text = names
        .into_iter()
        .filter_map(|n| String::from_utf8(n.into()).ok());
    Ok(text
        .filter(|n| n.len() > STAMP_LEN && n.as_bytes()[STAMP_LEN - 1] == b'Z')
        .collect())
}

fn read_examined(dir: &OwnedFd) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut text = String::new();
    match fs::openat(dir, EXAMINED, flags, Mode::empty()) {
        Ok(fd) => File::from(fd).take(256).read_to_string(&mut text)?,
        Err(e) if sys::is_absent(e) => 0,
        Err(e) => return Err(e.into()),
    };
    Ok(text)
}

/// Not synced: after a power cut a few batches are only looked at once more.
fn write_examined(dir: &OwnedFd, batch: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(dir, EXAMINED, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(fd);
    file.write_all(batch.as_bytes())?;
    file.set_len(batch.len() as u64)
}

/// Every regular file below a folder of the history, with the handle of its folder.
fn walk(
    dir: BorrowedFd<'_>,
    at: Option<&RelPath>,
    each: &mut dyn FnMut(&RelPath, BorrowedFd<'_>, &Stat),
) {
    let Ok(names) = sys::list(dir) else { return };
    for name in names {
        let (Ok(path), Ok(Some(stat))) =
            (left_core::path::join(at, &name), sys::stat_at(dir, &name))
        else {
            continue;
        };
        match stat.kind {
            FileType::RegularFile => each(&path, dir, &stat),
            FileType::Directory => {
                if let Ok(sub) = fs::openat(dir, &*name, DIR_HANDLE, Mode::empty()) {
                    walk(sub.as_fd(), Some(&path), each);
                }
            }
            _ => {}
        }
    }
}

/// Removes a folder that holds only empty folders.
fn remove_empty_dirs(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let sub = fs::openat(dir, name, DIR_HANDLE, Mode::empty())?;
    for inner in sys::list(&sub)? {
        remove_empty_dirs(sub.as_fd(), &inner)?;
    }
    Ok(fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Removes a folder of the history with all that is in it.
fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let sub = fs::openat(dir, name, DIR_HANDLE, Mode::empty())?;
    // A folder the user had made read-only is still ours to expire.
    let _ = sys::chmod(&sub, 0o700);
    for inner in sys::list(&sub)? {
        remove_tree(sub.as_fd(), &inner)?;
    }
    Ok(fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
