//! Test data: random, and the same in every run.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: usize = 1 << 20;

/// `len` random bytes of this seed, from `offset` of its endless stream.
pub fn bytes(seed: &str, offset: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut reader = blake3::Hasher::new().update(seed.as_bytes()).finalize_xof();
    reader.set_position(offset);
    reader.fill(&mut out);
    out
}

/// Writes a small file and the folders above it.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Makes a file of `size` random bytes.
pub fn fill(path: &Path, seed: &str, size: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    let mut at = 0;
    while at < size {
        let len = PIECE.min((size - at) as usize);
        file.write_all(&bytes(seed, at, len)).unwrap();
        at += len as u64;
    }
}

/// Overwrites places of a file with other random bytes.
pub fn overwrite(path: &Path, seed: &str, places: impl IntoIterator<Item = (u64, u64)>) {
    let file = File::options().write(true).open(path).unwrap();
    for (at, len) in places {
        let mut done = 0;
        while done < len {
            let piece = PIECE.min((len - done) as usize);
            file.write_all_at(&bytes(seed, at + done, piece), at + done)
                .unwrap();
            done += piece as u64;
        }
    }
}
