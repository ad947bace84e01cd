//! The disk was looked at: local edits become entries; suspicious deletions are held.

use std::collections::{HashMap, HashSet};

use super::{Effect, Engine, Now, Report};
use crate::diff::{Change, Observation, Seen, observe};
use crate::entry::{Entry, Kind, Node, Record};
use crate::index::{Index, IndexError, Txn};
use crate::message::Role;
use crate::path::RelPath;
use crate::probe::{cover, mutant};
use crate::reconcile::Decision;
use crate::safety::{QUIET_MS, Verdict, is_emptied};
use crate::version::DeviceId;

/// Paths below a folder that went away which are looked at once more.
const MAX_BELOW: usize = 1000;
/// Folders that just arrived somewhere, remembered to tell those that moved from deleted ones.
const MAX_ARRIVED: usize = 4096;

impl Engine {
    /// Takes in what a look at the disk showed.
    pub(super) fn observed(
        &mut self,
        now: Now,
        seen: Vec<Observation>,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let author = self.author(now, index);
        let totals = index.totals()?;
        let files = totals.files + totals.links;
        let mut txn = Txn::default();
        let mut rescan = Vec::new();
        // Inodes that this batch shows at a new path: their old paths were not deleted, but left.
        let mut arrived = HashSet::new();
        let mut gone_dirs = Vec::new();
        let seen = latest(seen);
        // Where something moved to and is gone too, it was not moved: all of it vanished.
        let gone: HashSet<RelPath> = (seen.iter())
            .filter(|o| matches!(o.seen, Seen::Absent))
            .map(|o| o.path.clone())
            .collect();
        for Observation { path, seen } in seen {
            if self.busy.contains_key(&path) && !mutant("guard of busy paths removed") {
                cover("local: seen while busy, look again");
                self.look_again.insert(path);
                continue;
            }
            if let Seen::Unreadable { reason } = seen {
                cover("local: unreadable");
                self.problem(&path, reason, out);
                continue;
            }
            if let Seen::Torn(stat) = seen {
                self.torn(now, path, stat, files, index, out)?;
                continue;
            }
            let record = index.get(&path)?;
            self.not_torn(&path);
            self.solved(&path, out);
            let was_dir = record
                .as_ref()
                .is_some_and(|r| r.entry.node.kind() == Kind::Dir);
            if was_dir && !matches!(seen, Seen::Dir(_)) {
                gone_dirs.push(path.clone());
            }
            if seen == Seen::Absent {
                if !self.may_delete(now, &path, record.as_ref(), (&arrived, &gone), files, index)? {
                    continue;
                }
            } else {
                self.guard.unhold(&path);
                self.meant.remove(&path);
            }
            let change = observe(record.as_ref(), &seen, &author);
            let same = change == Change::None && !mutant("a look forgets what failed");
            match change {
                Change::None => {}
                Change::Touch(stat) => txn.touch.push((path.clone(), stat)),
                Change::Edit(mut new) => {
                    if let Some(stat) = new.stat {
                        arrived.insert((stat.ino, stat.size));
                        if new.entry.node.kind() == Kind::Dir {
                            self.arrived_dir(now, stat.ino, &path);
                        }
                    }
                    if totals.need_files + totals.away_files > 0 {
                        new.entry = self.settle(&path, new.entry, index, &mut txn)?;
                    }
                    txn.put.push((path.clone(), new));
                }
            }
            if same {
                self.retry_soon(now, &path);
            } else if self.retries.remove(&path).is_some() {
                self.walker.again();
            }
            if self.look_again.remove(&path) {
                rescan.push(path);
            }
        }
        self.commit(txn, &[], index)?;
        for dir in gone_dirs {
            self.look_below(&dir, index, &mut rescan)?;
        }
        if !rescan.is_empty() {
            out.push(Effect::Rescan(rescan));
        }
        Ok(())
    }

    /// A folder went away: what operations put below it since that was seen, or are putting there
    /// now, went with it, and nothing tells of that by itself.
    fn look_below(
        &mut self,
        dir: &RelPath,
        index: &dyn Index,
        rescan: &mut Vec<RelPath>,
    ) -> Result<(), IndexError> {
        let busy = self.busy.keys().filter(|p| p.is_below(dir));
        self.look_again.extend(busy.cloned());
        let known = index.live_below(dir, None, MAX_BELOW)?;
        rescan.extend(known.into_iter().map(|(p, _)| p));
        Ok(())
    }

