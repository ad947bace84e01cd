//! Cutting with the older version's list gives what cutting without it gives, at less work.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod support;

use left_core::chunker::{MAX_CHUNK, ManifestBuilder, chunk_refs, for_each_chunk};
use left_core::content::{ChunkId, ChunkRef, Segment};
use left_core::foresight::Foresight;
use proptest::collection::vec;
use proptest::prelude::*;
use support::noise;

fn plain(bytes: &[u8]) -> Vec<ChunkRef> {
    let mut lens = Vec::new();
    for_each_chunk(bytes, |c| lens.push(c.len()));
    chunk_refs(bytes, &lens)
}

fn segments(chunks: &[ChunkRef]) -> Vec<Segment> {
    let mut builder = ManifestBuilder::new();
    let mut out: Vec<Segment> = chunks.iter().flat_map(|c| builder.push(*c)).collect();
    out.extend(builder.finish().0);
    out
}

/// What came out, and how many bytes were foreseen and hashed.
fn cut(old: Vec<Segment>, bytes: &[u8], piece: usize) -> (Vec<ChunkRef>, usize, usize) {
    let mut foresight = Foresight::new(old.into_iter());
    let (mut out, mut at, mut foreseen, mut hashed) = (Vec::new(), 0, 0, 0);
    while at < bytes.len() {
        let end = bytes.len().min(at + piece + MAX_CHUNK);
        let cut = foresight.cut(at as u64, &bytes[at..end], end == bytes.len());
        assert!(cut.len > 0, "no cut at {at}");
        at += cut.len;
        foreseen += cut.foreseen;
        hashed += cut.hashed;
        out.extend(cut.chunks);
    }
    (out, foreseen, hashed)
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, usize, u64),
    Delete(usize, usize),
    Overwrite(usize, usize, u64),
    Zero(usize, usize),
    Repeat(usize, usize),
    Truncate(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let (at, len) = (0usize..1_000_000, 0usize..200_000);
    let both = (at, len);
    prop_oneof![
        (both.clone(), any::<u64>()).prop_map(|((a, l), s)| Edit::Insert(a, l, s)),
        both.clone().prop_map(|(a, l)| Edit::Delete(a, l)),
        (both.clone(), any::<u64>()).prop_map(|((a, l), s)| Edit::Overwrite(a, l, s)),
        both.clone().prop_map(|(a, l)| Edit::Zero(a, l)),
        both.prop_map(|(a, l)| Edit::Repeat(a, l)),
        (0usize..1_000_000).prop_map(Edit::Truncate),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let len = bytes.len();
    let range = |at: usize, n: usize| at.min(len)..(at + n).min(len);
    match *edit {
        Edit::Insert(at, n, seed) => {
            bytes.splice(range(at, 0), noise(seed, n));
        }
        Edit::Delete(at, n) => {
            bytes.drain(range(at, n));
        }
        Edit::Overwrite(at, n, seed) => {
            let range = range(at, n);
            let new = noise(seed, range.len());
            bytes[range].copy_from_slice(&new);
        }
        Edit::Zero(at, n) => bytes[range(at, n)].fill(0),
        Edit::Repeat(at, n) => {
            let copy = bytes[range(at, n)].to_vec();
            bytes.extend(copy);
        }
        Edit::Truncate(at) => bytes.truncate(at),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_else_comes_out(
        seed in any::<u64>(),
        len in 0usize..1_000_000,
        edits in vec(edit(), 0..6),
        piece in prop_oneof![Just(0usize), 1usize..300_000],
        zeros in any::<bool>(),
    ) {
        let mut bytes = noise(seed, len);
        if zeros {
            bytes.splice(len / 2..len / 2, vec![0; 300_000]);
        }
        let old = segments(&plain(&bytes));
        for edit in &edits {
            apply(&mut bytes, edit);
        }
        let (out, ..) = cut(old, &bytes, piece);
        prop_assert_eq!(out, plain(&bytes));
    }

    /// Lists that end early, lack some, or are of something else.
    #[test]
    fn a_bad_list_does_no_harm(
        seed in any::<u64>(),
        len in 0usize..600_000,
        lacks in vec(any::<bool>(), 16),
        wrong in vec((any::<prop::sample::Index>(), 0u32..100_000), 0..5),
    ) {
        let bytes = noise(seed, len);
        let mut chunks = plain(&bytes);
        for (at, len) in &wrong {
            if !chunks.is_empty() {
                let at = at.index(chunks.len());
                chunks[at] = ChunkRef { len: *len, id: ChunkId([7; 32]) };
            }
        }
        let old = segments(&chunks);
        let some = old.into_iter().zip(lacks).filter(|(_, lacks)| !lacks).map(|(s, _)| s);
        let (out, ..) = cut(some.collect(), &bytes, 200_000);
        prop_assert_eq!(out, plain(&bytes));
    }
}

const PIECE: usize = 1 << 20;

/// The parts of the whole that were foreseen and hashed, in percent.
fn shares(old: &[u8], new: &[u8]) -> (usize, usize) {
    let (out, foreseen, hashed) = cut(segments(&plain(old)), new, PIECE);
    assert!(out == plain(new));
    (foreseen * 100 / new.len(), hashed * 100 / new.len())
}

#[test]
fn what_did_not_change_is_not_searched_for_cuts() {
    let old = noise(1, 24 << 20);
    assert_eq!(shares(&old, &old), (99, 100));

    let mut new = old.clone();
    new[12_000_000..12_000_009].fill(7);
    assert!(shares(&old, &new) >= (99, 100));

    let mut new = noise(2, 1 << 20);
    new.extend(&old);
    let (foreseen, hashed) = shares(&old, &new);
    assert!(foreseen >= 87 && hashed <= 110, "{foreseen} {hashed}");

    let mut new = old.clone();
    new.extend(noise(3, 1 << 20));
    let (foreseen, hashed) = shares(&old, &new);
    assert!(foreseen >= 95 && hashed <= 101, "{foreseen} {hashed}");

    let mut new = old.clone();
    new.drain(1 << 20..5 << 20);
    let (foreseen, hashed) = shares(&old, &new);
    assert!(foreseen >= 85 && hashed <= 110, "{foreseen} {hashed}");

    // A tenth in one run, and in scattered pieces.
    let mut new = old.clone();
    new[8 << 20..10 << 20].copy_from_slice(&noise(4, 2 << 20));
    let (foreseen, hashed) = shares(&old, &new);
    assert!(foreseen >= 80 && hashed <= 110, "{foreseen} {hashed}");
    let mut new = old.clone();
    for at in (0..new.len()).step_by(640 << 10) {
        new[at..at + (64 << 10)].copy_from_slice(&noise(at as u64, 64 << 10));
    }
    let (foreseen, hashed) = shares(&old, &new);
    assert!(foreseen >= 80 && hashed <= 120, "{foreseen} {hashed}");

    // Something else altogether costs one piece hashed in vain.
    let (foreseen, hashed) = shares(&old, &noise(5, 24 << 20));
    assert!(foreseen == 0 && hashed <= 105, "{foreseen} {hashed}");
}

/// Lists of the shortest chunks there can be, which nobody cuts, take no more room.
#[test]
fn a_list_of_crumbs_is_not_kept() {
    let crumb = ChunkRef {
        len: 1,
        id: ChunkId([1; 32]),
    };
    let crumbs = segments(&vec![crumb; 2_000_000]);
    let bytes = noise(1, 4 << 20);
    let (out, ..) = cut(crumbs, &bytes, PIECE);
    assert!(out == plain(&bytes));
}
