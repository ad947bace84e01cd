//! Putting a new thing in place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use left_core::entry::{Kind, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, OpError, StageName};
use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::ready::Staged;
use super::run::Run;
use super::undo::{self, Undone};
use super::{Did, Fresh, came_out, io_op_error, is_expected, op_error, simple, with_access};
use crate::disk::rescue;
use crate::disk::sys;

pub(super) fn place(
    run: &mut Run<'_>,
    path: &RelPath,
    node: &Node,
    staged: Option<(&StageName, Staged)>,
    expect: &Expect,
    loser: Option<&RelPath>,
) -> Result<Did, OpError> {
    if let (Node::Dir { .. }, Expect::Present(Kind::Dir, _)) = (node, expect) {
        return simple::set_meta(run, path, node, expect);
    }
    let parent = run.parent(path)?;
    let now = match expect {
        // The rename looks by itself.
        Expect::Absent => None,
        Expect::Present(..) => {
            sys::stat_at(&parent, path.name()).map_err(|e| io_op_error(path, &e))?
        }
    };
    if !is_expected(expect, now.as_ref()) {
        return Err(OpError::Unexpected);
    }
    if now.is_some_and(|s| s.kind == FileType::Directory) {
        check_empty(parent.as_fd(), path)?;
    }
    let fresh = match staged {
        Some((name, staged)) => Fresh {
            name: name.clone(),
            stat: staged.stat,
            dir: None,
            scratch: false,
            unnamed: staged.unnamed,
        },
        None => scratch(run, path, node)?,
    };
    let result = match expect {
        Expect::Absent => create(run, parent.as_fd(), path, &fresh).map(|()| None),
        Expect::Present(..) => run.with_slot(path, |run, slot| {
            replace(run, parent.as_fd(), slot, path, &fresh, expect, loser)
        }),
    };
    crash_point!("created");
    if fresh.scratch && result.is_err() {
        rescue::drop_scratch(run.stage.dir(), fresh.name.0.as_bytes());
    }
    let loser = result?;
    run.touch(path);
    let mut placed = fresh.stat;
    if let Some((dir, mode)) = &fresh.dir {
        // Only now: a folder without write permission can not be moved to another parent.
        sys::chmod(dir, *mode).map_err(|e| op_error(path, e))?;
        placed = sys::stat_fd(dir).map_err(|e| io_op_error(path, &e))?;
    }
    let seen = match (placed.kind, &fresh.unnamed) {
        (_, Some((file, _))) => sys::stat_fd(file).ok(),
        (FileType::RegularFile, None) => sys::stat_at(&parent, path.name()).ok().flatten(),
        // A folder's times go on changing with what is put into it.
        _ => None,
    };
    Ok(Did {
        placed: Some(placed),
        seen,
        loser,
    })
}

/// Says that a folder is in the way before anything is moved, where that can be seen.
fn check_empty(parent: BorrowedFd<'_>, path: &RelPath) -> Result<(), OpError> {
    let dir = rescue::open_sub(parent, path.name()).map_err(|e| match e {
        e if sys::is_absent(e) => OpError::Unexpected,
        e => op_error(path, e),
    })?;
    // A folder we can not read is judged by its removal.
    match sys::is_empty_dir(&dir) {
        Ok(false) => Err(OpError::NotEmpty),
        _ => Ok(()),
    }
}

/// Makes a folder or link in the stage.
fn scratch(run: &Run<'_>, path: &RelPath, node: &Node) -> Result<Fresh, OpError> {
    let name = run.stage.unique_name();
    let raw = name.0.as_bytes();
    let made = match node {
        Node::Dir { mode } => run.stage.with(|stage| Ok(scratch_dir(stage, raw, *mode)?)),
        Node::Symlink { mtime, target } => run.stage.with(|stage| {
            fs::symlinkat(target.as_slice(), stage, raw)?;
            sys::set_mtime_at(stage, raw, *mtime)?;
            Ok(None)
        }),
        Node::File { .. } => return Err(OpError::NotStaged),
        Node::Tombstone => return Err(OpError::Io(format!("{path}: nothing to place"))),
    };
    let dir = made.map_err(|e| io_op_error(path, &e))?;
    let stat = sys::stat_at(run.stage.dir(), raw).map_err(|e| io_op_error(path, &e))?;
    let stat = stat.ok_or(OpError::NotStaged)?;
    Ok(Fresh {
        name,
        stat,
        dir,
        scratch: true,
        unnamed: None,
    })
}

fn scratch_dir(stage: &OwnedFd, name: &[u8], mode: u32) -> Result<Option<(OwnedFd, u32)>, Errno> {
    fs::mkdirat(stage, name, Mode::from_raw_mode(0o700))?;
    let dir = rescue::open_sub(stage, name)?;
    // Where that does not hinder the rename, the mode is right from the first moment on.
    if mode & 0o300 == 0o300 {
        sys::chmod(&dir, mode)?;
    }
    Ok(Some((dir, mode)))
}

/// Puts the new thing where nothing stands.
fn create(
    run: &Run<'_>,
    parent: BorrowedFd<'_>,
    path: &RelPath,
    fresh: &Fresh,
) -> Result<(), OpError> {
    let name = fresh.name.0.as_bytes();
    let stage = run.stage.dir();
    crash_point!("creating");
    with_access(&[parent], || match &fresh.unnamed {
        Some((file, naming)) => sys::name_new(file, *naming, parent, path.name()),
        None => run.root.renamer.move_new(&stage, name, parent, path.name()),
    })
    .map_err(|e| match e {
        Errno::EXIST => OpError::Unexpected,
        Errno::NOENT if fresh.unnamed.is_some() => OpError::NoParent,
        Errno::NOENT => missing(run, fresh),
        e => op_error(path, e),
    })
}

