//! The rows of the table: what is there before, what changes, how to see that it has arrived.
//! A further row of a known kind is one line in [`ROWS`].

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::random::{self, Random};
use super::tree::Goal;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The file or folder that a row works on.
const SUBJECT: &str = "subject";
/// The new name of the renamed folder.
const RENAMED: &str = "renamed";

/// One kind of work.
pub struct Row {
    /// Name on the command line.
    pub name: &'static str,
    /// Name in the report.
    pub title: &'static str,
    /// Whether it is measured when no rows are named.
    pub usual: bool,
    work: Work,
}

/// The kinds of work.
enum Work {
    /// A new file is moved in.
    File { len: u64 },
    /// A folder of `folders` × `files` new files is moved in.
    Files { folders: u64, files: u64, len: u64 },
    /// `part` bytes of a file of `len` are overwritten in place, in `pieces` pieces.
    Edit { len: u64, part: u64, pieces: u64 },
    /// `part` bytes are put before a file of `len`; the whole is renamed over the old.
    Insert { len: u64, part: u64 },
    /// `part` bytes are appended to a file of `len`.
    Append { len: u64, part: u64 },
    /// A folder of `files` files of `len` gets another name.
    Rename { files: u64, len: u64 },
    /// A small file is written, `times` times one after the other.
    Latency { len: usize, times: usize },
}

/// All rows.
pub const ROWS: &[Row] = &[
    row("10m", "one file, 10 MB", Work::File { len: 10_000_000 }),
    row("512m", "one file, 512 MiB", Work::File { len: 512 * MIB }),
    row(
        "small",
        "10,000 files of 4 KiB",
        Work::Files {
            folders: 100,
            files: 100,
            len: 4 * KIB,
        },
    ),
    row(
        "edit-run",
        "512 MiB, 10 % overwritten in one run",
        Work::Edit {
            len: 512 * MIB,
            part: 512 * MIB / 10,
            pieces: 1,
        },
    ),
    row(
        "edit-scatter",
        "512 MiB, 10 % overwritten in scattered 64 KiB pieces",
        Work::Edit {
            len: 512 * MIB,
            part: 512 * MIB / 10,
            pieces: 512 * MIB / 10 / (64 * KIB),
        },
    ),
    row(
        "insert",
        "1 MiB inserted at the front of 512 MiB",
        Work::Insert {
            len: 512 * MIB,
            part: MIB,
        },
    ),
    row(
        "append",
        "1 MiB appended to 512 MiB",
        Work::Append {
            len: 512 * MIB,
            part: MIB,
        },
    ),
    row(
        "rename",
        "folder of 64 × 4 MiB renamed",
        Work::Rename {
            files: 64,
            len: 4 * MIB,
        },
    ),
    row(
        "latency",
        "1 KiB file written → on the peer",
        Work::Latency {
            len: 1024,
            times: 20,
        },
    ),
    on_request("2g", "one file, 2 GiB", Work::File { len: 2048 * MIB }),
    on_request(
        "100k",
        "100,000 files of 100 bytes",
        Work::Files {
            folders: 100,
            files: 1000,
            len: 100,
        },
    ),
];

const fn row(name: &'static str, title: &'static str, work: Work) -> Row {
    Row {
        name,
        title,
        usual: true,
        work,
    }
}

const fn on_request(name: &'static str, title: &'static str, work: Work) -> Row {
    Row {
        name,
        title,
        usual: false,
        work,
    }
}

impl Row {
    /// How often the change is made within one run; more than once where the time of each
    /// single change is what counts.
    pub fn times(&self) -> usize {
        match self.work {
            Work::Latency { times, .. } => times,
            _ => 1,
        }
    }

    /// Whether only tools that watch the folder can do it.
    pub fn live_only(&self) -> bool {
        matches!(self.work, Work::Latency { .. })
    }

    /// Makes what is in `root` before the change.
    pub fn base(&self, root: &Path) -> Result<()> {
        let subject = root.join(SUBJECT);
        match self.work {
            Work::Edit { len, .. } | Work::Insert { len, .. } | Work::Append { len, .. } => {
                random::file(&subject, len, 1)
            }
            Work::Rename { files, len } => folder(&subject, files, len, 1),
            Work::File { .. } | Work::Files { .. } | Work::Latency { .. } => Ok(()),
        }
    }

