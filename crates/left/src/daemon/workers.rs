//! Threads of a share beside its owner: the one that changes its folder, and a search through its index.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use left_core::conflict::is_copy;
use left_core::entry::Kind;
use left_core::path::RelPath;
use left_core::plan::{Op, OpId};

use super::ask::Msg;
use crate::disk::{self, Before, History, Pack, ReadyBatch, Root, Stage};
use crate::store::{IndexReader, Unsynced};

/// Conflict copies that are remembered from before.
const MAX_CONFLICTS: usize = 200;

/// A batch for the applier.
pub(super) type Ops = Vec<(OpId, Op)>;

/// What the two threads work with that change this share's folder: while one puts a batch in place, the
/// other makes the next one ready. So neither a disk that has to sync nor a processor rests meanwhile. (The
/// engine has nothing to do with a path of which a result is still to come.)
pub(super) struct Applying {
    pub(super) root: Arc<Root>,
    pub(super) stage: Arc<Stage>,
    pub(super) history: Arc<History>,
    pub(super) pack: Arc<Pack>,
    /// What peers told and may not be on the disk.
    pub(super) heard: Unsynced,
    pub(super) tx: Sender<Msg>,
}

impl Applying {
    /// Starts them: batches in order, each durable before its results are told. They end when the sender
    /// is dropped.
    pub(super) fn spawn(self) -> io::Result<(Sender<Ops>, JoinHandle<()>)> {
        let (ops_tx, ops_rx) = unbounded();
        let thread = std::thread::Builder::new().name("left-apply".into());
        let spawned = thread.spawn(move || self.run(&ops_rx))?;
        Ok((ops_tx, spawned))
    }

    fn run(&self, batches: &Receiver<Ops>) {
        let (ready_tx, ready_rx) = bounded(0);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("left-ready".into());
            let spawned = thread.spawn_scoped(scope, move || self.make_ready(batches, &ready_tx));
            match spawned {
                // A receiver of its own: when this ends, the other does.
                Ok(_) => self.put_in_place(ready_rx),
                Err(error) => tracing::error!(%error, "no thread can be started"),
            }
        });
    }

    fn make_ready<'a>(&'a self, batches: &Receiver<Ops>, ready: &Sender<ReadyBatch<'a>>) {
        while let Ok(mut ops) = batches.recv() {
            // One set of fsyncs for all that waits already.
            ops.extend(batches.try_iter().flatten());
            // What peers told is durable before the folder shows it: else a power cut could leave what is
            // there of it as an edit of ours.
            let sync = || self.heard.sync();
            let before = self.heard.any().then_some(&sync as Before<'_>);
            let batch = disk::make_ready(&self.root, &self.stage, &self.pack, before, ops);
            if ready.send(batch).is_err() {
                return;
            }
        }
    }

    fn put_in_place(&self, batches: Receiver<ReadyBatch<'_>>) {
        loop {
            let due = self.history.next_due();
            let next = match due {
                Some(at) => batches.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(batch) => {
                    let (stage, history) = (&self.stage, &self.history);
                    let done = disk::put_in_place(&self.root, stage, history, &self.pack, batch);
                    if self.tx.send(Msg::Applied(done)).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let rescued = self.history.look_again(&self.root);
                    if !rescued.is_empty() {
                        let paths = rescued.into_iter().map(|r| r.path).collect();
                        let _ = self.tx.send(Msg::Rescued(paths));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Looks through the index for conflict copies from before, beside everything else, and for records
/// below something that is no folder: where a crash came between the end of a folder and that of what
/// was in it. No walk of the disk leads to those.
pub(super) fn spawn_index_search(index: IndexReader, tx: Sender<Msg>) {
    const PAGE: usize = 1000;
    let thread = std::thread::Builder::new().name("left-search".into());
    let _ = thread.spawn(move || {
        let mut copies = Vec::new();
        let mut orphans = Orphans::default();
        let mut after: Option<RelPath> = None;
        while let Ok(page) = index.live_in_order(after.as_ref(), PAGE) {
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let found: Vec<RelPath> = page
                .iter()
                .filter(|(path, record)| orphans.is_one(path, record.entry.node.kind()))
                .map(|(path, _)| path.clone())
                .collect();
            // Nobody listens when the share is stopping.
            if !found.is_empty() && tx.send(Msg::LookAt(found)).is_err() {
                return;
            }
            let paths = page.into_iter().map(|(path, _)| path);
            copies.extend(paths.filter(is_copy));
            copies.truncate(MAX_CONFLICTS);
        }
        if !copies.is_empty() {
            let _ = tx.send(Msg::Conflicts(copies));
        }
    });
}

/// Tells live records whose folder is none; they come in order, a folder before what is in it.
#[derive(Default)]
struct Orphans {
    /// The folders that the last path lies in, itself included.
    dirs: Vec<RelPath>,
}

impl Orphans {
    fn is_one(&mut self, path: &RelPath, kind: Kind) -> bool {
        while self.dirs.last().is_some_and(|dir| !path.is_below(dir)) {
            self.dirs.pop();
        }
        let parent = path.parent();
        let orphan = parent.is_some() && self.dirs.last() != parent.as_ref();
        if kind == Kind::Dir {
            self.dirs.push(path.clone());
        }
        orphan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_no_folder_is_an_orphan() {
        let (d, f) = (Kind::Dir, Kind::File);
        let tree = [
            ("a", d, false),
            ("a/b", d, false),
            ("a/b/c", f, false),
            ("a/d", f, false),
            ("a/d/e", d, true),
            ("a/d/e/f", f, false),
            ("a/g", f, false),
            ("h/i", f, true),
            ("h/j/k", f, true),
            ("l", f, false),
        ];
        let mut orphans = Orphans::default();
        for (path, kind, wanted) in tree {
            let path = RelPath::new(path).expect("a path");
            assert_eq!(orphans.is_one(&path, kind), wanted, "{path}");
        }
    }
}
