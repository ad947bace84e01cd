//! [`Restorer`]: putting things back into the share the way a user would, by the same safe steps as
//! [`apply`]: nothing is written over, what stood there goes to history, and what is new there is then an
//! ordinary edit that the eye finds.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use left_core::content::ContentId;
use left_core::entry::{FileStat, Kind, MODE_MASK, Mtime, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError, OpId};

use super::apply::{apply, op_error, with_access};
use super::history::{History, Kept};
use super::look::Found;
use super::root::Root;
use super::stage::Stage;
use super::sys;

/// Copies that are made durable together.
const BATCH: usize = 64;
/// Folders that are remembered to be made durable together.
const MAX_TOUCHED: usize = 4096;

/// What was done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there; something else stood there or nothing did.
    Done,
    /// The same bytes stood there already.
    Same,
}

/// How it went with one path; the reason is for people.
pub type Outcome = (RelPath, Result<Put, String>);

/// Puts things back. What it is given may be done together with what follows;
/// [`finish`](Self::finish) ends it.
pub struct Restorer<'a> {
    root: &'a Root,
    stage: &'a Stage,
    history: &'a History,
    queue: Vec<Op>,
    touched: BTreeSet<Option<RelPath>>,
    /// The last folder that was seen to be there.
    dir: Option<RelPath>,
    done: Vec<Outcome>,
}

impl<'a> Restorer<'a> {
    /// Nothing is done yet.
    pub fn new(root: &'a Root, stage: &'a Stage, history: &'a History) -> Self {
        Restorer {
            root,
            stage,
            history,
            queue: Vec::new(),
            touched: BTreeSet::new(),
            dir: None,
            done: Vec::new(),
        }
    }

    /// Brings a kept version back at its path. With `may_move` it leaves the history where nothing
    /// stands at the path: no copy, however large it is.
    pub fn bring_back(&mut self, kept: &Kept, path: &RelPath, may_move: bool) {
        match self.begin(kept, path, may_move) {
            Ok(Some(put)) => self.done.push((path.clone(), Ok(put))),
            Ok(None) => {}
            Err(why) => self.done.push((path.clone(), Err(why))),
        }
        self.flush_when_full();
    }

    /// Makes an empty folder where nothing stands.
    pub fn make_dir(&mut self, path: &RelPath) {
        let made = match self.root.look(path) {
            Ok(Some(Found::Dir(_))) => Ok(Put::Same),
            Ok(Some(_)) => Err(format!("{path}: something else stands there")),
            Ok(None) => self.ensure_dir(path).map(|()| Put::Done),
            Err(e) => Err(format!("{path}: {e}")),
        };
        self.done.push((path.clone(), made));
    }

    /// Puts these bytes at a path. With `over` only if that is what stands there: they were made of it.
    pub fn place(
        &mut self,
        path: &RelPath,
        mut bytes: impl Read,
        (mode, mtime): (u32, Mtime),
        over: Option<FileStat>,
    ) {
        let staged = self
            .parents(path)
            .and_then(|()| self.stage_bytes(path, &mut bytes, mode, mtime))
            .map(|mut op| {
                if let (Op::Place { expect, .. }, Some(stat)) = (&mut op, over) {
                    *expect = Expect::Present(Kind::File, stat);
                }
                op
            });
        match staged {
            Ok(op) => self.queue.push(op),
            Err(why) => self.done.push((path.clone(), Err(why))),
        }
        self.flush_when_full();
    }

    /// Moves a file or link into history.
    pub fn remove(&mut self, path: &RelPath) {
        let op = expect(self.root, path).map(|expect| Op::Remove {
            path: path.clone(),
            expect,
        });
        match op {
            Ok(op) => self.queue.push(op),
            Err(why) => self.done.push((path.clone(), Err(why))),
        }
        self.flush_when_full();
    }

