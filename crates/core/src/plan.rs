//! The operations that turn our tree into what was decided, and what may come of each.
//!
//! Every operation carries the state it expects and is done by swapping and looking at what came
//! out, so that a user's edit in between is never lost (DESIGN promise 4).

use crate::content::ContentId;
use crate::entry::{FileStat, Kind, Node};
use crate::path::RelPath;
use crate::version::DeviceId;

/// Names one requested operation or fetch within one run of the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// The name of a whole, verified file in the stage.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StageName(pub String);

/// What an operation expects to find at its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// A thing of this kind. For files, inode, size, mtime and mode must be as given; for links
    /// inode and mtime; for folders only the kind counts.
    Present(Kind, FileStat),
}

/// One change of the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Put a file (from the stage), link or folder at `path`, in place of what is expected.
    Place {
        /// Where.
        path: RelPath,
        /// What: never a tombstone.
        node: Node,
        /// The file's bytes; `Some` exactly for files.
        staged: Option<StageName>,
        /// What stands there now. A folder is replaced only when it is empty.
        expect: Expect,
        /// Where the bytes that stand there now go: this conflict copy, else to history.
        loser: Option<RelPath>,
    },
    /// The bytes are right; set mode and mtime.
    SetMeta {
        /// Where.
        path: RelPath,
        /// Mode and mtime to set; same kind and bytes as what stands there.
        node: Node,
        /// What stands there now.
        expect: Expect,
    },
    /// Move what stands at `path` into history; a folder only when it is empty.
    Remove {
        /// Where.
        path: RelPath,
        /// What stands there now.
        expect: Expect,
    },
    /// As [`Op::Remove`], of what others hold: it need not be kept.
    Drop {
        /// Where.
        path: RelPath,
        /// What stands there now.
        expect: Expect,
    },
    /// Rename a file within the share to a place where nothing stands, then set mode and mtime.
    Move {
        /// From where.
        from: RelPath,
        /// What stands there now.
        expect: Expect,
        /// To where; nothing stands there.
        to: RelPath,
        /// Mode and mtime to set; the bytes are those at `from`.
        node: Node,
    },
}

impl Op {
    /// The path whose entry the operation makes true.
    pub fn path(&self) -> &RelPath {
        match self {
            Op::Place { path, .. }
            | Op::SetMeta { path, .. }
            | Op::Remove { path, .. }
            | Op::Drop { path, .. } => path,
            Op::Move { to, .. } => to,
        }
    }
}

/// What the disk shows after an operation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpDone {
    /// `lstat` of the path now; `None` after a removal.
    pub stat: Option<FileStat>,
    /// `lstat` of the conflict copy, where one was made. The name may differ from the one asked
    /// for when that was taken.
    pub loser: Option<(RelPath, FileStat)>,
}

/// Why an operation was not done. In every case the user's bytes are where they were.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpError {
    /// The disk shows something else than expected: look again, then decide again.
    #[error("something else stands there now")]
    Unexpected,
    /// The folder holds more than the share knows of.
    #[error("the folder is not empty")]
    NotEmpty,
    /// The parent folder is missing or no folder.
    #[error("the folder it belongs in is not there")]
    NoParent,
    /// The staged file is gone; fetch again.
    #[error("the staged file is gone")]
    NotStaged,
    /// No room, or no quota.
    #[error("no room on the disk")]
    Full,
    /// Anything else, in words.
    #[error("{0}")]
    Io(String),
}

/// Content to be brought into the stage, verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchItem {
    /// Names the item in the answer.
    pub id: OpId,
    /// The path it is for (for the eyes of people, and for the order).
    pub path: RelPath,
    /// What bytes.
    pub content: ContentId,
    /// How many.
    pub size: u64,
    /// Files of this share that should hold exactly this content: copied (and verified) first.
    pub copies: Vec<RelPath>,
    /// A file of this share that probably holds much of it: an older version.
    pub base: Option<(RelPath, ContentId)>,
    /// Peers that announced it.
    pub peers: Vec<DeviceId>,
}

/// Why content could not be staged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    /// No peer that announced it has it (any more), or none is connected.
    #[error("no connected peer has it now")]
    Gone,
    /// What came was not what was announced.
    #[error("what {0:?} sent does not match what it announced")]
    Corrupt(DeviceId),
    /// No room in the stage.
    #[error("no room on the disk")]
    Full,
    /// Cancelled by the engine.
    #[error("cancelled")]
    Cancelled,
    /// Anything else, in words.
    #[error("{0}")]
    Io(String),
}
