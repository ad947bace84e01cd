//! The system calls everything in [`disk`](super) goes through: each takes an open folder handle and
//! one name (or a path that is resolved strictly beneath the handle), so that no symlink is ever followed.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use left_core::entry::{FileStat, MODE_MASK, Mtime};
use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags, StatxTimestamp,
    Timespec, Timestamps,
};
use rustix::io::Errno;

/// A handle that only names a folder: good for `*at` calls, needs no read permission.
pub(crate) const DIR_HANDLE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// A handle that lists and syncs a folder.
pub(crate) const DIR_READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// All that `statx` says that we use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) file: FileStat,
    pub(crate) kind: FileType,
    pub(crate) nlink: u32,
    pub(crate) dev: (u32, u32),
    /// When the inode was made, where the file system says.
    pub(crate) born: Option<Mtime>,
    /// Units of 512 bytes that are allocated.
    pub(crate) blocks: u64,
    pub(crate) uid: u32,
}

fn stamp(t: StatxTimestamp) -> Mtime {
    Mtime {
        secs: t.tv_sec,
        nanos: t.tv_nsec,
    }
}

fn statx(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<Stat, Errno> {
    let want = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let s = fs::statx(dir, name, flags | AtFlags::SYMLINK_NOFOLLOW, want)?;
    let has_birth = s.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Stat {
        file: FileStat {
            ino: s.stx_ino,
            size: s.stx_size,
            mtime: stamp(s.stx_mtime),
            ctime: stamp(s.stx_ctime),
            mode: u32::from(s.stx_mode) & MODE_MASK,
        },
        kind: FileType::from_raw_mode(s.stx_mode.into()),
        nlink: s.stx_nlink,
        dev: (s.stx_dev_major, s.stx_dev_minor),
        born: has_birth.then(|| stamp(s.stx_btime)),
        blocks: s.stx_blocks,
        uid: s.stx_uid,
    })
}

/// `lstat` of one name; `None` when nothing stands there.
pub(crate) fn stat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match statx(dir.as_fd(), name, AtFlags::empty()) {
        Ok(s) => Ok(Some(s)),
        Err(e) if is_absent(e) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// `fstat`, also of handles opened with `O_PATH`.
pub(crate) fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    Ok(statx(fd.as_fd(), b"", AtFlags::EMPTY_PATH)?)
}

/// Whether the folder behind a handle was removed: nothing can be made in it any more.
pub(crate) fn is_removed(dir: impl AsFd) -> bool {
    stat_fd(dir).is_ok_and(|stat| stat.nlink == 0)
}

/// What tells the mount that a handle lies in from all earlier ones of this run of the system: its number
/// (from Linux 6.8 on none is given out twice), else (from 5.8 on) the kernel's object of the disk below
/// it, which is another one when the disk was pulled out meanwhile.
pub(crate) fn mount_id(dir: impl AsFd) -> Option<u64> {
    /// `STATX_MNT_ID_UNIQUE`
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let stat = fs::statx(dir, c"", AtFlags::EMPTY_PATH, UNIQUE).ok()?;
    match stat.stx_mask {
        mask if mask & UNIQUE.bits() != 0 => Some(stat.stx_mnt_id),
        mask if mask & StatxFlags::MNT_ID.bits() != 0 => {
            disk_object(stat.stx_dev_major, stat.stx_dev_minor)
        }
        _ => None,
    }
}

fn disk_object(major: u32, minor: u32) -> Option<u64> {
    let disk = format!("/sys/dev/block/{major}:{minor}");
    let object = fs::stat(disk).ok()?;
    Some(object.st_ino)
}

