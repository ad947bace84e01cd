//! One path: what stands there, what the index says, and whether that is worth an observation.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use left_core::content::{ContentId, WHOLE_MAX};
use left_core::diff::{Look, Seen, look_at_file};
use left_core::entry::{FileStat, Node, Record};
use left_core::path::RelPath;
use rustix::fs::FileType;

use super::hints::Hint;
use super::pool::{Done, Task};
use super::run::{Eye, Recent};
use super::sweep::Sweep;
use crate::disk::hash::{self, HashError};
use crate::disk::look::{Found, look_at, open_regular_in};
use crate::disk::near::Near;
use crate::disk::sys::{self, Stat};
use crate::disk::watch::When;

/// A file that was read so soon after its last change is read again when another hint comes.
const FRESH_NANOS: i128 = 2_000_000_000;

/// What is known of a name besides its stat.
pub(super) enum Also {
    Nothing,
    /// What a symlink holds.
    Link(std::io::Result<Option<Found>>),
    /// The file the stat was taken of.
    Open(File),
}

impl Also {
    pub(super) fn of(stat: &Stat, dir: BorrowedFd<'_>, path: &RelPath) -> Also {
        match stat.kind {
            FileType::Symlink => Also::Link(look_at(dir, path.name())),
            _ => Also::Nothing,
        }
    }
}

impl Eye {
    /// Looks at hinted paths: what is new or changed at once, deletions after it. New folders are
    /// walked by a sweep of their own, which then also has the deletions.
    pub(super) fn look_at_hints(&mut self, hints: BTreeMap<RelPath, Hint>) {
        let mut sweep = Sweep::below(Vec::new());
        let root = Arc::clone(&self.root);
        let mut near = Near::new(&root);
        for (path, hint) in hints {
            if self.is_stopped() || self.is_gone() {
                return;
            }
            if self.is_held(&path) {
                self.hints.put_off(path, hint);
            } else if sweep.covers(&path) {
                if hint.created {
                    self.hints.add(path, When::Quiet, false);
                }
            } else {
                self.look_at_hint(&path, hint, &mut near, &mut sweep);
            }
        }
        self.start_sweep(sweep);
        self.flush();
    }

    fn look_at_hint(&mut self, path: &RelPath, hint: Hint, near: &mut Near<'_>, sweep: &mut Sweep) {
        self.looked += 1;
        self.learn_rules_above(path);
        self.reload_rules_at(path);
        let open = self.told.is_open(path);
        let Some(record) = self.record(path) else {
            return;
        };
        // What it says may have been overtaken: then all that stands there is worth telling.
        let settled = record.as_ref().filter(|_| !open);
        let parent = match near.parent_of(path) {
            Ok(parent) => Some(parent),
            Err(e) if sys::is_absent(e) => None,
            Err(_) => return,
        };
        let stat = match parent.as_ref().map(|dir| sys::stat_at(dir, path.name())) {
            Some(Ok(stat)) => stat,
            Some(Err(_)) => return,
            None => None,
        };
        let (Some(stat), Some(parent)) = (stat, parent) else {
            sweep.note_gone(path.clone());
            return;
        };
        let is_dir = stat.kind == FileType::Directory;
        if self.is_ignored(path, is_dir) {
            return;
        }
        let was_dir = matches!(&record, Some(r) if matches!(r.entry.node, Node::Dir { .. }));
        if is_dir {
            let deep = hint.deep || !was_dir || self.misses_watch(path);
            let fd = crate::disk::rescue::open_sub(parent, path.name());
            self.judge_dir(path, settled, &stat);
            if deep && fd.is_ok() {
                sweep.add_root(path.clone());
            }
            return;
        }
        if was_dir {
            sweep.note_gone(path.clone());
        }
        if hint.created && stat.kind == FileType::RegularFile && stat.nlink == 1 {
            if !self.hints.is_quiet_waiting(path) {
                self.hints.add(path.clone(), When::Quiet, false);
            }
            return;
        }
        let also = Also::of(&stat, parent, path);
        if hint.written && self.was_read_too_soon(path, &stat) {
            return self.read_file(parent, path, record.as_ref(), &stat, None);
        }
        self.judge(parent, path, settled, &stat, also);
    }

    /// The live record of a path. `None` when the index fails, which is reported.
    #[allow(clippy::option_option)]
    fn record(&mut self, path: &RelPath) -> Option<Option<Record>> {
        match self.index.get(path) {
            Ok(record) => Some(record.filter(|r| r.entry.node.is_live())),
            Err(error) => {
                self.index_failed(error);
                None
            }
        }
    }

