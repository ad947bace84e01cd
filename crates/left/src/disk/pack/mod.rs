//! [`Pack`]: what was placed since the last checkpoint, so that no file needs an fsync of its own.
//!
//! A batch's small contents go, one after the other, into a file of `.left/pack/`, which is synced once.
//! Then the files themselves are written and swapped in without waiting for the disk. A checkpoint syncs
//! the whole file system behind them and retires the pack. After a power cut [`repair`](super::repair) brings back from
//! it what had not reached the disk.

mod block;
mod order;
mod read;
mod turns;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use left_core::entry::Node;
use left_core::path::RelPath;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use block::Inode;
pub(crate) use block::Item;
pub(crate) use order::Order;
pub(crate) use read::Packs;
pub(crate) use turns::Turn;
use turns::Turns;

use super::inner::Inner;
use super::root::Root;
use super::sys::{self, Stat};

/// From here on a checkpoint is due at once.
const SOFT: Fill = Fill {
    items: 32_000,
    bytes: 64 << 20,
};
/// From here on nothing is packed until a checkpoint is done: files are synced one by one.
const HARD: Fill = Fill {
    items: 64_000,
    bytes: 256 << 20,
};

/// The packs of one share.
#[derive(Debug)]
pub struct Pack {
    dir: Inner,
    order: Order,
    turns: Turns,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    next: u64,
    /// Retired by the next checkpoint that succeeds.
    sealed: Vec<String>,
    /// Could not be written to their end: sealed with the next ones.
    broken: Vec<String>,
    /// From before a power cut, and not all of it could be brought back: until that is healed.
    unhealed: Vec<String>,
    /// What was packed since the last seal, and what before it.
    now: Unsynced,
    before: Unsynced,
    /// The disk failed: nothing is packed any more, nor retired.
    failed: bool,
}

#[derive(Debug)]
struct Current {
    name: String,
    file: Arc<File>,
    len: u64,
    /// Its name is on the disk.
    named: bool,
}

/// What may not be on the disk itself yet.
#[derive(Debug, Default)]
struct Unsynced {
    inodes: HashSet<u64>,
    /// Folders in which folders were made.
    dirs: BTreeSet<Option<RelPath>>,
    fill: Fill,
    /// Whatever stands there: an earlier run packed it.
    all: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Fill {
    items: usize,
    bytes: u64,
}

impl Fill {
    fn reaches(self, limit: Fill) -> bool {
        self.items >= limit.items || self.bytes >= limit.bytes
    }
}

/// Something to be packed: with the bytes of a file, and the stat of it in the stage.
pub(crate) struct Packed {
    pub(crate) path: RelPath,
    pub(crate) node: Node,
    pub(crate) file: Option<(Stat, Vec<u8>)>,
}

impl Pack {
    /// Opens the packs, making their folder when missing. Those of an earlier run stay until the next
    /// checkpoint, or until they are [repaired](super::repair::repair) from.
    pub fn open(root: &Root) -> io::Result<Pack> {
        let dir = Inner::open(root, "pack")?;
        // Somebody may have mounted something there.
        let order = match root.shares_disk(dir.handle())? {
            true => Order::of(dir.handle()),
            false => Order::Unknown,
        };
        let seed = sys::now();
        let micros = u64::from(seed.nanos / 1000);
        let sealed = names(&dir.handle())?;
        let before = Unsynced {
            all: !sealed.is_empty(),
            ..Unsynced::default()
        };
        let state = State {
            next: (seed.secs as u64).wrapping_mul(1_000_000) + micros,
            sealed,
            before,
            ..State::default()
        };
        Ok(Pack {
            dir,
            order,
            turns: Turns::default(),
            state: Mutex::new(state),
        })
    }

    /// Whether there is so much, or something from an earlier run, that a checkpoint should not wait.
    pub fn wants_checkpoint(&self) -> bool {
        let state = self.lock();
        state.before.all || state.fill().reaches(SOFT)
    }

