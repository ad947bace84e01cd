//! [`repair`]: after a power cut, what had been placed and had not reached the disk comes back from the
//! packs, before anything of the folder is shown to anybody.
//!
//! The index says what stands where, since it is durable; the packs have the bytes. What users did in
//! the meantime shows by its times and stays.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::io::Write;
use std::ops::ControlFlow;

use left_core::content::{ContentId, WHOLE_MAX};
use left_core::entry::{FileStat, Kind, Mtime, Node, Record};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError, OpId, StageName};
use rustix::fs::{self, Advice, AtFlags, FileType};

use super::apply::apply_over;
use super::durable::Cut;
use super::hash::{HashError, hash_file};
use super::history::History;
use super::look::Found;
use super::pack::{Item, Pack, Packs};
use super::rescue::read_small;
use super::root::Root;
use super::stage::Stage;
use super::sys::Stat;

mod kept;

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
    /// How many a user had written over before: they are in the history.
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

/// What is to be done about a path.
enum Verdict {
    Fix(Fix),
    /// A user's file stands where this was to stand.
    Keep(RelPath, Node),
    Well,
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
        told: HashSet::new(),
        done: Repaired::default(),
    };
    work.learn();
    let (mut fixes, mut overwritten) = (Vec::new(), Vec::new());
    for path in work.paths()? {
        match work.judge(path)? {
            Verdict::Fix(fix) => fixes.push(fix),
            Verdict::Keep(path, node) => overwritten.push((path, node)),
            Verdict::Well => {}
        }
    }
    // First: where this fails, and after the next cut, the packs tell of it still.
    work.keep(overwritten);
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

    fn judge(&self, path: RelPath) -> Result<Verdict, IndexError> {
        let record = self.index.get(&path)?.filter(|r| r.entry.node.is_live());
        let found = match self.root.stat(&path) {
            Ok(found) => found,
            // The eye will find the same, and say so.
            Err(_) => return Ok(Verdict::Well),
        };
        let fix = match &found {
            None => record.as_ref().and_then(|r| self.missing(&path, r)),
            Some(stat) if stat.kind == FileType::RegularFile => {
                self.standing(&path, record.as_ref(), stat)
            }
            Some(_) => None,
        };
        if let Some(fix) = fix {
            return Ok(Verdict::Fix(fix));
        }
        let overwritten = record.and_then(|r| self.overwritten(&path, &r, found.as_ref()));
        Ok(overwritten.map_or(Verdict::Well, |node| Verdict::Keep(path, node)))
    }

    /// Nothing stands where the index has something.
    fn missing(&self, path: &RelPath, record: &Record) -> Option<Fix> {
        let node = record.entry.node.clone();
        let known = match node.content() {
            Some(content) => self.contents.contains_key(&content),
            None => self.told.contains(path),
        };
        // What was there at the checkpoint is no loss of the cut.
        let unsure = record.stat.is_some_and(|s| s.ctime >= self.cut.since);
        (known && unsure).then(|| Fix {
            path: path.clone(),
            node,
            expect: Expect::Absent,
            recorded: true,
            junk: false,
        })
    }

    /// A file stands there: what should, what is left of one of ours, one from before, or a user's.
    fn standing(&self, path: &RelPath, record: Option<&Record>, stat: &Stat) -> Option<Fix> {
        let recorded = record.filter(|r| {
            let content = r.entry.node.content();
            content.is_some_and(|c| self.contents.contains_key(&c))
        });
        let then = record.and_then(|r| r.stat);
        // The index has heard of something later than what we placed: whether a cut took that back is
        // for the eye to say.
        if recorded.is_none() && then.is_some_and(|then| stat.file.ctime <= then.ctime) {
            return None;
        }
        let then = then.filter(|_| recorded.is_some());
        let as_recorded = then == Some(stat.file) && stat.file.ctime >= self.cut.since;
        let older = then.is_some_and(|then| stat.file.ctime <= then.ctime && stat.file != then);
        let ours = self.placed_as(stat);
        let known = ours.is_some() || as_recorded || older;
        // Of one that somebody touched since. What was written to it is his; what is empty is not.
        let touched = || {
            let item = self.made_as(stat).filter(|_| !known)?;
            let said = record.and_then(|r| r.entry.node.content());
            let same = said.is_none_or(|c| Some(c) == item.node.content());
            same.then_some(&item.node)
        };
        let touched = touched();
        if !known && touched.is_none() {
            return None;
        }
        let content = match self.hash(path, &stat.file) {
            Ok(content) => content,
            Err(_) => return None,
        };
        if !known && !is_blank(content, stat.file.size) {
            return None;
        }
        let (junk, should) = match (ours.or(touched), recorded) {
            // Its inode, and not its bytes. A program may write and set the time back: what it wrote is
            // in no file of ours that is torn.
            (Some(node), _) if node.content() != Some(content) => {
                let remnant = self.is_remnant(path, node);
                let written = then.is_some_and(|then| stat.file.ctime > then.ctime);
                if written && !remnant {
                    return None;
                }
                (remnant, node)
            }
            (_, Some(record)) if record.entry.node.content() != Some(content) => {
                // Looks as recorded: that may be a program's bytes of which the time did not reach the disk.
                let node = &record.entry.node;
                (self.is_remnant(path, node), node)
            }
            _ => return None,
        };
        let (node, recorded) = match recorded {
            Some(record) => (record.entry.node.clone(), true),
            None => (should.clone(), false),
        };
        Some(Fix {
            path: path.clone(),
            node,
            expect: Expect::Present(Kind::File, stat.file),
            recorded,
            junk,
        })
    }

    /// Whether nothing stands in a file but pieces of what it was placed with, and zeros.
    fn is_remnant(&self, path: &RelPath, node: &Node) -> bool {
        let found = self.root.parent_of(path).map_err(io::Error::from);
        let found = found.and_then(|dir| read_small(&dir, path.name(), node.size()));
        match (self.wanted(node), found) {
            (Some(wanted), Ok(found)) => is_part(&found, &wanted),
            _ => false,
        }
    }

    /// The bytes of a file, from the packs.
    fn wanted(&self, node: &Node) -> Option<Vec<u8>> {
        let told = self.contents.get(&node.content()?)?;
        self.packs.content(self.packs.items.get(*told)?)
    }

    /// What a file was placed as, if it is one of ours that nobody has written to since.
    fn placed_as(&self, stat: &Stat) -> Option<&Node> {
        let item = self.made_as(stat)?;
        let Node::File { mtime, .. } = &item.node else {
            return None;
        };
        // A file system without a journal may also have kept it as it was before its mtime was set.
        let untouched = stat.file.mtime == *mtime || stat.file.ctime <= item.inode.ctime;
        untouched.then_some(&item.node)
    }

    /// The item that a file was made for, whatever became of it.
    fn made_as(&self, stat: &Stat) -> Option<&Item> {
        let at = self.inodes.get(&stat.file.ino)?;
        let item = &self.packs.items.get(*at)?.item;
        (item.inode.born == stat.born).then_some(item)
    }

    fn hash(&self, path: &RelPath, stat: &FileStat) -> Result<ContentId, HashError> {
        // What could not be written may still be in memory, and nowhere else.
        if let Ok((file, _)) = self.root.open_regular(path) {
            let _ = fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
        hash_file(self.root, path, stat, &mut |_| ControlFlow::Continue(()))
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
                    Ok(name) => Some(name),
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

    fn stage_content(&self, content: ContentId) -> io::Result<StageName> {
        let told = self.contents.get(&content);
        let told = told.and_then(|n| self.packs.items.get(*n));
        let bytes = told.and_then(|told| self.packs.content(told));
        let bytes = bytes.ok_or_else(damaged)?;
        let name = self.stage.unique_name();
        self.stage.create(&name)?.write_all(&bytes)?;
        Ok(name)
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

/// Whether each block of a torn file is as it was to be, or was never written.
fn is_part(found: &[u8], wanted: &[u8]) -> bool {
    /// No disk writes less at once.
    const SECTOR: usize = 512;
    let mut pairs = found.chunks(SECTOR).zip(wanted.chunks(SECTOR));
    let part = |(found, wanted): (&[u8], &[u8])| {
        found.iter().all(|b| *b == 0) || wanted.starts_with(found)
    };
    found.len() <= wanted.len() && pairs.all(part)
}

/// Whether nothing but zeros is in a file: its bytes did not reach the disk.
fn is_blank(content: ContentId, size: u64) -> bool {
    size <= WHOLE_MAX && left_core::chunker::content_id(&vec![0; size as usize]) == content
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
