//! A tree of folders, files and links with inodes and times, as a file system would show it.

use std::collections::{BTreeMap, BTreeSet};

use left_core::content::ContentId;
use left_core::diff::Seen;
use left_core::entry::{FileStat, Kind, Mtime};
use left_core::path::RelPath;
use left_core::plan::StageName;

use crate::pack::Pack;
use crate::rng::Rng;

/// The bytes of a file: a name for them, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    /// Different bytes have different names.
    pub name: u64,
    /// Length; 0 exactly for [`Bytes::EMPTY`].
    pub size: u64,
}

impl Bytes {
    /// No bytes.
    pub const EMPTY: Bytes = Bytes { name: 0, size: 0 };
    /// What is left of a file whose bytes did not reach the disk.
    pub const TORN: Bytes = Bytes {
        name: u64::MAX,
        size: 1,
    };

    /// Hash of the bytes.
    pub fn id(self) -> ContentId {
        ContentId(left_core::content::ChunkId::of(&self.name.to_le_bytes()).0)
    }
}

/// What may stand at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A folder.
    Dir,
    /// A regular file.
    File(Bytes),
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// A thing with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub thing: Thing,
    /// Inode number.
    pub ino: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Change time.
    pub ctime: Mtime,
}

impl Object {
    /// Its shape.
    pub fn kind(&self) -> Kind {
        match self.thing {
            Thing::Dir => Kind::Dir,
            Thing::File(_) => Kind::File,
            Thing::Symlink(_) => Kind::Symlink,
        }
    }

