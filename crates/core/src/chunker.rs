//! Content-defined cut points, pure over byte slices, and the segments made of them.
//!
//! Source: W. Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication
//! Based Storage Systems", IEEE TPDS 2020, as the crate `fastcdc` has it (`v2020`, normalization
//! level 1), with one difference: a chunk here ends *with* the byte that completes the match, not
//! before it. So whether a chunk ends at a cut is told by its own bytes alone, and whoever
//! receives a segment can check all its cuts without the bytes that follow.

use std::sync::LazyLock;

use fastcdc::v2020;

use crate::content::{
    ChunkId, ChunkRef, ContentId, SEGMENT_MAX_CHUNKS, SEGMENT_MIN_CHUNKS, SEGMENT_TARGET_MAX,
    Segment, SegmentId, SegmentRef, TopHasher,
};

/// Names the chunker and its parameters on the wire and in content ids.
pub const CHUNKER_ID: u8 = 1;
/// Smallest chunk but for the last of a file.
pub const MIN_CHUNK: usize = 4 * 1024;
/// Where the rule for cuts gets easier; the average chunk is somewhat longer.
pub const AVG_CHUNK: usize = 8 * 1024;
/// Largest chunk.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Bits that are zero in the hash at a cut before [`AVG_CHUNK`]: 14 (level 1 of normalization).
const MASK_EARLY: u64 = v2020::MASKS[14];
/// Bits that are zero in the hash at a cut after [`AVG_CHUNK`]: 12.
const MASK_LATE: u64 = v2020::MASKS[12];
/// A chunk with an id that ends in this many zero bits ends its segment: one of 64.
const SEGMENT_END_MASK: u8 = 63;

/// The chunk of which long runs of zero bytes consist.
static ZERO_CHUNK: LazyLock<ChunkRef> = LazyLock::new(|| {
    let zeros = vec![0; MAX_CHUNK];
    let len = cut(&zeros).0;
    ChunkRef {
        len: len as u32,
        id: ChunkId::of(&zeros[..len]),
    }
});

/// The length of the chunk at the start of `buf` if `buf` were all there is, and whether it ends
/// at a cut (else at the end of `buf`).
fn cut(buf: &[u8]) -> (usize, bool) {
    let (hash, at) = v2020::cut(
        buf,
        MIN_CHUNK,
        AVG_CHUNK,
        MAX_CHUNK,
        MASK_EARLY,
        MASK_LATE,
        MASK_EARLY << 1,
        MASK_LATE << 1,
    );
    if at < buf.len().min(MAX_CHUNK) {
        return (at + 1, true);
    }
    if at == MAX_CHUNK {
        return (at, true);
    }
    // The crate goes through the bytes in pairs, so the last byte of an odd length was hashed but
    // not judged.
    let mask = if at <= AVG_CHUNK {
        MASK_EARLY
    } else {
        MASK_LATE
    };
    (at, at > MIN_CHUNK && at % 2 == 1 && hash & mask == 0)
}

/// The length of the chunk that starts at `buf[0]`, or `None` when that can only be said with
/// more bytes (`buf` is shorter than [`MAX_CHUNK`] and not the end of the file) or `buf` is empty.
pub fn next_cut(buf: &[u8], eof: bool) -> Option<usize> {
    if buf.is_empty() || (buf.len() < MAX_CHUNK && !eof) {
        return None;
    }
    Some(cut(buf).0)
}

/// Calls `each` with every chunk of a file that is wholly in memory, in order.
pub fn for_each_chunk(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rest = bytes;
    while let Some(len) = next_cut(rest, true) {
        let (chunk, after) = rest.split_at(len);
        each(chunk);
        rest = after;
    }
}

/// The ids of chunks of these lengths that lie side by side in `bytes`.
///
/// # Panics
/// When `bytes` is shorter than the sum of `lens`.
pub fn chunk_refs(bytes: &[u8], lens: &[usize]) -> Vec<ChunkRef> {
    let ids = ChunkId::of_all(bytes, lens.iter().copied());
    let chunk = |(len, id): (&usize, ChunkId)| ChunkRef {
        len: *len as u32,
        id,
    };
    lens.iter().zip(ids).map(chunk).collect()
}

/// The length of every chunk inside a long run of zero bytes (constant, as cuts depend on content
/// only). A hole of which at least [`MAX_CHUNK`] bytes remain is cut into chunks of this length
/// without being read.
pub fn zero_chunk_len() -> usize {
    ZERO_CHUNK.len as usize
}

