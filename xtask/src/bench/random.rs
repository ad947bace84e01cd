//! Seeded content: the same seed makes the same bytes on every machine.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

/// SplitMix64 (Steele, Lea and Flood, 2014): one addition and three mixes a word, which is
/// faster than a disk, and incompressible.
pub struct Random(u64);

impl Random {
    /// A generator whose whole sequence is fixed by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0. The bias of the remainder is far below
    /// anything a benchmark could see.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Writes `len` bytes to `file` at its position.
    pub fn write(&mut self, file: &mut File, len: u64) -> std::io::Result<()> {
        let mut left = len;
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(1 << 20)];
        while left > 0 {
            let part = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.fill(&mut buffer[..part]);
            file.write_all(&buffer[..part])?;
            left -= part as u64;
        }
        Ok(())
    }
}

/// Makes the file `path` of `len` random bytes.
pub fn file(path: &Path, len: u64, seed: u64) -> Result<()> {
    File::create_new(path)
        .and_then(|mut file| Random::new(seed).write(&mut file, len))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Makes the folder `path` with `files` files of `len` bytes, a thousand in each of its folders. File
/// `n` has the seed `seed + n`.
pub fn tree(path: &Path, files: u64, len: u64, seed: u64) -> Result<()> {
    for number in 0..files {
        let folder = path.join(format!("folder-{:04}", number / 1000));
        if number % 1000 == 0 {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        file(
            &folder.join(format!("file-{:04}", number % 1000)),
            len,
            seed + number,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.word(), 6_457_827_717_110_365_317);
        assert_eq!(random.word(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_short_tail_is_filled_too() {
        let (long, short) = (Random::new(3).bytes(16), Random::new(3).bytes(13));
        assert_eq!(long[..13], short[..]);
    }
}
