//! What the receiver must hold in the end: a cheap test that stops the clock, and a complete
//! comparison afterwards that says whether the clock told the truth.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::AtFlags;

use super::halt;
use super::process::Process;

/// Names at the top of a tree that belong to a tool and not to the user.
const TOOLS_OWN: &[&str] = &[".left", ".stfolder", ".stversions"];

/// What tells that a change has arrived.
#[derive(Default)]
pub struct Goal {
    /// Files that must be there.
    pub files: Vec<Fact>,
    /// Paths that must not be there.
    pub gone: Vec<PathBuf>,
}

/// One file in its final state. Every tool here sets the time of a file after or together with
/// its content, so size and time (to the nanosecond, and new with each change) say that it is
/// the final one; the comparison afterwards finds a tool that does otherwise.
pub struct Fact {
    path: PathBuf,
    len: u64,
    time: (i64, i64),
}

impl Fact {
    /// The state of `root/path` now.
    pub fn of(root: &Path, path: &Path) -> Result<Self> {
        let full = root.join(path);
        let meta = fs::symlink_metadata(&full)
            .with_context(|| format!("cannot look at {}", full.display()))?;
        Ok(Self {
            path: path.to_owned(),
            len: meta.len(),
            time: time(&meta),
        })
    }

    /// Whether it is so now, in its open folder.
    fn holds_in(&self, folder: &File) -> bool {
        let Some(name) = self.path.file_name() else {
            return false;
        };
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            // The widths of these fields differ among platforms.
            let time = (i128::from(stat.st_mtime), i128::from(stat.st_mtime_nsec));
            i128::from(stat.st_size) == i128::from(self.len)
                && time == (i128::from(self.time.0), i128::from(self.time.1))
        })
    }
}

/// How many of `facts` hold, up to the first that does not. Each folder is opened once for all its files:
/// whoever watches two busy cores should take little of them.
fn first_that_hold(facts: &[Fact], root: &Path) -> usize {
    let mut open: Option<(&Path, File)> = None;
    let mut held = 0;
    for fact in facts {
        let Some(parent) = fact.path.parent() else {
            break;
        };
        if open.as_ref().is_none_or(|(path, _)| *path != parent) {
            open = File::open(root.join(parent)).ok().map(|f| (parent, f));
        }
        let here = open.as_ref().is_some_and(|(_, f)| fact.holds_in(f));
        if !here {
            break;
        }
        held += 1;
    }
    held
}

impl Goal {
    /// Every file under `root/path`, as it would lie under the name `to`.
    pub fn folder(root: &Path, path: &Path, to: &Path) -> Result<Self> {
        let mut goal = Self::default();
        for (name, meta) in walk(&root.join(path))? {
            if meta.is_file() {
                goal.files.push(Fact {
                    path: to.join(name),
                    len: meta.len(),
                    time: time(&meta),
                });
            }
        }
        Ok(goal)
    }

    /// One file.
    pub fn file(root: &Path, path: &Path) -> Result<Self> {
        Ok(Self {
            files: vec![Fact::of(root, path)?],
            gone: Vec::new(),
        })
    }

    /// The file `from` is to be found as `to`.
    pub fn rename(&mut self, from: &Path, to: &Path) {
        for fact in self.files.iter_mut().filter(|fact| fact.path == from) {
            to.clone_into(&mut fact.path);
        }
    }

    /// Whether it is reached now.
    pub fn reached(&self, root: &Path) -> bool {
        first_that_hold(&self.files, root) == self.files.len()
            && self
                .gone
                .iter()
                .all(|path| fs::symlink_metadata(root.join(path)).is_err())
    }

    /// Polls `root` until the goal is reached. A file that was found right is not looked at
    /// again, so all polling together costs one `stat` a file and one a poll.
    pub fn wait(&self, root: &Path, limit: Duration, alive: &[&Process]) -> Result<()> {
        let start = Instant::now();
        let mut reached = 0;
        let mut polls = 0_u32;
        loop {
            reached += first_that_hold(&self.files[reached..], root);
            let there = reached == self.files.len();
            if there
                && self
                    .gone
                    .iter()
                    .all(|path| fs::symlink_metadata(root.join(path)).is_err())
            {
                return Ok(());
            }
            polls += 1;
            if polls.is_multiple_of(16) {
                halt::check()?;
                alive.iter().try_for_each(|process| process.check())?;
            }
            if start.elapsed() > limit {
                let missing = self.files.get(reached).map(|fact| &fact.path);
                let missing = missing.or_else(|| self.gone.first());
                bail!(
                    "not done after {} s ({reached} of {} files; not done: {})",
                    limit.as_secs(),
                    self.files.len(),
                    missing.map_or_else(String::new, |path| path.display().to_string())
                );
            }
            // A thousandth of the time so far is as exact as anybody can ask for.
            let pause = start.elapsed() / 1000;
            std::thread::sleep(pause.clamp(Duration::from_millis(1), Duration::from_millis(20)));
        }
    }
}

