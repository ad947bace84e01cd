//! [`Near`]: looking at one path after the other, most of them in the folder of the one before.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use left_core::diff::{Observation, Seen};
use left_core::entry::FileStat;
use left_core::path::RelPath;
use rustix::io::Errno;

use super::look::{Found, look_at, open_regular_in};
use super::root::{ParentDir, Root};
use super::sys;

/// So long a handle is used.
const MAX_AGE: Duration = Duration::from_millis(10);

/// Keeps the handle of a path's folder for the next path, so that a batch of looks costs one walk a folder
/// and not one a path.
///
/// A folder may be renamed at any time. Through a handle that was opened before, its files are seen under the
/// path that they had then: a look by it counts as one of the moment in which it was opened, and whatever
/// happened later is told by a later hint. So this is for looks only, never for changes, and made anew for
/// each batch, after all the hints that led to it.
pub struct Near<'a> {
    root: &'a Root,
    last: Option<Last<'a>>,
}

struct Last<'a> {
    path: Option<RelPath>,
    dir: ParentDir<'a>,
    since: Instant,
}

impl<'a> Near<'a> {
    /// Without a handle yet.
    pub fn new(root: &'a Root) -> Self {
        Self { root, last: None }
    }

    /// A handle of the folder that holds `path`.
    pub(crate) fn parent_of(&mut self, path: &RelPath) -> Result<BorrowedFd<'_>, Errno> {
        let kept = self.last.take().filter(|last| {
            let dir = last.path.as_ref();
            path.is_in(dir) && last.since.elapsed() < MAX_AGE
        });
        let last = match kept {
            Some(last) => last,
            None => Last {
                since: Instant::now(),
                dir: self.root.parent_of(path)?,
                path: path.parent(),
            },
        };
        Ok(self.last.insert(last).dir.as_fd())
    }

    /// [`Root::look`].
    fn look(&mut self, path: &RelPath) -> io::Result<Option<Found>> {
        match self.parent_of(path) {
            Ok(dir) => look_at(dir, path.name()),
            Err(e) if sys::is_absent(e) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// [`Root::open_file`].
    pub fn open_file(&mut self, path: &RelPath) -> io::Result<(File, FileStat)> {
        let (file, stat) = open_regular_in(self.parent_of(path)?, path.name())?;
        Ok((file, stat.file))
    }

    /// Whether an observation is still true, judged without reading. Where it can not be judged, it is
    /// not.
    pub fn still_holds(&mut self, seen: &Observation) -> bool {
        let found = self.look(&seen.path);
        match (&seen.seen, found) {
            (Seen::Unreadable { .. }, _) => true,
            (Seen::Absent | Seen::Torn(None), Ok(None)) => true,
            (Seen::Torn(Some(stat)), Ok(Some(Found::File(b, _)))) => *stat == b,
            (Seen::Dir(a), Ok(Some(Found::Dir(b)))) => a.mode == b.mode,
            (Seen::File { stat, .. }, Ok(Some(Found::File(b, _)))) => *stat == b,
            (Seen::Symlink { stat, target }, Ok(Some(Found::Symlink(b, t)))) => {
                *stat == b && *target == t
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::disk::init_share;

    fn p(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    /// In the root, in one folder after the other, below a file and below a link.
    #[test]
    fn it_sees_what_the_root_sees() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        init_share(dir.path(), b"id = 1\n").unwrap();
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at("ab")).unwrap();
        for file in ["x", "a/x", "a/b/x", "ab/x"] {
            fs::write(at(file), file).unwrap();
        }
        symlink("a", at("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut near = Near::new(&root);
        let paths = [
            "x",
            "a",
            "a/x",
            "a/y",
            "a/b",
            "a/b/x",
            "a/x",
            "ab/x",
            "a/x",
            "x",
            "x/y",
            "link/x",
            "link",
            "missing/x",
            "ab/x",
        ];
        for path in paths {
            let path = p(path);
            assert_eq!(
                near.look(&path).unwrap(),
                root.look(&path).unwrap(),
                "{path}"
            );
            let opened = (near.open_file(&path).ok(), root.open_file(&path).ok());
            let (near, root) = (opened.0.map(|o| o.1), opened.1.map(|o| o.1));
            assert_eq!(near, root, "{path}");
        }
    }

    /// A folder that was renamed is not taken for the one that stands there now, but for a moment.
    #[test]
    fn a_handle_is_not_kept_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        init_share(dir.path(), b"id = 1\n").unwrap();
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/x"), "old").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut near = Near::new(&root);
        assert!(near.look(&p("a/x")).unwrap().is_some());
        fs::rename(at("a"), at("b")).unwrap();
        fs::create_dir(at("a")).unwrap();
        std::thread::sleep(MAX_AGE);
        assert_eq!(near.look(&p("a/x")).unwrap(), None);
        assert!(near.look(&p("b/x")).unwrap().is_some());
    }
}