/// Whether an error says that the path leads to nothing: a part is missing, no folder, or a link.
pub(crate) fn is_absent(e: Errno) -> bool {
    matches!(e, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// [`is_absent`] for an [`io::Error`].
pub(crate) fn io_absent(e: &io::Error) -> bool {
    errno(e).is_some_and(is_absent)
}

/// The system's error number.
pub(crate) fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

/// Opens paths beneath a handle without following any link.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// `openat2` is missing or forbidden here: walk by hand.
    by_hand: AtomicBool,
}

impl Resolver {
    /// Makes the walk by hand the only way (for tests, and for kernels before 5.6).
    #[cfg(test)]
    pub(crate) fn force_by_hand(&self) {
        self.by_hand.store(true, Ordering::Relaxed);
    }

    /// Opens `path` (at most 4,095 bytes, no `..`) beneath `base`. A link anywhere on the way, or at
    /// its end, is an error for which [`is_absent`] holds.
    pub(crate) fn open(
        &self,
        base: BorrowedFd<'_>,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !path.contains(&b'/') {
            return fs::openat(base, path, flags, mode);
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        while !self.by_hand.load(Ordering::Relaxed) {
            match fs::openat2(base, path, flags, mode, resolve) {
                // A rename somewhere on the system raced with the walk: the kernel asks to try again.
                Err(Errno::AGAIN | Errno::INTR) if tries < 64 => tries += 1,
                // Some container sandboxes answer EPERM for calls they do not know.
                Err(Errno::NOSYS | Errno::PERM) => self.by_hand.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        walk_by_hand(base, path, flags, mode)
    }
}

fn walk_by_hand(
    base: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut parts = path.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let here = at.as_ref().map_or(base, |fd| fd.as_fd());
        if parts.peek().is_none() {
            return fs::openat(here, part, flags, mode);
        }
        at = Some(fs::openat(here, part, DIR_HANDLE, Mode::empty())?);
    }
    Err(Errno::NOENT)
}

/// How much the file system under a share can do; learned when a call is refused.
#[derive(Debug, Default)]
pub(crate) struct Renamer {
    /// `renameat2` with flags was refused: the nearest safe order is used instead.
    weak: AtomicBool,
}

impl Renamer {
    /// Whether the weaker order had to be used at least once.
    pub(crate) fn is_weak(&self) -> bool {
        self.weak.load(Ordering::Relaxed)
    }

    /// Pretends that `renameat2` knows no flags.
    #[cfg(test)]
    pub(crate) fn force_weak(&self) {
        self.weak.store(true, Ordering::Relaxed);
    }

    /// Renames; `EXIST` when something stands at the new name.
    pub(crate) fn move_new(
        &self,
        from: impl AsFd,
        old: &[u8],
        to: impl AsFd,
        new: &[u8],
    ) -> Result<(), Errno> {
        let (from, to) = (from.as_fd(), to.as_fd());
        if !self.is_weak() {
            match fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    self.weak.store(true, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        // A hard link is made only where nothing stands: the same promise in two steps, and a crash
        // between them leaves both names, never none.
        match fs::linkat(from, old, to, new, AtFlags::empty()) {
            Ok(()) => fs::unlinkat(from, old, AtFlags::empty()),
            Err(e @ (Errno::EXIST | Errno::NOENT | Errno::NOSPC | Errno::DQUOT | Errno::ROFS)) => {
                Err(e)
            }
            // Folders, and file systems without hard links: look, then rename.
            Err(_) => match statx(to, new, AtFlags::empty()) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => fs::renameat(from, old, to, new),
                Err(e) => Err(e),
            },
        }
    }

    /// Swaps two names; `None` when the file system can not.
    pub(crate) fn swap(
        &self,
        from: impl AsFd,
        old: &[u8],
        to: impl AsFd,
        new: &[u8],
    ) -> Option<Result<(), Errno>> {
        if self.is_weak() {
            return None;
        }
        match fs::renameat_with(from, old, to, new, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                self.weak.store(true, Ordering::Relaxed);
                None
            }
            other => Some(other),
        }
    }
}

/// The names in a folder but `.` and `..`, sorted by bytes.
pub(crate) fn list(dir: impl AsFd) -> io::Result<Vec<Box<[u8]>>> {
    let mut names = Vec::new();
    for_names(dir, |name| names.push(name.to_bytes().into()))?;
    names.sort_unstable();
    Ok(names)
}

/// Whether a folder holds nothing.
pub(crate) fn is_empty_dir(dir: impl AsFd) -> io::Result<bool> {
    let mut empty = true;
    for_names(dir, |_| empty = false)?;
    Ok(empty)
}

/// The same with what each is, as far as the folder knows.
pub(crate) fn list_kinds(dir: impl AsFd) -> io::Result<Vec<(Box<[u8]>, FileType)>> {
    let mut names: Vec<(Box<[u8]>, FileType)> = Vec::new();
    for_entries(dir, |name, kind| names.push((name.to_bytes().into(), kind)))?;
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

fn for_names(dir: impl AsFd, mut each: impl FnMut(&CStr)) -> io::Result<()> {
    for_entries(dir, |name, _| each(name))
}

fn for_entries(dir: impl AsFd, mut each: impl FnMut(&CStr, FileType)) -> io::Result<()> {
    let dir = fs::openat(dir, c".", DIR_READ, Mode::empty())?;
    let mut buf = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = fs::RawDir::new(dir, &mut buf);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name, entry.file_type());
        }
    }
    Ok(())
}