    /// Before a checkpoint: what is packed from now on outlives it. Waits for the batches under way.
    pub fn seal(&self) {
        let _closed = self.turns.close();
        let mut state = self.lock();
        let current = state.current.take();
        let broken = std::mem::take(&mut state.broken);
        state.sealed.extend(broken);
        state.sealed.extend(current.map(|c| c.name));
        let now = std::mem::take(&mut state.now);
        let before = &mut state.before;
        before.inodes.extend(now.inodes);
        before.dirs.extend(now.dirs);
        before.fill.items += now.fill.items;
        before.fill.bytes += now.fill.bytes;
    }

    /// After a checkpoint that failed: what the packs tell of may be nowhere else, so they stay for the
    /// next start.
    pub fn doubt(&self) {
        self.lock().failed = true;
    }

    /// After a checkpoint: what was sealed before it is on the disk itself. `healed`: nothing waits any
    /// more that a power cut took.
    pub fn retire(&self, healed: bool) {
        let mut state = self.lock();
        if state.failed {
            return;
        }
        state.before = Unsynced::default();
        let mut gone = std::mem::take(&mut state.sealed);
        if healed {
            gone.append(&mut state.unhealed);
        }
        drop(state);
        crash_point!("pack-retiring");
        for name in gone {
            // Not synced: one that comes back is found to be done.
            match fs::unlinkat(self.dir.handle(), name.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => tracing::warn!(%error, name, "a pack could not be removed"),
            }
        }
    }

    /// To be held while a batch is under way.
    pub(crate) fn turn(&self) -> Turn<'_> {
        self.turns.take()
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Whether more may be packed.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        !state.failed && !state.fill().reaches(HARD)
    }

    /// Whether the bytes of this file may not be on the disk yet, though we placed it.
    pub(crate) fn is_unsynced(&self, ino: u64) -> bool {
        let state = self.lock();
        let parts = [&state.now, &state.before];
        parts.iter().any(|u| u.all || u.inodes.contains(&ino))
    }

    /// The folders above `dir` whose sync makes its own name durable.
    pub(crate) fn unsynced_above(&self, dir: Option<&RelPath>) -> Vec<Option<RelPath>> {
        let state = self.lock();
        let parts = [&state.now, &state.before];
        let mut found = Vec::new();
        let mut at = dir.cloned();
        while let Some(dir) = at {
            at = dir.parent();
            if parts.iter().any(|u| u.all || u.dirs.contains(&at)) {
                found.push(at.clone());
            }
        }
        found
    }

