//! What an older version of a file still gives to the newer one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::OnceLock;

use left_core::content::{ChunkId, ChunkRef, ContentId, Segment, SegmentId, SegmentRef};

use crate::counters::HASHED;
use crate::transfer::fileio::{done_with, matches, read_at_most, reflink};
use crate::transfer::ports::ManifestRead;

/// Segments of a manifest that are read from the store at a time.
const PAGE: usize = 4096;

/// Half an id: enough to find a candidate, which is always hashed before it is used.
type Half = [u8; 16];

fn half(id: &[u8; 32]) -> Half {
    let mut h = [0; 16];
    h.copy_from_slice(&id[..16]);
    h
}

/// Chunks by id: where each begins, and its length.
type Chunks = HashMap<Half, (u64, u32)>;

/// An older version's file, with what it holds by segment, and by chunk where segments differ.
pub(super) struct Base {
    file: File,
    content: ContentId,
    segments: HashMap<Half, u64>,
    /// Segments of which the chunks may be needed; read when a segment is not found as a whole.
    apart: Vec<u64>,
    chunks_max: usize,
    chunks: OnceLock<Chunks>,
}

impl Base {
    /// Reads the older version's manifest; `None` when it is not stored. At most `chunks_max`
    /// chunks are kept, of segments that `wanted` (the new version's list, where it is known
    /// already) has not.
    pub(super) fn load(
        manifests: &dyn ManifestRead,
        file: File,
        content: ContentId,
        wanted: Option<&[SegmentRef]>,
        chunks_max: usize,
    ) -> io::Result<Option<Self>> {
        let Some((_, count)) = manifests.info(&content)? else {
            return Ok(None);
        };
        let new: Option<HashSet<Half>> =
            wanted.map(|list| list.iter().map(|r| half(&r.id.0)).collect());
        let mut base = Self {
            file,
            content,
            segments: HashMap::new(),
            apart: Vec::new(),
            chunks_max,
            chunks: OnceLock::new(),
        };
        let mut n = 0;
        while n < count {
            let page = manifests.refs(&content, n, PAGE)?;
            if page.is_empty() {
                break;
            }
            for r in page {
                let key = half(&r.id.0);
                if !r.is_zeros() {
                    let whole = new.as_ref().is_none_or(|list| list.contains(&key));
                    if whole {
                        base.segments.insert(key, n);
                    }
                    if !whole || new.is_none() {
                        base.apart.push(n);
                    }
                }
                n += 1;
            }
        }
        Ok(Some(base))
    }

    /// The chunks of the segments that may be needed in parts. Reading them may fail without harm:
    /// then fewer are found.
    fn chunks(&self, manifests: &dyn ManifestRead) -> &Chunks {
        self.chunks.get_or_init(|| {
            let mut chunks = Chunks::new();
            for n in &self.apart {
                let Ok(Some((mut offset, segment))) = manifests.segment(&self.content, *n) else {
                    continue;
                };
                for c in &segment.chunks {
                    chunks.insert(half(&c.id.0), (offset, c.len));
                    offset += u64::from(c.len);
                }
                if chunks.len() >= self.chunks_max {
                    break;
                }
            }
            chunks
        })
    }

    /// Whether chunk lists are worth asking for.
    pub(super) fn has_chunks(&self, manifests: &dyn ManifestRead) -> bool {
        !self.chunks(manifests).is_empty()
    }

    /// Where the older version has a whole segment, if it has.
    pub(super) fn find(
        &self,
        manifests: &dyn ManifestRead,
        wanted: &SegmentRef,
    ) -> io::Result<Option<(u64, Segment)>> {
        match self.segments.get(&half(&wanted.id.0)) {
            Some(n) => listed(manifests, &self.content, *n, wanted),
            None => Ok(None),
        }
    }

    /// Reads a segment that [`Self::find`] found into `buf`; `false` when the bytes are others by now.
    pub(super) fn read(&self, segment: &Segment, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        read(&self.file, segment, offset, buf)
    }

    /// These bytes were read, and no more will be: the file is replaced by what they went into.
    pub(super) fn done_with(&self, offset: u64, len: u64) {
        done_with(&self.file, offset, len);
    }

    /// Makes `staged`, which is empty, share the older version's blocks, where the file system can.
    pub(super) fn clone_into(&self, staged: &File) -> bool {
        reflink(&self.file, staged)
    }

    /// Where the older version may have this chunk.
    pub(super) fn find_chunk(&self, manifests: &dyn ManifestRead, c: &ChunkRef) -> Option<u64> {
        let (offset, len) = self.chunks(manifests).get(&half(&c.id.0))?;
        (*len == c.len).then_some(*offset)
    }

    /// Reads a chunk that [`Self::find_chunk`] found; `false` when the bytes are others by now.
    pub(super) fn read_chunk(&self, c: &ChunkRef, at: u64, buf: &mut [u8]) -> io::Result<bool> {
        HASHED.add(buf.len() as u64);
        Ok(read_at_most(&self.file, buf, at)? == buf.len() && ChunkId::of(buf) == c.id)
    }
}

/// Segment `n` of a content and where it begins, if it is `wanted`.
pub(super) fn listed(
    manifests: &dyn ManifestRead,
    content: &ContentId,
    n: u64,
    wanted: &SegmentRef,
) -> io::Result<Option<(u64, Segment)>> {
    let found = manifests.segment(content, n)?;
    Ok(found.filter(|(_, segment)| {
        let sum: u64 = segment.chunks.iter().map(|c| u64::from(c.len)).sum();
        segment.sref == *wanted && sum == wanted.len && SegmentId::of(&segment.chunks) == wanted.id
    }))
}

/// Reads a segment, which `buf` has room for; `false` when the bytes there are others.
pub(super) fn read(
    file: &File,
    segment: &Segment,
    offset: u64,
    buf: &mut [u8],
) -> io::Result<bool> {
    Ok(read_at_most(file, buf, offset)? == buf.len() && matches(buf, &segment.chunks))
}
