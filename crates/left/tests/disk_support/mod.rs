//! What the tests of `disk` share: a share in a temporary folder, and an index that is a map.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use left::disk::{
    Cut, DiskEye, EyeEvent, Found, History, ManifestOut, ManifestSink, Root, ScanIndex, Stage,
    init_share,
};
use left_core::chunker::content_id;
use left_core::content::{ContentId, Segment};
use left_core::diff::{Observation, Seen};
use left_core::entry::{Entry, FileStat, Kind, Mtime, Node, Record, Stamp};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpDone, OpError, OpId, StageName};
use left_core::version::{DeviceId, Version};

pub struct Share {
    pub dir: tempfile::TempDir,
    pub root: Arc<Root>,
    pub stage: Stage,
    pub history: History,
    /// What the eye is to believe of the power.
    pub cut: Option<Cut>,
}

pub fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

pub fn mtime(secs: i64) -> Mtime {
    Mtime {
        secs,
        nanos: 123_456_789,
    }
}

impl Share {
    pub fn new() -> Share {
        Share::of(tempfile::tempdir().unwrap())
    }

    /// A share in this folder.
    pub fn of(dir: tempfile::TempDir) -> Share {
        init_share(dir.path(), b"id = 1\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let stage = Stage::open(&root).unwrap();
        let history = History::open_with_grace(&root, Duration::ZERO).unwrap();
        Share {
            dir,
            root: Arc::new(root),
            stage,
            history,
            cut: None,
        }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.at(path), bytes).unwrap();
    }

    pub fn mkdir(&self, path: &str) {
        std::fs::create_dir_all(self.at(path)).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.at(path)).unwrap()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// What stands at a path, as an operation would expect it.
    pub fn expect(&self, path: &str) -> Expect {
        match self.root.look(&p(path)).unwrap() {
            None => Expect::Absent,
            Some(Found::Dir(s)) => Expect::Present(Kind::Dir, s),
            Some(Found::File(s, _)) => Expect::Present(Kind::File, s),
            Some(Found::Symlink(s, _)) => Expect::Present(Kind::Symlink, s),
            Some(Found::Special(what)) => panic!("{what}"),
        }
    }

    pub fn stat(&self, path: &str) -> FileStat {
        match self.root.look(&p(path)).unwrap().unwrap() {
            Found::Dir(s) | Found::File(s, _) | Found::Symlink(s, _) => s,
            Found::Special(what) => panic!("{what}"),
        }
    }

    pub fn stage_bytes(&self, bytes: &[u8]) -> StageName {
        use std::io::Write;
        let name = self.stage.unique_name();
        self.stage.create(&name).unwrap().write_all(bytes).unwrap();
        name
    }

    pub fn place(&self, path: &str, bytes: &[u8], expect: Expect, loser: Option<&str>) -> Op {
        Op::Place {
            path: p(path),
            node: file(bytes),
            staged: Some(self.stage_bytes(bytes)),
            expect,
            loser: loser.map(p),
        }
    }

    pub fn apply(&self, ops: Vec<Op>) -> Vec<Result<OpDone, OpError>> {
        let ops: Vec<(OpId, Op)> = ops
            .into_iter()
            .enumerate()
            .map(|(n, op)| (OpId(n as u64), op))
            .collect();
        let done = left::disk::apply(&self.root, &self.stage, &self.history, &ops);
        assert!(done.iter().enumerate().all(|(n, (id, _))| id.0 == n as u64));
        done.into_iter().map(|(_, r)| r).collect()
    }

    pub fn apply_one(&self, op: Op) -> Result<OpDone, OpError> {
        self.apply(vec![op]).remove(0)
    }

    /// The bytes of every regular file below a folder of the share.
    pub fn all_bytes(&self, below: &str) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut todo = vec![self.at(below)];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    todo.push(entry.path());
                } else if kind.is_file() {
                    out.extend(std::fs::read(entry.path()));
                }
            }
        }
        out
    }
}

