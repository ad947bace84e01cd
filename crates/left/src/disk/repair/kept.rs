//! What can not be brought back to where it stood: its bytes go to the history.

use std::io;
use std::os::fd::OwnedFd;

use left_core::entry::Node;
use left_core::path::RelPath;
use left_core::plan::StageName;

use super::Work;
use crate::disk::history::{Batch, History};
use crate::disk::root::Root;
use crate::disk::stage::Stage;
use crate::disk::sys;

impl Work<'_> {
    /// Puts such contents into the history, under their paths. What is in the history is whole, also after the
    /// next cut: so all lie in the stage first, and on the disk, before any gets its name.
    pub(super) fn keep(&mut self, lost: Vec<(RelPath, Node)>) {
        if lost.is_empty() {
            return;
        }
        let staged = lost.into_iter().map(|(path, node)| {
            let staged = self.stage_lost(&node);
            (path, staged)
        });
        let staged: Vec<_> = staged.collect();
        let synced = self.root.sync_disk();
        let mut shelf = Shelf {
            root: self.root,
            stage: self.stage,
            history: self.history,
            batch: None,
        };
        for (path, name) in staged {
            let synced = synced.as_ref().map_err(|e| io::Error::from(e.kind()));
            let put = synced.and_then(|()| shelf.put(&path, &name?));
            match put {
                Ok(()) => self.done.kept += 1,
                Err(error) => {
                    tracing::warn!(%path, %error, "what a power cut took back is in a pack, and not in the history");
                    self.done.failed += 1;
                }
            }
        }
        shelf.close();
    }

    fn stage_lost(&self, node: &Node) -> io::Result<StageName> {
        let content = node.content().ok_or_else(super::damaged)?;
        let (name, file) = self.stage_content(content)?;
        if let Node::File { mode, mtime, .. } = node {
            sys::chmod(&file, *mode)?;
            sys::set_mtime_open(&file, *mtime)?;
        }
        Ok(name)
    }
}

/// Names files in the history.
struct Shelf<'a> {
    root: &'a Root,
    stage: &'a Stage,
    history: &'a History,
    batch: Option<Batch>,
}

impl Shelf<'_> {
    fn put(&mut self, path: &RelPath, staged: &StageName) -> io::Result<()> {
        let slot = self.slot(path)?;
        self.stage.with(|stage| {
            let from = staged.0.as_bytes();
            Ok(self
                .root
                .renamer
                .move_new(stage, from, &slot, path.name())?)
        })?;
        let stat = sys::stat_at(&slot, path.name())?;
        if let (Some(batch), Some(stat)) = (&mut self.batch, stat) {
            batch.keep(path.clone(), stat.file);
        }
        Ok(())
    }

    /// The folder of the history for a path, in a new batch where one is in the way.
    fn slot(&mut self, path: &RelPath) -> io::Result<OwnedFd> {
        for _ in 0..2 {
            let batch = match self.batch.take() {
                Some(batch) => batch,
                None => self.history.batch(false)?,
            };
            let slot = batch.slot(self.root, path);
            match &slot {
                Ok(None) => self.history.seal(batch),
                _ => self.batch = Some(batch),
            }
            if let Some(slot) = slot? {
                return Ok(slot);
            }
        }
        Err(io::Error::other("no place for it in the history"))
    }

    fn close(self) {
        if let Some(batch) = self.batch {
            self.history.seal(batch);
        }
    }
}
