//! Cuts, segments and content ids: the same bytes give the same ones, for ever.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod support;

use std::collections::HashSet;

use left_core::chunker::{
    AVG_CHUNK, MAX_CHUNK, MIN_CHUNK, ManifestBuilder, content_id, cut_segment, for_each_chunk,
    next_cut, zero_chunk_len,
};
use left_core::content::{
    ChunkId, ChunkRef, ContentId, SEGMENT_MAX_CHUNKS, SEGMENT_MIN_CHUNKS, SEGMENT_TARGET_MAX,
    Segment, SegmentId, SegmentRef,
};
use proptest::prelude::*;
use support::noise;

/// Stretches of noise, of zeros and of a short repeating text.
fn mixed(parts: &[(u8, usize, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (what, len, seed) in parts {
        match what {
            0 => out.extend(noise(*seed, *len)),
            1 => out.resize(out.len() + len, 0),
            _ => out.extend(b"all work and no play ".iter().cycle().take(*len)),
        }
    }
    out
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((0u8..3, 0usize..300_000, any::<u64>()), 0..6)
        .prop_map(|parts| mixed(&parts))
}

fn lens(bytes: &[u8]) -> Vec<usize> {
    let mut out = Vec::new();
    for_each_chunk(bytes, |c| out.push(c.len()));
    out
}

fn chunk_ref(bytes: &[u8]) -> ChunkRef {
    ChunkRef {
        len: bytes.len() as u32,
        id: ChunkId::of(bytes),
    }
}

fn manifest(bytes: &[u8]) -> (Vec<Segment>, ContentId) {
    let mut builder = ManifestBuilder::new();
    let mut segments = Vec::new();
    for_each_chunk(bytes, |c| segments.extend(builder.push(chunk_ref(c))));
    let (last, id) = builder.finish();
    segments.extend(last);
    (segments, id)
}

/// Cuts as a reader does that gets `step` bytes at a time.
fn lens_when_read(bytes: &[u8], step: usize) -> Vec<usize> {
    let (mut out, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        match next_cut(&bytes[start..end], end == bytes.len()) {
            Some(len) => {
                out.push(len);
                start += len;
            }
            None if end == bytes.len() => return out,
            None => end = bytes.len().min(end + step),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn cuts_do_not_depend_on_buffers(bytes in bytes(), step in 1usize..200_000) {
        let whole = lens(&bytes);
        prop_assert_eq!(whole.iter().sum::<usize>(), bytes.len());
        prop_assert_eq!(lens_when_read(&bytes, step), whole.clone());
        if let Some((last, others)) = whole.split_last() {
            prop_assert!(others.iter().all(|l| (MIN_CHUNK..=MAX_CHUNK).contains(l)));
            prop_assert!((1..=MAX_CHUNK).contains(last));
        }
    }

    #[test]
    fn segments_are_as_promised_and_cut_again_alike(bytes in bytes()) {
        let (segments, id) = manifest(&bytes);
        prop_assert_eq!(content_id(&bytes), id);
        let mut at = 0;
        for (n, s) in segments.iter().enumerate() {
            let end = at + s.sref.len as usize;
            let own = &bytes[at..end];
            let last = n + 1 == segments.len();
            if s.sref.is_zeros() {
                prop_assert!(s.chunks.is_empty() && own.iter().all(|b| *b == 0));
                prop_assert_eq!(own.len() % zero_chunk_len(), 0);
                prop_assert!(n == 0 || !segments[n - 1].sref.is_zeros());
            } else {
                prop_assert_eq!(SegmentId::of(&s.chunks), s.sref.id);
                prop_assert_eq!(s.chunks.iter().map(|c| u64::from(c.len)).sum::<u64>(), s.sref.len);
                prop_assert!(s.chunks.len() <= SEGMENT_MAX_CHUNKS);
                prop_assert!(s.sref.len < SEGMENT_TARGET_MAX + MAX_CHUNK as u64);
                prop_assert_eq!(cut_segment(own, last), Some(s.chunks.clone()));
                let ends_by_rule = s.chunks.len() >= SEGMENT_MIN_CHUNKS
                    && s.chunks.last().unwrap().id.0[31] & 63 == 0
                    || s.chunks.len() == SEGMENT_MAX_CHUNKS
                    || s.sref.len >= SEGMENT_TARGET_MAX;
                prop_assert!(ends_by_rule || last || segments[n + 1].sref.is_zeros());
            }
            at = end;
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn a_segment_that_does_not_end_at_a_cut_is_refused(seed: u64, len in 1usize..400_000) {
        let bytes = noise(seed, len);
        let at_cut = *lens(&noise(seed, len + MAX_CHUNK))
            .iter()
            .scan(0, |sum, l| { *sum += l; Some(*sum) })
            .collect::<Vec<_>>()
            .iter()
            .find(|end| **end >= len)
            .unwrap() == len;
        prop_assert_eq!(cut_segment(&bytes, false).is_some(), at_cut);
        prop_assert!(cut_segment(&bytes, true).is_some());
    }

    #[test]
    fn zeros_are_the_same_read_or_counted(
        before in 0usize..100_000,
        chunks in 0usize..6,
        after in 0usize..100_000,
        seed: u64,
        split in 0usize..6,
    ) {
        let mut bytes = noise(seed, before);
        bytes.resize(before + chunks * zero_chunk_len(), 0);
        bytes.extend(noise(seed ^ 1, after));
        let (expected, id) = manifest(&bytes);

        // As a reader does that knows of the hole: it takes zero chunks out of it at once, from
        // the first chunk that starts in it.
        let mut builder = ManifestBuilder::new();
        let mut segments = Vec::new();
        let mut at = 0;
        let hole_end = before + chunks * zero_chunk_len();
        while at < bytes.len() {
            if at >= before && hole_end.saturating_sub(at) >= MAX_CHUNK {
                let count = ((hole_end - at - MAX_CHUNK) / zero_chunk_len() + 1).min(split + 1);
                segments.extend(builder.push_zeros(count as u64));
                segments.extend(builder.push_zeros(0));
                at += count * zero_chunk_len();
                continue;
            }
            let len = next_cut(&bytes[at..], true).unwrap();
            segments.extend(builder.push(chunk_ref(&bytes[at..at + len])));
            at += len;
        }
        let (last, counted) = builder.finish();
        segments.extend(last);
        prop_assert_eq!(counted, id);
        prop_assert_eq!(segments, expected);
    }
}

/// Protocol: cuts and ids of these bytes never change while the chunker's id is 1.
#[test]
fn golden() {
    let bytes = noise(1, 300_000);
    assert_eq!(lens(&bytes), GOLDEN_CUTS);
    assert_eq!(content_id(&bytes).to_string(), GOLDEN_ID);
    assert_eq!(content_id(b"").to_string(), GOLDEN_EMPTY);
    assert_eq!(content_id(b"LEFT").to_string(), GOLDEN_SHORT);
    assert_eq!(zero_chunk_len(), MAX_CHUNK);

    let long = mixed(&[(0, 9_000_000, 7), (1, 1_000_000, 0), (2, 2_000_001, 0)]);
    let (segments, id) = manifest(&long);
    let segments: Vec<(u64, usize)> = segments
        .iter()
        .map(|s| (s.sref.len, s.chunks.len()))
        .collect();
    assert_eq!(segments, GOLDEN_SEGMENTS);
    assert_eq!(id.to_string(), GOLDEN_LONG);
}

const GOLDEN_CUTS: &[usize] = &[
    9129, 12320, 6680, 8779, 8682, 10046, 11642, 8934, 11551, 20476, 17249, 7137, 11743, 7693,
    8515, 11992, 9654, 4687, 5895, 14293, 20491, 19946, 17264, 11936, 6519, 4559, 12188,
];
const GOLDEN_ID: &str = "6c56831bb581c74faa8c39b2c9632dc269637935f9da920f8ec409b9496e1c8b";
const GOLDEN_EMPTY: &str = "8dae24ac42e8aa5e4a6fadea153d81bdd2d08edc6dc6efaf0633c7fd5d6cdf89";
const GOLDEN_SHORT: &str = "c8f8d0c4063e4f4d8ebb3a825297377daf7cfe789385072ec1cb0ba6bbf42130";
const GOLDEN_SEGMENTS: &[(u64, usize)] = &[
    (2240528, 202),
    (263899, 24),
    (345373, 31),
    (1555477, 144),
    (1407314, 135),
    (123024, 9),
    (202486, 19),
    (2054751, 193),
    (872131, 72),
    (917504, 0),
    (2017514, 31),
];
const GOLDEN_LONG: &str = "0892501a677222ff8f5ce73f3196bf224a58442c64b866c9dbde9d5c9ced3b72";

/// All cuts of the library but its end of the buffer, each one byte later.
#[test]
fn cuts_are_those_of_fastcdc_one_byte_on() {
    use fastcdc::v2020::{FastCDC, Normalization};
    let bytes = noise(3, 4 << 20);
    let mut at = 0;
    for len in lens(&bytes) {
        let cdc = FastCDC::with_level(
            &bytes[at..],
            MIN_CHUNK,
            AVG_CHUNK,
            MAX_CHUNK,
            Normalization::Level1,
        );
        let (_, cut) = cdc.cut(0, bytes.len() - at);
        let most = MAX_CHUNK.min(bytes.len() - at);
        assert_eq!(len, if cut < most { cut + 1 } else { cut });
        at += len;
    }
}

/// The last byte of a chunk of odd length is judged as all others are: every prefix of noise is
/// held against a cut of the noise.
#[test]
fn every_cut_is_told_by_the_bytes_before_it() {
    let bytes = noise(11, 3 << 20);
    let mut at = 0;
    let mut odd = 0;
    for len in lens(&bytes) {
        let next = at + len;
        if next < bytes.len() {
            let chunk = &bytes[at..next];
            assert_eq!(cut_segment(chunk, false), Some(vec![chunk_ref(chunk)]));
            assert_eq!(cut_segment(&chunk[..len - 1], false), None);
            odd += len % 2;
        }
        at = next;
    }
    assert!(odd > 20);
}

#[test]
fn nothing_and_little() {
    assert_eq!(next_cut(&[], true), None);
    assert_eq!(next_cut(&[], false), None);
    assert_eq!(next_cut(&[1], false), None);
    assert_eq!(next_cut(&[1], true), Some(1));
    assert_eq!(next_cut(&vec![0; MAX_CHUNK - 1], false), None);
    assert_eq!(cut_segment(&[], true), None);
    assert_eq!(cut_segment(&[1], false), None);
    let (segments, id) = ManifestBuilder::new().finish();
    assert!(segments.is_empty());
    assert_eq!(id, content_id(b""));
}

#[test]
fn an_insertion_at_the_front_moves_little() {
    let old = noise(5, 4 << 20);
    let mut new = b"inserted".to_vec();
    new.extend_from_slice(&old);
    let ids = |bytes: &[u8]| -> HashSet<SegmentId> {
        manifest(bytes).0.iter().map(|s| s.sref.id).collect()
    };
    let (a, b) = (ids(&old), ids(&new));
    assert!(a.len() >= 2, "{}", a.len());
    assert!(b.difference(&a).count() <= 1, "of {}", b.len());
}

#[test]
fn a_tebibyte_of_zeros_costs_nothing() {
    let count = (1u64 << 40) / zero_chunk_len() as u64;
    let mut builder = ManifestBuilder::new();
    assert!(builder.push_zeros(count).is_empty());
    let (segments, id) = builder.finish();
    assert_eq!(
        segments,
        [Segment {
            sref: SegmentRef {
                len: 1 << 40,
                id: SegmentId::ZEROS,
            },
            chunks: Vec::new(),
        }]
    );
    let mut longer = ManifestBuilder::new();
    longer.push_zeros(count + 1);
    assert_ne!(longer.finish().1, id);
}

#[test]
fn chunks_have_the_size_they_should() {
    let lens = lens(&noise(9, 16 << 20));
    let average = (16 << 20) / lens.len();
    assert!(
        (AVG_CHUNK * 3 / 4..AVG_CHUNK * 3 / 2).contains(&average),
        "{average}"
    );
}
