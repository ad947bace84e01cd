//! What a share knows of one path.

use crate::content::ContentId;
use crate::version::{DeviceId, Version};

/// Permission bits that are synchronised: rwx for all, setuid, setgid, sticky.
pub const MODE_MASK: u32 = 0o7777;
/// Longest symlink target in bytes.
pub const MAX_TARGET: usize = 4096;

/// A modification time, to the nanosecond, before or after 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mtime {
    /// Whole seconds since 1970-01-01 UTC, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What stands at a path. The mtime of a folder is not part of it: it follows from changes to
/// the folder's content on each machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    /// A folder.
    Dir {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Modification time.
        mtime: Mtime,
        /// Length in bytes.
        size: u64,
        /// Hash of the bytes.
        content: ContentId,
    },
    /// A symbolic link, never followed.
    Symlink {
        /// Modification time of the link itself.
        mtime: Mtime,
        /// The target, raw bytes as the link holds them.
        target: Vec<u8>,
    },
    /// The path was deleted.
    Tombstone,
}

/// The shape of a [`Node`] without its data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Deleted.
    Tombstone,
    /// Symbolic link.
    Symlink,
    /// Regular file.
    File,
    /// Folder.
    Dir,
}

impl Node {
    /// The shape.
    pub fn kind(&self) -> Kind {
        match self {
            Node::Dir { .. } => Kind::Dir,
            Node::File { .. } => Kind::File,
            Node::Symlink { .. } => Kind::Symlink,
            Node::Tombstone => Kind::Tombstone,
        }
    }

    /// Whether something stands there.
    pub fn is_live(&self) -> bool {
        !matches!(self, Node::Tombstone)
    }

    /// A file's length, 0 for all else.
    pub fn size(&self) -> u64 {
        match self {
            Node::File { size, .. } => *size,
            _ => 0,
        }
    }

    /// A file's content id.
    pub fn content(&self) -> Option<ContentId> {
        match self {
            Node::File { content, .. } => Some(*content),
            _ => None,
        }
    }

    /// Whether both hold the same bytes: files by content id, links by target, folders always.
    /// Modes and times may differ.
    pub fn same_bytes(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Dir { .. }, Node::Dir { .. }) | (Node::Tombstone, Node::Tombstone) => true,
            (Node::File { content: a, .. }, Node::File { content: b, .. }) => a == b,
            (Node::Symlink { target: a, .. }, Node::Symlink { target: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// The edit that made a node: who, and at which of its counters. Unlike the version, it stays
/// with the node when versions are joined; the winner of concurrent edits is chosen by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// The author's version counter (about wall clock milliseconds).
    pub counter: u64,
    /// The author.
    pub device: DeviceId,
}

/// What a device announces of one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What stands there.
    pub node: Node,
    /// What its author knew.
    pub version: Version,
    /// The edit that made the node.
    pub stamp: Stamp,
}

/// What `lstat` says that tells a changed file from an unchanged one without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct FileStat {
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Mtime,
    /// Change time (ctime).
    pub ctime: Mtime,
    /// Permission bits.
    pub mode: u32,
}

impl FileStat {
    /// Equal but for the ctime, which a rename changes on most file systems.
    pub fn same_but_ctime(&self, other: &FileStat) -> bool {
        self.ino == other.ino
            && self.size == other.size
            && self.mtime == other.mtime
            && self.mode == other.mode
    }
}

/// An entry of our own index: what we announce, and what our disk showed when we last looked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What we announce.
    pub entry: Entry,
    /// What `lstat` said of it; `None` for tombstones.
    pub stat: Option<FileStat>,
}
