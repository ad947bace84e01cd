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
    trees
        .iter()
        .for_each(|t| last_leaf(platform, t, &mut values));
    parents(platform, &mut trees, &mut values);
    roots(platform, &trees, &values, &mut ids);
    ids
}

/// The `n`th leaves of all trees share their counter, so they are hashed together.
fn full_leaves(platform: Platform, trees: &[Tree<'_>], values: &mut [[u8; CV]]) {
    let mut inputs: Vec<&[u8; LEAF]> = Vec::with_capacity(trees.len());
    let mut places = Vec::with_capacity(trees.len());
    let mut out = vec![0; trees.len() * CV];
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
        if inputs.is_empty() {
            return;
        }
        let out = &mut out[..inputs.len() * CV];
        let (first, last) = (CHUNK_START, CHUNK_END);
        let same = IncrementCounter::No;
        platform.hash_many(&inputs, &IV, n as u64, same, 0, first, last, out);
        for (place, value) in places.iter().zip(out.as_chunks::<CV>().0) {
            values[*place] = *value;
        }
    }
}

/// A tree's last leaf, where it is not full.
fn last_leaf(platform: Platform, tree: &Tree<'_>, values: &mut [[u8; CV]]) {
    let n = tree.width - 1;
    let leaf = &tree.bytes[n * LEAF..];
    if leaf.len() == LEAF {
        return;
    }
    let (mut cv, mut flags) = (IV, CHUNK_START);
    let mut blocks = leaf.chunks(BLOCK).peekable();
    while let Some(part) = blocks.next() {
        let mut block = [0; BLOCK];
        block[..part.len()].copy_from_slice(part);
        if blocks.peek().is_none() {
            flags |= CHUNK_END;
        }
        platform.compress_in_place(&mut cv, &block, part.len() as u8, n as u64, flags);
        flags = 0;
    }
    let value = &mut values[tree.at + n];
    for (bytes, word) in value.as_chunks_mut::<4>().0.iter_mut().zip(cv) {
        *bytes = word.to_le_bytes();
    }
}

/// Joins the values of each tree in pairs, level by level, until two are left; the odd one of a
/// level goes up as it is.
fn parents(platform: Platform, trees: &mut [Tree<'_>], values: &mut [[u8; CV]]) {
    let mut inputs: Vec<[u8; BLOCK]> = Vec::new();
    loop {
        inputs.clear();
        for tree in trees.iter().filter(|t| t.width > 2) {
            let (pairs, _) = values[tree.at..tree.at + tree.width].as_chunks::<2>();
            inputs.extend(pairs.iter().map(joined));
        }
        if inputs.is_empty() {
            return;
        }
        let out = hash_parents(platform, &inputs, PARENT);
        let mut out = out.as_chunks::<CV>().0.iter();
        for tree in trees.iter_mut().filter(|t| t.width > 2) {
            let (half, odd) = (tree.width / 2, tree.width % 2);
            let own = &mut values[tree.at..tree.at + tree.width];
            own.iter_mut()
                .zip(out.by_ref().take(half))
                .for_each(|(to, from)| *to = *from);
            if odd == 1 {
                own[half] = own[tree.width - 1];
            }
            tree.width = half + odd;
        }
    }
}

fn roots(platform: Platform, trees: &[Tree<'_>], values: &[[u8; CV]], ids: &mut [ChunkId]) {
    let inputs: Vec<[u8; BLOCK]> = trees
        .iter()
        .map(|t| joined(&[values[t.at], values[t.at + 1]]))
        .collect();
    let out = hash_parents(platform, &inputs, PARENT | ROOT);
    for (tree, value) in trees.iter().zip(out.as_chunks::<CV>().0) {
        ids[tree.nth] = ChunkId(*value);
    }
}

fn joined(pair: &[[u8; CV]; 2]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..CV].copy_from_slice(&pair[0]);
    block[CV..].copy_from_slice(&pair[1]);
    block
}

fn hash_parents(platform: Platform, inputs: &[[u8; BLOCK]], flags: u8) -> Vec<u8> {
    let inputs: Vec<&[u8; BLOCK]> = inputs.iter().collect();
    let mut out = vec![0; inputs.len() * CV];
    platform.hash_many(&inputs, &IV, 0, IncrementCounter::No, flags, 0, 0, &mut out);
    out
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
