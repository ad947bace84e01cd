//! BLAKE3 of many chunks at once.
//!
//! BLAKE3 cuts its input into leaves of 1 KiB and hashes as many leaves side by side as the
//! processor has lanes (16 with AVX-512), then their parents. The 11 leaves of a usual chunk fill
//! those lanes badly. Here the leaves of many chunks are hashed side by side, then the parents of all
//! of them: the same ids at more than one and a half times the speed. What it takes of the crate is
//! hidden in its documentation, so its version is pinned and the tests compare every length.

use blake3::IncrementCounter;
use blake3::platform::Platform;

use super::ChunkId;

/// Bytes of a leaf, of a block and of a chaining value.
const LEAF: usize = 1024;
const BLOCK: usize = 64;
const CV: usize = 32;
/// BLAKE3's initial value and flags (section 2 of its paper).
const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
/// With fewer chunks nothing is gained.
const WORTH: usize = 8;

/// A tree of at least two leaves; shorter inputs are hashed by themselves.
struct Tree<'a> {
    bytes: &'a [u8],
    /// Which of the inputs it is.
    nth: usize,
    /// Where its chaining values begin.
    at: usize,
    /// How many there are on the level that is reached.
    width: usize,
}

/// The ids of chunks of these lengths that lie side by side in `bytes`.
///
/// # Panics
/// When `bytes` is shorter than the sum of `lens`.
pub(super) fn ids(bytes: &[u8], lens: impl Iterator<Item = usize>) -> Vec<ChunkId> {
    let mut rest = bytes;
    let pieces: Vec<&[u8]> = lens
        .map(|len| {
            let (piece, after) = rest.split_at(len);
            rest = after;
            piece
        })
        .collect();
    let platform = Platform::detect();
    if pieces.len() < WORTH || platform.simd_degree() < 4 {
        return pieces.iter().map(|p| ChunkId::of(p)).collect();
    }
    let mut ids = vec![ChunkId([0; CV]); pieces.len()];
    let mut trees = Vec::with_capacity(pieces.len());
    let mut at = 0;
    for (nth, piece) in pieces.iter().enumerate() {
        if piece.len() <= LEAF {
            ids[nth] = ChunkId::of(piece);
            continue;
        }
        let width = piece.len().div_ceil(LEAF);
        trees.push(Tree {
            bytes: piece,
            nth,
            at,
            width,
        });
        at += width;
    }
    let mut values = vec![[0; CV]; at];
    full_leaves(platform, &trees, &mut values);
    last_leaves(platform, &trees, &mut values);
    parents(platform, &mut trees, &mut values);
    roots(platform, &trees, &values, &mut ids);
    ids
}