    /// These folders were synced, after all that the caller had made in them: the names in them wait for
    /// no checkpoint.
    pub(crate) fn names_synced<'a>(&self, dirs: impl Iterator<Item = &'a Option<RelPath>>) {
        let mut state = self.lock();
        for dir in dirs {
            state.now.dirs.remove(dir);
            state.before.dirs.remove(dir);
        }
    }

    /// Writes these down; they are durable after the next [`sync`](Self::sync). On an error nothing of
    /// them counts as packed.
    pub(crate) fn append(&self, packed: Vec<Packed>) -> io::Result<()> {
        let mut items = Vec::with_capacity(packed.len());
        for Packed { path, node, file } in packed {
            let (inode, bytes) = match file {
                Some((stat, bytes)) => (inode_of(&stat), bytes),
                None => (Inode::default(), Vec::new()),
            };
            items.push((Item { path, node, inode }, bytes));
        }
        let mut state = self.lock();
        if state.current.is_none() {
            state.current = Some(self.begin(state.next)?);
            state.next += 1;
        }
        let Some(current) = &mut state.current else {
            return Err(io::Error::other("no pack"));
        };
        let written = block::write(&current.file, current.len, &items);
        let len = written.inspect_err(|_| {
            // Half a block is none, but it takes room that may be all there is.
            let _ = current.file.set_len(current.len);
        })?;
        current.len += len;
        let now = &mut state.now;
        now.fill.items += items.len();
        now.fill.bytes += len;
        let files = items.iter().map(|(item, _)| item);
        let files = files.filter(|item| matches!(item.node, Node::File { .. }));
        now.inodes.extend(files.map(|item| item.inode.ino));
        Ok(())
    }

    /// In these folders others are to be made, right now, whose names wait for the next checkpoint.
    pub(crate) fn names_wait(&self, dirs: impl Iterator<Item = Option<RelPath>>) {
        self.lock().now.dirs.extend(dirs);
    }

    /// Waits until all that was appended is on the disk. After an error nothing more goes to that file.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let current =
            (self.lock().current.as_ref()).map(|c| (c.file.clone(), c.named, c.name.clone()));
        let Some((file, named, name)) = current else {
            return Ok(());
        };
        let mut synced = file.sync_data();
        let there = self.is_there(&file, &name);
        let removed = there.is_err();
        synced = synced.and(there);
        if synced.is_ok() && !named {
            synced = sys::sync_dir(self.dir.handle()).map_err(Into::into);
        }
        let mut state = self.lock();
        match (&synced, &mut state.current) {
            (Ok(()), Some(current)) => current.named = true,
            (Err(_), _) => {
                // Not sealed: a checkpoint under way does not cover what was placed from it just now.
                let current = state.current.take();
                state.broken.extend(current.map(|c| c.name));
                // What it told of before is nowhere else until then.
                state.before.all |= removed;
            }
            _ => {}
        }
        synced
    }

    /// An error where a pack has not its name any more: somebody removed it, or its folder, and whoever
    /// comes after a power cut would not find what is in it.
    fn is_there(&self, file: &File, name: &str) -> io::Result<()> {
        let there = sys::stat_at(self.dir.current()?, name.as_bytes())?;
        let held = sys::stat_fd(file)?;
        match there.is_some_and(|t| t.file.ino == held.file.ino && t.dev == held.dev) {
            true => Ok(()),
            false => Err(io::Error::other("the pack was removed")),
        }
    }

    /// What the packs of earlier runs tell.
    pub(crate) fn read(&self) -> Packs {
        Packs::read(&self.dir.handle(), &self.lock().sealed)
    }

    /// After a repair, which is on the disk. `all`: of everything.
    pub(crate) fn repaired(&self, all: bool) {
        let mut state = self.lock();
        state.before.all = false;
        if !all {
            state.unhealed = std::mem::take(&mut state.sealed);
        }
        drop(state);
        self.retire(all);
    }

    fn begin(&self, number: u64) -> io::Result<Current> {
        let name = format!("{number:016x}");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let dir = self.dir.current()?;
        let fd = fs::openat(dir, name.as_str(), flags, Mode::from_raw_mode(0o600))?;
        Ok(Current {
            name,
            file: Arc::new(File::from(fd)),
            len: 0,
            named: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fill(&self) -> Fill {
        let (now, before) = (self.now.fill, self.before.fill);
        Fill {
            items: now.items + before.items,
            bytes: now.bytes + before.bytes,
        }
    }
}

fn inode_of(stat: &Stat) -> Inode {
    Inode {
        ino: stat.file.ino,
        born: stat.born,
        ctime: stat.file.ctime,
    }
}

/// The packs that are there, oldest first.
fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let names = sys::list(dir)?.into_iter();
    let text = names.filter_map(|n| String::from_utf8(n.into()).ok());
    Ok(text
        .filter(|n| n.len() == 16 && n.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
    use super::*;
    use crate::disk::init_share;

    fn append(pack: &Pack, path: &str) {
        let node = Node::Dir { mode: 0o755 };
        let path = RelPath::new(path).unwrap();
        let file = None;
        pack.append(vec![Packed { path, node, file }]).unwrap();
    }

    /// A checkpoint that began before a pack broke does not say that what was placed from it is on the disk.
    #[test]
    fn a_broken_pack_outlives_the_checkpoint_under_way() {
        let dir = tempfile::tempdir().unwrap();
        init_share(dir.path(), b"id = 1\n").unwrap();
        let pack = Pack::open(&Root::open(dir.path()).unwrap()).unwrap();
        let packs = || names(&pack.dir.handle()).unwrap().len();
        append(&pack, "a");
        pack.sync().unwrap();
        pack.seal();
        append(&pack, "b");
        pack.sync().unwrap();
        append(&pack, "c");
        // This can not be synced.
        let bad = File::open("/dev/null").unwrap();
        pack.lock().current.as_mut().unwrap().file = Arc::new(bad);
        pack.sync().unwrap_err();
        assert_eq!(packs(), 2);
        pack.retire(true);
        assert_eq!(packs(), 1);
        pack.seal();
        pack.retire(true);
        assert_eq!(packs(), 0);
    }
}
