//! How a path comes to be what it should be: by a fetch, a rename, a new folder or new metadata, each
//! after the folder it belongs in.

use super::work::{Batch, Job, MAX_BIG, MAX_COPIES, PAGE, Retry, Which, big, expect};
use super::{Engine, Now};
use crate::content::ContentId;
use crate::diff::edit;
use crate::entry::{Entry, Kind, Node, Record};
use crate::index::{Index, IndexError, Need};
use crate::message::Role;
use crate::path::RelPath;
use crate::plan::{Expect, FetchItem, Op};
use crate::probe::{cover, mutant};
use crate::reconcile::{Decision, best};
use crate::session::Session;
use crate::version::DeviceId;

/// How long a new file that looks like half a rename waits for the other half.
const HOPE_MS: u64 = 100;
/// Files that wait for it at once.
const MAX_HOPES: usize = 5000;

impl Engine {
    pub(super) fn start_live(
        &mut self,
        now: Now,
        mut job: Job,
        need: &Need,
        index: &dyn Index,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        let ours_live = job.ours.as_ref().filter(|r| r.entry.node.is_live());
        let ours_kind = ours_live.map(|r| r.entry.node.kind());
        let kind = job.target.node.kind();
        if ours_kind == Some(Kind::Dir)
            && kind != Kind::Dir
            && self.is_draining(&job.path, index)?
        {
            cover("plan: folder to be replaced is not empty yet");
            self.walker.defer(&job.path);
            return Ok(());
        }
        if !self.parent_ready(now, &job.path, index, batch)? {
            cover("plan: parent not ready");
            self.walker.defer(&job.path);
            return Ok(());
        }
        let path = job.path.clone();
        let node = job.target.node.clone();
        let expect = job.expect();
        let same = !job.torn && ours_live.is_some_and(|r| r.entry.node.same_bytes(&node));
        match (kind, same) {
            (Kind::Dir | Kind::File, true) => {
                cover("plan: set metadata");
                self.begin(job, Op::SetMeta { path, node, expect }, batch);
            }
            (Kind::Dir | Kind::Symlink, _) => {
                cover("plan: place a folder or link");
                let loser = job.loser.clone();
                let op = Op::Place {
                    path,
                    node,
                    staged: None,
                    expect,
                    loser,
                };
                self.begin(job, op, batch);
            }
            _ => {
                let twins = match node.content().filter(|_| node.size() > 0) {
                    Some(content) => index.by_content(&content, MAX_COPIES)?,
                    None => Vec::new(),
                };
                if expect == Expect::Absent
                    && let Some((from, record, gone)) = self.rename_source(&twins, &path, index)?
                {
                    cover("plan: rename");
                    let op = Op::Move {
                        from: from.clone(),
                        expect: super::work::expect(Some(&record)),
                        to: path,
                        node,
                    };
                    job.moved = Some((from, record, gone));
                    self.begin(job, op, batch);
                    return Ok(());
                }
                let copies = twins.into_iter().map(|(p, _)| p).collect();
                self.start_fetch(now, job, need, copies, batch);
            }
        }
        Ok(())
    }

    /// A folder that is to be replaced still has children whose deletion is under way or needed.
    pub(super) fn is_draining(
        &self,
        path: &RelPath,
        index: &dyn Index,
    ) -> Result<bool, IndexError> {
        let live = !index.live_below(path, None, 1)?.is_empty();
        Ok(live && (index.needs_below(path)? || self.busy.keys().any(|p| p.is_below(path))))
    }

    /// As a read-only member: all that our index has below a folder is others' and for them to
    /// delete.
    pub(super) fn is_theirs_below(
        &self,
        path: &RelPath,
        index: &dyn Index,
    ) -> Result<bool, IndexError> {
        if self.config.role != Role::ReadOnly {
            return Ok(false);
        }
        let some = index.live_below(path, None, PAGE)?;
        let own = |r: &Record| r.entry.stamp.device == self.config.device;
        Ok(!some.is_empty() && !some.iter().any(|(_, r)| own(r)))
    }