/// What a rename's "not found" means: the source, or a folder that was deleted under our handle.
fn missing(run: &Run<'_>, fresh: &Fresh) -> OpError {
    match run.stage.exists(&fresh.name) {
        Ok(false) => OpError::NotStaged,
        _ => OpError::NoParent,
    }
}

type Loser = Option<(RelPath, left_core::entry::FileStat)>;

/// Swaps the new thing with what stands there, by way of the old one's place in history.
fn replace(
    run: &mut Run<'_>,
    parent: BorrowedFd<'_>,
    slot: BorrowedFd<'_>,
    path: &RelPath,
    fresh: &Fresh,
    expect: &Expect,
    loser: Option<&RelPath>,
) -> Result<Loser, OpError> {
    let name = path.name();
    let staged = fresh.name.0.as_bytes();
    let renamer = &run.root.renamer;
    renamer
        .move_new(run.stage.dir(), staged, slot, name)
        .map_err(|e| match e {
            Errno::NOENT => missing(run, fresh),
            e => op_error(path, e),
        })?;
    crash_point!("slot-taken");
    let target = match expect {
        Expect::Present(Kind::Dir, _) => rescue::open_sub(parent, name).ok(),
        _ => None,
    };
    let access: Vec<BorrowedFd<'_>> = std::iter::once(parent)
        .chain(target.as_ref().map(|fd| fd.as_fd()))
        .collect();
    let swapped = with_access(&access, || {
        renamer.swap(slot, name, parent, name).transpose()
    });
    match swapped {
        Ok(Some(())) => {
            crash_point!("swapped");
        }
        Ok(None) => {
            undo::back_to_stage(run, slot, path, fresh);
            return weak_replace(run, parent, slot, path, fresh, expect, loser);
        }
        Err(e) => {
            undo::back_to_stage(run, slot, path, fresh);
            return Err(match e {
                Errno::NOENT => OpError::Unexpected,
                e => op_error(path, e),
            });
        }
    }
    if let Err(e) = accept(slot, path, expect) {
        if let Undone::Kept(stat) = undo::swap_back(run, parent, slot, path, fresh) {
            run.keep(path, stat);
        }
        run.touch(path);
        return Err(e);
    }
    settle(run, slot, path, loser)
}

/// Looks at what came out of the swap. An empty folder is removed, which proves that it was empty.
fn accept(slot: BorrowedFd<'_>, path: &RelPath, expect: &Expect) -> Result<(), OpError> {
    let out = sys::stat_at(slot, path.name()).map_err(|e| io_op_error(path, &e))?;
    if !out.is_some_and(|out| came_out(expect, &out)) {
        return Err(OpError::Unexpected);
    }
    match expect {
        Expect::Present(Kind::Dir, _) => fs::unlinkat(slot, path.name(), AtFlags::REMOVEDIR)
            .map_err(|e| match e {
                Errno::NOTEMPTY | Errno::EXIST => OpError::NotEmpty,
                e => op_error(path, e),
            }),
        _ => Ok(()),
    }
}

/// Leaves what came out in history, or makes it the conflict copy that was asked for.
fn settle(
    run: &mut Run<'_>,
    slot: BorrowedFd<'_>,
    path: &RelPath,
    loser: Option<&RelPath>,
) -> Result<Loser, OpError> {
    let Ok(Some(out)) = sys::stat_at(slot, path.name()) else {
        return Ok(None);
    };
    if run.is_junk(&out) {
        rescue::drop_scratch(slot, path.name());
        return Ok(None);
    }
    if let Some(want) = loser {
        match rescue::move_beside(run.root, slot, path.name(), want) {
            Ok((copy, stat)) => {
                crash_point!("copied");
                run.touch(&copy);
                return Ok(Some((copy, stat)));
            }
            Err(error) => {
                tracing::warn!(%path, %error, "no conflict copy could be made: the bytes are in history");
            }
        }
    }
    crash_point!("replaced");
    run.keep(path, out.file);
    Ok(None)
}

/// Replacing where names can not be swapped: the old file gets a second name in history, then the new
/// one is renamed over it. An edit by rename between the last look and the rename would be lost; there
/// is no call that could tell.
fn weak_replace(
    run: &mut Run<'_>,
    parent: BorrowedFd<'_>,
    slot: BorrowedFd<'_>,
    path: &RelPath,
    fresh: &Fresh,
    expect: &Expect,
    loser: Option<&RelPath>,
) -> Result<Loser, OpError> {
    let name = path.name();
    let staged = fresh.name.0.as_bytes();
    if let Expect::Present(Kind::Dir, _) = expect {
        simple::remove_dir(parent, path)?;
        create(run, parent, path, fresh)?;
        return Ok(None);
    }
    if fresh.dir.is_some() || fs::linkat(parent, name, slot, name, AtFlags::empty()).is_err() {
        // No second name possible: for a moment nothing stands at the path.
        simple::into_history(run, parent, slot, path, expect)?;
        create(run, parent, path, fresh)?;
        return settle(run, slot, path, loser);
    }
    let linked = sys::stat_at(slot, name).ok().flatten();
    let now = sys::stat_at(parent, name).ok().flatten();
    let same = matches!((&linked, &now), (Some(a), Some(b)) if a.file.ino == b.file.ino);
    if !same || !linked.is_some_and(|s| came_out(expect, &s)) {
        rescue::drop_scratch(slot, name);
        return Err(OpError::Unexpected);
    }
    if let Err(e) = with_access(&[parent], || {
        fs::renameat(run.stage.dir(), staged, parent, name)
    }) {
        rescue::drop_scratch(slot, name);
        return Err(match e {
            Errno::NOENT => missing(run, fresh),
            e => op_error(path, e),
        });
    }
    settle(run, slot, path, loser)
}