    /// Whether the absence of `path` is to be announced now. `batch`: inodes that it shows at a new path,
    /// and what it shows to be gone.
    fn may_delete(
        &mut self,
        now: Now,
        path: &RelPath,
        record: Option<&Record>,
        batch: (&HashSet<(u64, u64)>, &HashSet<RelPath>),
        files: u64,
        index: &dyn Index,
    ) -> Result<bool, IndexError> {
        let Some(record) = record.filter(|r| r.entry.node.is_live()) else {
            return Ok(true);
        };
        if self.alarm.is_some() {
            // Looked at again when the user has decided.
            cover("local: deletion under an alarm");
            return Ok(false);
        }
        if self.accepting || self.meant.contains(path) {
            cover("local: deletion meant");
            return Ok(true);
        }
        if self.guard.holds(path) {
            // Seen before in this burst: counted once.
            cover("local: deletion seen again");
            return Ok(false);
        }
        if self.is_moved(path, record, batch, index)? {
            cover("local: not deleted but moved");
            return Ok(true);
        }
        let is_dir = record.entry.node.kind() == Kind::Dir;
        let ino = record.stat.map(|stat| stat.ino);
        if let Some(ino) = ino.filter(|_| is_dir)
            && self.stands_elsewhere(now, ino, path, batch.1, index)?
        {
            cover("local: folder not deleted but moved");
            return Ok(true);
        }
        if is_dir && !self.guard.is_holding() && mutant("a folder's deletion is not held") {
            return Ok(true);
        }
        if is_dir {
            self.guard.deleted_dir(now.mono_ms, path.clone());
        } else {
            self.guard.deleted(now.mono_ms, files, path.clone());
        }
        Ok(false)
    }

    /// Whether our record says that something stands at a path where a look found nothing, or an operation
    /// something else, and that is not judged yet. What would settle an announcement with that record alone
    /// has to wait: else the deletion would be one of what was announced.
    pub(super) fn may_be_gone(&self, path: &RelPath) -> bool {
        (self.is_missed(path) || self.is_waiting(path))
            && !mutant("what is gone is settled by its record")
    }

    /// Whether a look found nothing at a path of our record, and its deletion is not told yet.
    pub(super) fn is_missed(&self, path: &RelPath) -> bool {
        self.guard.holds(path) || self.meant.contains(path)
    }

    /// Has what an announcement would settle looked at again when [`may_be_gone`](Self::may_be_gone) is judged.
    pub(super) fn put_off(&mut self, path: &RelPath) {
        self.put_off.insert(path.clone());
    }

