//! Content ids and the manifest tree: file → segments → chunks.
//!
//! A chunk's id is the BLAKE3 of its bytes; a segment's id hashes its chunk list; a content id
//! hashes the list of segments. Equal bytes give equal ids, as all cuts depend on content only.

mod many;

use std::fmt;

use data_encoding::HEXLOWER;

/// A file of at most this many bytes is sent whole, without its manifest.
pub const WHOLE_MAX: u64 = 128 * 1024;
/// A segment ends at the latest with the chunk that brings it to this many bytes.
pub const SEGMENT_TARGET_MAX: u64 = 4 * 1024 * 1024;
/// Fewest chunks of a segment that is ended by the rule on chunk ids.
pub const SEGMENT_MIN_CHUNKS: usize = 8;
/// Most chunks of a segment.
pub const SEGMENT_MAX_CHUNKS: usize = 256;
/// The largest file LEFT accepts, from disk or from a peer (what ext4 holds, with room).
pub const MAX_FILE_SIZE: u64 = 1 << 46;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0[..6]))
            }
        }
    };
}

id!(
    /// BLAKE3 of a chunk's bytes.
    ChunkId
);
id!(
    /// Hash of a segment's chunk list. All zero for a segment that is one run of zero bytes.
    SegmentId
);
id!(
    /// Hash of a file's segment list: what two peers compare to know that bytes are equal.
    ContentId
);

impl ChunkId {
    /// The id of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The ids of chunks of these lengths that lie side by side in `bytes`; much faster than one
    /// by one.
    ///
    /// # Panics
    /// When `bytes` is shorter than the sum of `lens`.
    pub fn of_all(bytes: &[u8], lens: impl Iterator<Item = usize>) -> Vec<Self> {
        many::ids(bytes, lens)
    }
}

impl SegmentId {
    /// The id of every run of zero bytes; its length stands in [`SegmentRef::len`].
    pub const ZEROS: SegmentId = SegmentId([0; 32]);

    /// The id of a segment made of `chunks`.
    pub fn of(chunks: &[ChunkRef]) -> Self {
        let mut h = blake3::Hasher::new_derive_key("LEFT 2026 segment of chunks v1");
        for c in chunks {
            h.update(&c.len.to_le_bytes());
            h.update(&c.id.0);
        }
        Self(*h.finalize().as_bytes())
    }
}

/// One chunk of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkRef {
    /// Length in bytes, 1 to [`crate::chunker::MAX_CHUNK`].
    pub len: u32,
    /// Id of the bytes.
    pub id: ChunkId,
}

/// One segment as its file lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentRef {
    /// Length in bytes, at least 1.
    pub len: u64,
    /// Id of the chunk list, or [`SegmentId::ZEROS`].
    pub id: SegmentId,
}

impl SegmentRef {
    /// Whether the segment is a run of zero bytes (never sent, left as a hole).
    pub fn is_zeros(&self) -> bool {
        self.id == SegmentId::ZEROS
    }
}

/// A segment with its chunk list (empty for a run of zero bytes).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Length and id.
    pub sref: SegmentRef,
    /// The chunks in order; empty when the segment is a run of zero bytes.
    pub chunks: Vec<ChunkRef>,
}

/// Hashes a segment list to a [`ContentId`], a piece at a time.
pub struct TopHasher {
    hasher: blake3::Hasher,
    size: u64,
}

impl TopHasher {
    /// For content cut by the chunker with this id (see [`crate::chunker::CHUNKER_ID`]).
    pub fn new(chunker: u8) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("LEFT 2026 content of segments v1");
        hasher.update(&[chunker]);
        Self { hasher, size: 0 }
    }

    /// Adds the next segment.
    pub fn push(&mut self, s: &SegmentRef) {
        self.size += s.len;
        self.hasher.update(&s.len.to_le_bytes());
        self.hasher.update(&s.id.0);
    }

    /// The content id of all segments pushed so far.
    pub fn finish(&self) -> ContentId {
        let mut h = self.hasher.clone();
        h.update(&self.size.to_le_bytes());
        ContentId(*h.finalize().as_bytes())
    }

    /// Bytes covered so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}
