//! Looking into a share: its folders as the index knows them, and the bytes of its files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use left_core::entry::{Kind, Node};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::reconcile::best;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::disk::Root;
use crate::home::{MARKER_DIR, UserError, clean, text};
use crate::store::IndexReader;

/// Entries of one page.
pub(super) const PAGE: usize = 500;
/// Entries that are looked at for the sizes of all folders of one page.
const MAX_COUNTED: usize = 50_000;

/// A part of a folder of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Folder {
    /// What stands in it, by name; at most 500.
    pub entries: Vec<FolderEntry>,
    /// There are more: ask again with the last entry's path as `after`.
    pub more: bool,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FolderEntry {
    /// Its name, for people.
    pub name: String,
    /// Its path in the share, for requests.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; of a folder, of all files in it.
    pub bytes: u64,
    /// Of a folder: files and links in it.
    pub files: u64,
    /// Of a folder: there is more in it than was counted.
    pub at_least: bool,
    /// Unix seconds of the last change; of a folder none.
    pub modified: Option<i64>,
    /// Where a link points.
    pub target: Option<String>,
    /// It is here; else other devices hold it, and `bytes` and `files` of a folder are in `away_bytes`
    /// and `away_files`.
    pub held: bool,
    /// Of a folder: bytes in it that other devices hold and this one does not.
    pub away_bytes: u64,
    /// Of a folder: files and links in it that other devices hold and this one does not.
    pub away_files: u64,
}

/// What can stand at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link.
    Link,
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct OpenFile {
    /// Its bytes.
    pub file: File,
    /// How many.
    pub bytes: u64,
}

/// What stands in the folder `path` of the share in `dir`, after `after`; paths relative to the
/// share, an empty one its root.
pub(super) fn list(dir: &Path, path: &Path, after: Option<&Path>) -> Result<Folder, UserError> {
    let what = format!("cannot look into {}", clean(&dir.join(path)));
    let failed = |e: IndexError| UserError::new(&what, e, "try again in a moment");
    let at = match path.as_os_str().is_empty() {
        true => None,
        false => Some(inner(&what, path)?),
    };
    let after = after.map(|a| inner(&what, a)).transpose()?;
    let reader = IndexReader::open(&dir.join(MARKER_DIR).join("index.db"))
        .map_err(|e| UserError::new(&what, e, "see `left status`"))?;
    if let Some(at) = &at {
        let found = reader.get(at).map_err(failed)?;
        let theirs = reader.theirs(at).map_err(failed)?;
        let away = best(&theirs).is_some_and(|e| e.node.kind() == Kind::Dir);
        if !away && !found.is_some_and(|r| matches!(r.entry.node, Node::Dir { .. })) {
            let todo = "look at the folder above it";
            return Err(UserError::new(what, "there is no such folder", todo));
        }
    }
    let here = reader
        .children_after(at.as_ref(), after.as_ref(), PAGE + 1)
        .map_err(failed)?;
    let away = reader
        .away_children(at.as_ref(), after.as_ref(), PAGE + 1)
        .map_err(failed)?;
    let mut rows: BTreeMap<RelPath, (Node, bool)> = BTreeMap::new();
    for need in away {
        if let Some(entry) = best(&need.theirs).filter(|e| e.node.is_live()) {
            rows.insert(need.path, (entry.node.clone(), false));
        }
    }
    for (path, record) in here {
        rows.insert(path, (record.entry.node, true));
    }
    let more = rows.len() > PAGE;
    let mut budget = MAX_COUNTED;
    let mut entries = Vec::with_capacity(rows.len());
    for (path, (node, held)) in rows.into_iter().take(PAGE) {
        let mut entry = describe(&path, &node, held);
        if entry.kind == EntryKind::Folder {
            count(&reader, &path, &mut entry, &mut budget).map_err(failed)?;
        }
        entries.push(entry);
    }
    Ok(Folder { entries, more })
}

/// Opens a file of the share in `dir`; no link is followed on the way.
pub(super) fn open(dir: &Path, path: &Path) -> Result<OpenFile, UserError> {
    let what = format!("cannot read {}", clean(&dir.join(path)));
    let at = inner(&what, path)?;
    let root = Root::open(dir).map_err(|e| UserError::new(&what, e, "see `left status`"))?;
    match root.open_file(&at) {
        Ok((file, stat)) => Ok(OpenFile {
            file,
            bytes: stat.size,
        }),
        Err(e) => Err(UserError::io("cannot read", &dir.join(path), &e)),
    }
}

fn inner(what: &str, path: &Path) -> Result<RelPath, UserError> {
    use std::os::unix::ffi::OsStrExt;
    let todo = "name it as it stands below the share's folder";
    RelPath::new(path.as_os_str().as_bytes()).map_err(|e| UserError::usage(what, e, todo))
}

fn describe(path: &RelPath, node: &Node, held: bool) -> FolderEntry {
    use std::os::unix::ffi::OsStrExt;
    let (kind, modified) = match node {
        Node::File { mtime, .. } => (EntryKind::File, Some(mtime.secs)),
        Node::Symlink { mtime, .. } => (EntryKind::Link, Some(mtime.secs)),
        Node::Dir { .. } | Node::Tombstone => (EntryKind::Folder, None),
    };
    let os = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes));
    FolderEntry {
        name: clean(os(path.name())),
        path: os(path.as_bytes()).to_path_buf(),
        kind,
        bytes: node.size(),
        files: 0,
        at_least: false,
        modified,
        target: match node {
            Node::Symlink { target, .. } => Some(clean(os(target))),
            _ => None,
        },
        held,
        away_bytes: 0,
        away_files: 0,
    }
}

/// Adds up what is below a folder, for as many entries as the budget has.
fn count(
    reader: &IndexReader,
    dir: &RelPath,
    entry: &mut FolderEntry,
    budget: &mut usize,
) -> Result<(), IndexError> {
    let is_file = |node: &Node| u64::from(!matches!(node, Node::Dir { .. } | Node::Tombstone));
    for away in [false, true] {
        let mut after: Option<RelPath> = None;
        loop {
            let limit = PAGE.min(*budget);
            if limit == 0 {
                entry.at_least = true;
                return Ok(());
            }
            let (mut bytes, mut files) = (0u64, 0);
            let mut add = |node: &Node| {
                bytes = bytes.saturating_add(node.size());
                files += is_file(node);
            };
            let (rows, last) = if away {
                let rows = reader.away_below(dir, after.as_ref(), limit)?;
                let all = rows.iter().filter_map(|need| best(&need.theirs));
                all.for_each(|e| add(&e.node));
                (rows.len(), rows.into_iter().next_back().map(|n| n.path))
            } else {
                let rows = reader.live_below(dir, after.as_ref(), limit)?;
                rows.iter().for_each(|(_, record)| add(&record.entry.node));
                (rows.len(), rows.into_iter().next_back().map(|(p, _)| p))
            };
            *budget -= rows;
            let (sum, count) = match away {
                true => (&mut entry.away_bytes, &mut entry.away_files),
                false => (&mut entry.bytes, &mut entry.files),
            };
            *sum = sum.saturating_add(bytes);
            *count += files;
            if rows < limit {
                break;
            }
            after = last;
        }
    }
    Ok(())
}
