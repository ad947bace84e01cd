//! A segment list on its way in, and what it may look like.

use left_core::chunker::{CHUNKER_ID, MAX_CHUNK, MIN_CHUNK};
use left_core::content::{SEGMENT_MIN_CHUNKS, SEGMENT_TARGET_MAX, SegmentRef, TopHasher};
use left_core::version::DeviceId;

/// A segment list on its way in.
pub(super) struct Refs {
    pub(super) list: Vec<SegmentRef>,
    pub(super) top: TopHasher,
    /// All pages come from one peer, so that we know who lied.
    pub(super) from: DeviceId,
    pub(super) asked: bool,
}

impl Refs {
    pub(super) fn new(from: DeviceId) -> Self {
        Self {
            list: Vec::new(),
            top: TopHasher::new(CHUNKER_ID),
            from,
            asked: false,
        }
    }
}

/// Whether a segment of this length may follow `before` when `rest` bytes of the file are not
/// covered yet. This bounds the list's length by the file's size before its hash is known.
pub(super) fn plausible(before: Option<SegmentRef>, r: &SegmentRef, rest: u64) -> bool {
    let data_max = SEGMENT_TARGET_MAX + MAX_CHUNK as u64;
    let least = match (before, r.is_zeros()) {
        (Some(b), true) if b.is_zeros() => return false,
        // Only zeros cut a segment short.
        (Some(b), false) if !b.is_zeros() && b.len < (SEGMENT_MIN_CHUNKS * MIN_CHUNK) as u64 => {
            return false;
        }
        _ => MIN_CHUNK as u64,
    };
    let last = r.len == rest;
    r.len > 0 && r.len <= rest && (last || r.len >= least) && (r.is_zeros() || r.len <= data_max)
}

#[cfg(test)]
mod tests {
    use left_core::content::SegmentId;

    use super::*;

    #[test]
    fn segment_lists_are_bounded_by_the_size() {
        let data = |len| SegmentRef {
            len,
            id: SegmentId([1; 32]),
        };
        let zeros = |len| SegmentRef {
            len,
            id: SegmentId::ZEROS,
        };
        assert!(plausible(None, &data(10), 10), "the last may be short");
        assert!(!plausible(None, &data(10), 11));
        assert!(!plausible(None, &data(0), 11));
        assert!(!plausible(None, &data(12), 11), "past the end");
        assert!(!plausible(Some(data(4096)), &data(40_000), 50_000));
        assert!(plausible(Some(data(4096)), &zeros(65_536), 90_000));
        assert!(!plausible(Some(zeros(65_536)), &zeros(65_536), 90_000));
        assert!(!plausible(None, &data(5 << 20), 9 << 20));
        assert!(plausible(None, &zeros(5 << 20), 9 << 20));
    }
}