/// Groups chunks into segments and hashes the top, a chunk at a time. Holds the chunk list of
/// the segment that is not yet ended, nothing of those before.
///
/// A segment ends with a chunk when it has [`SEGMENT_MIN_CHUNKS`] chunks and the chunk's id ends
/// in six zero bits, or when it has [`SEGMENT_MAX_CHUNKS`] chunks or [`SEGMENT_TARGET_MAX`]
/// bytes. A run of zero chunks, however long, is a segment of its own.
pub struct ManifestBuilder {
    chunks: Vec<ChunkRef>,
    /// Bytes of `chunks`.
    bytes: u64,
    /// Zero chunks since the last other chunk; not 0 only while `chunks` is empty.
    zeros: u64,
    top: TopHasher,
}

impl Default for ManifestBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestBuilder {
    /// An empty file's builder.
    pub fn new() -> Self {
        Self {
            chunks: Vec::new(),
            bytes: 0,
            zeros: 0,
            top: TopHasher::new(CHUNKER_ID),
        }
    }

    /// Adds the next chunk; returns the segments that it completes (0, 1 or 2: a run of zero
    /// chunks is a segment of its own).
    pub fn push(&mut self, chunk: ChunkRef) -> Vec<Segment> {
        if chunk == *ZERO_CHUNK {
            return self.push_zeros(1);
        }
        let mut done = Vec::new();
        done.extend(self.end_segment_if(self.zeros > 0));
        self.bytes += u64::from(chunk.len);
        self.chunks.push(chunk);
        let by_rule =
            self.chunks.len() >= SEGMENT_MIN_CHUNKS && chunk.id.0[31] & SEGMENT_END_MASK == 0;
        let by_size = self.chunks.len() >= SEGMENT_MAX_CHUNKS || self.bytes >= SEGMENT_TARGET_MAX;
        done.extend(self.end_segment_if(by_rule || by_size));
        done
    }

    /// Adds `count` zero chunks of [`zero_chunk_len`] bytes each; takes the same time whatever
    /// the count.
    pub fn push_zeros(&mut self, count: u64) -> Vec<Segment> {
        if count == 0 {
            return Vec::new();
        }
        let done = self.end_segment_if(!self.chunks.is_empty());
        self.zeros = self.zeros.saturating_add(count);
        done.into_iter().collect()
    }

    /// The last segments and the content id.
    pub fn finish(mut self) -> (Vec<Segment>, ContentId) {
        let pending = self.zeros > 0 || !self.chunks.is_empty();
        let last = self.end_segment_if(pending);
        (last.into_iter().collect(), self.top.finish())
    }

    fn end_segment_if(&mut self, end: bool) -> Option<Segment> {
        if !end {
            return None;
        }
        let sref = if self.zeros > 0 {
            SegmentRef {
                len: self.zeros.saturating_mul(u64::from(ZERO_CHUNK.len)),
                id: SegmentId::ZEROS,
            }
        } else {
            SegmentRef {
                len: self.bytes,
                id: SegmentId::of(&self.chunks),
            }
        };
        self.zeros = 0;
        self.bytes = 0;
        self.top.push(&sref);
        Some(Segment {
            sref,
            chunks: std::mem::take(&mut self.chunks),
        })
    }
}

/// The content id of a file that is wholly in memory.
pub fn content_id(bytes: &[u8]) -> ContentId {
    let mut lens = Vec::with_capacity(bytes.len() / AVG_CHUNK + 1);
    for_each_chunk(bytes, |chunk| lens.push(chunk.len()));
    let mut builder = ManifestBuilder::new();
    for chunk in chunk_refs(bytes, &lens) {
        builder.push(chunk);
    }
    builder.finish().1
}

/// Cuts a segment's bytes again and returns its chunk list: what the receiver of a whole segment
/// compares with the segment's id. (A segment's first byte is a chunk start, so cutting it alone
/// gives the same chunks; `None` if there are no bytes or they do not end at a cut, which those of
/// an honest segment that is not the file's last always do; `last` says whether it is the file's
/// last.) Takes memory for the list and while it hashes, about 60 bytes for each KiB of `bytes`.
pub fn cut_segment(bytes: &[u8], last: bool) -> Option<Vec<ChunkRef>> {
    if bytes.is_empty() {
        return None;
    }
    let mut lens = Vec::with_capacity(bytes.len() / AVG_CHUNK + 1);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (len, at_cut) = cut(rest);
        if !at_cut && !last {
            return None;
        }
        lens.push(len);
        rest = &rest[len..];
    }
    Some(chunk_refs(bytes, &lens))
}
