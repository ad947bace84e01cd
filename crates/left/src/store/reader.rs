//! [`IndexReader`]: reading a share's index beside its writer.

use std::path::{Path, PathBuf};

use left_core::content::ContentId;
use left_core::entry::{Entry, Mtime, Record};
use left_core::index::{IndexError, Need, Totals};
use left_core::path::RelPath;
use left_core::version::DeviceId;

use super::StoreError;
use super::columns::below;
use super::index_db::lift;
use super::open::open_reader;
use super::rows::Rows;

/// Reads an index from another thread than the one that writes it, neither waiting for the other.
/// Each call sees the last commit made before it, whole.
pub struct IndexReader {
    path: PathBuf,
    rows: Rows,
}

impl IndexReader {
    pub(super) fn new(path: &Path, rows: Rows) -> Self {
        Self {
            path: path.to_owned(),
            rows,
        }
    }

    /// A reader of the index in `path` that another part of this process has open.
    ///
    /// # Errors
    /// When the file can not be opened.
    pub fn open(path: &Path) -> Result<IndexReader, StoreError> {
        Ok(Self::new(path, open_reader(path)?))
    }

    /// Our record of a path, live or tombstone.
    ///
    /// # Errors
    /// When the file is damaged or can not be read; so with all methods here.
    pub fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        let found = lift(&self.path, self.rows.get(&path.key()))?;
        Ok(found.map(|(_, record)| record))
    }

    /// All live records directly in `dir` (`None` for the root), in order. Reads no subtree; needs
    /// memory for all of them, see [`children_after`](Self::children_after) for very large folders.
    pub fn children(&self, dir: Option<&RelPath>) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.children_after(dir, None, usize::MAX)
    }

    /// At most `limit` live records directly in `dir` that follow the child `after`, in order.
    pub fn children_after(
        &self,
        dir: Option<&RelPath>,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        lift(&self.path, self.rows.children(dir, after, limit))
    }

    /// At most `limit` live records of the whole share that follow `after`, in order.
    pub fn live_in_order(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        lift(&self.path, self.rows.live_in_order(after, limit))
    }

    /// At most `limit` live records strictly below `dir` that follow `after`, in order.
    pub fn live_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        lift(&self.path, self.rows.live_below(dir, after, limit))
    }

    /// What peers announced of a path and is not here.
    pub fn theirs(&self, path: &RelPath) -> Result<Vec<(DeviceId, Entry)>, IndexError> {
        lift(&self.path, self.rows.theirs(&path.key(), true))
    }

    /// At most `limit` paths directly in `dir` that are away and follow the child `after`, in order.
    pub fn away_children(
        &self,
        dir: Option<&RelPath>,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, IndexError> {
        lift(&self.path, self.rows.away_children(dir, after, limit))
    }

    /// At most `limit` paths strictly below `dir` that are away and follow `after`, in order.
    pub fn away_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, IndexError> {
        let (from, to) = below(&dir.key());
        let from = after.map(RelPath::key).unwrap_or_default().max(from);
        lift(&self.path, self.rows.away(&from, &to, limit))
    }

    /// Live files with this content, at most `limit`.
    pub fn by_content(
        &self,
        content: &ContentId,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        lift(&self.path, self.rows.by_content(content, limit))
    }

    /// Live files that had this inode, size and mtime when last seen.
    pub fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        lift(&self.path, self.rows.by_inode(ino, size, mtime))
    }

    /// For each of these contents what [`by_content`](Self::by_content) gives, all as of one moment. Costs
    /// much less than asking one by one.
    pub fn by_contents(
        &self,
        contents: &[ContentId],
        limit: usize,
    ) -> Result<Vec<Vec<(RelPath, Record)>>, IndexError> {
        lift(&self.path, self.rows.hold())?;
        let found = contents.iter().map(|c| self.by_content(c, limit)).collect();
        lift(&self.path, self.rows.release())?;
        found
    }

    /// Counts, as of the last commit.
    pub fn totals(&self) -> Result<Totals, IndexError> {
        Ok(lift(&self.path, self.rows.state())?.totals)
    }
}
