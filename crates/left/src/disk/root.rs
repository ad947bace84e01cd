//! [`Root`]: the open handle of a share's folder. Everything else in [`disk`](super) goes through it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use left_core::entry::FileStat;
use left_core::path::RelPath;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::look::{Found, look_at, open_regular_in};
use super::sys::{self, DIR_HANDLE, DIR_READ, Renamer, Resolver, Stat};

/// The folder in the root that holds LEFT's own files.
pub(crate) const INNER: &[u8] = b".left";
const MARKER: &[u8] = b".left/share.toml";
/// A marker larger than this is none of ours.
const MAX_MARKER: usize = 64 * 1024;

/// Why a folder can not be opened as a share's root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Nothing stands there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Something stands there, but no folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// We may not read or enter it.
    #[error("{} can not be read: no permission", .0.display())]
    Unreadable(PathBuf),
    /// It has no `.left/share.toml`.
    #[error("{} is not a share: it has no .left/share.toml", .0.display())]
    NotAShare(PathBuf),
    /// It has one already.
    #[error("{} is a share already", .0.display())]
    AlreadyAShare(PathBuf),
    /// It can be read but not written.
    #[error("{} is on a read-only file system", .0.display())]
    ReadOnly(PathBuf),
    /// Anything else.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Why the root that was opened can not be trusted any more. Nothing it shows (or does not show) may
/// be taken for a deletion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootGone {
    /// The path leads to nothing.
    #[error("{} is gone (moved, deleted or not mounted)", .0.display())]
    Vanished(PathBuf),
    /// The path leads to another folder.
    #[error("{} is another folder now than the one that was opened", .0.display())]
    Replaced(PathBuf),
    /// `.left/share.toml` is missing.
    #[error("{} lost its .left/share.toml: it was emptied or replaced", .0.display())]
    MarkerGone(PathBuf),
    /// `.left/share.toml` has other bytes than when the root was opened.
    #[error("{} holds another share's .left/share.toml", .0.display())]
    MarkerChanged(PathBuf),
    /// It can not be looked at.
    #[error("{} can not be checked: {error}", .path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
}

/// A handle on the folder that holds a path.
pub(crate) enum ParentDir<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for ParentDir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ParentDir::Root(fd) => *fd,
            ParentDir::Below(fd) => fd.as_fd(),
        }
    }
}

/// A share's root folder, held open. All access goes through this handle, resolved beneath it without
/// following any link, so that nothing outside can be read or written whatever happens meanwhile.
///
/// Parents are opened anew for each path: one `openat2` is about as cheap as any check of a cached
/// handle would be, and a cached handle could lead out of the share after a rename. Only looks in a
/// batch share them, for a moment ([`Near`](super::Near)).
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
    id: ((u32, u32), u64),
    marker: Vec<u8>,
    resolver: Resolver,
    pub(crate) renamer: Renamer,
    fine_stamps: bool,
    /// Where LEFT's own files are, if not in `.left`.
    aside: Option<OwnedFd>,
}

/// Makes `dir` a share by writing `marker` to `.left/share.toml`, durably. Refuses when it is one.
pub fn init_share(dir: &Path, marker: &[u8]) -> Result<(), RootError> {
    let fd = open_folder(dir)?;
    let fail = |e: Errno| match e {
        Errno::EXIST => RootError::AlreadyAShare(dir.into()),
        other => root_error(dir, other.into()),
    };
    match fs::mkdirat(&fd, INNER, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fail(e)),
    }
    let inner = fs::openat(&fd, INNER, DIR_READ, Mode::empty()).map_err(fail)?;
    // Written beside and linked into place: a half-written marker never has the name.
    let tmp = b"share.toml.new".as_slice();
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&inner, tmp, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
    let mut file = File::from(file);
    io::Write::write_all(&mut file, marker)
        .and_then(|()| file.sync_all())
        .map_err(|e| root_error(dir, e))?;
    let renamer = Renamer::default();
    renamer
        .move_new(&inner, tmp, &inner, b"share.toml")
        .map_err(fail)?;
    fs::fsync(&inner)
        .and_then(|()| fs::fsync(&fd))
        .map_err(fail)
}

