//! Joins the floors below: disk and store serve what transfer asks for by its small traits, and the
//! threads of a share are started.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;
use left_core::content::{ChunkId, ChunkRef, ContentId, Segment, SegmentId, SegmentRef};
use left_core::entry::{FileStat, Mtime, Record};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::StageName;
use left_core::version::DeviceId;

use super::ask::Msg;
use super::latest::{Latest, Places};
use super::limits::{Limited, Limits};
use super::offers::{Offering, Offers};
use super::owner::FetchResults;
use crate::disk::{ManifestOut, ManifestSink, Near, Placed, Root, ScanIndex, Stage, hash_file};
use crate::net::{DataLane, ShutdownHandle};
use crate::store::{IndexReader, Manifests};
use crate::transfer::{
    ContentSource, FetchConfig, FetchDisk, Fetcher, LaneCloser, ManifestRead, ManifestStore,
    ManifestWriter, Opener, ServeConfig, ServeStats, Stock, serve,
};

/// Places of one content that are tried.
const MAX_PLACES: usize = 8;

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// The index as the eye reads it.
pub(super) struct Scan(pub(super) IndexReader);

impl Placed for Scan {
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        self.0.get(path)
    }

    fn places(&self, contents: &[ContentId]) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let found = self.0.by_contents(contents, MAX_PLACES)?;
        Ok(found.into_iter().flatten().collect())
    }
}

impl ScanIndex for Scan {
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        self.0.get(path)
    }

    fn children(&self, dir: Option<&RelPath>) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.0.children(dir)
    }

    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.0.by_inode(ino, size, mtime)
    }
}

/// Where the eye puts the manifests of big files, and who offers them meanwhile.
pub(super) struct Sink {
    pub(super) manifests: Manifests,
    pub(super) offers: Arc<Offers>,
}

impl ManifestSink for Sink {
    fn begin(&self, path: &RelPath, stat: &FileStat) -> Box<dyn ManifestOut + '_> {
        Box::new(Writing {
            writer: self.manifests.writer(),
            offering: self.offers.begin(path, stat),
            failed: false,
        })
    }

    fn segments(&self, content: ContentId) -> Box<dyn Iterator<Item = Segment> + '_> {
        Box::new(self.manifests.segments(content).map(|(_, segment)| segment))
    }

    fn has(&self, content: &ContentId) -> bool {
        self.manifests.info(*content).is_some()
    }
}

struct Writing {
    writer: crate::store::ManifestWriter,
    offering: Option<Offering>,
    failed: bool,
}

impl ManifestOut for Writing {
    fn segment(&mut self, segment: &Segment) {
        if let Some(offering) = &mut self.offering {
            offering.segment(segment);
        }
        if !self.failed
            && let Err(error) = self.writer.segment(segment)
        {
            // Only a cache: it is computed again when somebody asks for it.
            tracing::warn!("a manifest is not kept: {error}");
            self.failed = true;
        }
    }

    fn finish(mut self: Box<Self>, content: ContentId, size: u64) -> Result<(), IndexError> {
        if let Some(offering) = &mut self.offering {
            offering.tell();
        }
        if !self.failed
            && let Err(error) = self.writer.finish(content, size)
        {
            tracing::warn!("a manifest is not kept: {error}");
        }
        Ok(())
    }
}

/// The manifests as transfer reads and writes them.
pub(crate) struct Cache(pub(crate) Manifests);

impl ManifestRead for Cache {
    fn info(&self, content: &ContentId) -> io::Result<Option<(u64, u64)>> {
        Ok(self.0.info(*content).map(|i| (i.size, i.segments)))
    }

    fn refs(&self, content: &ContentId, from: u64, limit: usize) -> io::Result<Vec<SegmentRef>> {
        Ok(self.0.refs(*content, from, limit))
    }

    fn segment(&self, content: &ContentId, n: u64) -> io::Result<Option<(u64, Segment)>> {
        Ok(self.0.segment(*content, n))
    }
}

impl ManifestStore for Cache {
    fn writer(&self) -> io::Result<Box<dyn ManifestWriter>> {
        Ok(Box::new(CacheWriter(self.0.writer())))
    }

    fn having_segment(&self, id: &SegmentId) -> Vec<(ContentId, u64)> {
        self.0.having_segment(*id)
    }

    fn having_chunk(&self, id: &ChunkId) -> Vec<(ContentId, u64)> {
        self.0.having_chunk(*id)
    }

    fn has_places(&self) -> bool {
        self.0.has_places()
    }
}

struct CacheWriter(crate::store::ManifestWriter);

