//! Operations that bring no new bytes: mode and mtime, removal, rename.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use left_core::entry::{Kind, Mtime, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, OpError};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::run::Run;
use super::undo::{self, Undone};
use super::{Did, came_out, io_op_error, is_expected, op_error, with_access};
use crate::disk::sys::{self, Stat};

/// Sets mode and mtime of what stands there.
pub(super) fn set_meta(
    run: &mut Run<'_>,
    path: &RelPath,
    node: &Node,
    expect: &Expect,
) -> Result<Did, OpError> {
    let parent = run.parent(path)?;
    let fd = open_any(parent.as_fd(), path)?;
    let now = sys::stat_fd(&fd).map_err(|e| io_op_error(path, &e))?;
    if !is_expected(expect, Some(&now)) || !same_kind(node, &now) {
        return Err(OpError::Unexpected);
    }
    // Someone may have renamed another file here since the handle was opened.
    let there = sys::stat_at(&parent, path.name()).map_err(|e| io_op_error(path, &e))?;
    if there.is_none_or(|t| t.file.ino != now.file.ino || t.dev != now.dev) {
        return Err(OpError::Unexpected);
    }
    let set = meta(&fd, path, node, &now)?;
    crash_point!("meta-set");
    // The data is durable already; the inode's new mode and time are not.
    if now.kind == FileType::RegularFile {
        sync_inode(&parent, path, &fd);
    }
    run.touch(path);
    Ok(Did::placed(set))
}

/// Sets what differs, the mtime last, and returns the stat it has now.
fn meta(fd: &OwnedFd, path: &RelPath, node: &Node, now: &Stat) -> Result<Stat, OpError> {
    let fail = |e: Errno| op_error(path, e);
    let (mode, mtime) = wanted(node);
    if let Some(mode) = mode.filter(|m| *m != now.file.mode) {
        sys::chmod(fd, mode).map_err(fail)?;
    }
    if let Some(mtime) = mtime.filter(|t| *t != now.file.mtime) {
        // A write until now shows; setting the time must not hide it.
        let still = sys::stat_fd(fd).map_err(|e| io_op_error(path, &e))?;
        if still.file.mtime != now.file.mtime || still.file.size != now.file.size {
            return Err(OpError::Unexpected);
        }
        sys::set_mtime(fd, mtime).map_err(fail)?;
    }
    let set = sys::stat_fd(fd).map_err(|e| io_op_error(path, &e))?;
    let right = mode.is_none_or(|m| m == set.file.mode)
        && mtime.is_none_or(|t| t == set.file.mtime)
        && (set.kind != FileType::RegularFile || set.file.size == now.file.size);
    if right {
        Ok(set)
    } else {
        Err(OpError::Unexpected)
    }
}

fn wanted(node: &Node) -> (Option<u32>, Option<Mtime>) {
    match node {
        Node::Dir { mode } => (Some(*mode), None),
        Node::File { mode, mtime, .. } => (Some(*mode), Some(*mtime)),
        Node::Symlink { mtime, .. } => (None, Some(*mtime)),
        Node::Tombstone => (None, None),
    }
}

fn same_kind(node: &Node, now: &Stat) -> bool {
    matches!(
        (node.kind(), now.kind),
        (Kind::Dir, FileType::Directory)
            | (Kind::File, FileType::RegularFile)
            | (Kind::Symlink, FileType::Symlink)
    )
}

/// A handle of whatever stands there, which needs no permission on it and follows nothing.
fn open_any(parent: BorrowedFd<'_>, path: &RelPath) -> Result<OwnedFd, OpError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, path.name(), flags, Mode::empty()).map_err(|e| match e {
        e if sys::is_absent(e) => OpError::Unexpected,
        e => op_error(path, e),
    })
}

/// Makes an inode's metadata durable where we may open it; else the folder's sync must do.
fn sync_inode(parent: impl AsFd, path: &RelPath, fd: &OwnedFd) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = fs::openat(parent, path.name(), flags, Mode::empty()) else {
        return;
    };
    let same = matches!((sys::stat_fd(&file), sys::stat_fd(fd)),
        (Ok(a), Ok(b)) if a.file.ino == b.file.ino);
    if same {
        let _ = fs::fsync(&file);
    }
}