    /// A file's bytes.
    pub fn bytes(&self) -> Option<Bytes> {
        match self.thing {
            Thing::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// What `lstat` says.
    pub fn stat(&self) -> FileStat {
        FileStat {
            ino: self.ino,
            size: match &self.thing {
                Thing::Dir => 4096,
                Thing::File(bytes) => bytes.size,
                Thing::Symlink(target) => target.len() as u64,
            },
            mtime: self.mtime,
            ctime: self.ctime,
            mode: self.mode,
        }
    }

    /// What a user sees of it: all but inode and ctime, and a folder's mtime.
    pub fn shown(&self) -> String {
        match &self.thing {
            Thing::Dir => format!("dir {:o}", self.mode),
            Thing::File(b) => format!(
                "file {:o} {:?} {}:{}",
                self.mode, self.mtime, b.name, b.size
            ),
            Thing::Symlink(target) => {
                format!("link {:?} {}", self.mtime, String::from_utf8_lossy(target))
            }
        }
    }
}

/// What stands in the folder, by path.
pub type Tree = BTreeMap<RelPath, Object>;
/// What was superseded or deleted by the engine, with the path it had.
pub type History = Vec<(RelPath, Object)>;

/// What is known of a power cut.
#[derive(Debug, Clone)]
pub struct Cut {
    /// What changed before was durable.
    pub since: Mtime,
    /// What changed later is no loss.
    pub found: Mtime,
    /// Paths that it took away as a whole.
    pub vanished: BTreeSet<RelPath>,
}

/// States that a power failure may bring back; older ones were written back by then.
const MAX_UNSYNCED: usize = 40;

/// One device's share folder, with its history and stage.
#[derive(Debug, Clone, Default)]
pub struct FakeDisk {
    pub(crate) tree: Tree,
    /// See [`History`].
    pub history: History,
    /// Whole, verified contents that wait to be applied.
    pub stage: BTreeMap<StageName, Bytes>,
    /// There is no room.
    pub full: bool,
    /// What can not be read: files, or folders with all below them.
    pub unreadable: BTreeSet<RelPath>,
    /// What vanished though no user deleted it, and will be put back.
    pub vanished: Option<Tree>,
    /// The folder itself is gone, with the stage.
    pub gone: bool,
    /// Operations that reached for something outside the folder.
    pub escaped: Vec<RelPath>,
    /// States since the last sync are kept, for [`FakeDisk::power_cut`].
    pub journaled: bool,
    unsynced: Vec<(Tree, History)>,
    /// The last stamp before the last sync.
    synced: Mtime,
    /// The last stamp.
    stamped: Mtime,
    /// Placed, and durable in the pack only.
    pub pack: Pack,
    /// What was in files of which a power cut left only the names, by inode, until they are repaired.
    pub torn: BTreeMap<u64, Bytes>,
    /// What a power cut took back and is not healed yet.
    pub cut: Option<Cut>,
    free_inodes: Vec<u64>,
    last_inode: u64,
    last_stage: u64,
    ticks: u32,
}

impl FakeDisk {
    /// All that stands there, in order.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What stands at a path.
    pub fn get(&self, path: &RelPath) -> Option<&Object> {
        self.tree.get(path)
    }

    /// Whether something can be put at this path: its parent is a folder.
    pub fn has_parent(&self, path: &RelPath) -> bool {
        path.parent()
            .is_none_or(|p| self.get(&p).is_some_and(|o| o.kind() == Kind::Dir))
    }

    /// Paths strictly below `dir`.
    pub fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        self.tree
            .range(dir.clone()..)
            .map(|(p, _)| p)
            .skip_while(|p| *p == dir)
            .take_while(|p| p.is_below(dir))
            .cloned()
            .collect()
    }

    /// The bytes of a file as far as a user knows, who has not seen that a power cut tore it.
    pub fn known(&self, path: &RelPath) -> Option<Bytes> {
        let object = self.get(path)?;
        let bytes = object.bytes()?;
        let torn = self.torn.get(&object.ino).copied();
        torn.filter(|_| bytes == Bytes::TORN).or(Some(bytes))
    }

    /// Whether bytes are in a file of the tree or in history.
    pub fn holds(&self, bytes: Bytes) -> bool {
        let vanished = self.vanished.iter().flat_map(|t| t.values());
        let mut all = vanished
            .chain(self.tree.values())
            .chain(self.history.iter().map(|(_, o)| o));
        all.any(|o| o.bytes() == Some(bytes))
    }

    /// Whether a path and the folders above it can be read.
    pub fn is_readable(&self, path: &RelPath) -> bool {
        self.barrier(path).is_none()
    }

    /// The unreadable path that is `path` or above it.
    pub fn barrier(&self, path: &RelPath) -> Option<&RelPath> {
        let mut all = self.unreadable.iter();
        all.find(|p| *p == path || path.is_below(p))
    }

    /// A look at a path, as a scanner that reads it makes it.
    pub fn look(&self, path: &RelPath) -> Seen {
        let Some(object) = self.get(path) else {
            return Seen::Absent;
        };
        if !self.is_readable(path) {
            return Seen::Unreadable {
                reason: "can not be read".to_owned(),
            };
        }
        let stat = object.stat();
        match &object.thing {
            Thing::Dir => Seen::Dir(stat),
            Thing::File(bytes) => Seen::File {
                stat,
                content: bytes.id(),
            },
            Thing::Symlink(target) => Seen::Symlink {
                stat,
                target: target.clone(),
            },
        }
    }

    /// The wall clock in milliseconds as a time stamp of the file system, each a bit later than
    /// the one before within the same millisecond.
    pub fn stamp(&mut self, wall_ms: u64) -> Mtime {
        self.ticks = (self.ticks + 1) % 1_000_000;
        self.stamped = Mtime {
            secs: (wall_ms / 1000) as i64,
            nanos: (wall_ms % 1000) as u32 * 1_000_000 + self.ticks,
        };
        self.stamped
    }

    pub(crate) fn new_inode(&mut self) -> u64 {
        // Numbers are used again at once, as ext4 does.
        self.free_inodes.pop().unwrap_or_else(|| {
            self.last_inode += 1;
            self.last_inode
        })
    }

    fn touch_parent(&mut self, path: &RelPath, now: Mtime) {
        if let Some(parent) = path.parent()
            && let Some(dir) = self.tree.get_mut(&parent)
        {
            dir.mtime = now;
            dir.ctime = now;
        }
    }

    /// Makes something where nothing stands.
    pub fn make(&mut self, path: &RelPath, thing: Thing, mode: u32, mtime: Mtime, wall_ms: u64) {
        let now = self.stamp(wall_ms);
        let object = Object {
            mode: match thing {
                Thing::Symlink(_) => 0o777,
                _ => mode,
            },
            thing,
            ino: self.new_inode(),
            mtime,
            ctime: now,
        };
        let old = self.tree.insert(path.clone(), object);
        assert!(old.is_none(), "{path}: something stands there");
        assert!(self.has_parent(path), "{path}: the parent is no folder");
        self.touch_parent(path, now);
    }

    /// New bytes in the same file.
    pub fn write(&mut self, path: &RelPath, bytes: Bytes, wall_ms: u64) {
        let now = self.stamp(wall_ms);
        if let Some(object) = self.tree.get_mut(path) {
            object.thing = Thing::File(bytes);
            object.mtime = now;
            object.ctime = now;
        }
    }

    /// Sets mode and mtime (links have no mode, of folders the mtime stays).
    pub fn set_meta(&mut self, path: &RelPath, mode: Option<u32>, mtime: Option<Mtime>, ms: u64) {
        let now = self.stamp(ms);
        if let Some(object) = self.tree.get_mut(path) {
            if object.kind() != Kind::Symlink {
                object.mode = mode.unwrap_or(object.mode);
            }
            if object.kind() != Kind::Dir {
                object.mtime = mtime.unwrap_or(object.mtime);
            }
            object.ctime = now;
        }
    }

    /// Takes one thing (of a folder: an empty one) out of the tree; its inode lives on.
    pub fn take(&mut self, path: &RelPath, wall_ms: u64) -> Option<Object> {
        let now = self.stamp(wall_ms);
        let mut object = self.tree.remove(path)?;
        object.ctime = now;
        self.touch_parent(path, now);
        Some(object)
    }

    /// Puts back, or elsewhere, what was taken.
    pub fn put(&mut self, path: &RelPath, object: Object, wall_ms: u64) {
        let now = self.stamp(wall_ms);
        let old = self.tree.insert(path.clone(), object);
        assert!(old.is_none(), "{path}: something stands there");
        self.touch_parent(path, now);
    }

    /// Deletes a thing and all below it for good, as a user does.
    pub fn delete(&mut self, path: &RelPath, wall_ms: u64) {
        for p in self.below(path) {
            if let Some(object) = self.tree.remove(&p) {
                self.free_inodes.push(object.ino);
            }
        }
        if let Some(object) = self.take(path, wall_ms) {
            self.free_inodes.push(object.ino);
        }
    }

    /// Renames a thing with all below it to where nothing stands.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath, wall_ms: u64) {
        let below = self.below(from);
        let Some(object) = self.take(from, wall_ms) else {
            return;
        };
        let cut = from.as_bytes().len();
        let mut moved = Vec::new();
        for old in below {
            let mut name = to.as_bytes().to_vec();
            name.extend_from_slice(&old.as_bytes()[cut..]);
            if let Some(object) = self.tree.remove(&old) {
                moved.push((RelPath::new(name), object));
            }
        }
        self.put(to, object, wall_ms);
        for (path, object) in moved {
            // A path that gets too long stays out; the edits take care not to make one.
            if let Ok(path) = path {
                self.tree.insert(path, object);
            }
        }
    }