pub fn file(bytes: &[u8]) -> Node {
    Node::File {
        mode: 0o640,
        mtime: mtime(1_000_000),
        size: bytes.len() as u64,
        content: content_id(bytes),
    }
}

pub fn link(target: &str) -> Node {
    Node::Symlink {
        mtime: mtime(2_000_000),
        target: target.into(),
    }
}

/// An index that is a map.
#[derive(Default, Clone)]
pub struct MapIndex {
    map: Arc<Mutex<BTreeMap<RelPath, Record>>>,
    /// Paths that ever had an inode.
    inodes: Arc<Mutex<HashMap<u64, BTreeSet<RelPath>>>>,
    /// Those that are recorded right after the records of their folder were asked for.
    pub late: Arc<Mutex<BTreeSet<RelPath>>>,
}

impl MapIndex {
    /// Takes observations over as the daemon would.
    pub fn take(&self, seen: &[Observation]) {
        let mut map = self.map.lock().unwrap();
        for o in seen {
            let (node, stat) = match &o.seen {
                Seen::Absent => {
                    map.remove(&o.path);
                    continue;
                }
                Seen::Unreadable { .. } | Seen::Torn(_) => continue,
                Seen::Dir(s) => (Node::Dir { mode: s.mode }, *s),
                Seen::File { stat, content } => {
                    let node = Node::File {
                        mode: stat.mode,
                        mtime: stat.mtime,
                        size: stat.size,
                        content: *content,
                    };
                    (node, *stat)
                }
                Seen::Symlink { stat, target } => {
                    let node = Node::Symlink {
                        mtime: stat.mtime,
                        target: target.clone(),
                    };
                    (node, *stat)
                }
            };
            let mut inodes = self.inodes.lock().unwrap();
            inodes.entry(stat.ino).or_default().insert(o.path.clone());
            let device = DeviceId([1; 32]);
            let entry = Entry {
                node,
                version: Version::default(),
                stamp: Stamp { counter: 1, device },
            };
            map.insert(
                o.path.clone(),
                Record {
                    entry,
                    stat: Some(stat),
                },
            );
        }
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Record)) {
        change(self.map.lock().unwrap().get_mut(&p(path)).unwrap());
    }

    pub fn paths(&self) -> Vec<String> {
        self.map
            .lock()
            .unwrap()
            .keys()
            .map(|p| p.to_string())
            .collect()
    }

    pub fn content(&self, path: &str) -> Option<ContentId> {
        self.map.lock().unwrap().get(&p(path))?.entry.node.content()
    }
}

impl ScanIndex for MapIndex {
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        Ok(self.map.lock().unwrap().get(path).cloned())
    }

    fn children(&self, dir: Option<&RelPath>) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let map = self.map.lock().unwrap();
        let below = match dir {
            Some(dir) => map.range(dir.clone()..),
            None => map.range::<RelPath, _>(..),
        };
        let below = below.take_while(|(p, _)| dir.is_none_or(|d| *p == d || p.is_below(d)));
        let depth = dir.map_or(0, |d| d.parts().count()) + 1;
        let late = self.late.lock().unwrap();
        let direct = below.filter(|(p, _)| p.parts().count() == depth && !late.contains(p));
        Ok(direct.map(|(p, r)| (p.clone(), r.clone())).collect())
    }

    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let map = self.map.lock().unwrap();
        let inodes = self.inodes.lock().unwrap();
        let paths = inodes.get(&ino).into_iter().flatten();
        let records = paths.filter_map(|p| Some((p.clone(), map.get(p)?.clone())));
        let same = records.filter(|(_, r)| {
            r.entry.node.content().is_some()
                && r.stat
                    .is_some_and(|s| s.ino == ino && s.size == size && s.mtime == mtime)
        });
        Ok(same.collect())
    }
}

#[derive(Default, Clone)]
pub struct Sink {
    pub done: Arc<Mutex<BTreeMap<ContentId, u64>>>,
    pub begun: Arc<AtomicUsize>,
}

struct Out<'a> {
    sink: &'a Sink,
    bytes: u64,
}

