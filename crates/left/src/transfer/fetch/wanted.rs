//! What a peer is asked for of a big content.

use std::collections::VecDeque;
use std::sync::Arc;

use left_core::content::{ChunkRef, ContentId, SegmentRef};
use left_core::version::DeviceId;

/// What an asked chunk list counts for in the windows; a typical one is half of it.
const LIST_COST: u64 = 4 * 1024;

/// A segment with its position in the list and in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) n: usize,
    pub(super) offset: u64,
    pub(super) sref: SegmentRef,
}

/// The chunks of a segment that nothing here has.
pub(super) struct MissingChunks {
    pub(super) place: Place,
    pub(super) list: Vec<ChunkRef>,
    pub(super) bitmap: Vec<u8>,
    pub(super) bytes: u64,
}

impl MissingChunks {
    pub(super) fn wants(&self, i: usize) -> bool {
        self.bitmap[i / 8] >> (i % 8) & 1 == 1
    }
}

/// Something to ask a peer for.
#[derive(Clone)]
pub(super) enum Wanted {
    Segment(Place),
    List(Place),
    Chunks(Arc<MissingChunks>),
}

impl Wanted {
    /// The bytes of its answer, about.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Wanted::Segment(p) => p.sref.len,
            Wanted::List(_) => LIST_COST,
            Wanted::Chunks(c) => c.bytes,
        }
    }

    /// Of which segment.
    pub(super) fn n(&self) -> usize {
        match self {
            Wanted::Segment(p) | Wanted::List(p) => p.n,
            Wanted::Chunks(c) => c.place.n,
        }
    }

    pub(super) fn same_kind(&self, other: &Wanted) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Who was asked for something of a big content, and how.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) peer: DeviceId,
    /// The content's id, or that of an offer which may have become one since.
    pub(super) id: ContentId,
    /// It has not got all, and is asked for what it said it has.
    pub(super) partial: bool,
    /// By an offer's id: whoever made the offer may have told it another list.
    pub(super) hint: bool,
}

/// What a lane is given to do for a big content.
pub(super) enum BigTask {
    /// The segment list from this position on.
    Refs(u64),
    /// Several of one kind; of chunks only one.
    Parts(VecDeque<Wanted>),
}
