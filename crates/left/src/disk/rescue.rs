//! Bringing a user's bytes back into the share beside the file they belong to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use left_core::entry::FileStat;
use left_core::path::{MAX_NAME, RelPath};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::root::Root;
use super::sys::{self, DIR_HANDLE};

/// How many names are tried before giving up.
const MAX_TRIES: u32 = 1000;

/// The `n`-th name to try for `path` (the first is `path` itself): `-2`, `-3` … before the extension.
pub(crate) fn numbered(path: &RelPath, n: u32) -> Option<RelPath> {
    if n == 1 {
        return Some(path.clone());
    }
    insert(path, format!("-{n}").as_bytes())
}

/// The name for bytes that came too late: `<name>.conflict-<time>-late<ext>`.
pub(crate) fn late_name(path: &RelPath) -> Option<RelPath> {
    let time = super::history::stamp(Timestamp::now());
    let time = time.split('.').next().unwrap_or_default();
    insert(path, format!(".conflict-{time}-late").as_bytes())
}

/// Puts `mark` before the extension, shortening the stem where the name would be too long.
fn insert(path: &RelPath, mark: &[u8]) -> Option<RelPath> {
    let name = path.name();
    let dot = name.iter().rposition(|b| *b == b'.');
    // A dot in front makes a hidden file, not an extension; a long tail is none either.
    let cut = dot
        .filter(|at| *at > 0 && name.len() - at <= 32)
        .unwrap_or(name.len());
    let (stem, ext) = name.split_at(cut);
    let mut keep = stem.len().min(MAX_NAME - mark.len() - ext.len());
    // Do not cut a UTF-8 character in two.
    while keep > 0 && keep < stem.len() && stem[keep] & 0b1100_0000 == 0b1000_0000 {
        keep -= 1;
    }
    let mut out = stem[..keep].to_vec();
    out.extend_from_slice(mark);
    out.extend_from_slice(ext);
    path.with_name(&out).ok()
}

/// Renames a thing from where it lies to `want` or, where something stands there, to the next free
/// numbered name. Never over anything. Returns where it is and its stat.
pub(crate) fn move_beside(
    root: &Root,
    from: impl AsFd,
    name: &[u8],
    want: &RelPath,
) -> io::Result<(RelPath, FileStat)> {
    let dir = root.parent_of(want)?;
    for n in 1..=MAX_TRIES {
        let Some(path) = numbered(want, n) else { break };
        match root.renamer.move_new(&from, name, &dir, path.name()) {
            Ok(()) => {
                let stat = sys::stat_at(&dir, path.name())?;
                return Ok((path, stat.map(|s| s.file).unwrap_or_default()));
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other("no free name for a conflict copy"))
}

/// Copies a file of the history back into the share, beside where it was, or in the nearest folder
/// above that is still there.
pub(crate) fn copy_back(root: &Root, base: BorrowedFd<'_>, path: &RelPath) -> io::Result<RelPath> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = root.parent_beneath(base, path)?;
    let source = fs::openat(&dir, path.name(), flags, Mode::empty())?;
    let stat = sys::stat_fd(&source)?;
    if stat.kind != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let want = late_name(path).ok_or_else(|| io::Error::other("no name for it"))?;
    let want = nearest(root, want)?;
    let stage = super::Stage::open(root)?;
    let name = stage.unique_name();
    let copy = stage.create(&name)?;
    let done = copy_bytes(&File::from(source), &copy, &stat.file)
        .and_then(|()| move_beside(root, stage.dir(), name.0.as_bytes(), &want));
    if done.is_err() {
        stage.remove(&name)?;
    }
    let (copy, _) = done?;
    sync_parent(root, &copy)?;
    Ok(copy)
}

/// The same name in the nearest folder that exists, going up.
fn nearest(root: &Root, mut want: RelPath) -> io::Result<RelPath> {
    loop {
        match root.parent_of(&want) {
            Ok(_) => return Ok(want),
            Err(e) if sys::is_absent(e) => {}
            Err(e) => return Err(e.into()),
        }
        let above = want.parent().and_then(|p| p.with_name(want.name()).ok());
        want = above.ok_or_else(|| io::Error::other("no folder for it"))?;
    }
}

fn copy_bytes(from: &File, to: &File, stat: &FileStat) -> io::Result<()> {
    if fs::ioctl_ficlone(to, from).is_err() {
        // Uses copy_file_range where the file system has it.
        io::copy(&mut &*from, &mut &*to)?;
    }
    sys::chmod(to, stat.mode)?;
    sys::set_mtime(to, stat.mtime)?;
    to.sync_all()
}

/// The bytes of a regular file that has no more than `size` of them.
pub(crate) fn read_small(dir: impl AsFd, name: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(fs::openat(&dir, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, size + 1), &mut bytes)?;
    Ok(bytes)
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(root: &Root, path: &RelPath) -> io::Result<()> {
    let dir = root.parent_of(path)?;
    Ok(sys::sync_dir(&dir)?)
}

/// Removes a scratch folder or file of ours, ignoring that it may be gone.
pub(crate) fn drop_scratch(dir: impl AsFd, name: &[u8]) {
    if fs::unlinkat(&dir, name, AtFlags::empty()).is_err() {
        let _ = fs::unlinkat(&dir, name, AtFlags::REMOVEDIR);
    }
}

/// A handle of one folder by name.
pub(crate) fn open_sub(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, DIR_HANDLE, Mode::empty())
}
