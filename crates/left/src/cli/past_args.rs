//! The commands about the past, as typed.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

const VERSIONS: &str = "\
Versions:
  PATH@1                the latest that is kept, PATH@2 the one before (see `left log PATH`)
  PATH@10m              as it was ten minutes ago; 2h, 3d, 1w
  PATH@2026-11-24T10:00 as it was then, in this machine's time; also 2026-11-24, or 10:00
A file whose own name has such an ending goes first; `--at VERSION` takes the path as it is.";

#[derive(Debug, Subcommand)]
pub(super) enum RawPast {
    /// Show what changed, when, on which device, and which old versions are kept here.
    ///
    /// Kept on this device is what a peer's change replaced or deleted here. What was replaced by an
    /// edit on this device itself is kept by the other devices.
    #[command(after_help = "Example:\n  left log ~/photos/list.txt")]
    Log {
        /// A file or folder in a share, also one that is gone [default: all shares].
        path: Option<PathBuf>,
        /// Changes to show at most.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50,
            value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show what changed between a kept version and what is there now.
    #[command(after_help = VERSIONS)]
    Diff {
        /// PATH or PATH@VERSION [default: the latest kept version].
        path: PathBuf,
        /// The older version; then the path is taken as it is.
        #[arg(long, value_name = "VERSION")]
        at: Option<String>,
        /// Compare with this version instead of what is there now.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
    /// Bring back an old version of a file, a folder as it was, or what was deleted.
    ///
    /// What stands there goes to history first, so a restore can be taken back too. What is new since
    /// then stays. Without a version the latest that is kept is brought back.
    #[command(after_help = VERSIONS)]
    Restore {
        /// PATH or PATH@VERSION, also of something that is gone; a folder needs a time.
        path: PathBuf,
        /// The version; then the path is taken as it is.
        #[arg(long, value_name = "VERSION")]
        at: Option<String>,
        /// All that was deleted at and below the path since then (10m, 2h, or a time).
        #[arg(long, value_name = "TIME", conflicts_with = "at")]
        deleted_since: Option<String>,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show conflict copies with the files that they stand beside.
    Conflicts {
        /// A file or folder in a share [default: all shares].
        path: Option<PathBuf>,
    },
    /// End a conflict: say which of two edits stays. The other one goes to history.
    #[command(
        after_help = "Example:\n  left conflicts\n  left resolve ~/docs/plan.txt --keep merge"
    )]
    Resolve {
        /// The file or its conflict copy.
        path: PathBuf,
        /// What stays.
        #[arg(long, value_enum)]
        keep: RawKeep,
        /// With --keep merge: the version that both edits were made of [default: the oldest that is
        /// kept here and older than both].
        #[arg(long, value_name = "VERSION")]
        base: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RawKeep {
    /// The edit that was made on this device.
    Ours,
    /// The edit that was made on the other one.
    Theirs,
    /// What stands under the file's name.
    File,
    /// What stands under the copy's name.
    Copy,
    /// Both, as two ordinary files.
    Both,
    /// Both edits in one text file; where they meet, a file with marks is made for you to decide.
    Merge,
}
