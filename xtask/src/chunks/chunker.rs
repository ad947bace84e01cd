//! The chunker and the segments of `crates/core/src/chunker.rs` with other sizes. Core has its sizes as
//! constants, since they are protocol; a test here makes sure that with those both are the same.

use std::io::{self, Read};
use std::time::Duration;

use fastcdc::v2020::{self, MASKS};
use left_core::chunker::chunk_refs;
use left_core::content::{
    ChunkId, ChunkRef, SEGMENT_MAX_CHUNKS, SEGMENT_MIN_CHUNKS, Segment, SegmentId, SegmentRef,
};
use rustix::time::{ClockId, clock_gettime};

/// Bytes that are read at a time, as the program does.
const READ: usize = 1 << 20;
/// Averages that a segment has at most, in bytes: 4 MiB for 8 KiB.
const SEGMENT_AVERAGES: u64 = 512;
/// A chunk with an id that ends in this many zero bits ends its segment.
const SEGMENT_END_MASK: u8 = 63;

/// Chunks of about this size, and segments of as many chunks as in use.
pub struct Chunker {
    min: usize,
    average: usize,
    max: usize,
    mask_early: u64,
    mask_late: u64,
    segment_bytes: u64,
    /// The chunk of which long runs of zero bytes consist.
    zero: ChunkRef,
}

impl Chunker {
    /// For an average that is a power of two. The smallest chunk has half of it, the largest eight times
    /// as much, and the masks are those of normalization level 1: the proportions in use.
    pub fn new(average: usize) -> Self {
        let bits = average.ilog2() as usize;
        let max = average * 8;
        let zeros = vec![0; max];
        let mut chunker = Self {
            min: average / 2,
            average,
            max,
            mask_early: MASKS[bits + 1],
            mask_late: MASKS[bits - 1],
            segment_bytes: average as u64 * SEGMENT_AVERAGES,
            zero: ChunkRef {
                len: 0,
                id: ChunkId([0; 32]),
            },
        };
        let len = chunker.chunk_len(&zeros);
        chunker.zero = ChunkRef {
            len: len as u32,
            id: ChunkId::of(&zeros[..len]),
        };
        chunker
    }

    /// Where the rule for cuts gets easier, in bytes.
    pub fn average(&self) -> usize {
        self.average
    }

    /// All chunks of a file, and the CPU time that cutting and hashing took, without reading. Holes are
    /// cut and hashed as other bytes are.
    pub fn cut(&self, mut file: impl Read) -> io::Result<(Vec<ChunkRef>, Duration)> {
        let full = READ + self.max;
        let mut bytes = Vec::with_capacity(full);
        let mut chunks = Vec::new();
        let mut time = Duration::ZERO;
        loop {
            let room = full - bytes.len();
            let eof = file.by_ref().take(room as u64).read_to_end(&mut bytes)? < room;
            let before = cpu_time();
            let mut lens = Vec::new();
            let mut at = 0;
            while at < bytes.len() && (eof || bytes.len() - at >= self.max) {
                let len = self.chunk_len(&bytes[at..]);
                lens.push(len);
                at += len;
            }
            chunks.extend(chunk_refs(&bytes, &lens));
            time += cpu_time().saturating_sub(before);
            if eof {
                return Ok((chunks, time));
            }
            bytes.drain(..at);
        }
    }

    /// Gathers a file's chunks in segments.
    pub fn segments(&self, chunks: &[ChunkRef]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for run in chunks.chunk_by(|a, b| (*a == self.zero) == (*b == self.zero)) {
            if run[0] == self.zero {
                segments.push(segment(SegmentId::ZEROS, run, &[]));
                continue;
            }
            let mut rest = run;
            while !rest.is_empty() {
                let (list, after) = rest.split_at(self.segment_end(rest));
                segments.push(segment(SegmentId::of(list), list, list));
                rest = after;
            }
        }
        segments
    }

    /// The length of the first chunk of `bytes`, which go on for as long as a chunk can be or end with
    /// the file.
    fn chunk_len(&self, bytes: &[u8]) -> usize {
        let (early, late) = (self.mask_early, self.mask_late);
        let (min, average, max) = (self.min, self.average, self.max);
        let (_, at) = v2020::cut(bytes, min, average, max, early, late, early << 1, late << 1);
        match at < bytes.len().min(max) {
            true => at + 1,
            false => at,
        }
    }

    /// How many of these chunks are the first segment.
    fn segment_end(&self, chunks: &[ChunkRef]) -> usize {
        let mut bytes = 0;
        for (count, chunk) in (1..).zip(chunks) {
            bytes += u64::from(chunk.len);
            let by_rule = count >= SEGMENT_MIN_CHUNKS && chunk.id.0[31] & SEGMENT_END_MASK == 0;
            if by_rule || count == SEGMENT_MAX_CHUNKS || bytes >= self.segment_bytes {
                return count;
            }
        }
        chunks.len()
    }
}

