//! What users do to their folders, and a record of what must survive it.

use std::collections::{BTreeMap, BTreeSet};

use left_core::entry::{Kind, Mtime};
use left_core::path::{RelPath, join};

use crate::disk::{Bytes, FakeDisk, Thing};
use crate::rng::Rng;

/// Every byte string that users wrote, and what they did to it themselves.
#[derive(Debug, Default, Clone)]
pub struct Written {
    last: u64,
    /// Bytes of files that users copied, renamed or gave other metadata: there may be several edits
    /// with them.
    pub copied: BTreeSet<Bytes>,
    /// Where each was first written: device and path.
    pub all: BTreeMap<Bytes, (usize, RelPath)>,
    /// A user overwrote or deleted a file with these bytes, knowing what they were.
    pub superseded: BTreeSet<Bytes>,
    /// A user destroyed the only file in the world that held them.
    pub destroyed: BTreeSet<Bytes>,
}

/// Contents with names up to this are written by several users independently.
const COMMON: u64 = 5;

impl Written {
    /// Bytes that were never written before, or (`common`) bytes that everybody writes.
    pub fn fresh(&mut self, rng: &mut Rng, common: bool) -> Bytes {
        let name = if common {
            rng.between(1, COMMON)
        } else {
            self.last = self.last.max(COMMON) + 1;
            self.last
        };
        Bytes {
            name,
            // Some are longer than what is sent whole, and many have equal lengths.
            size: match name % 10 {
                0 => 200_000 + name,
                1..=5 => 100,
                _ => name * 7,
            },
        }
    }

    /// Forgets what was noted since, but not what is gone for good, and gives no name out twice.
    pub fn restore(&mut self, old: Self) {
        let new = std::mem::replace(self, old);
        self.last = new.last;
        self.destroyed = new.destroyed;
    }

    fn wrote(&mut self, device: usize, path: &RelPath, bytes: Bytes) {
        if bytes.name > COMMON {
            self.all
                .entry(bytes)
                .or_insert_with(|| (device, path.clone()));
        }
    }
}

/// One edit under way.
pub struct User<'a> {
    /// Number of the device.
    pub device: usize,
    /// Its folder.
    pub disk: &'a mut FakeDisk,
    /// What is known of all bytes.
    pub written: &'a mut Written,
    /// Chance.
    pub rng: &'a mut Rng,
    /// Wall clock of the device.
    pub wall_ms: u64,
    /// Paths that a watcher would be told of.
    pub hints: Vec<RelPath>,
    /// Bytes of which a file was overwritten or deleted just now.
    pub lost: Vec<Bytes>,
}

const NAMES: [&[u8]; 24] = [
    b"a",
    b"b",
    b"c",
    b"A",
    b"x.txt",
    b"y.tar.gz",
    b".h",
    b"dir",
    b"d2",
    b"a.b",
    b"\xc3\xbc",
    b"\xff\xfe",
    b"a\x01",
    b" ",
    // Composed and decomposed, and other spellings that some systems take for the same.
    b"e\xcc\x81",
    b"\xc3\xa9",
    b"DIR",
    b"X.TXT",
    b"..a",
    b"-rf",
    b"a\nb",
    b"end.",
    b".left2",
    b"CON",
];
const FILE_MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o444];
const DIR_MODES: [u32; 3] = [0o755, 0o700, 0o775];

