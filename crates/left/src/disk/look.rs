//! [`Found`]: what stands under one name of an open folder.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use left_core::entry::{FileStat, MAX_TARGET};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::sys::{self, Stat};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A folder.
    Dir(FileStat),
    /// A regular file, and how many names it has.
    File(FileStat, u32),
    /// A symbolic link and where it points.
    Symlink(FileStat, Vec<u8>),
    /// Something that is never synchronised: what it is, for people.
    Special(&'static str),
}

/// [`Root::open_file`](super::Root::open_file) in an open folder, with all details.
pub(crate) fn open_regular_in(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Only the owner may leave the access time alone; others read like everybody.
    let fd = match fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => fs::openat(dir, name, flags, Mode::empty())?,
        other => other?,
    };
    let stat = sys::stat_fd(&fd)?;
    if stat.kind != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok((File::from(fd), stat))
}

/// [`Root::look`](super::Root::look) in an open folder.
pub(crate) fn look_at(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Found>> {
    let dir = dir.as_fd();
    let Some(stat) = sys::stat_at(dir, name)? else {
        return Ok(None);
    };
    if stat.kind != FileType::Symlink {
        return Ok(Some(found(&stat)));
    }
    // One handle for both, so that stat and target are of the same link.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = match fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let stat = sys::stat_fd(&link)?;
    if stat.kind != FileType::Symlink {
        return Ok(Some(found(&stat)));
    }
    let target = fs::readlinkat(&link, c"", Vec::with_capacity(256))?.into_bytes();
    if target.len() > MAX_TARGET {
        return Ok(Some(Found::Special(
            "a link with a target that is too long",
        )));
    }
    Ok(Some(Found::Symlink(stat.file, target)))
}

fn found(stat: &Stat) -> Found {
    match stat.kind {
        FileType::RegularFile => Found::File(stat.file, stat.nlink),
        FileType::Directory => Found::Dir(stat.file),
        FileType::Socket => Found::Special("a socket"),
        FileType::Fifo => Found::Special("a named pipe"),
        FileType::CharacterDevice | FileType::BlockDevice => Found::Special("a device"),
        _ => Found::Special("something unknown"),
    }
}