fn open_folder(dir: &Path) -> Result<OwnedFd, RootError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(dir, flags, Mode::empty()).map_err(|e| root_error(dir, e.into()))
}

fn root_error(dir: &Path, error: io::Error) -> RootError {
    let path = dir.to_path_buf();
    match sys::errno(&error) {
        Some(Errno::NOENT) => RootError::Missing(path),
        Some(Errno::NOTDIR) => RootError::NotAFolder(path),
        Some(Errno::ACCESS | Errno::PERM) => RootError::Unreadable(path),
        Some(Errno::ROFS) => RootError::ReadOnly(path),
        _ => RootError::Io { path, error },
    }
}

impl Root {
    /// Opens a share's folder, which must hold `.left/share.toml`.
    pub fn open(dir: &Path) -> Result<Root, RootError> {
        let path = std::path::absolute(dir).map_err(|e| root_error(dir, e))?;
        let fd = open_folder(&path)?;
        let stat = sys::stat_fd(&fd).map_err(|e| root_error(&path, e))?;
        let resolver = Resolver::default();
        let marker = match read_marker(&resolver, fd.as_fd()) {
            Ok(Some(marker)) => marker,
            Ok(None) => return Err(RootError::NotAShare(path)),
            Err(e) => return Err(root_error(&path, e)),
        };
        let inner = fs::openat(&fd, INNER, DIR_HANDLE, Mode::empty());
        let fine_stamps = inner.is_ok_and(|inner| has_fine_stamps(inner.as_fd()));
        Ok(Root {
            dir: fd,
            path,
            id: (stat.dev, stat.file.ino),
            marker,
            resolver,
            renamer: Renamer::default(),
            fine_stamps,
            aside: None,
        })
    }

    /// Opens a folder that is no share, such as one that something is sent from. LEFT's own files go
    /// to the folder `aside`, which is on the same file system, or nowhere: then nothing may be staged.
    pub fn bare(dir: &Path, aside: Option<&Path>) -> Result<Root, RootError> {
        let path = std::path::absolute(dir).map_err(|e| root_error(dir, e))?;
        // Only the right to enter it is needed.
        let fd = fs::open(&path, DIR_HANDLE, Mode::empty());
        let fd = fd.map_err(|e| root_error(&path, e.into()))?;
        let stat = sys::stat_fd(&fd).map_err(|e| root_error(&path, e))?;
        let aside = aside.map(open_folder).transpose()?;
        let fine_stamps = aside.as_ref().is_some_and(|a| has_fine_stamps(a.as_fd()));
        Ok(Root {
            dir: fd,
            path,
            id: (stat.dev, stat.file.ino),
            marker: Vec::new(),
            resolver: Resolver::default(),
            renamer: Renamer::default(),
            fine_stamps,
            aside,
        })
    }

    /// The folder's absolute path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of `.left/share.toml`, as they were at the opening.
    pub fn marker(&self) -> &[u8] {
        &self.marker
    }

    /// Whether the file system lacks swapping renames, so that a weaker order of steps had to be used:
    /// worth one notice to the user.
    pub fn is_weak(&self) -> bool {
        self.renamer.is_weak()
    }

    /// Whether the path still leads to the folder that was opened, with its marker as it was.
    pub fn check(&self) -> Result<(), RootGone> {
        let unreadable = |e: io::Error| RootGone::Unreadable {
            path: self.path.clone(),
            error: e.to_string(),
        };
        let now = match fs::open(&self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => sys::stat_fd(fd).map_err(unreadable)?,
            Err(e) if sys::is_absent(e) => return Err(RootGone::Vanished(self.path.clone())),
            Err(e) => return Err(unreadable(e.into())),
        };
        if (now.dev, now.file.ino) != self.id {
            return Err(RootGone::Replaced(self.path.clone()));
        }
        match read_marker(&self.resolver, self.dir.as_fd()).map_err(unreadable)? {
            None => Err(RootGone::MarkerGone(self.path.clone())),
            Some(m) if m != self.marker => Err(RootGone::MarkerChanged(self.path.clone())),
            Some(_) => Ok(()),
        }
    }