    /// Makes beside the folder, before the clock starts, what is then moved in at once.
    pub fn stage(&self, stage: &Path) -> Result<()> {
        let subject = stage.join(SUBJECT);
        match self.work {
            Work::File { len } => random::file(&subject, len, 2),
            Work::Files {
                folders,
                files,
                len,
            } => {
                fs::create_dir(&subject)?;
                (0..folders).try_for_each(|number| {
                    folder(
                        &subject.join(format!("folder-{number:03}")),
                        files,
                        len,
                        number << 32,
                    )
                })
            }
            Work::Insert { len, part } => {
                // The base again, behind something new.
                let mut file = File::create_new(&subject)?;
                Random::new(2).write(&mut file, part)?;
                Random::new(1).write(&mut file, len)?;
                Ok(())
            }
            Work::Edit { .. }
            | Work::Append { .. }
            | Work::Rename { .. }
            | Work::Latency { .. } => Ok(()),
        }
    }

    /// Gets change number `turn` ready: everything that may be computed before the clock starts.
    /// What comes back makes the change itself.
    pub fn change<'a>(
        &self,
        stage: &'a Path,
        root: &'a Path,
        turn: usize,
    ) -> Result<Box<dyn FnOnce() -> Result<Goal> + 'a>> {
        let (new, subject) = (stage.join(SUBJECT), root.join(SUBJECT));
        Ok(match self.work {
            Work::File { .. } | Work::Insert { .. } => {
                let goal = Goal::file(stage, Path::new(SUBJECT))?;
                Box::new(move || move_in(&new, &subject).map(|()| goal))
            }
            Work::Files { .. } => {
                let goal = Goal::folder(stage, Path::new(SUBJECT), Path::new(SUBJECT))?;
                Box::new(move || move_in(&new, &subject).map(|()| goal))
            }
            Work::Rename { .. } => {
                let mut goal = Goal::folder(root, Path::new(SUBJECT), Path::new(RENAMED))?;
                goal.gone.push(SUBJECT.into());
                Box::new(move || move_in(&subject, &root.join(RENAMED)).map(|()| goal))
            }
            Work::Edit { len, part, pieces } => {
                let edits = edits(len, part, pieces);
                Box::new(move || write(root, SUBJECT, |file| overwrite(file, &edits)))
            }
            Work::Append { part, .. } => {
                let bytes = Random::new(3).bytes(usize::try_from(part)?);
                Box::new(move || {
                    write(root, SUBJECT, |file| {
                        let end = file.metadata()?.len();
                        file.write_all_at(&bytes, end)
                    })
                })
            }
            Work::Latency { len, .. } => {
                let name = format!("note-{turn:04}");
                let bytes = Random::new(turn as u64).bytes(len);
                Box::new(move || {
                    File::create_new(root.join(&name))
                        .and_then(|mut file| file.write_all(&bytes))
                        .with_context(|| format!("cannot write {name}"))?;
                    Goal::file(root, Path::new(&name))
                })
            }
        })
    }
}

fn folder(path: &Path, files: u64, len: u64, seed: u64) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
    (0..files).try_for_each(|number| {
        random::file(&path.join(format!("file-{number:04}")), len, seed + number)
    })
}

fn move_in(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename to {}", to.display()))
}

/// `part` bytes in `pieces` equal pieces, each at a random, unaligned place within its own equal
/// share of a file of `len`, so that no two meet.
fn edits(len: u64, part: u64, pieces: u64) -> Vec<(u64, Vec<u8>)> {
    let mut random = Random::new(4);
    let (span, piece) = (len / pieces, part / pieces);
    (0..pieces)
        .map(|number| {
            let offset = number * span + random.below(span - piece + 1);
            (offset, random.bytes(usize::try_from(piece).unwrap_or(0)))
        })
        .collect()
}

fn overwrite(file: &File, edits: &[(u64, Vec<u8>)]) -> std::io::Result<()> {
    edits
        .iter()
        .try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
}

/// Changes a file in place.
fn write(
    root: &Path,
    name: &str,
    change: impl FnOnce(&File) -> std::io::Result<()>,
) -> Result<Goal> {
    let path = root.join(name);
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| {
            change(&file)?;
            // A time of its own: a tool that reads between two writes of one clock tick
            // must not be able to reach the goal with half of the change.
            file.set_modified(SystemTime::now())
        })
        .with_context(|| format!("cannot change {}", path.display()))?;
    Goal::file(root, Path::new(name))
}

#[cfg(test)]
mod tests {
    use super::{ROWS, edits};

    #[test]
    fn edits_lie_inside_and_do_not_meet() {
        let edits = edits(1_000_003, 100_000, 7);
        let mut end = 0;
        for (offset, bytes) in &edits {
            assert!(*offset >= end && bytes.len() == 100_000 / 7);
            end = offset + bytes.len() as u64;
        }
        assert!(end <= 1_000_003);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
