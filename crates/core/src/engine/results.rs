//! What came of fetches and operations: entries are committed, failures tried again.

use std::collections::HashSet;

use super::work::{Job, Retry};
use super::{Effect, Engine, Now, Report};
use crate::conflict::copy_entry;
use crate::diff::edit;
use crate::entry::{Entry, Kind, Node, Record};
use crate::index::{Index, IndexError, Txn};
use crate::path::RelPath;
use crate::plan::{FetchError, Op, OpDone, OpError, OpId, StageName};
use crate::probe::cover;
use crate::version::DeviceId;

/// Waiting after a failure that may be gone in a moment.
const RETRY_MS: u64 = 1000;
/// Longest waiting between tries.
const RETRY_MAX_MS: u64 = 60_000;
/// Waiting for room on a full disk.
pub(super) const FULL_MS: u64 = 5000;
/// The same when again and again nothing could be put in place: each try walks all needs.
const FULL_MAX_MS: u64 = 40_000;
/// Failures remembered one by one; beyond it all needs are walked again after a while.
const MAX_RETRIES: usize = 10_000;
/// Records read at a time below a folder that went away.
const BURY_PAGE: usize = 256;
/// From this many failures in a row on, a folder that a peer deleted is kept for what is in it.
const KEEP_AFTER: u32 = 4;
/// From this many failures in a row on, people are told.
const TELL_AFTER: u32 = 4;

impl Engine {
    pub(super) fn fetched(
        &mut self,
        now: Now,
        results: Vec<(OpId, Result<StageName, FetchError>)>,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let mut ops = Vec::new();
        for (id, result) in results {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            let unwanted = job.heals.is_none() && !self.wants(&job.path, job.ours.as_ref());
            match result {
                Ok(_) if unwanted => {
                    cover("fetch: not chosen any more");
                    let path = job.path.clone();
                    self.release(id, out);
                    self.fresh.push(path);
                }
                Ok(staged) => ops.push((
                    id,
                    Op::Place {
                        path: job.path.clone(),
                        node: job.target.node.clone(),
                        staged: Some(staged),
                        expect: job.expect(),
                        loser: job.loser.clone(),
                    },
                )),
                Err(error) => self.fetch_failed(now, id, &error, index, out)?,
            }
        }
        if !ops.is_empty() {
            out.push(Effect::Apply(ops));
        }
        Ok(())
    }

    fn fetch_failed(
        &mut self,
        now: Now,
        id: OpId,
        error: &FetchError,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(job) = self.release(id, out) else {
            return Ok(());
        };
        self.not_healed(now, &job);
        match error {
            FetchError::Full => {
                cover("fetch: disk full");
                self.disk_full(now, out);
            }
            FetchError::Cancelled => {
                cover("fetch: cancelled");
                self.walker.again();
            }
            // The peer's file changed, and it will say so; or it left.
            FetchError::Gone => {
                cover("fetch: gone");
                let theirs = index.theirs(&job.path)?;
                let announced = theirs.iter().map(|(d, _)| d);
                if self.connected(announced).next().is_some() || self.asks_all(&theirs) {
                    self.retry(now, &job.path, None, out);
                }
            }
            FetchError::Corrupt(_) | FetchError::Io(_) => {
                cover("fetch: failed");
                self.retry(now, &job.path, Some(error.to_string()), out);
            }
        }
        Ok(())
    }

    pub(super) fn applied(
        &mut self,
        now: Now,
        results: Vec<(OpId, Result<OpDone, OpError>)>,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let mut puts = Puts::default();
        for (id, result) in results {
            let Some(job) = self.release(id, out) else {
                continue;
            };
            match result {
                Ok(_) if job.drops => self.drop_done(*job),
                Err(error) if job.drops => {
                    let done = std::mem::take(&mut puts);
                    self.commit(done.txn, &done.from, index)?;
                    self.drop_failed(*job, error, index, out)?;
                }
                Ok(done) => {
                    self.full_wait = FULL_MS;
                    self.op_done(now, job, done, index, &mut puts, out)?;
                }
                Err(error) => {
                    let path = job.path.clone();
                    // What is decided now must see what was done before.
                    let done = std::mem::take(&mut puts);
                    self.commit(done.txn, &done.from, index)?;
                    self.op_failed(now, &job, error, index, out)?;
                    debug_assert!(!self.busy.contains_key(&path));
                }
            }
        }
        self.commit(puts.txn, &puts.from, index)
    }