/// The `n`th leaves of all trees share their counter, so they are hashed together.
fn full_leaves(platform: Platform, trees: &[Tree<'_>], values: &mut [[u8; CV]]) {
    let mut inputs: Vec<&[u8; LEAF]> = Vec::with_capacity(trees.len());
    let mut places = Vec::with_capacity(trees.len());
    let lanes = platform.simd_degree();
    let mut out = vec![0; (trees.len() + lanes) * CV];
    for n in 0.. {
        inputs.clear();
        places.clear();
        for tree in trees {
            let leaf = tree.bytes.get(n * LEAF..).and_then(|b| b.first_chunk());
            if let Some(leaf) = leaf {
                inputs.push(leaf);
                places.push(tree.at + n);
            }
        }
        let Some(any) = inputs.first().copied() else {
            return;
        };
        inputs.resize(filled(inputs.len(), lanes), any);
        let out = &mut out[..inputs.len() * CV];
        let (first, last) = (CHUNK_START, CHUNK_END);
        let same = IncrementCounter::No;
        platform.hash_many(&inputs, &IV, n as u64, same, 0, first, last, out);
        for (place, value) in places.iter().zip(out.as_chunks::<CV>().0) {
            values[*place] = *value;
        }
    }
}

/// How many leaves to hash where `count` are wanted. What is left over once all lanes were filled is hashed by
/// eight, four and one at a time, and those take nearly as long as more at once: of one thread with
/// AVX-512 16 leaves took 2.2 µs, 15 took 4.5, 8 took 1.3, 7 took 3.2, 4 took 1.2 and 3 took 2.0.
fn filled(count: usize, lanes: usize) -> usize {
    let over = count % lanes;
    match over {
        0..=2 => count,
        _ => count - over + over.next_power_of_two(),
    }
}

/// The last leaves of trees, where they are not full: a block of each after the other, as no block waits for one
/// of another tree, and the processor goes on with the next before it is done with one.
fn last_leaves(platform: Platform, trees: &[Tree<'_>], values: &mut [[u8; CV]]) {
    struct Last<'a> {
        leaf: &'a [u8],
        counter: u64,
        cv: [u32; 8],
        place: usize,
    }
    let last = |t: &Tree<'_>| t.width - 1;
    let cut_off = trees.iter().filter(|t| t.bytes.len() % LEAF != 0);
    let mut all: Vec<Last<'_>> = cut_off
        .map(|tree| Last {
            leaf: &tree.bytes[last(tree) * LEAF..],
            counter: last(tree) as u64,
            cv: IV,
            place: tree.at + last(tree),
        })
        .collect();
    for n in 0..LEAF / BLOCK {
        for one in &mut all {
            let Some(rest) = one.leaf.get(n * BLOCK..).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            let start = if n == 0 { CHUNK_START } else { 0 };
            match rest.split_first_chunk::<BLOCK>() {
                Some((block, after)) => {
                    let end = if after.is_empty() { CHUNK_END } else { 0 };
                    let len = BLOCK as u8;
                    platform.compress_in_place(&mut one.cv, block, len, one.counter, start | end);
                }
                None => {
                    let mut block = [0; BLOCK];
                    block[..rest.len()].copy_from_slice(rest);
                    let (len, flags) = (rest.len() as u8, start | CHUNK_END);
                    platform.compress_in_place(&mut one.cv, &block, len, one.counter, flags);
                }
            }
        }
    }
    for one in &all {
        let value = &mut values[one.place];
        for (bytes, word) in value.as_chunks_mut::<4>().0.iter_mut().zip(one.cv) {
            *bytes = word.to_le_bytes();
        }
    }
}

/// Joins the values of each tree in pairs, level by level, until two are left; the odd one of a
/// level goes up as it is.
fn parents(platform: Platform, trees: &mut [Tree<'_>], values: &mut [[u8; CV]]) {
    let mut out = vec![0; values.len() / 2 * CV];
    while trees.iter().any(|t| t.width > 2) {
        let wide = trees.iter().filter(|t| t.width > 2);
        let pairs = wide.flat_map(|t| pairs(&values[t.at..t.at + t.width]));
        let inputs: Vec<&[u8; BLOCK]> = pairs.collect();
        let out = &mut out[..inputs.len() * CV];
        hash_parents(platform, &inputs, PARENT, out);
        let mut out = out.as_chunks::<CV>().0;
        for tree in trees.iter_mut().filter(|t| t.width > 2) {
            let (half, odd) = (tree.width / 2, tree.width % 2);
            let own = &mut values[tree.at..tree.at + tree.width];
            let (joined, after) = out.split_at(half);
            own[..half].copy_from_slice(joined);
            out = after;
            if odd == 1 {
                own[half] = own[tree.width - 1];
            }
            tree.width = half + odd;
        }
    }
}

fn roots(platform: Platform, trees: &[Tree<'_>], values: &[[u8; CV]], ids: &mut [ChunkId]) {
    let two = trees.iter().flat_map(|t| pairs(&values[t.at..t.at + 2]));
    let inputs: Vec<&[u8; BLOCK]> = two.collect();
    let mut out = vec![0; inputs.len() * CV];
    hash_parents(platform, &inputs, PARENT | ROOT, &mut out);
    for (tree, value) in trees.iter().zip(out.as_chunks::<CV>().0) {
        ids[tree.nth] = ChunkId(*value);
    }
}

/// Two values each, as they lie side by side: a parent's block.
fn pairs(values: &[[u8; CV]]) -> &[[u8; BLOCK]] {
    values.as_flattened().as_chunks().0
}

fn hash_parents(platform: Platform, inputs: &[&[u8; BLOCK]], flags: u8, out: &mut [u8]) {
    platform.hash_many(inputs, &IV, 0, IncrementCounter::No, flags, 0, 0, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut xof = blake3::Hasher::new().finalize_xof();
        let mut bytes = vec![0; len];
        xof.fill(&mut bytes);
        bytes
    }

    fn check(lens: &[usize]) {
        let bytes = noise(lens.iter().sum());
        let mut rest = &bytes[..];
        let each: Vec<_> = lens
            .iter()
            .map(|len| {
                let (piece, after) = rest.split_at(*len);
                rest = after;
                ChunkId::of(piece)
            })
            .collect();
        assert_eq!(ids(&bytes, lens.iter().copied()), each, "{lens:?}");
    }

    #[test]
    fn every_length_gives_the_same_id_as_alone() {
        // Lengths around every number of leaves of a chunk, and of blocks of a leaf.
        let leaves = (0..=66).flat_map(|n| [n * LEAF, n * LEAF + 1, n * LEAF + LEAF - 1]);
        check(&leaves.collect::<Vec<_>>());
        let blocks = (0..=16).flat_map(|n| [5 * LEAF + n * BLOCK, 5 * LEAF + n * BLOCK + 63]);
        check(&blocks.collect::<Vec<_>>());
    }

    #[test]
    fn any_number_of_chunks() {
        for count in 0..40 {
            let lens: Vec<_> = (0..count).map(|i| (i * 7919) % 20_000 + 1).collect();
            check(&lens);
        }
    }
}
