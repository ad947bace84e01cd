//! Index against disk: what a look at a path means.

use crate::content::ContentId;
use crate::entry::{FileStat, Record};
use crate::path::RelPath;

/// What a look at one path showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Where.
    pub path: RelPath,
    /// What.
    pub seen: Seen,
}

/// See [`Observation`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing stands there.
    Absent,
    /// A folder.
    Dir(FileStat),
    /// A file, read while `stat` held, or known to be unchanged by its inode, size and times.
    File {
        /// `lstat` before and after reading, equal.
        stat: FileStat,
        /// Hash of its bytes.
        content: ContentId,
    },
    /// A symbolic link.
    Symlink {
        /// `lstat` of the link.
        stat: FileStat,
        /// Where it points.
        target: Vec<u8>,
    },
    /// Something there can not be synchronised or not be read now: the share's entry stays as
    /// it is, nothing is deleted elsewhere, and the reason is shown.
    Unreadable {
        /// Why, and what to do.
        reason: String,
    },
}

/// Whether a file must be read, judged by `lstat` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Nothing changed.
    Same,
    /// Must be read.
    Read,
}

/// Judges a regular file on disk by our record of its path.
pub fn look_at_file(record: Option<&Record>, stat: &FileStat) -> Look {
    let Some(record) = record else {
        return Look::Read;
    };
    match record.stat {
        Some(old) if record.entry.node.content().is_some() && old == *stat => Look::Same,
        _ => Look::Read,
    }
}