impl ManifestSink for Sink {
    fn begin(&self, _path: &RelPath, _stat: &FileStat) -> Box<dyn ManifestOut + '_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Box::new(Out {
            sink: self,
            bytes: 0,
        })
    }

    fn segments(&self, _content: ContentId) -> Box<dyn Iterator<Item = Segment> + '_> {
        Box::new(std::iter::empty())
    }

    fn has(&self, content: &ContentId) -> bool {
        self.done.lock().unwrap().contains_key(content)
    }
}

impl ManifestOut for Out<'_> {
    fn segment(&mut self, segment: &Segment) {
        self.bytes += segment.sref.len;
    }

    fn finish(self: Box<Self>, content: ContentId, size: u64) -> Result<(), IndexError> {
        assert_eq!(self.bytes, size);
        self.sink.done.lock().unwrap().insert(content, size);
        Ok(())
    }
}

/// An eye on a share, whose observations go into its index.
pub struct Watched {
    pub eye: DiskEye,
    pub events: Receiver<EyeEvent>,
    pub index: MapIndex,
    pub sink: Sink,
    pub other: Vec<EyeEvent>,
    token: u64,
}

impl Watched {
    /// Starts an eye and takes in the first scan.
    pub fn start(share: &Share) -> Watched {
        let mut w = Watched::over(share, MapIndex::default(), Sink::default());
        w.scan_done();
        w
    }

    pub fn over(share: &Share, index: MapIndex, sink: Sink) -> Watched {
        Watched::through(share, index, sink, unbounded())
    }

    pub fn through(
        share: &Share,
        index: MapIndex,
        sink: Sink,
        (out, events): (Sender<EyeEvent>, Receiver<EyeEvent>),
    ) -> Watched {
        let eye = DiskEye::start(
            Arc::clone(&share.root),
            Box::new(index.clone()),
            Arc::new(sink.clone()),
            share.cut,
            out,
        )
        .unwrap();
        Watched {
            eye,
            events,
            index,
            sink,
            other: Vec::new(),
            token: 0,
        }
    }

    pub fn next(&mut self) -> EyeEvent {
        self.events
            .recv_timeout(Duration::from_secs(60))
            .expect("an event")
    }

    /// All observations until `end` says so.
    pub fn until(&mut self, mut end: impl FnMut(&EyeEvent) -> bool) -> Vec<Observation> {
        let mut all = Vec::new();
        loop {
            let event = self.next();
            let last = end(&event);
            match event {
                EyeEvent::Observed(seen) => {
                    self.index.take(&seen);
                    self.eye.recorded();
                    all.extend(seen);
                }
                EyeEvent::Activity { .. } => {}
                other => self.other.push(other),
            }
            if last {
                return all;
            }
        }
    }

    /// The next observations, which are not recorded.
    pub fn unrecorded(&mut self) -> Vec<Observation> {
        loop {
            if let EyeEvent::Observed(seen) = self.next() {
                return seen;
            }
        }
    }

    pub fn scan_done(&mut self) -> Vec<Observation> {
        self.until(|e| matches!(e, EyeEvent::ScanDone))
    }

    /// All that was seen of what changed until now.
    pub fn barrier(&mut self) -> Vec<Observation> {
        self.token += 1;
        let token = self.token;
        self.eye.barrier(token);
        self.until(|e| matches!(e, EyeEvent::Barrier(t) if *t == token))
    }

    /// All until this path is observed.
    pub fn until_path(&mut self, path: &str) -> Vec<Observation> {
        let path = p(path);
        self.until(|e| matches!(e, EyeEvent::Observed(o) if o.iter().any(|o| o.path == path)))
    }
}

/// `+path` for what is there, `-path` for what is gone, `?path` for what can not be read, `!path` for what a
/// power cut took back.
pub fn brief(seen: &[Observation]) -> Vec<String> {
    seen.iter()
        .map(|o| match o.seen {
            Seen::Absent => format!("-{}", o.path),
            Seen::Unreadable { .. } => format!("?{}", o.path),
            Seen::Torn(_) => format!("!{}", o.path),
            _ => format!("+{}", o.path),
        })
        .collect()
}
