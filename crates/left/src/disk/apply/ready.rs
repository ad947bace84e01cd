//! Before a batch changes any name: what it brings gets mode and mtime, and its bytes are made durable,
//! in the pack or by themselves.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use left_core::content::WHOLE_MAX;
use left_core::entry::{FileStat, Kind, Mtime, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError, OpId, StageName};
use rustix::fs::FileType;

use super::{io_op_error, lock, op_error};
use crate::disk::pack::{Order, Pack, Packed};
use crate::disk::root::Root;
use crate::disk::stage::Stage;
use crate::disk::sys::{self, Naming, Stat};

/// Most threads that sync files. They only wait: a journal commits what is synced at once together.
/// 2,000 files of 4 KiB on ext4 took 3.7 s with 1 thread, 0.6 s with 8, 0.2 s with 32.
const SYNC_THREADS: usize = 32;
/// Threads that make files ready without waiting for the disk.
pub(super) const THREADS: usize = 2;
/// Contents, and files, in memory at once on their way into the pack.
const PIECE: u64 = 1 << 20;
const PIECE_ITEMS: usize = 1024;
/// Most files without a name that a batch holds open, and the part of the process' limit that it takes.
const MAX_UNNAMED: u64 = 4096;
const UNNAMED_PART: u64 = 4;

/// How a batch is made durable.
#[derive(Clone, Copy)]
pub(super) enum How<'a> {
    /// File by file and folder by folder.
    Each,
    /// What can wait goes into the pack, all else as with `Each`. Of what is replaced, these inodes are
    /// not kept.
    Packed(&'a Pack, &'a HashSet<u64>),
}

/// What is known of an operation before it is done.
#[derive(Default)]
pub(super) struct Ready {
    /// The staged file.
    pub(super) staged: Option<Staged>,
    /// Why it can not be done.
    pub(super) failed: Option<OpError>,
    /// Nothing need be synced for it.
    pub(super) waits: bool,
}

/// A file of the stage that has its mode and mtime.
pub(super) struct Staged {
    pub(super) stat: Stat,
    /// Its handle and how it gets its first name, when it has none in the stage.
    pub(super) unnamed: Option<(File, Naming)>,
}

/// Makes all operations ready; the answer has one for each.
pub(super) fn ready(root: &Root, stage: &Stage, how: How<'_>, ops: &[(OpId, Op)]) -> Vec<Ready> {
    let mut all: Vec<Ready> = ops.iter().map(|_| Ready::default()).collect();
    match how {
        How::Each => {}
        How::Packed(pack, junk) => {
            sync_old(root, pack, junk, ops, &mut all);
            if pack.has_room()
                && let Err(error) = pack_all(stage, pack, ops, &mut all)
            {
                // No room, somebody removed it, or the disk fails: as if there was no pack.
                tracing::debug!(%error, "not packed: synced file by file");
                all.iter_mut().for_each(|r| r.waits = false);
            }
        }
    }
    sync_staged(stage, ops, &mut all);
    all
}

/// The folders in which others are to be made whose names wait for a checkpoint.
pub(super) fn folders_to_name<'a>(
    ops: &'a [(OpId, Op)],
    ready: &'a [Ready],
) -> impl Iterator<Item = Option<RelPath>> + 'a {
    let waiting = ops.iter().zip(ready).filter(|(_, ready)| ready.waits);
    waiting.filter_map(|((_, op), _)| match op {
        Op::Place {
            path,
            node: Node::Dir { .. },
            ..
        } => Some(path.parent()),
        _ => None,
    })
}

/// The staged file of an operation that has one.
fn staged_file(op: &Op) -> Option<(&RelPath, &Node, &StageName)> {
    match op {
        Op::Place {
            path,
            node: node @ Node::File { .. },
            staged: Some(name),
            ..
        } => Some((path, node, name)),
        _ => None,
    }
}

