//! [`apply`]: changing the disk as was planned, by swapping and looking at what came out, so that an
//! edit made at the same moment is never lost (DESIGN promise 4).
//!
//! Order of durability for a batch: mode and mtime of all staged files → small contents into the pack
//! and one sync of it, fsync of all other files → the operations → fsync of the folders in which
//! something was done that the pack does not tell of. A crash after a swap heals by itself: the next
//! scan finds content that equals what the peer announced. What is replaced is swapped *into its place
//! in history* in one step, so no crash leaves a user's bytes under a name that anybody would throw
//! away.

mod names;
mod place;
mod ready;
mod run;
mod simple;
#[cfg(test)]
mod tests;
mod undo;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;

use left_core::entry::{FileStat, Kind};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpDone, OpError, OpId, StageName};
use ready::{How, Ready};
use run::Run;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::history::History;
use super::pack::{Pack, Turn};
use super::root::Root;
use super::stage::Stage;
use super::sys::{self, Naming, Stat};

/// Does all of `ops` in order, as one batch that is durable when this returns. A failed operation does
/// not stop the others. The answer has every id once, in order.
///
/// A folder of ours that lacks write permission is made writable for the moment.
pub fn apply(
    root: &Root,
    stage: &Stage,
    history: &History,
    ops: &[(OpId, Op)],
) -> Vec<(OpId, Result<OpDone, OpError>)> {
    do_all(root, stage, history, How::Each, ops)
}

/// What has to be done before a batch changes any name, done while it is made ready.
pub type Before<'a> = &'a (dyn Fn() -> io::Result<()> + Sync);

/// Like [`apply`], but what can be repaired from the pack and the index after a power cut is durable
/// there, and not in its place before the next checkpoint. When `before` fails nothing is done.
pub fn apply_packed(
    root: &Root,
    stage: &Stage,
    history: &History,
    pack: &Pack,
    before: Option<Before<'_>>,
    ops: &[(OpId, Op)],
) -> Vec<(OpId, Result<OpDone, OpError>)> {
    let batch = make_ready(root, stage, pack, before, ops.to_vec());
    put_in_place(root, stage, history, pack, batch)
}

/// Like [`apply_packed`], but what is replaced and has one of these inodes is thrown away.
pub(super) fn apply_over(
    root: &Root,
    stage: &Stage,
    history: &History,
    pack: &Pack,
    junk: &HashSet<u64>,
    ops: &[(OpId, Op)],
) -> Vec<(OpId, Result<OpDone, OpError>)> {
    // Nothing of a batch is retired before all of it is done.
    let _turn = pack.turn();
    do_all(root, stage, history, How::Packed(pack, junk), ops)
}

/// A batch of which all that it brings is durable, and of which no name was changed yet.
pub struct ReadyBatch<'a> {
    ops: Vec<(OpId, Op)>,
    ready: Result<Vec<Ready>, String>,
    /// See [`apply_over`].
    _turn: Turn<'a>,
}

/// The first half of [`apply_packed`]. While one batch is put in place the next can be made ready, if no
/// operation of the one has to do with a path of the other.
pub fn make_ready<'a>(
    root: &Root,
    stage: &Stage,
    pack: &'a Pack,
    before: Option<Before<'_>>,
    ops: Vec<(OpId, Op)>,
) -> ReadyBatch<'a> {
    let turn = pack.turn();
    let junk = HashSet::new();
    let ready = ready_with(root, stage, How::Packed(pack, &junk), before, &ops);
    ReadyBatch {
        ops,
        ready,
        _turn: turn,
    }
}

/// The second half: batches in the order in which they were made ready.
pub fn put_in_place(
    root: &Root,
    stage: &Stage,
    history: &History,
    pack: &Pack,
    batch: ReadyBatch<'_>,
) -> Vec<(OpId, Result<OpDone, OpError>)> {
    let junk = HashSet::new();
    let how = How::Packed(pack, &junk);
    place_with(root, stage, history, how, &batch.ops, batch.ready)
}

fn do_all(
    root: &Root,
    stage: &Stage,
    history: &History,
    how: How<'_>,
    ops: &[(OpId, Op)],
) -> Vec<(OpId, Result<OpDone, OpError>)> {
    let ready = ready_with(root, stage, how, None, ops);
    place_with(root, stage, history, how, ops, ready)
}

/// Makes all ready. An error says why nothing may be done.
fn ready_with(
    root: &Root,
    stage: &Stage,
    how: How<'_>,
    before: Option<Before<'_>>,
    ops: &[(OpId, Op)],
) -> Result<Vec<Ready>, String> {
    let (ready, before) = std::thread::scope(|scope| {
        let before = before.map(|before| scope.spawn(before));
        let ready = ready::ready(root, stage, how, ops);
        (ready, before.map(|b| b.join()))
    });
    match before {
        None | Some(Ok(Ok(()))) => Ok(ready),
        Some(Ok(Err(e))) => Err(e.to_string()),
        Some(Err(_)) => Err("what goes before it ended in a panic".to_owned()),
    }
}

fn place_with(
    root: &Root,
    stage: &Stage,
    history: &History,
    how: How<'_>,
    ops: &[(OpId, Op)],
    ready: Result<Vec<Ready>, String>,
) -> Vec<(OpId, Result<OpDone, OpError>)> {
    let ready = match ready {
        Ok(ready) => ready,
        Err(why) => {
            let fail = |(id, _): &(OpId, Op)| (*id, Err(OpError::Io(why.clone())));
            return ops.iter().map(fail).collect();
        }
    };
    crash_point!("files-synced");
    if let How::Packed(pack, _) = how {
        pack.names_wait(ready::folders_to_name(ops, &ready));
    }
    let mut run = Run::new(root, stage, history, how);
    let done = run.all(ops, ready);
    let unsynced = run.sync();
    let all = ops.iter().zip(done);
    all.map(|((id, op), result)| (*id, finish(root, op, result, &unsynced)))
        .collect()
}

