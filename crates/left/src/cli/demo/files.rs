//! The demo's files: random content, md5s, trees.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use md5::{Digest, Md5};

use super::progress::Progress;
use crate::daemon::handle::UserError;

const BUFFER: usize = 1 << 20;

/// Makes a file of `size` random bytes.
pub(super) fn random(path: &Path, size: u64, progress: &Progress) -> Result<(), UserError> {
    let error = |e: io::Error| UserError::io("cannot write", path, &e);
    let file = File::create_new(path).map_err(error)?;
    let mut source = source()?;
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER))];
    let mut at = 0;
    while at < size {
        progress.check()?;
        let len = buffer
            .len()
            .min(usize::try_from(size - at).unwrap_or(BUFFER));
        source.fill(&mut buffer[..len]);
        file.write_all_at(&buffer[..len], at).map_err(error)?;
        at += len as u64;
    }
    Ok(())
}

/// Overwrites these places (offset, length) of a file with random bytes.
pub(super) fn overwrite(path: &Path, places: &[(u64, u64)]) -> Result<(), UserError> {
    let error = |e: io::Error| UserError::io("cannot overwrite", path, &e);
    let file = File::options().write(true).open(path).map_err(error)?;
    let mut source = source()?;
    let mut buffer = vec![0; BUFFER];
    for (offset, len) in places {
        let mut done = 0;
        while done < *len {
            let part = buffer
                .len()
                .min(usize::try_from(len - done).unwrap_or(BUFFER));
            source.fill(&mut buffer[..part]);
            file.write_all_at(&buffer[..part], offset + done)
                .map_err(error)?;
            done += part as u64;
        }
    }
    Ok(())
}

/// Random bytes as fast as BLAKE3 makes them.
fn source() -> Result<blake3::OutputReader, UserError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed)
        .map_err(|e| UserError::new("cannot make random bytes", e, "try again"))?;
    Ok(blake3::Hasher::new_keyed(&seed).finalize_xof())
}

/// The md5 of a file, or of the list of md5s and names in a folder; in words what is wrong.
pub(super) fn md5(path: &Path) -> String {
    match md5_of(path) {
        Ok(digest) => digest,
        Err(e) if e.kind() == io::ErrorKind::NotFound => "missing".to_string(),
        Err(e) => format!("unreadable: {e}"),
    }
}

fn md5_of(path: &Path) -> io::Result<String> {
    let mut hash = Md5::new();
    if path.is_dir() {
        let mut names = fs::read_dir(path)?
            .map(|e| e.map(|e| e.path()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let line = format!("{}  {:?}\n", md5_of(&name)?, name.file_name());
            hash.update(line.as_bytes());
        }
    } else {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let len = file.read(&mut buffer)?;
            if len == 0 {
                break;
            }
            hash.update(&buffer[..len]);
        }
    }
    Ok(HEXLOWER.encode(&hash.finalize()))
}

/// All paths of a share with size, mode and mtime, sorted.
pub(super) fn tree(root: &Path) -> Result<Vec<(PathBuf, [i64; 4])>, UserError> {
    let mut todo = vec![root.to_path_buf()];
    let mut found = Vec::new();
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| UserError::io("cannot read", &dir, &e))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if dir == root && entry.file_name() == crate::home::MARKER_DIR {
                continue;
            }
            // A path that goes away meanwhile makes the trees differ, which is right.
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            let mut facts = [
                meta.size() as i64,
                i64::from(meta.mode()),
                meta.mtime(),
                meta.mtime_nsec(),
            ];
            if meta.is_dir() {
                // A folder's size is the file system's affair, and its mtime says when something was
                // last put into it on that machine.
                facts = [0, facts[1], 0, 0];
                todo.push(path.clone());
            }
            found.push((
                path.strip_prefix(root).unwrap_or(&path).to_path_buf(),
                facts,
            ));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn content_is_random_and_overwriting_changes_only_its_places() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        let progress = Progress::new(true, Arc::default());
        random(&one, 3_000_000, &progress).unwrap();
        random(&two, 3_000_000, &progress).unwrap();
        assert_ne!(md5(&one), md5(&two));
        let before = fs::read(&one).unwrap();
        overwrite(&one, &[(10, 5), (2_000_000, 1_000_000)]).unwrap();
        let after = fs::read(&one).unwrap();
        assert_eq!(after.len(), before.len());
        assert_eq!(after[15..2_000_000], before[15..2_000_000]);
        assert_ne!(after[2_000_000..], before[2_000_000..]);
        assert_eq!(md5(&dir.path().join("3")), "missing");
        assert_eq!(md5(dir.path()).len(), 32);
    }

    #[test]
    fn md5_is_md5() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert_eq!(md5(&path), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn a_tree_has_everything_but_lefts_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".left")).unwrap();
        fs::create_dir_all(dir.path().join("a/.left")).unwrap();
        fs::write(dir.path().join("a/b"), "x").unwrap();
        let paths: Vec<_> = tree(dir.path()).unwrap().into_iter().map(|e| e.0).collect();
        assert_eq!(paths, ["a", "a/.left", "a/b"].map(PathBuf::from));
    }
}
