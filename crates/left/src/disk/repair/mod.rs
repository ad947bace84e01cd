//! [`repair`]: after a power cut, what had been placed and had not reached the disk comes back from the
//! packs, before anything of the folder is shown to anybody.
//!
//! The index says what stands where, since it is durable; the packs have the bytes. What users did in
//! the meantime shows by its times and stays.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::io::Write;

use left_core::content::ContentId;
use left_core::entry::{FileStat, Kind, Mtime, Node, Record};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError, OpId, StageName};
use rustix::fs::{self, AtFlags};

use super::apply::apply_over;
use super::durable::Cut;
use super::history::History;
use super::look::Found;
use super::pack::{Pack, Packs};
use super::rescue::read_small;
use super::root::Root;
use super::stage::Stage;

mod judge;
mod kept;

use judge::{Verdict, is_part};

/// Operations of one batch, and bytes staged for it.
const BATCH: usize = 512;
const BATCH_BYTES: u64 = 16 << 20;
/// Contents asked of the index at once.
const PAGE: usize = 1000;

/// What a repair asks of the index.
pub trait Placed {
    /// The record of a path, live or tombstone.
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError>;
    /// Live files of each of these contents, some of them at least.
    fn places(&self, contents: &[ContentId]) -> Result<Vec<(RelPath, Record)>, IndexError>;
}

/// What came of a repair.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What stands there again as it is recorded, and what `lstat` says of it: to be recorded.
    pub placed: Vec<(RelPath, FileStat)>,
    /// How many files, folders and links were brought back.
    pub count: usize,
    /// How many a user had written over before, or the index knows nothing of: they are in the history.
    pub kept: usize,
    /// How many could not be.
    pub failed: usize,
}

/// Something that is not as it should be.
struct Fix {
    path: RelPath,
    node: Node,
    expect: Expect,
    /// The index says so. Else the power was cut before it could.
    recorded: bool,
    /// What stands there is what is left of a file of ours.
    junk: bool,
}

/// Brings back what the packs know of. Durable when this returns, and then the packs are retired, but
/// where something failed: those stay until peers have healed it.
///
/// # Errors
/// When the index can not be read.
pub fn repair(
    root: &Root,
    stage: &Stage,
    history: &History,
    pack: &Pack,
    index: &dyn Placed,
    cut: Cut,
) -> Result<Repaired, IndexError> {
    let packs = pack.read();
    let mut work = Work {
        root,
        stage,
        history,
        pack,
        packs,
        index,
        cut,
        contents: HashMap::new(),
        inodes: HashMap::new(),
        placed: HashMap::new(),
        told: HashSet::new(),
        done: Repaired::default(),
    };
    work.learn();
    let (mut fixes, mut kept) = (Vec::new(), Vec::new());
    for path in work.paths()? {
        match work.judge(path)? {
            Verdict::Fix(fix) => fixes.push(fix),
            Verdict::Keep(path, node) => kept.push((path, node)),
            Verdict::Well => {}
        }
    }
    // First: where this fails, and after the next cut, the packs tell of it still.
    work.keep(kept);
    let fixes = work.with_parents(fixes)?;
    for batch in batches(&fixes) {
        work.fix(batch);
        crash_point!("repairing");
    }
    work.clean_history();
    let mut done = work.done;
    pack.seal();
    let synced = root.sync_disk();
    if let Err(error) = &synced {
        tracing::warn!(%error, "what was repaired could not be synced to disk");
        done.failed += done.count.max(1);
    }
    crash_point!("repaired");
    pack.repaired(done.failed == 0);
    Ok(done)
}

struct Work<'a> {
    root: &'a Root,
    stage: &'a Stage,
    history: &'a History,
    pack: &'a Pack,
    packs: Packs,
    index: &'a dyn Placed,
    cut: Cut,
    /// Which item of the packs has a content.
    contents: HashMap<ContentId, usize>,
    /// Which item an inode was made for, the last one.
    inodes: HashMap<u64, usize>,
    /// Which item was placed at a path, the last one.
    placed: HashMap<RelPath, usize>,
    /// Folders and links that were packed.
    told: HashSet<RelPath>,
    done: Repaired,
}