fn segment(id: SegmentId, of: &[ChunkRef], listed: &[ChunkRef]) -> Segment {
    let len = of.iter().map(|chunk| u64::from(chunk.len)).sum();
    Segment {
        sref: SegmentRef { len, id },
        chunks: listed.to_vec(),
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use left_core::chunker::{AVG_CHUNK, MAX_CHUNK, MIN_CHUNK, ManifestBuilder, for_each_chunk};
    use left_core::content::SEGMENT_TARGET_MAX;

    use super::*;
    use crate::bench::random::Random;

    /// Random bytes, a run of zeros, text that repeats: what a golden vector of core has.
    fn content() -> Vec<u8> {
        let mut bytes = Random::new(7).bytes(9_000_000);
        bytes.resize(10_000_000, 0);
        bytes.extend(b"all work and no play ".iter().cycle().take(2_000_001));
        bytes
    }

    fn of_core(bytes: &[u8]) -> Vec<Segment> {
        let mut builder = ManifestBuilder::new();
        let mut segments = Vec::new();
        for_each_chunk(bytes, |chunk| {
            segments.extend(builder.push(ChunkRef {
                len: chunk.len() as u32,
                id: ChunkId::of(chunk),
            }));
        });
        segments.extend(builder.finish().0);
        segments
    }

    fn of_ours(average: usize, bytes: &[u8]) -> Vec<Segment> {
        let chunker = Chunker::new(average);
        let (chunks, _) = chunker.cut(bytes).expect("bytes can be read");
        chunker.segments(&chunks)
    }

    #[test]
    fn with_the_sizes_in_use_it_is_the_one_in_use() {
        let chunker = Chunker::new(AVG_CHUNK);
        assert_eq!((chunker.min, chunker.max), (MIN_CHUNK, MAX_CHUNK));
        assert_eq!(chunker.segment_bytes, SEGMENT_TARGET_MAX);
        let bytes = content();
        assert_eq!(of_ours(AVG_CHUNK, &bytes), of_core(&bytes));
        for len in [
            0,
            1,
            4_095,
            4_097,
            MAX_CHUNK,
            READ + MAX_CHUNK,
            READ + MAX_CHUNK + 1,
        ] {
            let bytes = &bytes[..len];
            assert_eq!(of_ours(AVG_CHUNK, bytes), of_core(bytes), "{len} bytes");
        }
    }

    #[test]
    fn chunks_have_the_lengths_they_may_have_and_make_up_the_file() {
        let bytes = content();
        for average in [1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20] {
            let chunker = Chunker::new(average);
            let (chunks, _) = chunker.cut(&bytes[..]).expect("bytes can be read");
            let mut at = 0;
            for (n, chunk) in (1..).zip(&chunks) {
                let len = chunk.len as usize;
                assert!(len > average / 2 || n == chunks.len(), "{len} of {average}");
                assert!(len <= average * 8, "{len} of {average}");
                assert_eq!(chunk.id, ChunkId::of(&bytes[at..at + len]));
                at += len;
            }
            assert_eq!(at, bytes.len());
            let segments = chunker.segments(&chunks);
            let sum: u64 = segments.iter().map(|s| s.sref.len).sum();
            assert_eq!(sum, bytes.len() as u64);
        }
    }

    /// A reader that gives a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let most = buf.len().min(7_919);
            self.0.read(&mut buf[..most])
        }
    }

    #[test]
    fn how_much_comes_at_a_time_does_not_matter() {
        let bytes = content();
        let chunker = Chunker::new(32 << 10);
        let at_once = chunker.cut(&bytes[..]).expect("bytes can be read").0;
        let in_bits = chunker.cut(Slow(&bytes)).expect("bytes can be read").0;
        assert_eq!(at_once, in_bits);
    }

    #[test]
    fn a_run_of_zeros_is_one_segment_with_every_size() {
        for average in [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10] {
            let mut bytes = Random::new(1).bytes(3_000_000);
            bytes.resize(bytes.len() + (40 << 20), 0);
            let segments = of_ours(average, &bytes);
            let zeros: Vec<_> = segments.iter().filter(|s| s.sref.is_zeros()).collect();
            assert_eq!(zeros.len(), 1, "average {average}");
            assert!(zeros[0].chunks.is_empty());
            assert!(zeros[0].sref.len > 39 << 20);
        }
    }

    #[test]
    fn segments_end_by_the_id_by_the_count_and_by_the_bytes() {
        let chunker = Chunker::new(4 << 10);
        let chunk = |len: u32, end: u8| {
            let mut id = [1; 32];
            id[31] = end;
            ChunkRef {
                len,
                id: ChunkId(id),
            }
        };
        let ends = |chunks: &[ChunkRef]| -> Vec<usize> {
            let segments = chunker.segments(chunks);
            segments.iter().map(|s| s.chunks.len()).collect()
        };
        // The rule on ids counts from the eighth chunk on.
        let mut chunks = vec![chunk(10, 1); 20];
        (chunks[6], chunks[8]) = (chunk(10, 64), chunk(10, 128));
        assert_eq!(ends(&chunks), [9, 11]);
        assert_eq!(ends(&vec![chunk(10, 1); 300]), [256, 44]);
        // 2 MiB are 64 chunks of 32 KiB.
        assert_eq!(ends(&vec![chunk(32 << 10, 1); 100]), [64, 36]);
        let mut chunks = vec![chunk(10, 1); 5];
        chunks[2] = chunker.zero;
        assert_eq!(ends(&chunks), [2, 0, 2]);
    }
}