/// The file that an operation takes away from its place, or gives times by which nobody knows it for
/// ours any more.
fn old_file(op: &Op) -> Option<(&RelPath, &FileStat)> {
    match op {
        Op::Place { path, expect, .. }
        | Op::Remove { path, expect }
        | Op::SetMeta { path, expect, .. } => match expect {
            Expect::Present(Kind::File, stat) => Some((path, stat)),
            _ => None,
        },
        Op::Move { from, expect, .. } => match expect {
            Expect::Present(Kind::File, stat) => Some((from, stat)),
            _ => None,
        },
        // What is dropped is durable at others.
        Op::Drop { .. } => None,
    }
}

/// Whether what an operation does can be done again after a power cut, from the pack and the index
/// alone, and takes nothing else with it when it is lost.
fn can_wait(op: &Op, order: Order, now: Mtime) -> bool {
    let Op::Place {
        node,
        expect,
        loser: None,
        ..
    } = op
    else {
        return false;
    };
    let small = node.size() <= WHOLE_MAX;
    match expect {
        Expect::Absent => small && order >= Order::Local,
        // The old file is in its place or in history: at no moment it has no name. Where the clock was set
        // back since it changed it would look later than the new one, as if a user had made it after the cut.
        Expect::Present(Kind::File, old) => {
            let swap = node.kind() == Kind::File && order >= Order::Journaled;
            small && swap && old.ctime <= now
        }
        Expect::Present(..) => false,
    }
}