impl Work<'_> {
    fn learn(&mut self) {
        for (n, told) in self.packs.items.iter().enumerate() {
            match told.item.node.content() {
                Some(content) => {
                    self.contents.insert(content, n);
                    self.inodes.insert(told.item.inode.ino, n);
                    self.placed.insert(told.item.path.clone(), n);
                }
                None => {
                    self.told.insert(told.item.path.clone());
                }
            }
        }
    }

    /// Everything that is to be looked at, in order: where things were placed, wherever else the index
    /// has the same content, and where users moved files before the index heard of it.
    fn paths(&self) -> Result<BTreeSet<RelPath>, IndexError> {
        let mut paths: BTreeSet<RelPath> = self
            .packs
            .items
            .iter()
            .map(|t| t.item.path.clone())
            .collect();
        let contents: Vec<ContentId> = self.contents.keys().copied().collect();
        for page in contents.chunks(PAGE) {
            paths.extend(self.index.places(page)?.into_iter().map(|(path, _)| path));
        }
        self.strays(&mut paths);
        Ok(paths)
    }

    /// Adds where else files of ours stand than where they were placed.
    fn strays(&self, paths: &mut BTreeSet<RelPath>) {
        let mut left: HashSet<u64> = self.inodes.keys().copied().collect();
        for path in &*paths {
            if let Ok(Some(stat)) = self.root.stat(path) {
                left.remove(&stat.file.ino);
            }
        }
        if left.is_empty() {
            return;
        }
        let walked = self.root.each_below(None, &mut |path, found| {
            if let Found::File(stat, _) = found
                && left.contains(&stat.ino)
            {
                paths.insert(path);
            }
        });
        if let Err(error) = walked {
            tracing::warn!(%error, "the folder could not be looked through");
        }
    }

    /// Adds the folders that are missing above what is missing, as the index has them.
    fn with_parents(&self, fixes: Vec<Fix>) -> Result<Vec<Fix>, IndexError> {
        let mut listed: HashSet<RelPath> = fixes.iter().map(|f| f.path.clone()).collect();
        let mut all = Vec::with_capacity(fixes.len());
        for fix in fixes {
            let mut above = Vec::new();
            let mut at = fix.path.parent().filter(|_| fix.expect == Expect::Absent);
            while let Some(dir) = at {
                at = dir.parent();
                if listed.contains(&dir) || !matches!(self.root.stat(&dir), Ok(None)) {
                    break;
                }
                let Some(record) = self.index.get(&dir)? else {
                    break;
                };
                if record.entry.node.kind() != Kind::Dir {
                    break;
                }
                listed.insert(dir.clone());
                above.push(Fix {
                    path: dir,
                    node: record.entry.node,
                    expect: Expect::Absent,
                    recorded: true,
                    junk: false,
                });
            }
            all.extend(above.into_iter().rev());
            all.push(fix);
        }
        Ok(all)
    }

    fn fix(&mut self, fixes: &[Fix]) {
        let (mut junk, mut overwritten) = (HashSet::new(), Vec::new());
        let mut ops = Vec::with_capacity(fixes.len());
        for (n, fix) in fixes.iter().enumerate() {
            if let (true, Expect::Present(_, stat)) = (fix.junk, &fix.expect) {
                junk.insert(stat.ino);
            }
            let staged = match fix.node.content() {
                None => None,
                Some(content) => match self.stage_content(content) {
                    Ok((name, _)) => Some(name),
                    Err(error) => {
                        tracing::warn!(path = %fix.path, %error, "not repaired from a pack");
                        self.done.failed += 1;
                        continue;
                    }
                },
            };
            let op = Op::Place {
                path: fix.path.clone(),
                node: fix.node.clone(),
                staged,
                expect: fix.expect,
                loser: None,
            };
            ops.push((OpId(n as u64), op));
        }
        // The power may be cut once more before this is on the disk: it is packed too.
        let (root, stage, history) = (self.root, self.stage, self.history);
        let results = apply_over(root, stage, history, self.pack, &junk, &ops);
        for (OpId(n), result) in results {
            let Some(fix) = fixes.get(n as usize) else {
                continue;
            };
            match result {
                Ok(done) => {
                    self.done.count += 1;
                    if let (true, Some(stat)) = (fix.recorded, done.stat) {
                        self.done.placed.push((fix.path.clone(), stat));
                    }
                }
                // A user was faster, or made something else of its folder: the eye will see to it.
                Err(OpError::Unexpected | OpError::NoParent) => {
                    if fix.node.content().is_some() {
                        overwritten.push((fix.path.clone(), fix.node.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(path = %fix.path, %error, "not repaired from a pack");
                    self.done.failed += 1;
                }
            }
        }
        self.keep(overwritten);
    }

    fn stage_content(&self, content: ContentId) -> io::Result<(StageName, File)> {
        let told = self.contents.get(&content);
        let told = told.and_then(|n| self.packs.items.get(*n));
        let bytes = told.and_then(|told| self.packs.content(told));
        let bytes = bytes.ok_or_else(damaged)?;
        let name = self.stage.unique_name();
        let mut file = self.stage.create(&name)?;
        file.write_all(&bytes)?;
        Ok((name, file))
    }

    /// Removes what is left of our own files from the history: they were on their way through it when
    /// the power was cut, and are nobody's older version.
    fn clean_history(&self) {
        let since = Mtime {
            secs: self.cut.since.secs.saturating_sub(60),
            ..self.cut.since
        };
        let walked = self.history.each_since(since, &mut |dir, name, stat| {
            let Some(node) = self.placed_as(stat) else {
                return;
            };
            let (Ok(found), Some(wanted)) = (read_small(dir, name, node.size()), self.wanted(node))
            else {
                return;
            };
            if found != wanted && is_part(&found, &wanted) {
                let _ = fs::unlinkat(dir, name, AtFlags::empty());
            }
        });
        if let Err(error) = walked {
            tracing::warn!(%error, "the history could not be looked through");
        }
    }
}

fn damaged() -> io::Error {
    io::Error::other("its bytes in the pack are damaged")
}

/// Cuts the work into pieces that fit into the stage.
fn batches(mut fixes: &[Fix]) -> Vec<&[Fix]> {
    let mut all = Vec::new();
    while !fixes.is_empty() {
        let mut bytes = 0;
        let fits = fixes.iter().take(BATCH).take_while(|fix| {
            bytes += fix.node.size();
            bytes <= BATCH_BYTES
        });
        let (now, later) = fixes.split_at(fits.count().max(1));
        all.push(now);
        fixes = later;
    }
    all
}