/// `fsync` of the folder behind a handle.
pub(crate) fn sync_dir(dir: impl AsFd) -> Result<(), Errno> {
    let readable: OwnedFd = match fs::openat(&dir, c".", DIR_READ, Mode::empty()) {
        Ok(fd) => fd,
        // A folder we may write but not read: its file system as a whole can not be reached either.
        Err(Errno::ACCESS) => return Ok(()),
        Err(e) => return Err(e),
    };
    match fs::fsync(&readable) {
        // Some network file systems can not sync folders.
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// A path by which the kernel leads to exactly the file behind a handle: for the calls that take no
/// `O_PATH` handle.
fn magic(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// How a file that was made without a name is given one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Naming {
    /// By its handle: from Linux 6.10 on for everybody who opened it, before that for root.
    Handle,
    /// By way of `/proc`.
    Proc,
}

/// Makes a file of this mode, as far as the umask lets it, that has no name yet, open for writing.
pub(crate) fn create_unnamed(dir: impl AsFd, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    fs::openat(dir, c".", flags, Mode::from_raw_mode(mode & 0o777))
}

/// Gives it a name; `EXIST` when something stands there.
pub(crate) fn name_new(
    file: impl AsFd,
    how: Naming,
    dir: impl AsFd,
    name: &[u8],
) -> Result<(), Errno> {
    match how {
        Naming::Handle => fs::linkat(file, c"", dir, name, AtFlags::EMPTY_PATH),
        Naming::Proc => fs::linkat(
            fs::CWD,
            magic(file.as_fd()),
            dir,
            name,
            AtFlags::SYMLINK_FOLLOW,
        ),
    }
}

/// `chmod` of what a handle (also `O_PATH`) stands for; never for a handle of a link.
pub(crate) fn chmod(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode & MODE_MASK);
    match fs::fchmod(fd.as_fd(), mode) {
        Err(Errno::BADF) => fs::chmod(magic(fd.as_fd()), mode),
        other => other,
    }
}

/// Sets the mtime of what a handle (also `O_PATH`, also of a link) stands for; the atime stays.
pub(crate) fn set_mtime(fd: impl AsFd, mtime: Mtime) -> Result<(), Errno> {
    let times = mtime_only(mtime);
    match fs::utimensat(fd.as_fd(), c"", &times, AtFlags::EMPTY_PATH) {
        // Before Linux 5.8 only real handles could be used.
        Err(Errno::INVAL | Errno::BADF | Errno::NOENT) => fs::futimens(fd, &times),
        other => other,
    }
}

/// [`set_mtime`] of an open file, which costs the system less.
pub(crate) fn set_mtime_open(file: &std::fs::File, mtime: Mtime) -> Result<(), Errno> {
    fs::futimens(file, &mtime_only(mtime))
}

/// Sets the mtime of one name, not following a link.
pub(crate) fn set_mtime_at(dir: impl AsFd, name: &[u8], mtime: Mtime) -> Result<(), Errno> {
    fs::utimensat(dir, name, &mtime_only(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

fn mtime_only(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: mtime.nanos.into(),
        },
    }
}

/// A watchable path of the folder behind a handle.
pub(crate) fn watch_path(dir: BorrowedFd<'_>) -> String {
    magic(dir)
}

/// The wall clock as a file time.
pub(crate) fn now() -> Mtime {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(d) => Mtime {
            secs: d.as_secs().try_into().unwrap_or(i64::MAX),
            nanos: d.subsec_nanos(),
        },
        Err(_) => Mtime::default(),
    }
}

/// Nanoseconds from `a` to `b`, negative when `b` is earlier.
pub(crate) fn nanos_between(a: Mtime, b: Mtime) -> i128 {
    let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    nanos(b) - nanos(a)
}