    fn op_done(
        &mut self,
        now: Now,
        job: Box<Job>,
        done: OpDone,
        index: &dyn Index,
        puts: &mut Puts,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        if let (Some((copy, stat)), Some(ours)) = (done.loser, &job.ours) {
            out.push(Effect::Report(Report::Conflict {
                path: job.path.clone(),
                copy: copy.clone(),
            }));
            // The copy comes before the path, so that nobody hears that the edit lost without
            // hearing where it is kept.
            let mut entry = copy_entry(&ours.entry);
            if let Some(old) = index.get(&copy)? {
                // The name was known for something else.
                cover("copy: the name was known");
                entry.version = entry.version.join(&old.entry.version);
                if entry.version == old.entry.version {
                    let author = self.author(now, index);
                    entry = edit(Some(&old), entry.node, None, &author).entry;
                }
            }
            let entry = self.settle(&copy, entry, index, &mut puts.txn)?;
            let stat = Some(stat);
            puts.put(copy, Record { entry, stat }, vec![]);
        }
        if job.ours.as_ref().map(|r| r.entry.node.kind()) == Some(Kind::Dir)
            && job.target.node.kind() != Kind::Dir
        {
            self.bury_below(now, &job.path, index, puts)?;
        }
        if let Some((old, _, gone)) = job.moved {
            let entry = self.settle(&old, gone, index, &mut puts.txn)?;
            puts.put(old, Record { entry, stat: None }, vec![]);
        }
        let announced = index.theirs(&job.path)?;
        let entry = self.settle_with(&job.path, job.target, &announced, &mut puts.txn);
        let echo = announced
            .into_iter()
            .filter(|(_, e)| *e == entry)
            .map(|(peer, _)| peer)
            .collect();
        out.push(Effect::Report(if entry.node.is_live() {
            Report::Received {
                path: job.path.clone(),
                bytes: entry.node.size(),
            }
        } else {
            Report::Deleted {
                path: job.path.clone(),
            }
        }));
        if job.heals.is_some() {
            self.healed();
        }
        self.not_torn(&job.path);
        self.solved(&job.path, out);
        self.retries.remove(&job.path);
        if !entry.node.is_live()
            && let Some(parent) = job.path.parent()
            && self.retries.remove(&parent).is_some()
        {
            // It may be empty now.
            cover("done: the folder may be empty now");
            self.fresh.push(parent);
        }
        let stat = done.stat;
        puts.put(job.path, Record { entry, stat }, echo);
        Ok(())
    }

    /// A folder went away, so it was empty: whatever our index still has below it was deleted here
    /// though nobody has looked yet. It is told before the folder, for a peer that hears of the
    /// folder's deletion alone would keep the folder because of what is in it.
    fn bury_below(
        &mut self,
        now: Now,
        dir: &RelPath,
        index: &dyn Index,
        puts: &mut Puts,
    ) -> Result<(), IndexError> {
        let author = self.author(now, index);
        let mut left = index.live_below(dir, None, BURY_PAGE)?;
        while let Some((last, _)) = left.last().cloned() {
            for (path, record) in left.into_iter().rev() {
                if self.busy.contains_key(&path) || puts.paths.contains(&path) {
                    continue;
                }
                cover("done: what was below was deleted too");
                self.guard.unhold(&path);
                self.meant.remove(&path);
                self.not_torn(&path);
                let gone = edit(Some(&record), Node::Tombstone, None, &author).entry;
                let entry = self.settle(&path, gone, index, &mut puts.txn)?;
                puts.put(path, Record { entry, stat: None }, vec![]);
            }
            left = index.live_below(dir, Some(&last), BURY_PAGE)?;
        }
        Ok(())
    }

