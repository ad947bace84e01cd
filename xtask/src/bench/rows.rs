//! The rows of the table: what is there before, what changes, how to see that it has arrived.
//! A further row of a known kind is one line in [`ROWS`]; what it must reach stands in `bounds`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::random::{self, Random};
use super::tree::Goal;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The file or folder that a row works on.
const SUBJECT: &str = "subject";
/// The new name of the renamed folder.
const RENAMED: &str = "renamed";
/// The small files beside the big one.
const SMALL: &str = "small";
/// The big file that is under way while small ones are measured.
const BIG: &str = "big";

/// One kind of work.
pub struct Row {
    /// Name on the command line.
    pub name: &'static str,
    /// Name in the report.
    pub title: &'static str,
    /// Whether it is measured when no rows are named.
    pub usual: bool,
    /// When the change is made, and what else happens.
    pub course: Course,
    work: Work,
}

/// When the change is made, and what else happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Course {
    /// Both ends run and are equal; the change is made; the clock runs until it is through.
    Running,
    /// The change is made while neither end runs. The clock starts as they are started.
    Down,
    /// Both ends are started again, and the clock; the change is made at once.
    Fresh,
    /// The receiver is killed half a second after the change, and a second later started again:
    /// with that the clock starts.
    Plan,
    /// Over a link of so many bits a second; the receiver is killed when half of it is there, and
    /// started again.
    HalfWay {
        /// Bits a second.
        rate: u64,
    },
    /// Nothing is changed: what it costs to be there.
    Idle,
    /// A big file is under way while the changes are made.
    Busy,
}

/// What the command line says about rows.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of the file that is under way while small ones are measured.
    pub big: u64,
    /// How long to be idle.
    pub idle: Duration,
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
    /// A small file is written, `times` times one after the other, beside a tree of `base` small
    /// files.
    Latency { len: usize, times: usize, base: u64 },
    /// A new file and a folder of 50 small ones are moved in, as in the original's test plan.
    FileAndSmall { len: u64 },
}

/// All rows.
pub const ROWS: &[Row] = &[
    file("10m", "one file, 10 MB", 10_000_000),
    file("512m", "one file, 512 MiB", 512 * MIB),
    file("2g", "one file, 2 GiB", 2048 * MIB).on_request(),
    small("small", "10,000 files of 4 KiB"),
    row(
        "100k",
        "100,000 files of 100 bytes",
        Work::Files {
            folders: 100,
            files: 1000,
            len: 100,
        },
    )
    .on_request(),
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
    row("latency", "1 KiB file written → on the peer", note(20, 0)),
    row(
        "latency-busy",
        "the same while a big file is under way",
        note(400, 0),
    )
    .course(Course::Busy),
    row(
        "restart",
        "100,000 files, started again, until a change made meanwhile is through",
        note(1, 100_000),
    )
    .course(Course::Down)
    .on_request(),
    row(
        "restart-fresh",
        "100,000 files, started again, until a change made then is through",
        note(1, 100_000),
    )
    .course(Course::Fresh)
    .on_request(),
    row("idle", "idle with 100,000 files", note(1, 100_000))
        .course(Course::Idle)
        .on_request(),
    row(
        "plan-kill",
        "the original's plan: 500 MB and 50 files, after a kill",
        Work::FileAndSmall { len: 500_000_000 },
    )
    .course(Course::Plan),
    row(
        "plan-nine",
        "the original's plan: nine bytes of 500 MB changed",
        Work::Edit {
            len: 500_000_000,
            part: 9,
            pieces: 1,
        },
    ),
    file(
        "half-way",
        "1 GiB at 400 Mbit/s, receiver killed half-way",
        1024 * MIB,
    )
    .course(Course::HalfWay { rate: 400_000_000 })
    .on_request(),
];

const fn row(name: &'static str, title: &'static str, work: Work) -> Row {
    Row {
        name,
        title,
        usual: true,
        course: Course::Running,
        work,
    }
}

/// A new file.
pub const fn file(name: &'static str, title: &'static str, len: u64) -> Row {
    row(name, title, Work::File { len })
}

/// 10,000 new files of 4 KiB.
pub const fn small(name: &'static str, title: &'static str) -> Row {
    row(
        name,
        title,
        Work::Files {
            folders: 100,
            files: 100,
            len: 4 * KIB,
        },
    )
}

const fn note(times: usize, base: u64) -> Work {
    Work::Latency {
        len: 1024,
        times,
        base,
    }
}

impl Row {
    const fn on_request(mut self) -> Self {
        self.usual = false;
        self
    }

    const fn course(mut self, course: Course) -> Self {
        self.course = course;
        self
    }

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
        let once = matches!(self.work, Work::Latency { base: 1.., .. })
            && matches!(self.course, Course::Down | Course::Fresh);
        match self.course {
            Course::Idle | Course::Busy | Course::Plan | Course::HalfWay { .. } => true,
            _ => matches!(self.work, Work::Latency { .. }) && !once,
        }
    }

    /// Whether something has to be deleted at the receiver.
    pub fn deletes(&self) -> bool {
        matches!(self.work, Work::Rename { .. })
    }

    /// Bytes of the new files; 0 for other work.
    pub fn content(&self) -> u64 {
        match self.work {
            Work::File { len } => len,
            Work::Files {
                folders,
                files,
                len,
            } => folders * files * len,
            _ => 0,
        }
    }

    /// Makes what is in `root` before the change.
    pub fn base(&self, root: &Path) -> Result<()> {
        let subject = root.join(SUBJECT);
        match self.work {
            Work::Edit { len, .. } | Work::Insert { len, .. } | Work::Append { len, .. } => {
                random::file(&subject, len, 1)
            }
            Work::Rename { files, len } => folder(&subject, files, len, 1),
            Work::Latency { base: 1.., .. } => folders(&root.join("tree"), 100, 1000, 100),
            Work::File { .. }
            | Work::Files { .. }
            | Work::Latency { .. }
            | Work::FileAndSmall { .. } => Ok(()),
        }
    }

    /// Makes beside the folder, before the clock starts, what is then moved in at once.
    pub fn stage(&self, stage: &Path, settings: Settings) -> Result<()> {
        let subject = stage.join(SUBJECT);
        if self.course == Course::Busy {
            random::file(&stage.join(BIG), settings.big, 5)?;
        }
        match self.work {
            Work::File { len } => random::file(&subject, len, 2),
            Work::Files {
                folders: count,
                files,
                len,
            } => folders(&subject, count, files, len),
            Work::FileAndSmall { len } => {
                random::file(&subject, len, 2)?;
                folder(&stage.join(SMALL), 50, 1000, 6)
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

    /// Moves the big file in, beside whose transfer the changes are made.
    pub fn move_big_in(&self, stage: &Path, root: &Path) -> Result<Goal> {
        move_in(&stage.join(BIG), &root.join(BIG))?;
        Goal::file(root, Path::new(BIG))
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
            Work::FileAndSmall { .. } => {
                let mut goal = Goal::folder(stage, Path::new(SMALL), Path::new(SMALL))?;
                goal.files
                    .extend(Goal::file(stage, Path::new(SUBJECT))?.files);
                let small = (stage.join(SMALL), root.join(SMALL));
                Box::new(move || {
                    move_in(&new, &subject)?;
                    move_in(&small.0, &small.1).map(|()| goal)
                })
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

fn folders(path: &Path, count: u64, files: u64, len: u64) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
    (0..count).try_for_each(|number| {
        folder(
            &path.join(format!("folder-{number:03}")),
            files,
            len,
            number << 32,
        )
    })
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
