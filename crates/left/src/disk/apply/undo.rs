//! Taking back a swap that brought out something else than expected.

use std::os::fd::BorrowedFd;

use left_core::entry::FileStat;
use left_core::path::RelPath;
use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use super::run::Run;
use super::{Fresh, is_same};
use crate::disk::rescue;
use crate::disk::sys;

/// How often a user may win the race for a name before the bytes go to a conflict copy.
const MAX_TRIES: usize = 16;

/// What became of the slot in history.
pub(super) enum Undone {
    /// It is empty again.
    Clean,
    /// It holds bytes that must not be lost: to be looked at again.
    Kept(FileStat),
}

/// Brings the new thing from the slot back to the stage, or drops it when it is not worth keeping.
pub(super) fn back_to_stage(run: &Run<'_>, slot: BorrowedFd<'_>, path: &RelPath, fresh: &Fresh) {
    let name = fresh.name.0.as_bytes();
    let renamer = &run.root.renamer;
    let back = (run.stage).with(|stage| Ok(renamer.move_new(slot, path.name(), stage, name)?));
    if let Err(error) = back {
        // Verified content of a peer, nothing of the user's: it can be fetched again.
        tracing::debug!(%path, %error, "a staged file could not be brought back");
    }
}

/// The slot holds what stood at `path`, which was not expected, and `path` our new thing: exchanges
/// them again. Whatever of the user's comes out by then becomes a conflict copy.
pub(super) fn swap_back(
    run: &mut Run<'_>,
    parent: BorrowedFd<'_>,
    slot: BorrowedFd<'_>,
    path: &RelPath,
    fresh: &Fresh,
) -> Undone {
    let name = path.name();
    let renamer = &run.root.renamer;
    for _ in 0..MAX_TRIES {
        match renamer.swap(slot, name, parent, name) {
            Some(Ok(())) => {
                let out = sys::stat_at(slot, name).ok().flatten();
                return match out {
                    None => Undone::Clean,
                    Some(out) if is_same(&fresh.stat, &out) => drop_fresh(run, slot, path, fresh),
                    Some(_) => to_copy(run, slot, path),
                };
            }
            // Our new thing was deleted or moved away meanwhile: the place is free.
            Some(Err(Errno::NOENT)) => match renamer.move_new(slot, name, parent, name) {
                Ok(()) => return Undone::Clean,
                Err(Errno::EXIST) => {}
                Err(_) => break,
            },
            _ => break,
        }
    }
    to_copy(run, slot, path)
}

/// Disposes of our new thing after it was in the user's hands for a moment. A program may have opened
/// it there and write to it yet: so a file is not used again but stays in history, where a late write
/// is found, and is fetched anew.
fn drop_fresh(run: &mut Run<'_>, slot: BorrowedFd<'_>, path: &RelPath, fresh: &Fresh) -> Undone {
    let name = path.name();
    match fresh.stat.kind {
        FileType::RegularFile => Undone::Kept(fresh.stat.file),
        FileType::Directory => match fs::unlinkat(slot, name, AtFlags::REMOVEDIR) {
            Ok(()) => Undone::Clean,
            Err(_) => to_copy(run, slot, path),
        },
        _ => {
            rescue::drop_scratch(slot, name);
            Undone::Clean
        }
    }
}

/// Makes what lies in the slot a conflict copy of `path`.
pub(super) fn to_copy(run: &mut Run<'_>, slot: BorrowedFd<'_>, path: &RelPath) -> Undone {
    let Ok(Some(out)) = sys::stat_at(slot, path.name()) else {
        return Undone::Clean;
    };
    let moved = match rescue::late_name(path) {
        Some(want) => rescue::move_beside(run.root, slot, path.name(), &want),
        None => return Undone::Kept(out.file),
    };
    match moved {
        Ok((copy, _)) => {
            run.touch(&copy);
            Undone::Clean
        }
        Err(error) => {
            tracing::warn!(%path, %error, "no conflict copy could be made: the bytes are in history");
            Undone::Kept(out.file)
        }
    }
}
