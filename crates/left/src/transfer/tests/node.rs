//! One peer for tests: a share in a temporary folder, a stage, manifests in memory.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use left_core::content::{ChunkRef, ContentId, Segment};
use left_core::entry::{FileStat, Mtime};
use left_core::message::Want;
use left_core::path::RelPath;
use left_core::plan::{FetchError, FetchItem, OpId, StageName};
use left_core::version::DeviceId;

pub use super::store::{MemManifests, Store, manifest};

use crate::transfer::frame::{HEADER_LEN, Header};
use crate::transfer::{
    ContentSource, FetchConfig, FetchDisk, Fetcher, LaneStream, ManifestRead, ServeConfig,
    ServeStats, Stock, serve,
};

pub const WAIT: Duration = Duration::from_secs(60);

pub struct Node {
    pub dir: tempfile::TempDir,
    pub id: DeviceId,
    pub manifests: Arc<MemManifests>,
    pub missing: Mutex<Vec<ContentId>>,
    pub stats: ServeStats,
    /// Bytes the stage still takes.
    pub room: AtomicU64,
    /// What its fetcher has in the stage.
    pub stock: OnceLock<Stock>,
    files: Mutex<HashMap<ContentId, Vec<(RelPath, FileStat)>>>,
}

pub fn stat_of(m: &fs::Metadata) -> FileStat {
    let time = |secs, nanos: i64| Mtime {
        secs,
        nanos: nanos as u32,
    };
    FileStat {
        ino: m.ino(),
        size: m.len(),
        mtime: time(m.mtime(), m.mtime_nsec()),
        ctime: time(m.ctime(), m.ctime_nsec()),
        mode: m.mode() & 0o7777,
    }
}

/// Bytes that look random and are always the same.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let key = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    let mut reader = blake3::Hasher::new_keyed(&key).finalize_xof();
    reader.fill(&mut out);
    out
}

impl Node {
    pub fn new(n: u8) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("stage")).unwrap();
        Arc::new(Self {
            dir,
            id: DeviceId([n; 32]),
            manifests: Arc::default(),
            missing: Mutex::default(),
            stats: ServeStats::default(),
            room: AtomicU64::new(u64::MAX),
            stock: OnceLock::new(),
            files: Mutex::default(),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    pub fn stage(&self, name: &str) -> PathBuf {
        self.dir.path().join("stage").join(name)
    }

    /// Puts a file into the share and its index.
    pub fn add(&self, name: &str, bytes: &[u8]) -> ContentId {
        fs::write(self.path(name), bytes).unwrap();
        self.index(name, bytes)
    }

    /// Puts what stands there into the index as having these bytes.
    pub fn index(&self, name: &str, bytes: &[u8]) -> ContentId {
        let (id, segments) = manifest(bytes);
        if bytes.len() as u64 > left_core::content::WHOLE_MAX {
            self.manifests.put(id, segments);
        }
        self.claim(name, id);
        id
    }

    /// Says that this file has that content.
    pub fn claim(&self, name: &str, id: ContentId) {
        let stat = stat_of(&fs::metadata(self.path(name)).unwrap());
        let path = RelPath::new(name).unwrap();
        let mut files = self.files.lock().unwrap();
        files.entry(id).or_default().push((path, stat));
    }

    pub fn forget(&self, id: &ContentId) {
        self.files.lock().unwrap().remove(id);
    }

    pub fn wire(&self) -> u64 {
        self.stats.wire_bytes.load(Ordering::SeqCst)
    }

    /// Serves one end of a socket pair; gives the other.
    pub fn lane(self: &Arc<Self>) -> UnixStream {
        self.lane_with(|s| Box::new(s), ServeConfig::default())
    }

    pub fn lane_with(
        self: &Arc<Self>,
        wrap: impl FnOnce(UnixStream) -> Box<dyn LaneStream>,
        config: ServeConfig,
    ) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stream = wrap(ours);
        let node = Arc::clone(self);
        std::thread::spawn(move || {
            let source: Arc<dyn ContentSource> = Arc::clone(&node) as _;
            // Tests look at what the asker makes of it.
            let _ = serve(stream, source, config, &node.stats);
        });
        theirs
    }
}

impl ContentSource for Node {
    fn locate(&self, content: &ContentId) -> Vec<(RelPath, FileStat)> {
        let files = self.files.lock().unwrap();
        files.get(content).cloned().unwrap_or_default()
    }

    /// As a source that remembers where a file was last.
    fn locate_all(&self, contents: &[ContentId]) -> Vec<Vec<(RelPath, FileStat)>> {
        let first = |c| self.locate(c).into_iter().take(1).collect();
        contents.iter().map(first).collect()
    }

    fn open(&self, path: &RelPath, stat: &FileStat) -> io::Result<File> {
        let file = File::open(self.path(&path.to_string()))?;
        match stat_of(&file.metadata()?).same_but_ctime(stat) {
            true => Ok(file),
            false => Err(io::Error::other("changed")),
        }
    }

    fn part(&self, content: &ContentId, n: u64, buf: &mut Vec<u8>) -> Option<Segment> {
        self.stock.get()?.part(content, n, buf)
    }

    fn part_list(&self, content: &ContentId, n: u64) -> Option<Vec<ChunkRef>> {
        self.stock.get()?.list(content, n)
    }

    fn manifest(&self) -> &dyn ManifestRead {
        &*self.manifests
    }

