//! Index against disk: what a look at a path means.

use crate::content::ContentId;
use crate::entry::{Entry, FileStat, Kind, MODE_MASK, Node, Record, Stamp};
use crate::path::RelPath;
use crate::probe::cover;
use crate::version::DeviceId;

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
    /// What stands there (`None`: nothing) is older than our record, which a power cut took back: no
    /// edit of anybody's.
    Torn(Option<FileStat>),
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

/// What a look means for the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// The same node; only what `lstat` says of it changed.
    Touch(FileStat),
    /// A local edit.
    Edit(Record),
}

/// Who edits, and when.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// This device.
    pub device: DeviceId,
    /// Wall clock in milliseconds since 1970.
    pub now_ms: u64,
    /// The largest counter of this device seen anywhere.
    pub floor: u64,
    /// The index was empty when this scan began. A file's age is then told by its mtime: a folder
    /// with old files that joins a share must not win over newer ones because it was looked at
    /// later. (The version's counter is the present all the same, so no version is issued twice.)
    pub first_scan: bool,
}

/// Compares a look at a path with our record of it.
pub fn observe(record: Option<&Record>, seen: &Seen, author: &Author) -> Change {
    let (node, stat) = match seen {
        Seen::Unreadable { .. } | Seen::Torn(_) => return Change::None,
        Seen::Absent => (Node::Tombstone, None),
        Seen::Dir(stat) => (
            Node::Dir {
                mode: stat.mode & MODE_MASK,
            },
            Some(*stat),
        ),
        Seen::File { stat, content } => (
            Node::File {
                mode: stat.mode & MODE_MASK,
                mtime: stat.mtime,
                size: stat.size,
                content: *content,
            },
            Some(*stat),
        ),
        Seen::Symlink { stat, target } => (
            Node::Symlink {
                mtime: stat.mtime,
                target: target.clone(),
            },
            Some(*stat),
        ),
    };
    match record {
        None if node == Node::Tombstone => {
            cover("diff: nothing known, nothing there");
            Change::None
        }
        Some(old) if old.entry.node == node => match stat {
            Some(stat)
                if node.kind() == Kind::Dir && old.stat.is_some_and(|o| o.ino == stat.ino) =>
            {
                cover("diff: same folder");
                Change::None
            }
            Some(stat) if old.stat != Some(stat) => {
                cover("diff: same node, new stat");
                Change::Touch(stat)
            }
            _ => {
                cover("diff: nothing changed");
                Change::None
            }
        },
        _ => Change::Edit(edit(record, node, stat, author)),
    }
}

/// A new record for a local edit of a path.
pub fn edit(old: Option<&Record>, node: Node, stat: Option<FileStat>, author: &Author) -> Record {
    let before = old.map(|r| r.entry.version.clone()).unwrap_or_default();
    let version = before.bump(author.device, author.now_ms, author.floor);
    let mut counter = version.counter(author.device);
    if author.first_scan && old.is_none() {
        cover("diff: first scan, as old as its mtime");
        counter = counter.min(age(&node)).max(1);
    }
    Record {
        entry: Entry {
            node,
            version,
            stamp: Stamp {
                counter,
                device: author.device,
            },
        },
        stat,
    }
}

/// The mtime in milliseconds, 1 for what has none.
pub(crate) fn age(node: &Node) -> u64 {
    match node {
        Node::File { mtime, .. } | Node::Symlink { mtime, .. } => {
            let ms = mtime.secs.saturating_mul(1000) + i64::from(mtime.nanos / 1_000_000);
            u64::try_from(ms).unwrap_or(1)
        }
        Node::Dir { .. } | Node::Tombstone => 1,
    }
}
