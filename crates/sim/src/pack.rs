//! What was placed and not synced, as the real disk keeps it in its pack, and how it comes back after a
//! power cut.

use std::collections::BTreeSet;

use left_core::content::WHOLE_MAX;
use left_core::entry::{FileStat, Kind, Mtime, Node, Record};
use left_core::index::{Index, Txn};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op};
use left_core::probe::mutant;

use crate::disk::{Bytes, FakeDisk, Object, Thing};
use crate::index::FakeIndex;
use crate::rng::Rng;

/// Placed since the last checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Pack {
    items: Vec<Item>,
    /// Folders and links.
    told: BTreeSet<RelPath>,
}

#[derive(Debug, Clone)]
struct Item {
    path: RelPath,
    node: Node,
    bytes: Bytes,
    /// The file with these bytes, while they may not be on the disk.
    ino: Option<u64>,
}

impl Pack {
    /// A checkpoint retires it.
    pub fn clear(&mut self) {
        self.items.clear();
        self.told.clear();
    }

    /// Whether a file's bytes can come back from it.
    pub fn brings_back(&self, record: &Record) -> bool {
        self.of_content(record).is_some()
    }

    fn of_content(&self, record: &Record) -> Option<&Item> {
        let content = record.entry.node.content()?;
        self.items.iter().find(|i| i.bytes.id() == content)
    }

    fn of_inode(&self, ino: u64) -> Option<&Item> {
        self.items.iter().rev().find(|i| i.ino == Some(ino))
    }
}

/// Whether an operation needs no sync of its own, as the real applier decides it on a file system with
/// a journal.
pub fn waits(op: &Op, wall_ms: u64) -> bool {
    // The last moment of this millisecond.
    let now = Mtime {
        secs: (wall_ms / 1000) as i64,
        nanos: (wall_ms % 1000) as u32 * 1_000_000 + 999_999,
    };
    match op {
        Op::Place {
            node,
            expect,
            loser: None,
            ..
        } if node.size() <= WHOLE_MAX => match expect {
            Expect::Absent => true,
            Expect::Present(kind, old) => {
                *kind == Kind::File && node.kind() == Kind::File && old.ctime <= now
            }
        },
        _ => false,
    }
}

impl FakeDisk {
    /// Before an operation: its contents are made durable, and a file of ours that goes away is synced.
    pub fn before(&mut self, op: &Op, wall_ms: u64) {
        let old = match op {
            Op::Place { path, expect, .. }
            | Op::Remove { path, expect }
            | Op::SetMeta { path, expect, .. } => Some((path, expect)),
            Op::Move { from, expect, .. } => Some((from, expect)),
            // What is dropped is durable at others.
            Op::Drop { .. } => None,
        };
        if let Some((path, Expect::Present(Kind::File, stat))) = old
            && self.get(path).is_some_and(|o| o.ino == stat.ino)
            && !mutant("a packed file goes to history unsynced")
        {
            self.sync_packed(path, stat.ino);
        }
        let Op::Place {
            path, node, staged, ..
        } = op
        else {
            return;
        };
        if !waits(op, wall_ms) {
            return;
        }
        match staged.as_ref().and_then(|name| self.stage.get(name)) {
            Some(bytes) => self.pack.items.push(Item {
                path: path.clone(),
                node: node.clone(),
                bytes: *bytes,
                ino: None,
            }),
            None => {
                self.pack.told.insert(path.clone());
            }
        }
    }

    /// Syncs a file, if it was packed and not synced since. With its bytes goes its name: file systems
    /// with a journal sync an inode with all that was done to it, and what was done to names before.
    fn sync_packed(&mut self, path: &RelPath, ino: u64) {
        let mut unsynced = false;
        for item in self.pack.items.iter_mut().filter(|i| i.ino == Some(ino)) {
            item.ino = None;
            unsynced = true;
        }
        if unsynced {
            self.sync_name(path, ino);
        }
    }

    /// After an operation that waits: this is the file whose bytes are not on the disk.
    pub fn after(&mut self, op: &Op, wall_ms: u64) {
        let ino = self.get(op.path()).map(|o| o.ino);
        if let Some(item) = self.pack.items.last_mut()
            && item.path == *op.path()
            && waits(op, wall_ms)
        {
            item.ino = ino;
        }
    }

    /// What the cut left of files that were placed and not synced: their names at most.
    pub fn tear(&mut self, rng: &mut Rng) {
        let mut torn = Vec::new();
        let items = self.pack.items.clone();
        let history = self.history.iter_mut().map(|(_, o)| o);
        for object in self.tree.values_mut().chain(history) {
            let unsynced = |i: &Item| i.ino == Some(object.ino) && object.bytes() == Some(i.bytes);
            if items.iter().any(unsynced) && rng.percent(50) {
                torn.extend(object.bytes().map(|b| (object.ino, b)));
                object.thing = Thing::File(Bytes::TORN);
            }
        }
        if mutant("committed before synced") {
            // Neither were the packs.
            self.pack.clear();
        }
        self.torn.extend(torn);
    }

