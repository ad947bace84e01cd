//! Manifests in memory, and a store over them.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use left_core::chunker::{self, ManifestBuilder};
use left_core::content::{ChunkId, ChunkRef, ContentId, Segment, SegmentId, SegmentRef};

use crate::transfer::{ManifestRead, ManifestStore, ManifestWriter};

#[derive(Default)]
pub struct MemManifests {
    map: Mutex<HashMap<ContentId, (u64, Vec<Segment>)>>,
    pub wrong_lists: AtomicBool,
    pub wrong_refs: AtomicBool,
}

impl MemManifests {
    pub fn put(&self, content: ContentId, segments: Vec<Segment>) {
        let size = segments.iter().map(|s| s.sref.len).sum();
        self.map.lock().unwrap().insert(content, (size, segments));
    }

    pub fn remove(&self, content: &ContentId) {
        self.map.lock().unwrap().remove(content);
    }

    fn having(&self, what: impl Fn(&Segment) -> bool) -> Vec<(ContentId, u64)> {
        let map = self.map.lock().unwrap();
        let places = map.iter().flat_map(|(content, (_, list))| {
            let found = list.iter().enumerate().filter(|(_, s)| what(s));
            found.map(|(n, _)| (*content, n as u64))
        });
        places.take(8).collect()
    }

    pub fn get(&self, content: &ContentId) -> Option<(u64, Vec<Segment>)> {
        self.map.lock().unwrap().get(content).cloned()
    }
}

impl ManifestRead for MemManifests {
    fn info(&self, content: &ContentId) -> io::Result<Option<(u64, u64)>> {
        let map = self.map.lock().unwrap();
        Ok(map.get(content).map(|(size, s)| (*size, s.len() as u64)))
    }

    fn refs(&self, content: &ContentId, from: u64, limit: usize) -> io::Result<Vec<SegmentRef>> {
        let map = self.map.lock().unwrap();
        let all = map.get(content).map_or(&[][..], |(_, s)| s);
        let page = all.iter().skip(from as usize).take(limit);
        let mut page: Vec<_> = page.map(|s| s.sref).collect();
        if self.wrong_refs.load(Ordering::SeqCst) {
            page[0].id = SegmentId([9; 32]);
        }
        Ok(page)
    }

    fn segment(&self, content: &ContentId, n: u64) -> io::Result<Option<(u64, Segment)>> {
        let map = self.map.lock().unwrap();
        let Some((_, all)) = map.get(content) else {
            return Ok(None);
        };
        let n = n as usize;
        let offset = all.iter().take(n).map(|s| s.sref.len).sum();
        let mut found = all.get(n).cloned();
        if self.wrong_lists.load(Ordering::SeqCst)
            && let Some(s) = &mut found
        {
            s.chunks[0].id = ChunkId([9; 32]);
        }
        Ok(found.map(|s| (offset, s)))
    }
}

struct MemWriter(Arc<MemManifests>, Vec<Segment>);

impl ManifestWriter for MemWriter {
    fn segment(&mut self, segment: &Segment) -> io::Result<()> {
        self.1.push(segment.clone());
        Ok(())
    }

    fn finish(self: Box<Self>, content: &ContentId, size: u64) -> io::Result<()> {
        assert_eq!(size, self.1.iter().map(|s| s.sref.len).sum::<u64>());
        self.0.put(*content, self.1);
        Ok(())
    }
}

/// The store as a fetcher sees it.
pub struct Store(pub Arc<MemManifests>);

impl ManifestRead for Store {
    fn info(&self, content: &ContentId) -> io::Result<Option<(u64, u64)>> {
        self.0.info(content)
    }
    fn refs(&self, content: &ContentId, from: u64, limit: usize) -> io::Result<Vec<SegmentRef>> {
        self.0.refs(content, from, limit)
    }
    fn segment(&self, content: &ContentId, n: u64) -> io::Result<Option<(u64, Segment)>> {
        self.0.segment(content, n)
    }
}

impl ManifestStore for Store {
    fn writer(&self) -> io::Result<Box<dyn ManifestWriter>> {
        Ok(Box::new(MemWriter(Arc::clone(&self.0), Vec::new())))
    }
    fn having_segment(&self, id: &SegmentId) -> Vec<(ContentId, u64)> {
        self.0.having(|s| s.sref.id == *id)
    }
    fn having_chunk(&self, id: &ChunkId) -> Vec<(ContentId, u64)> {
        match id.0[30] & 7 {
            0 => self.0.having(|s| s.chunks.iter().any(|c| c.id == *id)),
            _ => Vec::new(),
        }
    }
    fn has_places(&self) -> bool {
        !self.0.map.lock().unwrap().is_empty()
    }
}

/// All segments of some bytes.
pub fn manifest(bytes: &[u8]) -> (ContentId, Vec<Segment>) {
    let mut builder = ManifestBuilder::new();
    let mut segments = Vec::new();
    let mut rest = bytes;
    while let Some(len) = chunker::next_cut(rest, true) {
        segments.extend(builder.push(ChunkRef {
            len: len as u32,
            id: ChunkId::of(&rest[..len]),
        }));
        rest = &rest[len..];
    }
    let (last, id) = builder.finish();
    segments.extend(last);
    (id, segments)
}