    /// Of files of ours with the content wanted one that itself is to be deleted.
    fn rename_source(
        &self,
        twins: &[(RelPath, Record)],
        path: &RelPath,
        index: &dyn Index,
    ) -> Result<Option<(RelPath, Record, Entry)>, IndexError> {
        if self.retries.get(path).is_some_and(|r| r.attempts > 0)
            && !mutant("a rename that failed is tried again")
        {
            // The old file may not be where our index has it: the bytes are brought instead.
            cover("plan: no rename after a failure");
            return Ok(None);
        }
        for (from, record) in twins {
            let in_use = self.busy.contains_key(from) || self.sources.contains_key(from);
            if from == path || in_use {
                continue;
            }
            let theirs = index.theirs(from)?;
            let Some(theirs) = best(&theirs) else {
                continue;
            };
            if let Decision::Take { target, .. } = self.decide(Some(&record.entry), theirs)
                && !target.node.is_live()
                && !self.withholds(from, &target.node)
            {
                return Ok(Some((from.clone(), record.clone(), target)));
            }
        }
        Ok(None)
    }

    /// `copies`: files of ours with the content wanted.
    fn start_fetch(
        &mut self,
        now: Now,
        mut job: Job,
        need: &Need,
        mut copies: Vec<RelPath>,
        batch: &mut Batch,
    ) {
        let (Some(content), size) = (job.target.node.content(), job.target.node.size()) else {
            return;
        };
        if self.full_until.is_some() {
            cover("plan: no fetch while the disk is full");
            return;
        }
        job.fetching = big(&job.target.node);
        if let Some(content) = job.fetching {
            if self.contents.contains(&content) {
                cover("plan: big content is under way");
                self.walker.defer(&job.path);
                return;
            }
            if self.contents.len() >= MAX_BIG {
                cover("plan: enough big contents under way");
                self.walker.note_big(&job.path);
                return;
            }
        }
        copies.retain(|p| !self.busy.contains_key(p));
        if !copies.is_empty() && self.hope_for_rename(now, &job.path, content) {
            cover("plan: wait for the other half of a rename");
            return;
        }
        let announced = need
            .theirs
            .iter()
            .filter(|(_, e)| e.node.content() == Some(content));
        let mut peers: Vec<_> = self.connected(announced.map(|(d, _)| d)).collect();
        if peers.is_empty() && self.asks_all(&need.theirs) {
            // Who got it from us never announced it.
            cover("plan: fetch from whoever may have it");
            let writes = |(_, s): &(&DeviceId, &Session)| s.role == Role::ReadWrite;
            peers.extend(self.sessions.iter().filter(writes).map(|(d, _)| *d));
        }
        if peers.is_empty() && copies.is_empty() && size > 0 {
            // Asked for again when a peer comes.
            cover("plan: nobody here has it");
            return;
        }
        let base = job.ours.as_ref().and_then(|r| {
            let content = r.entry.node.content()?;
            Some((job.path.clone(), content))
        });
        cover(match (copies.is_empty(), base.is_some()) {
            (false, _) => "plan: fetch, with copies here",
            (true, true) => "plan: fetch, with an older version here",
            (true, false) => "plan: fetch",
        });
        job.copies.clone_from(&copies);
        let id = self.claim(job);
        batch.fetch.push(FetchItem {
            id,
            path: need.path.clone(),
            content,
            size,
            copies,
            base,
            peers,
        });
    }

    /// A new file with bytes that we have at another path looks like a rename of which the deletion
    /// is not told yet: left alone for a moment, once. Returns whether to wait.
    fn hope_for_rename(&mut self, now: Now, path: &RelPath, content: ContentId) -> bool {
        if self.retries.contains_key(path) || self.retries.len() >= MAX_HOPES {
            // Waited already, or something went wrong here.
            if let Some(paths) = self.hopes.get_mut(&content) {
                paths.retain(|p| p != path);
                if paths.is_empty() {
                    self.hopes.remove(&content);
                }
            }
            return false;
        }
        let at = Some(now.mono_ms + HOPE_MS);
        self.retries.insert(path.clone(), Retry { at, attempts: 0 });
        self.hopes.entry(content).or_default().push(path.clone());
        true
    }