/// Syncs files that we placed without waiting and that are to go away from there or to look otherwise:
/// the pack knows where they were and what they looked like. Their names go with them: a journal has all
/// that was done to an inode.
fn sync_old(root: &Root, pack: &Pack, junk: &HashSet<u64>, ops: &[(OpId, Op)], all: &mut [Ready]) {
    let old: Vec<(usize, &RelPath, u64)> = ops
        .iter()
        .enumerate()
        .filter_map(|(at, (_, op))| old_file(op).map(|(path, stat)| (at, path, stat.ino)))
        .filter(|(_, _, ino)| pack.is_unsynced(*ino) && !junk.contains(ino))
        .collect();
    let failed = Mutex::new(Vec::new());
    in_parallel(SYNC_THREADS, &old, |_, (at, path, ino)| {
        let synced = match root.open_regular(path) {
            Ok((file, stat)) if stat.file.ino == *ino => file.sync_all(),
            // Something else stands there: the operation will find that.
            Ok(_) => Ok(()),
            Err(e) if sys::io_absent(&e) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = synced {
            lock(&failed).push((*at, io_op_error(path, &e)));
        }
    });
    let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
    // One that may not be read can be synced with all others.
    if !failed.is_empty() && root.sync_disk().is_err() {
        for (at, error) in failed {
            all[at].failed = Some(error);
        }
    }
}

/// Packs whatever can wait.
fn pack_all(stage: &Stage, pack: &Pack, ops: &[(OpId, Op)], all: &mut [Ready]) -> io::Result<()> {
    let now = sys::now();
    let waiting: Vec<usize> = (0..ops.len())
        .filter(|at| all[*at].failed.is_none() && can_wait(&ops[*at].1, pack.order(), now))
        .collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let unnamed = Unnamed::new(stage);
    let mut rest = waiting.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(PIECE_ITEMS).take_while(|at| {
            let Op::Place { node, .. } = &ops[**at].1 else {
                return true;
            };
            bytes += node.size();
            bytes <= PIECE
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        pack_some(stage, &unnamed, pack, ops, now, all)?;
    }
    crash_point!("pack-written");
    pack.sync()?;
    crash_point!("pack-synced");
    for at in waiting {
        all[at].waits = all[at].failed.is_none();
    }
    Ok(())
}

/// Whether a batch may make one more file without a name. Such a file costs a third less than one that is
/// made in the stage and renamed, and no two threads wait for the stage's folder; but it stays open until
/// it has its name.
struct Unnamed {
    naming: Option<Naming>,
    left: AtomicU64,
}

impl Unnamed {
    fn new(stage: &Stage) -> Unnamed {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let part = limit.unwrap_or(u64::MAX) / UNNAMED_PART;
        Unnamed {
            naming: stage.naming(),
            left: AtomicU64::new(part.min(MAX_UNNAMED)),
        }
    }

    fn take(&self, op: &Op) -> Option<Naming> {
        let Op::Place {
            expect: Expect::Absent,
            ..
        } = op
        else {
            return None;
        };
        let naming = self.naming?;
        let take = |left: u64| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then_some(naming)
    }
}

fn pack_some(
    stage: &Stage,
    unnamed: &Unnamed,
    pack: &Pack,
    ops: &[(OpId, Op)],
    which: &[usize],
    all: &mut [Ready],
) -> io::Result<()> {
    type Prepared = Option<Result<(Staged, Vec<u8>), OpError>>;
    let prepared: Vec<Mutex<Prepared>> = which.iter().map(|_| Mutex::new(None)).collect();
    in_parallel(THREADS, which, |n, at| {
        let op = &ops[*at].1;
        if let Some((path, node, name)) = staged_file(op) {
            let done = prepare(stage, unnamed.take(op), name, path, node).and_then(|made| {
                let staged = Staged {
                    stat: made.stat,
                    unnamed: None,
                };
                let Some(bytes) = made.bytes else {
                    let mut bytes = vec![0; node.size() as usize];
                    let read = made.file.read_exact_at(&mut bytes, 0);
                    read.map_err(|e| io_op_error(path, &e))?;
                    return Ok((staged, bytes));
                };
                let unnamed = made.naming.map(|naming| (made.file, naming));
                Ok((Staged { unnamed, ..staged }, bytes))
            });
            *lock(&prepared[n]) = Some(done);
        }
    });
    let mut packed = Vec::with_capacity(which.len());
    for (at, prepared) in which.iter().zip(prepared) {
        let Op::Place { path, node, .. } = &ops[*at].1 else {
            continue;
        };
        let file = match prepared.into_inner().unwrap_or_else(|e| e.into_inner()) {
            None => None,
            Some(Ok((staged, bytes))) => {
                let stat = staged.stat;
                all[*at].staged = Some(staged);
                Some((stat, bytes))
            }
            Some(Err(e)) => {
                all[*at].failed = Some(e);
                continue;
            }
        };
        packed.push(Packed {
            path: path.clone(),
            node: node.clone(),
            file,
        });
    }
    pack.append(packed)
}

/// Makes the staged files that nothing else makes durable so, several at once.
fn sync_staged(stage: &Stage, ops: &[(OpId, Op)], all: &mut [Ready]) {
    let each: Vec<usize> = (0..ops.len())
        .filter(|at| {
            let ready = &all[*at];
            !ready.waits && ready.failed.is_none() && staged_file(&ops[*at].1).is_some()
        })
        .collect();
    let done: Vec<Mutex<Option<Result<Stat, OpError>>>> =
        each.iter().map(|_| Mutex::new(None)).collect();
    in_parallel(SYNC_THREADS, &each, |n, at| {
        if let Some((path, node, name)) = staged_file(&ops[*at].1) {
            let synced = prepare(stage, None, name, path, node).and_then(|made| {
                made.file.sync_all().map_err(|e| io_op_error(path, &e))?;
                Ok(made.stat)
            });
            *lock(&done[n]) = Some(synced);
        }
    });
    for (at, done) in each.iter().zip(done) {
        match done.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(Ok(stat)) => {
                all[*at].staged = Some(Staged {
                    stat,
                    unnamed: None,
                });
            }
            Some(Err(e)) => all[*at].failed = Some(e),
            None => {}
        }
    }
}

/// A staged file that has its mode and mtime.
struct Made {
    file: File,
    stat: Stat,
    /// Its bytes, where they were at hand. Else it can be read.
    bytes: Option<Vec<u8>>,
    /// How it gets a name, when it has none.
    naming: Option<Naming>,
}

/// Sets mode and mtime of a staged file; makes one of a content that is held in memory, without a name
/// where that is allowed.
fn prepare(
    stage: &Stage,
    naming: Option<Naming>,
    name: &StageName,
    path: &RelPath,
    node: &Node,
) -> Result<Made, OpError> {
    let Node::File {
        mode, mtime, size, ..
    } = node
    else {
        return Err(OpError::Io(format!("{path}: not a file")));
    };
    let fail = |e: io::Error| io_op_error(path, &e);
    if let Some(bytes) = stage.take_held(name) {
        if bytes.len() as u64 != *size {
            return Err(OpError::NotStaged);
        }
        let mut file = match naming {
            Some(_) => stage.create_unnamed(*mode).map_err(fail)?,
            None => stage.create_as(name, *mode).map_err(fail)?,
        };
        file.write_all(&bytes).map_err(fail)?;
        sys::set_mtime_open(&file, *mtime).map_err(|e| op_error(path, e))?;
        let mut stat = sys::stat_fd(&file).map_err(fail)?;
        if stat.file.mode != *mode {
            // The umask, or a bit that no new file can have.
            sys::chmod(&file, *mode).map_err(|e| op_error(path, e))?;
            stat = sys::stat_fd(&file).map_err(fail)?;
        }
        let bytes = Some(bytes);
        return Ok(Made {
            file,
            stat,
            bytes,
            naming,
        });
    }
    let file = stage
        .open_existing(name)
        .map_err(fail)?
        .ok_or(OpError::NotStaged)?;
    let before = sys::stat_fd(&file).map_err(fail)?;
    if before.kind != FileType::RegularFile || before.file.size != *size {
        return Err(OpError::NotStaged);
    }
    // The mtime last: nothing after it may touch the file.
    sys::chmod(&file, *mode).map_err(|e| op_error(path, e))?;
    sys::set_mtime_open(&file, *mtime).map_err(|e| op_error(path, e))?;
    let stat = sys::stat_fd(&file).map_err(fail)?;
    Ok(Made {
        file,
        stat,
        bytes: None,
        naming: None,
    })
}

/// Runs `each` for all items, on several threads when there are many.
pub(super) fn in_parallel<T: Sync>(most: usize, items: &[T], each: impl Fn(usize, &T) + Sync) {
    let threads = most.min(items.len() / 4);
    if threads < 2 {
        items
            .iter()
            .enumerate()
            .for_each(|(at, item)| each(at, item));
        return;
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    each(at, item);
                }
            });
        }
    });
}

/// See [`in_parallel`]: for folders, which are synced.
pub(super) fn sync_in_parallel<T: Sync>(items: &[T], each: impl Fn(usize, &T) + Sync) {
    in_parallel(SYNC_THREADS, items, each);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

    use left_core::content::ContentId;

    use super::*;

    #[test]
    fn what_looks_later_than_now_is_not_replaced_without_waiting() {
        let at = |secs| Mtime { secs, nanos: 0 };
        let replaces = |ctime| Op::Place {
            path: RelPath::new("f").unwrap(),
            node: Node::File {
                mode: 0o644,
                mtime: at(1),
                size: 5,
                content: ContentId([1; 32]),
            },
            staged: None,
            expect: Expect::Present(
                Kind::File,
                FileStat {
                    ctime,
                    ..FileStat::default()
                },
            ),
            loser: None,
        };
        for (changed, waits) in [(9, true), (10, true), (11, false)] {
            let op = replaces(at(changed));
            assert_eq!(can_wait(&op, Order::Journaled, at(10)), waits, "{changed}");
        }
        assert!(!can_wait(&replaces(at(9)), Order::Local, at(10)));
    }
}