    /// What was put off and is judged now is fresh again.
    pub(super) fn take_up(&mut self) {
        if self.put_off.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.put_off).into_iter();
        let (wait, judged): (Vec<RelPath>, Vec<RelPath>) =
            all.partition(|path| self.may_be_gone(path));
        self.put_off = wait.into_iter().collect();
        self.fresh.extend(judged);
    }

    fn is_moved(
        &self,
        path: &RelPath,
        record: &Record,
        (arrived, gone): (&HashSet<(u64, u64)>, &HashSet<RelPath>),
        index: &dyn Index,
    ) -> Result<bool, IndexError> {
        let Some(stat) = record.stat else {
            return Ok(false);
        };
        if arrived.contains(&(stat.ino, stat.size)) {
            return Ok(true);
        }
        let same = index.by_inode(stat.ino, stat.size, stat.mtime)?;
        let vanished = |p: &RelPath| gone.contains(p) || self.guard.holds(p);
        let blind = mutant("what moved and vanished counts as moved");
        let stands = |p: &RelPath| p != path && (blind || !vanished(p));
        // Of a rename that was seen in part the old name may not have been looked at: it says nothing.
        let any = blind || mutant("an older place counts as a move");
        let later = |r: &Record| any || r.stat.is_some_and(|s| s.ctime >= stat.ctime);
        Ok(same.iter().any(|(p, r)| stands(p) && later(r)))
    }

    /// A folder with this inode was seen at `path`, where none was before.
    fn arrived_dir(&mut self, now: Now, ino: u64, path: &RelPath) {
        if self.arrived_dirs.len() >= MAX_ARRIVED {
            self.arrived_dirs.clear();
        }
        self.arrived_dirs.insert(ino, (path.clone(), now.mono_ms));
    }

    /// Whether a folder that is missing at `path` stands elsewhere now; `gone`: what the same look did not
    /// find. Only its inode tells (its size and times change with what is in it), and a file system gives
    /// that of a deleted folder out again: what arrived with it has to be there still. Where files vanish
    /// too, the judgement of those is waited for.
    fn stands_elsewhere(
        &self,
        now: Now,
        ino: u64,
        path: &RelPath,
        gone: &HashSet<RelPath>,
        index: &dyn Index,
    ) -> Result<bool, IndexError> {
        let since = now.mono_ms.saturating_sub(QUIET_MS);
        let Some((at, seen)) = self.arrived_dirs.get(&ino) else {
            return Ok(false);
        };
        if self.guard.is_counting() || at == path || *seen < since {
            return Ok(false);
        }
        if mutant("a folder that arrived and left counts as a move") {
            return Ok(true);
        }
        let there = index.get(at)?.filter(|r| r.entry.node.kind() == Kind::Dir);
        let same = there.and_then(|r| r.stat).is_some_and(|s| s.ino == ino);
        Ok(same && !gone.contains(at) && !self.guard.holds(at))
    }

    /// Our entry of `path` becomes `entry`: drops what peers announced and is thereby settled, and
    /// returns the entry that knows of it.
    pub(super) fn settle(
        &mut self,
        path: &RelPath,
        entry: Entry,
        index: &dyn Index,
        txn: &mut Txn,
    ) -> Result<Entry, IndexError> {
        Ok(self.settle_with(path, entry, &index.theirs(path)?, txn))
    }

    /// [`settle`](Self::settle) with all that peers announced of the path.
    pub(super) fn settle_with(
        &mut self,
        path: &RelPath,
        mut entry: Entry,
        announced: &[(DeviceId, Entry)],
        txn: &mut Txn,
    ) -> Entry {
        for (peer, theirs) in announced {
            match self.decide(Some(&entry), theirs) {
                Decision::Take { .. } => {
                    cover("settle: another announcement is to be taken");
                    self.fresh.push(path.clone());
                    if !self.choice.selection.is_everything() {
                        txn.away.push((path.clone(), false));
                    }
                    continue;
                }
                Decision::Merge(merged) => {
                    cover("settle: joined with another announcement");
                    entry = merged;
                }
                Decision::InSync | Decision::Older | Decision::Await => {}
            }
            txn.theirs_del.push((*peer, path.clone()));
        }
        entry
    }

    /// Nothing is left of the share. Said before anything is put there, which would hide it.
    pub(super) fn emptied(
        &mut self,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let totals = index.totals()?;
        let files = totals.files + totals.links;
        if is_emptied(files) {
            cover("local: found empty at the start");
            self.raise_alarm(vanished(files, files), out);
        }
        Ok(())
    }

    /// Ends a burst of deletions, by announcing it or by raising the alarm.
    pub(super) fn settle_deletions(
        &mut self,
        now: Now,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        if self.guard.due().is_none() {
            return Ok(());
        }
        let totals = index.totals()?;
        let files = totals.files + totals.links;
        let Some((verdict, held)) = self.guard.settle(now.mono_ms, files) else {
            return Ok(());
        };
        match verdict {
            Verdict::Alarm { gone, of } => self.raise_alarm(vanished(gone, of), out),
            // Looked at once more: something may stand there again, and a folder that looks as our
            // record says is not told of by itself.
            Verdict::Meant => {
                out.push(Effect::Rescan(held.iter().cloned().collect()));
                self.meant.extend(held);
                self.own_barrier(out);
            }
        }
        Ok(())
    }

    /// The user looked into the alarm.
    pub(super) fn resume(&mut self, accept_deletions: bool, out: &mut Vec<Effect>) {
        if self.alarm.take().is_some() {
            out.push(Effect::Report(Report::AlarmOver));
        }
        self.accepting = accept_deletions;
        if accept_deletions {
            self.accept_torn();
        }
        self.paused = false;
        self.scanned = false;
        out.push(Effect::RescanAll);
        self.walker.again();
    }

    /// Keeps a folder that peers want gone or replaced, because it holds something here: a new
    /// edit, concurrent with theirs, so that the rules for concurrent edits decide the rest.
    pub(super) fn keep_dir(
        &mut self,
        now: Now,
        path: &RelPath,
        index: &dyn Index,
        txn: &mut Txn,
    ) -> Result<(), IndexError> {
        let Some(mut record) = index.get(path)? else {
            return Ok(());
        };
        if self.config.role == Role::ReadOnly {
            // What others say would always win here, again and again.
            cover("keep: folder of a reader");
            for (_, theirs) in index.theirs(path)? {
                record.entry.version = record.entry.version.join(&theirs.version);
            }
        }
        let Node::Dir { mode } = record.entry.node else {
            return Ok(());
        };
        cover("keep: folder holds something here");
        let author = self.author(now, index);
        let mut new = crate::diff::edit(Some(&record), Node::Dir { mode }, record.stat, &author);
        new.entry = self.settle(path, new.entry, index, txn)?;
        txn.put.push((path.clone(), new));
        Ok(())
    }
}

/// The last look at each path, in the order in which the paths first came.
fn latest(seen: Vec<Observation>) -> Vec<Observation> {
    let mut at: HashMap<RelPath, usize> = HashMap::with_capacity(seen.len());
    let mut out: Vec<Observation> = Vec::with_capacity(seen.len());
    for o in seen {
        match at.get(&o.path) {
            Some(i) => out[*i] = o,
            None => {
                at.insert(o.path.clone(), out.len());
                out.push(o);
            }
        }
    }
    out
}

fn vanished(gone: u64, of: u64) -> String {
    format!(
        "{gone} of {of} files vanished at once; no deletion was sent to others. Put the files back \
         and run `left resume DIR`, or confirm the deletions with `left resume DIR \
         --accept-deletions`"
    )
}
