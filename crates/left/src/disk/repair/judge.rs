//! What is to be done about a path after a power cut, by what stands there, what the index says and what
//! the packs have.

use std::cell::OnceCell;
use std::io;
use std::ops::ControlFlow;

use left_core::content::{ContentId, WHOLE_MAX};
use left_core::entry::{FileStat, Kind, Node, Record};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::Expect;
use rustix::fs::{self, Advice, FileType};

use super::{Fix, Work};
use crate::disk::hash::{HashError, hash_file};
use crate::disk::pack::Item;
use crate::disk::rescue::read_small;
use crate::disk::sys::Stat;

/// What is to be done about a path.
pub(super) enum Verdict {
    Fix(Fix),
    /// This will not stand there again, but must be somewhere.
    Keep(RelPath, Node),
    Well,
}

/// What stands there now, if it can be read.
type Hash<'a> = &'a dyn Fn(&Stat) -> Option<ContentId>;

impl Work<'_> {
    pub(super) fn judge(&self, path: RelPath) -> Result<Verdict, IndexError> {
        let heard = self.index.get(&path)?;
        let record = heard.as_ref().filter(|r| r.entry.node.is_live());
        let found = match self.root.stat(&path) {
            Ok(found) => found,
            // The eye will find the same, and say so.
            Err(_) => return Ok(Verdict::Well),
        };
        // Read at most once, and only if it matters.
        let content = OnceCell::new();
        let hash = |stat: &Stat| *content.get_or_init(|| self.hash(&path, &stat.file).ok());
        let fix = match &found {
            None => record.and_then(|r| self.missing(&path, r)),
            Some(stat) if stat.kind == FileType::RegularFile => {
                self.standing(&path, record, stat, &hash)
            }
            Some(_) => None,
        };
        if let Some(fix) = fix {
            return Ok(Verdict::Fix(fix));
        }
        let left_over = self.left_over(&path, heard.as_ref(), found.as_ref(), &hash);
        Ok(left_over.map_or(Verdict::Well, |node| Verdict::Keep(path, node)))
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
    fn standing(
        &self,
        path: &RelPath,
        record: Option<&Record>,
        stat: &Stat,
        hash: Hash<'_>,
    ) -> Option<Fix> {
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
        let content = hash(stat)?;
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
    pub(super) fn wanted(&self, node: &Node) -> Option<Vec<u8>> {
        let told = self.contents.get(&node.content()?)?;
        self.packs.content(self.packs.items.get(*told)?)
    }

    /// What a file was placed as, if it is one of ours that nobody has written to since.
    pub(super) fn placed_as(&self, stat: &Stat) -> Option<&Node> {
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

    /// What the cut took back and will not stand where it did: a user made something else there since, or the index
    /// has never heard of it, as one that was lost and made anew. The pack may be all that has it.
    fn left_over(
        &self,
        path: &RelPath,
        record: Option<&Record>,
        found: Option<&Stat>,
        hash: Hash<'_>,
    ) -> Option<Node> {
        let node = match record {
            Some(record) => {
                let unsure = record.stat.is_some_and(|s| s.ctime >= self.cut.since);
                let node = Some(&record.entry.node).filter(|n| unsure && n.is_live());
                found.and(node)?
            }
            None => &self.packs.items.get(*self.placed.get(path)?)?.item.node,
        };
        let content = node.content()?;
        let stands = |stat: &Stat| {
            stat.kind == FileType::RegularFile
                && stat.file.size == node.size()
                && hash(stat) == Some(content)
        };
        let lost = self.contents.contains_key(&content) && !found.is_some_and(stands);
        lost.then(|| node.clone())
    }
}

/// Whether each block of a torn file is as it was to be, or was never written.
pub(super) fn is_part(found: &[u8], wanted: &[u8]) -> bool {
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
