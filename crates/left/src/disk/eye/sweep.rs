//! Walking folders and comparing them with the index, a slice at a time.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::iter::Peekable;
use std::os::fd::{AsFd, BorrowedFd};

use left_core::diff::Seen;
use left_core::entry::{Node, Record};
use left_core::ignore::IGNORE_FILE;
use left_core::path::{self, RelPath};
use rustix::fs::FileType;

use super::hints::{Hint, is_just_changed};
use super::judge::Also;
use super::run::Eye;
use crate::disk::look::open_regular_in;
use crate::disk::root::INNER;
use crate::disk::sys::{self, Stat};
use crate::disk::watch::When;

/// Entries looked at before fresh hints get their turn.
const SLICE: usize = 64;

/// One walk of the tree or of parts of it: folders in order, names in order; a folder's names and
/// records are in memory only while it is being walked. What is gone is told at the end.
pub(super) struct Sweep {
    pub(super) id: u64,
    /// Of the whole tree: it finds what was there before anything could be heard.
    is_whole: bool,
    roots: VecDeque<Option<RelPath>>,
    stack: Vec<Frame>,
    /// Folders whose records name something that is not on disk.
    dirty: BTreeSet<Option<RelPath>>,
    /// Paths to be looked at once more at the end.
    gone: Vec<RelPath>,
}

struct Frame {
    dir: Option<RelPath>,
    /// With what each was when the folder was listed.
    names: Vec<(Box<[u8]>, FileType)>,
    at: usize,
    records: Peekable<std::vec::IntoIter<(RelPath, Record)>>,
}