    /// Something is about to change: what is there now may come back until the next sync.
    pub fn log(&mut self) {
        if self.journaled {
            if self.unsynced.len() == MAX_UNSYNCED {
                self.unsynced.remove(0);
            }
            self.unsynced
                .push((self.tree.clone(), self.history.clone()));
        }
    }

    /// All names that were given until now are durable.
    pub fn sync_names(&mut self) {
        self.unsynced.clear();
    }

    /// A file is durable, and where it stands: no older state comes back than the one in which it was
    /// put there.
    pub fn sync_name(&mut self, path: &RelPath, ino: u64) {
        let stands = |(tree, _): &(Tree, History)| tree.get(path).is_some_and(|o| o.ino == ino);
        let older = self.unsynced.iter().rposition(|state| !stands(state));
        self.unsynced.drain(..older.map_or(0, |at| at + 1));
    }

    /// A file is durable as it is, and where it stands.
    pub fn sync_file(&mut self, path: &RelPath) {
        let now = self.tree.get(path).map(Object::stat);
        let stands = |(tree, _): &(Tree, History)| tree.get(path).map(Object::stat) == now;
        let older = self.unsynced.iter().rposition(|state| !stands(state));
        self.unsynced.drain(..older.map_or(0, |at| at + 1));
    }

    /// All that was done until now is durable.
    pub fn sync(&mut self) {
        self.sync_names();
        self.pack.clear();
        self.synced = self.stamped;
    }

    /// The power fails: the disk is as it was at some moment since the last sync. (A journaling
    /// file system keeps the order in which names were changed.)
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let at = rng.index(self.unsynced.len() + 1);
        if let Some((tree, history)) = self.unsynced.drain(..).nth(at) {
            self.tree = tree;
            self.history = history;
            // Some of these may be in use again.
            self.free_inodes.clear();
        }
        self.unsynced.clear();
        self.stage.clear();
        self.tear(rng);
        let mut since = self.cut.take().map_or(self.synced, |c| c.since);
        let at = |m: Mtime| (m.secs, m.nanos);
        if at(self.stamped) < at(since) {
            // The clock was set back since: times say nothing of what came later.
            since = Mtime {
                secs: i64::MIN,
                nanos: 0,
            };
        }
        self.cut = Some(Cut {
            since,
            found: self.stamped,
            vanished: BTreeSet::new(),
        });
    }

    /// All vanishes.
    pub fn vanish(&mut self) {
        self.sync();
        self.vanished = Some(std::mem::take(&mut self.tree));
    }

    /// What vanished is put back, under another name where something else stands now; says what
    /// was.
    pub fn put_back(&mut self) -> Vec<RelPath> {
        let mut back = Vec::new();
        for (mut path, object) in self.vanished.take().unwrap_or_default() {
            let merged = object.kind() == Kind::Dir
                && self.get(&path).is_some_and(|o| o.kind() == Kind::Dir);
            while !merged && (self.get(&path).is_some() || !self.has_parent(&path)) {
                let mut name = path.as_bytes().to_vec();
                name.iter_mut()
                    .filter(|b| **b == b'/')
                    .for_each(|b| *b = b'~');
                name.truncate(250);
                name.push(b'~');
                path = RelPath::new(name).expect("one short part without slashes");
            }
            back.push(path.clone());
            if !merged {
                self.tree.insert(path, object);
            }
        }
        back
    }

    /// The bytes of a file become others and nothing shows it.
    pub fn rot(&mut self, path: &RelPath, bytes: Bytes) {
        if let Some(object) = self.tree.get_mut(path)
            && let Thing::File(old) = &mut object.thing
        {
            *old = Bytes {
                size: old.size,
                ..bytes
            };
        }
    }

    /// Stages contents and says under which name.
    pub fn stage(&mut self, bytes: Bytes) -> StageName {
        self.last_stage += 1;
        let name = StageName(format!("s{}", self.last_stage));
        self.stage.insert(name.clone(), bytes);
        name
    }
}