/// Moves what stands there into history; an empty folder is removed.
pub(super) fn remove(run: &mut Run<'_>, path: &RelPath, expect: &Expect) -> Result<Did, OpError> {
    let gone = Did {
        placed: None,
        seen: None,
        loser: None,
    };
    let parent = match run.parent(path) {
        Err(OpError::NoParent) if *expect == Expect::Absent => return Ok(gone),
        other => other?,
    };
    let now = sys::stat_at(&parent, path.name()).map_err(|e| io_op_error(path, &e))?;
    if !is_expected(expect, now.as_ref()) {
        return Err(OpError::Unexpected);
    }
    match expect {
        Expect::Absent => return Ok(gone),
        Expect::Present(Kind::Dir, _) => remove_dir(parent.as_fd(), path)?,
        Expect::Present(..) => {
            run.with_slot(path, |run, slot| {
                crash_point!("removing");
                into_history(run, parent.as_fd(), slot, path, expect)?;
                if let Ok(Some(out)) = sys::stat_at(slot, path.name()) {
                    run.keep(path, out.file);
                }
                Ok(())
            })?;
        }
    }
    run.touch(path);
    Ok(gone)
}

/// Removes a folder if it is empty, in one step.
pub(super) fn remove_dir(parent: BorrowedFd<'_>, path: &RelPath) -> Result<(), OpError> {
    with_access(&[parent], || {
        fs::unlinkat(parent, path.name(), AtFlags::REMOVEDIR)
    })
    .map_err(|e| match e {
        Errno::NOTEMPTY | Errno::EXIST => OpError::NotEmpty,
        e if sys::is_absent(e) => OpError::Unexpected,
        e => op_error(path, e),
    })
}

/// Renames what stands at `path` into its slot and looks at it; something unexpected goes back.
pub(super) fn into_history(
    run: &mut Run<'_>,
    parent: BorrowedFd<'_>,
    slot: BorrowedFd<'_>,
    path: &RelPath,
    expect: &Expect,
) -> Result<(), OpError> {
    let name = path.name();
    let renamer = &run.root.renamer;
    with_access(&[parent], || renamer.move_new(parent, name, slot, name)).map_err(|e| match e {
        Errno::NOENT | Errno::EXIST => OpError::Unexpected,
        e => op_error(path, e),
    })?;
    crash_point!("removed");
    let out = sys::stat_at(slot, name).map_err(|e| io_op_error(path, &e))?;
    if out.is_some_and(|out| came_out(expect, &out)) {
        return Ok(());
    }
    if renamer.move_new(slot, name, parent, name).is_err()
        && let Undone::Kept(stat) = undo::to_copy(run, slot, path)
    {
        run.keep(path, stat);
    }
    run.touch(path);
    Err(OpError::Unexpected)
}

/// Renames within the share to where nothing stands, then sets mode and mtime.
pub(super) fn move_file(
    run: &mut Run<'_>,
    from: &RelPath,
    expect: &Expect,
    to: &RelPath,
    node: &Node,
) -> Result<Did, OpError> {
    let old = run.root.parent_of(from).map_err(|e| match e {
        e if sys::is_absent(e) => OpError::Unexpected,
        e => op_error(from, e),
    })?;
    let new = run.parent(to)?;
    let now = sys::stat_at(&old, from.name()).map_err(|e| io_op_error(from, &e))?;
    if *expect == Expect::Absent || !is_expected(expect, now.as_ref()) {
        return Err(OpError::Unexpected);
    }
    let renamer = &run.root.renamer;
    with_access(&[old.as_fd(), new.as_fd()], || {
        renamer.move_new(&old, from.name(), &new, to.name())
    })
    .map_err(|e| match e {
        Errno::EXIST | Errno::NOENT => OpError::Unexpected,
        e => op_error(to, e),
    })?;
    crash_point!("moved");
    run.touch(from);
    run.touch(to);
    let arrived = open_any(new.as_fd(), to)?;
    let stat = sys::stat_fd(&arrived).map_err(|e| io_op_error(to, &e))?;
    if !came_out(expect, &stat) || !same_kind(node, &stat) {
        // Back to where the user has it; if that is taken by now, both things stay where they are.
        let _ = renamer.move_new(&new, to.name(), &old, from.name());
        return Err(OpError::Unexpected);
    }
    let set = meta(&arrived, to, node, &stat)?;
    if set.kind == FileType::RegularFile && set.file.ctime != stat.file.ctime {
        sync_inode(&new, to, &arrived);
    }
    Ok(Did::placed(set))
}