/// What an operation did, before the last look.
struct Did {
    /// What we put at the path; `None` after a removal.
    placed: Option<Stat>,
    /// What was seen at the path right afterwards, where that was looked at.
    seen: Option<Stat>,
    loser: Option<(RelPath, FileStat)>,
}

impl Did {
    fn placed(stat: Stat) -> Self {
        Did {
            placed: Some(stat),
            seen: None,
            loser: None,
        }
    }
}

/// A new thing that lies in the stage, ready to be put in place.
struct Fresh {
    name: StageName,
    stat: Stat,
    /// Of a new folder: its handle and the mode it is to get once it is in place.
    dir: Option<(OwnedFd, u32)>,
    /// Made for this operation only: not worth keeping when it fails.
    scratch: bool,
    /// A file that has no name in the stage, and how it gets one.
    unnamed: Option<(File, Naming)>,
}

/// Takes the last look: the stats are what the next scan would see, but only where what stands there
/// still is what we put there. Else the scan must find a difference, so the stat stays ours.
fn finish(
    root: &Root,
    op: &Op,
    result: Result<Did, OpError>,
    unsynced: &BTreeSet<Option<RelPath>>,
) -> Result<OpDone, OpError> {
    let did = result?;
    if unsynced.contains(&op.path().parent()) {
        return Err(OpError::Io(format!(
            "{}: the folder could not be synced to disk",
            op.path()
        )));
    }
    let look = || did.seen.or_else(|| root.stat(op.path()).ok().flatten());
    let stat = did.placed.map(|placed| match look() {
        Some(now) if is_same(&placed, &now) => now.file,
        _ => placed.file,
    });
    Ok(OpDone {
        stat,
        loser: did.loser,
    })
}

/// Whether a stat is still of the thing that was put there, unchanged.
fn is_same(placed: &Stat, now: &Stat) -> bool {
    let same = placed.kind == now.kind && placed.file.ino == now.file.ino;
    match placed.kind {
        FileType::Directory => same,
        _ => same && placed.file.same_but_ctime(&now.file),
    }
}

/// Whether what stands there is what was expected, as far as can be said without moving it.
fn is_expected(expect: &Expect, now: Option<&Stat>) -> bool {
    match (expect, now) {
        (Expect::Absent, None) => true,
        (Expect::Present(Kind::File, old), Some(now)) => {
            now.kind == FileType::RegularFile && now.file == *old
        }
        (Expect::Present(..), Some(now)) => came_out(expect, now),
        _ => false,
    }
}

/// Whether what came out of a swap is what was expected; a rename changes the ctime.
fn came_out(expect: &Expect, now: &Stat) -> bool {
    match expect {
        Expect::Absent | Expect::Present(Kind::Tombstone, _) => false,
        Expect::Present(Kind::File, old) => {
            now.kind == FileType::RegularFile && now.file.same_but_ctime(old)
        }
        Expect::Present(Kind::Symlink, old) => {
            now.kind == FileType::Symlink && now.file.ino == old.ino && now.file.mtime == old.mtime
        }
        Expect::Present(Kind::Dir, _) => now.kind == FileType::Directory,
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// Does `work`; where it is refused for lack of permission, makes the folders of ours among `dirs`
/// writable for the moment and tries once more.
pub(super) fn with_access<T>(
    dirs: &[BorrowedFd<'_>],
    mut work: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let first = work();
    if !matches!(first, Err(Errno::ACCESS)) {
        return first;
    }
    let me = rustix::process::geteuid().as_raw();
    let mut opened = Vec::new();
    for dir in dirs {
        let Ok(stat) = sys::stat_fd(dir) else {
            continue;
        };
        let mode = stat.file.mode;
        let ours = stat.uid == me && stat.kind == FileType::Directory;
        if ours && mode & 0o300 != 0o300 && sys::chmod(dir, mode | 0o300).is_ok() {
            opened.push((dir, mode));
        }
    }
    if opened.is_empty() {
        return first;
    }
    let second = work();
    for (dir, mode) in opened {
        let unchanged = sys::stat_fd(dir).is_ok_and(|s| s.file.mode == mode | 0o300);
        if unchanged {
            let _ = sys::chmod(dir, mode);
        }
    }
    second
}

fn io_op_error(path: &RelPath, e: &io::Error) -> OpError {
    match sys::errno(e) {
        Some(e) => op_error(path, e),
        None => OpError::Io(format!("{path}: {e}")),
    }
}

pub(super) fn op_error(path: &RelPath, e: Errno) -> OpError {
    match e {
        Errno::NOSPC | Errno::DQUOT => OpError::Full,
        Errno::ROFS => OpError::Io(format!(
            "{path}: the file system is read-only; make it writable, and LEFT goes on"
        )),
        Errno::XDEV => OpError::Io(format!(
            "{path}: lies on another file system than the share's folder; LEFT can not change it safely"
        )),
        Errno::ACCESS | Errno::PERM => OpError::Io(format!(
            "{path}: no permission to change it (check the owner and mode of its folder)"
        )),
        other => OpError::Io(format!("{path}: {}", io::Error::from(other))),
    }
}