impl User<'_> {
    /// Does one random edit; says what, for the trace.
    pub fn edit(&mut self) -> String {
        let paths: Vec<RelPath> = self.disk.tree().keys().cloned().collect();
        match self.rng.below(100) {
            0..24 => self.create(),
            24..30 => self.overwrite(&paths),
            30..34 => self.append(&paths),
            34..37 => self.truncate(&paths),
            37..42 => self.save_by_rename(&paths),
            42..53 => self.delete(&paths),
            53..66 => self.rename(&paths),
            66..68 => self.change_case(&paths),
            68..76 => self.mkdir(),
            76..81 => self.symlink(),
            81..87 => self.swap_kind(&paths),
            87..91 => self.chmod(&paths),
            91..94 => self.touch(&paths),
            94..97 => self.copy(&paths),
            97 => self.many_big(),
            98 => self.deep(),
            _ => self.long_name(),
        }
    }

    fn new_path(&mut self) -> RelPath {
        let dirs: Vec<RelPath> = self
            .disk
            .tree()
            .iter()
            .filter(|(p, o)| o.kind() == Kind::Dir && p.as_bytes().len() < 1000)
            .map(|(p, _)| p.clone())
            .collect();
        let dir = match self.rng.percent(40) {
            true => None,
            false => self.rng.pick(&dirs),
        };
        let name = NAMES[self.rng.index(NAMES.len())];
        join(dir, name).expect("short valid names")
    }

    /// Takes note that the bytes of a tree are gone from here.
    fn supersede(&mut self, path: &RelPath) {
        let below = self.disk.below(path);
        for p in std::iter::once(path).chain(&below) {
            if let Some(bytes) = self.disk.known(p) {
                self.written.superseded.insert(bytes);
                self.lost.push(bytes);
            }
        }
    }

    /// Takes note that the bytes of a tree are now those of another edit too.
    fn edited_again(&mut self, path: &RelPath) {
        let below = self.disk.below(path);
        let paths = std::iter::once(path).chain(&below);
        let bytes = paths.filter_map(|p| self.disk.get(p)?.bytes());
        self.written.copied.extend(bytes);
    }

    /// Deletes a thing with all below it.
    pub fn remove(&mut self, path: &RelPath) {
        self.supersede(path);
        self.hints.push(path.clone());
        self.disk.delete(path, self.wall_ms);
    }

    /// Puts these bytes at a path: in the file that is there, or a new one. In a folder's place, or
    /// where its folder is missing, nothing is done.
    pub fn write(&mut self, path: &RelPath, bytes: Bytes) {
        match self.disk.get(path).map(|o| o.kind()) {
            Some(Kind::File) => {
                self.supersede(path);
                self.disk.write(path, bytes, self.wall_ms);
            }
            Some(_) => return,
            None if !self.disk.has_parent(path) => return,
            None => self.make(path, Thing::File(bytes)),
        }
        self.written.superseded.remove(&bytes);
        self.written.wrote(self.device, path, bytes);
        self.hints.push(path.clone());
    }

    /// Makes a thing where nothing stands.
    pub fn make(&mut self, path: &RelPath, thing: Thing) {
        if self.disk.get(path).is_some() || !self.disk.has_parent(path) {
            return;
        }
        let modes: &[u32] = if thing == Thing::Dir {
            &DIR_MODES
        } else {
            &FILE_MODES
        };
        let mode = modes[self.rng.index(modes.len())];
        if let Thing::File(bytes) = &thing {
            self.written.wrote(self.device, path, *bytes);
        }
        let mtime = self.disk.stamp(self.wall_ms);
        self.disk.make(path, thing, mode, mtime, self.wall_ms);
        self.hints.push(path.clone());
    }

    fn fresh(&mut self) -> Bytes {
        match self.rng.below(20) {
            0 => Bytes::EMPTY,
            1..4 => self.written.fresh(self.rng, true),
            _ => self.written.fresh(self.rng, false),
        }
    }

    fn create(&mut self) -> String {
        let path = self.new_path();
        let bytes = self.fresh();
        self.write(&path, bytes);
        format!("create {path} {}", bytes.name)
    }

    fn a_file(&mut self, paths: &[RelPath]) -> Option<RelPath> {
        let is_file = |p: &&RelPath| self.disk.get(p).is_some_and(|o| o.bytes().is_some());
        let files: Vec<RelPath> = paths.iter().filter(is_file).cloned().collect();
        self.rng.pick(&files).cloned()
    }

    /// Other bytes in the same inode.
    fn overwrite(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.a_file(paths) else {
            return self.create();
        };
        let bytes = self.fresh();
        self.write(&path, bytes);
        format!("overwrite {path} {}", bytes.name)
    }

    /// The same inode, longer.
    fn append(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.a_file(paths) else {
            return self.create();
        };
        let old = self.disk.get(&path).map_or(0, |o| o.stat().size);
        let bytes = Bytes {
            size: old + self.rng.between(1, 1000),
            ..self.written.fresh(self.rng, false)
        };
        self.write(&path, bytes);
        format!("append {path} {}", bytes.name)
    }

    /// The same inode, shorter or empty.
    fn truncate(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.a_file(paths) else {
            return self.create();
        };
        let old = self.disk.get(&path).map_or(0, |o| o.stat().size);
        let size = self.rng.below(old);
        let bytes = match size {
            0 => Bytes::EMPTY,
            _ => Bytes {
                size,
                ..self.written.fresh(self.rng, false)
            },
        };
        self.write(&path, bytes);
        format!("truncate {path} {}", bytes.name)
    }

    /// As editors save: a new file beside, renamed over the old one.
    fn save_by_rename(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.a_file(paths) else {
            return self.create();
        };
        let bytes = self.fresh();
        self.remove(&path);
        self.write(&path, bytes);
        format!("save {path} {}", bytes.name)
    }

    fn delete(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.rng.pick(paths).cloned() else {
            return self.create();
        };
        self.remove(&path);
        format!("delete {path}")
    }

    fn rename(&mut self, paths: &[RelPath]) -> String {
        let Some(from) = self.rng.pick(paths).cloned() else {
            return self.create();
        };
        let to = self.new_path();
        self.rename_to(from, to)
    }

    /// The same name with other letters, large for small.
    fn change_case(&mut self, paths: &[RelPath]) -> String {
        let Some(from) = self.rng.pick(paths).cloned() else {
            return self.create();
        };
        let mut name = from.name().to_vec();
        for b in &mut name {
            *b = match b.is_ascii_lowercase() {
                true => b.to_ascii_uppercase(),
                false => b.to_ascii_lowercase(),
            };
        }
        match from.with_name(&name) {
            Ok(to) => self.rename_to(from, to),
            Err(_) => self.create(),
        }
    }

    fn rename_to(&mut self, from: RelPath, to: RelPath) -> String {
        let target_is_dir = self.disk.get(&to).is_some_and(|o| o.kind() == Kind::Dir);
        if to == from || to.is_below(&from) || target_is_dir || from.is_below(&to) {
            return self.create();
        }
        let is_dir = self.disk.get(&from).is_some_and(|o| o.kind() == Kind::Dir);
        if self.disk.get(&to).is_some() {
            if is_dir {
                return self.create();
            }
            self.remove(&to);
        }
        self.edited_again(&from);
        self.hints.push(from.clone());
        self.hints.push(to.clone());
        self.disk.rename(&from, &to, self.wall_ms);
        format!("rename {from} to {to}")
    }

    fn mkdir(&mut self) -> String {
        let path = self.new_path();
        self.make(&path, Thing::Dir);
        format!("mkdir {path}")
    }

    fn target(&mut self) -> Thing {
        let targets: [&[u8]; 3] = [b"a", b"../outside", b"dir/x"];
        Thing::Symlink(targets[self.rng.index(3)].to_vec())
    }

    fn symlink(&mut self) -> String {
        let path = self.new_path();
        let link = self.target();
        self.make(&path, link);
        format!("symlink {path}")
    }

    fn swap_kind(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.rng.pick(paths).cloned() else {
            return self.create();
        };
        let old = self.disk.get(&path).map(|o| o.kind());
        self.remove(&path);
        let new = match (old, self.rng.percent(50)) {
            (Some(Kind::File), true) | (Some(Kind::Symlink), false) => Thing::Dir,
            (Some(Kind::File), false) | (Some(Kind::Dir), false) => self.target(),
            _ => Thing::File(self.fresh()),
        };
        let said = format!("swap {path} from {old:?} to {new:?}");
        let is_dir = new == Thing::Dir;
        self.make(&path, new);
        if is_dir {
            let inside = path.join(b"in").expect("a short name");
            let bytes = self.fresh();
            self.write(&inside, bytes);
        }
        said
    }

    fn chmod(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.rng.pick(paths).cloned() else {
            return self.create();
        };
        let is_dir = self.disk.get(&path).is_some_and(|o| o.kind() == Kind::Dir);
        let modes: &[u32] = if is_dir { &DIR_MODES } else { &FILE_MODES };
        let mode = modes[self.rng.index(modes.len())];
        self.disk.set_meta(&path, Some(mode), None, self.wall_ms);
        self.edited_again(&path);
        self.hints.push(path.clone());
        format!("chmod {mode:o} {path}")
    }

    fn touch(&mut self, paths: &[RelPath]) -> String {
        let Some(path) = self.rng.pick(paths).cloned() else {
            return self.create();
        };
        let mtime = Mtime {
            secs: self.rng.below(2_000_000_000) as i64 - 1000,
            nanos: self.rng.below(1_000_000_000) as u32,
        };
        self.disk.set_meta(&path, None, Some(mtime), self.wall_ms);
        self.edited_again(&path);
        self.hints.push(path.clone());
        format!("touch {path}")
    }

    fn copy(&mut self, paths: &[RelPath]) -> String {
        let Some(from) = self.a_file(paths) else {
            return self.create();
        };
        let to = self.new_path();
        if let Some(bytes) = self.disk.get(&from).and_then(|o| o.bytes())
            && from != to
            // Of what a power cut tore, before it is brought back, nobody wants a copy.
            && bytes != Bytes::TORN
        {
            self.written.copied.insert(bytes);
            self.write(&to, bytes);
        }
        format!("copy {from} to {to}")
    }

    /// More big files at once than are fetched at once.
    fn many_big(&mut self) -> String {
        for n in 0..10u8 {
            let name = [b'0' + n];
            let path = RelPath::new(name).expect("a valid name");
            let fresh = self.written.fresh(self.rng, false);
            let size = 200_000 + fresh.name;
            self.write(&path, Bytes { size, ..fresh });
        }
        "ten big files".to_owned()
    }

    fn deep(&mut self) -> String {
        let mut path = RelPath::new("deep").expect("a valid name");
        for _ in 0..20 {
            self.make(&path, Thing::Dir);
            path = path.join(b"d").expect("21 short names");
        }
        let bytes = self.fresh();
        if self.disk.has_parent(&path) {
            self.write(&path, bytes);
        }
        format!("deep {}", bytes.name)
    }

    fn long_name(&mut self) -> String {
        let name = "ü".repeat(127) + "x";
        let path = RelPath::new(name.as_str()).expect("255 bytes");
        let bytes = self.fresh();
        self.write(&path, bytes);
        format!("long {}", bytes.name)
    }
}