impl ManifestWriter for CacheWriter {
    fn segment(&mut self, segment: &Segment) -> io::Result<()> {
        self.0.segment(segment).map_err(other)
    }

    fn finish(self: Box<Self>, content: &ContentId, size: u64) -> io::Result<()> {
        self.0.finish(*content, size).map_err(other)
    }
}

/// The manifests as peers are served from them: also of files that are still being read.
struct Served {
    cache: Cache,
    offers: Arc<Offers>,
}

impl ManifestRead for Served {
    fn info(&self, content: &ContentId) -> io::Result<Option<(u64, u64)>> {
        match self.offers.find(content) {
            Some(offered) => Ok(Some((offered.stat.size, offered.len()))),
            None => self.cache.info(content),
        }
    }

    fn refs(&self, content: &ContentId, from: u64, limit: usize) -> io::Result<Vec<SegmentRef>> {
        self.cache.refs(content, from, limit)
    }

    fn segment(&self, content: &ContentId, n: u64) -> io::Result<Option<(u64, Segment)>> {
        match self.offers.find(content) {
            Some(offered) => Ok(offered.segment(n)),
            None => self.cache.segment(content, n),
        }
    }
}

/// What this share offers to its peers.
pub(super) struct Source {
    root: Arc<Root>,
    index: Mutex<IndexReader>,
    manifests: Served,
    /// What is still being fetched.
    stock: Stock,
    /// Contents whose manifests are being made again.
    making: Mutex<HashSet<ContentId>>,
    pub(super) latest: Latest,
}

impl Source {
    pub(super) fn new(
        root: Arc<Root>,
        index: IndexReader,
        manifests: Manifests,
        offers: Arc<Offers>,
        stock: Stock,
    ) -> Self {
        Self {
            root,
            stock,
            index: Mutex::new(index),
            manifests: Served {
                cache: Cache(manifests),
                offers,
            },
            making: Mutex::default(),
            latest: Latest::default(),
        }
    }

    /// Where the index has each of these.
    fn search(&self, contents: &[ContentId]) -> Vec<Places> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(found) = index.by_contents(contents, MAX_PLACES) else {
            return vec![Vec::new(); contents.len()];
        };
        let place = |(path, record): (RelPath, Record)| Some((path, record.stat?));
        let places = |all: Vec<_>| all.into_iter().filter_map(place).collect();
        found.into_iter().map(places).collect()
    }

    /// Reads a file of ours again for the manifest alone.
    fn make_manifest(&self, content: &ContentId) -> io::Result<()> {
        for (path, stat) in self.locate(content) {
            let mut writer = self.manifests.cache.0.writer();
            let mut failed = None;
            let found = hash_file(&self.root, &path, &stat, &mut |segment| {
                failed = writer.segment(segment).err();
                match failed {
                    None => ControlFlow::Continue(()),
                    Some(_) => ControlFlow::Break(()),
                }
            });
            if failed.is_none() && found.is_ok_and(|id| id == *content) {
                return writer.finish(*content, stat.size).map_err(other);
            }
        }
        Err(other("no file of the share has these bytes now"))
    }
}

impl Opener for Near<'_> {
    fn open(&mut self, path: &RelPath, stat: &FileStat) -> io::Result<File> {
        let (file, now) = self.open_file(path)?;
        if now != *stat {
            return Err(other("the file has changed"));
        }
        Ok(file)
    }
}

impl ContentSource for Source {
    fn locate(&self, content: &ContentId) -> Vec<(RelPath, FileStat)> {
        if let Some(offered) = self.manifests.offers.find(content) {
            return vec![(offered.path.clone(), offered.stat)];
        }
        let mut found = self.search(std::slice::from_ref(content));
        found.pop().unwrap_or_default()
    }

    fn locate_all(&self, contents: &[ContentId]) -> Vec<Vec<(RelPath, FileStat)>> {
        self.latest.find(contents, |rest| self.search(rest))
    }

    fn open(&self, path: &RelPath, stat: &FileStat) -> io::Result<File> {
        Near::new(&self.root).open(path, stat)
    }

    fn opener(&self) -> Option<Box<dyn Opener + '_>> {
        Some(Box::new(Near::new(&self.root)))
    }

    fn part(&self, content: &ContentId, n: u64, buf: &mut Vec<u8>) -> Option<Segment> {
        self.stock.part(content, n, buf)
    }

    fn part_list(&self, content: &ContentId, n: u64) -> Option<Vec<ChunkRef>> {
        self.stock.list(content, n)
    }

    fn manifest(&self) -> &dyn ManifestRead {
        &self.manifests
    }

    fn missing_manifest(&self, content: &ContentId) {
        let lock = || self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if !lock().insert(*content) {
            return;
        }
        // On the lane's own thread: the asker was told to come again, and nobody else waits.
        if let Err(error) = self.make_manifest(content) {
            tracing::warn!("no manifest of {content}: {error}");
        }
        lock().remove(content);
    }
}