/// Compares two trees byte for byte; the first difference is the error.
pub fn compare(a: &Path, b: &Path) -> Result<()> {
    let (left, right) = (walk(a)?, walk(b)?);
    let name = |path: &PathBuf| path.display().to_string();
    if let Some(path) = left.keys().find(|path| !right.contains_key(*path)) {
        bail!("missing at the receiver: {}", name(path));
    }
    if let Some(path) = right.keys().find(|path| !left.contains_key(*path)) {
        bail!("left over at the receiver: {}", name(path));
    }
    for (path, meta) in &left {
        let other = &right[path];
        ensure!(
            meta.file_type() == other.file_type()
                && meta.permissions().mode() == other.permissions().mode(),
            "another kind or other permissions: {}",
            name(path)
        );
        if meta.is_file() {
            halt::check()?;
            ensure!(
                meta.len() == other.len() && same_bytes(&a.join(path), &b.join(path))?,
                "other content: {}",
                name(path)
            );
        }
    }
    Ok(())
}

/// Makes every file below `root` empty that holds more than a few blocks.
pub fn empty_large_files(root: &Path) -> Result<()> {
    for (path, meta) in walk(root)? {
        if meta.is_file() && meta.len() > 1 << 16 {
            let path = root.join(path);
            File::options()
                .write(true)
                .truncate(true)
                .open(&path)
                .with_context(|| format!("cannot empty {}", path.display()))?;
        }
    }
    Ok(())
}

fn same_bytes(a: &Path, b: &Path) -> Result<bool> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut a, mut b) = (open(a)?, open(b)?);
    // Small files are many: no large buffers for them. The byte more meets the end at once.
    let size = usize::try_from(a.metadata()?.len())
        .unwrap_or(usize::MAX)
        .min(1 << 18)
        + 1;
    let (mut left, mut right) = (vec![0; size], vec![0; size]);
    loop {
        let (n, m) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n < size {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// All paths below `root`, without what tools keep for themselves at its top.
fn walk(root: &Path) -> Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let full = root.join(&folder);
        let entries =
            fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if TOOLS_OWN.iter().any(|own| path == Path::new(own)) {
                continue;
            }
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, meta);
        }
    }
    Ok(found)
}

fn time(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::{Goal, compare};

    #[test]
    fn each_difference_is_found() {
        let dir = tempfile::tempdir().expect("folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for root in [&a, &b] {
            fs::create_dir_all(root.join("sub")).expect("folder");
            fs::write(root.join("sub/file"), "same").expect("file");
        }
        fs::create_dir(b.join(".left")).expect("folder");
        compare(&a, &b).expect("equal");

        fs::write(b.join("sub/file"), "sAme").expect("file");
        assert!(compare(&a, &b).is_err_and(|e| e.to_string().contains("other content")));
        fs::write(a.join("more"), "").expect("file");
        assert!(compare(&a, &b).is_err_and(|e| e.to_string().contains("missing")));
        assert!(compare(&b, &a).is_err_and(|e| e.to_string().contains("left over")));
    }

    #[test]
    fn a_goal_is_reached_only_by_the_same_size_and_time() {
        let dir = tempfile::tempdir().expect("folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(&a).expect("folder");
        fs::create_dir_all(&b).expect("folder");
        fs::write(a.join("file"), "one").expect("file");
        fs::write(b.join("file"), "two").expect("file");
        let goal = Goal::file(&a, Path::new("file")).expect("goal");
        let soon = Duration::from_millis(5);
        let when = fs::metadata(a.join("file"))
            .and_then(|meta| meta.modified())
            .expect("time");
        let receiver = fs::File::options()
            .write(true)
            .open(b.join("file"))
            .expect("open");
        receiver
            .set_modified(when + Duration::from_nanos(1))
            .expect("time");
        assert!(goal.wait(&b, soon, &[]).is_err());
        receiver.set_modified(when).expect("time");
        assert!(goal.wait(&b, soon, &[]).is_ok());
    }
}