    fn op_failed(
        &mut self,
        now: Now,
        job: &Job,
        error: OpError,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let path = &job.path;
        if error != OpError::Unexpected {
            self.not_healed(now, job);
        }
        match error {
            OpError::Unexpected => {
                cover("failed: something else stood there");
                let mut paths = vec![path.clone()];
                paths.extend(job.moved.iter().map(|(from, ..)| from.clone()));
                out.push(Effect::Rescan(paths));
                let told = "something that is not synchronised (ignored, or not readable) stands \
                            where a peer's file belongs; move it away";
                self.retry(now, path, Some(told.to_owned()), out);
            }
            OpError::NotEmpty => self.not_empty(now, path, index, out)?,
            OpError::NoParent => {
                cover("failed: no folder for it");
                self.parent_gone(now, path, index, out)?;
                self.retry(now, path, None, out);
            }
            OpError::NotStaged => {
                cover("failed: not staged any more");
                self.fresh.push(path.clone());
            }
            OpError::Full => {
                cover("failed: disk full");
                self.disk_full(now, out);
            }
            OpError::Io(reason) => {
                cover("failed: input or output");
                self.retry(now, path, Some(reason), out);
            }
        }
        Ok(())
    }

    /// A folder that is to go holds something.
    fn not_empty(
        &mut self,
        now: Now,
        path: &RelPath,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let attempts = self.retries.get(path).map_or(0, |r| r.attempts);
        let known = !index.live_below(path, None, 1)?.is_empty();
        let wait = if known {
            // Deletions below that did not go as expected are decided again; others may be on their
            // way, for a folder's deletion can be told before that of what was in it. And whoever
            // deleted the folder makes it again when it hears of something new in it.
            attempts < KEEP_AFTER
                || self.is_draining(path, index)?
                || self.index_incoming()
                || self.is_theirs_below(path, index)?
        } else {
            // Something new may stand there that was not looked at yet.
            attempts == 0
        };
        cover(match (wait, known) {
            (true, true) => "not empty: wait for deletions below",
            (true, false) => "not empty: look at what stands there",
            (false, true) => "not empty: kept, what is in it stays",
            (false, false) => "not empty: kept, holds what is not synchronised",
        });
        if wait {
            if !known {
                out.push(Effect::Rescan(vec![path.clone()]));
            }
            self.retry(now, path, None, out);
            return Ok(());
        }
        let mut txn = Txn::default();
        self.retries.remove(path);
        self.keep_dir(now, path, index, &mut txn)?;
        self.commit(txn, &[], index)
    }

    /// An operation did not find the folder it belongs in, though our index says that it is there:
    /// have the nearest one that the index knows looked at.
    fn parent_gone(
        &mut self,
        now: Now,
        path: &RelPath,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let attempts = self.retries.get(path).map_or(0, |r| r.attempts);
        let record = index.get(&parent)?;
        let is_dir = record
            .as_ref()
            .is_some_and(|r| r.entry.node.kind() == Kind::Dir);
        // While deletions are judged it may have vanished with all else.
        let judged = !self.is_deleting() && self.alarm.is_none();
        if attempts >= 1 && is_dir && judged && !self.busy.contains_key(&parent) {
            cover("no parent: made again");
            // It was looked at and is still missing, yet a peer's file belongs in it. Not an edit
            // of anybody's: take it as deleted here, so that it is made again.
            let author = self.author(now, index);
            let gone: Entry = edit(record.as_ref(), Node::Tombstone, None, &author).entry;
            let mut txn = Txn::default();
            let entry = self.settle(&parent, gone, index, &mut txn)?;
            txn.put.push((parent.clone(), Record { entry, stat: None }));
            self.commit(txn, &[], index)?;
        }
        // The path too: where a file stands in the parent's place, that looks as it should.
        out.push(Effect::Rescan(vec![parent, path.clone()]));
        Ok(())
    }