    /// What stands at `path`; `None` for nothing, also when a part on the way is missing or a link.
    pub fn look(&self, path: &RelPath) -> io::Result<Option<Found>> {
        match self.parent_of(path) {
            Ok(dir) => look_at(&dir, path.name()),
            Err(e) if sys::is_absent(e) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Everything at and below `at` (`None`: the whole share, but what is LEFT's own), folders before
    /// what is in them. A folder that can not be read is passed over.
    pub fn each_below(
        &self,
        at: Option<&RelPath>,
        each: &mut dyn FnMut(RelPath, Found),
    ) -> io::Result<()> {
        self.each_below_or(at, each, &mut |_, _| {})
    }

    /// [`each_below`](Self::each_below), telling the folders that can not be read.
    pub fn each_below_or(
        &self,
        at: Option<&RelPath>,
        each: &mut dyn FnMut(RelPath, Found),
        unread: &mut dyn FnMut(&RelPath, io::Error),
    ) -> io::Result<()> {
        let Some(path) = at else {
            return self.each_in(None, each, unread);
        };
        match self.look(path)? {
            Some(found @ Found::Dir(_)) => {
                each(path.clone(), found);
                self.each_in(at, each, unread)
            }
            Some(found) => {
                each(path.clone(), found);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn each_in(
        &self,
        at: Option<&RelPath>,
        each: &mut dyn FnMut(RelPath, Found),
        unread: &mut dyn FnMut(&RelPath, io::Error),
    ) -> io::Result<()> {
        let mut folders = vec![at.cloned()];
        while let Some(folder) = folders.pop() {
            let dir = match self.open_dir(folder.as_ref()) {
                Ok(dir) => dir,
                Err(e) if folder.as_ref() == at => return Err(e.into()),
                Err(e) => {
                    folder.iter().for_each(|f| unread(f, e.into()));
                    continue;
                }
            };
            let names = match sys::list(&dir) {
                Ok(names) => names,
                Err(e) => {
                    if let Some(folder) = &folder {
                        unread(folder, e);
                    }
                    continue;
                }
            };
            for name in names {
                // What is no path of a share is LEFT's own.
                let Ok(path) = left_core::path::join(folder.as_ref(), &name) else {
                    continue;
                };
                let Ok(Some(found)) = look_at(&dir, &name) else {
                    continue;
                };
                if matches!(found, Found::Dir(_)) {
                    folders.push(Some(path.clone()));
                }
                each(path, found);
            }
        }
        Ok(())
    }

    /// Whether nothing stands in it but what is LEFT's own. A folder that can not be listed is none.
    pub fn is_empty(&self) -> bool {
        fs::openat(&self.dir, c".", DIR_READ, Mode::empty())
            .map_err(io::Error::from)
            .and_then(sys::list)
            .is_ok_and(|names| names.iter().all(|n| **n == *INNER))
    }

    /// Opens a regular file for reading. Never follows a link, never waits for a pipe, and does not
    /// change the access time where that is permitted.
    pub fn open_file(&self, path: &RelPath) -> io::Result<(File, FileStat)> {
        let (file, stat) = self.open_regular(path)?;
        Ok((file, stat.file))
    }

    pub(crate) fn open_regular(&self, path: &RelPath) -> io::Result<(File, Stat)> {
        open_regular_in(self.parent_of(path)?.as_fd(), path.name())
    }

    /// Whether a handle is of the file system in which the root lies.
    pub(crate) fn shares_disk(&self, handle: impl AsFd) -> io::Result<bool> {
        Ok(sys::stat_fd(handle)?.dev == self.id.0)
    }

    /// Waits until all that stands in the root's file system is on the disk.
    pub(crate) fn sync_disk(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.dir)?)
    }

    /// `lstat` with all details; `None` for nothing.
    pub(crate) fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        match self.parent_of(path) {
            Ok(dir) => sys::stat_at(&dir, path.name()),
            Err(e) if sys::is_absent(e) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// A handle of the folder that holds `path`. At most 4,094 bytes are left for it, so one
    /// `openat2` always takes them.
    pub(crate) fn parent_of(&self, path: &RelPath) -> Result<ParentDir<'_>, Errno> {
        let bytes = path.as_bytes();
        let len = bytes.len() - path.name().len();
        if len == 0 {
            return Ok(ParentDir::Root(self.dir.as_fd()));
        }
        self.open_below(&bytes[..len - 1], DIR_HANDLE)
            .map(ParentDir::Below)
    }

    /// A handle of a folder of the share (`None`: the root), without read permission needed.
    pub(crate) fn open_dir(&self, path: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        match path {
            None => fs::openat(&self.dir, c".", DIR_HANDLE, Mode::empty()),
            Some(path) => {
                let dir = self.parent_of(path)?;
                fs::openat(&dir, path.name(), DIR_HANDLE, Mode::empty())
            }
        }
    }

    /// Opens a path beneath the root that need not be a [`RelPath`] (LEFT's own files).
    pub(crate) fn open_below(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolver
            .open(self.dir.as_fd(), path, flags, Mode::empty())
    }

    /// The folder of LEFT's own files.
    pub(crate) fn inner(&self) -> io::Result<OwnedFd> {
        let handle = match &self.aside {
            Some(aside) => fs::openat(aside, c".", DIR_HANDLE, Mode::empty()),
            None => fs::openat(&self.dir, INNER, DIR_HANDLE, Mode::empty()),
        };
        Ok(handle?)
    }

    /// What people are to call something in it.
    pub(crate) fn shown_inner(&self, name: &str) -> String {
        match &self.aside {
            Some(_) => format!("{name} in the working folder"),
            None => format!(".left/{name}"),
        }
    }

    /// [`parent_of`](Self::parent_of) beneath any handle, as strictly as beneath the root.
    pub(crate) fn parent_beneath(
        &self,
        base: BorrowedFd<'_>,
        path: &RelPath,
    ) -> Result<OwnedFd, Errno> {
        match path.parent() {
            None => fs::openat(base, c".", DIR_HANDLE, Mode::empty()),
            Some(parent) => self
                .resolver
                .open(base, parent.as_bytes(), DIR_HANDLE, Mode::empty()),
        }
    }

    /// Whether a stat with all details is of the file system the root is on.
    pub(crate) fn same_device(&self, stat: &Stat) -> bool {
        stat.dev == self.id.0
    }

    /// Whether every change after a `stat` is sure to show in the next one, however soon it comes.
    pub(crate) fn stamps_are_fine(&self, stat: &Stat) -> bool {
        self.fine_stamps && self.same_device(stat)
    }

    /// Takes the file system for one whose times tick slowly.
    #[cfg(test)]
    pub(crate) fn force_coarse(&mut self) {
        self.fine_stamps = false;
    }

    /// The walk without `openat2`.
    #[cfg(test)]
    pub(crate) fn force_by_hand(&self) {
        self.resolver.force_by_hand();
    }
}

fn read_marker(resolver: &Resolver, dir: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = match resolver.open(dir, MARKER, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(e) if sys::is_absent(e) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut bytes = Vec::new();
    let limit = MAX_MARKER as u64 + 1;
    io::Read::read_to_end(&mut io::Read::take(File::from(fd), limit), &mut bytes)?;
    if bytes.len() > MAX_MARKER {
        return Err(io::Error::other(".left/share.toml is far too large"));
    }
    Ok(Some(bytes))
}

/// Whether a write right after a `stat` gets a new ctime even within one clock tick (Linux 6.13 and
/// later on most file systems), found out by trying on a file of our own.
fn has_fine_stamps(inner: BorrowedFd<'_>) -> bool {
    let name = b"stamp-probe".as_slice();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = fs::openat(inner, name, flags, Mode::from_raw_mode(0o600)) else {
        return false;
    };
    let mut last = None;
    let mut fine = true;
    // Eight writes take some microseconds: coarse clocks (1 to 10 ms) can not tell them all apart.
    for _ in 0..8 {
        let wrote = rustix::io::pwrite(&file, b"x", 0).is_ok();
        let stat = sys::stat_fd(&file)
            .map(|s| (s.file.mtime, s.file.ctime))
            .ok();
        fine &= wrote && stat.is_some() && stat != last;
        last = stat;
    }
    let _ = fs::unlinkat(inner, name, fs::AtFlags::empty());
    fine
}
