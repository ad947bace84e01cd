//! Segment lists: on their way in, what they may look like, and where each segment begins.

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

/// A segment list, and where each segment begins.
#[derive(Default)]
pub(super) struct RefList {
    refs: Vec<SegmentRef>,
    /// Where every [`MARK`]th segment begins.
    marks: Vec<u64>,
    size: u64,
}

/// Lengths that are added up at most to tell where a segment begins.
const MARK: usize = 1024;

impl RefList {
    pub(super) fn push(&mut self, r: SegmentRef) {
        if self.refs.len().is_multiple_of(MARK) {
            self.marks.push(self.size);
        }
        self.size += r.len;
        self.refs.push(r);
    }

    pub(super) fn len(&self) -> usize {
        self.refs.len()
    }

    pub(super) fn last(&self) -> Option<SegmentRef> {
        self.refs.last().copied()
    }

    /// Bytes of all segments.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Segment `n` and where it begins.
    pub(super) fn get(&self, n: usize) -> Option<(SegmentRef, u64)> {
        let sref = *self.refs.get(n)?;
        let from = n / MARK;
        let before = &self.refs[from * MARK..n];
        let offset = self.marks.get(from)? + before.iter().map(|r| r.len).sum::<u64>();
        Some((sref, offset))
    }

    /// Whether another list begins with this one.
    pub(super) fn begins(&self, list: &[SegmentRef]) -> bool {
        list.starts_with(&self.refs)
    }
}

impl FromIterator<SegmentRef> for RefList {
    fn from_iter<I: IntoIterator<Item = SegmentRef>>(all: I) -> Self {
        let mut list = Self::default();
        all.into_iter().for_each(|r| list.push(r));
        list
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
    fn a_list_tells_where_each_segment_begins() {
        let sref = |n: u64| SegmentRef {
            len: n % 7 + 1,
            id: SegmentId([1; 32]),
        };
        let list: RefList = (0..3000).map(sref).collect();
        let mut offset = 0;
        for n in 0..3000 {
            assert_eq!(list.get(n as usize), Some((sref(n), offset)));
            offset += sref(n).len;
        }
        assert_eq!((list.get(3000), list.size()), (None, offset));
        assert_eq!(RefList::default().get(0), None);
    }

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