    /// Gives a file another name where nothing stands under it.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        self.flush();
        let old = self.root.parent_of(from)?;
        let new = self.root.parent_of(to)?;
        self.root
            .renamer
            .move_new(&old, from.name(), &new, to.name())?;
        sys::sync_dir(&old)?;
        Ok(sys::sync_dir(&new)?)
    }

    /// What is done by now, durably; in no order.
    pub fn take_done(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.done)
    }

    /// Does all that waits; then [`take_done`](Self::take_done) has the rest.
    pub fn finish(&mut self) -> Vec<Outcome> {
        self.flush();
        self.sync();
        self.take_done()
    }

    fn begin(
        &mut self,
        kept: &Kept,
        path: &RelPath,
        may_move: bool,
    ) -> Result<Option<Put>, String> {
        let text = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        self.parents(path)?;
        let found = self.root.look(path).map_err(|e| text(&e))?;
        if found.is_none() && may_move {
            return self.move_back(kept, path).map(Some);
        }
        if kept.link {
            let target = self.history.target(self.root, &kept.id, path);
            let target = target.map_err(|e| gone(path, &e))?;
            if matches!(&found, Some(Found::Symlink(_, now)) if *now == target) {
                return Ok(Some(Put::Same));
            }
            let mtime = kept.mtime;
            self.queue.push(Op::Place {
                path: path.clone(),
                node: Node::Symlink { mtime, target },
                staged: None,
                expect: expect_of(path, found)?,
                loser: None,
            });
            return Ok(None);
        }
        let mut file = self
            .history
            .read(self.root, &kept.id, path)
            .map_err(|e| gone(path, &e))?;
        if let Some(Found::File(now, _)) = &found
            && now.size == kept.size
            && self.is_same(path, &mut file).map_err(|e| text(&e))?
        {
            return Ok(Some(Put::Same));
        }
        let op = self.stage_file(path, &file, kept)?;
        self.queue.push(op);
        Ok(None)
    }

    /// Out of the history to where nothing stands, in one step: there is no moment in which the bytes
    /// are only in the stage.
    fn move_back(&mut self, kept: &Kept, path: &RelPath) -> Result<Put, String> {
        let text = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        let from = self.history.folder_of(self.root, &kept.id, path);
        let from = from.map_err(|e| gone(path, &e))?;
        let to = self.root.parent_of(path).map_err(|e| text(&e))?;
        let name = path.name();
        let renamer = &self.root.renamer;
        with_access(&[std::os::fd::AsFd::as_fd(&to)], || {
            renamer.move_new(&from, name, &to, name)
        })
        .map_err(|e| match e {
            rustix::io::Errno::EXIST => format!("{path}: something new stands there now"),
            e => gone(path, &e.into()),
        })?;
        self.touched.insert(path.parent());
        if self.touched.len() >= MAX_TOUCHED {
            self.sync();
        }
        Ok(Put::Done)
    }

    fn is_same(&self, path: &RelPath, kept: &mut File) -> io::Result<bool> {
        let (mut now, _) = self.root.open_file(path)?;
        let same = same_bytes(&mut now, kept)?;
        io::Seek::rewind(kept)?;
        Ok(same)
    }

    fn stage_file(&self, path: &RelPath, from: &File, kept: &Kept) -> Result<Op, String> {
        let name = self.stage.unique_name();
        let text = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        let staged = self.stage.create(&name).map_err(|e| text(&e))?;
        let cloned = rustix::fs::ioctl_ficlone(&staged, from).is_ok();
        let copied = match cloned {
            true => Ok(()),
            // Uses copy_file_range where the file system has it.
            false => io::copy(&mut &*from, &mut &staged).map(drop),
        };
        self.op(path, name, copied, &staged, kept.mode, kept.mtime)
    }

    fn stage_bytes(
        &self,
        path: &RelPath,
        bytes: &mut impl Read,
        mode: u32,
        mtime: Mtime,
    ) -> Result<Op, String> {
        let name = self.stage.unique_name();
        let staged = self.stage.create(&name);
        let staged = staged.map_err(|e| format!("{path}: {e}"))?;
        let copied = io::copy(bytes, &mut &staged).map(drop);
        self.op(path, name, copied, &staged, mode, mtime)
    }

    /// The operation that puts a staged file in place, or nothing is left of it.
    fn op(
        &self,
        path: &RelPath,
        name: left_core::plan::StageName,
        copied: io::Result<()>,
        staged: &File,
        mode: u32,
        mtime: Mtime,
    ) -> Result<Op, String> {
        let made = copied
            .and_then(|()| Ok(sys::stat_fd(staged)?.file.size))
            .map_err(|e| match sys::errno(&e) {
                Some(e) => reason(path, op_error(path, e)),
                None => format!("{path}: {e}"),
            })
            .and_then(|size| {
                Ok(Op::Place {
                    path: path.clone(),
                    node: Node::File {
                        mode: mode & MODE_MASK,
                        mtime,
                        size,
                        // Found out by the eye, as for every edit.
                        content: ContentId([0; 32]),
                    },
                    staged: Some(name.clone()),
                    expect: expect(self.root, path)?,
                    loser: None,
                })
            });
        if made.is_err() {
            let _ = self.stage.remove(&name);
        }
        made
    }

    fn parents(&mut self, path: &RelPath) -> Result<(), String> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if self.dir.as_ref() == Some(&parent) {
            return Ok(());
        }
        self.ensure_dir(&parent)?;
        self.dir = Some(parent);
        Ok(())
    }

    /// Makes a folder and those above it that are missing, with the mode of the nearest one that is
    /// there.
    fn ensure_dir(&self, path: &RelPath) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        let mut missing = Vec::new();
        let mut at = Some(path.clone());
        let mut mode = 0o755;
        while let Some(dir) = at {
            match self.root.look(&dir).map_err(|e| text(&e))? {
                Some(Found::Dir(stat)) => {
                    mode = stat.mode;
                    break;
                }
                Some(_) => return Err(format!("{path}: {dir} is no folder now")),
                None => {
                    at = dir.parent();
                    missing.push(dir);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let ops: Vec<(OpId, Op)> = missing
            .into_iter()
            .rev()
            .enumerate()
            .map(|(n, dir)| {
                let op = Op::Place {
                    path: dir,
                    node: Node::Dir { mode },
                    staged: None,
                    expect: Expect::Absent,
                    loser: None,
                };
                (OpId(n as u64), op)
            })
            .collect();
        for (_, result) in apply(self.root, self.stage, self.history, &ops) {
            match result {
                Ok(_) => {}
                // Somebody made it at the same moment.
                Err(OpError::Unexpected) if self.is_dir(path) => {}
                Err(e) => return Err(reason(path, e)),
            }
        }
        Ok(())
    }

    fn is_dir(&self, path: &RelPath) -> bool {
        matches!(self.root.look(path), Ok(Some(Found::Dir(_))))
    }

    fn flush_when_full(&mut self) {
        if self.queue.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        if queue.is_empty() {
            return;
        }
        let ops: Vec<(OpId, Op)> = queue
            .into_iter()
            .enumerate()
            .map(|(n, op)| (OpId(n as u64), op))
            .collect();
        let results = apply(self.root, self.stage, self.history, &ops);
        for ((_, op), (_, result)) in ops.into_iter().zip(results) {
            if let (
                Err(_),
                Op::Place {
                    staged: Some(name), ..
                },
            ) = (&result, &op)
            {
                // A copy of what is in history or in the share still.
                let _ = self.stage.remove(name);
            }
            let path = op.path().clone();
            let put = result.map(|_| Put::Done).map_err(|e| reason(&path, e));
            self.done.push((path, put));
        }
    }

    fn sync(&mut self) {
        for dir in std::mem::take(&mut self.touched) {
            let synced = self
                .root
                .open_dir(dir.as_ref())
                .and_then(|fd| sys::sync_dir(&fd));
            if let Err(error) = synced {
                // The names are there; only a power cut could take them back, into history.
                tracing::warn!(%error, "a folder could not be synced to disk");
            }
        }
    }
}

/// What stands at a path now, as the operation is to find it.
fn expect(root: &Root, path: &RelPath) -> Result<Expect, String> {
    let found = root.look(path).map_err(|e| format!("{path}: {e}"))?;
    expect_of(path, found)
}

fn expect_of(path: &RelPath, found: Option<Found>) -> Result<Expect, String> {
    Ok(match found {
        None => Expect::Absent,
        Some(Found::File(stat, _)) => Expect::Present(Kind::File, stat),
        Some(Found::Symlink(stat, _)) => Expect::Present(Kind::Symlink, stat),
        Some(Found::Dir(_)) => return Err(format!("{path}: a folder stands there now")),
        Some(Found::Special(what)) => return Err(format!("{path}: {what} stands there")),
    })
}

/// Whether two readers give the same bytes from where they are on.
pub fn same_bytes(a: &mut impl Read, b: &mut impl Read) -> io::Result<bool> {
    const PIECE: u64 = 64 << 10;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(PIECE).read_to_end(&mut left)?;
        b.by_ref().take(PIECE).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

fn gone(path: &RelPath, e: &io::Error) -> String {
    match sys::io_absent(e) || e.kind() == io::ErrorKind::NotFound {
        true => format!("{path}: that version is not kept any more"),
        false => format!("{path}: {e}"),
    }
}

fn reason(path: &RelPath, e: OpError) -> String {
    match e {
        OpError::Unexpected => format!("{path}: it was changed at the same moment; try again"),
        OpError::NotEmpty => format!("{path}: a folder with something in it stands there now"),
        OpError::NoParent => format!("{path}: its folder is gone again; try again"),
        OpError::NotStaged => format!("{path}: its copy is gone; try again"),
        OpError::Full => format!("{path}: no room on the disk"),
        OpError::Io(why) => why,
    }
}
