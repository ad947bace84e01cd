//! [`Run`]: one batch on its way into place, operation by operation.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use left_core::entry::FileStat;
use left_core::path::RelPath;
use left_core::plan::{Op, OpError, OpId};

use super::ready::{self, How, Ready};
use super::{Did, io_op_error, lock, names, op_error, place, simple};
use crate::disk::history::{Batch, History};
use crate::disk::rescue;
use crate::disk::root::{ParentDir, Root};
use crate::disk::stage::Stage;
use crate::disk::sys::{self, Stat};

/// The state of one batch.
pub(super) struct Run<'a> {
    pub(super) root: &'a Root,
    pub(super) stage: &'a Stage,
    pub(super) history: &'a History,
    pub(super) how: How<'a>,
    /// The operation at hand needs no sync.
    pub(super) waits: bool,
    pub(super) batch: Option<Batch>,
    /// What is moved away now need not be kept.
    pub(super) dropping: bool,
    /// Batches that could take no more because names collided.
    pub(super) full: Vec<Batch>,
    /// Folders of the share with changed names.
    pub(super) touched: BTreeSet<Option<RelPath>>,
    /// Folders of the history with new names: which batch, and where in it.
    pub(super) kept: BTreeSet<(usize, Option<RelPath>)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        root: &'a Root,
        stage: &'a Stage,
        history: &'a History,
        how: How<'a>,
    ) -> Self {
        Run {
            root,
            stage,
            history,
            how,
            waits: false,
            batch: None,
            dropping: false,
            touched: BTreeSet::new(),
            kept: BTreeSet::new(),
            full: Vec::new(),
        }
    }

    pub(super) fn all(
        &mut self,
        ops: &[(OpId, Op)],
        ready: Vec<Ready>,
    ) -> Vec<Result<Did, OpError>> {
        let mut done = Vec::with_capacity(ops.len());
        let (mut rest, mut ready) = (ops, ready.into_iter());
        while !rest.is_empty() {
            let plain = names::plain_ones(rest, ready.as_slice());
            let (now, later) = rest.split_at(plain.max(1));
            let named = names::name_all(self.root, &now[..plain], &ready.as_slice()[..plain]);
            let mut named = named.into_iter();
            for ((_, op), ready) in now.iter().zip(ready.by_ref()) {
                self.waits = ready.waits;
                done.push(match named.next().flatten() {
                    Some(did) => Ok(did),
                    None => self.one(op, ready),
                });
            }
            rest = later;
        }
        done
    }

    pub(super) fn one(&mut self, op: &Op, ready: Ready) -> Result<Did, OpError> {
        if let Some(error) = ready.failed {
            return Err(error);
        }
        match op {
            Op::Place {
                path,
                node,
                staged,
                expect,
                loser,
            } => {
                let staged = staged.as_ref().zip(ready.staged);
                place::place(self, path, node, staged, expect, loser.as_ref())
            }
            Op::SetMeta { path, node, expect } => simple::set_meta(self, path, node, expect),
            Op::Remove { path, expect } => simple::remove(self, path, expect),
            Op::Drop { path, expect } => {
                self.dropping = true;
                let done = simple::remove(self, path, expect);
                self.dropping = false;
                done
            }
            Op::Move {
                from,
                expect,
                to,
                node,
            } => simple::move_file(self, from, expect, to, node),
        }
    }

    pub(super) fn parent(&self, path: &RelPath) -> Result<ParentDir<'a>, OpError> {
        self.root.parent_of(path).map_err(|e| match e {
            e if sys::is_absent(e) => OpError::NoParent,
            e => op_error(path, e),
        })
    }

    /// Does `work` with the folder in history for `path`, in which the name is free; once more in a new
    /// batch, where somebody removed that folder meanwhile. Each `work` looks at what it finds.
    pub(super) fn with_slot<T>(
        &mut self,
        path: &RelPath,
        mut work: impl FnMut(&mut Self, BorrowedFd<'_>) -> Result<T, OpError>,
    ) -> Result<T, OpError> {
        let slot = self.slot(path)?;
        let done = work(self, slot.as_fd());
        if done.is_ok() || !sys::is_removed(&slot) {
            return done;
        }
        self.full.extend(self.batch.take());
        let slot = self.slot(path)?;
        work(self, slot.as_fd())
    }

    /// The folder in history for `path`, with the name free in it.
    pub(super) fn slot(&mut self, path: &RelPath) -> Result<OwnedFd, OpError> {
        let other = self.dropping;
        if let Some(batch) = self.batch.take_if(|b| b.is_dropped() != other) {
            self.full.push(batch);
        }
        for _ in 0..2 {
            let batch = match self.batch.take() {
                Some(batch) => batch,
                None => self
                    .history
                    .batch(self.dropping)
                    .map_err(|e| io_op_error(path, &e))?,
            };
            let slot = batch.slot(self.root, path);
            match slot.map_err(|e| io_op_error(path, &e))? {
                Some(dir) => {
                    self.batch = Some(batch);
                    return Ok(dir);
                }
                None => self.full.push(batch),
            }
        }
        Err(OpError::Io(format!("no room in history for {path}")))
    }

    /// Notes that the slot of `path` holds a user's bytes now.
    pub(super) fn keep(&mut self, path: &RelPath, stat: FileStat) {
        if let Some(batch) = &mut self.batch {
            batch.keep(path.clone(), stat);
        }
        if self.waits {
            return;
        }
        let batch = self.full.len();
        let mut at = path.parent();
        while let Some(dir) = at {
            at = dir.parent();
            self.kept.insert((batch, Some(dir)));
        }
        self.kept.insert((batch, None));
    }

    pub(super) fn touch(&mut self, path: &RelPath) {
        if !self.waits {
            self.touched.insert(path.parent());
        }
    }

    /// Whether what was replaced is worth nothing.
    pub(super) fn is_junk(&self, replaced: &Stat) -> bool {
        matches!(self.how, How::Packed(_, junk) if junk.contains(&replaced.file.ino))
    }

    /// Syncs every folder touched; returns those where it failed.
    pub(super) fn sync(mut self) -> BTreeSet<Option<RelPath>> {
        crash_point!("folders-unsynced");
        if let How::Packed(pack, _) = self.how {
            let above = self.touched.iter();
            let above: Vec<_> = above
                .flat_map(|dir| pack.unsynced_above(dir.as_ref()))
                .collect();
            self.touched.extend(above);
        }
        let all: Vec<Option<RelPath>> = self.touched.into_iter().collect();
        let failed = Mutex::new(BTreeSet::new());
        ready::sync_in_parallel(&all, |_, dir| {
            let synced = match self.root.open_dir(dir.as_ref()) {
                Ok(fd) => sys::sync_dir(&fd),
                Err(e) => Err(e),
            };
            match synced {
                // Removed since, by a later operation or the user: nothing to make durable.
                Ok(()) => {}
                Err(e) if sys::is_absent(e) => {}
                Err(_) => {
                    lock(&failed).insert(dir.clone());
                }
            }
        });
        crash_point!("folders-synced");
        if let How::Packed(pack, _) = self.how {
            let failed = lock(&failed);
            pack.names_synced(all.iter().filter(|dir| !failed.contains(*dir)));
        }
        self.full.extend(self.batch.take());
        for (batch, dir) in &self.kept {
            let Some(batch) = self.full.get(*batch) else {
                continue;
            };
            let fd = match dir {
                None => rescue::open_sub(batch.dir(), b"."),
                Some(dir) => self
                    .root
                    .parent_beneath(batch.dir(), dir)
                    .and_then(|p| rescue::open_sub(p, dir.name())),
            };
            match fd.and_then(sys::sync_dir) {
                Ok(()) => {}
                // Somebody removed it since.
                Err(e) if sys::is_absent(e) => {}
                Err(error) => tracing::warn!(%error, "the history could not be synced to disk"),
            }
        }
        if !self.full.is_empty() && !self.kept.is_empty() {
            let _ = sys::sync_dir(self.history.dir());
        }
        crash_point!("history-synced");
        for batch in self.full {
            self.history.seal(batch);
        }
        failed.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}