    fn missing_manifest(&self, content: &ContentId) {
        self.missing.lock().unwrap().push(*content);
    }
}

impl FetchDisk for Node {
    fn stage_create(&self, name: &str) -> io::Result<File> {
        if self.room.load(Ordering::SeqCst) == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(self.stage(name))
    }

    fn stage_open(&self, name: &str) -> io::Result<Option<File>> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.stage(name));
        match opened {
            Ok(f) => Ok(Some(f)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn stage_rename(&self, from: &str, to: &str) -> io::Result<bool> {
        match fs::rename(self.stage(from), self.stage(to)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn stage_remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.stage(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn open_local(&self, path: &RelPath) -> io::Result<(File, FileStat)> {
        let file = File::open(self.path(&path.to_string()))?;
        let stat = stat_of(&file.metadata()?);
        Ok((file, stat))
    }

    fn holders(&self, content: &ContentId) -> Vec<RelPath> {
        self.locate(content).into_iter().map(|(p, _)| p).collect()
    }
}

type Outcome = (OpId, Result<StageName, FetchError>);

/// A node that fetches.
pub struct Asker {
    pub node: Arc<Node>,
    pub fetcher: Fetcher,
    pub results: Receiver<Vec<Outcome>>,
    next: AtomicU64,
}

impl Asker {
    pub fn new(node: &Arc<Node>) -> Self {
        Self::with(node, FetchConfig::default())
    }

    pub fn with(node: &Arc<Node>, config: FetchConfig) -> Self {
        let (out, results) = unbounded();
        let store = Arc::new(Store(Arc::clone(&node.manifests)));
        Self {
            node: Arc::clone(node),
            fetcher: Fetcher::new(config, Arc::clone(node) as _, store, out),
            results,
            next: AtomicU64::new(1),
        }
    }

    pub fn add_lane(&self, peer: DeviceId, stream: UnixStream, express: bool) {
        let closer = Arc::new(stream.try_clone().unwrap());
        self.fetcher
            .add_lane(peer, Box::new(stream), closer, express);
    }

    /// A lane to a node that serves.
    pub fn connect(&self, server: &Arc<Node>) {
        self.add_lane(server.id, server.lane(), false);
    }

    pub fn item(&self, content: ContentId, size: usize, peers: &[&Arc<Node>]) -> FetchItem {
        FetchItem {
            id: OpId(self.next.fetch_add(1, Ordering::SeqCst)),
            path: RelPath::new("x").unwrap(),
            content,
            size: size as u64,
            copies: Vec::new(),
            base: None,
            peers: peers.iter().map(|p| p.id).collect(),
        }
    }

    /// Asks for all of these, which the server has from now on.
    pub fn submit_all(&self, server: &Arc<Node>, files: &[Vec<u8>]) -> Vec<FetchItem> {
        let item = |(i, bytes): (usize, &Vec<u8>)| {
            let content = server.add(&format!("f{i}"), bytes);
            self.item(content, bytes.len(), &[server])
        };
        let items: Vec<FetchItem> = files.iter().enumerate().map(item).collect();
        self.fetcher.submit(items.clone());
        items
    }

    /// They come, and are what was asked for.
    pub fn all_come(&self, items: &[FetchItem], files: &[Vec<u8>]) {
        let results = self.collect(items.len());
        for (item, bytes) in items.iter().zip(files) {
            let name = results[&item.id].clone().unwrap();
            assert!(self.read(&name) == *bytes);
        }
    }

    pub fn submit(&self, item: FetchItem) -> OpId {
        let id = item.id;
        self.fetcher.submit(vec![item]);
        id
    }

    /// Waits for this many results.
    pub fn collect(&self, n: usize) -> HashMap<OpId, Result<StageName, FetchError>> {
        let mut all = HashMap::new();
        while all.len() < n {
            let batch = self.results.recv_timeout(WAIT).expect("no result");
            for (id, result) in batch {
                assert!(all.insert(id, result).is_none(), "{id:?} ended twice");
            }
        }
        assert_eq!(all.len(), n);
        all
    }

    /// Waits for the one item's result.
    pub fn one(&self) -> Result<StageName, FetchError> {
        self.collect(1).into_values().next().unwrap()
    }

    /// Fetches one content and returns its bytes as staged.
    pub fn fetch(&self, item: FetchItem) -> Vec<u8> {
        self.submit(item);
        let name = self.one().unwrap();
        self.read(&name)
    }

    pub fn read(&self, name: &StageName) -> Vec<u8> {
        fs::read(self.node.stage(&name.0)).unwrap()
    }
}

/// A stream that fails once this many bytes were written to it.
pub struct Cut {
    pub stream: UnixStream,
    pub left: u64,
}

impl Read for Cut {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Cut {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(self.left as usize);
        if n == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = self.stream.write(&buf[..n])?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A peer that answers each Want with whatever `answer` makes of it.
pub fn script(mut answer: impl FnMut(Want) -> Vec<u8> + Send + 'static) -> UnixStream {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        loop {
            let mut len = [0; 4];
            if ours.read_exact(&mut len).is_err() {
                return;
            }
            let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
            ours.read_exact(&mut bytes).unwrap();
            let bytes = answer(Want::decode(&bytes).unwrap());
            // Less than a header: the peer dies in the middle.
            if ours.write_all(&bytes).is_err() || bytes.len() < HEADER_LEN {
                return;
            }
        }
    });
    theirs
}

/// A frame's bytes.
pub fn frame(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}
