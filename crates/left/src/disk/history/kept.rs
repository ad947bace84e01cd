//! What lies in the history, looked up by path and time. The folder itself is the truth: there is no list
//! of it anywhere.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::tz::TimeZone;
use left_core::entry::{MAX_TARGET, Mtime};
use left_core::path::{RelPath, join};
use rustix::fs::{self, FileType, Mode, OFlags};

use super::{History, STAMP_LEN, batches};
use crate::disk::root::Root;
use crate::disk::sys::{self, DIR_HANDLE, Stat};

/// A version that was replaced or deleted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Names it, together with its path.
    pub id: String,
    /// Until when it was in place: milliseconds since 1970.
    pub until_ms: u64,
    /// Bytes of a file; 0 for a link.
    pub size: u64,
    /// When it was last written to.
    pub mtime: Mtime,
    /// Permission bits.
    pub mode: u32,
    /// A symbolic link, else a file.
    pub link: bool,
    /// Bytes on the disk.
    pub(crate) room: u64,
}

impl History {
    /// The ids of all that is kept, oldest first: one for each time that something was replaced.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        self.dir.with(batches)
    }

    /// What is kept of `path` under an id; `None` for nothing.
    pub fn find(&self, root: &Root, id: &str, path: &RelPath) -> io::Result<Option<Kept>> {
        let Some(batch) = self.open_batch(id)? else {
            return Ok(None);
        };
        let dir = match root.parent_beneath(batch.as_fd(), path) {
            Ok(dir) => dir,
            Err(e) if sys::is_absent(e) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        Ok(sys::stat_at(&dir, path.name())?.and_then(|stat| kept(id, &stat)))
    }

    /// All kept versions of a path, the latest first.
    pub fn versions(&self, root: &Root, path: &RelPath) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        for id in self.ids()?.iter().rev() {
            found.extend(self.find(root, id, path)?);
        }
        Ok(found)
    }

    /// Opens a kept file for reading; not found for a link.
    pub fn read(&self, root: &Root, id: &str, path: &RelPath) -> io::Result<File> {
        let dir = self.folder_of(root, id, path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(&dir, path.name(), flags, Mode::empty()) {
            // The file kept the mode that it had, also one that keeps us out.
            Err(rustix::io::Errno::ACCESS) => {
                let handle = fs::openat(
                    &dir,
                    path.name(),
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let mode = sys::stat_fd(&handle)?.file.mode;
                sys::chmod(&handle, mode | 0o400)?;
                let opened = fs::openat(&dir, path.name(), flags, Mode::empty());
                sys::chmod(&handle, mode)?;
                opened?
            }
            other => other?,
        };
        if sys::stat_fd(&file)?.kind != FileType::RegularFile {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(File::from(file))
    }

    /// Where a kept link points.
    pub fn target(&self, root: &Root, id: &str, path: &RelPath) -> io::Result<Vec<u8>> {
        let dir = self.folder_of(root, id, path)?;
        let target = fs::readlinkat(&dir, path.name(), Vec::with_capacity(256))?.into_bytes();
        if target.len() > MAX_TARGET {
            return Err(io::Error::other("the link's target is too long"));
        }
        Ok(target)
    }

    /// The folder of the history in which `path` is kept under an id.
    pub(crate) fn folder_of(&self, root: &Root, id: &str, path: &RelPath) -> io::Result<OwnedFd> {
        let batch = self.open_batch(id)?;
        let batch = batch.ok_or(io::ErrorKind::NotFound)?;
        Ok(root.parent_beneath(batch.as_fd(), path)?)
    }

    /// Every version under an id, of one path and what is below it, or all of them, in no order.
    pub fn each(
        &self,
        root: &Root,
        id: &str,
        at: Option<&RelPath>,
        mut each: impl FnMut(RelPath, Kept) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let Some(batch) = self.open_batch(id)? else {
            return Ok(());
        };
        let mut tell = |path: RelPath, stat: &Stat| match kept(id, stat) {
            Some(kept) => each(path, kept),
            None => ControlFlow::Continue(()),
        };
        let Some(at) = at else {
            let _ = walk(batch.as_fd(), None, &mut tell);
            return Ok(());
        };
        let dir = match root.parent_beneath(batch.as_fd(), at) {
            Ok(dir) => dir,
            Err(e) if sys::is_absent(e) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        match sys::stat_at(&dir, at.name())? {
            Some(stat) if stat.kind == FileType::Directory => {
                let sub = fs::openat(&dir, at.name(), DIR_HANDLE, Mode::empty())?;
                let _ = walk(sub.as_fd(), Some(at), &mut tell);
            }
            Some(stat) => {
                let _ = tell(at.clone(), &stat);
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn open_batch(&self, id: &str) -> io::Result<Option<OwnedFd>> {
        // Also what keeps a foreign id from leading out of the folder.
        if until_ms(id).is_none() || id.contains('/') {
            return Ok(None);
        }
        match fs::openat(self.dir(), id, DIR_HANDLE, Mode::empty()) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if sys::is_absent(e) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn kept(id: &str, stat: &Stat) -> Option<Kept> {
    let link = match stat.kind {
        FileType::RegularFile => false,
        FileType::Symlink => true,
        _ => return None,
    };
    Some(Kept {
        id: id.to_owned(),
        until_ms: until_ms(id)?,
        size: if link { 0 } else { stat.file.size },
        mtime: stat.file.mtime,
        mode: stat.file.mode,
        link,
        room: stat.blocks.saturating_mul(512),
    })
}

/// The time in an id, in milliseconds since 1970; `None` for what is no id.
pub fn until_ms(id: &str) -> Option<u64> {
    let stamp = id.get(..STAMP_LEN)?;
    let time = jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%.3fZ", stamp).ok()?;
    let time = time.to_datetime().ok()?.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(time.timestamp().as_millisecond()).ok()
}

/// Everything below a folder of the history that is no folder.
fn walk(
    dir: BorrowedFd<'_>,
    at: Option<&RelPath>,
    each: &mut dyn FnMut(RelPath, &Stat) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Ok(names) = sys::list(dir) else {
        return ControlFlow::Continue(());
    };
    for name in names {
        let (Ok(path), Ok(Some(stat))) = (join(at, &name), sys::stat_at(dir, &name)) else {
            continue;
        };
        if stat.kind != FileType::Directory {
            each(path, &stat)?;
        } else if let Ok(sub) = fs::openat(dir, &*name, DIR_HANDLE, Mode::empty()) {
            walk(sub.as_fd(), Some(&path), each)?;
        }
    }
    ControlFlow::Continue(())
}
