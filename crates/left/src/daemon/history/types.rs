//! What is told of the past, as plain data. Paths are text relative to the share, times milliseconds
//! since 1970, sizes bytes.

use left_core::version::DeviceId;
use serde::{Deserialize, Serialize};

use crate::daemon::handle::Problem;
use crate::home::text;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// Nothing stood there before.
    Created,
    /// Other bytes, or another kind of thing.
    Changed,
    /// Nothing stands there any more.
    Deleted,
}

/// What stands, or stood, at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thing {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Grows with time; asking for what is before it gives the next page.
    pub id: u64,
    /// When it came into effect on this device.
    pub when: u64,
    /// Where.
    pub path: String,
    /// What.
    pub what: Happened,
    /// Of what.
    pub thing: Thing,
    /// Bytes of the new file; of a deletion, those of the file that went.
    pub size: u64,
    /// Who made the change.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// Its name; empty when it is not known any more.
    pub by: String,
    /// When it was made there, by that device's clock.
    pub edited: u64,
    /// The id of the version that it replaced, where that is kept here.
    pub kept: Option<String>,
}

/// A version that is kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Its number: `PATH@1` is the latest. Numbers move when another version is added.
    pub n: u32,
    /// Names it for as long as it is kept.
    pub id: String,
    /// Until when it was in place.
    pub until: u64,
    /// Bytes.
    pub size: u64,
    /// When it was last written to; may be before 1970.
    pub modified: i64,
    /// A file or a link.
    pub thing: Thing,
}

/// What is to be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bring {
    /// The latest kept version of one path.
    Latest,
    /// One version of a path, or a whole folder as of a time.
    At(super::when::At),
    /// All that was deleted since then and is still gone.
    DeletedSince(u64),
}

/// What was brought back. Lists are cut to [`MAX_LISTED`] entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
    /// Paths that are back.
    pub restored: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Paths that were so already.
    pub same: u64,
    /// The first of those that are back.
    pub paths: Vec<String>,
    /// How many could not be had.
    pub missing_count: u64,
    /// The first of those, and why.
    pub missing: Vec<Problem>,
    /// This device only receives: what is restored here reaches nobody.
    pub only_here: bool,
}

/// Entries that a list in a report has at most.
pub const MAX_LISTED: usize = 1000;

impl RestoreReport {
    pub(super) fn miss(&mut self, path: String, reason: String) {
        self.missing_count += 1;
        if self.missing.len() < MAX_LISTED {
            self.missing.push(Problem { path, reason });
        }
    }

    pub(super) fn back(&mut self, path: String, bytes: u64) {
        self.restored += 1;
        self.bytes += bytes;
        if self.paths.len() < MAX_LISTED {
            self.paths.push(path);
        }
    }
}

/// Two versions compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffReport {
    /// The path.
    pub path: String,
    /// Bytes of the older one.
    pub old_size: u64,
    /// Bytes of the newer one; `None` when nothing stands there.
    pub new_size: Option<u64>,
    /// They have the same bytes.
    pub same: bool,
    /// A unified diff; `None` where one of them is no text, or too large to compare.
    pub text: Option<String>,
}

/// A conflict copy and the file that it stands beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// The file.
    pub path: String,
    /// Its copy with the other edit.
    pub copy: String,
    /// Bytes of the file; `None` when there is none any more.
    pub size: Option<u64>,
    /// Bytes of the copy.
    pub copy_size: u64,
    /// When the file was last written to; may be before 1970.
    pub modified: Option<i64>,
    /// When the copy was last written to.
    pub copy_modified: i64,
    /// Whose edit the copy is: the name of the device, or the start of its id. Empty for bytes that a
    /// program wrote after its file had been replaced.
    pub copy_by: String,
    /// The copy is this device's own edit.
    pub copy_is_ours: bool,
}

/// Which edit stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The one made on this device.
    Ours,
    /// The other one.
    Theirs,
    /// What stands at the path.
    File,
    /// The conflict copy.
    Copy,
    /// Both: the copy becomes an ordinary file with a name of its own.
    Both,
    /// Both edits in one file, line by line.
    Merge,
}

/// A conflict that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The file.
    pub path: String,
    /// The conflict is over.
    pub done: bool,
    /// What was done, or why not, in words.
    pub told: String,
    /// A file that was written: the second one of `both`, or the merge with marks where it has to be
    /// decided by hand.
    pub written: Option<String>,
}