impl Sweep {
    pub(super) fn all() -> Sweep {
        Sweep {
            id: 0,
            is_whole: true,
            roots: VecDeque::from([None]),
            stack: Vec::new(),
            dirty: BTreeSet::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn below(dirs: Vec<RelPath>) -> Sweep {
        Sweep {
            is_whole: false,
            roots: dirs.into_iter().map(Some).collect(),
            ..Sweep::all()
        }
    }

    pub(super) fn add_root(&mut self, dir: RelPath) {
        self.roots.push_back(Some(dir));
    }

    pub(super) fn note_gone(&mut self, path: RelPath) {
        self.gone.push(path);
    }

    /// Whether a path, later in order than all roots, lies below one that is still to be walked.
    pub(super) fn covers(&self, path: &RelPath) -> bool {
        matches!(self.roots.back(), Some(Some(dir)) if path.is_below(dir))
    }

    /// Whether it is of the whole tree and has not begun.
    pub(super) fn is_fresh_full(&self) -> bool {
        self.stack.is_empty() && self.roots.front() == Some(&None)
    }

    pub(super) fn has_walk(&self) -> bool {
        !self.roots.is_empty()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.roots.is_empty() && self.stack.is_empty() && self.gone.is_empty()
    }

    /// Does a slice; returns whether the sweep is done.
    pub(super) fn step(&mut self, eye: &mut Eye) -> bool {
        let Some(mut frame) = self.stack.pop() else {
            let Some(root) = self.roots.pop_front() else {
                eye.tell_gone(&self.dirty, &self.gone);
                return true;
            };
            self.push_frame(eye, root);
            return false;
        };
        let Ok(fd) = eye.root.open_dir(frame.dir.as_ref()) else {
            // Renamed or removed meanwhile: its parent is looked at again for that.
            if let Some(dir) = frame.dir {
                self.gone.push(dir);
            }
            return false;
        };
        // Before what was listed is looked at, it is heard how it came there.
        eye.read_events();
        for _ in 0..SLICE {
            let Some((name, listed)) = frame.names.get(frame.at) else {
                self.end_frame(eye, frame);
                return false;
            };
            let (name, listed) = (name.clone(), *listed);
            frame.at += 1;
            eye.looked += 1;
            let Ok(path) = path::join(frame.dir.as_ref(), &name) else {
                if frame.dir.is_some() || *name != *INNER {
                    eye.bad_name(frame.dir.as_ref(), &name);
                }
                continue;
            };
            let record = self.record_at(&mut frame, &path);
            if eye.is_held(&path) {
                eye.hints.put_off_found(path);
                continue;
            }
            let is_new_file = listed == FileType::RegularFile && record.is_none();
            let (stat, also) = match eye.look_at_listed(fd.as_fd(), &path, is_new_file) {
                Ok(Some(seen)) => seen,
                Ok(None) => {
                    self.gone.push(path);
                    continue;
                }
                Err(e) => {
                    eye.unreadable(&path, format!("can not be looked at: {e}"));
                    continue;
                }
            };
            let is_dir = stat.kind == FileType::Directory;
            if !matches!(also, Also::Open(_)) && eye.is_ignored(&path, is_dir) {
                continue;
            }
            if is_dir {
                eye.judge_dir(&path, record.as_ref(), &stat);
                self.stack.push(frame);
                self.push_frame(eye, Some(path));
                return false;
            }
            if record.as_ref().is_some_and(is_dir_record) {
                self.gone.push(path.clone());
            }
            if eye.hints.is_waiting_for_its_bytes(&path) {
                continue;
            }
            if !self.is_whole && record.is_none() && eye.may_be_being_made(&stat) {
                eye.hints.add(path, When::Quiet, false);
                continue;
            }
            eye.judge(fd.as_fd(), &path, record.as_ref(), &stat, also);
        }
        self.stack.push(frame);
        false
    }

    /// Begins a folder: first its records, then its watch, then its names. So whatever changes in
    /// between shows as a difference or as a hint.
    fn push_frame(&mut self, eye: &mut Eye, dir: Option<RelPath>) {
        let records = match eye.index.children(dir.as_ref()) {
            Ok(records) => records,
            Err(error) => {
                eye.index_failed(error);
                return;
            }
        };
        let Some(fd) = eye.enter(dir.as_ref()) else {
            return;
        };
        match sys::list_kinds(&fd) {
            Ok(names) => {
                if let Some(dir) = &dir {
                    let has = names
                        .binary_search_by(|(n, _)| (**n).cmp(IGNORE_FILE))
                        .is_ok();
                    if has || eye.rules.has(dir) {
                        eye.read_rules_of(Some(dir));
                    }
                }
                self.stack.push(Frame {
                    dir,
                    names,
                    at: 0,
                    records: records.into_iter().peekable(),
                });
            }
            Err(e) if sys::io_absent(&e) => self.gone.extend(dir),
            Err(e) => eye.unreadable_dir(dir.as_ref(), &e),
        }
    }

    /// The record of a name; records before it have no name on disk.
    fn record_at(&mut self, frame: &mut Frame, path: &RelPath) -> Option<Record> {
        while frame.records.next_if(|(p, _)| p < path).is_some() {
            self.dirty.insert(frame.dir.clone());
        }
        frame
            .records
            .next_if(|(p, _)| p == path)
            .map(|(_, record)| record)
    }

    fn end_frame(&mut self, eye: &Eye, mut frame: Frame) {
        if frame.records.next().is_some() {
            self.dirty.insert(frame.dir.clone());
        }
        // What could not be read before and is gone now has no record that would tell, nor has what was told
        // of a moment ago.
        let dir = frame.dir.as_ref();
        let missing = eye.trouble_in(dir).chain(eye.told.open_in(dir));
        let missing = missing.filter(|p| {
            frame
                .names
                .binary_search_by(|(n, _)| (**n).cmp(p.name()))
                .is_err()
        });
        self.gone.extend(missing.cloned());
    }
}

fn is_dir_record(record: &Record) -> bool {
    matches!(record.entry.node, Node::Dir { .. })
}

impl Eye {
    /// Whether a new file may be one that a program has just made, before its folder was watched, and has yet
    /// to write into: an empty file is announced a moment later, and a file in its making is not announced
    /// as an empty one, which elsewhere may win over another's bytes.
    fn may_be_being_made(&self, stat: &Stat) -> bool {
        let is_empty = stat.kind == FileType::RegularFile && stat.file.size == 0;
        is_empty && !self.owes_barrier() && is_just_changed(&stat.file)
    }

    /// Looks at a name of an open folder. A new file has to be read, so it is looked at by opening it.
    fn look_at_listed(
        &self,
        dir: BorrowedFd<'_>,
        path: &RelPath,
        is_new_file: bool,
    ) -> io::Result<Option<(Stat, Also)>> {
        let is_wanted =
            || !self.is_ignored(path, false) && !self.hints.is_waiting_for_its_bytes(path);
        if is_new_file
            && is_wanted()
            && let Ok((file, stat)) = open_regular_in(dir, path.name())
        {
            return Ok(Some((stat, Also::Open(file))));
        }
        // It may be something else by now, or not to be opened: what it is says its stat.
        let stat = sys::stat_at(dir, path.name())?;
        Ok(stat.map(|stat| (stat, Also::of(&stat, dir, path))))
    }

    /// Tells what is gone: of `dirty` folders every record without a name on disk, and the paths of
    /// `gone` that still are. Everything below first. Not a word if the root can not be trusted.
    fn tell_gone(&mut self, dirty: &BTreeSet<Option<RelPath>>, gone: &[RelPath]) {
        if dirty.is_empty() && gone.is_empty() {
            return;
        }
        self.flush();
        if let Err(reason) = self.root.check() {
            self.root_gone(reason);
            return;
        }
        for dir in dirty {
            let Ok(fd) = self.root.open_dir(dir.as_ref()) else {
                continue;
            };
            let (Ok(names), Ok(records)) = (sys::list(&fd), self.index.children(dir.as_ref()))
            else {
                continue;
            };
            for (path, _) in records {
                let here = names.binary_search_by(|n| (**n).cmp(path.name())).is_ok();
                if !here {
                    self.tell_tree(&path);
                }
            }
        }
        for path in gone {
            self.tell_tree(path);
        }
        self.flush();
    }

    fn tell_tree(&mut self, path: &RelPath) {
        if self.is_stopped() || self.is_held(path) {
            if self.is_held(path) {
                self.hints.put_off(path.clone(), Hint::default());
            }
            return;
        }
        let stat = match self.root.stat(path) {
            Ok(stat) => stat,
            // Not to be told from here: nothing is said.
            Err(_) => return,
        };
        if stat.is_some_and(|s| s.kind == FileType::Directory) {
            self.hints.add(path.clone(), When::Now, false);
            return;
        }
        let open = self.told.is_open(path);
        let record = match self.index.get(path) {
            Ok(record) => record.filter(|r| r.entry.node.is_live()),
            Err(error) => return self.index_failed(error),
        };
        // Also where the index knows a file by now: it may have heard of that a moment ago, and of
        // what was in the folder before not yet.
        self.unwatch(path);
        self.rules.forget(path);
        self.tell_below(path);
        if stat.is_some() {
            return;
        }
        let troubled = self.forget_trouble(path);
        let was_dir = record.as_ref().is_some_and(is_dir_record);
        let known = (open || record.is_some()) && !self.is_ignored(path, was_dir);
        if known || troubled {
            self.tell_missing(path.clone(), record.as_ref());
        }
    }

    /// Tells that all below `path` is gone, deepest first.
    fn tell_below(&mut self, path: &RelPath) {
        let records = match self.index.children(Some(path)) {
            Ok(records) => records,
            Err(error) => return self.index_failed(error),
        };
        for (path, record) in records {
            if self.is_stopped() {
                return;
            }
            let is_dir = is_dir_record(&record);
            if self.is_ignored(&path, is_dir) {
                continue;
            }
            if is_dir {
                self.tell_below(&path);
            }
            self.tell_missing(path, Some(&record));
        }
    }

    pub(super) fn tell_absent(&mut self, path: RelPath) {
        self.recent.remove(&path);
        self.reload_rules_at(&path);
        self.emit(path, Seen::Absent);
    }
}
