//! Content-defined cut points (FastCDC 2020), pure over byte slices.

/// Names the chunker and its parameters on the wire and in content ids.
pub const CHUNKER_ID: u8 = 1;
/// Smallest chunk but for the last of a file.
pub const MIN_CHUNK: usize = 4 * 1024;
/// Average chunk.
pub const AVG_CHUNK: usize = 16 * 1024;
/// Largest chunk.
pub const MAX_CHUNK: usize = 64 * 1024;

use crate::content::{ChunkRef, ContentId, Segment};

/// The length of the chunk that starts at `buf[0]`, or `None` when that can only be said with
/// more bytes (`buf` is shorter than [`MAX_CHUNK`] and not the end of the file).
pub fn next_cut(buf: &[u8], eof: bool) -> Option<usize> {
    let _ = (buf, eof);
    unimplemented!()
}

/// The length of every chunk inside a long run of zero bytes (constant, as cuts depend on content
/// only). A hole of which at least [`MAX_CHUNK`] bytes remain is cut into chunks of this length
/// without being read.
pub fn zero_chunk_len() -> usize {
    unimplemented!()
}

/// Groups chunks into segments and hashes the top, a chunk at a time.
pub struct ManifestBuilder {
    _private: (),
}

impl ManifestBuilder {
    /// An empty file's builder.
    pub fn new() -> Self {
        unimplemented!()
    }

    /// Adds the next chunk; returns the segments that it completes (0, 1 or 2: a run of zero
    /// chunks is a segment of its own).
    pub fn push(&mut self, chunk: ChunkRef) -> Vec<Segment> {
        let _ = chunk;
        unimplemented!()
    }

    /// Adds `count` zero chunks of [`zero_chunk_len`] bytes each.
    pub fn push_zeros(&mut self, count: u64) -> Vec<Segment> {
        let _ = count;
        unimplemented!()
    }

    /// The last segments and the content id.
    pub fn finish(self) -> (Vec<Segment>, ContentId) {
        unimplemented!()
    }
}

/// The content id of a file that is wholly in memory.
pub fn content_id(bytes: &[u8]) -> ContentId {
    let _ = bytes;
    unimplemented!()
}

/// Cuts a segment's bytes again and returns its chunk list: what the receiver of a whole segment
/// compares with the segment's id. (A segment's first cut is a chunk start, so cutting it alone
/// gives the same chunks; `None` if the bytes do not end at a cut, which an honest segment that is
/// not the file's last always does; `last` says whether it is the file's last.)
pub fn cut_segment(bytes: &[u8], last: bool) -> Option<Vec<ChunkRef>> {
    let _ = (bytes, last);
    unimplemented!()
}
