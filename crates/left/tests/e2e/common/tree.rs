//! Folders compared byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What stands at a path. Folders' times are not synchronised.
#[derive(PartialEq, Eq, Debug, Clone)]
pub enum Node {
    Dir {
        mode: u32,
    },
    File {
        mode: u32,
        mtime: (i64, i64),
        size: u64,
        hash: blake3::Hash,
    },
    Link {
        mtime: (i64, i64),
        target: Vec<u8>,
    },
    /// A pipe, a socket or a device: not synchronised.
    Special,
}

/// A folder's whole tree, by path; `.left` is not in it.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads the tree below `root`.
pub fn snapshot(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            if name == b".left" {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let mtime = (meta.mtime(), meta.mtime_nsec());
            let mode = meta.mode() & 0o7777;
            let node = if meta.is_dir() {
                todo.push(path.clone());
                Node::Dir { mode }
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap().into_os_string().into_vec();
                Node::Link { mtime, target }
            } else if meta.file_type().is_file() {
                Node::File {
                    mode,
                    mtime,
                    size: meta.len(),
                    hash: hash(&path),
                }
            } else {
                assert!(!meta.file_type().is_dir() || meta.file_type().is_fifo());
                Node::Special
            };
            tree.insert(name.to_vec(), node);
        }
    }
    tree
}

fn hash(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    hasher.finalize()
}

/// Special files aside, both folders hold the same.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    if let Err(why) = compare(a, b) {
        panic!("{why}");
    }
}

/// A folder holds what was seen before.
#[track_caller]
pub fn assert_tree(wanted: &Tree, dir: &Path) {
    if let Err(why) = differences(wanted, &snapshot(dir), dir) {
        panic!("{why}");
    }
}

/// Special files aside, in what two folders differ.
pub fn compare(a: &Path, b: &Path) -> Result<(), String> {
    differences(&comparable(a), &comparable(b), b)
}

fn differences(wanted: &Tree, found: &Tree, dir: &Path) -> Result<(), String> {
    let mut paths: Vec<_> = wanted.keys().chain(found.keys()).collect();
    paths.sort();
    paths.dedup();
    let differing: Vec<String> = paths
        .into_iter()
        .filter(|p| wanted.get(*p) != found.get(*p))
        .map(|p| {
            let name = p.escape_ascii();
            format!("{name}: {:?} against {:?}", wanted.get(p), found.get(p))
        })
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} differs in {} paths:\n{}",
        dir.display(),
        differing.len(),
        differing[..differing.len().min(20)].join("\n")
    ))
}

fn comparable(root: &Path) -> Tree {
    let mut tree = snapshot(root);
    tree.retain(|_, node| *node != Node::Special);
    tree
}
