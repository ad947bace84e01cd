//! What a manifest takes, and what travels for an edit (docs/protocol.md, section 12). Payloads only:
//! requests, headers of frames (24 bytes), TLS and TCP are left out, as is compression.

use std::collections::HashSet;

use left_core::content::{ChunkRef, Segment, SegmentRef};

/// Bytes of a segment in a segment list, and of a chunk in a chunk list.
const SEGMENT_REF: u64 = 40;
const CHUNK_REF: u64 = 36;

/// A version's manifest.
#[derive(PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Chunks that are listed: all but those in runs of zeros.
    pub chunks: u64,
    /// Bytes in those chunks.
    pub chunked: u64,
    /// Bytes of the segment list and all chunk lists.
    pub bytes: u64,
}

impl Manifest {
    pub fn of(segments: &[Segment]) -> Self {
        let chunks = segments.iter().flat_map(|s| &s.chunks);
        let chunked = chunks.map(|chunk| u64::from(chunk.len)).sum();
        let lists: u64 = segments.iter().map(list).sum();
        Self {
            chunks: lists / CHUNK_REF,
            chunked,
            bytes: segments.len() as u64 * SEGMENT_REF + lists,
        }
    }

    /// Bytes of a chunk on average; 0 where there is none.
    pub fn mean(&self) -> f64 {
        self.chunked as f64 / self.chunks.max(1) as f64
    }
}

/// Bytes that a device with the older version is sent to make the newer one.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Edit {
    /// The newer version's segment list.
    pub refs: u64,
    /// Chunk lists of the segments that the older version has not.
    pub lists: u64,
    /// The chunks of those that the older version has not. One that occurs twice comes twice.
    pub contents: u64,
}

impl Edit {
    pub fn between(old: &[Segment], new: &[Segment]) -> Self {
        if old.iter().map(|s| s.sref).eq(new.iter().map(|s| s.sref)) {
            // The same content id: nothing is asked for.
            return Self::default();
        }
        let segments: HashSet<_> = old.iter().map(|s| segment_key(&s.sref)).collect();
        let chunks: HashSet<_> = (old.iter().flat_map(|s| &s.chunks))
            .map(chunk_key)
            .collect();
        let changed = (new.iter())
            .filter(|s| !s.sref.is_zeros() && !segments.contains(&segment_key(&s.sref)));
        let missing = (changed.clone().flat_map(|s| &s.chunks))
            .filter(|chunk| !chunks.contains(&chunk_key(chunk)));
        Self {
            refs: new.len() as u64 * SEGMENT_REF,
            lists: changed.map(list).sum(),
            contents: missing.map(|chunk| u64::from(chunk.len)).sum(),
        }
    }

    /// All of it.
    pub fn travels(&self) -> u64 {
        self.refs + self.lists + self.contents
    }
}

/// Bytes of a segment's chunk list.
fn list(segment: &Segment) -> u64 {
    segment.chunks.len() as u64 * CHUNK_REF
}

fn segment_key(sref: &SegmentRef) -> (u64, [u8; 32]) {
    (sref.len, sref.id.0)
}

fn chunk_key(chunk: &ChunkRef) -> (u32, [u8; 32]) {
    (chunk.len, chunk.id.0)
}

#[cfg(test)]
mod tests {
    use left_core::content::{ChunkId, SegmentId};

    use super::*;

    /// A segment of chunks of which each is named by a byte and has 1,000 bytes times that.
    fn segment(chunks: &[u8]) -> Segment {
        let chunk = |n: &u8| ChunkRef {
            len: u32::from(*n) * 1_000,
            id: ChunkId([*n; 32]),
        };
        let chunks: Vec<_> = chunks.iter().map(chunk).collect();
        Segment {
            sref: SegmentRef {
                len: chunks.iter().map(|c| u64::from(c.len)).sum(),
                id: SegmentId::of(&chunks),
            },
            chunks,
        }
    }

    fn zeros(len: u64) -> Segment {
        Segment {
            sref: SegmentRef {
                len,
                id: SegmentId::ZEROS,
            },
            chunks: Vec::new(),
        }
    }

    fn edit(refs: u64, lists: u64, contents: u64) -> Edit {
        Edit {
            refs,
            lists,
            contents,
        }
    }

    #[test]
    fn a_manifest_is_its_lists() {
        let manifest = Manifest::of(&[segment(&[1, 2, 3]), zeros(65_536), segment(&[4])]);
        let want = Manifest {
            chunks: 4,
            chunked: 10_000,
            bytes: 3 * 40 + 4 * 36,
        };
        assert_eq!(manifest, want);
        assert_eq!(manifest.mean().to_bits(), 2_500_f64.to_bits());
        let nothing = Manifest::of(&[zeros(65_536)]);
        assert_eq!((nothing.chunks, nothing.bytes), (0, 40));
        assert_eq!(nothing.mean().to_bits(), 0_f64.to_bits());
    }

    #[test]
    fn of_a_changed_segment_its_list_and_its_new_chunks_travel() {
        let old = [segment(&[1, 2, 3]), segment(&[4, 5])];
        let new = [segment(&[1, 9, 3]), segment(&[4, 5])];
        let told = Edit::between(&old, &new);
        assert_eq!(told, edit(2 * 40, 3 * 36, 9_000));
        assert_eq!(told.travels(), 80 + 108 + 9_000);
    }

    #[test]
    fn equal_contents_cost_nothing() {
        let segments = [segment(&[1, 2]), zeros(65_536)];
        assert_eq!(Edit::between(&segments, &segments), edit(0, 0, 0));
    }

    #[test]
    fn segments_that_moved_cost_the_segment_list() {
        let old = [segment(&[1, 2]), segment(&[3, 4])];
        let new = [segment(&[3, 4]), segment(&[1, 2])];
        assert_eq!(Edit::between(&old, &new), edit(80, 0, 0));
    }

    #[test]
    fn chunks_are_found_in_any_segment_of_the_older_version() {
        let old = [segment(&[1, 2]), segment(&[3, 4])];
        let new = [segment(&[4, 1]), segment(&[3, 2])];
        assert_eq!(Edit::between(&old, &new), edit(80, 4 * 36, 0));
    }

    #[test]
    fn zeros_never_travel() {
        let old = [segment(&[1])];
        let new = [segment(&[1]), zeros(131_072)];
        assert_eq!(Edit::between(&old, &new), edit(80, 0, 0));
    }

    #[test]
    fn what_occurs_twice_in_the_newer_version_comes_twice() {
        let old = [segment(&[1])];
        let new = [segment(&[1]), segment(&[7, 7]), segment(&[7, 7])];
        assert_eq!(Edit::between(&old, &new), edit(120, 4 * 36, 28_000));
    }

    #[test]
    fn against_nothing_all_of_it_travels() {
        let new = [segment(&[1, 2]), zeros(65_536)];
        assert_eq!(Edit::between(&[], &new), edit(80, 72, 3_000));
    }
}