    /// A peer deleted a file of ours: new files with its bytes need not wait any longer.
    pub(super) fn hope_fulfilled(&mut self, ours: Option<&Record>) {
        let content = ours.and_then(|r| r.entry.node.content());
        for path in content
            .and_then(|c| self.hopes.remove(&c))
            .unwrap_or_default()
        {
            cover("plan: the other half of a rename came");
            self.retries.remove(&path);
            self.fresh.push(path);
        }
    }

    /// Whether the folder that `path` belongs in is there, or will be by an operation that comes
    /// before; makes it where the child's existence demands it.
    fn parent_ready(
        &mut self,
        now: Now,
        path: &RelPath,
        index: &dyn Index,
        batch: &mut Batch,
    ) -> Result<bool, IndexError> {
        let Some(parent) = path.parent() else {
            return Ok(true);
        };
        if let Some(id) = self.busy.get(&parent) {
            cover("parent: busy");
            let target = self.jobs.get(id).map(|j| j.target.node.kind());
            return Ok(target == Some(Kind::Dir));
        }
        let record = batch.record(&parent, index)?;
        if record
            .as_ref()
            .is_some_and(|r| r.entry.node.kind() == Kind::Dir)
        {
            return Ok(true);
        }
        if self.is_waiting(&parent) {
            cover("parent: waits");
            return Ok(false);
        }
        let theirs = index.theirs(&parent)?;
        if let Some(theirs) = best(&theirs)
            && let Decision::Take { target, .. } =
                self.decide(record.as_ref().map(|r| &r.entry), theirs)
            && target.node.kind() == Kind::Dir
        {
            cover("parent: to be made too");
            let need = Need {
                path: parent.clone(),
                theirs: index.theirs(&parent)?,
            };
            self.start_wanted(now, &need, Which::Any, index, batch)?;
            return Ok(self.busy.contains_key(&parent));
        }
        let theirs = record.as_ref().map(|r| r.entry.stamp.device) != Some(self.config.device);
        if self.config.role == Role::ReadOnly && theirs {
            // Those whose edits count make the folder again, or take back what is in it.
            cover("parent: for others to make");
            return Ok(false);
        }
        if !self.parent_ready(now, &parent, index, batch)? {
            return Ok(false);
        }
        cover("parent: made again");
        self.remake(now, parent, record, index, batch)
    }

    /// Somebody deleted or replaced a folder while somebody else put something into it: what is in
    /// it must stay reachable, so the folder is made again. Whether that could be started.
    fn remake(
        &mut self,
        now: Now,
        parent: RelPath,
        record: Option<Record>,
        index: &dyn Index,
        batch: &mut Batch,
    ) -> Result<bool, IndexError> {
        let node = Node::Dir { mode: 0o755 };
        let target = edit(
            record.as_ref(),
            node.clone(),
            None,
            &self.author(now, index),
        )
        .entry;
        let live = record.as_ref().filter(|r| r.entry.node.is_live());
        let loser = match live {
            Some(r) => self.loser_path(&parent, &r.entry, index)?,
            None => None,
        };
        if loser.as_ref().is_some_and(|c| self.busy.contains_key(c)) {
            cover("parent: the conflict copy's name is busy");
            return Ok(false);
        }
        let op = Op::Place {
            path: parent.clone(),
            node,
            staged: None,
            expect: expect(record.as_ref()),
            loser: loser.clone(),
        };
        let job = Job {
            path: parent,
            target,
            ours: record,
            loser,
            moved: None,
            fetching: None,
            copies: Vec::new(),
            torn: false,
            heals: None,
            drops: false,
        };
        self.begin(job, op, batch);
        Ok(true)
    }
}