    /// Judges anything but a folder, in the open folder `dir`.
    pub(super) fn judge(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &RelPath,
        record: Option<&Record>,
        stat: &Stat,
        also: Also,
    ) {
        match (stat.kind, also) {
            (FileType::RegularFile, Also::Open(file)) => {
                self.judge_file(dir, path, record, stat, Some(file));
            }
            (FileType::RegularFile, _) => self.judge_file(dir, path, record, stat, None),
            (FileType::Symlink, Also::Link(Ok(Some(Found::Symlink(stat, target))))) => {
                self.judge_link(path, record, stat, target);
            }
            (FileType::Symlink, Also::Link(Ok(Some(Found::Special(what))))) => {
                self.unreadable(path, format!("{what}: left alone"));
            }
            (FileType::Symlink, Also::Link(Err(e))) => {
                self.unreadable(
                    path,
                    format!("can not be read: {e}; it is tried again when something changes there"),
                );
            }
            // It changed under our eyes: the next hint tells.
            (FileType::Symlink, _) => self.hints.add(path.clone(), When::Quiet, false),
            (kind, _) => {
                let what = match kind {
                    FileType::Socket => "a socket",
                    FileType::Fifo => "a named pipe",
                    FileType::CharacterDevice | FileType::BlockDevice => "a device",
                    _ => "no file, folder or link",
                };
                self.unreadable(path, format!("{what}: not synchronised, left alone"));
            }
        }
    }

    pub(super) fn judge_dir(&mut self, path: &RelPath, record: Option<&Record>, stat: &Stat) {
        let mode = stat.file.mode;
        self.is_there(path);
        let known = matches!(record, Some(r) if r.entry.node == Node::Dir { mode });
        if !known || self.trouble.remove(path) {
            self.emit(path.clone(), Seen::Dir(stat.file));
        }
    }

    fn judge_link(
        &mut self,
        path: &RelPath,
        record: Option<&Record>,
        stat: FileStat,
        target: Vec<u8>,
    ) {
        self.is_there(path);
        let known = matches!(record, Some(Record { entry, stat: Some(old) })
            if *old == stat && matches!(&entry.node, Node::Symlink { target: t, .. } if *t == target));
        if !known || self.trouble.remove(path) {
            self.emit(path.clone(), Seen::Symlink { stat, target });
        }
    }

    fn judge_file(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &RelPath,
        record: Option<&Record>,
        stat: &Stat,
        open: Option<File>,
    ) {
        self.is_there(path);
        if look_at_file(record, &stat.file) == Look::Same {
            if self.is_unsure(&stat.file) {
                return self.read_file(dir, path, record, stat, open);
            }
            let content = record.and_then(|r| r.entry.node.content());
            if self.trouble.remove(path)
                && let Some(content) = content
            {
                self.emit_file(path.clone(), stat.file, content);
            }
            return;
        }
        if let Some(recent) = self.recent.get(path)
            && recent.stat == stat.file
        {
            let content = recent.content;
            self.emit_file(path.clone(), stat.file, content);
            return;
        }
        let then = record.and_then(|r| r.stat);
        if then.is_some_and(|then| then.ctime > stat.file.ctime) {
            self.settle_older(dir, path);
        }
        let renamed = self.trusts_stats().then(|| self.renamed_from(path, stat));
        if let Some(content) = renamed.flatten() {
            self.emit_file(path.clone(), stat.file, content);
        } else {
            self.read_file(dir, path, record, stat, open);
        }
    }

    /// The clock was set back since what stood at `path` before was written. Were a power cut to bring that
    /// back, it would look later than all that was put there since, and so like an edit after the cut. So what
    /// stands there now is made durable before anything is put over it. (Seldom: it may take long.)
    fn settle_older(&self, dir: BorrowedFd<'_>, path: &RelPath) {
        let file = open_regular_in(dir, path.name());
        let synced = file.and_then(|(file, _)| file.sync_all());
        if let Err(error) = synced.and_then(|()| Ok(sys::sync_dir(dir)?)) {
            tracing::debug!(%path, %error, "not synced after the clock was set back");
        }
    }

    /// Whether a file was read so soon after it had changed that the write may still have been under
    /// way: the system moves a file's time first and its bytes then, and a thread may rest in between.
    /// So a hint that comes after it means another reading, though the stat is the same.
    fn was_read_too_soon(&self, path: &RelPath, stat: &Stat) -> bool {
        let recent = self.recent.get(path);
        stat.kind == FileType::RegularFile && recent.is_some_and(|r| r.fresh && r.stat == stat.file)
    }