    /// Brings back what the pack knows of; says what stands where again, to be recorded, and which bytes
    /// stood there and are in the history now.
    pub fn repair(
        &mut self,
        index: &FakeIndex,
        wall_ms: u64,
    ) -> (Vec<(RelPath, FileStat)>, Vec<Bytes>) {
        let Some(since) = self.cut.as_ref().map(|c| c.since) else {
            return Default::default();
        };
        let pack = std::mem::take(&mut self.pack);
        self.torn.clear();
        let (mut placed, mut kept) = (Vec::new(), Vec::new());
        let known = |(path, record): (&RelPath, &Record)| {
            let known = pack.told.contains(path) || pack.of_content(record).is_some();
            known.then(|| path.clone())
        };
        let mut paths: BTreeSet<RelPath> = index.live().filter_map(known).collect();
        paths.extend(pack.items.iter().map(|i| i.path.clone()));
        // A user moved them, and the index had not heard of it.
        let strays = self
            .tree
            .iter()
            .filter(|(_, o)| pack.of_inode(o.ino).is_some());
        paths.extend(strays.map(|(path, _)| path.clone()));
        for path in paths {
            let heard = index.get(&path).ok().flatten();
            let record = heard.clone().filter(|r| r.entry.node.is_live());
            let of_record = record.as_ref().and_then(|r| pack.of_content(r));
            // A folder or link; the path may have been told of as one before it became a file.
            let told = |r: &Record| r.entry.node.content().is_none() && pack.told.contains(&path);
            // Where a user made something else meanwhile, it goes to the history; and what the index has never
            // heard of, as one that was lost.
            let over = match &heard {
                Some(_) => of_record.filter(|_| {
                    let unsure = record.as_ref().and_then(|r| r.stat);
                    unsure.is_some_and(|s| s.ctime >= since)
                }),
                None => pack.items.iter().rev().find(|i| i.path == path),
            };
            let over =
                over.filter(|_| !mutant("what was written over before the repair is not kept"));
            let recorded = record.as_ref().filter(|r| of_record.is_some() || told(r));
            let there = self.get(&path).cloned();
            let (node, bytes) = match (&there, recorded) {
                (None, Some(record)) => {
                    if record.stat.is_some_and(|s| s.ctime < since) {
                        continue;
                    }
                    (record.entry.node.clone(), of_record.map(|i| i.bytes))
                }
                (
                    Some(Object {
                        thing: Thing::File(bytes),
                        ino,
                        ctime,
                        ..
                    }),
                    record,
                ) => {
                    let ours = pack.of_inode(*ino).filter(|_| *bytes == Bytes::TORN);
                    let then = record.and_then(|r| r.stat);
                    let older = then.is_some_and(|then| *ctime <= then.ctime);
                    let differs = of_record.is_some_and(|i| i.bytes != *bytes);
                    match (of_record, record, ours) {
                        (Some(item), Some(record), ours)
                            if differs && (older || ours.is_some()) =>
                        {
                            (record.entry.node.clone(), Some(item.bytes))
                        }
                        (_, _, Some(item)) => (item.node.clone(), Some(item.bytes)),
                        _ => {
                            self.keep(&path, over.filter(|i| i.bytes != *bytes), wall_ms);
                            continue;
                        }
                    }
                }
                (there, _) => {
                    let gone = there.is_some() || heard.is_none();
                    self.keep(&path, over.filter(|_| gone), wall_ms);
                    continue;
                }
            };
            if !self.make_parents(&path, index, wall_ms) {
                self.keep(&path, over, wall_ms);
                continue;
            }
            if let Some(old) = self.take(&path, wall_ms)
                && old.bytes() != Some(Bytes::TORN)
            {
                kept.extend(old.bytes());
                self.history.push((path.clone(), old));
            }
            self.make_node(&path, &node, bytes, wall_ms);
            if let (Some(_), Some(now)) = (recorded, self.get(&path)) {
                placed.push((path, now.stat()));
            }
        }
        // All of it, before any of it is recorded.
        self.sync_names();
        (placed, kept)
    }

    /// Puts what an item of the pack holds into the history.
    fn keep(&mut self, path: &RelPath, item: Option<&Item>, wall_ms: u64) {
        let Some(Item {
            node: Node::File { mode, mtime, .. },
            bytes,
            ..
        }) = item
        else {
            return;
        };
        let object = Object {
            thing: Thing::File(*bytes),
            mode: *mode,
            mtime: *mtime,
            ino: self.new_inode(),
            ctime: self.stamp(wall_ms),
        };
        self.history.push((path.clone(), object));
    }

    /// Makes the folders above a path that the index has; whether they are all there.
    fn make_parents(&mut self, path: &RelPath, index: &FakeIndex, wall_ms: u64) -> bool {
        let Some(parent) = path.parent() else {
            return true;
        };
        if let Some(there) = self.get(&parent) {
            return there.kind() == Kind::Dir;
        }
        match index.get(&parent) {
            Ok(Some(record)) if record.entry.node.kind() == Kind::Dir => {
                if !self.make_parents(&parent, index, wall_ms) {
                    return false;
                }
                self.make_node(&parent, &record.entry.node, None, wall_ms);
                true
            }
            _ => false,
        }
    }

    fn make_node(&mut self, path: &RelPath, node: &Node, bytes: Option<Bytes>, wall_ms: u64) {
        let now = self.stamp(wall_ms);
        let (thing, mode, mtime) = match (node, bytes) {
            (Node::File { mode, mtime, .. }, Some(bytes)) => (Thing::File(bytes), *mode, *mtime),
            (Node::Dir { mode }, _) => (Thing::Dir, *mode, now),
            (Node::Symlink { mtime, target }, _) => (Thing::Symlink(target.clone()), 0o777, *mtime),
            _ => return,
        };
        self.make(path, thing, mode, mtime, wall_ms);
    }
}

/// Has what was repaired recorded.
pub fn record(index: &mut FakeIndex, placed: Vec<(RelPath, FileStat)>) {
    if placed.is_empty() {
        return;
    }
    let fault = index.fail_in.take();
    let txn = Txn {
        touch: placed,
        ..Txn::default()
    };
    index.commit(txn).expect("no fault is planned");
    index.fail_in = fault;
}