/// The disk as transfer uses it.
struct FetchFiles {
    root: Arc<Root>,
    stage: Arc<Stage>,
    index: Option<Mutex<IndexReader>>,
}

impl FetchDisk for FetchFiles {
    fn stage_create(&self, name: &str) -> io::Result<File> {
        self.stage.create(&StageName(name.to_owned()))
    }

    fn stage_put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.stage.put(&StageName(name.to_owned()), bytes)
    }

    fn stage_open(&self, name: &str) -> io::Result<Option<File>> {
        self.stage.open_existing(&StageName(name.to_owned()))
    }

    fn stage_rename(&self, from: &str, to: &str) -> io::Result<bool> {
        let name = |n: &str| StageName(n.to_owned());
        self.stage.rename(&name(from), &name(to))
    }

    fn stage_remove(&self, name: &str) -> io::Result<()> {
        self.stage.remove(&StageName(name.to_owned()))
    }

    fn open_local(&self, path: &RelPath) -> io::Result<(File, FileStat)> {
        self.root.open_file(path)
    }

    fn holders(&self, content: &ContentId) -> Vec<RelPath> {
        let Some(index) = &self.index else {
            return Vec::new();
        };
        let mut found = index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_contents(std::slice::from_ref(content), MAX_PLACES)
            .unwrap_or_default();
        let places = found.pop().unwrap_or_default();
        places.into_iter().map(|(path, _)| path).collect()
    }
}

/// The fetcher of one share.
pub(crate) fn fetcher(
    root: &Arc<Root>,
    stage: &Arc<Stage>,
    index: Option<IndexReader>,
    manifests: &Manifests,
    out: Sender<FetchResults>,
) -> Fetcher {
    let files = FetchFiles {
        root: root.clone(),
        stage: stage.clone(),
        index: index.map(Mutex::new),
    };
    let cache = Cache(manifests.clone());
    Fetcher::new(
        FetchConfig::default(),
        Arc::new(files),
        Arc::new(cache),
        out,
    )
}

/// Other receivers are told of what is fetched here.
pub(super) fn share_work(fetcher: &Fetcher, me: DeviceId, tx: Sender<Msg>) {
    let tell = move |told| {
        // The owner is gone when the share is being stopped.
        let _ = tx.send(Msg::Parts(told));
    };
    fetcher.share_work(me, Box::new(tell));
}

pub(crate) struct Closer(pub(crate) ShutdownHandle);

impl LaneCloser for Closer {
    fn close(&self) {
        self.0.shutdown();
    }
}

/// Hands a lane on which the peer serves to the fetcher.
pub(super) fn add_lane(fetcher: &Fetcher, lane: (u64, DataLane), limits: Limits, tx: Sender<Msg>) {
    let closer = Arc::new(Closer(lane.1.stream.shutdown_handle()));
    let (peer, express) = (lane.1.peer, lane.1.express);
    fetcher.add_lane(peer, watched(lane, limits, tx), closer, express);
}

/// A lane's stream that keeps to the limits, and tells its owner when it is given up, so that it can be
/// dialed again.
fn watched((id, lane): (u64, DataLane), limits: Limits, tx: Sender<Msg>) -> Box<Limited> {
    let session = lane.session;
    Box::new(Limited::new(lane.stream, limits, move || {
        // The owner may be gone already.
        let _ = tx.send(Msg::DataEnded { session, id });
    }))
}

/// Serves a lane on a thread of its own until it ends.
pub(super) fn spawn_server(
    lane: (u64, DataLane),
    source: Arc<Source>,
    limits: Limits,
    tx: Sender<Msg>,
) {
    let peer = lane.1.peer.short();
    let thread = std::thread::Builder::new().name("left-serve".into());
    let spawned = thread.spawn(move || {
        let stats = ServeStats::default();
        let config = ServeConfig { zstd: lane.1.zstd };
        let stream = watched(lane, limits, tx);
        let end = serve(stream, source, config, &stats);
        if let Err(error) = end {
            tracing::debug!(peer, "a data lane ended: {error}");
        }
    });
    if let Err(error) = spawned {
        tracing::error!("cannot serve a lane: {error}");
    }
}