    fn read_file(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &RelPath,
        record: Option<&Record>,
        stat: &Stat,
        open: Option<File>,
    ) {
        if stat.file.size > WHOLE_MAX {
            let former = record.and_then(|r| r.entry.node.content());
            let stat = stat.file;
            self.pool.push(path.clone(), Task { stat, former });
        } else {
            let result = match open {
                Some(file) => hash::hash_open(&self.root, file, stat),
                None => hash::hash_in(&self.root, dir, path, &stat.file),
            };
            self.hashed(path.clone(), stat.file, result);
        }
    }

    /// The content of a file that was only renamed: the inode, size and mtime of a record whose own
    /// path holds that inode no more. Or of one whose record is newer than the one that was read.
    ///
    /// An inode number is used again soon after a deletion, and archives give many files one size and
    /// time. So the inode must be older than the record; where the file system does not say, the time
    /// must not be a round one.
    fn renamed_from(&mut self, path: &RelPath, stat: &Stat) -> Option<ContentId> {
        if !self.root.same_device(stat) {
            return None;
        }
        let file = &stat.file;
        let known = match self.index.by_inode(file.ino, file.size, file.mtime) {
            Ok(known) => known,
            Err(error) => {
                self.index_failed(error);
                return None;
            }
        };
        for (old, record) in known {
            let (Some(content), Some(then)) = (record.entry.node.content(), record.stat) else {
                continue;
            };
            // Put there by an operation, and recorded since the folder's records were read.
            if old == *path && look_at_file(Some(&record), file) == Look::Same {
                return Some(content);
            }
            let same = then.ino == file.ino && then.size == file.size && then.mtime == file.mtime;
            let old_enough = match stat.born {
                Some(born) => born <= then.ctime,
                None => file.mtime.nanos != 0,
            };
            let moved_away = match self.root.stat(&old) {
                Ok(None) => true,
                Ok(Some(now)) => now.file.ino != file.ino || now.dev != stat.dev,
                Err(_) => false,
            };
            let whole = file.size <= WHOLE_MAX || self.manifests.has(&content);
            if same && old_enough && moved_away && whole && old != *path {
                return Some(content);
            }
        }
        None
    }

    /// Takes a large file's result.
    pub(super) fn hash_done(&mut self, done: Done) {
        self.hashed(done.path, done.stat, done.result);
    }

    fn hashed(&mut self, path: RelPath, stat: FileStat, result: Result<ContentId, HashError>) {
        match result {
            Ok(content) if self.is_torn(&path, &stat, content) => self.tell_torn(path, stat),
            Ok(content) => self.emit_file(path, stat, content),
            // Being written: when it is left alone. Gone: whoever moved it was hinted too, but a sweep
            // has no hint.
            Err(HashError::Changed | HashError::Gone) => self.hints.add(path, When::Quiet, false),
            Err(HashError::Stopped) => {}
            Err(HashError::Denied) => self.unreadable(
                &path,
                "no permission to read it: make it readable for the user LEFT runs as".into(),
            ),
            Err(e @ HashError::TooBig) => self.unreadable(&path, e.to_string()),
            Err(HashError::Io(e)) => self.unreadable(
                &path,
                format!("can not be read: {e}; it is tried again when something changes there"),
            ),
        }
    }

    fn emit_file(&mut self, path: RelPath, stat: FileStat, content: ContentId) {
        self.trouble.remove(&path);
        if self.recent.len() >= super::run::MAX_RECENT {
            self.recent.clear();
        }
        let age = sys::nanos_between(stat.mtime, sys::now());
        let recent = Recent {
            stat,
            content,
            fresh: (-FRESH_NANOS..FRESH_NANOS).contains(&age),
        };
        self.recent.insert(path.clone(), recent);
        self.reload_rules_at(&path);
        self.emit(path, Seen::File { stat, content });
    }

    /// Reports that something there can not be synchronised now.
    pub(super) fn unreadable(&mut self, path: &RelPath, reason: String) {
        self.trouble.insert(path.clone());
        self.emit(path.clone(), Seen::Unreadable { reason });
    }

    /// Opens a folder of the share and has it watched; `None` with a report when that is impossible.
    pub(super) fn enter(&mut self, dir: Option<&RelPath>) -> Option<std::os::fd::OwnedFd> {
        match self.root.open_dir(dir) {
            Ok(fd) => {
                self.watch(dir, fd.as_fd());
                Some(fd)
            }
            Err(e) if sys::is_absent(e) => None,
            Err(e) => {
                self.unreadable_dir(dir, &e.into());
                None
            }
        }
    }

    pub(super) fn unreadable_dir(&mut self, dir: Option<&RelPath>, e: &std::io::Error) {
        let reason = format!(
            "the folder can not be read: {e}; nothing below it is synchronised until your user may read it"
        );
        match dir {
            Some(dir) => self.unreadable(dir, reason),
            None => self.problem(self.root.path().display().to_string(), reason),
        }
    }
}