    /// A look at a path showed nothing new: what failed there is not tried at once, for it would fail
    /// in the same way, but soon. The count of failures stays.
    pub(super) fn retry_soon(&mut self, now: Now, path: &RelPath) {
        if let Some(retry) = self.retries.get_mut(path) {
            retry.at = retry.at.map(|at| at.min(now.mono_ms + RETRY_MS));
        }
    }

    /// Leaves a path alone for a while, longer from time to time, and tells people when it keeps
    /// going wrong.
    fn retry(&mut self, now: Now, path: &RelPath, reason: Option<String>, out: &mut Vec<Effect>) {
        if self.retries.len() >= MAX_RETRIES && !self.retries.contains_key(path) {
            self.rewalk_at = Some(now.mono_ms + RETRY_MAX_MS);
            return;
        }
        let attempts = self.retries.get(path).map_or(0, |r| r.attempts) + 1;
        let wait = (RETRY_MS << (attempts - 1).min(6)).min(RETRY_MAX_MS);
        let at = Some(now.mono_ms + wait);
        self.retries.insert(path.clone(), Retry { at, attempts });
        if let Some(reason) = reason
            && attempts == TELL_AFTER
        {
            self.problem(path, reason, out);
        }
    }

    /// Tries again what is due.
    pub(super) fn expire_retries(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.full_until.is_some_and(|at| at <= now.mono_ms) {
            self.full_until = None;
            out.push(Effect::Report(Report::Full(false)));
            self.walker.again();
        }
        if self.rewalk_at.is_some_and(|at| at <= now.mono_ms) {
            self.rewalk_at = None;
            self.walker.again();
        }
        for (path, retry) in &mut self.retries {
            if retry.at.is_some_and(|at| at <= now.mono_ms) {
                // The count of failures stays until the path is done.
                retry.at = None;
                self.fresh.push(path.clone());
            }
        }
        if self.jobs.is_empty() {
            self.fresh.extend(self.walker.take_waiting());
        }
    }

    fn disk_full(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.full_until.is_none() {
            out.push(Effect::Report(Report::Full(true)));
            self.full_until = Some(now.mono_ms + self.full_wait);
            self.full_wait = (2 * self.full_wait).min(FULL_MAX_MS);
        }
    }

    /// Ends a job: its paths are free again.
    fn release(&mut self, id: OpId, out: &mut Vec<Effect>) -> Option<Box<Job>> {
        let job = self.jobs.remove(&id)?;
        if let Some(content) = job.fetching {
            self.contents.remove(&content);
        }
        for copy in &job.copies {
            if let Some(count) = self.sources.get_mut(copy) {
                *count -= 1;
                if *count == 0 {
                    self.sources.remove(copy);
                }
            }
        }
        let mut again = Vec::new();
        let paths = std::iter::once(&job.path)
            .chain(job.moved.iter().map(|(from, ..)| from))
            .chain(&job.loser);
        for path in paths {
            if self.busy.get(path) == Some(&id) {
                self.busy.remove(path);
            }
            if self.look_again.remove(path) {
                again.push(path.clone());
            }
        }
        if !again.is_empty() {
            out.push(Effect::Rescan(again));
        }
        // What peers announced of the other paths meanwhile was put off.
        self.fresh
            .extend(job.moved.iter().map(|(from, ..)| from.clone()));
        self.fresh.extend(job.loser.clone());
        let waiting = self.walker.take_waiting();
        self.fresh.extend(waiting);
        Some(job)
    }
}

/// Records to be committed, each with the peers that need not be told of it.
#[derive(Default)]
struct Puts {
    txn: Txn,
    paths: HashSet<RelPath>,
    from: Vec<Vec<DeviceId>>,
}

impl Puts {
    fn put(&mut self, path: RelPath, record: Record, echo: Vec<DeviceId>) {
        self.paths.insert(path.clone());
        self.txn.put.push((path, record));
        self.from.push(echo);
    }
}
